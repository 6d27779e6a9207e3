/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Variables and the home folder through POSIX calls. */
#include "base/variables.h"

#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

pg_status pgi_system_variable(const char *name, pgi_buffer *out, int *found) {
    const char *value = getenv(name);
    *found = value != NULL;
    return value ? pgi_buffer_append(out, value, strlen(value)) : PG_OK;
}

pg_status pgi_system_home(pgi_buffer *out) {
    struct passwd entry, *user = NULL;
    int found;
    PGI_TRY(pgi_system_variable("HOME", out, &found));
    if (found) return PG_OK;
    const size_t size = 16384; /* a service without an environment */
    char *block = pgi_alloc(out->memory, size, 1);
    if (!block) return PG_ERROR_MEMORY;
    const int failed = getpwuid_r(getuid(), &entry, block, size, &user);
    const char *home = failed || !user || !entry.pw_dir ? "~" : entry.pw_dir;
    const pg_status status = pgi_buffer_append(out, home, strlen(home));
    pgi_free(out->memory, block);
    return status;
}
