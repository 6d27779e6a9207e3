/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The one door for every allocation of the library: overflow-checked, aligned to 64 bytes, through the host's allocator
 * when it gave one. A failure sets the error text, so callers return PG_ERROR_MEMORY as it is.
 */
#ifndef PGI_BASE_MEMORY_H
#define PGI_BASE_MEMORY_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct pgi_memory {
    void *user;
    void *(*alloc)(void *user, size_t size, size_t alignment);
    void (*free)(void *user, void *memory);
} pgi_memory;

/* The C library's allocator. */
extern const pgi_memory pgi_memory_default;

/* Checks and takes over a host allocator (NULL: the C library's). */
pg_status pgi_memory_from_allocator(const pg_allocator *allocator, pgi_memory *out);

/* memmem(), which not every C library has: where `key`, of one byte or more, is first; NULL: nowhere. */
const void *pgi_find_bytes(const void *data, size_t size, const void *key, size_t key_size);

/* count x size bytes, aligned to 64, contents undefined (pgi_alloc) or zero
 * (pgi_alloc_zero). Zero bytes give a valid pointer. NULL: PG_ERROR_MEMORY, text set. */
void *pgi_alloc(const pgi_memory *memory, size_t count, size_t size);
void *pgi_alloc_zero(const pgi_memory *memory, size_t count, size_t size);
/* NULL is ignored. */
void pgi_free(const pgi_memory *memory, void *block);
/* A NUL-terminated copy of `size` bytes, or NULL. */
char *pgi_copy_string(const pgi_memory *memory, const char *text, size_t size);

/* Growing arrays. `data`: the address of the pointer to an array of *capacity elements of `size` bytes (NULL: none).
 * Makes it hold `needed` elements and at least twice what it had, so that pushing one by one is cheap. The contents are
 * kept, new elements are undefined. PG_ERROR_MEMORY: nothing changed. */
pg_status pgi_grow(const pgi_memory *memory, void *data, size_t *capacity, size_t needed, size_t size);
/* Gives back what lies behind `used` elements. Where memory is short, the array stays as it is. */
void pgi_trim(const pgi_memory *memory, void *data, size_t *capacity, size_t used, size_t size);

/* Memory that lives as long as its owner, who gives all of it back at once. Zeroed: none. */
typedef struct pgi_kept {
    void **blocks;
    size_t n_blocks, capacity;
    uint64_t n_bytes;
} pgi_kept;

/* `size` more bytes, as pgi_alloc() gives them. out: the address of a pointer. */
pg_status pgi_keep(const pgi_memory *memory, pgi_kept *kept, size_t size, void *out);
void pgi_kept_free(const pgi_memory *memory, pgi_kept *kept);

/* *out = a * b; 0 when that does not fit in a size_t. */
int pgi_mul_size(size_t a, size_t b, size_t *out);

/* A growing array of bytes, always followed by a NUL that `size` does not count. */
typedef struct pgi_buffer {
    const pgi_memory *memory;
    uint8_t *data; /* NULL until something was put in */
    size_t size, capacity;
} pgi_buffer;

void pgi_buffer_init(pgi_buffer *buffer, const pgi_memory *memory);
void pgi_buffer_free(pgi_buffer *buffer);
void pgi_buffer_trim(pgi_buffer *buffer);
pg_status pgi_buffer_reserve(pgi_buffer *buffer, size_t extra);
pg_status pgi_buffer_append(pgi_buffer *buffer, const void *data, size_t size);
pg_status pgi_buffer_printf(pgi_buffer *buffer, const char *format, ...) PGI_PRINTF(2, 3);

/* Hands out 64-byte aligned pieces of one block. With base NULL it only counts, so that the function
 * that lays out a workspace also tells its size. Pieces are never given back one by one. */
typedef struct pgi_arena {
    uint8_t *base; /* NULL: measuring */
    size_t used;   /* SIZE_MAX: more than an address space holds */
} pgi_arena;

/* count x size bytes; NULL while measuring. */
void *pgi_arena_take(pgi_arena *arena, size_t count, size_t size);

/* Pieces that are never alive at once lie one over the other: what is taken between _begin and _end starts at the same
 * place after every _next, and _end goes on behind the longest. */
typedef struct pgi_overlay {
    size_t begin, end;
} pgi_overlay;

pgi_overlay pgi_overlay_begin(const pgi_arena *arena);
void pgi_overlay_next(pgi_arena *arena, pgi_overlay *overlay);
void pgi_overlay_end(pgi_arena *arena, pgi_overlay *overlay);

/* The rule of every call that copies text out: writes at most `capacity` bytes, the closing NUL included, to `text`
 * (may be NULL when capacity is 0); *needed (may be NULL) gets size + 1. */
pg_status pgi_copy_text_out(const char *source, size_t size, char *text, size_t capacity, size_t *needed);

#endif
