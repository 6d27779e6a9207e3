/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Ctrl-C, Ctrl-Break and a window that closes. The system calls the handler on a thread of its own: the first one sets
 * the flag that stops the library's calls, the second ends the process at once. After a window has closed, the process
 * ends when the handler returns, or seconds later.
 */
#include <signal.h>
#include <stdlib.h>
#include <windows.h>

#include "tool.h"

static CRITICAL_SECTION lock; /* of the flag: a handler may run while it is closed */
static pg_cancel *interrupt_flag;
static volatile LONG interrupted; /* SIGINT, or 0 */
static int told;                  /* a line says that it was interrupted */

static BOOL WINAPI on_interrupt(DWORD event) {
    if (InterlockedExchange(&interrupted, SIGINT)) return FALSE; /* the system ends the process */
    EnterCriticalSection(&lock);
    pg_cancel_request(interrupt_flag);
    LeaveCriticalSection(&lock);
    if (event != CTRL_C_EVENT && event != CTRL_BREAK_EVENT) Sleep(INFINITE);
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
    InitializeCriticalSection(&lock);
    interrupt_flag = *cancel;
    SetConsoleCtrlHandler(on_interrupt, TRUE);
    return PG_OK;
}

void tool_interrupt_close(pg_cancel **cancel) {
    if (!*cancel) return;
    if (interrupted && !told) fputs("paligemma: interrupted\n", stderr);
    if (interrupted && !ferror(stdout)) fflush(stdout);
    SetConsoleCtrlHandler(on_interrupt, FALSE); /* one that runs is not waited for: the lock stays */
    EnterCriticalSection(&lock);
    interrupt_flag = NULL;
    LeaveCriticalSection(&lock);
    pg_cancel_close(cancel);
    if (interrupted) exit((int)0xC000013A); /* STATUS_CONTROL_C_EXIT: a script sees what ended the program */
}
