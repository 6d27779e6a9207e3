/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* How calls of pg_forward and pg_generate go: threads, progress, cancel, memory that fails, bad input. */
#include "run_tests.h"

#include <pthread.h>

#include "forward_fixture.h"
#include "generate/decoding.h"

/* -------------------------------------------------------------------------------- threads, progress, cancel, memory */

static void as_many_threads_as_you_like(void **state) {
    tiny_options options = tiny_saved_today();
    tiny m = {0};
    const row_spec rows[] = {{1, 4, 5, 1}, {0, 7, 3, 2}};
    (void)state;
    options.image_size = 32; /* 64 image tokens: enough for several tasks */
    open_tiny(&m, &options, NULL);
    batch b;
    make_batch(&b, &m, rows, 2, LEFT, 1);
    pg_outputs *one = forward(&m, &b, 0, PG_FORWARD_HIDDEN_STATES);
    pg_result *text = generate(&m, &b, 0, 1, NULL);
    for (int n = 2; n <= 4; n++) {
        pg_forward_options forward_options = options_of(PG_FORWARD_HIDDEN_STATES);
        pg_inputs *in = NULL;
        pg_outputs *many = NULL;
        forward_options.n_threads = n;
        OK(create(&b, &m, 0, NULL, &in));
        OK(pg_forward(m.model, in, &forward_options, &many));
        assert_memory_equal(logits_of(many, &b, &m), logits_of(one, &b, &m),
                            (size_t)(b.n_rows * b.n_tokens * m.info.vocab_size) * sizeof(float));
        assert_true(loss_of(many) == loss_of(one));
        pg_outputs_close(&many);
        pg_inputs_close(&in);
        pg_result *same = generate(&m, &b, 0, n, NULL);
        for (int r = 0; r < 2; r++) same_row(same, r, text, r);
        pg_result_close(&same);
    }
    pg_result_close(&text);
    pg_outputs_close(&one);
    free(b.pixels);
    pg_model_close(&m.model);
    pg_processor_close(&m.processor);
    remove_folder(m.folder);
}

static void *forward_again(void *user) {
    batch *b = user;
    pg_outputs *out[8];
    for (int k = 0; k < 8; k++) out[k] = forward(&models[1], b, 0, 0);
    for (int k = 1; k < 8; k++)
        if (memcmp(logits_of(out[0], b, &models[1]), logits_of(out[k], b, &models[1]),
                   (size_t)(b->n_rows * b->n_tokens * models[1].info.vocab_size) * sizeof(float)))
            return NULL;
    for (int k = 1; k < 8; k++) pg_outputs_close(&out[k]);
    return out[0];
}

static void two_callers_at_once(void **state) {
    pthread_t thread;
    void *theirs;
    batch b;
    (void)state;
    make_batch(&b, &models[1], specs, 4, LEFT, 0);
    assert_int_equal(pthread_create(&thread, NULL, forward_again, &b), 0);
    pg_outputs *ours = forward_again(&b);
    pthread_join(thread, &theirs);
    assert_true(ours && theirs);
    pg_outputs *other = theirs;
    assert_memory_equal(logits_of(ours, &b, &models[1]), logits_of(other, &b, &models[1]),
                        (size_t)(b.n_rows * b.n_tokens * models[1].info.vocab_size) * sizeof(float));
    pg_outputs_close(&ours);
    pg_outputs_close(&other);
    free(b.pixels);
}

typedef struct watch {
    int32_t phase;
    int64_t done, total;
    int n_calls, stop_at; /* the call of this number stops; 0: none */
} watch;

static int32_t watch_progress(void *user, int32_t phase, int64_t done, int64_t total) {
    watch *w = user;
    assert_true(phase > w->phase || (phase == w->phase && done >= w->done && total == w->total));
    assert_in_range(done, 0, total);
    w->phase = phase, w->done = done, w->total = total;
    return ++w->n_calls == w->stop_at;
}

static void progress_and_cancel(void **state) {
    const tiny *m = &models[1];
    pg_forward_options options = options_of(PG_FORWARD_NO_LOGITS);
    pg_generate_options generate_options;
    pg_inputs *in = NULL;
    pg_outputs *out = NULL;
    pg_result *result = NULL;
    pg_cancel *cancel = NULL;
    batch b;
    (void)state;
    make_batch(&b, m, specs, 5, LEFT, 0); /* row 3 has no labels, so nothing is to be run */
    OK(create(&b, m, 0, NULL, &in));
    watch w = {0};
    options.progress = watch_progress;
    options.progress_user = &w;
    OK(pg_forward(m->model, in, &options, &out));
    pg_outputs_close(&out);
    assert_int_equal(w.phase, PG_PHASE_PREFILL);
    assert_int_equal(w.total, 5 * m->n_layers);
    assert_int_equal(w.done, w.total);
    int n_calls = w.n_calls;
    for (int at = 1; at <= n_calls; at++) {
        w = (watch){.stop_at = at};
        ERROR(pg_forward(m->model, in, &options, &out), PG_ERROR_CANCELLED);
        assert_null(out);
    }

    OK(pg_generate_options_init(&generate_options, sizeof generate_options));
    generate_options.max_new_tokens = NEW_TOKENS;
    generate_options.max_running = 5;
    generate_options.progress = watch_progress;
    generate_options.progress_user = &w;
    w = (watch){0};
    OK(pg_generate(m->model, m->processor, in, &generate_options, &result));
    pg_result_close(&result);
    assert_int_equal(w.phase, PG_PHASE_DECODE);
    assert_int_equal(w.total, 5 * NEW_TOKENS);
    n_calls = w.n_calls;
    for (int at = 1; at <= n_calls; at++) {
        w = (watch){.stop_at = at};
        ERROR(pg_generate(m->model, m->processor, in, &generate_options, &result), PG_ERROR_CANCELLED);
        assert_null(result);
    }

    OK(pg_cancel_create(&cancel));
    pg_cancel_request(cancel);
    options.cancel = generate_options.cancel = cancel;
    w = (watch){0};
    ERROR(pg_forward(m->model, in, &options, &out), PG_ERROR_CANCELLED);
    options.flags |= PG_FORWARD_EMBEDDINGS;
    ERROR(pg_forward(m->model, in, &options, &out), PG_ERROR_CANCELLED);
    ERROR(pg_generate(m->model, m->processor, in, &generate_options, &result), PG_ERROR_CANCELLED);
    pg_cancel_close(&cancel);
    pg_inputs_close(&in);
    free(b.pixels);
}

/* A progress callback that closes all that its call was given. */
typedef struct closer {
    tiny m;
    pg_inputs *inputs;
    pg_features *features;
    pg_cancel *cancel;
} closer;

static int32_t close_everything(void *user, int32_t phase, int64_t done, int64_t total) {
    closer *c = user;
    (void)phase, (void)done, (void)total;
    pg_model_close(&c->m.model);
    pg_processor_close(&c->m.processor);
    pg_inputs_close(&c->inputs);
    pg_features_close(&c->features);
    pg_cancel_close(&c->cancel);
    return 0;
}

static void a_callback_may_close_what_the_call_was_given(void **state) {
    batch b;
    (void)state;
    make_batch(&b, &models[0], specs, 1, LEFT, 0);
    for (int which = 0; which < 10; which++) {
        const int call = which / 2;
        counter memory;
        closer c = {.m = models[0]};
        pg_outputs *out = NULL;
        pg_result *result = NULL;
        pg_features *features = NULL;
        pg_scores *scores = NULL;
        pg_session *session = NULL;
        counter_init(&memory);
        open_tiny(&c.m, NULL, &memory);
        OK(create(&b, &c.m, 0, NULL, &c.inputs));
        OK(pg_cancel_create(&c.cancel));
        if (which % 2) OK(pg_features_create(c.m.model, c.inputs, NULL, &c.features));
        if (call == 0) {
            pg_forward_options options = options_of(PG_FORWARD_LAST_HIDDEN);
            options.progress = close_everything, options.progress_user = &c;
            options.cancel = c.cancel, options.features = c.features;
            OK(pg_forward(c.m.model, c.inputs, &options, &out));
        } else if (call == 1) {
            pg_generate_options options;
            OK(pg_generate_options_init(&options, sizeof options));
            options.progress = close_everything, options.progress_user = &c;
            options.cancel = c.cancel, options.features = c.features, options.max_new_tokens = 3;
            OK(pg_generate(c.m.model, c.m.processor, c.inputs, &options, &result));
        } else if (call == 2) {
            pg_run_options options;
            OK(pg_run_options_init(&options, sizeof options));
            options.progress = close_everything, options.progress_user = &c, options.cancel = c.cancel;
            OK(pg_features_create(c.m.model, c.inputs, &options, &features));
        } else if (call == 3) {
            static const char *const answers[] = {"a", "the cat"};
            pg_score_options options;
            OK(pg_score_options_init(&options, sizeof options));
            options.progress = close_everything, options.progress_user = &c;
            options.cancel = c.cancel, options.features = c.features;
            OK(pg_score(c.m.model, c.m.processor, c.inputs, answers, 2, &options, &scores));
        } else {
            pg_session_options options;
            int64_t token;
            OK(pg_session_options_init(&options, sizeof options));
            options.progress = close_everything, options.progress_user = &c, options.cancel = c.cancel;
            OK(pg_session_create(c.m.model, &options, &session));
            OK(pg_session_prefill(session, c.inputs, c.features));
            OK(pg_session_step(session, &token));
        }
        assert_null(c.m.model);
        pg_outputs_close(&out);
        pg_result_close(&result);
        pg_features_close(&features);
        pg_scores_close(&scores);
        pg_session_close(&session);
        assert_true(counter_clean(&memory));
    }
    free(b.pixels);
}

/* One of three calls on the batch. */
static pg_status call(const tiny *m, const pg_inputs *in, int which) {
    pg_forward_options options =
        options_of(which ? PG_FORWARD_NO_LOGITS : PG_FORWARD_HIDDEN_STATES | PG_FORWARD_LAST_HIDDEN);
    pg_generate_options generate_options;
    pg_outputs *out = NULL;
    pg_result *result = NULL;
    pg_status status;
    OK(pg_generate_options_init(&generate_options, sizeof generate_options));
    generate_options.max_new_tokens = 3;
    generate_options.n_threads = 1;
    generate_options.flags = PG_GENERATE_LOG_PROBS | PG_GENERATE_LOGITS | PG_GENERATE_SCORES;
    generate_options.n_alternatives = 2;
    generate_options.stop_strings = (const char *const[]){"nobody says this"};
    generate_options.n_stop_strings = 1;
    if (which < 2)
        status = pg_forward(m->model, in, &options, &out);
    else if (which == 2)
        status = embed(m->model, in, &out);
    else
        status = pg_generate(m->model, m->processor, in, &generate_options, &result);
    assert_true(status >= 0 || (!out && !result));
    pg_outputs_close(&out);
    pg_result_close(&result);
    return status;
}

static void every_allocation_may_fail(void **state) {
    counter memory;
    tiny m = models[0];
    pg_inputs *ids = NULL, *rows = NULL;
    batch b;
    (void)state;
    counter_init(&memory);
    open_tiny(&m, NULL, &memory);
    make_batch(&b, &m, specs, 3, LEFT, 1);
    float *embeds = calloc((size_t)(b.n_rows * b.n_tokens * m.hidden), sizeof *embeds);
    const pgi_run run = {.kernels = &m.model->kernels, .n_threads = 1};
    pgi_decoder_embed(&run, &m.model->config.text, &m.model->weights.text, b.ids, b.n_rows * b.n_tokens, embeds);
    OK(create(&b, &m, 0, NULL, &ids));
    OK(create(&b, &m, WITHOUT_IDS, embeds, &rows));
    for (int which = 0; which < 8; which++) {
        const pg_inputs *in = which < 4 ? ids : rows;
        const long long live = memory.n_live, before = memory.n_allocs;
        OK(call(&m, in, which % 4));
        const long long n = memory.n_allocs - before;
        assert_in_range(n, 5, 200);
        for (long long k = 1; k <= n; k++) {
            memory.fail_at = memory.n_allocs + k;
            ERROR(call(&m, in, which % 4), PG_ERROR_MEMORY);
            assert_int_equal(memory.n_live, live);
        }
        memory.fail_at = 0;
    }
    pg_inputs_close(&ids);
    pg_inputs_close(&rows);
    pg_model_close(&m.model);
    pg_processor_close(&m.processor);
    assert_true(counter_clean(&memory));
    free(embeds);
    free(b.pixels);
}

/* --------------------------------------------------------------------------------------------------- bad input */

/* The status of forward and of generate, whose messages have these words. */
static void refused(const tiny *m, const batch *b, int without, pg_status wanted, const char *word, const char *other) {
    pg_inputs *in = NULL;
    OK(create(b, m, without, NULL, &in));
    for (int which = 0; which < 4; which++) {
        ERROR(call(m, in, which), wanted);
        if (!strstr(pg_last_error(), word) || !strstr(pg_last_error(), other))
            fail_msg("found \"%s\", expected \"%s\" and \"%s\"", pg_last_error(), word, other);
    }
    pg_inputs_close(&in);
}

static void bad_rows(void **state) {
    const tiny *m = &models[0];
    batch b;
    (void)state;
    make_batch(&b, m, specs, 3, LEFT, 0);
    int64_t *id = &b.ids[b.n_tokens + b.first[1] + 2], old = *id;
    *id = m->info.vocab_size;
    refused(m, &b, WITHOUT_LABELS, PG_ERROR_ARGUMENT, "row 1", "expected 0 to");
    *id = INT64_MAX;
    refused(m, &b, WITHOUT_LABELS, PG_ERROR_ARGUMENT, "row 1", "9223372036854775807");
    *id = m->image_id; /* an image token more than there are images */
    refused(m, &b, WITHOUT_LABELS, PG_ERROR_ARGUMENT, "row 2 has 18 image tokens", "17 left");
    *id = old;
    refused(m, &b, WITHOUT_PIXELS, PG_ERROR_ARGUMENT, "row 0 has 9 image tokens", "no pixel_values");
    b.ids[b.first[0]] = 4; /* one fewer */
    refused(m, &b, WITHOUT_LABELS, PG_ERROR_ARGUMENT, "26 image tokens", "27");
    free(b.pixels);

    make_batch(&b, m, specs, 2, LEFT, 0);
    pg_inputs *in = NULL;
    pg_outputs *out = NULL;
    b.labels[b.n_tokens + 7] = m->info.vocab_size;
    OK(create(&b, m, 0, NULL, &in));
    ERROR(pg_forward(m->model, in, NULL, &out), PG_ERROR_ARGUMENT);
    assert_non_null(strstr(pg_last_error(), "row 1: the label of token 7"));
    assert_int_equal(pg_last_error_row(), 1);
    OK(embed(m->model, in, &out));
    pg_outputs_close(&out);
    pg_inputs_close(&in);

    pg_session *session = NULL;
    pg_generate_options options;
    pg_result *result = NULL;
    OK(create(&b, m, WITHOUT_LABELS, NULL, &in));
    OK(pg_session_create(m->model, NULL, &session));
    ARGUMENT(pg_session_prefill(session, in, NULL));
    assert_non_null(strstr(pg_last_error(), "2 rows"));
    pg_session_close(&session);
    OK(pg_generate_options_init(&options, sizeof options));
    options.flags = 0x100;
    ARGUMENT(pg_generate(m->model, m->processor, in, &options, &result));
    assert_non_null(strstr(pg_last_error(), "flags is 0x1"));
    pg_forward_options forward_options = options_of(0);
    forward_options.logits_to_keep = b.n_tokens + 1;
    ARGUMENT(pg_forward(m->model, in, &forward_options, &out));
    forward_options.logits_to_keep = -1;
    ARGUMENT(pg_forward(m->model, in, &forward_options, &out));
    forward_options = options_of(0x8000);
    ARGUMENT(pg_forward(m->model, in, &forward_options, &out));
    forward_options = options_of(0);
    forward_options.n_threads = -1;
    ARGUMENT(pg_forward(m->model, in, &forward_options, &out));
    pg_inputs_close(&in);
    free(b.pixels);
}

/* Text rows alone, `n_tokens` each, straight from arrays of that size. */
static pg_status create_text(int64_t n_rows, int64_t n_tokens, pg_inputs **out) {
    int64_t *ids = calloc((size_t)(n_rows * n_tokens), sizeof *ids);
    pg_tensor tensor = {.struct_size = sizeof tensor,
                        .dtype = PG_DTYPE_I64,
                        .n_dims = 2,
                        .shape = {n_rows, n_tokens, 1, 1},
                        .data = ids};
    pg_input_arrays arrays;
    OK(pg_input_arrays_init(&arrays, sizeof arrays));
    arrays.input_ids = &tensor;
    for (int64_t i = 0; i < n_rows * n_tokens; i++) ids[i] = 4 + i % 50;
    pg_status status = pg_inputs_create(&arrays, out);
    free(ids);
    return status;
}

/* f32 counts positions up to here. */
static void rows_longer_than_positions(void **state) {
    const tiny *m = &models[0];
    pg_inputs *in = NULL;
    (void)state;
    OK(create_text(1, (1 << 24) + 1, &in));
    for (int which = 0; which < 4; which++) {
        ERROR(call(m, in, which), PG_ERROR_LIMIT);
        assert_non_null(strstr(pg_last_error(), "row 0 is 16777217 tokens long"));
    }
    pg_inputs_close(&in);
}

/* Images alone have features, but nothing to run. */
static void images_alone(void **state) {
    const tiny *m = &models[0];
    const int64_t size = m->info.image_size;
    float *pixels = calloc((size_t)(3 * size * size), sizeof *pixels);
    pg_tensor tensor = {
        .struct_size = sizeof tensor, .dtype = PG_DTYPE_F32, .n_dims = 4, .shape = {1, 3, size, size}, .data = pixels};
    pg_input_arrays arrays;
    pg_inputs *in = NULL;
    pg_features *features = NULL;
    (void)state;
    OK(pg_input_arrays_init(&arrays, sizeof arrays));
    arrays.pixel_values = &tensor;
    OK(pg_inputs_create(&arrays, &in));
    for (int which = 0; which < 4; which++) ERROR(call(m, in, which), PG_ERROR_ARGUMENT);
    OK(pg_features_create(m->model, in, NULL, &features));
    pg_features_close(&features);
    pg_inputs_close(&in);
    free(pixels);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_many_threads_as_you_like), cmocka_unit_test(two_callers_at_once),
        cmocka_unit_test(progress_and_cancel),         cmocka_unit_test(a_callback_may_close_what_the_call_was_given),
        cmocka_unit_test(every_allocation_may_fail),   cmocka_unit_test(bad_rows),
        cmocka_unit_test(rows_longer_than_positions),  cmocka_unit_test(images_alone),
    };
    return RUN_TESTS(tests, open_models, close_models);
}
