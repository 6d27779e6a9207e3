/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Opened images for tests: of pixels that are there, and a whole image read into memory. */
#ifndef TESTS_SUPPORT_OPENED_H
#define TESTS_SUPPORT_OPENED_H

#include "image/image.h"

static inline pgi_opened opened_of(const pgi_rgb *rgb) {
    return (pgi_opened){.width = rgb->width, .height = rgb->height, .rows = pgi_rows_of(rgb)};
}

/* The region of interest of any image, with the fastest kernels. On error *out needs no free. */
static inline pg_status read_image(const pgi_memory *memory, const pg_image *image, const pgi_image_limits *limits,
                                   pgi_rgb *out) {
    pgi_kernels kernels;
    pgi_opened opened;
    *out = (pgi_rgb){0};
    PGI_TRY(pgi_kernels_init(&kernels, 0));
    PGI_TRY(pgi_image_open(memory, &kernels, image, limits, &opened));
    const pg_status status = pgi_rows_copy(memory, limits->cancel, &opened.rows, out);
    pgi_image_close(memory, &opened);
    return status;
}

#endif
