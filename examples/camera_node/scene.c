/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Draws the moving shapes. Edges are smooth as a lens makes them: each row of pixels is cut into four lines, and of a
 * line it is known to fractions of a pixel where it is inside of the shape. */
#include "scene.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N_LINES = 4, MAX_CORNERS = 10 };

/* A shape in a box of 1 x 1. No corners: it is the circle. */
typedef struct shape {
    const char *name;
    double color[3];
    double size;  /* of the frame's shorter side */
    double speed; /* of its growing and shrinking, radians a second */
    int n_corners;
    double corners[MAX_CORNERS][2]; /* x, y */
} shape;

struct scene {
    int32_t width, height;
    shape shapes[SCENE_N_OBJECTS];
    uint8_t *wall;   /* [height][width][3] */
    float *coverage; /* [width] of the row that is drawn */
};

static const double pi = 3.14159265358979323846;
/* Seconds of the movement that have passed when the camera begins: in the next 4.6 the demo model mistakes no shape for
 * another, so that the tests, which look at 2, need not allow for that. */
static const double begin = 6;

/* ---- what there is ---- */

/* Five long rays and five short ones, stretched to fill the box. */
static void make_star(shape *star) {
    double low[2] = {1, 1}, high[2] = {-1, -1};
    star->n_corners = 10;
    for (int k = 0; k < 10; k++) {
        const double ray = k % 2 ? 0.45 : 1;
        star->corners[k][0] = ray * sin(k * pi / 5);
        star->corners[k][1] = -ray * cos(k * pi / 5);
        for (int i = 0; i < 2; i++) {
            low[i] = fmin(low[i], star->corners[k][i]);
            high[i] = fmax(high[i], star->corners[k][i]);
        }
    }
    for (int k = 0; k < 10; k++)
        for (int i = 0; i < 2; i++) star->corners[k][i] = (star->corners[k][i] - low[i]) / (high[i] - low[i]);
}

static void make_shapes(shape *shapes) {
    shapes[0] = (shape){.name = "red circle", .color = {220, 35, 35}, .size = 0.31, .speed = 0.9};
    shapes[1] = (shape){.name = "blue star", .color = {35, 75, 220}, .size = 0.35, .speed = 0.7};
    shapes[2] = (shape){.name = "yellow triangle",
                        .color = {250, 215, 30},
                        .size = 0.3,
                        .speed = 1.1,
                        .n_corners = 3,
                        .corners = {{0.5, 0}, {1, 1}, {0, 1}}};
    make_star(&shapes[1]);
}

/* A wall with broad, faint stripes that the light falls on from the left. */
static void draw_wall(scene *s) {
    for (int32_t y = 0; y < s->height; y++) {
        for (int32_t x = 0; x < s->width; x++) {
            const double along = (double)x / s->width + 0.4 * y / s->height;
            const double stripe = 6 * sin(9 * along), light = 25 * (0.5 - (double)x / s->width);
            uint8_t *pixel = s->wall + 3 * ((size_t)y * (size_t)s->width + (size_t)x);
            pixel[0] = (uint8_t)(158 + stripe + light);
            pixel[1] = (uint8_t)(152 + stripe + light);
            pixel[2] = (uint8_t)(144 + stripe + light);
        }
    }
}

scene *scene_create(int32_t width, int32_t height) {
    scene *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    s->width = width;
    s->height = height;
    s->wall = malloc(3 * (size_t)width * (size_t)height);
    s->coverage = malloc(sizeof *s->coverage * (size_t)width);
    if (!s->wall || !s->coverage) {
        scene_close(s);
        return NULL;
    }
    make_shapes(s->shapes);
    draw_wall(s);
    return s;
}

void scene_close(scene *s) {
    if (!s) return;
    free(s->coverage);
    free(s->wall);
    free(s);
}

/* ---- where it is ---- */

/* The shapes go round the middle, a third of the way apart: too far to touch. */
void scene_get_objects(const scene *s, double seconds, scene_object *objects) {
    const double side = s->width < s->height ? s->width : s->height, t = begin + seconds;
    for (int i = 0; i < SCENE_N_OBJECTS; i++) {
        const double size = side * s->shapes[i].size * (1 + 0.08 * sin(s->shapes[i].speed * t));
        const double angle = 0.8 * t + 0.15 * sin(1.3 * t) + i * 2 * pi / SCENE_N_OBJECTS;
        objects[i].name = s->shapes[i].name;
        objects[i].x = (s->width - size) / 2 * (1 + 0.92 * cos(angle));
        objects[i].y = (s->height - size) / 2 * (1 + 0.92 * sin(angle));
        objects[i].width = objects[i].height = size;
    }
}

/* ---- drawing ---- */

/* Where the line at height y of the shape's box (0 to 1) goes in and out, from left to right; the number of places. */
static int cross(const shape *of, double y, double *xs /* [MAX_CORNERS] */) {
    int n = 0;
    if (!of->n_corners) {
        const double half = sqrt(0.25 - (y - 0.5) * (y - 0.5));
        xs[0] = 0.5 - half;
        xs[1] = 0.5 + half;
        return 2;
    }
    for (int i = 0; i < of->n_corners; i++) {
        const double *a = of->corners[i], *b = of->corners[(i + 1) % of->n_corners];
        if ((a[1] <= y) == (b[1] <= y)) continue;
        const double x = a[0] + (y - a[1]) / (b[1] - a[1]) * (b[0] - a[0]);
        int at = n++;
        for (; at > 0 && xs[at - 1] > x; at--) xs[at] = xs[at - 1];
        xs[at] = x;
    }
    return n;
}

/* Adds a line's part from x0 to x1, in pixels, to the coverage of the pixels. */
static void cover(float *coverage, double x0, double x1) {
    for (int32_t x = (int32_t)x0; x < x1; x++) {
        const double inside = fmin(x1, x + 1) - fmax(x0, x);
        coverage[x] += (float)inside / N_LINES;
    }
}

static void draw_row(const scene *s, const shape *of, const scene_object *box, int32_t y, uint8_t *row) {
    const int32_t x0 = (int32_t)box->x, x1 = (int32_t)fmin(s->width, ceil(box->x + box->width));
    memset(s->coverage, 0, sizeof *s->coverage * (size_t)s->width);
    for (int line = 0; line < N_LINES; line++) {
        double xs[MAX_CORNERS];
        const double at = (y + (line + 0.5) / N_LINES - box->y) / box->height;
        if (at <= 0 || at >= 1) continue;
        const int n = cross(of, at, xs);
        for (int i = 0; i + 1 < n; i += 2)
            cover(s->coverage, box->x + xs[i] * box->width, box->x + xs[i + 1] * box->width);
    }
    for (int32_t x = x0; x < x1; x++)
        for (int c = 0; c < 3; c++) {
            uint8_t *value = &row[3 * x + c];
            *value = (uint8_t)(*value + (double)s->coverage[x] * (of->color[c] - *value) + 0.5);
        }
}

void scene_draw(const scene *s, double seconds, uint8_t *rgb) {
    scene_object objects[SCENE_N_OBJECTS];
    const size_t stride = 3 * (size_t)s->width;
    memcpy(rgb, s->wall, stride * (size_t)s->height);
    scene_get_objects(s, seconds, objects);
    for (int i = 0; i < SCENE_N_OBJECTS; i++) {
        const int32_t end = (int32_t)fmin(s->height, ceil(objects[i].y + objects[i].height));
        for (int32_t y = (int32_t)objects[i].y; y < end; y++)
            draw_row(s, &s->shapes[i], &objects[i], y, rgb + stride * (size_t)y);
    }
}
