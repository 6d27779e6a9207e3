/*
 * Template: matrix products on the vectors of vector_avx2.h or vector_avx512.h,
 * one of which is included before this file.
 */
#include "kernels/kernels.h"
#include "kernels/simd/unroll.h"

enum {
    GEMM_NR = 2 * LANES,
    GEMV_AHEAD = 512 /* bytes that each row of weights is prefetched ahead */
};

/* ---- gemm: an m x (vectors x LANES) tile held in registers ---- */

static ALWAYS_INLINE void gemm_tile(const int m, const int vectors, int n, int64_t k, const float *a,
                                    const float *panel, float *c, int64_t c_stride, int accumulate, const float *bias) {
    vec sum[GEMM_MR][2];
    UNROLL for (int i = 0; i < m; i++) UNROLL for (int v = 0; v < vectors; v++) sum[i][v] = v_zero();
    for (int64_t l = 0; l < k; l++) {
        vec b[2];
        UNROLL for (int v = 0; v < vectors; v++) b[v] = v_load(panel + v * LANES);
        panel += GEMM_NR;
        UNROLL for (int i = 0; i < m; i++) {
            vec x = v_set1(a[i * PGI_GEMM_LDA]);
            UNROLL for (int v = 0; v < vectors; v++) sum[i][v] = v_fma(x, b[v], sum[i][v]);
        }
        a++;
    }
    if (n == vectors * LANES && accumulate) {
        UNROLL for (int i = 0; i < m; i++, c += c_stride) UNROLL for (int v = 0; v < vectors; v++)
            v_store(c + v * LANES, v_add(sum[i][v], v_load(c + v * LANES)));
    } else if (n == vectors * LANES) {
        vec start[2] = {v_zero(), v_zero()};
        if (bias) UNROLL for (int v = 0; v < vectors; v++) start[v] = v_load(bias + v * LANES);
        UNROLL for (int i = 0; i < m; i++, c += c_stride) UNROLL for (int v = 0; v < vectors; v++)
            v_store(c + v * LANES, v_add(sum[i][v], start[v]));
    } else { /* the last vector is not full */
        const int last = vectors - 1, rest = n - last * LANES;
        vec start[2] = {v_zero(), v_zero()};
        if (!accumulate && bias) {
            if (last) start[0] = v_load(bias);
            start[last] = v_load_n(bias + last * LANES, rest);
        }
        UNROLL for (int i = 0; i < m; i++) {
            float *out = c + i * c_stride;
            if (last) v_store(out, v_add(sum[i][0], accumulate ? v_load(out) : start[0]));
            out += last * LANES;
            v_store_n(out, v_add(sum[i][last], accumulate ? v_load_n(out, rest) : start[last]), rest);
        }
    }
}

/* One copy of the tile for each height, so that its sums stay in registers. */
#define GEMM_CASE(height)                                                        \
    case height:                                                                 \
        if (n > LANES)                                                           \
            gemm_tile(height, 2, n, k, a, panel, c, c_stride, accumulate, bias); \
        else                                                                     \
            gemm_tile(height, 1, n, k, a, panel, c, c_stride, accumulate, bias); \
        break;

static void gemm(int m, int n, int64_t k, const float *a, const float *panel, float *c, int64_t c_stride,
                 int accumulate, const float *bias) {
    switch (m) {
        GEMM_CASE(1)
        GEMM_CASE(2)
        GEMM_CASE(3)
        GEMM_CASE(4)
        GEMM_CASE(5)
        GEMM_CASE(6)
#if PGI_GEMM_CASES > 6
        GEMM_CASE(7)
        GEMM_CASE(8)
        GEMM_CASE(9)
        GEMM_CASE(10)
        GEMM_CASE(11)
        GEMM_CASE(12)
        GEMM_CASE(13)
        GEMM_CASE(14)
#endif
        default: break;
    }
}

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

/* ---- gemv and expand: the weights in one stream ---- */

#define DEFINE_STREAM(dtype, bytes)                                                                                    \
    static void expand_##dtype(const void *w, int64_t n, float scale, float *out) {                                    \
        const vec factor = v_set1(scale);                                                                              \
        int64_t i = 0;                                                                                                 \
        for (; i + LANES <= n; i += LANES)                                                                             \
            v_store(out + i, v_mul(v_load_##dtype((const char *)w + i * (bytes)), factor));                            \
        if (i < n) v_store_n(out + i, v_mul(v_load_##dtype##_n((const char *)w + i * (bytes), n - i), factor), n - i); \
    }                                                                                                                  \
    /* A block of `block` rows of W: as many streams as the registers have sums for. Every sum is that of two vectors, \
     * even and odd steps, so that it does not depend on m or block. */                                                \
    static ALWAYS_INLINE void gemv_block_##dtype(const int m, const int block, int64_t k, const float *x,              \
                                                 int64_t x_stride, const char *w, int64_t w_bytes, const float *bias,  \
                                                 float *y, int64_t y_stride) {                                         \
        vec even[PGI_GEMV_ROWS][GEMV_BLOCK], odd[PGI_GEMV_ROWS][GEMV_BLOCK];                                           \
        UNROLL for (int i = 0; i < m; i++) UNROLL for (int r = 0; r < block; r++) even[i][r] = odd[i][r] = v_zero();   \
        int64_t l = 0;                                                                                                 \
        for (; l + 2 * LANES <= k; l += 2 * LANES) {                                                                   \
            UNROLL for (int r = 0; r < block; r++) {                                                                   \
                const char *p = w + r * w_bytes + l * (bytes);                                                         \
                UNROLL for (int u = 0; u < 2 * LANES * (bytes); u += 64)                                               \
                    _mm_prefetch(p + GEMV_AHEAD + u, _MM_HINT_T0);                                                     \
                vec b = v_load_##dtype(p), b2 = v_load_##dtype(p + LANES * (bytes));                                   \
                UNROLL for (int i = 0; i < m; i++) {                                                                   \
                    even[i][r] = v_fma(v_load(x + i * x_stride + l), b, even[i][r]);                                   \
                    odd[i][r] = v_fma(v_load(x + i * x_stride + l + LANES), b2, odd[i][r]);                            \
                }                                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
        if (l + LANES <= k) {                                                                                          \
            UNROLL for (int r = 0; r < block; r++) {                                                                   \
                vec b = v_load_##dtype(w + r * w_bytes + l * (bytes));                                                 \
                UNROLL for (int i = 0; i < m; i++) even[i][r] = v_fma(v_load(x + i * x_stride + l), b, even[i][r]);    \
            }                                                                                                          \
            l += LANES;                                                                                                \
        }                                                                                                              \
        if (l < k) {                                                                                                   \
            UNROLL for (int r = 0; r < block; r++) {                                                                   \
                vec b = v_load_##dtype##_n(w + r * w_bytes + l * (bytes), k - l);                                      \
                UNROLL for (int i = 0; i < m; i++) odd[i][r] =                                                         \
                    v_fma(v_load_n(x + i * x_stride + l, k - l), b, odd[i][r]);                                        \
            }                                                                                                          \
        }                                                                                                              \
        UNROLL for (int i = 0; i < m; i++) {                                                                           \
            UNROLL for (int r = 0; r < block; r++) {                                                                   \
                float sum = v_sum(v_add(even[i][r], odd[i][r]));                                                       \
                y[i * y_stride + r] = bias ? sum + bias[r] : sum;                                                      \
            }                                                                                                          \
        }                                                                                                              \
    }                                                                                                                  \
    static ALWAYS_INLINE void gemv_rows_##dtype(const int m, const int block, int64_t rows, int64_t k, const float *x, \
                                                int64_t x_stride, const char *w, int64_t w_bytes, const float *bias,   \
                                                float *y, int64_t y_stride) {                                          \
        int64_t r = 0;                                                                                                 \
        for (; r + block <= rows; r += block)                                                                          \
            gemv_block_##dtype(m, block, k, x, x_stride, w + r * w_bytes, w_bytes, bias ? bias + r : NULL, y + r,      \
                               y_stride);                                                                              \
        for (; r < rows; r++)                                                                                          \
            gemv_block_##dtype(m, 1, k, x, x_stride, w + r * w_bytes, w_bytes, bias ? bias + r : NULL, y + r,          \
                               y_stride);                                                                              \
    }                                                                                                                  \
    static void gemv_##dtype(int m, int64_t rows, int64_t k, const float *x, int64_t x_stride, const void *w,          \
                             int64_t w_bytes, const float *bias, float *y, int64_t y_stride) {                         \
        switch (m) {                                                                                                   \
            case 1: gemv_rows_##dtype(1, GEMV_BLOCK, rows, k, x, x_stride, w, w_bytes, bias, y, y_stride); break;      \
            case 2: gemv_rows_##dtype(2, GEMV_BLOCK / 2, rows, k, x, x_stride, w, w_bytes, bias, y, y_stride); break;  \
            case 3: gemv_rows_##dtype(3, GEMV_BLOCK / 4, rows, k, x, x_stride, w, w_bytes, bias, y, y_stride); break;  \
            case 4: gemv_rows_##dtype(4, GEMV_BLOCK / 4, rows, k, x, x_stride, w, w_bytes, bias, y, y_stride); break;  \
            default: break;                                                                                            \
        }                                                                                                              \
    }

DEFINE_STREAM(f32, 4)
DEFINE_STREAM(bf16, 2)
DEFINE_STREAM(f16, 2)

/* ---- weighted_sum: eight vectors of columns at a time ---- */

static ALWAYS_INLINE void weighted_columns(const int vectors, int64_t rest, int64_t n, const float *p, const float *v,
                                           int64_t v_stride, float *out) {
    vec sum[8];
    UNROLL for (int u = 0; u < vectors; u++) sum[u] = v_zero();
    for (int64_t j = 0; j < n; j++, v += v_stride) {
        vec factor = v_set1(p[j]);
        UNROLL for (int u = 0; u < vectors; u++) sum[u] =
            v_fma(factor, rest ? v_load_n(v, rest) : v_load(v + u * LANES), sum[u]);
    }
    UNROLL for (int u = 0; u < vectors; u++) {
        if (rest)
            v_store_n(out, sum[u], rest);
        else
            v_store(out + u * LANES, sum[u]);
    }
}

static void weighted_sum(int64_t n, int64_t d, const float *p, const float *v, int64_t v_stride, float *out) {
    int64_t i = 0;
    for (; i + 8 * LANES <= d; i += 8 * LANES) weighted_columns(8, 0, n, p, v + i, v_stride, out + i);
    for (; i + 2 * LANES <= d; i += 2 * LANES) weighted_columns(2, 0, n, p, v + i, v_stride, out + i);
    for (; i + LANES <= d; i += LANES) weighted_columns(1, 0, n, p, v + i, v_stride, out + i);
    if (i < d) weighted_columns(1, d - i, n, p, v + i, v_stride, out + i);
}

static void set_products(pgi_kernels *kernels) {
    kernels->gemm_mr = GEMM_MR;
    kernels->gemm_nr = GEMM_NR;
    kernels->expand_f32 = expand_f32;
    kernels->expand_bf16 = expand_bf16;
    kernels->expand_f16 = expand_f16;
    kernels->pack_f32 = pack_f32;
    kernels->pack_bf16 = pack_bf16;
    kernels->pack_f16 = pack_f16;
    kernels->gemm = gemm;
    kernels->gemv_f32 = gemv_f32;
    kernels->gemv_bf16 = gemv_bf16;
    kernels->gemv_f16 = gemv_f16;
    kernels->weighted_sum = weighted_sum;
}
