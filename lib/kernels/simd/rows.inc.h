/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Template: the group `rows` of kernels.inc (norms, softmax, activations), on vectors of any width. The including file
 * first defines the vectors, as for products.inc.h.
 *
 * exp: x = n ln 2 + r, a polynomial for exp(r) - 1 on |r| <= ln 2 / 2, fitted by
 * weighted least squares to a relative error of 1.5e-8.
 * Normal distribution for GELU(erf): Phi(-z) = exp(-z^2 / 2) h(1 / (1 + 0.3 z)),
 * h a polynomial fitted on 0 <= z <= 14.5 to a relative error of 3.3e-9.
 */
#include "kernels/kernels.h"

#include <math.h>

#ifndef v_quotient
#define v_quotient v_div /* unless the vectors have something faster */
#endif

typedef struct exp_parts {
    vec whole, minus_one; /* exp(x) = (1 + minus_one) 2^whole */
} exp_parts;

/* For lo <= x <= hi; NaN stays NaN. */
static inline exp_parts split_exp(vec x) {
    exp_parts e;
    e.whole = v_round(v_mul(x, v_set1(1.44269504088896341f)));
    vec r = v_fnma(e.whole, v_set1(0.693145752f), x); /* ln 2 in two parts, the first with 8 bits of zeros behind */
    r = v_fnma(e.whole, v_set1(1.42860677e-6f), r);
    vec q = v_fma(v_set1(0.001392303965985775f), r, v_set1(0.008366795256733894f));
    q = v_fma(q, r, v_set1(0.04166662320494652f));
    q = v_fma(q, r, v_set1(0.16666540503501892f));
    q = v_fma(q, r, v_set1(0.5f));
    e.minus_one = v_fma(v_mul(q, r), r, r);
    return e;
}

static inline vec v_exp(vec x) {
    x = v_max(v_set1(-104.0f), v_min(v_set1(89.0f), x)); /* beyond: 0 and infinity, as at the ends */
    exp_parts e = split_exp(x);
    return v_scale(v_add(e.minus_one, v_set1(1.0f)), e.whole);
}

/* tanh |x| = t / (t + 2), t = exp(2 |x|) - 1, which keeps its digits near 0. */
static inline vec v_tanh(vec x) {
    vec two = v_set1(2.0f);
    exp_parts e = split_exp(v_min(v_set1(20.0f), v_mul(two, v_abs(x)))); /* 1 - tanh 10 is below half an ulp */
    vec power = v_scale(v_set1(1.0f), e.whole);
    vec t = v_fma(e.minus_one, power, v_sub(power, v_set1(1.0f)));
    return v_copysign(v_quotient(t, v_add(t, two)), x);
}

/* 0.5 x (1 + tanh u) = x / (1 + exp(-2u)), which keeps its digits where tanh u is near -1. */
static inline vec act_gelu_tanh(vec x) {
    vec u = v_mul(x, v_fma(v_mul(x, x), v_set1(-0.07135481627159236f), v_set1(-1.5957691216057308f)));
    return v_div(x, v_add(v_set1(1.0f), v_exp(u)));
}

static inline vec act_gelu_erf(vec x) {
    vec z = v_min(v_set1(20.0f), v_abs(x)); /* Phi(-20) is 0 in f32 */
    vec square = v_mul(z, z), rest = v_fms(z, z, square), half = v_set1(-0.5f);
    vec power = v_exp(v_mul(square, half));
    power = v_fma(power, v_mul(rest, half), power); /* exp of what the square's rounding left */
    vec t = v_div(v_set1(1.0f), v_fma(v_set1(0.3f), z, v_set1(1.0f)));
    vec p = v_set1(-0.020274987444281578f);
    p = v_fma(p, t, v_set1(0.11035676300525665f));
    p = v_fma(p, t, v_set1(-0.22277361154556274f));
    p = v_fma(p, t, v_set1(0.18357814848423004f));
    p = v_fma(p, t, v_set1(-0.07153764367103577f));
    p = v_fma(p, t, v_set1(0.09112446010112762f));
    p = v_fma(p, t, v_set1(0.08054450899362564f));
    p = v_fma(p, t, v_set1(0.1096254363656044f));
    p = v_fma(p, t, v_set1(0.11968084424734116f));
    p = v_fma(p, t, v_set1(0.11967559903860092f));
    p = v_fma(p, t, v_set1(4.872569547842431e-07f));
    vec tail = v_mul(power, p); /* Phi(-|x|) */
    return v_mul(x, v_if_negative(x, tail, v_sub(v_set1(1.0f), tail)));
}

static inline vec act_silu(vec x) { return v_div(x, v_add(v_set1(1.0f), v_exp(v_sub(v_zero(), x)))); }
static inline vec act_relu(vec x) { return v_max(v_zero(), x); }

#define DEFINE_ACTIVATION(name)                                                                                \
    static void name(float *x, int64_t n) {                                                                    \
        int64_t i = 0;                                                                                         \
        for (; i + LANES <= n; i += LANES) v_store(x + i, act_##name(v_load(x + i)));                          \
        if (i < n) v_store_n(x + i, act_##name(v_load_n(x + i, n - i)), n - i);                                \
    }                                                                                                          \
    static void gate_##name(float *x, const float *y, int64_t n) {                                             \
        int64_t i = 0;                                                                                         \
        for (; i + LANES <= n; i += LANES) v_store(x + i, v_mul(act_##name(v_load(x + i)), v_load(y + i)));    \
        if (i < n) v_store_n(x + i, v_mul(act_##name(v_load_n(x + i, n - i)), v_load_n(y + i, n - i)), n - i); \
    }

DEFINE_ACTIVATION(gelu_tanh)
DEFINE_ACTIVATION(gelu_erf)
DEFINE_ACTIVATION(silu)
DEFINE_ACTIVATION(relu)

static void soft_cap(float *x, int64_t n, float cap) {
    const vec c = v_set1(cap), part = v_set1(1 / cap);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) v_store(x + i, v_mul(c, v_tanh(v_mul(v_load(x + i), part))));
    if (i < n) v_store_n(x + i, v_mul(c, v_tanh(v_mul(v_load_n(x + i, n - i), part))), n - i);
}

static float row_max(const float *x, int64_t n) {
    if (n < LANES) {
        float max = x[0];
        for (int64_t i = 1; i < n; i++) max = x[i] > max ? x[i] : max;
        return max;
    }
    vec largest = v_load(x);
    for (int64_t i = LANES; i + LANES <= n; i += LANES) largest = v_max(largest, v_load(x + i));
    largest = v_max(largest, v_load(x + n - LANES));
    return v_largest(largest);
}

static float exp_sum(float *x, int64_t n, float max) {
    const vec m = v_set1(max);
    vec sum = v_zero(), sum2 = v_zero();
    int64_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        vec a = v_exp(v_sub(v_load(x + i), m)), b = v_exp(v_sub(v_load(x + i + LANES), m));
        v_store(x + i, a);
        v_store(x + i + LANES, b);
        sum = v_add(sum, a);
        sum2 = v_add(sum2, b);
    }
    if (i + LANES <= n) {
        vec a = v_exp(v_sub(v_load(x + i), m));
        v_store(x + i, a);
        sum = v_add(sum, a);
        i += LANES;
    }
    if (i < n) { /* through memory, so that the lanes behind the end count as 0 */
        float tail[LANES] = {0};
        v_store_n(tail, v_exp(v_sub(v_load_n(x + i, n - i), m)), n - i);
        v_store_n(x + i, v_load(tail), n - i);
        sum2 = v_add(sum2, v_load(tail));
    }
    return v_sum(v_add(sum, sum2));
}

/* The sum of (x - shift)^2, or of x, in four vectors of partial sums. */
static inline float row_sum(const float *x, int64_t n, float shift, const int squares) {
    const vec s = v_set1(shift);
    vec part[4] = {v_zero(), v_zero(), v_zero(), v_zero()};
    int64_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES) {
        for (int u = 0; u < 4; u++) {
            vec a = v_sub(v_load(x + i + u * LANES), s);
            part[u] = squares ? v_fma(a, a, part[u]) : v_add(part[u], a);
        }
    }
    for (; i + LANES <= n; i += LANES) {
        vec a = v_sub(v_load(x + i), s);
        part[0] = squares ? v_fma(a, a, part[0]) : v_add(part[0], a);
    }
    float sum = v_sum(v_add(v_add(part[0], part[1]), v_add(part[2], part[3])));
    for (; i < n; i++) {
        float a = x[i] - shift;
        sum += squares ? a * a : a;
    }
    return sum;
}

static void rms_norm(const float *x, int64_t n, const float *weight, float eps, float *y) {
    const float factor = 1 / sqrtf(row_sum(x, n, 0, 1) / (float)n + eps);
    const vec f = v_set1(factor), one = v_set1(1.0f);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) v_store(y + i, v_mul(v_mul(v_load(x + i), f), v_add(one, v_load(weight + i))));
    if (i < n)
        v_store_n(y + i, v_mul(v_mul(v_load_n(x + i, n - i), f), v_add(one, v_load_n(weight + i, n - i))), n - i);
}

static void layer_norm(const float *x, int64_t n, const float *weight, const float *bias, float eps, float *y) {
    const float mean = row_sum(x, n, 0, 0) / (float)n;
    const vec f = v_set1(1 / sqrtf(row_sum(x, n, mean, 1) / (float)n + eps)), m = v_set1(mean);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        v_store(y + i, v_fma(v_mul(v_sub(v_load(x + i), m), f), v_load(weight + i), v_load(bias + i)));
    if (i < n)
        v_store_n(
            y + i,
            v_fma(v_mul(v_sub(v_load_n(x + i, n - i), m), f), v_load_n(weight + i, n - i), v_load_n(bias + i, n - i)),
            n - i);
}

static void rope(float *x, int64_t half, const float *cos, const float *sin) {
    int64_t i = 0;
    for (; i + LANES <= half; i += LANES) {
        vec a = v_load(x + i), b = v_load(x + half + i), c = v_load(cos + i), s = v_load(sin + i);
        v_store(x + i, v_fnma(b, s, v_mul(a, c)));
        v_store(x + half + i, v_fma(a, s, v_mul(b, c)));
    }
    if (i < half) {
        int64_t n = half - i;
        vec a = v_load_n(x + i, n), b = v_load_n(x + half + i, n), c = v_load_n(cos + i, n), s = v_load_n(sin + i, n);
        v_store_n(x + i, v_fnma(b, s, v_mul(a, c)), n);
        v_store_n(x + half + i, v_fma(a, s, v_mul(b, c)), n);
    }
}

static void add(float *x, const float *y, int64_t n) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) v_store(x + i, v_add(v_load(x + i), v_load(y + i)));
    for (; i < n; i++) x[i] += y[i];
}

static void scale(float *x, int64_t n, float factor) {
    const vec f = v_set1(factor);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) v_store(x + i, v_mul(v_load(x + i), f));
    for (; i < n; i++) x[i] *= factor;
}

static void set_rows(pgi_kernels *kernels) {
#define K(type, name, parameters) kernels->name = name;
#include "kernels/lists/rows.inc"
#undef K
}
