/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Callbacks of a C++ host that throw: at each of their calls, from every call that takes them. A status and a message
 * come of it, nothing is leaked, no thread stays, and what is called next works. */
#include "run_tests.h"

#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "sanitized.h"
#include "throwing_host.h"
#include "tiny_fixture.h"

/* Found before the C library's: nothing here loses power, and a disk may be slow. */
int fsync(int fd) { return fd < 0 ? -1 : 0; }

/* ---- the calls: each passes `t` to the callbacks of one kind ---- */

typedef pg_status (*call_fn)(thrower *t);

static pg_allocator hooks_of(thrower *t) {
    return (pg_allocator){
        .struct_size = sizeof(pg_allocator), .user = t, .alloc = throwing_alloc, .free = throwing_free};
}

static pg_status open_logged(thrower *t) {
    pg_model_options options;
    pg_model *out = NULL;
    ok(pg_model_options_init(&options, sizeof options));
    options.log = throwing_log, options.log_user = t;
    const pg_status status = pg_model_open(folder, &options, &out);
    assert_true((status == PG_OK) == (out != NULL));
    pg_model_close(&out);
    return status;
}

static pg_status open_with_progress(thrower *t) {
    pg_model_options options;
    pg_model *out = NULL;
    ok(pg_model_options_init(&options, sizeof options));
    options.progress = throwing_progress, options.progress_user = t;
    options.weights = PG_WEIGHTS_INT8;
    const pg_status status = pg_model_open(folder, &options, &out);
    pg_model_close(&out);
    return status;
}

static pg_status open_allocating(thrower *t) {
    const pg_allocator hooks = hooks_of(t);
    pg_model_options options;
    pg_model *out = NULL;
    ok(pg_model_options_init(&options, sizeof options));
    options.allocator = &hooks;
    const pg_status status = pg_model_open(folder, &options, &out);
    pg_model_close(&out);
    return status;
}

static pg_status open_processor_logged(thrower *t) {
    pg_processor_options options;
    pg_processor *out = NULL;
    ok(pg_processor_options_init(&options, sizeof options));
    options.log = throwing_log, options.log_user = t;
    const pg_status status = pg_processor_open(folder, &options, &out);
    pg_processor_close(&out);
    return status;
}

static pg_status open_processor_allocating(thrower *t) {
    const pg_allocator hooks = hooks_of(t);
    pg_processor_options options;
    pg_processor *out = NULL;
    pg_inputs *encoded = NULL;
    bytes file = tiny_image(IMAGE_PNG_PALETTE, 12, 9, 3);
    pg_image image;
    ok(pg_processor_options_init(&options, sizeof options));
    options.allocator = &hooks;
    ok(pg_image_from_bytes(&image, sizeof image, file.data, file.size));
    pg_status status = pg_processor_open(folder, &options, &out);
    if (status >= 0) status = pg_processor_encode(out, &image, "the cat", NULL, &encoded);
    pg_inputs_close(&encoded);
    pg_processor_close(&out);
    bytes_free(&file);
    return status;
}

/* Transparent pixels are warned of. */
static pg_status encode_logged(thrower *t) {
    static const uint8_t pixels[8 * 8 * 4] = {1, 2, 3, 255};
    pg_processor_options options;
    pg_processor *out = NULL;
    pg_inputs *encoded = NULL;
    pg_image image;
    ok(pg_processor_options_init(&options, sizeof options));
    options.log = throwing_log, options.log_user = t;
    const int64_t at = t->at;
    t->at = 0;
    ok(pg_processor_open(folder, &options, &out));
    t->at = at, t->n_calls = 0;
    ok(pg_image_from_pixels(&image, sizeof image, PG_IMAGE_RGBA8, 8, 8, pixels, 0));
    const pg_status status = pg_processor_encode(out, &image, "", NULL, &encoded);
    assert_true((status == PG_OK) == (encoded != NULL));
    pg_inputs_close(&encoded);
    pg_processor_close(&out);
    return status;
}

static pg_status generate(const pg_generate_options *given) {
    pg_generate_options options = *given;
    pg_result *out = NULL;
    options.max_new_tokens = 4;
    options.n_threads = 2;
    const pg_status status = pg_generate(model, processor, inputs, &options, &out);
    assert_true((status == PG_OK) == (out != NULL));
    pg_result_close(&out);
    return status;
}

static pg_status generate_with_text(thrower *t) {
    pg_generate_options options;
    ok(pg_generate_options_init(&options, sizeof options));
    options.on_text = throwing_text, options.on_text_user = t;
    return generate(&options);
}

static pg_status generate_with_progress(thrower *t) {
    pg_generate_options options;
    ok(pg_generate_options_init(&options, sizeof options));
    options.progress = throwing_progress, options.progress_user = t;
    return generate(&options);
}

static pg_status search_with_text(thrower *t) {
    pg_generate_options options;
    pg_beam_options beams;
    ok(pg_generate_options_init(&options, sizeof options));
    ok(pg_beam_options_init(&beams, sizeof beams));
    beams.n_beams = 2;
    options.beams = &beams;
    options.on_text = throwing_text, options.on_text_user = t;
    return generate(&options);
}

static pg_status generate_with_logits(thrower *t) {
    pg_generate_options options;
    pg_sampling_options sampling;
    ok(pg_generate_options_init(&options, sizeof options));
    ok(pg_sampling_options_init(&sampling, sizeof sampling));
    sampling.on_logits = throwing_logits, sampling.on_logits_user = t;
    options.sampling = &sampling;
    return generate(&options);
}

static pg_status search_with_texts(thrower *t) {
    pg_generate_options options;
    pg_beam_options beams;
    ok(pg_generate_options_init(&options, sizeof options));
    ok(pg_beam_options_init(&beams, sizeof beams));
    beams.n_beams = 2;
    beams.on_texts = throwing_texts, beams.on_texts_user = t;
    options.beams = &beams;
    return generate(&options);
}

static pg_status search_with_mask(thrower *t) {
    pg_generate_options options;
    pg_sampling_options sampling;
    pg_beam_options beams;
    ok(pg_generate_options_init(&options, sizeof options));
    ok(pg_sampling_options_init(&sampling, sizeof sampling));
    ok(pg_beam_options_init(&beams, sizeof beams));
    beams.n_beams = 2;
    sampling.on_mask = throwing_mask, sampling.on_mask_user = t;
    options.sampling = &sampling;
    options.beams = &beams;
    return generate(&options);
}

static pg_status generate_allocating(thrower *t) {
    const pg_allocator hooks = hooks_of(t);
    pg_model_options options;
    pg_model *own = NULL;
    pg_result *out = NULL;
    pg_generate_options run;
    ok(pg_model_options_init(&options, sizeof options));
    ok(pg_generate_options_init(&run, sizeof run));
    options.allocator = &hooks;
    run.n_threads = 2, run.max_new_tokens = 2;
    const int64_t at = t->at;
    t->at = 0;
    ok(pg_model_open(folder, &options, &own));
    t->at = at, t->n_calls = 0;
    const pg_status status = pg_generate(own, processor, inputs, &run, &out);
    pg_result_close(&out);
    pg_model_close(&own);
    return status;
}

/* A session that was stopped by a throw serves again after a prefill. */
static pg_status session_with_progress(thrower *t) {
    pg_session_options options;
    pg_session *session = NULL;
    int64_t token;
    ok(pg_session_options_init(&options, sizeof options));
    options.n_threads = 2;
    options.progress = throwing_progress, options.progress_user = t;
    ok(pg_session_create(model, &options, &session));
    pg_status status = pg_session_prefill(session, inputs, NULL);
    for (int i = 0; i < 3 && status >= 0; i++) status = pg_session_step(session, &token);
    if (status < 0) {
        char text[512];
        snprintf(text, sizeof text, "%s", pg_last_error());
        ok(pg_session_prefill(session, inputs, NULL));
        ok(pg_session_step(session, &token));
        assert_string_equal(pg_last_error(), text);
    }
    pg_session_close(&session);
    return status;
}

static pg_status session_with_logits(thrower *t) {
    pg_session *session = NULL;
    pg_sampling_options sampling;
    int64_t token;
    ok(pg_sampling_options_init(&sampling, sizeof sampling));
    sampling.on_logits = throwing_logits, sampling.on_logits_user = t;
    ok(pg_session_create(model, NULL, &session));
    ok(pg_session_prefill(session, inputs, NULL));
    pg_status status = PG_OK;
    for (int i = 0; i < 3 && status == PG_OK; i++) status = pg_session_sample(session, &sampling, &token);
    pg_session_close(&session);
    return status;
}

static pg_status score_with_progress(thrower *t) {
    static const char *const answers[] = {"yes", "no"};
    pg_score_options options;
    pg_scores *out = NULL;
    ok(pg_score_options_init(&options, sizeof options));
    options.progress = throwing_progress, options.progress_user = t;
    const pg_status status = pg_score(model, processor, inputs, answers, 2, &options, &out);
    pg_scores_close(&out);
    return status;
}

static pg_status forward_with_progress(thrower *t) {
    pg_forward_options options;
    pg_outputs *out = NULL;
    ok(pg_forward_options_init(&options, sizeof options));
    options.progress = throwing_progress, options.progress_user = t;
    const pg_status status = pg_forward(model, inputs, &options, &out);
    pg_outputs_close(&out);
    return status;
}

static pg_status features_with_progress(thrower *t) {
    pg_run_options options;
    pg_features *out = NULL;
    ok(pg_run_options_init(&options, sizeof options));
    options.progress = throwing_progress, options.progress_user = t;
    const pg_status status = pg_features_create(model, inputs, &options, &out);
    pg_features_close(&out);
    return status;
}

static pg_inputs *labelled(void) {
    static const uint8_t pixels[8 * 8 * 3] = {200, 100};
    static const char *const prompts[] = {"the"}, *const suffixes[] = {"cat"};
    pg_image image;
    pg_batch batch;
    pg_inputs *out = NULL;
    ok(pg_batch_init(&batch, sizeof batch));
    ok(pg_image_from_pixels(&image, sizeof image, PG_IMAGE_RGB8, 8, 8, pixels, 0));
    batch.n_prompts = batch.n_suffixes = batch.n_images = 1;
    batch.prompts = prompts, batch.suffixes = suffixes, batch.images = &image;
    ok(pg_processor_encode_batch(processor, &batch, NULL, &out));
    return out;
}

/* A trainer that was stopped by a throw goes on. */
static pg_status train_with_progress(thrower *t) {
    pg_trainer_options options;
    pg_trainer *trainer = NULL;
    pg_inputs *in = labelled();
    ok(pg_trainer_options_init(&options, sizeof options));
    options.n_threads = 2;
    options.progress = throwing_progress, options.progress_user = t;
    ok(pg_trainer_create(model, &options, &trainer));
    pg_status status = pg_trainer_step(trainer, in, NULL);
    if (status >= 0) status = pg_trainer_evaluate(trainer, in, NULL);
    if (status < 0) {
        char text[512];
        pg_train_result result = {.struct_size = sizeof result};
        snprintf(text, sizeof text, "%s", pg_last_error());
        ok(pg_trainer_step(trainer, in, &result));
        assert_int_equal(result.updated, 1);
        assert_string_equal(pg_last_error(), text);
    }
    pg_trainer_close(&trainer);
    pg_inputs_close(&in);
    return status;
}

static pg_status train_allocating(thrower *t) {
    const pg_allocator hooks = hooks_of(t);
    pg_model_options options;
    pg_trainer_options training;
    pg_model *own = NULL;
    pg_trainer *trainer = NULL, *again = NULL;
    pg_inputs *in = labelled();
    char out[600];
    snprintf(out, sizeof out, "%s-trained", folder);
    ok(pg_model_options_init(&options, sizeof options));
    ok(pg_trainer_options_init(&training, sizeof training));
    options.allocator = &hooks;
    training.n_threads = 2, training.rank = 2;
    const int64_t at = t->at;
    t->at = 0;
    ok(pg_model_open(folder, &options, &own));
    t->at = at, t->n_calls = 0;
    pg_status status = pg_trainer_create(own, &training, &trainer);
    if (status >= 0) status = pg_trainer_step(trainer, in, NULL);
    if (status >= 0) status = pg_trainer_save(trainer, out);
    if (status >= 0) status = pg_trainer_resume(own, out, &training, &again);
    remove_folder(out);
    pg_trainer_close(&again);
    pg_trainer_close(&trainer);
    pg_inputs_close(&in);
    pg_model_close(&own);
    return status;
}

/* A folder is there only when the conversion was PG_OK. */
static pg_status convert(const pg_convert_options *options) {
    char out[600];
    snprintf(out, sizeof out, "%s-converted", folder);
    const pg_status status = pg_model_convert(folder, out, options);
    DIR *there = opendir(out);
    assert_true((status == PG_OK) == (there != NULL));
    if (!there) return status;
    closedir(there);
    remove_folder(out);
    return status;
}

static pg_status convert_logged(thrower *t) {
    pg_convert_options options;
    ok(pg_convert_options_init(&options, sizeof options));
    options.log = throwing_log, options.log_user = t;
    return convert(&options);
}

static pg_status convert_with_progress(thrower *t) {
    pg_convert_options options;
    ok(pg_convert_options_init(&options, sizeof options));
    options.progress = throwing_progress, options.progress_user = t;
    return convert(&options);
}

static pg_status answer_allocating(thrower *t) {
    static const char text[] = "<loc0010><loc0020><loc0300><loc0400> a cat";
    const pg_allocator hooks = hooks_of(t);
    pg_answer_options options;
    pg_answer *out = NULL;
    ok(pg_answer_options_init(&options, sizeof options));
    options.width = options.height = 100;
    options.allocator = &hooks;
    const pg_status status = pg_answer_create_from_text(text, strlen(text), &options, &out);
    pg_answer_close(&out);
    return status;
}

/* ---- the tests ---- */

static const struct {
    const char *callback; /* as messages name it */
    call_fn call;
    int most; /* throws to try */
} cases[] = {
    {"log", open_logged, 100},
    {"log", open_processor_logged, 100},
    {"log", encode_logged, 100},
    {"log", convert_logged, 100},
    {"progress", open_with_progress, 20},
    {"progress", generate_with_progress, 100},
    {"progress", session_with_progress, 100},
    {"progress", score_with_progress, 100},
    {"progress", forward_with_progress, 100},
    {"progress", features_with_progress, 100},
    {"progress", convert_with_progress, 20},
    {"progress", train_with_progress, 100},
    {"on_text", generate_with_text, 100},
    {"on_text", search_with_text, 100},
    {"on_logits", generate_with_logits, 100},
    {"on_logits", session_with_logits, 100},
    {"on_mask", search_with_mask, 100},
    {"on_texts", search_with_texts, 100},
    {"pg_allocator", open_allocating, 1000},
    {"pg_allocator", open_processor_allocating, 1000},
    {"pg_allocator", generate_allocating, 1000},
    {"pg_allocator", answer_allocating, 100},
    {"pg_allocator", train_allocating, 150},
};

/* The allocator's two share a count: where free threw, and only there, the call is not stopped. */
static void check_thrown(size_t i, const thrower *t, pg_status status) {
    const int allocates = strcmp(cases[i].callback, "pg_allocator") == 0;
    if (allocates && status == PG_OK) return;
    assert_int_equal(status, allocates ? PG_ERROR_MEMORY : PG_ERROR_CANCELLED);
    assert_null(bad_error(status));
    assert_non_null(strstr(pg_last_error(), cases[i].callback));
    if (t->kind == THROWS_ERROR) assert_non_null(strstr(pg_last_error(), "deliberate, with a line break"));
    assert_non_null(strstr(pg_last_error(), "threw"));
}

static void *no_work(void *unused) { return unused; }

static void exceptions_end_at_the_border(void **state) {
    pthread_t thread;
    (void)state;
    /* with the first thread a sanitizer makes one of its own, which stays */
    assert_int_equal(pthread_create(&thread, NULL, no_work, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    const int before = settled_threads();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t n_thrown = 0, n_stopped = 0;
        for (int64_t at = 1; at <= cases[i].most; at++) {
            counter memory;
            thrower t = {.at = at, .kind = (int)(at - 1) % N_THROWN, .memory = &memory.hooks};
            counter_init(&memory);
            stale_error();
            const pg_status status = cases[i].call(&t);
            assert_true(counter_clean(&memory));
            if (t.n_calls < at) { /* the call was over before */
                ok(status);
                break;
            }
            check_thrown(i, &t, status);
            n_thrown++;
            n_stopped += status < 0;
        }
        if (n_thrown == 0 || n_stopped == 0) fail_msg("case %zu (%s): nothing was thrown", i, cases[i].callback);
        assert_int_equal(wait_for_threads(before), before);
    }
}

/* Nothing of it stays: the texts of a model whose calls were stopped are those of one whose calls were not. */
static void what_follows_is_right(void **state) {
    pg_result *first = NULL, *second = NULL;
    (void)state;
    ok(pg_generate(model, processor, inputs, NULL, &first));
    for (int64_t at = 1; at <= 4; at++) {
        thrower t = {.at = at};
        assert_int_equal(generate_with_progress(&t), PG_ERROR_CANCELLED);
    }
    ok(pg_generate(model, processor, inputs, NULL, &second));
    assert_string_equal(pg_result_get_text(first, 0), pg_result_get_text(second, 0));
    pg_result_close(&first);
    pg_result_close(&second);
}

#ifndef SANITIZED
static void *exits(void *t) {
    pg_forward_options options;
    pg_outputs *out = NULL;
    pg_forward_options_init(&options, sizeof options);
    options.n_threads = 1;
    options.progress = throwing_progress, options.progress_user = t;
    pg_forward(model, inputs, &options, &out);
    return NULL;
}

/* A callback that ends its thread is a defect of the host, and leaks; the unwinding is not kept, which would end the
 * process. */
static void the_end_of_a_thread_is_let_through(void **state) {
    thrower t = {.at = 2, .kind = THROWS_EXIT};
    pthread_t thread;
    void *left;
    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, exits, &t), 0);
    assert_int_equal(pthread_join(thread, &left), 0);
    assert_ptr_equal(left, &t);
}
#endif

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exceptions_end_at_the_border),
        cmocka_unit_test(what_follows_is_right),
#ifndef SANITIZED
        cmocka_unit_test(the_end_of_a_thread_is_let_through),
#endif
    };
    return RUN_TESTS(tests, open_tiny, close_tiny);
}
