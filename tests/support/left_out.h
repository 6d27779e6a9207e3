/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Tests, and parts of tests, that a machine cannot do: TEST_LEAVE_OUT has their names, with spaces between. */
#ifndef TESTS_LEFT_OUT_H
#define TESTS_LEFT_OUT_H

#include <stdlib.h>
#include <string.h>

static inline int is_left_out(const char *name) {
    const char *list = getenv("TEST_LEAVE_OUT");
    const size_t size = strlen(name);
    for (const char *word = list; word && *word; word += strcspn(word, " "), word += strspn(word, " "))
        if (strcspn(word, " ") == size && strncmp(word, name, size) == 0) return 1;
    return 0;
}

#endif
