/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* bfloat16 and IEEE binary16 to f32, exactly, from memory of any alignment; f32 to both. */
#ifndef PGI_BASE_FLOAT16_H
#define PGI_BASE_FLOAT16_H

#include <stdint.h>
#include <string.h>

static inline float pgi_f32_from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline float pgi_f32_from_bf16(uint16_t bits) { return pgi_f32_from_bits((uint32_t)bits << 16); }

/* To nearest, ties to even, as vcvtneps2bf16 does it: a subnormal gives 0 of its sign, a NaN its upper half, quiet. */
static inline uint16_t pgi_bf16_from_f32(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t magnitude = bits & 0x7FFFFFFFu;
    if (magnitude > 0x7F800000u) return (uint16_t)(bits >> 16 | 0x40);
    if (magnitude < 0x00800000u) return (uint16_t)(bits >> 16 & 0x8000);
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

static inline float pgi_f32_from_f16(uint16_t bits) {
    uint32_t sign = (uint32_t)(bits & 0x8000) << 16;
    uint32_t exponent = bits >> 10 & 0x1F;
    uint32_t fraction = bits & 0x3FF;
    if (exponent == 0x1F) return pgi_f32_from_bits(sign | 0x7F800000u | fraction << 13); /* infinity, NaN */
    if (exponent == 0) { /* zero, subnormal: fraction x 2^-24, exact in f32 */
        float value = (float)fraction * 0x1p-24f;
        return sign ? -value : value;
    }
    return pgi_f32_from_bits(sign | (exponent + 112) << 23 | fraction << 13);
}

/* To nearest, ties to even; from 65520 on infinity. */
static inline uint16_t pgi_f16_from_f32(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    uint32_t magnitude = bits & 0x7FFFFFFFu;
    if (magnitude > 0x7F800000u) return sign | 0x7E00;
    if (magnitude >= 0x477FF000u) return sign | 0x7C00;
    if (magnitude < 0x38800000u) { /* a multiple of 2^-24: beside 2^23 no bit of a fraction is left */
        const float multiple = pgi_f32_from_bits(magnitude) * 0x1p24f + 0x1p23f;
        memcpy(&bits, &multiple, sizeof bits);
        return (uint16_t)(sign | (bits & 0x7FF));
    }
    magnitude += 0xFFF + (magnitude >> 13 & 1);
    return (uint16_t)(sign | (magnitude - 0x38000000u) >> 13);
}

static inline uint16_t pgi_load_u16(const void *p) {
    uint16_t value;
    memcpy(&value, p, sizeof value);
    return value;
}

static inline float pgi_load_f32(const void *p) {
    float value;
    memcpy(&value, p, sizeof value);
    return value;
}

#endif
