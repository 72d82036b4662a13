/* Which format it is, and the checks that both formats share: sizes, memory, EXIF.
 * Formats that tamp does not read are recognised by their first bytes, so that the
 * error can name what the client sent. */
#include "vision/image_scan.h"

#include <stdbool.h>
#include <string.h>

#define ACCEPTED "tamp reads JPEG and PNG"

const struct image_limits image_limits_default = {
    .min_side = 2,
    .max_side = 16384,
    .max_aspect = 200,
    .max_pixels = (uint64_t)64 << 20,
    .max_bytes = (size_t)32 << 20,
    .memory_bytes = (size_t)64 << 20,
};

struct magic {
    const char *format;
    size_t offset;
    size_t len;
    const char *bytes;
};

static const struct magic other_formats[] = {
    {"GIF", 0, 4, "GIF8"},      {"WebP", 8, 4, "WEBP"},        {"AVIF", 4, 8, "ftypavif"},
    {"AVIF", 4, 8, "ftypavis"}, {"HEIC", 4, 8, "ftypheic"},    {"HEIC", 4, 8, "ftypheix"},
    {"HEIC", 4, 8, "ftypmif1"}, {"TIFF", 0, 4, "II*\0"},       {"TIFF", 0, 4, "MM\0*"},
    {"PDF", 0, 5, "%PDF-"},     {"BMP", 0, 2, "BM"},           {"JPEG 2000", 4, 4, "jP  "},
    {"JPEG XL", 4, 4, "JXL "},  {"JPEG XL", 0, 2, "\xff\x0a"}, {"ICO", 0, 4, "\0\0\1\0"},
};

static const uint8_t png_magic[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
static const uint8_t jpeg_magic[3] = {0xff, 0xd8, 0xff};

int image_truncated(struct err *e, const char *what)
{
    return err_reason(e, ERR_FORMAT, "image_truncated", "the picture is cut off or damaged: %s",
                      what);
}

int image_damaged(struct err *e, const char *what)
{
    return err_reason(e, ERR_FORMAT, "image_decode_failed", "the picture is damaged: %s", what);
}

int image_check_size(const struct image_limits *limits, uint32_t width, uint32_t height,
                     struct err *e)
{
    uint64_t shorter = width < height ? width : height;
    uint64_t longer = width < height ? height : width;
    if (shorter == 0) {
        return err_reason(e, ERR_FORMAT, "image_too_small", "the picture is %ux%u pixels", width,
                          height);
    }
    if (longer > (uint64_t)limits->max_side || shorter * longer > limits->max_pixels) {
        return err_reason(e, ERR_TOO_LARGE, "image_too_large",
                          "the picture is %ux%u pixels; at most %d a side and %llu in all", width,
                          height, limits->max_side, (unsigned long long)limits->max_pixels);
    }
    if (longer > shorter * (uint64_t)limits->max_aspect) {
        return err_reason(e, ERR_INVALID, "image_aspect",
                          "the picture is %ux%u pixels; one side may be at most %d times the other",
                          width, height, limits->max_aspect);
    }
    if (shorter < (uint64_t)limits->min_side) {
        return err_reason(e, ERR_INVALID, "image_too_small",
                          "the picture is %ux%u pixels; at least %d a side", width, height,
                          limits->min_side);
    }
    return 0;
}

static uint32_t tiff_get(const uint8_t *p, int n_bytes, bool big_endian)
{
    uint32_t v = 0;
    for (int i = 0; i < n_bytes; i++) {
        v |= (uint32_t)p[big_endian ? n_bytes - 1 - i : i] << (8 * i);
    }
    return v;
}

int image_exif_orientation(const uint8_t *tiff, size_t n)
{
    if (n < 10 || (memcmp(tiff, "II*\0", 4) != 0 && memcmp(tiff, "MM\0*", 4) != 0)) {
        return 1;
    }
    bool big_endian = tiff[0] == 'M';
    size_t at = tiff_get(tiff + 4, 4, big_endian);
    if (at > n - 2) {
        return 1;
    }
    size_t n_entries = tiff_get(tiff + at, 2, big_endian);
    at += 2;
    for (size_t i = 0; i < n_entries && n - at >= 12; i++, at += 12) {
        uint32_t tag = tiff_get(tiff + at, 2, big_endian);
        uint32_t type = tiff_get(tiff + at + 2, 2, big_endian);
        uint32_t count = tiff_get(tiff + at + 4, 4, big_endian);
        uint32_t value = tiff_get(tiff + at + 8, 2, big_endian);
        if (tag == 0x0112) {
            return type == 3 && count == 1 && value >= 1 && value <= 8 ? (int)value : 1;
        }
    }
    return 1;
}

/* <svg or <?xml after white space and a byte order mark. */
static bool looks_like_svg(const uint8_t *bytes, size_t n)
{
    size_t at = n >= 3 && memcmp(bytes, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    while (at < n && (bytes[at] == ' ' || (bytes[at] >= '\t' && bytes[at] <= '\r'))) {
        at++;
    }
    return (n - at >= 4 && memcmp(bytes + at, "<svg", 4) == 0) ||
           (n - at >= 5 && memcmp(bytes + at, "<?xml", 5) == 0);
}

static const char *recognise_other(const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < sizeof other_formats / sizeof *other_formats; i++) {
        const struct magic *m = &other_formats[i];
        if (n >= m->offset + m->len && memcmp(bytes + m->offset, m->bytes, m->len) == 0) {
            return m->format;
        }
    }
    return looks_like_svg(bytes, n) ? "SVG" : NULL;
}

static int refuse_format(const uint8_t *bytes, size_t n, struct err *e)
{
    const char *name = recognise_other(bytes, n);
    if (name) {
        return err_reason(e, ERR_UNSUPPORTED, "unsupported_image", "the picture is %s; " ACCEPTED,
                          name);
    }
    return err_reason(e, ERR_UNSUPPORTED, "unsupported_image",
                      "the data is in no picture format that tamp knows; " ACCEPTED);
}

static bool starts_with(const uint8_t *bytes, size_t n, const uint8_t *magic, size_t len)
{
    return memcmp(bytes, magic, n < len ? n : len) == 0;
}

static int scan_format(const uint8_t *bytes, size_t n, const struct image_limits *limits,
                       struct image_facts *out, struct err *e)
{
    if (n == 0) {
        return image_truncated(e, "it has no bytes");
    }
    if (starts_with(bytes, n, jpeg_magic, sizeof jpeg_magic)) {
        out->format = IMAGE_JPEG;
        return image_scan_jpeg(bytes, n, limits, out, e);
    }
    if (starts_with(bytes, n, png_magic, sizeof png_magic)) {
        out->format = IMAGE_PNG;
        return image_scan_png(bytes, n, limits, out, e);
    }
    return refuse_format(bytes, n, e);
}

int image_scan_facts(const uint8_t *bytes, size_t n, const struct image_limits *limits,
                     struct image_facts *out, struct err *e)
{
    if (n > limits->max_bytes) {
        return err_reason(e, ERR_TOO_LARGE, "image_too_large",
                          "the picture has %zu bytes; at most %zu", n, limits->max_bytes);
    }
    struct image_facts facts = {.orientation = 1};
    if (scan_format(bytes, n, limits, &facts, e)) {
        return -1;
    }
    uint64_t budget =
        4 * (uint64_t)facts.width * (uint64_t)facts.height + (uint64_t)limits->memory_bytes;
    if (facts.decode_bytes > budget) {
        return err_reason(e, ERR_TOO_LARGE, "image_too_large",
                          "decoding this %dx%d picture takes %llu MiB, more than the %llu MiB "
                          "allowed; send it smaller, with 8 bits a channel, not progressive",
                          facts.width, facts.height, (unsigned long long)(facts.decode_bytes >> 20),
                          (unsigned long long)(budget >> 20));
    }
    *out = facts;
    return 0;
}

int image_scan(const uint8_t *bytes, size_t n, const struct image_limits *limits,
               struct image_header *out, struct err *e)
{
    struct image_facts facts;
    if (image_scan_facts(bytes, n, limits, &facts, e)) {
        return -1;
    }
    bool turned = facts.orientation >= 5;
    *out = (struct image_header){
        .format = facts.format,
        .width = turned ? facts.height : facts.width,
        .height = turned ? facts.width : facts.height,
        .orientation = facts.orientation,
    };
    return 0;
}
