/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What the parts of lib/base that are made for POSIX share. */
#ifndef PGI_BASE_FILE_POSIX_H
#define PGI_BASE_FILE_POSIX_H

#include "base/file.h"

/* openat(), tried again where a signal of the host interrupts it (file systems that wait for a server). `mode`: of a
 * file that it makes. */
int pgi_openat(int folder, const char *path, int flags, unsigned mode);

#endif
