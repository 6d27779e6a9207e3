/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The decoder of a VQ-VAE of masks (big_vision: evaluators/proj/paligemma/transfers/segmentation.py; Ning et al.,
 * https://arxiv.org/abs/2301.02229): 16 codes to a mask of 64 x 64. The public handle is this struct.
 */
#ifndef PGI_ANSWERS_MASK_DECODER_H
#define PGI_ANSWERS_MASK_DECODER_H

#include <stdatomic.h>

#include "base/memory.h"
#include "kernels/kernels.h"

enum { PGI_MASK_CODES = 128, PGI_MASK_SIDE = 64, PGI_MASK_LAYERS = 12 };

/* A convolution as a linear layer. */
typedef struct pgi_mask_layer {
    float *weight; /* 1x1: [out, in]; 3x3: [out, 3, 3, in]; transposed 4x4: [4, 4, out, in] */
    float *bias;   /* [out] */
} pgi_mask_layer;

struct pg_mask_decoder {
    atomic_int references;
    pgi_memory memory;
    pgi_kernels kernels;
    float *codebook; /* [128, 512] */
    pgi_mask_layer layers[PGI_MASK_LAYERS];
};

/* Reads the weights in `path`: a .npz or .safetensors file, or a folder with vae-oid.npz or vae-oid.safetensors, also
 * by a model id in the local Hugging Face cache.
 * PG_ERROR_NOT_FOUND, _IO, _FORMAT, _LIMIT, _UNSUPPORTED, _MEMORY. On error *out needs no release. */
pg_status pgi_mask_decoder_open(const pgi_memory *memory, uint64_t cpu_mask, const char *path, pg_mask_decoder **out);
pg_mask_decoder *pgi_mask_decoder_retain(const pg_mask_decoder *decoder);
void pgi_mask_decoder_release(pg_mask_decoder *decoder); /* NULL is ignored */

/* codes [16], 0 to 127, of a 4 x 4 grid in reading order; out [64, 64]: about -1 outside and 1 inside, the edge at 0.
 */
pg_status pgi_mask_decode(const pg_mask_decoder *decoder, const int32_t *codes, float *out);

#endif
