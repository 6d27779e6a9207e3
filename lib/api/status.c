/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Version, status, and the text of the last error. */
#include "base/status.h"

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
        NAME(PG_EVENT_STOP);
        NAME(PG_EVENT_CONTEXT);
        NAME(PG_EVENT_NONE);
        NAME(PG_ERROR_ARGUMENT);
        NAME(PG_ERROR_MEMORY);
        NAME(PG_ERROR_IO);
        NAME(PG_ERROR_NOT_FOUND);
        NAME(PG_ERROR_FORMAT);
        NAME(PG_ERROR_UNSUPPORTED);
        NAME(PG_ERROR_LIMIT);
        NAME(PG_ERROR_BUSY);
        NAME(PG_ERROR_CANCELLED);
        NAME(PG_ERROR_DEADLINE);
        NAME(PG_ERROR_REPLACED);
        NAME(PG_ERROR_STATE);
        NAME(PG_ERROR_INTERNAL);
#undef NAME
        default: return "unknown status";
    }
}

const char *pg_last_error(void) { return pgi_error_text(); }

int64_t pg_last_error_row(void) { return pgi_error_row(); }
