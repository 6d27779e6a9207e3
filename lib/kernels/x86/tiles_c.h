/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The operations of tiles_amx.h in plain C, for tests on CPUs without AMX. */
#ifndef PGI_KERNELS_X86_TILES_C_H
#define PGI_KERNELS_X86_TILES_C_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/float16.h"
#include "kernels/ref/fma.h"

static union {
    uint8_t bytes[16][64];
    int32_t words[16][16];
    float values[16][16];
} tiles[8];

static int tiles_are_configured; /* else AMX's instructions end the process */

static void tiles_begin(void) {
    memset(tiles, 0, sizeof tiles);
    tiles_are_configured = 1;
}
static void tiles_end(void) {
    memset(tiles, 0xA5, sizeof tiles);
    tiles_are_configured = 0;
}

static void tiles_see_memory(void) {}

static void tile_zero(int t) {
    if (!tiles_are_configured) abort();
    memset(&tiles[t], 0, sizeof tiles[t]);
}
static void tile_load(int t, const void *from, int64_t row_stride) {
    if (!tiles_are_configured) abort();
    for (int i = 0; i < 16; i++) memcpy(tiles[t].bytes[i], (const char *)from + i * row_stride, 64);
}
static void tile_store(int t, void *to, int64_t row_stride) {
    for (int i = 0; i < 16; i++) memcpy((char *)to + i * row_stride, tiles[t].bytes[i], 64);
}
static void tile_dot_su8(int sums, int a, int b) {
    for (int i = 0; i < 16; i++)
        for (int k = 0; k < 64; k++)
            for (int j = 0; j < 16; j++)
                tiles[sums].words[i][j] += (int8_t)tiles[a].bytes[i][k] * tiles[b].bytes[k / 4][4 * j + k % 4];
}

static void tile_dot_bf16(int sums, int a, int b) {
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 16; j++)
            for (int k = 0; k < 32; k++) {
                uint16_t x, w;
                memcpy(&x, tiles[a].bytes[i] + 2 * k, sizeof x);
                memcpy(&w, tiles[b].bytes[k / 2] + 4 * j + 2 * (k % 2), sizeof w);
                tiles[sums].values[i][j] += pgi_f32_from_bf16(x) * pgi_f32_from_bf16(w);
            }
}

typedef struct tile_row {
    float at[16];
} tile_row;

static tile_row tile_row_load(const float *from, int n) {
    tile_row row = {{0}};
    if (n > 0) memcpy(row.at, from, (size_t)n * sizeof *from);
    return row;
}
static void tile_row_store(float *to, tile_row row, int n) {
    if (n > 0) memcpy(to, row.at, (size_t)n * sizeof *to);
}
static tile_row tile_row_add(tile_row c, const int32_t *sums, const void *excess, tile_row scales, const void *factor) {
    int32_t more;
    float value;
    memcpy(&more, excess, sizeof more);
    memcpy(&value, factor, sizeof value);
    for (int j = 0; j < 16; j++) c.at[j] = pgi_fma((float)(sums[j] + more), scales.at[j] * value, c.at[j]);
    return c;
}

#endif
