/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The decoder, Gemma 1 and Gemma 2 (HF: GemmaModel, Gemma2Model) with PaliGemma's prefix attention. */
#ifndef PGI_DECODER_DECODER_H
#define PGI_DECODER_DECODER_H

#include "base/memory.h"
#include "base/run.h"
#include "checkpoint/config.h"
#include "checkpoint/weights.h"
#include "ops/ops.h"

/* Keys and values of the tokens of one sequence in every layer. */
typedef struct pgi_kv_cache {
    void *keys,
        *values; /* [n_layers, n_kv_heads, capacity, head_dim], keys rotated: a step reads each head in one stream */
    int bf16;    /* rounded to bf16; 0: f32 */
    int64_t capacity;      /* tokens */
    int64_t n_tokens;      /* filled so far */
    int64_t next_position; /* of the token that follows; the first is at 1 */
} pgi_kv_cache;

/* Bytes of `keys` (or `values`) for `capacity` tokens; SIZE_MAX when that is more than can be addressed. */
size_t pgi_kv_cache_size(const pgi_text_config *config, int bf16, int64_t capacity);

/*
 * Tokens of one sequence in the order of its text, with padding before and after them.
 *
 * A token of the prefix sees the whole prefix, in sliding layers too; the tokens
 * after it are causal, and held to the window in sliding layers. Padding, and what
 * else the mask hides, is seen by nobody. What it sees itself is what HF lets it see: tokens before it as
 * causality and window allow, and the prefix when its type is 0. Where that is
 * nothing, HF's value depends on its attention kernel; ours is 0.
 */
typedef struct pgi_sequence {
    pgi_kv_cache *cache;      /* of earlier tokens; those of this pass are added. NULL: there are none but these */
    int64_t n_tokens;         /* padding counted */
    int64_t n_left, n_right;  /* the first and the last of them that are padding */
    int64_t n_prefix;         /* tokens of the prefix, which one pass must run whole; 0 in later passes */
    const int64_t *types;     /* [n_tokens] token types, read for padding alone; NULL: all 0 */
    const int64_t *positions; /* [n_tokens] positions for RoPE; NULL: they count on over the tokens, padding goes on the
                                 line in both directions */
    const int64_t *mask; /* [n_tokens], 1, and 0 for a token that nobody sees, between n_left and n_right too; NULL:
                            there is none between them. Not in later passes */
    int64_t n_hidden;    /* such tokens between n_left and n_right */
    int packed; /* several texts one after the other: where a position is not the one before and 1 more, another begins;
                   no token after the prefix sees a text before its own. Needs positions; no padding, no cache */
} pgi_sequence;

/* The softmax weights of attention that a pass keeps, of one sequence without a cache. */
typedef struct pgi_kept_attention {
    pgi_attention_weights weights; /* of the first layer that is kept and of query `first` */
    int64_t layer_stride;          /* floats from layer to layer; 0 sums them */
    int32_t layer, n_layers;       /* the layers that are kept */
    int64_t first, n; /* tokens of the pass whose weights are kept; the last layer must not leave one out */
} pgi_kept_attention;

/* One pass through all layers, over tokens of one or more sequences. */
typedef struct pgi_pass {
    float *x;                      /* [n_tokens, hidden]: embeddings; overwritten */
    int64_t n_tokens;              /* of all sequences, padding counted */
    const pgi_sequence *sequences; /* their tokens follow one another in x */
    int64_t n_sequences;
    const pgi_text_weights *const *row_weights; /* [n_tokens] of up to PGI_MIXED_ROWS tokens, one of each sequence: the
                                                   weights of each, which gets the bits that it gets alone. NULL: those
                                                   of the call */
    int64_t first_out, n_out; /* the tokens that are wanted in the end: the last layer leaves out the others */
    const int64_t *outs;  /* [n_out] where they do not follow one another: which they are, ascending; first_out is 0.
                             Then x begins with them in the end. NULL: they do */
    float *hidden_states; /* what each layer but the last gives, `hidden_stride` floats apart; NULL: not wanted */
    int64_t hidden_stride;
    const pgi_kept_attention *kept;    /* NULL: not wanted */
    int64_t layers_done, layers_total; /* progress of a prefill before this pass; total 0: a decode step, untold */
} pgi_pass;

/* Which keys each of T tokens sees. */
typedef struct pgi_key_ranges {
    int64_t *key_begin;     /* [T]: a full layer of a packed sequence sees the keys from here (others: from 0) */
    int64_t *key_end;       /* [T]: a full layer sees the keys up to here */
    int64_t *window_prefix; /* [T]: a sliding layer sees the keys up to here, */
    int64_t *window_begin;  /* [T]  and those from here */
    int64_t *window_end;    /* [T]  to here */
} pgi_key_ranges;

/* Memory of a pass: T tokens, hidden_size h, A query heads and G KV heads of d = head_dim values. */
typedef struct pgi_decoder_workspace {
    float *normed;        /* [T, h] */
    float *residual;      /* [T, h]: what a block adds to x */
    float *q;             /* [T, A * d] */
    float *k, *v;         /* [T, G * d]: of the tokens of this pass */
    float *attention_out; /* [T, A * d] */
    void *intermediate;   /* of the MLP */
    float *cos, *sin;     /* [T, d / 2] */
    pgi_key_ranges ranges;
    void *linear;    /* scratch of pgi_linear_forward() */
    void *attention; /* scratch of pgi_attention_forward() */
} pgi_decoder_workspace;

/* Memory for passes of up to n_tokens in all, of sequences of up to n_keys tokens. */
pgi_decoder_workspace pgi_decoder_lay_out(pgi_arena *arena, const pgi_run *run, const pgi_text_config *config,
                                          int64_t n_tokens, int64_t n_keys);

/* out [n, hidden]: rows of the embedding times sqrt(hidden). Every id must be within the vocabulary. */
void pgi_decoder_embed(const pgi_run *run, const pgi_text_config *config, const pgi_text_weights *weights,
                       const int64_t *ids, int64_t n, float *out);

/* cos, sin [T, head_dim / 2] of the rotation of each token of a sequence. */
void pgi_decoder_rotation(const pgi_text_config *config, const pgi_sequence *sequence, float *cos, float *sin);
pgi_key_ranges pgi_key_ranges_lay_out(pgi_arena *arena, int64_t n_tokens);
/* Which of its sequence's keys each token sees, to the ranges from `first` on. */
void pgi_decoder_key_ranges(const pgi_text_config *config, const pgi_sequence *sequence, int64_t first,
                            const pgi_key_ranges *ranges);
/* The attention of layer `layer` for tokens `first` .. `first` + n_queries of the ranges, over n_keys keys. */
pgi_attention pgi_decoder_attention(const pgi_text_config *config, int32_t layer, int packed, int64_t n_queries,
                                    int64_t n_keys, const pgi_key_ranges *ranges, int64_t first);

/* Runs the pass; weights: NULL with row_weights. Then tokens first_out .. first_out + n_out of x are the last hidden
 * states, after the final norm. */
pg_status pgi_decoder_forward(const pgi_run *run, const pgi_text_config *config, const pgi_text_weights *weights,
                              const pgi_pass *pass, const pgi_decoder_workspace *workspace);

#endif
