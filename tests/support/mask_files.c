/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Writes files of a mask decoder: PKWARE's APPNOTE.TXT (zip), NEP 1 (.npy), safetensors. */
#include "mask_files.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

typedef struct array {
    const char *name;
    int n_dims, shape[4];
} array;

static const array arrays[] = {
    {"_vq_vae._embedding", 2, {128, 512}},
    {"decoder.0.weight", 4, {128, 512, 1, 1}},
    {"decoder.2.net.0.weight", 4, {128, 128, 3, 3}},
    {"decoder.2.net.2.weight", 4, {128, 128, 3, 3}},
    {"decoder.2.net.4.weight", 4, {128, 128, 1, 1}},
    {"decoder.3.net.0.weight", 4, {128, 128, 3, 3}},
    {"decoder.3.net.2.weight", 4, {128, 128, 3, 3}},
    {"decoder.3.net.4.weight", 4, {128, 128, 1, 1}},
    {"decoder.4.weight", 4, {128, 128, 4, 4}},
    {"decoder.6.weight", 4, {128, 64, 4, 4}},
    {"decoder.8.weight", 4, {64, 32, 4, 4}},
    {"decoder.10.weight", 4, {32, 16, 4, 4}},
    {"decoder.12.weight", 4, {1, 16, 1, 1}},
    {"decoder.0.bias", 1, {128}},
    {"decoder.2.net.0.bias", 1, {128}},
    {"decoder.2.net.2.bias", 1, {128}},
    {"decoder.2.net.4.bias", 1, {128}},
    {"decoder.3.net.0.bias", 1, {128}},
    {"decoder.3.net.2.bias", 1, {128}},
    {"decoder.3.net.4.bias", 1, {128}},
    {"decoder.4.bias", 1, {128}},
    {"decoder.6.bias", 1, {64}},
    {"decoder.8.bias", 1, {32}},
    {"decoder.10.bias", 1, {16}},
    {"decoder.12.bias", 1, {1}},
};
enum { N_ARRAYS = sizeof arrays / sizeof *arrays };

static void put(bytes *b, uint64_t value, int n) {
    for (int i = 0; i < n; i++) bytes_add(b, &(uint8_t){(uint8_t)(i < 8 ? value >> 8 * i : 0)}, 1);
}

static void add_numbers(bytes *npy, const array *a) {
    size_t n = 1;
    for (int i = 0; i < a->n_dims; i++) n *= (size_t)a->shape[i];
    rng r = {n};
    const double scale = a->n_dims == 4 ? sqrt(3.0 / (a->shape[1] * a->shape[2])) : 0.3;
    for (size_t i = 0; i < n; i++) {
        const float x = (float)(rng_unit(&r) * scale);
        bytes_add(npy, &x, sizeof x);
    }
}

/* From C's order of an array of 4 dimensions to Fortran's. */
static void turn_over(const array *a, float *numbers, size_t n) {
    float *from = malloc(n * sizeof *from);
    if (!from) abort();
    const size_t sizes[4] = {(size_t)a->shape[0], (size_t)a->shape[1], (size_t)(a->n_dims == 4 ? a->shape[2] : 1),
                             (size_t)(a->n_dims == 4 ? a->shape[3] : 1)};
    memcpy(from, numbers, n * sizeof *from);
    for (size_t i = 0; i < n; i++) {
        const size_t l = i % sizes[3], k = i / sizes[3] % sizes[2], j = i / sizes[3] / sizes[2] % sizes[1];
        numbers[i / sizes[3] / sizes[2] / sizes[1] + sizes[0] * (j + sizes[1] * (k + sizes[2] * l))] = from[i];
    }
    free(from);
}

static bytes make_npy(const array *a, int cut, const npz_options *o) {
    bytes npy = {0}, header = {0}, numbers = {0};
    bytes_printf(&header, "{'descr': '<f4', 'fortran_order': %s, 'shape': (", o->fortran ? "True" : "False");
    for (int i = 0; i < a->n_dims; i++) bytes_printf(&header, "%d, ", a->shape[i] - (cut && i == 0));
    bytes_printf(&header, "), }\n");
    bytes_add(&npy, "\x93NUMPY", 6);
    put(&npy, (uint64_t)o->version + 1, 2);
    put(&npy, header.size, o->version ? 4 : 2);
    bytes_add(&npy, header.data, header.size);
    add_numbers(&numbers, a);
    if (o->fortran && a->n_dims > 1) turn_over(a, (float *)(void *)numbers.data, numbers.size / sizeof(float));
    bytes_add(&npy, numbers.data, numbers.size);
    bytes_free(&numbers);
    bytes_free(&header);
    return npy;
}

static bytes packed(const bytes *npy, int deflated) {
    bytes out = {0};
    if (!deflated) {
        bytes_add(&out, npy->data, npy->size);
        return out;
    }
    z_stream z = {0};
    uint8_t *room = malloc(npy->size + 1024);
    if (!room || deflateInit2(&z, 1, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY) != Z_OK) abort();
    z.next_in = npy->data, z.avail_in = (unsigned)npy->size;
    z.next_out = room, z.avail_out = (unsigned)npy->size + 1024;
    if (deflate(&z, Z_FINISH) != Z_STREAM_END) abort();
    bytes_add(&out, room, z.total_out);
    deflateEnd(&z);
    free(room);
    return out;
}

bytes make_npz(const npz_options *o) {
    bytes file = {0}, directory = {0};
    uint32_t before = 0; /* where the last member lies */
    int n = 0;
    for (int i = 0; i < N_ARRAYS; i++) {
        char name[64];
        if (i == o->drop) continue;
        bytes npy = make_npy(&arrays[i], i == o->cut_shape, o), data = packed(&npy, o->deflated);
        const uint32_t crc = (uint32_t)crc32(0, npy.data, (unsigned)npy.size), at = (uint32_t)file.size;
        const int method = o->method ? o->method : o->deflated ? 8 : 0;
        const size_t size = o->size ? o->size : npy.size;
        for (int local = 1; local >= 0; local--) {
            const int twice = o->same_name && o->same_name == i;
            const int wrong = local && o->local_name && o->local_name == i;
            snprintf(name, sizeof name, "%s%s", arrays[twice ? i - 1 : i].name, wrong ? ".NPY" : ".npy");
            bytes *to = local ? &file : &directory;
            bytes_add(to, local ? "PK\3\4" : "PK\1\2", 4);
            put(to, 45, local ? 2 : 4);
            put(to, (uint64_t)o->encrypted, 2);
            put(to, (uint64_t)method, 2);
            put(to, 0, 4);
            put(to, crc, 4);
            put(to, o->zip64 ? UINT32_MAX : data.size, 4);
            put(to, o->zip64 ? UINT32_MAX : size, 4);
            put(to, strlen(name), 2);
            put(to, o->zip64 ? 20 : 0, 2);
            if (!local) put(to, 0, 10), put(to, o->same_place && o->same_place == i ? before : at, 4);
            bytes_text(to, name);
            if (o->zip64) put(to, 1, 2), put(to, 16, 2), put(to, size, 8), put(to, data.size, 8);
        }
        before = at;
        bytes_add(&file, data.data, data.size);
        bytes_free(&npy);
        bytes_free(&data);
        n++;
    }
    const size_t at = file.size;
    bytes_add(&file, directory.data, directory.size);
    bytes_add(&file, "PK\5\6\0\0\0\0", 8);
    put(&file, (uint64_t)n, 2);
    put(&file, (uint64_t)n, 2);
    put(&file, directory.size, 4);
    put(&file, at, 4);
    put(&file, 0, 2);
    bytes_free(&directory);
    return file;
}

bytes make_safetensors(safetensors_layout layout) {
    bytes header = {0}, data = {0}, file = {0};
    size_t before = 0; /* where the last tensor begins */
    bytes_text(&header, "{");
    for (int i = 0; i < N_ARRAYS; i++) {
        if (layout == LAYOUT_HOLE && i == 3) put(&data, 0, 16);
        const size_t begin = layout == LAYOUT_OVERLAP && i == 3 ? before : data.size;
        before = data.size;
        add_numbers(&data, &arrays[i]);
        const size_t end = layout == LAYOUT_OVERLAP && i == 3 ? before : data.size;
        bytes_printf(&header, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[", i ? "," : "", arrays[i].name);
        for (int k = 0; k < arrays[i].n_dims; k++) bytes_printf(&header, "%s%d", k ? "," : "", arrays[i].shape[k]);
        bytes_printf(&header, "],\"data_offsets\":[%zu,%zu]}", begin, end);
    }
    bytes_text(&header, "}");
    if (layout == LAYOUT_REST) put(&data, 0, 16);
    put(&file, header.size, 8);
    bytes_add(&file, header.data, header.size);
    bytes_add(&file, data.data, data.size);
    bytes_free(&header);
    bytes_free(&data);
    return file;
}
