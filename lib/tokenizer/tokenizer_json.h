/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* tokenizer.json, the file of HF's `tokenizers`: vocabulary and merges of a BPE model, and what surrounds it. */
#ifndef PGI_TOKENIZER_TOKENIZER_JSON_H
#define PGI_TOKENIZER_TOKENIZER_JSON_H

#include "checkpoint/json.h"
#include "tokenizer/bpe.h"
#include "tokenizer/vocab.h"

typedef struct pgi_tokenizer_json {
    pgi_vocab vocab;
    pgi_merges merges;
    pgi_json_doc doc;                                     /* of the small parts, which follow */
    const pgi_json *added_tokens;                         /* an array, or NULL */
    const pgi_json *normalizer, *pre_tokenizer, *decoder; /* NULL: left out or null */
    const pgi_json *truncation, *padding;                 /* as it was saved with; NULL: left out or null */
    pgi_json model; /* the members of "model" without vocab and merges, an object; kind 0: left out */
} pgi_tokenizer_json;

/* On error *out needs no free. */
pg_status pgi_tokenizer_json_load(const pgi_memory *memory, const char *path, const pg_cancel *cancel,
                                  pgi_tokenizer_json *out);
void pgi_tokenizer_json_free(pgi_tokenizer_json *json);

#endif
