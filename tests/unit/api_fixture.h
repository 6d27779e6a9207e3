/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What test_api.c and test_api_structs.c share: a tiny model with its inputs, and calls with options of any size.
 * run_tests.h comes before it. */
#ifndef TESTS_UNIT_API_FIXTURE_H
#define TESTS_UNIT_API_FIXTURE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "call_status.h"
#include "support.h"
#include "tiny.h"

static char folder[512];
static pg_model *model;
static pg_processor *processor;
static pg_inputs *inputs; /* with an image */
static pg_inputs *text_only;

#define ARGUMENT(call) ERROR(call, PG_ERROR_ARGUMENT)

static inline int setup(void **state) {
    tiny_options options = tiny_saved_today();
    pg_image image;
    (void)state;
    make_temp_folder(folder, sizeof folder);
    tiny_write(folder, &options);
    bytes file = tiny_image(IMAGE_JPEG, 30, 20, 1);
    OK(pg_model_open(folder, NULL, &model));
    OK(pg_processor_open(folder, NULL, &processor));
    OK(pg_image_from_bytes(&image, sizeof image, file.data, file.size));
    OK(pg_processor_encode(processor, &image, "the cat", NULL, &inputs));
    OK(pg_processor_encode(processor, NULL, "the cat", NULL, &text_only));
    bytes_free(&file);
    return 0;
}

static inline int teardown(void **state) {
    (void)state;
    pg_inputs_close(&inputs);
    pg_inputs_close(&text_only);
    pg_processor_close(&processor);
    pg_model_close(&model);
    remove_folder(folder);
    return 0;
}

/* Calls something with options of `size` bytes; everything made is closed again. */
static inline pg_status with_model(void *options) {
    pg_model *out = NULL;
    pg_status status = pg_model_open(folder, options, &out);
    pg_model_close(&out);
    return status;
}
static inline pg_status with_processor(void *options) {
    pg_processor *out = NULL;
    pg_status status = pg_processor_open(folder, options, &out);
    pg_processor_close(&out);
    return status;
}
static inline pg_status with_encode(void *options) {
    pg_inputs *out = NULL;
    pg_status status = pg_processor_encode(processor, NULL, "x", options, &out);
    pg_inputs_close(&out);
    return status;
}
static inline pg_status with_generate(void *options) {
    pg_result *out = NULL;
    pg_status status = pg_generate(model, processor, inputs, options, &out);
    pg_result_close(&out);
    return status;
}
static inline pg_status with_score(void *options) {
    static const char *const answer = "cat";
    pg_scores *out = NULL;
    pg_status status = pg_score(model, processor, inputs, &answer, 1, options, &out);
    pg_scores_close(&out);
    return status;
}
static inline pg_status with_run(void *options) {
    pg_features *out = NULL;
    pg_status status = pg_features_create(model, inputs, options, &out);
    pg_features_close(&out);
    return status;
}
static inline pg_status with_session(void *options) {
    pg_session *out = NULL;
    pg_status status = pg_session_create(model, options, &out);
    pg_session_close(&out);
    return status;
}
static inline pg_status with_pixels(void *image) {
    pg_inputs *out = NULL;
    pg_status status = pg_processor_encode(processor, image, "x", NULL, &out);
    pg_inputs_close(&out);
    return status;
}

#endif
