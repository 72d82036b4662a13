/* Bodies that are not a chat's: completions, embeddings, responses. What is taken, for each
 * wrong value the code and the parameter, and that no allocation can fail unnoticed. */
#include "base/alloc.h"
#include "server/api_error.h"
#include "server/chat_request.h"
#include "tests/test.h"

#include <string.h>

#define USER(parts) "{\"input\":[{\"role\":\"user\",\"content\":[" parts "]}]}"

static int parse(struct chat_request *r, enum request_kind what, const char *body, struct err *e)
{
    static struct plan plan;
    if (!plan.profile[0]) {
        CHECK_OK(plan_from_profile(&plan, "balanced", e), *e);
    }
    const struct chat_request_limits limits = {.n_vocab = 1000,
                                               .max_images = 2,
                                               .max_image_bytes = 64,
                                               .default_plan = &plan,
                                               .what = what};
    return chat_request_parse(r, body, strlen(body), &limits, e);
}

static const struct {
    enum request_kind what;
    const char *body, *code, *param;
} bad[] = {
    {REQUEST_COMPLETION, "{}", "missing_required_parameter", "prompt"},
    {REQUEST_COMPLETION, "{\"messages\":[]}", "missing_required_parameter", "prompt"},
    {REQUEST_COMPLETION, "{\"prompt\":{}}", "invalid_type", "prompt"},
    {REQUEST_COMPLETION, "{\"prompt\":[[]]}", "invalid_type", "prompt[0]"},
    {REQUEST_COMPLETION, "{\"prompt\":[1,\"a\"]}", "out_of_range", "prompt[1]"},
    {REQUEST_COMPLETION, "{\"prompt\":[1,1000]}", "out_of_range", "prompt[1]"},
    {REQUEST_COMPLETION, "{\"prompt\":[[1],[2,-1]]}", "out_of_range", "prompt[1][1]"},
    {REQUEST_COMPLETION, "{\"prompt\":[\"a\",null]}", "invalid_type", "prompt[1]"},
    {REQUEST_COMPLETION, "{\"prompt\":[\"a\",\"b\"],\"n\":65}", "too_many_prompts", "prompt"},
    {REQUEST_COMPLETION, "{\"prompt\":\"a\",\"logprobs\":1.0}", "invalid_type", "logprobs"},
    {REQUEST_COMPLETION, "{\"prompt\":\"a\",\"best_of\":3,\"n\":2}", "unsupported_parameter",
     "best_of"},
    {REQUEST_EMBEDDING, "{}", "missing_required_parameter", "input"},
    {REQUEST_EMBEDDING, "{\"input\":[true]}", "invalid_type", "input[0]"},
    {REQUEST_EMBEDDING, "{\"messages\":[]}", "invalid_value", "messages"},
    {REQUEST_RESPONSE, "{}", "missing_required_parameter", "input"},
    {REQUEST_RESPONSE, "{\"input\":[1]}", "invalid_type", "input[0]"},
    {REQUEST_RESPONSE, "{\"input\":[{\"content\":\"x\"}]}", "missing_required_parameter",
     "input[0].role"},
    {REQUEST_RESPONSE, "{\"instructions\":\"be\",\"input\":[{\"role\":\"user\"}]}",
     "missing_required_parameter", "input[0].content"},
    {REQUEST_RESPONSE, "{\"input\":\"x\",\"max_output_tokens\":2.0}", "invalid_type",
     "max_output_tokens"},
    {REQUEST_RESPONSE, "{\"input\":\"x\",\"text\":3}", "invalid_type", "text"},
    {REQUEST_RESPONSE, USER("{\"type\":\"input_file\"}"), "invalid_value",
     "input[0].content[0].type"},
    {REQUEST_RESPONSE, USER("{\"type\":\"input_image\"}"), "invalid_type",
     "input[0].content[0].image_url.url"},
    {REQUEST_RESPONSE, USER("{\"type\":\"input_image\",\"image_url\":\"data:,\",\"detail\":\"x\"}"),
     "invalid_value", "input[0].content[0].image_url.detail"},
};

TEST(other_requests_refused, "every wrong value names what came, under the name it came with")
{
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct chat_request r;
        struct err e = ERR_INIT;
        if (parse(&r, bad[i].what, bad[i].body, &e) == 0) {
            FAIL("%s was taken", bad[i].body);
        }
        CHECK_STR(e.reason, bad[i].code);
        CHECK_STR(e.param, bad[i].param);
        CHECK_INT(api_error_status(&e), ==, 400);
        chat_request_free(&r);
    }
}

TEST(other_requests_prompts, "a text, ids, and lists of both are as many prompts")
{
    struct chat_request r;
    struct err e = ERR_INIT;
    CHECK_OK(parse(&r, REQUEST_COMPLETION, "{\"prompt\":[\"ab\",[7,8,9]],\"echo\":true}", &e), e);
    CHECK_INT(r.n_prompts, ==, 2);
    CHECK_STR(r.prompts[0].text, "ab");
    CHECK(!r.prompts[0].ids);
    CHECK_INT(r.prompts[1].n_ids, ==, 3);
    CHECK_INT(r.prompts[1].ids[2], ==, 9);
    CHECK(r.echo);
    CHECK_INT(r.engine.gen.max_tokens, ==, 16);
    CHECK_INT(r.engine.gen.n_top_logprobs, ==, -1);
    chat_request_free(&r);
    CHECK_OK(parse(&r, REQUEST_COMPLETION, "{\"prompt\":[5],\"logprobs\":0,\"max_tokens\":3}", &e),
             e);
    CHECK_INT(r.n_prompts, ==, 1);
    CHECK_INT(r.engine.gen.n_top_logprobs, ==, 0);
    CHECK_INT(r.engine.gen.max_tokens, ==, 3);
    chat_request_free(&r);
    CHECK_OK(
        parse(&r, REQUEST_EMBEDDING, "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", &e),
        e);
    CHECK(!r.prompts && !r.engine.add_generation_prompt);
    chat_request_free(&r);
}

static const char response[] =
    "{\"instructions\":\"be brief\",\"max_output_tokens\":5,\"n\":3,\"top_logprobs\":2,"
    "\"text\":{\"format\":{\"type\":\"text\"}},\"input\":["
    "{\"type\":\"message\",\"role\":\"developer\",\"content\":\"d\"},"
    "{\"type\":\"reasoning\",\"summary\":[]},"
    "{\"role\":\"user\",\"content\":[{\"type\":\"input_text\",\"text\":\"look\"},"
    "{\"type\":\"input_image\",\"detail\":\"low\",\"image_url\":\"data:image/png;base64,AAAA\"}]},"
    "{\"role\":\"assistant\",\"content\":[{\"type\":\"output_text\",\"text\":\"so\"}]}]}";

TEST(other_requests_response, "a response's body is the chat that it stands for")
{
    struct chat_request r;
    struct err e = ERR_INIT;
    CHECK_OK(parse(&r, REQUEST_RESPONSE, response, &e), e);
    const struct chat_message *m = r.engine.chat.messages;
    CHECK_INT(r.engine.chat.n_messages, ==, 4);
    CHECK_INT(m[0].role, ==, CHAT_SYSTEM);
    CHECK_STR(m[0].parts[0].text, "be brief");
    CHECK_INT(m[1].role, ==, CHAT_SYSTEM);
    CHECK_STR(m[1].parts[0].text, "d");
    CHECK_STR(m[2].parts[0].text, "look");
    CHECK_INT(m[2].parts[1].type, ==, CHAT_PART_IMAGE);
    CHECK_INT(m[2].parts[1].detail, ==, DETAIL_LOW);
    CHECK_INT(r.engine.images[0].n, ==, 3);
    CHECK_INT(m[3].role, ==, CHAT_ASSISTANT);
    CHECK_STR(m[3].parts[0].text, "so");
    CHECK_INT(r.engine.gen.max_tokens, ==, 5);
    CHECK_INT(r.engine.gen.n_choices, ==, 1);
    CHECK_INT(r.engine.gen.n_top_logprobs, ==, -1);
    chat_request_free(&r);
}

TEST(other_requests_no_memory, "whichever allocation fails, the request says so and leaves nothing")
{
    static const struct {
        enum request_kind what;
        const char *body;
    } bodies[] = {{REQUEST_COMPLETION, "{\"prompt\":[\"ab\",[7,8,9]],\"stop\":\"x\"}"},
                  {REQUEST_RESPONSE, response}};
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        int rc = -1;
        for (int n = 1; rc != 0; n++) {
            struct chat_request r;
            struct err e = ERR_INIT;
            CHECK_INT(n, <, 1000);
            alloc_fail_at(n);
            rc = parse(&r, bodies[i].what, bodies[i].body, &e);
            alloc_fail_at(0);
            CHECK(rc == 0 || e.code == ERR_NO_MEMORY);
            chat_request_free(&r);
        }
    }
}
