/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What a result keeps of every step of a row: log-probabilities, alternatives, logits and scores. */
#ifndef PGI_GENERATE_STEP_SCORES_H
#define PGI_GENERATE_STEP_SCORES_H

#include "base/memory.h"

/* A growing array of floats. */
typedef struct pgi_float_list {
    float *data;
    size_t size, capacity;
} pgi_float_list;

/* Lists of n steps; those that were not asked for stay empty. */
typedef struct pgi_step_scores {
    uint32_t flags; /* PG_GENERATE_* */
    int64_t n_alternatives, vocab_size;
    pgi_float_list log_probs, score_log_probs; /* [n] */
    int64_t *alternative_ids;                  /* [n, n_alternatives] */
    size_t n_alternative_ids, alternatives_capacity;
    pgi_float_list alternative_log_probs; /* [n, n_alternatives] */
    pgi_float_list logits, scores;        /* [n, vocab_size] */
} pgi_step_scores;

/* Whether anything is kept. */
int pgi_step_scores_any(const pgi_step_scores *kept);
/* Room for n steps; logits and scores, which are large, grow when they come. */
pg_status pgi_step_scores_reserve(pgi_step_scores *kept, const pgi_memory *memory, int64_t n);
/* A step: the model's logits and the scores [vocab_size] that `token` was chosen from; they may be one array. */
pg_status pgi_step_scores_push(pgi_step_scores *kept, const pgi_memory *memory, const float *logits,
                               const float *scores, int64_t token);
/* Entry i of `from`, of a beam that ran: its alternatives, logits and scores, as a step of *kept. */
pg_status pgi_step_scores_take(pgi_step_scores *kept, const pgi_memory *memory, const pgi_step_scores *from, int64_t i);
/* log-probabilities of a step, where they are kept. */
pg_status pgi_step_scores_push_log_probs(pgi_step_scores *kept, const pgi_memory *memory, float log_prob,
                                         float score_log_prob);
/* Forgets all steps, and keeps the memory. */
void pgi_step_scores_clear(pgi_step_scores *kept);
/* Gives back what was reserved for more steps. */
void pgi_step_scores_trim(pgi_step_scores *kept, const pgi_memory *memory);
void pgi_step_scores_free(pgi_step_scores *kept, const pgi_memory *memory);

/* The tensor of that name as pg_result_get_tensor() gives it. PG_ERROR_NOT_FOUND: none, or not kept. */
pg_status pgi_step_scores_tensor(const pgi_step_scores *kept, const char *name, int64_t n, pg_tensor *out);

#endif
