/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The header of a safetensors file (github.com/huggingface/safetensors): 8 bytes of its size, little-endian; JSON
 * {name: {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__": {...}}; then the data.
 */
#include "checkpoint/tensor_header.h"

#include <stdlib.h>
#include <string.h>

#include "checkpoint/diagnose.h"
#include "kernels/matrix.h"

enum { MAX_HEADER_VALUES = 1000000, MAX_DIMS = 8, MAX_NAME = 1024 };

static const struct {
    const char *name;
    int32_t dtype; /* 0: no PG_DTYPE_* */
    uint32_t bits;
} dtypes[] = {{"F32", PG_DTYPE_F32, 32},
              {"BF16", PG_DTYPE_BF16, 16},
              {"F16", PG_DTYPE_F16, 16},
              {"I64", PG_DTYPE_I64, 64},
              {"I32", PGI_DTYPE_I32, 32},
              {"U8", PGI_DTYPE_U8, 8},
              {"F64", 0, 64},
              {"C64", 0, 64},
              {"U64", 0, 64},
              {"U32", 0, 32},
              {"I16", 0, 16},
              {"U16", 0, 16},
              {"I8", 0, 8},
              {"BOOL", 0, 8},
              {"F8_E4M3", 0, 8},
              {"F8_E5M2", 0, 8},
              {"F8_E8M0", 0, 8},
              {"F6_E2M3", 0, 6},
              {"F6_E3M2", 0, 6},
              {"F4", 0, 4}};

static pg_status read_offset(const char *path, const char *name, const pgi_json *node, size_t limit, size_t *out) {
    if (!pgi_json_is(node, PGI_JSON_INTEGER) || pgi_json_integer(node) < 0 ||
        (uint64_t)pgi_json_integer(node) > limit) {
        char found[PGI_JSON_DESCRIPTION];
        return pgi_error(
            PG_ERROR_FORMAT,
            "%s: tensor %s: found %s in data_offsets, expected an offset from 0 to %zu, where the file ends", path,
            name, pgi_json_describe(node, found, sizeof found), limit);
    }
    *out = (size_t)pgi_json_integer(node);
    return PG_OK;
}

/* The name of a dtype lives on: a known one's here, another one's in `names`. */
static pg_status keep_dtype(pgi_json_doc *names, const pgi_json *node, pgi_stored_tensor *out, uint32_t *bits) {
    const char *name = pgi_json_text(node);
    *bits = 0;
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        if (strcmp(name, dtypes[i].name) != 0) continue;
        out->dtype = dtypes[i].dtype;
        out->dtype_name = dtypes[i].name;
        *bits = dtypes[i].bits;
        return PG_OK;
    }
    return pgi_json_copy_text(names, name, strlen(name), &out->dtype_name);
}

/* One entry of a header. */
static pg_status read_entry(pgi_json_doc *names, const char *path, const char *name, const pgi_json *entry,
                            size_t data_at, size_t data_size, pgi_stored_tensor *out) {
    char found[PGI_JSON_DESCRIPTION];
    *out = (pgi_stored_tensor){.name = name, .file = path};
    if (!pgi_json_is(entry, PGI_JSON_OBJECT))
        return pgi_error(PG_ERROR_FORMAT, "%s: tensor %s: found %s, expected an object with dtype, shape, data_offsets",
                         path, name, pgi_json_describe(entry, found, sizeof found));

    const pgi_json *dtype = pgi_json_get(entry, "dtype");
    if (!pgi_json_is(dtype, PGI_JSON_STRING))
        return pgi_error(PG_ERROR_FORMAT, "%s: tensor %s: dtype: found %s, expected a name such as BF16", path, name,
                         pgi_json_describe(dtype, found, sizeof found));
    uint32_t bits;
    PGI_TRY(keep_dtype(names, dtype, out, &bits));

    const pgi_json *shape = pgi_json_get(entry, "shape");
    if (!pgi_json_is(shape, PGI_JSON_ARRAY))
        return pgi_error(PG_ERROR_FORMAT, "%s: tensor %s: shape: found %s, expected an array", path, name,
                         pgi_json_describe(shape, found, sizeof found));
    if (pgi_json_n_items(shape) > MAX_DIMS)
        return pgi_error(PG_ERROR_LIMIT, "%s: tensor %s: shape: found %zu dimensions, expected at most %d", path, name,
                         pgi_json_n_items(shape), MAX_DIMS);
    out->n_dims = (int32_t)pgi_json_n_items(shape);
    size_t n = 1;
    for (int32_t i = 0; i < out->n_dims; i++) {
        const pgi_json *size = pgi_json_item(shape, (size_t)i);
        if (!pgi_json_is(size, PGI_JSON_INTEGER) || pgi_json_integer(size) < 0)
            return pgi_error(PG_ERROR_FORMAT, "%s: tensor %s: shape[%d]: found %s, expected a size of 0 or more", path,
                             name, i, pgi_json_describe(size, found, sizeof found));
        out->shape[i] = pgi_json_integer(size);
        if (!pgi_mul_size(n, (size_t)out->shape[i], &n))
            return pgi_error(PG_ERROR_FORMAT, "%s: tensor %s: shape: its product does not fit in 64 bits", path, name);
    }

    const pgi_json *offsets = pgi_json_get(entry, "data_offsets");
    if (!pgi_json_is(offsets, PGI_JSON_ARRAY) || pgi_json_n_items(offsets) != 2)
        return pgi_error(PG_ERROR_FORMAT, "%s: tensor %s: data_offsets: found %s, expected an array of 2", path, name,
                         pgi_json_describe(offsets, found, sizeof found));
    size_t begin = 0, end = 0, n_bits;
    PGI_TRY(read_offset(path, name, pgi_json_item(offsets, 0), data_size, &begin));
    PGI_TRY(read_offset(path, name, pgi_json_item(offsets, 1), data_size, &end));
    if (begin > end)
        return pgi_error(PG_ERROR_FORMAT, "%s: tensor %s: data_offsets: found [%zu, %zu], expected begin <= end", path,
                         name, begin, end);
    /* A dtype that the format does not have yet: its size cannot be checked, and no tensor that we use has it. */
    if (bits && (!pgi_mul_size(n, bits, &n_bits) || n_bits % 8 || n_bits / 8 != end - begin))
        return pgi_error(PG_ERROR_FORMAT,
                         "%s: tensor %s: found %zu bytes in data_offsets, expected %zu x %u bits as shape and "
                         "dtype %s say",
                         path, name, end - begin, n, bits, out->dtype_name);
    out->offset = data_at + begin;
    out->n_bytes = end - begin;
    return PG_OK;
}

static int by_offset(const void *a, const void *b) {
    const pgi_stored_tensor *x = a, *y = b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    if (x->n_bytes != y->n_bytes) return x->n_bytes < y->n_bytes ? -1 : 1; /* empty ones first */
    return strcmp(x->name, y->name); /* so that every system's qsort() finds the same fault */
}

/* The tensors of a file lie one behind the other and fill it: no overlap, no hole, nothing left over. */
static pg_status check_layout(const char *path, pgi_stored_tensor *tensors, size_t n, size_t data_at,
                              size_t data_size) {
    size_t at = 0;
    if (n > 0) qsort(tensors, n, sizeof *tensors, by_offset);
    for (size_t i = 0; i < n; i++) {
        size_t begin = (size_t)tensors[i].offset - data_at;
        if (begin != at)
            return pgi_error(
                PG_ERROR_FORMAT, "%s: tensor %s: found its data at offset %zu, expected %zu: it %s", path,
                tensors[i].name, begin, at,
                begin < at ? "overlaps the tensor before it" : "leaves a hole behind the tensor before it");
        at += tensors[i].n_bytes;
    }
    if (at != data_size)
        return pgi_error(PG_ERROR_FORMAT, "%s: found %zu bytes of data, expected %zu as the header says", path,
                         data_size, at);
    return PG_OK;
}

int pgi_stored_tensor_order(const void *a, const void *b) {
    const pgi_stored_tensor *x = a, *y = b;
    const int order = strcmp(x->name, y->name);
    if (order != 0 || x->offset == y->offset) return order;
    return x->offset < y->offset ? -1 : 1;
}

/* The entries' names, and where they stand. */
static pg_status read_names(pgi_json_reader *reader, pgi_tensor_header *out, size_t capacity) {
    int first = 1, more;
    PGI_TRY(pgi_json_open(reader, '{'));
    for (;;) {
        PGI_TRY(pgi_json_next(reader, '{', &first, &more));
        if (!more) return PG_OK;
        const pgi_buffer *key = &reader->text;
        if (key->size == strlen("__metadata__") && memcmp(key->data, "__metadata__", key->size) == 0 &&
            !out->metadata) {
            PGI_TRY(pgi_json_read(&out->metadata_doc, reader, PGI_JSON_STRICT, &out->metadata));
            continue;
        }
        if (out->n_tensors == capacity) return pgi_json_expected(reader, "the end of the header");
        pgi_stored_tensor *tensor = &out->tensors[out->n_tensors++];
        *tensor = (pgi_stored_tensor){.file = reader->file, .offset = reader->key_at};
        if (key->size && memchr(key->data, 0, key->size)) {
            reader->at = reader->key_at;
            return pgi_json_error(reader, PG_ERROR_FORMAT, "found \\u0000 in a key, expected other characters");
        }
        if (key->size > MAX_NAME)
            return pgi_error(PG_ERROR_LIMIT, "%s: found a tensor name of %zu bytes, \"%.60s...\", expected at most %d",
                             reader->file, key->size, (const char *)key->data, MAX_NAME);
        PGI_TRY(pgi_json_copy_text(&out->names, (const char *)key->data, key->size, &tensor->name));
        PGI_TRY(pgi_json_skip(reader, NULL, NULL));
    }
}

/* Two values under one key are refused: two readers might take different ones. */
static pg_status check_names(pgi_json_reader *reader, pgi_tensor_header *header) {
    if (header->n_tensors) qsort(header->tensors, header->n_tensors, sizeof *header->tensors, pgi_stored_tensor_order);
    for (size_t i = 0; i < header->n_tensors; i++) {
        const pgi_stored_tensor *tensor = &header->tensors[i];
        if (strcmp(tensor->name, "__metadata__") != 0 && (i == 0 || strcmp(tensor[-1].name, tensor->name) != 0))
            continue;
        reader->at = (size_t)tensor->offset;
        return pgi_json_error(reader, PG_ERROR_FORMAT, "found the duplicate key \"%.60s\", expected each key once",
                              tensor->name);
    }
    return PG_OK;
}

/* The syntax of the whole, and the most tensors that it may have. */
static pg_status check_syntax(pgi_json_reader *reader, size_t *n) {
    int first = 1, more;
    *n = 0;
    reader->max_values = MAX_HEADER_VALUES;
    if (pgi_json_peek(reader) != '{') { /* another value, or none */
        PGI_TRY(pgi_json_skip(reader, NULL, NULL));
        return pgi_json_end(reader);
    }
    PGI_TRY(pgi_json_open(reader, '{'));
    for (;; ++*n) {
        PGI_TRY(pgi_json_next(reader, '{', &first, &more));
        if (!more) return pgi_json_end(reader);
        if (*n > PGI_MAX_TENSORS)
            return pgi_error(PG_ERROR_LIMIT, "%s: found more than %d tensors, expected at most that many", reader->file,
                             PGI_MAX_TENSORS);
        PGI_TRY(pgi_json_skip(reader, NULL, NULL));
    }
}

static pg_status read_text(pgi_json_reader *reader, pgi_tensor_header *out) {
    size_t n;
    reader->is_whole = 1;
    PGI_TRY(check_syntax(reader, &n));
    reader->at = reader->n_values = 0;
    if (pgi_json_peek(reader) != '{') {
        const pgi_json *other;
        char found[PGI_JSON_DESCRIPTION];
        PGI_TRY(pgi_json_read(&out->metadata_doc, reader, PGI_JSON_STRICT, &other));
        return pgi_error(PG_ERROR_FORMAT, "%s: found %s, expected a JSON object", reader->file,
                         pgi_json_describe(other, found, sizeof found));
    }
    out->tensors = pgi_alloc(out->names.memory, n, sizeof *out->tensors);
    if (!out->tensors) return PG_ERROR_MEMORY;
    PGI_TRY(read_names(reader, out, n));
    return check_names(reader, out);
}

pg_status pgi_tensor_header_read(const pgi_memory *memory, const char *path, const void *text, size_t size,
                                 const pg_cancel *cancel, pgi_tensor_header *out) {
    pgi_json_reader reader;
    *out = (pgi_tensor_header){.metadata = NULL};
    pgi_json_doc_init(&out->names, memory);
    pgi_json_doc_init(&out->metadata_doc, memory);
    pgi_json_reader_init(&reader, memory, path, text, size);
    reader.cancel = cancel;
    const pg_status status = read_text(&reader, out);
    pgi_json_reader_free(&reader);
    return status == PG_ERROR_FORMAT ? pgi_diagnose_bytes(status, path, text, size) : status;
}

pg_status pgi_tensor_header_bind(pgi_tensor_header *header, const char *path, const void *text, size_t size,
                                 const pg_cancel *cancel, size_t data_at, size_t data_size) {
    pg_status status = PG_OK;
    pgi_json_reader reader;
    pgi_json_doc entry; /* of one tensor at a time */
    pgi_json_reader_init(&reader, header->names.memory, path, text, size);
    pgi_json_doc_init(&entry, header->names.memory);
    reader.is_whole = 1;
    reader.cancel = cancel;
    for (size_t i = 0; i < header->n_tensors && status >= 0; i++) {
        pgi_stored_tensor *tensor = &header->tensors[i];
        const pgi_json *node;
        reader.at = (size_t)tensor->offset;
        status = pgi_json_key(&reader);
        if (status >= 0) status = pgi_json_read(&entry, &reader, PGI_JSON_STRICT, &node);
        if (status >= 0) status = read_entry(&header->names, path, tensor->name, node, data_at, data_size, tensor);
        pgi_json_doc_empty(&entry);
    }
    pgi_json_doc_free(&entry);
    pgi_json_reader_free(&reader);
    return status < 0 ? status : check_layout(path, header->tensors, header->n_tensors, data_at, data_size);
}

void pgi_tensor_header_free_metadata(pgi_tensor_header *header) {
    pgi_json_doc_free(&header->metadata_doc);
    header->metadata = NULL;
}

void pgi_tensor_header_free_tensors(pgi_tensor_header *header) {
    if (header->tensors) pgi_free(header->names.memory, header->tensors);
    header->tensors = NULL;
    header->n_tensors = 0;
}

void pgi_tensor_header_free(pgi_tensor_header *header) {
    pgi_tensor_header_free_tensors(header);
    pgi_tensor_header_free_metadata(header);
    pgi_json_doc_free(&header->names);
}

uint64_t pgi_tensor_header_size(const uint8_t *bytes) {
    uint64_t size = 0;
    for (int i = 7; i >= 0; i--) size = size << 8 | bytes[i];
    return size;
}

int64_t pgi_stored_tensor_values(const pgi_stored_tensor *tensor) {
    uint64_t n = 1; /* bounded by the bytes of the file */
    for (int i = 0; i < tensor->n_dims; i++) n *= (uint64_t)tensor->shape[i];
    return (int64_t)n;
}

int pgi_stored_tensor_has_shape(const pgi_stored_tensor *tensor, int n_dims, const int64_t *shape) {
    int fits = tensor->n_dims == n_dims;
    for (int i = 0; i < n_dims && fits; i++) fits = shape[i] < 0 ? tensor->shape[i] > 0 : tensor->shape[i] == shape[i];
    return fits;
}
