/* Chat templates as two tables: what there is, and by which words in a file's template one
 * is recognised. A template in a file is a program (Jinja); tamp runs none, it compares.
 *
 * The forms are those of llama.cpp: the names it shares with us write what its built-in
 * templates write; smollm2, qwen2.5, qwen3, llama3.1, mistral-nemo and gemma2 write what
 * the models' own templates do. Qwen3's reasoning is left on, as its template does unless
 * told otherwise. Llama 3.1's date is the template's own default: a date of today would
 * make every cached prefix useless at midnight. */
#include "model/chat_template.h"

#include "model/chat_template_impl.h"

#include <stdio.h>
#include <string.h>

/* Hermes' form, which Qwen took over; also for families that never learned any: the block
 * explains itself. */
#define HERMES                                                                                     \
    .open = "<tool_call>\n", .trigger = "<tool_call>",                                             \
    .arguments = "\", \"arguments\": ", .close = "\n</tool_call>", .between = "\n",                \
    .list = "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"     \
            "You are provided with function signatures within <tools></tools> XML tags:\n"         \
            "<tools>",                                                                             \
    .each = "\n",                                                                                  \
    .list_end = "\n</tools>\n\nFor each function call, return a json object with function name "   \
                "and arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n"            \
                "{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call>"

static const struct chat_tool_format tools_hermes = {HERMES};
static const struct chat_tool_format tools_for_all = {HERMES, .result_open = "<tool_response>\n",
                                                      .result_close = "\n</tool_response>"};

static const struct chat_tool_format tools_llama = {
    .open = "",
    .trigger = "{\"name\": \"",
    .arguments = "\", \"parameters\": ",
    .close = "",
    .list = "Given the following functions, please respond with a JSON for a function call with "
            "its proper arguments that best answers the given prompt.\n\nRespond in the format "
            "{\"name\": function name, \"parameters\": dictionary of argument name and its "
            "value}.Do not use variables.\n\n",
    .each = "",
    .list_end = "",
    .indent = 4,
    .in_user_message = true,
    .result_json = true};

static const struct chat_template templates[] = {
    {.name = "chatml", .render = render_chatml},
    {.name = "smollm2",
     .render = render_chatml,
     .default_system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"},
    {.name = "qwen1.5", .render = render_chatml, .default_system = "You are a helpful assistant"},
    {.name = "qwen2", .render = render_chatml, .default_system = "You are a helpful assistant."},
    {.name = "qwen2.5",
     .render = render_chatml,
     .default_system = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
     .tool_responses = true,
     .tools = &tools_hermes},
    {.name = "qwen3",
     .render = render_chatml,
     .tool_responses = true,
     .thinking = true,
     .tools = &tools_hermes},
    {.name = "qwen3-instruct",
     .render = render_chatml,
     .tool_responses = true,
     .tools = &tools_hermes},
    {.name = "llama3", .render = render_llama3},
    {.name = "llama3.1",
     .render = render_llama3,
     .preamble = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n",
     .tools = &tools_llama},
    {.name = "llama2", .render = render_llama2},
    {.name = "llama2-sys", .render = render_llama2, .system_tags = true},
    {.name = "llama2-sys-bos",
     .render = render_llama2,
     .system_tags = true,
     .bos_in_history = true},
    {.name = "llama2-sys-strip", .render = render_llama2, .system_tags = true, .strip = true},
    {.name = "mistral-v1", .render = render_mistral, .before_inst = " ", .after_inst = " "},
    {.name = "mistral-v3",
     .render = render_mistral,
     .before_inst = "",
     .after_inst = " ",
     .trim_assistant = true},
    {.name = "mistral-v3-tekken", .render = render_mistral, .before_inst = "", .after_inst = ""},
    {.name = "mistral-nemo", .render = render_mistral_nemo, .after_inst = ""},
    {.name = "mistral-v7", .render = render_mistral_v7, .after_inst = " "},
    {.name = "mistral-v7-tekken", .render = render_mistral_v7, .after_inst = ""},
    {.name = "gemma", .render = render_gemma, .after_system = "\n\n"},
    {.name = "gemma2", .render = render_gemma2, .after_system = "\n"},
};
#define N_TEMPLATES (sizeof templates / sizeof templates[0])

static const char *const names[] = {
    "chatml",           "smollm2",    "qwen1.5",           "qwen2",
    "qwen2.5",          "qwen3",      "qwen3-instruct",    "llama3",
    "llama3.1",         "llama2",     "llama2-sys",        "llama2-sys-bos",
    "llama2-sys-strip", "mistral-v1", "mistral-v3",        "mistral-v3-tekken",
    "mistral-nemo",     "mistral-v7", "mistral-v7-tekken", "gemma",
    "gemma2",           NULL,
};

/* The first row whose words are all in the file's template, and none of the others, says
 * what it is. No name: known to be none of ours. */
static const struct mark {
    const char *name;
    const char *has[4];
    const char *lacks[4];
} marks[] = {
    {NULL, {"<|im_start|>", "## Metadata"}, {NULL}},         /* SmolLM 3 */
    {NULL, {"<|im_start|>", "<|im_sep|>"}, {NULL}},          /* Phi 4 */
    {NULL, {"<|im_start|>", "<end_of_utterance>"}, {NULL}},  /* SmolVLM */
    {NULL, {"<|im_start|>", "assistant\\n<think>"}, {NULL}}, /* answers that begin in thought */
    {"smollm2",
     {"<|im_start|>", "You are a helpful AI assistant named SmolLM, trained by Hugging Face"},
     {NULL}},
    {"qwen2.5",
     {"<|im_start|>", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."},
     {NULL}},
    {"qwen3",
     {"<|im_start|>", "<tool_response>", "reasoning_content", "enable_thinking"},
     {"{{- '<think>\\n' }}"}},
    {"qwen3-instruct",
     {"<|im_start|>user", "\\n<tool_response>\\n"},
     {"<think>", "reasoning_content", "<|im_start|>system\\nYou are"}},
    {"qwen2", {"<|im_start|>system", "You are a helpful assistant.<|im_end|>"}, {NULL}},
    {"qwen1.5", {"<|im_start|>system", "You are a helpful assistant<|im_end|>"}, {NULL}},
    {"chatml", {"<|im_start|>' + "}, {"<|im_start|>system", "<think>"}},
    {"chatml", {"<|im_start|>\" + "}, {"<|im_start|>system", "<think>"}},
    {"chatml", {"<|im_start|>{{"}, {"<|im_start|>system", "<think>"}},
    {NULL, {"<|im_start|>"}, {NULL}},
    {NULL, {"[INST]", "default_system_message"}, {NULL}},
    {"mistral-v7", {"[SYSTEM_PROMPT] ", "[INST]"}, {NULL}},
    {"mistral-v7", {"[SYSTEM_PROMPT]", "[INST] "}, {NULL}},
    {"mistral-v7-tekken", {"[SYSTEM_PROMPT]", "[INST]"}, {NULL}},
    {"mistral-v1", {"' [INST] ' + system_message"}, {NULL}},
    {"mistral-v1", {" [INST]", "[AVAILABLE_TOOLS]"}, {NULL}},
    {"mistral-nemo", {"\"[INST]\"", "\"[AVAILABLE_TOOLS][\""}, {NULL}},
    {"mistral-v3-tekken", {"\"[INST]\"", "[AVAILABLE_TOOLS]"}, {NULL}},
    {"mistral-v3", {"[INST]", "[AVAILABLE_TOOLS]"}, {NULL}},
    {"llama2-sys-strip", {"[INST]", "content.strip()"}, {NULL}},
    {"llama2-sys-bos", {"bos_token + '[INST]"}, {NULL}},
    {"llama2-sys", {"[INST]", "<<SYS>>"}, {NULL}},
    {"llama2", {"[INST]"}, {NULL}},
    {"gemma2", {"<start_of_turn>", "System role not supported"}, {NULL}},
    {"gemma", {"<start_of_turn>"}, {NULL}},
    {"llama3.1", {"<|start_header_id|>", "<|end_header_id|>", "Cutting Knowledge Date"}, {NULL}},
    {"llama3", {"<|start_header_id|>' + message", "<|end_header_id|>"}, {NULL}},
    {"llama3", {"<|start_header_id|>\" + message", "<|end_header_id|>"}, {NULL}},
};

const char *const *chat_template_names(void)
{
    return names;
}

const char *chat_template_name(const struct chat_template *t)
{
    return t->name;
}

static const struct chat_template *by_name(const char *name)
{
    for (size_t i = 0; i < N_TEMPLATES; i++) {
        if (strcmp(templates[i].name, name) == 0) {
            return &templates[i];
        }
    }
    return NULL;
}

const struct chat_tool_format *chat_template_tool_format(const struct chat_template *t)
{
    return t->tools ? t->tools : &tools_for_all;
}

const char *chat_template_default_system(const struct chat_template *t)
{
    return t->default_system;
}

static bool holds(const char *source, size_t len, const char *word)
{
    return memmem(source, len, word, strlen(word)) != NULL;
}

static bool matches(const struct mark *m, const char *source, size_t len)
{
    for (size_t i = 0; i < 4 && m->has[i]; i++) {
        if (!holds(source, len, m->has[i])) {
            return false;
        }
    }
    for (size_t i = 0; i < 4 && m->lacks[i]; i++) {
        if (holds(source, len, m->lacks[i])) {
            return false;
        }
    }
    return true;
}

const struct chat_template *chat_template_recognise(const char *source, size_t len)
{
    for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++) {
        if (matches(&marks[i], source, len)) {
            return marks[i].name ? by_name(marks[i].name) : NULL;
        }
    }
    return NULL;
}

static void unsupported(const char *what, struct err *e)
{
    struct buf list;
    buf_init(&list, 400);
    for (size_t i = 0; names[i]; i++) {
        buf_printf(&list, "%s%s", i ? ", " : "", names[i]);
    }
    err_set(e, ERR_UNSUPPORTED, "%s; choose one with --chat-template NAME: %s", what,
            buf_str(&list));
    buf_free(&list);
}

const struct chat_template *chat_template_choose(const struct gguf *g, const char *name,
                                                 struct err *e)
{
    if (name) {
        const struct chat_template *t = by_name(name);
        if (!t) {
            char what[96];
            snprintf(what, sizeof what, "chat template \"%.60s\" is not known", name);
            unsupported(what, e);
        }
        return t;
    }
    struct gguf_string source;
    int got = gguf_get_string(g, "tokenizer.chat_template", &source, e);
    if (got == GGUF_ABSENT) {
        unsupported("the model file holds no chat template", e);
    }
    if (got != GGUF_FOUND) {
        return NULL;
    }
    const struct chat_template *t = chat_template_recognise(source.ptr, source.len);
    if (!t) {
        unsupported("the chat template in the model file is not known", e);
    }
    return t;
}

int chat_template_render(const struct chat_template *t, const struct chat *chat,
                         bool add_generation_prompt, struct arena *a, struct prompt_piece **pieces,
                         int *n_pieces, struct err *e)
{
    struct renderer r;
    renderer_init(&r, chat, add_generation_prompt, a, e);
    t->render(&r, t);
    return renderer_finish(&r, pieces, n_pieces);
}
