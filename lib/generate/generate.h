/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The blocking call: all rows of the inputs to text. The public result handle is defined here. */
#ifndef PGI_GENERATE_GENERATE_H
#define PGI_GENERATE_GENERATE_H

#include <stdatomic.h>

#include "generate/decoding.h"
#include "generate/step_scores.h"
#include "processor/processor.h"

/* What one row gave. */
typedef struct pgi_result_row {
    pgi_buffer text; /* without special tokens */
    pgi_id_list ids;
    pgi_step_scores kept;
    int32_t stop; /* PG_STOP_* */
    int64_t n_prompt_tokens;
    pgi_id_list beams; /* of beam search: the beam that each token continued */
    double score;      /* of beam search */
} pgi_result_row;

struct pg_result {
    atomic_int references;
    pgi_memory memory;
    pgi_result_row *rows; /* [n_rows] */
    int64_t n_rows;       /* n_return of each row of the inputs, one after the other */
    int64_t n_return;
    int64_t n_beams;            /* 1: no beam search */
    pgi_step_scores *histories; /* [n_rows / n_return], of all beams, n_beams a step; NULL: not kept */
    double vision_seconds, prefill_seconds, decode_seconds; /* of all rows together */
};

/* options: complete, and so is options->sampling; row_models NULL or of all rows (row_models.h). On error *out needs no
 * release. */
pg_status pgi_generate(const pg_model *model, const pg_processor *processor, const pg_inputs *inputs,
                       const pg_generate_options *options, pg_result **out);
/* An empty result, whose rows know their prompts' lengths. options: complete. */
pg_status pgi_result_new(const pgi_memory *memory, const pg_inputs *inputs, const pg_generate_options *options,
                         pg_result **out);
/* "beam_indices", "beam_logits" or "beam_scores" as pg_result_get_tensor() gives them. PG_ERROR_NOT_FOUND: none. */
pg_status pgi_result_beams_tensor(const pg_result *result, int64_t row, const char *name, pg_tensor *out);
void pgi_result_release(pg_result *result); /* NULL is ignored */

static inline pg_result *pgi_result_retain(const pg_result *result) {
    pg_result *counted = (pg_result *)(uintptr_t)result;
    atomic_fetch_add_explicit(&counted->references, 1, memory_order_relaxed);
    return counted;
}

#endif
