/* A static prefix is computed by the shortest request that has it; a second one shows that it
 * stayed. What is kept is the operator's, so it does not matter that these have no API key. */
#include "cmd/warm.h"

#include "base/log.h"

#include <string.h>

/* Rows that the prefix cache had for a request that says next to nothing; -1 with *e set. */
static int ask(struct engine *en, const struct plan *plan, struct err *e)
{
    const struct chat_part part = {.type = CHAT_PART_TEXT, .text = ".", .text_len = 1};
    const struct chat_message message = {.role = CHAT_USER, .parts = &part, .n_parts = 1};
    struct engine_request r = {.id = "warm",
                               .cache_prompt = true,
                               .chat = {.messages = &message, .n_messages = 1},
                               .plan = *plan,
                               .gen = generation_params_default,
                               .add_generation_prompt = true};
    r.gen.max_tokens = 1;
    struct job *j = job_prepare(en, &r, e);
    struct job_event event = {.type = JOB_EVENT_NONE};
    int rc = !j || job_submit(j, e) ? -1 : 0;
    while (!rc && event.type != JOB_EVENT_END && event.type != JOB_EVENT_ERROR) {
        job_wait(j, -1);
        job_next(j, &event);
    }
    if (!rc && event.type == JOB_EVENT_ERROR) {
        *e = *job_error(j);
        rc = -1;
    }
    rc = rc ? -1 : job_result(j)->cached_rows;
    job_free(j);
    return rc;
}

static int warm(struct engine *en, const struct plan *plan, struct err *e)
{
    if (!plan->static_prefix) {
        return 0;
    }
    int cached = ask(en, plan, e);
    cached = cached < 0 ? -1 : ask(en, plan, e);
    if (cached < 0) {
        return err_prefix(e, "static prefix of '%s'", plan->profile);
    }
    log_event(cached > 0 ? LOG_INFO : LOG_WARN,
              cached > 0 ? "static prefix is warm"
                         : "static prefix is not kept: every request computes it",
              log_str("profile", plan->profile), log_i64("rows", cached));
    return 0;
}

int warm_static_prefixes(struct engine *en, const struct plan *in_force, struct err *e)
{
    if (warm(en, in_force, e)) {
        return -1;
    }
    for (int i = 0; plan_profile_name(i); i++) {
        struct plan p;
        if (plan_from_profile(&p, plan_profile_name(i), e) ||
            (strcmp(p.profile, in_force->profile) != 0 && warm(en, &p, e))) {
            return -1;
        }
    }
    return 0;
}
