/* The JSON of an answer, compared with the expected text; errors; the writer itself. */
#include "server/api_error.h"
#include "server/chat_response.h"
#include "tests/test.h"

#include <math.h>
#include <string.h>

static const char *token_text(const void *ctx, int32_t token, size_t *len)
{
    static const char *const texts[] = {"A", "\xC3", "\xA4"};
    (void)ctx;
    *len = 1;
    return token >= 0 && token < 3 ? texts[token] : NULL;
}

static const struct token_names names = {.text = token_text};

static struct job_result result(void)
{
    struct job_result r = {.prompt_rows = 90,
                           .text_rows = 26,
                           .image_rows = 64,
                           .cached_rows = 10,
                           .completion_tokens = 4,
                           .queue_ms = 1.5,
                           .vision_ms = 200,
                           .compress_ms = 3.25,
                           .prompt_ms = 100,
                           .predicted_ms = 50,
                           .first_token_ms = 101,
                           .total_ms = 151.5,
                           .kv_bytes = 1000,
                           .kv_bytes_saved = 3000,
                           .peak_bytes = 5000};
    snprintf(r.report.profile, sizeof r.report.profile, "balanced");
    r.report.original_rows = 282;
    r.report.compressed_rows = 90;
    r.report.mean_rows_per_layer = 90;
    r.report.modality[MODALITY_IMAGE] = (struct report_stage){
        .method = "tome", .stage = STAGE_VIT_LAYER, .rows_in = 256, .rows_out = 64, .ms = 3.25};
    r.report.skipped[0].stage = STAGE_TEXT_ROWS;
    r.report.skipped[0].reason = "too_short";
    r.report.n_skipped = 1;
    return r;
}

TEST(chat_response_attempts, "an answer that was judged says how often its prompt was run, and why")
{
    static const char want[] =
        "\"rollout\":\"1.3x\",\"budget\":{\"ms\":200,\"expected_ms\":150.5,\"cap\":4,\"met\":true},"
        "\"guard\":{\"redone\":1,\"expected_ratio\":2.5,\"attempts\":[{"
        "\"rows\":30,\"rung\":0,"
        "\"plain\":false,\"margin\":0.125,\"entropy\":2,\"doubt\":\"narrow_margin\"},"
        "{\"rows\":60,\"rung\":1,\"plain\":false,\"margin\":null,\"entropy\":null,"
        "\"doubt\":null}]}";
    struct job_result r = result();
    struct json_writer w;
    struct buf out;
    r.cascade_ratio = 2.5;
    r.report.rollout = "1.3x";
    r.budget_ms = 200;
    r.budget_expected_ms = 150.5;
    r.budget_cap = 4;
    r.rerun_rows = 30;
    r.rerun_image_rows = 16;
    r.report.modality[MODALITY_IMAGE].rows_out = 40;
    r.report.modality[MODALITY_IMAGE].rung = 1;
    r.report.modality[MODALITY_IMAGE].n_rungs = 3;
    r.n_attempts = 2;
    r.attempts[0] = (struct job_attempt){
        .rows = 30, .looked = true, .margin = 0.125, .entropy = 2, .doubt = "narrow_margin"};
    r.attempts[1] = (struct job_attempt){.rows = 60, .rung = 1};
    buf_init(&out, 1 << 16);
    json_writer_init(&w, &out);
    json_begin_object(&w);
    render_usage(&w, &r);
    json_end_object(&w);
    const char *text = buf_str(&out);
    if (!strstr(text, want)) {
        FAIL("not in %s", text);
    }
    CHECK(strstr(text, "\"rung\":1,\"rungs\":3"));
    CHECK(strstr(text, "\"text_tokens\":34,\"image_tokens\":56"));
    buf_free(&out);
}

TEST(chat_response_golden, "a whole answer, byte for byte")
{
    static const char want[] =
        "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":7,\"model\":\"m\","
        "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"a\\\"b\\n\","
        "\"refusal\":null},\"logprobs\":{\"content\":[{\"token\":\"A\",\"logprob\":-0.5,"
        "\"bytes\":[65],\"top_logprobs\":[{\"token\":\"\xEF\xBF\xBD\",\"logprob\":-9999,"
        "\"bytes\":[195]}]}],\"refusal\":null},\"finish_reason\":\"stop\"},{\"index\":1,"
        "\"message\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null},\"logprobs\":null,"
        "\"finish_reason\":\"length\"}],\"usage\":{\"prompt_tokens\":90,\"completion_tokens\":4,"
        "\"total_tokens\":94,\"prompt_tokens_details\":{\"cached_tokens\":10,\"text_tokens\":26,"
        "\"image_tokens\":64},\"compression\":{\"original_tokens\":282,\"compressed_tokens\":90,"
        "\"ratio\":3.1333,\"profile\":\"balanced\",\"image\":{\"method\":\"tome\","
        "\"stage\":\"vit-layer\",\"rows_in\":256,\"rows_out\":64,\"ratio\":4,\"ms\":3.25},"
        "\"text\":null,\"lm\":null,\"mean_rows_per_layer\":90,\"skipped\":[{\"stage\":"
        "\"text-rows\",\"reason\":\"too_short\"}]}},\"timings\":{\"cache_n\":10,\"prompt_n\":80,"
        "\"prompt_ms\":100,\"prompt_per_token_ms\":1.25,\"prompt_per_second\":800,"
        "\"predicted_n\":4,\"predicted_ms\":50,\"predicted_per_token_ms\":12.5,"
        "\"predicted_per_second\":80,\"queue_ms\":1.5,\"image_decode_ms\":0,\"vision_ms\":200,"
        "\"compress_ms\":3.25,\"first_token_ms\":101,\"total_ms\":151.5},\"memory\":{"
        "\"kv_bytes\":1000,\"kv_bytes_saved\":3000,\"peak_bytes\":5000}}";
    struct job_result r = result();
    struct token_info t = {.token = 0, .logprob = -0.5f, .n_top = 1};
    t.top[0].token = 1;
    t.top[0].logprob = -INFINITY;
    const struct job_event ev = {.type = JOB_EVENT_TEXT, .tokens = &t, .n_tokens = 1};
    struct choice choices[2] = {{.finish = JOB_FINISH_STOP}, {.finish = JOB_FINISH_LENGTH}};
    for (int i = 0; i < 2; i++) {
        buf_init(&choices[i].text, 1000);
        buf_init(&choices[i].logprobs, 1000);
    }
    buf_puts(&choices[0].text, "a\"b\n");
    render_logprobs(&choices[0].logprobs, &ev, &names);
    const struct completion c = {.id = "chatcmpl-1", .created = 7, .model = "m"};
    struct buf out;
    buf_init(&out, 100000);
    render_completion(&out, &c, choices, 2, &r);
    CHECK(!buf_failed(&out));
    CHECK_STR(buf_str(&out), want);
    buf_free(&out);
    for (int i = 0; i < 2; i++) {
        buf_free(&choices[i].text);
        buf_free(&choices[i].logprobs);
    }
}

TEST(chat_response_drafts, "draft_n and draft_n_accepted are there when something was drafted")
{
    struct job_result r = result();
    struct buf out;
    struct json_writer w;
    r.draft_tokens = 9;
    r.draft_tokens_accepted = 7;
    buf_init(&out, 10000);
    json_writer_init(&w, &out);
    json_begin_object(&w);
    render_timings(&w, &r);
    json_end_object(&w);
    CHECK(strstr(buf_str(&out), "\"draft_n\":9,\"draft_n_accepted\":7,"));
    buf_free(&out);
}

TEST(chat_response_finite, "numbers that are none become null, and the text stays JSON")
{
    struct buf out;
    struct json_writer w;
    buf_init(&out, 1000);
    json_writer_init(&w, &out);
    json_begin_array(&w);
    json_number(&w, NAN, 3);
    json_number(&w, INFINITY, 3);
    json_number(&w, -INFINITY, 3);
    json_number(&w, 100, 2);
    json_number(&w, 0.1234567, 4);
    json_number(&w, -1200, 0);
    json_int(&w, INT64_MIN);
    json_end_array(&w);
    CHECK_STR(buf_str(&out), "[null,null,null,100,0.1235,-1200,-9223372036854775808]");
    buf_free(&out);
}

TEST(chat_response_strings, "control characters are escaped, bytes that are no UTF-8 replaced")
{
    static const char text[] = "\x01\"\\\t\xC3\xA4\xFF\xE2\x82 \x7f\xF0\x9F\x98\x80\xC3";
    struct buf out;
    struct json_writer w;
    buf_init(&out, 1000);
    json_writer_init(&w, &out);
    json_string_n(&w, test_guarded(text, sizeof text - 1), sizeof text - 1);
    CHECK_STR(buf_str(&out), "\"\\u0001\\\"\\\\\\t\xC3\xA4\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD "
                             "\\u007f\xF0\x9F\x98\x80\xEF\xBF\xBD\"");
    buf_free(&out);
}

TEST(chat_response_errors, "every kind of error has a status, a type and all four keys")
{
    static const struct {
        enum err_code code;
        int status;
        const char *type, *word;
    } v[] = {
        {ERR_INVALID, 400, "invalid_request_error", "invalid_value"},
        {ERR_TYPE, 400, "invalid_request_error", "invalid_type"},
        {ERR_RANGE, 400, "invalid_request_error", "out_of_range"},
        {ERR_NOT_FOUND, 404, "not_found_error", "not_found"},
        {ERR_CONTEXT_LENGTH, 400, "invalid_request_error", "context_length_exceeded"},
        {ERR_FORMAT, 400, "invalid_request_error", "invalid_format"},
        {ERR_NO_MEMORY, 503, "overloaded_error", "out_of_memory"},
        {ERR_BUSY, 429, "rate_limit_error", "queue_full"},
        {ERR_UNAVAILABLE, 503, "overloaded_error", "unavailable"},
        {ERR_AUTH, 401, "authentication_error", "invalid_api_key"},
        {ERR_FORBIDDEN, 403, "permission_error", "forbidden"},
        {ERR_NUMERICAL, 500, "server_error", "numerical_error"},
        {ERR_INTERNAL, 500, "server_error", "internal_error"},
    };
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
        struct err e = ERR_INIT;
        struct buf out;
        char want[256];
        err_set(&e, v[i].code, "a \"b\"");
        buf_init(&out, 1000);
        api_error_render(&e, &out);
        snprintf(want, sizeof want,
                 "{\"error\":{\"message\":\"a \\\"b\\\"\",\"type\":\"%s\",\"param\":null,"
                 "\"code\":\"%s\"}}",
                 v[i].type, v[i].word);
        CHECK_STR(buf_str(&out), want);
        CHECK_INT(api_error_status(&e), ==, v[i].status);
        buf_free(&out);
    }
    for (int code = 0; code < ERR_CODE_COUNT; code++) {
        struct err e = {.code = (enum err_code)code};
        CHECK_INT(api_error_status(&e), >=, 400);
    }
}
