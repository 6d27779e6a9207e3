/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* adapter_config.json: adapter_config.h. Which modules an adapter has is not read here: its tensors say so, which PEFT
 * writes for exactly the modules that target_modules, layers_to_transform and exclude_modules name. */
#include "checkpoint/adapter_config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "checkpoint/json_field.h"
#include "ops/low_rank.h"

enum {
    MAX_CONFIG = 1 << 20,
    MAX_PATTERNS = 4096,
    MAX_INSTRUCTIONS = 16384, /* of the patterns of a field that are no names */
    KEY_SIZE = 1024
};

/* Fields that change what an adapter computes and that are not followed: set to anything but null, false, "", [] and
 * {}, they are refused. */
static const char *const unsupported[] = {
    "alora_invocation_tokens", "arrow_config", "kasa_config", "layer_replication",       "monteclora_config",
    "target_parameters",       "use_bdlora",   "use_qalora",  "trainable_token_indices", "megatron_config",
};

static int is_empty(const pgi_json *node) {
    if (!pgi_json_is_set(node) || pgi_json_is(node, PGI_JSON_FALSE)) return 1;
    if (pgi_json_is(node, PGI_JSON_STRING)) return pgi_json_text_size(node) == 0;
    if (pgi_json_is(node, PGI_JSON_ARRAY)) return pgi_json_n_items(node) == 0;
    return pgi_json_is(node, PGI_JSON_OBJECT) && pgi_json_n_members(node) == 0;
}

static pg_status check_supported(const pgi_json_section *from) {
    const char *type = pgi_json_field_text(from, "peft_type");
    if (!type) return pgi_json_field_wrong(from, PG_ERROR_FORMAT, "peft_type", "\"LORA\"");
    if (strcmp(type, "LORA") != 0)
        return pgi_error(PG_ERROR_UNSUPPORTED, "%s: peft_type: found \"%.40s\", expected \"LORA\"", from->path, type);
    for (size_t i = 0; i < sizeof unsupported / sizeof *unsupported; i++)
        if (!is_empty(pgi_json_field(from, unsupported[i])))
            return pgi_json_field_wrong(from, PG_ERROR_UNSUPPORTED, unsupported[i],
                                        "nothing: this library does not follow it");
    /* These change the weights of the base when PEFT makes the layers, before it loads what was saved. */
    static const char *const changing[] = {"pissa", "olora", "corda", "loftq", "lora_ga"};
    const char *init = pgi_json_field_text(from, "init_lora_weights");
    for (size_t i = 0; init && i < sizeof changing / sizeof *changing; i++)
        if (strncmp(init, changing[i], strlen(changing[i])) == 0)
            return pgi_json_field_wrong(from, PG_ERROR_UNSUPPORTED, "init_lora_weights",
                                        "an adapter of the base as it is (save_pretrained() of PEFT makes one with "
                                        "path_initial_model_for_weight_conversion)");
    return PG_OK;
}

static pg_status read_flag(const pgi_json_section *from, const char *key, int32_t *out) {
    *out = 0;
    return pgi_json_field_is_set(from, key) ? pgi_json_field_bool(from, key, out) : PG_OK;
}

static pg_status read_number(const pgi_json_section *from, const char *key, double otherwise, double *out) {
    const pgi_json *node = pgi_json_field(from, key);
    *out = otherwise;
    if (!pgi_json_is_set(node)) return PG_OK;
    if (!pgi_json_is_number(node)) return pgi_json_field_wrong(from, PG_ERROR_FORMAT, key, "a number");
    *out = pgi_json_number(node);
    return PG_OK;
}

static void free_patterns(const pgi_memory *memory, pgi_adapter_patterns *patterns) {
    for (size_t i = 0; i < patterns->n; i++) {
        pgi_name_pattern_free(patterns->items[i].pattern);
        pgi_free(memory, patterns->items[i].name);
    }
    pgi_free(memory, patterns->items);
    *patterns = (pgi_adapter_patterns){0};
}

/* get_pattern_key() of PEFT: re.match(rf"(.*\.)?({key})$", name). */
static pg_status compile_key(const pgi_memory *memory, const char *where, const char *key, pgi_name_pattern **out) {
    char text[KEY_SIZE + 16];
    const int size = snprintf(text, sizeof text, "(.*\\.)?(%s)$", key);
    if (size < 0 || (size_t)size >= sizeof text)
        return pgi_error(PG_ERROR_LIMIT, "%s: found a pattern of %zu bytes, expected at most %d", where, strlen(key),
                         KEY_SIZE);
    return pgi_name_pattern_compile(memory, where, text, (size_t)size, out);
}

/* Names of modules have letters, digits, "_" and dots; a dot of a pattern is any character. */
static int is_name(const char *key) {
    for (; *key; key++) {
        const char c = *key;
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.'))
            return 0;
    }
    return 1;
}

/* What (.*\.)?(KEY)$ says of a key that is a name. */
static int ends_in(const char *module, const char *key) {
    const size_t size = strlen(module), n = strlen(key);
    if (n > size || (n < size && module[size - n - 1] != '.')) return 0;
    for (size_t i = 0; i < n; i++)
        if (key[i] != '.' && key[i] != module[size - n + i]) return 0;
    return 1;
}

/* rank_pattern, alpha_pattern: {pattern: number}. */
static pg_status read_patterns(const pgi_memory *memory, const pgi_json_section *from, const char *key,
                               pgi_adapter_patterns *out) {
    const pgi_json *node = pgi_json_field(from, key), *value;
    const size_t n = pgi_json_n_members(node);
    size_t n_instructions = 0;
    const char *pattern;
    char where[512];
    if (!pgi_json_is_set(node)) return PG_OK;
    if (!pgi_json_is(node, PGI_JSON_OBJECT))
        return pgi_json_field_wrong(from, PG_ERROR_FORMAT, key, "an object {pattern: number}");
    if (n > MAX_PATTERNS)
        return pgi_error(PG_ERROR_LIMIT, "%s: %s: found %zu patterns, expected at most %d", from->path, key, n,
                         MAX_PATTERNS);
    snprintf(where, sizeof where, "%s: %s", from->path, key);
    out->items = pgi_alloc_zero(memory, n, sizeof *out->items);
    if (!out->items) return PG_ERROR_MEMORY;
    for (size_t i = 0; (value = pgi_json_member(node, i, &pattern)) != NULL; i++) {
        if (!pgi_json_is_number(value))
            return pgi_json_field_wrong_node(from, PG_ERROR_FORMAT, key, value, "numbers behind the patterns");
        out->n = i + 1;
        out->items[i].value = pgi_json_number(value);
        if (is_name(pattern)) {
            out->items[i].name = pgi_copy_string(memory, pattern, strlen(pattern));
            if (!out->items[i].name) return PG_ERROR_MEMORY;
            continue;
        }
        PGI_TRY(compile_key(memory, where, pattern, &out->items[i].pattern));
        n_instructions += pgi_name_pattern_size(out->items[i].pattern);
        if (n_instructions > MAX_INSTRUCTIONS)
            return pgi_error(PG_ERROR_LIMIT,
                             "%s: found patterns of more than %d steps together, expected fewer (names count nothing)",
                             where, MAX_INSTRUCTIONS);
    }
    return PG_OK;
}

static pg_status copy_base(const pgi_memory *memory, const pgi_json_section *from, char **out) {
    const char *base = pgi_json_field_text(from, "base_model_name_or_path");
    *out = NULL;
    if (!base || !*base) return PG_OK;
    *out = pgi_copy_string(memory, base, strlen(base));
    return *out ? PG_OK : PG_ERROR_MEMORY;
}

static pg_status read_config(const pgi_json_section *from, pgi_adapter_config *out) {
    int32_t fan_in_fan_out; /* PEFT sets it to false for linear layers */
    PGI_TRY(check_supported(from));
    PGI_TRY(read_flag(from, "fan_in_fan_out", &fan_in_fan_out));
    out->rank = 8;
    if (pgi_json_field_is_set(from, "r")) PGI_TRY(pgi_json_field_int(from, "r", 1, PGI_MAX_LOW_RANK, &out->rank));
    PGI_TRY(read_number(from, "lora_alpha", 8, &out->alpha));
    PGI_TRY(read_flag(from, "use_rslora", &out->rslora));
    PGI_TRY(read_flag(from, "use_dora", &out->dora));
    PGI_TRY(read_flag(from, "ensure_weight_tying", &out->ties_weights));
    PGI_TRY(read_patterns(&out->memory, from, "rank_pattern", &out->ranks));
    PGI_TRY(read_patterns(&out->memory, from, "alpha_pattern", &out->alphas));
    return copy_base(&out->memory, from, &out->base);
}

/* Calls `read` with the object of the folder's adapter_config.json. */
static pg_status with_config(const pgi_memory *memory, const char *folder,
                             pg_status (*read)(const pgi_json_section *from, pgi_adapter_config *out),
                             pgi_adapter_config *out) {
    pgi_json_doc doc;
    const pgi_json *object = NULL;
    char *path = pgi_path_join(memory, folder, "adapter_config.json");
    if (!path) return PG_ERROR_MEMORY;
    pgi_json_doc_init(&doc, memory);
    pg_status status = pgi_json_load(&doc, path, MAX_CONFIG, PGI_JSON_AS_PYTHON, &object);
    if (status >= 0) status = read(&(pgi_json_section){path, "", object}, out);
    pgi_json_doc_free(&doc);
    pgi_free(memory, path);
    return status;
}

pg_status pgi_adapter_config_load(const pgi_memory *memory, const char *folder, pgi_adapter_config *out) {
    *out = (pgi_adapter_config){.memory = *memory};
    const pg_status status = with_config(memory, folder, read_config, out);
    if (status < 0) pgi_adapter_config_free(out);
    return status;
}

void pgi_adapter_config_free(pgi_adapter_config *config) {
    if (!config->memory.alloc) return;
    free_patterns(&config->memory, &config->ranks);
    free_patterns(&config->memory, &config->alphas);
    pgi_free(&config->memory, config->base);
    *config = (pgi_adapter_config){0};
}

static double pattern_value(pgi_adapter_patterns *patterns, const char *module, double otherwise) {
    for (size_t i = 0; i < patterns->n; i++) {
        const pgi_adapter_pattern *item = &patterns->items[i];
        if (item->name ? ends_in(module, item->name)
                       : pgi_name_pattern_matches(item->pattern, module, strlen(module), 0))
            return item->value;
    }
    return otherwise;
}

double pgi_adapter_config_scale(pgi_adapter_config *config, const char *module, int32_t *rank) {
    const double r = pattern_value(&config->ranks, module, config->rank);
    const double alpha = pattern_value(&config->alphas, module, config->alpha);
    *rank = r >= 1 && r <= PGI_MAX_LOW_RANK ? (int32_t)r : 0;
    return *rank == 0 ? 0 : config->rslora ? alpha / sqrt(r) : alpha / r;
}

static pg_status read_base(const pgi_json_section *from, pgi_adapter_config *out) {
    return copy_base(&out->memory, from, &out->base);
}

pg_status pgi_adapter_config_base(const pgi_memory *memory, const char *folder, char **out) {
    pgi_adapter_config config = {.memory = *memory};
    PGI_TRY(with_config(memory, folder, read_base, &config));
    *out = config.base;
    return PG_OK;
}
