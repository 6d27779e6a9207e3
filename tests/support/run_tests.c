/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Runs the tests of a cmocka program whose names match its argument. cmocka's own filter runs none, and says that all
 * is well, when nothing matches. Those that TEST_LEAVE_OUT names, with spaces between, are left out, and said to be. */
#include "run_tests.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "left_out.h"

int run_matching_tests(int argc, char **argv, const struct CMUnitTest *tests, size_t n, CMFixtureFunction setup,
                       CMFixtureFunction teardown) {
    const char *pattern = argc > 1 ? argv[1] : "*";
    const char *slash = strrchr(argv[0], '/');
    if (argc > 2) {
        fprintf(stderr, "usage: %s [PATTERN]\n", argv[0]);
        return 2;
    }
    struct CMUnitTest *chosen = calloc(n, sizeof *chosen);
    size_t n_chosen = 0;
    if (!chosen) return 1;
    size_t n_left_out = 0;
    for (size_t i = 0; i < n; i++) {
        if (fnmatch(pattern, tests[i].name, 0) != 0) continue;
        if (is_left_out(tests[i].name))
            printf("left out: %s\n", tests[i].name), n_left_out++;
        else
            chosen[n_chosen++] = tests[i];
    }
    int failed = 1;
    if (n_chosen > 0) {
        failed = _cmocka_run_group_tests(slash ? slash + 1 : argv[0], chosen, n_chosen, setup, teardown);
    } else if (n_left_out > 0) {
        failed = 0;
    } else {
        fprintf(stderr, "%s: no test matches \"%s\"; there are:\n", argv[0], pattern);
        for (size_t i = 0; i < n; i++) fprintf(stderr, "  %s\n", tests[i].name);
    }
    free(chosen);
    return failed;
}
