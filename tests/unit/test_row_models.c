/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* A batch whose rows have model handles of their own: each row gives, to the bit, what it gives alone with its handle.
 */
#include "run_tests.h"

#include "forward_fixture.h"
#include "tiny_adapter.h"

enum {
    SAVED = N_TINY_ADAPTERS, /* q of layer 0, out and a norm of layer 1 and the head saved whole; LoRA on out */
    LARGE,                   /* LoRA of a rank that an MLP of int8 does not fuse */
    N_KINDS,
    BASE = N_KINDS, /* the base itself */
    N_HANDLES,
    LARGE_RANK = 70,
    MOST_TEXTS = 20,
    N_IDS = 24
};

#define LAYER "base_model.model.model.language_model.layers.0."

static char folders[2][N_KINDS][512]; /* of each model */

static void write_saved(const char *path, int64_t vocab_size) {
    const adapter_tensor tensors[] = {
        {LAYER "self_attn.q_proj.weight", 2, {TINY_T_HIDDEN, TINY_T_HIDDEN}, 0, 0.3f},
        {"base_model.model.model.language_model.layers.1.self_attn.o_proj.weight",
         2,
         {TINY_T_HIDDEN, TINY_T_HIDDEN},
         0,
         0.3f},
        {"base_model.model.model.language_model.layers.1.input_layernorm.weight", 1, {TINY_T_HIDDEN}, 0, 0.2f},
        {"base_model.model.lm_head.weight", 2, {vocab_size, TINY_T_HIDDEN}, 0, 0.3f},
        {LAYER "self_attn.o_proj.lora_A.weight", 2, {3, TINY_T_HIDDEN}, 0, 0.2f},
        {LAYER "self_attn.o_proj.lora_B.weight", 2, {TINY_T_HIDDEN, 3}, 0, 0.2f}};
    adapter_write(path, "{\"peft_type\":\"LORA\",\"r\":3,\"lora_alpha\":6,\"modules_to_save\":[\"q_proj\"]}", tensors,
                  6, PG_DTYPE_F32, 17);
}

static void write_large(const char *path) {
    const adapter_tensor tensors[] = {
        {LAYER "mlp.down_proj.lora_A.weight", 2, {LARGE_RANK, TINY_T_INTER}, 0, 0.1f},
        {LAYER "mlp.down_proj.lora_B.weight", 2, {TINY_T_HIDDEN, LARGE_RANK}, 0, 0.1f},
        {LAYER "self_attn.q_proj.lora_A.weight", 2, {LARGE_RANK, TINY_T_HIDDEN}, 0, 0.1f},
        {LAYER "self_attn.q_proj.lora_B.weight", 2, {TINY_T_HIDDEN, LARGE_RANK}, 0, 0.1f}};
    adapter_write(path, "{\"peft_type\":\"LORA\",\"r\":70,\"lora_alpha\":70}", tensors, 4, PG_DTYPE_F32, 19);
}

static int open_all(void **state) {
    if (open_models(state) != 0) return -1;
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < N_KINDS; k++) {
            make_temp_folder(folders[i][k], sizeof folders[i][k]);
            if (k == SAVED)
                write_saved(folders[i][k], models[i].info.vocab_size);
            else if (k == LARGE)
                write_large(folders[i][k]);
            else
                tiny_adapter_write(folders[i][k], k, models[i].info.vocab_size, 11 + (uint64_t)k);
        }
    return 0;
}

static int close_all(void **state) {
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < N_KINDS; k++) remove_folder(folders[i][k]);
    return close_models(state);
}

/* A handle for each kind, on one base. */
static void open_handles(int i, int32_t weights, pg_model *handles[N_HANDLES]) {
    handles[BASE] = open_format(&models[i], weights);
    for (int k = 0; k < N_KINDS; k++) {
        pg_adapter *adapter = NULL;
        OK(pg_adapter_open(handles[BASE], folders[i][k], NULL, &adapter));
        OK(pg_model_adapt(handles[BASE], (const pg_adapter *const *)&adapter, NULL, 1, &handles[k]));
        pg_adapter_close(&adapter);
    }
}

static void close_handles(pg_model *handles[N_HANDLES]) {
    for (int k = 0; k < N_HANDLES; k++) pg_model_close(&handles[k]);
}

static pg_generate_options generating(int32_t n_threads) {
    pg_generate_options options;
    OK(pg_generate_options_init(&options, sizeof options));
    options.flags = PG_GENERATE_LOG_PROBS | PG_GENERATE_LOGITS;
    options.max_new_tokens = 5;
    options.n_threads = n_threads;
    return options;
}

static void same_tensor(const pg_result *a, int64_t row_a, const pg_result *b, int64_t row_b, const char *name) {
    pg_tensor x = {.struct_size = sizeof x}, y = x;
    size_t n = 4;
    OK(pg_result_get_tensor(a, row_a, name, &x));
    OK(pg_result_get_tensor(b, row_b, name, &y));
    for (int d = 0; d < 4; d++) {
        assert_int_equal(x.shape[d], y.shape[d]);
        n *= (size_t)x.shape[d];
    }
    assert_memory_equal(x.data, y.data, n);
}

/* Ids, text and the logits of every step. */
static void same_bits(const pg_result *a, int64_t row_a, const pg_result *b, int64_t row_b) {
    same_row(a, row_a, b, row_b);
    same_tensor(a, row_a, b, row_b, "logits");
}

/* n rows of drawn text, padded on the left to different lengths, or row `only` of them. */
static pg_inputs *texts(const tiny *m, int n, int only) {
    static int64_t ids[MOST_TEXTS * N_IDS], mask[MOST_TEXTS * N_IDS], types[MOST_TEXTS * N_IDS];
    for (int r = 0; r < n; r++) {
        rng random = {(uint64_t)r + 1};
        for (int k = 0; k < N_IDS; k++) {
            ids[r * N_IDS + k] = 4 + (int64_t)rng_below(&random, (uint64_t)m->image_id - 4);
            mask[r * N_IDS + k] = k >= (r < 8 ? r % 5 : r * 7 % 21);
        }
    }
    const int64_t *const data[3] = {ids, mask, types};
    pg_tensor tensors[3];
    for (int i = 0; i < 3; i++)
        tensors[i] = (pg_tensor){.struct_size = sizeof tensors[i],
                                 .dtype = PG_DTYPE_I64,
                                 .n_dims = 2,
                                 .shape = {only < 0 ? n : 1, N_IDS, 1, 1},
                                 .data = data[i] + (only < 0 ? 0 : only * N_IDS)};
    pg_input_arrays arrays;
    pg_inputs *in = NULL;
    OK(pg_input_arrays_init(&arrays, sizeof arrays));
    arrays.input_ids = &tensors[0];
    arrays.attention_mask = &tensors[1];
    arrays.token_type_ids = &tensors[2];
    OK(pg_inputs_create(&arrays, &in));
    return in;
}

/* What rows have by turns: in some steps a handle's rows lie side by side, in others they do not. */
static int kind_of(int row) {
    static const int kinds[] = {ADAPTER_LORA, SAVED, BASE, ADAPTER_DORA, ADAPTER_LORA, LARGE, ADAPTER_WHOLE};
    return kinds[(row * 3 + row / 7) % 7];
}

/* ------------------------------------------------------------------------------------------------------- generation */

/* 20 rows, more than take a step together; short ones are prefilled together. */
static void rows_are_what_they_are_alone(void **state) {
    (void)state;
    for (int32_t weights = PG_WEIGHTS_STORED; weights <= PG_WEIGHTS_INT4; weights++)
        for (int i = 0; i < 2; i++) {
            const tiny *m = &models[i];
            pg_model *handles[N_HANDLES];
            const pg_model *rows[MOST_TEXTS];
            pg_inputs *in = texts(m, MOST_TEXTS, -1);
            pg_result *mixed[2] = {NULL};
            open_handles(i, weights, handles);
            for (int r = 0; r < MOST_TEXTS; r++) rows[r] = kind_of(r) == BASE ? NULL : handles[kind_of(r)];
            for (int k = 0; k < 2; k++) {
                pg_generate_options options = generating(k ? 3 : 1);
                options.row_models = rows;
                options.n_row_models = MOST_TEXTS;
                options.max_running = k ? 7 : 0;
                OK(pg_generate(handles[BASE], m->processor, in, &options, &mixed[k]));
            }
            pg_inputs_close(&in);
            for (int r = 0; r < MOST_TEXTS; r++) {
                const pg_generate_options options = generating(1);
                pg_result *alone = NULL;
                in = texts(m, MOST_TEXTS, r);
                OK(pg_generate(handles[kind_of(r)], m->processor, in, &options, &alone));
                for (int k = 0; k < 2; k++) same_bits(mixed[k], r, alone, 0);
                pg_result_close(&alone);
                pg_inputs_close(&in);
            }
            for (int k = 0; k < 2; k++) pg_result_close(&mixed[k]);
            close_handles(handles);
        }
}

/* Rows of one handle with weights of its own beside int8: more than four of those are no longer summed as one is. */
static void whole_modules_beside_int8(void **state) {
    const tiny *m = &models[0];
    pg_model *handles[N_HANDLES];
    pg_result *all = NULL;
    const pg_generate_options options = generating(1);
    pg_inputs *in = texts(m, MOST_TEXTS, -1);
    (void)state;
    open_handles(0, PG_WEIGHTS_INT8, handles);
    OK(pg_generate(handles[SAVED], m->processor, in, &options, &all));
    pg_inputs_close(&in);
    for (int r = 0; r < MOST_TEXTS; r++) {
        pg_result *alone = NULL;
        in = texts(m, MOST_TEXTS, r);
        OK(pg_generate(handles[SAVED], m->processor, in, &options, &alone));
        same_bits(all, r, alone, 0);
        pg_result_close(&alone);
        pg_inputs_close(&in);
    }
    pg_result_close(&all);
    close_handles(handles);
}

enum { DRAWS = 1, BEAMS = 2, EMBEDS = 4 };

typedef struct settings {
    pg_generate_options options;
    pg_sampling_options sampling;
    pg_beam_options beams;
} settings;

static void set(settings *s, int what, int32_t n_threads) {
    s->options = generating(n_threads);
    OK(pg_sampling_options_init(&s->sampling, sizeof s->sampling));
    OK(pg_beam_options_init(&s->beams, sizeof s->beams));
    s->options.sampling = &s->sampling;
    s->options.beams = &s->beams;
    s->options.n_return = what & (DRAWS | BEAMS) ? 2 : 1;
    s->beams.n_beams = what & BEAMS ? 3 : 1;
    if (what & DRAWS) s->sampling.flags = PG_SAMPLING_RANDOM;
}

/* The embeddings of a batch, each row by its handle. */
static float *embeddings(const tiny *m, const batch *b, const pg_model *const *rows) {
    float *x = malloc((size_t)(b->n_rows * b->n_tokens * m->hidden) * sizeof *x);
    for (int64_t r = 0; r < b->n_rows; r++)
        OK(pg_model_embed(rows[r], b->ids + r * b->n_tokens, (size_t)b->n_tokens, x + r * b->n_tokens * m->hidden));
    return x;
}

static void run_batch(const tiny *m, const pg_model *of, const batch *b, const pg_model *const *rows, const settings *s,
                      int what, pg_result **out) {
    pg_inputs *in = NULL;
    float *x = what & EMBEDS ? embeddings(m, b, rows) : NULL;
    OK(create(b, m, WITHOUT_LABELS | (x ? WITHOUT_IDS : 0), x, &in));
    OK(pg_generate(of, m->processor, in, &s->options, out));
    pg_inputs_close(&in);
    free(x);
}

/* Rows with and without images, of handles that look at images in other ways, too: plainly, drawn, searched, and from
 * embeddings, of which each handle tells image tokens by its own. */
static void images_draws_and_beams(void **state) {
    static const int kinds[] = {ADAPTER_WHOLE, ADAPTER_DORA, BASE, ADAPTER_LORA, SAVED, ADAPTER_WHOLE, ADAPTER_DORA};
    static const int ways[] = {0, DRAWS, BEAMS, BEAMS | DRAWS, EMBEDS};
    (void)state;
    for (int way = 0; way < 5; way++)
        for (int i = 0; i < 2; i++) {
            const tiny *m = &models[i];
            pg_model *handles[N_HANDLES];
            const pg_model *rows[7];
            settings s;
            batch b;
            pg_result *mixed = NULL;
            open_handles(i, PG_WEIGHTS_STORED, handles);
            for (int r = 0; r < 7; r++) rows[r] = handles[kinds[(r + way) % 7]];
            make_batch(&b, m, specs, 7, LEFT, 1);
            set(&s, ways[way], 3);
            s.options.row_models = rows;
            s.options.n_row_models = 7;
            run_batch(m, handles[LARGE], &b, rows, &s, ways[way], &mixed);
            for (int r = 0; r < 7; r++) {
                batch one;
                pg_result *alone = NULL;
                make_batch(&one, m, &specs[r], 1, LEFT, 1);
                set(&s, ways[way], 1);
                run_batch(m, rows[r], &one, &rows[r], &s, ways[way], &alone);
                for (int k = 0; k < s.options.n_return; k++) {
                    same_bits(mixed, (int64_t)r * s.options.n_return + k, alone, k);
                    if (ways[way] & BEAMS)
                        same_tensor(mixed, (int64_t)r * s.options.n_return + k, alone, k, "beam_logits");
                }
                pg_result_close(&alone);
                free(one.pixels);
            }
            pg_result_close(&mixed);
            free(b.pixels);
            close_handles(handles);
        }
}

/* An entry NULL is the call's handle, be it adapted; the base is named. Adapters and handles may be closed: before the
 * call, the adapters; while it runs, from a callback, the rest. */
static pg_model *closed[N_HANDLES];

static int32_t close_them(void *user, int64_t row, const char *text, size_t size, int64_t token) {
    (void)user, (void)row, (void)text, (void)size, (void)token;
    close_handles(closed);
    return 0;
}

static void handles_stay_during_the_call(void **state) {
    const tiny *m = &models[1];
    pg_inputs *in = texts(m, 3, -1);
    pg_result *mixed = NULL, *alone = NULL;
    pg_generate_options options = generating(1);
    (void)state;
    open_handles(1, PG_WEIGHTS_INT4, closed);
    const pg_model *const rows[3] = {NULL, closed[BASE], closed[ADAPTER_DORA]};
    options.row_models = rows;
    options.n_row_models = 3;
    options.on_text = close_them;
    OK(pg_generate(closed[ADAPTER_LORA], m->processor, in, &options, &mixed));
    assert_null(closed[BASE]);
    pg_inputs_close(&in);
    open_handles(1, PG_WEIGHTS_INT4, closed);
    static const int kinds[] = {ADAPTER_LORA, BASE, ADAPTER_DORA};
    for (int r = 0; r < 3; r++) {
        options = generating(1);
        in = texts(m, 3, r);
        OK(pg_generate(closed[kinds[r]], m->processor, in, &options, &alone));
        same_bits(mixed, r, alone, 0);
        pg_result_close(&alone);
        pg_inputs_close(&in);
    }
    pg_result_close(&mixed);
    close_handles(closed);
}

/* ---------------------------------------------------------------------------------------------------------- forward */

static pg_outputs *forward_rows(const pg_model *of, const tiny *m, const batch *b, const pg_model *const *rows,
                                const pg_features *features) {
    pg_forward_options options = options_of(PG_FORWARD_SKIP_PADDING | PG_FORWARD_HIDDEN_STATES);
    pg_inputs *in = NULL;
    pg_outputs *out = NULL;
    options.row_models = rows;
    options.n_row_models = rows ? b->n_rows : 0;
    options.features = features;
    OK(create(b, m, 0, NULL, &in));
    OK(pg_forward(of, in, &options, &out));
    pg_inputs_close(&in);
    return out;
}

/* What logits, hidden states and the loss of a batch are, beside those of each row alone. */
static void same_forward(const tiny *m, const batch *b, const pg_model *const *rows, const pg_outputs *mixed) {
    double losses = 0, n_labels = 0;
    for (int r = 0; r < b->n_rows; r++) {
        batch one;
        make_batch(&one, m, &specs[r], 1, LEFT, 1);
        pg_outputs *alone = forward_rows(rows[r], m, &one, NULL, NULL);
        const int64_t v = m->info.vocab_size, n = b->length[r], at = r * b->n_tokens + b->first[r];
        assert_memory_equal(logits_of(mixed, b, m) + at * v, logits_of(alone, &one, m) + one.first[0] * v,
                            (size_t)(n * v) * sizeof(float));
        const float *states = get(mixed, "hidden_states", 4, m->n_layers + 1, b->n_rows, b->n_tokens, m->hidden);
        const float *own = get(alone, "hidden_states", 4, m->n_layers + 1, 1, one.n_tokens, m->hidden);
        for (int64_t l = 0; l <= m->n_layers; l++)
            assert_memory_equal(states + (l * b->n_rows * b->n_tokens + at) * m->hidden,
                                own + (l * one.n_tokens + one.first[0]) * m->hidden,
                                (size_t)(n * m->hidden) * sizeof(float));
        if (specs[r].n_suffix > 0) losses += (double)loss_of(alone) * specs[r].n_suffix;
        n_labels += specs[r].n_suffix;
        pg_outputs_close(&alone);
        free(one.pixels);
    }
    assert_true(fabs(losses / n_labels - (double)loss_of(mixed)) < 1e-4);
}

static void forward_of_each_row(void **state) {
    (void)state;
    for (int32_t weights = PG_WEIGHTS_STORED; weights <= PG_WEIGHTS_INT8; weights++)
        for (int i = 0; i < 2; i++) {
            const tiny *m = &models[i];
            pg_model *handles[N_HANDLES];
            batch b;
            open_handles(i, weights, handles);
            const pg_model *const rows[7] = {handles[ADAPTER_WHOLE], handles[ADAPTER_DORA], handles[BASE],
                                             handles[SAVED],         handles[SAVED],        handles[LARGE],
                                             handles[ADAPTER_LORA]};
            make_batch(&b, m, specs, 7, LEFT, 2);
            pg_outputs *mixed = forward_rows(handles[BASE], m, &b, rows, NULL);
            same_forward(m, &b, rows, mixed);
            pg_outputs_close(&mixed);
            free(b.pixels);
            close_handles(handles);
        }
}

/* The labels of rows whose logits are not kept wait for a head: each for its own. */
static void losses_wait_for_their_heads(void **state) {
    const tiny *m = &models[0];
    pg_model *handles[N_HANDLES];
    batch b;
    pg_inputs *in = NULL;
    pg_outputs *out[2] = {NULL};
    (void)state;
    open_handles(0, PG_WEIGHTS_STORED, handles);
    const pg_model *const rows[3] = {handles[SAVED], handles[BASE], handles[SAVED]};
    make_batch(&b, m, specs, 3, LEFT, 0);
    OK(create(&b, m, 0, NULL, &in));
    for (int k = 0; k < 2; k++) {
        pg_forward_options options = options_of(k ? PG_FORWARD_NO_LOGITS : 0);
        options.row_models = rows;
        options.n_row_models = 3;
        OK(pg_forward(handles[BASE], in, &options, &out[k]));
    }
    assert_true(fabs((double)loss_of(out[0]) - (double)loss_of(out[1])) < 1e-4);
    for (int k = 0; k < 2; k++) pg_outputs_close(&out[k]);
    pg_inputs_close(&in);
    free(b.pixels);
    close_handles(handles);
}

/* --------------------------------------------------------------------------------------------------------- refusals */

static void expect_refused(const pg_model *of, const pg_inputs *in, const pg_model *const *rows, int64_t n,
                           const pg_features *features, const char *text) {
    pg_generate_options generate_options = generating(1);
    pg_forward_options forward_options = options_of(0);
    pg_result *result = NULL;
    pg_outputs *out = NULL;
    generate_options.row_models = forward_options.row_models = rows;
    generate_options.n_row_models = forward_options.n_row_models = n;
    generate_options.features = forward_options.features = features;
    ARGUMENT(pg_generate(of, NULL, in, &generate_options, &result));
    if (!strstr(pg_last_error(), text)) fail_msg("%s: expected %s", pg_last_error(), text);
    ARGUMENT(pg_forward(of, in, &forward_options, &out));
    if (!strstr(pg_last_error(), text)) fail_msg("%s: expected %s", pg_last_error(), text);
}

static void what_rows_refuse(void **state) {
    const tiny *m = &models[0];
    pg_model *handles[N_HANDLES], *other = open_format(m, PG_WEIGHTS_STORED); /* of the same folder */
    pg_features *features = NULL;
    pg_inputs *in = NULL;
    batch b;
    (void)state;
    open_handles(0, PG_WEIGHTS_STORED, handles);
    make_batch(&b, m, specs, 2, LEFT, 0);
    OK(create(&b, m, 0, NULL, &in));
    const pg_model *rows[2] = {handles[ADAPTER_LORA], other};
    expect_refused(handles[BASE], in, rows, 2, NULL, "row_models[1] is a handle on another base");
    assert_int_equal(pg_last_error_row(), 1);
    expect_refused(handles[ADAPTER_DORA], in, rows, 2, NULL, "row_models[1] is a handle on another base");
    rows[1] = NULL;
    expect_refused(handles[BASE], in, rows, 1, NULL, "n_row_models is 1, expected 0 or 2");
    expect_refused(handles[BASE], in, rows, 3, NULL, "n_row_models is 3, expected 0 or 2");
    expect_refused(handles[BASE], in, rows, -1, NULL, "n_row_models is -1, expected 0 or 2");
    expect_refused(handles[BASE], in, NULL, 2, NULL, "row_models is NULL, expected 2 handles");
    /* features of the base serve rows that look at images as it does: row 0 has one, row 1 none */
    OK(pg_features_create(handles[BASE], in, NULL, &features));
    rows[0] = handles[ADAPTER_LORA], rows[1] = handles[ADAPTER_WHOLE];
    pg_outputs *out = forward_rows(handles[ADAPTER_WHOLE], m, &b, rows, features);
    pg_outputs *same = forward_rows(handles[ADAPTER_WHOLE], m, &b, rows, NULL);
    assert_memory_equal(logits_of(out, &b, m), logits_of(same, &b, m),
                        (size_t)(b.n_rows * b.n_tokens * m->info.vocab_size) * sizeof(float));
    pg_outputs_close(&out);
    pg_outputs_close(&same);
    rows[0] = handles[ADAPTER_WHOLE];
    expect_refused(handles[BASE], in, rows, 2, features,
                   "row_models[0]: the features are of a model with other adapters");
    assert_int_equal(pg_last_error_row(), 0);
    pg_features_close(&features);
    pg_inputs_close(&in);
    free(b.pixels);
    pg_model_close(&other);
    close_handles(handles);
}

/* As in HF, image tokens take the images one after the other: half an image may be left for the next row. Two encoders
 * cannot look at it. */
static void halves_of_images(void **state) {
    const tiny *m = &models[0];
    static const row_spec halves[] = {{1, 4, 0, 1}, {1, 9, 0, 2}};
    pg_model *handles[N_HANDLES];
    pg_inputs *in = NULL;
    batch b;
    (void)state;
    open_handles(0, PG_WEIGHTS_STORED, handles);
    make_batch(&b, m, halves, 2, LEFT, 0);
    const int64_t n = m->info.n_image_tokens;
    b.ids[b.first[0] + n - 1] = 5; /* row 0 lacks an image token, row 1 has one too many */
    b.ids[b.n_tokens + b.first[1] + n] = m->image_id;
    OK(create(&b, m, 0, NULL, &in));
    const pg_model *const rows[2] = {handles[ADAPTER_WHOLE], handles[BASE]};
    expect_refused(handles[BASE], in, rows, 2, NULL, "row 1 has a part of image 0");
    const pg_model *const alike[2] = {handles[ADAPTER_LORA], handles[BASE]};
    pg_outputs *out = forward_rows(handles[BASE], m, &b, alike, NULL);
    pg_outputs_close(&out);
    pg_inputs_close(&in);
    free(b.pixels);
    close_handles(handles);
}

static void a_cancelled_call(void **state) {
    const tiny *m = &models[0];
    pg_model *handles[N_HANDLES];
    pg_cancel *cancel = NULL;
    pg_result *result = NULL;
    pg_inputs *in = texts(m, 4, -1);
    pg_generate_options options = generating(3);
    (void)state;
    open_handles(0, PG_WEIGHTS_INT8, handles);
    const pg_model *const rows[4] = {handles[ADAPTER_LORA], NULL, handles[SAVED], handles[ADAPTER_DORA]};
    OK(pg_cancel_create(&cancel));
    pg_cancel_request(cancel);
    options.row_models = rows;
    options.n_row_models = 4;
    options.cancel = cancel;
    ERROR(pg_generate(handles[BASE], m->processor, in, &options, &result), PG_ERROR_CANCELLED);
    pg_cancel_close(&cancel);
    pg_inputs_close(&in);
    close_handles(handles);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_what_they_are_alone),
        cmocka_unit_test(whole_modules_beside_int8),
        cmocka_unit_test(images_draws_and_beams),
        cmocka_unit_test(handles_stay_during_the_call),
        cmocka_unit_test(forward_of_each_row),
        cmocka_unit_test(losses_wait_for_their_heads),
        cmocka_unit_test(what_rows_refuse),
        cmocka_unit_test(halves_of_images),
        cmocka_unit_test(a_cancelled_call),
    };
    return RUN_TESTS(tests, open_all, close_all);
}
