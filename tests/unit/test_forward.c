/*
 * pg_forward, pg_embed, pg_generate on batches and sessions with a suffix, on tiny random models: what must be equal to
 * something else of this library. That the numbers are the reference's is for tests/oracle and tests/golden.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>

#include "api_fixture.h"
#include "generate/answers.h"

enum { WINDOW = 6, MAX_ROWS = 8, MAX_TOKENS = 80 };

typedef struct tiny {
    char folder[512];
    pg_model *model;
    pg_processor *processor;
    pg_model_info info;
    int64_t image_id, hidden, n_layers;
} tiny;

static tiny models[2]; /* Gemma, bf16; Gemma 2, f32, with a window of WINDOW tokens */

static void open_tiny(tiny *m, const tiny_options *options, counter *memory) {
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
    OK(pg_model_config_int(m->model, "image_token_index", &m->image_id));
    OK(pg_model_config_int(m->model, "text_config.hidden_size", &m->hidden));
    OK(pg_model_config_int(m->model, "text_config.num_hidden_layers", &m->n_layers));
}

static int open_models(void **state) {
    tiny_options options[2] = {tiny_official(), tiny_saved_today()};
    (void)state;
    options[0].head = options[1].head = TINY_HEAD_BOTH; /* a tied head would mostly say the last token again */
    for (int i = 0; i < 2; i++) open_tiny(&models[i], &options[i], NULL);
    int64_t window;
    OK(pg_model_config_int(models[1].model, "text_config.sliding_window", &window));
    return window == WINDOW ? 0 : -1;
}

static int close_models(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        pg_model_close(&models[i].model);
        pg_processor_close(&models[i].processor);
        remove_folder(models[i].folder);
    }
    return 0;
}

/* ------------------------------------------------------------------------------------------------------ batches */

enum { LEFT, RIGHT };

/* A row's ids follow from its seed: its pictures, n_prefix text tokens, n_suffix more. */
typedef struct row_spec {
    int n_images, n_prefix, n_suffix;
    uint64_t seed;
} row_spec;

typedef struct batch {
    int64_t n_rows, n_tokens, n_images;
    int64_t first[MAX_ROWS], length[MAX_ROWS]; /* of the tokens of each row */
    int64_t ids[MAX_ROWS * MAX_TOKENS], mask[MAX_ROWS * MAX_TOKENS], types[MAX_ROWS * MAX_TOKENS],
        labels[MAX_ROWS * MAX_TOKENS];
    float *pixels;
} batch;

static const row_spec specs[] = {{1, 4, 5, 1}, {0, 7, 3, 2}, {2, 3, 9, 3}, {1, 9, 0, 4}, {0, 5, 1, 5}, {1, 6, 7, 6},
                                 {0, 12, 2, 7}};

static int64_t length_of(const tiny *m, const row_spec *row) {
    return (int64_t)row->n_images * m->info.n_image_tokens + row->n_prefix + row->n_suffix;
}

/* n rows, `extra` tokens of padding more than the longest needs. */
static void make_batch(batch *b, const tiny *m, const row_spec *rows, int n, int side, int extra) {
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

enum { WITHOUT_TYPES = 1, WITHOUT_LABELS = 2, WITHOUT_PIXELS = 4, WITHOUT_IDS = 8 };

/* embeds: given in place of ids with WITHOUT_IDS. */
static pg_status create(const batch *b, const tiny *m, int without, const float *embeds, pg_inputs **out) {
    const int64_t size = m->info.image_size;
    pg_tensor numbers[4], pixels = {.struct_size = sizeof pixels, .dtype = PG_DTYPE_F32, .n_dims = 4,
                                    .shape = {b->n_images, 3, size, size}, .data = b->pixels};
    pg_tensor rows = {.struct_size = sizeof rows, .dtype = PG_DTYPE_F32, .n_dims = 3,
                      .shape = {b->n_rows, b->n_tokens, m->hidden, 1}, .data = embeds};
    const int64_t *data[4] = {b->ids, b->mask, b->types, b->labels};
    for (int i = 0; i < 4; i++)
        numbers[i] = (pg_tensor){.struct_size = sizeof numbers[i], .dtype = PG_DTYPE_I64, .n_dims = 2,
                                 .shape = {b->n_rows, b->n_tokens, 1, 1}, .data = data[i]};
    pg_input_arrays arrays;
    OK(pg_input_arrays_init(&arrays, sizeof arrays));
    arrays.input_ids = without & WITHOUT_IDS ? NULL : &numbers[0];
    arrays.inputs_embeds = without & WITHOUT_IDS ? &rows : NULL;
    arrays.attention_mask = &numbers[1];
    arrays.token_type_ids = without & WITHOUT_TYPES ? NULL : &numbers[2];
    arrays.labels = without & WITHOUT_LABELS ? NULL : &numbers[3];
    arrays.pixel_values = b->n_images > 0 && !(without & WITHOUT_PIXELS) ? &pixels : NULL;
    return pg_inputs_create(&arrays, out);
}

static pg_forward_options options_of(uint32_t flags) {
    pg_forward_options options;
    OK(pg_forward_options_init(&options, sizeof options));
    options.flags = flags;
    options.n_threads = 1;
    return options;
}

static pg_outputs *forward(const tiny *m, const batch *b, int without, uint32_t flags) {
    pg_forward_options options = options_of(flags);
    pg_inputs *in = NULL;
    pg_outputs *out = NULL;
    OK(create(b, m, without, NULL, &in));
    OK(pg_forward(m->model, in, &options, &out));
    pg_inputs_close(&in);
    return out;
}

/* The tensor's values; its shape must be as given. */
static const float *get(const pg_outputs *out, const char *name, int n_dims, int64_t a, int64_t b, int64_t c,
                        int64_t d) {
    const int64_t shape[4] = {a, b, c, d};
    pg_tensor tensor = {.struct_size = sizeof tensor};
    OK(pg_outputs_get(out, name, &tensor));
    assert_int_equal(tensor.dtype, PG_DTYPE_F32);
    assert_int_equal(tensor.n_dims, n_dims);
    for (int i = 0; i < 4; i++) assert_int_equal(tensor.shape[i], shape[i]);
    return tensor.data;
}

static const float *logits_of(const pg_outputs *out, const batch *b, const tiny *m) {
    return get(out, "logits", 3, b->n_rows, b->n_tokens, m->info.vocab_size, 1);
}

static float loss_of(const pg_outputs *out) { return *get(out, "loss", 1, 1, 1, 1, 1); }

static void expect_close(const float *found, const float *wanted, int64_t n, double bound) {
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        difference += ((double)found[i] - wanted[i]) * ((double)found[i] - wanted[i]);
        norm += (double)wanted[i] * wanted[i];
    }
    if (!(sqrt(difference) <= bound * sqrt(norm)))
        fail_msg("relative distance %g, expected at most %g", sqrt(difference / norm), bound);
}

/* ------------------------------------------------------------------------------------------------------- rows */

static void padded_rows_are_the_single_rows(void **state) {
    (void)state;
    enum { N = 4 };
    for (int i = 0; i < 2; i++) {
        const tiny *m = &models[i];
        for (int without = 0; without <= WITHOUT_TYPES; without++) {
            for (int side = LEFT; side <= RIGHT; side++) {
                static const uint32_t flags[] = {0, PG_FORWARD_SKIP_PADDING};
                for (int f = 0; f < 2; f++) {
                    batch b, alone;
                    make_batch(&b, m, specs, N, side, 3);
                    pg_outputs *out = forward(m, &b, without, PG_FORWARD_HIDDEN_STATES | flags[f]);
                    const float *all = logits_of(out, &b, m);
                    const float *hidden = get(out, "hidden_states", 4, m->n_layers + 1, N, b.n_tokens, m->hidden);
                    for (int r = 0; r < N; r++) {
                        make_batch(&alone, m, &specs[r], 1, LEFT, 0);
                        pg_outputs *single = forward(m, &alone, without, PG_FORWARD_HIDDEN_STATES);
                        const float *one = logits_of(single, &alone, m);
                        const float *states =
                            get(single, "hidden_states", 4, m->n_layers + 1, 1, alone.n_tokens, m->hidden);
                        int64_t at = r * b.n_tokens + b.first[r];
                        assert_memory_equal(all + at * m->info.vocab_size, one,
                                            (size_t)(b.length[r] * m->info.vocab_size) * sizeof(float));
                        for (int64_t l = 0; l <= m->n_layers; l++)
                            assert_memory_equal(hidden + (l * N * b.n_tokens + at) * m->hidden,
                                                states + l * alone.n_tokens * m->hidden,
                                                (size_t)(b.length[r] * m->hidden) * sizeof(float));
                        for (int64_t t = 0; t < b.n_tokens; t++) {
                            const float *row = all + (r * b.n_tokens + t) * m->info.vocab_size;
                            assert_true(isfinite(row[0]));
                            if (flags[f] && !b.mask[r * b.n_tokens + t])
                                for (int v = 0; v < m->info.vocab_size; v++) assert_true(row[v] == 0);
                        }
                        pg_outputs_close(&single);
                        free(alone.pixels);
                    }
                    pg_outputs_close(&out);
                    free(b.pixels);
                }
            }
        }
    }
}

/* Which tokens' logits change when the id at `changed` does: none but those from `first` to `last`, and all of them. */
static void change_reaches(const tiny *m, batch *b, int without, int64_t changed, int64_t first, int64_t last) {
    const int64_t v = m->info.vocab_size, old = b->ids[changed];
    pg_outputs *before = forward(m, b, without, 0);
    b->ids[changed] = old == 20 ? 21 : 20;
    pg_outputs *after = forward(m, b, without, 0);
    b->ids[changed] = old;
    const float *x = logits_of(before, b, m), *y = logits_of(after, b, m);
    for (int64_t t = 0; t < b->n_rows * b->n_tokens; t++) {
        int same = !memcmp(x + t * v, y + t * v, (size_t)v * sizeof(float));
        if (same != (t < first || t > last))
            fail_msg("token %d, of which token %d %s", (int)changed, (int)t, same ? "sees nothing" : "sees something");
    }
    pg_outputs_close(&before);
    pg_outputs_close(&after);
}

static void who_sees_whom(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        const tiny *m = &models[i];
        const row_spec row = {0, 5, 4, 9};
        batch b;
        make_batch(&b, m, &row, 1, LEFT, 4); /* padding 0..3, prefix 4..8, suffix 9..12 */
        change_reaches(m, &b, 0, 4, 0, 12);  /* padding sees the prefix, being of type 0, as in HF */
        change_reaches(m, &b, 0, 8, 0, 12);
        change_reaches(m, &b, 0, 9, 9, 12);
        change_reaches(m, &b, 0, 12, 12, 12);
        change_reaches(m, &b, 0, 2, 2, 2); /* nobody sees padding */
        change_reaches(m, &b, WITHOUT_TYPES, 4, 4, 12);
        change_reaches(m, &b, WITHOUT_TYPES, 8, 8, 12);
        free(b.pixels);
        make_batch(&b, m, &row, 1, RIGHT, 4); /* prefix 0..4, suffix 5..8, padding 9..12 */
        change_reaches(m, &b, 0, 0, 0, 12);
        change_reaches(m, &b, 0, 4, 0, 12);
        change_reaches(m, &b, 0, 6, 6, 12);
        change_reaches(m, &b, 0, 10, 10, 10);
        free(b.pixels);
    }
}

static void a_window_holds_suffixes_alone(void **state) {
    const row_spec row = {0, 5, 30, 10};
    const tiny *m = &models[1];
    batch b;
    (void)state;
    /* both layers slide: in each a token reaches WINDOW - 1 further */
    char folder_of_two[512];
    tiny slides = {0};
    tiny_options options = tiny_saved_today();
    open_tiny(&slides, &options, NULL);
    snprintf(folder_of_two, sizeof folder_of_two, "%s", slides.folder);
    pg_model_close(&slides.model);
    pg_processor_close(&slides.processor);
    bytes config = read_file(folder_of_two, "config.json"), changed = {0};
    char *text = strstr((char *)config.data, "\"sliding_window\"");
    bytes_add(&changed, config.data, (size_t)(text - (char *)config.data));
    bytes_text(&changed, "\"layer_types\":[\"sliding_attention\",\"sliding_attention\"],");
    bytes_text(&changed, text);
    write_file(folder_of_two, "config.json", changed.data, changed.size);
    bytes_free(&config);
    bytes_free(&changed);
    open_tiny(&slides, NULL, NULL);
    make_batch(&b, &slides, &row, 1, LEFT, 0);
    change_reaches(&slides, &b, 0, 0, 0, 2 * (WINDOW - 1));
    change_reaches(&slides, &b, 0, 4, 0, 4 + 2 * (WINDOW - 1)); /* and the whole prefix */
    change_reaches(&slides, &b, 0, 10, 10, 10 + 2 * (WINDOW - 1));
    change_reaches(m, &b, 0, 10, 10, 34); /* there the second layer sees everything */
    free(b.pixels);
    pg_model_close(&slides.model);
    pg_processor_close(&slides.processor);
    remove_folder(folder_of_two);
}

/* ------------------------------------------------------------------------------------------------------- loss */

/* -log softmax of what token t - 1 gives for the label of token t, 0 without one. */
static double loss_at(const batch *b, const tiny *m, const float *logits, int64_t r, int64_t t) {
    const int64_t label = b->labels[r * b->n_tokens + t], v = m->info.vocab_size;
    if (t == 0 || label == -100) return 0;
    const float *x = logits + (r * b->n_tokens + t - 1) * v;
    double sum = 0;
    for (int64_t i = 0; i < v; i++) sum += exp((double)x[i]);
    return log(sum) - x[label];
}

static void expect_loss(const tiny *m, const batch *b, uint32_t skip) {
    pg_outputs *out = forward(m, b, 0, skip);
    const float *logits = logits_of(out, b, m);
    double sum = 0, mean_of_rows = 0, n = 0;
    for (int64_t r = 0; r < b->n_rows; r++) {
        double of_row = 0, n_row = 0;
        for (int64_t t = 1; t < b->n_tokens; t++) {
            if (b->labels[r * b->n_tokens + t] == -100 || (skip && !b->mask[r * b->n_tokens + t - 1])) continue;
            of_row += loss_at(b, m, logits, r, t);
            n_row++;
        }
        sum += of_row, n += n_row;
        mean_of_rows += n_row > 0 ? of_row / n_row / (double)b->n_rows : 0;
    }
    assert_true(fabs(loss_of(out) - sum / n) < 1e-6 * (sum / n));
    pg_outputs_close(&out);
    for (int no_logits = 0; no_logits <= PG_FORWARD_NO_LOGITS; no_logits++) {
        out = forward(m, b, 0, skip | (uint32_t)no_logits);
        assert_true(fabs(loss_of(out) - sum / n) < 2e-6 * (sum / n));
        pg_outputs_close(&out);
        out = forward(m, b, 0, skip | (uint32_t)no_logits | PG_FORWARD_LOSS_PER_ROW);
        assert_true(fabs(loss_of(out) - mean_of_rows) < 2e-6 * mean_of_rows);
        pg_outputs_close(&out);
    }
}

static void the_loss_by_hand(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        const tiny *m = &models[i];
        batch b;
        for (int side = LEFT; side <= RIGHT; side++) {
            make_batch(&b, m, specs, 5, side, 2); /* row 3 has no suffix: no labels */
            expect_loss(m, &b, 0);
            expect_loss(m, &b, PG_FORWARD_SKIP_PADDING);
            for (int64_t t = 0; t < b.n_rows * b.n_tokens; t++) b.labels[t] = t % 7 ? t % m->info.vocab_size : -100;
            expect_loss(m, &b, 0); /* more labels than fit into a list, some on padding and on the first token */
            expect_loss(m, &b, PG_FORWARD_SKIP_PADDING);
            for (int64_t t = 0; t < b.n_rows * b.n_tokens; t++) b.labels[t] = t % b.n_tokens ? -100 : 5;
            pg_outputs *out = forward(m, &b, 0, 0); /* the first tokens' labels alone: nothing predicts them */
            assert_true(isnan(loss_of(out)));
            pg_outputs_close(&out);
            out = forward(m, &b, 0, PG_FORWARD_NO_LOGITS);
            assert_true(isnan(loss_of(out)));
            pg_outputs_close(&out);
            free(b.pixels);
        }
    }
}

/* ------------------------------------------------------------------------------------- what is asked for */

static void the_last_logits(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        const tiny *m = &models[i];
        const int64_t v = m->info.vocab_size;
        pg_inputs *in = NULL;
        batch b;
        make_batch(&b, m, specs, 5, LEFT, 2);
        OK(create(&b, m, 0, NULL, &in));
        pg_outputs *out = forward(m, &b, 0, 0);
        const float *all = logits_of(out, &b, m);
        for (int64_t k = 1; k <= b.n_tokens; k += k < 8 ? 1 : 9) {
            pg_forward_options options = options_of(0);
            pg_outputs *some = NULL;
            options.logits_to_keep = k;
            OK(pg_forward(m->model, in, &options, &some));
            const float *last = get(some, "logits", 3, b.n_rows, k, v, 1);
            for (int64_t r = 0; r < b.n_rows; r++) { /* few rows are summed in another order */
                const float *wanted = all + ((r + 1) * b.n_tokens - k) * v;
                if (k > PGI_GEMV_ROWS) assert_memory_equal(last + r * k * v, wanted, (size_t)(k * v) * sizeof(float));
                expect_close(last + r * k * v, wanted, k * v, 1e-5);
            }
            assert_true(fabsf(loss_of(some) - loss_of(out)) < 1e-5f * loss_of(out));
            pg_outputs_close(&some);
        }
        pg_outputs_close(&out);
        pg_inputs_close(&in);
        free(b.pixels);
    }
}

static void what_was_not_asked_for_is_not_there(void **state) {
    const tiny *m = &models[0];
    pg_tensor tensor = {.struct_size = sizeof tensor};
    pg_inputs *in = NULL;
    batch b;
    (void)state;
    make_batch(&b, m, &specs[1], 1, LEFT, 0);
    pg_outputs *out = forward(m, &b, WITHOUT_LABELS, PG_FORWARD_NO_LOGITS);
    static const char *const names[] = {"logits", "loss", "hidden_states", "last_hidden_state", "image_hidden_states"};
    for (int i = 0; i < 5; i++) ERROR(pg_outputs_get(out, names[i], &tensor), PG_ERROR_NOT_FOUND);
    ERROR(pg_outputs_get(out, "attentions", &tensor), PG_ERROR_NOT_FOUND);
    ARGUMENT(pg_outputs_get(NULL, "logits", &tensor));
    ARGUMENT(pg_outputs_get(out, NULL, &tensor));
    ARGUMENT(pg_outputs_get(out, "logits", NULL));
    pg_outputs_close(&out);
    assert_null(out);
    pg_outputs_close(&out);
    pg_outputs_close(NULL);
    OK(create(&b, m, 0, NULL, &in));
    ARGUMENT(pg_forward(NULL, in, NULL, &out));
    ARGUMENT(pg_forward(m->model, NULL, NULL, &out));
    ARGUMENT(pg_forward(m->model, in, NULL, NULL));
    ARGUMENT(pg_embed(NULL, in, NULL, &out));
    ARGUMENT(pg_embed(m->model, NULL, NULL, &out));
    ARGUMENT(pg_embed(m->model, in, NULL, NULL));
    OK(pg_embed(m->model, in, NULL, &out)); /* labels are there, a loss is not */
    ERROR(pg_outputs_get(out, "loss", &tensor), PG_ERROR_NOT_FOUND);
    ERROR(pg_outputs_get(out, "logits", &tensor), PG_ERROR_NOT_FOUND);
    pg_outputs_close(&out);
    pg_inputs_close(&in);
    free(b.pixels);
}

static void embed_is_the_last_hidden_state(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        const tiny *m = &models[i];
        pg_inputs *in = NULL;
        pg_outputs *embedded = NULL;
        batch b;
        make_batch(&b, m, specs, 3, RIGHT, 1);
        const int64_t size = b.n_rows * b.n_tokens * m->hidden;
        OK(create(&b, m, 0, NULL, &in));
        OK(pg_embed(m->model, in, NULL, &embedded));
        pg_outputs *out = forward(m, &b, 0, PG_FORWARD_HIDDEN_STATES | PG_FORWARD_LAST_HIDDEN);
        const float *states = get(out, "hidden_states", 4, m->n_layers + 1, b.n_rows, b.n_tokens, m->hidden);
        const float *last = get(out, "last_hidden_state", 3, b.n_rows, b.n_tokens, m->hidden, 1);
        const float *found = get(embedded, "last_hidden_state", 3, b.n_rows, b.n_tokens, m->hidden, 1);
        assert_memory_equal(states + m->n_layers * size, last, (size_t)size * sizeof(float));
        for (int64_t t = 0; t < b.n_rows * b.n_tokens; t++)
            for (int64_t k = 0; k < m->hidden; k++)
                assert_true(found[t * m->hidden + k] == (b.mask[t] ? last[t * m->hidden + k] : 0));
        get(embedded, "image_hidden_states", 3, b.n_images, m->info.n_image_tokens, m->hidden, 1);
        pg_outputs_close(&embedded);
        pg_outputs_close(&out);
        pg_inputs_close(&in);
        free(b.pixels);
    }
}

static void features_in_place_of_pixels(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        const tiny *m = &models[i];
        pg_forward_options options = options_of(0);
        pg_inputs *in = NULL, *without = NULL;
        pg_outputs *given = NULL;
        pg_features *features = NULL;
        pg_tensor tensor = {.struct_size = sizeof tensor};
        batch b;
        make_batch(&b, m, specs, 4, LEFT, 0);
        OK(create(&b, m, 0, NULL, &in));
        OK(create(&b, m, WITHOUT_PIXELS, NULL, &without));
        OK(pg_encode_image(m->model, in, NULL, &features));
        OK(pg_features_get(features, &tensor));
        options.features = features;
        OK(pg_forward(m->model, without, &options, &given));
        pg_features_close(&features);
        pg_outputs *out = forward(m, &b, 0, 0);
        assert_memory_equal(logits_of(given, &b, m), logits_of(out, &b, m),
                            (size_t)(b.n_rows * b.n_tokens * m->info.vocab_size) * sizeof(float));
        const float *kept = get(given, "image_hidden_states", 3, 4, m->info.n_image_tokens, m->hidden, 1);
        assert_memory_equal(kept, get(out, "image_hidden_states", 3, 4, m->info.n_image_tokens, m->hidden, 1),
                            (size_t)(4 * m->info.n_image_tokens * m->hidden) * sizeof(float));
        pg_outputs_close(&given);
        pg_outputs_close(&out);
        pg_inputs_close(&in);
        pg_inputs_close(&without);
        free(b.pixels);
    }
}

static void embeddings_in_place_of_ids(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        const tiny *m = &models[i];
        const pgi_run run = {.kernels = &m->model->kernels, .n_threads = 1};
        pg_forward_options options = options_of(0);
        pg_inputs *in = NULL;
        pg_outputs *given = NULL;
        batch b;
        make_batch(&b, m, specs, 4, RIGHT, 1);
        float *embeds = calloc((size_t)(b.n_rows * b.n_tokens * m->hidden), sizeof *embeds);
        /* the image's own embedding marks the rows that take features */
        pgi_decoder_embed(&run, &m->model->config.text, &m->model->weights.text, b.ids, b.n_rows * b.n_tokens, embeds);
        OK(create(&b, m, WITHOUT_IDS, embeds, &in));
        OK(pg_forward(m->model, in, &options, &given));
        pg_outputs *out = forward(m, &b, 0, PG_FORWARD_HIDDEN_STATES);
        const size_t size = (size_t)(b.n_rows * b.n_tokens * m->info.vocab_size) * sizeof(float);
        assert_memory_equal(logits_of(given, &b, m), logits_of(out, &b, m), size);
        pg_outputs_close(&given);
        pg_inputs_close(&in);
        /* merged already: the hidden states of layer 0, no pictures */
        const float *merged = get(out, "hidden_states", 4, m->n_layers + 1, b.n_rows, b.n_tokens, m->hidden);
        OK(create(&b, m, WITHOUT_IDS | WITHOUT_PIXELS, merged, &in));
        OK(pg_forward(m->model, in, &options, &given));
        assert_memory_equal(logits_of(given, &b, m), logits_of(out, &b, m), size);
        pg_outputs_close(&given);
        pg_outputs_close(&out);
        pg_inputs_close(&in);
        free(embeds);
        free(b.pixels);
    }
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

static pg_result *generate(const tiny *m, const batch *b, int without, int n_threads, heard *h) {
    pg_generate_options options;
    pg_inputs *in = NULL;
    pg_result *result = NULL;
    OK(pg_generate_options_init(&options, sizeof options));
    options.max_new_tokens = NEW_TOKENS;
    options.n_threads = n_threads;
    if (h) {
        options.on_row_text = hear;
        options.on_row_text_user = h;
    }
    OK(create(b, m, without, NULL, &in));
    OK(pg_generate(m->model, m->processor, in, &options, &result));
    pg_inputs_close(&in);
    return result;
}

static void same_row(const pg_result *a, int64_t row_a, const pg_result *b, int64_t row_b) {
    pg_tensor x = {.struct_size = sizeof x}, y = x;
    pg_result_info i = {.struct_size = sizeof i}, j = i;
    OK(pg_result_row_ids(a, row_a, &x));
    OK(pg_result_row_ids(b, row_b, &y));
    assert_int_equal(x.shape[0], y.shape[0]);
    assert_memory_equal(x.data, y.data, (size_t)x.shape[0] * sizeof(int64_t));
    assert_string_equal(pg_result_row_text(a, row_a), pg_result_row_text(b, row_b));
    OK(pg_result_get_row_info(a, row_a, &i));
    OK(pg_result_get_row_info(b, row_b, &j));
    assert_int_equal(i.stop, j.stop);
    assert_int_equal(i.n_prompt_tokens, j.n_prompt_tokens);
    assert_int_equal(i.n_new_tokens, x.shape[0]);
}

static void batches_generate_what_rows_do(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        const tiny *m = &models[i];
        for (int n = 1; n <= 7; n += 2) {
            batch b, alone;
            heard h = {.stop_row = -1};
            make_batch(&b, m, specs, n, n % 4 == 1 ? LEFT : RIGHT, n == 3 ? 4 : 0);
            pg_result *together = generate(m, &b, 0, 1, &h);
            assert_int_equal(pg_result_n_rows(together), n);
            for (int r = 0; r < n; r++) {
                make_batch(&alone, m, &specs[r], 1, LEFT, 0);
                pg_result *single = generate(m, &alone, 0, 1, NULL);
                same_row(together, r, single, 0);
                assert_string_equal(h.text[r].data ? (char *)h.text[r].data : "", pg_result_text(single));
                pg_result_info info = {.struct_size = sizeof info};
                OK(pg_result_get_info(single, &info));
                assert_int_equal(info.n_prompt_tokens, b.length[r]);
                pg_result_close(&single);
                free(alone.pixels);
                bytes_free(&h.text[r]);
            }
            pg_tensor ids = {.struct_size = sizeof ids};
            pg_result_info info = {.struct_size = sizeof info};
            assert_null(pg_result_row_text(together, n));
            assert_null(pg_result_row_text(together, -1));
            ARGUMENT(pg_result_row_ids(together, n, &ids));
            ARGUMENT(pg_result_get_row_info(together, -1, &info));
            pg_result_close(&together);
            free(b.pixels);
        }
    }
    assert_int_equal(pg_result_n_rows(NULL), 0);
    assert_null(pg_result_row_text(NULL, 0));
    assert_string_equal(pg_result_text(NULL), "");
}

/* The logits of a step that PGI_STEP_ROWS answers take together are, to the last bit, those that each gets alone. */
static void steps_together_are_steps_alone(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        const tiny *m = &models[i];
        const pgi_memory *memory = &m->model->memory;
        const pgi_run run = {.kernels = &m->model->kernels, .n_threads = 1};
        const int64_t v = m->info.vocab_size;
        pgi_answer answers[2][PGI_STEP_ROWS] = {{{.pending = -1}}}, *group[PGI_STEP_ROWS];
        pgi_prompts prompts;
        pg_inputs *in = NULL;
        batch b;
        make_batch(&b, m, specs, PGI_STEP_ROWS, LEFT, 0);
        OK(create(&b, m, 0, NULL, &in));
        OK(pgi_prompts_open(&run, m->model, in, NULL, &prompts));
        float *logits = calloc((size_t)((PGI_STEP_ROWS + 1) * v), sizeof *logits), *alone = logits + PGI_STEP_ROWS * v;
        pgi_arena arena = {0};
        pgi_step_room_lay_out(&arena, &run, &m->model->config.text, PGI_STEP_ROWS, MAX_TOKENS);
        arena = (pgi_arena){.base = pgi_alloc(memory, arena.used, 1)};
        pgi_step_room room = pgi_step_room_lay_out(&arena, &run, &m->model->config.text, PGI_STEP_ROWS, MAX_TOKENS);
        for (int r = 0; r < PGI_STEP_ROWS; r++) {
            group[r] = &answers[0][r];
            for (int k = 0; k < 2; k++) {
                OK(pgi_answer_reset(&answers[k][r], &prompts, r, NEW_TOKENS));
                OK(pgi_answer_prefill(&run, &prompts, r, &answers[k][r], 0, 0, alone));
                pgi_answer_pick(&answers[k][r], m->model, alone);
            }
        }
        for (int step = 1; step < NEW_TOKENS; step++) {
            OK(pgi_answers_step(&run, m->model, group, PGI_STEP_ROWS, &room, logits));
            for (int r = 0; r < PGI_STEP_ROWS; r++) {
                pgi_answer *one = &answers[1][r];
                OK(pgi_answers_step(&run, m->model, &one, 1, &room, alone));
                assert_memory_equal(logits + r * v, alone, (size_t)v * sizeof(float));
                pgi_answer_pick(group[r], m->model, logits + r * v);
                pgi_answer_pick(one, m->model, alone);
            }
        }
        for (int k = 0; k < 2; k++)
            for (int r = 0; r < PGI_STEP_ROWS; r++) pgi_answer_free(&answers[k][r], memory);
        pgi_free(memory, arena.base);
        pgi_prompts_close(&prompts);
        pg_inputs_close(&in);
        free(logits);
        free(b.pixels);
    }
}

static void a_callback_ends_its_row_alone(void **state) {
    const tiny *m = &models[1];
    batch b;
    (void)state;
    make_batch(&b, m, specs, 6, LEFT, 0);
    pg_result *whole = generate(m, &b, 0, 1, NULL);
    for (int64_t stopped = 0; stopped < 6; stopped++) {
        heard h = {.stop_row = stopped};
        pg_result *result = generate(m, &b, 0, 2, &h);
        for (int64_t r = 0; r < 6; r++) {
            pg_result_info info = {.struct_size = sizeof info};
            bytes_free(&h.text[r]);
            OK(pg_result_get_row_info(result, r, &info));
            if (r != stopped) {
                same_row(result, r, whole, r);
                continue;
            }
            assert_int_equal(info.stop, PG_STOP_CALLBACK);
            assert_int_equal(info.n_new_tokens, 3);
        }
        pg_result_close(&result);
    }
    pg_result_close(&whole);
    free(b.pixels);
}

/* The prefix alone generates some tokens; forward on these as a suffix gives the logits that they were picked from, and
 * a session that is given a part of them goes on with the rest. */
static void a_suffix_is_what_was_generated(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        const tiny *m = &models[i];
        const int64_t v = m->info.vocab_size;
        for (int s = 0; s < 4; s++) {
            row_spec prefix = specs[s];
            prefix.n_suffix = 0;
            batch b, longer;
            pg_inputs *in = NULL;
            pg_session *session = NULL;
            pg_session_options options;
            int64_t tokens[NEW_TOKENS];
            float *logits = calloc((size_t)(NEW_TOKENS * v), sizeof *logits);
            OK(pg_session_options_init(&options, sizeof options));
            options.max_new_tokens = NEW_TOKENS;
            OK(pg_session_create(m->model, &options, &session));
            make_batch(&b, m, &prefix, 1, RIGHT, 2);
            OK(create(&b, m, 0, NULL, &in));
            OK(pg_session_prefill(session, in, NULL));
            pg_inputs_close(&in);
            pg_tensor now = {.struct_size = sizeof now};
            int n = 0;
            for (pg_status status = PG_OK; n < NEW_TOKENS && status == PG_OK; n++) {
                status = pg_session_step(session, &tokens[n]);
                OK(pg_session_logits(session, &now));
                memcpy(logits + n * v, now.data, (size_t)v * sizeof(float));
            }
            assert_int_equal(n, NEW_TOKENS);

            row_spec whole = prefix;
            whole.n_suffix = NEW_TOKENS - 1;
            make_batch(&longer, m, &whole, 1, LEFT, 1);
            int64_t *suffix = longer.ids + longer.n_tokens - whole.n_suffix;
            memcpy(suffix, tokens, (size_t)whole.n_suffix * sizeof *suffix);
            pg_outputs *out = forward(m, &longer, 0, 0);
            expect_close(logits_of(out, &longer, m) + (longer.n_tokens - NEW_TOKENS) * v, logits, NEW_TOKENS * v, 1e-5);
            pg_outputs_close(&out);
            free(longer.pixels);

            for (int given = 1; given < NEW_TOKENS; given++) {
                int64_t token;
                whole.n_suffix = given;
                make_batch(&longer, m, &whole, 1, given % 2 ? LEFT : RIGHT, 1);
                suffix = longer.ids + longer.first[0] + longer.length[0] - given;
                memcpy(suffix, tokens, (size_t)given * sizeof *suffix);
                OK(create(&longer, m, 0, NULL, &in));
                OK(pg_session_prefill(session, in, NULL));
                pg_inputs_close(&in);
                for (int k = given; k < NEW_TOKENS; k++) {
                    pg_status status = pg_session_step(session, &token);
                    assert_true(status >= 0);
                    OK(pg_session_logits(session, &now));
                    expect_close(now.data, logits + k * v, v, 1e-5);
                    assert_int_equal(token, tokens[k]);
                }
                free(longer.pixels);
            }
            pg_session_close(&session);
            free(logits);
            free(b.pixels);
        }
    }
}

/* -------------------------------------------------------------------------------- threads, progress, cancel, memory */

static void as_many_threads_as_you_like(void **state) {
    tiny_options options = tiny_saved_today();
    tiny m = {0};
    const row_spec rows[] = {{1, 4, 5, 1}, {0, 7, 3, 2}};
    (void)state;
    options.image_size = 32; /* 64 image tokens: enough for several tasks */
    open_tiny(&m, &options, NULL);
    batch b;
    make_batch(&b, &m, rows, 2, LEFT, 1);
    pg_outputs *one = forward(&m, &b, 0, PG_FORWARD_HIDDEN_STATES);
    pg_result *text = generate(&m, &b, 0, 1, NULL);
    for (int n = 2; n <= 4; n++) {
        pg_forward_options forward_options = options_of(PG_FORWARD_HIDDEN_STATES);
        pg_inputs *in = NULL;
        pg_outputs *many = NULL;
        forward_options.n_threads = n;
        OK(create(&b, &m, 0, NULL, &in));
        OK(pg_forward(m.model, in, &forward_options, &many));
        assert_memory_equal(logits_of(many, &b, &m), logits_of(one, &b, &m),
                            (size_t)(b.n_rows * b.n_tokens * m.info.vocab_size) * sizeof(float));
        assert_true(loss_of(many) == loss_of(one));
        pg_outputs_close(&many);
        pg_inputs_close(&in);
        pg_result *same = generate(&m, &b, 0, n, NULL);
        for (int r = 0; r < 2; r++) same_row(same, r, text, r);
        pg_result_close(&same);
    }
    pg_result_close(&text);
    pg_outputs_close(&one);
    free(b.pixels);
    pg_model_close(&m.model);
    pg_processor_close(&m.processor);
    remove_folder(m.folder);
}

typedef struct watch {
    int32_t phase;
    int64_t done, total;
    int n_calls, stop_at; /* the call of this number stops; 0: none */
} watch;

static int32_t watch_progress(void *user, int32_t phase, int64_t done, int64_t total) {
    watch *w = user;
    assert_true(phase > w->phase || (phase == w->phase && done >= w->done && total == w->total));
    assert_in_range(done, 0, total);
    w->phase = phase, w->done = done, w->total = total;
    return ++w->n_calls == w->stop_at;
}

static void progress_and_cancel(void **state) {
    const tiny *m = &models[1];
    pg_forward_options options = options_of(PG_FORWARD_NO_LOGITS);
    pg_generate_options generate_options;
    pg_inputs *in = NULL;
    pg_outputs *out = NULL;
    pg_result *result = NULL;
    pg_cancel *cancel = NULL;
    batch b;
    (void)state;
    make_batch(&b, m, specs, 5, LEFT, 0); /* row 3 has no labels, so nothing is to be run */
    OK(create(&b, m, 0, NULL, &in));
    watch w = {0};
    options.progress = watch_progress;
    options.progress_user = &w;
    OK(pg_forward(m->model, in, &options, &out));
    pg_outputs_close(&out);
    assert_int_equal(w.phase, PG_PHASE_PREFILL);
    assert_int_equal(w.total, 5 * m->n_layers);
    assert_int_equal(w.done, w.total);
    int n_calls = w.n_calls;
    for (int at = 1; at <= n_calls; at++) {
        w = (watch){.stop_at = at};
        ERROR(pg_forward(m->model, in, &options, &out), PG_ERROR_CANCELLED);
        assert_null(out);
    }

    OK(pg_generate_options_init(&generate_options, sizeof generate_options));
    generate_options.max_new_tokens = NEW_TOKENS;
    generate_options.progress = watch_progress;
    generate_options.progress_user = &w;
    w = (watch){0};
    OK(pg_generate(m->model, m->processor, in, &generate_options, &result));
    pg_result_close(&result);
    assert_int_equal(w.phase, PG_PHASE_DECODE);
    assert_int_equal(w.total, 5 * NEW_TOKENS);
    n_calls = w.n_calls;
    for (int at = 1; at <= n_calls; at++) {
        w = (watch){.stop_at = at};
        ERROR(pg_generate(m->model, m->processor, in, &generate_options, &result), PG_ERROR_CANCELLED);
        assert_null(result);
    }

    OK(pg_cancel_create(&cancel));
    pg_cancel_request(cancel);
    options.cancel = generate_options.cancel = cancel;
    w = (watch){0};
    ERROR(pg_forward(m->model, in, &options, &out), PG_ERROR_CANCELLED);
    ERROR(pg_embed(m->model, in, &options, &out), PG_ERROR_CANCELLED);
    ERROR(pg_generate(m->model, m->processor, in, &generate_options, &result), PG_ERROR_CANCELLED);
    pg_cancel_close(&cancel);
    pg_inputs_close(&in);
    free(b.pixels);
}

/* One of three calls on the batch. */
static pg_status call(const tiny *m, const pg_inputs *in, int which) {
    pg_forward_options options = options_of(which ? PG_FORWARD_NO_LOGITS
                                                  : PG_FORWARD_HIDDEN_STATES | PG_FORWARD_LAST_HIDDEN);
    pg_generate_options generate_options;
    pg_outputs *out = NULL;
    pg_result *result = NULL;
    pg_status status;
    OK(pg_generate_options_init(&generate_options, sizeof generate_options));
    generate_options.max_new_tokens = 3;
    generate_options.n_threads = 1;
    if (which < 2)
        status = pg_forward(m->model, in, &options, &out);
    else if (which == 2)
        status = pg_embed(m->model, in, NULL, &out);
    else
        status = pg_generate(m->model, m->processor, in, &generate_options, &result);
    assert_true(status >= 0 || (!out && !result));
    pg_outputs_close(&out);
    pg_result_close(&result);
    return status;
}

static void every_allocation_may_fail(void **state) {
    counter memory;
    tiny m = models[0];
    pg_inputs *ids = NULL, *rows = NULL;
    batch b;
    (void)state;
    counter_init(&memory);
    open_tiny(&m, NULL, &memory);
    make_batch(&b, &m, specs, 3, LEFT, 1);
    float *embeds = calloc((size_t)(b.n_rows * b.n_tokens * m.hidden), sizeof *embeds);
    const pgi_run run = {.kernels = &m.model->kernels, .n_threads = 1};
    pgi_decoder_embed(&run, &m.model->config.text, &m.model->weights.text, b.ids, b.n_rows * b.n_tokens, embeds);
    OK(create(&b, &m, 0, NULL, &ids));
    OK(create(&b, &m, WITHOUT_IDS, embeds, &rows));
    for (int which = 0; which < 8; which++) {
        const pg_inputs *in = which < 4 ? ids : rows;
        const long long live = memory.n_live, before = memory.n_allocs;
        OK(call(&m, in, which % 4));
        const long long n = memory.n_allocs - before;
        assert_in_range(n, 5, 200);
        for (long long k = 1; k <= n; k++) {
            memory.fail_at = memory.n_allocs + k;
            ERROR(call(&m, in, which % 4), PG_ERROR_MEMORY);
            assert_int_equal(memory.n_live, live);
        }
        memory.fail_at = 0;
    }
    pg_inputs_close(&ids);
    pg_inputs_close(&rows);
    pg_model_close(&m.model);
    pg_processor_close(&m.processor);
    assert_true(counter_clean(&memory));
    free(embeds);
    free(b.pixels);
}

/* --------------------------------------------------------------------------------------------------- bad input */

/* The status of forward and of generate, whose messages have these words. */
static void refused(const tiny *m, const batch *b, int without, pg_status wanted, const char *word, const char *other) {
    pg_inputs *in = NULL;
    OK(create(b, m, without, NULL, &in));
    for (int which = 0; which < 4; which++) {
        ERROR(call(m, in, which), wanted);
        if (!strstr(pg_last_error(), word) || !strstr(pg_last_error(), other))
            fail_msg("found \"%s\", expected \"%s\" and \"%s\"", pg_last_error(), word, other);
    }
    pg_inputs_close(&in);
}

static void bad_rows(void **state) {
    const tiny *m = &models[0];
    batch b;
    (void)state;
    make_batch(&b, m, specs, 3, LEFT, 0);
    int64_t *id = &b.ids[b.n_tokens + b.first[1] + 2], old = *id;
    *id = m->info.vocab_size;
    refused(m, &b, WITHOUT_LABELS, PG_ERROR_ARGUMENT, "row 1", "expected 0 to");
    *id = INT64_MAX;
    refused(m, &b, WITHOUT_LABELS, PG_ERROR_ARGUMENT, "row 1", "9223372036854775807");
    *id = m->image_id; /* an image token more than there are pictures */
    refused(m, &b, WITHOUT_LABELS, PG_ERROR_ARGUMENT, "row 2 has 18 image tokens", "17 left");
    *id = old;
    refused(m, &b, WITHOUT_PIXELS, PG_ERROR_ARGUMENT, "row 0 has 9 image tokens", "no pixel_values");
    b.ids[b.first[0]] = 4; /* one fewer */
    refused(m, &b, WITHOUT_LABELS, PG_ERROR_ARGUMENT, "26 image tokens", "27");
    free(b.pixels);

    make_batch(&b, m, specs, 2, LEFT, 0);
    pg_inputs *in = NULL;
    pg_outputs *out = NULL;
    b.labels[b.n_tokens + 7] = m->info.vocab_size;
    OK(create(&b, m, 0, NULL, &in));
    ERROR(pg_forward(m->model, in, NULL, &out), PG_ERROR_ARGUMENT);
    assert_non_null(strstr(pg_last_error(), "row 1: the label of token 7"));
    OK(pg_embed(m->model, in, NULL, &out));
    pg_outputs_close(&out);
    pg_inputs_close(&in);

    pg_session *session = NULL;
    pg_generate_options options;
    pg_result *result = NULL;
    OK(create(&b, m, WITHOUT_LABELS, NULL, &in));
    OK(pg_session_create(m->model, NULL, &session));
    ARGUMENT(pg_session_prefill(session, in, NULL));
    assert_non_null(strstr(pg_last_error(), "2 rows"));
    pg_session_close(&session);
    OK(pg_generate_options_init(&options, sizeof options));
    options.on_text = (pg_text_fn)(uintptr_t)1; /* never called */
    ARGUMENT(pg_generate(m->model, m->processor, in, &options, &result));
    assert_non_null(strstr(pg_last_error(), "2 rows"));
    pg_forward_options forward_options = options_of(0);
    forward_options.logits_to_keep = b.n_tokens + 1;
    ARGUMENT(pg_forward(m->model, in, &forward_options, &out));
    forward_options.logits_to_keep = -1;
    ARGUMENT(pg_forward(m->model, in, &forward_options, &out));
    forward_options = options_of(0x80);
    ARGUMENT(pg_forward(m->model, in, &forward_options, &out));
    forward_options = options_of(0);
    forward_options.n_threads = -1;
    ARGUMENT(pg_forward(m->model, in, &forward_options, &out));
    pg_inputs_close(&in);
    free(b.pixels);
}

/* Text rows alone, `n_tokens` each, straight from arrays of that size. */
static pg_status create_text(int64_t n_rows, int64_t n_tokens, pg_inputs **out) {
    int64_t *ids = calloc((size_t)(n_rows * n_tokens), sizeof *ids);
    pg_tensor tensor = {.struct_size = sizeof tensor, .dtype = PG_DTYPE_I64, .n_dims = 2,
                        .shape = {n_rows, n_tokens, 1, 1}, .data = ids};
    pg_input_arrays arrays;
    OK(pg_input_arrays_init(&arrays, sizeof arrays));
    arrays.input_ids = &tensor;
    for (int64_t i = 0; i < n_rows * n_tokens; i++) ids[i] = 4 + i % 50;
    pg_status status = pg_inputs_create(&arrays, out);
    free(ids);
    return status;
}

static void rows_longer_than_the_context(void **state) {
    const tiny *m = &models[0];
    pg_inputs *in = NULL;
    (void)state;
    OK(create_text(2, 8193, &in));
    for (int which = 0; which < 4; which++) {
        ERROR(call(m, in, which), PG_ERROR_LIMIT);
        assert_non_null(strstr(pg_last_error(), "row 0 is 8193 tokens long"));
    }
    pg_inputs_close(&in);
}

/* Outputs are read when all that they were made from is closed. */
static void outputs_outlive_all(void **state) {
    tiny m = models[1];
    pg_inputs *in = NULL;
    pg_features *features = NULL;
    pg_outputs *out = NULL;
    batch b;
    (void)state;
    open_tiny(&m, NULL, NULL);
    make_batch(&b, &m, specs, 1, LEFT, 0);
    OK(create(&b, &m, 0, NULL, &in));
    OK(pg_encode_image(m.model, in, NULL, &features));
    pg_forward_options options = options_of(0);
    options.features = features;
    OK(pg_forward(m.model, in, &options, &out));
    pg_features_close(&features);
    pg_inputs_close(&in);
    pg_model_close(&m.model);
    pg_processor_close(&m.processor);
    pg_outputs *other = forward(&models[1], &b, 0, 0);
    assert_memory_equal(logits_of(out, &b, &m), logits_of(other, &b, &m),
                        (size_t)(b.n_tokens * m.info.vocab_size) * sizeof(float));
    const int64_t n = m.info.n_image_tokens;
    assert_memory_equal(get(out, "image_hidden_states", 3, 1, n, m.hidden, 1),
                        get(other, "image_hidden_states", 3, 1, n, m.hidden, 1),
                        (size_t)(n * m.hidden) * sizeof(float));
    pg_outputs_close(&out);
    pg_outputs_close(&other);
    free(b.pixels);
}

/* Pictures alone have features, but nothing to run. */
static void pictures_alone(void **state) {
    const tiny *m = &models[0];
    const int64_t size = m->info.image_size;
    float *pixels = calloc((size_t)(3 * size * size), sizeof *pixels);
    pg_tensor tensor = {.struct_size = sizeof tensor, .dtype = PG_DTYPE_F32, .n_dims = 4, .shape = {1, 3, size, size},
                        .data = pixels};
    pg_input_arrays arrays;
    pg_inputs *in = NULL;
    pg_features *features = NULL;
    (void)state;
    OK(pg_input_arrays_init(&arrays, sizeof arrays));
    arrays.pixel_values = &tensor;
    OK(pg_inputs_create(&arrays, &in));
    for (int which = 0; which < 4; which++) ERROR(call(m, in, which), PG_ERROR_ARGUMENT);
    OK(pg_encode_image(m->model, in, NULL, &features));
    pg_features_close(&features);
    pg_inputs_close(&in);
    free(pixels);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(padded_rows_are_the_single_rows),
        cmocka_unit_test(who_sees_whom),
        cmocka_unit_test(a_window_holds_suffixes_alone),
        cmocka_unit_test(the_loss_by_hand),
        cmocka_unit_test(the_last_logits),
        cmocka_unit_test(what_was_not_asked_for_is_not_there),
        cmocka_unit_test(embed_is_the_last_hidden_state),
        cmocka_unit_test(features_in_place_of_pixels),
        cmocka_unit_test(embeddings_in_place_of_ids),
        cmocka_unit_test(batches_generate_what_rows_do),
        cmocka_unit_test(steps_together_are_steps_alone),
        cmocka_unit_test(a_callback_ends_its_row_alone),
        cmocka_unit_test(a_suffix_is_what_was_generated),
        cmocka_unit_test(as_many_threads_as_you_like),
        cmocka_unit_test(progress_and_cancel),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(bad_rows),
        cmocka_unit_test(rows_longer_than_the_context),
        cmocka_unit_test(outputs_outlive_all),
        cmocka_unit_test(pictures_alone),
    };
    return cmocka_run_group_tests(tests, open_models, close_models);
}
