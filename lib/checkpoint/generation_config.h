/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The settings of generation_config.json, as transformers' generate() follows them where its caller says nothing. */
#ifndef PGI_CHECKPOINT_GENERATION_CONFIG_H
#define PGI_CHECKPOINT_GENERATION_CONFIG_H

#include "base/memory.h"
#include "checkpoint/json.h"

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
    pgi_json_doc doc;
    const pgi_json *json; /* the file; in `doc`. NULL: there is none */
    const pgi_memory *memory;
} pgi_generation_config;

/* What holds without the file. */
extern const pg_sampling_options pgi_sampling_defaults;
extern const pg_beam_options pgi_beam_defaults;

/* What holds without a file. Then `json` may be set to an object in `doc`, and _read() reads it; PG_ERROR_MEMORY. On
 * error, too, pgi_generation_config_free() is due. */
void pgi_generation_config_init(pgi_generation_config *config, const pgi_memory *memory);
pg_status pgi_generation_config_read(pgi_generation_config *config, int64_t vocab_size);
void pgi_generation_config_free(pgi_generation_config *config);

#endif
