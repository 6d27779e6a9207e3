/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Ctrl-C of the tool, at the moments that no test of the program can choose: a signal that comes just before a call of
 * the system that waits, and one signal after another. Each case is a child, which must end within seconds. */
#include "run_tests.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tool.h"

enum { AS_IT_SHOULD = 100 /* the exit status of a child that saw what it should */ };

/* The wait status of a child that does this. One that does not end in 20 s is killed, which is told apart. */
static int child(void (*what)(pg_cancel *cancel)) {
    const pid_t pid = fork();
    int status = 0;
    assert_true(pid >= 0);
    if (pid == 0) {
        pg_cancel *cancel = NULL;
        signal(SIGINT, SIG_DFL); /* a shell that runs the tests in the background has it ignored */
        signal(SIGTERM, SIG_DFL);
        signal(SIGHUP, SIG_DFL);
        if (tool_interrupt_open(&cancel) < 0) _exit(1);
        what(cancel);
        _exit(2);
    }
    for (int i = 0; i < 2000; i++) {
        const pid_t ended = waitpid(pid, &status, WNOHANG);
        if (ended == pid) return status;
        usleep(10000);
    }
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    return status;
}

static void read_afterwards(pg_cancel *cancel) {
    int ends[2];
    char byte;
    (void)cancel;
    if (pipe(ends) != 0) _exit(3);
    raise(SIGINT);
    _exit(read(ends[0], &byte, 1) < 0 && errno == EINTR && tool_interrupted() == SIGINT ? AS_IT_SHOULD : 4);
}

static void write_afterwards(pg_cancel *cancel) {
    int ends[2];
    (void)cancel;
    if (pipe(ends) != 0) _exit(3);
    fcntl(ends[1], F_SETFL, O_NONBLOCK);
    while (write(ends[1], "x", 1) == 1) {
    }
    fcntl(ends[1], F_SETFL, 0);
    raise(SIGTERM);
    for (int i = 0; i < 2; i++) /* and again: what failed is often tried once more at the end */
        if (write(ends[1], "x", 1) >= 0 || errno != EINTR) _exit(4);
    _exit(AS_IT_SHOULD);
}

static void again(pg_cancel *cancel) {
    raise(SIGINT);
    if (!tool_interrupt_again(cancel) || tool_interrupted() || tool_interrupt_again(cancel)) _exit(3);
    if (alarm(0) != 0) _exit(4); /* nothing wakes calls any more */
    raise(SIGINT);
    if (tool_interrupted() != SIGINT) _exit(5);
    _exit(AS_IT_SHOULD);
}

static void not_again_after_another(pg_cancel *cancel) {
    raise(SIGINT);
    raise(SIGHUP);
    _exit(!tool_interrupt_again(cancel) && tool_interrupted() == SIGHUP ? AS_IT_SHOULD : 3);
}

static void twice(pg_cancel *cancel) {
    (void)cancel;
    raise(SIGINT);
    raise(SIGINT);
}

static void one_and_another(pg_cancel *cancel) {
    (void)cancel;
    raise(SIGTERM);
    raise(SIGINT);
}

static void hang_up_twice(pg_cancel *cancel) {
    raise(SIGHUP);
    raise(SIGHUP);
    tool_interrupt_told();
    tool_interrupt_close(&cancel);
}

static void a_signal_before_a_call_that_waits_ends_it(void **state) {
    (void)state;
    assert_int_equal(WEXITSTATUS(child(read_afterwards)), AS_IT_SHOULD);
    assert_int_equal(WEXITSTATUS(child(write_afterwards)), AS_IT_SHOULD);
}

static void ctrl_c_may_be_taken_back(void **state) {
    (void)state;
    assert_int_equal(WEXITSTATUS(child(again)), AS_IT_SHOULD);
    assert_int_equal(WEXITSTATUS(child(not_again_after_another)), AS_IT_SHOULD);
}

static void the_second_one_ends_at_once(void **state) {
    (void)state;
    assert_int_equal(WTERMSIG(child(twice)), SIGINT);
    assert_int_equal(WTERMSIG(child(one_and_another)), SIGINT);
    assert_int_equal(WTERMSIG(child(hang_up_twice)), SIGHUP); /* after it cleaned up */
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_signal_before_a_call_that_waits_ends_it),
        cmocka_unit_test(ctrl_c_may_be_taken_back),
        cmocka_unit_test(the_second_one_ends_at_once),
    };
    return RUN_TESTS(tests, NULL, NULL);
}
