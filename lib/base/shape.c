/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Shapes as text. */
#include "base/shape.h"

#include <stdio.h>

const char *pgi_shape_text(int32_t n_dims, const int64_t *shape, const char *separator, char text[PGI_SHAPE_TEXT]) {
    int at = snprintf(text, PGI_SHAPE_TEXT, "[");
    for (int32_t i = 0; i < n_dims && at < PGI_SHAPE_TEXT; i++)
        at += snprintf(text + at, (size_t)(PGI_SHAPE_TEXT - at), "%s%lld", i ? separator : "", (long long)shape[i]);
    if (at < PGI_SHAPE_TEXT) snprintf(text + at, (size_t)(PGI_SHAPE_TEXT - at), "]");
    return text;
}
