/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Template: the kernel quantize_row, group after group, and the group `quantized_rows` of kernels.inc. The including
 * file first defines quantize_group(x, m, i, block), which quantizes 128 values, and unpack_int4.
 */
static void quantize_row(const float *x, int64_t k, int m, int i, void *tile) {
    char *block = tile;
    for (; k >= PGI_GROUP_COLUMNS; k -= PGI_GROUP_COLUMNS, x += PGI_GROUP_COLUMNS, block += PGI_TILE_ROW_BYTES * m)
        quantize_group(x, m, i, block);
    if (k > 0) {
        float last[PGI_GROUP_COLUMNS] = {0};
        memcpy(last, x, (size_t)k * sizeof(float));
        quantize_group(last, m, i, block);
    }
}

static void set_quantized_rows(pgi_kernels *kernels) {
#define K(type, name, parameters) kernels->name = name;
#include "kernels/lists/quantized_rows.inc"
#undef K
}
