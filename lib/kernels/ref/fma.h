/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* a * b + c rounded once, which all kernels of quantized weights agree on. */
#ifndef PGI_KERNELS_REF_FMA_H
#define PGI_KERNELS_REF_FMA_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* fmaf() of mingw-w64 10 rounds the product, too. In f64 the product is exact; the sum is rounded to odd, so that
 * rounding it to f32 afterwards is as good as rounding once. */
static inline float pgi_fma_odd(float a, float b, float c) {
    const double product = (double)a * (double)b;
    double sum = product + (double)c;
    const double of_c = sum - product, rest = (product - (sum - of_c)) + ((double)c - of_c);
    if (rest > 0 || rest < 0) { /* else it is exact, or no number */
        uint64_t bits;
        memcpy(&bits, &sum, sizeof bits);
        if (!(bits & 1)) bits += (rest > 0) == (sum > 0) ? 1 : UINT64_MAX;
        memcpy(&sum, &bits, sizeof sum);
    }
    return (float)sum;
}

static inline float pgi_fma(float a, float b, float c) {
#ifdef __MINGW32__
    return pgi_fma_odd(a, b, c);
#else
    return fmaf(a, b, c);
#endif
}

#endif
