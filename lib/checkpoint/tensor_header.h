/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The header of a safetensors file: which tensors it has, and where. Its text is in memory already. */
#ifndef PGI_CHECKPOINT_TENSOR_HEADER_H
#define PGI_CHECKPOINT_TENSOR_HEADER_H

#include "base/memory.h"
#include "base/run.h"
#include "checkpoint/json.h"

enum { PGI_MAX_TENSORS = 100000 }; /* of a file, and of all shards */

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
 * other and fill it: no overlap, no hole, nothing left over. On error, too, _free() is due. `cancel` (may be NULL) is
 * looked at before each value. PG_ERROR_FORMAT, _LIMIT, _MEMORY, _CANCELLED. */
pg_status pgi_tensor_header_read(const pgi_memory *memory, const char *path, const void *text, size_t size,
                                 const pg_cancel *cancel, pgi_tensor_header *out);
pg_status pgi_tensor_header_bind(pgi_tensor_header *header, const char *path, const void *text, size_t size,
                                 const pg_cancel *cancel, size_t data_at, size_t data_size);
void pgi_tensor_header_free(pgi_tensor_header *header); /* zeroed is fine */
/* A part of it alone, once it is not needed any more. */
void pgi_tensor_header_free_metadata(pgi_tensor_header *header);
void pgi_tensor_header_free_tensors(pgi_tensor_header *header);

/* The first 8 bytes of a file: how many bytes its header has. */
uint64_t pgi_tensor_header_size(const uint8_t *bytes);

/* How many values a tensor has; of blocks, what was quantized. */
int64_t pgi_stored_tensor_values(const pgi_stored_tensor *tensor);
/* Whether it has this shape; a size of -1 is any but 0. */
int pgi_stored_tensor_has_shape(const pgi_stored_tensor *tensor, int n_dims, const int64_t *shape);

/* For qsort(): by name, those of one name by their place. */
int pgi_stored_tensor_order(const void *a, const void *b);

#endif
