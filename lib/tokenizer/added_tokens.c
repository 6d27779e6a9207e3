/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The added tokens of a tokenizer, and cutting a text at them with a tree of bytes (HF: tokenizers,
 * added_vocabulary.rs).
 */
#include "tokenizer/added_tokens.h"

#include <string.h>

#include "base/utf8.h"

void pgi_added_tokens_init(pgi_added_tokens *tokens, const pgi_memory *memory) {
    *tokens = (pgi_added_tokens){.memory = memory};
}

void pgi_added_tokens_free(pgi_added_tokens *tokens) {
    if (!tokens->memory) return;
    pgi_free(tokens->memory, tokens->data);
    pgi_free(tokens->memory, tokens->by_id);
    pgi_free(tokens->memory, tokens->special);
    pgi_free(tokens->memory, tokens->raw.nodes);
    pgi_free(tokens->memory, tokens->normalized.nodes);
    *tokens = (pgi_added_tokens){.memory = tokens->memory};
}

const pgi_added_token *pgi_added_tokens_of(const pgi_added_tokens *tokens, int64_t id) {
    if (id < 0 || (uint64_t)id >= tokens->n_ids || !tokens->by_id[id]) return NULL;
    return &tokens->data[tokens->by_id[id] - 1];
}

int pgi_added_tokens_is_special(const pgi_added_tokens *tokens, int64_t id) {
    return id >= 0 && (uint64_t)id < tokens->n_ids && (tokens->special[id] & PGI_LITERAL) != 0;
}

void pgi_added_tokens_set_control(pgi_added_tokens *tokens, int64_t id) {
    if (id >= 0 && (uint64_t)id < tokens->n_ids) tokens->special[id] |= PGI_LITERAL_CONTROL;
}

/* Both arrays have n_ids elements; when only the first could grow, its new elements are not counted. */
static pg_status grow_ids(pgi_added_tokens *tokens, size_t needed) {
    size_t n = tokens->n_ids, capacity = n, same = n;
    PGI_TRY(pgi_grow(tokens->memory, &tokens->by_id, &capacity, needed, sizeof *tokens->by_id));
    PGI_TRY(pgi_grow(tokens->memory, &tokens->special, &same, needed, sizeof *tokens->special));
    memset(tokens->by_id + n, 0, (capacity - n) * sizeof *tokens->by_id);
    memset(tokens->special + n, 0, (capacity - n) * sizeof *tokens->special);
    tokens->n_ids = capacity;
    return PG_OK;
}

pg_status pgi_added_tokens_add(pgi_added_tokens *tokens, pgi_vocab *vocab, const char *text, size_t size,
                               pgi_token_flags flags, const char *file) {
    if (size == 0) return PG_OK; /* as HF does */
    if (flags.single_word)
        return pgi_error(PG_ERROR_UNSUPPORTED, "%s: the added token \"%.60s\" has single_word true, expected false",
                         file, text);
    int64_t id = pgi_vocab_find(vocab, text, size);
    if (id < 0) {
        id = (int64_t)vocab->n;
        PGI_TRY(pgi_vocab_put(vocab, vocab->n, text, size, file, "added tokens"));
    }
    if ((size_t)id >= tokens->n_ids) PGI_TRY(grow_ids(tokens, (size_t)id + 1));
    if (!tokens->by_id[id]) {
        PGI_TRY(pgi_grow(tokens->memory, &tokens->data, &tokens->capacity, tokens->n + 1, sizeof *tokens->data));
        tokens->by_id[id] = (uint32_t)++tokens->n;
    }
    tokens->data[tokens->by_id[id] - 1] = (pgi_added_token){.id = id, .flags = flags};
    if (flags.special) tokens->special[id] |= PGI_LITERAL;
    return PG_OK;
}

/* The child of `node` for `byte`, or 0. */
static int32_t child_of(const pgi_trie *trie, int32_t node, uint8_t byte) {
    if (node == 0) return trie->first[byte];
    int32_t child = trie->nodes[node].child;
    while (child && trie->nodes[child].byte != byte) child = trie->nodes[child].sibling;
    return child;
}

static pg_status trie_add(const pgi_memory *memory, pgi_trie *trie, const uint8_t *text, size_t size, int32_t token) {
    int32_t node = 0;
    if (trie->n + size >= INT32_MAX / 2) return pgi_error(PG_ERROR_LIMIT, "added tokens of more than 1 GiB");
    PGI_TRY(pgi_grow(memory, &trie->nodes, &trie->capacity, trie->n + size + 1, sizeof *trie->nodes));
    if (trie->n == 0) trie->nodes[trie->n++] = (pgi_trie_node){.token = -1};
    for (size_t i = 0; i < size; i++) {
        int32_t next = child_of(trie, node, text[i]);
        if (!next) {
            next = (int32_t)trie->n++;
            trie->nodes[next] = (pgi_trie_node){.sibling = trie->nodes[node].child, .token = -1, .byte = text[i]};
            if (node == 0)
                trie->first[text[i]] = next;
            else
                trie->nodes[node].child = next;
        }
        node = next;
    }
    if (trie->nodes[node].token < 0) trie->nodes[node].token = token;
    return PG_OK;
}

pg_status pgi_added_tokens_replace_spaces(const char *text, size_t size, pgi_buffer *out) {
    while (size) {
        const char *space = memchr(text, ' ', size);
        size_t n = space ? (size_t)(space - text) : size;
        PGI_TRY(pgi_buffer_append(out, text, n));
        if (!space) return PG_OK;
        PGI_TRY(pgi_buffer_append(out, "\xE2\x96\x81", 3));
        text += n + 1;
        size -= n + 1;
    }
    return PG_OK;
}

pg_status pgi_added_tokens_finish(pgi_added_tokens *tokens, const pgi_vocab *vocab, int replace_spaces,
                                  const char *file) {
    pgi_buffer text;
    pg_status status = PG_OK;
    pgi_buffer_init(&text, tokens->memory);
    for (size_t i = 0; i < tokens->n && status >= 0; i++) {
        size_t size;
        const pgi_added_token *token = &tokens->data[i];
        const char *content = pgi_vocab_text(vocab, (size_t)token->id, &size);
        if (token->flags.normalized && replace_spaces) {
            text.size = 0;
            PGI_GOTO(pgi_added_tokens_replace_spaces(content, size, &text), done);
            content = (const char *)text.data;
            size = text.size;
        }
        status = trie_add(tokens->memory, token->flags.normalized ? &tokens->normalized : &tokens->raw,
                          (const uint8_t *)content, size, (int32_t)i);
    }
done:
    pgi_buffer_free(&text);
    return status < 0 ? pgi_error_context(status, "%s", file) : status;
}

/* The longest token that begins at text[at], or -1; *end receives where it ends. */
static int32_t match(const pgi_trie *trie, const uint8_t *text, size_t size, size_t at, size_t *end) {
    int32_t node = 0, found = -1;
    for (size_t i = at; i < size; i++) {
        node = child_of(trie, node, text[i]);
        if (!node) break;
        if (trie->nodes[node].token >= 0) {
            found = trie->nodes[node].token;
            *end = i + 1;
        }
    }
    return found;
}

int pgi_added_tokens_stands_alone(const pgi_added_tokens *tokens, const pgi_vocab *vocab, int64_t id) {
    const pgi_added_token *token = pgi_added_tokens_of(tokens, id);
    if (!token || token->flags.normalized || token->flags.lstrip || token->flags.rstrip) return 0;
    size_t size;
    const char *text = pgi_vocab_text(vocab, (size_t)id, &size);
    int32_t node = 0;
    for (size_t i = 0; i < size; i++)
        if (!(node = child_of(&tokens->raw, node, (uint8_t)text[i]))) return 0;
    return tokens->raw.nodes[node].child == 0;
}

/* White_Space of the Unicode character database: \s of Rust's regex. */
static int is_space(uint32_t c) {
    return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

/* Where the white space before `at` begins, but not before `limit`. */
static size_t space_before(const uint8_t *text, size_t limit, size_t at) {
    while (at > limit) {
        size_t begin = at;
        uint32_t code = 0;
        while (begin > limit && (text[--begin] & 0xC0) == 0x80) {
        }
        if (pgi_utf8_next(text + begin, at - begin, &code) != at - begin || !is_space(code)) return at;
        at = begin;
    }
    return at;
}

static size_t space_after(const uint8_t *text, size_t size, size_t at) {
    uint32_t code;
    for (size_t n; (n = pgi_utf8_next(text + at, size - at, &code)) > 0 && is_space(code); at += n) {
    }
    return at;
}

pg_status pgi_added_tokens_split(const pgi_added_tokens *tokens, const pgi_trie *trie, const char *text, size_t size,
                                 int literal, pgi_part_fn part, void *user) {
    const uint8_t *bytes = (const uint8_t *)text;
    size_t done = 0;  /* what lies before was handed on */
    size_t space = 0; /* where white space ends that was looked at: tokens in it need not look again */
    for (size_t at = 0; at < size && trie->n;) {
        size_t begin = at, end = at;
        int32_t found = match(trie, bytes, size, at, &end);
        if (found < 0) {
            at++;
            continue;
        }
        const pgi_added_token *token = &tokens->data[found];
        at = end; /* HF too searches the white space that rstrip takes */
        if (tokens->special[token->id] & literal) continue;
        int strips = literal != PGI_LITERAL_CONTROL; /* sentencepiece's pieces do not */
        if (strips && token->flags.lstrip) {
            begin = begin < done ? done : space_before(bytes, done, begin);
        }
        if (strips && token->flags.rstrip) end = space = end < space ? space : space_after(bytes, size, end);
        if (done < begin) PGI_TRY(part(user, NULL, text + done, begin - done));
        PGI_TRY(part(user, token, text + begin, end - begin));
        done = end;
    }
    return done < size ? part(user, NULL, text + done, size - done) : PG_OK;
}
