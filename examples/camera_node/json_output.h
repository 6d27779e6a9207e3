/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Reports as lines of JSON on stdout; README.md has the members. Each line is there at once, for whoever reads a pipe.
 */
#ifndef CAMERA_NODE_JSON_OUTPUT_H
#define CAMERA_NODE_JSON_OUTPUT_H
#include "camera.h"
#include "node.h"

typedef struct json_output {
    double *latencies; /* of the answers, seconds; for the summary */
    size_t n_latencies, capacity;
    int failed; /* 1: stdout cannot be written, or no memory */
} json_output;

/* What the run is, for the first line. */
typedef struct json_run {
    const char *model, *prompt;
    int32_t width, height;
    double hz, deadline;
} json_run;

void json_start(json_output *out, const json_run *run);
/* truth [n_truth]: the boxes that should have been found. */
void json_answer(json_output *out, const node_report *report, const scene_object *truth, int32_t n_truth);
void json_dropped(json_output *out, const node_report *report);
void json_summary(json_output *out, double seconds, const camera_counts *taken, const node_counts *counts);
void json_close(json_output *out);
#endif
