/* Areas of a picture: print is found, what only looks busy is not; boxes; equal cells. */
#include "base/rng.h"
#include "compress/picture_areas.h"
#include "tests/test.h"

#include <math.h>
#include <string.h>

#define SIZE 224
#define SIDE 16
#define CELL (SIZE / SIDE)

static uint8_t rgb[SIZE * SIZE * 3];
static uint8_t mask[SIDE * SIDE];

static void paint(int x, int y, int value)
{
    memset(rgb + (y * SIZE + x) * 3, value, 3);
}

static int found_in(int (*value)(int x, int y, struct rng *g))
{
    struct rng g;
    rng_init(&g, test_seed());
    for (int y = 0; y < SIZE; y++) {
        for (int x = 0; x < SIZE; x++) {
            paint(x, y, value(x, y, &g));
        }
    }
    memset(mask, 0, sizeof mask);
    int n = areas_mark_print(rgb, SIZE, SIDE, mask);
    int marked = 0;
    for (int i = 0; i < SIDE * SIDE; i++) {
        marked += mask[i];
    }
    CHECK_INT(n, ==, marked);
    return n;
}

/* Letters of a made-up script, 5 x 7 dots, a pixel each way between them, in lines. */
static int print_at(int x, int y, struct rng *g)
{
    static const uint8_t letters[6][7] = {
        {0x0e, 0x11, 0x11, 0x1f, 0x11, 0x11, 0x11}, {0x1e, 0x11, 0x1e, 0x11, 0x11, 0x11, 0x1e},
        {0x1f, 0x10, 0x1e, 0x10, 0x10, 0x10, 0x1f}, {0x11, 0x19, 0x15, 0x13, 0x11, 0x11, 0x11},
        {0x0e, 0x11, 0x10, 0x0e, 0x01, 0x11, 0x0e}, {0x11, 0x12, 0x14, 0x18, 0x14, 0x12, 0x11}};
    (void)g;
    bool dot = x % 6 < 5 && y % 9 < 7 && letters[(x / 6 * 5 + y / 9 * 3) % 6][y % 9] >> x % 6 & 1;
    return y >= 56 && y < 98 && dot ? 30 : 230;
}

static int ramp(int x, int y, struct rng *g)
{
    (void)g;
    return (x + y) / 2;
}

static int noise(int x, int y, struct rng *g)
{
    (void)x;
    (void)y;
    double sum = 0;
    for (int i = 0; i < 4; i++) {
        sum += rng_double(g);
    }
    return (int)(sum * 63);
}

static int stripes(int x, int y, struct rng *g)
{
    (void)x;
    (void)g;
    return y / 3 % 2 ? 220 : 30;
}

static int edge(int x, int y, struct rng *g)
{
    (void)y;
    (void)g;
    return x > 100 ? 220 : 20;
}

static int flat(int x, int y, struct rng *g)
{
    (void)x;
    (void)y;
    (void)g;
    return 255;
}

TEST(areas_print, "lines of letters are found where they are, stripes and noise are not")
{
    CHECK_INT(found_in(print_at), >=, 2 * SIDE); /* of three lines of cells */
    for (int i = 0; i < SIDE * SIDE; i++) {
        CHECK(!mask[i] || (i / SIDE >= 4 && i / SIDE < 7));
    }
    CHECK_INT(found_in(flat), ==, 0);
    CHECK_INT(found_in(ramp), ==, 0);
    CHECK_INT(found_in(edge), ==, 0);
    CHECK_INT(found_in(stripes), ==, 0);
    CHECK_INT(found_in(noise), <=, SIDE * SIDE / 20);
}

TEST(areas_boxes, "every cell that a box touches, and no other")
{
    memset(mask, 0, sizeof mask);
    areas_mark_box(0.25f, 0.5f, 0.3125f, 0.75f, SIDE, mask);
    areas_mark_box(0.99f, 0.0f, 1.0f, 0.01f, SIDE, mask);
    for (int i = 0; i < SIDE * SIDE; i++) {
        int x = i % SIDE;
        int y = i / SIDE;
        CHECK_INT(mask[i], ==, (x == 4 && y >= 8 && y < 12) || (x == 15 && y == 0));
    }
}

TEST(areas_digests, "cells are equal when all their bytes are")
{
    uint64_t digest[SIDE * SIDE];
    found_in(flat);
    paint(3 * CELL + 13, 13, 254);
    areas_digest(rgb, SIZE, SIDE, digest);
    for (int i = 0; i < SIDE * SIDE; i++) {
        CHECK_INT(digest[i] == digest[0], ==, i != 3);
    }
}
