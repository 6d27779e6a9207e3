/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * SANITIZED: defined in builds with the address or the thread sanitizer, of gcc and of clang. These have a malloc of
 * their own, larger stack frames, and report what a test leaves behind on purpose. THREAD_SANITIZED: the second of
 * them. It follows no threads in the child of a process that had threads.
 */
#ifndef TESTS_SANITIZED_H
#define TESTS_SANITIZED_H

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

#if defined(__SANITIZE_THREAD__)
#define THREAD_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define THREAD_SANITIZED 1
#endif
#endif

#endif
