/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The operations of the networks with their gradients: forward as in ops/, and back. Back takes the gradient of what
 * the operation gave, dy, adds the gradients of its parameters to theirs, and gives or adds that of what it read, dx.
 */
#ifndef PGI_TRAIN_LAYERS_H
#define PGI_TRAIN_LAYERS_H

#include "base/memory.h"
#include "ops/ops.h"
#include "train/trained.h"

/* What the operations of a pass share. */
typedef struct pgi_train_pass {
    const pgi_run *run;
    const pgi_parameters *parameters;
    double dropout;       /* of what A reads; 0: none */
    uint64_t dropout_key; /* of the row that is under way */
    /* scratch: */
    void *matmul;
    float *weights; /* [n_weights]: rows of a quantized weight, one at least; NULL: none is quantized */
    int64_t n_weights;
    float *dropped;            /* [rows, inputs]: what A reads; NULL: there is no dropout */
    float *low, *low_gradient; /* [rows, rank] */
    float *row_numbers;        /* [2, rows] of a norm */
} pgi_train_pass;

/* Scratch for passes of up to `rows` rows. */
pgi_train_pass pgi_train_pass_lay_out(pgi_arena *arena, const pgi_run *run, const pgi_trained_model *trained,
                                      const pgi_parameters *parameters, double dropout, int64_t rows);

static inline float *pgi_parameter_value(const pgi_parameters *of, const pgi_parameter *p) {
    return of->values + p->at;
}
static inline float *pgi_parameter_gradient(const pgi_parameters *of, const pgi_parameter *p) {
    return of->gradients + p->at;
}

/* x [rows, in], y [rows, out]; all arrays are dense. */
pg_status pgi_train_linear(const pgi_train_pass *pass, const pgi_trained_linear *layer, const float *x, int64_t rows,
                           float *y);
/* dx NULL: it is not wanted. accumulate: it is added to. */
pg_status pgi_train_linear_back(const pgi_train_pass *pass, const pgi_trained_linear *layer, const float *x,
                                int64_t rows, const float *dy, float *dx, int accumulate);

/* x [columns] = row `row` of the embedding times `factor`. */
void pgi_train_embedding_row(const pgi_train_pass *pass, const pgi_trained_embedding *embedding, int64_t row,
                             float factor, float *x);
void pgi_train_embedding_row_back(const pgi_train_pass *pass, const pgi_trained_embedding *embedding, int64_t row,
                                  float factor, const float *dx);

/* The norms: RMSNorm where the norm has no bias (Gemma), else LayerNorm. x, y: [rows, columns] */
pg_status pgi_train_norm(const pgi_train_pass *pass, const pgi_trained_norm *norm, const float *x, int64_t rows,
                         int64_t columns, float eps, float *y);
/* accumulate: dx is added to. dx NULL: it is not wanted. dx may be dy. */
pg_status pgi_train_norm_back(const pgi_train_pass *pass, const pgi_trained_norm *norm, const float *x, int64_t rows,
                              int64_t columns, float eps, const float *dy, float *dx, int accumulate);

/* dx = dy act'(x), n values; dx may be dy. */
pg_status pgi_train_activation_back(const pgi_run *run, int32_t activation, const float *x, int64_t n, const float *dy,
                                    float *dx);
/* Of act(gate) up: dgate = dy up act'(gate), dup = dy act(gate). dup may be dy. */
pg_status pgi_train_gate_back(const pgi_run *run, int32_t activation, const float *gate, const float *up, int64_t n,
                              const float *dy, float *dgate, float *dup);

/* Attention, of f32 keys and values without a cache: q, out [T, heads, d]; k, v [T, KV heads, d]. */
typedef struct pgi_train_attention {
    pgi_attention shape;
    const float *q, *k, *v;
} pgi_train_attention;
size_t pgi_train_attention_scratch(int64_t n_keys);
/* dout to dq, dk, dv, which are overwritten. scratch: pgi_train_attention_scratch() bytes. */
pg_status pgi_train_attention_back(const pgi_train_pass *pass, const pgi_train_attention *attention, const float *dout,
                                   float *dq, float *dk, float *dv, void *scratch);

#endif
