/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Sixteen threads at once: sessions on one model, every public call on shared handles, a flag that is set and cleared
 * from elsewhere, handles closed while others use them, one session and one detokenizer for all. Each thread must get
 * what it gets alone.
 *
 * With -Db_sanitize=thread this is where races of the library show (docs/TESTING.md). So the threads tell each other
 * things by relaxed atomics: a mutex here would order, for the sanitizer too, what the library itself does not order.
 */
#include "run_tests.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fault_calls.h"

enum { N_THREADS = 16, N_TOKENS = 4, ROUNDS = 3 };

static fault_world world; /* of a test */
static int64_t expected[N_TOKENS];
static bytes expected_logits; /* after them */

typedef struct worker worker;
struct worker {
    void (*run)(worker *w);
    void *shared;
    int number; /* 0 to N_THREADS - 1 */
    pthread_barrier_t *start;
    pthread_t thread;
    char why[300]; /* empty: all went well */
};

/* cmocka's assertions are for the main thread. */
#define FAIL(w, ...)                                                          \
    do {                                                                      \
        if (!(w)->why[0]) snprintf((w)->why, sizeof(w)->why, "" __VA_ARGS__); \
    } while (0)
#define TRY(w, call)                                                                                    \
    do {                                                                                                \
        const pg_status status_ = (call);                                                               \
        if (status_ < 0) FAIL(w, "%.60s: %s: %.150s", #call, pg_status_name(status_), pg_last_error()); \
    } while (0)

static int get(const atomic_int *flag) { return atomic_load_explicit(flag, memory_order_relaxed); }
static void rest(void) { nanosleep(&(struct timespec){0, 50000}, NULL); }
static void add(atomic_int *flag, int n) { atomic_fetch_add_explicit(flag, n, memory_order_relaxed); }

static void *begin(void *user) {
    worker *w = user;
    pthread_barrier_wait(w->start);
    w->run(w);
    return NULL;
}

/* Even threads run run[0], odd ones run[1]; meanwhile() is called on this one, NULL: nothing. */
static void all_together(void (*const run[2])(worker *w), void *shared, void (*meanwhile)(void *shared)) {
    static worker workers[N_THREADS];
    pthread_barrier_t start;
    assert_int_equal(pthread_barrier_init(&start, NULL, N_THREADS), 0);
    for (int i = 0; i < N_THREADS; i++) {
        workers[i] = (worker){.run = run[i % 2], .shared = shared, .number = i, .start = &start};
        assert_int_equal(pthread_create(&workers[i].thread, NULL, begin, &workers[i]), 0);
    }
    if (meanwhile) meanwhile(shared);
    for (int i = 0; i < N_THREADS; i++) pthread_join(workers[i].thread, NULL);
    pthread_barrier_destroy(&start);
    for (int i = 0; i < N_THREADS; i++)
        if (workers[i].why[0]) fail_msg("thread %d: %s", i, workers[i].why);
}

static void all_do(void (*run)(worker *w), void *shared) {
    all_together((void (*const[2])(worker *)){run, run}, shared, NULL);
}

/* Each test has a world of its own, and leaves nothing of it. */
static int open_world(void **state) {
    (void)state;
    fault_world_open(&world);
    return 0;
}

static int close_world(void **state) {
    (void)state;
    fault_world_close(&world);
    return counter_clean(&fault_memory) ? 0 : -1;
}

/* ---- a session of a thread ---- */

static pg_session *create(worker *w, const pg_model *model, const pg_session_options *given) {
    pg_session_options options;
    pg_session *session = NULL;
    pg_session_options_init(&options, sizeof options);
    if (given) options = *given;
    options.n_threads = 1 + w->number % 3;
    TRY(w, pg_session_create(model, &options, &session));
    return session;
}

static pg_sampling_options endless(void) {
    pg_sampling_options options;
    pg_sampling_options_init(&options, sizeof options);
    options.flags = PG_SAMPLING_IGNORE_EOS;
    return options;
}

/* Takes tokens after a prefill. An error of the session is returned; what is not as expected is in `why`. */
static pg_status compare_steps(worker *w, pg_session *session) {
    const pg_sampling_options sampling = endless();
    pg_tensor logits = {.struct_size = sizeof logits};
    int64_t token = -1;
    for (int i = 0; i < N_TOKENS; i++) {
        const pg_status status = pg_session_sample(session, &sampling, &token);
        if (status < 0) return status;
        if (token != expected[i]) FAIL(w, "token %d is %lld", i, (long long)token);
    }
    TRY(w, pg_session_get_logits(session, &logits));
    if (!logits.data || memcmp(logits.data, expected_logits.data, expected_logits.size) != 0) FAIL(w, "other logits");
    return PG_OK;
}

static int setup(void **state) {
    const pg_sampling_options sampling = endless();
    pg_tensor logits = {.struct_size = sizeof logits};
    fault_files_make();
    open_world(state);
    assert_int_equal(pg_session_prefill(world.session, world.inputs, NULL), PG_OK);
    for (int i = 0; i < N_TOKENS; i++)
        assert_int_equal(pg_session_sample(world.session, &sampling, &expected[i]), PG_OK);
    assert_int_equal(pg_session_get_logits(world.session, &logits), PG_OK);
    bytes_add(&expected_logits, logits.data, (size_t)logits.shape[0] * sizeof(float));
    return close_world(state);
}

static int teardown(void **state) {
    (void)state;
    bytes_free(&expected_logits);
    fault_files_remove();
    return 0;
}

/* ---- sixteen sessions ---- */

static void fail_in_own_words(worker *w) {
    pg_model *none = NULL;
    char path[64];
    snprintf(path, sizeof path, "/nonexistent/of-thread-%d-alone", w->number);
    if (pg_model_open(path, NULL, &none) >= 0 || none || !strstr(pg_last_error(), path))
        FAIL(w, "the error is %.200s", pg_last_error());
}

static void run_sessions(worker *w) {
    for (int round = 0; round < ROUNDS; round++) {
        pg_session *session = create(w, world.model, NULL);
        const int has_features = (w->number + round) % 2;
        TRY(w, pg_session_prefill(session, world.inputs, has_features ? world.features : NULL));
        fail_in_own_words(w);
        TRY(w, compare_steps(w, session));
        pg_session_close(&session);
    }
}

static void sessions_on_one_model(void **state) {
    (void)state;
    all_do(run_sessions, NULL);
}

/* ---- every call ---- */

typedef struct readable {
    pg_outputs *outputs;
    pg_scores *scores;
    pg_answer *answer;
    uint64_t sum; /* of what is read */
} readable;

static uint64_t add_bytes(uint64_t sum, const void *data, size_t size) {
    for (size_t i = 0; i < size; i++) sum = (sum ^ ((const uint8_t *)data)[i]) * 0x100000001B3;
    return sum;
}

static uint64_t add_tensor(uint64_t sum, const pg_tensor *tensor) {
    size_t n = tensor->dtype == PG_DTYPE_I64 ? 8 : 4;
    for (int i = 0; i < tensor->n_dims; i++) n *= (size_t)tensor->shape[i];
    return add_bytes(sum, tensor->data, n);
}

/* All that can be read of the handles that are read-only. */
static uint64_t read_all(worker *w, const readable *r) {
    static const char *const of_inputs[] = {"input_ids",    "attention_mask", "token_type_ids",
                                            "position_ids", "labels",         "pixel_values"};
    static const char *const of_result[] = {"ids", "log_probs", "score_log_probs"};
    static const char *const of_outputs[] = {"logits", "hidden_states", "attentions", "image_hidden_states"};
    pg_tensor t = {.struct_size = sizeof t};
    pg_object object = {.struct_size = sizeof object};
    pg_score_info info = {.struct_size = sizeof info};
    uint64_t sum = 0;
    for (size_t i = 0; i < sizeof of_inputs / sizeof *of_inputs; i++) {
        TRY(w, pg_inputs_get_tensor(world.inputs, of_inputs[i], &t));
        sum = add_tensor(sum, &t);
    }
    for (size_t i = 0; i < sizeof of_result / sizeof *of_result; i++) {
        TRY(w, pg_result_get_tensor(world.result, 0, of_result[i], &t));
        sum = add_tensor(sum, &t);
    }
    for (size_t i = 0; i < sizeof of_outputs / sizeof *of_outputs; i++) {
        TRY(w, pg_outputs_get_tensor(r->outputs, of_outputs[i], &t));
        sum = add_tensor(sum, &t);
    }
    TRY(w, pg_features_get_tensor(world.features, &t));
    sum = add_tensor(sum, &t);
    TRY(w, pg_scores_get_tensor(r->scores, 1, "log_probs", &t));
    sum = add_tensor(sum, &t);
    TRY(w, pg_scores_get_info(r->scores, 0, &info));
    TRY(w, pg_answer_get_object(r->answer, 0, &object));
    if (!object.label) return 0;
    sum = add_bytes(sum, object.label, (size_t)object.label_size);
    sum = add_bytes(sum, &info.log_prob, sizeof info.log_prob);
    return add_bytes(sum, pg_result_get_text(world.result, 0), strlen(pg_result_get_text(world.result, 0)));
}

static void call_everything(worker *w) {
    const readable *r = w->shared;
    fault_world mine = world;
    mine.session = create(w, world.model, NULL);
    for (size_t i = 0; i < n_fault_calls && !w->why[0]; i++) {
        const fault_call *call = &fault_calls[(i + 5 * (size_t)w->number) % n_fault_calls];
        const pg_status status = call->run(&mine);
        if (status < 0) FAIL(w, "%s: %s: %.200s", call->name, pg_status_name(status), pg_last_error());
        if (read_all(w, r) != r->sum) FAIL(w, "something else is read");
    }
    pg_session_close(&mine.session);
}

static void every_call_on_shared_handles(void **state) {
    static const char text[] = "<loc0256><loc0512><loc0768><loc1023> cat";
    readable r = {0};
    worker reader = {0};
    pg_answer_options answer;
    pg_forward_options forward;
    (void)state;
    pg_answer_options_init(&answer, sizeof answer);
    answer.width = answer.height = 20;
    answer.allocator = &fault_memory.hooks;
    pg_forward_options_init(&forward, sizeof forward);
    forward.flags = PG_FORWARD_ATTENTIONS | PG_FORWARD_HIDDEN_STATES;
    assert_int_equal(pg_forward(world.model, world.inputs, &forward, &r.outputs), PG_OK);
    assert_int_equal(pg_score(world.model, world.processor, world.inputs, (const char *const[]){"cat", "the dog"}, 2,
                              NULL, &r.scores),
                     PG_OK);
    assert_int_equal(pg_answer_create_from_text(text, sizeof text - 1, &answer, &r.answer), PG_OK);
    r.sum = read_all(&reader, &r);
    assert_string_equal(reader.why, "");
    assert_true(r.sum != 0);
    all_do(call_everything, &r);
    pg_answer_close(&r.answer);
    pg_scores_close(&r.scores);
    pg_outputs_close(&r.outputs);
}

/* ---- a flag from elsewhere ---- */

typedef struct flagged {
    pg_cancel *cancel;
    atomic_int n_computing, n_cancelled;
} flagged;

static void set_and_clear(worker *w) {
    flagged *f = w->shared;
    pg_cancel_request(f->cancel);
    while (get(&f->n_computing) && !get(&f->n_cancelled)) rest();
    while (get(&f->n_computing)) {
        pg_cancel_clear(f->cancel);
        rest();
        pg_cancel_request(f->cancel);
    }
}

/* Whether the call went through. */
static int went_through(worker *w, pg_status status) {
    flagged *f = w->shared;
    if (status == PG_ERROR_CANCELLED) add(&f->n_cancelled, 1);
    if (status < 0 && status != PG_ERROR_CANCELLED) FAIL(w, "%s: %s", pg_status_name(status), pg_last_error());
    return status >= 0;
}

static void compute_flagged(worker *w) {
    flagged *f = w->shared;
    pg_session_options session_options;
    pg_generate_options options;
    pg_run_options run;
    pg_session_options_init(&session_options, sizeof session_options);
    pg_generate_options_init(&options, sizeof options);
    pg_run_options_init(&run, sizeof run);
    session_options.cancel = options.cancel = run.cancel = f->cancel;
    options.n_threads = run.n_threads = 2;
    options.max_new_tokens = N_TOKENS;
    pg_session *session = create(w, world.model, &session_options);
    for (int i = 0; i < 10; i++) {
        int64_t token;
        pg_result *result = NULL;
        pg_features *features = NULL;
        const pg_status generated = pg_generate(world.model, world.processor, world.inputs, &options, &result);
        if (went_through(w, generated) != (result != NULL)) FAIL(w, "a result and an error, or neither");
        pg_result_close(&result);
        went_through(w, pg_features_create(world.model, world.inputs, &run, &features));
        if (went_through(w, pg_session_prefill(session, world.inputs, features)))
            went_through(w, compare_steps(w, session));
        else if (pg_session_step(session, &token) != PG_ERROR_STATE)
            FAIL(w, "a session steps on after it was cancelled");
        pg_features_close(&features);
    }
    pg_session_close(&session);
    add(&f->n_computing, -1);
}

static void a_flag_is_set_and_cleared_meanwhile(void **state) {
    flagged f = {.n_computing = N_THREADS / 2};
    (void)state;
    assert_int_equal(pg_cancel_create(&f.cancel), PG_OK);
    all_together((void (*const[2])(worker *)){compute_flagged, set_and_clear}, &f, NULL);
    assert_true(f.n_cancelled > 0);
    pg_cancel_close(&f.cancel);
}

/* ---- closing ---- */

typedef struct closing {
    fault_world handles; /* as the threads know them */
    pg_cancel *cancel, *known_cancel;
    atomic_int n_inside, may_go_on;
} closing;

typedef struct insider {
    closing *c;
    int is_inside;
} insider;

static int32_t wait_for_closing(void *user, int32_t phase, int64_t done, int64_t total) {
    insider *i = user;
    (void)phase, (void)done, (void)total;
    if (!i->is_inside) add(&i->c->n_inside, 1);
    i->is_inside = 1;
    while (!get(&i->c->may_go_on)) rest();
    return 0;
}

static void close_all(void *user) {
    closing *c = user;
    while (get(&c->n_inside) < N_THREADS) rest();
    fault_world_close(&world);
    pg_cancel_close(&c->cancel);
    add(&c->may_go_on, 1);
}

static void generate_meanwhile(worker *w, const closing *c, insider *in) {
    pg_generate_options options;
    pg_result *result = NULL;
    pg_tensor ids = {.struct_size = sizeof ids};
    pg_generate_options_init(&options, sizeof options);
    options.n_threads = 2;
    options.max_new_tokens = N_TOKENS;
    options.cancel = c->known_cancel;
    options.progress = wait_for_closing, options.progress_user = in;
    TRY(w, pg_generate(c->handles.model, c->handles.processor, c->handles.inputs, &options, &result));
    TRY(w, pg_result_get_ids(result, 0, &ids));
    if (ids.data && *(const int64_t *)ids.data != expected[0]) FAIL(w, "another token");
    if (!*pg_result_get_text(result, 0)) FAIL(w, "no text");
    pg_result_close(&result);
}

static void forward_meanwhile(worker *w, const closing *c, insider *in) {
    pg_forward_options options;
    pg_outputs *outputs = NULL;
    pg_tensor logits = {.struct_size = sizeof logits};
    pg_forward_options_init(&options, sizeof options);
    options.n_threads = 2;
    options.cancel = c->known_cancel;
    options.progress = wait_for_closing, options.progress_user = in;
    TRY(w, pg_forward(c->handles.model, c->handles.inputs, &options, &outputs));
    TRY(w, pg_outputs_get_tensor(outputs, "logits", &logits));
    pg_outputs_close(&outputs);
}

static void score_meanwhile(worker *w, const closing *c, insider *in) {
    pg_score_options options;
    pg_scores *scores = NULL;
    pg_score_info info = {.struct_size = sizeof info};
    pg_score_options_init(&options, sizeof options);
    options.n_threads = 2;
    options.cancel = c->known_cancel;
    options.features = c->handles.features;
    options.progress = wait_for_closing, options.progress_user = in;
    TRY(w, pg_score(c->handles.model, c->handles.processor, c->handles.inputs, (const char *const[]){"cat", "in"}, 2,
                    &options, &scores));
    TRY(w, pg_scores_get_info(scores, 1, &info));
    pg_scores_close(&scores);
}

static void encode_image_meanwhile(worker *w, const closing *c, insider *in) {
    pg_run_options options;
    pg_features *features = NULL;
    pg_tensor tensor = {.struct_size = sizeof tensor};
    pg_run_options_init(&options, sizeof options);
    options.n_threads = 2;
    options.cancel = c->known_cancel;
    options.progress = wait_for_closing, options.progress_user = in;
    TRY(w, pg_features_create(c->handles.model, c->handles.inputs, &options, &features));
    TRY(w, pg_features_get_tensor(features, &tensor));
    pg_features_close(&features);
}

static void step_meanwhile(worker *w, const closing *c, insider *in) {
    pg_session_options options;
    pg_session_options_init(&options, sizeof options);
    options.cancel = c->known_cancel;
    options.progress = wait_for_closing, options.progress_user = in;
    pg_session *session = create(w, c->handles.model, &options);
    TRY(w, pg_session_prefill(session, c->handles.inputs, c->handles.features));
    TRY(w, compare_steps(w, session)); /* on a model that is closed long since */
    pg_session_close(&session);
}

static void use_meanwhile(worker *w) {
    static void (*const uses[])(worker * w, const closing *c, insider *in) = {
        generate_meanwhile, forward_meanwhile, score_meanwhile, encode_image_meanwhile, step_meanwhile};
    closing *c = w->shared;
    insider in = {.c = c};
    uses[w->number % 5](w, c, &in);
    if (!in.is_inside) {
        add(&c->n_inside, 1); /* the others are not to wait for this one */
        FAIL(w, "no progress was told");
    }
}

static void others_use_what_is_closed(void **state) {
    closing c = {.handles = world};
    (void)state;
    assert_int_equal(pg_cancel_create(&c.cancel), PG_OK);
    c.known_cancel = c.cancel;
    all_together((void (*const[2])(worker *)){use_meanwhile, use_meanwhile}, &c, close_all);
}

/* ---- one for all ---- */

enum { TRIES = 20, MOST_TAKEN = N_THREADS * TRIES };

typedef struct contested {
    pg_session *session;
    pg_detokenizer *detokenizer;
    atomic_int n_refused, n_ids, n_texts;
    int64_t ids[MOST_TAKEN]; /* each once, in any order */
} contested;

/* The first token is not given before another thread was refused. */
static int32_t wait_for_refusal(void *user, int64_t row, const int64_t *ids, int64_t n_ids, float *logits,
                                int64_t vocab_size) {
    const contested *c = user;
    (void)row, (void)ids, (void)n_ids, (void)logits, (void)vocab_size;
    while (!get(&c->n_refused)) rest();
    return 0;
}

static int is_taken(worker *w, pg_status status) {
    contested *c = w->shared;
    if (status == PG_ERROR_STATE)
        add(&c->n_refused, 1);
    else if (status != PG_OK)
        FAIL(w, "%s: %s", pg_status_name(status), pg_last_error());
    return status == PG_OK;
}

static void contend(worker *w) {
    contested *c = w->shared;
    pg_sampling_options sampling = endless();
    sampling.on_logits = wait_for_refusal, sampling.on_logits_user = c;
    for (int i = 0; i < TRIES; i++) {
        int64_t id = -1;
        const char *text = NULL;
        if (is_taken(w, pg_session_sample(c->session, &sampling, &id)))
            c->ids[atomic_fetch_add_explicit(&c->n_ids, 1, memory_order_relaxed)] = id;
        if (is_taken(w, pg_detokenizer_push(c->detokenizer, 5, &text, NULL))) add(&c->n_texts, 1);
    }
}

static int compare_ids(const void *a, const void *b) {
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void one_session_for_all(void **state) {
    static contested c;
    pg_session_options options;
    pg_session *alone = NULL;
    pg_sampling_options sampling = endless();
    int64_t ids[MOST_TAKEN];
    (void)state;
    pg_session_options_init(&options, sizeof options);
    options.n_threads = 2;
    options.max_new_tokens = MOST_TAKEN;
    assert_int_equal(pg_session_create(world.model, &options, &c.session), PG_OK);
    assert_int_equal(pg_session_create(world.model, &options, &alone), PG_OK);
    assert_int_equal(pg_detokenizer_create(world.processor, 0, &c.detokenizer), PG_OK);
    assert_int_equal(pg_session_prefill(c.session, world.inputs, NULL), PG_OK);
    assert_int_equal(pg_session_prefill(alone, world.inputs, NULL), PG_OK);
    all_do(contend, &c);
    assert_true(c.n_refused > 0 && c.n_ids > 0 && c.n_texts > 0);
    for (int i = 0; i < c.n_ids; i++) assert_int_equal(pg_session_sample(alone, &sampling, &ids[i]), PG_OK);
    qsort(ids, (size_t)c.n_ids, sizeof *ids, compare_ids);
    qsort(c.ids, (size_t)c.n_ids, sizeof *ids, compare_ids);
    assert_memory_equal(ids, c.ids, (size_t)c.n_ids * sizeof *ids);
    pg_detokenizer_close(&c.detokenizer);
    pg_session_close(&alone);
    pg_session_close(&c.session);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(sessions_on_one_model, open_world, close_world),
        cmocka_unit_test_setup_teardown(every_call_on_shared_handles, open_world, close_world),
        cmocka_unit_test_setup_teardown(a_flag_is_set_and_cleared_meanwhile, open_world, close_world),
        cmocka_unit_test_setup_teardown(others_use_what_is_closed, open_world, close_world),
        cmocka_unit_test_setup_teardown(one_session_for_all, open_world, close_world),
    };
    return RUN_TESTS(tests, setup, teardown);
}
