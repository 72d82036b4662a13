/* The GGUF reader against the files of gguf_cases.c: what must be accepted, each damage,
 * every truncation and every changed byte of a small file, and every failing allocation. */
#include "base/alloc.h"
#include "base/buf.h"
#include "base/rng.h"
#include "tensor/gguf.h"
#include "tensor/gguf_impl.h"
#include "tests/test.h"
#include "tests/unit/gguf_cases.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- the cases ---- */

static void check_case(const struct gguf_case *s)
{
    struct buf b;
    gguf_case_build(&b, s);
    struct err e = ERR_INIT;
    struct gguf *g = gguf_parse_view(test_guarded(b.data, b.len), b.len, "made.gguf", &e);
    if (!s->want && !g) {
        FAIL("%s should be accepted: %s", s->name, e.msg);
    }
    if (s->want && g) {
        FAIL("%s should be refused", s->name);
    }
    if (s->want && (!strstr(e.msg, s->want) || strncmp(e.msg, "made.gguf: at byte ", 19) != 0)) {
        FAIL("%s: the message is \"%s\" and lacks \"%s\"", s->name, e.msg, s->want);
    }
    CHECK(!s->want || e.code == ERR_FORMAT || e.code == ERR_UNSUPPORTED);
    gguf_free_view(g);
    buf_free(&b);
}

TEST(gguf_each_case, "well-formed files are accepted, each kind of damage is named with its place")
{
    for (size_t i = 0; i < n_gguf_cases; i++) {
        check_case(&gguf_cases[i]);
    }
}

TEST(gguf_version_zero, "version 0 is refused (the table's zero means the ordinary value)")
{
    struct buf b;
    gguf_case_build(&b, gguf_case_named("empty"));
    memset(b.data + 4, 0, 4);
    struct err e = ERR_INIT;
    CHECK(!gguf_parse_view(b.data, b.len, "f", &e));
    CHECK(strstr(e.msg, "GGUF version 0,"));
    buf_free(&b);
}

/* ---- values ---- */

static struct gguf *parse_rich(struct buf *b)
{
    gguf_case_build(b, gguf_case_named("rich"));
    struct err e = ERR_INIT;
    struct gguf *g = gguf_parse_view(b->data, b->len, "made.gguf", &e);
    if (!g) {
        FAIL("%s", e.msg);
    }
    return g;
}

static int64_t int_of(const struct gguf *g, const char *key)
{
    struct err e = ERR_INIT;
    int64_t v = 0;
    CHECK_OK(gguf_get_int(g, key, INT64_MIN, INT64_MAX, &v, &e), e);
    return v;
}

TEST(gguf_integers, "any integer type is read, ranges and types are checked with the key's name")
{
    struct buf b;
    struct gguf *g = parse_rich(&b);
    CHECK_INT(int_of(g, "u8"), ==, 200);
    CHECK_INT(int_of(g, "i8"), ==, -5);
    CHECK_INT(int_of(g, "u16"), ==, 0x1234);
    CHECK_INT(int_of(g, "i16"), ==, -2);
    CHECK_INT(int_of(g, "u32"), ==, 4000000000);
    CHECK_INT(int_of(g, "i32"), ==, -7);
    CHECK_INT(int_of(g, "i64"), ==, -8);
    struct err e = ERR_INIT;
    int64_t v = 77;
    CHECK_INT(gguf_get_int(g, "u64", INT64_MIN, INT64_MAX, &v, &e), ==, -1);
    CHECK_INT(gguf_get_int(g, "u8", 0, 199, &v, &e), ==, -1);
    CHECK(strstr(e.msg, "u8 is 200, allowed are 0 to 199"));
    CHECK_INT(gguf_get_int(g, "i8", 0, 10, &v, &e), ==, -1);
    CHECK_INT(gguf_get_int(g, "f32", 0, 10, &v, &e), ==, -1);
    CHECK(strstr(e.msg, "f32 has type f32, an integer is needed"));
    CHECK_INT(gguf_get_int(g, "bool", 0, 10, &v, &e), ==, -1);
    CHECK_INT(gguf_get_int(g, "absent", 0, 10, &v, &e), ==, GGUF_ABSENT);
    CHECK_INT(v, ==, 77);
    gguf_free_view(g);
    buf_free(&b);
}

TEST(gguf_other_values, "floats, bools, strings and arrays; the exact array type is needed")
{
    struct buf b;
    struct gguf *g = parse_rich(&b);
    struct err e = ERR_INIT;
    double d = 0;
    CHECK_OK(gguf_get_float(g, "f32", 0, 1, &d, &e), e);
    CHECK_DOUBLE(d, ==, 0.5);
    CHECK_OK(gguf_get_float(g, "f64", -1, 1, &d, &e), e);
    CHECK_DOUBLE(d, ==, -0.25);
    CHECK_INT(gguf_get_float(g, "f64", 0, 1, &d, &e), ==, -1);
    CHECK_INT(gguf_get_float(g, "u32", 0, 1, &d, &e), ==, -1);
    bool flag = false;
    CHECK_OK(gguf_get_bool(g, "bool", &flag, &e), e);
    CHECK(flag);
    CHECK_INT(gguf_get_bool(g, "u8", &flag, &e), ==, -1);
    struct gguf_string s;
    CHECK_OK(gguf_get_string(g, "str", &s, &e), e);
    CHECK(s.len == 5 && !memcmp(s.ptr, "hello", 5));
    CHECK_INT(gguf_get_string(g, "ints", &s, &e), ==, -1);
    struct gguf_array a;
    CHECK_OK(gguf_get_array(g, "ints", GGUF_I32, &a, &e), e);
    int32_t ints[2];
    CHECK_INT(a.n, ==, 2);
    memcpy(ints, a.data, sizeof ints);
    CHECK(ints[0] == 10 && ints[1] == 20);
    CHECK_INT(gguf_get_array(g, "ints", GGUF_U32, &a, &e), ==, -1);
    CHECK(strstr(e.msg, "ints is an array of i32, u32 is needed"));
    CHECK_INT(gguf_get_array(g, "str", GGUF_U32, &a, &e), ==, -1);
    CHECK_OK(gguf_get_array(g, "strs", GGUF_STRING, &a, &e), e);
    CHECK(a.n == 3 && a.strings[1].len == 0 && a.strings[2].len == 3);
    CHECK_OK(gguf_get_array(g, "none", GGUF_F32, &a, &e), e);
    CHECK_INT(a.n, ==, 0);
    gguf_free_view(g);
    buf_free(&b);
}

TEST(gguf_not_a_number, "a NaN in the metadata is out of every range")
{
    struct buf b;
    struct gguf *g = parse_rich(&b);
    float nan = 0.0f / 0.0f;
    const struct gguf_entry *entry = gguf_find_entry(g, "f32");
    memcpy(b.data + (entry->scalar - (const uint8_t *)b.data), &nan, sizeof nan);
    struct err e = ERR_INIT;
    double d = 0;
    CHECK_INT(gguf_get_float(g, "f32", -1e30, 1e30, &d, &e), ==, -1);
    gguf_free_view(g);
    buf_free(&b);
}

TEST(gguf_tensors, "tensors are found by name, with shape, size and their own bytes")
{
    struct buf b;
    struct gguf *g = parse_rich(&b);
    CHECK_INT(gguf_n_tensors(g), ==, 2);
    const struct gguf_tensor *u = gguf_find_tensor(g, "u");
    CHECK(u && u == gguf_tensor_at(g, 1));
    CHECK(u->n_dims == 1 && u->ne[0] == 8 && u->ne[1] == 1 && u->ne[3] == 1 && u->n_bytes == 32);
    CHECK_INT(((const uint8_t *)u->data)[3], ==, 21);
    CHECK(!gguf_find_tensor(g, "v") && !gguf_tensor_at(g, 2));
    CHECK_INT(gguf_n_keys(g), ==, 15);
    enum gguf_value_type type;
    CHECK_STR(gguf_key_at(g, 11, &type), "str");
    CHECK_INT(type, ==, GGUF_STRING);
    CHECK(!gguf_key_at(g, 15, &type));
    gguf_free_view(g);
    buf_free(&b);
}

/* ---- hostile bytes ---- */

static unsigned touched; /* so that no read below is optimised away */

/* Reads everything that a parsed file offers. */
static void touch_all(const struct gguf *g)
{
    struct err e = ERR_INIT;
    for (size_t i = 0; i < gguf_n_keys(g); i++) {
        enum gguf_value_type type;
        const char *key = gguf_key_at(g, i, &type);
        int64_t v;
        double d;
        bool flag;
        struct gguf_string s;
        struct gguf_array a;
        touched += (unsigned)gguf_get_int(g, key, 0, 100, &v, &e);
        touched += (unsigned)gguf_get_float(g, key, 0, 100, &d, &e);
        touched += (unsigned)gguf_get_bool(g, key, &flag, &e);
        if (!gguf_get_string(g, key, &s, &e) && s.len) {
            touched += (unsigned)s.ptr[s.len - 1];
        }
        if (!gguf_get_array(g, key, GGUF_I32, &a, &e) && a.n) {
            touched += ((const uint8_t *)a.data)[4 * a.n - 1];
        }
        if (!gguf_get_array(g, key, GGUF_STRING, &a, &e) && a.n && a.strings[a.n - 1].len) {
            touched += (unsigned)a.strings[a.n - 1].ptr[a.strings[a.n - 1].len - 1];
        }
    }
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        CHECK(gguf_find_tensor(g, t->name));
        touched += ((const uint8_t *)t->data)[0] + ((const uint8_t *)t->data)[t->n_bytes - 1];
    }
}

TEST(gguf_truncated, "a file cut at any byte is refused, and no byte behind the cut is read")
{
    struct buf b;
    gguf_case_build(&b, gguf_case_named("rich"));
    for (size_t n = 0; n < b.len; n++) {
        struct err e = ERR_INIT;
        struct gguf *g = gguf_parse_view(test_guarded(b.data, n), n, "cut.gguf", &e);
        if (g) {
            FAIL("%zu of %zu bytes are accepted", n, b.len);
        }
        CHECK_INT(e.code, ==, ERR_FORMAT);
    }
    buf_free(&b);
}

TEST(gguf_changed_bytes, "any changed byte gives a refusal or a file whose views are inside")
{
    struct buf b;
    gguf_case_build(&b, gguf_case_named("rich"));
    struct rng r;
    rng_init(&r, test_seed());
    char *copy = test_guarded(b.data, b.len);
    int refused = 0;
    for (size_t i = 0; i < b.len; i++) {
        for (int way = 0; way < 12; way++) {
            copy[i] = way < 8 ? (char)(b.data[i] ^ 1 << way) : (char)rng_u64(&r);
            struct err e = ERR_INIT;
            struct gguf *g = gguf_parse_view(copy, b.len, "changed.gguf", &e);
            refused += !g;
            if (g) {
                touch_all(g);
                gguf_free_view(g);
            } else {
                CHECK(e.msg[0]);
            }
        }
        copy[i] = b.data[i];
    }
    CHECK_INT(refused, >, 1000); /* the fuzz reaches the checks at all */
    buf_free(&b);
}

TEST(gguf_message_is_printable, "control characters of a name never reach the message")
{
    struct gguf_case s = {.tensors = {{"a\033[2Jb", 1, {8}, TENSOR_F32, 32, 32}}};
    struct buf b;
    gguf_case_build(&b, &s);
    struct err e = ERR_INIT;
    CHECK(!gguf_parse_view(b.data, b.len, "f", &e));
    CHECK(strstr(e.msg, "tensor a?[2Jb is at offset"));
    buf_free(&b);
}

/* ---- files ---- */

static char *write_temporary(const void *data, size_t n)
{
    static char path[] = "/tmp/tamp-test-XXXXXX";
    int fd = mkstemp(path);
    CHECK(fd >= 0 && write(fd, data, n) == (ssize_t)n);
    close(fd);
    return path;
}

static int next_fd(void)
{
    int fd = dup(0);
    close(fd);
    return fd;
}

TEST(gguf_out_of_memory, "each allocation of gguf_open may fail: one error, nothing leaks")
{
    struct buf b;
    gguf_case_build(&b, gguf_case_named("rich"));
    char *path = write_temporary(b.data, b.len);
    buf_free(&b);
    int fd = next_fd();
    long n = 1;
    for (;; n++) {
        struct err e = ERR_INIT;
        alloc_fail_at(n);
        struct gguf *g = gguf_open(path, &e);
        alloc_fail_at(0);
        if (g) {
            CHECK_INT(gguf_version(g), ==, 3);
            CHECK_STR(gguf_path(g), path);
            touch_all(g);
            gguf_close(g);
            break;
        }
        CHECK_INT(e.code, ==, ERR_NO_MEMORY);
    }
    unlink(path);
    CHECK_INT(n, >, 2);
    CHECK_INT(next_fd(), ==, fd);
}

TEST(gguf_not_a_file, "missing, empty and special files are refused by name, without blocking")
{
    struct err e = ERR_INIT;
    CHECK(!gguf_open("/nonexistent/x.gguf", &e));
    CHECK_INT(e.code, ==, ERR_NOT_FOUND);
    CHECK(strstr(e.msg, "/nonexistent/x.gguf"));
    CHECK(!gguf_open("/", &e));
    CHECK(strstr(e.msg, "not a regular file"));
    CHECK(!gguf_open("/dev/null", &e));
    char *path = write_temporary("", 0);
    CHECK(!gguf_open(path, &e));
    CHECK(strstr(e.msg, "empty"));
    unlink(path);
    gguf_close(NULL);
}

TEST(gguf_budget, "tables beyond the budget are refused before they are allocated")
{
    struct buf b;
    gguf_case_build(&b, gguf_case_named("empty"));
    /* 4 million empty strings: 32 MB in the file would be 64 MB of views; with 5 arrays
     * the budget is exceeded. The file is sparse memory, only its lengths are written. */
    const uint64_t n_strings = 4u << 20;
    const int n_arrays = 5;
    size_t bytes = 24 + (size_t)n_arrays * (8 + 2 + 4 + 4 + 8 + n_strings * 8);
    uint8_t *file = mem_zalloc(bytes, 1);
    CHECK(file);
    memcpy(file, b.data, 24);
    memcpy(file + 16, &(uint64_t){(uint64_t)n_arrays}, 8);
    uint8_t *p = file + 24;
    for (int i = 0; i < n_arrays; i++) {
        const uint32_t types[2] = {GGUF_ARRAY, GGUF_STRING};
        memcpy(p, &(uint64_t){2}, 8);
        p[8] = 'k';
        p[9] = (uint8_t)('0' + i);
        memcpy(p + 10, types, 8);
        memcpy(p + 18, &n_strings, 8);
        p += 26 + n_strings * 8;
    }
    struct err e = ERR_INIT;
    CHECK(!gguf_parse_view(file, bytes, "f", &e));
    CHECK_INT(e.code, ==, ERR_TOO_LARGE);
    CHECK(strstr(e.msg, "256 MiB"));
    mem_free(file);
    buf_free(&b);
}

TEST(gguf_real_model, "the downloaded language model opens and has its tensors")
{
    struct err e = ERR_INIT;
    struct gguf *g = gguf_open(test_model_path(), &e);
    if (!g) {
        FAIL("%s", e.msg);
    }
    CHECK_INT(gguf_n_tensors(g), ==, 272);
    CHECK_INT(int_of(g, "llama.block_count"), ==, 30);
    CHECK_INT(gguf_find_tensor(g, "token_embd.weight")->ne[1], ==, 49152);
    gguf_close(g);
}
