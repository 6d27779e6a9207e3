/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Boxes that are said twice are those that the plain definition finds, which compares each box with each that stays. */
#include "run_tests.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "answers/answer.h"
#include "support.h"

enum { MOST = 2000 };

static pgi_found all[MOST];
static int32_t wanted[MOST];

static double iou(const int32_t a[4], const int32_t b[4]) {
    const double h = fmin(a[2], b[2]) - fmax(a[0], b[0]), w = fmin(a[3], b[3]) - fmax(a[1], b[1]);
    const double sum = (double)(a[2] - a[0]) * (a[3] - a[1]) + (double)(b[2] - b[0]) * (b[3] - b[1]);
    return h > 0 && w > 0 ? h * w / (sum - h * w) : 0;
}

static int precedes(const pgi_found *a, const pgi_found *b) {
    const float p = a->object.score, q = b->object.score;
    if (p > q || (p == p && q != q)) return 1;
    if (q > p || (q == q && p != p)) return 0;
    return a < b;
}

static int compare(const void *a, const void *b) {
    const pgi_found *x = &all[*(const int *)a], *y = &all[*(const int *)b];
    return x == y ? 0 : precedes(x, y) ? -1 : 1;
}

static void find_by_definition(int n, float max_iou) {
    static int order[MOST], kept[MOST];
    int n_kept = 0;
    for (int i = 0; i < n; i++) order[i] = i, wanted[i] = -1;
    qsort(order, (size_t)n, sizeof *order, compare);
    for (int i = 0; i < n; i++) {
        const pg_object *o = &all[order[i]].object;
        if (o->n_locs < 4 || o->flags & PG_OBJECT_BROKEN) continue;
        for (int k = 0; k < n_kept && wanted[order[i]] < 0; k++) {
            const pg_object *better = &all[kept[k]].object;
            if (strcmp(o->label, better->label) == 0 && iou(o->locs, better->locs) > (double)max_iou)
                wanted[order[i]] = kept[k];
        }
        if (wanted[order[i]] < 0) kept[n_kept++] = order[i];
    }
}

/* Sizes up to `most`, of each order of size as many; some boxes lie close to one before them. */
static void make_box(rng *r, int i, uint64_t most, int kind, int32_t box[4]) {
    const int32_t *before = all[i ? rng_below(r, (uint64_t)i) : 0].object.locs;
    const int near = i > 0 && kind % 2 && rng_below(r, 2);
    for (int k = 0; k < 2; k++) {
        const uint64_t at_most = (uint64_t)1 << rng_below(r, 10);
        int32_t size = 1 + (int32_t)rng_below(r, at_most < most ? at_most : most), begin;
        if (kind / 2 == 1) size = (int32_t)(i % 2 == k ? most : 1 + rng_below(r, 4)); /* long ones that cross */
        begin = (int32_t)rng_below(r, (uint64_t)(1024 - size));
        if (kind / 2 == 2) size = i % 8 ? 8 : (int32_t)most, begin = (k ? i : i / 60) % 60 * 8; /* side by side */
        box[k] = near ? before[k] + (int32_t)rng_below(r, 5) - 2 : begin;
        box[k + 2] = near ? before[k + 2] + (int32_t)rng_below(r, 5) - 2 : begin + size;
        if (box[k] < 0) box[k] = 0;
        if (box[k] > 1022) box[k] = 1022;
        if (box[k + 2] > 1023) box[k + 2] = 1023;
        if (box[k + 2] <= box[k]) box[k + 2] = box[k] + 1;
    }
}

static void boxes_said_twice_are_those_of_the_definition(void **state) {
    static const float limits[] = {0, 0.001f, 0.1f, 0.3f, 0.5f, 0.9f, 1, 1e-6f, 0.02f, 0.4999f, 0.7f, 0.999f};
    static const char labels[2][3][4] = {{"cat", "dog", ""}, {"cat", "dog", "do"}}; /* of the same text elsewhere */
    static const uint64_t sizes[] = {5, 1000, 60, 300};
    rng r = {3};
    int n_twice[sizeof limits / sizeof *limits] = {0};
    (void)state;
    for (int round = 0; round < 6000; round++) {
        const size_t l = (size_t)round % (sizeof limits / sizeof *limits);
        const int n = 1 + (int)rng_below(&r, rng_below(&r, 60) == 0 ? MOST : round % 5 ? 60 : 500);
        const uint64_t most = sizes[rng_below(&r, 4)], n_labels = 1 + rng_below(&r, 2) * 2;
        const int kind = (int)rng_below(&r, 6), scored = (int)rng_below(&r, 3);
        for (int i = 0; i < n; i++) {
            pg_object *o = &all[i].object;
            *o = (pg_object){.n_locs = 4, .duplicate_of = -1, .score = NAN};
            make_box(&r, i, most, kind, o->locs);
            o->label = labels[rng_below(&r, 2)][rng_below(&r, n_labels)];
            o->label_size = strlen(o->label);
            if (scored && rng_below(&r, 10)) o->score = scored == 1 ? 0.5f : (float)rng_below(&r, 30);
            if (rng_below(&r, 40) == 0) o->n_locs = 2;
            if (rng_below(&r, 40) == 0) o->flags = PG_OBJECT_OUT_OF_ORDER;
        }
        find_by_definition(n, limits[l]);
        pgi_found_list list = {.memory = &pgi_memory_default, .data = all, .n = (size_t)n};
        assert_int_equal(pgi_mark_duplicates(&pgi_memory_default, &list, limits[l]), PG_OK);
        for (int i = 0; i < n; i++) {
            const pg_object *o = &all[i].object;
            if (o->duplicate_of != wanted[i] || !(o->flags & PG_OBJECT_DUPLICATE) != (wanted[i] < 0))
                fail_msg("round %d, max_iou %g, box %d of %d: duplicate of %d, expected %d", round, (double)limits[l],
                         i, n, o->duplicate_of, wanted[i]);
            n_twice[l] += wanted[i] >= 0;
        }
    }
    for (size_t l = 0; l < sizeof limits / sizeof *limits; l++) assert_true((n_twice[l] > 10) == (limits[l] < 1));
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(boxes_said_twice_are_those_of_the_definition)};
    return RUN_TESTS(tests, NULL, NULL);
}
