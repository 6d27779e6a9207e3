/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Calls of the host's functions, with their C++ exceptions caught. */
#include <cstdio>
#include <exception>

#include <cxxabi.h>
#include <fenv.h>
#include <stdint.h>

#include "base/callback.h"
extern "C" {
#include "base/environment.h"
}

namespace {

/* Runs `call`; `error` makes a status of the reason when it throws. */
template <typename Call, typename Error>
pg_status guarded(Call call, Error error) {
    char reason[400];
    pgi_border *border = pgi_callback_begin();
    try {
        call();
        pgi_callback_end(border);
        return PG_OK;
#ifdef __GLIBCXX__
    } catch (
        abi::__forced_unwind &) { /* pthread_exit(), pthread_cancel(): the C library ends the process if it is kept */
        throw;
#endif
    } catch (const std::exception &e) {
        const char *what = e.what();
        std::snprintf(reason, sizeof reason, "threw a C++ exception: %s", what ? what : "");
    } catch (...) {
        std::snprintf(reason, sizeof reason, "threw something that is no std::exception");
    }
    pgi_callback_end(border);
    return error(reason);
}

template <typename Call>
pg_status guarded(const char *name, Call call) {
    return guarded(call, [name](const char *reason) {
        return pgi_error(PG_ERROR_CANCELLED, "the callback %s %s; expected it to return", name, reason);
    });
}

} // namespace

pg_status pgi_callback_log(pg_log_fn fn, void *user, int32_t level, const char *message) {
    return guarded("log", [&] { fn(user, level, message); });
}

pg_status pgi_callback_progress(pg_progress_fn fn, void *user, int32_t phase, int64_t done, int64_t total,
                                int32_t *answer) {
    return guarded("progress", [&] { *answer = fn(user, phase, done, total); });
}

pg_status pgi_callback_text(pg_text_fn fn, void *user, int64_t row, const char *text, size_t size, int64_t token,
                            int32_t *answer) {
    return guarded("on_text", [&] { *answer = fn(user, row, text, size, token); });
}

pg_status pgi_callback_logits(pg_logits_fn fn, void *user, int64_t row, const int64_t *ids, int64_t n_ids,
                              float *logits, int64_t vocab_size, int32_t *answer) {
    return guarded("on_logits", [&] { *answer = fn(user, row, ids, n_ids, logits, vocab_size); });
}

pg_status pgi_callback_texts(pg_texts_fn fn, void *user, int64_t row, const int64_t *ids, int64_t n_ids,
                             int64_t n_texts, uint8_t *ends, int32_t *answer) {
    return guarded("on_texts", [&] { *answer = fn(user, row, ids, n_ids, n_texts, ends); });
}

pg_status pgi_callback_mask(pg_mask_fn fn, void *user, int64_t row, const int64_t *ids, int64_t n_ids, uint32_t *mask,
                            int64_t vocab_size, int32_t *answer) {
    return guarded("on_mask", [&] { *answer = fn(user, row, ids, n_ids, mask, vocab_size); });
}

pg_status pgi_callback_event(pg_worker_fn fn, void *user, const pg_worker_event *event) {
    return guarded("on_event", [&] { fn(user, event); });
}

pg_status pgi_callback_alloc(void *(*alloc)(void *, size_t, size_t), void *user, size_t size, size_t alignment,
                             void **out) {
    *out = nullptr;
    return guarded([&] { *out = alloc(user, size, alignment); },
                   [size](const char *reason) {
                       return pgi_error(PG_ERROR_MEMORY,
                                        "out of memory: %zu bytes asked for, and the callback pg_allocator.alloc %s",
                                        size, reason);
                   });
}

void pgi_callback_free(void (*release)(void *, void *), void *user, void *block) {
    guarded([&] { release(user, block); }, [](const char *) { return PG_OK; });
}
