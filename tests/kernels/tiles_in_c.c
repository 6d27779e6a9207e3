/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* product_tiles, gemm_bf16 and gemm_bf16_panels as AMX has them, on tiles in plain C: for CPUs without AMX. */
#include "check.h"
#include "kernels/x86/tiles_c.h"

#include "kernels/x86/gemm_tiles.inc.h"
#include "kernels/x86/quantized_tiles.inc.h"

void tiles_in_c(pgi_kernels *kernels) {
    kernels->product_tiles = product_tiles;
    kernels->gemm_bf16 = gemm_bf16;
    kernels->gemm_bf16_panels = gemm_bf16_panels;
    kernels->gemm_bf16_begin = tiles_begin;
    kernels->gemm_bf16_end = tiles_end;
    kernels->gemm_bf16_mr = GEMM_ROWS;
    kernels->gemm_bf16_nr = GEMM_ROWS;
    kernels->gemm_bf16_deep = kernels->quantized_tiles = 1;
}
