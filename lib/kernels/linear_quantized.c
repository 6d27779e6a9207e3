/*
 * pgi_linear_forward() with quantised weights (quantized.h).
 *
 * x is quantised once for all threads, in tiles of rows. Few rows (decode): the blocks are streamed once. Many rows: the
 * summed dimension is cut at groups, so that the weights of a panel or two stay in the first-level caches while all the
 * tiles of x go over them; int4 blocks become int8 blocks for that. A result is summed in the same order however the work
 * is cut, so that a row depends neither on the threads nor on the other rows.
 */
#include "kernels/quantized.h"

#include "base/parallel.h"
#include "kernels/kernels.h"

enum {
    ROWS = 512,                    /* quantised at a time */
    GROUPS = 16,                   /* of many rows: summed at a time */
    PANELS = 2,                    /* of a task of many rows */
    STREAM_CHUNK_BYTES = 256 * 1024 /* weights of a streamed task */
};

typedef struct quantized_task {
    const pgi_kernels *kernels;
    const float *x; /* [rows, in]: the rows now summed */
    int64_t x_stride, rows, n_tiles;
    const pgi_linear *linear;
    int64_t first_group, groups; /* now summed */
    float *y;                    /* [rows, out] */
    int64_t y_stride;
    char *tiles;    /* quantised x */
    char *unpacked; /* [threads][PANELS][GROUPS] int8 blocks */
} quantized_task;

static size_t unpacked_bytes(void) { return (size_t)PANELS * GROUPS * PGI_INT8_BLOCK; }
static size_t tiles_bytes(void) { return (size_t)ROWS * GROUPS * PGI_TILE_ROW_BYTES; }

size_t pgi_quantized_scratch(int n_threads) { return tiles_bytes() + unpacked_bytes() * (size_t)n_threads; }

/* Tiles are of nearly equal height. */
static int64_t tile_row(const quantized_task *task, int64_t tile) { return task->rows * tile / task->n_tiles; }
static char *tile_at(const quantized_task *task, int64_t tile) {
    return task->tiles + tile_row(task, tile) * task->groups * PGI_TILE_ROW_BYTES;
}

static void quantize_tiles(void *context, int64_t begin, int64_t end, int thread) {
    const quantized_task *task = context;
    const int64_t column = task->first_group * PGI_GROUP_COLUMNS;
    const int64_t k = pgi_min64(task->groups * PGI_GROUP_COLUMNS, task->linear->weight.columns - column);
    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        int64_t row = tile_row(task, t);
        int m = (int)(tile_row(task, t + 1) - row);
        for (int i = 0; i < m; i++)
            task->kernels->quantize_row(task->x + (row + i) * task->x_stride + column, k, m, i, tile_at(task, t));
    }
}

static void multiply_panels(void *context, int64_t begin, int64_t end, int thread) {
    const quantized_task *task = context;
    const pgi_kernels *kernels = task->kernels;
    const pgi_matrix *w = &task->linear->weight;
    const int64_t block = pgi_quantized_block(w->dtype), panel_bytes = pgi_quantized_groups(w->columns) * block;
    const float *bias = task->linear->bias;
    const int int4 = w->dtype == PGI_DTYPE_INT4_BLOCKS, streamed = task->n_tiles == 1 && task->rows <= PGI_GEMV_ROWS;
    const int64_t step = streamed ? end - begin : PANELS;
    char *unpacked = task->unpacked + (size_t)thread * unpacked_bytes();

    for (int64_t p = begin; p < end; p += step) {
        const char *data = (const char *)w->data + p * panel_bytes + task->first_group * block;
        const int64_t first = p * PGI_PANEL_ROWS, n = pgi_min64((pgi_min64(p + step, end) - p) * PGI_PANEL_ROWS,
                                                                w->rows - first);
        int64_t data_bytes = panel_bytes;
        if (int4 && !streamed) {
            data_bytes = task->groups * PGI_INT8_BLOCK;
            for (int64_t i = 0; i * PGI_PANEL_ROWS < n; i++)
                kernels->unpack_int4(data + i * panel_bytes, task->groups, unpacked + i * data_bytes);
            data = unpacked;
        }
        for (int64_t t = 0; t < task->n_tiles; t++) {
            int64_t row = tile_row(task, t);
            (int4 && streamed ? kernels->product_int4 : kernels->product_int8)(
                (int)(tile_row(task, t + 1) - row), n, task->groups, tile_at(task, t), data, data_bytes,
                task->y + row * task->y_stride + first, task->y_stride, task->first_group > 0,
                bias ? bias + first : NULL);
        }
    }
}

pg_status pgi_quantized_linear(const pgi_run *run, const float *x, int64_t x_stride, int64_t rows,
                               const pgi_linear *linear, float *y, int64_t y_stride, void *scratch) {
    const pgi_matrix *w = &linear->weight;
    const int64_t all_groups = pgi_quantized_groups(w->columns), panels = pgi_quantized_panels(w->rows);
    const int streamed = rows <= PGI_GEMV_ROWS;
    const int64_t at_once = streamed ? (int64_t)ROWS * GROUPS / rows : GROUPS;
    const int64_t n_parts = all_groups ? (all_groups + at_once - 1) / at_once : 1, n_chunks = (rows + ROWS - 1) / ROWS;
    const int64_t row_bytes = all_groups * pgi_quantized_block(w->dtype) / PGI_PANEL_ROWS;
    const int64_t grain = streamed ? STREAM_CHUNK_BYTES / PGI_PANEL_ROWS / (row_bytes ? row_bytes : 1) : PANELS;

    for (int64_t chunk = 0; chunk < n_chunks; chunk++) {
        const int64_t row = rows * chunk / n_chunks;
        quantized_task task = {.kernels = run->kernels,
                               .x = x + row * x_stride,
                               .x_stride = x_stride,
                               .rows = rows * (chunk + 1) / n_chunks - row,
                               .linear = linear,
                               .y = y + row * y_stride,
                               .y_stride = y_stride,
                               .tiles = scratch,
                               .unpacked = (char *)scratch + tiles_bytes()};
        task.n_tiles = (task.rows + run->kernels->quantized_rows - 1) / run->kernels->quantized_rows;
        for (int64_t part = 0; part < n_parts; part++) {
            task.first_group = all_groups * part / n_parts;
            task.groups = all_groups * (part + 1) / n_parts - task.first_group;
            PGI_TRY(pgi_parallel_for(run, task.n_tiles, 1, quantize_tiles, &task));
            PGI_TRY(pgi_parallel_for(run, panels, grain > 4 || !streamed ? grain : 4, multiply_panels, &task));
        }
    }
    return PG_OK;
}
