/* `tamp top`: Prometheus' text, what two readings say, and the picture made of them. */
#include "base/alloc.h"
#include "cmd/http_get.h"
#include "cmd/top_view.h"
#include "tests/test.h"

#include <math.h>
#include <string.h>

static struct scrape parse(const char *text, double at_ms)
{
    struct scrape s;
    struct err e = ERR_INIT;
    CHECK_OK(scrape_parse(&s, mem_strndup(text, strlen(text)), at_ms, &e), e);
    return s;
}

TEST(scrape_reads_lines, "names, labels, timestamps; comments and other lines are passed over")
{
    struct scrape s = parse("# HELP a Things.\n# TYPE a counter\n"
                            "a{kind=\"x\",note=\"} \\\"b\\\" , c=\"} 4\n"
                            "a{kind=\"y\"} 3 1395066363000\n\n"
                            "b 1.5e+3\nno value\nc{open=\"1\nd{} 2\ninf +Inf",
                            0);
    char label[32];
    CHECK_INT(s.n, ==, 5);
    CHECK(scrape_total(&s, "a", NULL) == 7);
    CHECK(scrape_total(&s, "a", "kind=\"y\"") == 3);
    CHECK(scrape_total(&s, "b", NULL) == 1500);
    CHECK(scrape_total(&s, "d", NULL) == 2);
    CHECK(scrape_total(&s, "absent", NULL) == 0);
    CHECK(scrape_total(NULL, "a", NULL) == 0);
    sample_label(&s.samples[1], "kind", label, sizeof label);
    CHECK_STR(label, "y");
    sample_label(&s.samples[1], "ind", label, sizeof label);
    CHECK_STR(label, "");
    scrape_clear(&s);
}

TEST(scrape_memory, "a failed allocation is an error, and the text is given back")
{
    struct scrape s;
    struct err e = ERR_INIT;
    char *text = mem_strndup("a 1\n", 4);
    alloc_fail_at(1);
    CHECK_INT(scrape_parse(&s, text, 0, &e), ==, -1);
    alloc_fail_at(0);
    CHECK_INT(e.code, ==, ERR_NO_MEMORY);
    scrape_clear(&s);
}

TEST(scrape_counters, "counters grow, and begin again with the server")
{
    struct scrape a = parse("n_total 4\n", 0);
    struct scrape b = parse("n_total 9\n", 0);
    CHECK(scrape_growth(&a, &b, "n_total", NULL) == 5);
    CHECK(scrape_growth(&b, &a, "n_total", NULL) == 4);
    CHECK(scrape_growth(NULL, &b, "n_total", NULL) == 9);
    scrape_clear(&a);
    scrape_clear(&b);
}

#define BUCKETS(a, b, c, d)                                                                        \
    "h_bucket{le=\"0.1\"} " #a "\nh_bucket{le=\"0.5\"} " #b "\nh_bucket{le=\"1\"} " #c             \
    "\nh_bucket{le=\"+Inf\"} " #d "\nh_count " #d "\n"

TEST(scrape_quantiles, "as Prometheus' histogram_quantile, of all time and between readings")
{
    struct scrape a = parse(BUCKETS(0, 6, 9, 10), 0);
    struct scrape b = parse(BUCKETS(8, 14, 17, 18), 0);
    CHECK_DOUBLE(fabs(scrape_quantile(NULL, &a, "h", 0.3) - 0.3), <, 1e-12);
    CHECK_DOUBLE(fabs(scrape_quantile(NULL, &a, "h", 0.9) - 1), <, 1e-12);
    CHECK_DOUBLE(fabs(scrape_quantile(NULL, &a, "h", 0.99) - 1), <, 1e-12);
    CHECK_DOUBLE(fabs(scrape_quantile(&a, &b, "h", 0.5) - 0.05), <, 1e-12);
    CHECK(scrape_quantile(&b, &b, "h", 0.5) == -1);
    CHECK(scrape_quantile(NULL, &a, "absent", 0.5) == -1);
    /* a server that was started again counts from nothing */
    CHECK_DOUBLE(fabs(scrape_quantile(&b, &a, "h", 0.3) - 0.3), <, 1e-12);
    scrape_clear(&a);
    scrape_clear(&b);
}

#define FIRST "tamp_time_to_first_token_seconds"

static const char before[] =
    "tamp_build_info{version=\"1.2.3\"} 1\nprocess_start_time_seconds 1000\n"
    "tamp_generation_tokens_total 100\ntamp_prompt_tokens_total 2000\n" FIRST
    "_bucket{le=\"0.1\"} 0\n" FIRST "_bucket{le=\"+Inf\"} 0\n" FIRST "_count 0\n"
    "process_cpu_seconds_total 10\n";
static const char after[] =
    "tamp_build_info{version=\"1.2.3\"} 1\nprocess_start_time_seconds 1000\ntamp_engine_up 1\n"
    "tamp_generation_tokens_total 396\ntamp_prompt_tokens_total 4468\n" FIRST
    "_bucket{le=\"0.1\"} 4\n" FIRST "_bucket{le=\"+Inf\"} 4\n" FIRST "_count 4\n"
    "tamp_num_requests_running 2\ntamp_num_requests_waiting 1\n"
    "tamp_request_success_total{finished_reason=\"stop\"} 1200\n"
    "tamp_request_success_total{finished_reason=\"length\"} 34\n"
    "tamp_compression_input_tokens_total{modality=\"image\",method=\"tome\"} 256000\n"
    "tamp_compression_output_tokens_total{modality=\"image\",method=\"tome\"} 64000\n"
    "tamp_image_cache_queries_total 4\ntamp_image_cache_hits_total 3\n"
    "tamp_kv_cache_usage_ratio 0.5\nprocess_resident_memory_bytes 209715200\n"
    "process_cpu_seconds_total 13\n";

TEST(top_view_figures, "rates of the last interval, quantiles of the last minute, totals")
{
    struct scrape a = parse(before, 5000);
    struct scrape b = parse(after, 7000);
    const struct top_readings r = {&b, &a, &a, "http://127.0.0.1:8080", 1000 + 3 * 3600 + 12 * 60};
    static const char *const parts[] = {
        "tamp 1.2.3  http://127.0.0.1:8080  up 3 h 12 min\n",
        "running 2   waiting 1   done 1,234",
        "answers 148/s   prompts 1,234/s",
        "first token    p50 50 ms   p95 95 ms   (last minute)",
        "between tokens p50 -   p95 -   (since the start)",
        "192,000   75 % of what could merge",
        "image  tome              256,000 -> 64,000   4.0x",
        "pictures 75 %   prompts -   KV memory 50 % [########........]",
        "200 MiB   CPU 150 %",
    };
    struct buf out;
    buf_init(&out, 65536);
    top_view_print(&r, false, &out);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (!strstr(buf_str(&out), parts[i])) {
            FAIL("no \"%s\" in:\n%s", parts[i], buf_str(&out));
        }
    }
    CHECK(!strchr(buf_str(&out), '\033'));
    for (const char *line = buf_str(&out); *line; line += strcspn(line, "\n") + 1) {
        CHECK_INT(strcspn(line, "\n"), <=, 78);
    }
    buf_clear(&out);
    top_view_print(&r, true, &out);
    CHECK(strstr(buf_str(&out), "\033[1m148\033[0m/s"));
    buf_free(&out);
    scrape_clear(&a);
    scrape_clear(&b);
}

TEST(top_view_nothing, "a server that has done nothing, and one that is not ready, have a picture")
{
    struct scrape a = parse("tamp_build_info{version=\"1\"} 1\n", 0);
    const struct top_readings r = {&a, NULL, NULL, "http://h:1", 0};
    struct buf out;
    buf_init(&out, 65536);
    top_view_print(&r, false, &out);
    CHECK(strstr(buf_str(&out), "(not ready)"));
    CHECK(strstr(buf_str(&out), "answers 0/s"));
    CHECK(strstr(buf_str(&out), "p50 -"));
    buf_free(&out);
    scrape_clear(&a);
}

TEST(top_addresses, "addresses as people type them; what is none is said")
{
    static const struct {
        const char *url, *host, *port, *shown;
    } good[] = {
        {"http://127.0.0.1:9000", "127.0.0.1", "9000", "http://127.0.0.1:9000"},
        {"http://tamp.example/", "tamp.example", "8080", "http://tamp.example:8080"},
        {"localhost:1", "localhost", "1", "http://localhost:1"},
        {"[::1]:80", "::1", "80", "http://[::1]:80"},
        {"http://[::1]", "::1", "8080", "http://[::1]:8080"},
    };
    static const char *const bad[] = {"",           "http://",     "http://a:",   "http://a:99999",
                                      "http://a/b", "http://a:1x", "https://a:1", "http://u@a",
                                      "[::1",       "[::1]x",      "a b",         "a\r\nX: 1"};
    struct http_target t;
    struct err e = ERR_INIT;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        CHECK_OK(http_target_parse(good[i].url, &t, &e), e);
        CHECK_STR(t.host, good[i].host);
        CHECK_STR(t.port, good[i].port);
        CHECK_STR(t.shown, good[i].shown);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (http_target_parse(bad[i], &t, &e) == 0) {
            FAIL("taken: %s", bad[i]);
        }
    }
}

TEST(top_answers, "an answer is taken apart, and what is no metrics is said in words")
{
    static const struct {
        const char *text;
        enum err_code code;
        const char *body;
    } v[] = {
        {"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\na 1\n", ERR_NONE, "a 1\n"},
        {"HTTP/1.0 200 OK\r\n\r\n", ERR_NONE, ""},
        {"HTTP/1.1 401 Unauthorized\r\n\r\n{}", ERR_AUTH, NULL},
        {"HTTP/1.1 404 Not Found\r\n\r\n", ERR_UNAVAILABLE, NULL},
        {"HTTP/1.1 200 OK\r\nContent-Le", ERR_FORMAT, NULL},
        {"SSH-2.0-OpenSSH_9.2\r\n\r\n", ERR_FORMAT, NULL},
        {"", ERR_FORMAT, NULL},
    };
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
        struct err e = ERR_INIT;
        struct buf answer;
        struct buf body;
        buf_init(&answer, 4096);
        buf_init(&body, 4096);
        buf_puts(&answer, v[i].text);
        CHECK_INT(http_answer_body(&answer, "http://a:1", &body, &e), ==, v[i].body ? 0 : -1);
        CHECK_INT(e.code, ==, v[i].code);
        if (v[i].body) {
            CHECK_STR(buf_str(&body), v[i].body);
        }
        buf_free(&answer);
        buf_free(&body);
    }
}
