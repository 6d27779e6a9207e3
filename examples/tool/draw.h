/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Pictures that the tool draws: an image, boxes, masks and labels on it, a PNG file. */
#ifndef PALIGEMMA_TOOL_DRAW_H
#define PALIGEMMA_TOOL_DRAW_H

#include <stddef.h>
#include <stdint.h>

#include <paligemma/paligemma.h>

/* 8-bit RGB, dense rows, the top one first. */
typedef struct tool_picture {
    int32_t width, height;
    unsigned char *rgb; /* malloc'ed */
} tool_picture;

typedef struct tool_color {
    unsigned char r, g, b;
} tool_color;

/* The pixels of an image as the model's processor reads them, at their own size: turned by EXIF and laid over white
 * where `flags` (PG_ENCODE_*) say so. `out` serves pg_image_from_pixels(PG_IMAGE_RGB8), too: encoding it gives what
 * encoding the image gives. */
pg_status tool_picture_read(const pg_processor *processor, const pg_image *image, uint32_t flags, pg_cancel *cancel,
                            tool_picture *out);
void tool_picture_free(tool_picture *picture);

/* Writes a PNG file that appears when it is whole (a pipe or device is written at once). 0: failed; the error line is
 * printed. */
int tool_png_write(const char *path, const tool_picture *picture);

/* Lays `color` over a pixel, `alpha` from 0 to 1. Outside the picture: nothing. */
void tool_draw_pixel(tool_picture *picture, int32_t x, int32_t y, tool_color color, float alpha);

/* ---- attention.c: where an answer looked ---- */

/* What the new tokens of row 0 attend to in the image, the mean over them and over attention heads and layers (or of
 * options->attention_layer): *map [side, side], malloc'ed. One more pass over prompt and answer. inputs: of the
 * prompt. options: threads, progress, cancel, features and attention_layer. */
pg_status tool_attention_map(const pg_model *model, const pg_inputs *inputs, const pg_result *result,
                             const pg_forward_options *options, float **map, int *side);
/* Lays the map, from its least to its largest value, over the whole picture, which turns grey. */
void tool_draw_heat(tool_picture *picture, const float *map, int side);

/* ---- font.c: text, drawn with strokes ---- */

/* How wide UTF-8 text is, in pixels, when a capital is `height` pixels high. Characters that the font lacks are drawn
 * as a box. */
float tool_text_width(const char *text, size_t size, float height);
/* x: the left edge; baseline: the y that the letters stand on. */
void tool_draw_text(tool_picture *picture, float x, float baseline, float height, tool_color color, const char *text,
                    size_t size);

/* ---- draw.c: what was found in an image ---- */

typedef struct tool_mark {
    float box[4];      /* x0 y0 x1 y1 in pixels of the picture */
    const char *label; /* UTF-8, label_size bytes; may be empty */
    size_t label_size;
    float score;         /* NaN: none is shown */
    const uint8_t *mask; /* height x width of the picture, 255 inside; NULL: a box alone */
    int32_t color;       /* an index into the palette, which begins anew after its end; >= 0 */
} tool_mark;

/* Draws masks, then boxes, then labels, so that no label is covered. 0: no memory. */
int tool_draw_marks(tool_picture *picture, const tool_mark *marks, size_t n);

/* Draws the objects of an answer that have a box, and writes the PNG file. things: what was asked for, such as "cat ;
 * dog" or "detect cat ; dog"; it decides the colors. masks: one for each object of the answer, or NULL; NULL: boxes
 * alone. 0: failed; the error line is printed. */
int tool_draw_answer(const char *path, tool_picture *picture, const pg_answer *answer, const char *things,
                     const uint8_t *const *masks);

#endif
