/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The vision encoder, SigLIP So400m/14 and relatives (HF: SiglipVisionModel without its pooling head). */
#ifndef PGI_ENCODER_ENCODER_H
#define PGI_ENCODER_ENCODER_H

#include "base/memory.h"
#include "base/run.h"
#include "checkpoint/config.h"
#include "checkpoint/weights.h"
#include "ops/ops.h"

/* Memory of a pass: N patches of P x P pixels, hidden_size h. What one union names is not alive at once; row by row
 * the first norm takes the place of the position embedding. */
typedef struct pgi_encoder_workspace {
    union {
        float *position;      /* [N, h]: the position embedding */
        float *normed;        /* [N, h] */
        float *attention_out; /* [N, h] */
    };
    union {
        float *q;        /* [N, h] */
        float *residual; /* [N, h]: what a block adds to x */
    };
    float *k, *v; /* [N, h] */
    union {
        float *patches;     /* [N, 3 * P * P]: pixels */
        void *intermediate; /* of the MLP */
    };
    void *linear;    /* scratch of pgi_linear_forward() */
    void *attention; /* scratch of pgi_attention_forward() */
} pgi_encoder_workspace;

/* Attention of the encoder: all patches see all patches. */
pgi_attention pgi_encoder_attention(const pgi_vision_config *config);

/* Memory for one image. */
pgi_encoder_workspace pgi_encoder_lay_out(pgi_arena *arena, const pgi_run *run, const pgi_vision_config *config);

/*
 * One image: pixels [3, S, S] to out [n_patches, hidden]. Progress runs over
 * the layers of all images: this one is `image` of `n_images`.
 */
pg_status pgi_encoder_forward(const pgi_run *run, const pgi_vision_config *config, const pgi_vision_weights *weights,
                              const float *pixels, int64_t image, int64_t n_images, float *out,
                              const pgi_encoder_workspace *workspace);

/* pixels [3, S, S] to patches [N, 3 * P * P], each as the convolution's kernel lies, channel by channel. Pixels right
 * of and below the last whole patch are not seen. */
void pgi_encoder_cut_patches(const pgi_vision_config *config, const float *pixels, float *patches);

#endif
