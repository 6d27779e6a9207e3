/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Vectors of 16 floats for the templates of this folder: AVX-512 F, BW, DQ, VL. */
#ifndef PGI_KERNELS_X86_VECTOR_AVX512_H
#define PGI_KERNELS_X86_VECTOR_AVX512_H

#include <immintrin.h>
#include <stdint.h>

enum { LANES = 16, GEMM_MR = 14 };

/* A streamed product of m rows of x with k columns, as vector_avx2.h has it. Registers hold both vectors of sums for 4
 * rows of x and 3 of W, or 3 and 4. Longer rows of x outgrow a first-level cache of 48 KiB and are read again for each
 * block of W: then blocks are of 6 rows, or 8, in turns. */
#define GEMV_TURNS(m, k) ((m) > 2 && (m) * (k) > 10240)
#define GEMV_W(m, way) ((way) == GEMV_IN_TURNS ? ((m) == 3 ? 8 : 6) : (m) == 1 ? 8 : (m) == 2 ? 6 : (m) == 3 ? 4 : 3)
#define GEMV_W_MAX 8
#define GEMV_AHEAD(m, way)                               \
    ((way) == GEMV_ONE_STREAM ? 8192                     \
     : (way) == GEMV_IN_TURNS ? ((m) == 3 ? 1024 : 1536) \
     : (m) == 1               ? 512                      \
     : (m) == 2               ? 1024                     \
     : (m) == 3               ? 1536                     \
                              : 2048)
#define GEMV_REGISTER "v" /* the constraint of a vector register */

typedef __m512 vec;
typedef __m512i ivec; /* 16 words of 32 bits */

static inline __mmask16 v_mask(int64_t n) { return (__mmask16)((1u << n) - 1); }

static inline vec v_zero(void) { return _mm512_setzero_ps(); }
static inline vec v_set1(float x) { return _mm512_set1_ps(x); }
static inline vec v_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void v_store(float *p, vec x) { _mm512_storeu_ps(p, x); }
/* The first n < LANES values, the others 0; nothing behind them is touched. */
static inline vec v_load_n(const float *p, int64_t n) { return _mm512_maskz_loadu_ps(v_mask(n), p); }
static inline void v_store_n(float *p, vec x, int64_t n) { _mm512_mask_storeu_ps(p, v_mask(n), x); }

static inline vec v_add(vec a, vec b) { return _mm512_add_ps(a, b); }
static inline vec v_sub(vec a, vec b) { return _mm512_sub_ps(a, b); }
static inline vec v_mul(vec a, vec b) { return _mm512_mul_ps(a, b); }
static inline vec v_div(vec a, vec b) { return _mm512_div_ps(a, b); }
static inline vec v_fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }   /* a b + c */
static inline vec v_fnma(vec a, vec b, vec c) { return _mm512_fnmadd_ps(a, b, c); } /* c - a b */
static inline vec v_fms(vec a, vec b, vec c) { return _mm512_fmsub_ps(a, b, c); }   /* a b - c */
/* a / b to an ulp, for 1 <= b < 2^100: twice as fast as the division (which on 16 lanes takes as long as on two of 8).
 */
static inline vec v_quotient(vec a, vec b) {
    vec r = _mm512_rcp14_ps(b);
    r = v_fma(v_fnma(b, r, v_set1(1.0f)), r, r);
    vec q = v_mul(a, r);
    return v_fma(v_fnma(q, b, a), r, q);
}
#define v_quotient v_quotient
/* The second operand when one is NaN. */
static inline vec v_min(vec a, vec b) { return _mm512_min_ps(a, b); }
static inline vec v_max(vec a, vec b) { return _mm512_max_ps(a, b); }
static inline vec v_abs(vec x) { return _mm512_abs_ps(x); }
static inline vec v_copysign(vec magnitude, vec sign) {
    const vec bit = _mm512_set1_ps(-0.0f);
    return _mm512_or_ps(magnitude, _mm512_and_ps(bit, sign));
}
static inline vec v_if_negative(vec x, vec then, vec otherwise) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ), otherwise, then);
}
static inline vec v_round(vec x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
/* x 2^n for a whole n. */
static inline vec v_scale(vec x, vec n) { return _mm512_scalef_ps(x, n); }

static inline float v_sum(vec x) {
    __m256 y = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    __m128 z = _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
    z = _mm_add_ps(z, _mm_movehl_ps(z, z));
    return _mm_cvtss_f32(_mm_add_ss(z, _mm_movehdup_ps(z)));
}

/* NaN is passed over or returned. */
static inline float v_largest(vec x) {
    __m256 y = _mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    __m128 z = _mm_max_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
    z = _mm_max_ps(z, _mm_movehl_ps(z, z));
    return _mm_cvtss_f32(_mm_max_ss(z, _mm_movehdup_ps(z)));
}

/* Weights of any alignment to f32. */
static inline vec v_load_f32(const void *p) { return _mm512_loadu_ps(p); }
static inline vec v_load_f32_n(const void *p, int64_t n) { return _mm512_maskz_loadu_ps(v_mask(n), p); }
static inline vec v_from_bf16(__m256i x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}
static inline vec v_load_bf16(const void *p) { return v_from_bf16(_mm256_loadu_si256(p)); }
static inline vec v_load_bf16_n(const void *p, int64_t n) {
    return v_from_bf16(_mm256_maskz_loadu_epi16(v_mask(n), p));
}
static inline vec v_load_f16(const void *p) { return _mm512_cvtph_ps(_mm256_loadu_si256(p)); }
static inline vec v_load_f16_n(const void *p, int64_t n) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(v_mask(n), p));
}

/* Words of 32 bits; the first n < 2 LANES half words, the others 0. */
static inline ivec i_zero(void) { return _mm512_setzero_si512(); }
static inline ivec i_load(const void *p) { return _mm512_loadu_si512(p); }
static inline ivec i_load_halves(const void *p, int64_t n) {
    return _mm512_maskz_loadu_epi16((__mmask32)((UINT64_C(1) << n) - 1), p);
}
static inline ivec i_from_v(vec x) { return _mm512_castps_si512(x); }
static inline vec v_from_i(ivec x) { return _mm512_castsi512_ps(x); }
/* bf16 in the low and in the high half of each word, as f32. */
static inline vec v_low_bf16(ivec x) { return _mm512_castsi512_ps(_mm512_slli_epi32(x, 16)); }
static inline vec v_high_bf16(ivec x) {
    return _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32((int)0xFFFF0000u)));
}

/* r[i][j] <-> r[j][i]: words within pairs of rows, pairs within fours, then the 128-bit quarters. */
static inline void i_transpose(ivec r[16]) {
    ivec t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) { /* r[i + j]: column 4q + j of rows i..i+3, quarter q */
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int j = 0; j < 4; j++) {
        ivec a = _mm512_shuffle_i32x4(r[j], r[j + 4], 0x88), b = _mm512_shuffle_i32x4(r[j], r[j + 4], 0xDD);
        ivec c = _mm512_shuffle_i32x4(r[j + 8], r[j + 12], 0x88), d = _mm512_shuffle_i32x4(r[j + 8], r[j + 12], 0xDD);
        t[j] = _mm512_shuffle_i32x4(a, c, 0x88);
        t[j + 8] = _mm512_shuffle_i32x4(a, c, 0xDD);
        t[j + 4] = _mm512_shuffle_i32x4(b, d, 0x88);
        t[j + 12] = _mm512_shuffle_i32x4(b, d, 0xDD);
    }
    for (int i = 0; i < 16; i++) r[i] = t[i];
}

#endif
