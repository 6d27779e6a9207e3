/* The kernels for AVX2, FMA and F16C: tiles of 6 x 16. */
#include "kernels/x86/vector_avx2.h"

#define PGI_GEMM_CASES 6
#include "kernels/x86/products.inc.h"
#include "kernels/x86/rows.inc.h"

void pgi_kernels_avx2(pgi_kernels *kernels) {
    set_products(kernels);
    set_rows(kernels);
}
