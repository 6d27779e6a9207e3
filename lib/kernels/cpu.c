/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What the CPU can do and the operating system saves: CPUID leaves 0, 1 and 7, and XCR0. */
#include "kernels/cpu.h"

#include <string.h>

#include "kernels/kernels.h"

enum { FMA = 1 << 12, OSXSAVE = 1 << 27, AVX = 1 << 28, F16C = 1 << 29 };          /* c1 */
enum { AVX2 = 1 << 5, AVX512F = 1 << 16, AVX512DQ = 1 << 17, AVX512BW = 1 << 30 }; /* b7 */
#define AVX512VL (UINT32_C(1) << 31)                                               /* b7 */
enum { AVX512_VNNI = 1 << 11 };                                                    /* c7 */
enum { AMX_BF16 = 1 << 22, AMX_TILE = 1 << 24, AMX_INT8 = 1 << 25 };               /* d7 */
enum { AVX_VNNI = 1 << 4, AVX512_BF16 = 1 << 5 };                                  /* a7_1 */
enum {
    XMM_YMM = 0x6,
    ZMM = 0xE6 /* and the masks, the upper halves and the upper sixteen registers */,
    TILES = 0x60000
}; /* xcr0 */

static int has_all(uint64_t of, uint64_t wanted) { return (of & wanted) == wanted; }

uint64_t pgi_cpu_features_of(const pgi_cpuid *cpu) {
    uint64_t features = PG_CPU_BASELINE;
    if (!has_all(cpu->c1, OSXSAVE | AVX | FMA | F16C) || !has_all(cpu->b7, AVX2)) return features;
    if (!has_all(cpu->xcr0, XMM_YMM)) return features;
    features |= PG_CPU_AVX2;
    if (cpu->a7_1 & AVX_VNNI) features |= PG_CPU_AVX_VNNI;
    if (!has_all(cpu->b7, AVX512F | AVX512DQ | AVX512BW | AVX512VL) || !has_all(cpu->xcr0, ZMM)) return features;
    features |= PG_CPU_AVX512;
    if (cpu->c7 & AVX512_VNNI) features |= PG_CPU_AVX512_VNNI;
    if ((cpu->c7 & AVX512_VNNI) && has_all(cpu->d7, AMX_TILE | AMX_INT8) && has_all(cpu->xcr0, TILES))
        features |= PG_CPU_AMX_INT8;
    if (cpu->a7_1 & AVX512_BF16) features |= PG_CPU_AVX512_BF16;
    if ((cpu->a7_1 & AVX512_BF16) && has_all(cpu->d7, AMX_TILE | AMX_BF16) && has_all(cpu->xcr0, TILES))
        features |= PG_CPU_AMX_BF16;
    return features;
}

static int is_amd(const pgi_cpuid *cpu) { return memcmp(cpu->vendor, "AuthenticAMD", sizeof cpu->vendor) == 0; }

uint64_t pgi_cpu_default_of(const pgi_cpuid *cpu) {
    const uint64_t features = pgi_cpu_features_of(cpu);
    return is_amd(cpu) ? features : features & ~PG_CPU_AVX512_BF16;
}

int pgi_cpu_one_stream_of(const pgi_cpuid *cpu) { return is_amd(cpu); }

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

static uint64_t read_xcr0(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static pgi_cpuid this_cpu(void) {
    pgi_cpuid cpu = {0};
    uint32_t a = 0, b = 0, c = 0, d = 0;
    if (__get_cpuid(0, &a, &b, &c, &d)) memcpy(cpu.vendor, (uint32_t[]){b, d, c}, sizeof cpu.vendor);
    if (__get_cpuid(1, &a, &b, &c, &d)) cpu.c1 = c;
    if (cpu.c1 & OSXSAVE) cpu.xcr0 = read_xcr0();
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return cpu;
    cpu.b7 = b;
    cpu.c7 = c;
    cpu.d7 = d;
#if defined(_WIN32)
    cpu.d7 &= ~(uint32_t)(AMX_BF16 | AMX_TILE | AMX_INT8); /* no kernels are built for it there: meson.build */
#endif
    if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) cpu.a7_1 = a;
    return cpu;
}

int pgi_cpu_request_tiles(void) {
#if defined(__linux__) && defined(SYS_arch_prctl)
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, TILE_DATA = 18 };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0;
#else
    return 0;
#endif
}

uint64_t pgi_cpu_features(void) {
    const pgi_cpuid cpu = this_cpu();
    return pgi_cpu_features_of(&cpu);
}

uint64_t pgi_cpu_default(void) {
    const pgi_cpuid cpu = this_cpu();
    return pgi_cpu_default_of(&cpu);
}

int pgi_cpu_one_stream(void) {
    const pgi_cpuid cpu = this_cpu();
    return pgi_cpu_one_stream_of(&cpu);
}
#elif !defined(__aarch64__) /* whose are in cpu_arm.c */
uint64_t pgi_cpu_features(void) { return PG_CPU_BASELINE; }
uint64_t pgi_cpu_default(void) { return PG_CPU_BASELINE; }
#endif
#if !defined(__x86_64__)
int pgi_cpu_one_stream(void) { return 0; } /* not measured */
#endif
