/* What the templates need to keep a tile in registers: loops that disappear, functions that are part of their caller.
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
