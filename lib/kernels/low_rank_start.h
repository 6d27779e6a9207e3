/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What the sums of products on tiles begin with beside a bias: what adapters add (ops/low_rank.h), while they are in
 * the tile anyway. */
#ifndef PGI_KERNELS_LOW_RANK_START_H
#define PGI_KERNELS_LOW_RANK_START_H

#include <stdint.h>

/* The product a b. Zeros fill up k to a multiple of 32; rows of `a` can be read up to the next multiple of 16. */
typedef struct pgi_low_rank_start {
    const uint16_t *a; /* bf16 [rows, k] */
    const uint16_t *b; /* panels of gemm_bf16, of gemm_bf16_nr columns; k values each */
    int64_t k;         /* 0: nothing */
} pgi_low_rank_start;

#endif
