/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Windows has no fork(): a mark is where it was set. */
#include "base/process_mark.h"

#include <stddef.h>

void pgi_process_mark_set(pgi_process_mark *mark) { mark->owner = 1; }

int pgi_process_mark_is_here(const pgi_process_mark *mark) { return mark->owner != 0; }

void pgi_process_mark_free(pgi_process_mark *mark) { *mark = (pgi_process_mark){0, NULL}; }
