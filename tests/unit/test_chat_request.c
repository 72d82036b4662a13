/* Every field of a chat request: what is taken, and for each wrong value the status, the
 * code and the parameter that a client sees. */
#include "model/chat_template.h"
#include "server/api_error.h"
#include "server/chat_request.h"
#include "tests/test.h"

#include "base/alloc.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HELLO      "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define FOUR_BOXES "[0,0,1,1],[0,0,1,1],[0,0,1,1],[0,0,1,1]"
#define ROI(boxes)                                                                                 \
    "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":"        \
    "\"data:image/png;base64,AAAA\",\"roi\":" boxes "}]}]}"
#define IMAGE(url)                                                                                 \
    "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":" url    \
    "}]}]}"
#define TOOL(name) "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":" name "}}]"
#define URL        "messages[0].content[0].image_url"

static struct plan default_plan;

static int parse(struct chat_request *r, const char *body, const char *header, int max_images,
                 struct err *e)
{
    if (!default_plan.profile[0]) {
        CHECK_OK(plan_from_profile(&default_plan, "balanced", e), *e);
    }
    const struct chat_request_limits limits = {
        .n_vocab = 1000,
        .n_loras = 2,
        .max_images = max_images,
        .max_image_bytes = 64,
        .default_plan = &default_plan,
        .header_profile = header,
        .tools = chat_template_tool_format(chat_template_choose(NULL, "qwen2.5", e))};
    *e = (struct err)ERR_INIT;
    return chat_request_parse(r, body, strlen(body), &limits, e);
}

static void parse_ok(struct chat_request *r, const char *body)
{
    struct err e;
    if (parse(r, body, NULL, 2, &e)) {
        FAIL("%s: %s", body, e.msg);
    }
}

static const struct {
    const char *body, *code, *param;
    int status;
} bad[] = {
    /* the outermost value */
    {"[]", "invalid_type", NULL, 400},
    {"3", "invalid_type", NULL, 400},
    {"null", "invalid_type", NULL, 400},
    {"\"x\"", "invalid_type", NULL, 400},
    {"{", "invalid_json", NULL, 400},
    {"{" HELLO ",\"model\":1}", "invalid_type", "model", 400},
    /* numbers */
    {"{" HELLO ",\"max_tokens\":-1}", "out_of_range", "max_tokens", 400},
    {"{" HELLO ",\"max_tokens\":0}", "out_of_range", "max_tokens", 400},
    {"{" HELLO ",\"max_tokens\":2147483648}", "out_of_range", "max_tokens", 400},
    {"{" HELLO ",\"max_tokens\":1.0}", "invalid_type", "max_tokens", 400},
    {"{" HELLO ",\"max_tokens\":1.5}", "invalid_type", "max_tokens", 400},
    {"{" HELLO ",\"max_tokens\":-0}", "invalid_type", "max_tokens", 400},
    {"{" HELLO ",\"max_tokens\":\"5\"}", "invalid_type", "max_tokens", 400},
    {"{" HELLO ",\"max_tokens\":true}", "invalid_type", "max_tokens", 400},
    {"{" HELLO ",\"max_completion_tokens\":0}", "out_of_range", "max_completion_tokens", 400},
    {"{" HELLO ",\"temperature\":-1}", "out_of_range", "temperature", 400},
    {"{" HELLO ",\"temperature\":1e6}", "out_of_range", "temperature", 400},
    {"{" HELLO ",\"temperature\":1e999}", "out_of_range", "temperature", 400},
    {"{" HELLO ",\"temperature\":\"1\"}", "invalid_type", "temperature", 400},
    {"{" HELLO ",\"temperature\":NaN}", "invalid_json", "temperature", 400},
    {"{" HELLO ",\"top_p\":0}", "out_of_range", "top_p", 400},
    {"{" HELLO ",\"top_p\":2}", "out_of_range", "top_p", 400},
    {"{" HELLO ",\"min_p\":1.1}", "out_of_range", "min_p", 400},
    {"{" HELLO ",\"top_k\":-1}", "out_of_range", "top_k", 400},
    {"{" HELLO ",\"repeat_penalty\":0}", "out_of_range", "repeat_penalty", 400},
    {"{" HELLO ",\"n\":0}", "out_of_range", "n", 400},
    {"{" HELLO ",\"n\":1000}", "out_of_range", "n", 400},
    {"{" HELLO ",\"seed\":9007199254740993}", "out_of_range", "seed", 400},
    {"{" HELLO ",\"seed\":1.5}", "invalid_type", "seed", 400},
    {"{" HELLO ",\"frequency_penalty\":2.1}", "out_of_range", "frequency_penalty", 400},
    {"{" HELLO ",\"presence_penalty\":-2.1}", "out_of_range", "presence_penalty", 400},
    {"{" HELLO ",\"logprobs\":1}", "invalid_type", "logprobs", 400},
    {"{" HELLO ",\"logprobs\":true,\"top_logprobs\":99}", "out_of_range", "top_logprobs", 400},
    {"{" HELLO ",\"top_logprobs\":5}", "invalid_value", "top_logprobs", 400},
    {"{" HELLO ",\"stream\":\"yes\"}", "invalid_type", "stream", 400},
    {"{" HELLO ",\"stream_options\":1}", "invalid_type", "stream_options", 400},
    {"{" HELLO ",\"stream_options\":{\"include_usage\":1}}", "invalid_type",
     "stream_options.include_usage", 400},
    /* stop and logit_bias */
    {"{" HELLO ",\"stop\":\"\"}", "invalid_value", "stop", 400},
    {"{" HELLO ",\"stop\":5}", "invalid_type", "stop", 400},
    {"{" HELLO ",\"stop\":[\"a\",\"\"]}", "invalid_value", "stop[1]", 400},
    {"{" HELLO ",\"stop\":[\"a\",1]}", "invalid_type", "stop[1]", 400},
    {"{" HELLO ",\"stop\":[\"a\",\"b\",\"c\",\"d\",\"e\"]}", "invalid_value", "stop", 400},
    {"{" HELLO ",\"logit_bias\":[]}", "invalid_type", "logit_bias", 400},
    {"{" HELLO ",\"logit_bias\":{\"-1\":0}}", "invalid_value", "logit_bias", 400},
    {"{" HELLO ",\"logit_bias\":{\"1000\":0}}", "invalid_value", "logit_bias", 400},
    {"{" HELLO ",\"logit_bias\":{\"99999999999\":0}}", "invalid_value", "logit_bias", 400},
    {"{" HELLO ",\"logit_bias\":{\"abc\":0}}", "invalid_value", "logit_bias", 400},
    {"{" HELLO ",\"logit_bias\":{\"5\":101}}", "invalid_value", "logit_bias", 400},
    {"{" HELLO ",\"logit_bias\":{\"5\":\"1\"}}", "invalid_type", "logit_bias", 400},
    /* adapters */
    {"{" HELLO ",\"lora\":{\"id\":0,\"scale\":1}}", "invalid_type", "lora", 400},
    {"{" HELLO ",\"lora\":[0]}", "invalid_type", "lora", 400},
    {"{" HELLO ",\"lora\":[{\"scale\":1}]}", "invalid_type", "lora[0].id", 400},
    {"{" HELLO ",\"lora\":[{\"id\":0.5,\"scale\":1}]}", "invalid_type", "lora[0].id", 400},
    {"{" HELLO ",\"lora\":[{\"id\":2,\"scale\":1}]}", "invalid_value", "lora[0].id", 400},
    {"{" HELLO ",\"lora\":[{\"id\":-1,\"scale\":1}]}", "invalid_value", "lora[0].id", 400},
    {"{" HELLO ",\"lora\":[{\"id\":1}]}", "invalid_type", "lora[0].scale", 400},
    {"{" HELLO ",\"lora\":[{\"id\":1,\"scale\":101}]}", "invalid_value", "lora[0].scale", 400},
    {"{" HELLO ",\"lora\":[{\"id\":1,\"scale\":1},{\"id\":1,\"scale\":0}]}", "invalid_value",
     "lora[1].id", 400},
    /* not there yet, and it would change the answer */
    {"{" HELLO ",\"tools\":{}}", "invalid_type", "tools", 400},
    {"{" HELLO ",\"tools\":[3]}", "invalid_type", "tools[0]", 400},
    {"{" HELLO ",\"tools\":[{}]}", "missing_required_parameter", "tools[0].type", 400},
    {"{" HELLO ",\"tools\":[{\"type\":\"web_search\"}]}", "unsupported_parameter", "tools[0].type",
     400},
    {"{" HELLO ",\"tools\":[{\"type\":\"function\"}]}", "missing_required_parameter",
     "tools[0].function", 400},
    {"{" HELLO "," TOOL("\"a b\"") "}", "invalid_value", "tools[0].function.name", 400},
    {"{" HELLO "," TOOL("3") "}", "invalid_type", "tools[0].function.name", 400},
    {"{" HELLO "," TOOL("\"f\",\"description\":1") "}", "invalid_type",
     "tools[0].function.description", 400},
    {"{" HELLO "," TOOL("\"f\",\"parameters\":1") "}", "invalid_type",
     "tools[0].function.parameters", 400},
    {"{" HELLO "," TOOL("\"f\",\"parameters\":{\"type\":\"array\"}") "}", "invalid_value",
     "tools[0].function.parameters.type", 400},
    {"{" HELLO "," TOOL("\"f\",\"parameters\":{\"properties\":{\"a\":{\"not\":{}}}}") "}",
     "unsupported_parameter", "tools[0].function.parameters.properties.a.not", 400},
    {"{" HELLO ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}},{\"type\":"
     "\"function\",\"function\":{\"name\":\"f\"}}]}",
     "invalid_value", "tools[1].function.name", 400},
    {"{" HELLO ",\"tool_choice\":\"required\"}", "invalid_value", "tool_choice", 400},
    {"{" HELLO "," TOOL("\"f\"") ",\"tool_choice\":\"any\"}", "invalid_value", "tool_choice", 400},
    {"{" HELLO "," TOOL("\"f\"") ",\"tool_choice\":3}", "invalid_type", "tool_choice", 400},
    {"{" HELLO "," TOOL("\"f\"") ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":"
                                 "\"g\"}}}",
     "invalid_value", "tool_choice.function.name", 400},
    {"{" HELLO "," TOOL("\"f\"") ",\"parallel_tool_calls\":1}", "invalid_type",
     "parallel_tool_calls", 400},
    {"{" HELLO "," TOOL("\"f\"") ",\"response_format\":{\"type\":\"json_object\"}}",
     "unsupported_parameter", "tools", 400},
    {"{" HELLO ",\"functions\":[{}]}", "unsupported_parameter", "functions", 400},
    {"{" HELLO ",\"grammar\":\"root ::= x\"}", "invalid_value", "grammar", 400},
    {"{" HELLO ",\"grammar\":7}", "invalid_type", "grammar", 400},
    {"{" HELLO ",\"response_format\":{\"type\":\"json_schema\"}}", "missing_required_parameter",
     "response_format.json_schema", 400},
    {"{" HELLO ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"x\"}}}",
     "missing_required_parameter", "response_format.json_schema.schema", 400},
    {"{" HELLO ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"schema\":{"
     "\"not\":{}}}}}",
     "unsupported_parameter", "response_format.json_schema.schema.not", 400},
    {"{" HELLO ",\"json_schema\":[]}", "invalid_type", "json_schema", 400},
    {"{" HELLO ",\"json_schema\":{},\"grammar\":\"root ::= \\\"x\\\"\"}", "invalid_value",
     "grammar", 400},
    {"{" HELLO ",\"response_format\":{\"type\":\"xml\"}}", "invalid_value", "response_format.type",
     400},
    {"{" HELLO ",\"response_format\":{}}", "missing_required_parameter", "response_format.type",
     400},
    {"{" HELLO ",\"response_format\":\"text\"}", "invalid_type", "response_format", 400},
    {"{" HELLO ",\"modalities\":[\"audio\"]}", "unsupported_parameter", "modalities", 400},
    {"{" HELLO ",\"mirostat\":2}", "unsupported_parameter", "mirostat", 400},
    /* messages */
    {"{}", "missing_required_parameter", "messages", 400},
    {"{\"messages\":null}", "missing_required_parameter", "messages", 400},
    {"{\"Messages\":[]}", "missing_required_parameter", "messages", 400},
    {"{\"messages\":[]}", "invalid_value", "messages", 400},
    {"{\"messages\":{}}", "invalid_type", "messages", 400},
    {"{\"messages\":[1]}", "invalid_type", "messages[0]", 400},
    {"{\"messages\":[{\"content\":\"x\"}]}", "missing_required_parameter", "messages[0].role", 400},
    {"{\"messages\":[{\"role\":1,\"content\":\"x\"}]}", "invalid_type", "messages[0].role", 400},
    {"{\"messages\":[{\"role\":\"robot\",\"content\":\"x\"}]}", "invalid_value", "messages[0].role",
     400},
    {"{\"messages\":[{\"role\":\"user\"}]}", "missing_required_parameter", "messages[0].content",
     400},
    {"{\"messages\":[{\"role\":\"user\",\"content\":null}]}", "missing_required_parameter",
     "messages[0].content", 400},
    {"{\"messages\":[{\"role\":\"user\",\"content\":3}]}", "invalid_type", "messages[0].content",
     400},
    {"{\"messages\":[{\"role\":\"user\",\"content\":[]}]}", "invalid_value", "messages[0].content",
     400},
    {"{\"messages\":[{\"role\":\"user\",\"content\":[3]}]}", "invalid_type",
     "messages[0].content[0]", 400},
    {"{\"messages\":[{\"role\":\"user\",\"content\":[{}]}]}", "invalid_type",
     "messages[0].content[0].type", 400},
    {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"user\",\"content\":"
     "[{\"type\":\"text\",\"text\":\"x\"},{\"type\":\"video\"}]}]}",
     "invalid_value", "messages[1].content[1].type", 400},
    {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]}", "invalid_type",
     "messages[0].content[0].text", 400},
    {"{\"messages\":[{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{}]}]}",
     "missing_required_parameter", "messages[0].tool_calls[0].type", 400},
    {"{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"type\":\"function\",\"function\":{"
     "\"name\":\"f\",\"arguments\":{}}}]}]}",
     "invalid_type", "messages[0].tool_calls[0].function.arguments", 400},
    {"{\"messages\":[{\"role\":\"assistant\",\"content\":\"\",\"function_call\":{\"name\":\"f\"}}]"
     "}",
     "unsupported_parameter", "messages[0].function_call", 400},
    {"{\"messages\":[{\"role\":\"assistant\"}]}", "missing_required_parameter",
     "messages[0].content", 400},
    {"{\"messages\":[{\"role\":\"tool\",\"content\":\"\",\"tool_call_id\":1}]}", "invalid_type",
     "messages[0].tool_call_id", 400},
    /* pictures */
    {IMAGE("{}"), "invalid_type", URL ".url", 400},
    {IMAGE("5"), "invalid_type", URL, 400},
    {IMAGE("{\"url\":\"http://a/b.png\"}"), "url_fetch_disabled", URL ".url", 400},
    {IMAGE("\"HTTPS://a/b.png\""), "url_fetch_disabled", URL, 400},
    {IMAGE("\"file:///etc/passwd\""), "unsupported_url_scheme", URL, 400},
    {IMAGE("\"ftp://a/b\""), "unsupported_url_scheme", URL, 400},
    {IMAGE("\"gopher://a\""), "unsupported_url_scheme", URL, 400},
    {IMAGE("\"b.png\""), "unsupported_url_scheme", URL, 400},
    {IMAGE("\"\""), "unsupported_url_scheme", URL, 400},
    {IMAGE("\"data:\""), "invalid_data_url", URL, 400},
    {IMAGE("\"data:image/png;base64\""), "invalid_data_url", URL, 400},
    {IMAGE("\"data:image/png,%89PNG\""), "invalid_data_url", URL, 400},
    {IMAGE("\"data:image/png;base64,\""), "invalid_data_url", URL, 400},
    {IMAGE("\"data:text/html;base64,AAAA\""), "unsupported_image", URL, 400},
    {IMAGE("\"data:image/png;base64,AA AA\""), "invalid_base64", URL, 400},
    {IMAGE("\"data:image/png;base64,AAAA\\n\""), "invalid_base64", URL, 400},
    {IMAGE("\"data:image/png;base64,AA-_\""), "invalid_base64", URL, 400},
    {IMAGE("\"data:image/png;base64,AAA\""), "invalid_base64", URL, 400},
    {IMAGE("\"data:image/png;base64,AB==\""), "invalid_base64", URL, 400},
    {IMAGE("\"data:image/png;base64,====\""), "invalid_base64", URL, 400},
    {IMAGE("\"data:image/png;base64,AAAA*AAA\""), "invalid_base64", URL, 400},
    {IMAGE(
         "\"data:image/png;base64,"
         "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
         "AAAAAAAA\""),
     "image_too_large", URL, 400},
    {IMAGE("{\"url\":\"data:image/png;base64,AAAA\",\"detail\":\"ultra\"}"), "invalid_value",
     URL ".detail", 400},
    {IMAGE("{\"url\":\"data:image/png;base64,AAAA\",\"detail\":1}"), "invalid_type", URL ".detail",
     400},
    {ROI("0.5"), "invalid_type", "messages[0].content[0].roi", 400},
    {ROI("[0,0,1,1]"), "invalid_value", "messages[0].content[0].roi", 400},
    {ROI("[[0,0,1]]"), "invalid_value", "messages[0].content[0].roi", 400},
    {ROI("[[0,0,1,1,1]]"), "invalid_value", "messages[0].content[0].roi", 400},
    {ROI("[[0,0,1,\"1\"]]"), "invalid_value", "messages[0].content[0].roi", 400},
    {ROI("[[0,0,1,1.5]]"), "invalid_value", "messages[0].content[0].roi", 400},
    {ROI("[[-0.1,0,1,1]]"), "invalid_value", "messages[0].content[0].roi", 400},
    {ROI("[[0.5,0,0.5,1]]"), "invalid_value", "messages[0].content[0].roi", 400},
    {ROI("[[0,0.6,1,0.5]]"), "invalid_value", "messages[0].content[0].roi", 400},
    {ROI("[" FOUR_BOXES "," FOUR_BOXES "," FOUR_BOXES "," FOUR_BOXES ",[0,0,1,1]]"),
     "too_many_regions", "messages[0].content[0].roi", 400},
    {"{" HELLO ",\"return_overlay\":1}", "invalid_type", "return_overlay", 400},
    {"{" HELLO ",\"return_overlay\":true,\"stream\":true}", "unsupported_parameter",
     "return_overlay", 400},
    {"{" HELLO ",\"compression\":{\"image\":\"random\"}}", "baseline_method",
     "compression.image.method", 400},
    {"{\"messages\":[{\"role\":\"system\",\"content\":[{\"type\":\"image_url\",\"image_url\":"
     "\"data:image/png;base64,AAAA\"}]}]}",
     "image_input_unsupported", "messages[0].content[0]", 400},
    {"{\"messages\":[{\"role\":\"tool\",\"content\":[{\"type\":\"image_url\",\"image_url\":"
     "\"data:image/png;base64,AAAA\"}]}]}",
     "image_input_unsupported", "messages[0].content[0]", 400},
    /* compression */
    {"{" HELLO ",\"compression\":5}", "invalid_type", "compression", 400},
    {"{" HELLO ",\"compression\":{\"profile\":5}}", "invalid_type", "compression.profile", 400},
    {"{" HELLO ",\"compression\":{\"image\":5}}", "invalid_type", "compression.image", 400},
    {"{" HELLO ",\"compression\":{\"image\":{\"method\":5}}}", "invalid_type",
     "compression.image.method", 400},
    {"{" HELLO ",\"compression\":{\"image\":{\"ratio\":[]}}}", "invalid_type",
     "compression.image.ratio", 400},
    {"{" HELLO ",\"compression\":{\"audio\":{}}}", "unknown_parameter", "compression.audio", 400},
    {"{" HELLO ",\"compression\":{\"budget_ms\":-5}}", "bad_option_value", "compression.budget_ms",
     400},
    {"{" HELLO ",\"compression\":{\"budget_ms\":\"5\"}}", "invalid_type", "compression.budget_ms",
     400},
    {"{" HELLO ",\"compression\":{\"guard\":1}}", "invalid_type", "compression.guard", 400},
    {"{" HELLO ",\"compression\":{\"guard\":{\"on\":1}}}", "invalid_type", "compression.guard.on",
     400},
    {"{" HELLO ",\"compression\":{\"guard\":{\"margin\":1.5}}}", "bad_option_value",
     "compression.guard.margin", 400},
    {"{" HELLO ",\"compression\":{\"guard\":{\"tokens\":2.5}}}", "bad_option_value",
     "compression.guard.tokens", 400},
    {"{" HELLO ",\"compression\":{\"guard\":{\"margni\":0.5}}}", "unknown_name",
     "compression.guard.margni", 400},
};

TEST(chat_request_bad_fields, "each wrong value is refused with its status, code and parameter")
{
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct chat_request r;
        struct err e;
        if (parse(&r, bad[i].body, NULL, 2, &e) == 0) {
            FAIL("accepted: %s", bad[i].body);
        }
        if (!e.reason || strcmp(e.reason, bad[i].code) != 0 ||
            strcmp(e.param, bad[i].param ? bad[i].param : "") != 0 ||
            api_error_status(&e) != bad[i].status) {
            FAIL("%s: %d %s '%s', not %d %s '%s'", bad[i].body, api_error_status(&e), e.reason,
                 e.param, bad[i].status, bad[i].code, bad[i].param ? bad[i].param : "");
        }
        chat_request_free(&r);
    }
}

static const struct {
    const char *body, *param;
} bad_plans[] = {
    {"{" HELLO ",\"compression\":\"tiny\"}", "compression"},
    {"{" HELLO ",\"compression\":{\"profile\":\"tiny\"}}", "compression.profile"},
    {"{" HELLO ",\"compression\":{\"image\":{\"method\":\"zip\"}}}", "compression.image.method"},
    {"{" HELLO ",\"compression\":{\"image\":{\"method\":\"tome\",\"ratio\":-1}}}",
     "compression.image.ratio"},
    {"{" HELLO ",\"compression\":{\"image\":{\"method\":\"tome\",\"ratio\":0}}}",
     "compression.image.ratio"},
    {"{" HELLO ",\"compression\":{\"image\":{\"method\":\"tome\",\"ratio\":1e9}}}",
     "compression.image.ratio"},
    {"{" HELLO ",\"compression\":{\"image\":{\"method\":\"tome\",\"colour\":1}}}",
     "compression.image.colour"},
    {"{" HELLO ",\"compression\":{\"text\":{\"method\":\"cosine\",\"threshold\":2}}}",
     "compression.text.threshold"},
    {"{" HELLO ",\"compression\":{\"text\":{\"method\":\"tome\"}}}", "compression.text.method"},
};

TEST(chat_request_bad_plans, "a plan that cannot be is a 400 that names the option")
{
    for (size_t i = 0; i < sizeof bad_plans / sizeof *bad_plans; i++) {
        struct chat_request r;
        struct err e;
        if (parse(&r, bad_plans[i].body, NULL, 2, &e) == 0) {
            FAIL("accepted: %s", bad_plans[i].body);
        }
        if (strcmp(e.param, bad_plans[i].param) != 0 || api_error_status(&e) != 400) {
            FAIL("%s: %d '%s'", bad_plans[i].body, api_error_status(&e), e.param);
        }
        chat_request_free(&r);
    }
}

TEST(chat_request_defaults, "absent and null fields keep their defaults, unknown ones are ignored")
{
    static const char *const bodies[] = {
        "{" HELLO "}",
        "{" HELLO ",\"model\":null,\"temperature\":null,\"max_tokens\":null,\"n\":null,"
        "\"stop\":null,\"stream\":null,\"logit_bias\":null,\"tools\":null,\"compression\":null,"
        "\"stream_options\":null,\"response_format\":null,\"seed\":null}",
        "{" HELLO ",\"user\":\"u\",\"metadata\":{\"a\":1},\"store\":true,\"service_tier\":\"auto\","
        "\"Temperature\":9,\"reasoning_effort\":\"low\",\"tools\":[],\"tool_choice\":\"auto\"}",
    };
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        struct chat_request r;
        parse_ok(&r, bodies[i]);
        const struct generation_params *g = &r.engine.gen;
        CHECK(!r.model);
        CHECK(!r.stream);
        CHECK(!r.seed_given);
        CHECK_INT(g->max_tokens, ==, 0);
        CHECK_INT(g->n_choices, ==, 1);
        CHECK_INT(g->n_top_logprobs, ==, -1);
        CHECK_INT(g->n_stop, ==, 0);
        CHECK_DOUBLE(g->temperature, ==, 1);
        CHECK_STR(r.engine.plan.profile, "balanced");
        CHECK(r.engine.add_generation_prompt);
        chat_request_free(&r);
    }
}

TEST(chat_request_all_fields, "every field arrives where the engine looks for it")
{
    struct chat_request r;
    parse_ok(&r,
             "{" HELLO
             ",\"model\":\"m\",\"max_tokens\":3,\"max_completion_tokens\":7,\"temperature\":0.5,"
             "\"top_p\":0.9,\"n\":2,\"stop\":[\"a\",\"b\"],\"seed\":42,"
             "\"frequency_penalty\":-0.5,\"presence_penalty\":0.25,"
             "\"logit_bias\":{\"5\":-100,\"7\":1.5},\"logprobs\":true,\"top_logprobs\":4,"
             "\"stream\":true,\"stream_options\":{\"include_usage\":true},\"top_k\":40,"
             "\"min_p\":0.05,\"repeat_penalty\":1.1,\"repeat_last_n\":-1,\"ignore_eos\":true,"
             "\"return_progress\":true,\"cache_prompt\":true,\"timings_per_token\":true,"
             "\"speculative.n_max\":3,"
             "\"response_format\":{\"type\":\"text\"},\"modalities\":[\"text\"]}");
    const struct generation_params *g = &r.engine.gen;
    CHECK_STR(r.model, "m");
    CHECK(r.stream && r.include_usage && r.return_progress && r.seed_given && g->ignore_eos);
    CHECK_INT(g->max_tokens, ==, 7);
    CHECK_INT(g->n_choices, ==, 2);
    CHECK_INT(g->seed, ==, 42);
    CHECK_INT(g->top_k, ==, 40);
    CHECK_INT(g->penalty_last_n, ==, -1);
    CHECK_INT(g->n_top_logprobs, ==, 4);
    CHECK_INT(g->max_draft, ==, 3);
    CHECK_DOUBLE(g->temperature, ==, 0.5);
    CHECK_DOUBLE(g->top_p, ==, (double)0.9f);
    CHECK_DOUBLE(g->min_p, ==, (double)0.05f);
    CHECK_DOUBLE(g->repeat_penalty, ==, (double)1.1f);
    CHECK_DOUBLE(g->frequency_penalty, ==, -0.5);
    CHECK_DOUBLE(g->presence_penalty, ==, 0.25);
    CHECK_INT(g->n_stop, ==, 2);
    CHECK_STR(g->stop[1], "b");
    CHECK_INT(g->n_logit_bias, ==, 2);
    CHECK_INT(g->logit_bias[1].token, ==, 7);
    CHECK_DOUBLE(g->logit_bias[1].bias, ==, 1.5);
    chat_request_free(&r);
}

TEST(chat_request_cache_prompt, "caches may be used unless the client says no")
{
    struct chat_request r;
    parse_ok(&r, "{" HELLO "}");
    CHECK(r.engine.cache_prompt);
    chat_request_free(&r);
    parse_ok(&r, "{" HELLO ",\"cache_prompt\":false}");
    CHECK(!r.engine.cache_prompt);
    chat_request_free(&r);
}

TEST(chat_request_seeds, "-1 draws a seed; other numbers are taken as they are")
{
    struct chat_request r;
    parse_ok(&r, "{" HELLO ",\"seed\":-1}");
    CHECK(!r.seed_given);
    chat_request_free(&r);
    parse_ok(&r, "{" HELLO ",\"seed\":9007199254740991}");
    CHECK(r.seed_given);
    CHECK_INT(r.engine.gen.seed, ==, 9007199254740991);
    chat_request_free(&r);
}

TEST(chat_request_messages, "roles, strings, parts and pictures in their order")
{
    struct chat_request r;
    parse_ok(&r, "{\"messages\":[{\"role\":\"developer\",\"content\":\"be brief\"},"
                 "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"what\"},"
                 "{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/png;base64,AAEC\","
                 "\"detail\":\"low\"}},{\"type\":\"image_url\",\"image_url\":"
                 "\"data:;base64,/"
                 "w==\",\"roi\":[[0,0.25,0.5,1],[0,0,1,1]]}]},{\"role\":\"assistant\",\"content\":"
                 "\"a\\u00e4\"},"
                 "{\"role\":\"tool\",\"content\":\"t\"}]}");
    const struct chat *c = &r.engine.chat;
    CHECK_INT(c->n_messages, ==, 4);
    CHECK_INT(c->n_images, ==, 2);
    CHECK_INT(c->messages[0].role, ==, CHAT_SYSTEM);
    CHECK_INT(c->messages[1].role, ==, CHAT_USER);
    CHECK_INT(c->messages[1].n_parts, ==, 3);
    CHECK_INT(c->messages[1].parts[1].image, ==, 0);
    CHECK_INT(c->messages[1].parts[1].detail, ==, DETAIL_LOW);
    CHECK_INT(c->messages[1].parts[2].image, ==, 1);
    CHECK_INT(c->messages[1].parts[2].detail, ==, DETAIL_AUTO);
    CHECK_INT(c->messages[1].parts[1].n_regions, ==, 0);
    CHECK_INT(c->messages[1].parts[2].n_regions, ==, 2);
    CHECK_DOUBLE((double)c->messages[1].parts[2].regions[0].top, ==, 0.25);
    CHECK_DOUBLE((double)c->messages[1].parts[2].regions[0].right, ==, 0.5);
    CHECK_INT(r.engine.images[0].n, ==, 3);
    CHECK(memcmp(r.engine.images[0].data, "\0\1\2", 3) == 0);
    CHECK_INT(r.engine.images[1].n, ==, 1);
    CHECK_INT(r.engine.images[1].data[0], ==, 255);
    CHECK_INT(c->messages[2].role, ==, CHAT_ASSISTANT);
    CHECK_INT(c->messages[2].parts[0].text_len, ==, 3);
    CHECK_INT(c->messages[3].role, ==, CHAT_TOOL);
    chat_request_free(&r);
}

TEST(chat_request_picture_limits, "more pictures than allowed, or any for a model of text")
{
    static const char two[] =
        "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":"
        "\"data:image/png;base64,AAAA\"},{\"type\":\"image_url\",\"image_url\":"
        "\"data:image/png;base64,AAAA\"}]}]}";
    struct chat_request r;
    struct err e;
    CHECK(parse(&r, two, NULL, 1, &e));
    CHECK_STR(e.reason, "too_many_images");
    CHECK_STR(e.param, "messages[0].content[1]");
    chat_request_free(&r);
    CHECK(parse(&r, two, NULL, 0, &e));
    CHECK_STR(e.reason, "image_input_unsupported");
    chat_request_free(&r);
}

static double image_ratio(const struct chat_request *r)
{
    const struct plan_step *s = &r->engine.plan.step[MODALITY_IMAGE];
    return s->options[compressor_option_index(s->method, "ratio")];
}

TEST(chat_request_static_prefix, "off is the plan in force uncompressed, prefix and all")
{
    struct chat_request r;
    struct err e;
    CHECK_OK(parse(&r, "{" HELLO "}", NULL, 2, &e), e);
    chat_request_free(&r);
    default_plan.static_prefix = "Be kind.";
    CHECK_OK(parse(&r, "{" HELLO ",\"compression\":\"off\"}", NULL, 2, &e), e);
    CHECK_STR(r.engine.plan.profile, "off");
    CHECK_STR(r.engine.plan.static_prefix, "Be kind.");
    chat_request_free(&r);
    CHECK_OK(parse(&r, "{" HELLO ",\"compression\":\"product_search\"}", NULL, 2, &e), e);
    CHECK(!r.engine.plan.static_prefix); /* another profile has its own, or none */
    chat_request_free(&r);
    default_plan.static_prefix = NULL;
}

TEST(chat_request_plan_order, "configuration, then header, then field; the method resets options")
{
    struct chat_request r;
    struct err e;
    CHECK_OK(parse(&r, "{" HELLO "}", "off", 2, &e), e);
    CHECK_STR(r.engine.plan.profile, "off");
    chat_request_free(&r);
    CHECK_OK(parse(&r, "{" HELLO ",\"compression\":\"product_search\"}", "off", 2, &e), e);
    CHECK_STR(r.engine.plan.profile, "product_search");
    chat_request_free(&r);
    CHECK_OK(parse(&r,
                   "{" HELLO ",\"compression\":{\"image\":{\"ratio\":2,\"method\":\"tome\"},"
                   "\"text\":\"off\",\"profile\":\"balanced\"}}",
                   NULL, 2, &e),
             e);
    CHECK_DOUBLE(image_ratio(&r), ==, 2);
    CHECK_STR(r.engine.plan.step[MODALITY_TEXT].method->info.name, "off");
    chat_request_free(&r);
    CHECK_OK(parse(&r, "{" HELLO ",\"compression\":{\"guard\":{\"margin\":0.2,\"entropy\":null}}}",
                   NULL, 2, &e),
             e);
    CHECK(r.engine.plan.guard.on);
    CHECK_DOUBLE(r.engine.plan.guard.value[GUARD_MARGIN], ==, 0.2);
    chat_request_free(&r);
    CHECK_OK(parse(&r, "{" HELLO ",\"compression\":{\"guard\":{\"on\":false,\"tokens\":2}}}", NULL,
                   2, &e),
             e);
    CHECK(!r.engine.plan.guard.on);
    chat_request_free(&r);
    CHECK(parse(&r, "{" HELLO "}", "nonsense", 2, &e));
    CHECK_STR(e.param, "X-Compression");
    chat_request_free(&r);
}

TEST(chat_request_too_many, "messages, parts and biases beyond their ceilings")
{
    static const struct {
        const char *head, *unit, *tail, *param;
        int n;
    } v[] = {
        {"{\"messages\":[", "{\"role\":\"user\",\"content\":\"x\"}", "]}", "messages", 1025},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[", "{\"type\":\"text\",\"text\":\"x\"}",
         "]}]}", "messages[0].content", 257},
        {"{" HELLO ",\"stop\":[", "\"x\"", "]}", "stop", 10000},
    };
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
        size_t room = strlen(v[i].head) + (strlen(v[i].unit) + 1) * (size_t)v[i].n + 16;
        char *body = malloc(room);
        CHECK(body);
        int n = snprintf(body, room, "%s", v[i].head);
        for (int k = 0; k < v[i].n; k++) {
            n += snprintf(body + n, room - (size_t)n, "%s%s", k ? "," : "", v[i].unit);
        }
        snprintf(body + n, room - (size_t)n, "%s", v[i].tail);
        struct chat_request r;
        struct err e;
        CHECK(parse(&r, body, NULL, 2, &e));
        CHECK_STR(e.param, v[i].param);
        chat_request_free(&r);
        free(body);
    }
}

TEST(chat_request_out_of_memory, "each allocation failing in turn is an error, never a crash")
{
    static const char body[] =
        "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"what\"},"
        "{\"type\":\"image_url\",\"image_url\":\"data:image/png;base64,AAEC\"}]}],"
        "\"stop\":[\"a\"],\"logit_bias\":{\"5\":1}}";
    struct chat_request r;
    struct err e;
    CHECK_OK(parse(&r, body, NULL, 2, &e), e);
    chat_request_free(&r);
    for (long n = 1;; n++) {
        alloc_fail_at(n);
        int rc = parse(&r, body, NULL, 2, &e);
        bool reached = alloc_count() >= n;
        alloc_fail_at(0);
        if (rc) {
            CHECK_INT(e.code, ==, ERR_NO_MEMORY);
            CHECK_INT(api_error_status(&e), ==, 503);
        }
        chat_request_free(&r);
        if (!reached) {
            CHECK_INT(rc, ==, 0);
            CHECK_INT(n, >, 10);
            return;
        }
        CHECK(rc != 0);
    }
}

TEST(chat_request_lora,
     "scales stand at their adapter's place, the others are 0, no field is no choice")
{
    struct chat_request r;
    parse_ok(&r, "{" HELLO ",\"lora\":[{\"id\":1,\"scale\":-0.5}]}");
    CHECK(r.engine.lora_scales);
    CHECK_DOUBLE(r.engine.lora_scales[0], ==, 0);
    CHECK_DOUBLE(r.engine.lora_scales[1], ==, -0.5);
    chat_request_free(&r);
    parse_ok(&r, "{" HELLO ",\"lora\":[]}");
    CHECK(r.engine.lora_scales);
    CHECK_DOUBLE(r.engine.lora_scales[1], ==, 0);
    chat_request_free(&r);
    parse_ok(&r, "{" HELLO "}");
    CHECK(!r.engine.lora_scales);
    chat_request_free(&r);
}
