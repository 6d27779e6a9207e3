/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* pg_generate(), pg_result. */
#include "generate/generate.h"

#include "api/calls.h"
#include "api/structs.h"

PGI_OPTIONS(pg_generate_options, .struct_size = sizeof(pg_generate_options), .max_new_tokens = PGI_DEFAULT_NEW_TOKENS)

pg_status pg_generate(const pg_model *model, const pg_processor *processor, const pg_inputs *inputs,
                      const pg_generate_options *options, pg_result **out) {
    PGI_ENTER;
    PGI_NOT_NULL(out);
    *out = NULL;
    PGI_NOT_NULL(model);
    PGI_NOT_NULL(processor);
    PGI_NOT_NULL(inputs);
    PGI_OPTIONS_IN(pg_generate_options, complete, options);
    if (complete.flags) return pgi_error(PG_ERROR_ARGUMENT, "flags is 0x%x, expected 0", complete.flags);
    PGI_TRY(pgi_new_tokens_in(&complete.max_new_tokens));
    PGI_TRY(pgi_thread_count(complete.n_threads, &complete.n_threads));
    pgi_call call = pgi_call_begin(model, inputs, complete.cancel);
    pg_processor *kept = pgi_processor_retain(processor);
    pg_status status = pgi_generate(model, processor, inputs, &complete, out);
    pgi_processor_release(kept);
    pgi_call_end(&call);
    return status;
}

void pg_result_close(pg_result **result) {
    if (!result) return;
    pgi_result_close(*result);
    *result = NULL;
}

int64_t pg_result_get_n_rows(const pg_result *result) { return result ? result->n_rows : 0; }

const char *pg_result_get_text(const pg_result *result, int64_t row) {
    if (!result || row < 0 || row >= result->n_rows) return "";
    const pgi_buffer *text = &result->rows[row].text;
    return text->data ? (const char *)text->data : "";
}

static pg_status find_row(const pg_result *result, int64_t row, const pgi_result_row **out) {
    PGI_NOT_NULL(result);
    if (row < 0 || row >= result->n_rows)
        return pgi_error(PG_ERROR_ARGUMENT, "row is %lld, expected 0 to %lld", (long long)row,
                         (long long)result->n_rows - 1);
    *out = &result->rows[row];
    return PG_OK;
}

pg_status pg_result_get_ids(const pg_result *result, int64_t row, pg_tensor *out) {
    PGI_ENTER;
    const pgi_result_row *of = NULL;
    PGI_TRY(find_row(result, row, &of));
    PGI_TRY(pgi_struct_out_check(out, "pg_tensor"));
    pg_tensor value = {
        .struct_size = sizeof value,
        .dtype = PG_DTYPE_I64,
        .n_dims = 1,
        .shape = {(int64_t)of->ids.size, 1, 1, 1},
        .data = of->ids.data,
    };
    pgi_struct_out(out, &value, sizeof value);
    return PG_OK;
}

pg_status pg_result_get_info(const pg_result *result, int64_t row, pg_result_info *info) {
    PGI_ENTER;
    const pgi_result_row *of = NULL;
    PGI_TRY(find_row(result, row, &of));
    PGI_TRY(pgi_struct_out_check(info, "pg_result_info"));
    pg_result_info value = {
        .struct_size = sizeof value,
        .stop = of->stop,
        .n_prompt_tokens = of->n_prompt_tokens,
        .n_new_tokens = (int64_t)of->ids.size,
        .vision_seconds = result->vision_seconds,
        .prefill_seconds = result->prefill_seconds,
        .decode_seconds = result->decode_seconds,
    };
    pgi_struct_out(info, &value, sizeof value);
    return PG_OK;
}
