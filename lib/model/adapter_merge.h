/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Adapters as a conversion merges them: W + B A in place of W. */
#ifndef PGI_MODEL_ADAPTER_MERGE_H
#define PGI_MODEL_ADAPTER_MERGE_H

#include "checkpoint/weight_changes.h"
#include "model/adapter.h"

typedef struct pgi_adapter_merge {
    pgi_weight_changes calls; /* for pgi_convert() */
    pg_model *model, *adapted;
    pgi_module module; /* whose tensor is under way, in the weights of `adapted` */
    int is_bias;
    float *a; /* its A as f32 [rank, columns], of a linear layer; NULL: none */
} pgi_adapter_merge;

/* Opens the model as it is stored, and the adapters with their weights (NULL: all 1). On error nothing is open. */
pg_status pgi_adapter_merge_open(const pgi_memory *memory, const pgi_run *run, const char *model,
                                 const char *const *adapters, const float *weights, size_t n, pgi_adapter_merge *out);
void pgi_adapter_merge_close(pgi_adapter_merge *merger);

#endif
