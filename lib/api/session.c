/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* pg_session: generation step by step. */
#include "generate/session.h"

#include <stdio.h>

#include "api/calls.h"
#include "api/structs.h"
#include "model/read_ahead.h"

enum {
    DEFAULT_PROMPT_TOKENS = 64, /* beside one image */
    MAX_GROUP = 1024            /* sessions that a call steps */
};

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

/* Of threads that are another session's, there are as many as that one has. */
static pg_status check_threads(const pg_model *model, pg_session_options *options) {
    const pg_session *of = options->threads_of;
    if (!of) return pgi_thread_count(options->n_threads, &options->n_threads);
    if (!pgi_session_same_base(model, of))
        return pgi_error(PG_ERROR_ARGUMENT, "threads_of is a session of another model, expected one on the same base");
    if (options->n_threads != 0 && options->n_threads != of->run.n_threads)
        return pgi_error(PG_ERROR_ARGUMENT, "n_threads is %d, expected 0 or %d, as threads_of has", options->n_threads,
                         of->run.n_threads);
    options->n_threads = of->run.n_threads;
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
    PGI_TRY(check_threads(model, &complete));
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

/* The same of a call that computes: the threads may be those of other sessions, too. */
static pg_status begin_computing(pg_session *session) {
    PGI_TRY(begin(session));
    const pg_status status = pgi_in_use_begin(&session->threads->in_use, "session's threads (threads_of)");
    return status < 0 ? end(session, status) : status;
}

static pg_status end_computing(pg_session *session, pg_status status) {
    (void)pgi_in_use_end(&session->threads->in_use); /* they cannot be closed */
    return end(session, status);
}

pg_status pg_session_prefill(pg_session *session, const pg_inputs *inputs, const pg_features *features) {
    PGI_ENTER;
    PGI_NOT_NULL(session);
    PGI_NOT_NULL(inputs);
    PGI_TRY(begin_computing(session));
    pgi_call call = pgi_call_begin(NULL, inputs, features, NULL); /* the session itself keeps the other two */
    pg_status status = pgi_tensor_files_unchanged(session->model->files);
    if (status >= 0) pgi_read_ahead(session->model, pgi_read_ahead_parts(inputs, features));
    if (status >= 0) status = pgi_session_prefill(session, inputs, features);
    pgi_call_end(&call);
    return end_computing(session, status);
}

pg_status pg_session_step(pg_session *session, int64_t *token) {
    PGI_ENTER;
    PGI_NOT_NULL(session);
    PGI_NOT_NULL(token);
    PGI_TRY(begin_computing(session));
    return end_computing(session, pgi_session_step(session, token));
}

pg_status pg_session_sample(pg_session *session, const pg_sampling_options *options, int64_t *token) {
    PGI_ENTER;
    pg_sampling_options complete;
    PGI_NOT_NULL(session);
    PGI_NOT_NULL(token);
    PGI_TRY(begin_computing(session));
    pg_status status = pgi_sampling_in(options, session->model, &complete);
    if (status >= 0) status = pgi_session_sample(session, &complete, token);
    return end_computing(session, status);
}

pg_status pg_session_feed(pg_session *session, const int64_t *ids, size_t n_ids) {
    PGI_ENTER;
    PGI_NOT_NULL(session);
    if (n_ids > 0) PGI_NOT_NULL(ids);
    PGI_TRY(begin_computing(session));
    return end_computing(session, pgi_session_feed(session, ids, n_ids < INT32_MAX ? (int64_t)n_ids : INT32_MAX));
}

/* The first error of a group, whose words those of the next would replace. */
typedef struct first_error {
    const pg_status *statuses;
    pg_status status;
    int64_t session;
    char text[1024]; /* as long as they get */
} first_error;

static void keep_first(void *user, int64_t session) {
    first_error *first = user;
    if (first->status < 0) return;
    first->status = first->statuses[session];
    first->session = session;
    snprintf(first->text, sizeof first->text, "%s", pgi_error_text());
}

static pg_status check_group(pg_session *const *sessions, int64_t n) {
    if (n < 1 || n > MAX_GROUP)
        return pgi_error(PG_ERROR_ARGUMENT, "n is %lld, expected 1 to %d sessions", (long long)n, MAX_GROUP);
    for (int64_t i = 0; i < n; i++) {
        if (!sessions[i])
            return pgi_error_of_row(pgi_error(PG_ERROR_ARGUMENT, "sessions[%lld] is NULL", (long long)i), i);
        if (!pgi_session_same_base(sessions[0]->model, sessions[i]))
            return pgi_error_of_row(pgi_error(PG_ERROR_ARGUMENT,
                                              "sessions[%lld] is on another base model than sessions[0]; sessions that "
                                              "step together share one",
                                              (long long)i),
                                    i);
    }
    return PG_OK;
}

pg_status pg_session_step_together(pg_session *const *sessions, int64_t n, int64_t *tokens, pg_status *statuses) {
    PGI_ENTER;
    PGI_NOT_NULL(sessions);
    PGI_NOT_NULL(statuses);
    PGI_TRY(check_group(sessions, n));
    PGI_TRY(begin_computing(sessions[0]));
    pgi_session_threads *threads = sessions[0]->threads;
    first_error first = {.statuses = statuses};
    uint8_t begun[MAX_GROUP] = {1};
    statuses[0] = PG_OK;
    for (int64_t i = 1; i < n; i++) { /* one that is given twice is in use the second time */
        statuses[i] = begin(sessions[i]);
        begun[i] = statuses[i] == PG_OK;
        if (statuses[i] < 0) keep_first(&first, i);
    }
    pgi_session_step_together(sessions, n, tokens, statuses, keep_first, &first);
    (void)pgi_in_use_end(&threads->in_use);
    for (int64_t i = 0; i < n; i++)
        if (begun[i]) (void)end(sessions[i], PG_OK);
    if (first.status == PG_OK) return PG_OK;
    return pgi_error_of_row(pgi_error(first.status, "sessions[%lld]: %s", (long long)first.session, first.text),
                            first.session);
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
