/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The curve of a training's losses. */
#ifndef PALIGEMMA_TOOL_LOSS_PLOT_H
#define PALIGEMMA_TOOL_LOSS_PLOT_H

#include "train_log.h"

/* Draws losses over steps: those of the training thin, and smoothed; those of the validation as dots. path: ends in
 * .png, else it is SVG. 0: failed; the error line is printed. */
int tool_loss_plot(const char *path, const tool_train_log *log);

#endif
