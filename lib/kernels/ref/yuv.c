/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Rows of camera frames in plain C. */
#include "kernels/yuv.h"

#include "kernels/ref/ref.h"

static void yuv_terms(const pgi_yuv *yuv, const uint8_t *chroma, int64_t n, int16_t *terms, int64_t stride) {
    for (int c = 0; c < 3; c++)
        for (int64_t i = 0; i < n; i++) {
            const int32_t term = pgi_yuv_term(yuv, c, chroma[2 * i] - 128, chroma[2 * i + 1] - 128);
            terms[c * stride + 2 * i] = terms[c * stride + 2 * i + 1] = (int16_t)term;
        }
}

static void yuv_row(const pgi_yuv *yuv, const uint8_t *y, const int16_t *terms, int64_t stride, int64_t n,
                    uint8_t *out) {
    for (int64_t i = 0; i < n; i++)
        for (int c = 0; c < 3; c++) out[3 * i + c] = pgi_yuv_sample(yuv, y[i], terms[c * stride + i]);
}

void pgi_ref_yuv(pgi_kernels *kernels) {
#define K(type, name, parameters) kernels->name = name;
#include "kernels/lists/yuv.inc"
#undef K
}
