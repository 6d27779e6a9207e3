/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Multiply-adds in registers, and reads of memory in one or several streams. */
#include "roof.h"

#include <string.h>

#include <paligemma/paligemma.h>

#if defined(__x86_64__)
#include <immintrin.h>

enum { ROUNDS = 10000, CHAINS = 12 }; /* two pipes of at most five cycles need ten */

/* ROUNDS x CHAINS independent steps x = step(x, a, b), kept in registers. `per_lane`: multiply-adds of one 32-bit lane.
 */
#define DEFINE_PROBE(name, isa, vector, set1, step, one, per_lane)                                                   \
    __attribute__((target(isa), noinline)) static double name(void) {                                                \
        vector a = set1(one), b = a, x0 = a, x1 = a, x2 = a, x3 = a, x4 = a, x5 = a, x6 = a, x7 = a, x8 = a, x9 = a, \
               x10 = a, x11 = a;                                                                                     \
        /* the compiler is not to know that all chains are alike */                                                  \
        __asm__ volatile("" : "+x"(x0), "+x"(x1), "+x"(x2), "+x"(x3), "+x"(x4), "+x"(x5));                           \
        __asm__ volatile("" : "+x"(x6), "+x"(x7), "+x"(x8), "+x"(x9), "+x"(x10), "+x"(x11), "+x"(a), "+x"(b));       \
        for (int i = 0; i < ROUNDS; i++) {                                                                           \
            x0 = step(x0, a, b), x1 = step(x1, a, b), x2 = step(x2, a, b), x3 = step(x3, a, b);                      \
            x4 = step(x4, a, b), x5 = step(x5, a, b), x6 = step(x6, a, b), x7 = step(x7, a, b);                      \
            x8 = step(x8, a, b), x9 = step(x9, a, b), x10 = step(x10, a, b), x11 = step(x11, a, b);                  \
        }                                                                                                            \
        __asm__ volatile("" ::"x"(x0), "x"(x1), "x"(x2), "x"(x3), "x"(x4), "x"(x5));                                 \
        __asm__ volatile("" ::"x"(x6), "x"(x7), "x"(x8), "x"(x9), "x"(x10), "x"(x11));                               \
        return 2.0 * ROUNDS * CHAINS * (per_lane) * (double)(sizeof(vector) / 4);                                    \
    }

#define ADD_MULTIPLIED(x, y, z) _mm_add_ps(_mm_mul_ps(x, y), z)
/* Without a dot product: 8 x 8 to 16 bits, to 32 bits, added. Assembler, as the compiler would do the first once. */
__attribute__((target("avx2"))) static inline __m256i add_pairs(__m256i x, __m256i y, __m256i ones) {
    __m256i pairs;
    __asm__ volatile("vpmaddubsw %1, %2, %0" : "=x"(pairs) : "x"(y), "x"(ones));
    return _mm256_add_epi32(x, _mm256_madd_epi16(pairs, ones));
}

DEFINE_PROBE(fma_zmm, "avx512f", __m512, _mm512_set1_ps, _mm512_fmadd_ps, 0.5f, 1)
DEFINE_PROBE(fma_ymm, "avx2,fma", __m256, _mm256_set1_ps, _mm256_fmadd_ps, 0.5f, 1)
DEFINE_PROBE(add_multiplied, "sse2", __m128, _mm_set1_ps, ADD_MULTIPLIED, 0.5f, 1)
DEFINE_PROBE(dot_zmm, "avx512f,avx512vnni", __m512i, _mm512_set1_epi32, _mm512_dpbusd_epi32, 0x01010101, 4)
/* Assembler: the intrinsic's type of bf16 vectors has no set1, and gcc 12 may copy its sums. */
__attribute__((target("avx512f"))) static inline __m512 add_bf16(__m512 x, __m512 y, __m512 z) {
    __asm__ volatile("vdpbf16ps %2, %1, %0" : "+v"(x) : "v"(y), "v"(z));
    return x;
}
DEFINE_PROBE(bf16_zmm, "avx512f", __m512, _mm512_set1_ps, add_bf16, 0.5f, 2)
DEFINE_PROBE(dot_ymm, "avx2,avxvnni", __m256i, _mm256_set1_epi32, _mm256_dpbusd_avx_epi32, 0x01010101, 4)
DEFINE_PROBE(pairs_ymm, "avx2", __m256i, _mm256_set1_epi32, add_pairs, 0x01010101, 4)

#if (defined(__clang__) && __clang_major__ >= 12) || (!defined(__clang__) && __GNUC__ >= 11)
/* Four independent sums of 16 x 16, `depth` products each. The library has asked the system for tiles. */
#define DEFINE_TILES(name, set, depth, multiply)                                                                 \
    __attribute__((target("amx-tile," set), noinline)) static double name(void) {                                \
        __attribute__((aligned(64))) unsigned char config[64] = {                                                \
            1}; /* palette; bytes of a row, and rows, of each tile */                                            \
        for (int t = 0; t < 8; t++) config[16 + 2 * t] = 64, config[48 + t] = 16;                                \
        __asm__ volatile("" ::"m"(config)); /* gcc 12's _tile_loadconfig says that it reads 8 bytes of the 64 */ \
        _tile_loadconfig(config);                                                                                \
        _tile_zero(4);                                                                                           \
        _tile_zero(5);                                                                                           \
        for (int i = 0; i < ROUNDS / 10; i++) {                                                                  \
            multiply(0, 4, 5);                                                                                   \
            multiply(1, 4, 5);                                                                                   \
            multiply(2, 4, 5);                                                                                   \
            multiply(3, 4, 5);                                                                                   \
        }                                                                                                        \
        _tile_release();                                                                                         \
        return 2.0 * (ROUNDS / 10) * 4 * 16 * 16 * (depth);                                                      \
    }
DEFINE_TILES(dot_tiles, "amx-int8", 64, _tile_dpbsud)
DEFINE_TILES(bf16_tiles, "amx-bf16", 32, _tile_dpbf16ps)
#define HAS_TILES 1
#endif

roof_probe roof_f32(uint64_t cpu) {
    if (cpu & PG_CPU_AVX512) return (roof_probe){"vfmadd zmm", fma_zmm};
    if (cpu & PG_CPU_AVX2) return (roof_probe){"vfmadd ymm", fma_ymm};
    return (roof_probe){"mulps, addps", add_multiplied};
}

roof_probe roof_int8(uint64_t cpu) {
#ifdef HAS_TILES
    if (cpu & PG_CPU_AMX_INT8) return (roof_probe){"tdpbsud", dot_tiles};
#endif
    if (cpu & PG_CPU_AVX512_VNNI) return (roof_probe){"vpdpbusd zmm", dot_zmm};
    if (cpu & PG_CPU_AVX_VNNI) return (roof_probe){"vpdpbusd ymm", dot_ymm};
    if (cpu & PG_CPU_AVX2) return (roof_probe){"vpmaddubsw, vpmaddwd, vpaddd ymm", pairs_ymm};
    return (roof_probe){"none", NULL};
}

roof_probe roof_bf16(uint64_t cpu) {
#ifdef HAS_TILES
    if (cpu & PG_CPU_AMX_BF16) return (roof_probe){"tdpbf16ps", bf16_tiles};
#endif
    return cpu & PG_CPU_AVX512_BF16 ? (roof_probe){"vdpbf16ps zmm", bf16_zmm} : (roof_probe){"none", NULL};
}
#elif defined(__aarch64__)
enum { ROUNDS = 10000, CHAINS = 16 }; /* four pipes of four cycles */

#define EACH_CHAIN(step) ".irp d, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23\n\t" step "\n\t.endr"
/* Instructions as numbers, so that nothing depends on what the assembler may take: register d += v24 times v24. */
#define STEP(word) ".inst " word " + (24 << 16) + (24 << 5) + \\d"
/* ROUNDS x CHAINS independent steps in registers. */
#define DEFINE_PROBE(name, step, per_step)                                                                        \
    __attribute__((noinline)) static double name(void) {                                                          \
        for (int i = 0; i < ROUNDS; i++)                                                                          \
            __asm__ volatile(EACH_CHAIN(step)                                                                     \
                             :                                                                                    \
                             :                                                                                    \
                             : "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v16", "v17", "v18", "v19", "v20", \
                               "v21", "v22", "v23", "v24", "v25");                                                \
        return 2.0 * ROUNDS * CHAINS * (per_step);                                                                \
    }
DEFINE_PROBE(multiply_add, STEP("0x4e20cc00"), 4)
DEFINE_PROBE(widening, "smull v25.8h, v24.8b, v24.8b\n\tsmlal v25.8h, v24.8b, v24.8b\n\tsadalp v\\d\\().4s, v25.8h", 16)
DEFINE_PROBE(dot_products, STEP("0x4e809400"), 16)
DEFINE_PROBE(matrices, STEP("0x4e80ac00"), 32)
DEFINE_PROBE(bf16_matrices, STEP("0x6e40ec00"), 16)

roof_probe roof_f32(uint64_t cpu) {
    (void)cpu;
    return (roof_probe){"fmla", multiply_add};
}

roof_probe roof_int8(uint64_t cpu) {
    if (cpu & PG_CPU_NEON_I8MM) return (roof_probe){"usmmla", matrices};
    if (cpu & PG_CPU_NEON_DOTPROD) return (roof_probe){"sdot", dot_products};
    return (roof_probe){"smull, smlal, sadalp", widening};
}

roof_probe roof_bf16(uint64_t cpu) {
    return cpu & PG_CPU_NEON_BF16 ? (roof_probe){"bfmmla", bf16_matrices} : (roof_probe){"none", NULL};
}
#else
roof_probe roof_f32(uint64_t cpu) {
    (void)cpu;
    return (roof_probe){"none", NULL};
}

roof_probe roof_int8(uint64_t cpu) { return roof_f32(cpu); }
roof_probe roof_bf16(uint64_t cpu) { return roof_f32(cpu); }
#endif

/* A chunk in `streams` streams, each fetched `ahead` bytes ahead. A word of each line brings all
 * of it. More loads would keep a core from having as many lines under way. */
static inline __attribute__((always_inline)) uint64_t read_chunk(const int streams, const int ahead,
                                                                 const char *chunk) {
    const size_t stream = (size_t)ROOF_CHUNK / (size_t)streams;
    uint64_t sum = 0;
    for (const char *p = chunk, *stop = p + stream; p < stop; p += 64) {
        for (int i = 0; i < streams; i++) {
            uint64_t word;
            __builtin_prefetch(p + (size_t)i * stream + ahead);
            memcpy(&word, p + (size_t)i * stream, sizeof word);
            sum ^= word;
        }
    }
    return sum;
}

void roof_read(int way, const void *buffer, size_t begin, size_t end) {
    uint64_t sum = 0;
    for (const char *chunk = (const char *)buffer + begin * ROOF_CHUNK; begin < end; begin++, chunk += ROOF_CHUNK) {
        switch (way) {
            case 0: sum ^= read_chunk(8, 512, chunk); break;
            case 1: sum ^= read_chunk(4, 2048, chunk); break;
            case 2: sum ^= read_chunk(2, 2048, chunk); break;
            case 3: sum ^= read_chunk(1, 8192, chunk); break;
            default: sum ^= read_chunk(1, 4096, chunk); break;
        }
    }
    volatile uint64_t sink = sum;
    (void)sink;
}
