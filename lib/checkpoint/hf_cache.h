/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* A model's folder: given as a path, or found by its id in the local Hugging Face cache. No network. */
#ifndef PGI_CHECKPOINT_HF_CACHE_H
#define PGI_CHECKPOINT_HF_CACHE_H

#include "base/memory.h"

/* *out is a new string (pgi_free). cache: a folder, NULL: as the environment says. As pg_checkpoint_find() in
 * paligemma.h. */
pg_status pgi_hf_cache_find(const pgi_memory *memory, const char *model, const char *cache, char **out);

/* PG_OK when the file at `path` lies in `folder` once all links are followed, or, for a folder SNAPSHOTS/REVISION of
 * the cache, in the blobs beside SNAPSHOTS. PG_ERROR_UNSUPPORTED: a link leads out; the message says where to. For
 * files that are copied as they are: a stranger's folder must not carry a file of the user's along. */
pg_status pgi_hf_cache_check_inside(const char *folder, const char *path);

#endif
