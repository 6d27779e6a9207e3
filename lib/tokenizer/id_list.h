/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* A growing list of token ids. */
#ifndef PGI_TOKENIZER_ID_LIST_H
#define PGI_TOKENIZER_ID_LIST_H

#include "base/memory.h"
#include "base/run.h"

typedef struct pgi_id_list {
    const pgi_memory *memory;
    int64_t *data;
    size_t size, capacity;
    const pg_cancel *cancel; /* whoever fills it looks at it; NULL at first */
} pgi_id_list;

void pgi_id_list_init(pgi_id_list *ids, const pgi_memory *memory);
void pgi_id_list_free(pgi_id_list *ids);
void pgi_id_list_trim(pgi_id_list *ids); /* gives back what was reserved for more */
/* Room for `extra` more. */
pg_status pgi_id_list_reserve(pgi_id_list *ids, size_t extra);
pg_status pgi_id_list_push(pgi_id_list *ids, int64_t id);

#endif
