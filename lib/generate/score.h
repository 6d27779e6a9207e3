/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Log-probabilities of given answers to one prompt. The public handle is defined here. */
#ifndef PGI_GENERATE_SCORE_H
#define PGI_GENERATE_SCORE_H

#include "processor/inputs.h"
#include "processor/processor.h"
#include "tokenizer/id_list.h"

struct pg_scores {
    pgi_memory memory;
    pgi_id_list ids;       /* of all answers, one after the other */
    int64_t *begin;        /* [n_answers + 1]: where in `ids` each begins */
    float *log_probs;      /* [ids.size]: of each id under the logits of what is before it */
    pg_score_info *scores; /* [n_answers] */
    int64_t n_answers;
};

/* Without answers; then one of the next two, then pgi_score(). */
pg_status pgi_scores_create(const pgi_memory *memory, int64_t n_answers, pg_scores **out);
/* The ids of texts as a processor writes suffixes; flags: PG_SCORE_*. */
pg_status pgi_scores_tokenize(pg_scores *scores, const pg_processor *processor, const char *const *answers,
                              uint32_t flags);
/* The ids of all answers, sizes[i] of each. */
pg_status pgi_scores_copy_ids(pg_scores *scores, const int64_t *ids, const int64_t *sizes);
void pgi_scores_close(pg_scores *scores); /* NULL is ignored */

/* Fills in log_probs and scores. options: complete. */
pg_status pgi_score(const pg_model *model, const pg_inputs *inputs, const pg_score_options *options, pg_scores *scores);

#endif
