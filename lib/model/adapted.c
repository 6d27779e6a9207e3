/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * pgi_model_adapt(): a model handle that shares the weights of a base and adds adapters to them.
 *
 * A module that one adapter with the weight 1 changes takes the adapter's own arrays. Of several, or another weight,
 * their A and B are put together:  B (A x) = sum over i of w_i B_i (A_i x). That is what PEFT computes with several
 * active adapters, and its add_weighted_adapter(combination_type="cat"). The gain of DoRA takes what the adapters
 * before it gave, as in PEFT:  y_i = y_(i-1) + w_i (gain_i y_(i-1) + constant_i + B_i (A_i x)). What an adapter saved
 * whole cannot be added up: one adapter at the most may replace a module, with the weight 1.
 */
#include <string.h>

#include "kernels/kernels.h"
#include "model/adapter.h"

/* What is added to a module: by which adapter, with which weight. */
typedef struct part {
    const pgi_low_rank *added;
    float weight;
} part;

typedef struct adapting {
    const pg_adapter *const *adapters;
    const float *weights;
    size_t n;
    pg_model *out;
    part *parts; /* [n] of the module that is under way */
    size_t n_parts;
    const char *name; /* the module's */
} adapting;

static pg_status keep(pg_model *model, size_t n, void *out) {
    return pgi_keep(&model->memory, &model->adapted.kept, n, out);
}

/* ------------------------------------------------------------------------------------------------- adding parts up */

/* The A of all parts one below the other, as f32. */
static void stack_a(const adapting *a, float *to) {
    for (size_t p = 0; p < a->n_parts; p++) {
        const pgi_matrix *from = &a->parts[p].added->a.weight;
        for (int64_t i = 0; i < from->rows; i++, to += from->columns)
            pgi_matrix_row(&a->out->kernels, from, i, 1.0f, to);
    }
}

/* The gain or constant of a sum that has one: zeros at first. */
static pg_status start_vector(const adapting *a, int64_t n, int gains, float **out) {
    int any = 0;
    for (size_t p = 0; p < a->n_parts; p++)
        any |= (gains ? a->parts[p].added->gain : a->parts[p].added->constant) != NULL;
    *out = NULL;
    if (!any) return PG_OK;
    PGI_TRY(keep(a->out, (size_t)n * sizeof **out, out));
    memset(*out, 0, (size_t)n * sizeof **out);
    return PG_OK;
}

/* One part behind those before it, for output i: row [rank], of which `column` values are set. A gain takes what the
 * parts before gave with it. */
static void add_part(const part *p, int64_t i, int64_t column, float *row, float *gain, float *constant) {
    const pgi_low_rank *of = p->added;
    const float more = of->gain ? p->weight * of->gain[i] : 0, factor = 1 + more;
    for (int64_t k = 0; k < column && of->gain; k++) row[k] *= factor;
    for (int64_t k = 0; k < of->a.weight.rows; k++) row[column + k] = p->weight * pgi_low_rank_b(of, i, k);
    if (gain) gain[i] += more * (1 + gain[i]);
    if (constant) constant[i] = factor * constant[i] + (of->constant ? p->weight * of->constant[i] : 0);
}

/* Lays out the sum of the parts. */
static pg_status make_sum(const adapting *a, int64_t n, int64_t rank, int is_embedding, pgi_low_rank *out) {
    pg_model *model = a->out;
    const int32_t format = model->base->weights.format;
    pgi_matrix stacked = {NULL, PG_DTYPE_F32, rank, a->parts[0].added->a.weight.columns, NULL};
    float *of_a, *gain, *constant;
    void *block;
    PGI_TRY(start_vector(a, n, 1, &gain));
    PGI_TRY(start_vector(a, n, 0, &constant));
    PGI_TRY(keep(model, (size_t)(rank * stacked.columns) * sizeof *of_a, &of_a));
    stacked.data = of_a;
    PGI_TRY(keep(model, pgi_low_rank_size(&model->kernels, format, &stacked, n, is_embedding), &block));
    float *b = pgi_alloc(&model->memory, (size_t)(n * rank), sizeof *b);
    if (!b) return PG_ERROR_MEMORY;
    stack_a(a, of_a);
    int64_t column = 0;
    for (size_t p = 0; p < a->n_parts; column += a->parts[p].added->a.weight.rows, p++)
        for (int64_t i = 0; i < n; i++) add_part(&a->parts[p], i, column, b + i * rank, gain, constant);
    const pg_status status = pgi_low_rank_make(&model->kernels, format, &stacked, b, n, is_embedding, block, out);
    pgi_free(&model->memory, b);
    out->gain = gain;
    out->constant = constant;
    return status;
}

/* The parts as one, for a module of n outputs; out lies in the handle's memory. */
static pg_status add_up(adapting *a, int64_t n, int is_embedding, const pgi_low_rank **out) {
    pg_model *model = a->out;
    int64_t rank = 0;
    for (size_t p = 0; p < a->n_parts; p++) rank += a->parts[p].added->a.weight.rows;
    if (rank > PGI_MAX_LOW_RANK)
        return pgi_error(PG_ERROR_LIMIT, "%s: found ranks of %lld together, expected at most %d", a->name,
                         (long long)rank, PGI_MAX_LOW_RANK);
    if (rank > model->kernels.low_rank) model->kernels.low_rank = (int)rank;
    *out = a->parts[0].added;
    if (a->n_parts == 1 && a->parts[0].weight == 1.0f) return PG_OK;
    pgi_low_rank *sum;
    PGI_TRY(keep(model, sizeof *sum, &sum));
    *sum = (pgi_low_rank){0};
    PGI_TRY(make_sum(a, n, rank, is_embedding, sum));
    *out = sum;
    return PG_OK;
}

/* ------------------------------------------------------------------------------------------------- applying */

/* An embedding of positions is small, so that it becomes one of f32 with the parts in it. */
static pg_status add_to_positions(const adapting *a, const pgi_low_rank *added, pgi_matrix *positions) {
    float *sum;
    PGI_TRY(keep(a->out, (size_t)(positions->rows * positions->columns) * sizeof *sum, &sum));
    for (int64_t i = 0; i < positions->rows; i++) {
        float *row = sum + i * positions->columns;
        pgi_matrix_row(&a->out->kernels, positions, i, 1.0f, row);
        pgi_low_rank_add_row(&a->out->kernels, added, i, positions->columns, 1.0f, row);
    }
    *positions = (pgi_matrix){sum, PG_DTYPE_F32, positions->rows, positions->columns, NULL};
    return PG_OK;
}

/* The part of one adapter, made again where another adapter has replaced what its DoRA belongs to. */
static pg_status take_part(adapting *a, const pg_adapter *adapter, const pgi_adapter_module *of, float weight,
                           const pgi_module *module) {
    const pgi_adapter_made_of now = pgi_adapter_weights_of(module);
    const pgi_low_rank *added = &of->added;
    if (of->part.magnitude && (now.weight != of->made_of.weight || now.bias != of->made_of.bias)) {
        pgi_low_rank *made;
        PGI_TRY(keep(a->out, sizeof *made, &made));
        *made = (pgi_low_rank){0};
        PGI_TRY(pgi_adapter_make(&(pgi_run){.kernels = &a->out->base->kernels, .n_threads = 1}, adapter, &of->part,
                                 module, &a->out->adapted.kept, made));
        added = made;
    }
    a->parts[a->n_parts++] = (part){added, weight};
    return PG_OK;
}

/* The module `name`, which some of the adapters have. */
static pg_status adapt_module(adapting *a, const char *name) {
    pgi_weights *weights = &a->out->weights;
    pgi_module module;
    int is_vision = 0;
    a->n_parts = 0;
    a->name = name;
    if (!pgi_module_find(weights, &a->out->config, name, &module))
        return pgi_error(PG_ERROR_INTERNAL, "%s: found no such module", name);
    for (size_t i = 0; i < a->n; i++) {
        const pgi_adapter_module *of = pgi_adapter_find(a->adapters[i], name);
        if (!of || a->weights[i] == 0.0f) continue;
        is_vision |= of->is_vision;
        if (of->part.a.data) PGI_TRY(take_part(a, a->adapters[i], of, a->weights[i], &module));
    }
    a->out->adapts_vision |= is_vision;
    if (a->n_parts == 0) return PG_OK;
    const pgi_low_rank *added = NULL;
    const pgi_matrix *of = pgi_module_matrix(&module);
    PGI_TRY(add_up(a, module.matrix ? of->columns : of->rows, module.matrix != NULL, &added));
    if (module.linear)
        module.linear->low_rank = added;
    else if (module.matrix == &weights->text.embedding)
        weights->text.embedding_low_rank = added;
    else
        return add_to_positions(a, added, module.matrix);
    return PG_OK;
}

static void end_adapted(pg_model *model) {
    pgi_kept_free(&model->memory, &model->adapted.kept);
    for (size_t i = 0; i < model->adapted.n_adapters; i++) pgi_adapter_release(model->adapted.adapters[i]);
    pgi_free(&model->memory, model->adapted.adapters);
}

static pg_status adapt_all(adapting *a) {
    PGI_TRY(pgi_adapters_replace(a->adapters, a->weights, a->n, &a->out->weights));
    for (size_t i = 0; i < a->n; i++)
        for (size_t m = 0; m < a->adapters[i]->n_modules; m++) {
            const char *name = a->adapters[i]->modules[m].name;
            int is_done = 0; /* with an adapter before this one */
            for (size_t before = 0; before < i && !is_done; before++)
                is_done = pgi_adapter_find(a->adapters[before], name) != NULL;
            if (!is_done) PGI_TRY(adapt_module(a, name));
        }
    return PG_OK;
}

pg_status pgi_model_adapt(const pg_model *model, const pg_adapter *const *adapters, const float *weights, size_t n,
                          pg_model **out) {
    const pg_model *base = model->base ? model->base : model;
    adapting a = {.adapters = adapters, .weights = weights, .n = n};
    a.out = pgi_alloc_zero(&base->memory, 1, sizeof *a.out);
    if (!a.out) return PG_ERROR_MEMORY;
    atomic_init(&a.out->references, 1);
    a.out->memory = base->memory;
    a.out->base = pgi_model_retain(base);
    a.out->end_adapted = end_adapted;
    a.out->config = base->config;
    a.out->files = base->files;
    a.out->kernels = base->kernels;
    a.out->kv_bf16 = base->kv_bf16;
    a.out->log = base->log;
    a.out->adapted.adapters = pgi_alloc_zero(&base->memory, n, sizeof *a.out->adapted.adapters);
    a.parts = pgi_alloc(&base->memory, n, sizeof *a.parts);
    pg_status status = a.out->adapted.adapters && a.parts
                           ? pgi_adapter_table(base, &base->memory, &a.out->adapted.kept, &a.out->weights)
                           : PG_ERROR_MEMORY;
    for (size_t i = 0; i < n && status >= 0; i++) {
        a.out->adapted.adapters[a.out->adapted.n_adapters++] = pgi_adapter_retain(adapters[i]);
        if (weights[i] == 0.0f) continue;
        a.out->weights.n_parameters += adapters[i]->n_parameters;
        a.out->replaces |= pgi_adapter_replaces(adapters[i]);
    }
    if (status >= 0) status = adapt_all(&a);
    pgi_free(&base->memory, a.parts);
    if (status < 0)
        pgi_model_release(a.out);
    else
        *out = a.out;
    return status;
}

uint64_t pgi_adapted_bytes(const pg_model *model) {
    uint64_t sum = model->adapted.kept.n_bytes;
    for (size_t i = 0; i < model->adapted.n_adapters; i++) {
        int is_counted = 0;
        for (size_t before = 0; before < i; before++)
            is_counted |= model->adapted.adapters[before] == model->adapted.adapters[i];
        if (!is_counted) sum += pgi_adapter_bytes(model->adapted.adapters[i]);
    }
    return sum;
}
