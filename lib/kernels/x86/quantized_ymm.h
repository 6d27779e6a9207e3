/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Vectors of 8 sums for quantized.inc.h: AVX-VNNI where the file is compiled for it, or AVX2. A panel is two. */
#ifndef PGI_KERNELS_X86_QUANTIZED_YMM_H
#define PGI_KERNELS_X86_QUANTIZED_YMM_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

enum {
    Q_LANES = 8,
#ifdef __AVXVNNI__
    Q_TILE_ROWS = 6, /* 12 sums, 2 vectors of weights and one of x in 16 registers */
#else
    Q_TILE_ROWS = 4, /* 8 sums, 2 vectors of weights and their magnitudes, x, a product, ones, the excess */
#endif
    Q_TILE_PANELS = 1,
    Q_INT8_ROWS = Q_TILE_ROWS, /* that are streamed */
    Q_INT4_ROWS = 4,
    Q_SUMS = 4 * Q_TILE_ROWS /* vectors of sums at the most */
};
/* Two and four streams of weights read faster than one, also where registers have the sums of two rows alone. */
#define Q_STREAM_PANELS(m) ((m) == 1 ? 4 : 2)
#define Q_PART_INT8(m) ((m) <= 2 ? (m) : 2)
#define Q_PART_INT4(m) (m)
#ifdef __AVXVNNI__
#define Q_EACH_TILE_ROW EACH_6
#else
#define Q_EACH_TILE_ROW EACH_4
#endif
#define Q_EACH_INT8_ROW Q_EACH_TILE_ROW
#define Q_EACH_INT4_ROW EACH_4

typedef __m256i qint;
typedef __m256 qfloat;

static inline qint q_load(const void *p) { return _mm256_loadu_si256(p); }
static inline qint q_set1(const void *p) {
    int32_t word;
    memcpy(&word, p, sizeof word);
    return _mm256_set1_epi32(word);
}
static inline qint q_zero(void) { return _mm256_setzero_si256(); }
static inline qfloat q_load_f32(const void *p) { return _mm256_loadu_ps(p); }
static inline void q_store_f32(float *p, qfloat x) { _mm256_storeu_ps(p, x); }
static inline qfloat q_load_bf16(const void *p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(p)), 16));
}
static inline qfloat q_to_f32(qint sum) { return _mm256_cvtepi32_ps(sum); }
/* y + sum * (w * x), x one value. */
static inline qfloat q_add_group(qfloat sum, qfloat w, const void *x, qfloat y) {
    float scale;
    memcpy(&scale, x, sizeof scale);
    return _mm256_fmadd_ps(sum, _mm256_mul_ps(w, _mm256_set1_ps(scale)), y);
}

static inline qint q_low_nibbles(qint x) { return _mm256_and_si256(x, _mm256_set1_epi8(15)); }
static inline qint q_high_nibbles(qint x) { return _mm256_and_si256(_mm256_srli_epi32(x, 4), _mm256_set1_epi8(15)); }
/* The factors of 32 columns: 8 nibbles to words. */
static inline qint q_load_factors(const void *p) {
    int32_t nibbles;
    memcpy(&nibbles, p, sizeof nibbles);
    qint x = _mm256_cvtepu8_epi64(_mm_cvtsi32_si128(nibbles));
    return _mm256_and_si256(_mm256_or_si256(x, _mm256_slli_epi64(x, 28)), _mm256_set1_epi64x(0xF0000000F));
}

/* sum + w x of four columns; w unsigned. `start`: what takes the excess of w off.
 * _sub: of 32 columns of int4; that sum, at most 8 * 127 * 32, fits 16 bits. */
#ifdef __AVXVNNI__
static inline qint q_start(const void *start) { return q_set1(start); }
static inline qint q_dot(qint sum, qint w, qint x) { return _mm256_dpbusd_avx_epi32(sum, w, x); }
static inline qint q_start_sub(const void *start) { return q_set1(start); }
static inline qint q_dot_sub(qint sum, qint w, qint x) { return _mm256_dpbusd_avx_epi32(sum, w, x); }
static inline qint q_add_sub(qint total, qint sum, qint factors, const void *start) {
    (void)start;
    return _mm256_dpwssd_avx_epi32(total, sum, factors);
}
#else
/* Unsigned bytes times signed ones saturate; magnitudes times x with the sign of w do not: at most 2 * 127 * 127. */
static inline qint q_start(const void *start) {
    (void)start;
    return q_zero();
}
static inline qint q_dot(qint sum, qint w, qint x) {
    w = _mm256_xor_si256(w, _mm256_set1_epi8(-128));
    qint pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
/* Halves of 16 bits: 8 of at most 2 * 15 * 127. */
static inline qint q_start_sub(const void *start) {
    (void)start;
    return q_zero();
}
static inline qint q_dot_sub(qint sum, qint w, qint x) { return _mm256_add_epi16(sum, _mm256_maddubs_epi16(w, x)); }
static inline qint q_add_sub(qint total, qint sum, qint factors, const void *start) {
    qint both = _mm256_or_si256(factors, _mm256_slli_epi32(factors, 16));
    return _mm256_add_epi32(total,
                            _mm256_add_epi32(_mm256_madd_epi16(sum, both), _mm256_madd_epi16(q_set1(start), factors)));
}
#endif

#endif
