/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Settings of sampling: the options of a call, checked, and what they need beside them. */
#ifndef PGI_GENERATE_SETTINGS_H
#define PGI_GENERATE_SETTINGS_H

#include "answers/detect_mask.h"
#include "model/model.h"

typedef struct pgi_sampling {
    pg_sampling_options options; /* complete; its arrays are the caller's */
    const pgi_config *config;
    int64_t vocab_size;
    int64_t least_kept;            /* ids that top_k and the other limits leave at the least; 0: 1 */
    const pgi_detect_mask *detect; /* NULL: none */
    uint32_t *eos;                 /* a bit an id, those of options.eos_ids; NULL: there are none, or not yet marked */
    int greedy;                    /* the token is the one with the largest of the model's logits, whatever the row */
} pgi_sampling;

/* options: complete. PG_ERROR_ARGUMENT: one is out of range. One of the next two has to follow before a row is scored.
 */
pg_status pgi_sampling_init(const pg_sampling_options *options, const pg_model *model, pgi_sampling *out);
/* Marks options.eos_ids in memory of the caller, [(vocab_size + 31) / 32], or in new memory, where there are any:
 * sampling->eos, to be released by the caller. */
void pgi_sampling_mark_eos(pgi_sampling *sampling, uint32_t *marks);
pg_status pgi_sampling_make_eos(pgi_sampling *sampling, const pgi_memory *memory);

/* How many eos ids there are to the settings. */
int64_t pgi_sampling_count_eos(const pgi_sampling *sampling);

/* Whether `id` is an eos id to the settings, and whether it ends a row. */
int pgi_sampling_is_eos(const pgi_sampling *sampling, int64_t id);
int pgi_sampling_ends_row(const pgi_sampling *sampling, int64_t id);

/* A row of which the next token is to be chosen. */
typedef struct pgi_sampled_row {
    int64_t row;             /* of the result: what callbacks are told */
    int64_t prompt;          /* row of the inputs: what errors name */
    int64_t text;            /* of those that the prompt gives, 0 for the first */
    const int64_t *ids;      /* [n_ids], the prompt's, if it has any, and the new ones */
    int64_t n_ids;           /* n_new, or n_prompt_tokens more */
    int64_t n_prompt_tokens; /* fed before the first new token */
    int64_t n_new, max_new;  /* new tokens so far, and at the most */
} pgi_sampled_row;

/* Memory of the settings, for one row at a time. */
typedef struct pgi_sampling_workspace {
    float *scores;   /* [vocab_size], what the settings make of the logits */
    uint64_t *keys;  /* [2][vocab_size], to sort */
    float *biases;   /* [vocab_size], where keys are */
    uint32_t *marks; /* [(vocab_size + 31) / 32], a bit an id */
    uint32_t *eos;   /* the same, for pgi_sampling_mark_eos() */
} pgi_sampling_workspace;

/* Floats of a workspace, a multiple of 16, and its layout in them. */
int64_t pgi_sampling_workspace_size(int64_t vocab_size);
pgi_sampling_workspace pgi_sampling_workspace_in(float *memory, int64_t vocab_size);

/* Whether id's bit is set. */
int pgi_mask_has(const uint32_t *mask, int64_t id);

#endif
