/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* pg_worker: options and requests are checked and copied here; what it does is in lib/worker. */
#include "worker/worker.h"

#include <math.h>

#include "api/structs.h"
#include "base/cpu_count.h"
#include "image/image.h"
#include "model/model.h"
#include "processor/processor.h"

enum { DEFAULT_WAITING = 16, MOST_WAITING = 65536, DEFAULT_RUNNING = 4, MOST_NICE = 19 };

PGI_OPTIONS(pg_worker_options, .struct_size = sizeof(pg_worker_options))
PGI_OPTIONS(pg_request_options, .struct_size = sizeof(pg_request_options))

static const pg_worker_event no_event = {.struct_size = sizeof no_event, .text = ""};

pg_status pg_worker_event_init(pg_worker_event *event, size_t struct_size) {
    PGI_ENTER;
    return pgi_struct_init(event, struct_size, &no_event, PGI_STRUCT(pg_worker_event));
}

/* 0: the default. */
static pg_status number_in(int32_t *number, const char *name, int32_t by_default, int32_t most) {
    if (*number < 0 || *number > most)
        return pgi_error(PG_ERROR_ARGUMENT, "%s is %d, expected 0 (default, %d) to %d", name, *number, by_default,
                         most);
    if (*number == 0) *number = by_default;
    return PG_OK;
}

static pg_status cpus_in(const pg_worker_options *options) {
    if (options->n_cpus < 0 || options->n_cpus > PGI_MOST_CPUS)
        return pgi_error(PG_ERROR_ARGUMENT, "n_cpus is %lld, expected 0 to %d", (long long)options->n_cpus,
                         PGI_MOST_CPUS);
    if ((options->n_cpus > 0) != (options->cpus != NULL))
        return pgi_error(PG_ERROR_ARGUMENT, "cpus is %s and n_cpus is %lld, expected both or neither",
                         options->cpus ? "set" : "NULL", (long long)options->n_cpus);
    if (options->cpus && options->flags & PG_WORKER_LEAVE_CPU_FREE)
        return pgi_error(PG_ERROR_ARGUMENT, "found both cpus and PG_WORKER_LEAVE_CPU_FREE, expected one of them");
    return PG_OK;
}

static pg_status options_in(pg_worker_options *options, pgi_thread_settings *settings) {
    const int leave_free = (options->flags & PG_WORKER_LEAVE_CPU_FREE) != 0;
    PGI_TRY(pgi_flags_in(options->flags, PG_WORKER_LEAVE_CPU_FREE, "PG_WORKER_LEAVE_CPU_FREE or 0"));
    PGI_TRY(number_in(&options->n_workers, "n_workers", 1, PGI_MOST_WORKERS));
    PGI_TRY(number_in(&options->max_waiting, "max_waiting", DEFAULT_WAITING, MOST_WAITING));
    PGI_TRY(number_in(&options->max_running, "max_running", DEFAULT_RUNNING, PGI_MOST_RUNNING));
    PGI_TRY(number_in(&options->nice, "nice", 0, MOST_NICE));
    PGI_TRY(pgi_new_tokens_in(&options->max_new_tokens));
    PGI_TRY(cpus_in(options));
    const int by_default = options->n_threads == 0;
    int n_threads;
    PGI_TRY(pgi_thread_count(options->n_threads, &n_threads));
    if (!by_default) options->n_threads = n_threads;
    if (by_default && leave_free) options->n_threads = n_threads > 1 ? n_threads - 1 : 1;
    PGI_TRY(pgi_thread_settings_init(options->nice, options->cpus, options->n_cpus, leave_free, settings));
    options->cpus = NULL; /* the caller's */
    return PG_OK;
}

pg_status pg_worker_create(const pg_model *model, const pg_processor *processor, const pg_worker_options *options,
                           pg_worker **out) {
    PGI_ENTER;
    pgi_thread_settings settings;
    PGI_NOT_NULL(out);
    *out = NULL;
    PGI_NOT_NULL(model);
    PGI_NOT_NULL(processor);
    PGI_OPTIONS_IN(pg_worker_options, complete, options);
    PGI_TRY(options_in(&complete, &settings));
    PGI_TRY(pgi_processor_needs_text(processor));
    const pgi_memory memory = model->memory;
    return pgi_worker_create(&memory, pgi_model_retain(model), pgi_processor_retain(processor),
                             model->config.text.vocab_size, &complete, &settings, out);
}

void pg_worker_close(pg_worker **worker) {
    if (!worker || !*worker) return;
    pg_worker *closed = *worker;
    *worker = NULL;
    pgi_worker_close(closed);
}

/* ---- requests ---- */

/* What a request's options point to, complete. */
typedef struct nested_options {
    pg_sampling_options sampling;
    pg_encode_options encode;
    pg_image_settings settings;
} nested_options;

static pg_status encode_in(pg_request_options *options, nested_options *nested) {
    if (!options->encode) return PG_OK;
    PGI_TRY(pg_encode_options_init(&nested->encode, sizeof nested->encode));
    PGI_TRY(pgi_struct_in(&nested->encode, options->encode, PGI_STRUCT(pg_encode_options)));
    options->encode = &nested->encode;
    if (nested->encode.cancel)
        return pgi_error(PG_ERROR_ARGUMENT, "encode.cancel is set, expected NULL: call pg_worker_cancel() instead");
    if (!nested->encode.image_settings) return PG_OK;
    nested->settings = (pg_image_settings){.struct_size = sizeof nested->settings};
    PGI_TRY(pgi_struct_in(&nested->settings, nested->encode.image_settings, PGI_STRUCT(pg_image_settings)));
    nested->encode.image_settings = &nested->settings;
    return PG_OK;
}

static pg_status request_in(const pg_worker *worker, pg_request_options *options, nested_options *nested) {
    const int32_t most = worker->options.max_new_tokens;
    PGI_TRY(pgi_flags_in(options->flags, PG_REQUEST_OBJECTS | PG_REQUEST_BORROW | PG_REQUEST_CANCEL_RUNNING,
                         "PG_REQUEST_*"));
    PGI_TRY(number_in(&options->max_new_tokens, "max_new_tokens", most, most));
    PGI_TRY(pgi_convention_in(options->convention));
    PGI_TRY(pgi_reserved_in(options->reserved, "pg_request_options"));
    if (!(options->deadline >= 0) || options->deadline > 1e9)
        return pgi_error(PG_ERROR_ARGUMENT, "deadline is %g, expected seconds, 0 (none) to 1e9", options->deadline);
    if (options->sampling) {
        PGI_TRY(pgi_sampling_in(options->sampling, worker->model, &nested->sampling));
        options->sampling = &nested->sampling;
        if (nested->sampling.n_forced_eos_ids > 0 && options->max_new_tokens != most)
            return pgi_error(
                PG_ERROR_UNSUPPORTED,
                "max_new_tokens is %d, expected that of the worker, %d, beside forced_eos_ids: they are the "
                "last of these",
                options->max_new_tokens, most);
    }
    return encode_in(options, nested);
}

/* Takes the image over: a copy, unless it is to be borrowed. */
static pg_status image_in(const pg_worker *worker, const pg_image *image, const pg_request_options *options,
                          pg_image *out, void **block) {
    pg_image complete = {.struct_size = sizeof complete};
    int64_t max_pixels = options->encode ? options->encode->max_image_pixels : 0;
    *block = NULL;
    PGI_TRY(pgi_struct_in(&complete, image, PGI_STRUCT(pg_image)));
    *out = complete;
    if (options->flags & PG_REQUEST_BORROW) return PG_OK;
    if (max_pixels <= 0) max_pixels = PGI_DEFAULT_MAX_PIXELS; /* what is less than 0 is refused later */
    return pgi_image_copy(&worker->memory, &complete, max_pixels, out, block);
}

static pg_status submit(pg_worker *worker, const pg_image *image, const char *prompt, const pg_request_options *options,
                        int64_t *ticket) {
    nested_options nested;
    pg_request_options complete = *options;
    pgi_request *request;
    pg_image owned;
    void *block;
    PGI_TRY(request_in(worker, &complete, &nested));
    PGI_TRY(pgi_worker_admit(worker, complete.stream)); /* before a frame is copied in vain */
    PGI_TRY(image_in(worker, image, &complete, &owned, &block));
    const pg_status status =
        pgi_request_new(&worker->memory, &owned, block, prompt ? prompt : "", &complete, worker->vocab_size, &request);
    if (status < 0) {
        pgi_free(&worker->memory, block);
        return status;
    }
    return pgi_worker_submit(worker, request, ticket);
}

pg_status pg_worker_submit(pg_worker *worker, const pg_image *image, const char *prompt,
                           const pg_request_options *options, int64_t *ticket) {
    PGI_ENTER;
    PGI_NOT_NULL(worker);
    PGI_NOT_NULL(image);
    PGI_OPTIONS_IN(pg_request_options, complete, options);
    PGI_TRY(pgi_worker_begin(worker));
    return pgi_worker_end(worker, submit(worker, image, prompt, &complete, ticket));
}

pg_status pg_worker_cancel(pg_worker *worker, int64_t ticket) {
    PGI_ENTER;
    PGI_NOT_NULL(worker);
    PGI_TRY(pgi_worker_begin(worker));
    return pgi_worker_end(worker, pgi_worker_cancel(worker, ticket));
}

/* ---- events ---- */

static pg_status event_out(pg_worker *worker, double seconds, pg_worker_event *event) {
    PGI_TRY(pgi_struct_out_check(event, PGI_STRUCT(pg_worker_event)));
    PGI_TRY(pgi_worker_begin(worker));
    pg_worker_event shown;
    pg_status status = pgi_worker_wait(worker, seconds, &shown);
    if (status == PG_OK && atomic_load(&worker->closing)) /* what it points to goes with the worker */
        status = pgi_error(PG_ERROR_STATE, "the worker was closed during the call");
    if (status == PG_OK) pgi_struct_out(event, &shown, sizeof shown);
    return pgi_worker_end(worker, status);
}

pg_status pg_worker_poll(pg_worker *worker, pg_worker_event *event) {
    PGI_ENTER;
    PGI_NOT_NULL(worker);
    return event_out(worker, 0, event);
}

pg_status pg_worker_wait(pg_worker *worker, double seconds, pg_worker_event *event) {
    PGI_ENTER;
    PGI_NOT_NULL(worker);
    if (!(seconds >= 0))
        return pgi_error(PG_ERROR_ARGUMENT, "seconds is %g, expected 0 or more (INFINITY: without end)", seconds);
    return event_out(worker, seconds, event);
}

pg_status pg_worker_get_info(pg_worker *worker, pg_worker_info *info) {
    PGI_ENTER;
    PGI_NOT_NULL(worker);
    PGI_TRY(pgi_struct_out_check(info, PGI_STRUCT(pg_worker_info)));
    PGI_TRY(pgi_worker_begin(worker));
    const pg_worker_info found = pgi_worker_info(worker);
    pgi_struct_out(info, &found, sizeof found);
    return pgi_worker_end(worker, PG_OK);
}
