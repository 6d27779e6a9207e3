/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The kernels for AVX-512 F, BW, DQ, VL: tiles of 14 x 32. */
#include "kernels/x86/vector_avx512.h"

#define GEMM_CASES 14
#include "kernels/simd/products.inc.h"
#include "kernels/simd/rows.inc.h"

#include "kernels/x86/quantized_ymm.h"
#include "kernels/simd/quantized.inc.h"
#include "kernels/x86/quantized_rows.inc.h"

void pgi_kernels_avx512(pgi_kernels *kernels) {
    set_products(kernels);
    set_rows(kernels);
    set_quantized_products(kernels);
    set_quantized_rows(kernels);
}
