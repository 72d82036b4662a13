/* The only file that includes stb_image_write. */
#include "vision/overlay.h"

#include "base/alloc.h"

#include <stdbool.h>

#define STBI_WRITE_NO_STDIO
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STBIW_MALLOC(size)      mem_alloc(size, 1)
#define STBIW_REALLOC(p, size)  mem_realloc(p, size, 1)
#define STBIW_FREE(p)           mem_free(p)
#define STBIW_ASSERT(condition) ((void)0)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wall"
#pragma GCC diagnostic ignored "-Wextra"
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wcast-qual"
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#include <stb/stb_image_write.h>
#pragma GCC diagnostic pop

struct canvas {
    uint8_t *rgb;
    int size, cell;
    const struct overlay_cells *cells;
};

static void blend(struct canvas *c, int x, int y, const int colour[3], int percent)
{
    uint8_t *p = c->rgb + ((size_t)y * (size_t)c->size + (size_t)x) * 3;
    for (int i = 0; i < 3; i++) {
        p[i] = (uint8_t)((p[i] * (100 - percent) + colour[i] * percent) / 100);
    }
}

/* Bright colours far from each other for rows that follow each other: steps of the golden
 * angle around the hue circle. */
static void colour_of(int row, int colour[3])
{
    int hue = (int)((unsigned)row * 989u % 1536u);
    int ramp = hue % 256;
    int up = ramp;
    int down = 255 - ramp;
    const int table[6][3] = {{255, up, 0},   {down, 255, 0}, {0, 255, up},
                             {0, down, 255}, {up, 0, 255},   {255, 0, down}};
    for (int i = 0; i < 3; i++) {
        colour[i] = table[hue / 256][i];
    }
}

static int owner_at(const struct canvas *c, int x, int y)
{
    int side = c->cells->side;
    return x < 0 || y < 0 || x >= side || y >= side ? -2 : c->cells->owner[y * side + x];
}

/* Whether pixel (x, y) lies on the edge of its cell towards another row. */
static bool on_border(const struct canvas *c, int x, int y)
{
    int own = owner_at(c, x / c->cell, y / c->cell);
    return (x % c->cell == 0 && owner_at(c, x / c->cell - 1, y / c->cell) != own) ||
           (y % c->cell == 0 && owner_at(c, x / c->cell, y / c->cell - 1) != own);
}

static bool on_frame(const struct canvas *c, int x, int y)
{
    int left = x % c->cell;
    int top = y % c->cell;
    return left < 2 || top < 2 || left >= c->cell - 2 || top >= c->cell - 2;
}

static void draw_pixel(struct canvas *c, int x, int y, const int *sizes)
{
    static const int white[3] = {255, 255, 255};
    static const int black[3] = {0, 0, 0};
    static const int green[3] = {0, 220, 60};
    int cell = y / c->cell * c->cells->side + x / c->cell;
    int owner = c->cells->owner[cell];
    if (owner < 0) {
        blend(c, x, y, black, (x + y) % 6 == 0 ? 100 : 75);
        return;
    }
    if (sizes[owner] > 1) {
        int colour[3];
        colour_of(owner, colour);
        blend(c, x, y, colour, 40);
    }
    if (c->cells->fixed && c->cells->fixed[cell] && on_frame(c, x, y)) {
        blend(c, x, y, green, 90);
    } else if (on_border(c, x, y)) {
        blend(c, x, y, white, 70);
    }
}

static void append(void *out, void *data, int n)
{
    buf_append(out, data, (size_t)n);
}

int overlay_draw(uint8_t *rgb, int size, const struct overlay_cells *cells, struct buf *out,
                 struct err *e)
{
    int n = cells->side * cells->side;
    struct canvas c = {.rgb = rgb, .size = size, .cell = size / cells->side, .cells = cells};
    int *sizes = mem_zalloc((size_t)n, sizeof *sizes);
    if (!sizes) {
        return err_no_memory(e, (size_t)n * sizeof *sizes);
    }
    for (int i = 0; i < n; i++) {
        if (cells->owner[i] >= 0) {
            sizes[cells->owner[i]]++;
        }
    }
    for (int y = 0; y < c.cell * cells->side; y++) {
        for (int x = 0; x < c.cell * cells->side; x++) {
            draw_pixel(&c, x, y, sizes);
        }
    }
    mem_free(sizes);
    if (!stbi_write_png_to_func(append, out, size, size, 3, rgb, size * 3) || buf_failed(out)) {
        return err_no_memory(e, (unsigned long long)size * (unsigned long long)size * 3);
    }
    return 0;
}
