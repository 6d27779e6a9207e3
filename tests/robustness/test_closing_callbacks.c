/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* An allocator whose callbacks close every handle that there is: at each of their calls, from every public call. The
 * call goes on with what it was given, and at its end all is released, once. */
#include "run_tests.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fault_calls.h"
#include "tiny.h"

/* What a call may be given beside a fault_world. */
typedef struct more_handles {
    pg_answer *answer;
    pg_detokenizer *detokenizer;
    pg_calibration *calibration;
    pg_trainer *trainer;
    pg_cancel *cancel;
} more_handles;

/* Found before the C library's: nothing here loses power, and a disk may be slow. */
int fsync(int fd) { return fd < 0 ? -1 : 0; }

static char folder[512];
static fault_world world;
static more_handles more;
static int64_t calls_left; /* of the callback; the last of them closes */

static void close_everything(void) {
    if (calls_left == 0 || --calls_left > 0) return;
    pg_cancel_close(&more.cancel);
    pg_answer_close(&more.answer);
    pg_detokenizer_close(&more.detokenizer);
    pg_calibration_close(&more.calibration);
    pg_trainer_close(&more.trainer);
    fault_world_close(&world);
}

/* ---- calls of handles that fault_calls.c makes in the call itself, and closes there ---- */

static const char answer_text[] =
    "<loc0256><loc0512><loc0768><loc1023><seg000><seg127><seg003><seg004><seg005><seg060><seg007><seg008><seg009>"
    "<seg010><seg110><seg012><seg013><seg014><seg015><seg064> cat";

static pg_answer_options answer_options(void) {
    pg_answer_options options;
    pg_answer_options_init(&options, sizeof options);
    options.width = 20;
    options.height = 10;
    options.allocator = &fault_memory.hooks;
    return options;
}

static pg_status get_mask(fault_world *w) {
    uint8_t mask[20 * 10];
    return pg_answer_get_mask(more.answer, 0, w->decoder, mask, sizeof mask);
}

static pg_status push(fault_world *w) {
    const char *text;
    pg_status status = PG_OK;
    (void)w;
    for (int64_t id = 0; id < 40 && status >= 0; id++) status = pg_detokenizer_push(more.detokenizer, id, &text, NULL);
    return status < 0 ? status : pg_detokenizer_flush(more.detokenizer, &text, NULL);
}

static pg_status encode_images(fault_world *w) {
    static const uint8_t pixels[3 * 8 * 8] = {200, 100};
    static const char *const prompts[] = {"the cat", "in"};
    pg_image images[2];
    pg_inputs *inputs = NULL;
    pg_batch batch;
    for (int i = 0; i < 2; i++) pg_image_from_pixels(&images[i], sizeof images[i], PG_IMAGE_RGB8, 8, 8, pixels, 0);
    pg_batch_init(&batch, sizeof batch);
    batch.n_prompts = batch.n_images = 2;
    batch.prompts = prompts;
    batch.images = images;
    const pg_status status = pg_processor_encode_batch(w->processor, &batch, NULL, &inputs);
    pg_inputs_close(&inputs);
    return status;
}

static pg_status forward_with_features(fault_world *w) {
    pg_forward_options options;
    pg_outputs *outputs = NULL;
    pg_forward_options_init(&options, sizeof options);
    options.n_threads = 1;
    options.features = w->features;
    options.cancel = more.cancel;
    const pg_status status = pg_forward(w->model, w->inputs, &options, &outputs);
    pg_outputs_close(&outputs);
    return status;
}

static pg_status score_with_features(fault_world *w) {
    static const char *const answers[] = {"cat", "the dog"};
    pg_score_options options;
    pg_scores *scores = NULL;
    pg_score_options_init(&options, sizeof options);
    options.n_threads = 1;
    options.features = w->features;
    options.cancel = more.cancel;
    const pg_status status = pg_score(w->model, w->processor, w->inputs, answers, 2, &options, &scores);
    pg_scores_close(&scores);
    return status;
}

static pg_status calibrate_one(fault_world *w) {
    const pg_run_options run = {.struct_size = sizeof run, .n_threads = 1, .cancel = more.cancel};
    return pg_calibration_add(more.calibration, w->inputs, &run);
}

static pg_status calibration_save(fault_world *w) {
    char path[600];
    (void)w;
    snprintf(path, sizeof path, "%s.calibration", folder);
    const pg_status status = pg_calibration_save(more.calibration, path, 7);
    unlink(path);
    return status;
}

static pg_status convert_calibrated(fault_world *w) {
    const pg_run_options run = {.struct_size = sizeof run, .n_threads = 1};
    char out[600];
    pg_convert_options options;
    pg_convert_options_init(&options, sizeof options);
    options.n_threads = 1;
    options.weights = PG_WEIGHTS_INT4;
    options.calibration = more.calibration;
    options.cancel = more.cancel;
    options.allocator = &fault_memory.hooks;
    const int64_t later = calls_left;
    calls_left = 0;
    pg_status status = pg_calibration_add(more.calibration, w->inputs, &run);
    calls_left = later;
    if (status < 0) return status;
    snprintf(out, sizeof out, "%s.converted", folder);
    status = pg_model_convert(folder, out, &options);
    remove_folder(out);
    return status;
}

static pg_trainer_options training(void) {
    pg_trainer_options options;
    pg_trainer_options_init(&options, sizeof options);
    options.rank = 2;
    options.target_modules = "q_proj,fc2";
    options.modules_to_save = "multi_modal_projector";
    options.n_threads = 1;
    options.cancel = more.cancel;
    return options;
}

static pg_status trainer_step(fault_world *w) { return pg_trainer_step(more.trainer, w->labelled, NULL); }
static pg_status trainer_evaluate(fault_world *w) { return pg_trainer_evaluate(more.trainer, w->labelled, NULL); }

static void trained_path(char *path, size_t size) { snprintf(path, size, "%s.trained", folder); }

static pg_status trainer_save(fault_world *w) {
    char path[600];
    (void)w;
    trained_path(path, sizeof path);
    return pg_trainer_save(more.trainer, path);
}

static pg_status trainer_resume(fault_world *w) {
    const pg_trainer_options options = training();
    pg_trainer *trainer = NULL;
    char path[600];
    trained_path(path, sizeof path);
    const pg_status status = pg_trainer_resume(w->model, path, &options, &trainer);
    pg_trainer_close(&trainer);
    return status;
}

static const fault_call more_calls[] = {
    {"get_mask", get_mask},
    {"push", push},
    {"encode_images", encode_images},
    {"forward_with_features", forward_with_features},
    {"score_with_features", score_with_features},
    {"calibrate_one", calibrate_one},
    {"calibration_save", calibration_save},
    {"convert_calibrated", convert_calibrated},
    {"trainer_step", trainer_step},
    {"trainer_evaluate", trainer_evaluate},
    {"trainer_save", trainer_save},
    {"trainer_resume", trainer_resume},
};

/* ---- the test ---- */

static void open_everything(void) {
    const pg_answer_options options = answer_options();
    fault_world_open(&world);
    if (pg_answer_create_from_text(answer_text, sizeof answer_text - 1, &options, &more.answer) < 0 ||
        pg_detokenizer_create(world.processor, 0, &more.detokenizer) < 0 ||
        pg_calibration_create(world.model, &more.calibration) < 0 || pg_cancel_create(&more.cancel) < 0)
        fail_msg("%s", pg_last_error());
    const pg_trainer_options training_options = training();
    if (pg_trainer_create(world.model, &training_options, &more.trainer) < 0) fail_msg("%s", pg_last_error());
}

/* Returns whether the callback was called n times. What comes behind the call that it closed finds NULL. */
static int try_call(const fault_call *call, int64_t n, int in_free) {
    open_everything();
    calls_left = n;
    *(in_free ? &fault_memory.on_free : &fault_memory.on_alloc) = close_everything;
    const pg_status status = call->run(&world);
    fault_memory.on_free = fault_memory.on_alloc = NULL;
    const int closed = calls_left == 0;
    const int expected = status == PG_ERROR_ARGUMENT || status == PG_ERROR_STATE; /* of a handle that is closed */
    if (status < 0 && (bad_error(status) || !expected || !closed))
        fail_msg("%s, %s %lld: %s %s", call->name, in_free ? "free" : "alloc", (long long)n, pg_status_name(status),
                 pg_last_error());
    calls_left = 1;
    close_everything();
    if (!counter_clean(&fault_memory))
        fail_msg("%s, %s %lld: something is kept, or was released twice", call->name, in_free ? "free" : "alloc",
                 (long long)n);
    return closed;
}

/* Whether a call needs none of the handles. */
static int needs_nothing(const fault_call *call) {
    fault_world nothing;
    memset(&nothing, 0, sizeof nothing);
    counter_init(&fault_memory);
    return call->run(&nothing) >= 0;
}

static int64_t try_calls(const fault_call *calls, size_t n_calls, int in_free) {
    int64_t total = 0;
    for (size_t i = 0; i < n_calls; i++) {
        if (needs_nothing(&calls[i])) continue;
        /* each of the first, where the handles are taken over, and then some */
        for (int64_t n = 1; try_call(&calls[i], n, in_free); n = next_fault(n + n / 8)) total++;
    }
    return total;
}

static void while_memory_is_asked_for(void **state) {
    (void)state;
    assert_true(try_calls(fault_calls, n_fault_calls, 0) > 200);
    assert_true(try_calls(more_calls, sizeof more_calls / sizeof *more_calls, 0) > 50);
}

static void while_memory_is_released(void **state) {
    (void)state;
    assert_true(try_calls(fault_calls, n_fault_calls, 1) > 200);
    assert_true(try_calls(more_calls, sizeof more_calls / sizeof *more_calls, 1) > 50);
}

static int setup(void **state) {
    tiny_options options = tiny_official();
    (void)state;
    options.n_layers = 1;
    fault_files_make();
    make_temp_folder(folder, sizeof folder);
    tiny_write(folder, &options);
    open_everything();
    assert_int_equal(trainer_save(&world), PG_OK); /* for trainer_resume() */
    calls_left = 1;
    close_everything();
    return 0;
}

static int teardown(void **state) {
    char path[600];
    (void)state;
    trained_path(path, sizeof path);
    remove_folder(path);
    remove_folder(folder);
    fault_files_remove();
    return 0;
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(while_memory_is_asked_for),
        cmocka_unit_test(while_memory_is_released),
    };
    return RUN_TESTS(tests, setup, teardown);
}
