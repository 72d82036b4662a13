#include "engine/prefix_cache.h"

#include "base/alloc.h"
#include "base/lru.h"
#include "engine/chunk.h"

#include <string.h>

/* Everything of one API key. */
struct scope {
    struct scope *next;
    uint8_t id[PREFIX_SCOPE_BYTES];
    struct node *children; /* first chunks */
    size_t bytes;          /* of its nodes and of the blocks they hold */
    int n_users;           /* nodes, and a put under way */
    bool is_operators;     /* what all may see: it has no fair share and gives up last */
};

/* One chunk; everything but the blocks is one piece of memory. */
struct node {
    struct lru use; /* first: a node is found by its place in the order of use */
    struct scope *scope;
    struct node *parent; /* NULL: a first chunk */
    struct node *children, *next;
    bool is_static;       /* of a static prefix */
    struct lora_mix lora; /* of a first chunk: these five as in the key */
    int last_block;
    struct plan_step lm;
    bool log_mass;
    int log_mass_from;
    struct prefix_chunk chunk;
    struct prefix_piece *pieces; /* [n_pieces] */
    int n_pieces;
    struct {
        int first, n; /* places in the group's table */
        struct kv_block **blocks;
    } group[KV_MAX_GROUPS];
    int n_groups;
    size_t bytes;
};

struct prefix_cache {
    struct kv_pool *pool;
    size_t max_bytes, bytes;
    struct lru used;
    struct scope *scopes;
    int n_scopes;
};

/* ---- scopes ------------------------------------------------------------------------- */

static struct scope *find_scope(const struct prefix_cache *c, const uint8_t *id, bool operators)
{
    struct scope *s = c->scopes;
    while (s && (s->is_operators != operators ||
                 (!operators && memcmp(s->id, id, PREFIX_SCOPE_BYTES) != 0))) {
        s = s->next;
    }
    return s;
}

static struct scope *use_scope(struct prefix_cache *c, const uint8_t *id, bool operators)
{
    struct scope *s = find_scope(c, id, operators);
    if (!s) {
        s = mem_zalloc(1, sizeof *s);
        if (!s) {
            return NULL;
        }
        memcpy(s->id, id, PREFIX_SCOPE_BYTES);
        s->is_operators = operators;
        s->next = c->scopes;
        c->scopes = s;
        c->n_scopes++;
    }
    s->n_users++;
    return s;
}

static void leave_scope(struct prefix_cache *c, struct scope *s)
{
    if (--s->n_users > 0) {
        return;
    }
    for (struct scope **at = &c->scopes; *at; at = &(*at)->next) {
        if (*at == s) {
            *at = s->next;
            break;
        }
    }
    c->n_scopes--;
    mem_free(s);
}

static void count_bytes(struct prefix_cache *c, struct scope *s, size_t bytes)
{
    s->bytes += bytes;
    c->bytes += bytes;
}

static void uncount_bytes(struct prefix_cache *c, struct scope *s, size_t bytes)
{
    s->bytes -= bytes;
    c->bytes -= bytes;
}

/* ---- giving up ------------------------------------------------------------------------ */

static struct node **siblings(struct node *n)
{
    return n->parent ? &n->parent->children : &n->scope->children;
}

/* A node without children. */
static void drop(struct prefix_cache *c, struct node *n)
{
    struct node **at = siblings(n);
    while (*at != n) {
        at = &(*at)->next;
    }
    *at = n->next;
    lru_remove(&n->use);
    for (int g = 0; g < n->n_groups; g++) {
        for (int i = 0; i < n->group[g].n; i++) {
            size_t bytes = n->group[g].blocks[i]->bytes;
            if (kv_block_release(c->pool, n->group[g].blocks[i])) {
                uncount_bytes(c, n->scope, bytes);
            }
        }
    }
    uncount_bytes(c, n->scope, n->bytes);
    leave_scope(c, n->scope);
    mem_free(n);
}

/* The end that was not used for longest of a beginning of somebody who has more than his
 * share, `more` bytes for `growing` counted in; of anybody, when nobody has. A static prefix
 * stays while there is something else, one of a key's own not at the cost of others' shares.
 * keep: the node that is about to get a child. False: nothing is left to give up. */
static bool evict(struct prefix_cache *c, const struct node *keep, const struct scope *growing,
                  size_t more)
{
    size_t share = c->max_bytes / (size_t)(c->n_scopes > 0 ? c->n_scopes : 1);
    struct node *victim = NULL;
    struct node *last = NULL;
    for (struct lru *at = c->used.prev; at != &c->used; at = at->prev) {
        struct node *n = (struct node *)at;
        bool greedy = n->scope->bytes + (n->scope == growing ? more : 0) > share;
        if (n->children || n == keep) {
            continue;
        }
        if (n->is_static && (n->scope->is_operators || c->n_scopes == 1 || !greedy)) {
            last = last ? last : n;
            continue;
        }
        victim = victim ? victim : n;
        if (greedy) {
            victim = n;
            break;
        }
    }
    victim = victim ? victim : last;
    if (!victim) {
        return false;
    }
    drop(c, victim);
    return true;
}

static bool make_room(void *ctx)
{
    return evict(ctx, NULL, NULL, 0);
}

struct prefix_cache *prefix_cache_new(struct kv_pool *pool, size_t max_bytes, struct err *e)
{
    struct prefix_cache *c = mem_zalloc(1, sizeof *c);
    if (!c) {
        err_no_memory(e, sizeof *c);
        return NULL;
    }
    c->pool = pool;
    c->max_bytes = max_bytes;
    lru_init(&c->used);
    pool->evict = make_room;
    pool->evict_ctx = c;
    return c;
}

void prefix_cache_free(struct prefix_cache *c)
{
    if (c) {
        while (make_room(c)) {
        }
        c->pool->evict = NULL;
        mem_free(c);
    }
}

size_t prefix_cache_bytes(const struct prefix_cache *c)
{
    return c ? c->bytes : 0;
}

/* ---- comparing -------------------------------------------------------------------------- */

/* A place in a prompt: before row `row` of the piece. */
struct cursor {
    int piece;
    int row; /* inside a picture, else 0 */
};

static bool same_text(const struct prefix_piece *a, const struct prefix_piece *b)
{
    return !b->picture && a->n_ids == b->n_ids && a->flags == b->flags && a->vector == b->vector &&
           a->position == b->position &&
           memcmp(a->ids, b->ids, (size_t)a->n_ids * sizeof *a->ids) == 0;
}

/* Whether the rows of this node come next in the prompt; moves the cursor behind them. */
static bool follows(const struct node *n, const struct prefix_piece *pieces, int n_pieces,
                    struct cursor *at)
{
    struct cursor next = *at;
    for (int i = 0; i < n->n_pieces; i++) {
        const struct prefix_piece *mine = &n->pieces[i];
        const struct prefix_piece *theirs = &pieces[next.piece];
        if (next.piece == n_pieces) {
            return false;
        }
        if (!mine->picture) {
            if (!same_text(mine, theirs)) {
                return false;
            }
            next.piece++;
            continue;
        }
        if (!theirs->picture || mine->flags != theirs->flags || mine->first != next.row ||
            memcmp(mine->picture->key, theirs->picture->key, IMAGE_KEY_BYTES) != 0) {
            return false;
        }
        next.row += mine->n;
        if (next.row == mine->picture->n_rows) {
            next = (struct cursor){.piece = next.piece + 1};
        }
    }
    *at = next;
    return true;
}

/* Whether the prompt would be cut behind these rows, and has rows behind them. A node whose
 * prompt ended there was cut for that reason alone. */
static bool ends_chunk(const struct node *n, const struct prefix_piece *pieces, int n_pieces,
                       struct cursor behind)
{
    return behind.piece < n_pieces &&
           chunk_is_whole(n->chunk.n_rows, behind.row == 0 ? pieces[behind.piece].flags : 0);
}

static bool same_key(const struct node *n, const struct prefix_key *key)
{
    return n->parent ||
           (lora_mix_equal(&n->lora, &key->lora) && n->last_block == key->last_block &&
            n->log_mass == key->log_mass && n->log_mass_from == key->log_mass_from &&
            n->lm.method == key->lm.method && n->lm.stage == key->lm.stage &&
            memcmp(n->lm.options, key->lm.options,
                   (size_t)compressor_n_options(key->lm.method) * sizeof *key->lm.options) == 0);
}

/* The row at the cursor is the operator's. */
static bool is_operators(const struct prefix_key *key, const struct prefix_piece *pieces,
                         int n_pieces, struct cursor at)
{
    return key->is_operators && at.piece < n_pieces && (pieces[at.piece].flags & ROW_STATIC);
}

/* The child of `parent` (of the scope, if NULL) whose rows come next, of this scope. chunk: a child
 * of so many rows, wherever the prompt goes on; NULL: one where it is cut. */
static struct node *find_child(struct scope *s, struct node *parent, const struct prefix_key *key,
                               const struct prefix_piece *pieces, int n_pieces,
                               const struct prefix_chunk *chunk, struct cursor *at)
{
    for (struct node *n = parent ? parent->children : s->children; n; n = n->next) {
        struct cursor next = *at;
        if (n->scope == s && same_key(n, key) && follows(n, pieces, n_pieces, &next) &&
            (chunk ? n->chunk.n_rows == chunk->n_rows : ends_chunk(n, pieces, n_pieces, next))) {
            *at = next;
            return n;
        }
    }
    return NULL;
}

/* ---- finding ---------------------------------------------------------------------------- */

/* The rows of a chunk enter the cache. A block that began in the chunk before is replaced
 * by this node's: it has the rows of both. */
static void take_blocks(const struct node *n, struct kv_cache *kv)
{
    for (int g = 0; g < n->n_groups; g++) {
        for (int i = 0; i < n->group[g].n; i++) {
            kv_share(kv, &kv->group[g], n->group[g].first + i, n->group[g].blocks[i]);
        }
        kv->group[g].n = n->chunk.end[g];
    }
}

static void learn_pictures(const struct node *n, const struct prefix_piece *pieces, int first)
{
    for (int i = 0; i < n->n_pieces; i++) {
        if (n->pieces[i].picture) {
            *pieces[first + i].picture = *n->pieces[i].picture;
        }
    }
}

static void touch(struct prefix_cache *c, struct node *n)
{
    for (; n; n = n->parent) {
        lru_touch(&c->used, &n->use);
    }
}

int prefix_cache_find(struct prefix_cache *c, const struct prefix_key *key,
                      const struct prefix_piece *pieces, int n_pieces, struct kv_cache *kv,
                      struct prefix_chunk *chunks, int max)
{
    struct node *last = NULL;
    struct cursor at = {0};
    int n_chunks = 0;
    while (n_chunks < max) {
        int first = at.piece;
        struct scope *s = find_scope(c, key->scope, is_operators(key, pieces, n_pieces, at));
        struct node *n = s ? find_child(s, last, key, pieces, n_pieces, NULL, &at) : NULL;
        if (!n) {
            break;
        }
        chunks[n_chunks++] = n->chunk;
        take_blocks(n, kv);
        learn_pictures(n, pieces, first);
        last = n;
    }
    touch(c, last);
    struct err no_memory = ERR_INIT;
    return kv_own_tail(kv, &no_memory) ? 0 : n_chunks;
}

/* ---- keeping ------------------------------------------------------------------------------ */

/* How many pieces the n_rows rows from `at` on are, and what is in them; -1 when the prompt
 * ends before. */
static int measure_chunk(const struct prefix_piece *pieces, int n_pieces, struct cursor at,
                         int n_rows, size_t *n_ids, int *n_pictures)
{
    int n = 0;
    *n_ids = 0;
    *n_pictures = 0;
    while (n_rows > 0) {
        if (at.piece == n_pieces) {
            return -1;
        }
        const struct prefix_piece *p = &pieces[at.piece];
        n_rows -= p->picture ? p->picture->n_rows - at.row : 1;
        *n_ids += (size_t)p->n_ids;
        *n_pictures += p->picture ? 1 : 0;
        at = (struct cursor){.piece = at.piece + 1};
        n++;
    }
    return n;
}

/* Copies the pieces of a chunk and moves the cursor behind it. */
static void copy_pieces(struct node *n, const struct prefix_piece *pieces, struct cursor *at,
                        struct prefix_picture *pictures, token_id *ids)
{
    int left = n->chunk.n_rows;
    for (int i = 0; i < n->n_pieces; i++) {
        struct prefix_piece *to = &n->pieces[i];
        *to = pieces[at->piece];
        if (!to->picture) {
            memcpy(ids, to->ids, (size_t)to->n_ids * sizeof *ids);
            to->ids = ids;
            ids += to->n_ids;
            left--;
            at->piece++;
            continue;
        }
        *pictures = *to->picture;
        to->picture = pictures++;
        to->first = at->row;
        to->n = to->picture->n_rows - at->row;
        to->n = to->n < left ? to->n : left;
        left -= to->n;
        at->row += to->n;
        if (at->row == to->picture->n_rows) {
            *at = (struct cursor){.piece = at->piece + 1};
        }
    }
}

/* A node of a chunk that begins at the cursor, which moves behind it; not in the tree, and
 * it holds nothing yet. before: rows in each group before the chunk. NULL: no memory. */
static struct node *node_new(const struct prefix_key *key, const struct prefix_piece *pieces,
                             int n_pieces, struct cursor *at, const struct prefix_chunk *chunk,
                             const int *before, const struct kv_cache *kv)
{
    size_t n_ids;
    int n_pictures;
    size_t n_blocks = 0;
    int first[KV_MAX_GROUPS];
    int count[KV_MAX_GROUPS];
    int n = measure_chunk(pieces, n_pieces, *at, chunk->n_rows, &n_ids, &n_pictures);
    for (int g = 0; g < kv->n_groups; g++) {
        first[g] = before[g] / KV_BLOCK_ROWS;
        count[g] = kv_blocks_for(chunk->end[g]) - first[g];
        n_blocks += (size_t)count[g];
    }
    if (n < 0) {
        return NULL;
    }
    size_t n_states = chunk->states ? (size_t)chunk->n_rows * (size_t)key->n_embd : 0;
    size_t bytes = sizeof(struct node) + n_states * sizeof(float) +
                   (size_t)n * sizeof(struct prefix_piece) +
                   (size_t)n_pictures * sizeof(struct prefix_picture) +
                   n_blocks * sizeof(struct kv_block *) + n_ids * sizeof(token_id);
    struct node *node = mem_zalloc(1, bytes);
    if (!node) {
        return NULL;
    }
    node->bytes = bytes;
    node->lora = key->lora;
    node->is_static = pieces[at->piece].flags & ROW_STATIC;
    node->last_block = key->last_block;
    node->lm = key->lm;
    node->log_mass = key->log_mass;
    node->log_mass_from = key->log_mass_from;
    node->chunk = *chunk;
    node->n_pieces = n;
    node->n_groups = kv->n_groups;
    node->pieces = (struct prefix_piece *)(node + 1);
    struct prefix_picture *pictures = (struct prefix_picture *)(node->pieces + n);
    struct kv_block **blocks = (struct kv_block **)(pictures + n_pictures);
    float *states = (float *)(blocks + n_blocks);
    copy_pieces(node, pieces, at, pictures, (token_id *)(states + n_states));
    if (chunk->states) {
        memcpy(states, chunk->states, n_states * sizeof *states);
        node->chunk.states = states;
    }
    for (int g = 0; g < kv->n_groups; g++) {
        node->group[g].first = first[g];
        node->group[g].n = count[g];
        node->group[g].blocks = blocks;
        for (int i = 0; i < count[g]; i++) {
            *blocks++ = kv->group[g].blocks[first[g] + i];
        }
    }
    return node;
}

/* What the cache would grow by. */
static size_t growth(const struct node *n)
{
    size_t bytes = n->bytes;
    for (int g = 0; g < n->n_groups; g++) {
        for (int i = 0; i < n->group[g].n; i++) {
            bytes += n->group[g].blocks[i]->n_held == 0 ? n->group[g].blocks[i]->bytes : 0;
        }
    }
    return bytes;
}

static bool fit(struct prefix_cache *c, const struct node *n, const struct node *parent,
                const struct scope *s)
{
    for (;;) {
        size_t more = growth(n);
        if (more <= c->max_bytes && c->bytes <= c->max_bytes - more) {
            return true;
        }
        if (more > c->max_bytes || !evict(c, parent, s, more)) {
            return false;
        }
    }
}

static void insert(struct prefix_cache *c, struct node *n, struct node *parent, struct scope *s)
{
    n->scope = s;
    n->parent = parent;
    s->n_users++;
    struct node **at = siblings(n);
    n->next = *at;
    *at = n;
    lru_add(&c->used, &n->use);
    count_bytes(c, s, n->bytes);
    for (int g = 0; g < n->n_groups; g++) {
        for (int i = 0; i < n->group[g].n; i++) {
            if (kv_block_hold(c->pool, n->group[g].blocks[i])) {
                count_bytes(c, s, n->group[g].blocks[i]->bytes);
            }
        }
    }
}

void prefix_cache_put(struct prefix_cache *c, const struct prefix_key *key,
                      const struct prefix_piece *pieces, int n_pieces, const struct kv_cache *kv,
                      const struct prefix_chunk *chunks, int n_chunks)
{
    struct scope *own = use_scope(c, key->scope, false);
    struct scope *operators = key->is_operators ? use_scope(c, key->scope, true) : NULL;
    struct node *parent = NULL;
    struct cursor at = {0};
    int before[KV_MAX_GROUPS] = {0};
    for (int i = 0; i < n_chunks; i++) {
        struct scope *s = is_operators(key, pieces, n_pieces, at) ? operators : own;
        if (!s) {
            break;
        }
        struct node *n = find_child(s, parent, key, pieces, n_pieces, &chunks[i], &at);
        if (!n) {
            n = node_new(key, pieces, n_pieces, &at, &chunks[i], before, kv);
            if (!n || !fit(c, n, parent, s)) {
                mem_free(n);
                break;
            }
            insert(c, n, parent, s);
        }
        memcpy(before, chunks[i].end, sizeof before);
        parent = n;
    }
    touch(c, parent);
    if (own) {
        leave_scope(c, own);
    }
    if (operators) {
        leave_scope(c, operators);
    }
}
