/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* config.json with the defaults of the HF config classes filled in. */
#ifndef PGI_CHECKPOINT_CONFIG_RESOLVE_H
#define PGI_CHECKPOINT_CONFIG_RESOLVE_H

#include "checkpoint/json.h"

/*
 * *out: what PaliGemmaConfig.from_dict(raw).to_dict() of transformers 5.23 gives; lives in `doc`, as raw does;
 * transformers_version stays the file's. `path` is for messages. PG_ERROR_UNSUPPORTED for other model types and for
 * config features that change the network in ways we do not run.
 */
pg_status pgi_config_resolve(pgi_json_doc *doc, const char *path, const pgi_json *raw, pgi_json *out);

#endif
