/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * pgi_quantize_panels(): weights to the blocks of quantized.h; pgi_quantized_row(): a row of them back. The bytes must
 * not depend on the CPU, so this is plain C, compiled without contraction, with sums in a fixed order.
 */
#include "kernels/quantized.h"

#include <string.h>

#include "base/float16.h"

enum { SUBS = PGI_GROUP_COLUMNS / PGI_SUB_COLUMNS };

/* The nearest whole number, ties to even, for |x| < 2^22; beside a constant this big no bit of a fraction is left. */
static inline float round_even(float x) { return (x + 12582912.0f) - 12582912.0f; }
/* lo for NaN */
static inline float clamp(float x, float lo, float hi) { return !(x > lo) ? lo : x > hi ? hi : x; }

/* n <= 128 weights of a row from column c on, the rest zeros. */
static void load_group(const pgi_matrix *from, int64_t row, int64_t column, float *out) {
    int64_t n = from->columns - column < PGI_GROUP_COLUMNS ? from->columns - column : PGI_GROUP_COLUMNS;
    const char *data = (const char *)from->data + (row * from->columns + column) * (int64_t)pgi_dtype_size(from->dtype);
    switch (from->dtype) {
        case PG_DTYPE_F32: memcpy(out, data, (size_t)n * sizeof(float)); break;
        case PG_DTYPE_BF16:
            for (int64_t i = 0; i < n; i++) out[i] = pgi_f32_from_bf16(pgi_load_u16(data + 2 * i));
            break;
        default:
            for (int64_t i = 0; i < n; i++) out[i] = pgi_f32_from_f16(pgi_load_u16(data + 2 * i));
    }
    for (int64_t i = n; i < PGI_GROUP_COLUMNS; i++) out[i] = 0;
}

/* The largest magnitude of n values as bits, which are in the order of the values; NaN is above infinity. */
static uint32_t largest_bits(const float *x, int n) {
    uint32_t largest = 0;
    for (int i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bits &= 0x7FFFFFFF;
        largest = bits > largest ? bits : largest;
    }
    return largest;
}

static pg_status not_finite(const float *x, int64_t row, int64_t column) {
    int i = 0;
    while (largest_bits(x + i, 1) < 0x7F800000) i++;
    return pgi_error(PG_ERROR_ARGUMENT, "row %lld, column %lld: found the weight %g, expected a finite number",
                     (long long)row, (long long)(column + i), (double)x[i]);
}

/* Row r of an int8 block. */
static void quantize_int8(const float *x, float max, int r, unsigned char *block) {
    /* Where 127 / max would overflow, all the weights are taken for zero. */
    float scale = max >= 0x1p-100f ? max / 127 : 0, factor = scale > 0 ? 127 / max : 0;
    memcpy(block + 4 * r, &scale, 4);
    unsigned char q[PGI_GROUP_COLUMNS];
    for (int c = 0; c < PGI_GROUP_COLUMNS; c++) q[c] = (unsigned char)(int)(round_even(x[c] * factor) + 128);
    for (int c = 0; c < PGI_GROUP_COLUMNS; c += 4) memcpy(block + 64 + c * PGI_PANEL_ROWS + 4 * r, q + c, 4);
}

/* Four floats, in the vector type that gcc and clang have for every CPU. Written out because gcc does not vectorize the
 * loops over 32 weights by itself. */
typedef float four __attribute__((vector_size(16)));
typedef int32_t four_words __attribute__((vector_size(16)));

static inline four load_four(const float *x) {
    four v;
    memcpy(&v, x, sizeof v);
    return v;
}
static inline four select_four(four_words mask, four then, four otherwise) {
    return (four)((mask & (four_words)then) | (~mask & (four_words)otherwise));
}
/* The whole numbers -8 .. 7 nearest to x * inverse. */
static inline four int4_of(four x, float inverse) {
    const four lo = {-8, -8, -8, -8}, hi = {7, 7, 7, 7};
    x = x * inverse;
    x = select_four(x < lo, lo, x);
    x = select_four(x > hi, hi, x);
    return (x + 12582912.0f) - 12582912.0f;
}

/* The squared error of 32 weights at a scale, whose inverse is given. */
static float error_int4(const float *x, float scale, float inverse) {
    four low = {0}, high = {0}; /* of the even fours, and of the odd ones */
    for (int c = 0; c < PGI_SUB_COLUMNS; c += 8) {
        four a = load_four(x + c), b = load_four(x + c + 4);
        a -= scale * int4_of(a, inverse);
        b -= scale * int4_of(b, inverse);
        low += a * a;
        high += b * b;
    }
    low += high;
    return (low[0] + low[2]) + (low[1] + low[3]);
}

/* bf16 bits of a positive number, rounded to nearest, ties to even. */
static uint16_t bf16_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

/* The best of a few values of sub for 32 weights whose largest magnitude is `max`; adds its error to *error. */
static int best_sub(const float *x, float max, float scale, float *error) {
    int middle = (int)round_even(clamp(max / (7.5f * scale), 1, 15)), best = 0;
    float least = 0;
    for (int sub = middle - 1; sub <= middle + 1; sub++) {
        if (sub < 1 || sub > 15) continue;
        float step = (float)sub * scale, e = error_int4(x, step, 1 / step);
        if (!best || e < least) best = sub, least = e;
    }
    *error += least;
    return best;
}

/* The scales of 128 weights of a row. */
typedef struct scales_int4 {
    float scale;
    uint16_t bits; /* of the scale, bf16 */
    int sub[SUBS];
} scales_int4;

/* Tries three scales and keeps the best: at sub = 15 the largest weight is 8.25, 7.5 or 7 steps from zero. */
static scales_int4 best_scales(const float *x, float max) {
    static const float steps[] = {15 * 8.25f, 15 * 7.5f, 15 * 7.0f};
    scales_int4 best = {.sub = {1, 1, 1, 1}};
    float largest[SUBS], least = 0;
    if (max < 0x1p-100f) return best; /* all the weights are taken for zero */
    for (int s = 0; s < SUBS; s++)
        largest[s] = pgi_f32_from_bits(largest_bits(x + s * PGI_SUB_COLUMNS, PGI_SUB_COLUMNS));
    for (int k = 0; k < 3; k++) {
        scales_int4 tried = {.bits = bf16_bits(max / steps[k])};
        float error = 0;
        tried.scale = pgi_f32_from_bf16(tried.bits);
        for (int s = 0; s < SUBS; s++)
            tried.sub[s] = best_sub(x + s * PGI_SUB_COLUMNS, largest[s], tried.scale, &error);
        if (best.scale == 0 || error < least) best = tried, least = error;
    }
    return best;
}

static void store_scales(const scales_int4 *scales, int r, unsigned char *block) {
    memcpy(block + 2 * r, &scales->bits, 2);
    for (int s = 0; s < SUBS; s++) {
        unsigned char *factors = block + 32 + 8 * s + r / 2;
        *factors = (unsigned char)(r & 1 ? *factors | scales->sub[s] << 4 : scales->sub[s]); /* row after row */
    }
}

/* Row r of an int4 block. */
static void quantize_int4(const float *x, float max, int r, unsigned char *block) {
    const scales_int4 scales = best_scales(x, max);
    store_scales(&scales, r, block);
    for (int s = 0; s < SUBS; s++) {
        float inverse = scales.scale > 0 ? 1 / ((float)scales.sub[s] * scales.scale) : 0;
        for (int e = 4 * s; e < 4 * s + 4; e++) {
            four low = int4_of(load_four(x + 8 * e), inverse) + 8,
                 high = int4_of(load_four(x + 8 * e + 4), inverse) + 8;
            for (int j = 0; j < 4; j++)
                block[64 + 64 * e + 4 * r + j] = (unsigned char)((int)low[j] | (int)high[j] << 4);
        }
    }
}

/* Row r of the int4 blocks of n_groups groups: what rounding column c leaves over goes to the columns behind it, times
 * factors[c]. x: the weights, which change. */
static void quantize_int4_feeding(float *x, int n_groups, const float (*factors)[PGI_FEEDBACK_COLUMNS], int r,
                                  unsigned char *blocks) {
    const int n = n_groups * PGI_GROUP_COLUMNS;
    for (int g = 0; g < n_groups; g++) {
        unsigned char *block = blocks + g * PGI_INT4_BLOCK;
        float *group = x + g * PGI_GROUP_COLUMNS;
        for (int i = 0; i < PGI_GROUP_COLUMNS; i++) /* feedback of the largest numbers there are may overflow */
            if (largest_bits(group + i, 1) >= 0x7F800000) group[i] = 0;
        const scales_int4 scales = best_scales(group, pgi_f32_from_bits(largest_bits(group, PGI_GROUP_COLUMNS)));
        store_scales(&scales, r, block);
        for (int i = 0; i < PGI_GROUP_COLUMNS; i++) {
            const int c = g * PGI_GROUP_COLUMNS + i;
            const float step = (float)scales.sub[i / PGI_SUB_COLUMNS] * scales.scale;
            const float q = round_even(clamp(step > 0 ? x[c] / step : 0, -8, 7)), left = x[c] - q * step;
            unsigned char *both = block + 64 + 64 * (i / 8) + 4 * r + i % 4; /* the low half comes first */
            *both = (unsigned char)(i & 4 ? *both | (int)(q + 8) << 4 : (int)(q + 8));
            for (int k = c + 1; k < n; k++) x[k] -= left * factors[c][k];
        }
    }
}

/* All of a row of int4 blocks, from the first one of its panel on. */
static pg_status quantize_row_feeding(const pgi_matrix *from, int64_t row, int64_t first_row, const float *factors,
                                      unsigned char *blocks) {
    enum { GROUPS = PGI_FEEDBACK_COLUMNS / PGI_GROUP_COLUMNS };
    const int64_t groups = pgi_quantized_groups(from->columns);
    for (int64_t g = 0; g < groups; g += GROUPS, factors += PGI_FEEDBACK_COLUMNS * PGI_FEEDBACK_COLUMNS) {
        const int n = groups - g < GROUPS ? (int)(groups - g) : GROUPS;
        float x[PGI_FEEDBACK_COLUMNS] = {0};
        for (int i = 0; i < n && row < from->rows; i++) {
            float *group = x + i * PGI_GROUP_COLUMNS;
            load_group(from, row - first_row, (g + i) * PGI_GROUP_COLUMNS, group);
            if (largest_bits(group, PGI_GROUP_COLUMNS) >= 0x7F800000)
                return not_finite(group, row, (g + i) * PGI_GROUP_COLUMNS);
        }
        quantize_int4_feeding(x, n, (const float(*)[PGI_FEEDBACK_COLUMNS])(const void *)factors,
                              (int)(row % PGI_PANEL_ROWS), blocks + g * PGI_INT4_BLOCK);
    }
    return PG_OK;
}

pg_status pgi_quantize_panels_feeding(const pgi_matrix *from, int64_t first_row, const float *factors, int64_t begin,
                                      int64_t end, void *out) {
    const int64_t panel_bytes = pgi_quantized_groups(from->columns) * PGI_INT4_BLOCK;
    for (int64_t row = begin * PGI_PANEL_ROWS; row < end * PGI_PANEL_ROWS; row++)
        PGI_TRY(quantize_row_feeding(from, row, first_row, factors,
                                     (unsigned char *)out + (row / PGI_PANEL_ROWS - begin) * panel_bytes));
    return PG_OK;
}

pg_status pgi_quantize_panels(const pgi_matrix *from, int64_t first_row, int32_t dtype, int64_t begin, int64_t end,
                              void *out) {
    static const float zeros[PGI_GROUP_COLUMNS];
    const int64_t groups = pgi_quantized_groups(from->columns);
    unsigned char *block = out;
    for (int64_t panel = begin; panel < end; panel++) {
        for (int64_t g = 0; g < groups; g++, block += pgi_quantized_block(dtype)) {
            for (int r = 0; r < PGI_PANEL_ROWS; r++) {
                int64_t row = panel * PGI_PANEL_ROWS + r;
                float group[PGI_GROUP_COLUMNS];
                const float *x = zeros;
                if (row < from->rows) load_group(from, row - first_row, g * PGI_GROUP_COLUMNS, group), x = group;
                uint32_t largest = largest_bits(x, PGI_GROUP_COLUMNS);
                if (largest >= 0x7F800000) return not_finite(x, row, g * PGI_GROUP_COLUMNS);
                if (dtype == PGI_DTYPE_INT8_BLOCKS)
                    quantize_int8(x, pgi_f32_from_bits(largest), r, block);
                else
                    quantize_int4(x, pgi_f32_from_bits(largest), r, block);
            }
        }
    }
    return PG_OK;
}

void pgi_quantized_row(const pgi_matrix *matrix, int64_t row, float factor, float *out) {
    const int64_t bytes = pgi_quantized_block(matrix->dtype), groups = pgi_quantized_groups(matrix->columns);
    const unsigned char *block = (const unsigned char *)matrix->data + row / PGI_PANEL_ROWS * groups * bytes;
    const int r = (int)(row % PGI_PANEL_ROWS);
    for (int64_t c = 0; c < matrix->columns; c++) {
        const unsigned char *b = block + c / PGI_GROUP_COLUMNS * bytes;
        int i = (int)(c % PGI_GROUP_COLUMNS), q;
        float scale;
        if (matrix->dtype == PGI_DTYPE_INT8_BLOCKS) {
            scale = pgi_load_f32(b + 4 * r);
            q = b[64 + i / 4 * 64 + 4 * r + i % 4] - 128;
        } else {
            scale = pgi_f32_from_bf16(pgi_load_u16(b + 2 * r));
            q = (b[64 + i / 8 * 64 + 4 * r + i % 4] >> (i & 4) & 15) - 8;
            q *= b[32 + i / PGI_SUB_COLUMNS * 8 + r / 2] >> 4 * (r & 1) & 15;
        }
        out[c] = (float)q * scale * factor;
    }
}
