/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What a conversion asks of the adapters that it merges (model/adapter_merge.c), while it reads the tensors of the
 * base. */
#ifndef PGI_CHECKPOINT_WEIGHT_CHANGES_H
#define PGI_CHECKPOINT_WEIGHT_CHANGES_H

#include "checkpoint/tensor_header.h"

typedef struct pgi_weight_changes {
    void *user;
    /* Whether the adapters change a tensor. */
    int (*changes)(void *user, const pgi_stored_tensor *tensor);
    /* Before its rows are asked for. */
    pg_status (*begin)(void *user, const pgi_stored_tensor *tensor);
    /* rows [n, columns] of that tensor as stored, from `first` on, become those with the adapters; a vector is one row.
     * On any number of threads. */
    void (*rows)(void *user, int64_t first, int64_t n, int64_t columns, float *rows);
    /* Whether the head needs a tensor of its own, as the embedding that it is tied to changes. */
    int (*unties_head)(void *user);
} pgi_weight_changes;

#endif
