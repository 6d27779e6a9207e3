/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The run that a computing call carries along: its threads, progress and cancel flag. */
#include "base/run.h"

#include <stdlib.h>

#include "base/callback.h"

pg_status pgi_run_cancelled_error(void) { return pgi_error(PG_ERROR_CANCELLED, "cancelled by request"); }

pg_status pgi_cancel_check(const pg_cancel *cancel) {
    return pgi_cancel_requested(cancel) ? pgi_run_cancelled_error() : PG_OK;
}

void pgi_cancel_retain(pg_cancel *cancel) {
    if (cancel) atomic_fetch_add_explicit(&cancel->references, 1, memory_order_relaxed);
}

void pgi_cancel_release(pg_cancel *cancel) {
    if (cancel && atomic_fetch_sub_explicit(&cancel->references, 1, memory_order_acq_rel) == 1) free(cancel);
}

pg_status pgi_run_progress(const pgi_run *run, int32_t phase, int64_t done, int64_t total) {
    int32_t answer = 0;
    if (run->progress) PGI_TRY(pgi_callback_progress(run->progress, run->progress_user, phase, done, total, &answer));
    if (answer) return pgi_error(PG_ERROR_CANCELLED, "cancelled by the progress callback");
    return pgi_run_cancelled(run) ? pgi_run_cancelled_error() : PG_OK;
}

pgi_run pgi_run_init(pgi_thread_pool *pool, const struct pgi_kernels *kernels, const pg_run_options *options) {
    pgi_thread_pool_init(pool, options->n_threads);
    return (pgi_run){
        .kernels = kernels,
        .n_threads = options->n_threads,
        .pool = pool,
        .cancel = options->cancel,
        .progress = options->progress,
        .progress_user = options->progress_user,
    };
}

void pgi_run_free(pgi_run *run) {
    if (run->pool) pgi_thread_pool_free(run->pool);
    run->pool = NULL;
}
