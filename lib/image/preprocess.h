/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The last step of an image before the model: rows of RGB to pixel_values. Two ways:
 * HF's (SiglipImageProcessor: resize, rescale, normalize as the settings say) and big_vision's.
 */
#ifndef PGI_IMAGE_PREPROCESS_H
#define PGI_IMAGE_PREPROCESS_H

#include "image/image.h"
#include "image/image_settings.h"

/* cancel: looked at while resizing; may be NULL. Resize, rescale, normalize; `pixels` receives f32 [3, height, width],
 * HF's values to the bit. The size is that of the settings, or without do_resize that of its rows. */
pg_status pgi_image_to_pixels(const pgi_memory *memory, const pgi_kernels *kernels, const pg_cancel *cancel,
                              const pgi_image_settings *settings, const pgi_opened *opened, float *pixels);

/* pixels: f32 [3, height, width] as `settings` say, which is all that is read of them: -1 to 1. */
pg_status pgi_big_vision_pixels(const pgi_memory *memory, const pg_cancel *cancel, const pgi_image_settings *settings,
                                const pgi_opened *opened, float *pixels);

#endif
