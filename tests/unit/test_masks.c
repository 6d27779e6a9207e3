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

#include "mask_files.h"
#include "support.h"

#define OK(call)                                                                                  \
    do {                                                                                          \
        pg_status status_ = (call);                                                               \
        if (status_ < 0) fail_msg("%s: %s: %s", #call, pg_status_name(status_), pg_last_error()); \
    } while (0)

static char folder[512];
static counter memory;
static const npz_options plain = NPZ_PLAIN;

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
        pg_mask_decoder *decoder = open_bytes(name, kind < 5 ? make_npz(&o) : make_safetensors(LAYOUT_SOUND)),
                        *by_folder = NULL;
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
    o = plain;
    o.encrypted = 1;
    refuse(o, PG_ERROR_UNSUPPORTED, "encrypted");
    assert_int_equal(open_file("none.npz", &decoder), PG_ERROR_NOT_FOUND);
    assert_int_equal(pg_mask_decoder_open(NULL, NULL, &decoder), PG_ERROR_ARGUMENT);
    remove_file(folder, "wrong.npz");
}

static void refuse_bytes(const void *data, size_t size, pg_status wanted, const char *text) {
    pg_mask_decoder *decoder = NULL;
    write_file(folder, "wrong", data, size);
    assert_int_equal(open_file("wrong", &decoder), wanted);
    assert_null(decoder);
    if (!strstr(pg_last_error(), text)) fail_msg("found \"%s\", expected %s in it", pg_last_error(), text);
    remove_file(folder, "wrong");
}

/* The four first bytes of a zip file with members decide: all else is safetensors, or is told what it is. */
static void other_files_are_named(void **state) {
#define BYTES(text) text, sizeof text - 1
    static const struct {
        const char *data;
        size_t size;
        pg_status status;
        const char *text;
    } others[] = {
        {BYTES(""), PG_ERROR_FORMAT, "found 0 bytes, the first of them none, expected"},
        {BYTES("neither"), PG_ERROR_FORMAT, "found 7 bytes, the first of them 6e 65 69 74 68 65 72, expected"},
        {BYTES("PK"), PG_ERROR_FORMAT, "the first of them 50 4b, expected"},
        {BYTES("PK not an archive"), PG_ERROR_FORMAT, "the first of them 50 4b 20 6e 6f 74 20 61, expected"},
        {BYTES("PK\5\6\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"), PG_ERROR_FORMAT, "50 4b 05 06"}, /* no members */
        {BYTES("\x93NUMPY\1\0 an array"), PG_ERROR_FORMAT, "50 4b 03 04"},
        {BYTES("PK\3\4 and no more"), PG_ERROR_FORMAT, "no end of a zip file"},
        {BYTES("version https://git-lfs.github.com/spec/v1\n"), PG_ERROR_FORMAT, "git lfs pull"},
        {BYTES("<!DOCTYPE html><html>"), PG_ERROR_FORMAT, "an HTML page"},
        {BYTES("\x1F\x8B\x08 packed"), PG_ERROR_UNSUPPORTED, "gzip"},
        {BYTES("\2\0\0\0\0\0\0\0{}"), PG_ERROR_FORMAT, "no tensor _vq_vae._embedding"},
        {BYTES("\2\0\0\0\0\0\0\0[]"), PG_ERROR_FORMAT, "expected a JSON object"},
        {BYTES("\2\0\0\0\0\0\0\0{]"), PG_ERROR_FORMAT, "not valid JSON"},
        {BYTES("\2\0\0\0\0\0\0\0{}more"), PG_ERROR_FORMAT, "found 4 bytes of data, expected 0"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        refuse_bytes(others[i].data, others[i].size, others[i].status, others[i].text);
    bytes large = {0}; /* more header than any decoder needs, whatever is in it */
    const uint64_t size = 2 << 20;
    bytes_add(&large, &size, 8);
    bytes_text(&large, "{}");
    while (large.size < size + 8) bytes_text(&large, "                ");
    refuse_bytes(large.data, large.size, PG_ERROR_LIMIT, "a header of 2097152 bytes, expected at most 1048576");
    bytes_free(&large);
}

/* As the loader of models has it: what no tensor has, or two have, is no sound file. */
static void safetensors_are_dense(void **state) {
    static const char *const texts[] = {
        "",
        "decoder.2.net.2.weight: found its data at offset 524288, expected 1114112: it overlaps the tensor before it",
        "decoder.2.net.2.weight: found its data at offset 1114128, expected 1114112: it leaves a hole",
        "bytes of data, expected "};
    (void)state;
    for (int i = LAYOUT_OVERLAP; i <= LAYOUT_REST; i++) {
        bytes file = make_safetensors((safetensors_layout)i);
        refuse_bytes(file.data, file.size, PG_ERROR_FORMAT, texts[i]);
        bytes_free(&file);
    }
}

/* Masks of such a decoder would be empty, and nobody would know why. */
static void numbers_are_finite(void **state) {
    static const struct {
        float number;
        const char *text;
    } bad[] = {{NAN, "decoder.12.bias: found nan as number 0, expected finite numbers"},
               {-INFINITY, "decoder.12.bias: found -inf as number 0, expected finite numbers"}};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        bytes file = make_safetensors(LAYOUT_SOUND);
        memcpy(file.data + file.size - sizeof(float), &bad[i].number, sizeof(float));
        refuse_bytes(file.data, file.size, PG_ERROR_FORMAT, bad[i].text);
        bytes_free(&file);
    }
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
        if (!whole->data) *whole = k % 4 < 3 ? make_npz(&o) : make_safetensors(LAYOUT_SOUND);
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
        bytes file = kind ? make_safetensors(LAYOUT_SOUND) : make_npz(&o);
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
    answer = answer_of("no boxes", 60, 40);
    assert_int_equal(pg_answer_get_mask(answer, 0, decoder, mask, sizeof mask), PG_ERROR_ARGUMENT);
    assert_non_null(strstr(pg_last_error(), "index is 0, but the answer has no objects"));
    pg_answer_close(&answer);
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

/* Down each column, whatever the sizes of the squares that are read at a time. */
static void counts_of_all_sizes(void **state) {
    static const int32_t sizes[][2] = {{1, 1}, {1, 200}, {200, 1}, {64, 64}, {63, 65}, {65, 63}, {130, 129}};
    (void)state;
    rng r = {3};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const int32_t width = sizes[i][0], height = sizes[i][1];
        static uint8_t mask[130 * 129];
        static uint32_t counts[130 * 129 + 2], wanted[130 * 129 + 2];
        size_t n = 0, n_wanted = 1;
        int inside = 0;
        for (int32_t k = 0; k < width * height; k++) mask[k] = rng_below(&r, 5) ? 128 : 127;
        wanted[0] = 0;
        for (int32_t x = 0; x < width; x++)
            for (int32_t y = 0; y < height; y++) {
                if ((mask[y * width + x] >= 128) != inside) wanted[n_wanted++] = 0, inside = !inside;
                wanted[n_wanted - 1]++;
            }
        OK(pg_mask_get_counts(mask, width, height, counts, sizeof counts / sizeof *counts, &n));
        assert_int_equal(n, n_wanted);
        assert_memory_equal(counts, wanted, n * sizeof *counts);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_of_all_sizes),       cmocka_unit_test(files_are_read),
        cmocka_unit_test(what_is_wrong_is_named),    cmocka_unit_test(other_files_are_named),
        cmocka_unit_test(safetensors_are_dense),     cmocka_unit_test(numbers_are_finite),
        cmocka_unit_test(damaged_files_are_refused), cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(masks_lie_in_their_boxes),  cmocka_unit_test(threads_share_a_decoder),
        cmocka_unit_test(run_lengths_are_cocos),
    };
    return RUN_TESTS(tests, make_folder, remove_it);
}
