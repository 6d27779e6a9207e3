/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What the camera looks at: three coloured shapes that move before a muted wall, in the manner of the images that
 * the demo model knows (examples/demo/draw.py). Everything follows from the time, so that the truth of any frame can be
 * told later. */
#ifndef CAMERA_NODE_SCENE_H
#define CAMERA_NODE_SCENE_H
#include <stdint.h>

enum { SCENE_N_OBJECTS = 3 };

typedef struct scene scene;

/* A shape and the box that it fills, in pixels of the frame. */
typedef struct scene_object {
    const char *name; /* as the demo model says it: "red circle" */
    double x, y, width, height;
} scene_object;

scene *scene_create(int32_t width, int32_t height); /* NULL: no memory */
void scene_close(scene *s);
/* Where the shapes are `seconds` after the beginning. All of them are whole in the frame, and none covers another. */
void scene_get_objects(const scene *s, double seconds, scene_object *objects /* [SCENE_N_OBJECTS] */);
/* The frame at that time: rgb [height][width][3]. */
void scene_draw(const scene *s, double seconds, uint8_t *rgb);
#endif
