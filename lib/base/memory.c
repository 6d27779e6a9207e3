/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Allocations, overflow-checked and aligned; growing arrays and buffers; the arena that lays out blocks. */
#include "base/memory.h"

#include <stdio.h>
#include <string.h>

#include "base/callback.h"
#include "base/system.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "libpaligemma needs a little-endian system: weights are used as they lie in the files"
#endif
_Static_assert(sizeof(void *) == 8, "libpaligemma needs a 64-bit system: a model is larger than 32 bits address");

enum { ALIGNMENT = 64 }; /* a cache line, and the widest vector */

static void *default_alloc(void *user, size_t size, size_t alignment) {
    (void)user;
    return pgi_system_alloc(size, alignment);
}

static void default_free(void *user, void *block) {
    (void)user;
    pgi_system_free(block);
}

const pgi_memory pgi_memory_default = {NULL, default_alloc, default_free};

pg_status pgi_memory_from_allocator(const pg_allocator *allocator, pgi_memory *out) {
    *out = pgi_memory_default;
    if (!allocator) return PG_OK;
    if (allocator->struct_size != sizeof *allocator)
        return pgi_error(PG_ERROR_ARGUMENT, "pg_allocator.struct_size is %u, expected %zu", allocator->struct_size,
                         sizeof *allocator);
    if (!allocator->alloc || !allocator->free)
        return pgi_error(PG_ERROR_ARGUMENT, "pg_allocator.%s is NULL, expected a function",
                         allocator->alloc ? "free" : "alloc");
    out->user = allocator->user;
    out->alloc = allocator->alloc;
    out->free = allocator->free;
    return PG_OK;
}

int pgi_mul_size(size_t a, size_t b, size_t *out) {
    if (b != 0 && a > SIZE_MAX / b) return 0;
    *out = a * b;
    return 1;
}

/* *out: the block or NULL. An error has its message; a mere NULL is none here. */
static pg_status call_alloc(const pgi_memory *memory, size_t bytes, void **out) {
    if (memory->alloc != default_alloc) return pgi_callback_alloc(memory->alloc, memory->user, bytes, ALIGNMENT, out);
    *out = default_alloc(NULL, bytes, ALIGNMENT);
    return PG_OK;
}

/* Rounded up, as some allocators want size to be a multiple of alignment. */
static size_t whole_lines(size_t bytes) {
    return bytes == 0 ? ALIGNMENT : (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

void *pgi_alloc(const pgi_memory *memory, size_t count, size_t size) {
    size_t bytes;
    if (!pgi_mul_size(count, size, &bytes) || bytes > PTRDIFF_MAX - ALIGNMENT) {
        pgi_error(PG_ERROR_MEMORY, "out of memory: %zu x %zu bytes asked for", count, size);
        return NULL;
    }
    bytes = whole_lines(bytes);
    void *block;
    if (call_alloc(memory, bytes, &block) >= 0 && !block)
        pgi_error(PG_ERROR_MEMORY, "out of memory: %zu bytes asked for", bytes);
    return block;
}

void *pgi_alloc_zero(const pgi_memory *memory, size_t count, size_t size) {
    void *block = pgi_alloc(memory, count, size);
    if (block) memset(block, 0, count * size);
    return block;
}

void pgi_free(const pgi_memory *memory, void *block) {
    if (!block) return;
    if (memory->free == default_free)
        default_free(NULL, block);
    else
        pgi_callback_free(memory->free, memory->user, block);
}

pg_status pgi_grow(const pgi_memory *memory, void *data, size_t *capacity, size_t needed, size_t size) {
    void *old, *grown;
    if (needed <= *capacity) return PG_OK;
    if (needed < 2 * *capacity) needed = 2 * *capacity;
    if (needed < 64) needed = 64;
    grown = pgi_alloc(memory, needed, size);
    if (!grown) return PG_ERROR_MEMORY;
    memcpy(&old, data, sizeof old); /* `data` is a pointer to a pointer of some type: no cast may read it */
    if (*capacity) memcpy(grown, old, *capacity * size);
    memcpy(data, &grown, sizeof grown);
    *capacity = needed;
    pgi_free(memory, old);
    return PG_OK;
}

void pgi_trim(const pgi_memory *memory, void *data, size_t *capacity, size_t used, size_t size) {
    enum { WORTH = 64 }; /* elements */
    void *old, *trimmed;
    if (*capacity < used + WORTH) return;
    (void)call_alloc(memory, whole_lines(used * size), &trimmed); /* no pgi_alloc(): a failure here is no error */
    if (!trimmed) return;
    memcpy(&old, data, sizeof old);
    memcpy(trimmed, old, used * size);
    memcpy(data, &trimmed, sizeof trimmed);
    *capacity = used;
    pgi_free(memory, old);
}

pg_status pgi_keep(const pgi_memory *memory, pgi_kept *kept, size_t size, void *out) {
    PGI_TRY(pgi_grow(memory, &kept->blocks, &kept->capacity, kept->n_blocks + 1, sizeof *kept->blocks));
    void *block = pgi_alloc(memory, size, 1);
    if (!block) return PG_ERROR_MEMORY;
    kept->blocks[kept->n_blocks++] = block;
    kept->n_bytes += size;
    memcpy(out, &block, sizeof block);
    return PG_OK;
}

void pgi_kept_free(const pgi_memory *memory, pgi_kept *kept) {
    for (size_t i = 0; i < kept->n_blocks; i++) pgi_free(memory, kept->blocks[i]);
    pgi_free(memory, kept->blocks);
    *kept = (pgi_kept){0};
}

const void *pgi_find_bytes(const void *data, size_t size, const void *key, size_t key_size) {
    const uint8_t *at = data, *first = key;
    for (; size >= key_size; at++, size--) {
        const uint8_t *found = memchr(at, *first, size - key_size + 1);
        if (!found) return NULL;
        size -= (size_t)(found - at);
        at = found;
        if (memcmp(at, key, key_size) == 0) return at;
    }
    return NULL;
}

char *pgi_copy_string(const pgi_memory *memory, const char *text, size_t size) {
    char *copy = size < SIZE_MAX ? pgi_alloc(memory, size + 1, 1) : NULL;
    if (!copy) return NULL;
    if (size) memcpy(copy, text, size);
    copy[size] = '\0';
    return copy;
}

void *pgi_arena_take(pgi_arena *arena, size_t count, size_t size) {
    size_t bytes, at = arena->used;
    if (at == SIZE_MAX || !pgi_mul_size(count, size, &bytes) || bytes > PTRDIFF_MAX - ALIGNMENT ||
        at > PTRDIFF_MAX - ALIGNMENT - bytes) {
        arena->used = SIZE_MAX;
        return NULL;
    }
    arena->used = at + (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return arena->base ? arena->base + at : NULL;
}

pgi_overlay pgi_overlay_begin(const pgi_arena *arena) { return (pgi_overlay){arena->used, arena->used}; }

void pgi_overlay_next(pgi_arena *arena, pgi_overlay *overlay) {
    if (arena->used > overlay->end) overlay->end = arena->used;
    arena->used = overlay->begin;
}

void pgi_overlay_end(pgi_arena *arena, pgi_overlay *overlay) {
    pgi_overlay_next(arena, overlay);
    arena->used = overlay->end;
}

void pgi_buffer_init(pgi_buffer *buffer, const pgi_memory *memory) { *buffer = (pgi_buffer){.memory = memory}; }

void pgi_buffer_free(pgi_buffer *buffer) {
    if (buffer->memory) pgi_free(buffer->memory, buffer->data);
    buffer->data = NULL;
    buffer->size = buffer->capacity = 0;
}

pg_status pgi_buffer_reserve(pgi_buffer *buffer, size_t extra) {
    if (buffer->data && extra < buffer->capacity - buffer->size) return PG_OK;
    if (extra > PTRDIFF_MAX / 2 || buffer->size > PTRDIFF_MAX / 2 - extra)
        return pgi_error(PG_ERROR_MEMORY, "out of memory: a text of %zu bytes", extra);
    PGI_TRY(pgi_grow(buffer->memory, &buffer->data, &buffer->capacity, buffer->size + extra + 1, 1));
    buffer->data[buffer->size] = 0;
    return PG_OK;
}

void pgi_buffer_trim(pgi_buffer *buffer) {
    pgi_trim(buffer->memory, &buffer->data, &buffer->capacity, buffer->size + 1, 1);
}

pg_status pgi_buffer_append(pgi_buffer *buffer, const void *data, size_t size) {
    PGI_TRY(pgi_buffer_reserve(buffer, size));
    if (size) memcpy(buffer->data + buffer->size, data, size);
    buffer->size += size;
    buffer->data[buffer->size] = 0;
    return PG_OK;
}

pg_status pgi_buffer_printf(pgi_buffer *buffer, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (size < 0) return pgi_error(PG_ERROR_INTERNAL, "cannot format \"%s\"", format);
    PGI_TRY(pgi_buffer_reserve(buffer, (size_t)size));
    va_start(arguments, format);
    vsnprintf((char *)buffer->data + buffer->size, (size_t)size + 1, format, arguments);
    va_end(arguments);
    buffer->size += (size_t)size;
    return PG_OK;
}

pg_status pgi_copy_text_out(const char *source, size_t size, char *text, size_t capacity, size_t *needed) {
    if (needed) *needed = size + 1;
    if (capacity == 0) return PG_OK;
    if (!text) return pgi_error(PG_ERROR_ARGUMENT, "text is NULL, expected %zu bytes to write to", capacity);
    size_t n = size < capacity - 1 ? size : capacity - 1;
    if (n) memcpy(text, source, n);
    text[n] = '\0';
    return PG_OK;
}
