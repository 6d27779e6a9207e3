/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The rows of worker.h: prefill, tokens, pieces of text, objects. */
#include "worker/worker.h"

#include <math.h>
#include <string.h>

#include "base/callback.h"
#include "base/clock.h"
#include "base/environment.h"

pg_status pgi_worker_row_check(const pgi_worker_row *row) {
    const pgi_request *request = row->request;
    if (!pgi_process_mark_is_here(&row->worker->mark))
        return pgi_error(PG_ERROR_STATE, "ticket %lld runs in the parent of this process", (long long)request->ticket);
    const int ends = atomic_load(&request->ends);
    if (ends == PG_ERROR_REPLACED)
        return pgi_error(PG_ERROR_REPLACED, "a newer request of stream %lld took the place of ticket %lld",
                         (long long)request->options.stream, (long long)request->ticket);
    if (ends == PG_ERROR_CANCELLED)
        return pgi_error(PG_ERROR_CANCELLED, "ticket %lld was cancelled by request", (long long)request->ticket);
    if (atomic_load(&row->worker->closing))
        return pgi_error(PG_ERROR_CANCELLED, "the worker was closed while ticket %lld ran", (long long)request->ticket);
    if (pgi_now() > request->deadline)
        return pgi_error(PG_ERROR_DEADLINE,
                         "ticket %lld ran when its deadline passed, %g s after it was submitted; it waited %g s and "
                         "had %lld tokens",
                         (long long)request->ticket, request->options.deadline, request->began - request->submitted,
                         (long long)request->n_new_tokens);
    return PG_OK;
}

/* Of image and prompt before each layer, and before a step. Whether the request is to end is asked again when the call
 * has returned. */
static int32_t on_progress(void *user, int32_t phase, int64_t done, int64_t total) {
    const pgi_worker_row *row = user;
    (void)phase, (void)done, (void)total;
    pgi_worker_end_late(row->worker);
    return pgi_worker_row_check(row) < 0;
}

pg_status pgi_worker_row_init(pgi_worker_row *row, struct pg_worker *worker, pg_session *first) {
    pg_session_options options;
    row->worker = worker;
    PGI_TRY(pg_cancel_create(&row->cancel));
    PGI_TRY(pg_detokenizer_create(worker->processor, PG_DECODE_SKIP_SPECIAL, &row->detokenizer));
    row->ids = pgi_alloc(&worker->memory, (size_t)worker->options.max_new_tokens, sizeof *row->ids);
    row->log_probs = pgi_alloc(&worker->memory, (size_t)worker->options.max_new_tokens, sizeof *row->log_probs);
    if (!row->ids || !row->log_probs) return PG_ERROR_MEMORY;
    PGI_TRY(pg_session_options_init(&options, sizeof options));
    options.n_threads = first ? 0 : worker->options.n_threads;
    options.max_new_tokens = worker->options.max_new_tokens;
    options.progress = on_progress;
    options.progress_user = row;
    options.cancel = row->cancel;
    options.threads_of = first;
    return pg_session_create(worker->model, &options, &row->session);
}

void pgi_worker_row_free(pgi_worker_row *row) {
    if (!row->worker) return;
    const pgi_memory *memory = &row->worker->memory;
    pg_session_close(&row->session);
    pg_detokenizer_close(&row->detokenizer);
    pg_cancel_close(&row->cancel);
    pgi_free(memory, row->ids);
    pgi_free(memory, row->log_probs);
    *row = (pgi_worker_row){.worker = NULL};
}

/* ---- events ---- */

pg_status pgi_worker_call(const pgi_request *request, const pg_worker_event *shown) {
    pgi_environment after;
    const pg_status status = pgi_callback_event(request->options.on_event, request->options.on_event_user, shown);
    pgi_environment_enter(&after); /* what the host set there is not for our sums */
    return status;
}

/* A piece of text or an object goes to the host. */
static pg_status tell(pgi_worker_row *row, int32_t kind, const char *text, size_t size, const pg_object *object) {
    pg_worker *worker = row->worker;
    pgi_request *request = row->request;
    if (request->options.on_event) {
        pgi_event event = {.kind = kind, .request = request, .text = text, .size = size};
        if (object) event.object = *object;
        const pg_worker_event shown = pgi_event_shown(&event);
        return pgi_worker_call(request, &shown);
    }
    pgi_event *event = pgi_event_new(&worker->memory, request, kind, text, size);
    if (!event) return PG_ERROR_MEMORY;
    if (object) {
        event->object = *object;
        event->object.label = event->text;
    }
    pgi_worker_put(worker, event);
    return PG_OK;
}

static pg_status tell_text(pgi_worker_row *row, const char *text, size_t size) {
    if (size == 0) return PG_OK;
    PGI_TRY(pgi_buffer_append(&row->request->text, text, size));
    return tell(row, PG_WORKER_EVENT_TEXT, text, size, NULL);
}

/* Objects that stand before `end` in the text and were not told yet. */
static pg_status tell_found(pgi_worker_row *row, const pg_answer *answer, int64_t end) {
    pg_object object = {.struct_size = sizeof object};
    for (; row->n_objects < pg_answer_get_n_objects(answer); row->n_objects++) {
        PGI_TRY(pg_answer_get_object(answer, row->n_objects, &object));
        if (object.text_begin >= end) return PG_OK;
        PGI_TRY(tell(row, PG_WORKER_EVENT_OBJECT, object.label, object.label_size, &object));
    }
    return PG_OK;
}

/* A ';' ends a part of an answer, and what comes behind it changes nothing of the objects before it: those are told.
 * complete: the text has ended, so all are. */
static pg_status tell_objects(pgi_worker_row *row, int complete) {
    pg_answer_options options;
    pg_answer *answer = NULL;
    PGI_TRY(pg_answer_options_init(&options, sizeof options));
    options.width = row->width;
    options.height = row->height;
    options.window = &row->window;
    options.convention = row->request->options.convention;
    PGI_TRY(pg_answer_create_from_ids(row->worker->processor, row->ids, row->log_probs,
                                      (size_t)row->request->n_new_tokens, &options, &answer));
    const char *text = pg_answer_get_text(answer), *last = strrchr(text, ';');
    const int64_t end = complete ? INT64_MAX : last ? last - text : 0;
    const pg_status status = tell_found(row, answer, end);
    pg_answer_close(&answer);
    return status;
}

/* ---- prefill ---- */

static pg_status read_image(pgi_worker_row *row, pg_inputs **out) {
    pgi_request *request = row->request;
    pg_encode_options encode;
    PGI_TRY(pg_encode_options_init(&encode, sizeof encode));
    if (request->options.encode) encode = *request->options.encode;
    encode.cancel = row->cancel;
    PGI_TRY(pg_processor_encode(row->worker->processor, &request->image, request->prompt, &encode, out));
    pg_tensor sizes = {.struct_size = sizeof sizes};
    PGI_TRY(pg_inputs_get_tensor(*out, "image_sizes", &sizes));
    row->height = (int32_t)((const int64_t *)sizes.data)[0];
    row->width = (int32_t)((const int64_t *)sizes.data)[1];
    pg_tensor pixels = {.struct_size = sizeof pixels};
    PGI_TRY(pg_inputs_get_tensor(*out, "pixel_values", &pixels));
    row->window.struct_size = sizeof row->window;
    return pg_image_get_window(&request->image, row->width, row->height, (int32_t)pixels.shape[3],
                               (int32_t)pixels.shape[2], &row->window);
}

pg_status pgi_worker_row_prefill(pgi_worker_row *row) {
    pg_inputs *inputs = NULL;
    const char *text;
    row->n_objects = 0;
    pg_status status = pg_detokenizer_flush(row->detokenizer, &text, NULL); /* what an earlier request left */
    if (status >= 0) status = read_image(row, &inputs);
    pgi_request_drop_image(&row->worker->memory, row->request);
    if (status >= 0) status = pgi_worker_row_check(row);
    if (status >= 0) status = pg_session_prefill(row->session, inputs, NULL);
    pg_inputs_close(&inputs);
    return status;
}

/* ---- tokens ---- */

static float log_prob(const pg_tensor *logits, int64_t token) {
    const float *values = logits->data;
    double sum = 0;
    float largest = -INFINITY;
    for (int64_t i = 0; i < logits->shape[0]; i++)
        if (values[i] > largest) largest = values[i];
    for (int64_t i = 0; i < logits->shape[0]; i++) sum += exp((double)values[i] - largest);
    return (float)((double)values[token] - largest - log(sum));
}

static pg_status take_token(pgi_worker_row *row, int64_t token) {
    pgi_request *request = row->request;
    const char *text;
    size_t size;
    const int wants_objects = (request->options.flags & PG_REQUEST_OBJECTS) != 0;
    if (wants_objects) {
        pg_tensor logits = {.struct_size = sizeof logits};
        PGI_TRY(pg_session_get_logits(row->session, &logits));
        row->log_probs[request->n_new_tokens] = log_prob(&logits, token);
    }
    row->ids[request->n_new_tokens++] = token;
    PGI_TRY(pg_detokenizer_push(row->detokenizer, token, &text, &size));
    PGI_TRY(tell_text(row, text, size));
    return wants_objects && memchr(text, ';', size) ? tell_objects(row, 0) : PG_OK;
}

/* The text has ended: what was held back of it follows. */
static pg_status end_text(pgi_worker_row *row, int32_t stop) {
    pgi_request *request = row->request;
    const char *text;
    size_t size;
    PGI_TRY(pg_detokenizer_flush(row->detokenizer, &text, &size));
    PGI_TRY(tell_text(row, text, size));
    if (request->options.flags & PG_REQUEST_OBJECTS) PGI_TRY(tell_objects(row, 1));
    request->stop = stop;
    return PG_EVENT_STOP;
}

pg_status pgi_worker_row_sample(pgi_worker_row *row) {
    const pgi_request *request = row->request;
    int64_t token;
    const pg_status status = pg_session_sample(row->session, request->options.sampling, &token);
    switch (status) {
        case PG_EVENT_LENGTH: return end_text(row, PG_STOP_LENGTH);
        case PG_EVENT_CONTEXT: return end_text(row, PG_STOP_CONTEXT);
        case PG_EVENT_STOP: return end_text(row, PG_STOP_LOGITS);
        case PG_EVENT_EOS: PGI_TRY(take_token(row, token)); return end_text(row, PG_STOP_EOS);
        default: PGI_TRY(status);
    }
    PGI_TRY(take_token(row, token));
    return request->n_new_tokens < request->options.max_new_tokens ? PG_OK : end_text(row, PG_STOP_LENGTH);
}
