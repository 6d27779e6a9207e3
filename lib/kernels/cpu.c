/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What the CPU can do and the operating system saves: CPUID leaves 1 and 7, and XCR0. */
#include "kernels/kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>

static uint64_t read_xcr0(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

uint64_t pgi_cpu_features(void) {
    enum { XMM_YMM = 0x6, ZMM = 0xE6 }; /* state components of XCR0 */
    uint64_t features = PG_CPU_BASELINE;
    /* leaf 7: subleaf 1 EAX; subleaf 0 ECX */
    enum { AVX_VNNI = 1 << 4, AVX512_BF16 = 1 << 5, AVX512_VNNI = 1 << 11 };
    uint32_t a, b, c, d, a7, b7, c7, d7;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return features;
    if (!__get_cpuid_count(7, 0, &a7, &b7, &c7, &d7)) return features;
    uint64_t xcr0 = read_xcr0();
    if ((xcr0 & XMM_YMM) != XMM_YMM) return features;
    if (!(c & bit_AVX) || !(c & bit_FMA) || !(c & bit_F16C) || !(b7 & bit_AVX2)) return features;
    features |= PG_CPU_AVX2;
    uint32_t avx512 = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
    if ((xcr0 & ZMM) == ZMM && (b7 & avx512) == avx512) {
        features |= PG_CPU_AVX512;
        if (c7 & AVX512_VNNI) features |= PG_CPU_AVX512_VNNI;
    }
    if (a7 < 1 || !__get_cpuid_count(7, 1, &a, &b, &c, &d)) return features;
    if (a & AVX_VNNI) features |= PG_CPU_AVX_VNNI;
    if ((features & PG_CPU_AVX512) && (a & AVX512_BF16)) features |= PG_CPU_AVX512_BF16;
    return features;
}

uint64_t pgi_cpu_default(void) {
    uint32_t a, b, c, d;
    uint64_t features = pgi_cpu_features();
    int amd =
        __get_cpuid(0, &a, &b, &c, &d) && b == signature_AMD_ebx && c == signature_AMD_ecx && d == signature_AMD_edx;
    return amd ? features : features & ~PG_CPU_AVX512_BF16;
}
#else
uint64_t pgi_cpu_features(void) { return PG_CPU_BASELINE; }
uint64_t pgi_cpu_default(void) { return PG_CPU_BASELINE; }
#endif
