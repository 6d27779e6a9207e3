#include "processor/ids.h"

#include <string.h>

void pgi_ids_init(pgi_ids *ids, const pgi_memory *memory) { *ids = (pgi_ids){.memory = memory}; }

void pgi_ids_free(pgi_ids *ids) {
    if (ids->memory) pgi_free(ids->memory, ids->data);
    *ids = (pgi_ids){.memory = ids->memory};
}

pg_status pgi_ids_push(pgi_ids *ids, int64_t id) {
    if (ids->size == ids->capacity) {
        size_t capacity = ids->capacity ? ids->capacity * 2 : 64;
        int64_t *data = pgi_alloc(ids->memory, capacity, sizeof *data);
        if (!data) return PG_ERROR_MEMORY;
        if (ids->size) memcpy(data, ids->data, ids->size * sizeof *data);
        pgi_free(ids->memory, ids->data);
        ids->data = data;
        ids->capacity = capacity;
    }
    ids->data[ids->size++] = id;
    return PG_OK;
}
