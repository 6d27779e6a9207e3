/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* embeddings = normalized(x W^T + b) * mask, normalized to length 1 (modeling_colpali.py). */
#include "model/retrieval.h"

#include <math.h>
#include <string.h>

#include "ops/ops.h"

pg_status pgi_retrieval_check(const pg_model *model) {
    if (model->weights.retrieval.weight.data) return PG_OK;
    return pgi_error(PG_ERROR_NOT_FOUND,
                     "%s: found no projection (embedding_proj_layer or custom_text_proj), which retrieval embeddings "
                     "need; give a ColPali checkpoint",
                     pgi_tensor_files_folder(model->files));
}

pg_status pgi_retrieval_forward(const pgi_run *run, const pg_model *model, const float *x, int64_t n,
                                const int64_t *mask, float *out, void *scratch) {
    const pgi_linear *projection = &model->weights.retrieval;
    const int64_t dim = projection->weight.rows;
    PGI_TRY(pgi_linear_forward(run, x, projection->weight.columns, n, projection, out, dim, scratch));
    for (int64_t t = 0; t < n; t++, out += dim) {
        double squares = 0;
        if (!mask[t]) {
            memset(out, 0, (size_t)dim * sizeof *out);
            continue;
        }
        for (int64_t i = 0; i < dim; i++) squares += (double)out[i] * out[i];
        const float norm = (float)sqrt(squares);
        for (int64_t i = 0; i < dim; i++) out[i] /= norm;
    }
    return PG_OK;
}
