/* What a prompt shares with earlier ones. Between the text, which is merged by now, and the
 * pictures, which may never have to be looked at: the prompt is described piece by piece,
 * the prefix cache follows the description as far as it can, and what it knows enters the
 * sequence's KV cache. After the last chunk the same description says what is left behind. */
#include "engine/engine_impl.h"

#include "engine/chunk.h"

#include <string.h>

/* Of a vector that is the mean of others: what it was made of is compared in full, this
 * sees a difference in how. */
static uint64_t checksum(const float *x, int n)
{
    uint64_t h = 14695981039346656037u; /* FNV-1a on whole words */
    for (int i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        h = (h ^ bits) * 1099511628211u;
    }
    return h;
}

/* The tokens of each row of a run: ids[n] is sorted by row, order kept. */
static void describe_rows(const struct prompt_run *run, uint8_t flags, token_id *ids,
                          struct prefix_piece *pieces)
{
    const struct rows *r = &run->rows;
    const token_id *next = ids;
    for (int i = 0; i < r->n; i++) {
        pieces[i] = (struct prefix_piece){.flags = r->flags[i] & flags, .position = r->position[i]};
    }
    for (int s = 0; s < r->n_source; s++) {
        if (r->owner[s] != ROW_DROPPED) {
            pieces[r->owner[s]].n_ids++;
        }
    }
    for (int i = 0; i < r->n; i++) {
        pieces[i].ids = next;
        next += pieces[i].n_ids;
        pieces[i].vector =
            pieces[i].n_ids > 1 ? checksum(r->x + (size_t)i * (size_t)r->n_embd, r->n_embd) : 0;
        pieces[i].n_ids = 0;
    }
    for (int s = 0; s < r->n_source; s++) {
        if (r->owner[s] != ROW_DROPPED) {
            struct prefix_piece *p = &pieces[r->owner[s]];
            ids[p->ids - ids + p->n_ids++] = run->ids[s];
        }
    }
}

static int describe(struct job *j, const struct prefix_key *key, struct err *e)
{
    const struct prompt *p = &j->prompt;
    size_t most = (size_t)p->text_rows + (size_t)p->n_images;
    token_id *ids = arena_alloc(&j->arena, (size_t)p->text_rows, sizeof *ids);
    j->pieces = arena_alloc(&j->arena, most, sizeof *j->pieces);
    j->max_chunks = (p->text_rows + p->image_rows) / CHUNK_MIN_ROWS + 2;
    j->chunks = arena_alloc(&j->arena, (size_t)j->max_chunks, sizeof *j->chunks);
    if (!ids || !j->pieces || !j->chunks) {
        return err_no_memory(e, most * sizeof *j->pieces);
    }
    /* Without merging inside the decoder flags decide nothing but where chunks end. */
    uint8_t flags = key->lm.method == compressors[0] ? ROW_BREAK | ROW_CUT | ROW_STATIC : UINT8_MAX;
    for (int i = 0; i < p->n_runs; i++) {
        const struct prompt_run *run = &p->runs[i];
        if (run->kind == ROW_IMAGE) {
            j->pieces[j->n_pieces++] =
                (struct prefix_piece){.picture = &p->images[run->image].info, .flags = ROW_BREAK};
            continue;
        }
        describe_rows(run, flags, ids, j->pieces + j->n_pieces);
        j->n_pieces += run->rows.n;
        ids += run->rows.n_source;
    }
    return 0;
}

/* A picture whose last row is among the first n_rows of the prompt needs no tower. */
static void mark_pictures(struct job *j, int n_rows)
{
    for (int i = 0; i < j->n_pieces && n_rows > 0; i++) {
        struct prefix_picture *picture = j->pieces[i].picture;
        n_rows -= picture ? picture->n_rows : 1;
        for (int k = 0; picture && n_rows >= 0 && k < j->prompt.n_images; k++) {
            j->prompt.images[k].in_prefix |= picture == &j->prompt.images[k].info;
        }
    }
}

static struct prefix_key key_of(const struct engine *en, const struct job *j)
{
    struct prefix_key key = {.is_operators = j->plan.static_prefix != NULL,
                             .log_mass = j->log_mass,
                             .log_mass_from = j->log_mass_from};
    struct plan_step steps[PLAN_MAX_LM_STEPS];
    int cutoffs[PLAN_MAX_LM_STEPS];
    memcpy(key.scope, j->scope, sizeof key.scope);
    key.lora = j->lora;
    if (pipeline_lm_steps(en, j, steps, cutoffs, NULL) > 0) {
        key.lm = steps[0]; /* later ones follow from it */
    } else {
        key.lm.method = compressors[0];
        key.lm.stage = STAGE_LM_LAYER;
    }
    key.last_block = -1;
    key.n_embd = en->info.n_embd;
    if (j->chooser) { /* below the first choice all methods are alike */
        key.last_block = cutoffs[0];
        key.lm = (struct plan_step){.method = compressors[0], .stage = STAGE_LM_LAYER};
        key.log_mass = j->log_mass && j->log_mass_from <= cutoffs[0];
        key.log_mass_from = key.log_mass ? j->log_mass_from : 0;
    }
    return key;
}

/* The reasons and counts of the chunks that are not run. */
static void report_found(struct job *j, const struct prefix_key *key)
{
    for (int i = 0; i < j->n_chunks; i++) {
        const struct report *r = &j->chunks[i].report;
        for (int k = 0; k < r->n_skipped; k++) {
            report_skip(&j->result.report, r->skipped[k].stage, r->skipped[k].reason);
        }
        if (r->modality[MODALITY_LM].method) {
            report_add(&j->result.report, MODALITY_LM, &key->lm, r->modality[MODALITY_LM].rows_in,
                       r->modality[MODALITY_LM].rows_out, 0);
        }
        j->n_rows_found += j->chunks[i].n_rows;
    }
}

/* The question's rows must be run: what they attend to is what rows are chosen by. */
static int pieces_before_question(const struct job *j)
{
    int n = 0;
    for (int r = 0; r < j->prompt.n_runs; r++) {
        const struct prompt_run *run = &j->prompt.runs[r];
        for (int i = 0; run->kind == ROW_TEXT && i < run->rows.n; i++) {
            if (run->rows.flags[i] & ROW_QUESTION) {
                return n + i;
            }
        }
        n += run->kind == ROW_TEXT ? run->rows.n : 1;
    }
    return n;
}

static int take_states(const struct engine *en, struct job *j, struct err *e)
{
    size_t n_embd = (size_t)en->info.n_embd;
    size_t n = 0;
    for (int i = 0; i < j->n_chunks; i++) {
        n += (size_t)j->chunks[i].n_rows;
    }
    j->states_found = arena_alloc(&j->arena, n, n_embd * sizeof *j->states_found);
    if (!j->states_found) {
        return err_no_memory(e, n * n_embd * sizeof *j->states_found);
    }
    n = 0;
    for (int i = 0; i < j->n_chunks; i++) {
        size_t n_rows = (size_t)j->chunks[i].n_rows;
        memcpy(j->states_found + n * n_embd, j->chunks[i].states,
               n_rows * n_embd * sizeof *j->states_found);
        n += n_rows;
    }
    return 0;
}

void prefix_give_states(struct job *j)
{
    if (j->states_found) {
        memcpy(j->sequence.x, j->states_found,
               (size_t)j->n_rows_found * (size_t)j->sequence.n_embd * sizeof *j->sequence.x);
    }
}

int prefix_begin(struct engine *en, struct job *j, struct err *e)
{
    if (!job_uses_prefix_cache(j)) {
        return 0;
    }
    const struct prefix_key key = key_of(en, j);
    if (describe(j, &key, e)) {
        return -1;
    }
    int n_pieces = j->chooser ? pieces_before_question(j) + 1 : j->n_pieces;
    n_pieces = n_pieces < j->n_pieces ? n_pieces : j->n_pieces;
    j->states_found = NULL;
    j->n_chunks = prefix_cache_find(en->prefix_cache, &key, j->pieces, n_pieces, &j->kv, j->chunks,
                                    j->max_chunks);
    if (j->chooser && take_states(en, j, e)) {
        return -1;
    }
    report_found(j, &key);
    mark_pictures(j, j->n_rows_found);
    return 0;
}

/* Rows that two runs have in common from their beginning; a picture is worth a chunk. */
static int rows_in_common(const struct job *a, const struct job *b, int run)
{
    const struct prompt_run *x = &a->prompt.runs[run];
    const struct prompt_run *y = &b->prompt.runs[run];
    if (x->kind != y->kind) {
        return 0;
    }
    if (x->kind == ROW_IMAGE) {
        const uint8_t *key = a->prompt.images[x->image].info.key;
        return memcmp(key, b->prompt.images[y->image].info.key, IMAGE_KEY_BYTES) == 0
                   ? CHUNK_MIN_ROWS
                   : 0;
    }
    int n = 0;
    while (n < x->n && n < y->n && x->ids[n] == y->ids[n]) {
        n++;
    }
    return n;
}

bool prefix_is_shared(const struct job *a, const struct job *b)
{
    if (!job_uses_prefix_cache(a) || !job_uses_prefix_cache(b) ||
        memcmp(a->scope, b->scope, sizeof a->scope) != 0 || !lora_mix_equal(&a->lora, &b->lora)) {
        return false;
    }
    int common = 0;
    for (int run = 0; run < a->prompt.n_runs && run < b->prompt.n_runs; run++) {
        int n = rows_in_common(a, b, run);
        common += n;
        if (common >= CHUNK_MIN_ROWS || n == 0 || n < a->prompt.runs[run].n) {
            break;
        }
    }
    return common >= CHUNK_MIN_ROWS;
}

void prefix_chunk_done(struct job *j, int n_rows, int n_behind)
{
    if (!j->chunks || j->n_chunks == j->max_chunks) {
        return;
    }
    struct prefix_chunk *c = &j->chunks[j->n_chunks++];
    size_t first = (size_t)(j->n_rows_done - n_rows) * (size_t)j->sequence.n_embd;
    *c = (struct prefix_chunk){.n_rows = n_rows,
                               .report = j->chunk_report,
                               .states = j->chooser ? j->sequence.x + first : NULL};
    for (int g = 0; g < j->kv.n_groups; g++) {
        c->end[g] = j->kv.group[g].n - n_behind;
    }
}

void prefix_keep(struct engine *en, struct job *j)
{
    if (!j->chunks || j->leaves_nothing) {
        return;
    }
    const struct prefix_key key = key_of(en, j);
    prefix_cache_put(en->prefix_cache, &key, j->pieces, j->n_pieces, &j->kv, j->chunks,
                     j->n_chunks);
}
