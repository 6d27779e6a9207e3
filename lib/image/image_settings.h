/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The image settings of preprocessor_config.json, or of image_processor in processor_config.json (HF:
 * SiglipImageProcessor).
 */
#ifndef PGI_IMAGE_IMAGE_SETTINGS_H
#define PGI_IMAGE_IMAGE_SETTINGS_H

#include "base/memory.h"

typedef struct pgi_image_settings {
    int32_t width, height;  /* pixels */
    int32_t n_image_tokens; /* image_seq_length */
    int32_t do_resize, do_rescale, do_normalize;
    int32_t do_convert_rgb; /* what is transparent goes over white; images are made RGB in any case */
    int32_t resample;       /* Pillow's number */
    double rescale_factor;
    float mean[3], std[3];
} pgi_image_settings;

enum { PGI_MAX_SIDE = 16384, PGI_MAX_IMAGE_TOKENS = 65536 /* as config.c allows patches */ };

/* What a sample of 0 to 255 of a channel becomes: rescaled and normalized as the settings say. */
float pgi_pixel_value(const pgi_image_settings *settings, int channel, int sample);

/* Settings whose pixels no f32 holds get an error of the kind `status`. */
pg_status pgi_image_settings_check_range(const pgi_image_settings *settings, pg_status status);

/* Those of SiglipImageProcessor, which has no image_seq_length: n_image_tokens is 0. */
void pgi_image_settings_default(pgi_image_settings *out);

/* The settings of a checkpoint folder. n_image_tokens is there, unless `images_only`. */
pg_status pgi_image_settings_load(const pgi_memory *memory, const char *folder, int images_only,
                                  pgi_image_settings *out);

#endif
