/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The groups quantized_* for AMX-INT8, with AVX-512 VNNI for few rows. */
#include "kernels/x86/tiles_amx.h"

#define Q_TILES 1
#include "kernels/x86/quantized_zmm.h"

#include "kernels/x86/quantized_rows.inc.h"

#include "kernels/x86/quantized_tiles.inc.h"

#include "kernels/simd/quantized.inc.h"

void pgi_kernels_amx_int8(pgi_kernels *kernels) {
    set_quantized_products(kernels);
    set_quantized_rows(kernels);
    kernels->product_tiles = product_tiles;
    kernels->quantized_panels = PGI_PRODUCT_PANELS;
    kernels->quantized_groups = 16;
    kernels->quantized_tiles = 1;
}
