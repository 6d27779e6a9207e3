/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What adapters add to linear layers (ops/low_rank.h): against sums in double, and the same bits for a row whatever
 * lies beside it and however many threads there are. */
#include "check.h"

#include <math.h>
#include <string.h>

#include "kernels/quantized.h"
#include "ops/low_rank.h"
#include "ops/mixed.h"

/* A layer of random weights with a low-rank part; quantized from f32. */
typedef struct adapted {
    pgi_linear plain, linear; /* without and with it */
    pgi_low_rank added;
    float *a, *b, *gain, *constant; /* [rank, in], [out, rank], [out] or NULL */
    int rounds;                     /* A and B, and perhaps x and A x, become bf16 */
} adapted;

static void make(check *c, int32_t dtype, int64_t in, int64_t out, int64_t rank, adapted *m) {
    float *bias = guarded_floats(c, out), *values = guarded_floats(c, in * out);
    random_fill(c, bias, out);
    random_fill(c, values, in * out);
    m->plain = (pgi_linear){{values, PG_DTYPE_F32, out, in, NULL}, random_below(c, 2) ? bias : NULL, NULL};
    if (pgi_dtype_is_blocks(dtype)) {
        void *blocks = guarded(c, (size_t)pgi_quantized_bytes(dtype, out, in), 0);
        if (pgi_quantize_panels(&m->plain.weight, 0, dtype, 0, pgi_quantized_panels(out), blocks) != PG_OK)
            fail(c, "status");
        m->plain.weight = (pgi_matrix){blocks, dtype, out, in, NULL};
    }
    m->a = guarded_floats(c, rank * in);
    m->b = guarded_floats(c, out * rank);
    m->gain = random_below(c, 2) ? guarded_floats(c, out) : NULL;
    m->constant = random_below(c, 2) ? guarded_floats(c, out) : NULL;
    random_fill(c, m->a, rank * in);
    random_fill(c, m->b, out * rank);
    if (m->gain) random_fill(c, m->gain, out);
    if (m->constant) random_fill(c, m->constant, out);
    const int32_t format = pgi_dtype_is_blocks(dtype) ? PG_WEIGHTS_INT8 : PG_WEIGHTS_STORED;
    const pgi_matrix a = {m->a, PG_DTYPE_F32, rank, in, NULL};
    m->added = (pgi_low_rank){.gain = m->gain, .constant = m->constant};
    pgi_low_rank_make(c->kernels, format, &a, m->b, out, 0,
                      guarded(c, pgi_low_rank_size(c->kernels, format, &a, out, 0), 0), &m->added);
    m->rounds = format != PG_WEIGHTS_STORED;
    m->linear = m->plain;
    m->linear.low_rank = &m->added;
}

/* y [rows, out] of one layer, dense. */
static float *run_linear(check *c, const pgi_linear *linear, const float *x, int64_t rows, int n_threads) {
    pgi_run run = run_on(c->kernels, n_threads);
    float *y = guarded_output(c, rows * linear->weight.rows);
    if (pgi_linear_forward(&run, x, linear->weight.columns, rows, linear, y, linear->weight.rows,
                           guarded(c, pgi_linear_scratch(c->kernels, n_threads), 0)) != PG_OK)
        fail(c, "status");
    return y;
}

/* Half a step of a group of int8 whose largest value is that of v [n]. */
static double half_step(const float *v, int64_t n) {
    double largest = 0;
    for (int64_t i = 0; i < n; i++)
        if (fabs(v[i]) > largest) largest = fabs(v[i]);
    return largest / 254;
}

/* The error that A x may have where both are int8. */
static double int8_error(const float *a, const float *x, int64_t n) {
    double error = 0;
    for (int64_t first = 0; first < n; first += PGI_GROUP_COLUMNS) {
        const int64_t end = pgi_min64(n, first + PGI_GROUP_COLUMNS);
        const double of_a = half_step(a + first, end - first), of_x = half_step(x + first, end - first);
        for (int64_t i = first; i < end; i++) error += fabs(a[i]) * of_x + fabs(x[i]) * of_a + of_a * of_x;
    }
    return error;
}

/* What is added to y0 for a row x and output o; *bound: the error that it may have. rows: of the product. */
static double added_to(const adapted *m, const float *x, int64_t rows, double y0, int64_t o, double *bound) {
    const int64_t in = m->plain.weight.columns, rank = m->added.a.weight.rows;
    double quantized = 0;
    double sum = m->gain ? m->gain[o] * y0 : 0, products = 0;
    *bound = 2 * fabs(y0) + fabs(sum);
    if (m->constant) sum += m->constant[o], *bound += fabs(m->constant[o]);
    for (int64_t k = 0; k < rank; k++) {
        double ax = 0, size = 0;
        for (int64_t i = 0; i < in; i++)
            ax += (double)m->a[k * in + i] * x[i], size += fabs((double)m->a[k * in + i] * x[i]);
        sum += ax * m->b[o * rank + k];
        products += size * fabs(m->b[o * rank + k]);
        if (m->rounds && rows > PGI_LOW_RANK_FEW)
            quantized += int8_error(m->a + k * in, x, in) * fabs(m->b[o * rank + k]);
    }
    *bound =
        (double)(in + rank + 4) * EPSILON * (*bound + products) + (m->rounds ? 5 * 0x1p-9 * products : 0) + quantized;
    return sum;
}

static void check_shape(check *c, int32_t dtype, int64_t rows, int64_t in, int64_t out, int64_t rank) {
    adapted m;
    float *x = guarded_floats(c, rows * in);
    random_fill(c, x, rows * in);
    make(c, dtype, in, out, rank, &m);
    const float *y0 = run_linear(c, &m.plain, x, rows, 1), *y = run_linear(c, &m.linear, x, rows, 1);
    for (int n_threads = 2; n_threads <= MAX_THREADS; n_threads++)
        if (memcmp(run_linear(c, &m.linear, x, rows, n_threads), y, (size_t)(rows * out) * sizeof *y))
            fail(c, "%d threads give another result than 1", n_threads);
    for (int64_t r = 0; r < rows; r++)
        for (int s = 0; s < 6; s++) {
            const int64_t o = s == 0 ? 0 : s == 1 ? out - 1 : random_below(c, out);
            double bound;
            const double base = y0[r * out + o], want = base + added_to(&m, x + r * in, rows, base, o, &bound);
            expect_near(c, y[r * out + o], want, bound, "adapted", r, o);
        }
    /* quantized, a row beside up to 15 others is what it is alone; stored, beside up to 3 */
    const int64_t alike = pgi_dtype_is_blocks(dtype) ? PGI_LOW_RANK_FEW : PGI_GEMV_ROWS;
    if (rows <= alike &&
        memcmp(run_linear(c, &m.linear, x + (rows - 1) * in, 1, 1), y + (rows - 1) * out, (size_t)out * sizeof *y))
        fail(c, "dtype %d: the last of %d rows is not what it is alone", (int)dtype, (int)rows);
    release_all(c);
}

/* An MLP against its layers one by one. Fused, the down layer sums A x in another order. */
static void check_adapted_mlp(check *c, int32_t dtype, int64_t rows, int64_t in, int64_t width, int64_t rank) {
    adapted gate, up, down;
    float *x = guarded_floats(c, rows * in);
    random_fill(c, x, rows * in);
    make(c, dtype, in, width, rank, &gate);
    make(c, dtype, in, width, rank, &up);
    make(c, dtype, width, in, rank, &down);
    const pgi_mlp mlp = {PGI_ACTIVATION_GELU_TANH, &gate.linear, &up.linear, &down.linear};
    pgi_run alone = run_on(c->kernels, 1);
    float *intermediate = run_linear(c, &gate.linear, x, rows, 1), *first = NULL;
    pgi_gate(&alone, mlp.activation, intermediate, run_linear(c, &up.linear, x, rows, 1), rows * width);
    const float *y0 = run_linear(c, &down.plain, intermediate, rows, 1);
    for (int n_threads = 1; n_threads <= 3; n_threads += 2) {
        pgi_run run = run_on(c->kernels, n_threads);
        float *y = guarded_output(c, rows * in);
        void *values = guarded(c, (pgi_mlp_intermediate(c->kernels, rows, width, 1) + 63) / 64 * 64, 0);
        void *scratch = guarded(c, pgi_linear_scratch(c->kernels, n_threads), 0);
        if (pgi_mlp_forward(&run, &mlp, x, rows, y, values, scratch) != PG_OK) fail(c, "status");
        if (first && memcmp(first, y, (size_t)(rows * in) * sizeof *y)) fail(c, "the MLP depends on the threads");
        first = y;
    }
    for (int64_t r = 0; r < rows; r += 1 + rows / 20)
        for (int s = 0; s < 4; s++) {
            const int64_t o = random_below(c, in);
            double bound;
            const double base = y0[r * in + o],
                         want = base + added_to(&down, intermediate + r * width, rows, base, o, &bound);
            expect_near(c, first[r * in + o], want, bound, "MLP", r, o);
        }
    release_all(c);
}

/* An MLP of rows by mixed.h: y [rows, in]. mlps [rows]: gate, up and down of each. */
static float *run_mixed(check *c, const pgi_linear *(*mlps)[3], const float *x, int64_t rows, int64_t in, void *values,
                        void *scratch, int n_threads) {
    pgi_run run = run_on(c->kernels, n_threads);
    float *y = guarded_output(c, rows * in);
    pgi_mixed mixed;
    for (int64_t i = 0, n; i < rows; i += n) {
        n = pgi_mixed_take(mlps[i], rows - i, 3, 1, &mixed);
        const pgi_mlp mlp = {PGI_ACTIVATION_GELU_TANH, mixed.layers[0], mixed.layers[1], mixed.layers[2]};
        if (pgi_mlp_forward(&run, &mlp, x + i * in, n, y + i * in, values, scratch) != PG_OK) fail(c, "status");
    }
    return y;
}

/* Rows with low-rank parts of their own beside weights that they share, and one with weights of its own: each is what
 * it is alone. Parts of more than PGI_LOW_RANK_FUSED make other sums. */
static void check_mixed(check *c, int32_t dtype, int64_t rows, int64_t in, int64_t width) {
    enum { KINDS = 5 };
    static const int64_t ranks[KINDS] = {1, 16, PGI_LOW_RANK_FUSED + 6, 3, 3};
    adapted layers[KINDS][3];
    const pgi_linear *mlps[PGI_MIXED_ROWS][3];
    float *x = guarded_floats(c, rows * in);
    random_fill(c, x, rows * in);
    for (int k = 0; k < KINDS; k++)
        for (int i = 0; i < 3; i++) {
            make(c, dtype, i < 2 ? in : width, i < 2 ? width : in, ranks[k], &layers[k][i]);
            if (k == KINDS - 1) continue; /* weights of its own */
            layers[k][i].linear.weight = layers[0][i].plain.weight;
            layers[k][i].linear.bias = layers[0][i].plain.bias;
        }
    for (int64_t r = 0; r < rows; r++)
        for (int i = 0, k = (int)random_below(c, KINDS + 1); i < 3; i++)
            mlps[r][i] = k == KINDS || random_below(c, 4) == 0 ? &layers[0][i].plain : &layers[k][i].linear;
    void *values = guarded(c, (pgi_mlp_intermediate(c->kernels, rows, width, 1) + 63) / 64 * 64, 0);
    void *scratch = guarded(c, pgi_linear_scratch(c->kernels, 3), 0);
    const float *mixed = run_mixed(c, mlps, x, rows, in, values, scratch, 1);
    if (memcmp(run_mixed(c, mlps, x, rows, in, values, scratch, 3), mixed, (size_t)(rows * in) * sizeof *x))
        fail(c, "mixed rows depend on the threads");
    for (int64_t r = 0; r < rows; r++)
        if (memcmp(run_mixed(c, &mlps[r], x + r * in, 1, in, values, scratch, 1), mixed + r * in,
                   (size_t)in * sizeof *x))
            fail(c, "dtype %d: mixed row %d of %d is not what it is alone", (int)dtype, (int)r, (int)rows);
    release_all(c);
}

void check_low_rank(check *c) {
    static const int32_t dtypes[] = {PG_DTYPE_F32, PGI_DTYPE_INT8_BLOCKS, PGI_DTYPE_INT4_BLOCKS};
    static const int shapes[][2] = {{72, 300}, {129, 128}, {40, 33}, {1, 1}, {600, 17}};
    static const int64_t row_counts[] = {1, 3, 4, 5, 16, 17, 70}, ranks[] = {1, 3, 16, 40, 70};
    const pgi_kernels *plain = c->kernels;
    pgi_kernels table = *plain;
    table.low_rank = 600;
    c->kernels = &table;
    for (int d = 0; d < 4; d++) { /* int4 again with panels of bf16 */
        const int32_t dtype = dtypes[d < 3 ? d : 2];
        table.bf16_attention = d == 3;
        for (int s = 0; s < 5; s++)
            check_shape(c, dtype, row_counts[random_below(c, 7)], shapes[s][0], shapes[s][1],
                        ranks[random_below(c, 5)]);
        for (int r = 0; r < 7; r++) check_shape(c, dtype, row_counts[r], 100, 200, ranks[r % 5]);
        check_shape(c, dtype, 530, 33, 40, 5); /* two blocks of rows */
        check_shape(c, dtype, 6, 33, 40, 600); /* two parts of the rank */
        check_shape(c, dtype, 20, 33, 40, 600);
        for (int r = 0; r < 7; r++) check_adapted_mlp(c, dtype, row_counts[r], 100, 290, ranks[r % 5]);
        check_adapted_mlp(c, dtype, 530, 20, 150, 4);
        check_mixed(c, dtype, PGI_MIXED_ROWS, 100, 290);
        check_mixed(c, dtype, 2 + random_below(c, PGI_MIXED_ROWS - 2), 40, 200);
    }
    c->kernels = plain;
}
