/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The groups quantized_products and quantized_rows for AMX-INT8, with AVX-512 VNNI for few rows. */
#include "kernels/x86/tiles_amx.h"

#define Q_X_BY_ROWS
#define Q_OWN_PRODUCT_INT8
#include "kernels/x86/quantized_zmm.h"
#undef Q_EACH_TILE_ROW

#include "kernels/x86/quantized_rows.inc.h"

#include "kernels/x86/quantized_tiles.inc.h"

#include "kernels/simd/quantized.inc.h"

void pgi_kernels_amx_int8(pgi_kernels *kernels) {
    set_quantized_products(kernels);
    set_quantized_rows(kernels);
    kernels->quantized_rows = PGI_TILE_ROWS;
}
