/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* pg_forward(), pg_model_embed(), pg_outputs. */
#include "model/forward.h"

#include <string.h>

#include "api/calls.h"
#include "api/structs.h"
#include "model/read_ahead.h"
#include "model/row_models.h"

enum {
    FLAGS = PG_FORWARD_NO_LOGITS | PG_FORWARD_HIDDEN_STATES | PG_FORWARD_LAST_HIDDEN | PG_FORWARD_LOSS_PER_ROW |
            PG_FORWARD_SKIP_PADDING | PG_FORWARD_NO_LOSS | PG_FORWARD_RETRIEVAL | PG_FORWARD_ATTENTIONS |
            PG_FORWARD_ATTENTION_HEAD_MEAN | PG_FORWARD_ATTENTION_LAYER_MEAN | PG_FORWARD_ATTENTION_TO_IMAGE
};

PGI_OPTIONS(pg_forward_options, .struct_size = sizeof(pg_forward_options), .attention_layer = -1)

pg_status pg_forward(const pg_model *model, const pg_inputs *inputs, const pg_forward_options *options,
                     pg_outputs **out) {
    PGI_ENTER;
    PGI_NOT_NULL(out);
    *out = NULL;
    PGI_NOT_NULL(model);
    PGI_NOT_NULL(inputs);
    PGI_OPTIONS_IN(pg_forward_options, complete, options);
    PGI_TRY(pgi_reserved_in(complete.reserved, "pg_forward_options"));
    PGI_TRY(pgi_reserved_in(complete.reserved_end, "pg_forward_options"));
    if (complete.flags & ~(uint32_t)FLAGS)
        return pgi_error(PG_ERROR_ARGUMENT, "flags is 0x%x, expected PG_FORWARD_* (0x%x)", complete.flags,
                         (unsigned)FLAGS);
    PGI_TRY(pgi_thread_count(complete.n_threads, &complete.n_threads));
    PGI_TRY(pgi_tensor_files_unchanged(model->files));
    pgi_call call = pgi_call_begin(model, inputs, complete.features, complete.cancel);
    pg_model **row_models;
    pg_status status;
    PGI_GOTO(pgi_row_models_keep(model, complete.row_models, complete.n_row_models, inputs->n_rows, &row_models), done);
    complete.row_models = (const pg_model *const *)row_models;
    pgi_read_ahead(model, pgi_read_ahead_parts(inputs, complete.features));
    status = pgi_forward(model, inputs, &complete, NULL, out);
    pgi_row_models_release(&model->memory, row_models, complete.n_row_models);
done:
    pgi_call_end(&call);
    return status;
}

pg_status pg_model_embed(const pg_model *model, const int64_t *ids, size_t n_ids, float *out) {
    PGI_ENTER;
    PGI_NOT_NULL(model);
    PGI_NOT_NULL(ids);
    PGI_NOT_NULL(out);
    const pgi_text_config *text = &model->config.text;
    for (size_t i = 0; i < n_ids; i++)
        if (ids[i] < 0 || ids[i] >= text->vocab_size)
            return pgi_error(PG_ERROR_ARGUMENT, "token %zu is id %lld, expected 0 to %d", i, (long long)ids[i],
                             text->vocab_size - 1);
    PGI_TRY(pgi_tensor_files_unchanged(model->files));
    pgi_call call = pgi_call_begin(model, NULL, NULL, NULL);
    pgi_run run = {.kernels = &model->kernels, .n_threads = 1};
    pgi_decoder_embed(&run, text, &model->weights.text, ids, (int64_t)n_ids, out);
    pgi_call_end(&call);
    return PG_OK;
}

void pg_outputs_close(pg_outputs **outputs) {
    if (!outputs) return;
    pg_outputs *closed = *outputs;
    *outputs = NULL; /* before its memory goes: the allocator's callback may close it, too */
    pgi_outputs_close(closed);
}

pg_status pg_outputs_get_tensor(const pg_outputs *outputs, const char *name, pg_tensor *out) {
    PGI_ENTER;
    PGI_NOT_NULL(outputs);
    PGI_NOT_NULL(name);
    PGI_TRY(pgi_struct_out_check(out, PGI_STRUCT(pg_tensor)));
    const int64_t b = outputs->n_rows, t = outputs->n_tokens, h = outputs->hidden_size;
    const int64_t *a = outputs->attentions_shape;
    const pg_features *features = outputs->features;
    const struct {
        const char *name;
        int32_t n_dims;
        int64_t shape[4];
        const float *data; /* NULL: not there */
    } tensors[] = {
        {"logits", 3, {b, outputs->n_kept, outputs->vocab_size, 1}, outputs->logits},
        {"loss", 1, {1, 1, 1, 1}, outputs->has_loss ? &outputs->loss : NULL},
        {"hidden_states", 4, {outputs->n_layers + 1, b, t, h}, outputs->hidden_states},
        {"last_hidden_state", 3, {b, t, h, 1}, outputs->last_hidden},
        {"attentions", 4, {a[0], a[1], a[2], a[3]}, outputs->attentions},
        {"embeddings", 3, {b, t, outputs->embedding_dim, 1}, outputs->embeddings},
        {"image_hidden_states",
         3,
         {features ? features->n_images : 0, outputs->n_image_tokens, h, 1},
         features ? features->data : NULL},
    };
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++) {
        if (strcmp(name, tensors[i].name) != 0) continue;
        if (!tensors[i].data)
            return pgi_error(PG_ERROR_NOT_FOUND,
                             "the outputs have no %s: it was not asked for, or the inputs gave none", name);
        pg_tensor value = {
            .struct_size = sizeof value, .dtype = PG_DTYPE_F32, .n_dims = tensors[i].n_dims, .data = tensors[i].data};
        memcpy(value.shape, tensors[i].shape, sizeof value.shape);
        pgi_struct_out(out, &value, sizeof value);
        return PG_OK;
    }
    return pgi_error(PG_ERROR_NOT_FOUND,
                     "the outputs have no tensor \"%s\", expected logits, loss, hidden_states, last_hidden_state, "
                     "attentions, embeddings or image_hidden_states",
                     name);
}
