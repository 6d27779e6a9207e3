/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* model.safetensors. 'h': the rest is its header, before which its length comes and behind which sound weights;
 * 'w': the rest is the whole file. In memory ('H', 'W') too. */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static bytes sound;
    static char folder[512];
    if (!size || !strchr("hHwW", data[0]) || !data[0]) return 0;
    fuzz_processor(FUZZ_OFFICIAL);
    if (!folder[0]) {
        strcpy(folder, fuzz_folder(FUZZ_OFFICIAL));
        sound = read_file(folder, "model.safetensors");
    }
    bytes file = {0};
    if (data[0] == 'h' || data[0] == 'H') {
        uint64_t n = size - 1, header;
        memcpy(&header, sound.data, 8);
        bytes_add(&file, &n, 8);
        bytes_add(&file, data + 1, size - 1);
        bytes_add(&file, sound.data + 8 + header, sound.size - 8 - header);
    } else {
        bytes_add(&file, data + 1, size - 1);
    }
    write_file(folder, "model.safetensors", file.data, file.size);
    bytes_free(&file);
    fuzz_open_model(folder, data[0] < 'a' ? PG_MODEL_IN_MEMORY : 0);
    return fuzz_end();
}
