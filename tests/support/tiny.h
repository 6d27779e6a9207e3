/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes very small random checkpoint folders (a few 10 kB) as users have them, without any reference at hand: enough
 * to run every part of the library in milliseconds. Their weights say nothing about correctness; tests/golden does.
 */
#ifndef TESTS_TINY_H
#define TESTS_TINY_H

#include "support.h"

enum { TINY_NO_COLPALI, TINY_COLPALI, TINY_COLPALI_ENGINE, TINY_EMBEDDING_DIM = 10 };
enum { TINY_HEAD_TIED, TINY_HEAD_BOTH, TINY_HEAD_ONLY, TINY_HEAD_COPY /* tied, and stored all the same */ };

typedef struct tiny_options {
    uint64_t seed;
    int gemma_version; /* 1: Gemma, 2: Gemma 2 */
    int dtype;         /* PG_DTYPE_F32, PG_DTYPE_BF16 or PG_DTYPE_F16 */
    int n_shards;      /* 1: model.safetensors; more: an index beside them */
    int layout;        /* of the names: 0 before transformers 4.52, 1 after, 2 as 5.23 saves */
    int head;          /* TINY_HEAD_* */
    int new_style;     /* 0: tokenizer.model, preprocessor_config.json, ...;
                        * 1: tokenizer.json and processor_config.json alone */
    int image_size;    /* a multiple of the patch */
    int n_layers;      /* of the encoder and of the decoder */
    int colpali;       /* TINY_NO_COLPALI, or as transformers or colpali-engine writes a ColPali folder */
    int mlx;           /* 1: the patch convolution is channels last, as MLX has it; the values are the same */
    int patch;         /* 0: 4 */
} tiny_options;

/* Gemma, bf16, one file, old style: what the official folders look like. */
tiny_options tiny_official(void);
/* Gemma 2, f32, three shards, new style: what transformers 5.23 saves. */
tiny_options tiny_saved_today(void);

void tiny_write(const char *folder, const tiny_options *options);

/* An image of soft colours as a file in memory. */
enum { IMAGE_PNG, IMAGE_PNG_PALETTE, IMAGE_JPEG, IMAGE_JPEG_PROGRESSIVE };
bytes tiny_image(int kind, int width, int height, uint64_t seed);

#endif
