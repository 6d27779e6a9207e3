/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The safetensors files of a checkpoint folder: model.safetensors, or the shards named by model.safetensors.index.json.
 * Headers, and what is read while a folder opens, are always read from the file, never through a mapping: a file that
 * is cut or cannot be read meanwhile is a status then. Tensors that stay in use are mapped, or loaded.
 */
#ifndef PGI_CHECKPOINT_SAFETENSORS_H
#define PGI_CHECKPOINT_SAFETENSORS_H

#include "base/file.h"
#include "base/memory.h"
#include "base/run.h"
#include "checkpoint/json.h"

typedef struct pgi_stored_tensor {
    const char *name;       /* as in the file */
    const char *file;       /* path of the file, for messages */
    int32_t dtype;          /* PG_DTYPE_*, PGI_DTYPE_*_BLOCKS (quantized_store.h); 0: one we do not know */
    const char *dtype_name; /* as in the file: "BF16" */
    int32_t n_dims;         /* 0 to 8 */
    int64_t shape[8];       /* of blocks: the shape of what was quantized */
    const void *data;       /* mapped, any alignment, or loaded; NULL: neither, it is in the file alone */
    uint64_t offset;        /* of its first byte in the file */
    size_t n_bytes;
    uint32_t file_index; /* for pgi_tensor_files_file() */
    uint32_t crc32;      /* of the data, as the metadata of a converted file says */
    int32_t loaded;      /* 1: `data` is memory of its own */
    int32_t used;        /* set by the binder: 0: not in use, else 1 for the first that it took, 2, ... */
} pgi_stored_tensor;

/* The header of a file: its tensors, and its metadata as a tree. No tree is made of the tensors. */
typedef struct pgi_tensor_header {
    pgi_json_doc names;         /* the strings of the tensors */
    pgi_json_doc metadata_doc;  /* of the metadata */
    const pgi_json *metadata;   /* "__metadata__"; NULL: none */
    pgi_stored_tensor *tensors; /* [n_tensors] */
    size_t n_tensors;
} pgi_tensor_header;

/* Reads the JSON of a header, whose syntax is checked before its meaning: names and metadata, and where each tensor's
 * entry stands (in `offset`). `path` is kept as it is. Then _bind() reads the entries of the same text: the data begin
 * at `data_at` of the file and have `data_size` bytes. They are sorted by their data then, which lie one behind the
 * other and fill it: no overlap, no hole, nothing left over. On error, too, _free() is due.
 * PG_ERROR_FORMAT, _LIMIT, _MEMORY. */
pg_status pgi_tensor_header_read(const pgi_memory *memory, const char *path, const void *text, size_t size,
                                 pgi_tensor_header *out);
pg_status pgi_tensor_header_bind(pgi_tensor_header *header, const char *path, const void *text, size_t size,
                                 size_t data_at, size_t data_size);
void pgi_tensor_header_free(pgi_tensor_header *header); /* zeroed is fine */

/* The first 8 bytes of a file: how many bytes its header has. */
uint64_t pgi_tensor_header_size(const uint8_t *bytes);

typedef struct pgi_tensor_files pgi_tensor_files;

/*
 * Maps the files (in_memory: does not) and checks their headers and the index, without touching the data. The headers
 * are checked as the safetensors crate does, but for their size (16 MB): tensors dense and in bounds, sizes that fit
 * shape and dtype, no holes. When both are there, model.safetensors wins, as in transformers.
 *
 * Errors: PG_ERROR_NOT_FOUND, _IO, _FORMAT, _LIMIT, _UNSUPPORTED (adapters, pickled weights), _MEMORY.
 */
pg_status pgi_tensor_files_open(const pgi_memory *memory, const char *folder, int in_memory, pgi_tensor_files **out);
void pgi_tensor_files_close(pgi_tensor_files **files); /* NULL inside is fine */

/* Until pgi_tensor_files_finish(), which closes the files that are not mapped: what is mapped or loaded stays, nothing
 * is read any more. */
void pgi_tensor_files_finish(pgi_tensor_files *files);
/* PG_ERROR_IO when a mapped file has another size or time of change than when it was opened: what is computed from it
 * would be wrong, or end in SIGBUS. A system call for each file. */
pg_status pgi_tensor_files_unchanged(const pgi_tensor_files *files);
/* `size` bytes of a tensor from `at` on. On any thread. Errors: PG_ERROR_IO. */
pg_status pgi_tensor_files_read(const pgi_tensor_files *files, const pgi_stored_tensor *tensor, size_t at, size_t size,
                                void *out);
/* Elements begin .. end of a tensor of dtype F32, BF16 or F16. */
pg_status pgi_tensor_files_read_f32(const pgi_tensor_files *files, const pgi_stored_tensor *tensor, int64_t begin,
                                    int64_t end, float *out);
/* Whether two tensors of n_bytes each have the same bytes. */
pg_status pgi_tensor_files_same_bytes(const pgi_tensor_files *files, const pgi_stored_tensor *a,
                                      const pgi_stored_tensor *b, int *same);
/* Reads a tensor that is not mapped into memory of its own, in parts: `cancel` (may be NULL) is looked at. */
pg_status pgi_tensor_files_load(pgi_tensor_files *files, const pg_cancel *cancel, pgi_stored_tensor *tensor);

size_t pgi_tensor_files_count(const pgi_tensor_files *files);
pgi_stored_tensor *pgi_tensor_files_at(pgi_tensor_files *files, size_t index);       /* sorted by name */
pgi_stored_tensor *pgi_tensor_files_find(pgi_tensor_files *files, const char *name); /* or NULL */
const char *pgi_tensor_files_folder(const pgi_tensor_files *files);
uint32_t pgi_tensor_files_n_files(const pgi_tensor_files *files);

/* File `index` of n_files. Valid until pgi_tensor_files_finish(). */
typedef struct pgi_tensor_file_info {
    const char *path;
    const uint8_t *header; /* the JSON text, `header_size` bytes; 8 bytes of size lie before it */
    size_t header_size;
    const pgi_json *metadata; /* the object "__metadata__"; NULL: none */
} pgi_tensor_file_info;
pgi_tensor_file_info pgi_tensor_files_file(const pgi_tensor_files *files, uint32_t index);
uint64_t pgi_tensor_files_n_bytes_mapped(const pgi_tensor_files *files); /* of whole files */
uint64_t pgi_tensor_files_n_bytes_loaded(const pgi_tensor_files *files); /* of tensors */
/* Whether both are the same files, unchanged between: then all tensors are the same. */
int pgi_tensor_files_same(const pgi_tensor_files *a, const pgi_tensor_files *b);

#endif
