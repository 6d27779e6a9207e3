/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The name of a stage of pgi_trace as the references have it: "stage", or "stage.layer" of those that have several. */
#ifndef TESTS_STAGE_NAME_H
#define TESTS_STAGE_NAME_H

#include <stdio.h>
#include <string.h>

static inline void stage_name(char *full, size_t size, const char *name, int layer) {
    static const char *const numbered[] = {"encoder_layer", "decoder_layer", "logits"};
    for (size_t i = 0; i < sizeof numbered / sizeof *numbered; i++)
        if (strcmp(name, numbered[i]) == 0) {
            snprintf(full, size, "%s.%d", name, layer);
            return;
        }
    snprintf(full, size, "%s", name);
}

#endif
