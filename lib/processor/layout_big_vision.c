/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The text of one row to ids in PG_MODE_BIG_VISION. */
#include "processor/layout_big_vision.h"

/* The id of a special token that the layout needs. */
static pg_status special(const pgi_tokenizer *tokenizer, int which, const char *name, int64_t *id) {
    *id = pgi_tokenizer_special(tokenizer, which);
    if (*id >= 0) return PG_OK;
    return pgi_error(PG_ERROR_UNSUPPORTED, "the tokenizer has no %s token, expected one for this layout", name);
}

static pg_status append_text(const pgi_tokenizer *tokenizer, const char *name, pgi_text text, pgi_id_list *out) {
    pg_status status = pgi_tokenizer_tokenize(tokenizer, text.data, text.size, PGI_LITERAL_CONTROL, out);
    return status < 0 ? pgi_error_context(status, "%s", name) : PG_OK;
}

pg_status pgi_layout_big_vision(const pgi_layout *layout, const pgi_big_vision_row *row, pgi_id_list *out,
                                int64_t *n_prefix) {
    const pgi_tokenizer *tokenizer = layout->tokenizer;
    int64_t image = -1, bos, eos = -1, n = (int64_t)layout->n_image_tokens * row->n_images;
    int needs_eos = row->suffix.data && !row->open;
    size_t first = out->size;
    if (layout->n_image_tokens < 0 || row->n_images < 0)
        return pgi_error(PG_ERROR_ARGUMENT, "layout: found %d images of %d tokens, expected none below 0",
                         row->n_images, layout->n_image_tokens);
    if (n > 0) PGI_TRY(special(tokenizer, PGI_TOKEN_IMAGE, "<image>", &image));
    PGI_TRY(special(tokenizer, PGI_TOKEN_BOS, "bos", &bos));
    if (needs_eos) PGI_TRY(special(tokenizer, PGI_TOKEN_EOS, "eos", &eos));

    for (int64_t i = 0; i < n; i++) PGI_TRY(pgi_id_list_push(out, image));
    PGI_TRY(pgi_id_list_push(out, bos));
    if (row->prompt.data) PGI_TRY(append_text(tokenizer, "prompt", row->prompt, out));
    PGI_TRY(append_text(tokenizer, "newline", (pgi_text){"\n", 1}, out));
    *n_prefix = (int64_t)(out->size - first);
    if (row->suffix.data) PGI_TRY(append_text(tokenizer, "suffix", row->suffix, out));
    return needs_eos ? pgi_id_list_push(out, eos) : PG_OK;
}
