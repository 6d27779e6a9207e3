/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * lib/tokenizer/tokenizer.h against what transformers 5.23 gave (tests/golden/make_tokenizers.py), the stream
 * decoder against the whole, and what broken tokenizer files are answered with.
 */
#include "run_tests.h"

#include <jansson.h>

#include "base/file.h"
#include "base/utf8.h"
#include "checkpoint_files.h"
#include "checkpoint/json_reader.h"
#include "processor/layout.h"
#include "tokenizer/spm_model.h"
#include "tokenizer/spm_wrapper.h"
#include "tokenizer/stream_decoder.h"
#include "tokenizer/tokenizer_load.h"

#define TOKENIZERS PGI_GOLDEN_FOLDER "/tokenizers/"
static const char *const kinds[] = {"spm", "json", "partial", "words", "backend", "older"};
static const uint32_t by[] = {0, PG_PROCESSOR_SENTENCEPIECE}; /* the two that merge, to the same ids */

static pgi_tokenizer *open_kind(const char *kind, uint32_t flags) {
    char path[1024];
    snprintf(path, sizeof path, "%s%s", TOKENIZERS, kind);
    pgi_tokenizer *tokenizer = pgi_alloc_zero(MEMORY, 1, sizeof *tokenizer);
    assert_non_null(tokenizer);
    tokenizer->memory = *MEMORY;
    if (pgi_tokenizer_load(tokenizer, path, flags, NULL) != PG_OK) fail_msg("%s", pgi_error_text());
    return tokenizer;
}

/* ------------------------------------------------------------------------------------------------- Golden cases */

static json_t *cases;

static int load_cases(void **state) {
    (void)state;
    json_error_t error;
    cases = json_load_file(TOKENIZERS "cases.json", JSON_ALLOW_NUL, &error);
    return cases ? 0 : -1;
}

static int drop_cases(void **state) {
    (void)state;
    json_decref(cases);
    return 0;
}

static void assert_ids(const char *kind, const char *what, size_t number, const pgi_id_list *found,
                       const json_t *wanted) {
    if (found->size != json_array_size(wanted))
        fail_msg("%s, %s %zu: %zu ids, expected %zu", kind, what, number, found->size, json_array_size(wanted));
    for (size_t i = 0; i < found->size; i++)
        if (found->data[i] != json_integer_value(json_array_get(wanted, i)))
            fail_msg("%s, %s %zu: id %zu is %lld, expected %lld", kind, what, number, i, (long long)found->data[i],
                     (long long)json_integer_value(json_array_get(wanted, i)));
}

/* The prompt of one row with three image tokens an image. */
static pg_status layout(const pgi_tokenizer *tokenizer, const char *prompt, size_t size, pgi_id_list *ids) {
    pgi_text text = {prompt, size};
    pgi_layout one = {tokenizer, 3, 0, pgi_layout_count_images(text) > 0};
    uint32_t events;
    return pgi_layout_prefix(&one, text, 1, ids, &events);
}

/* The cases under `what`: [text, ids]. */
static void check_texts(const char *kind, const pgi_tokenizer *tokenizer, const char *what) {
    size_t i;
    json_t *entry;
    const json_t *list = json_object_get(json_object_get(cases, kind), what);
    if (strcmp(what, "literal") != 0) assert_true(json_array_size(list) > 10);
    json_array_foreach((json_t *)(uintptr_t)list, i, entry) {
        const json_t *text = json_array_get(entry, 0);
        pgi_id_list ids;
        pgi_id_list_init(&ids, MEMORY);
        pg_status status = strcmp(what, "layout") == 0
                               ? layout(tokenizer, json_string_value(text), json_string_length(text), &ids)
                               : pgi_tokenizer_tokenize(tokenizer, json_string_value(text), json_string_length(text),
                                                        strcmp(what, "literal") == 0, &ids);
        if (status != PG_OK) fail_msg("%s, %s %zu: %s", kind, what, i, pgi_error_text());
        assert_ids(kind, what, i, &ids, json_array_get(entry, 1));
        pgi_id_list_free(&ids);
    }
}

/* All that the pieces and the flush give; each piece must be whole characters. */
static void decode_by_pieces(const pgi_tokenizer *tokenizer, const pgi_id_list *ids, int skip, pgi_buffer *out) {
    pgi_stream_decoder decoder;
    pgi_stream_decoder_init(&decoder, tokenizer, skip);
    for (size_t i = 0; i <= ids->size; i++) {
        size_t before = out->size;
        assert_int_equal(i < ids->size ? pgi_stream_decoder_push(&decoder, ids->data[i], out)
                                       : pgi_stream_decoder_flush(&decoder, out),
                         PG_OK);
        size_t n = out->size - before;
        if (n) assert_int_equal(pgi_utf8_valid_prefix(out->data + before, n), n);
    }
    assert_int_equal(decoder.held.size, 0);
    pgi_stream_decoder_free(&decoder);
}

static void assert_decodes(const pgi_tokenizer *tokenizer, const pgi_id_list *ids, int skip, const json_t *wanted) {
    pgi_buffer text, pieces;
    pgi_buffer_init(&text, MEMORY);
    pgi_buffer_init(&pieces, MEMORY);
    assert_int_equal(pgi_tokenizer_decode(tokenizer, ids->data, ids->size, skip, &text), PG_OK);
    if (wanted) {
        assert_int_equal(text.size, json_string_length(wanted));
        assert_memory_equal(text.data, json_string_value(wanted), text.size);
    }
    decode_by_pieces(tokenizer, ids, skip, &pieces);
    assert_int_equal(pieces.size, text.size);
    if (text.size) assert_memory_equal(pieces.data, text.data, text.size);
    pgi_buffer_free(&text);
    pgi_buffer_free(&pieces);
}

static void check_decode(const char *kind, const pgi_tokenizer *tokenizer) {
    size_t i, k;
    json_t *entry, *id;
    const json_t *list = json_object_get(json_object_get(cases, kind), "decode");
    assert_true(json_array_size(list) > 10);
    json_array_foreach((json_t *)(uintptr_t)list, i, entry) {
        pgi_id_list ids;
        pgi_id_list_init(&ids, MEMORY);
        json_array_foreach(json_array_get(entry, 0), k, id)
            assert_int_equal(pgi_id_list_push(&ids, json_integer_value(id)), PG_OK);
        assert_decodes(tokenizer, &ids, 0, json_array_get(entry, 1));
        assert_decodes(tokenizer, &ids, 1, json_array_get(entry, 2));
        pgi_id_list_free(&ids);
    }
}

static void the_cases_of_transformers(void **state) {
    (void)state;
    for (size_t k = 0; k < COUNT(kinds); k++) {
        for (size_t b = 0; b < COUNT(by); b++) {
            pgi_tokenizer *tokenizer = open_kind(kinds[k], by[b]);
            const json_t *wanted = json_object_get(cases, kinds[k]);
            assert_int_equal(pgi_tokenizer_n_ids(tokenizer), json_integer_value(json_object_get(wanted, "n_ids")));
            for (int i = 0; i < PGI_N_SPECIALS; i++)
                assert_int_equal(pgi_tokenizer_special(tokenizer, i),
                                 json_integer_value(json_array_get(json_object_get(wanted, "special"), (size_t)i)));
            check_texts(kinds[k], tokenizer, "encode");
            check_texts(kinds[k], tokenizer, "literal");
            check_texts(kinds[k], tokenizer, "layout");
            check_decode(kinds[k], tokenizer);
            pgi_tokenizer_close(&tokenizer);
        }
    }
}

/* Asked for, sentencepiece does the work where it can, and is there; a list of merges that it cannot follow is followed
 * without it. */
static void sentencepiece_where_it_is_exact(void **state) {
    (void)state;
#ifdef PGI_SENTENCEPIECE
    const int is_there = 1;
#else
    const int is_there = 0;
#endif
    static const int uses[COUNT(kinds)] = {1, 1, 0, 1, 0, 1}, source[COUNT(kinds)] = {1, 2, 2, 2, 2, 2};
    for (size_t k = 0; k < COUNT(kinds); k++) {
        for (size_t b = 0; b < COUNT(by); b++) {
            pgi_tokenizer *tokenizer = open_kind(kinds[k], by[b]);
            assert_int_equal(pgi_bpe_uses_sentencepiece(tokenizer->bpe), is_there && by[b] && uses[k]);
            assert_int_equal(tokenizer->source, source[k]);
            pgi_tokenizer_close(&tokenizer);
        }
    }
}

/* ------------------------------------------------------------------------------------------------------ Properties */

static uint64_t next_random(uint64_t *seed) {
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *seed >> 33;
}

static void pieces_make_the_whole(void **state) {
    (void)state;
    pgi_tokenizer *tokenizer = open_kind("json", 0);
    uint64_t seed = 7;
    int64_t first_byte = pgi_tokenizer_piece_id(tokenizer, "<0x00>");
    assert_true(first_byte > 0);
    for (int round = 0; round < 2000; round++) {
        pgi_id_list ids;
        pgi_id_list_init(&ids, MEMORY);
        size_t n = next_random(&seed) % 24;
        for (size_t i = 0; i < n; i++) {
            /* Mostly bytes of the ranges that characters are made of, so that some runs are valid. */
            static const uint8_t bytes[] = {0xC3, 0xA9, 0xE2, 0x82, 0xAC, 0xF0, 0x9F, 0x98, 0x80, 0x41, 0xFF, 0x80};
            int64_t byte = first_byte + bytes[(next_random(&seed) % 3 + i) % COUNT(bytes)];
            int64_t any = (int64_t)next_random(&seed) % (pgi_tokenizer_n_ids(tokenizer) + 2);
            assert_int_equal(pgi_id_list_push(&ids, next_random(&seed) % 4 ? byte : any), PG_OK);
        }
        assert_decodes(tokenizer, &ids, round % 2, NULL);
        pgi_id_list_free(&ids);
    }
    pgi_tokenizer_close(&tokenizer);
}

static void text_comes_as_soon_as_it_is_known(void **state) {
    (void)state;
    pgi_tokenizer *tokenizer = open_kind("json", 0);
    pgi_stream_decoder decoder;
    pgi_buffer out;
    pgi_buffer_init(&out, MEMORY);
    pgi_stream_decoder_init(&decoder, tokenizer, 1);
    int64_t zero = pgi_tokenizer_piece_id(tokenizer, "<0x00>"), a = pgi_tokenizer_piece_id(tokenizer, "a");
    assert_int_equal(pgi_stream_decoder_push(&decoder, a, &out), PG_OK);
    assert_int_equal(out.size, 1);
    assert_int_equal(pgi_stream_decoder_push(&decoder, zero + 0xC3, &out), PG_OK);
    assert_int_equal(pgi_stream_decoder_push(&decoder, 1, &out), PG_OK); /* a skipped token ends no run */
    assert_int_equal(pgi_stream_decoder_push(&decoder, zero + 0xA9, &out), PG_OK);
    assert_int_equal(out.size, 1);
    assert_int_equal(pgi_stream_decoder_push(&decoder, a, &out), PG_OK);
    assert_string_equal(out.data,
                        "a\xC3\xA9"
                        "a");
    assert_int_equal(pgi_stream_decoder_push(&decoder, zero + 0xC3, &out), PG_OK);
    assert_int_equal(pgi_stream_decoder_flush(&decoder, &out), PG_OK);
    assert_string_equal(out.data,
                        "a\xC3\xA9"
                        "a\xEF\xBF\xBD");
    assert_error(pgi_stream_decoder_push(&decoder, -1, &out), PG_ERROR_ARGUMENT, "-1", NULL);
    pgi_stream_decoder_free(&decoder);
    pgi_buffer_free(&out);
    pgi_tokenizer_close(&tokenizer);
}

/* No text, taken literally, gives a special token. */
static void literal_text_stays_text(void **state) {
    (void)state;
    for (size_t k = 0; k < COUNT(kinds); k++) {
        pgi_tokenizer *tokenizer = open_kind(kinds[k], 0);
        int64_t unk = pgi_tokenizer_special(tokenizer, PGI_TOKEN_UNK);
        for (int64_t id = 0; id < pgi_tokenizer_n_ids(tokenizer); id++) {
            const char *piece = pgi_tokenizer_piece(tokenizer, id);
            pgi_id_list ids;
            pgi_id_list_init(&ids, MEMORY);
            assert_int_equal(pgi_tokenizer_tokenize(tokenizer, piece, strlen(piece), 1, &ids), PG_OK);
            for (size_t i = 0; i < ids.size; i++)
                assert_true(ids.data[i] == unk || !pgi_added_tokens_is_special(&tokenizer->added, ids.data[i]));
            if (strncmp(piece, "<loc0", 5) == 0) assert_true(ids.size == 1 && ids.data[0] == id);
            pgi_id_list_free(&ids);
        }
        pgi_tokenizer_close(&tokenizer);
    }
}

static void invalid_text_is_refused(void **state) {
    (void)state;
    pgi_tokenizer *tokenizer = open_kind("spm", 0);
    pgi_id_list ids;
    pgi_id_list_init(&ids, MEMORY);
    assert_error(pgi_tokenizer_tokenize(tokenizer, "ab\xFFz", 4, 0, &ids), PG_ERROR_ARGUMENT, "byte 2", "0xFF");
    assert_error(pgi_tokenizer_tokenize(tokenizer, "\xED\xA0\x80", 3, 1, &ids), PG_ERROR_ARGUMENT, "byte 0", NULL);
    assert_int_equal(ids.size, 0);
    assert_null(pgi_tokenizer_piece(tokenizer, -1));
    assert_null(pgi_tokenizer_piece(tokenizer, pgi_tokenizer_n_ids(tokenizer)));
    assert_int_equal(pgi_tokenizer_piece_id(tokenizer, "no such piece"), -1);
    pgi_id_list_free(&ids);
    pgi_tokenizer_close(&tokenizer);
}

static void a_long_text_is_fine(void **state) {
    (void)state;
    for (size_t b = 0; b < COUNT(by); b++) {
        pgi_tokenizer *tokenizer = open_kind("spm", by[b]);
        enum { N = 200000 };
        char *text = malloc(N);
        assert_non_null(text);
        memset(text, ' ', N);
        pgi_id_list ids;
        pgi_id_list_init(&ids, MEMORY);
        assert_int_equal(pgi_tokenizer_tokenize(tokenizer, text, N, 0, &ids), PG_OK);
        assert_true(ids.size >= N / 4 && ids.size < N);
        pgi_id_list_free(&ids);
        free(text);
        pgi_tokenizer_close(&tokenizer);
    }
}

/* ---------------------------------------------------------------------------------------------------- Broken files */

static void copy_kind(const char *kind, const char *name, pgi_buffer *content) {
    char path[1024];
    snprintf(path, sizeof path, "%s%s/%s", TOKENIZERS, kind, name);
    pgi_buffer_init(content, MEMORY);
    assert_int_equal(pgi_file_read(path, 1 << 24, content), PG_OK);
    write_bytes(name, content->data, content->size);
}

static void assert_refused(pg_status expected, const char *first, const char *second) {
    pgi_tokenizer *tokenizer;
    assert_error(pgi_tokenizer_open(MEMORY, folder, 0, NULL, &tokenizer), expected, first, second);
    assert_null(tokenizer);
}

static void broken_files_are_named(void **state) {
    (void)state;
    static const struct {
        const char *file, *text;
        pg_status status;
        const char *first, *second;
    } broken[] = {
        {"tokenizer.json", "", PG_ERROR_FORMAT, "tokenizer.json: line 1, column 1", "the end of the file"},
        {"tokenizer.json", "[]", PG_ERROR_FORMAT, "tokenizer.json", "expected an object"},
        {"tokenizer.json", "{\"model\":{\"type\":\"BPE\",\n\"vocab\":{\"a\":0,}", PG_ERROR_FORMAT, "line 2, column 16",
         "a key"},
        {"tokenizer.json", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}} x", PG_ERROR_FORMAT,
         "tokenizer.json", "'x'"},
        {"tokenizer.json", "{\"version\":\"1.0\"}", PG_ERROR_FORMAT, "tokenizer.json", "model is not there"},
        {"tokenizer.json", "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0.0]]}}", PG_ERROR_UNSUPPORTED,
         "model.type", "Unigram"},
        {"tokenizer.json", "{\"model\":{\"type\":\"BPE\",\"merges\":[]}}", PG_ERROR_FORMAT, "model.vocab", "not there"},
        {"tokenizer.json", "{\"model\":{\"type\":\"BPE\",\"vocab\":{}}}", PG_ERROR_FORMAT, "model.merges", "not there"},
        {"tokenizer.json", "{\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}", PG_ERROR_FORMAT, "model.vocab",
         "empty"},
        {"tokenizer.json", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}", PG_ERROR_FORMAT,
         "the id 0", "\"b\""},
        {"tokenizer.json", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"a\":1},\"merges\":[]}}", PG_ERROR_FORMAT,
         "twice", "\"a\""},
        {"tokenizer.json", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1},\"merges\":[]}}", PG_ERROR_FORMAT,
         "the id 0", NULL},
        {"tokenizer.json", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":99999999999},\"merges\":[]}}", PG_ERROR_LIMIT,
         "99999999999", NULL},
        {"tokenizer.json", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}", PG_ERROR_FORMAT,
         "whole number", NULL},
        {"tokenizer.json", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0.5},\"merges\":[]}}", PG_ERROR_FORMAT,
         "whole number", NULL},
        {"tokenizer.json", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"\\ud800\":0},\"merges\":[]}}", PG_ERROR_FORMAT,
         "surrogate", NULL},
        {"tokenizer.json", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"\xC3\":0},\"merges\":[]}}", PG_ERROR_FORMAT,
         "UTF-8", "0xC3"},
        {"tokenizer.json", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1},\"merges\":[\"a b\"]}}",
         PG_ERROR_FORMAT, "model.merges", "entry 0"},
        {"tokenizer.json", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"aa\"]}}", PG_ERROR_FORMAT,
         "a space", NULL},
        {"tokenizer.json", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]}}", PG_ERROR_FORMAT,
         "two pieces", NULL},
        {"tokenizer.json", "{\"added_tokens\":3,\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}",
         PG_ERROR_FORMAT, "added_tokens", "array"},
        {"tokenizer.json",
         "{\"added_tokens\":[{\"id\":0}],\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},"
         "\"merges\":[]}}",
         PG_ERROR_FORMAT, "added_tokens", "content"},
        {"tokenizer.json",
         "{\"added_tokens\":[{\"id\":-4,\"content\":\"x\"}],\"model\":{\"type\":\"BPE\",\"vocab\":"
         "{\"a\":0},\"merges\":[]}}",
         PG_ERROR_FORMAT, "id", NULL},
        {"tokenizer.json",
         "{\"added_tokens\":[{\"id\":1,\"content\":\"x\",\"single_word\":true}],\"model\":{\"type\":"
         "\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}",
         PG_ERROR_UNSUPPORTED, "single_word", "\"x\""},
        {"tokenizer_config.json", "[1]", PG_ERROR_FORMAT, "tokenizer_config.json", "object"},
        {"tokenizer_config.json", "{\"tokenizer_class\":", PG_ERROR_FORMAT, "tokenizer_config.json", "line 1"},
        {"tokenizer_config.json", "{\"tokenizer_class\":\"GemmaTokenizer\",\"bos_token\":7}", PG_ERROR_FORMAT,
         "tokenizer_config.json", "bos_token"},
        {"tokenizer_config.json", "{\"tokenizer_class\":\"GemmaTokenizer\",\"added_tokens_decoder\":{\"x\":\"y\"}}",
         PG_ERROR_FORMAT, "added_tokens_decoder", "\"x\""},
        {"tokenizer_config.json", "{\"tokenizer_class\":\"GemmaTokenizer\",\"extra_special_tokens\":\"y\"}",
         PG_ERROR_FORMAT, "extra_special_tokens", "array"},
        {"tokenizer_config.json", "{\"tokenizer_class\":\"GemmaTokenizer\",\"image_token\":\"<img>\"}",
         PG_ERROR_UNSUPPORTED, "image_token", "<img>"},
        {"tokenizer_config.json", "{\"tokenizer_class\":\"GemmaTokenizer\",\"split_special_tokens\":true}",
         PG_ERROR_UNSUPPORTED, "split_special_tokens", NULL},
        {"special_tokens_map.json", "{\"eos_token\":[]}", PG_ERROR_FORMAT, "special_tokens_map.json", "eos_token"},
        {"added_tokens.json", "{\"<x>\":\"y\"}", PG_ERROR_FORMAT, "added_tokens.json", "id"},
    };
    for (size_t i = 0; i < COUNT(broken); i++) {
        pgi_buffer json, config;
        copy_kind("json", "tokenizer.json", &json);
        copy_kind("json", "tokenizer_config.json", &config);
        write_text(broken[i].file, broken[i].text);
        assert_refused(broken[i].status, broken[i].first, broken[i].second);
        delete_file(broken[i].file);
        pgi_buffer_free(&json);
        pgi_buffer_free(&config);
    }
    delete_file("tokenizer.json");
    assert_refused(PG_ERROR_NOT_FOUND, "neither tokenizer.model nor tokenizer.json", folder);
}

/* What is done with all prefixes of a piece must not take hours: bytes up to the limit, and not one more. */
static void pieces_have_a_longest(void **state) {
    (void)state;
    char text[PGI_MAX_PIECE + 1];
    pgi_vocab vocab;
    pgi_vocab_init(&vocab, &pgi_memory_default);
    memset(text, 'a', sizeof text);
    assert_int_equal(pgi_vocab_put(&vocab, 0, text, PGI_MAX_PIECE, "file", "pieces"), PG_OK);
    assert_int_equal(pgi_vocab_find(&vocab, text, PGI_MAX_PIECE), 0);
    assert_int_equal(pgi_vocab_put(&vocab, 1, text, sizeof text, "file", "pieces"), PG_ERROR_LIMIT);
    assert_non_null(strstr(pg_last_error(), "1025 bytes"));
    assert_non_null(strstr(pg_last_error(), "1024"));
    pgi_vocab_free(&vocab);
}

/* The pipeline of tokenizer.json counts when its class does not bring its own. */
static void another_pipeline_is_refused(void **state) {
    (void)state;
    static const char model[] = "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]";
    static const struct {
        const char *normalizer, *decoder, *pre_tokenizer, *more, *named;
    } wrong[] = {
        {"{\"type\":\"NFC\"}", NULL, "null", "", "normalizer"},
        {"{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"_\"}]}", NULL, "null", "",
         "normalizer"},
        {NULL, "null", "null", "", "decoder"},
        {NULL, "{\"type\":\"ByteFallback\"}", "null", "", "decoder"},
        {NULL, NULL, "{\"type\":\"Whitespace\"}", "", "pre_tokenizer"},
        {NULL, NULL, "null", ",\"ignore_merges\":true", "model"},
        {NULL, NULL, "null", ",\"end_of_word_suffix\":\"</w>\"", "model"},
        {NULL, NULL, "null", ",\"dropout\":0.1", "model"},
    };
    static const char normalizer[] =
        "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\xE2\x96\x81\"}";
    static const char decoder[] =
        "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"\xE2\x96\x81\"},"
        "\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}]}";
    for (size_t i = 0; i <= COUNT(wrong); i++) {
        char text[2048];
        int good = i == COUNT(wrong);
        snprintf(text, sizeof text, "{\"normalizer\":%s,\"decoder\":%s,\"pre_tokenizer\":%s,%s%s}}",
                 good || !wrong[i].normalizer ? normalizer : wrong[i].normalizer,
                 good || !wrong[i].decoder ? decoder : wrong[i].decoder, good ? "null" : wrong[i].pre_tokenizer, model,
                 good ? "" : wrong[i].more);
        write_text("tokenizer.json", text);
        if (!good) {
            assert_refused(PG_ERROR_UNSUPPORTED, "tokenizer.json", wrong[i].named);
            continue;
        }
        pgi_tokenizer *tokenizer;
        if (pgi_tokenizer_open(MEMORY, folder, 0, NULL, &tokenizer) != PG_OK) fail_msg("%s", pgi_error_text());
        assert_int_equal(pgi_tokenizer_n_ids(tokenizer), 1 + 1 + 1024 + 128);
        pgi_tokenizer_close(&tokenizer);
    }
}

static void broken_models_are_named(void **state) {
    (void)state;
    pgi_buffer model;
    pgi_buffer_init(&model, MEMORY);
    write_text("tokenizer.model", "");
    assert_refused(PG_ERROR_FORMAT, "tokenizer.model", "no pieces");
    write_text("tokenizer.model", "not a protocol buffer");
    assert_refused(PG_ERROR_FORMAT, "tokenizer.model", "byte 0");
    assert_int_equal(pgi_spm_model_write_piece(&model, "a", 1, 0, PGI_PIECE_NORMAL), PG_OK);
    assert_int_equal(pgi_spm_model_write_piece(&model, "a", 1, 0, PGI_PIECE_NORMAL), PG_OK);
    write_bytes("tokenizer.model", model.data, model.size);
    assert_refused(PG_ERROR_FORMAT, "tokenizer.model: pieces", "twice");
    model.size = 0;
    assert_int_equal(pgi_spm_model_write_piece(&model, "a", 1, 0, 7), PG_OK);
    write_bytes("tokenizer.model", model.data, model.size);
    assert_refused(PG_ERROR_FORMAT, "piece 0", "type 7");
    model.size = 0;
    assert_int_equal(pgi_spm_model_write_piece(&model, "", 0, 0, PGI_PIECE_NORMAL), PG_OK);
    write_bytes("tokenizer.model", model.data, model.size);
    assert_refused(PG_ERROR_FORMAT, "piece 0", "no text");
    model.size = 0;
    assert_int_equal(pgi_spm_model_write_piece(&model, "\xC3", 1, 0, PGI_PIECE_NORMAL), PG_OK);
    write_bytes("tokenizer.model", model.data, model.size);
    assert_refused(PG_ERROR_FORMAT, "piece 0", "UTF-8");
    write_text("tokenizer_config.json", "{\"tokenizer_class\":\"LlamaTokenizer\"}");
    assert_refused(PG_ERROR_UNSUPPORTED, "tokenizer_class", "LlamaTokenizer");
    pgi_buffer_free(&model);

#ifdef PGI_SENTENCEPIECE
    pgi_spm *spm;
    char reason[64];
    assert_int_equal(pgi_spm_open("", 0, &spm, reason, sizeof reason), PGI_SPM_REFUSED);
    assert_null(spm);
#endif
}

/* Whatever a file holds: a status and a message, or a tokenizer that works. */
static void damage(const char *kind, const char *name, int seeds) {
    pgi_buffer content, config;
    copy_kind(kind, "tokenizer_config.json", &config);
    copy_kind(kind, name, &content);
    int opened = 0, refused = 0;
    for (int s = 0; s < seeds; s++) {
        uint64_t seed = (uint64_t)s;
        size_t size = content.size;
        uint8_t *bytes = malloc(size);
        assert_non_null(bytes);
        memcpy(bytes, content.data, size);
        next_random(&seed);
        if (s % 5 == 0) size = next_random(&seed) % size;
        for (uint64_t n = next_random(&seed) % 4; size && n < 4; n++) {
            static const char likely[] = "{}[]\",:0\\ \x80\xFF";
            char byte = s % 2 ? (char)next_random(&seed) : likely[next_random(&seed) % sizeof likely];
            bytes[next_random(&seed) % size] = (uint8_t)byte;
        }
        write_bytes(name, bytes, size);
        free(bytes);
        pgi_tokenizer *tokenizer;
        pg_status status = pgi_tokenizer_open(MEMORY, folder, 0, NULL, &tokenizer);
        if (status < 0) {
            assert_message(folder);
            refused++;
            continue;
        }
        opened++;
        pgi_id_list ids;
        pgi_buffer text;
        pgi_id_list_init(&ids, MEMORY);
        pgi_buffer_init(&text, MEMORY);
        static const char prompt[] = "detect  cat\n\n<loc0001>\xF0\x9F\x98\x80 \xC3\xA9<eos>";
        if (pgi_tokenizer_tokenize(tokenizer, prompt, sizeof prompt - 1, s % 2, &ids) >= 0)
            assert_int_equal(pgi_tokenizer_decode(tokenizer, ids.data, ids.size, s % 2, &text), PG_OK);
        pgi_id_list_free(&ids);
        pgi_buffer_free(&text);
        pgi_tokenizer_close(&tokenizer);
    }
    assert_true(refused > seeds / 10);
    assert_true(opened > 0);
    pgi_buffer_free(&content);
    pgi_buffer_free(&config);
    delete_file(name);
}

/* Runs with stderr and stdout in a file, which must stay empty. */
static void damage_is_met_in_silence(void **state) {
    (void)state;
    fflush(NULL);
    int out = dup(1), err = dup(2);
    FILE *log = tmpfile();
    assert_non_null(log);
    dup2(fileno(log), 1);
    dup2(fileno(log), 2);
    damage("spm", "tokenizer.model", 300);
    damage("json", "tokenizer.json", 300);
    fflush(NULL);
    dup2(out, 1);
    dup2(err, 2);
    close(out);
    close(err);
    struct stat info;
    assert_int_equal(fstat(fileno(log), &info), 0);
    assert_int_equal(info.st_size, 0);
    fclose(log);
}

/* ---------------------------------------------------------------------------------------------------------- Memory */

typedef struct budget {
    long left; /* allocations until one fails */
    long live;
} budget;

static void *spend(void *user, size_t size, size_t alignment) {
    budget *b = user;
    void *block = NULL;
    if (b->left-- <= 0 || posix_memalign(&block, alignment, size) != 0) return NULL;
    b->live++;
    return block;
}

static void give_back(void *user, void *block) {
    ((budget *)user)->live--;
    free(block);
}

static void every_failing_allocation_is_survived(void **state) {
    (void)state;
    static const char *const some[] = {"spm", "backend"};
    for (size_t k = 0; k < COUNT(some); k++) {
        char path[1024];
        snprintf(path, sizeof path, "%s%s", TOKENIZERS, some[k]);
        for (long n = 0, done = 0; !done; n++) {
            budget b = {.left = n};
            pgi_memory memory = {&b, spend, give_back};
            pgi_tokenizer *tokenizer;
            pgi_id_list ids;
            pgi_buffer text;
            pgi_id_list_init(&ids, &memory);
            pgi_buffer_init(&text, &memory);
            pg_status status = pgi_tokenizer_open(&memory, path, 0, NULL, &tokenizer);
            if (status >= 0) status = layout(tokenizer, "a  cat<eos>\xC3\xA9", 13, &ids);
            if (status >= 0) status = pgi_tokenizer_decode(tokenizer, ids.data, ids.size, 0, &text);
            pgi_id_list_free(&ids);
            pgi_buffer_free(&text);
            pgi_tokenizer_close(&tokenizer);
            if (b.live != 0) fail_msg("%s: %ld blocks left after %ld allocations", some[k], b.live, n);
            done = status == PG_OK;
            if (!done) assert_int_equal(status, PG_ERROR_MEMORY);
            assert_true(n < 5000);
        }
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_cases_of_transformers, load_cases, drop_cases),
        cmocka_unit_test(sentencepiece_where_it_is_exact),
        cmocka_unit_test(pieces_make_the_whole),
        cmocka_unit_test(text_comes_as_soon_as_it_is_known),
        cmocka_unit_test(literal_text_stays_text),
        cmocka_unit_test(invalid_text_is_refused),
        cmocka_unit_test(a_long_text_is_fine),
        cmocka_unit_test_setup_teardown(broken_files_are_named, make_folder, remove_folder),
        cmocka_unit_test(pieces_have_a_longest),
        cmocka_unit_test_setup_teardown(another_pipeline_is_refused, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(broken_models_are_named, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(damage_is_met_in_silence, make_folder, remove_folder),
        cmocka_unit_test(every_failing_allocation_is_survived),
    };
    return RUN_TESTS(tests, NULL, NULL);
}
