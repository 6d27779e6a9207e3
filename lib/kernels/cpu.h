/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What an x86 CPU says of itself, and which instruction sets may be used then. */
#ifndef PGI_KERNELS_CPU_H
#define PGI_KERNELS_CPU_H

#include <stdint.h>

/* Registers of the CPUID instruction; 0 where the CPU has no such leaf. */
typedef struct pgi_cpuid {
    uint32_t vendor[3];  /* leaf 0: EBX, EDX, ECX, the maker's name as text */
    uint32_t c1;         /* leaf 1: ECX */
    uint32_t b7, c7, d7; /* leaf 7, subleaf 0: EBX, ECX, EDX */
    uint32_t a7_1;       /* leaf 7, subleaf 1: EAX */
    uint64_t xcr0;       /* registers that the operating system saves; read only where OSXSAVE is in c1 */
} pgi_cpuid;

/* PG_CPU_* bits of such a CPU: what it has and the operating system saves. */
uint64_t pgi_cpu_features_of(const pgi_cpuid *cpu);
/* Those that are used unless told otherwise: see pgi_cpu_default(). */
uint64_t pgi_cpu_default_of(const pgi_cpuid *cpu);
/* See pgi_cpu_one_stream(). */
int pgi_cpu_one_stream_of(const pgi_cpuid *cpu);

#endif
