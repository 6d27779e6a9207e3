/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The rules by which transformers 5.23 turns a config.json into a config: PreTrainedConfig.__post_init__
 * (configuration_utils.py), RotaryEmbeddingConfigMixin.convert_rope_params_to_dict (modeling_rope_utils.py),
 * PaliGemmaConfig, GemmaConfig, Gemma2Config, SiglipVisionConfig (configuration_*.py).
 */
#include "checkpoint/config_resolve.h"

#include <stdio.h>
#include <string.h>

#include "checkpoint/diagnose.h"
#include "checkpoint/json_field.h"

enum { MAX_LABELS = 4096 };

typedef struct field_default {
    const char *key, *json;
} field_default;

/* PreTrainedConfig; id2label and label2id are made in set_labels(). */
static const field_default common_defaults[] = {{"architectures", "null"},
                                                {"output_hidden_states", "false"},
                                                {"return_dict", "true"},
                                                {"dtype", "null"},
                                                {"chunk_size_feed_forward", "0"},
                                                {"is_encoder_decoder", "false"},
                                                {"id2label", "null"},
                                                {"label2id", "null"},
                                                {"problem_type", "null"},
                                                {"_name_or_path", "\"\""},
                                                {"output_attentions", "false"},
                                                {NULL, NULL}};

static const field_default paligemma_defaults[] = {
    {"transformers_version", "null"}, {"vision_config", "null"},       {"text_config", "null"},
    {"image_token_index", "256000"},  {"vocab_size", "257152"},        {"projection_dim", "2048"},
    {"hidden_size", "2048"},          {"tie_word_embeddings", "true"}, {NULL, NULL}};

static const field_default siglip_defaults[] = {{"hidden_size", "768"},      {"intermediate_size", "3072"},
                                                {"num_hidden_layers", "12"}, {"num_attention_heads", "12"},
                                                {"num_channels", "3"},       {"image_size", "224"},
                                                {"patch_size", "16"},        {"hidden_act", "\"gelu_pytorch_tanh\""},
                                                {"layer_norm_eps", "1e-6"},  {"attention_dropout", "0.0"},
                                                {"vision_use_head", "true"}, {NULL, NULL}};

static const field_default gemma_defaults[] = {{"vocab_size", "256000"},
                                               {"hidden_size", "3072"},
                                               {"intermediate_size", "24576"},
                                               {"num_hidden_layers", "28"},
                                               {"num_attention_heads", "16"},
                                               {"num_key_value_heads", "16"},
                                               {"head_dim", "256"},
                                               {"hidden_act", "\"gelu_pytorch_tanh\""},
                                               {"max_position_embeddings", "8192"},
                                               {"initializer_range", "0.02"},
                                               {"rms_norm_eps", "1e-6"},
                                               {"use_cache", "true"},
                                               {"pad_token_id", "0"},
                                               {"eos_token_id", "1"},
                                               {"bos_token_id", "2"},
                                               {"tie_word_embeddings", "true"},
                                               {"rope_parameters", "null"},
                                               {"attention_bias", "false"},
                                               {"attention_dropout", "0.0"},
                                               {"use_bidirectional_attention", "null"},
                                               {NULL, NULL}};

static const field_default gemma2_defaults[] = {{"vocab_size", "256000"},
                                                {"hidden_size", "2304"},
                                                {"intermediate_size", "9216"},
                                                {"num_hidden_layers", "26"},
                                                {"num_attention_heads", "8"},
                                                {"num_key_value_heads", "4"},
                                                {"head_dim", "256"},
                                                {"hidden_activation", "\"gelu_pytorch_tanh\""},
                                                {"max_position_embeddings", "8192"},
                                                {"initializer_range", "0.02"},
                                                {"rms_norm_eps", "1e-6"},
                                                {"use_cache", "true"},
                                                {"pad_token_id", "0"},
                                                {"eos_token_id", "1"},
                                                {"bos_token_id", "2"},
                                                {"tie_word_embeddings", "true"},
                                                {"rope_parameters", "null"},
                                                {"attention_bias", "false"},
                                                {"attention_dropout", "0.0"},
                                                {"query_pre_attn_scalar", "256"},
                                                {"sliding_window", "4096"},
                                                {"layer_types", "null"},
                                                {"final_logit_softcapping", "30.0"},
                                                {"attn_logit_softcapping", "50.0"},
                                                {"use_bidirectional_attention", "null"},
                                                {NULL, NULL}};

/* What PaliGemmaConfig gives a part that config.json leaves out or sets to null (sub_configs_defaults). A part that is
 * there, be it {}, gets the defaults of its own class instead. */
static const field_default absent_vision[] = {
    {"intermediate_size", "4096"}, {"hidden_size", "1152"},      {"patch_size", "14"},
    {"image_size", "224"},         {"num_hidden_layers", "27"},  {"num_attention_heads", "16"},
    {"vocab_size", "257152"},      {"vision_use_head", "false"}, {NULL, NULL}};

static const field_default absent_text[] = {{"hidden_size", "2048"},        {"num_hidden_layers", "18"},
                                            {"intermediate_size", "16384"}, {"num_attention_heads", "8"},
                                            {"num_key_value_heads", "1"},   {"is_encoder_decoder", "false"},
                                            {"vocab_size", "257152"},       {NULL, NULL}};

/* Keys of config.json that do not become fields, unless the class has a field of that name: generation parameters
 * (GenerationConfig._get_default_generation_params), old names, and what is never written back. */
static const char *const dropped_keys[] = {"max_length",
                                           "min_length",
                                           "do_sample",
                                           "use_cache",
                                           "early_stopping",
                                           "num_beams",
                                           "temperature",
                                           "top_k",
                                           "top_p",
                                           "typical_p",
                                           "repetition_penalty",
                                           "length_penalty",
                                           "no_repeat_ngram_size",
                                           "encoder_no_repeat_ngram_size",
                                           "bad_words_ids",
                                           "num_return_sequences",
                                           "output_scores",
                                           "return_dict_in_generate",
                                           "forced_bos_token_id",
                                           "forced_eos_token_id",
                                           "remove_invalid_values",
                                           "exponential_decay_length_penalty",
                                           "suppress_tokens",
                                           "begin_suppress_tokens",
                                           "epsilon_cutoff",
                                           "eta_cutoff",
                                           "encoder_repetition_penalty",
                                           "num_assistant_tokens",
                                           "num_assistant_tokens_schedule",
                                           "assistant_confidence_threshold",
                                           "assistant_lookbehind",
                                           "target_lookbehind",
                                           "num_beam_groups",
                                           "diversity_penalty",
                                           "name_or_path",
                                           "_commit_hash",
                                           "attn_implementation",
                                           "experts_implementation",
                                           "_attn_implementation_internal",
                                           "_experts_implementation_internal",
                                           "torch_dtype",
                                           "num_labels",
                                           "per_layer_config",
                                           "transformers_version",
                                           "_is_quantized",
                                           "_auto_class",
                                           "_post_init_done",
                                           "ignore_keys_at_rope_validation",
                                           "base_model_tp_plan",
                                           "base_model_pp_plan",
                                           "base_model_fsdp_plan",
                                           "distributed_config"};

/* Popped from the text config alone, into rope_parameters. */
static const char *const rope_keys[] = {"rope_scaling", "rope_theta", "partial_rotary_factor"};

static pg_status no_memory(const char *path) { return pgi_error(PG_ERROR_MEMORY, "%s: out of memory", path); }

static int is_set(const json_t *node) { return node && !json_is_null(node); }

static int is_one_of(const char *key, const char *const *list, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (strcmp(key, list[i]) == 0) return 1;
    return 0;
}

/* Takes over `value`, NULL included. */
static pg_status set_new(const char *path, json_t *object, const char *key, json_t *value) {
    return value && json_object_set_new(object, key, value) == 0 ? PG_OK : no_memory(path);
}

static pg_status set_defaults(const char *path, json_t *object, const field_default *defaults) {
    for (; defaults->key; defaults++)
        PGI_TRY(set_new(path, object, defaults->key,
                        json_loadb(defaults->json, strlen(defaults->json), JSON_DECODE_ANY, NULL)));
    return PG_OK;
}

static pg_status wrong(const pgi_json_section *raw, const char *key, const json_t *node, const char *expected) {
    return pgi_json_field_wrong_node(raw, PG_ERROR_FORMAT, key, node, expected);
}

/* id2label and label2id: two labels unless the file says otherwise (the num_labels property). */
static pg_status set_labels(const pgi_json_section *raw, json_t *out) {
    const json_t *labels = json_object_get(out, "id2label"), *count = pgi_json_field(raw, "num_labels");
    json_int_t n = 2;
    if (is_set(labels) && !json_is_object(labels)) return wrong(raw, "id2label", labels, "an object or null");
    if (count) {
        if (!json_is_integer(count) || json_integer_value(count) < 0 || json_integer_value(count) > MAX_LABELS)
            return wrong(raw, "num_labels", count, "an integer from 0 to 4096");
        n = json_integer_value(count);
    }
    if (is_set(labels) && (!count || json_object_size(labels) == (size_t)n)) return PG_OK;
    json_t *id2label = json_object(), *label2id = json_object();
    pg_status status = id2label && label2id ? PG_OK : no_memory(raw->path);
    for (json_int_t i = 0; i < n && status >= 0; i++) {
        char id[24], label[32];
        snprintf(id, sizeof id, "%d", (int)i);
        snprintf(label, sizeof label, "LABEL_%d", (int)i);
        status = set_new(raw->path, id2label, id, json_string(label));
        if (status >= 0) status = set_new(raw->path, label2id, label, json_integer(i));
    }
    if (status < 0) {
        json_decref(id2label);
        json_decref(label2id);
        return status;
    }
    status = set_new(raw->path, out, "id2label", id2label);
    pg_status second = set_new(raw->path, out, "label2id", label2id);
    return status < 0 ? status : second;
}

/* What every config class does: the fields' defaults, the file's values over them, the common rules.
 * raw: the whole, or its text_config or vision_config. */
static pg_status resolve_section(const pgi_json_section *raw, const field_default *defaults, json_t *out) {
    const char *path = raw->path;
    json_t *object = (json_t *)(uintptr_t)raw->object; /* iterating does not change it */
    int is_text = strcmp(raw->prefix, "text_config.") == 0;
    PGI_TRY(set_defaults(path, out, common_defaults));
    PGI_TRY(set_defaults(path, out, defaults));
    for (void *at = json_object_iter(object); at; at = json_object_iter_next(object, at)) {
        const char *key = json_object_iter_key(at);
        if (!json_object_get(out, key)) {
            if (is_one_of(key, dropped_keys, sizeof dropped_keys / sizeof *dropped_keys)) continue;
            if (is_text && is_one_of(key, rope_keys, sizeof rope_keys / sizeof *rope_keys)) continue;
        }
        if (json_object_set(out, key, json_object_iter_value(at)) != 0) return no_memory(path);
    }
    json_t *torch_dtype = json_object_get(raw->object, "torch_dtype");
    if (!is_set(json_object_get(out, "dtype")) && is_set(torch_dtype) &&
        json_object_set(out, "dtype", torch_dtype) != 0)
        return no_memory(path);
    if (pgi_json_field_is_set(raw, "per_layer_config"))
        return pgi_error(PG_ERROR_UNSUPPORTED,
                         "%s: %sper_layer_config: layers that differ from each other are not supported", path,
                         raw->prefix);
    return set_labels(raw, out);
}

/* rope_parameters, from itself or from the older rope_scaling and rope_theta. */
static pg_status resolve_rope(const pgi_json_section *raw, json_t *out) {
    const char *path = raw->path;
    const json_t *given = pgi_json_field(raw, "rope_scaling");
    const char *name = "rope_scaling";
    if (!is_set(given) || (json_is_object(given) && json_object_size(given) == 0)) {
        given = pgi_json_field(raw, "rope_parameters");
        name = "rope_parameters";
    }
    if (is_set(given) && !json_is_object(given)) return wrong(raw, name, given, "an object or null");
    json_t *rope = is_set(given) ? json_copy((json_t *)(uintptr_t)given) : json_object();
    PGI_TRY(set_new(path, out, "rope_parameters", rope));
    if (json_is_object(json_object_get(rope, "full_attention")) ||
        json_is_object(json_object_get(rope, "sliding_attention")))
        return pgi_error(PG_ERROR_UNSUPPORTED, "%s: text_config.%s: RoPE parameters per layer type are not supported",
                         path, name);

    json_t *theta = json_object_get(raw->object, "rope_theta");
    json_t *partial = json_object_get(raw->object, "partial_rotary_factor");
    if (!json_object_get(rope, "rope_theta"))
        PGI_TRY(set_new(path, rope, "rope_theta", theta ? json_incref(theta) : json_real(10000.0)));
    if (is_set(partial) && !json_object_get(rope, "partial_rotary_factor"))
        PGI_TRY(set_new(path, rope, "partial_rotary_factor", json_incref(partial)));
    if (!json_object_get(rope, "rope_type")) {
        json_t *type = json_object_get(rope, "type");
        PGI_TRY(set_new(path, rope, "rope_type", type ? json_incref(type) : json_string("default")));
    }
    const pgi_json_section made = {path, "text_config.rope_parameters.", rope};
    const char *type = pgi_json_field_text(&made, "rope_type");
    if (!type) return pgi_json_field_wrong(&made, PG_ERROR_FORMAT, "rope_type", "a string");
    if (strcmp(type, "default") != 0)
        return pgi_error(PG_ERROR_UNSUPPORTED, "%s: text_config.%s: found RoPE scaling \"%.40s\", expected \"default\"",
                         path, name, type);
    return PG_OK;
}

/* Gemma 2: even layers slide. Names of older versions are replaced (remap_legacy_layer_types). */
static pg_status resolve_layer_types(const pgi_json_section *raw, json_t *out) {
    const char *path = raw->path;
    json_t *types = json_object_get(out, "layer_types");
    if (!is_set(types)) {
        /* Before the count is known to be sane: an absurd one is refused when the field itself is read. */
        json_int_t n = json_integer_value(json_object_get(out, "num_hidden_layers"));
        if (n < 0 || n > 65536) n = 0;
        types = json_array();
        for (json_int_t i = 0; types && i < n; i++)
            if (json_array_append_new(types, json_string(i % 2 == 0 ? "sliding_attention" : "full_attention")) != 0) {
                json_decref(types);
                types = NULL;
            }
        return set_new(path, out, "layer_types", types);
    }
    if (!json_is_array(types)) return wrong(raw, "layer_types", types, "an array or null");
    json_t *renamed = json_copy(types);
    PGI_TRY(set_new(path, out, "layer_types", renamed));
    for (size_t i = 0; i < json_array_size(renamed); i++) {
        const char *type = json_string_value(json_array_get(renamed, i));
        if (type && strcmp(type, "attention") == 0 &&
            json_array_set_new(renamed, i, json_string("full_attention")) != 0)
            return no_memory(path);
    }
    return PG_OK;
}

/* The part of config.json, or `absent` as an object when it is not there. */
static pg_status read_section(const pgi_json_section *raw, const char *key, const field_default *absent, json_t **out) {
    const char *path = raw->path;
    json_t *given = json_object_get(raw->object, key);
    *out = NULL;
    if (is_set(given) && !json_is_object(given)) return wrong(raw, key, given, "an object or null");
    if (is_set(given)) {
        *out = json_incref(given);
        return PG_OK;
    }
    json_t *made = json_object();
    if (!made) return no_memory(path);
    pg_status status = set_defaults(path, made, absent);
    if (status < 0)
        json_decref(made);
    else
        *out = made;
    return status;
}

/* The model_type of a part, `standard` when it names none. */
static pg_status read_model_type(const pgi_json_section *raw, const char *standard, const char **out) {
    *out = pgi_json_field(raw, "model_type") ? pgi_json_field_text(raw, "model_type") : standard;
    return *out ? PG_OK : pgi_json_field_wrong(raw, PG_ERROR_FORMAT, "model_type", "a string");
}

static pg_status resolve_text(const pgi_json_section *raw, json_t *out) {
    const char *path = raw->path;
    const char *type;
    PGI_TRY(read_model_type(raw, "gemma", &type));
    int is_gemma2 = strcmp(type, "gemma2") == 0;
    if (!is_gemma2 && strcmp(type, "gemma") != 0)
        return pgi_error(PG_ERROR_UNSUPPORTED,
                         "%s: text_config.model_type: found \"%.40s\", expected \"gemma\" or \"gemma2\"", path, type);
    PGI_TRY(resolve_section(raw, is_gemma2 ? gemma2_defaults : gemma_defaults, out));
    PGI_TRY(set_new(path, out, "model_type", json_string(type)));
    PGI_TRY(resolve_rope(raw, out));
    if (is_gemma2) return resolve_layer_types(raw, out);
    /* Gemma 1 reads hidden_act alone (a hidden_activation beside it is kept and unused), where "gelu" means the tanh
     * form. */
    const char *act = json_string_value(json_object_get(out, "hidden_act"));
    return act && strcmp(act, "gelu") == 0 ? set_new(path, out, "hidden_act", json_string("gelu_pytorch_tanh")) : PG_OK;
}

static pg_status resolve_vision(const pgi_json_section *raw, json_t *out) {
    const char *path = raw->path;
    const char *type;
    PGI_TRY(read_model_type(raw, "siglip_vision_model", &type));
    if (strcmp(type, "siglip_vision_model") != 0)
        return pgi_error(PG_ERROR_UNSUPPORTED,
                         "%s: vision_config.model_type: found \"%.40s\", expected \"siglip_vision_model\"", path, type);
    PGI_TRY(resolve_section(raw, siglip_defaults, out));
    return set_new(path, out, "model_type", json_string(type));
}

/* PaliGemmaConfig.__post_init__: the fields that follow from others. */
static pg_status set_derived(const char *path, json_t *top, json_t *vision, json_t *text) {
    json_t *alias = json_object_get(top, "image_token_id"); /* attribute_map; it is assigned after image_token_index */
    if (alias) {
        if (json_object_set(top, "image_token_index", alias) != 0) return no_memory(path);
        json_object_del(top, "image_token_id");
    }
    if (!is_set(json_object_get(text, "use_bidirectional_attention")))
        PGI_TRY(set_new(path, text, "use_bidirectional_attention", json_true()));
    json_int_t image = json_integer_value(json_object_get(vision, "image_size"));
    json_int_t patch = json_integer_value(json_object_get(vision, "patch_size"));
    json_int_t side = image > 0 && patch > 0 ? image / patch : 0;
    if (side > 65536) side = 0; /* refused when image_size itself is read */
    PGI_TRY(set_new(path, text, "num_image_tokens", json_integer(side * side)));
    if (json_object_set(vision, "projection_dim", json_object_get(top, "projection_dim")) != 0) return no_memory(path);
    return PG_OK;
}

pg_status pgi_config_resolve(const char *path, const json_t *raw, json_t **out) {
    json_t *raw_vision = NULL, *raw_text = NULL, *top = json_object(), *vision = json_object(), *text = json_object();
    const pgi_json_section whole = {path, "", raw};
    pg_status status;
    const char *type;
    *out = NULL;
    if (!top || !vision || !text) {
        status = no_memory(path);
        goto done;
    }
    PGI_GOTO(read_model_type(&whole, "paligemma", &type), done);
    if (strcmp(type, "paligemma") != 0) {
        status = pgi_diagnose_model_type(path, type);
        goto done;
    }
    PGI_GOTO(pgi_diagnose_quantized(path, raw), done);
    PGI_GOTO(read_section(&whole, "vision_config", absent_vision, &raw_vision), done);
    PGI_GOTO(read_section(&whole, "text_config", absent_text, &raw_text), done);
    PGI_GOTO(resolve_section(&whole, paligemma_defaults, top), done);
    PGI_GOTO(set_new(path, top, "model_type", json_string("paligemma")), done);
    PGI_GOTO(resolve_vision(&(pgi_json_section){path, "vision_config.", raw_vision}, vision), done);
    PGI_GOTO(resolve_text(&(pgi_json_section){path, "text_config.", raw_text}, text), done);
    PGI_GOTO(set_derived(path, top, vision, text), done);
    if (json_object_set(top, "vision_config", vision) != 0 || json_object_set(top, "text_config", text) != 0) {
        status = no_memory(path);
        goto done;
    }
    *out = json_incref(top);
done:
    json_decref(raw_vision);
    json_decref(raw_text);
    json_decref(top);
    json_decref(vision);
    json_decref(text);
    return status;
}
