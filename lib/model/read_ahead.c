/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * pgi_read_ahead(): the first answer of a process without waiting for page faults.
 *
 * A mapped weight costs its first reader a page fault, and a disk read where it is not in the page cache; the faults
 * come in the middle of products, and the reads are too short for the disk. A thread that does nothing else maps the
 * weights in the order of use, in huge pages where they can be had: a file that came into the page cache in huge pages
 * costs nothing to map. Where the system does not read ahead by that much itself, the thread keeps some megabytes asked
 * for ahead of those that it maps (not elsewhere: what MADV_WILLNEED reads comes in small pages).
 */
#include "model/read_ahead.h"

#include "base/file.h"
#include "base/system.h"
#include "kernels/quantized.h"
#include "processor/inputs.h"

enum {
    CHUNK = 8 << 20,  /* bytes of a step: how long closing a model may have to wait */
    ASKED_AHEAD = 8,  /* steps that are read from the disk while one is mapped */
    LEAST = 64 << 20, /* bytes of a part that a thread is worth */
};

static const pgi_matrix *image_matrix(const pg_model *model, int64_t i) {
    const pgi_vision_weights *vision = &model->weights.vision;
    enum { BEFORE = 2, EACH = 6 };
    if (i < BEFORE) return i == 0 ? &vision->patch.weight : &vision->position;
    const int64_t layer = (i - BEFORE) / EACH;
    if (layer == model->config.vision.n_layers && (i - BEFORE) % EACH == 0) return &model->weights.projector.weight;
    if (layer >= model->config.vision.n_layers) return NULL;
    const pgi_vision_layer *l = &vision->layers[layer];
    const pgi_linear *const linears[EACH] = {&l->q, &l->k, &l->v, &l->out, &l->fc1, &l->fc2};
    return &linears[(i - BEFORE) % EACH]->weight;
}

/* The embedding is not among them: a prompt reads a row for each of its tokens. */
static const pgi_matrix *text_matrix(const pg_model *model, int64_t i) {
    enum { EACH = 7 };
    const int64_t layer = i / EACH;
    if (layer == model->config.text.n_layers && i % EACH == 0) return &model->weights.text.head.weight;
    if (layer >= model->config.text.n_layers) return NULL;
    const pgi_text_layer *l = &model->weights.text.layers[layer];
    const pgi_linear *const linears[EACH] = {&l->k, &l->v, &l->q, &l->out, &l->gate, &l->up, &l->down};
    return &linears[i % EACH]->weight;
}

const pgi_matrix *pgi_read_ahead_matrix(const pg_model *model, int part, int64_t i, size_t *n_bytes) {
    const pgi_matrix *matrix = part == PGI_AHEAD_IMAGE ? image_matrix(model, i) : text_matrix(model, i);
    *n_bytes = matrix ? (size_t)pgi_matrix_bytes(matrix) : 0;
    return matrix;
}

/* A place in the weights of the parts of a thread: bytes `at` .. of a matrix. */
typedef struct place {
    int part;
    int64_t matrix;
    size_t at;
} place;

/* The next step's bytes, whole pages around them, and the place behind it; 0: there are no more. */
static size_t next_step(const pg_model *model, int parts, place *p, char **data) {
    const size_t page = pgi_system_page_size();
    for (; p->part <= PGI_AHEAD_TEXT; p->part <<= 1, p->matrix = 0) {
        size_t n;
        if (!(parts & p->part)) continue;
        for (const pgi_matrix *m; (m = pgi_read_ahead_matrix(model, p->part, p->matrix, &n)); p->matrix++, p->at = 0) {
            if (p->at >= n) continue;
            const size_t step = n - p->at < CHUNK ? n - p->at : CHUNK;
            const uintptr_t begin = (uintptr_t)m->data + p->at, first = begin / page * page;
            p->at += step;
            *data = (char *)m->data + p->at - step - (begin - first);
            return step + (begin - first);
        }
    }
    return 0;
}

size_t pgi_read_ahead_now(const pg_model *model, int parts, const atomic_int *stop) {
    place asked = {.part = 1}, mapped = {.part = 1};
    char *data;
    size_t n, sum = 0;
    const int asks = !pgi_tensor_files_huge_pages(model->files);
    for (int i = 0; asks && i < ASKED_AHEAD && (n = next_step(model, parts, &asked, &data)) > 0; i++)
        pgi_mapping_ask(data, n);
    while (!atomic_load_explicit(stop, memory_order_relaxed) && (n = next_step(model, parts, &mapped, &data)) > 0) {
        sum += n;
        pgi_mapping_fetch(data, n);
        if (asks && (n = next_step(model, parts, &asked, &data)) > 0) pgi_mapping_ask(data, n);
    }
    return sum;
}

static void *read_parts(void *user) {
    const pgi_read_ahead_thread *of = user;
    (void)pgi_read_ahead_now(of->model, of->parts, &of->thread.stop);
    return NULL;
}

static size_t part_bytes(const pg_model *model, int parts) {
    size_t sum = 0, n;
    for (int part = 1; part <= PGI_AHEAD_TEXT; part <<= 1)
        for (int64_t i = 0; (parts & part) && pgi_read_ahead_matrix(model, part, i, &n); i++) sum += n;
    return sum;
}

/* More than half of the memory might push out what was just read. */
static int pays(const pg_model *model, int parts) {
    const size_t n = part_bytes(model, parts);
    return n >= LEAST && (double)n <= pgi_system_memory() / 2;
}

void pgi_read_ahead(const pg_model *model, int parts) {
    if (model->base) model = model->base;
    pg_model *counted = (pg_model *)model; /* its state alone changes */
    if (model->weights.blocks || pgi_tensor_files_n_bytes_mapped(model->files) == 0) return;
    parts &= ~atomic_fetch_or(&counted->ahead.claimed, parts);
    if (!parts || !pays(model, parts)) return;
    pgi_read_ahead_thread *of = &counted->ahead.threads[atomic_fetch_add(&counted->ahead.n_threads, 1)];
    of->model = model;
    of->parts = parts;
    pgi_background_start(&of->thread, read_parts, of);
}

int pgi_read_ahead_parts(const pg_inputs *inputs, const pg_features *features) {
    return PGI_AHEAD_TEXT | (!features && inputs->n_images > 0 ? PGI_AHEAD_IMAGE : 0);
}
