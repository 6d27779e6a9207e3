/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Which instruction sets an AArch64 CPU has, by what Linux says of it. */
#ifndef PGI_KERNELS_CPU_ARM_H
#define PGI_KERNELS_CPU_ARM_H

#include <stdint.h>

/* PG_CPU_* bits of AT_HWCAP and AT_HWCAP2 as Linux and Android give them to a process (asm/hwcap.h). */
uint64_t pgi_cpu_features_of_hwcap(uint64_t hwcap, uint64_t hwcap2);

#endif
