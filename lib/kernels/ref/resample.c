/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The two passes of a resize in plain C. */
#include "kernels/ref/ref.h"
#include "kernels/resample.h"

static void resample_columns(const pgi_resample *c, const uint8_t *in, int64_t stride, int64_t width, int64_t rows,
                             uint8_t *out) {
    (void)width;
    for (int64_t y = 0; y < rows; y++, in += stride)
        for (int32_t x = 0; x < c->n_out; x++, out += 3) pgi_resample_pixel(c, x, in, out);
}

static void resample_row(const int32_t *weights, int32_t n, const uint8_t *in, int64_t stride, int64_t line,
                         uint8_t *out) {
    enum { BLOCK = 1024 }; /* long: the rows of a tall image are far from each other */
    for (int64_t i = 0; i < line; i += BLOCK) {
        const int width = (int)pgi_min64(BLOCK, line - i);
        const uint8_t *p = in + i;
        int32_t sums[BLOCK];
        for (int j = 0; j < width; j++) sums[j] = PGI_RESAMPLE_HALF;
        for (int32_t k = 0; k < n; k++, p += stride)
            for (int j = 0; j < width; j++) sums[j] += p[j] * weights[k];
        for (int j = 0; j < width; j++) out[i + j] = pgi_resample_clip(sums[j]);
    }
}

void pgi_ref_resample(pgi_kernels *kernels) {
#define K(type, name, parameters) kernels->name = name;
#include "kernels/lists/resample.inc"
#undef K
}
