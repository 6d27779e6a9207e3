/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Template: the group `bf16` of kernels.inc but for gemm_bf16, on vectors of any width, for tiles of 2 LANES columns.
 * The including file first defines the vectors, as for products.inc.h, and
 *
 *   i_round(low, high)        2 LANES bf16, those of two vectors of f32
 *   i_pairs(a, b)             LANES pairs of bf16: a's value, then b's
 *   i_store(p, x), i_store_halves(p, x, n)   all of them, or the first n < 2 LANES
 *   v_first(x, n)             the first n <= LANES values, the others 0
 *   v_fraction(&t)            t - floor(t); t may change to what v_scale() takes. 2^t of what is far out of range of
 * f32 is 0 or infinity
 */
#include "kernels/kernels.h"
#include "kernels/simd/unroll.h"

/* The first n < 2 LANES values, the others 0. */
static ALWAYS_INLINE ivec i_round_n(const float *x, int64_t n, vec factor) {
    const vec low = n >= LANES ? v_load(x) : v_load_n(x, n);
    const vec high = n > LANES ? v_load_n(x + LANES, n - LANES) : v_zero();
    return i_round(v_mul(low, factor), v_mul(high, factor));
}

static void round_bf16(const float *x, int64_t n, float scale, uint16_t *out) {
    const vec factor = v_set1(scale);
    int64_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES)
        i_store(out + i, i_round(v_mul(v_load(x + i), factor), v_mul(v_load(x + i + LANES), factor)));
    if (i < n) i_store_halves(out + i, i_round_n(x + i, n - i, factor), n - i);
}

/* ---- pack: rows of W, pairs of columns transposed as words ---- */

/* The first n <= 2 LANES values of a row as bf16, the others 0. */
static ALWAYS_INLINE ivec load_pairs_bf16(const char *w, int64_t n) {
    return n == 2 * LANES ? i_load(w) : i_load_halves(w, n);
}
#define DEFINE_LOAD_PAIRS(dtype, bytes)                                                                  \
    static ALWAYS_INLINE ivec load_pairs_##dtype(const char *w, int64_t n) {                             \
        const char *second = w + (bytes)*LANES;                                                          \
        if (n == 2 * LANES) return i_round(v_load_##dtype(w), v_load_##dtype(second));                   \
        if (n < LANES) return i_round(v_load_##dtype##_n(w, n), v_zero());                               \
        return i_round(v_load_##dtype(w), n > LANES ? v_load_##dtype##_n(second, n - LANES) : v_zero()); \
    }
DEFINE_LOAD_PAIRS(f32, 4)
DEFINE_LOAD_PAIRS(f16, 2)

/* Up to 2 LANES columns of `rows` rows; LANES of them are packed. */
#define DEFINE_PACK(dtype, bytes)                                                                                   \
    static ALWAYS_INLINE void pack_square_##dtype(const char *w, int64_t w_bytes, int rows, int64_t n,              \
                                                  uint16_t *panel) {                                                \
        ivec r[LANES];                                                                                              \
        UNROLL for (int i = 0; i < LANES; i++) r[i] = i < rows ? load_pairs_##dtype(w + i * w_bytes, n) : i_zero(); \
        i_transpose(r);                                                                                             \
        UNROLL for (int i = 0; i < LANES; i++) {                                                                    \
            if (2 * i < n) i_store(panel + i * 2 * NR, r[i]);                                                       \
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
static ALWAYS_INLINE vec values_of(const float *x, int v, int n) {
    const int here = n - v * LANES;
    return !x || here <= 0 ? v_zero() : here >= LANES ? v_load(x + v * LANES) : v_load_n(x + v * LANES, here);
}

static void pair_rows(const float *a, const float *b, int n, uint16_t *panel) {
    UNROLL for (int v = 0; v < 2; v++) i_store(panel + v * 2 * LANES, i_pairs(values_of(a, v, n), values_of(b, v, n)));
}

/* A file with one of its own defines OWN_PANELS. */
#ifndef OWN_PANELS
static void gemm_bf16_panels(const pgi_panel_product *p) {
    for (int64_t l = 0; l < p->k; l += PGI_GEMM_BF16_KC)
        for (int j = 0; j < p->n; j += NR)
            gemm_bf16(p->m, p->n - j < NR ? p->n - j : NR, pgi_min64(p->k - l, PGI_GEMM_BF16_KC),
                      p->a + l / PGI_GEMM_BF16_KC * p->a_block, p->panels + j / NR * p->panel + l * NR, p->c + j,
                      p->c_stride, p->accumulate || l > 0, p->bias && l == 0 ? p->bias + j : NULL);
}
#endif

/* ---- exp: 2^t = 2^floor(t) 2^f; 2^f, 0 <= f < 1, is a polynomial with a relative error below 2.6e-6 ---- */

static inline vec v_exp2(vec t) {
    vec f = v_fraction(&t);
    vec p = v_fma(v_set1(0.013534153940858294f), f, v_set1(0.052011490490256586f));
    p = v_fma(p, f, v_set1(0.24144273587563536f));
    p = v_fma(p, f, v_set1(0.6930038398717125f));
    p = v_fma(p, f, v_set1(1.0000025929966845f));
    return v_scale(p, t);
}

static float exp_sum_bf16(float *x, int64_t n, float max, uint16_t *out) {
    const vec m = v_set1(max), log2e = v_set1(1.44269504088896341f);
    vec sum = v_zero(), sum2 = v_zero();
    int64_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        vec a = v_exp2(v_mul(v_sub(v_load(x + i), m), log2e));
        vec b = v_exp2(v_mul(v_sub(v_load(x + i + LANES), m), log2e));
        i_store(out + i, i_round(a, b));
        sum = v_add(sum, a);
        sum2 = v_add(sum2, b);
    }
    if (i < n) {
        const int64_t rest = n - i, low = rest < LANES ? rest : LANES;
        vec a = v_exp2(v_mul(v_sub(low < LANES ? v_load_n(x + i, low) : v_load(x + i), m), log2e)), b = v_zero();
        sum = v_add(sum, v_first(a, low));
        if (rest > LANES) {
            b = v_exp2(v_mul(v_sub(v_load_n(x + i + LANES, rest - LANES), m), log2e));
            sum2 = v_add(sum2, v_first(b, rest - LANES));
        }
        i_store_halves(out + i, i_round(a, b), rest);
    }
    return v_sum(v_add(sum, sum2));
}

static void set_bf16(pgi_kernels *kernels) {
    kernels->gemm_bf16_mr = MR;
    kernels->gemm_bf16_nr = NR;
    kernels->gemm_bf16_step = 1;
    kernels->gemm_bf16_deep = 0;
#define K(type, name, parameters) kernels->name = name;
#include "kernels/lists/bf16.inc"
#undef K
}
