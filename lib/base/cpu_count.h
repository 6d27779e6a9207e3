/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* How many CPUs this process may use. */
#ifndef PGI_BASE_CPU_COUNT_H
#define PGI_BASE_CPU_COUNT_H

/* The CPUs of the affinity mask, but no more than the time that the control groups grant; at least 1. */
int pgi_cpu_count(void);

/* The CPU time that the control groups of this process and their parents grant, in CPUs and rounded up; 0: no bound.
 * `root` is put before each path: "", or the folder of a tree made for a test. */
int pgi_cpu_quota(const char *root);

#endif
