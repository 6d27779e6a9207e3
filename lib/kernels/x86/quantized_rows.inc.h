/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The group `quantized_rows` of kernels.inc for AVX2: quantizes activations, and unpacks int4 blocks to int8 blocks.
 * AVX-512 uses it too, because wider vectors gain nothing here. Where Q_TILES is 1, activations as tiles of AMX have
 * them. */
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/quantized.h"
#include "kernels/simd/unroll.h"

#ifndef Q_TILES
#define Q_TILES 0
#endif

enum { ROWS_AT_ONCE = 4 };

/* The bits of the largest |x| of 128: NaN is above infinity, and that above all numbers. */
static inline uint32_t largest_bits(const float *x) {
    const __m256i no_sign = _mm256_set1_epi32(0x7FFFFFFF);
    __m256i all[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
    for (int j = 0; j < PGI_GROUP_COLUMNS; j += 32)
        for (int v = 0; v < 4; v++)
            all[v] = _mm256_max_epu32(all[v],
                                      _mm256_and_si256(_mm256_loadu_si256((const __m256i *)(x + j + 8 * v)), no_sign));
    __m256i eight = _mm256_max_epu32(_mm256_max_epu32(all[0], all[1]), _mm256_max_epu32(all[2], all[3]));
    __m128i four = _mm_max_epu32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    four = _mm_max_epu32(four, _mm_shuffle_epi32(four, 0x4E));
    four = _mm_max_epu32(four, _mm_shuffle_epi32(four, 0xB1));
    return (uint32_t)_mm_cvtsi128_si32(four);
}

/* 32 values times `factor`, and of eight places the sum of their four. Packing works in halves, so the fours of columns
 * are in the order 0 2 4 6 | 1 3 5 7. */
static inline __m256i quantize_sub(const float *x, __m256 factor, __m256i *sum) {
    __m256i q[4];
    for (int v = 0; v < 4; v++) q[v] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * v), factor));
    *sum = _mm256_add_epi32(_mm256_add_epi32(q[0], q[1]), _mm256_add_epi32(q[2], q[3]));
    return _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
}

/* The sum of each row. */
static inline __m128i sum_rows(const __m256i rows[ROWS_AT_ONCE]) {
    const __m256i pairs = _mm256_hadd_epi32(_mm256_hadd_epi32(rows[0], rows[1]), _mm256_hadd_epi32(rows[2], rows[3]));
    return _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
}

/* Fours of four rows side by side: out[f][row], `step` bytes from one f to the next. */
static inline void store_fours(char *out, int64_t step, const __m256i rows[ROWS_AT_ONCE]) {
    const __m256i low01 = _mm256_unpacklo_epi32(rows[0], rows[1]), high01 = _mm256_unpackhi_epi32(rows[0], rows[1]);
    const __m256i low23 = _mm256_unpacklo_epi32(rows[2], rows[3]), high23 = _mm256_unpackhi_epi32(rows[2], rows[3]);
    const __m256i fours[4] = {_mm256_unpacklo_epi64(low01, low23), _mm256_unpackhi_epi64(low01, low23),
                              _mm256_unpacklo_epi64(high01, high23), _mm256_unpackhi_epi64(high01, high23)};
    for (int j = 0; j < 4; j++) {
        _mm_storeu_si128((__m128i *)(out + step * 2 * j), _mm256_castsi256_si128(fours[j]));
        _mm_storeu_si128((__m128i *)(out + step * (2 * j + 1)), _mm256_extracti128_si256(fours[j], 1));
    }
}

/* Rows i .. i + n of a tile of m; n <= 4. Where there are fewer, they are the last ones of the tile (but for Q_TILES),
 * and what is stored of the others is overwritten: by the fours that follow, by the scales, and by the rows before,
 * whose turn comes later. */
static ALWAYS_INLINE void quantize_some(const int n, const float *x, int64_t x_stride, int m, int i, char *block) {
    static const float zeros[PGI_GROUP_COLUMNS] = {0};
    float scale[ROWS_AT_ONCE] = {0}, factor[ROWS_AT_ONCE] = {0};
    __m128i total = _mm_setzero_si128();
    int32_t words[ROWS_AT_ONCE];
    const float *from[ROWS_AT_ONCE];
    char *out = block + 4 * i;
    UNROLL for (int r = 0; r < n; r++) {
        const uint32_t largest = largest_bits(x + r * x_stride);
        float max;
        memcpy(&max, &largest, sizeof max);
        if (largest >= 0x7F800000) /* an infinity or a NaN */
            scale[r] = NAN;
        else if (max >= 0x1p-100f)
            factor[r] = 127 / max, scale[r] = max / 127;
        from[r] = factor[r] == 0 ? zeros : x + r * x_stride;
    }
    for (int s = 0; s < PGI_GROUP_COLUMNS / PGI_SUB_COLUMNS; s++) {
        __m256i bytes[ROWS_AT_ONCE], sums[ROWS_AT_ONCE];
        UNROLL for (int r = 0; r < ROWS_AT_ONCE; r++) {
            bytes[r] = sums[r] = _mm256_setzero_si256();
            if (r < n) bytes[r] = quantize_sub(from[r] + PGI_SUB_COLUMNS * s, _mm256_set1_ps(factor[r]), &sums[r]);
        }
        if (Q_TILES || m == 1) {
            UNROLL for (int r = 0; r < n; r++)
                _mm256_storeu_si256((__m256i *)(block + (int64_t)PGI_GROUP_COLUMNS * (i + r) + PGI_SUB_COLUMNS * s),
                                    _mm256_permutevar8x32_epi32(bytes[r], _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
        } else {
            store_fours(out + (int64_t)PGI_SUB_COLUMNS * s * m, (int64_t)4 * m, bytes);
        }
        const __m128i of_sub = sum_rows(sums);
        total = _mm_add_epi32(total, of_sub);
        _mm_storeu_si128((__m128i *)words, _mm_sub_epi32(_mm_setzero_si128(), _mm_slli_epi32(of_sub, 3)));
        memcpy(out + (int64_t)m * (PGI_GROUP_COLUMNS + 8 + 4 * s), words, 4 * (size_t)n);
    }
    memcpy(out + (int64_t)m * PGI_GROUP_COLUMNS, scale, 4 * (size_t)n);
    _mm_storeu_si128((__m128i *)words, _mm_sub_epi32(_mm_setzero_si128(), _mm_slli_epi32(total, 7)));
    memcpy(out + (int64_t)m * (PGI_GROUP_COLUMNS + 4), words, 4 * (size_t)n);
}

/* 128 values of each row. */
static void quantize_group(const float *x, int64_t x_stride, int rows, int m, char *block) {
    int i = rows / ROWS_AT_ONCE * ROWS_AT_ONCE;
    switch (rows % ROWS_AT_ONCE) {
        case 1: quantize_some(1, x + i * x_stride, x_stride, m, i, block); break;
        case 2: quantize_some(2, x + i * x_stride, x_stride, m, i, block); break;
        case 3: quantize_some(3, x + i * x_stride, x_stride, m, i, block); break;
        default: break;
    }
    while ((i -= ROWS_AT_ONCE) >= 0) quantize_some(ROWS_AT_ONCE, x + i * x_stride, x_stride, m, i, block);
}

/* sub * (n - 8) + 128 of each byte: sub times two nibbles n at once, as no product of the
 * lower one carries. */
static void unpack_int4(const void *blocks, int64_t n, void *int8_blocks) {
    const char *in = blocks;
    char *out = int8_blocks;
    const __m256i nibble = _mm256_set1_epi8(15), pair = _mm256_set1_epi64x(0xF0000000F);
    for (; n > 0; n--, in += PGI_INT4_BLOCK, out += PGI_INT8_BLOCK) {
        for (int h = 0; h < 2; h++) /* of the rows */
            _mm256_storeu_si256(
                (__m256i *)(out + 32 * h),
                _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(in + 16 * h))), 16));
        for (int s = 0; s < PGI_GROUP_COLUMNS / PGI_SUB_COLUMNS; s++) {
            for (int h = 0; h < 2; h++) {
                int32_t nibbles;
                memcpy(&nibbles, in + 2 * PGI_PANEL_ROWS + 8 * s + 4 * h, 4);
                __m256i sub = _mm256_cvtepu8_epi64(_mm_cvtsi32_si128(nibbles));
                sub = _mm256_and_si256(_mm256_or_si256(sub, _mm256_slli_epi64(sub, 28)), pair); /* a word a row */
                sub = _mm256_or_si256(sub, _mm256_slli_epi32(sub, 16));
                __m256i bytes = _mm256_or_si256(sub, _mm256_slli_epi16(sub, 8));
                /* 128 - 8 sub; the shift moves no bit into the next byte, as sub is below 16 */
                __m256i start = _mm256_sub_epi8(_mm256_set1_epi8(-128), _mm256_slli_epi16(bytes, 3));
                for (int e = 4 * s; e < 4 * s + 4; e++) {
                    __m256i both = _mm256_loadu_si256((const __m256i *)(in + 64 + 64 * e + 32 * h));
                    __m256i low = _mm256_and_si256(both, nibble);
                    __m256i high = _mm256_and_si256(_mm256_srli_epi16(both, 4), nibble);
                    _mm256_storeu_si256((__m256i *)(out + 64 + 128 * e + 32 * h),
                                        _mm256_add_epi8(_mm256_mullo_epi16(low, sub), start));
                    _mm256_storeu_si256((__m256i *)(out + 128 + 128 * e + 32 * h),
                                        _mm256_add_epi8(_mm256_mullo_epi16(high, sub), start));
                }
            }
        }
    }
}

#include "kernels/simd/quantize_rows.inc.h"
