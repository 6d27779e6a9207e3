/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Raw pixels in memory, as cameras and textures give them: checked, and made RGB row by row. */
#ifndef PGI_IMAGE_FRAME_H
#define PGI_IMAGE_FRAME_H

#include "image/fit.h"
#include "image/rows.h"
#include "kernels/kernels.h"

enum { PGI_MAX_PLANES = 3 };

/* How the planes of a raw format lie in memory. */
typedef struct pgi_pixel_layout {
    const char *name;           /* for messages */
    int n_planes;               /* 0: no raw format */
    int unit[PGI_MAX_PLANES];   /* bytes of a pixel, or of what stands for several of them */
    int across[PGI_MAX_PLANES]; /* pixels side by side that a unit stands for */
    int down[PGI_MAX_PLANES];   /* rows that a row stands for */
} pgi_pixel_layout;

/* NULL: the format is not one of raw pixels. */
const pgi_pixel_layout *pgi_pixel_layout_of(int32_t format);
/* Bytes of a dense row of a plane, and its rows. */
int64_t pgi_plane_row(const pgi_pixel_layout *layout, int plane, int32_t width);
int32_t pgi_plane_height(const pgi_pixel_layout *layout, int plane, int32_t height);

typedef struct pgi_frame {
    const pgi_kernels *kernels;
    int32_t format;
    pgi_rectangle part;                    /* that is read */
    const uint8_t *planes[PGI_MAX_PLANES]; /* of the whole frame */
    int64_t strides[PGI_MAX_PLANES];
    const uint8_t *ground; /* RGB: what is transparent is laid over it; NULL: alpha is dropped */
    int32_t gray_min;
    uint64_t gray_scale; /* 255 / (gray_max - gray_min) with 40 fraction bits, rounded up */
    int32_t gray_range;
    pgi_yuv yuv;
    int16_t *terms;        /* [3, n_terms] of a row of chroma */
    int64_t n_terms;       /* from the even column at or before part.x on */
    int32_t terms_row;     /* which row of chroma they are of; -1: none */
    uint8_t *luma, *pairs; /* a row of Y, and of chroma by turns, where they do not lie so in memory */
} pgi_frame;

/* Where the rows of an image lie: format, part, planes and strides of the frame, which needs no close. */
pg_status pgi_frame_check(const pg_image *image, int64_t max_pixels, pgi_frame *frame);
/* image: one that pgi_image_check() has seen. ground: as in pgi_frame. *frame needs pgi_frame_close(),
 * after an error too; `image` is not needed any longer, its planes are. */
pg_status pgi_frame_open(const pgi_memory *memory, const pgi_kernels *kernels, const pg_image *image,
                         int64_t max_pixels, const uint8_t *ground, pgi_frame *frame);
void pgi_frame_close(const pgi_memory *memory, pgi_frame *frame);

/* The part as rows. They need the frame where it is. */
pgi_rows pgi_frame_rows(pgi_frame *frame);
/* Whether alpha says something that is lost with it. Where it is 0 everywhere, it is a spare byte. */
int pgi_frame_has_transparent(const pgi_frame *frame, const pg_cancel *cancel);

/* What the kernels need for a PG_YUV_ matrix and range; swapped: V comes first. */
void pgi_yuv_init(int32_t matrix, int32_t range, int swapped, pgi_yuv *yuv);

#endif
