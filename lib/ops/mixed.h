/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Linear layers of rows that have layers of their own: each row is of a model with other adapters. Where the weights
 * are the same, they are read once for all rows, and only the low-rank parts differ (ops/low_rank.h).
 */
#ifndef PGI_OPS_MIXED_H
#define PGI_OPS_MIXED_H

#include "ops/low_rank.h"

enum {
    PGI_MIXED_ROWS = PGI_LOW_RANK_FEW,     /* at the most */
    PGI_MIXED_LAYERS = PGI_LOW_RANK_LAYERS /* that read the same x at the most */
};

/* The layers of rows that are one product. They point into this struct. */
typedef struct pgi_mixed {
    const pgi_linear *layers[PGI_MIXED_LAYERS];
    pgi_linear made[PGI_MIXED_LAYERS];
    pgi_low_rank parts[PGI_MIXED_LAYERS];
    const pgi_low_rank *rows[PGI_MIXED_LAYERS][PGI_MIXED_ROWS];
} pgi_mixed;

/* The layers of the first rows as those of one product: of as many rows as it can be, of which each gets the bits that
 * it gets alone. layers [n_rows, n]: each row's. is_mlp: the last of the n is the down layer of an MLP, and all of them
 * are for pgi_mlp_forward(). Returns how many rows, at least 1. */
int64_t pgi_mixed_take(const pgi_linear *const *layers, int64_t n_rows, int n, int is_mlp, pgi_mixed *out);

#endif
