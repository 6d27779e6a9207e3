/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* TensorFlow's tf.image.resize(method="bilinear", antialias=True) for 8-bit RGB: samples stay f32, nothing is rounded
 * back to 8 bits (the op ScaleAndTranslate with a triangle kernel, core/kernels/image/scale_and_translate_op.cc). */
#ifndef PGI_IMAGE_RESIZE_FLOAT_H
#define PGI_IMAGE_RESIZE_FLOAT_H

#include "image/image.h"

/* out: f32 [3, height, width], 0 to 255. */
pg_status pgi_resize_float(const pgi_memory *memory, const pg_cancel *cancel, const pgi_rgb *in, int32_t width,
                           int32_t height, float *out);

#endif
