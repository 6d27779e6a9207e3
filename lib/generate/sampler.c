/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Greedy sampling (HF: GenerationMixin, do_sample=False): token = argmax(logits).
 *
 * Where nobody wants the logits, the head makes them in blocks of the vocabulary that stay in the cache, and of each
 * block its largest logit is kept: no array is as long as the vocabulary.
 */
#include "generate/sampler.h"

int64_t pgi_sample(const float *logits, int64_t vocab_size) {
    int64_t best = -1;
    for (int64_t i = 0; i < vocab_size; i++)
        if (best < 0 ? logits[i] == logits[i] : logits[i] > logits[best]) best = i;
    return best < 0 ? 0 : best;
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
