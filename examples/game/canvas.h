/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Pictures in memory: what the game draws on, what the window shows and what the model is given. */
#ifndef GAME_CANVAS_H
#define GAME_CANVAS_H

#include <stdint.h>

/* 0xAARRGGBB: SDL_PIXELFORMAT_ARGB8888, and on a little-endian machine PG_IMAGE_BGRA8. */
typedef struct canvas {
    uint32_t *pixels; /* [height][width] */
    int width, height;
} canvas;

#define RGB(r, g, b) (0xFF000000U | (uint32_t)(r) << 16 | (uint32_t)(g) << 8 | (uint32_t)(b))

int canvas_create(canvas *c, int width, int height); /* 0: no memory */
void canvas_free(canvas *c);

/* All of them draw what lies inside the canvas, and leave out the rest. */
void canvas_fill(canvas *c, int x, int y, int width, int height, uint32_t color);
void canvas_frame(canvas *c, int x, int y, int width, int height, int line, uint32_t color);
void canvas_line(canvas *c, float x0, float y0, float x1, float y1, uint32_t color);
void canvas_paste(canvas *c, int x, int y, int times, const canvas *picture); /* each pixel `times` as wide and high */
uint32_t color_mix(uint32_t a, uint32_t b, float part);                       /* part 0: a, 1: b */

/* Writes a PNG file. NULL, or what went wrong. */
const char *canvas_save(const canvas *c, const char *path);

/* Text of a font of 5 x 7 points, each `scale` pixels wide; other than ASCII is drawn as a box. */
enum { LETTER_WIDTH = 6, LETTER_HEIGHT = 10 }; /* with the gap to the next, in points */
void draw_text(canvas *c, int x, int y, int scale, uint32_t color, const char *text);
/* The same with lines of at most `columns` letters, broken at spaces where there are any. Returns how many lines. */
int draw_paragraph(canvas *c, int x, int y, int scale, int columns, uint32_t color, const char *text);

#endif
