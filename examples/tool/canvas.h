/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Lines, dots and text, drawn to an SVG file or a PNG file. */
#ifndef PALIGEMMA_TOOL_CANVAS_H
#define PALIGEMMA_TOOL_CANVAS_H

#include "draw.h"

typedef struct tool_canvas tool_canvas;

typedef struct tool_point {
    float x, y; /* pixels, y downwards */
} tool_point;

/* Where text stands: x is its left edge, its middle, or its right edge. */
enum { TOOL_LEFT, TOOL_MIDDLE, TOOL_RIGHT };

/* White, of this many pixels. path: ends in .png, else it is SVG. NULL: no memory. */
tool_canvas *tool_canvas_open(const char *path, int32_t width, int32_t height);
void tool_canvas_lines(tool_canvas *canvas, const tool_point *points, size_t n, float width, tool_color color);
void tool_canvas_dot(tool_canvas *canvas, tool_point middle, float radius, tool_color color);
/* height: of a capital. text: ASCII. */
void tool_canvas_text(tool_canvas *canvas, tool_point at, int anchor, float height, tool_color color, const char *text);
/* Writes the file, which appears when it is whole, and closes the canvas. 0: failed; the error line is printed. */
int tool_canvas_close(tool_canvas **canvas);

#endif
