/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* product_tiles as AMX has it, on tiles in plain C: for CPUs without AMX. */
#include "check.h"
#include "kernels/x86/tiles_c.h"

#include "kernels/x86/quantized_tiles.inc.h"

void tiles_in_c(pgi_kernels *kernels) { kernels->product_tiles = product_tiles; }
