/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The passes of a resize against sums in 64 bits: equal to the last bit. */
#include "check.h"

#include <string.h>

#include "kernels/resample.h"

/* Weights of n_out outputs out of n_in samples that sum to 1, some below 0; their magnitudes to less than 2. */
static pgi_resample random_resample(check *c, int32_t n_in, int32_t n_out, int32_t most) {
    pgi_resample s = {.n_max = most, .n_out = n_out};
    s.first = guarded(c, (size_t)n_out * sizeof *s.first, 0);
    s.n = guarded(c, (size_t)n_out * sizeof *s.n, 0);
    s.weights = guarded(c, (size_t)n_out * (size_t)most * sizeof *s.weights, 0);
    const int32_t one = 1 << PGI_RESAMPLE_BITS;
    for (int32_t x = 0; x < n_out; x++) {
        int32_t n = 1 + (int32_t)random_below(c, most < n_in ? most : n_in), left = one;
        s.n[x] = n;
        s.first[x] = x == n_out - 1 ? n_in - n : (int32_t)random_below(c, n_in - n + 1);
        for (int32_t k = 0; k < n; k++) {
            int32_t w = k == n - 1 ? left : (int32_t)(random_unit(c) * 0.45 * one / n);
            s.weights[x * most + k] = w;
            left -= w;
        }
    }
    return s;
}

static uint8_t want_sample(const int32_t *weights, int32_t n, const uint8_t *in, int64_t stride) {
    int64_t sum = PGI_RESAMPLE_HALF;
    for (int32_t k = 0; k < n; k++) sum += (int64_t)in[k * stride] * weights[k];
    sum >>= PGI_RESAMPLE_BITS;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

void check_resample_columns(check *c) {
    for (int again = 0; again < 60; again++) {
        const int32_t width = 1 + (int32_t)random_below(c, again < 30 ? 12 : 200);
        const int32_t n_out = 1 + (int32_t)random_below(c, 30), most = 1 + (int32_t)random_below(c, 40);
        const int64_t rows = 1 + random_below(c, 10), n = rows * n_out * 3, stride = width * 3 + random_below(c, 9);
        const int64_t n_in = (rows - 1) * stride + width * 3;
        pgi_resample s = random_resample(c, width, n_out, most);
        uint8_t *in = guarded(c, (size_t)n_in, 0), *out = guarded(c, (size_t)n, 64);
        for (int64_t i = 0; i < n_in; i++) in[i] = (uint8_t)(random_below(c, 4) ? random_bits(c) : 255);
        memset(out, 0x5A, (size_t)n);
        c->kernels->resample_columns(&s, in, stride, width, rows, out);
        for (int64_t i = 0; i < n; i++) {
            int64_t y = i / 3 / n_out, x = i / 3 % n_out;
            uint8_t want = want_sample(s.weights + x * most, s.n[x], in + y * stride + s.first[x] * 3 + i % 3, 3);
            if (out[i] != want)
                fail(c, "width %d, %d outputs [%d][%d]: found %d, expected %d", width, n_out, (int)y, (int)x, out[i],
                     want);
        }
        release_all(c);
    }
}

void check_resample_row(check *c) {
    for (int64_t line = 0; next_length(&line);) {
        const int32_t n = 1 + (int32_t)random_below(c, 20);
        pgi_resample s = random_resample(c, n, 1, n);
        const int64_t stride = line + random_below(c, 9), n_in = (n - 1) * stride + line;
        uint8_t *in = guarded(c, (size_t)n_in, 0), *out = guarded(c, (size_t)line, 64);
        for (int64_t i = 0; i < n_in; i++) in[i] = (uint8_t)(random_below(c, 4) ? random_bits(c) : 255);
        memset(out, 0x5A, (size_t)line);
        c->kernels->resample_row(s.weights, s.n[0], in + s.first[0] * stride, stride, line, out);
        for (int64_t i = 0; i < line; i++) {
            uint8_t want = want_sample(s.weights, s.n[0], in + s.first[0] * stride + i, stride);
            if (out[i] != want) fail(c, "line %d [%d]: found %d, expected %d", (int)line, (int)i, out[i], want);
        }
        release_all(c);
    }
}
