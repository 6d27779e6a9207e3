/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Calls that must succeed, or fail with a status and a message that has two parts; beside cmocka. */
#ifndef TESTS_EXPECT_STATUS_H
#define TESTS_EXPECT_STATUS_H

#include <string.h>

#include "support.h"

#define OK(call)                                                                                       \
    do {                                                                                               \
        pg_status status_ = (call);                                                                    \
        if (status_ != PG_OK) fail_msg("%s: %s: %s", #call, pg_status_name(status_), pg_last_error()); \
    } while (0)

/* The status, and a message of its own that has both parts. */
#define ERROR(call, wanted, first, second)                                                                            \
    do {                                                                                                              \
        stale_error();                                                                                                \
        pg_status status_ = (call);                                                                                   \
        const char *bad_ = status_ == (wanted) ? bad_error(status_) : "another status";                               \
        if (!bad_ && (!strstr(pg_last_error(), first) || !strstr(pg_last_error(), second))) bad_ = "another message"; \
        if (bad_) fail_msg("%s: %s: %s %s", #call, bad_, pg_status_name(status_), pg_last_error());                   \
    } while (0)

#endif
