/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Between those who read images and the one that runs the model: threads take job after job, decode and resize its
 * image and tokenize its prompt; what is ready waits here. The places for jobs are few, so that memory is that of these
 * however many jobs there are, and so that jobs of one image come together: it is decoded once, and its features serve
 * them all.
 */
#ifndef PALIGEMMA_TOOL_BATCH_QUEUE_H
#define PALIGEMMA_TOOL_BATCH_QUEUE_H

#include <pthread.h>

#include "batch_jobs.h"
#include "batch_results.h"

/* An image of one or more jobs. */
typedef struct tool_shared_image {
    struct tool_shared_image *next; /* of all that are in use */
    char *path;
    size_t n_jobs;         /* that have it */
    int is_read;           /* a reader is done with it */
    char *error;           /* why it cannot be used; NULL: it can. malloc'ed */
    pg_inputs *pixels;     /* until the features are there */
    pg_features *features; /* of the model's thread; NULL: not yet */
    int32_t width, height; /* as it was decoded and turned */
} tool_shared_image;

typedef enum tool_work_state {
    TOOL_WORK_READ,
    TOOL_WORK_WAITS,
    TOOL_WORK_RUNS,
    TOOL_WORK_DONE,
    TOOL_WORK_WRITTEN
} tool_work_state;

/* A job with what becomes of it. */
typedef struct tool_work {
    tool_work_state state;
    tool_job job;
    tool_shared_image *image; /* NULL: the job has an error */
    pg_inputs *prompt;        /* ids with places for the image */
    int64_t n_tokens;
    json_t *answer; /* DONE: members of the result; NULL: job.error says why there are none */
} tool_work;

typedef struct tool_queue {
    /* what the caller sets; the rest is zero */
    tool_jobs *jobs;
    const tool_results *results; /* jobs that have a line are left out */
    const pg_processor *processor;
    pg_cancel *cancel; /* of readers */
    uint32_t image_flags, prompt_flags;
    size_t n_readers, n_places;
    int unordered; /* results come as they are made */

    int64_t image_id, n_image_tokens; /* of the processor */
    pthread_t *readers;
    size_t n_started;
    pthread_mutex_t input; /* of jobs: one reader at a time takes the next */
    pthread_mutex_t mutex; /* of all below */
    pthread_cond_t ready, room;
    tool_work *places;    /* [n_places] job i in places[i % n_places] */
    uint64_t first, next; /* jobs that are here: first to next - 1 */
    size_t n_arrived;     /* that came to wait so far */
    tool_shared_image *images;
    atomic_int end; /* readers are to end; also of jobs */
    size_t n_ended; /* readers that have */
    int error;      /* errno of reading jobs; 0: none */
    int changed;    /* a line of results is of another job */
    uint64_t changed_line;
} tool_queue;

/* Starts the readers. TOOL_FAILED: told. */
int tool_queue_open(tool_queue *queue);
/* Ends them, and drops what is left. */
void tool_queue_close(tool_queue *queue);

/* Up to `most` jobs for one run of the model, which have as many new tokens and prompts of about one length; the first
 * that waits is one of them. Those that have an error become DONE. Waits for `most` while readers bring more, but not
 * longer than a moment for each. Returns how many; 0: none now, and *is_over, none any more. */
size_t tool_queue_take(tool_queue *queue, size_t most, tool_work **out, int *is_over);

/* The next job whose result is to be written, in the order of the jobs unless unordered; NULL: none now. */
tool_work *tool_queue_next_done(tool_queue *queue);
/* It was written: its place is free. */
void tool_queue_written(tool_queue *queue, tool_work *work);

#endif
