/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The course of a training: the losses so far, and ADAPTER/log.jsonl, from which --resume has them. Its lines are
 * objects: the first one has "settings", the others "step" with "loss" or "validation_loss" and more to read. Lines are
 * written before the newest state is saved, so that the file is never behind what --resume goes on from; lines ahead of
 * it are cut off. The line of the least validation loss is written after its adapter is saved.
 */
#ifndef PALIGEMMA_TOOL_TRAIN_LOG_H
#define PALIGEMMA_TOOL_TRAIN_LOG_H

#include "tool.h"

typedef struct tool_train_point {
    int64_t step;
    int is_validation;
    double loss;
} tool_train_point;

typedef struct tool_train_log {
    char *name; /* of the file; malloc'ed */
    tool_train_point *points;
    size_t n, capacity;
    json_t *settings; /* an object of whole numbers: what the order of the rows follows from */
    char *unwritten;  /* lines; malloc'ed */
    size_t n_unwritten;
    int is_new; /* the file is not there yet */
    /* of the validations */
    double best;
    int64_t best_step;
    int64_t n_since_best; /* best_step -1: there was none */
} tool_train_log;

/* A log of the folder's. settings: taken. TOOL_FAILED: told. */
int tool_train_log_open(tool_train_log *log, const char *folder, json_t *settings);
void tool_train_log_close(tool_train_log *log);
/* Reads the file up to `step` and cuts off the rest. The settings must be those of the file. Nothing is there: as if it
 * began here. TOOL_FAILED: told. */
int tool_train_log_resume(tool_train_log *log, int64_t step);

/* Adds a loss, and the object, which has "step", as a line. Takes the reference. 0: no memory. */
int tool_train_log_add(tool_train_log *log, tool_train_point point, json_t *line);
/* Appends the new lines to the file. TOOL_FAILED: told. */
int tool_train_log_write(tool_train_log *log);

#endif
