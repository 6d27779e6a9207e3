/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The two formats in which rows are multiplied by packed panels, f32 and bf16: what linear.c and attention.c share. */
#ifndef PGI_OPS_GEMM_FORMAT_H
#define PGI_OPS_GEMM_FORMAT_H

#include "base/int64.h"
#include "kernels/kernels.h"

typedef struct pgi_gemm_format {
    int bf16;
    int64_t mr, nr;        /* rows and columns of a tile, */
    int64_t step;          /* whose rows are a multiple of this, but for the last tile */
    int64_t element, pair; /* bytes of a value; values of the summed dimension that lie together in a panel */
    int64_t kc;            /* the summed dimension is cut at multiples of this */
} pgi_gemm_format;

/* Bytes from row to row of an A tile, in both formats. */
enum { PGI_GEMM_A_ROW = PGI_GEMM_LDA * (int)sizeof(float) };
_Static_assert(PGI_GEMM_BF16_LDA * sizeof(uint16_t) == PGI_GEMM_A_ROW, "A tiles of both formats have equal rows");

static inline pgi_gemm_format pgi_gemm_format_of(const pgi_kernels *kernels, int bf16) {
    if (bf16)
        return (pgi_gemm_format){
            1, kernels->gemm_bf16_mr, kernels->gemm_bf16_nr, kernels->gemm_bf16_step, sizeof(uint16_t),
            2, PGI_GEMM_BF16_KC};
    return (pgi_gemm_format){0, kernels->gemm_mr, kernels->gemm_nr, 1, sizeof(float), 1, PGI_GEMM_KC};
}

/* Tiles that cover so many rows, and where tile t of n begins: of nearly equal heights, in steps. */
static inline int64_t pgi_gemm_tiles(const pgi_gemm_format *f, int64_t rows) {
    return pgi_ceil_div64(pgi_ceil_div64(rows, f->step), f->mr / f->step);
}
static inline int64_t pgi_gemm_tile_row(const pgi_gemm_format *f, int64_t rows, int64_t t, int64_t n) {
    return pgi_min64(rows, pgi_ceil_div64(rows, f->step) * t / n * f->step);
}

/* Bytes of a panel of k values of the summed dimension. */
static inline int64_t pgi_gemm_panel_bytes(const pgi_gemm_format *f, int64_t k) {
    return pgi_ceil_div64(k, f->pair) * f->pair * f->nr * f->element;
}

/* Packs up to nr rows of a weight matrix, of PG_DTYPE_F32, _BF16 or _F16, to a panel. */
static inline void pgi_gemm_pack(const pgi_kernels *kernels, const pgi_gemm_format *f, int32_t dtype, const void *w,
                                 int64_t w_bytes, int64_t rows, int64_t k, char *panel) {
    if (f->bf16)
        (dtype == PG_DTYPE_F32    ? kernels->pack_pairs_f32
         : dtype == PG_DTYPE_BF16 ? kernels->pack_pairs_bf16
                                  : kernels->pack_pairs_f16)(w, w_bytes, (int)rows, k, (uint16_t *)panel);
    else
        (dtype == PG_DTYPE_F32    ? kernels->pack_f32
         : dtype == PG_DTYPE_BF16 ? kernels->pack_bf16
                                  : kernels->pack_f16)(w, w_bytes, (int)rows, k, (float *)panel);
}

/* c [m, n] = a [m, k] panel [k, n] + bias, or is added to: the kernels gemm and gemm_bf16. m <= mr, n <= nr. For bf16
 * between gemm_bf16_begin() and gemm_bf16_end(). */
static inline void pgi_gemm_tile(const pgi_kernels *kernels, const pgi_gemm_format *f, int64_t m, int64_t n, int64_t k,
                                 const char *a, const char *panel, float *c, int64_t c_stride, int accumulate,
                                 const float *bias) {
    if (f->bf16)
        kernels->gemm_bf16((int)m, (int)n, k, (const uint16_t *)a, (const uint16_t *)panel, c, c_stride, accumulate,
                           bias);
    else
        kernels->gemm((int)m, (int)n, k, (const float *)a, (const float *)panel, c, c_stride, accumulate, bias);
}

#endif
