/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The safetensors files of a folder: one, or the shards of an index {"weight_map": {name: file}}, as transformers reads
 * them. What a file's header says: tensor_header.c.
 */
#include "checkpoint/safetensors.h"

#include <stdlib.h>
#include <string.h>

#include "base/float16.h"
#include "checkpoint/diagnose.h"
#include "checkpoint/json.h"
#include "kernels/matrix.h"

enum { MAX_SHARDS = 4096 };
/* The largest published models have 300 kB of either. */
#define MAX_HEADER ((size_t)16 * 1000 * 1000)
#define MAX_HEADERS ((size_t)32 * 1000 * 1000) /* of all shards: many names may lead to one file */
#define MAX_INDEX ((size_t)16 * 1000 * 1000)

typedef struct tensor_file {
    char *path;
    pgi_file file; /* closed by pgi_tensor_files_finish(), unless it is mapped */
    pgi_mapping mapping;
    pgi_buffer text;          /* of the header */
    pgi_tensor_header header; /* its names stay; its tensors are those of all files, below */
} tensor_file;

struct pgi_tensor_files {
    pgi_memory memory;
    char *folder;
    tensor_file *files;
    uint32_t n_files;
    int in_memory;
    const pg_cancel *cancel; /* while it is opened */
    const char *name;        /* likewise: of the one file that is wanted; NULL: those of the folder */
    size_t n_header_bytes;   /* of the files opened so far */
    uint64_t n_bytes_mapped, n_bytes_loaded;
    pgi_stored_tensor *tensors;
    size_t n_tensors, capacity;
};

/* The size of the header, which lies within the file. */
static pg_status read_header_size(const tensor_file *file, uint64_t *out) {
    uint8_t bytes[8];
    size_t size = file->file.size;
    if (size < 8)
        return pgi_error(PG_ERROR_FORMAT,
                         "%s: found %zu bytes, expected a safetensors file (8 bytes of header size first)", file->path,
                         size);
    PGI_TRY(pgi_file_read_at(&file->file, 0, 8, bytes));
    const uint64_t header_size = pgi_tensor_header_size(bytes);
    if (header_size > size - 8)
        return pgi_error(PG_ERROR_FORMAT,
                         "%s: found a header size of %llu bytes, expected at most %zu, where the file ends", file->path,
                         (unsigned long long)header_size, size - 8);
    if (header_size > MAX_HEADER)
        return pgi_error(PG_ERROR_LIMIT, "%s: found a header size of %llu bytes, expected at most %zu", file->path,
                         (unsigned long long)header_size, MAX_HEADER);
    *out = header_size;
    return PG_OK;
}

static pg_status read_header(pgi_tensor_files *files, tensor_file *file) {
    uint64_t size = 0;
    pg_status status = read_header_size(file, &size);
    if (status < 0) return pgi_diagnose_file(status, file->path);
    files->n_header_bytes += (size_t)size;
    if (files->n_header_bytes > MAX_HEADERS)
        return pgi_error(PG_ERROR_LIMIT,
                         "%s: found headers of %zu bytes up to this shard, expected at most %zu together", file->path,
                         files->n_header_bytes, MAX_HEADERS);
    PGI_TRY(pgi_buffer_reserve(&file->text, (size_t)size));
    PGI_TRY(pgi_file_read_at(&file->file, 8, (size_t)size, file->text.data));
    file->text.size = (size_t)size;
    return pgi_tensor_header_read(&files->memory, file->path, file->text.data, file->text.size, files->cancel,
                                  &file->header);
}

/* Opens files->files[index] and appends its tensors. */
static pg_status open_file(pgi_tensor_files *files, uint32_t index) {
    tensor_file *file = &files->files[index];
    pgi_tensor_header *header = &file->header;
    PGI_TRY(pgi_file_open(file->path, &file->file));
    PGI_TRY(read_header(files, file));
    if (!files->in_memory) PGI_TRY(pgi_file_map(&file->file, &file->mapping));
    files->n_bytes_mapped += file->mapping.size;

    const size_t data_at = 8 + file->text.size, data_size = file->file.size - data_at;
    PGI_TRY(pgi_tensor_header_bind(header, file->path, file->text.data, file->text.size, files->cancel, data_at,
                                   data_size));
    for (pgi_stored_tensor *tensor = header->tensors; tensor < header->tensors + header->n_tensors; tensor++) {
        if (file->mapping.data) tensor->data = file->mapping.data + tensor->offset;
        tensor->file_index = index;
    }
    const size_t n = files->n_tensors + header->n_tensors;
    if (n > PGI_MAX_TENSORS)
        return pgi_error(PG_ERROR_LIMIT, "%s: found %zu tensors up to this shard, expected at most %d in all shards",
                         file->path, n, PGI_MAX_TENSORS);
    PGI_TRY(pgi_grow(&files->memory, &files->tensors, &files->capacity, n, sizeof *files->tensors));
    if (header->n_tensors)
        memcpy(files->tensors + files->n_tensors, header->tensors, header->n_tensors * sizeof *files->tensors);
    files->n_tensors = n;
    pgi_tensor_header_free_tensors(header);
    return PG_OK;
}

static pg_status add_file(pgi_tensor_files *files, const char *name) {
    tensor_file *file = &files->files[files->n_files];
    *file = (tensor_file){.path = pgi_path_join(&files->memory, files->folder, name), .file.fd = -1};
    pgi_buffer_init(&file->text, &files->memory);
    if (!file->path) return PG_ERROR_MEMORY;
    files->n_files++;
    return PG_OK;
}

/* A shard is a file of the folder: "model-00001-of-00003.safetensors", never a path. */
static pg_status check_shard_name(const char *index_path, const char *tensor, const pgi_json *node) {
    char found[PGI_JSON_DESCRIPTION];
    const char *name = pgi_json_text(node);
    if (!name || !*name || strchr(name, '/') || strchr(name, '\\') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return pgi_error(PG_ERROR_FORMAT,
                         "%s: weight_map: %s: found %s, expected the name of a file in the same folder", index_path,
                         tensor, pgi_json_describe(node, found, sizeof found));
    return PG_OK;
}

static int compare_name(const void *key, const void *element) {
    return strcmp(key, ((const pgi_stored_tensor *)element)->name);
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* Sorts by name. Of a name in several shards the one that the index names is kept. */
static pg_status sort_tensors(pgi_tensor_files *files, const pgi_json *weight_map) {
    pgi_stored_tensor *t = files->tensors;
    size_t n_kept = 0;
    if (files->n_tensors) qsort(t, files->n_tensors, sizeof *t, pgi_stored_tensor_order);
    for (size_t i = 0; i < files->n_tensors; i++) {
        if (n_kept == 0 || strcmp(t[n_kept - 1].name, t[i].name) != 0) {
            t[n_kept++] = t[i];
            continue;
        }
        const char *wanted = pgi_json_text(pgi_json_get(weight_map, t[i].name));
        if (!wanted)
            return pgi_error(PG_ERROR_FORMAT,
                             "%s: tensor %s: found it in %s too, expected it once or named in the index", t[i].file,
                             t[i].name, base_name(t[n_kept - 1].file));
        if (strcmp(base_name(t[i].file), wanted) == 0) t[n_kept - 1] = t[i];
    }
    files->n_tensors = n_kept;
    return PG_OK;
}

/* Every entry of the index is in the shard that it names. */
static pg_status check_index(pgi_tensor_files *files, const char *index_path, const pgi_json *weight_map) {
    const char *name;
    const pgi_json *node;
    for (size_t i = 0; (node = pgi_json_member(weight_map, i, &name)) != NULL; i++) {
        const char *shard = pgi_json_text(node);
        const pgi_stored_tensor *tensor = pgi_tensor_files_find(files, name);
        if (!tensor || strcmp(base_name(tensor->file), shard) != 0)
            return pgi_error(PG_ERROR_FORMAT, "%s: weight_map: tensor %s: found it %s%s, expected it in %s", index_path,
                             name, tensor ? "in " : "in no file", tensor ? base_name(tensor->file) : "", shard);
    }
    return PG_OK;
}

/* *shards: an object that has each shard's name once. */
static pg_status read_index(pgi_json_doc *doc, const char *index_path, const pgi_json **weight_map, pgi_json *shards) {
    const pgi_json *index, *node;
    const char *name;
    char found[PGI_JSON_DESCRIPTION];
    PGI_TRY(pgi_json_load(doc, index_path, MAX_INDEX, PGI_JSON_STRICT, &index));
    PGI_TRY(pgi_json_new_object(doc, shards));
    *weight_map = pgi_json_get(index, "weight_map");
    if (pgi_json_n_members(*weight_map) == 0) {
        const int empty = pgi_json_is(*weight_map, PGI_JSON_OBJECT);
        return pgi_error(PG_ERROR_FORMAT, "%s: weight_map: found %s, expected an object {tensor: file}", index_path,
                         empty ? "an empty object" : pgi_json_describe(*weight_map, found, sizeof found));
    }
    for (size_t i = 0; (node = pgi_json_member(*weight_map, i, &name)) != NULL; i++) {
        PGI_TRY(check_shard_name(index_path, name, node));
        PGI_TRY(pgi_json_set(doc, shards, pgi_json_text(node), *node));
    }
    if (pgi_json_n_members(shards) > MAX_SHARDS)
        return pgi_error(PG_ERROR_LIMIT, "%s: weight_map: found %zu files, expected at most %d", index_path,
                         pgi_json_n_members(shards), MAX_SHARDS);
    return PG_OK;
}

static pg_status open_shards(pgi_tensor_files *files, const char *index_path, const pgi_json *weight_map,
                             const pgi_json *shards) {
    const char *name;
    files->files = pgi_alloc_zero(&files->memory, pgi_json_n_members(shards), sizeof *files->files);
    if (!files->files) return PG_ERROR_MEMORY;
    for (size_t i = 0; pgi_json_member(shards, i, &name); i++) {
        PGI_TRY(add_file(files, name));
        const pg_status status = open_file(files, files->n_files - 1);
        if (status == PG_ERROR_NOT_FOUND) return pgi_error_context(status, "%s: a shard is missing", index_path);
        if (status < 0) return status;
    }
    PGI_TRY(sort_tensors(files, weight_map));
    return check_index(files, index_path, weight_map);
}

static pg_status open_index(pgi_tensor_files *files, const char *index_path) {
    pgi_json_doc doc;
    pgi_json shards;
    const pgi_json *weight_map;
    pgi_json_doc_init(&doc, &files->memory);
    pg_status status = read_index(&doc, index_path, &weight_map, &shards);
    if (status >= 0) status = open_shards(files, index_path, weight_map, &shards);
    pgi_json_doc_free(&doc);
    return status;
}

/* *has: whether the folder holds a file of that name. */
static pg_status look_for(const pgi_tensor_files *files, const char *name, int *has) {
    char *path = pgi_path_join(&files->memory, files->folder, name);
    if (!path) return PG_ERROR_MEMORY;
    *has = pgi_file_exists(path);
    pgi_free(&files->memory, path);
    return PG_OK;
}

/* `name`, the folder's only file. */
static pg_status open_one(pgi_tensor_files *files, const char *name) {
    files->files = pgi_alloc_zero(&files->memory, 1, sizeof *files->files);
    if (!files->files) return PG_ERROR_MEMORY;
    PGI_TRY(add_file(files, name));
    PGI_TRY(open_file(files, 0));
    return sort_tensors(files, NULL);
}

static pg_status open_adapter(pgi_tensor_files *files) {
    int has_file, has_pickle;
    PGI_TRY(look_for(files, "adapter_model.safetensors", &has_file));
    if (has_file) return open_one(files, "adapter_model.safetensors");
    PGI_TRY(look_for(files, "adapter_model.bin", &has_pickle));
    if (has_pickle)
        return pgi_error(PG_ERROR_UNSUPPORTED,
                         "%s: found pickled weights (adapter_model.bin), expected adapter_model.safetensors; save the "
                         "adapter again with PEFT",
                         files->folder);
    return pgi_error(PG_ERROR_NOT_FOUND, "%s: found no adapter_model.safetensors", files->folder);
}

static pg_status open_named(pgi_tensor_files *files) { return open_one(files, files->name); }

static pg_status open_folder(pgi_tensor_files *files) {
    int has_file, has_index;
    PGI_TRY(look_for(files, "model.safetensors", &has_file));
    PGI_TRY(look_for(files, "model.safetensors.index.json", &has_index));
    if (has_file) return open_one(files, "model.safetensors");
    if (!has_index)
        return pgi_diagnose_folder(
            pgi_error(PG_ERROR_NOT_FOUND, "%s: found neither model.safetensors nor model.safetensors.index.json",
                      files->folder),
            &files->memory, files->folder);
    char *index_path = pgi_path_join(&files->memory, files->folder, "model.safetensors.index.json");
    if (!index_path) return PG_ERROR_MEMORY;
    pg_status status = open_index(files, index_path);
    pgi_free(&files->memory, index_path);
    return status;
}

static pg_status open_with(const pgi_memory *memory, const char *folder, const char *name, int in_memory,
                           const pg_cancel *cancel, pg_status (*open)(pgi_tensor_files *files),
                           pgi_tensor_files **out) {
    *out = NULL;
    pgi_tensor_files *files = pgi_alloc_zero(memory, 1, sizeof *files);
    if (!files) return PG_ERROR_MEMORY;
    files->memory = *memory;
    files->in_memory = in_memory;
    files->cancel = cancel;
    files->name = name;
    files->folder = pgi_copy_string(memory, folder, strlen(folder));
    pg_status status = files->folder ? open(files) : PG_ERROR_MEMORY;
    if (status < 0) {
        pgi_tensor_files_close(&files);
        return status;
    }
    files->cancel = NULL; /* the caller's */
    files->name = NULL;
    *out = files;
    return PG_OK;
}

pg_status pgi_tensor_files_open(const pgi_memory *memory, const char *folder, int in_memory, const pg_cancel *cancel,
                                pgi_tensor_files **out) {
    return open_with(memory, folder, NULL, in_memory, cancel, open_folder, out);
}

pg_status pgi_tensor_files_open_adapter(const pgi_memory *memory, const char *folder, const pg_cancel *cancel,
                                        pgi_tensor_files **out) {
    return open_with(memory, folder, NULL, 1, cancel, open_adapter, out);
}

pg_status pgi_tensor_files_open_file(const pgi_memory *memory, const char *folder, const char *name,
                                     const pg_cancel *cancel, pgi_tensor_files **out) {
    return open_with(memory, folder, name, 1, cancel, open_named, out);
}

void pgi_tensor_files_close(pgi_tensor_files **files) {
    pgi_tensor_files *f = *files;
    *files = NULL;
    if (!f) return;
    pgi_memory memory = f->memory;
    pgi_tensor_files_finish(f);
    for (size_t i = 0; i < f->n_tensors; i++)
        if (f->tensors[i].loaded) pgi_free(&memory, (void *)(uintptr_t)f->tensors[i].data);
    for (uint32_t i = 0; i < f->n_files; i++) {
        pgi_file_close(&f->files[i].file);
        pgi_tensor_header_free(&f->files[i].header);
        pgi_mapping_free(&f->files[i].mapping);
        pgi_free(&memory, f->files[i].path);
    }
    pgi_free(&memory, f->files);
    pgi_free(&memory, f->tensors);
    pgi_free(&memory, f->folder);
    pgi_free(&memory, f);
}

void pgi_tensor_files_finish(pgi_tensor_files *files) {
    for (uint32_t i = 0; i < files->n_files; i++) {
        if (!files->files[i].mapping.data) pgi_file_close(&files->files[i].file);
        pgi_buffer_free(&files->files[i].text);
        pgi_tensor_header_free_metadata(&files->files[i].header);
    }
    pgi_trim(&files->memory, &files->tensors, &files->capacity, files->n_tensors, sizeof *files->tensors);
}

pg_status pgi_tensor_files_unchanged(const pgi_tensor_files *files) {
    pg_status status = PG_OK;
    for (uint32_t i = 0; i < files->n_files && status >= 0; i++)
        if (files->files[i].mapping.data) status = pgi_file_unchanged(&files->files[i].file);
    return status < 0 ? pgi_error_context(status, "open the model again") : PG_OK;
}

/* ---------------------------------------------------------------------------------------------------------- reading */

void pgi_tensor_files_ask(const pgi_tensor_files *files, const pgi_stored_tensor *tensor) {
    pgi_file_ask(&files->files[tensor->file_index].file, tensor->offset, tensor->n_bytes);
}

pg_status pgi_tensor_files_read(const pgi_tensor_files *files, const pgi_stored_tensor *tensor, size_t at, size_t size,
                                void *out) {
    if (!tensor->loaded)
        return pgi_file_read_at(&files->files[tensor->file_index].file, tensor->offset + at, size, out);
    memcpy(out, (const uint8_t *)tensor->data + at, size);
    return PG_OK;
}

pg_status pgi_tensor_files_read_f32(const pgi_tensor_files *files, const pgi_stored_tensor *tensor, int64_t begin,
                                    int64_t end, float *out) {
    enum { PART = 4096 };
    uint8_t part[4 * PART];
    const size_t size = pgi_dtype_size(tensor->dtype);
    for (int64_t at = begin; at < end; at += PART) {
        const size_t n = (size_t)(end - at < PART ? end - at : PART);
        PGI_TRY(pgi_tensor_files_read(files, tensor, (size_t)at * size, n * size, part));
        for (size_t i = 0; i < n; i++) {
            if (tensor->dtype == PG_DTYPE_F32)
                *out++ = pgi_load_f32(part + 4 * i);
            else if (tensor->dtype == PG_DTYPE_BF16)
                *out++ = pgi_f32_from_bf16(pgi_load_u16(part + 2 * i));
            else
                *out++ = pgi_f32_from_f16(pgi_load_u16(part + 2 * i));
        }
    }
    return PG_OK;
}

pg_status pgi_tensor_files_same_bytes(const pgi_tensor_files *files, const pgi_stored_tensor *a,
                                      const pgi_stored_tensor *b, int *same) {
    enum { PART = 16384 };
    uint8_t parts[2][PART];
    *same = 1;
    for (size_t at = 0; at < a->n_bytes && *same; at += PART) {
        const size_t n = a->n_bytes - at < PART ? a->n_bytes - at : PART;
        PGI_TRY(pgi_tensor_files_read(files, a, at, n, parts[0]));
        PGI_TRY(pgi_tensor_files_read(files, b, at, n, parts[1]));
        *same = memcmp(parts[0], parts[1], n) == 0;
    }
    return PG_OK;
}

pg_status pgi_tensor_files_load(pgi_tensor_files *files, const pg_cancel *cancel, pgi_stored_tensor *tensor) {
    enum { PART = 16 << 20 }; /* some 5 ms */
    if (tensor->data) return PG_OK;
    uint8_t *data = pgi_alloc(&files->memory, tensor->n_bytes, 1);
    pg_status status = data ? PG_OK : PG_ERROR_MEMORY;
    for (size_t at = 0; at < tensor->n_bytes && status >= 0; at += PART) {
        const size_t left = tensor->n_bytes - at;
        status = pgi_cancel_check(cancel);
        if (status >= 0) status = pgi_tensor_files_read(files, tensor, at, left < PART ? left : PART, data + at);
    }
    if (status < 0) {
        pgi_free(&files->memory, data);
        return status;
    }
    tensor->data = data;
    tensor->loaded = 1;
    files->n_bytes_loaded += tensor->n_bytes;
    return PG_OK;
}

/* -------------------------------------------------------------------------------------------------------- describing
 */

size_t pgi_tensor_files_count(const pgi_tensor_files *files) { return files->n_tensors; }

pgi_stored_tensor *pgi_tensor_files_at(pgi_tensor_files *files, size_t index) { return &files->tensors[index]; }

pgi_stored_tensor *pgi_tensor_files_find(pgi_tensor_files *files, const char *name) {
    if (files->n_tensors == 0) return NULL;
    return bsearch(name, files->tensors, files->n_tensors, sizeof *files->tensors, compare_name);
}

const char *pgi_tensor_files_folder(const pgi_tensor_files *files) { return files->folder; }
uint32_t pgi_tensor_files_n_files(const pgi_tensor_files *files) { return files->n_files; }
pgi_tensor_file_info pgi_tensor_files_file(const pgi_tensor_files *files, uint32_t index) {
    const tensor_file *file = &files->files[index];
    return (pgi_tensor_file_info){file->path, file->text.data, file->text.size, file->header.metadata};
}
uint64_t pgi_tensor_files_n_bytes_mapped(const pgi_tensor_files *files) { return files->n_bytes_mapped; }
uint64_t pgi_tensor_files_n_bytes_loaded(const pgi_tensor_files *files) { return files->n_bytes_loaded; }

int pgi_tensor_files_huge_pages(const pgi_tensor_files *files) {
    int all = 1;
    for (uint32_t i = 0; i < files->n_files; i++) all &= pgi_mapping_huge_pages(&files->files[i].mapping);
    return all;
}

int pgi_tensor_files_same(const pgi_tensor_files *a, const pgi_tensor_files *b) {
    if (a->n_files != b->n_files) return 0;
    for (uint32_t i = 0; i < a->n_files; i++)
        if (memcmp(&a->files[i].file.id, &b->files[i].file.id, sizeof(pgi_file_id)) != 0) return 0;
    return 1;
}
