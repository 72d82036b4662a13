/* Which kernel set runs: the last of the table that this CPU can execute. */
#include "tensor/kernels.h"

#include "tensor/cpu.h"
#include "tensor/kernels_impl.h"
#include "tensor/packed_kernels.h"

#include <stdbool.h>
#include <string.h>

static bool always(void)
{
    return true;
}

#if defined(__x86_64__)
static bool has_avx2(void)
{
    return cpu_features().avx2;
}

static bool has_avxvnni(void)
{
    return cpu_features().avx_vnni;
}

static bool has_vnni(void)
{
    return cpu_features().avx512_vnni;
}

static bool has_amx(void)
{
    return cpu_features().amx && packed_amx_permitted();
}
#endif

/* Slowest first. */
static const struct {
    const struct kernels *kernels;
    bool (*runs_here)(void);
    const char *needs;
} sets[] = {
    {&kernels_ref, always, "nothing"},
#if defined(__x86_64__)
    {&kernels_avx2, has_avx2, "AVX2, FMA and F16C"},
    {&kernels_avxvnni, has_avxvnni, "AVX-VNNI, AVX2, FMA and F16C"},
    {&kernels_vnni, has_vnni, "AVX-512 with VNNI"},
    {&kernels_amx, has_amx, "AMX, AVX-512 with VNNI and BF16"},
#endif
};

enum { N_SETS = sizeof sets / sizeof *sets };

const char *const *kernels_names(void)
{
    static const char *const names[] = {
        "auto",
        "ref",
#if defined(__x86_64__)
        "avx2",
        "avxvnni",
        "vnni",
        "amx",
#endif
        NULL,
    };
    return names;
}

static const struct kernels *best(void)
{
    int i = N_SETS - 1;
    while (i > 0 && !sets[i].runs_here()) {
        i--;
    }
    return sets[i].kernels;
}

static int unknown_name(const char *name, struct err *e)
{
    char list[128] = "";
    size_t n = 0;
    for (const char *const *p = kernels_names(); *p && n < sizeof list; p++) {
        int w = snprintf(list + n, sizeof list - n, "%s%s", n ? ", " : "", *p);
        n += w > 0 ? (size_t)w : 0;
    }
    return err_set(e, ERR_INVALID, "there are no kernels named \"%.64s\"; there are %s", name,
                   list);
}

static const struct kernels *preferred;

void kernels_prefer(const struct kernels *k)
{
    preferred = k;
}

const struct kernels *kernels_choose(const char *name, struct err *e)
{
    if (!name || !strcmp(name, "auto")) {
        return preferred ? preferred : best();
    }
    for (int i = 0; i < N_SETS; i++) {
        if (strcmp(name, sets[i].kernels->name) != 0) {
            continue;
        }
        if (!sets[i].runs_here()) {
            err_set(e, ERR_UNSUPPORTED, "the kernels \"%s\" need %s, which this CPU lacks", name,
                    sets[i].needs);
            return NULL;
        }
        return sets[i].kernels;
    }
    unknown_name(name, e);
    return NULL;
}
