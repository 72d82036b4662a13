#include "tests/unit/blocks_fixture.h"

#include "tensor/ops.h"

#include <string.h>

static float uniform(struct rng *r)
{
    return (float)(2 * rng_double(r) - 1);
}

/* Random blocks with factors of ordinary size: every 16-bit pattern whose upper byte is
 * 0x2a to 0x2d is a half between 0.05 and 0.1; the integer parts may be anything. */
void fill_blocks(uint8_t *p, size_t n, enum tensor_type type, struct rng *r)
{
    const struct tensor_type_traits *t = tensor_type_traits(type);
    for (size_t i = 0; i < n; i++) {
        p[i] = (uint8_t)rng_u64(r);
    }
    for (size_t b = 0; t->block_elements > 1 && b < n; b += (size_t)t->block_bytes) {
        uint8_t *factor = p + b + (type == TENSOR_Q6_K ? 208 : 0);
        factor[1] = (uint8_t)(0x2a + rng_below(r, 4));
        bool has_minimum = type == TENSOR_Q4_1 || type == TENSOR_Q5_1 || type == TENSOR_Q4_K ||
                           type == TENSOR_Q5_K;
        if (has_minimum) {
            factor[3] = (uint8_t)(0x2a + rng_below(r, 4));
        }
    }
    for (size_t b = 0; t->block_elements == 1 && b < n; b += (size_t)t->block_bytes) {
        float v = uniform(r);
        uint16_t h = op_f32_to_f16(v);
        uint32_t bits;
        memcpy(&bits, &v, sizeof bits);
        uint16_t upper = (uint16_t)(bits >> 16);
        memcpy(p + b,
               type == TENSOR_F32   ? (void *)&v
               : type == TENSOR_F16 ? &h
                                    : &upper,
               (size_t)t->block_bytes);
    }
}
