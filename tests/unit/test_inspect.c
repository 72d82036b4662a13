/* `tamp inspect`'s two outputs on a file full of hostile text. */
#include "cmd/inspect.h"
#include "tensor/gguf_impl.h"
#include "tests/test.h"

#include <cjson/cJSON.h>
#include <string.h>

static void put_u64(struct buf *b, uint64_t v)
{
    buf_append(b, &v, sizeof v);
}

static void put_u32(struct buf *b, uint32_t v)
{
    buf_append(b, &v, sizeof v);
}

static void put_text(struct buf *b, const char *s, size_t n)
{
    put_u64(b, n);
    buf_append(b, s, n);
}

#define PUT(b, literal) put_text((b), (literal), sizeof(literal) - 1)

/* Escape sequences in keys and values, text that is no UTF-8, a zero byte, a direction
 * mark, a number beyond 2^53, a NaN, an array, a tensor type tamp does not know. */
static struct gguf *make_file(struct buf *b)
{
    buf_init(b, 1 << 16);
    buf_append(b, "GGUF\3\0\0\0", 8);
    put_u64(b, 1);
    put_u64(b, 5);
    PUT(b, "key\033[2J"), put_u32(b, GGUF_STRING), PUT(b, "a\033[31m\xff\0z\xe2\x80\xae\nb");
    PUT(b, "big"), put_u32(b, GGUF_U64), put_u64(b, UINT64_MAX);
    PUT(b, "negative"), put_u32(b, GGUF_I32), put_u32(b, (uint32_t)-3);
    PUT(b, "nan"), put_u32(b, GGUF_F32), put_u32(b, 0x7fc00000);
    PUT(b, "list"), put_u32(b, GGUF_ARRAY), put_u32(b, GGUF_U8), put_u64(b, 40);
    for (int i = 0; i < 40; i++) {
        buf_putc(b, (char)i);
    }
    PUT(b, "odd\007"), put_u32(b, 2), put_u64(b, 256), put_u64(b, 1), put_u32(b, 10);
    put_u64(b, 0);
    while (b->len % 32) {
        buf_putc(b, 0);
    }
    for (int i = 0; i < 84; i++) {
        buf_putc(b, 0);
    }
    struct err e = ERR_INIT;
    struct gguf *g = gguf_parse_view(b->data, b->len, "made.gguf", &e);
    if (!g) {
        FAIL("%s", e.msg);
    }
    return g;
}

static struct inspection example(const struct gguf *g)
{
    struct inspection in = {.gguf = g, .kind = "unknown", .n_verdicts = 1, .n_types = 1};
    in.verdicts[0] = (struct inspect_verdict){.part = "family", .text = "no \033 such"};
    in.types[0] = (struct inspect_type){.name = "Q2_K", .n_tensors = 1, .n_bytes = 84};
    return in;
}

TEST(inspect_text_is_safe, "no control byte but the line feed reaches the terminal")
{
    struct buf file;
    struct gguf *g = make_file(&file);
    struct inspection in = example(g);
    struct buf out;
    buf_init(&out, 1 << 16);
    inspect_print_text(&in, &out);
    CHECK(!buf_failed(&out));
    for (size_t i = 0; i < out.len; i++) {
        CHECK(out.data[i] == '\n' || (unsigned char)out.data[i] >= 0x20);
    }
    CHECK(strstr(out.data, "key\\x1b[2J = \"a\\x1b[31m\\xff\\x00z\\u{202e}\\nb\""));
    CHECK(strstr(out.data, "big = 18446744073709551615\n"));
    CHECK(strstr(out.data, "negative = -3\n"));
    CHECK(strstr(out.data, "list = 40 x u8: 0, 1, 2, 3, 4, 5, ...\n"));
    CHECK(strstr(out.data, "Q2_K   [256, 1]") && strstr(out.data, "odd\\x07"));
    CHECK(strstr(out.data, "no \\x1b such") && strstr(out.data, "(not supported)"));
    buf_free(&out);
    gguf_free_view(g);
    buf_free(&file);
}

TEST(inspect_text_cut, "long text is cut on a character and marked")
{
    struct buf out;
    buf_init(&out, 100);
    inspect_put_text(&out,
                     "ab\xc3\xa9"
                     "cd",
                     6, 3);
    CHECK_STR(buf_str(&out), "ab\xc3\xa9...");
    buf_clear(&out);
    inspect_put_text(&out, "ab\xc3", 3, 9);
    CHECK_STR(buf_str(&out), "ab\\xc3");
    buf_free(&out);
}

TEST(inspect_json_is_valid, "the JSON parses, whatever bytes the file holds")
{
    struct buf file;
    struct gguf *g = make_file(&file);
    struct inspection in = example(g);
    struct buf out;
    buf_init(&out, 1 << 16);
    CHECK_INT(inspect_print_json(&in, &out), ==, 0);
    cJSON *root = cJSON_Parse(buf_str(&out));
    CHECK(root);
    const cJSON *metadata = cJSON_GetObjectItemCaseSensitive(root, "metadata");
    CHECK_STR(cJSON_GetObjectItemCaseSensitive(metadata, "key\033[2J")->valuestring,
              "a\033[31m\xef\xbf\xbd\xef\xbf\xbdz\xe2\x80\xae\nb");
    CHECK(cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(metadata, "nan")));
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(metadata, "list");
    CHECK_INT(cJSON_GetObjectItemCaseSensitive(list, "length")->valueint, ==, 40);
    CHECK_INT(cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(list, "first")), ==, 16);
    CHECK(strstr(buf_str(&out), "18446744073709551615"));
    const cJSON *tensor = cJSON_GetObjectItemCaseSensitive(root, "tensors")->child;
    CHECK_STR(cJSON_GetObjectItemCaseSensitive(tensor, "type")->valuestring, "Q2_K");
    CHECK(cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(root, "usable")));
    cJSON_Delete(root);
    buf_free(&out);
    gguf_free_view(g);
    buf_free(&file);
}
