/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The queue of request_queue.h: two binary heaps and two hash tables with chains. */
#include "worker/request_queue.h"

pg_status pgi_request_queue_init(pgi_request_queue *queue, const pgi_memory *memory, size_t max_waiting,
                                 size_t max_running) {
    *queue = (pgi_request_queue){.n_chains = 16};
    while (queue->n_chains < max_waiting + max_running) queue->n_chains *= 2;
    for (int order = 0; order < PGI_N_ORDERS; order++) {
        queue->heaps[order] = pgi_alloc_zero(memory, max_waiting, sizeof(pgi_request *));
        if (!queue->heaps[order]) return PG_ERROR_MEMORY;
    }
    queue->tickets = pgi_alloc_zero(memory, queue->n_chains, sizeof *queue->tickets);
    queue->streams = pgi_alloc_zero(memory, queue->n_chains, sizeof *queue->streams);
    return queue->tickets && queue->streams ? PG_OK : PG_ERROR_MEMORY;
}

void pgi_request_queue_free(pgi_request_queue *queue, const pgi_memory *memory) {
    for (int order = 0; order < PGI_N_ORDERS; order++) pgi_free(memory, queue->heaps[order]);
    pgi_free(memory, queue->tickets);
    pgi_free(memory, queue->streams);
}

/* ---- heaps ---- */

static int comes_before(const pgi_request *a, const pgi_request *b, int order) {
    if (order == PGI_BY_DEADLINE && a->deadline != b->deadline) return a->deadline < b->deadline;
    if (order == PGI_BY_PRIORITY && a->options.priority != b->options.priority)
        return a->options.priority > b->options.priority;
    return a->turn < b->turn;
}

static void set(pgi_request_queue *queue, int order, size_t at, pgi_request *request) {
    queue->heaps[order][at] = request;
    request->place[order] = at;
}

/* Finds the place of a request in a heap of n that is in order but for place `at`, which is free. */
static void sift(pgi_request_queue *queue, int order, size_t n, size_t at, pgi_request *request) {
    pgi_request **heap = queue->heaps[order];
    for (; at > 0 && comes_before(request, heap[(at - 1) / 2], order); at = (at - 1) / 2)
        set(queue, order, at, heap[(at - 1) / 2]);
    for (size_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && comes_before(heap[child + 1], heap[child], order)) child++;
        if (!comes_before(heap[child], request, order)) break;
        set(queue, order, at, heap[child]);
    }
    set(queue, order, at, request);
}

/* ---- tables ---- */

static pgi_request **chain(const pgi_request_queue *queue, pgi_request **table, int64_t key) {
    const uint64_t mixed = (uint64_t)key * UINT64_C(0x9E3779B97F4A7C15);
    return &table[(mixed >> 32) & (queue->n_chains - 1)];
}

void pgi_request_queue_add(pgi_request_queue *queue, pgi_request *request) {
    const size_t n = queue->n_waiting++;
    for (int order = 0; order < PGI_N_ORDERS; order++) sift(queue, order, n, n, request);
    pgi_request **first = chain(queue, queue->tickets, request->ticket);
    request->next_of_ticket = *first;
    *first = request;
    if (request->options.stream == 0) return;
    first = chain(queue, queue->streams, request->options.stream);
    request->next_of_stream = *first;
    *first = request;
}

void pgi_request_queue_take(pgi_request_queue *queue, pgi_request *request) {
    const size_t n = --queue->n_waiting;
    for (int order = 0; order < PGI_N_ORDERS; order++) {
        pgi_request *last = queue->heaps[order][n];
        if (last != request) sift(queue, order, n, request->place[order], last);
    }
    if (request->options.stream == 0) return;
    pgi_request **at = chain(queue, queue->streams, request->options.stream);
    while (*at != request) at = &(*at)->next_of_stream;
    *at = request->next_of_stream;
}

void pgi_request_queue_forget(pgi_request_queue *queue, pgi_request *request) {
    pgi_request **at = chain(queue, queue->tickets, request->ticket);
    while (*at != request) at = &(*at)->next_of_ticket;
    *at = request->next_of_ticket;
}

pgi_request *pgi_request_queue_first(const pgi_request_queue *queue, int order) {
    return queue->n_waiting > 0 ? queue->heaps[order][0] : NULL;
}

pgi_request *pgi_request_queue_by_ticket(const pgi_request_queue *queue, int64_t ticket) {
    pgi_request *request = *chain(queue, queue->tickets, ticket);
    while (request && request->ticket != ticket) request = request->next_of_ticket;
    return request;
}

pgi_request *pgi_request_queue_by_stream(const pgi_request_queue *queue, int64_t stream) {
    pgi_request *request = *chain(queue, queue->streams, stream);
    while (request && request->options.stream != stream) request = request->next_of_stream;
    return request;
}
