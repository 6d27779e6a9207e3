/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The smallest stack of a thread that tests ask for: 64 KiB, or what the system allows, which is 128 KiB on AArch64. */
#ifndef TESTS_SMALL_STACK_H
#define TESTS_SMALL_STACK_H

#include <limits.h>
#include <pthread.h>
#include <stddef.h>

static inline size_t small_stack(void) {
    const size_t size = 64 * 1024, least = (size_t)PTHREAD_STACK_MIN;
    return size < least ? least : size;
}

#endif
