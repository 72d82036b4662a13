/* Which running answers try how many drafted tokens in the next step. A draft is worth a
 * row of a pass only when the pass is run anyway, so drafts fill what the answers leave
 * of it and never make a pass more. */
#include "engine/engine_impl.h"

/* Rows of a pass that cost hardly more than one, because the weights come from memory once
 * for all of them. */
#define PASS_ROWS   8
#define MOST_DRAFTS (PASS_ROWS - 1)

_Static_assert(MOST_DRAFTS <= LOOKUP_MAX_DRAFT, "drafts fit into their array");

static int smaller(int a, int b)
{
    return a < b ? a : b;
}

int draft_begin(struct engine *en, struct job *j, struct err *e)
{
    if (!en->params.speculation || j->gen.max_draft == 0) {
        return 0;
    }
    const struct prompt *p = &j->prompt;
    if (lookup_init(&j->lookup, p->text_rows + p->n_runs + j->max_new, &j->arena, e)) {
        return -1;
    }
    for (int r = 0; r < p->n_runs; r++) {
        const struct prompt_run *run = &p->runs[r];
        if (run->kind == ROW_IMAGE) {
            lookup_add(&j->lookup, LOOKUP_BREAK);
        }
        for (int i = 0; i < run->n; i++) {
            lookup_add(&j->lookup, run->ids[i]);
        }
    }
    j->n_lookup_prompt = j->lookup.n;
    return 0;
}

/* The last row of a pass gives a token too, so drafts beyond the one before the last that
 * is wanted would be thrown away. */
static int useful_drafts(const struct job *j, int spare)
{
    int left = j->max_new - j->n_generated - 1;
    int most = smaller(j->gen.max_draft, MOST_DRAFTS);
    return smaller(smaller(left, most), spare);
}

void draft_plan(struct job *const *jobs, int n, struct draft *drafts)
{
    int spare = PASS_ROWS - n;
    int proposed[ENGINE_MAX_PARALLEL];
    for (int i = 0; i < n; i++) {
        drafts[i].n = 0;
        proposed[i] =
            spare > 0 && jobs[i]->lookup.capacity > 0
                ? lookup_propose(&jobs[i]->lookup, useful_drafts(jobs[i], spare), drafts[i].ids)
                : 0;
    }
    /* One each in turn, so that none has all the rows that are left. */
    for (bool any = true; any && spare > 0;) {
        any = false;
        for (int i = 0; i < n && spare > 0; i++) {
            if (drafts[i].n < proposed[i]) {
                drafts[i].n++;
                spare--;
                any = true;
            }
        }
    }
}
