/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Variables and the home folder on Windows. */
#include "base/variables.h"

#include <windows.h>

#include "base/wide_windows.h"

pg_status pgi_system_variable(const char *name, pgi_buffer *out, int *found) {
    wchar_t wide[256], *value;
    *found = 0;
    if (MultiByteToWideChar(CP_UTF8, 0, name, -1, wide, sizeof wide / sizeof *wide) == 0) return PG_OK;
    const DWORD size = GetEnvironmentVariableW(wide, NULL, 0); /* with the NUL */
    if (size == 0) return PG_OK;
    value = pgi_alloc(out->memory, size, sizeof *value);
    if (!value) return PG_ERROR_MEMORY;
    *found = GetEnvironmentVariableW(wide, value, size) < size; /* else it grew meanwhile */
    const pg_status status = *found ? pgi_wide_append(value, out) : PG_OK;
    pgi_free(out->memory, value);
    return status;
}

/* As Python's expanduser finds it. */
pg_status pgi_system_home(pgi_buffer *out) {
    int found;
    PGI_TRY(pgi_system_variable("USERPROFILE", out, &found));
    if (found) return PG_OK;
    const size_t begin = out->size;
    PGI_TRY(pgi_system_variable("HOMEDRIVE", out, &found));
    PGI_TRY(pgi_system_variable("HOMEPATH", out, &found));
    if (found) return PG_OK;
    out->size = begin;
    return pgi_buffer_append(out, "~", 1);
}
