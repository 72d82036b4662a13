/* Random GGUF blocks whose factors are of ordinary size. */
#ifndef TAMP_TESTS_UNIT_BLOCKS_FIXTURE_H
#define TAMP_TESTS_UNIT_BLOCKS_FIXTURE_H

#include "base/rng.h"
#include "tensor/gguf.h"

/* n bytes of blocks of a type that tensor_type_traits knows. */
void fill_blocks(uint8_t *p, size_t n, enum tensor_type type, struct rng *r);

#endif
