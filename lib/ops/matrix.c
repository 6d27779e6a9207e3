/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Parts of a weight matrix: pgi_linear_rows(), some of a layer's outputs; pgi_matrix_row(), a row as f32. */
#include "ops/ops.h"

#include "kernels/kernels.h"
#include "kernels/quantized.h"

pgi_linear pgi_linear_rows(const pgi_linear *linear, int64_t first, int64_t n) {
    const pgi_matrix *w = &linear->weight;
    pgi_linear part = {.weight = {.dtype = w->dtype, .rows = n, .columns = w->columns}};
    int64_t before = first * w->columns * (int64_t)pgi_dtype_size(w->dtype);
    if (pgi_dtype_is_blocks(w->dtype))
        before = first / PGI_PANEL_ROWS * pgi_quantized_groups(w->columns) * pgi_quantized_block(w->dtype);
    part.weight.data = (const char *)w->data + before;
    part.bias = linear->bias ? linear->bias + first : NULL;
    return part;
}

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
