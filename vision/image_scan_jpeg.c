/* JPEG (ITU-T T.81): walk the markers from SOI to EOI, entropy-coded data included.
 * A decoder that believes the tables of a hostile file reads or writes out of bounds,
 * or goes over the picture once for each of ten thousand scans; both end here. */
#include "vision/image_scan.h"

#include <stdbool.h>
#include <string.h>

#define MAX_SCANS 100 /* progressive files of common encoders have 10 */

enum {
    M_SOF0 = 0xc0,
    M_SOF2 = 0xc2,
    M_DHT = 0xc4,
    M_JPG = 0xc8,
    M_DAC = 0xcc,
    M_SOF15 = 0xcf,
    M_RST0 = 0xd0,
    M_RST7 = 0xd7,
    M_SOI = 0xd8,
    M_EOI = 0xd9,
    M_SOS = 0xda,
    M_DQT = 0xdb,
    M_DNL = 0xdc,
    M_DRI = 0xdd,
    M_DHP = 0xde,
    M_EXP = 0xdf,
    M_APP0 = 0xe0,
    M_APP1 = 0xe1,
    M_APP15 = 0xef,
    M_COM = 0xfe
};

struct jpeg {
    const uint8_t *bytes;
    size_t n, at;
    const struct image_limits *limits;
    uint32_t width, height;
    int n_components;
    bool has_frame, progressive, has_exif;
    int orientation;
    int n_scans;
    uint64_t n_blocks; /* 8x8 blocks of the first component at most: bounds restarts */
    uint64_t sample_bytes;
};

struct segment {
    int marker;
    const uint8_t *data;
    size_t len;
};

static uint32_t be16(const uint8_t *p)
{
    return (uint32_t)p[0] << 8 | p[1];
}

/* Any number of 0xff, then the code. */
static int next_marker(struct jpeg *j, int *marker, struct err *e)
{
    if (j->at >= j->n) {
        return image_truncated(e, "JPEG ends without EOI");
    }
    if (j->bytes[j->at] != 0xff) {
        return image_damaged(e, "JPEG has bytes where a marker should be");
    }
    while (j->at < j->n && j->bytes[j->at] == 0xff) {
        j->at++;
    }
    if (j->at >= j->n) {
        return image_truncated(e, "JPEG ends inside a marker");
    }
    *marker = j->bytes[j->at++];
    return 0;
}

static int next_segment(struct jpeg *j, struct segment *s, struct err *e)
{
    if (j->n - j->at < 2) {
        return image_truncated(e, "JPEG ends inside a segment");
    }
    size_t len = be16(j->bytes + j->at);
    if (len < 2) {
        return image_damaged(e, "JPEG has a segment without length");
    }
    if (len > j->n - j->at) {
        return image_truncated(e, "JPEG ends inside a segment");
    }
    s->data = j->bytes + j->at + 2;
    s->len = len - 2;
    j->at += len;
    return 0;
}

static int check_frame_kind(int marker, int bits, struct err *e)
{
    if (marker > M_SOF2) {
        return err_reason(e, ERR_UNSUPPORTED, "unsupported_image",
                          "the JPEG is lossless, arithmetic or hierarchical; send a baseline or "
                          "progressive one");
    }
    if (bits != 8) {
        return err_reason(e, ERR_UNSUPPORTED, "unsupported_image",
                          "the JPEG has %d bits a sample; send one with 8", bits);
    }
    return 0;
}

static int check_components(struct jpeg *j, const struct segment *s, struct err *e)
{
    int n = s->data[5];
    if (n == 0 || s->len != 6 + 3 * (size_t)n) {
        return image_damaged(e, "JPEG frame header has a wrong length");
    }
    if (n != 1 && n != 3) {
        return err_reason(e, ERR_UNSUPPORTED, "unsupported_colorspace",
                          "the JPEG has %d components (CMYK?); send grey or colour (RGB) pictures",
                          n);
    }
    j->n_components = n;
    return 0;
}

/* Sampling factors 1..4, and each a divisor of the largest: decoders assume so. */
static int check_sampling(struct jpeg *j, const struct segment *s, struct err *e)
{
    uint64_t h_max = 1;
    uint64_t v_max = 1;
    for (int i = 0; i < j->n_components; i++) {
        uint64_t h = s->data[7 + 3 * i] >> 4;
        uint64_t v = s->data[7 + 3 * i] & 15;
        if (h < 1 || h > 4 || v < 1 || v > 4 || s->data[8 + 3 * i] > 3) {
            return image_damaged(e, "JPEG has impossible sampling factors");
        }
        h_max = h > h_max ? h : h_max;
        v_max = v > v_max ? v : v_max;
    }
    uint64_t mcus =
        ((j->width + 8 * h_max - 1) / (8 * h_max)) * ((j->height + 8 * v_max - 1) / (8 * v_max));
    for (int i = 0; i < j->n_components; i++) {
        uint64_t h = s->data[7 + 3 * i] >> 4;
        uint64_t v = s->data[7 + 3 * i] & 15;
        if (h_max % h || v_max % v) {
            return image_damaged(e, "JPEG has sampling factors that do not divide each other");
        }
        j->sample_bytes += mcus * h * v * 64;
    }
    j->n_blocks = mcus * h_max * v_max;
    return 0;
}

static int read_frame(struct jpeg *j, const struct segment *s, struct err *e)
{
    if (j->has_frame) {
        return image_damaged(e, "JPEG has a second frame");
    }
    if (s->len < 6) {
        return image_damaged(e, "JPEG frame header has a wrong length");
    }
    if (check_frame_kind(s->marker, s->data[0], e)) {
        return -1;
    }
    j->height = be16(s->data + 1);
    j->width = be16(s->data + 3);
    if (image_check_size(j->limits, j->width, j->height, e) || check_components(j, s, e) ||
        check_sampling(j, s, e)) {
        return -1;
    }
    j->has_frame = true;
    j->progressive = s->marker == M_SOF2;
    return 0;
}

/* At most 256 codes a table, and the lengths must add up to the segment. */
static int check_huffman_tables(const struct segment *s, struct err *e)
{
    size_t at = 0;
    while (at < s->len) {
        if (s->len - at < 17 || s->data[at] >> 4 > 1 || (s->data[at] & 15) > 3) {
            return image_damaged(e, "JPEG has a malformed Huffman table");
        }
        size_t n_codes = 0;
        for (int i = 1; i <= 16; i++) {
            n_codes += s->data[at + (size_t)i];
        }
        if (n_codes > 256 || n_codes > s->len - at - 17) {
            return image_damaged(e, "JPEG has a malformed Huffman table");
        }
        at += 17 + n_codes;
    }
    return 0;
}

static int check_quantisation_tables(const struct segment *s, struct err *e)
{
    size_t at = 0;
    while (at < s->len) {
        size_t need = s->data[at] >> 4 ? 129 : 65;
        if (s->data[at] >> 4 > 1 || (s->data[at] & 15) > 3 || s->len - at < need) {
            return image_damaged(e, "JPEG has a malformed quantisation table");
        }
        at += need;
    }
    return 0;
}

static void read_app1(struct jpeg *j, const struct segment *s)
{
    if (!j->has_exif && s->len >= 6 && memcmp(s->data, "Exif\0\0", 6) == 0) {
        j->has_exif = true;
        j->orientation = image_exif_orientation(s->data + 6, s->len - 6);
    }
}

static int check_scan_header(struct jpeg *j, const struct segment *s, struct err *e)
{
    if (!j->has_frame) {
        return image_damaged(e, "JPEG has a scan before its frame");
    }
    if (++j->n_scans > MAX_SCANS) {
        return err_reason(e, ERR_FORMAT, "image_bomb", "the JPEG has more than %d scans",
                          MAX_SCANS);
    }
    if (s->len < 1 || s->data[0] < 1 || s->data[0] > j->n_components ||
        s->len != 4 + 2 * (size_t)s->data[0]) {
        return image_damaged(e, "JPEG has a malformed scan header");
    }
    return 0;
}

/* Over entropy-coded data to the marker that ends it; `at` stops on its 0xff. */
static int skip_scan_data(struct jpeg *j, struct err *e)
{
    uint64_t n_restarts = 0;
    while (j->at < j->n) {
        const uint8_t *ff = memchr(j->bytes + j->at, 0xff, j->n - j->at);
        if (!ff) {
            break;
        }
        j->at = (size_t)(ff - j->bytes);
        if (j->n - j->at < 2) {
            break;
        }
        int code = ff[1];
        if (code == 0xff) {
            j->at++;
        } else if (code == 0 || (code >= M_RST0 && code <= M_RST7)) {
            j->at += 2;
            n_restarts += code != 0;
        } else {
            return 0;
        }
        if (n_restarts > j->n_blocks) {
            return err_reason(e, ERR_FORMAT, "image_bomb",
                              "the JPEG has more restart markers than blocks");
        }
    }
    return image_truncated(e, "JPEG ends without EOI");
}

static bool is_frame(int marker)
{
    return marker >= M_SOF0 && marker <= M_SOF15 && marker != M_DHT && marker != M_JPG &&
           marker != M_DAC;
}

static int read_segment(struct jpeg *j, const struct segment *s, struct err *e)
{
    if (is_frame(s->marker)) {
        return read_frame(j, s, e);
    }
    switch (s->marker) {
    case M_DHT:
        return check_huffman_tables(s, e);
    case M_DQT:
        return check_quantisation_tables(s, e);
    case M_SOS:
        return check_scan_header(j, s, e) || skip_scan_data(j, e) ? -1 : 0;
    case M_APP1:
        read_app1(j, s);
        return 0;
    case M_DNL:
    case M_DHP:
    case M_EXP:
    case M_DAC:
        return err_reason(e, ERR_UNSUPPORTED, "unsupported_image",
                          "the JPEG uses a rare feature (marker 0x%02x); send a baseline one",
                          (unsigned)s->marker);
    default:
        if (s->marker == M_DRI || s->marker == M_COM ||
            (s->marker >= M_APP0 && s->marker <= M_APP15)) {
            return 0;
        }
        return image_damaged(e, "JPEG has a marker that JPEG lacks");
    }
}

/* Sample planes; a progressive file keeps its 16-bit coefficients beside them; the
 * finished picture and a line of each component. */
static uint64_t decode_bytes(const struct jpeg *j)
{
    uint64_t picture = (uint64_t)j->width * j->height * (uint64_t)j->n_components;
    return picture + j->sample_bytes * (j->progressive ? 3 : 1);
}

int image_scan_jpeg(const uint8_t *bytes, size_t n, const struct image_limits *limits,
                    struct image_facts *out, struct err *e)
{
    struct jpeg j = {.bytes = bytes, .n = n, .at = 2, .limits = limits, .orientation = 1};
    if (n < 4) {
        return image_truncated(e, "JPEG ends inside its first marker");
    }
    struct segment s = {0};
    while (!next_marker(&j, &s.marker, e)) {
        if (s.marker == M_EOI) {
            if (j.n_scans == 0) {
                return image_truncated(e, "JPEG has no picture data");
            }
            out->width = (int)j.width;
            out->height = (int)j.height;
            out->orientation = j.orientation;
            out->decode_bytes = decode_bytes(&j);
            return 0;
        }
        if (next_segment(&j, &s, e) || read_segment(&j, &s, e)) {
            return -1;
        }
    }
    return -1;
}
