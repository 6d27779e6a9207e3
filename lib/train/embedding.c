/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* A row of an embedding in training: x = f (W[i] + s B A[:, i]), dB = f s dx A[:, i]^T, dA[:, i] = f s B^T dx. PEFT:
 * lora.Embedding, which has no dropout. */
#include "kernels/kernels.h"
#include "train/layers.h"

void pgi_train_embedding_row(const pgi_train_pass *pass, const pgi_trained_embedding *embedding, int64_t row,
                             float factor, float *x) {
    const pgi_matrix *w = embedding->frozen;
    if (embedding->weight) {
        const float *whole = pgi_parameter_value(pass->parameters, embedding->weight) + row * w->columns;
        for (int64_t i = 0; i < w->columns; i++) x[i] = factor * whole[i];
        return;
    }
    pgi_matrix_row(pass->run->kernels, w, row, factor, x);
    if (!embedding->a) return;
    const float *a = pgi_parameter_value(pass->parameters, embedding->a) + row;
    const float *b = pgi_parameter_value(pass->parameters, embedding->b);
    for (int64_t i = 0; i < w->columns; i++) {
        double sum = 0;
        for (int64_t k = 0; k < embedding->rank; k++)
            sum += (double)b[i * embedding->rank + k] * (double)a[k * w->rows];
        x[i] += (float)((double)factor * (double)embedding->scale * sum);
    }
}

void pgi_train_embedding_row_back(const pgi_train_pass *pass, const pgi_trained_embedding *embedding, int64_t row,
                                  float factor, const float *dx) {
    const pgi_matrix *w = embedding->frozen;
    if (embedding->weight) {
        float *whole = pgi_parameter_gradient(pass->parameters, embedding->weight) + row * w->columns;
        for (int64_t i = 0; i < w->columns; i++) whole[i] += factor * dx[i];
        return;
    }
    const float scale = factor * embedding->scale, *a = pgi_parameter_value(pass->parameters, embedding->a) + row;
    const float *b = pgi_parameter_value(pass->parameters, embedding->b);
    float *da = pgi_parameter_gradient(pass->parameters, embedding->a) + row;
    float *db = pgi_parameter_gradient(pass->parameters, embedding->b);
    for (int64_t k = 0; k < embedding->rank; k++) {
        double sum = 0;
        for (int64_t i = 0; i < w->columns; i++) {
            sum += (double)b[i * embedding->rank + k] * (double)dx[i];
            db[i * embedding->rank + k] += scale * dx[i] * a[k * w->rows];
        }
        if (row != embedding->padding) da[k * w->rows] += (float)((double)scale * sum);
    }
}
