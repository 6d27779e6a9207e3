/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Where the results of `paligemma batch` go: a line of JSON for each job, in a file that a stopped run goes on with, or
 * on stdout. */
#ifndef PALIGEMMA_TOOL_BATCH_RESULTS_H
#define PALIGEMMA_TOOL_BATCH_RESULTS_H

#include <sys/stat.h>

#include "batch_jobs.h"

/* A job that has its line in the file. */
typedef struct tool_done {
    uint64_t which; /* the line of the job, or a hash of the image's name where jobs are the images of a folder */
    uint64_t asked; /* a hash of image and prompt; 0: the line does not have both */
    int failed;
} tool_done;

typedef struct tool_results {
    const char *name; /* NULL: stdout */
    FILE *file;
    tool_done *done; /* [n_done] of earlier runs, by `which` */
    size_t n_done, capacity;
    size_t n_failed; /* of them */
    int is_folder;   /* jobs are the images of a folder */
    int is_regular;
    double synced; /* when the file's bytes were last sent to the disk */
} tool_results;

/* Opens the file; name and is_folder are set, the rest is zero. With `resume` its lines are read, and the end of one
 * that was being written is cut off; without it a file that has lines is refused. TOOL_FAILED: told. */
int tool_results_open(tool_results *results, int resume);
/* The rest of what was written goes to the disk. TOOL_FAILED: told. */
int tool_results_close(tool_results *results);

/* Whether the job has its line: 1, or 0. -1: its line was made of another job. */
int tool_results_have(const tool_results *results, const tool_job *job);

/* Writes the line of a job, which has the members of `answer` (its reference is taken); NULL: it has
 * job->error.
 * TOOL_FAILED: told. */
int tool_results_write(tool_results *results, const tool_job *job, json_t *answer);

#endif
