/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Trees of JSON. Everything of a document lies in a few blocks. The members of an object are found through a crit-bit
 * tree over their keys: no key is visited in more steps than it has bits, whatever keys a file chooses.
 */
#include "checkpoint/json.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "checkpoint/diagnose_file.h"
#include "checkpoint/json_number.h"

typedef struct pgi_json_block {
    struct pgi_json_block *next;
    size_t used, size;
} pgi_json_block;

/* A member, and the node of the tree that came with it. A branch is 2 i for the key of member i, 2 i + 1 for the node
 * of member i. */
typedef struct member {
    const char *key;
    pgi_json value;
    uint32_t branch[2]; /* of keys whose bit is 0, 1 */
    uint32_t byte;      /* the bit's byte */
    uint32_t bit;       /* in it, as a mask */
} member;

typedef struct pgi_json_object {
    member *members;
    uint32_t n, capacity;
    uint32_t root; /* a branch; of no meaning when n is 0 */
} pgi_json_object;

/* ---- the document ---- */

void pgi_json_doc_init(pgi_json_doc *doc, const pgi_memory *memory) { *doc = (pgi_json_doc){.memory = memory}; }

static void free_blocks(pgi_json_doc *doc, const pgi_json_block *until) {
    while (doc->blocks != until) {
        pgi_json_block *next = doc->blocks->next;
        pgi_free(doc->memory, doc->blocks);
        doc->blocks = next;
    }
    doc->n_values = 0;
}

void pgi_json_doc_empty(pgi_json_doc *doc) {
    const pgi_json_block *first = doc->blocks;
    while (first && first->next) first = first->next;
    free_blocks(doc, first);
    if (doc->blocks) doc->blocks->used = 0;
}

void pgi_json_doc_free(pgi_json_doc *doc) { free_blocks(doc, NULL); }

/* `count` elements of `size` bytes, aligned for all that lies in a document. NULL: PG_ERROR_MEMORY. */
static void *take(pgi_json_doc *doc, size_t count, size_t size) {
    enum { LEAST = 1008, MOST = 64 * 1024 };
    size_t bytes;
    if (!pgi_mul_size(count, size, &bytes) || bytes > PTRDIFF_MAX / 2) return pgi_alloc(doc->memory, count, size);
    bytes = (bytes + 7) / 8 * 8;
    pgi_json_block *block = doc->blocks;
    if (!block || block->size - block->used < bytes) {
        size_t wanted = block ? block->size / 16 * 24 : LEAST; /* half as much again */
        if (wanted > MOST) wanted = MOST;
        if (wanted < bytes) wanted = bytes;
        block = pgi_alloc(doc->memory, 1, sizeof *block + wanted);
        if (!block) return NULL;
        *block = (pgi_json_block){doc->blocks, 0, wanted};
        doc->blocks = block;
    }
    void *out = (char *)(block + 1) + block->used;
    block->used += bytes;
    return out;
}

pg_status pgi_json_copy_text(pgi_json_doc *doc, const char *text, size_t size, const char **out) {
    char *copy = take(doc, size + 1, 1);
    if (!copy) return PG_ERROR_MEMORY;
    memcpy(copy, text, size);
    copy[size] = '\0';
    *out = copy;
    return PG_OK;
}

/* ---- members ---- */

/* key: `size` bytes, none of them 0. */
static uint32_t find_index(const pgi_json_object *object, const char *key, size_t size) {
    if (object->n == 0) return UINT32_MAX;
    uint32_t at = object->root;
    while (at & 1) {
        const member *m = &object->members[at >> 1];
        const uint32_t c = m->byte < size ? (uint8_t)key[m->byte] : 0;
        at = m->branch[(c & m->bit) != 0];
    }
    const char *found = object->members[at >> 1].key;
    /* not strlen(): the key that is there may be megabytes long, and be met at every look */
    return strncmp(found, key, size) == 0 && !found[size] ? at >> 1 : UINT32_MAX;
}

/* Member i joins those before it. Returns the one that has its key already, else UINT32_MAX. */
static uint32_t insert(pgi_json_object *object, uint32_t i) {
    member *members = object->members, *new = &members[i];
    const size_t size = strlen(new->key);
    if (i == 0) {
        object->root = 0;
        return UINT32_MAX;
    }
    uint32_t at = object->root;
    while (at & 1) {
        const member *m = &members[at >> 1];
        const uint32_t c = m->byte < size ? (uint8_t) new->key[m->byte] : 0;
        at = m->branch[(c & m->bit) != 0];
    }
    const char *other = members[at >> 1].key;
    uint32_t byte = 0, bit = 128;
    for (; new->key[byte] == other[byte]; byte++)
        if (!other[byte]) return at >> 1;
    const uint32_t difference = (uint8_t) new->key[byte] ^ (uint8_t)other[byte];
    while (!(difference & bit)) bit >>= 1;
    uint32_t *where = &object->root;
    while (*where & 1) {
        member *m = &members[*where >> 1];
        if (m->byte > byte || (m->byte == byte && m->bit < bit)) break;
        where =
            &m->branch[((uint8_t) new->key[m->byte] & m->bit) != 0]; /* not behind the key's end: byte is within it */
    }
    const int side = ((uint8_t) new->key[byte] & bit) != 0;
    new->byte = byte;
    new->bit = bit;
    new->branch[side] = 2 * i;
    new->branch[!side] = *where;
    *where = 2 * i + 1;
    return UINT32_MAX;
}

pg_status pgi_json_set(pgi_json_doc *doc, const pgi_json *node, const char *key, pgi_json value) {
    pgi_json_object *object = node->as.object;
    const uint32_t found = find_index(object, key, strlen(key));
    if (found != UINT32_MAX) {
        object->members[found].value = value;
        return PG_OK;
    }
    if (object->n == object->capacity) {
        const uint32_t capacity = object->capacity ? 2 * object->capacity : 32;
        member *grown = take(doc, capacity, sizeof *grown);
        if (!grown) return PG_ERROR_MEMORY;
        if (object->n) memcpy(grown, object->members, object->n * sizeof *grown);
        object->members = grown;
        object->capacity = capacity;
    }
    object->members[object->n] = (member){.key = key, .value = value};
    insert(object, object->n++);
    return PG_OK;
}

void pgi_json_remove(const pgi_json *node, const char *key) {
    pgi_json_object *object = node->as.object;
    const uint32_t found = find_index(object, key, strlen(key));
    if (found == UINT32_MAX) return;
    object->n--;
    memmove(object->members + found, object->members + found + 1, (object->n - found) * sizeof *object->members);
    for (uint32_t i = 0; i < object->n; i++) insert(object, i);
}

/* ---- reading ---- */

typedef struct open_key {
    const char *text;
    size_t at; /* where it stands in the file */
} open_key;

typedef struct parser {
    pgi_json_doc *doc;
    pgi_json_reader *reader;
    pgi_json_rules rules;
    /* Of the containers that are not closed yet: their values, and the keys of the objects among them. */
    pgi_json *open; /* [n_open] */
    size_t n_open, capacity;
    open_key *keys; /* [n_keys] */
    size_t n_keys, keys_capacity;
} parser;

static pg_status read_value(parser *p, int depth, pgi_json *out);

/* The reader's text: a key, or the text of a string. */
static pg_status keep_text(parser *p, size_t begin, int is_key, const char **out) {
    const pgi_buffer *text = &p->reader->text;
    if ((is_key || p->rules == PGI_JSON_STRICT) && text->size && memchr(text->data, 0, text->size)) {
        p->reader->at = begin;
        return pgi_json_error(p->reader, PG_ERROR_FORMAT, "found \\u0000 in a %s, expected other characters",
                              is_key ? "key" : "string");
    }
    return pgi_json_copy_text(p->doc, (const char *)text->data, text->size, out);
}

static pg_status read_string(parser *p, pgi_json *out) {
    const size_t begin = p->reader->at;
    PGI_TRY(pgi_json_string(p->reader));
    if (p->reader->text.size > UINT32_MAX) return pgi_error(PG_ERROR_LIMIT, "%s: a text is too long", p->reader->file);
    *out = (pgi_json){.kind = PGI_JSON_STRING, .size = (uint32_t)p->reader->text.size};
    return keep_text(p, begin, 0, &out->as.text);
}

static pg_status read_number(parser *p, pgi_json *out) {
    size_t begin;
    int is_real;
    pgi_json_reader *reader = p->reader;
    PGI_TRY(pgi_json_number_text(reader, &begin, &is_real));
    const uint8_t *text = reader->data + begin;
    const size_t size = reader->at - begin;
    out->kind = PGI_JSON_INTEGER;
    if (!is_real && pgi_number_read_integer(text, size, &out->as.integer)) return PG_OK;
    out->kind = PGI_JSON_REAL;
    const int shown = size < 40 ? (int)size : 40;
    if (!is_real && p->rules == PGI_JSON_STRICT) {
        reader->at = begin;
        return pgi_json_error(reader, PG_ERROR_FORMAT, "found %.*s%s, expected an integer that fits in 64 bits", shown,
                              (const char *)text, size > 40 ? "..." : "");
    }
    if (pgi_number_read(text, size, &out->as.real)) return PG_OK;
    reader->at = begin;
    return pgi_json_error(reader, PG_ERROR_FORMAT, "found %.*s%s, expected a number that fits in a double", shown,
                          (const char *)text, size > 40 ? "..." : "");
}

static pg_status close_array(parser *p, size_t n, pgi_json *out) {
    PGI_TRY(pgi_json_new_array(p->doc, n, out));
    if (n) memcpy(out->as.items, p->open + p->n_open, n * sizeof *p->open);
    return PG_OK;
}

static pg_status close_object(parser *p, size_t n, pgi_json *out) {
    PGI_TRY(pgi_json_new_object(p->doc, out));
    pgi_json_object *object = out->as.object;
    if (n == 0) return PG_OK;
    object->members = take(p->doc, n, sizeof *object->members);
    if (!object->members) return PG_ERROR_MEMORY;
    object->capacity = (uint32_t)n;
    for (size_t i = 0; i < n; i++) {
        const open_key *key = &p->keys[p->n_keys + i];
        object->members[object->n] = (member){.key = key->text, .value = p->open[p->n_open + i]};
        const uint32_t twin = insert(object, object->n);
        if (twin == UINT32_MAX) {
            object->n++;
        } else if (p->rules == PGI_JSON_STRICT) {
            p->reader->at = key->at;
            return pgi_json_error(p->reader, PG_ERROR_FORMAT,
                                  "found the duplicate key \"%.60s\", expected each key once", key->text);
        } else {
            object->members[twin].value = p->open[p->n_open + i];
        }
    }
    return PG_OK;
}

static pg_status read_container(parser *p, char opener, int depth, pgi_json *out) {
    const size_t base = p->n_open;
    int first = 1, more;
    if (depth == PGI_JSON_MAX_DEPTH) return pgi_json_too_deep(p->reader);
    PGI_TRY(pgi_json_open(p->reader, opener));
    for (;;) {
        pgi_json value;
        PGI_TRY(pgi_json_next(p->reader, opener, &first, &more));
        if (!more) break;
        if (++p->doc->n_values > PGI_JSON_MAX_VALUES)
            return pgi_json_error(p->reader, PG_ERROR_LIMIT, "found more than %d values, expected at most that many",
                                  PGI_JSON_MAX_VALUES);
        if (opener == '{') {
            open_key key = {.at = p->reader->key_at};
            PGI_TRY(keep_text(p, key.at, 1, &key.text));
            PGI_TRY(pgi_grow(p->doc->memory, &p->keys, &p->keys_capacity, p->n_keys + 1, sizeof key));
            p->keys[p->n_keys++] = key;
        }
        PGI_TRY(read_value(p, depth + 1, &value));
        PGI_TRY(pgi_grow(p->doc->memory, &p->open, &p->capacity, p->n_open + 1, sizeof *p->open));
        p->open[p->n_open++] = value;
    }
    const size_t n = p->n_open - base;
    p->n_open = base;
    if (opener == '{') p->n_keys -= n;
    return opener == '{' ? close_object(p, n, out) : close_array(p, n, out);
}

static pg_status read_value(parser *p, int depth, pgi_json *out) {
    PGI_TRY(pgi_cancel_check(p->reader->cancel));
    const int byte = pgi_json_peek(p->reader);
    *out = (pgi_json){0};
    if (byte == '{' || byte == '[') return read_container(p, (char)byte, depth, out);
    if (byte == '"') return read_string(p, out);
    if (byte == '-' || (byte >= '0' && byte <= '9')) return read_number(p, out);
    pgi_json_words word;
    PGI_TRY(pgi_json_word(p->reader, &word));
    out->kind = word == PGI_WORD_NULL ? PGI_JSON_NULL : word == PGI_WORD_TRUE ? PGI_JSON_TRUE : PGI_JSON_FALSE;
    return PG_OK;
}

pg_status pgi_json_read(pgi_json_doc *doc, pgi_json_reader *reader, pgi_json_rules rules, const pgi_json **out) {
    parser p = {.doc = doc, .reader = reader, .rules = rules};
    pgi_json *value = take(doc, 1, sizeof *value);
    if (!value) return PG_ERROR_MEMORY;
    const pg_status status = read_value(&p, 0, value);
    pgi_free(doc->memory, p.open);
    pgi_free(doc->memory, p.keys);
    if (status >= 0) *out = value;
    return status;
}

pg_status pgi_json_parse(pgi_json_doc *doc, const char *path, const void *data, size_t size, pgi_json_rules rules,
                         const pgi_json **out) {
    pgi_json_reader reader;
    *out = NULL;
    pgi_json_reader_init(&reader, doc->memory, path, data, size);
    reader.is_whole = 1;
    pg_status status = pgi_json_read(doc, &reader, rules, out);
    if (status >= 0) status = pgi_json_end(&reader);
    pgi_json_reader_free(&reader);
    if (status == PG_ERROR_FORMAT) return pgi_diagnose_bytes(status, path, data, size);
    if (status >= 0 && !pgi_json_is(*out, PGI_JSON_OBJECT)) {
        char found[PGI_JSON_DESCRIPTION];
        status = pgi_error(PG_ERROR_FORMAT, "%s: found %s, expected a JSON object", path,
                           pgi_json_describe(*out, found, sizeof found));
    }
    return status;
}

pg_status pgi_json_load(pgi_json_doc *doc, const char *path, size_t max_size, pgi_json_rules rules,
                        const pgi_json **out) {
    pgi_buffer text;
    *out = NULL;
    pgi_buffer_init(&text, doc->memory);
    pg_status status = pgi_file_read(path, max_size, &text);
    if (status >= 0) status = pgi_json_parse(doc, path, text.data, text.size, rules, out);
    pgi_buffer_free(&text);
    return status;
}

/* ---- looking ---- */

int pgi_json_is(const pgi_json *node, pgi_json_kind kind) { return node && node->kind == (uint32_t)kind; }

int pgi_json_is_number(const pgi_json *node) {
    return pgi_json_is(node, PGI_JSON_INTEGER) || pgi_json_is(node, PGI_JSON_REAL);
}

int pgi_json_is_boolean(const pgi_json *node) {
    return pgi_json_is(node, PGI_JSON_TRUE) || pgi_json_is(node, PGI_JSON_FALSE);
}

int pgi_json_is_set(const pgi_json *node) { return node && node->kind != PGI_JSON_NULL; }

int64_t pgi_json_integer(const pgi_json *node) { return pgi_json_is(node, PGI_JSON_INTEGER) ? node->as.integer : 0; }

double pgi_json_number(const pgi_json *node) {
    return pgi_json_is(node, PGI_JSON_REAL) ? node->as.real : (double)pgi_json_integer(node);
}

const char *pgi_json_text(const pgi_json *node) { return pgi_json_is(node, PGI_JSON_STRING) ? node->as.text : NULL; }

size_t pgi_json_text_size(const pgi_json *node) { return pgi_json_is(node, PGI_JSON_STRING) ? node->size : 0; }

size_t pgi_json_n_items(const pgi_json *node) { return pgi_json_is(node, PGI_JSON_ARRAY) ? node->size : 0; }

size_t pgi_json_n_members(const pgi_json *node) { return pgi_json_is(node, PGI_JSON_OBJECT) ? node->as.object->n : 0; }

const pgi_json *pgi_json_item(const pgi_json *node, size_t i) {
    return i < pgi_json_n_items(node) ? &node->as.items[i] : NULL;
}

const pgi_json *pgi_json_get_part(const pgi_json *node, const char *key, size_t size) {
    const uint32_t i = pgi_json_is(node, PGI_JSON_OBJECT) ? find_index(node->as.object, key, size) : UINT32_MAX;
    return i == UINT32_MAX ? NULL : &node->as.object->members[i].value;
}

const pgi_json *pgi_json_get(const pgi_json *node, const char *key) {
    return pgi_json_get_part(node, key, strlen(key));
}

const pgi_json *pgi_json_member(const pgi_json *node, size_t i, const char **key) {
    if (i >= pgi_json_n_members(node)) return NULL;
    *key = node->as.object->members[i].key;
    return &node->as.object->members[i].value;
}

/* ---- making ---- */

pgi_json pgi_json_of_text(const char *text) {
    return (pgi_json){.kind = PGI_JSON_STRING, .size = (uint32_t)strlen(text), .as.text = text};
}

pgi_json pgi_json_of_integer(int64_t value) { return (pgi_json){.kind = PGI_JSON_INTEGER, .as.integer = value}; }

pgi_json pgi_json_of_real(double value) { return (pgi_json){.kind = PGI_JSON_REAL, .as.real = value}; }

pg_status pgi_json_new_object(pgi_json_doc *doc, pgi_json *out) {
    *out = (pgi_json){.kind = PGI_JSON_OBJECT, .as.object = take(doc, 1, sizeof *out->as.object)};
    if (!out->as.object) return PG_ERROR_MEMORY;
    *out->as.object = (pgi_json_object){0};
    return PG_OK;
}

pg_status pgi_json_new_array(pgi_json_doc *doc, size_t n, pgi_json *out) {
    *out = (pgi_json){.kind = PGI_JSON_ARRAY, .size = (uint32_t)n, .as.items = take(doc, n, sizeof *out)};
    if (!out->as.items) return PG_ERROR_MEMORY;
    for (size_t i = 0; i < n; i++) out->as.items[i] = (pgi_json){.kind = PGI_JSON_NULL};
    return PG_OK;
}

static pg_status copy_object(pgi_json_doc *doc, const pgi_json_object *from, pgi_json *out) {
    PGI_TRY(pgi_json_new_object(doc, out));
    pgi_json_object *to = out->as.object;
    if (from->n == 0) return PG_OK;
    to->members = take(doc, from->n, sizeof *to->members);
    if (!to->members) return PG_ERROR_MEMORY;
    to->capacity = from->n;
    for (uint32_t i = 0; i < from->n; i++) {
        const char *key = from->members[i].key;
        member *made = &to->members[i];
        *made = from->members[i]; /* its node, too: the keys are the same */
        PGI_TRY(pgi_json_copy_text(doc, key, strlen(key), &made->key));
        PGI_TRY(pgi_json_copy(doc, &from->members[i].value, &made->value));
        to->n++;
    }
    to->root = from->root;
    return PG_OK;
}

pg_status pgi_json_copy(pgi_json_doc *doc, const pgi_json *node, pgi_json *out) {
    const pgi_json from = *node; /* *out may be the same */
    if (from.kind == PGI_JSON_OBJECT) return copy_object(doc, from.as.object, out);
    *out = from;
    if (from.kind == PGI_JSON_STRING) return pgi_json_copy_text(doc, from.as.text, from.size, &out->as.text);
    if (from.kind != PGI_JSON_ARRAY) return PG_OK;
    PGI_TRY(pgi_json_new_array(doc, from.size, out));
    for (size_t i = 0; i < from.size; i++) PGI_TRY(pgi_json_copy(doc, &from.as.items[i], &out->as.items[i]));
    return PG_OK;
}

/* ---- telling ---- */

static pg_status dump_text(const char *text, size_t size, pgi_buffer *out) {
    static const char names[] = "\"\\bfnrt", values[] = "\"\\\b\f\n\r\t";
    PGI_TRY(pgi_buffer_append(out, "\"", 1));
    size_t done = 0;
    for (size_t i = 0; i < size; i++) {
        const char c = text[i];
        if (c != '"' && c != '\\' && (uint8_t)c >= 0x20) continue;
        const char *at = c ? strchr(values, c) : NULL;
        PGI_TRY(pgi_buffer_append(out, text + done, i - done));
        PGI_TRY(at ? pgi_buffer_printf(out, "\\%c", names[at - values])
                   : pgi_buffer_printf(out, "\\u%04X", (uint8_t)c));
        done = i + 1;
    }
    PGI_TRY(pgi_buffer_append(out, text + done, size - done));
    return pgi_buffer_append(out, "\"", 1);
}

static pg_status dump_container(const pgi_json *node, pgi_buffer *out) {
    const int is_array = node->kind == PGI_JSON_ARRAY;
    const size_t n = is_array ? node->size : node->as.object->n;
    PGI_TRY(pgi_buffer_append(out, is_array ? "[" : "{", 1));
    for (size_t i = 0; i < n; i++) {
        const char *key = NULL;
        const pgi_json *value = is_array ? &node->as.items[i] : pgi_json_member(node, i, &key);
        if (i) PGI_TRY(pgi_buffer_append(out, ",", 1));
        if (key) PGI_TRY(dump_text(key, strlen(key), out));
        if (key) PGI_TRY(pgi_buffer_append(out, ":", 1));
        PGI_TRY(pgi_json_dump(value, out));
    }
    return pgi_buffer_append(out, is_array ? "]" : "}", 1);
}

pg_status pgi_json_dump(const pgi_json *node, pgi_buffer *out) {
    char number[PGI_NUMBER_TEXT];
    switch (node->kind) {
        case PGI_JSON_ARRAY:
        case PGI_JSON_OBJECT: return dump_container(node, out);
        case PGI_JSON_STRING: return dump_text(node->as.text, node->size, out);
        case PGI_JSON_REAL: return pgi_buffer_printf(out, "%s", pgi_number_write(node->as.real, 15, 17, number));
        case PGI_JSON_INTEGER: return pgi_buffer_printf(out, "%lld", (long long)node->as.integer);
        case PGI_JSON_TRUE: return pgi_buffer_append(out, "true", 4);
        case PGI_JSON_FALSE: return pgi_buffer_append(out, "false", 5);
        default: return pgi_buffer_append(out, "null", 4);
    }
}

const char *pgi_json_describe(const pgi_json *node, char *buffer, size_t size) {
    char number[PGI_NUMBER_TEXT];
    switch (node ? node->kind : 0) {
        case PGI_JSON_NULL: snprintf(buffer, size, "null"); break;
        case PGI_JSON_TRUE: snprintf(buffer, size, "true"); break;
        case PGI_JSON_FALSE: snprintf(buffer, size, "false"); break;
        case PGI_JSON_ARRAY: snprintf(buffer, size, "an array of %u", node->size); break;
        case PGI_JSON_OBJECT: snprintf(buffer, size, "an object"); break;
        case PGI_JSON_STRING: snprintf(buffer, size, "\"%.40s%s\"", node->as.text, node->size > 40 ? "..." : ""); break;
        case PGI_JSON_REAL: snprintf(buffer, size, "%s", pgi_number_write(node->as.real, 9, 9, number)); break;
        case PGI_JSON_INTEGER: snprintf(buffer, size, "%lld", (long long)node->as.integer); break;
        default: snprintf(buffer, size, "nothing");
    }
    return buffer;
}
