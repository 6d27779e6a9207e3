/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The calls of a library that was loaded by dlopen(), for test_load.c and test_side_by_side.c. */
#ifndef TESTS_LOADED_CALLS_H
#define TESTS_LOADED_CALLS_H

#include <dlfcn.h>
#include <stdlib.h>

#include "support.h"

/* clang-format off */
#define LOADED_CALLS(X) \
    X(pg_model_open) X(pg_model_close) X(pg_processor_open) X(pg_processor_close) X(pg_image_from_pixels) \
    X(pg_processor_encode) X(pg_inputs_close) X(pg_generate_options_init) X(pg_generate) X(pg_result_get_ids) \
    X(pg_result_close) X(pg_session_options_init) X(pg_session_create) X(pg_session_prefill) X(pg_session_step) \
    X(pg_session_close) X(pg_last_error) X(pg_batch_init) X(pg_processor_encode_batch) X(pg_trainer_options_init) \
    X(pg_trainer_create) X(pg_trainer_step) X(pg_trainer_close)
/* clang-format on */

typedef struct loaded_calls {
#define LOADED_FIELD(name) __typeof__(name) *name;
    LOADED_CALLS(LOADED_FIELD)
#undef LOADED_FIELD
} loaded_calls;

/* The library and its calls; what is missing ends the program. */
static inline void *load(const char *path, loaded_calls *calls) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        say("FAIL: %s\n", dlerror());
        exit(1);
    }
#define LOADED_LOOK_UP(name)                        \
    *(void **)&calls->name = dlsym(library, #name); \
    if (!calls->name) {                             \
        say("FAIL: %s\n", dlerror());               \
        exit(1);                                    \
    }
    LOADED_CALLS(LOADED_LOOK_UP)
#undef LOADED_LOOK_UP
    return library;
}

#endif
