/* The test harness: a test is a row with a name, a line of description and a function,
 * found by the linker; each runs in its own process. tests/run --list shows them.
 *
 *   TEST(gguf_rejects_bad_magic, "a file that does not begin with GGUF is refused")
 *   { CHECK(...); CHECK_INT(a, ==, b); }
 */
#ifndef TAMP_TESTS_TEST_H
#define TAMP_TESTS_TEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct test_case {
    const char *name;
    const char *description;
    const char *file;
    void (*fn)(void);
    int slow; /* left out of `make check` */
};

#define TEST_ROW(test_name, text, is_slow)                                                         \
    static void test_name(void);                                                                   \
    static const struct test_case row_##test_name                                                  \
        __attribute__((used, section("tamp_tests"), aligned(8))) = {#test_name, (text), __FILE__,  \
                                                                    test_name, (is_slow)};         \
    static void test_name(void)
#define TEST(test_name, text)      TEST_ROW(test_name, text, 0)
#define SLOW_TEST(test_name, text) TEST_ROW(test_name, text, 1)

/* End this test as failed / skipped with a printf message. */
void test_fail(const char *file, int line, const char *fmt, ...)
    __attribute__((noreturn, format(printf, 3, 4)));
void test_skip(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));

#define FAIL(...) test_fail(__FILE__, __LINE__, __VA_ARGS__)
#define SKIP(...) test_skip(__VA_ARGS__)
#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            FAIL("%s is false", #cond);                                                            \
        }                                                                                          \
    } while (0)
#define CHECK_INT(a, op, b)                                                                        \
    do {                                                                                           \
        long long a_ = (long long)(a);                                                             \
        long long b_ = (long long)(b);                                                             \
        if (!(a_ op b_)) {                                                                         \
            FAIL("%s %s %s is false: %lld against %lld", #a, #op, #b, a_, b_);                     \
        }                                                                                          \
    } while (0)
#define CHECK_DOUBLE(a, op, b)                                                                     \
    do {                                                                                           \
        double a_ = (double)(a);                                                                   \
        double b_ = (double)(b);                                                                   \
        if (!(a_ op b_)) {                                                                         \
            FAIL("%s %s %s is false: %.9g against %.9g", #a, #op, #b, a_, b_);                     \
        }                                                                                          \
    } while (0)
/* `call` must return 0; prints the message of struct err `e` otherwise. */
#define CHECK_OK(call, e)                                                                          \
    do {                                                                                           \
        if (call) {                                                                                \
            FAIL("%s failed: %s", #call, (e).msg);                                                 \
        }                                                                                          \
    } while (0)
#define CHECK_STR(a, b) test_check_str(__FILE__, __LINE__, #a, (a), (b))
void test_check_str(const char *file, int line, const char *what, const char *got,
                    const char *want);

/* n readable bytes that end exactly at a page nobody may touch: one byte too far is a
 * crash of this test. Copies src when it is not NULL. Freed with the process. */
void *test_guarded(const void *src, size_t n);

/* Whether n numbers have the same bits: unlike ==, it tells -0 from 0 and a NaN equals itself. */
bool test_same_bits(const float *a, const float *b, size_t n);
/* Largest |a - b|; normalised mean squared error sum (a-b)^2 / sum b^2; cosine. */
double test_max_diff(const float *a, const float *b, size_t n);
double test_nmse(const float *a, const float *b, size_t n);
double test_cosine(const float *a, const float *b, size_t n);

/* "tests/golden/<name>" as an open file, or the test fails. */
char *test_golden_path(const char *name); /* mem_free */
/* "../shared/<name>" beside the checkout (or $TAMP_SHARED/<name>); skips when absent. */
char *test_shared_path(const char *name); /* mem_free */
/* The downloaded models; skips with "run make models" when absent. */
const char *test_model_path(void);
const char *test_mmproj_path(void);
/* The same tower with the first adapter, which the reference rows were made with. */
const char *test_first_mmproj_path(void);

/* A .npy file of little-endian float32/float16/int32/int64 as fp32; fails the test when
 * it cannot be read. *data is freed with mem_free. shape gets up to 4 sizes, the rest 1. */
void test_npy(const char *path, float **data, int64_t shape[4]);
/* A whole file; freed with mem_free, NUL-terminated. */
char *test_read_file(const char *path, size_t *n);
/* The seed of this run: fixed in `make check`, --seed N otherwise; printed on failure. */
uint64_t test_seed(void);

#endif
