/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The tokenizer for a test script: tokenize_lines FOLDER [sentencepiece]
 * One request a line, texts in hexadecimal (they may hold anything), one answer a line:
 *   e TEXT     ids of a text           d IDS...  text of ids
 *   l TEXT     likewise, literally     s IDS...  likewise, special tokens skipped
 *   p N TEXT   the prompt layout       q N TEXT  likewise, literally
 *   i          source, whether sentencepiece is used, number of ids, special ids
 * d and s decode by pieces too and answer "differs" when that gives another text or splits a character.
 * "sentencepiece": merge by it where it is exact. A failed request answers "! message".
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "processor/layout.h"
#include "tokenizer/stream_decoder.h"
#include "tokenizer/tokenizer_load.h"

static size_t from_hex(char *hex) {
    size_t n = 0;
    for (; hex[2 * n] && hex[2 * n + 1]; n++) {
        char pair[3] = {hex[2 * n], hex[2 * n + 1], 0};
        hex[n] = (char)strtol(pair, NULL, 16);
    }
    hex[n] = 0;
    return n;
}

static pg_status decode(const pgi_tokenizer *tokenizer, const pgi_id_list *ids, int skip, pgi_buffer *out) {
    pgi_stream_decoder decoder;
    pgi_buffer text;
    int differs = 0;
    pgi_buffer_init(&text, &pgi_memory_default);
    pgi_stream_decoder_init(&decoder, tokenizer, skip);
    pg_status status = PG_OK;
    for (size_t i = 0; i <= ids->size && status >= 0; i++) {
        size_t before = text.size;
        status = i < ids->size ? pgi_stream_decoder_push(&decoder, ids->data[i], &text)
                               : pgi_stream_decoder_flush(&decoder, &text);
        if (text.size > before)
            differs |= pgi_utf8_valid_prefix(text.data + before, text.size - before) != text.size - before;
    }
    if (status >= 0) status = pgi_tokenizer_decode(tokenizer, ids->data, ids->size, skip, out);
    if (text.size != out->size || (text.size && memcmp(text.data, out->data, text.size) != 0)) differs = 1;
    if (differs) printf("differs ");
    pgi_stream_decoder_free(&decoder);
    pgi_buffer_free(&text);
    return status;
}

static void answer(const pgi_tokenizer *tokenizer, char *line) {
    pgi_id_list ids;
    pgi_buffer text;
    pg_status status = PG_OK;
    char op = line[0], *rest = line + (line[1] ? 2 : 1);
    pgi_id_list_init(&ids, &pgi_memory_default);
    pgi_buffer_init(&text, &pgi_memory_default);
    if (op == 'e' || op == 'l') {
        size_t size = from_hex(rest);
        status = pgi_tokenizer_tokenize(tokenizer, rest, size, op == 'l', &ids);
    } else if (op == 'p' || op == 'q') {
        long n = strtol(rest, &rest, 10);
        size_t size = from_hex(rest += *rest == ' ');
        pgi_text prompt = {rest, size};
        pgi_layout layout = {tokenizer, (int32_t)n, op == 'q', op == 'p' && pgi_layout_count_images(prompt) > 0};
        uint32_t events;
        status = pgi_layout_prefix(&layout, prompt, 1, &ids, &events);
    } else if (op == 'd' || op == 's') {
        for (char *end; *rest && (end = rest, pgi_id_list_push(&ids, strtoll(rest, &end, 10)) >= 0); rest = end) {
        }
        status = decode(tokenizer, &ids, op == 's', &text);
        ids.size = 0;
    } else if (op == 'i') {
        printf("%d %d %lld", tokenizer->source, pgi_bpe_uses_sentencepiece(tokenizer->bpe),
               (long long)pgi_tokenizer_n_ids(tokenizer));
        for (int i = 0; i < PGI_N_SPECIALS; i++) printf(" %lld", (long long)pgi_tokenizer_special(tokenizer, i));
    }
    if (status < 0) printf("! %s", pgi_error_text());
    for (size_t i = 0; i < ids.size && status >= 0; i++) printf(i ? " %lld" : "%lld", (long long)ids.data[i]);
    for (size_t i = 0; i < text.size && status >= 0; i++) printf("%02x", text.data[i]);
    printf("\n");
    pgi_id_list_free(&ids);
    pgi_buffer_free(&text);
}

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    pgi_tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
    if (!tokenizer) return 1;
    tokenizer->memory = pgi_memory_default;
    pg_status status = pgi_tokenizer_load(tokenizer, argv[1], argc > 2 ? PG_PROCESSOR_SENTENCEPIECE : 0, NULL);
    if (status < 0) printf("! %s\n", pgi_error_text());
    char *line = NULL;
    size_t capacity = 0;
    for (ssize_t n; status >= 0 && (n = getline(&line, &capacity, stdin)) > 0;) {
        if (line[n - 1] == '\n') line[n - 1] = 0;
        answer(tokenizer, line);
    }
    free(line);
    pgi_bpe_close(&tokenizer->bpe);
    pgi_added_tokens_free(&tokenizer->added);
    pgi_vocab_free(&tokenizer->vocab);
    free(tokenizer);
    return status < 0;
}
