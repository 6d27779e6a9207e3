/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* How long frames take, and what part of it is the library's. */
#ifndef GAME_FRAME_TIMES_H
#define GAME_FRAME_TIMES_H

#include <stdio.h>

typedef enum frame_part { FRAME_WHOLE, FRAME_WORK, FRAME_ASK, FRAME_LISTEN, N_PARTS } frame_part;

enum { FRAME_LATE = 17 }; /* ms; at 60 Hz a frame has 16.7 */

/* Microseconds: from picture to picture, the game's own work, and in it the calls of mind_ask() and mind_listen(). */
typedef struct frame_times {
    float (*us)[N_PARTS]; /* [size] */
    int n, size;          /* frames; those beyond size are not kept */
    int n_late;           /* those of more than FRAME_LATE */
} frame_times;

int frame_times_create(frame_times *t, int size); /* 0: no memory */
void frame_times_free(frame_times *t);
void frame_times_add(frame_times *t, const double seconds[N_PARTS]);

float frame_times_part(const frame_times *t, frame_part, float at); /* ms; at: 0 shortest, .5 median, 1 longest */
int frame_times_write(const frame_times *t, const char *path);      /* a line for each frame; 0: errno tells why not */

#endif
