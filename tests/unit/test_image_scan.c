/* The header scan on whole, cut, hostile and foreign files. Everything is read from
 * behind a guard page, so one byte too far ends the test. */
#include "base/alloc.h"
#include "base/buf.h"
#include "base/rng.h"
#include "tests/test.h"
#include "vision/image_scan.h"

#include <dirent.h>
#include <stdbool.h>

static uint8_t *data_file(const char *name, size_t *n)
{
    struct buf path;
    buf_init(&path, 4096);
    buf_printf(&path, "tests/data/images/%s", name);
    uint8_t *bytes = (uint8_t *)test_read_file(buf_str(&path), n);
    buf_free(&path);
    return bytes;
}

static int scan_guarded(const void *bytes, size_t n, struct image_header *h, struct err *e)
{
    return image_scan(test_guarded(bytes, n), n, &image_limits_default, h, e);
}

static void refuse(const void *bytes, size_t n, const char *reason)
{
    struct image_header h;
    struct err e = ERR_INIT;
    CHECK_INT(scan_guarded(bytes, n, &h, &e), ==, -1);
    CHECK_STR(e.reason, reason);
}

static uint32_t crc_of(const uint8_t *p, size_t n)
{
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int k = 0; k < 8; k++) {
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
        }
    }
    return ~crc;
}

static void put32(struct buf *b, uint32_t v)
{
    uint8_t bytes[4] = {(uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v};
    buf_append(b, bytes, 4);
}

static void put_chunk(struct buf *b, const char *type, const void *data, size_t n)
{
    put32(b, (uint32_t)n);
    size_t from = b->len;
    buf_append(b, type, 4);
    if (n) {
        buf_append(b, data, n);
    }
    put32(b, crc_of((const uint8_t *)b->data + from, b->len - from));
}

static void start_png(struct buf *b, uint32_t w, uint32_t h, int bits, int colour)
{
    buf_init(b, (size_t)64 << 20);
    buf_append(b, "\x89PNG\r\n\x1a\n", 8);
    uint8_t ihdr[13] = {(uint8_t)(w >> 24), (uint8_t)(w >> 16), (uint8_t)(w >> 8), (uint8_t)w,
                        (uint8_t)(h >> 24), (uint8_t)(h >> 16), (uint8_t)(h >> 8), (uint8_t)h,
                        (uint8_t)bits,      (uint8_t)colour};
    put_chunk(b, "IHDR", ihdr, 13);
}

static void refuse_png(uint32_t w, uint32_t h, const char *reason)
{
    struct buf b;
    start_png(&b, w, h, 8, 2);
    put_chunk(&b, "IDAT", "x", 1);
    put_chunk(&b, "IEND", "", 0);
    refuse(b.data, b.len, reason);
    buf_free(&b);
}

TEST(image_scan_sizes, "impossible and extreme PNG sizes are refused with their reason")
{
    refuse_png(0, 7, "image_too_small");
    refuse_png(7, 0, "image_too_small");
    refuse_png(1, 1, "image_too_small");
    refuse_png(1, 10000, "image_aspect");
    refuse_png(10000, 1, "image_aspect");
    refuse_png(52800, 44, "image_too_large");
    refuse_png(65535, 65535, "image_too_large");
    refuse_png(0x80000000u, 0x80000000u, "image_too_large");
    refuse_png(0xffffffffu, 2, "image_too_large");
    refuse_png(20000, 20000, "image_too_large");
    refuse_png(16384, 16384, "image_too_large");
}

TEST(image_scan_files, "every sample picture passes with its size and format")
{
    DIR *d = opendir("tests/data/images");
    CHECK(d);
    int seen = 0;
    for (struct dirent *f; (f = readdir(d));) {
        bool jpeg = strstr(f->d_name, ".jpg") != NULL;
        if ((!jpeg && !strstr(f->d_name, ".png")) || strcmp(f->d_name, "cmyk.jpg") == 0) {
            continue;
        }
        size_t n;
        uint8_t *bytes = data_file(f->d_name, &n);
        struct image_header h;
        struct err e = ERR_INIT;
        if (scan_guarded(bytes, n, &h, &e)) {
            FAIL("%s: %s", f->d_name, e.msg);
        }
        CHECK_INT(h.format, ==, jpeg ? IMAGE_JPEG : IMAGE_PNG);
        CHECK_INT(h.width, ==, h.orientation >= 5 ? 21 : 29);
        CHECK_INT(h.height, ==, h.orientation >= 5 ? 29 : 21);
        mem_free(bytes);
        seen++;
    }
    closedir(d);
    CHECK_INT(seen, >=, 37);
}

static void cut_everywhere(const char *name)
{
    size_t n;
    uint8_t *bytes = data_file(name, &n);
    for (size_t len = 0; len < n; len++) {
        refuse(bytes, len, "image_truncated");
    }
    mem_free(bytes);
}

TEST(image_scan_truncated, "a picture cut at any byte is image_truncated")
{
    cut_everywhere("rgb8.png");
    cut_everywhere("animated.png");
    cut_everywhere("baseline420.jpg");
    cut_everywhere("progressive.jpg");
    cut_everywhere("orientation6.jpg");
}

TEST(image_scan_trailing, "bytes after IEND and EOI are ignored")
{
    static const char *const names[] = {"rgb8.png", "baseline444.jpg"};
    for (int i = 0; i < 2; i++) {
        size_t n;
        uint8_t *bytes = data_file(names[i], &n);
        struct buf b;
        buf_init(&b, 1 << 20);
        buf_append(&b, bytes, n);
        buf_append(&b, "PK\3\4 a zip file behind a picture", 30);
        struct image_header h;
        struct err e = ERR_INIT;
        CHECK_OK(scan_guarded(b.data, b.len, &h, &e), e);
        buf_free(&b);
        mem_free(bytes);
    }
}

TEST(image_scan_png_checksum, "a flipped bit in any chunk of a PNG is noticed")
{
    size_t n;
    uint8_t *bytes = data_file("palette8_trns.png", &n);
    for (size_t at = 8; at < n; at++) {
        bytes[at] ^= 0x10;
        struct image_header h;
        struct err e = ERR_INIT;
        CHECK_INT(scan_guarded(bytes, n, &h, &e), ==, -1);
        bytes[at] ^= 0x10;
    }
    mem_free(bytes);
}

TEST(image_scan_png_bombs, "PNG bombs are refused by structure alone")
{
    static uint8_t zeros[4 << 20];
    struct buf b;
    start_png(&b, 2, 2, 8, 2); /* 4 MB of data for four pixels */
    put_chunk(&b, "IDAT", zeros, sizeof zeros);
    put_chunk(&b, "IEND", "", 0);
    refuse(b.data, b.len, "image_bomb");
    buf_free(&b);

    start_png(&b, 100, 100, 8, 2); /* a thousand chunks of one byte */
    for (int i = 0; i < 1000; i++) {
        put_chunk(&b, "IDAT", zeros, 1);
    }
    put_chunk(&b, "IEND", "", 0);
    refuse(b.data, b.len, "image_bomb");
    buf_free(&b);

    start_png(&b, 8000, 8000, 8, 2); /* 192 MB cannot come out of 1 kB */
    put_chunk(&b, "IDAT", zeros, 1000);
    put_chunk(&b, "IEND", "", 0);
    refuse(b.data, b.len, "image_truncated");
    buf_free(&b);

    start_png(&b, 8000, 8000, 16, 6); /* well-formed, but needs 1 GB to decode */
    put_chunk(&b, "IDAT", zeros, 1 << 20);
    put_chunk(&b, "IEND", "", 0);
    refuse(b.data, b.len, "image_too_large");
    buf_free(&b);
}

TEST(image_scan_png_ancillary, "huge colour profiles and texts are skipped")
{
    static uint8_t zeros[4 << 20];
    size_t n;
    uint8_t *bytes = data_file("rgb8.png", &n);
    struct buf b;
    buf_init(&b, (size_t)64 << 20);
    buf_append(&b, bytes, 33);
    put_chunk(&b, "iCCP", zeros, sizeof zeros);
    put_chunk(&b, "zTXt", zeros, sizeof zeros);
    put_chunk(&b, "iTXt", zeros, sizeof zeros);
    buf_append(&b, bytes + 33, n - 33);
    struct image_header h;
    struct err e = ERR_INIT;
    CHECK_OK(scan_guarded(b.data, b.len, &h, &e), e);
    buf_free(&b);
    mem_free(bytes);
}

TEST(image_scan_png_ihdr, "colour types and depths outside the standard are refused")
{
    static const uint8_t bad[][2] = {{8, 1}, {8, 5}, {8, 7}, {3, 0}, {16, 3},
                                     {4, 2}, {1, 6}, {0, 0}, {32, 2}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct buf b;
        start_png(&b, 9, 9, bad[i][0], bad[i][1]);
        put_chunk(&b, "IDAT", "x", 1);
        put_chunk(&b, "IEND", "", 0);
        refuse(b.data, b.len, "image_decode_failed");
        buf_free(&b);
    }
}

/* -- JPEG ------------------------------------------------------------------------- */

/* Offset of the marker segment of that code in a JPEG made by libjpeg. */
static size_t find_segment(const uint8_t *bytes, size_t n, int code)
{
    size_t at = 2;
    while (at + 4 <= n && bytes[at] == 0xff) {
        if (bytes[at + 1] == code) {
            return at;
        }
        at += 2 + ((size_t)bytes[at + 2] << 8 | bytes[at + 3]);
    }
    FAIL("no segment %02x", (unsigned)code);
}

static void refuse_patched(const char *name, int code, size_t offset, int value, const char *reason)
{
    size_t n;
    uint8_t *bytes = data_file(name, &n);
    bytes[find_segment(bytes, n, code) + offset] = (uint8_t)value;
    refuse(bytes, n, reason);
    mem_free(bytes);
}

TEST(image_scan_jpeg_frames, "frames that tamp does not decode are refused by name")
{
    static const uint8_t kinds[] = {0xc3, 0xc5, 0xc6, 0xc7, 0xc9, 0xca, 0xcb, 0xcd, 0xce, 0xcf};
    for (size_t i = 0; i < sizeof kinds; i++) {
        refuse_patched("baseline444.jpg", 0xc0, 1, kinds[i], "unsupported_image");
    }
    refuse_patched("baseline444.jpg", 0xc0, 4, 12, "unsupported_image"); /* bits a sample */
    refuse_patched("baseline444.jpg", 0xc0, 9, 0, "image_decode_failed");
    refuse_patched("baseline444.jpg", 0xc0, 9, 4, "image_decode_failed"); /* length is for 3 */
    refuse_patched("baseline444.jpg", 0xc0, 11, 0x01, "image_decode_failed");
    refuse_patched("baseline444.jpg", 0xc0, 11, 0x51, "image_decode_failed");
    refuse_patched("baseline420.jpg", 0xc0, 14, 0x33, "image_decode_failed"); /* 3 and 2 */
    refuse_patched("baseline444.jpg", 0xc4, 5, 255, "image_decode_failed");   /* Huffman codes */
    refuse_patched("baseline444.jpg", 0xdb, 4, 0x2f, "image_decode_failed");
    size_t n;
    uint8_t *bytes = data_file("cmyk.jpg", &n);
    refuse(bytes, n, "unsupported_colorspace");
    mem_free(bytes);
}

static void set_be16(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

TEST(image_scan_jpeg_sizes, "sides of 0 and of 65535 in a JPEG frame are refused")
{
    size_t n;
    uint8_t *bytes = data_file("baseline444.jpg", &n);
    uint8_t *sof = bytes + find_segment(bytes, n, 0xc0);
    set_be16(sof + 5, 0); /* height 0: it would come from a DNL marker */
    refuse(bytes, n, "image_too_small");
    set_be16(sof + 5, 65535);
    set_be16(sof + 7, 65535);
    refuse(bytes, n, "image_too_large");
    set_be16(sof + 5, 1);
    set_be16(sof + 7, 10000);
    refuse(bytes, n, "image_aspect");
    mem_free(bytes);
}

/* The file with `count` copies of `part` put before its EOI. */
static void with_repeated(struct buf *b, const char *name, const void *part, size_t len, int count)
{
    size_t n;
    uint8_t *bytes = data_file(name, &n);
    buf_init(b, (size_t)32 << 20);
    buf_append(b, bytes, n - 2);
    for (int i = 0; i < count; i++) {
        buf_append(b, part, len);
    }
    buf_append(b, "\xff\xd9", 2);
    mem_free(bytes);
}

TEST(image_scan_jpeg_floods, "floods of scans and of restarts, and DNL, are refused")
{
    struct buf b;
    with_repeated(&b, "progressive.jpg", "\xff\xda\0\x08\1\1\0\0\x3f\0\x55", 11, 10000);
    refuse(b.data, b.len, "image_bomb");
    buf_free(&b);
    with_repeated(&b, "restart.jpg", "\xff\xd0", 2, 10000);
    refuse(b.data, b.len, "image_bomb");
    buf_free(&b);
    with_repeated(&b, "baseline444.jpg", "\xff\xdc\0\4\0\x10", 6, 1);
    refuse(b.data, b.len, "unsupported_image");
    buf_free(&b);
}

TEST(image_scan_jpeg_any_byte, "any single damaged byte leaves the scan inside the file")
{
    static const char *const names[] = {"progressive.jpg", "orientation6.jpg", "rgb8.png"};
    struct rng rng;
    rng_init(&rng, test_seed());
    for (int k = 0; k < 3; k++) {
        size_t n;
        uint8_t *bytes = data_file(names[k], &n);
        uint8_t *at = test_guarded(bytes, n);
        for (int i = 0; i < 20000; i++) {
            size_t pos = rng_below(&rng, n);
            uint8_t old = at[pos];
            at[pos] = (uint8_t)rng_u64(&rng);
            struct image_header h;
            struct err e = ERR_INIT;
            if (image_scan(at, n, &image_limits_default, &h, &e) == 0) {
                CHECK_INT(h.width, <=, 16384);
            }
            if (rng_below(&rng, 8)) { /* sometimes let damage pile up */
                at[pos] = old;
            }
        }
        mem_free(bytes);
    }
}

/* -- EXIF ------------------------------------------------------------------------- */

static int orientation_of(const char *tiff, size_t n)
{
    return image_exif_orientation(test_guarded(tiff, n), n);
}

TEST(image_scan_exif, "orientation in both byte orders; malformed blocks count as absent")
{
    CHECK_INT(orientation_of("II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0", 22), ==, 6);
    CHECK_INT(orientation_of("MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\x08\0\0", 22), ==, 8);
    CHECK_INT(orientation_of("II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\x09\0\0\0", 22), ==, 1);
    CHECK_INT(orientation_of("II*\0\x08\0\0\0\1\0\x12\1\4\0\1\0\0\0\6\0\0\0", 22), ==, 1);
    CHECK_INT(orientation_of("II*\0\x08\0\0\0\xff\xff\x12\2\3\0\1\0\0\0\6\0\0\0", 22), ==, 1);
    CHECK_INT(orientation_of("II*\0\xff\xff\xff\xff\1\0", 10), ==, 1);
    CHECK_INT(orientation_of("II*\0\x08\0\0\0\1\0", 10), ==, 1);
    CHECK_INT(orientation_of("XX*\0\x08\0\0\0\1\0", 10), ==, 1);
    CHECK_INT(orientation_of("", 0), ==, 1);
    const char *whole = "II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0";
    for (size_t n = 0; n < 22; n++) {
        CHECK_INT(orientation_of(whole, n), ==, 1);
    }
}

static int orientation_with_app1(const char *app1, size_t len)
{
    size_t n;
    uint8_t *bytes = data_file("orientation6.jpg", &n);
    struct buf b;
    buf_init(&b, 1 << 20);
    buf_append(&b, bytes, 2);
    buf_append(&b, app1, len);
    buf_append(&b, bytes + 2, n - 2);
    struct image_header h;
    struct err e = ERR_INIT;
    CHECK_OK(scan_guarded(b.data, b.len, &h, &e), e);
    buf_free(&b);
    mem_free(bytes);
    return h.orientation;
}

TEST(image_scan_exif_first, "the first Exif block counts; other APP1 blocks do not")
{
    CHECK_INT(orientation_with_app1("", 0), ==, 6);
    CHECK_INT(orientation_with_app1("\xff\xe1\0\x24"
                                    "Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\3\0\0\0......",
                                    38),
              ==, 3);
    CHECK_INT(orientation_with_app1("\xff\xe1\0\x0c"
                                    "http://ns.",
                                    14),
              ==, 6);
    CHECK_INT(orientation_with_app1("\xff\xe1\0\x0a"
                                    "Exif\0\0II",
                                    12),
              ==, 1);
}

/* -- other formats ------------------------------------------------------------------ */

static void refuse_named(const char *bytes, size_t n, const char *name)
{
    struct image_header h;
    struct err e = ERR_INIT;
    CHECK_INT(scan_guarded(bytes, n, &h, &e), ==, -1);
    CHECK_STR(e.reason, "unsupported_image");
    if (!strstr(e.msg, name) || !strstr(e.msg, "JPEG and PNG")) {
        FAIL("\"%s\" does not name %s and what is accepted", e.msg, name);
    }
}

TEST(image_scan_other_formats, "other formats are named, with those that tamp reads")
{
    refuse_named("GIF89a\1\0\1\0", 10, "GIF");
    refuse_named("RIFF\1\2\3\4WEBPVP8 ", 16, "WebP");
    refuse_named("\0\0\0\x1c"
                 "ftypavif\0\0\0\0",
                 16, "AVIF");
    refuse_named("\0\0\0\x18"
                 "ftypheic\0\0\0\0",
                 16, "HEIC");
    refuse_named("II*\0\x08\0\0\0", 8, "TIFF");
    refuse_named("MM\0*\0\0\0\x08", 8, "TIFF");
    refuse_named("%PDF-1.7\n", 9, "PDF");
    refuse_named("BM\x36\0\0\0", 6, "BMP");
    refuse_named("\xef\xbb\xbf  <svg xmlns=", 16, "SVG");
    refuse_named("<?xml version='1.0'?><svg/>", 27, "SVG");
    refuse_named("hello", 5, "no picture format");
    refuse_named("<html>", 6, "no picture format");
}

TEST(image_scan_file_size, "a file over the limit is refused before it is looked at")
{
    struct image_limits limits = image_limits_default;
    limits.max_bytes = 10;
    struct image_header h;
    struct err e = ERR_INIT;
    CHECK_INT(image_scan((const uint8_t *)"nothing at all", 14, &limits, &h, &e), ==, -1);
    CHECK_STR(e.reason, "image_too_large");
}
