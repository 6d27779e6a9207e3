/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The kernels of camera frames: exact. That their plain C is what the standards say is for tests/unit/test_frames.c. */
#include "check.h"

#include "image/frame.h"

static pgi_yuv any_yuv(check *c) {
    pgi_yuv yuv;
    pgi_yuv_init((int32_t)random_below(c, 2), (int32_t)random_below(c, 2), (int)random_below(c, 2), &yuv);
    return yuv;
}

static uint8_t *any_bytes(check *c, int64_t n) {
    uint8_t *bytes = guarded(c, (size_t)n, 0);
    for (int64_t i = 0; i < n; i++)
        bytes[i] = random_below(c, 4) ? (uint8_t)random_bits(c) : random_below(c, 2) ? 255 : 0;
    return bytes;
}

void check_yuv_terms(check *c) {
    for (int64_t n = 0; next_length(&n);) {
        const pgi_yuv yuv = any_yuv(c);
        const int64_t stride = 2 * n + random_below(c, 5);
        const uint8_t *chroma = any_bytes(c, 2 * n);
        int16_t *terms = guarded(c, (size_t)(2 * stride + 2 * n) * sizeof *terms, 64);
        for (int64_t i = 0; i < 2 * stride + 2 * n; i++) terms[i] = INT16_MIN;
        c->kernels->yuv_terms(&yuv, chroma, n, terms, stride);
        for (int64_t i = 0; i < 2 * stride + 2 * n; i++) {
            const int64_t k = i % stride;
            int32_t want = INT16_MIN; /* no term is so low: what lies between two rows is not written */
            if (k < 2 * n)
                want = pgi_yuv_term(&yuv, (int)(i / stride), chroma[k / 2 * 2] - 128, chroma[k / 2 * 2 + 1] - 128);
            if (terms[i] != want)
                fail(c, "n %d, row %d [%d]: found %d, expected %d", (int)n, (int)(i / stride), (int)k, terms[i], want);
        }
        release_all(c);
    }
}

void check_yuv_row(check *c) {
    for (int64_t n = 0; next_length(&n);) {
        const pgi_yuv yuv = any_yuv(c);
        const int64_t stride = n + random_below(c, 5), n_terms = 2 * stride + n;
        const uint8_t *y = any_bytes(c, n);
        int16_t *terms = guarded(c, (size_t)n_terms * sizeof *terms, 0);
        uint8_t *out = guarded(c, (size_t)n * 3, 64);
        for (int64_t i = 0; i < n_terms; i++) /* as far as any standard's go */
            terms[i] = (int16_t)(random_below(c, 4) ? random_below(c, 41001) - 21100 : random_below(c, 74));
        c->kernels->yuv_row(&yuv, y, terms, stride, n, out);
        for (int64_t i = 0; i < 3 * n; i++) {
            const int32_t sum = yuv.scale * y[i / 3] + terms[i % 3 * stride + i / 3];
            int32_t want = sum < 0 ? 0 : sum / 73;
            if (want > 255) want = 255;
            if (out[i] != want) fail(c, "n %d [%d]: found %d, expected %d", (int)n, (int)i, out[i], want);
        }
        release_all(c);
    }
}
