/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Temperature, top_h, top_k, top_p, min_p, typical_p, epsilon and eta cutoff: HF's TemperatureLogitsWarper and those
 * after it, in their order, with `least` tokens kept at the least. Probabilities are rounded to f32 and their sums
 * taken in double precision, as torch does; the softmax itself is exact to f32, so that a token may be judged
 * differently only where it lies within torch's own rounding of a bound. Of equal scores at the bound of top_p the
 * higher ids stay, as with a stable sort.
 */
#include "generate/warpers.h"

#include <math.h>
#include <string.h>

#include "generate/probability.h"

/* Floats as whole numbers of the same order; -0 counts as 0. */
static uint32_t ordered(float value) {
    uint32_t bits;
    value += 0.0f;
    memcpy(&bits, &value, sizeof bits);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

static uint64_t key_of(float value, int64_t id) { return (uint64_t)ordered(value) << 32 | (uint64_t)id; }
static int64_t id_of(uint64_t key) { return (int64_t)(uint32_t)key; }

/* Sorts keys by their upper halves; equal ones stay in their order. `other` is memory of the same size. */
static void sort(uint64_t *keys, uint64_t *other, int64_t n) {
    enum { BITS = 8, DIGITS = 1 << BITS };
    for (int shift = 32; shift < 64; shift += BITS) {
        int64_t begin[DIGITS + 1] = {0};
        for (int64_t i = 0; i < n; i++) begin[(keys[i] >> shift & (DIGITS - 1)) + 1]++;
        for (int d = 0; d < DIGITS; d++) begin[d + 1] += begin[d];
        for (int64_t i = 0; i < n; i++) other[begin[keys[i] >> shift & (DIGITS - 1)]++] = keys[i];
        uint64_t *sorted = other;
        other = keys;
        keys = sorted;
    }
}

/* The ids that are left, by ascending score, in w->keys. Returns how many there are. */
static int64_t sort_left(const pgi_sampling_workspace *w, int64_t vocab_size) {
    int64_t n = 0;
    for (int64_t i = 0; i < vocab_size; i++)
        if (w->scores[i] > -INFINITY) w->keys[n++] = key_of(w->scores[i], i);
    sort(w->keys, w->keys + vocab_size, n);
    return n;
}

static float probability(const pgi_softmax *softmax, float score) {
    return (float)(pgi_exp((double)score - softmax->largest) / softmax->sum);
}

static float log_probability(const pgi_softmax *softmax, float score) { /* torch's order of rounding */
    return score - (float)softmax->largest - (float)softmax->log_sum;
}

/* The same as torch.distributions.Categorical has it. */
static float categorical_log_probability(const pgi_softmax *softmax, float score) {
    return score - (float)(softmax->largest + softmax->log_sum);
}

/* The entropy of what is left. Each term is rounded as in torch: near certainty that is all there is of it. */
static float entropy(const pgi_softmax *softmax, float (*log_of)(const pgi_softmax *, float), const float *scores,
                     int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        if (scores[i] > -INFINITY) {
            const float log_p = log_of(softmax, scores[i]), p = (float)pgi_exp(log_p < 0 ? (double)log_p : 0);
            sum -= (double)(log_p * p);
        }
    return (float)sum;
}

/* Keeps the likeliest ids, of at most 100, whose share of those 100's entropy is no more than top_h. */
static void keep_top_h(double top_h, int64_t vocab_size, const pgi_sampling_workspace *w) {
    enum { MOST = 100 };
    float top[MOST];
    int64_t ids[MOST], k = 0;
    pgi_largest(w->scores, vocab_size, MOST, ids);
    while (k < MOST && ids[k] >= 0 && w->scores[ids[k]] > -INFINITY) top[k] = w->scores[ids[k]], k++;
    const pgi_softmax softmax = pgi_softmax_of(top, k);
    const float bound = entropy(&softmax, categorical_log_probability, top, k) * (float)top_h;
    double sum = 0;
    int64_t n_kept = 0;
    for (int64_t i = 0; i < k; i++) {
        const float p = probability(&softmax, top[i]);
        sum += p > 0 ? (double)(-p * (float)log((double)p)) : 0;
        if (i > 0 && !(p > 0 && (float)sum <= bound)) break;
        n_kept++;
    }
    for (int64_t i = 0; i < vocab_size; i++) w->scores[i] = -INFINITY;
    for (int64_t i = 0; i < n_kept; i++) w->scores[ids[i]] = top[i];
}

/* Keeps the k likeliest ids, and all that are as likely as the last of them. */
static void keep_top_k(int32_t top_k, int64_t vocab_size, const pgi_sampling_workspace *w) {
    const int64_t n = sort_left(w, vocab_size);
    if (n <= top_k) return;
    const float least = w->scores[id_of(w->keys[n - top_k])];
    for (int64_t i = 0; i < vocab_size; i++)
        if (w->scores[i] < least) w->scores[i] = -INFINITY;
}

/* Takes the least likely ids out, together no more than 1 - top_p. */
static void keep_top_p(double top_p, int64_t least, int64_t vocab_size, const pgi_sampling_workspace *w) {
    const int64_t n = sort_left(w, vocab_size);
    const pgi_softmax softmax = pgi_softmax_of(w->scores, vocab_size);
    const float bound = (float)(1 - top_p);
    double sum = 0;
    for (int64_t i = 0; i < n - least; i++) {
        float *score = &w->scores[id_of(w->keys[i])];
        sum += probability(&softmax, *score);
        if (!((float)sum <= bound)) break;
        *score = -INFINITY;
    }
}

static void keep_min_p(double min_p, float sure, int64_t vocab_size, const pgi_sampling_workspace *w) {
    const pgi_softmax softmax = pgi_softmax_of(w->scores, vocab_size);
    const float bound = (float)min_p * (float)(1 / softmax.sum);
    for (int64_t i = 0; i < vocab_size; i++)
        if (w->scores[i] < sure && probability(&softmax, w->scores[i]) < bound) w->scores[i] = -INFINITY;
}

/* Keeps the ids whose surprise is the nearest to the entropy, together no less than typical_p. */
static void keep_typical(double typical_p, int64_t least, int64_t vocab_size, const pgi_sampling_workspace *w) {
    const pgi_softmax softmax = pgi_softmax_of(w->scores, vocab_size);
    const float typical = entropy(&softmax, log_probability, w->scores, vocab_size);
    int64_t n = 0, last = 0;
    for (int64_t i = 0; i < vocab_size; i++)
        if (w->scores[i] > -INFINITY)
            w->keys[n++] = key_of(fabsf(-log_probability(&softmax, w->scores[i]) - typical), i);
    sort(w->keys, w->keys + vocab_size, n);
    double sum = 0;
    for (; last < n; last++) {
        sum += probability(&softmax, w->scores[id_of(w->keys[last])]);
        if (!((float)sum < (float)typical_p)) break;
    }
    if (last >= n) return; /* what is out already is the next */
    const uint64_t bound = w->keys[last] >> 32;
    for (int64_t i = n - 1; i >= least && w->keys[i] >> 32 > bound; i--) w->scores[id_of(w->keys[i])] = -INFINITY;
}

/* Takes the ids out that are less likely than `bound`; scores from `sure` on stay. */
static void keep_above(float bound, float sure, const pgi_softmax *softmax, int64_t vocab_size, float *scores) {
    for (int64_t i = 0; i < vocab_size; i++)
        if (scores[i] < sure && probability(softmax, scores[i]) < bound) scores[i] = -INFINITY;
}

static void keep_eta(double eta_cutoff, float sure, int64_t vocab_size, float *scores) {
    const pgi_softmax softmax = pgi_softmax_of(scores, vocab_size);
    const float left = entropy(&softmax, categorical_log_probability, scores, vocab_size);
    const float by_entropy = sqrtf((float)eta_cutoff) * (float)pgi_exp(left > 0 ? -(double)left : 0);
    keep_above(fminf((float)eta_cutoff, by_entropy), sure, &softmax, vocab_size, scores);
}

/* What no softmax can take: NaN goes out, and infinity leaves nothing beside it. */
static void tame(int64_t vocab_size, float *scores) {
    int infinite = 0;
    for (int64_t i = 0; i < vocab_size; i++) {
        if (scores[i] != scores[i]) scores[i] = -INFINITY;
        infinite |= scores[i] == INFINITY;
    }
    for (int64_t i = 0; infinite && i < vocab_size; i++) scores[i] = scores[i] == INFINITY ? 0 : -INFINITY;
}

/* The score of the least'th likeliest id. */
static float score_of_least(int64_t least, int64_t vocab_size, const pgi_sampling_workspace *w) {
    int64_t *ids = (int64_t *)(void *)w->keys;
    least = pgi_min64(least, vocab_size);
    pgi_largest(w->scores, vocab_size, least, ids);
    return ids[least - 1] < 0 ? -INFINITY : w->scores[ids[least - 1]];
}

void pgi_warp(const pg_sampling_options *options, int64_t least, int64_t vocab_size, const pgi_sampling_workspace *w) {
    const float temperature = (float)options->temperature;
    tame(vocab_size, w->scores);
    for (int64_t i = 0; temperature != 1 && i < vocab_size; i++) w->scores[i] /= temperature;
    tame(vocab_size, w->scores);
    if (options->top_h > 0) keep_top_h(options->top_h, vocab_size, w);
    if (options->top_k > 0) keep_top_k((int32_t)pgi_max64(options->top_k, least), vocab_size, w);
    if (options->top_p < 1) keep_top_p(options->top_p, least, vocab_size, w);
    if (options->min_p > 0) keep_min_p(options->min_p, score_of_least(least, vocab_size, w), vocab_size, w);
    if (options->typical_p < 1) keep_typical(options->typical_p, least, vocab_size, w);
    if (options->epsilon_cutoff > 0) {
        const pgi_softmax softmax = pgi_softmax_of(w->scores, vocab_size);
        keep_above((float)options->epsilon_cutoff, score_of_least(least, vocab_size, w), &softmax, vocab_size,
                   w->scores);
    }
    if (options->eta_cutoff > 0)
        keep_eta(options->eta_cutoff, score_of_least(least, vocab_size, w), vocab_size, w->scores);
}
