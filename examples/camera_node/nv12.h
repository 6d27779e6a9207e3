/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* RGB to NV12, the format that most cameras and video decoders give. */
#ifndef CAMERA_NODE_NV12_H
#define CAMERA_NODE_NV12_H
#include <stdint.h>

/* A frame: a plane of luma, and one of chroma, a pair U V for four pixels. Rows are as far apart as hardware likes it.
 */
typedef struct nv12_frame {
    int32_t width, height;
    int64_t stride;  /* bytes from a row to the next, of both planes */
    uint8_t *luma;   /* [height][stride] */
    uint8_t *chroma; /* [(height + 1) / 2][stride] */
} nv12_frame;

int nv12_create(nv12_frame *frame, int32_t width, int32_t height); /* 0: no memory */
void nv12_close(nv12_frame *frame);
/* Fills the frame from rgb [height][width][3]: BT.601, luma 16 to 235. */
void nv12_from_rgb(nv12_frame *frame, const uint8_t *rgb);
#endif
