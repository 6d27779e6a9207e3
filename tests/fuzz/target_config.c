/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The JSON files of a folder but tokenizer.json. A letter says which the rest of the input is. */
#include "fuzz.h"

typedef struct file {
    char letter;
    fuzz_folder_kind folder;
    int of_model; /* else of the processor */
    const char *name;
} file;

static const file files[] = {
    {'c', FUZZ_OFFICIAL, 1, "config.json"},
    {'t', FUZZ_TODAY, 1, "config.json"},
    {'v', FUZZ_COLPALI, 1, "config.json"},
    {'g', FUZZ_OFFICIAL, 1, "generation_config.json"},
    {'G', FUZZ_TODAY, 1, "generation_config.json"},
    {'i', FUZZ_TODAY, 1, "model.safetensors.index.json"},
    {'p', FUZZ_OFFICIAL, 0, "preprocessor_config.json"},
    {'P', FUZZ_TODAY, 0, "processor_config.json"},
    {'k', FUZZ_OFFICIAL, 0, "tokenizer_config.json"},
    {'K', FUZZ_TODAY, 0, "tokenizer_config.json"},
    {'a', FUZZ_OFFICIAL, 0, "added_tokens.json"},
    {'A', FUZZ_TODAY, 0, "added_tokens.json"},
    {'s', FUZZ_OFFICIAL, 0, "special_tokens_map.json"},
    {'S', FUZZ_TODAY, 0, "special_tokens_map.json"},
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    for (size_t i = 0; i < sizeof files / sizeof *files && size; i++) {
        const file *f = &files[i];
        if (data[0] != (uint8_t)f->letter) continue;
        const char *folder = fuzz_folder(f->folder);
        fuzz_processor(FUZZ_OFFICIAL); /* from sound files */
        fuzz_model(FUZZ_OFFICIAL);
        const int was_there = has_file(folder, f->name);
        bytes sound = {0};
        char text[256];
        size_t needed;
        if (was_there) sound = read_file(folder, f->name);
        write_file(folder, f->name, data + 1, size - 1);
        OK(pg_checkpoint_get_config(folder, text, sizeof text, &needed));
        if (f->of_model)
            fuzz_open_model(folder, 0);
        else
            fuzz_open_processor(folder, 0);
        if (was_there)
            write_file(folder, f->name, sound.data, sound.size);
        else
            remove_file(folder, f->name);
        bytes_free(&sound);
        return fuzz_end();
    }
    return 0;
}
