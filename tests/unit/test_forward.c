/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * pg_forward on tiny random models: what must be equal to something else of this library. That the numbers
 * are the reference's is for tests/oracle and tests/golden.
 */
#include "run_tests.h"

#include "forward_fixture.h"
#include "generate/decoding.h"

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
                        /* without types a row of Gemma 1 is causal only beside padding, here its own */
                        make_batch(&alone, m, &specs[r], 1, LEFT, without);
                        pg_outputs *single = forward(m, &alone, without, PG_FORWARD_HIDDEN_STATES);
                        const float *one = logits_of(single, &alone, m) + alone.first[0] * m->info.vocab_size;
                        const float *states =
                            get(single, "hidden_states", 4, m->n_layers + 1, 1, alone.n_tokens, m->hidden) +
                            alone.first[0] * m->hidden;
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

static void same_logits(const tiny *m, const batch *a, int without_a, const batch *b, int without_b) {
    pg_outputs *x = forward(m, a, without_a, 0), *y = forward(m, b, without_b, 0);
    assert_memory_equal(logits_of(x, a, m), logits_of(y, b, m),
                        (size_t)(a->n_rows * a->n_tokens * m->info.vocab_size) * sizeof(float));
    pg_outputs_close(&x);
    pg_outputs_close(&y);
}

/* Gemma 1 sees the whole row if no row has padding; Gemma 2 sees what is before. */
static void without_types_the_model_chooses(void **state) {
    const row_spec alike[2] = {{1, 4, 5, 1}, {1, 6, 3, 2}}, uneven[2] = {{0, 9, 0, 3}, {0, 6, 0, 4}};
    (void)state;
    for (int i = 0; i < 2; i++) {
        const tiny *m = &models[i];
        batch b, typed;
        make_batch(&b, m, alike, 2, LEFT, 0);
        typed = b;
        for (int64_t t = 0; t < b.n_rows * b.n_tokens; t++) typed.types[t] = i; /* 0: all see all */
        same_logits(m, &b, WITHOUT_TYPES, &typed, 0);
        pg_result *chosen = generate(m, &b, WITHOUT_TYPES, 1, NULL), *told = generate(m, &typed, 0, 1, NULL);
        for (int r = 0; r < 2; r++) same_row(chosen, r, told, r);
        pg_result_close(&chosen);
        pg_result_close(&told);
        free(b.pixels);
        make_batch(&b, m, uneven, 2, RIGHT, 0); /* padding in one row: both are causal */
        change_reaches(m, &b, WITHOUT_TYPES, 4, 4, 8);
        typed = b;
        for (int64_t t = 0; t < b.n_rows * b.n_tokens; t++) typed.types[t] = 1;
        same_logits(m, &b, WITHOUT_TYPES, &typed, 0);
        free(b.pixels);
    }
}

/* Positions without a mask: a step other than 1 begins another text. With a mask, and in pg_generate(), it does not. */
static void positions_pack_texts(void **state) {
    static const int64_t two_texts[] = {1, 2, 3, 4, 1, 2, 3, 4, 5}, one_text[] = {7, 8, 9, 10, 11, 12, 13, 14, 15};
    const row_spec row = {0, 2, 7, 6}, second = {0, 0, 5, 6};
    (void)state;
    for (int i = 0; i < 2; i++) {
        const tiny *m = &models[i];
        batch b, alone;
        make_batch(&b, m, &row, 1, LEFT, 0); /* prefix 0..1, suffix 2..3; 4..8 */
        b.positions = two_texts;
        change_reaches(m, &b, WITHOUT_MASK, 1, 0, 3);
        change_reaches(m, &b, WITHOUT_MASK, 3, 3, 3);
        change_reaches(m, &b, WITHOUT_MASK, 4, 4, 8);
        change_reaches(m, &b, WITHOUT_MASK | WITHOUT_TYPES, 1, 1, 3);
        change_reaches(m, &b, 0, 3, 3, 8);
        make_batch(&alone, m, &second, 1, LEFT, 0);
        memcpy(alone.ids, b.ids + 4, 5 * sizeof *alone.ids);
        pg_outputs *packed = forward(m, &b, WITHOUT_MASK, 0), *single = forward(m, &alone, 0, 0);
        expect_close(logits_of(packed, &b, m) + 4 * m->info.vocab_size, logits_of(single, &alone, m),
                     5 * (int64_t)m->info.vocab_size, 1e-5);
        pg_outputs_close(&packed);
        pg_outputs_close(&single);
        pg_result *with = generate(m, &b, 0, 1, NULL), *without = generate(m, &b, WITHOUT_MASK, 1, NULL);
        same_row(with, 0, without, 0);
        pg_result_close(&with);
        pg_result_close(&without);
        b.positions = one_text;
        change_reaches(m, &b, WITHOUT_MASK, 3, 3, 8);
        change_reaches(m, &b, WITHOUT_MASK | WITHOUT_TYPES, 3, i == 0 ? 0 : 3, 8);
        free(alone.pixels);
        free(b.pixels);
    }
}

/* Tokens between others that the mask hides; pg_generate() gives what it gives without them. */
static void a_hole_is_seen_by_nobody(void **state) {
    const row_spec with = {2, 3, 2, 7}, without = {1, 3, 2, 7};
    (void)state;
    for (int i = 0; i < 2; i++) {
        const tiny *m = &models[i];
        const int64_t n = m->info.n_image_tokens, v = m->info.vocab_size;
        batch b, alone;
        make_batch(&b, m, &with, 1, LEFT, 1);
        make_batch(&alone, m, &without, 1, LEFT, 1);
        for (int64_t t = 1 + n; t < 1 + 2 * n; t++) b.mask[t] = 0; /* the second image */
        pg_outputs *all = forward(m, &b, 0, PG_FORWARD_SKIP_PADDING | PG_FORWARD_HIDDEN_STATES);
        const float *states =
            get(all, "hidden_states", 4, m->n_layers + 1, 1, b.n_tokens, m->hidden) + (1 + n) * m->hidden;
        for (int64_t k = 0; k < n * v; k++) assert_true(logits_of(all, &b, m)[(1 + n) * v + k] == 0);
        for (int64_t l = 0; l <= m->n_layers; l++)
            for (int64_t k = 0; k < n * m->hidden; k++) assert_true(states[l * b.n_tokens * m->hidden + k] == 0);
        pg_outputs_close(&all);
        memcpy(alone.ids + 1 + n, b.ids + 1 + 2 * n, 5 * sizeof *b.ids);
        int64_t positions[MAX_TOKENS] = {0};
        for (int64_t t = 1; t < b.n_tokens; t++) positions[t] = t <= n ? t : t <= 2 * n ? 0 : t - n;
        b.positions = positions;
        pg_outputs *holed = forward(m, &b, 0, 0), *single = forward(m, &alone, 0, 0);
        expect_close(logits_of(holed, &b, m) + (1 + 2 * n) * v, logits_of(single, &alone, m) + (1 + n) * v, 3 * v,
                     1e-5);
        pg_outputs_close(&holed);
        pg_outputs_close(&single);
        b.positions = NULL;
        if (i == 0) { /* the other model's window is smaller than the row */
            pg_result *x = generate(m, &b, 0, 1, NULL), *y = generate(m, &alone, 0, 2, NULL);
            same_row(x, 0, y, 0);
            pg_result_close(&x);
            pg_result_close(&y);
        } else {
            pg_generate_options options;
            pg_inputs *in = NULL;
            pg_result *result = NULL;
            OK(pg_generate_options_init(&options, sizeof options));
            OK(create(&b, m, 0, NULL, &in));
            ERROR(pg_generate(m->model, m->processor, in, &options, &result), PG_ERROR_UNSUPPORTED);
            pg_inputs_close(&in);
        }
        free(b.pixels);
        free(alone.pixels);
        make_batch(&b, m, &(row_spec){0, 8, 3, 9}, 1, LEFT, 0);
        b.mask[4] = b.mask[5] = 0;
        change_reaches(m, &b, 0, 4, 4, 4);
        change_reaches(m, &b, WITHOUT_TYPES, 5, 5, 5);
        change_reaches(m, &b, WITHOUT_TYPES, 3, 3, 10);
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
    for (int i = 0; i < 5; i++) ERROR(pg_outputs_get_tensor(out, names[i], &tensor), PG_ERROR_NOT_FOUND);
    ERROR(pg_outputs_get_tensor(out, "attentions", &tensor), PG_ERROR_NOT_FOUND);
    ARGUMENT(pg_outputs_get_tensor(NULL, "logits", &tensor));
    ARGUMENT(pg_outputs_get_tensor(out, NULL, &tensor));
    ARGUMENT(pg_outputs_get_tensor(out, "logits", NULL));
    pg_outputs_close(&out);
    assert_null(out);
    pg_outputs_close(&out);
    pg_outputs_close(NULL);
    OK(create(&b, m, 0, NULL, &in));
    ARGUMENT(pg_forward(NULL, in, NULL, &out));
    ARGUMENT(pg_forward(m->model, NULL, NULL, &out));
    ARGUMENT(pg_forward(m->model, in, NULL, NULL));
    OK(embed(m->model, in, &out)); /* labels are there, a loss is not */
    ERROR(pg_outputs_get_tensor(out, "loss", &tensor), PG_ERROR_NOT_FOUND);
    ERROR(pg_outputs_get_tensor(out, "logits", &tensor), PG_ERROR_NOT_FOUND);
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
        OK(embed(m->model, in, &embedded));
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
        OK(pg_features_create(m->model, in, NULL, &features));
        OK(pg_features_get_tensor(features, &tensor));
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

/* One image's features serve each row of a batch, as if each had brought the image; two images serve rows of two. */
static void features_serve_each_row(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        const tiny *m = &models[i];
        static const row_spec shared[][3] = {{{1, 3, 2, 1}, {0, 4, 0, 2}, {1, 5, 0, 3}},
                                             {{2, 3, 2, 1}, {2, 4, 0, 2}, {0, 5, 0, 3}}};
        for (int n = 1; n <= 2; n++) {
            const size_t image = (size_t)(3 * m->info.image_size * m->info.image_size);
            pg_forward_options options = options_of(0);
            pg_inputs *in = NULL, *without = NULL;
            pg_outputs *given = NULL;
            batch b, one;
            make_batch(&b, m, shared[n - 1], 3, LEFT, 0);
            make_batch(&one, m, shared[n - 1], 1, LEFT, 0);
            memcpy(b.pixels + (size_t)n * image, b.pixels, (size_t)n * image * sizeof(float)); /* the second row's */
            memcpy(one.pixels, b.pixels, (size_t)n * image * sizeof(float));
            OK(create(&one, m, 0, NULL, &in));
            OK(create(&b, m, WITHOUT_PIXELS, NULL, &without));
            OK(pg_features_create(m->model, in, NULL, (pg_features **)&options.features));
            OK(pg_forward(m->model, without, &options, &given));
            pg_outputs *out = forward(m, &b, 0, 0);
            assert_memory_equal(logits_of(given, &b, m), logits_of(out, &b, m),
                                (size_t)(b.n_rows * b.n_tokens * m->info.vocab_size) * sizeof(float));
            get(given, "image_hidden_states", 3, n, m->info.n_image_tokens, m->hidden, 1);
            pg_outputs_close(&given);
            pg_outputs_close(&out);
            pg_features_close((pg_features **)&options.features);
            pg_inputs_close(&in);
            pg_inputs_close(&without);
            free(b.pixels);
            free(one.pixels);
        }
    }
}

/* The rows that the decoder is fed, as the first hidden states have them. */
static void embeddings_of_ids(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        const tiny *m = &models[i];
        static const row_spec prompt[] = {{0, 6, 0, 9}};
        batch b;
        make_batch(&b, m, prompt, 1, LEFT, 0);
        pg_outputs *out = forward(m, &b, WITHOUT_PIXELS, PG_FORWARD_HIDDEN_STATES);
        float *rows = malloc((size_t)(b.n_tokens * m->hidden) * sizeof *rows);
        OK(pg_model_embed(m->model, b.ids, (size_t)b.n_tokens, rows));
        assert_memory_equal(rows, get(out, "hidden_states", 4, m->n_layers + 1, 1, b.n_tokens, m->hidden),
                            (size_t)(b.n_tokens * m->hidden) * sizeof *rows);
        OK(pg_model_embed(m->model, b.ids, 0, rows));
        b.ids[2] = m->info.vocab_size;
        ARGUMENT(pg_model_embed(m->model, b.ids, 3, rows));
        assert_non_null(strstr(pg_last_error(), "token 2 is id "));
        b.ids[2] = -1;
        ARGUMENT(pg_model_embed(m->model, b.ids, 3, rows));
        free(rows);
        pg_outputs_close(&out);
        free(b.pixels);
    }
}

/* What was read from features makes features again, and what cannot be features is refused. */
static void features_from_a_tensor(void **state) {
    (void)state;
    const tiny *m = &models[0];
    pg_inputs *in = NULL, *without = NULL;
    pg_features *features = NULL, *again = NULL;
    pg_outputs *out = NULL;
    pg_tensor tensor = {.struct_size = sizeof tensor}, wrong;
    batch b;
    make_batch(&b, m, specs, 4, LEFT, 0);
    OK(create(&b, m, 0, NULL, &in));
    OK(create(&b, m, WITHOUT_PIXELS, NULL, &without));
    OK(pg_features_create(m->model, in, NULL, &features));
    OK(pg_features_get_tensor(features, &tensor));
    OK(pg_features_from_tensor(m->model, &tensor, &again));
    pg_forward_options options = options_of(0);
    options.features = again;
    OK(pg_forward(m->model, without, &options, &out));
    pg_outputs *expected = forward(m, &b, 0, 0);
    assert_memory_equal(logits_of(out, &b, m), logits_of(expected, &b, m),
                        (size_t)(b.n_rows * b.n_tokens * m->info.vocab_size) * sizeof(float));
    pg_outputs_close(&out);
    pg_outputs_close(&expected);
    pg_features_close(&again);

#define REFUSED(field, value)                                    \
    wrong = tensor, wrong.field = (value);                       \
    ARGUMENT(pg_features_from_tensor(m->model, &wrong, &again)); \
    assert_null(again)
    REFUSED(struct_size, 3);
    REFUSED(reserved, 1);
    REFUSED(dtype, PG_DTYPE_I64);
    REFUSED(n_dims, 2);
    REFUSED(shape[0], 0);
    REFUSED(shape[0], INT64_MAX);
    REFUSED(shape[1], m->info.n_image_tokens - 1);
    assert_non_null(strstr(pg_last_error(), "expected data of 3, images x "));
    REFUSED(shape[2], m->hidden + 1);
    REFUSED(data, NULL);
#undef REFUSED
    const size_t n = (size_t)(4 * m->info.n_image_tokens * m->hidden);
    float *nan = malloc(n * sizeof *nan);
    memcpy(nan, tensor.data, n * sizeof *nan);
    nan[m->info.n_image_tokens * m->hidden + 2 * m->hidden + 3] = NAN;
    wrong = tensor, wrong.data = nan;
    ARGUMENT(pg_features_from_tensor(m->model, &wrong, &again));
    assert_non_null(strstr(pg_last_error(), "image 1, token 2, column 3 are nan"));
    free(nan);
    pg_features_close(&features);
    pg_inputs_close(&in);
    pg_inputs_close(&without);
    free(b.pixels);
}

/* Two models of one size: the numbers, not the sizes, say whether features fit. */
static void features_of_another_model(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        const tiny *m = &models[i];
        tiny_options options = i == 0 ? tiny_official() : tiny_saved_today();
        pg_model_options model_options;
        pg_inputs *in = NULL;
        pg_features *features = NULL;
        batch b;
        options.head = TINY_HEAD_BOTH;
        tiny same = {0}, other = {0};
        open_tiny(&same, &options, NULL);
        options.seed++;
        open_tiny(&other, &options, NULL);
        make_batch(&b, m, specs, 4, LEFT, 0);
        OK(create(&b, m, WITHOUT_PIXELS, NULL, &in));
        pg_inputs *pixels = NULL;
        OK(create(&b, m, 0, NULL, &pixels));
        OK(pg_features_create(m->model, pixels, NULL, &features));
        pg_forward_options given = options_of(0);
        given.features = features;
        for (int again = 0; again < 2; again++) {
            pg_outputs *out = NULL;
            OK(pg_forward(same.model, in, &given, &out));
            pg_outputs_close(&out);
            ARGUMENT(pg_forward(other.model, in, &given, &out));
            assert_non_null(strstr(pg_last_error(), "the features are of another model"));
            assert_non_null(strstr(pg_last_error(), other.folder));
        }
        OK(pg_model_options_init(&model_options, sizeof model_options));
        model_options.weights = PG_WEIGHTS_INT8;
        pg_model *quantized = NULL;
        pg_outputs *out = NULL;
        OK(pg_model_open(m->folder, &model_options, &quantized));
        ARGUMENT(pg_forward(quantized, in, &given, &out));
        assert_non_null(strstr(pg_last_error(), "expected int8"));
        pg_model_close(&quantized);
        pg_features_close(&features);
        pg_inputs_close(&in);
        pg_inputs_close(&pixels);
        free(b.pixels);
        tiny *opened[] = {&same, &other};
        for (int k = 0; k < 2; k++) {
            pg_model_close(&opened[k]->model);
            pg_processor_close(&opened[k]->processor);
            remove_folder(opened[k]->folder);
        }
    }
}

/* The same files, a copy of them, and other weights: read into memory, and quantized on opening too, where nothing of
 * the originals is mapped or loaded. */
static void features_of_handles_that_are_not_mapped(void **state) {
    static const struct {
        uint32_t flags;
        int32_t weights;
    } ways[] = {{PG_MODEL_IN_MEMORY, PG_WEIGHTS_STORED}, {0, PG_WEIGHTS_INT8}, {PG_MODEL_IN_MEMORY, PG_WEIGHTS_INT4}};
    const tiny *m = &models[0];
    tiny_options options = tiny_official();
    tiny copy = {0}, other = {0};
    batch b;
    pg_inputs *in = NULL, *pixels = NULL;
    (void)state;
    options.head = TINY_HEAD_BOTH;
    open_tiny(&copy, &options, NULL);
    options.seed++;
    open_tiny(&other, &options, NULL);
    make_batch(&b, m, specs, 4, LEFT, 0);
    OK(create(&b, m, WITHOUT_PIXELS, NULL, &in));
    OK(create(&b, m, 0, NULL, &pixels));
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        const char *const folders[] = {m->folder, m->folder, copy.folder, other.folder};
        pg_model *opened[4] = {NULL};
        pg_features *features = NULL;
        pg_model_options model_options;
        pg_forward_options given = options_of(0);
        OK(pg_model_options_init(&model_options, sizeof model_options));
        model_options.weights = ways[i].weights;
        model_options.flags = ways[i].flags;
        for (int k = 0; k < 4; k++) OK(pg_model_open(folders[k], &model_options, &opened[k]));
        assert_true(pgi_tensor_files_same(opened[0]->files, opened[1]->files));
        assert_false(pgi_tensor_files_same(opened[0]->files, opened[2]->files));
        OK(pg_features_create(opened[0], pixels, NULL, &features));
        given.features = features;
        for (int again = 0; again < 2; again++)
            for (int k = 0; k < 4; k++) {
                pg_outputs *out = NULL;
                if (k < 3)
                    OK(pg_forward(opened[k], in, &given, &out));
                else
                    ARGUMENT(pg_forward(opened[k], in, &given, &out));
                pg_outputs_close(&out);
            }
        assert_non_null(strstr(pg_last_error(), "multi_modal_projector differs"));
        assert_int_equal(opened[1]->references, 1); /* features of the same files hold no other handle */
        pg_features_close(&features);
        for (int k = 0; k < 4; k++) pg_model_close(&opened[k]);
    }
    pg_inputs_close(&in);
    pg_inputs_close(&pixels);
    free(b.pixels);
    tiny *made[] = {&copy, &other};
    for (int k = 0; k < 2; k++) {
        pg_model_close(&made[k]->model);
        pg_processor_close(&made[k]->processor);
        remove_folder(made[k]->folder);
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
        /* merged already: the hidden states of layer 0, no images */
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
    OK(pg_features_create(m.model, in, NULL, &features));
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

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(padded_rows_are_the_single_rows),
        cmocka_unit_test(who_sees_whom),
        cmocka_unit_test(without_types_the_model_chooses),
        cmocka_unit_test(positions_pack_texts),
        cmocka_unit_test(a_hole_is_seen_by_nobody),
        cmocka_unit_test(a_window_holds_suffixes_alone),
        cmocka_unit_test(the_loss_by_hand),
        cmocka_unit_test(the_last_logits),
        cmocka_unit_test(what_was_not_asked_for_is_not_there),
        cmocka_unit_test(embed_is_the_last_hidden_state),
        cmocka_unit_test(features_in_place_of_pixels),
        cmocka_unit_test(features_serve_each_row),
        cmocka_unit_test(features_from_a_tensor),
        cmocka_unit_test(embeddings_of_ids),
        cmocka_unit_test(features_of_another_model),
        cmocka_unit_test(features_of_handles_that_are_not_mapped),
        cmocka_unit_test(embeddings_in_place_of_ids),
        cmocka_unit_test(outputs_outlive_all),
    };
    return RUN_TESTS(tests, open_models, close_models);
}
