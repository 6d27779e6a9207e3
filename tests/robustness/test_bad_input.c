/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Lies told on purpose, one at a time: which call notices, its status, and that the message names the file, the key or
 * the tensor, what was found and what was expected.
 */
#include "run_tests.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support.h"
#include "tiny.h"

/* the call that must fail, the earlier ones succeeding */
typedef enum call { MODEL, PROCESSOR, ENCODE, GENERATE } call;

typedef struct lie {
    int today;             /* 0: the checkpoint in official style, 1: as transformers 5.23 saves it */
    const char *file;      /* NULL `from`: it is removed when `to` is NULL too, else its whole text is `to` */
    const char *from, *to; /* the text `from` in it becomes `to`; in a safetensors file, in its header */
    call call;
    pg_status status, other_status; /* either; other_status 0: only the first */
    const char *words[5];           /* the message has them all, NULL ends the list */
} lie;

#define SHARD2 "model-00002-of-00003.safetensors"
#define WEIGHTS "model.safetensors"
#define INDEX "model.safetensors.index.json"
#define OLD "vision_tower.vision_model."

/* clang-format off */
static const lie lies[] = {
    /* --- files that are not there */
    {0, "config.json", NULL, NULL, MODEL, PG_ERROR_NOT_FOUND, 0, {"config.json"}},
    {0, WEIGHTS, NULL, NULL, MODEL, PG_ERROR_NOT_FOUND, 0, {WEIGHTS}},
    {1, SHARD2, NULL, NULL, MODEL, PG_ERROR_NOT_FOUND, 0, {SHARD2}},
    {1, INDEX, NULL, NULL, MODEL, PG_ERROR_NOT_FOUND, 0, {INDEX}},
    {1, "tokenizer.json", NULL, NULL, PROCESSOR, PG_ERROR_NOT_FOUND, 0, {"tokenizer.json", "tokenizer.model"}},
    {0, "preprocessor_config.json", NULL, NULL, PROCESSOR, PG_ERROR_NOT_FOUND, 0, {"preprocessor_config.json"}},
    {1, "processor_config.json", NULL, NULL, PROCESSOR, PG_ERROR_NOT_FOUND, 0, {"processor_config.json"}},

    /* --- JSON that is none, or of another kind */
    {0, "config.json", NULL, "", MODEL, PG_ERROR_FORMAT, 0, {"config.json"}},
    {0, "config.json", NULL, "[]", MODEL, PG_ERROR_FORMAT, 0, {"config.json", "object"}},
    {0, "config.json", "\"text_config\":{", "\"text_config\":", MODEL, PG_ERROR_FORMAT, 0, {"config.json", "line 2"}},
    {0, "generation_config.json", NULL, "{\"eos_token_id\":", MODEL, PG_ERROR_FORMAT, 0, {"generation_config.json"}},
    {0, "generation_config.json", "\"eos_token_id\":1", "\"eos_token_id\":\"one\"", MODEL, PG_ERROR_FORMAT, 0,
     {"generation_config.json", "eos_token_id", "\"one\"", "integer"}},
    {1, INDEX, NULL, "{\"weight_map\":7}", MODEL, PG_ERROR_FORMAT, 0, {INDEX, "weight_map"}},
    {1, INDEX, NULL, "{}", MODEL, PG_ERROR_FORMAT, 0, {INDEX, "weight_map"}},
    {0, "preprocessor_config.json", NULL, "{", PROCESSOR, PG_ERROR_FORMAT, 0, {"preprocessor_config.json"}},

    /* --- config.json: what it says of the architecture */
    {0, "config.json", "\"model_type\":\"paligemma\"", "\"model_type\":\"llava\"", MODEL, PG_ERROR_UNSUPPORTED, 0,
     {"config.json", "model_type", "llava", "paligemma"}},
    {0, "config.json", "\"model_type\":\"gemma\"", "\"model_type\":\"gemma3_text\"", MODEL, PG_ERROR_UNSUPPORTED, 0,
     {"config.json", "text_config.model_type", "gemma3_text", "gemma2"}},
    {0, "config.json", "\"model_type\":\"siglip_vision_model\"", "\"model_type\":\"clip_vision_model\"", MODEL, PG_ERROR_UNSUPPORTED, 0,
     {"config.json", "vision_config.model_type", "clip_vision_model", "siglip_vision_model"}},
    {0, "config.json", "\"num_attention_heads\":4", "\"num_attention_heads\":0", MODEL, PG_ERROR_FORMAT, PG_ERROR_LIMIT,
     {"config.json", "text_config.num_attention_heads", "0"}},
    {0, "config.json", "\"num_attention_heads\":4", "\"num_attention_heads\":-4", MODEL, PG_ERROR_FORMAT, PG_ERROR_LIMIT,
     {"config.json", "text_config.num_attention_heads", "-4"}},
    {0, "config.json", "\"num_attention_heads\":4", "\"num_attention_heads\":2.5", MODEL, PG_ERROR_FORMAT, 0,
     {"config.json", "text_config.num_attention_heads", "2.5", "integer"}},
    {0, "config.json", "\"num_attention_heads\":4", "\"num_attention_heads\":\"4\"", MODEL, PG_ERROR_FORMAT, 0,
     {"config.json", "text_config.num_attention_heads", "\"4\"", "integer"}},
    {0, "config.json", "\"num_hidden_layers\":2", "\"num_hidden_layers\":2000000000", MODEL, PG_ERROR_LIMIT, PG_ERROR_FORMAT,
     {"config.json", "text_config.num_hidden_layers", "2000000000"}},
    {0, "config.json", "\"num_hidden_layers\":2", "\"num_hidden_layers\":9223372036854775807", MODEL, PG_ERROR_LIMIT, PG_ERROR_FORMAT,
     {"config.json", "text_config.num_hidden_layers", "9223372036854775807"}},
    /* the patch convolution leaves the 13th row and column out, as HF's does; the processor makes another size */
    {0, "config.json", "\"image_size\":12", "\"image_size\":13", GENERATE, PG_ERROR_ARGUMENT, PG_ERROR_FORMAT,
     {"config.json", "12 x 12", "13 x 13"}},
    {0, "config.json", "\"image_size\":12", "\"image_size\":1200000", MODEL, PG_ERROR_LIMIT, PG_ERROR_FORMAT,
     {"image_size", "1200000"}},
    {0, "config.json", "\"patch_size\":4", "\"patch_size\":0", MODEL, PG_ERROR_FORMAT, PG_ERROR_LIMIT,
     {"config.json", "vision_config.patch_size", "0"}},
    {0, "config.json", "\"num_key_value_heads\":1", "\"num_key_value_heads\":3", MODEL, PG_ERROR_FORMAT, 0,
     {"config.json", "num_key_value_heads", "3", "4"}},
    {0, "config.json", "\"torch_dtype\"", "\"text_config\":null,\"torch_dtype\"", MODEL, PG_ERROR_FORMAT, 0,
     {"config.json", "duplicate", "text_config"}},
    {0, "config.json", "\"intermediate_size\":48", "\"rms_norm_eps\":\"small\",\"intermediate_size\":48", MODEL, PG_ERROR_FORMAT, 0,
     {"config.json", "text_config.rms_norm_eps", "\"small\"", "number"}},
    {0, "config.json", "\"intermediate_size\":48", "\"rms_norm_eps\":-1,\"intermediate_size\":48", MODEL, PG_ERROR_FORMAT, PG_ERROR_LIMIT,
     {"config.json", "text_config.rms_norm_eps", "-1"}},
    {0, "config.json", "\"intermediate_size\":48", "\"hidden_act\":\"swoosh\",\"intermediate_size\":48", MODEL, PG_ERROR_UNSUPPORTED,
     0, {"config.json", "text_config.hidden_act", "swoosh", "gelu"}},

    /* --- config.json against the weights */
    {0, "config.json", "\"intermediate_size\":48", "\"intermediate_size\":64", MODEL, PG_ERROR_FORMAT, 0,
     {WEIGHTS, "layers.0.mlp.gate_proj.weight", "[48, 32]", "[64, 32]"}},
    {0, "config.json", "\"num_hidden_layers\":2", "\"num_hidden_layers\":3", MODEL, PG_ERROR_NOT_FOUND, PG_ERROR_FORMAT,
     {"layers.2."}},
    {0, "config.json", "\"image_size\":12", "\"image_size\":16", MODEL, PG_ERROR_FORMAT, 0,
     {WEIGHTS, "position_embedding.weight", "9 rows", "16"}},
    {0, "config.json", "\"head_dim\":8", "\"head_dim\":16", MODEL, PG_ERROR_FORMAT, 0,
     {WEIGHTS, "self_attn.q_proj.weight", "[32, 32]", "[64, 32]"}},

    /* --- the weights */
    {0, WEIGHTS, "\"" OLD "post_layernorm.bias\"", "\"" OLD "post_layernorm.bias2\"", MODEL, PG_ERROR_NOT_FOUND, PG_ERROR_FORMAT,
     {"vision_tower", "post_layernorm.bias"}},
    {0, WEIGHTS, "\"dtype\":\"BF16\",\"shape\":[24]", "\"dtype\":\"F64\",\"shape\":[24]", MODEL, PG_ERROR_FORMAT, PG_ERROR_UNSUPPORTED,
     {WEIGHTS, "patch_embedding.bias", "F64"}},
    {0, WEIGHTS, "\"dtype\":\"BF16\",\"shape\":[24]", "\"dtype\":\"I16\",\"shape\":[24]", MODEL, PG_ERROR_UNSUPPORTED, PG_ERROR_FORMAT,
     {WEIGHTS, "patch_embedding.bias", "I16", "BF16"}},
    {0, WEIGHTS, "\"dtype\":\"BF16\",\"shape\":[24]", "\"dtype\":\"BF17\",\"shape\":[24]", MODEL, PG_ERROR_UNSUPPORTED, PG_ERROR_FORMAT,
     {WEIGHTS, "patch_embedding.bias", "BF17"}},
    {0, WEIGHTS, "\"shape\":[24],", "\"shape\":[25],", MODEL, PG_ERROR_FORMAT, 0, {WEIGHTS, "patch_embedding.bias"}},
    {0, WEIGHTS, "\"shape\":[24],", "\"shape\":[24,1],", MODEL, PG_ERROR_FORMAT, 0, {WEIGHTS, "patch_embedding.bias", "[24, 1]", "[24]"}},
    {0, WEIGHTS, "\"shape\":[24],", "\"shape\":[-24],", MODEL, PG_ERROR_FORMAT, 0, {WEIGHTS, "patch_embedding.bias", "-24"}},
    {0, WEIGHTS, "\"shape\":[24],", "\"shape\":[4294967296,4294967296],", MODEL, PG_ERROR_FORMAT, PG_ERROR_LIMIT,
     {WEIGHTS, "patch_embedding.bias"}},
    {0, WEIGHTS, "\"shape\":[24],", "\"shape\":24,", MODEL, PG_ERROR_FORMAT, 0, {WEIGHTS, "patch_embedding.bias", "shape"}},
    {0, WEIGHTS, "\"shape\":[24],", "", MODEL, PG_ERROR_FORMAT, 0, {WEIGHTS, "patch_embedding.bias", "shape"}},
    {0, WEIGHTS, "\"data_offsets\":[2304,2352]", "\"data_offsets\":[2352,2304]", MODEL, PG_ERROR_FORMAT, 0,
     {WEIGHTS, "patch_embedding.bias", "2352"}},
    {0, WEIGHTS, "\"data_offsets\":[2304,2352]", "\"data_offsets\":[2304,2354]", MODEL, PG_ERROR_FORMAT, 0,
     {WEIGHTS, "patch_embedding.bias", "50 bytes", "24 x 16 bits"}},
    {0, WEIGHTS, "\"data_offsets\":[2304,2352]", "\"data_offsets\":[900000000,900000048]", MODEL, PG_ERROR_FORMAT, 0,
     {WEIGHTS, "patch_embedding.bias", "900000000"}},
    {0, WEIGHTS, "\"data_offsets\":[2304,2352]", "\"data_offsets\":[-48,0]", MODEL, PG_ERROR_FORMAT, 0,
     {WEIGHTS, "patch_embedding.bias", "-48"}},
    {0, WEIGHTS, "\"data_offsets\":[2304,2352]", "\"data_offsets\":[18446744073709551568,18446744073709551616]", MODEL, PG_ERROR_FORMAT,
     0, {WEIGHTS}},
    {0, WEIGHTS, "\"data_offsets\":[2304,2352]", "\"data_offsets\":[2304]", MODEL, PG_ERROR_FORMAT, 0,
     {WEIGHTS, "patch_embedding.bias", "data_offsets"}},
    {0, WEIGHTS, NULL, "", MODEL, PG_ERROR_FORMAT, 0, {WEIGHTS, "0 bytes"}},
    {0, WEIGHTS, NULL, "\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x7F{}", MODEL, PG_ERROR_FORMAT, PG_ERROR_LIMIT, {WEIGHTS, "9223372036854775807"}},
    {0, WEIGHTS, NULL, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", MODEL, PG_ERROR_FORMAT, PG_ERROR_LIMIT,
     {WEIGHTS}},
    {1, INDEX, SHARD2, "../" SHARD2, MODEL, PG_ERROR_FORMAT, PG_ERROR_UNSUPPORTED, {INDEX, "../" SHARD2}},
    {1, INDEX, "\"" SHARD2 "\"", "7", MODEL, PG_ERROR_FORMAT, 0, {INDEX, "7"}},
    {1, INDEX, SHARD2, "model-00001-of-00003.safetensors", MODEL, PG_ERROR_FORMAT, PG_ERROR_NOT_FOUND,
     {"model-00001-of-00003.safetensors"}},

    /* --- the tokenizer */
    {0, "tokenizer.model", NULL, "", PROCESSOR, PG_ERROR_FORMAT, 0, {"tokenizer.model"}},
    {0, "tokenizer.model", NULL, "version https://git-lfs.github.com/spec/v1\n", PROCESSOR, PG_ERROR_FORMAT, 0, {"tokenizer.model"}},
    {1, "tokenizer.json", NULL, "{}", PROCESSOR, PG_ERROR_FORMAT, PG_ERROR_UNSUPPORTED, {"tokenizer.json", "model"}},
    {1, "tokenizer.json", "\"type\":\"BPE\"", "\"type\":\"WordPiece\"", PROCESSOR, PG_ERROR_UNSUPPORTED, PG_ERROR_FORMAT,
     {"tokenizer.json", "model.type", "WordPiece", "BPE"}},
    {1, "tokenizer.json", "\"vocab\":{", "\"vocab\":[],\"x\":{", PROCESSOR, PG_ERROR_FORMAT, 0, {"tokenizer.json", "model.vocab"}},
    {1, "tokenizer.json", "\"<bos>\":2", "\"<bos>\":-2", PROCESSOR, PG_ERROR_FORMAT, 0, {"tokenizer.json", "vocab", "'-'", "0 or more"}},
    {1, "tokenizer.json", "\"<bos>\":2", "\"<bos>\":2147483647", PROCESSOR, PG_ERROR_FORMAT, PG_ERROR_LIMIT,
     {"tokenizer.json", "vocab", "2147483647"}},
    {1, "tokenizer.json", "\"<bos>\":2", "\"<bos>\":1", PROCESSOR, PG_ERROR_FORMAT, 0, {"tokenizer.json", "vocab"}},
    {1, "tokenizer.json", "\"merges\":[[", "\"merges\":[7,[", PROCESSOR, PG_ERROR_FORMAT, 0, {"tokenizer.json", "merges"}},
    {1, "tokenizer.json", "\"content\":\"<image>\"", "\"content\":\"<imagine>\"", GENERATE, PG_ERROR_ARGUMENT, PG_ERROR_FORMAT,
     {"0 image tokens", "9"}}, /* HF adds <image> as a new token, which is not the model's */

    /* --- the image settings */
    {0, "preprocessor_config.json", "\"height\":12", "\"height\":0", PROCESSOR, PG_ERROR_FORMAT, PG_ERROR_LIMIT,
     {"preprocessor_config.json", "size.height", "0"}},
    {0, "preprocessor_config.json", "\"height\":12", "\"height\":-12", PROCESSOR, PG_ERROR_FORMAT, PG_ERROR_LIMIT,
     {"preprocessor_config.json", "size.height", "-12"}},
    {0, "preprocessor_config.json", "\"height\":12", "\"height\":1000000000", PROCESSOR, PG_ERROR_LIMIT, PG_ERROR_FORMAT,
     {"preprocessor_config.json", "size.height", "1000000000"}},
    {0, "preprocessor_config.json", "\"height\":12", "\"height\":\"12\"", PROCESSOR, PG_ERROR_FORMAT, 0,
     {"preprocessor_config.json", "size.height", "\"12\"", "number"}},
    {0, "preprocessor_config.json", "\"resample\":3", "\"resample\":9", PROCESSOR, PG_ERROR_UNSUPPORTED, PG_ERROR_FORMAT,
     {"preprocessor_config.json", "resample", "9"}},
    {0, "preprocessor_config.json", "\"image_std\":[0.5,0.5,0.5]", "\"image_std\":[0.5,0,0.5]", PROCESSOR, PG_ERROR_FORMAT, 0,
     {"preprocessor_config.json", "image_std"}},
    {0, "preprocessor_config.json", "\"image_std\":[0.5,0.5,0.5]", "\"image_std\":[0.5,0.5]", PROCESSOR, PG_ERROR_FORMAT, 0,
     {"preprocessor_config.json", "image_std", "3"}},
    {0, "preprocessor_config.json", "\"image_seq_length\":9", "\"image_seq_length\":-9", PROCESSOR, PG_ERROR_FORMAT, PG_ERROR_LIMIT,
     {"preprocessor_config.json", "image_seq_length", "-9"}},
    {0, "preprocessor_config.json", "\"image_seq_length\":9", "\"image_seq_length\":1000000000000", PROCESSOR, PG_ERROR_LIMIT,
     PG_ERROR_FORMAT, {"preprocessor_config.json", "image_seq_length", "1000000000000"}},
    {1, "processor_config.json", "\"image_processor\":{", "\"image_processor\":7,\"x\":{", PROCESSOR, PG_ERROR_FORMAT, 0,
     {"processor_config.json", "image_processor"}},
    {1, "processor_config.json", "\"height\":12", "\"height\":12.5", PROCESSOR, PG_ERROR_FORMAT, 0,
     {"processor_config.json", "height", "12.5"}},

    /* --- sound files that do not belong together */
    {0, "preprocessor_config.json", "\"image_seq_length\":9", "\"image_seq_length\":4", GENERATE, PG_ERROR_ARGUMENT, PG_ERROR_FORMAT,
     {"4", "9"}},
    {0, "preprocessor_config.json", "\"height\":12,\"width\":12", "\"height\":16,\"width\":16", GENERATE, PG_ERROR_ARGUMENT,
     PG_ERROR_FORMAT, {"16", "12"}},
};
/* clang-format on */

static char folders[2][512];
static counter memory;

static int setup(void **state) {
    (void)state;
    tiny_options options[2] = {tiny_official(), tiny_saved_today()};
    for (int i = 0; i < 2; i++) {
        make_temp_folder(folders[i], sizeof folders[i]);
        tiny_write(folders[i], &options[i]);
    }
    remove_file(folders[0], "tokenizer.json");
    return 0;
}

static int teardown(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) remove_folder(folders[i]);
    return 0;
}

static void *find_bytes(const void *data, size_t size, const char *text) {
    return memmem(data, size, text, strlen(text));
}

/* All of the occurrences for an index, else the first. */
static void tell(const char *folder, const lie *l, const bytes *old) {
    bytes now = {0};
    const uint8_t *at = old->data, *end = old->data + old->size, *hit;
    int n_hits = 0, all = !strcmp(l->file, INDEX);
    while ((hit = find_bytes(at, (size_t)(end - at), l->from)) && (all || n_hits == 0)) {
        bytes_add(&now, at, (size_t)(hit - at));
        bytes_text(&now, l->to);
        at = hit + strlen(l->from);
        n_hits++;
    }
    bytes_add(&now, at, (size_t)(end - at));
    if (n_hits == 0) fail_msg("%s has no %s", l->file, l->from);
    if (strstr(l->file, ".safetensors") && !all) {
        uint64_t size;
        memcpy(&size, now.data, 8);
        size += now.size - old->size;
        memcpy(now.data, &size, 8);
    }
    write_file(folder, l->file, now.data, now.size);
    bytes_free(&now);
}

/* Runs the calls in order; returns the first that fails, or GENERATE + 1. */
static int first_failure(const char *folder, pg_status *status, char *message, size_t size) {
    static const uint8_t grey[16 * 16 * 3];
    pg_model *model = NULL;
    pg_processor *processor = NULL;
    pg_inputs *inputs = NULL;
    pg_result *result = NULL;
    pg_image image;
    pg_model_options model_options;
    pg_processor_options processor_options;
    pg_generate_options options;
    int at = 0;
    pg_model_options_init(&model_options, sizeof model_options);
    pg_processor_options_init(&processor_options, sizeof processor_options);
    pg_generate_options_init(&options, sizeof options);
    model_options.allocator = processor_options.allocator = &memory.hooks;
    options.max_new_tokens = 2;
    options.n_threads = 1;
    pg_image_from_pixels(&image, sizeof image, PG_IMAGE_RGB8, 16, 16, grey, 0);
    stale_error();
    if ((*status = pg_model_open(folder, &model_options, &model)) >= 0) {
        at = PROCESSOR;
        if ((*status = pg_processor_open(folder, &processor_options, &processor)) >= 0) {
            at = ENCODE;
            if ((*status = pg_processor_encode(processor, &image, "the cat", NULL, &inputs)) >= 0) {
                at = GENERATE;
                if ((*status = pg_generate(model, processor, inputs, &options, &result)) >= 0) at = GENERATE + 1;
            }
        }
    }
    snprintf(message, size, "%s", pg_last_error());
    pg_result_close(&result);
    pg_inputs_close(&inputs);
    pg_processor_close(&processor);
    pg_model_close(&model);
    return at;
}

static void all_lies(void **state) {
    static const char *const names[] = {"pg_model_open", "pg_processor_open", "pg_processor_encode", "pg_generate",
                                        "none"};
    int failures = 0;
    (void)state;
    counter_init(&memory);
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        const lie *l = &lies[i];
        const char *folder = folders[l->today], *problem = NULL;
        char message[1100];
        pg_status status;
        bytes old = read_file(folder, l->file);
        if (l->from)
            tell(folder, l, &old);
        else if (l->to)
            write_text(folder, l->file, l->to);
        else
            remove_file(folder, l->file);
        capture_begin();
        int at = first_failure(folder, &status, message, sizeof message);
        size_t printed = capture_end();
        if (l->status == PG_OK) {
            if (at != GENERATE + 1) problem = "it should have been accepted";
        } else if (at != (int)l->call) {
            problem = "another call was the first to fail";
        } else if (status != l->status && (status != l->other_status || !l->other_status)) {
            problem = "another status";
        } else if (bad_error(status)) {
            problem = bad_error(status);
        } else if (!strcmp(message, "")) {
            problem = "no message";
        }
        for (int k = 0; !problem && l->status && k < 5 && l->words[k]; k++)
            if (!strstr(message, l->words[k])) {
                say("missing: %s\n", l->words[k]);
                problem = "the message does not say enough";
            }
        if (!problem && printed) problem = "it printed";
        if (!problem && !counter_clean(&memory)) problem = "it leaked";
        if (problem) {
            failures++;
            say("FAIL %zu: %s, %s -> %s: %s\n     expected %s %s; found %s %s: %s\n", i, l->file,
                l->from ? l->from : "(whole)", l->to ? l->to : "(removed)", problem,
                l->status ? names[l->call] : names[4], pg_status_name(l->status), names[at], pg_status_name(status),
                message);
        }
        write_file(folder, l->file, old.data, old.size);
        bytes_free(&old);
    }
    say("%zu lies, %d of them not caught as they should be\n", sizeof lies / sizeof *lies, failures);
    assert_int_equal(failures, 0);
}

/* ---------------------------------------------------------------------------- arguments of the calls, and images */

static void expect_error(pg_status status, pg_status wanted, const char *word) {
    if (status != wanted || bad_error(status) || error_is_stale() || (word && !strstr(pg_last_error(), word)))
        fail_msg("%s (%d): \"%s\"; expected %s and \"%s\"", pg_status_name(status), status, pg_last_error(),
                 pg_status_name(wanted), word ? word : "");
    stale_error();
}

static void folders_that_are_none(void **state) {
    pg_model *model = NULL;
    pg_processor *processor = NULL;
    char path[600];
    (void)state;
    stale_error();
    setenv("HF_HUB_CACHE", "/nonexistent/hub", 1);
    static const char *const names[] = {"/nonexistent/folder",         "org/name", "no-such-name", "", "a/b/c", "../x",
                                        "org/name\nwith a line break", "\xFF\xFE"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        pg_status status = pg_model_open(names[i], NULL, &model);
        if (status != PG_ERROR_ARGUMENT)
            expect_error(status, PG_ERROR_NOT_FOUND, NULL);
        else
            expect_error(status, PG_ERROR_ARGUMENT, NULL);
        assert_null(model);
        status = pg_processor_open(names[i], NULL, &processor);
        if (status != PG_ERROR_ARGUMENT)
            expect_error(status, PG_ERROR_NOT_FOUND, NULL);
        else
            expect_error(status, PG_ERROR_ARGUMENT, NULL);
        assert_null(processor);
    }
    expect_error(pg_model_open("org/name", NULL, &model), PG_ERROR_NOT_FOUND, "/nonexistent/hub");
    unsetenv("HF_HUB_CACHE");
    snprintf(path, sizeof path, "%s/config.json", folders[0]); /* a file where a folder should be */
    pg_status status = pg_model_open(path, NULL, &model);
    assert_true(status == PG_ERROR_NOT_FOUND || status == PG_ERROR_IO || status == PG_ERROR_ARGUMENT);
    expect_error(status, status, "config.json");
    /* a folder and a pipe where files should be */
    char folder[512];
    tiny_options options = tiny_official();
    make_temp_folder(folder, sizeof folder);
    tiny_write(folder, &options);
    remove_file(folder, "config.json");
    snprintf(path, sizeof path, "%s/config.json", folder);
    assert_int_equal(mkdir(path, 0700), 0);
    status = pg_model_open(folder, NULL, &model);
    assert_true(status == PG_ERROR_IO || status == PG_ERROR_NOT_FOUND);
    expect_error(status, status, "config.json");
    rmdir(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    status = pg_model_open(folder, NULL, &model);
    assert_true(status == PG_ERROR_IO || status == PG_ERROR_NOT_FOUND);
    expect_error(status, status, "config.json");
    assert_null(model);
    remove_folder(folder);
}

static void images_that_are_none(void **state) {
    pg_processor *processor = NULL;
    pg_inputs *inputs = NULL;
    pg_image image;
    pg_encode_options options;
    uint8_t pixels[64 * 3] = {0};
    char path[600];
    (void)state;
    assert_int_equal(pg_processor_open(folders[0], NULL, &processor), PG_OK);
    capture_begin();
    stale_error();

    pg_image_from_path(&image, sizeof image, "/nonexistent/cat.png");
    expect_error(pg_processor_encode(processor, &image, "x", NULL, &inputs), PG_ERROR_NOT_FOUND,
                 "/nonexistent/cat.png");
    pg_image_from_path(&image, sizeof image, folders[0]);
    expect_error(pg_processor_encode(processor, &image, "x", NULL, &inputs), PG_ERROR_IO, folders[0]);
    snprintf(path, sizeof path, "%s/config.json", folders[0]);
    pg_image_from_path(&image, sizeof image, path);
    pg_status status = pg_processor_encode(processor, &image, "x", NULL, &inputs);
    assert_true(status == PG_ERROR_UNSUPPORTED || status == PG_ERROR_FORMAT);
    expect_error(status, status, path);

    pg_image_from_bytes(&image, sizeof image, pixels, 0);
    status = pg_processor_encode(processor, &image, "x", NULL, &inputs);
    assert_true(status == PG_ERROR_UNSUPPORTED || status == PG_ERROR_FORMAT);
    expect_error(status, status, "no bytes");
    static const char gif[] = "GIF89a\1\0\1\0\0\0\0;";
    pg_image_from_bytes(&image, sizeof image, gif, sizeof gif);
    expect_error(pg_processor_encode(processor, &image, "x", NULL, &inputs), PG_ERROR_UNSUPPORTED, "PNG");

    /* raw images of impossible shape, through the function and written by hand */
    static const int32_t sizes[][2] = {{0, 1}, {1, 0}, {-1, 1}, {1, -1}, {0, 0}, {INT32_MIN, INT32_MAX}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        expect_error(pg_image_from_pixels(&image, sizeof image, PG_IMAGE_RGB8, sizes[i][0], sizes[i][1], pixels, 0),
                     PG_ERROR_ARGUMENT, NULL);
        assert_int_equal(pg_image_from_pixels(&image, sizeof image, PG_IMAGE_RGB8, 1, 1, pixels, 0), PG_OK);
        image.width = sizes[i][0];
        image.height = sizes[i][1];
        expect_error(pg_processor_encode(processor, &image, "x", NULL, &inputs), PG_ERROR_ARGUMENT, NULL);
    }
    pg_image_from_pixels(&image, sizeof image, PG_IMAGE_RGB8, 1, 1, pixels, 0);
    image.format = 13;
    expect_error(pg_processor_encode(processor, &image, "x", NULL, &inputs), PG_ERROR_ARGUMENT, "13");
    pg_image_from_pixels(&image, sizeof image, PG_IMAGE_RGB8, 4, 4, pixels, 0);
    image.strides[0] = 11; /* rows that overlap */
    expect_error(pg_processor_encode(processor, &image, "x", NULL, &inputs), PG_ERROR_ARGUMENT, "11");
    image.strides[0] = -11;
    expect_error(pg_processor_encode(processor, &image, "x", NULL, &inputs), PG_ERROR_ARGUMENT, "-11");
    image.strides[0] = INT64_MIN;
    expect_error(pg_processor_encode(processor, &image, "x", NULL, &inputs), PG_ERROR_ARGUMENT, NULL);
    pg_image_from_pixels(&image, sizeof image, PG_IMAGE_RGB8, 4, 4, pixels, 0);
    image.planes[0] = NULL;
    expect_error(pg_processor_encode(processor, &image, "x", NULL, &inputs), PG_ERROR_ARGUMENT, NULL);
    pg_image_from_path(&image, sizeof image, path);
    image.path = NULL;
    expect_error(pg_processor_encode(processor, &image, "x", NULL, &inputs), PG_ERROR_ARGUMENT, NULL);

    /* the limit of pixels, for each way in; nothing of that size may be read or made */
    pg_encode_options_init(&options, sizeof options);
    pg_image_from_pixels(&image, sizeof image, PG_IMAGE_RGB8, INT32_MAX, INT32_MAX, pixels, 0);
    expect_error(pg_processor_encode(processor, &image, "x", NULL, &inputs), PG_ERROR_LIMIT, "178956970");
    options.max_image_pixels = 15;
    pg_image_from_pixels(&image, sizeof image, PG_IMAGE_RGB8, 4, 4, pixels, 0);
    expect_error(pg_processor_encode(processor, &image, "x", &options, &inputs), PG_ERROR_LIMIT, "15");
    for (int kind = IMAGE_PNG; kind <= IMAGE_JPEG_PROGRESSIVE; kind++) {
        bytes file = tiny_image(kind, 8, 2, 1);
        pg_image_from_bytes(&image, sizeof image, file.data, file.size);
        options.max_image_pixels = 15;
        expect_error(pg_processor_encode(processor, &image, "x", &options, &inputs), PG_ERROR_LIMIT, "15");
        options.max_image_pixels = 16;
        assert_int_equal(pg_processor_encode(processor, &image, "x", &options, &inputs), PG_OK);
        pg_inputs_close(&inputs);
        bytes_free(&file);
    }
    assert_null(inputs);
    assert_int_equal(capture_end(), 0);
    pg_processor_close(&processor);
}

static void prompts_that_are_none(void **state) {
    static const uint8_t grey[16 * 16 * 3];
    pg_processor *processor = NULL;
    pg_model *model = NULL;
    pg_inputs *inputs = NULL;
    pg_result *result = NULL;
    pg_image image;
    size_t n;
    (void)state;
    assert_int_equal(pg_processor_open(folders[0], NULL, &processor), PG_OK);
    assert_int_equal(pg_model_open(folders[0], NULL, &model), PG_OK);
    pg_image_from_pixels(&image, sizeof image, PG_IMAGE_RGB8, 16, 16, grey, 0);
    stale_error();
    static const char *const texts[] = {"\xFF", "abc\xC3", "\xED\xA0\x80", "\xF5\x80\x80\x80", "a\x80z"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        expect_error(pg_processor_encode(processor, &image, texts[i], NULL, &inputs), PG_ERROR_ARGUMENT, "UTF-8");
        expect_error(pg_processor_tokenize(processor, texts[i], 0, NULL, 0, &n), PG_ERROR_ARGUMENT, "UTF-8");
    }
    expect_error(pg_processor_encode(processor, &image, "<image><image>", NULL, &inputs), PG_ERROR_ARGUMENT, "<image>");
    /* ids beyond the vocabulary, which padding rows of a model may produce, are no text (HF); negative ones are no
     * ids */
    int64_t strange[] = {0, 100000000, 1};
    char text[32];
    assert_int_equal(pg_processor_decode(processor, strange, 3, PG_DECODE_SKIP_SPECIAL, text, sizeof text, &n), PG_OK);
    assert_string_equal(text, "");
    strange[1] = -1;
    expect_error(pg_processor_decode(processor, strange, 3, 0, text, sizeof text, &n), PG_ERROR_ARGUMENT, "-1");
    strange[1] = INT64_MAX;
    expect_error(pg_processor_decode(processor, strange, 3, 0, text, sizeof text, &n), PG_ERROR_ARGUMENT,
                 "9223372036854775807");

    /* a prompt longer than the host allows */
    pg_generate_options options;
    assert_int_equal(pg_generate_options_init(&options, sizeof options), PG_OK);
    options.max_context = 8192;
    size_t size = 200000;
    char *longer = malloc(size + 1);
    assert_non_null(longer);
    for (size_t i = 0; i < size; i++) longer[i] = i % 2 ? 'q' : 'z';
    longer[size] = 0;
    pg_status status = pg_processor_encode(processor, &image, longer, NULL, &inputs);
    if (status >= 0) status = pg_generate(model, processor, inputs, &options, &result);
    expect_error(status, PG_ERROR_LIMIT, "2000"); /* 9 + 1 + 200000 + 1 tokens */
    free(longer);
    assert_null(result);
    pg_inputs_close(&inputs);
    pg_model_close(&model);
    pg_processor_close(&processor);
}

/* Weights that are NaN or infinite are no error of the file format; what must hold is that nothing breaks. */
static void weights_that_are_no_numbers(void **state) {
    static const uint8_t fills[] = {0xFF, 0x7F, 0x80, 0x00};
    (void)state;
    counter_init(&memory);
    for (int today = 0; today < 2; today++) {
        const char *name = today ? SHARD2 : WEIGHTS;
        bytes old = read_file(folders[today], name);
        uint64_t header;
        memcpy(&header, old.data, 8);
        for (size_t i = 0; i < sizeof fills; i++) {
            bytes now = {0};
            char message[1100];
            pg_status status;
            bytes_add(&now, old.data, old.size);
            memset(now.data + 8 + header, fills[i], now.size - 8 - header);
            write_file(folders[today], name, now.data, now.size);
            int at = first_failure(folders[today], &status, message, sizeof message);
            if (at != GENERATE + 1 && bad_error(status)) fail_msg("%s: %s", name, bad_error(status));
            bytes_free(&now);
            assert_true(counter_clean(&memory));
        }
        write_file(folders[today], name, old.data, old.size);
        bytes_free(&old);
    }
}

/* What no CPU has, what no format is, and what a format cannot hold. Damaged and newer converted folders: test_convert.
 */
static void formats_and_masks(void **state) {
    static const struct {
        int32_t weights;
        uint64_t cpu_mask;
        const char *first, *second; /* in the message */
    } opens[] = {{3, 0, "weights is 3", "PG_WEIGHTS_"},
                 {-1, 0, "weights is -1", "PG_WEIGHTS_"},
                 {PG_WEIGHTS_INT4, UINT64_C(1) << 60, "cpu_mask", "0x1000000000000000"}};
    pg_model *model = NULL;
    pg_model_options options;
    (void)state;
    for (size_t i = 0; i < sizeof opens / sizeof *opens; i++) {
        pg_model_options_init(&options, sizeof options);
        options.weights = opens[i].weights;
        options.cpu_mask = opens[i].cpu_mask;
        stale_error();
        pg_status status = pg_model_open(folders[0], &options, &model);
        assert_non_null(strstr(pg_last_error(), opens[i].second));
        expect_error(status, PG_ERROR_ARGUMENT, opens[i].first);
        assert_null(model);
    }
    static const int32_t targets[] = {PG_WEIGHTS_STORED, 3, -1};
    char out[600];
    pg_convert_options convert;
    snprintf(out, sizeof out, "%s-converted", folders[0]);
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
        pg_convert_options_init(&convert, sizeof convert);
        convert.weights = targets[i];
        expect_error(pg_model_convert(folders[0], out, &convert), PG_ERROR_ARGUMENT,
                     "PG_WEIGHTS_INT8 (1) or PG_WEIGHTS_INT4 (2)");
    }
    /* a matrix whose weights are no numbers has no scales */
    bytes old = read_file(folders[0], WEIGHTS), now = {0};
    uint64_t header;
    memcpy(&header, old.data, 8);
    bytes_add(&now, old.data, old.size);
    memset(now.data + 8 + header, 0xFF, now.size - 8 - header);
    write_file(folders[0], WEIGHTS, now.data, now.size);
    for (int32_t weights = PG_WEIGHTS_INT8; weights <= PG_WEIGHTS_INT4; weights++) {
        pg_model_options_init(&options, sizeof options);
        pg_convert_options_init(&convert, sizeof convert);
        options.weights = convert.weights = weights;
        for (int converts = 0; converts < 2; converts++) {
            stale_error();
            pg_status status =
                converts ? pg_model_convert(folders[0], out, &convert) : pg_model_open(folders[0], &options, &model);
            assert_non_null(strstr(pg_last_error(), WEIGHTS ": tensor "));
            expect_error(status, PG_ERROR_ARGUMENT, "expected a finite number");
            assert_null(model);
        }
    }
    write_file(folders[0], WEIGHTS, old.data, old.size);
    bytes_free(&old);
    bytes_free(&now);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(all_lies, capture_end_if_on),
        cmocka_unit_test_teardown(folders_that_are_none, capture_end_if_on),
        cmocka_unit_test_teardown(images_that_are_none, capture_end_if_on),
        cmocka_unit_test_teardown(prompts_that_are_none, capture_end_if_on),
        cmocka_unit_test_teardown(weights_that_are_no_numbers, capture_end_if_on),
        cmocka_unit_test_teardown(formats_and_masks, capture_end_if_on),
    };
    return RUN_TESTS(tests, setup, teardown);
}
