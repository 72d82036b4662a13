#include "grammar/tool_calls.h"

#include "grammar/json_schema_impl.h"

#include <string.h>

#define MAX_TRIGGER 64

struct calls {
    struct grammar_builder *b;
    struct schema_compiler *c;
    const struct tool_call_form *form;
};

/* {} for a function without parameters. */
static struct fragment arguments(struct calls *k, const struct grammar_tool *t)
{
    if (!t->parameters) {
        struct fragment f;
        f.start = builder_state(k->b);
        f.end = builder_text(k->b, f.start, "{}", 2);
        return f;
    }
    return schema_call(k->c, schema_document(k->c, t->parameters, t->path));
}

/* From behind the trigger to behind the call, whatever function it is. */
static struct fragment rest_of_call(struct calls *k, const struct grammar_tool *tools, int n)
{
    const struct tool_call_form *form = k->form;
    const char *rest = form->prefix + form->trigger;
    struct fragment f = {builder_state(k->b), builder_state(k->b)};
    int32_t name = builder_text(k->b, f.start, rest, strlen(rest));
    for (int i = 0; i < n && !k->b->failed; i++) {
        int32_t at = builder_text(k->b, name, tools[i].name, strlen(tools[i].name));
        at = builder_text(k->b, at, form->arguments, strlen(form->arguments));
        struct fragment args = arguments(k, &tools[i]);
        builder_empty(k->b, at, args.start);
        at = builder_text(k->b, args.end, "}", 1);
        at = builder_text(k->b, at, form->close, strlen(form->close));
        builder_empty(k->b, at, f.end);
    }
    return f;
}

/* How much of the trigger the bytes trigger[0..n) and then `byte` end with. */
static size_t matched_after(const char *trigger, size_t n, uint8_t byte)
{
    char text[MAX_TRIGGER + 1];
    memcpy(text, trigger, n);
    text[n] = (char)byte;
    for (size_t len = n + 1; len > 0; len--) {
        if (memcmp(text + n + 1 - len, trigger, len) == 0) {
            return len;
        }
    }
    return 0;
}

/* Any text in which the trigger does not stand, and what stands behind it: a state for each
 * length of a beginning of the trigger (Knuth, Morris and Pratt, 1977). */
static void free_text(struct calls *k, int32_t start, int32_t end, int32_t called)
{
    const char *trigger = k->form->prefix;
    size_t n = k->form->trigger;
    int32_t states[MAX_TRIGGER + 1];
    states[0] = start;
    for (size_t i = 1; i < n; i++) {
        states[i] = builder_state(k->b);
    }
    states[n] = called;
    for (size_t i = 0; i < n && !k->b->failed; i++) {
        builder_empty(k->b, states[i], end);
        for (int byte = 0; byte < GRAMMAR_CONTROL_BYTE; byte++) {
            size_t to = matched_after(trigger, i, (uint8_t)byte);
            builder_bytes(k->b, states[i], (uint8_t)byte, (uint8_t)byte, states[to]);
        }
    }
}

/* The trigger at the very beginning, or any text that does not begin like it. */
static void first_text(struct calls *k, int32_t start, int32_t end, int32_t called)
{
    const char *trigger = k->form->prefix;
    int32_t any = builder_state(k->b);
    builder_bytes(k->b, any, 0, GRAMMAR_CONTROL_BYTE - 1, any);
    builder_empty(k->b, any, end);
    int32_t at = start;
    for (size_t i = 0; i < k->form->trigger; i++) {
        uint8_t byte = (uint8_t)trigger[i];
        int32_t next = i + 1 == k->form->trigger ? called : builder_state(k->b);
        builder_empty(k->b, at, end);
        builder_bytes(k->b, at, byte, byte, next);
        builder_bytes(k->b, at, 0, (uint8_t)(byte - 1), any);
        builder_bytes(k->b, at, (uint8_t)(byte + 1), GRAMMAR_CONTROL_BYTE - 1, any);
        at = next;
    }
}

static int32_t answers(struct calls *k, const struct grammar_tool *tools, int n, bool required,
                       bool parallel)
{
    const struct tool_call_form *form = k->form;
    int32_t rule = builder_rule(k->b);
    struct fragment all = {builder_state(k->b), builder_state(k->b)};
    struct fragment call = rest_of_call(k, tools, n);
    if (required) {
        int32_t at = builder_text(k->b, all.start, form->prefix, form->trigger);
        builder_empty(k->b, at, call.start);
    } else if (form->only_first) {
        first_text(k, all.start, all.end, call.start);
    } else {
        free_text(k, all.start, all.end, call.start);
    }
    builder_empty(k->b, call.end, all.end);
    if (parallel && form->between) {
        int32_t at = builder_text(k->b, call.end, form->between, strlen(form->between));
        at = builder_text(k->b, at, form->prefix, form->trigger);
        builder_empty(k->b, at, call.start);
    }
    builder_define(k->b, rule, all);
    return rule;
}

struct grammar *grammar_from_tools(const struct grammar_tool *tools, int n,
                                   const struct tool_call_form *form, bool required, bool parallel,
                                   struct err *e)
{
    struct grammar_builder b;
    struct schema_compiler c;
    struct grammar *g = NULL;
    builder_init(&b, e);
    if (form->trigger == 0 || form->trigger > MAX_TRIGGER) {
        builder_fail(&b, ERR_INTERNAL, "a trigger of %zu bytes", form->trigger);
    }
    if (schema_compiler_init(&c, &b) == 0) {
        struct calls k = {.b = &b, .c = &c, .form = form};
        int32_t root = answers(&k, tools, n, required, parallel);
        g = automaton_build(&b, root);
        if (!g && e && !e->param[0]) {
            err_param(e, "tools");
        }
    }
    schema_compiler_clear(&c);
    builder_clear(&b);
    return g;
}
