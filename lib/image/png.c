/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * PNG through libpng to what Pillow's convert("RGB") gives (PngImagePlugin,
 * libImaging/Unpack.c and Convert.c): raw samples come from libpng, the
 * conversion is ours, as Pillow's differs from libpng's own: 16-bit grey is
 * cut off at 255, 16-bit colour keeps the high byte, alpha is dropped (or laid
 * over white on request), an index past the palette is black, gamma and ICC are
 * ignored. tRNS: png_key.c.
 */
#include <png.h>
#include <stdio.h>
#include <string.h>

#include "image/codecs.h"
#include "image/exif.h"
#include "image/png_key.h"
#include "image/png_text.h"

enum {
    MAX_CHUNK_SIZE = 4 * 1024 * 1024 /* of one that libpng keeps */
};

/* All state that must outlive a longjmp() of libpng is in here, none in locals. */
typedef struct png_job {
    const pgi_memory *memory;
    const uint8_t *bytes;
    size_t size, at;
    size_t cut_at;     /* where the first chunk begins that is longer than the file, or SIZE_MAX */
    size_t next_chunk; /* where libpng reads the next one, or SIZE_MAX behind the last */
    pgi_png_texts texts;
    int32_t width, height;
    int bit_depth, color_type;
    int64_t n_clipped;     /* pixels of 16-bit grey above 255 */
    int64_t n_transparent; /* pixels whose alpha is less than 255 */
    const uint8_t *ground; /* RGB that they are laid over, or NULL */
    int want_orientation;
    pgi_rgb *out;
    uint8_t *row;            /* one row of samples as stored */
    uint8_t palette[256][3]; /* black where the file has no entry */
    uint8_t palette_alpha[256];
    png_structp png;
    png_infop info;
    int32_t orientation;
    int out_of_memory, cancelled;
    int ending; /* all rows are there */
    const pg_cancel *cancel;
    char problem[160]; /* what libpng found wrong */
} png_job;

static void on_error(png_structp png, png_const_charp message) {
    png_job *job = png_get_error_ptr(png);
    snprintf(job->problem, sizeof job->problem, "%s", message);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp message) {
    (void)png;
    (void)message;
}

static void *on_malloc(png_structp png, png_alloc_size_t size) {
    png_job *job = png_get_mem_ptr(png);
    void *block = pgi_alloc(job->memory, size, 1);
    if (!block) job->out_of_memory = 1;
    return block;
}

static void on_free(png_structp png, void *block) { pgi_free(((png_job *)png_get_mem_ptr(png))->memory, block); }

/* libpng reads the first 8 bytes of a chunk at once. Texts are noted on its way, so that those behind what it stumbles
 * over do not count. */
static void note_chunk(png_job *job) {
    const uint8_t *chunk = job->bytes + job->at;
    const size_t left = job->size - job->at - 8, n = pgi_png_u32(chunk);
    job->next_chunk = SIZE_MAX;
    if (n > left) return; /* the file ends in it */
    pgi_png_note_text(&job->texts, chunk);
    if (left - n >= 4) job->next_chunk = job->at + 12 + n;
}

static void on_read(png_structp png, png_bytep to, size_t n) {
    png_job *job = png_get_io_ptr(png);
    size_t left = job->size - job->at;
    if ((job->cancelled = pgi_cancel_requested(job->cancel))) png_error(png, "cancelled");
    if (job->at == job->cut_at) png_error(png, "the data ends too early"); /* libpng would get memory for all of it */
    if (n > left) {
        if (!job->ending || n != 4) png_error(png, "the data ends too early");
        memset(to, 0, n); /* a checksum behind the pixels, which does not count */
        n = left;
    }
    if (n == 8 && job->at == job->next_chunk) note_chunk(job);
    memcpy(to, job->bytes + job->at, n);
    job->at += n;
}

/* Where the first chunk begins that holds no pixels and is longer than the file. */
static size_t find_cut(const uint8_t *bytes, size_t size, const pg_cancel *cancel) {
    for (size_t at = 8; size - at >= 8 && !pgi_cancel_requested(cancel);) {
        const uint32_t n = pgi_png_u32(bytes + at);
        if (n > size - at - 8) return memcmp(bytes + at + 4, "IDAT", 4) == 0 ? SIZE_MAX : at;
        if (n + (size_t)4 > size - at - 8) break; /* the checksum alone is missing */
        at += 12 + (size_t)n;
    }
    return SIZE_MAX;
}

/* Bytes of all rows as deflate packs them, each with the byte of its filter. */
static uint64_t packed_size(int32_t width, int32_t height, int bits, int interlaced) {
    uint64_t size = 0;
    for (int pass = 0; pass < (interlaced ? PNG_INTERLACE_ADAM7_PASSES : 1); pass++) {
        uint64_t columns = interlaced ? PNG_PASS_COLS((uint32_t)width, pass) : (uint32_t)width;
        uint64_t rows = interlaced ? PNG_PASS_ROWS((uint32_t)height, pass) : (uint32_t)height;
        if (columns) size += rows * (1 + (columns * (uint64_t)bits + 7) / 8);
    }
    return size;
}

/* Deflate's densest code is 258 bytes in 2 bits. A file that promises more is refused before memory is had for it. */
static pg_status check_promise(const png_job *job, const char *name) {
    static const int channels[] = {[PNG_COLOR_TYPE_GRAY] = 1,
                                   [PNG_COLOR_TYPE_RGB] = 3,
                                   [PNG_COLOR_TYPE_PALETTE] = 1,
                                   [PNG_COLOR_TYPE_GRAY_ALPHA] = 2,
                                   [PNG_COLOR_TYPE_RGB_ALPHA] = 4};
    int bits = channels[job->color_type] * job->bit_depth;
    uint64_t size = packed_size(job->width, job->height, bits, job->bytes[28] != 0);
    if (size / PGI_PNG_MAX_RATIO <= job->size) return PG_OK;
    return pgi_error(PG_ERROR_FORMAT,
                     "%s: found a damaged PNG (the data ends too early): %d x %d pixels in %zu bytes, expected at "
                     "least %llu",
                     name, job->width, job->height, job->size, (unsigned long long)(size / PGI_PNG_MAX_RATIO));
}

/* libpng would call an absurd header "invalid IHDR data"; this says which value is wrong. */
static pg_status check_header(png_job *job, const char *name, int64_t max_pixels) {
    static const uint8_t signature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
    const uint8_t *bytes = job->bytes;
    if (job->size < 33)
        return pgi_error(PG_ERROR_FORMAT, "%s: found a PNG of %zu bytes, expected at least a signature and a header",
                         name, job->size);
    if (memcmp(bytes, signature, 8) != 0)
        return pgi_error(PG_ERROR_FORMAT, "%s: found a damaged PNG signature, expected 89 50 4e 47 0d 0a 1a 0a", name);
    if (pgi_png_u32(bytes + 8) != 13 || memcmp(bytes + 12, "IHDR", 4) != 0)
        return pgi_error(PG_ERROR_FORMAT, "%s: found %u bytes of \"%.4s\" as the first PNG chunk, expected 13 of IHDR",
                         name, pgi_png_u32(bytes + 8), (const char *)bytes + 12);
    uint32_t width = pgi_png_u32(bytes + 16), height = pgi_png_u32(bytes + 20);
    int depth = bytes[24], color = bytes[25];
    if (width < 1 || height < 1 || width > INT32_MAX || height > INT32_MAX)
        return pgi_error(PG_ERROR_FORMAT, "%s: found a PNG of %u x %u pixels, expected at least 1 x 1", name, width,
                         height);
    if ((int64_t)width > max_pixels / (int64_t)height)
        return pgi_error(PG_ERROR_LIMIT, "%s: found %u x %u pixels, expected at most %lld in all", name, width, height,
                         (long long)max_pixels);
    int power = depth == 1 || depth == 2 || depth == 4 || depth == 8 || depth == 16;
    int sound = color == PNG_COLOR_TYPE_GRAY      ? power
                : color == PNG_COLOR_TYPE_PALETTE ? power && depth <= 8
                : color == PNG_COLOR_TYPE_RGB || color == PNG_COLOR_TYPE_GRAY_ALPHA || color == PNG_COLOR_TYPE_RGB_ALPHA
                    ? depth == 8 || depth == 16
                    : 0;
    if (!sound)
        return pgi_error(PG_ERROR_FORMAT, "%s: found PNG colour type %d with %d bits, expected one that PNG defines",
                         name, color, depth);
    job->width = (int32_t)width;
    job->height = (int32_t)height;
    job->bit_depth = depth;
    job->color_type = color;
    return PG_OK;
}

static void put(png_job *job, uint8_t *out, int r, int g, int b, int alpha) {
    const uint8_t *ground = alpha < 255 ? job->ground : NULL;
    job->n_transparent += alpha < 255;
    out[0] = ground ? pgi_over(r, ground[0], alpha) : (uint8_t)r;
    out[1] = ground ? pgi_over(g, ground[1], alpha) : (uint8_t)g;
    out[2] = ground ? pgi_over(b, ground[2], alpha) : (uint8_t)b;
}

/* n stored samples to RGB; `step` bytes lie between the pixels written. */
static void convert_row(png_job *job, const uint8_t *in, int32_t n, uint8_t *out, size_t step) {
    int depth = job->bit_depth, wide = depth == 16;
    switch (job->color_type) {
        case PNG_COLOR_TYPE_GRAY:
        case PNG_COLOR_TYPE_PALETTE: {
            int mask = (1 << (depth < 8 ? depth : 8)) - 1;
            for (int32_t i = 0; i < n; i++, out += step) {
                int value;
                if (wide) {
                    value = in[2 * (size_t)i] ? 255 : in[2 * (size_t)i + 1];
                    job->n_clipped += in[2 * (size_t)i] != 0;
                } else {
                    size_t bit = (size_t)i * (size_t)depth;
                    value = in[bit / 8] >> (8 - depth - (int)(bit % 8)) & mask;
                }
                if (job->color_type == PNG_COLOR_TYPE_PALETTE) {
                    const uint8_t *color = job->palette[value];
                    put(job, out, color[0], color[1], color[2], job->palette_alpha[value]);
                } else {
                    out[0] = out[1] = out[2] = (uint8_t)(wide ? value : value * (255 / mask));
                }
            }
            break;
        }
        case PNG_COLOR_TYPE_GRAY_ALPHA: {
            size_t sample = wide ? 2 : 1;
            for (int32_t i = 0; i < n; i++, out += step, in += 2 * sample)
                put(job, out, in[0], in[0], in[0], in[sample]);
            break;
        }
        default: {
            size_t sample = wide ? 2 : 1;
            int has_alpha = job->color_type == PNG_COLOR_TYPE_RGB_ALPHA;
            for (int32_t i = 0; i < n; i++, out += step, in += sample * (has_alpha ? 4 : 3))
                put(job, out, in[0], in[sample], in[2 * sample], has_alpha ? in[3 * sample] : 255);
        }
    }
}

/* Interlaced rows come pass by pass, each pass a small image of its own. */
static void read_rows(png_job *job) {
    int passes = png_get_interlace_type(job->png, job->info) == PNG_INTERLACE_ADAM7 ? PNG_INTERLACE_ADAM7_PASSES : 1;
    for (int pass = 0; pass < passes; pass++) {
        uint32_t x0 = 0, y0 = 0, step_x = 1, step_y = 1;
        uint32_t columns = (uint32_t)job->width, rows = (uint32_t)job->height;
        if (passes > 1) {
            x0 = PNG_PASS_START_COL(pass);
            y0 = PNG_PASS_START_ROW(pass);
            step_x = 1u << PNG_PASS_COL_SHIFT(pass);
            step_y = 1u << PNG_PASS_ROW_SHIFT(pass);
            columns = PNG_PASS_COLS(columns, pass);
            rows = PNG_PASS_ROWS(rows, pass);
        }
        if (columns == 0) continue; /* libpng has no rows for it either */
        for (uint32_t y = 0; y < rows; y++) {
            if ((job->cancelled = pgi_cancel_requested(job->cancel))) return;
            png_read_row(job->png, job->row, NULL);
            size_t at = (size_t)(y0 + y * step_y) * (size_t)job->width + x0;
            convert_row(job, job->row, (int32_t)columns, job->out->data + at * 3, (size_t)step_x * 3);
        }
    }
}

/* libpng 1.6.32 to 1.6.38 (Ubuntu 20.04 and 22.04, Debian 11) refuse a file for an ancillary chunk above this limit,
 * even when it is to be skipped; later ones leave out the chunk. No chunk is larger than its file. */
static png_alloc_size_t chunk_limit(size_t file_size) {
    png_uint_32 version = png_access_version_number();
    int refuses = version >= 10632 && version <= 10638;
    return refuses && file_size > MAX_CHUNK_SIZE ? file_size : MAX_CHUNK_SIZE;
}

static void decode(png_job *job) {
    png_structp png = job->png;
    png_set_user_limits(png, PNG_UINT_31_MAX, PNG_UINT_31_MAX); /* max_pixels has spoken */
    png_set_chunk_malloc_max(png, chunk_limit(job->size));
    /* A damaged chunk in front of the image is an error in Pillow, also when the chunk is not needed. */
    png_set_crc_action(png, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
    png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, NULL, -1); /* no chunk that we do not use */
    if (job->want_orientation)
        png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_AS_DEFAULT, (png_const_bytep) "eXIf", 1);
    png_set_read_fn(png, job, on_read);
    png_read_info(png, job->info);

    png_colorp colors;
    int n_colors;
    if (png_get_PLTE(png, job->info, &colors, &n_colors))
        for (int i = 0; i < n_colors && i < 256; i++) {
            job->palette[i][0] = colors[i].red;
            job->palette[i][1] = colors[i].green;
            job->palette[i][2] = colors[i].blue;
        }

    size_t row_size = png_get_rowbytes(png, job->info);
    job->row = pgi_alloc(job->memory, row_size, 1);
    job->out->data = pgi_alloc(job->memory, (size_t)job->width * 3, (size_t)job->height);
    if (!job->row || !job->out->data) {
        job->out_of_memory = 1;
        return;
    }
    job->out->width = job->width;
    job->out->height = job->height;
    png_start_read_image(png);
    read_rows(job);
}

static int decode_guarded(png_job *job) {
    if (setjmp(png_jmpbuf(job->png))) return 0;
    decode(job);
    return !job->out_of_memory && !job->cancelled;
}

/* EXIF may follow the pixels; damage there costs only what lies behind it. Pillow looks at no checksum there. */
static void read_end_guarded(png_job *job) {
    if (setjmp(png_jmpbuf(job->png))) return;
    job->ending = 1;
    png_set_crc_action(job->png, PNG_CRC_QUIET_USE, PNG_CRC_QUIET_USE);
    png_read_end(job->png, job->info);
}

static int hex_digit(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* ImageMagick's "Raw profile type exif": a line break, the type, the size, then lines of hex digits. */
static pg_status read_raw_profile(const pg_cancel *cancel, const pgi_png_text *profile, pgi_buffer *out) {
    const char *text = profile->text, *end = text + profile->size;
    for (int line = 0; line < 3; line++) {
        text = memchr(text, '\n', (size_t)(end - text));
        if (!text) return PG_OK;
        text++;
    }
    PGI_TRY(pgi_buffer_reserve(out, (size_t)(end - text) / 2));
    for (; text < end; text++) {
        if (out->size % (1 << 16) == 0) PGI_TRY(pgi_cancel_check(cancel));
        if (*text == '\n' || *text == ' ' || *text == '\r' || *text == '\t') continue;
        int high = hex_digit(*text), low = end - text > 1 ? hex_digit(text[1]) : -1;
        if (high < 0 || low < 0) { /* Pillow raises */
            pgi_buffer_free(out);
            return PG_OK;
        }
        uint8_t byte = (uint8_t)(high << 4 | low);
        PGI_TRY(pgi_buffer_append(out, &byte, 1));
        text++;
    }
    return PG_OK;
}

/* One text is unpacked at a time. */
static pg_status find_orientation(png_job *job) {
    pgi_exif_source source = {0};
    png_bytep exif = NULL;
    png_uint_32 exif_size = 0;
    pgi_png_text profile = {0}, xmp = {0};
    pgi_buffer raw;
    pgi_buffer_init(&raw, job->memory);
    pg_status status = PG_OK;
    if (png_get_eXIf_1(job->png, job->info, &exif_size, &exif)) {
        source.exif = exif;
        source.exif_size = exif_size;
    } else {
        PGI_GOTO(pgi_png_find_text(job->memory, job->cancel, &job->texts, PGI_PNG_RAW_PROFILE, &profile), done);
        if (profile.text) PGI_GOTO(read_raw_profile(job->cancel, &profile, &raw), done);
        pgi_free(job->memory, profile.block);
        profile.block = NULL;
        source.exif = raw.data;
        source.exif_size = raw.size;
    }
    PGI_GOTO(pgi_png_find_text(job->memory, job->cancel, &job->texts, PGI_PNG_XMP, &xmp), done);
    source.xmp = xmp.text;
    source.xmp_size = xmp.size;
    job->orientation = pgi_exif_orientation(&source);
done:
    pgi_free(job->memory, profile.block);
    pgi_free(job->memory, xmp.block);
    pgi_buffer_free(&raw);
    return status;
}

/* Depth maps and scans become white where users expect grey. */
static pg_status warn_of_clipping(const png_job *job, const char *name, const pgi_log *log) {
    if (!log || !job->n_clipped) return PG_OK;
    return pgi_log_line(
        log, PG_LOG_WARNING,
        "%s: 16-bit grey: %lld of %lld pixels are above 255 and become white, as in Pillow; scale the image "
        "to 8 bits first",
        name, (long long)job->n_clipped, (long long)job->width * job->height);
}

/* The transparent colour, once all pixels are there. *left: 1 where a transparent pixel is not laid over a colour. */
static pg_status lay_over(png_job *job, const pgi_png_trns *trns, int32_t over_white, int32_t *left) {
    pgi_png_kind kind = {job->color_type, job->bit_depth, job->palette};
    static const uint8_t white[3] = {255, 255, 255};
    pgi_png_key key, opened;
    size_t n_opened = 0;
    *left = 0;
    pgi_png_read_key(&kind, trns, 0, &key);
    pgi_png_read_key(&kind, trns, 1, &opened);
    PGI_TRY(pgi_png_lay_over(&opened, job->ground, job->cancel, job->out, &n_opened));
    if (job->ground) return PG_OK;
    if (over_white) PGI_TRY(pgi_png_lay_over(&key, white, job->cancel, job->out, NULL));
    int done = over_white && key.found && (!opened.found || memcmp(key.rgb, opened.rgb, 3) == 0);
    *left = (job->n_transparent > 0 || n_opened > 0) && !done;
    return PG_OK;
}

/* A chunk that is too long for a palette is an error where it counts. */
static pg_status read_palette_alpha(png_job *job, const char *name, const pgi_png_trns *trns) {
    if (job->color_type != PGI_PNG_PALETTE || (trns->size > 256 && !job->ground))
        return pgi_png_palette_alpha(&(pgi_png_trns){0}, name, job->palette_alpha);
    return pgi_png_palette_alpha(trns, name, job->palette_alpha);
}

pg_status pgi_png_decode(const pgi_memory *memory, const uint8_t *bytes, size_t size, const char *name,
                         const pgi_image_limits *limits, pgi_rgb *out, int32_t *orientation) {
    png_job job = {.memory = memory,
                   .bytes = bytes,
                   .size = size,
                   .next_chunk = 8, /* behind the signature */
                   .out = out,
                   .cancel = limits->cancel,
                   .orientation = 1,
                   .ground = limits->ground,
                   .want_orientation = orientation != NULL};
    *out = (pgi_rgb){0};
    pgi_png_trns trns;
    PGI_TRY(check_header(&job, name, limits->max_pixels));
    PGI_TRY(check_promise(&job, name));
    job.cut_at = find_cut(bytes, size, job.cancel);
    PGI_TRY(pgi_png_find_trns(bytes, size, name, job.color_type, job.cancel, &trns));
    PGI_TRY(read_palette_alpha(&job, name, &trns));
    pg_status status = PG_OK;
    job.png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, &job, on_error, on_warning, &job, on_malloc, on_free);
    if (job.png) job.info = png_create_info_struct(job.png);
    if (!job.info) {
        status = job.out_of_memory ? PG_ERROR_MEMORY
                                   : pgi_error(PG_ERROR_INTERNAL, "%s: libpng does not start: %s", name, job.problem);
    } else if (!decode_guarded(&job)) {
        status = job.out_of_memory ? PG_ERROR_MEMORY
                 : job.cancelled   ? pgi_run_cancelled_error()
                                   : pgi_error(PG_ERROR_FORMAT, "%s: found a damaged PNG (%s), expected a whole one",
                                               name, job.problem);
    } else if (orientation) {
        read_end_guarded(&job);
        status = job.out_of_memory ? PG_ERROR_MEMORY
                 : job.cancelled   ? pgi_run_cancelled_error()
                                   : find_orientation(&job);
        *orientation = job.orientation;
    }
    int32_t left = 0;
    if (status == PG_OK) status = lay_over(&job, &trns, limits->over_white, &left);
    if (left && limits->alpha_dropped) *limits->alpha_dropped = 1;
    if (status == PG_OK) status = warn_of_clipping(&job, name, limits->log);
    if (job.png) png_destroy_read_struct(&job.png, &job.info, NULL);
    pgi_free(memory, job.row);
    if (status < 0) pgi_rgb_free(memory, out);
    return status;
}
