/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The handle of what pgi_generate() gives. */
#include <string.h>

#include "generate/generate.h"

void pgi_result_release(pg_result *result) {
    if (!result || atomic_fetch_sub_explicit(&result->references, 1, memory_order_acq_rel) != 1) return;
    pgi_memory memory = result->memory;
    for (int64_t r = 0; r < result->n_rows; r++) {
        pgi_buffer_free(&result->rows[r].text);
        pgi_id_list_free(&result->rows[r].ids);
        pgi_id_list_free(&result->rows[r].beams);
        pgi_step_scores_free(&result->rows[r].kept, &memory);
    }
    for (int64_t r = 0; result->histories && r < result->n_rows / result->n_return; r++)
        pgi_step_scores_free(&result->histories[r], &memory);
    pgi_free(&memory, result->histories);
    pgi_free(&memory, result->rows);
    pgi_free(&memory, result);
}

pg_status pgi_result_beams_tensor(const pg_result *result, int64_t row, const char *name, pg_tensor *out) {
    const pgi_result_row *of = &result->rows[row];
    if (result->n_beams == 1)
        return pgi_error(PG_ERROR_NOT_FOUND, "the result has no %s, expected beams in the options", name);
    if (strcmp(name, "beam_indices") == 0) {
        const int64_t n = (int64_t)of->beams.size;
        *out = (pg_tensor){
            .struct_size = sizeof *out,
            .dtype = PG_DTYPE_I64,
            .n_dims = 1,
            .shape = {n, 1, 1, 1},
            .data = of->beams.data,
        };
        return PG_OK;
    }
    const pgi_step_scores *history = &result->histories[row / result->n_return];
    PGI_TRY(pgi_step_scores_tensor(history, name + strlen("beam_"), 0, out));
    const pgi_float_list *list = strcmp(name, "beam_logits") == 0 ? &history->logits : &history->scores;
    out->n_dims = 3;
    out->shape[0] = (int64_t)list->size / (result->n_beams * history->vocab_size);
    out->shape[1] = result->n_beams;
    out->shape[2] = history->vocab_size;
    return PG_OK;
}

pg_status pgi_result_new(const pgi_memory *memory, const pg_inputs *inputs, const pg_generate_options *options,
                         pg_result **out) {
    const int64_t n_rows = inputs->n_rows * options->n_return;
    pg_result *result = pgi_alloc_zero(memory, 1, sizeof *result);
    if (!result) return PG_ERROR_MEMORY;
    atomic_init(&result->references, 1);
    result->memory = *memory;
    result->n_return = options->n_return;
    result->n_beams = options->beams->n_beams;
    result->rows = pgi_alloc_zero(&result->memory, (size_t)n_rows, sizeof *result->rows);
    if (!result->rows) {
        pgi_result_release(result);
        return PG_ERROR_MEMORY;
    }
    result->n_rows = n_rows;
    for (int64_t r = 0; r < result->n_rows; r++) {
        pgi_buffer_init(&result->rows[r].text, &result->memory);
        pgi_id_list_init(&result->rows[r].ids, &result->memory);
        pgi_id_list_init(&result->rows[r].beams, &result->memory);
        const pgi_row *prompt = &inputs->rows[r / options->n_return];
        result->rows[r].n_prompt_tokens = prompt->n_tokens - prompt->n_hidden;
    }
    *out = result;
    return PG_OK;
}
