#include "tokenizer/ids.h"

#include <string.h>

void pgi_ids_init(pgi_ids *ids, const pgi_memory *memory) { *ids = (pgi_ids){.memory = memory}; }

void pgi_ids_free(pgi_ids *ids) {
    if (ids->memory) pgi_free(ids->memory, ids->data);
    *ids = (pgi_ids){.memory = ids->memory};
}

pg_status pgi_ids_reserve(pgi_ids *ids, size_t extra) {
    if (extra <= ids->capacity - ids->size) return PG_OK;
    size_t capacity = ids->size + extra;
    if (capacity < 2 * ids->capacity) capacity = 2 * ids->capacity;
    if (capacity < 64) capacity = 64;
    int64_t *data = pgi_alloc(ids->memory, capacity, sizeof *data);
    if (!data) return PG_ERROR_MEMORY;
    if (ids->size) memcpy(data, ids->data, ids->size * sizeof *data);
    pgi_free(ids->memory, ids->data);
    ids->data = data;
    ids->capacity = capacity;
    return PG_OK;
}

pg_status pgi_ids_push(pgi_ids *ids, int64_t id) {
    PGI_TRY(pgi_ids_reserve(ids, 1));
    ids->data[ids->size++] = id;
    return PG_OK;
}
