/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Greedy sampling (HF: GenerationMixin, do_sample=False): token = argmax(logits).
 *
 * Where nobody wants the logits, the head makes them in blocks of the vocabulary that stay in the cache, and of each
 * block its largest logit is kept: no array is as long as the vocabulary.
 */
#include "generate/sampler.h"

enum { LANES = 32 }; /* of a loop that compilers make vectors of */

/* Whether one of LANES values is larger than `than`. */
static int any_larger(const float *x, float than) {
    int larger = 0;
    for (int i = 0; i < LANES; i++) larger |= x[i] > than;
    return larger;
}

int64_t pgi_sample(const float *logits, int64_t vocab_size) {
    int64_t best = 0, i = 0;
    while (best < vocab_size && logits[best] != logits[best]) best++; /* NaN is never larger */
    if (best == vocab_size) return 0;
    for (; i < vocab_size; i++) {
        if (i % LANES == 0)
            while (i + LANES <= vocab_size && !any_larger(logits + i, logits[best])) i += LANES;
        if (i < vocab_size && logits[i] > logits[best]) best = i;
    }
    return best;
}

pg_status pgi_sample_hidden(const pgi_run *run, const pgi_text_config *config, const pgi_text_weights *weights,
                            const float *x, int64_t n_rows, int64_t *tokens, float *block,
                            const pgi_head_workspace *workspace) {
    float largest[PGI_SAMPLER_ROWS];
    for (int64_t first = 0; first < config->vocab_size; first += PGI_SAMPLER_BLOCK) {
        const int64_t n = pgi_min64(PGI_SAMPLER_BLOCK, config->vocab_size - first);
        PGI_TRY(pgi_head_forward_block(run, config, weights, x, n_rows, first, n, block, workspace));
        for (int64_t r = 0; r < n_rows; r++) {
            const int64_t best = pgi_sample(block + r * n, n);
            const float value = block[r * n + best];
            /* a NaN, from a block that has nothing else, gives way to any number */
            if (first == 0 || value > largest[r] || (largest[r] != largest[r] && value == value))
                largest[r] = value, tokens[r] = first + best;
        }
    }
    return PG_OK;
}
