/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Adapters. 'c', 'd' and 'o': the rest is adapter_config.json of a sound LoRA, DoRA or whole-module adapter; 'l', 'm'
 * and 'w': the header of its adapter_model.safetensors, before sound values; 'f': a whole such file. */
#include "fuzz.h"
#include "tiny_adapter.h"

static char folder[512];
static bytes sound[N_TINY_ADAPTERS];

static void end(void) {
    for (int i = 0; i < N_TINY_ADAPTERS; i++) bytes_free(&sound[i]);
    remove_folder(folder);
}

static void make(void) {
    if (folder[0]) return;
    pg_model_info info = {.struct_size = sizeof info};
    if (pg_model_get_info(fuzz_model(FUZZ_TODAY), &info) < 0) abort();
    make_temp_folder(folder, sizeof folder);
    atexit(end);
    for (int i = 0; i < N_TINY_ADAPTERS; i++) {
        tiny_adapter_write(folder, i, info.vocab_size, 5);
        sound[i] = read_file(folder, "adapter_model.safetensors");
    }
}

/* The adapter alone, then twice, half of it each time. */
static void use(const pg_model *model, const pg_adapter *adapter, int runs) {
    const pg_adapter *twice[] = {adapter, adapter};
    const float halves[] = {0.5f, 0.5f};
    for (size_t n = 1; n <= 2; n++) {
        pg_model *adapted = NULL;
        pg_outputs *outputs = NULL;
        pg_forward_options options;
        pg_forward_options_init(&options, sizeof options);
        options.n_threads = 1;
        if (!MADE(pg_model_adapt(model, twice, n == 1 ? NULL : halves, n, &adapted), adapted)) continue;
        if (runs) MADE(pg_forward(adapted, fuzz_inputs(FUZZ_TODAY), &options, &outputs), outputs);
        pg_outputs_close(&outputs);
        pg_model_close(&adapted);
    }
}

static void open_and_use(int runs) {
    pg_model_options options;
    pg_model *model = NULL;
    pg_adapter *adapter = NULL;
    pg_adapter_info info = {.struct_size = sizeof info};
    char base[64];
    pg_model_options_init(&options, sizeof options);
    options.allocator = fuzz_allocator();
    options.n_threads = 1;
    if (pg_model_open(fuzz_folder(FUZZ_TODAY), &options, &model) < 0) abort();
    OK(pg_adapter_find_base(folder, base, sizeof base, NULL));
    if (MADE(pg_adapter_open(model, folder, NULL, &adapter), adapter)) {
        OK(pg_adapter_get_info(adapter, &info));
        use(model, adapter, runs);
    }
    pg_adapter_close(&adapter);
    pg_model_close(&model);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *const kinds[] = {"clf", "dm", "ow"};
    if (!size || !data[0] || !strchr("cdolmwf", data[0])) return 0;
    make();
    int kind = 0;
    while (!strchr(kinds[kind], data[0])) kind++;
    tiny_adapter_write(folder, kind, 1, 5); /* the config; the weights follow */
    bytes file = {0};
    if (strchr("cdo", data[0])) {
        write_file(folder, "adapter_config.json", data + 1, size - 1);
        bytes_add(&file, sound[kind].data, sound[kind].size);
    } else if (data[0] == 'f') {
        bytes_add(&file, data + 1, size - 1);
    } else {
        uint64_t n = size - 1, header;
        memcpy(&header, sound[kind].data, 8);
        bytes_add(&file, &n, 8);
        bytes_add(&file, data + 1, size - 1);
        bytes_add(&file, sound[kind].data + 8 + header, sound[kind].size - 8 - header);
    }
    write_file(folder, "adapter_model.safetensors", file.data, file.size);
    bytes_free(&file);
    open_and_use(size % 4 == 0);
    return fuzz_end();
}
