/* Version, status, cancel. */
#include <stdlib.h>

#include "api/structs.h"
#include "base/run.h"

uint32_t pg_version_api(void) {
    return (uint32_t)PG_API_VERSION_MAJOR << 16 | (uint32_t)PG_API_VERSION_MINOR << 8 | (uint32_t)PG_API_VERSION_PATCH;
}

const char *pg_version_string(void) { return PGI_PACKAGE_VERSION; }

const char *pg_status_name(pg_status status) {
    switch (status) {
#define NAME(code) \
    case code: return #code
        NAME(PG_OK);
        NAME(PG_EVENT_EOS);
        NAME(PG_EVENT_LENGTH);
        NAME(PG_ERROR_ARGUMENT);
        NAME(PG_ERROR_MEMORY);
        NAME(PG_ERROR_IO);
        NAME(PG_ERROR_NOT_FOUND);
        NAME(PG_ERROR_FORMAT);
        NAME(PG_ERROR_UNSUPPORTED);
        NAME(PG_ERROR_LIMIT);
        NAME(PG_ERROR_CANCELLED);
        NAME(PG_ERROR_STATE);
        NAME(PG_ERROR_INTERNAL);
#undef NAME
        default: return "unknown status";
    }
}

const char *pg_last_error(void) { return pgi_error_text(); }

/* A cancel flag belongs to no handle, so it comes from the C library's memory. */
pg_status pg_cancel_create(pg_cancel **out) {
    PGI_NOT_NULL(out);
    pg_cancel *cancel = malloc(sizeof *cancel);
    if (!cancel) return pgi_error(PG_ERROR_MEMORY, "out of memory: %zu bytes asked for", sizeof *cancel);
    atomic_init(&cancel->references, 1);
    atomic_init(&cancel->requested, 0);
    *out = cancel;
    return PG_OK;
}

void pg_cancel_request(pg_cancel *cancel) {
    if (cancel) atomic_store_explicit(&cancel->requested, 1, memory_order_relaxed);
}

void pg_cancel_clear(pg_cancel *cancel) {
    if (cancel) atomic_store_explicit(&cancel->requested, 0, memory_order_relaxed);
}

void pg_cancel_close(pg_cancel **cancel) {
    if (!cancel) return;
    pgi_cancel_release(*cancel);
    *cancel = NULL;
}
