/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Boxes that the model says twice: non-maximum suppression within each label, on the raw numbers, as a fraction of the
 * image changes no intersection over union.
 */
#include "answers/answer.h"

#include <string.h>

enum { MAX_BOXES = 16384 }; /* each is compared with each: some tenths of a second */

static int64_t area(const int32_t box[4]) {
    return box[2] > box[0] && box[3] > box[1] ? (int64_t)(box[2] - box[0]) * (box[3] - box[1]) : 0;
}

static double iou(const int32_t a[4], const int32_t b[4]) {
    const int32_t both[4] = {a[0] > b[0] ? a[0] : b[0], a[1] > b[1] ? a[1] : b[1], a[2] < b[2] ? a[2] : b[2],
                             a[3] < b[3] ? a[3] : b[3]};
    const int64_t common = area(both);
    return (double)common / (double)(area(a) + area(b) - common);
}

static int same_label(const pg_object *a, const pg_object *b) {
    return a->label_size == b->label_size && memcmp(a->label, b->label, (size_t)a->label_size) == 0;
}

/* Whether `a` is the better one of two that stand in this order. */
static int goes_first(float a, float b) { return !(b > a) && !(a != a && b == b); }

/* Indices of the boxes, the best first, into order; returns how many. */
static size_t sort_boxes(const pgi_found_list *objects, size_t *order) {
    size_t n = 0;
    for (size_t i = 0; i < objects->n; i++) {
        const pg_object *object = &objects->data[i].object;
        if (object->n_locs < PGI_BOX_LOCS || object->flags & PG_OBJECT_BROKEN) continue;
        size_t at = n++;
        for (; at > 0 && !goes_first(objects->data[order[at - 1]].object.score, object->score); at--)
            order[at] = order[at - 1];
        order[at] = i;
    }
    return n;
}

pg_status pgi_mark_duplicates(const pgi_memory *memory, pgi_found_list *objects, float max_iou) {
    if (objects->n > MAX_BOXES)
        return pgi_error(PG_ERROR_LIMIT, "the answer has %zu objects, expected at most %d with max_iou", objects->n,
                         MAX_BOXES);
    size_t *order = pgi_alloc(memory, objects->n, sizeof *order), n_kept = 0;
    if (!order) return PG_ERROR_MEMORY;
    const size_t n = sort_boxes(objects, order);
    for (size_t i = 0; i < n; i++) { /* order[0 .. n_kept) are those that stay */
        pg_object *object = &objects->data[order[i]].object;
        size_t k = 0;
        for (; k < n_kept; k++) {
            const pg_object *better = &objects->data[order[k]].object;
            if (iou(better->locs, object->locs) > max_iou && same_label(better, object)) break;
        }
        if (k == n_kept) {
            order[n_kept++] = order[i];
        } else {
            object->flags |= PG_OBJECT_DUPLICATE;
            object->duplicate_of = (int32_t)order[k];
        }
    }
    pgi_free(memory, order);
    return PG_OK;
}
