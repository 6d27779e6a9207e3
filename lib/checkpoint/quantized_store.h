/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Quantized weights in safetensors files, as pg_model_convert() writes them: docs/FORMATS.md. A quantized matrix is a
 * U8 tensor of blocks (kernels/quantized.h). What else a reader needs is in "__metadata__", strings by name:
 *
 *     format           "libpaligemma"
 *     layout_version   "1": PGI_QUANTIZED_VERSION, of the blocks and of these entries; "2" where there are
 * blocks:TENSOR weights          "int8" or "int4" config_crc32     of config.json at the conversion header_crc32     of
 * the 8 bytes of size and the header, these 8 digits taken as 00000000 shape:TENSOR     "[1152,3,14,14]": of a tensor
 * that was quantized blocks:TENSOR    "int8" or "int4": of a tensor that is not as `weights` says (checkpoint/mix.h)
 *     crc32:TENSOR     of the data of every tensor
 */
#ifndef PGI_CHECKPOINT_QUANTIZED_STORE_H
#define PGI_CHECKPOINT_QUANTIZED_STORE_H

#include "base/run.h"
#include "checkpoint/json_field.h"
#include "checkpoint/safetensors.h"
#include "kernels/quantized.h"

#define PGI_STORE_FORMAT "libpaligemma"

/* layout_version of a folder whose matrices are of both kinds; the newest that is read. */
enum { PGI_STORE_VERSION_MIX = PGI_QUANTIZED_VERSION + 1 };

static inline int32_t pgi_blocks_of_weights(int32_t weights) { /* PG_WEIGHTS_INT8 or _INT4 */
    return weights == PG_WEIGHTS_INT8 ? PGI_DTYPE_INT8_BLOCKS : PGI_DTYPE_INT4_BLOCKS;
}
/* "stored", "int8", "int4"; NULL for other numbers. */
const char *pgi_weights_name(int32_t weights);

/* header_crc32 of a header, `size` bytes of JSON with `"header_crc32":"........"` in them; *at: where these 8 digits
 * stand. 0: there are none. */
int pgi_quantized_store_header_crc32(const void *text, size_t size, size_t *at, uint32_t *out);

/* Finishes the beginning of a file: `text` has 8 bytes for the size and the header's JSON with header_crc32 00000000.
 * Pads it, so that the data begins at a multiple of 64, and fills in size and checksum. */
pg_status pgi_quantized_store_finish_header(pgi_buffer *text);
/* A checksum of the metadata: eight lower-case hexadecimal digits, else PG_ERROR_FORMAT. */
pg_status pgi_quantized_store_read_crc32(const pgi_json_section *metadata, const char *key, uint32_t *out);

/* Reads the metadata of converted files and gives their tensors dtype, shape and crc32; other files stay as they are.
 * *weights: PG_WEIGHTS_*. Headers alone are read. PG_ERROR_UNSUPPORTED: a newer layout, an unknown kind of weights;
 * PG_ERROR_FORMAT: metadata that is damaged or does not fit the tensors. */
pg_status pgi_quantized_store_read(const pgi_memory *memory, pgi_tensor_files *files, int32_t *weights);

/* Reads everything: compares the checksum of each tensor and of config.json. Reports PG_PHASE_VERIFY in bytes.
 * PG_ERROR_FORMAT names what is damaged; PG_ERROR_UNSUPPORTED: not a converted folder. */
pg_status pgi_quantized_store_verify(const pgi_memory *memory, const pgi_run *run, pgi_tensor_files *files);

/* pgi_quantize_panels(), or pgi_quantize_panels_feeding() where there are factors, on the threads of `run`, of a tensor
 * that is read from its file (rows x columns); the same errors, and PG_ERROR_IO. */
typedef struct pgi_quantize_source {
    const pgi_memory *memory; /* for the rows that are being quantized */
    const pgi_tensor_files *files;
    const pgi_stored_tensor *tensor;
    int64_t rows, columns;
    const float *factors; /* NULL: none */
    const struct pgi_weight_changes
        *changes; /* checkpoint/weight_changes.h, begun for the tensor; NULL: nothing is merged */
} pgi_quantize_source;
pg_status pgi_quantize_parallel(const pgi_run *run, const pgi_quantize_source *from, int32_t dtype, int64_t begin,
                                int64_t end, void *out);

#endif
