/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
#include "throwing_host.h"

#include <cstring>
#include <new>
#include <stdexcept>

#include <pthread.h>

static void step(thrower *t) {
    if (++t->n_calls != t->at) return;
    if (t->kind == THROWS_ERROR) throw std::runtime_error("deliberate, with a\nline break");
    if (t->kind == THROWS_NUMBER) throw 42;
    if (t->kind == THROWS_EXIT) pthread_exit(t);
    throw std::bad_alloc();
}

static int32_t go_on(void *user) {
    step(static_cast<thrower *>(user));
    return 0;
}

void throwing_log(void *user, int32_t, const char *) { go_on(user); }
int32_t throwing_progress(void *user, int32_t, int64_t, int64_t) { return go_on(user); }
int32_t throwing_text(void *user, int64_t, const char *, size_t, int64_t) { return go_on(user); }
int32_t throwing_logits(void *user, int64_t, const int64_t *, int64_t, float *, int64_t) { return go_on(user); }
int32_t throwing_texts(void *user, int64_t, const int64_t *, int64_t, int64_t, uint8_t *) { return go_on(user); }

int32_t throwing_mask(void *user, int64_t, const int64_t *, int64_t, uint32_t *mask, int64_t vocab_size) {
    std::memset(mask, 0xff, static_cast<size_t>((vocab_size + 31) / 32) * sizeof *mask);
    return go_on(user);
}

void *throwing_alloc(void *user, size_t size, size_t alignment) {
    thrower *t = static_cast<thrower *>(user);
    step(t);
    return t->memory->alloc(t->memory->user, size, alignment);
}

void throwing_free(void *user, void *memory) {
    thrower *t = static_cast<thrower *>(user);
    t->memory->free(t->memory->user, memory);
    step(t);
}
