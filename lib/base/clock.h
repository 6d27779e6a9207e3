/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The clock that durations are measured with. */
#ifndef PGI_BASE_CLOCK_H
#define PGI_BASE_CLOCK_H

/* Seconds since some fixed moment. */
double pgi_now(void);

#endif
