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

static int is_one_of(const char *key, const char *const *list, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (strcmp(key, list[i]) == 0) return 1;
    return 0;
}

static pg_status set_text(pgi_json_doc *doc, const pgi_json *object, const char *key, const char *text) {
    return pgi_json_set(doc, object, key, pgi_json_of_text(text));
}

static pg_status set_defaults(pgi_json_doc *doc, const pgi_json *object, const field_default *defaults) {
    pg_status status = PG_OK;
    for (; defaults->key && status >= 0; defaults++) {
        const pgi_json *value;
        pgi_json_reader reader;
        pgi_json_reader_init(&reader, doc->memory, defaults->key, defaults->json, strlen(defaults->json));
        status = pgi_json_read(doc, &reader, PGI_JSON_STRICT, &value);
        if (status >= 0) status = pgi_json_set(doc, object, defaults->key, *value);
        pgi_json_reader_free(&reader);
    }
    return status;
}

static pg_status wrong(const pgi_json_section *raw, const char *key, const pgi_json *node, const char *expected) {
    return pgi_json_field_wrong_node(raw, PG_ERROR_FORMAT, key, node, expected);
}

/* id2label and label2id: two labels unless the file says otherwise (the num_labels property). */
static pg_status set_labels(pgi_json_doc *doc, const pgi_json_section *raw, const pgi_json *out) {
    const pgi_json *labels = pgi_json_get(out, "id2label"), *count = pgi_json_field(raw, "num_labels");
    int64_t n = 2;
    if (pgi_json_is_set(labels) && !pgi_json_is(labels, PGI_JSON_OBJECT))
        return wrong(raw, "id2label", labels, "an object or null");
    if (count) {
        n = pgi_json_integer(count);
        if (!pgi_json_is(count, PGI_JSON_INTEGER) || n < 0 || n > MAX_LABELS)
            return wrong(raw, "num_labels", count, "an integer from 0 to 4096");
    }
    if (pgi_json_is_set(labels) && (!count || pgi_json_n_members(labels) == (size_t)n)) return PG_OK;
    pgi_json id2label, label2id;
    PGI_TRY(pgi_json_new_object(doc, &id2label));
    PGI_TRY(pgi_json_new_object(doc, &label2id));
    for (int64_t i = 0; i < n; i++) {
        char text[32];
        const char *id, *label;
        const int size = snprintf(text, sizeof text, "LABEL_%d", (int)i);
        PGI_TRY(pgi_json_copy_text(doc, text, (size_t)size, &label));
        id = label + strlen("LABEL_");
        PGI_TRY(set_text(doc, &id2label, id, label));
        PGI_TRY(pgi_json_set(doc, &label2id, label, pgi_json_of_integer(i)));
    }
    PGI_TRY(pgi_json_set(doc, out, "id2label", id2label));
    return pgi_json_set(doc, out, "label2id", label2id);
}

/* What every config class does: the fields' defaults, the file's values over them, the common rules.
 * raw: the whole, or its text_config or vision_config. */
static pg_status resolve_section(pgi_json_doc *doc, const pgi_json_section *raw, const field_default *defaults,
                                 const pgi_json *out) {
    const char *key;
    const pgi_json *value;
    const int is_text = strcmp(raw->prefix, "text_config.") == 0;
    PGI_TRY(set_defaults(doc, out, common_defaults));
    PGI_TRY(set_defaults(doc, out, defaults));
    for (size_t i = 0; (value = pgi_json_member(raw->object, i, &key)) != NULL; i++) {
        if (!pgi_json_get(out, key)) {
            if (is_one_of(key, dropped_keys, sizeof dropped_keys / sizeof *dropped_keys)) continue;
            if (is_text && is_one_of(key, rope_keys, sizeof rope_keys / sizeof *rope_keys)) continue;
        }
        PGI_TRY(pgi_json_set(doc, out, key, *value));
    }
    const pgi_json *torch_dtype = pgi_json_field(raw, "torch_dtype");
    if (!pgi_json_is_set(pgi_json_get(out, "dtype")) && pgi_json_is_set(torch_dtype))
        PGI_TRY(pgi_json_set(doc, out, "dtype", *torch_dtype));
    if (pgi_json_field_is_set(raw, "per_layer_config"))
        return pgi_error(PG_ERROR_UNSUPPORTED,
                         "%s: %sper_layer_config: layers that differ from each other are not supported", raw->path,
                         raw->prefix);
    return set_labels(doc, raw, out);
}

/* rope_parameters, from itself or from the older rope_scaling and rope_theta. */
static pg_status resolve_rope(pgi_json_doc *doc, const pgi_json_section *raw, const pgi_json *out) {
    const char *path = raw->path;
    const pgi_json *given = pgi_json_field(raw, "rope_scaling");
    const char *name = "rope_scaling";
    if (!pgi_json_is_set(given) || (pgi_json_is(given, PGI_JSON_OBJECT) && pgi_json_n_members(given) == 0)) {
        given = pgi_json_field(raw, "rope_parameters");
        name = "rope_parameters";
    }
    if (pgi_json_is_set(given) && !pgi_json_is(given, PGI_JSON_OBJECT))
        return wrong(raw, name, given, "an object or null");
    pgi_json rope;
    PGI_TRY(pgi_json_is_set(given) ? pgi_json_copy(doc, given, &rope) : pgi_json_new_object(doc, &rope));
    PGI_TRY(pgi_json_set(doc, out, "rope_parameters", rope));
    if (pgi_json_is(pgi_json_get(&rope, "full_attention"), PGI_JSON_OBJECT) ||
        pgi_json_is(pgi_json_get(&rope, "sliding_attention"), PGI_JSON_OBJECT))
        return pgi_error(PG_ERROR_UNSUPPORTED, "%s: text_config.%s: RoPE parameters per layer type are not supported",
                         path, name);

    const pgi_json *theta = pgi_json_field(raw, "rope_theta"), *partial = pgi_json_field(raw, "partial_rotary_factor");
    if (!pgi_json_get(&rope, "rope_theta"))
        PGI_TRY(pgi_json_set(doc, &rope, "rope_theta", theta ? *theta : pgi_json_of_real(10000.0)));
    if (pgi_json_is_set(partial) && !pgi_json_get(&rope, "partial_rotary_factor"))
        PGI_TRY(pgi_json_set(doc, &rope, "partial_rotary_factor", *partial));
    if (!pgi_json_get(&rope, "rope_type")) {
        const pgi_json *old = pgi_json_get(&rope, "type");
        PGI_TRY(pgi_json_set(doc, &rope, "rope_type", old ? *old : pgi_json_of_text("default")));
    }
    const pgi_json_section made = {path, "text_config.rope_parameters.", &rope};
    const char *type = pgi_json_field_text(&made, "rope_type");
    if (!type) return pgi_json_field_wrong(&made, PG_ERROR_FORMAT, "rope_type", "a string");
    if (strcmp(type, "default") != 0)
        return pgi_error(PG_ERROR_UNSUPPORTED, "%s: text_config.%s: found RoPE scaling \"%.40s\", expected \"default\"",
                         path, name, type);
    return PG_OK;
}

/* Gemma 2: even layers slide. Names of older versions are replaced (remap_legacy_layer_types). */
static pg_status resolve_layer_types(pgi_json_doc *doc, const pgi_json_section *raw, const pgi_json *out) {
    const pgi_json *types = pgi_json_get(out, "layer_types");
    pgi_json made;
    if (!pgi_json_is_set(types)) {
        /* Before the count is known to be sane: an absurd one is refused when the field itself is read. */
        int64_t n = pgi_json_integer(pgi_json_get(out, "num_hidden_layers"));
        if (n < 0 || n > 65536) n = 0;
        PGI_TRY(pgi_json_new_array(doc, (size_t)n, &made));
        for (int64_t i = 0; i < n; i++)
            made.as.items[i] = pgi_json_of_text(i % 2 == 0 ? "sliding_attention" : "full_attention");
        return pgi_json_set(doc, out, "layer_types", made);
    }
    if (!pgi_json_is(types, PGI_JSON_ARRAY)) return wrong(raw, "layer_types", types, "an array or null");
    PGI_TRY(pgi_json_copy(doc, types, &made));
    for (size_t i = 0; i < made.size; i++) {
        const char *type = pgi_json_text(&made.as.items[i]);
        if (type && strcmp(type, "attention") == 0) made.as.items[i] = pgi_json_of_text("full_attention");
    }
    return pgi_json_set(doc, out, "layer_types", made);
}

/* The part of config.json, or `absent` as an object when it is not there. */
static pg_status read_section(pgi_json_doc *doc, const pgi_json_section *raw, const char *key,
                              const field_default *absent, pgi_json *out) {
    const pgi_json *given = pgi_json_field(raw, key);
    if (pgi_json_is_set(given) && !pgi_json_is(given, PGI_JSON_OBJECT))
        return wrong(raw, key, given, "an object or null");
    if (pgi_json_is_set(given)) {
        *out = *given;
        return PG_OK;
    }
    PGI_TRY(pgi_json_new_object(doc, out));
    return set_defaults(doc, out, absent);
}

/* The model_type of a part, `standard` when it names none. */
static pg_status read_model_type(const pgi_json_section *raw, const char *standard, const char **out) {
    *out = pgi_json_field(raw, "model_type") ? pgi_json_field_text(raw, "model_type") : standard;
    return *out ? PG_OK : pgi_json_field_wrong(raw, PG_ERROR_FORMAT, "model_type", "a string");
}

static pg_status resolve_text(pgi_json_doc *doc, const pgi_json_section *raw, const pgi_json *out) {
    const char *path = raw->path;
    const char *type;
    PGI_TRY(read_model_type(raw, "gemma", &type));
    int is_gemma2 = strcmp(type, "gemma2") == 0;
    if (!is_gemma2 && strcmp(type, "gemma") != 0)
        return pgi_error(PG_ERROR_UNSUPPORTED,
                         "%s: text_config.model_type: found \"%.40s\", expected \"gemma\" or \"gemma2\"", path, type);
    PGI_TRY(resolve_section(doc, raw, is_gemma2 ? gemma2_defaults : gemma_defaults, out));
    PGI_TRY(set_text(doc, out, "model_type", type));
    PGI_TRY(resolve_rope(doc, raw, out));
    if (is_gemma2) return resolve_layer_types(doc, raw, out);
    /* Gemma 1 reads hidden_act alone (a hidden_activation beside it is kept and unused), where "gelu" means the tanh
     * form. */
    const char *act = pgi_json_text(pgi_json_get(out, "hidden_act"));
    return act && strcmp(act, "gelu") == 0 ? set_text(doc, out, "hidden_act", "gelu_pytorch_tanh") : PG_OK;
}

static pg_status resolve_vision(pgi_json_doc *doc, const pgi_json_section *raw, const pgi_json *out) {
    const char *path = raw->path;
    const char *type;
    PGI_TRY(read_model_type(raw, "siglip_vision_model", &type));
    if (strcmp(type, "siglip_vision_model") != 0)
        return pgi_error(PG_ERROR_UNSUPPORTED,
                         "%s: vision_config.model_type: found \"%.40s\", expected \"siglip_vision_model\"", path, type);
    PGI_TRY(resolve_section(doc, raw, siglip_defaults, out));
    return set_text(doc, out, "model_type", type);
}

/* PaliGemmaConfig.__post_init__: the fields that follow from others. */
static pg_status set_derived(pgi_json_doc *doc, const pgi_json *top, const pgi_json *vision, const pgi_json *text) {
    const pgi_json *alias = pgi_json_get(top, "image_token_id"); /* attribute_map; assigned after image_token_index */
    if (alias) {
        PGI_TRY(pgi_json_set(doc, top, "image_token_index", *alias));
        pgi_json_remove(top, "image_token_id");
    }
    if (!pgi_json_is_set(pgi_json_get(text, "use_bidirectional_attention")))
        PGI_TRY(pgi_json_set(doc, text, "use_bidirectional_attention", (pgi_json){.kind = PGI_JSON_TRUE}));
    const int64_t image = pgi_json_integer(pgi_json_get(vision, "image_size"));
    const int64_t patch = pgi_json_integer(pgi_json_get(vision, "patch_size"));
    int64_t side = image > 0 && patch > 0 ? image / patch : 0;
    if (side > 65536) side = 0; /* refused when image_size itself is read */
    PGI_TRY(pgi_json_set(doc, text, "num_image_tokens", pgi_json_of_integer(side * side)));
    return pgi_json_set(doc, vision, "projection_dim", *pgi_json_get(top, "projection_dim"));
}

pg_status pgi_config_resolve(pgi_json_doc *doc, const char *path, const pgi_json *raw, pgi_json *out) {
    pgi_json raw_vision, raw_text, vision, text;
    const pgi_json_section whole = {path, "", raw};
    const char *type;
    PGI_TRY(read_model_type(&whole, "paligemma", &type));
    if (strcmp(type, "paligemma") != 0) return pgi_diagnose_model_type(path, type);
    PGI_TRY(pgi_diagnose_quantized(path, raw));
    PGI_TRY(pgi_json_new_object(doc, out));
    PGI_TRY(pgi_json_new_object(doc, &vision));
    PGI_TRY(pgi_json_new_object(doc, &text));
    PGI_TRY(read_section(doc, &whole, "vision_config", absent_vision, &raw_vision));
    PGI_TRY(read_section(doc, &whole, "text_config", absent_text, &raw_text));
    PGI_TRY(resolve_section(doc, &whole, paligemma_defaults, out));
    PGI_TRY(set_text(doc, out, "model_type", "paligemma"));
    PGI_TRY(resolve_vision(doc, &(pgi_json_section){path, "vision_config.", &raw_vision}, &vision));
    PGI_TRY(resolve_text(doc, &(pgi_json_section){path, "text_config.", &raw_text}, &text));
    PGI_TRY(set_derived(doc, out, &vision, &text));
    PGI_TRY(pgi_json_set(doc, out, "vision_config", vision));
    return pgi_json_set(doc, out, "text_config", text);
}
