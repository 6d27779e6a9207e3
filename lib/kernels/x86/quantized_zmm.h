/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Vectors of 16 sums for quantized.inc.h: AVX-512 VNNI. One vector is a panel. */
#ifndef PGI_KERNELS_X86_QUANTIZED_ZMM_H
#define PGI_KERNELS_X86_QUANTIZED_ZMM_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

enum {
    Q_LANES = 16,
    Q_TILE_ROWS = 7, /* of 2 panels: 14 sums of a group, 14 of all, 2 vectors of weights, one of x in 32 registers */
    Q_TILE_PANELS = 2,
    Q_INT8_ROWS = 16, /* that are streamed */
    Q_INT4_ROWS = 8,  /* the same; more are worth unpacking the blocks */
    Q_SUMS = 64       /* vectors of sums at the most */
};
/* As many panels at once as registers have sums for: more streams read faster. */
#define Q_STREAM_PANELS(m) ((m) <= 14 ? 4 : 3)
#define Q_PART_INT8(m) ((m) <= 7 ? (m) : ((m) + 1) / 2)
#define Q_PART_INT4(m) ((m) <= 4 ? (m) : ((m) + 1) / 2)
#define Q_KEEPS_SUMS 1
#define Q_EACH_TILE_ROW EACH_7
#define Q_EACH_INT8_ROW EACH_16
#define Q_EACH_INT4_ROW EACH_8

typedef __m512i qint;
typedef __m512 qfloat;

static inline qint q_load(const void *p) { return _mm512_loadu_si512(p); }
static inline qint q_set1(const void *p) {
    int32_t word;
    memcpy(&word, p, sizeof word);
    return _mm512_set1_epi32(word);
}
static inline qint q_zero(void) { return _mm512_setzero_si512(); }
static inline qfloat q_load_f32(const void *p) { return _mm512_loadu_ps(p); }
static inline void q_store_f32(float *p, qfloat x) { _mm512_storeu_ps(p, x); }
static inline qfloat q_load_bf16(const void *p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p)), 16));
}
/* (Written as the instruction, which compilers do not move: all sums of a streamed group one after the other are 2%
 * faster.) */
static inline qfloat q_to_f32(qint sum) {
    qfloat x;
    __asm__("vcvtdq2ps %1, %0" : "=v"(x) : "v"(sum));
    return x;
}
/* y + sum * (w * x), x one value. */
static inline qfloat q_add_group(qfloat sum, qfloat w, const void *x, qfloat y) {
    float scale;
    memcpy(&scale, x, sizeof scale);
    return _mm512_fmadd_ps(sum, _mm512_mul_ps(w, _mm512_set1_ps(scale)), y);
}

/* sum + w x of four columns; w unsigned. `start`: what takes the excess of w off. */
static inline qint q_start(const void *start) { return q_set1(start); }
/* (Written as the instruction: around the intrinsic gcc 12 copies sums, runs out of registers and halves the speed.) */
static inline qint q_dot(qint sum, qint w, qint x) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(w), "v"(x));
    return sum;
}

/* Nibbles, and the factors of 32 columns: 16 nibbles to words. */
static inline qint q_low_nibbles(qint x) { return _mm512_and_si512(x, _mm512_set1_epi8(15)); }
static inline qint q_high_nibbles(qint x) { return _mm512_and_si512(_mm512_srli_epi32(x, 4), _mm512_set1_epi8(15)); }
static inline qint q_load_factors(const void *p) {
    qint x = _mm512_cvtepu8_epi64(_mm_loadl_epi64(p));
    return _mm512_and_si512(_mm512_or_si512(x, _mm512_slli_epi64(x, 28)), _mm512_set1_epi64(0xF0000000F));
}
/* The sum of 32 columns fits 16 bits: at most 8 * 127 * 32. */
static inline qint q_start_sub(const void *start) { return q_set1(start); }
static inline qint q_dot_sub(qint sum, qint w, qint x) { return _mm512_dpbusd_epi32(sum, w, x); }
static inline qint q_add_sub(qint total, qint sum, qint factors, const void *start) {
    (void)start;
    return _mm512_dpwssd_epi32(total, sum, factors);
}

#endif
