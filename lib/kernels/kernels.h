/*
 * The table of kernels: plain C first, instruction sets overriding in rising
 * order, one table per model (never a global), so that a test can hold several.
 */
#ifndef PGI_KERNELS_KERNELS_H
#define PGI_KERNELS_KERNELS_H

#include "base/run.h"
#include "kernels/matrix.h"

/* The PG_CPU_* bits this CPU and its operating system support (CPUID and XCR0). */
uint64_t pgi_cpu_features(void);

typedef struct pgi_kernels pgi_kernels;

/* Fills the table with the fastest kernels allowed by `cpu_mask` (0: all of this
 * CPU's). PG_ERROR_ARGUMENT when the mask leaves nothing. */
pg_status pgi_kernels_init(pgi_kernels *kernels, uint64_t cpu_mask);

/* The members are defined by the owner of lib/kernels. */
struct pgi_kernels {
    uint64_t cpu; /* PG_CPU_* bits in use */
};

#endif
