/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Rows of pixels: copies of them. */
#include "image/rows.h"

#include <string.h>

void pgi_rows_get(const pgi_rows *rows, int32_t first, int32_t n, uint8_t *out) {
    const size_t line = (size_t)rows->width * 3;
    if (!rows->data) {
        rows->make(rows->source, first, n, out);
        return;
    }
    for (int32_t y = 0; y < n; y++) memcpy(out + (size_t)y * line, rows->data + (first + y) * rows->stride, line);
}

void pgi_swap_channels(uint8_t *pixels, size_t n) {
    for (size_t i = 0; i < n; i++, pixels += 3) {
        const uint8_t first = pixels[0];
        pixels[0] = pixels[2];
        pixels[2] = first;
    }
}

pg_status pgi_rows_copy(const pgi_memory *memory, const pg_cancel *cancel, const pgi_rows *rows, pgi_rgb *out) {
    const size_t line = (size_t)rows->width * 3;
    *out = (pgi_rgb){.width = rows->width, .height = rows->height};
    out->data = pgi_alloc(memory, line, (size_t)rows->height);
    if (!out->data) return PG_ERROR_MEMORY;
    for (int32_t y = 0; y < rows->height; y++) {
        uint8_t *row = out->data + (size_t)y * line;
        if (pgi_cancel_requested(cancel)) {
            pgi_rgb_free(memory, out);
            return pgi_run_cancelled_error();
        }
        pgi_rows_get(rows, y, 1, row);
        if (rows->swapped) pgi_swap_channels(row, (size_t)rows->width);
    }
    return PG_OK;
}
