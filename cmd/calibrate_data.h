/* The operator's own requests, a JSON-lines file: each line is the body of a chat
 * completion. A picture is a data URL as clients send it, or the path of a JPEG or PNG,
 * relative to the file's folder. A line may have "expected": what a right answer holds. */
#ifndef TAMP_CMD_CALIBRATE_DATA_H
#define TAMP_CMD_CALIBRATE_DATA_H

#include "base/buf.h"
#include "base/err.h"
#include "server/chat_request.h"

#include <stdint.h>
#include <sys/types.h>

#define CALIBRATE_DIGEST_BYTES 32
#define CALIBRATE_MAX_REQUESTS 1000000

struct calibrate_item {
    off_t offset; /* of the line in the file */
    size_t len;
    int line; /* counted from 1; empty lines count and are no requests */
    int n_images;
    char *expected;                         /* owned; NULL = not given */
    uint8_t digest[CALIBRATE_DIGEST_BYTES]; /* of the body, pictures included */
};

struct calibrate_data {
    int fd;
    char *folder;                 /* owned: where relative paths begin */
    struct calibrate_item *items; /* [n], owned */
    int n;
    int n_with_images, n_with_expected;
};

/* Reads and checks every line as the server would; *e names the first bad one. A zeroed d
 * may be closed. */
int calibrate_data_open(struct calibrate_data *d, const char *path,
                        const struct chat_request_limits *limits, struct err *e);
void calibrate_data_close(struct calibrate_data *d);

/* Request i, ready for its plan; chat_request_free either way. */
int calibrate_data_request(const struct calibrate_data *d, int i,
                           const struct chat_request_limits *limits, struct chat_request *r,
                           struct err *e);

#endif
