/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Binds tensors to roles, by their names as weight_names.h reduces them. */
#include "checkpoint/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/shape.h"
#include "checkpoint/diagnose_tensors.h"
#include "checkpoint/quantized_store.h"
#include "checkpoint/weight_names.h"

enum { MOST_VALUES = 1 << 20 }; /* of a vector; longer ones belong to no model */

typedef pgi_weight_part part;

/* How a missing tensor is named in messages: the layout of the official checkpoints. */
static const char *const part_prefix[] = {"vision_tower.vision_model.", "multi_modal_projector.",
                                          "language_model.model.", "lm_head.", "embedding_proj_layer."};

typedef struct named_tensor {
    part part;
    const char *rest; /* within tensor->name */
    pgi_stored_tensor *tensor;
} named_tensor;

typedef struct binder {
    const pgi_run *run;
    const pgi_config *config;
    pgi_tensor_files *files;
    named_tensor *names; /* sorted by part and rest */
    size_t n_names;
    float *vectors; /* the next free f32 of the arena, and its end */
    float *vectors_end;
    int64_t n_done, n_total;
    int loads; /* whether matrices are used as they are, and loaded where they are not mapped */
    pgi_weights *out;
} binder;

static int by_name(const void *a, const void *b) {
    const named_tensor *x = a, *y = b;
    if (x->part != y->part) return x->part < y->part ? -1 : 1;
    return strcmp(x->rest, y->rest);
}

static pg_status same_contents(const pgi_tensor_files *files, const pgi_stored_tensor *a, const pgi_stored_tensor *b,
                               int *same) {
    *same = a->dtype && a->dtype == b->dtype && a->n_dims == b->n_dims &&
            memcmp(a->shape, b->shape, sizeof a->shape) == 0 && a->n_bytes == b->n_bytes;
    return *same ? pgi_tensor_files_same_bytes(files, a, b, same) : PG_OK;
}

/* Sorts the names, and measures the arena: every 1-d tensor is counted, so it is bounded by the files. */
static pg_status collect_names(const pgi_memory *memory, binder *b, size_t *n_floats) {
    size_t n = pgi_tensor_files_count(b->files), n_kept = 0;
    *n_floats = 0;
    b->names = pgi_alloc(memory, n, sizeof *b->names);
    if (!b->names) return PG_ERROR_MEMORY;
    for (size_t i = 0; i < n; i++) {
        pgi_stored_tensor *tensor = pgi_tensor_files_at(b->files, i);
        named_tensor *name = &b->names[b->n_names];
        tensor->used = 0;
        if (!pgi_weight_name_split(tensor->name, b->config->embedding_dim > 0, &name->part, &name->rest)) continue;
        name->tensor = tensor;
        b->n_names++;
        if (tensor->n_dims == 1 && tensor->shape[0] <= MOST_VALUES && pgi_dtype_size(tensor->dtype) > 0)
            *n_floats += ((size_t)tensor->shape[0] + 15) / 16 * 16;
    }
    qsort(b->names, b->n_names, sizeof *b->names, by_name);
    for (size_t i = 0; i < b->n_names; i++) {
        if (n_kept == 0 || by_name(&b->names[n_kept - 1], &b->names[i]) != 0) {
            b->names[n_kept++] = b->names[i];
            continue;
        }
        const pgi_stored_tensor *first = b->names[n_kept - 1].tensor, *second = b->names[i].tensor;
        int same;
        PGI_TRY(same_contents(b->files, first, second, &same));
        if (!same)
            return pgi_error(PG_ERROR_FORMAT,
                             "%s: tensor %s: found another with different contents under the name %s, expected one",
                             second->file, second->name, first->name);
    }
    b->n_names = n_kept;
    return PG_OK;
}

static pgi_stored_tensor *find(const binder *b, part where, const char *rest) {
    named_tensor key = {where, rest, NULL};
    const named_tensor *found = b->n_names ? bsearch(&key, b->names, b->n_names, sizeof key, by_name) : NULL;
    return found ? found->tensor : NULL;
}

static pg_status missing(const binder *b, part where, const char *rest, const char *expected) {
    pg_status status = pgi_error(PG_ERROR_NOT_FOUND, "%s: tensor %s%s: found under none of its names, expected %s",
                                 pgi_tensor_files_folder(b->files), part_prefix[where], rest, expected);
    return pgi_diagnose_tensors(status, b->files, b->config->embedding_dim > 0);
}

/* What no role takes: PG_ERROR_UNSUPPORTED. */
static pg_status wrong_dtype(const binder *b, const pgi_stored_tensor *tensor) {
    pgi_tensor_file_info file = pgi_tensor_files_file(b->files, tensor->file_index);
    const char *format = pgi_json_text(pgi_json_get(file.metadata, "format"));
    return pgi_error(PG_ERROR_UNSUPPORTED,
                     "%s: tensor %s: found dtype %.20s%s%.40s%s, expected F32, BF16 or F16 (of quantized checkpoints, "
                     "those that pg_model_convert() wrote are supported)",
                     tensor->file, tensor->name, tensor->dtype_name, format ? " in a file of the format \"" : "",
                     format ? format : "", format ? "\"" : "");
}

/* The tensor `rest` of a part, of exactly this shape; a size of -1 is free (and at least 1). Counts it. */
static pg_status take(binder *b, part where, const char *rest, int may_be_blocks, int n_dims, const int64_t *shape,
                      pgi_stored_tensor **out) {
    char expected[PGI_SHAPE_TEXT + 8], found[PGI_SHAPE_TEXT];
    pgi_shape_text(n_dims, shape, ", ", found);
    snprintf(expected, sizeof expected, "%s%s", shape[0] < 0 ? "[any" : "", shape[0] < 0 ? strchr(found, ',') : found);
    pgi_stored_tensor *tensor = find(b, where, rest);
    if (!tensor) return missing(b, where, rest, expected);
    int blocks = pgi_dtype_is_blocks(tensor->dtype);
    if (blocks ? !may_be_blocks
               : tensor->dtype != PG_DTYPE_F32 && tensor->dtype != PG_DTYPE_BF16 && tensor->dtype != PG_DTYPE_F16)
        return wrong_dtype(b, tensor);
    if (may_be_blocks && !blocks && b->out->format != PG_WEIGHTS_STORED)
        return pgi_error(PG_ERROR_FORMAT, "%s: tensor %s: found dtype %s, expected quantized blocks as in its like",
                         tensor->file, tensor->name, tensor->dtype_name);
    if (!pgi_stored_tensor_has_shape(tensor, n_dims, shape))
        return pgi_diagnose_tensors(
            pgi_error(PG_ERROR_FORMAT, "%s: tensor %s: found shape %s, expected %s as config.json says", tensor->file,
                      tensor->name, pgi_shape_text(tensor->n_dims, tensor->shape, ", ", found), expected),
            b->files, b->config->embedding_dim > 0);
    if (!tensor->used) {
        b->out->n_parameters += (uint64_t)pgi_stored_tensor_values(tensor);
        tensor->used = (int32_t)++b->out->n_tensors;
        if (!blocks) b->out->dtypes |= 1u << tensor->dtype;
    }
    b->n_done++;
    *out = tensor;
    return pgi_run_progress(b->run, PG_PHASE_LOAD, b->n_done < b->n_total ? b->n_done : b->n_total, b->n_total);
}

/* A tensor as a matrix of so many columns. */
static pg_status set_matrix(binder *b, pgi_stored_tensor *tensor, int loads, int64_t columns, pgi_matrix *out) {
    if (loads) PGI_TRY(pgi_tensor_files_load(b->files, b->run->cancel, tensor));
    *out = (pgi_matrix){tensor->data, tensor->dtype, tensor->shape[0], columns, tensor};
    return PG_OK;
}

static pg_status take_matrix(binder *b, part where, const char *rest, int64_t rows, int64_t columns, pgi_matrix *out) {
    pgi_stored_tensor *tensor;
    PGI_TRY(take(b, where, rest, 1, 2, (int64_t[]){rows, columns}, &tensor));
    return set_matrix(b, tensor, b->loads, tensor->shape[1], out);
}

/* A vector becomes f32 in the arena: [n]. */
static pg_status take_vector(binder *b, part where, const char *rest, int64_t n, const float **out) {
    pgi_stored_tensor *tensor;
    PGI_TRY(take(b, where, rest, 0, 1, &n, &tensor));
    size_t taken = ((size_t)n + 15) / 16 * 16; /* each starts on a cache line */
    if (taken > (size_t)(b->vectors_end - b->vectors))
        return pgi_error(PG_ERROR_INTERNAL, "%s: tensor %s: the arena is too small for %lld values", tensor->file,
                         tensor->name, (long long)n);
    PGI_TRY(pgi_tensor_files_read_f32(b->files, tensor, 0, n, b->vectors));
    *out = b->vectors;
    b->vectors += taken;
    b->out->n_bytes_copied += (size_t)n * sizeof(float);
    return PG_OK;
}

/* A linear layer `rest`.weight [out, in] and, when asked for, `rest`.bias [out]. */
static pg_status take_linear(binder *b, part where, const char *rest, int64_t n_out, int64_t n_in, int has_bias,
                             pgi_linear *out) {
    char name[160];
    snprintf(name, sizeof name, "%s.weight", rest);
    PGI_TRY(take_matrix(b, where, name, n_out, n_in, &out->weight));
    out->bias = NULL;
    if (!has_bias) return PG_OK;
    snprintf(name, sizeof name, "%s.bias", rest);
    return take_vector(b, where, name, n_out, &out->bias);
}

static pg_status take_layer_norm(binder *b, const char *rest, int64_t n, const float **weight, const float **bias) {
    char name[160];
    snprintf(name, sizeof name, "%s.weight", rest);
    PGI_TRY(take_vector(b, PGI_NAME_VISION, name, n, weight));
    snprintf(name, sizeof name, "%s.bias", rest);
    return take_vector(b, PGI_NAME_VISION, name, n, bias);
}

static pg_status bind_vision_layer(binder *b, int32_t index, pgi_vision_layer *layer) {
    const pgi_vision_config *config = &b->config->vision;
    int64_t hidden = config->hidden_size, inner = config->intermediate_size;
    char name[128];
#define NAME(suffix) (snprintf(name, sizeof name, "encoder.layers.%d." suffix, index), name)
    PGI_TRY(take_layer_norm(b, NAME("layer_norm1"), hidden, &layer->norm1_weight, &layer->norm1_bias));
    PGI_TRY(take_linear(b, PGI_NAME_VISION, NAME("self_attn.q_proj"), hidden, hidden, 1, &layer->q));
    PGI_TRY(take_linear(b, PGI_NAME_VISION, NAME("self_attn.k_proj"), hidden, hidden, 1, &layer->k));
    PGI_TRY(take_linear(b, PGI_NAME_VISION, NAME("self_attn.v_proj"), hidden, hidden, 1, &layer->v));
    PGI_TRY(take_linear(b, PGI_NAME_VISION, NAME("self_attn.out_proj"), hidden, hidden, 1, &layer->out));
    PGI_TRY(take_layer_norm(b, NAME("layer_norm2"), hidden, &layer->norm2_weight, &layer->norm2_bias));
    PGI_TRY(take_linear(b, PGI_NAME_VISION, NAME("mlp.fc1"), inner, hidden, 1, &layer->fc1));
    return take_linear(b, PGI_NAME_VISION, NAME("mlp.fc2"), hidden, inner, 1, &layer->fc2);
#undef NAME
}

/* Whether the patch convolution is stored as MLX has it: [hidden, patch, patch, 3]. Patches of 3 x 3 look the same both
 * ways; then "format": "mlx" in the file's metadata decides. */
static int is_channels_last(const binder *b, const pgi_stored_tensor *tensor) {
    const pgi_vision_config *config = &b->config->vision;
    if (tensor->n_dims != 4 || pgi_dtype_is_blocks(tensor->dtype) || tensor->shape[0] != config->hidden_size ||
        tensor->shape[1] != config->patch_size || tensor->shape[2] != config->patch_size ||
        tensor->shape[3] != config->n_channels)
        return 0;
    if (config->patch_size != config->n_channels) return 1;
    const pgi_tensor_file_info file = pgi_tensor_files_file(b->files, tensor->file_index);
    const char *format = pgi_json_text(pgi_json_get(file.metadata, "format"));
    return format && strcmp(format, "mlx") == 0;
}

/* [hidden, patch, patch, 3] to [hidden, 3, patch, patch]; the copy takes the place of what the file has. */
static pg_status move_channels_first(binder *b, pgi_stored_tensor *tensor) {
    const size_t element = pgi_dtype_size(tensor->dtype), n_channels = (size_t)tensor->shape[3];
    const size_t n_pixels = (size_t)(tensor->shape[1] * tensor->shape[2]);
    if (element == 0) return PG_OK; /* another dtype, refused by take() */
    uint8_t *stored = pgi_alloc(b->out->memory, tensor->n_bytes, 1);
    uint8_t *copy = pgi_alloc(b->out->memory, tensor->n_bytes, 1), *to = copy;
    pg_status status = stored && copy ? PG_OK : PG_ERROR_MEMORY;
    if (status >= 0) status = pgi_tensor_files_read(b->files, tensor, 0, tensor->n_bytes, stored);
    const uint8_t *from = stored;
    for (int64_t o = 0; status >= 0 && o < tensor->shape[0]; o++, from += n_channels * n_pixels * element)
        for (size_t c = 0; c < n_channels; c++)
            for (size_t i = 0; i < n_pixels; i++, to += element)
                memcpy(to, from + (i * n_channels + c) * element, element);
    pgi_free(b->out->memory, stored);
    if (status < 0) {
        pgi_free(b->out->memory, copy);
        return status;
    }
    tensor->data = copy;
    tensor->loaded = 1; /* the files free it */
    tensor->shape[3] = tensor->shape[2];
    tensor->shape[1] = (int64_t)n_channels;
    b->out->transposed = tensor->name;
    b->out->n_bytes_copied += tensor->n_bytes;
    return PG_OK;
}

static pg_status bind_vision(binder *b, pgi_vision_weights *out) {
    const pgi_vision_config *config = &b->config->vision;
    int64_t hidden = config->hidden_size, patch = config->patch_size;
    pgi_stored_tensor *kernel = NULL, *position = NULL;
    pgi_stored_tensor *stored = find(b, PGI_NAME_VISION, "embeddings.patch_embedding.weight");
    if (stored && is_channels_last(b, stored)) PGI_TRY(move_channels_first(b, stored));

    /* The convolution [hidden, 3, patch, patch] with stride = patch is a linear layer on flattened patches. */
    PGI_TRY(take(b, PGI_NAME_VISION, "embeddings.patch_embedding.weight", 1, 4,
                 (int64_t[]){hidden, config->n_channels, patch, patch}, &kernel));
    PGI_TRY(set_matrix(b, kernel, b->loads, config->n_channels * patch * patch, &out->patch.weight));
    PGI_TRY(take_vector(b, PGI_NAME_VISION, "embeddings.patch_embedding.bias", hidden, &out->patch.bias));

    PGI_TRY(take(b, PGI_NAME_VISION, "embeddings.position_embedding.weight", 0, 2, (int64_t[]){-1, hidden}, &position));
    if (position->shape[0] != config->n_patches)
        return pgi_error(
            PG_ERROR_FORMAT,
            "%s: tensor %s: found %lld rows, expected %d: (image_size %d / patch_size %d)^2 as config.json says",
            position->file, position->name, (long long)position->shape[0], config->n_patches, config->image_size,
            config->patch_size);
    PGI_TRY(set_matrix(b, position, 1, hidden, &out->position));

    for (int32_t i = 0; i < config->n_layers; i++) PGI_TRY(bind_vision_layer(b, i, &out->layers[i]));
    return take_layer_norm(b, "post_layernorm", hidden, &out->norm_weight, &out->norm_bias);
}

static pg_status bind_text_layer(binder *b, int32_t index, pgi_text_layer *layer) {
    const pgi_text_config *config = &b->config->text;
    int64_t hidden = config->hidden_size, inner = config->intermediate_size;
    int64_t n_q = (int64_t)config->n_heads * config->head_dim, n_kv = (int64_t)config->n_kv_heads * config->head_dim;
    int has_bias = config->attention_bias;
    char name[128];
#define NAME(suffix) (snprintf(name, sizeof name, "layers.%d." suffix, index), name)
    PGI_TRY(take_vector(b, PGI_NAME_TEXT, NAME("input_layernorm.weight"), hidden, &layer->input_norm));
    PGI_TRY(take_linear(b, PGI_NAME_TEXT, NAME("self_attn.q_proj"), n_q, hidden, has_bias, &layer->q));
    PGI_TRY(take_linear(b, PGI_NAME_TEXT, NAME("self_attn.k_proj"), n_kv, hidden, has_bias, &layer->k));
    PGI_TRY(take_linear(b, PGI_NAME_TEXT, NAME("self_attn.v_proj"), n_kv, hidden, has_bias, &layer->v));
    PGI_TRY(take_linear(b, PGI_NAME_TEXT, NAME("self_attn.o_proj"), hidden, n_q, has_bias, &layer->out));
    PGI_TRY(
        take_vector(b, PGI_NAME_TEXT, NAME("post_attention_layernorm.weight"), hidden, &layer->post_attention_norm));
    if (config->gemma_version == 2) {
        PGI_TRY(take_vector(b, PGI_NAME_TEXT, NAME("pre_feedforward_layernorm.weight"), hidden, &layer->pre_mlp_norm));
        PGI_TRY(
            take_vector(b, PGI_NAME_TEXT, NAME("post_feedforward_layernorm.weight"), hidden, &layer->post_mlp_norm));
    }
    PGI_TRY(take_linear(b, PGI_NAME_TEXT, NAME("mlp.gate_proj"), inner, hidden, 0, &layer->gate));
    PGI_TRY(take_linear(b, PGI_NAME_TEXT, NAME("mlp.up_proj"), inner, hidden, 0, &layer->up));
    return take_linear(b, PGI_NAME_TEXT, NAME("mlp.down_proj"), hidden, inner, 0, &layer->down);
#undef NAME
}

/*
 * Embedding and head, as from_pretrained() of transformers 5.23 ties them (modeling_utils.py tie_weights, tried out):
 * - both are there: each is used as it is, tie_word_embeddings or not (unequal ones are not tied there either);
 * - tied, embedding only: the head is the embedding;
 * - tied, head only: the embedding is the head;
 * - not tied, one of them only: transformers fills the other with random numbers; an error here.
 * tie_word_embeddings is the top level's; text_config's has no effect. The number of rows is the tensor's (transformers
 * wants it to equal text_config.vocab_size).
 */
static pg_status bind_embedding(binder *b, pgi_text_weights *out) {
    int64_t hidden = b->config->text.hidden_size;
    int has_embedding = find(b, PGI_NAME_TEXT, "embed_tokens.weight") != NULL,
        has_head = find(b, PGI_NAME_HEAD, "weight") != NULL;
    if (has_embedding != has_head && !b->config->tie_word_embeddings)
        return pgi_error(PG_ERROR_NOT_FOUND,
                         "%s: tensor %s: found under none of its names, expected it beside %s, as "
                         "tie_word_embeddings is false in config.json",
                         pgi_tensor_files_folder(b->files),
                         has_head ? "language_model.model.embed_tokens.weight" : "lm_head.weight",
                         has_head ? "lm_head.weight" : "language_model.model.embed_tokens.weight");
    if (has_embedding || !has_head)
        PGI_TRY(take_matrix(b, PGI_NAME_TEXT, "embed_tokens.weight", -1, hidden, &out->embedding));
    if (has_head)
        PGI_TRY(take_matrix(b, PGI_NAME_HEAD, "weight", has_embedding ? out->embedding.rows : -1, hidden,
                            &out->head.weight));
    if (!has_embedding) out->embedding = out->head.weight;
    if (!has_head) out->head.weight = out->embedding;
    out->head.bias = NULL;
    if (out->embedding.rows > PGI_MAX_VOCAB)
        return pgi_error(PG_ERROR_LIMIT, "%s: the token embedding: found %lld rows, expected at most %d",
                         pgi_tensor_files_folder(b->files), (long long)out->embedding.rows, PGI_MAX_VOCAB);
    return PG_OK;
}

/* ColPali's projection, which is not quantized. Its config says the size; where only the tensors say that there is one
 * (folders of colpali-engine have PaliGemma's config), they say the size too. */
static pg_status bind_retrieval(binder *b, pgi_linear *out) {
    const int64_t dim = b->config->embedding_dim, hidden = b->config->text.hidden_size;
    pgi_stored_tensor *weight = NULL;
    if (dim == 0 && !find(b, PGI_NAME_RETRIEVAL, "weight")) return PG_OK;
    PGI_TRY(take(b, PGI_NAME_RETRIEVAL, "weight", 0, 2, (int64_t[]){dim > 0 ? dim : -1, hidden}, &weight));
    if (weight->shape[0] > PGI_MAX_EMBEDDING)
        return pgi_error(PG_ERROR_LIMIT, "%s: tensor %s: found %lld rows, expected at most %d", weight->file,
                         weight->name, (long long)weight->shape[0], PGI_MAX_EMBEDDING);
    PGI_TRY(set_matrix(b, weight, 1, hidden, &out->weight));
    return take_vector(b, PGI_NAME_RETRIEVAL, "bias", weight->shape[0], &out->bias);
}

static pg_status bind_all(binder *b, pgi_weights *out) {
    const pgi_config *config = b->config;
    PGI_TRY(bind_embedding(b, &out->text)); /* first: it is what adapters and foreign checkpoints lack */
    PGI_TRY(bind_vision(b, &out->vision));
    PGI_TRY(take_linear(b, PGI_NAME_PROJECTOR, "linear", config->text.hidden_size, config->vision.hidden_size, 1,
                        &out->projector));
    for (int32_t i = 0; i < config->text.n_layers; i++) PGI_TRY(bind_text_layer(b, i, &out->text.layers[i]));
    PGI_TRY(take_vector(b, PGI_NAME_TEXT, "norm.weight", config->text.hidden_size, &out->text.norm));
    return bind_retrieval(b, &out->retrieval);
}

/* Tensors that bind_all() will take. */
static int64_t count_expected(const binder *b) {
    const pgi_config *config = b->config;
    int64_t per_text_layer = 9 + (config->text.gemma_version == 2 ? 2 : 0) + (config->text.attention_bias ? 4 : 0);
    int64_t n_embeddings =
        (find(b, PGI_NAME_TEXT, "embed_tokens.weight") != NULL) + (find(b, PGI_NAME_HEAD, "weight") != NULL);
    int64_t n_retrieval = find(b, PGI_NAME_RETRIEVAL, "weight") ? 2 : 0;
    return n_retrieval + n_embeddings + 5 + 16 * (int64_t)config->vision.n_layers + 2 +
           per_text_layer * config->text.n_layers + 1;
}

pg_status pgi_weights_bind(const pgi_memory *memory, const pgi_run *run, pgi_config *config, pgi_tensor_files *files,
                           int32_t wanted, pgi_weights *out) {
    *out = (pgi_weights){.memory = memory};
    binder b = {.run = run, .config = config, .files = files, .out = out};
    size_t n_floats, vision_bytes, text_bytes;
    pg_status status;
    PGI_GOTO(pgi_quantized_store_read(memory, files, &out->format), done);
    b.loads = wanted == PG_WEIGHTS_STORED || wanted == out->format;
    PGI_GOTO(collect_names(memory, &b, &n_floats), done);
    b.n_total = count_expected(&b);
    PGI_GOTO(pgi_run_progress(run, PG_PHASE_LOAD, 0, b.n_total), done);

    /* One arena: the vectors, then the layers of both networks. The counts are bounded by config.c and the files. */
    vision_bytes = (size_t)config->vision.n_layers * sizeof(pgi_vision_layer);
    text_bytes = (size_t)config->text.n_layers * sizeof(pgi_text_layer);
    out->arena = pgi_alloc(memory, n_floats * sizeof(float) + vision_bytes + text_bytes, 1);
    if (!out->arena) {
        status = PG_ERROR_MEMORY;
        goto done;
    }
    b.vectors = out->arena;
    b.vectors_end = b.vectors + n_floats;
    out->vision.layers = (void *)b.vectors_end;
    out->text.layers = (void *)((uint8_t *)b.vectors_end + vision_bytes);
    memset(out->vision.layers, 0, vision_bytes + text_bytes);

    /* A few hundred vectors lie scattered over the files: asked for together, a disk reads them side by side. */
    for (size_t i = 0; i < pgi_tensor_files_count(files); i++)
        if (pgi_tensor_files_at(files, i)->n_dims == 1) pgi_tensor_files_ask(files, pgi_tensor_files_at(files, i));
    PGI_GOTO(bind_all(&b, out), done);
    config->text.vocab_size = (int32_t)out->text.embedding.rows;
done:
    pgi_free(memory, b.names);
    if (status < 0) pgi_weights_free(out);
    return status;
}

/* The matrices of a layer, which are of the kinds `kinds`. */
static pg_status each_of_layer(int32_t of_part, int32_t layer, pgi_linear *const *linears, const int32_t *kinds, int n,
                               pgi_matrix_fn visit, void *context) {
    for (int k = 0; k < n; k++)
        PGI_TRY(visit(context, &(pgi_matrix_role){of_part, layer, kinds[k]}, &linears[k]->weight));
    return PG_OK;
}

pg_status pgi_weights_each_matrix(pgi_weights *weights, const pgi_config *config, pgi_matrix_fn visit, void *context) {
    static const int32_t encoder[] = {PGI_KIND_Q, PGI_KIND_K, PGI_KIND_V, PGI_KIND_OUT, PGI_KIND_FC1, PGI_KIND_FC2};
    static const int32_t decoder[] = {PGI_KIND_Q,    PGI_KIND_K,  PGI_KIND_V,   PGI_KIND_OUT,
                                      PGI_KIND_GATE, PGI_KIND_UP, PGI_KIND_DOWN};
    static const pgi_matrix_role embedding = {PGI_PART_EMBEDDING, -1, -1}, patches = {PGI_PART_PATCHES, -1, -1},
                                 projector = {PGI_PART_PROJECTOR, -1, -1};
    pgi_text_weights *text = &weights->text;
    const int tied =
        text->head.weight.data == text->embedding.data && text->head.weight.tensor == text->embedding.tensor;
    PGI_TRY(visit(context, &embedding, &text->embedding));
    if (!tied)
        PGI_TRY(visit(context, &embedding, &text->head.weight));
    else if (text->head.weight.data != text->embedding.data || text->head.weight.dtype != text->embedding.dtype)
        text->head.weight =
            text->embedding; /* nothing is written where `visit` changes nothing: others may be reading */
    PGI_TRY(visit(context, &patches, &weights->vision.patch.weight));
    for (int32_t i = 0; i < config->vision.n_layers; i++) {
        pgi_vision_layer *l = &weights->vision.layers[i];
        pgi_linear *all[] = {&l->q, &l->k, &l->v, &l->out, &l->fc1, &l->fc2};
        PGI_TRY(each_of_layer(PGI_PART_ENCODER, i, all, encoder, sizeof all / sizeof *all, visit, context));
    }
    PGI_TRY(visit(context, &projector, &weights->projector.weight));
    for (int32_t i = 0; i < config->text.n_layers; i++) {
        pgi_text_layer *l = &text->layers[i];
        pgi_linear *all[] = {&l->q, &l->k, &l->v, &l->out, &l->gate, &l->up, &l->down};
        PGI_TRY(each_of_layer(PGI_PART_DECODER, i, all, decoder, sizeof all / sizeof *all, visit, context));
    }
    return PG_OK;
}

void pgi_weights_free(pgi_weights *weights) {
    if (weights->memory) pgi_free(weights->memory, weights->arena);
    if (weights->memory) pgi_free(weights->memory, weights->blocks);
    *weights = (pgi_weights){0};
}
