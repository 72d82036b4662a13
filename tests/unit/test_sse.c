/* The lines of a stream, byte for byte. */
#include "server/sse.h"
#include "tests/test.h"

#include <stdio.h>
#include <string.h>

#define HEAD                                                                                       \
    "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\","      \
    "\"choices\":["
#define CHOICE(delta, finish)                                                                      \
    "{\"index\":0,\"delta\":{" delta "},\"logprobs\":null,\"finish_reason\":" finish "}]"

static const struct completion completion = {.id = "c", .created = 1, .model = "m"};

TEST(sse_lines, "role, text, finish, error, ping and [DONE] as clients expect them")
{
    struct buf out;
    struct err e = ERR_INIT;
    buf_init(&out, 10000);
    const struct sse s = {
        .out = &out, .completion = &completion, .object = "chat.completion.chunk"};
    sse_role(&s, 0);
    sse_text(&s, 0, "h\xC3\xA4\n", 4, NULL);
    sse_finish(&s, 0, JOB_FINISH_STOP, NULL);
    sse_ping(&out);
    err_reason(&e, ERR_UNAVAILABLE, "shutting_down", "bye");
    sse_error(&s, &e);
    sse_done(&out);
    CHECK_STR(
        buf_str(&out),
        HEAD CHOICE("\"role\":\"assistant\",\"content\":\"\"", "null") "}\n\n" HEAD CHOICE(
            "\"content\":\"h\xC3\xA4\\n\"",
            "null") "}\n\n" HEAD CHOICE("", "\"stop\"") "}\n\n"
                                                        ": ping\n\n"
                                                        "data: "
                                                        "{\"error\":{\"message\":\"bye\",\"type\":"
                                                        "\"overloaded_error\",\"param\":null,"
                                                        "\"code\":\"shutting_down\"}}\n\n"
                                                        "data: [DONE]\n\n");
    buf_free(&out);
}

TEST(sse_usage_chunk, "with include_usage every chunk says usage null, and one last has the bill")
{
    struct buf out;
    struct job_result bill = {.prompt_rows = 3, .completion_tokens = 2};
    buf_init(&out, 10000);
    const struct sse s = {.out = &out,
                          .completion = &completion,
                          .object = "chat.completion.chunk",
                          .include_usage = true};
    sse_text(&s, 0, "x", 1, NULL);
    CHECK_STR(buf_str(&out), HEAD CHOICE("\"content\":\"x\"", "null") ",\"usage\":null}\n\n");
    buf_clear(&out);
    sse_usage(&s, &bill);
    CHECK(strncmp(buf_str(&out), HEAD "],\"usage\":{\"prompt_tokens\":3", strlen(HEAD) + 28) == 0);
    CHECK(strstr(buf_str(&out), "\"timings\":{"));
    CHECK(strstr(buf_str(&out), "\"memory\":{"));
    buf_free(&out);
}

TEST(sse_bill_without_usage, "without include_usage the last finish chunk carries the bill")
{
    struct buf out;
    struct job_result bill = {.prompt_rows = 3};
    buf_init(&out, 10000);
    const struct sse s = {
        .out = &out, .completion = &completion, .object = "chat.completion.chunk"};
    sse_finish(&s, 0, JOB_FINISH_LENGTH, &bill);
    static const char want[] = HEAD CHOICE("", "\"length\"") ",\"usage\":{\"prompt_tokens\":3";
    CHECK(strncmp(buf_str(&out), want, sizeof want - 1) == 0);
    buf_free(&out);
}

TEST(sse_logprobs, "log-probabilities come with the text they belong to")
{
    struct buf out;
    struct buf entries;
    buf_init(&out, 1000);
    buf_init(&entries, 1000);
    buf_puts(&entries, "{\"token\":\"x\"}");
    const struct sse s = {
        .out = &out, .completion = &completion, .object = "chat.completion.chunk"};
    sse_text(&s, 1, "x", 1, &entries);
    CHECK(strstr(buf_str(&out), "\"index\":1,\"delta\":{\"content\":\"x\"},\"logprobs\":"
                                "{\"content\":[{\"token\":\"x\"}],\"refusal\":null}"));
    buf_free(&out);
    buf_free(&entries);
}
