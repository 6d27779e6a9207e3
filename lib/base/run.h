/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * What one computing call carries along: the kernels, the threads, how to report progress, how to be stopped, and who
 * watches the stages.
 */
#ifndef PGI_BASE_RUN_H
#define PGI_BASE_RUN_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/status.h"
#include "base/thread_pool.h"

struct pgi_kernels;

/* A counted cancel flag; the public handle is this struct. */
struct pg_cancel {
    atomic_int references;
    atomic_int requested;
};

/* Whether a call that was given this flag should stop; NULL: never. */
static inline int pgi_cancel_requested(const pg_cancel *cancel) {
    return cancel && atomic_load_explicit(&cancel->requested, memory_order_relaxed);
}
/* PG_ERROR_CANCELLED with its message when it was requested. */
pg_status pgi_cancel_check(const pg_cancel *cancel);

void pgi_cancel_retain(pg_cancel *cancel);  /* NULL is ignored */
void pgi_cancel_release(pg_cancel *cancel); /* NULL is ignored */

/* Sees the intermediate values of a network by stage name; for tests against
 * the reference. `data` is [rows, columns], `layer` is -1 outside layers. */
typedef struct pgi_trace {
    void (*stage)(void *user, const char *name, int layer, const float *data, int64_t rows, int64_t columns);
    void *user;
} pgi_trace;

struct pgi_run;
struct pgi_linear;

/* Sees what linear layers with weights as stored read: x [rows, inputs], `stride` from row to row. */
typedef struct pgi_observer {
    pg_status (*linear)(void *user, const struct pgi_run *run, const struct pgi_linear *linear, const float *x,
                        int64_t stride, int64_t rows);
    void *user;
} pgi_observer;

typedef struct pgi_run {
    const struct pgi_kernels *kernels;
    int n_threads;           /* >= 1; scratch is sized for so many */
    pgi_thread_pool *pool;   /* of n_threads; NULL: the calling thread works alone */
    const pg_cancel *cancel; /* may be NULL */
    pg_progress_fn progress; /* may be NULL */
    void *progress_user;
    const pgi_trace *trace;       /* may be NULL */
    const pgi_observer *observer; /* may be NULL */
} pgi_run;

static inline int pgi_run_cancelled(const pgi_run *run) { return pgi_cancel_requested(run->cancel); }

static inline void pgi_run_trace(const pgi_run *run, const char *name, int layer, const float *data, int64_t rows,
                                 int64_t columns) {
    if (run->trace) run->trace->stage(run->trace->user, name, layer, data, rows, columns);
}

/* Reports `done` of `total` and looks at the cancel flag: PG_OK or PG_ERROR_CANCELLED. */
pg_status pgi_run_progress(const pgi_run *run, int32_t phase, int64_t done, int64_t total);
/* PG_ERROR_CANCELLED with its message, for a caller that saw the flag. */
pg_status pgi_run_cancelled_error(void);

/* A run on a thread pool of its own, which lies in *pool and starts its threads when there is work for them. options:
 * complete, n_threads >= 1. kernels: may be NULL. */
pgi_run pgi_run_init(pgi_thread_pool *pool, const struct pgi_kernels *kernels, const pg_run_options *options);
/* The four fields that every options struct of a computing call has, as pg_run_options. */
#define PGI_RUN_OPTIONS(options)                                  \
    (&(pg_run_options){.struct_size = sizeof(pg_run_options),     \
                       .n_threads = (options)->n_threads,         \
                       .progress = (options)->progress,           \
                       .progress_user = (options)->progress_user, \
                       .cancel = (options)->cancel})
void pgi_run_free(pgi_run *run); /* ends the threads; run->pool NULL: nothing */

#endif
