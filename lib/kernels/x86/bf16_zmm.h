/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Vectors of 16 for simd/bf16.inc.h: AVX-512 BF16. Panels have lines of 32 pairs. */
#ifndef PGI_KERNELS_X86_BF16_ZMM_H
#define PGI_KERNELS_X86_BF16_ZMM_H

#include <string.h>

#include "kernels/kernels.h"
#include "kernels/simd/unroll.h"
#include "kernels/x86/vector_avx512.h"

enum { NR = 2 * LANES };

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

#endif
