/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Pixel buffers: format, width, height, stride and flags in 14 bytes, then pixels. Only what lies inside of the buffer
 * may be read: a call whose rows would not fit is changed until they do. */
#include "fuzz.h"

static int64_t bytes_a_pixel(int32_t format) {
    return format == PG_IMAGE_RGBA8 || format == PG_IMAGE_BGRA8 ? 4 : format == PG_IMAGE_GRAY8 ? 1 : 3;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_input in = {data, size};
    pg_image image;
    const int32_t format = (int8_t)fuzz_take(&in, 1);
    int32_t width = (int32_t)fuzz_take(&in, 4), height = (int32_t)fuzz_take(&in, 4);
    int64_t stride = (int32_t)fuzz_take(&in, 4);
    const uint32_t flags = (uint32_t)fuzz_take(&in, 1) & (PG_ENCODE_EXIF | PG_ENCODE_OVER_WHITE);
    uint8_t *pixels = fuzz_bytes(in.data, in.size);
    const int64_t n = (int64_t)in.size, row = bytes_a_pixel(format);
    if (stride > n || stride < -n) stride %= n + 1;
    if (width > 0 && width * row > n) width = (int32_t)(n / row);
    if (width > 0 && height > 0 && n >= row) {
        const int64_t step = stride ? (stride < 0 ? -stride : stride) : width * row;
        const int64_t most = step ? (n - width * row) / step + 1 : 1;
        if (height > most) height = (int32_t)most;
    } else if (n < row) {
        width = 0;
    }
    const uint8_t *first = pixels;
    if (stride < 0 && height > 0) first -= stride * (height - 1);
    if (OK(pg_image_from_pixels(&image, sizeof image, format, width, height, first, stride)))
        fuzz_encode_image(&image, flags);
    free(pixels);
    return 0;
}
