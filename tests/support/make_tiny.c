/* Writes a tiny checkpoint and a picture to look at, or to try the tool on: make_tiny FOLDER official|today */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "tiny.h"

int main(int argc, char **argv) {
    if (argc != 3 || (strcmp(argv[2], "official") && strcmp(argv[2], "today"))) {
        fprintf(stderr, "usage: make_tiny FOLDER official|today\n");
        return 2;
    }
    tiny_options options = strcmp(argv[2], "official") ? tiny_saved_today() : tiny_official();
    mkdir(argv[1], 0777);
    tiny_write(argv[1], &options);
    bytes picture = tiny_picture(PICTURE_PNG, 40, 30, 1);
    write_file(argv[1], "picture.png", picture.data, picture.size);
    bytes_free(&picture);
    picture = tiny_picture(PICTURE_JPEG_PROGRESSIVE, 40, 30, 1);
    write_file(argv[1], "picture.jpg", picture.data, picture.size);
    bytes_free(&picture);
    return 0;
}
