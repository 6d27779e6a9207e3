/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Which modules are trained. Names are matched as PEFT matches them. target_modules: a list by whole names or what
 * follows a dot at the end, a pattern by re.fullmatch(), "all-linear" by kind, the head left out. modules_to_save: by
 * any end of a name, with all modules within it: "norm" means "input_layernorm" too, and "multi_modal_projector" its
 * layer. A name of a list that fits no module is an error, where PEFT goes on with the others: it is a slip that would
 * cost hours.
 *
 * A starts uniform within 1 / sqrt(inputs) (kaiming_uniform_ with a = sqrt 5), B at zero; of an embedding A at zero and
 * B normal. Modules that are trained whole start as the base has them.
 */
#include "train/trained.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "checkpoint/modules.h"
#include "checkpoint/name_pattern.h"
#include "ops/ops.h"
#include "train/random.h"

/* A module under way: one of linear, embedding and norm is not NULL. */
typedef struct trainable {
    const char *name; /* as pgi_module has it */
    pgi_trained_linear *linear;
    pgi_trained_embedding *embedding;
    pgi_trained_norm *norm;
    int is_convolution, is_head;
    int64_t rows, columns; /* of the weight; of a norm rows alone */
} trainable;

typedef struct maker {
    const pg_model *model;
    const pgi_train_choice *choice;
    pgi_parameters *parameters;
    pgi_trained_model *out;
    uint64_t *lora_used, *saved_used; /* [n of the lists]: whether a name fitted */
    int64_t n_lora, n_saved;          /* modules */
    int binding;                      /* 0: parameters are added; 1: they have been made, and are bound */
    uint32_t index;
} maker;

/* ------------------------------------------------------------------------------------------------------- names */

static int ends_with_name(const char *module, const char *name) {
    const size_t size = strlen(module), n = strlen(name);
    if (n == 0 || n > size || strcmp(module + size - n, name) != 0) return 0;
    return n == size || module[size - n - 1] == '.';
}

/* Whether the module, or one that it is within, has a name that ends so. */
static int is_within(const char *module, const char *name) {
    const size_t n = strlen(name);
    for (size_t end = strcspn(module, "."); n > 0; end += 1 + strcspn(module + end + 1, ".")) {
        if (n <= end && strncmp(module + end - n, name, n) == 0) return 1;
        if (!module[end]) return 0;
    }
    return 0;
}

static int is_saved(const maker *m, const char *module) {
    int found = 0;
    for (size_t i = 0; i < m->choice->saved.n; i++) {
        if (!is_within(module, m->choice->saved.names[i])) continue;
        m->saved_used[i] = 1;
        found = 1;
    }
    return found;
}

static int is_named(const pgi_train_targets *targets, const char *module, uint64_t *used) {
    int found = 0;
    for (size_t i = 0; i < targets->n; i++) {
        if (!ends_with_name(module, targets->names[i])) continue;
        used[i] = 1;
        found = 1;
    }
    return found;
}

static int gets_lora(const maker *m, const trainable *t) {
    const pgi_train_targets *of = &m->choice->lora;
    if (m->choice->rank == 0) return 0;
    if (of->all_linear) return t->linear && !t->is_convolution && !t->is_head;
    if (of->pattern) return pgi_name_pattern_matches(of->pattern, t->name, strlen(t->name), 1);
    return is_named(of, t->name, m->lora_used);
}

/* -------------------------------------------------------------------------------------------------- parameters */

enum { MAX_NAME = 160 };

static void full_name(const trainable *t, const char *end, char out[MAX_NAME]) {
    snprintf(out, MAX_NAME, "base_model.model.%s%s", t->name, end);
}

/* Adds a parameter, or finds it once the vectors are there. */
static pg_status parameter(const maker *m, const trainable *t, const char *end, int32_t n_dims, const int64_t *shape,
                           int decays, const pgi_parameter **out) {
    char name[MAX_NAME];
    full_name(t, end, name);
    if (!m->binding) return pgi_parameters_add(m->parameters, name, n_dims, shape, decays);
    *out = pgi_parameters_find(m->parameters, name);
    return *out ? PG_OK : pgi_error(PG_ERROR_INTERNAL, "%s: found no such parameter", name);
}

static float *values_of(const maker *m, const pgi_parameter *p) { return m->parameters->values + p->at; }

/* A counter of its own for each value of each parameter. */
static uint64_t first_counter(const maker *m, const pgi_parameter *p) {
    return pgi_mix64(pgi_mix64(m->choice->seed) + p->at);
}

static void fill_uniform(const maker *m, const pgi_parameter *p, double bound) {
    const uint64_t counter = first_counter(m, p);
    for (size_t i = 0; i < p->n; i++) values_of(m, p)[i] = (float)(bound * (2 * pgi_mix_unit(counter + i) - 1));
}

/* Box and Muller: two uniform numbers to a normal one. */
static void fill_normal(const maker *m, const pgi_parameter *p) {
    const uint64_t counter = first_counter(m, p);
    for (size_t i = 0; i < p->n; i++) {
        const double u = 1 - pgi_mix_unit(counter + 2 * i),
                     angle = 6.283185307179586 * pgi_mix_unit(counter + 2 * i + 1);
        values_of(m, p)[i] = (float)(sqrt(-2 * log(u)) * cos(angle));
    }
}

static pg_status add_linear_lora(maker *m, const trainable *t) {
    pgi_trained_linear *l = t->linear;
    const int64_t rank = m->choice->rank, patch = m->model->config.vision.patch_size;
    const int64_t a[] = {rank, t->columns}, b[] = {t->rows, rank};
    const int64_t conv_a[] = {rank, 3, patch, patch}, conv_b[] = {t->rows, rank, 1, 1};
    const int32_t n_dims = t->is_convolution ? 4 : 2;
    PGI_TRY(parameter(m, t, ".lora_A.weight", n_dims, t->is_convolution ? conv_a : a, 1, &l->a));
    PGI_TRY(parameter(m, t, ".lora_B.weight", n_dims, t->is_convolution ? conv_b : b, 1, &l->b));
    if (!m->binding) return PG_OK;
    l->rank = rank;
    l->scale = m->choice->scale;
    fill_uniform(m, l->a, 1 / sqrt((double)t->columns));
    return PG_OK;
}

/* nn.Embedding(vocab_size, hidden_size, padding_idx=text_config.pad_token_id) of HF's GemmaModel. */
static int64_t padding_of(const maker *m, const pgi_trained_embedding *e) {
    const pgi_json *id = pgi_config_field(&m->model->config, "text_config.pad_token_id");
    return e == &m->out->embedding && id && id->kind == PGI_JSON_INTEGER ? pgi_json_integer(id) : -1;
}

static pg_status add_embedding_lora(maker *m, const trainable *t) {
    pgi_trained_embedding *e = t->embedding;
    const int64_t rank = m->choice->rank;
    PGI_TRY(parameter(m, t, ".lora_embedding_A", 2, (int64_t[]){rank, t->rows}, 1, &e->a));
    PGI_TRY(parameter(m, t, ".lora_embedding_B", 2, (int64_t[]){t->columns, rank}, 1, &e->b));
    if (!m->binding) return PG_OK;
    e->rank = rank;
    e->scale = m->choice->scale;
    e->padding = padding_of(m, e);
    fill_normal(m, e->b);
    return PG_OK;
}

static pg_status add_whole_linear(maker *m, const trainable *t) {
    pgi_trained_linear *l = t->linear;
    const int64_t shape[] = {t->rows, t->columns}, patch = m->model->config.vision.patch_size;
    const int64_t conv[] = {t->rows, 3, patch, patch};
    PGI_TRY(parameter(m, t, ".weight", t->is_convolution ? 4 : 2, t->is_convolution ? conv : shape, 1, &l->weight));
    if (l->frozen.bias) PGI_TRY(parameter(m, t, ".bias", 1, shape, 0, &l->bias));
    if (!m->binding) return PG_OK;
    for (int64_t i = 0; i < t->rows; i++)
        pgi_matrix_row(&m->model->kernels, &l->frozen.weight, i, 1, values_of(m, l->weight) + i * t->columns);
    if (l->bias) memcpy(values_of(m, l->bias), l->frozen.bias, (size_t)t->rows * sizeof(float));
    return PG_OK;
}

static pg_status add_whole_positions(maker *m, const trainable *t) {
    pgi_trained_embedding *e = t->embedding;
    PGI_TRY(parameter(m, t, ".weight", 2, (int64_t[]){t->rows, t->columns}, 1, &e->weight));
    for (int64_t i = 0; i < t->rows && m->binding; i++)
        pgi_matrix_row(&m->model->kernels, e->frozen, i, 1, values_of(m, e->weight) + i * t->columns);
    return PG_OK;
}

static pg_status add_whole_norm(maker *m, const trainable *t) {
    pgi_trained_norm *n = t->norm;
    PGI_TRY(parameter(m, t, ".weight", 1, &t->rows, 0, &n->weight));
    if (n->frozen_bias) PGI_TRY(parameter(m, t, ".bias", 1, &t->rows, 0, &n->bias));
    if (!m->binding) return PG_OK;
    memcpy(values_of(m, n->weight), n->frozen_weight, (size_t)t->rows * sizeof(float));
    if (n->bias) memcpy(values_of(m, n->bias), n->frozen_bias, (size_t)t->rows * sizeof(float));
    return PG_OK;
}

static pg_status no_training(const trainable *t, const char *option, const char *expected) {
    return pgi_error(PG_ERROR_UNSUPPORTED, "%s: found %s, expected %s", option, t->name, expected);
}

static pg_status choose(maker *m, const trainable *t) {
    const int saved = is_saved(m, t->name), lora = gets_lora(m, t);
    if (!saved && !lora) return PG_OK;
    *(saved ? &m->n_saved : &m->n_lora) += 1;
    if (saved && (t->is_head || t->embedding == &m->out->embedding))
        return no_training(t, "modules_to_save", "other modules; the embedding of tokens and the head can have LoRA");
    if (saved)
        return t->norm ? add_whole_norm(m, t) : t->embedding ? add_whole_positions(m, t) : add_whole_linear(m, t);
    if (t->norm)
        return no_training(t, "target_modules", "linear layers and embeddings; a norm can be in modules_to_save");
    return t->embedding ? add_embedding_lora(m, t) : add_linear_lora(m, t);
}

/* ----------------------------------------------------------------------------------------------------- modules */

/* Finds the module in the base, sets what is frozen of it, and chooses. */
static pg_status visit(maker *m, trainable t, const char *name) {
    pgi_weights weights = m->model->weights; /* pgi_module_find() wants a table that may be changed */
    pgi_module module;
    char tensor[MAX_NAME];
    snprintf(tensor, sizeof tensor, "%s.weight", name);
    if (!pgi_module_find(&weights, &m->model->config, tensor, &module))
        return pgi_error(PG_ERROR_INTERNAL, "%s: found no such module", name);
    t.name = module.name;
    t.is_convolution = module.is_convolution;
    if (t.linear) {
        t.linear->frozen = *module.linear;
        t.linear->index = m->index++;
        t.rows = module.linear->weight.rows;
        t.columns = module.linear->weight.columns;
    } else if (t.embedding) {
        t.embedding->frozen = module.matrix == &weights.text.embedding ? &m->model->weights.text.embedding
                                                                       : &m->model->weights.vision.position;
        t.rows = module.matrix->rows;
        t.columns = module.matrix->columns;
    } else {
        t.norm->frozen_weight = *module.weight;
        t.norm->frozen_bias = module.bias ? *module.bias : NULL;
        t.rows = module.n;
    }
    return choose(m, &t);
}

/* A member of a layer, by its place in the struct. */
typedef struct member {
    const char *name;
    size_t at;
    int is_norm;
} member;

static const member vision_members[] = {
    {"layer_norm1", offsetof(pgi_trained_vision_layer, norm1), 1},
    {"layer_norm2", offsetof(pgi_trained_vision_layer, norm2), 1},
    {"self_attn.q_proj", offsetof(pgi_trained_vision_layer, q), 0},
    {"self_attn.k_proj", offsetof(pgi_trained_vision_layer, k), 0},
    {"self_attn.v_proj", offsetof(pgi_trained_vision_layer, v), 0},
    {"self_attn.out_proj", offsetof(pgi_trained_vision_layer, out), 0},
    {"mlp.fc1", offsetof(pgi_trained_vision_layer, fc1), 0},
    {"mlp.fc2", offsetof(pgi_trained_vision_layer, fc2), 0},
};
static const member text_members[] = {
    {"input_layernorm", offsetof(pgi_trained_text_layer, input_norm), 1},
    {"post_attention_layernorm", offsetof(pgi_trained_text_layer, post_attention_norm), 1},
    {"self_attn.q_proj", offsetof(pgi_trained_text_layer, q), 0},
    {"self_attn.k_proj", offsetof(pgi_trained_text_layer, k), 0},
    {"self_attn.v_proj", offsetof(pgi_trained_text_layer, v), 0},
    {"self_attn.o_proj", offsetof(pgi_trained_text_layer, out), 0},
    {"mlp.gate_proj", offsetof(pgi_trained_text_layer, gate), 0},
    {"mlp.up_proj", offsetof(pgi_trained_text_layer, up), 0},
    {"mlp.down_proj", offsetof(pgi_trained_text_layer, down), 0},
    {"pre_feedforward_layernorm", offsetof(pgi_trained_text_layer, pre_mlp_norm), 1}, /* Gemma 2 from here */
    {"post_feedforward_layernorm", offsetof(pgi_trained_text_layer, post_mlp_norm), 1},
};
enum {
    N_VISION = sizeof vision_members / sizeof *vision_members,
    N_TEXT = sizeof text_members / sizeof *text_members,
    N_TEXT_OF_1 = N_TEXT - 2
};

static pg_status visit_layer(maker *m, const char *prefix, const member *members, int n, int32_t layer, void *of) {
    for (int i = 0; i < n; i++) {
        char name[MAX_NAME];
        void *at = (char *)of + members[i].at;
        const trainable t = {.linear = members[i].is_norm ? NULL : at, .norm = members[i].is_norm ? at : NULL};
        snprintf(name, sizeof name, "%s.layers.%d.%s", prefix, (int)layer, members[i].name);
        PGI_TRY(visit(m, t, name));
    }
    return PG_OK;
}

static pg_status visit_all(maker *m) {
    pgi_trained_model *out = m->out;
    const pgi_config *config = &m->model->config;
    m->n_lora = m->n_saved = 0;
    m->index = 0;
    PGI_TRY(visit(m, (trainable){.linear = &out->patch}, "model.vision_tower.embeddings.patch_embedding"));
    PGI_TRY(visit(m, (trainable){.embedding = &out->position}, "model.vision_tower.embeddings.position_embedding"));
    for (int32_t i = 0; i < config->vision.n_layers; i++)
        PGI_TRY(visit_layer(m, "model.vision_tower.encoder", vision_members, N_VISION, i, &out->vision[i]));
    PGI_TRY(visit(m, (trainable){.norm = &out->vision_norm}, "model.vision_tower.post_layernorm"));
    PGI_TRY(visit(m, (trainable){.linear = &out->projector}, "model.multi_modal_projector.linear"));
    PGI_TRY(visit(m, (trainable){.embedding = &out->embedding}, "model.language_model.embed_tokens"));
    const int n_text = config->text.gemma_version == 2 ? N_TEXT : N_TEXT_OF_1;
    for (int32_t i = 0; i < config->text.n_layers; i++)
        PGI_TRY(visit_layer(m, "model.language_model", text_members, n_text, i, &out->text[i]));
    PGI_TRY(visit(m, (trainable){.norm = &out->norm}, "model.language_model.norm"));
    return visit(m, (trainable){.linear = &out->head, .is_head = 1}, "lm_head");
}

/* --------------------------------------------------------------------------------------- where gradients must go */

static int is_trained_linear(const pgi_trained_linear *l) { return l->a || l->weight; }

static int is_trained_layer(const member *members, int n, const void *layer) {
    for (int i = 0; i < n; i++) {
        const void *at = (const char *)layer + members[i].at;
        if (members[i].is_norm ? ((const pgi_trained_norm *)at)->weight != NULL : is_trained_linear(at)) return 1;
    }
    return 0;
}

/* The lowest of n layers, `size` bytes each, with parameters in it or below; n: there is none. */
static int32_t lowest(int below, const member *members, int n_members, const void *layers, size_t size, int32_t n) {
    int32_t i = 0;
    while (!below && i < n && !is_trained_layer(members, n_members, (const char *)layers + (size_t)i * size)) i++;
    return i;
}

static void find_depth(pgi_trained_model *out) {
    const pgi_config *config = &out->model->config;
    out->trains_patches = is_trained_linear(&out->patch) || out->position.a || out->position.weight;
    out->first_vision = lowest(out->trains_patches, vision_members, N_VISION, out->vision, sizeof *out->vision,
                               config->vision.n_layers);
    out->trains_encoder = out->first_vision < config->vision.n_layers || out->vision_norm.weight;
    out->trains_features = out->trains_encoder || is_trained_linear(&out->projector);
    out->trains_embedding = out->embedding.a != NULL;
    out->first_text = lowest(out->trains_features || out->trains_embedding, text_members, N_TEXT, out->text,
                             sizeof *out->text, config->text.n_layers);
}

static pg_status check_names(const char *option, const pgi_train_targets *targets, const uint64_t *used) {
    for (size_t i = 0; i < targets->n; i++)
        if (!used[i])
            return pgi_error(PG_ERROR_ARGUMENT,
                             "%s: found \"%.100s\", which is no module of the model, nor the end of the name of one; "
                             "expected names such as q_proj or multi_modal_projector.linear",
                             option, targets->names[i]);
    return PG_OK;
}

static pg_status make(maker *m) {
    PGI_TRY(visit_all(m));
    if (m->choice->rank > 0) PGI_TRY(check_names("target_modules", &m->choice->lora, m->lora_used));
    PGI_TRY(check_names("modules_to_save", &m->choice->saved, m->saved_used));
    if (m->choice->rank > 0 && m->n_lora == 0)
        return pgi_error(PG_ERROR_ARGUMENT,
                         "target_modules: found a choice that fits no module of the model but those of "
                         "modules_to_save, expected one that fits some, or the rank 0");
    if (m->n_lora + m->n_saved == 0)
        return pgi_error(PG_ERROR_ARGUMENT, "modules_to_save: found none, and the rank 0, expected modules to train");
    PGI_TRY(pgi_parameters_make(m->parameters));
    m->binding = 1;
    PGI_TRY(visit_all(m));
    m->out->max_rank = m->choice->rank;
    find_depth(m->out);
    return PG_OK;
}

pg_status pgi_trained_make(const pg_model *model, const pgi_train_choice *choice, pgi_parameters *parameters,
                           pgi_trained_model *out) {
    const pgi_memory *memory = &model->memory;
    *out = (pgi_trained_model){.model = model};
    maker m = {.model = model, .choice = choice, .parameters = parameters, .out = out};
    out->vision = pgi_alloc_zero(memory, (size_t)model->config.vision.n_layers, sizeof *out->vision);
    out->text = pgi_alloc_zero(memory, (size_t)model->config.text.n_layers, sizeof *out->text);
    m.lora_used = pgi_alloc_zero(memory, choice->lora.n, sizeof *m.lora_used);
    m.saved_used = pgi_alloc_zero(memory, choice->saved.n, sizeof *m.saved_used);
    const pg_status status = out->vision && out->text && m.lora_used && m.saved_used ? make(&m) : PG_ERROR_MEMORY;
    pgi_free(memory, m.lora_used);
    pgi_free(memory, m.saved_used);
    return status;
}

void pgi_trained_free(pgi_trained_model *trained) {
    if (!trained->model) return;
    pgi_free(&trained->model->memory, trained->vision);
    pgi_free(&trained->model->memory, trained->text);
    *trained = (pgi_trained_model){0};
}
