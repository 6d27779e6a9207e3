/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The whole table in plain C. */
#include "kernels/ref/ref.h"

void pgi_kernels_ref(pgi_kernels *kernels) {
    pgi_ref_products(kernels);
    pgi_ref_bf16(kernels);
    pgi_ref_quantized(kernels);
    pgi_ref_resample(kernels);
    pgi_ref_rows(kernels);
    pgi_ref_yuv(kernels);
}
