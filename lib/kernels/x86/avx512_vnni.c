/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The groups quantized_products (tiles of 7 x 32; up to 16 rows are streamed) and resample for AVX-512 VNNI. */
#include "kernels/x86/quantized_zmm.h"

#include "kernels/simd/quantized.inc.h"

#define RESAMPLE_DOT _mm256_dpwssd_epi32
#include "kernels/x86/resample_avx2.h"

void pgi_kernels_avx512_vnni(pgi_kernels *kernels) {
    set_quantized_products(kernels);
    set_resample(kernels);
}
