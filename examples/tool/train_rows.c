/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Lines of a training's data become inputs; which of them are learned, and which are kept to look how well. */
#include "train_rows.h"

#include <stdlib.h>
#include <string.h>

/* ---- inputs ---- */

typedef struct examples {
    tool_train_example *list; /* [n] */
    const char **prompts, **suffixes;
    pg_image *images;
    size_t n;
} examples;

static void free_examples(examples *e) {
    for (size_t i = 0; e->list && i < e->n; i++) tool_train_example_free(&e->list[i]);
    free(e->list);
    free(e->prompts);
    free(e->suffixes);
    free(e->images);
}

static int read_examples(tool_train_data *data, const size_t *rows, examples *e) {
    e->list = calloc(e->n, sizeof *e->list);
    e->prompts = calloc(e->n, sizeof *e->prompts);
    e->suffixes = calloc(e->n, sizeof *e->suffixes);
    e->images = calloc(e->n, sizeof *e->images);
    if (!e->list || !e->prompts || !e->suffixes || !e->images) return tool_fail_text("no memory for a batch");
    for (size_t i = 0; i < e->n; i++) {
        if (tool_train_data_read(data, &data->rows[rows[i]], &e->list[i]) != TOOL_OK) return TOOL_FAILED;
        e->prompts[i] = e->list[i].prefix;
        e->suffixes[i] = e->list[i].suffix;
        pg_image_from_path(&e->images[i], sizeof e->images[i], e->list[i].image);
    }
    return TOOL_OK;
}

static pg_status encode(const tool_train_encoder *encoder, const examples *e, pg_inputs **out) {
    pg_batch batch;
    pg_encode_options options;
    pg_batch_init(&batch, sizeof batch);
    pg_encode_options_init(&options, sizeof options);
    options.flags = encoder->flags;
    options.cancel = encoder->cancel;
    batch.n_prompts = batch.n_suffixes = batch.n_images = (int32_t)e->n;
    batch.prompts = e->prompts;
    batch.suffixes = e->suffixes;
    batch.images = e->images;
    return pg_processor_encode_batch(encoder->processor, &batch, &options, out);
}

/* What the library says of a row, in the tool's words and without "row 3: "; malloc'ed. */
static char *last_error(void) {
    const char *text = pg_last_error();
    if (strncmp(text, "row ", 4) == 0 && strstr(text, ": ")) text = strstr(text, ": ") + 2;
    char *named = tool_with_names(text);
    return named ? named : strdup(text);
}

pg_status tool_train_encode(const tool_train_encoder *encoder, tool_train_data *data, const size_t *rows, size_t n,
                            pg_inputs **out) {
    examples e = {.n = n};
    pg_status status = read_examples(data, rows, &e) == TOOL_OK ? encode(encoder, &e, out) : TOOL_TOLD;
    if (status < 0 && status != TOOL_TOLD && status != PG_ERROR_CANCELLED) {
        const int64_t row = pg_last_error_row();
        char *why = last_error();
        tool_fail_text("%s, line %llu: %s", data->name,
                       (unsigned long long)data->rows[rows[row >= 0 && row < (int64_t)n ? row : 0]].line,
                       why ? why : "no memory");
        free(why);
        status = TOOL_TOLD;
    }
    free_examples(&e);
    return status;
}

/* One row, whose inputs are not needed. *why: of a bad one; malloc'ed. */
static pg_status try_row(const tool_train_encoder *encoder, tool_train_data *data, size_t row, char **why) {
    examples e = {.n = 1};
    pg_inputs *inputs = NULL;
    *why = NULL;
    pg_status status = read_examples(data, &row, &e) == TOOL_OK ? encode(encoder, &e, &inputs) : TOOL_TOLD;
    if (status < 0 && status != TOOL_TOLD && status != PG_ERROR_CANCELLED) {
        *why = last_error();
        status = PG_OK;
    }
    pg_inputs_close(&inputs);
    free_examples(&e);
    return status;
}

pg_status tool_train_check(const tool_train_encoder *encoder, tool_train_data *data, tool_progress *progress) {
    size_t n = 0;
    pg_status status = PG_OK;
    tool_progress_begin(progress, "rows read", 0, data->n);
    for (size_t i = 0; i < data->n && status >= 0; i++) {
        char *why;
        status = try_row(encoder, data, i, &why);
        if (why) {
            tool_progress_clear(progress);
            if (tool_train_data_bad(data, data->rows[i].line, why) != TOOL_OK) status = TOOL_TOLD;
        } else {
            data->rows[n++] = data->rows[i];
        }
        tool_progress_images(progress, i + 1, data->n, data->n_bad);
    }
    progress->n_images = 0;
    tool_progress_clear(progress);
    if (status < 0) return status;
    data->n = n;
    if (data->n_bad > 0)
        tool_warn("%s: %zu bad line%s left out, %zu stay", data->name, data->n_bad, data->n_bad == 1 ? " is" : "s are",
                  n);
    if (n == 0) tool_fail_text("%s: found no line that can be learned", data->name);
    return n == 0 ? (pg_status)TOOL_TOLD : PG_OK;
}

/* ---- sets ---- */

int tool_train_take_all(tool_train_data *data, tool_train_set *out) {
    *out = (tool_train_set){data, malloc(data->n * sizeof *out->rows), data->n};
    if (!out->rows) return tool_fail_text("%s: no memory for its lines", data->name);
    for (size_t i = 0; i < data->n; i++) out->rows[i] = i;
    return TOOL_OK;
}

static int by_place(const void *a, const void *b) {
    const size_t x = *(const size_t *)a, y = *(const size_t *)b;
    return (x > y) - (x < y);
}

int tool_train_deal(tool_train_data *data, double part, uint64_t seed, tool_train_set *training,
                    tool_train_set *validation) {
    if (part <= 0) return tool_train_take_all(data, training);
    if (data->n < 2) return tool_fail_text("%s: found one line, expected two at least to split", data->name);
    size_t n = (size_t)((double)data->n * part + .5);
    if (n < 1) n = 1;
    if (n > data->n - 1) n = data->n - 1;
    *training = (tool_train_set){data, malloc(data->n * sizeof(size_t)), data->n - n};
    *validation = (tool_train_set){data, malloc(n * sizeof(size_t)), n};
    if (!training->rows || !validation->rows) return tool_fail_text("%s: no memory for its lines", data->name);
    tool_train_shuffle(training->rows, data->n, seed, UINT64_MAX); /* no epoch has this number */
    memcpy(validation->rows, training->rows + training->n, n * sizeof(size_t));
    qsort(training->rows, training->n, sizeof(size_t), by_place);
    qsort(validation->rows, validation->n, sizeof(size_t), by_place);
    return TOOL_OK;
}
