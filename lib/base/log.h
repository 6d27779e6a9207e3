/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The host's log callback, silent when there is none. */
#ifndef PGI_BASE_LOG_H
#define PGI_BASE_LOG_H

#include "base/status.h"

typedef struct pgi_log {
    pg_log_fn fn; /* may be NULL */
    void *user;
} pgi_log;

/* One line, formatted here because a binding cannot take a va_list. PG_ERROR_CANCELLED: the callback threw. */
pg_status pgi_log_line(const pgi_log *log, int32_t level, const char *format, ...) PGI_PRINTF(3, 4);

#endif
