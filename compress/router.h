/* The modality router: a chat -> spans. Pure data: it calls neither vision nor model. */
#ifndef TAMP_COMPRESS_ROUTER_H
#define TAMP_COMPRESS_ROUTER_H

#include "base/arena.h"
#include "base/err.h"
#include "compress/chat.h"
#include "compress/plan.h"
#include "compress/rows.h"

struct text_range {
    size_t begin, end; /* bytes, half open */
};

struct span {
    enum row_kind kind;
    int message;                      /* index into chat->messages */
    int part;                         /* index into its parts */
    struct plan_step step;            /* what the plan has for it (off: nothing); pictures still
                                         need plan_image_step, text plan_text_step */
    bool protect_all;                 /* nothing merges, or the system prompt may not */
    const struct text_range *protect; /* [n_protect] byte ranges of the text never merged */
    int n_protect;
};

/* Spans in prompt order, one for each part. Memory from the arena. */
int router_split(const struct chat *chat, const struct plan *plan, struct arena *a,
                 struct span **spans, int *n_spans, struct err *e);

/* Byte ranges of digits and SKU-like words, URLs, code and JSON in `text`
 * (compression.md section 6), ascending, not overlapping. */
int router_protected_ranges(const char *text, size_t len, struct arena *a,
                            struct text_range **ranges, int *n_ranges, struct err *e);

#endif
