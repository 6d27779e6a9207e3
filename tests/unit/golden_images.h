/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the image modules share: the files of tests/golden/images and its digests. */
#ifndef PGI_TEST_GOLDEN_IMAGES_H
#define PGI_TEST_GOLDEN_IMAGES_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"

#define GOLDEN_IMAGES PGI_GOLDEN_FOLDER "/images/"

/* FNV-1a, 64 bits */
static inline uint64_t digest(const void *data, size_t size) {
    const uint8_t *bytes = data;
    uint64_t value = UINT64_C(0xCBF29CE484222325);
    for (size_t i = 0; i < size; i++) value = (value ^ bytes[i]) * UINT64_C(0x100000001B3);
    return value;
}

static inline FILE *open_golden(const char *name) {
    char path[1024];
    snprintf(path, sizeof path, GOLDEN_IMAGES "%s", name);
    return fopen(path, "r");
}

/* The same as test_image() of make_images.py; release with free(). */
static inline uint8_t *test_image(int32_t width, int32_t height) {
    uint32_t state = (uint32_t)width * 65537u + (uint32_t)height;
    size_t n = (size_t)width * (size_t)height * 3;
    uint8_t *image = malloc(n);
    for (size_t i = 0; image && i < n; i++) {
        state = state * 1664525u + 1013904223u;
        image[i] = (uint8_t)(i / 3 % 7 ? state >> 24 : 255 * (state >> 31));
    }
    return image;
}

#endif
