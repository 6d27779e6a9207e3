/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Raw pixels: format, width, height, stride and flags in 14 bytes, then with one of the flags how the image is fitted
 * in 17, then pixels. Only what lies inside of the buffer may be read: a call whose rows would not fit is changed until
 * they do. */
#include "fuzz.h"

enum { FIT_BYTES = 17 }; /* that fit() takes */

/* Bytes that `n` pixels take in a dense row of planes[0], at least. */
static int64_t row_of(int32_t format, int64_t n) {
    switch (format) {
        case PG_IMAGE_RGBA8:
        case PG_IMAGE_BGRA8: return 4 * n;
        case PG_IMAGE_RGB565:
        case PG_IMAGE_GRAY16: return 2 * n;
        case PG_IMAGE_GRAY8: return n;
        case PG_IMAGE_NV12:
        case PG_IMAGE_NV21:
        case PG_IMAGE_I420: return (n + 1) / 2 * 2;
        case PG_IMAGE_YUYV:
        case PG_IMAGE_UYVY: return (n + 1) / 2 * 4;
        default: return 3 * n;
    }
}

/* Bytes from the first to the last that may be read, or some more. */
static int64_t bytes_of(int32_t format, int64_t width, int64_t height, int64_t stride) {
    const int64_t row = row_of(format, width), step = stride == 0 ? row : stride < 0 ? -stride : stride;
    if (format >= PG_IMAGE_NV12 && format <= PG_IMAGE_I420) return step * (height + (height + 1) / 2);
    return step * (height - 1) + row;
}

/* Half of them leave the image, or have a value that there is not. */
static void fit(fuzz_input *in, pg_image *image) {
    image->yuv_matrix = (int32_t)fuzz_take(in, 1) % 4 - 1;
    image->yuv_range = (int32_t)fuzz_take(in, 1) % 4 - 1;
    image->fit = (int32_t)fuzz_take(in, 1) % 5 - 1;
    image->flags = (uint32_t)fuzz_take(in, 1) % 3;
    for (int i = 0; i < 3; i++) image->background[i] = (uint8_t)fuzz_take(in, 1);
    for (int i = 0; i < 4; i++)
        image->roi[i] = (int16_t)fuzz_take(in, 2) % (2 * (i % 2 ? image->height : image->width));
    image->gray_min = (int32_t)fuzz_take(in, 1) - 9;
    image->gray_max = 128 * (int32_t)fuzz_take(in, 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_input in = {data, size};
    pg_image image;
    pg_window window = {.struct_size = sizeof window};
    const int32_t format = (int32_t)(fuzz_take(&in, 1) ^ 128) - 128; /* its sign, too */
    int32_t width = (int32_t)fuzz_take(&in, 4), height = (int32_t)fuzz_take(&in, 4);
    int64_t stride = (int32_t)fuzz_take(&in, 4);
    const uint32_t flags = (uint32_t)fuzz_take(&in, 1);
    fuzz_input how = in;
    for (int i = 0; i < FIT_BYTES && flags & 128; i++) fuzz_take(&in, 1);
    uint8_t *pixels = fuzz_bytes(in.data, in.size);
    const int64_t n = (int64_t)in.size;
    if (stride > n || stride < -n) stride %= n + 1;
    while (width > 0 && row_of(format, width) > n) width /= 2;
    while (width > 0 && height > 1 && bytes_of(format, width, height, stride) > n) height /= 2;
    if (width > 0 && height > 0 && bytes_of(format, width, height, stride) > n) width = 0;
    const uint8_t *first = pixels;
    if (stride < 0 && height > 0) first -= stride * (height - 1);
    if (OK(pg_image_from_pixels(&image, sizeof image, format, width, height, first, stride))) {
        if (flags & 128) fit(&how, &image);
        OK(pg_image_get_window(&image, 0, 0, 8, 8, &window));
        fuzz_encode_image(&image, flags & (PG_ENCODE_EXIF | PG_ENCODE_OVER_WHITE));
    }
    free(pixels);
    return 0;
}
