/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The group quantized_products for AVX-VNNI, which comes with AVX2: tiles of 6 x 16. */
#include "kernels/x86/quantized_ymm.h"

#include "kernels/simd/quantized.inc.h"

void pgi_kernels_avx_vnni(pgi_kernels *kernels) { set_quantized_products(kernels); }
