/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing the header of a safetensors file, which tensor_header.h reads: _begin(), `{"__metadata__":{...}` by the
 * caller, each tensor, `}` by the caller, _finish().
 */
#ifndef PGI_CHECKPOINT_TENSOR_HEADER_TEXT_H
#define PGI_CHECKPOINT_TENSOR_HEADER_TEXT_H

#include "base/memory.h"

/* Empties `text` and leaves room for the 8 bytes of size. */
pg_status pgi_header_text_begin(pgi_buffer *text);
/* A comma, and `prefix` and the name together as a JSON string. prefix: nothing in it wants escaping. */
pg_status pgi_header_text_key(pgi_buffer *text, const char *prefix, const char *name);
/* A comma and the entry of a tensor. begin, end: of its bytes, from where the data begin. */
pg_status pgi_header_text_tensor(pgi_buffer *text, const char *name, const char *dtype, int32_t n_dims,
                                 const int64_t *shape, uint64_t begin, uint64_t end);
/* Pads it, so that the data begin at a multiple of 64, and puts its size in front. */
pg_status pgi_header_text_finish(pgi_buffer *text);

#endif
