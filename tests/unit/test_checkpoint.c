/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * lib/checkpoint: safetensors files, weight binding in every layout. Checkpoints are made here, byte by
 * byte, in a temporary folder. How the head has to be tied was taken from transformers 5.23 by running it.
 */
#include "run_tests.h"

#include "base/float16.h"
#include "checkpoint/config.h"
#include "checkpoint/weights.h"
#include "checkpoint_files.h"

/* ----------------------------------------------------------------------------------------------- tiny checkpoints */

enum { MAX_TENSORS = 160 };

typedef struct tensor {
    char name[120];
    int32_t dtype; /* PG_DTYPE_F32, _BF16, _F16 */
    int n_dims;
    int64_t shape[4];
    int shard;
} tensor;

typedef struct checkpoint {
    tensor tensors[MAX_TENSORS];
    int n, layout, dtype; /* dtype 0: each tensor another one */
} checkpoint;

enum { OLD_LAYOUT, LATE_4_LAYOUT, V5_LAYOUT, MIXED_LAYOUT };

static const char *prefix_of(const checkpoint *c, char part) {
    static const char *const table[3][3] = {
        {"vision_tower.vision_model.", "multi_modal_projector.", "language_model.model."},
        {"model.vision_tower.vision_model.", "model.multi_modal_projector.", "model.language_model."},
        {"vision_tower.", "multi_modal_projector.", "language_model.model."}};
    int layout = c->layout == MIXED_LAYOUT ? c->n % 3 : c->layout;
    return table[layout][part == 'v' ? 0 : part == 'p' ? 1 : 2];
}

static tensor *add(checkpoint *c, char part, int n_dims, const int64_t *shape, const char *format, ...) {
    static const int32_t dtypes[] = {PG_DTYPE_F32, PG_DTYPE_BF16, PG_DTYPE_F16};
    assert_true(c->n < MAX_TENSORS);
    tensor *t = &c->tensors[c->n];
    *t = (tensor){.dtype = c->dtype ? c->dtype : dtypes[c->n % 3], .n_dims = n_dims};
    if (part) strcpy(t->name, prefix_of(c, part));
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(t->name + strlen(t->name), sizeof t->name - strlen(t->name), format, arguments);
    va_end(arguments);
    memcpy(t->shape, shape, (size_t)n_dims * sizeof *shape);
    c->n++;
    return t;
}

#define ADD1(c, part, a, ...) add(c, part, 1, (int64_t[]){a}, __VA_ARGS__)
#define ADD2(c, part, a, b, ...) add(c, part, 2, (int64_t[]){a, b}, __VA_ARGS__)

static void build(checkpoint *c, int gemma_version, int layout, int32_t dtype) {
    *c = (checkpoint){.layout = layout, .dtype = dtype};
    add(c, 'v', 4, (int64_t[]){VH, 3, 14, 14}, "embeddings.patch_embedding.weight");
    ADD1(c, 'v', VH, "embeddings.patch_embedding.bias");
    ADD2(c, 'v', PATCHES, VH, "embeddings.position_embedding.weight");
    for (int i = 0; i < LAYERS; i++) {
        for (int k = 1; k <= 2; k++) {
            ADD1(c, 'v', VH, "encoder.layers.%d.layer_norm%d.weight", i, k);
            ADD1(c, 'v', VH, "encoder.layers.%d.layer_norm%d.bias", i, k);
        }
        static const char *const names[] = {"q_proj", "k_proj", "v_proj", "out_proj"};
        for (int k = 0; k < 4; k++) {
            ADD2(c, 'v', VH, VH, "encoder.layers.%d.self_attn.%s.weight", i, names[k]);
            ADD1(c, 'v', VH, "encoder.layers.%d.self_attn.%s.bias", i, names[k]);
        }
        ADD2(c, 'v', VI, VH, "encoder.layers.%d.mlp.fc1.weight", i);
        ADD1(c, 'v', VI, "encoder.layers.%d.mlp.fc1.bias", i);
        ADD2(c, 'v', VH, VI, "encoder.layers.%d.mlp.fc2.weight", i);
        ADD1(c, 'v', VH, "encoder.layers.%d.mlp.fc2.bias", i);
    }
    ADD1(c, 'v', VH, "post_layernorm.weight");
    ADD1(c, 'v', VH, "post_layernorm.bias");
    ADD2(c, 'p', TH, VH, "linear.weight");
    ADD1(c, 'p', TH, "linear.bias");
    ADD2(c, 't', VOCAB, TH, "embed_tokens.weight");
    for (int i = 0; i < LAYERS; i++) {
        ADD1(c, 't', TH, "layers.%d.input_layernorm.weight", i);
        ADD1(c, 't', TH, "layers.%d.post_attention_layernorm.weight", i);
        if (gemma_version == 2) {
            ADD1(c, 't', TH, "layers.%d.pre_feedforward_layernorm.weight", i);
            ADD1(c, 't', TH, "layers.%d.post_feedforward_layernorm.weight", i);
        }
        ADD2(c, 't', HEADS * HD, TH, "layers.%d.self_attn.q_proj.weight", i);
        ADD2(c, 't', KV * HD, TH, "layers.%d.self_attn.k_proj.weight", i);
        ADD2(c, 't', KV * HD, TH, "layers.%d.self_attn.v_proj.weight", i);
        ADD2(c, 't', TH, HEADS * HD, "layers.%d.self_attn.o_proj.weight", i);
        ADD2(c, 't', TI, TH, "layers.%d.mlp.gate_proj.weight", i);
        ADD2(c, 't', TI, TH, "layers.%d.mlp.up_proj.weight", i);
        ADD2(c, 't', TH, TI, "layers.%d.mlp.down_proj.weight", i);
    }
    ADD1(c, 't', TH, "norm.weight");
}

/* What is the same in every layout: "encoder.layers.0.mlp.fc1.bias", else the last two parts, "norm.weight". */
static const char *role_of(const char *name) {
    const char *role = strstr(name, "encoder.layers.");
    if (!role) role = strstr(name, "layers.");
    if (role) return role;
    for (role = strrchr(name, '.'); role > name && role[-1] != '.'; role--) continue;
    return role;
}

static tensor *named(checkpoint *c, const char *role) {
    for (int i = 0; i < c->n; i++)
        if (strcmp(role_of(c->tensors[i].name), role) == 0) return &c->tensors[i];
    fail_msg("no tensor %s", role);
    return NULL;
}

static void drop(checkpoint *c, const char *role) { *named(c, role) = c->tensors[--c->n]; }

/* Element i of a tensor: eighths, exact in every dtype; its layout does not matter. */
static float value_of(const char *name, int64_t i) {
    unsigned hash = 17;
    for (const char *p = role_of(name); *p; p++) hash = hash * 31 + (unsigned char)*p;
    hash = (hash ^ (unsigned)i) * 2654435761u; /* so that no two tensors are alike */
    return (float)((int)((hash >> 8) % 33) - 16) / 8;
}

static uint16_t to_f16(float value) { /* eighths from -2 to 2 */
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if ((bits & 0x7FFFFFFF) == 0) return (uint16_t)(bits >> 16);
    return (uint16_t)((bits >> 16 & 0x8000) | ((bits >> 23 & 0xFF) - 112) << 10 | (bits >> 13 & 0x3FF));
}

static int64_t count(const tensor *t) {
    int64_t n = 1;
    for (int i = 0; i < t->n_dims; i++) n *= t->shape[i];
    return n;
}

static const char *dtype_name(int32_t dtype) {
    return dtype == PG_DTYPE_F32 ? "F32" : dtype == PG_DTYPE_BF16 ? "BF16" : dtype == PG_DTYPE_F16 ? "F16" : "I8";
}

/* The tensors of one shard as a safetensors file. `padding` spaces behind the header shift the data. */
static void write_shard(const checkpoint *c, const char *name, int shard, int padding) {
    size_t capacity = 1 << 20, header = 8, data = 0;
    uint8_t *file = calloc(1, capacity * 2);
    char *text = (char *)file + 8;
    size_t n = (size_t)sprintf(text, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (int i = 0; i < c->n; i++) {
        const tensor *t = &c->tensors[i];
        if (t->shard != shard) continue;
        size_t size = (size_t)count(t) * (t->dtype == PGI_DTYPE_U8 ? 1 : pgi_dtype_size(t->dtype));
        n += (size_t)sprintf(text + n, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", t->name, dtype_name(t->dtype));
        for (int k = 0; k < t->n_dims; k++)
            n += (size_t)sprintf(text + n, k ? ",%lld" : "%lld", (long long)t->shape[k]);
        n += (size_t)sprintf(text + n, "],\"data_offsets\":[%zu,%zu]}", data, data + size);
        data += size;
    }
    n += (size_t)sprintf(text + n, "}%*s", padding, "");
    for (int i = 0; i < 8; i++) file[i] = (uint8_t)((uint64_t)n >> (8 * i));
    header += n;
    assert_true(header < capacity && data < capacity);
    uint8_t *at = file + header;
    for (int i = 0; i < c->n; i++) {
        const tensor *t = &c->tensors[i];
        if (t->shard != shard) continue;
        for (int64_t k = 0; k < count(t); k++) {
            float value = value_of(t->name, k);
            uint32_t bits;
            memcpy(&bits, &value, 4);
            uint16_t half = t->dtype == PG_DTYPE_BF16 ? (uint16_t)(bits >> 16) : to_f16(value);
            if (t->dtype == PG_DTYPE_F32)
                memcpy(at, &bits, 4), at += 4;
            else if (t->dtype == PGI_DTYPE_U8)
                at++;
            else
                memcpy(at, &half, 2), at += 2;
        }
    }
    write_bytes(name, file, (size_t)(at - file));
    free(file);
}

/* As one file, or split over shards with an index. */
static void write_files(checkpoint *c, int n_shards, int padding) {
    char name[64];
    if (n_shards == 1) {
        for (int i = 0; i < c->n; i++) c->tensors[i].shard = 0;
        write_shard(c, "model.safetensors", 0, padding);
        return;
    }
    char *index = malloc(MAX_TENSORS * 256);
    assert_non_null(index);
    size_t n = (size_t)sprintf(index, "{\"metadata\":{\"total_size\":1},\"weight_map\":{");
    for (int i = 0; i < c->n; i++) {
        c->tensors[i].shard = i % n_shards;
        n += (size_t)sprintf(index + n, "%s\"%s\":\"model-%05d-of-%05d.safetensors\"", i ? "," : "", c->tensors[i].name,
                             c->tensors[i].shard + 1, n_shards);
    }
    sprintf(index + n, "}}");
    write_text("model.safetensors.index.json", index);
    free(index);
    for (int i = 0; i < n_shards; i++) {
        snprintf(name, sizeof name, "model-%05d-of-%05d.safetensors", i + 1, n_shards);
        write_shard(c, name, i, padding + i);
    }
    delete_file("model.safetensors");
}

typedef struct opened {
    pgi_config config;
    pgi_tensor_files *files;
    pgi_weights weights;
} opened;

static pg_status open_all(const pgi_memory *memory, const pgi_run *run, opened *o) {
    static const pgi_run quiet = {.n_threads = 1};
    pg_status status = pgi_config_load(memory, folder, &o->config);
    if (status < 0) return status;
    status = pgi_tensor_files_open(memory, folder, 0, NULL, &o->files);
    if (status >= 0) {
        status = pgi_weights_bind(memory, run ? run : &quiet, &o->config, o->files, PG_WEIGHTS_STORED, &o->weights);
        if (status < 0) pgi_tensor_files_close(&o->files);
    }
    if (status < 0) pgi_config_free(&o->config);
    return status;
}

static void close_all(opened *o) {
    pgi_weights_free(&o->weights);
    pgi_tensor_files_close(&o->files);
    pgi_config_free(&o->config);
}

static void assert_open(opened *o) {
    pg_status status = open_all(MEMORY, NULL, o);
    if (status < 0) fail_msg("%s: %s", pg_status_name(status), pgi_error_text());
}

static float element(const pgi_matrix *m, int64_t i) {
    const uint8_t *data = m->data;
    if (m->dtype == PG_DTYPE_F32) return pgi_load_f32(data + 4 * i);
    uint16_t bits = pgi_load_u16(data + 2 * i);
    return m->dtype == PG_DTYPE_BF16 ? pgi_f32_from_bf16(bits) : pgi_f32_from_f16(bits);
}

static void assert_matrix(const pgi_matrix *m, const char *name, int64_t rows, int64_t columns) {
    assert_int_equal(m->rows, rows);
    assert_int_equal(m->columns, columns);
    for (int64_t i = 0; i < rows * columns; i++) assert_true(element(m, i) == value_of(name, i));
}

static void assert_vector(const float *v, const char *name, int64_t n) {
    for (int64_t i = 0; i < n; i++) assert_true(v[i] == value_of(name, i));
}

/* Every role holds the values of its tensor. */
static void assert_weights(const opened *o, int gemma_version) {
    const pgi_weights *w = &o->weights;
    char name[120];
#define N(...) (snprintf(name, sizeof name, __VA_ARGS__), name)
    assert_matrix(&w->vision.patch.weight, "x.embeddings.patch_embedding.weight", VH, 3 * 14 * 14);
    assert_vector(w->vision.patch.bias, "x.embeddings.patch_embedding.bias", VH);
    assert_matrix(&w->vision.position, "x.embeddings.position_embedding.weight", PATCHES, VH);
    assert_vector(w->vision.norm_weight, "x.post_layernorm.weight", VH);
    assert_vector(w->vision.norm_bias, "x.post_layernorm.bias", VH);
    assert_matrix(&w->projector.weight, "x.linear.weight", TH, VH);
    assert_vector(w->projector.bias, "x.linear.bias", TH);
    assert_vector(w->text.norm, "x.norm.weight", TH);
    for (int i = 0; i < LAYERS; i++) {
        const pgi_vision_layer *v = &w->vision.layers[i];
        const struct {
            const float *vector;
            const pgi_linear *linear;
            const char *name;
            int64_t n_out, n_in;
        } vision[] = {{v->norm1_weight, NULL, "layer_norm1.weight", VH, 0},
                      {v->norm1_bias, NULL, "layer_norm1.bias", VH, 0},
                      {v->norm2_weight, NULL, "layer_norm2.weight", VH, 0},
                      {v->norm2_bias, NULL, "layer_norm2.bias", VH, 0},
                      {NULL, &v->q, "self_attn.q_proj", VH, VH},
                      {NULL, &v->k, "self_attn.k_proj", VH, VH},
                      {NULL, &v->v, "self_attn.v_proj", VH, VH},
                      {NULL, &v->out, "self_attn.out_proj", VH, VH},
                      {NULL, &v->fc1, "mlp.fc1", VI, VH},
                      {NULL, &v->fc2, "mlp.fc2", VH, VI}};
        for (size_t k = 0; k < COUNT(vision); k++) {
            if (vision[k].vector) {
                assert_vector(vision[k].vector, N("encoder.layers.%d.%s", i, vision[k].name), vision[k].n_out);
                continue;
            }
            assert_matrix(&vision[k].linear->weight, N("encoder.layers.%d.%s.weight", i, vision[k].name),
                          vision[k].n_out, vision[k].n_in);
            assert_vector(vision[k].linear->bias, N("encoder.layers.%d.%s.bias", i, vision[k].name), vision[k].n_out);
        }
        const pgi_text_layer *t = &w->text.layers[i];
        const struct {
            const pgi_linear *linear;
            const char *name;
            int64_t n_out, n_in;
        } text[] = {{&t->q, "self_attn.q_proj", HEADS * HD, TH}, {&t->k, "self_attn.k_proj", KV * HD, TH},
                    {&t->v, "self_attn.v_proj", KV * HD, TH},    {&t->out, "self_attn.o_proj", TH, HEADS * HD},
                    {&t->gate, "mlp.gate_proj", TI, TH},         {&t->up, "mlp.up_proj", TI, TH},
                    {&t->down, "mlp.down_proj", TH, TI}};
        for (size_t k = 0; k < COUNT(text); k++) {
            assert_matrix(&text[k].linear->weight, N("layers.%d.%s.weight", i, text[k].name), text[k].n_out,
                          text[k].n_in);
            assert_null(text[k].linear->bias);
        }
        assert_vector(t->input_norm, N("layers.%d.input_layernorm.weight", i), TH);
        assert_vector(t->post_attention_norm, N("layers.%d.post_attention_layernorm.weight", i), TH);
        if (gemma_version == 2) {
            assert_vector(t->pre_mlp_norm, N("layers.%d.pre_feedforward_layernorm.weight", i), TH);
            assert_vector(t->post_mlp_norm, N("layers.%d.post_feedforward_layernorm.weight", i), TH);
        } else {
            assert_null(t->pre_mlp_norm);
            assert_null(t->post_mlp_norm);
        }
    }
#undef N
}

/* ------------------------------------------------------------------------------------------------------- binding */

static void every_layout_dtype_and_sharding(void **state) {
    (void)state;
    static const int32_t dtypes[] = {PG_DTYPE_F32, PG_DTYPE_BF16, PG_DTYPE_F16, 0};
    for (int gemma_version = 1; gemma_version <= 2; gemma_version++)
        for (int layout = OLD_LAYOUT; layout <= MIXED_LAYOUT; layout++)
            for (size_t d = 0; d < COUNT(dtypes); d++)
                for (int shards = 1; shards <= 3; shards += 2) {
                    checkpoint c;
                    opened o;
                    build(&c, gemma_version, layout, dtypes[d]);
                    write_config(gemma_version, "", "");
                    uint64_t n = 0;
                    for (int i = 0; i < c.n; i++) n += (uint64_t)count(&c.tensors[i]);
                    write_files(&c, shards, (int)d); /* the padding makes every alignment of the data */
                    assert_open(&o);
                    assert_weights(&o, gemma_version);
                    assert_matrix(&o.weights.text.embedding, "x.embed_tokens.weight", VOCAB, TH);
                    assert_ptr_equal(o.weights.text.head.weight.data, o.weights.text.embedding.data);
                    assert_int_equal(o.weights.n_tensors, c.n);
                    assert_int_equal(o.weights.n_parameters, n);
                    assert_int_equal(o.weights.dtypes, dtypes[d] ? 1u << dtypes[d] : 1u << 1 | 1u << 2 | 1u << 3);
                    assert_int_equal(pgi_tensor_files_n_files(o.files), shards);
                    assert_int_equal(pgi_tensor_files_count(o.files), c.n);
                    close_all(&o);
                    delete_file("model.safetensors");
                }
}

static void vectors_are_aligned_and_extra_tensors_ignored(void **state) {
    (void)state;
    checkpoint c;
    opened o;
    build(&c, 1, OLD_LAYOUT, PG_DTYPE_BF16);
    int n = c.n;
    ADD2(&c, 'v', 3, 3, "head.attention.in_proj_weight");
    ADD1(&c, 0, 5, "language_model.model.layers.0.self_attn.rotary_emb.inv_freq");
    ADD1(&c, 0, 5, "something.else")->dtype = PGI_DTYPE_U8;
    write_config(1, "", "");
    for (int padding = 0; padding < 8; padding++) {
        write_files(&c, 1, padding);
        assert_open(&o);
        assert_weights(&o, 1);
        assert_int_equal(o.weights.n_tensors, n);
        assert_int_equal((uintptr_t)o.weights.text.norm % 64, 0);
        assert_int_equal((uintptr_t)o.weights.vision.layers[1].fc1.bias % 64, 0);
        assert_int_equal(pgi_tensor_files_find(o.files, "something.else")->used, 0);
        assert_null(pgi_tensor_files_find(o.files, "something"));
        close_all(&o);
    }
}

static void attention_bias_is_bound(void **state) {
    (void)state;
    checkpoint c;
    opened o;
    build(&c, 2, V5_LAYOUT, PG_DTYPE_F32);
    for (int i = 0; i < LAYERS; i++) {
        ADD1(&c, 't', HEADS * HD, "layers.%d.self_attn.q_proj.bias", i);
        ADD1(&c, 't', KV * HD, "layers.%d.self_attn.k_proj.bias", i);
        ADD1(&c, 't', KV * HD, "layers.%d.self_attn.v_proj.bias", i);
        ADD1(&c, 't', TH, "layers.%d.self_attn.o_proj.bias", i);
    }
    write_config(2, "\"attention_bias\":true,", "");
    write_files(&c, 1, 0);
    assert_open(&o);
    assert_vector(o.weights.text.layers[1].k.bias, "layers.1.self_attn.k_proj.bias", KV * HD);
    assert_vector(o.weights.text.layers[0].out.bias, "layers.0.self_attn.o_proj.bias", TH);
    close_all(&o);
    drop(&c, "layers.1.self_attn.v_proj.bias");
    write_files(&c, 1, 0);
    assert_error(open_all(MEMORY, NULL, &o), PG_ERROR_NOT_FOUND, "language_model.model.layers.1.self_attn.v_proj.bias",
                 "[12]");
}

/* The cases of modeling_utils.py tie_weights(), see weights.c. */
static void head_is_tied_as_in_transformers(void **state) {
    (void)state;
    static const char *const head_names[] = {"lm_head.weight", "model.lm_head.weight", "language_model.lm_head.weight",
                                             "model.language_model.lm_head.weight"};
    checkpoint c;
    opened o;
    for (int tied = 0; tied < 2; tied++) {
        write_config(1, tied ? "" : "\"tie_word_embeddings\":true,", tied ? "" : "\"tie_word_embeddings\":false,");
        for (size_t i = 0; i < COUNT(head_names); i++) { /* both there: each is used */
            build(&c, 1, OLD_LAYOUT, PG_DTYPE_BF16);
            ADD2(&c, 0, VOCAB, TH, "%s", head_names[i])->dtype = PG_DTYPE_F16;
            write_files(&c, 1, 1);
            assert_open(&o);
            assert_matrix(&o.weights.text.head.weight, "lm_head.weight", VOCAB, TH);
            assert_matrix(&o.weights.text.embedding, "x.embed_tokens.weight", VOCAB, TH);
            assert_int_equal(o.weights.n_tensors, c.n);
            close_all(&o);
        }
        /* only the head: it is the embedding too, when tied */
        drop(&c, "embed_tokens.weight");
        write_files(&c, 1, 1);
        if (tied) {
            assert_open(&o);
            assert_matrix(&o.weights.text.embedding, "lm_head.weight", VOCAB, TH);
            assert_ptr_equal(o.weights.text.head.weight.data, o.weights.text.embedding.data);
            close_all(&o);
        } else {
            assert_error(open_all(MEMORY, NULL, &o), PG_ERROR_NOT_FOUND, "embed_tokens.weight",
                         "tie_word_embeddings is false");
            build(&c, 1, OLD_LAYOUT, PG_DTYPE_BF16);
            write_files(&c, 1, 1);
            assert_error(open_all(MEMORY, NULL, &o), PG_ERROR_NOT_FOUND, "lm_head.weight",
                         "tie_word_embeddings is false");
        }
    }
}

static void vocabulary_is_the_embedding(void **state) {
    (void)state;
    checkpoint c;
    opened o;
    write_config(1, "", "");
    build(&c, 1, LATE_4_LAYOUT, PG_DTYPE_F16);
    named(&c, "embed_tokens.weight")->shape[0] = VOCAB + 14;
    write_files(&c, 1, 0);
    assert_open(&o);
    assert_int_equal(o.config.text.vocab_size, VOCAB + 14);
    assert_int_equal(o.weights.text.head.weight.rows, VOCAB + 14);
    close_all(&o);
    ADD2(&c, 0, VOCAB, TH, "lm_head.weight");
    write_files(&c, 1, 0);
    assert_error(open_all(MEMORY, NULL, &o), PG_ERROR_FORMAT, "lm_head.weight: found shape [50, 24]", "[64, 24]");
    named(&c, "embed_tokens.weight")->shape[0] = 0;
    write_files(&c, 1, 0);
    assert_error(open_all(MEMORY, NULL, &o), PG_ERROR_FORMAT, "embed_tokens.weight: found shape [0, 24]", NULL);
}

static void binding_errors_name_the_tensor(void **state) {
    (void)state;
    checkpoint c;
    opened o;
    tensor *t;
    write_config(2, "", "");
    build(&c, 2, MIXED_LAYOUT, PG_DTYPE_BF16);
    /* Each tensor in turn: missing, of another shape, of another dtype. */
    int n = c.n;
    for (int i = 0; i < n; i++) {
        tensor kept = c.tensors[i];
        c.tensors[i] = c.tensors[--c.n];
        write_files(&c, 1, 0);
        assert_error(open_all(MEMORY, NULL, &o), PG_ERROR_NOT_FOUND, role_of(kept.name), "expected [");
        c.tensors[c.n++] = c.tensors[i];
        c.tensors[i] = kept;
        c.tensors[i].shape[kept.n_dims - 1]++;
        write_files(&c, 1, 0);
        assert_error(open_all(MEMORY, NULL, &o), PG_ERROR_FORMAT, kept.name, "found shape [");
        assert_message("model.safetensors");
        c.tensors[i] = kept;
        c.tensors[i].dtype = PGI_DTYPE_U8; /* written as I8 */
        write_files(&c, 1, 0);
        assert_error(open_all(MEMORY, NULL, &o), PG_ERROR_UNSUPPORTED, kept.name, "found dtype I8");
        c.tensors[i] = kept;
    }
    t = named(&c, "position_embedding.weight");
    t->shape[0] = 9;
    write_files(&c, 1, 0);
    assert_error(open_all(MEMORY, NULL, &o), PG_ERROR_FORMAT, "found 9 rows, expected 4",
                 "image_size 28 / patch_size 14");
    t->shape[0] = 4;
    t = named(&c, "layers.0.mlp.up_proj.weight");
    t->n_dims = 1;
    write_files(&c, 1, 0);
    assert_error(open_all(MEMORY, NULL, &o), PG_ERROR_FORMAT, "found shape [40], expected [40, 24]", NULL);
    t->n_dims = 2;

    /* The same role under two names: fine when equal, an error when not. */
    ADD1(&c, 0, TH, "model.language_model.model.norm.weight");
    write_files(&c, 1, 0);
    assert_open(&o);
    close_all(&o);
    c.tensors[c.n - 1].dtype = PG_DTYPE_F32;
    write_files(&c, 1, 0);
    assert_error(open_all(MEMORY, NULL, &o), PG_ERROR_FORMAT, "model.language_model.model.norm.weight", "expected one");
}

static void adapters_are_told_apart(void **state) {
    (void)state;
    checkpoint c = {0};
    opened o;
    write_config(1, "", "");
    ADD2(&c, 0, 4, TH, "base_model.model.language_model.model.layers.0.self_attn.q_proj.lora_A.weight")->dtype =
        PG_DTYPE_F32;
    write_files(&c, 1, 0);
    assert_error(open_all(MEMORY, NULL, &o), PG_ERROR_UNSUPPORTED, "LoRA", "merge");
    delete_file("model.safetensors");
    assert_error(open_all(MEMORY, NULL, &o), PG_ERROR_NOT_FOUND, "model.safetensors.index.json", folder);
    write_text("pytorch_model.bin", "x");
    assert_error(open_all(MEMORY, NULL, &o), PG_ERROR_UNSUPPORTED, "pytorch_model.bin", NULL);
    write_text("adapter_model.safetensors", "x");
    assert_error(open_all(MEMORY, NULL, &o), PG_ERROR_UNSUPPORTED, "adapter", "pg_adapter_open");
    delete_file("pytorch_model.bin");
    delete_file("adapter_model.safetensors");
}

/* ------------------------------------------------------------------------------------------- progress and memory */

typedef struct watcher {
    int64_t n_calls, stop_at, last_done, total;
} watcher;

static int32_t watch(void *user, int32_t phase, int64_t done, int64_t total) {
    watcher *w = user;
    assert_int_equal(phase, PG_PHASE_LOAD);
    assert_int_equal(done, w->last_done + 1);
    if (w->n_calls) assert_int_equal(total, w->total);
    w->last_done = done;
    w->total = total;
    return ++w->n_calls == w->stop_at;
}

static void progress_counts_tensors_and_stops(void **state) {
    (void)state;
    checkpoint c;
    opened o;
    watcher w = {.last_done = -1};
    pgi_run run = {.n_threads = 1, .progress = watch, .progress_user = &w};
    build(&c, 2, V5_LAYOUT, PG_DTYPE_BF16);
    ADD2(&c, 0, VOCAB, TH, "lm_head.weight");
    write_config(2, "", "");
    write_files(&c, 1, 0);
    assert_int_equal(open_all(MEMORY, &run, &o), PG_OK);
    close_all(&o);
    assert_int_equal(w.n_calls, c.n + 1); /* from 0 */
    assert_int_equal(w.last_done, w.total);
    w = (watcher){.last_done = -1, .stop_at = 20};
    assert_error(open_all(MEMORY, &run, &o), PG_ERROR_CANCELLED, NULL, NULL);
    assert_int_equal(w.n_calls, 20);
    pg_cancel cancel;
    atomic_init(&cancel.references, 1);
    atomic_init(&cancel.requested, 1);
    run = (pgi_run){.n_threads = 1, .cancel = &cancel};
    assert_error(open_all(MEMORY, &run, &o), PG_ERROR_CANCELLED, NULL, NULL);
}

typedef struct counter {
    int n_left, n_live;
} counter;

static void *counting_alloc(void *user, size_t size, size_t alignment) {
    counter *count_of = user;
    void *block = NULL;
    if (count_of->n_left-- <= 0 || posix_memalign(&block, alignment, size) != 0) return NULL;
    count_of->n_live++;
    return block;
}

static void counting_free(void *user, void *block) {
    ((counter *)user)->n_live--;
    free(block);
}

static void every_failing_allocation_is_reported(void **state) {
    (void)state;
    checkpoint c;
    counter left = {0, 0};
    pgi_memory memory = {&left, counting_alloc, counting_free};
    build(&c, 2, OLD_LAYOUT, PG_DTYPE_F16);
    write_config(2, "", "");
    write_text("generation_config.json", "{\"eos_token_id\": 1}");
    write_files(&c, 3, 0);
    for (int n = 0;; n++) {
        opened o;
        left.n_left = n;
        pg_status status = open_all(&memory, NULL, &o);
        if (status == PG_OK) {
            close_all(&o);
            assert_int_equal(left.n_live, 0);
            assert_in_range(n, 10, 400);
            break;
        }
        assert_error(status, PG_ERROR_MEMORY, "out of memory", NULL);
        assert_int_equal(left.n_live, 0);
    }
    delete_file("generation_config.json");
}

/* --------------------------------------------------------------------------------------------------- safetensors */

/* A file of a header and `data_size` zero bytes; size -1: the header's own. */
static void write_raw(const char *name, int64_t header_size, const char *header, size_t data_size) {
    size_t n = strlen(header);
    uint64_t size = header_size < 0 ? n : (uint64_t)header_size;
    uint8_t *file = calloc(1, 8 + n + data_size);
    for (int i = 0; i < 8; i++) file[i] = (uint8_t)(size >> (8 * i));
    memcpy(file + 8, header, n);
    write_bytes(name, file, 8 + n + data_size);
    free(file);
}

#define T(name, dtype, shape, begin, end) \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end "]}"

static void damaged_files_are_refused(void **state) {
    (void)state;
    static const struct {
        int64_t header_size;
        const char *header;
        size_t data_size;
        pg_status status;
        const char *first, *second;
    } cases[] = {
        {-1, "{}", 0, PG_OK, NULL, NULL},
        {-1, "{\"__metadata__\":{}}   ", 0, PG_OK, NULL, NULL},
        {-1, "{" T("b", "BF16", "[2,3]", 4, 16) "," T("a", "F32", "[]", 0, 4) "," T("e", "U8", "[0]", 4, 4) "}", 16,
         PG_OK, NULL, NULL},
        {-1, "{" T("a", "F4", "[4]", 0, 2) "," T("b", "F6_E2M3", "[4]", 2, 5) "," T("c", "NEW", "[4]", 5, 6) "}", 6,
         PG_OK, NULL, NULL},
        {100, "{}", 0, PG_ERROR_FORMAT, "header size of 100 bytes", "at most 2"},
        {-2, "{}", 0, PG_ERROR_FORMAT, NULL, NULL},
        {INT64_MAX, "{}", 0, PG_ERROR_FORMAT, "header size of 9223372036854775807", NULL},
        {0, "{}", 0, PG_ERROR_FORMAT, "line 1", NULL},
        {-1, "{\"a\":", 0, PG_ERROR_FORMAT, "line 1", NULL},
        {-1, "[]", 0, PG_ERROR_FORMAT, "found an array of 0", NULL},
        {-1, "{\"a\":1}", 0, PG_ERROR_FORMAT, "tensor a: found 1", NULL},
        {-1, "{\"a\":{}}", 0, PG_ERROR_FORMAT, "tensor a: dtype: found nothing", NULL},
        {-1, "{\"a\":{\"dtype\":\"F32\"}}", 0, PG_ERROR_FORMAT, "tensor a: shape: found nothing", NULL},
        {-1, "{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 0, PG_ERROR_FORMAT, "tensor a: data_offsets: found nothing",
         NULL},
        {-1, "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, PG_ERROR_FORMAT,
         "data_offsets: found an array of 1", NULL},
        {-1, "{" T("a", "F32", "[1.0]", 0, 4) "}", 4, PG_ERROR_FORMAT, "tensor a: shape[0]: found 1.0", NULL},
        {-1, "{" T("a", "F32", "[-1]", 0, 4) "}", 4, PG_ERROR_FORMAT, "tensor a: shape[0]: found -1", NULL},
        {-1, "{" T("a", "F32", "[1,1,1,1,1,1,1,1,1]", 0, 4) "}", 4, PG_ERROR_LIMIT, "found 9 dimensions", NULL},
        {-1, "{" T("a", "F32", "[4294967296,4294967296,4]", 0, 4) "}", 4, PG_ERROR_FORMAT,
         "tensor a: shape: its product", NULL},
        {-1, "{" T("a", "F32", "[9223372036854775807]", 0, 4) "}", 4, PG_ERROR_FORMAT, "tensor a: found 4 bytes", NULL},
        {-1, "{" T("a", "F32", "[4611686018427387905]", 0, 4) "}", 4, PG_ERROR_FORMAT, "tensor a: found 4 bytes", NULL},
        {-1, "{" T("a", "F32", "[2]", 0, 4) "}", 4, PG_ERROR_FORMAT, "tensor a: found 4 bytes", "2 x 32 bits"},
        {-1, "{" T("a", "F4", "[3]", 0, 2) "}", 2, PG_ERROR_FORMAT, "tensor a", NULL},
        {-1, "{" T("a", "F32", "[1]", 4, 0) "}", 4, PG_ERROR_FORMAT, "found [4, 0], expected begin <= end", NULL},
        {-1, "{" T("a", "F32", "[1]", -4, 0) "}", 4, PG_ERROR_FORMAT, "tensor a: found -4 in data_offsets", NULL},
        {-1, "{" T("a", "F32", "[1]", 0, 4.0) "}", 4, PG_ERROR_FORMAT, "tensor a: found 4.0 in data_offsets", NULL},
        {-1, "{" T("a", "F32", "[2]", 0, 8) "}", 4, PG_ERROR_FORMAT, "tensor a: found 8 in data_offsets", "to 4"},
        {-1, "{" T("a", "F32", "[1]", 0, 4) "," T("b", "F32", "[1]", 2, 6) "}", 6, PG_ERROR_FORMAT, "tensor b",
         "overlaps"},
        {-1, "{" T("a", "F32", "[1]", 0, 4) "," T("b", "F32", "[1]", 0, 4) "}", 4, PG_ERROR_FORMAT, "tensor",
         "overlaps"},
        {-1, "{" T("a", "F32", "[1]", 0, 4) "," T("b", "F32", "[1]", 8, 12) "}", 12, PG_ERROR_FORMAT, "tensor b",
         "hole"},
        {-1, "{" T("a", "F32", "[1]", 0, 4) "}", 9, PG_ERROR_FORMAT, "found 9 bytes of data, expected 4", NULL},
        {-1, "{" T("a", "F32", "[1]", 0, 4) "," T("a", "F32", "[1]", 4, 8) "}", 8, PG_ERROR_FORMAT, "duplicate", NULL},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        pgi_tensor_files *files;
        write_raw("model.safetensors", cases[i].header_size, cases[i].header, cases[i].data_size);
        pg_status status = pgi_tensor_files_open(MEMORY, folder, 0, NULL, &files);
        if (cases[i].header_size == -2) { /* cut inside the 8 bytes */
            assert_int_equal(truncate(in_folder("model.safetensors"), 5), 0);
            pgi_tensor_files_close(&files);
            status = pgi_tensor_files_open(MEMORY, folder, 0, NULL, &files);
            assert_message("found 5 bytes");
        }
        assert_error(status, cases[i].status, cases[i].first, cases[i].second);
        if (status < 0) assert_message("model.safetensors");
        if (status < 0) assert_null(files);
        pgi_tensor_files_close(&files);
    }
}

/* A real file cut at every length is refused, never read beyond its end. */
static void truncated_files_are_refused(void **state) {
    (void)state;
    checkpoint c = {0};
    opened o;
    write_config(1, "", "");
    ADD1(&c, 0, 3, "a.bcd")->dtype = PG_DTYPE_F32;
    ADD2(&c, 0, 2, 2, "b.cde")->dtype = PG_DTYPE_F16;
    write_files(&c, 1, 3);
    struct stat info;
    assert_int_equal(stat(in_folder("model.safetensors"), &info), 0);
    for (off_t size = info.st_size - 1; size >= 0; size--) {
        assert_int_equal(truncate(in_folder("model.safetensors"), size), 0);
        assert_error(open_all(MEMORY, NULL, &o), PG_ERROR_FORMAT, "model.safetensors", NULL);
    }
}

static void lying_indexes_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *text;
        pg_status status;
        const char *first, *second;
    } cases[] = {
        {"{\"weight_map\":{\"a\":\"x.safetensors\",\"b\":\"y.safetensors\"}}", PG_OK, NULL, NULL},
        {"{\"weight_map\":{\"a\":\"x.safetensors\",\"b\":\"x.safetensors\"}}", PG_ERROR_FORMAT,
         "tensor b: found it in no file", "x.safetensors"},
        {"{\"weight_map\":{\"a\":\"y.safetensors\",\"b\":\"x.safetensors\"}}", PG_ERROR_FORMAT, "found it in ",
         "expected it in "},
        {"{\"weight_map\":{\"a\":\"x.safetensors\",\"c\":\"y.safetensors\"}}", PG_ERROR_FORMAT,
         "tensor c: found it in no file", NULL},
        {"{\"weight_map\":{\"a\":\"x.safetensors\",\"b\":\"z.safetensors\"}}", PG_ERROR_NOT_FOUND, "a shard is missing",
         "z.safetensors"},
        {"{\"weight_map\":{\"a\":\"../x.safetensors\"}}", PG_ERROR_FORMAT, "weight_map: a: found \"../x.safetensors\"",
         "in the same folder"},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", PG_ERROR_FORMAT, "found \"/etc/passwd\"", NULL},
        {"{\"weight_map\":{\"a\":\"..\"}}", PG_ERROR_FORMAT, "found \"..\"", NULL},
        {"{\"weight_map\":{\"a\":\"\"}}", PG_ERROR_FORMAT, "weight_map: a", NULL},
        {"{\"weight_map\":{\"a\":7}}", PG_ERROR_FORMAT, "weight_map: a: found 7", NULL},
        {"{\"weight_map\":{}}", PG_ERROR_FORMAT, "weight_map: found an empty object", NULL},
        {"{\"weight_map\":[]}", PG_ERROR_FORMAT, "weight_map: found an array of 0", NULL},
        {"{}", PG_ERROR_FORMAT, "weight_map: found nothing", NULL},
        {"{", PG_ERROR_FORMAT, "line 1", NULL},
        {"{\"weight_map\":{\"a\":\"config.json\"}}", PG_ERROR_FORMAT, "config.json", NULL},
    };
    write_raw("x.safetensors", -1, "{" T("a", "F32", "[1]", 0, 4) "}", 4);
    write_raw("y.safetensors", -1, "{" T("b", "F32", "[1]", 0, 4) "," T("d", "F32", "[1]", 4, 8) "}", 8);
    write_config(1, "", "");
    pgi_tensor_files *files;
    for (size_t i = 0; i < COUNT(cases); i++) {
        write_text("model.safetensors.index.json", cases[i].text);
        pg_status status = pgi_tensor_files_open(MEMORY, folder, 0, NULL, &files);
        assert_error(status, cases[i].status, cases[i].first, cases[i].second);
        if (status == PG_OK) assert_int_equal(pgi_tensor_files_n_bytes_mapped(files), 8 + 54 + 4 + 8 + 107 + 8);
        pgi_tensor_files_close(&files);
    }
    /* One tensor in two shards: the index says which. */
    write_raw("y.safetensors", -1, "{" T("b", "F32", "[1]", 0, 4) "," T("a", "F32", "[1]", 4, 8) "}", 8);
    for (int i = 0; i < 2; i++) {
        const char *text =
            i ? "{\"weight_map\":{\"a\":\"y.safetensors\",\"b\":\"y.safetensors\",\"e\":\"x.safetensors\"}}"
              : "{\"weight_map\":{\"a\":\"x.safetensors\",\"b\":\"y.safetensors\"}}";
        write_text("model.safetensors.index.json", text);
        if (i) write_raw("x.safetensors", -1, "{" T("a", "F32", "[1]", 0, 4) "," T("e", "F32", "[1]", 4, 8) "}", 8);
        assert_int_equal(pgi_tensor_files_open(MEMORY, folder, 0, NULL, &files), PG_OK);
        assert_non_null(strstr(pgi_tensor_files_find(files, "a")->file, i ? "y.safetensors" : "x.safetensors"));
        pgi_tensor_files_close(&files);
    }
    write_text("model.safetensors.index.json", "{\"weight_map\":{\"b\":\"y.safetensors\",\"e\":\"x.safetensors\"}}");
    assert_error(pgi_tensor_files_open(MEMORY, folder, 0, NULL, &files), PG_ERROR_FORMAT, "tensor a: found it in",
                 "too");
    /* Both forms there: the single file wins, as in transformers. */
    write_raw("model.safetensors", -1, "{" T("q", "F32", "[1]", 0, 4) "}", 4);
    assert_int_equal(pgi_tensor_files_open(MEMORY, folder, 0, NULL, &files), PG_OK);
    assert_int_equal(pgi_tensor_files_count(files), 1);
    pgi_tensor_files_close(&files);
}

int main(int argc, char **argv) {
#define TEST(function) cmocka_unit_test_setup_teardown(function, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        TEST(every_layout_dtype_and_sharding),
        TEST(vectors_are_aligned_and_extra_tensors_ignored),
        TEST(attention_bias_is_bound),
        TEST(head_is_tied_as_in_transformers),
        TEST(vocabulary_is_the_embedding),
        TEST(binding_errors_name_the_tensor),
        TEST(adapters_are_told_apart),
        TEST(progress_counts_tensors_and_stops),
        TEST(every_failing_allocation_is_reported),
        TEST(damaged_files_are_refused),
        TEST(truncated_files_are_refused),
        TEST(lying_indexes_are_refused),
    };
#undef TEST
    return RUN_TESTS(tests, NULL, NULL);
}
