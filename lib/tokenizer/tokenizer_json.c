/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Reads tokenizer.json: the large parts as they come, the small ones as trees. */
#include "tokenizer/tokenizer_json.h"

#include <string.h>

#include "base/file.h"

/* Gemma's has 34 MB and, the large parts read twice, 3 million values. */
enum { MAX_FILE = 1 << 28, MAX_VALUES = 1 << 25 };

/* A value as a tree, for the small parts. null gives NULL. */
static pg_status read_tree(pgi_json_reader *reader, pgi_json_doc *doc, const pgi_json **out) {
    PGI_TRY(pgi_json_read(doc, reader, PGI_JSON_AS_PYTHON, out));
    if (!pgi_json_is_set(*out)) *out = NULL;
    return PG_OK;
}

static pg_status read_vocab(pgi_json_reader *reader, pgi_vocab *vocab) {
    int first = 1, more;
    pgi_buffer key;
    pg_status status;
    pgi_buffer_init(&key, reader->text.memory);
    PGI_GOTO(pgi_json_open(reader, '{'), done);
    for (;;) {
        uint64_t id;
        PGI_GOTO(pgi_json_next(reader, '{', &first, &more), done);
        if (!more) break;
        key.size = 0;
        PGI_GOTO(pgi_buffer_append(&key, reader->text.data, reader->text.size), done);
        PGI_GOTO(pgi_json_uint(reader, &id), done);
        PGI_GOTO(pgi_vocab_put(vocab, id, key.data, key.size, reader->file, "model.vocab"), done);
    }
    status = pgi_vocab_check(vocab, reader->file, "model.vocab");
done:
    pgi_buffer_free(&key);
    return status;
}

/* The next merge, "left right" or ["left", "right"]: both parts into `pair`, *cut is where the right one begins. */
static pg_status read_pair(pgi_json_reader *reader, pgi_buffer *pair, size_t *cut) {
    pair->size = 0;
    if (pgi_json_peek(reader) == '[') {
        int first = 1, more;
        PGI_TRY(pgi_json_open(reader, '['));
        for (int i = 0; i < 2; i++) {
            PGI_TRY(pgi_json_next(reader, '[', &first, &more));
            if (!more) return pgi_json_expected(reader, "two pieces in a merge");
            PGI_TRY(pgi_json_string(reader));
            if (i == 0) *cut = reader->text.size;
            PGI_TRY(pgi_buffer_append(pair, reader->text.data, reader->text.size));
        }
        PGI_TRY(pgi_json_next(reader, '[', &first, &more));
        return more ? pgi_json_expected(reader, "two pieces in a merge") : PG_OK;
    }
    PGI_TRY(pgi_json_string(reader));
    const uint8_t *text = reader->text.data;
    const uint8_t *space = memchr(text, ' ', reader->text.size);
    size_t rest = space ? (size_t)(text + reader->text.size - space) - 1 : 0;
    if (!space || memchr(space + 1, ' ', rest)) return pgi_json_expected(reader, "two pieces and a space in a merge");
    *cut = (size_t)(space - text);
    PGI_TRY(pgi_buffer_append(pair, text, *cut));
    return pgi_buffer_append(pair, space + 1, rest);
}

static pg_status read_merges(pgi_json_reader *reader, const pgi_vocab *vocab, pgi_merges *merges) {
    int first = 1, more;
    pgi_buffer pair;
    pg_status status;
    pgi_buffer_init(&pair, reader->text.memory);
    PGI_GOTO(pgi_json_open(reader, '['), done);
    for (;;) {
        size_t cut = 0;
        PGI_GOTO(pgi_json_next(reader, '[', &first, &more), done);
        if (!more) break;
        PGI_GOTO(read_pair(reader, &pair, &cut), done);
        PGI_GOTO(pgi_buffer_reserve(&pair, 1), done);
        int64_t left = pgi_vocab_find(vocab, pair.data, cut);
        int64_t right = pgi_vocab_find(vocab, pair.data + cut, pair.size - cut);
        int64_t merged = pgi_vocab_find(vocab, pair.data, pair.size);
        if (cut == 0 || cut == pair.size || left < 0 || right < 0 || merged < 0) {
            status = pgi_error(PG_ERROR_FORMAT,
                               "%s: model.merges: entry %zu joins \"%.*s\" and \"%.60s\", expected "
                               "both and the whole in model.vocab",
                               reader->file, merges->size, cut < 60 ? (int)cut : 60, (const char *)pair.data,
                               (const char *)pair.data + cut);
            goto done;
        }
        PGI_GOTO(pgi_merges_push(merges, (pgi_merge){(uint32_t)left, (uint32_t)right, (uint32_t)merged}), done);
    }
done:
    pgi_buffer_free(&pair);
    return status;
}

static int key_is(const pgi_json_reader *reader, const char *key) {
    return reader->text.size == strlen(key) && memcmp(reader->text.data, key, reader->text.size) == 0;
}

/* Walks the members of "model"; where vocab and merges stand is kept for later, as their order is free. */
static pg_status read_model(pgi_json_reader *reader, size_t *vocab_at, size_t *merges_at, pgi_tokenizer_json *out) {
    int first = 1, more;
    PGI_TRY(pgi_json_new_object(&out->doc, &out->model));
    PGI_TRY(pgi_json_open(reader, '{'));
    for (;;) {
        PGI_TRY(pgi_json_next(reader, '{', &first, &more));
        if (!more) return PG_OK;
        if (key_is(reader, "vocab") || key_is(reader, "merges")) {
            PGI_TRY(pgi_json_skip(reader, key_is(reader, "vocab") ? vocab_at : merges_at, NULL));
            continue;
        }
        if (memchr(reader->text.data, 0, reader->text.size)) { /* none of those we look at */
            PGI_TRY(pgi_json_skip(reader, NULL, NULL));
            continue;
        }
        const pgi_json *value;
        const char *key;
        PGI_TRY(pgi_json_copy_text(&out->doc, (const char *)reader->text.data, reader->text.size, &key));
        PGI_TRY(pgi_json_read(&out->doc, reader, PGI_JSON_AS_PYTHON, &value));
        PGI_TRY(pgi_json_set(&out->doc, &out->model, key, *value));
    }
}

static pg_status read_document(pgi_json_reader *reader, pgi_tokenizer_json *out) {
    const struct {
        const char *key;
        const pgi_json **out;
    } trees[] = {{"added_tokens", &out->added_tokens},   {"normalizer", &out->normalizer},
                 {"pre_tokenizer", &out->pre_tokenizer}, {"decoder", &out->decoder},
                 {"truncation", &out->truncation},       {"padding", &out->padding}};
    int first = 1, more;
    size_t vocab_at = SIZE_MAX, merges_at = SIZE_MAX;
    PGI_TRY(pgi_json_open(reader, '{'));
    for (;;) {
        size_t i = 0;
        PGI_TRY(pgi_json_next(reader, '{', &first, &more));
        if (!more) break;
        while (i < sizeof trees / sizeof *trees && !key_is(reader, trees[i].key)) i++;
        if (i < sizeof trees / sizeof *trees)
            PGI_TRY(read_tree(reader, &out->doc, trees[i].out));
        else if (key_is(reader, "model"))
            PGI_TRY(read_model(reader, &vocab_at, &merges_at, out));
        else
            PGI_TRY(pgi_json_skip(reader, NULL, NULL));
    }
    PGI_TRY(pgi_json_end(reader));
    if (!out->model.kind) return pgi_error(PG_ERROR_FORMAT, "%s: model is not there", reader->file);
    const char *type = pgi_json_text(pgi_json_get(&out->model, "type"));
    if (type ? strcmp(type, "BPE") != 0 : merges_at == SIZE_MAX)
        return pgi_error(PG_ERROR_UNSUPPORTED, "%s: model.type is %s%s%s, expected \"BPE\"", reader->file,
                         type ? "\"" : "", type ? type : "not there", type ? "\"" : "");
    if (vocab_at == SIZE_MAX) return pgi_error(PG_ERROR_FORMAT, "%s: model.vocab is not there", reader->file);
    if (merges_at == SIZE_MAX) return pgi_error(PG_ERROR_FORMAT, "%s: model.merges is not there", reader->file);
    reader->at = vocab_at;
    reader->key = "model.vocab";
    PGI_TRY(read_vocab(reader, &out->vocab));
    reader->at = merges_at;
    reader->key = "model.merges";
    return read_merges(reader, &out->vocab, &out->merges);
}

pg_status pgi_tokenizer_json_load(const pgi_memory *memory, const char *path, const pg_cancel *cancel,
                                  pgi_tokenizer_json *out) {
    pgi_buffer file;
    pgi_json_reader reader;
    *out = (pgi_tokenizer_json){0};
    pgi_json_doc_init(&out->doc, memory);
    pgi_vocab_init(&out->vocab, memory);
    pgi_merges_init(&out->merges, memory);
    pgi_buffer_init(&file, memory);
    pg_status status = pgi_file_read(path, MAX_FILE, &file);
    if (status >= 0) {
        pgi_json_reader_init(&reader, memory, path, file.data, file.size);
        reader.cancel = cancel;
        reader.max_values = MAX_VALUES;
        status = read_document(&reader, out);
        pgi_json_reader_free(&reader);
    }
    pgi_buffer_free(&file);
    if (status < 0) pgi_tokenizer_json_free(out);
    return status;
}

void pgi_tokenizer_json_free(pgi_tokenizer_json *json) {
    pgi_vocab_free(&json->vocab);
    pgi_merges_free(&json->merges);
    pgi_json_doc_free(&json->doc);
    json->added_tokens = json->normalizer = json->pre_tokenizer = json->decoder = NULL;
    json->truncation = json->padding = NULL;
    json->model = (pgi_json){0};
}
