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
#include "checkpoint/tensor_header.h"

typedef struct pgi_tensor_files pgi_tensor_files;

/*
 * Maps the files (in_memory: does not) and checks their headers and the index, without touching the data. The headers
 * are checked as the safetensors crate does, but for their size (16 MB): tensors dense and in bounds, sizes that fit
 * shape and dtype, no holes. When both are there, model.safetensors wins, as in transformers.
 *
 * Bounds: 4096 shards, headers of 16 MB each and 32 MB together, 100,000 tensors in all. `cancel` (may be NULL) is
 * looked at before each value of a header. Errors: PG_ERROR_NOT_FOUND, _IO, _FORMAT, _LIMIT, _UNSUPPORTED (adapters,
 * pickled weights), _MEMORY, _CANCELLED.
 */
pg_status pgi_tensor_files_open(const pgi_memory *memory, const char *folder, int in_memory, const pg_cancel *cancel,
                                pgi_tensor_files **out);
/* The same for adapter_model.safetensors of an adapter's folder, not mapped. */
pg_status pgi_tensor_files_open_adapter(const pgi_memory *memory, const char *folder, const pg_cancel *cancel,
                                        pgi_tensor_files **out);
/* The same for one file of a folder, by its name. */
pg_status pgi_tensor_files_open_file(const pgi_memory *memory, const char *folder, const char *name,
                                     const pg_cancel *cancel, pgi_tensor_files **out);
void pgi_tensor_files_close(pgi_tensor_files **files); /* NULL inside is fine */

/* Until pgi_tensor_files_finish(), which closes the files that are not mapped: what is mapped or loaded stays, nothing
 * is read any more. */
void pgi_tensor_files_finish(pgi_tensor_files *files);
/* PG_ERROR_IO when a mapped file has another size or time of change than when it was opened: what is computed from it
 * would be wrong, or end in SIGBUS. A system call for each file. */
pg_status pgi_tensor_files_unchanged(const pgi_tensor_files *files);
/* Asks the system to begin reading a tensor from the disk; returns at once. */
void pgi_tensor_files_ask(const pgi_tensor_files *files, const pgi_stored_tensor *tensor);
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
/* Asks for huge pages for what is mapped; as pgi_mapping_huge_pages(), for all of them. */
int pgi_tensor_files_huge_pages(const pgi_tensor_files *files);
uint64_t pgi_tensor_files_n_bytes_loaded(const pgi_tensor_files *files); /* of tensors */
/* Whether both are the same files, unchanged between: then all tensors are the same. */
int pgi_tensor_files_same(const pgi_tensor_files *a, const pgi_tensor_files *b);

#endif
