/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Byte pair encoding: by the list of merges (bpe_list.c) or, on request, by sentencepiece. */
#include "tokenizer/bpe.h"

#include "tokenizer/bpe_list.h"
#ifdef PGI_SENTENCEPIECE
#include "tokenizer/bpe_sentencepiece.h"
#endif

struct pgi_bpe {
    const pgi_memory *memory;
    size_t n_pieces;
    struct pgi_spm *spm; /* NULL: the list is followed */
    pgi_bpe_list list;   /* unused with spm */
};

pg_status pgi_bpe_create(const pgi_memory *memory, const pgi_vocab *vocab, size_t n_pieces, const pgi_merges *merges,
                         const pgi_bpe_settings *settings, pgi_bpe **out) {
    pg_status status = PG_OK;
    pgi_bpe *bpe = pgi_alloc_zero(memory, 1, sizeof *bpe);
    *out = NULL;
    if (!bpe) return PG_ERROR_MEMORY;
    bpe->memory = memory;
    bpe->n_pieces = n_pieces;
#ifdef PGI_SENTENCEPIECE
    if (settings->by_sentencepiece)
        PGI_GOTO(pgi_bpe_sentencepiece_open(memory, vocab, n_pieces, merges, settings, &bpe->spm), fail);
#endif
    if (!bpe->spm) PGI_GOTO(pgi_bpe_list_init(&bpe->list, memory, vocab, n_pieces, merges, settings), fail);
    *out = bpe;
    return PG_OK;
fail:
    pgi_bpe_close(&bpe);
    return status;
}

void pgi_bpe_close(pgi_bpe **bpe) {
    if (!*bpe) return;
#ifdef PGI_SENTENCEPIECE
    pgi_spm_close((*bpe)->spm);
#endif
    pgi_bpe_list_free(&(*bpe)->list);
    pgi_free((*bpe)->memory, *bpe);
    *bpe = NULL;
}

int pgi_bpe_uses_sentencepiece(const pgi_bpe *bpe) { return bpe->spm != NULL; }

pg_status pgi_bpe_encode(const pgi_bpe *bpe, const char *text, size_t size, pgi_id_list *out) {
    if (size == 0) return PG_OK;
#ifdef PGI_SENTENCEPIECE
    if (bpe->spm) return pgi_bpe_sentencepiece_encode(bpe->spm, bpe->n_pieces, text, size, out);
#endif
    return pgi_bpe_list_encode(&bpe->list, text, size, out);
}
