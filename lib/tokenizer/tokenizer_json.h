/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* tokenizer.json, the file of HF's `tokenizers`: vocabulary and merges of a BPE model, and what surrounds it. */
#ifndef PGI_TOKENIZER_TOKENIZER_JSON_H
#define PGI_TOKENIZER_TOKENIZER_JSON_H

#include <jansson.h>

#include "tokenizer/bpe.h"
#include "tokenizer/vocab.h"

typedef struct pgi_tokenizer_json {
    pgi_vocab vocab;
    pgi_merges merges;
    json_t *added_tokens;                         /* an array, or NULL */
    json_t *normalizer, *pre_tokenizer, *decoder; /* NULL: left out or null */
    json_t *truncation, *padding;                 /* as it was saved with; NULL: left out or null */
    json_t *model;                                /* the members of "model" without vocab and merges, an object */
} pgi_tokenizer_json;

/* On error *out needs no free. */
pg_status pgi_tokenizer_json_load(const pgi_memory *memory, const char *path, const pg_cancel *cancel,
                                  pgi_tokenizer_json *out);
void pgi_tokenizer_json_free(pgi_tokenizer_json *json);

/* Any JSON value; whole numbers of any size are read as reals, as tokenizer_config.json holds 10^30. */
pg_status pgi_json_any(const char *path, const void *data, size_t size, json_t **out);

#endif
