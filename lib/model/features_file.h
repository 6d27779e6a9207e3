/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Features as bytes, in a file or in the host's own store (docs/FORMATS.md): a safetensors file with one tensor,
 * "features", F32 [n_images, n_patches, hidden], and in "__metadata__", strings by name:
 *
 *     format           "libpaligemma-features"
 *     layout_version   "1": PGI_FEATURES_VERSION
 *     model            16 hexadecimal digits: pgi_model_features_hash()
 *     weights          "stored", "int8" or "int4": of the model
 *     arithmetic       "f32", "bf16 attention" or "bf16": likewise
 *     crc32:features   of the data
 *     header_crc32     of the 8 bytes of size and the header, these 8 digits taken as 00000000
 */
#ifndef PGI_MODEL_FEATURES_FILE_H
#define PGI_MODEL_FEATURES_FILE_H

#include "model/features.h"

enum { PGI_FEATURES_VERSION = 1 };

/* All that stands before the data. */
pg_status pgi_features_header(const pg_features *features, pgi_buffer *out);
/* The file `path` becomes them, whole or not at all. */
pg_status pgi_features_save(const pg_features *features, const char *path);

/* Features of `model` from a file, or from `size` bytes. Nothing is allocated for sizes that the file does not have.
 * PG_ERROR_FORMAT, _UNSUPPORTED (a newer layout), _ARGUMENT (of another model), _IO, _NOT_FOUND, _MEMORY. */
pg_status pgi_features_load(const pg_model *model, const char *path, pg_features **out);
pg_status pgi_features_from_bytes(const pg_model *model, const void *bytes, size_t size, pg_features **out);

#endif
