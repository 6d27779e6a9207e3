/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Merging. A linear layer with y = (1 + gain) (W x + bias) + constant + B (A x) is one with
 *     W' = diag(1 + gain) W + B A        bias' = (1 + gain) bias + constant
 * and an embedding likewise by its columns. What an adapter saved whole stands in place of W or bias.
 */
#include "model/adapter_merge.h"

#include <math.h>
#include <string.h>

#include "checkpoint/quantized_store.h"
#include "kernels/kernels.h"

/* What is added to a module of `adapted`, or NULL. */
static const pgi_low_rank *added_to(const pgi_adapter_merge *m, const pgi_module *module) {
    if (module->linear) return module->linear->low_rank;
    const pgi_text_weights *text = &m->adapted->weights.text;
    return module->matrix == &text->embedding ? text->embedding_low_rank : NULL;
}

static int is_changed(const pgi_adapter_merge *m, const pgi_module *now, const pgi_module *was, int is_bias) {
    if (now->weight) return is_bias ? now->bias && *now->bias != *was->bias : *now->weight != *was->weight;
    const pgi_low_rank *added = added_to(m, now);
    if (is_bias)
        return now->linear && (now->linear->bias != was->linear->bias || (added && (added->gain || added->constant)));
    return added || pgi_module_matrix(now)->data != pgi_module_matrix(was)->data;
}

static int ends_in_bias(const pgi_stored_tensor *tensor) {
    const size_t size = strlen(tensor->name);
    return size > 5 && strcmp(tensor->name + size - 5, ".bias") == 0;
}

static int changes(void *user, const pgi_stored_tensor *tensor) {
    const pgi_adapter_merge *m = user;
    pgi_module now, was;
    if (!pgi_module_find(&m->adapted->weights, &m->adapted->config, tensor->name, &now)) return 0;
    if (!pgi_module_find(&m->model->weights, &m->model->config, tensor->name, &was)) return 0;
    return is_changed(m, &now, &was, ends_in_bias(tensor));
}

static pg_status begin(void *user, const pgi_stored_tensor *tensor) {
    pgi_adapter_merge *m = user;
    pgi_free(&m->model->memory, m->a);
    m->a = NULL;
    m->is_bias = ends_in_bias(tensor);
    if (!pgi_module_find(&m->adapted->weights, &m->adapted->config, tensor->name, &m->module))
        return pgi_error(PG_ERROR_INTERNAL, "%s: found no module of tensor %s", tensor->file, tensor->name);
    const pgi_low_rank *added = added_to(m, &m->module);
    if (!added || m->is_bias || m->module.matrix) return PG_OK;
    const pgi_matrix *a = &added->a.weight;
    m->a = pgi_alloc(&m->model->memory, (size_t)(a->rows * a->columns), sizeof *m->a);
    if (!m->a) return PG_ERROR_MEMORY;
    for (int64_t k = 0; k < a->rows; k++) pgi_matrix_row(&m->model->kernels, a, k, 1.0f, m->a + k * a->columns);
    return PG_OK;
}

static void merge_vector(const pgi_adapter_merge *m, int64_t n, float *x) {
    const pgi_low_rank *added = added_to(m, &m->module);
    const float *given = m->module.weight ? (m->is_bias ? *m->module.bias : *m->module.weight) : m->module.linear->bias;
    memcpy(x, given, (size_t)n * sizeof *x);
    if (added) pgi_low_rank_scale(added, 0, 1, n, x, n);
}

static void merge_rows(void *user, int64_t first, int64_t n, int64_t columns, float *rows) {
    const pgi_adapter_merge *m = user;
    if (m->is_bias || m->module.weight) {
        merge_vector(m, columns, rows);
        return;
    }
    const pgi_matrix *weight = pgi_module_matrix(&m->module);
    const pgi_low_rank *added = added_to(m, &m->module);
    const int64_t rank = added ? added->a.weight.rows : 0;
    for (int64_t r = first; r < first + n; r++, rows += columns) {
        pgi_matrix_row(&m->model->kernels, weight, r, 1.0f, rows);
        if (!added) continue;
        if (m->module.matrix) {
            pgi_low_rank_add_row(&m->model->kernels, added, r, columns, 1.0f, rows);
            continue;
        }
        for (int64_t i = 0; i < columns && added->gain; i++) rows[i] += added->gain[r] * rows[i];
        for (int64_t k = 0; k < rank; k++) {
            const float b = pgi_low_rank_b(added, r, k), *a = m->a + k * columns;
            for (int64_t i = 0; i < columns; i++) rows[i] += b * a[i];
        }
    }
}

static int unties_head(void *user) {
    const pgi_adapter_merge *m = user;
    const pgi_text_weights *was = &m->model->weights.text, *now = &m->adapted->weights.text;
    if (was->head.weight.data != was->embedding.data) return 0;
    return now->head.weight.data != now->embedding.data || now->embedding_low_rank || now->head.low_rank;
}

/* A bias that the base has no tensor for cannot be written. */
static pg_status check_biases(const pgi_adapter_merge *m) {
    for (size_t i = 0; i < m->adapted->adapted.n_adapters; i++) {
        const pg_adapter *adapter = m->adapted->adapted.adapters[i];
        for (size_t k = 0; k < adapter->n_modules; k++) {
            pgi_module module;
            if (!pgi_module_find(&m->adapted->weights, &m->adapted->config, adapter->modules[k].name, &module))
                continue;
            if (module.linear && !module.linear->bias && module.linear->low_rank && module.linear->low_rank->constant)
                return pgi_error(PG_ERROR_UNSUPPORTED,
                                 "%s: an adapter adds a bias (lora_bias) to a layer that has none, expected one that "
                                 "can be merged; open it beside its base instead",
                                 module.name);
        }
    }
    return PG_OK;
}

static pg_status open_adapted(const pgi_run *run, const char *const *adapters, const float *weights, size_t n,
                              pgi_adapter_merge *out) {
    const pgi_memory *memory = &out->model->memory;
    pg_adapter **opened = pgi_alloc_zero(memory, n, sizeof *opened);
    float *complete = pgi_alloc(memory, n, sizeof *complete);
    pgi_run of_model = *run;
    of_model.kernels = &out->model->kernels;
    pg_status status = opened && complete ? PG_OK : PG_ERROR_MEMORY;
    for (size_t i = 0; i < n && status >= 0; i++) {
        complete[i] = weights ? weights[i] : 1.0f;
        status = pgi_adapter_open(&of_model, out->model, adapters[i], &opened[i]);
    }
    if (status >= 0)
        status = pgi_model_adapt(out->model, (const pg_adapter *const *)opened, complete, n, &out->adapted);
    for (size_t i = 0; opened && i < n; i++) pgi_adapter_release(opened[i]);
    pgi_free(memory, opened);
    pgi_free(memory, complete);
    return status < 0 ? status : check_biases(out);
}

pg_status pgi_adapter_merge_open(const pgi_memory *memory, const pgi_run *run, const char *model,
                                 const char *const *adapters, const float *weights, size_t n, pgi_adapter_merge *out) {
    *out = (pgi_adapter_merge){.calls = {out, changes, begin, merge_rows, unties_head}};
    const pg_model_options options = {
        .struct_size = sizeof options, .n_threads = run->n_threads, .cancel = (pg_cancel *)(uintptr_t)run->cancel};
    PGI_TRY(pgi_model_open(memory, model, &options, &out->model));
    pg_status status = PG_OK;
    if (out->model->weights.format != PG_WEIGHTS_STORED)
        status = pgi_error(PG_ERROR_UNSUPPORTED, "%s: found %s weights, expected those that are stored", model,
                           pgi_weights_name(out->model->weights.format));
    if (status >= 0) status = open_adapted(run, adapters, weights, n, out);
    if (status < 0) pgi_adapter_merge_close(out);
    return status;
}

void pgi_adapter_merge_close(pgi_adapter_merge *merger) {
    if (!merger->model) return;
    pgi_free(&merger->model->memory, merger->a);
    pgi_model_release(merger->adapted);
    pgi_model_release(merger->model);
    *merger = (pgi_adapter_merge){0};
}
