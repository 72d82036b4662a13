/* BLAS: the product's convention, and the decision about the core, which is pure. */
#include "tensor/blas.h"
#include "tensor/blas_impl.h"
#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *better(bool avx2, bool avx512, const char *core)
{
    struct cpu_features cpu = {.avx2 = avx2, .avx512 = avx512};
    const char *name = blas_better_core(cpu, core);
    return name ? name : "keep";
}

TEST(blas_core_decision, "a core below the CPU is corrected, anything else is left alone")
{
    static const struct {
        bool avx2, avx512;
        const char *core;
        const char *want;
    } rows[] = {
        {true, true, "Prescott", "SkylakeX"},
        {true, true, "Sandybridge", "SkylakeX"},
        {true, true, "Haswell", "SkylakeX"},
        {true, true, "SkylakeX", "keep"},
        {true, true, "Cooperlake", "keep"},
        {true, false, "Prescott", "Haswell"},
        {true, false, "Nehalem", "Haswell"},
        {true, false, "core2", "Haswell"},
        {true, false, "Sandybridge", "Haswell"},
        {true, false, "Zen", "keep"},
        {true, false, "Haswell", "keep"},
        {false, false, "Prescott", "keep"},
        {false, false, "Sandybridge", "keep"},
        {true, true, "ARMV8", "keep"},
        {true, true, "", "keep"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        CHECK_STR(better(rows[i].avx2, rows[i].avx512, rows[i].core), rows[i].want);
    }
    CHECK(!blas_better_core((struct cpu_features){.avx2 = true, .avx512 = true}, NULL));
}

TEST(blas_init_second_start, "the mark of the second start is removed and put into words")
{
    char program[] = "tests";
    char *argv[] = {program, NULL};
    setenv("TAMP_BLAS_REEXEC", "Prescott", 1);
    blas_init(argv);
    CHECK(!getenv("TAMP_BLAS_REEXEC"));
    CHECK(strstr(blas_correction(), "Prescott"));
    CHECK(blas_core_name()[0]);
}

TEST(blas_init_respects_the_user, "a core type that somebody set is never changed")
{
    char program[] = "tests";
    char *argv[] = {program, NULL};
    /* Not empty where the runner itself is a second start. */
    char before[160];
    snprintf(before, sizeof before, "%s", blas_correction());
    setenv("OPENBLAS_CORETYPE", "Haswell", 1);
    blas_init(argv);
    CHECK_STR(getenv("OPENBLAS_CORETYPE"), "Haswell");
    CHECK_STR(blas_correction(), before);
}

TEST(blas_product, "C = A B^T with leading dimensions; what lies between rows stays")
{
    const float a[2 * 4] = {1, 2, 3, -9, 4, 5, 6, -9}; /* [2, 3], lda 4 */
    const float b[2 * 3] = {1, 0, -1, 2, 1, 0};        /* [2, 3], ldb 3 */
    float c[2 * 3] = {7, 7, 7, 7, 7, 7};               /* [2, 2], ldc 3 */
    const float want[6] = {-2, 4, 7, -2, 13, 7};
    blas_gemm_nt(2, 2, 3, a, 4, b, 3, c, 3);
    CHECK_DOUBLE(test_max_diff(c, want, 6), ==, 0);
}
