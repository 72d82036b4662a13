/* What tests share: failing, skipping, guard pages, golden files, distances. */
#include "base/alloc.h"
#include "base/buf.h"
#include "tensor/ops.h"
#include "tests/test.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void test_fail(const char *file, int line, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    printf("      %s:%d: ", file, line);
    vprintf(fmt, ap);
    printf("\n");
    va_end(ap);
    fflush(stdout);
    _exit(1);
}

void test_skip(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    printf("skip  ");
    vprintf(fmt, ap);
    printf("\n");
    va_end(ap);
    fflush(stdout);
    _exit(77);
}

void test_check_str(const char *file, int line, const char *what, const char *got, const char *want)
{
    if (!got || strcmp(got, want) != 0) {
        test_fail(file, line, "%s is \"%s\", not \"%s\"", what, got ? got : "(null)", want);
    }
}

void *test_guarded(const void *src, size_t n)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t body = (n + page - 1) / page * page;
    unsigned char *p =
        mmap(NULL, body + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || mprotect(p + body, page, PROT_NONE)) {
        FAIL("cannot make a guard page");
    }
    unsigned char *at = p + body - n;
    if (src && n) {
        memcpy(at, src, n);
    }
    return at;
}

bool test_same_bits(const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t bits[2];
        memcpy(&bits[0], a + i, sizeof bits[0]);
        memcpy(&bits[1], b + i, sizeof bits[1]);
        if (bits[0] != bits[1]) {
            return false;
        }
    }
    return true;
}

double test_max_diff(const float *a, const float *b, size_t n)
{
    double worst = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        worst = d > worst || isnan(d) ? d : worst;
    }
    return worst;
}

double test_nmse(const float *a, const float *b, size_t n)
{
    double num = 0;
    double den = 0;
    for (size_t i = 0; i < n; i++) {
        num += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        den += (double)b[i] * (double)b[i];
    }
    return den > 0 ? num / den : num;
}

double test_cosine(const float *a, const float *b, size_t n)
{
    double ab = 0;
    double aa = 0;
    double bb = 0;
    for (size_t i = 0; i < n; i++) {
        ab += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    return aa > 0 && bb > 0 ? ab / sqrt(aa * bb) : 0;
}

static char *join(const char *dir, const char *name)
{
    struct buf b;
    buf_init(&b, 4096);
    buf_printf(&b, "%s/%s", dir, name);
    CHECK(!buf_failed(&b));
    return buf_take(&b, NULL);
}

char *test_golden_path(const char *name)
{
    return join("tests/golden", name);
}

char *test_shared_path(const char *name)
{
    const char *dir = getenv("TAMP_SHARED");
    char *path = join(dir ? dir : "../shared", name);
    if (access(path, R_OK)) {
        SKIP("needs %s (set TAMP_SHARED)", path);
    }
    return path;
}

static const char *model_file(const char *path)
{
    if (access(path, R_OK)) {
        SKIP("needs %s: run make models", path);
    }
    return path;
}

const char *test_model_path(void)
{
    return model_file("models/SmolLM2-135M-Instruct.Q4_1.gguf");
}

const char *test_mmproj_path(void)
{
    return model_file("models/mmproj-dinov2-s14-smollm2.gguf");
}

const char *test_first_mmproj_path(void)
{
    const char *path = "build/mmproj-first.gguf";
    if (access(path, R_OK)) {
        SKIP("needs %s: run make models check", path);
    }
    return path;
}

char *test_read_file(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    if (!f) {
        FAIL("cannot open %s", path);
    }
    struct buf b;
    buf_init(&b, (size_t)1 << 30);
    char chunk[65536];
    size_t got;
    while ((got = fread(chunk, 1, sizeof chunk, f)) > 0) {
        buf_append(&b, chunk, got);
    }
    fclose(f);
    CHECK(!buf_failed(&b));
    buf_append(&b, "", 0);
    return buf_take(&b, n);
}

static double npy_item(const char *p, char kind, int size, int64_t i)
{
    const char *at = p + i * size;
    uint16_t h;
    float f;
    int32_t w;
    int64_t q;
    if (kind == 'f' && size == 2) {
        memcpy(&h, at, 2);
        return (double)op_f16_to_f32(h);
    }
    if (kind == 'f' && size == 4) {
        memcpy(&f, at, 4);
        return (double)f;
    }
    if (kind == 'i' && size == 4) {
        memcpy(&w, at, 4);
        return (double)w;
    }
    memcpy(&q, at, 8);
    return (double)q;
}

void test_npy(const char *path, float **data, int64_t shape[4])
{
    size_t n;
    char *file = test_read_file(path, &n);
    if (n < 10 || memcmp(file, "\x93NUMPY\x01", 7) != 0) {
        FAIL("%s is not a version 1 .npy file", path);
    }
    size_t header = (size_t)(unsigned char)file[8] | (size_t)(unsigned char)file[9] << 8;
    const char *descr = strstr(file + 10, "'descr': '<");
    const char *dims = strstr(file + 10, "'shape': (");
    if (!descr || !dims || strstr(file + 10, "'fortran_order': True")) {
        FAIL("%s: header not understood", path);
    }
    char kind = descr[11];
    int size = descr[12] - '0';
    if (!((kind == 'f' && (size == 2 || size == 4)) || (kind == 'i' && (size == 4 || size == 8)))) {
        FAIL("%s: element type <%c%d not understood", path, kind, size);
    }
    int64_t total = 1;
    const char *p = dims + 10;
    for (int d = 0; d < 4; d++) {
        char *end;
        long long v = strtoll(p, &end, 10);
        shape[d] = end == p ? 1 : v;
        total *= shape[d];
        p = end + strspn(end, ", ");
    }
    CHECK_INT(10 + header + (size_t)total * (size_t)size, ==, n);
    *data = mem_alloc((size_t)total, sizeof **data);
    CHECK(*data);
    for (int64_t i = 0; i < total; i++) {
        (*data)[i] = (float)npy_item(file + 10 + header, kind, size, i);
    }
    mem_free(file);
}
