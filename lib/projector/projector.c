#include "projector/projector.h"

#include "ops/ops.h"

size_t pgi_projector_workspace(const pgi_run *run) { return pgi_linear_scratch(run->kernels, run->n_threads); }

pg_status pgi_projector_forward(const pgi_run *run, const pgi_linear *projector, const float *x, int64_t rows,
                                float *out, void *workspace) {
    PGI_TRY(
        pgi_linear_forward(run, x, projector->weight.columns, rows, projector, out, projector->weight.rows, workspace));
    pgi_run_trace(run, "features", -1, out, rows, projector->weight.rows);
    return PG_OK;
}
