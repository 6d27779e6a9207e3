/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The safetensors files of a checkpoint folder, mapped where they can be: model.safetensors, or the shards named by
 * model.safetensors.index.json. Nothing is copied.
 */
#ifndef PGI_CHECKPOINT_SAFETENSORS_H
#define PGI_CHECKPOINT_SAFETENSORS_H

#include <jansson.h>

#include "base/file.h"
#include "base/memory.h"

typedef struct pgi_stored_tensor {
    const char *name;       /* as in the file */
    const char *file;       /* path of the file, for messages */
    int32_t dtype;          /* PG_DTYPE_*, PGI_DTYPE_*_BLOCKS (quantized_store.h); 0: one we do not know */
    const char *dtype_name; /* as in the file: "BF16" */
    int32_t n_dims;         /* 0 to 8 */
    int64_t shape[8];       /* of blocks: the shape of what was quantized */
    const void *data;       /* in the mapping, any alignment; or `copy` */
    void *copy;             /* contents that stand for the file's, as large; owned by the files. NULL: none */
    size_t n_bytes;
    uint32_t file_index; /* for pgi_tensor_files_file() */
    uint32_t crc32;      /* of the data, as the metadata of a converted file says */
    int32_t used;        /* set by the binder: 0: not in use, else 1 for the first that it took, 2, ... */
} pgi_stored_tensor;

typedef struct pgi_tensor_files pgi_tensor_files;

/*
 * Maps the files and checks their headers and the index, without touching the data. The headers are checked as the
 * safetensors crate does: at most 100 MB, tensors dense and in bounds, sizes that fit shape and dtype, no holes. When
 * both are there, model.safetensors wins, as in transformers.
 *
 * Errors: PG_ERROR_NOT_FOUND, _IO, _FORMAT, _LIMIT, _UNSUPPORTED (adapters, pickled weights), _MEMORY.
 */
pg_status pgi_tensor_files_open(const pgi_memory *memory, const char *folder, pgi_tensor_files **out);
void pgi_tensor_files_close(pgi_tensor_files **files); /* NULL inside is fine */

size_t pgi_tensor_files_count(const pgi_tensor_files *files);
pgi_stored_tensor *pgi_tensor_files_at(pgi_tensor_files *files, size_t index);       /* sorted by name */
pgi_stored_tensor *pgi_tensor_files_find(pgi_tensor_files *files, const char *name); /* or NULL */
const char *pgi_tensor_files_folder(const pgi_tensor_files *files);
uint32_t pgi_tensor_files_n_files(const pgi_tensor_files *files);

/* File `index` of n_files. Valid while the files are open. */
typedef struct pgi_tensor_file_info {
    const char *path;
    const uint8_t *header; /* the JSON text, `header_size` bytes; 8 bytes of size lie before it */
    size_t header_size;
    const json_t *metadata; /* the object "__metadata__"; NULL: none */
} pgi_tensor_file_info;
pgi_tensor_file_info pgi_tensor_files_file(const pgi_tensor_files *files, uint32_t index);
uint64_t pgi_tensor_files_n_bytes(const pgi_tensor_files *files);      /* of all files */
uint64_t pgi_tensor_files_n_bytes_read(const pgi_tensor_files *files); /* of those that could not be mapped */
/* These bytes of a tensor are not needed for a while: pgi_mapping_forget() where they are mapped. */
void pgi_tensor_files_forget(const pgi_tensor_files *files, const void *data, size_t size);

#endif
