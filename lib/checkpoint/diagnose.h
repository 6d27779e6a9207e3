/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * What a folder or a config is that does not fit, and what to do with it; diagnose_file.h says the same of one file,
 * and how these functions are called.
 */
#ifndef PGI_CHECKPOINT_DIAGNOSE_H
#define PGI_CHECKPOINT_DIAGNOSE_H

#include "checkpoint/diagnose_file.h"
#include "checkpoint/json.h"

/* A folder without config.json, weights or tokenizer, by the names in it: adapters, other formats, a folder of the hub
 * cache or of a Trainer one level too high. */
pg_status pgi_diagnose_folder(pg_status status, const pgi_memory *memory, const char *folder);

/* A config.json, parsed: PG_OK, or PG_ERROR_UNSUPPORTED when it says that the weights are quantized by others (MLX,
 * bitsandbytes, GPTQ, AWQ, ...). `path` is for the message. */
pg_status pgi_diagnose_quantized(const char *path, const pgi_json *config);
/* The like for its model_type, which is not ours: PG_ERROR_UNSUPPORTED. */
pg_status pgi_diagnose_model_type(const char *path, const char *type);

#endif
