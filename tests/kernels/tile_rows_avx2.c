/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* quantize_rows as AMX has it, rows of 128 bytes for its tiles: it needs no more than AVX2, so it is tried there. */
#define Q_TILES 1
#include "kernels/x86/quantized_rows.inc.h"

#include "check.h"

void tile_rows_avx2(pgi_kernels *kernels) {
    set_quantized_rows(kernels);
    kernels->quantized_tiles = 1;
}
