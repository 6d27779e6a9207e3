/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* A counter-based generator for dropout and first values: quick, and any number of it on its own. */
#ifndef PGI_TRAIN_RANDOM_H
#define PGI_TRAIN_RANDOM_H

#include <stdint.h>

/* SplitMix64 (Steele et al., 2014): its output function, of a counter. */
static inline uint64_t pgi_mix64(uint64_t counter) {
    uint64_t z = counter + 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* A number of [0, 1). */
static inline double pgi_mix_unit(uint64_t counter) { return (double)(pgi_mix64(counter) >> 11) * 0x1p-53; }

#endif
