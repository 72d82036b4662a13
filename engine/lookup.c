#include "engine/lookup.h"

#include <stdbool.h>

#define N_CHAINS 2
/* Tokens of the context that each chain looks at: the longer one first. */
static const int gram[N_CHAINS] = {3, 2};

/* Earlier places that are compared for one proposal. Texts repeat what is near. */
#define MAX_PLACES 32
/* A longer match says nothing more about what comes. */
#define MAX_MATCH 32

#define FIRST_LENGTH 4
/* A row that goes along costs the arithmetic but not the memory traffic of its weights:
 * one accepted token pays for so many rows. */
#define ROWS_PAID 3
/* The balance that starts a pause, and the most that success can be saved up: a text
 * that stops repeating itself is noticed soon. */
#define LOWEST_BALANCE  (-8)
#define HIGHEST_BALANCE 16
#define FIRST_PAUSE     8
#define LONGEST_PAUSE   128

static int smaller(int a, int b)
{
    return a < b ? a : b;
}

int lookup_init(struct lookup *l, int capacity, struct arena *a, struct err *e)
{
    *l = (struct lookup){
        .capacity = capacity, .n_heads = 64, .length = FIRST_LENGTH, .next_pause = FIRST_PAUSE};
    while (l->n_heads < (unsigned)capacity) {
        l->n_heads *= 2;
    }
    l->ids = arena_alloc(a, (size_t)capacity, sizeof *l->ids);
    bool ok = l->ids != NULL;
    for (int c = 0; c < N_CHAINS; c++) {
        l->chain[c].head = arena_alloc(a, l->n_heads, sizeof *l->chain[c].head);
        l->chain[c].prev = arena_alloc(a, (size_t)capacity, sizeof *l->chain[c].prev);
        ok = ok && l->chain[c].head && l->chain[c].prev;
    }
    if (!ok) {
        return err_no_memory(e, ((size_t)capacity * 3 + l->n_heads * 2) * sizeof(int));
    }
    for (int c = 0; c < N_CHAINS; c++) {
        for (unsigned i = 0; i < l->n_heads; i++) {
            l->chain[c].head[i] = -1;
        }
    }
    return 0;
}

/* Where the chain begins for the n-gram that ends with token `at`; NULL when the sequence
 * is too short there or broken. */
static int *head_of(const struct lookup *l, int c, int at)
{
    uint32_t hash = 0;
    if (at + 1 < gram[c]) {
        return NULL;
    }
    for (int i = at + 1 - gram[c]; i <= at; i++) {
        if (l->ids[i] == LOOKUP_BREAK) {
            return NULL;
        }
        hash = (hash ^ (uint32_t)l->ids[i]) * 0x9e3779b1u; /* 2^32 / golden ratio */
        hash ^= hash >> 15;
    }
    return &l->chain[c].head[hash & (l->n_heads - 1)];
}

void lookup_add(struct lookup *l, token_id id)
{
    if (l->n == l->capacity) {
        return;
    }
    int at = l->n++;
    l->ids[at] = id;
    for (int c = 0; c < N_CHAINS; c++) {
        int *head = head_of(l, c, at);
        l->chain[c].prev[at] = head ? *head : -1;
        if (head) {
            *head = at;
        }
    }
}

void lookup_rewind(struct lookup *l, int n)
{
    while (l->n > n) {
        int at = l->n - 1;
        for (int c = 0; c < N_CHAINS; c++) {
            int *head = head_of(l, c, at);
            if (head) {
                *head = l->chain[c].prev[at];
            }
        }
        l->n = at;
    }
}

/* How many tokens up to and with `at` are those at the end of the sequence. */
static int match_length(const struct lookup *l, int at)
{
    int n = 0;
    while (n < MAX_MATCH && n <= at && l->ids[at - n] != LOOKUP_BREAK &&
           l->ids[at - n] == l->ids[l->n - 1 - n]) {
        n++;
    }
    return n;
}

/* The place that ends with the longest match of at least gram[c] tokens, of equals the
 * newest; -1 = none. */
static int longest_match(const struct lookup *l, int c, int *length)
{
    int best = -1;
    *length = gram[c] - 1;
    int at = l->chain[c].prev[l->n - 1];
    for (int i = 0; i < MAX_PLACES && at >= 0; i++, at = l->chain[c].prev[at]) {
        int n = match_length(l, at);
        if (n > *length) {
            *length = n;
            best = at;
        }
    }
    return best;
}

int lookup_propose(struct lookup *l, int max, token_id *draft)
{
    if (l->pause > 0) {
        l->pause--;
        return 0;
    }
    int at = -1;
    int length = 0;
    for (int c = 0; c < N_CHAINS && at < 0 && l->n > 0; c++) {
        at = longest_match(l, c, &length);
    }
    if (at < 0) {
        return 0;
    }
    /* What agreed for a short while is trusted for a short while. */
    int limit = smaller(smaller(max, l->length), smaller(length, LOOKUP_MAX_DRAFT));
    int n = 0;
    while (n < limit) {
        int from = at + 1 + n;
        /* Beyond the end the draft itself goes on: a text with a period repeats it. */
        token_id id = from < l->n ? l->ids[from] : draft[from - l->n];
        if (id == LOOKUP_BREAK) {
            break;
        }
        draft[n++] = id;
    }
    return n;
}

void lookup_result(struct lookup *l, int n_drafted, int n_accepted)
{
    l->balance = smaller(l->balance + n_accepted * ROWS_PAID - n_drafted, HIGHEST_BALANCE);
    if (n_accepted == n_drafted) {
        l->length = smaller(l->length + 2, LOOKUP_MAX_DRAFT);
        l->next_pause = FIRST_PAUSE;
    } else {
        l->length = n_accepted + 1;
    }
    if (l->balance <= LOWEST_BALANCE) {
        l->pause = l->next_pause;
        l->next_pause = smaller(2 * l->next_pause, LONGEST_PAUSE);
        l->balance = 0;
    }
}
