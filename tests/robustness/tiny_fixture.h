/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* A tiny model that is open for all tests of a program, with its processor and inputs. run_tests.h comes before it. */
#ifndef TESTS_TINY_FIXTURE_H
#define TESTS_TINY_FIXTURE_H

#include "support.h"
#include "tiny.h"

static char folder[512];
static pg_model *model;
static pg_processor *processor;
static pg_inputs *inputs; /* a black image and "the cat" */

static inline void ok(pg_status status) {
    if (status < 0) fail_msg("%s: %s", pg_status_name(status), pg_last_error());
}

static inline int open_tiny(void **state) {
    static const uint8_t pixels[16 * 16 * 3];
    const tiny_options options = tiny_official();
    pg_image image;
    (void)state;
    make_temp_folder(folder, sizeof folder);
    tiny_write(folder, &options);
    ok(pg_model_open(folder, NULL, &model));
    ok(pg_processor_open(folder, NULL, &processor));
    ok(pg_image_from_pixels(&image, sizeof image, PG_IMAGE_RGB8, 16, 16, pixels, 0));
    ok(pg_processor_encode(processor, &image, "the cat", NULL, &inputs));
    return 0;
}

static inline int close_tiny(void **state) {
    (void)state;
    pg_inputs_close(&inputs);
    pg_processor_close(&processor);
    pg_model_close(&model);
    remove_folder(folder);
    return 0;
}

#endif
