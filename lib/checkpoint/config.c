/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The fields of the config that the networks use, read from the resolved config and checked. The bounds are far
 * above every published model (28B: hidden 4608, 46 layers) and low enough that no later product of two or three of
 * them overflows 64 bits.
 */
#include "checkpoint/config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "checkpoint/config_resolve.h"
#include "checkpoint/diagnose.h"
#include "checkpoint/json_field.h"
#include "kernels/kernels.h"

#define MAX_CONFIG ((size_t)4 << 20) /* published ones have some kB; full of labels, some 100 kB */

enum {
    MAX_HIDDEN = 65536,
    MAX_INTERMEDIATE = 1 << 20,
    MAX_LAYERS = 1024,
    MAX_HEADS = 1024,
    MAX_HEAD_DIM = 1024,
    MAX_IMAGE = 16384,
    MAX_PATCHES = 65536
};

/* A positive number, or null: 0. */
static pg_status read_soft_cap(const pgi_json_section *from, const char *key, float *out) {
    double value = 0;
    if (pgi_json_field_is_set(from, key)) PGI_TRY(pgi_json_field_positive(from, key, &value));
    *out = (float)value;
    return PG_OK;
}

/* ACT2FN of transformers/activations.py; the forms of one function differ there in the last bits only. */
static pg_status read_activation(const pgi_json_section *from, const char *key, int32_t *out) {
    static const struct {
        const char *name;
        int32_t activation;
    } activations[] = {{"gelu_pytorch_tanh", PGI_ACTIVATION_GELU_TANH},
                       {"gelu_python_tanh", PGI_ACTIVATION_GELU_TANH},
                       {"gelu_new", PGI_ACTIVATION_GELU_TANH},
                       {"gelu_fast", PGI_ACTIVATION_GELU_TANH},
                       {"gelu_accurate", PGI_ACTIVATION_GELU_TANH},
                       {"gelu", PGI_ACTIVATION_GELU_ERF},
                       {"gelu_python", PGI_ACTIVATION_GELU_ERF},
                       {"silu", PGI_ACTIVATION_SILU},
                       {"swish", PGI_ACTIVATION_SILU},
                       {"relu", PGI_ACTIVATION_RELU}};
    const char *name = pgi_json_field_text(from, key);
    if (!name) return pgi_json_field_wrong(from, PG_ERROR_FORMAT, key, "the name of an activation");
    for (size_t i = 0; i < sizeof activations / sizeof *activations; i++)
        if (strcmp(name, activations[i].name) == 0) {
            *out = activations[i].activation;
            return PG_OK;
        }
    return pgi_error(PG_ERROR_UNSUPPORTED, "%s: %s%s: found \"%.40s\", expected gelu_pytorch_tanh, gelu, silu or relu",
                     from->path, from->prefix, key, name);
}

static pg_status read_vision(const pgi_json_section *from, pgi_vision_config *out) {
    double eps;
    PGI_TRY(pgi_json_field_int(from, "hidden_size", 1, MAX_HIDDEN, &out->hidden_size));
    PGI_TRY(pgi_json_field_int(from, "intermediate_size", 1, MAX_INTERMEDIATE, &out->intermediate_size));
    PGI_TRY(pgi_json_field_int(from, "num_hidden_layers", 1, MAX_LAYERS, &out->n_layers));
    PGI_TRY(pgi_json_field_int(from, "num_attention_heads", 1, MAX_HEADS, &out->n_heads));
    if (out->hidden_size % out->n_heads != 0)
        return pgi_error(PG_ERROR_FORMAT,
                         "%s: vision_config.hidden_size: found %d, expected a multiple of num_attention_heads, %d",
                         from->path, out->hidden_size, out->n_heads);
    out->head_dim = out->hidden_size / out->n_heads;
    if (out->head_dim > MAX_HEAD_DIM)
        return pgi_error(
            PG_ERROR_LIMIT,
            "%s: vision_config: found heads of %d (hidden_size / num_attention_heads), expected at most %d", from->path,
            out->head_dim, MAX_HEAD_DIM);

    PGI_TRY(pgi_json_field_int(from, "num_channels", 1, MAX_HIDDEN, &out->n_channels));
    if (out->n_channels != 3)
        return pgi_error(PG_ERROR_UNSUPPORTED, "%s: vision_config.num_channels: found %d, expected 3", from->path,
                         out->n_channels);
    PGI_TRY(pgi_json_field_int(from, "image_size", 1, MAX_IMAGE, &out->image_size));
    PGI_TRY(pgi_json_field_int(from, "patch_size", 1, MAX_IMAGE, &out->patch_size));
    if (out->patch_size > out->image_size)
        return pgi_error(PG_ERROR_FORMAT, "%s: vision_config.patch_size: found %d, expected at most image_size, %d",
                         from->path, out->patch_size, out->image_size);
    int64_t side = out->image_size / out->patch_size;
    if (side * side > MAX_PATCHES)
        return pgi_error(PG_ERROR_LIMIT,
                         "%s: vision_config: found %lld patches (image_size %d, patch_size %d), expected at most %d",
                         from->path, (long long)(side * side), out->image_size, out->patch_size, MAX_PATCHES);
    out->n_patches = (int32_t)(side * side);
    PGI_TRY(read_activation(from, "hidden_act", &out->activation));
    PGI_TRY(pgi_json_field_positive(from, "layer_norm_eps", &eps));
    out->layer_norm_eps = (float)eps;
    return PG_OK;
}

/* Gemma 2: which layers see only a window. */
static pg_status read_layer_types(const pgi_json_section *from, const pgi_text_config *text, uint8_t *slides) {
    const pgi_json *types = pgi_json_field(from, "layer_types");
    if (pgi_json_n_items(types) != (size_t)text->n_layers)
        return pgi_error(PG_ERROR_FORMAT,
                         "%s: text_config.layer_types: found %zu entries, expected num_hidden_layers, %d", from->path,
                         pgi_json_n_items(types), text->n_layers);
    for (int32_t i = 0; i < text->n_layers; i++) {
        const pgi_json *node = pgi_json_item(types, (size_t)i);
        const char *type = pgi_json_text(node);
        if (!type) return pgi_json_field_wrong_node(from, PG_ERROR_FORMAT, "layer_types", node, "names of layer types");
        int is_sliding = strcmp(type, "sliding_attention") == 0;
        if (!is_sliding && strcmp(type, "full_attention") != 0)
            return pgi_error(
                PG_ERROR_UNSUPPORTED,
                "%s: text_config.layer_types: found \"%.40s\", expected sliding_attention or full_attention",
                from->path, type);
        slides[i] = is_sliding && text->sliding_window > 0;
    }
    return PG_OK;
}

static pg_status read_text(const pgi_json_section *from, const pgi_memory *memory, pgi_text_config *out) {
    double value;
    const char *type = pgi_json_field_text(from, "model_type");
    out->gemma_version = type && strcmp(type, "gemma2") == 0 ? 2 : 1;
    PGI_TRY(pgi_json_field_int(from, "hidden_size", 1, MAX_HIDDEN, &out->hidden_size));
    PGI_TRY(pgi_json_field_int(from, "intermediate_size", 1, MAX_INTERMEDIATE, &out->intermediate_size));
    PGI_TRY(pgi_json_field_int(from, "num_hidden_layers", 1, MAX_LAYERS, &out->n_layers));
    PGI_TRY(pgi_json_field_int(from, "num_attention_heads", 1, MAX_HEADS, &out->n_heads));
    PGI_TRY(pgi_json_field_int(from, "num_key_value_heads", 1, MAX_HEADS, &out->n_kv_heads));
    if (out->n_heads % out->n_kv_heads != 0)
        return pgi_error(
            PG_ERROR_FORMAT,
            "%s: text_config.num_attention_heads: found %d, expected a multiple of num_key_value_heads, %d", from->path,
            out->n_heads, out->n_kv_heads);
    PGI_TRY(pgi_json_field_int(from, "head_dim", 2, MAX_HEAD_DIM, &out->head_dim));
    if (out->head_dim % 2 != 0)
        return pgi_error(PG_ERROR_FORMAT,
                         "%s: text_config.head_dim: found %d, expected an even number (RoPE rotates halves)",
                         from->path, out->head_dim);
    PGI_TRY(pgi_json_field_int(from, "vocab_size", 1, PGI_MAX_VOCAB, &out->vocab_size));
    PGI_TRY(pgi_json_field_int(from, "max_position_embeddings", 1, INT32_MAX, &out->max_positions));
    PGI_TRY(read_activation(from, out->gemma_version == 2 ? "hidden_activation" : "hidden_act", &out->activation));
    PGI_TRY(pgi_json_field_positive(from, "rms_norm_eps", &value));
    out->rms_norm_eps = (float)value;
    PGI_TRY(pgi_json_field_bool(from, "attention_bias", &out->attention_bias));
    PGI_TRY(pgi_json_field_bool(from, "use_bidirectional_attention", &out->bidirectional));

    pgi_json_section rope = {from->path, "text_config.rope_parameters.", pgi_json_field(from, "rope_parameters")};
    PGI_TRY(pgi_json_field_positive(&rope, "rope_theta", &value));
    out->rope_theta = (float)value;

    uint8_t *slides = pgi_alloc_zero(memory, (size_t)out->n_layers, 1);
    if (!slides) return PG_ERROR_MEMORY;
    out->layer_slides = slides;
    out->query_scale = (float)pow(out->head_dim, -0.5);
    /* GemmaConfig knows no such key, but keeps it, and PaliGemma's head looks for it in both (modeling_paligemma.py) */
    PGI_TRY(read_soft_cap(from, "final_logit_softcapping", &out->final_soft_cap));
    if (out->gemma_version == 1) return PG_OK;

    PGI_TRY(pgi_json_field_positive(from, "query_pre_attn_scalar", &value));
    out->query_scale = (float)pow(value, -0.5);
    PGI_TRY(read_soft_cap(from, "attn_logit_softcapping", &out->attention_soft_cap));
    if (!pgi_json_is(pgi_json_field(from, "sliding_window"), PGI_JSON_NULL))
        PGI_TRY(pgi_json_field_int(from, "sliding_window", 1, INT32_MAX, &out->sliding_window));
    return read_layer_types(from, out, slides);
}

/* An id, or -1 for null and for what is not there. */
static pg_status read_id(const pgi_json_section *from, const char *key, int64_t *out) {
    *out = -1;
    if (!pgi_json_field_is_set(from, key) || pgi_json_to_integer(pgi_json_field(from, key), out)) return PG_OK;
    return pgi_json_field_wrong(from, PG_ERROR_FORMAT, key, "an integer or null");
}

static pg_status read_eos(const pgi_json_section *from, pgi_config *out) {
    const char *key = "eos_token_id";
    const pgi_json *node = pgi_json_field(from, key);
    out->n_eos = 0;
    if (!pgi_json_field_is_set(from, key)) return PG_OK;
    size_t n = pgi_json_is(node, PGI_JSON_ARRAY) ? pgi_json_n_items(node) : 1;
    if (n > PGI_MAX_EOS)
        return pgi_error(PG_ERROR_LIMIT, "%s: %s%s: found %zu ids, expected at most %d", from->path, from->prefix, key,
                         n, PGI_MAX_EOS);
    for (size_t i = 0; i < n; i++) {
        const pgi_json *id = pgi_json_is(node, PGI_JSON_ARRAY) ? pgi_json_item(node, i) : node;
        if (!pgi_json_to_integer(id, &out->eos_ids[i]))
            return pgi_json_field_wrong_node(from, PG_ERROR_FORMAT, key, id,
                                             "an integer, an array of integers or null");
    }
    out->n_eos = (int32_t)n;
    return PG_OK;
}

/* HF's generate() takes the special ids from generation_config.json alone when that file is there. Without it, from
 * config.json as it is written (defaults not filled in): the top level, else text_config. */
static pg_status read_special_ids(const pgi_memory *memory, const char *folder, const char *config_path,
                                  const pgi_json *raw, pgi_config *out) {
    char *path = pgi_path_join(memory, folder, "generation_config.json");
    if (!path) return PG_ERROR_MEMORY;
    pg_status status = PG_OK;
    if (pgi_file_exists(path)) {
        pgi_generation_config *generation = &out->generation;
        PGI_GOTO(pgi_json_load(&generation->doc, path, MAX_CONFIG, PGI_JSON_STRICT, &generation->json), done);
        PGI_GOTO(pgi_generation_config_read(generation, out->text.vocab_size), done);
        pgi_json_section from = {path, "", generation->json};
        PGI_GOTO(read_eos(&from, out), done);
        PGI_GOTO(read_id(&from, "pad_token_id", &out->pad_id), done);
        PGI_GOTO(read_id(&from, "bos_token_id", &out->bos_id), done);
    } else {
        pgi_json_section top = {config_path, "", raw};
        pgi_json_section text = {config_path, "text_config.", pgi_json_field(&top, "text_config")};
        PGI_GOTO(read_eos(&top, out), done);
        PGI_GOTO(read_id(&top, "pad_token_id", &out->pad_id), done);
        PGI_GOTO(read_id(&top, "bos_token_id", &out->bos_id), done);
        if (out->n_eos == 0) PGI_GOTO(read_eos(&text, out), done);
        if (out->pad_id < 0) PGI_GOTO(read_id(&text, "pad_token_id", &out->pad_id), done);
        if (out->bos_id < 0) PGI_GOTO(read_id(&text, "bos_token_id", &out->bos_id), done);
    }
done:
    pgi_free(memory, path);
    return status;
}

static pg_status read_top(const pgi_json_section *from, pgi_config *out) {
    const pgi_json *image_id = pgi_json_field(from, "image_token_index");
    if (!pgi_json_to_integer(image_id, &out->image_token_id) || out->image_token_id < 0)
        return pgi_json_field_wrong(from, PG_ERROR_FORMAT, "image_token_index", "an integer of 0 or more");
    PGI_TRY(pgi_json_field_bool(from, "tie_word_embeddings", &out->tie_word_embeddings));
    PGI_TRY(pgi_json_field_int(from, "projection_dim", 1, MAX_HIDDEN, &out->projection_dim));
    if (out->projection_dim != out->text.hidden_size)
        return pgi_error(PG_ERROR_FORMAT, "%s: projection_dim: found %d, expected text_config.hidden_size, %d",
                         from->path, out->projection_dim, out->text.hidden_size);
    return PG_OK;
}

/* A ColPaliConfig has PaliGemma's inside; *inner: that, or an empty one in place of none, which has all defaults. Of
 * any other config *inner stays NULL. */
static pg_status find_colpali(const char *path, const pgi_json *raw, pgi_config *out, const pgi_json **inner) {
    const pgi_json_section whole = {path, "", raw};
    const char *type = pgi_json_field_text(&whole, "model_type");
    if (!type || strcmp(type, "colpali") != 0) return PG_OK;
    PGI_TRY(pgi_diagnose_quantized(path, raw));
    out->embedding_dim = 128;
    if (pgi_json_field(&whole, "embedding_dim"))
        PGI_TRY(pgi_json_field_int(&whole, "embedding_dim", 1, PGI_MAX_EMBEDDING, &out->embedding_dim));
    const pgi_json *vlm = pgi_json_field(&whole, "vlm_config");
    if (pgi_json_is_set(vlm) && !pgi_json_is(vlm, PGI_JSON_OBJECT))
        return pgi_json_field_wrong(&whole, PG_ERROR_FORMAT, "vlm_config", "an object or null");
    *inner = pgi_json_is(vlm, PGI_JSON_OBJECT) ? vlm : NULL;
    return PG_OK;
}

/* Everything but the folder's own question of what it is. raw: a PaliGemmaConfig. */
static pg_status read_all(const pgi_memory *memory, const char *folder, const char *path, const pgi_json *raw,
                          pgi_config *out) {
    PGI_TRY(pgi_config_resolve(&out->json, path, raw, &out->resolved));
    pgi_json_section top = {path, "", &out->resolved};
    pgi_json_section vision = {path, "vision_config.", pgi_json_field(&top, "vision_config")};
    pgi_json_section text = {path, "text_config.", pgi_json_field(&top, "text_config")};
    PGI_TRY(read_vision(&vision, &out->vision));
    PGI_TRY(read_text(&text, memory, &out->text));
    PGI_TRY(read_top(&top, out));
    if (out->embedding_dim > 0)
        PGI_TRY(pgi_json_set(&out->json, &out->resolved, "embedding_dim", pgi_json_of_integer(out->embedding_dim)));
    return read_special_ids(memory, folder, path, raw, out);
}

static pg_status load(const pgi_memory *memory, const char *folder, const char *path, pgi_config *out) {
    const pgi_json *raw = NULL, *inner = NULL;
    pgi_json empty;
    pgi_buffer of_inner; /* the path in messages */
    PGI_TRY(pgi_json_load(&out->json, path, MAX_CONFIG, PGI_JSON_STRICT, &raw));
    PGI_TRY(find_colpali(path, raw, out, &inner));
    if (out->embedding_dim == 0) return read_all(memory, folder, path, raw, out);
    if (!inner) {
        PGI_TRY(pgi_json_new_object(&out->json, &empty)); /* it has all defaults */
        inner = &empty;
    }
    pgi_buffer_init(&of_inner, memory);
    pg_status status = pgi_buffer_printf(&of_inner, "%s: vlm_config", path);
    if (status >= 0) status = read_all(memory, folder, (char *)of_inner.data, inner, out);
    pgi_buffer_free(&of_inner);
    return status;
}

/* The resolved config stays; what it was made of does not. */
static pg_status keep_resolved(const pgi_memory *memory, pgi_config *config) {
    pgi_json_doc kept;
    pgi_json_doc_init(&kept, memory);
    const pg_status status = pgi_json_copy(&kept, &config->resolved, &config->resolved);
    pgi_json_doc_free(status < 0 ? &kept : &config->json);
    if (status >= 0) config->json = kept;
    return status;
}

pg_status pgi_config_load(const pgi_memory *memory, const char *folder, pgi_config *out) {
    *out = (pgi_config){.memory = memory, .pad_id = -1, .bos_id = -1};
    pgi_json_doc_init(&out->json, memory);
    pgi_generation_config_init(&out->generation, memory); /* what holds for a folder without that file */
    char *path = pgi_path_join(memory, folder, "config.json");
    if (!path) return PG_ERROR_MEMORY;
    pg_status status = load(memory, folder, path, out);
    if (status == PG_ERROR_NOT_FOUND) status = pgi_diagnose_folder(status, memory, folder);
    pgi_free(memory, path);
    if (status >= 0) status = keep_resolved(memory, out);
    if (status < 0) pgi_config_free(out);
    return status;
}

void pgi_config_free(pgi_config *config) {
    pgi_json_doc_free(&config->json);
    pgi_generation_config_free(&config->generation);
    if (config->memory) pgi_free(config->memory, (void *)(uintptr_t)config->text.layer_slides);
    *config = (pgi_config){0};
}

/* Further names under which the config classes know a field (attribute_map, and properties). */
static const char *stored_name(const char *key, size_t size) {
    static const struct {
        const char *alias, *name;
    } aliases[] = {
        {"image_token_id", "image_token_index"}, {"torch_dtype", "dtype"}, {"rope_scaling", "rope_parameters"}};
    for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++)
        if (strlen(aliases[i].alias) == size && memcmp(aliases[i].alias, key, size) == 0) return aliases[i].name;
    return NULL;
}

const pgi_json *pgi_config_field(const pgi_config *config, const char *key) {
    const pgi_json *node = &config->resolved;
    if (!*key) return node;
    for (;;) {
        const char *dot = strchr(key, '.');
        size_t size = dot ? (size_t)(dot - key) : strlen(key);
        const pgi_json *child = pgi_json_get_part(node, key, size);
        const char *name = stored_name(key, size);
        if (!child && name) child = pgi_json_get(node, name);
        if (!child || !dot) return child;
        node = child;
        key = dot + 1;
    }
}
