/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Pictures to and from files: an image's pixels by the public API, PNG files by libpng. */
#include <errno.h>
#include <png.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "draw.h"
#include "tool.h"

/* pixel_values [1, 3, height, width] that were not rescaled are the bytes of the image. */
static pg_status take_pixels(const pg_inputs *inputs, tool_picture *out) {
    pg_tensor values = {.struct_size = sizeof values};
    pg_status status = pg_inputs_get_tensor(inputs, "pixel_values", &values);
    if (status < 0) return status;
    const size_t n = (size_t)values.shape[2] * (size_t)values.shape[3];
    out->height = (int32_t)values.shape[2];
    out->width = (int32_t)values.shape[3];
    out->rgb = malloc(3 * n);
    if (!out->rgb) return PG_ERROR_MEMORY;
    for (size_t c = 0; c < 3; c++) {
        const float *plane = (const float *)values.data + c * n;
        for (size_t i = 0; i < n; i++) out->rgb[3 * i + c] = (unsigned char)plane[i];
    }
    return PG_OK;
}

pg_status tool_picture_read(const pg_processor *processor, const pg_image *image, uint32_t flags, pg_cancel *cancel,
                            tool_picture *out) {
    pg_image_settings settings = {.struct_size = sizeof settings};
    pg_encode_options options;
    pg_inputs *inputs = NULL;
    pg_status status = pg_processor_get_image_settings(processor, &settings);
    if (status < 0) return status;
    settings.do_resize = settings.do_rescale = settings.do_normalize = 0;
    pg_encode_options_init(&options, sizeof options);
    options.flags = flags & (PG_ENCODE_EXIF | PG_ENCODE_OVER_WHITE);
    options.cancel = cancel;
    options.image_settings = &settings;
    status = pg_processor_encode(processor, image, NULL, &options, &inputs);
    if (status >= 0) status = take_pixels(inputs, out);
    pg_inputs_close(&inputs);
    return status;
}

static void on_error(png_structp png, png_const_charp message) {
    *(const char **)png_get_error_ptr(png) = message;
    longjmp(png_jmpbuf(png), 1);
}

static void on_warning(png_structp png, png_const_charp message) {
    (void)png;
    (void)message;
}

/* Returns what failed, NULL: nothing. libpng knows no more of a full disk than "Write Error": errno tells. */
static const char *write_to(FILE *file, const tool_picture *picture) {
    const char *volatile error = "no memory";
    png_infop info = NULL;
    errno = 0;
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, (void *)&error, on_error, on_warning);
    if (!png) return "no memory";
    if (setjmp(png_jmpbuf(png)) == 0) {
        info = png_create_info_struct(png);
        if (!info) png_error(png, "no memory");
        png_init_io(png, file);
        png_set_user_limits(png, 0x7FFFFFFF, 0x7FFFFFFF);
        png_set_IHDR(png, info, (png_uint_32)picture->width, (png_uint_32)picture->height, 8, PNG_COLOR_TYPE_RGB,
                     PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
        png_write_info(png, info);
        for (int32_t y = 0; y < picture->height; y++)
            png_write_row(png, picture->rgb + (size_t)y * 3 * (size_t)picture->width);
        png_write_end(png, NULL);
        error = NULL;
    }
    png_destroy_write_struct(&png, &info);
    return error && errno ? strerror(errno) : error;
}

int tool_png_write(const char *path, const tool_picture *picture) {
    struct stat found;
    const int direct = stat(path, &found) == 0 && !S_ISREG(found.st_mode);
    char *partial = NULL;
    if (!direct && asprintf(&partial, "%s.partial", path) < 0) return tool_fail_text("%s: no memory", path) == TOOL_OK;
    const char *name = direct ? path : partial, *error = NULL;
    FILE *file = fopen(name, "wb");
    if (!file) {
        error = strerror(errno);
    } else {
        error = write_to(file, picture);
        if (fclose(file) != 0 && !error) error = strerror(errno);
        if (!direct && !error && rename(partial, path) != 0) error = strerror(errno);
        if (!direct && error) remove(partial);
    }
    if (error) tool_fail_text("%s: the picture cannot be written: %s", path, error);
    free(partial);
    return error == NULL;
}
