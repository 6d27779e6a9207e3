#include "processor/big_vision.h"

/* The id of a special token that the layout needs. */
static pg_status special(const pgi_tokenizer *tokenizer, int which, const char *name, int64_t *id) {
    *id = pgi_tokenizer_special(tokenizer, which);
    if (*id >= 0) return PG_OK;
    return pgi_error(PG_ERROR_UNSUPPORTED, "the tokenizer has no %s token, expected one for this layout", name);
}

static pg_status append_text(const pgi_tokenizer *tokenizer, const char *name, const char *text, size_t size,
                             pgi_id_list *out) {
    pg_status status = pgi_tokenizer_encode(tokenizer, text, size, PGI_LITERAL_CONTROL, out);
    return status < 0 ? pgi_error_context(status, "%s", name) : PG_OK;
}

pg_status pgi_big_vision_layout(const pgi_tokenizer *tokenizer, int32_t n_image_tokens, int32_t n_images,
                                const char *prompt, size_t prompt_size, const char *suffix, size_t suffix_size,
                                int open, pgi_id_list *out, int64_t *n_prefix) {
    int64_t image = -1, bos, eos = -1, n = (int64_t)n_image_tokens * n_images;
    int needs_eos = suffix && !open;
    size_t first = out->size;
    if (n_image_tokens < 0 || n_images < 0)
        return pgi_error(PG_ERROR_ARGUMENT, "layout: found %d images of %d tokens, expected none below 0", n_images,
                         n_image_tokens);
    if (n > 0) PGI_TRY(special(tokenizer, PGI_TOKEN_IMAGE, "<image>", &image));
    PGI_TRY(special(tokenizer, PGI_TOKEN_BOS, "bos", &bos));
    if (needs_eos) PGI_TRY(special(tokenizer, PGI_TOKEN_EOS, "eos", &eos));

    for (int64_t i = 0; i < n; i++) PGI_TRY(pgi_id_list_push(out, image));
    PGI_TRY(pgi_id_list_push(out, bos));
    if (prompt) PGI_TRY(append_text(tokenizer, "prompt", prompt, prompt_size, out));
    PGI_TRY(append_text(tokenizer, "newline", "\n", 1, out));
    *n_prefix = (int64_t)(out->size - first);
    if (suffix) PGI_TRY(append_text(tokenizer, "suffix", suffix, suffix_size, out));
    return needs_eos ? pgi_id_list_push(out, eos) : PG_OK;
}
