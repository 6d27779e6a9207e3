/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Sequences of calls from three threads at once, legal and illegal ones: in any order, with handles that are not there,
 * while another thread cancels, or closes its reference to what is in use. Each thread has handles of its own, and all
 * share a model, a processor, features, a cancel flag, and against the rules a session and a detokenizer. A byte is a
 * call, the next is what it is given; the threads take pairs by turns.
 */
#include <pthread.h>

#include "fuzz.h"

enum { N_THREADS = 3, MAX_CALLS = 16 };

static pg_cancel *cancel;
static pg_features *shared_features;
static pg_session *shared_session;
static pg_detokenizer *shared_detokenizer;

typedef struct actor {
    pthread_t thread;
    fuzz_input in; /* its calls are every third pair */
    pg_model *model;
    pg_processor *processor;
    pg_inputs *inputs;
    pg_features *features;
    pg_session *session;
    pg_result *result;
    pg_outputs *outputs;
    pg_scores *scores;
    pg_answer *answer;
    pg_detokenizer *detokenizer;
} actor;

static const pg_model *model_of(const actor *a) { return a->model ? a->model : fuzz_model(FUZZ_OFFICIAL); }
static const pg_processor *processor_of(const actor *a) {
    return a->processor ? a->processor : fuzz_processor(FUZZ_OFFICIAL);
}

/* An output that holds a handle is the host's to close first, as the header says. */
static void open_something(actor *a, int call, int what) {
    pg_model_options model_options;
    pg_session_options session_options;
    pg_run_options run;
    static const uint8_t grey[8 * 8];
    pg_image image;
    switch (call) {
        case 0:
            pg_model_close(&a->model);
            pg_model_options_init(&model_options, sizeof model_options);
            model_options.allocator = fuzz_allocator();
            model_options.n_threads = 1;
            model_options.weights = what % 3;
            model_options.cancel = what & 8 ? cancel : NULL;
            MADE(pg_model_open(fuzz_folder(FUZZ_OFFICIAL), &model_options, &a->model), a->model);
            break;
        case 1:
            pg_processor_close(&a->processor);
            MADE(pg_processor_open(fuzz_folder(what & 1 ? FUZZ_TODAY : FUZZ_OFFICIAL), NULL, &a->processor),
                 a->processor);
            break;
        case 2:
            pg_inputs_close(&a->inputs);
            pg_image_from_pixels(&image, sizeof image, PG_IMAGE_GRAY8, 8, 8, grey, 0);
            MADE(pg_processor_encode(processor_of(a), what & 1 ? &image : NULL, what & 2 ? "the cat" : "<image>", NULL,
                                     &a->inputs),
                 a->inputs);
            break;
        case 3:
            pg_features_close(&a->features);
            pg_run_options_init(&run, sizeof run);
            run.n_threads = 1 + what % 2;
            run.cancel = what & 8 ? cancel : NULL;
            MADE(pg_features_create(model_of(a), a->inputs, &run, &a->features), a->features);
            break;
        case 4:
            pg_session_close(&a->session);
            pg_session_options_init(&session_options, sizeof session_options);
            session_options.n_threads = 1 + what % 3;
            session_options.max_new_tokens = 1 + what / 4 % 8;
            session_options.cancel = what & 32 ? cancel : NULL;
            MADE(pg_session_create(model_of(a), &session_options, &a->session), a->session);
            break;
        default:
            pg_detokenizer_close(&a->detokenizer);
            MADE(pg_detokenizer_create(processor_of(a), what & 1, &a->detokenizer), a->detokenizer);
            break;
    }
}

static const pg_features *some_features(const actor *a, int what) {
    return what & 1 ? a->features : what & 2 ? shared_features : NULL;
}

static void run_something(actor *a, int call, int what) {
    pg_generate_options options;
    pg_forward_options forward;
    pg_score_options score;
    switch (call) {
        case 0:
            pg_result_close(&a->result);
            pg_generate_options_init(&options, sizeof options);
            options.n_threads = 1 + what % 3;
            options.max_new_tokens = 1 + what % 5;
            options.features = some_features(a, what >> 2);
            options.cancel = what & 64 ? cancel : NULL;
            MADE(pg_generate(model_of(a), processor_of(a), a->inputs, &options, &a->result), a->result);
            break;
        case 1:
            pg_outputs_close(&a->outputs);
            pg_forward_options_init(&forward, sizeof forward);
            forward.n_threads = 1 + what % 2;
            forward.features = some_features(a, what >> 2);
            forward.cancel = what & 64 ? cancel : NULL;
            MADE(pg_forward(model_of(a), a->inputs, &forward, &a->outputs), a->outputs);
            break;
        case 2:
            pg_scores_close(&a->scores);
            pg_score_options_init(&score, sizeof score);
            score.n_threads = 1 + what % 2;
            score.cancel = what & 64 ? cancel : NULL;
            MADE(pg_score(model_of(a), processor_of(a), a->inputs, (const char *const[]){"cat", ""}, what % 3, &score,
                          &a->scores),
                 a->scores);
            break;
        default: {
            pg_answer_options answer;
            pg_answer_options_init(&answer, sizeof answer);
            answer.width = answer.height = what;
            pg_answer_close(&a->answer);
            MADE(pg_answer_create(processor_of(a), a->result, what % 3 - 1, &answer, &a->answer), a->answer);
        }
    }
}

/* One that several threads use at once says PG_ERROR_STATE to all but the first. */
static pg_session *some_session(const actor *a, int what) { return what & 128 ? shared_session : a->session; }

static pg_detokenizer *some_detokenizer(const actor *a, int what) {
    return what & 128 ? shared_detokenizer : a->detokenizer;
}

static void step_something(actor *a, int call, int what) {
    pg_sampling_options sampling;
    pg_tensor tensor = {.struct_size = sizeof tensor};
    const char *text = "";
    size_t size;
    int64_t token = what * 3 - 1;
    switch (call) {
        case 0: OK(pg_session_prefill(some_session(a, what), a->inputs, some_features(a, what))); break;
        case 1: OK(pg_session_step(some_session(a, what), &token)); break;
        case 2:
            pg_sampling_options_init(&sampling, sizeof sampling);
            sampling.flags = what & 4;
            OK(pg_session_sample(some_session(a, what), what & 1 ? &sampling : NULL, &token));
            break;
        case 3: OK(pg_session_feed(some_session(a, what), &token, what & 1)); break;
        case 4: OK(pg_session_get_logits(some_session(a, what), &tensor)); break;
        case 5: OK(pg_detokenizer_push(some_detokenizer(a, what), token, &text, &size)); break;
        case 6: OK(pg_detokenizer_flush(some_detokenizer(a, what), &text, &size)); break;
        case 7: OK(pg_result_get_tensor(a->result, what - 1, what & 1 ? "ids" : "logits", &tensor)); break;
        case 8: OK(pg_outputs_get_tensor(a->outputs, what & 1 ? "logits" : "loss", &tensor)); break;
        default: OK(pg_inputs_get_tensor(a->inputs, what & 1 ? "input_ids" : "pixel_values", &tensor)); break;
    }
}

static void close_something(actor *a, int call) {
    switch (call) {
        case 0: pg_model_close(&a->model); break;
        case 1: pg_processor_close(&a->processor); break;
        case 2: pg_inputs_close(&a->inputs); break;
        case 3: pg_features_close(&a->features); break;
        case 4: pg_session_close(&a->session); break;
        case 5: pg_result_close(&a->result); break;
        case 6: pg_outputs_close(&a->outputs); break;
        case 7: pg_scores_close(&a->scores); break;
        case 8: pg_answer_close(&a->answer); break;
        default: pg_detokenizer_close(&a->detokenizer); break;
    }
}

static void *act(void *user) {
    actor *a = user;
    for (int n = 0; a->in.size && n < MAX_CALLS; n++) {
        const int call = (int)fuzz_take(&a->in, 1), what = (int)fuzz_take(&a->in, 1);
        fuzz_take(&a->in, 2 * (N_THREADS - 1)); /* the others' */
        if (call < 64)
            open_something(a, call % 6, what);
        else if (call < 128)
            run_something(a, call % 4, what);
        else if (call < 208)
            step_something(a, call % 10, what);
        else if (call < 248)
            close_something(a, call % 10);
        else if (what & 1)
            pg_cancel_request(cancel);
        else
            pg_cancel_clear(cancel);
    }
    for (int i = 0; i < 10; i++) close_something(a, i);
    return NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    actor actors[N_THREADS] = {0};
    fuzz_allocator(); /* and all else that is made once, before the threads */
    fuzz_folder(FUZZ_OFFICIAL);
    fuzz_folder(FUZZ_TODAY);
    fuzz_processor(FUZZ_OFFICIAL);
    if (!MADE(pg_features_create(fuzz_model(FUZZ_OFFICIAL), fuzz_inputs(FUZZ_OFFICIAL), NULL, &shared_features),
              shared_features) ||
        !MADE(pg_cancel_create(&cancel), cancel))
        abort();
    pg_session_options options;
    pg_session_options_init(&options, sizeof options);
    options.n_threads = 1;
    options.max_new_tokens = 8;
    if (!MADE(pg_session_create(fuzz_model(FUZZ_OFFICIAL), &options, &shared_session), shared_session) ||
        !MADE(pg_detokenizer_create(fuzz_processor(FUZZ_OFFICIAL), 0, &shared_detokenizer), shared_detokenizer))
        abort();
    for (size_t i = 0; i < N_THREADS; i++) {
        const size_t skip = 2 * i < size ? 2 * i : size;
        actors[i].in = (fuzz_input){data + skip, size - skip};
        if (pthread_create(&actors[i].thread, NULL, act, &actors[i]) != 0) abort();
    }
    for (size_t i = 0; i < N_THREADS; i++) pthread_join(actors[i].thread, NULL);
    pg_session_close(&shared_session);
    pg_detokenizer_close(&shared_detokenizer);
    pg_features_close(&shared_features);
    pg_cancel_close(&cancel);
    return fuzz_end();
}
