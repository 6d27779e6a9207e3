/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
#include "tiny.h"

#include <stdio.h>

#include <jpeglib.h> /* needs stdio.h before it */
#include <png.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    DEFAULT_PATCH = 4,
    V_HIDDEN = 24, /* vision */
    V_HEADS = 2,
    V_INTER = 36,
    T_HIDDEN = 32, /* text */
    T_HEADS = 4,
    HEAD_DIM = 8,
    T_INTER = 48
};

static int patch_of(const tiny_options *o) { return o->patch ? o->patch : DEFAULT_PATCH; }

tiny_options tiny_official(void) {
    return (tiny_options){
        .seed = 1, .gemma_version = 1, .dtype = PG_DTYPE_BF16, .n_shards = 1, .image_size = 12, .n_layers = 2};
}

tiny_options tiny_saved_today(void) {
    return (tiny_options){.seed = 2,
                          .gemma_version = 2,
                          .dtype = PG_DTYPE_F32,
                          .n_shards = 3,
                          .layout = 2,
                          .new_style = 1,
                          .image_size = 12,
                          .n_layers = 2};
}

/* ---------------------------------------------------------------------------------------------------- tokenizer */

enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, BYTE = 6 }; /* ModelProto.SentencePiece.Type */

typedef struct vocabulary {
    char piece[400][16];
    int type[400];
    int n;
} vocabulary;

static void put_piece(vocabulary *v, const char *piece, int type) {
    if (v->n == 400) abort();
    snprintf(v->piece[v->n], sizeof v->piece[0], "%s", piece);
    v->type[v->n++] = type;
}

/* The order is Gemma's: control, user defined, bytes, merged pieces, characters. */
static void make_vocabulary(vocabulary *v) {
    /* clang-format off */
    static const char *const user[] = {"<mask>", "\n", "\n\n", "\xE2\x96\x81\xE2\x96\x81", "<b>", "</b>",
                                       "<loc0000>", "<loc0001>", "<loc0002>", "<seg000>", "<seg001>"};
    /* clang-format on */
    /* clang-format off */
    static const char *const merged[] = {"th", "an", "ca", "in", "he", "\xE2\x96\x81" "a", "\xE2\x96\x81" "th",
                                         "\xE2\x96\x81" "the", "cat", "at", "\xE2\x96\x81" "cat"};
    /* clang-format on */
    char text[16];
    v->n = 0;
    put_piece(v, "<pad>", CONTROL);
    put_piece(v, "<eos>", CONTROL);
    put_piece(v, "<bos>", CONTROL);
    put_piece(v, "<unk>", UNKNOWN);
    for (size_t i = 0; i < sizeof user / sizeof *user; i++) put_piece(v, user[i], USER_DEFINED);
    for (int i = 0; i < 256; i++) {
        snprintf(text, sizeof text, "<0x%02X>", i);
        put_piece(v, text, BYTE);
    }
    for (size_t i = 0; i < sizeof merged / sizeof *merged; i++) put_piece(v, merged[i], NORMAL);
    put_piece(v, "\xE2\x96\x81", NORMAL);
    put_piece(v, "\xC3\xA9", NORMAL); /* e with acute accent */
    for (int c = 'a'; c <= 'z'; c++) {
        snprintf(text, sizeof text, "%c", c);
        put_piece(v, text, NORMAL);
    }
    for (const char *c = "0123456789.,?!;<>/"; *c; c++) {
        snprintf(text, sizeof text, "%c", *c);
        put_piece(v, text, NORMAL);
    }
}

static int find_piece(const vocabulary *v, const char *piece, size_t size) {
    for (int i = 0; i < v->n; i++)
        if (strlen(v->piece[i]) == size && memcmp(v->piece[i], piece, size) == 0) return i;
    return -1;
}

/* Protocol buffers, the few forms that ModelProto needs. */
static void put_varint(bytes *b, uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_add(b, &(uint8_t){(uint8_t)(value | 0x80)}, 1);
    bytes_add(b, &(uint8_t){(uint8_t)value}, 1);
}
static void put_int(bytes *b, int field, uint64_t value) {
    put_varint(b, (uint64_t)field << 3);
    put_varint(b, value);
}
static void put_block(bytes *b, int field, const void *data, size_t size) {
    put_varint(b, (uint64_t)field << 3 | 2);
    put_varint(b, size);
    bytes_add(b, data, size);
}
static void put_float(bytes *b, int field, float value) {
    put_varint(b, (uint64_t)field << 3 | 5);
    bytes_add(b, &value, 4);
}

static void write_tokenizer_model(const char *folder, const vocabulary *v) {
    bytes model = {0}, part = {0};
    for (int i = 0; i < v->n; i++) {
        part.size = 0;
        put_block(&part, 1, v->piece[i], strlen(v->piece[i]));
        put_float(&part, 2, v->type[i] == NORMAL ? -(float)i : 0.0f);
        put_int(&part, 3, (uint64_t)v->type[i]);
        put_block(&model, 1, part.data, part.size);
    }
    part.size = 0;        /* TrainerSpec */
    put_int(&part, 3, 2); /* model_type: BPE */
    put_int(&part, 4, (uint64_t)v->n);
    put_int(&part, 35, 1); /* byte_fallback */
    put_int(&part, 40, 3); /* unk, bos, eos, pad */
    put_int(&part, 41, 2);
    put_int(&part, 42, 1);
    put_int(&part, 43, 0);
    put_block(&model, 2, part.data, part.size);
    part.size = 0; /* NormalizerSpec */
    put_block(&part, 1, "identity", 8);
    put_int(&part, 3, 0); /* add_dummy_prefix */
    put_int(&part, 4, 0); /* remove_extra_whitespaces */
    put_int(&part, 5, 1); /* escape_whitespaces */
    put_block(&model, 3, part.data, part.size);
    write_file(folder, "tokenizer.model", model.data, model.size);
    bytes_free(&model);
    bytes_free(&part);
}

static void put_json_string(bytes *b, const char *text) {
    bytes_text(b, "\"");
    for (; *text; text++) {
        if (*text == '\n')
            bytes_text(b, "\\n");
        else if (*text == '"' || *text == '\\')
            bytes_printf(b, "\\%c", *text);
        else
            bytes_add(b, text, 1);
    }
    bytes_text(b, "\"");
}

static void put_added(bytes *b, int id, const char *content, int special, int first) {
    bytes_printf(b, "%s\n{\"id\":%d,\"content\":", first ? "" : ",", id);
    put_json_string(b, content);
    bytes_printf(b, ",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":%s}",
                 special ? "true" : "false");
}

static void write_tokenizer_json(const char *folder, const vocabulary *v) {
    bytes b = {0};
    bytes_text(&b, "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[");
    for (int i = 0; i < v->n; i++)
        if (v->type[i] == CONTROL || v->type[i] == UNKNOWN || v->type[i] == USER_DEFINED)
            put_added(&b, i, v->piece[i], v->type[i] != USER_DEFINED || !strcmp(v->piece[i], "<mask>"), i == 0);
    put_added(&b, v->n, "<image>", 1, 0);
    bytes_text(&b,
               "],\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\xE2\x96\x81\"},"
               "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\" \"},\"behavior\":"
               "\"MergedWithPrevious\",\"invert\":false},"
               "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{\"id\":\"A\","
               "\"type_id\":0}}],"
               "\"pair\":[{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},{\"Sequence\":{\"id\":\"B\",\"type_id\":1}}],"
               "\"special_tokens\":{}},"
               "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":"
               "\"\xE2\x96\x81\"},\"content\":\" \"},"
               "{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}]},"
               "\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":\"<unk>\","
               "\"continuing_subword_prefix\":null,"
               "\"end_of_word_suffix\":null,\"fuse_unk\":true,\"byte_fallback\":true,\"ignore_merges\":false,"
               "\"vocab\":{");
    for (int i = 0; i < v->n; i++) {
        if (i) bytes_text(&b, ",");
        put_json_string(&b, v->piece[i]);
        bytes_printf(&b, ":%d", i);
    }
    bytes_text(&b, "},\"merges\":[");
    int n_merges = 0;
    for (int i = 0; i < v->n; i++) {
        size_t size = strlen(v->piece[i]);
        if (v->type[i] != NORMAL && strcmp(v->piece[i], "\n\n") && strcmp(v->piece[i], "\xE2\x96\x81\xE2\x96\x81"))
            continue;
        for (size_t cut = 1; cut < size; cut++) {
            int left = find_piece(v, v->piece[i], cut), right = find_piece(v, v->piece[i] + cut, size - cut);
            if (left < 0 || right < 0) continue;
            bytes_printf(&b, "%s[", n_merges++ ? "," : "");
            put_json_string(&b, v->piece[left]);
            bytes_text(&b, ",");
            put_json_string(&b, v->piece[right]);
            bytes_text(&b, "]");
        }
    }
    bytes_text(&b, "]}}\n");
    write_file(folder, "tokenizer.json", b.data, b.size);
    bytes_free(&b);
}

static void write_tokenizer_config(const char *folder, const vocabulary *v, int new_style) {
    bytes b = {0};
    if (new_style) {
        bytes_text(&b, "{\"backend\":\"tokenizers\",\"extra_special_tokens\":[\"<image>\"],\"mask_token\":\"<mask>\",");
    } else {
        bytes_text(&b, "{\"add_bos_token\":true,\"add_eos_token\":false,\"added_tokens_decoder\":{");
        for (int i = 0; i <= v->n; i++) {
            if (i > 3 && i < v->n) continue;
            bytes_printf(&b,
                         "%s\"%d\":{\"content\":\"%s\",\"lstrip\":false,\"normalized\":false,\"rstrip\":false,"
                         "\"single_word\":false,\"special\":true}",
                         i ? "," : "", i, i < v->n ? v->piece[i] : "<image>");
        }
        bytes_text(&b, "},\"additional_special_tokens\":[\"<image>\"],\"use_default_system_prompt\":false,");
    }
    bytes_text(&b,
               "\"bos_token\":\"<bos>\",\"eos_token\":\"<eos>\",\"pad_token\":\"<pad>\",\"unk_token\":\"<unk>\","
               "\"model_max_length\":1000000000000000019884624838656,\"tokenizer_class\":\"GemmaTokenizer\"}\n");
    write_file(folder, "tokenizer_config.json", b.data, b.size);
    bytes_free(&b);
}

/* ------------------------------------------------------------------------------------------------------ weights */

typedef struct stored {
    char name[256];
    int n_dims;
    int64_t shape[4];
    float scale, offset; /* values: offset + scale x (-1..1) */
} stored;

typedef struct store {
    stored tensor[400];
    int n;
    rng of_embedding; /* what its values follow from */
} store;

static void put_tensor(store *s, const char *prefix, const char *name, float scale, float offset, int n_dims, int64_t a,
                       int64_t b, int64_t c, int64_t d) {
    if (s->n == 400) abort();
    stored *t = &s->tensor[s->n++];
    snprintf(t->name, sizeof t->name, "%s%s", prefix, name);
    t->n_dims = n_dims;
    t->scale = scale;
    t->offset = offset;
    memcpy(t->shape, (int64_t[4]){a, b, c, d}, sizeof t->shape);
}

static void put_linear(store *s, const char *prefix, const char *name, int64_t out, int64_t in, int bias) {
    char full[96];
    snprintf(full, sizeof full, "%s.weight", name);
    put_tensor(s, prefix, full, 0.25f, 0, 2, out, in, 1, 1);
    snprintf(full, sizeof full, "%s.bias", name);
    if (bias) put_tensor(s, prefix, full, 0.1f, 0, 1, out, 1, 1, 1);
}

static void put_norm(store *s, const char *prefix, const char *name, int64_t size, int layer_norm) {
    char full[96];
    snprintf(full, sizeof full, "%s.weight", name);
    put_tensor(s, prefix, full, 0.2f, layer_norm ? 1.0f : 0.0f, 1, size, 1, 1, 1); /* RMSNorm has 1 + weight */
    snprintf(full, sizeof full, "%s.bias", name);
    if (layer_norm) put_tensor(s, prefix, full, 0.1f, 0, 1, size, 1, 1, 1);
}

static void put_all_tensors(store *s, const tiny_options *o, int64_t vocab) {
    static const char *const vision[] = {"vision_tower.vision_model.", "model.vision_tower.vision_model.",
                                         "vision_tower."};
    static const char *const projector[] = {"", "model.", ""};
    static const char *const text[] = {"language_model.model.", "model.language_model.", "language_model.model."};
    static const char *const head[] = {"language_model.", "", "language_model."};
    const int patch = patch_of(o);
    int64_t n_patches = (int64_t)(o->image_size / patch) * (o->image_size / patch);
    int64_t n_kv = o->gemma_version == 1 ? 1 : 2;
    const char *p = vision[o->layout];
    char layer[128];
    put_tensor(s, p, "embeddings.patch_embedding.weight", 0.25f, 0, 4, V_HIDDEN, 3, patch, patch);
    put_tensor(s, p, "embeddings.patch_embedding.bias", 0.1f, 0, 1, V_HIDDEN, 1, 1, 1);
    put_tensor(s, p, "embeddings.position_embedding.weight", 0.3f, 0, 2, n_patches, V_HIDDEN, 1, 1);
    for (int i = 0; i < o->n_layers; i++) {
        snprintf(layer, sizeof layer, "%sencoder.layers.%d.", p, i);
        put_norm(s, layer, "layer_norm1", V_HIDDEN, 1);
        put_linear(s, layer, "self_attn.q_proj", V_HIDDEN, V_HIDDEN, 1);
        put_linear(s, layer, "self_attn.k_proj", V_HIDDEN, V_HIDDEN, 1);
        put_linear(s, layer, "self_attn.v_proj", V_HIDDEN, V_HIDDEN, 1);
        put_linear(s, layer, "self_attn.out_proj", V_HIDDEN, V_HIDDEN, 1);
        put_norm(s, layer, "layer_norm2", V_HIDDEN, 1);
        put_linear(s, layer, "mlp.fc1", V_INTER, V_HIDDEN, 1);
        put_linear(s, layer, "mlp.fc2", V_HIDDEN, V_INTER, 1);
    }
    put_norm(s, p, "post_layernorm", V_HIDDEN, 1);
    put_linear(s, projector[o->layout], "multi_modal_projector.linear", T_HIDDEN, V_HIDDEN, 1);
    p = text[o->layout];
    if (o->head != TINY_HEAD_ONLY) put_tensor(s, p, "embed_tokens.weight", 0.1f, 0, 2, vocab, T_HIDDEN, 1, 1);
    for (int i = 0; i < o->n_layers; i++) {
        snprintf(layer, sizeof layer, "%slayers.%d.", p, i);
        put_norm(s, layer, "input_layernorm", T_HIDDEN, 0);
        put_linear(s, layer, "self_attn.q_proj", T_HEADS * HEAD_DIM, T_HIDDEN, 0);
        put_linear(s, layer, "self_attn.k_proj", n_kv * HEAD_DIM, T_HIDDEN, 0);
        put_linear(s, layer, "self_attn.v_proj", n_kv * HEAD_DIM, T_HIDDEN, 0);
        put_linear(s, layer, "self_attn.o_proj", T_HIDDEN, T_HEADS * HEAD_DIM, 0);
        put_norm(s, layer, "post_attention_layernorm", T_HIDDEN, 0);
        if (o->gemma_version == 2) {
            put_norm(s, layer, "pre_feedforward_layernorm", T_HIDDEN, 0);
            put_norm(s, layer, "post_feedforward_layernorm", T_HIDDEN, 0);
        }
        put_linear(s, layer, "mlp.gate_proj", T_INTER, T_HIDDEN, 0);
        put_linear(s, layer, "mlp.up_proj", T_INTER, T_HIDDEN, 0);
        put_linear(s, layer, "mlp.down_proj", T_HIDDEN, T_INTER, 0);
    }
    put_norm(s, p, "norm", T_HIDDEN, 0);
    if (o->head != TINY_HEAD_TIED) put_tensor(s, head[o->layout], "lm_head.weight", 0.1f, 0, 2, vocab, T_HIDDEN, 1, 1);
}

/* The names of a ColPali folder, and its projection. */
static void make_colpali(store *s, int kind) {
    for (int i = 0; i < s->n; i++) {
        char name[sizeof s->tensor[0].name];
        snprintf(name, sizeof name, "%s", s->tensor[i].name);
        snprintf(s->tensor[i].name, sizeof name, "%s%.200s", kind == TINY_COLPALI ? "vlm." : "model.", name);
    }
    put_linear(s, "", kind == TINY_COLPALI ? "embedding_proj_layer" : "custom_text_proj", TINY_EMBEDDING_DIM, T_HIDDEN,
               1);
}

static void put_value(bytes *b, float value, int dtype) {
    uint32_t bits;
    uint16_t half;
    memcpy(&bits, &value, 4);
    if (dtype == PG_DTYPE_F32) {
        bytes_add(b, &bits, 4);
        return;
    }
    if (dtype == PG_DTYPE_BF16) {
        half = (uint16_t)(bits >> 16);
    } else { /* f16, truncated; too small for a normal number: 0 */
        int exponent = (int)(bits >> 23 & 0xFF) - 112;
        half = (uint16_t)((bits >> 16 & 0x8000) | (exponent > 0 ? (uint32_t)exponent << 10 | (bits >> 13 & 0x3FF) : 0));
    }
    bytes_add(b, &half, 2);
}

/* [out, 3, k, k] to [out, k, k, 3], of elements of `size` bytes. */
static void put_channels_last(stored *t, uint8_t *data, size_t size) {
    const int64_t n = t->shape[2] * t->shape[3], row = 3 * n;
    uint8_t *old = malloc((size_t)row * size);
    if (!old) abort();
    for (int64_t o = 0; o < t->shape[0]; o++) {
        uint8_t *to = data + (size_t)(o * row) * size;
        memcpy(old, to, (size_t)row * size);
        for (int64_t c = 0; c < 3; c++)
            for (int64_t i = 0; i < n; i++)
                memcpy(to + (size_t)(i * 3 + c) * size, old + (size_t)(c * n + i) * size, size);
    }
    free(old);
    t->shape[1] = t->shape[3];
    t->shape[3] = 3;
}

static void write_shard(const char *folder, const char *name, store *s, int begin, int end, const tiny_options *o,
                        rng *r) {
    bytes header = {0}, data = {0}, file = {0};
    const int dtype = o->dtype;
    bytes_printf(&header, "{\"__metadata__\":{\"format\":\"%s\"}", o->mlx ? "mlx" : "pt");
    for (int i = begin; i < end; i++) {
        stored *t = &s->tensor[i];
        int64_t n = t->shape[0] * t->shape[1] * t->shape[2] * t->shape[3];
        size_t start = data.size;
        rng *values = r;
        if (strstr(t->name, "embed_tokens")) s->of_embedding = *r;
        if (o->head == TINY_HEAD_COPY && strstr(t->name, "lm_head")) values = &s->of_embedding;
        for (int64_t k = 0; k < n; k++) put_value(&data, t->offset + t->scale * rng_unit(values), dtype);
        if (o->mlx && t->n_dims == 4) put_channels_last(t, data.data + start, dtype == PG_DTYPE_F32 ? 4 : 2);
        bytes_printf(&header, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", t->name,
                     dtype == PG_DTYPE_F32    ? "F32"
                     : dtype == PG_DTYPE_BF16 ? "BF16"
                                              : "F16");
        for (int d = 0; d < t->n_dims; d++) bytes_printf(&header, "%s%lld", d ? "," : "", (long long)t->shape[d]);
        bytes_printf(&header, "],\"data_offsets\":[%zu,%zu]}", start, data.size);
    }
    bytes_text(&header, "}");
    while (header.size % 8) bytes_text(&header, " ");
    uint64_t size = header.size;
    bytes_add(&file, &size, 8);
    bytes_add(&file, header.data, header.size);
    bytes_add(&file, data.data, data.size);
    write_file(folder, name, file.data, file.size);
    bytes_free(&header);
    bytes_free(&data);
    bytes_free(&file);
}

static void write_weights(const char *folder, const tiny_options *o, int64_t vocab) {
    store *s = calloc(1, sizeof *s);
    rng r = {o->seed};
    if (!s) abort();
    put_all_tensors(s, o, vocab);
    if (o->colpali) make_colpali(s, o->colpali);
    if (o->n_shards <= 1) {
        write_shard(folder, "model.safetensors", s, 0, s->n, o, &r);
    } else {
        bytes index = {0};
        bytes_text(&index, "{\"metadata\":{\"total_size\":0},\"weight_map\":{");
        for (int k = 0; k < o->n_shards; k++) {
            char name[64];
            int begin = s->n * k / o->n_shards, end = s->n * (k + 1) / o->n_shards;
            snprintf(name, sizeof name, "model-%05d-of-%05d.safetensors", k + 1, o->n_shards);
            write_shard(folder, name, s, begin, end, o, &r);
            for (int i = begin; i < end; i++)
                bytes_printf(&index, "%s\n\"%s\":\"%s\"", i ? "," : "", s->tensor[i].name, name);
        }
        bytes_text(&index, "}}\n");
        write_file(folder, "model.safetensors.index.json", index.data, index.size);
        bytes_free(&index);
    }
    free(s);
}

/* ------------------------------------------------------------------------------------------------------- config */

static void write_configs(const char *folder, const tiny_options *o, int image_id, int64_t vocab) {
    bytes b = {0};
    int per_side = o->image_size / patch_of(o);
    const char *dtype = o->dtype == PG_DTYPE_F32 ? "float32" : o->dtype == PG_DTYPE_BF16 ? "bfloat16" : "float16";
    if (o->colpali == TINY_COLPALI)
        bytes_printf(&b,
                     "{\"architectures\":[\"ColPaliForRetrieval\"],\"model_type\":\"colpali\",\"embedding_dim\":%d,"
                     "\"vlm_config\":",
                     TINY_EMBEDDING_DIM);
    bytes_printf(&b,
                 "{\"architectures\":[\"PaliGemmaForConditionalGeneration\"],\"model_type\":\"paligemma\","
                 "\"bos_token_id\":2,\"eos_token_id\":1,\"pad_token_id\":0,\"hidden_size\":%d,\"projection_dim\":%d,"
                 "\"image_token_index\":%d,"
                 "\"torch_dtype\":\"%s\",%s",
                 T_HIDDEN, T_HIDDEN, image_id, dtype,
                 o->head == TINY_HEAD_BOTH ? "\"tie_word_embeddings\":false," : "");
    bytes_printf(&b,
                 "\n\"text_config\":{\"model_type\":\"%s\",\"hidden_size\":%d,\"intermediate_size\":%d,"
                 "\"num_hidden_layers\":%d,\"num_attention_heads\":%d,\"num_key_value_heads\":%d,\"head_dim\":%d,"
                 "\"vocab_size\":%lld,"
                 "\"num_image_tokens\":%d%s},",
                 o->gemma_version == 1 ? "gemma" : "gemma2", T_HIDDEN, T_INTER, o->n_layers, T_HEADS,
                 o->gemma_version == 1 ? 1 : 2, HEAD_DIM, (long long)vocab, per_side * per_side,
                 o->gemma_version == 1 ? ""
                                       : ",\"query_pre_attn_scalar\":8,\"attn_logit_softcapping\":50.0,"
                                         "\"final_logit_softcapping\":30.0,\"sliding_window\":4096,"
                                         "\"hidden_activation\":\"gelu_pytorch_tanh\"");
    bytes_printf(&b,
                 "\n\"vision_config\":{\"model_type\":\"siglip_vision_model\",\"hidden_size\":%d,"
                 "\"intermediate_size\":%d,\"num_hidden_layers\":%d,\"num_attention_heads\":%d,\"image_size\":%d,"
                 "\"patch_size\":%d,"
                 "\"projection_dim\":%d,\"vision_use_head\":false}}%s\n",
                 V_HIDDEN, V_INTER, o->n_layers, V_HEADS, o->image_size, patch_of(o), T_HIDDEN,
                 o->colpali == TINY_COLPALI ? "}" : "");
    write_file(folder, "config.json", b.data, b.size);
    b.size = 0;
    bytes_printf(&b, "{\"_from_model_config\":true,\"bos_token_id\":2,\"eos_token_id\":1,\"pad_token_id\":0}\n");
    write_file(folder, "generation_config.json", b.data, b.size);

    b.size = 0;
    if (o->new_style) bytes_text(&b, "{\"image_processor\":");
    bytes_printf(&b,
                 "{\"do_convert_rgb\":null,\"do_normalize\":true,\"do_rescale\":true,\"do_resize\":true,"
                 "\"image_mean\":[0.5,0.5,0.5],\"image_std\":[0.5,0.5,0.5],"
                 "\"image_processor_type\":\"SiglipImageProcessor\","
                 "\"image_seq_length\":%d,\"resample\":3,\"rescale_factor\":0.00392156862745098,"
                 "\"size\":{\"height\":%d,\"width\":%d}}",
                 per_side * per_side, o->image_size, o->image_size);
    if (o->new_style) bytes_text(&b, ",\"processor_class\":\"PaliGemmaProcessor\"}");
    bytes_text(&b, "\n");
    write_file(folder, o->new_style ? "processor_config.json" : "preprocessor_config.json", b.data, b.size);
    bytes_free(&b);
}

void tiny_write(const char *folder, const tiny_options *o) {
    vocabulary *v = calloc(1, sizeof *v);
    if (!v) abort();
    make_vocabulary(v);
    int64_t vocab = v->n + 1 + 3; /* <image>, and rows of padding as published checkpoints have them */
    write_configs(folder, o, v->n, vocab);
    write_weights(folder, o, vocab);
    write_tokenizer_config(folder, v, o->new_style);
    if (!o->new_style) {
        write_tokenizer_model(folder, v);
        bytes b = {0};
        bytes_printf(&b, "{\"<image>\":%d}\n", v->n);
        write_file(folder, "added_tokens.json", b.data, b.size);
        bytes_free(&b);
        write_text(folder, "special_tokens_map.json",
                   "{\"additional_special_tokens\":[{\"content\":\"<image>\",\"lstrip\":false,\"normalized\":false,"
                   "\"rstrip\":false,\"single_word\":false}],\"bos_token\":\"<bos>\",\"eos_token\":\"<eos>\","
                   "\"pad_token\":\"<pad>\",\"unk_token\":\"<unk>\"}\n");
    }
    write_tokenizer_json(folder, v);
    free(v);
}

/* ----------------------------------------------------------------------------------------------------- images */

static uint8_t *soft_colours(int width, int height, uint64_t seed) {
    uint8_t *rgb = malloc((size_t)width * height * 3);
    rng r = {seed};
    int slope[3][2];
    if (!rgb) abort();
    for (int c = 0; c < 3; c++)
        for (int k = 0; k < 2; k++) slope[c][k] = (int)rng_below(&r, 17) - 8;
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++)
            for (int c = 0; c < 3; c++)
                rgb[((size_t)y * width + x) * 3 + c] =
                    (uint8_t)(128 + x * slope[c][0] / 2 + y * slope[c][1] / 2 + (int)rng_below(&r, 5));
    return rgb;
}

static bytes make_png(const uint8_t *rgb, int width, int height, int palette) {
    png_image image = {.version = PNG_IMAGE_VERSION, .width = (png_uint_32)width, .height = (png_uint_32)height};
    png_color map[216];
    uint8_t *indices = malloc((size_t)width * height);
    const void *pixels = rgb;
    bytes out = {0};
    png_alloc_size_t size = 0;
    if (!indices) abort();
    image.format = PNG_FORMAT_RGB;
    if (palette) {
        for (int i = 0; i < 216; i++)
            map[i] = (png_color){(png_byte)(i / 36 * 51), (png_byte)(i / 6 % 6 * 51), (png_byte)(i % 6 * 51)};
        for (int i = 0; i < width * height; i++)
            indices[i] = (uint8_t)(rgb[i * 3] / 43 * 36 + rgb[i * 3 + 1] / 43 * 6 + rgb[i * 3 + 2] / 43);
        image.format = PNG_FORMAT_RGB_COLORMAP;
        image.colormap_entries = 216;
        pixels = indices;
    }
    if (!png_image_write_get_memory_size(image, size, 0, pixels, 0, map)) abort();
    uint8_t *file = malloc(size);
    if (!file || !png_image_write_to_memory(&image, file, &size, 0, pixels, 0, map)) abort();
    bytes_add(&out, file, size);
    free(file);
    free(indices);
    return out;
}

static bytes make_jpeg(const uint8_t *rgb, int width, int height, int progressive) {
    /* Exif, big endian, one entry: orientation 6 */
    static const uint8_t exif[] = {'E',  'x',  'i', 'f', 0, 0, 'M', 'M', 0, 42, 0, 0, 0, 8, 0, 1,
                                   0x01, 0x12, 0,   3,   0, 0, 0,   1,   0, 6,  0, 0, 0, 0, 0, 0};
    struct jpeg_compress_struct c;
    struct jpeg_error_mgr error;
    unsigned char *file = NULL;
    unsigned long size = 0;
    bytes out = {0};
    c.err = jpeg_std_error(&error);
    jpeg_create_compress(&c);
    jpeg_mem_dest(&c, &file, &size);
    c.image_width = (JDIMENSION)width;
    c.image_height = (JDIMENSION)height;
    c.input_components = 3;
    c.in_color_space = JCS_RGB;
    jpeg_set_defaults(&c);
    if (progressive) jpeg_simple_progression(&c);
    jpeg_start_compress(&c, TRUE);
    jpeg_write_marker(&c, JPEG_APP0 + 1, exif, sizeof exif);
    while (c.next_scanline < c.image_height) {
        JSAMPROW row = (JSAMPROW)(uintptr_t)(rgb + (size_t)c.next_scanline * width * 3);
        jpeg_write_scanlines(&c, &row, 1);
    }
    jpeg_finish_compress(&c);
    jpeg_destroy_compress(&c);
    bytes_add(&out, file, size);
    free(file);
    return out;
}

bytes tiny_image(int kind, int width, int height, uint64_t seed) {
    uint8_t *rgb = soft_colours(width, height, seed);
    bytes out = kind == IMAGE_PNG || kind == IMAGE_PNG_PALETTE
                    ? make_png(rgb, width, height, kind == IMAGE_PNG_PALETTE)
                    : make_jpeg(rgb, width, height, kind == IMAGE_JPEG_PROGRESSIVE);
    free(rgb);
    return out;
}
