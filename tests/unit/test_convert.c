/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * pg_model_convert() and opening what it writes: every kind of source, the bits of pgi_quantize_panels(), refusals,
 * what is left behind, metadata of other versions and damaged ones. docs/FORMATS.md is the specification.
 */
#include "run_tests.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "checkpoint/mix.h"
#include "checkpoint/quantized_store.h"
#include "checkpoint/weights.h"
#include "expect_status.h"
#include "support.h"
#include "tiny.h"

static char base[512], source[600], out[600], partial[620];

static int setup(void **state) {
    (void)state;
    make_temp_folder(base, sizeof base);
    snprintf(source, sizeof source, "%s/source", base);
    snprintf(out, sizeof out, "%s/out", base);
    snprintf(partial, sizeof partial, "%s.partial", out);
    return mkdir(source, 0777);
}

static int teardown(void **state) {
    (void)state;
    remove_folder(source);
    if (access(out, F_OK) == 0) remove_folder(out);
    if (access(partial, F_OK) == 0) remove_folder(partial);
    remove_folder(base);
    return 0;
}

static pg_status convert_mix(int32_t weights, const char *int8_layers, int32_t n_threads, uint64_t max_file_bytes) {
    pg_convert_options options;
    OK(pg_convert_options_init(&options, sizeof options));
    options.weights = weights;
    options.int8_layers = int8_layers;
    options.n_threads = n_threads;
    options.max_file_bytes = max_file_bytes;
    return pg_model_convert(source, out, &options);
}

static pg_status convert(int32_t weights, int32_t n_threads, uint64_t max_file_bytes) {
    return convert_mix(weights, NULL, n_threads, max_file_bytes);
}

static pg_status try_open_mix(int32_t weights, const char *int8_layers, uint32_t flags) {
    pg_model *model = NULL;
    pg_model_options options;
    OK(pg_model_options_init(&options, sizeof options));
    options.weights = weights;
    options.int8_layers = int8_layers;
    options.flags = flags;
    pg_status status = pg_model_open(out, &options, &model);
    assert_true((status == PG_OK) == (model != NULL));
    pg_model_close(&model);
    return status;
}

static pg_status try_open(int32_t weights, uint32_t flags) { return try_open_mix(weights, NULL, flags); }

/* ---------------------------------------------------------------------------------------------------- the same bits */

typedef struct opened {
    pgi_config config;
    pgi_tensor_files *files;
    pgi_weights weights;
    pgi_matrix *matrices[256];
    pgi_matrix_role roles[256];
    int n;
} opened;

static pg_status collect(void *context, const pgi_matrix_role *role, pgi_matrix *matrix) {
    opened *o = context;
    assert_in_range(o->n, 0, 255);
    o->roles[o->n] = *role;
    o->matrices[o->n++] = matrix;
    return PG_OK;
}

static void open_weights(const char *folder, opened *o) {
    static const pgi_run run = {.n_threads = 1};
    *o = (opened){.n = 0};
    OK(pgi_config_load(&pgi_memory_default, folder, &o->config));
    OK(pgi_tensor_files_open(&pgi_memory_default, folder, 0, NULL, &o->files));
    OK(pgi_weights_bind(&pgi_memory_default, &run, &o->config, o->files, PG_WEIGHTS_STORED, &o->weights));
    OK(pgi_weights_each_matrix(&o->weights, &o->config, collect, o));
}

static void close_weights(opened *o) {
    pgi_weights_free(&o->weights);
    pgi_tensor_files_close(&o->files);
    pgi_config_free(&o->config);
}

static void assert_vectors(const float *a, const float *b, int64_t n) {
    assert_memory_equal(a, b, (size_t)n * sizeof *a);
}

/* Each matrix has the blocks that its source quantizes to, all else is equal. */
static void compare_mix(int32_t weights, const char *int8_layers) {
    opened a, b;
    open_weights(source, &a);
    open_weights(out, &b);
    assert_int_equal(a.weights.format, PG_WEIGHTS_STORED);
    assert_int_equal(b.weights.format, weights);
    assert_in_range(b.n, 1, a.n);
    for (int i = 0, k = 0; i < a.n; i++, k++) {
        /* a tied head that was stored as a copy is not there */
        if (a.n > b.n && a.matrices[i] == &a.weights.text.head.weight) i++;
        const pgi_matrix *from = a.matrices[i], *to = b.matrices[k];
        const int32_t dtype = pgi_mix_blocks(weights, int8_layers, &a.roles[i]);
        assert_int_equal(to->dtype, dtype);
        assert_int_equal(to->rows, from->rows);
        assert_int_equal(to->columns, from->columns);
        assert_int_equal((uintptr_t)to->data % 64, 0);
        size_t size = (size_t)pgi_quantized_bytes(dtype, from->rows, from->columns);
        uint8_t *expected = malloc(size);
        OK(pgi_quantize_panels(from, 0, dtype, 0, pgi_quantized_panels(from->rows), expected));
        assert_memory_equal(to->data, expected, size);
        free(expected);
    }
    const pgi_weights *x = &a.weights, *y = &b.weights;
    int64_t vision = a.config.vision.hidden_size, hidden = a.config.text.hidden_size;
    assert_int_equal(x->vision.position.dtype, y->vision.position.dtype);
    assert_memory_equal(x->vision.position.data, y->vision.position.data,
                        (size_t)(x->vision.position.rows * vision) * pgi_dtype_size(x->vision.position.dtype));
    assert_vectors(x->vision.patch.bias, y->vision.patch.bias, vision);
    assert_vectors(x->vision.norm_bias, y->vision.norm_bias, vision);
    assert_vectors(x->projector.bias, y->projector.bias, hidden);
    assert_vectors(x->text.norm, y->text.norm, hidden);
    for (int i = 0; i < a.config.vision.n_layers; i++) {
        assert_vectors(x->vision.layers[i].norm1_weight, y->vision.layers[i].norm1_weight, vision);
        assert_vectors(x->vision.layers[i].fc2.bias, y->vision.layers[i].fc2.bias, vision);
    }
    for (int i = 0; i < a.config.text.n_layers; i++)
        assert_vectors(x->text.layers[i].post_attention_norm, y->text.layers[i].post_attention_norm, hidden);
    close_weights(&a);
    close_weights(&b);
}

static void compare(int32_t weights) { compare_mix(weights, NULL); }

static void every_source(void **state) {
    static const int dtypes[] = {PG_DTYPE_F32, PG_DTYPE_BF16, PG_DTYPE_F16};
    (void)state;
    for (int i = 0; i < 54; i++) {
        tiny_options options = tiny_official();
        options.seed = (uint64_t)i + 1;
        options.gemma_version = 1 + i % 2;
        options.dtype = dtypes[i / 2 % 3];
        options.layout = i / 6 % 3;
        options.head = i / 18 % 3;
        options.n_shards = i % 4 == 1 ? 3 : 1;
        int32_t weights = i % 3 == 2 ? PG_WEIGHTS_INT4 : PG_WEIGHTS_INT8;
        uint64_t max_file_bytes = i % 5 == 4 ? 60000 : 0;
        tiny_write(source, &options);
        OK(convert(weights, 1 + i % 3, max_file_bytes));
        assert_int_equal(has_file(out, "model.safetensors"), !max_file_bytes);
        assert_int_equal(has_file(out, "model.safetensors.index.json"), max_file_bytes != 0);
        assert_int_not_equal(access(partial, F_OK), 0);
        compare(weights);
        OK(try_open(PG_WEIGHTS_STORED, 0));
        OK(try_open(weights, PG_MODEL_VERIFY));
        remove_folder(out);
        remove_folder(source);
        mkdir(source, 0777);
    }
}

static void the_same_bytes_for_any_threads(void **state) {
    tiny_options options = tiny_saved_today();
    bytes files[3];
    (void)state;
    tiny_write(source, &options);
    for (int i = 0; i < 3; i++) {
        OK(convert(PG_WEIGHTS_INT4, i + 1, 0));
        files[i] = read_file(out, "model.safetensors");
        assert_int_equal(files[i].size, files[0].size);
        assert_memory_equal(files[i].data, files[0].data, files[0].size);
        remove_folder(out);
    }
    for (int i = 0; i < 3; i++) bytes_free(&files[i]);
}

/* Where a tensor of the source, in one file, lies in it. */
static size_t offset_of(const pgi_matrix *matrix) {
    return (size_t)((const pgi_stored_tensor *)matrix->tensor)->offset;
}

static void a_tied_head_is_stored_once(void **state) {
    (void)state;
    for (int equal = 0; equal <= 1; equal++)
        for (int tied = 0; tied <= 1; tied++) {
            tiny_options options = tiny_official();
            opened o;
            options.head = TINY_HEAD_BOTH;
            tiny_write(source, &options);
            bytes config = read_file(source, "config.json"), file = read_file(source, "model.safetensors");
            char *word = strstr((char *)config.data, "\"tie_word_embeddings\":false");
            assert_non_null(word);
            if (tied) memcpy(word, "\"tie_word_embeddings\":true ", 27);
            open_weights(source, &o);
            const pgi_matrix *embedding = &o.weights.text.embedding, *head = &o.weights.text.head.weight;
            assert_ptr_not_equal(embedding->data, head->data);
            if (equal)
                memcpy(file.data + offset_of(head), embedding->data,
                       (size_t)(head->rows * head->columns) * pgi_dtype_size(head->dtype));
            uint32_t n = o.weights.n_tensors;
            close_weights(&o);
            write_file(source, "config.json", config.data, config.size);
            write_file(source, "model.safetensors", file.data, file.size);
            bytes_free(&config);
            bytes_free(&file);
            OK(convert(PG_WEIGHTS_INT8, 1, 0));
            compare(PG_WEIGHTS_INT8);
            open_weights(out, &o);
            assert_int_equal(o.weights.n_tensors, n - (uint32_t)(tied && equal));
            close_weights(&o);
            remove_folder(out);
        }
}

static void info_and_files(void **state) {
    tiny_options options = tiny_official();
    pg_model *model = NULL;
    pg_model_info info = {.struct_size = sizeof info};
    (void)state;
    tiny_write(source, &options);
    write_text(source, "LICENSE", "a licence");
    write_text(source, "README.md", "not copied");
    OK(pg_model_convert(source, out, NULL)); /* int8 by default */
    OK(pg_model_open(out, NULL, &model));
    OK(pg_model_get_info(model, &info));
    assert_int_equal(info.weights, PG_WEIGHTS_INT8);
    assert_int_equal(info.dtypes, 1 << PG_DTYPE_F32 | 1 << PG_DTYPE_BF16);
    uint64_t n = info.n_parameters;
    pg_model_close(&model);
    OK(pg_model_open(source, NULL, &model));
    OK(pg_model_get_info(model, &info));
    assert_int_equal(info.weights, PG_WEIGHTS_STORED);
    assert_int_equal(info.n_parameters, n);
    pg_model_close(&model);
    static const char *const copied[] = {"LICENSE", "config.json", "tokenizer.json", "tokenizer.model",
                                         "preprocessor_config.json"};
    for (size_t i = 0; i < sizeof copied / sizeof *copied; i++) {
        bytes a = read_file(source, copied[i]), b = read_file(out, copied[i]);
        assert_int_equal(a.size, b.size);
        assert_memory_equal(a.data, b.data, a.size);
        bytes_free(&a);
        bytes_free(&b);
    }
    assert_false(has_file(out, "README.md"));
    assert_false(has_file(out, "unfinished"));
}

/* Logits of a text prompt, to the last bit, of the folder opened with `weights` and a mix. */
static void logits_of(const char *folder, int32_t weights, const char *int8_layers, bytes *logits) {
    pg_model *model = NULL;
    pg_processor *processor = NULL;
    pg_inputs *inputs = NULL;
    pg_outputs *outputs = NULL;
    pg_model_options options;
    pg_tensor tensor = {.struct_size = sizeof tensor};
    static const uint8_t grey[16 * 16 * 3] = {77};
    pg_image image;
    OK(pg_model_options_init(&options, sizeof options));
    options.weights = weights;
    options.int8_layers = int8_layers;
    OK(pg_model_open(folder, &options, &model));
    OK(pg_processor_open(folder, NULL, &processor));
    OK(pg_image_from_pixels(&image, sizeof image, PG_IMAGE_RGB8, 16, 16, grey, 0));
    OK(pg_processor_encode(processor, &image, "the cat", NULL, &inputs));
    OK(pg_forward(model, inputs, NULL, &outputs));
    OK(pg_outputs_get_tensor(outputs, "logits", &tensor));
    bytes_add(logits, tensor.data, (size_t)(tensor.shape[0] * tensor.shape[1] * tensor.shape[2]) * sizeof(float));
    pg_outputs_close(&outputs);
    pg_inputs_close(&inputs);
    pg_processor_close(&processor);
    pg_model_close(&model);
}

static void as_quantized_while_opening(void **state) {
    (void)state;
    for (int i = 0; i < 8; i++) {
        tiny_options options = i % 2 ? tiny_saved_today() : tiny_official();
        int32_t weights = i / 2 % 2 ? PG_WEIGHTS_INT4 : PG_WEIGHTS_INT8;
        bytes a = {0}, b = {0}, c = {0};
        options.seed = (uint64_t)i + 100;
        options.head = i / 4;
        tiny_write(source, &options);
        OK(convert(weights, 2, 0));
        logits_of(source, weights, NULL, &a);
        logits_of(out, PG_WEIGHTS_STORED, NULL, &b);
        logits_of(source, PG_WEIGHTS_STORED, NULL, &c);
        assert_int_equal(a.size, b.size);
        assert_memory_equal(a.data, b.data, a.size);
        assert_true(memcmp(a.data, c.data, a.size) != 0); /* and they are quantized */
        bytes_free(&a);
        bytes_free(&b);
        bytes_free(&c);
        remove_folder(out);
        remove_folder(source);
        mkdir(source, 0777);
    }
}

/* ------------------------------------------------------------------------------------------------------------ mixes */

/* The matrices of a tiny model (2 layers each, as tiny.c has them) that a list means. */
static int n_named(const char *list) {
    int n = 0;
    opened o;
    open_weights(source, &o);
    for (int i = 0; i < o.n; i++) n += pgi_mix_blocks(PG_WEIGHTS_INT4, list, &o.roles[i]) == PGI_DTYPE_INT8_BLOCKS;
    close_weights(&o);
    return n;
}

static void names_of_layers(void **state) {
    tiny_options options = tiny_official();
    opened o;
    (void)state;
    options.head = TINY_HEAD_BOTH; /* a head of its own */
    tiny_write(source, &options);
    open_weights(source, &o);
    const int encoder = o.config.vision.n_layers, decoder = o.config.text.n_layers, all = o.n;
    close_weights(&o);
    assert_int_equal(all, 2 + 1 + 6 * encoder + 1 + 7 * decoder);
    const struct {
        const char *list;
        int n;
    } cases[] = {{NULL, 0},
                 {"", 0},
                 {"embedding", 2},
                 {"patches", 1},
                 {"projector", 1},
                 {"encoder", 6 * encoder},
                 {"decoder", 7 * decoder},
                 {"attention", 4 * (encoder + decoder)},
                 {"mlp", 2 * encoder + 3 * decoder},
                 {"decoder.attention", 4 * decoder},
                 {"attention.decoder", 4 * decoder},
                 {"encoder.mlp", 2 * encoder},
                 {"decoder.0", 7},
                 {"decoder.1.mlp", 3},
                 {"1", 13},
                 {"decoder.down", decoder},
                 {"0.out", 2},
                 {"q,k,v,out", 4 * (encoder + decoder)},
                 {"fc1,fc2,gate,up,down", 2 * encoder + 3 * decoder},
                 {"decoder,decoder.0", 7 * decoder},
                 {PG_INT8_LAYERS_MIX, 2 + 4 * (encoder + decoder)},
                 {"embedding,patches,projector,encoder,decoder", all}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (n_named(cases[i].list) != cases[i].n)
            fail_msg("%s: %d matrices, expected %d", cases[i].list, n_named(cases[i].list), cases[i].n);
}

static void mixes(void **state) {
    static const char *const lists[] = {PG_INT8_LAYERS_MIX,
                                        "decoder.down",
                                        "encoder,projector,patches",
                                        "1.mlp,embedding",
                                        "embedding,patches,projector,encoder,decoder",
                                        ""};
    (void)state;
    for (int i = 0; i < 18; i++) {
        const char *list = lists[i % 6];
        tiny_options options = i % 2 ? tiny_saved_today() : tiny_official();
        bytes a = {0}, b = {0}, c = {0};
        pg_model *model = NULL;
        pg_model_info info = {.struct_size = sizeof info};
        options.seed = (uint64_t)i + 300;
        options.head = i / 6;
        tiny_write(source, &options);
        OK(convert_mix(PG_WEIGHTS_INT4, list, 1 + i % 3, i % 4 == 3 ? 60000 : 0));
        compare_mix(PG_WEIGHTS_INT4, list);
        OK(try_open(PG_WEIGHTS_STORED, PG_MODEL_VERIFY));
        OK(try_open(PG_WEIGHTS_INT4, PG_MODEL_IN_MEMORY));
        OK(try_open_mix(PG_WEIGHTS_INT4, list, 0));
        if (*list) ERROR(try_open_mix(PG_WEIGHTS_INT4, "", 0), PG_ERROR_ARGUMENT, "converted to int8", "expected int4");
        ERROR(try_open_mix(PG_WEIGHTS_INT4, "q", 0), PG_ERROR_ARGUMENT, "\"q\" says", "leave int8_layers out");
        ERROR(try_open(PG_WEIGHTS_INT8, 0), PG_ERROR_ARGUMENT, "int4", "int8");
        OK(pg_model_open(out, NULL, &model));
        OK(pg_model_get_info(model, &info));
        assert_int_equal(info.weights, PG_WEIGHTS_INT4);
        assert_int_equal(info.n_int8_matrices, n_named(list));
        pg_model_close(&model);
        logits_of(source, PG_WEIGHTS_INT4, list, &a); /* mixed while it is opened */
        logits_of(out, PG_WEIGHTS_STORED, NULL, &b);
        logits_of(source, PG_WEIGHTS_INT4, NULL, &c);
        assert_int_equal(a.size, b.size);
        assert_memory_equal(a.data, b.data, a.size);
        assert_true((memcmp(a.data, c.data, a.size) != 0) == (*list != 0));
        bytes_free(&a);
        bytes_free(&b);
        bytes_free(&c);
        remove_folder(out);
        remove_folder(source);
        mkdir(source, 0777);
    }
}

/* Without a mix nothing in a folder is other than before there were mixes. */
static void versions_of_the_layout(void **state) {
    static const struct {
        int32_t weights;
        const char *list, *version;
    } cases[] = {{PG_WEIGHTS_INT8, NULL, "\"layout_version\":\"1\""},
                 {PG_WEIGHTS_INT4, NULL, "\"layout_version\":\"1\""},
                 {PG_WEIGHTS_INT4, "", "\"layout_version\":\"1\""},
                 {PG_WEIGHTS_INT4, "q", "\"layout_version\":\"2\""}};
    tiny_options options = tiny_official();
    (void)state;
    tiny_write(source, &options);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t size;
        OK(convert_mix(cases[i].weights, cases[i].list, 1, 0));
        bytes file = read_file(out, "model.safetensors");
        memcpy(&size, file.data, 8);
        assert_non_null(memmem(file.data + 8, size, cases[i].version, strlen(cases[i].version)));
        assert_true((memmem(file.data + 8, size, "\"blocks:", 8) != NULL) == (cases[i].version[18] == '2'));
        bytes_free(&file);
        remove_folder(out);
    }
}

static void mixes_that_are_none(void **state) {
    static const char *const lists[] = {"heads",        "attention,",  ",attention",  "decoder.99",  "decoder..q", ".",
                                        "encoder.down", "decoder.fc1", "projector.0", "embedding.q", "decoder.01", "Q"};
    tiny_options options = tiny_official();
    (void)state;
    tiny_write(source, &options);
    pg_model *model = NULL;
    pg_model_options o;
    OK(pg_model_options_init(&o, sizeof o));
    o.weights = PG_WEIGHTS_INT4;
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        ERROR(convert_mix(PG_WEIGHTS_INT4, lists[i], 1, 0), PG_ERROR_ARGUMENT, "int8_layers: found \"",
              "decoder.0.mlp");
        assert_int_not_equal(access(out, F_OK), 0);
        o.int8_layers = lists[i];
        ERROR(pg_model_open(source, &o, &model), PG_ERROR_ARGUMENT, "int8_layers: found \"", "no matrix of this model");
        assert_null(model);
    }
    ERROR(convert_mix(PG_WEIGHTS_INT8, "q", 1, 0), PG_ERROR_ARGUMENT, "pg_convert_options.int8_layers is \"q\"",
          "PG_WEIGHTS_INT4");
    o.int8_layers = "q";
    for (o.weights = PG_WEIGHTS_STORED; o.weights <= PG_WEIGHTS_INT8; o.weights++)
        ERROR(pg_model_open(source, &o, &model), PG_ERROR_ARGUMENT, "pg_model_options.int8_layers is \"q\"",
              "PG_WEIGHTS_INT4");
}

/* Two processes map the same pages: the mapping is shared and read-only. */
static void the_mapping_is_shared(void **state) {
    tiny_options options = tiny_official();
    char line[1024];
    int found = 0;
    opened o;
    (void)state;
    tiny_write(source, &options);
    OK(convert(PG_WEIGHTS_INT4, 1, 0));
    open_weights(out, &o);
    FILE *maps = fopen("/proc/self/maps", "r");
    assert_non_null(maps);
    while (fgets(line, sizeof line, maps)) {
        unsigned long long begin, end;
        char rights[8];
        if (!strstr(line, out) || sscanf(line, "%llx-%llx %7s", &begin, &end, rights) != 3) continue;
        assert_string_equal(rights, "r--s");
        for (int i = 0; i < o.n; i++) found += (uintptr_t)o.matrices[i]->data - begin < end - begin;
    }
    fclose(maps);
    assert_int_equal(found, o.n); /* every matrix is read in place */
    close_weights(&o);
}

/* --------------------------------------------------------------------------------------------------------- refusals */

static int nothing_left(void) { return access(out, F_OK) != 0 && access(partial, F_OK) != 0; }

static void wrong_arguments(void **state) {
    tiny_options options = tiny_official();
    pg_convert_options o;
    char path[700];
    (void)state;
    tiny_write(source, &options);
    ERROR(pg_model_convert(NULL, out, NULL), PG_ERROR_ARGUMENT, "model", "NULL");
    ERROR(pg_model_convert(source, NULL, NULL), PG_ERROR_ARGUMENT, "out", "NULL");
    ERROR(convert(PG_WEIGHTS_STORED, 1, 0), PG_ERROR_ARGUMENT, "weights is 0", "PG_WEIGHTS_INT8");
    ERROR(convert(3, 1, 0), PG_ERROR_ARGUMENT, "weights is 3", "PG_WEIGHTS_INT4");
    ERROR(convert(PG_WEIGHTS_INT8, -1, 0), PG_ERROR_ARGUMENT, "n_threads", "-1");
    OK(pg_convert_options_init(&o, sizeof o));
    o.reserved = 7;
    ERROR(pg_model_convert(source, out, &o), PG_ERROR_ARGUMENT, "pg_convert_options.reserved", "7");
    static const char *const names[] = {"", "/", ".", "..", "./", "a/..", "//"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        ERROR(pg_model_convert(source, names[i], NULL), PG_ERROR_ARGUMENT, "expected the name of a new folder", "");
    snprintf(path, sizeof path, "%s/nowhere/out", base);
    ERROR(pg_model_convert(source, path, NULL), PG_ERROR_NOT_FOUND, path, "");
    ERROR(pg_model_convert(base, out, NULL), PG_ERROR_NOT_FOUND, base, "config.json");
    ERROR(pg_model_convert(source, source, NULL), PG_ERROR_ARGUMENT, source, "empty");
    snprintf(path, sizeof path, "%s/config.json", source);
    ERROR(pg_model_convert(source, path, NULL), PG_ERROR_ARGUMENT, path, "file");
    assert_true(nothing_left());

    mkdir(out, 0700); /* empty: taken with its mode; slashes at the end mean nothing */
    snprintf(path, sizeof path, "%s//", out);
    OK(pg_model_convert(source, path, NULL));
    assert_true(has_file(out, "config.json"));
    struct stat info;
    assert_int_equal(stat(out, &info), 0);
    assert_int_equal(info.st_mode & 07777, 0700);
    ERROR(convert(PG_WEIGHTS_INT8, 1, 0), PG_ERROR_ARGUMENT, out, "empty");
    OK(try_open(0, PG_MODEL_VERIFY)); /* still whole */

    snprintf(path, sizeof path, "%s2", out);
    ERROR(pg_model_convert(out, path, NULL), PG_ERROR_UNSUPPORTED, "int8", out);
}

static void contradicting_options(void **state) {
    tiny_options options = tiny_official();
    pg_model *model = NULL;
    pg_model_options o;
    (void)state;
    tiny_write(source, &options);
    OK(convert(PG_WEIGHTS_INT4, 1, 0));
    ERROR(try_open(PG_WEIGHTS_INT8, 0), PG_ERROR_ARGUMENT, "int4", "int8");
    ERROR(try_open(3, 0), PG_ERROR_ARGUMENT, "weights is 3", "PG_WEIGHTS_");
    ERROR(try_open(0, 4), PG_ERROR_ARGUMENT, "flags is 0x4", "PG_MODEL_VERIFY");
    OK(pg_model_options_init(&o, sizeof o));
    o.flags = PG_MODEL_VERIFY;
    ERROR(pg_model_open(source, &o, &model), PG_ERROR_UNSUPPORTED, source, "checksums");
}

static int32_t stop_at(void *user, int32_t phase, int64_t done, int64_t total) {
    int64_t *calls = user;
    if (phase == PG_PHASE_CONVERT) assert_true(0 <= done && done <= total && total > 0);
    return --*calls == 0;
}

static void cancelled(void **state) {
    tiny_options options = tiny_official();
    pg_convert_options o;
    (void)state;
    tiny_write(source, &options);
    OK(pg_convert_options_init(&o, sizeof o));
    int64_t total = INT64_MAX, calls = total;
    o.progress = stop_at;
    o.progress_user = &calls;
    OK(pg_model_convert(source, out, &o));
    total -= calls;
    assert_in_range(total, 60, 1000);
    remove_folder(out);
    for (int64_t n = 1; n <= total; n++) {
        calls = n;
        ERROR(pg_model_convert(source, out, &o), PG_ERROR_CANCELLED, "progress", "");
        assert_true(nothing_left());
    }
    pg_cancel *cancel;
    OK(pg_cancel_create(&cancel));
    pg_cancel_request(cancel);
    OK(pg_convert_options_init(&o, sizeof o));
    o.cancel = cancel;
    ERROR(pg_model_convert(source, out, &o), PG_ERROR_CANCELLED, "", "");
    assert_true(nothing_left());
    pg_cancel_close(&cancel);
}

static void every_failing_allocation(void **state) {
    tiny_options options = tiny_saved_today();
    pg_convert_options o;
    counter memory;
    (void)state;
    tiny_write(source, &options);
    OK(pg_convert_options_init(&o, sizeof o));
    o.allocator = &memory.hooks;
    o.n_threads = 1;
    o.max_file_bytes = 100000;
    o.weights = PG_WEIGHTS_INT4;
    o.int8_layers = "embedding,decoder.0,mlp";
    counter_init(&memory);
    OK(pg_model_convert(source, out, &o));
    assert_true(counter_clean(&memory));
    int64_t total = memory.n_allocs;
    assert_in_range(total, 30, 10000);
    remove_folder(out);
    for (int64_t n = 1; n <= total; n = next_fault(n)) {
        counter_init(&memory);
        memory.fail_at = n;
        ERROR(pg_model_convert(source, out, &o), PG_ERROR_MEMORY, "", "");
        assert_true(counter_clean(&memory));
        assert_true(nothing_left());
    }
}

static void weights_that_cannot_be_quantized(void **state) {
    tiny_options options = tiny_official();
    uint64_t header;
    (void)state;
    options.dtype = PG_DTYPE_F32;
    tiny_write(source, &options);
    bytes file = read_file(source, "model.safetensors");
    memcpy(&header, file.data, 8);
    opened o;
    open_weights(source, &o);
    pgi_matrix *m = &o.weights.text.layers[0].down.weight;
    size_t at = offset_of(m);
    assert_true(at > 8 + header);
    at += (size_t)(2 * m->columns + 5) * 4;
    close_weights(&o);
    for (int i = 0; i < 2; i++) {
        float bad = i ? HUGE_VALF : NAN;
        memcpy(file.data + at, &bad, 4);
        write_file(source, "model.safetensors", file.data, file.size);
        ERROR(convert(PG_WEIGHTS_INT8 + i, 2, 0), PG_ERROR_ARGUMENT, "layers.0.mlp.down_proj", "row 2, column 5");
        assert_true(nothing_left());
    }
    bytes_free(&file);
}

static void what_a_killed_process_left(void **state) {
    tiny_options options = tiny_official();
    (void)state;
    tiny_write(source, &options);
    mkdir(partial, 0777); /* killed at once */
    OK(convert(PG_WEIGHTS_INT8, 1, 0));
    remove_folder(out);

    mkdir(partial, 0777); /* killed later */
    write_text(partial, "unfinished", "");
    write_text(partial, "model.safetensors", "half");
    OK(convert(PG_WEIGHTS_INT8, 1, 0));
    assert_int_not_equal(access(partial, F_OK), 0);
    OK(try_open(0, PG_MODEL_VERIFY));
    remove_folder(out);

    mkdir(partial, 0777); /* somebody's own */
    write_text(partial, "thesis.tex", "years");
    ERROR(convert(PG_WEIGHTS_INT8, 1, 0), PG_ERROR_IO, partial, "move it away");
    assert_true(has_file(partial, "thesis.tex"));
    remove_folder(partial);

    write_text(base, "out.partial", "a file");
    ERROR(convert(PG_WEIGHTS_INT8, 1, 0), PG_ERROR_IO, partial, "a file or a link");
    remove_file(base, "out.partial");
    assert_int_equal(symlink(source, partial), 0);
    ERROR(convert(PG_WEIGHTS_INT8, 1, 0), PG_ERROR_IO, partial, "a file or a link");
    remove_file(base, "out.partial");
    assert_true(has_file(source, "config.json"));

    mkdir(partial, 0777); /* another process is at it */
    int fd = open(partial, O_RDONLY | O_DIRECTORY);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    ERROR(convert(PG_WEIGHTS_INT8, 1, 0), PG_ERROR_IO, partial, "another process");
    close(fd);
    remove_folder(partial);
}

/* What is copied as it is must lie in the folder, or in the blobs of its repository in the hub's cache. */
static void links_out_of_the_folder(void **state) {
    tiny_options options = tiny_official();
    char snapshots[600], revision[640], blobs[600], away[700], link[720];
    (void)state;
    tiny_write(source, &options);
    write_text(base, "id_rsa", "a secret");
    snprintf(away, sizeof away, "%s/id_rsa", base);
    static const char *const names[] = {"NOTICE", "LICENSE", "added_tokens.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        for (int relative = 0; relative < 2; relative++) {
            snprintf(link, sizeof link, "%s/%s", source, names[i]);
            if (has_file(source, names[i])) remove_file(source, names[i]);
            assert_int_equal(symlink(relative ? "../id_rsa" : away, link), 0);
            ERROR(convert(PG_WEIGHTS_INT8, 1, 0), PG_ERROR_UNSUPPORTED, names[i], "outside of the folder");
            assert_true(nothing_left());
            remove_file(source, names[i]);
        }
    }
    write_text(source, "terms.txt", "free"); /* inside */
    snprintf(link, sizeof link, "%s/LICENSE", source);
    assert_int_equal(symlink("terms.txt", link), 0);
    OK(convert(PG_WEIGHTS_INT8, 1, 0));
    assert_true(has_file(out, "LICENSE"));
    remove_folder(out);
    remove_file(source, "LICENSE");

    snprintf(blobs, sizeof blobs, "%s/blobs", base); /* the hub's cache */
    snprintf(snapshots, sizeof snapshots, "%s/snapshots", base);
    snprintf(revision, sizeof revision, "%s/abc", snapshots);
    assert_int_equal(mkdir(blobs, 0777) | mkdir(snapshots, 0777), 0);
    assert_int_equal(rename(source, revision), 0);
    write_text(blobs, "0123", "free");
    snprintf(link, sizeof link, "%s/LICENSE", revision);
    assert_int_equal(symlink("../../blobs/0123", link), 0);
    OK(pg_model_convert(revision, out, NULL));
    assert_true(has_file(out, "LICENSE"));
    remove_folder(out);
    remove_file(revision, "LICENSE");
    assert_int_equal(symlink("../../id_rsa", link), 0);
    ERROR(pg_model_convert(revision, out, NULL), PG_ERROR_UNSUPPORTED, "LICENSE", "outside of the folder");
    remove_folder(revision);
    remove_folder(snapshots);
    remove_folder(blobs);
    remove_file(base, "id_rsa");
}

/* A write beyond the limit would end the process with SIGXFSZ. */
static void no_room(void **state) {
    tiny_options options = tiny_official();
    struct rlimit limit, small;
    (void)state;
    tiny_write(source, &options);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    small = (struct rlimit){20000, limit.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    pg_status status = convert(PG_WEIGHTS_INT8, 1, 0);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    if (status != PG_ERROR_IO || !strstr(pg_last_error(), "model.safetensors: cannot write"))
        fail_msg("%s: %s", pg_status_name(status), pg_last_error());
    assert_true(nothing_left());
}

/* --------------------------------------------------------------------------------------------------------- metadata */

/* Replaces a text in the header of out/model.safetensors by one of the same length; repair: with a right checksum. */
static void edit_header(const char *from, const char *to, int repair) {
    bytes file = read_file(out, "model.safetensors");
    uint64_t size;
    size_t at;
    uint32_t crc;
    char digits[9];
    memcpy(&size, file.data, 8);
    assert_int_equal(strlen(from), strlen(to));
    char *found = memmem(file.data + 8, size, from, strlen(from));
    if (!found) fail_msg("no %s in the header", from);
    memcpy(found, to, strlen(to));
    if (repair) {
        assert_true(pgi_quantized_store_header_crc32(file.data + 8, size, &at, &crc));
        snprintf(digits, sizeof digits, "%08x", crc);
        memcpy(file.data + 8 + at, digits, 8);
    }
    write_file(out, "model.safetensors", file.data, file.size);
    bytes_free(&file);
}

static void metadata_of_others(void **state) {
    static const struct {
        const char *from, *to;
        int repair;
        pg_status status;
        const char *first, *second;
    } cases[] = {
        {"\"layout_version\":\"1\"", "\"layout_version\":\"3\"", 0, PG_ERROR_UNSUPPORTED, "version 3", "version 2"},
        {"\"layout_version\":\"1\"", "\"layout_version\":\"0\"", 1, PG_ERROR_FORMAT, "layout_version", "\"0\""},
        {"\"layout_version\":\"1\"", "\"layout_version\":\"x\"", 1, PG_ERROR_FORMAT, "layout_version", "\"x\""},
        {"\"layout_version\"", "\"layout_Version\"", 1, PG_ERROR_FORMAT, "layout_version", "nothing"},
        {"\"weights\":\"int8\"", "\"weights\":\"int2\"", 1, PG_ERROR_UNSUPPORTED, "int2", "int8 or int4"},
        {"\"weights\":\"int8\"", "\"weights\":\"int4\"", 1, PG_ERROR_FORMAT, "bytes", "int4 blocks"},
        {"\"weights\":\"int8\"", "\"weights\":\"int4\"", 0, PG_ERROR_FORMAT, "checksum", "header"},
        {"\"weights\":\"int8\"", "\"veights\":\"int8\"", 1, PG_ERROR_FORMAT, "weights", "nothing"},
        {"\"libpaligemma\"", "\"libsomething\"", 1, PG_ERROR_UNSUPPORTED, "U8", "libsomething"},
        {"\"header_crc32\"", "\"header_crc33\"", 0, PG_ERROR_FORMAT, "header_crc32", "nothing"},
        {"\"config_crc32\"", "\"config_crc33\"", 1, PG_ERROR_FORMAT, "config_crc32", "nothing"},
        {"\"shape:v", "\"shapes:", 1, PG_ERROR_UNSUPPORTED, "U8", "vision"},
        {"\"crc32:v", "\"crc33:v", 1, PG_ERROR_FORMAT, "crc32:vision", "nothing"},
        {"[24,3,4,4]", "[24,4,4,3]", 1, PG_ERROR_FORMAT, "[24, 4, 4, 3]", "[24, 3, 4, 4]"},
        {"[24,3,4,4]", "[24,3,4,0]", 1, PG_ERROR_FORMAT, "shape:", "[24,3,4,0]"},
        {"[24,3,4,4]", "[24,3,4,4}", 1, PG_ERROR_FORMAT, "shape:", "[24,3,4,4}"},
        {"[24,3,4,4]", "[-1,3,4,4]", 1, PG_ERROR_FORMAT, "shape:", "[-1,3,4,4]"},
        {"[24,3,4,4]", "[24,3,999]", 1, PG_ERROR_FORMAT, "bytes", "[24,3,999]"},
    };
    tiny_options options = tiny_official();
    (void)state;
    options.layout = 0;
    tiny_write(source, &options);
    OK(convert(PG_WEIGHTS_INT8, 1, 0));
    bytes file = read_file(out, "model.safetensors");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        edit_header(cases[i].from, cases[i].to, cases[i].repair);
        ERROR(try_open(0, 0), cases[i].status, cases[i].first, cases[i].second);
        write_file(out, "model.safetensors", file.data, file.size);
    }
    OK(try_open(0, PG_MODEL_VERIFY));
    bytes_free(&file);
}

static void metadata_of_mixes(void **state) {
    static const struct {
        const char *from, *to;
        pg_status status;
        const char *first, *second;
    } cases[] = {
        {"blocks:v", "blockz:v", PG_ERROR_FORMAT, "bytes", "int4 blocks"},
        {"q_proj.weight\":\"int8\"", "q_proj.weight\":\"int4\"", PG_ERROR_FORMAT, "bytes", "int4 blocks"},
        {"q_proj.weight\":\"int8\"", "q_proj.weight\":\"int2\"", PG_ERROR_FORMAT, "blocks:", "int8 or int4"},
        {"q_proj.weight\":\"int8\"", "q_proj.weight\":[1,23]", PG_ERROR_FORMAT, "q_proj", ""},
        {"\"weights\":\"int4\"", "\"weights\":\"int8\"", PG_ERROR_FORMAT, "bytes", "int8 blocks"},
    };
    tiny_options options = tiny_official();
    (void)state;
    tiny_write(source, &options);
    OK(convert_mix(PG_WEIGHTS_INT4, "encoder.q", 1, 0));
    bytes file = read_file(out, "model.safetensors");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        edit_header(cases[i].from, cases[i].to, 1);
        ERROR(try_open(0, 0), cases[i].status, cases[i].first, cases[i].second);
        write_file(out, "model.safetensors", file.data, file.size);
    }
    OK(try_open(0, PG_MODEL_VERIFY));
    bytes_free(&file);
}

/* json.dumps() of Python writes a space behind the colon. */
static void a_header_written_anew(void **state) {
    tiny_options options = tiny_official();
    uint64_t size;
    (void)state;
    tiny_write(source, &options);
    OK(convert(PG_WEIGHTS_INT8, 1, 0));
    bytes file = read_file(out, "model.safetensors");
    memcpy(&size, file.data, 8);
    char *header = (char *)file.data + 8, *value = memmem(header, size, "_crc32\":\"", 9);
    assert_non_null(value);
    value = memmem(value + 9, size, "_crc32\":\"", 9); /* the second, header_crc32 */
    assert_non_null(value);
    value += 8;
    assert_int_equal(header[size - 1], ' '); /* the padding makes room */
    memmove(value + 1, value, (size_t)(header + size - 1 - value));
    *value = ' ';
    write_file(out, "model.safetensors", file.data, file.size);
    bytes_free(&file);
    ERROR(try_open(0, 0), PG_ERROR_FORMAT, "without spaces", "rewritten");
}

static void damage_that_verifying_sees(void **state) {
    tiny_options options = tiny_official();
    rng r = {7};
    uint64_t header;
    (void)state;
    tiny_write(source, &options);
    OK(convert(PG_WEIGHTS_INT4, 1, 0));
    bytes file = read_file(out, "model.safetensors");
    memcpy(&header, file.data, 8);
    for (int i = 0; i < 100; i++) { /* one bit of the data */
        size_t at = 8 + header + rng_below(&r, file.size - 8 - header);
        uint8_t bit = (uint8_t)(1u << rng_below(&r, 8));
        file.data[at] ^= bit;
        write_file(out, "model.safetensors", file.data, file.size);
        OK(try_open(0, 0)); /* the data is not read when it opens */
        ERROR(try_open(0, PG_MODEL_VERIFY), PG_ERROR_FORMAT, "tensor", "checksum");
        file.data[at] ^= bit;
    }
    for (int i = 0; i < 200; i++) { /* one bit of the header, or of its size */
        size_t at = rng_below(&r, 8 + header);
        uint8_t bit = (uint8_t)(1u << rng_below(&r, 8));
        file.data[at] ^= bit;
        write_file(out, "model.safetensors", file.data, file.size);
        stale_error();
        pg_status status = try_open(0, 0);
        if (status >= 0 || bad_error(status) || error_is_stale()) fail_msg("bit %d of byte %zu is not seen", bit, at);
        file.data[at] ^= bit;
    }
    write_file(out, "model.safetensors", file.data, file.size);
    bytes_free(&file);
    bytes config = read_file(out, "config.json");
    bytes_text(&config, "\n");
    write_file(out, "config.json", config.data, config.size);
    bytes_free(&config);
    OK(try_open(0, 0));
    ERROR(try_open(0, PG_MODEL_VERIFY), PG_ERROR_FORMAT, "config.json", "checksum");
}

static void shards_of_two_conversions(void **state) {
    tiny_options options = tiny_official();
    char name[] = "model-00002-of-00003.safetensors";
    (void)state;
    tiny_write(source, &options);
    OK(convert(PG_WEIGHTS_INT4, 1, 40000));
    assert_true(has_file(out, name));
    bytes shard = read_file(out, name);
    remove_folder(out);
    OK(convert(PG_WEIGHTS_INT8, 1, 80000));
    assert_true(has_file(out, name));
    write_file(out, name, shard.data, shard.size);
    bytes_free(&shard);
    ERROR(try_open(0, 0), PG_ERROR_FORMAT, "int4", "int8");
}

int main(int argc, char **argv) {
    static const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        TEST(every_source),
        TEST(the_same_bytes_for_any_threads),
        TEST(a_tied_head_is_stored_once),
        TEST(info_and_files),
        TEST(as_quantized_while_opening),
        TEST(names_of_layers),
        TEST(mixes),
        TEST(versions_of_the_layout),
        TEST(mixes_that_are_none),
        TEST(metadata_of_mixes),
        TEST(the_mapping_is_shared),
        TEST(wrong_arguments),
        TEST(contradicting_options),
        TEST(cancelled),
        TEST(every_failing_allocation),
        TEST(weights_that_cannot_be_quantized),
        TEST(what_a_killed_process_left),
        TEST(links_out_of_the_folder),
        TEST(no_room),
        TEST(metadata_of_others),
        TEST(a_header_written_anew),
        TEST(damage_that_verifying_sees),
        TEST(shards_of_two_conversions),
    };
    return RUN_TESTS(tests, NULL, NULL);
}
