/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What a file is that is neither PNG nor JPEG, by its content: names lie (a phone's x.jpg is often HEIC). */
#include "image/format.h"

#include <string.h>

#include "checkpoint/diagnose.h"

#define SAVE_AGAIN "save it as one of them"

typedef struct signature {
    const char *name;
    size_t at, size;
    const char *bytes;
} signature;

static const signature formats[] = {{"a WebP image", 8, 4, "WEBP"},
                                    {"a GIF image", 0, 4, "GIF8"},
                                    {"a BMP image", 0, 2, "BM"},
                                    {"a TIFF image", 0, 4, "II*\0"},
                                    {"a TIFF image", 0, 4, "MM\0*"},
                                    {"a TIFF image", 0, 4, "II+\0"}, /* BigTIFF */
                                    {"a TIFF image", 0, 4, "MM\0+"},
                                    {"a JPEG XL image", 0, 2, "\xFF\x0A"},
                                    {"a JPEG XL image", 4, 4, "JXL "},
                                    {"a JPEG 2000 image", 4, 4, "jP  "},
                                    {"a JPEG 2000 image", 0, 4, "\xFF\x4F\xFF\x51"},
                                    {"an icon file", 0, 4, "\0\0\1\0"},
                                    {"a Photoshop file", 0, 4, "8BPS"},
                                    {"a PDF file", 0, 4, "%PDF"},
                                    {"an SVG file", 0, 4, "<svg"},
                                    {"an XML or SVG file", 0, 5, "<?xml"},
                                    {"a QOI image", 0, 4, "qoif"},
                                    {"an OpenEXR image", 0, 4, "\x76\x2F\x31\x01"},
                                    {"a NumPy array", 0, 6, "\x93NUMPY"},
                                    {"a ZIP archive", 0, 4, "PK\3\4"},
                                    {"a file packed by gzip", 0, 3, "\x1F\x8B\x08"}};

/* The kinds of the ISO container, by brand: ISO/IEC 23008-12 (HEIF) and AV1's. */
static const struct {
    char brand[5];
    const char *name;
} brands[] = {{"avif", "an AVIF image"}, {"avis", "an AVIF image"}, {"heic", "a HEIC image"}, {"heix", "a HEIC image"},
              {"hevc", "a HEIC image"},  {"hevx", "a HEIC image"},  {"heim", "a HEIC image"}, {"heis", "a HEIC image"},
              {"hevm", "a HEIC image"},  {"hevs", "a HEIC image"},  {"mif1", "a HEIF image"}, {"msf1", "a HEIF image"},
              {"mif2", "a HEIF image"},  {"crx ", "a raw image"}};

/* The first box, "ftyp": its major brand, and where that names the container alone (mif1, msf1), the others. */
static const char *container(const uint8_t *bytes, size_t size) {
    if (size < 12 || memcmp(bytes + 4, "ftyp", 4) != 0) return NULL;
    size_t end = (size_t)bytes[0] << 24 | (size_t)bytes[1] << 16 | (size_t)bytes[2] << 8 | bytes[3];
    const char *found = NULL;
    if (end > size) end = size;
    for (size_t at = 8; at == 8 || at + 4 <= end; at += at == 8 ? 8 : 4) { /* the major brand's version follows it */
        for (size_t i = 0; i < sizeof brands / sizeof *brands; i++) {
            if (memcmp(bytes + at, brands[i].brand, 4) != 0) continue;
            if (strcmp(brands[i].name, "a HEIF image") != 0) return brands[i].name;
            found = brands[i].name;
        }
        if (!found) return "a video file";
    }
    return found;
}

static int begins(const uint8_t *bytes, size_t size, const char *text) {
    return size >= strlen(text) && memcmp(bytes, text, strlen(text)) == 0;
}

/* Texts that stand where an image should be. */
static pg_status text_error(const uint8_t *bytes, size_t size, const char *name) {
    const uint8_t *text = bytes;
    size_t n = size;
    for (; n > 0 && memchr(" \t\r\n", *text, 4); text++) n--;
    if (begins(text, n, "<") || begins(text, n, "version https://"))
        return pgi_diagnose_bytes(PG_ERROR_UNSUPPORTED, name, bytes, size); /* HTML, or a Git LFS pointer */
    if (begins(text, n, "data:image/") || begins(text, n, "iVBORw0KGgo") || begins(text, n, "/9j/"))
        return pgi_error(PG_ERROR_FORMAT, "%s: found an image as base64 text, expected PNG or JPEG; decode it first",
                         name);
    if (begins(text, n, "http://") || begins(text, n, "https://"))
        return pgi_error(PG_ERROR_FORMAT,
                         "%s: found the address of a page, expected PNG or JPEG; download what it names first", name);
    if (begins(text, n, "{\"") || begins(text, n, "[{") || begins(text, n, "{\n") || begins(text, n, "{ "))
        return pgi_error(PG_ERROR_FORMAT,
                         "%s: found JSON text, expected PNG or JPEG; look into it, a server may have sent an error",
                         name);
    return PG_ERROR_UNSUPPORTED;
}

pg_status pgi_unknown_image_error(const uint8_t *bytes, size_t size, const char *name) {
    const char *format = container(bytes, size);
    for (size_t i = 0; !format && i < sizeof formats / sizeof *formats; i++) {
        const signature *s = &formats[i];
        if (size >= s->at + s->size && memcmp(bytes + s->at, s->bytes, s->size) == 0) format = s->name;
    }
    if (format) return pgi_error(PG_ERROR_UNSUPPORTED, "%s: found %s, expected PNG or JPEG; " SAVE_AGAIN, name, format);
    pg_status status = text_error(bytes, size, name);
    if (status == PG_ERROR_FORMAT) return status;
    uint8_t first[4] = {0};
    memcpy(first, bytes, size < 4 ? size : 4);
    return pgi_error(PG_ERROR_FORMAT, "%s: found %zu bytes that begin with %02x %02x %02x %02x, expected PNG or JPEG",
                     name, size, first[0], first[1], first[2], first[3]);
}
