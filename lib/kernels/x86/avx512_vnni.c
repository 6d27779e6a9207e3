/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The group quantized_products for AVX-512 VNNI: tiles of 12 x 32; up to 16 rows are streamed. */
#include "kernels/x86/quantized_zmm.h"

#include "kernels/simd/quantized.inc.h"

void pgi_kernels_avx512_vnni(pgi_kernels *kernels) { set_quantized_products(kernels); }
