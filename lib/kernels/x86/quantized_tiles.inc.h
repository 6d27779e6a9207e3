/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Template: product_int8 on tiles of AMX (tiles_amx.h) or on those of tiles_c.h. A block of weights is two tiles as it
 * lies in memory, u8 [2][16 fours][16 rows][4], and a group of 16 rows of activations is two, s8 [16][2][64].
 *
 * The sums of a group leave the tiles as integers. While the tiles multiply the next group, vectors add the last one in
 * f32 to `c`, which lies in the first-level cache.
 */
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/quantized.h"
#include "kernels/simd/unroll.h"

/* What one group of a pair of panels leaves: s32 [m][2 panels][16] */
typedef struct group_sums {
    __attribute__((aligned(64))) int32_t data[PGI_TILE_ROWS][2 * PGI_PANEL_ROWS];
} group_sums;

/* Sums of an even group are tiles 0 and 1, those of an odd one 2 and 3. */
#define MULTIPLY_GROUP(first, second, panels, x, w, panel_bytes, out)                                \
    do {                                                                                             \
        tile_zero(first);                                                                            \
        tile_load(4, (x), PGI_GROUP_COLUMNS);                                                        \
        tile_load(6, (w) + 64, 64);                                                                  \
        tile_dot_s8_u8(first, 4, 6);                                                                 \
        tile_load(5, (x) + 64, PGI_GROUP_COLUMNS);                                                   \
        tile_load(7, (w) + 64 + 1024, 64);                                                           \
        tile_dot_s8_u8(first, 5, 7);                                                                 \
        if ((panels) == 2) {                                                                         \
            tile_zero(second);                                                                       \
            tile_load(6, (w) + (panel_bytes) + 64, 64);                                              \
            tile_dot_s8_u8(second, 4, 6);                                                            \
            tile_load(7, (w) + (panel_bytes) + 64 + 1024, 64);                                       \
            tile_dot_s8_u8(second, 5, 7);                                                            \
        }                                                                                            \
        tile_store(first, (out)->data, sizeof *(out)->data);                                         \
        if ((panels) == 2) tile_store(second, (out)->data[0] + PGI_PANEL_ROWS, sizeof *(out)->data); \
    } while (0)

/* c[i][..] += the sums of a group: fma(sum, scale of w * scale of x, c), as quantized.h has it. */
static ALWAYS_INLINE void add_group(const int panels, int m, const char *x, const char *w, int64_t panel_bytes,
                                    const group_sums *sums, float *c) {
    const char *factors = x + m * PGI_GROUP_COLUMNS, *starts = factors + 4 * m;
    for (int i = 0; i < m; i++, c += panels * PGI_PANEL_ROWS) {
        int32_t start;
        float factor;
        memcpy(&start, starts + 4 * i, sizeof start);
        memcpy(&factor, factors + 4 * i, sizeof factor);
        for (int v = 0; v < panels; v++)
            add_sums(sums->data[i] + v * PGI_PANEL_ROWS, start, w + v * panel_bytes, factor, c + v * PGI_PANEL_ROWS);
    }
}

/* c: [m][16 panels] */
static ALWAYS_INLINE void multiply_groups(const int panels, int m, int64_t groups, const char *x, const char *w,
                                          int64_t panel_bytes, float *c) {
    group_sums sums[2];
    const int64_t step = (int64_t)PGI_TILE_ROW_BYTES * m;
    MULTIPLY_GROUP(0, 1, panels, x, w, panel_bytes, &sums[0]);
    for (int64_t g = 1; g < groups; g++) {
        const char *next_x = x + step, *next_w = w + PGI_INT8_BLOCK;
        if (g & 1)
            MULTIPLY_GROUP(2, 3, panels, next_x, next_w, panel_bytes, &sums[1]);
        else
            MULTIPLY_GROUP(0, 1, panels, next_x, next_w, panel_bytes, &sums[0]);
        add_group(panels, m, x, w, panel_bytes, &sums[~g & 1], c);
        x = next_x, w = next_w;
    }
    add_group(panels, m, x, w, panel_bytes, &sums[~groups & 1], c);
}

/* Outputs r .. r + 16 panels, or as many of them as there are. */
static ALWAYS_INLINE void tile_panels(const int panels, int m, int64_t n, int64_t groups, const char *x, const char *w,
                                      int64_t panel_bytes, const float *start, int64_t start_stride, float *y,
                                      int64_t y_stride) {
    __attribute__((aligned(64))) float c[PGI_TILE_ROWS * 2 * PGI_PANEL_ROWS];
    const int width = panels * PGI_PANEL_ROWS;
    for (int i = 0; i < m; i++) {
        float *to = c + i * width;
        if (!start || n < width) memset(to, 0, (size_t)width * sizeof *to);
        if (start) memcpy(to, start + i * start_stride, (size_t)(n < width ? n : width) * sizeof *to);
    }
    multiply_groups(panels, m, groups, x, w, panel_bytes, c);
    for (int i = 0; i < m; i++) memcpy(y + i * y_stride, c + i * width, (size_t)(n < width ? n : width) * sizeof *c);
}

static void product_int8(int m, int64_t n, int64_t groups, const void *x, const void *w, int64_t panel_bytes,
                         const float *start, int64_t start_stride, float *y, int64_t y_stride) {
    const char *panel = w;
    tiles_begin(m);
    for (; n > PGI_PANEL_ROWS; n -= 2 * PGI_PANEL_ROWS, panel += 2 * panel_bytes) {
        tile_panels(2, m, n, groups, x, panel, panel_bytes, start, start_stride, y, y_stride);
        if (start) start += 2 * PGI_PANEL_ROWS;
        y += 2 * PGI_PANEL_ROWS;
    }
    if (n > 0) tile_panels(1, m, n, groups, x, panel, panel_bytes, start, start_stride, y, y_stride);
    tiles_end();
}
