/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Products of two matrices as training needs them: either factor may be transposed, sums are f32. */
#ifndef PGI_TRAIN_MATMUL_H
#define PGI_TRAIN_MATMUL_H

#include "base/run.h"

/* c [m, n] = scale a [m, k] b [k, n], or is added to. Strides are values from row to row as they lie in memory. */
typedef struct pgi_matmul {
    int64_t m, n, k;
    const float *a;
    int64_t a_stride;
    int a_transposed; /* it lies as [k, m] */
    const void *b;
    int32_t b_dtype; /* PG_DTYPE_F32, _BF16 or _F16 */
    int64_t b_stride;
    int b_transposed; /* it lies as [n, k], as the weight of a linear layer that is run forward */
    float *c;
    int64_t c_stride;
    int accumulate;
    float scale;
} pgi_matmul;

/* Bytes of scratch for products of any size. */
size_t pgi_matmul_scratch(const struct pgi_kernels *kernels, int n_threads);
/* Each sum runs in the same order however the work is cut, so that the threads do not change the result. */
pg_status pgi_matmul_run(const pgi_run *run, const pgi_matmul *product, void *scratch);

#endif
