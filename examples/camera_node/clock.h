/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The two clocks, in nanoseconds. */
#ifndef CAMERA_NODE_CLOCK_H
#define CAMERA_NODE_CLOCK_H
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

int64_t monotonic_ns(void); /* never set: for differences */
int64_t wall_ns(void);      /* since 1970: for stamps that others read */

#ifdef __cplusplus
}
#endif
#endif
