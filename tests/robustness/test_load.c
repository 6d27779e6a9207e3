/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The library as a plugin: loaded, used with threads and unloaded twice in a program that is not linked with it.
 * Nothing may be printed, and no environment, locale or signal handler be different afterwards.
 *
 *     test_load LIBRARY
 */
#include <dlfcn.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"
#include "tiny.h"

static int n_failures;
static void expect(int ok, const char *what) {
    if (ok) return;
    n_failures++;
    say("FAIL: %s\n", what);
}

static void *symbol(void *library, const char *name) {
    void *address = dlsym(library, name);
    if (!address) {
        say("FAIL: %s\n", dlerror());
        exit(1);
    }
    return address;
}

static int n_handlers(void) {
    int n = 0;
    for (int i = 1; i < 65; i++) {
        struct sigaction action;
        if (sigaction(i, NULL, &action) == 0 && action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN) n++;
    }
    return n;
}

/* Generates; the ids go to `ids`, their number is returned. */
static size_t use(void *library, const char *folder, int64_t ids[16]) {
    static const uint8_t grey[16 * 16 * 3];
    __typeof__(pg_model_open) *model_open;
    __typeof__(pg_model_close) *model_close;
    __typeof__(pg_processor_open) *processor_open;
    __typeof__(pg_processor_close) *processor_close;
    __typeof__(pg_image_from_pixels) *from_pixels;
    __typeof__(pg_processor_encode) *encode;
    __typeof__(pg_inputs_close) *inputs_close;
    __typeof__(pg_generate_options_init) *options_init;
    __typeof__(pg_generate) *generate;
    __typeof__(pg_result_get_ids) *result_ids;
    __typeof__(pg_result_close) *result_close;
    __typeof__(pg_last_error) *last_error;
    *(void **)&model_open = symbol(library, "pg_model_open");
    *(void **)&model_close = symbol(library, "pg_model_close");
    *(void **)&processor_open = symbol(library, "pg_processor_open");
    *(void **)&processor_close = symbol(library, "pg_processor_close");
    *(void **)&from_pixels = symbol(library, "pg_image_from_pixels");
    *(void **)&encode = symbol(library, "pg_processor_encode");
    *(void **)&inputs_close = symbol(library, "pg_inputs_close");
    *(void **)&options_init = symbol(library, "pg_generate_options_init");
    *(void **)&generate = symbol(library, "pg_generate");
    *(void **)&result_ids = symbol(library, "pg_result_get_ids");
    *(void **)&result_close = symbol(library, "pg_result_close");
    *(void **)&last_error = symbol(library, "pg_last_error");
    pg_model *model = NULL;
    pg_processor *processor = NULL;
    pg_inputs *inputs = NULL;
    pg_result *result = NULL;
    pg_image image;
    pg_generate_options options;
    pg_tensor tensor = {.struct_size = sizeof tensor};
    size_t n = 0;
    options_init(&options, sizeof options);
    options.n_threads = 3;
    options.max_new_tokens = 8;
    from_pixels(&image, sizeof image, PG_IMAGE_RGB8, 16, 16, grey, 0);
    expect(model_open("/nonexistent", NULL, &model) < 0 && strstr(last_error(), "/nonexistent"),
           "the error of a missing folder");
    int ok = model_open(folder, NULL, &model) == 0 && processor_open(folder, NULL, &processor) == 0 &&
             encode(processor, &image, "the cat", NULL, &inputs) == 0 &&
             generate(model, processor, inputs, &options, &result) == 0 && result_ids(result, 0, &tensor) == 0;
    expect(ok, "generating");
    if (ok) {
        n = (size_t)tensor.shape[0];
        memcpy(ids, tensor.data, n * sizeof *ids);
    } else {
        say("%s\n", last_error());
    }
    result_close(&result);
    inputs_close(&inputs);
    processor_close(&processor);
    model_close(&model);
    return n;
}

int main(int argc, char **argv) {
    int64_t ids[3][16];
    size_t n[3];
    char folder[512];
    tiny_options options = tiny_official();
    if (argc != 2) return 2;
    make_temp_folder(folder, sizeof folder);
    tiny_write(folder, &options);
    int handlers = n_handlers();
    capture_begin();
    for (int round = 0; round < 3; round++) {
        void *library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
        if (!library) {
            say("FAIL: %s\n", dlerror());
            return 1;
        }
        expect(strcmp(setlocale(LC_ALL, NULL), "C") == 0, "loading changed the locale");
        expect(dlsym(library, "pgi_error") == NULL, "an internal name is exported");
        n[round] = use(library, folder, ids[round]);
        expect(n[round] > 0 && n[round] == n[0] && memcmp(ids[round], ids[0], n[0] * sizeof ids[0][0]) == 0,
               "the same ids each time");
        expect(dlclose(library) == 0, "dlclose");
    }
    expect(n_handlers() == handlers, "signal handlers were changed");
    expect(strcmp(setlocale(LC_ALL, NULL), "C") == 0, "the locale was changed");
    expect(capture_end() == 0, "something was printed");
    remove_folder(folder);
    say("%d failures\n", n_failures);
    return n_failures > 0;
}
