/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The mask decoder: its files whole and damaged, masks in their boxes, run lengths. What it decodes is held against
 * torch in tests/oracle/masks_live.py. */
#include "run_tests.h"

#include <math.h>
#include <paligemma/paligemma.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "support.h"

#define OK(call)                                                                                  \
    do {                                                                                          \
        pg_status status_ = (call);                                                               \
        if (status_ < 0) fail_msg("%s: %s: %s", #call, pg_status_name(status_), pg_last_error()); \
    } while (0)

/* ---- files ---- */

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

/* How a .npz is written, and what is wrong with it. */
typedef struct npz_options {
    int deflated, cut_shape, drop; /* array number cut_shape has another shape; number drop is left out; -1: none */
    int method;                    /* that members say; 0: the true one */
    uint32_t size;                 /* that members say to have unpacked; 0: the true one */
    int zip64, fortran, version;   /* version of .npy, less 1 */
    /* The directory says of this member: that it lies where the one before it does; that it has the name of that one.
     * 0: of none. */
    int same_place, same_name;
    int local_name; /* the member's own header has another name; 0: none has */
} npz_options;

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
    assert_int_equal(deflateInit2(&z, 1, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = npy->data, z.avail_in = (unsigned)npy->size;
    z.next_out = room, z.avail_out = (unsigned)npy->size + 1024;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    bytes_add(&out, room, z.total_out);
    deflateEnd(&z);
    free(room);
    return out;
}

static bytes make_npz(const npz_options *o) {
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
            put(to, 0, 2);
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

static bytes make_safetensors(void) {
    bytes header = {0}, data = {0}, file = {0};
    bytes_text(&header, "{");
    for (int i = 0; i < N_ARRAYS; i++) {
        const size_t begin = data.size;
        add_numbers(&data, &arrays[i]);
        bytes_printf(&header, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[", i ? "," : "", arrays[i].name);
        for (int k = 0; k < arrays[i].n_dims; k++) bytes_printf(&header, "%s%d", k ? "," : "", arrays[i].shape[k]);
        bytes_printf(&header, "],\"data_offsets\":[%zu,%zu]}", begin, data.size);
    }
    bytes_text(&header, "}");
    put(&file, header.size, 8);
    bytes_add(&file, header.data, header.size);
    bytes_add(&file, data.data, data.size);
    bytes_free(&header);
    bytes_free(&data);
    return file;
}

static char folder[512];
static counter memory;
static const npz_options plain = {.cut_shape = -1, .drop = -1};

static int make_folder(void **state) {
    (void)state;
    make_temp_folder(folder, sizeof folder);
    counter_init(&memory);
    return 0;
}

static int remove_it(void **state) {
    (void)state;
    remove_folder(folder);
    return counter_clean(&memory) ? 0 : 1;
}

static pg_status open_file(const char *name, pg_mask_decoder **decoder) {
    char path[600];
    pg_mask_decoder_options options;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    OK(pg_mask_decoder_options_init(&options, sizeof options));
    options.allocator = &memory.hooks;
    return pg_mask_decoder_open(path, &options, decoder);
}

static pg_mask_decoder *open_bytes(const char *name, bytes file) {
    pg_mask_decoder *decoder = NULL;
    write_file(folder, name, file.data, file.size);
    OK(open_file(name, &decoder));
    bytes_free(&file);
    return decoder;
}

/* ---- tests ---- */

static const int32_t codes[16] = {0, 127, 3, 4, 5, 60, 7, 8, 9, 10, 110, 12, 13, 14, 15, 64};

/* Every kind of file gives the same mask. */
static void files_are_read(void **state) {
    float first[64 * 64], mask[64 * 64];
    (void)state;
    for (int kind = 0; kind < 6; kind++) {
        npz_options o = plain;
        o.deflated = kind == 1;
        o.zip64 = kind == 2;
        o.fortran = kind == 3;
        o.version = kind == 4 ? 2 : 0;
        const char *name = kind < 5 ? "vae-oid.npz" : "vae-oid.safetensors";
        pg_mask_decoder *decoder = open_bytes(name, kind < 5 ? make_npz(&o) : make_safetensors()), *by_folder = NULL;
        OK(pg_mask_decoder_decode(decoder, codes, kind == 0 ? first : mask));
        if (kind > 0) assert_memory_equal(first, mask, sizeof mask);
        OK(pg_mask_decoder_open(folder, NULL, &by_folder));
        OK(pg_mask_decoder_decode(by_folder, codes, mask));
        assert_memory_equal(first, mask, sizeof mask);
        pg_mask_decoder_close(&decoder);
        pg_mask_decoder_close(&by_folder);
        if (kind == 4) remove_file(folder, name);
    }
    remove_file(folder, "vae-oid.safetensors");
}

static void refuse(npz_options o, pg_status wanted, const char *text) {
    pg_mask_decoder *decoder = NULL;
    bytes file = make_npz(&o);
    write_file(folder, "wrong.npz", file.data, file.size);
    bytes_free(&file);
    memory.largest = 0;
    assert_int_equal(open_file("wrong.npz", &decoder), wanted);
    assert_null(decoder);
    if (!strstr(pg_last_error(), text)) fail_msg("found \"%s\", expected %s in it", pg_last_error(), text);
    assert_true(memory.largest < 16 << 20);
}

static void what_is_wrong_is_named(void **state) {
    npz_options o = plain;
    pg_mask_decoder *decoder = NULL;
    (void)state;
    o.cut_shape = 4;
    refuse(o, PG_ERROR_FORMAT, "decoder.2.net.4.weight: found shape [127, 128, 1, 1], expected [128, 128, 1, 1]");
    o = plain;
    o.drop = 9;
    refuse(o, PG_ERROR_FORMAT, "no array decoder.6.weight");
    o = plain;
    o.method = 12;
    refuse(o, PG_ERROR_UNSUPPORTED, "method 12");
    o = plain;
    o.deflated = 1;
    o.size = 4000000000u; /* a bomb says it, and has it */
    refuse(o, PG_ERROR_FORMAT, "has 4000000000 bytes");
    o.size = 1000;
    refuse(o, PG_ERROR_FORMAT, "not the 1000 bytes");
    o = plain;
    o.same_place = 3; /* the same bytes twice: what zip bombs live on */
    refuse(o, PG_ERROR_FORMAT, "decoder.2.net.0.weight overlaps another member");
    o = plain;
    o.same_name = 9;
    refuse(o, PG_ERROR_FORMAT, "decoder.4.weight is in the archive twice");
    o = plain;
    o.local_name = 13;
    refuse(o, PG_ERROR_FORMAT, "decoder.0.bias: another member is where the directory says");
    o = plain;
    o.version = 3;
    refuse(o, PG_ERROR_FORMAT, "version 1 to 3");
    assert_int_equal(pg_mask_decoder_open(folder, NULL, &decoder), PG_ERROR_NOT_FOUND);
    assert_non_null(strstr(pg_last_error(), "vae-oid.npz"));
    write_text(folder, "wrong.npz", "neither");
    assert_int_equal(open_file("wrong.npz", &decoder), PG_ERROR_FORMAT);
    write_text(folder, "wrong.npz", "PK");
    assert_int_equal(open_file("wrong.npz", &decoder), PG_ERROR_FORMAT);
    assert_int_equal(open_file("none.npz", &decoder), PG_ERROR_NOT_FOUND);
    assert_int_equal(pg_mask_decoder_open(NULL, NULL, &decoder), PG_ERROR_ARGUMENT);
    remove_file(folder, "wrong.npz");
}

/* Bytes anywhere in what is not numbers, and the end, changed: a status each, no memory that the file does not need. */
static void damaged_files_are_refused(void **state) {
    rng r = {11};
    int n_errors = 0;
    (void)state;
    for (int k = 0; k < 400; k++) {
        npz_options o = plain;
        o.deflated = k % 4 == 1;
        o.zip64 = k % 4 == 2;
        static bytes files[4];
        bytes *whole = &files[k % 4];
        if (!whole->data) *whole = k % 4 < 3 ? make_npz(&o) : make_safetensors();
        bytes file = {0};
        bytes_add(&file, whole->data, whole->size);
        const size_t last = file.size - 3000, near = rng_below(&r, 2) ? 3000 : file.size;
        for (uint64_t n = 1 + rng_below(&r, 4); n > 0; n--) {
            const size_t at = k % 4 == 3 ? rng_below(&r, 4000) : file.size - 1 - rng_below(&r, near);
            file.data[at] = (uint8_t)rng_next(&r);
        }
        if (k % 8 == 0) file.size = last + rng_below(&r, 3000);
        write_file(folder, "damaged", file.data, file.size);
        pg_mask_decoder *decoder = NULL;
        memory.largest = 0;
        stale_error();
        const pg_status status = open_file("damaged", &decoder);
        if (status < 0) {
            const char *wrong = bad_error(status);
            if (wrong) fail_msg("case %d: %s", k, wrong);
            n_errors++;
        }
        assert_true(memory.largest < 16 << 20);
        pg_mask_decoder_close(&decoder);
        bytes_free(&file);
        if (k >= 396) bytes_free(whole);
    }
    assert_true(n_errors > 150);
    remove_file(folder, "damaged");
}

static void every_allocation_may_fail(void **state) {
    npz_options o = plain;
    float mask[64 * 64];
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        o.deflated = 1;
        bytes file = kind ? make_safetensors() : make_npz(&o);
        write_file(folder, "file", file.data, file.size);
        bytes_free(&file);
        for (int64_t n = 1;; n++) {
            pg_mask_decoder *decoder = NULL;
            memory.fail_at = memory.n_allocs + n;
            pg_status status = open_file("file", &decoder);
            if (status >= 0) status = pg_mask_decoder_decode(decoder, codes, mask);
            memory.fail_at = 0;
            pg_mask_decoder_close(&decoder);
            if (status == PG_OK) {
                assert_true(n > 30);
                break;
            }
            assert_int_equal(status, PG_ERROR_MEMORY);
        }
    }
    remove_file(folder, "file");
}

static pg_answer *answer_of(const char *text, int32_t width, int32_t height) {
    pg_answer_options options;
    pg_answer *answer = NULL;
    OK(pg_answer_options_init(&options, sizeof options));
    options.width = width;
    options.height = height;
    OK(pg_answer_create_from_text(text, strlen(text), &options, &answer));
    return answer;
}

#define SEGS                                                                                                   \
    "<seg000><seg127><seg003><seg004><seg005><seg060><seg007><seg008><seg009><seg010><seg110><seg012><seg013>" \
    "<seg014><seg015><seg064>"

static void masks_lie_in_their_boxes(void **state) {
    uint8_t mask[40 * 60];
    float values[64 * 64];
    (void)state;
    pg_mask_decoder *decoder = open_bytes("file", make_npz(&plain));
    pg_answer *answer =
        answer_of("<loc0256><loc0512><loc0768><loc1023>" SEGS " cat ; <loc0010><loc0010><loc0010><loc0011>" SEGS
                  " dot ; <loc0256><loc0512><loc0768><loc1023>" SEGS "<seg001> more",
                  60, 40);
    memset(mask, 7, sizeof mask);
    OK(pg_answer_get_mask(answer, 0, decoder, mask, sizeof mask));
    OK(pg_mask_decoder_decode(decoder, codes, values));
    int n_inside = 0;
    for (int y = 0; y < 40; y++)
        for (int x = 0; x < 60; x++) {
            n_inside += mask[y * 60 + x] >= 128;
            if (y < 10 || y >= 30 || x < 30 || x >= 60) assert_int_equal(mask[y * 60 + x], 0);
        }
    assert_true(n_inside > 0 && n_inside < 600);
    OK(pg_answer_get_mask(answer, 1, decoder, mask, sizeof mask)); /* an empty box */
    for (size_t i = 0; i < sizeof mask; i++) assert_int_equal(mask[i], 0);
    OK(pg_answer_get_mask(answer, 2, decoder, mask, sizeof mask)); /* more segs than a mask has */
    assert_int_equal(pg_answer_get_mask(answer, 3, decoder, mask, sizeof mask), PG_ERROR_ARGUMENT);
    assert_int_equal(pg_answer_get_mask(answer, -1, decoder, mask, sizeof mask), PG_ERROR_ARGUMENT);
    assert_int_equal(pg_answer_get_mask(answer, 0, decoder, mask, sizeof mask - 1), PG_ERROR_ARGUMENT);
    assert_int_equal(pg_answer_get_mask(answer, 0, NULL, mask, sizeof mask), PG_ERROR_ARGUMENT);
    pg_answer_close(&answer);
    static const char *const without[] = {
        "<loc0256><loc0512><loc0768><loc1023> cat",         "<loc0256><loc0512><loc0768><loc1023><seg001> cat",
        "<loc0256><loc0512><loc0768>" SEGS " cat",          SEGS " cat",
        "<loc0768><loc0512><loc0256><loc1023>" SEGS " cat",
    };
    for (size_t i = 0; i < sizeof without / sizeof *without; i++) {
        answer = answer_of(without[i], 60, 40);
        assert_int_equal(pg_answer_get_mask(answer, 0, decoder, mask, sizeof mask), PG_ERROR_NOT_FOUND);
        pg_answer_close(&answer);
    }
    for (int32_t wrong = -1; wrong <= 128; wrong += 129) {
        int32_t other[16] = {0};
        other[15] = wrong;
        assert_int_equal(pg_mask_decoder_decode(decoder, other, values), PG_ERROR_ARGUMENT);
        assert_non_null(strstr(pg_last_error(), "codes[15]"));
    }
    pg_mask_decoder_close(&decoder);
    remove_file(folder, "file");
}

typedef struct decoding {
    const pg_mask_decoder *decoder;
    float masks[8][64 * 64];
} decoding;

static void *decode_all(void *user) {
    decoding *d = user;
    for (int i = 0; i < 8; i++) {
        int32_t other[16];
        for (int k = 0; k < 16; k++) other[k] = (codes[k] + i * 31) % 128;
        if (pg_mask_decoder_decode(d->decoder, other, d->masks[i]) < 0) memset(d->masks[i], 0xFF, sizeof d->masks[i]);
    }
    return NULL;
}

/* One decoder, threads at once: the bits of one alone. */
static void threads_share_a_decoder(void **state) {
    static decoding all[5];
    pthread_t threads[5];
    (void)state;
    pg_mask_decoder *decoder = open_bytes("file", make_npz(&plain));
    for (int i = 0; i < 5; i++) all[i].decoder = decoder;
    decode_all(&all[0]);
    for (int i = 1; i < 5; i++) assert_int_equal(pthread_create(&threads[i], NULL, decode_all, &all[i]), 0);
    for (int i = 1; i < 5; i++) assert_int_equal(pthread_join(threads[i], NULL), 0);
    for (int i = 1; i < 5; i++) assert_memory_equal(all[0].masks, all[i].masks, sizeof all[0].masks);
    assert_true(all[0].masks[0][0] == all[0].masks[0][0]);
    assert_memory_not_equal(all[0].masks[0], all[0].masks[1], sizeof all[0].masks[0]);
    pg_mask_decoder_close(&decoder);
    remove_file(folder, "file");
}

/* As pycocotools 2.0 has them. */
static void run_lengths_are_cocos(void **state) {
    static const uint8_t mask[3 * 4] = {0, 200, 255, 127, 0, 128, 0, 0, 255, 255, 0, 0};
    uint32_t counts[16];
    char text[64];
    size_t n = 0;
    (void)state;
    OK(pg_mask_get_counts(mask, 4, 3, counts, 16, &n));
    /* columns: 0 0 255 | 200 128 255 | 255 0 0 | 127 0 0 */
    assert_int_equal(n, 3);
    assert_int_equal(counts[0], 2);
    assert_int_equal(counts[1], 5);
    assert_int_equal(counts[2], 5);
    OK(pg_mask_get_rle(mask, 4, 3, text, sizeof text, &n));
    assert_string_equal(text, "255");
    assert_int_equal(n, 4);
    OK(pg_mask_get_counts(mask, 4, 3, NULL, 0, &n));
    assert_int_equal(n, 3);
    assert_int_equal(pg_mask_get_counts(mask, 4, 3, counts, 2, &n), PG_ERROR_LIMIT);
    assert_int_equal(pg_mask_get_counts(mask, 0, 3, counts, 2, &n), PG_ERROR_ARGUMENT);
    assert_int_equal(pg_mask_get_rle(NULL, 4, 3, text, sizeof text, &n), PG_ERROR_ARGUMENT);
    uint8_t large[200 * 100];
    memset(large, 0, sizeof large);
    large[0] = 255;
    large[100 * 100 + 77] = 130;
    OK(pg_mask_get_rle(large, 100, 200, text, sizeof text, NULL));
    assert_string_equal(text, "01[T?0XXE");
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_are_read),
        cmocka_unit_test(what_is_wrong_is_named),
        cmocka_unit_test(damaged_files_are_refused),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(masks_lie_in_their_boxes),
        cmocka_unit_test(threads_share_a_decoder),
        cmocka_unit_test(run_lengths_are_cocos),
    };
    return RUN_TESTS(tests, make_folder, remove_it);
}
