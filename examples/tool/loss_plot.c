/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The curve of a training's losses, with axes that have round numbers. */
#include "loss_plot.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "canvas.h"

enum {
    WIDTH = 960,
    HEIGHT = 540,
    LEFT = 80,
    RIGHT = WIDTH - 24,
    TOP = 48,
    BOTTOM = HEIGHT - 56,
    COLUMNS = 800 /* of a line; more steps than these share them */
};

static const tool_color ink = {60, 60, 60}, grid = {225, 225, 225}, thin = {160, 195, 235}, smooth = {20, 90, 180},
                        validation = {220, 95, 20};

/* An axis: what its ends mean, and where its numbers stand. */
typedef struct axis {
    double low, high, step;
    float from, to; /* pixels */
} axis;

typedef struct chart {
    tool_canvas *canvas;
    const tool_train_log *log;
    axis x, y;
    tool_point *points; /* [2 * log->n + 2] */
} chart;

/* 1, 2 or 5 times a power of ten, so that there are about n of them; whole numbers where asked for. */
static double round_step(double range, int n, int whole) {
    const double rough = range / n, power = pow(10, floor(log10(rough)));
    const double step = rough <= power       ? power
                        : rough <= 2 * power ? 2 * power
                        : rough <= 5 * power ? 5 * power
                                             : 10 * power;
    return whole && step < 1 ? 1 : step;
}

static float place(const axis *a, double value) {
    return a->from + (float)((value - a->low) / (a->high - a->low)) * (a->to - a->from);
}

static void make_axes(chart *c) {
    double low = INFINITY, high = -INFINITY, last = 1;
    for (size_t i = 0; i < c->log->n; i++) {
        low = fmin(low, c->log->points[i].loss);
        high = fmax(high, c->log->points[i].loss);
        last = fmax(last, (double)c->log->points[i].step);
    }
    if (!(high >= low)) low = 0, high = 1;
    if (high - low < 1e-6 * fmax(fabs(high), 1e-6))
        low -= .5 * fmax(fabs(high), 1e-6), high += .5 * fmax(fabs(high), 1e-6);
    c->x = (axis){0, last, round_step(last, 8, 1), LEFT, RIGHT};
    c->y = (axis){.step = round_step(high - low, 6, 0), .from = BOTTOM, .to = TOP};
    c->y.low = floor(low / c->y.step) * c->y.step;
    c->y.high = ceil(high / c->y.step) * c->y.step;
}

static void number_text(double value, double step, char text[32]) {
    const int places = step < 1 ? (int)ceil(-log10(step) - 1e-9) : 0;
    if (fabs(value) < 1e6 && places < 7)
        snprintf(text, 32, "%.*f", places, fabs(value) < step / 2 ? 0 : value);
    else
        snprintf(text, 32, "%.3g", value);
}

static void draw_axes(const chart *c) {
    char text[32];
    for (int i = 0; c->y.low + i * c->y.step <= c->y.high + .01 * c->y.step; i++) {
        const double value = c->y.low + i * c->y.step;
        const float y = place(&c->y, value);
        const tool_point line[2] = {{LEFT, y}, {RIGHT, y}};
        tool_canvas_lines(c->canvas, line, 2, 1, grid);
        number_text(value, c->y.step, text);
        tool_canvas_text(c->canvas, (tool_point){LEFT - 8, y + 4}, TOOL_RIGHT, 9, ink, text);
    }
    for (int i = 0; i * c->x.step <= c->x.high; i++) {
        const float x = place(&c->x, i * c->x.step);
        const tool_point mark[2] = {{x, BOTTOM}, {x, BOTTOM + 5}};
        tool_canvas_lines(c->canvas, mark, 2, 1, ink);
        number_text(i * c->x.step, c->x.step, text);
        tool_canvas_text(c->canvas, (tool_point){x, BOTTOM + 20}, TOOL_MIDDLE, 9, ink, text);
    }
    const tool_point frame[3] = {{LEFT, TOP}, {LEFT, BOTTOM}, {RIGHT, BOTTOM}};
    tool_canvas_lines(c->canvas, frame, 3, 1, ink);
    tool_canvas_text(c->canvas, (tool_point){(LEFT + RIGHT) / 2.f, HEIGHT - 14}, TOOL_MIDDLE, 10, ink, "step");
    tool_canvas_text(c->canvas, (tool_point){LEFT, TOP - 18}, TOOL_MIDDLE, 10, ink, "loss");
}

static tool_point point_of(const chart *c, const tool_train_point *point, double loss) {
    return (tool_point){place(&c->x, (double)point->step), place(&c->y, loss)};
}

/* Losses of the training: as they are (of steps that share a column the least and the largest), or smoothed. */
static void draw_training(const chart *c, size_t n_training, int smoothed) {
    const size_t share = (n_training + COLUMNS - 1) / COLUMNS;
    const double keep = 1 - 1 / fmax(5, (double)n_training / 25);
    double mean = 0, weight = 0, least = INFINITY, largest = -INFINITY;
    size_t n = 0, i = 0;
    for (size_t k = 0; k < c->log->n; k++) {
        const tool_train_point *p = &c->log->points[k];
        if (p->is_validation) continue;
        mean = keep * mean + (1 - keep) * p->loss;
        weight = keep * weight + (1 - keep);
        least = fmin(least, p->loss);
        largest = fmax(largest, p->loss);
        if (++i % share != 0 && i != n_training) continue;
        if (smoothed)
            c->points[n++] = point_of(c, p, mean / weight);
        else
            c->points[n++] = point_of(c, p, least);
        if (!smoothed && largest > least) c->points[n++] = point_of(c, p, largest);
        least = INFINITY;
        largest = -INFINITY;
    }
    tool_canvas_lines(c->canvas, c->points, n, smoothed ? 2.5f : 1, smoothed ? smooth : thin);
    if (n == 1) tool_canvas_dot(c->canvas, c->points[0], 2, smooth);
}

static void draw_validation(const chart *c) {
    size_t n = 0;
    for (size_t i = 0; i < c->log->n; i++)
        if (c->log->points[i].is_validation) c->points[n++] = point_of(c, &c->log->points[i], c->log->points[i].loss);
    tool_canvas_lines(c->canvas, c->points, n, 1.5f, validation);
    for (size_t i = 0; i < n; i++) tool_canvas_dot(c->canvas, c->points[i], 4, validation);
}

static void draw_legend(const chart *c, size_t n_training, int has_validation) {
    char text[64];
    tool_point line[2] = {{RIGHT - 360, TOP - 22}, {RIGHT - 336, TOP - 22}};
    if (n_training > 0) {
        tool_canvas_lines(c->canvas, line, 2, 2.5f, smooth);
        tool_canvas_text(c->canvas, (tool_point){line[1].x + 6, TOP - 18}, TOOL_LEFT, 9, ink, "training");
    }
    if (!has_validation) return;
    snprintf(text, sizeof text, "validation (least: %.4g, step %lld)", c->log->best, (long long)c->log->best_step);
    tool_canvas_dot(c->canvas, (tool_point){RIGHT - 244, TOP - 22}, 4, validation);
    tool_canvas_text(c->canvas, (tool_point){RIGHT - 234, TOP - 18}, TOOL_LEFT, 9, ink, text);
}

int tool_loss_plot(const char *path, const tool_train_log *log) {
    chart c = {.log = log, .points = malloc((2 * log->n + 2) * sizeof *c.points)};
    size_t n_training = 0;
    for (size_t i = 0; i < log->n; i++) n_training += !log->points[i].is_validation;
    if (c.points) c.canvas = tool_canvas_open(path, WIDTH, HEIGHT);
    if (!c.canvas) {
        free(c.points);
        return tool_fail_text("%s: no memory for the picture", path) == TOOL_OK;
    }
    make_axes(&c);
    draw_axes(&c);
    if (n_training > 0) draw_training(&c, n_training, 0);
    if (n_training > 1) draw_training(&c, n_training, 1);
    draw_validation(&c);
    draw_legend(&c, n_training, n_training < log->n);
    free(c.points);
    return tool_canvas_close(&c.canvas);
}
