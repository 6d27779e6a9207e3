/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The group bf16 for AVX-512 BF16: tiles of 14 x 32, as for f32, where a lane holds a pair of values. */
#include "kernels/x86/bf16_zmm.h"

enum { MR = 14 };

static ALWAYS_INLINE ivec gemm_load(const uint16_t *panel) { return i_load(panel); }
static ALWAYS_INLINE ivec gemm_set1(const uint16_t *pair) {
    int32_t word;
    memcpy(&word, pair, sizeof word);
    return _mm512_set1_epi32(word);
}
static ALWAYS_INLINE ivec gemm_set1_last(const uint16_t *value) { return _mm512_set1_epi32(*value); }
/* Both products of a pair. (Written as the instruction: gcc 12 may copy sums around the intrinsic, see
 * quantized_zmm.h.) */
static ALWAYS_INLINE vec gemm_add_product(vec sum, ivec x, ivec b) {
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(x), "v"(b));
    return sum;
}
#define GEMM_NAME gemm_bf16
#define GEMM_VALUE uint16_t
#define GEMM_VECTOR ivec
#define GEMM_STEP 2
#define GEMM_LDA PGI_GEMM_BF16_LDA
#define GEMM_CASES 14
#include "kernels/simd/gemm.inc.h"

#include "kernels/simd/bf16.inc.h"

void pgi_kernels_avx512_bf16(pgi_kernels *kernels) { set_bf16(kernels); }
