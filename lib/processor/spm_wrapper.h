/*
 * sentencepiece behind C: the only place where C++ is spoken. No exception
 * leaves it and nothing is written to stderr.
 */
#ifndef PGI_PROCESSOR_SPM_WRAPPER_H
#define PGI_PROCESSOR_SPM_WRAPPER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pgi_spm pgi_spm;

/* A serialised ModelProto. Returns NULL and writes the reason to `reason` on failure. */
pgi_spm *pgi_spm_open(const void *bytes, size_t size, char *reason, size_t reason_size);
void pgi_spm_close(pgi_spm *spm);

int32_t pgi_spm_n_pieces(const pgi_spm *spm);
const char *pgi_spm_piece(const pgi_spm *spm, int32_t id);          /* valid until close */
int32_t pgi_spm_piece_id(const pgi_spm *spm, const char *piece);    /* unk when unknown */
int pgi_spm_is_control(const pgi_spm *spm, int32_t id);
int pgi_spm_is_byte(const pgi_spm *spm, int32_t id);
int pgi_spm_is_unknown(const pgi_spm *spm, int32_t id);
int32_t pgi_spm_pad_id(const pgi_spm *spm); /* -1: none; the same below */
int32_t pgi_spm_eos_id(const pgi_spm *spm);
int32_t pgi_spm_bos_id(const pgi_spm *spm);
int32_t pgi_spm_unk_id(const pgi_spm *spm);

/* The ids of a text (may hold NUL bytes); *ids is from malloc(), released with pgi_spm_free_ids(). 0: success. */
int pgi_spm_encode(const pgi_spm *spm, const char *text, size_t size, int32_t **ids, size_t *n_ids);
void pgi_spm_free_ids(int32_t *ids);

#ifdef __cplusplus
}
#endif

#endif
