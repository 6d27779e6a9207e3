/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The kernels for what every AArch64 CPU has: NEON with FMA, tiles of 8 x 8. */
#include "kernels/arm/vector_neon.h"

#define GEMM_CASES 8
#include "kernels/simd/products.inc.h"
#include "kernels/simd/rows.inc.h"

#include "kernels/arm/quantized_neon.h"
#include "kernels/simd/quantized.inc.h"
#include "kernels/arm/quantized_rows.inc.h"

#include "kernels/arm/resample_neon.h"
#include "kernels/arm/yuv_neon.h"

void pgi_kernels_neon(pgi_kernels *kernels) {
    set_products(kernels);
    set_rows(kernels);
    set_quantized_products(kernels);
    set_quantized_rows(kernels);
    set_resample(kernels);
    set_yuv(kernels);
}
