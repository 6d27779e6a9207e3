/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Text chunks of a PNG (PNG specification, 11.3.3), taken and left out as libpng's png_handle_tEXt, _zTXt and _iTXt do.
 * Read here, as libpng would unpack and keep all of them, whatever their keys: a file of 263 KB has 64 of 4 MiB.
 */
#include "image/png_text.h"

#include <string.h>
#include <zlib.h>

#include "image/png_key.h"

static int has_key(const uint8_t *chunk, const char *key) {
    const size_t n = pgi_png_u32(chunk), size = strlen(key);
    return n >= size && memcmp(chunk + 8, key, size) == 0 && (n == size || chunk[8 + size] == 0);
}

void pgi_png_note_text(pgi_png_texts *texts, const uint8_t *chunk) {
    const uint8_t *type = chunk + 4;
    if (memcmp(type, "tEXt", 4) != 0 && memcmp(type, "zTXt", 4) != 0 && memcmp(type, "iTXt", 4) != 0) return;
    if (++texts->n_seen > PGI_PNG_MAX_TEXTS) return;
    if (has_key(chunk, PGI_PNG_RAW_PROFILE) || has_key(chunk, PGI_PNG_XMP)) texts->chunks[texts->n++] = chunk;
}

/* Where in its data the text of a chunk begins, or SIZE_MAX where they are damaged. */
static size_t find_begin(const uint8_t *chunk, int *packed) {
    const uint8_t *data = chunk + 8;
    const size_t n = pgi_png_u32(chunk);
    size_t at = strnlen((const char *)data, n);
    *packed = chunk[4] == 'z';
    if (chunk[4] == 't') return at < n ? at + 1 : n;
    if (chunk[4] == 'z') return at + 3 <= n && data[at + 1] == 0 ? at + 2 : SIZE_MAX;
    if (at + 5 > n || data[at + 1] > 1 || (data[at + 1] == 1 && data[at + 2] != 0)) return SIZE_MAX;
    *packed = data[at + 1];
    at += 3;
    for (int i = 0; i < 2; i++) { /* the language, the key in it */
        while (at < n && data[at]) at++;
        at++;
    }
    return at + (size_t)*packed <= n ? at : SIZE_MAX;
}

static void *zlib_alloc(void *memory, unsigned count, unsigned size) { return pgi_alloc(memory, count, size); }
static void zlib_free(void *memory, void *block) { pgi_free(memory, block); }

/* A stream that is damaged, or longer than a text may be, leaves *text as it is. */
static pg_status unpack(const pgi_memory *memory, const uint8_t *chunk, size_t begin, pgi_png_text *text) {
    const size_t n = pgi_png_u32(chunk) - begin;
    size_t room = PGI_PNG_MAX_TEXT_SIZE;
    if (begin >= room) return PG_OK;
    room -= begin + 1; /* as libpng counts: with what stands before the text, and a byte behind it */
    if (n < room / PGI_PNG_MAX_RATIO) room = n * PGI_PNG_MAX_RATIO;
    pgi_memory copy = *memory;
    z_stream stream = {.zalloc = zlib_alloc, .zfree = zlib_free, .opaque = &copy};
    uint8_t *block = pgi_alloc(memory, room + 1, 1);
    if (!block) return PG_ERROR_MEMORY;
    stream.next_in = (uint8_t *)(uintptr_t)(chunk + 8 + begin);
    stream.avail_in = (unsigned)n;
    stream.next_out = block;
    stream.avail_out = (unsigned)room;
    int result = inflateInit2(&stream, 0); /* the window that the stream says */
    if (result == Z_OK) {
        result = inflate(&stream, Z_FINISH);
        (void)inflateEnd(&stream);
    }
    if (result != Z_STREAM_END) {
        pgi_free(memory, block);
        return result == Z_MEM_ERROR ? PG_ERROR_MEMORY : PG_OK;
    }
    *text = (pgi_png_text){(const char *)block, strnlen((const char *)block, room - stream.avail_out), block};
    return PG_OK;
}

pg_status pgi_png_find_text(const pgi_memory *memory, const pg_cancel *cancel, const pgi_png_texts *texts,
                            const char *key, pgi_png_text *text) {
    *text = (pgi_png_text){0};
    for (int i = texts->n - 1; i >= 0 && !text->text; i--) {
        const uint8_t *chunk = texts->chunks[i];
        int packed;
        if (!has_key(chunk, key)) continue;
        PGI_TRY(pgi_cancel_check(cancel));
        const size_t begin = find_begin(chunk, &packed);
        if (begin == SIZE_MAX) continue;
        if (packed) {
            PGI_TRY(unpack(memory, chunk, begin, text));
        } else {
            text->text = (const char *)chunk + 8 + begin;
            text->size = strnlen(text->text, pgi_png_u32(chunk) - begin);
        }
    }
    return PG_OK;
}
