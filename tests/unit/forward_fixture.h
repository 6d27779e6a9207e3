/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What the tests of forward and of generation share: two tiny models, and batches of rows that follow from seeds.
 * run_tests.h comes before it. */
#ifndef TESTS_UNIT_FORWARD_FIXTURE_H
#define TESTS_UNIT_FORWARD_FIXTURE_H

#include <math.h>

#include "api_fixture.h"

enum { WINDOW = 6, MAX_ROWS = 8, MAX_TOKENS = 80 };

typedef struct tiny {
    char folder[512];
    pg_model *model;
    pg_processor *processor;
    pg_model_info info;
    int64_t image_id, hidden, n_layers;
} tiny;

static tiny models[2]; /* Gemma, bf16; Gemma 2, f32, with a window of WINDOW tokens */

static inline void open_tiny(tiny *m, const tiny_options *options, counter *memory) {
    pg_model_options model_options;
    pg_processor_options processor_options;
    OK(pg_model_options_init(&model_options, sizeof model_options));
    OK(pg_processor_options_init(&processor_options, sizeof processor_options));
    if (memory) model_options.allocator = processor_options.allocator = &memory->hooks;
    if (options) {
        make_temp_folder(m->folder, sizeof m->folder);
        tiny_write(m->folder, options);
        bytes config = read_file(m->folder, "config.json");
        char *window = strstr((char *)config.data, "\"sliding_window\":4096");
        if (window) memcpy(window, "\"sliding_window\":   6", strlen("\"sliding_window\":4096"));
        write_file(m->folder, "config.json", config.data, config.size);
        bytes_free(&config);
    }
    OK(pg_model_open(m->folder, &model_options, &m->model));
    OK(pg_processor_open(m->folder, &processor_options, &m->processor));
    m->info.struct_size = sizeof m->info;
    OK(pg_model_get_info(m->model, &m->info));
    OK(pg_model_get_config_int(m->model, "image_token_index", &m->image_id));
    OK(pg_model_get_config_int(m->model, "text_config.hidden_size", &m->hidden));
    OK(pg_model_get_config_int(m->model, "text_config.num_hidden_layers", &m->n_layers));
}

/* With its folder. */
static inline void close_tiny(tiny *m) {
    pg_model_close(&m->model);
    pg_processor_close(&m->processor);
    remove_folder(m->folder);
}

static inline int open_models(void **state) {
    tiny_options options[2] = {tiny_official(), tiny_saved_today()};
    (void)state;
    options[0].head = options[1].head = TINY_HEAD_BOTH; /* a tied head would mostly say the last token again */
    for (int i = 0; i < 2; i++) open_tiny(&models[i], &options[i], NULL);
    int64_t window;
    OK(pg_model_get_config_int(models[1].model, "text_config.sliding_window", &window));
    return window == WINDOW ? 0 : -1;
}

static inline int close_models(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) close_tiny(&models[i]);
    return 0;
}

/* The folder opened with PG_WEIGHTS_*. */
static inline pg_model *open_format(const tiny *m, int32_t weights) {
    pg_model *opened = NULL;
    pg_model_options options;
    OK(pg_model_options_init(&options, sizeof options));
    options.weights = weights;
    OK(pg_model_open(m->folder, &options, &opened));
    return opened;
}

/* ------------------------------------------------------------------------------------------------------ batches */

enum { LEFT, RIGHT };

/* A row's ids follow from its seed: its images, n_prefix text tokens, n_suffix more. */
typedef struct row_spec {
    int n_images, n_prefix, n_suffix;
    uint64_t seed;
} row_spec;

typedef struct batch {
    int64_t n_rows, n_tokens, n_images;
    const int64_t *positions;                  /* [n_rows, n_tokens], or NULL: not given */
    int64_t first[MAX_ROWS], length[MAX_ROWS]; /* of the tokens of each row */
    int64_t ids[MAX_ROWS * MAX_TOKENS], mask[MAX_ROWS * MAX_TOKENS], types[MAX_ROWS * MAX_TOKENS],
        labels[MAX_ROWS * MAX_TOKENS];
    float *pixels;
} batch;

static const row_spec specs[] = {{1, 4, 5, 1}, {0, 7, 3, 2}, {2, 3, 9, 3}, {1, 9, 0, 4},
                                 {0, 5, 1, 5}, {1, 6, 7, 6}, {0, 12, 2, 7}};

static int64_t length_of(const tiny *m, const row_spec *row) {
    return (int64_t)row->n_images * m->info.n_image_tokens + row->n_prefix + row->n_suffix;
}

/* n rows, `extra` tokens of padding more than the longest needs. */
static inline void make_batch(batch *b, const tiny *m, const row_spec *rows, int n, int side, int extra) {
    int64_t side_pixels = 3 * (int64_t)m->info.image_size * m->info.image_size, image = 0;
    memset(b, 0, sizeof *b);
    b->n_rows = n;
    for (int r = 0; r < n; r++) {
        if (length_of(m, &rows[r]) > b->n_tokens) b->n_tokens = length_of(m, &rows[r]);
        b->n_images += rows[r].n_images;
    }
    b->n_tokens += extra;
    assert_true(n <= MAX_ROWS && b->n_tokens <= MAX_TOKENS);
    b->pixels = calloc((size_t)(b->n_images + 1), (size_t)side_pixels * sizeof(float));
    for (int r = 0; r < n; r++) {
        rng random = {rows[r].seed}, of_pixels = {rows[r].seed + 1000};
        int64_t n_image_tokens = (int64_t)rows[r].n_images * m->info.n_image_tokens;
        b->length[r] = length_of(m, &rows[r]);
        b->first[r] = side == LEFT ? b->n_tokens - b->length[r] : 0;
        for (int64_t t = 0; t < b->n_tokens; t++) b->labels[r * b->n_tokens + t] = -100;
        for (int64_t k = 0; k < b->length[r]; k++) {
            int64_t at = r * b->n_tokens + b->first[r] + k;
            /* the ids above the image's have no piece */
            b->ids[at] = k < n_image_tokens ? m->image_id : 4 + (int64_t)rng_below(&random, (uint64_t)m->image_id - 4);
            b->mask[at] = 1;
            b->types[at] = k >= b->length[r] - rows[r].n_suffix;
            if (b->types[at]) b->labels[at] = b->ids[at];
        }
        for (int64_t i = 0; i < rows[r].n_images * side_pixels; i++) b->pixels[image++] = rng_unit(&of_pixels);
    }
}

enum { WITHOUT_TYPES = 1, WITHOUT_LABELS = 2, WITHOUT_PIXELS = 4, WITHOUT_IDS = 8, WITHOUT_MASK = 16 };

/* embeds: given in place of ids with WITHOUT_IDS. */
static inline pg_status create(const batch *b, const tiny *m, int without, const float *embeds, pg_inputs **out) {
    const int64_t size = m->info.image_size;
    pg_tensor numbers[5], pixels = {.struct_size = sizeof pixels,
                                    .dtype = PG_DTYPE_F32,
                                    .n_dims = 4,
                                    .shape = {b->n_images, 3, size, size},
                                    .data = b->pixels};
    pg_tensor rows = {.struct_size = sizeof rows,
                      .dtype = PG_DTYPE_F32,
                      .n_dims = 3,
                      .shape = {b->n_rows, b->n_tokens, m->hidden, 1},
                      .data = embeds};
    const int64_t *data[5] = {b->ids, b->mask, b->types, b->labels, b->positions};
    for (int i = 0; i < 5; i++)
        numbers[i] = (pg_tensor){.struct_size = sizeof numbers[i],
                                 .dtype = PG_DTYPE_I64,
                                 .n_dims = 2,
                                 .shape = {b->n_rows, b->n_tokens, 1, 1},
                                 .data = data[i]};
    pg_input_arrays arrays;
    OK(pg_input_arrays_init(&arrays, sizeof arrays));
    arrays.input_ids = without & WITHOUT_IDS ? NULL : &numbers[0];
    arrays.inputs_embeds = without & WITHOUT_IDS ? &rows : NULL;
    arrays.attention_mask = without & WITHOUT_MASK ? NULL : &numbers[1];
    arrays.token_type_ids = without & WITHOUT_TYPES ? NULL : &numbers[2];
    arrays.labels = without & WITHOUT_LABELS ? NULL : &numbers[3];
    arrays.position_ids = b->positions ? &numbers[4] : NULL;
    arrays.pixel_values = b->n_images > 0 && !(without & WITHOUT_PIXELS) ? &pixels : NULL;
    return pg_inputs_create(&arrays, out);
}

static inline pg_forward_options options_of(uint32_t flags) {
    pg_forward_options options;
    OK(pg_forward_options_init(&options, sizeof options));
    options.flags = flags;
    options.n_threads = 1;
    return options;
}

static inline pg_outputs *forward(const tiny *m, const batch *b, int without, uint32_t flags) {
    pg_forward_options options = options_of(flags);
    pg_inputs *in = NULL;
    pg_outputs *out = NULL;
    OK(create(b, m, without, NULL, &in));
    OK(pg_forward(m->model, in, &options, &out));
    pg_inputs_close(&in);
    return out;
}

/* What retrieval and action heads take. */
static inline pg_status embed(const pg_model *of, const pg_inputs *in, pg_outputs **out) {
    pg_forward_options options = options_of(PG_FORWARD_EMBEDDINGS);
    return pg_forward(of, in, &options, out);
}

/* The tensor's values; its shape must be as given. */
static inline const float *get(const pg_outputs *out, const char *name, int n_dims, int64_t a, int64_t b, int64_t c,
                               int64_t d) {
    const int64_t shape[4] = {a, b, c, d};
    pg_tensor tensor = {.struct_size = sizeof tensor};
    OK(pg_outputs_get_tensor(out, name, &tensor));
    assert_int_equal(tensor.dtype, PG_DTYPE_F32);
    assert_int_equal(tensor.n_dims, n_dims);
    for (int i = 0; i < 4; i++) assert_int_equal(tensor.shape[i], shape[i]);
    return tensor.data;
}

static inline const float *logits_of(const pg_outputs *out, const batch *b, const tiny *m) {
    return get(out, "logits", 3, b->n_rows, b->n_tokens, m->info.vocab_size, 1);
}

static inline float loss_of(const pg_outputs *out) { return *get(out, "loss", 1, 1, 1, 1, 1); }

static inline void expect_close(const float *found, const float *wanted, int64_t n, double bound) {
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        difference += ((double)found[i] - wanted[i]) * ((double)found[i] - wanted[i]);
        norm += (double)wanted[i] * wanted[i];
    }
    if (!(sqrt(difference) <= bound * sqrt(norm)))
        fail_msg("relative distance %g, expected at most %g", sqrt(difference / norm), bound);
}

/* -------------------------------------------------------------------------------------------------- generation */

enum { NEW_TOKENS = 7 };

typedef struct heard {
    bytes text[MAX_ROWS];
    int n_tokens[MAX_ROWS];
    int64_t stop_row; /* that row is stopped at its third token */
} heard;

static int32_t hear(void *user, int64_t row, const char *text, size_t size, int64_t token) {
    heard *h = user;
    (void)token;
    bytes_add(&h->text[row], text, size);
    assert_int_equal(text[size], 0);
    return ++h->n_tokens[row] == 3 && row == h->stop_row;
}

static inline pg_result *generate(const tiny *m, const batch *b, int without, int n_threads, heard *h) {
    pg_generate_options options;
    pg_inputs *in = NULL;
    pg_result *result = NULL;
    OK(pg_generate_options_init(&options, sizeof options));
    options.max_new_tokens = NEW_TOKENS;
    options.n_threads = n_threads;
    if (h) {
        options.on_text = hear;
        options.on_text_user = h;
    }
    OK(create(b, m, without, NULL, &in));
    OK(pg_generate(m->model, m->processor, in, &options, &result));
    pg_inputs_close(&in);
    return result;
}

static inline void same_row(const pg_result *a, int64_t row_a, const pg_result *b, int64_t row_b) {
    pg_tensor x = {.struct_size = sizeof x}, y = x;
    pg_result_info i = {.struct_size = sizeof i}, j = i;
    OK(pg_result_get_ids(a, row_a, &x));
    OK(pg_result_get_ids(b, row_b, &y));
    assert_int_equal(x.shape[0], y.shape[0]);
    assert_memory_equal(x.data, y.data, (size_t)x.shape[0] * sizeof(int64_t));
    assert_string_equal(pg_result_get_text(a, row_a), pg_result_get_text(b, row_b));
    OK(pg_result_get_info(a, row_a, &i));
    OK(pg_result_get_info(b, row_b, &j));
    assert_int_equal(i.stop, j.stop);
    assert_int_equal(i.n_prompt_tokens, j.n_prompt_tokens);
    assert_int_equal(i.n_new_tokens, x.shape[0]);
}

#endif
