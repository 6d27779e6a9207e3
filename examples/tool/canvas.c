/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* A canvas of an SVG file is its text; that of a PNG file is a picture. */
#include "canvas.h"

#include <errno.h>
#include <stdarg.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "tool.h"

struct tool_canvas {
    const char *path;
    tool_picture picture; /* of a PNG file: it has pixels */
    char *text;           /* of an SVG file: malloc'ed; or NULL */
    size_t size, capacity;
    int failed; /* there was no memory for the text */
};

static void write_text(tool_canvas *canvas, const char *format, ...) TOOL_PRINTF(2, 3);
static void write_text(tool_canvas *canvas, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    const int n = vsnprintf(canvas->text + canvas->size, canvas->capacity - canvas->size, format, arguments);
    va_end(arguments);
    if (n < 0 || canvas->failed) {
        canvas->failed = 1;
    } else if ((size_t)n < canvas->capacity - canvas->size) {
        canvas->size += (size_t)n;
    } else {
        char *grown = realloc(canvas->text, 2 * canvas->capacity + (size_t)n + 1);
        canvas->failed = !grown;
        if (!grown) return;
        canvas->text = grown;
        canvas->capacity = 2 * canvas->capacity + (size_t)n + 1;
        va_start(arguments, format);
        canvas->size += (size_t)vsnprintf(grown + canvas->size, canvas->capacity - canvas->size, format, arguments);
        va_end(arguments);
    }
}

static int is_png(const char *path) {
    const size_t size = strlen(path);
    return size > 4 && strcasecmp(path + size - 4, ".png") == 0;
}

static void close_canvas(tool_canvas **canvas) {
    tool_picture_free(&(*canvas)->picture);
    free((*canvas)->text);
    free(*canvas);
    *canvas = NULL;
}

tool_canvas *tool_canvas_open(const char *path, int32_t width, int32_t height) {
    tool_canvas *canvas = calloc(1, sizeof *canvas);
    if (!canvas) return NULL;
    canvas->path = path;
    if (is_png(path)) {
        const size_t size = 3 * (size_t)width * (size_t)height;
        canvas->picture = (tool_picture){width, height, malloc(size)};
        if (canvas->picture.rgb) memset(canvas->picture.rgb, 255, size);
    } else {
        canvas->capacity = 4096;
        canvas->text = malloc(canvas->capacity);
        if (canvas->text)
            write_text(canvas,
                       "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" "
                       "font-family=\"sans-serif\">\n<rect width=\"%d\" height=\"%d\" fill=\"#fff\"/>\n",
                       (int)width, (int)height, (int)width, (int)height, (int)width, (int)height);
    }
    if (!canvas->picture.rgb && !canvas->text) close_canvas(&canvas);
    return canvas;
}

/* ---- pixels ---- */

/* The distance of p from the line between a and b. */
static float distance(tool_point p, tool_point a, tool_point b) {
    const float dx = b.x - a.x, dy = b.y - a.y, length2 = dx * dx + dy * dy;
    float part = length2 > 0 ? ((p.x - a.x) * dx + (p.y - a.y) * dy) / length2 : 0;
    part = fminf(fmaxf(part, 0), 1);
    return hypotf(p.x - a.x - part * dx, p.y - a.y - part * dy);
}

/* The line between a and b, round at its ends: a dot when they are one. */
static void stroke(tool_picture *picture, tool_point a, tool_point b, float radius, tool_color color) {
    const float reach = radius + 1;
    const int32_t x1 = (int32_t)fminf(fmaxf(a.x, b.x) + reach, (float)picture->width - 1);
    const int32_t y1 = (int32_t)fminf(fmaxf(a.y, b.y) + reach, (float)picture->height - 1);
    for (int32_t y = (int32_t)fmaxf(fminf(a.y, b.y) - reach, 0); y <= y1; y++)
        for (int32_t x = (int32_t)fmaxf(fminf(a.x, b.x) - reach, 0); x <= x1; x++) {
            const tool_point p = {(float)x + .5f, (float)y + .5f};
            const float part = radius + .5f - distance(p, a, b);
            if (part > 0) tool_draw_pixel(picture, x, y, color, fminf(part, 1));
        }
}

/* ---- both ---- */

static void write_color(tool_canvas *canvas, const char *name, tool_color color) {
    write_text(canvas, " %s=\"#%02x%02x%02x\"", name, color.r, color.g, color.b);
}

void tool_canvas_lines(tool_canvas *canvas, const tool_point *points, size_t n, float width, tool_color color) {
    if (n < 2) return;
    if (!canvas->text) {
        for (size_t i = 1; i < n; i++) stroke(&canvas->picture, points[i - 1], points[i], width / 2, color);
        return;
    }
    write_text(canvas, "<polyline fill=\"none\" stroke-linejoin=\"round\" stroke-width=\"%g\"", (double)width);
    write_color(canvas, "stroke", color);
    write_text(canvas, " points=\"");
    for (size_t i = 0; i < n; i++)
        write_text(canvas, "%s%.1f,%.1f", i ? " " : "", (double)points[i].x, (double)points[i].y);
    write_text(canvas, "\"/>\n");
}

void tool_canvas_dot(tool_canvas *canvas, tool_point middle, float radius, tool_color color) {
    if (!canvas->text) {
        stroke(&canvas->picture, middle, middle, radius, color);
        return;
    }
    write_text(canvas, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%g\"", (double)middle.x, (double)middle.y, (double)radius);
    write_color(canvas, "fill", color);
    write_text(canvas, "/>\n");
}

void tool_canvas_text(tool_canvas *canvas, tool_point at, int anchor, float height, tool_color color,
                      const char *text) {
    static const char *const anchors[] = {"start", "middle", "end"};
    const size_t size = strlen(text);
    if (!canvas->text) {
        const float width = tool_text_width(text, size, height);
        const float left = at.x - width * (anchor == TOOL_LEFT ? 0 : anchor == TOOL_MIDDLE ? .5f : 1);
        tool_draw_text(&canvas->picture, roundf(left), roundf(at.y), height, color, text, size);
        return;
    }
    const double font_size = (double)height * 1.4; /* a capital is 0.7 of it */
    write_text(canvas, "<text x=\"%.1f\" y=\"%.1f\" font-size=\"%.1f\" text-anchor=\"%s\"", (double)at.x, (double)at.y,
               font_size, anchors[anchor]);
    write_color(canvas, "fill", color);
    write_text(canvas, ">%s</text>\n", text);
}

/* ---- files ---- */

static int write_svg(const char *path, const char *text, size_t size) {
    char *partial = NULL;
    int error = 0;
    if (asprintf(&partial, "%s.partial", path) < 0) return tool_fail_text("%s: no memory", path) == TOOL_OK;
    FILE *file = fopen(partial, "wbe");
    if (!file || fwrite(text, 1, size, file) != size) error = errno;
    if (file && fclose(file) != 0 && !error) error = errno;
    if (!error && rename(partial, path) != 0) error = errno;
    if (file && error) remove(partial);
    free(partial);
    if (error) tool_fail_text("%s: the picture cannot be written: %s", path, strerror(error));
    return !error;
}

int tool_canvas_close(tool_canvas **canvas) {
    tool_canvas *c = *canvas;
    int done;
    if (c->text) {
        write_text(c, "</svg>\n");
        done = c->failed ? tool_fail_text("%s: no memory for the picture", c->path) == TOOL_OK
                         : write_svg(c->path, c->text, c->size);
    } else {
        done = tool_png_write(c->path, &c->picture);
    }
    close_canvas(canvas);
    return done;
}
