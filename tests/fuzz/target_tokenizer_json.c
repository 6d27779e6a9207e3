/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* tokenizer.json, and texts through the tokenizer that it makes. By the size of
 * the input: as GemmaTokenizer; without tokenizer_config.json, which says so,
 * when the pipeline is the file's; and beside a tokenizer.model. */
#include "fuzz.h"

static void put_beside(const char *folder, int how) {
    static bytes config, model;
    if (!config.size) {
        config = read_file(folder, "tokenizer_config.json");
        model = read_file(fuzz_folder(FUZZ_OFFICIAL), "tokenizer.model");
    }
    if (how != 1)
        write_file(folder, "tokenizer_config.json", config.data, config.size);
    else if (has_file(folder, "tokenizer_config.json"))
        remove_file(folder, "tokenizer_config.json");
    if (how == 2)
        write_file(folder, "tokenizer.model", model.data, model.size);
    else if (has_file(folder, "tokenizer.model"))
        remove_file(folder, "tokenizer.model");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *folder = fuzz_folder(FUZZ_TODAY);
    fuzz_model(FUZZ_OFFICIAL);
    write_file(folder, "tokenizer.json", data, size);
    put_beside(folder, (int)(size / 2 % 3));
    fuzz_open_processor(folder, size % 2 ? PG_PROCESSOR_TEXT_ONLY : 0);
    return fuzz_end();
}
