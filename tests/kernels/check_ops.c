/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The operations of ops.h against a double-precision oracle on the model's
 * shapes, with a scratch of exactly the promised size, and bit for bit against
 * themselves with 1, 2, 3 and 4 threads.
 */
#include "check.h"

#include <math.h>
#include <string.h>

#include "base/float16.h"
#include "generate/sampler.h"
#include "kernels/quantized.h"

/* ---- linear ---- */

static void check_linear_shape(check *c, int32_t dtype, int64_t rows, int64_t in, int64_t out) {
    size_t size = pgi_dtype_size(dtype);
    int64_t x_stride = in + random_below(c, 3), y_stride = out + random_below(c, 3);
    int with_bias = (int)random_below(c, 2);
    char *w = guarded(c, (size_t)(in * out) * size, (size_t)random_below(c, 2));
    float *x = guarded_floats(c, x_stride * (rows - 1) + in), *bias = guarded_floats(c, out), *first = NULL;
    random_weights(c, w, dtype, in * out);
    random_fill(c, x, x_stride * (rows - 1) + in);
    random_fill(c, bias, out);
    pgi_linear linear = {{w, dtype, out, in, NULL}, with_bias ? bias : NULL, NULL};
    int64_t n_y = y_stride * (rows - 1) + out;
    for (int n_threads = 1; n_threads <= MAX_THREADS; n_threads++) {
        pgi_run run = run_on(c->kernels, n_threads);
        float *y = guarded_output(c, n_y);
        size_t scratch_size = pgi_linear_scratch(c->kernels, n_threads);
        if (scratch_size % 64) fail(c, "scratch of %zu bytes is not a multiple of 64", scratch_size);
        void *scratch = guarded(c, scratch_size, 0);
        if (pgi_linear_forward(&run, x, x_stride, rows, &linear, y, y_stride, scratch) != PG_OK) fail(c, "status");
        if (!first)
            first = y;
        else if (memcmp(first, y, (size_t)n_y * sizeof(float)))
            fail(c, "%d threads give another result than 1", n_threads);
    }
    const int rounds = c->kernels->bf16_linear && rows > PGI_GEMV_ROWS;
    /* The first and last column, and some between, of every row. */
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t s = 0; s < 12; s++) {
            int64_t j = s == 0 ? 0 : s == 1 ? out - 1 : random_below(c, out);
            double want = with_bias ? bias[j] : 0, magnitudes = fabs(want), squares = want * want;
            for (int64_t l = 0; l < in; l++) {
                double a = x[i * x_stride + l], b = weight_value(w, dtype, j * in + l);
                if (rounds) a = rounded_bf16((float)a), b = rounded_bf16((float)b);
                double product = a * b;
                want += product, magnitudes += fabs(product), squares += product * product;
            }
            expect_near(c, first[i * y_stride + j], want, sum_bound((double)in + 1, magnitudes, squares),
                        dtype_name(dtype), i, j);
        }
        for (int64_t j = 0; j < out; j++)
            if (isnan(first[i * y_stride + j])) fail(c, "[%d][%d] was not written", (int)i, (int)j);
    }
    release_all(c);
}

static void check_linear(check *c) {
    /* in, out: the model's, the wide ones cut to fewer outputs; then tails of the blocks of 512 x 256. */
    static const int shapes[][2] = {{588, 1152}, {1152, 1152}, {1152, 290}, {4304, 270}, {1152, 4304},
                                    {2048, 256}, {16384, 80},  {36864, 35}, {72, 33},    {513, 257},
                                    {1, 1},      {3, 31},      {17, 1}};
    static const int64_t row_counts[] = {1, 2, 4, 5, 6, 17, 29};
    static const int32_t dtypes[] = {PG_DTYPE_BF16, PG_DTYPE_F32, PG_DTYPE_F16};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int d = 0; d < 3; d++)
            check_linear_shape(c, dtypes[d], row_counts[random_below(c, 7)], shapes[s][0], shapes[s][1]);
    for (int r = 0; r < 7; r++) check_linear_shape(c, dtypes[r % 3], row_counts[r], 72, 300);
    check_linear_shape(c, PG_DTYPE_BF16, 272, 588, 72);
}

/* A product in which every row beyond the streamed path must not depend on the rows beside it. */
static void check_linear_rows(check *c) {
    enum { ROWS = 40, IN = 600, OUT = 70 };
    float *x = guarded_floats(c, ROWS * IN), *w = guarded_floats(c, IN * OUT);
    float *all = guarded_output(c, ROWS * OUT), *few = guarded_output(c, ROWS * OUT);
    void *scratch = guarded(c, pgi_linear_scratch(c->kernels, 2), 0);
    random_fill(c, x, ROWS * IN);
    random_fill(c, w, IN * OUT);
    pgi_linear linear = {{w, PG_DTYPE_F32, OUT, IN, NULL}, NULL, NULL};
    pgi_run run = run_on(c->kernels, 2);
    pgi_linear_forward(&run, x, IN, ROWS, &linear, all, OUT, scratch);
    for (int64_t rows = PGI_GEMV_ROWS + 1; rows < ROWS; rows++) {
        pgi_linear_forward(&run, x, IN, rows, &linear, few, OUT, scratch);
        if (memcmp(all, few, (size_t)(rows * OUT) * sizeof(float)))
            fail(c, "%d rows differ from the first of %d", (int)rows, ROWS);
    }
    release_all(c);
}

/* Rows that take a decoding step together get the bits that each gets alone: up to PGI_GEMV_ROWS with stored weights,
 * any number with int8 and int4. */
static void check_linear_together(check *c) {
    enum { ROWS = 20, IN = 2300, OUT = 40 };
    static const int32_t dtypes[] = {PG_DTYPE_F32, PG_DTYPE_BF16, PG_DTYPE_F16, PGI_DTYPE_INT8_BLOCKS,
                                     PGI_DTYPE_INT4_BLOCKS};
    for (int d = 0; d < 5; d++) {
        const int quantized = pgi_dtype_is_blocks(dtypes[d]);
        float *x = guarded_floats(c, ROWS * IN), *one = guarded_output(c, OUT), *all = guarded_output(c, ROWS * OUT),
              *others = guarded_output(c, ROWS * OUT);
        void *scratch = guarded(c, pgi_linear_scratch(c->kernels, 2), 0);
        const int32_t stored = quantized ? PG_DTYPE_F16 : dtypes[d];
        void *w = guarded(c, (size_t)(IN * OUT) * pgi_dtype_size(stored), 0);
        void *blocks = guarded(c, (size_t)pgi_quantized_bytes(PGI_DTYPE_INT8_BLOCKS, OUT, IN), 64);
        random_fill(c, x, ROWS * IN);
        random_weights(c, w, stored, IN * OUT);
        pgi_matrix matrix = {w, stored, OUT, IN, NULL};
        if (quantized) {
            pgi_quantize_panels(&matrix, 0, dtypes[d], 0, pgi_quantized_panels(OUT), blocks);
            matrix = (pgi_matrix){blocks, dtypes[d], OUT, IN, NULL};
        }
        const pgi_linear linear = {matrix, NULL, NULL};
        pgi_kernels other = *c->kernels; /* of another maker's CPU */
        other.one_stream = !other.one_stream;
        pgi_run run = run_on(c->kernels, 2), other_run = run_on(&other, 2);
        for (int64_t rows = 1; rows <= (quantized ? ROWS : PGI_GEMV_ROWS); rows++) {
            pgi_linear_forward(&run, x, IN, rows, &linear, all, OUT, scratch);
            for (int64_t r = 0; r < rows; r++) {
                pgi_linear_forward(&run, x + r * IN, IN, 1, &linear, one, OUT, scratch);
                if (memcmp(one, all + r * OUT, OUT * sizeof(float)))
                    fail(c, "weights %d: row %d of %d is not what it is alone", d, (int)r, (int)rows);
            }
            pgi_linear_forward(&other_run, x, IN, rows, &linear, others, OUT, scratch);
            if (memcmp(others, all, (size_t)(rows * OUT) * sizeof(float)))
                fail(c, "weights %d, %d rows: other bits with one_stream %d", d, (int)rows, other.one_stream);
        }
        release_all(c);
    }
}

/* What bf16_linear changes, on every CPU. */
static void check_linear_bf16(check *c) {
    const pgi_kernels *given = c->kernels;
    pgi_kernels rounding = *given;
    rounding.bf16_linear = 1;
    c->kernels = &rounding;
    check_linear(c);
    check_linear_rows(c);
    rounding.gemm_bf16_deep = 1; /* also where the CPU does not want it */
    check_linear_shape(c, PG_DTYPE_F32, 29, 600, 150);
    check_linear_shape(c, PG_DTYPE_BF16, 40, 1100, 70);
    check_linear_shape(c, PG_DTYPE_BF16, 4100, 1100, 3); /* several spans of the inputs */
    c->kernels = given;
}

static void check_cancel(check *c) {
    enum { IN = 1200, OUT = 300 };
    pg_cancel flag = {.references = 1, .requested = 1};
    float *x = guarded_floats(c, 8 * IN), *w = guarded_floats(c, IN * OUT), *y = guarded_output(c, 8 * OUT);
    void *scratch = guarded(c, pgi_linear_scratch(c->kernels, 2), 0);
    pgi_linear linear = {{w, PG_DTYPE_F32, OUT, IN, NULL}, NULL, NULL};
    pgi_attention shape = {.n_heads = 4, .n_kv_heads = 1, .head_dim = 8, .scale = 1, .n_queries = 60, .n_keys = 64};
    void *workspace = guarded(c, (pgi_attention_scratch(c->kernels, &shape, 2) + 63) / 64 * 64, 0);
    random_fill(c, x, 8 * IN);
    random_fill(c, w, IN * OUT);
    for (int n_threads = 1; n_threads <= 2; n_threads++) {
        pgi_run run = run_on(c->kernels, n_threads);
        run.cancel = &flag;
        for (int64_t rows = 1; rows <= 8; rows += 7)
            if (pgi_linear_forward(&run, x, IN, rows, &linear, y, OUT, scratch) != PG_ERROR_CANCELLED)
                fail(c, "linear goes on");
        pgi_kernels rounding = *c->kernels;
        rounding.bf16_linear = 1;
        run.kernels = &rounding;
        void *more = guarded(c, pgi_linear_scratch(&rounding, n_threads), 0);
        if (pgi_linear_forward(&run, x, IN, 8, &linear, y, OUT, more) != PG_ERROR_CANCELLED) fail(c, "bf16 goes on");
        run.kernels = c->kernels;
        const pgi_attention_rows attended = {x, x, x, w, 32, 8, 8, 32, 0, 0};
        if (pgi_attention_forward(&run, &shape, &attended, workspace) != PG_ERROR_CANCELLED)
            fail(c, "attention goes on");
        if (pgi_activate(&run, PGI_ACTIVATION_RELU, w, 100) != PG_ERROR_CANCELLED) fail(c, "activate goes on");
    }
    release_all(c);
}

/* ---- attention ---- */

/* What the queries of a check see: all keys; a range each; also a prefix, where any of them may be empty. */
enum { ALL_KEYS, RANGES, PREFIX_TOO };

static int sees(const int64_t *prefix, const int64_t *begin, const int64_t *end, int64_t i, int64_t j) {
    return j < prefix[i] || (j >= begin[i] && j < end[i]);
}

/* What rounding to bf16 adds to the error of a value: of the products of the scores, and of the weights and values. */
typedef struct bf16_errors {
    double sure;    /* the most that a score may miss */
    double squares; /* of the typical part of each key in the error of a value of out */
} bf16_errors;
#define BF16_EPSILON 0x1p-8 /* the relative error of one rounding */

/* n keys; `magnitudes` of the weighted values. */
static double bf16_bound(const bf16_errors *errors, double n, double magnitudes) {
    double sure = magnitudes * (expm1(2 * errors->sure) + 2.01 * BF16_EPSILON), likely = 6 * sqrt(errors->squares);
    return n > 32 && likely < sure ? likely : sure;
}

/* n values to bf16: in x as f32, returned as they are stored. */
static uint16_t *rounded_to_bf16(check *c, float *x, int64_t n) {
    uint16_t *out = guarded(c, (size_t)n * sizeof *out, 0);
    for (int64_t i = 0; i < n; i++) {
        out[i] = pgi_bf16_from_f32(x[i]);
        x[i] = pgi_f32_from_bf16(out[i]);
    }
    return out;
}

/* Rows [n, heads * d], `stride` values of `size` bytes apart, as [heads, n, d]. */
static void *by_heads(check *c, const void *rows, int64_t stride, int64_t n, int64_t heads, int64_t d, int64_t size) {
    char *out = guarded(c, (size_t)(n * heads * d * size), 0);
    for (int64_t h = 0; h < heads; h++)
        for (int64_t i = 0; i < n; i++)
            memcpy(out + (h * n + i) * d * size, (const char *)rows + (i * stride + h * d) * size, (size_t)(d * size));
    return out;
}

static void check_attention_shape(check *c, int64_t n_queries, int64_t n_keys, int n_heads, int n_kv_heads,
                                  int head_dim, int ranges, float soft_cap) {
    const int bf16 = c->kernels->bf16_attention;
    const int64_t d = head_dim, group = n_heads / n_kv_heads;
    int64_t q_stride = n_heads * d + random_below(c, 3), k_stride = n_kv_heads * d + random_below(c, 3);
    int64_t v_stride = n_kv_heads * d + random_below(c, 3), out_stride = n_heads * d + random_below(c, 3);
    float *q = guarded_floats(c, q_stride * (n_queries - 1) + n_heads * d);
    float *k = guarded_floats(c, k_stride * (n_keys - 1) + n_kv_heads * d);
    float *v = guarded_floats(c, v_stride * (n_keys - 1) + n_kv_heads * d), *first = NULL;
    int64_t *begin = guarded(c, (size_t)n_queries * 8, 0), *end = guarded(c, (size_t)n_queries * 8, 0);
    int64_t *prefix = guarded(c, (size_t)n_queries * 8, 0);
    random_fill(c, q, q_stride * (n_queries - 1) + n_heads * d);
    random_fill(c, k, k_stride * (n_keys - 1) + n_kv_heads * d);
    random_fill(c, v, v_stride * (n_keys - 1) + n_kv_heads * d);
    const int kv_bf16 = (int)random_below(c, 2);
    const void *keys = kv_bf16 ? (void *)rounded_to_bf16(c, k, k_stride * (n_keys - 1) + n_kv_heads * d) : k;
    const void *values = kv_bf16 ? (void *)rounded_to_bf16(c, v, v_stride * (n_keys - 1) + n_kv_heads * d) : v;
    pgi_attention_rows rows = {q, keys, values, NULL, q_stride, k_stride, v_stride, out_stride, kv_bf16, 0};
    if (random_below(c, 2)) {
        rows.k = by_heads(c, keys, k_stride, n_keys, n_kv_heads, d, kv_bf16 ? 2 : 4);
        rows.v = by_heads(c, values, v_stride, n_keys, n_kv_heads, d, kv_bf16 ? 2 : 4);
        rows.k_stride = rows.v_stride = d;
        rows.kv_head_stride = n_keys * d;
    }
    for (int64_t i = 0; i < n_queries; i++) {
        begin[i] = ranges ? random_below(c, n_keys) : 0;
        end[i] = ranges ? begin[i] + 1 + random_below(c, n_keys - begin[i]) : n_keys;
        prefix[i] = 0;
        if (ranges < PREFIX_TOO) continue;
        if (random_below(c, 3) == 0) end[i] = begin[i];
        if (random_below(c, 3) > 0) prefix[i] = random_below(c, begin[i] + 1);
    }
    pgi_attention shape = {.n_heads = n_heads,
                           .n_kv_heads = n_kv_heads,
                           .head_dim = head_dim,
                           .soft_cap = soft_cap,
                           .scale = 3 / sqrtf((float)head_dim),
                           .n_queries = n_queries,
                           .n_keys = n_keys,
                           .key_begin = ranges ? begin : NULL,
                           .key_end = ranges ? end : NULL,
                           .prefix_end = ranges == PREFIX_TOO ? prefix : NULL};
    int64_t n_out = out_stride * (n_queries - 1) + n_heads * d;
    for (int n_threads = 1; n_threads <= MAX_THREADS; n_threads++) {
        pgi_run run = run_on(c->kernels, n_threads);
        float *out = guarded_output(c, n_out);
        size_t size = pgi_attention_scratch(c->kernels, &shape, n_threads);
        if (size % 64) fail(c, "scratch of %zu bytes is not a multiple of 64", size);
        void *scratch = guarded(c, size, 0);
        memset(scratch, 0xFF, size); /* NaN: what is read must have been written */
        rows.out = out;
        if (pgi_attention_forward(&run, &shape, &rows, scratch) != PG_OK) fail(c, "status");
        if (!first)
            first = out;
        else if (memcmp(first, out, (size_t)n_out * sizeof(float)))
            fail(c, "%d threads give another result than 1", n_threads);
    }
    double p[2200], miss[2200]; /* weights; how far rounding to bf16 typically moves a score */
    for (int64_t i = 0; i < n_queries; i += 1 + random_below(c, 1 + n_queries / 6)) {
        for (int64_t h = 0; h < n_heads; h++) {
            double max = -INFINITY, total = 0, error = 0;
            double n = 0;
            bf16_errors rounding = {0, 0};
            for (int64_t j = 0; j < n_keys; j++) {
                double score = 0, magnitudes = 0, squares = 0;
                if (!sees(prefix, begin, end, i, j)) continue;
                n++;
                for (int64_t l = 0; l < d; l++) {
                    double product = (double)q[i * q_stride + h * d + l] * k[j * k_stride + h / group * d + l];
                    score += product, magnitudes += fabs(product), squares += product * product;
                }
                score *= shape.scale;
                if (soft_cap > 0) score = soft_cap * tanh(score / soft_cap);
                /* of the scaled products, of the cap, and of the difference to the largest */
                double e = shape.scale * (sum_bound((double)d, magnitudes, squares) + EPSILON * magnitudes) +
                           12 * EPSILON * fabs(score);
                if (e > error) error = e;
                miss[j] = shape.scale * BF16_EPSILON * sqrt(2 * squares);
                rounding.sure = fmax(rounding.sure, shape.scale * 2.01 * BF16_EPSILON * magnitudes);
                p[j] = score;
                if (score > max) max = score;
            }
            for (int64_t j = 0; j < n_keys; j++)
                if (sees(prefix, begin, end, i, j)) total += p[j] = exp(p[j] - max);
            for (int64_t l = 0; l < d; l++) {
                double want = 0, magnitudes = 0, squares = 0;
                for (int64_t j = 0; j < n_keys; j++) {
                    if (!sees(prefix, begin, end, i, j)) continue;
                    double product = p[j] / total * v[j * v_stride + h / group * d + l];
                    want += product, magnitudes += fabs(product), squares += product * product;
                }
                /* Errors of the scores move the weights by as much; the sums add theirs. */
                double bound = magnitudes * (2 * error + EPSILON * (12 + n / 16)) + sum_bound(n, magnitudes, squares);
                rounding.squares = 2 * BF16_EPSILON * BF16_EPSILON * squares;
                for (int64_t j = 0; j < n_keys && bf16; j++) {
                    if (!sees(prefix, begin, end, i, j)) continue;
                    double part = p[j] / total * (fabs(want) + fabs((double)v[j * v_stride + h / group * d + l]));
                    rounding.squares += part * part * miss[j] * miss[j];
                }
                if (bf16) bound += bf16_bound(&rounding, n, magnitudes);
                expect_near(c, first[i * out_stride + h * d + l], want, bound, "out", i, h * d + l);
            }
        }
    }
    for (int64_t i = 0; i < n_queries; i++)
        for (int64_t j = 0; j < n_heads * d; j++)
            if (isnan(first[i * out_stride + j])) fail(c, "[%d][%d] was not written", (int)i, (int)j);
    release_all(c);
}

/* The scratch for 4200 keys must be enough for 4000, of which more heads are packed at once. */
static void check_attention_shorter(check *c) {
    enum { HEADS = 4, DIM = 64, WIDTH = HEADS * DIM, QUERIES = PGI_GEMV_ROWS + 1, KEYS = 4000, CAPACITY = 4200 };
    pgi_attention shape = {.n_heads = HEADS, .n_kv_heads = HEADS, .head_dim = DIM, .scale = 1, .n_queries = QUERIES};
    float *q = guarded_floats(c, QUERIES * WIDTH), *k = guarded_floats(c, KEYS * WIDTH),
          *out = guarded_output(c, QUERIES * WIDTH);
    shape.n_keys = CAPACITY;
    void *workspace = guarded(c, (pgi_attention_scratch(c->kernels, &shape, 1) + 63) / 64 * 64, 0);
    shape.n_keys = KEYS;
    pgi_run run = run_on(c->kernels, 1);
    random_fill(c, q, QUERIES * WIDTH);
    random_fill(c, k, KEYS * WIDTH);
    const pgi_attention_rows rows = {q, k, k, out, WIDTH, WIDTH, WIDTH, WIDTH, 0, 0};
    if (pgi_attention_forward(&run, &shape, &rows, workspace) != PG_OK)
        fail(c, "attention in the scratch of a longer cache");
    release_all(c);
}

static void check_attention(check *c) {
    check_attention_shorter(c);
    check_attention_shape(c, 64, 64, 16, 16, 72, ALL_KEYS, 0); /* the encoder */
    check_attention_shape(c, 35, 300, 8, 1, 256, ALL_KEYS, 0); /* prefill, one KV head */
    check_attention_shape(c, 35, 300, 8, 4, 256, RANGES, 50);  /* prefill, Gemma 2 */
    check_attention_shape(c, 1, 300, 8, 1, 256, ALL_KEYS, 0);  /* decode */
    check_attention_shape(c, 1, 600, 8, 4, 256, RANGES, 50);   /* decode, Gemma 2, sliding window */
    check_attention_shape(c, 4, 33, 4, 2, 16, RANGES, 0);
    check_attention_shape(c, 5, 33, 4, 2, 16, RANGES, 0);
    check_attention_shape(c, 70, 2100, 2, 1, 24, RANGES, 0); /* several blocks of keys */
    check_attention_shape(c, 9, 513, 1, 1, 520, RANGES, 30); /* several blocks of the head dim */
    check_attention_shape(c, 1, 1, 1, 1, 1, ALL_KEYS, 0);
    check_attention_shape(c, 7, 1, 2, 2, 3, ALL_KEYS, 0);
    check_attention_shape(c, 1, 40, 4, 2, 16, PREFIX_TOO, 0);
    check_attention_shape(c, 4, 700, 4, 1, 16, PREFIX_TOO, 50);
    check_attention_shape(c, 3, 2100, 8, 2, 40, PREFIX_TOO, 0); /* decode, several blocks of keys, some unseen */
    check_attention_shape(c, 1, 1024, 6, 1, 16, ALL_KEYS, 30);
    check_attention_shape(c, 150, 1300, 2, 1, 24, PREFIX_TOO, 0);
    for (int i = 0; i < 30; i++) {
        int kv = 1 + (int)random_below(c, 3), heads = kv * (1 + (int)random_below(c, 3));
        check_attention_shape(c, 1 + random_below(c, 130), 1 + random_below(c, 140), heads, kv,
                              1 + (int)random_below(c, 40), (int)random_below(c, 3), random_below(c, 2) ? 20 : 0);
    }
}

static void check_attention_bf16(check *c) {
    const pgi_kernels *kernels = c->kernels;
    pgi_kernels table = *kernels;
    table.bf16_attention = 1;
    c->kernels = &table;
    check_attention(c);
    c->kernels = kernels;
}

/* ---- rows ---- */

/* An operation on many rows equals the kernel on each, whatever the threads. */
static void check_rows(check *c) {
    enum { ROWS = 37, COLUMNS = 1154, N = ROWS * COLUMNS, HEADS = 2, DIM = COLUMNS / HEADS };
    const pgi_kernels *k = c->kernels;
    float *x = guarded_floats(c, N), *weight = guarded_floats(c, COLUMNS), *bias = guarded_floats(c, COLUMNS);
    float *want = guarded_output(c, N), *got = guarded_output(c, N), *cosine = guarded_floats(c, ROWS * (DIM / 2)),
          *sine = guarded_floats(c, ROWS * (DIM / 2));
    float *added = guarded_floats(c, N), *want_sum = guarded_output(c, N), *sum = guarded_output(c, N);
    random_fill(c, x, N);
    random_fill(c, added, N);
    random_fill(c, weight, COLUMNS);
    random_fill(c, bias, COLUMNS);
    random_fill(c, cosine, ROWS * (DIM / 2));
    random_fill(c, sine, ROWS * (DIM / 2));
    enum { BYTES = N * sizeof(float) };
    static const char *const names[] = {"rms_norm",  "layer_norm",        "rope",           "soft_cap",
                                        "add",       "gelu_tanh",         "gelu_erf",       "silu",
                                        "relu",      "gate gelu_tanh",    "gate gelu_erf",  "gate silu",
                                        "gate relu", "rms_norm in place", "add_layer_norm", "add_layer_norm in place"};
    for (int op = 0; op < (int)(sizeof names / sizeof *names); op++) {
        memcpy(want, x, BYTES);
        memcpy(want_sum, x, BYTES);
        if (op >= 14) k->add(want_sum, added, N);
        for (int r = 0; r < ROWS; r++) {
            float *row = want + r * COLUMNS;
            if (op >= 14) k->layer_norm(want_sum + r * COLUMNS, COLUMNS, weight, bias, 1e-6f, row);
            if (op == 0 || op == 13) k->rms_norm(x + r * COLUMNS, COLUMNS, weight, 1e-6f, row);
            if (op == 1) k->layer_norm(x + r * COLUMNS, COLUMNS, weight, bias, 1e-6f, row);
            for (int h = 0; h < HEADS && op == 2; h++)
                k->rope(row + h * DIM, DIM / 2, cosine + r * (DIM / 2), sine + r * (DIM / 2));
        }
        void (*const apply[])(float *, int64_t) = {k->gelu_tanh, k->gelu_erf, k->silu, k->relu};
        void (*const gate[])(float *, const float *, int64_t) = {k->gate_gelu_tanh, k->gate_gelu_erf, k->gate_silu,
                                                                 k->gate_relu};
        if (op == 3) k->soft_cap(want, N, 30);
        if (op == 4) k->add(want, x, N);
        if (op >= 5 && op < 9) apply[op - 5](want, N);
        if (op >= 9 && op < 13) gate[op - 9](want, x, N);
        for (int n_threads = 1; n_threads <= MAX_THREADS; n_threads++) {
            pgi_run run = run_on(c->kernels, n_threads);
            pg_status status = PG_OK;
            memcpy(got, op == 15 ? added : x, BYTES);
            memcpy(sum, x, BYTES);
            if (op == 0) status = pgi_rms_norm(&run, x, ROWS, COLUMNS, weight, 1e-6f, got);
            if (op == 1) status = pgi_layer_norm(&run, x, ROWS, COLUMNS, weight, bias, 1e-6f, got);
            if (op == 2) status = pgi_rope(&run, got, COLUMNS, ROWS, HEADS, DIM, cosine, sine);
            if (op == 3) status = pgi_soft_cap(&run, got, N, 30);
            if (op == 4) status = pgi_add(&run, got, x, N);
            if (op >= 5 && op < 9) status = pgi_activate(&run, op - 4, got, N);
            if (op >= 9 && op < 13) status = pgi_gate(&run, op - 8, got, x, N);
            if (op == 13) status = pgi_rms_norm(&run, got, ROWS, COLUMNS, weight, 1e-6f, got);
            if (op >= 14)
                status = pgi_add_layer_norm(&run, sum, op == 15 ? got : added, ROWS, COLUMNS, weight, bias, 1e-6f, got);
            if (status != PG_OK || memcmp(want, got, BYTES) || memcmp(want_sum, sum, BYTES))
                fail(c, "%s with %d threads", names[op], n_threads);
        }
    }
    for (int32_t dtype = PG_DTYPE_F32; dtype <= PG_DTYPE_F16; dtype++) {
        char *w = guarded(c, 3 * COLUMNS * pgi_dtype_size(dtype), 1);
        random_weights(c, w, dtype, 3 * COLUMNS);
        pgi_matrix matrix = {w, dtype, 3, COLUMNS, NULL};
        pgi_matrix_row(k, &matrix, 2, 0.5f, got);
        for (int i = 0; i < COLUMNS; i++)
            if (got[i] != (float)weight_value(w, dtype, 2 * COLUMNS + i) * 0.5f)
                fail(c, "matrix_row %s [%d]", dtype_name(dtype), i);
    }
    release_all(c);
}

static void check_sample(check *c) {
    static const struct {
        float x[4];
        int64_t n, want;
    } cases[] = {
        {{1, 3, 3, 2}, 4, 1},           {{NAN, -1, NAN, -2}, 4, 1},           {{NAN, NAN, NAN, NAN}, 4, 0},
        {{-INFINITY, NAN, 0, 0}, 4, 2}, {{-INFINITY, -INFINITY, 0, 0}, 2, 0}, {{INFINITY, NAN, INFINITY, 0}, 4, 0},
        {{-0.0f, 0, 0, 0}, 4, 0},       {{NAN, -INFINITY, 0, 0}, 2, 1},       {{5, 0, 0, 0}, 1, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t got = pgi_sample(cases[i].x, cases[i].n);
        if (got != cases[i].want) fail(c, "case %d: found %d, expected %d", (int)i, (int)got, (int)cases[i].want);
    }
    float *x = guarded_floats(c, 1153);
    for (int again = 0; again < 50; again++) {
        int64_t n = 1 + random_below(c, 1153), want = -1, got;
        float *tail = x + 1153 - n;
        for (int64_t i = 0; i < n; i++) tail[i] = random_below(c, 9) ? (float)random_below(c, 50) : NAN;
        for (int64_t i = n - 1; i >= 0; i--)
            if (!isnan(tail[i]) && (want < 0 || tail[i] >= tail[want])) want = i;
        if ((got = pgi_sample(tail, n)) != (want < 0 ? 0 : want))
            fail(c, "n %d: found %d, expected %d", (int)n, (int)got, (int)want);
    }
    release_all(c);
}

const kernel_check operation_checks[] = {{"linear", check_linear},
                                         {"linear rows", check_linear_rows},
                                         {"linear together", check_linear_together},
                                         {"linear bf16", check_linear_bf16},
                                         {"linear quantized", check_linear_quantized},
                                         {"several", check_group},
                                         {"mlp", check_mlp},
                                         {"low_rank", check_low_rank},
                                         {"attention", check_attention},
                                         {"attention bf16", check_attention_bf16},
                                         {"rows", check_rows},
                                         {"sample", check_sample},
                                         {"cancel", check_cancel}};
const int n_operation_checks = sizeof operation_checks / sizeof *operation_checks;
