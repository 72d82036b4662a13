/* The helper's side: confine, then serve pictures one after the other until the socket
 * closes. After confinement only memory and the socket are within reach: no files, no
 * network, no new processes, no executable memory.
 *
 * The sanitizers need system calls and address space of their own, so builds with
 * address or thread sanitizer run the helper unconfined; nothing else does. */
#include "vision/decode_worker.h"

#include "base/alloc.h"
#include "vision/stb_decode.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <seccomp.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#define ADDRESS_SPACE_BYTES ((rlim_t)2 << 30) /* behind the budget, should that ever fail */
#define SEND_BYTES          ((size_t)256 << 10)

static bool read_all(int fd, void *data, size_t n)
{
    for (size_t done = 0; done < n;) {
        ssize_t got = read(fd, (char *)data + done, n - done);
        if (got == 0 || (got < 0 && errno != EINTR)) {
            return false;
        }
        done += got > 0 ? (size_t)got : 0;
    }
    return true;
}

static bool write_all(int fd, const void *data, size_t n)
{
    for (size_t done = 0; done < n;) {
        ssize_t put = write(fd, (const char *)data + done, n - done);
        if (put < 0 && errno != EINTR) {
            return false;
        }
        done += put > 0 ? (size_t)put : 0;
    }
    return true;
}

static void limit(int resource, rlim_t value)
{
    struct rlimit l = {value, value};
    (void)setrlimit((__rlimit_resource_t)resource, &l);
}

static bool allow_calls(scmp_filter_ctx filter)
{
    static const int calls[] = {
        SCMP_SYS(read),         SCMP_SYS(write),           SCMP_SYS(exit),
        SCMP_SYS(exit_group),   SCMP_SYS(munmap),          SCMP_SYS(mremap),
        SCMP_SYS(brk),          SCMP_SYS(madvise),         SCMP_SYS(futex),
        SCMP_SYS(rt_sigreturn), SCMP_SYS(restart_syscall),
    };
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        if (seccomp_rule_add(filter, SCMP_ACT_ALLOW, calls[i], 0)) {
            return false;
        }
    }
    return seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
                            SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0)) == 0;
}

static bool forbid_calls(void)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
    if (!filter) {
        return false;
    }
    bool ok = allow_calls(filter) && seccomp_load(filter) == 0;
    seccomp_release(filter);
    return ok;
}

static bool confine(void)
{
    if (UNDER_SANITIZER) {
        return true;
    }
    limit(RLIMIT_CORE, 0);
    limit(RLIMIT_NOFILE, 0);
    limit(RLIMIT_FSIZE, 0);
    limit(RLIMIT_AS, ADDRESS_SPACE_BYTES);
    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) {
        return false;
    }
    return forbid_calls();
}

static bool send_rows(int fd, const struct decoded *d)
{
    size_t row_bytes = (size_t)d->width * 3;
    size_t n_rows = row_bytes < SEND_BYTES ? SEND_BYTES / row_bytes : 1;
    uint8_t *rows = mem_alloc(n_rows, row_bytes);
    bool ok = rows != NULL;
    size_t filled = 0;
    for (int y = 0; ok && y < d->height; y++) {
        decoded_row(d, y, rows + filled++ * row_bytes);
        if (filled == n_rows || y == d->height - 1) {
            ok = write_all(fd, rows, filled * row_bytes);
            filled = 0;
        }
    }
    mem_free(rows);
    return ok;
}

static bool answer(int fd, const struct decode_request *r, const uint8_t *bytes)
{
    struct decoded d = {0};
    enum decode_status status = stb_decode(bytes, (size_t)r->n, r->budget, &d);
    if (status == DECODE_OK && (d.width != r->width || d.height != r->height)) {
        status = DECODE_DAMAGED;
    }
    struct decode_response response = {DECODE_WORKER_MAGIC, (uint32_t)status, d.peak_bytes};
    bool ok = write_all(fd, &response, sizeof response);
    if (ok && status == DECODE_OK) {
        ok = send_rows(fd, &d);
    }
    stb_decode_free();
    return ok;
}

static bool serve_one(int fd)
{
    struct decode_request r;
    if (!read_all(fd, &r, sizeof r) || r.magic != DECODE_WORKER_MAGIC || r.n == 0) {
        return false;
    }
    uint8_t *bytes = mem_alloc(1, (size_t)r.n);
    bool ok = bytes && read_all(fd, bytes, (size_t)r.n) && answer(fd, &r, bytes);
    mem_free(bytes);
    return ok;
}

int decode_worker_main(int fd)
{
    /* Large blocks go back to the system at once: the helper stays small when idle. */
    mallopt(M_MMAP_THRESHOLD, 256 << 10);
    mallopt(M_TRIM_THRESHOLD, 1 << 20);
    struct decode_hello hello = {DECODE_WORKER_MAGIC, confine()};
    if (!write_all(fd, &hello, sizeof hello)) {
        return 1;
    }
    while (serve_one(fd)) {
    }
    return 0;
}

void image_worker_maybe_run(int argc, char **argv)
{
    if (argc == 2 && getenv(DECODE_WORKER_ENV) && strcmp(argv[1], DECODE_WORKER_ARG) == 0) {
        (void)close_range(DECODE_WORKER_FD + 1, ~0u, 0);
        _exit(decode_worker_main(DECODE_WORKER_FD));
    }
}
