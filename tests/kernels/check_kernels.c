/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The checks of the single kernels. Every line of kernels.inc needs a check_<name> here, or this file does not compile.
 */
#include "check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/float16.h"

enum { SMALL = 34 }; /* 2 x the widest vector, and 1 and 2 more */

int next_length(int64_t *n) {
    static const int64_t others[] = {71, 72, 255, 256, 588, 1152, 1153};
    if (*n < SMALL) return (++*n, 1);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (others[i] > *n) return (*n = others[i], 1);
    return 0;
}

/* ---- weights to f32 ---- */

typedef void (*expand_fn)(const void *w, int64_t n, float scale, float *out);

static void check_expand(check *c, expand_fn expand, int32_t dtype) {
    size_t size = pgi_dtype_size(dtype);
    for (int64_t n = 0; next_length(&n);) {
        for (int odd = 0; odd < 2; odd++) {
            float scale = odd ? 45.25f : 1;
            void *w = guarded(c, (size_t)n * size, (size_t)odd);
            float *out = guarded_output(c, n);
            random_weights(c, w, dtype, n);
            expand(w, n, scale, out);
            for (int64_t i = 0; i < n; i++) {
                float want = (float)weight_value(w, dtype, i) * scale;
                if (out[i] != want) fail(c, "n %d [%d]: found %a, expected %a", (int)n, (int)i, out[i], want);
            }
            release_all(c);
        }
    }
    if (size != 2) return;
    uint16_t *all = guarded(c, 65536 * 2, 0);
    float *out = guarded_output(c, 65536);
    for (int i = 0; i < 65536; i++) all[i] = (uint16_t)i;
    expand(all, 65536, 1, out);
    for (int i = 0; i < 65536; i++) {
        float want = (float)weight_value(all, dtype, i);
        if (isnan(want) ? !isnan(out[i]) : memcmp(&want, &out[i], 4) != 0)
            fail(c, "bits 0x%04X: found %a, expected %a", i, out[i], want);
    }
}
static void check_expand_f32(check *c) { check_expand(c, c->kernels->expand_f32, PG_DTYPE_F32); }
static void check_expand_bf16(check *c) { check_expand(c, c->kernels->expand_bf16, PG_DTYPE_BF16); }
static void check_expand_f16(check *c) { check_expand(c, c->kernels->expand_f16, PG_DTYPE_F16); }

typedef void (*pack_fn)(const void *w, int64_t w_bytes, int rows, int64_t k, float *panel);

static void check_pack(check *c, pack_fn pack, int32_t dtype) {
    const int nr = c->kernels->gemm_nr;
    int64_t size = (int64_t)pgi_dtype_size(dtype);
    for (int rows = 1; rows <= nr; rows++) {
        for (int64_t k = 0; next_length(&k);) {
            if (k > 300) break;
            int64_t gap = random_below(c, 3) ? 0 : random_below(c, 40) + 1, w_bytes = k * size + gap;
            size_t odd = (size_t)random_below(c, 2);
            char *w = guarded(c, (size_t)(w_bytes * (rows - 1) + k * size), odd);
            float *panel = guarded_output(c, k * nr);
            for (int r = 0; r < rows; r++) random_weights(c, w + r * w_bytes, dtype, k);
            pack(w, w_bytes, rows, k, panel);
            for (int64_t i = 0; i < k; i++)
                for (int r = 0; r < nr; r++) {
                    float want = r < rows ? (float)weight_value(w + r * w_bytes, dtype, i) : 0;
                    if (panel[i * nr + r] != want)
                        fail(c, "rows %d, k %d [%d][%d]: found %a, expected %a", rows, (int)k, (int)i, r,
                             panel[i * nr + r], want);
                }
            release_all(c);
        }
    }
}
static void check_pack_f32(check *c) { check_pack(c, c->kernels->pack_f32, PG_DTYPE_F32); }
static void check_pack_bf16(check *c) { check_pack(c, c->kernels->pack_bf16, PG_DTYPE_BF16); }
static void check_pack_f16(check *c) { check_pack(c, c->kernels->pack_f16, PG_DTYPE_F16); }

/* ---- products ---- */

void spoil_one(check *c, float *x, int64_t n) {
    if (random_below(c, 8) == 0) x[random_below(c, n)] = random_below(c, 2) ? NAN : INFINITY;
}

static void check_gemm_shape(check *c, int m, int n, int64_t k) {
    const int nr = c->kernels->gemm_nr;
    int accumulate = (int)random_below(c, 2), with_bias = (int)random_below(c, 2);
    int64_t stride = n + random_below(c, 5);
    float *a = guarded_floats(c, (int64_t)(m - 1) * PGI_GEMM_LDA + k), *panel = guarded_floats(c, k * nr);
    float *out = guarded_output(c, stride * (m - 1) + n), *bias = guarded_floats(c, n);
    float before[PGI_GEMM_MR_MAX * (PGI_GEMM_NR_MAX + 8)];
    random_fill(c, a, (int64_t)(m - 1) * PGI_GEMM_LDA + k);
    random_fill(c, panel, k * nr);
    random_fill(c, bias, n);
    for (int i = 0; i < m; i++) random_fill(c, out + i * stride, accumulate ? n : 0);
    memcpy(before, out, sizeof(float) * (size_t)(stride * (m - 1) + n));
    spoil_one(c, a, k);
    c->kernels->gemm(m, n, k, a, panel, out, stride, accumulate, with_bias ? bias : NULL);
    for (int i = 0; i < m; i++) {
        for (int j = 0; j < n; j++) {
            double start = accumulate ? before[i * stride + j] : with_bias ? bias[j] : 0;
            double want = start, magnitudes = fabs(start), squares = start * start;
            for (int64_t l = 0; l < k; l++) {
                double product = (double)a[i * PGI_GEMM_LDA + l] * panel[l * nr + j];
                want += product, magnitudes += fabs(product), squares += product * product;
            }
            expect_near(c, out[i * stride + j], want, sum_bound((double)k + 1, magnitudes, squares), "c", i, j);
        }
        for (int64_t j = n; j < stride && i + 1 < m; j++)
            if (!isnan(out[i * stride + j])) fail(c, "%d x %d: wrote between the rows", m, n);
    }
    release_all(c);
}

static void check_gemm(check *c) {
    static const int64_t depths[] = {1, 2, 17, 72};
    for (int m = 1; m <= c->kernels->gemm_mr; m++)
        for (int n = 1; n <= c->kernels->gemm_nr; n++)
            for (int twice = 0; twice < 2; twice++) check_gemm_shape(c, m, n, depths[random_below(c, 4)]);
    check_gemm_shape(c, c->kernels->gemm_mr, c->kernels->gemm_nr, PGI_GEMM_KC);
    check_gemm_shape(c, c->kernels->gemm_mr - 1, c->kernels->gemm_nr - 1, PGI_GEMM_KC);
}

typedef void (*gemv_x_fn)(int m, int64_t k, const float *x, int64_t x_stride, float *out);
typedef void (*gemv_fn)(int m, int64_t rows, int64_t k, const float *x, const void *w, int64_t w_bytes,
                        const float *bias, float *y, int64_t y_stride);

static void check_gemv_shape(check *c, gemv_x_fn lay, gemv_fn gemv, int32_t dtype, int m, int64_t rows, int64_t k) {
    int64_t size = (int64_t)pgi_dtype_size(dtype), w_bytes = k * size + (random_below(c, 3) ? 0 : random_below(c, 40));
    int64_t x_stride = k + random_below(c, 3), y_stride = rows + random_below(c, 3);
    int with_bias = (int)random_below(c, 2);
    char *w = guarded(c, (size_t)(w_bytes * (rows - 1) + k * size), (size_t)random_below(c, 2));
    float *x = guarded_floats(c, x_stride * (m - 1) + k), *bias = guarded_floats(c, rows);
    float *y = guarded_output(c, y_stride * (m - 1) + rows), *alone = guarded_output(c, rows);
    for (int64_t r = 0; r < rows; r++) random_weights(c, w + r * w_bytes, dtype, k);
    random_fill(c, x, x_stride * (m - 1) + k);
    random_fill(c, bias, rows);
    spoil_one(c, x, k);
    float *laid = guarded_output(c, m * pgi_ceil_div64(k, PGI_GEMV_UNIT) * PGI_GEMV_UNIT);
    lay(m, k, x, x_stride, laid);
    gemv(m, rows, k, laid, w, w_bytes, with_bias ? bias : NULL, y, y_stride);
    for (int i = 0; i < m; i++) {
        for (int64_t r = 0; r < rows; r++) {
            double start = with_bias ? bias[r] : 0, want = start, magnitudes = fabs(start), squares = start * start;
            for (int64_t l = 0; l < k; l++) {
                double product = (double)x[i * x_stride + l] * weight_value(w + r * w_bytes, dtype, l);
                want += product, magnitudes += fabs(product), squares += product * product;
            }
            expect_near(c, y[i * y_stride + r], want, sum_bound((double)k + 1, magnitudes, squares), "y", i, r);
        }
        for (int64_t r = rows; r < y_stride && i + 1 < m; r++)
            if (!isnan(y[i * y_stride + r])) fail(c, "wrote between the rows of y");
        lay(1, k, x + i * x_stride, 0, laid);
        gemv(1, rows, k, laid, w, w_bytes, with_bias ? bias : NULL, alone, rows);
        if (memcmp(alone, y + i * y_stride, (size_t)rows * sizeof(float)))
            fail(c, "m %d, rows %d, k %d: row %d differs from the same row alone", m, (int)rows, (int)k, i);
    }
    release_all(c);
}

static void check_gemv(check *c, gemv_x_fn lay, gemv_fn gemv, int32_t dtype, int most) {
    for (int m = 1; m <= most; m++) {
        for (int64_t k = 0; next_length(&k);) check_gemv_shape(c, lay, gemv, dtype, m, 1 + random_below(c, 6), k);
        for (int64_t rows = 1; rows <= 9; rows++)
            check_gemv_shape(c, lay, gemv, dtype, m, rows, 1 + random_below(c, 300));
        check_gemv_shape(c, lay, gemv, dtype, m, 9, 4304); /* blocks of 8 rows in turns, and a rest of columns */
    }
    for (int m = 1; m <= most; m++) check_gemv_shape(c, lay, gemv, dtype, m, 9, 16384);
}
/* One stream or several: the same bits. */
static void check_gemv_same(check *c, gemv_x_fn lay, gemv_fn gemv, gemv_fn one_stream, int32_t dtype) {
    for (int round = 0; round < 8; round++) {
        const int64_t m = 1 + round % PGI_ONE_STREAM_ROWS, rows = 1 + random_below(c, 20),
                      k = 1 + random_below(c, 5000);
        const int64_t w_bytes = k * (int64_t)pgi_dtype_size(dtype);
        char *w = guarded(c, (size_t)(w_bytes * rows), 0);
        float *x = guarded_floats(c, m * k), *y = guarded_output(c, m * rows), *same = guarded_output(c, m * rows);
        float *laid = guarded_output(c, m * pgi_ceil_div64(k, PGI_GEMV_UNIT) * PGI_GEMV_UNIT);
        random_weights(c, w, dtype, rows * k);
        random_fill(c, x, m * k);
        lay((int)m, k, x, k, laid);
        gemv((int)m, rows, k, laid, w, w_bytes, NULL, y, rows);
        one_stream((int)m, rows, k, laid, w, w_bytes, NULL, same, rows);
        if (memcmp(y, same, (size_t)(m * rows) * sizeof *y))
            fail(c, "m %d, rows %d, k %d: other bits", (int)m, (int)rows, (int)k);
        release_all(c);
    }
}
#define CHECK_GEMV(dtype, DTYPE)                                                                                      \
    static void check_gemv_##dtype(check *c) {                                                                        \
        check_gemv(c, c->kernels->gemv_x_##dtype, c->kernels->gemv_##dtype, DTYPE, PGI_GEMV_ROWS);                    \
    }                                                                                                                 \
    static void check_gemv_one_stream_##dtype(check *c) {                                                             \
        check_gemv(c, c->kernels->gemv_x_##dtype, c->kernels->gemv_one_stream_##dtype, DTYPE, PGI_ONE_STREAM_ROWS);   \
        check_gemv_same(c, c->kernels->gemv_x_##dtype, c->kernels->gemv_##dtype, c->kernels->gemv_one_stream_##dtype, \
                        DTYPE);                                                                                       \
    }
CHECK_GEMV(f32, PG_DTYPE_F32)
CHECK_GEMV(bf16, PG_DTYPE_BF16)
CHECK_GEMV(f16, PG_DTYPE_F16)

/* What gemv_x writes is only for gemv, so the product of both says whether it is right. */
static void check_gemv_x_f32(check *c) { check_gemv_f32(c); }
static void check_gemv_x_bf16(check *c) { check_gemv_bf16(c); }
static void check_gemv_x_f16(check *c) { check_gemv_f16(c); }

static void check_weighted_sums(check *c, int bf16) {
    for (int64_t d = 0; next_length(&d);) {
        int64_t n = 1 + random_below(c, 70), stride = d + random_below(c, 9), n_values = stride * (n - 1) + d;
        float *p = guarded_floats(c, n), *v = guarded_floats(c, n_values), *out = guarded_output(c, d);
        uint16_t *rounded = bf16 ? guarded(c, (size_t)n_values * sizeof *rounded, 0) : NULL;
        random_fill(c, p, n);
        random_fill(c, v, n_values);
        for (int64_t i = 0; i < n_values && bf16; i++) v[i] = pgi_f32_from_bf16(rounded[i] = pgi_bf16_from_f32(v[i]));
        spoil_one(c, p, n);
        if (bf16)
            c->kernels->weighted_sum_bf16(n, d, p, rounded, stride, out);
        else
            c->kernels->weighted_sum(n, d, p, v, stride, out);
        for (int64_t i = 0; i < d; i++) {
            double want = 0, magnitudes = 0, squares = 0;
            for (int64_t j = 0; j < n; j++) {
                double product = (double)p[j] * v[j * stride + i];
                want += product, magnitudes += fabs(product), squares += product * product;
            }
            expect_near(c, out[i], want, sum_bound((double)n, magnitudes, squares), "out", n, i);
        }
        release_all(c);
    }
}
static void check_weighted_sum(check *c) { check_weighted_sums(c, 0); }
static void check_weighted_sum_bf16(check *c) { check_weighted_sums(c, 1); }

/* ---- softmax ---- */

static void check_row_max(check *c) {
    for (int64_t n = 0; next_length(&n);) {
        for (int kind = 0; kind < 6; kind++) {
            float *x = guarded_floats(c, n), want = -INFINITY;
            random_fill(c, x, n);
            if (kind == 1) x[random_below(c, n)] = INFINITY;
            if (kind == 2)
                for (int64_t i = 0; i < n; i++) x[i] = -INFINITY;
            if (kind == 3) x[n - 1] = 2;
            if (kind == 4) x[0] = 2;
            for (int64_t i = 0; i < n; i++) want = x[i] > want ? x[i] : want;
            float got = c->kernels->row_max(x, n);
            if (got != want) fail(c, "n %d, kind %d: found %g, expected %g", (int)n, kind, got, want);
            release_all(c);
        }
    }
}

static void check_exp_sum(check *c) {
    for (int64_t n = 0; next_length(&n);) {
        for (int kind = 0; kind < 4; kind++) {
            float *x = guarded_output(c, n), before[1200], max = kind == 2 ? 3 : 0;
            for (int64_t i = 0; i < n; i++) x[i] = (float)(random_unit(c) - 1) * (kind == 0 ? 1 : kind == 1 ? 8 : 60);
            if (kind == 3) x[random_below(c, n)] = random_below(c, 2) ? NAN : -INFINITY;
            memcpy(before, x, (size_t)n * sizeof(float));
            float sum = c->kernels->exp_sum(x, n, max);
            double want_sum = 0, bound_sum = 0;
            for (int64_t i = 0; i < n; i++) {
                double distance = (double)before[i] - max, want = exp(distance);
                /* the rounding of the difference grows by it, the function itself stays within 3 roundings */
                double bound = EPSILON * want * (isfinite(distance) ? 4 + fabs(distance) : 4);
                expect_near(c, x[i], want, bound, "exp", n, i);
                want_sum += want, bound_sum += bound;
            }
            expect_near(c, sum, want_sum, bound_sum + EPSILON * want_sum * ((double)n / 8 + 8), "sum", n, kind);
            release_all(c);
        }
    }
}

static void check_exp_sum_bf16(check *c) {
    for (int64_t n = 0; next_length(&n);) {
        for (int kind = 0; kind < 4; kind++) {
            float *x = guarded_output(c, n), before[1200], max = kind == 2 ? 3 : 0;
            uint16_t *out = guarded(c, (size_t)n * sizeof *out, 64);
            for (int64_t i = 0; i < n; i++) x[i] = (float)(random_unit(c) - 1) * (kind == 0 ? 1 : kind == 1 ? 8 : 70);
            if (kind == 3) x[random_below(c, n)] = random_below(c, 2) ? NAN : -INFINITY;
            memcpy(before, x, (size_t)n * sizeof(float));
            memset(out, 0xFF, (size_t)n * sizeof *out);
            float sum = c->kernels->exp_sum_bf16(x, n, max, out);
            double want_sum = 0, bound_sum = 0;
            for (int64_t i = 0; i < n; i++) {
                double distance = (double)before[i] - max, want = exp(distance);
                double bound = want * (1e-5 + (isfinite(distance) ? 2 * EPSILON * fabs(distance) : 0)), ulp = 0;
                int exponent;
                if (isfinite(want)) frexp(want, &exponent), ulp = ldexp(1, exponent - 8);
                expect_near(c, (float)weight_value(out, PG_DTYPE_BF16, i), want, bound + ulp / 2 + 0x1p-126, "exp", n,
                            i);
                want_sum += want, bound_sum += bound;
            }
            expect_near(c, sum, want_sum, bound_sum + EPSILON * want_sum * ((double)n / 8 + 8) + 0x1p-126, "sum", n,
                        kind);
            release_all(c);
        }
    }
}

/* ---- norms and rotation ---- */

static void check_norm(check *c, int center) {
    for (int64_t n = 0; next_length(&n);) {
        for (int kind = 0; kind < 4; kind++) {
            float *x = guarded_floats(c, n), *weight = guarded_floats(c, n), *bias = guarded_floats(c, n);
            float *y = guarded_output(c, n), eps = kind ? 1e-6f : 1e-5f;
            random_fill(c, x, n);
            random_fill(c, weight, n);
            random_fill(c, bias, n);
            for (int64_t i = 0; i < n && kind == 1; i++) x[i] = x[i] * 0.01f + (center ? 0.25f : 0);
            for (int64_t i = 0; i < n && kind == 2; i++) x[i] *= 1e4f;
            if (kind == 3) spoil_one(c, x, n);
            if (center)
                c->kernels->layer_norm(x, n, weight, bias, eps, y);
            else
                c->kernels->rms_norm(x, n, weight, eps, y);
            double mean = 0, squares = 0, magnitude = 0;
            for (int64_t i = 0; i < n && center; i++) mean += x[i] / (double)n;
            for (int64_t i = 0; i < n; i++)
                squares += (x[i] - mean) * (x[i] - mean), magnitude += fabs((double)x[i]) / (double)n;
            double factor = 1 / sqrt(squares / (double)n + (double)eps), chain = (double)n / 16 + 8;
            /* An error of the mean moves every value, and the variance by its square. */
            double mean_error = center ? EPSILON * chain * magnitude : 0;
            for (int64_t i = 0; i < n; i++) {
                double normal = (x[i] - mean) * factor;
                double gain = center ? weight[i] : 1 + (double)weight[i], want = normal * gain + (center ? bias[i] : 0);
                double bound = EPSILON * (fabs(normal * gain) * (chain + 8) + fabs(normal)) + EPSILON * fabs(want);
                bound += fabs(gain) * factor * mean_error * (1 + factor * fabs(normal) * mean_error);
                expect_near(c, y[i], want, bound, "y", n, i);
            }
            release_all(c);
        }
    }
}
static void check_rms_norm(check *c) { check_norm(c, 0); }
static void check_layer_norm(check *c) { check_norm(c, 1); }

static void check_rope(check *c) {
    for (int64_t half = 0; next_length(&half);) {
        float *x = guarded_output(c, 2 * half), *cosine = guarded_floats(c, half), *sine = guarded_floats(c, half);
        float before[2400];
        random_fill(c, x, 2 * half);
        random_fill(c, cosine, half);
        random_fill(c, sine, half);
        memcpy(before, x, (size_t)(2 * half) * sizeof(float));
        c->kernels->rope(x, half, cosine, sine);
        for (int64_t i = 0; i < half; i++) {
            double a = before[i], b = before[half + i], co = cosine[i], si = sine[i];
            expect_near(c, x[i], a * co - b * si, 2 * EPSILON * (fabs(a * co) + fabs(b * si)), "first half", half, i);
            expect_near(c, x[half + i], b * co + a * si, 2 * EPSILON * (fabs(b * co) + fabs(a * si)), "second half",
                        half, i);
        }
        release_all(c);
    }
}

/* ---- functions of single values ---- */

/* A function, and how much its best f32 computation may miss, in roundings of the result. */
typedef struct function {
    double (*value)(double x);
    double (*roundings)(double x);
} function;

static double gelu_tanh_value(double x) { /* through the logistic function, for 1 + tanh cancels in double too */
    double u = 2 * sqrt(2 / M_PI) * (x + 0.044715 * x * x * x);
    return x / (1 + exp(-u));
}
/* u is rounded a few times, and exp passes |u| times that on where it is not negligible beside 1. */
static double gelu_tanh_roundings(double x) {
    double u = 2 * sqrt(2 / M_PI) * (x + 0.044715 * x * x * x), share = 1 / (1 + exp(u));
    return isfinite(u) ? 6 + 5 * fabs(u) * share : 6;
}
static double gelu_erf_value(double x) { return 0.5 * x * erfc(-x * M_SQRT1_2); }
static double gelu_erf_roundings(double x) { return (void)x, 10; }
static double silu_value(double x) { return x / (1 + exp(-x)); }
static double silu_roundings(double x) { return (void)x, 6; }
static double relu_value(double x) { return x < 0 ? 0 : x; }
static double relu_roundings(double x) { return (void)x, 0; }

static const function gelu_tanh_f = {gelu_tanh_value, gelu_tanh_roundings};
static const function gelu_erf_f = {gelu_erf_value, gelu_erf_roundings};
static const function silu_f = {silu_value, silu_roundings};
static const function relu_f = {relu_value, relu_roundings};

/* Values over the whole range, small and large, and the special ones. */
static void fill_arguments(check *c, float *x, int64_t n) {
    static const float special[] = {0,     -0.0f,  INFINITY, -INFINITY, NAN,   1e-40f, -1e-40f,
                                    1e20f, -1e20f, 88,       -88,       3e38f, -3e38f};
    for (int64_t i = 0; i < n; i++) {
        switch (random_below(c, 6)) {
            case 0: x[i] = (float)(random_unit(c) * 100); break;
            case 1: x[i] = (float)(random_unit(c) * pow(2, (double)random_below(c, 40) - 30)); break;
            case 2: x[i] = special[random_below(c, sizeof special / sizeof *special)]; break;
            default: x[i] = (float)(random_unit(c) * 8); break;
        }
    }
}

static void check_function(check *c, void (*apply)(float *, int64_t), void (*gate)(float *, const float *, int64_t),
                           const function *f) {
    for (int64_t n = 0; next_length(&n);) {
        for (int again = 0; again < 4; again++) {
            float *x = guarded_output(c, n), *y = guarded_floats(c, n), before[1200],
                  single[2] = {0}; /* one is used; a broken kernel may write the next */
            fill_arguments(c, x, n);
            random_fill(c, y, n);
            memcpy(before, x, (size_t)n * sizeof(float));
            if (apply)
                apply(x, n);
            else
                gate(x, y, n);
            for (int64_t i = 0; i < n; i++) {
                double want = f->value(before[i]) * (gate ? y[i] : 1);
                double bound = (f->roundings(before[i]) + (gate ? 1 : 0)) * EPSILON * fabs(want);
                /* Below 2^-121 it may become 0: exp(-x) overflows there, in HF's formula too. */
                expect_near(c, x[i], want, bound + 0x1p-121, "f", n, i);
            }
            /* Where a value stands in a call must not matter. */
            int64_t i = random_below(c, n);
            single[0] = before[i];
            if (apply)
                apply(single, 1);
            else
                gate(single, y + i, 1);
            if (!(isnan(single[0]) && isnan(x[i])) && single[0] != x[i])
                fail(c, "n %d: value %d differs from the same alone", (int)n, (int)i);
            release_all(c);
        }
    }
}

static void check_gelu_tanh(check *c) { check_function(c, c->kernels->gelu_tanh, NULL, &gelu_tanh_f); }
static void check_gelu_erf(check *c) { check_function(c, c->kernels->gelu_erf, NULL, &gelu_erf_f); }
static void check_silu(check *c) { check_function(c, c->kernels->silu, NULL, &silu_f); }
static void check_relu(check *c) { check_function(c, c->kernels->relu, NULL, &relu_f); }
static void check_gate_gelu_tanh(check *c) { check_function(c, NULL, c->kernels->gate_gelu_tanh, &gelu_tanh_f); }
static void check_gate_gelu_erf(check *c) { check_function(c, NULL, c->kernels->gate_gelu_erf, &gelu_erf_f); }
static void check_gate_silu(check *c) { check_function(c, NULL, c->kernels->gate_silu, &silu_f); }
static void check_gate_relu(check *c) { check_function(c, NULL, c->kernels->gate_relu, &relu_f); }

static void check_soft_cap(check *c) {
    for (int64_t n = 0; next_length(&n);) {
        for (int again = 0; again < 4; again++) {
            float *x = guarded_output(c, n), before[1200], cap = again & 1 ? 50 : 30;
            fill_arguments(c, x, n);
            for (int64_t i = 0; i < n; i += 2) x[i] *= 10;
            memcpy(before, x, (size_t)n * sizeof(float));
            c->kernels->soft_cap(x, n, cap);
            for (int64_t i = 0; i < n; i++) {
                double want = cap * tanh((double)before[i] / cap);
                expect_near(c, x[i], want, 8 * EPSILON * fabs(want) + 0x1p-143, "cap", n,
                            i); /* x / cap may be subnormal */
            }
            release_all(c);
        }
    }
}

static void check_add(check *c) {
    for (int64_t n = 0; next_length(&n);) {
        float *x = guarded_output(c, n), *y = guarded_floats(c, n), before[1200];
        random_fill(c, x, n);
        random_fill(c, y, n);
        memcpy(before, x, (size_t)n * sizeof(float));
        c->kernels->add(x, y, n);
        for (int64_t i = 0; i < n; i++)
            if (x[i] != before[i] + y[i]) fail(c, "n %d [%d]", (int)n, (int)i);
        release_all(c);
    }
}

static void check_scale(check *c) {
    for (int64_t n = 0; next_length(&n);) {
        float *x = guarded_output(c, n), before[1200], factor = (float)random_unit(c);
        random_fill(c, x, n);
        memcpy(before, x, (size_t)n * sizeof(float));
        c->kernels->scale(x, n, factor);
        for (int64_t i = 0; i < n; i++)
            if (x[i] != before[i] * factor) fail(c, "n %d [%d]", (int)n, (int)i);
        release_all(c);
    }
}

const kernel_check kernel_checks[] = {
#define K(type, name, parameters) {#name, check_##name},
#include "kernels/kernels.inc"
#undef K
};
const int n_kernel_checks = sizeof kernel_checks / sizeof *kernel_checks;
