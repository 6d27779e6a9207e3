/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Template: the group `products` of kernels.inc, on vectors of any width. The including file first defines the vectors:
 * LANES, vec, ivec, GEMM_MR, GEMV_* and the functions v_* and i_*, as x86/vector_avx2.h has them; and GEMM_CASES,
 * the same number as GEMM_MR, as a macro. An instruction set that multiplies by a lane of a vector also defines
 * GEMM_STEPS, the same number as LANES, and v_fma_lane().
 */
#include <string.h>

#include "base/float16.h"
#include "kernels/kernels.h"
#include "kernels/simd/unroll.h"

enum {
    GEMM_NR = 2 * LANES,
    GEMV_STEP = 2 * LANES,
    WEIGHTED_AHEAD =
        8,          /* rows that a weighted sum fetches ahead: they are too far apart for the CPU to see what comes */
    GEMV_PART = 128 /* columns of W between two turns, a multiple of GEMV_STEP */
};
/* How rows of W are gone over: a block side by side, with both vectors of sums at once or in turns, or each alone. */
enum { GEMV_TOGETHER, GEMV_IN_TURNS, GEMV_ONE_STREAM };

/* ---- gemm ---- */

static ALWAYS_INLINE vec gemm_load(const float *panel) { return v_load(panel); }
static ALWAYS_INLINE vec gemm_set1(const float *a) { return v_set1(*a); }
static ALWAYS_INLINE vec gemm_add_product(vec sum, vec x, vec b) { return v_fma(x, b, sum); }
#ifdef GEMM_STEPS
static ALWAYS_INLINE vec gemm_add_product_lane(vec sum, vec x, const int step, vec b) {
    return v_fma_lane(b, x, step, sum);
}
#endif
#define GEMM_NAME gemm
#define GEMM_VALUE float
#define GEMM_VECTOR vec
#define GEMM_STEP 1
#define GEMM_LDA PGI_GEMM_LDA
#include "kernels/simd/gemm.inc.h"

/* ---- pack: rows of W, transposed ---- */

/* LANES columns of `rows` <= LANES rows, n <= LANES of them there, to panel[column][row]. */
#define DEFINE_PACK_WIDE(dtype, bytes)                                                                                 \
    static ALWAYS_INLINE void pack_square_##dtype(const char *w, int64_t w_bytes, int rows, int64_t n, float *panel) { \
        ivec r[LANES];                                                                                                 \
        UNROLL for (int i = 0; i < LANES; i++) {                                                                       \
            if (i >= rows)                                                                                             \
                r[i] = i_zero();                                                                                       \
            else if (n == LANES)                                                                                       \
                r[i] = i_from_v(v_load_##dtype(w + i * w_bytes));                                                      \
            else                                                                                                       \
                r[i] = i_from_v(v_load_##dtype##_n(w + i * w_bytes, n));                                               \
        }                                                                                                              \
        i_transpose(r);                                                                                                \
        UNROLL for (int i = 0; i < LANES; i++) {                                                                       \
            if (i < n) v_store(panel + i * GEMM_NR, v_from_i(r[i]));                                                   \
        }                                                                                                              \
    }                                                                                                                  \
    static void pack_##dtype(const void *w, int64_t w_bytes, int rows, int64_t k, float *panel) {                      \
        for (int first = 0; first < GEMM_NR; first += LANES) {                                                         \
            const char *row = (const char *)w + (first < rows ? first * w_bytes : 0);                                  \
            int here = rows - first;                                                                                   \
            int64_t l = 0;                                                                                             \
            if (here >= LANES)                                                                                         \
                for (; l + LANES <= k; l += LANES)                                                                     \
                    pack_square_##dtype(row + l * (bytes), w_bytes, LANES, LANES, panel + l * GEMM_NR + first);        \
            for (; l < k; l += LANES)                                                                                  \
                pack_square_##dtype(row + l * (bytes), w_bytes, here, k - l < LANES ? k - l : LANES,                   \
                                    panel + l * GEMM_NR + first);                                                      \
        }                                                                                                              \
    }

DEFINE_PACK_WIDE(f32, 4)
DEFINE_PACK_WIDE(f16, 2)

/* bf16 moves in pairs of columns: half the shuffles, then one shift or mask makes it f32. n <= 2 LANES. */
static ALWAYS_INLINE void pack_pairs_bf16(const char *w, int64_t w_bytes, int rows, int64_t n, float *panel) {
    ivec r[LANES];
    UNROLL for (int i = 0; i < LANES; i++) {
        if (i >= rows)
            r[i] = i_zero();
        else if (n == 2 * LANES)
            r[i] = i_load(w + i * w_bytes);
        else
            r[i] = i_load_halves(w + i * w_bytes, n);
    }
    i_transpose(r);
    UNROLL for (int i = 0; i < LANES; i++) {
        if (2 * i < n) v_store(panel + 2 * i * GEMM_NR, v_low_bf16(r[i]));
        if (2 * i + 1 < n) v_store(panel + (2 * i + 1) * GEMM_NR, v_high_bf16(r[i]));
    }
}

static void pack_bf16(const void *w, int64_t w_bytes, int rows, int64_t k, float *panel) {
    for (int first = 0; first < GEMM_NR; first += LANES) {
        const char *row = (const char *)w + (first < rows ? first * w_bytes : 0);
        int here = rows - first;
        int64_t l = 0;
        if (here >= LANES)
            for (; l + 2 * LANES <= k; l += 2 * LANES)
                pack_pairs_bf16(row + l * 2, w_bytes, LANES, 2 * LANES, panel + l * GEMM_NR + first);
        for (; l < k; l += 2 * LANES)
            pack_pairs_bf16(row + l * 2, w_bytes, here, k - l < 2 * LANES ? k - l : 2 * LANES,
                            panel + l * GEMM_NR + first);
    }
}

/* ---- gemv and expand: each weight read once ---- */

#define DTYPE f32
#define DTYPE_BYTES 4
#define DTYPE_PAIRS 0
#include "kernels/simd/stream.inc.h"
#define DTYPE bf16
#define DTYPE_BYTES 2
#define DTYPE_PAIRS 1
#include "kernels/simd/stream.inc.h"
#define DTYPE f16
#define DTYPE_BYTES 2
#define DTYPE_PAIRS 0
#include "kernels/simd/stream.inc.h"

/* ---- weighted_sum: eight vectors of columns at a time ---- */

#define DEFINE_WEIGHTED_SUM(name, type, dtype)                                                             \
    static ALWAYS_INLINE void name##_columns(const int vectors, int64_t rest, int64_t n, const float *p,   \
                                             const type *v, int64_t v_stride, float *out) {                \
        vec sum[8];                                                                                        \
        UNROLL for (int u = 0; u < vectors; u++) sum[u] = v_zero();                                        \
        for (int64_t j = 0; j < n; j++, v += v_stride) {                                                   \
            vec factor = v_set1(p[j]);                                                                     \
            UNROLL for (int u = 0; u < vectors * LANES; u += 64 / (int)sizeof(type))                       \
                __builtin_prefetch(v + WEIGHTED_AHEAD * v_stride + u);                                     \
            UNROLL for (int u = 0; u < vectors; u++) sum[u] =                                              \
                v_fma(factor, rest ? v_load_##dtype##_n(v, rest) : v_load_##dtype(v + u * LANES), sum[u]); \
        }                                                                                                  \
        UNROLL for (int u = 0; u < vectors; u++) {                                                         \
            if (rest)                                                                                      \
                v_store_n(out, sum[u], rest);                                                              \
            else                                                                                           \
                v_store(out + u * LANES, sum[u]);                                                          \
        }                                                                                                  \
    }                                                                                                      \
    static void name(int64_t n, int64_t d, const float *p, const type *v, int64_t v_stride, float *out) {  \
        int64_t i = 0;                                                                                     \
        for (; i + 8 * LANES <= d; i += 8 * LANES) name##_columns(8, 0, n, p, v + i, v_stride, out + i);   \
        for (; i + 2 * LANES <= d; i += 2 * LANES) name##_columns(2, 0, n, p, v + i, v_stride, out + i);   \
        for (; i + LANES <= d; i += LANES) name##_columns(1, 0, n, p, v + i, v_stride, out + i);           \
        if (i < d) name##_columns(1, d - i, n, p, v + i, v_stride, out + i);                               \
    }
DEFINE_WEIGHTED_SUM(weighted_sum, float, f32)
DEFINE_WEIGHTED_SUM(weighted_sum_bf16, uint16_t, bf16)

/* ---- bf16 of f32: left to the compiler, which makes vectors of it ---- */

static void round_bf16(const float *x, int64_t n, float factor, uint16_t *out) {
    for (int64_t i = 0; i < n; i++) out[i] = pgi_bf16_from_f32(x[i] * factor);
}

static void set_products(pgi_kernels *kernels) {
    kernels->round_bf16 = round_bf16; /* alone of its group */
    kernels->gemm_mr = GEMM_MR;
    kernels->gemm_nr = GEMM_NR;
#define K(type, name, parameters) kernels->name = name;
#include "kernels/lists/products.inc"
#undef K
}
