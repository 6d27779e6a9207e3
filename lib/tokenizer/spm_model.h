/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The file format of sentencepiece: the protocol buffer ModelProto (sentencepiece_model.proto), of which only the
 * pieces are used. Read and checked here, so that no damaged file reaches sentencepiece; written here for the models
 * that bpe.c makes in memory.
 */
#ifndef PGI_TOKENIZER_SPM_MODEL_H
#define PGI_TOKENIZER_SPM_MODEL_H

#include "tokenizer/vocab.h"

/* ModelProto.SentencePiece.Type */
enum {
    PGI_PIECE_NORMAL = 1,
    PGI_PIECE_UNKNOWN,
    PGI_PIECE_CONTROL,
    PGI_PIECE_USER_DEFINED,
    PGI_PIECE_UNUSED,
    PGI_PIECE_BYTE
};

/* Puts the pieces into `vocab` (empty before) and a PGI_PIECE_* for each into `types`, one byte each. */
pg_status pgi_spm_model_read(const char *file, const uint8_t *bytes, size_t size, pgi_vocab *vocab, pgi_buffer *types);

/* A model is its pieces in the order of their ids, then the settings: BPE, the text taken as it is. */
pg_status pgi_spm_model_write_piece(pgi_buffer *out, const char *text, size_t size, float score, int type);
pg_status pgi_spm_model_write_settings(pgi_buffer *out, int byte_fallback);

#endif
