/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* `<image>` x N, bos, prompt and newline to ids, and the suffix; HF: PaliGemmaProcessor. */
#include "processor/layout.h"

#include <string.h>

#include "base/utf8.h"

static const pgi_text image_token = {"<image>", 7}; /* IMAGE_TOKEN of processing_paligemma.py */

/* The offset of the first `<image>` at or after `from`, or SIZE_MAX. */
static size_t find_image(pgi_text text, size_t from) {
    for (size_t at = from; at + image_token.size <= text.size; at++) {
        const char *found = memchr(text.data + at, image_token.data[0], text.size - image_token.size - at + 1);
        if (!found) break;
        at = (size_t)(found - text.data);
        if (memcmp(found, image_token.data, image_token.size) == 0) return at;
    }
    return SIZE_MAX;
}

int64_t pgi_layout_count_images(pgi_text text) {
    int64_t n = 0;
    for (size_t at = 0; (at = find_image(text, at)) != SIZE_MAX; at += image_token.size) n++;
    return n;
}

static pg_status append_images(pgi_buffer *text, int64_t n) {
    for (int64_t i = 0; i < n; i++) PGI_TRY(pgi_buffer_append(text, image_token.data, image_token.size));
    return PG_OK;
}

/* Where HF puts bos when some text of the batch has `<image>`: sample.rfind("<image>") + len("<image>") characters
 * into the text. For a text without one rfind() is -1, and bos comes after its first 6 characters. */
static size_t bos_offset(pgi_text prompt) {
    size_t end = SIZE_MAX, at = 0;
    while ((at = find_image(prompt, at)) != SIZE_MAX) end = at += image_token.size;
    if (end != SIZE_MAX) return end;
    size_t n = 0;
    for (end = 0; n < image_token.size - 1 && end < prompt.size; n++)
        end += pgi_utf8_next((const uint8_t *)prompt.data + end, prompt.size - end, NULL);
    return end;
}

/* `text` with each `<image>` n_image_tokens times. */
static pg_status append_expanded(pgi_text text, int32_t n_image_tokens, pgi_buffer *out) {
    size_t at = 0, found;
    for (; (found = find_image(text, at)) != SIZE_MAX; at = found + image_token.size) {
        PGI_TRY(pgi_buffer_append(out, text.data + at, found - at));
        PGI_TRY(append_images(out, n_image_tokens));
    }
    return pgi_buffer_append(out, text.data + at, text.size - at);
}

static pg_status check_utf8(pgi_text text, const char *name) {
    size_t valid = pgi_utf8_valid_prefix((const uint8_t *)text.data, text.size);
    if (valid == text.size) return PG_OK;
    return pgi_error(PG_ERROR_ARGUMENT, "the %s is not valid UTF-8: byte %zu is 0x%02X, expected UTF-8", name, valid,
                     (unsigned)(uint8_t)text.data[valid]);
}

/* Images and bos by their ids; prompt and newline are one text. */
static pg_status prefix_by_ids(const pgi_layout *layout, pgi_text prompt, int64_t n_images, pgi_buffer *text,
                               pgi_id_list *out) {
    int64_t image = pgi_tokenizer_special(layout->tokenizer, PGI_TOKEN_IMAGE);
    for (int64_t i = 0; i < n_images * layout->n_image_tokens; i++) PGI_TRY(pgi_id_list_push(out, image));
    PGI_TRY(pgi_id_list_push(out, pgi_tokenizer_special(layout->tokenizer, PGI_TOKEN_BOS)));
    PGI_TRY(pgi_buffer_append(text, prompt.data, prompt.size));
    PGI_TRY(pgi_buffer_append(text, "\n", 1));
    return pgi_tokenizer_tokenize(layout->tokenizer, (const char *)text->data, text->size,
                                  layout->literal ? PGI_LITERAL : PGI_PARSED, out);
}

/* HF tokenizes the whole as one string: a newline that ends the prompt and the layout's own can become one piece. */
static pg_status prefix_as_text(const pgi_layout *layout, const char *bos, pgi_text prompt, int64_t n_images,
                                pgi_buffer *text, pgi_id_list *out, uint32_t *events) {
    size_t cut = 0;
    if (layout->placed) {
        cut = bos_offset(prompt);
        if (cut > 0 && find_image(prompt, 0) == SIZE_MAX) *events |= PG_ROW_BOS_MISPLACED;
        PGI_TRY(append_expanded((pgi_text){prompt.data, cut}, layout->n_image_tokens, text));
    } else {
        PGI_TRY(append_images(text, n_images * layout->n_image_tokens));
    }
    PGI_TRY(pgi_buffer_append(text, bos, strlen(bos)));
    PGI_TRY(pgi_buffer_append(text, prompt.data + cut, prompt.size - cut));
    PGI_TRY(pgi_buffer_append(text, "\n", 1));
    return pgi_tokenizer_tokenize(layout->tokenizer, (const char *)text->data, text->size, PGI_PARSED, out);
}

/* Whether images and bos have the same ids whatever the prompt is. A literal prompt never touches them. A parsed one
 * does when the tokenizer has a longer token that begins with them (such as `<bos>a`), or a bos that takes white space
 * along: then the whole must be tokenized as one text, as HF does. */
static int goes_by_ids(const pgi_layout *layout) {
    const pgi_tokenizer *t = layout->tokenizer;
    if (layout->literal) return 1;
    return !layout->placed && pgi_added_tokens_stands_alone(&t->added, pgi_tokenizer_special(t, PGI_TOKEN_IMAGE)) &&
           pgi_added_tokens_stands_alone(&t->added, pgi_tokenizer_special(t, PGI_TOKEN_BOS));
}

pg_status pgi_layout_prefix(const pgi_layout *layout, pgi_text prompt, int64_t n_images, pgi_id_list *out,
                            uint32_t *events) {
    const pgi_tokenizer *tokenizer = layout->tokenizer;
    const char *bos = pgi_tokenizer_piece(tokenizer, pgi_tokenizer_special(tokenizer, PGI_TOKEN_BOS));
    pgi_buffer text;
    *events = 0;
    if (!bos) return pgi_error(PG_ERROR_UNSUPPORTED, "the tokenizer has no bos token");
    PGI_TRY(check_utf8(prompt, "prompt"));
    pgi_buffer_init(&text, out->memory);
    pg_status status = goes_by_ids(layout) ? prefix_by_ids(layout, prompt, n_images, &text, out)
                                           : prefix_as_text(layout, bos, prompt, n_images, &text, out, events);
    pgi_buffer_free(&text);
    if (status >= 0 && out->size > 0) {
        const char *last = pgi_tokenizer_piece(tokenizer, out->data[out->size - 1]);
        size_t size = last ? strlen(last) : 0;
        if (size > 1 && last[size - 1] == '\n') *events |= PG_ROW_NEWLINE_MERGED;
    }
    return status;
}

pg_status pgi_layout_suffix(const pgi_layout *layout, pgi_text suffix, int open, pgi_id_list *out) {
    const pgi_tokenizer *tokenizer = layout->tokenizer;
    int64_t eos_id = pgi_tokenizer_special(tokenizer, PGI_TOKEN_EOS);
    const char *eos = pgi_tokenizer_piece(tokenizer, eos_id);
    pgi_buffer text;
    if (!eos && !open) return pgi_error(PG_ERROR_UNSUPPORTED, "the tokenizer has no eos token");
    PGI_TRY(check_utf8(suffix, "suffix"));
    if (layout->literal) {
        PGI_TRY(pgi_tokenizer_tokenize(tokenizer, suffix.data, suffix.size, PGI_LITERAL, out));
        return open ? PG_OK : pgi_id_list_push(out, eos_id);
    }
    pgi_buffer_init(&text, out->memory);
    pg_status status = pgi_buffer_append(&text, suffix.data, suffix.size);
    if (status >= 0 && !open) status = pgi_buffer_append(&text, eos, strlen(eos));
    if (status >= 0) status = pgi_tokenizer_tokenize(tokenizer, (const char *)text.data, text.size, PGI_PARSED, out);
    pgi_buffer_free(&text);
    return status;
}
