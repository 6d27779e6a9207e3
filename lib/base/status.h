/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Status and the thread-local text behind pg_last_error(). */
#ifndef PGI_BASE_STATUS_H
#define PGI_BASE_STATUS_H

#include <paligemma/paligemma.h>

#if defined(__MINGW32__) && !defined(__clang__) /* whose "printf" is Microsoft's, without %zu and %lld */
#define PGI_PRINTF(format_index, first_index) __attribute__((format(gnu_printf, format_index, first_index)))
#elif defined(__GNUC__)
#define PGI_PRINTF(format_index, first_index) __attribute__((format(printf, format_index, first_index)))
#else
#define PGI_PRINTF(format_index, first_index)
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Writes the message of this thread and returns `status`, so that a failing
 * function ends in `return pgi_error(PG_ERROR_..., "%s: found ..., expected ...", ...)`.
 * The message is made one line of valid UTF-8 whatever the arguments hold. */
pg_status pgi_error(pg_status status, const char *format, ...) PGI_PRINTF(2, 3);

/* Puts "context: " before the message of this thread and returns `status`. */
pg_status pgi_error_context(pg_status status, const char *format, ...) PGI_PRINTF(2, 3);

/* Says that the message of this thread is about row `row` of a batch, and returns `status`:
 * `return pgi_error_of_row(pgi_error(PG_ERROR_..., "row %lld: ...", ...), row)`. */
pg_status pgi_error_of_row(pg_status status, int64_t row);

const char *pgi_error_text(void);
int64_t pgi_error_row(void); /* -1: of none */

#ifdef __cplusplus
}
#endif

/* Returns from the calling function when `expression` is an error. */
#define PGI_TRY(expression)                              \
    do {                                                 \
        pg_status pgi_try_status_ = (expression);        \
        if (pgi_try_status_ < 0) return pgi_try_status_; \
    } while (0)

/* Jumps to `label` when `expression`, kept in the local `status`, is an error. */
#define PGI_GOTO(expression, label)                  \
    do {                                             \
        if ((status = (expression)) < 0) goto label; \
    } while (0)

#endif
