/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The group `yuv` for AVX2: exact integers, so the same bits as plain C. */
#include "kernels/yuv.h"

#include <immintrin.h>

static inline __m256i pair_of(const int16_t pair[2]) {
    return _mm256_set1_epi32((int32_t)((uint32_t)(uint16_t)pair[0] | (uint32_t)(uint16_t)pair[1] << 16));
}

static void yuv_terms(const pgi_yuv *yuv, const uint8_t *chroma, int64_t n, int16_t *terms, int64_t stride) {
    const __m256i start = _mm256_set1_epi32(yuv->start), offset = _mm256_set1_epi32(yuv->offset);
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256i x = _mm256_cvtepu8_epi16(_mm_loadu_si128((const void *)(chroma + 2 * i)));
        x = _mm256_sub_epi16(x, _mm256_set1_epi16(128));
        for (int c = 0; c < 3; c++) {
            const __m256i low = _mm256_add_epi32(_mm256_madd_epi16(x, pair_of(yuv->low[c])), start);
            const __m256i high =
                _mm256_add_epi32(_mm256_madd_epi16(x, pair_of(yuv->high[c])), _mm256_srai_epi32(low, PGI_YUV_LOW_BITS));
            const __m256i term = _mm256_add_epi32(_mm256_srai_epi32(high, PGI_YUV_BITS - PGI_YUV_LOW_BITS), offset);
            const __m256i twice = _mm256_blend_epi16(term, _mm256_slli_epi32(term, 16), 0xAA);
            _mm256_storeu_si256((void *)(terms + c * stride + 2 * i), twice);
        }
    }
    for (; i < n; i++)
        for (int c = 0; c < 3; c++) {
            const int32_t term = pgi_yuv_term(yuv, c, chroma[2 * i] - 128, chroma[2 * i + 1] - 128);
            terms[c * stride + 2 * i] = terms[c * stride + 2 * i + 1] = (int16_t)term;
        }
}

/* 16 samples of a channel. Sums that leave 16 bits are cut off, far beyond 255 or below 0. */
static inline __m256i samples_of(__m256i scaled, const int16_t *terms) {
    const __m256i sum = _mm256_adds_epi16(scaled, _mm256_loadu_si256((const void *)terms));
    return _mm256_srai_epi16(_mm256_mulhi_epi16(sum, _mm256_set1_epi16(PGI_YUV_INVERSE)), PGI_YUV_INVERSE_BITS - 16);
}

/* 16 bytes of R, of G and of B, and 16 more in the upper halves, to 48 bytes of pixels and 48 more. */
static inline void store_pixels(__m256i r, __m256i g, __m256i b, uint8_t *out) {
    const __m256i r0 = _mm256_setr_epi8(0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1, -1, 5, /* */
                                        0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1, -1, 5);
    const __m256i g0 = _mm256_setr_epi8(-1, 0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1, -1, /* */
                                        -1, 0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1, -1);
    const __m256i b0 = _mm256_setr_epi8(-1, -1, 0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1, /* */
                                        -1, -1, 0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1);
    const __m256i r1 = _mm256_setr_epi8(-1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1, 10, -1, /* */
                                        -1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1, 10, -1);
    const __m256i g1 = _mm256_setr_epi8(5, -1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1, 10, /* */
                                        5, -1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1, 10);
    const __m256i b1 = _mm256_setr_epi8(-1, 5, -1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1, /* */
                                        -1, 5, -1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1);
    const __m256i r2 = _mm256_setr_epi8(-1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15, -1, -1, /* */
                                        -1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15, -1, -1);
    const __m256i g2 = _mm256_setr_epi8(-1, -1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15, -1, /* */
                                        -1, -1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15, -1);
    const __m256i b2 = _mm256_setr_epi8(10, -1, -1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15, /* */
                                        10, -1, -1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15);
#define THREE(x, y, z) \
    _mm256_or_si256(_mm256_or_si256(_mm256_shuffle_epi8(r, x), _mm256_shuffle_epi8(g, y)), _mm256_shuffle_epi8(b, z))
    const __m256i first = THREE(r0, g0, b0), second = THREE(r1, g1, b1), third = THREE(r2, g2, b2);
#undef THREE
    _mm256_storeu_si256((void *)out, _mm256_permute2x128_si256(first, second, 0x20));
    _mm256_storeu_si256((void *)(out + 32), _mm256_permute2x128_si256(third, first, 0x30));
    _mm256_storeu_si256((void *)(out + 64), _mm256_permute2x128_si256(second, third, 0x31));
}

static void yuv_row(const pgi_yuv *yuv, const uint8_t *y, const int16_t *terms, int64_t stride, int64_t n,
                    uint8_t *out) {
    const __m256i scale = _mm256_set1_epi16(yuv->scale);
    int64_t i = 0;
    for (; i + 32 <= n; i += 32) {
        __m256i part[2], rgb[3];
        for (int k = 0; k < 2; k++)
            part[k] = _mm256_mullo_epi16(_mm256_cvtepu8_epi16(_mm_loadu_si128((const void *)(y + i + 16 * k))), scale);
        for (int c = 0; c < 3; c++) {
            const int16_t *t = terms + c * stride + i;
            const __m256i bytes = _mm256_packus_epi16(samples_of(part[0], t), samples_of(part[1], t + 16));
            rgb[c] = _mm256_permute4x64_epi64(bytes, 0xD8); /* packing works on halves */
        }
        store_pixels(rgb[0], rgb[1], rgb[2], out + 3 * i);
    }
    for (; i < n; i++)
        for (int c = 0; c < 3; c++) out[3 * i + c] = pgi_yuv_sample(yuv, y[i], terms[c * stride + i]);
}

static void set_yuv(pgi_kernels *kernels) {
#define K(type, name, parameters) kernels->name = name;
#include "kernels/lists/yuv.inc"
#undef K
}
