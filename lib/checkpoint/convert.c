/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads a checkpoint as pg_model_open() does, and writes it with quantized matrices. The bytes depend on the source
 * alone: order, padding and checksums are fixed, so that one conversion can be compared with another.
 *
 * The header of a weight file is written last, into space that was left for it, when the checksums are known.
 * config.json is the last file of all: until it is there nothing opens.
 */
#include "checkpoint/convert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/atomic_folder.h"
#include "base/crc32.h"
#include "base/float16.h"
#include "base/parallel.h"
#include "base/shape.h"
#include "checkpoint/calibration.h"
#include "checkpoint/config.h"
#include "checkpoint/hf_cache.h"
#include "checkpoint/weight_changes.h"
#include "checkpoint/mix.h"
#include "checkpoint/quantized_store.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/tensor_header_text.h"
#include "checkpoint/weights.h"

enum {
    CHUNK_BYTES = 8 << 20, /* quantized, then written */
    MAX_COPY = 1 << 30     /* of a file that is copied */
};

/* Beside the weights: what the model, the tokenizer and the processor read, and the licence. config.json last. */
static const char *const copied_files[] = {"LICENSE",
                                           "NOTICE",
                                           "generation_config.json",
                                           "tokenizer.model",
                                           "tokenizer.json",
                                           "tokenizer_config.json",
                                           "special_tokens_map.json",
                                           "added_tokens.json",
                                           "preprocessor_config.json",
                                           "processor_config.json",
                                           "chat_template.json",
                                           "chat_template.jinja",
                                           "config.json"};

/* A tensor to be written. */
typedef struct item {
    const pgi_stored_tensor *tensor;
    int32_t dtype;        /* as written: PGI_DTYPE_*_BLOCKS, PG_DTYPE_* */
    uint64_t n_bytes, at; /* at: in the data of its file */
    uint32_t file, crc32;
    const pgi_calibration_site *site; /* whose sums are rounded by; NULL: none */
    int merges;                       /* adapters change it */
} item;

typedef struct converter {
    const pgi_memory *memory;
    const pgi_run *run;
    const char *source; /* folder */
    const pgi_convert_target *target;
    pgi_config config;
    pgi_tensor_files *files;
    pgi_weights bound;
    item *items;
    size_t n_items;
    pgi_stored_tensor head; /* of its own, of an embedding that was its twin */
    int is_mix;             /* the blocks of a matrix are of another kind than the folder's */
    uint32_t n_files, config_crc32;
    uint64_t done, total;   /* bytes of tensors */
    pgi_process_mark owner; /* set before the first callback: a child that one forks writes nothing */
    pgi_atomic_folder out;
    uint8_t *chunk;
    size_t chunk_bytes;
    const pgi_calibration_site *site; /* of `factors` */
    float *factors;                   /* room for those of any site; NULL: no calibration */
} converter;

/* ------------------------------------------------------------------------------------------------------------- plan */

static int by_tensor(const void *tensor, const void *element) {
    const pgi_stored_tensor *of = ((const item *)element)->tensor;
    return (const pgi_stored_tensor *)tensor < of ? -1 : (const pgi_stored_tensor *)tensor > of;
}

/* Marks the item that has this matrix, while the items are in the order of the tensors. */
static pg_status mark_matrix(void *context, const pgi_matrix_role *role, pgi_matrix *matrix) {
    converter *c = context;
    item *it = bsearch(matrix->tensor, c->items, c->n_items, sizeof *c->items, by_tensor);
    if (!it) return PG_OK;
    it->dtype = pgi_mix_blocks(c->target->weights, c->target->int8_layers, role);
    it->n_bytes = (uint64_t)pgi_quantized_bytes(it->dtype, matrix->rows, matrix->columns);
    if (c->target->calibration && it->dtype == PGI_DTYPE_INT4_BLOCKS)
        it->site = pgi_calibration_site_of(c->target->calibration, role);
    size_t panel = (size_t)(pgi_quantized_groups(matrix->columns) * pgi_quantized_block(it->dtype));
    if (panel > c->chunk_bytes) c->chunk_bytes = panel;
    return PG_OK;
}

static int by_use(const void *a, const void *b) {
    const item *x = a, *y = b;
    int blocks_x = pgi_dtype_is_blocks(x->dtype), blocks_y = pgi_dtype_is_blocks(y->dtype);
    if (blocks_x != blocks_y) return blocks_y - blocks_x; /* blocks first: their sizes keep them at multiples of 64 */
    return x->tensor->used < y->tensor->used ? -1 : x->tensor->used > y->tensor->used;
}

/* A tied head that is stored as a copy of the embedding is left out: the embedding is bound to both. */
static pg_status is_copied_head(const converter *c, const pgi_stored_tensor *tensor, int *is_copy) {
    const pgi_matrix *embedding = &c->bound.text.embedding, *head = &c->bound.text.head.weight;
    *is_copy = c->config.tie_word_embeddings && tensor == head->tensor && head->tensor != embedding->tensor &&
               head->dtype == embedding->dtype;
    const pgi_weight_changes *merge = c->target->changes;
    if (*is_copy && merge)
        *is_copy = !merge->changes(merge->user, tensor) && !merge->changes(merge->user, embedding->tensor);
    return *is_copy ? pgi_tensor_files_same_bytes(c->files, tensor, embedding->tensor, is_copy) : PG_OK;
}

/* Whether the blocks of a matrix are of another kind than the folder's. */
static int is_other_kind(const converter *c, const item *it) {
    return pgi_dtype_is_blocks(it->dtype) && it->dtype != pgi_blocks_of_weights(c->target->weights);
}

/* The head becomes a tensor of its own, made of the embedding as it is stored. */
static void add_head(converter *c) {
    const pgi_stored_tensor *embedding = c->bound.text.embedding.tensor;
    const item *twin = bsearch(embedding, c->items, c->n_items, sizeof *c->items, by_tensor);
    c->head = *embedding;
    c->head.name = "lm_head.weight";
    c->head.used = INT32_MAX; /* the last */
    item *it = &c->items[c->n_items++];
    *it = *twin;
    it->tensor = &c->head;
    it->site = NULL;
    it->merges = c->target->changes->changes(c->target->changes->user, &c->head);
}

/* What is written, in which order, to which file. */
static pg_status plan(converter *c) {
    size_t n = pgi_tensor_files_count(c->files);
    c->items = pgi_alloc(c->memory, n + 1, sizeof *c->items);
    if (!c->items) return PG_ERROR_MEMORY;
    for (size_t i = 0; i < n; i++) {
        const pgi_stored_tensor *tensor = pgi_tensor_files_at(c->files, i);
        int is_copy;
        PGI_TRY(is_copied_head(c, tensor, &is_copy));
        if (!tensor->used || is_copy) continue;
        item *it = &c->items[c->n_items++];
        *it = (item){.tensor = tensor, .dtype = tensor->dtype, .n_bytes = tensor->n_bytes};
        it->merges = c->target->changes && c->target->changes->changes(c->target->changes->user, tensor);
        if (tensor->n_dims > 1 || c->target->weights == PG_WEIGHTS_STORED) continue;
        it->dtype = PG_DTYPE_F32;
        it->n_bytes = (uint64_t)pgi_stored_tensor_values(tensor) * sizeof(float);
    }
    c->chunk_bytes = CHUNK_BYTES;
    if (c->target->weights != PG_WEIGHTS_STORED)
        PGI_TRY(pgi_weights_each_matrix(&c->bound, &c->config, mark_matrix, c));
    if (c->target->changes && c->target->changes->unties_head(c->target->changes->user)) add_head(c);
    qsort(c->items, c->n_items, sizeof *c->items, by_use);

    uint64_t at = 0;
    for (size_t i = 0; i < c->n_items; i++) {
        item *it = &c->items[i];
        if (at > 0 && at + it->n_bytes > c->target->max_file_bytes) {
            at = 0;
            c->n_files++;
        }
        it->file = c->n_files;
        it->at = at;
        c->is_mix |= is_other_kind(c, it);
        at += it->n_bytes;
        c->total += it->n_bytes;
    }
    c->n_files++;
    return PG_OK;
}

/* The items of a file, which follow one another: the first, and how many. */
static item *items_of(const converter *c, uint32_t file, size_t *n) {
    size_t low = 0, high = c->n_items;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (c->items[middle].file < file)
            low = middle + 1;
        else
            high = middle;
    }
    for (*n = 0; low + *n < c->n_items && c->items[low + *n].file == file;) ++*n;
    return c->items + low;
}

/* ----------------------------------------------------------------------------------------------------------- header */

static const char *dtype_name(int32_t dtype) {
    return dtype == PG_DTYPE_F32 ? "F32" : dtype == PG_DTYPE_BF16 ? "BF16" : dtype == PG_DTYPE_F16 ? "F16" : "U8";
}

static pg_status add_metadata(const converter *c, uint32_t file, pgi_buffer *text) {
    static const char stored[] = "{\"__metadata__\":{\"format\":\"pt\"}";
    if (c->target->weights == PG_WEIGHTS_STORED) return pgi_buffer_append(text, stored, sizeof stored - 1);
    PGI_TRY(pgi_buffer_printf(text,
                              "{\"__metadata__\":{\"format\":\"" PGI_STORE_FORMAT "\",\"layout_version\":\"%d\","
                              "\"weights\":\"%s\",\"config_crc32\":\"%08x\",\"header_crc32\":\"00000000\"",
                              c->is_mix ? PGI_STORE_VERSION_MIX : PGI_QUANTIZED_VERSION,
                              pgi_weights_name(c->target->weights), c->config_crc32));
    size_t n;
    const item *items = items_of(c, file, &n);
    for (const item *it = items; it < items + n; it++) {
        if (pgi_dtype_is_blocks(it->dtype)) {
            PGI_TRY(pgi_header_text_key(text, "shape:", it->tensor->name));
            char shape[PGI_SHAPE_TEXT];
            pgi_shape_text(it->tensor->n_dims, it->tensor->shape, ",", shape);
            PGI_TRY(pgi_buffer_printf(text, ":\"%s\"", shape));
        }
        if (is_other_kind(c, it)) {
            PGI_TRY(pgi_header_text_key(text, "blocks:", it->tensor->name));
            PGI_TRY(pgi_buffer_printf(
                text, ":\"%s\"",
                pgi_weights_name(it->dtype == PGI_DTYPE_INT8_BLOCKS ? PG_WEIGHTS_INT8 : PG_WEIGHTS_INT4)));
        }
        PGI_TRY(pgi_header_text_key(text, "crc32:", it->tensor->name));
        PGI_TRY(pgi_buffer_printf(text, ":\"%08x\"", it->crc32));
    }
    return pgi_buffer_append(text, "}", 1);
}

/* The whole beginning of a file: 8 bytes of size, and the header, padded so that the data begins at a multiple of 64.
 * Its size does not depend on the checksums. */
static pg_status make_header(const converter *c, uint32_t file, pgi_buffer *text) {
    PGI_TRY(pgi_header_text_begin(text));
    PGI_TRY(add_metadata(c, file, text));
    size_t n;
    const item *items = items_of(c, file, &n);
    for (const item *it = items; it < items + n; it++) {
        const int is_blocks = pgi_dtype_is_blocks(it->dtype);
        const int64_t n_bytes = (int64_t)it->n_bytes;
        PGI_TRY(pgi_header_text_tensor(text, it->tensor->name, dtype_name(it->dtype),
                                       is_blocks ? 1 : it->tensor->n_dims, is_blocks ? &n_bytes : it->tensor->shape,
                                       it->at, it->at + it->n_bytes));
    }
    PGI_TRY(pgi_buffer_append(text, "}", 1));
    if (c->target->weights == PG_WEIGHTS_STORED) return pgi_header_text_finish(text);
    return pgi_quantized_store_finish_header(text);
}

/* ---------------------------------------------------------------------------------------------------------- writing */

static pg_status write_chunk(converter *c, const pgi_atomic_file *file, uint64_t begin, item *it, const void *data,
                             uint64_t done, size_t size) {
    it->crc32 = pgi_crc32(it->crc32, data, size);
    PGI_TRY(pgi_atomic_file_write(file, begin + it->at + done, data, size));
    c->done += size;
    return pgi_run_progress(c->run, PG_PHASE_CONVERT, (int64_t)c->done, (int64_t)c->total);
}

/* The factors of a site, which layers side by side share; NULL where there is no site. */
static pg_status factors_of(converter *c, const pgi_calibration_site *site, const float **out) {
    *out = site ? c->factors : NULL;
    if (!site || site == c->site) return PG_OK;
    c->site = NULL;
    PGI_TRY(pgi_calibration_factors(c->memory, c->run, site, c->factors));
    c->site = site;
    return PG_OK;
}

/* begin: of the data in the file. */
static pg_status write_blocks(converter *c, const pgi_atomic_file *file, uint64_t begin, item *it) {
    const int64_t rows = it->tensor->shape[0];
    pgi_quantize_source from = {c->memory,
                                c->files,
                                it->tensor,
                                rows,
                                pgi_stored_tensor_values(it->tensor) / rows,
                                NULL,
                                it->merges ? c->target->changes : NULL};
    const int64_t panel_bytes = pgi_quantized_groups(from.columns) * pgi_quantized_block(it->dtype);
    PGI_TRY(factors_of(c, it->site, &from.factors));
    const int64_t n_panels = pgi_quantized_panels(from.rows), most = (int64_t)c->chunk_bytes / panel_bytes;
    for (int64_t i = 0; i < n_panels;) {
        int64_t end = i + most < n_panels ? i + most : n_panels;
        pg_status status = pgi_quantize_parallel(c->run, &from, it->dtype, i, end, c->chunk);
        if (status == PG_ERROR_ARGUMENT)
            return pgi_error_context(status, "%s: tensor %s", it->tensor->file, it->tensor->name);
        if (status < 0) return status;
        PGI_TRY(
            write_chunk(c, file, begin, it, c->chunk, (uint64_t)(i * panel_bytes), (size_t)((end - i) * panel_bytes)));
        i = end;
    }
    return PG_OK;
}

static pg_status write_vector(converter *c, const pgi_atomic_file *file, uint64_t begin, item *it) {
    const int64_t n = pgi_stored_tensor_values(it->tensor), most = (int64_t)(c->chunk_bytes / sizeof(float));
    for (int64_t i = 0; i < n;) {
        int64_t end = i + most < n ? i + most : n;
        PGI_TRY(pgi_tensor_files_read_f32(c->files, it->tensor, i, end, (float *)c->chunk));
        PGI_TRY(
            write_chunk(c, file, begin, it, c->chunk, (uint64_t)i * sizeof(float), (size_t)(end - i) * sizeof(float)));
        i = end;
    }
    return PG_OK;
}

/* The bytes as they are stored. */
static pg_status write_bytes(converter *c, const pgi_atomic_file *file, uint64_t begin, item *it) {
    for (uint64_t at = 0; at < it->n_bytes;) {
        const size_t size = it->n_bytes - at < CHUNK_BYTES ? (size_t)(it->n_bytes - at) : CHUNK_BYTES;
        PGI_TRY(pgi_tensor_files_read(c->files, it->tensor, (size_t)at, size, c->chunk));
        PGI_TRY(write_chunk(c, file, begin, it, c->chunk, at, size));
        at += size;
    }
    return PG_OK;
}

/* Rows of a tensor that adapters change, as f32. */
typedef struct merged_rows {
    const converter *c;
    int64_t first, columns;
    float *rows;
} merged_rows;

static void merge_rows(void *context, int64_t first, int64_t end, int thread) {
    const merged_rows *m = context;
    const pgi_weight_changes *merge = m->c->target->changes;
    (void)thread;
    merge->rows(merge->user, m->first + first, end - first, m->columns, m->rows + first * m->columns);
}

/* Values to the dtype of an item, in place. */
static void round_values(int32_t dtype, float *values, int64_t n) {
    char *out = (char *)values;
    for (int64_t i = 0; i < n && dtype != PG_DTYPE_F32; i++) {
        const uint16_t half = dtype == PG_DTYPE_BF16 ? pgi_bf16_from_f32(values[i]) : pgi_f16_from_f32(values[i]);
        memcpy(out + 2 * i, &half, sizeof half);
    }
}

static pg_status write_merged(converter *c, const pgi_atomic_file *file, uint64_t begin, item *it) {
    const int64_t n = pgi_stored_tensor_values(it->tensor), rows = it->tensor->n_dims > 1 ? it->tensor->shape[0] : 1;
    const int64_t columns = n / rows, size = (int64_t)pgi_dtype_size(it->dtype);
    const int64_t most = (int64_t)(c->chunk_bytes / sizeof(float)) / columns;
    if (most < 1)
        return pgi_error(PG_ERROR_LIMIT, "%s: tensor %s: found rows of %lld values, expected at most %zu",
                         it->tensor->file, it->tensor->name, (long long)columns, c->chunk_bytes / sizeof(float));
    for (int64_t row = 0, end; row < rows; row = end) {
        end = row + most < rows ? row + most : rows;
        merged_rows m = {c, row, columns, (float *)(void *)c->chunk};
        PGI_TRY(pgi_tensor_files_read_f32(c->files, it->tensor, row * columns, end * columns, m.rows));
        PGI_TRY(pgi_parallel_for(c->run, end - row, 1, merge_rows, &m));
        round_values(it->dtype, m.rows, (end - row) * columns);
        PGI_TRY(write_chunk(c, file, begin, it, c->chunk, (uint64_t)(row * columns * size),
                            (size_t)((end - row) * columns * size)));
    }
    return PG_OK;
}

static pg_status write_item(converter *c, const pgi_atomic_file *file, uint64_t begin, item *it) {
    if (it->merges) PGI_TRY(c->target->changes->begin(c->target->changes->user, it->tensor));
    if (pgi_dtype_is_blocks(it->dtype)) return write_blocks(c, file, begin, it);
    if (it->merges) return write_merged(c, file, begin, it);
    if (c->target->weights == PG_WEIGHTS_STORED) return write_bytes(c, file, begin, it);
    if (it->tensor->n_dims == 1) return write_vector(c, file, begin, it);
    return write_chunk(c, file, begin, it, it->tensor->data, 0, (size_t)it->n_bytes); /* the position embedding */
}

static void file_name(const converter *c, uint32_t file, char name[64]) {
    if (c->n_files == 1)
        snprintf(name, 64, "model.safetensors");
    else
        snprintf(name, 64, "model-%05u-of-%05u.safetensors", file + 1, c->n_files);
}

static pg_status write_weights(converter *c, uint32_t index, pgi_buffer *header) {
    char name[64];
    pgi_atomic_file file;
    uint64_t size = 0;
    PGI_TRY(make_header(c, index, header));
    const size_t begin = header->size;
    size_t n;
    item *items = items_of(c, index, &n);
    if (n > 0) size = begin + items[n - 1].at + items[n - 1].n_bytes;
    file_name(c, index, name);
    PGI_TRY(pgi_atomic_file_open(&c->out, name, size, &file));
    pg_status status = PG_OK;
    for (size_t i = 0; i < n && status >= 0; i++) status = write_item(c, &file, begin, &items[i]);
    if (status >= 0) status = make_header(c, index, header);
    if (status >= 0 && header->size != begin) status = pgi_error(PG_ERROR_INTERNAL, "a header that grew");
    if (status >= 0) status = pgi_atomic_file_write(&file, 0, header->data, begin);
    return pgi_atomic_file_close(&file, status);
}

static pg_status write_small_file(converter *c, const char *name, const pgi_buffer *text) {
    pgi_atomic_file file;
    PGI_TRY(pgi_atomic_file_open(&c->out, name, text->size, &file));
    return pgi_atomic_file_close(&file, pgi_atomic_file_write(&file, 0, text->data, text->size));
}

static pg_status write_index(converter *c, pgi_buffer *text) {
    char name[64];
    text->size = 0;
    PGI_TRY(
        pgi_buffer_printf(text, "{\"metadata\":{\"total_size\":%llu},\"weight_map\":{", (unsigned long long)c->total));
    for (size_t i = 0; i < c->n_items; i++) {
        file_name(c, c->items[i].file, name);
        PGI_TRY(pgi_header_text_key(text, "", c->items[i].tensor->name));
        PGI_TRY(pgi_buffer_printf(text, ":\"%s\"", name));
    }
    PGI_TRY(pgi_buffer_append(text, "}}", 2));
    char *comma = strstr((char *)text->data, "{,"); /* before the first key */
    if (comma) comma[1] = ' ';
    return write_small_file(c, "model.safetensors.index.json", text);
}

/* A file of the source to `text`; *has: it is there. */
/* What is copied must belong to the folder. */
static pg_status check_copied(const converter *c) {
    for (size_t i = 0; i < sizeof copied_files / sizeof *copied_files; i++) {
        char *path = pgi_path_join(c->memory, c->source, copied_files[i]);
        if (!path) return PG_ERROR_MEMORY;
        pg_status status = pgi_file_exists(path) ? pgi_hf_cache_check_inside(c->source, path) : PG_OK;
        pgi_free(c->memory, path);
        if (status < 0) return status;
    }
    return PG_OK;
}

static pg_status read_source(const converter *c, const char *name, pgi_buffer *text, int *has) {
    char *path = pgi_path_join(c->memory, c->source, name);
    if (!path) return PG_ERROR_MEMORY;
    *has = pgi_file_exists(path);
    text->size = 0;
    pg_status status = *has ? pgi_file_read(path, MAX_COPY, text) : PG_OK;
    pgi_free(c->memory, path);
    return status;
}

static pg_status write_all(converter *c, pgi_buffer *text) {
    int has;
    PGI_TRY(read_source(c, "config.json", text, &has));
    c->config_crc32 = pgi_crc32(0, text->data, text->size);
    c->chunk = pgi_alloc(c->memory, c->chunk_bytes, 1);
    if (!c->chunk) return PG_ERROR_MEMORY;
    PGI_TRY(pgi_run_progress(c->run, PG_PHASE_CONVERT, 0, (int64_t)c->total));
    for (uint32_t i = 0; i < c->n_files; i++) PGI_TRY(write_weights(c, i, text));
    if (c->n_files > 1) PGI_TRY(write_index(c, text));
    for (size_t i = 0; i < sizeof copied_files / sizeof *copied_files; i++) {
        PGI_TRY(read_source(c, copied_files[i], text, &has));
        if (has) PGI_TRY(write_small_file(c, copied_files[i], text));
    }
    return PG_OK;
}

static pg_status check_calibration(converter *c) {
    const pg_calibration *calibration = c->target->calibration;
    uint64_t identity = 0;
    int64_t most = 0;
    PGI_TRY(pgi_calibration_identity(&c->bound, &c->config, c->files, &identity));
    if (identity != calibration->identity)
        return pgi_error(PG_ERROR_ARGUMENT, "%s: the calibration is of another model", c->source);
    if (calibration->n_rows == 0)
        return pgi_error(PG_ERROR_ARGUMENT, "the calibration has no rows, expected some that were added");
    for (int32_t i = 0; i < calibration->n_sites; i++) {
        const int64_t n = pgi_calibration_blocks(&calibration->sites[i]);
        if (n > most) most = n;
    }
    c->factors = pgi_alloc(c->memory, (size_t)most, PGI_FEEDBACK_COLUMNS * PGI_FEEDBACK_COLUMNS * sizeof(float));
    return c->factors ? PG_OK : PG_ERROR_MEMORY;
}

static pg_status open_source(converter *c) {
    PGI_TRY(check_copied(c));
    PGI_TRY(pgi_config_load(c->memory, c->source, &c->config));
    pg_status status = pgi_tensor_files_open(c->memory, c->source, 1, c->run->cancel, &c->files);
    /* quantized ones are wanted: then no matrix is loaded */
    const int32_t wanted = c->target->weights == PG_WEIGHTS_STORED ? PG_WEIGHTS_INT8 : c->target->weights;
    if (status >= 0) status = pgi_weights_bind(c->memory, c->run, &c->config, c->files, wanted, &c->bound);
    if (status >= 0 && c->bound.format != PG_WEIGHTS_STORED)
        status =
            pgi_error(PG_ERROR_UNSUPPORTED, "%s: found weights that were converted to %s, expected F32, BF16 or F16",
                      c->source, pgi_weights_name(c->bound.format));
    if (status >= 0 && c->target->calibration) status = check_calibration(c);
    if (status >= 0) status = pgi_mix_check(c->target->int8_layers, &c->bound, &c->config);
    return status;
}

static void close_source(converter *c) {
    pgi_free(c->memory, c->chunk);
    pgi_free(c->memory, c->factors);
    pgi_free(c->memory, c->items);
    pgi_weights_free(&c->bound);
    pgi_tensor_files_close(&c->files);
    if (c->config.memory) pgi_config_free(&c->config);
}

pg_status pgi_convert(const pgi_memory *memory, const pgi_run *run, const pgi_log *log, const char *model,
                      const pgi_convert_target *target) {
    converter c = {.memory = memory, .run = run, .target = target};
    pgi_buffer text;
    char *source;
    pgi_buffer_init(&text, memory);
    pgi_process_mark_set(&c.owner);
    pg_status status = pgi_hf_cache_find(memory, model, NULL, &source);
    c.source = source;
    if (status >= 0) status = open_source(&c);
    if (status >= 0) status = plan(&c);
    if (status >= 0) status = pgi_atomic_folder_begin(memory, target->out, &c.owner, &c.out);
    if (status >= 0) {
        status = write_all(&c, &text);
        if (status >= 0) /* before the folder gets its name: an error leaves none */
            status = pgi_log_line(log, PG_LOG_INFO, "converted %s to %s: %s, %zu tensors in %u file%s, %llu bytes",
                                  c.source, target->out, pgi_weights_name(target->weights), c.n_items, c.n_files,
                                  c.n_files == 1 ? "" : "s", (unsigned long long)c.total);
        if (status >= 0) status = pgi_atomic_folder_commit(&c.out);
        if (status < 0) status = pgi_atomic_folder_abandon(&c.out, status);
    }
    pgi_buffer_free(&text);
    close_source(&c);
    pgi_free(memory, source);
    pgi_process_mark_free(&c.owner);
    return status;
}
