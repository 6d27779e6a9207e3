/* The decoder, Gemma 1 and Gemma 2 (HF: GemmaModel, Gemma2Model) with PaliGemma's prefix attention. */
#ifndef PGI_DECODER_DECODER_H
#define PGI_DECODER_DECODER_H

#include "base/run.h"
#include "checkpoint/config.h"
#include "checkpoint/weights.h"

/* Keys and values of every layer, f32. */
typedef struct pgi_kv_cache {
    float *keys, *values; /* [n_layers, capacity, n_kv_heads * head_dim], keys rotated */
    int64_t capacity;     /* positions */
    int64_t n_positions;  /* filled so far */
    int64_t n_prefix;     /* the first positions, that all see each other */
} pgi_kv_cache;

/* Bytes of `keys` (or `values`) for `capacity` positions; SIZE_MAX when that is more than can be addressed. */
size_t pgi_kv_cache_size(const pgi_text_config *config, int64_t capacity);

/* Bytes of workspace to run up to `n_rows` rows at once with up to `n_keys` positions in the cache. */
size_t pgi_decoder_workspace(const pgi_run *run, const pgi_text_config *config, int64_t n_rows, int64_t n_keys);

/* out [n, hidden]: rows of the embedding times sqrt(hidden). Every id must be within the vocabulary. */
void pgi_decoder_embed(const pgi_run *run, const pgi_text_config *config, const pgi_text_weights *weights,
                       const int64_t *ids, int64_t n, float *out);

/*
 * Runs the rows x [n_rows, hidden] (overwritten) at the positions that follow
 * those in the cache, adds their keys and values to it, and computes the logits
 * [vocab_size] of the last row.
 *
 * Rows below cache->n_prefix see the whole prefix, in sliding layers too; rows
 * after it are causal, and held to the window in sliding layers. A prefix must
 * be run in one call.
 */
pg_status pgi_decoder_forward(const pgi_run *run, const pgi_text_config *config, const pgi_text_weights *weights,
                              pgi_kv_cache *cache, float *x, int64_t n_rows, float *logits, void *workspace);

#endif
