/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Converted folders. '8', '4' and 'm': the rest is the header of an int8, int4 or mixed file, its checksum made right;
 * 'b', 'd' and 'n': the same with the checksum as it is; 'c' and 'e': config.json of the first two; 'i': the index.
 * Behind headers come the sound weights. 'l': the rest is a list of names, int8_layers of a model that is made int4 and
 * of a mixed folder. */
#include <stdio.h>
#include <stdlib.h>

#include "fuzz.h"
#include "mutate.h"

static int try_list(const uint8_t *data, size_t size) {
    char *list = fuzz_text(data, size);
    for (int i = 0; i < 2; i++) {
        pg_model_options options;
        pg_model *model = NULL;
        pg_model_options_init(&options, sizeof options);
        options.allocator = fuzz_allocator();
        options.n_threads = 1;
        options.weights = PG_WEIGHTS_INT4;
        options.int8_layers = list;
        MADE(pg_model_open(fuzz_folder(i ? FUZZ_MIX : FUZZ_OFFICIAL), &options, &model), model);
        pg_model_close(&model);
    }
    free(list);
    return fuzz_end();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size && data[0] == 'l') return try_list(data + 1, size - 1);
    if (!size || !data[0] || !strchr("84mbdncei", data[0])) return 0;
    const int is_int8 = strchr("8bc", data[0]) != NULL, is_mix = strchr("mn", data[0]) != NULL;
    const int is_header = strchr("84mbdn", data[0]) != NULL;
    const char *folder = fuzz_folder(is_int8 ? FUZZ_INT8 : is_mix ? FUZZ_MIX : FUZZ_INT4);
    const char *weights = is_int8 || is_mix ? "model.safetensors" : "model-00001-of-00002.safetensors";
    char other[64];
    for (int n = 2; !has_file(folder, weights) && n < 99; n++) {
        snprintf(other, sizeof other, "model-00001-of-%05d.safetensors", n);
        weights = other;
    }
    const char *name = is_header ? weights : data[0] == 'i' ? "model.safetensors.index.json" : "config.json";
    bytes sound = read_file(folder, name), file = {0};
    fuzz_processor(FUZZ_OFFICIAL);
    if (is_header) {
        uint64_t n = size - 1, header;
        memcpy(&header, sound.data, 8);
        bytes_add(&file, &n, 8);
        bytes_add(&file, data + 1, size - 1);
        bytes_add(&file, sound.data + 8 + header, sound.size - 8 - header);
        if (strchr("84m", data[0])) repair_converted(&file);
    } else {
        bytes_add(&file, data + 1, size - 1);
    }
    write_file(folder, name, file.data, file.size);
    fuzz_open_model(folder, size % 3 == 0 ? PG_MODEL_VERIFY : size % 3 == 1 ? PG_MODEL_IN_MEMORY : 0);
    write_file(folder, name, sound.data, sound.size);
    bytes_free(&sound);
    bytes_free(&file);
    return fuzz_end();
}
