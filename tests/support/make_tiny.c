/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Writes a tiny checkpoint and an image to look at, or to try the tool on: make_tiny FOLDER official|today|colpali */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "tiny.h"

int main(int argc, char **argv) {
    if (argc != 3 || (strcmp(argv[2], "official") && strcmp(argv[2], "today") && strcmp(argv[2], "colpali"))) {
        fprintf(stderr, "usage: make_tiny FOLDER official|today|colpali\n");
        return 2;
    }
    tiny_options options = strcmp(argv[2], "official") ? tiny_saved_today() : tiny_official();
    if (strcmp(argv[2], "colpali") == 0) options.colpali = TINY_COLPALI;
    mkdir(argv[1], 0777);
    tiny_write(argv[1], &options);
    bytes image = tiny_image(IMAGE_PNG, 40, 30, 1);
    write_file(argv[1], "image.png", image.data, image.size);
    bytes_free(&image);
    image = tiny_image(IMAGE_JPEG_PROGRESSIVE, 40, 30, 1);
    write_file(argv[1], "image.jpg", image.data, image.size);
    bytes_free(&image);
    return 0;
}
