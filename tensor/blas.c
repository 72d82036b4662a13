/* OpenBLAS, and the repair of its choice of core.
 *
 * The library picks its kernels when it is loaded, before main, from the CPU's model
 * number; a number it does not know (common in virtual machines) ends in the SSE3 set, a
 * fifth of the speed. The only door is an environment variable, also read at load time:
 * hence set it and start the same program again, once. A variable marks the second start
 * and is removed there, so that neither we nor a child can loop. */
#include "tensor/blas.h"

#include "tensor/blas_impl.h"

#include <cblas.h>
#include <errno.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define CORE_VARIABLE "OPENBLAS_CORETYPE"
#define MARK_VARIABLE "TAMP_BLAS_REEXEC"

static char correction[160];

enum core_level { LEVEL_UNKNOWN, LEVEL_SSE, LEVEL_AVX, LEVEL_AVX2, LEVEL_AVX512 };

static enum core_level core_level(const char *core)
{
    static const struct {
        const char *name;
        enum core_level level;
    } cores[] = {
        {"Katmai", LEVEL_SSE},        {"Coppermine", LEVEL_SSE},
        {"Northwood", LEVEL_SSE},     {"Prescott", LEVEL_SSE},
        {"Banias", LEVEL_SSE},        {"Atom", LEVEL_SSE},
        {"Core2", LEVEL_SSE},         {"Penryn", LEVEL_SSE},
        {"Dunnington", LEVEL_SSE},    {"Nehalem", LEVEL_SSE},
        {"Athlon", LEVEL_SSE},        {"Opteron", LEVEL_SSE},
        {"Opteron_SSE3", LEVEL_SSE},  {"Barcelona", LEVEL_SSE},
        {"Nano", LEVEL_SSE},          {"Bobcat", LEVEL_SSE},
        {"Sandybridge", LEVEL_AVX},   {"Bulldozer", LEVEL_AVX},
        {"Piledriver", LEVEL_AVX},    {"Steamroller", LEVEL_AVX},
        {"Excavator", LEVEL_AVX},     {"Haswell", LEVEL_AVX2},
        {"Zen", LEVEL_AVX2},          {"SkylakeX", LEVEL_AVX512},
        {"Cooperlake", LEVEL_AVX512}, {"SapphireRapids", LEVEL_AVX512},
    };
    for (size_t i = 0; i < sizeof cores / sizeof *cores; i++) {
        if (!strcasecmp(core, cores[i].name)) {
            return cores[i].level;
        }
    }
    return LEVEL_UNKNOWN;
}

const char *blas_better_core(struct cpu_features cpu, const char *core)
{
    enum core_level level = core ? core_level(core) : LEVEL_UNKNOWN;
    if (level == LEVEL_UNKNOWN) {
        return NULL;
    }
    if (cpu.avx512) {
        return level < LEVEL_AVX512 ? "SkylakeX" : NULL;
    }
    return cpu.avx2 && level < LEVEL_AVX2 ? "Haswell" : NULL;
}

const char *blas_core_name(void)
{
    return openblas_get_corename();
}

const char *blas_correction(void)
{
    return correction;
}

/* The second start: say what the first one found. */
static void note_second_start(const char *first_core, const char *wanted)
{
    if (wanted) {
        snprintf(correction, sizeof correction,
                 "OpenBLAS chose %.32s and does not offer %.32s: large products are slow",
                 first_core, wanted);
    } else {
        snprintf(correction, sizeof correction, "OpenBLAS had chosen %.32s", first_core);
    }
}

void blas_init(char **argv)
{
    const char *core = blas_core_name();
    const char *wanted = blas_better_core(cpu_features(), core);
    const char *first_core = getenv(MARK_VARIABLE);
    openblas_set_num_threads(1);
    if (first_core) {
        note_second_start(first_core, wanted);
        unsetenv(MARK_VARIABLE);
        return;
    }
    if (!wanted || getenv(CORE_VARIABLE)) {
        return;
    }
    if (setenv(CORE_VARIABLE, wanted, 1) || setenv(MARK_VARIABLE, core, 1)) {
        unsetenv(CORE_VARIABLE);
        return;
    }
    execv("/proc/self/exe", argv);
    snprintf(correction, sizeof correction,
             "OpenBLAS chose %.32s; set %s=%s for faster products (restart failed: %.40s)", core,
             CORE_VARIABLE, wanted, strerror(errno));
    unsetenv(MARK_VARIABLE);
    unsetenv(CORE_VARIABLE);
}

void blas_gemm_nt(int m, int n, int k, const float *a, int lda, const float *b, int ldb, float *c,
                  int ldc)
{
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, k, 1.0f, a, lda, b, ldb, 0.0f, c,
                ldc);
}
