/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The group bf16 for AMX-BF16: products of 32 x 32 on tiles, the rest as for AVX-512 BF16. */
#include "kernels/x86/bf16_zmm.h"
#include "kernels/x86/tiles_amx.h"

#include "kernels/x86/gemm_tiles.inc.h"

enum { MR = GEMM_ROWS };

#define OWN_PANELS
#include "kernels/simd/bf16.inc.h"

void pgi_kernels_amx_bf16(pgi_kernels *kernels) {
    set_bf16(kernels);
    kernels->gemm_bf16_step = TILE_ROWS;
    kernels->gemm_bf16_deep = 1;
    kernels->gemm_bf16_begin = tiles_begin;
    kernels->gemm_bf16_end = tiles_end;
}
