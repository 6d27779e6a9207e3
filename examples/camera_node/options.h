/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What the program is asked to do. */
#ifndef CAMERA_NODE_OPTIONS_H
#define CAMERA_NODE_OPTIONS_H
#include <stdint.h>

typedef struct program_options {
    const char *model, *prompt;
    int32_t width, height; /* pixels of a frame */
    double hz;             /* frames a second */
    double seconds;        /* 0: until Ctrl-C */
    double deadline;       /* seconds; 0: none */
    int32_t nice;
    int leave_cpu;
} program_options;

/* Reads the arguments. -1: go on; else the program is to end with this status, and has said why. */
int options_read(int argc, char **argv, program_options *out);
#endif
