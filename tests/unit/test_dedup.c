/* dedup: what repeats what, on pictures made for it. */
#include "base/arena.h"
#include "tests/test.h"
#include "tests/unit/picture_rows.h"

#define ARENA_MAX ((size_t)64 << 20)

struct sample {
    struct arena a;
    struct rng g;
    struct rows rows, shown;
    struct picture_facts facts, before;
    uint64_t digest[16], shown_digest[16];
    double options[COMPRESSOR_MAX_OPTIONS];
};

/* Two pictures of 4 x 4 cells that have nothing in common. */
static void sample_open(struct sample *s)
{
    arena_init(&s->a, ARENA_MAX);
    rng_init(&s->g, test_seed());
    picture_rows(&s->rows, &s->facts, &s->a, 4, 4, &s->g);
    picture_rows(&s->shown, &s->before, &s->a, 4, 4, &s->g);
    for (uint64_t i = 0; i < 16; i++) {
        s->digest[i] = i;
        s->shown_digest[i] = 100 + i;
    }
    s->facts.digest = s->digest;
    s->before.digest = s->shown_digest;
    s->before.rows = &s->shown;
    s->facts.previous = &s->before;
    compressor_defaults(compressor_find("dedup"), s->options);
}

static void run(struct sample *s, const char *expected_skip)
{
    const char *skipped = NULL;
    picture_apply("dedup", s->options, &s->facts, &s->rows, &s->a, &skipped);
    CHECK_STR(skipped ? skipped : "", expected_skip);
}

static void scaled_copy(struct rows *to, int i, const struct rows *from, int j, float scale)
{
    for (int d = 0; d < PICTURE_WIDTH; d++) {
        to->x[i * PICTURE_WIDTH + d] = scale * from->x[j * PICTURE_WIDTH + d];
    }
}

TEST(dedup_within, "equal pixels and like rows join the first of them; protected ones do not")
{
    struct sample s;
    sample_open(&s);
    run(&s, "nothing_similar");
    s.digest[5] = s.digest[9] = s.digest[2];
    scaled_copy(&s.rows, 12, &s.rows, 4, 3);
    s.rows.flags[9] = ROW_PROTECTED;
    run(&s, "");
    CHECK_INT(s.rows.n, ==, 14);
    CHECK_INT(s.rows.owner[5], ==, s.rows.owner[2]);
    CHECK_INT(s.rows.owner[12], ==, s.rows.owner[4]);
    CHECK(s.rows.owner[9] != s.rows.owner[2]);
    CHECK_DOUBLE(s.rows.mass[s.rows.owner[4]], ==, 2);
    CHECK_INT(rows_dropped(&s.rows), ==, 0);
    arena_clear(&s.a);
}

TEST(dedup_leaders, "a chain of like rows does not become one group")
{
    struct sample s;
    sample_open(&s);
    picture_option("dedup", s.options, "threshold", 0.9);
    /* rows 0, 1, 2 in a plane, 20 degrees from one to the next: cosines 0.94 and 0.77 */
    for (int i = 0; i < 3; i++) {
        memset(s.rows.x + i * PICTURE_WIDTH, 0, PICTURE_WIDTH * sizeof(float));
        s.rows.x[i * PICTURE_WIDTH] = (float)cos(i * 0.349);
        s.rows.x[i * PICTURE_WIDTH + 1] = (float)sin(i * 0.349);
    }
    run(&s, "");
    CHECK_INT(s.rows.owner[1], ==, s.rows.owner[0]);
    CHECK(s.rows.owner[2] != s.rows.owner[0]);
    arena_clear(&s.a);
}

TEST(dedup_across, "what an earlier picture has shown is dropped, unless that is off")
{
    struct sample s;
    sample_open(&s);
    s.digest[3] = s.shown_digest[7];
    scaled_copy(&s.rows, 8, &s.shown, 1, 2);
    struct rows before;
    copy_rows(&before, &s.a, &s.rows);
    picture_option("dedup", s.options, "across", 0);
    run(&s, "nothing_similar");
    picture_option("dedup", s.options, "across", 1);
    run(&s, "");
    CHECK_INT(s.rows.n, ==, 14);
    CHECK_INT(s.rows.owner[3], ==, ROW_DROPPED);
    CHECK_INT(s.rows.owner[8], ==, ROW_DROPPED);
    copy_rows(&s.rows, &s.a, &before);
    picture_option("dedup", s.options, "threshold", 1); /* equal pixels only */
    run(&s, "");
    CHECK_INT(rows_dropped(&s.rows), ==, 1);
    CHECK_INT(s.rows.owner[3], ==, ROW_DROPPED);
    arena_clear(&s.a);
}

TEST(dedup_same_picture, "of a picture that is sent again one row stays")
{
    struct sample s;
    sample_open(&s);
    memcpy(s.digest, s.shown_digest, sizeof s.digest);
    run(&s, "");
    CHECK_INT(s.rows.n, ==, 1);
    CHECK_INT(s.rows.owner[0], ==, 0);
    CHECK_INT(rows_dropped(&s.rows), ==, 15);
    arena_clear(&s.a);
}
