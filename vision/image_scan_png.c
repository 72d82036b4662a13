/* PNG (ISO/IEC 15948): walk the chunks to IEND, check every checksum, and compare the
 * compressed data with what IHDR declares. Deflate cannot shrink by more than 1032:1
 * and stored blocks grow by little, so data far outside both bounds belongs to no
 * honest picture: too little is damage, too much is a bomb. */
#include "vision/image_scan.h"

#include <stdbool.h>
#include <string.h>

#define CHUNK(a, b, c, d)                                                                          \
    ((uint32_t)(a) << 24 | (uint32_t)(b) << 16 | (uint32_t)(c) << 8 | (uint32_t)(d))
#define DEFLATE_MAX_RATIO 1032
/* Headers, checksums and many small blocks of clumsy writers. */
#define IDAT_SLACK ((uint64_t)64 << 10)

struct png {
    const uint8_t *bytes;
    size_t n, at;
    uint32_t width, height;
    int bits, colour, interlace;
    uint64_t idat_bytes;
    size_t n_chunks;
    bool has_palette, has_transparency, has_exif, done;
    int orientation;
};

struct chunk {
    uint32_t type;
    uint32_t len;
    const uint8_t *data;
};

static uint32_t be32(const uint8_t *p)
{
    return CHUNK(p[0], p[1], p[2], p[3]);
}

/* CRC-32 of ISO 3309 with a 4-bit table: no state to initialise. */
static uint32_t crc32_of(const uint8_t *p, size_t n)
{
    static const uint32_t table[16] = {0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac,
                                       0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
                                       0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
                                       0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c};
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

static int next_chunk(struct png *p, struct chunk *c, struct err *e)
{
    if (p->n - p->at < 12) {
        return image_truncated(e, "PNG ends without IEND");
    }
    c->len = be32(p->bytes + p->at);
    c->type = be32(p->bytes + p->at + 4);
    c->data = p->bytes + p->at + 8;
    if (c->len > p->n - p->at - 12) {
        return image_truncated(e, "PNG ends inside a chunk");
    }
    if (crc32_of(c->data - 4, (size_t)c->len + 4) != be32(c->data + c->len)) {
        return image_truncated(e, "a PNG chunk has a wrong checksum");
    }
    p->at += (size_t)c->len + 12;
    /* libpng writes 8 KiB chunks; only a flood has them this small on average. */
    if (++p->n_chunks > 64 + p->n / 128) {
        return err_reason(e, ERR_FORMAT, "image_bomb", "the PNG has too many tiny chunks");
    }
    return 0;
}

static bool depth_allowed(int colour, int bits)
{
    bool small = bits == 1 || bits == 2 || bits == 4;
    switch (colour) {
    case 0:
        return small || bits == 8 || bits == 16;
    case 3:
        return small || bits == 8;
    case 2:
    case 4:
    case 6:
        return bits == 8 || bits == 16;
    default:
        return false;
    }
}

static int read_ihdr(struct png *p, const struct chunk *c, const struct image_limits *limits,
                     struct err *e)
{
    if (c->type != CHUNK('I', 'H', 'D', 'R') || c->len != 13) {
        return image_damaged(e, "PNG does not begin with IHDR");
    }
    p->width = be32(c->data);
    p->height = be32(c->data + 4);
    p->bits = c->data[8];
    p->colour = c->data[9];
    p->interlace = c->data[12];
    if (image_check_size(limits, p->width, p->height, e)) {
        return -1;
    }
    if (!depth_allowed(p->colour, p->bits) || c->data[10] != 0 || c->data[11] != 0 ||
        p->interlace > 1) {
        return image_damaged(e, "PNG declares a colour type, depth or method that PNG lacks");
    }
    return 0;
}

static int read_chunk(struct png *p, const struct chunk *c, struct err *e)
{
    switch (c->type) {
    case CHUNK('I', 'D', 'A', 'T'):
        p->idat_bytes += c->len;
        return 0;
    case CHUNK('I', 'E', 'N', 'D'):
        p->done = true;
        return 0;
    case CHUNK('P', 'L', 'T', 'E'):
        if (p->has_palette || c->len == 0 || c->len > 768 || c->len % 3 != 0) {
            return image_damaged(e, "PNG has a malformed palette");
        }
        p->has_palette = true;
        return 0;
    case CHUNK('t', 'R', 'N', 'S'):
        p->has_transparency = true;
        return 0;
    case CHUNK('e', 'X', 'I', 'f'):
        if (!p->has_exif) {
            p->has_exif = true;
            p->orientation = image_exif_orientation(c->data, c->len);
        }
        return 0;
    case CHUNK('I', 'H', 'D', 'R'):
        return image_damaged(e, "PNG has a second IHDR");
    default:
        if (!(c->type & CHUNK(0x20, 0, 0, 0))) {
            return image_damaged(e, "PNG has a critical chunk that PNG lacks");
        }
        return 0;
    }
}

static int stored_channels(int colour)
{
    static const int channels[7] = {1, 0, 3, 1, 2, 0, 4};
    return channels[colour];
}

/* Bytes of filtered rows of a width x height pass. */
static uint64_t pass_bytes(const struct png *p, uint64_t width, uint64_t height)
{
    uint64_t bits = width * (uint64_t)(stored_channels(p->colour) * p->bits);
    return width && height ? height * (1 + (bits + 7) / 8) : 0;
}

/* What the compressed data must inflate to; Adam7 has seven smaller pictures. */
static uint64_t inflated_bytes(const struct png *p)
{
    static const uint8_t x0[7] = {0, 4, 0, 2, 0, 1, 0};
    static const uint8_t y0[7] = {0, 0, 4, 0, 2, 0, 1};
    static const uint8_t dx[7] = {8, 8, 4, 4, 2, 2, 1};
    static const uint8_t dy[7] = {8, 8, 8, 4, 4, 2, 2};
    if (!p->interlace) {
        return pass_bytes(p, p->width, p->height);
    }
    uint64_t sum = 0;
    for (int i = 0; i < 7; i++) {
        uint64_t w = ((uint64_t)p->width + dx[i] - 1 - x0[i]) / dx[i];
        uint64_t h = ((uint64_t)p->height + dy[i] - 1 - y0[i]) / dy[i];
        sum += pass_bytes(p, w, h);
    }
    return sum;
}

static int check_data(const struct png *p, uint64_t inflated, struct err *e)
{
    if (p->colour == 3 && !p->has_palette) {
        return image_damaged(e, "PNG has no palette");
    }
    if (p->idat_bytes * DEFLATE_MAX_RATIO + IDAT_SLACK < inflated) {
        return image_truncated(e, "PNG has too little data for its size");
    }
    if (p->idat_bytes > inflated + inflated / 8 + IDAT_SLACK) {
        return err_reason(e, ERR_FORMAT, "image_bomb",
                          "the PNG holds %llu bytes of data for %ux%u pixels",
                          (unsigned long long)p->idat_bytes, p->width, p->height);
    }
    return 0;
}

/* Compressed data (kept with room to double), inflated rows, the picture. Interlaced:
 * the decoder guesses the inflated size a little short and doubles it, and each pass has
 * a picture of its own. */
static uint64_t decode_bytes(const struct png *p, uint64_t inflated)
{
    uint64_t pixels = (uint64_t)p->width * p->height;
    int channels = stored_channels(p->colour) + (p->has_transparency && p->colour != 3);
    uint64_t picture = pixels * (uint64_t)channels * (p->bits == 16 ? 2 : 1);
    uint64_t decoding = 2 * p->idat_bytes + inflated;
    decoding = decoding > inflated + picture ? decoding : inflated + picture;
    if (p->interlace) {
        decoding = 2 * inflated + 2 * picture;
    }
    if (p->colour == 3) {
        uint64_t expanding = inflated + picture + pixels * (p->has_transparency ? 4 : 3);
        decoding = expanding > decoding ? expanding : decoding;
    }
    return decoding;
}

int image_scan_png(const uint8_t *bytes, size_t n, const struct image_limits *limits,
                   struct image_facts *out, struct err *e)
{
    struct png p = {.bytes = bytes, .n = n, .at = 8, .orientation = 1};
    struct chunk c = {0};
    if (n < 8) {
        return image_truncated(e, "PNG ends inside its signature");
    }
    if (next_chunk(&p, &c, e) || read_ihdr(&p, &c, limits, e)) {
        return -1;
    }
    while (!p.done) {
        if (next_chunk(&p, &c, e) || read_chunk(&p, &c, e)) {
            return -1;
        }
    }
    uint64_t inflated = inflated_bytes(&p);
    if (check_data(&p, inflated, e)) {
        return -1;
    }
    out->width = (int)p.width;
    out->height = (int)p.height;
    out->orientation = p.orientation;
    out->decode_bytes = decode_bytes(&p, inflated);
    return 0;
}
