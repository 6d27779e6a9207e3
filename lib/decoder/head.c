/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* logits = x E^T, E being the embedding where the head is tied; Gemma 2: then cap * tanh(logits / cap). */
#include "decoder/head.h"

#include "ops/mixed.h"
#include "ops/ops.h"

pgi_head_workspace pgi_head_lay_out(pgi_arena *arena, const pgi_run *run) {
    return (pgi_head_workspace){pgi_arena_take(arena, pgi_linear_scratch(run->kernels, run->n_threads), 1)};
}

pg_status pgi_head_forward(const pgi_run *run, const pgi_text_config *config, const pgi_text_weights *weights,
                           const float *x, int64_t n_tokens, float *logits, const pgi_head_workspace *w) {
    const int64_t n = config->vocab_size;
    PGI_TRY(pgi_linear_forward(run, x, config->hidden_size, n_tokens, &weights->head, logits, n, w->linear));
    return config->final_soft_cap > 0 ? pgi_soft_cap(run, logits, n_tokens * n, config->final_soft_cap) : PG_OK;
}

pg_status pgi_head_forward_rows(const pgi_run *run, const pgi_text_config *config,
                                const pgi_text_weights *const *weights, const float *x, int64_t n_tokens, float *logits,
                                const pgi_head_workspace *w) {
    const int64_t vocab = config->vocab_size, h = config->hidden_size;
    const pgi_linear *heads[PGI_MIXED_ROWS];
    pgi_mixed mixed;
    for (int64_t i = 0; i < n_tokens; i++) heads[i] = &weights[i]->head;
    for (int64_t i = 0, n; i < n_tokens; i += n) {
        n = pgi_mixed_take(heads + i, n_tokens - i, 1, 0, &mixed);
        PGI_TRY(pgi_linear_forward(run, x + i * h, h, n, mixed.layers[0], logits + i * vocab, vocab, w->linear));
    }
    return config->final_soft_cap > 0 ? pgi_soft_cap(run, logits, n_tokens * vocab, config->final_soft_cap) : PG_OK;
}
