/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The steps of a training: what is learned when, what is told, and where states are saved. */
#ifndef PALIGEMMA_TOOL_TRAIN_LOOP_H
#define PALIGEMMA_TOOL_TRAIN_LOOP_H

#include "train_log.h"
#include "train_rows.h"

typedef struct tool_train_settings {
    const char *folder;        /* of the adapter: the newest state, or with a validation that of its least loss, and the
                                  newest one in LAST */
    const char *plot;          /* a file, .svg or .png */
    int64_t epochs, n_steps;   /* n_steps 0: so many epochs */
    int64_t batch, accumulate; /* rows of a call, and calls of a step */
    int64_t evaluate_every, save_every; /* steps; 0: once an epoch */
    int64_t early_stop;                 /* evaluations without a better one; 0: no */
    uint64_t seed;                      /* of the order */
    int json;
} tool_train_settings;

typedef struct tool_training {
    tool_train_settings settings;
    tool_train_encoder encoder;
    tool_train_set training, validation; /* validation.n 0: there is none */
    tool_train_log log;
    tool_progress *progress;
    pg_trainer *trainer;
    char *last;      /* the folder of the newest state */
    int64_t step;    /* done so far */
    int64_t n_calls; /* of an epoch */
    /* the loop's own */
    int64_t calls;      /* of this step */
    double rows_now;    /* of a call of the validation; 0: it is a step's */
    size_t *order;      /* [training.n] of epoch */
    int64_t epoch;      /* -1: none */
    size_t *rows;       /* [batch] */
    int64_t saved_step; /* -1: none */
    double saved_at, begun;
    int save_failed, plot_failed;
} tool_training;

/* Fills in what follows from settings and sets: n_calls, n_steps, and how often. 0: no memory. */
int tool_train_plan(tool_training *train);
/* A pg_progress_fn of the trainer: shows it, and stops when a signal came. The trainer has no pg_cancel: it has to save
 * then. */
int32_t tool_train_progress(void *train, int32_t phase, int64_t done, int64_t total);
/* Goes on from a trainer that was resumed: its step, and the log so far. TOOL_FAILED: told. */
int tool_train_go_on(tool_training *train);
/* Trains to the end. Returns the exit status; errors are told. */
int tool_train_run(tool_training *train);
void tool_train_free(tool_training *train);

#endif
