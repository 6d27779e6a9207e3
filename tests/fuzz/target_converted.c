/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Converted folders. '8' and '4': the rest is the header of an int8 or int4 file, its checksum made right; 'b' and 'd':
 * the same with the checksum as it is; 'c' and 'e': config.json; 'i': the index. Behind headers come the sound weights.
 */
#include <stdio.h>

#include "fuzz.h"
#include "mutate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!size || !data[0] || !strchr("84bdcei", data[0])) return 0;
    const int is_int8 = strchr("8bc", data[0]) != NULL, is_header = strchr("84bd", data[0]) != NULL;
    const char *folder = fuzz_folder(is_int8 ? FUZZ_INT8 : FUZZ_INT4);
    const char *weights = is_int8 ? "model.safetensors" : "model-00001-of-00002.safetensors";
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
        if (data[0] == '8' || data[0] == '4') repair_converted(&file);
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
