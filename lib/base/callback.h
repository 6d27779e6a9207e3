/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls of the host's functions: every one of them is made here, in the host's floating-point environment, and what it
 * throws (C++) ends here. The frames of the library are C: an exception that went through them would leave memory,
 * references and threads behind.
 */
#ifndef PGI_BASE_CALLBACK_H
#define PGI_BASE_CALLBACK_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Each: PG_ERROR_CANCELLED when the function threw; the message names it and has the exception's what(). */
pg_status pgi_callback_log(pg_log_fn fn, void *user, int32_t level, const char *message);
pg_status pgi_callback_progress(pg_progress_fn fn, void *user, int32_t phase, int64_t done, int64_t total,
                                int32_t *answer);
pg_status pgi_callback_text(pg_text_fn fn, void *user, int64_t row, const char *text, size_t size, int64_t token,
                            int32_t *answer);
pg_status pgi_callback_logits(pg_logits_fn fn, void *user, int64_t row, const int64_t *ids, int64_t n_ids,
                              float *logits, int64_t vocab_size, int32_t *answer);
pg_status pgi_callback_texts(pg_texts_fn fn, void *user, int64_t row, const int64_t *ids, int64_t n_ids,
                             int64_t n_texts, uint8_t *ends, int32_t *answer);
pg_status pgi_callback_mask(pg_mask_fn fn, void *user, int64_t row, const int64_t *ids, int64_t n_ids, uint32_t *mask,
                            int64_t vocab_size, int32_t *answer);
pg_status pgi_callback_event(pg_worker_fn fn, void *user, const pg_worker_event *event);

/* The functions of a pg_allocator. When alloc threw, *out is NULL, and the status PG_ERROR_MEMORY with its message;
 * without an exception it is PG_OK, whatever *out is. What free throws is dropped: nobody could be told. */
pg_status pgi_callback_alloc(void *(*alloc)(void *, size_t, size_t), void *user, size_t size, size_t alignment,
                             void **out);
void pgi_callback_free(void (*release)(void *, void *), void *user, void *block);

#ifdef __cplusplus
}
#endif

#endif
