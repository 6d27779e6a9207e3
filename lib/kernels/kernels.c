/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Chooses the kernels: plain C, then every instruction set that the CPU has and the mask allows. Also looks up the
 * kernels of an activation. */
#include "kernels/kernels.h"

/* The instruction sets that the compiler knew. */
static const uint64_t built = PG_CPU_BASELINE
#ifdef PGI_HAS_AVX2
                              | PG_CPU_AVX2
#endif
#ifdef PGI_HAS_AVX512
                              | PG_CPU_AVX512
#endif
#ifdef PGI_HAS_AVX_VNNI
                              | PG_CPU_AVX_VNNI
#endif
#ifdef PGI_HAS_AVX512_VNNI
                              | PG_CPU_AVX512_VNNI
#endif
#ifdef PGI_HAS_AVX512_BF16
                              | PG_CPU_AVX512_BF16
#endif
#ifdef PGI_HAS_AMX_INT8
                              | PG_CPU_AMX_INT8
#endif
#ifdef PGI_HAS_AMX_BF16
                              | PG_CPU_AMX_BF16
#endif
#ifdef PGI_HAS_NEON
                              | PG_CPU_NEON
#endif
#ifdef PGI_HAS_NEON_DOTPROD
                              | PG_CPU_NEON_DOTPROD
#endif
#ifdef PGI_HAS_NEON_I8MM
                              | PG_CPU_NEON_I8MM
#endif
#ifdef PGI_HAS_NEON_BF16
                              | PG_CPU_NEON_BF16
#endif
    ;

pg_status pgi_kernels_init(pgi_kernels *kernels, uint64_t cpu_mask) {
    uint64_t features = pgi_cpu_features();
    uint64_t used = cpu_mask ? cpu_mask & features : pgi_cpu_default();
    if (!used)
        return pgi_error(PG_ERROR_ARGUMENT, "cpu_mask: found 0x%llx, expected one of the bits 0x%llx that this CPU has",
                         (unsigned long long)cpu_mask, (unsigned long long)features);
    pgi_kernels_ref(kernels);
    used &= built;
#ifdef PGI_HAS_AVX2
    if (used & PG_CPU_AVX2) pgi_kernels_avx2(kernels);
#endif
#ifdef PGI_HAS_AVX512
    if (used & PG_CPU_AVX512) pgi_kernels_avx512(kernels);
#endif
#ifdef PGI_HAS_AVX_VNNI
    if (used & PG_CPU_AVX_VNNI) pgi_kernels_avx_vnni(kernels);
#endif
#ifdef PGI_HAS_AVX512_VNNI
    if (used & PG_CPU_AVX512_VNNI) pgi_kernels_avx512_vnni(kernels);
#endif
#ifdef PGI_HAS_AVX512_BF16
    if (used & PG_CPU_AVX512_BF16) pgi_kernels_avx512_bf16(kernels);
#endif
#if defined(PGI_HAS_AMX_INT8) || defined(PGI_HAS_AMX_BF16) /* pgi_cpu_request_tiles() is x86-64's alone */
    const uint64_t tiles = PG_CPU_AMX_INT8 | PG_CPU_AMX_BF16;
    if ((used & tiles) && !pgi_cpu_request_tiles()) used &= ~tiles;
#endif
#ifdef PGI_HAS_AMX_INT8
    if (used & PG_CPU_AMX_INT8) pgi_kernels_amx_int8(kernels);
#endif
#ifdef PGI_HAS_AMX_BF16
    if (used & PG_CPU_AMX_BF16) pgi_kernels_amx_bf16(kernels);
#endif
#ifdef PGI_HAS_NEON
    if (used & PG_CPU_NEON) pgi_kernels_neon(kernels);
#endif
#ifdef PGI_HAS_NEON_DOTPROD
    if (used & PG_CPU_NEON_DOTPROD) pgi_kernels_neon_dotprod(kernels);
#endif
#ifdef PGI_HAS_NEON_I8MM
    if (used & PG_CPU_NEON_I8MM) pgi_kernels_neon_i8mm(kernels);
#endif
#ifdef PGI_HAS_NEON_BF16
    if (used & PG_CPU_NEON_BF16) pgi_kernels_neon_bf16(kernels);
#endif
    kernels->cpu = used | PG_CPU_BASELINE;
    kernels->one_stream = pgi_cpu_one_stream();
    kernels->bf16_linear = kernels->bf16_attention = kernels->low_rank = 0;
    return PG_OK;
}

void pgi_kernels_arithmetic(pgi_kernels *kernels, int32_t arithmetic, int quantized) {
    const int fast = (kernels->cpu & (PG_CPU_AVX512_BF16 | PG_CPU_AMX_BF16 | PG_CPU_NEON_BF16)) != 0;
    kernels->bf16_linear = fast && arithmetic == PG_ARITHMETIC_BF16;
    /* What int8 weights lose already is many times what attention in bf16 adds. */
    kernels->bf16_attention = kernels->bf16_linear || (fast && quantized && arithmetic == PG_ARITHMETIC_DEFAULT);
}

pg_status pgi_find_activation(const pgi_kernels *kernels, int32_t activation, void (**apply)(float *x, int64_t n),
                              void (**gate)(float *x, const float *y, int64_t n)) {
    switch (activation) {
        case PGI_ACTIVATION_GELU_TANH: *apply = kernels->gelu_tanh, *gate = kernels->gate_gelu_tanh; break;
        case PGI_ACTIVATION_GELU_ERF: *apply = kernels->gelu_erf, *gate = kernels->gate_gelu_erf; break;
        case PGI_ACTIVATION_SILU: *apply = kernels->silu, *gate = kernels->gate_silu; break;
        case PGI_ACTIVATION_RELU: *apply = kernels->relu, *gate = kernels->gate_relu; break;
        default: return pgi_error(PG_ERROR_INTERNAL, "found activation %d", (int)activation);
    }
    return PG_OK;
}
