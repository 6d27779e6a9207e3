/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* product_int8 as AMX has it, on tiles in plain C: for CPUs without AMX. */
#include <stdlib.h>

#include "check.h"
#include "kernels/x86/tiles_c.h"

#include "kernels/x86/quantized_tiles.inc.h"

/* x: [32 fours of columns][m][4] in each block, as plain C quantizes; AMX has [m][128]. */
static void product_from_fours(int m, int64_t n, int64_t groups, const void *x, const void *w, int64_t panel_bytes,
                               const float *start, int64_t start_stride, float *y, int64_t y_stride) {
    const size_t block = (size_t)(PGI_TILE_ROW_BYTES * m);
    char *by_rows = malloc((size_t)groups * block);
    if (!by_rows) exit(2);
    memcpy(by_rows, x, (size_t)groups * block);
    for (int64_t g = 0; g < groups; g++)
        for (int i = 0; i < m; i++)
            for (int j = 0; j < PGI_GROUP_COLUMNS; j++)
                by_rows[(size_t)g * block + (size_t)(PGI_GROUP_COLUMNS * i + j)] =
                    ((const char *)x)[(size_t)g * block + (size_t)((j / 4 * m + i) * 4 + j % 4)];
    product_int8(m, n, groups, by_rows, w, panel_bytes, start, start_stride, y, y_stride);
    free(by_rows);
}

void tiles_in_c(pgi_kernels *kernels) {
    kernels->product_int8 = product_from_fours;
    kernels->quantized_rows = PGI_TILE_ROWS;
}
