/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* pgi_module_find(): a module by a tensor's name. */
#include "checkpoint/modules.h"

#include <stdio.h>
#include <string.h>

#include "checkpoint/weight_names.h"

/* Whether `name` is `module` and then ".weight" or ".bias". */
static int is_of(const char *name, const char *module) {
    if (!pgi_skip_prefix(&name, module)) return 0;
    return strcmp(name, ".weight") == 0 || strcmp(name, ".bias") == 0;
}

/* Reads "layers.N." and leaves the name behind it; n layers. */
static int skip_layer(const char **name, int32_t n, int32_t *layer) {
    int32_t value = 0;
    const char *at = *name;
    if (!pgi_skip_prefix(&at, "layers.")) return 0;
    const char *digits = at;
    while (*at >= '0' && *at <= '9' && value < n) value = value * 10 + (*at++ - '0');
    if (at == digits || (*digits == '0' && at > digits + 1) || *at != '.' || value >= n) return 0;
    *layer = value;
    *name = at + 1;
    return 1;
}

/* One of a table of linear layers that fits `name`, or NULL. */
typedef struct named_linear {
    const char *name;
    pgi_linear *linear;
} named_linear;
static pgi_linear *find_linear(const named_linear *table, int n, const char *name) {
    for (int i = 0; i < n; i++)
        if (is_of(name, table[i].name)) return table[i].linear;
    return NULL;
}

static int find_in_vision_layer(pgi_vision_layer *l, const char *name, pgi_module *out) {
    const named_linear linears[] = {{"self_attn.q_proj", &l->q}, {"self_attn.k_proj", &l->k},
                                    {"self_attn.v_proj", &l->v}, {"self_attn.out_proj", &l->out},
                                    {"mlp.fc1", &l->fc1},        {"mlp.fc2", &l->fc2}};
    out->linear = find_linear(linears, sizeof linears / sizeof *linears, name);
    if (out->linear) return 1;
    const int first = is_of(name, "layer_norm1");
    if (!first && !is_of(name, "layer_norm2")) return 0;
    out->weight = first ? &l->norm1_weight : &l->norm2_weight;
    out->bias = first ? &l->norm1_bias : &l->norm2_bias;
    return 1;
}

static int find_in_vision(pgi_weights *weights, const pgi_config *config, const char *name, pgi_module *out) {
    pgi_vision_weights *vision = &weights->vision;
    int32_t layer;
    out->is_vision = 1;
    out->n = config->vision.hidden_size;
    if (is_of(name, "embeddings.patch_embedding")) {
        out->linear = &vision->patch;
        out->is_convolution = 1;
        return 1;
    }
    if (strcmp(name, "embeddings.position_embedding.weight") == 0) {
        out->matrix = &vision->position;
        return 1;
    }
    if (is_of(name, "post_layernorm")) {
        out->weight = &vision->norm_weight;
        out->bias = &vision->norm_bias;
        return 1;
    }
    return pgi_skip_prefix(&name, "encoder.") && skip_layer(&name, config->vision.n_layers, &layer) &&
           find_in_vision_layer(&vision->layers[layer], name, out);
}

static int find_in_text_layer(pgi_text_layer *l, int gemma_version, const char *name, pgi_module *out) {
    const named_linear linears[] = {{"self_attn.q_proj", &l->q}, {"self_attn.k_proj", &l->k},
                                    {"self_attn.v_proj", &l->v}, {"self_attn.o_proj", &l->out},
                                    {"mlp.gate_proj", &l->gate}, {"mlp.up_proj", &l->up},
                                    {"mlp.down_proj", &l->down}};
    out->linear = find_linear(linears, sizeof linears / sizeof *linears, name);
    if (out->linear) return 1;
    if (strcmp(name, "input_layernorm.weight") == 0)
        out->weight = &l->input_norm;
    else if (strcmp(name, "post_attention_layernorm.weight") == 0)
        out->weight = &l->post_attention_norm;
    else if (gemma_version == 2 && strcmp(name, "pre_feedforward_layernorm.weight") == 0)
        out->weight = &l->pre_mlp_norm;
    else if (gemma_version == 2 && strcmp(name, "post_feedforward_layernorm.weight") == 0)
        out->weight = &l->post_mlp_norm;
    return out->weight != NULL;
}

static int find_in_text(pgi_weights *weights, const pgi_config *config, const char *name, pgi_module *out) {
    int32_t layer;
    out->n = config->text.hidden_size;
    if (strcmp(name, "embed_tokens.weight") == 0) {
        out->matrix = &weights->text.embedding;
        return 1;
    }
    if (strcmp(name, "norm.weight") == 0) {
        out->weight = &weights->text.norm;
        return 1;
    }
    return skip_layer(&name, config->text.n_layers, &layer) &&
           find_in_text_layer(&weights->text.layers[layer], config->text.gemma_version, name, out);
}

/* The name without its last word, as transformers 5.23 has it. */
static int set_name(pgi_weight_part part, const char *rest, pgi_module *out) {
    static const char *const prefix[] = {"model.vision_tower.", "model.multi_modal_projector.", "model.language_model.",
                                         "lm_head.", "embedding_proj_layer."};
    const char *last = strrchr(rest, '.');
    const size_t of_rest = last ? (size_t)(last - rest) : 0, of_prefix = strlen(prefix[part]);
    const size_t size = of_rest ? of_prefix + of_rest : of_prefix - 1; /* the dot is between them */
    if (size >= sizeof out->name) return 0;
    snprintf(out->name, sizeof out->name, "%s%s", prefix[part], rest);
    out->name[size] = 0;
    return 1;
}

int pgi_module_find(pgi_weights *weights, const pgi_config *config, const char *tensor, pgi_module *out) {
    pgi_weight_part part;
    const char *rest;
    int found = 0;
    memset(out, 0, sizeof *out);
    if (!pgi_weight_name_split(tensor, config->embedding_dim > 0, &part, &rest) || !set_name(part, rest, out)) return 0;
    switch (part) {
        case PGI_NAME_VISION: return find_in_vision(weights, config, rest, out);
        case PGI_NAME_TEXT: return find_in_text(weights, config, rest, out);
        case PGI_NAME_PROJECTOR:
            found = is_of(rest, "linear");
            out->is_vision = 1;
            out->linear = &weights->projector;
            return found;
        case PGI_NAME_HEAD: out->linear = &weights->text.head; return strcmp(rest, "weight") == 0;
        case PGI_NAME_RETRIEVAL:
            out->linear = &weights->retrieval;
            return weights->retrieval.weight.data && (strcmp(rest, "weight") == 0 || strcmp(rest, "bias") == 0);
    }
    return 0;
}
