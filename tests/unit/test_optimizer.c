/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * lib/train/parameters.h and optimizer.h: names in order, places, what is refused; AdamW, clipping and schedules
 * against torch and transformers (optimizer_cases.h); the same bits for every number of threads; what cannot be
 * cancelled.
 */
#include "run_tests.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "expect_status.h"
#include "optimizer_cases.h"
#include "support.h"

static void add(pgi_parameters *parameters, const char *name, int32_t n_dims, int64_t a, int64_t b, int decays) {
    OK(pgi_parameters_add(parameters, name, n_dims, (int64_t[]){a, b}, decays));
}

/* Those of optimizer_cases.py. */
static void make(pgi_parameters *parameters) {
    pgi_parameters_init(parameters, &pgi_memory_default);
    add(parameters, "c.norm.weight", 1, 64, 0, 0);
    add(parameters, "a.lora_A.weight", 2, 8, 16, 1);
    add(parameters, "b.bias", 1, 32, 0, 0);
    OK(pgi_parameters_make(parameters));
}

/* drawn() of optimizer_cases.py. */
static float value_of(uint64_t i, float scale) {
    return (float)((int64_t)((uint32_t)(i * UINT64_C(2654435761)) >> 12) - (1 << 19)) * scale;
}

static const pgi_run alone = {.n_threads = 1};

/* ------------------------------------------------------------------------------------------------------- parameters */

static void names_are_in_order(void **state) {
    pgi_parameters p;
    char name[16];
    (void)state;
    pgi_parameters_init(&p, &pgi_memory_default);
    assert_null(pgi_parameters_find(&p, "7"));
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof name, "%d", i * 7 % 300);
        add(&p, name, 2, i % 5 + 1, 7, i % 2);
    }
    OK(pgi_parameters_make(&p));
    size_t end = 0;
    for (size_t i = 0; i < p.n; i++) {
        const pgi_parameter *one = &p.list[i];
        assert_true(i == 0 || strcmp(p.list[i - 1].name, one->name) < 0);
        assert_true(one->at % 16 == 0 && one->at >= end && one->at < end + 16);
        assert_int_equal(one->n, one->shape[0] * one->shape[1]);
        end = one->at + one->n;
        assert_ptr_equal(pgi_parameters_find(&p, one->name), one);
    }
    assert_true(p.n_values % 16 == 0 && p.n_values >= end && p.n_values < end + 16);
    for (size_t i = 0; i < p.n_values; i++)
        assert_true(p.values[i] == 0 && p.gradients[i] == 0 && p.mean[i] == 0 && p.square[i] == 0);
    assert_null(pgi_parameters_find(&p, "300"));
    assert_null(pgi_parameters_find(&p, ""));
    pgi_parameters_free(&p);
    pgi_parameters_free(&p);
}

static void wrong_parameters_are_refused(void **state) {
    pgi_parameters p;
    char name[161];
    const int64_t huge[] = {INT64_MAX / 4, 3, 1, 1}, large[] = {INT64_MAX / 8, 1};
    (void)state;
    pgi_parameters_init(&p, &pgi_memory_default);
    memset(name, 'n', 160);
    name[160] = 0;
    ERROR(pgi_parameters_add(&p, name, 1, huge, 0), PG_ERROR_LIMIT, "160 bytes", "159");
    ERROR(pgi_parameters_add(&p, "x", 4, huge, 0), PG_ERROR_LIMIT, "x: ", "address space");
    assert_int_equal(p.n, 0);
    name[159] = 0;
    OK(pgi_parameters_add(&p, name, 2, (int64_t[]){2, 2}, 0));
    OK(pgi_parameters_add(&p, "y", 2, (int64_t[]){2, 2}, 0));
    OK(pgi_parameters_add(&p, name, 1, (int64_t[]){2}, 0));
    ERROR(pgi_parameters_make(&p), PG_ERROR_FORMAT, "nnn: ", "twice");
    pgi_parameters_free(&p);
    pgi_parameters_init(&p, &pgi_memory_default);
    OK(pgi_parameters_add(&p, "x", 2, large, 0));
    OK(pgi_parameters_add(&p, "y", 2, large, 0));
    ERROR(pgi_parameters_make(&p), PG_ERROR_LIMIT, "y: ", "address space");
    pgi_parameters_free(&p);
}

static void refused_memory_leaves_nothing(void **state) {
    (void)state;
    for (int64_t fail = 1;; fail++) {
        counter c;
        pgi_memory memory;
        pgi_parameters p;
        counter_init(&c);
        c.fail_at = fail;
        OK(pgi_memory_from_allocator(&c.hooks, &memory));
        pgi_parameters_init(&p, &memory);
        pg_status status = pgi_parameters_add(&p, "x", 2, (int64_t[]){200, 200}, 0);
        double norm;
        if (status >= 0) status = pgi_parameters_make(&p);
        if (status >= 0) status = pgi_gradient_norm(&alone, &p, &norm);
        if (status < 0) assert_int_equal(status, PG_ERROR_MEMORY);
        pgi_parameters_free(&p);
        assert_true(counter_clean(&c));
        if (status >= 0) {
            assert_int_equal(fail, 7);
            return;
        }
    }
}

/* -------------------------------------------------------------------------------------------------------- optimizer */

static float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static float ulp(float x) { return nextafterf(fabsf(x), INFINITY) - fabsf(x); }

/* Gradients, mean and square to the bit; values within an ulp of theirs, and of the sum of changes, a step: torch's
 * square root is not always the nearest. */
static void expect_case(const optimizer_case *of, const pgi_parameters *p) {
    int n_off = 0;
    for (size_t i = 0; i < N_VALUES; i++) {
        const float expected = float_of(of->values[i]), moved = expected - value_of(i, 0x1p-20f);
        assert_memory_equal(&p->gradients[i], &of->gradients[i], sizeof(float));
        assert_memory_equal(&p->mean[i], &of->mean[i], sizeof(float));
        assert_memory_equal(&p->square[i], &of->square[i], sizeof(float));
        n_off += p->values[i] != expected;
        if (fabsf(p->values[i] - expected) > ulp(expected) + N_STEPS * ulp(moved))
            fail_msg("value %zu: found %.9g, expected %.9g", i, (double)p->values[i], (double)expected);
    }
    assert_true(n_off < N_VALUES / 20);
}

static void updates_are_those_of_torch(void **state) {
    (void)state;
    for (size_t c = 0; c < sizeof optimizer_cases / sizeof *optimizer_cases; c++) {
        const optimizer_case *of = &optimizer_cases[c];
        pgi_parameters p;
        double norm;
        make(&p);
        for (size_t i = 0; i < N_VALUES; i++) p.values[i] = value_of(i, 0x1p-20f);
        for (int step = 0; step < N_STEPS; step++) {
            for (size_t i = 0; i < N_VALUES; i++) p.gradients[i] = value_of((uint64_t)(step + 1) * 1000 + i, 0x1p-23f);
            OK(pgi_gradient_norm(&alone, &p, &norm));
            assert_true(fabs(norm - of->norms[step]) <= 4e-7 * norm);
            assert_true(fabs(pgi_optimizer_rate(&of->optimizer, step) - of->rates[step]) <= 1e-15 * of->rates[step]);
            OK(pgi_optimizer_update(&alone, &of->optimizer, step, of->norms[step], &p)); /* torch sums in f32 */
        }
        expect_case(of, &p);
        pgi_parameters_free(&p);
    }
}

static void rates_are_those_of_transformers(void **state) {
    (void)state;
    for (size_t c = 0; c < sizeof schedule_cases / sizeof *schedule_cases; c++) {
        const pgi_optimizer o = {.learning_rate = 3e-4,
                                 .schedule = schedule_cases[c].schedule,
                                 .warmup_steps = schedule_cases[c].warmup,
                                 .total_steps = schedule_cases[c].total};
        for (int step = 0; step < 13; step++) {
            const double expected = schedule_cases[c].rates[step];
            assert_true(fabs(pgi_optimizer_rate(&o, step) - expected) <= 1e-15 * 3e-4);
        }
    }
}

/* Behind the end, where transformers' cosine rises again, and with the largest numbers. */
static void rates_stay_at_0_behind_the_end(void **state) {
    (void)state;
    for (int32_t schedule = PG_SCHEDULE_LINEAR; schedule <= PG_SCHEDULE_COSINE; schedule++) {
        pgi_optimizer o = {.learning_rate = 1, .schedule = schedule, .warmup_steps = 3, .total_steps = 10};
        for (int64_t step = 10; step < 40; step++) assert_true(pgi_optimizer_rate(&o, step) == 0);
        assert_true(pgi_optimizer_rate(&o, INT64_MAX) == 0);
        o.warmup_steps = o.total_steps = INT64_MAX;
        assert_true(pgi_optimizer_rate(&o, 1) > 0 && pgi_optimizer_rate(&o, INT64_MAX - 1) <= 1);
        o.total_steps = 2; /* shorter than the warmup */
        o.warmup_steps = 4;
        assert_true(pgi_optimizer_rate(&o, 3) == 0.75 && pgi_optimizer_rate(&o, 5) == 0);
    }
}

static void make_large(pgi_parameters *p) {
    char name[16];
    pgi_parameters_init(p, &pgi_memory_default);
    for (int i = 0; i < 40; i++) {
        snprintf(name, sizeof name, "%02d", i);
        add(p, name, 2, i % 7 == 0 ? 1 : 37 * i % 101 + 1, 1 + i * i % 97, i % 3);
    }
    add(p, "long", 2, 300, 333, 1); /* of several chunks */
    OK(pgi_parameters_make(p));
    for (size_t i = 0; i < p->n; i++)
        for (size_t k = p->list[i].at; k < p->list[i].at + p->list[i].n; k++) {
            p->values[k] = value_of(k, 0x1p-20f);
            p->gradients[k] = value_of(k + 77777, 0x1p-18f);
        }
}

static const pgi_optimizer usual = {.learning_rate = 1e-3,
                                    .weight_decay = 0.1,
                                    .beta1 = 0.9,
                                    .beta2 = 0.999,
                                    .epsilon = 0, /* what fills up the last line of a parameter would be NaN */
                                    .max_gradient_norm = 1};

/* Three updates, each with the gradients as the one before left them. */
static void run_updates(const pgi_run *run, pgi_parameters *p, double *norm) {
    make_large(p);
    for (int step = 0; step < 3; step++) {
        double limited;
        OK(pgi_gradient_norm(run, p, norm));
        OK(pgi_optimizer_update(run, &usual, step, *norm, p));
        OK(pgi_gradient_norm(run, p, &limited));
        assert_true(fabs(limited - fmin(*norm, 1)) < 1e-5);
    }
}

static void threads_give_the_same_bits(void **state) {
    pgi_parameters one, p;
    double norm_of_one, norm;
    (void)state;
    run_updates(&alone, &one, &norm_of_one);
    for (size_t i = 0; i < one.n_values; i++)
        assert_true(isfinite(one.values[i]) && isfinite(one.mean[i]) && isfinite(one.square[i]));
    for (int n_threads = 2; n_threads <= 5; n_threads++) {
        static pgi_thread_pool pool;
        pgi_run run = pgi_run_init(&pool, NULL, &(pg_run_options){.n_threads = n_threads});
        run_updates(&run, &p, &norm);
        assert_memory_equal(&norm, &norm_of_one, sizeof norm);
        const size_t size = p.n_values * sizeof(float);
        assert_memory_equal(p.values, one.values, size);
        assert_memory_equal(p.gradients, one.gradients, size);
        assert_memory_equal(p.mean, one.mean, size);
        assert_memory_equal(p.square, one.square, size);
        pgi_parameters_free(&p);
        pgi_run_free(&run);
    }
    pgi_parameters_free(&one);
}

static void updates_are_whole(void **state) {
    pgi_parameters whole, p;
    pg_cancel cancel = {.requested = 1};
    const pgi_run run = {.n_threads = 1, .cancel = &cancel};
    double norm;
    (void)state;
    make_large(&whole);
    make_large(&p);
    ERROR(pgi_gradient_norm(&run, &p, &norm), PG_ERROR_CANCELLED, "cancelled", "request");
    OK(pgi_gradient_norm(&alone, &p, &norm));
    OK(pgi_optimizer_update(&alone, &usual, 0, norm, &whole));
    OK(pgi_optimizer_update(&run, &usual, 0, norm, &p));
    assert_memory_equal(p.values, whole.values, p.n_values * sizeof(float));
    pgi_parameters_free(&whole);
    pgi_parameters_free(&p);
}

static void norms_tell_what_is_not_finite(void **state) {
    pgi_parameters p;
    double norm;
    (void)state;
    make(&p);
    OK(pgi_gradient_norm(&alone, &p, &norm));
    assert_true(norm == 0);
    p.gradients[100] = 3e38f;
    p.gradients[101] = 3e38f;
    OK(pgi_gradient_norm(&alone, &p, &norm));
    assert_true(fabs(norm / (sqrt(2.0) * 3e38) - 1) < 1e-6);
    p.gradients[7] = INFINITY;
    OK(pgi_gradient_norm(&alone, &p, &norm));
    assert_true(isinf(norm));
    p.gradients[8] = NAN;
    OK(pgi_gradient_norm(&alone, &p, &norm));
    assert_true(isnan(norm));
    pgi_parameters_free(&p);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_in_order),
        cmocka_unit_test(wrong_parameters_are_refused),
        cmocka_unit_test(refused_memory_leaves_nothing),
        cmocka_unit_test(updates_are_those_of_torch),
        cmocka_unit_test(rates_are_those_of_transformers),
        cmocka_unit_test(rates_stay_at_0_behind_the_end),
        cmocka_unit_test(threads_give_the_same_bits),
        cmocka_unit_test(updates_are_whole),
        cmocka_unit_test(norms_tell_what_is_not_finite),
    };
    return RUN_TESTS(tests, NULL, NULL);
}
