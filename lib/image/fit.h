/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Where the pixels of an image lie in those that a model takes, and which rectangle of the image the model sees. */
#ifndef PGI_IMAGE_FIT_H
#define PGI_IMAGE_FIT_H

#include "base/memory.h"

typedef struct pgi_rectangle {
    int32_t x, y, width, height;
} pgi_rectangle;

/* fit: a PG_FIT_*. An image of width x height in `out_width` x `out_height` pixels; all >= 1. */
pgi_rectangle pgi_fit(int32_t fit, int32_t width, int32_t height, int32_t out_width, int32_t out_height);

/* PG_ERROR_ARGUMENT: a field behind n_bytes has a value that it never has, whether it is used or not. The roi has none
 * such. */
pg_status pgi_image_check(const pg_image *image);
/* image->roi, or the whole, of an image of width x height. PG_ERROR_ARGUMENT: it does not lie inside. */
pg_status pgi_image_roi(const pg_image *image, int32_t width, int32_t height, pgi_rectangle *roi);

/* The window of an image with that region of interest. */
pg_window pgi_window_of(int32_t fit, const pgi_rectangle *roi, int32_t out_width, int32_t out_height);

#endif
