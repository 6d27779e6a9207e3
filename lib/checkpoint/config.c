/*
 * The fields of the config that the networks use, read from the resolved config and checked. The bounds are far
 * above every published model (28B: hidden 4608, 46 layers) and low enough that no later product of two or three of
 * them overflows 64 bits.
 */
#include "checkpoint/config.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "checkpoint/config_resolve.h"
#include "checkpoint/json.h"
#include "kernels/kernels.h"

#define MAX_CONFIG ((size_t)16 * 1024 * 1024)

enum {
    MAX_HIDDEN = 65536,
    MAX_INTERMEDIATE = 1 << 20,
    MAX_LAYERS = 1024,
    MAX_HEADS = 1024,
    MAX_HEAD_DIM = 1024,
    MAX_IMAGE = 16384,
    MAX_PATCHES = 65536
};

/* A part of the resolved config: `prefix` is "", "text_config." or "vision_config.". */
typedef struct section {
    const char *path, *prefix;
    const json_t *object;
} section;

static pg_status wrong(const section *from, const char *key, const json_t *node, const char *expected) {
    char found[PGI_JSON_DESCRIPTION];
    return pgi_error(PG_ERROR_FORMAT, "%s: %s%s: found %s, expected %s", from->path, from->prefix, key,
                     pgi_json_describe(node, found, sizeof found), expected);
}

/* An integer, or a real that is one (2048.0, 1e4). */
static int as_integer(const json_t *node, int64_t *out) {
    if (json_is_integer(node)) {
        *out = json_integer_value(node);
        return 1;
    }
    double value = json_is_real(node) ? json_real_value(node) : 0.5;
    if (value != floor(value) || fabs(value) > 9e15) return 0; /* 2^53: beyond it a double is no exact integer */
    *out = (int64_t)value;
    return 1;
}

static pg_status read_int(const section *from, const char *key, int64_t min, int64_t max, int32_t *out) {
    char expected[80];
    int64_t value;
    const json_t *node = json_object_get(from->object, key);
    snprintf(expected, sizeof expected, "an integer from %lld to %lld", (long long)min, (long long)max);
    if (!as_integer(node, &value) || value < min) return wrong(from, key, node, expected);
    if (value > max)
        return pgi_error(PG_ERROR_LIMIT, "%s: %s%s: found %lld, expected %s", from->path, from->prefix, key,
                         (long long)value, expected);
    *out = (int32_t)value;
    return PG_OK;
}

/* A positive number that f32 holds. */
static pg_status read_positive(const section *from, const char *key, double *out) {
    const json_t *node = json_object_get(from->object, key);
    *out = json_number_value(node);
    if (json_is_number(node) && *out >= FLT_MIN && *out <= FLT_MAX) return PG_OK;
    return wrong(from, key, node, "a positive finite number");
}

/* The same, or null: 0. */
static pg_status read_soft_cap(const section *from, const char *key, float *out) {
    double value = 0;
    if (!json_is_null(json_object_get(from->object, key))) PGI_TRY(read_positive(from, key, &value));
    *out = (float)value;
    return PG_OK;
}

static pg_status read_bool(const section *from, const char *key, int32_t *out) {
    const json_t *node = json_object_get(from->object, key);
    if (!json_is_boolean(node)) return wrong(from, key, node, "true or false");
    *out = json_is_true(node);
    return PG_OK;
}

/* ACT2FN of transformers/activations.py; the forms of one function differ there in the last bits only. */
static pg_status read_activation(const section *from, const char *key, int32_t *out) {
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
    const json_t *node = json_object_get(from->object, key);
    const char *name = json_string_value(node);
    if (!name) return wrong(from, key, node, "the name of an activation");
    for (size_t i = 0; i < sizeof activations / sizeof *activations; i++)
        if (strcmp(name, activations[i].name) == 0) {
            *out = activations[i].activation;
            return PG_OK;
        }
    return pgi_error(PG_ERROR_UNSUPPORTED, "%s: %s%s: found \"%.40s\", expected gelu_pytorch_tanh, gelu, silu or relu",
                     from->path, from->prefix, key, name);
}

static pg_status read_vision(const section *from, pgi_vision_config *out) {
    double eps;
    PGI_TRY(read_int(from, "hidden_size", 1, MAX_HIDDEN, &out->hidden_size));
    PGI_TRY(read_int(from, "intermediate_size", 1, MAX_INTERMEDIATE, &out->intermediate_size));
    PGI_TRY(read_int(from, "num_hidden_layers", 1, MAX_LAYERS, &out->n_layers));
    PGI_TRY(read_int(from, "num_attention_heads", 1, MAX_HEADS, &out->n_heads));
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

    PGI_TRY(read_int(from, "num_channels", 1, MAX_HIDDEN, &out->n_channels));
    if (out->n_channels != 3)
        return pgi_error(PG_ERROR_UNSUPPORTED, "%s: vision_config.num_channels: found %d, expected 3", from->path,
                         out->n_channels);
    PGI_TRY(read_int(from, "image_size", 1, MAX_IMAGE, &out->image_size));
    PGI_TRY(read_int(from, "patch_size", 1, MAX_IMAGE, &out->patch_size));
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
    PGI_TRY(read_positive(from, "layer_norm_eps", &eps));
    out->layer_norm_eps = (float)eps;
    return PG_OK;
}

/* Gemma 2: which layers see only a window. */
static pg_status read_layer_types(const section *from, const pgi_text_config *text, uint8_t *slides) {
    const json_t *types = json_object_get(from->object, "layer_types");
    if (json_array_size(types) != (size_t)text->n_layers)
        return pgi_error(PG_ERROR_FORMAT,
                         "%s: text_config.layer_types: found %zu entries, expected num_hidden_layers, %d", from->path,
                         json_array_size(types), text->n_layers);
    for (int32_t i = 0; i < text->n_layers; i++) {
        const json_t *node = json_array_get(types, (size_t)i);
        const char *type = json_string_value(node);
        if (!type) return wrong(from, "layer_types", node, "names of layer types");
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

static pg_status read_text(const section *from, const pgi_memory *memory, pgi_text_config *out) {
    double value;
    const char *type = json_string_value(json_object_get(from->object, "model_type"));
    out->gemma_version = type && strcmp(type, "gemma2") == 0 ? 2 : 1;
    PGI_TRY(read_int(from, "hidden_size", 1, MAX_HIDDEN, &out->hidden_size));
    PGI_TRY(read_int(from, "intermediate_size", 1, MAX_INTERMEDIATE, &out->intermediate_size));
    PGI_TRY(read_int(from, "num_hidden_layers", 1, MAX_LAYERS, &out->n_layers));
    PGI_TRY(read_int(from, "num_attention_heads", 1, MAX_HEADS, &out->n_heads));
    PGI_TRY(read_int(from, "num_key_value_heads", 1, MAX_HEADS, &out->n_kv_heads));
    if (out->n_heads % out->n_kv_heads != 0)
        return pgi_error(
            PG_ERROR_FORMAT,
            "%s: text_config.num_attention_heads: found %d, expected a multiple of num_key_value_heads, %d", from->path,
            out->n_heads, out->n_kv_heads);
    PGI_TRY(read_int(from, "head_dim", 2, MAX_HEAD_DIM, &out->head_dim));
    if (out->head_dim % 2 != 0)
        return pgi_error(PG_ERROR_FORMAT,
                         "%s: text_config.head_dim: found %d, expected an even number (RoPE rotates halves)",
                         from->path, out->head_dim);
    PGI_TRY(read_int(from, "vocab_size", 1, PGI_MAX_VOCAB, &out->vocab_size));
    PGI_TRY(read_int(from, "max_position_embeddings", 1, INT32_MAX, &out->max_positions));
    PGI_TRY(read_activation(from, out->gemma_version == 2 ? "hidden_activation" : "hidden_act", &out->activation));
    PGI_TRY(read_positive(from, "rms_norm_eps", &value));
    out->rms_norm_eps = (float)value;
    PGI_TRY(read_bool(from, "attention_bias", &out->attention_bias));

    section rope = {from->path, "text_config.rope_parameters.", json_object_get(from->object, "rope_parameters")};
    PGI_TRY(read_positive(&rope, "rope_theta", &value));
    out->rope_theta = (float)value;

    uint8_t *slides = pgi_alloc_zero(memory, (size_t)out->n_layers, 1);
    if (!slides) return PG_ERROR_MEMORY;
    out->layer_slides = slides;
    out->query_scale = (float)pow(out->head_dim, -0.5);
    if (out->gemma_version == 1) return PG_OK;

    PGI_TRY(read_positive(from, "query_pre_attn_scalar", &value));
    out->query_scale = (float)pow(value, -0.5);
    PGI_TRY(read_soft_cap(from, "attn_logit_softcapping", &out->attention_soft_cap));
    PGI_TRY(read_soft_cap(from, "final_logit_softcapping", &out->final_soft_cap));
    if (!json_is_null(json_object_get(from->object, "sliding_window")))
        PGI_TRY(read_int(from, "sliding_window", 1, INT32_MAX, &out->sliding_window));
    return read_layer_types(from, out, slides);
}

/* An id, or -1 for null and for what is not there. */
static pg_status read_id(const section *from, const char *key, int64_t *out) {
    const json_t *node = json_object_get(from->object, key);
    *out = -1;
    if (!node || json_is_null(node)) return PG_OK;
    return as_integer(node, out) ? PG_OK : wrong(from, key, node, "an integer or null");
}

static pg_status read_eos(const section *from, pgi_config *out) {
    const char *key = "eos_token_id";
    const json_t *node = json_object_get(from->object, key);
    out->n_eos = 0;
    if (!node || json_is_null(node)) return PG_OK;
    size_t n = json_is_array(node) ? json_array_size(node) : 1;
    if (n > PGI_MAX_EOS)
        return pgi_error(PG_ERROR_LIMIT, "%s: %s%s: found %zu ids, expected at most %d", from->path, from->prefix, key,
                         n, PGI_MAX_EOS);
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_is_array(node) ? json_array_get(node, i) : node;
        if (!as_integer(id, &out->eos_ids[i])) return wrong(from, key, id, "an integer, an array of integers or null");
    }
    out->n_eos = (int32_t)n;
    return PG_OK;
}

/* What of generation_config.json changes greedy text in HF (GenerationMixin, logits processors) and is left aside
 * here. */
static const char *unfollowed_setting(const json_t *generation) {
    static const struct {
        const char *key;
        double neutral; /* the number that changes nothing; null and an empty list change nothing either */
    } settings[] = {
        {"num_beams", 1},
        {"repetition_penalty", 1},
        {"no_repeat_ngram_size", 0},
        {"min_length", 0},
        {"min_new_tokens", 0},
        {"bad_words_ids", 0},
        {"sequence_bias", 0},
        {"suppress_tokens", 0},
        {"begin_suppress_tokens", 0},
        {"forced_bos_token_id", -1},
        {"forced_eos_token_id", -1},
        {"guidance_scale", 1},
    };
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        const json_t *value = json_object_get(generation, settings[i].key);
        if (!value || json_is_null(value) || (json_is_array(value) && json_array_size(value) == 0)) continue;
        if (json_is_number(value) && json_number_value(value) == settings[i].neutral) continue;
        return settings[i].key;
    }
    return NULL;
}

/*
 * Where HF's generate() takes the special ids from: generation_config.json when there is one, and then from nowhere
 * else. Without it from config.json as it is written (defaults not filled in): the top level, else text_config.
 */
static pg_status read_special_ids(const pgi_memory *memory, const char *folder, const char *config_path,
                                  const json_t *raw, pgi_config *out) {
    json_t *generation = NULL;
    char *path = pgi_path_join(memory, folder, "generation_config.json");
    if (!path) return PG_ERROR_MEMORY;
    pg_status status = PG_OK;
    if (pgi_file_exists(path)) {
        PGI_GOTO(pgi_json_load(memory, path, MAX_CONFIG, &generation), done);
        section from = {path, "", generation};
        PGI_GOTO(read_eos(&from, out), done);
        PGI_GOTO(read_id(&from, "pad_token_id", &out->pad_id), done);
        PGI_GOTO(read_id(&from, "bos_token_id", &out->bos_id), done);
        out->unfollowed_setting = unfollowed_setting(generation);
    } else {
        section top = {config_path, "", raw}, text = {config_path, "text_config.", json_object_get(raw, "text_config")};
        PGI_GOTO(read_eos(&top, out), done);
        PGI_GOTO(read_id(&top, "pad_token_id", &out->pad_id), done);
        PGI_GOTO(read_id(&top, "bos_token_id", &out->bos_id), done);
        if (out->n_eos == 0) PGI_GOTO(read_eos(&text, out), done);
        if (out->pad_id < 0) PGI_GOTO(read_id(&text, "pad_token_id", &out->pad_id), done);
        if (out->bos_id < 0) PGI_GOTO(read_id(&text, "bos_token_id", &out->bos_id), done);
    }
done:
    json_decref(generation);
    pgi_free(memory, path);
    return status;
}

static pg_status read_top(const section *from, pgi_config *out) {
    const json_t *image_id = json_object_get(from->object, "image_token_index");
    if (!as_integer(image_id, &out->image_token_id) || out->image_token_id < 0)
        return wrong(from, "image_token_index", image_id, "an integer of 0 or more");
    PGI_TRY(read_bool(from, "tie_word_embeddings", &out->tie_word_embeddings));
    PGI_TRY(read_int(from, "projection_dim", 1, MAX_HIDDEN, &out->projection_dim));
    if (out->projection_dim != out->text.hidden_size)
        return pgi_error(PG_ERROR_FORMAT, "%s: projection_dim: found %d, expected text_config.hidden_size, %d",
                         from->path, out->projection_dim, out->text.hidden_size);
    return PG_OK;
}

static pg_status load(const pgi_memory *memory, const char *folder, const char *path, pgi_config *out) {
    json_t *raw = NULL;
    PGI_TRY(pgi_json_load(memory, path, MAX_CONFIG, &raw));
    pg_status status;
    PGI_GOTO(pgi_config_resolve(path, raw, &out->resolved), done);
    section top = {path, "", out->resolved};
    section vision = {path, "vision_config.", json_object_get(out->resolved, "vision_config")};
    section text = {path, "text_config.", json_object_get(out->resolved, "text_config")};
    PGI_GOTO(read_vision(&vision, &out->vision), done);
    PGI_GOTO(read_text(&text, memory, &out->text), done);
    PGI_GOTO(read_top(&top, out), done);
    status = read_special_ids(memory, folder, path, raw, out);
done:
    json_decref(raw);
    return status;
}

pg_status pgi_config_load(const pgi_memory *memory, const char *folder, pgi_config *out) {
    *out = (pgi_config){.memory = memory, .pad_id = -1, .bos_id = -1};
    char *path = pgi_path_join(memory, folder, "config.json");
    if (!path) return PG_ERROR_MEMORY;
    pg_status status = load(memory, folder, path, out);
    pgi_free(memory, path);
    if (status < 0) pgi_config_free(out);
    return status;
}

void pgi_config_free(pgi_config *config) {
    json_decref(config->resolved);
    if (config->memory) pgi_free(config->memory, (void *)(uintptr_t)config->text.layer_slides);
    *config = (pgi_config){0};
}

/* Names that the config classes answer to beside the one that is stored: attribute_map, and properties. */
static const char *stored_name(const char *key, size_t size) {
    static const struct {
        const char *alias, *name;
    } aliases[] = {
        {"image_token_id", "image_token_index"}, {"torch_dtype", "dtype"}, {"rope_scaling", "rope_parameters"}};
    for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++)
        if (strlen(aliases[i].alias) == size && memcmp(aliases[i].alias, key, size) == 0) return aliases[i].name;
    return NULL;
}

const json_t *pgi_config_field(const pgi_config *config, const char *key) {
    const json_t *node = config->resolved;
    if (!*key) return node;
    for (;;) {
        const char *dot = strchr(key, '.');
        size_t size = dot ? (size_t)(dot - key) : strlen(key);
        const json_t *child = json_object_getn(node, key, size);
        const char *name = stored_name(key, size);
        if (!child && name) child = json_object_get(node, name);
        if (!child || !dot) return child;
        node = child;
        key = dot + 1;
    }
}
