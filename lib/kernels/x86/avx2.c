/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The kernels for AVX2, FMA and F16C: tiles of 6 x 16. */
#include "kernels/x86/vector_avx2.h"

#define GEMM_CASES 6
#include "kernels/simd/products.inc.h"
#include "kernels/simd/rows.inc.h"

#include "kernels/x86/quantized_ymm.h"
#include "kernels/simd/quantized.inc.h"
#include "kernels/x86/quantized_rows.inc.h"

#include "kernels/x86/resample_avx2.h"
#include "kernels/x86/yuv_avx2.h"

void pgi_kernels_avx2(pgi_kernels *kernels) {
    set_products(kernels);
    set_rows(kernels);
    set_quantized_products(kernels);
    set_quantized_rows(kernels);
    set_resample(kernels);
    set_yuv(kernels);
}
