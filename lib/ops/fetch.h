/* A part of W that will be packed next, brought near in as many steps as there are tiles to multiply before. */
#ifndef PGI_OPS_FETCH_H
#define PGI_OPS_FETCH_H

#include <stdint.h>

enum { PGI_FETCH_LINE = 64 }; /* bytes fetched by one prefetch */

typedef struct pgi_fetch {
    const char *at; /* of the row under way */
    int64_t row_bytes, w_bytes, rows, offset, lines_per_step;
} pgi_fetch;

/* `rows` rows of `row_bytes` bytes, `w_bytes` apart. */
static inline pgi_fetch pgi_fetch_start(const char *w, int64_t w_bytes, int64_t rows, int64_t row_bytes,
                                        int64_t n_steps) {
    int64_t lines = rows * ((row_bytes + PGI_FETCH_LINE - 1) / PGI_FETCH_LINE);
    return (pgi_fetch){w, row_bytes, w_bytes, rows, 0, (lines + n_steps - 1) / n_steps};
}

static inline void pgi_fetch_step(pgi_fetch *f) {
    for (int64_t i = 0; i < f->lines_per_step && f->rows > 0; i++) {
        __builtin_prefetch(f->at + f->offset, 0, 2);
        f->offset += PGI_FETCH_LINE;
        if (f->offset >= f->row_bytes) f->offset = 0, f->at += f->w_bytes, f->rows--;
    }
}

#endif
