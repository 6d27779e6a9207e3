/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Variables of the environment, and the user's home: variables_posix.c and variables_windows.c. */
#ifndef PGI_BASE_VARIABLES_H
#define PGI_BASE_VARIABLES_H

#include "base/memory.h"

/* Appends the value of an environment variable, as UTF-8; *found: there is one. */
pg_status pgi_system_variable(const char *name, pgi_buffer *out, int *found);
/* Appends the user's home folder, or "~" where none is known. */
pg_status pgi_system_home(pgi_buffer *out);

#endif
