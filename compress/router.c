/* A chat becomes spans: one for each part, in prompt order, with what the plan has for it.
 * Which bytes of the text may never merge is found by the scanner in protect.c. */
#include "compress/router.h"

#include "base/checked.h"

static bool is_off(const struct plan_step *step)
{
    return step->method == compressors[0];
}

static int count_parts(const struct chat *chat, size_t *n)
{
    *n = 0;
    for (int m = 0; m < chat->n_messages; m++) {
        if (!ck_add(*n, (size_t)chat->messages[m].n_parts, n)) {
            return -1;
        }
    }
    return *n > (size_t)INT32_MAX ? -1 : 0;
}

static int text_span(struct span *s, const struct chat_part *part, enum chat_role role,
                     const struct plan *plan, struct arena *a, struct err *e)
{
    bool merges = !is_off(&plan->step[MODALITY_TEXT]) || !is_off(&plan->step[MODALITY_LM]);
    s->kind = ROW_TEXT;
    s->step = plan->step[MODALITY_TEXT];
    bool is_static =
        plan->step[MODALITY_LM].method->info.static_part && is_off(&plan->step[MODALITY_TEXT]);
    s->protect_all = !merges || part->glued || part->ours ||
                     (role == CHAT_SYSTEM && plan->protect_system && !is_static);
    if (s->protect_all) {
        s->step.method = compressors[0];
        return 0;
    }
    struct text_range *ranges;
    if (router_protected_ranges(part->text, part->text_len, a, &ranges, &s->n_protect, e)) {
        return -1;
    }
    s->protect = ranges;
    return 0;
}

int router_split(const struct chat *chat, const struct plan *plan, struct arena *a,
                 struct span **spans, int *n_spans, struct err *e)
{
    size_t n;
    if (count_parts(chat, &n)) {
        return err_set(e, ERR_TOO_LARGE, "the chat has too many parts");
    }
    struct span *list = arena_zalloc(a, n, sizeof *list);
    if (!list) {
        return err_no_memory(e, n * sizeof *list);
    }
    struct span *s = list;
    for (int m = 0; m < chat->n_messages; m++) {
        const struct chat_message *message = &chat->messages[m];
        for (int p = 0; p < message->n_parts; p++, s++) {
            const struct chat_part *part = &message->parts[p];
            s->message = m;
            s->part = p;
            if (part->type == CHAT_PART_IMAGE) {
                s->kind = ROW_IMAGE;
                s->step = plan->step[MODALITY_IMAGE];
            } else if (text_span(s, part, message->role, plan, a, e)) {
                return -1;
            }
        }
    }
    *spans = list;
    *n_spans = (int)n;
    return 0;
}
