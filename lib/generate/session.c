#include "generate/session.h"

/* Features are kept through the prefill; what makes them is not needed then any more. */
static pgi_merged_inputs_room lay_out_prefill(pgi_arena *arena, const pgi_run *run, const pg_model *model,
                                              int64_t n_tokens, int64_t n_images, int64_t capacity, void **decoder) {
    const pgi_text_config *text = &model->config.text;
    size_t encode = n_images > 0 ? pgi_features_scratch(run, model) : 0;
    size_t prefill = pgi_prefill_workspace(run, text, n_tokens, capacity);
    pgi_merged_inputs_room room;
    room.first_feature = pgi_arena_take(arena, 1, sizeof(int64_t));
    room.image_row = pgi_arena_take(arena, (size_t)text->hidden_size, sizeof(float));
    room.features = pgi_arena_take(arena, pgi_features_count(model, n_images), sizeof(float));
    room.encoder = pgi_arena_take(arena, encode > prefill ? encode : prefill, 1);
    *decoder = room.encoder;
    return room;
}

static size_t prefill_size(const pgi_run *run, const pg_model *model, int64_t n_tokens, int64_t n_images,
                           int64_t capacity) {
    pgi_arena arena = {0};
    void *decoder;
    lay_out_prefill(&arena, run, model, n_tokens, n_images, capacity, &decoder);
    return arena.used;
}

size_t pgi_session_workspace(const pgi_run *run, const pg_model *model, int64_t n_tokens, int64_t n_images) {
    const pgi_text_config *text = &model->config.text;
    pgi_arena arena = {0};
    pgi_arena_take(&arena, prefill_size(run, model, n_tokens, n_images, n_tokens), 1);
    pgi_arena_take(&arena, (size_t)text->vocab_size, sizeof(float));
    pgi_step_room_lay_out(&arena, run, text, 1, n_tokens);
    return arena.used;
}

/* The room of a step, for a cache of this capacity; kept while that stays. */
static pg_status reserve_step(pg_session *session) {
    const pgi_memory *memory = &session->model->memory;
    const pgi_text_config *text = &session->model->config.text;
    const int64_t capacity = session->decoding.cache.capacity;
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

/* Memory for a prompt of n_tokens with n_images to encode, and max_new_tokens behind it. */
static pg_status reserve(pg_session *session, int64_t n_tokens, int64_t n_images) {
    const pg_model *model = session->model;
    int64_t capacity = pgi_min64(n_tokens + session->max_new_tokens - 1, pgi_context_limit(&model->config));
    PGI_TRY(pgi_decoding_reserve(&session->decoding, model, capacity));
    PGI_TRY(reserve_step(session));
    size_t size = prefill_size(&session->run, model, n_tokens, n_images, session->decoding.cache.capacity);
    if (session->prefill_size >= size) return PG_OK;
    pgi_free(&model->memory, session->prefill_block);
    session->prefill_size = 0;
    session->prefill_block = pgi_alloc(&model->memory, size, 1);
    if (!session->prefill_block) return PG_ERROR_MEMORY;
    session->prefill_size = size;
    return PG_OK;
}

pg_status pgi_session_create(pg_model *model, const pg_session_options *options, pg_session **out) {
    const pgi_memory *memory = &model->memory;
    pg_session *session = pgi_alloc_zero(memory, 1, sizeof *session);
    if (!session) return PG_ERROR_MEMORY;
    session->model = model;
    pgi_model_retain(model);
    pgi_cancel_retain(options->cancel);
    session->run = pgi_run_init(&session->pool, &model->kernels, PGI_RUN_OPTIONS(options));
    session->max_new_tokens = options->max_new_tokens;
    session->decoding.pending = -1;
    session->logits = pgi_alloc(memory, (size_t)model->config.text.vocab_size, sizeof(float));
    const int64_t per_image = model->config.vision.n_patches, n_images = options->max_prompt_tokens / per_image;
    pg_status status = session->logits ? reserve(session, options->max_prompt_tokens, n_images) : PG_ERROR_MEMORY;
    if (status < 0) {
        pgi_session_free(session);
        return status;
    }
    pgi_thread_pool_start(&session->pool);
    *out = session;
    return PG_OK;
}

void pgi_session_free(pg_session *session) {
    if (!session) return;
    pg_model *model = session->model;
    pgi_memory memory = model->memory;
    pgi_run_free(&session->run);
    pgi_decoding_free(&session->decoding, &memory);
    pgi_free(&memory, session->prefill_block);
    pgi_free(&memory, session->room_block);
    pgi_free(&memory, session->logits);
    pgi_cancel_release((pg_cancel *)(uintptr_t)session->run.cancel);
    pgi_free(&memory, session);
    pgi_model_release(model);
}

void pgi_session_set_trace(pg_session *session, const pgi_trace *trace) { session->run.trace = trace; }

pg_status pgi_session_prefill(pg_session *session, const pg_inputs *inputs, const pg_features *features) {
    const pg_model *model = session->model;
    const pgi_run *run = &session->run;
    pgi_decoding *decoding = &session->decoding;
    pgi_merged_inputs merged;
    pgi_arena arena = {0};
    void *decoder;
    pg_status status;
    session->state = PGI_SESSION_EMPTY;
    decoding->pending = -1;
    if (inputs->n_rows > 1)
        return pgi_error(PG_ERROR_ARGUMENT,
                         "the inputs have %lld rows, a session takes 1 (pg_generate() takes several)",
                         (long long)inputs->n_rows);
    /* inputs without rows or tokens, and those that are too long, are refused by pgi_merged_inputs_init() */
    int64_t n = inputs->n_rows > 0 ? inputs->rows[0].n_tokens : 0;
    if (n < 1 || n > pgi_context_limit(&model->config)) n = 1;
    int64_t n_images = features || !inputs->pixels ? 0 : inputs->n_images;
    /* only so many can have their tokens: with more the inputs are refused before one is encoded */
    n_images = pgi_min64(n_images, inputs->n_tokens / model->config.vision.n_patches);
    PGI_TRY(reserve(session, n, n_images));
    arena.base = session->prefill_block;
    pgi_merged_inputs_room room = lay_out_prefill(&arena, run, model, n, n_images, decoding->cache.capacity, &decoder);
    PGI_TRY(pgi_merged_inputs_init(run, session->model, inputs, features, &room, &merged));
    PGI_GOTO(pgi_decoding_reset(decoding, &merged, 0, session->max_new_tokens), done);
    PGI_GOTO(pgi_decoding_prefill(run, &merged, 0, decoding, 0, model->config.text.n_layers, session->logits, decoder),
             done);
    session->state = PGI_SESSION_READY;
    pgi_run_trace(run, "logits", 0, session->logits, 1, model->config.text.vocab_size);
done:
    pgi_merged_inputs_free(&merged);
    return status;
}

/* Feeds the pending token. */
static pg_status advance(pg_session *session) {
    pgi_decoding *decoding = &session->decoding;
    PGI_TRY(pgi_run_progress(&session->run, PG_PHASE_DECODE, decoding->n_returned, decoding->max_tokens));
    PGI_TRY(pgi_decoding_step_group(&session->run, session->model, &decoding, 1, &session->room, session->logits));
    pgi_run_trace(&session->run, "logits", (int)decoding->n_returned, session->logits, 1,
                  session->model->config.text.vocab_size);
    return PG_OK;
}

pg_status pgi_session_step(pg_session *session, int64_t *token) {
    if (session->state == PGI_SESSION_EMPTY)
        return pgi_error(PG_ERROR_STATE, "the session has no prompt, expected pg_session_prefill() first");
    if (session->state == PGI_SESSION_ENDED)
        return pgi_error(PG_ERROR_STATE, "the text has ended (eos was returned), expected a new pg_session_prefill()");
    if (session->decoding.n_returned >= session->decoding.max_tokens) return PG_EVENT_LENGTH;
    if (session->decoding.pending >= 0) {
        pg_status status = advance(session);
        if (status < 0) {
            session->state = PGI_SESSION_EMPTY;
            return status;
        }
    }
    *token = pgi_decoding_pick(&session->decoding, session->model, session->logits);
    if (!pgi_is_eos(&session->model->config, *token)) return PG_OK;
    session->state = PGI_SESSION_ENDED;
    return PG_EVENT_EOS;
}
