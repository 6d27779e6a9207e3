/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What test_gradients.c and test_trainer.c share: trainers of the models of forward_fixture.h. run_tests.h comes before
 * it. */
#ifndef TESTS_UNIT_TRAINING_FIXTURE_H
#define TESTS_UNIT_TRAINING_FIXTURE_H

#include "forward_fixture.h"
#include "train/trainer.h"

/* Every module that can have LoRA, and every one that can be trained whole. */
#define ALL_LORA                                                                                                \
    "q_proj,k_proj,v_proj,out_proj,o_proj,fc1,fc2,multi_modal_projector.linear,gate_proj,up_proj,down_proj,lm_" \
    "head,embed_tokens,position_embedding,patch_embedding"
#define ALL_WHOLE "vision_tower,multi_modal_projector,language_model.layers,language_model.norm"

/* LoRA of rank 3 on one thread. */
static inline pg_trainer_options training_of(const char *target_modules, const char *modules_to_save) {
    pg_trainer_options options;
    OK(pg_trainer_options_init(&options, sizeof options));
    options.rank = target_modules ? 3 : 0;
    options.alpha = 4;
    options.target_modules = target_modules;
    options.modules_to_save = modules_to_save;
    options.learning_rate = 1e-2;
    options.n_threads = 1;
    return options;
}

static inline pg_trainer *train(const pg_model *of, const pg_trainer_options *options) {
    pg_trainer *trainer = NULL;
    OK(pg_trainer_create(of, options, &trainer));
    return trainer;
}

/* The first rows of `specs`, with labels. */
static inline pg_inputs *inputs_of(const tiny *m, const row_spec *rows, int n, int side) {
    batch b;
    pg_inputs *in = NULL;
    make_batch(&b, m, rows, n, side, side == LEFT ? 2 : 0);
    OK(create(&b, m, 0, NULL, &in));
    free(b.pixels);
    return in;
}

/* B starts with zeros, which hide what lies below it: all values move by up to `by`. */
static inline void shake(pg_trainer *trainer, float by, uint64_t seed) {
    rng r = {seed};
    const pgi_parameters *p = &trainer->parameters;
    for (size_t i = 0; i < p->n; i++)
        for (size_t k = 0; k < p->list[i].n; k++) p->values[p->list[i].at + k] += by * rng_unit(&r);
}

static inline void expect_same_values(const pg_trainer *a, const pg_trainer *b) {
    const pgi_parameters *p = &a->parameters, *q = &b->parameters;
    const size_t size = p->n_values * sizeof(float);
    assert_int_equal(p->n_values, q->n_values);
    assert_memory_equal(p->values, q->values, size);
    assert_memory_equal(p->mean, q->mean, size);
    assert_memory_equal(p->square, q->square, size);
}

#endif
