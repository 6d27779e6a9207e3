/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Where tests put what they write, for mkdtemp() and mkstemp(): under $TMPDIR, else /tmp. Needs nothing linked. */
#ifndef TESTS_TEMP_TEMPLATE_H
#define TESTS_TEMP_TEMPLATE_H

#include <stdio.h>
#include <stdlib.h>

static inline void temp_template(char *path, size_t size, const char *name) {
    const char *base = getenv("TMPDIR");
    snprintf(path, size, "%s/paligemma-%s-XXXXXX", base && *base ? base : "/tmp", name);
}

#endif
