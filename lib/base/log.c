/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Log lines for the host. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/callback.h"

pg_status pgi_log_line(const pgi_log *log, int32_t level, const char *format, ...) {
    char text[512];
    if (!log->fn) return PG_OK;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return pgi_callback_log(log->fn, log->user, level, text);
}
