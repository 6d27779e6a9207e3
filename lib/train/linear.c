/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * A linear layer in training. With u = dropout(x) and t = u A^T,
 *     y  = x W^T + bias + s t B^T
 *     dx = dy W + dropout'(s dy B A)       dA = (s dy B)^T u       dB = s dy^T t       dW = dy^T x       dbias = sum dy
 * PEFT: lora.Linear. int8 and int4 weights are multiplied as the f32 numbers that they stand for (QLoRA, arXiv
 * 2305.14314), not as inference does it, which rounds x as well.
 *
 * Dropout draws each value by a counter: SplitMix64 of a key and the value's place. So the same draw is made again when
 * a layer is computed again, on any thread.
 */
#include <string.h>

#include "base/parallel.h"
#include "kernels/kernels.h"
#include "kernels/quantized.h"
#include "train/layers.h"
#include "train/matmul.h"
#include "train/random.h"

enum { CHUNK = 16384, BIAS_COLUMNS = 256 /* of a task */, WEIGHTS = 4 << 20 /* values of a block of rows */ };

/* ---------------------------------------------------------------------------------------------------- dropout */

typedef struct dropout_task {
    uint64_t key, limit; /* a value is dropped where its number is below `limit` */
    float scale;
    const float *x;
    float *y;
    int add; /* y += the result */
} dropout_task;

static void drop_values(void *context, int64_t begin, int64_t end, int thread) {
    const dropout_task *t = context;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        const float factor = (pgi_mix64(t->key + (uint64_t)i) >> 32) < t->limit ? 0 : t->scale;
        t->y[i] = t->x[i] * factor + (t->add ? t->y[i] : 0);
    }
}

/* y = the dropout of x, or is added to; n values. */
static pg_status drop(const pgi_train_pass *pass, const pgi_trained_linear *layer, const float *x, int64_t n, float *y,
                      int add) {
    dropout_task t = {.key = pgi_mix64(pass->dropout_key + layer->index),
                      .limit = (uint64_t)(pass->dropout * 4294967296.0),
                      .scale = (float)(1 / (1 - pass->dropout)),
                      .x = x,
                      .y = y,
                      .add = add};
    return pgi_parallel_for(pass->run, n, CHUNK, drop_values, &t);
}

/* --------------------------------------------------------------------------------------------------- products */

static pg_status product(const pgi_train_pass *pass, pgi_matmul p) {
    return pgi_matmul_run(pass->run, &p, pass->matmul);
}

typedef struct expand_task {
    const pgi_run *run;
    const pgi_matrix *weight;
    int64_t first;
    float *to;
} expand_task;

static void expand_rows(void *context, int64_t begin, int64_t end, int thread) {
    const expand_task *t = context;
    (void)thread;
    for (int64_t r = begin; r < end; r++)
        pgi_matrix_row(t->run->kernels, t->weight, t->first + r, 1, t->to + r * t->weight->columns);
}

/* y = x W^T (back 0), or x W (back 1), or is added to. A quantized W comes in blocks of rows. */
static pg_status weight_product(const pgi_train_pass *pass, const pgi_matrix *w, const float *x, int64_t rows, int back,
                                float *y, int accumulate) {
    const int quantized = pgi_dtype_is_blocks(w->dtype);
    const int64_t block = quantized ? pass->n_weights / w->columns : w->rows;
    for (int64_t first = 0; first < w->rows; first += block) {
        const int64_t n = pgi_min64(block, w->rows - first);
        pgi_matmul p = {.m = rows, .scale = 1, .b = w->data, .b_dtype = w->dtype, .b_stride = w->columns};
        if (quantized) {
            expand_task t = {pass->run, w, first, pass->weights};
            PGI_TRY(pgi_parallel_for(pass->run, n, 16, expand_rows, &t));
            p.b = pass->weights;
            p.b_dtype = PG_DTYPE_F32;
        }
        p.a = back ? x + first : x;
        p.a_stride = back ? w->rows : w->columns;
        p.n = back ? w->columns : n;
        p.k = back ? n : w->columns;
        p.b_transposed = !back;
        p.c = back ? y : y + first;
        p.c_stride = back ? w->columns : w->rows;
        p.accumulate = accumulate || (back && first > 0);
        PGI_TRY(product(pass, p));
    }
    return PG_OK;
}

static pgi_matrix weight_of(const pgi_train_pass *pass, const pgi_trained_linear *layer) {
    pgi_matrix w = layer->frozen.weight;
    if (!layer->weight) return w;
    return (pgi_matrix){pgi_parameter_value(pass->parameters, layer->weight), PG_DTYPE_F32, w.rows, w.columns, NULL};
}

typedef struct bias_task {
    const float *bias, *dy;
    float *y, *sum;
    int64_t rows, columns;
} bias_task;

static void add_bias_rows(void *context, int64_t begin, int64_t end, int thread) {
    const bias_task *t = context;
    (void)thread;
    for (int64_t r = begin; r < end; r++)
        for (int64_t i = 0; i < t->columns; i++) t->y[r * t->columns + i] += t->bias[i];
}

static void sum_columns(void *context, int64_t begin, int64_t end, int thread) {
    const bias_task *t = context;
    (void)thread;
    for (int64_t r = 0; r < t->rows; r++)
        for (int64_t i = begin; i < end; i++) t->sum[i] += t->dy[r * t->columns + i];
}

/* What A reads: x, or its dropout. */
static pg_status read_by_a(const pgi_train_pass *pass, const pgi_trained_linear *layer, const float *x, int64_t rows,
                           const float **u) {
    *u = pass->dropout > 0 ? pass->dropped : x;
    if (pass->dropout <= 0) return PG_OK;
    return drop(pass, layer, x, rows * layer->frozen.weight.columns, pass->dropped, 0);
}

/* low [rows, rank] = u A^T */
static pg_status low_of(const pgi_train_pass *pass, const pgi_trained_linear *layer, const float *u, int64_t rows) {
    const int64_t in = layer->frozen.weight.columns;
    return product(pass, (pgi_matmul){.m = rows,
                                      .n = layer->rank,
                                      .k = in,
                                      .a = u,
                                      .a_stride = in,
                                      .b = pgi_parameter_value(pass->parameters, layer->a),
                                      .b_dtype = PG_DTYPE_F32,
                                      .b_stride = in,
                                      .b_transposed = 1,
                                      .c = pass->low,
                                      .c_stride = layer->rank,
                                      .scale = 1});
}

pg_status pgi_train_linear(const pgi_train_pass *pass, const pgi_trained_linear *layer, const float *x, int64_t rows,
                           float *y) {
    const pgi_matrix w = weight_of(pass, layer);
    const float *bias = layer->bias ? pgi_parameter_value(pass->parameters, layer->bias) : layer->frozen.bias;
    PGI_TRY(weight_product(pass, &w, x, rows, 0, y, 0));
    if (bias) {
        bias_task t = {.bias = bias, .y = y, .columns = w.rows};
        PGI_TRY(pgi_parallel_for(pass->run, rows, pgi_max64(1, CHUNK / w.rows), add_bias_rows, &t));
    }
    if (!layer->a) return PG_OK;
    const float *u;
    PGI_TRY(read_by_a(pass, layer, x, rows, &u));
    PGI_TRY(low_of(pass, layer, u, rows));
    return product(pass, (pgi_matmul){.m = rows,
                                      .n = w.rows,
                                      .k = layer->rank,
                                      .a = pass->low,
                                      .a_stride = layer->rank,
                                      .b = pgi_parameter_value(pass->parameters, layer->b),
                                      .b_dtype = PG_DTYPE_F32,
                                      .b_stride = layer->rank,
                                      .b_transposed = 1,
                                      .c = y,
                                      .c_stride = w.rows,
                                      .accumulate = 1,
                                      .scale = layer->scale});
}

/* The gradients of A and B, and low_gradient [rows, rank] = s dy B. */
static pg_status low_rank_back(const pgi_train_pass *pass, const pgi_trained_linear *layer, const float *u,
                               int64_t rows, const float *dy) {
    const int64_t in = layer->frozen.weight.columns, out = layer->frozen.weight.rows, rank = layer->rank;
    PGI_TRY(low_of(pass, layer, u, rows));
    PGI_TRY(product(pass, (pgi_matmul){.m = rows,
                                       .n = rank,
                                       .k = out,
                                       .a = dy,
                                       .a_stride = out,
                                       .b = pgi_parameter_value(pass->parameters, layer->b),
                                       .b_dtype = PG_DTYPE_F32,
                                       .b_stride = rank,
                                       .c = pass->low_gradient,
                                       .c_stride = rank,
                                       .scale = layer->scale}));
    PGI_TRY(product(pass, (pgi_matmul){.m = out,
                                       .n = rank,
                                       .k = rows,
                                       .a = dy,
                                       .a_stride = out,
                                       .a_transposed = 1,
                                       .b = pass->low,
                                       .b_dtype = PG_DTYPE_F32,
                                       .b_stride = rank,
                                       .c = pgi_parameter_gradient(pass->parameters, layer->b),
                                       .c_stride = rank,
                                       .accumulate = 1,
                                       .scale = layer->scale}));
    return product(pass, (pgi_matmul){.m = rank,
                                      .n = in,
                                      .k = rows,
                                      .a = pass->low_gradient,
                                      .a_stride = rank,
                                      .a_transposed = 1,
                                      .b = u,
                                      .b_dtype = PG_DTYPE_F32,
                                      .b_stride = in,
                                      .c = pgi_parameter_gradient(pass->parameters, layer->a),
                                      .c_stride = in,
                                      .accumulate = 1,
                                      .scale = 1});
}

/* dx += dropout'(low_gradient A) */
static pg_status add_low_rank_input(const pgi_train_pass *pass, const pgi_trained_linear *layer, int64_t rows,
                                    float *dx) {
    const int64_t in = layer->frozen.weight.columns;
    float *to = pass->dropout > 0 ? pass->dropped : dx; /* u is not needed any more */
    PGI_TRY(product(pass, (pgi_matmul){.m = rows,
                                       .n = in,
                                       .k = layer->rank,
                                       .a = pass->low_gradient,
                                       .a_stride = layer->rank,
                                       .b = pgi_parameter_value(pass->parameters, layer->a),
                                       .b_dtype = PG_DTYPE_F32,
                                       .b_stride = in,
                                       .c = to,
                                       .c_stride = in,
                                       .accumulate = to == dx,
                                       .scale = 1}));
    return to == dx ? PG_OK : drop(pass, layer, to, rows * in, dx, 1);
}

pg_status pgi_train_linear_back(const pgi_train_pass *pass, const pgi_trained_linear *layer, const float *x,
                                int64_t rows, const float *dy, float *dx, int accumulate) {
    const pgi_matrix w = weight_of(pass, layer);
    if (layer->weight)
        PGI_TRY(product(pass, (pgi_matmul){.m = w.rows,
                                           .n = w.columns,
                                           .k = rows,
                                           .a = dy,
                                           .a_stride = w.rows,
                                           .a_transposed = 1,
                                           .b = x,
                                           .b_dtype = PG_DTYPE_F32,
                                           .b_stride = w.columns,
                                           .c = pgi_parameter_gradient(pass->parameters, layer->weight),
                                           .c_stride = w.columns,
                                           .accumulate = 1,
                                           .scale = 1}));
    if (layer->bias) {
        bias_task t = {
            .dy = dy, .sum = pgi_parameter_gradient(pass->parameters, layer->bias), .rows = rows, .columns = w.rows};
        PGI_TRY(pgi_parallel_for(pass->run, w.rows, BIAS_COLUMNS, sum_columns, &t));
    }
    if (dx) PGI_TRY(weight_product(pass, &w, dy, rows, 1, dx, accumulate));
    if (!layer->a) return PG_OK;
    const float *u;
    PGI_TRY(read_by_a(pass, layer, x, rows, &u));
    PGI_TRY(low_rank_back(pass, layer, u, rows, dy));
    return dx ? add_low_rank_input(pass, layer, rows, dx) : PG_OK;
}

pgi_train_pass pgi_train_pass_lay_out(pgi_arena *arena, const pgi_run *run, const pgi_trained_model *trained,
                                      const pgi_parameters *parameters, double dropout, int64_t rows) {
    const pgi_config *config = &trained->model->config;
    const size_t n = (size_t)rows, rank = (size_t)trained->max_rank;
    int64_t widest = config->text.intermediate_size;
    widest = pgi_max64(widest, (int64_t)config->text.n_heads * config->text.head_dim);
    widest = pgi_max64(widest, config->text.hidden_size);
    widest = pgi_max64(widest, config->vision.intermediate_size);
    widest = pgi_max64(widest, config->vision.hidden_size);
    widest = pgi_max64(widest, 3 * (int64_t)config->vision.patch_size * config->vision.patch_size);
    pgi_train_pass pass = {.run = run, .parameters = parameters, .dropout = dropout};
    pass.matmul = pgi_arena_take(arena, pgi_matmul_scratch(run->kernels, run->n_threads), 1);
    if (trained->model->weights.format != PG_WEIGHTS_STORED) {
        pass.n_weights = pgi_max64(WEIGHTS, widest);
        pass.weights = pgi_arena_take(arena, (size_t)pass.n_weights, sizeof(float));
    }
    pass.dropped = dropout > 0 ? pgi_arena_take(arena, n * (size_t)widest, sizeof(float)) : NULL;
    pass.low = pgi_arena_take(arena, n * rank, sizeof(float));
    pass.low_gradient = pgi_arena_take(arena, n * rank, sizeof(float));
    pass.row_numbers = pgi_arena_take(arena, 2 * n, sizeof(float));
    return pass;
}
