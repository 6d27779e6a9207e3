/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The one seam to threads. */
#ifndef PGI_BASE_PARALLEL_H
#define PGI_BASE_PARALLEL_H

#include "base/run.h"

/* Work on the items begin <= i < end. `thread` (0 <= thread < run->n_threads) names the scratch to use. */
typedef void (*pgi_task_fn)(void *context, int64_t begin, int64_t end, int thread);

/*
 * Calls `task` for all of 0..n in chunks of `grain` items (the last may be shorter), on up to run->n_threads threads of
 * run->pool. Each thread begins with a share of the chunks, one after the other and the same in each call (beyond 64
 * threads some have one together), and then helps with the others'. So of loops over the same rows or heads a thread
 * finds in its own cache most of what it left there. Still any thread may get any chunk: a result may depend on the
 * chunk but never on the thread, which makes results bit-equal for every n_threads.
 *
 * With one thread, one chunk or no pool the calling thread does everything. The cancel flag is checked between chunks:
 * PG_ERROR_CANCELLED, and some chunks are not done. A task must not call this with the same run.
 */
pg_status pgi_parallel_for(const pgi_run *run, int64_t n, int64_t grain, pgi_task_fn task, void *context);

/* `run` itself, or `*alone`, the same with one thread, when `work` (floating-point operations) is done sooner than
 * other threads wake up. */
const pgi_run *pgi_run_for_work(const pgi_run *run, double work, pgi_run *alone);

#endif
