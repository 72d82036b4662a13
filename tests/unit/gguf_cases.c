/* The list of damages that were vulnerabilities in other loaders, and what is whole. */
#include "tests/unit/gguf_cases.h"

#include "tensor/gguf.h"
#include "tests/test.h"

#include <string.h>

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

static size_t pad_up(uint64_t n, size_t alignment)
{
    return (n + alignment - 1) / alignment * alignment;
}

static uint32_t count_tensors(const struct gguf_case *s)
{
    uint32_t n = 0;
    while (n < 3 && s->tensors[n].name) {
        n++;
    }
    return n;
}

static void put_tensors(struct buf *b, const struct gguf_case *s, size_t alignment)
{
    uint64_t offset = 0;
    for (uint32_t i = 0; i < count_tensors(s); i++) {
        const struct gguf_case_tensor *t = &s->tensors[i];
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

void gguf_case_build(struct buf *b, const struct gguf_case *s)
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

const struct gguf_case gguf_cases[] = {
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
const size_t n_gguf_cases = sizeof gguf_cases / sizeof *gguf_cases;

const struct gguf_case *gguf_case_named(const char *name)
{
    for (size_t i = 0; i < n_gguf_cases; i++) {
        if (!strcmp(gguf_cases[i].name, name)) {
            return &gguf_cases[i];
        }
    }
    FAIL("there is no case %s", name);
}
