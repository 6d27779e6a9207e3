/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* PG_PROCESSOR_TEXT_ONLY and _SENTENCEPIECE: folders with the tokenizer's files alone, what images are told, flags of
 * tokens. */
#include "run_tests.h"

#include <stdio.h>
#include <string.h>

#include "paligemma/paligemma.h"

#define OK(call)                                                         \
    do {                                                                 \
        if ((call) != PG_OK) fail_msg("%s: %s", #call, pg_last_error()); \
    } while (0)

static pg_processor *open_folder(const char *name, uint32_t flags) {
    char path[1024];
    pg_processor_options options;
    pg_processor *processor = NULL;
    snprintf(path, sizeof path, "%s/%s", PGI_GOLDEN_FOLDER, name);
    OK(pg_processor_options_init(&options, sizeof options));
    options.flags = flags;
    OK(pg_processor_open(path, &options, &processor));
    return processor;
}

static uint32_t flags_of(const pg_processor *processor, const char *piece) {
    int64_t id;
    uint32_t flags;
    OK(pg_processor_get_token_id(processor, piece, &id));
    OK(pg_processor_get_token_flags(processor, id, &flags));
    return flags;
}

static void a_folder_without_image_settings(void **state) {
    (void)state;
    static const char *const names[] = {"tokenizers/json", "tokenizers/spm"};
    for (int i = 0; i < 2; i++) {
        char path[1024];
        pg_processor *processor = NULL;
        pg_processor_info info = {.struct_size = sizeof info};
        int64_t ids[64];
        size_t n = 0;
        snprintf(path, sizeof path, "%s/%s", PGI_GOLDEN_FOLDER, names[i]);
        assert_int_equal(pg_processor_open(path, NULL, &processor), PG_ERROR_NOT_FOUND); /* image settings */
        processor = open_folder(names[i], PG_PROCESSOR_TEXT_ONLY);
        OK(pg_processor_get_info(processor, &info));
        assert_int_equal(info.flags, PG_PROCESSOR_TEXT_ONLY);
        assert_int_equal(info.image_size, 0);
        assert_int_equal(info.n_image_tokens, 0);
        assert_in_range(info.n_model_ids, 1, info.vocab_size);
        OK(pg_processor_tokenize(processor, "detect cat", 0, ids, 64, &n));
        char text[64];
        OK(pg_processor_decode(processor, ids, n, 0, text, sizeof text, NULL));
        assert_string_equal(text, "detect cat");
        pg_processor_close(&processor);
    }
}

/* As HF: AutoTokenizer knows the tokens of the files, PaliGemmaProcessor adds its own. */
static void the_tokens_of_the_processor_are_left_out(void **state) {
    (void)state;
    int64_t id;
    pg_processor *processor = open_folder("tokenizers/spm", PG_PROCESSOR_TEXT_ONLY);
    pg_processor_info info = {.struct_size = sizeof info};
    OK(pg_processor_get_info(processor, &info));
    assert_int_equal(info.image_id, -1);
    assert_int_equal(pg_processor_get_token_id(processor, "<image>", &id), PG_ERROR_NOT_FOUND);
    assert_int_equal(pg_processor_get_token_id(processor, "<loc0000>", &id), PG_ERROR_NOT_FOUND);
    pg_processor_close(&processor);
    processor = open_folder("../../examples/demo/model", PG_PROCESSOR_TEXT_ONLY); /* its files have them */
    OK(pg_processor_get_info(processor, &info));
    assert_int_equal(info.image_id, 1762);
    assert_int_equal(info.vocab_size, 1763);
    assert_int_equal(info.n_model_ids, 1762); /* transformers: vocab_size, without added tokens */
    pg_processor_close(&processor);
}

static void flags_are_those_of_added_tokens(void **state) {
    (void)state;
    pg_processor *processor = open_folder("../../examples/demo/model", 0);
    pg_processor_info info = {.struct_size = sizeof info};
    OK(pg_processor_get_info(processor, &info));
    assert_int_equal(info.flags, 0);
    assert_int_equal(info.n_model_ids, 1762);
    assert_int_equal(flags_of(processor, "<pad>"), PG_TOKEN_ADDED | PG_TOKEN_SPECIAL);
    assert_int_equal(flags_of(processor, "<image>"), PG_TOKEN_ADDED | PG_TOKEN_SPECIAL);
    assert_int_equal(flags_of(processor, "<loc0000>"), PG_TOKEN_ADDED | PG_TOKEN_NORMALIZED);
    assert_int_equal(flags_of(processor, "\xE2\x96\x81red"), 0);
    int n_added = 0;
    for (int64_t id = 0; id < info.vocab_size; id++) {
        uint32_t flags;
        OK(pg_processor_get_token_flags(processor, id, &flags));
        n_added += (flags & PG_TOKEN_ADDED) != 0;
    }
    assert_int_equal(n_added, 1251); /* len(tokenizer.get_added_vocab()) */
    pg_processor_close(&processor);
}

static void images_are_refused(void **state) {
    (void)state;
    static const uint8_t pixels[12];
    static const char *const prompts[] = {"cat", "dog"};
    static const int32_t counts[] = {0, 1};
    pg_processor *processor = open_folder("../../examples/demo/model", PG_PROCESSOR_TEXT_ONLY);
    pg_inputs *inputs = NULL;
    pg_image image;
    pg_batch batch;
    pg_tensor ids = {.struct_size = sizeof ids};
    OK(pg_image_from_pixels(&image, sizeof image, PG_IMAGE_RGB8, 2, 2, pixels, 0));
    assert_int_equal(pg_processor_encode(processor, &image, "cat", NULL, &inputs), PG_ERROR_ARGUMENT);
    assert_non_null(strstr(pg_last_error(), "PG_PROCESSOR_TEXT_ONLY"));
    assert_int_equal(pg_processor_encode(processor, NULL, "<image>cat", NULL, &inputs), PG_ERROR_ARGUMENT);
    assert_non_null(strstr(pg_last_error(), "row 0"));
    OK(pg_batch_init(&batch, sizeof batch));
    batch.n_prompts = batch.n_image_counts = 2;
    batch.prompts = prompts;
    batch.image_counts = counts;
    assert_int_equal(pg_processor_encode_batch(processor, &batch, NULL, &inputs), PG_ERROR_ARGUMENT);
    assert_non_null(strstr(pg_last_error(), "row 1"));
    assert_int_equal(pg_last_error_row(), 1);
    OK(pg_processor_encode(processor, NULL, "cat", NULL, &inputs)); /* text alone: bos, prompt, newline */
    OK(pg_inputs_get_tensor(inputs, "input_ids", &ids));
    assert_int_equal(((const int64_t *)ids.data)[0], 2);
    pg_inputs_close(&inputs);
    pg_processor_close(&processor);
}

/* PG_PROCESSOR_SENTENCEPIECE: the same ids, and a word on whether it is at work. */
static void sentencepiece_on_request(void **state) {
    (void)state;
    static const char text[] = "detect \xC3\xA9t\xC3\xA9 ; <loc0001> the  cat\n\n\xF0\x9F\x90\xB1";
    const char *folder = PGI_GOLDEN_FOLDER "/../../examples/demo/model";
    pg_processor *by_list = NULL, *asked = NULL;
    pg_processor_info info = {.struct_size = sizeof info};
    pg_processor_options options;
    OK(pg_processor_options_init(&options, sizeof options));
    OK(pg_processor_open(folder, &options, &by_list));
    OK(pg_processor_get_info(by_list, &info));
    assert_int_equal(info.flags, 0);
    options.flags = PG_PROCESSOR_SENTENCEPIECE;
#ifdef PGI_SENTENCEPIECE
    int64_t ids[2][64];
    size_t n[2];
    OK(pg_processor_open(folder, &options, &asked));
    OK(pg_processor_get_info(asked, &info));
    assert_int_equal(info.flags, PG_PROCESSOR_SENTENCEPIECE);
    OK(pg_processor_tokenize(by_list, text, 0, ids[0], 64, &n[0]));
    OK(pg_processor_tokenize(asked, text, 0, ids[1], 64, &n[1]));
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(ids[0], ids[1], n[0] * sizeof ids[0][0]);
#else
    (void)text;
    assert_int_equal(pg_processor_open(folder, &options, &asked), PG_ERROR_UNSUPPORTED);
    assert_non_null(strstr(pg_last_error(), "-Dsentencepiece=disabled"));
#endif
    pg_processor_close(&asked);
    pg_processor_close(&by_list);
}

static void unknown_flags_are_refused(void **state) {
    (void)state;
    pg_processor_options options;
    pg_processor *processor = NULL;
    OK(pg_processor_options_init(&options, sizeof options));
    options.flags = 8;
    assert_int_equal(pg_processor_open(PGI_GOLDEN_FOLDER, &options, &processor), PG_ERROR_ARGUMENT);
    assert_non_null(strstr(pg_last_error(), "PG_PROCESSOR_TEXT_ONLY"));
    assert_null(processor);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_folder_without_image_settings), cmocka_unit_test(the_tokens_of_the_processor_are_left_out),
        cmocka_unit_test(flags_are_those_of_added_tokens), cmocka_unit_test(images_are_refused),
        cmocka_unit_test(sentencepiece_on_request),        cmocka_unit_test(unknown_flags_are_refused),
    };
    return RUN_TESTS(tests, NULL, NULL);
}
