/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Reading and checking the metadata of converted folders. */
#include "checkpoint/quantized_store.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32.h"
#include "base/parallel.h"
#include "checkpoint/json_field.h"
#include "checkpoint/tensor_header_text.h"
#include "checkpoint/weight_changes.h"

enum { CHUNK = 4 << 20, PART = 256 << 10 /* of a chunk, read at once */, MAX_CONFIG = 64 << 20 };

static const char *const weights_names[] = {"stored", "int8", "int4"};

const char *pgi_weights_name(int32_t weights) {
    return weights >= PG_WEIGHTS_STORED && weights <= PG_WEIGHTS_INT4 ? weights_names[weights] : NULL;
}

int pgi_quantized_store_header_crc32(const void *text, size_t size, size_t *at, uint32_t *out) {
    static const char key[] = "\"header_crc32\":\"";
    uint8_t size_bytes[8];
    const char *found = pgi_find_bytes(text, size, key, sizeof key - 1);
    if (!found) return 0;
    found += sizeof key - 1;
    *at = (size_t)(found - (const char *)text);
    if (size - *at < 8) return 0;
    for (int i = 0; i < 8; i++) size_bytes[i] = (uint8_t)((uint64_t)size >> (8 * i));
    uint32_t crc = pgi_crc32(0, size_bytes, 8);
    crc = pgi_crc32(crc, text, *at);
    crc = pgi_crc32(crc, "00000000", 8);
    *out = pgi_crc32(crc, found + 8, size - *at - 8);
    return 1;
}

pg_status pgi_quantized_store_finish_header(pgi_buffer *text) {
    size_t at;
    uint32_t crc;
    char digits[9];
    PGI_TRY(pgi_header_text_finish(text));
    if (!pgi_quantized_store_header_crc32(text->data + 8, text->size - 8, &at, &crc))
        return pgi_error(PG_ERROR_INTERNAL, "a header without header_crc32");
    snprintf(digits, sizeof digits, "%08x", crc);
    memcpy(text->data + 8 + at, digits, 8);
    return PG_OK;
}

static pgi_json_section metadata_of(const pgi_tensor_file_info *file) {
    return (pgi_json_section){file->path, "__metadata__: ", file->metadata};
}

pg_status pgi_quantized_store_read_crc32(const pgi_json_section *metadata, const char *key, uint32_t *out) {
    const char *text = pgi_json_field_text(metadata, key);
    *out = 0;
    if (!text || strlen(text) != 8 || strspn(text, "0123456789abcdef") != 8)
        return pgi_json_field_wrong(metadata, PG_ERROR_FORMAT, key, "8 hexadecimal digits");
    *out = (uint32_t)strtoul(text, NULL, 16);
    return PG_OK;
}

/* PG_WEIGHTS_INT8 or _INT4 of a name; 0: another one. */
static int32_t quantized_of_name(const char *text) {
    for (int32_t i = PG_WEIGHTS_INT8; i <= PG_WEIGHTS_INT4; i++)
        if (strcmp(text, weights_names[i]) == 0) return i;
    return 0;
}

typedef struct store_header {
    int32_t weights; /* PG_WEIGHTS_*; PG_WEIGHTS_STORED: not a converted file */
    uint32_t config_crc32;
} store_header;

/* The entries for the whole file. The version comes first: a newer one may have changed all others. */
static pg_status read_header(const pgi_tensor_file_info *file, store_header *out) {
    *out = (store_header){0};
    const pgi_json_section metadata = metadata_of(file);
    const char *format = pgi_json_field_text(&metadata, "format");
    if (!format || strcmp(format, PGI_STORE_FORMAT) != 0) return PG_OK;

    const char *text = pgi_json_field_text(&metadata, "layout_version");
    if (!text || !*text || *text == '0' || strlen(text) > 9 || strspn(text, "0123456789") != strlen(text))
        return pgi_json_field_wrong(&metadata, PG_ERROR_FORMAT, "layout_version", "a whole number of 1 or more");
    if (atoi(text) > PGI_STORE_VERSION_MIX)
        return pgi_error(PG_ERROR_UNSUPPORTED,
                         "%s: found quantized weights of layout version %s, expected at most version %d: the folder "
                         "was converted by a newer libpaligemma",
                         file->path, text, PGI_STORE_VERSION_MIX);

    uint32_t said, found;
    size_t at;
    PGI_TRY(pgi_quantized_store_read_crc32(&metadata, "header_crc32", &said));
    if (!pgi_quantized_store_header_crc32(file->header, file->header_size, &at, &found))
        return pgi_error(PG_ERROR_FORMAT,
                         "%s: found no \"header_crc32\":\"%08x\" without spaces in the header, expected one: it was "
                         "rewritten since the conversion",
                         file->path, said);
    if (found != said)
        return pgi_error(PG_ERROR_FORMAT,
                         "%s: found a header with checksum %08x, expected %08x: it was damaged or rewritten since the "
                         "conversion",
                         file->path, found, said);

    text = pgi_json_field_text(&metadata, "weights");
    if (!text) return pgi_json_field_wrong(&metadata, PG_ERROR_FORMAT, "weights", "int8 or int4");
    out->weights = quantized_of_name(text);
    if (!out->weights)
        return pgi_error(PG_ERROR_UNSUPPORTED, "%s: __metadata__: weights: found \"%.40s\", expected int8 or int4",
                         file->path, text);
    return pgi_quantized_store_read_crc32(&metadata, "config_crc32", &out->config_crc32);
}

/* "[2,3]" to the shape of 2 to 8 sizes of at least 1. */
static int read_shape(const char *text, int64_t shape[8], int32_t *n_dims) {
    *n_dims = 0;
    for (char before = '['; *n_dims < 8; before = ',') {
        char *end;
        if (*text++ != before || *text < '1' || *text > '9') return 0;
        long long size = strtoll(text, &end, 10);
        if (end - text > 18) return 0;
        shape[(*n_dims)++] = size;
        text = end;
        if (*text == ']') return text[1] == '\0' && *n_dims >= 2;
    }
    return 0;
}

/* Bytes of the blocks of a shape; 0: too many. */
static size_t blocks_bytes(int32_t dtype, int32_t n_dims, const int64_t *shape) {
    size_t columns = 1, n;
    for (int32_t i = 1; i < n_dims; i++)
        if (!pgi_mul_size(columns, (size_t)shape[i], &columns)) return 0;
    if (columns > INT64_MAX / 2) return 0;
    size_t panels = (size_t)pgi_quantized_panels(shape[0]), groups = (size_t)pgi_quantized_groups((int64_t)columns);
    if (!pgi_mul_size(panels, groups, &n) || !pgi_mul_size(n, (size_t)pgi_quantized_block(dtype), &n)) return 0;
    return n;
}

/* The kind of a tensor's blocks, where it is not that of the folder, to *weights. */
static pg_status read_kind(const pgi_json_section *metadata, const pgi_stored_tensor *tensor, pgi_buffer *key,
                           int32_t *weights) {
    key->size = 0;
    PGI_TRY(pgi_buffer_printf(key, "blocks:%s", tensor->name));
    if (!pgi_json_field(metadata, (const char *)key->data)) return PG_OK;
    const char *text = pgi_json_field_text(metadata, (const char *)key->data);
    *weights = text ? quantized_of_name(text) : 0;
    return *weights ? PG_OK : pgi_json_field_wrong(metadata, PG_ERROR_FORMAT, (const char *)key->data, "int8 or int4");
}

static pg_status read_tensor(const pgi_tensor_file_info *file, int32_t weights, pgi_buffer *key,
                             pgi_stored_tensor *tensor) {
    const pgi_json_section metadata = metadata_of(file);
    key->size = 0;
    PGI_TRY(pgi_buffer_printf(key, "crc32:%s", tensor->name));
    PGI_TRY(pgi_quantized_store_read_crc32(&metadata, (const char *)key->data, &tensor->crc32));
    key->size = 0;
    PGI_TRY(pgi_buffer_printf(key, "shape:%s", tensor->name));
    if (!pgi_json_field(&metadata, (const char *)key->data)) return PG_OK;

    int32_t dtype, n_dims;
    int64_t shape[8];
    const char *text = pgi_json_field_text(&metadata, (const char *)key->data);
    if (!text || !read_shape(text, shape, &n_dims))
        return pgi_json_field_wrong(&metadata, PG_ERROR_FORMAT, (const char *)key->data,
                                    "2 to 8 sizes such as [1152,4304]");
    PGI_TRY(read_kind(&metadata, tensor, key, &weights));
    dtype = pgi_blocks_of_weights(weights);
    size_t bytes = blocks_bytes(dtype, n_dims, shape);
    if (tensor->dtype != PGI_DTYPE_U8 || tensor->n_bytes != bytes)
        return pgi_error(PG_ERROR_FORMAT,
                         "%s: tensor %s: found %zu bytes of dtype %s, expected %zu of U8: %s blocks of %s", file->path,
                         tensor->name, tensor->n_bytes, tensor->dtype_name, bytes, weights_names[weights], text);
    if (tensor->offset % 64) /* a mapping begins at a multiple, and so does what is loaded */
        return pgi_error(PG_ERROR_FORMAT,
                         "%s: tensor %s: found its blocks %d bytes behind a multiple of 64, expected none", file->path,
                         tensor->name, (int)(tensor->offset % 64));
    tensor->dtype = dtype;
    tensor->n_dims = n_dims;
    memset(tensor->shape, 0, sizeof tensor->shape);
    memcpy(tensor->shape, shape, (size_t)n_dims * sizeof *shape);
    return PG_OK;
}

static pg_status read_tensors(pgi_tensor_files *files, int32_t weights, pgi_buffer *key) {
    for (size_t i = 0; i < pgi_tensor_files_count(files); i++) {
        pgi_stored_tensor *tensor = pgi_tensor_files_at(files, i);
        if (pgi_dtype_is_blocks(tensor->dtype)) continue; /* was read before */
        pgi_tensor_file_info file = pgi_tensor_files_file(files, tensor->file_index);
        PGI_TRY(read_tensor(&file, weights, key, tensor));
    }
    return PG_OK;
}

pg_status pgi_quantized_store_read(const pgi_memory *memory, pgi_tensor_files *files, int32_t *weights) {
    store_header first = {0}, other;
    *weights = PG_WEIGHTS_STORED;
    for (uint32_t i = 0; i < pgi_tensor_files_n_files(files); i++) {
        pgi_tensor_file_info file = pgi_tensor_files_file(files, i);
        PGI_TRY(read_header(&file, &other));
        if (i == 0) first = other;
        if (other.weights != first.weights || other.config_crc32 != first.config_crc32)
            return pgi_error(PG_ERROR_FORMAT, "%s: found %s weights of config %08x, expected %s of %08x as in %s",
                             file.path, weights_names[other.weights], other.config_crc32, weights_names[first.weights],
                             first.config_crc32, pgi_tensor_files_file(files, 0).path);
    }
    if (!first.weights) return PG_OK;
    pgi_buffer key;
    pgi_buffer_init(&key, memory);
    pg_status status = read_tensors(files, first.weights, &key);
    pgi_buffer_free(&key);
    *weights = first.weights;
    return status;
}

typedef struct crc_task {
    const pgi_tensor_files *files;
    const pgi_stored_tensor *tensor;
    uint32_t *crcs;      /* of each chunk */
    uint8_t *parts;      /* [n_threads][PART] */
    atomic_llong failed; /* 1 + a chunk that could not be read; 0: none */
} crc_task;

static pg_status crc_of_chunk(const crc_task *task, int64_t chunk, int thread) {
    uint8_t *part = task->parts + (size_t)thread * PART;
    const size_t begin = (size_t)chunk * CHUNK, left = task->tensor->n_bytes - begin,
                 size = left < CHUNK ? left : CHUNK;
    uint32_t crc = 0;
    for (size_t at = 0; at < size; at += PART) {
        const size_t n = size - at < PART ? size - at : PART;
        PGI_TRY(pgi_tensor_files_read(task->files, task->tensor, begin + at, n, part));
        crc = pgi_crc32(crc, part, n);
    }
    task->crcs[chunk] = crc;
    return PG_OK;
}

static void crc_chunks(void *context, int64_t begin, int64_t end, int thread) {
    crc_task *task = context;
    for (int64_t i = begin; i < end; i++)
        if (crc_of_chunk(task, i, thread) < 0) atomic_store(&task->failed, i + 1);
}

static pg_status verify_tensor(const pgi_run *run, const pgi_stored_tensor *tensor, crc_task *task) {
    const int64_t n = (int64_t)((tensor->n_bytes + CHUNK - 1) / CHUNK);
    task->tensor = tensor;
    atomic_init(&task->failed, 0);
    PGI_TRY(pgi_parallel_for(run, n, 1, crc_chunks, task));
    for (int64_t i = 0; i < n && atomic_load(&task->failed); i++) /* messages belong to a thread: again on this one */
        PGI_TRY(crc_of_chunk(task, i, 0));
    uint32_t crc = n ? task->crcs[0] : 0;
    for (int64_t i = 1; i < n; i++) {
        size_t left = tensor->n_bytes - (size_t)i * CHUNK;
        crc = pgi_crc32_combine(crc, task->crcs[i], left < CHUNK ? left : CHUNK);
    }
    if (crc != tensor->crc32)
        return pgi_error(PG_ERROR_FORMAT, "%s: tensor %s: found data with checksum %08x, expected %08x: it is damaged",
                         tensor->file, tensor->name, crc, tensor->crc32);
    return PG_OK;
}

static pg_status verify_config(const pgi_memory *memory, const pgi_tensor_files *files, uint32_t expected) {
    char *path = pgi_path_join(memory, pgi_tensor_files_folder(files), "config.json");
    if (!path) return PG_ERROR_MEMORY;
    pgi_buffer text;
    pgi_buffer_init(&text, memory);
    pg_status status = pgi_file_read(path, MAX_CONFIG, &text);
    uint32_t found = status < 0 ? 0 : pgi_crc32(0, text.data, text.size);
    if (status >= 0 && found != expected)
        status = pgi_error(PG_ERROR_FORMAT,
                           "%s: found checksum %08x, expected %08x: it was changed or damaged since the conversion",
                           path, found, expected);
    pgi_buffer_free(&text);
    pgi_free(memory, path);
    return status;
}

pg_status pgi_quantized_store_verify(const pgi_memory *memory, const pgi_run *run, pgi_tensor_files *files) {
    store_header header = {0};
    int64_t done = 0, total = 0;
    size_t largest = 0;
    if (pgi_tensor_files_n_files(files)) {
        pgi_tensor_file_info file = pgi_tensor_files_file(files, 0);
        PGI_TRY(read_header(&file, &header));
    }
    if (!header.weights)
        return pgi_error(PG_ERROR_UNSUPPORTED,
                         "%s: found no checksums to verify, expected a folder that pg_model_convert() wrote",
                         pgi_tensor_files_folder(files));
    PGI_TRY(verify_config(memory, files, header.config_crc32));
    for (size_t i = 0; i < pgi_tensor_files_count(files); i++) {
        const pgi_stored_tensor *tensor = pgi_tensor_files_at(files, i);
        total += (int64_t)tensor->n_bytes;
        if (tensor->n_bytes > largest) largest = tensor->n_bytes;
    }
    crc_task task = {.files = files,
                     .crcs = pgi_alloc(memory, largest / CHUNK + 1, sizeof *task.crcs),
                     .parts = pgi_alloc(memory, (size_t)run->n_threads, PART)};
    pg_status status = task.crcs && task.parts ? pgi_run_progress(run, PG_PHASE_VERIFY, 0, total) : PG_ERROR_MEMORY;
    for (size_t i = 0; i < pgi_tensor_files_count(files) && status >= 0; i++) {
        const pgi_stored_tensor *tensor = pgi_tensor_files_at(files, i);
        status = verify_tensor(run, tensor, &task);
        done += (int64_t)tensor->n_bytes;
        if (status >= 0) status = pgi_run_progress(run, PG_PHASE_VERIFY, done, total);
    }
    pgi_free(memory, task.crcs);
    pgi_free(memory, task.parts);
    return status;
}

typedef struct quantize_task {
    const pgi_quantize_source *from;
    int32_t dtype;
    int64_t first, panel_bytes;
    uint8_t *rows;    /* [n_threads][PGI_PANEL_ROWS][row_bytes] */
    size_t row_bytes; /* of a row as stored */
    uint8_t *out;
    atomic_llong failed; /* 1 + a panel that could not be quantized; 0: none */
} quantize_task;

static pg_status quantize_panel(const quantize_task *task, int64_t panel, int thread) {
    const pgi_quantize_source *from = task->from;
    const int64_t row = panel * PGI_PANEL_ROWS, left = from->rows - row;
    const size_t n_rows = (size_t)(left < PGI_PANEL_ROWS ? left : PGI_PANEL_ROWS);
    uint8_t *rows = task->rows + (size_t)thread * PGI_PANEL_ROWS * task->row_bytes;
    const pgi_matrix matrix = {
        .data = rows, .dtype = from->tensor->dtype, .rows = from->rows, .columns = from->columns};
    uint8_t *out = task->out + (panel - task->first) * task->panel_bytes;
    if (from->changes) {
        float *values = (float *)(void *)rows;
        const int64_t begin = row * from->columns, end = begin + (int64_t)n_rows * from->columns;
        const pgi_matrix merged = {.data = rows, .dtype = PG_DTYPE_F32, .rows = from->rows, .columns = from->columns};
        PGI_TRY(pgi_tensor_files_read_f32(from->files, from->tensor, begin, end, values));
        from->changes->rows(from->changes->user, row, (int64_t)n_rows, from->columns, values);
        return pgi_quantize_panels(&merged, row, task->dtype, panel, panel + 1, out);
    }
    PGI_TRY(pgi_tensor_files_read(from->files, from->tensor, (size_t)row * task->row_bytes, n_rows * task->row_bytes,
                                  rows));
    if (from->factors) return pgi_quantize_panels_feeding(&matrix, row, from->factors, panel, panel + 1, out);
    return pgi_quantize_panels(&matrix, row, task->dtype, panel, panel + 1, out);
}

static void quantize_panels(void *context, int64_t begin, int64_t end, int thread) {
    quantize_task *task = context;
    for (int64_t i = begin; i < end; i++)
        if (quantize_panel(task, task->first + i, thread) < 0) atomic_store(&task->failed, task->first + i + 1);
}

pg_status pgi_quantize_parallel(const pgi_run *run, const pgi_quantize_source *from, int32_t dtype, int64_t begin,
                                int64_t end, void *out) {
    quantize_task task = {
        .from = from,
        .dtype = dtype,
        .first = begin,
        .panel_bytes = pgi_quantized_groups(from->columns) * pgi_quantized_block(dtype),
        .row_bytes = (size_t)from->columns * pgi_dtype_size(from->changes ? PG_DTYPE_F32 : from->tensor->dtype),
        .out = out};
    task.rows = pgi_alloc(from->memory, (size_t)run->n_threads * PGI_PANEL_ROWS, task.row_bytes);
    if (!task.rows) return PG_ERROR_MEMORY;
    atomic_init(&task.failed, 0);
    pg_status status = pgi_parallel_for(run, end - begin, 1, quantize_panels, &task);
    if (status >= 0 && atomic_load(&task.failed)) /* messages belong to a thread: all again on this one */
        for (int64_t panel = begin; panel < end && status >= 0; panel++) status = quantize_panel(&task, panel, 0);
    pgi_free(from->memory, task.rows);
    return status;
}
