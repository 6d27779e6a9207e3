#include "tokenizer/id_list.h"

#include <string.h>

void pgi_id_list_init(pgi_id_list *ids, const pgi_memory *memory) { *ids = (pgi_id_list){.memory = memory}; }

void pgi_id_list_free(pgi_id_list *ids) {
    if (ids->memory) pgi_free(ids->memory, ids->data);
    *ids = (pgi_id_list){.memory = ids->memory};
}

pg_status pgi_id_list_reserve(pgi_id_list *ids, size_t extra) {
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

pg_status pgi_id_list_push(pgi_id_list *ids, int64_t id) {
    PGI_TRY(pgi_id_list_reserve(ids, 1));
    ids->data[ids->size++] = id;
    return PG_OK;
}
