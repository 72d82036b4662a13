/* From GGUF blocks to panels. Each quantised type is first read as one block of 32 columns
 * of one row, (d, m, q[32]); how that lies in a panel is known in one place. */
#include "tensor/packed.h"

#include "base/alloc.h"
#include "base/checked.h"
#include "base/huge_pages.h"
#include "tensor/ops.h"
#include "tensor/quant.h"

#include <math.h>
#include <string.h>

#define HALF_MAX 65504.0f

/* 32 columns of one row: w = d q + m. */
struct block32 {
    uint16_t d, m;           /* halves */
    uint8_t q[PACKED_BLOCK]; /* 4 bits: GGUF's own 16 bytes of nibbles; else q + 128 */
};

static enum packed_kind kind_of(enum tensor_type type)
{
    switch (type) {
    case TENSOR_Q4_0:
    case TENSOR_Q4_1:
    case TENSOR_Q4_K:
        return PACKED_4BIT;
    case TENSOR_F16:
        return PACKED_F16;
    case TENSOR_BF16:
        return PACKED_BF16;
    default:
        return PACKED_8BIT;
    }
}

bool packed_has(enum tensor_type type)
{
    return type != TENSOR_F32;
}

void packed_shape(struct packed *p, enum tensor_type type, int n_out, int n_in)
{
    static const size_t block_bytes[] = {PACKED_4BIT_SIZE, PACKED_8BIT_SIZE, PACKED_16BIT_SIZE,
                                         PACKED_16BIT_SIZE};
    enum packed_kind kind = kind_of(type);
    *p = (struct packed){
        .n_out = n_out,
        .n_in = n_in,
        .n_panels = (n_out + PACKED_LANES - 1) / PACKED_LANES,
        .n_blocks = (n_in + PACKED_BLOCK - 1) / PACKED_BLOCK,
        .kind = kind,
        .block_bytes = block_bytes[kind],
    };
}

/* A multiple of 64: sizes of blocks are. False when it is too large to count. */
static bool bytes_of(const struct packed *p, size_t *bytes)
{
    return ck_mul((size_t)p->n_panels, (size_t)p->n_blocks, bytes) &&
           ck_mul(*bytes, p->block_bytes, bytes);
}

int packed_alloc(struct packed *const *p, int n, struct err *e)
{
    size_t bytes = 0;
    for (int i = 0; i < n; i++) {
        size_t more;
        if (!bytes_of(p[i], &more) || !ck_add(bytes, more, &bytes)) {
            return err_set(e, ERR_TOO_LARGE, "a matrix of %d x %d does not fit into memory",
                           p[i]->n_out, p[i]->n_in);
        }
    }
    struct packed_memory *memory = mem_alloc(1, sizeof *memory);
    uint8_t *data = memory ? huge_pages_alloc(bytes) : NULL;
    if (!data) {
        mem_free(memory);
        return err_no_memory(e, bytes);
    }
    huge_pages_advise(data, bytes);
    *memory = (struct packed_memory){n, bytes, data};
    for (int i = 0; i < n; i++) {
        p[i]->memory = memory;
        p[i]->data = data;
        size_t used = 0;
        (void)bytes_of(p[i], &used); /* it was counted above */
        data += used;
    }
    return 0;
}

int packed_init(struct packed *p, enum tensor_type type, int n_out, int n_in, struct err *e)
{
    packed_shape(p, type, n_out, n_in);
    return packed_alloc(&p, 1, e);
}

void packed_clear(struct packed *p)
{
    struct packed_memory *memory = p->memory;
    if (memory && --memory->n_users == 0) {
        huge_pages_free(memory->data, memory->bytes);
        mem_free(memory);
    }
    *p = (struct packed){0};
}

static uint16_t half_at(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return h;
}

/* Rounded to a half; a factor that no half can hold is cut to the largest. */
static uint16_t to_half(float x)
{
    return op_f32_to_f16(x > HALF_MAX ? HALF_MAX : x < -HALF_MAX ? -HALF_MAX : x);
}

static void read_q4_0(const uint8_t *p, struct block32 *b)
{
    b->d = half_at(p);
    b->m = to_half(-8.0f * op_f16_to_f32(b->d));
    memcpy(b->q, p + 2, 16);
}

static void read_q4_1(const uint8_t *p, struct block32 *b)
{
    b->d = half_at(p);
    b->m = half_at(p + 2);
    memcpy(b->q, p + 4, 16);
}

/* Nibbles and a field of fifth bits, as Q5_0 and Q5_1 have them: q in 0..31. */
static void join_five_bits(const uint8_t *field, const uint8_t *nibbles, int zero,
                           struct block32 *b)
{
    uint32_t bits;
    memcpy(&bits, field, sizeof bits);
    for (int i = 0; i < 16; i++) {
        unsigned low = (nibbles[i] & 15u) | (bits >> i & 1u) << 4;
        unsigned high = (unsigned)(nibbles[i] >> 4) | (bits >> (i + 16) & 1u) << 4;
        b->q[i] = (uint8_t)((int)low - zero + 128);
        b->q[i + 16] = (uint8_t)((int)high - zero + 128);
    }
}

static void read_q5_0(const uint8_t *p, struct block32 *b)
{
    b->d = half_at(p);
    b->m = 0;
    join_five_bits(p + 2, p + 6, 16, b);
}

static void read_q5_1(const uint8_t *p, struct block32 *b)
{
    b->d = half_at(p);
    b->m = half_at(p + 2);
    join_five_bits(p + 4, p + 8, 0, b);
}

static void read_q8_0(const uint8_t *p, struct block32 *b)
{
    b->d = half_at(p);
    b->m = 0;
    for (int i = 0; i < PACKED_BLOCK; i++) {
        b->q[i] = (uint8_t)(p[2 + i] ^ 0x80);
    }
}

/* Part g of the eight of a Q4_K or Q5_K block: d, m and 32 columns. */
static void read_k_factors(const uint8_t *p, int g, struct block32 *b)
{
    uint8_t scales[8];
    uint8_t minima[8];
    quant_k_scales(p + 4, scales, minima);
    b->d = to_half(op_f16_to_f32(half_at(p)) * (float)scales[g]);
    b->m = to_half(-op_f16_to_f32(half_at(p + 2)) * (float)minima[g]);
}

static void read_q4_k(const uint8_t *p, int g, struct block32 *b)
{
    read_k_factors(p, g, b);
    const uint8_t *from = p + 16 + (size_t)(g / 2) * 32;
    unsigned shift = g % 2 ? 4 : 0;
    for (int i = 0; i < 16; i++) {
        unsigned low = from[i] >> shift & 15u;
        unsigned high = from[i + 16] >> shift & 15u;
        b->q[i] = (uint8_t)(low | high << 4);
    }
}

static void read_q5_k(const uint8_t *p, int g, struct block32 *b)
{
    read_k_factors(p, g, b);
    const uint8_t *fifth = p + 16;
    const uint8_t *from = p + 48 + (size_t)(g / 2) * 32;
    unsigned shift = g % 2 ? 4 : 0;
    for (int i = 0; i < PACKED_BLOCK; i++) {
        unsigned q = (from[i] >> shift & 15u) | (fifth[i] >> g & 1u) << 4;
        b->q[i] = (uint8_t)(q + 128);
    }
}

/* A Q6_K block has a factor for 16 columns: rounded anew to 8 bits by the largest of 32.
 * The factor is rounded first, so that q is right for the factor that is stored. */
static void read_q6_k(const uint8_t *p, int g, struct block32 *b)
{
    float x[256];
    quant_dequantize(TENSOR_Q6_K, p, x, 256);
    const float *from = x + (size_t)(g * PACKED_BLOCK);
    float most = 0;
    for (int i = 0; i < PACKED_BLOCK; i++) {
        most = fmaxf(most, fabsf(from[i]));
    }
    b->d = to_half(most / 127.0f);
    b->m = 0;
    float d = op_f16_to_f32(b->d);
    float inverse = d > 0 ? 1.0f / d : 0;
    for (int i = 0; i < PACKED_BLOCK; i++) {
        float q = rintf(from[i] * inverse);
        q = q > 127.0f ? 127.0f : q < -127.0f ? -127.0f : q;
        b->q[i] = (uint8_t)((int)q + 128);
    }
}

static void read_block(enum tensor_type type, const uint8_t *row, int block, struct block32 *b)
{
    const struct tensor_type_traits *t = tensor_type_traits(type);
    int first = block * PACKED_BLOCK;
    int part = first % t->block_elements / PACKED_BLOCK;
    const uint8_t *p = row + (size_t)(first / t->block_elements) * (size_t)t->block_bytes;
    switch (type) {
    case TENSOR_Q4_0:
        read_q4_0(p, b);
        return;
    case TENSOR_Q4_1:
        read_q4_1(p, b);
        return;
    case TENSOR_Q5_0:
        read_q5_0(p, b);
        return;
    case TENSOR_Q5_1:
        read_q5_1(p, b);
        return;
    case TENSOR_Q8_0:
        read_q8_0(p, b);
        return;
    case TENSOR_Q4_K:
        read_q4_k(p, part, b);
        return;
    case TENSOR_Q5_K:
        read_q5_k(p, part, b);
        return;
    default:
        read_q6_k(p, part, b);
        return;
    }
}

static void store_block(const struct packed *p, uint8_t *to, int lane, const struct block32 *b)
{
    bool is_4bit = p->kind == PACKED_4BIT;
    for (int j = 0; j < (is_4bit ? 4 : 8); j++) {
        memcpy(to + packed_byte(is_4bit, lane, 4 * j), b->q + (size_t)(4 * j), 4);
    }
    uint8_t *factors = to + p->block_bytes - 2 * PACKED_LANES * sizeof b->d;
    memcpy(factors + (size_t)lane * sizeof b->d, &b->d, sizeof b->d);
    memcpy(factors + (size_t)(PACKED_LANES + lane) * sizeof b->m, &b->m, sizeof b->m);
}

/* 32 columns of one row of 16-bit numbers; what is not there is zero. */
static void store_column_pairs(const struct packed *p, uint8_t *to, int lane, const uint8_t *row,
                               int block)
{
    for (int k = 0; k < PACKED_BLOCK; k++) {
        int column = block * PACKED_BLOCK + k;
        uint16_t h = row && column < p->n_in ? half_at(row + 2 * (size_t)column) : 0;
        memcpy(to + sizeof h * (size_t)(k * PACKED_LANES + lane), &h, sizeof h);
    }
}

void packed_fill(struct packed *p, enum tensor_type type, const void *rows, size_t row_bytes,
                 int begin, int end)
{
    for (int i = begin * p->n_blocks; i < end * p->n_blocks; i++) {
        uint8_t *to = p->data + (size_t)i * p->block_bytes;
        for (int lane = 0; lane < PACKED_LANES; lane++) {
            int o = i / p->n_blocks * PACKED_LANES + lane;
            const uint8_t *row =
                o < p->n_out ? (const uint8_t *)rows + (size_t)o * row_bytes : NULL;
            if (!packed_is_integer(p)) {
                store_column_pairs(p, to, lane, row, i % p->n_blocks);
                continue;
            }
            struct block32 b = {0}; /* an output that is not there: its factors are zero */
            if (row) {
                read_block(type, row, i % p->n_blocks, &b);
            }
            store_block(p, to, lane, &b);
        }
    }
}

static float weight_at(const struct packed *p, int lane, const uint8_t *block, int column)
{
    if (!packed_is_integer(p)) {
        uint16_t h = half_at(block + 2 * (size_t)(column * PACKED_LANES + lane));
        return p->kind == PACKED_F16 ? op_f16_to_f32(h) : op_bf16_to_f32(h);
    }
    const uint8_t *factors = block + p->block_bytes - 2 * PACKED_LANES * sizeof(uint16_t);
    float d = op_f16_to_f32(half_at(factors + 2 * (size_t)lane));
    float m = op_f16_to_f32(half_at(factors + 2 * (size_t)(PACKED_LANES + lane)));
    int byte = block[packed_byte(p->kind == PACKED_4BIT, lane, column)];
    int q = p->kind == PACKED_8BIT ? byte - 128 : column < 16 ? byte & 15 : byte >> 4;
    return d * (float)q + m;
}

void packed_row(const struct packed *p, int o, float *y)
{
    for (int k = 0; k < p->n_in; k++) {
        const uint8_t *block = packed_block(p, o / PACKED_LANES, k / PACKED_BLOCK);
        y[k] = weight_at(p, o % PACKED_LANES, block, k % PACKED_BLOCK);
    }
}
