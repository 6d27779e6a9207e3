/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Layers that share their x, and MLPs: the same bits as one layer after the other, whatever the threads. */
#include "check.h"

#include <math.h>
#include <string.h>

#include "kernels/quantized.h"

/* A layer of random weights; quantized from f32. */
static pgi_linear random_linear(check *c, int32_t dtype, int64_t in, int64_t out) {
    float *bias = guarded_floats(c, out), *values = guarded_floats(c, in * out);
    pgi_linear linear = {{values, PG_DTYPE_F32, out, in, NULL}, random_below(c, 2) ? bias : NULL, NULL};
    random_fill(c, bias, out);
    random_fill(c, values, in * out);
    if (!pgi_dtype_is_blocks(dtype)) return linear;
    void *blocks = guarded(c, (size_t)pgi_quantized_bytes(dtype, out, in), 0);
    if (pgi_quantize_panels(&linear.weight, 0, dtype, 0, pgi_quantized_panels(out), blocks) != PG_OK) fail(c, "status");
    linear.weight.data = blocks;
    linear.weight.dtype = dtype;
    return linear;
}

static void *scratch_of(check *c, int n_threads) { return guarded(c, pgi_linear_scratch(c->kernels, n_threads), 0); }

/* Dense y [rows, out] of one layer. */
static float *plain(check *c, const pgi_linear *linear, const float *x, int64_t x_stride, int64_t rows) {
    pgi_run run = run_on(c->kernels, 1);
    float *y = guarded_output(c, rows * linear->weight.rows);
    if (pgi_linear_forward(&run, x, x_stride, rows, linear, y, linear->weight.rows, scratch_of(c, 1)) != PG_OK)
        fail(c, "status");
    return y;
}

static void check_group_shape(check *c, const int32_t dtypes[3], int64_t rows, int64_t in, const int outs[3]) {
    const int64_t x_stride = in + random_below(c, 3);
    float *x = guarded_floats(c, x_stride * (rows - 1) + in), *expected[3];
    pgi_linear linears[3];
    random_fill(c, x, x_stride * (rows - 1) + in);
    for (int l = 0; l < 3; l++) {
        linears[l] = random_linear(c, dtypes[l], in, outs[l]);
        expected[l] = plain(c, &linears[l], x, x_stride, rows);
    }
    for (int n_threads = 1; n_threads <= MAX_THREADS; n_threads++) {
        pgi_run run = run_on(c->kernels, n_threads);
        pgi_linear_job outputs[3];
        for (int l = 0; l < 3; l++) {
            int64_t stride = outs[l] + random_below(c, 3);
            outputs[l] = (pgi_linear_job){&linears[l], guarded_output(c, stride * (rows - 1) + outs[l]), stride};
        }
        if (pgi_linear_group(&run, x, x_stride, rows, outputs, 3, scratch_of(c, n_threads)) != PG_OK) fail(c, "status");
        for (int l = 0; l < 3; l++) {
            for (int64_t i = 0; i < rows; i++) {
                const float *row = outputs[l].y + i * outputs[l].y_stride;
                if (memcmp(row, expected[l] + i * outs[l], (size_t)outs[l] * sizeof(float)))
                    fail(c, "layer %d of 3, %d x %d -> %d, row %d: other bits than alone", l, (int)rows, (int)in,
                         outs[l], (int)i);
                for (int64_t j = outs[l]; j < outputs[l].y_stride && i + 1 < rows; j++)
                    if (!isnan(row[j])) fail(c, "wrote between the rows");
            }
        }
    }
    release_all(c);
}

void check_group(check *c) {
    enum { F32 = PG_DTYPE_F32, INT8 = PGI_DTYPE_INT8_BLOCKS, INT4 = PGI_DTYPE_INT4_BLOCKS };
    static const int32_t dtypes[][3] = {
        {F32, F32, F32}, {INT8, INT8, INT8}, {INT4, INT4, INT4}, {INT8, INT4, INT4}, {INT4, INT8, F32}};
    static const int outs[][3] = {{300, 70, 70}, {16, 16, 1}, {1, 257, 33}};
    static const int64_t row_counts[] = {1, 4, 5, 29, 300};
    for (size_t d = 0; d < sizeof dtypes / sizeof *dtypes; d++)
        for (int s = 0; s < 3; s++)
            check_group_shape(c, dtypes[d], row_counts[random_below(c, 5)], s ? 129 : 600, outs[s]);
    check_group_shape(c, dtypes[1], 40, 2300, outs[0]); /* two parts of the summed dimension */
    check_group_shape(c, dtypes[2], 40, 2300, outs[0]);
}

static void check_mlp_shape(check *c, int32_t dtype, int64_t rows, int64_t in, int64_t width, int gated) {
    const int32_t activation = PGI_ACTIVATION_GELU_TANH + (int32_t)random_below(c, 4);
    float *x = guarded_floats(c, rows * in);
    random_fill(c, x, rows * in);
    pgi_linear gate = random_linear(c, dtype, in, width), up = random_linear(c, dtype, in, width);
    pgi_linear down = random_linear(c, dtype, width, in);
    const pgi_mlp mlp = {activation, gated ? &gate : NULL, &up, &down};

    pgi_run alone = run_on(c->kernels, 1);
    float *intermediate = plain(c, gated ? &gate : &up, x, in, rows);
    if (gated)
        pgi_gate(&alone, activation, intermediate, plain(c, &up, x, in, rows), rows * width);
    else
        pgi_activate(&alone, activation, intermediate, rows * width);
    const float *expected = plain(c, &down, intermediate, width, rows);
    for (int n_threads = 1; n_threads <= MAX_THREADS; n_threads++) {
        pgi_run run = run_on(c->kernels, n_threads);
        float *y = guarded_output(c, rows * in);
        void *values = guarded(c, (pgi_mlp_intermediate(c->kernels, rows, width, gated) + 63) / 64 * 64, 0);
        if (pgi_mlp_forward(&run, &mlp, x, rows, y, values, scratch_of(c, n_threads)) != PG_OK) fail(c, "status");
        if (memcmp(y, expected, (size_t)(rows * in) * sizeof(float)))
            fail(c, "%d x %d -> %d, dtype %d, gate %d, %d threads: other bits than layer by layer", (int)rows, (int)in,
                 (int)width, (int)dtype, gated, n_threads);
    }
    release_all(c);
}

void check_mlp(check *c) {
    static const int32_t dtypes[] = {PG_DTYPE_F32, PGI_DTYPE_INT8_BLOCKS, PGI_DTYPE_INT4_BLOCKS};
    static const int shapes[][2] = {{72, 300}, {129, 128}, {40, 33}, {1, 1}, {33, 2300}};
    static const int64_t row_counts[] = {1, 2, 4, 5, 6, 29, 150};
    for (int d = 0; d < 3; d++) {
        for (int s = 0; s < 5; s++)
            check_mlp_shape(c, dtypes[d], row_counts[random_below(c, 7)], shapes[s][0], shapes[s][1], s % 2);
        for (int r = 0; r < 7; r++) check_mlp_shape(c, dtypes[d], row_counts[r], 100, 200, r % 2);
        check_mlp_shape(c, dtypes[d], 600, 40, 150, d % 2); /* two blocks of rows */
    }
    pg_cancel flag = {.references = 1, .requested = 1};
    pgi_run run = run_on(c->kernels, 2);
    run.cancel = &flag;
    for (int d = 0; d < 3; d++) {
        pgi_linear up = random_linear(c, dtypes[d], 300, 1200), down = random_linear(c, dtypes[d], 1200, 300);
        const pgi_mlp mlp = {PGI_ACTIVATION_RELU, NULL, &up, &down};
        float *x = guarded_floats(c, 8 * 300), *y = guarded_output(c, 8 * 300);
        random_fill(c, x, 8 * 300);
        void *intermediate = guarded(c, (pgi_mlp_intermediate(c->kernels, 8, 1200, 0) + 63) / 64 * 64, 0);
        if (pgi_mlp_forward(&run, &mlp, x, 8, y, intermediate, scratch_of(c, 2)) != PG_ERROR_CANCELLED)
            fail(c, "the MLP goes on");
        release_all(c);
    }
}
