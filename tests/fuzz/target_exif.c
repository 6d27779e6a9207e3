/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The EXIF data of a sound JPEG file: in one piece ('1'), or in two ('2', then the size of the first); or the segments
 * themselves ('s'). */
#include "fuzz.h"

enum { MOST = 65533 };

static void put_exif(bytes *file, const uint8_t *data, size_t size) {
    if (size > MOST - 6) size = MOST - 6;
    const size_t n = size + 8;
    bytes_add(file, (const uint8_t[]){0xFF, 0xE1, (uint8_t)(n >> 8), (uint8_t)n}, 4);
    bytes_add(file, "Exif\0", 6);
    bytes_add(file, data, size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static bytes sound;
    pg_image image;
    bytes file = {0};
    if (!size) return 0;
    if (!sound.size) sound = tiny_image(IMAGE_JPEG, 16, 8, 1);
    bytes_add(&file, sound.data, 2); /* SOI */
    fuzz_input in = {data + 1, size - 1};
    if (data[0] == '2') {
        const size_t wanted = (size_t)fuzz_take(&in, 1), n = wanted < in.size ? wanted : in.size;
        put_exif(&file, in.data, n);
        put_exif(&file, in.data + n, in.size - n);
    } else if (data[0] == 's') {
        bytes_add(&file, in.data, in.size);
    } else {
        put_exif(&file, in.data, in.size);
    }
    bytes_add(&file, sound.data + 2, sound.size - 2);
    uint8_t *copy = fuzz_bytes(file.data, file.size);
    if (OK(pg_image_from_bytes(&image, sizeof image, copy, file.size))) fuzz_encode_image(&image, PG_ENCODE_EXIF);
    free(copy);
    bytes_free(&file);
    return 0;
}
