/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* trainer_state.safetensors. 'w': the rest is a whole file. 'h': the header of a sound one, before sound values. 'v':
 * in a sound one the bytes at offsets of a byte are changed to the bytes that follow these, and the checksum is made
 * right. What loads is saved again, and is the same then. */
#include <math.h>
#include <stdio.h>

#include "base/crc32.h"
#include "train_state.h"

static char folder[512], again[600];
static bytes sound;

static void end(void) {
    bytes_free(&sound);
    remove_folder(again);
    remove_folder(folder);
}

static void make(void) {
    if (folder[0]) return;
    make_temp_folder(folder, sizeof folder);
    snprintf(again, sizeof again, "%s/again", folder);
    atexit(end);
    train_save_sound(folder);
    train_save_sound(again);
    sound = read_file(folder, TRAIN_STATE);
}

static size_t data_at(void) {
    uint64_t n;
    memcpy(&n, sound.data, 8);
    return 8 + (size_t)n;
}

/* The checksum of a state's values, as state.h says. Those of the sound file stand in its order. */
static void repair(bytes *file) {
    static const char key[] = "\"crc32\":\"";
    char text[9];
    const size_t at = data_at();
    bytes options = read_file(folder, "adapter_config.json");
    uint32_t crc = pgi_crc32(0, file->data + at, file->size - at);
    crc = pgi_crc32(pgi_crc32(crc, "41", 2), options.data, options.size);
    bytes_free(&options);
    snprintf(text, sizeof text, "%08x", crc);
    for (size_t i = 0; i + sizeof key + 8 < at; i++)
        if (memcmp(file->data + i, key, sizeof key - 1) == 0) memcpy(file->data + i + sizeof key - 1, text, 8);
}

static void change(bytes *file, fuzz_input in) {
    const size_t at = data_at();
    while (in.size) {
        const size_t offset = fuzz_take(&in, 1) % (file->size - at);
        file->data[at + offset] = (uint8_t)fuzz_take(&in, 1);
    }
    repair(file);
}

static void check(const pgi_parameters *p, int64_t step) {
    if (step < 0) abort();
    for (size_t i = 0; i < p->n_values; i++)
        if (!isfinite(p->values[i]) || !isfinite(p->mean[i]) || !isfinite(p->square[i]) || p->square[i] < 0) abort();
}

static int same(const pgi_parameters *p, const float *a, const float *b) {
    return memcmp(a, b, p->n_values * sizeof *a) == 0;
}

static void use(const pgi_parameters *p, int64_t step) {
    pgi_parameters q;
    int64_t step_again = -1;
    check(p, step);
    if (!OK(train_save(again, p, step))) abort();
    train_make(&q, p->memory);
    if (!OK(pgi_train_load(p->memory, &train_run, again, &train_config, &q, &step_again)) || step_again != step)
        abort();
    if (!same(p, p->values, q.values) || !same(p, p->mean, q.mean) || !same(p, p->square, q.square)) abort();
    pgi_parameters_free(&q);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    pgi_memory memory;
    pgi_parameters p;
    int64_t step = -1;
    bytes file = {0};
    if (!size || !data[0] || !strchr("whv", data[0])) return 0;
    make();
    if (data[0] == 'w') {
        bytes_add(&file, data + 1, size - 1);
    } else if (data[0] == 'h') {
        const uint64_t n = size - 1;
        bytes_add(&file, &n, 8);
        bytes_add(&file, data + 1, size - 1);
        bytes_add(&file, sound.data + data_at(), sound.size - data_at());
    } else {
        bytes_add(&file, sound.data, sound.size);
        change(&file, (fuzz_input){data + 1, size - 1});
    }
    write_file(folder, TRAIN_STATE, file.data, file.size);
    bytes_free(&file);
    if (pgi_memory_from_allocator(fuzz_allocator(), &memory) != PG_OK) abort();
    train_make(&p, &memory);
    if (OK(pgi_train_load(&memory, &train_run, folder, &train_config, &p, &step))) use(&p, step);
    pgi_parameters_free(&p);
    return fuzz_end();
}
