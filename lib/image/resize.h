/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Pillow's Image.resize for 8-bit RGB (ImagingResample, libImaging/Resample.c), to the last bit. */
#ifndef PGI_IMAGE_RESIZE_H
#define PGI_IMAGE_RESIZE_H

#include "base/run.h"
#include "image/rows.h"
#include "kernels/kernels.h"

/* Pillow's numbers (PIL.Image.Resampling). */
enum { PGI_NEAREST = 0, PGI_LANCZOS = 1, PGI_BILINEAR = 2, PGI_BICUBIC = 3, PGI_BOX = 4, PGI_HAMMING = 5 };

/* kernels: any set gives the same bits. cancel: looked at between bands of rows, some milliseconds; may be NULL. *out
 * is a new image of width x height (also when the size does not change). */
pg_status pgi_resize(const pgi_memory *memory, const pgi_kernels *kernels, const pg_cancel *cancel, const pgi_rows *in,
                     int32_t width, int32_t height, int32_t filter, pgi_rgb *out);

#endif
