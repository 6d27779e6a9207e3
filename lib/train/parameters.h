/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The arrays that are trained, with gradients and the optimizer's state. The values of all of them lie one behind the
 * other, so that the optimizer, a saved state and the norm of the gradients see one long vector.
 */
#ifndef PGI_TRAIN_PARAMETERS_H
#define PGI_TRAIN_PARAMETERS_H

#include "base/memory.h"

typedef struct pgi_parameter {
    char name[160]; /* as in adapter_model.safetensors: "base_model.model." and so on */
    int32_t n_dims; /* 1 to 4 */
    int64_t shape[4];
    int decays;   /* weight decay: neither a bias nor of a norm */
    size_t at, n; /* its values are those at .. at + n of the vectors */
} pgi_parameter;

typedef struct pgi_parameters {
    const pgi_memory *memory;
    pgi_parameter *list; /* in the order of their names, once pgi_parameters_make() was called */
    size_t n, capacity;
    size_t n_values;
    float *values, *gradients, *mean, *square; /* [n_values]; mean and square: AdamW's exp_avg and exp_avg_sq */
} pgi_parameters;

void pgi_parameters_init(pgi_parameters *parameters, const pgi_memory *memory);
void pgi_parameters_free(pgi_parameters *parameters);
/* Adds one to the list, without values. PG_ERROR_MEMORY, _LIMIT (more values than an address space has). */
pg_status pgi_parameters_add(pgi_parameters *parameters, const char *name, int32_t n_dims, const int64_t *shape,
                             int decays);
/* Sorts the list by name, gives each its place, at multiples of 16 values, and allocates the vectors, which are zero.
 * PG_ERROR_FORMAT: a name is there twice. */
pg_status pgi_parameters_make(pgi_parameters *parameters);
/* By its name; NULL: there is none. After pgi_parameters_make(). */
const pgi_parameter *pgi_parameters_find(const pgi_parameters *parameters, const char *name);

#endif
