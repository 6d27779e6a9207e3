/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Template: the kernels that read weights in one stream, expand_* and gemv_*, for one format of weights. Included by
 * simd/products.inc.h once for each: DTYPE is f32, bf16 or f16, DTYPE_BYTES the size of a weight. A file and not a
 * macro, so that a debugger can step through it.
 */
#define NAME_OF_DTYPE(name, dtype) name##_##dtype
#define NAME_EXPANDED(name, dtype) NAME_OF_DTYPE(name, dtype)
#define NAME(name) NAME_EXPANDED(name, DTYPE) /* expand: expand_f32 */
#define LOAD_N_OF_DTYPE(dtype) v_load_##dtype##_n
#define LOAD_N_EXPANDED(dtype) LOAD_N_OF_DTYPE(dtype)
#define LOAD NAME(v_load)             /* LANES weights as f32 */
#define LOAD_N LOAD_N_EXPANDED(DTYPE) /* the first n < LANES */

static void NAME(expand)(const void *w, int64_t n, float scale, float *out) {
    const vec factor = v_set1(scale);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) v_store(out + i, v_mul(LOAD((const char *)w + i * DTYPE_BYTES), factor));
    if (i < n) v_store_n(out + i, v_mul(LOAD_N((const char *)w + i * DTYPE_BYTES, n - i), factor), n - i);
}
/* A block of `block` rows of W: as many streams as the registers have sums for. Every sum is that of two vectors,
 * even and odd steps, so that it does not depend on m or block. */
static ALWAYS_INLINE void NAME(gemv_block)(const int m, const int block, int64_t k, const float *x, int64_t x_stride,
                                           const char *w, int64_t w_bytes, const float *bias, float *y,
                                           int64_t y_stride) {
    vec even[PGI_GEMV_ROWS][GEMV_BLOCK], odd[PGI_GEMV_ROWS][GEMV_BLOCK];
    UNROLL for (int i = 0; i < m; i++) UNROLL for (int r = 0; r < block; r++) even[i][r] = odd[i][r] = v_zero();
    int64_t l = 0;
    for (; l + 2 * LANES <= k; l += 2 * LANES) {
        UNROLL for (int r = 0; r < block; r++) {
            const char *p = w + r * w_bytes + l * DTYPE_BYTES;
#ifndef GEMV_BY_HARDWARE
            UNROLL for (int u = 0; u < 2 * LANES * DTYPE_BYTES; u += 64) __builtin_prefetch(p + GEMV_AHEAD + u);
#endif
            vec b = LOAD(p), b2 = LOAD(p + LANES * DTYPE_BYTES);
            UNROLL for (int i = 0; i < m; i++) {
                even[i][r] = v_fma(v_load(x + i * x_stride + l), b, even[i][r]);
                odd[i][r] = v_fma(v_load(x + i * x_stride + l + LANES), b2, odd[i][r]);
            }
        }
    }
    if (l + LANES <= k) {
        UNROLL for (int r = 0; r < block; r++) {
            vec b = LOAD(w + r * w_bytes + l * DTYPE_BYTES);
            UNROLL for (int i = 0; i < m; i++) even[i][r] = v_fma(v_load(x + i * x_stride + l), b, even[i][r]);
        }
        l += LANES;
    }
    if (l < k) {
        UNROLL for (int r = 0; r < block; r++) {
            vec b = LOAD_N(w + r * w_bytes + l * DTYPE_BYTES, k - l);
            UNROLL for (int i = 0; i < m; i++) odd[i][r] = v_fma(v_load_n(x + i * x_stride + l, k - l), b, odd[i][r]);
        }
    }
    UNROLL for (int i = 0; i < m; i++) {
        UNROLL for (int r = 0; r < block; r++) {
            float sum = v_sum(v_add(even[i][r], odd[i][r]));
            y[i * y_stride + r] = bias ? sum + bias[r] : sum;
        }
    }
}
static ALWAYS_INLINE void NAME(gemv_rows)(const int m, const int block, int64_t rows, int64_t k, const float *x,
                                          int64_t x_stride, const char *w, int64_t w_bytes, const float *bias, float *y,
                                          int64_t y_stride) {
    int64_t r = 0;
    for (; r + block <= rows; r += block)
        NAME(gemv_block)(m, block, k, x, x_stride, w + r * w_bytes, w_bytes, bias ? bias + r : NULL, y + r, y_stride);
    for (; r < rows; r++)
        NAME(gemv_block)(m, 1, k, x, x_stride, w + r * w_bytes, w_bytes, bias ? bias + r : NULL, y + r, y_stride);
}
static void NAME(gemv)(int m, int64_t rows, int64_t k, const float *x, int64_t x_stride, const void *w, int64_t w_bytes,
                       const float *bias, float *y, int64_t y_stride) {
    switch (m) {
        case 1: NAME(gemv_rows)(1, GEMV_BLOCK, rows, k, x, x_stride, w, w_bytes, bias, y, y_stride); break;
        case 2: NAME(gemv_rows)(2, GEMV_BLOCK / 2, rows, k, x, x_stride, w, w_bytes, bias, y, y_stride); break;
        case 3: NAME(gemv_rows)(3, GEMV_BLOCK / 4, rows, k, x, x_stride, w, w_bytes, bias, y, y_stride); break;
        case 4: NAME(gemv_rows)(4, GEMV_BLOCK / 4, rows, k, x, x_stride, w, w_bytes, bias, y, y_stride); break;
        default: break;
    }
}

#undef NAME_OF_DTYPE
#undef NAME_EXPANDED
#undef NAME
#undef LOAD_N_OF_DTYPE
#undef LOAD_N_EXPANDED
#undef LOAD
#undef LOAD_N
#undef DTYPE
#undef DTYPE_BYTES
