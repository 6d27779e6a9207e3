/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The shape of a tensor as text, for messages and files. */
#ifndef PGI_BASE_SHAPE_H
#define PGI_BASE_SHAPE_H

#include <stdint.h>

/* Enough for 8 dimensions and separators of 2 characters. */
enum { PGI_SHAPE_TEXT = 192 };

/* "[2, 300]" with the separator ", ". n_dims: 0 to 8. Returns `text`. */
const char *pgi_shape_text(int32_t n_dims, const int64_t *shape, const char *separator, char text[PGI_SHAPE_TEXT]);

#endif
