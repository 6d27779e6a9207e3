/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* out = x W^T + b: the encoder's rows to rows of the decoder. */
#include "projector/projector.h"

#include "ops/ops.h"

pgi_projector_workspace pgi_projector_lay_out(pgi_arena *arena, const pgi_run *run) {
    return (pgi_projector_workspace){pgi_arena_take(arena, pgi_linear_scratch(run->kernels, run->n_threads), 1)};
}

pg_status pgi_projector_forward(const pgi_run *run, const pgi_linear *projector, const float *x, int64_t n_tokens,
                                float *out, const pgi_projector_workspace *w) {
    const int64_t in = projector->weight.columns, width = projector->weight.rows;
    PGI_TRY(pgi_linear_forward(run, x, in, n_tokens, projector, out, width, w->linear));
    pgi_run_trace(run, "features", -1, out, n_tokens, width);
    return PG_OK;
}
