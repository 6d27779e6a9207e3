/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The requests of a worker that have not ended: found by ticket, those that wait also by stream, by priority and by
 * deadline. Memory for all that there can be is made once; each operation takes a time that grows by the logarithm of
 * the requests at most. The caller locks. */
#ifndef PGI_WORKER_REQUEST_QUEUE_H
#define PGI_WORKER_REQUEST_QUEUE_H

#include "worker/request.h"

typedef struct pgi_request_queue {
    size_t n_waiting;
    pgi_request **heaps[PGI_N_ORDERS]; /* [max_waiting], of which n_waiting are set */
    pgi_request **tickets, **streams;  /* [n_chains]: those that have not ended, those that wait and have a stream */
    size_t n_chains;                   /* a power of two */
} pgi_request_queue;

/* On error pgi_request_queue_free() is due, too. */
pg_status pgi_request_queue_init(pgi_request_queue *queue, const pgi_memory *memory, size_t max_waiting,
                                 size_t max_running);
void pgi_request_queue_free(pgi_request_queue *queue, const pgi_memory *memory);

/* A request that begins to wait; it has its ticket. */
void pgi_request_queue_add(pgi_request_queue *queue, pgi_request *request);
/* One that does not wait any more. It stays known by its ticket. */
void pgi_request_queue_take(pgi_request_queue *queue, pgi_request *request);
/* One that has ended is not known any more. */
void pgi_request_queue_forget(pgi_request_queue *queue, pgi_request *request);

/* The first of those that wait, in one of the orders; NULL: none waits. */
pgi_request *pgi_request_queue_first(const pgi_request_queue *queue, int order);
/* NULL: there is none, or it has ended. */
pgi_request *pgi_request_queue_by_ticket(const pgi_request_queue *queue, int64_t ticket);
/* The one of the stream that waits. NULL: none does. */
pgi_request *pgi_request_queue_by_stream(const pgi_request_queue *queue, int64_t stream);

#endif
