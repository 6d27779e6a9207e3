/*
 * The order of a generation (HF: GenerationMixin, greedy):
 *
 *   prefill   embed the prompt's ids, put the pictures' features in the rows of
 *             the `<image>` tokens, run all rows as one block
 *   step      token = argmax(logits); the next step feeds it and gets new logits
 */
#include "generate/session.h"

#include <string.h>
#include <time.h>

#include "kernels/ops.h"

double pgi_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

int pgi_is_eos(const pgi_config *config, int64_t token) {
    for (int32_t i = 0; i < config->n_eos; i++)
        if (config->eos_ids[i] == token) return 1;
    return 0;
}

/* RoPE itself has no end; max_position_embeddings is what the decoder was trained for. Small test
 * configs say less than their own image tokens need, so the limit is never below Gemma's 8192. */
int64_t pgi_context_limit(const pgi_config *config) {
    return config->text.max_positions > 8192 ? config->text.max_positions : 8192;
}

/* What only a prefill needs: its rows and workspace, given back when it is done. */
typedef struct prefill_block {
    float *x; /* [n_tokens, hidden] */
    void *workspace;
} prefill_block;

static prefill_block lay_out_prefill(pgi_arena *arena, const pgi_run *run, const pgi_text_config *text,
                                     int64_t n_tokens, int64_t capacity) {
    prefill_block block;
    block.x = pgi_arena_take(arena, (size_t)n_tokens * (size_t)text->hidden_size, sizeof(float));
    block.workspace = pgi_arena_take(arena, pgi_decoder_workspace(run, text, n_tokens, capacity), 1);
    return block;
}

size_t pgi_session_workspace(const pgi_run *run, const pg_model *model, int64_t n_tokens, int64_t n_images) {
    const pgi_text_config *text = &model->config.text;
    pgi_arena prefill = {0}, session = {0};
    size_t encode = pgi_features_workspace(run, model, n_images);
    size_t features = (size_t)n_images * (size_t)model->config.vision.n_patches * (size_t)text->hidden_size;
    pgi_arena_take(&prefill, features, sizeof(float));
    lay_out_prefill(&prefill, run, text, n_tokens, n_tokens);
    pgi_arena_take(&session, encode > prefill.used ? encode : prefill.used, 1);
    pgi_arena_take(&session, (size_t)text->hidden_size, sizeof(float));
    pgi_arena_take(&session, (size_t)text->vocab_size, sizeof(float));
    pgi_arena_take(&session, pgi_decoder_workspace(run, text, 1, n_tokens), 1);
    return session.used;
}

pg_status pgi_session_create(pg_model *model, const pg_session_options *options, pg_session **out) {
    const pgi_memory *memory = &model->memory;
    const pgi_text_config *text = &model->config.text;
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
    session->pending = -1;
    session->row = pgi_alloc(memory, (size_t)text->hidden_size, sizeof(float));
    session->logits = pgi_alloc(memory, (size_t)text->vocab_size, sizeof(float));
    if (!session->row || !session->logits) {
        pgi_session_free(session);
        return PG_ERROR_MEMORY;
    }
    *out = session;
    return PG_OK;
}

static void free_cache(pg_session *session) {
    const pgi_memory *memory = &session->model->memory;
    pgi_free(memory, session->cache.keys);
    pgi_free(memory, session->cache.values);
    pgi_free(memory, session->step_workspace);
    session->cache = (pgi_kv_cache){0};
    session->step_workspace = NULL;
}

void pgi_session_free(pg_session *session) {
    if (!session) return;
    pg_model *model = session->model;
    pgi_memory memory = model->memory;
    free_cache(session);
    pgi_free(&memory, session->row);
    pgi_free(&memory, session->logits);
    pgi_cancel_release((pg_cancel *)(uintptr_t)session->run.cancel);
    pgi_free(&memory, session);
    pgi_model_release(model);
}

void pgi_session_set_trace(pg_session *session, const pgi_trace *trace) { session->run.trace = trace; }

/* Room for `capacity` positions; kept when it is there already. */
static pg_status reserve_cache(pg_session *session, int64_t capacity) {
    const pgi_memory *memory = &session->model->memory;
    const pgi_text_config *text = &session->model->config.text;
    if (session->cache.capacity < capacity) {
        free_cache(session);
        size_t size = pgi_kv_cache_size(text, capacity);
        session->cache.keys = pgi_alloc(memory, size, 1);
        session->cache.values = session->cache.keys ? pgi_alloc(memory, size, 1) : NULL;
        if (session->cache.values)
            session->step_workspace = pgi_alloc(memory, pgi_decoder_workspace(&session->run, text, 1, capacity), 1);
        if (!session->step_workspace) {
            free_cache(session);
            return PG_ERROR_MEMORY;
        }
        session->cache.capacity = capacity;
    }
    session->cache.n_positions = 0;
    return PG_OK;
}

/* Every id must have a row in the embedding; image tokens need none, their rows are the features. */
static pg_status check_ids(const pgi_config *config, const pg_inputs *inputs, int64_t *n_image_tokens) {
    *n_image_tokens = 0;
    if (inputs->n_tokens < 1) return pgi_error(PG_ERROR_ARGUMENT, "the inputs have no tokens, expected at least 1");
    if (inputs->n_tokens > pgi_context_limit(config))
        return pgi_error(PG_ERROR_LIMIT, "the prompt is %lld tokens long, image tokens included, expected at most %lld",
                         (long long)inputs->n_tokens, (long long)pgi_context_limit(config));
    for (int64_t i = 0; i < inputs->n_tokens; i++) {
        int64_t id = inputs->ids[i];
        if (id == config->image_token_id)
            ++*n_image_tokens;
        else if (id < 0 || id >= config->text.vocab_size)
            return pgi_error(PG_ERROR_ARGUMENT,
                             "token %lld of the prompt is id %lld, expected 0 to %d: the tokenizer is not the model's",
                             (long long)i, (long long)id, config->text.vocab_size - 1);
    }
    return PG_OK;
}

static pg_status check_features(const pg_model *model, const pg_features *features, int64_t n_image_tokens) {
    const pgi_config *config = &model->config;
    int64_t rows = features ? features->n_images * config->vision.n_patches : 0;
    if (features && (features->model->config.text.hidden_size != config->text.hidden_size ||
                     features->model->config.vision.n_patches != config->vision.n_patches))
        return pgi_error(PG_ERROR_ARGUMENT, "the features are of another model: %d rows of %d, expected %d rows of %d",
                         features->model->config.vision.n_patches, features->model->config.text.hidden_size,
                         config->vision.n_patches, config->text.hidden_size);
    if (rows != n_image_tokens)
        return pgi_error(PG_ERROR_ARGUMENT,
                         "the prompt has %lld image tokens, the pictures have %lld (%lld of %d each): "
                         "image tokens and pictures do not match",
                         (long long)n_image_tokens, (long long)rows, (long long)(features ? features->n_images : 0),
                         config->vision.n_patches);
    return PG_OK;
}

/* Text rows from the embedding, image rows from the features, in order (HF: masked_scatter). */
static void embed_prompt(const pg_session *session, const pg_inputs *inputs, const pg_features *features, float *x) {
    const pgi_config *config = &session->model->config;
    int64_t h = config->text.hidden_size;
    const float *image_row = features ? features->data : NULL;
    for (int64_t i = 0; i < inputs->n_tokens; i++) {
        if (inputs->ids[i] == config->image_token_id) {
            memcpy(x + i * h, image_row, (size_t)h * sizeof(float));
            image_row += h;
        } else {
            pgi_decoder_embed(&session->run, &config->text, &session->model->weights.text, &inputs->ids[i], 1,
                              x + i * h);
        }
    }
    pgi_run_trace(&session->run, "embeddings", -1, x, inputs->n_tokens, h);
}

static pg_status run_prompt(pg_session *session, const pg_inputs *inputs, const pg_features *features) {
    const pg_model *model = session->model;
    const pgi_text_config *text = &model->config.text;
    int64_t n = inputs->n_tokens, room = pgi_context_limit(&model->config) - n;
    session->max_tokens = session->max_new_tokens < room + 1 ? session->max_new_tokens : room + 1;
    /* The last token returned is never fed. */
    PGI_TRY(reserve_cache(session, n + session->max_tokens - 1));

    pgi_arena arena = {0};
    lay_out_prefill(&arena, &session->run, text, n, session->cache.capacity);
    arena.base = pgi_alloc(&model->memory, arena.used, 1);
    if (!arena.base) return PG_ERROR_MEMORY;
    arena.used = 0;
    prefill_block block = lay_out_prefill(&arena, &session->run, text, n, session->cache.capacity);

    embed_prompt(session, inputs, features, block.x);
    session->cache.n_prefix = n;
    pg_status status = pgi_decoder_forward(&session->run, text, &model->weights.text, &session->cache, block.x, n,
                                           session->logits, block.workspace);
    pgi_free(&model->memory, arena.base);
    return status;
}

pg_status pgi_session_prefill(pg_session *session, const pg_inputs *inputs, const pg_features *features) {
    pg_model *model = session->model;
    pg_features *encoded = NULL;
    int64_t n_image_tokens;
    pg_status status;

    session->state = PGI_SESSION_EMPTY;
    session->pending = -1;
    session->n_returned = 0;
    session->encode_seconds = session->prefill_seconds = 0;
    PGI_TRY(check_ids(&model->config, inputs, &n_image_tokens));

    double start = pgi_now();
    /* pixels without image tokens: a tokenizer of another checkpoint; check_features() says so */
    if (!features && (n_image_tokens > 0 || inputs->pixels)) {
        PGI_TRY(pgi_features_encode(&session->run, model, inputs, &encoded));
        features = encoded;
        session->encode_seconds = pgi_now() - start;
    }
    PGI_GOTO(check_features(model, features, n_image_tokens), done);
    start = pgi_now();
    PGI_GOTO(run_prompt(session, inputs, features), done);
    session->prefill_seconds = pgi_now() - start;
    session->state = PGI_SESSION_READY;
    pgi_run_trace(&session->run, "logits", 0, session->logits, 1, model->config.text.vocab_size);
done:
    pgi_features_release(encoded);
    return status;
}

/* Feeds the pending token. */
static pg_status advance(pg_session *session) {
    const pg_model *model = session->model;
    PGI_TRY(pgi_run_progress(&session->run, PG_PHASE_DECODE, session->n_returned, session->max_tokens));
    pgi_decoder_embed(&session->run, &model->config.text, &model->weights.text, &session->pending, 1, session->row);
    PGI_TRY(pgi_decoder_forward(&session->run, &model->config.text, &model->weights.text, &session->cache,
                                session->row, 1, session->logits, session->step_workspace));
    session->pending = -1;
    pgi_run_trace(&session->run, "logits", (int)session->n_returned, session->logits, 1,
                  model->config.text.vocab_size);
    return PG_OK;
}

pg_status pgi_session_step(pg_session *session, int64_t *token) {
    if (session->state == PGI_SESSION_EMPTY)
        return pgi_error(PG_ERROR_STATE, "the session has no prompt, expected pg_session_prefill() first");
    if (session->state == PGI_SESSION_ENDED)
        return pgi_error(PG_ERROR_STATE, "the text has ended (eos was returned), expected a new pg_session_prefill()");
    if (session->n_returned >= session->max_tokens) return PG_EVENT_LENGTH;
    if (session->pending >= 0) {
        pg_status status = advance(session);
        if (status < 0) {
            session->state = PGI_SESSION_EMPTY;
            return status;
        }
    }
    int64_t best = pgi_argmax(session->logits, session->model->config.text.vocab_size);
    session->pending = best;
    session->n_returned++;
    *token = best;
    if (!pgi_is_eos(&session->model->config, best)) return PG_OK;
    session->state = PGI_SESSION_ENDED;
    return PG_EVENT_EOS;
}
