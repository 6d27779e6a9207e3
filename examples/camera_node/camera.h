/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* A camera made of code: a thread that gives a frame of the scene in NV12 at a fixed rate, whether anybody is ready for
 * it or not. A driver (V4L2, libcamera, ...) takes its place in a robot. */
#ifndef CAMERA_NODE_CAMERA_H
#define CAMERA_NODE_CAMERA_H
#include "nv12.h"
#include "scene.h"

typedef struct camera camera;

typedef struct camera_frame {
    const nv12_frame *pixels; /* of the camera's only buffer: the next frame is drawn into it */
    int64_t number;           /* from 0, without gaps */
    int64_t stamp;            /* when it was taken: nanoseconds since 1970 */
    int64_t taken;            /* the same by the clock of monotonic_ns(), which is never set */
    double seconds;           /* the same since the camera began: the scene's time */
} camera_frame;

typedef void (*camera_fn)(void *user, const camera_frame *frame);

/* What the camera did. */
typedef struct camera_counts {
    int64_t taken;  /* frames */
    int64_t missed; /* ticks without one, as the thread came too late */
} camera_counts;

/* Begins to call `on_frame` on a thread of its own, `hz` times a second. NULL: no memory, or no thread. */
camera *camera_start(int32_t width, int32_t height, double hz, camera_fn on_frame, void *user);
/* Asks it to stop, and does not wait for that. */
void camera_stop(camera *c);
int camera_is_running(const camera *c);           /* 0: no frame comes any more */
camera_counts camera_get_counts(const camera *c); /* once it does not run */
const scene *camera_scene(const camera *c);
double camera_seconds(const camera *c, int64_t stamp); /* the scene's time of a frame's stamp */
void camera_close(camera *c);                          /* stops it, too. NULL is fine */
#endif
