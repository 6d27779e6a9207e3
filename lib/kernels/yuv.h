/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Y, U and V of 8 bits to R, G and B of 8 bits, exactly as ITU-R BT.601 and BT.709 define them: with y, u and v of 0 to
 * 1 and -1/2 to 1/2
 *
 *     R = y + 2 (1 - Kr) v,  B = y + 2 (1 - Kb) u,  G = (y - Kr R - Kb B) / (1 - Kr - Kb)
 *
 * times 255, rounded to the nearest (halves up), cut off at 0 and 255. Full range: y = Y / 255, u = (U - 128) / 255.
 * Video range: y = (Y - 16) / 219, u = (U - 128) / 224. A channel is
 *
 *     floor((scale Y + term) / 73),  term = floor(73 (255 (its u and v) + 1/2)) - offset
 *
 * where scale is 73 or 85 (255 / 219 = 85 / 73): integers, so nothing is lost by the floor within. Where it is not cut
 * off, all fits in 16 bits. A term is computed with PGI_YUV_BITS fraction bits; a test looks at every U and V, and at
 * every Y, U and V of the whole.
 */
#ifndef PGI_KERNELS_YUV_H
#define PGI_KERNELS_YUV_H

#include <stdint.h>

enum {
    PGI_YUV_STEPS = 73,
    PGI_YUV_BITS = 21,
    PGI_YUV_LOW_BITS = 15,   /* a factor is high * 2^15 + low, both of 16 bits with a sign */
    PGI_YUV_INVERSE = 28729, /* floor(n / 73) is n * it >> 21, as long as that is at most 255; and n < 0 stays so */
    PGI_YUV_INVERSE_BITS = 21
};

typedef struct pgi_yuv {
    int16_t scale;      /* of Y */
    int16_t high[3][2]; /* R, G, B: what the two bytes of chroma are multiplied by, in the order of memory */
    int16_t low[3][2];
    int32_t start;  /* what the low sums begin with */
    int32_t offset; /* what the terms end with */
} pgi_yuv;

/* The term of a channel c of one pair of chroma, each less 128. */
static inline int32_t pgi_yuv_term(const pgi_yuv *yuv, int c, int32_t first, int32_t second) {
    const int32_t low = first * yuv->low[c][0] + second * yuv->low[c][1] + yuv->start;
    const int32_t high = first * yuv->high[c][0] + second * yuv->high[c][1] + (low >> PGI_YUV_LOW_BITS);
    return (high >> (PGI_YUV_BITS - PGI_YUV_LOW_BITS)) + yuv->offset;
}

static inline uint8_t pgi_yuv_sample(const pgi_yuv *yuv, uint8_t y, int16_t term) {
    const int32_t n = yuv->scale * y + term;
    return (uint8_t)(n < 0 ? 0 : n / PGI_YUV_STEPS > 255 ? 255 : n / PGI_YUV_STEPS);
}

#endif
