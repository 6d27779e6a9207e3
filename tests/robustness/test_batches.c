/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Random batches, most of them nonsense: bytes that are no text, counts that do not fit, options out of range or at
 * odds. Each is refused with a message, or gives rows that agree with themselves and pass pg_inputs_create() again. And
 * an allocator that fails at every call in turn.
 *
 *     test_batches [PATTERN [SEED [COUNT]]]
 */
#include "run_tests.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"
#include "tiny.h"

enum { MAX_ROWS = 5, MAX_TEXT = 80 };

static char folder[512];
static pg_processor *processor;
static bytes png;
static uint64_t first_seed = 1;
static int n_cases = 4000;

typedef struct call {
    pg_batch batch;
    pg_encode_options options;
    pg_image_settings settings;
    char texts[2 * MAX_ROWS][MAX_TEXT + 1];
    const char *prompts[MAX_ROWS], *suffixes[MAX_ROWS];
    uint64_t prompt_sizes[MAX_ROWS], suffix_sizes[MAX_ROWS];
    int32_t counts[MAX_ROWS];
    pg_image images[2 * MAX_ROWS];
} call;

/* Pieces of text that mean something to the processor, and bytes that mean nothing to anyone. */
static size_t draw_text(rng *r, char *text) {
    static const char *const parts[] = {
        "a",     " ",         "\n",       "\n\n",     "<image>",          "<bos>",        "<eos>",
        "<pad>", "<loc0001>", "the cat ", "\xC3\xA9", "\xF0\x9F\x90\xB1", "\xE2\x96\x81", "<imag",
        "e>"};
    enum { N_PARTS = sizeof parts / sizeof *parts };
    size_t n = 0;
    for (uint64_t k = rng_below(r, 9); k > 0; k--) {
        uint64_t which = rng_below(r, N_PARTS + 8);
        char odd[2] = {(char)rng_below(r, 256), 0};
        const char *part = which < N_PARTS ? parts[which] : which == N_PARTS && rng_below(r, 8) == 0 ? odd : "b c ";
        size_t size = part == odd ? 1 : strlen(part);
        if (n + size > MAX_TEXT) break;
        memcpy(text + n, part, size);
        n += size;
    }
    text[n] = 0;
    return n;
}

static int32_t around(rng *r, int32_t n) { return rng_below(r, 12) == 0 ? (int32_t)rng_below(r, 8) - 2 : n; }

static void draw_options(rng *r, pg_encode_options *options) {
    assert_int_equal(pg_encode_options_init(options, sizeof *options), PG_OK);
    static const uint32_t flags[] = {0,
                                     0,
                                     PG_ENCODE_LITERAL,
                                     PG_ENCODE_OPEN_SUFFIX,
                                     PG_ENCODE_TRUNCATE,
                                     PG_ENCODE_TRUNCATE,
                                     PG_ENCODE_TRUNCATE | PG_ENCODE_KEEP_ENDS,
                                     PG_ENCODE_KEEP_ENDS,
                                     UINT32_MAX};
    options->flags = flags[rng_below(r, 8)] | flags[rng_below(r, 6)] | (rng_below(r, 50) ? 0 : flags[8]);
    options->mode = rng_below(r, 4) == 0;
    options->padding = around(r, (int32_t)rng_below(r, 2));
    options->padding_side = around(r, (int32_t)rng_below(r, 3));
    options->truncation = around(r, (int32_t)rng_below(r, 3));
    options->truncation_side = around(r, (int32_t)rng_below(r, 3));
    options->pad_to_multiple_of = rng_below(r, 3) ? 0 : around(r, 1 + (int32_t)rng_below(r, 16));
    options->max_length = rng_below(r, 3) ? (int64_t)rng_below(r, 48) : 0;
    if (rng_below(r, 100) == 0) options->max_length = (int64_t)rng_next(r);
}

/* Settings for the call: mostly sound ones, some with a bit of theirs flipped. */
static void draw_settings(rng *r, call *c) {
    c->settings.struct_size = sizeof c->settings;
    assert_int_equal(pg_processor_get_image_settings(processor, &c->settings), PG_OK);
    c->settings.height = around(r, 1 + (int32_t)rng_below(r, 30));
    c->settings.width = around(r, 1 + (int32_t)rng_below(r, 30));
    c->settings.resample = around(r, (int32_t)rng_below(r, 6));
    c->settings.do_resize = (uint32_t)around(r, (int32_t)rng_below(r, 2));
    c->settings.do_normalize = rng_below(r, 2) != 0;
    c->settings.rescale_factor = rng_below(r, 3) ? 1.0 / 255 : -1.0;
    c->settings.n_image_tokens = around(r, 1 + (int32_t)rng_below(r, 8));
    size_t after_size = offsetof(pg_image_settings, height), n = sizeof c->settings - after_size;
    if (rng_below(r, 20) == 0)
        ((uint8_t *)&c->settings)[after_size + rng_below(r, n)] ^= (uint8_t)(1 << rng_below(r, 8));
    if (c->settings.height > 64 || c->settings.width > 64) c->settings.height = -1; /* refused, not slow */
    if (c->settings.n_image_tokens > 64) c->settings.n_image_tokens = 0;
    c->options.image_settings = &c->settings;
}

static void draw(rng *r, call *c) {
    memset(c, 0, sizeof *c);
    assert_int_equal(pg_batch_init(&c->batch, sizeof c->batch), PG_OK);
    draw_options(r, &c->options);
    int32_t n = (int32_t)rng_below(r, MAX_ROWS), n_images = 0;
    for (int i = 0; i < MAX_ROWS; i++) {
        c->prompt_sizes[i] = draw_text(r, c->texts[i]);
        c->suffix_sizes[i] = draw_text(r, c->texts[MAX_ROWS + i]);
        c->prompts[i] = rng_below(r, 20) ? c->texts[i] : NULL;
        c->suffixes[i] = rng_below(r, 20) ? c->texts[MAX_ROWS + i] : NULL;
        if (!c->prompts[i]) c->prompt_sizes[i] = rng_below(r, 20) == 0;
        if (!c->suffixes[i]) c->suffix_sizes[i] = rng_below(r, 20) == 0;
        c->counts[i] = around(r, (int32_t)rng_below(r, 3));
        if (i < n) n_images += c->counts[i];
    }
    int with_counts = rng_below(r, 3) == 0, with_suffixes = rng_below(r, 2) == 0;
    c->batch.n_prompts = around(r, n);
    c->batch.n_suffixes = with_suffixes ? around(r, n) : 0;
    c->batch.n_image_counts = with_counts ? around(r, n) : 0;
    c->batch.n_images = rng_below(r, 3) == 0 ? 0 : around(r, with_counts ? n_images : n);
    if (c->batch.n_prompts > MAX_ROWS) c->batch.n_prompts = MAX_ROWS;
    if (c->batch.n_suffixes > MAX_ROWS) c->batch.n_suffixes = MAX_ROWS;
    if (c->batch.n_image_counts > MAX_ROWS) c->batch.n_image_counts = MAX_ROWS;
    if (c->batch.n_images > 2 * MAX_ROWS) c->batch.n_images = 2 * MAX_ROWS;
    for (int i = 0; i < 2 * MAX_ROWS; i++)
        assert_int_equal(pg_image_from_bytes(&c->images[i], sizeof c->images[i], png.data,
                                             rng_below(r, 100) ? png.size : png.size / 2),
                         PG_OK);
    c->batch.prompts = c->batch.n_prompts || rng_below(r, 20) == 0 ? c->prompts : NULL;
    c->batch.suffixes = c->batch.n_suffixes || rng_below(r, 20) == 0 ? c->suffixes : NULL;
    c->batch.images = c->batch.n_images || rng_below(r, 20) == 0 ? c->images : NULL;
    c->batch.image_counts = c->batch.n_image_counts || rng_below(r, 20) == 0 ? c->counts : NULL;
    if (rng_below(r, 3) == 0) c->batch.prompt_sizes = c->prompt_sizes;
    if (rng_below(r, 3) == 0) c->batch.suffix_sizes = c->suffix_sizes;
    if (rng_below(r, 3) == 0) draw_settings(r, c);
}

static pg_tensor tensor(const pg_inputs *inputs, const char *name) {
    pg_tensor t = {.struct_size = sizeof t};
    assert_int_equal(pg_inputs_get_tensor(inputs, name, &t), PG_OK);
    return t;
}

/* What pg_inputs_get_row_info() says and what the arrays hold are one. */
static void check_rows(const pg_inputs *inputs, const call *c) {
    pg_tensor ids = tensor(inputs, "input_ids"), mask = tensor(inputs, "attention_mask");
    pg_tensor types = tensor(inputs, "token_type_ids"), labels = tensor(inputs, "labels");
    int64_t n = ids.shape[1], first_image = 0, at = 0;
    assert_int_equal(ids.shape[0], c->batch.n_prompts);
    for (int64_t row = 0; row < ids.shape[0]; row++) {
        pg_row_info info = {.struct_size = sizeof info};
        assert_int_equal(pg_inputs_get_row_info(inputs, row, &info), PG_OK);
        assert_int_equal(info.first_image, first_image);
        assert_in_range(info.n_suffix, 0, info.n_tokens);
        assert_in_range(info.first_token + info.n_tokens, 1, n);
        assert_int_equal(info.n_truncated > 0, (info.events & PG_ROW_TRUNCATED) != 0);
        for (int64_t t = 0; t < n; t++, at++) {
            int64_t i = t - info.first_token;
            int real = i >= 0 && i < info.n_tokens, learned = real && i >= info.n_tokens - info.n_suffix;
            assert_int_equal(((const int64_t *)mask.data)[at], real);
            assert_int_equal(((const int64_t *)types.data)[at], learned);
            assert_int_equal(((const int64_t *)labels.data)[at], learned ? ((const int64_t *)ids.data)[at] : -100);
        }
        first_image += info.n_images;
    }
    if (c->batch.n_images > 0) assert_int_equal(tensor(inputs, "pixel_values").shape[0], first_image);
}

/* What the processor made is what a caller may give. */
static void check_again(const pg_inputs *inputs, int has_pixels) {
    pg_input_arrays arrays;
    pg_inputs *copy = NULL;
    pg_tensor ids = tensor(inputs, "input_ids"), mask = tensor(inputs, "attention_mask");
    pg_tensor types = tensor(inputs, "token_type_ids"), labels = tensor(inputs, "labels");
    pg_tensor positions = tensor(inputs, "position_ids"), pixels = {0};
    assert_int_equal(pg_input_arrays_init(&arrays, sizeof arrays), PG_OK);
    arrays.input_ids = &ids;
    arrays.attention_mask = &mask;
    arrays.token_type_ids = &types;
    arrays.labels = &labels;
    if (has_pixels) {
        pixels = tensor(inputs, "pixel_values");
        arrays.pixel_values = &pixels;
    }
    assert_int_equal(pg_inputs_create(&arrays, &copy), PG_OK);
    size_t n = (size_t)(ids.shape[0] * ids.shape[1]);
    assert_memory_equal(tensor(copy, "position_ids").data, positions.data, n * sizeof(int64_t));
    for (int64_t row = 0; row < ids.shape[0]; row++) {
        pg_row_info a = {.struct_size = sizeof a}, b = a;
        assert_int_equal(pg_inputs_get_row_info(inputs, row, &a), PG_OK);
        assert_int_equal(pg_inputs_get_row_info(copy, row, &b), PG_OK);
        assert_int_equal(a.first_token, b.first_token);
        assert_int_equal(a.n_tokens, b.n_tokens);
        assert_int_equal(a.n_suffix, b.n_suffix);
    }
    pg_inputs_close(&copy);
}

/* pg_inputs_create() takes what a model could take. */
static int square_pixels(const pg_inputs *inputs) {
    pg_tensor pixels = tensor(inputs, "pixel_values");
    return pixels.shape[2] == pixels.shape[3];
}

static void random_batches(void **state) {
    (void)state;
    static call c;
    int n_made = 0;
    for (int i = 0; i < n_cases; i++) {
        rng r = {first_seed + (uint64_t)i};
        pg_inputs *inputs = (pg_inputs *)&inputs;
        draw(&r, &c);
        stale_error();
        pg_status status = pg_processor_encode_batch(processor, &c.batch, &c.options, &inputs);
        if (status == PG_OK) {
            n_made++;
            if (c.batch.n_prompts > 0) check_rows(inputs, &c);
            if (c.batch.n_prompts > 0) check_again(inputs, c.batch.n_images > 0 && square_pixels(inputs));
        } else {
            if (bad_error(status) || error_is_stale() || inputs)
                fail_msg("seed %llu: %d: %s", (unsigned long long)(first_seed + (uint64_t)i), status, pg_last_error());
        }
        pg_inputs_close(&inputs);
    }
    say("%d random batches, %d of them sound\n", n_cases, n_made);
    assert_true(n_cases < 1000 || (n_made > n_cases / 10 && n_made < n_cases));
}

static void every_failing_allocation_is_survived(void **state) {
    (void)state;
    counter memory;
    pg_processor_options options;
    pg_processor *own = NULL;
    call c;
    rng r = {7};
    draw(&r, &c);
    assert_int_equal(pg_encode_options_init(&c.options, sizeof c.options), PG_OK);
    assert_int_equal(pg_batch_init(&c.batch, sizeof c.batch), PG_OK);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pg_image_from_bytes(&c.images[i], sizeof c.images[i], png.data, png.size), PG_OK);
        c.prompts[i] = i ? "a <image> cat" : "the <image><image> cat on the mat, which is long";
        c.suffixes[i] = i ? "an answer" : "x";
    }
    c.options.max_length = 24;
    c.options.flags = PG_ENCODE_TRUNCATE | PG_ENCODE_KEEP_ENDS;
    draw_settings(&(rng){1}, &c); /* sound ones */
    c.batch.n_prompts = c.batch.n_suffixes = 2;
    c.batch.n_images = 3;
    c.batch.prompts = c.prompts;
    c.batch.suffixes = c.suffixes;
    c.batch.images = c.images;
    for (c.options.mode = PG_MODE_HF; c.options.mode <= PG_MODE_BIG_VISION; c.options.mode++) {
        if (c.options.mode == PG_MODE_BIG_VISION) c.batch.n_images = 2;
        counter_init(&memory);
        assert_int_equal(pg_processor_options_init(&options, sizeof options), PG_OK);
        options.allocator = &memory.hooks;
        assert_int_equal(pg_processor_open(folder, &options, &own), PG_OK);
        int64_t before = memory.n_allocs, live = memory.n_live, n = 0;
        for (pg_status status = PG_ERROR_MEMORY; status != PG_OK;) {
            pg_inputs *inputs = NULL;
            memory.fail_at = before + ++n;
            memory.n_allocs = before;
            status = pg_processor_encode_batch(own, &c.batch, &c.options, &inputs);
            if (status != PG_OK && status != PG_ERROR_MEMORY)
                fail_msg("allocation %lld: %s", (long long)n, pg_last_error());
            assert_int_equal(inputs == NULL, status != PG_OK);
            pg_inputs_close(&inputs);
            assert_int_equal(memory.n_live, live);
        }
        assert_in_range(n, 20, 5000);
        pg_processor_close(&own);
        assert_true(counter_clean(&memory));
    }
}

static int open_all(void **state) {
    tiny_options options = tiny_saved_today();
    (void)state;
    make_temp_folder(folder, sizeof folder);
    tiny_write(folder, &options);
    png = tiny_image(IMAGE_PNG, 9, 7, 3);
    return pg_processor_open(folder, NULL, &processor);
}

static int close_all(void **state) {
    (void)state;
    bytes_free(&png);
    pg_processor_close(&processor);
    remove_folder(folder);
    return 0;
}

int main(int argc, char **argv) {
    if (argc > 2) first_seed = strtoull(argv[2], NULL, 10);
    if (argc > 3) n_cases = atoi(argv[3]);
    if (argc > 2) argc = 2;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_batches),
        cmocka_unit_test(every_failing_allocation_is_survived),
    };
    return RUN_TESTS(tests, open_all, close_all);
}
