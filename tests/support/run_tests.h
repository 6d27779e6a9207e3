/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* How the main function of a cmocka program ends: return RUN_TESTS(tests, setup, teardown). The program then takes one
 * argument, a pattern with * and ?, and runs the tests whose names match it; without one it runs all. This header
 * brings cmocka and what cmocka needs before it, so it comes first. */
#ifndef TESTS_RUN_TESTS_H
#define TESTS_RUN_TESTS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

/* The number of tests that failed. 1, and the names on stderr, when no test matches; 2 for more than one argument. */
int run_matching_tests(int argc, char **argv, const struct CMUnitTest *tests, size_t n, CMFixtureFunction setup,
                       CMFixtureFunction teardown);

#define RUN_TESTS(tests, setup, teardown) \
    run_matching_tests(argc, argv, tests, sizeof tests / sizeof *tests, setup, teardown)

#endif
