/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The bytes of a PNG file; its checksums are mostly made right, so that what lies under them is read. */
#include "fuzz.h"
#include "mutate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    pg_image image;
    bytes file = {0};
    bytes_add(&file, data, size);
    if (size % 4) repair_png(&file);
    uint8_t *copy = fuzz_bytes(file.data, file.size);
    if (OK(pg_image_from_bytes(&image, sizeof image, copy, size)))
        fuzz_encode_image(&image, size % 3 ? PG_ENCODE_OVER_WHITE : PG_ENCODE_EXIF);
    free(copy);
    bytes_free(&file);
    return 0;
}
