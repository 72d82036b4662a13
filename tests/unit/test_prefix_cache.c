/* engine/prefix_cache: what is the same beginning for whom, and how much is kept. */
#include "base/alloc.h"
#include "engine/chunk.h"
#include "engine/prefix_cache.h"
#include "tests/test.h"

#include <string.h>

static const struct kv_shape shape = {.n_layer = 2, .n_head_kv = 1, .head_dim = 4};

struct setup {
    struct kv_pool pool;
    struct prefix_cache *cache;
    struct prefix_key key;
    token_id ids[1024];
    struct prefix_piece pieces[1024];
    int n_pieces;
    struct prefix_chunk chunks[8];
    int n_chunks;
    int n_static; /* rows of a static prefix */
};

static void setup_init(struct setup *s, size_t max_bytes)
{
    struct err e = ERR_INIT;
    memset(s, 0, sizeof *s);
    kv_pool_init(&s->pool, &shape, (size_t)1 << 24);
    s->cache = prefix_cache_new(&s->pool, max_bytes, &e);
    CHECK_OK(!s->cache, e);
    s->key.lm.method = compressors[0];
}

static void setup_clear(struct setup *s)
{
    prefix_cache_free(s->cache);
    CHECK_INT(s->pool.used_bytes + s->pool.held_bytes + s->pool.reserved_bytes, ==, 0);
}

/* n_chunks whole chunks of text that begins with `name`, and one row behind them. */
static void prompt(struct setup *s, token_id name, int n_chunks)
{
    s->n_pieces = n_chunks * CHUNK_MAX_ROWS + 1;
    s->n_chunks = n_chunks;
    CHECK_INT(s->n_pieces, <=, 1024);
    for (int i = 0; i < s->n_pieces; i++) {
        s->ids[i] = i == 0 ? name : i;
        s->pieces[i] = (struct prefix_piece){.ids = &s->ids[i],
                                             .n_ids = 1,
                                             .flags = i < s->n_static ? ROW_STATIC : 0,
                                             .position = (float)i};
    }
    for (int i = 0; i < n_chunks; i++) {
        s->chunks[i] =
            (struct prefix_chunk){.n_rows = CHUNK_MAX_ROWS, .end = {(i + 1) * CHUNK_MAX_ROWS}};
    }
}

/* As the engine does: what is there is taken, the rest is computed and left. The rows say
 * the scope and the name that they were computed for. Returns the chunks found. */
static int use(struct setup *s, uint8_t scope, token_id name, int n_chunks, bool leave)
{
    struct err e = ERR_INIT;
    struct kv_cache kv;
    struct prefix_chunk found[8];
    prompt(s, name, n_chunks);
    s->key.scope[0] = scope;
    CHECK_OK(kv_init(&kv, &shape, NULL, 0, 1024, &e), e);
    CHECK_OK(kv_reserve(&kv, &s->pool, &e), e);
    int n = prefix_cache_find(s->cache, &s->key, s->pieces, s->n_pieces, &kv, found, 8);
    struct kv_group *g = &kv.group[0];
    CHECK_INT(g->n, ==, n * CHUNK_MAX_ROWS);
    for (int i = 0; i < g->n; i++) {
        CHECK_DOUBLE(*kv_positions(g, i), ==, scope * 100 + name);
    }
    CHECK_OK(kv_prepare(&kv, n_chunks * CHUNK_MAX_ROWS - g->n, &e), e);
    for (; g->n < n_chunks * CHUNK_MAX_ROWS; g->n++) {
        *kv_positions(g, g->n) = (float)(scope * 100 + name);
    }
    if (leave) {
        prefix_cache_put(s->cache, &s->key, s->pieces, s->n_pieces, &kv, s->chunks, n_chunks);
    }
    kv_clear(&kv);
    CHECK_INT(s->pool.running_bytes, ==, 0);
    return n;
}

static int known(struct setup *s, uint8_t scope, token_id name, int n_chunks)
{
    return use(s, scope, name, n_chunks, false);
}

/* What one prompt of so many chunks takes. */
static size_t bytes_of(int n_chunks)
{
    struct setup s;
    setup_init(&s, (size_t)1 << 22);
    use(&s, 0, 1, n_chunks, true);
    size_t bytes = prefix_cache_bytes(s.cache);
    CHECK_INT(bytes, >=, s.pool.held_bytes);
    CHECK_INT(s.pool.held_bytes, ==, s.pool.used_bytes);
    setup_clear(&s);
    return bytes;
}

TEST(prefix_cache_ceiling, "never more bytes than allowed; what was used last stays")
{
    struct setup s;
    size_t one = bytes_of(1);
    setup_init(&s, 3 * one + one / 2);
    for (token_id name = 1; name <= 3; name++) {
        CHECK_INT(use(&s, 0, name, 1, true), ==, 0);
    }
    CHECK_INT(prefix_cache_bytes(s.cache), ==, 3 * one);
    CHECK_INT(known(&s, 0, 1, 1), ==, 1);
    use(&s, 0, 4, 1, true); /* 2 was not used for longest */
    CHECK_INT(prefix_cache_bytes(s.cache), ==, 3 * one);
    CHECK_INT(known(&s, 0, 2, 1), ==, 0);
    CHECK_INT(known(&s, 0, 1, 1), ==, 1);
    CHECK_INT(known(&s, 0, 3, 1), ==, 1);
    CHECK_INT(known(&s, 0, 4, 1), ==, 1);
    setup_clear(&s);
}

TEST(prefix_cache_ends_first, "a beginning is given up from its end, and never while it grows")
{
    struct setup s;
    size_t three = bytes_of(3);
    setup_init(&s, three + three / 6);
    use(&s, 0, 1, 3, true);
    use(&s, 0, 2, 1, true);
    CHECK_INT(known(&s, 0, 2, 1), ==, 1);
    CHECK_INT(known(&s, 0, 1, 3), ==, 2);
    use(&s, 0, 1, 3, true); /* needs the room of the other one */
    CHECK_INT(known(&s, 0, 1, 3), ==, 3);
    CHECK_INT(known(&s, 0, 2, 1), ==, 0);
    setup_clear(&s);
    setup_init(&s, bytes_of(2)); /* a prompt that is too long leaves what fits */
    use(&s, 0, 1, 3, true);
    CHECK_INT(known(&s, 0, 1, 3), ==, 2);
    setup_clear(&s);
}

TEST(prefix_cache_scopes, "nobody finds another's, and a flood leaves everybody his share")
{
    struct setup s;
    size_t one = bytes_of(1);
    setup_init(&s, 4 * one);
    use(&s, 1, 1, 1, true);
    use(&s, 1, 2, 1, true);
    CHECK_INT(known(&s, 2, 1, 1), ==, 0);
    for (token_id name = 10; name < 30; name++) {
        use(&s, 2, name, 1, true);
    }
    CHECK_INT(known(&s, 1, 1, 1), ==, 1);
    CHECK_INT(known(&s, 1, 2, 1), ==, 1);
    CHECK_INT(known(&s, 2, 29, 1), ==, 1);
    CHECK_INT(known(&s, 2, 28, 1), ==, 1);
    CHECK_INT(known(&s, 2, 27, 1), ==, 0);
    setup_clear(&s);
}

TEST(prefix_cache_static, "a static prefix stays whoever floods; the operator's is nobody's own")
{
    struct setup s;
    size_t one = bytes_of(1);
    setup_init(&s, 4 * one);
    for (int operators = 0; operators < 2; operators++) {
        s.n_static = CHUNK_MAX_ROWS;
        s.key.is_operators = operators;
        use(&s, 1, 1, 1, true);
        s.n_static = 0;
        s.key.is_operators = false;
        for (token_id name = 10; name < 30; name++) {
            use(&s, 1, name, 1, true);
        }
        s.n_static = CHUNK_MAX_ROWS;
        CHECK_INT(known(&s, 1, 1, 1), ==, !operators);
        s.key.is_operators = true;
        CHECK_INT(known(&s, 1, 1, 1), ==, operators);
        s.n_static = 0;
        s.key.is_operators = false;
        /* of one key only while that does not take from another's share */
        for (token_id name = 10; name < 30; name++) {
            use(&s, 2, name, 1, true);
        }
        s.n_static = CHUNK_MAX_ROWS;
        s.key.is_operators = operators;
        CHECK_INT(known(&s, 1, 1, 1), ==, 1);
        setup_clear(&s);
        setup_init(&s, 4 * one);
    }
    setup_clear(&s);
}

TEST(prefix_cache_compares,
     "one token, flag, place, vector or part of a plan that differs is a miss")
{
    struct setup s;
    struct err e = ERR_INIT;
    setup_init(&s, (size_t)1 << 22);
    use(&s, 0, 1, 1, true);
    for (int change = 0; change < 9; change++) {
        struct kv_cache kv;
        struct prefix_chunk found[8];
        prompt(&s, 1, 1);
        struct prefix_key key = s.key;
        struct prefix_piece *p = &s.pieces[CHUNK_MAX_ROWS - 1];
        s.ids[CHUNK_MAX_ROWS - 1] += change == 1;
        p->flags = change == 2 ? ROW_PROTECTED : 0;
        p->position += change == 3 ? 0.5f : 0;
        p->vector = change == 4;
        key.log_mass = change == 5;
        key.log_mass_from = change == 6;
        key.lm.method = compressors[change == 7];
        key.lm.options[0] = change == 8; /* `off` has no options: it does not count */
        CHECK_OK(kv_init(&kv, &shape, NULL, 0, 1024, &e), e);
        CHECK_OK(kv_reserve(&kv, &s.pool, &e), e);
        CHECK_INT(prefix_cache_find(s.cache, &key, s.pieces, s.n_pieces, &kv, found, 8), ==,
                  change == 0 || change == 8);
        kv_clear(&kv);
    }
    /* the last row must be run: its logits are wanted */
    s.n_pieces--;
    struct kv_cache kv;
    CHECK_OK(kv_init(&kv, &shape, NULL, 0, 1024, &e), e);
    CHECK_INT(prefix_cache_find(s.cache, &s.key, s.pieces, s.n_pieces, &kv, s.chunks, 8), ==, 0);
    kv_clear(&kv);
    setup_clear(&s);
}

TEST(prefix_cache_no_memory, "without memory nothing is kept, or what was kept before")
{
    for (long n = 1; n <= 6; n++) {
        struct setup s;
        setup_init(&s, (size_t)1 << 22);
        use(&s, 0, 1, 1, true);
        struct err e = ERR_INIT;
        struct kv_cache kv;
        prompt(&s, 2, 2);
        CHECK_OK(kv_init(&kv, &shape, NULL, 0, 1024, &e), e);
        CHECK_OK(kv_reserve(&kv, &s.pool, &e), e);
        CHECK_OK(kv_prepare(&kv, 2 * CHUNK_MAX_ROWS, &e), e);
        kv.group[0].n = 2 * CHUNK_MAX_ROWS;
        for (int i = 0; i < kv.group[0].n; i++) {
            *kv_positions(&kv.group[0], i) = 2;
        }
        alloc_fail_at(n);
        prefix_cache_put(s.cache, &s.key, s.pieces, s.n_pieces, &kv, s.chunks, 2);
        alloc_fail_at(0);
        kv_clear(&kv);
        CHECK_INT(known(&s, 0, 2, 2), ==, n > 2 ? 2 : n - 1);
        CHECK_INT(known(&s, 0, 1, 1), ==, 1);
        setup_clear(&s);
    }
}

TEST(prefix_cache_pictures, "a picture may span chunks, and its size comes back with a hit")
{
    struct setup s;
    struct err e = ERR_INIT;
    struct kv_cache kv;
    struct prefix_picture pictures[2] = {
        {.key = {1}, .n_rows = 300, .n_source = 600, .report.n_skipped = 1}, {.key = {1}}};
    struct prefix_chunk found[8];
    setup_init(&s, (size_t)1 << 22);
    prompt(&s, 1, 2);
    /* a row of text, 300 of the picture, 211 of text: 512; one more */
    s.pieces[1] = (struct prefix_piece){.picture = &pictures[0], .flags = ROW_BREAK};
    s.n_pieces = 2 + 211 + 1;
    for (int run = 0; run < 3; run++) {
        CHECK_OK(kv_init(&kv, &shape, NULL, 0, 1024, &e), e);
        CHECK_OK(kv_reserve(&kv, &s.pool, &e), e);
        s.pieces[1].picture = &pictures[run > 0];
        pictures[1] = (struct prefix_picture){.key = {run == 2 ? 2 : 1}};
        int n = prefix_cache_find(s.cache, &s.key, s.pieces, s.n_pieces, &kv, found, 8);
        CHECK_INT(n, ==, run == 1 ? 2 : 0);
        if (run == 0) {
            CHECK_OK(kv_prepare(&kv, 512, &e), e);
            kv.group[0].n = 512;
            prefix_cache_put(s.cache, &s.key, s.pieces, s.n_pieces, &kv, s.chunks, 2);
        }
        CHECK_INT(pictures[1].n_rows, ==, run == 1 ? 300 : 0);
        CHECK_INT(pictures[1].n_source, ==, run == 1 ? 600 : 0);
        CHECK_INT(pictures[1].report.n_skipped, ==, run == 1);
        kv_clear(&kv);
    }
    setup_clear(&s);
}
