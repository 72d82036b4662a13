/* Requests that wait, in the order in which they came; whose turn is next is decided between
 * API keys first (fair.h). When the queue is full, the key that fills it gives way: "longest
 * queue drop", which lets one key alone have all places and leaves each of n keys max_queue / n
 * of them, without a place being kept free for anybody. All under engine.lock. */
#include "engine/engine_impl.h"

bool queue_is_full(const struct engine *en)
{
    const struct engine_params *p = &en->params;
    return en->n_waiting >= p->max_queue &&
           en->n_running + en->n_waiting >= p->n_parallel + p->max_queue;
}

struct job *queue_to_displace(const struct engine *en, const uint8_t *scope)
{
    struct job *last = NULL;
    int most = 0;
    for (struct job *j = en->queue_head; j; j = j->next) {
        int n = fair_wanting(&en->turns, j->turn);
        if (n >= most) {
            most = n;
            last = j;
        }
    }
    /* less than the longest even with this one, or two keys would push each other out */
    return fair_wanting_of(&en->turns, scope) + 1 < most ? last : NULL;
}

void queue_add(struct engine *en, struct job *j)
{
    j->turn = fair_hold(&en->turns, j->scope);
    fair_enter(&en->turns, j->turn);
    j->queued = true;
    j->next = NULL;
    if (en->queue_tail) {
        en->queue_tail->next = j;
    } else {
        en->queue_head = j;
    }
    en->queue_tail = j;
    en->n_waiting++;
}

/* Out of the list; the key's number is still held. */
static void unlink_job(struct engine *en, struct job *j)
{
    struct job **link = &en->queue_head;
    struct job *before = NULL;
    while (*link != j) {
        before = *link;
        link = &before->next;
    }
    *link = j->next;
    if (en->queue_tail == j) {
        en->queue_tail = before;
    }
    fair_leave(&en->turns, j->turn);
    j->queued = false;
    en->n_waiting--;
}

void queue_remove(struct engine *en, struct job *j)
{
    unlink_job(en, j);
    fair_release(&en->turns, j->turn);
}

struct job *queue_take(struct engine *en)
{
    struct job *next = en->queue_head;
    for (struct job *j = next; j; j = j->next) {
        if (fair_service(&en->turns, j->turn) < fair_service(&en->turns, next->turn)) {
            next = j;
        }
    }
    if (next) {
        fair_charge(&en->turns, next->turn, next->prompt.text_rows + next->prompt.rows_bound);
        unlink_job(en, next);
    }
    return next;
}

/* What the answer got since the last time. */
static void charge(struct engine *en, struct job *j)
{
    int n = j->result.completion_tokens + j->attempt.n_discarded - j->n_charged;
    fair_charge(&en->turns, j->turn, FAIR_ANSWER_TOKEN * n);
    j->n_charged += n;
}

void queue_charge_answers(struct engine *en)
{
    for (int i = 0; i < en->n_running; i++) {
        charge(en, en->running[i]);
    }
}

void queue_job_ended(struct engine *en, struct job *j)
{
    charge(en, j);
    fair_release(&en->turns, j->turn);
}
