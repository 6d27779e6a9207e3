/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The groups quantized_products (tiles of 6 x 16) and resample for AVX-VNNI, which comes with AVX2. */
#include "kernels/x86/quantized_ymm.h"

#include "kernels/simd/quantized.inc.h"

#define RESAMPLE_DOT _mm256_dpwssd_avx_epi32
#include "kernels/x86/resample_avx2.h"

void pgi_kernels_avx_vnni(pgi_kernels *kernels) {
    set_quantized_products(kernels);
    set_resample(kernels);
}
