/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Each allocation of the whole way fails in its turn: PG_ERROR_MEMORY comes back, nothing breaks, nothing is kept. */
#include "run_tests.h"

#include <stdio.h>
#include <string.h>

#include "support.h"
#include "tiny.h"

typedef struct way {
    char folder[512], image[600];
    uint32_t flags; /* of pg_model_options */
    counter memory;
} way;

/* One call after the other until one fails; returns the status of that one. */
static pg_status go(way *w) {
    pg_model_options model_options;
    pg_processor_options processor_options;
    pg_generate_options options;
    pg_sampling_options sampling;
    pg_session_options session_options;
    uint32_t token_flags;
    pg_model *model = NULL;
    pg_processor *processor = NULL;
    pg_inputs *inputs = NULL, *text_only = NULL;
    pg_features *features = NULL, *again = NULL;
    pg_tensor kept = {.struct_size = sizeof kept};
    pg_scores *scores = NULL;
    pg_session *session = NULL;
    pg_forward_options forward_options;
    pg_outputs *outputs = NULL;
    pg_result *result = NULL;
    pg_detokenizer *detokenizer = NULL;
    pg_answer *answer = NULL;
    pg_answer_options answer_options;
    pg_image image;
    pg_status status;
    int64_t ids[64], token;
    size_t n;
    char text[256], saved[700];
    const char *piece;
    pg_model_options_init(&model_options, sizeof model_options);
    pg_processor_options_init(&processor_options, sizeof processor_options);
    pg_generate_options_init(&options, sizeof options);
    pg_sampling_options_init(&sampling, sizeof sampling);
    pg_session_options_init(&session_options, sizeof session_options);
    pg_forward_options_init(&forward_options, sizeof forward_options);
    forward_options.n_threads = 1;
    model_options.allocator = processor_options.allocator = &w->memory.hooks;
    model_options.flags = w->flags;
    options.max_new_tokens = session_options.max_new_tokens = 3;
    options.n_threads = session_options.n_threads = 1;
    pg_answer_options_init(&answer_options, sizeof answer_options);
    answer_options.width = answer_options.height = 100;
    options.flags = PG_GENERATE_LOG_PROBS | PG_GENERATE_DETECT;
    pg_image_from_path(&image, sizeof image, w->image);
#define STEP(call) \
    if ((status = (call)) < 0) goto done
    STEP(pg_model_open(w->folder, &model_options, &model));
    processor_options.flags = PG_PROCESSOR_TEXT_ONLY;
    STEP(pg_processor_open(w->folder, &processor_options, &processor));
    pg_processor_close(&processor);
    processor_options.flags = PG_PROCESSOR_IMAGES_ONLY;
    STEP(pg_processor_open(w->folder, &processor_options, &processor));
    pg_processor_close(&processor);
    processor_options.flags = 0;
    STEP(pg_processor_open(w->folder, &processor_options, &processor));
    STEP(pg_processor_get_token_flags(processor, 0, &token_flags));
    STEP(pg_model_get_config(model, "", text, sizeof text, &n));
    STEP(pg_processor_tokenize(processor, "the cat <loc0001> \xC3\xA9 \xF0\x9F\x90\xB1", 0, ids, 64, &n));
    STEP(pg_processor_decode(processor, ids, n, 0, text, sizeof text, &n));
    STEP(pg_detokenizer_create(processor, 0, &detokenizer));
    for (int i = 0; i < 8; i++) STEP(pg_detokenizer_push(detokenizer, ids[i], &piece, NULL));
    STEP(pg_detokenizer_flush(detokenizer, &piece, NULL));
    STEP(pg_processor_encode(processor, &image, "the cat", NULL, &inputs));
    STEP(pg_generate(model, processor, inputs, &options, &result));
    STEP(pg_answer_create(processor, result, 0, &answer_options, &answer));
    pg_result_close(&result);
    sampling.flags = PG_SAMPLING_RANDOM | PG_SAMPLING_ADD_EOS;
    sampling.eos_ids = &(const int64_t){9};
    sampling.n_eos_ids = 1;
    options.sampling = &sampling;
    options.flags = PG_GENERATE_LOG_PROBS | PG_GENERATE_LOGITS | PG_GENERATE_SCORES;
    options.n_alternatives = 3;
    options.stop_strings = (const char *const[]){"nobody says this"};
    options.n_stop_strings = 1;
    STEP(pg_generate(model, processor, inputs, &options, &result));
    pg_model_info info = {.struct_size = sizeof info};
    STEP(pg_model_get_info(model, &info));
    forward_options.flags = info.embedding_dim > 0 ? PG_FORWARD_RETRIEVAL : PG_FORWARD_ATTENTIONS;
    STEP(pg_forward(model, inputs, &forward_options, &outputs));
    STEP(pg_features_create(model, inputs, NULL, &features));
    STEP(pg_features_get_tensor(features, &kept));
    STEP(pg_features_from_tensor(model, &kept, &again));
    pg_features_close(&again);
    snprintf(saved, sizeof saved, "%s.features", w->image);
    STEP(pg_features_save(features, saved));
    STEP(pg_features_load(model, saved, &again));
    STEP(pg_features_to_bytes(again, NULL, 0, &n));
    STEP(pg_processor_encode(processor, NULL, "cat", NULL, &text_only));
    STEP(pg_score(model, processor, inputs, (const char *const[]){"cat", "the dog"}, 2, NULL, &scores));
    STEP(pg_session_create(model, &session_options, &session));
    STEP(pg_session_prefill(session, text_only, features));
    STEP(pg_session_step(session, &token));
    STEP(pg_session_feed(session, ids, 1));
    STEP(pg_session_sample(session, NULL, &token));
    STEP(pg_session_prefill(session, inputs, NULL));
    STEP(pg_session_step(session, &token));
#undef STEP
    status = PG_OK;
done:
    /* an error must leave every handle NULL or whole: closing finds out */
    pg_session_close(&session);
    pg_scores_close(&scores);
    pg_answer_close(&answer);
    pg_detokenizer_close(&detokenizer);
    pg_features_close(&again);
    pg_features_close(&features);
    pg_inputs_close(&text_only);
    pg_inputs_close(&inputs);
    pg_result_close(&result);
    pg_outputs_close(&outputs);
    pg_processor_close(&processor);
    pg_model_close(&model);
    return status;
}

static void check(way *w, int64_t n, int64_t total, const char *how, int must_fail) {
    stale_error();
    capture_begin();
    pg_status status = go(w);
    assert_int_equal(capture_end(), 0);
    if (status == PG_OK ? must_fail : status != PG_ERROR_MEMORY || bad_error(status) || error_is_stale())
        fail_msg("allocation %lld of %lld failing %s gave %s: %s", (long long)n, (long long)total, how,
                 pg_status_name(status), pg_last_error());
    if (!counter_clean(&w->memory))
        fail_msg("allocation %lld of %lld failing %s: something was kept (%s)", (long long)n, (long long)total, how,
                 pg_last_error());
}

static void every_allocation(const tiny_options *options, int image, int32_t weights, uint32_t flags) {
    static way w;
    memset(&w, 0, sizeof w);
    w.flags = flags;
    make_temp_folder(w.folder, sizeof w.folder);
    tiny_write(w.folder, options);
    if (!options->new_style) remove_file(w.folder, "tokenizer.json");
    const char *settings =
        "{\"eos_token_id\": 1, \"suppress_tokens\": [5, 6], \"begin_suppress_tokens\": [7], "
        "\"forced_bos_token_id\": 2, \"forced_eos_token_id\": [1], \"bad_words_ids\": [[8, 9]], "
        "\"sequence_bias\": [[[9], 1.5]], \"stop_strings\": [\"never said\"], \"do_sample\": true}";
    if (options->new_style) write_file(w.folder, "generation_config.json", settings, strlen(settings));
    if (weights) {
        char source[512];
        pg_convert_options convert;
        strcpy(source, w.folder);
        make_temp_folder(w.folder, sizeof w.folder);
        pg_convert_options_init(&convert, sizeof convert);
        convert.weights = weights;
        if (pg_model_convert(source, w.folder, &convert) != PG_OK) fail_msg("converting: %s", pg_last_error());
        remove_folder(source);
    }
    bytes file = tiny_image(image, 40, 30, 3);
    write_file(w.folder, "image", file.data, file.size);
    bytes_free(&file);
    snprintf(w.image, sizeof w.image, "%s/image", w.folder);

    counter_init(&w.memory);
    if (go(&w) != PG_OK) fail_msg("without any failure: %s", pg_last_error());
    assert_true(counter_clean(&w.memory));
    int64_t total = w.memory.n_allocs;
    assert_in_range(total, 30, 100000);
    int64_t n_failed = 0;
    for (int64_t n = 1; n <= total; n = next_fault(n), n_failed++) {
        counter_init(&w.memory);
        w.memory.fail_at = n;
        check(&w, n, total, "once", 1);
        counter_init(&w.memory);
        w.memory.fail_from = n;
        check(&w, n, total, "from then on", 1);
    }
    say("%lld of %lld allocations failed twice\n", (long long)n_failed, (long long)total);
    remove_folder(w.folder);
}

static void official_and_png(void **state) {
    tiny_options options = tiny_official();
    (void)state;
    every_allocation(&options, IMAGE_PNG, PG_WEIGHTS_STORED, PG_MODEL_IN_MEMORY);
}

static void today_and_jpeg(void **state) {
    tiny_options options = tiny_saved_today();
    (void)state;
    every_allocation(&options, IMAGE_JPEG_PROGRESSIVE, PG_WEIGHTS_STORED, 0);
}

static void converted_to_int8(void **state) {
    tiny_options options = tiny_official();
    (void)state;
    every_allocation(&options, IMAGE_PNG, PG_WEIGHTS_INT8, 0);
}

static void converted_to_int4(void **state) {
    tiny_options options = tiny_saved_today();
    (void)state;
    every_allocation(&options, IMAGE_PNG, PG_WEIGHTS_INT4, PG_MODEL_IN_MEMORY | PG_MODEL_VERIFY);
}

static void colpali_of_mlx(void **state) {
    tiny_options options = tiny_official();
    (void)state;
    options.colpali = TINY_COLPALI;
    options.mlx = 1;
    every_allocation(&options, IMAGE_PNG, PG_WEIGHTS_STORED, 0);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(official_and_png, capture_end_if_on),
        cmocka_unit_test_teardown(today_and_jpeg, capture_end_if_on),
        cmocka_unit_test_teardown(converted_to_int8, capture_end_if_on),
        cmocka_unit_test_teardown(converted_to_int4, capture_end_if_on),
        cmocka_unit_test_teardown(colpali_of_mlx, capture_end_if_on),
    };
    return RUN_TESTS(tests, NULL, NULL);
}
