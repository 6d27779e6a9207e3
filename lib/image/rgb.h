/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* 8-bit RGB pixels: what every codec and camera buffer becomes. */
#ifndef PGI_IMAGE_RGB_H
#define PGI_IMAGE_RGB_H

#include "base/memory.h"

typedef struct pgi_rgb {
    uint8_t *data; /* [height, width, 3], dense; from pgi_alloc */
    int32_t width, height;
} pgi_rgb;

/* Image.alpha_composite() of Pillow on an opaque colour: alpha_composite of libImaging/AlphaComposite.c. */
static inline uint8_t pgi_over(int value, int ground, int alpha) {
    int t = value * alpha + ground * (255 - alpha) + 128;
    return (uint8_t)(((t >> 8) + t) >> 8);
}

static inline void pgi_rgb_free(const pgi_memory *memory, pgi_rgb *rgb) {
    pgi_free(memory, rgb->data);
    *rgb = (pgi_rgb){0};
}

#endif
