/* A growing list of token ids. */
#ifndef PGI_TOKENIZER_IDS_H
#define PGI_TOKENIZER_IDS_H

#include "base/memory.h"

typedef struct pgi_ids {
    const pgi_memory *memory;
    int64_t *data;
    size_t size, capacity;
} pgi_ids;

void pgi_ids_init(pgi_ids *ids, const pgi_memory *memory);
void pgi_ids_free(pgi_ids *ids);
/* Room for `extra` more. */
pg_status pgi_ids_reserve(pgi_ids *ids, size_t extra);
pg_status pgi_ids_push(pgi_ids *ids, int64_t id);

#endif
