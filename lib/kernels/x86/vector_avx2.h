/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Vectors of 8 floats for the templates of this folder: AVX2, FMA and F16C. */
#ifndef PGI_KERNELS_X86_VECTOR_AVX2_H
#define PGI_KERNELS_X86_VECTOR_AVX2_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

enum { LANES = 8, GEMM_MR = 6 };

/* A streamed product of m rows of x with k columns: whether the two vectors of sums take turns (simd/stream.inc.h), how
 * many rows of W it takes beside each other, and the bytes that each of these is fetched ahead. `way` is one of GEMV_*.
 * More streams find what is missing sooner, until registers run out: 16 registers hold the sums of one vector. */
#define GEMV_TURNS(m, k) ((m) > 1)
#define GEMV_W(m, way) \
    ((m) == 1 ? 6 : (way) == GEMV_IN_TURNS ? ((m) == 2 ? 6 : (m) == 3 ? 4 : 3) : (m) == 2 ? 4 : (m) == 3 ? 3 : 2)
#define GEMV_W_MAX 6
#define GEMV_AHEAD(m, way) ((way) == GEMV_ONE_STREAM ? 8192 : (m) == 1 ? 1024 : (m) == 2 ? 1536 : 3072)
#define GEMV_REGISTER "x" /* the constraint of a vector register */

typedef __m256 vec;
typedef __m256i ivec; /* 8 words of 32 bits */

static inline __m256i v_mask(int64_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline vec v_zero(void) { return _mm256_setzero_ps(); }
static inline vec v_set1(float x) { return _mm256_set1_ps(x); }
static inline vec v_load(const float *p) { return _mm256_loadu_ps(p); }
static inline void v_store(float *p, vec x) { _mm256_storeu_ps(p, x); }
/* The first n < LANES values, the others 0; nothing behind them is touched. */
static inline vec v_load_n(const float *p, int64_t n) { return _mm256_maskload_ps(p, v_mask(n)); }
static inline void v_store_n(float *p, vec x, int64_t n) { _mm256_maskstore_ps(p, v_mask(n), x); }

static inline vec v_add(vec a, vec b) { return _mm256_add_ps(a, b); }
static inline vec v_sub(vec a, vec b) { return _mm256_sub_ps(a, b); }
static inline vec v_mul(vec a, vec b) { return _mm256_mul_ps(a, b); }
static inline vec v_div(vec a, vec b) { return _mm256_div_ps(a, b); }
static inline vec v_fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }   /* a b + c */
static inline vec v_fnma(vec a, vec b, vec c) { return _mm256_fnmadd_ps(a, b, c); } /* c - a b */
static inline vec v_fms(vec a, vec b, vec c) { return _mm256_fmsub_ps(a, b, c); }   /* a b - c */
/* The second operand when one is NaN. */
static inline vec v_min(vec a, vec b) { return _mm256_min_ps(a, b); }
static inline vec v_max(vec a, vec b) { return _mm256_max_ps(a, b); }
static inline vec v_abs(vec x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }
static inline vec v_copysign(vec magnitude, vec sign) {
    return _mm256_or_ps(magnitude, _mm256_and_ps(_mm256_set1_ps(-0.0f), sign));
}
static inline vec v_if_negative(vec x, vec then, vec otherwise) {
    return _mm256_blendv_ps(otherwise, then, _mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_LT_OQ));
}
static inline vec v_round(vec x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
/* x 2^n for a whole n, |n| <= 252; in two factors, for 2^n alone may be out of range. */
static inline vec v_scale(vec x, vec n) {
    __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1), bias = _mm256_set1_epi32(127);
    __m256i rest = _mm256_sub_epi32(whole, half);
    vec a = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
    vec b = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
    return _mm256_mul_ps(_mm256_mul_ps(x, a), b);
}

static inline float v_sum(vec x) {
    __m128 z = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    z = _mm_add_ps(z, _mm_movehl_ps(z, z));
    return _mm_cvtss_f32(_mm_add_ss(z, _mm_movehdup_ps(z)));
}

/* NaN is passed over or returned. */
static inline float v_largest(vec x) {
    __m128 z = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    z = _mm_max_ps(z, _mm_movehl_ps(z, z));
    return _mm_cvtss_f32(_mm_max_ss(z, _mm_movehdup_ps(z)));
}

/* Weights of any alignment to f32. */
static inline vec v_load_f32(const void *p) { return _mm256_loadu_ps(p); }
static inline vec v_load_f32_n(const void *p, int64_t n) { return _mm256_maskload_ps(p, v_mask(n)); }
static inline __m128i load_halves_n(const void *p, int64_t n) {
    __m128i x = _mm_setzero_si128();
    memcpy(&x, p, (size_t)n * 2);
    return x;
}
static inline vec v_from_bf16(__m128i x) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
}
static inline vec v_load_bf16(const void *p) { return v_from_bf16(_mm_loadu_si128(p)); }
static inline vec v_load_bf16_n(const void *p, int64_t n) { return v_from_bf16(load_halves_n(p, n)); }
static inline vec v_load_f16(const void *p) { return _mm256_cvtph_ps(_mm_loadu_si128(p)); }
static inline vec v_load_f16_n(const void *p, int64_t n) { return _mm256_cvtph_ps(load_halves_n(p, n)); }

/* Words of 32 bits; the first n < 2 LANES half words, the others 0. */
static inline ivec i_zero(void) { return _mm256_setzero_si256(); }
static inline ivec i_load(const void *p) { return _mm256_loadu_si256(p); }
static inline ivec i_load_halves(const void *p, int64_t n) {
    ivec x = _mm256_setzero_si256();
    memcpy(&x, p, (size_t)n * 2);
    return x;
}
static inline ivec i_from_v(vec x) { return _mm256_castps_si256(x); }
static inline vec v_from_i(ivec x) { return _mm256_castsi256_ps(x); }
/* bf16 in the low and in the high half of each word, as f32. */
static inline vec v_low_bf16(ivec x) { return _mm256_castsi256_ps(_mm256_slli_epi32(x, 16)); }
static inline vec v_high_bf16(ivec x) {
    return _mm256_castsi256_ps(_mm256_and_si256(x, _mm256_set1_epi32((int)0xFFFF0000u)));
}

/* r[i][j] <-> r[j][i]: words within pairs of rows, pairs within fours, then the 128-bit halves. */
static inline void i_transpose(ivec r[8]) {
    ivec t[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) { /* r[i + j]: column 4h + j of rows i..i+3, half h */
        r[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int j = 0; j < 4; j++) {
        t[j] = _mm256_permute2x128_si256(r[j], r[j + 4], 0x20);
        t[j + 4] = _mm256_permute2x128_si256(r[j], r[j + 4], 0x31);
    }
    for (int i = 0; i < 8; i++) r[i] = t[i];
}

#endif
