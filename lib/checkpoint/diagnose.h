/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * What a file or folder is that does not fit, and what to do with it. Called where an error is known already: each
 * function gets its status, and either puts a better message in its place or leaves status and message as they are.
 * Only PG_ERROR_NOT_FOUND, _FORMAT, _UNSUPPORTED and _ARGUMENT are looked into. A message of this module is one
 * sentence: what was found, a semicolon, what to do.
 */
#ifndef PGI_CHECKPOINT_DIAGNOSE_H
#define PGI_CHECKPOINT_DIAGNOSE_H

#include <jansson.h>

#include "base/memory.h"

#define PGI_DIAGNOSE_MERGE_ADAPTER \
    "load both with peft's PeftModel.from_pretrained(), save merge_and_unload() with save_pretrained() and open that"
#define PGI_DIAGNOSE_OPEN_ORIGINAL "give the folder of the Hugging Face checkpoint that it was made from"
#define PGI_DIAGNOSE_SAVE_AGAIN "save it with save_pretrained() of transformers and open that"

/* Whether this module looks into an error of this status. */
int pgi_diagnose_helps(pg_status status);

/* A file by its first bytes: Git LFS pointers (PG_ERROR_FORMAT), HTML pages and byte order marks (likewise), GGUF,
 * pickle, NumPy and others (PG_ERROR_UNSUPPORTED). */
pg_status pgi_diagnose_bytes(pg_status status, const char *path, const void *data, size_t size);
/* What may stand in the place of any file alone: pointers, pages, byte order marks, gzip. */
pg_status pgi_diagnose_other_file(pg_status status, const char *path, const void *data, size_t size);
/* As pgi_diagnose_bytes(), for a file that is not in memory. */
pg_status pgi_diagnose_file(pg_status status, const char *path);

/* A folder without config.json, weights or tokenizer, by the names in it: adapters, other formats, a folder of the hub
 * cache or of a Trainer one level too high. */
pg_status pgi_diagnose_folder(pg_status status, const pgi_memory *memory, const char *folder);

/* A config.json, parsed: PG_OK, or PG_ERROR_UNSUPPORTED when it says that the weights are quantized by others (MLX,
 * bitsandbytes, GPTQ, AWQ, ...). `path` is for the message. */
pg_status pgi_diagnose_quantized(const char *path, const json_t *config);
/* The like for its model_type, which is not ours: PG_ERROR_UNSUPPORTED. */
pg_status pgi_diagnose_model_type(const char *path, const char *type);

#endif
