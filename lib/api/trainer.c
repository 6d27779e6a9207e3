/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* pg_trainer: training of adapters. */
#include "train/trainer.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "api/calls.h"
#include "api/structs.h"
#include "ops/low_rank.h"

PGI_OPTIONS(pg_trainer_options, .struct_size = sizeof(pg_trainer_options), .rank = 8, .schedule = PG_SCHEDULE_LINEAR,
            .alpha = 8, .learning_rate = 2e-4, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .max_gradient_norm = 1,
            .accumulation = 1)

/* A number of the options and its range. */
typedef struct ranged {
    const char *name;
    double value, least, below; /* least <= value < below */
} ranged;

static pg_status check_numbers(const pg_trainer_options *o) {
    const double any = INFINITY;
    const ranged numbers[] = {{"dropout", o->dropout, 0, 1},
                              {"learning_rate", o->learning_rate, 0, any},
                              {"weight_decay", o->weight_decay, 0, any},
                              {"beta1", o->beta1, 0, 1},
                              {"beta2", o->beta2, 0, 1},
                              {"epsilon", o->epsilon, (double)FLT_MIN, any},
                              {"max_gradient_norm", o->max_gradient_norm, 0, any},
                              {"warmup_steps", (double)o->warmup_steps, 0, any},
                              {"total_steps", (double)o->total_steps, 0, any},
                              {"accumulation", (double)o->accumulation, 1, any}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (!(numbers[i].value >= numbers[i].least && numbers[i].value < numbers[i].below))
            return pgi_error(PG_ERROR_ARGUMENT, "%s is %g, expected a finite number of %g or more%s", numbers[i].name,
                             numbers[i].value, numbers[i].least, numbers[i].below == 1 ? ", and less than 1" : "");
    if (o->rank < 0 || o->rank > PGI_MAX_LOW_RANK)
        return pgi_error(PG_ERROR_ARGUMENT, "rank is %d, expected 0 to %d", o->rank, PGI_MAX_LOW_RANK);
    if (!(o->alpha > 0 && o->alpha <= (double)FLT_MAX))
        return pgi_error(PG_ERROR_ARGUMENT, "alpha is %g, expected more than 0, and what a float holds", o->alpha);
    if (o->schedule < PG_SCHEDULE_CONSTANT || o->schedule > PG_SCHEDULE_COSINE)
        return pgi_error(PG_ERROR_ARGUMENT, "schedule is %d, expected PG_SCHEDULE_* (0 to 2)", o->schedule);
    return PG_OK;
}

static pg_status options_in(const pg_trainer_options *options, pg_trainer_options *complete) {
    PGI_OPTIONS_IN(pg_trainer_options, in, options);
    PGI_TRY(pgi_reserved_in(in.reserved, "pg_trainer_options"));
    PGI_TRY(pgi_flags_in(in.flags, PG_TRAIN_RSLORA | PG_TRAIN_CHECKPOINT, "PG_TRAIN_*"));
    PGI_TRY(check_numbers(&in));
    PGI_TRY(pgi_thread_count(in.n_threads, &in.n_threads));
    *complete = in;
    return PG_OK;
}

/* folder: of a state to go on from; NULL: none. The trainer is the caller's when it is whole: a callback of the
 * allocator could close it before. */
static pg_status create(const pg_model *model, const char *folder, const pg_trainer_options *options,
                        pg_trainer **out) {
    pg_trainer_options complete;
    pg_trainer *made = NULL;
    PGI_TRY(options_in(options, &complete));
    if (model->base)
        return pgi_error(PG_ERROR_UNSUPPORTED,
                         "found a model with adapters, expected one without: "
                         "pg_model_convert() merges them into a model by itself");
    PGI_TRY(pgi_tensor_files_unchanged(model->files));
    pgi_call call = pgi_call_begin(model, NULL, NULL, complete.cancel);
    pg_status status = pgi_trainer_create(model, &complete, &made);
    if (status >= 0 && folder) {
        status = pgi_train_load(&made->memory, &made->run, folder, &made->config, &made->parameters, &made->step);
        if (status < 0) pgi_trainer_close(made);
    }
    pgi_call_end(&call);
    if (status >= 0) *out = made;
    return status;
}

pg_status pg_trainer_create(const pg_model *model, const pg_trainer_options *options, pg_trainer **out) {
    PGI_ENTER;
    PGI_NOT_NULL(out);
    *out = NULL;
    PGI_NOT_NULL(model);
    return create(model, NULL, options, out);
}

void pg_trainer_close(pg_trainer **trainer) {
    if (!trainer || !*trainer) return;
    pg_trainer *closed = *trainer;
    *trainer = NULL;
    if (pgi_in_use_close(&closed->in_use)) pgi_trainer_close(closed);
}

static pg_status begin(const pg_trainer *trainer) {
    return pgi_in_use_begin(&((pg_trainer *)(uintptr_t)trainer)->in_use, "trainer");
}

/* A callback may have closed the trainer. */
static pg_status end(const pg_trainer *trainer, pg_status status) {
    pg_trainer *used = (pg_trainer *)(uintptr_t)trainer;
    if (pgi_in_use_end(&used->in_use)) pgi_trainer_close(used);
    return status;
}

static pg_status run(pg_trainer *trainer, const pg_inputs *inputs, int learn, pg_train_result *result) {
    pg_train_result value;
    PGI_NOT_NULL(trainer);
    PGI_NOT_NULL(inputs);
    if (result) PGI_TRY(pgi_struct_out_check(result, PGI_STRUCT(pg_train_result)));
    PGI_TRY(begin(trainer));
    pgi_call call = pgi_call_begin(NULL, inputs, NULL, NULL); /* the trainer itself keeps the rest */
    const pg_status status = pgi_trainer_run(trainer, inputs, learn, &value);
    pgi_call_end(&call);
    if (status >= 0 && result) pgi_struct_out(result, &value, sizeof value);
    return end(trainer, status);
}

pg_status pg_trainer_step(pg_trainer *trainer, const pg_inputs *inputs, pg_train_result *result) {
    PGI_ENTER;
    return run(trainer, inputs, 1, result);
}

pg_status pg_trainer_evaluate(pg_trainer *trainer, const pg_inputs *inputs, pg_train_result *result) {
    PGI_ENTER;
    return run(trainer, inputs, 0, result);
}

pg_status pg_trainer_save(pg_trainer *trainer, const char *folder) {
    PGI_ENTER;
    PGI_NOT_NULL(trainer);
    PGI_NOT_NULL(folder);
    PGI_TRY(begin(trainer));
    return end(trainer, pgi_trainer_save(trainer, folder));
}

pg_status pg_trainer_resume(const pg_model *model, const char *folder, const pg_trainer_options *options,
                            pg_trainer **out) {
    PGI_ENTER;
    PGI_NOT_NULL(out);
    *out = NULL;
    PGI_NOT_NULL(model);
    PGI_NOT_NULL(folder);
    return create(model, folder, options, out);
}

pg_status pg_trainer_get_step(const pg_trainer *trainer, int64_t *step) {
    PGI_ENTER;
    PGI_NOT_NULL(trainer);
    PGI_NOT_NULL(step);
    PGI_TRY(begin(trainer));
    *step = trainer->step;
    return end(trainer, PG_OK);
}

pg_status pg_trainer_count_parameters(const pg_trainer *trainer, size_t *n) {
    PGI_ENTER;
    PGI_NOT_NULL(trainer);
    PGI_NOT_NULL(n);
    PGI_TRY(begin(trainer));
    *n = trainer->parameters.n;
    return end(trainer, PG_OK);
}

pg_status pg_trainer_get_parameter(const pg_trainer *trainer, size_t index, pg_parameter *out) {
    PGI_ENTER;
    PGI_NOT_NULL(trainer);
    PGI_TRY(pgi_struct_out_check(out, PGI_STRUCT(pg_parameter)));
    PGI_TRY(begin(trainer));
    const pgi_parameters *parameters = &trainer->parameters;
    if (index >= parameters->n)
        return end(trainer, pgi_error(PG_ERROR_ARGUMENT, "the index of the parameter is %zu, expected less than %zu",
                                      index, parameters->n));
    const pgi_parameter *p = &parameters->list[index];
    pg_parameter value = {.struct_size = sizeof value,
                          .decays = p->decays,
                          .n_dims = p->n_dims,
                          .name = p->name,
                          .value = parameters->values + p->at,
                          .gradient = parameters->gradients + p->at};
    for (int i = 0; i < 4; i++) value.shape[i] = i < p->n_dims ? p->shape[i] : 1;
    pgi_struct_out(out, &value, sizeof value);
    return end(trainer, PG_OK);
}
