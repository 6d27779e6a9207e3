/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The plain C kernels: the meaning of the table, and what runs where nothing faster does. */
#ifndef PGI_KERNELS_REF_REF_H
#define PGI_KERNELS_REF_REF_H

#include "kernels/kernels.h"

/* Each fills the groups of its name (kernels.inc). pgi_kernels_ref() calls them all. */
void pgi_ref_products(pgi_kernels *kernels);
void pgi_ref_bf16(pgi_kernels *kernels);
void pgi_ref_quantized(pgi_kernels *kernels); /* quantized_products, quantized_rows, quantized_tiles */
void pgi_ref_rows(pgi_kernels *kernels);
void pgi_ref_resample(pgi_kernels *kernels);
void pgi_ref_yuv(pgi_kernels *kernels);

#endif
