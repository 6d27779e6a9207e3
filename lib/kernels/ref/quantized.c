/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Products of quantized weights and activations in plain C; the layouts are in quantized.h. */
#include "kernels/quantized.h"

#include <math.h>
#include <string.h>

#include "base/float16.h"
#include "kernels/ref/fma.h"
#include "kernels/ref/ref.h"

enum { FOURS = PGI_GROUP_COLUMNS / 4, SUBS = PGI_GROUP_COLUMNS / PGI_SUB_COLUMNS, SUB_FOURS = FOURS / SUBS };

/* One group of a row: n <= 128 values, the others are zero. */
static void quantize_group(const float *x, int64_t n, int m, int i, char *block) {
    uint32_t largest = 0;
    for (int64_t j = 0; j < n; j++) {
        uint32_t bits;
        memcpy(&bits, &x[j], sizeof bits);
        bits &= 0x7FFFFFFF; /* NaN is above infinity, and that above all numbers */
        if (bits > largest) largest = bits;
    }
    float max = pgi_f32_from_bits(largest), factor = 0, scale = 0;
    if (largest >= 0x7F800000)
        scale = NAN;
    else if (max >= 0x1p-100f)
        factor = 127 / max, scale = max / 127;
    int32_t sum = 0;
    for (int s = 0; s < SUBS; s++) {
        int32_t sub_sum = 0;
        for (int f = s * SUB_FOURS; f < (s + 1) * SUB_FOURS; f++) {
            for (int j = 0; j < 4; j++) {
                int32_t q = 4 * f + j < n && factor != 0 ? (int32_t)lrintf(x[4 * f + j] * factor) : 0;
                block[((int64_t)f * m + i) * 4 + j] = (char)(int8_t)q;
                sub_sum += q;
            }
        }
        sum += sub_sum;
        sub_sum *= -8;
        memcpy(block + (int64_t)m * (PGI_GROUP_COLUMNS + 8 + 4 * s) + 4 * i, &sub_sum, 4);
    }
    sum *= -128;
    memcpy(block + (int64_t)m * PGI_GROUP_COLUMNS + 4 * i, &scale, 4);
    memcpy(block + (int64_t)m * (PGI_GROUP_COLUMNS + 4) + 4 * i, &sum, 4);
}

static void quantize_rows(const float *x, int64_t x_stride, int rows, int64_t k, int m, void *tile) {
    char *block = tile;
    for (int64_t at = 0; at < k; at += PGI_GROUP_COLUMNS, block += PGI_TILE_ROW_BYTES * m)
        for (int i = 0; i < rows; i++)
            quantize_group(x + i * x_stride + at, pgi_min64(k - at, PGI_GROUP_COLUMNS), m, i, block);
}

static void unpack_block(const unsigned char *block, unsigned char *out) {
    const unsigned char *sub = block + 2 * PGI_PANEL_ROWS, *q = block + 64;
    for (int r = 0; r < PGI_PANEL_ROWS; r++) {
        float scale = pgi_f32_from_bf16(pgi_load_u16(block + 2 * r));
        memcpy(out + 4 * r, &scale, 4);
    }
    out += 64;
    for (int e = 0; e < FOURS / 2; e++, q += 64) {
        for (int r = 0; r < PGI_PANEL_ROWS; r++) {
            int factor = sub[e / (SUB_FOURS / 2) * 8 + r / 2] >> 4 * (r & 1) & 15;
            for (int j = 0; j < 4; j++) {
                out[128 * e + 4 * r + j] = (unsigned char)(factor * ((q[4 * r + j] & 15) - 8) + 128);
                out[128 * e + 64 + 4 * r + j] = (unsigned char)(factor * ((q[4 * r + j] >> 4) - 8) + 128);
            }
        }
    }
}

static void unpack_int4(const void *blocks, int64_t n, void *out) {
    for (int64_t i = 0; i < n; i++)
        unpack_block((const unsigned char *)blocks + i * PGI_INT4_BLOCK, (unsigned char *)out + i * PGI_INT8_BLOCK);
}

/* c[r] += one int8 block times row i of a block of activations. */
static void add_block(int m, int i, const char *x, const unsigned char *w, float *c) {
    const unsigned char *q = w + 64;
    float scale = pgi_load_f32(x + (int64_t)m * PGI_GROUP_COLUMNS + 4 * i);
    int32_t start, sum[PGI_PANEL_ROWS];
    memcpy(&start, x + (int64_t)m * (PGI_GROUP_COLUMNS + 4) + 4 * i, 4);
    for (int r = 0; r < PGI_PANEL_ROWS; r++) sum[r] = start;
    for (int f = 0; f < FOURS; f++, q += 4 * PGI_PANEL_ROWS) {
        const signed char *four = (const signed char *)x + ((int64_t)f * m + i) * 4;
        for (int r = 0; r < PGI_PANEL_ROWS; r++)
            sum[r] += four[0] * q[4 * r] + four[1] * q[4 * r + 1] + four[2] * q[4 * r + 2] + four[3] * q[4 * r + 3];
    }
    for (int r = 0; r < PGI_PANEL_ROWS; r++) c[r] = pgi_fma((float)sum[r], pgi_load_f32(w + 4 * r) * scale, c[r]);
}

static void product(int is_int4, const pgi_row_product *p) {
    const int m = p->m;
    unsigned char unpacked[PGI_INT8_BLOCK];
    for (int64_t first = 0; first < p->n; first += PGI_PANEL_ROWS) {
        const unsigned char *block = (const unsigned char *)p->w + first / PGI_PANEL_ROWS * p->panel_bytes;
        const char *tile = p->x;
        int rows = (int)pgi_min64(PGI_PANEL_ROWS, p->n - first);
        float c[PGI_TILE_ROWS][PGI_PANEL_ROWS] = {{0}};
        for (int i = 0; i < m; i++)
            for (int r = 0; r < rows; r++) c[i][r] = p->start ? p->start[i * p->start_stride + first + r] : 0;
        for (int64_t g = 0; g < p->groups; g++, tile += PGI_TILE_ROW_BYTES * m) {
            if (is_int4) unpack_block(block, unpacked);
            for (int i = 0; i < m; i++) add_block(m, i, tile, is_int4 ? unpacked : block, c[i]);
            block += is_int4 ? PGI_INT4_BLOCK : PGI_INT8_BLOCK;
        }
        for (int i = 0; i < m; i++) memcpy(p->y + i * p->y_stride + first, c[i], (size_t)rows * sizeof(float));
    }
}

static void product_int8(const pgi_row_product *p) { product(0, p); }
static void stream_int8(const pgi_row_product *p) { product(0, p); }
static void stream_int4(const pgi_row_product *p) { product(1, p); }

static void product_tiles(const pgi_tile_product *p) {
    for (int64_t i = 0; i < p->rows; i++) {
        const char *tile = p->x + i / PGI_TILE_ROWS * p->x_tile;
        const int64_t in_tile = i % PGI_TILE_ROWS;
        for (int64_t r = 0; r < p->n; r++) {
            const char *block = p->w + r / PGI_PANEL_ROWS * p->panel_bytes;
            const int64_t in_panel = r % PGI_PANEL_ROWS;
            float sum = p->start ? p->start[i * p->start_stride + r] : 0;
            for (int64_t g = 0; g < p->groups; g++, block += PGI_INT8_BLOCK) {
                const char *rows_of_group = tile + g * PGI_TILE_ROW_BYTES * PGI_TILE_ROWS;
                const signed char *q = (const signed char *)rows_of_group + in_tile * PGI_GROUP_COLUMNS;
                const unsigned char *weights = (const unsigned char *)block + 64 + 4 * in_panel;
                int32_t total = 0;
                for (int c = 0; c < PGI_GROUP_COLUMNS; c++)
                    total += q[c] * (weights[c / 4 * 4 * PGI_PANEL_ROWS + c % 4] - 128);
                const float factor = pgi_load_f32(rows_of_group + PGI_TILE_ROWS * PGI_GROUP_COLUMNS + 4 * in_tile);
                sum = pgi_fma((float)total, pgi_load_f32(block + 4 * in_panel) * factor, sum);
            }
            p->y[i * p->y_stride + r] = sum;
        }
    }
}

void pgi_ref_quantized(pgi_kernels *kernels) {
    kernels->quantized_rows = kernels->stream_rows_int8 = kernels->stream_rows_int4 = 4;
    kernels->quantized_panels = 2;
    kernels->quantized_groups = 16;
    kernels->quantized_tiles = 0;
#define K(type, name, parameters) kernels->name = name;
#include "kernels/lists/quantized_products.inc"
#include "kernels/lists/quantized_rows.inc"
#include "kernels/lists/quantized_tiles.inc"
#undef K
}
