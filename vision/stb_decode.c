/* The only file that includes stb_image. Its memory comes from an allocator that counts
 * against the budget of one picture, zeroes what it hands out (nothing of an earlier
 * picture can show), and remembers every block, since stb leaks on some error paths. */
#include "vision/stb_decode.h"

#include "base/alloc.h"
#include "base/checked.h"

#include <limits.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

struct block {
    struct block *prev, *next;
    size_t size;
    size_t pad; /* keeps the payload 16-byte aligned */
};

static struct {
    struct block *first;
    uint64_t used, peak, max;
    bool refused;
} budget;

static void link_block(struct block *b, size_t size)
{
    b->size = size;
    b->prev = NULL;
    b->next = budget.first;
    if (b->next) {
        b->next->prev = b;
    }
    budget.first = b;
    budget.used += size;
    budget.peak = budget.used > budget.peak ? budget.used : budget.peak;
}

static void unlink_block(struct block *b)
{
    if (b->prev) {
        b->prev->next = b->next;
    } else {
        budget.first = b->next;
    }
    if (b->next) {
        b->next->prev = b->prev;
    }
    budget.used -= b->size;
}

static bool budget_allows(size_t more)
{
    if (more > budget.max - budget.used) {
        budget.refused = true;
        return false;
    }
    return true;
}

static void *budget_alloc(size_t size)
{
    size_t total;
    if (!budget_allows(size) || !ck_add(size, sizeof(struct block), &total)) {
        return NULL;
    }
    struct block *b = mem_zalloc(1, total);
    if (!b) {
        return NULL;
    }
    link_block(b, size);
    return b + 1;
}

static void budget_free(void *p)
{
    if (p) {
        struct block *b = (struct block *)p - 1;
        unlink_block(b);
        mem_free(b);
    }
}

static void *budget_realloc(void *p, size_t size)
{
    if (!p) {
        return budget_alloc(size);
    }
    struct block *b = (struct block *)p - 1;
    size_t old = b->size;
    size_t total;
    if ((size > old && !budget_allows(size - old)) || !ck_add(size, sizeof(struct block), &total)) {
        return NULL;
    }
    unlink_block(b);
    struct block *moved = mem_realloc(b, 1, total);
    if (!moved) {
        link_block(b, old);
        return NULL;
    }
    link_block(moved, size);
    if (size > old) {
        memset((char *)(moved + 1) + old, 0, size - old);
    }
    return moved + 1;
}

/* An assertion of stb is a picture it cannot handle: this helper ends, a new one comes. */
static _Noreturn void assertion_failed(void)
{
    _exit(3);
}

#define STB_IMAGE_IMPLEMENTATION
#define STBI_ONLY_JPEG
#define STBI_ONLY_PNG
#define STBI_NO_STDIO
#define STBI_NO_HDR
#define STBI_NO_LINEAR
#define STBI_NO_FAILURE_STRINGS
#define STBI_MAX_DIMENSIONS    16384
#define STBI_MALLOC(size)      budget_alloc(size)
#define STBI_REALLOC(p, size)  budget_realloc(p, size)
#define STBI_FREE(p)           budget_free(p)
#define STBI_ASSERT(condition) ((condition) ? (void)0 : assertion_failed())
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wall"
#pragma GCC diagnostic ignored "-Wextra"
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wunused-but-set-variable"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wcast-qual"
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#include <stb/stb_image.h>
#pragma GCC diagnostic pop

/* stb keeps a palette on its stack and does not clear it; a picture that points beyond
 * its own palette must not see the colours of the one before. */
static __attribute__((noinline)) void clear_stack(void)
{
    char below[32768];
    explicit_bzero(below, sizeof below);
}

/* Bit depth of a PNG: 16-bit ones are narrowed by us, after compositing. */
static bool is_wide(const uint8_t *bytes, size_t n)
{
    return n > 24 && memcmp(bytes, "\x89PNG", 4) == 0 && bytes[24] == 16;
}

enum decode_status stb_decode(const uint8_t *bytes, size_t n, uint64_t budget_bytes,
                              struct decoded *out)
{
    budget.used = 0;
    budget.peak = 0;
    budget.max = budget_bytes;
    budget.refused = false;
    if (n > INT_MAX) {
        return DECODE_DAMAGED;
    }
    clear_stack();
    if (is_wide(bytes, n)) {
        out->pixels16 =
            stbi_load_16_from_memory(bytes, (int)n, &out->width, &out->height, &out->channels, 0);
    } else {
        out->pixels8 =
            stbi_load_from_memory(bytes, (int)n, &out->width, &out->height, &out->channels, 0);
    }
    out->peak_bytes = budget.peak;
    if (!out->pixels8 && !out->pixels16) {
        return budget.refused ? DECODE_OVER_BUDGET : DECODE_DAMAGED;
    }
    return out->channels >= 1 && out->channels <= 4 ? DECODE_OK : DECODE_DAMAGED;
}

void stb_decode_free(void)
{
    while (budget.first) {
        budget_free(budget.first + 1);
    }
}

/* value and alpha in [0, top] -> 8 bits */
static inline uint8_t on_white(uint64_t value, uint64_t alpha, uint64_t top)
{
    uint64_t whole = top * top;
    return (uint8_t)(((value * alpha + top * (top - alpha)) * 255 + whole / 2) / whole);
}

static void row8(const struct decoded *d, size_t at, uint8_t *rgb)
{
    size_t channels = (size_t)d->channels;
    size_t step = channels >= 3;
    bool has_alpha = channels == 2 || channels == 4;
    for (int x = 0; x < d->width; x++, at += channels, rgb += 3) {
        const uint8_t *px = d->pixels8 + at;
        uint32_t alpha = has_alpha ? px[channels - 1] : 255;
        rgb[0] = on_white(px[0], alpha, 255);
        rgb[1] = on_white(px[step], alpha, 255);
        rgb[2] = on_white(px[2 * step], alpha, 255);
    }
}

static void row16(const struct decoded *d, size_t at, uint8_t *rgb)
{
    size_t channels = (size_t)d->channels;
    size_t step = channels >= 3;
    bool has_alpha = channels == 2 || channels == 4;
    for (int x = 0; x < d->width; x++, at += channels, rgb += 3) {
        const uint16_t *px = d->pixels16 + at;
        uint32_t alpha = has_alpha ? px[channels - 1] : 65535;
        rgb[0] = on_white(px[0], alpha, 65535);
        rgb[1] = on_white(px[step], alpha, 65535);
        rgb[2] = on_white(px[2 * step], alpha, 65535);
    }
}

void decoded_row(const struct decoded *d, int y, uint8_t *rgb)
{
    size_t at = (size_t)y * (size_t)d->width * (size_t)d->channels;
    if (d->pixels16) {
        row16(d, at, rgb);
    } else if (d->channels == 3) {
        memcpy(rgb, d->pixels8 + at, (size_t)d->width * 3);
    } else {
        row8(d, at, rgb);
    }
}
