/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The operations the networks are written in. Each one splits its work over
 * run->n_threads by rows or columns of the output, never over the summed
 * dimension, so results are bit-equal for every thread count. The arithmetic
 * is done by the kernels of the table run->kernels (kernels.h).
 *
 * All activations are f32, row-major; `*_stride` counts elements from one row
 * to the next. No operation allocates: those that need memory take `scratch`,
 * 64-byte aligned, of the size that their _scratch function returns.
 */
#ifndef PGI_OPS_OPS_H
#define PGI_OPS_OPS_H

#include "base/run.h"
#include "kernels/matrix.h"

/* Bytes of scratch for pgi_linear_forward() of any shape. */
size_t pgi_linear_scratch(const struct pgi_kernels *kernels, int n_threads);

/* y[r][o] = sum_i x[r][i] w[o][i] + b[o], for `rows` rows; x: [rows, in], y: [rows, out].
 * Rows are independent: a row's result does not depend on the rows beside it. But there are two paths, which round
 * differently. Up to PGI_GEMV_ROWS (4) rows take gemv, always in f32. More rows take gemm, which sums in another order
 * and, if kernels->bf16_linear is set, rounds x and w to bf16. Quantized weights have one path. */
pg_status pgi_linear_forward(const pgi_run *run, const float *x, int64_t x_stride, int64_t rows,
                             const pgi_linear *linear, float *y, int64_t y_stride, void *scratch);
/* Up to so many rows take another path than more of them: to keep its bits, a row may join others in a pass only if it
 * has more rows itself. What adapters add has its own number. */
int64_t pgi_linear_few_rows(const struct pgi_kernels *kernels);

/* A linear layer and where its results go: y [rows, out]. */
typedef struct pgi_linear_job {
    const pgi_linear *linear;
    float *y;
    int64_t y_stride;
} pgi_linear_job;

/* pgi_linear_forward() of n >= 1 layers that read the same x. The results have the same bits as one by one. */
pg_status pgi_linear_group(const pgi_run *run, const float *x, int64_t x_stride, int64_t rows,
                           const pgi_linear_job *outputs, int n, void *scratch);

typedef struct pgi_attention {
    int32_t n_heads, n_kv_heads; /* query heads per KV head: n_heads / n_kv_heads, head h uses KV head h / that */
    int32_t head_dim;
    float scale;    /* multiplies q . k */
    float soft_cap; /* c > 0: scores become c * tanh(score / c); 0: none */
    int64_t n_queries, n_keys;
    /* Query i sees the keys key_begin[i] <= j < key_end[i], 0 <= begin <= end <= n_keys.
     * NULL: from the first key on; to the last. */
    const int64_t *key_begin, *key_end;
    /* It also sees the keys 0 <= j < prefix_end[i], prefix_end[i] <= key_begin[i]. NULL: no more than its range. */
    const int64_t *prefix_end;
} pgi_attention;

/* Bytes of scratch for pgi_attention_forward() of this shape or of one with fewer queries, keys or both. */
size_t pgi_attention_scratch(const struct pgi_kernels *kernels, const pgi_attention *shape, int n_threads);

/* The rows that attention reads and writes. */
typedef struct pgi_attention_rows {
    const float *q;    /* [n_queries, n_heads * head_dim] */
    const void *k, *v; /* [n_keys, n_kv_heads * head_dim] */
    float *out;        /* as q */
    int64_t q_stride, k_stride, v_stride, out_stride;
    int kv_bf16;            /* k and v are bf16; 0: f32 */
    int64_t kv_head_stride; /* values from a KV head to the next; 0: head_dim, rows hold all heads */
} pgi_attention_rows;

/* out = softmax(cap(scale q k^T) + mask) v; zeros for a query that sees no key. */
pg_status pgi_attention_forward(const pgi_run *run, const pgi_attention *shape, const pgi_attention_rows *rows,
                                void *scratch);

/* Where the softmax weights of a pass go. A stride of 0 sums heads or queries. */
typedef struct pgi_attention_weights {
    float *out; /* added to: weight of head h, query i and key j times factor, at h * head_stride + i * query_stride +
                   columns[j] */
    int64_t head_stride, query_stride;
    const int64_t *columns; /* [n_keys]; -1: this key is left out */
    float factor;
} pgi_attention_weights;

/* The weights softmax(cap(scale q k^T) + mask), in f32; nothing is added for a query that sees no key. rows: v and out
 * are not read. scratch: of pgi_attention_forward(). */
pg_status pgi_attention_keep_weights(const pgi_run *run, const pgi_attention *shape, const pgi_attention_rows *rows,
                                     const pgi_attention_weights *kept, void *scratch);

/* y = x / sqrt(mean(x^2) + eps) * (1 + weight), Gemma's RMSNorm; x, y: [rows, columns] dense, may be the same. */
pg_status pgi_rms_norm(const pgi_run *run, const float *x, int64_t rows, int64_t columns, const float *weight,
                       float eps, float *y);

/* y = (x - mean) / sqrt(var + eps) * weight + bias, biased variance; x, y as above. */
pg_status pgi_layer_norm(const pgi_run *run, const float *x, int64_t rows, int64_t columns, const float *weight,
                         const float *bias, float eps, float *y);

/* x += added, and pgi_layer_norm() of that, while a row is in the first-level cache. added: [rows, columns] dense; y
 * may be x or added. */
pg_status pgi_add_layer_norm(const pgi_run *run, float *x, const float *added, int64_t rows, int64_t columns,
                             const float *weight, const float *bias, float eps, float *y);

/* down(act(gate x) * up x), or down(act(up x)) where there is no gate. */
typedef struct pgi_mlp {
    int32_t activation;
    const pgi_linear *gate; /* NULL: none */
    const pgi_linear *up, *down;
} pgi_mlp;

/* Bytes of `intermediate` for up to `rows` rows of an MLP whose intermediate has `width` values; 64-byte aligned. */
size_t pgi_mlp_intermediate(const struct pgi_kernels *kernels, int64_t rows, int64_t width, int gated);
/* y [rows, down's outputs] of x [rows, up's inputs], both dense. scratch: pgi_linear_scratch(). */
pg_status pgi_mlp_forward(const pgi_run *run, const pgi_mlp *mlp, const float *x, int64_t rows, float *y,
                          void *intermediate, void *scratch);

/* x = act(x), n values. */
pg_status pgi_activate(const pgi_run *run, int32_t activation, float *x, int64_t n);
/* gate = act(gate) * up, n values. */
pg_status pgi_gate(const pgi_run *run, int32_t activation, float *gate, const float *up, int64_t n);

/* x += y, n values. */
pg_status pgi_add(const pgi_run *run, float *x, const float *y, int64_t n);

/* Rotates halves: for each row r and head, (x[i], x[i + d/2]) by the angle whose
 * cosine and sine are cos[r][i], sin[r][i], i < d/2 (HF: apply_rotary_pos_emb).
 * x: [rows, n_heads * head_dim]; cos, sin: [rows, head_dim / 2]. */
pg_status pgi_rope(const pgi_run *run, float *x, int64_t x_stride, int64_t rows, int32_t n_heads, int32_t head_dim,
                   const float *cos, const float *sin);

/* x = cap * tanh(x / cap), n values. */
pg_status pgi_soft_cap(const pgi_run *run, float *x, int64_t n, float cap);

/* Row `row` of a matrix as f32, times `scale`. */
void pgi_matrix_row(const struct pgi_kernels *kernels, const pgi_matrix *matrix, int64_t row, float scale, float *out);

#endif
