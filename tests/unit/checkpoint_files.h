/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What test_config.c and test_checkpoint.c share: a temporary folder, files in it, config.json of a tiny model, and
 * asserting what an error message names. run_tests.h comes before it. */
#ifndef TESTS_UNIT_CHECKPOINT_FILES_H
#define TESTS_UNIT_CHECKPOINT_FILES_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "temp_template.h"

#define MEMORY (&pgi_memory_default)
#define COUNT(array) (sizeof(array) / sizeof *(array))

static char folder[256]; /* the test's own, made and removed around it */

static inline int make_folder(void **state) {
    (void)state;
    temp_template(folder, sizeof folder, "checkpoint");
    return mkdtemp(folder) ? 0 : -1;
}

static inline int remove_entry(const char *path, const struct stat *info, int type, struct FTW *at) {
    (void)info, (void)type, (void)at;
    return remove(path);
}

static inline int remove_folder(void **state) {
    (void)state;
    return nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static inline const char *in_folder(const char *name) {
    static char path[4][512];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
    return path[turn];
}

static inline void write_bytes(const char *name, const void *data, size_t size) {
    FILE *file = fopen(in_folder(name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static inline void write_text(const char *name, const char *text) { write_bytes(name, text, strlen(text)); }

static inline void delete_file(const char *name) { unlink(in_folder(name)); }

static inline void assert_message(const char *part) {
    if (!strstr(pgi_error_text(), part)) fail_msg("message \"%s\" lacks \"%s\"", pgi_error_text(), part);
}

/* The status, and that the message names both parts (either may be NULL). */
static inline void assert_error(pg_status found, pg_status expected, const char *first, const char *second) {
    if (found != expected)
        fail_msg("found %s (%s), expected %s", pg_status_name(found), found < 0 ? pgi_error_text() : "",
                 pg_status_name(expected));
    if (first) assert_message(first);
    if (second) assert_message(second);
}

/* Vision: 2 x 16, 2 heads, MLP 20, 28 px / 14. Text: 2 x 24, 4 heads of 6, 2 KV heads, MLP 40, vocabulary 50. */
enum { VH = 16, VI = 20, PATCHES = 4, TH = 24, TI = 40, HEADS = 4, KV = 2, HD = 6, VOCAB = 50, LAYERS = 2 };

static inline void write_config(int gemma_version, const char *text_extra, const char *top_extra) {
    char text[2048];
    snprintf(text, sizeof text,
             "{\"model_type\":\"paligemma\",\"image_token_index\":%d,\"projection_dim\":%d,%s\"text_config\":{\"model_"
             "type\":"
             "\"%s\",%s\"hidden_size\":%d,\"intermediate_size\":%d,\"num_hidden_layers\":%d,\"num_attention_heads\":%d,"
             "\"num_key_value_heads\":%d,\"head_dim\":%d,\"vocab_size\":%d},\"vision_config\":{\"hidden_size\":%d,"
             "\"intermediate_size\":%d,\"num_hidden_layers\":%d,\"num_attention_heads\":2,\"image_size\":28,"
             "\"patch_size\":14,\"vision_use_head\":false}}",
             VOCAB - 1, TH, top_extra, gemma_version == 2 ? "gemma2" : "gemma", text_extra, TH, TI, LAYERS, HEADS, KV,
             HD, VOCAB, VH, VI, LAYERS);
    write_text("config.json", text);
}

#endif
