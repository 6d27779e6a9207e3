/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Three versions of the library in one process, as when a host and two of its plugins each bring one: this program is
 * linked with the real one, and loads copies that have another soname and another version of the symbols. All answer
 * at once, and the loader's own account (LD_DEBUG=bindings) of a process that did so has no symbol of one that is bound
 * to another.
 *
 *     test_side_by_side OTHER-LIBRARY...
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "loaded_calls.h"
#include "tiny.h"

enum { MOST = 8, N_TOKENS = 6 };

static int n_failures;
static void expect(int ok, const char *what) {
    if (ok) return;
    n_failures++;
    say("FAIL: %s\n", what);
}

typedef struct version {
    loaded_calls calls;
    const char *folder;
    pthread_t thread;
    int64_t ids[N_TOKENS];
    size_t n;
    double gradient_norm; /* of a step of a training */
    char error[300];
} version;

static void linked_calls(loaded_calls *calls) {
#define TAKE(name) calls->name = name;
    LOADED_CALLS(TAKE)
#undef TAKE
}

static void others_calls(loaded_calls *calls, const char *file) {
    load(file, calls);
#define COMPARE(name) expect(calls->name != name, #name " of the library loaded");
    LOADED_CALLS(COMPARE)
#undef COMPARE
}

static double train(const loaded_calls *c, const pg_model *model, const pg_processor *processor,
                    const pg_image *image) {
    static const char *const prompts[] = {"the"}, *const suffixes[] = {"cat"};
    pg_trainer_options options;
    pg_trainer *trainer = NULL;
    pg_inputs *inputs = NULL;
    pg_batch batch;
    pg_train_result result = {.struct_size = sizeof result};
    c->pg_batch_init(&batch, sizeof batch);
    batch.n_prompts = batch.n_suffixes = batch.n_images = 1;
    batch.prompts = prompts, batch.suffixes = suffixes, batch.images = image;
    c->pg_trainer_options_init(&options, sizeof options);
    options.n_threads = 3;
    if (c->pg_processor_encode_batch(processor, &batch, NULL, &inputs) == 0 &&
        c->pg_trainer_create(model, &options, &trainer) == 0)
        c->pg_trainer_step(trainer, inputs, &result);
    c->pg_trainer_close(&trainer);
    c->pg_inputs_close(&inputs);
    return result.gradient_norm;
}

static void *generate(void *user) {
    static const uint8_t grey[16 * 16 * 3];
    version *v = user;
    const loaded_calls *c = &v->calls;
    pg_model *model = NULL;
    pg_processor *processor = NULL;
    pg_inputs *inputs = NULL;
    pg_result *result = NULL;
    pg_image image;
    pg_generate_options options;
    pg_tensor ids = {.struct_size = sizeof ids};
    c->pg_generate_options_init(&options, sizeof options);
    options.n_threads = 3;
    options.max_new_tokens = N_TOKENS;
    c->pg_image_from_pixels(&image, sizeof image, PG_IMAGE_RGB8, 16, 16, grey, 0);
    if (c->pg_model_open(v->folder, NULL, &model) == 0 && c->pg_processor_open(v->folder, NULL, &processor) == 0 &&
        c->pg_processor_encode(processor, &image, "the cat", NULL, &inputs) == 0 &&
        c->pg_generate(model, processor, inputs, &options, &result) == 0 &&
        c->pg_result_get_ids(result, 0, &ids) == 0) {
        v->n = (size_t)ids.shape[0];
        memcpy(v->ids, ids.data, v->n * sizeof *v->ids);
        v->gradient_norm = train(c, model, processor, &image);
    }
    c->pg_result_close(&result);
    c->pg_inputs_close(&inputs);
    c->pg_processor_close(&processor);
    c->pg_model_close(&model);
    /* the text is of this version's own */
    c->pg_model_open("/nonexistent", NULL, &model);
    snprintf(v->error, sizeof v->error, "%s", c->pg_last_error());
    return NULL;
}

static void all_at_once(version *versions, int n, const char *folder) {
    for (int i = 0; i < n; i++) {
        versions[i].folder = folder;
        if (pthread_create(&versions[i].thread, NULL, generate, &versions[i]) != 0) exit(1);
    }
    for (int i = 0; i < n; i++) {
        pthread_join(versions[i].thread, NULL);
        expect(versions[i].n > 0 && versions[i].n == versions[0].n &&
                   memcmp(versions[i].ids, versions[0].ids, versions[0].n * sizeof *versions[0].ids) == 0,
               "the same ids of every version");
        expect(versions[i].gradient_norm > 0 && versions[i].gradient_norm == versions[0].gradient_norm,
               "the same gradients of every version");
        expect(strstr(versions[i].error, "/nonexistent") != NULL, "the error of a missing folder");
    }
}

static int use(int n_others, char **others) {
    char folder[512];
    version versions[MOST] = {0};
    const tiny_options options = tiny_official();
    make_temp_folder(folder, sizeof folder);
    tiny_write(folder, &options);
    linked_calls(&versions[0].calls);
    for (int i = 0; i < n_others; i++) others_calls(&versions[1 + i].calls, others[i]);
    all_at_once(versions, 1 + n_others, folder);
    for (int i = 1; i <= n_others; i++)
        expect(strstr(versions[i].calls.pg_last_error(), "/nonexistent") == NULL, "an error of another thread");
    remove_folder(folder);
    return n_failures > 0;
}

/* The name of the library in the path that `line` has after `before`: "paligemma", "paligemma_other1"; "": another. */
static void library_at(const char *line, const char *before, char *name, size_t size) {
    const char *at = strstr(line, before), *end;
    name[0] = 0;
    if (!at) return;
    at += strlen(before);
    for (const char *c = at; *c && *c != ' '; c++)
        if (*c == '/') at = c + 1;
    end = strstr(at, ".so");
    if (strncmp(at, "libpaligemma", 12) == 0 && end) snprintf(name, size, "%.*s", (int)(end - at), at);
}

/* "binding file A [0] to B [0]: normal symbol `S'": lines of one of ours to itself are counted. */
static int check_bindings(const char *folder, const char *file) {
    int n = 0;
    bytes log = read_file(folder, file);
    char *rest = NULL;
    for (char *line = strtok_r((char *)log.data, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char from[64], to[64];
        library_at(line, "binding file ", from, sizeof from);
        library_at(line, "] to ", to, sizeof to);
        if (!from[0] || !to[0]) continue;
        n++;
        if (strcmp(from, to) == 0) continue;
        n_failures++;
        say("FAIL: %s\n", line);
    }
    bytes_free(&log);
    return n;
}

/* The same once more, told by the loader. */
static void use_watched(char **argv) {
    char folder[512], prefix[600], file[64];
    int how;
    make_temp_folder(folder, sizeof folder);
    snprintf(prefix, sizeof prefix, "%s/bindings", folder);
    const pid_t child = fork();
    if (child == 0) {
        setenv("LD_DEBUG", "bindings", 1);
        setenv("LD_DEBUG_OUTPUT", prefix, 1);
        setenv("TEST_SIDE_BY_SIDE_WATCHED", "1", 1);
        execv("/proc/self/exe", argv);
        _exit(1);
    }
    expect(waitpid(child, &how, 0) == child && how == 0, "the process that is watched");
    snprintf(file, sizeof file, "bindings.%d", (int)child);
    if (has_file(folder, file)) {
        const int n = check_bindings(folder, file);
        say("%d symbols of the libraries are bound to themselves\n", n);
    } else {
        say("the loader keeps no account (LD_DEBUG): not checked\n");
    }
    remove_folder(folder);
}

int main(int argc, char **argv) {
    if (argc < 2 || argc > MOST) return 2;
    const int failed = use(argc - 1, argv + 1);
    if (getenv("TEST_SIDE_BY_SIDE_WATCHED")) return failed;
    use_watched(argv);
    say("%d failures\n", n_failures);
    return n_failures > 0;
}
