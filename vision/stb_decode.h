/* stb_image behind an allocator with a ceiling. Runs in the helper process only. */
#ifndef TAMP_VISION_STB_DECODE_H
#define TAMP_VISION_STB_DECODE_H

#include "vision/decode_worker.h"

#include <stddef.h>
#include <stdint.h>

struct decoded {
    int width, height;
    int channels;       /* 1 grey, 2 grey + alpha, 3 RGB, 4 RGBA */
    uint8_t *pixels8;   /* [height, width, channels], until stb_decode_free; NULL if wide */
    uint16_t *pixels16; /* the same of a 16-bit PNG, else NULL */
    uint64_t peak_bytes;
};

enum decode_status stb_decode(const uint8_t *bytes, size_t n, uint64_t budget, struct decoded *out);
/* Gives back everything that the decoder took, whether it had freed it or not. */
void stb_decode_free(void);

/* One row as RGB of 8 bits, alpha composited on white: rgb [width * 3]. */
void decoded_row(const struct decoded *d, int y, uint8_t *rgb);

#endif
