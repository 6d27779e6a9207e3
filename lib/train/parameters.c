/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The list of what is trained, and the vectors that hold it. */
#include "train/parameters.h"

#include <stdlib.h>
#include <string.h>

enum { LINE = 16 }; /* values, 64 bytes: no two parameters share a line of the cache */

void pgi_parameters_init(pgi_parameters *parameters, const pgi_memory *memory) {
    *parameters = (pgi_parameters){.memory = memory};
}

enum { N_VECTORS = 4 };
static float **vector_at(pgi_parameters *p, int i) {
    return (float **[N_VECTORS]){&p->values, &p->gradients, &p->mean, &p->square}[i];
}

static void free_vectors(pgi_parameters *parameters) {
    for (int i = 0; i < N_VECTORS; i++) {
        pgi_free(parameters->memory, *vector_at(parameters, i));
        *vector_at(parameters, i) = NULL;
    }
}

void pgi_parameters_free(pgi_parameters *parameters) {
    if (!parameters->memory) return;
    free_vectors(parameters);
    pgi_free(parameters->memory, parameters->list);
    *parameters = (pgi_parameters){.memory = NULL};
}

/* The values of a shape, and behind them those that fill up the last line. */
static pg_status count_values(const char *name, int32_t n_dims, const int64_t *shape, size_t *n) {
    if (n_dims < 1 || n_dims > 4)
        return pgi_error(PG_ERROR_INTERNAL, "%s: found %d dimensions, expected 1 to 4", name, n_dims);
    *n = 1;
    for (int32_t i = 0; i < n_dims; i++) {
        if (shape[i] < 1)
            return pgi_error(PG_ERROR_INTERNAL, "%s: found a size of %lld, expected 1 or more", name,
                             (long long)shape[i]);
        if (!pgi_mul_size(*n, (size_t)shape[i], n) || *n > PTRDIFF_MAX / sizeof(float) - LINE)
            return pgi_error(PG_ERROR_LIMIT, "%s: found more values than an address space holds", name);
    }
    return PG_OK;
}

pg_status pgi_parameters_add(pgi_parameters *parameters, const char *name, int32_t n_dims, const int64_t *shape,
                             int decays) {
    pgi_parameter parameter = {.n_dims = n_dims, .decays = decays != 0};
    const size_t size = strlen(name);
    if (size >= sizeof parameter.name)
        return pgi_error(PG_ERROR_LIMIT, "%.60s...: found a name of %zu bytes, expected at most %zu", name, size,
                         sizeof parameter.name - 1);
    PGI_TRY(count_values(name, n_dims, shape, &parameter.n));
    memcpy(parameter.name, name, size + 1);
    memcpy(parameter.shape, shape, (size_t)n_dims * sizeof *shape);
    PGI_TRY(pgi_grow(parameters->memory, &parameters->list, &parameters->capacity, parameters->n + 1,
                     sizeof *parameters->list));
    parameters->list[parameters->n++] = parameter;
    return PG_OK;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const pgi_parameter *)a)->name, ((const pgi_parameter *)b)->name);
}

/* Gives each its place, and counts the values. */
static pg_status place(pgi_parameters *parameters) {
    size_t at = 0;
    for (size_t i = 0; i < parameters->n; i++) {
        pgi_parameter *parameter = &parameters->list[i];
        if (i > 0 && by_name(parameter - 1, parameter) == 0)
            return pgi_error(PG_ERROR_FORMAT, "%s: found this parameter twice, expected it once", parameter->name);
        const size_t lines = (parameter->n + LINE - 1) / LINE * LINE;
        if (lines > PTRDIFF_MAX / sizeof(float) - at)
            return pgi_error(PG_ERROR_LIMIT, "%s: found more values up to this one than an address space holds",
                             parameter->name);
        parameter->at = at;
        at += lines;
    }
    parameters->n_values = at;
    return PG_OK;
}

pg_status pgi_parameters_make(pgi_parameters *parameters) {
    if (parameters->n) qsort(parameters->list, parameters->n, sizeof *parameters->list, by_name);
    PGI_TRY(place(parameters));
    for (int i = 0; i < N_VECTORS; i++) {
        *vector_at(parameters, i) = pgi_alloc_zero(parameters->memory, parameters->n_values, sizeof(float));
        if (*vector_at(parameters, i)) continue;
        free_vectors(parameters);
        return PG_ERROR_MEMORY;
    }
    return PG_OK;
}

static int compare_name(const void *key, const void *element) {
    return strcmp(key, ((const pgi_parameter *)element)->name);
}

const pgi_parameter *pgi_parameters_find(const pgi_parameters *parameters, const char *name) {
    if (parameters->n == 0) return NULL;
    return bsearch(name, parameters->list, parameters->n, sizeof *parameters->list, compare_name);
}
