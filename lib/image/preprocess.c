/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* RGB to pixel_values: transformers' SiglipImageProcessor, and preprocess_image() of big_vision. */
#include "image/preprocess.h"

#include "image/resize.h"
#include "image/resize_float.h"

pg_status pgi_image_to_pixels(const pgi_memory *memory, const pgi_kernels *kernels, const pg_cancel *cancel,
                              const pgi_image_settings *settings, const pgi_rgb *rgb, float *pixels) {
    pgi_rgb resized = {0};
    if (settings->do_resize) {
        PGI_TRY(
            pgi_resize(memory, kernels, cancel, rgb, settings->width, settings->height, settings->resample, &resized));
        rgb = &resized;
    }
    float values[3][256]; /* of each sample, by channel */
    for (int c = 0; c < 3; c++)
        for (int i = 0; i < 256; i++) values[c][i] = pgi_pixel_value(settings, c, i);
    size_t n = (size_t)rgb->width * (size_t)rgb->height;
    for (int c = 0; c < 3; c++)
        for (size_t i = 0; i < n; i++) pixels[(size_t)c * n + i] = values[c][rgb->data[i * 3 + (size_t)c]];
    pgi_rgb_free(memory, &resized);
    return PG_OK;
}

pg_status pgi_big_vision_pixels(const pgi_memory *memory, const pg_cancel *cancel, const pgi_image_settings *settings,
                                const pgi_rgb *rgb, float *pixels) {
    size_t n = 3 * (size_t)settings->width * (size_t)settings->height;
    PGI_TRY(pgi_resize_float(memory, cancel, rgb, settings->width, settings->height, pixels));
    for (size_t i = 0; i < n; i++) pixels[i] = pixels[i] / 127.5f - 1.0f;
    return PG_OK;
}
