/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The queue of event_queue.h. */
#include "worker/event_queue.h"

#include <stddef.h>

void pgi_event_queue_init(pgi_event_queue *queue) {
    atomic_init(&queue->stub.next, NULL);
    atomic_init(&queue->newest, &queue->stub);
    queue->oldest = &queue->stub;
}

/* Sequentially consistent, as the order of this and of a look for a sleeping reader counts (worker.c). Between the two
 * lines the node is in, but the reader does not reach it yet. */
void pgi_event_queue_put(pgi_event_queue *queue, pgi_event_node *node) {
    atomic_store_explicit(&node->next, NULL, memory_order_relaxed);
    pgi_event_node *before = atomic_exchange(&queue->newest, node);
    atomic_store_explicit(&before->next, node, memory_order_release);
}

pgi_event_node *pgi_event_queue_take(pgi_event_queue *queue) {
    pgi_event_node *oldest = queue->oldest, *next = atomic_load_explicit(&oldest->next, memory_order_acquire);
    if (oldest == &queue->stub) {
        if (!next) return NULL;
        queue->oldest = oldest = next;
        next = atomic_load_explicit(&oldest->next, memory_order_acquire);
    }
    if (next) {
        queue->oldest = next;
        return oldest;
    }
    if (atomic_load(&queue->newest) != oldest) return NULL; /* another one is just being put in behind it */
    pgi_event_queue_put(queue, &queue->stub);               /* so that the queue never is without a node */
    next = atomic_load_explicit(&oldest->next, memory_order_acquire);
    if (!next) return NULL;
    queue->oldest = next;
    return oldest;
}

int pgi_event_queue_has(pgi_event_queue *queue) {
    return queue->oldest != &queue->stub || atomic_load(&queue->newest) != &queue->stub;
}
