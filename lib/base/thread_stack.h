/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The stacks of the library's own threads. */
#ifndef PGI_BASE_THREAD_STACK_H
#define PGI_BASE_THREAD_STACK_H

#include <pthread.h>

enum {
    PGI_LEAST_STACK = 64 << 10, /* that every call runs on */
    PGI_POOL_STACK = 256 << 10  /* of a thread of a pool at least */
};

/* pthread_create(), with a stack of at least `least` bytes: a host may have made the default of the process smaller
 * (pthread_setattr_default_np()). */
static inline int pgi_thread_create(pthread_t *thread, size_t least, void *(*body)(void *user), void *user) {
    pthread_attr_t attributes;
    size_t size;
    int error = pthread_attr_init(&attributes);
    if (error != 0) return error;
    if (pthread_attr_getstacksize(&attributes, &size) == 0 && size < least)
        (void)pthread_attr_setstacksize(&attributes, least);
    error = pthread_create(thread, &attributes, body, user);
    (void)pthread_attr_destroy(&attributes);
    return error;
}

#endif
