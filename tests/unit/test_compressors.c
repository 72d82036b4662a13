/* The rules of compress/compressor.h for every line of the table: each method at each of
 * its stages, with every option at its corners, on rows of many sizes and kinds. A new
 * method gets these tests by being in the table. */
#include "base/alloc.h"
#include "base/buf.h"
#include "compress/compressor.h"
#include "tests/test.h"
#include "tests/unit/random_rows.h"

#include <stdbool.h>

#define ARENA_MAX ((size_t)64 << 20)
#define WIDTH     12
#define N_LAYER   12

enum protection { PROTECT_NONE, PROTECT_FIRST, PROTECT_SOME, PROTECT_ALL, PROTECTIONS };

struct sample {
    const struct compressor *method;
    enum stage stage;
    double options[COMPRESSOR_MAX_OPTIONS];
    struct rows rows;
    const float *metric; /* [rows.n, WIDTH] for every layer, or NULL */
    struct picture_facts facts, previous;
    struct rows shown; /* what is left of the previous picture */
};

/* A square where n is one, else the nearest to it; cells that look alike, an earlier picture
 * with some of the same cells. */
static void make_picture(struct sample *s, struct arena *a, int n, struct rng *g)
{
    int height = (int)sqrt((double)n);
    while (height > 1 && n % height != 0) {
        height--;
    }
    uint64_t *digest = arena_alloc(a, (size_t)n + 4, sizeof *digest);
    float *attention = arena_alloc(a, (size_t)n, sizeof *attention);
    CHECK(digest && attention);
    for (int i = 0; i < n + 4; i++) {
        digest[i] = rng_below(g, 40);
    }
    for (int i = 0; i < n; i++) {
        attention[i] = (float)(rng_below(g, 9) + 1) / (float)n;
    }
    random_rows(&s->shown, a, 4, WIDTH, SHAPE_TIES, g);
    s->previous =
        (struct picture_facts){.width = 2, .height = 2, .digest = digest + n, .rows = &s->shown};
    s->facts = (struct picture_facts){.width = height > 0 ? n / height : 0,
                                      .height = height,
                                      .digest = rng_below(g, 2) ? digest : NULL,
                                      .previous = rng_below(g, 2) ? &s->previous : NULL};
    s->rows.attention = attention;
}

static void make_rows(struct sample *s, struct arena *a, int n, enum row_shape shape,
                      enum protection protection, struct rng *g)
{
    struct rows *r = &s->rows;
    random_rows(r, a, n, WIDTH, shape, g);
    bool image = s->stage < STAGE_TEXT_ROWS;
    for (int i = 0; i < n; i++) {
        bool mixed = s->stage == STAGE_LM_LAYER && i % 7 < 3;
        bool some = protection == PROTECT_SOME && rng_below(g, 3) == 0;
        r->kind[i] = image || mixed ? ROW_IMAGE : ROW_TEXT;
        r->flags[i] = some || protection == PROTECT_ALL || (protection == PROTECT_FIRST && i == 0)
                          ? ROW_PROTECTED
                          : 0;
        r->flags[i] |= rng_below(g, 8) == 0 ? ROW_BREAK : 0;
        if (rng_below(g, 9) == 0) {
            memset(r->x + i * WIDTH, 0, WIDTH * sizeof *r->x);
        }
    }
    float *metric = arena_alloc(a, (size_t)n * WIDTH, sizeof *metric);
    CHECK(metric);
    random_values(metric, n, WIDTH, shape, g);
    if (s->stage == STAGE_PIXELS || s->stage == STAGE_IMAGE_ROWS) {
        make_picture(s, a, n, g);
    }
    s->metric = s->stage == STAGE_VIT_LAYER || rng_below(g, 2) ? metric : NULL;
}

/* Of counts that follow the content: every block merges something. */
static const float thresholds[N_LAYER] = {0.9f, 0.8f, 0.7f, 0.6f, 0.5f, 0.4f,
                                          0.4f, 0.4f, 0.3f, 0.3f, 0.2f, 0.2f};

static int apply_layer(const struct sample *s, int layer, struct rows *r, struct arena *scratch,
                       const char **skipped)
{
    struct err e = ERR_INIT;
    struct compress_outcome out = {0};
    struct compress_call call = {.stage = s->stage,
                                 .layer = layer,
                                 .n_layer = N_LAYER,
                                 .metric = s->metric,
                                 .n_metric = WIDTH,
                                 .options = s->options,
                                 .picture = s->facts.width > 0 ? &s->facts : NULL,
                                 .thresholds = thresholds};
    struct arena_mark mark = arena_mark(scratch);
    int rc = s->method->ops.apply(&call, r, scratch, &out, &e);
    arena_rewind(scratch, mark);
    if (rc) {
        CHECK_INT(e.code, ==, ERR_NO_MEMORY);
    }
    if (skipped) {
        *skipped = out.skipped;
    }
    return rc;
}

/* All that the method does to one sequence: every block at vit-layer, one call elsewhere. */
static void apply_all(const struct sample *s, struct rows *r, struct arena *scratch)
{
    int first = s->stage == STAGE_VIT_LAYER ? 0 : s->stage == STAGE_LM_LAYER ? 5 : -1;
    int last = s->stage == STAGE_VIT_LAYER ? N_LAYER - 1 : first;
    for (int layer = first; layer <= last; layer++) {
        int before = r->n;
        const char *skipped = NULL;
        CHECK_INT(apply_layer(s, layer, r, scratch, &skipped), ==, 0);
        CHECK(!skipped || (r->n == before && skipped[0]));
    }
}

static int n_free(const struct rows *r)
{
    int n = 0;
    for (int i = 0; i < r->n; i++) {
        n += !(r->flags[i] & ROW_PROTECTED);
    }
    return n;
}

static void check_rules(const struct sample *s, const struct rows *after)
{
    struct err e = ERR_INIT;
    const struct rows *before = &s->rows;
    CHECK_OK(rows_check(after, &e), e);
    CHECK_INT(after->n_source, ==, before->n_source);
    CHECK_INT(after->n, <=, before->n);
    CHECK(s->method->info.drops || rows_dropped(after) == 0);
    CHECK(before->n == 0 || after->n > 0);
    for (int i = 0; i < before->n; i++) {
        int to = after->owner[i];
        if (to == ROW_DROPPED) {
            CHECK(!(before->flags[i] & ROW_PROTECTED));
            continue;
        }
        CHECK_INT(after->kind[to], ==, before->kind[i]);
        CHECK(isfinite((double)after->position[to]));
        if (before->flags[i] & ROW_PROTECTED) {
            CHECK_DOUBLE(after->mass[to], ==, 1);
            CHECK_DOUBLE(after->position[to], ==, (double)before->position[i]);
            CHECK_INT(after->flags[to], ==, before->flags[i]);
            CHECK(test_same_bits(after->x + to * WIDTH, before->x + i * WIDTH, WIDTH));
        }
    }
    for (int i = 0; i < after->n * WIDTH; i++) {
        CHECK(isfinite((double)after->x[i]));
    }
    int predicted = s->method->ops.predict(s->options, n_free(before));
    bool whole = !s->method->info.grid || n_free(before) == before->n;
    if (predicted >= 0 && whole) {
        CHECK_INT(n_free(after), ==, predicted);
    }
    if (s->method == compressors[0]) {
        CHECK(same_rows(after, before));
    }
}

/* The same bytes from another arena whose memory has been used for something else. */
static void check_history(const struct sample *s, const struct rows *first, struct arena *a)
{
    struct arena scratch;
    struct rows again;
    arena_init(&scratch, ARENA_MAX);
    struct arena_mark mark = arena_mark(&scratch);
    void *junk = arena_alloc(&scratch, 100000, 1);
    CHECK(junk);
    memset(junk, 0xa5, 100000);
    void *offset = arena_alloc(&scratch, 64, 1);
    CHECK(offset);
    arena_rewind(&scratch, mark);
    copy_rows(&again, a, &s->rows);
    apply_all(s, &again, &scratch);
    CHECK(same_rows(&again, first));
    arena_clear(&scratch);
}

static void check_no_memory(const struct sample *s, struct arena *a)
{
    int layer = s->stage == STAGE_VIT_LAYER ? N_LAYER - 1 : 0;
    int rc = -1;
    for (size_t limit = 0; rc; limit += 64) {
        struct arena scratch;
        struct rows r;
        arena_init(&scratch, limit);
        copy_rows(&r, a, &s->rows);
        rc = apply_layer(s, layer, &r, &scratch, NULL);
        CHECK(rc == 0 || same_rows(&r, &s->rows));
        arena_clear(&scratch);
    }
}

static void check_sample(struct sample *s, int n, enum row_shape shape, enum protection protection,
                         struct rng *g)
{
    struct arena a;
    struct arena scratch;
    struct rows r;
    arena_init(&a, ARENA_MAX);
    arena_init(&scratch, ARENA_MAX);
    make_rows(s, &a, n, shape, protection, g);
    copy_rows(&r, &a, &s->rows);
    apply_all(s, &r, &scratch);
    check_rules(s, &r);
    check_history(s, &r, &a);
    if (n <= 9) {
        check_no_memory(s, &a);
    }
    arena_clear(&scratch);
    arena_clear(&a);
}

static void check_shapes(struct sample *s, struct rng *g)
{
    static const int sizes[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 32, 57};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        for (int shape = SHAPE_UNIFORM; shape <= SHAPE_NEIGHBOURS; shape++) {
            for (int p = 0; p < PROTECTIONS; p++) {
                check_sample(s, sizes[k], (enum row_shape)shape, (enum protection)p, g);
            }
        }
    }
}

/* Defaults, and each option in turn at each choice, or at both ends and in the middle. */
static void check_options(const struct compressor *c, enum stage stage, struct rng *g)
{
    struct sample s = {.method = c, .stage = stage};
    compressor_defaults(c, s.options);
    check_shapes(&s, g);
    for (int i = 0; i < c->info.n_options; i++) {
        const struct compressor_option *o = &c->info.options[i];
        int n = o->type == OPTION_ENUM ? (int)o->max + 1 : 3;
        for (int k = 0; k < n; k++) {
            compressor_defaults(c, s.options);
            double middle =
                o->type == OPTION_INT ? floor((o->min + o->max) / 2) : (o->min + o->max) / 2;
            s.options[i] = o->type == OPTION_ENUM ? k : k == 0 ? o->min : k == 1 ? o->max : middle;
            check_shapes(&s, g);
        }
    }
}

TEST(compressors_keep_the_rules,
     "mass, partition, protection, kinds, history, memory: every method")
{
    struct rng g;
    rng_init(&g, test_seed());
    for (int c = 0; compressors[c]; c++) {
        for (int stage = 0; stage < STAGE_COUNT; stage++) {
            if (compressors[c]->info.stages & STAGE_BIT(stage)) {
                check_options(compressors[c], (enum stage)stage, &g);
            }
        }
    }
}

TEST(compressors_table, "names are unique, options well formed, off comes first")
{
    CHECK_STR(compressors[0]->info.name, "off");
    for (int c = 0; compressors[c]; c++) {
        const struct compressor_info *info = &compressors[c]->info;
        CHECK(compressor_find(info->name) == compressors[c]);
        CHECK(info->summary[0] && info->source);
        CHECK(info->stages && info->modalities);
        CHECK_INT(compressor_n_options(compressors[c]), <=, COMPRESSOR_MAX_OPTIONS);
        CHECK(compressors[c]->ops.apply && compressors[c]->ops.predict);
        for (int i = 0; i < info->n_options; i++) {
            const struct compressor_option *o = &info->options[i];
            CHECK_INT(compressor_option_index(compressors[c], o->name), ==, i);
            CHECK_DOUBLE(o->min, <=, o->max);
            CHECK_DOUBLE(o->def, <=, o->max);
            CHECK(o->unit && o->help && o->help[0]);
            CHECK((o->type == OPTION_ENUM) == (o->choices != NULL));
            CHECK(!o->replaces || compressor_option_index(compressors[c], o->replaces) >= 0);
            for (int k = 0; o->choices && k <= (int)o->max; k++) {
                CHECK((o->choices[k + 1] == NULL) == (k == (int)o->max));
            }
        }
    }
    CHECK(!compressor_find("Tome"));
    CHECK_INT(compressor_option_index(compressors[0], "ratio"), ==, -1);
    CHECK_STR(stage_name(STAGE_VIT_LAYER), "vit-layer");
    CHECK_STR(modality_name(MODALITY_LM), "lm");
}

TEST(compressors_docs_current, "docs/compression.md holds the tables that the code prints")
{
    struct buf out;
    buf_init(&out, 1 << 16);
    CHECK_INT(compressors_print_docs(&out), ==, 0);
    size_t n;
    char *page = test_read_file("docs/compression.md", &n);
    if (!strstr(page, buf_str(&out))) {
        FAIL("put this into docs/compression.md:\n%s", buf_str(&out));
    }
    mem_free(page);
    buf_free(&out);
    buf_init(&out, 100);
    CHECK_INT(compressors_print_docs(&out), ==, -1);
    buf_free(&out);
}
