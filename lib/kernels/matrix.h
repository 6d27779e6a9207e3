/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* A weight matrix as it lies in the checkpoint, or quantized. */
#ifndef PGI_KERNELS_MATRIX_H
#define PGI_KERNELS_MATRIX_H

#include <stddef.h>
#include <stdint.h>

#include <paligemma/paligemma.h>

/* [rows, columns]; for a linear layer [out, in]. Elements of a PG_DTYPE_* are row-major and dense and may have any
 * alignment, even an odd address (safetensors promises none). Quantized blocks lie as quantized.h says. */
typedef struct pgi_matrix {
    const void *data; /* NULL: in the file alone */
    int32_t dtype;    /* PG_DTYPE_F32, _BF16 or _F16, or PGI_DTYPE_INT8_BLOCKS or _INT4_BLOCKS (quantized.h) */
    int64_t rows, columns;
    const void *tensor; /* what a checkpoint knows of it (pgi_stored_tensor); NULL: it is of none */
} pgi_matrix;

/* y = x W^T + b. */
typedef struct pgi_linear {
    pgi_matrix weight;                   /* [out, in] */
    const float *bias;                   /* [out], f32, or NULL */
    const struct pgi_low_rank *low_rank; /* what adapters add to it (ops/low_rank.h); NULL: nothing */
} pgi_linear;

/* Element types that files have and that no array of the API has; beside PG_DTYPE_*. */
enum { PGI_DTYPE_U8 = 5, PGI_DTYPE_I32 = 6 };

/* Bytes of one element of a PG_DTYPE_* or PGI_DTYPE_*, 0 for an unknown one. */
static inline size_t pgi_dtype_size(int32_t dtype) {
    switch (dtype) {
        case PG_DTYPE_F32:
        case PGI_DTYPE_I32: return 4;
        case PG_DTYPE_BF16:
        case PG_DTYPE_F16: return 2;
        case PG_DTYPE_I64: return 8;
        case PGI_DTYPE_U8: return 1;
        default: return 0;
    }
}

#endif
