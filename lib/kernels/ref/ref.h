/* The plain C kernels: the meaning of the table, and what runs where nothing faster does. */
#ifndef PGI_KERNELS_REF_REF_H
#define PGI_KERNELS_REF_REF_H

#include "kernels/kernels.h"

void pgi_ref_products(pgi_kernels *kernels);  /* expand, pack, gemm, gemv, weighted_sum */
void pgi_ref_bf16(pgi_kernels *kernels);      /* round_bf16, pack_pairs, pair_rows, gemm_bf16 */
void pgi_ref_quantized(pgi_kernels *kernels); /* those of quantized weights */
void pgi_ref_resample(pgi_kernels *kernels);  /* the passes of a resize */
void pgi_ref_rows(pgi_kernels *kernels);      /* the rest */

#endif
