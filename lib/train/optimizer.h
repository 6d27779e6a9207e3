/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* AdamW as torch.optim.AdamW computes it, clipping as torch.nn.utils.clip_grad_norm_(), and the learning rates of
 * transformers' get_scheduler(). */
#ifndef PGI_TRAIN_OPTIMIZER_H
#define PGI_TRAIN_OPTIMIZER_H

#include "base/run.h"
#include "train/parameters.h"

typedef struct pgi_optimizer {
    double learning_rate, weight_decay, beta1, beta2, epsilon;
    double max_gradient_norm;          /* 0: no limit */
    int32_t schedule;                  /* PG_SCHEDULE_* */
    int64_t warmup_steps, total_steps; /* total_steps 0: the rate stays at its highest after the warmup */
} pgi_optimizer;

/* The rate of the update that follows `step` updates (LambdaLR: step() is called after each). */
double pgi_optimizer_rate(const pgi_optimizer *optimizer, int64_t step);

/* The norm of all gradients, summed in double, the same for every number of threads; NaN or infinite when one is. */
pg_status pgi_gradient_norm(const pgi_run *run, const pgi_parameters *parameters, double *norm);

/* The update that follows `step` updates: scales the gradients so that their norm, which is `norm`, is at most
 * max_gradient_norm, then changes values, mean and square. It cannot be cancelled half-way: run->cancel is left alone.
 */
pg_status pgi_optimizer_update(const pgi_run *run, const pgi_optimizer *optimizer, int64_t step, double norm,
                               pgi_parameters *parameters);

#endif
