/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The text of adapter_config.json: json.dumps(..., indent=2, sort_keys=True) of Python. */
#include "train/peft_config.h"

#include <math.h>
#include <string.h>

#include "base/utf8.h"
#include "checkpoint/json_number.h"

enum { RANK_OF_NONE = 8 }; /* PEFT wants one also where no module has LoRA */

static pg_status add_text(pgi_buffer *out, const char *text) { return pgi_buffer_append(out, text, strlen(text)); }

static pg_status add_character(pgi_buffer *out, uint32_t code) {
    if (code == '"' || code == '\\') return pgi_buffer_printf(out, "\\%c", (char)code);
    if (code == '\n') return add_text(out, "\\n");
    if (code == '\t') return add_text(out, "\\t");
    if (code == '\r') return add_text(out, "\\r");
    if (code >= 0x20 && code < 0x7F) return pgi_buffer_printf(out, "%c", (char)code);
    if (code < 0x10000) return pgi_buffer_printf(out, "\\u%04x", code);
    code -= 0x10000;
    return pgi_buffer_printf(out, "\\u%04x\\u%04x", 0xD800 + (code >> 10), 0xDC00 + (code & 0x3FF));
}

static pg_status add_string(pgi_buffer *out, const char *text) {
    const size_t size = strlen(text);
    PGI_TRY(add_text(out, "\""));
    for (size_t at = 0; at < size;) {
        uint32_t code;
        const size_t n = pgi_utf8_next((const uint8_t *)text + at, size - at, &code);
        PGI_TRY(add_character(out, n ? code : 0xFFFD));
        at += n ? n : 1;
    }
    return add_text(out, "\"");
}

static pg_status add_list(pgi_buffer *out, const char *const *items, size_t n) {
    for (size_t i = 0; i < n; i++) {
        PGI_TRY(add_text(out, i ? ",\n    " : "[\n    "));
        PGI_TRY(add_string(out, items[i]));
    }
    return add_text(out, "\n  ]");
}

/* An integer where it is one, as lora_alpha mostly is. */
static pg_status add_number(pgi_buffer *out, double value) {
    char text[PGI_NUMBER_TEXT];
    if (value == floor(value) && fabs(value) < 1e15) return pgi_buffer_printf(out, "%lld", (long long)value);
    return add_text(out, pgi_number_write(value, 1, 17, text));
}

static pg_status add_base(const pgi_train_config *config, pgi_buffer *out) {
    return config->base ? add_string(out, config->base) : add_text(out, "null");
}

static pg_status add_alpha(const pgi_train_config *config, pgi_buffer *out) { return add_number(out, config->alpha); }

static pg_status add_dropout(const pgi_train_config *config, pgi_buffer *out) {
    char text[PGI_NUMBER_TEXT];
    return add_text(out, pgi_number_write(config->dropout, 1, 17, text));
}

static pg_status add_saved(const pgi_train_config *config, pgi_buffer *out) {
    return config->n_saved ? add_list(out, config->saved, config->n_saved) : add_text(out, "null");
}

static pg_status add_rank(const pgi_train_config *config, pgi_buffer *out) {
    return pgi_buffer_printf(out, "%d", config->rank ? config->rank : RANK_OF_NONE);
}

static pg_status add_targets(const pgi_train_config *config, pgi_buffer *out) {
    if (config->rank && config->target_pattern) return add_string(out, config->target_pattern);
    if (config->rank && config->n_targets) return add_list(out, config->targets, config->n_targets);
    return add_text(out, "\"dummy-target-modules\""); /* PEFT's name for none; an empty list is an error there */
}

static pg_status add_rslora(const pgi_train_config *config, pgi_buffer *out) {
    return add_text(out, config->rslora ? "true" : "false");
}

/* All fields of LoraConfig. inference_mode is true in what save_pretrained() of a PeftModel writes. */
static const struct {
    const char *key, *fixed;
    pg_status (*add)(const pgi_train_config *config, pgi_buffer *out); /* where `fixed` is NULL */
} fields[] = {{"alora_invocation_tokens", "null", NULL},
              {"alpha_pattern", "{}", NULL},
              {"arrow_config", "null", NULL},
              {"auto_mapping", "null", NULL},
              {"base_model_name_or_path", NULL, add_base},
              {"bias", "\"none\"", NULL},
              {"corda_config", "null", NULL},
              {"ensure_weight_tying", "false", NULL},
              {"eva_config", "null", NULL},
              {"exclude_modules", "null", NULL},
              {"fan_in_fan_out", "false", NULL},
              {"inference_mode", "true", NULL},
              {"init_lora_weights", "true", NULL},
              {"kasa_config", "null", NULL},
              {"layer_replication", "null", NULL},
              {"layers_pattern", "null", NULL},
              {"layers_to_transform", "null", NULL},
              {"loftq_config", "{}", NULL},
              {"lora_alpha", NULL, add_alpha},
              {"lora_bias", "false", NULL},
              {"lora_dropout", NULL, add_dropout},
              {"lora_ga_config", "null", NULL},
              {"megatron_config", "null", NULL},
              {"megatron_core", "\"megatron.core\"", NULL},
              {"modules_to_save", NULL, add_saved},
              {"monteclora_config", "null", NULL},
              {"peft_type", "\"LORA\"", NULL},
              {"peft_version", "\"0.21.2\"", NULL},
              {"qalora_group_size", "16", NULL},
              {"r", NULL, add_rank},
              {"rank_pattern", "{}", NULL},
              {"revision", "null", NULL},
              {"target_modules", NULL, add_targets},
              {"target_parameters", "null", NULL},
              {"task_type", "\"CAUSAL_LM\"", NULL},
              {"trainable_token_indices", "null", NULL},
              {"use_bdlora", "null", NULL},
              {"use_dora", "false", NULL},
              {"use_qalora", "false", NULL},
              {"use_rslora", NULL, add_rslora},
              {"velora_config", "null", NULL}};

pg_status pgi_peft_config_write(const pgi_train_config *config, pgi_buffer *out) {
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        PGI_TRY(pgi_buffer_printf(out, "%s  \"%s\": ", i ? ",\n" : "{\n", fields[i].key));
        PGI_TRY(fields[i].fixed ? add_text(out, fields[i].fixed) : fields[i].add(config, out));
    }
    return add_text(out, "\n}");
}
