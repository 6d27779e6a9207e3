/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Template: the group bf16 but for gemm_bf16, for AVX-512 BF16. Panels have lines of 32 pairs. */
#include "kernels/kernels.h"
#include "kernels/simd/unroll.h"
#include "kernels/x86/vector_avx512.h"

#include <string.h>

enum { NR = 2 * LANES };

/* 32 bf16: those of `low`, then those of `high`. */
static inline ivec i_round(vec low, vec high) { return (ivec)_mm512_cvtne2ps_pbh(high, low); }

static void round_bf16(const float *x, int64_t n, float scale, uint16_t *out) {
    const vec factor = v_set1(scale);
    int64_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES)
        _mm512_storeu_si512(out + i, i_round(v_mul(v_load(x + i), factor), v_mul(v_load(x + i + LANES), factor)));
    if (i < n) {
        int64_t rest = n - i, low = rest < LANES ? rest : LANES;
        vec first = v_load_n(x + i, low), second = rest > LANES ? v_load_n(x + i + LANES, rest - LANES) : v_zero();
        _mm512_mask_storeu_epi16(out + i, (__mmask32)((UINT64_C(1) << rest) - 1),
                                 i_round(v_mul(first, factor), v_mul(second, factor)));
    }
}

/* ---- pack: rows of W, pairs of columns transposed as words ---- */

/* The first n <= 32 values of a row as bf16, the others 0. */
static ALWAYS_INLINE ivec load_pairs_bf16(const char *w, int64_t n) {
    return n == 2 * LANES ? i_load(w) : i_load_halves(w, n);
}
static ALWAYS_INLINE ivec load_pairs_f32(const char *w, int64_t n) {
    if (n == 2 * LANES) return i_round(v_load_f32(w), v_load_f32(w + 4 * LANES));
    if (n <= LANES) return i_round(v_load_f32_n(w, n), v_zero());
    return i_round(v_load_f32(w), v_load_f32_n(w + 4 * LANES, n - LANES));
}
static ALWAYS_INLINE ivec load_pairs_f16(const char *w, int64_t n) {
    if (n == 2 * LANES) return i_round(v_load_f16(w), v_load_f16(w + 2 * LANES));
    if (n <= LANES) return i_round(v_load_f16_n(w, n), v_zero());
    return i_round(v_load_f16(w), v_load_f16_n(w + 2 * LANES, n - LANES));
}

/* Up to 2 LANES columns of `rows` rows; LANES of them are packed. */
#define DEFINE_PACK(dtype, bytes)                                                                                   \
    static ALWAYS_INLINE void pack_square_##dtype(const char *w, int64_t w_bytes, int rows, int64_t n,              \
                                                  uint16_t *panel) {                                                \
        ivec r[LANES];                                                                                              \
        UNROLL for (int i = 0; i < LANES; i++) r[i] = i < rows ? load_pairs_##dtype(w + i * w_bytes, n) : i_zero(); \
        i_transpose(r);                                                                                             \
        UNROLL for (int i = 0; i < LANES; i++) {                                                                    \
            if (2 * i < n) _mm512_storeu_si512(panel + i * 2 * NR, r[i]);                                           \
        }                                                                                                           \
    }                                                                                                               \
    static void pack_pairs_##dtype(const void *w, int64_t w_bytes, int rows, int64_t k, uint16_t *panel) {          \
        for (int first = 0; first < NR; first += LANES) {                                                           \
            const char *row = (const char *)w + (first < rows ? first * w_bytes : 0);                               \
            uint16_t *to = panel + 2 * first;                                                                       \
            int here = rows - first;                                                                                \
            int64_t l = 0;                                                                                          \
            if (here >= LANES)                                                                                      \
                for (; l + 2 * LANES <= k; l += 2 * LANES)                                                          \
                    pack_square_##dtype(row + l * (bytes), w_bytes, LANES, 2 * LANES, to + l * NR);                 \
            for (; l < k; l += 2 * LANES)                                                                           \
                pack_square_##dtype(row + l * (bytes), w_bytes, here, k - l < 2 * LANES ? k - l : 2 * LANES,        \
                                    to + l * NR);                                                                   \
        }                                                                                                           \
    }
DEFINE_PACK(f32, 4)
DEFINE_PACK(bf16, 2)
DEFINE_PACK(f16, 2)

/* The first n values of a row, of vector v of a line. */
static ALWAYS_INLINE __m512i words_bf16(const float *x, int v, int n) {
    int here = n - v * LANES;
    vec values = !x || here <= 0 ? v_zero() : here >= LANES ? v_load(x + v * LANES) : v_load_n(x + v * LANES, here);
    return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(values));
}

static void pair_rows(const float *a, const float *b, int n, uint16_t *panel) {
    UNROLL for (int v = 0; v < 2; v++) _mm512_storeu_si512(
        panel + v * 2 * LANES, _mm512_or_si512(words_bf16(a, v, n), _mm512_slli_epi32(words_bf16(b, v, n), 16)));
}

/* ---- exp: 2^t = 2^floor(t) 2^f; 2^f, 0 <= f < 1, is a polynomial with a relative error below 2.6e-6 ---- */

static inline vec v_exp2(vec t) {
    vec f = _mm512_reduce_ps(t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); /* 0 of infinities */
    vec p = v_fma(v_set1(0.013534153940858294f), f, v_set1(0.052011490490256586f));
    p = v_fma(p, f, v_set1(0.24144273587563536f));
    p = v_fma(p, f, v_set1(0.6930038398717125f));
    p = v_fma(p, f, v_set1(1.0000025929966845f));
    return v_scale(p, t); /* which takes floor(t) itself */
}

static float exp_sum_bf16(float *x, int64_t n, float max, uint16_t *out) {
    const vec m = v_set1(max), log2e = v_set1(1.44269504088896341f);
    vec sum = v_zero(), sum2 = v_zero();
    int64_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        vec a = v_exp2(v_mul(v_sub(v_load(x + i), m), log2e));
        vec b = v_exp2(v_mul(v_sub(v_load(x + i + LANES), m), log2e));
        _mm512_storeu_si512(out + i, i_round(a, b));
        sum = v_add(sum, a);
        sum2 = v_add(sum2, b);
    }
    if (i < n) {
        const int64_t rest = n - i, low = rest < LANES ? rest : LANES;
        vec a = v_exp2(v_mul(v_sub(v_load_n(x + i, low), m), log2e)), b = v_zero();
        sum = _mm512_mask_add_ps(sum, v_mask(low), sum, a);
        if (rest > LANES) {
            b = v_exp2(v_mul(v_sub(v_load_n(x + i + LANES, rest - LANES), m), log2e));
            sum2 = _mm512_mask_add_ps(sum2, v_mask(rest - LANES), sum2, b);
        }
        _mm512_mask_storeu_epi16(out + i, (__mmask32)((UINT64_C(1) << rest) - 1), i_round(a, b));
    }
    return v_sum(v_add(sum, sum2));
}
