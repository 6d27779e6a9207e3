/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Template: gemm on m x (vectors x LANES) tiles held in registers. Included by simd/products.inc.h (f32) and by the
 * files of instruction sets that multiply bf16. It defines the kernel `GEMM_NAME` from what the including file
 * defines:
 *
 *   GEMM_VALUE, GEMM_VECTOR   a value of `a` and `panel`, and a vector of them
 *   GEMM_STEP                 values of the summed dimension in a lane of such a vector: 1, or 2 for pairs
 *   GEMM_LDA                  values from row to row of `a`
 *   GEMM_CASES                the height of the highest tile, 6, 8 or 14
 *   gemm_load(panel), gemm_set1(a), gemm_set1_last(a)   a vector of a panel; one step of a row of `a` in all lanes;
 *                             its last value, where a step of two is not full
 *   gemm_add_product(sum, x, b)
 *   GEMM_STEPS                if instructions multiply by a lane: the steps that a vector of a row of `a` holds,
 *                             gemm_load(a); and gemm_add_product_lane(sum, x, step, b)
 *
 * This is one text for all formats, but each has a copy of the code: tiles share no function that is not inlined, since
 * sums passed to one go through memory. With gcc 12 that cost 1 to 6% (docs/SPEED.md, experiments that lost).
 */

static ALWAYS_INLINE void gemm_tile(const int m, const int vectors, int n, int64_t k, const GEMM_VALUE *a,
                                    const GEMM_VALUE *panel, float *c, int64_t c_stride, int accumulate,
                                    const float *bias) {
    vec sum[GEMM_CASES][2];
    UNROLL for (int i = 0; i < m; i++) UNROLL for (int v = 0; v < vectors; v++) sum[i][v] = v_zero();
    int64_t l = 0;
#ifdef GEMM_STEPS
    for (; l + GEMM_STEPS * GEMM_STEP <= k; l += GEMM_STEPS * GEMM_STEP) {
        GEMM_VECTOR x[GEMM_CASES];
        UNROLL for (int i = 0; i < m; i++) x[i] = gemm_load(a + i * GEMM_LDA);
        UNROLL for (int step = 0; step < GEMM_STEPS; step++) {
            GEMM_VECTOR b[2];
            UNROLL for (int v = 0; v < vectors; v++) b[v] = gemm_load(panel + v * GEMM_STEP * LANES);
            panel += GEMM_STEP * 2 * LANES;
            UNROLL for (int i = 0; i < m; i++) UNROLL for (int v = 0; v < vectors; v++) sum[i][v] =
                gemm_add_product_lane(sum[i][v], x[i], step, b[v]);
        }
        a += GEMM_STEPS * GEMM_STEP;
    }
#endif
    for (; l + GEMM_STEP <= k; l += GEMM_STEP) {
        GEMM_VECTOR b[2];
        UNROLL for (int v = 0; v < vectors; v++) b[v] = gemm_load(panel + v * GEMM_STEP * LANES);
        panel += GEMM_STEP * 2 * LANES;
        UNROLL for (int i = 0; i < m; i++) {
            GEMM_VECTOR x = gemm_set1(a + i * GEMM_LDA);
            UNROLL for (int v = 0; v < vectors; v++) sum[i][v] = gemm_add_product(sum[i][v], x, b[v]);
        }
        a += GEMM_STEP;
    }
#if GEMM_STEP == 2
    if (k & 1) {
        GEMM_VECTOR b[2];
        UNROLL for (int v = 0; v < vectors; v++) b[v] = gemm_load(panel + v * GEMM_STEP * LANES);
        UNROLL for (int i = 0; i < m; i++) {
            GEMM_VECTOR x = gemm_set1_last(a + i * GEMM_LDA);
            UNROLL for (int v = 0; v < vectors; v++) sum[i][v] = gemm_add_product(sum[i][v], x, b[v]);
        }
    }
#endif
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

static void GEMM_NAME(int m, int n, int64_t k, const GEMM_VALUE *a, const GEMM_VALUE *panel, float *c, int64_t c_stride,
                      int accumulate, const float *bias) {
    switch (m) {
        GEMM_CASE(1)
        GEMM_CASE(2)
        GEMM_CASE(3)
        GEMM_CASE(4)
        GEMM_CASE(5)
        GEMM_CASE(6)
#if GEMM_CASES > 6
        GEMM_CASE(7)
        GEMM_CASE(8)
#endif
#if GEMM_CASES > 8
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
#undef GEMM_CASE
