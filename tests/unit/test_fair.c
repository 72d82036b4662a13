/* engine/fair.c, queue.c: whose turn is next between API keys. */
#include "base/rng.h"
#include "engine/fair.h"
#include "tests/test.h"
#include "tests/unit/engine_fixture.h"

#include <string.h>

enum { N_KEYS = 4 };

/* Keys with some requests waiting, each of a size of its own. */
struct world {
    struct fair f;
    int key[N_KEYS];
    int n_waiting[N_KEYS];
    double size[N_KEYS];
    double served[N_KEYS];
};

static void world_init(struct world *w)
{
    struct err e = ERR_INIT;
    memset(w, 0, sizeof *w);
    CHECK_OK(fair_init(&w->f, 400, &e), e);
    for (int i = 0; i < N_KEYS; i++) {
        uint8_t scope[FAIR_SCOPE_BYTES] = {(uint8_t)i};
        w->key[i] = fair_hold(&w->f, scope);
        w->size[i] = 100;
    }
}

static void arrive(struct world *w, int i, int n)
{
    for (int k = 0; k < n; k++) {
        fair_enter(&w->f, w->key[i]);
    }
    w->n_waiting[i] += n;
}

/* Serves one request; returns whose. */
static int serve(struct world *w)
{
    int next = -1;
    for (int i = 0; i < N_KEYS; i++) {
        if (w->n_waiting[i] > 0 &&
            (next < 0 || fair_service(&w->f, w->key[i]) < fair_service(&w->f, w->key[next]))) {
            next = i;
        }
    }
    fair_charge(&w->f, w->key[next], w->size[next]);
    fair_leave(&w->f, w->key[next]);
    w->n_waiting[next]--;
    w->served[next] += w->size[next];
    return next;
}

TEST(fair_hundred_and_one, "one request beside another key's hundred is second at the latest")
{
    for (int before = 0; before < 40; before += 13) {
        struct world w;
        world_init(&w);
        arrive(&w, 0, 100);
        for (int i = 0; i < before; i++) {
            CHECK_INT(serve(&w), ==, 0);
        }
        arrive(&w, 1, 1);
        int turns = 1;
        while (serve(&w) != 1) {
            turns++;
        }
        CHECK_INT(turns, <=, 2);
        fair_clear(&w.f);
    }
}

TEST(fair_counts_wanting,
     "requests that wait are counted by key, and nothing for a key without any")
{
    struct world w;
    world_init(&w);
    const uint8_t unknown[FAIR_SCOPE_BYTES] = {99};
    arrive(&w, 0, 3);
    arrive(&w, 1, 1);
    for (int i = 0; i < w.f.n; i++) {
        CHECK_INT(fair_wanting(&w.f, i), ==, fair_wanting_of(&w.f, w.f.keys[i].scope));
        CHECK_INT(fair_wanting(&w.f, i), ==, w.f.keys[i].n_want);
    }
    CHECK_INT(fair_wanting_of(&w.f, unknown), ==, 0);
    serve(&w);
    CHECK_INT(fair_wanting(&w.f, 0) + fair_wanting(&w.f, 1), ==, 3);
    fair_clear(&w.f);
}

TEST(fair_shares, "keys that always want a turn get the same service, whatever they ask for")
{
    struct world w;
    world_init(&w);
    for (int i = 0; i < N_KEYS; i++) {
        w.size[i] = 10 + 70 * i;
        arrive(&w, i, 300);
    }
    for (int k = 0; k < 150; k++) {
        serve(&w);
        for (int i = 1; i < N_KEYS; i++) { /* the paper's bound: two of the largest requests */
            CHECK_DOUBLE(w.served[i] - w.served[0], <=, 2 * 220);
            CHECK_DOUBLE(w.served[0] - w.served[i], <=, 2 * 220);
        }
    }
    fair_clear(&w.f);
}

TEST(fair_pauses, "a pause earns nothing, and leaving does not pay a debt")
{
    struct world w;
    world_init(&w);
    arrive(&w, 0, 200);
    arrive(&w, 1, 1);
    for (int i = 0; i < 60; i++) { /* 1 pauses for most of it */
        serve(&w);
    }
    double before[2] = {w.served[0], w.served[1]};
    arrive(&w, 1, 100);
    for (int i = 0; i < 40; i++) {
        serve(&w);
    }
    CHECK_DOUBLE(w.served[1] - before[1], <=, w.served[0] - before[0] + 200);
    fair_charge(&w.f, w.key[2], 1e6); /* long answers; then nobody of it is there for a while */
    arrive(&w, 2, 1);
    for (int i = 0; i < 50; i++) {
        CHECK_INT(serve(&w), !=, 2);
    }
    fair_clear(&w.f);
}

TEST(fair_many_keys, "more keys than there is room for: those without requests are forgotten")
{
    struct fair f;
    struct err e = ERR_INIT;
    struct rng r;
    rng_init(&r, test_seed());
    CHECK_OK(fair_init(&f, 3, &e), e);
    uint8_t held_scope[FAIR_SCOPE_BYTES] = {255, 255};
    int held = fair_hold(&f, held_scope);
    fair_enter(&f, held);
    fair_charge(&f, held, 1);
    for (int i = 0; i < 5000; i++) {
        uint8_t scope[FAIR_SCOPE_BYTES] = {(uint8_t)rng_below(&r, 200), (uint8_t)(i % 3)};
        int key = fair_hold(&f, scope);
        CHECK_INT(key, >=, 0);
        CHECK_INT(key, <, f.max);
        CHECK_INT(key, !=, held);
        fair_enter(&f, key);
        fair_charge(&f, key, (double)rng_below(&r, 50));
        fair_leave(&f, key);
        fair_release(&f, key);
    }
    CHECK_INT(fair_hold(&f, held_scope), ==, held);
    fair_clear(&f);
}

/* Queue times in a row are the order of admission: one slot. */
TEST(fair_engine, "a key's single request passes another key's queue; one key alone: in order")
{
    enum { N = 24 };
    struct engine *en = open_tiny_engine(1, 64, 1);
    struct job *jobs[N + 1];
    struct question q;
    struct buf text;
    ask(&q, "the first key sends many of these", "off", 40);
    for (int i = 0; i < N; i++) {
        jobs[i] = submit(en, &q);
    }
    q.request.scope[0] = 1;
    jobs[N] = submit(en, &q);
    double began[N + 1];
    for (int i = 0; i <= N; i++) {
        CHECK_INT(read_all(jobs[i], &text), ==, JOB_EVENT_END);
        buf_free(&text);
        began[i] = job_result(jobs[i])->queue_ms;
    }
    int passed = 0;
    for (int i = 1; i < N; i++) { /* submitted a moment apart, far less than an answer takes */
        CHECK_DOUBLE(began[i], >, began[i - 1]);
        passed += began[i] > began[N];
    }
    CHECK_INT(passed, >=, N / 2);
    for (int i = 0; i <= N; i++) {
        job_free(jobs[i]);
    }
    check_idle(en, N + 1);
    engine_close(en);
}
