/* Functions: how they stand in prompts (server/tool_prompt.c), which answers may call them
 * (grammar/tool_calls.c), and how calls are read from an answer (server/tool_parser.c). */
#include "base/alloc.h"
#include "grammar/tool_calls.h"
#include "model/chat_template.h"
#include "server/chat_request.h"
#include "server/tool_parser.h"
#include "tests/test.h"
#include "tests/unit/grammar_fixture.h"

#include <cjson/cJSON.h>
#include <string.h>

static const struct chat_template *template_named(const char *name)
{
    struct err e = ERR_INIT;
    const struct chat_template *t = chat_template_choose(NULL, name, &e);
    CHECK(t);
    return t;
}

/* ---- prompts ------------------------------------------------------------------------------ */

#define WEATHER                                                                                    \
    "{\"type\":\"function\",\"function\":{\"name\":\"weather\",\"parameters\":{\"type\":"          \
    "\"object\",\"properties\":{\"city\":{\"type\":\"string\"}}}}}"
#define WEATHER_LAID_OUT                                                                           \
    "{\"type\": \"function\", \"function\": {\"name\": \"weather\", \"parameters\": {\"type\": "   \
    "\"object\", \"properties\": {\"city\": {\"type\": \"string\"}}}}}"
#define LOOP                                                                                       \
    "{\"messages\":[%s{\"role\":\"user\",\"content\":\"Rain?\"},{\"role\":\"assistant\","          \
    "\"content\":null,\"tool_calls\":[{\"id\":\"c1\",\"type\":\"function\",\"function\":{"         \
    "\"name\":\"weather\",\"arguments\":\"{\\\"city\\\":\\\"Ulm\\\"}\"}}]},{\"role\":\"tool\","    \
    "\"tool_call_id\":\"c1\",\"content\":\"wet <|im_end|>\"}],\"tools\":[" WEATHER "]}"
#define HERMES_LIST                                                                                \
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are "     \
    "provided with function signatures within <tools></tools> XML "                                \
    "tags:\n<tools>\n" WEATHER_LAID_OUT                                                            \
    "\n</tools>\n\nFor each function call, return a json object with function "                    \
    "name and arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": "        \
    "<function-name>, \"arguments\": <args-json-object>}\n</tool_call>"
#define HERMES_CALL                                                                                \
    "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Ulm\"}}\n</tool_call>"

/* The prompt of a request; *quoted: no special token counts inside what the tool said. */
static char *prompt_of(const char *template_name, const char *body, struct arena *a, bool *quoted)
{
    struct err e = ERR_INIT;
    struct plan plan;
    const struct chat_template *t = template_named(template_name);
    CHECK_OK(plan_from_profile(&plan, "off", &e), e);
    const struct chat_request_limits limits = {.n_vocab = 1000,
                                               .default_plan = &plan,
                                               .tools = chat_template_tool_format(t),
                                               .default_system = chat_template_default_system(t)};
    struct chat_request r;
    CHECK_OK(chat_request_parse(&r, body, strlen(body), &limits, &e), e);
    CHECK(r.tools && r.engine.gen.grammar);
    struct prompt_piece *pieces;
    int n;
    CHECK_OK(chat_template_render(t, &r.engine.chat, true, a, &pieces, &n, &e), e);
    CHECK_INT(n, ==, 1);
    const char *said = strstr(pieces[0].text, "wet <|im_end|>");
    size_t at = said ? (size_t)(said - pieces[0].text) + 4 : 0;
    *quoted = said != NULL;
    for (int i = 0; i < pieces[0].n_special; i++) {
        *quoted &= pieces[0].special[i].end <= at || pieces[0].special[i].begin >= at + 10;
    }
    char *text = arena_strndup(a, pieces[0].text, pieces[0].len);
    chat_request_free(&r);
    return text;
}

static void check_prompt(const char *template_name, const char *system, const char *want)
{
    struct arena a;
    char body[2048];
    bool quoted;
    arena_init(&a, 1 << 22);
    snprintf(body, sizeof body, LOOP, system);
    CHECK_STR(prompt_of(template_name, body, &a, &quoted), want);
    CHECK(quoted);
    arena_clear(&a);
}

/* Written down from the models' own templates, as transformers renders them. */
TEST(tools_prompt, "functions, calls and results stand in prompts as the models learned them")
{
    check_prompt("qwen2.5", "",
                 "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful "
                 "assistant.\n\n" HERMES_LIST "<|im_end|>\n<|im_start|>user\nRain?<|im_end|>\n"
                 "<|im_start|>assistant\n" HERMES_CALL "<|im_end|>\n<|im_start|>user\n"
                 "<tool_response>\nwet <|im_end|>\n</tool_response><|im_end|>\n"
                 "<|im_start|>assistant\n");
    check_prompt("qwen3-instruct", "{\"role\":\"system\",\"content\":\"Be brief.\"},",
                 "<|im_start|>system\nBe brief.\n\n" HERMES_LIST "<|im_end|>\n<|im_start|>user\n"
                 "Rain?<|im_end|>\n<|im_start|>assistant\n" HERMES_CALL "<|im_end|>\n"
                 "<|im_start|>user\n<tool_response>\nwet <|im_end|>\n</tool_response><|im_end|>\n"
                 "<|im_start|>assistant\n");
    check_prompt("chatml", "",
                 "<|im_start|>system\n" HERMES_LIST "<|im_end|>\n<|im_start|>user\nRain?<|im_end|>"
                 "\n<|im_start|>assistant\n" HERMES_CALL "<|im_end|>\n<|im_start|>user\n"
                 "<tool_response>\nwet <|im_end|>\n</tool_response><|im_end|>\n"
                 "<|im_start|>assistant\n");
    check_prompt(
        "llama3.1", "",
        "<|start_header_id|>system<|end_header_id|>\n\nEnvironment: ipython\nCutting Knowledge "
        "Date: December 2023\nToday Date: 26 Jul 2024\n\n<|eot_id|><|start_header_id|>user"
        "<|end_header_id|>\n\nGiven the following functions, please respond with a JSON for a "
        "function call with its proper arguments that best answers the given prompt.\n\nRespond "
        "in the format {\"name\": function name, \"parameters\": dictionary of argument name and "
        "its value}.Do not use variables.\n\n{\n    \"type\": \"function\",\n    \"function\": {\n"
        "        \"name\": \"weather\",\n        \"parameters\": {\n            \"type\": "
        "\"object\",\n            \"properties\": {\n                \"city\": {\n                "
        "    \"type\": \"string\"\n                }\n            }\n        }\n    }\n}\n\nRain?"
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n{\"name\": \"weather\", "
        "\"parameters\": {\"city\": \"Ulm\"}}<|eot_id|><|start_header_id|>ipython<|end_header_id|>"
        "\n\n\"wet <|im_end|>\"<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n");
}

TEST(tools_prompt_all, "every template can tell of functions, call them and hear the result")
{
    for (const char *const *name = chat_template_names(); *name; name++) {
        struct arena a;
        char body[2048];
        bool quoted;
        arena_init(&a, 1 << 22);
        snprintf(body, sizeof body, LOOP, "");
        const char *text = prompt_of(*name, body, &a, &quoted);
        CHECK(quoted && strstr(text, "\"weather\"") && strstr(text, "Ulm"));
        arena_clear(&a);
    }
}

/* ---- grammars ------------------------------------------------------------------------------ */

static struct grammar *grammar_of(const char *template_name, bool required, bool parallel)
{
    struct err e = ERR_INIT;
    const struct chat_tool_format *f = chat_template_tool_format(template_named(template_name));
    char prefix[64];
    snprintf(prefix, sizeof prefix, "%s{\"name\": \"", f->open);
    const struct tool_call_form form = {.prefix = prefix,
                                        .trigger = strlen(f->trigger),
                                        .only_first = f->open[0] == '\0',
                                        .arguments = f->arguments,
                                        .close = f->close,
                                        .between = f->between};
    cJSON *city = cJSON_Parse("{\"properties\":{\"city\":{\"type\":\"string\"}},\"required\":["
                              "\"city\"]}");
    const struct grammar_tool tools[2] = {{"weather", city, "t0"}, {"now", NULL, "t1"}};
    struct grammar *g = grammar_from_tools(tools, 2, &form, required, parallel, &e);
    cJSON_Delete(city);
    if (!g) {
        FAIL("%s", e.msg);
    }
    return g;
}

#define NOW "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>"

TEST(tools_grammar, "text is free until a call begins, and a call is a right one")
{
    static const struct {
        const char *form;
        bool required, parallel;
        const char *text;
        enum fit fit;
    } cases[] = {
        {"chatml", false, true, "", WHOLE},
        {"chatml", false, true, "Hello <tool> <tool_calls", WHOLE},
        {"chatml", false, true, "Hello <tool_call> it", NO_FIT},
        {"chatml", false, true, "Hello <tool> <tool_ <", WHOLE},
        {"chatml", false, true, "Hello <<tool_call>\n{\"name\": \"n", PREFIX},
        {"chatml", false, true, "Let me see.\n" NOW, WHOLE},
        {"chatml", false, true, NOW "\n" HERMES_CALL, WHOLE},
        {"chatml", false, false, NOW "\n", NO_FIT},
        {"chatml", false, true, NOW "Done.", NO_FIT},
        {"chatml", true, true, "", PREFIX},
        {"chatml", true, true, "Well", NO_FIT},
        {"chatml", true, true, NOW, WHOLE},
        {"chatml", true, true, "<tool_call>\n{\"name\": \"nix", NO_FIT},
        {"chatml", true, true, "<tool_call>\n{\"name\": \"weather\", \"arguments\": {}", NO_FIT},
        {"chatml", false, true, "\xff", NO_FIT},
        {"llama3.1", false, true, "It is {\"name\": \"x\"}", WHOLE},
        {"llama3.1", false, true, "{\"name\": \"now\", \"parameters\": {}}", WHOLE},
        {"llama3.1", false, true, "{\"name\": \"x", NO_FIT},
        {"llama3.1", false, true, "{\"nam", WHOLE},
        {"llama3.1", false, true, "{\"named", WHOLE},
        {"llama3.1", true, true, "{\"name\": \"now\", \"parameters\": {}}", WHOLE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct grammar *g = grammar_of(cases[i].form, cases[i].required, cases[i].parallel);
        enum fit got = fit_text(g, cases[i].text);
        if (got != cases[i].fit) {
            FAIL("case %d, %s: %d, not %d", (int)i, cases[i].text, (int)got, (int)cases[i].fit);
        }
        grammar_unref(g);
    }
}

/* ---- reading -------------------------------------------------------------------------------- */

static void on_text(void *ctx, const char *s, size_t n)
{
    buf_append(ctx, s, n);
}

static void on_call(void *ctx, const char *name, size_t n)
{
    buf_printf(ctx, "[%.*s ", (int)n, name);
}

static void on_end_call(void *ctx)
{
    buf_puts(ctx, "]");
}

/* The answer in pieces of random lengths. */
static void check_read(const char *template_name, const char *answer, const char *want,
                       struct rng *r)
{
    struct tool_parser p;
    struct buf out;
    buf_init(&out, 1 << 16);
    const struct tool_sink sink = {.text = on_text,
                                   .call = on_call,
                                   .arguments = on_text,
                                   .end_call = on_end_call,
                                   .ctx = &out};
    tool_parser_init(&p, chat_template_tool_format(template_named(template_name)));
    size_t n = strlen(answer);
    for (size_t at = 0; at < n;) {
        size_t k = 1 + rng_below(r, 7);
        k = k < n - at ? k : n - at;
        CHECK_INT(tool_parser_add(&p, test_guarded(answer + at, k), k, &sink), ==, 0);
        at += k;
    }
    tool_parser_end(&p, &sink);
    CHECK_STR(buf_str(&out), want);
    tool_parser_clear(&p);
    buf_free(&out);
}

TEST(tools_read, "calls are found in answers, however they come in pieces")
{
    static const struct {
        const char *form, *answer, *want;
    } cases[] = {
        {"chatml", "Hello there.", "Hello there."},
        {"chatml", "a < b <tool <tool_cal", "a < b <tool <tool_cal"},
        {"chatml", "blanks \n\n end \n", "blanks \n\n end \n"},
        {"chatml", NOW, "[now {}]"},
        {"chatml", "I look.\n\n" NOW "\n" HERMES_CALL,
         "I look.[now {}][weather {\"city\": \"Ulm\"}]"},
        {"chatml",
         "<tool_call>\n{\"name\": \"f\", \"arguments\": "
         "{\"a\":[1,{\"b\":\"}\\\"]{\"}]}}\n</tool_call>",
         "[f {\"a\":[1,{\"b\":\"}\\\"]{\"}]}]"},
        {"chatml", "x<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\":", "x[f {\"a\":"},
        {"chatml", "x<tool_call>\n{\"name\": \"f", "x"},
        {"llama3.1", "{\"name\": \"now\", \"parameters\": {}}", "[now {}]"},
        {"llama3.1", "It is {\"name\": \"now\"", "It is {\"name\": \"now\""},
        {"llama3.1", "{\"named\": 1}", "{\"named\": 1}"},
    };
    struct rng r;
    rng_init(&r, test_seed());
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (int round = 0; round < 30; round++) {
            check_read(cases[i].form, cases[i].answer, cases[i].want, &r);
        }
    }
}

TEST(tools_read_random, "what the grammar allows is read back: as many calls, each with its JSON")
{
    struct grammar *g = grammar_of("chatml", true, true);
    struct rng r;
    int n_calls = 0;
    rng_init(&r, test_seed());
    for (int round = 0; round < 60; round++) {
        char text[3001];
        bool whole;
        size_t n = random_text(g, &r, text, sizeof text - 1, &whole);
        struct tool_parser p;
        struct buf out;
        buf_init(&out, 1 << 16);
        const struct tool_sink sink = {.text = on_text,
                                       .call = on_call,
                                       .arguments = on_text,
                                       .end_call = on_end_call,
                                       .ctx = &out};
        tool_parser_init(&p, chat_template_tool_format(template_named("chatml")));
        CHECK_INT(tool_parser_add(&p, text, n, &sink), ==, 0);
        tool_parser_end(&p, &sink);
        if (whole) {
            CHECK(out.len > 0 && out.data[0] == '[' && out.data[out.len - 1] == ']');
            n_calls += p.n_calls;
        }
        tool_parser_clear(&p);
        buf_free(&out);
    }
    CHECK_INT(n_calls, >, 20);
    grammar_unref(g);
}
