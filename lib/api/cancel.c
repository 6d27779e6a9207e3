/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* pg_cancel: a flag that stops calls. */
#include <stdlib.h>

#include "api/structs.h"
#include "base/run.h"

/* A cancel flag belongs to no handle, so it comes from the C library's memory. */
pg_status pg_cancel_create(pg_cancel **out) {
    PGI_ENTER;
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
