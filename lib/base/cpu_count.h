/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* How many CPUs this process may use. */
#ifndef PGI_BASE_CPU_COUNT_H
#define PGI_BASE_CPU_COUNT_H

/* The CPUs this process may use, at least 1. */
int pgi_cpu_count(void);

#endif
