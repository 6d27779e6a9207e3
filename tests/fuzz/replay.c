/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Gives files to a fuzz target where there is no libFuzzer: TARGET FILE-OR-FOLDER...
 *
 * Each file of a folder is an input; one that kills the process is named. No input at all is a failure. With FUZZ_SAY
 * in the environment every error message is shown: whether a seed gets as far as it was made for.
 */
#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz.h"

enum { SECONDS = 60 }; /* for one input */

static char now[1024];
static int n_inputs;

static void tell_where(void) { say("\nthe process ends with this input: %s\n", now); }

static void run(const char *folder, const char *name) {
    bytes file = read_file(folder, name);
    uint8_t *exact = fuzz_bytes(file.data, file.size);
    snprintf(now, sizeof now, "%s/%s", folder, name);
    alarm(SECONDS);
    LLVMFuzzerTestOneInput(exact, file.size);
    alarm(0);
    n_inputs++;
    free(exact);
    bytes_free(&file);
}

static int is_input(const struct dirent *entry) { return entry->d_name[0] != '.'; }

int main(int argc, char **argv) {
    on_death(tell_where);
    for (int i = 1; i < argc; i++) {
        struct stat status;
        struct dirent **names = NULL;
        if (stat(argv[i], &status) != 0) {
            perror(argv[i]);
            return 2;
        }
        if (!S_ISDIR(status.st_mode)) {
            char *slash = strrchr(argv[i], '/');
            if (slash) *slash = 0;
            run(slash ? argv[i] : ".", slash ? slash + 1 : argv[i]);
            continue;
        }
        const int n = scandir(argv[i], &names, is_input, alphasort);
        for (int j = 0; j < n; j++) {
            run(argv[i], names[j]->d_name);
            free(names[j]);
        }
        free(names);
    }
    say("%d inputs\n", n_inputs);
    return n_inputs == 0;
}
