/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* A request of a worker: what was asked, copied, and how it ended. */
#ifndef PGI_WORKER_REQUEST_H
#define PGI_WORKER_REQUEST_H

#include "base/memory.h"
#include "worker/event_queue.h"

enum { PGI_WORDS_SIZE = 1024 /* of pg_last_error() */ };

/* The orders that requests wait in: the next to begin, and the next whose deadline passes. */
enum { PGI_BY_PRIORITY, PGI_BY_DEADLINE, PGI_N_ORDERS };

typedef enum pgi_request_state { PGI_REQUEST_WAITS, PGI_REQUEST_RUNS, PGI_REQUEST_ENDED } pgi_request_state;

struct pgi_request;

/* An event that is to be polled. */
typedef struct pgi_event {
    pgi_event_node node; /* first: the queue has its address */
    int32_t kind;        /* PG_WORKER_* */
    struct pgi_request *request;
    const char *text;
    size_t size;
    pg_object object; /* of PG_WORKER_EVENT_OBJECT; its label: text */
} pgi_event;

typedef struct pgi_request {
    /* as it was asked; options: complete, its pointers are to copies */
    pg_request_options options;
    pg_image image;
    char *prompt;
    void *image_block;          /* NULL: borrowed, or not needed any more */
    void *block;                /* of the copies of the options */
    double submitted, deadline; /* by pgi_now(); INFINITY: none */

    /* of the worker's lock */
    int64_t ticket;
    int64_t turn; /* its ticket, or the turn of the request whose place it took */
    pgi_request_state state;
    size_t place[PGI_N_ORDERS];
    struct pgi_request *next_of_ticket, *next_of_stream; /* in the chains of the queue */
    struct pgi_request *next_to_tell;

    atomic_int ends; /* PG_ERROR_CANCELLED, PG_ERROR_REPLACED: it is to end, set while it runs; 0: not */
    double began;    /* by pgi_now(); 0: it has not */

    /* of the thread that runs it, then of whoever is told of its end */
    pgi_buffer text;
    int64_t n_new_tokens;
    double ended;
    pg_status status;
    int32_t stop;
    char words[PGI_WORDS_SIZE]; /* of an error */
    pgi_event done;             /* here, so that it cannot fail */
} pgi_request;

/* Copies options, prompt and image, unless that is to be borrowed. options: complete, with sampling and encode complete
 * where they are not NULL. image_block: the memory of the image, which becomes the request's with success. */
pg_status pgi_request_new(const pgi_memory *memory, const pg_image *image, void *image_block, const char *prompt,
                          const pg_request_options *options, int64_t vocab_size, pgi_request **out);
void pgi_request_free(const pgi_memory *memory, pgi_request *request); /* NULL is ignored */
/* Gives back what is not needed any more once the image was read, or the request has ended. */
void pgi_request_drop_image(const pgi_memory *memory, pgi_request *request);

/* A piece of text, or an object with its label, that is to be polled; NULL: PG_ERROR_MEMORY. */
pgi_event *pgi_event_new(const pgi_memory *memory, pgi_request *request, int32_t kind, const char *text, size_t size);
/* What the host sees. */
pg_worker_event pgi_event_shown(const pgi_event *event);

#endif
