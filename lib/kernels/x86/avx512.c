/* The kernels for AVX-512 F, BW, DQ, VL: tiles of 14 x 32. */
#include "kernels/x86/vector_avx512.h"

#define PGI_GEMM_CASES 14
#include "kernels/x86/products.inc.h"
#include "kernels/x86/rows.inc.h"

void pgi_kernels_avx512(pgi_kernels *kernels) {
    set_products(kernels);
    set_rows(kernels);
}
