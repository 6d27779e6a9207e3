/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What an AArch64 CPU can do, as its operating system says: the instructions that tell are the system's alone. */
#include "kernels/cpu_arm.h"

#include "kernels/kernels.h"

#define HWCAP_ASIMD (UINT64_C(1) << 1)
#define HWCAP_ASIMDDP (UINT64_C(1) << 20)
#define HWCAP2_I8MM (UINT64_C(1) << 13)
#define HWCAP2_BF16 (UINT64_C(1) << 14)

/* Both i8mm and bf16 imply what dot products are made of in every CPU; here nothing is used without what it stands on.
 */
static uint64_t features_of(int neon, int dotprod, int i8mm, int bf16) {
    uint64_t features = PG_CPU_BASELINE;
    if (!neon) return features;
    features |= PG_CPU_NEON;
    if (dotprod) features |= PG_CPU_NEON_DOTPROD;
    if (dotprod && i8mm) features |= PG_CPU_NEON_I8MM;
    if (bf16) features |= PG_CPU_NEON_BF16;
    return features;
}

uint64_t pgi_cpu_features_of_hwcap(uint64_t hwcap, uint64_t hwcap2) {
    return features_of((hwcap & HWCAP_ASIMD) != 0, (hwcap & HWCAP_ASIMDDP) != 0, (hwcap2 & HWCAP2_I8MM) != 0,
                       (hwcap2 & HWCAP2_BF16) != 0);
}

#if defined(__aarch64__)
#if defined(__linux__)
#include <sys/auxv.h>

uint64_t pgi_cpu_features(void) { return pgi_cpu_features_of_hwcap(getauxval(AT_HWCAP), getauxval(AT_HWCAP2)); }
#elif defined(__FreeBSD__)
#include <sys/auxv.h>

/* FreeBSD's bits are Linux's. */
uint64_t pgi_cpu_features(void) {
    unsigned long hwcap = 0, hwcap2 = 0;
    elf_aux_info(AT_HWCAP, &hwcap, sizeof hwcap);
    elf_aux_info(AT_HWCAP2, &hwcap2, sizeof hwcap2);
    return pgi_cpu_features_of_hwcap(hwcap, hwcap2);
}
#elif defined(__APPLE__)
#include <sys/sysctl.h>

static int has(const char *name) {
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, 0, 0) == 0 && value;
}

uint64_t pgi_cpu_features(void) {
    return features_of(1, has("hw.optional.arm.FEAT_DotProd"), has("hw.optional.arm.FEAT_I8MM"),
                       has("hw.optional.arm.FEAT_BF16"));
}
#else
/* No question is known here: what the compiler may use anyway. */
#if defined(__ARM_FEATURE_DOTPROD)
#define DOTPROD 1
#else
#define DOTPROD 0
#endif
#if defined(__ARM_FEATURE_MATMUL_INT8)
#define I8MM 1
#else
#define I8MM 0
#endif
#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#define BF16 1
#else
#define BF16 0
#endif
uint64_t pgi_cpu_features(void) { return features_of(1, DOTPROD, I8MM, BF16); }
#endif

uint64_t pgi_cpu_default(void) { return pgi_cpu_features(); }
#endif
