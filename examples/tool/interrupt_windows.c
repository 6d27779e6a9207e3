/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Ctrl-C, Ctrl-Break and a window that closes. The system calls the handler on a thread of its own: the first one sets
 * the flag that stops the library's calls, the second ends the process at once.
 */
#include <signal.h>
#include <windows.h>

#include "tool.h"

static pg_cancel *volatile interrupt_flag;
static volatile LONG interrupted; /* SIGINT, or 0 */
static int told;                  /* a line says that it was interrupted */

static BOOL WINAPI on_interrupt(DWORD event) {
    (void)event;
    if (InterlockedExchange(&interrupted, SIGINT)) return FALSE; /* the system ends the process */
    pg_cancel_request(interrupt_flag);
    return TRUE;
}

int tool_interrupted(void) { return (int)interrupted; }

void tool_interrupt_told(void) { told = 1; }

int tool_interrupt_again(pg_cancel *cancel) {
    if (!interrupted) return 0;
    told = 0;
    pg_cancel_clear(cancel);
    InterlockedExchange(&interrupted, 0);
    return 1;
}

pg_status tool_interrupt_open(pg_cancel **cancel) {
    const pg_status status = pg_cancel_create(cancel);
    if (status < 0) return status;
    interrupt_flag = *cancel;
    SetConsoleCtrlHandler(on_interrupt, TRUE);
    return PG_OK;
}

void tool_interrupt_close(pg_cancel **cancel) {
    if (!*cancel) return;
    if (interrupted && !told) fputs("paligemma: interrupted\n", stderr);
    if (interrupted && !ferror(stdout)) fflush(stdout);
    SetConsoleCtrlHandler(on_interrupt, FALSE);
    interrupt_flag = NULL;
    pg_cancel_close(cancel);
    if (interrupted) ExitProcess(0xC000013A); /* STATUS_CONTROL_C_EXIT: a script sees what ended the program */
}
