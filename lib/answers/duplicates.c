/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Boxes that the model says twice: non-maximum suppression within each label, on the raw numbers, as a fraction of the
 * image changes no intersection over union (IoU). Each box is compared with those of its label that stay and lie near
 * it alone: a hash table finds them by label, size and place. Boxes that stay differ, so that few of them are near any
 * box.
 */
#include "answers/answer.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

enum {
    MAX_BOXES = 16384,
    SIZES = 1024, /* of a box: 1 to 1023 */
    FEW = 128,    /* of a label that stay, which are compared before others are looked for */
    CELL = 4,     /* looking into a cell takes as long as so many comparisons */
    LEVELS = 10   /* with max_iou below 0.5 */
};

/* A box that is no broken one; those of a label lie together, in the order of their scores. */
typedef struct candidate {
    pg_object *object;
    uint32_t index; /* of the object */
    uint32_t label; /* a number for each label */
    int32_t box[4];
} candidate;

/* Those of two levels that stay, in their order, as 1 + their numbers; 0: none. */
typedef struct list {
    uint32_t first, last, n;
} list;

/*
 * Sizes fall into levels. Two boxes whose IoU is above max_iou overlap in each direction by more than max_iou times the
 * larger size: so neither size is below max_iou times the other. Places are cells, each as large as a share of its
 * level's smallest size. With max_iou below 0.5 a box may have many levels near it and many cells of each: levels
 * without boxes are passed over, and those with few have a list of them.
 */
typedef struct grid {
    double max_iou;
    int32_t n_levels;
    int16_t level_of[SIZES];     /* of a size */
    int16_t begin_of[SIZES + 1]; /* of a level: its smallest size; behind the last: SIZES */
    int16_t cell_of[SIZES];      /* of a level: the size of its cells */
    int has_lists;
    list lists[LEVELS][LEVELS]; /* of a label: by the levels of height and width */
    pgi_hash_key key;
    uint32_t *heads; /* [1 << 64 - shift]: the last candidate of a cell that stays, as 1 + its number; 0: none */
    uint32_t *next;  /* [n]: the one before it */
    uint32_t *later; /* [n]: of a list, the one behind it */
    int shift;
} grid;

/* In one direction: the cells of a level that may hold the beginning of a box near this one. */
typedef struct range {
    int32_t first, end;
} range;

static int64_t area(const int32_t box[4]) { return (int64_t)(box[2] - box[0]) * (box[3] - box[1]); }

static int is_twice(const int32_t a[4], const int32_t b[4], double max_iou) {
    const int32_t y0 = a[0] > b[0] ? a[0] : b[0], y1 = a[2] < b[2] ? a[2] : b[2];
    const int32_t x0 = a[1] > b[1] ? a[1] : b[1], x1 = a[3] < b[3] ? a[3] : b[3];
    if (y1 <= y0 || x1 <= x0) return 0;
    const int64_t common = (int64_t)(y1 - y0) * (x1 - x0);
    return (double)common / (double)(area(a) + area(b) - common) > max_iou;
}

/* By label; the best one first; of equal ones, and of those without a score, the earlier one. */
static int by_label_and_score(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    const float p = x->object->score, q = y->object->score;
    if (x->label != y->label) return x->label < y->label ? -1 : 1;
    if (p > q || (p == p && q != q)) return -1;
    if (q > p || (q == q && p != p)) return 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

/* The number of the first candidate with the label of candidate i; next and heads are a table of those. A label that
 * objects side by side share is hashed once. */
static uint32_t label_of(const grid *g, const candidate *all, uint32_t i) {
    const pg_object *object = all[i].object;
    const size_t size = (size_t)object->label_size;
    if (i > 0 && all[i - 1].object->label == object->label) return all[i - 1].label;
    uint32_t *head = &g->heads[pgi_hash_bytes(&g->key, object->label, size) >> g->shift];
    for (uint32_t k = *head; k; k = g->next[k - 1]) {
        const pg_object *other = all[k - 1].object;
        if (other->label_size == object->label_size && memcmp(other->label, object->label, size) == 0) return k - 1;
    }
    g->next[i] = *head;
    *head = i + 1;
    return i;
}

/* Returns how many. */
static uint32_t find_candidates(const grid *g, const pgi_found_list *objects, candidate *out) {
    uint32_t n = 0;
    for (size_t i = 0; i < objects->n; i++) {
        pg_object *object = &objects->data[i].object;
        if (object->n_locs < PGI_BOX_LOCS || object->flags & PG_OBJECT_BROKEN) continue;
        out[n] = (candidate){.object = object, .index = (uint32_t)i};
        memcpy(out[n].box, object->locs, sizeof out[n].box);
        out[n].label = label_of(g, out, n);
        n++;
    }
    memset(g->heads, 0, ((size_t)1 << (64 - g->shift)) * sizeof *g->heads);
    qsort(out, n, sizeof *out, by_label_and_score);
    return n;
}

static void make_levels(grid *g) {
    const double unit = g->max_iou < 0.5 ? 0.5 : g->max_iou;
    for (int32_t size = 1; size < SIZES; g->n_levels++) {
        const int32_t level = g->n_levels, begin = size, cell = (int32_t)((1 - g->max_iou) * begin);
        g->begin_of[level] = (int16_t)begin;
        g->cell_of[level] = (int16_t)(cell > 1 ? cell : 1);
        for (; size < SIZES && (size == begin || size * unit < begin); size++) g->level_of[size] = (int16_t)level;
    }
    g->begin_of[g->n_levels] = SIZES;
}

static pg_status grid_make(const pgi_memory *memory, float max_iou, size_t n, grid *g) {
    *g = (grid){.max_iou = (double)max_iou, .has_lists = max_iou < 0.5f, .key = pgi_hash_key_new(), .shift = 62};
    make_levels(g);
    while ((size_t)1 << (64 - g->shift) < 2 * n) g->shift--;
    g->heads = pgi_alloc_zero(memory, (size_t)1 << (64 - g->shift), sizeof *g->heads);
    g->next = pgi_alloc(memory, n, sizeof *g->next);
    g->later = pgi_alloc(memory, n, sizeof *g->later);
    return g->heads && g->next && g->later ? PG_OK : PG_ERROR_MEMORY;
}

/* levels[0 .. 1]: the first and the last one that sizes near `size` have. */
static void levels_near(const grid *g, int32_t size, int32_t levels[2]) {
    const double largest = size / g->max_iou;
    const int32_t least = (int32_t)(size * g->max_iou);
    levels[0] = g->level_of[least > 1 ? least : 1];
    levels[1] = g->level_of[largest < SIZES - 1 ? (int32_t)largest : SIZES - 1];
}

/* Where boxes of a level begin that overlap this one by more than max_iou times the larger size. */
static range cells_near(const grid *g, int32_t level, int32_t begin, int32_t size) {
    const int32_t least = g->begin_of[level], most = g->begin_of[level + 1] - 1, cell = g->cell_of[level];
    const int32_t before = (int32_t)(most - g->max_iou * (size > most ? size : most));
    const int32_t behind = (int32_t)(size - g->max_iou * (size > least ? size : least));
    const int32_t from = begin > before ? begin - before : 0;
    const int32_t to = begin + behind < SIZES ? begin + behind : SIZES - 1;
    return (range){from / cell, to / cell + 1};
}

/* Whether a box of h x w pixels can have an IoU above max_iou with any box of two levels. */
static int fit(const grid *g, int32_t h, int32_t w, int32_t high, int32_t wide) {
    const int32_t most_h = g->begin_of[high + 1] - 1, most_w = g->begin_of[wide + 1] - 1;
    const int32_t common = (h < most_h ? h : most_h) * (w < most_w ? w : most_w);
    const int32_t least = g->begin_of[high] * g->begin_of[wide];
    return (double)common / (double)(h * w > least ? h * w : least) > g->max_iou;
}

static uint32_t *head_of(const grid *g, uint32_t label, int32_t high, int32_t wide, int32_t y, int32_t x) {
    const uint32_t place = (uint32_t)wide << 20 | (uint32_t)y << 10 | (uint32_t)x;
    return &g->heads[pgi_hash_pair(&g->key, label << 10 | (uint32_t)high, place) >> g->shift];
}

static void grid_add(grid *g, const candidate *all, uint32_t i) {
    const int32_t *box = all[i].box, high = g->level_of[box[2] - box[0]], wide = g->level_of[box[3] - box[1]];
    uint32_t *head = head_of(g, all[i].label, high, wide, box[0] / g->cell_of[high], box[1] / g->cell_of[wide]);
    g->next[i] = *head;
    *head = i + 1;
    if (!g->has_lists) return;
    list *l = &g->lists[high][wide];
    *(l->last ? &g->later[l->last - 1] : &l->first) = i + 1;
    g->later[i] = 0;
    l->last = i + 1;
    l->n++;
}

/* The better one of `best` and those of a list, or of cells, of which candidate i is a duplicate. */
static uint32_t better_of_list(const grid *g, const candidate *all, uint32_t i, const list *l, uint32_t best) {
    for (uint32_t k = l->first; k && k - 1 < best; k = g->later[k - 1])
        if (is_twice(all[k - 1].box, all[i].box, g->max_iou)) return k - 1;
    return best;
}

static uint32_t better_of_cells(const grid *g, const candidate *all, uint32_t i, const int32_t levels[2],
                                const range ranges[2], uint32_t best) {
    for (int32_t y = ranges[0].first; y < ranges[0].end; y++)
        for (int32_t x = ranges[1].first; x < ranges[1].end; x++)
            for (uint32_t k = *head_of(g, all[i].label, levels[0], levels[1], y, x); k; k = g->next[k - 1])
                if (k - 1 < best && all[k - 1].label == all[i].label &&
                    is_twice(all[k - 1].box, all[i].box, g->max_iou))
                    best = k - 1;
    return best;
}

/* The best one that stays of which candidate i is a duplicate; i: none. */
static uint32_t find_near(const grid *g, const candidate *all, uint32_t i) {
    const int32_t *box = all[i].box, h = box[2] - box[0], w = box[3] - box[1];
    int32_t heights[2], widths[2], at[2];
    uint32_t best = i;
    levels_near(g, h, heights);
    levels_near(g, w, widths);
    for (at[0] = heights[0]; at[0] <= heights[1]; at[0]++)
        for (at[1] = widths[0]; at[1] <= widths[1]; at[1]++) {
            const list *l = g->has_lists ? &g->lists[at[0]][at[1]] : NULL;
            if ((l && l->n == 0) || !fit(g, h, w, at[0], at[1])) continue;
            const range cells[2] = {cells_near(g, at[0], box[0], h), cells_near(g, at[1], box[1], w)};
            const int32_t n_cells = (cells[0].end - cells[0].first) * (cells[1].end - cells[1].first);
            if (l && l->n / CELL <= (uint32_t)n_cells)
                best = better_of_list(g, all, i, l, best);
            else
                best = better_of_cells(g, all, i, at, cells, best);
        }
    return best;
}

/* The same; kept: [n_kept], those that stay, in order. The best of them are those that others mostly duplicate. */
static uint32_t find_better(const grid *g, const candidate *all, uint32_t i, const uint32_t *kept, uint32_t n_kept) {
    for (uint32_t k = 0; k < n_kept && k < FEW; k++)
        if (is_twice(all[kept[k]].box, all[i].box, g->max_iou)) return kept[k];
    return n_kept > FEW ? find_near(g, all, i) : i;
}

/* Of a label: candidates begin .. end - 1. kept: room for them. */
static void mark_label(grid *g, const candidate *all, uint32_t begin, uint32_t end, uint32_t *kept) {
    const int looks = end - begin > FEW;
    uint32_t n_kept = 0;
    if (looks) memset(g->lists, 0, sizeof g->lists);
    for (uint32_t i = begin; i < end; i++) {
        const uint32_t better = find_better(g, all, i, kept, n_kept);
        if (better == i) {
            kept[n_kept++] = i;
            if (looks) grid_add(g, all, i);
        } else {
            all[i].object->flags |= PG_OBJECT_DUPLICATE;
            all[i].object->duplicate_of = (int32_t)all[better].index;
        }
    }
}

static void mark(grid *g, const candidate *all, uint32_t n, uint32_t *kept) {
    for (uint32_t begin = 0, end; begin < n; begin = end) {
        for (end = begin; end < n && all[end].label == all[begin].label;) end++;
        mark_label(g, all, begin, end, kept);
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
    if (status >= 0) mark(&g, all, find_candidates(&g, objects, all), kept);
    pgi_free(memory, g.later);
    pgi_free(memory, g.next);
    pgi_free(memory, g.heads);
    pgi_free(memory, kept);
    pgi_free(memory, all);
    return status;
}
