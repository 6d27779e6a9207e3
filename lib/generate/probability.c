/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Softmax, log-softmax and the largest of logits. */
#include "generate/probability.h"

#include <math.h>
#include <string.h>

/* x = k ln 2 + r with |r| <= ln 2 / 2: e^x = 2^k e^r, e^r by its Taylor series, whose next term is below 2^-57. */
double pgi_exp(double x) {
    static const double ln2_high = 0x1.62e42feep-1, ln2_low = 0x1.a39ef35793c76p-33, log2_e = 0x1.71547652b82fep0;
    static const double inverse_factorial[] = {
        1.0,        1.0,         1.0 / 2,      1.0 / 6,       1.0 / 24,       1.0 / 120,       1.0 / 720,
        1.0 / 5040, 1.0 / 40320, 1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800.0};
    if (x < -708) return 0;
    if (!(x <= 0)) return x > 0 ? INFINITY : x;
    const double k = floor(x * log2_e + 0.5), r = x - k * ln2_high - k * ln2_low;
    double sum = inverse_factorial[13], power;
    for (int i = 12; i >= 0; i--) sum = sum * r + inverse_factorial[i];
    const uint64_t bits = (uint64_t)((int64_t)k + 1023) << 52; /* 2^k, k >= -1022 */
    memcpy(&power, &bits, sizeof power);
    return sum * power;
}

pgi_softmax pgi_softmax_of(const float *logits, int64_t n) {
    pgi_softmax s = {-INFINITY, 0, 0};
    for (int64_t i = 0; i < n; i++)
        if (logits[i] > s.largest) s.largest = logits[i];
    for (int64_t i = 0; i < n; i++) s.sum += pgi_exp((double)logits[i] - s.largest);
    s.log_sum = log(s.sum);
    return s;
}

float pgi_log_prob(const pgi_softmax *softmax, float logit) {
    return (float)((double)logit - softmax->largest - softmax->log_sum);
}

void pgi_largest(const float *logits, int64_t n, int64_t k, int64_t *ids) {
    int64_t found = 0;
    for (int64_t i = 0; i < n && k > 0; i++) {
        if (logits[i] != logits[i] || (found == k && !(logits[i] > logits[ids[k - 1]]))) continue;
        int64_t at = found < k ? found++ : k - 1;
        for (; at > 0 && logits[ids[at - 1]] < logits[i]; at--) ids[at] = ids[at - 1];
        ids[at] = i;
    }
    for (int64_t i = found; i < k; i++) ids[i] = -1;
}
