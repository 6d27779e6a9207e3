/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * EXIF orientation: PIL.Image.Exif (through TiffImagePlugin's
 * ImageFileDirectory_v2.load), the APP1 rules of JpegImagePlugin, and
 * PIL.ImageOps.exif_transpose. Where Pillow would raise on damaged EXIF data,
 * the image counts as having no orientation.
 */
#include "image/exif.h"

#include <string.h>

enum { TAG_ORIENTATION = 274, NOT_FOUND = -1 };

typedef struct tiff {
    const uint8_t *data;
    size_t size;
    int little; /* byte order */
} tiff;

static uint32_t tiff_u16(const tiff *t, const uint8_t *p) {
    return t->little ? (uint32_t)(p[0] | p[1] << 8) : (uint32_t)(p[0] << 8 | p[1]);
}

static uint32_t tiff_u32(const tiff *t, const uint8_t *p) {
    return t->little ? tiff_u16(t, p) | tiff_u16(t, p + 2) << 16 : tiff_u16(t, p) << 16 | tiff_u16(t, p + 2);
}

/* Bytes of one value of a TIFF type; 0: a type that Pillow skips. */
static size_t type_size(uint32_t type) {
    static const uint8_t sizes[] = {0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8};
    return type < sizeof sizes ? sizes[type] : 0;
}

/* The first value of an integer type, else 1, which turns nothing. */
static int32_t first_value(const tiff *t, uint32_t type, const uint8_t *p) {
    uint32_t value = 1;
    switch (type) {
        case 6: value = p[0]; break; /* SBYTE */
        case 3:
        case 8: value = tiff_u16(t, p); break; /* SHORT, SSHORT */
        case 4:
        case 9:
        case 13: value = tiff_u32(t, p); break; /* LONG, SLONG, IFD */
        case 16: /* LONG8 */ value = tiff_u32(t, t->little ? p + 4 : p) ? 1 : tiff_u32(t, t->little ? p : p + 4); break;
        default: break;
    }
    return value >= 1 && value <= 8 ? (int32_t)value : 1;
}

/* The orientation of the first directory, or NOT_FOUND. */
static int32_t find_in_tiff(const uint8_t *data, size_t size) {
    tiff t = {data, size, 0};
    if (size < 8) return NOT_FOUND;
    t.little = data[0] == 'I';
    if (memcmp(data, t.little ? "II" : "MM", 2) != 0) return NOT_FOUND;
    if (!((data[2] == 42 && data[3] == 0) || (data[2] == 0 && data[3] == 42))) return NOT_FOUND;
    size_t at = tiff_u32(&t, data + 4);
    if (at > size || size - at < 2) return NOT_FOUND;
    uint32_t n = tiff_u16(&t, data + at);
    uint64_t total = 0; /* bytes of the values outside the directory; more than the file has: damaged */
    at += 2;
    for (uint32_t i = 0; i < n && size - at >= 12; i++, at += 12) {
        const uint8_t *entry = data + at;
        uint32_t tag = tiff_u16(&t, entry), type = tiff_u16(&t, entry + 2);
        uint64_t value_size = (uint64_t)tiff_u32(&t, entry + 4) * type_size(type);
        if (value_size == 0) continue;
        const uint8_t *value = entry + 8;
        if (value_size > 4) {
            uint32_t offset = tiff_u32(&t, value);
            if ((total += value_size) > size) continue;
            if (offset > size || value_size > size - offset) return NOT_FOUND; /* Pillow reads no further tags */
            value = data + offset;
        }
        if (tag == TAG_ORIENTATION) return first_value(&t, type, value);
    }
    return NOT_FOUND;
}

/* The regular expression tiff:Orientation(="|>)([0-9]) of PIL.Image.getexif(). */
static int32_t find_in_xmp(const char *xmp, size_t size) {
    static const char key[] = "tiff:Orientation";
    const size_t n = sizeof key - 1;
    for (const char *end = xmp + size, *p = xmp; (p = pgi_find_bytes(p, (size_t)(end - p), key, n)); p += n) {
        const char *value = p + n;
        if (end - value >= 2 && value[0] == '>')
            value += 1;
        else if (end - value >= 3 && memcmp(value, "=\"", 2) == 0)
            value += 2;
        else
            continue;
        if (*value >= '0' && *value <= '9') return *value - '0';
    }
    return NOT_FOUND;
}

int32_t pgi_exif_orientation(const pgi_exif_source *source) {
    const uint8_t *exif = source->exif;
    size_t size = exif ? source->exif_size : 0;
    int32_t orientation = NOT_FOUND;
    for (int i = 0; i < 2 && size >= 6 && memcmp(exif, "Exif\0\0", 6) == 0; i++, exif += 6) size -= 6;
    if (size) orientation = find_in_tiff(exif, size);
    if (orientation == NOT_FOUND && source->xmp) orientation = find_in_xmp(source->xmp, source->xmp_size);
    return orientation >= 1 && orientation <= 8 ? orientation : 1;
}

/* The markers up to the first scan, read as JpegImagePlugin does. */
pg_status pgi_exif_of_jpeg(const pgi_memory *memory, const pg_cancel *cancel, const uint8_t *bytes, size_t size,
                           int32_t *orientation) {
    static const char xmp_id[] = "http://ns.adobe.com/xap/1.0/"; /* with its NUL */
    pg_status status = PG_OK;
    pgi_exif_source source = {0};
    pgi_buffer exif;
    pgi_buffer_init(&exif, memory);
    size_t at = 2;
    while (at + 4 <= size) {
        PGI_GOTO(pgi_cancel_check(cancel), done);
        if (bytes[at] != 0xFF || bytes[at + 1] == 0xFF || bytes[at + 1] == 0) { /* junk, padding */
            at += bytes[at] == 0xFF && bytes[at + 1] == 0 ? 2 : 1;
            continue;
        }
        uint8_t marker = bytes[at + 1];
        at += 2;
        if (marker == 0xDA) break;                                /* start of scan */
        if (marker >= 0xD0 && marker <= 0xD9) continue;           /* markers without a segment */
        size_t length = (size_t)(bytes[at] << 8 | bytes[at + 1]); /* itself included */
        if (length < 2) length = 2;                               /* a lie, but libjpeg and Pillow read on */
        if (length > size - at) break;
        const uint8_t *segment = bytes + at + 2;
        size_t n = length - 2;
        at += length;
        if (marker != 0xE1) continue;
        if (n >= 6 && memcmp(segment, "Exif\0\0", 6) == 0) /* data above 64 KiB continues in the next segment */
            PGI_GOTO(pgi_buffer_append(&exif, segment + 6, n - 6), done);
        else if (n >= sizeof xmp_id && memcmp(segment, xmp_id, sizeof xmp_id) == 0) {
            source.xmp = (const char *)segment + sizeof xmp_id;
            source.xmp_size = n - sizeof xmp_id;
        }
    }
    source.exif = exif.data;
    source.exif_size = exif.size;
    *orientation = pgi_exif_orientation(&source);
done:
    pgi_buffer_free(&exif);
    return status;
}

/* Which pixel of the image as stored becomes (x, y) of the turned one. */
static const uint8_t *source_of(const pgi_rgb *rgb, int32_t orientation, int32_t x, int32_t y) {
    int32_t from_x = orientation >= 5 ? y : x, from_y = orientation >= 5 ? x : y;
    if (orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8) from_x = rgb->width - 1 - from_x;
    if (orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7) from_y = rgb->height - 1 - from_y;
    return rgb->data + ((size_t)from_y * (size_t)rgb->width + (size_t)from_x) * 3;
}

/* In squares: the rows that a turned row is gathered from are more than the caches hold where an image is large. */
pg_status pgi_exif_transpose(const pgi_memory *memory, const pg_cancel *cancel, int32_t orientation, pgi_rgb *rgb) {
    enum { SQUARE = 32 };
    if (orientation <= 1 || orientation > 8) return PG_OK;
    const int32_t width = orientation >= 5 ? rgb->height : rgb->width;
    const int32_t height = orientation >= 5 ? rgb->width : rgb->height;
    const ptrdiff_t step = width > 1 ? source_of(rgb, orientation, 1, 0) - source_of(rgb, orientation, 0, 0) : 0;
    uint8_t *out = pgi_alloc(memory, (size_t)width * 3, (size_t)height);
    if (!out) return PG_ERROR_MEMORY;
    for (int32_t top = 0, bottom; top < height; top = bottom) {
        bottom = height - top < SQUARE ? height : top + SQUARE;
        for (int32_t left = 0, right; left < width; left = right) {
            if (left % (1 << 18) == 0 && pgi_cancel_requested(cancel)) {
                pgi_free(memory, out);
                return pgi_run_cancelled_error();
            }
            right = width - left < SQUARE ? width : left + SQUARE;
            for (int32_t y = top; y < bottom; y++) {
                const uint8_t *from = source_of(rgb, orientation, left, y);
                uint8_t *to = out + ((size_t)y * (size_t)width + (size_t)left) * 3;
                for (int32_t x = left; x < right; x++, to += 3) memcpy(to, from + (x - left) * step, 3);
            }
        }
    }
    pgi_free(memory, rgb->data);
    *rgb = (pgi_rgb){out, width, height};
    return PG_OK;
}
