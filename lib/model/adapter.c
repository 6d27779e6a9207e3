/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading an adapter. Names of its tensors (get_peft_model_state_dict() of PEFT), M being a module of the base:
 *
 *   [base_model.model.]M.lora_A.weight [rank, in], .lora_B.weight [out, rank], .lora_B.bias [out]
 *                      M.lora_embedding_A [rank, rows], .lora_embedding_B [columns, rank]
 *                      M.lora_magnitude_vector[.weight] [out]                      DoRA
 *                      M.weight, M.bias                                            modules_to_save, bias
 *                      M.base_layer.weight, M.base_layer.bias                      the same of a module with LoRA
 *
 * With bias = "all" PEFT also writes the biases of a module in modules_to_save a second time, and those of the base
 * (M.modules_to_save.bias, M.original_module.bias), and leaves both out when it loads. So does this.
 *
 * What is loaded stays in memory: adapters are small, and a file that changes later does no harm.
 */
#include "model/adapter.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/shape.h"
#include "checkpoint/hf_cache.h"
#include "kernels/quantized.h"

typedef enum kind { LORA_A, LORA_B, LORA_B_BIAS, EMBEDDING_A, EMBEDDING_B, MAGNITUDE, WEIGHT, BIAS, N_KINDS } kind;

/* The end of a name, and the kind. Those of the base layer come before the shorter ones. */
static const struct {
    const char *end;
    kind kind;
    int of_base_layer;
} ends[] = {{".lora_A.weight", LORA_A, 0},
            {".lora_B.weight", LORA_B, 0},
            {".lora_B.bias", LORA_B_BIAS, 0},
            {".lora_embedding_A", EMBEDDING_A, 0},
            {".lora_embedding_B", EMBEDDING_B, 0},
            {".lora_magnitude_vector", MAGNITUDE, 0},
            {".lora_magnitude_vector.weight", MAGNITUDE, 0},
            {".base_layer.weight", WEIGHT, 1},
            {".base_layer.bias", BIAS, 1},
            {".weight", WEIGHT, 0},
            {".bias", BIAS, 0}};
enum { N_ENDS = sizeof ends / sizeof *ends, MAX_NAME = 512 };

/* The tensors of one module. */
typedef struct found {
    char module[MAX_NAME]; /* as the file names it, without "base_model.model." */
    pgi_stored_tensor *tensors[N_KINDS];
    int is_base_layer, is_shared; /* the weight */
} found;

typedef struct reader {
    const pgi_run *run;
    pg_adapter *out;
} reader;

pg_adapter *pgi_adapter_retain(const pg_adapter *adapter) {
    pg_adapter *counted = (pg_adapter *)(uintptr_t)adapter;
    if (counted) atomic_fetch_add_explicit(&counted->references, 1, memory_order_relaxed);
    return counted;
}

void pgi_adapter_release(pg_adapter *adapter) {
    if (!adapter || atomic_fetch_sub_explicit(&adapter->references, 1, memory_order_acq_rel) != 1) return;
    pg_model *model = adapter->model;
    pgi_memory memory = adapter->memory;
    pgi_kept_free(&memory, &adapter->kept);
    pgi_free(&memory, adapter->modules);
    pgi_tensor_files_close(&adapter->files);
    pgi_adapter_config_free(&adapter->config);
    pgi_free(&memory, adapter);
    pgi_model_release(model);
}

uint64_t pgi_adapter_bytes(const pg_adapter *adapter) {
    return adapter->kept.n_bytes + pgi_tensor_files_n_bytes_loaded(adapter->files);
}

static pg_status keep_floats(pg_adapter *adapter, size_t n, float **out) {
    return pgi_keep(&adapter->memory, &adapter->kept, n * sizeof(float), out);
}

/* ------------------------------------------------------------------------------------------------- names, shapes */

static const char *without_prefix(const char *name) {
    static const char prefix[] = "base_model.model.";
    return strncmp(name, prefix, sizeof prefix - 1) == 0 ? name + sizeof prefix - 1 : name;
}

static int is_left_out(const char *name) {
    return strstr(name, ".modules_to_save.") != NULL || strstr(name, ".original_module.") != NULL;
}

/* Splits the name of a tensor. 0: it is of no kind, or too long. */
static int split_name(const char *name, char module[MAX_NAME], kind *out, int *of_base_layer) {
    name = without_prefix(name);
    const size_t size = strlen(name);
    for (int i = 0; i < N_ENDS; i++) {
        const size_t n = strlen(ends[i].end);
        if (size <= n || size - n >= MAX_NAME - sizeof ".weight" || strcmp(name + size - n, ends[i].end) != 0) continue;
        memcpy(module, name, size - n);
        module[size - n] = 0;
        *out = ends[i].kind;
        *of_base_layer = ends[i].of_base_layer;
        return 1;
    }
    return 0;
}

static pg_status unknown_name(const pgi_stored_tensor *tensor) {
    return pgi_error(PG_ERROR_UNSUPPORTED, "%s: tensor %s: found a name that is none of a LoRA adapter of PaliGemma",
                     tensor->file, tensor->name);
}

/* A tensor of this shape, of a dtype that can be used. expected: what says so. */
static pg_status check_tensor(const pgi_stored_tensor *tensor, int n_dims, const int64_t *shape) {
    char text[PGI_SHAPE_TEXT], expected[PGI_SHAPE_TEXT];
    if (tensor->dtype != PG_DTYPE_F32 && tensor->dtype != PG_DTYPE_BF16 && tensor->dtype != PG_DTYPE_F16)
        return pgi_error(PG_ERROR_UNSUPPORTED, "%s: tensor %s: found dtype %.20s, expected F32, BF16 or F16",
                         tensor->file, tensor->name, tensor->dtype_name);
    if (pgi_stored_tensor_has_shape(tensor, n_dims, shape)) return PG_OK;
    return pgi_error(PG_ERROR_FORMAT,
                     "%s: tensor %s: found shape %s, expected %s, as adapter_config.json and the base model say",
                     tensor->file, tensor->name, pgi_shape_text(tensor->n_dims, tensor->shape, ", ", text),
                     pgi_shape_text(n_dims, shape, ", ", expected));
}

static pg_status missing(const reader *r, const found *f, const char *end) {
    return pgi_error(PG_ERROR_NOT_FOUND, "%s: %s%s: found no such tensor, expected it beside the module's others",
                     pgi_tensor_files_folder(r->out->files), f->module, end);
}

/* ------------------------------------------------------------------------------------------------------- values */

pg_status pgi_adapter_check_finite(const pgi_stored_tensor *tensor, const float *values, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(values[i]))
            return pgi_error(PG_ERROR_FORMAT, "%s: tensor %s: value %lld is %f, expected a finite number", tensor->file,
                             tensor->name, (long long)i, (double)values[i]);
    return PG_OK;
}

static pg_status read_values(const reader *r, const pgi_stored_tensor *tensor, float *out) {
    const int64_t n = pgi_stored_tensor_values(tensor);
    PGI_TRY(pgi_tensor_files_read_f32(r->out->files, tensor, 0, n, out));
    r->out->n_parameters += (uint64_t)n;
    return pgi_adapter_check_finite(tensor, out, n);
}

/* A tensor as a vector that stays; NULL: none. */
static pg_status read_vector(const reader *r, const pgi_stored_tensor *tensor, int64_t n, const float **out) {
    float *values;
    if (!tensor) return PG_OK;
    PGI_TRY(check_tensor(tensor, 1, &n));
    PGI_TRY(keep_floats(r->out, (size_t)n, &values));
    *out = values;
    return read_values(r, tensor, values);
}

/* A tensor as a matrix that stays, in its dtype: rows of `columns`. */
static pg_status load_matrix(const reader *r, pgi_stored_tensor *tensor, int64_t rows, int64_t columns,
                             pgi_matrix *out) {
    enum { PART = 4096 };
    float part[PART];
    PGI_TRY(pgi_tensor_files_load(r->out->files, r->run->cancel, tensor));
    *out = (pgi_matrix){tensor->data, tensor->dtype, rows, columns, tensor};
    for (int64_t at = 0, n = rows * columns; at < n; at += PART) {
        const int64_t end = at + PART < n ? at + PART : n;
        PGI_TRY(pgi_tensor_files_read_f32(r->out->files, tensor, at, end, part));
        PGI_TRY(pgi_adapter_check_finite(tensor, part, end - at));
    }
    r->out->n_parameters += (uint64_t)(rows * columns);
    return PG_OK;
}

/* ------------------------------------------------------------------------------------------------------- modules */

/* DoRA's, [n], of a convolution [1, n, 1, 1]. */
static pg_status read_magnitudes(const reader *r, const pgi_stored_tensor *tensor, int64_t n, int is_convolution,
                                 const float **out) {
    float *values;
    if (!tensor || !is_convolution) return read_vector(r, tensor, n, out);
    PGI_TRY(check_tensor(tensor, 4, (int64_t[]){1, n, 1, 1}));
    PGI_TRY(keep_floats(r->out, (size_t)n, &values));
    *out = values;
    return read_values(r, tensor, values);
}

/* The rest of a low-rank part, once A is known: s of the config. */
static pg_status bind_part(const reader *r, const found *f, const pgi_module *module, int64_t n, double scale,
                           pgi_adapter_part *out) {
    const int dora = r->out->config.dora;
    pgi_stored_tensor *b = f->tensors[module->matrix ? EMBEDDING_B : LORA_B];
    if (dora && !f->tensors[MAGNITUDE]) return missing(r, f, ".lora_magnitude_vector");
    PGI_TRY(read_magnitudes(r, f->tensors[MAGNITUDE], n, module->is_convolution, &out->magnitude));
    PGI_TRY(read_vector(r, f->tensors[LORA_B_BIAS], n, &out->b_bias));
    if (!dora) out->magnitude = NULL;
    if (dora) PGI_TRY(pgi_tensor_files_load(r->out->files, r->run->cancel, b)); /* for another weight, later */
    out->b = b;
    out->scale = scale;
    r->out->n_parameters += (uint64_t)pgi_stored_tensor_values(b);
    return PG_OK;
}

/* With ensure_weight_tying PEFT makes A and B of a tied head of the embedding's, turned, while the scale is of the rank
 * and the alpha that patterns give the head. */
static pg_status rank_and_scale(const reader *r, const pgi_module *module, int32_t *rank, double *scale) {
    pgi_adapter_config *config = &r->out->config;
    int ties;
    *scale = pgi_adapter_config_scale(config, module->name, rank);
    if (!config->ties_weights || module->linear != &r->out->model->weights.text.head) return PG_OK;
    PGI_TRY(pgi_model_ties_head(r->run, r->out->model, &ties));
    if (ties && *rank > 0) (void)pgi_adapter_config_scale(config, "model.language_model.embed_tokens", rank);
    return PG_OK;
}

/* A of the module: [rank, in], of a convolution [rank, 3, patch, patch]. */
static pg_status bind_low_rank(const reader *r, const found *f, const pgi_module *module, pgi_adapter_module *out) {
    const int is_embedding = module->matrix != NULL;
    const pgi_matrix *weight = pgi_module_matrix(module);
    pgi_stored_tensor *a = f->tensors[is_embedding ? EMBEDDING_A : LORA_A];
    pgi_stored_tensor *b = f->tensors[is_embedding ? EMBEDDING_B : LORA_B];
    if (!a && !b) return PG_OK;
    if (!a) return missing(r, f, is_embedding ? ".lora_embedding_A" : ".lora_A.weight");
    if (!b) return missing(r, f, is_embedding ? ".lora_embedding_B" : ".lora_B.weight");
    const int64_t in = is_embedding ? weight->rows : weight->columns;
    const int64_t n = is_embedding ? weight->columns : weight->rows;
    int32_t rank;
    double scale;
    PGI_TRY(rank_and_scale(r, module, &rank, &scale));
    if (rank == 0)
        return pgi_error(PG_ERROR_LIMIT, "%s: rank_pattern: found a rank for %s that is not 1 to %d",
                         pgi_tensor_files_folder(r->out->files), module->name, PGI_MAX_LOW_RANK);
    if (module->is_convolution) {
        const int64_t patch = r->out->model->config.vision.patch_size;
        PGI_TRY(check_tensor(a, 4, (int64_t[]){rank, 3, patch, patch}));
        PGI_TRY(check_tensor(b, 4, (int64_t[]){n, rank, 1, 1}));
    } else {
        PGI_TRY(check_tensor(a, 2, (int64_t[]){rank, in}));
        PGI_TRY(check_tensor(b, 2, (int64_t[]){n, rank}));
    }
    PGI_TRY(load_matrix(r, a, rank, in, &out->part.a));
    if (rank > r->out->rank) r->out->rank = rank;
    return bind_part(r, f, module, n, scale, &out->part);
}

/* Whether a weight has the values that the base has stored, be they quantized since. Those of a converted base are not
 * there any more. */
static pg_status is_of_base(const reader *r, const pgi_stored_tensor *weight, const pgi_matrix *of, int *same) {
    enum { PART = 4096 };
    float given[PART], base[PART];
    const pgi_stored_tensor *stored = of->tensor;
    *same = stored && stored->data && !pgi_dtype_is_blocks(stored->dtype);
    for (int64_t at = 0, n = of->rows * of->columns; at < n && *same; at += PART) {
        const int64_t end = at + PART < n ? at + PART : n;
        PGI_TRY(pgi_cancel_check(r->run->cancel));
        PGI_TRY(pgi_tensor_files_read_f32(r->out->files, weight, at, end, given));
        PGI_TRY(pgi_tensor_files_read_f32(r->out->model->files, stored, at, end, base));
        *same = memcmp(given, base, (size_t)(end - at) * sizeof *given) == 0;
    }
    return PG_OK;
}

/* What stands in place of the module's weight and bias. */
static pg_status bind_replaced(const reader *r, const found *f, const pgi_module *module, pgi_adapter_module *out) {
    pgi_stored_tensor *weight = f->tensors[WEIGHT];
    const pgi_stored_tensor *bias = f->tensors[BIAS];
    if (module->weight) { /* a norm */
        PGI_TRY(read_vector(r, weight, module->n, &out->vector));
        if (bias && !module->bias) return unknown_name(bias);
        return read_vector(r, bias, module->n, &out->bias);
    }
    const pgi_matrix *of = pgi_module_matrix(module);
    if (bias && (!module->linear || !module->linear->bias)) return unknown_name(bias);
    PGI_TRY(read_vector(r, bias, of->rows, &out->bias));
    if (!weight) return PG_OK;
    const int64_t patch = r->out->model->config.vision.patch_size;
    PGI_TRY(module->is_convolution ? check_tensor(weight, 4, (int64_t[]){of->rows, 3, patch, patch})
                                   : check_tensor(weight, 2, (int64_t[]){of->rows, of->columns}));
    int same = 0;
    if (f->is_base_layer) PGI_TRY(is_of_base(r, weight, of, &same));
    if (same) { /* PEFT writes it beside the parts of an embedding */
        r->out->n_parameters += (uint64_t)pgi_stored_tensor_values(weight);
        return PG_OK;
    }
    const pgi_text_weights *text = &r->out->model->weights.text;
    out->is_shared = f->is_shared && (module->matrix == &text->embedding || module->linear == &text->head);
    return load_matrix(r, weight, of->rows, of->columns, &out->weight);
}

static pg_status bind_module(const reader *r, const found *f, pgi_adapter_module *out) {
    pg_adapter *adapter = r->out;
    pgi_module module;
    char name[MAX_NAME];
    const pgi_stored_tensor *any = NULL;
    for (int i = 0; i < N_KINDS && !any; i++) any = f->tensors[i];
    snprintf(name, sizeof name, "%s.weight", f->module);
    if (!pgi_module_find(&adapter->model->weights, &adapter->model->config, name, &module))
        return pgi_error(PG_ERROR_NOT_FOUND, "%s: tensor %s: found no module of that name in the base model %s",
                         any->file, any->name, pgi_tensor_files_folder(adapter->model->files));
    snprintf(out->name, sizeof out->name, "%s.weight", module.name);
    out->is_vision = module.is_vision;
    adapter->adapts_vision |= module.is_vision;
    const int is_embedding = module.matrix != NULL;
    for (int i = LORA_A; i <= MAGNITUDE; i++) {
        const int of_embedding = i == EMBEDDING_A || i == EMBEDDING_B;
        if (f->tensors[i] && (module.weight || (i != MAGNITUDE && of_embedding != is_embedding)))
            return unknown_name(f->tensors[i]);
    }
    PGI_TRY(bind_replaced(r, f, &module, out));
    return module.weight ? PG_OK : bind_low_rank(r, f, &module, out);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const pgi_adapter_module *)a)->name, ((const pgi_adapter_module *)b)->name);
}

static int compare_name(const void *key, const void *module) {
    return strcmp(key, ((const pgi_adapter_module *)module)->name);
}

const pgi_adapter_module *pgi_adapter_find(const pg_adapter *adapter, const char *name) {
    return bsearch(name, adapter->modules, adapter->n_modules, sizeof *adapter->modules, compare_name);
}

/* The tensors from *index on that are of one module: their names follow one another. None is left: f->module is "". */
static pg_status next_module(const reader *r, size_t *index, found *f) {
    const size_t n = pgi_tensor_files_count(r->out->files);
    memset(f, 0, sizeof *f);
    for (; *index < n; ++*index) {
        pgi_stored_tensor *tensor = pgi_tensor_files_at(r->out->files, *index);
        char module[MAX_NAME];
        kind of;
        int of_base_layer;
        if (is_left_out(tensor->name)) continue;
        if (!split_name(tensor->name, module, &of, &of_base_layer)) return unknown_name(tensor);
        if (!*f->module) memcpy(f->module, module, sizeof module);
        if (strcmp(module, f->module) != 0) break;
        if (f->tensors[of])
            return pgi_error(PG_ERROR_FORMAT, "%s: tensor %s: found %s too, expected one of them", tensor->file,
                             tensor->name, f->tensors[of]->name);
        f->tensors[of] = tensor;
        if (of != WEIGHT) continue;
        f->is_base_layer = of_base_layer;
        f->is_shared = of_base_layer || r->out->config.ties_weights;
    }
    return PG_OK;
}

/* Makes the low-rank parts, beside what the adapter itself has in place of weights and biases. */
static pg_status make_parts(const reader *r) {
    pg_adapter *adapter = r->out;
    const int64_t n = (int64_t)pgi_tensor_files_count(adapter->files), n_modules = (int64_t)adapter->n_modules;
    const float whole = 1.0f;
    pgi_kept kept = {0};
    pgi_weights table;
    PGI_TRY(pgi_adapter_find_shared(r->run, adapter));
    pg_status status = pgi_adapter_table(adapter->model, &adapter->memory, &kept, &table);
    if (status >= 0) status = pgi_adapters_replace((const pg_adapter *const *)&adapter, &whole, 1, &table);
    for (int64_t i = 0; i < n_modules && status >= 0; i++) {
        pgi_adapter_module *of = &adapter->modules[i];
        pgi_module module;
        status = pgi_run_progress(r->run, PG_PHASE_LOAD, n + n * i / n_modules, 2 * n);
        if (status < 0 || !of->part.a.data || !pgi_module_find(&table, &adapter->model->config, of->name, &module))
            continue;
        of->made_of = pgi_adapter_weights_of(&module);
        status = pgi_adapter_make(r->run, adapter, &of->part, &module, &adapter->kept, &of->added);
    }
    pgi_kept_free(&adapter->memory, &kept);
    return status;
}

static pg_status bind_all(const reader *r) {
    pg_adapter *adapter = r->out;
    const size_t n = pgi_tensor_files_count(adapter->files);
    found f;
    size_t capacity = 0;
    for (size_t i = 0; i < n;) {
        PGI_TRY(pgi_run_progress(r->run, PG_PHASE_LOAD, (int64_t)i, 2 * (int64_t)n));
        PGI_TRY(next_module(r, &i, &f));
        if (!*f.module) break;
        PGI_TRY(
            pgi_grow(&adapter->memory, &adapter->modules, &capacity, adapter->n_modules + 1, sizeof *adapter->modules));
        pgi_adapter_module *module = &adapter->modules[adapter->n_modules++];
        memset(module, 0, sizeof *module);
        PGI_TRY(bind_module(r, &f, module));
    }
    if (adapter->n_modules == 0)
        return pgi_error(PG_ERROR_FORMAT, "%s: found no tensors, expected those of an adapter",
                         pgi_tensor_files_folder(adapter->files));
    qsort(adapter->modules, adapter->n_modules, sizeof *adapter->modules, by_name);
    for (size_t i = 1; i < adapter->n_modules; i++)
        if (by_name(&adapter->modules[i - 1], &adapter->modules[i]) == 0)
            return pgi_error(PG_ERROR_FORMAT, "%s: found the module of %s under two names, expected one",
                             pgi_tensor_files_folder(adapter->files), adapter->modules[i].name);
    PGI_TRY(make_parts(r));
    return pgi_run_progress(r->run, PG_PHASE_LOAD, 2 * (int64_t)n, 2 * (int64_t)n);
}

pg_status pgi_adapter_open(const pgi_run *run, const pg_model *model, const char *name, pg_adapter **out) {
    const pg_model *base = model->base ? model->base : model;
    char *folder = NULL;
    pg_status status;
    pg_adapter *adapter = pgi_alloc_zero(&base->memory, 1, sizeof *adapter);
    if (!adapter) return PG_ERROR_MEMORY;
    atomic_init(&adapter->references, 1);
    adapter->memory = base->memory;
    adapter->model = pgi_model_retain(base);
    const reader r = {run, adapter};
    PGI_GOTO(pgi_hf_cache_find(&adapter->memory, name, NULL, &folder), fail);
    PGI_GOTO(pgi_adapter_config_load(&adapter->memory, folder, &adapter->config), fail);
    PGI_GOTO(pgi_tensor_files_open_adapter(&adapter->memory, folder, run->cancel, &adapter->files), fail);
    PGI_GOTO(bind_all(&r), fail);
    pgi_tensor_files_finish(adapter->files);
    pgi_free(&adapter->memory, folder);
    *out = adapter;
    return PG_OK;
fail:
    pgi_free(&adapter->memory, folder);
    pgi_adapter_release(adapter);
    return status;
}
