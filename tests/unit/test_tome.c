/* ToMe against a naive reference written from the paper's formulas (double, all pairs,
 * no sorting), and its schedule against the counts of an independent implementation. */
#include "base/alloc.h"
#include "compress/compressor.h"
#include "tests/test.h"
#include "tests/unit/random_rows.h"

#include <stdbool.h>

#define ARENA_MAX ((size_t)64 << 20)
#define WIDTH     16
#define MAX_ROWS  96

static const struct compressor *tome(void)
{
    return compressor_find("tome");
}

static void set(double *options, const char *name, double v)
{
    options[compressor_option_index(tome(), name)] = v;
}

static void run_layer(const double *options, int layer, int n_layer, struct rows *r,
                      const float *metric, struct arena *scratch)
{
    struct err e = ERR_INIT;
    struct compress_outcome out = {0};
    struct compress_call call = {.stage = STAGE_VIT_LAYER,
                                 .layer = layer,
                                 .n_layer = n_layer,
                                 .metric = metric,
                                 .n_metric = WIDTH,
                                 .options = options};
    CHECK_OK(tome()->ops.apply(&call, r, scratch, &out, &e), e);
    CHECK_OK(rows_check(r, &e), e);
}

static int free_rows(const struct rows *r)
{
    int n = 0;
    for (int i = 0; i < r->n; i++) {
        n += !(r->flags[i] & ROW_PROTECTED);
    }
    return n;
}

static double naive_cosine(const float *a, const float *b)
{
    double ab = 0;
    double aa = 0;
    double bb = 0;
    for (int d = 0; d < WIDTH; d++) {
        ab += (double)a[d] * (double)b[d];
        aa += (double)a[d] * (double)a[d];
        bb += (double)b[d] * (double)b[d];
    }
    return aa > 0 && bb > 0 ? ab / sqrt(aa * bb) : 0;
}

/* The expected group of each row as the index of the row it ends in, and the expected
 * order of those rows. n_merge pairs are taken one by one, the best first; without any
 * the rows stay where they are. */
static int naive_merge(const struct rows *r, const float *metric, int n_merge, int *into,
                       int *order)
{
    int a[MAX_ROWS];
    int b[MAX_ROWS];
    int n_a = 0;
    int n_b = 0;
    int n_out = 0;
    for (int i = 0; i < r->n; i++) {
        into[i] = i;
        order[i] = i;
    }
    if (n_merge == 0) {
        return r->n;
    }
    for (int i = 0; i < r->n; i++) {
        if (r->flags[i] & ROW_PROTECTED) {
            order[n_out++] = i;
        } else if ((n_a + n_b) % 2 == 0) {
            a[n_a++] = i;
        } else {
            b[n_b++] = i;
        }
    }
    for (int k = 0; k < n_merge; k++) {
        double best = -INFINITY;
        int from = -1;
        int to = -1;
        for (int i = 0; i < n_a; i++) {
            for (int j = 0; j < n_b && into[a[i]] == a[i]; j++) {
                double c = naive_cosine(metric + a[i] * WIDTH, metric + b[j] * WIDTH);
                if (c > best) {
                    best = c;
                    from = a[i];
                    to = b[j];
                }
            }
        }
        into[from] = to;
    }
    for (int i = 0; i < n_a; i++) {
        if (into[a[i]] == a[i]) {
            order[n_out++] = a[i];
        }
    }
    for (int j = 0; j < n_b; j++) {
        order[n_out++] = b[j];
    }
    return n_out;
}

/* One layer of `r` against the naive merge of the same rows. */
static void compare_layer(struct rows *r, const float *metric, const double *options, int layer,
                          int n_layer, struct arena *a)
{
    struct rows before;
    int into[MAX_ROWS];
    int order[MAX_ROWS];
    copy_rows(&before, a, r);
    run_layer(options, layer, n_layer, r, metric, a);
    int n = naive_merge(&before, metric, before.n - r->n, into, order);
    CHECK_INT(n, ==, r->n);
    for (int k = 0; k < n; k++) {
        double sum[WIDTH] = {0};
        double mass = 0;
        for (int i = 0; i < before.n; i++) {
            if (into[i] == order[k]) {
                mass += (double)before.mass[i];
                for (int d = 0; d < WIDTH; d++) {
                    sum[d] += (double)before.mass[i] * (double)before.x[i * WIDTH + d];
                }
            }
        }
        CHECK_DOUBLE(r->mass[k], ==, mass);
        for (int d = 0; d < WIDTH; d++) {
            /* a mean of at most 96 fp32 values below 2 */
            CHECK_DOUBLE(fabs(sum[d] / mass - (double)r->x[k * WIDTH + d]), <, 2e-6);
        }
    }
    for (int s = 0; s < before.n_source; s++) {
        CHECK_INT(order[r->owner[s]], ==, into[before.owner[s]]);
    }
}

static void compare_tower(int n, int protect_every, enum row_shape shape, const double *options,
                          struct rng *g)
{
    struct arena a;
    struct rows r;
    float metric[MAX_ROWS * WIDTH];
    arena_init(&a, ARENA_MAX);
    random_rows(&r, &a, n, WIDTH, SHAPE_UNIFORM, g);
    for (int i = 0; i < n && protect_every; i += protect_every) {
        r.flags[i] |= ROW_PROTECTED;
    }
    int n_free = free_rows(&r);
    for (int layer = 0; layer < 8; layer++) {
        random_values(metric, r.n, WIDTH, shape, g);
        if (r.n > 3) {
            memset(metric + 2 * WIDTH, 0, WIDTH * sizeof *metric);
        }
        compare_layer(&r, metric, options, layer, 8, &a);
    }
    CHECK_INT(free_rows(&r), ==, tome()->ops.predict(options, n_free));
    arena_clear(&a);
}

TEST(tome_naive_reference, "the same groups, order and means as all pairs by brute force")
{
    struct rng g;
    rng_init(&g, test_seed());
    const enum row_shape shapes[] = {SHAPE_UNIFORM, SHAPE_TIES, SHAPE_NEIGHBOURS};
    const int protect[] = {0, 1000, 5, 2, 1};
    for (int n = 0; n <= MAX_ROWS; n += n < 10 ? 1 : 17) {
        for (int s = 0; s < 3; s++) {
            for (int p = 0; p < 5; p++) {
                double options[COMPRESSOR_MAX_OPTIONS];
                compressor_defaults(tome(), options);
                set(options, "ratio", 1 + 15 * rng_double(&g));
                set(options, "schedule", (double)rng_below(&g, 3));
                compare_tower(n, protect[p], shapes[s], options, &g);
            }
        }
    }
}

TEST(tome_golden_counts, "rows after each of the 12 layers of tome_224.vec: 2x, 4x, 8x")
{
    char *path = test_golden_path("tome_224.vec");
    FILE *f = fopen(path, "r");
    CHECK(f);
    char word[64];
    double ratio = 0;
    int n_checked = 0;
    while (fscanf(f, "%63s", word) == 1) {
        if (word[0] == '#') {
            CHECK(fscanf(f, "%*[^\n]") == 0);
        } else if (strcmp(word, "ratio") == 0) {
            CHECK_INT(fscanf(f, "%lf", &ratio), ==, 1);
        }
        if (strcmp(word, "rows") != 0 || ratio == 0) {
            continue;
        }
        struct arena a;
        struct rows r;
        struct rng g;
        double options[COMPRESSOR_MAX_OPTIONS];
        int n_layer;
        arena_init(&a, ARENA_MAX);
        rng_init(&g, test_seed());
        compressor_defaults(tome(), options);
        set(options, "ratio", ratio);
        random_rows(&r, &a, 257, WIDTH, SHAPE_UNIFORM, &g);
        r.flags[0] = ROW_PROTECTED;
        CHECK_INT(fscanf(f, "%d", &n_layer), ==, 1);
        for (int l = 0; l < n_layer; l++) {
            int want;
            CHECK_INT(fscanf(f, "%d", &want), ==, 1);
            run_layer(options, l, n_layer, &r, NULL, &a);
            CHECK_INT(r.n, ==, want + 1);
            CHECK_INT(r.owner[0], ==, 0);
            n_checked++;
        }
        arena_clear(&a);
    }
    fclose(f);
    mem_free(path);
    CHECK_INT(n_checked, ==, 36);
}

TEST(tome_decreasing_counts, "256 to 64 with falling weights takes the published steps")
{
    static const int removed[] = {32, 29, 26, 24, 20, 17, 15, 12, 8, 6, 3, 0};
    double options[COMPRESSOR_MAX_OPTIONS];
    compressor_defaults(tome(), options);
    for (int schedule = 1; schedule <= 2; schedule++) {
        struct arena a;
        struct rows r;
        struct rng g;
        arena_init(&a, ARENA_MAX);
        rng_init(&g, test_seed());
        set(options, "schedule", schedule);
        random_rows(&r, &a, 256, WIDTH, SHAPE_UNIFORM, &g);
        for (int l = 0; l < 12; l++) {
            int before = r.n;
            run_layer(options, l, 12, &r, NULL, &a);
            if (schedule == 2) {
                CHECK_INT(before - r.n, ==, removed[l]);
            } else {
                CHECK_INT(before - r.n, <=, before / 2);
            }
        }
        CHECK_INT(r.n, ==, 64);
        arena_clear(&a);
    }
}

TEST(tome_budget_exact, "every target that 12 halvings can reach is met to the row")
{
    static const int sizes[] = {2, 3, 7, 49, 100, 256, 333};
    for (int k = 0; k < 7; k++) {
        for (int rows = 1; rows <= sizes[k] + 3; rows += 1 + sizes[k] / 9) {
            for (int schedule = 0; schedule < 3; schedule++) {
                struct arena a;
                struct rows r;
                struct rng g;
                double options[COMPRESSOR_MAX_OPTIONS];
                arena_init(&a, ARENA_MAX);
                rng_init(&g, test_seed());
                compressor_defaults(tome(), options);
                set(options, "rows", rows);
                set(options, "schedule", schedule);
                random_rows(&r, &a, sizes[k], 4, SHAPE_UNIFORM, &g);
                for (int l = 0; l < 12; l++) {
                    int before = r.n;
                    run_layer(options, l, 12, &r, NULL, &a);
                    CHECK_INT(before - r.n, <=, before / 2);
                }
                CHECK_INT(r.n, ==, rows < sizes[k] ? rows : sizes[k]);
                CHECK_INT(r.n, ==, tome()->ops.predict(options, sizes[k]));
                arena_clear(&a);
            }
        }
    }
}

TEST(tome_shallow_tower, "a target out of reach of the blocks is approached as far as they go")
{
    struct arena a;
    struct rows r;
    struct rng g;
    double options[COMPRESSOR_MAX_OPTIONS];
    arena_init(&a, ARENA_MAX);
    rng_init(&g, test_seed());
    compressor_defaults(tome(), options);
    set(options, "rows", 1);
    random_rows(&r, &a, 65, WIDTH, SHAPE_UNIFORM, &g);
    run_layer(options, 0, 2, &r, NULL, &a);
    CHECK_INT(r.n, ==, 33);
    run_layer(options, 1, 2, &r, NULL, &a);
    CHECK_INT(r.n, ==, 17);
    arena_clear(&a);
}

TEST(tome_skips, "nothing to do is said in a word")
{
    struct arena a;
    struct rows r;
    struct rng g;
    struct err e = ERR_INIT;
    double options[COMPRESSOR_MAX_OPTIONS];
    arena_init(&a, ARENA_MAX);
    rng_init(&g, test_seed());
    compressor_defaults(tome(), options);
    struct compress_call call = {
        .stage = STAGE_VIT_LAYER, .layer = 0, .n_layer = 12, .options = options};
    struct compress_outcome out;
    random_rows(&r, &a, 3, WIDTH, SHAPE_UNIFORM, &g);
    memset(r.flags, ROW_PROTECTED, 3);
    CHECK_OK(tome()->ops.apply(&call, &r, &a, &out, &e), e);
    CHECK_STR(out.skipped, "all_protected");
    r.flags[1] = 0;
    CHECK_OK(tome()->ops.apply(&call, &r, &a, &out, &e), e);
    CHECK_STR(out.skipped, "too_few_rows");
    memset(r.flags, 0, 3);
    CHECK_OK(tome()->ops.apply(&call, &r, &a, &out, &e), e);
    CHECK(!out.skipped);
    arena_clear(&a);
}

TEST(tome_not_a_number, "rows whose metric is NaN find no partner and nothing crashes")
{
    struct arena a;
    struct rows r;
    struct rng g;
    double options[COMPRESSOR_MAX_OPTIONS];
    float metric[8 * WIDTH];
    arena_init(&a, ARENA_MAX);
    rng_init(&g, test_seed());
    compressor_defaults(tome(), options);
    random_rows(&r, &a, 8, WIDTH, SHAPE_UNIFORM, &g);
    for (int i = 0; i < 8 * WIDTH; i++) {
        metric[i] = NAN;
    }
    run_layer(options, 0, 1, &r, metric, &a);
    CHECK_INT(r.n, ==, 8);
    arena_clear(&a);
}

TEST(tome_adaptive,
     "every pair above the block's threshold merges, down to a quarter of the target")
{
    struct arena a;
    struct rng g;
    struct rows r;
    struct rows before;
    struct err e = ERR_INIT;
    struct compress_outcome out = {.weakest = -2};
    float thresholds[1] = {0.5f};
    double options[COMPRESSOR_MAX_OPTIONS];
    struct compress_call call = {
        .stage = STAGE_VIT_LAYER, .n_layer = 1, .options = options, .thresholds = NULL};
    arena_init(&a, ARENA_MAX);
    rng_init(&g, test_seed());
    random_rows(&before, &a, 40, 3, SHAPE_UNIFORM, &g);
    compressor_defaults(tome(), options);
    set(options, "counts", 1);
    copy_rows(&r, &a, &before);
    CHECK_OK(tome()->ops.apply(&call, &r, &a, &out, &e), e);
    CHECK_STR(out.skipped, "not_calibrated");
    CHECK(same_rows(&r, &before));

    int above = 0;
    for (int i = 0; i < 40; i += 2) {
        double best = -1;
        for (int j = 1; j < 40; j += 2) {
            double ij = 0;
            double ii = 0;
            double jj = 0;
            for (int d = 0; d < 3; d++) {
                ij += (double)before.x[i * 3 + d] * (double)before.x[j * 3 + d];
                ii += (double)before.x[i * 3 + d] * (double)before.x[i * 3 + d];
                jj += (double)before.x[j * 3 + d] * (double)before.x[j * 3 + d];
            }
            best = fmax(best, ij / sqrt(ii * jj));
        }
        above += best > 0.96;
    }
    CHECK_INT(above, >, 0);
    CHECK_INT(above, <, 20);
    call.thresholds = thresholds;
    thresholds[0] = 0.96f;
    CHECK_OK(tome()->ops.apply(&call, &r, &a, &out, &e), e);
    CHECK(!out.skipped);
    CHECK_INT(r.n, ==, 40 - above);
    thresholds[0] = 1;
    copy_rows(&r, &a, &before);
    CHECK_OK(tome()->ops.apply(&call, &r, &a, &out, &e), e);
    CHECK(same_rows(&r, &before));
    thresholds[0] = -1;
    set(options, "ratio", 1); /* a quarter of 40 rows: 10, and a block halves at most */
    for (int block = 0; block < 6; block++) {
        CHECK_OK(tome()->ops.apply(&call, &r, &a, &out, &e), e);
    }
    CHECK_INT(r.n, ==, 10);
    arena_clear(&a);
}
