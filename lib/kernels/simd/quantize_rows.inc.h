/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Template: the kernel quantize_rows, group after group, and the group `quantized_rows` of kernels.inc. The including
 * file first defines quantize_group(x, x_stride, rows, m, block), 128 values of each row, and unpack_int4.
 */
static void quantize_rows(const float *x, int64_t x_stride, int rows, int64_t k, int m, void *tile) {
    char *block = tile;
    for (; k >= PGI_GROUP_COLUMNS; k -= PGI_GROUP_COLUMNS, x += PGI_GROUP_COLUMNS, block += PGI_TILE_ROW_BYTES * m)
        quantize_group(x, x_stride, rows, m, block);
    if (k > 0) {
        float last[PGI_TILE_ROWS * PGI_GROUP_COLUMNS];
        memset(last, 0, (size_t)rows * PGI_GROUP_COLUMNS * sizeof(float));
        for (int i = 0; i < rows; i++)
            memcpy(last + i * PGI_GROUP_COLUMNS, x + i * x_stride, (size_t)k * sizeof(float));
        quantize_group(last, PGI_GROUP_COLUMNS, rows, m, block);
    }
}

static void set_quantized_rows(pgi_kernels *kernels) {
#define K(type, name, parameters) kernels->name = name;
#include "kernels/lists/quantized_rows.inc"
#undef K
}
