/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * stages [options] MODEL IMAGE PROMPT OUT.safetensors
 *
 * Runs an image and a prompt through the library and writes every stage that
 * its observer sees (lib/base/run.h), f32 [rows, columns] named "stage" or
 * "stage.layer", with ids, prompt_ids (I64) and text (U8), for compare.py.
 * The image is turned as its EXIF orientation says, as load_image does.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "generate/session.h"
#include "stage_name.h"

typedef struct stored {
    char name[64];
    const char *dtype;
    int64_t shape[2];
    int n_dims;
    void *data;
    size_t size;
} stored;

typedef struct collection {
    stored *items;
    size_t n, capacity;
    int failed; /* out of memory */
} collection;

static void keep(collection *all, const char *name, const char *dtype, const int64_t *shape, int n_dims,
                 const void *data, size_t size) {
    if (all->n == all->capacity) {
        size_t capacity = 2 * all->capacity + 64;
        stored *grown = realloc(all->items, capacity * sizeof *grown);
        if (!grown) {
            all->failed = 1;
            return;
        }
        all->items = grown;
        all->capacity = capacity;
    }
    stored *item = &all->items[all->n];
    memset(item, 0, sizeof *item);
    snprintf(item->name, sizeof item->name, "%s", name);
    item->dtype = dtype;
    for (int i = 0; i < n_dims; i++) item->shape[i] = shape[i];
    item->n_dims = n_dims;
    item->size = size;
    item->data = malloc(size ? size : 1);
    if (!item->data) {
        all->failed = 1;
        return;
    }
    if (size) memcpy(item->data, data, size);
    all->n++;
}

static void on_stage(void *user, const char *name, int layer, const float *data, int64_t rows, int64_t columns) {
    char full[64];
    stage_name(full, sizeof full, name, layer);
    keep(user, full, "F32", (int64_t[]){rows, columns}, 2, data, (size_t)(rows * columns) * sizeof *data);
}

static int write_file(const char *path, const collection *all) {
    FILE *file = fopen(path, "wb");
    if (!file) return 0;
    size_t offset = 0, length = 0, capacity = 256 + 256 * all->n;
    char *header = malloc(capacity);
    int sound = header != NULL;
    if (sound) length = (size_t)snprintf(header, capacity, "{");
    for (size_t i = 0; sound && i < all->n; i++) {
        const stored *item = &all->items[i];
        length += (size_t)snprintf(header + length, capacity - length, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%lld",
                                   i ? "," : "", item->name, item->dtype, (long long)item->shape[0]);
        if (item->n_dims == 2)
            length += (size_t)snprintf(header + length, capacity - length, ",%lld", (long long)item->shape[1]);
        length += (size_t)snprintf(header + length, capacity - length, "],\"data_offsets\":[%zu,%zu]}", offset,
                                   offset + item->size);
        offset += item->size;
    }
    if (sound) {
        length += (size_t)snprintf(header + length, capacity - length, "}");
        uint8_t size[8];
        for (int i = 0; i < 8; i++) size[i] = (uint8_t)((uint64_t)length >> (8 * i));
        sound = fwrite(size, 1, 8, file) == 8 && fwrite(header, 1, length, file) == length;
        for (size_t i = 0; sound && i < all->n; i++)
            sound = fwrite(all->items[i].data, 1, all->items[i].size, file) == all->items[i].size;
    }
    free(header);
    return fclose(file) == 0 && sound;
}

typedef struct arguments {
    const char *model, *image, *prompt, *out;
    int max_new_tokens, n_threads;
    uint64_t cpu_mask;
} arguments;

static pg_status keep_text(const pg_processor *processor, const int64_t *ids, size_t n, collection *all) {
    size_t needed = 0;
    PGI_TRY(pg_processor_decode(processor, ids, n, PG_DECODE_SKIP_SPECIAL, NULL, 0, &needed));
    char *text = malloc(needed);
    if (!text) return pgi_error(PG_ERROR_MEMORY, "out of memory");
    pg_status status = pg_processor_decode(processor, ids, n, PG_DECODE_SKIP_SPECIAL, text, needed, NULL);
    if (status >= 0) keep(all, "text", "U8", (int64_t[]){(int64_t)needed - 1}, 1, text, needed - 1);
    free(text);
    return status;
}

static pg_status run(const arguments *a, collection *all) {
    pg_model *model = NULL;
    pg_processor *processor = NULL;
    pg_inputs *inputs = NULL;
    pg_session *session = NULL;
    int64_t *ids = calloc((size_t)a->max_new_tokens + 1, sizeof *ids);
    size_t n = 0;
    pg_model_options model_options;
    pg_encode_options encode_options;
    pg_session_options session_options;
    pg_image image;
    pg_tensor tensor = {.struct_size = sizeof tensor};
    pgi_trace trace = {.stage = on_stage, .user = all};
    pg_status status = ids ? PG_OK : pgi_error(PG_ERROR_MEMORY, "out of memory");
    if (status < 0) return status;

    PGI_GOTO(pg_model_options_init(&model_options, sizeof model_options), done);
    model_options.cpu_mask = a->cpu_mask;
    PGI_GOTO(pg_model_open(a->model, &model_options, &model), done);
    PGI_GOTO(pg_processor_open(a->model, NULL, &processor), done);
    PGI_GOTO(pg_image_from_path(&image, sizeof image, a->image), done);
    PGI_GOTO(pg_encode_options_init(&encode_options, sizeof encode_options), done);
    encode_options.flags = PG_ENCODE_EXIF;
    PGI_GOTO(pg_processor_encode(processor, &image, a->prompt, &encode_options, &inputs), done);
    PGI_GOTO(pg_inputs_get_tensor(inputs, "input_ids", &tensor), done);
    keep(all, "prompt_ids", "I64", &tensor.shape[1], 1, tensor.data, (size_t)tensor.shape[1] * sizeof(int64_t));

    PGI_GOTO(pg_session_options_init(&session_options, sizeof session_options), done);
    session_options.n_threads = a->n_threads;
    session_options.max_new_tokens = a->max_new_tokens;
    PGI_GOTO(pg_session_create(model, &session_options, &session), done);
    pgi_session_set_trace(session, &trace);
    PGI_GOTO(pg_session_prefill(session, inputs, NULL), done);
    do {
        PGI_GOTO(pg_session_step(session, &ids[n]), done);
        if (status != PG_EVENT_LENGTH) n++;
    } while (status == PG_OK);
    keep(all, "ids", "I64", (int64_t[]){(int64_t)n}, 1, ids, n * sizeof *ids);
    PGI_GOTO(keep_text(processor, ids, n, all), done);
    if (all->failed) status = pgi_error(PG_ERROR_MEMORY, "out of memory");
done:
    pg_session_close(&session);
    pg_inputs_close(&inputs);
    pg_processor_close(&processor);
    pg_model_close(&model);
    free(ids);
    return status;
}

static int parse(int argc, char **argv, arguments *a) {
    const char **places[] = {&a->model, &a->image, &a->prompt, &a->out};
    size_t n = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--max-new-tokens") == 0 && i + 1 < argc)
            a->max_new_tokens = atoi(argv[++i]);
        else if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc)
            a->n_threads = atoi(argv[++i]);
        else if (strcmp(argv[i], "--cpu") == 0 && i + 1 < argc)
            a->cpu_mask = strtoull(argv[++i], NULL, 0);
        else if (n < sizeof places / sizeof *places)
            *places[n++] = argv[i];
        else
            return 0;
    }
    return n == sizeof places / sizeof *places && a->max_new_tokens > 0;
}

int main(int argc, char **argv) {
    arguments a = {.max_new_tokens = 16};
    collection all = {0};
    if (!parse(argc, argv, &a)) {
        fprintf(stderr, "usage: stages [--max-new-tokens N] [--threads N] [--cpu MASK] MODEL IMAGE PROMPT OUT\n");
        return 2;
    }
    int sound = run(&a, &all) >= 0;
    if (!sound)
        fprintf(stderr, "stages: %s\n", pg_last_error());
    else if (!(sound = write_file(a.out, &all)))
        fprintf(stderr, "stages: %s: cannot be written\n", a.out);
    for (size_t i = 0; i < all.n; i++) free(all.items[i].data);
    free(all.items);
    return sound ? 0 : 1;
}
