/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The checks of quantized weights. Their results are defined to the bit (quantized.h), so that the oracle here, which
 * reads the layouts one value at a time, must be met exactly on every CPU.
 */
#include "check.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "kernels/quantized.h"
#include "kernels/ref/fma.h"

/* ---- the oracle ---- */

static float load_float(const unsigned char *p) {
    float x;
    memcpy(&x, p, 4);
    return x;
}
static int32_t load_word(const unsigned char *p) {
    int32_t x;
    memcpy(&x, p, 4);
    return x;
}

/* Row r, column c of a block: scale and whole factor of the weight. */
static float block_scale(const unsigned char *block, int32_t dtype, int r) {
    if (dtype == PGI_DTYPE_INT8_BLOCKS) return load_float(block + 4 * r);
    unsigned char bits[4] = {0, 0, block[2 * r], block[2 * r + 1]};
    return load_float(bits);
}
static int block_value(const unsigned char *block, int32_t dtype, int r, int c) {
    if (dtype == PGI_DTYPE_INT8_BLOCKS) return (int)block[64 + (c / 4 * 16 + r) * 4 + c % 4] - 128;
    int pair = block[64 + (c / 8 * 16 + r) * 4 + c % 4], q = (c % 8 < 4 ? pair % 16 : pair / 16) - 8;
    int subs = block[32 + (c / 32 * 16 + r) / 2];
    return q * (r % 2 ? subs / 16 : subs % 16);
}
static const unsigned char *block_of(const pgi_matrix *w, int64_t row, int64_t group) {
    return (const unsigned char *)w->data +
           (row / 16 * pgi_quantized_groups(w->columns) + group) * pgi_quantized_block(w->dtype);
}

/* One row of x: q and scale of each group. */
static void quantize_oracle(const float *x, int64_t n, int8_t q[128], float *scale) {
    double max = 0;
    int bad = 0;
    for (int64_t j = 0; j < n; j++) {
        if (!isfinite(x[j])) bad = 1;
        if (fabs((double)x[j]) > max) max = fabs((double)x[j]);
    }
    int zero = bad || max < ldexp(1, -100);
    *scale = bad ? NAN : zero ? 0 : (float)max / 127;
    for (int64_t j = 0; j < 128; j++)
        q[j] = (int8_t)(zero || j >= n ? 0 : nearbyint((double)(x[j] * (127 / (float)max))));
}

static float product_oracle(const float *x, const pgi_matrix *w, int64_t row, float start) {
    float y = start;
    for (int64_t g = 0; g * 128 < w->columns; g++) {
        int8_t q[128];
        float scale;
        int sum = 0;
        quantize_oracle(x + g * 128, pgi_min64(128, w->columns - g * 128), q, &scale);
        const unsigned char *block = block_of(w, row, g);
        for (int c = 0; c < 128; c++) sum += q[c] * block_value(block, w->dtype, (int)(row % 16), c);
        y = pgi_fma((float)sum, block_scale(block, w->dtype, (int)(row % 16)) * scale, y);
    }
    return y;
}

static int same(float a, float b) { return isnan(a) ? isnan(b) : memcmp(&a, &b, 4) == 0; }

/* Blocks of any bytes that the format allows; the scales are sound numbers. */
static void random_blocks(check *c, unsigned char *out, int32_t dtype, int64_t n) {
    const int64_t bytes = pgi_quantized_block(dtype);
    for (int64_t b = 0; b < n; b++, out += bytes) {
        for (int64_t i = 0; i < bytes; i++) out[i] = (unsigned char)random_bits(c);
        for (int r = 0; r < 16; r++) {
            float scale = (float)random_unit(c);
            if (dtype == PGI_DTYPE_INT8_BLOCKS)
                memcpy(out + 4 * r, &scale, 4);
            else
                memcpy(out + 2 * r, (char *)&scale + 2, 2);
        }
        if (dtype == PGI_DTYPE_INT8_BLOCKS) {
            for (int64_t i = 64; i < bytes; i++) out[i] = out[i] ? out[i] : 1; /* -127 .. 127 */
            if (random_below(c, 4) == 0) memset(out + 64, random_below(c, 2) ? 1 : 255, 2048);
        } else {
            for (int64_t i = 32; i < 64; i++)
                out[i] = (unsigned char)(out[i] | 0x11 << random_below(c, 4)); /* 1 .. 15 */
            if (random_below(c, 4) == 0)
                memset(out + 32, 255, 32), memset(out + 64, random_below(c, 2) ? 0 : 255, 1024);
        }
    }
}

/* Activations, some groups at the ends of the range. */
static void random_row(check *c, float *x, int64_t n) {
    random_fill(c, x, n);
    switch (random_below(c, 12)) {
        case 0:
            for (int64_t i = 0; i < n; i++) x[i] = random_below(c, 8) ? 1 : -1;
            break;
        case 1:
            for (int64_t i = 0; i < n; i++) x[i] *= 0x1p-99f;
            break;
        case 2: x[random_below(c, n)] = random_below(c, 2) ? NAN : -INFINITY; break;
        case 3: memset(x, 0, (size_t)pgi_min64(n, 128) * 4); break;
        case 4:
            for (int64_t i = 0; i < n; i++) x[i] = (float)random_below(c, 5) + 0.5f; /* ties */
            x[0] = 127;
            break;
        default: break;
    }
}

/* ---- the kernels ---- */

enum { UNTOUCHED = 0x5A };

/* Whether row i of a block in the layout of tiles is as memset() left it. */
static int row_untouched(const unsigned char *block, int m, int i) {
    int wrong = 0;
    for (int j = 0; j < 128; j++) wrong += block[128 * i + j] != UNTOUCHED;
    for (int s = 0; s < 6; s++) /* scale and sums */
        for (int j = 0; j < 4; j++) wrong += block[128 * m + 4 * (s * m + i) + j] != UNTOUCHED;
    return !wrong;
}

void check_quantize_rows(check *c) {
    const int by_rows = c->kernels->quantized_tiles;
    static const int64_t lengths[] = {1, 31, 72, 127, 128, 129, 588, 1152, 4304};
    for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++) {
        for (int m = 1; m <= PGI_TILE_ROWS; m++) {
            int64_t k = lengths[l], groups = pgi_quantized_groups(k), stride = k + random_below(c, 5);
            size_t bytes = (size_t)(groups * m * PGI_TILE_ROW_BYTES);
            float *x = guarded_floats(c, (m - 1) * stride + k);
            unsigned char *tile = guarded(c, bytes, 64);
            const int rows = by_rows ? 1 + (int)random_below(c, m) : m;
            memset(tile, UNTOUCHED, bytes);
            for (int i = 0; i < m; i++) random_row(c, x + i * stride, k);
            c->kernels->quantize_rows(x, stride, rows, k, m, tile);
            for (int64_t g = 0; g < groups; g++) {
                const unsigned char *block = tile + g * m * PGI_TILE_ROW_BYTES;
                for (int i = rows; i < m; i++)
                    if (!row_untouched(block, m, i)) fail(c, "k %d, m %d: row %d of %d written", (int)k, m, i, rows);
                for (int i = 0; i < rows; i++) {
                    int8_t q[128];
                    float scale;
                    int sum = 0, wrong = 0;
                    quantize_oracle(x + i * stride + g * 128, pgi_min64(128, k - g * 128), q, &scale);
                    for (int s = 0; s < 4; s++) {
                        int sub = 0;
                        for (int j = 32 * s; j < 32 * s + 32; j++) {
                            wrong += (int8_t)block[by_rows ? 128 * i + j : (j / 4 * m + i) * 4 + j % 4] != q[j];
                            sub += q[j];
                        }
                        wrong += load_word(block + 136 * m + 4 * (s * m + i)) != -8 * sub;
                        sum += sub;
                    }
                    wrong += !same(load_float(block + 128 * m + 4 * i), scale);
                    wrong += load_word(block + 132 * m + 4 * i) != -128 * sum;
                    if (wrong) fail(c, "k %d, m %d: row %d, group %d: %d values differ", (int)k, m, i, (int)g, wrong);
                }
            }
            release_all(c);
        }
    }
}

typedef void (*product_fn)(const pgi_row_product *product);

static void check_product(check *c, product_fn product, int32_t dtype, int m, int64_t n, int64_t groups,
                          int one_stream) {
    const int accumulate = (int)random_below(c, 2), with_bias = (int)random_below(c, 2);
    const int64_t k = groups * 128, stride = n + random_below(c, 5), panels = (n + 15) / 16;
    const int64_t panel_bytes = groups * pgi_quantized_block(dtype), before_stride = n + random_below(c, 5);
    unsigned char *blocks = guarded(c, (size_t)(panels * panel_bytes), 0);
    float *x = guarded_floats(c, m * k), *bias = guarded_floats(c, n), *y = guarded_output(c, stride * (m - 1) + n);
    float *before = guarded_floats(c, before_stride * (m - 1) + n);
    void *tile = guarded(c, (size_t)(groups * m * PGI_TILE_ROW_BYTES), 0);
    pgi_matrix w = {blocks, dtype, n, k, NULL};
    random_blocks(c, blocks, dtype, panels * groups);
    random_fill(c, bias, n);
    for (int i = 0; i < m; i++) {
        if (accumulate) random_fill(c, y + i * stride, n);
        memcpy(before + i * before_stride, y + i * stride, (size_t)n * sizeof(float));
        random_row(c, x + i * k, k);
    }
    c->kernels->quantize_rows(x, k, m, k, m, tile);
    const int in_place = (int)random_below(c, 2);
    const float *start = !accumulate ? (with_bias ? bias : NULL) : in_place ? y : before;
    pgi_prefetch next = pgi_prefetch_start((char *)blocks, panel_bytes, panels, panel_bytes, groups);
    pgi_kernels plain;
    pgi_kernels_ref(&plain);
    const int fetches = random_below(c, 2) && product == c->kernels->product_int8 && product != plain.product_int8;
    product(&(pgi_row_product){.m = m,
                               .n = n,
                               .groups = groups,
                               .x = tile,
                               .w = blocks,
                               .panel_bytes = panel_bytes,
                               .one_stream = one_stream,
                               .start = start,
                               .start_stride = start == y        ? stride
                                               : start == before ? before_stride
                                                                 : 0,
                               .y = y,
                               .y_stride = stride,
                               .next_w = fetches ? &next : NULL});
    if (fetches && next.rows) fail(c, "%d x %d, %d groups: not all was prefetched", m, (int)n, (int)groups);
    for (int i = 0; i < m; i++) {
        for (int64_t r = 0; r < n; r++) {
            float want = product_oracle(x + i * k, &w, r,
                                        accumulate  ? before[i * before_stride + r]
                                        : with_bias ? bias[r]
                                                    : 0);
            if (!same(y[i * stride + r], want))
                fail(c, "%d x %d, %d groups [%d][%d]: found %a, expected %a", m, (int)n, (int)groups, i, (int)r,
                     y[i * stride + r], want);
        }
        for (int64_t r = n; r < stride && i + 1 < m; r++)
            if (!isnan(y[i * stride + r])) fail(c, "%d x %d: wrote between the rows", m, (int)n);
    }
    release_all(c);
}

static void check_products(check *c, product_fn product, int32_t dtype, int rows) {
    static const int64_t outputs[] = {1, 15, 16, 17, 31, 32, 33, 48, 64, 65, 100};
    for (int m = 1; m <= rows; m++)
        for (size_t n = 0; n < 2 * (sizeof outputs / sizeof *outputs); n++)
            check_product(c, product, dtype, m, outputs[n / 2], 1 + random_below(c, 3), n % 2);
}
void check_product_int8(check *c) {
    check_products(c, c->kernels->product_int8, PGI_DTYPE_INT8_BLOCKS, c->kernels->quantized_rows);
}
void check_stream_int8(check *c) {
    check_products(c, c->kernels->stream_int8, PGI_DTYPE_INT8_BLOCKS, c->kernels->stream_rows_int8);
}
void check_stream_int4(check *c) {
    check_products(c, c->kernels->stream_int4, PGI_DTYPE_INT4_BLOCKS, c->kernels->stream_rows_int4);
}

static void check_tiles(check *c, int64_t rows, int64_t n, int64_t groups) {
    const int accumulate = (int)random_below(c, 2), with_bias = (int)random_below(c, 2);
    const int64_t all_groups = groups + random_below(c, 3), k = groups * 128, stride = n + random_below(c, 5);
    const int64_t panels = (n + 15) / 16, panel_bytes = groups * PGI_INT8_BLOCK, tiles = (rows + 15) / 16;
    const int64_t x_tile = all_groups * PGI_TILE_ROWS * PGI_TILE_ROW_BYTES, last = (rows - 1) * stride + n;
    unsigned char *blocks = guarded(c, (size_t)(panels * panel_bytes), 0);
    char *x_tiles =
        guarded(c, (size_t)(tiles * x_tile - (all_groups - groups) * PGI_TILE_ROWS * PGI_TILE_ROW_BYTES), 0);
    float *x = guarded_floats(c, rows * k), *bias = guarded_floats(c, n), *before = guarded_floats(c, last);
    float *y = guarded_output(c, last);
    pgi_matrix w = {blocks, PGI_DTYPE_INT8_BLOCKS, n, k, NULL};
    pgi_low_rank_start low = {0};
    if (c->kernels->quantized_tiles && c->kernels->gemm_bf16_deep)
        low = random_low_rank(c, rows, n, c->kernels->gemm_bf16_nr);
    random_blocks(c, blocks, w.dtype, panels * groups);
    random_fill(c, bias, n);
    for (int64_t i = 0; i < rows; i++) {
        if (accumulate) random_fill(c, y + i * stride, n);
        random_row(c, x + i * k, k);
    }
    for (int64_t i = 0; i < n && low.k; i++) { /* whole too, for the sums of both */
        bias[i] = (float)random_below(c, 100);
        for (int64_t r = 0; r < rows && accumulate; r++) y[r * stride + i] = bias[i];
    }
    for (int64_t t = 0; t < tiles; t++) { /* as quantized.h lays them out, by the oracle */
        memset(x_tiles + t * x_tile, 0, (size_t)groups * PGI_TILE_ROWS * PGI_TILE_ROW_BYTES);
        for (int64_t g = 0; g < groups; g++) {
            char *block = x_tiles + t * x_tile + g * PGI_TILE_ROWS * PGI_TILE_ROW_BYTES;
            for (int64_t i = 0; i < 16 && 16 * t + i < rows; i++) {
                int32_t excess = 0;
                quantize_oracle(x + (16 * t + i) * k + g * 128, 128, (int8_t *)block + 128 * i,
                                (float *)(void *)(block + 128 * 16 + 4 * i));
                for (int j = 0; j < 128; j++) excess -= 128 * ((int8_t *)block)[128 * i + j];
                memcpy(block + 132 * 16 + 4 * i, &excess, sizeof excess);
            }
        }
    }
    memcpy(before, y, (size_t)last * sizeof(float));
    const float *start = accumulate ? y : with_bias ? bias : NULL;
    pgi_prefetch next = {.rows = 0};
    c->kernels->product_tiles(&(pgi_tile_product){.rows = rows,
                                                  .n = n,
                                                  .groups = groups,
                                                  .x = x_tiles,
                                                  .x_tile = x_tile,
                                                  .w = (const char *)blocks,
                                                  .panel_bytes = panel_bytes,
                                                  .start = start,
                                                  .start_stride = accumulate ? stride : 0,
                                                  .low = low,
                                                  .y = y,
                                                  .y_stride = stride,
                                                  .next_w = &next,
                                                  .next_x = &next});
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t r = 0; r < n; r++) {
            const float from = accumulate ? before[i * stride + r] : with_bias ? bias[r] : 0;
            const double first = low_rank_value(&low, i, r, c->kernels->gemm_bf16_nr);
            const float want = product_oracle(x + i * k, &w, r, low.k ? (float)(from + first) : from);
            if (!same(y[i * stride + r], want))
                fail(c, "%d x %d, %d groups [%d][%d]: found %a, expected %a", (int)rows, (int)n, (int)groups, (int)i,
                     (int)r, (double)y[i * stride + r], (double)want);
        }
        for (int64_t r = n; r < stride && i + 1 < rows; r++)
            if (!isnan(y[i * stride + r])) fail(c, "%d x %d: wrote between the rows", (int)rows, (int)n);
    }
    release_all(c);
}
void check_product_tiles(check *c) {
    static const int64_t rows[] = {1, 2, 15, 16, 17, 33, 50, 96, 97, 113, 200},
                         outputs[] = {1, 15, 16, 17, 31, 32, 33, 48, 63, 64};
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
        for (size_t n = 0; n < sizeof outputs / sizeof *outputs; n++)
            check_tiles(c, rows[r], outputs[n], 1 + random_below(c, random_below(c, 2) ? 4 : 20));
}

void check_unpack_int4(check *c) {
    for (int64_t n = 1; n < 6; n++) {
        unsigned char *blocks = guarded(c, (size_t)(n * PGI_INT4_BLOCK), 0);
        unsigned char *out = guarded(c, (size_t)n * PGI_INT8_BLOCK, 64);
        memset(out, 0x5A, (size_t)n * PGI_INT8_BLOCK);
        random_blocks(c, blocks, PGI_DTYPE_INT4_BLOCKS, n);
        c->kernels->unpack_int4(blocks, n, out);
        for (int64_t b = 0; b < n; b++) {
            const unsigned char *from = blocks + b * PGI_INT4_BLOCK, *to = out + b * PGI_INT8_BLOCK;
            for (int r = 0; r < 16; r++) {
                int wrong = block_scale(from, PGI_DTYPE_INT4_BLOCKS, r) != block_scale(to, PGI_DTYPE_INT8_BLOCKS, r);
                for (int j = 0; j < 128; j++)
                    wrong +=
                        block_value(from, PGI_DTYPE_INT4_BLOCKS, r, j) != block_value(to, PGI_DTYPE_INT8_BLOCKS, r, j);
                if (wrong) fail(c, "block %d of %d, row %d: %d values differ", (int)b, (int)n, r, wrong);
            }
        }
        release_all(c);
    }
}

/* ---- quantizing weights ---- */

static uint64_t hash(const unsigned char *p, int64_t n) { /* FNV-1a */
    uint64_t h = 0xCBF29CE484222325u;
    for (int64_t i = 0; i < n; i++) h = (h ^ p[i]) * 0x100000001B3u;
    return h;
}

/* int8: every weight is half a step from its value at the most. int4: so it would be with the 7.5 steps of one of the
 * scales that are tried and a factor rounded up, so that the squared error of a group is below that; and all groups
 * together are nearer than with one plain scale each. */
static void check_weights(check *c, int32_t from, int32_t dtype, int64_t rows, int64_t columns) {
    const size_t size = pgi_dtype_size(from);
    const int64_t bytes = pgi_quantized_bytes(dtype, rows, columns), panels = pgi_quantized_panels(rows);
    char *stored = guarded(c, (size_t)(rows * columns) * size, (size_t)random_below(c, 2));
    unsigned char *all = guarded(c, (size_t)bytes, 64), *cut = guarded(c, (size_t)bytes, 64);
    float *row = guarded_output(c, columns);
    pgi_matrix source = {stored, from, rows, columns, NULL}, w = {all, dtype, rows, columns, NULL};
    double all_errors = 0, all_plain = 0;
    random_weights(c, stored, from, rows * columns);
    memset(cut, 0x5A, (size_t)bytes);
    int64_t half = panels / 2;
    if (pgi_quantize_panels(&source, 0, dtype, 0, panels, all) != PG_OK ||
        pgi_quantize_panels(&source, 0, dtype, 0, half, cut) != PG_OK ||
        pgi_quantize_panels(&source, 0, dtype, half, panels, cut + half * (bytes / panels)) != PG_OK)
        fail(c, "status");
    if (memcmp(all, cut, (size_t)bytes)) fail(c, "in two parts: other bytes");
    for (int64_t r = 0; r < panels * 16; r++) {
        if (r < rows) pgi_quantized_row(&w, r, 0.5f, row);
        for (int64_t g = 0; g < pgi_quantized_groups(columns); g++) {
            const unsigned char *block = block_of(&w, r, g);
            double max = 0, part[4] = {0}, error = 0, plain = 0,
                   scale = (double)block_scale(block, dtype, (int)(r % 16));
            for (int64_t j = 128 * g; j < columns && j < 128 * g + 128 && r < rows; j++) {
                double *here = &part[j % 128 / 32], magnitude = fabs(weight_value(stored, from, r * columns + j));
                *here = fmax(*here, magnitude), max = fmax(max, magnitude);
            }
            for (int64_t j = 128 * g; j < 128 * g + 128; j++) {
                double want = r < rows && j < columns ? weight_value(stored, from, r * columns + j) : 0;
                int value = block_value(block, dtype, (int)(r % 16), (int)(j % 128));
                double got = scale * value, near = max / 7.5 * fmin(nearbyint(want / (max / 7.5)), 7);
                if (r < rows && j < columns && row[j] != (float)value * (float)scale * 0.5f) fail(c, "quantized_row");
                if (dtype == PGI_DTYPE_INT8_BLOCKS && fabs(got - want) > scale * 0.50001)
                    fail(c, "row %d, column %d: found %g, expected %g", (int)r, (int)j, got, want);
                error += (got - want) * (got - want), plain += max > 0 ? (near - want) * (near - want) : 0;
            }
            double least_step = max / (7.5 * 15), bound = 1e-30;
            for (int s = 0; s < 4; s++) bound += 32 * 0.25 * pow(part[s] / 7.5 + least_step, 2) * (1 + 0x1p-6);
            if (dtype == PGI_DTYPE_INT4_BLOCKS && error > bound)
                fail(c, "row %d, group %d: squared error %g, expected at most %g", (int)r, (int)g, error, bound);
            all_errors += error, all_plain += plain;
        }
    }
    if (rows >= 16 && all_errors > 0.95 * all_plain)
        fail(c, "squared error %g, with one plain scale a group %g", all_errors, all_plain);
    release_all(c);
}

static void check_quantize_panels(check *c) {
    static const int32_t dtypes[] = {PG_DTYPE_F32, PG_DTYPE_BF16, PG_DTYPE_F16};
    for (int32_t to = PGI_DTYPE_INT8_BLOCKS; to <= PGI_DTYPE_INT4_BLOCKS; to++)
        for (int d = 0; d < 3; d++) {
            check_weights(c, dtypes[d], to, 33, 300);
            check_weights(c, dtypes[d], to, 16, 128);
            check_weights(c, dtypes[d], to, 1, 72);
            check_weights(c, dtypes[d], to, 50, 588);
        }

    /* The bytes are those of every build: a change here needs another PGI_QUANTIZED_VERSION. */
    static const uint64_t expected[] = {0x50031C60155282DA, 0x3CF312DD5C132FED};
    check fixed = {.random = 5};
    float *x = guarded_floats(c, 40 * 200);
    random_fill(&fixed, x, 40 * 200);
    pgi_matrix source = {x, PG_DTYPE_F32, 40, 200, NULL};
    for (int f = 0; f < 2; f++) {
        int64_t bytes = pgi_quantized_bytes(PGI_DTYPE_INT8_BLOCKS + f, 40, 200);
        unsigned char *out = guarded(c, (size_t)bytes, 0);
        pgi_quantize_panels(&source, 0, PGI_DTYPE_INT8_BLOCKS + f, 0, 3, out);
        uint64_t found = hash(out, bytes);
        if (found != expected[f]) fail(c, "hash of int%d: found 0x%llx", f ? 4 : 8, (unsigned long long)found);

        static const float bad[] = {NAN, INFINITY, -INFINITY};
        for (int i = 0; i < 3; i++) {
            float before = x[37 * 200 + 150];
            x[37 * 200 + 150] = bad[i];
            pg_status status = pgi_quantize_panels(&source, 0, PGI_DTYPE_INT8_BLOCKS + f, 0, 3, out);
            if (status != PG_ERROR_ARGUMENT || !strstr(pg_last_error(), "row 37, column 150"))
                fail(c, "%g: found status %d, \"%s\"", (double)bad[i], (int)status, pg_last_error());
            x[37 * 200 + 150] = before;
        }
        /* Whole range: the largest numbers, subnormal ones. */
        float ends[128] = {FLT_MAX, -FLT_MAX, 1e30f}, tiny[128] = {1e-40f, -1e-40f}, row[128];
        pgi_matrix large = {ends, PG_DTYPE_F32, 1, 128, NULL}, small = {tiny, PG_DTYPE_F32, 1, 128, NULL};
        pgi_matrix made = {out, PGI_DTYPE_INT8_BLOCKS + f, 1, 128, NULL};
        if (pgi_quantize_panels(&large, 0, made.dtype, 0, 1, out) != PG_OK) fail(c, "the largest numbers: status");
        pgi_quantized_row(&made, 0, 1, row);
        if (!(fabsf(row[0]) > 0.75f * FLT_MAX) || !(row[1] < -0.75f * FLT_MAX) || row[5] != 0)
            fail(c, "the largest numbers: found %g, %g, %g", (double)row[0], (double)row[1], (double)row[5]);
        if (pgi_quantize_panels(&small, 0, made.dtype, 0, 1, out) != PG_OK) fail(c, "subnormal numbers: status");
        pgi_quantized_row(&made, 0, 1, row);
        if (row[0] != 0 || row[1] != 0) fail(c, "subnormal numbers: found %g", (double)row[0]);
    }
    release_all(c);
}

/* ---- linear layers ---- */

static void check_linear_shape(check *c, int32_t dtype, int64_t rows, int64_t in, int64_t out) {
    const int64_t x_stride = in + random_below(c, 3), y_stride = out + random_below(c, 3);
    const int64_t panels = pgi_quantized_panels(out), n_y = y_stride * (rows - 1) + out;
    unsigned char *blocks = guarded(c, (size_t)pgi_quantized_bytes(dtype, out, in), 0);
    float *x = guarded_floats(c, x_stride * (rows - 1) + in), *bias = guarded_floats(c, out), *first = NULL;
    random_blocks(c, blocks, dtype, panels * pgi_quantized_groups(in));
    random_fill(c, x, x_stride * (rows - 1) + in);
    random_fill(c, bias, out);
    pgi_linear linear = {{blocks, dtype, out, in, NULL}, random_below(c, 2) ? bias : NULL, NULL};
    for (int n_threads = 1; n_threads <= MAX_THREADS; n_threads++) {
        pgi_run run = run_on(c->kernels, n_threads);
        float *y = guarded_output(c, n_y);
        void *scratch = guarded(c, pgi_linear_scratch(c->kernels, n_threads), 0);
        if (pgi_linear_forward(&run, x, x_stride, rows, &linear, y, y_stride, scratch) != PG_OK) fail(c, "status");
        if (!first)
            first = y;
        else if (memcmp(first, y, (size_t)n_y * sizeof(float)))
            fail(c, "%d threads give another result than 1", n_threads);
    }
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t s = 0; s < 6; s++) {
            int64_t j = s == 0 ? 0 : s == 1 ? out - 1 : random_below(c, out);
            float want = product_oracle(x + i * x_stride, &linear.weight, j, linear.bias ? bias[j] : 0);
            if (!same(first[i * y_stride + j], want))
                fail(c, "%d x %d -> %d [%d][%d]: found %a, expected %a", (int)rows, (int)in, (int)out, (int)i, (int)j,
                     first[i * y_stride + j], want);
        }
        for (int64_t j = 0; j < out; j++)
            if (isnan(first[i * y_stride + j])) fail(c, "[%d][%d] was not written", (int)i, (int)j);
    }
    release_all(c);
}

void check_linear_quantized(check *c) {
    static const int shapes[][2] = {{588, 1152}, {1152, 290}, {4304, 270}, {16384, 40}, {72, 33}, {129, 257}, {1, 1}};
    static const int64_t row_counts[] = {1, 2, 3, 4, 5, 6, 13, 29};
    for (int32_t dtype = PGI_DTYPE_INT8_BLOCKS; dtype <= PGI_DTYPE_INT4_BLOCKS; dtype++) {
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
            check_linear_shape(c, dtype, row_counts[random_below(c, 8)], shapes[s][0], shapes[s][1]);
        for (int r = 0; r < 8; r++) check_linear_shape(c, dtype, row_counts[r], 300, 70);
        check_linear_shape(c, dtype, 600, 300, 20);  /* two parts of the rows */
        check_linear_shape(c, dtype, 40, 2300, 150); /* and of the groups */
        check_linear_shape(c, dtype, 280, 2300, 40); /* of the groups, and a large slice of the rows */
    }
    check_quantize_panels(c);

    pg_cancel flag = {.references = 1, .requested = 1};
    pgi_run run = run_on(c->kernels, 2);
    run.cancel = &flag;
    unsigned char *blocks = guarded(c, (size_t)pgi_quantized_bytes(PGI_DTYPE_INT8_BLOCKS, 300, 1200), 0);
    float *x = guarded_floats(c, 8 * 1200), *y = guarded_output(c, 8 * 300);
    void *scratch = guarded(c, pgi_linear_scratch(c->kernels, 2), 0);
    random_fill(c, x, 8 * 1200);
    pgi_linear linear = {{blocks, PGI_DTYPE_INT8_BLOCKS, 300, 1200, NULL}, NULL, NULL};
    for (int64_t rows = 1; rows <= 8; rows += 7)
        if (pgi_linear_forward(&run, x, 1200, rows, &linear, y, 300, scratch) != PG_ERROR_CANCELLED)
            fail(c, "linear goes on");
    release_all(c);
}
