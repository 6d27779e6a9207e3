/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Boxes that the model says twice: non-maximum suppression within each label, on the raw numbers, as a fraction of the
 * image changes no intersection over union (IoU). Each box is compared with those that stay and lie near it alone: a
 * hash table finds them by label, size and place. Boxes that stay differ, so that few of them are near any box.
 */
#include "answers/answer.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

enum { MAX_BOXES = 16384, SIZES = 1024 /* of a box: 1 to 1023 */ };

/* A box that is no broken one, in the order of their scores. */
typedef struct candidate {
    pg_object *object;
    size_t index; /* of the object */
    uint64_t label;
} candidate;

/*
 * Sizes fall into levels. Two boxes whose IoU is above max_iou overlap in each direction by more than max_iou times the
 * larger size: so neither size is below max_iou times the other, and they begin less than (1 - max_iou) times the
 * larger size apart. Places are cells, each as large as a share of its level's smallest size.
 */
typedef struct grid {
    double max_iou;
    int32_t n_levels;
    int16_t level_of[SIZES];     /* of a size */
    int16_t begin_of[SIZES + 1]; /* of a level: its smallest size; behind the last: SIZES */
    int16_t cell_of[SIZES];      /* of a level: the size of its cells */
    pgi_hash_key key;
    uint32_t *heads; /* [mask + 1]: the last candidate of a cell that stays, as 1 + its number; 0: none */
    uint32_t *next;  /* [n]: the one before it */
    uint32_t mask;
} grid;

/* In one direction: the cells of a level that may hold the beginning of a box near this one. */
typedef struct range {
    int32_t first, end;
} range;

static int64_t area(const int32_t box[4]) {
    return box[2] > box[0] && box[3] > box[1] ? (int64_t)(box[2] - box[0]) * (box[3] - box[1]) : 0;
}

static double iou(const int32_t a[4], const int32_t b[4]) {
    const int32_t both[4] = {a[0] > b[0] ? a[0] : b[0], a[1] > b[1] ? a[1] : b[1], a[2] < b[2] ? a[2] : b[2],
                             a[3] < b[3] ? a[3] : b[3]};
    const int64_t common = area(both);
    return (double)common / (double)(area(a) + area(b) - common);
}

static int same_label(const candidate *a, const candidate *b) {
    const pg_object *x = a->object, *y = b->object;
    return a->label == b->label && x->label_size == y->label_size &&
           (x->label == y->label || memcmp(x->label, y->label, (size_t)x->label_size) == 0);
}

/* The best one first; of equal ones, and of those without a score, the earlier one. */
static int by_score(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    const float p = x->object->score, q = y->object->score;
    if (p > q || (p == p && q != q)) return -1;
    if (q > p || (q == q && p != p)) return 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

/* Returns how many. A label that objects side by side share is hashed once. */
static size_t find_candidates(const pgi_found_list *objects, const pgi_hash_key *key, candidate *out) {
    size_t n = 0;
    for (size_t i = 0; i < objects->n; i++) {
        pg_object *object = &objects->data[i].object;
        if (object->n_locs < PGI_BOX_LOCS || object->flags & PG_OBJECT_BROKEN) continue;
        out[n] = (candidate){.object = object, .index = i};
        out[n].label = n > 0 && out[n - 1].object->label == object->label
                           ? out[n - 1].label
                           : pgi_hash_bytes(key, object->label, (size_t)object->label_size);
        n++;
    }
    qsort(out, n, sizeof *out, by_score);
    return n;
}

static void make_levels(grid *g) {
    const double unit = g->max_iou < 0.5 ? 0.5 : g->max_iou;
    for (int32_t size = 1; size < SIZES; g->n_levels++) {
        const int32_t level = g->n_levels, begin = size, cell = (int32_t)((1 - unit) * begin);
        g->begin_of[level] = (int16_t)begin;
        g->cell_of[level] = (int16_t)(cell > 1 ? cell : 1);
        for (; size < SIZES && (size == begin || size * unit < begin); size++) g->level_of[size] = (int16_t)level;
    }
    g->begin_of[g->n_levels] = SIZES;
}

static pg_status grid_make(const pgi_memory *memory, float max_iou, size_t n, grid *g) {
    *g = (grid){.max_iou = (double)max_iou, .key = pgi_hash_key_new(), .mask = 1};
    make_levels(g);
    while (g->mask < 2 * n) g->mask = 2 * g->mask + 1;
    g->heads = pgi_alloc_zero(memory, (size_t)g->mask + 1, sizeof *g->heads);
    g->next = pgi_alloc(memory, n, sizeof *g->next);
    return g->heads && g->next ? PG_OK : PG_ERROR_MEMORY;
}

/* levels[0 .. 1]: the first and the last one that sizes near `size` have. */
static void levels_near(const grid *g, int32_t size, int32_t levels[2]) {
    const double largest = size / g->max_iou;
    const int32_t least = (int32_t)(size * g->max_iou);
    levels[0] = g->level_of[least > 1 ? least : 1];
    levels[1] = g->level_of[largest < SIZES - 1 ? (int32_t)largest : SIZES - 1];
}

static range cells_near(const grid *g, int32_t level, int32_t begin, int32_t size) {
    const int32_t most = g->begin_of[level + 1] - 1, larger = size > most ? size : most, cell = g->cell_of[level];
    const int32_t reach = (int32_t)((1 - g->max_iou) * larger) + 1, from = begin > reach ? begin - reach : 0;
    const int32_t to = begin + reach < SIZES ? begin + reach : SIZES - 1;
    return (range){from / cell, to / cell + 1};
}

static uint32_t *head_of(const grid *g, uint64_t label, const int32_t levels[2], int32_t y, int32_t x) {
    const uint64_t place[2] = {label,
                               (uint64_t)levels[0] | (uint64_t)levels[1] << 16 | (uint64_t)y << 32 | (uint64_t)x << 48};
    return &g->heads[pgi_hash_bytes(&g->key, place, sizeof place) & g->mask];
}

static void grid_add(const grid *g, const candidate *all, uint32_t i) {
    const int32_t *box = all[i].object->locs;
    const int32_t levels[2] = {g->level_of[box[2] - box[0]], g->level_of[box[3] - box[1]]};
    uint32_t *head = head_of(g, all[i].label, levels, box[0] / g->cell_of[levels[0]], box[1] / g->cell_of[levels[1]]);
    g->next[i] = *head;
    *head = i + 1;
}

/* How many cells may hold a box near this one. */
static size_t count_cells(const grid *g, const int32_t *box, const int32_t levels[2][2]) {
    size_t n[2] = {0, 0};
    for (int k = 0; k < 2; k++)
        for (int32_t level = levels[k][0]; level <= levels[k][1]; level++) {
            const range r = cells_near(g, level, box[k], box[k + 2] - box[k]);
            n[k] += (size_t)(r.end - r.first);
        }
    return n[0] * n[1];
}

static int is_better(const grid *g, const candidate *all, uint32_t k, uint32_t i) {
    return iou(all[k].object->locs, all[i].object->locs) > g->max_iou && same_label(&all[k], &all[i]);
}

/* The best one that stays of which candidate i is a duplicate; i: none. */
static uint32_t find_near(const grid *g, const candidate *all, uint32_t i, const int32_t levels[2][2]) {
    const int32_t *box = all[i].object->locs;
    uint32_t best = i;
    for (int32_t high = levels[0][0]; high <= levels[0][1]; high++) {
        const range rows = cells_near(g, high, box[0], box[2] - box[0]);
        for (int32_t wide = levels[1][0]; wide <= levels[1][1]; wide++) {
            const range columns = cells_near(g, wide, box[1], box[3] - box[1]);
            for (int32_t y = rows.first; y < rows.end; y++)
                for (int32_t x = columns.first; x < columns.end; x++)
                    for (uint32_t k = *head_of(g, all[i].label, (int32_t[2]){high, wide}, y, x); k; k = g->next[k - 1])
                        if (k - 1 < best && is_better(g, all, k - 1, i)) best = k - 1;
        }
    }
    return best;
}

/* kept: [n_kept], in order. Where they are few, or too many cells would be looked at, each is compared. */
static uint32_t find_better(const grid *g, const candidate *all, uint32_t i, const uint32_t *kept, size_t n_kept) {
    const int32_t *box = all[i].object->locs;
    int32_t levels[2][2];
    for (int k = 0; k < 2; k++) levels_near(g, box[k + 2] - box[k], levels[k]);
    if (count_cells(g, box, (const int32_t(*)[2])levels) < n_kept)
        return find_near(g, all, i, (const int32_t(*)[2])levels);
    for (size_t k = 0; k < n_kept; k++)
        if (is_better(g, all, kept[k], i)) return kept[k];
    return i;
}

static void mark(const grid *g, const candidate *all, size_t n, uint32_t *kept) {
    size_t n_kept = 0;
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t better = find_better(g, all, i, kept, n_kept);
        if (better == i) {
            kept[n_kept++] = i;
            grid_add(g, all, i);
        } else {
            all[i].object->flags |= PG_OBJECT_DUPLICATE;
            all[i].object->duplicate_of = (int32_t)all[better].index;
        }
    }
}

pg_status pgi_mark_duplicates(const pgi_memory *memory, pgi_found_list *objects, float max_iou) {
    grid g = {0};
    if (objects->n > MAX_BOXES)
        return pgi_error(PG_ERROR_LIMIT, "the answer has %zu objects, expected at most %d with max_iou", objects->n,
                         MAX_BOXES);
    candidate *all = pgi_alloc(memory, objects->n, sizeof *all);
    uint32_t *kept = pgi_alloc(memory, objects->n, sizeof *kept);
    pg_status status = all && kept ? grid_make(memory, max_iou, objects->n, &g) : PG_ERROR_MEMORY;
    if (status >= 0) mark(&g, all, find_candidates(objects, &g.key, all), kept);
    pgi_free(memory, g.next);
    pgi_free(memory, g.heads);
    pgi_free(memory, kept);
    pgi_free(memory, all);
    return status;
}
