/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Linear layers and MLPs with int8 and int4 weights (kernels/quantized.h): what linear.c and mlp.c hand over. */
#ifndef PGI_OPS_LINEAR_QUANTIZED_H
#define PGI_OPS_LINEAR_QUANTIZED_H

#include "ops/low_rank.h"
#include "ops/ops.h"

/* The low-rank part of layer `index` of a group that reads the same x, in the scratch of pgi_linear_forward(). */
pgi_low_rank_rows pgi_linear_low_rank(const pgi_run *run, const pgi_linear *linear, int index, void *scratch);

/* pgi_linear_group(), pgi_mlp_forward() and pgi_mlp_intermediate() for quantized weights, and their scratch. */
size_t pgi_quantized_scratch(int n_threads);
size_t pgi_quantized_intermediate(const struct pgi_kernels *kernels, int64_t rows, int64_t width);
pg_status pgi_quantized_linears(const pgi_run *run, const float *x, int64_t x_stride, int64_t rows,
                                const pgi_linear_job *outputs, int n, void *scratch);
pg_status pgi_quantized_mlp(const pgi_run *run, const pgi_mlp *mlp, const float *x, int64_t rows, float *y,
                            void *intermediate, void *scratch);

#endif
