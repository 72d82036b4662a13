/* Weights and activations as the int8 kernels read them.
 *
 * A matrix is cut into panels of 16 output rows, a panel into blocks of 32 input columns:
 *   w[o, k] = d[o] * q[o, k] + m[o]      d and m of the block, halves as in the file
 * so that one vector register holds four columns of sixteen outputs, the operand of
 * vpdpbusd, and memory is read from one end to the other. Three layouts:
 *   4 bits  q in 0..15; 64 bytes hold columns 4 j..4 j + 3 in the low nibbles and
 *           16 + 4 j.. in the high ones                          320 bytes a block
 *   8 bits  q in -128..127, stored with 128 added                576 bytes a block
 *   16 bits the halves or bf16 numbers themselves, column by column: 1024 bytes; their
 *           products are made in fp32
 * Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0 keep every bit. The factors of Q4_K and Q5_K are
 * rounded to halves (2^-11), Q6_K to 8 bits a block of 32. F32 is not packed.
 *
 * Activations are rounded to 12 bits in blocks of 32 of one row, x = scale * q, and q is
 * split into two bytes, q = 16 high + low: eight bits alone cost a 135 M model three
 * arg-maxes in a hundred. With 16, not 128, a matrix unit multiplies both by 4-bit weights
 * at once, the high byte by 16 times the weight. In
 *   y[o] = sum over blocks of  d scale (sum_k q_w q_x)  +  m scale (sum_k q_x)
 * the integer sums are exact and the minimum of a block costs one product. Blocks are
 * added in ascending order, one accumulator each output: a row's bits depend neither on
 * the number of rows multiplied with it nor on the threads. */
#ifndef TAMP_TENSOR_PACKED_H
#define TAMP_TENSOR_PACKED_H

#include "base/err.h"
#include "tensor/gguf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PACKED_LANES      16
#define PACKED_BLOCK      32
#define PACKED_4BIT_SIZE  (PACKED_LANES * PACKED_BLOCK / 2 + 2 * PACKED_LANES * 2)
#define PACKED_8BIT_SIZE  (PACKED_LANES * PACKED_BLOCK + 2 * PACKED_LANES * 2)
#define PACKED_16BIT_SIZE (PACKED_LANES * PACKED_BLOCK * 2)

enum packed_kind { PACKED_4BIT, PACKED_8BIT, PACKED_F16, PACKED_BF16 };

/* Memory that several matrices lie in, one behind the other. */
struct packed_memory {
    int n_users; /* matrices that have not been cleared */
    size_t bytes;
    uint8_t *data;
};

struct packed {
    int n_out, n_in;
    int n_panels; /* of 16 outputs; lanes beyond n_out are zero */
    int n_blocks; /* of 32 columns; columns beyond n_in are zero */
    enum packed_kind kind;
    size_t block_bytes;
    uint8_t *data; /* [n_panels, n_blocks, block_bytes], aligned to 64; NULL = not packed */
    struct packed_memory *memory; /* where data lies; its last user frees it */
};

/* Bytes of one block of activations: 32 high ones, then 32 low ones. */
#define PACKED_ROW_BLOCK (2 * PACKED_BLOCK)
#define PACKED_SHIFT     4
#define PACKED_RADIX     (1 << PACKED_SHIFT)
#define PACKED_MOST      (127 * PACKED_RADIX) /* the largest |q| */

/* Rows lie in groups of 16 (all rows in one group where there are fewer), and in a group
 * block by block: what a kernel needs for one block of its rows is in one place. */
#define PACKED_GROUP 16

struct packed_rows {
    int n_rows, n_blocks;
    int group;         /* rows in a group, the last one included: 16, or n_rows if less */
    int8_t *q;         /* [n_groups, n_blocks, group, 64] high in -127..127, low in -8..7 */
    float *scale;      /* [n_groups, n_blocks, group] */
    float *scaled_sum; /* the same shape: scale * sum of q */
    int32_t *offset;   /* the same shape: -128 * sum of q, undoes the 128 of 8-bit weights */
};

static inline int packed_group(int n_rows)
{
    return n_rows < PACKED_GROUP ? n_rows : PACKED_GROUP;
}

/* Where block b of row r is in all four. */
static inline size_t packed_at(const struct packed_rows *x, int r, int b)
{
    size_t group = (size_t)x->group;
    return ((size_t)(r / x->group) * (size_t)x->n_blocks + (size_t)b) * group +
           (size_t)(r % x->group);
}

/* True for the types that have a packed layout: all but F32. */
bool packed_has(enum tensor_type type);
/* True where activations are rounded to bytes, false where they stay fp32. */
static inline bool packed_is_integer(const struct packed *p)
{
    return p->kind == PACKED_4BIT || p->kind == PACKED_8BIT;
}
/* The shape of a matrix of a type that packed_has, without memory yet. */
void packed_shape(struct packed *p, enum tensor_type type, int n_out, int n_in);
/* One piece of memory for n matrices with shapes, in this order: what is read in turn is
 * read on, and huge pages (base/huge_pages.h) serve small matrices, too. It is freed by the
 * packed_clear of the last of them; calls for matrices of one piece must not overlap. -1: no
 * memory, and all stay without. */
int packed_alloc(struct packed *const *p, int n, struct err *e);
/* Both for one matrix. */
int packed_init(struct packed *p, enum tensor_type type, int n_out, int n_in, struct err *e);
void packed_clear(struct packed *p);
/* Fill panels [begin, end) from GGUF rows; safe to call for disjoint panels in parallel. */
void packed_fill(struct packed *p, enum tensor_type type, const void *rows, size_t row_bytes,
                 int begin, int end);
/* What row o stands for, as fp32, y [n_in]: for tests. */
void packed_row(const struct packed *p, int o, float *y);

static inline const uint8_t *packed_block(const struct packed *p, int panel, int block)
{
    size_t index = (size_t)panel * (size_t)p->n_blocks + (size_t)block;
    return p->data + index * p->block_bytes;
}

/* Byte of a block's integer part that holds output `lane`, column `k`; in the 4-bit
 * layout columns 16.. are the high nibbles. */
static inline int packed_byte(bool is_4bit, int lane, int k)
{
    int column = is_4bit ? k % 16 : k;
    return column / 4 * 4 * PACKED_LANES + lane * 4 + column % 4;
}

#endif
