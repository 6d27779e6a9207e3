/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * A queue of events, first in, first out: any number of threads put in, one takes out, and none ever waits for another
 * (D. Vyukov's intrusive queue). The nodes are the callers', so that putting one in cannot fail.
 */
#ifndef PGI_WORKER_EVENT_QUEUE_H
#define PGI_WORKER_EVENT_QUEUE_H

#include <stdatomic.h>

typedef struct pgi_event_node {
    _Atomic(struct pgi_event_node *) next;
} pgi_event_node;

typedef struct pgi_event_queue {
    _Atomic(pgi_event_node *) newest; /* put in last */
    char line[64];                    /* apart in the cache from what the reader writes */
    pgi_event_node *oldest;           /* the reader's */
    pgi_event_node stub;              /* in the queue while it is empty, and at its beginning */
} pgi_event_queue;

void pgi_event_queue_init(pgi_event_queue *queue);
void pgi_event_queue_put(pgi_event_queue *queue, pgi_event_node *node);
/* NULL: it is empty, or another thread is just putting the next one in. */
pgi_event_node *pgi_event_queue_take(pgi_event_queue *queue);
/* Of the reader: whether something is in it, or just being put in. */
int pgi_event_queue_has(pgi_event_queue *queue);

#endif
