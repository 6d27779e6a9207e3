/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Changing the floating-point environment at the border between host and library. */
#include "base/environment.h"

#include <stddef.h>

/* Sees no inlining: a compiler does not know that arithmetic depends on what is set here. */
#define OPAQUE __attribute__((noinline))

#if defined(__x86_64__)
/* By hand, as fegetenv() and fesetenv() take 20 times as long: they store the whole x87 unit. */
enum { MXCSR = 0x1F80, CONTROL = 0x37F };
enum {
    FLAGS = 0x3F,
    PENDING = 0x80
}; /* of the x87 status: sticky flags; one of them is unmasked, the next x87 instruction traps */

static uint16_t x87_status(void) {
    uint16_t status;
    __asm__ volatile("fnstsw %0" : "=a"(status));
    return status;
}

OPAQUE void pgi_environment_enter(pgi_environment *host) {
    const uint32_t mxcsr = MXCSR;
    const uint16_t control = CONTROL;
    __asm__ volatile("stmxcsr %0" : "=m"(host->mxcsr) : : "memory");
    __asm__ volatile("fnstcw %0" : "=m"(host->control) : : "memory");
    host->status = x87_status();
    __asm__ volatile("ldmxcsr %0" : : "m"(mxcsr) : "memory");
    if (host->status & PENDING) __asm__ volatile("fnclex" : : : "memory"); /* fldcw would trap here */
    __asm__ volatile("fldcw %0" : : "m"(control) : "memory");
}

OPAQUE void pgi_environment_restore(const pgi_environment *host) {
    if ((x87_status() ^ host->status) & FLAGS) { /* long double was used, or enter() cleared them */
        struct {
            uint16_t control, unused1, status, unused2, rest[10];
        } unit;
        __asm__ volatile("fnstenv %0" : "=m"(unit) : : "memory");
        unit.control = host->control;
        unit.status = (uint16_t)((unit.status & ~FLAGS) | (host->status & FLAGS));
        __asm__ volatile("fldenv %0" : : "m"(unit) : "memory");
    } else {
        __asm__ volatile("fldcw %0" : : "m"(host->control) : "memory");
    }
    __asm__ volatile("ldmxcsr %0" : : "m"(host->mxcsr) : "memory");
}
#else
OPAQUE void pgi_environment_enter(pgi_environment *host) {
    fegetenv(&host->all);
    fesetenv(FE_DFL_ENV);
}

OPAQUE void pgi_environment_restore(const pgi_environment *host) { fesetenv(&host->all); }
#endif

/* The call that is under way on this thread; NULL: the host's code runs. */
static _Thread_local pgi_border *current;

/* The host's code called, so there is no current border to put back: a callback has taken it away. */
void pgi_border_enter(pgi_border *border) {
    pgi_environment_enter(&border->host);
    current = border;
}

void pgi_border_leave(pgi_border *border) {
    current = NULL;
    pgi_environment_restore(&border->host);
}

pgi_border *pgi_callback_begin(void) {
    pgi_border *border = current;
    if (!border) return NULL;
    current = NULL;
    pgi_environment_restore(&border->host);
    return border;
}

void pgi_callback_end(pgi_border *border) {
    if (!border) return;
    pgi_environment_enter(&border->host);
    current = border;
}
