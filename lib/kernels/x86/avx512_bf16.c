/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The group bf16 for AVX-512 BF16: tiles of 14 x 32, as for f32, where a lane holds a pair of values. */
#include "kernels/kernels.h"
#include "kernels/simd/unroll.h"
#include "kernels/x86/vector_avx512.h"

#include <string.h>

enum { MR = 14, NR = 2 * LANES };

static inline ivec i_round(vec low, vec high) { return (ivec)_mm512_cvtne2ps_pbh(high, low); }
static inline ivec i_words(vec x) { return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(x)); }
static inline ivec i_pairs(vec a, vec b) { return _mm512_or_si512(i_words(a), _mm512_slli_epi32(i_words(b), 16)); }
static inline void i_store(uint16_t *p, ivec x) { _mm512_storeu_si512(p, x); }
static inline void i_store_halves(uint16_t *p, ivec x, int64_t n) {
    _mm512_mask_storeu_epi16(p, (__mmask32)((UINT64_C(1) << n) - 1), x);
}
static inline vec v_first(vec x, int64_t n) { return _mm512_maskz_mov_ps(v_mask(n), x); }
static inline vec v_fraction(vec *t) { /* 0 of infinities; v_scale() takes floor(t) itself */
    return _mm512_reduce_ps(*t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
}

static ALWAYS_INLINE ivec gemm_load(const uint16_t *panel) { return i_load(panel); }
static ALWAYS_INLINE ivec gemm_set1(const uint16_t *pair) {
    int32_t word;
    memcpy(&word, pair, sizeof word);
    return _mm512_set1_epi32(word);
}
static ALWAYS_INLINE ivec gemm_set1_last(const uint16_t *value) { return _mm512_set1_epi32(*value); }
/* Both products of a pair. (Written as the instruction: gcc 12 may copy sums around the intrinsic, see
 * quantized_zmm.h.) */
static ALWAYS_INLINE vec gemm_add_product(vec sum, ivec x, ivec b) {
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(x), "v"(b));
    return sum;
}
#define GEMM_NAME gemm_bf16
#define GEMM_VALUE uint16_t
#define GEMM_VECTOR ivec
#define GEMM_STEP 2
#define GEMM_LDA PGI_GEMM_BF16_LDA
#define GEMM_CASES 14
#include "kernels/simd/gemm.inc.h"

#include "kernels/simd/bf16.inc.h"

void pgi_kernels_avx512_bf16(pgi_kernels *kernels) { set_bf16(kernels); }
