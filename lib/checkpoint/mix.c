/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Which matrices are int8 and which int4. */
#include "checkpoint/mix.h"

#include <string.h>

#include "checkpoint/quantized_store.h"

static const char *const part_names[] = {[PGI_PART_EMBEDDING] = "embedding",
                                         [PGI_PART_PATCHES] = "patches",
                                         [PGI_PART_PROJECTOR] = "projector",
                                         [PGI_PART_ENCODER] = "encoder",
                                         [PGI_PART_DECODER] = "decoder"};
static const char *const kind_names[] = {[PGI_KIND_Q] = "q",     [PGI_KIND_K] = "k",       [PGI_KIND_V] = "v",
                                         [PGI_KIND_OUT] = "out", [PGI_KIND_FC1] = "fc1",   [PGI_KIND_FC2] = "fc2",
                                         [PGI_KIND_UP] = "up",   [PGI_KIND_GATE] = "gate", [PGI_KIND_DOWN] = "down"};

static int is(const char *word, size_t size, const char *name) {
    return strlen(name) == size && memcmp(word, name, size) == 0;
}

/* Whether the `size` digits are this number, written without zeros in front. */
static int is_number(const char *word, size_t size, int32_t number) {
    while (size > 0 && word[size - 1] == '0' + number % 10) {
        size--;
        number /= 10;
        if (number == 0) return size == 0;
    }
    return 0;
}

static int fits_word(const char *word, size_t size, const pgi_matrix_role *role) {
    const int in_layer = role->layer >= 0;
    if (is(word, size, part_names[role->part])) return 1;
    if (!in_layer) return 0;
    if (is(word, size, "attention")) return role->kind <= PGI_KIND_OUT;
    if (is(word, size, "mlp")) return role->kind > PGI_KIND_OUT;
    return is(word, size, kind_names[role->kind]) || is_number(word, size, role->layer);
}

/* Whether all the words of a name fit. */
static int fits_name(const char *name, size_t size, const pgi_matrix_role *role) {
    for (const char *end = name + size;; name++) {
        const char *dot = memchr(name, '.', (size_t)(end - name)), *stop = dot ? dot : end;
        if (!fits_word(name, (size_t)(stop - name), role)) return 0;
        if (!dot) return 1;
        name = dot;
    }
}

int32_t pgi_mix_blocks(int32_t weights, const char *list, const pgi_matrix_role *role) {
    if (weights == PG_WEIGHTS_INT8) return PGI_DTYPE_INT8_BLOCKS;
    for (const char *name = list && *list ? list : NULL; name; name = strchr(name, ',') ? strchr(name, ',') + 1 : NULL)
        if (fits_name(name, strcspn(name, ","), role)) return PGI_DTYPE_INT8_BLOCKS;
    return PGI_DTYPE_INT4_BLOCKS;
}

typedef struct search {
    const char *list; /* of the name that is looked for, or the whole list */
    size_t size;
    int32_t weights;
    uint32_t n;
} search;

static pg_status count_name(void *context, const pgi_matrix_role *role, pgi_matrix *matrix) {
    search *s = context;
    (void)matrix;
    s->n += (uint32_t)fits_name(s->list, s->size, role);
    return PG_OK;
}

pg_status pgi_mix_check(const char *list, pgi_weights *bound, const pgi_config *config) {
    if (!list || !*list) return PG_OK;
    for (const char *name = list; name; name = strchr(name, ',') ? strchr(name, ',') + 1 : NULL) {
        search s = {.list = name, .size = strcspn(name, ",")};
        PGI_TRY(pgi_weights_each_matrix(bound, config, count_name, &s));
        if (!s.n)
            return pgi_error(PG_ERROR_ARGUMENT,
                             "int8_layers: found \"%.*s\", which names no matrix of this model, expected embedding, "
                             "patches, projector, encoder, decoder, attention, mlp, q, k, v, out, fc1, fc2, gate, up, "
                             "down, or these and the number of a layer with dots between, such as decoder.0.mlp",
                             (int)(s.size < 60 ? s.size : 60), name);
    }
    return PG_OK;
}

static const char *name_of(int32_t blocks) {
    return pgi_weights_name(blocks == PGI_DTYPE_INT8_BLOCKS ? PG_WEIGHTS_INT8 : PG_WEIGHTS_INT4);
}

static pg_status compare(void *context, const pgi_matrix_role *role, pgi_matrix *matrix) {
    const search *s = context;
    const pgi_stored_tensor *tensor = matrix->tensor;
    const int32_t wanted = pgi_mix_blocks(s->weights, s->list, role);
    if (matrix->dtype == wanted) return PG_OK;
    return pgi_error(PG_ERROR_ARGUMENT,
                     "%s: tensor %s: found it converted to %s, expected %s as int8_layers \"%.60s\" says: leave "
                     "int8_layers out to take the folder as it is",
                     tensor->file, tensor->name, name_of(matrix->dtype), name_of(wanted), s->list);
}

pg_status pgi_mix_compare(int32_t weights, const char *list, pgi_weights *bound, const pgi_config *config) {
    search s = {.list = list, .weights = weights};
    return pgi_weights_each_matrix(bound, config, compare, &s);
}

static pg_status count_int8(void *context, const pgi_matrix_role *role, pgi_matrix *matrix) {
    uint32_t *n = context;
    (void)role;
    *n += matrix->dtype == PGI_DTYPE_INT8_BLOCKS;
    return PG_OK;
}

uint32_t pgi_mix_count_int8(pgi_weights *bound, const pgi_config *config) {
    uint32_t n = 0;
    return pgi_weights_each_matrix(bound, config, count_int8, &n) < 0 ? 0 : n;
}
