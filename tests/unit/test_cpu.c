/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Which instruction sets are used, by what a CPU and its operating system say: CPUs as they are, and those on which an
 * operating system, a hypervisor or a boot option takes something away; and AArch64 CPUs as Linux tells of them. */
#include "run_tests.h"

#include <string.h>

#include "kernels/cpu.h"
#include "kernels/cpu_arm.h"
#include "kernels/kernels.h"

#define BASE PG_CPU_BASELINE
#define AVX2 (BASE | PG_CPU_AVX2)
#define AVX512 (AVX2 | PG_CPU_AVX512)
#define VNNI (AVX512 | PG_CPU_AVX512_VNNI)
#define BF16 (VNNI | PG_CPU_AVX512_BF16)
#define AMX (PG_CPU_AMX_INT8 | PG_CPU_AMX_BF16)

/* Words of CPUID as such CPUs give them; of no account are the bits that are not looked at. */
static const struct {
    const char *name, *vendor;
    uint32_t c1, b7, c7, a7_1;
    uint64_t xcr0, features, chosen;
    uint32_t d7;
} cpus[] = {
    {"Westmere: no AVX, no leaf 7", "GenuineIntel", 0x029ee3ff, 0, 0, 0, 0, BASE, BASE, 0},
    {"Sandy Bridge: AVX alone", "GenuineIntel", 0x1fbae3ff, 0, 0, 0, 0x7, BASE, BASE, 0},
    {"Haswell", "GenuineIntel", 0x7ffafbff, 0x000037ab, 0, 0, 0x7, AVX2, AVX2, 0},
    {"Skylake-X", "GenuineIntel", 0x7ffefbff, 0xd39ffffb, 0x00000018, 0, 0x2e7, AVX512, AVX512, 0},
    {"Knights Landing: AVX-512 F without BW, DQ, VL", "GenuineIntel", 0x7ff8fbbf, 0x1c0d23ab, 0, 0, 0xe7, AVX2, AVX2,
     0},
    {"Ice Lake", "GenuineIntel", 0x7ffafbff, 0xf2bf27eb, 0x40417f5e, 0, 0x2e7, VNNI, VNNI, 0},
    {"Cooper Lake", "GenuineIntel", 0x7ffefbff, 0xd39ffffb, 0x00000818, 0x20, 0x2e7, BF16, VNNI, 0},
    {"Sapphire Rapids", "GenuineIntel", 0x7ffefbff, 0xf3bfbfeb, 0x1b415f6e, 0x00001c30, 0x602e7,
     BF16 | PG_CPU_AVX_VNNI | AMX, VNNI | PG_CPU_AVX_VNNI | AMX, 0xffdd4432},
    {"Sapphire Rapids, whose system saves no tiles", "GenuineIntel", 0x7ffefbff, 0xf3bfbfeb, 0x1b415f6e, 0x00001c30,
     0x2e7, BF16 | PG_CPU_AVX_VNNI, VNNI | PG_CPU_AVX_VNNI, 0xffdd4432},
    {"a hypervisor that hides AMX-BF16", "GenuineIntel", 0x7ffefbff, 0xf3bfbfeb, 0x1b415f6e, 0x00001c30, 0x602e7,
     BF16 | PG_CPU_AVX_VNNI | PG_CPU_AMX_INT8, VNNI | PG_CPU_AVX_VNNI | PG_CPU_AMX_INT8, 0xff9d4432},
    {"a hypervisor that hides tiles", "GenuineIntel", 0x7ffefbff, 0xf3bfbfeb, 0x1b415f6e, 0x00001c30, 0x602e7,
     BF16 | PG_CPU_AVX_VNNI, VNNI | PG_CPU_AVX_VNNI, 0xfedd4432},
    {"Alder Lake: AVX-VNNI without AVX-512", "GenuineIntel", 0x7ffafbff, 0x239c27eb, 0x984007bc, 0x00400810, 0x207,
     AVX2 | PG_CPU_AVX_VNNI, AVX2 | PG_CPU_AVX_VNNI, 0},
    {"Zen 3", "AuthenticAMD", 0x7ef8320b, 0x219c97a9, 0x0040068c, 0, 0x207, AVX2, AVX2, 0},
    {"Zen 4", "AuthenticAMD", 0x7ef8320b, 0xf1bf97a9, 0x00415fde, 0x20, 0x2e7, BF16, BF16, 0},
    {"Zen 5", "AuthenticAMD", 0x7ef8320b, 0xf1bf97a9, 0x08415fde, 0x30, 0x2e7, BF16 | PG_CPU_AVX_VNNI,
     BF16 | PG_CPU_AVX_VNNI, 0},

    {"noxsave: the system saves nothing beyond SSE, and XGETBV would fault", "GenuineIntel", 0x7ffefbff & ~(1u << 27),
     0xd39ffffb, 0x818, 0x30, 0, BASE, BASE, 0},
    {"OSXSAVE, but XCR0 has SSE alone", "GenuineIntel", 0x7ffefbff, 0xd39ffffb, 0x818, 0x30, 0x3, BASE, BASE, 0},
    {"XCR0 has YMM without XMM", "GenuineIntel", 0x7ffefbff, 0xd39ffffb, 0x818, 0x30, 0x5, BASE, BASE, 0},
    {"AVX-512 in CPUID, off in XCR0 (clearcpuid, older systems)", "GenuineIntel", 0x7ffefbff, 0xf3bfbfeb, 0x1b415f6e,
     0x30, 0x7, AVX2 | PG_CPU_AVX_VNNI, AVX2 | PG_CPU_AVX_VNNI, 0},
    {"XCR0 has masks and upper halves, but not the upper sixteen", "AuthenticAMD", 0x7ef8320b, 0xf1bf97a9, 0x00415fde,
     0x20, 0x67, AVX2, AVX2, 0},
    {"XCR0 without the masks", "AuthenticAMD", 0x7ef8320b, 0xf1bf97a9, 0x00415fde, 0x20, 0xc7, AVX2, AVX2, 0},
    {"a hypervisor that hides FMA", "GenuineIntel", 0x7ffefbff & ~(1u << 12), 0xd39ffffb, 0x818, 0, 0x2e7, BASE, BASE,
     0},
    {"one that hides F16C", "GenuineIntel", 0x7ffefbff & ~(1u << 29), 0xd39ffffb, 0x818, 0, 0x2e7, BASE, BASE, 0},
    {"one that hides AVX but not AVX2", "GenuineIntel", 0x7ffefbff & ~(1u << 28), 0xd39ffffb, 0x818, 0, 0x2e7, BASE,
     BASE, 0},
    {"one that hides AVX2", "GenuineIntel", 0x7ffefbff, 0xd39ffffb & ~(1u << 5), 0x818, 0, 0x2e7, BASE, BASE, 0},
    {"one that hides AVX-512 VL", "GenuineIntel", 0x7ffefbff, 0xd39ffffb & ~(1u << 31), 0x818, 0x20, 0x2e7, AVX2, AVX2,
     0},
    {"nothing", "", 0, 0, 0, 0, 0, BASE, BASE, 0},
};

static void each_cpu_gets_what_it_can_run(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof cpus / sizeof *cpus; i++) {
        pgi_cpuid cpu = {.c1 = cpus[i].c1,
                         .b7 = cpus[i].b7,
                         .c7 = cpus[i].c7,
                         .a7_1 = cpus[i].a7_1,
                         .xcr0 = cpus[i].xcr0,
                         .d7 = cpus[i].d7};
        memcpy(cpu.vendor, cpus[i].vendor, strlen(cpus[i].vendor));
        const uint64_t features = pgi_cpu_features_of(&cpu), chosen = pgi_cpu_default_of(&cpu);
        if (features != cpus[i].features || chosen != cpus[i].chosen)
            fail_msg("%s: 0x%llx, chosen 0x%llx, expected 0x%llx and 0x%llx", cpus[i].name,
                     (unsigned long long)features, (unsigned long long)chosen, (unsigned long long)cpus[i].features,
                     (unsigned long long)cpus[i].chosen);
        if (pgi_cpu_one_stream_of(&cpu) != !strcmp(cpus[i].vendor, "AuthenticAMD"))
            fail_msg("%s: one stream %d", cpus[i].name, pgi_cpu_one_stream_of(&cpu));
    }
}

/* Whatever the bits: nothing is used without what it stands on. */
static void nothing_stands_alone(void **state) {
    static const uint64_t above[][2] = {{PG_CPU_AVX512, PG_CPU_AVX2},          {PG_CPU_AVX_VNNI, PG_CPU_AVX2},
                                        {PG_CPU_AVX512_VNNI, PG_CPU_AVX512},   {PG_CPU_AVX512_BF16, PG_CPU_AVX512},
                                        {PG_CPU_AMX_INT8, PG_CPU_AVX512_VNNI}, {PG_CPU_AMX_BF16, PG_CPU_AVX512}};
    (void)state;
    for (uint64_t i = 0; i < 1 << 16; i++) {
        uint64_t bits = i * UINT64_C(0x9E3779B97F4A7C15); /* each bit set in half of them */
        pgi_cpuid cpu = {.c1 = (uint32_t)bits | (i & 1 ? 0x38001000 : 0),
                         .b7 = (uint32_t)(bits >> 11) | (i & 2 ? 0xC0030020 : 0),
                         .c7 = (uint32_t)(bits >> 22),
                         .a7_1 = (uint32_t)(bits >> 28),
                         .xcr0 = (bits >> 32) & 0xFF};
        const uint64_t features = pgi_cpu_features_of(&cpu), chosen = pgi_cpu_default_of(&cpu);
        assert_int_equal(chosen & ~features, 0);
        for (size_t k = 0; k < sizeof above / sizeof *above; k++)
            assert_false((features & above[k][0]) && !(features & above[k][1]));
        if (!(cpu.c1 & 1 << 27) || (cpu.xcr0 & 6) != 6) assert_int_equal(features, BASE);
        if ((cpu.xcr0 & 0xE6) != 0xE6) assert_false(features & PG_CPU_AVX512);
    }
    assert_int_equal(pgi_cpu_default() & ~pgi_cpu_features(), 0);
}

#define NEON (BASE | PG_CPU_NEON)
#define DOTPROD (NEON | PG_CPU_NEON_DOTPROD)
#define I8MM_BF16 (DOTPROD | PG_CPU_NEON_I8MM | PG_CPU_NEON_BF16)

/* AT_HWCAP and AT_HWCAP2 as such CPUs give them. */
static const struct {
    const char *name;
    uint64_t hwcap, hwcap2, features;
} arm_cpus[] = {
    {"Cortex-A53, A57 and A72 as qemu has them", 0x8fb, 0, NEON},
    {"Cortex-A76 and Neoverse N1 as qemu has them", 0x119ffb, 0, DOTPROD},
    {"all that qemu has", 0xecfffffb, 0x7f877fff, I8MM_BF16},
    {"bf16 without dot products", 0xff, 0x4000, NEON | PG_CPU_NEON_BF16},
    {"i8mm without dot products", 0xff, 0x2000, NEON},
    {"no floating point: everything else does not matter", UINT64_C(0xffffffff) & ~UINT64_C(2), 0xffff, BASE},
    {"nothing", 0, 0, BASE},
};

static void each_arm_cpu_too(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof arm_cpus / sizeof *arm_cpus; i++) {
        const uint64_t features = pgi_cpu_features_of_hwcap(arm_cpus[i].hwcap, arm_cpus[i].hwcap2);
        if (features != arm_cpus[i].features)
            fail_msg("%s: 0x%llx, expected 0x%llx", arm_cpus[i].name, (unsigned long long)features,
                     (unsigned long long)arm_cpus[i].features);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_cpu_gets_what_it_can_run),
        cmocka_unit_test(nothing_stands_alone),
        cmocka_unit_test(each_arm_cpu_too),
    };
    return RUN_TESTS(tests, NULL, NULL);
}
