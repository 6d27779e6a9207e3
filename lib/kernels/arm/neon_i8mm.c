/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The group quantized_products for products of matrices of bytes (FEAT_I8MM), beside dot products: tiles of 12 rows. */
#include "kernels/arm/quantized_mmla.h"

#include "kernels/simd/quantized.inc.h"

void pgi_kernels_neon_i8mm(pgi_kernels *kernels) { set_quantized_products(kernels); }
