/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * sentencepiece behind a C interface. No exception leaves it and nothing is written to
 * stderr (the models it is given are made by bpe.c and sound, so sentencepiece finds nothing to complain about).
 */
#ifndef PGI_TOKENIZER_SPM_WRAPPER_H
#define PGI_TOKENIZER_SPM_WRAPPER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pgi_spm pgi_spm;

enum { PGI_SPM_OK = 0, PGI_SPM_MEMORY = 1, PGI_SPM_REFUSED = 2 };

/* 0: another library of the process, such as TensorFlow's, exports protobuf too and was found first. sentencepiece's
 * calls of its own copy would then end in that one and crash, so nothing here may be called. */
int pgi_spm_usable(void);

/* A serialized ModelProto. On failure *out is NULL and `reason` says why. */
int pgi_spm_open(const void *bytes, size_t size, pgi_spm **out, char *reason, size_t reason_size);
void pgi_spm_close(pgi_spm *spm); /* NULL is ignored */

/* The ids of a text (valid UTF-8, may hold NUL); *ids is released with pgi_spm_free_ids().
 * Any number of threads may encode at a time. */
int pgi_spm_encode(const pgi_spm *spm, const char *text, size_t size, int32_t **ids, size_t *n_ids, char *reason,
                   size_t reason_size);
void pgi_spm_free_ids(int32_t *ids);

#ifdef __cplusplus
}
#endif

#endif
