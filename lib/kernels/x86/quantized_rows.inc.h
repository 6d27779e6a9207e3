/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The group `quantized_rows` of kernels.inc for AVX2: quantizes activations, and unpacks int4 blocks to int8 blocks.
 * AVX-512 uses it too, because wider vectors gain nothing here. Where Q_TILES is 1, activations as tiles of AMX have
 * them. */
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/quantized.h"

#ifndef Q_TILES
#define Q_TILES 0
#endif

static inline int32_t sum_words(__m256i x) {
    __m128i y = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    y = _mm_add_epi32(y, _mm_shuffle_epi32(y, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(y, _mm_shuffle_epi32(y, 0xB1)));
}

/* 128 values. */
static inline void quantize_group(const float *x, int m, int i, char *block) {
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
    uint32_t largest = (uint32_t)_mm_cvtsi128_si32(four);
    float max, factor = 0, scale = 0;
    memcpy(&max, &largest, sizeof max);
    if (largest >= 0x7F800000) /* an infinity or a NaN */
        scale = NAN;
    else if (max >= 0x1p-100f)
        factor = 127 / max, scale = max / 127;

    int32_t sum = 0;
    __m256 factors = _mm256_set1_ps(factor);
    for (int s = 0; s < PGI_GROUP_COLUMNS / PGI_SUB_COLUMNS; s++) {
        __m256i q[4];
        if (factor == 0) {
            for (int v = 0; v < 4; v++) q[v] = _mm256_setzero_si256();
        } else {
            for (int v = 0; v < 4; v++)
                q[v] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 32 * s + 8 * v), factors));
        }
        int32_t sub_sum = sum_words(_mm256_add_epi32(_mm256_add_epi32(q[0], q[1]), _mm256_add_epi32(q[2], q[3])));
        /* Packing works in halves: fours 0 2 4 6 | 1 3 5 7. */
        __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
        bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        if (Q_TILES || m == 1) {
            _mm256_storeu_si256((__m256i *)(block + (int64_t)PGI_GROUP_COLUMNS * i + 32 * s), bytes);
        } else {
            char *out = block + ((int64_t)8 * s * m + i) * 4;
            int32_t fours[8];
            _mm256_storeu_si256((__m256i *)fours, bytes);
            for (int f = 0; f < 8; f++) memcpy(out + (int64_t)f * m * 4, &fours[f], 4);
        }
        sum += sub_sum;
        sub_sum *= -8;
        memcpy(block + (int64_t)m * (PGI_GROUP_COLUMNS + 8 + 4 * s) + 4 * i, &sub_sum, 4);
    }
    sum *= -128;
    memcpy(block + (int64_t)m * PGI_GROUP_COLUMNS + 4 * i, &scale, 4);
    memcpy(block + (int64_t)m * (PGI_GROUP_COLUMNS + 4) + 4 * i, &sum, 4);
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

#include "kernels/simd/quantize_row.inc.h"
