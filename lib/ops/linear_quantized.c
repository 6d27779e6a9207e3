/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * pgi_quantized_linears() and pgi_quantized_mlp(): what linear.c and mlp.c call for quantized weights (quantized.h).
 *
 * x is quantized once for all threads and all layers that read it, in tiles of rows.
 * Few rows (decode), as many as the kernels have: the blocks of weights are streamed once.
 * Many rows: a task owns a block of output columns and a slice of the rows, so that its x stays in the second-level
 * cache. It goes over the summed dimension in parts, so that the weights of a few panels stay there too; sums wait in
 * the scratch of the thread until they are complete. int4 blocks are first unpacked to int8 blocks. The weights that
 * come next are prefetched meanwhile; without AMX only beside the first slice, for a thread mostly does all slices of a
 * block one after the other.
 * MLP: a task owns a group of the intermediate, 128 values wide, and quantizes it for the next layer. So the
 * intermediate is never written as f32.
 * A result is summed in the same order however the work is cut, so a row depends neither on the threads nor on the
 * other rows.
 */
#include "ops/linear_quantized.h"

#include <string.h>

#include "base/parallel.h"
#include "kernels/kernels.h"
#include "kernels/quantized.h"

enum {
    ROWS = 512,                                        /* of x at a time at the most, */
    TILES_BYTES = 4 << 20,                             /* and no more than this when quantized */
    SLICE_ROWS = 288,                                  /* of a task of many rows at the most: room of `sums`; */
    SLICE_BYTES = 672 << 10,                           /* of a part of them at the most (int8, no tiles); */
    FEW_THREADS = 2,                                   /* more take half as many rows, so that there are enough tasks */
    FETCH_ROWS = 16,                                   /* fewer do not take long enough to prefetch beside them */
    UNPACKED_BLOCKS = 64,                              /* of weights, at the most */
    BLOCK_PANELS = PGI_GROUP_COLUMNS / PGI_PANEL_ROWS, /* of a task at the most: a group of the next layer */
    TASKS_PER_THREAD = 16,                             /* where narrower blocks give so many; half on AMX tiles */
    STREAM_BYTES = 256 * 1024,                         /* weights of a streamed task, */
    STREAM_PANELS = 4,                                 /* a multiple of so many panels */
    ACTIVATED_ROWS = 32,                               /* of an intermediate, at once */
    SUMMED_ROWS = 16                                   /* of the partial sums of a low-rank part: rows of a task */
};

/* Quantized rows: tile after tile. fixed: all of 16 rows, the last filled up with zeros; else of nearly equal heights.
 */
typedef struct tiles {
    char *data;
    int64_t rows, n, groups;
    int fixed;
} tiles;

/* The scratch of a thread. */
typedef struct thread_scratch {
    char unpacked[UNPACKED_BLOCKS * PGI_INT8_BLOCK];
    float sums[2][SLICE_ROWS * PGI_GROUP_COLUMNS];
} thread_scratch;

typedef struct quantized_job {
    const pgi_kernels *kernels;
    const float *x; /* [in.rows, columns] */
    int64_t x_stride, columns;
    tiles in;
    int64_t n_slices; /* of the rows */
    int streamed;
    const pgi_linear_job *outputs;
    pgi_low_rank_rows begun[PGI_LOW_RANK_LAYERS]; /* what adapters add to the layers that read x, */
    int n_begun;
    const pgi_low_rank_rows *added; /* and to each of the outputs */
    int64_t first_row;              /* of the outputs' rows */
    int64_t block_panels;           /* of a task */
    const pgi_mlp *mlp;
    void (*activate)(float *x, int64_t n);
    void (*gate)(float *x, const float *y, int64_t n);
    tiles intermediate; /* of the MLP */
    pgi_low_rank_rows added_down;
    float *partial; /* [groups of the intermediate, rows, rank]: the down layer's A x of each group */
    thread_scratch *threads;
} quantized_job;

size_t pgi_quantized_scratch(int n_threads) { return TILES_BYTES + sizeof(thread_scratch) * (size_t)n_threads; }

/* Bytes of so many quantized rows. */
static size_t quantized_bytes(int64_t rows, int64_t width) {
    return (size_t)(pgi_ceil_div64(rows, PGI_TILE_ROWS) * PGI_TILE_ROWS) * (size_t)pgi_quantized_groups(width) *
           PGI_TILE_ROW_BYTES;
}

size_t pgi_quantized_intermediate(const pgi_kernels *kernels, int64_t rows, int64_t width) {
    const int64_t at_once = pgi_min64(rows, ROWS);
    return quantized_bytes(at_once, width) + (size_t)(pgi_quantized_groups(width) * pgi_min64(rows, PGI_LOW_RANK_FEW) *
                                                      pgi_min64(kernels->low_rank, PGI_LOW_RANK_FUSED)) *
                                                 sizeof(float);
}

/* Streamed rows are one tile. */
static tiles tiles_of(const pgi_kernels *kernels, int streamed, void *data, int64_t rows, int64_t columns) {
    const int fixed = !streamed && kernels->quantized_tiles && columns > 0;
    const int height = fixed ? PGI_TILE_ROWS : kernels->quantized_rows;
    return (tiles){data, rows, streamed ? 1 : pgi_ceil_div64(rows, height), pgi_quantized_groups(columns), fixed};
}
static int64_t tile_row(const tiles *t, int64_t tile) {
    return t->fixed ? pgi_min64(t->rows, tile * PGI_TILE_ROWS) : t->rows * tile / t->n;
}
static int tile_rows(const tiles *t, int64_t tile) { return (int)(tile_row(t, tile + 1) - tile_row(t, tile)); }
static int tile_height(const tiles *t, int64_t tile) { return t->fixed ? PGI_TILE_ROWS : tile_rows(t, tile); }
/* A group of the tile of `height` rows that begins with `row`. */
static char *tile_from(const tiles *t, int64_t row, int64_t height, int64_t group) {
    return t->data + (row * t->groups + height * group) * PGI_TILE_ROW_BYTES;
}
static char *tile_at(const tiles *t, int64_t tile, int64_t group) {
    return tile_from(t, tile_row(t, tile), tile_height(t, tile), group);
}

static void multiply_a(const quantized_job *job, const pgi_low_rank_rows *added, int64_t first_tile, int64_t end_tile,
                       thread_scratch *mine);

/* Item: a tile of rows, and A x of many; of few rows, from there on, a piece of A. */
static void quantize_tiles(void *context, int64_t begin, int64_t end, int thread) {
    const quantized_job *job = context;
    for (int64_t t = begin; t < end; t++) {
        if (t >= job->in.n) {
            pgi_low_rank_item(job->kernels, job->begun, job->n_begun, thread, t - job->in.n, job->x, job->x_stride);
            continue;
        }
        const int64_t row = tile_row(&job->in, t);
        const int m = tile_height(&job->in, t), rows = tile_rows(&job->in, t);
        char *tile = tile_at(&job->in, t, 0);
        if (rows < m) memset(tile, 0, (size_t)(m * job->in.groups * PGI_TILE_ROW_BYTES));
        job->kernels->quantize_rows(job->x + row * job->x_stride, job->x_stride, rows, job->columns, m, tile);
        for (int i = 0; i < job->n_begun; i++) multiply_a(job, &job->begun[i], t, t + 1, &job->threads[thread]);
    }
}

/* `groups` groups of n outputs, int4, to int8 blocks without a gap. */
static void unpack_panels(const pgi_kernels *kernels, const char *panels, int64_t panel_bytes, int64_t groups,
                          int64_t n, char *unpacked) {
    for (int64_t i = 0; i * PGI_PANEL_ROWS < n; i++)
        kernels->unpack_int4(panels + i * panel_bytes, groups, unpacked + i * groups * PGI_INT8_BLOCK);
}

/* Into how many parts the summed dimension is cut, of nearly equal numbers of groups. */
static int64_t n_parts(const pgi_kernels *kernels, int64_t groups) {
    return pgi_max64(1, pgi_ceil_div64(groups, kernels->quantized_groups));
}

/* What a task multiplies: y [rows of the tiles, n], outputs of a layer from `panel` on. */
typedef struct product_block {
    const pgi_linear *linear;
    const pgi_low_rank_rows *added; /* to its outputs */
    int64_t panel, n, first_tile, end_tile;
    char *unpacked; /* of the thread */
    float *sums;    /* room for incomplete ones, laid out as y; may be y */
    int64_t sums_stride;
    float *y;
    int64_t y_stride;
    const char *after; /* weights that are read next, in the format of this layer (another one wastes the prefetch);
                          NULL: none */
} product_block;

/* The weights that are read after those of the outputs c .. c + at_once in the groups group .. group + groups of `all`:
 * of the next outputs, of the next part, or `after`. They are prefetched in n_steps steps. */
static pgi_prefetch prefetch_after(const product_block *b, int64_t all, int64_t at_once, int64_t c, int64_t group,
                                   int64_t groups, int64_t n_steps) {
    const int64_t block = pgi_quantized_block(b->linear->weight.dtype), panel_bytes = all * block;
    const char *data = (const char *)b->linear->weight.data + b->panel * panel_bytes;
    const int64_t next_c = c + at_once, left = b->n - next_c;
    const char *next = left > 0               ? data + next_c / PGI_PANEL_ROWS * panel_bytes + group * block
                       : group + groups < all ? data + (group + groups) * block
                                              : b->after;
    if (!next) return (pgi_prefetch){.rows = 0};
    return pgi_prefetch_start(next, panel_bytes, pgi_quantized_panels(pgi_min64(left > 0 ? left : b->n, at_once)),
                              groups * block, n_steps);
}

/* `multiply` on tiles. While some panels are multiplied, those that come next are prefetched. */
static void multiply_tiles(const quantized_job *job, const product_block *b) {
    const pgi_kernels *kernels = job->kernels;
    const tiles *in = &job->in;
    const pgi_matrix *w = &b->linear->weight;
    const int64_t at_once = (int64_t)kernels->quantized_panels * PGI_PANEL_ROWS;
    const int64_t rows = tile_row(in, b->end_tile) - tile_row(in, b->first_tile);
    const int64_t block = pgi_quantized_block(w->dtype), panel_bytes = in->groups * block;
    const char *data = (const char *)w->data + b->panel * panel_bytes;
    const float *bias = b->linear->bias ? b->linear->bias + b->panel * PGI_PANEL_ROWS : NULL;
    const int64_t parts = n_parts(kernels, in->groups);
    const int64_t x_tile = (int64_t)PGI_TILE_ROWS * in->groups * PGI_TILE_ROW_BYTES;
    for (int64_t part = 0; part < parts; part++) {
        const int64_t group = in->groups * part / parts, groups = in->groups * (part + 1) / parts - group;
        const int is_last = part == parts - 1;
        pgi_prefetch next_x = {.rows = 0};
        if (!is_last)
            next_x = pgi_prefetch_start(
                tile_at(in, b->first_tile, group + groups), x_tile, b->end_tile - b->first_tile,
                groups * PGI_TILE_ROWS * PGI_TILE_ROW_BYTES,
                pgi_tile_product_steps(rows, pgi_min64(b->n, at_once), groups) * pgi_ceil_div64(b->n, at_once));
        for (int64_t c = 0; c < b->n; c += at_once) {
            const int64_t width = pgi_min64(b->n - c, at_once);
            const char *panels = data + c / PGI_PANEL_ROWS * panel_bytes + group * block;
            pgi_prefetch next_w =
                prefetch_after(b, in->groups, at_once, c, group, groups, pgi_tile_product_steps(rows, width, groups));
            pgi_tile_product product = {
                .rows = rows,
                .n = width,
                .groups = groups,
                .x = tile_at(in, b->first_tile, group),
                .x_tile = x_tile,
                .w = panels,
                .panel_bytes = panel_bytes,
                .start = part   ? b->sums + c
                         : bias ? bias + c
                                : NULL,
                .start_stride = part ? b->sums_stride : 0,
                .low = part ? (pgi_low_rank_start){0}
                            : pgi_low_rank_start_of(kernels, b->added, tile_row(in, b->first_tile),
                                                    b->panel * PGI_PANEL_ROWS + c),
                .y = (is_last ? b->y : b->sums) + c,
                .y_stride = is_last ? b->y_stride : b->sums_stride,
                .next_w = &next_w,
                .next_x = &next_x,
            };
            if (w->dtype == PGI_DTYPE_INT4_BLOCKS) {
                unpack_panels(kernels, panels, panel_bytes, groups, width, b->unpacked);
                product.w = b->unpacked;
                product.panel_bytes = groups * PGI_INT8_BLOCK;
            }
            kernels->product_tiles(&product);
        }
    }
}

static void multiply(const quantized_job *job, const product_block *b) {
    const pgi_kernels *kernels = job->kernels;
    const tiles *in = &job->in;
    const pgi_matrix *w = &b->linear->weight;
    if (in->fixed) {
        multiply_tiles(job, b);
        return;
    }
    const int int4 = w->dtype == PGI_DTYPE_INT4_BLOCKS;
    const int64_t at_once = (int64_t)kernels->quantized_panels * PGI_PANEL_ROWS;
    const int64_t block = pgi_quantized_block(w->dtype), panel_bytes = in->groups * block;
    const char *data = (const char *)w->data + b->panel * panel_bytes;
    const float *bias = b->linear->bias ? b->linear->bias + b->panel * PGI_PANEL_ROWS : NULL;
    if (job->streamed) {
        (int4 ? kernels->stream_int4 : kernels->stream_int8)(&(pgi_row_product){.m = (int)in->rows,
                                                                                .n = b->n,
                                                                                .groups = in->groups,
                                                                                .x = tile_at(in, 0, 0),
                                                                                .w = data,
                                                                                .panel_bytes = panel_bytes,
                                                                                .one_stream = kernels->one_stream,
                                                                                .start = bias,
                                                                                .y = b->y,
                                                                                .y_stride = b->y_stride});
        return;
    }
    const int64_t parts = n_parts(kernels, in->groups), n_tiles = b->end_tile - b->first_tile;
    const int64_t first_row = tile_row(in, b->first_tile), rows = tile_row(in, b->end_tile) - first_row;
    for (int64_t part = 0; part < parts; part++) {
        const int64_t group = in->groups * part / parts, groups = in->groups * (part + 1) / parts - group;
        float *out = part == parts - 1 ? b->y : b->sums;
        const int64_t out_stride = out == b->y ? b->y_stride : b->sums_stride;
        for (int64_t c = 0; c < b->n; c += at_once) {
            const int64_t width = pgi_min64(b->n - c, at_once);
            const char *panels = data + c / PGI_PANEL_ROWS * panel_bytes + group * block;
            int64_t stride = panel_bytes; /* from one panel to the next */
            if (int4) {
                unpack_panels(kernels, panels, panel_bytes, groups, width, b->unpacked);
                stride = groups * PGI_INT8_BLOCK;
                panels = b->unpacked;
            }
            const float *start = part ? b->sums + c : bias ? bias + c : NULL;
            const int64_t start_stride = part ? b->sums_stride : 0;
            pgi_prefetch next_w = {.rows = 0};
            if (b->first_tile == 0 && rows >= FETCH_ROWS && groups > 0)
                next_w = prefetch_after(b, in->groups, at_once, c, group, groups, n_tiles * groups);
            for (int64_t t = b->first_tile, row = first_row, next_row; t < b->end_tile; t++, row = next_row) {
                const int64_t y_row = row - first_row;
                next_row = tile_row(in, t + 1);
                kernels->product_int8(&(pgi_row_product){.m = (int)(next_row - row),
                                                         .n = width,
                                                         .groups = groups,
                                                         .x = tile_from(in, row, next_row - row, group),
                                                         .w = panels,
                                                         .panel_bytes = stride,
                                                         .start = start ? start + y_row * start_stride : NULL,
                                                         .start_stride = start_stride,
                                                         .y = out + y_row * out_stride + c,
                                                         .y_stride = out_stride,
                                                         .next_w = &next_w});
            }
        }
    }
}

/* A x of many rows, whose low-rank parts wait for it. */
static void multiply_a(const quantized_job *job, const pgi_low_rank_rows *added, int64_t first_tile, int64_t end_tile,
                       thread_scratch *mine) {
    static const pgi_low_rank_rows nothing = {0};
    const int64_t row = tile_row(&job->in, first_tile), end = tile_row(&job->in, end_tile);
    if (!added->of || added->few) return;
    const int64_t rank = added->of->a.weight.rows;
    float *ax = added->ax + row * rank;
    multiply(job, &(product_block){.linear = &added->of->a_blocks,
                                   .added = &nothing,
                                   .n = rank,
                                   .first_tile = first_tile,
                                   .end_tile = end_tile,
                                   .unpacked = mine->unpacked,
                                   .sums = ax,
                                   .sums_stride = rank,
                                   .y = ax,
                                   .y_stride = rank});
    for (int64_t r = row; r < end; r++) pgi_low_rank_round(job->kernels, added, r);
}

/* The weights of a layer from a panel on; NULL: there is none. */
static const char *panel_at(const pgi_linear *linear, int64_t panel) {
    if (panel * PGI_PANEL_ROWS >= linear->weight.rows) return NULL;
    return (const char *)linear->weight.data +
           panel * pgi_quantized_groups(linear->weight.columns) * pgi_quantized_block(linear->weight.dtype);
}

/* Item: a block of the outputs, those of all layers counted on, and in it a slice of the rows. */
static void multiply_blocks(void *context, int64_t begin, int64_t end, int thread) {
    const quantized_job *job = context;
    thread_scratch *mine = &job->threads[thread];
    const pgi_linear_job *output = job->outputs;
    int64_t before = 0; /* items of the outputs before this one */
    for (int64_t item = begin; item < end; item++) {
        for (;; output++) {
            int64_t panels = pgi_quantized_panels(output->linear->weight.rows);
            int64_t n_items = (panels + job->block_panels - 1) / job->block_panels * job->n_slices;
            if (item < before + n_items) break;
            before += n_items;
        }
        const int64_t panel = (item - before) / job->n_slices * job->block_panels, column = panel * PGI_PANEL_ROWS;
        const int64_t slice = (item - before) % job->n_slices, first_tile = job->in.n * slice / job->n_slices;
        const int64_t n = pgi_min64(job->block_panels * PGI_PANEL_ROWS, output->linear->weight.rows - column);
        const int64_t end_tile = job->in.n * (slice + 1) / job->n_slices, row = tile_row(&job->in, first_tile);
        float *y = output->y + (job->first_row + row) * output->y_stride + column;
        const pgi_low_rank_rows *added = &job->added[output - job->outputs];
        pgi_low_rank_fetch(job->kernels, added, column, n);
        const int64_t next_panel = (item + 1 - before) / job->n_slices * job->block_panels;
        multiply(job, &(product_block){.linear = output->linear,
                                       .added = added,
                                       .panel = panel,
                                       .n = n,
                                       .first_tile = first_tile,
                                       .end_tile = end_tile,
                                       .unpacked = mine->unpacked,
                                       .sums = mine->sums[0],
                                       .sums_stride = 2 * PGI_GROUP_COLUMNS,
                                       .y = y,
                                       .y_stride = output->y_stride,
                                       .after = panel_at(output->linear, next_panel)});
        pgi_low_rank_add(job->kernels, added, thread, row, tile_row(&job->in, end_tile) - row, column, n, y,
                         output->y_stride);
    }
}

/* Completes a group of the intermediate of some tiles, small enough for the first-level cache: activates it, takes its
 * part in A x of the down layer of few rows, and quantizes it. intermediate, up: [rows of the tiles, values of the
 * group]; up is for MLPs with a gate. */
static void activate_tiles(const quantized_job *job, int64_t group, int64_t first_tile, int64_t end_tile, int thread,
                           float *intermediate, const float *up) {
    const int64_t row = tile_row(&job->in, first_tile), rows = tile_row(&job->in, end_tile) - row;
    const int64_t column = group * PGI_GROUP_COLUMNS;
    const int64_t n = pgi_min64(PGI_GROUP_COLUMNS, job->mlp->up->weight.rows - column);
    if (job->mlp->gate)
        job->gate(intermediate, up, rows * n);
    else
        job->activate(intermediate, rows * n);
    if (job->added_down.of && job->added_down.few)
        pgi_low_rank_partial(job->kernels, &job->added_down, thread, intermediate, n, row, rows, column, n,
                             job->partial + (group * job->in.rows + row) * job->added_down.of->a.weight.rows);
    for (int64_t t = first_tile; t < end_tile; t++) {
        const int m = tile_height(&job->intermediate, t), rows_here = tile_rows(&job->intermediate, t);
        char *tile = tile_at(&job->intermediate, t, group);
        if (rows_here < m) memset(tile, 0, (size_t)(m * PGI_TILE_ROW_BYTES));
        job->kernels->quantize_rows(intermediate, n, rows_here, n, m, tile);
        intermediate += rows_here * n;
    }
}

/* Item: a group of the intermediate values of the MLP, and of that a slice of the rows. */
static void multiply_intermediate(void *context, int64_t begin, int64_t end, int thread) {
    const quantized_job *job = context;
    const pgi_mlp *mlp = job->mlp;
    thread_scratch *mine = &job->threads[thread];
    const int64_t together = pgi_max64(1, ACTIVATED_ROWS / tile_height(&job->in, 0));
    for (int64_t item = begin; item < end; item++) {
        const int64_t group = item / job->n_slices, slice = item % job->n_slices, panel = group * BLOCK_PANELS;
        const int64_t first_tile = job->in.n * slice / job->n_slices;
        const int64_t end_tile = job->in.n * (slice + 1) / job->n_slices;
        const int64_t rows = tile_row(&job->in, end_tile) - tile_row(&job->in, first_tile);
        const int64_t n = pgi_min64(PGI_GROUP_COLUMNS, mlp->up->weight.rows - group * PGI_GROUP_COLUMNS);
        const char *next = panel_at(mlp->up, (item + 1) / job->n_slices * BLOCK_PANELS);
        float *up = mine->sums[0], *intermediate = up;
        const int64_t row = tile_row(&job->in, first_tile), column = group * PGI_GROUP_COLUMNS;
        for (int i = 0; i < job->n_begun; i++) pgi_low_rank_fetch(job->kernels, &job->begun[i], column, n);
        pgi_low_rank_fetch_partial(&job->added_down, column, n);
        product_block block = {.linear = mlp->up,
                               .added = &job->begun[0],
                               .panel = panel,
                               .n = n,
                               .first_tile = first_tile,
                               .end_tile = end_tile,
                               .unpacked = mine->unpacked,
                               .sums = up,
                               .sums_stride = n,
                               .y = up,
                               .y_stride = n,
                               .after = mlp->gate ? panel_at(mlp->gate, panel) : next};
        multiply(job, &block);
        pgi_low_rank_add(job->kernels, &job->begun[0], thread, row, rows, column, n, up, n);
        if (mlp->gate) {
            intermediate = mine->sums[1];
            block.linear = mlp->gate, block.added = &job->begun[1];
            block.sums = block.y = intermediate;
            block.after = next;
            multiply(job, &block);
            pgi_low_rank_add(job->kernels, &job->begun[1], thread, row, rows, column, n, intermediate, n);
        }
        for (int64_t t = first_tile, next_tile; t < end_tile; t = next_tile) {
            next_tile = pgi_min64(end_tile, t + together);
            activate_tiles(job, group, t, next_tile, thread, intermediate, up);
            const int64_t done = (tile_row(&job->in, next_tile) - tile_row(&job->in, t)) * n;
            intermediate += done, up += done;
        }
    }
}

/* Item: a row of few. A x of the down layer is the sum over the groups, in their order. */
static void sum_partial(void *context, int64_t begin, int64_t end, int thread) {
    const quantized_job *job = context;
    const int64_t rank = job->added_down.of->a.weight.rows;
    (void)thread;
    for (int64_t row = begin; row < end; row++) {
        const int64_t own = pgi_low_rank_of_row(&job->added_down, row);
        float *sum = job->added_down.ax + row * rank;
        for (int64_t group = 0; group < job->intermediate.groups; group++) {
            const float *part = job->partial + (group * job->in.rows + row) * rank;
            for (int64_t i = 0; i < own; i++) sum[i] = group ? sum[i] + part[i] : part[i];
        }
    }
}

/* Item: a tile of many rows of the intermediate, which is what the job reads now. */
static void multiply_a_of_down(void *context, int64_t begin, int64_t end, int thread) {
    const quantized_job *job = context;
    multiply_a(job, &job->added_down, begin, end, &job->threads[thread]);
}

/* Quantizes x to tiles, cuts them into slices, and completes A x of the layers that read x. */
static pg_status start_job(const pgi_run *run, quantized_job *job, int int4) {
    const int64_t groups = pgi_max64(1, job->in.groups), parts = n_parts(run->kernels, groups);
    const int64_t row_bytes = pgi_ceil_div64(groups, parts) * PGI_TILE_ROW_BYTES;    /* of a part */
    const int64_t most = run->n_threads > FEW_THREADS ? SLICE_ROWS / 2 : SLICE_ROWS; /* for enough tasks */
    /* (Each slice of int4 weights unpacks them again; on tiles x is prefetched.) */
    const int64_t rows = int4 || job->in.fixed ? SLICE_ROWS : pgi_min64(most, SLICE_BYTES / row_bytes);
    const int64_t slice_tiles = rows / (job->in.fixed ? PGI_TILE_ROWS : run->kernels->quantized_rows);
    job->n_slices = job->streamed ? 1 : (job->in.n + slice_tiles - 1) / slice_tiles;
    return pgi_parallel_for(run, job->in.n + pgi_low_rank_items(job->begun, job->n_begun), 1, quantize_tiles, job);
}

/* Multiplies the tiles by the weights of n layers. */
static pg_status finish_job(const pgi_run *run, quantized_job *job, const pgi_linear_job *outputs,
                            const pgi_low_rank_rows *added, int n) {
    int64_t panels = 0, n_items = 0;
    for (int i = 0; i < n; i++) panels += pgi_quantized_panels(outputs[i].linear->weight.rows);
    if (job->streamed) {
        const int64_t panel_bytes = job->in.groups * pgi_quantized_block(outputs[0].linear->weight.dtype);
        job->block_panels = STREAM_BYTES / (panel_bytes + 1) / STREAM_PANELS * STREAM_PANELS + STREAM_PANELS;
    } else {
        const int64_t least = (int64_t)TASKS_PER_THREAD / (job->in.fixed ? 2 : 1) * run->n_threads;
        job->block_panels = job->in.fixed ? 2 * BLOCK_PANELS : BLOCK_PANELS;
        while (job->block_panels > run->kernels->quantized_panels && panels * job->n_slices / job->block_panels < least)
            job->block_panels /= 2;
    }
    for (int i = 0; i < n; i++)
        n_items += (pgi_quantized_panels(outputs[i].linear->weight.rows) + job->block_panels - 1) / job->block_panels *
                   job->n_slices;
    job->outputs = outputs;
    job->added = added;
    return pgi_parallel_for(run, n_items, 1, multiply_blocks, job);
}

/* Rows of so many columns that are quantized at once. */
static pg_status rows_at_once(const pgi_run *run, int64_t rows, int64_t columns, int64_t *out) {
    const int64_t row_bytes = pgi_quantized_groups(columns) * PGI_TILE_ROW_BYTES;
    if (row_bytes > TILES_BYTES)
        return pgi_error(PG_ERROR_UNSUPPORTED, "int8 or int4 linear layer: found %lld inputs, expected at most %lld",
                         (long long)columns, (long long)(TILES_BYTES / PGI_TILE_ROW_BYTES * PGI_GROUP_COLUMNS));
    int64_t fit = row_bytes ? TILES_BYTES / row_bytes : ROWS;
    if (fit >= PGI_TILE_ROWS)
        fit = fit / PGI_TILE_ROWS * PGI_TILE_ROWS;
    else /* no tile of 16 rows fits, so that they must be streamed */
        fit = pgi_min64(fit, run->kernels->stream_rows_int4);
    *out = pgi_min64(pgi_min64(rows, ROWS), fit);
    return PG_OK;
}

/* Whether so many rows can be streamed through this layer; NULL: there is none. */
static int streams(const pgi_run *run, int64_t rows, const pgi_linear *linear) {
    const int int8 = linear && linear->weight.dtype == PGI_DTYPE_INT8_BLOCKS;
    return !linear || rows <= (int8 ? run->kernels->stream_rows_int8 : run->kernels->stream_rows_int4);
}

static quantized_job job_of(const pgi_run *run, const pgi_matrix *w, const float *x, int64_t x_stride, int64_t row,
                            int64_t rows, int streamed, void *scratch) {
    return (quantized_job){.kernels = run->kernels,
                           .x = x + row * x_stride,
                           .x_stride = x_stride,
                           .columns = w->columns,
                           .in = tiles_of(run->kernels, streamed, scratch, rows, w->columns),
                           .streamed = streamed,
                           .first_row = row,
                           .threads = (thread_scratch *)((char *)scratch + TILES_BYTES)};
}

/* Where layer `index` of a job keeps A x of its rows. */
static pgi_low_rank_rows low_rank_of(const pgi_run *run, const quantized_job *job, const pgi_linear *linear, int index,
                                     void *scratch) {
    pgi_low_rank_rows added = pgi_linear_low_rank(run, linear, index, scratch);
    pgi_low_rank_set_rows(run->kernels, &added, job->first_row, job->in.rows, job->in.fixed);
    return added;
}

pg_status pgi_quantized_linears(const pgi_run *run, const float *x, int64_t x_stride, int64_t rows,
                                const pgi_linear_job *outputs, int n, void *scratch) {
    const pgi_matrix *w = &outputs[0].linear->weight;
    int64_t at_once = 0;
    PGI_TRY(rows_at_once(run, rows, w->columns, &at_once));
    const int64_t n_chunks = (rows + at_once - 1) / at_once;
    for (int64_t chunk = 0; chunk < n_chunks; chunk++) { /* of nearly equal height */
        const int64_t row = rows * chunk / n_chunks;
        const int64_t n_rows = rows * (chunk + 1) / n_chunks - row;
        int streamed = 1; /* the layers may be of different types */
        for (int i = 0; i < n; i++) streamed &= streams(run, n_rows, outputs[i].linear);
        quantized_job job = job_of(run, w, x, x_stride, row, n_rows, streamed, scratch);
        job.n_begun = n;
        for (int i = 0; i < n; i++) job.begun[i] = low_rank_of(run, &job, outputs[i].linear, i, scratch);
        PGI_TRY(start_job(run, &job, w->dtype == PGI_DTYPE_INT4_BLOCKS));
        PGI_TRY(finish_job(run, &job, outputs, job.begun, n));
    }
    return PG_OK;
}

/* Room for A x of up, gate and down. The scratch of the parts is of the threads of `run`, whatever threads a product
 * takes. */
static void place_low_rank(const pgi_run *run, quantized_job *job, void *intermediate, void *scratch) {
    const pgi_mlp *mlp = job->mlp;
    job->n_begun = mlp->gate ? 2 : 1;
    job->begun[0] = low_rank_of(run, job, mlp->up, 0, scratch);
    if (mlp->gate) job->begun[1] = low_rank_of(run, job, mlp->gate, 1, scratch);
    job->added_down = low_rank_of(run, job, mlp->down, 2, scratch);
    job->partial = (float *)((char *)intermediate + quantized_bytes(job->in.rows, mlp->up->weight.rows));
}

pg_status pgi_quantized_mlp(const pgi_run *run, const pgi_mlp *mlp, const float *x, int64_t rows, float *y,
                            void *intermediate, void *scratch) {
    const int64_t columns = mlp->up->weight.columns, width = mlp->up->weight.rows, out = mlp->down->weight.rows;
    int64_t at_once = 0;
    PGI_TRY(rows_at_once(run, rows, columns, &at_once));
    const int64_t n_chunks = (rows + at_once - 1) / at_once;
    for (int64_t chunk = 0; chunk < n_chunks; chunk++) {
        const int64_t row = rows * chunk / n_chunks, n = rows * (chunk + 1) / n_chunks - row;
        const int streamed = streams(run, n, mlp->up) && streams(run, n, mlp->gate) && streams(run, n, mlp->down);
        quantized_job job = job_of(run, &mlp->up->weight, x, columns, row, n, streamed, scratch);
        const pgi_linear_job output = {mlp->down, y, out};
        const double work_in = 2.0 * (double)n * (double)columns * (double)width * (mlp->gate ? 2 : 1);
        const double work_out = 2.0 * (double)n * (double)width * (double)out;
        pgi_run alone;
        const pgi_run *pool = pgi_run_for_work(run, work_in, &alone);
        job.mlp = mlp;
        place_low_rank(run, &job, intermediate, scratch);
        job.intermediate = tiles_of(run->kernels, job.streamed, intermediate, n, width);
        PGI_TRY(pgi_find_activation(run->kernels, mlp->activation, &job.activate, &job.gate));
        PGI_TRY(start_job(pool, &job, mlp->up->weight.dtype == PGI_DTYPE_INT4_BLOCKS));
        const int64_t n_items = job.intermediate.groups * job.n_slices;
        PGI_TRY(pgi_parallel_for(pool, n_items, 1, multiply_intermediate, &job));
        if (job.added_down.few && job.added_down.of) PGI_TRY(pgi_parallel_for(pool, n, SUMMED_ROWS, sum_partial, &job));
        job.in = job.intermediate;
        if (!job.added_down.few && job.added_down.of)
            PGI_TRY(pgi_parallel_for(pool, job.in.n, 1, multiply_a_of_down, &job));
        PGI_TRY(finish_job(pgi_run_for_work(run, work_out, &alone), &job, &output, &job.added_down, 1));
    }
    return PG_OK;
}
