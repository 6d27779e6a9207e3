/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The conversion in whole numbers, as camera hardware does it. */
#include "nv12.h"

#include <stdlib.h>

enum { ALIGNMENT = 64 };

int nv12_create(nv12_frame *frame, int32_t width, int32_t height) {
    const int64_t stride = ((int64_t)width + 1 + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; /* an odd width has a V more */
    frame->width = width;
    frame->height = height;
    frame->stride = stride;
    frame->luma = calloc((size_t)stride, (size_t)height + (size_t)(height + 1) / 2);
    frame->chroma = frame->luma ? frame->luma + stride * height : NULL;
    return frame->luma != NULL;
}

void nv12_close(nv12_frame *frame) {
    free(frame->luma);
    frame->luma = frame->chroma = NULL;
}

static void convert_luma(nv12_frame *frame, const uint8_t *rgb) {
    for (int32_t y = 0; y < frame->height; y++) {
        uint8_t *row = frame->luma + y * frame->stride;
        for (int32_t x = 0; x < frame->width; x++, rgb += 3)
            row[x] = (uint8_t)(16 + ((66 * rgb[0] + 129 * rgb[1] + 25 * rgb[2] + 128) >> 8));
    }
}

/* The chroma of a square of four pixels, or of those that there are at the right and lower border, is their mean's. */
static void convert_chroma(nv12_frame *frame, const uint8_t *rgb) {
    for (int32_t y = 0; y < frame->height; y += 2) {
        uint8_t *row = frame->chroma + y / 2 * frame->stride;
        for (int32_t x = 0; x < frame->width; x += 2) {
            int sum[3] = {0, 0, 0}, n = 0;
            for (int32_t v = y; v < frame->height && v < y + 2; v++)
                for (int32_t u = x; u < frame->width && u < x + 2; u++, n++)
                    for (int c = 0; c < 3; c++) sum[c] += rgb[3 * ((int64_t)v * frame->width + u) + c];
            /* 256 n is the unit of these; 128 is the middle, and half a unit rounds */
            row[x] = (uint8_t)((-38 * sum[0] - 74 * sum[1] + 112 * sum[2] + 128 * 256 * n + 128 * n) / (256 * n));
            row[x + 1] = (uint8_t)((112 * sum[0] - 94 * sum[1] - 18 * sum[2] + 128 * 256 * n + 128 * n) / (256 * n));
        }
    }
}

void nv12_from_rgb(nv12_frame *frame, const uint8_t *rgb) {
    convert_luma(frame, rgb);
    convert_chroma(frame, rgb);
}
