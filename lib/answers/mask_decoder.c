/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The mask decoder, its weights named as in the published vae-oid.npz:
 *
 *   _vq_vae._embedding           [128, 512]         16 codes: [4, 4, 512]
 *   decoder.0                    1x1, relu          [4, 4, 128]
 *   decoder.2.net, decoder.3.net  x += 1x1(relu(3x3(relu(3x3(x)))))
 *   decoder.4, .6, .8, .10       transposed 4x4, stride 2, padding 1, relu: [8, 8, 128] [16, 16, 64] [32, 32, 32]
 *                                [64, 64, 16]
 *   decoder.12                   1x1                [64, 64, 1]
 *
 * Pixels are rows of channels, so that each convolution is a product with a matrix: of the pixels around each pixel,
 * or, transposed, of a pixel's share in the pixels around it.
 */
#include "answers/mask_decoder.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/shape.h"
#include "checkpoint/diagnose.h"
#include "checkpoint/hf_cache.h"
#include "checkpoint/npz.h"
#include "checkpoint/tensor_header.h"
#include "ops/ops.h"

enum { MOST_FILE = 64 << 20, MOST_HEADER = 1 << 20, CODE_SIZE = 512, GRID = 4 };

typedef enum layer_kind { PLAIN, AROUND, TRANSPOSED } layer_kind; /* 1x1, 3x3, 4x4 */

static const struct {
    const char *name;
    layer_kind kind;
    int32_t in, out;
} layers[PGI_MASK_LAYERS] = {
    {"decoder.0", PLAIN, CODE_SIZE, 128}, {"decoder.2.net.0", AROUND, 128, 128}, {"decoder.2.net.2", AROUND, 128, 128},
    {"decoder.2.net.4", PLAIN, 128, 128}, {"decoder.3.net.0", AROUND, 128, 128}, {"decoder.3.net.2", AROUND, 128, 128},
    {"decoder.3.net.4", PLAIN, 128, 128}, {"decoder.4", TRANSPOSED, 128, 128},   {"decoder.6", TRANSPOSED, 128, 64},
    {"decoder.8", TRANSPOSED, 64, 32},    {"decoder.10", TRANSPOSED, 32, 16},    {"decoder.12", PLAIN, 16, 1},
};
enum { FIRST_TRANSPOSED = 7, LAST = PGI_MASK_LAYERS - 1 };

static int kernel_side(layer_kind kind) { return kind == PLAIN ? 1 : kind == AROUND ? 3 : 4; }

/* ---- the weights ---- */

/* The file that is read: one of the two. */
typedef struct weight_file {
    const char *path;
    const pgi_memory *memory;
    const pgi_kernels *kernels;
    pgi_npz npz;
    const uint8_t *data; /* of safetensors; NULL: it is a .npz */
    pgi_tensor_header header;
} weight_file;

/* Neither a .npz nor safetensors. */
static pg_status other_file(const char *path, const uint8_t *data, size_t size) {
    char found[3 * 8 + 1] = " none";
    for (size_t i = 0; i < size && i < 8; i++) snprintf(found + 3 * i, 4, " %02x", data[i]);
    const pg_status status =
        pgi_error(PG_ERROR_FORMAT,
                  "%s: found %zu bytes, the first of them%s, expected those of a NumPy archive (.npz: 50 4b 03 04), or "
                  "of safetensors: the size of a header that the file has",
                  path, size, found);
    return pgi_diagnose_other_file(status, path, data, size);
}

static pg_status open_safetensors(const uint8_t *data, size_t size, weight_file *file) {
    const uint64_t n = size >= 8 ? pgi_tensor_header_size(data) : 0;
    if (size < 8 || n > size - 8) return other_file(file->path, data, size);
    if (n > MOST_HEADER)
        return pgi_error(PG_ERROR_LIMIT, "%s: found a header of %llu bytes, expected at most %d", file->path,
                         (unsigned long long)n, MOST_HEADER);
    const size_t data_at = 8 + (size_t)n;
    file->data = data;
    PGI_TRY(pgi_tensor_header_read(file->memory, file->path, data + 8, (size_t)n, NULL, &file->header));
    return pgi_tensor_header_bind(&file->header, file->path, data + 8, (size_t)n, NULL, data_at, size - data_at);
}

static const pgi_stored_tensor *find_tensor(const weight_file *file, const char *name) {
    for (size_t i = 0; i < file->header.n_tensors; i++)
        if (strcmp(file->header.tensors[i].name, name) == 0) return &file->header.tensors[i];
    return NULL;
}

static pg_status read_safetensors(const weight_file *file, const char *name, const int64_t *shape, int n_dims,
                                  float *out) {
    char found[PGI_SHAPE_TEXT], expected[PGI_SHAPE_TEXT];
    const pgi_stored_tensor *t = find_tensor(file, name);
    if (!t) return pgi_error(PG_ERROR_FORMAT, "%s: no tensor %s, expected one", file->path, name);
    int64_t n = 1;
    int same = t->n_dims == n_dims;
    for (int i = 0; same && i < n_dims; i++) same = t->shape[i] == shape[i], n *= shape[i];
    if (!same)
        return pgi_error(PG_ERROR_FORMAT, "%s: %s: found shape %s, expected %s", file->path, name,
                         pgi_shape_text(t->n_dims, t->shape, ", ", found),
                         pgi_shape_text(n_dims, shape, ", ", expected));
    if (t->dtype != PG_DTYPE_F32 && t->dtype != PG_DTYPE_F16 && t->dtype != PG_DTYPE_BF16)
        return pgi_error(PG_ERROR_UNSUPPORTED, "%s: %s has numbers of type %s, expected F32, F16 or BF16", file->path,
                         name, t->dtype_name);
    const pgi_matrix row = {file->data + t->offset, t->dtype, 1, n, NULL};
    pgi_matrix_row(file->kernels, &row, 0, 1, out);
    return PG_OK;
}

/* A tensor as a new array. */
static pg_status read_tensor(const weight_file *file, const char *name, const int64_t *shape, int n_dims, float **out) {
    size_t n = 1;
    for (int i = 0; i < n_dims; i++) n *= (size_t)shape[i];
    *out = pgi_alloc(file->memory, n, sizeof **out);
    if (!*out) return PG_ERROR_MEMORY;
    if (file->data)
        PGI_TRY(read_safetensors(file, name, shape, n_dims, *out));
    else
        PGI_TRY(pgi_npz_read(&file->npz, name, shape, n_dims, *out));
    for (size_t i = 0; i < n; i++)
        if (!isfinite((*out)[i]))
            return pgi_error(PG_ERROR_FORMAT, "%s: %s: found %f as number %zu, expected finite numbers", file->path,
                             name, (double)(*out)[i], i);
    return PG_OK;
}

/* From [a, b, side, side] to pgi_mask_layer's order. */
static void reorder(layer_kind kind, const float *from, int64_t in, int64_t out, float *to) {
    const int64_t side = kernel_side(kind), n = side * side;
    for (int64_t k = 0; k < n; k++)
        for (int64_t o = 0; o < out; o++)
            for (int64_t i = 0; i < in; i++) {
                if (kind == TRANSPOSED)
                    to[(k * out + o) * in + i] = from[(i * out + o) * n + k];
                else
                    to[(o * n + k) * in + i] = from[(o * in + i) * n + k];
            }
}

static pg_status read_layer(const weight_file *file, int which, pgi_mask_layer *layer) {
    const int64_t in = layers[which].in, out = layers[which].out, side = kernel_side(layers[which].kind);
    const int flipped = layers[which].kind == TRANSPOSED;
    const int64_t shape[4] = {flipped ? in : out, flipped ? out : in, side, side};
    char name[32];
    float *weight = NULL;
    snprintf(name, sizeof name, "%s.bias", layers[which].name);
    PGI_TRY(read_tensor(file, name, &out, 1, &layer->bias));
    snprintf(name, sizeof name, "%s.weight", layers[which].name);
    pg_status status = read_tensor(file, name, shape, 4, &weight);
    if (status >= 0) {
        layer->weight = pgi_alloc(file->memory, (size_t)(in * out * side * side), sizeof *layer->weight);
        status = layer->weight ? PG_OK : PG_ERROR_MEMORY;
    }
    if (status >= 0) reorder(layers[which].kind, weight, in, out, layer->weight);
    pgi_free(file->memory, weight);
    return status;
}

pg_mask_decoder *pgi_mask_decoder_retain(const pg_mask_decoder *decoder) {
    pg_mask_decoder *counted = (pg_mask_decoder *)(uintptr_t)decoder;
    atomic_fetch_add_explicit(&counted->references, 1, memory_order_relaxed);
    return counted;
}

void pgi_mask_decoder_release(pg_mask_decoder *decoder) {
    if (!decoder || atomic_fetch_sub_explicit(&decoder->references, 1, memory_order_acq_rel) != 1) return;
    const pgi_memory memory = decoder->memory;
    for (int i = 0; i < PGI_MASK_LAYERS; i++) {
        pgi_free(&memory, decoder->layers[i].weight);
        pgi_free(&memory, decoder->layers[i].bias);
    }
    pgi_free(&memory, decoder->codebook);
    pgi_free(&memory, decoder);
}

static pg_status read_weights(const pgi_memory *memory, const char *path, const pgi_buffer *bytes,
                              pg_mask_decoder *decoder) {
    static const int64_t codebook[2] = {PGI_MASK_CODES, CODE_SIZE};
    weight_file file = {.path = path, .memory = memory, .kernels = &decoder->kernels};
    pg_status status;
    if (bytes->size >= 4 && memcmp(bytes->data, "PK\3\4", 4) == 0)
        status = pgi_npz_open(memory, path, bytes->data, bytes->size, &file.npz);
    else
        status = open_safetensors(bytes->data, bytes->size, &file);
    if (status >= 0) status = read_tensor(&file, "_vq_vae._embedding", codebook, 2, &decoder->codebook);
    for (int i = 0; i < PGI_MASK_LAYERS && status >= 0; i++) status = read_layer(&file, i, &decoder->layers[i]);
    pgi_npz_close(&file.npz);
    pgi_tensor_header_free(&file.header);
    return status;
}

static pg_status read_file(const pgi_memory *memory, uint64_t cpu_mask, const char *path, pg_mask_decoder **out) {
    pgi_buffer bytes;
    pg_mask_decoder *decoder = pgi_alloc_zero(memory, 1, sizeof *decoder);
    if (!decoder) return PG_ERROR_MEMORY;
    atomic_init(&decoder->references, 1);
    decoder->memory = *memory;
    pgi_buffer_init(&bytes, &decoder->memory);
    pg_status status = pgi_kernels_init(&decoder->kernels, cpu_mask);
    if (status >= 0) status = pgi_file_read(path, MOST_FILE, &bytes);
    if (status >= 0) status = read_weights(&decoder->memory, path, &bytes, decoder);
    pgi_buffer_free(&bytes);
    if (status < 0)
        pgi_mask_decoder_release(decoder);
    else
        *out = decoder;
    return status;
}

static pg_status read_folder(const pgi_memory *memory, uint64_t cpu_mask, const char *folder, pg_mask_decoder **out) {
    static const char *const names[] = {"vae-oid.npz", "vae-oid.safetensors"};
    for (int i = 0; i < 2; i++) {
        char *file = pgi_path_join(memory, folder, names[i]);
        if (!file) return PG_ERROR_MEMORY;
        const int exists = pgi_file_exists(file);
        const pg_status status = exists ? read_file(memory, cpu_mask, file, out) : PG_OK;
        pgi_free(memory, file);
        if (exists) return status;
    }
    return pgi_error(PG_ERROR_NOT_FOUND,
                     "%s: the folder has no mask decoder, expected vae-oid.npz (big_vision publishes it beside "
                     "PaliGemma) or a copy of it, vae-oid.safetensors",
                     folder);
}

pg_status pgi_mask_decoder_open(const pgi_memory *memory, uint64_t cpu_mask, const char *path, pg_mask_decoder **out) {
    char *folder = NULL;
    if (pgi_folder_exists(path)) return read_folder(memory, cpu_mask, path, out);
    if (pgi_file_exists(path)) return read_file(memory, cpu_mask, path, out);
    const pg_status found = pgi_hf_cache_find(memory, path, NULL, &folder);
    if (found == PG_ERROR_MEMORY) return found;
    if (found < 0) return read_file(memory, cpu_mask, path, out); /* says that it is not there */
    const pg_status status = read_folder(memory, cpu_mask, folder, out);
    pgi_free(memory, folder);
    return status;
}

/* ---- decoding ---- */

/* A mask on its way: pixels are rows of channels. */
typedef struct picture {
    const pgi_run *run;
    const pg_mask_decoder *decoder;
    float *x, *y;  /* [side * side, channels] each */
    float *gather; /* what a product reads or gives: [side * side, 9 or 16 times the channels] */
    void *scratch;
    int64_t side;
} picture;

enum { MOST_X = 64 * 64 * 16, MOST_GATHER = 32 * 32 * 16 * 16 };

static pg_status multiply(const picture *p, int which, int64_t columns, int64_t out, const float *bias, const float *x,
                          float *y) {
    const pgi_linear linear = {
        .weight = {p->decoder->layers[which].weight, PG_DTYPE_F32, out, columns, NULL},
        .bias = bias,
    };
    return pgi_linear_forward(p->run, x, columns, p->side * p->side, &linear, y, out, p->scratch);
}

static void relu(float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) x[i] = x[i] > 0 ? x[i] : 0;
}

/* The 3 x 3 pixels around each pixel of x [side, side, channels], zeros beyond the edge: [side, side, 3, 3, channels]
 */
static void gather_around(const picture *p, const float *x, int64_t channels) {
    float *to = p->gather;
    for (int64_t row = 0; row < p->side; row++)
        for (int64_t column = 0; column < p->side; column++)
            for (int64_t k = 0; k < 9; k++, to += channels) {
                const int64_t y = row + k / 3 - 1, z = column + k % 3 - 1;
                if (y >= 0 && y < p->side && z >= 0 && z < p->side)
                    memcpy(to, x + (y * p->side + z) * channels, (size_t)channels * sizeof *to);
                else
                    memset(to, 0, (size_t)channels * sizeof *to);
            }
}

/* A layer that keeps the side, from x to y. */
static pg_status convolve(const picture *p, int which, const float *x, float *y) {
    const int64_t in = layers[which].in, out = layers[which].out;
    const float *bias = p->decoder->layers[which].bias;
    if (layers[which].kind == PLAIN) return multiply(p, which, in, out, bias, x, y);
    gather_around(p, x, in);
    return multiply(p, which, 9 * in, out, bias, p->gather, y);
}

/* A transposed layer: each pixel adds to the 4 x 4 around its place in an image of twice the side. */
static pg_status enlarge(picture *p, int which) {
    const int64_t out = layers[which].out, side = 2 * p->side;
    const float *bias = p->decoder->layers[which].bias, *from = p->gather;
    PGI_TRY(multiply(p, which, layers[which].in, 16 * out, NULL, p->x, p->gather));
    for (int64_t i = 0; i < side * side; i++) memcpy(p->y + i * out, bias, (size_t)out * sizeof *bias);
    for (int64_t i = 0; i < p->side * p->side; i++)
        for (int64_t k = 0; k < 16; k++, from += out) {
            const int64_t row = 2 * (i / p->side) + k / 4 - 1, column = 2 * (i % p->side) + k % 4 - 1;
            if (row < 0 || row >= side || column < 0 || column >= side) continue;
            float *to = p->y + (row * side + column) * out;
            for (int64_t o = 0; o < out; o++) to[o] += from[o];
        }
    p->side = side;
    relu(p->y, side * side * out);
    float *x = p->x;
    p->x = p->y;
    p->y = x;
    return PG_OK;
}

/* x += layer 2 (relu(layer 1 (relu(layer 0 (x))))), of three layers from `first` on. */
static pg_status add_block(const picture *p, int first) {
    const int64_t n = p->side * p->side * layers[first].out;
    float *y = p->y, *z = p->y + n;
    PGI_TRY(convolve(p, first, p->x, y));
    relu(y, n);
    PGI_TRY(convolve(p, first + 1, y, z));
    relu(z, n);
    PGI_TRY(convolve(p, first + 2, z, y));
    for (int64_t i = 0; i < n; i++) p->x[i] += y[i];
    return PG_OK;
}

static pg_status decode(picture *p, const int32_t *codes, float *out) {
    for (int i = 0; i < GRID * GRID; i++)
        memcpy(p->y + (size_t)i * CODE_SIZE, p->decoder->codebook + (size_t)codes[i] * CODE_SIZE,
               CODE_SIZE * sizeof(float));
    PGI_TRY(convolve(p, 0, p->y, p->x));
    relu(p->x, p->side * p->side * layers[0].out);
    PGI_TRY(add_block(p, 1));
    PGI_TRY(add_block(p, 4));
    for (int i = FIRST_TRANSPOSED; i < LAST; i++) PGI_TRY(enlarge(p, i));
    return convolve(p, LAST, p->x, out);
}

pg_status pgi_mask_decode(const pg_mask_decoder *decoder, const int32_t *codes, float *out) {
    const pgi_run run = {.kernels = &decoder->kernels, .n_threads = 1};
    picture p = {.run = &run, .decoder = decoder, .side = GRID};
    pgi_arena arena = {0};
    uint8_t *block = NULL;
    for (int pass = 0; pass < 2; pass++) {
        arena = (pgi_arena){.base = block};
        p.x = pgi_arena_take(&arena, MOST_X, sizeof *p.x);
        p.y = pgi_arena_take(&arena, MOST_X, sizeof *p.y);
        p.gather = pgi_arena_take(&arena, MOST_GATHER, sizeof *p.gather);
        p.scratch = pgi_arena_take(&arena, pgi_linear_scratch(&decoder->kernels, 1), 1);
        if (pass == 0) block = pgi_alloc(&decoder->memory, arena.used, 1);
        if (!block) return PG_ERROR_MEMORY;
    }
    const pg_status status = decode(&p, codes, out);
    pgi_free(&decoder->memory, block);
    return status;
}
