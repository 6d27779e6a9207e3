/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Generation step by step: prefill a prompt, then one token a step. The public handle is this struct. */
#ifndef PGI_GENERATE_SESSION_H
#define PGI_GENERATE_SESSION_H

#include "base/in_use.h"
#include "base/parallel.h"
#include "generate/decoding.h"
#include "generate/sampling.h"
#include "tokenizer/id_list.h"

typedef enum pgi_session_state {
    PGI_SESSION_EMPTY, /* nothing prefilled, or a call failed halfway */
    PGI_SESSION_READY, /* the next token is sampled from the logits, or was sampled from them when one is pending */
    PGI_SESSION_ENDED  /* eos was returned */
} pgi_session_state;

/* The threads of a session, or of several that share them. */
typedef struct pgi_session_threads {
    atomic_int references;
    pgi_in_use in_use; /* by a call on one of the sessions */
    pgi_memory memory;
    pgi_thread_pool pool;
} pgi_session_threads;

struct pg_session {
    pg_model *model;              /* counted */
    pgi_run run;                  /* its cancel flag is counted */
    pgi_session_threads *threads; /* counted; of the run */
    pgi_decoding_limits limits;
    pgi_in_use in_use; /* by a call of the API */

    pgi_session_state state;
    pgi_decoding decoding;
    pgi_id_list ids;         /* of the prompt, and the new ones */
    int64_t n_prompt_tokens; /* fed by the prefill */
    pgi_workspace workspace; /* for the prompt and the steps after it; its logits: memory of settings, and these: */
    float *logits;           /* [vocab_size] */
    pgi_workspace group;     /* for steps of several sessions, of which this is the first; empty until there was one */
};

/* options: complete. Everything that prompts of max_prompt_tokens need is allocated here; a longer one, or one with
 * more images than fit in that, makes it larger. On error *out needs no release. */
pg_status pgi_session_create(const pg_model *model, const pg_session_options *options, pg_session **out);
void pgi_session_close(pg_session *session); /* NULL is ignored */

/* Whether both work with the weights of one base, so that they may share threads and passes. */
int pgi_session_same_base(const pg_model *model, const pg_session *session);

/* As pg_session_prefill(), _step(), _sample(), _feed(). options: complete. */
pg_status pgi_session_prefill(pg_session *session, const pg_inputs *inputs, const pg_features *features);
pg_status pgi_session_step(pg_session *session, int64_t *token);
pg_status pgi_session_sample(pg_session *session, const pg_sampling_options *options, int64_t *token);
pg_status pgi_session_feed(pg_session *session, const int64_t *ids, int64_t n_ids);
/* As pg_session_step_together(), of the sessions whose status [n] is PG_OK; on_error is told of each that fails, while
 * pg_last_error() is about it. */
void pgi_session_step_together(pg_session *const *sessions, int64_t n, int64_t *tokens, pg_status *statuses,
                               void (*on_error)(void *user, int64_t session), void *user);

/* Lets `trace` (borrowed, NULL: nobody) see the stages of prefills, and each step's logits as stage "logits". */
void pgi_session_set_trace(pg_session *session, const pgi_trace *trace);

/* Bytes of the workspace of a session, its KV cache left out, for prompt and generated tokens, n_tokens together. */
size_t pgi_session_workspace(const pgi_run *run, const pg_model *model, int64_t n_tokens, int64_t n_images);

#endif
