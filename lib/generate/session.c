/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* A session: its memory is reserved when it is made, and again where a prompt needs more; a prefill, then steps. */
#include "generate/session.h"

#include <string.h>

#include "generate/sampler.h"
#include "model/row_models.h"

/* What a session runs at the most, with prompts of n_tokens and the features of n_images computed. */
static pgi_limits limits_of(const pg_model *model, int64_t n_tokens, int64_t n_images, int64_t n_keys) {
    return (pgi_limits){
        .n_rows = 1,
        .n_images = n_images,
        .runs_encoder = n_images > 0,
        .n_tokens = n_tokens,
        .n_step_tokens = 1,
        .n_keys = n_keys,
        .n_logits = pgi_sampling_workspace_size(model->config.text.vocab_size) + model->config.text.vocab_size,
    };
}

size_t pgi_session_workspace(const pgi_run *run, const pg_model *model, int64_t n_tokens, int64_t n_images) {
    const pgi_limits limits = limits_of(model, n_tokens, n_images, n_tokens);
    return pgi_workspace_size(run, model, &limits);
}

/* The logits follow what the settings of sampling work in. */
static void place_logits(pg_session *session) {
    session->logits = session->workspace.logits + pgi_sampling_workspace_size(session->model->config.text.vocab_size);
}

/* Memory for a prompt of n_tokens with features of n_images to compute, and max_new_tokens behind it. */
static pg_status reserve(pg_session *session, int64_t n_tokens, int64_t n_images) {
    const pg_model *model = session->model;
    PGI_TRY(pgi_decoding_reserve(&session->decoding, model, pgi_decoding_first_capacity(&session->limits, n_tokens)));
    const pgi_limits limits = limits_of(model, n_tokens, n_images, session->decoding.cache.capacity);
    PGI_TRY(pgi_workspace_reserve(&session->workspace, &session->run, model, &limits));
    place_logits(session);
    session->ids.size = 0;
    return pgi_id_list_reserve(&session->ids, (size_t)session->decoding.cache.capacity + 1);
}

/* Those of another session, or new ones, which are not started yet. */
static pgi_session_threads *take_threads(const pg_model *model, const pg_session_options *options) {
    pgi_session_threads *threads = options->threads_of ? options->threads_of->threads : NULL;
    if (threads) {
        atomic_fetch_add_explicit(&threads->references, 1, memory_order_relaxed);
        return threads;
    }
    threads = pgi_alloc_zero(&model->memory, 1, sizeof *threads);
    if (!threads) return NULL;
    atomic_init(&threads->references, 1);
    threads->memory = model->memory;
    pgi_thread_pool_init(&threads->pool, options->n_threads);
    return threads;
}

static void release_threads(pgi_session_threads *threads) {
    if (!threads || atomic_fetch_sub_explicit(&threads->references, 1, memory_order_acq_rel) != 1) return;
    const pgi_memory memory = threads->memory;
    pgi_thread_pool_free(&threads->pool);
    pgi_free(&memory, threads);
}

int pgi_session_same_base(const pg_model *model, const pg_session *session) {
    return pgi_model_base(model) == pgi_model_base(session->model);
}

pg_status pgi_session_create(const pg_model *model, const pg_session_options *options, pg_session **out) {
    const pgi_memory *memory = &model->memory;
    pg_session *session = pgi_alloc_zero(memory, 1, sizeof *session);
    if (!session) return PG_ERROR_MEMORY;
    session->threads = take_threads(model, options);
    if (!session->threads) {
        pgi_free(memory, session);
        return PG_ERROR_MEMORY;
    }
    session->model = pgi_model_retain(model);
    pgi_cancel_retain(options->cancel);
    session->run = (pgi_run){
        .kernels = &model->kernels,
        .n_threads = options->n_threads,
        .pool = &session->threads->pool,
        .cancel = options->cancel,
        .progress = options->progress,
        .progress_user = options->progress_user,
    };
    session->limits = (pgi_decoding_limits){options->max_new_tokens, options->max_context};
    session->decoding.pending = -1;
    pgi_id_list_init(&session->ids, memory);
    const int64_t per_image = model->config.vision.n_patches, n_images = options->max_prompt_tokens / per_image;
    pg_status status = reserve(session, options->max_prompt_tokens, n_images);
    if (status < 0) {
        pgi_session_close(session);
        return status;
    }
    if (!options->threads_of) pgi_thread_pool_start(&session->threads->pool);
    *out = session;
    return PG_OK;
}

void pgi_session_close(pg_session *session) {
    if (!session) return;
    pg_model *model = session->model;
    pgi_memory memory = model->memory;
    release_threads(session->threads);
    pgi_decoding_free(&session->decoding, &memory);
    pgi_workspace_free(&session->workspace, &memory);
    pgi_workspace_free(&session->group, &memory);
    pgi_id_list_free(&session->ids);
    pgi_cancel_release((pg_cancel *)(uintptr_t)session->run.cancel);
    pgi_free(&memory, session);
    pgi_model_release(model);
}

void pgi_session_set_trace(pg_session *session, const pgi_trace *trace) { session->run.trace = trace; }

/* The ids that settings and callbacks look at; inputs given as embeddings have none. */
static pg_status take_prompt(pg_session *session, const pg_inputs *inputs) {
    const pgi_row *row = &inputs->rows[0];
    session->n_prompt_tokens = row->n_tokens;
    for (int64_t i = 0; inputs->ids && i < row->n_tokens; i++)
        PGI_TRY(pgi_id_list_push(&session->ids, inputs->ids[row->first_token + i]));
    return PG_OK;
}

pg_status pgi_session_prefill(pg_session *session, const pg_inputs *inputs, const pg_features *features) {
    const pg_model *model = session->model;
    const pgi_text_config *text = &model->config.text;
    const pgi_run *run = &session->run;
    pgi_decoding *decoding = &session->decoding;
    pgi_merged_inputs merged;
    pgi_workspace *workspace = &session->workspace;
    const float *last; /* [hidden] */
    pg_status status;
    session->state = PGI_SESSION_EMPTY;
    decoding->pending = -1;
    if (inputs->n_rows > 1)
        return pgi_error(PG_ERROR_ARGUMENT,
                         "the inputs have %lld rows, a session takes 1 (pg_generate() takes several)",
                         (long long)inputs->n_rows);
    PGI_TRY(pgi_decoding_check(inputs, &session->limits));
    /* inputs without rows or tokens, and those that are too long, are refused by pgi_merged_inputs_init() */
    int64_t n = inputs->n_rows > 0 ? inputs->rows[0].n_tokens : 0;
    if (n < 1 || n > PGI_MAX_ROW_TOKENS) n = 1;
    int64_t n_images = features || !inputs->pixels ? 0 : inputs->n_images;
    /* no more images can have their tokens; inputs with more are refused before features are computed */
    n_images = pgi_min64(n_images, inputs->n_tokens / model->config.vision.n_patches);
    PGI_TRY(reserve(session, n, n_images));
    PGI_TRY(pgi_merged_inputs_init(run, session->model, NULL, inputs, features, workspace, &merged));
    PGI_GOTO(pgi_decoding_reset(decoding, &merged, 0, &session->limits), done);
    PGI_GOTO(pgi_decoding_prefill(run, &merged, 0, 1, &decoding, 0, text->n_layers, &workspace->pass, &last), done);
    PGI_GOTO(pgi_decoding_logits(run, &decoding, 1, last, session->logits, &workspace->pass.head), done);
    PGI_GOTO(take_prompt(session, inputs), done);
    session->state = PGI_SESSION_READY;
    pgi_run_trace(run, "logits", 0, session->logits, 1, text->vocab_size);
done:
    pgi_merged_inputs_free(&merged);
    return status;
}

/* Room for the pending token; a larger cache needs a larger workspace. */
static pg_status make_room(pg_session *session) {
    const int64_t capacity = session->decoding.cache.capacity;
    PGI_TRY(pgi_decoding_make_room(&session->decoding, session->model));
    if (session->decoding.cache.capacity == capacity) return PG_OK;
    const pgi_limits limits = limits_of(session->model, 1, 0, session->decoding.cache.capacity);
    PGI_TRY(pgi_workspace_reserve(&session->workspace, &session->run, session->model, &limits));
    place_logits(session);
    return PG_OK;
}

/* Feeds the pending token. */
static pg_status advance(pg_session *session) {
    PGI_TRY(make_room(session));
    const pgi_run *run = &session->run;
    const pgi_pass_workspace *step = &session->workspace.step;
    pgi_decoding *decoding = &session->decoding;
    float *logits = session->logits;
    PGI_TRY(pgi_run_progress(run, PG_PHASE_DECODE, decoding->n_returned, decoding->max_tokens));
    PGI_TRY(pgi_decoding_step_group(run, &decoding, 1, step));
    PGI_TRY(pgi_decoding_logits(run, &decoding, 1, step->x, logits, &step->head));
    pgi_run_trace(run, "logits", (int)decoding->n_returned, logits, 1, session->model->config.text.vocab_size);
    return PG_OK;
}

static pg_status check_state(const pg_session *session) {
    if (session->state == PGI_SESSION_EMPTY)
        return pgi_error(PG_ERROR_STATE, "the session has no prompt, expected pg_session_prefill() first");
    if (session->state == PGI_SESSION_ENDED)
        return pgi_error(PG_ERROR_STATE, "the text has ended (eos was returned), expected a new pg_session_prefill()");
    return PG_OK;
}

static int has_no_tokens_left(const pg_session *session) {
    return session->decoding.n_returned >= session->decoding.max_tokens;
}

/* Brings the logits up to the last token. After an error the session is empty. */
static pg_status catch_up(pg_session *session) {
    if (session->decoding.pending < 0) return PG_OK;
    const pg_status status = advance(session);
    if (status < 0) session->state = PGI_SESSION_EMPTY;
    return status;
}

static pg_status push(pg_session *session, int64_t token) {
    pgi_decoding_push(&session->decoding, token);
    return pgi_id_list_push(&session->ids, token);
}

static pg_status sample(pg_session *session, pgi_sampling *sampling, int64_t *token) {
    const pgi_sampled_row row = {
        .ids = session->ids.data,
        .n_ids = (int64_t)session->ids.size,
        .n_prompt_tokens = session->n_prompt_tokens,
        .n_new = session->decoding.n_returned,
        .max_new = session->decoding.max_tokens,
    };
    const pgi_sampling_workspace workspace = pgi_sampling_workspace_in(session->workspace.logits, sampling->vocab_size);
    const float *scores = session->logits;
    pgi_sampling_mark_eos(sampling, workspace.eos);
    if (!sampling->greedy) {
        int stop;
        PGI_TRY(pgi_sampling_score(sampling, &row, scores, &workspace, &stop));
        if (stop) return PG_EVENT_STOP;
        scores = workspace.scores;
    }
    *token = pgi_sampling_choose(sampling, &row, scores);
    PGI_TRY(push(session, *token));
    if (!pgi_sampling_ends_row(sampling, *token)) return PG_OK;
    session->state = PGI_SESSION_ENDED;
    return PG_EVENT_EOS;
}

pg_status pgi_session_sample(pg_session *session, const pg_sampling_options *options, int64_t *token) {
    pgi_sampling sampling;
    PGI_TRY(check_state(session));
    PGI_TRY(pgi_sampling_init(options, session->model, &sampling));
    if (has_no_tokens_left(session)) return session->decoding.ends_context ? PG_EVENT_CONTEXT : PG_EVENT_LENGTH;
    PGI_TRY(catch_up(session));
    return sample(session, &sampling, token);
}

static pgi_sampling greedy_of(const pg_session *session) {
    const pgi_config *config = &session->model->config;
    return (pgi_sampling){.config = config, .vocab_size = config->text.vocab_size, .greedy = 1};
}

pg_status pgi_session_step(pg_session *session, int64_t *token) {
    pgi_sampling greedy = greedy_of(session);
    PGI_TRY(check_state(session));
    if (has_no_tokens_left(session)) return session->decoding.ends_context ? PG_EVENT_CONTEXT : PG_EVENT_LENGTH;
    PGI_TRY(catch_up(session));
    return sample(session, &greedy, token);
}

/* What a call of pgi_session_step_together() is about. */
typedef struct group_call {
    pg_session *const *sessions;
    pg_status *statuses;
    void (*on_error)(void *user, int64_t session);
    void *user;
} group_call;

static void set_status(const group_call *g, int64_t i, pg_status status) {
    g->statuses[i] = status;
    if (status < 0) g->on_error(g->user, i);
}

/* Everything that may fail before a pass; a session that fails takes no part in it. */
static void get_ready(const group_call *g, int64_t i) {
    pg_session *session = g->sessions[i];
    const pgi_decoding *decoding = &session->decoding;
    pg_status status = check_state(session);
    if (status >= 0 && has_no_tokens_left(session))
        status = decoding->ends_context ? PG_EVENT_CONTEXT : PG_EVENT_LENGTH;
    else if (status >= 0 && decoding->pending >= 0) {
        status = make_room(session);
        if (status >= 0)
            status = pgi_run_progress(&session->run, PG_PHASE_DECODE, decoding->n_returned, decoding->max_tokens);
        if (status < 0) session->state = PGI_SESSION_EMPTY;
    }
    set_status(g, i, status);
}

/* Each in its own memory, where there is none for a pass. */
static void advance_alone(const group_call *g, const int64_t *which, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        const pg_status status = catch_up(g->sessions[which[i]]);
        if (status < 0) set_status(g, which[i], status);
    }
}

/* Brings n sessions, which[n] of the call's, to the logits behind their pending tokens, on the threads and in the
 * memory of `first`. */
static pg_status advance_group(const group_call *g, pg_session *first, const int64_t *which, int64_t n) {
    pgi_decoding *decodings[PGI_STEP_ROWS];
    const pg_model *models[PGI_STEP_ROWS];
    const int64_t vocab_size = first->model->config.text.vocab_size;
    int64_t n_keys = 0;
    for (int64_t i = 0; i < n; i++) {
        pg_session *session = g->sessions[which[i]];
        decodings[i] = &session->decoding;
        models[i] = session->model;
        n_keys = pgi_max64(n_keys, session->decoding.cache.capacity);
    }
    const pgi_kernels kernels = pgi_row_models_kernels(first->model, models, n);
    pgi_run run = first->run;
    run.kernels = &kernels;
    run.cancel = n == 1 ? g->sessions[which[0]]->run.cancel : NULL; /* a flag must not end the step of others */
    const pgi_limits limits = {.n_step_tokens = n, .n_keys = n_keys, .n_logits = n * vocab_size};
    if (pgi_workspace_reserve(&first->group, &run, first->model, &limits) < 0) {
        advance_alone(g, which, n);
        return PG_OK;
    }
    const pgi_pass_workspace *step = &first->group.step;
    float *logits = first->group.logits;
    PGI_TRY(pgi_decoding_step_group(&run, decodings, n, step));
    PGI_TRY(pgi_decoding_logits(&run, decodings, n, step->x, logits, &step->head));
    for (int64_t i = 0; i < n; i++)
        memcpy(g->sessions[which[i]]->logits, logits + i * vocab_size, (size_t)vocab_size * sizeof(float));
    return PG_OK;
}

/* The sessions that are ready and have a token to feed, in passes of as many as step together. */
static void advance_all(const group_call *g, int64_t n) {
    const int64_t most = pgi_step_rows(g->sessions[0]->model);
    int64_t which[PGI_STEP_ROWS], found = 0;
    for (int64_t i = 0; i < n; i++) {
        if (g->statuses[i] == PG_OK && g->sessions[i]->decoding.pending >= 0) which[found++] = i;
        if (found < most && i + 1 < n) continue;
        const pg_status status = found > 0 ? advance_group(g, g->sessions[0], which, found) : PG_OK;
        for (int64_t k = 0; status < 0 && k < found; k++) {
            g->sessions[which[k]]->state = PGI_SESSION_EMPTY;
            set_status(g, which[k], status);
        }
        found = 0;
    }
}

void pgi_session_step_together(pg_session *const *sessions, int64_t n, int64_t *tokens, pg_status *statuses,
                               void (*on_error)(void *user, int64_t session), void *user) {
    const group_call g = {sessions, statuses, on_error, user};
    for (int64_t i = 0; i < n; i++)
        if (statuses[i] == PG_OK) get_ready(&g, i);
    advance_all(&g, n);
    for (int64_t i = 0; tokens && i < n; i++) {
        if (statuses[i] != PG_OK) continue;
        pgi_sampling greedy = greedy_of(sessions[i]);
        set_status(&g, i, sample(sessions[i], &greedy, &tokens[i]));
    }
}

pg_status pgi_session_feed(pg_session *session, const int64_t *ids, int64_t n_ids) {
    const int64_t vocab_size = session->model->config.text.vocab_size;
    PGI_TRY(check_state(session));
    if (n_ids == 0 && has_no_tokens_left(session)) return PG_OK; /* no logits follow */
    const int64_t left = session->decoding.max_tokens - session->decoding.n_returned;
    if (n_ids >= left) /* before any of them is read */
        return pgi_error(PG_ERROR_LIMIT,
                         "found %lld ids to feed, expected at most %lld: %lld new tokens are left, and the "
                         "last is not fed",
                         (long long)n_ids, (long long)pgi_max64(left - 1, 0), (long long)left);
    for (int64_t i = 0; i < n_ids; i++)
        if (ids[i] < 0 || ids[i] >= vocab_size)
            return pgi_error(PG_ERROR_ARGUMENT, "ids[%lld] is %lld, expected 0 to %lld", (long long)i,
                             (long long)ids[i], (long long)vocab_size - 1);
    PGI_TRY(catch_up(session));
    for (int64_t i = 0; i < n_ids; i++) {
        PGI_TRY(push(session, ids[i]));
        PGI_TRY(catch_up(session));
    }
    return PG_OK;
}
