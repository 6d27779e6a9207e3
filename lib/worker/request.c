/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The requests of request.h. What settings point to is copied into one block. */
#include "worker/request.h"

#include <math.h>
#include <string.h>

#include "base/clock.h"

/* Measures, and then copies: arrays one after the other, each at a multiple of 8 bytes. */
typedef struct copier {
    uint8_t *block; /* NULL: measuring */
    size_t used;    /* SIZE_MAX: more than can be addressed */
} copier;

static void copy(copier *c, const void *field, int64_t n, size_t size) {
    size_t bytes;
    const void *from;
    memcpy(&from, field, sizeof from);
    if (!from) return;
    if (n < 0 || c->used == SIZE_MAX || !pgi_mul_size((size_t)n, size, &bytes) || bytes > SIZE_MAX - 16 - c->used) {
        c->used = SIZE_MAX;
        return;
    }
    if (c->block) {
        const void *to = memcpy(c->block + c->used, from, bytes);
        memcpy((void *)(uintptr_t)field, &to, sizeof to);
    }
    c->used += (bytes + 7) & ~(size_t)7;
}

/* Ids of all sequences together; -1: a size makes no sense. */
static int64_t sum(const int64_t *sizes, int64_t n) {
    int64_t all = 0;
    for (int64_t i = 0; sizes && i < n; i++)
        if (sizes[i] < 0 || __builtin_add_overflow(all, sizes[i], &all)) return -1;
    return all;
}

static void copy_sampling(copier *c, pg_sampling_options *s, int64_t vocab_size) {
    const int64_t n_bad = sum(s->bad_word_sizes, s->n_bad_words), n_biased = sum(s->bias_sizes, s->n_biases);
    copy(c, &s->eos_ids, s->n_eos_ids, sizeof *s->eos_ids);
    copy(c, &s->forced_eos_ids, s->n_forced_eos_ids, sizeof *s->forced_eos_ids);
    copy(c, &s->suppressed_ids, s->n_suppressed_ids, sizeof *s->suppressed_ids);
    copy(c, &s->begin_suppressed_ids, s->n_begin_suppressed_ids, sizeof *s->begin_suppressed_ids);
    copy(c, &s->bad_word_ids, n_bad, sizeof *s->bad_word_ids);
    copy(c, &s->bad_word_sizes, s->n_bad_words, sizeof *s->bad_word_sizes);
    copy(c, &s->bias_ids, n_biased, sizeof *s->bias_ids);
    copy(c, &s->bias_sizes, s->n_biases, sizeof *s->bias_sizes);
    copy(c, &s->biases, s->n_biases, sizeof *s->biases);
    copy(c, &s->token_mask, (vocab_size + 31) / 32, sizeof *s->token_mask);
}

/* All that the options point to. While this measures, nothing is written. */
static void copy_all(copier *c, pgi_request *request, int64_t vocab_size) {
    copy(c, &request->prompt, (int64_t)strlen(request->prompt) + 1, 1);
    copy(c, &request->options.sampling, 1, sizeof(pg_sampling_options));
    if (request->options.sampling)
        copy_sampling(c, (pg_sampling_options *)(uintptr_t)request->options.sampling, vocab_size);
    copy(c, &request->options.encode, 1, sizeof(pg_encode_options));
    if (request->options.encode) copy(c, &request->options.encode->image_settings, 1, sizeof(pg_image_settings));
}

pg_status pgi_request_new(const pgi_memory *memory, const pg_image *image, void *image_block, const char *prompt,
                          const pg_request_options *options, int64_t vocab_size, pgi_request **out) {
    pgi_request *request = pgi_alloc_zero(memory, 1, sizeof *request);
    if (!request) return PG_ERROR_MEMORY;
    request->options = *options;
    request->image = *image;
    request->prompt = (char *)(uintptr_t)prompt;
    copier c = {NULL, 0};
    copy_all(&c, request, vocab_size);
    if (c.used == SIZE_MAX) {
        pgi_free(memory, request);
        return pgi_error(PG_ERROR_ARGUMENT,
                         "sampling has a number of ids, or a size of a sequence, that is negative or "
                         "too large for memory");
    }
    c.block = pgi_alloc(memory, c.used, 1);
    if (!c.block) {
        pgi_free(memory, request);
        return PG_ERROR_MEMORY;
    }
    c.used = 0;
    copy_all(&c, request, vocab_size);
    request->block = c.block;
    request->image_block = image_block;
    request->submitted = pgi_now();
    request->deadline = options->deadline > 0 ? request->submitted + options->deadline : (double)INFINITY;
    atomic_init(&request->ends, 0);
    pgi_buffer_init(&request->text, memory);
    request->done = (pgi_event){.kind = PG_WORKER_EVENT_DONE, .request = request};
    *out = request;
    return PG_OK;
}

void pgi_request_drop_image(const pgi_memory *memory, pgi_request *request) {
    pgi_free(memory, request->image_block);
    request->image_block = NULL;
}

void pgi_request_free(const pgi_memory *memory, pgi_request *request) {
    if (!request) return;
    pgi_buffer_free(&request->text);
    pgi_free(memory, request->image_block);
    pgi_free(memory, request->block);
    pgi_free(memory, request);
}

pgi_event *pgi_event_new(const pgi_memory *memory, pgi_request *request, int32_t kind, const char *text, size_t size) {
    pgi_event *event = pgi_alloc_zero(memory, 1, sizeof *event + size + 1);
    if (!event) return NULL;
    event->kind = kind;
    event->request = request;
    event->text = memcpy(event + 1, text, size); /* the NUL behind it is there */
    event->size = size;
    return event;
}

pg_worker_event pgi_event_shown(const pgi_event *event) {
    const pgi_request *request = event->request;
    pg_worker_event shown = {
        .struct_size = sizeof shown,
        .kind = event->kind,
        .ticket = request->ticket,
        .user = request->options.user,
        .text = event->text ? event->text : "",
        .size = event->size,
    };
    if (event->kind == PG_WORKER_EVENT_OBJECT) {
        shown.object = &event->object;
        shown.text = "";
        shown.size = 0;
    }
    if (event->kind != PG_WORKER_EVENT_DONE) return shown;
    shown.status = request->status;
    shown.n_new_tokens = request->n_new_tokens;
    shown.wait_seconds = (request->began > 0 ? request->began : request->ended) - request->submitted;
    shown.run_seconds = request->began > 0 ? request->ended - request->began : 0;
    if (request->status == PG_OK) {
        shown.stop = request->stop;
        shown.text = request->text.data ? (const char *)request->text.data : "";
        shown.size = request->text.size;
    } else {
        shown.text = request->words;
        shown.size = strlen(request->words);
    }
    return shown;
}
