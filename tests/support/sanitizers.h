/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Which sanitizers this is compiled with: 1 or 0. gcc and clang say it differently. */
#ifndef TESTS_SANITIZERS_H
#define TESTS_SANITIZERS_H

#ifndef __has_feature
#define __has_feature(feature) 0
#endif

#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define WITH_ASAN 1
#else
#define WITH_ASAN 0
#endif

/* It follows no threads in a child of a process with threads. */
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
#define WITH_TSAN 1
#else
#define WITH_TSAN 0
#endif

#endif
