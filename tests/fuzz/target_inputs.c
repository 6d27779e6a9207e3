/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The caller's own arrays (pg_inputs_create()), and what is computed of those that are taken; features from numbers.
 * Three bytes say which arrays are given, rows and tokens; then a byte for each array says what is odd about it, with
 * what that needs, and its numbers follow. An array has the bytes that its shape says: a shape for which it cannot is
 * one that must be refused.
 */
#include <math.h>

#include "fuzz.h"

enum { N_ARRAYS = 7, MOST_VALUES = 1 << 14 };
enum { IDS, EMBEDS, MASK, TYPES, LABELS, POSITIONS, PIXELS };

typedef struct arrays {
    pg_tensor tensor[N_ARRAYS];
    void *data[N_ARRAYS];
} arrays;

/* Elements of a sound shape; -1 for another. */
static int64_t count(const pg_tensor *t) {
    int64_t n = 1;
    if (t->n_dims < 1 || t->n_dims > 4) return -1;
    for (int i = 0; i < t->n_dims; i++) {
        if (t->shape[i] < 0) return -1;
        n = t->shape[i] > MOST_VALUES || n * t->shape[i] > MOST_VALUES ? MOST_VALUES + 1 : n * t->shape[i];
    }
    return n;
}

/* What is odd about an array: nothing mostly. */
static void bend(fuzz_input *in, pg_tensor *t) {
    const int how = (int)fuzz_take(in, 1);
    if (how & 1) t->shape[how >> 1 & 3] = (int16_t)fuzz_take(in, 2);
    if (how & 8) t->n_dims = (int8_t)fuzz_take(in, 1);
    if (how & 16) t->dtype = (int8_t)fuzz_take(in, 1);
    if (how & 32) t->struct_size = (uint32_t)fuzz_take(in, 1) % (uint32_t)(sizeof *t + 1);
    if (how & 64) t->reserved = 1;
    if (t->shape[0] > 16) t->shape[0] %= 17;   /* rows: each takes its time */
    if (t->shape[1] > 512) t->shape[1] %= 513; /* tokens: attentions have a number for each two */
    if (count(t) > MOST_VALUES)
        for (int i = 0; i < t->n_dims; i++) t->shape[i] %= 11; /* 11 ^ 4 values at the most */
}

static float take_float(fuzz_input *in) {
    static const float special[] = {0, -1, 1e30f, NAN, INFINITY, 1e-40f};
    const int byte = (int)fuzz_take(in, 1);
    return byte < 6 ? special[byte] : (float)(byte - 128) / 64;
}

static int64_t image_id;

/* One byte a number, so that ids, masks and labels are mostly sound: 255 stands for -100, 254 for a large one, 253 for
 * `<image>`. */
static int64_t take_id(fuzz_input *in, int which) {
    const int64_t byte = (int64_t)fuzz_take(in, 1);
    if (which == MASK || which == TYPES) return byte < 250 ? byte & 1 : byte;
    return byte == 255 ? -100 : byte == 254 ? INT64_C(1) << 40 : byte == 253 ? image_id : byte;
}

static void *fill(fuzz_input *in, const pg_tensor *t, int which) {
    const int64_t n = count(t);
    const size_t each = t->dtype == PG_DTYPE_I64 ? 8 : t->dtype == PG_DTYPE_F32 ? 4 : 2;
    uint8_t *data = calloc(n > 0 ? (size_t)n : 1, each);
    if (!data) abort();
    for (int64_t i = 0; i < n && in->size; i++) {
        const float f32 = each == 4 ? take_float(in) : 0;
        const int64_t i64 = each == 8 ? take_id(in, which) : 0;
        memcpy(data + (size_t)i * each, each == 8 ? (const void *)&i64 : &f32, each < 4 ? 0 : each);
    }
    return data;
}

static void take_arrays(fuzz_input *in, arrays *a, pg_input_arrays *out, int64_t hidden, int64_t side) {
    const pg_tensor **given[] = {&out->input_ids, &out->inputs_embeds, &out->attention_mask, &out->token_type_ids,
                                 &out->labels,    &out->position_ids,  &out->pixel_values};
    const uint64_t which = fuzz_take(in, 1);
    const int64_t rows = (int64_t)fuzz_take(in, 1) % 4, tokens = (int64_t)fuzz_take(in, 1) % 40;
    for (int i = 0; i < N_ARRAYS; i++) {
        pg_tensor *t = &a->tensor[i];
        if (!(which >> i & 1)) continue;
        *t = (pg_tensor){.struct_size = sizeof *t, .dtype = PG_DTYPE_I64, .n_dims = 2, .shape = {rows, tokens, 1, 1}};
        if (i == EMBEDS) t->dtype = PG_DTYPE_F32, t->n_dims = 3, t->shape[2] = hidden;
        if (i == PIXELS)
            *t = (pg_tensor){
                .struct_size = sizeof *t, .dtype = PG_DTYPE_F32, .n_dims = 4, .shape = {rows, 3, side, side}};
        bend(in, t);
        t->data = a->data[i] = fill(in, t, i);
        *given[i] = t;
    }
}

static void compute(const pg_model *model, const pg_processor *processor, const pg_inputs *inputs, int how) {
    pg_forward_options forward;
    pg_generate_options generate;
    pg_run_options run;
    pg_outputs *outputs = NULL;
    pg_result *result = NULL;
    pg_features *features = NULL;
    pg_tensor tensor = {.struct_size = sizeof tensor};
    pg_forward_options_init(&forward, sizeof forward);
    pg_generate_options_init(&generate, sizeof generate);
    pg_run_options_init(&run, sizeof run);
    forward.n_threads = generate.n_threads = run.n_threads = 1;
    generate.max_new_tokens = 2;
    forward.flags = how & 1 ? PG_FORWARD_ATTENTIONS | PG_FORWARD_HIDDEN_STATES : how & 2 ? PG_FORWARD_SKIP_PADDING : 0;
    if (how & 4) forward.flags |= PG_FORWARD_LOSS_PER_ROW;
    if (MADE(pg_forward(model, inputs, &forward, &outputs), outputs))
        OK(pg_outputs_get_tensor(outputs, "loss", &tensor));
    MADE(pg_generate(model, processor, inputs, &generate, &result), result);
    MADE(pg_features_create(model, inputs, &run, &features), features);
    pg_outputs_close(&outputs);
    pg_result_close(&result);
    pg_features_close(&features);
}

static void try_features(const pg_model *model, const pg_tensor *values) {
    pg_features *features = NULL;
    if (MADE(pg_features_from_tensor(model, values, &features), features)) {
        size_t size = 0;
        OK(pg_features_to_bytes(features, NULL, 0, &size));
    }
    pg_features_close(&features);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_input in = {data, size};
    arrays a = {0};
    pg_input_arrays given;
    pg_inputs *inputs = NULL;
    int64_t hidden = 0, side = 0;
    const int how = (int)fuzz_take(&in, 1);
    const fuzz_folder_kind kind = how & 128 ? FUZZ_TODAY : FUZZ_OFFICIAL;
    const pg_model *model = fuzz_model(kind);
    OK(pg_model_get_config_int(model, "text_config.hidden_size", &hidden));
    OK(pg_model_get_config_int(model, "vision_config.image_size", &side));
    OK(pg_processor_get_token_id(fuzz_processor(kind), "<image>", &image_id));
    pg_input_arrays_init(&given, sizeof given);
    given.allocator = fuzz_allocator();
    take_arrays(&in, &a, &given, hidden, side);
    if (MADE(pg_inputs_create(&given, &inputs), inputs)) compute(model, fuzz_processor(kind), inputs, how);
    if (given.inputs_embeds) try_features(model, given.inputs_embeds);
    pg_inputs_close(&inputs);
    for (int i = 0; i < N_ARRAYS; i++) free(a.data[i]);
    return fuzz_end();
}
