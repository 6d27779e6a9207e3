/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The decoder's head: logits of last hidden states. */
#ifndef PGI_DECODER_HEAD_H
#define PGI_DECODER_HEAD_H

#include "base/memory.h"
#include "base/run.h"
#include "checkpoint/config.h"
#include "checkpoint/weights.h"

/* Memory of the head, for any number of tokens. */
typedef struct pgi_head_workspace {
    void *linear; /* scratch of pgi_linear_forward() */
} pgi_head_workspace;

pgi_head_workspace pgi_head_lay_out(pgi_arena *arena, const pgi_run *run);

/* logits [n_tokens, vocab_size], soft cap applied, of last hidden states x [n_tokens, hidden]. */
pg_status pgi_head_forward(const pgi_run *run, const pgi_text_config *config, const pgi_text_weights *weights,
                           const float *x, int64_t n_tokens, float *logits, const pgi_head_workspace *workspace);
/* The same for up to PGI_MIXED_ROWS tokens, each of the weights weights[i], that get the bits that each gets alone. */
pg_status pgi_head_forward_rows(const pgi_run *run, const pgi_text_config *config,
                                const pgi_text_weights *const *weights, const float *x, int64_t n_tokens, float *logits,
                                const pgi_head_workspace *workspace);

#endif
