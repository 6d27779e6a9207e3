/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The operations of tiles_amx.h in plain C, for tests on CPUs without AMX. */
#ifndef PGI_KERNELS_X86_TILES_C_H
#define PGI_KERNELS_X86_TILES_C_H

#include <math.h>
#include <stdint.h>
#include <string.h>

static struct {
    int rows; /* of tiles 0 .. 5; 0: not begun */
    union {
        uint8_t bytes[16][64];
        int32_t words[16][16];
    } at[8];
} tiles;

static int tile_rows(int t) { return t < 6 ? tiles.rows : 16; }

static void tiles_begin(int m) {
    memset(&tiles, 0, sizeof tiles);
    tiles.rows = m;
}
static void tiles_end(void) { tiles.rows = 0; }

static void tile_zero(int t) { memset(&tiles.at[t], 0, sizeof tiles.at[t]); }
static void tile_load(int t, const void *from, int64_t row_stride) {
    for (int i = 0; i < tile_rows(t); i++) memcpy(tiles.at[t].bytes[i], (const char *)from + i * row_stride, 64);
}
static void tile_store(int t, void *to, int64_t row_stride) {
    for (int i = 0; i < tile_rows(t); i++) memcpy((char *)to + i * row_stride, tiles.at[t].bytes[i], 64);
}
static void tile_dot_s8_u8(int sums, int a, int b) {
    for (int i = 0; i < tiles.rows; i++)
        for (int k = 0; k < 64; k++)
            for (int j = 0; j < 16; j++)
                tiles.at[sums].words[i][j] +=
                    (int8_t)tiles.at[a].bytes[i][k] * (int)tiles.at[b].bytes[k / 4][4 * j + k % 4];
}

static void add_sums(const int32_t *sums, int32_t start, const void *scales, float factor, float *c) {
    float scale[16];
    memcpy(scale, scales, sizeof scale);
    for (int j = 0; j < 16; j++) c[j] = fmaf((float)(sums[j] + start), scale[j] * factor, c[j]);
}

#endif
