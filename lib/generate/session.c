#include "generate/session.h"

size_t pgi_session_workspace(const pgi_run *run, const pg_model *model, int64_t n_tokens, int64_t n_images) {
    const pgi_text_config *text = &model->config.text;
    pgi_arena prefill = {0}, session = {0};
    size_t encode = pgi_features_workspace(run, model, n_images);
    size_t features = (size_t)n_images * (size_t)model->config.vision.n_patches * (size_t)text->hidden_size;
    pgi_arena_take(&prefill, features, sizeof(float));
    pgi_arena_take(&prefill, pgi_prefill_workspace(run, text, n_tokens, n_tokens), 1);
    pgi_arena_take(&session, encode > prefill.used ? encode : prefill.used, 1);
    pgi_arena_take(&session, (size_t)text->vocab_size, sizeof(float));
    pgi_step_room_lay_out(&session, run, text, 1, n_tokens);
    return session.used;
}

pg_status pgi_session_create(pg_model *model, const pg_session_options *options, pg_session **out) {
    const pgi_memory *memory = &model->memory;
    pg_session *session = pgi_alloc_zero(memory, 1, sizeof *session);
    if (!session) return PG_ERROR_MEMORY;
    session->model = model;
    pgi_model_retain(model);
    pgi_cancel_retain(options->cancel);
    session->run = (pgi_run){
        .kernels = &model->kernels,
        .n_threads = options->n_threads,
        .cancel = options->cancel,
        .progress = options->progress,
        .progress_user = options->progress_user,
    };
    session->max_new_tokens = options->max_new_tokens;
    session->answer.pending = -1;
    session->logits = pgi_alloc(memory, (size_t)model->config.text.vocab_size, sizeof(float));
    if (!session->logits) {
        pgi_session_free(session);
        return PG_ERROR_MEMORY;
    }
    *out = session;
    return PG_OK;
}

void pgi_session_free(pg_session *session) {
    if (!session) return;
    pg_model *model = session->model;
    pgi_memory memory = model->memory;
    pgi_answer_free(&session->answer, &memory);
    pgi_free(&memory, session->room_block);
    pgi_free(&memory, session->logits);
    pgi_cancel_release((pg_cancel *)(uintptr_t)session->run.cancel);
    pgi_free(&memory, session);
    pgi_model_release(model);
}

void pgi_session_set_trace(pg_session *session, const pgi_trace *trace) { session->run.trace = trace; }

/* The room of a step, for a cache of this capacity; kept while that stays. */
static pg_status reserve_room(pg_session *session) {
    const pgi_memory *memory = &session->model->memory;
    const pgi_text_config *text = &session->model->config.text;
    const int64_t capacity = session->answer.cache.capacity;
    if (session->room_block && session->room_capacity == capacity) return PG_OK;
    pgi_arena arena = {0};
    pgi_step_room_lay_out(&arena, &session->run, text, 1, capacity);
    pgi_free(memory, session->room_block);
    session->room_block = pgi_alloc(memory, arena.used, 1);
    if (!session->room_block) return PG_ERROR_MEMORY;
    arena = (pgi_arena){.base = session->room_block};
    session->room = pgi_step_room_lay_out(&arena, &session->run, text, 1, capacity);
    session->room_capacity = capacity;
    return PG_OK;
}

pg_status pgi_session_prefill(pg_session *session, const pg_inputs *inputs, const pg_features *features) {
    const pgi_text_config *text = &session->model->config.text;
    pgi_prompts prompts;
    pg_status status;
    session->state = PGI_SESSION_EMPTY;
    session->answer.pending = -1;
    if (inputs->n_rows > 1)
        return pgi_error(PG_ERROR_ARGUMENT,
                         "the inputs have %lld rows, a session takes 1 (pg_generate() takes several)",
                         (long long)inputs->n_rows);
    PGI_TRY(pgi_prompts_open(&session->run, session->model, inputs, features, &prompts));
    PGI_GOTO(pgi_answer_reset(&session->answer, &prompts, 0, session->max_new_tokens), done);
    PGI_GOTO(reserve_room(session), done);
    PGI_GOTO(pgi_answer_prefill(&session->run, &prompts, 0, &session->answer, 0, text->n_layers, session->logits),
             done);
    session->state = PGI_SESSION_READY;
    pgi_run_trace(&session->run, "logits", 0, session->logits, 1, text->vocab_size);
done:
    pgi_prompts_close(&prompts);
    return status;
}

/* Feeds the pending token. */
static pg_status advance(pg_session *session) {
    pgi_answer *answer = &session->answer;
    PGI_TRY(pgi_run_progress(&session->run, PG_PHASE_DECODE, answer->n_returned, answer->max_tokens));
    PGI_TRY(pgi_answers_step(&session->run, session->model, &answer, 1, &session->room, session->logits));
    pgi_run_trace(&session->run, "logits", (int)answer->n_returned, session->logits, 1,
                  session->model->config.text.vocab_size);
    return PG_OK;
}

pg_status pgi_session_step(pg_session *session, int64_t *token) {
    if (session->state == PGI_SESSION_EMPTY)
        return pgi_error(PG_ERROR_STATE, "the session has no prompt, expected pg_session_prefill() first");
    if (session->state == PGI_SESSION_ENDED)
        return pgi_error(PG_ERROR_STATE, "the text has ended (eos was returned), expected a new pg_session_prefill()");
    if (session->answer.n_returned >= session->answer.max_tokens) return PG_EVENT_LENGTH;
    if (session->answer.pending >= 0) {
        pg_status status = advance(session);
        if (status < 0) {
            session->state = PGI_SESSION_EMPTY;
            return status;
        }
    }
    *token = pgi_answer_pick(&session->answer, session->model, session->logits);
    if (!pgi_is_eos(&session->model->config, *token)) return PG_OK;
    session->state = PGI_SESSION_ENDED;
    return PG_EVENT_EOS;
}
