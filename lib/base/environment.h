/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The floating-point environment: rounding, flushing of denormals, traps, sticky flags. Every thread computes in the
 * default one (to nearest, no flushing, no traps), whatever the host has: a call changes over where it enters the
 * library and back where it leaves it, and the host's callbacks run in the host's own.
 */
#ifndef PGI_BASE_ENVIRONMENT_H
#define PGI_BASE_ENVIRONMENT_H

#include <fenv.h>
#include <stdint.h>

typedef struct pgi_environment {
#if defined(__x86_64__)
    uint32_t mxcsr;
    uint16_t control, status; /* of the x87 unit: strtod(), printf() and long double look at it */
#else
    fenv_t all;
#endif
} pgi_environment;

/* *host gets the thread's environment; then the default one is set. */
void pgi_environment_enter(pgi_environment *host);
void pgi_environment_restore(const pgi_environment *host);

/* A call of the host that is under way on a thread. */
typedef struct pgi_border {
    pgi_environment host;
} pgi_border;

void pgi_border_enter(pgi_border *border);
void pgi_border_leave(pgi_border *border);

/* The first line of every public function that returns a pg_status: the environment is the default one from here to
 * whichever return. tests/abi/check.py looks for it. */
#define PGI_ENTER                                                              \
    pgi_border pgi_border_ __attribute__((cleanup(pgi_border_leave), unused)); \
    pgi_border_enter(&pgi_border_)

/* Around a call of the host's function: it sees the host's environment, and what it changes there stays. In between it
 * may call the library. The border is NULL on a thread that is in no call: nothing happens then. */
pgi_border *pgi_callback_begin(void);
void pgi_callback_end(pgi_border *border);

#endif
