#include "processor/layout.h"

#include <string.h>

#include "base/utf8.h"

static const char image_token[] = "<image>"; /* IMAGE_TOKEN of processing_paligemma.py */

/* `<image>` n times. */
static pg_status append_images(pgi_buffer *text, int32_t n) {
    for (int32_t i = 0; i < n; i++) PGI_TRY(pgi_buffer_append(text, image_token, strlen(image_token)));
    return PG_OK;
}

/* The prompt with its own `<image>` tokens: bos after the last, each n_image_tokens times. */
static pg_status expand(const char *prompt, const char *bos, int32_t n_image_tokens, pgi_buffer *text, int32_t *n) {
    const char *last = NULL, *at = prompt, *found;
    while ((found = strstr(at, image_token))) {
        PGI_TRY(pgi_buffer_append(text, at, (size_t)(found - at)));
        PGI_TRY(append_images(text, n_image_tokens));
        at = last = found + strlen(image_token);
        ++*n;
    }
    if (!last) { /* the usual case: one picture in front */
        PGI_TRY(append_images(text, n_image_tokens));
        *n = 1;
    }
    PGI_TRY(pgi_buffer_append(text, bos, strlen(bos)));
    return pgi_buffer_append(text, at, strlen(at));
}

/* The parts by their ids, so that nothing in the prompt can be taken for one of them. */
static pg_status layout_literal(const pgi_tokenizer *tokenizer, int32_t n_image_tokens, const char *prompt,
                                pgi_ids *out) {
    pgi_buffer text;
    pg_status status;
    pgi_buffer_init(&text, out->memory);
    for (int32_t i = 0; i < n_image_tokens; i++)
        PGI_GOTO(pgi_ids_push(out, pgi_tokenizer_special(tokenizer, PGI_TOKEN_IMAGE)), done);
    PGI_GOTO(pgi_ids_push(out, pgi_tokenizer_special(tokenizer, PGI_TOKEN_BOS)), done);
    PGI_GOTO(pgi_buffer_printf(&text, "%s\n", prompt), done);
    status = pgi_tokenizer_encode(tokenizer, (const char *)text.data, text.size, 1, out);
done:
    pgi_buffer_free(&text);
    return status;
}

pg_status pgi_layout_prompt(const pgi_tokenizer *tokenizer, int32_t n_image_tokens, const char *prompt, int literal,
                            pgi_ids *out, int32_t *n_images) {
    const char *bos = pgi_tokenizer_piece(tokenizer, pgi_tokenizer_special(tokenizer, PGI_TOKEN_BOS));
    int32_t n = literal ? 1 : 0;
    if (!bos) return pgi_error(PG_ERROR_UNSUPPORTED, "the tokenizer has no bos token");
    if (!prompt) prompt = "";
    size_t size = strlen(prompt), valid = pgi_utf8_valid_prefix((const uint8_t *)prompt, size);
    if (valid < size)
        return pgi_error(PG_ERROR_ARGUMENT, "the prompt is not valid UTF-8: byte %zu is 0x%02X", valid,
                         (unsigned)(uint8_t)prompt[valid]);
    pg_status status;
    if (literal) {
        status = layout_literal(tokenizer, n_image_tokens, prompt, out);
    } else {
        /* HF tokenises the whole as one string: a newline that ends the prompt and ours can become one piece. */
        pgi_buffer text;
        pgi_buffer_init(&text, out->memory);
        PGI_GOTO(expand(prompt, bos, n_image_tokens, &text, &n), done);
        PGI_GOTO(pgi_buffer_append(&text, "\n", 1), done);
        status = pgi_tokenizer_encode(tokenizer, (const char *)text.data, text.size, 0, out);
    done:
        pgi_buffer_free(&text);
    }
    if (n_images) *n_images = n;
    return status;
}
