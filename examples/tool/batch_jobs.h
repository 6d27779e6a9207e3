/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The jobs of `paligemma batch`: a JSON object a line (JSON Lines) with
 *
 *   "image"           the name of a PNG or JPEG file; relative to `images`
 *   "prompt"          what is asked; lines without one take that of --prompt
 *   "id"              a text or a whole number that the result has, too; may lack
 *   "max_new_tokens"  may lack, as may
 *   "task"            "text", or "detect": the result has objects, too
 *
 * or the images of a folder, each with the prompt of --prompt. Other members are left alone. Lines are read once, from
 * the beginning to the end, and none is kept: any number of them takes the memory of one.
 */
#ifndef PALIGEMMA_TOOL_BATCH_JOBS_H
#define PALIGEMMA_TOOL_BATCH_JOBS_H

#include <stdatomic.h>

#include "tool.h"
#include "walk.h"

typedef enum tool_task { TOOL_TASK_TEXT, TOOL_TASK_DETECT, TOOL_N_TASKS } tool_task;
/* 1 and the task that is called `name`, or 0. */
int tool_task_of(const char *name, tool_task *out);

typedef struct tool_job {
    uint64_t line;       /* from 1; 0: an image of a folder */
    json_t *object;      /* the line's, which has id, image and prompt; or NULL */
    const json_t *id;    /* or NULL */
    const char *image;   /* as it was given; NULL: not known */
    const char *prompt;  /* NULL: not known */
    char *path;          /* of the image, as it can be opened; malloc'ed */
    int64_t most_tokens; /* max_new_tokens; 0: as the options say */
    tool_task task;
    char *error; /* why it cannot be done; malloc'ed; NULL: it can */
    int is_bad;  /* it is the line that is bad */
} tool_job;

typedef struct tool_jobs {
    const char *name;      /* of the file or folder; "-": stdin */
    const char *images;    /* the folder of the images; NULL: that of the file */
    const char *prompt;    /* of lines that have none; NULL: these are bad */
    tool_task task;        /* of lines that have none */
    const atomic_int *end; /* when it is set, nothing is waited for any more */
    uint64_t n_jobs;       /* lines that are not blank, or images; 0: not known, they come through a pipe */
    tool_list list;        /* of a folder */
    size_t next_image;
    int is_folder, fd;
    uint64_t line; /* that was read last */
    char *buffer;  /* what was read of the file, of which buffer[begin] to buffer[filled] is to come */
    size_t begin, filled;
    char *text; /* [TOOL_LINE_MOST + 1] of that line */
} tool_jobs;

/* Opens name; name, images, prompt, task and end are set, the rest is zero. TOOL_FAILED: told. */
int tool_jobs_open(tool_jobs *jobs);
void tool_jobs_close(tool_jobs *jobs);

/* The next job, which may be one that has an error. Returns 1; 0: there is none, or `end` was set; -1: errno says what
 * failed. */
int tool_jobs_next(tool_jobs *jobs, tool_job *out);

/* Makes a job of a line: its number is set in *job, the rest is zero. */
void tool_job_parse(const tool_jobs *jobs, const char *line, size_t size, tool_job *job);
void tool_job_free(tool_job *job);

/* "JOBS, line 7: why", or what the error says already of an image of a folder. */
void tool_job_warn(const tool_jobs *jobs, const tool_job *job);

/* What pg_last_error() says of a job, which is the only row of its call, in the tool's words; malloc'ed. */
char *tool_job_error(void);

#endif
