/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The state of rows that are being decoded: each has its KV cache and the token to be fed next. Several may take a step
 * together. */
#ifndef PGI_GENERATE_DECODING_H
#define PGI_GENERATE_DECODING_H

#include "kernels/kernels.h"
#include "model/merged_inputs.h"
#include "model/workspace.h"

/* The most decodings that take a step together. */
enum { PGI_STEP_ROWS = 16 };
/* The most that may with the weights of this model, <= PGI_STEP_ROWS: each decoding gets the bits that it gets alone.
 * int8 and int4: all of them, for a row is summed in one order, whatever lies beside it. Stored weights: PGI_GEMV_ROWS,
 * since products of more rows sum in another order. */
int64_t pgi_step_rows(const pg_model *model);

enum { PGI_DEFAULT_NEW_TOKENS = 128 };
/* New tokens that memory is made for at first. More of them are seldom asked for but as "no limit", and then seldom
 * come; the memory grows where they do. (A sanitized build of the tests sets fewer, so that growing is soon seen.) */
#ifndef PGI_FIRST_NEW_TOKENS
#define PGI_FIRST_NEW_TOKENS 8192
#endif

/* What may be generated. */
typedef struct pgi_decoding_limits {
    int64_t max_new_tokens; /* >= 1 */
    int64_t max_context;    /* tokens of a row, prompt and new ones; 0: no limit */
} pgi_decoding_limits;

typedef struct pgi_decoding {
    const pg_model *model; /* borrowed: of the row that it took last */
    pgi_kv_cache cache;
    int64_t pending;    /* the token last sampled, not yet fed; -1: none */
    int64_t n_returned; /* tokens sampled since the prefill */
    int64_t max_tokens; /* as asked for, or less where the context ends */
    int64_t max_keys;   /* tokens that the cache may come to */
    int ends_context;   /* max_tokens is less than was asked for */
} pgi_decoding;

/* Tokens of the cache that a prompt of n_tokens begins with. */
int64_t pgi_decoding_first_capacity(const pgi_decoding_limits *limits, int64_t n_tokens);
/* PG_ERROR_LIMIT when a row is longer than max_context. */
pg_status pgi_decoding_check(const pg_inputs *inputs, const pgi_decoding_limits *limits);
/* A cache for at least `capacity` tokens; one that is large enough is kept. After an error the decoding is empty. */
pg_status pgi_decoding_reserve(pgi_decoding *decoding, const pg_model *model, int64_t capacity);
/* How many tokens may follow row `row`, which pgi_decoding_check() let pass; 0: it is as long as the context. Errors:
 * _ARGUMENT (no tokens), _UNSUPPORTED (hidden tokens and a sliding window that ends). */
pg_status pgi_decoding_max_tokens(const pgi_merged_inputs *merged, int64_t row, const pgi_decoding_limits *limits,
                                  int64_t *max_tokens);
/* Forgets what was, to take row `row` into a cache that has room for it. Errors: as pgi_decoding_max_tokens(). */
pg_status pgi_decoding_begin(pgi_decoding *decoding, const pgi_merged_inputs *merged, int64_t row,
                             const pgi_decoding_limits *limits);
/* pgi_decoding_begin(), and reserves a cache for row `row`, which pgi_decoding_check() let pass, and the tokens that
 * follow. After an error the decoding is empty. */
pg_status pgi_decoding_reset(pgi_decoding *decoding, const pgi_merged_inputs *merged, int64_t row,
                             const pgi_decoding_limits *limits);
/* Makes the cache larger where it has no room for the pending token. After an error nothing has changed. */
pg_status pgi_decoding_make_room(pgi_decoding *decoding, const pg_model *model);
/* Makes *to go on from where *from stands, with a KV cache of its own: the first n_shared tokens are in it already (of
 * an earlier branch of the same row), the others are copied. Nothing is allocated where the cache of *to has room.
 * After an error *to is empty. */
pg_status pgi_decoding_branch(pgi_decoding *to, const pgi_decoding *from, const pg_model *model, int64_t n_shared);
void pgi_decoding_free(pgi_decoding *decoding, const pgi_memory *memory);

/* How many rows from `row` on, up to n_rows <= pgi_step_rows(), are prefilled as one pass of up to n_tokens tokens:
 * those so short that reading the weights, or unpacking them, is much of their time, and that get the bits that they
 * get alone; all are of one model handle. 1: the row goes by itself. */
int64_t pgi_prefill_rows(const pgi_run *run, const pgi_merged_inputs *merged, int64_t row, int64_t n_rows,
                         int64_t n_tokens);

/* Feeds n rows from `row` on, each its prefix as one block and its suffix causal, padding left out; n: what
 * pgi_prefill_rows() says, or 1. *last: the last hidden state of each row's last token [n, hidden], in the workspace.
 * Progress: layers_done of layers_total are behind. workspace: for the tokens of the rows, and as many keys as a cache
 * has. */
pg_status pgi_decoding_prefill(const pgi_run *run, const pgi_merged_inputs *merged, int64_t row, int64_t n,
                               pgi_decoding *const *decodings, int64_t layers_done, int64_t layers_total,
                               const pgi_pass_workspace *workspace, const float **last);

/* Feeds the pending tokens of n <= pgi_step_rows() decodings, whose handles share a base. Then workspace->x [n, hidden]
 * are their last hidden states. */
pg_status pgi_decoding_step_group(const pgi_run *run, pgi_decoding *const *decodings, int64_t n,
                                  const pgi_pass_workspace *workspace);

/* Logits [n, vocab_size] of n <= pgi_step_rows() decodings by their last hidden states [n, hidden]. */
pg_status pgi_decoding_logits(const pgi_run *run, pgi_decoding *const *decodings, int64_t n, const float *last,
                              float *logits, const pgi_head_workspace *workspace);

/* The token that was sampled is pending, to be fed by the next step. */
void pgi_decoding_push(pgi_decoding *decoding, int64_t token);

/* Whether `token` ends the text. */
int pgi_is_eos(const pgi_config *config, int64_t token);

#endif
