/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Saved features, as bytes; 'f': as a file. 'r', 'R' (a file): the checksum of the header is made right. What loads
 * serves a prompt, and is saved as it was. */
#include <stdio.h>

#include "fuzz.h"
#include "mutate.h"

static void use(const pg_features *features) {
    pg_generate_options options;
    pg_result *result = NULL;
    pg_tensor tensor = {.struct_size = sizeof tensor};
    pg_generate_options_init(&options, sizeof options);
    options.features = features;
    options.max_new_tokens = 2;
    options.n_threads = 1;
    OK(pg_features_get_tensor(features, &tensor));
    MADE(pg_generate(fuzz_model(FUZZ_OFFICIAL), fuzz_processor(FUZZ_OFFICIAL), fuzz_inputs(FUZZ_OFFICIAL), &options,
                     &result),
         result);
    pg_result_close(&result);
}

/* From a file, and back into one. */
static void load(const bytes *file, pg_features **features) {
    const char *folder = fuzz_folder(FUZZ_OFFICIAL);
    const pg_model *model = fuzz_model(FUZZ_OFFICIAL);
    char path[600];
    pg_features *again = NULL;
    write_file(folder, "features", file->data, file->size);
    snprintf(path, sizeof path, "%s/features", folder);
    if (!MADE(pg_features_load(model, path, features), *features)) return;
    if (!OK(pg_features_save(*features, path)) || !MADE(pg_features_load(model, path, &again), again)) abort();
    pg_features_close(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!size) return 0;
    bytes file = {0};
    pg_features *features = NULL;
    bytes_add(&file, data + 1, size - 1);
    if (data[0] == 'r' || data[0] == 'R') repair_converted(&file);
    if (data[0] == 'f' || data[0] == 'R') {
        load(&file, &features);
    } else {
        uint8_t *copy = fuzz_bytes(file.data, file.size);
        MADE(pg_features_from_bytes(fuzz_model(FUZZ_OFFICIAL), copy, file.size, &features), features);
        free(copy);
    }
    if (features) use(features);
    pg_features_close(&features);
    bytes_free(&file);
    return 0;
}
