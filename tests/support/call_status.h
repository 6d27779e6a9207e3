/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Calls whose status a cmocka test knows; run_tests.h comes before it. */
#ifndef TESTS_SUPPORT_CALL_STATUS_H
#define TESTS_SUPPORT_CALL_STATUS_H

#include "support.h"

#define OK(call)                                                                                       \
    do {                                                                                               \
        pg_status status_ = (call);                                                                    \
        if (status_ != PG_OK) fail_msg("%s: %s: %s", #call, pg_status_name(status_), pg_last_error()); \
    } while (0)

/* An error of its own words, with the manners of all of them. */
#define ERROR(call, wanted)                                                                             \
    do {                                                                                                \
        stale_error();                                                                                  \
        pg_status status_ = (call);                                                                     \
        const char *bad_ = status_ == (wanted) ? bad_error(status_) : "another status";                 \
        if (!bad_ && error_is_stale() && (wanted) != PG_ERROR_ARGUMENT) bad_ = "no message of its own"; \
        if (bad_) fail_msg("%s: %s: %s %s", #call, bad_, pg_status_name(status_), pg_last_error());     \
    } while (0)

#endif
