/* Decoding through the helper: pixels against independent ones, budgets, a helper that
 * is killed, hangs or dies. */
#include "base/alloc.h"
#include "base/buf.h"
#include "base/rng.h"
#include "tests/test.h"
#include "vision/decode_worker.h"
#include "vision/vision_impl.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static uint8_t *data_file(const char *name, const char *suffix, size_t *n)
{
    struct buf path;
    buf_init(&path, 4096);
    buf_printf(&path, "tests/data/images/%s%s", name, suffix);
    uint8_t *bytes = (uint8_t *)test_read_file(buf_str(&path), n);
    buf_free(&path);
    return bytes;
}

static void decode_file(const char *name, const char *suffix, struct image *im)
{
    size_t n;
    uint8_t *bytes = data_file(name, suffix, &n);
    struct err e = ERR_INIT;
    if (image_decode(bytes, n, &image_limits_default, im, &e)) {
        FAIL("%s: %s", name, e.msg);
    }
    mem_free(bytes);
}

/* Largest difference to NAME.ppm; the size must be the same. */
static int difference(const char *name, const struct image *im)
{
    size_t n;
    uint8_t *ppm = data_file(name, ".ppm", &n);
    int w;
    int h;
    CHECK_INT(sscanf((const char *)ppm, "P6 %d %d 255", &w, &h), ==, 2);
    CHECK_INT(im->width, ==, w);
    CHECK_INT(im->height, ==, h);
    size_t body = (size_t)w * (size_t)h * 3;
    CHECK_INT(n, >, body);
    int worst = 0;
    for (size_t i = 0; i < body; i++) {
        int d = abs(im->rgb[i] - ppm[n - body + i]);
        worst = d > worst ? d : worst;
    }
    mem_free(ppm);
    return worst;
}

static void compare(const char *name, const char *suffix, int tolerance)
{
    struct image im;
    decode_file(name, suffix, &im);
    int d = difference(name, &im);
    if (d > tolerance) {
        FAIL("%s%s differs by %d, more than %d", name, suffix, d, tolerance);
    }
    image_free(&im);
}

TEST(image_png_kinds, "every kind of PNG gives the expected pixels")
{
    static const char *const names[] = {"grey1",
                                        "grey2",
                                        "grey4",
                                        "grey8",
                                        "grey16",
                                        "palette1",
                                        "palette2",
                                        "palette4",
                                        "palette8",
                                        "rgb8",
                                        "rgb16",
                                        "rgba8",
                                        "rgba16",
                                        "grey_alpha8",
                                        "grey_alpha16",
                                        "palette8_trns",
                                        "grey4_trns",
                                        "rgb8_trns",
                                        "animated",
                                        "rgb8_interlaced",
                                        "rgba16_interlaced",
                                        "palette4_interlaced"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        /* 1: 16 bits and alpha may be rounded at two places */
        compare(names[i], ".png", 1);
    }
}

TEST(image_jpeg_kinds, "every kind of JPEG is as libjpeg decodes it")
{
    /* Two correct inverse cosine transforms in integers differ by 1 a sample, and the
     * colour conversion multiplies that by up to 1.772; subsampled chroma is
     * interpolated with other roundings. */
    compare("baseline444", ".jpg", 4);
    compare("progressive", ".jpg", 4);
    compare("restart", ".jpg", 4);
    compare("grey", ".jpg", 2);
    compare("adobe_rgb", ".jpg", 2);
    compare("baseline420", ".jpg", 8);
    compare("baseline422", ".jpg", 8);
}

TEST(image_orientations, "EXIF orientations 1 to 8 are applied")
{
    char name[] = "orientation0";
    for (int i = 1; i <= 8; i++) {
        name[sizeof name - 2] = (char)('0' + i);
        compare(name, ".jpg", 4); /* as image_jpeg_kinds; a wrong turn differs by over 100 */
    }
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

static void start_png(struct buf *b, uint32_t w, uint32_t h, int colour)
{
    buf_init(b, (size_t)64 << 20);
    buf_append(b, "\x89PNG\r\n\x1a\n", 8);
    uint8_t ihdr[13] = {
        (uint8_t)(w >> 24), (uint8_t)(w >> 16), (uint8_t)(w >> 8), (uint8_t)w, (uint8_t)(h >> 24),
        (uint8_t)(h >> 16), (uint8_t)(h >> 8),  (uint8_t)h,        8,          (uint8_t)colour};
    put_chunk(b, "IHDR", ihdr, 13);
}

/* Deflate with one fixed-Huffman block: a zero byte, then n_matches copies of 258 zeros,
 * each a code of 8 bits (symbol 285) and a distance code of 5 bits (0). */
static void put_zeros_deflated(struct buf *b, int n_matches)
{
    struct buf d;
    buf_init(&d, (size_t)32 << 20);
    buf_append(&d, "\x78\x01", 2);
    uint64_t acc = 3; /* last block, fixed codes */
    int used = 3;
    acc |= (uint64_t)0x0c << used; /* literal 0 is 00110000, most significant bit first */
    used += 8;
    for (int i = 0; i < n_matches; i++) {
        acc |= (uint64_t)0xa3 << used; /* 285 is 11000101 */
        used += 8 + 5;
        while (used >= 8) {
            buf_putc(&d, (char)acc);
            acc >>= 8;
            used -= 8;
        }
    }
    used += 7; /* end of block */
    while (used > 0) {
        buf_putc(&d, (char)acc);
        acc >>= 8;
        used -= 8;
    }
    put32(&d, 0); /* the decoder does not check the sum */
    put_chunk(b, "IDAT", d.data, d.len);
    buf_free(&d);
}

static int decode_bomb(uint32_t w, uint32_t h, int n_matches, uint64_t *peak, struct err *e)
{
    struct buf b;
    start_png(&b, w, h, 0);
    put_zeros_deflated(&b, n_matches);
    put_chunk(&b, "IEND", "", 0);
    struct image_facts facts = {IMAGE_PNG, (int)w, (int)h, 1, 0};
    uint64_t budget = 4 * (uint64_t)w * h + image_limits_default.memory_bytes;
    struct image im = {0};
    int result =
        image_decode_unscanned((const uint8_t *)b.data, b.len, &facts, budget, &im, peak, e);
    image_free(&im);
    buf_free(&b);
    return result;
}

TEST(image_bomb_budget, "a bomb that the scan was not asked about ends at the budget")
{
    uint64_t peak = 0;
    struct err e = ERR_INIT;
    /* 1 + 79 * 258 bytes: more than 100 rows of 1 + 100, which is allowed */
    CHECK_OK(decode_bomb(100, 100, 79, &peak, &e), e);
    CHECK_INT(peak, <, 100000);
    CHECK_INT(decode_bomb(100, 100, 2000000, &peak, &e), ==, -1); /* 516 MB */
    CHECK_STR(e.reason, "image_bomb");
    CHECK_INT(peak, <=, 4 * 100 * 100 + ((uint64_t)64 << 20));
    CHECK_INT(peak, >, 1 << 20);
    CHECK_INT(image_worker_restarts(), ==, 0);
    compare("rgb8", ".png", 1);
}

TEST(image_budget_respected, "decoding holds no more than the scan says")
{
    static const char *const names[] = {
        "rgb8.png",          "rgba16.png",      "rgba16_interlaced.png", "grey1.png",
        "palette8_trns.png", "baseline420.jpg", "progressive.jpg"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        size_t n;
        uint8_t *bytes = data_file(names[i], "", &n);
        struct image_facts facts;
        struct image im;
        struct err e = ERR_INIT;
        uint64_t peak = 0;
        CHECK_OK(image_scan_facts(bytes, n, &image_limits_default, &facts, &e), e);
        CHECK_OK(image_decode_measured(bytes, n, &image_limits_default, &im, &peak, &e), e);
        CHECK_INT(peak, >, 0);
        /* the decoder's own state is 18 KB, its smallest buffers 16 KB */
        if (peak > facts.decode_bytes + 40000) {
            FAIL("%s: decoder held %llu bytes, the scan said %llu", names[i],
                 (unsigned long long)peak, (unsigned long long)facts.decode_bytes);
        }
        image_free(&im);
        mem_free(bytes);
    }
}

TEST(image_damaged_data, "damaged data inside a whole PNG is an error, not a crash")
{
    struct buf b;
    start_png(&b, 9, 9, 2);
    put_chunk(&b, "IDAT", "this is no deflate stream at all", 32);
    put_chunk(&b, "IEND", "", 0);
    struct image im;
    struct err e = ERR_INIT;
    CHECK_INT(image_decode((const uint8_t *)b.data, b.len, &image_limits_default, &im, &e), ==, -1);
    CHECK_STR(e.reason, "image_decode_failed");
    buf_free(&b);
    compare("rgb8", ".png", 1);
}

TEST(image_palette_overrun, "a pixel beyond the palette is black, whatever came before")
{
    static const uint8_t stored[] = {0x78, 1, 1, 6, 0, 0xf9, 0xff, 0, 200, 1, 0, 1, 7, 0, 0, 0, 0};
    compare("palette8", ".png", 1); /* leaves its colours behind */
    struct buf b;
    start_png(&b, 2, 2, 3);
    put_chunk(&b, "PLTE", "\x10\x20\x30", 3);
    put_chunk(&b, "IDAT", stored, sizeof stored);
    put_chunk(&b, "IEND", "", 0);
    struct image im;
    struct err e = ERR_INIT;
    CHECK_OK(image_decode((const uint8_t *)b.data, b.len, &image_limits_default, &im, &e), e);
    CHECK_INT(memcmp(im.rgb, "\0\0\0\0\0\0\0\0\0\0\0\0", 12), ==, 0);
    image_free(&im);
    buf_free(&b);
}

TEST(image_helper_killed, "after a helper was killed the next picture decodes")
{
    struct err e = ERR_INIT;
    CHECK_OK(image_worker_start(&e), e);
    for (uint64_t i = 0; i < 3; i++) {
        pid_t pid = decode_worker_pid(0);
        CHECK_INT(pid, >, 0);
        CHECK_INT(kill(pid, SIGKILL), ==, 0);
        compare("rgb8", ".png", 1);
        CHECK(decode_worker_pid(0) != pid);
        CHECK_INT(image_worker_restarts(), ==, i + 1);
    }
    pid_t last = decode_worker_pid(0);
    image_worker_stop();
    CHECK_INT(decode_worker_pid(0), ==, 0);
    CHECK(kill(last, 0) && errno == ESRCH);
    compare("rgb8", ".png", 1);
}

TEST(image_helper_confined, "the helper runs under a system call filter and gains no privileges")
{
    if (UNDER_SANITIZER) {
        SKIP("sanitizers need more system calls than the filter allows");
    }
    struct err e = ERR_INIT;
    CHECK_OK(image_worker_start(&e), e);
    struct buf path;
    buf_init(&path, 100);
    buf_printf(&path, "/proc/%d/status", (int)decode_worker_pid(0));
    size_t n;
    char *status = test_read_file(buf_str(&path), &n);
    if (!strstr(status, "Seccomp:")) {
        SKIP("this kernel has no seccomp");
    }
    CHECK(strstr(status, "Seccomp:\t2"));
    CHECK(strstr(status, "NoNewPrivs:\t1"));
    mem_free(status);
    buf_free(&path);
}

TEST(image_helper_hangs, "a helper that does not answer is ended and replaced")
{
    struct err e = ERR_INIT;
    CHECK_OK(image_worker_start(&e), e);
    decode_worker_set_deadline_ms(200);
    CHECK_INT(kill(decode_worker_pid(0), SIGSTOP), ==, 0);
    size_t n;
    uint8_t *bytes = data_file("rgb8", ".png", &n);
    struct image im;
    CHECK_INT(image_decode(bytes, n, &image_limits_default, &im, &e), ==, -1);
    CHECK_STR(e.reason, "image_decode_failed");
    CHECK_INT(image_worker_restarts(), ==, 1);
    decode_worker_set_deadline_ms(0);
    mem_free(bytes);
    compare("rgb8", ".png", 1);
}

/* A picture may lose its helper as often as somebody kills one; then it says so. */
static void decode_until_it_works(const char *name)
{
    size_t n;
    uint8_t *bytes = data_file(name, ".png", &n);
    struct image im;
    struct err e = ERR_INIT;
    for (int tries = 0; image_decode(bytes, n, &image_limits_default, &im, &e); tries++) {
        CHECK(strcmp(e.reason, "image_decode_failed") == 0 ||
              strcmp(e.reason, "image_worker_unavailable") == 0);
        CHECK_INT(tries, <, 20);
    }
    CHECK_INT(difference(name, &im), <=, 1);
    image_free(&im);
    mem_free(bytes);
}

static void *decode_many(void *unused)
{
    (void)unused;
    for (int i = 0; i < 20; i++) {
        decode_until_it_works(i % 2 ? "rgb8" : "palette8");
        if (i % 7 == 3) {
            pid_t pid = decode_worker_pid(i % 2);
            if (pid > 0) {
                kill(pid, SIGKILL);
            }
        }
    }
    return NULL;
}

TEST(image_many_threads, "four threads decode while helpers are being killed")
{
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        CHECK_INT(pthread_create(&threads[i], NULL, decode_many, NULL), ==, 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    image_worker_stop();
}

TEST(image_fuzz, "randomly damaged pictures decode or fail, and the next one decodes")
{
    static const char *const names[] = {"baseline420.jpg", "progressive.jpg", "restart.jpg"};
    struct rng rng;
    rng_init(&rng, test_seed());
    int decoded = 0;
    for (int i = 0; i < 600; i++) {
        size_t n;
        uint8_t *bytes = data_file(names[i % 3], "", &n);
        for (int k = 0; k < 1 + i % 4; k++) {
            bytes[2 + rng_below(&rng, n - 4)] = (uint8_t)rng_u64(&rng);
        }
        struct image im;
        struct err e = ERR_INIT;
        if (image_decode(bytes, n, &image_limits_default, &im, &e) == 0) {
            decoded++;
            image_free(&im);
        } else {
            CHECK(e.reason && e.msg[0]);
        }
        mem_free(bytes);
    }
    CHECK_INT(decoded, >, 0);
    CHECK_INT(decoded, <, 600);
    compare("rgb8", ".png", 1);
}

TEST(image_no_memory, "an allocation that fails is an error, and nothing leaks")
{
    size_t n;
    uint8_t *bytes = data_file("rgb8", ".png", &n);
    for (long at = 1; at <= 2; at++) {
        struct image im;
        struct err e = ERR_INIT;
        alloc_fail_at(at);
        CHECK_INT(image_decode(bytes, n, &image_limits_default, &im, &e), ==, -1);
        CHECK_INT(e.code, ==, ERR_NO_MEMORY);
    }
    alloc_fail_at(0);
    mem_free(bytes);
}
