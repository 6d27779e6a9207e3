/* pg_generate, pg_result, and the advanced calls: pg_features, pg_session. */
#include "generate/generate.h"
#include "generate/session.h"

#include "api/calls.h"
#include "api/structs.h"
#include "base/parallel.h"

enum { DEFAULT_NEW_TOKENS = 128, DEFAULT_PROMPT_TOKENS = 64 /* beside one image */ };

static pg_status check_new_tokens(int32_t *max_new_tokens) {
    if (*max_new_tokens < 0)
        return pgi_error(PG_ERROR_ARGUMENT, "max_new_tokens is %d, expected 0 (default) or more", *max_new_tokens);
    if (*max_new_tokens == 0) *max_new_tokens = DEFAULT_NEW_TOKENS;
    return PG_OK;
}

static pg_status check_prompt_tokens(const pg_model *model, int32_t *max_prompt_tokens) {
    const int64_t limit = pgi_context_limit(&model->config);
    if (*max_prompt_tokens < 0 || *max_prompt_tokens > limit)
        return pgi_error(PG_ERROR_ARGUMENT, "max_prompt_tokens is %d, expected 0 (default) to %lld", *max_prompt_tokens,
                         (long long)limit);
    if (*max_prompt_tokens == 0)
        *max_prompt_tokens = (int32_t)pgi_min64((int64_t)model->config.vision.n_patches + DEFAULT_PROMPT_TOKENS, limit);
    return PG_OK;
}

static const pg_generate_options default_generate_options = {
    .struct_size = sizeof default_generate_options,
    .max_new_tokens = DEFAULT_NEW_TOKENS,
};

pg_status pg_generate_options_init(pg_generate_options *options, size_t struct_size) {
    return pgi_struct_init(options, struct_size, &default_generate_options, sizeof default_generate_options,
                           "pg_generate_options");
}

pg_status pg_generate(pg_model *model, pg_processor *processor, const pg_inputs *inputs,
                      const pg_generate_options *options, pg_result **out) {
    PGI_NOT_NULL(out);
    *out = NULL;
    PGI_NOT_NULL(model);
    PGI_NOT_NULL(processor);
    PGI_NOT_NULL(inputs);
    pg_generate_options complete = default_generate_options;
    PGI_TRY(pgi_struct_in(&complete, sizeof complete, options, "pg_generate_options"));
    if (complete.flags) return pgi_error(PG_ERROR_ARGUMENT, "flags is 0x%x, expected 0", complete.flags);
    PGI_TRY(check_new_tokens(&complete.max_new_tokens));
    PGI_TRY(pgi_thread_count(complete.n_threads, &complete.n_threads));
    if (complete.on_text && inputs->n_rows > 1)
        return pgi_error(PG_ERROR_ARGUMENT, "on_text is set for inputs of %lld rows, expected on_row_text",
                         (long long)inputs->n_rows);
    pgi_call_begin(model, inputs, complete.cancel);
    pgi_processor_retain(processor);
    pg_status status = pgi_generate(model, processor, inputs, &complete, out);
    pgi_processor_release(processor);
    pgi_call_end(model, inputs, complete.cancel);
    return status;
}

void pg_result_close(pg_result **result) {
    if (!result) return;
    pgi_result_free(*result);
    *result = NULL;
}

int64_t pg_result_get_n_rows(const pg_result *result) { return result ? result->n_rows : 0; }

const char *pg_result_row_text(const pg_result *result, int64_t row) {
    if (!result || row < 0 || row >= result->n_rows) return NULL;
    const pgi_buffer *text = &result->rows[row].text;
    return text->data ? (const char *)text->data : "";
}

const char *pg_result_text(const pg_result *result) { return result ? pg_result_row_text(result, 0) : ""; }

static pg_status find_row(const pg_result *result, int64_t row, const pgi_result_row **out) {
    PGI_NOT_NULL(result);
    if (row < 0 || row >= result->n_rows)
        return pgi_error(PG_ERROR_ARGUMENT, "row is %lld, expected 0 to %lld", (long long)row,
                         (long long)result->n_rows - 1);
    *out = &result->rows[row];
    return PG_OK;
}

pg_status pg_result_row_ids(const pg_result *result, int64_t row, pg_tensor *out) {
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

pg_status pg_result_ids(const pg_result *result, pg_tensor *out) { return pg_result_row_ids(result, 0, out); }

pg_status pg_result_get_row_info(const pg_result *result, int64_t row, pg_result_info *info) {
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

pg_status pg_result_get_info(const pg_result *result, pg_result_info *info) {
    return pg_result_get_row_info(result, 0, info);
}

static const pg_run_options default_run_options = {.struct_size = sizeof default_run_options};

pg_status pg_run_options_init(pg_run_options *options, size_t struct_size) {
    return pgi_struct_init(options, struct_size, &default_run_options, sizeof default_run_options, "pg_run_options");
}

pg_status pg_features_create(pg_model *model, const pg_inputs *inputs, const pg_run_options *options, pg_features **out) {
    PGI_NOT_NULL(out);
    *out = NULL;
    PGI_NOT_NULL(model);
    PGI_NOT_NULL(inputs);
    pg_run_options complete = default_run_options;
    PGI_TRY(pgi_struct_in(&complete, sizeof complete, options, "pg_run_options"));
    PGI_TRY(pgi_thread_count(complete.n_threads, &complete.n_threads));
    pgi_thread_pool pool;
    pgi_run run = pgi_run_init(&pool, &model->kernels, &complete);
    pgi_call_begin(model, inputs, complete.cancel);
    pg_status status = pgi_features_create(&run, model, inputs, out);
    pgi_run_free(&run);
    pgi_call_end(model, inputs, complete.cancel);
    return status;
}

void pg_features_close(pg_features **features) {
    if (!features) return;
    pgi_features_release(*features);
    *features = NULL;
}

pg_status pg_features_get_tensor(const pg_features *features, pg_tensor *out) {
    PGI_NOT_NULL(features);
    PGI_TRY(pgi_struct_out_check(out, "pg_tensor"));
    pg_tensor value = {
        .struct_size = sizeof value,
        .dtype = PG_DTYPE_F32,
        .n_dims = 3,
        .shape = {features->n_images, features->model->config.vision.n_patches,
                  features->model->config.text.hidden_size, 1},
        .data = features->data,
    };
    pgi_struct_out(out, &value, sizeof value);
    return PG_OK;
}

static const pg_session_options default_session_options = {
    .struct_size = sizeof default_session_options,
    .max_new_tokens = DEFAULT_NEW_TOKENS,
};

pg_status pg_session_options_init(pg_session_options *options, size_t struct_size) {
    return pgi_struct_init(options, struct_size, &default_session_options, sizeof default_session_options,
                           "pg_session_options");
}

pg_status pg_session_create(pg_model *model, const pg_session_options *options, pg_session **out) {
    PGI_NOT_NULL(out);
    *out = NULL;
    PGI_NOT_NULL(model);
    pg_session_options complete = default_session_options;
    PGI_TRY(pgi_struct_in(&complete, sizeof complete, options, "pg_session_options"));
    PGI_TRY(check_new_tokens(&complete.max_new_tokens));
    PGI_TRY(check_prompt_tokens(model, &complete.max_prompt_tokens));
    PGI_TRY(pgi_thread_count(complete.n_threads, &complete.n_threads));
    return pgi_session_create(model, &complete, out);
}

void pg_session_close(pg_session **session) {
    if (!session) return;
    pgi_session_free(*session);
    *session = NULL;
}

pg_status pg_session_prefill(pg_session *session, const pg_inputs *inputs, const pg_features *features) {
    PGI_NOT_NULL(session);
    PGI_NOT_NULL(inputs);
    pgi_call_begin(NULL, inputs, NULL); /* the session itself keeps the other two */
    pg_status status = pgi_session_prefill(session, inputs, features);
    pgi_call_end(NULL, inputs, NULL);
    return status;
}

pg_status pg_session_step(pg_session *session, int64_t *token) {
    PGI_NOT_NULL(session);
    PGI_NOT_NULL(token);
    return pgi_session_step(session, token);
}

pg_status pg_session_get_logits(const pg_session *session, pg_tensor *out) {
    PGI_NOT_NULL(session);
    PGI_TRY(pgi_struct_out_check(out, "pg_tensor"));
    if (session->state == PGI_SESSION_EMPTY)
        return pgi_error(PG_ERROR_STATE, "the session has no logits, expected pg_session_prefill() first");
    pg_tensor value = {
        .struct_size = sizeof value,
        .dtype = PG_DTYPE_F32,
        .n_dims = 1,
        .shape = {session->model->config.text.vocab_size, 1, 1, 1},
        .data = session->workspace.logits,
    };
    pgi_struct_out(out, &value, sizeof value);
    return PG_OK;
}
