/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Rectangles, lines and copies on a canvas, and the canvas as a PNG file. */
#include "canvas.h"

#include <math.h>
#include <png.h>
#include <stdlib.h>

int canvas_create(canvas *c, int width, int height) {
    c->width = width;
    c->height = height;
    c->pixels = calloc((size_t)width * (size_t)height, sizeof *c->pixels);
    return c->pixels != NULL;
}

void canvas_free(canvas *c) {
    free(c->pixels);
    c->pixels = NULL;
}

static int clamp(int value, int low, int high) { return value < low ? low : value > high ? high : value; }

void canvas_fill(canvas *c, int x, int y, int width, int height, uint32_t color) {
    const int x0 = clamp(x, 0, c->width), x1 = clamp(x + width, 0, c->width);
    const int y0 = clamp(y, 0, c->height), y1 = clamp(y + height, 0, c->height);
    for (int row = y0; row < y1; row++)
        for (int column = x0; column < x1; column++) c->pixels[row * c->width + column] = color;
}

void canvas_frame(canvas *c, int x, int y, int width, int height, int line, uint32_t color) {
    canvas_fill(c, x, y, width, line, color);
    canvas_fill(c, x, y + height - line, width, line, color);
    canvas_fill(c, x, y, line, height, color);
    canvas_fill(c, x + width - line, y, line, height, color);
}

void canvas_line(canvas *c, float x0, float y0, float x1, float y1, uint32_t color) {
    const int steps = (int)fmaxf(fabsf(x1 - x0), fabsf(y1 - y0)) + 1;
    for (int i = 0; i <= steps; i++) {
        const float part = (float)i / (float)steps;
        canvas_fill(c, (int)lrintf(x0 + part * (x1 - x0)), (int)lrintf(y0 + part * (y1 - y0)), 1, 1, color);
    }
}

void canvas_paste(canvas *c, int x, int y, int times, const canvas *picture) {
    for (int row = 0; row < picture->height * times && y + row < c->height; row++)
        for (int column = 0; column < picture->width * times && x + column < c->width; column++)
            c->pixels[(y + row) * c->width + x + column] =
                picture->pixels[row / times * picture->width + column / times];
}

uint32_t color_mix(uint32_t a, uint32_t b, float part) {
    uint32_t mixed = 0xFF000000U;
    for (int shift = 0; shift < 24; shift += 8) {
        const float from = (float)(a >> shift & 255), to = (float)(b >> shift & 255);
        mixed |= (uint32_t)(from + part * (to - from) + .5f) << shift;
    }
    return mixed;
}

const char *canvas_save(const canvas *c, const char *path) {
    static char error[sizeof((png_image *)0)->message];
    png_image image = {.version = PNG_IMAGE_VERSION};
    unsigned char *rgb = malloc(3 * (size_t)c->width * (size_t)c->height);
    if (!rgb) return "no memory";
    for (int i = 0; i < c->width * c->height; i++)
        for (int channel = 0; channel < 3; channel++)
            rgb[3 * i + channel] = (unsigned char)(c->pixels[i] >> (16 - 8 * channel));
    image.width = (png_uint_32)c->width;
    image.height = (png_uint_32)c->height;
    image.format = PNG_FORMAT_RGB;
    const int written = png_image_write_to_file(&image, path, 0, rgb, 0, NULL);
    free(rgb);
    if (written) return NULL;
    for (size_t i = 0; i < sizeof error; i++) error[i] = image.message[i];
    return error;
}
