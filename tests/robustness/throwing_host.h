/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* A C++ host whose callbacks throw, for tests that are C. */
#ifndef TESTS_THROWING_HOST_H
#define TESTS_THROWING_HOST_H

#include <paligemma/paligemma.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What is thrown. */
enum { THROWS_ERROR, THROWS_NUMBER, THROWS_BAD_ALLOC, THROWS_EXIT /* pthread_exit() */, N_THROWN = THROWS_EXIT };

/* `user` of the callbacks below: the call number `at` (1 is the first) throws; 0: none. */
typedef struct thrower {
    int64_t at, n_calls;
    int kind;
    const pg_allocator *memory; /* behind the allocator's two */
} thrower;

void throwing_log(void *user, int32_t level, const char *message);
int32_t throwing_progress(void *user, int32_t phase, int64_t done, int64_t total);
int32_t throwing_text(void *user, int64_t row, const char *text, size_t size, int64_t token);
int32_t throwing_logits(void *user, int64_t row, const int64_t *ids, int64_t n_ids, float *logits, int64_t vocab_size);
int32_t throwing_mask(void *user, int64_t row, const int64_t *ids, int64_t n_ids, uint32_t *mask, int64_t vocab_size);
int32_t throwing_texts(void *user, int64_t row, const int64_t *ids, int64_t n_ids, int64_t n_texts, uint8_t *ends);
void *throwing_alloc(void *user, size_t size, size_t alignment);
void throwing_free(void *user, void *memory); /* releases it first */

#ifdef __cplusplus
}
#endif

#endif
