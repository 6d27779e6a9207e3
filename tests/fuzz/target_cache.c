/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The local Hugging Face cache: a byte says how long the model's id is, then come the id and what refs/main holds; with
 * bit 7 the value of an environment variable instead. A path that is found lies in the cache, or is the folder that was
 * asked for.
 */
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz.h"

static char cache[512], repo[600], refs[700], snapshots[700], snapshot[800];

static void remove_cache(void) {
    remove_folder(refs);
    rmdir(snapshot);
    rmdir(snapshots);
    rmdir(repo);
    rmdir(cache);
}

static void make_cache(void) {
    make_temp_folder(cache, sizeof cache);
    snprintf(repo, sizeof repo, "%s/models--org--name", cache);
    snprintf(refs, sizeof refs, "%s/refs", repo);
    snprintf(snapshots, sizeof snapshots, "%s/snapshots", repo);
    snprintf(snapshot, sizeof snapshot, "%s/0a1b", snapshots);
    if (mkdir(repo, 0700) || mkdir(refs, 0700) || mkdir(snapshots, 0700) || mkdir(snapshot, 0700)) abort();
    atexit(remove_cache);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_input in = {data, size};
    char path[1024];
    size_t needed = 0;
    struct stat status;
    if (!cache[0]) make_cache();
    const int how = (int)fuzz_take(&in, 1);
    size_t n = (size_t)how & 127;
    if (n > in.size) n = in.size;
    char *id = fuzz_text(in.data, n);
    if (how & 128) {
        char *value = fuzz_text(in.data + n, in.size - n);
        setenv("HF_HUB_CACHE", value, 1);
        OK(pg_checkpoint_find(id, NULL, path, sizeof path, &needed));
        free(value);
        free(id);
        return 0;
    }
    write_file(refs, "main", in.data + n, in.size - n);
    if (OK(pg_checkpoint_find(id, cache, path, sizeof path, &needed)) && needed <= sizeof path) {
        if (strlen(path) + 1 != needed || stat(path, &status) != 0) abort();
        if (strcmp(path, id) != 0 && strcmp(path, snapshot) != 0) abort();
    }
    free(id);
    return 0;
}
