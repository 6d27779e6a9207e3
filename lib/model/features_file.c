/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Features to bytes and back. */
#include "model/features_file.h"

#include <stdio.h>
#include <string.h>

#include "base/atomic_folder.h"
#include "base/crc32.h"
#include "base/file.h"
#include "checkpoint/quantized_store.h"
#include "model/model_identity.h"

#define FORMAT "libpaligemma-features"
#define TENSOR "features"
enum { MAX_HEADER = 4096, CHUNK_BYTES = 4 << 20 };

/* ---------------------------------------------------------------------------------------------------------- writing */

static size_t data_bytes(const pg_features *features) {
    return pgi_features_count(features->model, features->n_images) * sizeof(float);
}

pg_status pgi_features_header(const pg_features *features, pgi_buffer *out) {
    const pg_model *model = features->model;
    const size_t size = data_bytes(features);
    PGI_TRY(pgi_features_check_finite(features, PG_ERROR_ARGUMENT));
    PGI_TRY(pgi_buffer_append(out, "\0\0\0\0\0\0\0", 8));
    PGI_TRY(pgi_buffer_printf(out,
                              "{\"__metadata__\":{\"format\":\"" FORMAT
                              "\",\"layout_version\":\"%d\",\"model\":\"%016llx\","
                              "\"weights\":\"%s\",\"arithmetic\":\"%s\",\"crc32:" TENSOR
                              "\":\"%08x\",\"header_crc32\":\"00000000\"},"
                              "\"" TENSOR "\":{\"dtype\":\"F32\",\"shape\":[%lld,%d,%d],\"data_offsets\":[0,%zu]}}",
                              PGI_FEATURES_VERSION, (unsigned long long)pgi_model_features_hash(model),
                              pgi_weights_name(model->weights.format), pgi_model_arithmetic_name(model),
                              pgi_crc32(0, features->data, size), (long long)features->n_images,
                              model->config.vision.n_patches, model->config.text.hidden_size, size));
    return pgi_quantized_store_finish_header(out);
}

pg_status pgi_features_save(const pg_features *features, const char *path) {
    const pgi_memory *memory = &features->model->memory;
    pgi_buffer head;
    pgi_buffer_init(&head, memory);
    pg_status status = pgi_features_header(features, &head);
    if (status >= 0) status = pgi_replace_file(memory, path, &head, features->data, data_bytes(features));
    pgi_buffer_free(&head);
    return status;
}

/* ---------------------------------------------------------------------------------------------------------- reading */

typedef struct source {
    const char *name;     /* for messages: the path, or what the bytes are called */
    const pgi_file *file; /* NULL: bytes */
    const uint8_t *bytes;
    size_t size;
    const pg_model *model;
    const uint8_t *text; /* the header's JSON */
    size_t text_size;
    pgi_json_section metadata;
    pgi_tensor_header header;
} source;

static pg_status read_at(const source *from, size_t at, size_t size, void *out) {
    if (from->file) return pgi_file_read_at(from->file, at, size, out);
    memcpy(out, from->bytes + at, size);
    return PG_OK;
}

static pg_status no_features(const source *from, const char *found) {
    return pgi_error(PG_ERROR_FORMAT, "%s: found %s, expected features that were saved", from->name, found);
}

static pg_status read_text(source *from, pgi_buffer *text) {
    uint8_t bytes[8];
    if (from->size < 8) return no_features(from, "less than 8 bytes");
    PGI_TRY(read_at(from, 0, 8, bytes));
    const uint64_t size = pgi_tensor_header_size(bytes);
    if (size > MAX_HEADER) return no_features(from, "a header of more than 4096 bytes");
    if (size > from->size - 8)
        return pgi_error(PG_ERROR_FORMAT,
                         "%s: found %zu bytes, expected a header of %llu behind the first 8: the end is missing",
                         from->name, from->size, (unsigned long long)size);
    PGI_TRY(pgi_buffer_reserve(text, (size_t)size));
    PGI_TRY(read_at(from, 8, (size_t)size, text->data));
    from->text = text->data, from->text_size = text->size = (size_t)size;
    return PG_OK;
}

/* What the file is, and whether its header is as it was written. */
static pg_status check_header(source *from) {
    from->metadata = (pgi_json_section){from->name, "__metadata__: ", from->header.metadata};
    const char *text = pgi_json_field_text(&from->metadata, "format");
    if (!text || strcmp(text, FORMAT) != 0) return no_features(from, "no format \"" FORMAT "\" in its header");
    text = pgi_json_field_text(&from->metadata, "layout_version");
    if (!text || strcmp(text, "1") != 0)
        return pgi_error(PG_ERROR_UNSUPPORTED,
                         "%s: found features of layout version %.20s, expected version %d: a newer libpaligemma wrote "
                         "them, or they are damaged",
                         from->name, text ? text : "(none)", PGI_FEATURES_VERSION);
    uint32_t said, found = 0;
    size_t at;
    PGI_TRY(pgi_quantized_store_read_crc32(&from->metadata, "header_crc32", &said));
    if (!pgi_quantized_store_header_crc32(from->text, from->text_size, &at, &found) || found != said)
        return pgi_error(
            PG_ERROR_FORMAT,
            "%s: found a header with checksum %08x, expected %08x: it was damaged, or rewritten by another "
            "program",
            from->name, found, said);
    return PG_OK;
}

static pg_status check_setting(const source *from, const char *key, const char *expected) {
    const char *found = pgi_json_field_text(&from->metadata, key);
    if (!found) return pgi_json_field_wrong(&from->metadata, PG_ERROR_FORMAT, key, "a text");
    if (strcmp(found, expected) == 0) return PG_OK;
    return pgi_error(PG_ERROR_ARGUMENT,
                     "%s: the features are of a model with %s %.20s, expected %s, as this one was "
                     "opened",
                     from->name, key, found, expected);
}

static pg_status check_model(const source *from, const pgi_stored_tensor *tensor) {
    const pg_model *model = from->model;
    const int64_t rows = model->config.vision.n_patches, columns = model->config.text.hidden_size;
    char hash[20];
    if (tensor->shape[1] != rows || tensor->shape[2] != columns)
        return pgi_error(
            PG_ERROR_ARGUMENT, "%s: the features are of another model: %lld rows of %lld, expected %lld rows of %lld",
            from->name, (long long)tensor->shape[1], (long long)tensor->shape[2], (long long)rows, (long long)columns);
    PGI_TRY(check_setting(from, "weights", pgi_weights_name(model->weights.format)));
    PGI_TRY(check_setting(from, "arithmetic", pgi_model_arithmetic_name(model)));
    const char *found = pgi_json_field_text(&from->metadata, "model");
    if (!found) return pgi_json_field_wrong(&from->metadata, PG_ERROR_FORMAT, "model", "16 hexadecimal digits");
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)pgi_model_features_hash(model));
    if (strcmp(found, hash) == 0) return PG_OK;
    return pgi_error(PG_ERROR_ARGUMENT,
                     "%s: the features are of another model: found the hash %.20s of encoder and projector, expected "
                     "%s, that of %s",
                     from->name, found, hash, pgi_tensor_files_folder(model->files));
}

static pg_status check_tensor(source *from, pgi_stored_tensor *out) {
    const size_t data_at = 8 + from->text_size, data_size = from->size - data_at, n = from->header.n_tensors;
    if (n != 1 || strcmp(from->header.tensors->name, TENSOR) != 0)
        return pgi_error(PG_ERROR_FORMAT, "%s: found %zu tensors%s%s, expected " TENSOR " alone", from->name, n,
                         n ? ", one of them " : "", n ? from->header.tensors->name : "");
    PGI_TRY(pgi_tensor_header_bind(&from->header, from->name, from->text, from->text_size, NULL, data_at, data_size));
    *out = *from->header.tensors;
    if (out->dtype != PG_DTYPE_F32 || out->n_dims != 3 || out->shape[0] < 1 || out->shape[0] > INT32_MAX)
        return pgi_error(PG_ERROR_FORMAT,
                         "%s: tensor " TENSOR
                         ": found %s of %d dimensions, expected F32 of 3, images "
                         "first",
                         from->name, out->dtype_name, out->n_dims);
    return check_model(from, out);
}

/* In parts, so that each is in the CPU's cache for its checksum. */
static pg_status read_data(const source *from, const pgi_stored_tensor *tensor, pg_features *features) {
    uint32_t said, found = 0;
    uint8_t *data = (uint8_t *)features->data;
    PGI_TRY(pgi_quantized_store_read_crc32(&from->metadata, "crc32:" TENSOR, &said));
    for (size_t at = 0; at < tensor->n_bytes; at += CHUNK_BYTES) {
        const size_t n = tensor->n_bytes - at < CHUNK_BYTES ? tensor->n_bytes - at : CHUNK_BYTES;
        PGI_TRY(read_at(from, (size_t)tensor->offset + at, n, data + at));
        found = pgi_crc32(found, data + at, n);
    }
    if (found != said)
        return pgi_error(PG_ERROR_FORMAT, "%s: found data with checksum %08x, expected %08x: the features are damaged",
                         from->name, found, said);
    const pg_status status = pgi_features_check_finite(features, PG_ERROR_FORMAT);
    return status < 0 ? pgi_error(status, "%s: %s", from->name, pgi_error_text()) : PG_OK;
}

static pg_status load(source *from, pg_features **out) {
    pg_features *features = NULL;
    pgi_stored_tensor tensor = {0};
    pgi_buffer text;
    pgi_buffer_init(&text, &from->model->memory);
    pg_status status = read_text(from, &text);
    if (status >= 0)
        status = pgi_tensor_header_read(text.memory, from->name, text.data, text.size, NULL, &from->header);
    if (status >= 0) status = check_header(from);
    if (status >= 0) status = check_tensor(from, &tensor);
    if (status >= 0) status = pgi_features_new(from->model, tensor.shape[0], &features);
    if (status >= 0) status = read_data(from, &tensor, features);
    pgi_tensor_header_free(&from->header);
    pgi_buffer_free(&text);
    if (status < 0)
        pgi_features_release(features);
    else
        *out = features;
    return status;
}

pg_status pgi_features_load(const pg_model *model, const char *path, pg_features **out) {
    pgi_file file;
    PGI_TRY(pgi_file_open(path, &file));
    pg_status status = load(&(source){.name = path, .file = &file, .size = file.size, .model = model}, out);
    pgi_file_close(&file);
    return status;
}

pg_status pgi_features_from_bytes(const pg_model *model, const void *bytes, size_t size, pg_features **out) {
    return load(&(source){.name = "the bytes", .bytes = bytes, .size = size, .model = model}, out);
}
