/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Sessions, trainers and detokenizers serve one call at a time: what a callback or another thread does with one that is
 * in use is refused, changes nothing, and closing it then frees it when the call ends. */
#include "run_tests.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "tiny_fixture.h"

enum { N_TOKENS = 5 };

static int64_t expected[N_TOKENS];

static void take_tokens(pg_session *session, int64_t *tokens) {
    pg_sampling_options options;
    ok(pg_sampling_options_init(&options, sizeof options));
    options.flags = PG_SAMPLING_IGNORE_EOS;
    for (int i = 0; i < N_TOKENS; i++) ok(pg_session_sample(session, &options, &tokens[i]));
}

static int setup(void **state) {
    pg_session *session = NULL;
    open_tiny(state);
    ok(pg_session_create(model, NULL, &session));
    ok(pg_session_prefill(session, inputs, NULL));
    take_tokens(session, expected);
    pg_session_close(&session);
    return 0;
}

static void refused(pg_status status, const char *handle) {
    assert_int_equal(status, PG_ERROR_STATE);
    assert_null(bad_error(status));
    assert_non_null(strstr(pg_last_error(), handle));
    assert_non_null(strstr(pg_last_error(), "in use"));
}

/* Every call that takes a session. */
static void all_are_refused(pg_session *session) {
    int64_t token = -7;
    pg_tensor logits = {.struct_size = sizeof logits};
    refused(pg_session_prefill(session, inputs, NULL), "session");
    refused(pg_session_step(session, &token), "session");
    refused(pg_session_sample(session, NULL, &token), "session");
    refused(pg_session_feed(session, &token, 1), "session");
    refused(pg_session_get_logits(session, &logits), "session");
    assert_int_equal(token, -7);
    assert_null(logits.data);
}

typedef struct host {
    pg_session *session;
    int n_calls, closes;
    atomic_int is_inside, may_go_on;
} host;

static int32_t intrude(void *user, int32_t phase, int64_t done, int64_t total) {
    host *h = user;
    (void)phase, (void)done, (void)total;
    h->n_calls++;
    if (h->session) all_are_refused(h->session);
    if (h->closes) pg_session_close(&h->session);
    return 0;
}

static int32_t intrude_by_logits(void *user, int64_t row, const int64_t *ids, int64_t n_ids, float *logits,
                                 int64_t vocab_size) {
    (void)row, (void)ids, (void)n_ids, (void)logits, (void)vocab_size;
    return intrude(user, 0, 0, 0);
}

static void create(host *h, pg_progress_fn progress) {
    pg_session_options options;
    ok(pg_session_options_init(&options, sizeof options));
    options.progress = progress, options.progress_user = h;
    options.n_threads = 2;
    ok(pg_session_create(model, &options, &h->session));
}

static void a_callback_is_refused(void **state) {
    host h = {0}, of_logits = {0};
    int64_t tokens[N_TOKENS], token;
    pg_sampling_options sampling;
    (void)state;
    create(&h, intrude);
    ok(pg_session_prefill(h.session, inputs, NULL));
    take_tokens(h.session, tokens);
    assert_memory_equal(tokens, expected, sizeof tokens); /* as without the intruder */
    assert_true(h.n_calls > 5);
    ok(pg_sampling_options_init(&sampling, sizeof sampling));
    sampling.on_logits = intrude_by_logits, sampling.on_logits_user = &of_logits;
    of_logits.session = h.session;
    ok(pg_session_sample(h.session, &sampling, &token));
    assert_int_equal(of_logits.n_calls, 1);
    pg_session_close(&h.session);
}

/* The call goes on with what it has, and frees the session. */
static void a_callback_may_close_it(void **state) {
    counter memory;
    pg_model_options options;
    pg_model *own = NULL;
    host h = {.closes = 1};
    (void)state;
    counter_init(&memory);
    ok(pg_model_options_init(&options, sizeof options));
    options.allocator = &memory.hooks;
    ok(pg_model_open(folder, &options, &own));
    const long long before = memory.n_live;
    pg_session_options of_session;
    ok(pg_session_options_init(&of_session, sizeof of_session));
    of_session.progress = intrude, of_session.progress_user = &h;
    of_session.n_threads = 2;
    ok(pg_session_create(own, &of_session, &h.session));
    ok(pg_session_prefill(h.session, inputs, NULL));
    assert_null(h.session);
    assert_true(h.n_calls > 1);
    assert_int_equal(memory.n_live, before);
    pg_model_close(&own);
    assert_true(counter_clean(&memory));
}

/* ---- another thread ---- */

/* Relaxed: what the library must order by itself is not ordered by the test, so that ThreadSanitizer sees it. */
static void set(atomic_int *flag) { atomic_store_explicit(flag, 1, memory_order_relaxed); }
static void wait_for(const atomic_int *flag) {
    while (!atomic_load_explicit(flag, memory_order_relaxed)) { /* the other thread is quick */
    }
}

static int32_t wait_inside(void *user, int32_t phase, int64_t done, int64_t total) {
    host *h = user;
    (void)phase, (void)done, (void)total;
    set(&h->is_inside);
    wait_for(&h->may_go_on);
    return 0;
}

static void *prefill(void *user) {
    host *h = user;
    return pg_session_prefill(h->session, inputs, NULL) == PG_OK ? NULL : user;
}

static void another_thread_is_refused(void **state) {
    host h = {0};
    pthread_t thread;
    void *failed;
    int64_t tokens[N_TOKENS];
    (void)state;
    create(&h, wait_inside);
    assert_int_equal(pthread_create(&thread, NULL, prefill, &h), 0);
    wait_for(&h.is_inside);
    all_are_refused(h.session);
    set(&h.may_go_on);
    assert_int_equal(pthread_join(thread, &failed), 0);
    assert_null(failed);
    take_tokens(h.session, tokens);
    assert_memory_equal(tokens, expected, sizeof tokens);
    pg_session_close(&h.session);
}

/* The thread's call frees it. */
static void another_thread_may_close_it(void **state) {
    host h = {0};
    pthread_t thread;
    void *failed;
    (void)state;
    create(&h, wait_inside);
    pg_session *closed = h.session;
    assert_int_equal(pthread_create(&thread, NULL, prefill, &h), 0);
    wait_for(&h.is_inside);
    pg_session_close(&closed);
    set(&h.may_go_on);
    assert_int_equal(pthread_join(thread, &failed), 0);
    assert_null(failed);
}

/* ---- trainers ---- */

typedef struct training {
    pg_trainer *trainer;
    pg_inputs *labelled;
    int n_calls, closes;
    atomic_int is_inside, may_go_on;
} training;

static void all_of_a_trainer_are_refused(pg_trainer *trainer, const pg_inputs *labelled) {
    pg_train_result result = {.struct_size = sizeof result, .loss = -7};
    pg_parameter parameter = {.struct_size = sizeof parameter};
    size_t n = 7;
    int64_t at = 7;
    refused(pg_trainer_step(trainer, labelled, &result), "trainer");
    refused(pg_trainer_evaluate(trainer, labelled, &result), "trainer");
    refused(pg_trainer_save(trainer, folder), "trainer");
    refused(pg_trainer_get_step(trainer, &at), "trainer");
    refused(pg_trainer_count_parameters(trainer, &n), "trainer");
    refused(pg_trainer_get_parameter(trainer, 0, &parameter), "trainer");
    assert_true(result.loss == -7 && n == 7 && at == 7 && !parameter.name);
}

static int32_t intrude_on_trainer(void *user, int32_t phase, int64_t done, int64_t total) {
    training *t = user;
    (void)phase, (void)done, (void)total;
    t->n_calls++;
    if (t->trainer) all_of_a_trainer_are_refused(t->trainer, t->labelled);
    if (t->closes) pg_trainer_close(&t->trainer);
    return 0;
}

static int32_t wait_inside_step(void *user, int32_t phase, int64_t done, int64_t total) {
    training *t = user;
    (void)phase, (void)done, (void)total;
    set(&t->is_inside);
    wait_for(&t->may_go_on);
    return 0;
}

static void create_trainer(const pg_model *of, training *t, pg_progress_fn progress) {
    static const uint8_t pixels[8 * 8 * 3] = {200, 100};
    static const char *const prompts[] = {"the"}, *const suffixes[] = {"cat"};
    pg_trainer_options options;
    pg_image image;
    pg_batch batch;
    ok(pg_batch_init(&batch, sizeof batch));
    ok(pg_image_from_pixels(&image, sizeof image, PG_IMAGE_RGB8, 8, 8, pixels, 0));
    batch.n_prompts = batch.n_suffixes = batch.n_images = 1;
    batch.prompts = prompts, batch.suffixes = suffixes, batch.images = &image;
    ok(pg_processor_encode_batch(processor, &batch, NULL, &t->labelled));
    ok(pg_trainer_options_init(&options, sizeof options));
    options.progress = progress, options.progress_user = t;
    options.n_threads = 2;
    ok(pg_trainer_create(of, &options, &t->trainer));
}

static double loss_of(pg_trainer *trainer, const pg_inputs *labelled) {
    pg_train_result result = {.struct_size = sizeof result};
    ok(pg_trainer_evaluate(trainer, labelled, &result));
    return result.loss;
}

static void a_callback_of_a_trainer(void **state) {
    counter memory;
    pg_model_options options;
    pg_model *own = NULL;
    training plain = {0}, t = {0}, closing = {.closes = 1};
    (void)state;
    create_trainer(model, &plain, NULL);
    create_trainer(model, &t, intrude_on_trainer);
    ok(pg_trainer_step(plain.trainer, plain.labelled, NULL));
    ok(pg_trainer_step(t.trainer, t.labelled, NULL));
    assert_true(t.n_calls > 3);
    assert_true(loss_of(t.trainer, t.labelled) == loss_of(plain.trainer, plain.labelled)); /* as without the intruder */
    counter_init(&memory);
    ok(pg_model_options_init(&options, sizeof options));
    options.allocator = &memory.hooks;
    ok(pg_model_open(folder, &options, &own));
    const long long before = memory.n_live;
    create_trainer(own, &closing, intrude_on_trainer);
    ok(pg_trainer_step(closing.trainer, closing.labelled, NULL));
    assert_null(closing.trainer);
    assert_true(closing.n_calls > 3);
    assert_int_equal(memory.n_live, before);
    pg_model_close(&own);
    assert_true(counter_clean(&memory));
    pg_trainer_close(&t.trainer);
    pg_trainer_close(&plain.trainer);
    pg_inputs_close(&t.labelled);
    pg_inputs_close(&plain.labelled);
    pg_inputs_close(&closing.labelled);
}

static void *train_step(void *user) {
    training *t = user;
    return pg_trainer_step(t->trainer, t->labelled, NULL) == PG_OK ? NULL : user;
}

/* Refused, and then closed by this thread: the other's call frees it. */
static void another_thread_of_a_trainer(void **state) {
    (void)state;
    for (int closes = 0; closes < 2; closes++) {
        training t = {0};
        pthread_t thread;
        void *failed;
        create_trainer(model, &t, wait_inside_step);
        pg_trainer *known = t.trainer;
        assert_int_equal(pthread_create(&thread, NULL, train_step, &t), 0);
        wait_for(&t.is_inside);
        all_of_a_trainer_are_refused(known, t.labelled);
        if (closes) pg_trainer_close(&known);
        set(&t.may_go_on);
        assert_int_equal(pthread_join(thread, &failed), 0);
        assert_null(failed);
        if (!closes) assert_true(isfinite(loss_of(t.trainer, t.labelled)));
        if (!closes) pg_trainer_close(&t.trainer);
        pg_inputs_close(&t.labelled);
    }
}

/* ---- detokenizers: the allocator is their only callback ---- */

typedef struct intruder {
    counter memory;
    pg_allocator hooks;
    pg_detokenizer *detokenizer;
    int n_calls, closes;
} intruder;

static void *intruding_alloc(void *user, size_t size, size_t alignment) {
    intruder *i = user;
    const char *text = NULL;
    if (i->detokenizer) {
        i->n_calls++;
        refused(pg_detokenizer_push(i->detokenizer, 5, &text, NULL), "detokenizer");
        refused(pg_detokenizer_flush(i->detokenizer, &text, NULL), "detokenizer");
        assert_null(text);
        if (i->closes) pg_detokenizer_close(&i->detokenizer);
    }
    return i->memory.hooks.alloc(i->memory.hooks.user, size, alignment);
}

static void plain_free(void *user, void *block) {
    intruder *i = user;
    i->memory.hooks.free(i->memory.hooks.user, block);
}

static void detokenizers(void **state) {
    (void)state;
    for (int closes = 0; closes < 2; closes++) {
        intruder in = {.closes = closes};
        pg_processor_options options;
        pg_processor *own = NULL;
        int64_t id;
        counter_init(&in.memory);
        in.hooks =
            (pg_allocator){.struct_size = sizeof in.hooks, .user = &in, .alloc = intruding_alloc, .free = plain_free};
        ok(pg_processor_options_init(&options, sizeof options));
        options.allocator = &in.hooks;
        ok(pg_processor_open(folder, &options, &own));
        ok(pg_processor_get_token_id(own, "<0xE4>", &id));
        pg_detokenizer *detokenizer = NULL;
        ok(pg_detokenizer_create(own, 0, &detokenizer));
        in.detokenizer = detokenizer;
        pg_status status = PG_OK;
        const char *text = NULL;
        for (int i = 0; i < 5000 && status == PG_OK; i++) status = pg_detokenizer_push(detokenizer, id, &text, NULL);
        assert_true(in.n_calls > 0); /* a run of bytes that is longer than what was reserved */
        if (closes) {
            assert_int_equal(status, PG_ERROR_STATE);
            assert_null(bad_error(status));
        } else {
            ok(status);
            in.detokenizer = NULL;
            pg_detokenizer_close(&detokenizer);
        }
        pg_processor_close(&own);
        assert_true(counter_clean(&in.memory));
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_callback_is_refused),
        cmocka_unit_test(a_callback_may_close_it),
        cmocka_unit_test(another_thread_is_refused),
        cmocka_unit_test(another_thread_may_close_it),
        cmocka_unit_test(a_callback_of_a_trainer),
        cmocka_unit_test(another_thread_of_a_trainer),
        cmocka_unit_test(detokenizers),
    };
    return RUN_TESTS(tests, setup, close_tiny);
}
