/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * What a file is that does not fit, and what to do with it. Called where an error is known already: each function gets
 * its status, and either puts a better message in its place or leaves status and message as they are. Only
 * PG_ERROR_NOT_FOUND, _FORMAT, _UNSUPPORTED and _ARGUMENT are looked into. A message of this module is one sentence:
 * what was found, a semicolon, what to do.
 */
#ifndef PGI_CHECKPOINT_DIAGNOSE_FILE_H
#define PGI_CHECKPOINT_DIAGNOSE_FILE_H

#include <stddef.h>

#include "base/status.h"

#define PGI_DIAGNOSE_OPEN_ORIGINAL "give the folder of the Hugging Face checkpoint that it was made from"
#define PGI_DIAGNOSE_SAVE_AGAIN "save it with save_pretrained() of transformers and open that"

/* Whether this module looks into an error of this status. */
int pgi_diagnose_helps(pg_status status);

/* Whether a file's name ends so. */
int pgi_diagnose_ends_in(const char *name, const char *end);

/* A file by its first bytes: Git LFS pointers (PG_ERROR_FORMAT), HTML pages and byte order marks (likewise), GGUF,
 * pickle, NumPy and others (PG_ERROR_UNSUPPORTED). */
pg_status pgi_diagnose_bytes(pg_status status, const char *path, const void *data, size_t size);
/* What may stand in the place of any file alone: pointers, pages, byte order marks, gzip. */
pg_status pgi_diagnose_other_file(pg_status status, const char *path, const void *data, size_t size);
/* As pgi_diagnose_bytes(), for a file that is not in memory. */
pg_status pgi_diagnose_file(pg_status status, const char *path);

#endif
