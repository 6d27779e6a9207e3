/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Arrays of a NumPy archive (.npz): a zip file whose members are .npy files, stored or deflated, as numpy.savez() and
 * numpy.savez_compressed() write them. Zip64 sizes, .npy versions 1 to 3. The file is read whole; a member is unpacked
 * when it is asked for, into no more memory than its array has.
 */
#ifndef PGI_CHECKPOINT_NPZ_H
#define PGI_CHECKPOINT_NPZ_H

#include "base/memory.h"

/* A member of the archive: `packed` bytes at `offset` of the file. */
typedef struct pgi_npz_member {
    const uint8_t *name; /* not NUL-terminated, in the file's bytes */
    size_t name_size;
    uint64_t offset, packed, size;
    uint32_t crc32;
    int method; /* 0: stored, 8: deflated */
} pgi_npz_member;

typedef struct pgi_npz {
    const char *path; /* for messages */
    const pgi_memory *memory;
    const uint8_t *data; /* the file */
    size_t size;
    pgi_npz_member *members; /* [n] */
    size_t n;
} pgi_npz;

/* Reads the directory of `size` bytes at `data`, which stay the caller's. PG_ERROR_FORMAT, _LIMIT (more than 4096
 * members), _UNSUPPORTED (encrypted, another method), _MEMORY. On error *out needs no close. */
pg_status pgi_npz_open(const pgi_memory *memory, const char *path, const uint8_t *data, size_t size, pgi_npz *out);
void pgi_npz_close(pgi_npz *npz);

/* Reads the array `name` of this shape as f32 [its elements], in C's order. Its numbers may be little-endian f2, f4 or
 * f8, in C's or Fortran's order. PG_ERROR_FORMAT: not there, there twice, another shape, not whole, its bytes are also
 * another member's; _UNSUPPORTED: another type; _MEMORY. */
pg_status pgi_npz_read(const pgi_npz *npz, const char *name, const int64_t *shape, int n_dims, float *out);

#endif
