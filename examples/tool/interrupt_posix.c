/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Ctrl-C, SIGTERM and SIGHUP. The first one sets a flag that stops the library's calls, and from then on no call of the
 * system waits for ever: an alarm comes each second, and what it finds waiting, such as a write to a pipe that nobody
 * reads, fails with EINTR. That also holds for a signal that comes just before such a call. The second Ctrl-C or
 * SIGTERM ends the process at once.
 */
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "tool.h"

enum { N_SIGNALS = 3, ALARM_SECONDS = 1 };

static const int signals[N_SIGNALS] = {SIGINT, SIGTERM, SIGHUP};
static int caught[N_SIGNALS]; /* not those that were ignored when the process started */

static pg_cancel *interrupt_flag; /* set before the handlers are installed, NULL only after they are gone */
static int told;                  /* a line says that it was interrupted */

static volatile sig_atomic_t interrupted; /* the signal that came last, or 0 */

/* A terminal that closes may send SIGHUP twice, by the system and by the shell: the second one changes nothing. */
static int ends_at_once(int number) { return number != SIGHUP; }

static void on_interrupt(int number) {
    interrupted = number;
    pg_cancel_request(interrupt_flag); /* one atomic store */
    for (size_t i = 0; i < N_SIGNALS; i++)
        if (caught[i] && ends_at_once(signals[i])) signal(signals[i], SIG_DFL);
    alarm(ALARM_SECONDS);
}

static void on_alarm(int number) {
    (void)number;
    alarm(ALARM_SECONDS);
}

static void handle(int number, void (*handler)(int)) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler; /* without SA_RESTART: calls that wait return */
    sigaction(number, &action, NULL);
}

static void catch_signals(void) {
    for (size_t i = 0; i < N_SIGNALS; i++)
        if (caught[i]) handle(signals[i], on_interrupt);
}

int tool_interrupted(void) { return interrupted; }

void tool_interrupt_told(void) { told = 1; }

int tool_interrupt_again(pg_cancel *cancel) {
    sigset_t ours, before;
    sigemptyset(&ours);
    for (size_t i = 0; i < N_SIGNALS; i++) sigaddset(&ours, signals[i]);
    sigprocmask(SIG_BLOCK, &ours, &before); /* one that comes meanwhile is the next one */
    const int is_ours = interrupted == SIGINT;
    if (is_ours) {
        alarm(0);
        interrupted = 0;
        told = 0;
        pg_cancel_clear(cancel);
        catch_signals();
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
    return is_ours;
}

pg_status tool_interrupt_open(pg_cancel **cancel) {
    pg_status status = pg_cancel_create(cancel);
    if (status < 0) return status;
    interrupt_flag = *cancel;
    for (size_t i = 0; i < N_SIGNALS; i++) {
        struct sigaction old;
        caught[i] = sigaction(signals[i], NULL, &old) != 0 || old.sa_handler != SIG_IGN; /* nohup, a shell's "&" */
    }
    handle(SIGALRM, on_alarm);
    catch_signals();
    return PG_OK;
}

void tool_interrupt_close(pg_cancel **cancel) {
    if (!*cancel) return;
    if (interrupted && !told) fputs("paligemma: interrupted\n", stderr);
    if (interrupted && !ferror(stdout)) fflush(stdout); /* here it cannot wait for ever */
    for (size_t i = 0; i < N_SIGNALS; i++)
        if (caught[i]) signal(signals[i], SIG_DFL);
    alarm(0);
    interrupt_flag = NULL;
    pg_cancel_close(cancel);
    if (interrupted) raise(interrupted); /* a shell sees that the program died of it, and ends its loop */
}
