/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Replays processor/cases.json (written by make_processor_cases.py with
 * transformers): batches of prompts, suffixes and images in, and every array
 * and row report as transformers' PaliGemmaProcessor gives it, pixels by hash;
 * where it raised, an error here.
 */
#include "run_tests.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <paligemma/paligemma.h>

#include "golden.h"

enum { MAX_CASES = 200, MAX_ROWS = 8, MAX_IMAGES = 24 };

static const char *const models[] = {"gemma1", "gemma2", "demo"};
static const char *const folders[] = {GOLDEN_FOLDER "/models/gemma1", GOLDEN_FOLDER "/models/gemma2", DEMO_FOLDER};
static pg_processor *processors[sizeof models / sizeof *models]; /* opened when a case needs one */

/* A batch as the case describes it, and the memory that it borrows. */
typedef struct case_batch {
    pg_batch batch;
    pg_encode_options options;
    const char *prompts[MAX_ROWS], *suffixes[MAX_ROWS];
    size_t prompt_sizes[MAX_ROWS], suffix_sizes[MAX_ROWS];
    int32_t image_counts[MAX_ROWS];
    pg_image images[MAX_IMAGES];
    uint8_t *pixels[MAX_IMAGES];
} case_batch;

static int64_t integer(const json_t *object, const char *key) {
    return (int64_t)json_integer_value(json_object_get(object, key));
}

static const pg_processor *processor_of(const json_t *golden) {
    const char *model = json_string_value(json_object_get(golden, "model"));
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        if (strcmp(model, models[i]) != 0) continue;
        if (!processors[i]) CHECK(pg_processor_open(folders[i], NULL, &processors[i]));
        return processors[i];
    }
    fail_msg("no model %s", model);
    return NULL;
}

static int32_t read_texts(const json_t *list, const char **texts, size_t *sizes) {
    size_t n = json_array_size(list); /* 0 for null */
    assert_true(n <= MAX_ROWS);
    for (size_t i = 0; i < n; i++) {
        texts[i] = json_string_value(json_array_get(list, i));
        sizes[i] = json_string_length(json_array_get(list, i));
    }
    return (int32_t)n;
}

/* The bytes that make_processor_cases.py drew: the high byte of each state of xorshift32. */
static void read_image(const json_t *json, pg_image *image, uint8_t **pixels) {
    const size_t channels[] = {
        [PG_IMAGE_RGB8] = 3, [PG_IMAGE_BGR8] = 3, [PG_IMAGE_RGBA8] = 4, [PG_IMAGE_BGRA8] = 4, [PG_IMAGE_GRAY8] = 1};
    int32_t width = (int32_t)integer(json, "width"), height = (int32_t)integer(json, "height");
    int32_t format = (int32_t)integer(json, "format");
    uint32_t state = (uint32_t)integer(json, "seed");
    size_t n = (size_t)width * (size_t)height * channels[format];
    *pixels = malloc(n);
    assert_non_null(*pixels);
    for (size_t i = 0; i < n; i++) {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (*pixels)[i] = (uint8_t)(state >> 24);
    }
    CHECK(pg_image_from_pixels(image, sizeof *image, format, width, height, *pixels, 0));
}

static void read_batch(const json_t *golden, case_batch *b) {
    pg_batch *batch = &b->batch;
    memset(b, 0, sizeof *b);
    CHECK(pg_batch_init(batch, sizeof *batch));
    CHECK(pg_encode_options_init(&b->options, sizeof b->options));
    batch->n_prompts = read_texts(json_object_get(golden, "prompts"), b->prompts, b->prompt_sizes);
    batch->n_suffixes = read_texts(json_object_get(golden, "suffixes"), b->suffixes, b->suffix_sizes);
    if (batch->n_prompts) batch->prompts = b->prompts, batch->prompt_sizes = b->prompt_sizes;
    if (batch->n_suffixes) batch->suffixes = b->suffixes, batch->suffix_sizes = b->suffix_sizes;

    const json_t *images = json_object_get(golden, "images"), *counts = json_object_get(golden, "image_counts");
    assert_true(json_array_size(images) <= MAX_IMAGES && json_array_size(counts) <= MAX_ROWS);
    batch->n_images = (int32_t)json_array_size(images);
    batch->images = b->images;
    for (int32_t i = 0; i < batch->n_images; i++)
        read_image(json_array_get(images, (size_t)i), &b->images[i], &b->pixels[i]);
    batch->n_image_counts = (int32_t)json_array_size(counts);
    if (batch->n_image_counts) batch->image_counts = b->image_counts;
    for (int32_t i = 0; i < batch->n_image_counts; i++)
        b->image_counts[i] = (int32_t)json_integer_value(json_array_get(counts, (size_t)i));

    b->options.padding = (int32_t)integer(golden, "padding");
    b->options.padding_side = (int32_t)integer(golden, "padding_side");
    b->options.pad_to_multiple_of = (int32_t)integer(golden, "pad_to_multiple_of");
    b->options.max_length = integer(golden, "max_length");
    b->options.flags = integer(golden, "truncate") ? PG_ENCODE_TRUNCATE : 0;
    b->options.truncation = (int32_t)integer(golden, "truncation");
    b->options.truncation_side = (int32_t)integer(golden, "truncation_side");
}

/* runs: [[value, length], ...] over the whole array. */
static void check_runs(const char *name, const json_t *runs, const int64_t *found, int64_t n) {
    int64_t at = 0;
    for (size_t r = 0; r < json_array_size(runs); r++) {
        int64_t value = (int64_t)json_integer_value(json_array_get(json_array_get(runs, r), 0));
        int64_t length = (int64_t)json_integer_value(json_array_get(json_array_get(runs, r), 1));
        for (int64_t i = 0; i < length; i++, at++) {
            assert_true(at < n);
            if (found[at] != value)
                fail_msg("%s[%lld]: found %lld, expected %lld", name, (long long)at, (long long)found[at],
                         (long long)value);
        }
    }
    assert_int_equal(at, n);
}

static void check_hash(const char *name, const json_t *array, const pg_tensor *found, int64_t n) {
    char hash[32];
    int is_float = found->dtype == PG_DTYPE_F32;
    const json_t *first = json_object_get(array, "first");
    snprintf(hash, sizeof hash, "%016llx",
             (unsigned long long)golden_hash(GOLDEN_HASH_START, found->data, (size_t)n * (is_float ? 4 : 8)));
    if (strcmp(hash, json_string_value(json_object_get(array, "hash"))) == 0) return;
    for (size_t i = 0; i < json_array_size(first); i++)
        print_error("%s[%zu]: found %.9g, expected %.9g\n", name, i,
                    is_float ? (double)((const float *)found->data)[i] : (double)((const int64_t *)found->data)[i],
                    json_number_value(json_array_get(first, i)));
    fail_msg("%s: hash %s, expected %s", name, hash, json_string_value(json_object_get(array, "hash")));
}

static void check_array(const pg_inputs *inputs, const char *name, const json_t *array) {
    const json_t *shape = json_object_get(array, "shape");
    pg_tensor tensor = {.struct_size = sizeof tensor};
    CHECK(pg_inputs_get_tensor(inputs, name, &tensor));
    int64_t n = 1;
    assert_int_equal(tensor.n_dims, json_array_size(shape));
    for (int32_t i = 0; i < tensor.n_dims; i++) {
        assert_int_equal(tensor.shape[i], json_integer_value(json_array_get(shape, (size_t)i)));
        n *= tensor.shape[i];
    }
    assert_int_equal(tensor.dtype, strcmp(name, "pixel_values") == 0 ? PG_DTYPE_F32 : PG_DTYPE_I64);
    const json_t *runs = json_object_get(array, "runs");
    if (runs)
        check_runs(name, runs, tensor.data, n);
    else
        check_hash(name, array, &tensor, n);
}

static void check_row(const pg_inputs *inputs, int64_t row, const json_t *expected) {
    pg_row_info info = {.struct_size = sizeof info};
    CHECK(pg_inputs_get_row_info(inputs, row, &info));
    assert_int_equal(info.events, integer(expected, "events"));
    assert_int_equal(info.first_token, integer(expected, "first_token"));
    assert_int_equal(info.n_tokens, integer(expected, "n_tokens"));
    assert_int_equal(info.n_suffix, integer(expected, "n_suffix"));
    assert_int_equal(info.n_truncated, integer(expected, "n_truncated"));
    assert_int_equal(info.first_image, integer(expected, "first_image"));
    assert_int_equal(info.n_images, integer(expected, "n_images"));
}

static void test_case(void **state) {
    const json_t *golden = *state;
    case_batch b;
    pg_inputs *inputs = NULL;
    const char *name;
    json_t *array;
    read_batch(golden, &b);
    pg_status status = pg_processor_encode_batch(processor_of(golden), &b.batch, &b.options, &inputs);
    for (int32_t i = 0; i < b.batch.n_images; i++) free(b.pixels[i]);
    if (json_object_get(golden, "error")) {
        if (status >= 0) fail_msg("accepted; transformers: %s", json_string_value(json_object_get(golden, "error")));
        assert_true(status == PG_ERROR_ARGUMENT || status == PG_ERROR_LIMIT);
        assert_null(inputs);
        return;
    }
    if (status < 0) fail_msg("%s", pg_last_error());
    json_object_foreach(json_object_get(golden, "arrays"), name, array) check_array(inputs, name, array);
    const json_t *rows = json_object_get(golden, "rows");
    for (size_t i = 0; i < json_array_size(rows); i++) check_row(inputs, (int64_t)i, json_array_get(rows, i));
    pg_inputs_close(&inputs);
}

int main(int argc, char **argv) {
    static struct CMUnitTest tests[MAX_CASES];
    static char names[MAX_CASES][32];
    json_error_t error;
    json_t *cases = json_load_file(GOLDEN_FOLDER "/processor/cases.json", JSON_ALLOW_NUL, &error);
    size_t n = json_array_size(cases);
    if (!cases || n < 100 || n > MAX_CASES) {
        fprintf(stderr, "processor/cases.json: %zu cases, 100 to %d expected; %s\n", n, MAX_CASES,
                cases ? "" : error.text);
        return 1;
    }
    for (size_t i = 0; i < n; i++) {
        json_t *golden = json_array_get(cases, i);
        snprintf(names[i], sizeof names[i], "case %zu, %.10s", i, json_string_value(json_object_get(golden, "model")));
        tests[i] = (struct CMUnitTest){.name = names[i], .test_func = test_case, .initial_state = golden};
    }
    int failed = run_matching_tests(argc, argv, tests, n, NULL, NULL);
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) pg_processor_close(&processors[i]);
    json_decref(cases);
    return failed;
}
