/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* config.json with the defaults of the HF config classes filled in. */
#ifndef PGI_CHECKPOINT_CONFIG_RESOLVE_H
#define PGI_CHECKPOINT_CONFIG_RESOLVE_H

#include "checkpoint/json.h"

/*
 * *out: what PaliGemmaConfig.from_dict(raw).to_dict() of transformers 5.23 gives (json_decref() it);
 * transformers_version stays the file's. `path` is for messages. PG_ERROR_UNSUPPORTED for other model types and for
 * config features that change the network in ways we do not run.
 */
pg_status pgi_config_resolve(const char *path, const json_t *raw, json_t **out);

#endif
