/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Windows' names are UTF-16, the library's UTF-8; and its errors have numbers of their own. */
#ifndef PGI_BASE_WIDE_WINDOWS_H
#define PGI_BASE_WIDE_WINDOWS_H

#include <wchar.h>

#include "base/memory.h"

enum { PGI_WIDE_PATH = 4096 }; /* of a path, with its NUL */

/* The errno that means what GetLastError() says; EBUSY: another program keeps the file from it. */
int pgi_windows_error(void);

/* A path for the functions that end in W. What Windows would refuse for its length (260 characters) is made absolute,
 * with "\\?\" before it. 0, or an errno: ENAMETOOLONG, EILSEQ (it is no UTF-8). */
int pgi_wide_path(const char *path, wchar_t wide[PGI_WIDE_PATH]);

/* Appends the text as UTF-8; halves of pairs that stand alone become U+FFFD. */
pg_status pgi_wide_append(const wchar_t *wide, pgi_buffer *out);

#endif
