/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads an answer once from left to right. ';' divides it into parts. In a part stand runs of <loc> that touch each
 * other, with <seg> behind them, and text. A run of locs becomes objects of 4 (or 2) locs each, what is left over is
 * partial. The label of a run is the text behind it, before the next run; only in a part that begins with text and ends
 * with a run the label is the text in front of each run. Nothing is taken from one part to another.
 */
#include "answers/parse.h"

#include <string.h>

#include "base/utf8.h"

typedef struct parser {
    const uint8_t *text;
    size_t size, at;
    int32_t wanted; /* locs of an object */
    pgi_found_list *out;
    size_t part;          /* the first object of this part */
    size_t waiting;       /* the first object of this part that has no label yet */
    int begins_with_text; /* this part */
    pgi_span before;      /* the last text of this part */
} parser;

/* The number of <locNNNN> or <segNNN> at `at`, whose name has 3 letters; -1: none stands there. */
static int32_t number_at(const parser *p, size_t at, const char *name, size_t digits) {
    const size_t whole = 4 + digits + 1;
    if (p->size - at < whole || memcmp(p->text + at, name, 4) != 0 || p->text[at + whole - 1] != '>') return -1;
    int32_t number = 0;
    for (size_t i = 4; i < whole - 1; i++) {
        const uint8_t c = p->text[at + i];
        if (c < '0' || c > '9') return -1;
        number = number * 10 + (c - '0');
    }
    return number;
}

enum { LOC_SIZE = 9, SEG_SIZE = 8 }; /* bytes of <loc0000>, <seg000> */

static int32_t loc_at(const parser *p, size_t at) { return number_at(p, at, "<loc", 4); }
static int32_t seg_at(const parser *p, size_t at) { return number_at(p, at, "<seg", 3); }

/* What Python's str.isspace() calls white space. */
static int is_space(uint32_t c) {
    if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x1F);
    return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
           c == 0x202F || c == 0x205F || c == 0x3000;
}

/* The span without the white space around it. */
static pgi_span trimmed(const parser *p, pgi_span span) {
    pgi_span out = {span.begin, span.begin};
    int begun = 0;
    for (size_t at = span.begin; at < span.end;) {
        uint32_t code = 0;
        const size_t n = pgi_utf8_next(p->text + at, span.end - at, &code);
        if (!is_space(code)) {
            if (!begun) out.begin = at;
            begun = 1;
            out.end = at + n;
        }
        at += n;
    }
    return out;
}

/* Room for all objects of the text: each run of locs makes one for each 4 (or 2) of them, each run of segs at most one.
 */
static pg_status reserve_objects(const parser *p) {
    pgi_found_list *list = p->out;
    size_t n = list->n;
    for (size_t at = 0; at < p->size;) {
        size_t n_locs = 0, n_segs = 0;
        for (; loc_at(p, at) >= 0; at += LOC_SIZE) n_locs++;
        for (; seg_at(p, at) >= 0; at += SEG_SIZE) n_segs++;
        n += (n_locs + (size_t)p->wanted - 1) / (size_t)p->wanted + (n_segs > 0);
        if (n_locs + n_segs > 0) continue;
        const uint8_t *next = memchr(p->text + at + 1, '<', p->size - at - 1);
        at = next ? (size_t)(next - p->text) : p->size;
    }
    return n > 0 ? pgi_grow(list->memory, &list->data, &list->capacity, n, sizeof *list->data) : PG_OK;
}

static pgi_found *new_object(parser *p) {
    pgi_found_list *list = p->out;
    pgi_found *found = &list->data[list->n++];
    *found = (pgi_found){.before = p->before};
    pg_object *object = &found->object;
    for (int i = 0; i < PGI_BOX_LOCS; i++) object->locs[i] = -1;
    for (int i = 0; i < PGI_MASK_SEGS; i++) object->segs[i] = -1;
    object->duplicate_of = -1;
    object->text_begin = (int64_t)p->at;
    found->locs = (pgi_span){p->at, p->at};
    return found;
}

/* What the numbers of a whole box say of themselves. */
static uint32_t order_of(const int32_t locs[4]) {
    if (locs[2] < locs[0] || locs[3] < locs[1]) return PG_OBJECT_OUT_OF_ORDER;
    return locs[2] == locs[0] || locs[3] == locs[1] ? PG_OBJECT_EMPTY : 0;
}

/* A run of locs: an object for each 4 (or 2) of them, and a partial one for the rest. */
static void take_locs(parser *p) {
    for (int32_t loc = loc_at(p, p->at); loc >= 0;) {
        pgi_found *found = new_object(p);
        pg_object *object = &found->object;
        for (; loc >= 0 && object->n_locs < p->wanted; loc = loc_at(p, p->at)) {
            if (loc > PGI_MAX_LOC) object->flags |= PG_OBJECT_OUT_OF_RANGE;
            object->locs[object->n_locs++] = loc;
            p->at += LOC_SIZE;
        }
        found->locs.end = p->at;
        object->text_size = (int64_t)p->at - object->text_begin;
        if (object->n_locs < p->wanted)
            object->flags |= PG_OBJECT_PARTIAL;
        else if (p->wanted == PGI_BOX_LOCS && !(object->flags & PG_OBJECT_OUT_OF_RANGE))
            object->flags |= order_of(object->locs);
    }
}

/* A run of segs: of the object whose locs stand right before it, white space left out, else an object by itself.
 * touching: nothing but white space is between. */
static void take_segs(parser *p, int touching) {
    pgi_found *found;
    if (touching) {
        found = &p->out->data[p->out->n - 1];
    } else {
        found = new_object(p);
        found->object.flags |= PG_OBJECT_STRAY_SEG;
    }
    pg_object *object = &found->object;
    for (int32_t seg; (seg = seg_at(p, p->at)) >= 0; p->at += SEG_SIZE) {
        if (object->n_segs == PGI_MASK_SEGS) {
            object->flags |= PG_OBJECT_SEG_MORE;
            continue;
        }
        if (seg > PGI_MAX_SEG) object->flags |= PG_OBJECT_SEG_PARTIAL;
        object->segs[object->n_segs++] = seg;
    }
    if (object->n_segs < PGI_MASK_SEGS) object->flags |= PG_OBJECT_SEG_PARTIAL;
    object->text_size = (int64_t)p->at - object->text_begin;
}

/* Objects first .. n-1, which stand side by side, have one label. */
static void share_label(pgi_found_list *list, size_t first, size_t n, pgi_span label) {
    for (size_t i = first; i < n; i++) {
        list->data[i].label = label;
        if (n - first > 1) list->data[i].object.flags |= PG_OBJECT_LABEL_SHARED;
    }
}

/* Text up to the next loc, seg or ';'. */
static void take_text(parser *p) {
    pgi_span span = {p->at, p->at};
    while (span.end < p->size && p->text[span.end] != ';' && loc_at(p, span.end) < 0 && seg_at(p, span.end) < 0)
        span.end++;
    p->at = span.end;
    span = trimmed(p, span);
    if (span.begin == span.end) return;
    if (p->out->n == p->part) p->begins_with_text = 1;
    share_label(p->out, p->waiting, p->out->n, span);
    p->waiting = p->out->n;
    p->before = span;
}

/* The end of a part: its labels may stand in front. */
static void end_part(parser *p) {
    pgi_found_list *list = p->out;
    if (p->begins_with_text && p->waiting < list->n) {
        for (size_t i = p->part, next; i < list->n; i = next) {
            for (next = i + 1; next < list->n && list->data[next].before.begin == list->data[i].before.begin;) next++;
            for (size_t k = i; k < next; k++) {
                list->data[k].object.flags &= ~(uint32_t)PG_OBJECT_LABEL_SHARED;
                list->data[k].object.flags |= PG_OBJECT_LABEL_BEFORE;
            }
            share_label(list, i, next, list->data[i].before);
        }
    }
    for (size_t i = p->part; i < list->n; i++)
        if (list->data[i].label.begin == list->data[i].label.end) list->data[i].object.flags |= PG_OBJECT_NO_LABEL;
    p->part = p->waiting = list->n;
    p->begins_with_text = 0;
    p->before = (pgi_span){0};
}

static void take_part(parser *p) {
    while (p->at < p->size && p->text[p->at] != ';') {
        const size_t n = p->out->n;
        if (loc_at(p, p->at) >= 0)
            take_locs(p);
        else if (seg_at(p, p->at) >= 0)
            take_segs(p, p->waiting < n && p->out->data[n - 1].object.n_segs == 0);
        else
            take_text(p);
    }
}

pg_status pgi_answer_parse(const uint8_t *text, size_t size, int points, int unfinished, pgi_found_list *out) {
    parser p = {.text = text, .size = size, .wanted = points ? PGI_POINT_LOCS : PGI_BOX_LOCS, .out = out};
    p.part = p.waiting = out->n;
    PGI_TRY(reserve_objects(&p));
    for (;;) {
        const size_t part = p.part;
        take_part(&p);
        end_part(&p);
        if (p.at == size) {
            if (unfinished && out->n > part) out->data[out->n - 1].object.flags |= PG_OBJECT_UNFINISHED;
            return PG_OK;
        }
        p.at++; /* the ';' */
    }
}
