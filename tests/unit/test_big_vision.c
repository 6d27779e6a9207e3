/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * lib/processor/layout_big_vision.c and resize_float.c. The golden numbers are those of tensorflow 2.21 (pixels) and of
 * sentencepiece 0.2.3 on the demo checkpoint (ids), written by tests/oracle/big_vision.py --golden.
 */
#include "run_tests.h"

#include <math.h>
#include <string.h>

#include "golden_images.h"
#include "hex.h"
#include "image/preprocess.h"
#include "image/resize_float.h"
#include "opened.h"
#include "processor/layout_big_vision.h"
#include "tokenizer/stream_decoder.h"
#include "tokenizer/tokenizer_load.h"
#include "support.h"

#define MEMORY (&pgi_memory_default)

static pgi_tokenizer *tokenizer;
static pgi_id_list ids;
static int64_t n_prefix;

static int open_tokenizer(void **state) {
    (void)state;
    pgi_id_list_init(&ids, MEMORY);
    return pgi_tokenizer_open(MEMORY, PGI_GOLDEN_FOLDER "/../../examples/demo/model", 0, NULL, &tokenizer) < 0;
}

static int close_tokenizer(void **state) {
    (void)state;
    pgi_id_list_free(&ids);
    pgi_tokenizer_close(&tokenizer);
    return 0;
}

static pg_status layout(int32_t n_tokens, int32_t n_images, const char *prompt, const char *suffix, int open) {
    ids.size = 0;
    n_prefix = -1;
    pgi_layout layout = {.tokenizer = tokenizer, .n_image_tokens = n_tokens};
    pgi_big_vision_row row = {
        n_images, {prompt, prompt ? strlen(prompt) : 0}, {suffix, suffix ? strlen(suffix) : 0}, open};
    return pgi_layout_big_vision(&layout, &row, &ids, &n_prefix);
}

static void assert_message(pg_status found, pg_status expected, const char *first, const char *second) {
    const char *text = pgi_error_text();
    if (found != expected || !strstr(text, first) || !strstr(text, second))
        fail_msg("found %s (%s), expected %s with \"%s\" and \"%s\"", pg_status_name(found), text,
                 pg_status_name(expected), first, second);
}

/* ------------------------------------------------------------------------------------------------------------ ids */

/* The ids written in `line`, "|" between prefix and suffix; how many of them differ from `ids`, or there are too many.
 */
static size_t n_wrong(char *line) {
    size_t n = 0, wrong = 0;
    for (char *word = strtok(line, " \n"); word; word = strtok(NULL, " \n")) {
        if (word[0] == '|') {
            wrong += n_prefix != (int64_t)n;
            continue;
        }
        wrong += n >= ids.size || ids.data[n] != strtoll(word, NULL, 10);
        n++;
    }
    return wrong + (n != ids.size);
}

static void golden_ids(void **state) {
    (void)state;
    FILE *file = fopen(PGI_GOLDEN_FOLDER "/big_vision/ids.txt", "r");
    char *line = NULL, *answer = NULL;
    size_t capacity = 0, answer_capacity = 0;
    int n = 0;
    assert_non_null(file);
    while (getline(&line, &capacity, file) > 0 && getline(&answer, &answer_capacity, file) > 0) {
        char *at = line + 1;
        long n_tokens = strtol(at, &at, 10), n_images = strtol(at, &at, 10), open = strtol(at, &at, 10);
        size_t prompt_size, suffix_size;
        line[strcspn(line, "\n")] = 0;
        char *prompt = hex_text(&at, &prompt_size), *suffix = hex_text(&at, &suffix_size);
        ids.size = 0;
        pgi_layout layout = {.tokenizer = tokenizer, .n_image_tokens = (int32_t)n_tokens};
        pgi_big_vision_row row = {(int32_t)n_images, {prompt, prompt_size}, {suffix, suffix_size}, (int)open};
        assert_int_equal(pgi_layout_big_vision(&layout, &row, &ids, &n_prefix), PG_OK);
        if (n_wrong(answer)) fail_msg("case %d: wrong ids", n);
        n++;
    }
    free(line);
    free(answer);
    fclose(file);
    assert_int_equal(n, 40);
}

static void a_row_is_laid_out(void **state) {
    (void)state;
    int64_t image = pgi_tokenizer_special(tokenizer, PGI_TOKEN_IMAGE);
    int64_t bos = pgi_tokenizer_special(tokenizer, PGI_TOKEN_BOS),
            eos = pgi_tokenizer_special(tokenizer, PGI_TOKEN_EOS);
    int64_t newline = pgi_tokenizer_piece_id(tokenizer, "\n");
    static const char *const empty[] = {NULL, ""};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(layout(3, 2, empty[i], NULL, 0), PG_OK); /* no suffix: no eos either */
        assert_int_equal(ids.size, 8);
        assert_int_equal(n_prefix, 8);
        for (int k = 0; k < 6; k++) assert_int_equal(ids.data[k], image);
        assert_int_equal(ids.data[6], bos);
        assert_int_equal(ids.data[7], newline);
    }
    assert_int_equal(layout(0, 1, "", "", 0), PG_OK); /* an empty suffix is the eos alone */
    assert_int_equal(ids.size, 3);
    assert_int_equal(n_prefix, 2);
    assert_int_equal(ids.data[2], eos);
    assert_int_equal(layout(0, 1, "", "", 1), PG_OK);
    assert_int_equal(ids.size, 2);
    assert_int_equal(layout(1, 0, "\n", "\n", 1), PG_OK); /* tokenized apart, newlines never become one piece */
    assert_int_equal(ids.size, 4);
    assert_int_equal(n_prefix, 3);
    for (int k = 1; k < 4; k++) assert_int_equal(ids.data[k], newline);
    /* behind what is there already */
    pgi_layout layout = {.tokenizer = tokenizer, .n_image_tokens = 1};
    assert_int_equal(pgi_layout_big_vision(&layout, &(pgi_big_vision_row){.n_images = 1}, &ids, &n_prefix), PG_OK);
    assert_int_equal(ids.size, 7);
    assert_int_equal(n_prefix, 3);
}

/* What a literal reading of HF's special tokens (PG_ENCODE_LITERAL) would not give. */
static void texts_are_read_as_sentencepiece_does(void **state) {
    (void)state;
    int64_t mask = pgi_tokenizer_piece_id(tokenizer, "<mask>");
    assert_int_equal(layout(0, 0, "<mask><loc0007><bos>", NULL, 0), PG_OK);
    assert_int_equal(ids.data[1], mask);
    assert_int_equal(ids.data[2], pgi_tokenizer_piece_id(tokenizer, "<loc0007>"));
    for (size_t i = 3; i < ids.size; i++) assert_true(ids.data[i] != ids.data[0]);
    assert_true(ids.size > 6);
    ids.size = 0;
    assert_int_equal(pgi_tokenizer_tokenize(tokenizer, "<mask>", 6, PGI_LITERAL, &ids), PG_OK);
    assert_true(ids.size > 1);
}

static void what_is_wrong_is_named(void **state) {
    (void)state;
    assert_message(layout(1, 1, "caption \xC3(", "b", 0), PG_ERROR_ARGUMENT, "prompt: ", "byte 8");
    assert_message(layout(1, 1, "a", "b\xFF", 0), PG_ERROR_ARGUMENT, "suffix: ", "byte 1");
    assert_message(layout(-1, 1, "a", "b", 0), PG_ERROR_ARGUMENT, "1 images", "-1 tokens");
    assert_message(layout(1, -1, "a", "b", 0), PG_ERROR_ARGUMENT, "-1 images", "1 tokens");
    static const int needed[] = {PGI_TOKEN_IMAGE, PGI_TOKEN_BOS, PGI_TOKEN_EOS};
    static const char *const names[] = {"<image>", "bos", "eos"};
    for (int i = 0; i < 3; i++) {
        int64_t id = tokenizer->specials[needed[i]];
        tokenizer->specials[needed[i]] = -1;
        pg_status open = layout(1, 1, "a", "b", 1), no_image = layout(0, 1, "a", "b", 0);
        pg_status all_three = layout(1, 1, "a", "b", 0);
        tokenizer->specials[needed[i]] = id;
        assert_message(all_three, PG_ERROR_UNSUPPORTED, "no ", names[i]);
        assert_int_equal(open, needed[i] == PGI_TOKEN_EOS ? PG_OK : PG_ERROR_UNSUPPORTED);
        assert_int_equal(no_image, needed[i] == PGI_TOKEN_IMAGE ? PG_OK : PG_ERROR_UNSUPPORTED);
    }
}

/* --------------------------------------------------------------------------------------------------------- pixels */

static void golden_pixels(void **state) {
    (void)state;
    FILE *file = fopen(PGI_GOLDEN_FOLDER "/big_vision/pixels.txt", "r");
    int width, height, side, n = 0;
    unsigned long long expected;
    assert_non_null(file);
    while (fscanf(file, "%d %d %d %llx", &width, &height, &side, &expected) == 4) {
        pgi_image_settings settings = {.width = side, .height = side};
        pgi_rgb image = {test_image(width, height), width, height};
        size_t size = 3 * (size_t)side * (size_t)side * sizeof(float);
        float *pixels = malloc(size);
        assert_non_null(image.data);
        assert_non_null(pixels);
        const pgi_opened opened = opened_of(&image);
        assert_int_equal(pgi_big_vision_pixels(MEMORY, NULL, &settings, &opened, pixels), PG_OK);
        if (digest(pixels, size) != expected) fail_msg("%d x %d to %d: wrong pixels", width, height, side);
        free(pixels);
        free(image.data);
        n++;
    }
    fclose(file);
    assert_int_equal(n, 32);
}

/* Four samples to two: around the centres 1 and 3 the triangle weighs them 3 : 3 : 1 and 1 : 3 : 3. The planes are red,
 * green and blue. */
static void weights_by_hand(void **state) {
    (void)state;
    uint8_t samples[12] = {0, 70, 7, 70, 0, 7, 140, 0, 7, 210, 0, 7};
    float out[6], expected[6] = {50, 160, 30, 0, 7, 7};
    for (int down = 0; down < 2; down++) {
        pgi_rgb in = {samples, down ? 1 : 4, down ? 4 : 1};
        assert_int_equal(pgi_resize_float(MEMORY, NULL, &in, down ? 1 : 2, down ? 2 : 1, out), PG_OK);
        for (int i = 0; i < 6; i++) assert_true(fabsf(out[i] - expected[i]) < 1e-4f);
    }
}

static void sizes_are_checked(void **state) {
    (void)state;
    uint8_t pixel[3] = {1, 2, 3};
    float out[3];
    static const int32_t sizes[][4] = {{1, 1, 0, 1}, {1, 1, 1, -1}, {0, 1, 1, 1}, {1, 0, 1, 1}};
    for (int i = 0; i < 4; i++) {
        pgi_rgb in = {pixel, sizes[i][0], sizes[i][1]};
        assert_message(pgi_resize_float(MEMORY, NULL, &in, sizes[i][2], sizes[i][3], out), PG_ERROR_ARGUMENT, "image",
                       "at least 1 x 1");
    }
    pgi_rgb wide = {pixel, 178956970, 1}, tall = {pixel, 1, 178956970}; /* refused before a pixel is read */
    assert_message(pgi_resize_float(MEMORY, NULL, &wide, 224, 224, out), PG_ERROR_LIMIT, "178956970 pixels to 224",
                   "ratio");
    assert_message(pgi_resize_float(MEMORY, NULL, &tall, 224, 224, out), PG_ERROR_LIMIT, "178956970 pixels to 224",
                   "ratio");
}

/* Centres of pixels beyond 2^23 are not exact in f32: TensorFlow gives up on this one ("Span is too large"). */
static void an_image_too_long_for_tensorflow(void **state) {
    (void)state;
    enum { LENGTH = 8553402, SIDE = 26 };
    uint8_t *samples = malloc((size_t)LENGTH * 3);
    float *out = malloc(3 * SIDE * SIDE * sizeof *out);
    assert_non_null(samples);
    assert_non_null(out);
    memset(samples, 100, (size_t)LENGTH * 3);
    pgi_rgb in = {samples, 1, LENGTH};
    assert_int_equal(pgi_resize_float(MEMORY, NULL, &in, SIDE, SIDE, out), PG_OK);
    for (int i = 0; i < 3 * SIDE * SIDE; i++) assert_true(fabsf(out[i] - 100.0f) < 0.5f);
    free(samples);
    free(out);
}

/* --------------------------------------------------------------------------------------------- failing allocations */

static pg_status all(const pgi_memory *memory) {
    static const char prompt[] = "detect  cat", suffix[] = "<loc0001> cat and a rather long answer, so that ids grow";
    uint8_t samples[5 * 4 * 3] = {0};
    float pixels[3 * 7 * 7];
    pgi_rgb in = {samples, 5, 4};
    pgi_image_settings settings = {.width = 7, .height = 7};
    pgi_id_list list;
    pgi_id_list_init(&list, memory);
    pgi_memory kept = tokenizer->memory;
    tokenizer->memory = *memory;
    pgi_layout layout = {.tokenizer = tokenizer, .n_image_tokens = 40};
    pgi_big_vision_row row = {2, {prompt, strlen(prompt)}, {suffix, strlen(suffix)}, 0};
    pg_status status = pgi_layout_big_vision(&layout, &row, &list, &n_prefix);
    tokenizer->memory = kept;
    pgi_id_list_free(&list);
    const pgi_opened opened = opened_of(&in);
    return status < 0 ? status : pgi_big_vision_pixels(memory, NULL, &settings, &opened, pixels);
}

static void every_failing_allocation_is_survived(void **state) {
    (void)state;
    int n = 0;
    for (pg_status status = PG_ERROR_MEMORY; status != PG_OK; n++) {
        counter c;
        pgi_memory memory;
        counter_init(&c);
        c.fail_at = n + 1;
        assert_int_equal(pgi_memory_from_allocator(&c.hooks, &memory), PG_OK);
        status = all(&memory);
        assert_true(counter_clean(&c));
        if (status != PG_OK) assert_message(status, PG_ERROR_MEMORY, "out of memory", "");
    }
    assert_true(n > 10);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_ids),
        cmocka_unit_test(a_row_is_laid_out),
        cmocka_unit_test(texts_are_read_as_sentencepiece_does),
        cmocka_unit_test(what_is_wrong_is_named),
        cmocka_unit_test(golden_pixels),
        cmocka_unit_test(weights_by_hand),
        cmocka_unit_test(sizes_are_checked),
        cmocka_unit_test(an_image_too_long_for_tensorflow),
        cmocka_unit_test(every_failing_allocation_is_survived),
    };
    return RUN_TESTS(tests, open_tokenizer, close_tokenizer);
}
