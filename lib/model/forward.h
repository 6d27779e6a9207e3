/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* One pass over a batch: logits, loss, hidden states. The public outputs handle is this struct. */
#ifndef PGI_MODEL_FORWARD_H
#define PGI_MODEL_FORWARD_H

#include "model/merged_inputs.h"

struct pg_outputs {
    pgi_memory memory;
    int64_t n_rows, n_tokens; /* B, T */
    int64_t n_kept;           /* K: logits are kept of the last K tokens */
    int64_t vocab_size, hidden_size, n_layers, n_image_tokens;
    float *logits;         /* [B, K, vocab_size], or NULL */
    float *hidden_states;  /* [n_layers + 1, B, T, hidden], or NULL */
    float *last_hidden;    /* [B, T, hidden], or NULL; may be the last of the hidden states */
    int64_t embedding_dim; /* of the model's retrieval embeddings */
    float *embeddings;     /* [B, T, embedding_dim], or NULL */
    float *attentions;     /* of the shape beside it, or NULL */
    int64_t attentions_shape[4];
    pg_features *features; /* counted; NULL: no images */
    int has_loss;
    float loss;
};

/* options: complete, row_models NULL or of all rows (row_models.h). PG_FORWARD_NO_LOSS: labels are not looked at.
 * observer: sees the layers; NULL: nobody does. On error *out needs no release. */
pg_status pgi_forward(const pg_model *model, const pg_inputs *inputs, const pg_forward_options *options,
                      const pgi_observer *observer, pg_outputs **out);
void pgi_outputs_close(pg_outputs *outputs); /* NULL is ignored */

#endif
