/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Trainers by their results: evaluation beside pg_forward(), the same bits however the work is done, accumulation,
 * dropout, what is saved and gone on from, progress, and every error with what it says. Gradients: test_gradients.c.
 */
#include "run_tests.h"

#include <unistd.h>

#include "training_fixture.h"

/* The status, and a message of its own that has both parts. */
#define TOLD(call, wanted, first, second)                                                            \
    do {                                                                                             \
        ERROR(call, wanted);                                                                         \
        if (!strstr(pg_last_error(), first) || !strstr(pg_last_error(), second))                     \
            fail_msg("%s: found \"%s\", expected %s and %s", #call, pg_last_error(), first, second); \
    } while (0)

static const row_spec rows[] = {{1, 3, 4, 1}, {0, 5, 3, 2}, {1, 2, 5, 3}};
enum { N_ROWS = sizeof rows / sizeof *rows };

static char saved[512]; /* a folder for states */

static int open_all(void **state) {
    make_temp_folder(saved, sizeof saved);
    return open_models(state);
}

static int close_all(void **state) {
    remove_folder(saved);
    return close_models(state);
}

static pg_train_result step(pg_trainer *trainer, const pg_inputs *in) {
    pg_train_result result = {.struct_size = sizeof result};
    OK(pg_trainer_step(trainer, in, &result));
    return result;
}

static pg_train_result evaluate(pg_trainer *trainer, const pg_inputs *in) {
    pg_train_result result = {.struct_size = sizeof result};
    OK(pg_trainer_evaluate(trainer, in, &result));
    return result;
}

static double loss_by_forward(const pg_model *of, const pg_inputs *in) {
    pg_forward_options options = options_of(PG_FORWARD_NO_LOGITS | PG_FORWARD_SKIP_PADDING);
    pg_outputs *out = NULL;
    OK(pg_forward(of, in, &options, &out));
    const double loss = (double)loss_of(out);
    pg_outputs_close(&out);
    return loss;
}

/* -------------------------------------------------------------------------------------------------------- results */

/* To the rounding of f32 sums; of int8 and int4, pg_forward() rounds what layers read as well. */
static void evaluation_is_that_of_forward(void **state) {
    (void)state;
    for (int32_t weights = PG_WEIGHTS_STORED; weights <= PG_WEIGHTS_INT4; weights++)
        for (int i = 0; i < 4; i++) {
            const tiny *m = &models[i % 2];
            pg_model *of = open_format(m, weights);
            pg_inputs *in = inputs_of(m, rows, N_ROWS, i < 2 ? LEFT : RIGHT);
            const pg_trainer_options options = training_of(ALL_LORA, "norm");
            pg_trainer *trainer = train(of, &options);
            const pg_train_result result = evaluate(trainer, in);
            const double expected = loss_by_forward(of, in);
            if (!(fabs(result.loss - expected) <= (weights == PG_WEIGHTS_STORED ? 1e-5 : 0.02) * expected))
                fail_msg("weights %d: the loss is %.7f, by pg_forward() %.7f", weights, result.loss, expected);
            assert_int_equal(result.n_labels, 12);
            assert_int_equal(result.n_tokens, 3 * 8 - 2 + 2 * m->info.n_image_tokens);
            assert_true(result.updated == 0 && result.step == 0 && result.gradient_norm == 0);
            assert_true(result.learning_rate == 0);
            pg_trainer_close(&trainer);
            pg_inputs_close(&in);
            pg_model_close(&of);
        }
}

static void training_learns(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        pg_inputs *in = inputs_of(&models[i], rows, N_ROWS, LEFT);
        pg_trainer_options options = training_of(ALL_LORA, NULL);
        options.warmup_steps = 5, options.total_steps = 60;
        pg_trainer *trainer = train(models[i].model, &options);
        const double first = evaluate(trainer, in).loss;
        for (int64_t k = 0; k < 60; k++) {
            const pg_train_result r = step(trainer, in);
            if (k == 0) assert_true(r.loss == first); /* B is zero */
            assert_true(r.updated == 1 && r.step == k + 1 && r.n_labels == 12);
            assert_true(isfinite(r.gradient_norm) && (k > 0) == (r.learning_rate > 0));
        }
        if (!(evaluate(trainer, in).loss < 0.3 * first))
            fail_msg("the loss was %f, and is %f", first, evaluate(trainer, in).loss);
        pg_trainer_close(&trainer);
        pg_inputs_close(&in);
    }
}

static pg_trainer *train_steps(const pg_model *of, const pg_trainer_options *options, const pg_inputs *in, int n) {
    pg_trainer *trainer = train(of, options);
    for (int i = 0; i < n; i++) step(trainer, in);
    return trainer;
}

/* Work for several threads: 256 image tokens. */
static void the_bits_are_the_same(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        tiny m = {.model = NULL};
        tiny_options made = i ? tiny_saved_today() : tiny_official();
        const row_spec long_rows[] = {{0, 30, 20, 1}, {0, 9, 30, 2}};
        made.image_size = i ? 12 : 24;
        open_tiny(&m, &made, NULL);
        pg_inputs *in = i ? inputs_of(&m, rows, N_ROWS, LEFT) : inputs_of(&m, long_rows, 2, LEFT);
        pg_inputs *image = inputs_of(&m, rows, 1, LEFT);
        pg_trainer_options options = training_of(ALL_LORA, "norm,multi_modal_projector");
        options.dropout = 0.2;
        options.rank = 40;
        pg_trainer *first = train_steps(m.model, &options, in, 2);
        step(first, image);
        for (int other = 1; other < 6; other++) {
            options.n_threads = 1 + other / 2 * 2;
            options.flags = other % 2 ? PG_TRAIN_CHECKPOINT : 0;
            pg_trainer *second = train_steps(m.model, &options, in, 2);
            step(second, image);
            expect_same_values(first, second);
            pg_trainer_close(&second);
        }
        pg_trainer_close(&first);
        pg_inputs_close(&image);
        pg_inputs_close(&in);
        close_tiny(&m);
    }
}

/* Rows in calls of their own, whose update is that of all at once: of the decoder's LoRA to the bit, as its gradients
 * are summed in the same order then. Padded on the right: on the left padding counts in the angles of RoPE. */
static void accumulation_is_one_batch(void **state) {
    (void)state;
    for (int i = 0; i < 4; i++) {
        const tiny *m = &models[i % 2];
        pg_trainer_options options = i < 2 ? training_of(NULL, NULL) : training_of(ALL_LORA, NULL);
        options.rank = 3;
        pg_inputs *all = inputs_of(m, rows, N_ROWS, RIGHT), *one[N_ROWS];
        pg_trainer *together = train(m->model, &options);
        const pg_train_result expected = step(together, all);
        options.accumulation = N_ROWS;
        pg_trainer *apart = train(m->model, &options);
        pg_train_result r = {0};
        double loss = 0;
        for (int k = 0; k < N_ROWS; k++) {
            one[k] = inputs_of(m, &rows[k], 1, RIGHT);
            r = step(apart, one[k]);
            evaluate(apart, all); /* changes nothing */
            assert_int_equal(r.updated, k == N_ROWS - 1);
            loss += r.loss * (double)r.n_labels;
        }
        assert_true(fabs(loss / (double)expected.n_labels - expected.loss) < 1e-12);
        assert_true(fabs(r.gradient_norm - expected.gradient_norm) < 1e-5 * expected.gradient_norm);
        assert_int_equal(r.step, 1);
        if (i < 2) expect_same_values(together, apart);
        expect_close(apart->parameters.mean, together->parameters.mean, (int64_t)apart->parameters.n_values, 1e-5);
        for (int k = 0; k < N_ROWS; k++) pg_inputs_close(&one[k]);
        pg_inputs_close(&all);
        pg_trainer_close(&together);
        pg_trainer_close(&apart);
    }
}

/* As much as a seed is the same, another, or none; an evaluation between steps has none, of images neither. */
static void dropout_follows_the_seed(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        const tiny *m = &models[i];
        pg_inputs *in = inputs_of(m, rows, N_ROWS, LEFT);
        pg_trainer_options options = training_of(ALL_LORA, NULL);
        pg_trainer *none = train(m->model, &options);
        options.dropout = 0.4;
        options.seed = 7;
        pg_trainer *first = train(m->model, &options), *same = train(m->model, &options);
        options.seed = 8;
        pg_trainer *other = train(m->model, &options);
        pg_trainer *const trainers[] = {first, same, other};
        const size_t size = none->parameters.n_values * sizeof(float);
        for (int k = 0; k < 3; k++) memcpy(trainers[k]->parameters.values, none->parameters.values, size);
        for (int k = 0; k < 3; k++) shake(trainers[k], 0.1f, 3);
        shake(none, 0.1f, 3);
        const double expected = evaluate(none, in).loss;
        for (int k = 0; k < 3; k++) assert_true(evaluate(trainers[k], in).loss == expected);
        const double loss = step(first, in).loss;
        assert_true(step(same, in).loss == loss);
        assert_true(step(other, in).loss != loss);
        assert_true(loss != expected);
        assert_true(step(none, in).loss == expected);
        expect_same_values(first, same);
        const double after = evaluate(first, in).loss;
        assert_true(evaluate(first, in).loss == after);
        memcpy(none->parameters.values, first->parameters.values, size);
        assert_true(evaluate(none, in).loss == after);
        pg_trainer_close(&first), pg_trainer_close(&same), pg_trainer_close(&other);
        pg_trainer_close(&none);
        pg_inputs_close(&in);
    }
}

/* ---------------------------------------------------------------------------------------------------------- saving */

/* What was trained is what pg_adapter_open() opens. */
static void what_is_saved_is_an_adapter(void **state) {
    static const struct {
        const char *lora, *whole;
        uint32_t flags;
        int32_t weights;
    } cases[] = {{NULL, NULL, 0, PG_WEIGHTS_STORED},
                 {ALL_LORA, NULL, PG_TRAIN_RSLORA, PG_WEIGHTS_STORED},
                 {"q_proj,v_proj", "multi_modal_projector,norm", 0, PG_WEIGHTS_STORED},
                 {"", ALL_WHOLE, 0, PG_WEIGHTS_STORED},
                 {"all-linear", "position_embedding", PG_TRAIN_CHECKPOINT, PG_WEIGHTS_INT8}};
    (void)state;
    for (size_t c = 0; c < 2 * sizeof cases / sizeof *cases; c++) {
        const tiny *m = &models[c % 2];
        const int whole_alone = cases[c / 2].lora && !*cases[c / 2].lora;
        pg_model *base = open_format(m, cases[c / 2].weights), *adapted = NULL;
        pg_inputs *in = inputs_of(m, rows, N_ROWS, LEFT);
        pg_trainer_options options = training_of(whole_alone ? NULL : cases[c / 2].lora, cases[c / 2].whole);
        options.rank = whole_alone ? 0 : 5;
        options.flags = cases[c / 2].flags;
        options.dropout = 0.1;
        pg_trainer *trainer = train_steps(base, &options, in, 4);
        pg_adapter *adapter = NULL;
        OK(pg_trainer_save(trainer, saved));
        OK(pg_adapter_open(base, saved, NULL, &adapter));
        OK(pg_model_adapt(base, (const pg_adapter *const *)&adapter, NULL, 1, &adapted));
        const double found = loss_by_forward(adapted, in), expected = evaluate(trainer, in).loss;
        const double before = loss_by_forward(base, in);
        if (!(fabs(found - expected) <= (cases[c / 2].weights == PG_WEIGHTS_STORED ? 2e-5 : 0.02) * expected) ||
            !(found < before))
            fail_msg("case %zu: the loss is %.7f, the trainer's %.7f, the base's %.7f", c, found, expected, before);
        pg_adapter_close(&adapter);
        pg_model_close(&adapted);
        pg_trainer_close(&trainer);
        pg_inputs_close(&in);
        pg_model_close(&base);
    }
}

/* k steps are j steps, saved, and k - j after that. */
static void a_resumed_training_has_the_same_bits(void **state) {
    (void)state;
    for (int i = 0; i < 4; i++) {
        const tiny *m = &models[i % 2];
        pg_inputs *in = inputs_of(m, rows, N_ROWS, LEFT);
        pg_trainer_options options = training_of(i < 2 ? ALL_LORA : NULL, i < 2 ? "norm" : ALL_WHOLE);
        options.dropout = 0.2;
        options.accumulation = 1 + i / 2;
        options.schedule = PG_SCHEDULE_COSINE, options.warmup_steps = 2, options.total_steps = 6;
        options.weight_decay = 0.1;
        pg_trainer *through = train_steps(m->model, &options, in, 5 * (int)options.accumulation);
        pg_trainer *first = train_steps(m->model, &options, in, 2 * (int)options.accumulation), *again = NULL;
        OK(pg_trainer_save(first, saved));
        pg_trainer_close(&first);
        options.n_threads = 2;
        OK(pg_trainer_resume(m->model, saved, &options, &again));
        int64_t updates = 0;
        OK(pg_trainer_get_step(again, &updates));
        assert_int_equal(updates, 2);
        pg_train_result r = evaluate(again, in);
        assert_int_equal(r.step, 2);
        for (int k = 0; k < 3 * (int)options.accumulation; k++) r = step(again, in);
        assert_int_equal(r.step, 5);
        expect_same_values(through, again);
        options.dropout = 0, options.seed = 9, options.learning_rate = 1, options.base = "x"; /* these may differ */
        pg_trainer *other = NULL;
        OK(pg_trainer_resume(m->model, saved, &options, &other));
        pg_trainer_close(&other);
        pg_trainer_close(&again);
        pg_trainer_close(&through);
        pg_inputs_close(&in);
    }
}

static void other_states_are_refused(void **state) {
    static const struct {
        const char *lora, *whole;
        int32_t rank;
        double alpha;
        uint32_t flags;
        const char *first, *second;
    } cases[] = {
        {"q_proj", "norm", 3, 5, 0, "lora_alpha: found 4", "expected 5"},
        {"q_proj", "norm", 3, 4, PG_TRAIN_RSLORA, "use_rslora: found false", "expected true"},
        {"q_proj", "norm", 4, 4, 0, "found shape [3, ", "expected [4, "},
        {"q_proj,v_proj", "norm", 3, 4, 0, "v_proj", "found none"},
        {"q_proj", NULL, 3, 4, 0, "norm", "do not train"},
        {"v_proj", "norm,q_proj", 3, 4, 0, "q_proj", "found none"},
    };
    const pg_trainer_options options = training_of("q_proj", "norm");
    pg_trainer *trainer = train(models[0].model, &options), *out = trainer;
    (void)state;
    OK(pg_trainer_save(trainer, saved));
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        pg_trainer_options other = training_of(cases[c].lora, cases[c].whole);
        other.rank = cases[c].rank, other.alpha = cases[c].alpha, other.flags = cases[c].flags;
        TOLD(pg_trainer_resume(models[0].model, saved, &other, &out), PG_ERROR_ARGUMENT, cases[c].first,
             cases[c].second);
        assert_null(out);
    }
    TOLD(pg_trainer_resume(models[1].model, saved, &options, &out), PG_ERROR_ARGUMENT, "found", "expected");
    TOLD(pg_trainer_resume(models[0].model, "/nowhere", &options, &out), PG_ERROR_NOT_FOUND, "trainer_state",
         "pg_trainer_save()");
    write_text(saved, "trainer_state.safetensors", "{}");
    TOLD(pg_trainer_resume(models[0].model, saved, &options, &out), PG_ERROR_FORMAT, "trainer_state", "found");
    ARGUMENT(pg_trainer_resume(NULL, saved, &options, &out));
    ARGUMENT(pg_trainer_resume(models[0].model, NULL, &options, &out));
    ARGUMENT(pg_trainer_resume(models[0].model, saved, &options, NULL));
    ARGUMENT(pg_trainer_save(NULL, saved));
    ARGUMENT(pg_trainer_save(trainer, NULL));
    TOLD(pg_trainer_save(trainer, "/nowhere/at/all"), PG_ERROR_NOT_FOUND, "nowhere", "make the folder");
    pg_trainer_close(&trainer);
    pg_trainer_close(&trainer);
    pg_trainer_close(NULL);
}

/* --------------------------------------------------------------------------------------------------------- options */

typedef struct bad_options {
    pg_status status;
    const char *first, *second;
    const char *lora, *whole; /* lora NULL: "q_proj" */
    size_t at;                /* of the field that gets `number`; 0: none */
    double number;
    int is_integer; /* bytes of it; 0: a double */
} bad_options;

#define REAL(field, value) .at = offsetof(pg_trainer_options, field), .number = value
#define WHOLE(field, value) REAL(field, value), .is_integer = sizeof(((pg_trainer_options *)0)->field)

static const bad_options bad[] = {
    {PG_ERROR_ARGUMENT, "dropout is 1", "less than 1", REAL(dropout, 1)},
    {PG_ERROR_ARGUMENT, "dropout is -0.1", "0 or more", REAL(dropout, -0.1)},
    {PG_ERROR_ARGUMENT, "dropout is nan", "0 or more", REAL(dropout, NAN)},
    {PG_ERROR_ARGUMENT, "learning_rate is -1", "0 or more", REAL(learning_rate, -1)},
    {PG_ERROR_ARGUMENT, "learning_rate is inf", "0 or more", REAL(learning_rate, INFINITY)},
    {PG_ERROR_ARGUMENT, "weight_decay is nan", "0 or more", REAL(weight_decay, NAN)},
    {PG_ERROR_ARGUMENT, "beta1 is 1", "less than 1", REAL(beta1, 1)},
    {PG_ERROR_ARGUMENT, "beta2 is -1", "less than 1", REAL(beta2, -1)},
    {PG_ERROR_ARGUMENT, "epsilon is 0", "1.17549e-38 or more", REAL(epsilon, 0)},
    {PG_ERROR_ARGUMENT, "max_gradient_norm is -1", "0 or more", REAL(max_gradient_norm, -1)},
    {PG_ERROR_ARGUMENT, "alpha is 0", "more than 0", REAL(alpha, 0)},
    {PG_ERROR_ARGUMENT, "alpha is nan", "more than 0", REAL(alpha, NAN)},
    {PG_ERROR_ARGUMENT, "alpha is 1e+300", "a float holds", REAL(alpha, 1e300)},
    {PG_ERROR_ARGUMENT, "warmup_steps is -1", "0 or more", WHOLE(warmup_steps, -1)},
    {PG_ERROR_ARGUMENT, "total_steps is -1", "0 or more", WHOLE(total_steps, -1)},
    {PG_ERROR_ARGUMENT, "accumulation is 0", "1 or more", WHOLE(accumulation, 0)},
    {PG_ERROR_ARGUMENT, "rank is -1", "0 to 4096", WHOLE(rank, -1)},
    {PG_ERROR_ARGUMENT, "rank is 4097", "0 to 4096", WHOLE(rank, 4097)},
    {PG_ERROR_ARGUMENT, "schedule is 3", "PG_SCHEDULE_", WHOLE(schedule, 3)},
    {PG_ERROR_ARGUMENT, "schedule is -1", "PG_SCHEDULE_", WHOLE(schedule, -1)},
    {PG_ERROR_ARGUMENT, "0x4", "PG_TRAIN_", WHOLE(flags, 4)},
    {PG_ERROR_ARGUMENT, "reserved", "pg_trainer_options", WHOLE(reserved, 1)},
    {PG_ERROR_ARGUMENT, "n_threads", "1024", WHOLE(n_threads, 1025)},
    {PG_ERROR_ARGUMENT, "n_threads", "1024", WHOLE(n_threads, -1)},
    {PG_ERROR_ARGUMENT, "target_modules: found \"kproj\"", "q_proj", .lora = "q_proj,kproj"},
    {PG_ERROR_ARGUMENT, "target_modules: found an empty name", "commas", .lora = "q_proj,"},
    {PG_ERROR_ARGUMENT, "target_modules: found an empty name", "commas", .lora = " "},
    {PG_ERROR_ARGUMENT, "target_modules: found an empty text", "names", .lora = ""},
    {PG_ERROR_ARGUMENT, "target_modules: found a choice that fits no module", "some", .lora = "regex:x"},
    {PG_ERROR_ARGUMENT, "target_modules: found a choice that fits no module", "some", .lora = "regex:"},
    {PG_ERROR_ARGUMENT, "target_modules: found a choice that fits no module", "rank 0", .lora = "regex:x",
     .whole = "norm"},
    {PG_ERROR_ARGUMENT, "target_modules: found a choice that fits no module", "rank 0", .lora = "q_proj",
     .whole = "q_proj"},
    {PG_ERROR_FORMAT, "target_modules", "", .lora = "regex:(q_proj"},
    {PG_ERROR_UNSUPPORTED, "target_modules", "", .lora = "regex:(?=a)q_proj"},
    {PG_ERROR_UNSUPPORTED, "target_modules: found model.language_model.norm", "can be in modules_to_save",
     .lora = "q_proj,language_model.norm"},
    {PG_ERROR_ARGUMENT, "modules_to_save: found \"nothing\"", "expected names", .whole = "norm,nothing"},
    {PG_ERROR_ARGUMENT, "modules_to_save: found an empty name", "commas", .whole = ",norm"},
    {PG_ERROR_UNSUPPORTED, "modules_to_save: found model.language_model.embed_tokens", "can have LoRA",
     .whole = "embed_tokens"},
    {PG_ERROR_UNSUPPORTED, "modules_to_save: found lm_head", "can have LoRA", .whole = "lm_head"},
    {PG_ERROR_UNSUPPORTED, "modules_to_save: found model.language_model.embed_tokens", "other modules",
     .whole = "language_model"},
};

static void bad_options_are_told(void **state) {
    pg_trainer *out = NULL;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        pg_trainer_options options = training_of(bad[i].lora ? bad[i].lora : "q_proj", bad[i].whole);
        char *field = (char *)&options + bad[i].at;
        const int64_t integer = bad[i].is_integer ? (int64_t)bad[i].number : 0;
        const int32_t shorter = (int32_t)integer;
        if (bad[i].at && !bad[i].is_integer) memcpy(field, &bad[i].number, sizeof(double));
        if (bad[i].is_integer == 8) memcpy(field, &integer, 8);
        if (bad[i].is_integer == 4) memcpy(field, &shorter, 4);
        if (!bad[i].at && bad[i].is_integer) fail_msg("case %zu", i);
        TOLD(pg_trainer_create(models[1].model, &options, &out), bad[i].status, bad[i].first, bad[i].second);
        assert_null(out);
    }
    pg_trainer_options options = training_of(NULL, NULL); /* neither */
    TOLD(pg_trainer_create(models[0].model, &options, &out), PG_ERROR_ARGUMENT, "modules_to_save: found none",
         "modules to train");
    ARGUMENT(pg_trainer_create(NULL, &options, &out));
    ARGUMENT(pg_trainer_create(models[0].model, &options, NULL));
    options.struct_size = 8;
    ARGUMENT(pg_trainer_create(models[0].model, &options, &out));
    OK(pg_trainer_create(models[0].model, NULL, &out)); /* all defaults */
    pg_trainer_close(&out);
    ARGUMENT(pg_trainer_options_init(NULL, sizeof options));
}

static void an_adapted_model_is_refused(void **state) {
    const pg_trainer_options options = training_of("q_proj", NULL);
    pg_trainer *trainer = train(models[0].model, &options);
    pg_adapter *adapter = NULL;
    pg_model *adapted = NULL;
    (void)state;
    OK(pg_trainer_save(trainer, saved));
    pg_trainer_close(&trainer);
    OK(pg_adapter_open(models[0].model, saved, NULL, &adapter));
    OK(pg_model_adapt(models[0].model, (const pg_adapter *const *)&adapter, NULL, 1, &adapted));
    TOLD(pg_trainer_create(adapted, &options, &trainer), PG_ERROR_UNSUPPORTED, "adapters", "pg_model_convert()");
    TOLD(pg_trainer_resume(adapted, saved, &options, &trainer), PG_ERROR_UNSUPPORTED, "adapters", "");
    pg_model_close(&adapted);
    pg_adapter_close(&adapter);
}

/* Names, shapes and values of what is trained; PEFT's first values: A uniform within 1 / sqrt(inputs), B zeros. */
static void parameters_are_shown(void **state) {
    const pg_trainer_options options = training_of("q_proj,patch_embedding,embed_tokens", "multi_modal_projector");
    pg_trainer *trainer = train(models[1].model, &options);
    pg_parameter p = {.struct_size = sizeof p};
    char before[160] = "";
    size_t n = 0;
    (void)state;
    OK(pg_trainer_count_parameters(trainer, &n));
    assert_int_equal(n, 2 * (2 + 2 + 1 + 1) + 2);
    for (size_t i = 0; i < n; i++) {
        OK(pg_trainer_get_parameter(trainer, i, &p));
        assert_true(strcmp(before, p.name) < 0 && strncmp(p.name, "base_model.model.", 17) == 0);
        snprintf(before, sizeof before, "%s", p.name);
        const int is_bias = strstr(p.name, ".bias") != NULL, is_patch = strstr(p.name, "patch_embedding") != NULL;
        assert_int_equal(p.decays, !is_bias);
        assert_int_equal(p.n_dims, is_bias ? 1 : is_patch ? 4 : 2);
        for (int k = p.n_dims; k < 4; k++) assert_int_equal(p.shape[k], 1);
        const int64_t n_in = p.shape[1] * p.shape[2] * p.shape[3], size = p.shape[0] * n_in;
        double largest = 0;
        for (int64_t k = 0; k < size; k++) {
            if (fabs((double)p.value[k]) > largest) largest = fabs((double)p.value[k]);
            assert_true(p.gradient[k] == 0);
        }
        if (strstr(p.name, "lora_B.weight") || strstr(p.name, "lora_embedding_A")) assert_true(largest == 0);
        if (strstr(p.name, "lora_A.weight"))
            assert_true(largest <= 1 / sqrt((double)n_in) && largest > 0.8 / sqrt((double)n_in));
        if (strstr(p.name, "lora_embedding_B")) assert_true(largest > 1.5 && largest < 5); /* 96 of N(0, 1) */
    }
    TOLD(pg_trainer_get_parameter(trainer, n, &p), PG_ERROR_ARGUMENT, "parameter is 14", "less than 14");
    ARGUMENT(pg_trainer_get_parameter(NULL, 0, &p));
    ARGUMENT(pg_trainer_get_parameter(trainer, 0, NULL));
    ARGUMENT(pg_trainer_get_step(NULL, &(int64_t){0}));
    ARGUMENT(pg_trainer_get_step(trainer, NULL));
    ARGUMENT(pg_trainer_count_parameters(NULL, &n));
    ARGUMENT(pg_trainer_count_parameters(trainer, NULL));
    pg_trainer_close(&trainer);
}

/* ---------------------------------------------------------------------------------------------------------- inputs */

/* After each error the next step is the first of a trainer that saw no error. */
static void bad_inputs_are_told(void **state) {
    enum {
        NO_LABELS,
        NO_LABEL,
        LARGE_LABEL,
        HIDDEN,
        PACKED,
        SIZE,
        LARGE_ID,
        FEW_IMAGES,
        ONE_FOR_TWO,
        NOT_FINITE,
        N_KINDS
    };
    static const struct {
        pg_status status;
        const char *first, *second;
    } wanted[N_KINDS] = {
        {PG_ERROR_ARGUMENT, "found inputs without labels", "pg_processor_encode_batch()"},
        {PG_ERROR_ARGUMENT, "found no label in any row", "not -100"},
        {PG_ERROR_ARGUMENT, "row 1: the label of token ", "or -100"},
        {PG_ERROR_UNSUPPORTED, "row 0: found tokens that attention_mask hides", "before or after"},
        {PG_ERROR_UNSUPPORTED, "found rows of several texts", "one text a row"},
        {PG_ERROR_ARGUMENT, "the inputs' images are 8 x 8 pixels", "the model expects 12 x 12"},
        {PG_ERROR_ARGUMENT, "row 1: token ", "the tokenizer is not the model's"},
        {PG_ERROR_ARGUMENT, "image tokens", "do not match"},
        {PG_ERROR_ARGUMENT, "row 1 has 9 image tokens, the 1 image of 9 each have 0 left", "do not match"},
        {PG_ERROR_FORMAT, "row 0: the loss is ", "a smaller learning rate may help"}};
    (void)state;
    for (int kind = 0; kind < N_KINDS; kind++) {
        tiny m = models[kind % 2];
        static int64_t positions[MAX_ROWS * MAX_TOKENS];
        const row_spec texts[] = {{0, 4, 3, 1}, {0, 4, 3, 2}}, images[] = {{1, 4, 3, 1}, {1, 4, 3, 2}};
        const int has_image = kind == SIZE || kind == FEW_IMAGES || kind == NOT_FINITE;
        batch b;
        pg_inputs *wrong = NULL, *sound = inputs_of(&m, rows, N_ROWS, LEFT);
        pg_trainer_options options = training_of(ALL_LORA, NULL);
        options.accumulation = 2;
        pg_trainer *trainer = train(m.model, &options), *other = train(m.model, &options);
        make_batch(&b, &m, kind == ONE_FOR_TWO ? images : has_image ? rows : texts, 2, RIGHT, 0);
        if (kind == ONE_FOR_TWO) b.n_images = 1;
        const int64_t last = b.n_tokens + b.length[1] - 1, size = m.info.image_size;
        for (int64_t i = 0; i < b.n_rows * b.n_tokens && kind == NO_LABEL; i++) b.labels[i] = -100;
        if (kind == LARGE_LABEL) b.labels[last] = m.info.vocab_size;
        if (kind == HIDDEN) b.mask[2] = 0;
        if (kind == LARGE_ID) b.ids[last] = m.info.vocab_size + 1;
        if (kind == FEW_IMAGES) b.ids[last] = m.image_id;
        if (kind == NOT_FINITE) b.pixels[5] = 3e38f, b.pixels[6] = -3e38f;
        for (int64_t i = 0; i < b.n_rows * b.n_tokens; i++) positions[i] = i % b.n_tokens % 4;
        if (kind == PACKED) b.positions = positions;
        if (kind == SIZE) m.info.image_size = 8;
        OK(create(&b, &m, kind == NO_LABELS ? WITHOUT_LABELS : kind == PACKED ? WITHOUT_MASK : 0, NULL, &wrong));
        step(trainer, sound); /* dropped by the error */
        pg_train_result r = {.struct_size = sizeof r, .loss = 7};
        TOLD(pg_trainer_evaluate(trainer, wrong, &r), wanted[kind].status, wanted[kind].first, wanted[kind].second);
        TOLD(pg_trainer_step(trainer, wrong, &r), wanted[kind].status, wanted[kind].first, wanted[kind].second);
        assert_true(r.loss == 7);
        expect_same_values(trainer, other);
        for (int k = 0; k < 2; k++) assert_int_equal(step(trainer, sound).updated, step(other, sound).updated);
        expect_same_values(trainer, other);
        assert_int_equal(trainer->step, 1);
        assert_int_equal(size, 12);
        pg_trainer_close(&trainer);
        pg_trainer_close(&other);
        pg_inputs_close(&wrong);
        pg_inputs_close(&sound);
        free(b.pixels);
    }
}

static void missing_arguments_are_told(void **state) {
    const pg_trainer_options options = training_of("q_proj", NULL);
    pg_trainer *trainer = train(models[0].model, &options);
    pg_inputs *in = inputs_of(&models[0], rows, 1, LEFT);
    pg_train_result r = {.struct_size = 3};
    (void)state;
    ARGUMENT(pg_trainer_step(NULL, in, NULL));
    ARGUMENT(pg_trainer_step(trainer, NULL, NULL));
    ARGUMENT(pg_trainer_step(trainer, in, &r));
    ARGUMENT(pg_trainer_evaluate(NULL, in, NULL));
    ARGUMENT(pg_trainer_evaluate(trainer, NULL, NULL));
    assert_int_equal(trainer->step, 0);
    OK(pg_trainer_step(trainer, in, NULL));
    OK(pg_trainer_evaluate(trainer, in, NULL));
    pg_inputs_close(&in);
    pg_trainer_close(&trainer);
}

/* A learning rate that no training survives: the step after it says so and changes nothing, and the last sound state
 * is not written over. */
static void a_training_that_diverged_is_told(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        pg_inputs *in = inputs_of(&models[i], rows, N_ROWS, LEFT);
        pg_trainer_options options = training_of("all-linear", NULL);
        options.learning_rate = i ? 1e300 : 1e30;
        pg_trainer *trainer = train(models[i].model, &options), *kept = NULL;
        OK(pg_trainer_save(trainer, saved));
        assert_int_equal(step(trainer, in).updated, 1);
        const size_t size = trainer->parameters.n_values * sizeof(float);
        float *before = malloc(size);
        assert_non_null(before);
        memcpy(before, trainer->parameters.values, size);
        for (int k = 0; k < 2; k++) {
            TOLD(pg_trainer_step(trainer, in, NULL), PG_ERROR_FORMAT, "after 1 updates", "smaller learning rate");
            assert_memory_equal(before, trainer->parameters.values, size);
        }
        free(before);
        if (i == 1) TOLD(pg_trainer_save(trainer, saved), PG_ERROR_FORMAT, "after 1 updates", "an older state");
        pg_trainer_close(&trainer);
        OK(pg_trainer_resume(models[i].model, saved, &options, &kept));
        pg_trainer_close(&kept);
        pg_inputs_close(&in);
    }
}

/* torch's padding_idx: the row of the padding token learns nothing. */
static void the_padding_id_learns_nothing(void **state) {
    const tiny *m = &models[0];
    pg_trainer_options options = training_of("embed_tokens", NULL);
    batch b;
    pg_inputs *in = NULL;
    pg_parameter p = {.struct_size = sizeof p};
    (void)state;
    options.accumulation = 2;
    pg_trainer *trainer = train(m->model, &options);
    make_batch(&b, m, rows, 1, LEFT, 0);
    b.ids[b.n_tokens - 3] = 0, b.ids[b.n_tokens - 2] = 5;
    OK(create(&b, m, 0, NULL, &in));
    step(trainer, in);
    OK(pg_trainer_get_parameter(trainer, 0, &p));
    assert_non_null(strstr(p.name, "lora_embedding_A"));
    assert_true(p.gradient[0] == 0 && p.gradient[5] != 0);
    pg_inputs_close(&in);
    pg_trainer_close(&trainer);
    free(b.pixels);
}

/* ------------------------------------------------------------------------------------------------------- progress */

typedef struct watch {
    int64_t n_calls, stop_at, done, total;
    const char *wrong;
} watch;

static int32_t on_progress(void *user, int32_t phase, int64_t done, int64_t total) {
    watch *w = user;
    if (phase != PG_PHASE_TRAIN) w->wrong = "another phase";
    if (done < w->done || done > total || (w->total && w->total != total)) w->wrong = "it goes back";
    w->done = done, w->total = total;
    return ++w->n_calls == w->stop_at;
}

/* It never goes back; each of its calls may end a step, which leaves nothing behind. */
static void progress_goes_forward(void **state) {
    static const char *const chosen[] = {ALL_LORA, "multi_modal_projector.linear", "regex:.*language_model.*q_proj",
                                         "lm_head"};
    (void)state;
    for (int i = 0; i < 12; i++) { /* the last four: texts alone */
        static const row_spec texts[] = {{0, 4, 3, 1}, {0, 5, 3, 2}, {0, 2, 4, 3}};
        const char *const targets = chosen[i / 2 % 4];
        const tiny *m = &models[i % 2];
        watch w = {0};
        pg_inputs *in = i < 8 ? inputs_of(m, rows, N_ROWS, LEFT) : inputs_of(m, texts, N_ROWS, LEFT);
        pg_trainer_options options = training_of(targets, NULL);
        pg_trainer *other = train(m->model, &options);
        options.progress = on_progress, options.progress_user = &w;
        pg_trainer *trainer = train(m->model, &options);
        for (int learns = 0; learns < 2; learns++) {
            w = (watch){0};
            pg_trainer *counting = train(m->model, &options);
            OK(learns ? pg_trainer_step(counting, in, NULL) : pg_trainer_evaluate(counting, in, NULL));
            pg_trainer_close(&counting);
            if (w.wrong || w.done != w.total || w.n_calls < 6)
                fail_msg("%s: %s, ends at %lld of %lld", targets, w.wrong ? w.wrong : "", (long long)w.done,
                         (long long)w.total);
            const int64_t n_calls = w.n_calls;
            for (int64_t at = 1; at <= n_calls; at++) {
                w = (watch){.stop_at = at};
                TOLD(learns ? pg_trainer_step(trainer, in, NULL) : pg_trainer_evaluate(trainer, in, NULL),
                     PG_ERROR_CANCELLED, "cancelled", "");
                assert_int_equal(w.n_calls, at);
                expect_same_values(trainer, other);
            }
        }
        w = (watch){0};
        step(trainer, in);
        step(other, in);
        expect_same_values(trainer, other);
        pg_trainer_close(&trainer);
        pg_trainer_close(&other);
        pg_inputs_close(&in);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(evaluation_is_that_of_forward),
        cmocka_unit_test(training_learns),
        cmocka_unit_test(the_bits_are_the_same),
        cmocka_unit_test(accumulation_is_one_batch),
        cmocka_unit_test(dropout_follows_the_seed),
        cmocka_unit_test(what_is_saved_is_an_adapter),
        cmocka_unit_test(a_resumed_training_has_the_same_bits),
        cmocka_unit_test(other_states_are_refused),
        cmocka_unit_test(bad_options_are_told),
        cmocka_unit_test(an_adapted_model_is_refused),
        cmocka_unit_test(parameters_are_shown),
        cmocka_unit_test(bad_inputs_are_told),
        cmocka_unit_test(missing_arguments_are_told),
        cmocka_unit_test(a_training_that_diverged_is_told),
        cmocka_unit_test(the_padding_id_learns_nothing),
        cmocka_unit_test(progress_goes_forward),
    };
    return RUN_TESTS(tests, open_all, close_all);
}
