/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* pgi_matrix_row(): a row of a weight matrix as f32. */
#include "ops/ops.h"

#include "kernels/kernels.h"
#include "kernels/quantized.h"

void pgi_matrix_row(const pgi_kernels *kernels, const pgi_matrix *matrix, int64_t row, float scale, float *out) {
    if (pgi_dtype_is_blocks(matrix->dtype)) {
        pgi_quantized_row(matrix, row, scale, out);
        return;
    }
    const char *data = (const char *)matrix->data + row * matrix->columns * (int64_t)pgi_dtype_size(matrix->dtype);
    switch (matrix->dtype) {
        case PG_DTYPE_F32: kernels->expand_f32(data, matrix->columns, scale, out); break;
        case PG_DTYPE_BF16: kernels->expand_bf16(data, matrix->columns, scale, out); break;
        case PG_DTYPE_F16: kernels->expand_f16(data, matrix->columns, scale, out); break;
        default: break; /* the checkpoint binds no other dtype */
    }
}
