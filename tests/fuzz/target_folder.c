/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * A folder that is something else: beside a sound config.json lies one file, whose name comes first (a byte says how
 * long it is), then its contents. It is opened as everything that a folder can be, and so is the file.
 */
#include <stdio.h>

#include "fuzz.h"

static char folder[512];
static bytes config;

static void remove_it(void) {
    remove_folder(folder);
    bytes_free(&config);
}

static void open_all(const char *path) {
    pg_model *model = NULL;
    pg_processor *processor = NULL;
    pg_mask_decoder *decoder = NULL;
    pg_processor_options options;
    pg_model_options model_options;
    char text[64];
    size_t needed;
    pg_processor_options_init(&options, sizeof options);
    pg_model_options_init(&model_options, sizeof model_options);
    options.allocator = model_options.allocator = fuzz_allocator();
    MADE(pg_model_open(path, &model_options, &model), model);
    MADE(pg_processor_open(path, &options, &processor), processor);
    options.flags = PG_PROCESSOR_IMAGES_ONLY;
    pg_processor_close(&processor);
    MADE(pg_processor_open(path, &options, &processor), processor);
    MADE(pg_mask_decoder_open(path, NULL, &decoder), decoder);
    OK(pg_checkpoint_get_config(path, text, sizeof text, &needed));
    pg_model_close(&model);
    pg_processor_close(&processor);
    pg_mask_decoder_close(&decoder);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_input in = {data, size};
    char path[800];
    if (!folder[0]) {
        make_temp_folder(folder, sizeof folder);
        config = read_file(fuzz_folder(FUZZ_OFFICIAL), "config.json");
        atexit(remove_it);
    }
    size_t n = (size_t)fuzz_take(&in, 1) % 200;
    if (n > in.size) n = in.size;
    char *name = fuzz_text(in.data, n);
    if (*name && !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0) {
        write_file(folder, "config.json", config.data, config.size);
        write_file(folder, name, in.data + n, in.size - n);
        open_all(folder);
        snprintf(path, sizeof path, "%s/%s", folder, name);
        open_all(path);
        remove_file(folder, name);
    }
    free(name);
    return fuzz_end();
}
