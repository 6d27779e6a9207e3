/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Which rows with layers of their own are one product: mixed.h. */
#include "ops/mixed.h"

#include "kernels/kernels.h"
#include "kernels/quantized.h"

/* Whether an MLP with this down layer never writes its intermediate, and so sums A x in another order. */
static int is_fused(const pgi_linear *down) {
    return !down->low_rank || down->low_rank->a.weight.rows <= PGI_LOW_RANK_FUSED;
}

static int is_same(const pgi_linear *a, const pgi_linear *b) {
    return a->weight.data == b->weight.data && a->bias == b->bias;
}

/* Rows that products of these layers may have, each of them as it is alone: stored weights are summed in another order
 * beyond gemv's rows. */
static int64_t most_rows(const pgi_linear *const *layers, int n) {
    for (int i = 0; i < n; i++)
        if (!pgi_dtype_is_blocks(layers[i]->weight.dtype)) return PGI_GEMV_ROWS;
    return PGI_MIXED_ROWS;
}

/* Layer i of n_rows rows. */
static void make_layer(const pgi_linear *const *layers, int64_t n_rows, int n, int i, pgi_mixed *out) {
    const pgi_linear *first = layers[i];
    int64_t rank = 0;
    int differ = 0;
    for (int64_t r = 0; r < n_rows; r++) {
        const pgi_low_rank *part = layers[r * n + i]->low_rank;
        out->rows[i][r] = part;
        differ |= part != first->low_rank;
        if (part) rank = pgi_max64(rank, part->a.weight.rows);
    }
    out->layers[i] = first;
    if (!differ) return;
    out->parts[i] = (pgi_low_rank){.a = {.weight = {.rows = rank}}, .rows = out->rows[i]};
    out->made[i] = *first;
    out->made[i].low_rank = &out->parts[i];
    out->layers[i] = &out->made[i];
}

int64_t pgi_mixed_take(const pgi_linear *const *layers, int64_t n_rows, int n, int is_mlp, pgi_mixed *out) {
    const int64_t most = pgi_min64(n_rows, most_rows(layers, n));
    int64_t rows = 1;
    for (int same = 1; rows < most; rows++) {
        const pgi_linear *const *row = layers + rows * n;
        for (int i = 0; i < n; i++) same &= is_same(row[i], layers[i]);
        if (is_mlp) same &= is_fused(row[n - 1]) == is_fused(layers[n - 1]);
        if (!same) break;
    }
    for (int i = 0; i < n; i++) make_layer(layers, rows, n, i, out);
    return rows;
}
