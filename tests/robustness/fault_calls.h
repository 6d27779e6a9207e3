/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The public calls, one by one, for faults.c, soak.c and test_sixteen_threads.c: each on handles that are there
 * already, and leaving none. Any number of threads may run them at a time, each with a session of its own. */
#ifndef TESTS_FAULT_CALLS_H
#define TESTS_FAULT_CALLS_H

#include "support.h"

typedef struct fault_world {
    pg_model *model;
    pg_processor *processor, *by_sentencepiece; /* the second: NULL in builds without it */
    pg_inputs *inputs, *text_only, *labelled;   /* the last: an image, and a text to learn */
    pg_features *features;
    pg_session *session; /* of one thread, with a prompt */
    pg_result *result;   /* with log-probabilities */
    pg_mask_decoder *decoder;
} fault_world;

typedef struct fault_call {
    const char *name;
    pg_status (*run)(fault_world *world);
} fault_call;

extern const fault_call fault_calls[];
extern const size_t n_fault_calls;
extern counter fault_memory; /* what all handles are given */

void fault_files_make(void); /* once, before any world */
void fault_files_remove(void);
void fault_world_open(fault_world *world); /* a failure ends the test program */
void fault_world_close(fault_world *world);

#endif
