/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* How samples of a resized row or column of 8-bit RGB are computed: with Pillow's fixed-point weights (image/resize.c).
 */
#ifndef PGI_KERNELS_RESAMPLE_H
#define PGI_KERNELS_RESAMPLE_H

#include <stdint.h>

enum { PGI_RESAMPLE_BITS = 32 - 8 - 2 }; /* of a weight: 8 bits for the sample, 2 for overshoot */

/* Output i is the sum of the n[i] samples from first[i] on, weighted by weights[i * n_max + ...]. */
typedef struct pgi_resample {
    int32_t *first, *n; /* [n_out] */
    int32_t *weights;   /* [n_out, n_max], scaled by 2^PGI_RESAMPLE_BITS */
    int32_t n_max, n_out;
} pgi_resample;

/* A sum starts at this half, so that the shift to 8 bits rounds. */
enum { PGI_RESAMPLE_HALF = 1 << (PGI_RESAMPLE_BITS - 1) };
static inline uint8_t pgi_resample_clip(int32_t sum) {
    sum >>= PGI_RESAMPLE_BITS; /* arithmetic shift, as every supported compiler does it */
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

/* Output x of a row. No part of a sum leaves 32 bits, as the magnitudes of its weights sum to less than 2. */
static inline void pgi_resample_pixel(const pgi_resample *c, int32_t x, const uint8_t *row, uint8_t *out) {
    const uint8_t *p = row + (int64_t)c->first[x] * 3;
    const int32_t *weights = c->weights + (int64_t)x * c->n_max;
    int32_t r = PGI_RESAMPLE_HALF, g = r, b = r;
    for (int32_t k = 0, n = c->n[x]; k < n; k++, p += 3) {
        r += p[0] * weights[k];
        g += p[1] * weights[k];
        b += p[2] * weights[k];
    }
    out[0] = pgi_resample_clip(r);
    out[1] = pgi_resample_clip(g);
    out[2] = pgi_resample_clip(b);
}

#endif
