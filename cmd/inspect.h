/* What `tamp inspect` found out about one file, apart from how it is shown. */
#ifndef TAMP_CMD_INSPECT_H
#define TAMP_CMD_INSPECT_H

#include "base/buf.h"
#include "tensor/gguf.h"

#include <stdbool.h>

#define INSPECT_MAX_VERDICTS 8

/* One thing that tamp needs of the file, and whether it can use it. */
struct inspect_verdict {
    const char *part; /* "family", "tokenizer", ...; static */
    bool ok;
    char text[512]; /* what it is, or why not and what to do */
};

struct inspection {
    const struct gguf *gguf;
    const char *kind; /* "language model", "vision projector", "unknown" */
    bool usable;      /* every verdict is good */
    int n_verdicts;
    struct inspect_verdict verdicts[INSPECT_MAX_VERDICTS];
    uint64_t n_parameters; /* elements of all tensors */
    uint64_t tensor_bytes;
    struct inspect_type {
        const char *name; /* "Q4_1" */
        bool supported;
        size_t n_tensors;
        uint64_t n_bytes;
    } types[64]; /* in order of appearance */
    int n_types;
};

/* Opens what tamp would open (tokenizer, template, vision tower) to say what it says. */
void inspect_collect(const struct gguf *g, struct inspection *in);

void inspect_print_text(const struct inspection *in, struct buf *out);
/* 0, or -1 out of memory. */
int inspect_print_json(const struct inspection *in, struct buf *out);

/* At most max_bytes of text from a file, safe for a terminal: what is no printable UTF-8
 * is written as \n, \x1b or \u{202e}, a cut is marked with "...". */
void inspect_put_text(struct buf *out, const char *s, size_t len, size_t max_bytes);

#endif
