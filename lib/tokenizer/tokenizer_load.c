/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes a tokenizer from the files of a checkpoint folder as transformers 5.23 does:
 * PreTrainedTokenizerBase._from_pretrained (which file says which tokens are added), TokenizersBackend.__init__ (their
 * order, hence the ids of new ones), GemmaTokenizer.__init__ (model, normalizer, default names) and
 * PaliGemmaProcessor.__init__ (<image>, <loc...>, <seg...>), which PG_PROCESSOR_TEXT_ONLY leaves out.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "checkpoint/diagnose.h"
#include "tokenizer/spm_model.h"
#include "tokenizer/tokenizer_defaults.h"
#include "tokenizer/tokenizer_json.h"
#include "tokenizer/tokenizer_load.h"

/* A tokenizer_config.json that tells of each added token has some 200 kB. */
enum { MAX_MODEL_FILE = 1 << 28, MAX_CONFIG_FILE = 16 << 20 };

/* PreTrainedTokenizerBase.SPECIAL_TOKENS_ATTRIBUTES with the defaults of GemmaTokenizer.__init__. */
static const struct {
    const char *key, *gemma;
    int which; /* PGI_TOKEN_*, or -1 */
} named_tokens[] = {
    {"bos_token", "<bos>", PGI_TOKEN_BOS}, {"eos_token", "<eos>", PGI_TOKEN_EOS},
    {"unk_token", "<unk>", PGI_TOKEN_UNK}, {"sep_token", NULL, -1},
    {"pad_token", "<pad>", PGI_TOKEN_PAD}, {"cls_token", NULL, -1},
    {"mask_token", "<mask>", -1},
};
enum { N_NAMED = sizeof named_tokens / sizeof *named_tokens };

static const char image_token[] = "<image>";

/* A token as some file describes it; `text` belongs to that file's tree. */
typedef struct token {
    uint64_t id;   /* for the order alone */
    size_t number; /* of two with one id the later counts */
    const char *text;
    size_t size;
    pgi_token_flags flags;
} token;

typedef struct sources {
    const pg_cancel *cancel; /* may be NULL */
    uint32_t flags;          /* PG_PROCESSOR_* */
    const pgi_memory *memory;
    char *json_path, *model_path, *config_path, *map_path, *added_path;
    int has_json, has_model;
    pgi_tokenizer_json json;
    pgi_vocab model;        /* of tokenizer.model */
    pgi_buffer types;       /* likewise, PGI_PIECE_* */
    pgi_json_doc doc;       /* of the three files that follow */
    const pgi_json *config; /* tokenizer_config.json */
    const pgi_json *map;    /* special_tokens_map.json, NULL when it does not count */
    const pgi_json *added;  /* added_tokens.json, likewise */
    int is_gemma;           /* GemmaTokenizer; otherwise the pipeline is what tokenizer.json says */
    int has_class;          /* tokenizer_config.json names a class */
    token *decoder;         /* [n_decoder], HF's added_tokens_decoder, sorted by id */
    size_t n_decoder, decoder_capacity;
    pgi_vocab named, listed; /* texts of the tokens that have a name, and of those and the extra ones, each once */
} sources;

static pg_status load_optional(sources *s, const char *path, const pgi_json **out) {
    if (!pgi_file_exists(path)) return PG_OK;
    s->doc.n_values = 0; /* the limit is each file's */
    return pgi_json_load(&s->doc, path, MAX_CONFIG_FILE, PGI_JSON_AS_PYTHON, out);
}

static pg_status load_model_file(sources *s) {
    pgi_buffer file;
    pgi_buffer_init(&file, s->memory);
    pg_status status = pgi_file_read(s->model_path, MAX_MODEL_FILE, &file);
    if (status >= 0) {
        status = pgi_spm_model_read(s->model_path, file.data, file.size, &s->model, &s->types);
        if (status < 0) status = pgi_diagnose_bytes(status, s->model_path, file.data, file.size);
    }
    pgi_buffer_free(&file);
    return status;
}

/* The flag of a token's object, `otherwise` when it is left out. */
static pg_status read_flag(const char *path, const pgi_json *object, const char *key, int otherwise, uint8_t *out) {
    const pgi_json *value = pgi_json_get(object, key);
    *out = (uint8_t)otherwise;
    if (!value || pgi_json_is(value, PGI_JSON_NULL)) return PG_OK;
    if (!pgi_json_is_boolean(value))
        return pgi_error(PG_ERROR_FORMAT, "%s: an added token's %s is neither true nor false", path, key);
    *out = pgi_json_is(value, PGI_JSON_TRUE);
    return PG_OK;
}

/* A token as a string (which makes it special) or as the members of tokenizers.AddedToken. */
static pg_status read_token(const char *path, const char *key, const pgi_json *value, token *out) {
    *out = (token){.flags = {.special = 1}};
    const pgi_json *content = pgi_json_is(value, PGI_JSON_OBJECT) ? pgi_json_get(value, "content") : value;
    if (!pgi_json_is(content, PGI_JSON_STRING))
        return pgi_error(PG_ERROR_FORMAT, "%s: %s: expected a token: a string, or an object with \"content\"", path,
                         key);
    out->text = pgi_json_text(content);
    out->size = pgi_json_text_size(content);
    if (content == value) return PG_OK;
    PGI_TRY(read_flag(path, value, "special", 0, &out->flags.special));
    PGI_TRY(read_flag(path, value, "normalized", !out->flags.special, &out->flags.normalized));
    PGI_TRY(read_flag(path, value, "single_word", 0, &out->flags.single_word));
    PGI_TRY(read_flag(path, value, "lstrip", 0, &out->flags.lstrip));
    return read_flag(path, value, "rstrip", 0, &out->flags.rstrip);
}

/* The value of a key of tokenizer_config.json; special_tokens_map.json, where it counts, overrides it. */
static const pgi_json *setting(const sources *s, const char *key) {
    const pgi_json *value = pgi_json_get(s->map, key);
    return value ? value : pgi_json_get(s->config, key);
}

static const char *path_of_setting(const sources *s, const char *key) {
    return pgi_json_get(s->map, key) ? s->map_path : s->config_path;
}

static int is_true(const pgi_json *value) {
    return pgi_json_is(value, PGI_JSON_TRUE) || pgi_json_n_items(value) > 0 || pgi_json_n_members(value) > 0;
}

static pg_status decoder_push(sources *s, token t) {
    PGI_TRY(pgi_grow(s->memory, &s->decoder, &s->decoder_capacity, s->n_decoder + 1, sizeof t));
    t.number = s->n_decoder;
    s->decoder[s->n_decoder++] = t;
    return PG_OK;
}

static pg_status read_id(const char *path, const pgi_json *value, uint64_t *id) {
    double number = pgi_json_is_number(value) ? pgi_json_number(value) : -1;
    if (!(number >= 0 && number < PGI_MAX_IDS) || number != (double)(uint64_t)number)
        return pgi_error(PG_ERROR_FORMAT, "%s: an added token's id is not a whole number from 0 to %d", path,
                         PGI_MAX_IDS - 1);
    *id = (uint64_t)number;
    return PG_OK;
}

static pg_status read_file_tokens(sources *s) {
    size_t n = pgi_json_n_items(s->json.added_tokens);
    if (s->json.added_tokens && !pgi_json_is(s->json.added_tokens, PGI_JSON_ARRAY))
        return pgi_error(PG_ERROR_FORMAT, "%s: added_tokens is not an array", s->json_path);
    for (size_t i = 0; i < n; i++) {
        token t;
        const pgi_json *value = pgi_json_item(s->json.added_tokens, i);
        PGI_TRY(read_token(s->json_path, "added_tokens", value, &t));
        PGI_TRY(read_id(s->json_path, pgi_json_get(value, "id"), &t.id));
        PGI_TRY(decoder_push(s, t));
    }
    return PG_OK;
}

static int is_named(const sources *s, const token *t, int with_extra);

static pg_status read_decoder(sources *s) {
    const pgi_json *given = pgi_json_get(s->config, "added_tokens_decoder");
    const char *key;
    const pgi_json *value;
    token t;
    if (given) {
        if (!pgi_json_is(given, PGI_JSON_OBJECT))
            return pgi_error(PG_ERROR_FORMAT, "%s: added_tokens_decoder is not an object", s->config_path);
        for (size_t i = 0; (value = pgi_json_member(given, i, &key)) != NULL; i++) {
            char *end;
            unsigned long long id = strtoull(key, &end, 10);
            if (end == key || *end || id >= PGI_MAX_IDS)
                return pgi_error(PG_ERROR_FORMAT, "%s: added_tokens_decoder: found the key \"%.60s\", expected an id",
                                 s->config_path, key);
            PGI_TRY(read_token(s->config_path, "added_tokens_decoder", value, &t));
            t.id = id;
            PGI_TRY(decoder_push(s, t));
        }
        return PG_OK;
    }
    /* The older files; the later win. */
    for (size_t i = 0; (value = pgi_json_member(s->added, i, &key)) != NULL; i++) {
        t = (token){.text = key, .size = strlen(key)};
        PGI_TRY(read_id(s->added_path, value, &t.id));
        t.flags.special = (uint8_t)is_named(s, &t, 1);
        t.flags.normalized = !t.flags.special;
        PGI_TRY(decoder_push(s, t));
    }
    return s->has_json ? read_file_tokens(s) : PG_OK;
}

static int by_id(const void *a, const void *b) {
    const token *x = a, *y = b;
    if (x->id != y->id) return x->id < y->id ? -1 : 1;
    return x->number < y->number ? -1 : x->number > y->number;
}

static void sort_decoder(sources *s) {
    size_t n = 0;
    if (s->n_decoder) qsort(s->decoder, s->n_decoder, sizeof *s->decoder, by_id);
    for (size_t i = 0; i < s->n_decoder; i++)
        if (i + 1 == s->n_decoder || s->decoder[i + 1].id != s->decoder[i].id) s->decoder[n++] = s->decoder[i];
    s->n_decoder = n;
}

/* Whether a key of the config names a token that only this model has, such as "image_token". */
static int is_model_token(const char *key, const pgi_json *value) {
    size_t n = strlen(key);
    if (n < 6 || strcmp(key + n - 6, "_token") != 0) return 0;
    if (!pgi_json_is(value, PGI_JSON_STRING) && !pgi_json_is(pgi_json_get(value, "content"), PGI_JSON_STRING)) return 0;
    for (int i = 0; i < N_NAMED; i++)
        if (strcmp(key, named_tokens[i].key) == 0) return 0;
    return 1;
}

typedef pg_status (*token_fn)(void *user, const char *key, const token *t);

static pg_status visit_object(const char *path, const pgi_json *object, int all, token_fn visit, void *user) {
    const char *key;
    const pgi_json *value;
    for (size_t i = 0; (value = pgi_json_member(object, i, &key)) != NULL; i++) {
        token t;
        if (!all && !is_model_token(key, value)) continue;
        PGI_TRY(read_token(path, key, value, &t));
        PGI_TRY(visit(user, key, &t));
    }
    return PG_OK;
}

/* Each token that has a name (HF's _special_tokens_map), in HF's order. */
static pg_status visit_named(const sources *s, token_fn visit, void *user) {
    for (int i = 0; i < N_NAMED; i++) {
        const char *key = named_tokens[i].key;
        const pgi_json *value = setting(s, key);
        token t = {.flags = {.special = 1}};
        if (value && !pgi_json_is(value, PGI_JSON_NULL)) {
            PGI_TRY(read_token(path_of_setting(s, key), key, value, &t));
        } else if (!value && s->is_gemma && named_tokens[i].gemma &&
                   (s->has_class || strcmp(key, "mask_token") != 0)) { /* a bare tokenizer.model names no mask */
            t.text = named_tokens[i].gemma;
            t.size = strlen(t.text);
        } else if (!value && named_tokens[i].which == PGI_TOKEN_PAD && pgi_json_get(s->json.padding, "pad_token")) {
            PGI_TRY(read_token(s->json_path, "padding", pgi_json_get(s->json.padding, "pad_token"), &t));
        } else {
            continue;
        }
        PGI_TRY(visit(user, key, &t));
    }
    PGI_TRY(visit_object(s->config_path, s->config, 0, visit, user));
    PGI_TRY(visit_object(s->map_path, s->map, 0, visit, user));
    const pgi_json *extra = setting(s, "extra_special_tokens");
    return pgi_json_is(extra, PGI_JSON_OBJECT)
               ? visit_object(path_of_setting(s, "extra_special_tokens"), extra, 1, visit, user)
               : PG_OK;
}

/* Each token of a list of the config. */
static pg_status visit_list(const char *path, const char *key, const pgi_json *list, token_fn visit, void *user) {
    if (list && !pgi_json_is(list, PGI_JSON_ARRAY) && !pgi_json_is(list, PGI_JSON_OBJECT) &&
        !pgi_json_is(list, PGI_JSON_NULL))
        return pgi_error(PG_ERROR_FORMAT, "%s: %s is not an array", path, key);
    for (size_t i = 0; pgi_json_is(list, PGI_JSON_ARRAY) && i < pgi_json_n_items(list); i++) {
        token t;
        PGI_TRY(read_token(path, key, pgi_json_item(list, i), &t));
        PGI_TRY(visit(user, key, &t));
    }
    return PG_OK;
}

/* Each extra special token; *given: a file lists them (even none), so those of tokenizer.model do not count. */
static pg_status visit_extra(const sources *s, token_fn visit, void *user, int *given) {
    static const char extra_key[] = "extra_special_tokens", older_key[] = "additional_special_tokens";
    const pgi_json *extra = pgi_json_get(s->config, extra_key), *older = pgi_json_get(s->config, older_key);
    const char *key = extra_key;
    if (older && !is_true(extra)) {
        extra = older;
        key = older_key;
    }
    const pgi_json *more = pgi_json_get(s->map, extra_key);
    *given = (extra && !pgi_json_is(extra, PGI_JSON_OBJECT)) || pgi_json_is(more, PGI_JSON_ARRAY);
    PGI_TRY(visit_list(s->config_path, key, extra, visit, user));
    PGI_TRY(visit_list(s->map_path, extra_key, more, visit, user));
    return PG_OK;
}

static pg_status collect(void *user, const char *key, const token *t) {
    pgi_vocab *set = user;
    if (t->size > PGI_MAX_PIECE || pgi_vocab_find(set, t->text, t->size) >= 0) return PG_OK;
    return pgi_vocab_put(set, set->n, t->text, t->size, key, "named tokens");
}

/* Errors in the files show up when the tokens are added; here they only end the search. */
static pg_status collect_named(sources *s) {
    int given;
    if (visit_named(s, collect, &s->named) == PG_ERROR_MEMORY) return PG_ERROR_MEMORY;
    pg_status status = visit_named(s, collect, &s->listed);
    if (status >= 0) status = visit_extra(s, collect, &s->listed, &given);
    return status == PG_ERROR_MEMORY ? status : PG_OK;
}

static int is_named(const sources *s, const token *t, int with_extra) {
    return pgi_vocab_find(with_extra ? &s->listed : &s->named, t->text, t->size) >= 0;
}

typedef struct adding {
    const sources *s;
    pgi_tokenizer *tokenizer;
} adding;

static pg_status add(const adding *a, const token *t) {
    PGI_TRY(pgi_cancel_check(a->s->cancel));
    return pgi_added_tokens_add(&a->tokenizer->added, &a->tokenizer->vocab, t->text, t->size, t->flags,
                                a->s->config_path);
}

static int is_added(const pgi_tokenizer *tokenizer, const token *t) {
    return pgi_added_tokens_of(&tokenizer->added, pgi_vocab_find(&tokenizer->vocab, t->text, t->size)) != NULL;
}

static pg_status add_named(void *user, const char *key, const token *t) {
    const adding *a = user;
    token special = *t;
    (void)key;
    special.flags.special = 1;
    return is_added(a->tokenizer, t) ? PG_OK : add(a, &special);
}

static pg_status add_extra(void *user, const char *key, const token *t) {
    (void)key;
    return is_added(((const adding *)user)->tokenizer, t) ? PG_OK : add(user, t);
}

/* The control and user-defined pieces of tokenizer.model (SentencePieceExtractor.extract). */
static pg_status add_model_tokens(const adding *a) {
    for (size_t id = 0; id < a->s->model.n; id++) {
        uint8_t type = a->s->types.data[id];
        if (type != PGI_PIECE_CONTROL && type != PGI_PIECE_USER_DEFINED) continue;
        token t = {.flags = {.special = type == PGI_PIECE_CONTROL}};
        t.text = pgi_vocab_text(&a->s->model, id, &t.size);
        if (!is_added(a->tokenizer, &t)) PGI_TRY(add(a, &t));
    }
    return PG_OK;
}

static pg_status remember(void *user, const char *key, const token *t) {
    const adding *a = user;
    int64_t *specials = a->tokenizer->specials, id = pgi_vocab_find(&a->tokenizer->vocab, t->text, t->size);
    for (int i = 0; i < N_NAMED; i++)
        if (named_tokens[i].which >= 0 && strcmp(key, named_tokens[i].key) == 0) specials[named_tokens[i].which] = id;
    if (strcmp(key, "image_token") != 0) return PG_OK;
    if (t->size != strlen(image_token) || memcmp(t->text, image_token, t->size) != 0)
        return pgi_error(PG_ERROR_UNSUPPORTED, "%s: image_token is \"%.60s\", expected \"%s\"", a->s->config_path,
                         t->text, image_token);
    specials[PGI_TOKEN_IMAGE] = id;
    return PG_OK;
}

/* PaliGemmaProcessor.__init__; with PG_PROCESSOR_TEXT_ONLY nothing is added. */
static pg_status add_processor_tokens(const adding *a) {
    const int text_only = (a->s->flags & PG_PROCESSOR_TEXT_ONLY) != 0;
    int64_t *image = &a->tokenizer->specials[PGI_TOKEN_IMAGE];
    token t = {.text = image_token, .size = strlen(image_token), .flags = {.special = 1}};
    if (*image < 0 && (!text_only || is_added(a->tokenizer, &t))) {
        if (!text_only) PGI_TRY(add(a, &t));
        *image = pgi_vocab_find(&a->tokenizer->vocab, t.text, t.size);
    }
    for (int i = 0; i < 1024 + 128 && !text_only; i++) {
        char text[16];
        snprintf(text, sizeof text, i < 1024 ? "<loc%04d>" : "<seg%03d>", i < 1024 ? i : i - 1024);
        t = (token){.text = text, .size = strlen(text), .flags = {.normalized = 1}};
        PGI_TRY(add(a, &t));
    }
    return PG_OK;
}

static pg_status add_tokens(const sources *s, pgi_tokenizer *tokenizer) {
    adding a = {.s = s, .tokenizer = tokenizer};
    int given;
    if (!s->is_gemma) { /* the file's own come first, as they stand there */
        for (size_t i = 0; i < pgi_json_n_items(s->json.added_tokens); i++) {
            token t;
            PGI_TRY(read_token(s->json_path, "added_tokens", pgi_json_item(s->json.added_tokens, i), &t));
            PGI_TRY(add(&a, &t));
        }
    }
    for (size_t i = 0; i < s->n_decoder; i++) {
        token t = s->decoder[i];
        const pgi_added_token *there =
            pgi_added_tokens_of(&tokenizer->added, pgi_vocab_find(&tokenizer->vocab, t.text, t.size));
        if (there && memcmp(&there->flags, &t.flags, sizeof t.flags) == 0) continue;
        if (!t.flags.special) t.flags.special = (uint8_t)is_named(s, &t, 0);
        PGI_TRY(add(&a, &t));
    }
    PGI_TRY(visit_named(s, add_named, &a));
    PGI_TRY(visit_extra(s, add_extra, &a, &given));
    if (!given && s->has_json) {
        static const char key[] = "additional_special_tokens";
        PGI_TRY(visit_list(s->map_path, key, pgi_json_get(s->map, key), add_extra, &a));
    }
    if (!given && !s->has_json) PGI_TRY(add_model_tokens(&a));
    PGI_TRY(visit_named(s, remember, &a));
    return add_processor_tokens(&a);
}

/* Refuses settings that change the text of ids, or the ids of text. */
static pg_status check_config(const sources *s) {
    if (pgi_json_is(setting(s, "clean_up_tokenization_spaces"), PGI_JSON_TRUE) &&
        pgi_json_is(setting(s, "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"),
                    PGI_JSON_TRUE))
        return pgi_error(PG_ERROR_UNSUPPORTED, "%s: clean_up_tokenization_spaces is forced on, expected it to be off",
                         s->config_path);
    if (pgi_json_is(setting(s, "split_special_tokens"), PGI_JSON_TRUE))
        return pgi_error(PG_ERROR_UNSUPPORTED, "%s: split_special_tokens is true, expected false", s->config_path);
    return PG_OK;
}

static int string_is(const pgi_json *object, const char *key, const char *wanted) {
    const char *value = pgi_json_text(pgi_json_get(object, key));
    return value && strcmp(value, wanted) == 0;
}

/* {"type": "Replace", "pattern": {"String": from}, "content": to} */
static int is_replace(const pgi_json *node, const char *from, const char *to) {
    return string_is(node, "type", "Replace") && string_is(pgi_json_get(node, "pattern"), "String", from) &&
           string_is(node, "content", to);
}

/* The member `key` of a Sequence, or the node itself when it is none and i is 0. */
static const pgi_json *part_of(const pgi_json *node, const char *key, size_t i) {
    if (string_is(node, "type", "Sequence")) return pgi_json_item(pgi_json_get(node, key), i);
    return i == 0 ? node : NULL;
}

/* The pipeline of a tokenizer.json that is not opened as GemmaTokenizer: it must be Gemma's all the same. */
static pg_status check_pipeline(const sources *s, pgi_tokenizer *tokenizer) {
    const pgi_tokenizer_json *json = &s->json;
    const char *wrong = NULL;
    const pgi_json *split = json->pre_tokenizer, *dropout = pgi_json_get(&json->model, "dropout");
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (int i = 0; i < 2; i++) {
        const pgi_json *affix = pgi_json_get(&json->model, affixes[i]);
        if (affix && !pgi_json_is(affix, PGI_JSON_NULL) && pgi_json_text_size(affix) > 0) wrong = "model";
    }
    if (dropout && !pgi_json_is(dropout, PGI_JSON_NULL) && pgi_json_number(dropout) != 0) wrong = "model";
    if (pgi_json_is(pgi_json_get(&json->model, "ignore_merges"), PGI_JSON_TRUE)) wrong = "model";
    if (split && !(string_is(split, "type", "Split") && string_is(pgi_json_get(split, "pattern"), "String", " ") &&
                   string_is(split, "behavior", "MergedWithPrevious") && json->normalizer))
        wrong = "pre_tokenizer";
    const pgi_json *fuse = part_of(json->decoder, "decoders", 2);
    if (!is_replace(part_of(json->decoder, "decoders", 0), "\xE2\x96\x81", " ") ||
        !string_is(part_of(json->decoder, "decoders", 1), "type", "ByteFallback") ||
        (fuse && !string_is(fuse, "type", "Fuse")) || part_of(json->decoder, "decoders", 3))
        wrong = "decoder";
    if (json->normalizer && (!is_replace(part_of(json->normalizer, "normalizers", 0), " ", "\xE2\x96\x81") ||
                             part_of(json->normalizer, "normalizers", 1)))
        wrong = "normalizer";
    if (wrong) return pgi_error(PG_ERROR_UNSUPPORTED, "%s: %s is not that of a Gemma tokenizer", s->json_path, wrong);
    tokenizer->replace_spaces = json->normalizer != NULL;
    return PG_OK;
}

/* The first id whose piece differs; -1: they have the same. Older converters wrote "\t" for <0x09>. */
static int64_t first_difference(const pgi_vocab *model, const pgi_vocab *json) {
    size_t id = 0;
    for (; id < model->n && id < json->n; id++) {
        size_t n, m;
        const char *a = pgi_vocab_text(model, id, &n), *b = pgi_vocab_text(json, id, &m);
        if (n == m && memcmp(a, b, n) == 0) continue;
        if (strcmp(a, "<0x09>") != 0 || strcmp(b, "\t") != 0) return (int64_t)id;
    }
    return model->n == json->n ? -1 : (int64_t)id;
}

/* Marks special tokens that sentencepiece would read as plain text: bos, eos, pad, unk and <image>; and those that
 * tokenizer.model, where it was read, does not have as USER_DEFINED pieces. */
static void mark_control(const sources *s, pgi_tokenizer *tokenizer) {
    for (size_t id = 0; tokenizer->source == 1 && id < tokenizer->added.n_ids; id++) {
        int is_piece = id < s->model.n && s->types.data[id] == PGI_PIECE_USER_DEFINED;
        if (pgi_added_tokens_is_special(&tokenizer->added, (int64_t)id) && !is_piece)
            pgi_added_tokens_set_control(&tokenizer->added, (int64_t)id);
    }
    for (int i = 0; i < PGI_N_SPECIALS; i++) pgi_added_tokens_set_control(&tokenizer->added, tokenizer->specials[i]);
}

static pg_status make_bpe(const sources *s, pgi_tokenizer *tokenizer, const pgi_merges *merges) {
    pgi_bpe_settings settings = {.unk_id = PGI_UNK_MISSING,
                                 .byte_fallback = 1,
                                 .fuse_unk = 1,
                                 .by_sentencepiece = (s->flags & PG_PROCESSOR_SENTENCEPIECE) != 0};
    int64_t unk = tokenizer->specials[PGI_TOKEN_UNK];
    if (!s->is_gemma) {
        const pgi_json *name = pgi_json_get(&s->json.model, "unk_token");
        settings.byte_fallback = pgi_json_is(pgi_json_get(&s->json.model, "byte_fallback"), PGI_JSON_TRUE);
        settings.fuse_unk = pgi_json_is(pgi_json_get(&s->json.model, "fuse_unk"), PGI_JSON_TRUE);
        unk = pgi_json_is(name, PGI_JSON_STRING)
                  ? pgi_vocab_find(&tokenizer->vocab, pgi_json_text(name), pgi_json_text_size(name))
                  : -1;
        if (!pgi_json_is(name, PGI_JSON_STRING)) settings.unk_id = PGI_UNK_DROP;
    }
    if (unk >= 0 && (size_t)unk < tokenizer->n_pieces) settings.unk_id = unk;
    uint8_t *banned = pgi_alloc_zero(&tokenizer->memory, tokenizer->n_pieces, 1);
    if (!banned) return PG_ERROR_MEMORY;
    for (size_t id = 0; id < tokenizer->n_pieces; id++)
        banned[id] = (uint8_t)pgi_added_tokens_is_special(&tokenizer->added, (int64_t)id);
    settings.banned = banned;
    pg_status status =
        pgi_bpe_create(&tokenizer->memory, &tokenizer->vocab, tokenizer->n_pieces, merges, &settings, &tokenizer->bpe);
    pgi_free(&tokenizer->memory, banned);
    return status;
}

static pg_status load_sources(sources *s, const char *folder) {
    const pgi_memory *memory = s->memory;
    s->json_path = pgi_path_join(memory, folder, "tokenizer.json");
    s->model_path = pgi_path_join(memory, folder, "tokenizer.model");
    s->config_path = pgi_path_join(memory, folder, "tokenizer_config.json");
    s->map_path = pgi_path_join(memory, folder, "special_tokens_map.json");
    s->added_path = pgi_path_join(memory, folder, "added_tokens.json");
    if (!s->json_path || !s->model_path || !s->config_path || !s->map_path || !s->added_path) return PG_ERROR_MEMORY;
    s->has_json = pgi_file_exists(s->json_path);
    s->has_model = pgi_file_exists(s->model_path);
    if (!s->has_json && !s->has_model)
        return pgi_error(PG_ERROR_NOT_FOUND,
                         "%s: found neither tokenizer.model nor tokenizer.json; give a folder with the files of the "
                         "processor, such as that of the base model",
                         folder);
    PGI_TRY(load_optional(s, s->config_path, &s->config));
    PGI_TRY(check_config(s));
    const pgi_json *class_name = pgi_json_get(s->config, "tokenizer_class");
    s->has_class = pgi_json_is(class_name, PGI_JSON_STRING);
    s->is_gemma = s->has_class ? strncmp(pgi_json_text(class_name), "GemmaTokenizer", 14) == 0 : !s->has_json;
    if (!s->has_json && !s->is_gemma)
        return pgi_error(PG_ERROR_UNSUPPORTED,
                         "%s: tokenizer_class is \"%.60s\", expected \"GemmaTokenizer\" beside a "
                         "tokenizer.model",
                         s->config_path, pgi_json_text(class_name));
    if (!pgi_json_get(s->config, "added_tokens_decoder")) {
        PGI_TRY(load_optional(s, s->map_path, &s->map));
        PGI_TRY(load_optional(s, s->added_path, &s->added));
    }
    if (s->has_json) {
        pg_status status = pgi_tokenizer_json_load(memory, s->json_path, s->cancel, &s->json);
        if (status < 0) return pgi_diagnose_file(status, s->json_path);
    }
    if (s->has_model) PGI_TRY(load_model_file(s));
    PGI_TRY(collect_named(s));
    PGI_TRY(read_decoder(s));
    sort_decoder(s);
    return PG_OK;
}

static pg_status copy_vocab(const pgi_vocab *from, pgi_vocab *to, const char *file) {
    for (size_t id = 0; id < from->n; id++) {
        size_t size;
        const char *text = pgi_vocab_text(from, id, &size);
        PGI_TRY(pgi_vocab_put(to, id, text, size, file, "pieces"));
    }
    return PG_OK;
}

pg_status pgi_tokenizer_load(pgi_tokenizer *tokenizer, const char *folder, uint32_t flags, const pg_cancel *cancel) {
    const pgi_memory *memory = &tokenizer->memory;
    sources s = {.memory = memory, .cancel = cancel, .flags = flags, .doc.memory = memory};
    pg_status status;
    pgi_merges generated;
    pgi_merges_init(&generated, memory);
    pgi_vocab_init(&s.model, memory);
    pgi_vocab_init(&s.named, memory);
    pgi_vocab_init(&s.listed, memory);
    pgi_buffer_init(&s.types, memory);
    pgi_vocab_init(&tokenizer->vocab, memory);
    pgi_added_tokens_init(&tokenizer->added, memory);
    for (int i = 0; i < PGI_N_SPECIALS; i++) tokenizer->specials[i] = -1;

    PGI_GOTO(load_sources(&s, folder), done);
    PGI_GOTO(pgi_cancel_check(cancel), done);
    tokenizer->defaults.pad_left = s.is_gemma && s.has_class; /* other classes, and none, pad on the right */
    PGI_GOTO(pgi_tokenizer_defaults_read(s.config_path, s.config, s.json_path, &s.json, &tokenizer->defaults), done);
    tokenizer->replace_spaces = 1;
    if (s.has_json && !s.is_gemma) PGI_GOTO(check_pipeline(&s, tokenizer), done);
    /* HF reads tokenizer.json when both are there. They hold the same, unless someone mixed two models. */
    tokenizer->differs_from_model = s.has_model && s.has_json ? first_difference(&s.model, &s.json.vocab) : -1;
    tokenizer->source = s.has_model && tokenizer->differs_from_model < 0 ? 1 : 2;
    const char *file = s.has_json ? s.json_path : s.model_path;
    PGI_GOTO(copy_vocab(s.has_json ? &s.json.vocab : &s.model, &tokenizer->vocab, file), done);
    tokenizer->n_pieces = tokenizer->vocab.n;
    if (!s.has_json) PGI_GOTO(pgi_merges_generate(&tokenizer->vocab, cancel, &generated), done);
    PGI_GOTO(add_tokens(&s, tokenizer), done);
    PGI_GOTO(pgi_added_tokens_finish(&tokenizer->added, &tokenizer->vocab, tokenizer->replace_spaces, cancel, file),
             done);
    mark_control(&s, tokenizer);
    PGI_GOTO(pgi_cancel_check(cancel), done);
    status = make_bpe(&s, tokenizer, s.has_json ? &s.json.merges : &generated);
done:
    pgi_merges_free(&generated);
    if (s.json.vocab.memory) pgi_tokenizer_json_free(&s.json);
    pgi_vocab_free(&s.model);
    pgi_vocab_free(&s.named);
    pgi_vocab_free(&s.listed);
    pgi_buffer_free(&s.types);
    pgi_json_doc_free(&s.doc);
    pgi_free(memory, s.decoder);
    pgi_free(memory, s.json_path);
    pgi_free(memory, s.model_path);
    pgi_free(memory, s.config_path);
    pgi_free(memory, s.map_path);
    pgi_free(memory, s.added_path);
    return status;
}

pg_status pgi_tokenizer_open(const pgi_memory *memory, const char *folder, uint32_t flags, const pg_cancel *cancel,
                             pgi_tokenizer **out) {
    pgi_tokenizer *tokenizer = pgi_alloc_zero(memory, 1, sizeof *tokenizer);
    *out = NULL;
    if (!tokenizer) return PG_ERROR_MEMORY;
    tokenizer->memory = *memory;
    pg_status status = pgi_tokenizer_load(tokenizer, folder, flags, cancel);
    if (status < 0) pgi_tokenizer_close(&tokenizer);
    *out = tokenizer;
    return status;
}
