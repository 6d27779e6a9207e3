/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* A growing list of token ids. */
#include "tokenizer/id_list.h"

void pgi_id_list_init(pgi_id_list *ids, const pgi_memory *memory) { *ids = (pgi_id_list){.memory = memory}; }

void pgi_id_list_free(pgi_id_list *ids) {
    if (ids->memory) pgi_free(ids->memory, ids->data);
    *ids = (pgi_id_list){.memory = ids->memory};
}

void pgi_id_list_trim(pgi_id_list *ids) {
    pgi_trim(ids->memory, &ids->data, &ids->capacity, ids->size, sizeof *ids->data);
}

pg_status pgi_id_list_reserve(pgi_id_list *ids, size_t extra) {
    if (extra <= ids->capacity - ids->size) return PG_OK;
    size_t needed = extra <= SIZE_MAX - ids->size ? ids->size + extra : SIZE_MAX;
    return pgi_grow(ids->memory, &ids->data, &ids->capacity, needed, sizeof *ids->data);
}

pg_status pgi_id_list_push(pgi_id_list *ids, int64_t id) {
    PGI_TRY(pgi_id_list_reserve(ids, 1));
    ids->data[ids->size++] = id;
    return PG_OK;
}
