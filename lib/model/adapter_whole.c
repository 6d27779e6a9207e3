/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * What an adapter saved whole stands in place of the base's: weights, biases, norms.
 *
 * In PEFT a head that is tied to the embedding has one parameter with it. M.base_layer.weight is read into that
 * parameter, so that it is the other module's, too; M.weight (modules_to_save) is a parameter beside it. The head comes
 * last there, and so it does here.
 */
#include <string.h>

#include "kernels/kernels.h"
#include "model/adapter.h"

pg_status pgi_adapter_table(const pg_model *base, const pgi_memory *memory, pgi_kept *kept, pgi_weights *out) {
    const size_t vision_bytes = (size_t)base->config.vision.n_layers * sizeof(pgi_vision_layer);
    const size_t text_bytes = (size_t)base->config.text.n_layers * sizeof(pgi_text_layer);
    *out = base->weights;
    out->memory = NULL; /* what is in them is the base's */
    PGI_TRY(pgi_keep(memory, kept, vision_bytes, &out->vision.layers));
    PGI_TRY(pgi_keep(memory, kept, text_bytes, &out->text.layers));
    memcpy(out->vision.layers, base->weights.vision.layers, vision_bytes);
    memcpy(out->text.layers, base->weights.text.layers, text_bytes);
    return PG_OK;
}

/* The weight that head and embedding have together where the base ties them, or NULL. */
static const pgi_matrix *shared_weight(const pg_adapter *adapter) {
    const pgi_adapter_module *head = pgi_adapter_find(adapter, PGI_ADAPTER_HEAD);
    const pgi_adapter_module *embedding = pgi_adapter_find(adapter, PGI_ADAPTER_EMBEDDING);
    if (head && head->is_shared) return &head->weight;
    return embedding && embedding->is_shared ? &embedding->weight : NULL;
}

/* rows: room for two. */
static pg_status compare(const pgi_run *run, const pgi_matrix *a, const pgi_matrix *b, float *rows, int *same) {
    enum { OFTEN = 1024 };
    float *other = rows + a->columns;
    *same = a->rows == b->rows && a->columns == b->columns;
    for (int64_t row = 0; row < a->rows && *same; row++) {
        if (row % OFTEN == 0) PGI_TRY(pgi_cancel_check(run->cancel));
        pgi_matrix_row(run->kernels, a, row, 1.0f, rows);
        pgi_matrix_row(run->kernels, b, row, 1.0f, other);
        *same = memcmp(rows, other, (size_t)a->columns * sizeof *rows) == 0;
    }
    return PG_OK;
}

pg_status pgi_model_ties_head(const pgi_run *run, pg_model *base, int *ties) {
    const pgi_matrix *embedding = &base->weights.text.embedding, *head = &base->weights.text.head.weight;
    const int known = atomic_load_explicit(&base->ties_head, memory_order_relaxed);
    *ties = known == PGI_TIES_HEAD || head->data == embedding->data;
    if (*ties || known == PGI_TIES_NOT || !base->config.tie_word_embeddings) return PG_OK;
    float *rows = pgi_alloc(&base->memory, (size_t)head->columns, 2 * sizeof *rows);
    if (!rows) return PG_ERROR_MEMORY;
    const pg_status status = compare(run, embedding, head, rows, ties);
    pgi_free(&base->memory, rows);
    if (status >= 0)
        atomic_store_explicit(&base->ties_head, *ties ? PGI_TIES_HEAD : PGI_TIES_NOT, memory_order_relaxed);
    return status;
}

pg_status pgi_adapter_find_shared(const pgi_run *run, pg_adapter *adapter) {
    int ties;
    const pgi_matrix *shared = shared_weight(adapter);
    if (!shared) return PG_OK;
    PGI_TRY(pgi_model_ties_head(run, adapter->model, &ties));
    if (ties) adapter->shared = shared;
    return PG_OK;
}

static int replaces(const pgi_adapter_module *module) { return module->weight.data || module->vector || module->bias; }

int pgi_adapter_replaces(const pg_adapter *adapter) {
    for (size_t m = 0; m < adapter->n_modules; m++)
        if (replaces(&adapter->modules[m])) return 1;
    return 0;
}

/* What adapter `index` saved whole has the weight 1, and no adapter before it replaces the same. */
static pg_status check_whole(const pg_adapter *const *adapters, const float *weights, size_t index) {
    const pg_adapter *adapter = adapters[index];
    for (size_t m = 0; m < adapter->n_modules; m++) {
        const pgi_adapter_module *of = &adapter->modules[m];
        int is_second = 0;
        if (!replaces(of)) continue;
        for (size_t i = 0; i < index && !is_second; i++) {
            const pgi_adapter_module *before = pgi_adapter_find(adapters[i], of->name);
            is_second = (before && replaces(before)) || (of->is_shared && adapter->shared && adapters[i]->shared);
            is_second &= weights[i] != 0.0f;
        }
        if (is_second || weights[index] != 1.0f)
            return pgi_error(PG_ERROR_UNSUPPORTED,
                             "%s: an adapter replaces it whole (modules_to_save or bias), with the weight %g%s; "
                             "expected one adapter that does, with the weight 1",
                             of->name, (double)weights[index], is_second ? ", and so does another" : "");
    }
    return PG_OK;
}

/* But for a weight that is shared. */
static pg_status replace_modules(const pg_adapter *adapter, pgi_weights *table) {
    for (size_t i = 0; i < adapter->n_modules; i++) {
        const pgi_adapter_module *of = &adapter->modules[i];
        pgi_module module;
        if (!replaces(of)) continue;
        if (!pgi_module_find(table, &adapter->model->config, of->name, &module))
            return pgi_error(PG_ERROR_INTERNAL, "%s: found no such module", of->name);
        if (of->vector) *module.weight = of->vector;
        if (of->bias) *(module.bias ? module.bias : &module.linear->bias) = of->bias;
        if (of->weight.data && !(of->is_shared && adapter->shared)) *pgi_module_matrix(&module) = of->weight;
    }
    return PG_OK;
}

pg_status pgi_adapters_replace(const pg_adapter *const *adapters, const float *weights, size_t n, pgi_weights *table) {
    for (size_t i = 0; i < n; i++) {
        if (weights[i] == 0.0f) continue;
        PGI_TRY(check_whole(adapters, weights, i));
        if (adapters[i]->shared) table->text.embedding = table->text.head.weight = *adapters[i]->shared;
    }
    for (size_t i = 0; i < n; i++)
        if (weights[i] != 0.0f) PGI_TRY(replace_modules(adapters[i], table));
    return PG_OK;
}
