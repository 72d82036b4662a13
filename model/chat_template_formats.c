/* How each family of templates writes a chat. What differs inside a family is data in the
 * table of chat_template.c.
 *
 * BOS is never written at the beginning: the caller puts it there when the tokenizer asks
 * for it. "</s>" and "<s>" inside a history are template text and become tokens. */
#include "model/chat_template_impl.h"

#include <string.h>

static const char *role_word(enum chat_role role)
{
    switch (role) {
    case CHAT_SYSTEM:
        return "system";
    case CHAT_USER:
        return "user";
    case CHAT_ASSISTANT:
        return "assistant";
    default:
        return "tool";
    }
}

static enum chat_role role_at(const struct renderer *r, int i)
{
    return r->chat->messages[i].role;
}

/* False after refusing: this template has no way to write what a tool answered. */
static bool no_tool(struct renderer *r, int i)
{
    if (role_at(r, i) != CHAT_TOOL) {
        return true;
    }
    refuse_role(r, i, "this model's chat template has no role \"tool\"");
    return false;
}

static bool is_tool(const struct renderer *r, int i)
{
    return i >= 0 && i < r->chat->n_messages && role_at(r, i) == CHAT_TOOL;
}

/* Qwen: the answers of tools that follow each other share one user turn. */
static void tool_response(struct renderer *r, int i)
{
    struct content c = content_of(r, i);
    if (!is_tool(r, i - 1)) {
        say(r, "<|im_start|>user");
    }
    say(r, "\n<tool_response>\n");
    show(r, &c);
    say(r, "\n</tool_response>");
    if (!is_tool(r, i + 1)) {
        say(r, "<|im_end|>\n");
    }
}

static bool begins(const struct segment *s, const char *with)
{
    return s->type == SEGMENT_TEXT && s->len >= strlen(with) &&
           memcmp(s->text, with, strlen(with)) == 0;
}

static bool ends(const struct segment *s, const char *with)
{
    return s->type == SEGMENT_TEXT && s->len >= strlen(with) &&
           memcmp(s->text + s->len - strlen(with), with, strlen(with)) == 0;
}

/* Qwen3: the last user message that is not the answer of a tool in disguise. */
static int last_query(struct renderer *r)
{
    for (int i = r->chat->n_messages - 1; i >= 0; i--) {
        if (role_at(r, i) != CHAT_USER) {
            continue;
        }
        struct content c = content_of(r, i);
        if (c.n == 0 || !begins(&c.items[0], "<tool_response>") ||
            !ends(&c.items[c.n - 1], "</tool_response>")) {
            return i;
        }
    }
    return r->chat->n_messages - 1;
}

/* Qwen3: reasoning stays only in assistant turns after the last question. */
static void thinking_turn(struct renderer *r, int i, int query)
{
    struct content c = content_of(r, i);
    struct content reasoning = {NULL, 0};
    struct content before;
    struct content after;
    if (content_cut(r, &c, "</think>", false, &before, &after)) {
        reasoning = before;
        content_trim_right(&reasoning, "\n");
        struct content thought = reasoning;
        if (content_cut(r, &thought, "<think>", true, &before, &after)) {
            reasoning = after;
        }
        content_trim_left(&reasoning, "\n");
    }
    if (content_cut(r, &c, "</think>", true, &before, &after)) {
        c = after;
        content_trim_left(&c, "\n");
    }
    say(r, "<|im_start|>assistant\n");
    if (i > query && (i == r->chat->n_messages - 1 || !content_is_empty(&reasoning))) {
        say(r, "<think>\n");
        content_trim_right(&reasoning, "\n");
        show(r, &reasoning);
        say(r, "\n</think>\n\n");
        content_trim_left(&c, "\n");
    }
    show(r, &c);
    say(r, "<|im_end|>\n");
}

static void chatml_turn(struct renderer *r, const char *role, const struct content *c)
{
    say(r, "<|im_start|>");
    say(r, role);
    say(r, "\n");
    show(r, c);
    say(r, "<|im_end|>\n");
}

void render_chatml(struct renderer *r, const struct chat_template *t)
{
    int n = r->chat->n_messages;
    if (t->default_system && (n == 0 || role_at(r, 0) != CHAT_SYSTEM)) {
        say(r, "<|im_start|>system\n");
        say(r, t->default_system);
        say(r, "<|im_end|>\n");
    }
    int query = t->thinking ? last_query(r) : 0;
    for (int i = 0; i < n; i++) {
        if (t->tool_responses && role_at(r, i) == CHAT_TOOL) {
            tool_response(r, i);
        } else if (t->thinking && role_at(r, i) == CHAT_ASSISTANT) {
            thinking_turn(r, i, query);
        } else {
            struct content c = content_of(r, i);
            chatml_turn(r, role_word(role_at(r, i)), &c);
        }
    }
    if (r->add_generation_prompt) {
        say(r, "<|im_start|>assistant\n");
    }
}

/* Llama 3.1 calls the role of results ipython. */
static void llama3_turn(struct renderer *r, const struct chat_template *t, int i)
{
    if ((t->tools && is_tool(r, i)) || no_tool(r, i)) {
        struct content c = content_of(r, i);
        content_trim(&c);
        say(r, "<|start_header_id|>");
        say(r, is_tool(r, i) ? "ipython" : role_word(role_at(r, i)));
        say(r, "<|end_header_id|>\n\n");
        show(r, &c);
        say(r, "<|eot_id|>");
    }
}

void render_llama3(struct renderer *r, const struct chat_template *t)
{
    int i = 0;
    if (t->preamble) {
        say(r, "<|start_header_id|>system<|end_header_id|>\n\n");
        say(r, r->chat->tools ? "Environment: ipython\n" : "");
        say(r, t->preamble);
        if (r->chat->n_messages && role_at(r, 0) == CHAT_SYSTEM) {
            struct content c = content_of(r, i++);
            content_trim(&c);
            show(r, &c);
        }
        say(r, "<|eot_id|>");
    }
    for (; i < r->chat->n_messages; i++) {
        llama3_turn(r, t, i);
    }
    if (r->add_generation_prompt) {
        say(r, "<|start_header_id|>assistant<|end_header_id|>\n\n");
    }
}

static void llama2_message(struct renderer *r, const struct chat_template *t, int i)
{
    struct content c = content_of(r, i);
    if (t->strip) {
        content_trim(&c);
    }
    if (role_at(r, i) == CHAT_SYSTEM) {
        say(r, t->system_tags ? "<<SYS>>\n" : "");
        show(r, &c);
        say(r, t->system_tags ? "\n<</SYS>>\n\n" : "\n");
    } else if (role_at(r, i) == CHAT_USER) {
        show(r, &c);
        say(r, " [/INST]");
    } else {
        show(r, &c);
        say(r, "</s>");
    }
}

void render_llama2(struct renderer *r, const struct chat_template *t)
{
    say(r, "[INST] ");
    for (int i = 0; i < r->chat->n_messages && no_tool(r, i); i++) {
        if (i > 0 && role_at(r, i - 1) == CHAT_ASSISTANT) {
            say(r, t->bos_in_history ? "<s>[INST] " : "[INST] ");
        }
        llama2_message(r, t, i);
    }
}

/* v1 and v3: a system message stands in front of the next user message. */
void render_mistral(struct renderer *r, const struct chat_template *t)
{
    bool inside = false;
    for (int i = 0; i < r->chat->n_messages && no_tool(r, i); i++) {
        struct content c = content_of(r, i);
        if (!inside) {
            say(r, t->before_inst);
            say(r, "[INST]");
            say(r, t->after_inst);
            inside = true;
        }
        if (role_at(r, i) == CHAT_SYSTEM) {
            show(r, &c);
            say(r, "\n\n");
        } else if (role_at(r, i) == CHAT_USER) {
            show(r, &c);
            say(r, t->before_inst);
            say(r, "[/INST]");
        } else {
            if (t->trim_assistant) {
                content_trim(&c);
            }
            say(r, t->after_inst);
            show(r, &c);
            say(r, "</s>");
            inside = false;
        }
    }
}

void render_mistral_v7(struct renderer *r, const struct chat_template *t)
{
    static const char *const open[] = {
        [CHAT_SYSTEM] = "[SYSTEM_PROMPT]", [CHAT_USER] = "[INST]", [CHAT_ASSISTANT] = ""};
    static const char *const close[] = {
        [CHAT_SYSTEM] = "[/SYSTEM_PROMPT]", [CHAT_USER] = "[/INST]", [CHAT_ASSISTANT] = "</s>"};
    for (int i = 0; i < r->chat->n_messages && no_tool(r, i); i++) {
        struct content c = content_of(r, i);
        say(r, open[role_at(r, i)]);
        say(r, t->after_inst);
        show(r, &c);
        say(r, close[role_at(r, i)]);
    }
}

/* Mistral Nemo: the system message stands in front of the last user message. */
void render_mistral_nemo(struct renderer *r, const struct chat_template *t)
{
    int n = r->chat->n_messages;
    bool has_system = n > 0 && role_at(r, 0) == CHAT_SYSTEM;
    int last_user = n - 1;
    while (last_user >= 0 && role_at(r, last_user) != CHAT_USER) {
        last_user--;
    }
    if (has_system && last_user < 0) {
        refuse_role(r, 0, "this model's chat template needs a user message for the system text");
    }
    for (int i = has_system ? 1 : 0; i < n && no_tool(r, i); i++) {
        struct content c = content_of(r, i);
        if (role_at(r, i) == CHAT_SYSTEM) {
            refuse_role(r, i, "this model's chat template takes a system message only first");
        } else if (role_at(r, i) == CHAT_USER) {
            struct content system = content_of(r, 0);
            say(r, "[INST]");
            say(r, t->after_inst);
            if (has_system && i == last_user) {
                show(r, &system);
                say(r, "\n\n");
            }
            show(r, &c);
            say(r, "[/INST]");
        } else {
            show(r, &c);
            say(r, "</s>");
        }
    }
}

static void gemma_turn(struct renderer *r, int i, const struct content *c)
{
    say(r, "<start_of_turn>");
    say(r, role_at(r, i) == CHAT_ASSISTANT ? "model" : "user");
    say(r, "\n");
    show(r, c);
    say(r, "<end_of_turn>\n");
}

/* Gemma has no system role: its text opens the next user message. */
void render_gemma(struct renderer *r, const struct chat_template *t)
{
    struct content system = {NULL, 0};
    int pending = -1;
    for (int i = 0; i < r->chat->n_messages && no_tool(r, i); i++) {
        struct content c = content_of(r, i);
        content_trim(&c);
        if (role_at(r, i) == CHAT_SYSTEM) {
            system = system.n ? content_join(r, &system, "", &c) : c;
            pending = i;
        } else {
            if (pending >= 0 && system.n && role_at(r, i) == CHAT_USER) {
                c = content_join(r, &system, t->after_system, &c);
                system.n = 0;
                pending = -1;
            }
            gemma_turn(r, i, &c);
        }
    }
    if (pending >= 0 && system.n) {
        refuse_role(r, pending,
                    "this model's chat template needs a user message after the system "
                    "text");
    }
    if (r->add_generation_prompt) {
        say(r, "<start_of_turn>model\n");
    }
}

/* Gemma 2: the same for a first message only, joined before the blanks around are cut. */
void render_gemma2(struct renderer *r, const struct chat_template *t)
{
    int n = r->chat->n_messages;
    bool has_system = n > 0 && role_at(r, 0) == CHAT_SYSTEM;
    if (has_system && (n == 1 || role_at(r, 1) != CHAT_USER)) {
        refuse_role(r, 0, "this model's chat template needs a user message after the system text");
    }
    for (int i = has_system ? 1 : 0; i < n && no_tool(r, i); i++) {
        struct content c = content_of(r, i);
        if (role_at(r, i) == CHAT_SYSTEM) {
            refuse_role(r, i, "this model's chat template takes a system message only first");
        }
        if (has_system && i == 1) {
            struct content system = content_of(r, 0);
            c = content_join(r, &system, t->after_system, &c);
        }
        content_trim(&c);
        gemma_turn(r, i, &c);
    }
    if (r->add_generation_prompt) {
        say(r, "<start_of_turn>model\n");
    }
}
