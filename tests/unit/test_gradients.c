/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Gradients of pg_trainer_step() against differences of the loss, of every kind of module that is trained, on every
 * format of the weights, with dropout; and dropout itself, of one layer.
 *
 * Along a direction d of length 1 the loss rises by its gradient g times d. Two directions show what is wrong: g
 * itself, along which the loss rises most, and one of random signs, along which what g lacks is missed.
 */
#include "run_tests.h"

#include "kernels/kernels.h"
#include "train/matmul.h"
#include "training_fixture.h"

#define LOSS_NOISE 6e-7 /* of sums in f32: the loss is some 6, and a mean of labels */
#define WITHIN 1e-3     /* of the gradient's length */

typedef struct differences {
    pg_trainer *trainer;
    const pg_inputs *in;
    int drops;        /* the loss is that of a step, with dropout */
    float *gradients; /* [n_values]: of the mean loss */
    float *kept;      /* [n_values] */
} differences;

/* The loss of the first call, without an update. */
static double step_loss(const differences *d) {
    pg_train_result result = {.struct_size = sizeof result};
    d->trainer->n_calls = d->trainer->n_labels = 0;
    OK(pg_trainer_step(d->trainer, d->in, &result));
    assert_int_equal(result.updated, 0);
    return result.loss;
}

static double loss_here(const differences *d) {
    pg_train_result result = {.struct_size = sizeof result};
    if (d->drops) return step_loss(d);
    OK(pg_trainer_evaluate(d->trainer, d->in, &result));
    return result.loss;
}

/* By how much the loss rises along direction [n], of length 1, of the values at .. at + n: from four places, so that
 * its third derivative does not count. */
static double slope(const differences *d, size_t at, size_t n, const float *direction, double step) {
    static const double places[4] = {-2, -1, 1, 2}, weights[4] = {1, -8, 8, -1};
    float *values = d->trainer->parameters.values + at;
    double sum = 0;
    memcpy(d->kept, values, n * sizeof *values);
    for (int k = 0; k < 4; k++) {
        for (size_t i = 0; i < n; i++) values[i] = d->kept[i] + (float)(places[k] * step) * direction[i];
        sum += weights[k] * loss_here(d);
    }
    memcpy(values, d->kept, n * sizeof *values);
    return sum / (12 * step);
}

static double norm_of(const float *x, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)x[i] * x[i];
    return sqrt(sum);
}

/* A bias of keys adds the same to all scores of a query: it has no gradient. */
static int has_none(const char *name) {
    static const char end[] = "k_proj.bias";
    return strlen(name) > sizeof end && strcmp(name + strlen(name) + 1 - sizeof end, end) == 0;
}

static void expect_slopes(const differences *d, const char *name, size_t at, size_t n) {
    const float *g = d->gradients + at;
    const double length = norm_of(g, n), step = 0.01 / (0.5 + length); /* less where the loss bends more */
    float *direction = calloc(n, sizeof *direction);
    rng r = {at + 1};
    assert_non_null(direction);
    if ((length < 1e-5) != has_none(name)) fail_msg("%s: the gradient's length is %g", name, length);
    for (int random = 0; random < 2; random++) {
        double wanted = 0;
        for (size_t i = 0; i < n; i++) {
            direction[i] = random ? rng_unit(&r) : g[i];
        }
        const double of_direction = norm_of(direction, n);
        for (size_t i = 0; i < n; i++) {
            direction[i] = (float)(direction[i] / of_direction);
            wanted += (double)direction[i] * g[i];
        }
        const double found = slope(d, at, n, direction, step);
        if (getenv("GRADIENTS_VERBOSE"))
            printf("%-90s %d %.6f %.6f  %.5f\n", name, random, wanted, found, (found - wanted) / length);
        if (!(fabs(found - wanted) <= WITHIN * length + LOSS_NOISE / step))
            fail_msg("%s, direction %d: the loss rises by %.7f, by the gradient it is %.7f, of length %.7f", name,
                     random, found, wanted, length);
    }
    free(direction);
}

/* each: every parameter alone, too. */
static void check(const pg_model *of, const pg_trainer_options *given, const pg_inputs *in, int each) {
    pg_trainer_options options = *given;
    options.accumulation = 1 << 20;
    differences d = {.trainer = train(of, &options), .in = in, .drops = options.dropout > 0};
    const pgi_parameters *p = &d.trainer->parameters;
    shake(d.trainer, 0.1f, 5);
    d.gradients = calloc(p->n_values, sizeof(float));
    d.kept = calloc(p->n_values, sizeof(float));
    assert_true(d.gradients && d.kept);
    step_loss(&d);
    for (size_t i = 0; i < p->n_values; i++) d.gradients[i] = p->gradients[i] / (float)d.trainer->n_labels;
    expect_slopes(&d, "all", 0, p->n_values);
    for (size_t i = 0; i < p->n && each; i++) expect_slopes(&d, p->list[i].name, p->list[i].at, p->list[i].n);
    free(d.gradients);
    free(d.kept);
    pg_trainer_close(&d.trainer);
}

static const row_spec rows[] = {{1, 3, 4, 1}, {0, 5, 3, 2}, {1, 2, 5, 3}};
enum { N_ROWS = sizeof rows / sizeof *rows };

static void of_every_module(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        pg_inputs *in = inputs_of(&models[i], rows, N_ROWS, LEFT);
        const pg_trainer_options lora = training_of(ALL_LORA, NULL), whole = training_of(NULL, ALL_WHOLE);
        check(models[i].model, &lora, in, 1);
        check(models[i].model, &whole, in, 1);
        pg_inputs_close(&in);
    }
}

/* QLoRA: the numbers that int8 and int4 stand for are multiplied. */
static void on_quantized_weights(void **state) {
    (void)state;
    for (int32_t weights = PG_WEIGHTS_INT8; weights <= PG_WEIGHTS_INT4; weights++)
        for (int i = 0; i < 2; i++) {
            pg_model *base = open_format(&models[i], weights);
            pg_inputs *in = inputs_of(&models[i], rows, N_ROWS, RIGHT);
            const pg_trainer_options lora = training_of(ALL_LORA, NULL), whole = training_of(NULL, ALL_WHOLE);
            check(base, &lora, in, 0);
            check(base, &whole, in, 0);
            pg_inputs_close(&in);
            pg_model_close(&base);
        }
}

/* What is trained decides how far down gradients go. */
static void of_one_module_alone(void **state) {
    static const struct {
        const char *lora, *whole;
    } choices[] = {
        {"lm_head", NULL},
        {NULL, "language_model.norm"},
        {"regex:.*language_model.layers.1.*down_proj", NULL},
        {"regex:.*language_model.layers.1.*v_proj", NULL},
        {NULL, "language_model.layers.1.input_layernorm"},
        {NULL, "language_model.layers.1.post_attention_layernorm"},
        {"regex:.*language_model.layers.0.*up_proj", NULL},
        {NULL, "language_model.layers.0.input_layernorm"},
        {"embed_tokens", NULL},
        {"multi_modal_projector.linear", NULL},
        {NULL, "multi_modal_projector"},
        {NULL, "post_layernorm"},
        {"regex:.*encoder.layers.1.*fc2", NULL},
        {NULL, "encoder.layers.1.layer_norm1"},
        {"regex:.*encoder.layers.0.*k_proj", NULL},
        {"position_embedding", NULL},
        {NULL, "position_embedding"},
        {"patch_embedding", NULL},
        {NULL, "patch_embedding"},
        {"regex:.*encoder.layers.1.*fc1|.*patch_embedding", NULL}, /* a layer without parameters lies between */
        {"regex:.*encoder.layers.1.*fc1|.*position_embedding", NULL},
        {"q_proj,v_proj", "q_proj,norm"},
        {"regex:.*language_model.layers.1.*o_proj", "encoder.layers.1.mlp"}};
    (void)state;
    for (size_t c = 0; c < sizeof choices / sizeof *choices; c++) {
        const tiny *m = &models[c % 2];
        pg_inputs *in = inputs_of(m, rows, N_ROWS, LEFT);
        pg_trainer_options options = training_of(choices[c].lora, choices[c].whole);
        options.flags = c % 3 ? PG_TRAIN_CHECKPOINT : PG_TRAIN_RSLORA;
        check(m->model, &options, in, 0);
        pg_inputs_close(&in);
    }
}

/* The same draw there and back, of each row, image and layer. */
static void with_dropout(void **state) {
    (void)state;
    for (int i = 0; i < 4; i++) {
        const tiny *m = &models[i % 2];
        pg_inputs *in = inputs_of(m, rows, N_ROWS, LEFT);
        pg_trainer_options options = training_of(ALL_LORA, "multi_modal_projector,language_model.norm");
        options.dropout = 0.3;
        options.flags = i < 2 ? 0 : PG_TRAIN_CHECKPOINT;
        check(m->model, &options, in, 0);
        pg_inputs_close(&in);
    }
}

/* Without types all of a row is seen, or what is before; given embeddings have no rows of a table. */
static void of_other_inputs(void **state) {
    enum { N_EMBEDS = MAX_ROWS * MAX_TOKENS * 32 };
    static float embeds[N_EMBEDS];
    rng r = {4};
    (void)state;
    for (int i = 0; i < N_EMBEDS; i++) embeds[i] = rng_unit(&r);
    for (int i = 0; i < 4; i++) {
        const tiny *m = &models[i % 2];
        const pg_trainer_options options = training_of(ALL_LORA, NULL), text = training_of("v_proj,gate_proj", NULL);
        const row_spec alone = {0, 6, 4, 9};
        batch b;
        pg_inputs *in = NULL;
        make_batch(&b, m, i < 2 ? rows : &alone, i < 2 ? N_ROWS : 1, RIGHT, 0);
        OK(create(&b, m, i < 2 ? WITHOUT_TYPES : WITHOUT_IDS, embeds, &in));
        if (i < 2) check(m->model, &options, in, 0);
        if (i >= 2) {
            pg_trainer_options of_text = text;
            of_text.target_modules = "regex:.*language_model.*(v_proj|gate_proj)";
            check(m->model, &of_text, in, 0);
        }
        pg_inputs_close(&in);
        free(b.pixels);
    }
}

/* Puts a number in the place of another of as many digits. */
static void change_config(const char *of, const char *old, const char *number) {
    bytes config = read_file(of, "config.json");
    char *at = strstr((char *)config.data, old);
    assert_non_null(at);
    memcpy(at + strlen(old) - strlen(number), number, strlen(number));
    write_file(of, "config.json", config.data, config.size);
    bytes_free(&config);
}

/* Those of Gemma 2 are far above what a tiny model's scores and logits are. */
static void under_soft_caps(void **state) {
    tiny m = {.model = NULL};
    const tiny_options made = tiny_saved_today();
    const pg_trainer_options lora = training_of(ALL_LORA, NULL), whole = training_of(NULL, ALL_WHOLE);
    (void)state;
    make_temp_folder(m.folder, sizeof m.folder);
    tiny_write(m.folder, &made);
    change_config(m.folder, "\"attn_logit_softcapping\":50.0", "0.30");
    change_config(m.folder, "\"final_logit_softcapping\":30.0", "1.00");
    open_tiny(&m, NULL, NULL);
    pg_inputs *in = inputs_of(&m, rows, N_ROWS, LEFT);
    check(m.model, &lora, in, 0);
    check(m.model, &whole, in, 0);
    pg_inputs_close(&in);
    close_tiny(&m);
}

/* More tokens than attention's gradients take at once, more labels than the head does, and more patches. */
static void of_long_rows(void **state) {
    char suffix[400] = "";
    const char *const prompts[] = {"the cat"}, *const suffixes[] = {suffix};
    (void)state;
    for (int i = 0; i < 40; i++) strcat(suffix, i % 3 ? "a cat " : "in ");
    for (int i = 0; i < 2; i++) {
        tiny m = {.model = NULL};
        tiny_options made = i ? tiny_saved_today() : tiny_official();
        pg_batch all;
        pg_image image;
        pg_inputs *in = NULL;
        pg_train_result result = {.struct_size = sizeof result};
        bytes file = tiny_image(IMAGE_PNG, 70, 60, 3);
        made.image_size = 72; /* 324 patches */
        made.n_layers = 1 + i;
        made.head = TINY_HEAD_BOTH;
        open_tiny(&m, &made, NULL);
        OK(pg_image_from_bytes(&image, sizeof image, file.data, file.size));
        OK(pg_batch_init(&all, sizeof all));
        all.n_prompts = all.n_suffixes = all.n_images = 1;
        all.prompts = prompts, all.suffixes = suffixes, all.images = &image;
        OK(pg_processor_encode_batch(m.processor, &all, NULL, &in));
        pg_trainer_options options = training_of(ALL_LORA, NULL);
        options.n_threads = 2;
        pg_trainer *trainer = train(m.model, &options);
        OK(pg_trainer_evaluate(trainer, in, &result));
        assert_true(result.n_labels > 2 * PGI_TRAIN_LABELS && result.n_tokens > 324 + 64);
        pg_trainer_close(&trainer);
        check(m.model, &options, in, 0);
        pg_inputs_close(&in);
        bytes_free(&file);
        close_tiny(&m);
    }
}

/* ------------------------------------------------------------------------------------------------------- one layer */

enum { WIDTH = 48, N_LAYER_ROWS = 40, N_VALUES = WIDTH * N_LAYER_ROWS };

/* A layer of zeros with A and B that are 1: y is the dropout of x, and dx that of dy. */
typedef struct layer {
    pgi_kernels kernels;
    pgi_run run;
    pgi_parameters parameters;
    float zeros[WIDTH * WIDTH], dropped[N_VALUES], low[2 * N_VALUES];
    pgi_trained_linear linear;
    pgi_train_pass pass;
    void *scratch;
} layer;

static void make_layer(layer *l, double dropout) {
    memset(l, 0, sizeof *l);
    OK(pgi_kernels_init(&l->kernels, 0));
    l->run = (pgi_run){.kernels = &l->kernels, .n_threads = 1};
    pgi_parameters_init(&l->parameters, &pgi_memory_default);
    OK(pgi_parameters_add(&l->parameters, "a", 2, (int64_t[]){WIDTH, WIDTH}, 1));
    OK(pgi_parameters_add(&l->parameters, "b", 2, (int64_t[]){WIDTH, WIDTH}, 1));
    OK(pgi_parameters_make(&l->parameters));
    l->linear.frozen.weight = (pgi_matrix){l->zeros, PG_DTYPE_F32, WIDTH, WIDTH, NULL};
    l->linear.a = pgi_parameters_find(&l->parameters, "a");
    l->linear.b = pgi_parameters_find(&l->parameters, "b");
    l->linear.rank = WIDTH;
    l->linear.scale = 1;
    for (size_t i = 0; i < WIDTH; i++)
        l->parameters.values[l->linear.a->at + i * (WIDTH + 1)] =
            l->parameters.values[l->linear.b->at + i * (WIDTH + 1)] = 1;
    l->scratch = pgi_alloc(&pgi_memory_default, pgi_matmul_scratch(&l->kernels, 1), 1);
    assert_non_null(l->scratch);
    l->pass = (pgi_train_pass){.run = &l->run,
                               .parameters = &l->parameters,
                               .dropout = dropout,
                               .dropout_key = 5,
                               .matmul = l->scratch,
                               .dropped = l->dropped,
                               .low = l->low,
                               .low_gradient = l->low + N_VALUES};
}

static void free_layer(layer *l) {
    pgi_free(&pgi_memory_default, l->scratch);
    pgi_parameters_free(&l->parameters);
}

/* Which values of ones are dropped; the others are 1 / (1 - p). */
static int64_t count_dropped(const layer *l, const float *y) {
    const float kept = (float)(1 / (1 - l->pass.dropout));
    int64_t n = 0;
    for (int i = 0; i < N_VALUES; i++) {
        assert_true(y[i] == 0 || fabsf(y[i] - kept) < 1e-5f * kept);
        n += y[i] == 0;
    }
    return n;
}

/* The share that is dropped is p within 5 standard deviations, so the mean is kept; each layer, row of the batch and
 * call has its own; a layer that is run again the same; gradients pass where values did. */
static void dropout_keeps_the_mean(void **state) {
    static const double chances[] = {0.05, 0.5, 0.9};
    static float ones[N_VALUES], y[4][N_VALUES], dx[N_VALUES];
    static layer l;
    (void)state;
    for (int i = 0; i < N_VALUES; i++) ones[i] = 1;
    for (int c = 0; c < 3; c++) {
        const double p = chances[c], most = 5 * sqrt(N_VALUES * p * (1 - p));
        make_layer(&l, p);
        for (int i = 0; i < 4; i++) {
            l.linear.index = i == 2 ? 1 : 0;
            l.pass.dropout_key = i == 3 ? 6 : 5;
            OK(pgi_train_linear(&l.pass, &l.linear, ones, N_LAYER_ROWS, y[i]));
            assert_true(fabs((double)count_dropped(&l, y[i]) - p * N_VALUES) <= most);
        }
        assert_memory_equal(y[0], y[1], sizeof *y);
        for (int other = 2; other < 4; other++) {
            int64_t n_both = 0;
            for (int i = 0; i < N_VALUES; i++) n_both += y[0][i] == 0 && y[other][i] == 0;
            assert_true(fabs((double)n_both - p * p * N_VALUES) <= 5 * sqrt(N_VALUES * p * p * (1 - p * p)));
        }
        OK(pgi_train_linear_back(&l.pass, &l.linear, ones, N_LAYER_ROWS, ones, dx, 0));
        assert_memory_equal(dx, y[3], sizeof dx);
        free_layer(&l);
    }
}

/* tiny.h has models of one activation alone. */
static void of_activations(void **state) {
    enum { N = 2001 };
    static float x[N], above[N], below[N], ones[N], dx[N];
    static const int32_t kinds[] = {PGI_ACTIVATION_GELU_TANH, PGI_ACTIVATION_GELU_ERF, PGI_ACTIVATION_SILU,
                                    PGI_ACTIVATION_RELU};
    const float h = 1.0f / 128;
    pgi_kernels kernels;
    (void)state;
    OK(pgi_kernels_init(&kernels, 0));
    const pgi_run run = {.kernels = &kernels, .n_threads = 1};
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        for (int i = 0; i < N; i++) {
            x[i] = (float)(i - N / 2) / 128 + h / 2; /* not where ReLU bends */
            above[i] = x[i] + h / 4, below[i] = x[i] - h / 4, ones[i] = 1;
        }
        OK(pgi_activate(&run, kinds[k], above, N));
        OK(pgi_activate(&run, kinds[k], below, N));
        OK(pgi_train_activation_back(&run, kinds[k], x, N, ones, dx));
        for (int i = 0; i < N; i++) { /* two values of up to 8, in f32, through h / 2 */
            const double found = ((double)above[i] - (double)below[i]) / (h / 2);
            if (!(fabs(found - dx[i]) < 5e-4))
                fail_msg("activation %d at %g: %g, expected %g", kinds[k], x[i], dx[i], found);
        }
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(of_every_module),     cmocka_unit_test(on_quantized_weights),
        cmocka_unit_test(of_one_module_alone), cmocka_unit_test(with_dropout),
        cmocka_unit_test(of_other_inputs),     cmocka_unit_test(under_soft_caps),
        cmocka_unit_test(of_long_rows),        cmocka_unit_test(dropout_keeps_the_mean),
        cmocka_unit_test(of_activations),
    };
    return RUN_TESTS(tests, open_models, close_models);
}
