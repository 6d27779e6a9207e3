/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* UNROLL removes a loop, ALWAYS_INLINE makes a function part of its caller: so the templates keep tiles in registers.
 */
#ifndef PGI_KERNELS_SIMD_UNROLL_H
#define PGI_KERNELS_SIMD_UNROLL_H

#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
#define ALWAYS_INLINE inline __attribute__((always_inline))

#endif
