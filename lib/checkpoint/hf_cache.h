/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* A model's folder: given as a path, or found by its id in the local Hugging Face cache. No network. */
#ifndef PGI_CHECKPOINT_HF_CACHE_H
#define PGI_CHECKPOINT_HF_CACHE_H

#include "base/memory.h"

/* *out is a new string (pgi_free). cache: a folder, NULL: as the environment says. As pg_checkpoint_find() in
 * paligemma.h. */
pg_status pgi_hf_cache_find(const pgi_memory *memory, const char *model, const char *cache, char **out);

#endif
