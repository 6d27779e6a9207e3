/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * JPEG through libjpeg-turbo to what Pillow's convert("RGB") gives
 * (JpegImagePlugin, libImaging/JpegDecode.c, Unpack.c and Convert.c): default
 * DCT and upsampling, warnings ignored, CMYK and YCCK always taken as inverted.
 */
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h> /* after jpeglib.h */

#include "image/codecs.h"
#include "image/exif.h"

/* Each scan of a progressive file costs a pass over the whole image, and a scan can be a few bytes. Encoders write
 * about 10, never more than some dozens. */
enum { MAX_SCANS = 100 };

/* A JPEG may end anywhere: libjpeg and Pillow make grey of what is missing, so that 1 kB can promise any size. Held
 * against the bytes are the pixels, and the pixels times the scans. By Huffman's codes each block of 8 x 8 samples
 * takes at least one bit, of the component sampled most densely in each direction at least one for 1024 pixels: no file
 * whose blocks are all there, with up to FREE_SCANS scans, is refused, and none of up to FREE_PIXELS. */
enum { FREE_PIXELS = 1 << 25, PIXELS_PER_BYTE = 1024, FREE_SCANS = 32 };

/* Arithmetic coding makes all 64 coefficients of a block out of next to nothing, at some nanoseconds each. So those
 * that the scans stand for are counted: at most this many for each pixel that the header may promise, which is what
 * colour in one scan has. libjpeg's ten scans of colour have 7 for a pixel, or 4 where colour has half the resolution:
 * a blank image of 14 million pixels, or 25, still opens. */
enum { ARITHMETIC_COEFFICIENTS = 3 };

/* libjpeg gets the file in slices, each an occasion to look at the cancel flag: headers alone can be the whole of it.
 */
enum { SLICE = 1 << 16 };

/* All state that must outlive a longjmp() is in here, none in locals. */
typedef struct jpeg_job {
    struct jpeg_decompress_struct cinfo; /* first: libjpeg's callbacks hand back its address */
    struct jpeg_error_mgr errors;
    struct jpeg_source_mgr source;
    struct jpeg_progress_mgr progress;
    jmp_buf jump;
    const pgi_memory *memory;
    const uint8_t *bytes;
    size_t size, given; /* given: to libjpeg, up to the end of its slice */
    const char *name;
    const pgi_image_limits *limits;
    pgi_rgb *out;
    uint8_t *row; /* CMYK: one row of 4 bytes a pixel */
    pg_status status;
    int finishing;                 /* all rows are there */
    int scan;                      /* the last that is counted in: */
    int64_t n_coefficients;        /* that the scans of an arithmetic-coded file stand for */
    char problem[JMSG_LENGTH_MAX]; /* what libjpeg found wrong */
} jpeg_job;

static void stop(jpeg_job *job, pg_status status) {
    job->status = status;
    longjmp(job->jump, 1);
}

static void on_error(j_common_ptr cinfo) {
    jpeg_job *job = (jpeg_job *)cinfo;
    job->errors.format_message(cinfo, job->problem);
    switch (job->errors.msg_code) {
        case JERR_OUT_OF_MEMORY:
            stop(job, pgi_error(PG_ERROR_MEMORY, "%s: out of memory while decoding the JPEG", job->name));
            break;
        case JERR_ARITH_NOTIMPL:
        case JERR_BAD_PRECISION:
        case JERR_CONVERSION_NOTIMPL:
        case JERR_NOTIMPL:
        case JERR_NOT_COMPILED:
        case JERR_SOF_UNSUPPORTED:
            stop(job,
                 pgi_error(PG_ERROR_UNSUPPORTED,
                           "%s: found a JPEG of another kind (%s), expected a baseline or progressive one of 8 bits",
                           job->name, job->problem));
            break;
        default:
            stop(job, pgi_error(PG_ERROR_FORMAT, "%s: found a damaged JPEG (%s), expected a whole one", job->name,
                                job->problem));
    }
}

static void on_message(j_common_ptr cinfo) { (void)cinfo; }

static void source_nothing(j_decompress_ptr cinfo) { (void)cinfo; }

static boolean source_fill(j_decompress_ptr cinfo) {
    jpeg_job *job = (jpeg_job *)cinfo;
    const size_t left = job->size - job->given;
    if (pgi_cancel_requested(job->limits->cancel)) stop(job, pgi_run_cancelled_error());
    if (left > 0) {
        cinfo->src->next_input_byte = job->bytes + job->given;
        cinfo->src->bytes_in_buffer = left < SLICE ? left : SLICE;
        job->given += cinfo->src->bytes_in_buffer;
        return TRUE;
    }
    if (job->finishing) return FALSE; /* libjpeg gives up for now, and we for good */
    stop(job, pgi_error(PG_ERROR_FORMAT, "%s: found a truncated JPEG (%zu bytes, %u of %u rows), expected a whole one",
                        job->name, job->size, cinfo->output_scanline, cinfo->image_height));
    return FALSE;
}

static void source_skip(j_decompress_ptr cinfo, long n) {
    if (n <= 0) return;
    while ((size_t)n > cinfo->src->bytes_in_buffer) {
        n -= (long)cinfo->src->bytes_in_buffer;
        cinfo->src->bytes_in_buffer = 0;
        if (!source_fill(cinfo)) return;
    }
    cinfo->src->next_input_byte += n;
    cinfo->src->bytes_in_buffer -= (size_t)n;
}

static void check_promise(jpeg_job *job, int n_scans) {
    const int64_t pixels = (int64_t)job->cinfo.image_width * job->cinfo.image_height;
    const int64_t most = FREE_PIXELS + (int64_t)job->size * PIXELS_PER_BYTE;
    if (pixels > most)
        stop(job, pgi_error(PG_ERROR_LIMIT,
                            "%s: found a JPEG of %u x %u pixels in %zu bytes, expected at most %lld pixels in so few",
                            job->name, job->cinfo.image_width, job->cinfo.image_height, job->size, (long long)most));
    if (pixels * n_scans > most * FREE_SCANS)
        stop(job, pgi_error(PG_ERROR_LIMIT,
                            "%s: found a JPEG of %u x %u pixels with more than %d scans in %zu bytes, expected at most "
                            "that many",
                            job->name, job->cinfo.image_width, job->cinfo.image_height, n_scans - 1, job->size));
}

/* Once a scan has begun. */
static void check_arithmetic(jpeg_job *job) {
    const struct jpeg_decompress_struct *cinfo = &job->cinfo;
    const int64_t most = (FREE_PIXELS + (int64_t)job->size * PIXELS_PER_BYTE) * ARITHMETIC_COEFFICIENTS;
    if (!cinfo->arith_code || cinfo->input_scan_number == job->scan) return;
    job->scan = cinfo->input_scan_number;
    for (int i = 0; i < cinfo->comps_in_scan; i++) {
        const jpeg_component_info *component = cinfo->cur_comp_info[i];
        const int64_t n_blocks = (int64_t)component->width_in_blocks * component->height_in_blocks;
        job->n_coefficients += n_blocks * (cinfo->progressive_mode ? cinfo->Se - cinfo->Ss + 1 : DCTSIZE2);
    }
    if (job->n_coefficients > most)
        stop(job, pgi_error(PG_ERROR_LIMIT,
                            "%s: found an arithmetic-coded JPEG of %lld coefficients up to scan %d in %zu bytes, "
                            "expected at most %lld in so few",
                            job->name, (long long)job->n_coefficients, job->scan, job->size, (long long)most));
}

static void on_progress(j_common_ptr cinfo) {
    jpeg_job *job = (jpeg_job *)cinfo;
    if (pgi_cancel_requested(job->limits->cancel)) stop(job, pgi_run_cancelled_error());
    if (job->cinfo.input_scan_number > MAX_SCANS)
        stop(job, pgi_error(PG_ERROR_LIMIT, "%s: found more than %d scans in the JPEG, expected at most that many",
                            job->name, MAX_SCANS));
    check_promise(job, job->cinfo.input_scan_number);
    check_arithmetic(job);
}

/* a * b / 255, rounded: MULDIV255 of libImaging */
static int mul_div_255(int a, int b) {
    int t = a * b + 128;
    return ((t >> 8) + t) >> 8;
}

/* in: [width, 4] as stored, that is inverted; cmyk2rgb() of libImaging/Convert.c */
static void convert_cmyk_row(const uint8_t *in, int32_t width, uint8_t *out) {
    for (int32_t x = 0; x < width; x++, in += 4) {
        int white = in[3]; /* 255 - K */
        for (int c = 0; c < 3; c++) {
            int value = white - mul_div_255(255 - in[c], white);
            *out++ = (uint8_t)(value < 0 ? 0 : value);
        }
    }
}

static void decode(jpeg_job *job) {
    struct jpeg_decompress_struct *cinfo = &job->cinfo;
    jpeg_create_decompress(cinfo);
    job->source = (struct jpeg_source_mgr){.init_source = source_nothing,
                                           .fill_input_buffer = source_fill,
                                           .skip_input_data = source_skip,
                                           .resync_to_restart = jpeg_resync_to_restart,
                                           .term_source = source_nothing};
    cinfo->src = &job->source;
    job->progress.progress_monitor = on_progress;
    cinfo->progress = &job->progress;
    while (jpeg_read_header(cinfo, FALSE) != JPEG_HEADER_OK) {
        /* a header of tables only: the image follows, as Pillow sees it, or the data ends */
    }
    if ((int64_t)cinfo->image_width > job->limits->max_pixels / (int64_t)cinfo->image_height)
        stop(job, pgi_error(PG_ERROR_LIMIT, "%s: found %u x %u pixels, expected at most %lld in all", job->name,
                            cinfo->image_width, cinfo->image_height, (long long)job->limits->max_pixels));
    check_promise(job, 1);
    int n = cinfo->num_components;
    if (n != 1 && n != 3 && n != 4)
        stop(job, pgi_error(PG_ERROR_UNSUPPORTED, "%s: found a JPEG of %d colour components, expected 1, 3 or 4",
                            job->name, n));
    cinfo->out_color_space = n == 1 ? JCS_GRAYSCALE : n == 3 ? JCS_RGB : JCS_CMYK;
    int32_t width = (int32_t)cinfo->image_width, height = (int32_t)cinfo->image_height;
    job->out->data = pgi_alloc(job->memory, (size_t)width * 3, (size_t)height);
    job->row = n == 4 ? pgi_alloc(job->memory, (size_t)width, 4) : NULL;
    if (!job->out->data || (n == 4 && !job->row)) stop(job, PG_ERROR_MEMORY);
    job->out->width = width;
    job->out->height = height;
    jpeg_start_decompress(cinfo);
    while (cinfo->output_scanline < cinfo->output_height) {
        uint8_t *line = job->out->data + (size_t)cinfo->output_scanline * (size_t)width * 3;
        JSAMPROW target = n == 4 ? job->row : line;
        jpeg_read_scanlines(cinfo, &target, 1);
        if (n == 4) convert_cmyk_row(job->row, width, line);
        if (n == 1) /* spread in place, from the end */
            for (int32_t x = width - 1; x >= 0; x--) memset(line + (size_t)x * 3, line[x], 3);
    }
    /* Pillow wants what follows the rows to be sound, but does not miss an end that is not there. */
    job->finishing = 1;
    jpeg_finish_decompress(cinfo);
}

static pg_status decode_guarded(jpeg_job *job) {
    if (setjmp(job->jump) == 0) decode(job);
    jpeg_destroy_decompress(&job->cinfo);
    return job->status;
}

pg_status pgi_jpeg_decode(const pgi_memory *memory, const uint8_t *bytes, size_t size, const char *name,
                          const pgi_image_limits *limits, pgi_rgb *out, int32_t *orientation) {
    jpeg_job job = {.memory = memory, .bytes = bytes, .size = size, .name = name, .limits = limits, .out = out};
    *out = (pgi_rgb){0};
    job.cinfo.err = jpeg_std_error(&job.errors);
    job.errors.error_exit = on_error;
    job.errors.output_message = on_message;
    pg_status status = decode_guarded(&job);
    pgi_free(memory, job.row);
    if (status == PG_OK && orientation) status = pgi_exif_of_jpeg(memory, limits->cancel, bytes, size, orientation);
    if (status < 0) pgi_rgb_free(memory, out);
    return status;
}
