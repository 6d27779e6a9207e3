/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* pg_session: generation step by step. */
#include "generate/session.h"

#include "api/calls.h"
#include "api/structs.h"
#include "model/read_ahead.h"

enum { DEFAULT_PROMPT_TOKENS = 64 /* beside one image */ };

static pg_status check_prompt_tokens(const pg_model *model, int64_t max_context, int32_t *max_prompt_tokens) {
    const int64_t limit =
        max_context > 0 && max_context < PGI_MAX_ROW_TOKENS ? max_context : (int64_t)PGI_MAX_ROW_TOKENS;
    if (*max_prompt_tokens < 0 || *max_prompt_tokens > limit)
        return pgi_error(PG_ERROR_ARGUMENT, "max_prompt_tokens is %d, expected 0 (default) to %s%lld",
                         *max_prompt_tokens, limit == max_context ? "max_context, " : "", (long long)limit);
    if (*max_prompt_tokens == 0)
        *max_prompt_tokens = (int32_t)pgi_min64((int64_t)model->config.vision.n_patches + DEFAULT_PROMPT_TOKENS, limit);
    return PG_OK;
}

PGI_OPTIONS(pg_session_options, .struct_size = sizeof(pg_session_options), .max_new_tokens = PGI_DEFAULT_NEW_TOKENS)

pg_status pg_session_create(const pg_model *model, const pg_session_options *options, pg_session **out) {
    PGI_ENTER;
    PGI_NOT_NULL(out);
    *out = NULL;
    PGI_NOT_NULL(model);
    PGI_OPTIONS_IN(pg_session_options, complete, options);
    PGI_TRY(pgi_new_tokens_in(&complete.max_new_tokens));
    PGI_TRY(pgi_max_context_in(complete.max_context));
    PGI_TRY(check_prompt_tokens(model, complete.max_context, &complete.max_prompt_tokens));
    PGI_TRY(pgi_thread_count(complete.n_threads, &complete.n_threads));
    PGI_TRY(pgi_tensor_files_unchanged(model->files));
    pgi_call call = pgi_call_begin(model, NULL, NULL, complete.cancel);
    pg_status status = pgi_session_create(model, &complete, out);
    pgi_call_end(&call);
    return status;
}

void pg_session_close(pg_session **session) {
    if (!session || !*session) return;
    pg_session *closed = *session;
    *session = NULL;
    if (pgi_in_use_close(&closed->in_use)) pgi_session_close(closed);
}

static pg_status begin(const pg_session *session) {
    return pgi_in_use_begin(&((pg_session *)(uintptr_t)session)->in_use, "session");
}

/* A callback may have closed the session. */
static pg_status end(const pg_session *session, pg_status status) {
    pg_session *used = (pg_session *)(uintptr_t)session;
    if (pgi_in_use_end(&used->in_use)) pgi_session_close(used);
    return status;
}

pg_status pg_session_prefill(pg_session *session, const pg_inputs *inputs, const pg_features *features) {
    PGI_ENTER;
    PGI_NOT_NULL(session);
    PGI_NOT_NULL(inputs);
    PGI_TRY(begin(session));
    pgi_call call = pgi_call_begin(NULL, inputs, features, NULL); /* the session itself keeps the other two */
    pg_status status = pgi_tensor_files_unchanged(session->model->files);
    if (status >= 0) pgi_read_ahead(session->model, pgi_read_ahead_parts(inputs, features));
    if (status >= 0) status = pgi_session_prefill(session, inputs, features);
    pgi_call_end(&call);
    return end(session, status);
}

pg_status pg_session_step(pg_session *session, int64_t *token) {
    PGI_ENTER;
    PGI_NOT_NULL(session);
    PGI_NOT_NULL(token);
    PGI_TRY(begin(session));
    return end(session, pgi_session_step(session, token));
}

pg_status pg_session_sample(pg_session *session, const pg_sampling_options *options, int64_t *token) {
    PGI_ENTER;
    pg_sampling_options complete;
    PGI_NOT_NULL(session);
    PGI_NOT_NULL(token);
    PGI_TRY(begin(session));
    pg_status status = pgi_sampling_in(options, session->model, &complete);
    if (status >= 0) status = pgi_session_sample(session, &complete, token);
    return end(session, status);
}

pg_status pg_session_feed(pg_session *session, const int64_t *ids, size_t n_ids) {
    PGI_ENTER;
    PGI_NOT_NULL(session);
    if (n_ids > 0) PGI_NOT_NULL(ids);
    PGI_TRY(begin(session));
    return end(session, pgi_session_feed(session, ids, n_ids < INT32_MAX ? (int64_t)n_ids : INT32_MAX));
}

static pg_status get_logits(const pg_session *session, pg_tensor *out) {
    if (session->state == PGI_SESSION_EMPTY)
        return pgi_error(PG_ERROR_STATE, "the session has no logits, expected pg_session_prefill() first");
    pg_tensor value = {
        .struct_size = sizeof value,
        .dtype = PG_DTYPE_F32,
        .n_dims = 1,
        .shape = {session->model->config.text.vocab_size, 1, 1, 1},
        .data = session->logits,
    };
    pgi_struct_out(out, &value, sizeof value);
    return PG_OK;
}

pg_status pg_session_get_logits(const pg_session *session, pg_tensor *out) {
    PGI_ENTER;
    PGI_NOT_NULL(session);
    PGI_TRY(pgi_struct_out_check(out, PGI_STRUCT(pg_tensor)));
    PGI_TRY(begin(session));
    return end(session, get_logits(session, out));
}
