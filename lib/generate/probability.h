/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Probabilities of logits: softmax and log-softmax in double precision, summed by ascending id, with an exponential of
 * our own. So they have the same bits on every machine, given the same logits. */
#ifndef PGI_GENERATE_PROBABILITY_H
#define PGI_GENERATE_PROBABILITY_H

#include <stdint.h>

/* e^x for x <= 0, within 2 units in the last place; 0 below -708, NaN of NaN. */
double pgi_exp(double x);

/* The softmax of logits: e^(logit - largest) / sum. */
typedef struct pgi_softmax {
    double largest; /* -INFINITY: none is above it */
    double sum;     /* of e^(logit - largest) */
    double log_sum;
} pgi_softmax;

/* NaN, and largest = +-INFINITY, make the sum NaN, as torch has it. */
pgi_softmax pgi_softmax_of(const float *logits, int64_t n);
float pgi_log_prob(const pgi_softmax *softmax, float logit);

/* The k largest of logits [n], the largest first, of equal ones the lowest index first; NaN is never among them: where
 * fewer are numbers, the rest of ids is -1. */
void pgi_largest(const float *logits, int64_t n, int64_t k, int64_t *ids);

#endif
