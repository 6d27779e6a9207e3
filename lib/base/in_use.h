/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Handles that serve one call at a time. A second call, of another thread or from a callback of the first, is refused
 * before it touches anything; closing such a handle during a call leaves the freeing to the end of that call.
 */
#ifndef PGI_BASE_IN_USE_H
#define PGI_BASE_IN_USE_H

#include <stdatomic.h>

#include "base/status.h"

enum { PGI_IN_USE = 1, PGI_CLOSED = 2 };

/* Zero: not in use. */
typedef atomic_int pgi_in_use;

/* PG_OK: the handle is the caller's until pgi_in_use_end(). PG_ERROR_STATE: it is another call's. */
static inline pg_status pgi_in_use_begin(pgi_in_use *in_use, const char *handle) {
    int found = 0;
    if (atomic_compare_exchange_strong_explicit(in_use, &found, PGI_IN_USE, memory_order_acquire, memory_order_relaxed))
        return PG_OK;
    return pgi_error(PG_ERROR_STATE,
                     "found the %s in use by another call (of another thread, or the one whose callback this is), "
                     "expected one call at a time",
                     handle);
}

/* Non-zero: it was closed meanwhile, and is the caller's to free. */
static inline int pgi_in_use_end(pgi_in_use *in_use) {
    return atomic_fetch_and_explicit(in_use, ~PGI_IN_USE, memory_order_acq_rel) & PGI_CLOSED;
}

/* Non-zero: it is the caller's to free; else the call under way does that. */
static inline int pgi_in_use_close(pgi_in_use *in_use) {
    return atomic_fetch_or_explicit(in_use, PGI_CLOSED, memory_order_acq_rel) == 0;
}

#endif
