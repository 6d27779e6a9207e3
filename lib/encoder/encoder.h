/* The vision encoder, SigLIP So400m/14 and relatives (HF: SiglipVisionModel without its pooling head). */
#ifndef PGI_ENCODER_ENCODER_H
#define PGI_ENCODER_ENCODER_H

#include "base/run.h"
#include "checkpoint/config.h"
#include "checkpoint/weights.h"

/* Bytes of workspace for pgi_encoder_forward(); SIZE_MAX when that is more than can be addressed. */
size_t pgi_encoder_workspace(const pgi_run *run, const pgi_vision_config *config);

/*
 * One image: pixels [3, S, S] to out [n_patches, hidden]. Progress runs over
 * the layers of all images: this one is `image` of `n_images`.
 */
pg_status pgi_encoder_forward(const pgi_run *run, const pgi_vision_config *config, const pgi_vision_weights *weights,
                              const float *pixels, int64_t image, int64_t n_images, float *out, void *workspace);

#endif
