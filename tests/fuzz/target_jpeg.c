/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The bytes of a JPEG file. */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    pg_image image;
    uint8_t *copy = fuzz_bytes(data, size);
    if (OK(pg_image_from_bytes(&image, sizeof image, copy, size)))
        fuzz_encode_image(&image, size % 2 ? PG_ENCODE_EXIF : 0);
    free(copy);
    return 0;
}
