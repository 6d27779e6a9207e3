/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Small arithmetic on sizes and indices. */
#ifndef PGI_BASE_INT64_H
#define PGI_BASE_INT64_H

#include <stdint.h>

static inline int64_t pgi_min64(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t pgi_max64(int64_t a, int64_t b) { return a > b ? a : b; }
/* a / b rounded up; a >= 0, b > 0. */
static inline int64_t pgi_ceil_div64(int64_t a, int64_t b) { return (a + b - 1) / b; }

#endif
