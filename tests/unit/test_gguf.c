/* The GGUF reader against files made here byte by byte: what must be accepted, the list
 * of damages that were vulnerabilities in other loaders, every truncation and every
 * changed byte of a small file, and every failing allocation. */
#include "base/alloc.h"
#include "base/buf.h"
#include "base/rng.h"
#include "tensor/gguf.h"
#include "tensor/gguf_impl.h"
#include "tests/test.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- a small writer ---- */

static void put_u32(struct buf *b, uint32_t v)
{
    buf_append(b, &v, sizeof v);
}

static void put_u64(struct buf *b, uint64_t v)
{
    buf_append(b, &v, sizeof v);
}

static void put_str(struct buf *b, const char *s)
{
    put_u64(b, strlen(s));
    buf_puts(b, s);
}

static void put_key(struct buf *b, const char *key, uint32_t type)
{
    put_str(b, key);
    put_u32(b, type);
}

static void put_pad(struct buf *b, size_t alignment)
{
    while (b->len % alignment) {
        buf_putc(b, 0);
    }
}

struct tensor_spec {
    const char *name;
    uint32_t n_dims;
    uint64_t ne[5];
    uint32_t type;
    uint64_t n_bytes; /* data written, and how far the next offset moves */
    uint64_t offset_error;
};

/* One file: zero means the ordinary value. */
struct spec {
    const char *name;
    const char *want; /* part of the message; NULL = the file is accepted */
    const char *magic;
    uint32_t version;
    uint64_t n_tensors_claimed;
    uint64_t n_entries_claimed;
    int (*entries)(struct buf *b); /* writes metadata, returns how many entries */
    struct tensor_spec tensors[3];
    size_t alignment;     /* what the offsets are written with */
    size_t missing_bytes; /* cut from the end */
};

static size_t pad_up(uint64_t n, size_t alignment)
{
    return (n + alignment - 1) / alignment * alignment;
}

static uint32_t count_tensors(const struct spec *s)
{
    uint32_t n = 0;
    while (n < 3 && s->tensors[n].name) {
        n++;
    }
    return n;
}

static void put_tensors(struct buf *b, const struct spec *s, size_t alignment)
{
    uint64_t offset = 0;
    for (uint32_t i = 0; i < count_tensors(s); i++) {
        const struct tensor_spec *t = &s->tensors[i];
        put_str(b, t->name);
        put_u32(b, t->n_dims);
        for (uint32_t d = 0; d < t->n_dims && d < 5; d++) {
            put_u64(b, t->ne[d]);
        }
        put_u32(b, t->type);
        put_u64(b, offset + t->offset_error);
        offset += pad_up(t->n_bytes, alignment);
    }
    put_pad(b, alignment);
    for (uint32_t i = 0; i < count_tensors(s); i++) {
        for (uint64_t j = 0; j < s->tensors[i].n_bytes; j++) {
            buf_putc(b, (char)(j * 7));
        }
        put_pad(b, alignment);
    }
}

static void build(struct buf *b, const struct spec *s)
{
    struct buf entries;
    buf_init(&entries, 1 << 20);
    int n_entries = s->entries ? s->entries(&entries) : 0;
    buf_init(b, 1 << 20);
    buf_puts(b, s->magic ? s->magic : "GGUF");
    put_u32(b, s->version ? s->version : 3);
    put_u64(b, s->n_tensors_claimed ? s->n_tensors_claimed : count_tensors(s));
    put_u64(b, s->n_entries_claimed ? s->n_entries_claimed : (uint64_t)n_entries);
    buf_append(b, buf_str(&entries), entries.len);
    buf_free(&entries);
    put_tensors(b, s, s->alignment ? s->alignment : 32);
    CHECK(!buf_failed(b));
    CHECK_INT(s->missing_bytes, <=, b->len);
    b->len -= s->missing_bytes;
}

/* ---- metadata of the cases ---- */

static int key_size_huge(struct buf *b)
{
    put_u64(b, UINT64_MAX);
    buf_puts(b, "key");
    return 1;
}

static int key_too_long(struct buf *b)
{
    put_u64(b, 65536);
    for (int i = 0; i < 65536; i++) {
        buf_putc(b, 'k');
    }
    put_u32(b, GGUF_U8);
    buf_putc(b, 1);
    return 1;
}

static int key_empty(struct buf *b)
{
    put_key(b, "", GGUF_U8);
    buf_putc(b, 1);
    return 1;
}

static int key_with_zero(struct buf *b)
{
    put_u64(b, 3);
    buf_append(b, "a\0b", 3);
    put_u32(b, GGUF_U8);
    buf_putc(b, 1);
    return 1;
}

static int key_twice(struct buf *b)
{
    for (int i = 0; i < 2; i++) {
        put_key(b, "same.key", GGUF_U32);
        put_u32(b, 1);
    }
    return 2;
}

static int type_unknown(struct buf *b)
{
    put_key(b, "key", GGUF_VALUE_TYPE_COUNT);
    put_u64(b, 1);
    return 1;
}

static int array_type_unknown(struct buf *b)
{
    put_key(b, "key", GGUF_ARRAY);
    put_u32(b, 99);
    put_u64(b, 1);
    return 1;
}

static int array_in_array(struct buf *b)
{
    put_key(b, "key", GGUF_ARRAY);
    put_u32(b, GGUF_ARRAY);
    put_u64(b, 1);
    put_u32(b, GGUF_U8);
    put_u64(b, 1);
    return 1;
}

static int put_array_claim(struct buf *b, uint32_t type, uint64_t n)
{
    put_key(b, "key", GGUF_ARRAY);
    put_u32(b, type);
    put_u64(b, n);
    put_u64(b, 0);
    return 1;
}

static int array_wraps(struct buf *b)
{
    return put_array_claim(b, GGUF_U64, UINT64_MAX / 8 + 2); /* times 8 is 8 */
}

static int array_too_long(struct buf *b)
{
    return put_array_claim(b, GGUF_U32, 1000000);
}

static int string_array_too_long(struct buf *b)
{
    return put_array_claim(b, GGUF_STRING, UINT64_MAX / 16);
}

static int string_too_long(struct buf *b)
{
    put_key(b, "key", GGUF_STRING);
    put_u64(b, 1u << 30);
    return 1;
}

static int bool_is_two(struct buf *b)
{
    put_key(b, "key", GGUF_BOOL);
    buf_putc(b, 2);
    return 1;
}

static int put_alignment(struct buf *b, uint32_t type, uint32_t v)
{
    put_key(b, "general.alignment", type);
    put_u32(b, v);
    return 1;
}

static int align_13(struct buf *b)
{
    return put_alignment(b, GGUF_U32, 13);
}

static int align_0(struct buf *b)
{
    return put_alignment(b, GGUF_U32, 0);
}

static int align_2g(struct buf *b)
{
    return put_alignment(b, GGUF_U32, 0x80000000u);
}

static int align_128k(struct buf *b)
{
    return put_alignment(b, GGUF_U32, 131072);
}

static int align_i32(struct buf *b)
{
    return put_alignment(b, GGUF_I32, 32);
}

static int align_64(struct buf *b)
{
    return put_alignment(b, GGUF_U32, 64);
}

/* One entry of each type, and arrays. */
static int rich(struct buf *b)
{
    put_key(b, "u8", GGUF_U8), buf_putc(b, (char)200);
    put_key(b, "i8", GGUF_I8), buf_putc(b, (char)-5);
    put_key(b, "u16", GGUF_U16), buf_append(b, "\x34\x12", 2);
    put_key(b, "i16", GGUF_I16), buf_append(b, "\xfe\xff", 2);
    put_key(b, "u32", GGUF_U32), put_u32(b, 4000000000u);
    put_key(b, "i32", GGUF_I32), put_u32(b, (uint32_t)-7);
    put_key(b, "u64", GGUF_U64), put_u64(b, UINT64_MAX);
    put_key(b, "i64", GGUF_I64), put_u64(b, (uint64_t)-8);
    float f = 0.5f;
    put_key(b, "f32", GGUF_F32), buf_append(b, &f, sizeof f);
    double d = -0.25;
    put_key(b, "f64", GGUF_F64), buf_append(b, &d, sizeof d);
    put_key(b, "bool", GGUF_BOOL), buf_putc(b, 1);
    put_key(b, "str", GGUF_STRING), put_str(b, "hello");
    put_key(b, "ints", GGUF_ARRAY), put_u32(b, GGUF_I32), put_u64(b, 2);
    put_u32(b, 10), put_u32(b, 20);
    put_key(b, "strs", GGUF_ARRAY), put_u32(b, GGUF_STRING), put_u64(b, 3);
    put_str(b, "a"), put_str(b, ""), put_str(b, "ccc");
    put_key(b, "none", GGUF_ARRAY), put_u32(b, GGUF_F32), put_u64(b, 0);
    return 15;
}

/* ---- the cases ---- */

#define F32_ROW                                                                                    \
    {                                                                                              \
        .name = "t", .n_dims = 1, .ne = {8}, .type = TENSOR_F32, .n_bytes = 32                     \
    }
#define F32_ROW_2                                                                                  \
    {                                                                                              \
        .name = "u", .n_dims = 1, .ne = {8}, .type = TENSOR_F32, .n_bytes = 32                     \
    }
#define NAME_64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static const struct spec specs[] = {
    /* accepted */
    {.name = "empty"},
    {.name = "version_2", .version = 2, .entries = rich, .tensors = {F32_ROW}},
    {.name = "rich", .entries = rich, .tensors = {F32_ROW, F32_ROW_2}},
    {.name = "custom_align", .entries = align_64, .alignment = 64, .tensors = {F32_ROW, F32_ROW_2}},
    {.name = "name_64", .tensors = {{NAME_64, 1, {8}, TENSOR_F32, 32, 0}}},
    {.name = "no_padding_at_the_end",
     .tensors = {{"t", 1, {1}, TENSOR_F32, 4, 0}},
     .missing_bytes = 28},
    {.name = "type_tamp_cannot_compute", .tensors = {{"t", 1, {256}, 10, 84, 0}}},
    {.name = "scalar", .tensors = {{"t", 0, {0}, TENSOR_F32, 4, 0}}},
    /* header */
    {.name = "bad_magic", .want = "at byte 0: this is not a GGUF", .magic = "GGML"},
    {.name = "bad_version_0", .want = "at byte 4: GGUF version 1677", .version = 0x64000000},
    {.name = "bad_version_1", .want = "GGUF version 1,", .version = 1},
    {.name = "bad_version_future", .want = "GGUF version 4,", .version = 4},
    {.name = "big_endian", .want = "big-endian", .version = 0x03000000},
    {.name = "bad_n_tensors", .want = "number of tensors", .n_tensors_claimed = UINT64_MAX},
    {.name = "bad_n_tensors_wrap",
     .want = "number of tensors",
     .n_tensors_claimed = UINT64_MAX / 152 + 2},
    {.name = "one_tensor_too_many", .want = "number of tensors is 1", .n_tensors_claimed = 1},
    {.name = "bad_n_kv", .want = "number of metadata entries", .n_entries_claimed = UINT64_MAX},
    {.name = "one_kv_too_many", .want = "needs", .entries = rich, .n_entries_claimed = 16},
    /* metadata */
    {.name = "bad_key_size", .want = "length of a key", .entries = key_size_huge},
    {.name = "key_too_long", .want = "65536 bytes, at most 65535", .entries = key_too_long},
    {.name = "empty_key", .want = "a key is empty", .entries = key_empty},
    {.name = "key_with_zero", .want = "zero byte", .entries = key_with_zero},
    {.name = "duplicate_key", .want = "same.key appears twice", .entries = key_twice},
    {.name = "bad_type", .want = "type of a value is 13", .entries = type_unknown},
    {.name = "bad_array_type",
     .want = "element type of an array is 99",
     .entries = array_type_unknown},
    {.name = "array_in_array", .want = "array of arrays", .entries = array_in_array},
    {.name = "array_wraps", .want = "length of an array", .entries = array_wraps},
    {.name = "array_too_long", .want = "length of an array is 1000000", .entries = array_too_long},
    {.name = "string_array_too_long",
     .want = "length of an array",
     .entries = string_array_too_long},
    {.name = "string_too_long",
     .want = "length of a string is 1073741824",
     .entries = string_too_long},
    {.name = "bool_is_two", .want = "a bool is 2", .entries = bool_is_two},
    {.name = "bad_align", .want = "general.alignment is 13", .entries = align_13},
    {.name = "align_zero", .want = "general.alignment is 0", .entries = align_0},
    {.name = "align_2g", .want = "general.alignment is 2147483648", .entries = align_2g},
    {.name = "align_128k", .want = "general.alignment is 131072", .entries = align_128k},
    {.name = "wrong_type_align", .want = "general.alignment has type i32", .entries = align_i32},
    /* tensors */
    {.name = "bad_name_size",
     .want = "65 bytes, at most 64",
     .tensors = {{NAME_64 "x", 1, {8}, TENSOR_F32, 32, 0}}},
    {.name = "bad_n_dims",
     .want = "5 dimensions",
     .tensors = {{"t", 5, {8, 1, 1, 1, 1}, TENSOR_F32, 32, 0}}},
    {.name = "bad_shape",
     .want = "dimension 0 of a tensor",
     .tensors = {{"t", 1, {UINT64_MAX}, TENSOR_F32, 32, 0}}},
    {.name = "zero_dim",
     .want = "dimension 1 of a tensor is zero",
     .tensors = {{"t", 2, {8, 0}, TENSOR_F32, 32, 0}}},
    {.name = "ne_too_big",
     .want = "the product wraps",
     .tensors = {{"t", 2, {INT64_MAX, 2}, TENSOR_F32, 32, 0}}},
    {.name = "nbytes_too_big",
     .want = "size of a tensor wraps",
     .tensors = {{"t", 2, {INT64_MAX / 2, 2}, 27, 32, 0}}},
    {.name = "row_bytes_too_big",
     .want = "size of a tensor wraps",
     .tensors = {{"t", 1, {INT64_MAX}, TENSOR_F32, 32, 0}}},
    {.name = "nbytes_pad_wrap",
     .want = "end of tensor t wraps",
     .tensors = {{"t", 2, {(uint64_t)INT64_MAX / 4, 1}, 27, 0, 0}, F32_ROW_2}},
    {.name = "type_removed",
     .want = "tensor type 4 is unknown",
     .tensors = {{"t", 1, {32}, 4, 32, 0}}},
    {.name = "bad_tensor_type",
     .want = "tensor type 4294967295 is unknown",
     .tensors = {{"t", 1, {8}, UINT32_MAX, 32, 0}}},
    {.name = "not_whole_blocks",
     .want = "not a whole number of Q4_1 blocks",
     .tensors = {{"t", 2, {48, 2}, TENSOR_Q4_1, 60, 0}}},
    {.name = "bad_offset",
     .want = "is at offset 32, not 0",
     .tensors = {{"t", 1, {8}, TENSOR_F32, 32, 32}}},
    {.name = "overlap",
     .want = "tensor u is at offset 0, not 32",
     .tensors = {F32_ROW, {"u", 1, {8}, TENSOR_F32, 32, (uint64_t)-32}}},
    {.name = "huge_offset",
     .want = "is at offset 18446744073709551584",
     .tensors = {{"t", 1, {8}, TENSOR_F32, 32, (uint64_t)-32}}},
    {.name = "duplicate_name", .want = "name t appears twice", .tensors = {F32_ROW, F32_ROW}},
    {.name = "inconsistent_align",
     .want = "tensor u is at offset 32, not 64",
     .entries = align_64,
     .tensors = {F32_ROW, F32_ROW_2}},
    {.name = "not_enough_data",
     .want = "ends behind the file",
     .tensors = {F32_ROW},
     .missing_bytes = 1},
    {.name = "not_enough_data_for_the_second",
     .want = "tensor u at offset 32",
     .tensors = {F32_ROW, F32_ROW_2},
     .missing_bytes = 1},
    {.name = "mem_size_overflow",
     .want = "ends behind the file",
     .tensors = {{"t", 1, {(uint64_t)1 << 60}, TENSOR_F32, 0, 0}}},
};
static const size_t n_specs = sizeof specs / sizeof *specs;

static const struct spec *spec_named(const char *name)
{
    for (size_t i = 0; i < n_specs; i++) {
        if (!strcmp(specs[i].name, name)) {
            return &specs[i];
        }
    }
    FAIL("there is no case %s", name);
}

static void check_case(const struct spec *s)
{
    struct buf b;
    build(&b, s);
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

TEST(gguf_cases, "well-formed files are accepted, each kind of damage is named with its place")
{
    for (size_t i = 0; i < n_specs; i++) {
        check_case(&specs[i]);
    }
}

TEST(gguf_version_zero, "version 0 is refused (the table's zero means the ordinary value)")
{
    struct buf b;
    build(&b, spec_named("empty"));
    memset(b.data + 4, 0, 4);
    struct err e = ERR_INIT;
    CHECK(!gguf_parse_view(b.data, b.len, "f", &e));
    CHECK(strstr(e.msg, "GGUF version 0,"));
    buf_free(&b);
}

/* ---- values ---- */

static struct gguf *parse_rich(struct buf *b)
{
    build(b, spec_named("rich"));
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
    build(&b, spec_named("rich"));
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
    build(&b, spec_named("rich"));
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
    struct spec s = {.tensors = {{"a\033[2Jb", 1, {8}, TENSOR_F32, 32, 32}}};
    struct buf b;
    build(&b, &s);
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
    build(&b, spec_named("rich"));
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
    build(&b, spec_named("empty"));
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
