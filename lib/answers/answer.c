/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Ids or text to objects with pixels and scores.
 *
 * A score is the geometric mean of the probabilities of the tokens of the locs, times the same mean of the tokens of
 * the label: docs/ANSWERS.md has what else was measured.
 */
#include "answers/answer.h"

#include <math.h>

#include "base/utf8.h"
#include "tokenizer/piece.h"
#include "tokenizer/stream_decoder.h"

/* The tokens that wrote some of the text, in its order. Byte pieces of one run have one span, that of the run: so all
 * objects in it have the same tokens, however many those are, and the last sum is kept. */
typedef struct token_spans {
    size_t *begin, *end; /* [n] bytes of the text */
    size_t *index;       /* [n] which id it is */
    float *log_probs;    /* [n]; NULL: none */
    size_t n;
    size_t summed_first, n_summed; /* the tokens last summed up; n_summed 0: none */
    double sum;                    /* of their log_probs */
} token_spans;

pg_answer *pgi_answer_retain(const pg_answer *answer) {
    pg_answer *counted = (pg_answer *)(uintptr_t)answer;
    atomic_fetch_add_explicit(&counted->references, 1, memory_order_relaxed);
    return counted;
}

void pgi_answer_release(pg_answer *answer) {
    if (!answer || atomic_fetch_sub_explicit(&answer->references, 1, memory_order_acq_rel) != 1) return;
    pgi_memory memory = answer->memory;
    pgi_buffer_free(&answer->text);
    pgi_buffer_free(&answer->labels);
    pgi_free(&memory, answer->objects.data);
    pgi_free(&memory, answer);
}

static pg_status new_answer(const pgi_memory *memory, pg_answer **out) {
    pg_answer *answer = pgi_alloc_zero(memory, 1, sizeof *answer);
    *out = answer;
    if (!answer) return PG_ERROR_MEMORY;
    atomic_init(&answer->references, 1);
    answer->memory = *memory;
    answer->objects.memory = &answer->memory;
    pgi_buffer_init(&answer->text, &answer->memory);
    pgi_buffer_init(&answer->labels, &answer->memory);
    return PG_OK;
}

/* ---- which token wrote what ---- */

static void free_spans(const pgi_memory *memory, token_spans *spans) {
    pgi_free(memory, spans->begin);
    pgi_free(memory, spans->end);
    pgi_free(memory, spans->index);
    pgi_free(memory, spans->log_probs);
}

static pg_status new_spans(const pgi_memory *memory, const pgi_answer_ids *ids, token_spans *spans) {
    *spans = (token_spans){0};
    spans->begin = pgi_alloc(memory, ids->n, sizeof *spans->begin);
    spans->end = pgi_alloc(memory, ids->n, sizeof *spans->end);
    spans->index = pgi_alloc(memory, ids->n, sizeof *spans->index);
    if (!spans->begin || !spans->end || !spans->index) return PG_ERROR_MEMORY;
    if (!ids->log_probs) return PG_OK;
    spans->log_probs = pgi_alloc(memory, ids->n, sizeof *spans->log_probs);
    return spans->log_probs ? PG_OK : PG_ERROR_MEMORY;
}

/* Whether the decoder holds the id's text back, or drops it, and so leaves a run of bytes unbroken. */
static int leaves_run(const pgi_tokenizer *tokenizer, int64_t id) {
    size_t size;
    if (id < 0 || (uint64_t)id >= tokenizer->vocab.n || pgi_tokenizer_skips(tokenizer, id)) return 1;
    const char *piece = pgi_vocab_text(&tokenizer->vocab, (size_t)id, &size);
    return pgi_piece_byte(piece, size) >= 0;
}

/* Tokens first .. n-1 of the spans, which were held back, wrote the text up to now. */
static void end_run(token_spans *spans, size_t first, size_t end) {
    for (size_t i = first; i < spans->n; i++) spans->end[i] = end;
}

/* Decodes as pgi_tokenizer_decode() does, and keeps which token wrote which bytes. */
static pg_status decode(const pgi_answer_ids *ids, pgi_stream_decoder *decoder, token_spans *spans, pgi_buffer *text) {
    size_t held = 0; /* the first token of the run of bytes that is held back */
    PGI_TRY(pgi_buffer_reserve(text, 0));
    text->data[0] = 0;
    for (size_t i = 0; i < ids->n; i++) {
        const size_t n_held = decoder->held.size;
        if (!leaves_run(ids->tokenizer, ids->ids[i])) {
            PGI_TRY(pgi_stream_decoder_flush(decoder, text));
            end_run(spans, held, text->size);
        }
        const size_t before = text->size;
        PGI_TRY(pgi_stream_decoder_push(decoder, ids->ids[i], text));
        if (text->size == before && decoder->held.size == n_held) continue; /* it writes nothing */
        const size_t k = spans->n++;
        spans->begin[k] = before;
        spans->end[k] = text->size;
        spans->index[k] = i;
        if (spans->log_probs) spans->log_probs[k] = ids->log_probs[i];
        if (decoder->held.size == 0) held = spans->n;
    }
    PGI_TRY(pgi_stream_decoder_flush(decoder, text));
    end_run(spans, held, text->size);
    return PG_OK;
}

/* The tokens that wrote some of the bytes: *first and how many. */
static size_t tokens_of(const token_spans *spans, pgi_span bytes, size_t *first) {
    size_t low = 0, high = spans->n;
    while (low < high) { /* the first that ends behind bytes.begin */
        const size_t middle = low + (high - low) / 2;
        if (spans->end[middle] > bytes.begin)
            high = middle;
        else
            low = middle + 1;
    }
    *first = low;
    for (high = spans->n; low < high;) { /* the first that begins at bytes.end or behind it */
        const size_t middle = low + (high - low) / 2;
        if (spans->begin[middle] >= bytes.end)
            high = middle;
        else
            low = middle + 1;
    }
    return low - *first;
}

/* The geometric mean of the probabilities of the tokens that wrote the bytes. */
static float probability(token_spans *spans, pgi_span bytes) {
    size_t first;
    const size_t n = tokens_of(spans, bytes, &first);
    if (first != spans->summed_first || n != spans->n_summed) {
        double sum = 0;
        for (size_t i = first; i < first + n; i++) sum += (double)spans->log_probs[i];
        spans->summed_first = first, spans->n_summed = n, spans->sum = sum;
    }
    return (float)exp(spans->sum > 0 ? 0 : spans->sum / (double)n);
}

/* ---- the objects ---- */

static int same_span(pgi_span a, pgi_span b) { return a.begin == b.begin && a.end == b.end; }

/* A copy of each label, one where objects side by side share it. */
static pg_status add_labels(pg_answer *answer) {
    pgi_found_list *list = &answer->objects;
    pgi_buffer *labels = &answer->labels;
    size_t begin = 0;                      /* of the label last added */
    for (int pass = 0; pass < 2; pass++) { /* the buffer stays where it is in the second one */
        labels->size = 0;
        for (size_t i = 0; i < list->n; i++) {
            const pgi_span label = list->data[i].label;
            const size_t size = label.end - label.begin;
            if (i == 0 || !same_span(label, list->data[i - 1].label)) {
                begin = labels->size;
                PGI_TRY(pgi_buffer_append(labels, answer->text.data + label.begin, size));
                PGI_TRY(pgi_buffer_append(labels, "", 1));
            }
            list->data[i].object.label = (const char *)labels->data + begin;
            list->data[i].object.label_size = size;
        }
    }
    return PG_OK;
}

static double within(double x, double most) { return x < 0 ? 0 : x > most ? most : x; }

/* With a window, what lies outside of the image is cut off. */
static void set_pixels(pg_object *object, const pg_answer *answer, int points) {
    const pg_window *window = &answer->window;
    const double steps = answer->convention == PG_BOX_1023 ? 1023 : 1024;
    const uint32_t none = PG_OBJECT_PARTIAL | PG_OBJECT_OUT_OF_RANGE | PG_OBJECT_STRAY_SEG;
    for (int i = 0; i < 4; i++) object->box[i] = NAN;
    for (int i = 0; i < 2; i++) object->point[i] = NAN;
    if (object->flags & none) return;
    float *to = points ? object->point : object->box;
    double at[4]; /* y before x, as in the answer */
    int cut = 0;
    for (int i = 0; i < object->n_locs; i++) {
        const double whole = i & 1 ? window->x + object->locs[i] / steps * window->width
                                   : window->y + object->locs[i] / steps * window->height;
        at[i] = within(whole, i & 1 ? answer->width : answer->height);
        cut |= fabs(at[i] - whole) > 1e-6; /* less is rounding */
        to[i ^ 1] = (float)at[i];
    }
    if (cut && (points || at[0] == at[2] || at[1] == at[3])) object->flags |= PG_OBJECT_EMPTY;
}

/* label_score: of the label. */
static void set_scores(pgi_found *found, token_spans *spans, float label_score) {
    pg_object *object = &found->object;
    size_t first;
    const pgi_span whole = {(size_t)object->text_begin, (size_t)(object->text_begin + object->text_size)};
    object->n_tokens = (int64_t)tokens_of(spans, whole, &first);
    object->first_token = (int64_t)spans->index[first];
    object->label_score = label_score;
    if (!spans->log_probs || object->n_locs == 0) return;
    object->loc_score = probability(spans, found->locs);
    object->score = object->loc_score * object->label_score;
}

static float score_of_label(token_spans *spans, pgi_span label) {
    if (!spans->log_probs) return NAN;
    return label.begin == label.end ? 1 : probability(spans, label);
}

/* From the text on. spans: NULL for an answer that has no ids. */
static pg_status fill(pg_answer *answer, token_spans *spans, const pg_answer_options *options, int unfinished) {
    answer->width = options->width, answer->height = options->height, answer->convention = options->convention;
    answer->window =
        options->window ? *options->window : (pg_window){.width = options->width, .height = options->height};
    pgi_found_list *list = &answer->objects;
    const int points = (options->flags & PG_ANSWER_POINTS) != 0;
    PGI_TRY(pgi_answer_parse(answer->text.data, answer->text.size, points, unfinished, list));
    float label_score = 0;
    for (size_t i = 0; i < list->n; i++) {
        pgi_found *found = &list->data[i];
        pg_object *object = &found->object;
        set_pixels(object, answer, points);
        object->score = object->loc_score = object->label_score = NAN;
        object->first_token = -1;
        if (!spans) continue;
        if (i == 0 || !same_span(found->label, list->data[i - 1].label))
            label_score = score_of_label(spans, found->label);
        set_scores(found, spans, label_score);
    }
    PGI_TRY(add_labels(answer));
    return options->max_iou > 0 ? pgi_mark_duplicates(&answer->memory, list, options->max_iou) : PG_OK;
}

pg_status pgi_answer_from_text(const pgi_memory *memory, const char *text, size_t size,
                               const pg_answer_options *options, pg_answer **out) {
    pg_answer *answer;
    pg_status status;
    const size_t valid = pgi_utf8_valid_prefix((const uint8_t *)text, size);
    if (valid != size) return pgi_error(PG_ERROR_ARGUMENT, "the text is not UTF-8 at byte %zu of %zu", valid, size);
    PGI_TRY(new_answer(memory, &answer));
    PGI_GOTO(pgi_buffer_append(&answer->text, size ? text : "", size), fail);
    PGI_GOTO(fill(answer, NULL, options, 0), fail);
    *out = answer;
    return PG_OK;
fail:
    pgi_answer_release(answer);
    return status;
}

pg_status pgi_answer_from_ids(const pgi_memory *memory, const pgi_answer_ids *ids, const pg_answer_options *options,
                              pg_answer **out) {
    pg_answer *answer;
    pgi_stream_decoder decoder;
    token_spans spans;
    PGI_TRY(new_answer(memory, &answer));
    pgi_stream_decoder_init(&decoder, ids->tokenizer, 1);
    pg_status status = new_spans(&answer->memory, ids, &spans);
    if (status >= 0) status = decode(ids, &decoder, &spans, &answer->text);
    if (status >= 0) status = fill(answer, &spans, options, ids->unfinished);
    free_spans(&answer->memory, &spans);
    pgi_stream_decoder_free(&decoder);
    if (status < 0)
        pgi_answer_release(answer);
    else
        *out = answer;
    return status;
}
