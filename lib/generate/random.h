/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Random draws: a counter-based generator and whole-number sums (docs/SAMPLING.md). */
#ifndef PGI_GENERATE_RANDOM_H
#define PGI_GENERATE_RANDOM_H

#include <stdint.h>

/* Philox4x32-10 (Salmon et al., 2011): counter becomes four random numbers. */
void pgi_philox(const uint32_t key[2], uint32_t counter[4]);

/* The random number of a step: the first two words for the counter (step, stream), the low one first. */
uint64_t pgi_random(uint64_t seed, uint64_t stream, uint64_t step);

/* A number below n, which `random` falls on. */
uint64_t pgi_random_below(uint64_t random, uint64_t n);

/* The id i < n that `random` falls on, by weights floor(2^40 e^(scores[i] - largest)) in the order of ids. NaN and
 * -INFINITY have none; where there is an INFINITY, those alone have one. 0 when no id has a weight. */
int64_t pgi_draw(const float *scores, int64_t n, uint64_t random);

#endif
