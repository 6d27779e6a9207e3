/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* pg_answer: objects in what a model said. */
#include "answers/answer.h"

#include "api/structs.h"
#include "generate/generate.h"

PGI_OPTIONS(pg_answer_options, .struct_size = sizeof(pg_answer_options))

static pg_status check_side(int32_t pixels, const char *name) {
    if (pixels >= 1) return PG_OK;
    return pgi_error(PG_ERROR_ARGUMENT,
                     "%s is %d, expected at least 1: the image's pixels, as image_sizes of the inputs says", name,
                     pixels);
}

static pg_status check_window(const pg_window *w) {
    const double numbers[] = {w->x, w->y, w->width, w->height};
    static const char *const names[] = {"x", "y", "width", "height"};
    PGI_TRY(pgi_reserved_in(w->reserved, "pg_window"));
    for (int i = 0; i < 4; i++)
        if (!(numbers[i] >= -PGI_MAX_WINDOW && numbers[i] <= PGI_MAX_WINDOW) || (i > 1 && numbers[i] <= 0))
            return pgi_error(PG_ERROR_ARGUMENT, "window.%s is %g, expected pixels, %s %.0f", names[i], numbers[i],
                             i > 1 ? "more than 0 and at most" : "at most", PGI_MAX_WINDOW);
    return PG_OK;
}

/* Completes the options and holds each against its range. window: the caller's, where there is one, of this version's
 * size. memory: what serves where the caller has no allocator. */
static pg_status options_in(const pg_answer_options *options, pg_answer_options *out, pg_window *window,
                            pgi_memory *memory) {
    PGI_OPTIONS_IN(pg_answer_options, complete, options);
    *window = (pg_window){.struct_size = sizeof *window};
    PGI_TRY(pgi_struct_in(window, complete.window, PGI_STRUCT(pg_window)));
    if (complete.window) {
        PGI_TRY(check_window(window));
        complete.window = window;
    }
    *out = complete;
    PGI_TRY(pgi_flags_in(complete.flags, PG_ANSWER_POINTS, "PG_ANSWER_POINTS or 0"));
    PGI_TRY(check_side(complete.width, "width"));
    PGI_TRY(check_side(complete.height, "height"));
    PGI_TRY(pgi_convention_in(complete.convention));
    if (!(complete.max_iou >= 0 && complete.max_iou < 1))
        return pgi_error(PG_ERROR_ARGUMENT, "max_iou is %g, expected more than 0 and less than 1, or 0: not looked for",
                         (double)complete.max_iou);
    return complete.allocator ? pgi_allocator_in(complete.allocator, memory) : PG_OK;
}

static pg_status from_ids(const pg_processor *processor, const pgi_answer_ids *ids, const pg_answer_options *options,
                          pg_answer **out) {
    pg_answer_options complete;
    pg_window window;
    pgi_memory memory = processor->memory;
    PGI_TRY(options_in(options, &complete, &window, &memory));
    pg_processor *kept = pgi_processor_retain(processor); /* another thread may close it */
    pg_status status = pgi_answer_from_ids(&memory, ids, &complete, out);
    pgi_processor_release(kept);
    return status;
}

pg_status pg_answer_create(const pg_processor *processor, const pg_result *result, int64_t row,
                           const pg_answer_options *options, pg_answer **out) {
    PGI_ENTER;
    PGI_NOT_NULL(out);
    *out = NULL;
    PGI_NOT_NULL(processor);
    PGI_TRY(pgi_processor_needs_text(processor));
    PGI_NOT_NULL(result);
    if (row < 0 || row >= result->n_rows)
        return pgi_error(PG_ERROR_ARGUMENT, "row is %lld, expected 0 to %lld", (long long)row,
                         (long long)result->n_rows - 1);
    const pgi_result_row *from = &result->rows[row];
    const pgi_answer_ids ids = {.tokenizer = processor->tokenizer,
                                .ids = from->ids.data,
                                .log_probs = from->kept.log_probs.size > 0 ? from->kept.log_probs.data : NULL,
                                .n = from->ids.size,
                                .unfinished = from->stop != PG_STOP_EOS};
    pg_result *kept = pgi_result_retain(result); /* a callback of the allocator may close it */
    const pg_status status = from_ids(processor, &ids, options, out);
    pgi_result_release(kept);
    return status;
}

pg_status pg_answer_create_from_ids(const pg_processor *processor, const int64_t *ids, const float *log_probs,
                                    size_t n_ids, const pg_answer_options *options, pg_answer **out) {
    PGI_ENTER;
    PGI_NOT_NULL(out);
    *out = NULL;
    PGI_NOT_NULL(processor);
    PGI_TRY(pgi_processor_needs_text(processor));
    if (n_ids > 0) PGI_NOT_NULL(ids);
    const pgi_answer_ids all = {
        .tokenizer = processor->tokenizer, .ids = ids, .log_probs = log_probs, .n = n_ids, .unfinished = 0};
    return from_ids(processor, &all, options, out);
}

pg_status pg_answer_create_from_text(const char *text, size_t size, const pg_answer_options *options, pg_answer **out) {
    PGI_ENTER;
    PGI_NOT_NULL(out);
    *out = NULL;
    if (size > 0) PGI_NOT_NULL(text);
    pg_answer_options complete;
    pg_window window;
    pgi_memory memory = pgi_memory_default;
    PGI_TRY(options_in(options, &complete, &window, &memory));
    return pgi_answer_from_text(&memory, text, size, &complete, out);
}

void pg_answer_close(pg_answer **answer) {
    if (!answer) return;
    pg_answer *closed = *answer;
    *answer = NULL; /* before its memory goes: the allocator's callback may close it, too */
    pgi_answer_release(closed);
}

const char *pg_answer_get_text(const pg_answer *answer) { return answer ? (const char *)answer->text.data : ""; }

int64_t pg_answer_get_n_objects(const pg_answer *answer) { return answer ? (int64_t)answer->objects.n : 0; }

pg_status pg_answer_get_object(const pg_answer *answer, int64_t index, pg_object *object) {
    PGI_ENTER;
    PGI_NOT_NULL(answer);
    PGI_TRY(pgi_struct_out_check(object, PGI_STRUCT(pg_object)));
    const int64_t n = (int64_t)answer->objects.n;
    if (n == 0) return pgi_error(PG_ERROR_ARGUMENT, "index is %lld, but the answer has no objects", (long long)index);
    if (index < 0 || index >= n)
        return pgi_error(PG_ERROR_ARGUMENT, "index is %lld, expected 0 to %lld", (long long)index, (long long)n - 1);
    pg_object value = answer->objects.data[index].object;
    value.struct_size = sizeof value;
    pgi_struct_out(object, &value, sizeof value);
    return PG_OK;
}
