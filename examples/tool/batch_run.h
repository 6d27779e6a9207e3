/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Jobs that run through the model together. */
#ifndef PALIGEMMA_TOOL_BATCH_RUN_H
#define PALIGEMMA_TOOL_BATCH_RUN_H

#include "batch_queue.h"

enum { TOOL_BATCH_ROWS = 16 /* jobs that run together by default: as many as the library lets share a step */ };

typedef struct tool_batch_runner {
    const pg_model *model;
    const pg_processor *processor;
    tool_sampling sampling;
    pg_answer_options answer; /* of TOOL_TASK_DETECT */
    int64_t max_new_tokens;   /* of jobs that do not say; 0: the folder's, of TOOL_TASK_DETECT 256 */
    int64_t max_context;      /* 0: memory decides */
    int32_t n_threads;        /* 0: all */
    pg_progress_fn progress;  /* of every call */
    void *progress_user;
} tool_batch_runner;

/* How many jobs are to run together where nobody says: TOOL_BATCH_ROWS, or as many as memory of 4 GiB has room for. */
size_t tool_batch_rows(const pg_model *model);

/* Answers the jobs, which get an answer or an error each. An error is one that others would get, too: of the model's
 * files, of memory. */
pg_status tool_batch_run(const tool_batch_runner *batch, tool_work *const *works, size_t n);

#endif
