/* Rows on their way through a transformer, with what merging must not lose.
 *
 *   row     one vector: an embedded token, a patch, or several merged into one
 *   mass    how many original rows it stands for
 *   owner   for every original row, the row that stands for it now: because each
 *           source has exactly one owner, the origins always partition the input
 *   dropped a source that no row stands for: pruning methods leave some, merging ones none
 * Invariants (rows_check): every owner in [0, n) or ROW_DROPPED; every row owns as many
 * sources as its mass says, and at least one; so the masses and the dropped sources add up
 * to n_source. */
#ifndef TAMP_COMPRESS_ROWS_H
#define TAMP_COMPRESS_ROWS_H

#include "base/arena.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum row_kind { ROW_TEXT, ROW_IMAGE };

enum row_flag {
    ROW_PROTECTED = 1, /* never merged: special, template, class token, digits, ROI, last row */
    ROW_BREAK = 2,     /* a group of neighbours may not reach back over the start of this row:
                          first row of a message, of a picture, of a prefill chunk */
    ROW_EXACT = 4,     /* protected only for its exact text: a number, a code, a name */
    ROW_SENTENCE = 8,  /* a sentence begins here */
    ROW_QUESTION = 16, /* of the question: the end of the last user message and what the
                          template puts behind it */
    ROW_STATIC = 32,   /* of the static prefix, the part that all prompts of a kind share */
    ROW_CUT = 64,      /* a prefill chunk ends before this row: the static prefix does */
};

#define ROW_DROPPED (-1)

struct rows {
    int n;            /* rows now */
    int n_source;     /* rows before any merge */
    int n_embd;       /* width */
    float *x;         /* [n, n_embd] */
    float *mass;      /* [n] */
    float *position;  /* [n] in units of original rows; a merged row keeps a real position */
    uint8_t *kind;    /* [n] enum row_kind */
    uint8_t *flags;   /* [n] enum row_flag */
    int32_t *owner;   /* [n_source], or ROW_DROPPED */
    float *attention; /* [n_source] share of the tower's attention that a source got, or NULL:
                         of the picture, so merging leaves it as it is */
};

static inline bool rows_is_free(const struct rows *r, int i)
{
    return !(r->flags[i] & ROW_PROTECTED);
}
/* Whether a row's attention says something of its sentence: not what the template wrote. */
static inline bool rows_is_text(const struct rows *r, int i)
{
    return rows_is_free(r, i) || (r->flags[i] & ROW_EXACT);
}

/* n rows, each its own source: mass 1, position first_position + i, flags 0.
 * Memory comes from the arena; x is not initialised. */
int rows_init(struct rows *r, struct arena *a, int n, int n_embd, enum row_kind kind,
              float first_position, struct err *e);

/* The values of rows into memory of the same shape; the same rows in memory of their own. */
void rows_assign(struct rows *to, const struct rows *from);
int rows_copy(struct rows *to, const struct rows *from, struct arena *a, struct err *e);

/* Replace the rows by m new ones: map[i] in [0, m) is the new row of old row i
 * (every new row gets at least one). x, mass: mass-weighted mean and sum; a row that is
 * alone in its group keeps its bytes. position: the smallest of the group; kind: of the
 * first old row; flags are or-ed. The order of new rows is given by the numbers in map.
 * map[i] = ROW_DROPPED drops the row: its sources are owned by no row from then on.
 * Temporaries come from scratch (the caller rewinds); on failure nothing has changed. */
int rows_merge(struct rows *r, const int32_t *map, int m, struct arena *scratch, struct err *e);

/* Put rows into the order perm[new] = old; perm must be a permutation. */
int rows_permute(struct rows *r, const int32_t *perm, struct arena *scratch, struct err *e);

/* The smallest source index of each row: first[n]. */
void rows_first_source(const struct rows *r, int32_t *first);

/* Number the groups of map [r->n], which holds any numbers below r->n (or ROW_DROPPED), from
 * 0 in the order of their first row: a map for rows_merge that keeps the order. Returns how
 * many groups there are. first[r->n] is work space. */
int rows_number_groups(const struct rows *r, int32_t *map, int32_t *first);

/* Sources that no row stands for. */
int rows_dropped(const struct rows *r);

/* 0, or -1 with the invariant that is broken. For tests and debug builds. */
int rows_check(const struct rows *r, struct err *e);

#endif
