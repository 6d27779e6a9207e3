/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The added tokens of a tokenizer, and cutting a text at them (HF: tokenizers, added_vocabulary.rs), in time that is
 * linear in the text: Aho and Corasick, Efficient string matching (1975), backwards.
 */
#include "tokenizer/added_tokens.h"

#include <string.h>

#include "base/utf8.h"

enum {
    MAX_BYTES = 1 << 19, /* of their texts: PaliGemma's have 30 kB, and each byte takes up to 100 of memory */
    CANCEL_NODES = 4096,
    AHEAD = 16 /* nodes */
};

void pgi_added_tokens_init(pgi_added_tokens *tokens, const pgi_memory *memory) {
    *tokens = (pgi_added_tokens){.memory = memory};
}

static void trie_free(const pgi_memory *memory, pgi_trie *trie) {
    pgi_free(memory, trie->nodes);
    pgi_free(memory, trie->slots);
}

void pgi_added_tokens_free(pgi_added_tokens *tokens) {
    if (!tokens->memory) return;
    pgi_free(tokens->memory, tokens->data);
    pgi_free(tokens->memory, tokens->by_id);
    pgi_free(tokens->memory, tokens->special);
    trie_free(tokens->memory, &tokens->raw);
    trie_free(tokens->memory, &tokens->normalized);
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
        tokens->n_bytes += size;
        if (tokens->n_bytes > MAX_BYTES)
            return pgi_error(PG_ERROR_LIMIT,
                             "%s: found added tokens of more than %d bytes together, expected at most that many", file,
                             MAX_BYTES);
        PGI_TRY(pgi_grow(tokens->memory, &tokens->data, &tokens->capacity, tokens->n + 1, sizeof *tokens->data));
        tokens->by_id[id] = (uint32_t)++tokens->n;
    }
    tokens->data[tokens->by_id[id] - 1] = (pgi_added_token){.id = id, .flags = flags};
    if (flags.special) tokens->special[id] |= PGI_LITERAL;
    return PG_OK;
}

/* ---- the tree ---- */

/* The slot that holds the child of `node` for `byte`, or the empty one where it belongs. */
static size_t find_slot(const pgi_trie *trie, int32_t node, uint8_t byte) {
    const size_t mask = trie->n_slots - 1;
    for (size_t i = (size_t)(pgi_hash_pair(&trie->key, (uint32_t)node, byte) >> 32) & mask;; i = (i + 1) & mask) {
        const pgi_trie_node *child = &trie->nodes[trie->slots[i]];
        if (!trie->slots[i] || (child->parent == node && child->byte == byte)) return i;
    }
}

/* The child of `node` for `byte`, or 0. */
static inline int32_t child_of(const pgi_trie *trie, int32_t node, uint8_t byte) {
    if (node == 0) return trie->first[byte];
    const int32_t child = trie->nodes[node].child;
    if (child && trie->nodes[child].byte == byte) return child;
    return trie->nodes[node].forks ? trie->slots[find_slot(trie, node, byte)] : 0;
}

/* Room for one more slot. */
static pg_status grow_slots(const pgi_memory *memory, pgi_trie *trie) {
    if (2 * (trie->n_in_slots + 1) <= trie->n_slots) return PG_OK;
    const size_t n_slots = trie->n_slots ? 2 * trie->n_slots : 256;
    int32_t *slots = pgi_alloc_zero(memory, n_slots, sizeof *slots);
    if (!slots) return PG_ERROR_MEMORY;
    pgi_free(memory, trie->slots);
    trie->slots = slots;
    trie->n_slots = n_slots;
    for (size_t i = 1; i < trie->n; i++) {
        const pgi_trie_node *node = &trie->nodes[i];
        if (node->parent && trie->nodes[node->parent].child != (int32_t)i)
            slots[find_slot(trie, node->parent, node->byte)] = (int32_t)i;
    }
    return PG_OK;
}

/* The last node becomes a child of `node`. */
static pg_status link_child(const pgi_memory *memory, pgi_trie *trie, int32_t node) {
    const int32_t child = (int32_t)trie->n - 1;
    const uint8_t byte = trie->nodes[child].byte;
    if (node == 0) {
        trie->first[byte] = child;
    } else if (!trie->nodes[node].child) {
        trie->nodes[node].child = child;
    } else {
        trie->n--; /* it has no place yet */
        PGI_TRY(grow_slots(memory, trie));
        trie->n++;
        trie->nodes[node].forks = 1;
        trie->slots[find_slot(trie, node, byte)] = child;
        trie->n_in_slots++;
    }
    return PG_OK;
}

/* The text is that of the token as it is found; reserve_nodes() made room. The first token of a text stays. */
static pg_status trie_add(const pgi_memory *memory, pgi_trie *trie, const uint8_t *text, size_t size, int32_t token) {
    int32_t node = 0;
    if (trie->n == 0) trie->nodes[trie->n++] = (pgi_trie_node){.token = -1};
    for (size_t i = size; i-- > 0;) {
        int32_t next = child_of(trie, node, text[i]);
        if (!next) {
            next = (int32_t)trie->n++;
            trie->nodes[next] = (pgi_trie_node){
                .parent = node, .token = -1, .depth = (uint16_t)(trie->nodes[node].depth + 1), .byte = text[i]};
            PGI_TRY(link_child(memory, trie, node));
        }
        node = next;
    }
    if (trie->nodes[node].token < 0) trie->nodes[node].token = token;
    if (size > trie->longest) trie->longest = size;
    return PG_OK;
}

/* Where the machine goes from `node` by `byte`. */
static inline int32_t step(const pgi_trie *trie, int32_t node, uint8_t byte) {
    for (;;) {
        const int32_t next = child_of(trie, node, byte);
        if (next || node == 0) return next;
        node = trie->nodes[node].fail;
    }
}

/* The links of a node, those of all shorter texts being there. */
static void link_node(pgi_added_tokens *tokens, pgi_trie *trie, int32_t node) {
    pgi_trie_node *n = &trie->nodes[node];
    n->fail = n->parent ? step(trie, trie->nodes[n->parent].fail, n->byte) : 0;
    const int32_t shorter = trie->nodes[n->fail].token;
    if (n->token >= 0 && shorter >= 0) tokens->data[shorter].begins_another = 1;
    if (n->token < 0) n->token = shorter;
}

/* Links all nodes, those of short texts first. */
static pg_status trie_link(pgi_added_tokens *tokens, const pg_cancel *cancel, pgi_trie *trie) {
    if (trie->n == 0) return PG_OK;
    int32_t *order = pgi_alloc(tokens->memory, trie->n, sizeof *order);
    size_t *begin = pgi_alloc_zero(tokens->memory, trie->longest + 2, sizeof *begin); /* of each depth in order */
    pg_status status = order && begin ? PG_OK : PG_ERROR_MEMORY;
    if (order && begin) {
        for (size_t i = 0; i < trie->n; i++) begin[trie->nodes[i].depth + 1]++;
        for (size_t depth = 0; depth <= trie->longest; depth++) begin[depth + 1] += begin[depth];
        for (size_t i = 0; i < trie->n; i++) order[begin[trie->nodes[i].depth]++] = (int32_t)i;
        for (size_t i = 1; i < trie->n && status >= 0; i++) {
            if (i + AHEAD < trie->n) __builtin_prefetch(&trie->nodes[order[i + AHEAD]]); /* they lie far apart */
            link_node(tokens, trie, order[i]);
            if (i % CANCEL_NODES == 0) status = pgi_cancel_check(cancel);
        }
    }
    pgi_free(tokens->memory, begin);
    pgi_free(tokens->memory, order);
    return status;
}

/* found[i]: index of the longest token that begins at text[begin + i], or -1, for the bytes begin .. end - 1. */
static void find_tokens(const pgi_trie *trie, const uint8_t *text, size_t size, size_t begin, size_t end,
                        int32_t *found) {
    int32_t node = 0;
    size_t at = size - end < trie->longest ? size : end + trie->longest; /* where those end that begin before `end` */
    while (at > end) node = step(trie, node, text[--at]);
    while (at > begin) {
        node = step(trie, node, text[--at]);
        found[at - begin] = trie->nodes[node].token;
    }
}

/* ---- */

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

/* Room for the nodes that the tokens can take at the most, so that none is moved. */
static pg_status reserve_nodes(pgi_added_tokens *tokens, const pgi_vocab *vocab, int replace_spaces) {
    size_t raw = 1, normalized = 1;
    for (size_t i = 0; i < tokens->n; i++) {
        size_t size;
        const pgi_added_token *token = &tokens->data[i];
        const char *content = pgi_vocab_text(vocab, (size_t)token->id, &size);
        size_t n = size;
        for (size_t k = 0; k < size && token->flags.normalized && replace_spaces; k++) n += content[k] == ' ' ? 2 : 0;
        *(token->flags.normalized ? &normalized : &raw) += n;
    }
    pgi_trie *const tries[] = {&tokens->raw, &tokens->normalized};
    const size_t n[] = {raw, normalized};
    for (int i = 0; i < 2; i++)
        if (n[i] > 1)
            PGI_TRY(pgi_grow(tokens->memory, &tries[i]->nodes, &tries[i]->capacity, n[i], sizeof *tries[i]->nodes));
    return PG_OK;
}

pg_status pgi_added_tokens_finish(pgi_added_tokens *tokens, const pgi_vocab *vocab, int replace_spaces,
                                  const pg_cancel *cancel, const char *file) {
    pgi_buffer text;
    pg_status status = PG_OK;
    pgi_buffer_init(&text, tokens->memory);
    tokens->raw.key = tokens->normalized.key = vocab->key;
    PGI_TRY(reserve_nodes(tokens, vocab, replace_spaces));
    for (size_t i = 0; i < tokens->n && status >= 0; i++) {
        size_t size;
        pgi_added_token *token = &tokens->data[i];
        const char *content = pgi_vocab_text(vocab, (size_t)token->id, &size);
        if (token->flags.normalized && replace_spaces) {
            text.size = 0;
            PGI_GOTO(pgi_added_tokens_replace_spaces(content, size, &text), done);
            content = (const char *)text.data;
            size = text.size;
        }
        token->size = (uint16_t)size;
        status = trie_add(tokens->memory, token->flags.normalized ? &tokens->normalized : &tokens->raw,
                          (const uint8_t *)content, size, (int32_t)i);
        if (status >= 0) status = pgi_cancel_check(cancel);
    }
    if (status >= 0) status = trie_link(tokens, cancel, &tokens->raw);
    if (status >= 0) status = trie_link(tokens, cancel, &tokens->normalized);
done:
    pgi_buffer_free(&text);
    return status < 0 ? pgi_error_context(status, "%s", file) : status;
}

int pgi_added_tokens_stands_alone(const pgi_added_tokens *tokens, int64_t id) {
    const pgi_added_token *token = pgi_added_tokens_of(tokens, id);
    return token && !token->flags.normalized && !token->flags.lstrip && !token->flags.rstrip && !token->begins_another;
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
    enum { BLOCK = 1024 }; /* bytes whose tokens are found at a time */
    const uint8_t *bytes = (const uint8_t *)text;
    int32_t beginning[BLOCK];      /* the tokens that begin at the bytes of the block */
    size_t block = 0, n_block = 0; /* where it begins, and its bytes */
    size_t done = 0;               /* what lies before was handed on */
    size_t space = 0;              /* where white space ends that was looked at: tokens in it need not look again */
    for (size_t at = 0; at < size && trie->n;) {
        if (at - block >= n_block) {
            block = at;
            n_block = size - at < BLOCK ? size - at : BLOCK;
            find_tokens(trie, bytes, size, block, block + n_block, beginning);
        }
        const int32_t found = beginning[at - block];
        if (found < 0) {
            at++;
            continue;
        }
        const pgi_added_token *token = &tokens->data[found];
        size_t begin = at, end = at + token->size;
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
