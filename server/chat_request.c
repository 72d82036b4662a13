#include "server/chat_request_impl.h"

#include "grammar/grammar.h"
#include "server/json_fields.h"
#include "server/limits.h"

#include <stdio.h>
#include <string.h>

static int read_all(struct chat_reader *c, struct err *e)
{
    const cJSON *root = c->r->root;
    if (chat_read_fields(c, root, e) || chat_read_compression(c, root, e) ||
        chat_read_grammar(c, root, e)) {
        return -1;
    }
    enum request_kind what = c->limits->what;
    if (what == REQUEST_COMPLETION) {
        return chat_read_prompts(c, root, "prompt", e);
    }
    if (what == REQUEST_EMBEDDING && !json_member(root, "messages")) {
        return chat_read_prompts(c, root, "input", e);
    }
    return chat_read_messages(c, root, e) || chat_read_tools(c, root, e) ? -1 : 0;
}

static int read_response(struct chat_reader *c, struct err *e)
{
    int n_before = 0;
    if (responses_to_chat(c->r->root, &n_before, e)) {
        return -1;
    }
    if (read_all(c, e)) {
        responses_name_error(n_before, e);
        return -1;
    }
    return 0;
}

int chat_request_parse(struct chat_request *r, const char *body, size_t n,
                       const struct chat_request_limits *limits, struct err *e)
{
    struct json_scan_info info;
    *r = (struct chat_request){0};
    arena_init(&r->arena, LIMIT_REQUEST_BYTES);
    r->engine.gen = generation_params_default;
    r->engine.gen.n_choices = 1;
    r->engine.gen.n_top_logprobs = -1;
    r->engine.gen.seed = 0;
    r->engine.add_generation_prompt = true;
    r->root = json_parse_object(body, n, &info, e);
    if (!r->root) {
        return -1;
    }
    for (int i = 0; limits->what == REQUEST_RESPONSE && i < info.n_fractional; i++) {
        if (strcmp(info.fractional[i], "max_output_tokens") == 0) { /* as it will be called */
            snprintf(info.fractional[i], sizeof info.fractional[i], "max_completion_tokens");
        }
    }
    struct chat_reader c = {.r = r, .limits = limits, .info = &info};
    return limits->what == REQUEST_RESPONSE ? read_response(&c, e) : read_all(&c, e);
}

void chat_request_free(struct chat_request *r)
{
    grammar_unref(r->engine.gen.grammar);
    r->engine.gen.grammar = NULL;
    arena_clear(&r->arena);
    cJSON_Delete(r->root);
    r->root = NULL;
}
