/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* paligemma convert --calibrate: images and prompts that a conversion rounds by. */
#ifndef PALIGEMMA_TOOL_CALIBRATE_H
#define PALIGEMMA_TOOL_CALIBRATE_H

#include "tool.h"

/* What the options say. */
typedef struct tool_calibrate {
    const char *images;  /* --calibrate: an image or a folder; NULL: not asked for */
    const char *prompts; /* --prompts: a file with a prompt a line, behind a tab its answer; NULL: the usual ones */
    const char *saved;   /* where what was added is kept until the conversion is done */
    int32_t n_threads;
} tool_calibrate;

/* Runs `model` over each image with each prompt. What an interrupted call saved is gone on from. Answers that are not
 * given are the model's own. On error *out is NULL; *stage: for tool_fail(), which is not to be called after TOOL_TOLD.
 */
pg_status tool_calibrate_run(const tool_calibrate *settings, const char *model, tool_log *log, pg_cancel *cancel,
                             pg_calibration **out, tool_stage *stage);

#endif
