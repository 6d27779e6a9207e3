/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The settings of generation_config.json, as transformers' generate() follows them where its caller says nothing. */
#ifndef PGI_CHECKPOINT_GENERATION_CONFIG_H
#define PGI_CHECKPOINT_GENERATION_CONFIG_H

#include <jansson.h>

#include "base/memory.h"

enum { PGI_MAX_UNFOLLOWED = 512 }; /* all settings at once fit */

typedef struct pgi_generation_config {
    pg_sampling_options sampling; /* complete; its arrays are owned by this. Its eos ids are those of pgi_config */
    int32_t max_new_tokens;       /* 0: not set, and so are the next three */
    int32_t max_length;           /* prompt and new tokens */
    int32_t n_return;             /* num_return_sequences; at least 1 */
    pg_beam_options beams;        /* complete */
    double max_seconds;           /* max_time */
    const char **stop_strings;    /* [n_stop_strings] */
    int32_t n_stop_strings;
    /* The settings that change what HF's generate() says and that we do not follow, with ", " between them; "": none */
    char unfollowed[PGI_MAX_UNFOLLOWED];
    json_t *json; /* the file; owned. NULL: there is none */
    const pgi_memory *memory;
} pgi_generation_config;

/* What holds without the file. */
extern const pg_sampling_options pgi_sampling_defaults;
extern const pg_beam_options pgi_beam_defaults;

/* Takes over the reference to `json`. PG_ERROR_MEMORY. On error, too, pgi_generation_config_free() is due. */
pg_status pgi_generation_config_read(const pgi_memory *memory, json_t *json, int64_t vocab_size,
                                     pgi_generation_config *out);
void pgi_generation_config_free(pgi_generation_config *config);

#endif
