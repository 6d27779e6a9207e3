/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Prefetches the part of W that comes next: a few cache lines at each step through the part in use. */
#ifndef PGI_KERNELS_PREFETCH_H
#define PGI_KERNELS_PREFETCH_H

#include <stdint.h>

enum { PGI_PREFETCH_LINE = 64 }; /* bytes loaded by one prefetch */

typedef struct pgi_prefetch {
    const char *at; /* of the row under way */
    int64_t row_bytes, w_bytes, rows, offset, lines_per_step;
} pgi_prefetch;

/* `rows` rows of `row_bytes` bytes, `w_bytes` apart. */
static inline pgi_prefetch pgi_prefetch_start(const char *w, int64_t w_bytes, int64_t rows, int64_t row_bytes,
                                              int64_t n_steps) {
    int64_t lines = rows * ((row_bytes + PGI_PREFETCH_LINE - 1) / PGI_PREFETCH_LINE);
    return (pgi_prefetch){w, row_bytes, w_bytes, rows, 0, (lines + n_steps - 1) / n_steps};
}

static inline void pgi_prefetch_step(pgi_prefetch *f) {
    for (int64_t i = 0; i < f->lines_per_step && f->rows > 0; i++) {
        __builtin_prefetch(f->at + f->offset, 0, 2);
        f->offset += PGI_PREFETCH_LINE;
        if (f->offset >= f->row_bytes) f->offset = 0, f->at += f->w_bytes, f->rows--;
    }
}

#endif
