/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The text chunks of a PNG that may say how the image is turned: tEXt, zTXt and iTXt of two keys. */
#ifndef PGI_IMAGE_PNG_TEXT_H
#define PGI_IMAGE_PNG_TEXT_H

#include "base/memory.h"
#include "base/run.h"

enum {
    PGI_PNG_MAX_TEXTS = 64,                  /* of any key, that are looked at */
    PGI_PNG_MAX_TEXT_SIZE = 4 * 1024 * 1024, /* of one of them, unpacked */
    PGI_PNG_MAX_RATIO = 1032                 /* bytes that a byte of a deflate stream can stand for */
};

#define PGI_PNG_RAW_PROFILE "Raw profile type exif"
#define PGI_PNG_XMP "XML:com.adobe.xmp"

/* Where they lie in the file. Nothing is unpacked before it is asked for. */
typedef struct pgi_png_texts {
    const uint8_t *chunks[PGI_PNG_MAX_TEXTS]; /* of the two keys, from the length on */
    int n, n_seen;                            /* seen: of any key */
} pgi_png_texts;

/* Up to the first byte 0. */
typedef struct pgi_png_text {
    const char *text; /* in the file or in `block`; NULL: there is none */
    size_t size;
    void *block;
} pgi_png_text;

/* A chunk whose data are all there. */
void pgi_png_note_text(pgi_png_texts *texts, const uint8_t *chunk);
/* The last sound text of a key. *text needs pgi_free() of its block, after an error too. */
pg_status pgi_png_find_text(const pgi_memory *memory, const pg_cancel *cancel, const pgi_png_texts *texts,
                            const char *key, pgi_png_text *text);

#endif
