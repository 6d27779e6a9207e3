/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The group quantized_products for dot products of bytes (FEAT_DotProd): tiles of 12 rows. */
#include "kernels/arm/quantized_dot.h"

#include "kernels/simd/quantized.inc.h"

void pgi_kernels_neon_dotprod(pgi_kernels *kernels) { set_quantized_products(kernels); }
