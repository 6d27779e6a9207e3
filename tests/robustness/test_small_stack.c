/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Everything runs on threads with stacks of 64 KiB, the library's own threads too: a crash ends this program. */
#include "run_tests.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "mask_files.h"
#include "sanitized.h"
#include "small_stack.h"
#include "support.h"
#include "tiny.h"

enum { N_FOLDERS = 2 };

static char folders[N_FOLDERS][512];
static counter memory;

typedef struct job {
    const char *folder;
    const pg_allocator *allocator;
    pg_status status;
    char message[1024];
} job;

/* Leaves the function at the first error. */
#define OK(call)                                \
    do {                                        \
        if ((j->status = (call)) < 0) goto end; \
    } while (0)

static void decode(job *j, const pg_processor *processor, int kind, pg_inputs **out) {
    pg_image image;
    bytes file = tiny_image(kind, 300, 200, 5);
    pg_inputs_close(out);
    OK(pg_image_from_bytes(&image, sizeof image, file.data, file.size));
    OK(pg_processor_encode(processor, &image, "detect the cat <loc0001>\n", NULL, out));
end:
    bytes_free(&file);
}

static void run_session(job *j, const pg_model *model, const pg_processor *processor, const pg_inputs *inputs) {
    pg_session_options options;
    pg_session *session = NULL;
    pg_detokenizer *detokenizer = NULL;
    const char *text;
    int64_t token = 0;
    OK(pg_session_options_init(&options, sizeof options));
    options.n_threads = 3;
    OK(pg_session_create(model, &options, &session));
    OK(pg_detokenizer_create(processor, 0, &detokenizer));
    OK(pg_session_prefill(session, inputs, NULL));
    for (int i = 0; i < 5 && j->status == PG_OK; i++) OK(pg_session_step(session, &token));
    OK(pg_detokenizer_push(detokenizer, token, &text, NULL));
    OK(pg_detokenizer_flush(detokenizer, &text, NULL));
end:
    pg_detokenizer_close(&detokenizer);
    pg_session_close(&session);
}

static void generate(job *j, const pg_model *model, const pg_processor *processor, const pg_inputs *inputs) {
    static const char *const answers[] = {"a cat", "no"};
    pg_generate_options options;
    pg_sampling_options sampling;
    pg_beam_options beams;
    pg_answer_options of_answer;
    pg_result *result = NULL, *searched = NULL;
    pg_answer *answer = NULL;
    pg_scores *scores = NULL;
    pg_outputs *outputs = NULL;
    OK(pg_generate_options_init(&options, sizeof options));
    OK(pg_sampling_options_init(&sampling, sizeof sampling));
    OK(pg_beam_options_init(&beams, sizeof beams));
    OK(pg_answer_options_init(&of_answer, sizeof of_answer));
    sampling.flags = PG_SAMPLING_RANDOM;
    sampling.top_p = 0.9, sampling.typical_p = 0.9, sampling.no_repeat_ngram_size = 2;
    options.sampling = &sampling;
    options.n_threads = 3, options.max_new_tokens = 6;
    options.flags = PG_GENERATE_LOG_PROBS;
    OK(pg_generate(model, processor, inputs, &options, &result));
    beams.n_beams = 3;
    options.beams = &beams, options.sampling = NULL;
    OK(pg_generate(model, processor, inputs, &options, &searched));
    of_answer.width = 300, of_answer.height = 200;
    OK(pg_answer_create(processor, result, 0, &of_answer, &answer));
    OK(pg_score(model, processor, inputs, answers, 2, NULL, &scores));
    OK(pg_forward(model, inputs, NULL, &outputs));
end:
    pg_outputs_close(&outputs);
    pg_scores_close(&scores);
    pg_answer_close(&answer);
    pg_result_close(&searched);
    pg_result_close(&result);
}

static void train(job *j, const pg_model *model, const pg_processor *processor) {
    static const char *const prompts[] = {"the"}, *const suffixes[] = {"cat in a cat"};
    static const uint8_t pixels[3 * 8 * 8] = {200, 100};
    char saved[600];
    pg_trainer_options options;
    pg_trainer *trainer = NULL, *again = NULL;
    pg_inputs *inputs = NULL;
    pg_image image;
    pg_batch batch;
    snprintf(saved, sizeof saved, "%s-trained", j->folder);
    OK(pg_image_from_pixels(&image, sizeof image, PG_IMAGE_RGB8, 8, 8, pixels, 0));
    OK(pg_batch_init(&batch, sizeof batch));
    batch.n_prompts = batch.n_suffixes = batch.n_images = 1;
    batch.prompts = prompts, batch.suffixes = suffixes, batch.images = &image;
    OK(pg_processor_encode_batch(processor, &batch, NULL, &inputs));
    OK(pg_trainer_options_init(&options, sizeof options));
    options.target_modules = "regex:(lm_head|.*(_proj|fc1|embed_tokens|position_embedding|patch_embedding))";
    options.modules_to_save = "multi_modal_projector,norm";
    options.dropout = 0.1;
    options.n_threads = 3;
    OK(pg_trainer_create(model, &options, &trainer));
    OK(pg_trainer_step(trainer, inputs, NULL));
    OK(pg_trainer_evaluate(trainer, inputs, NULL));
    OK(pg_trainer_save(trainer, saved));
    OK(pg_trainer_resume(model, saved, &options, &again));
end:
    remove_folder(saved);
    pg_trainer_close(&again);
    pg_trainer_close(&trainer);
    pg_inputs_close(&inputs);
}

static void decode_mask(job *j) {
    static const char text[] =
        "<loc0010><loc0020><loc0900><loc0800><seg001><seg002><seg003><seg004><seg005><seg006>"
        "<seg007><seg008><seg009><seg010><seg011><seg012><seg013><seg014><seg015><seg016> cat";
    static uint8_t mask[300 * 200];
    static char rle[1 << 16];
    char path[600];
    pg_mask_decoder_options options;
    pg_mask_decoder *decoder = NULL;
    pg_answer_options of_answer;
    pg_answer *answer = NULL;
    snprintf(path, sizeof path, "%s/vae-oid.npz", j->folder);
    OK(pg_mask_decoder_options_init(&options, sizeof options));
    OK(pg_answer_options_init(&of_answer, sizeof of_answer));
    options.allocator = j->allocator;
    of_answer.width = 300, of_answer.height = 200;
    of_answer.allocator = j->allocator;
    OK(pg_mask_decoder_open(path, &options, &decoder));
    OK(pg_answer_create_from_text(text, strlen(text), &of_answer, &answer));
    OK(pg_answer_get_mask(answer, 0, decoder, mask, sizeof mask));
    OK(pg_mask_get_rle(mask, 300, 200, rle, sizeof rle, NULL));
end:
    pg_answer_close(&answer);
    pg_mask_decoder_close(&decoder);
}

static void *run_all(void *user) {
    static const int kinds[] = {IMAGE_PNG, IMAGE_PNG_PALETTE, IMAGE_JPEG, IMAGE_JPEG_PROGRESSIVE};
    job *j = user;
    char converted[600];
    pg_model_options model_options;
    pg_processor_options processor_options;
    pg_convert_options convert;
    pg_model *model = NULL;
    pg_processor *processor = NULL;
    pg_inputs *inputs = NULL;
    snprintf(converted, sizeof converted, "%s-int4", j->folder);
    OK(pg_model_options_init(&model_options, sizeof model_options));
    OK(pg_processor_options_init(&processor_options, sizeof processor_options));
    model_options.allocator = processor_options.allocator = j->allocator;
    OK(pg_processor_open(j->folder, &processor_options, &processor));
    for (int32_t weights = PG_WEIGHTS_STORED; weights <= PG_WEIGHTS_INT4; weights++) {
        model_options.weights = weights;
        OK(pg_model_open(j->folder, &model_options, &model));
        for (size_t i = 0; i < sizeof kinds / sizeof *kinds && j->status >= 0; i++)
            decode(j, processor, kinds[i], &inputs);
        if (j->status >= 0) generate(j, model, processor, inputs);
        if (j->status >= 0) run_session(j, model, processor, inputs);
        if (j->status >= 0) train(j, model, processor);
        if (j->status < 0) goto end;
        pg_model_close(&model);
    }
    OK(pg_convert_options_init(&convert, sizeof convert));
    convert.weights = PG_WEIGHTS_INT4;
    OK(pg_model_convert(j->folder, converted, &convert));
    remove_folder(converted);
    decode_mask(j);
end:
    snprintf(j->message, sizeof j->message, "%s", pg_last_error());
    pg_inputs_close(&inputs);
    pg_processor_close(&processor);
    pg_model_close(&model);
    return NULL;
}

/* Depth and width that no file has any business with. */
static void *open_hostile(void *user) {
    static const char *const files[] = {"config.json", "preprocessor_config.json", "generation_config.json",
                                        "tokenizer_config.json", "tokenizer.json"};
    job *j = user;
    char path[512];
    bytes deep = {0};
    for (int i = 0; i < 200000; i++) bytes_text(&deep, i % 2 ? "{\"a\":" : "[");
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        pg_model *model = NULL;
        pg_processor *processor = NULL;
        tiny_options options = tiny_official();
        make_temp_folder(path, sizeof path);
        tiny_write(path, &options);
        write_file(path, files[i], deep.data, deep.size);
        if (pg_model_open(path, NULL, &model) >= 0) pg_model_close(&model);
        if (pg_processor_open(path, NULL, &processor) >= 0) pg_processor_close(&processor);
        remove_folder(path);
    }
    bytes_free(&deep);
    j->status = PG_OK;
    return NULL;
}

static void run_on_small_stack(job *j, void *(*body)(void *)) {
    pthread_attr_t attributes;
    pthread_t thread;
    assert_int_equal(pthread_attr_init(&attributes), 0);
    assert_int_equal(pthread_attr_setstacksize(&attributes, small_stack()), 0);
#if defined(__GLIBC__)
    pthread_attr_t before;
    assert_int_equal(pthread_getattr_default_np(&before), 0);
    assert_int_equal(pthread_setattr_default_np(&attributes), 0); /* of the library's threads */
#endif
    assert_int_equal(pthread_create(&thread, &attributes, body, j), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
#if defined(__GLIBC__)
    assert_int_equal(pthread_setattr_default_np(&before), 0);
#endif
    pthread_attr_destroy(&attributes);
    if (j->status < 0) fail_msg("%s: %s", pg_status_name(j->status), j->message);
}

static int setup(void **state) {
    const npz_options npz = NPZ_PLAIN;
    bytes file = make_npz(&npz);
    (void)state;
    for (int i = 0; i < N_FOLDERS; i++) {
        const tiny_options options = i ? tiny_saved_today() : tiny_official();
        make_temp_folder(folders[i], sizeof folders[i]);
        tiny_write(folders[i], &options);
        write_file(folders[i], "vae-oid.npz", file.data, file.size);
    }
    bytes_free(&file);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    for (int i = 0; i < N_FOLDERS; i++) remove_folder(folders[i]);
    return 0;
}

static void with_malloc(void **state) {
    (void)state;
    for (int i = 0; i < N_FOLDERS; i++) run_on_small_stack(&(job){.folder = folders[i]}, run_all);
}

static void with_an_allocator(void **state) {
    (void)state;
    for (int i = 0; i < N_FOLDERS; i++) {
        counter_init(&memory);
        run_on_small_stack(&(job){.folder = folders[i], .allocator = &memory.hooks}, run_all);
        assert_true(counter_clean(&memory));
    }
}

static void hostile_files(void **state) {
    (void)state;
    run_on_small_stack(&(job){0}, open_hostile);
}

int main(int argc, char **argv) {
#ifdef SANITIZED
    say("sanitizers need more stack than that\n");
    return 77;
#endif
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(with_malloc),
        cmocka_unit_test(with_an_allocator),
        cmocka_unit_test(hostile_files),
    };
    return RUN_TESTS(tests, setup, teardown);
}
