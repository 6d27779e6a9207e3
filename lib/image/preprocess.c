/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Rows of RGB to pixel_values: transformers' SiglipImageProcessor, and preprocess_image() of big_vision. */
#include "image/preprocess.h"

#include <string.h>

#include "image/resize.h"
#include "image/resize_float.h"

/* Sets what is outside of the image: a plane of out [3, height, width] after the other. */
static void fill_bars(int32_t width, int32_t height, const pgi_rectangle *inner, const float color[3], float *pixels) {
    for (int c = 0; c < 3; c++)
        for (int32_t y = 0; y < height; y++, pixels += width) {
            const int bar = y < inner->y || y >= inner->y + inner->height;
            for (int32_t x = 0; x < (bar ? width : inner->x); x++) pixels[x] = color[c];
            for (int32_t x = inner->x + inner->width; x < width; x++) pixels[x] = color[c];
        }
}

pg_status pgi_image_to_pixels(const pgi_memory *memory, const pgi_kernels *kernels, const pg_cancel *cancel,
                              const pgi_image_settings *settings, const pgi_opened *opened, float *pixels) {
    const pgi_rows *rows = &opened->rows;
    const int32_t width = settings->do_resize ? settings->width : rows->width;
    const int32_t height = settings->do_resize ? settings->height : rows->height;
    if (opened->fit != PG_FIT_STRETCH && !settings->do_resize)
        return pgi_error(PG_ERROR_ARGUMENT,
                         "pg_image.fit is %d, but the image settings have do_resize false: expected PG_FIT_STRETCH",
                         opened->fit);
    const pgi_rectangle inner = pgi_fit(opened->fit, rows->width, rows->height, width, height);
    pgi_rgb rgb;
    PGI_TRY(pgi_resize(memory, kernels, cancel, rows, inner.width, inner.height, settings->resample, &rgb));
    float values[3][256], color[3]; /* of each sample, by channel */
    for (int c = 0; c < 3; c++) {
        for (int i = 0; i < 256; i++) values[c][i] = pgi_pixel_value(settings, c, i);
        color[c] = values[c][opened->background[c]];
    }
    fill_bars(width, height, &inner, color, pixels);
    const size_t n = (size_t)width * (size_t)height;
    for (int32_t y = 0; y < inner.height; y++) {
        const uint8_t *from = rgb.data + (size_t)y * (size_t)inner.width * 3;
        float *to = pixels + (size_t)(inner.y + y) * (size_t)width + (size_t)inner.x;
        for (size_t c = 0; c < 3; c++)
            for (size_t x = 0; x < (size_t)inner.width; x++) to[c * n + x] = values[c][from[x * 3 + c]];
    }
    pgi_rgb_free(memory, &rgb);
    return PG_OK;
}

pg_status pgi_big_vision_pixels(const pgi_memory *memory, const pg_cancel *cancel, const pgi_image_settings *settings,
                                const pgi_opened *opened, float *pixels) {
    const pgi_rows *rows = &opened->rows;
    const pgi_rectangle inner = pgi_fit(opened->fit, rows->width, rows->height, settings->width, settings->height);
    const size_t width = (size_t)settings->width, n = width * (size_t)settings->height;
    const size_t inner_width = (size_t)inner.width, n_inner = inner_width * (size_t)inner.height;
    float color[3];
    pgi_rgb rgb;
    float *resized = pixels;
    pg_status status = PG_ERROR_MEMORY;
    PGI_TRY(pgi_rows_copy(memory, cancel, rows, &rgb));
    if (n_inner == n || (resized = pgi_alloc(memory, n_inner, 3 * sizeof *resized)))
        status = pgi_resize_float(memory, cancel, &rgb, inner.width, inner.height, resized);
    pgi_rgb_free(memory, &rgb);
    for (size_t i = 0; i < 3 * n_inner && status >= 0; i++) resized[i] = resized[i] / 127.5f - 1.0f;
    if (n_inner == n) return status;
    for (int c = 0; c < 3; c++) color[c] = (float)opened->background[c] / 127.5f - 1.0f;
    fill_bars(settings->width, settings->height, &inner, color, pixels);
    for (size_t y = 0; y < 3 * (size_t)inner.height && status >= 0; y++) {
        const size_t plane = y / (size_t)inner.height, row = y % (size_t)inner.height + (size_t)inner.y;
        memcpy(pixels + plane * n + row * width + (size_t)inner.x, resized + y * inner_width,
               inner_width * sizeof *pixels);
    }
    pgi_free(memory, resized);
    return status;
}
