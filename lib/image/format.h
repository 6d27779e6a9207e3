/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What bytes are that are neither PNG nor JPEG, as an error that says what to do. */
#ifndef PGI_IMAGE_FORMAT_H
#define PGI_IMAGE_FORMAT_H

#include "base/memory.h"

/* PG_ERROR_UNSUPPORTED for another format of images, archives or videos, PG_ERROR_FORMAT for anything else. */
pg_status pgi_unknown_image_error(const uint8_t *bytes, size_t size, const char *name);

#endif
