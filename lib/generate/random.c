/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Philox4x32-10, and the inverse of a distribution function in whole numbers. */
#include "generate/random.h"

#include <math.h>

#include "generate/probability.h"

void pgi_philox(const uint32_t key[2], uint32_t counter[4]) {
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        const uint64_t a = (uint64_t)0xD2511F53 * counter[0], b = (uint64_t)0xCD9E8D57 * counter[2];
        const uint32_t c0 = (uint32_t)(b >> 32) ^ counter[1] ^ k0, c2 = (uint32_t)(a >> 32) ^ counter[3] ^ k1;
        counter[0] = c0;
        counter[1] = (uint32_t)b;
        counter[2] = c2;
        counter[3] = (uint32_t)a;
        k0 += 0x9E3779B9;
        k1 += 0xBB67AE85;
    }
}

uint64_t pgi_random(uint64_t seed, uint64_t stream, uint64_t step) {
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t counter[4] = {(uint32_t)step, (uint32_t)(step >> 32), (uint32_t)stream, (uint32_t)(stream >> 32)};
    pgi_philox(key, counter);
    return (uint64_t)counter[1] << 32 | counter[0];
}

/* The upper 64 bits of a * b. */
uint64_t pgi_random_below(uint64_t a, uint64_t b) {
    const uint64_t a0 = (uint32_t)a, a1 = a >> 32, b0 = (uint32_t)b, b1 = b >> 32;
    const uint64_t middle = a1 * b0 + (a0 * b0 >> 32), other = a0 * b1 + (uint32_t)middle;
    return a1 * b1 + (middle >> 32) + (other >> 32);
}

/* At most 2^40; a vocabulary has at most 2^22 ids, so that sums stay below 2^63. */
static uint64_t weight(float score, float largest) {
    if (score == largest) return UINT64_C(1) << 40;
    return score < largest ? (uint64_t)(pgi_exp((double)score - (double)largest) * 0x1p40) : 0;
}

int64_t pgi_draw(const float *scores, int64_t n, uint64_t random) {
    float largest = -INFINITY;
    uint64_t total = 0;
    for (int64_t i = 0; i < n; i++)
        if (scores[i] > largest) largest = scores[i];
    if (largest == -INFINITY) return 0;
    for (int64_t i = 0; i < n; i++) total += weight(scores[i], largest);
    uint64_t rest = pgi_random_below(random, total);
    for (int64_t i = 0; i < n; i++) {
        const uint64_t w = weight(scores[i], largest);
        if (rest < w) return i;
        rest -= w;
    }
    return 0;
}
