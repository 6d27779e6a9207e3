/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * A mark of the process that set it: fork() copies memory, but not threads, so what owns threads must know whether it
 * is where they are. The process's number alone does not tell: a child in a PID namespace of its own may have that of
 * its parent. Where the kernel can (Linux 4.14) it wipes the mark in every child.
 */
#ifndef PGI_BASE_PROCESS_MARK_H
#define PGI_BASE_PROCESS_MARK_H

#include <stdatomic.h>
#include <sys/types.h>

/* All zeros before it is set. */
typedef struct pgi_process_mark {
    pid_t owner;      /* the process that set it; 0: none did */
    atomic_int *page; /* 1 in that process and 0 in its children; NULL: there is none, and the number has to do */
} pgi_process_mark;

/* Again too, in a child. Cannot fail. */
void pgi_process_mark_set(pgi_process_mark *mark);
/* Whether it was set in this process. */
int pgi_process_mark_is_here(const pgi_process_mark *mark);
/* Gives the page back, and is unset then. */
void pgi_process_mark_free(pgi_process_mark *mark);

#endif
