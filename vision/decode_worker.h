/* Decoding in a process of its own. The decoder (stb_image) is code that we did not
 * write and that has had memory errors: whatever a picture does to it, the server
 * loses one picture.
 *
 *   server    decode_worker_run: one helper is lent to the picture, the bytes go down a
 *             socket, rows of RGB come back; a deadline, then SIGKILL
 *   helper    decode_worker_main: resource limits, seccomp, then a loop of read, decode
 *             within a budget, write; ends when the socket closes
 * Both ends are the same binary, so the messages are plain structs. */
#ifndef TAMP_VISION_DECODE_WORKER_H
#define TAMP_VISION_DECODE_WORKER_H

#include "base/err.h"
#include "vision/image_scan.h"

#include <stddef.h>
#include <stdint.h>

#define DECODE_WORKER_MAGIC 0x74616d70u
#define DECODE_WORKER_ARG   "--image-worker"
#define DECODE_WORKER_ENV   "TAMP_IMAGE_WORKER"
#define DECODE_WORKER_FD    3

/* 1: built with a sanitizer, which needs more system calls than the filter allows and more
 * addresses than the limit; the helper is then not confined. gcc says it with macros of
 * its own, clang 14 with __has_feature. */
#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) ||                               \
    __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define UNDER_SANITIZER 1
#else
#define UNDER_SANITIZER 0
#endif

struct decode_hello { /* the helper, once, when it is ready */
    uint32_t magic;
    uint32_t confined; /* 1: seccomp is on */
};

struct decode_request { /* then `n` bytes of the file */
    uint32_t magic;
    int32_t width, height;
    uint64_t n;
    uint64_t budget; /* bytes the decoder may hold */
};

enum decode_status { DECODE_OK, DECODE_DAMAGED, DECODE_OVER_BUDGET };

struct decode_response { /* then height rows of width * 3 bytes, if DECODE_OK */
    uint32_t magic;
    uint32_t status;
    uint64_t peak_bytes; /* most that the decoder held */
};

/* What the picture is put together with: rows as stored in the file, top to bottom. */
struct decode_sink {
    void (*row)(void *ctx, int y, const uint8_t *rgb);
    void *ctx;
};

/* 0, or -1 with image_decode_failed, image_bomb, or out of memory. peak_bytes may be
 * NULL. Thread-safe. */
int decode_worker_run(const uint8_t *bytes, size_t n, const struct image_facts *facts,
                      uint64_t budget, const struct decode_sink *sink, uint64_t *peak_bytes,
                      struct err *e);

/* The helper's side of fd; returns the exit status. */
int decode_worker_main(int fd);

#endif
