/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The kernels of few rows for the dtype of a matrix that is not quantized. */
#ifndef PGI_OPS_GEMV_OF_H
#define PGI_OPS_GEMV_OF_H

#include "kernels/kernels.h"

typedef void (*pgi_gemv_product)(int m, int64_t rows, int64_t k, const float *x, const void *w, int64_t w_bytes,
                                 const float *bias, float *y, int64_t y_stride);

typedef struct pgi_gemv {
    void (*x)(int m, int64_t k, const float *x, int64_t x_stride, float *out); /* lays out the rows */
    pgi_gemv_product product, one_stream;
} pgi_gemv;

/* product NULL: there are none for this dtype. */
static inline pgi_gemv pgi_gemv_of(const pgi_kernels *kernels, int32_t dtype) {
    switch (dtype) {
        case PG_DTYPE_F32: return (pgi_gemv){kernels->gemv_x_f32, kernels->gemv_f32, kernels->gemv_one_stream_f32};
        case PG_DTYPE_BF16: return (pgi_gemv){kernels->gemv_x_bf16, kernels->gemv_bf16, kernels->gemv_one_stream_bf16};
        case PG_DTYPE_F16: return (pgi_gemv){kernels->gemv_x_f16, kernels->gemv_f16, kernels->gemv_one_stream_f16};
        default: return (pgi_gemv){NULL, NULL, NULL};
    }
}

#endif
