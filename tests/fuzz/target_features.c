/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Saved features, as bytes. 'r': the checksum of the header is made right. What loads serves a prompt. */
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!size) return 0;
    bytes file = {0};
    pg_features *features = NULL;
    bytes_add(&file, data + 1, size - 1);
    if (data[0] == 'r') repair_converted(&file);
    uint8_t *copy = fuzz_bytes(file.data, file.size);
    if (MADE(pg_features_from_bytes(fuzz_model(FUZZ_OFFICIAL), copy, file.size, &features), features)) use(features);
    pg_features_close(&features);
    free(copy);
    bytes_free(&file);
    return 0;
}
