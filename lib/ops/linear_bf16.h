/* Linear layers of many rows in bf16: what linear.c hands over where kernels->bf16_linear is set. */
#ifndef PGI_OPS_LINEAR_BF16_H
#define PGI_OPS_LINEAR_BF16_H

#include "ops/ops.h"

/* Bytes of scratch for pgi_bf16_linear() of any shape. */
size_t pgi_bf16_scratch(int n_threads);

/* pgi_linear_forward() of rows >= 1 and columns >= 1, with weights of f32, bf16 or f16. */
pg_status pgi_bf16_linear(const pgi_run *run, const float *x, int64_t x_stride, int64_t rows, const pgi_linear *linear,
                          float *y, int64_t y_stride, void *scratch);

#endif
