/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* A small training, for the target train_state and its seeds. */
#ifndef TESTS_FUZZ_TRAIN_STATE_H
#define TESTS_FUZZ_TRAIN_STATE_H

#include "fuzz.h"
#include "train/state.h"

#define TRAIN_STATE "trainer_state.safetensors"
enum { TRAIN_STEP = 41 };

static const pgi_run train_run = {.n_threads = 1};
static const char *const train_targets[] = {"q"};
static const pgi_train_config train_config = {.rank = 2, .alpha = 2, .targets = train_targets, .n_targets = 1};

static inline void train_make(pgi_parameters *p, const pgi_memory *memory) {
    pgi_parameters_init(p, memory);
    if (pgi_parameters_add(p, "m.q.lora_B.weight", 2, (int64_t[]){4, 2}, 1) < 0 ||
        pgi_parameters_add(p, "m.q.lora_A.weight", 4, (int64_t[]){2, 3, 1, 1}, 1) < 0 ||
        pgi_parameters_add(p, "m.norm.weight", 1, (int64_t[]){3}, 0) < 0 || pgi_parameters_make(p) < 0)
        abort();
}

static inline pg_status train_save(const char *folder, const pgi_parameters *p, int64_t step) {
    return pgi_train_save(p->memory, folder, &train_config, p, step);
}

/* Saves one with values. */
static inline void train_save_sound(const char *folder) {
    pgi_parameters p;
    train_make(&p, &pgi_memory_default);
    for (size_t i = 0; i < p.n; i++)
        for (size_t k = p.list[i].at; k < p.list[i].at + p.list[i].n; k++) {
            p.values[k] = (float)k / 8;
            p.mean[k] = -(float)k / 16;
            p.square[k] = (float)k / 256;
        }
    if (train_save(folder, &p, TRAIN_STEP) < 0) abort();
    pgi_parameters_free(&p);
}

#endif
