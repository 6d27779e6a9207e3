/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* tokenizer.model, and texts through the tokenizer that it makes, by the size of the input by sentencepiece or not. */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *folder = fuzz_folder(FUZZ_OFFICIAL);
    const uint32_t flags = size % 2 ? PG_PROCESSOR_TEXT_ONLY : 0;
    fuzz_model(FUZZ_OFFICIAL);
    write_file(folder, "tokenizer.model", data, size);
    fuzz_open_processor(folder, flags | (size / 2 % 2 ? PG_PROCESSOR_SENTENCEPIECE : 0));
    return fuzz_end();
}
