/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention back. Of each head, with S = cap(scale Q K^T), P = softmax(S + mask), O = P V:
 *     dV = P^T dO        dP = dO V^T        dS = P (dP - sum of P dP over the row)
 *     dS *= 1 - (S / cap)^2 where there is a soft cap
 *     dQ = scale dS K    dK = scale dS^T Q
 * P is computed again, for a block of queries at a time. Query heads that share a KV head add to its gradients.
 */
#include <string.h>

#include "base/parallel.h"
#include "kernels/kernels.h"
#include "train/layers.h"
#include "train/matmul.h"

enum { QUERIES = 256, /* of a block */ ROWS = 8 /* of a task */ };

/* A block of queries of one head. */
typedef struct block {
    const pgi_train_pass *pass;
    const pgi_train_attention *attention;
    int64_t first, n; /* queries */
    float *p, *ds;    /* [n, n_keys]: P; dP, then dS */
    float *capped;    /* [n, n_keys]: S / cap; NULL: there is no soft cap */
} block;

size_t pgi_train_attention_scratch(int64_t n_keys) { return 3 * QUERIES * (size_t)n_keys * sizeof(float); }

/* Keys that a query sees: 0 .. prefix_end and begin .. end. */
typedef struct seen {
    int64_t prefix_end, begin, end;
} seen;

static seen seen_by(const pgi_attention *shape, int64_t query) {
    return (seen){shape->prefix_end ? shape->prefix_end[query] : 0, shape->key_begin ? shape->key_begin[query] : 0,
                  shape->key_end ? shape->key_end[query] : shape->n_keys};
}

/* P of a row of scores; zeros where nothing is seen. */
static void softmax_row(const pgi_kernels *kernels, seen s, int64_t n_keys, float *row) {
    const int64_t gap = pgi_max64(0, s.begin - s.prefix_end), n = pgi_max64(0, s.end - s.begin);
    float max = 0, sum = 0;
    if (s.prefix_end > 0) max = kernels->row_max(row, s.prefix_end);
    if (n > 0) {
        const float of_range = kernels->row_max(row + s.begin, n);
        max = s.prefix_end > 0 && max > of_range ? max : of_range;
    }
    if (s.prefix_end > 0) sum += kernels->exp_sum(row, s.prefix_end, max);
    if (n > 0) sum += kernels->exp_sum(row + s.begin, n, max);
    memset(row + s.prefix_end, 0, (size_t)gap * sizeof *row);
    memset(row + s.begin + n, 0, (size_t)(n_keys - s.begin - n) * sizeof *row);
    if (sum > 0) kernels->scale(row, n_keys, 1 / sum);
}

static void softmax_rows(void *context, int64_t begin, int64_t end, int thread) {
    const block *b = context;
    const pgi_attention *shape = &b->attention->shape;
    const pgi_kernels *kernels = b->pass->run->kernels;
    const int64_t n = shape->n_keys;
    (void)thread;
    for (int64_t r = begin; r < end; r++) {
        float *row = b->p + r * n;
        if (b->capped) {
            kernels->soft_cap(row, n, shape->soft_cap);
            for (int64_t i = 0; i < n; i++) b->capped[r * n + i] = row[i] / shape->soft_cap;
        }
        softmax_row(kernels, seen_by(shape, b->first + r), n, row);
    }
}

static void softmax_rows_back(void *context, int64_t begin, int64_t end, int thread) {
    const block *b = context;
    const int64_t n = b->attention->shape.n_keys;
    (void)thread;
    for (int64_t r = begin; r < end; r++) {
        const float *p = b->p + r * n, *capped = b->capped ? b->capped + r * n : NULL;
        float *ds = b->ds + r * n;
        double sum = 0;
        for (int64_t i = 0; i < n; i++) sum += (double)p[i] * (double)ds[i];
        const float mean = (float)sum;
        for (int64_t i = 0; i < n; i++) ds[i] = p[i] * (ds[i] - mean);
        for (int64_t i = 0; i < n && capped; i++) ds[i] *= 1 - capped[i] * capped[i];
    }
}

static pg_status product(const block *b, pgi_matmul p) {
    p.b_dtype = PG_DTYPE_F32;
    return pgi_matmul_run(b->pass->run, &p, b->pass->matmul);
}

/* One block of head `head`; the gradients of the keys and values are added to. */
static pg_status block_back(block *b, int64_t head, const float *dout, float *dq, float *dk, float *dv) {
    const pgi_attention *shape = &b->attention->shape;
    const pgi_run *run = b->pass->run;
    const int64_t d = shape->head_dim, n_keys = shape->n_keys;
    const int64_t width = shape->n_heads * d, kv_width = shape->n_kv_heads * d;
    const int64_t at = b->first * width + head * d, kv = head / (shape->n_heads / shape->n_kv_heads) * d;
    const float *q = b->attention->q + at, *k = b->attention->k + kv, *v = b->attention->v + kv;
    const pgi_matmul scores = {.m = b->n,
                               .n = n_keys,
                               .k = d,
                               .a_stride = width,
                               .b_stride = kv_width,
                               .b_transposed = 1,
                               .c_stride = n_keys,
                               .scale = 1};
    const pgi_matmul of_keys = {.m = n_keys,
                                .n = d,
                                .k = b->n,
                                .a_stride = n_keys,
                                .a_transposed = 1,
                                .b_stride = width,
                                .c_stride = kv_width,
                                .accumulate = 1,
                                .scale = 1};
    pgi_matmul p = scores;
    p.a = q, p.b = k, p.c = b->p, p.scale = shape->scale;
    PGI_TRY(product(b, p));
    PGI_TRY(pgi_parallel_for(run, b->n, ROWS, softmax_rows, b));
    p = of_keys;
    p.a = b->p, p.b = dout + at, p.c = dv + kv;
    PGI_TRY(product(b, p));
    p = scores;
    p.a = dout + at, p.b = v, p.c = b->ds;
    PGI_TRY(product(b, p));
    PGI_TRY(pgi_parallel_for(run, b->n, ROWS, softmax_rows_back, b));
    p = (pgi_matmul){.m = b->n,
                     .n = d,
                     .k = n_keys,
                     .a = b->ds,
                     .a_stride = n_keys,
                     .b = k,
                     .b_stride = kv_width,
                     .c = dq + at,
                     .c_stride = width,
                     .scale = shape->scale};
    PGI_TRY(product(b, p));
    p = of_keys;
    p.a = b->ds, p.b = q, p.c = dk + kv, p.scale = shape->scale;
    return product(b, p);
}

pg_status pgi_train_attention_back(const pgi_train_pass *pass, const pgi_train_attention *attention, const float *dout,
                                   float *dq, float *dk, float *dv, void *scratch) {
    const pgi_attention *shape = &attention->shape;
    const size_t size = QUERIES * (size_t)shape->n_keys;
    const size_t kv_bytes = (size_t)(shape->n_keys * shape->n_kv_heads * shape->head_dim) * sizeof *dk;
    block b = {.pass = pass, .attention = attention, .p = scratch};
    b.ds = b.p + size;
    b.capped = shape->soft_cap > 0 ? b.ds + size : NULL;
    memset(dk, 0, kv_bytes);
    memset(dv, 0, kv_bytes);
    for (int64_t head = 0; head < shape->n_heads; head++)
        for (b.first = 0; b.first < shape->n_queries; b.first += QUERIES) {
            b.n = pgi_min64(QUERIES, shape->n_queries - b.first);
            PGI_TRY(block_back(&b, head, dout, dq, dk, dv));
        }
    return PG_OK;
}
