/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Structs that cross the border: taking them over, filling them, and the checks that all calls share. */
#include "api/structs.h"

#include <string.h>

#include "base/cpu_count.h"
#include "base/run.h"
#include "generate/decoding.h"

enum {
    MOST_NEWER = 256, /* bytes that a newer header has more */
    MAX_THREADS = 1024,
    MAX_OPEN_THREADS = 64 /* unless the caller asks for more: opening is not worth more */
};

static uint32_t size_of(const void *object) {
    uint32_t size;
    memcpy(&size, object, sizeof size);
    return size;
}

/* Sizes that a header may give: nothing before the first release's, no half of a field, not absurdly more than ours. */
static pg_status check_size(size_t size, pgi_struct known) {
    const size_t step = sizeof(void *) < 8 ? 4 : 8; /* no field, and no part of one, is aligned to more */
    if (size >= known.first_size && size <= known.size + MOST_NEWER && size % step == 0) return PG_OK;
    return pgi_error(PG_ERROR_ARGUMENT,
                     "%s.struct_size is %zu, expected sizeof(%s), %zu%s: was it set, or the _init function called?",
                     known.name, size, known.name, known.size,
                     known.first_size < known.size ? " or that of an older header" : "");
}

pg_status pgi_struct_in(void *out, const void *in, pgi_struct known) {
    if (!in) return PG_OK;
    const size_t theirs = size_of(in), size = known.size;
    PGI_TRY(check_size(theirs, known));
    for (size_t i = size; i < theirs; i++)
        if (((const uint8_t *)in)[i] != 0)
            return pgi_error(PG_ERROR_ARGUMENT,
                             "%s.struct_size is %zu and byte %zu is set, but this library knows only the first %zu: "
                             "the program was built for a newer one",
                             known.name, theirs, i, size);
    uint32_t ours = (uint32_t)size;
    memcpy(out, in, theirs < size ? theirs : size);
    memcpy(out, &ours, sizeof ours);
    return PG_OK;
}

pg_status pgi_struct_out_check(const void *out, pgi_struct known) {
    PGI_TRY(pgi_not_null(out, known.name));
    return check_size(size_of(out), known);
}

void pgi_struct_out(void *out, const void *value, size_t size) {
    uint32_t theirs = size_of(out);
    memcpy(out, value, theirs < size ? theirs : size);
    if (theirs > size) memset((uint8_t *)out + size, 0, theirs - size);
    memcpy(out, &theirs, sizeof theirs);
}

pg_status pgi_struct_init(void *out, size_t struct_size, const void *defaults, pgi_struct known) {
    PGI_TRY(pgi_not_null(out, known.name));
    PGI_TRY(check_size(struct_size, known));
    uint32_t theirs = (uint32_t)struct_size;
    memcpy(out, &theirs, sizeof theirs);
    pgi_struct_out(out, defaults, known.size);
    return PG_OK;
}

pg_status pgi_allocator_in(const pg_allocator *allocator, pgi_memory *out) {
    pg_allocator complete = {.struct_size = sizeof complete};
    PGI_TRY(pgi_struct_in(&complete, allocator, PGI_STRUCT(pg_allocator)));
    PGI_TRY(pgi_reserved_in(complete.reserved, "pg_allocator"));
    return pgi_memory_from_allocator(allocator ? &complete : NULL, out);
}

pg_status pgi_reserved_in(uint32_t reserved, const char *name) {
    if (reserved == 0) return PG_OK;
    return pgi_error(PG_ERROR_ARGUMENT, "%s.reserved is %u, expected 0", name, reserved);
}

pg_status pgi_not_null(const void *pointer, const char *name) {
    return pointer ? PG_OK : pgi_error(PG_ERROR_ARGUMENT, "%s is NULL", name);
}

pg_status pgi_thread_count(int32_t asked, int *out) {
    if (asked < 0 || asked > MAX_THREADS)
        return pgi_error(PG_ERROR_ARGUMENT, "n_threads is %d, expected 0 (all CPUs) to %d", asked, MAX_THREADS);
    int n = asked > 0 ? asked : pgi_cpu_count();
    *out = n < MAX_THREADS ? n : MAX_THREADS;
    return PG_OK;
}

pg_status pgi_open_thread_count(int32_t asked, int *out) {
    PGI_TRY(pgi_thread_count(asked, out));
    if (asked == 0 && *out > MAX_OPEN_THREADS) *out = MAX_OPEN_THREADS;
    return PG_OK;
}

pg_status pgi_new_tokens_in(int32_t *max_new_tokens) {
    if (*max_new_tokens < 0)
        return pgi_error(PG_ERROR_ARGUMENT, "max_new_tokens is %d, expected 0 (default) or more", *max_new_tokens);
    if (*max_new_tokens == 0) *max_new_tokens = PGI_DEFAULT_NEW_TOKENS;
    return PG_OK;
}

pg_status pgi_max_context_in(int64_t max_context) {
    if (max_context >= 0) return PG_OK;
    return pgi_error(PG_ERROR_ARGUMENT, "max_context is %lld, expected 0 (no limit) or more", (long long)max_context);
}

pg_status pgi_flags_in(uint32_t flags, uint32_t known, const char *expected) {
    if (flags & ~known) return pgi_error(PG_ERROR_ARGUMENT, "flags is 0x%x, expected %s", flags, expected);
    return PG_OK;
}

pg_status pgi_convention_in(int32_t convention) {
    if (convention == PG_BOX_1024 || convention == PG_BOX_1023) return PG_OK;
    return pgi_error(PG_ERROR_ARGUMENT, "convention is %d, expected 0 (PG_BOX_1024) or 1 (PG_BOX_1023)", convention);
}
