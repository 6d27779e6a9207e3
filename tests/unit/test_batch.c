/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * pg_processor_encode_batch: what rows look like, what options do, what is refused and with which words. That ids,
 * masks and labels are transformers' own is for tests/golden and tests/oracle.
 */
#include "run_tests.h"

#include "api_fixture.h"

enum { MAX_ROWS = 4, MAX_TOKENS = 512 };

static const char *const letters = "a b c d e f g h i j k l";
static int64_t n_image, image_id, bos_id, eos_id, pad_id, newline_id; /* n_image: tokens of an image */
static pg_image image;
static bytes image_file;

/* A batch and its options, as one call takes them. */
typedef struct call {
    pg_batch batch;
    pg_encode_options options;
    const char *prompts[MAX_ROWS], *suffixes[MAX_ROWS];
    pg_image images[2 * MAX_ROWS];
    int32_t counts[MAX_ROWS];
} call;

static call *rows_of(int n, ...) {
    static call c;
    va_list prompts;
    memset(&c, 0, sizeof c);
    OK(pg_batch_init(&c.batch, sizeof c.batch));
    OK(pg_encode_options_init(&c.options, sizeof c.options));
    va_start(prompts, n);
    for (int i = 0; i < n; i++) c.prompts[i] = va_arg(prompts, const char *);
    va_end(prompts);
    c.batch.n_prompts = n;
    c.batch.prompts = n ? c.prompts : NULL;
    return &c;
}

static void with_suffixes(call *c, int n, ...) {
    va_list suffixes;
    va_start(suffixes, n);
    for (int i = 0; i < n; i++) c->suffixes[i] = va_arg(suffixes, const char *);
    va_end(suffixes);
    c->batch.n_suffixes = n;
    c->batch.suffixes = c->suffixes;
}

static void with_images(call *c, int n) {
    for (int i = 0; i < n; i++) c->images[i] = image;
    c->batch.n_images = n;
    c->batch.images = n ? c->images : NULL;
}

static void with_counts(call *c, int n, ...) {
    va_list counts;
    va_start(counts, n);
    for (int i = 0; i < n; i++) c->counts[i] = va_arg(counts, int);
    va_end(counts);
    c->batch.n_image_counts = n;
    c->batch.image_counts = c->counts;
}

static void truncate_to(call *c, int64_t max_length, uint32_t flags) {
    c->options.flags |= PG_ENCODE_TRUNCATE | flags;
    c->options.max_length = max_length;
}

/* The inputs that a test looks at; closed by the next one. */
static pg_inputs *made;

static void run(const call *c) {
    pg_inputs_close(&made);
    OK(pg_processor_encode_batch(processor, &c->batch, &c->options, &made));
}

/* The call fails, and the message names all parts. */
static void fails(const call *c, pg_status wanted, const char *part, const char *other) {
    pg_inputs *none = (pg_inputs *)&none;
    ERROR(pg_processor_encode_batch(processor, &c->batch, &c->options, &none), wanted);
    assert_null(none);
    if (!strstr(pg_last_error(), part) || !strstr(pg_last_error(), other))
        fail_msg("\"%s\" lacks \"%s\" or \"%s\"", pg_last_error(), part, other);
}

static pg_tensor tensor(const char *name) {
    pg_tensor t = {.struct_size = sizeof t};
    OK(pg_inputs_get_tensor(made, name, &t));
    return t;
}

static int64_t length(void) { return tensor("input_ids").shape[1]; }

static const int64_t *row_of(const char *name, int64_t row) {
    pg_tensor t = tensor(name);
    assert_int_equal(t.dtype, PG_DTYPE_I64);
    assert_int_equal(t.n_dims, 2);
    return (const int64_t *)t.data + row * t.shape[1];
}

static pg_row_info info_of(int64_t row) {
    pg_row_info info = {.struct_size = sizeof info};
    OK(pg_inputs_get_row_info(made, row, &info));
    return info;
}

/* The ids of a text alone, after what is there already. */
static size_t add_text(int64_t *ids, size_t n, const char *text) {
    size_t more;
    OK(pg_processor_tokenize(processor, text, 0, ids + n, MAX_TOKENS - n, &more));
    return n + more;
}

static size_t add_id(int64_t *ids, size_t n, int64_t id, int64_t times) {
    while (times-- > 0) ids[n++] = id;
    return n;
}

/* A row is `n_images` images, bos, the text with its newline [, the suffix and eos]; and what goes with it. */
static void assert_row(int64_t row, int64_t n_images, const char *text, const char *suffix) {
    int64_t wanted[MAX_TOKENS];
    size_t n = add_id(wanted, 0, image_id, n_images * n_image), prefix;
    n = add_id(wanted, n, bos_id, 1);
    prefix = n = add_text(wanted, n, text);
    if (suffix) n = add_id(wanted, add_text(wanted, n, suffix), eos_id, 1);
    pg_row_info info = info_of(row);
    assert_int_equal(info.n_tokens, n);
    assert_int_equal(info.n_suffix, n - prefix);
    assert_int_equal(info.n_images, n_images);
    const int64_t *ids = row_of("input_ids", row), *mask = row_of("attention_mask", row);
    const int64_t *types = row_of("token_type_ids", row), *labels = row_of("labels", row);
    const int64_t *positions = row_of("position_ids", row);
    for (int64_t t = 0; t < length(); t++) {
        int64_t i = t - info.first_token;
        int real = i >= 0 && i < (int64_t)n, learned = real && i >= (int64_t)prefix;
        assert_int_equal(ids[t], real ? wanted[i] : pad_id);
        assert_int_equal(mask[t], real);
        assert_int_equal(types[t], learned);
        assert_int_equal(labels[t], learned ? wanted[i] : -100);
        assert_int_equal(positions[t], real ? i + 1 : 1);
    }
}

static int open_all(void **state) {
    pg_processor_info info = {.struct_size = sizeof info};
    if (setup(state) != 0 || pg_processor_get_info(processor, &info) != PG_OK) return -1;
    n_image = info.n_image_tokens;
    image_id = info.image_id;
    bos_id = info.bos_id;
    eos_id = info.eos_id;
    pad_id = info.pad_id;
    image_file = tiny_image(IMAGE_PNG, 30, 20, 7);
    OK(pg_image_from_bytes(&image, sizeof image, image_file.data, image_file.size));
    return pg_processor_get_token_id(processor, "\n", &newline_id);
}

static int close_all(void **state) {
    pg_inputs_close(&made);
    bytes_free(&image_file);
    return teardown(state);
}

static void rows_are_padded_and_labelled(void **state) {
    (void)state;
    static const struct {
        int32_t side, first; /* first: 0 when padding is on the right */
    } sides[] = {{PG_SIDE_DEFAULT, 1}, {PG_SIDE_LEFT, 1}, {PG_SIDE_RIGHT, 0}};
    for (int i = 0; i < 3; i++) {
        call *c = rows_of(2, "a", letters);
        with_suffixes(c, 2, "b", NULL);
        with_images(c, 2);
        c->options.padding_side = sides[i].side;
        run(c);
        assert_row(0, 1, "a\n", "b");
        assert_row(1, 1, "a b c d e f g h i j k l\n", "");
        assert_int_equal(info_of(0).first_token > 0, sides[i].first);
        assert_int_equal(info_of(1).first_token, 0);
        assert_int_equal(info_of(1).first_image, 1);
        pg_tensor pixels = tensor("pixel_values"), counts = tensor("image_counts");
        assert_int_equal(pixels.shape[0], 2);
        size_t one = (size_t)(3 * pixels.shape[2] * pixels.shape[3]);
        assert_memory_equal(pixels.data, (const float *)pixels.data + one, one * sizeof(float));
        assert_int_equal(counts.n_dims, 1);
        assert_int_equal(counts.shape[0], 2);
        assert_int_equal(((const int64_t *)counts.data)[1], 1);
    }
}

static void lengths_are_rounded_and_filled(void **state) {
    (void)state;
    call *c = rows_of(2, "a", letters);
    run(c);
    int64_t longest = length();
    c->options.pad_to_multiple_of = 64;
    run(c);
    assert_int_equal(length() % 64, 0);
    assert_in_range(length(), longest, longest + 63);
    assert_row(0, 1, "a\n", NULL);
    c->options.padding = PG_PADDING_MAX_LENGTH;
    c->options.max_length = longest + 1;
    run(c);
    assert_int_equal(length() % 64, 0);
    c->options.pad_to_multiple_of = 0;
    run(c);
    assert_int_equal(length(), longest + 1);
    assert_row(0, 1, "a\n", NULL);
    c->options.max_length = longest - 1; /* the longer row stays as it is, and the other is not as long */
    fails(c, PG_ERROR_ARGUMENT, "row 1 has", "row 0 has");
    c->options.max_length = 0; /* the tokenizer has no length of its own */
    fails(c, PG_ERROR_ARGUMENT, "row 1 has", "without padding");
    c->options.padding = PG_PADDING_NONE;
    fails(c, PG_ERROR_ARGUMENT, "row 1 has", "without padding");
    c = rows_of(2, "b", "c");
    c->options.padding = PG_PADDING_NONE;
    run(c);
    assert_row(1, 1, "c\n", NULL);
    c->options.padding = PG_PADDING_MAX_LENGTH;
    c->options.max_length = 2; /* all are longer: none is padded */
    run(c);
    assert_row(1, 1, "c\n", NULL);
}

static void texts_may_hold_anything(void **state) {
    (void)state;
    static const char nul[] = "a\0b";
    uint64_t sizes[] = {3}, suffix_sizes[] = {1};
    call *c = rows_of(1, nul);
    with_suffixes(c, 1, "xyz");
    c->batch.prompt_sizes = sizes;
    c->batch.suffix_sizes = suffix_sizes;
    run(c);
    int64_t with_nul = info_of(0).n_tokens;
    assert_int_equal(info_of(0).n_suffix, 2);
    c->batch.prompt_sizes = NULL;
    run(c);
    assert_row(0, 1, "a\n", "x" /* cut by its size */);
    assert_true(with_nul > info_of(0).n_tokens);
    c->prompts[0] = "a\xC3(";
    fails(c, PG_ERROR_ARGUMENT, "row 0: the prompt", "byte 1");
    c = rows_of(2, "a", "b");
    with_suffixes(c, 2, "a", "ab\xFF");
    fails(c, PG_ERROR_ARGUMENT, "row 1: the suffix", "byte 2");
    c->suffixes[1] = NULL;
    c->batch.suffix_sizes = (const uint64_t[]){1, 2};
    fails(c, PG_ERROR_ARGUMENT, "row 1: the suffix is NULL", "2");
    c->batch.suffix_sizes = (const uint64_t[]){UINT64_MAX, 0};
    fails(c, PG_ERROR_ARGUMENT, "row 0: the suffix", "18446744073709551615");
}

static void events_tell_of_the_newline(void **state) {
    (void)state;
    call *c = rows_of(3, "a\n", "a", NULL);
    run(c);
    assert_int_equal(info_of(0).events, PG_ROW_NEWLINE_MERGED);
    assert_int_equal(info_of(1).events, 0);
    assert_int_equal(info_of(2).events, 0);
    assert_row(0, 1, "a\n\n", NULL);
    assert_row(2, 1, "\n", NULL);
}

static void images_are_counted(void **state) {
    (void)state;
    call *c = rows_of(3, "a", "b", "c");
    with_counts(c, 3, 2, 0, 1);
    run(c); /* without pixels */
    assert_row(0, 2, "a\n", NULL);
    assert_row(1, 0, "b\n", NULL);
    assert_row(2, 1, "c\n", NULL);
    assert_int_equal(info_of(2).first_image, 2);
    ERROR(pg_inputs_get_tensor(made, "pixel_values", &(pg_tensor){.struct_size = sizeof(pg_tensor)}),
          PG_ERROR_NOT_FOUND);
    with_images(c, 3);
    run(c);
    assert_int_equal(tensor("pixel_values").shape[0], 3);
    with_images(c, 2);
    fails(c, PG_ERROR_ARGUMENT, "make 3", "2 images");
    with_counts(c, 2, 2, 1);
    fails(c, PG_ERROR_ARGUMENT, "2 image_counts", "3 prompts");
    with_counts(c, 3, 2, -1, 1);
    fails(c, PG_ERROR_ARGUMENT, "row 1", "-1");
    with_counts(c, 3, 2, INT32_MAX, 1);
    with_images(c, 0);
    fails(c, PG_ERROR_LIMIT, "row 1", "2147483647");
    c = rows_of(3, "a", "b", "c");
    with_images(c, 1);
    fails(c, PG_ERROR_ARGUMENT, "1 images", "3 prompts");
}

static void texts_may_place_images(void **state) {
    (void)state;
    call *c = rows_of(2, "x<image>y<image>", "<image>z");
    with_images(c, 3);
    run(c);
    assert_int_equal(info_of(0).n_images, 2);
    assert_int_equal(info_of(1).first_image, 2);
    assert_row(1, 1, "z\n", NULL);
    with_counts(c, 2, 2, 1);
    run(c);
    with_counts(c, 2, 1, 2);
    fails(c, PG_ERROR_ARGUMENT, "row 0", "has 2 `<image>`");
    with_counts(c, 0);
    c->batch.image_counts = NULL;
    with_images(c, 2);
    fails(c, PG_ERROR_ARGUMENT, "row 1", "2 images");
    with_images(c, 4);
    fails(c, PG_ERROR_ARGUMENT, "have 3 `<image>`", "4 images");
    c->options.flags = PG_ENCODE_LITERAL; /* then each row's image stands in front */
    with_images(c, 2);
    run(c);
    assert_int_equal(info_of(0).n_images, 1);

    c = rows_of(3, "<image>", "abcdefgh", "");
    run(c);
    assert_int_equal(info_of(0).events, 0);
    assert_int_equal(info_of(1).events, PG_ROW_BOS_MISPLACED);
    assert_int_equal(info_of(1).n_images, 0);
    assert_int_equal(info_of(2).events, 0); /* nothing that bos could part */
    int64_t wanted[MAX_TOKENS];
    size_t n = add_text(wanted, add_id(wanted, add_text(wanted, 0, "abcdef"), bos_id, 1), "gh\n");
    assert_int_equal(info_of(1).n_tokens, n);
    assert_memory_equal(row_of("input_ids", 1) + info_of(1).first_token, wanted, n * sizeof *wanted);
}

static void suffixes_are_parsed_unless_literal(void **state) {
    (void)state;
    call *c = rows_of(2, "a", "b");
    with_suffixes(c, 2, "x", "<image>y");
    fails(c, PG_ERROR_ARGUMENT, "row 1: the suffix has 1 `<image>`", "none");
    c->suffixes[1] = "<eos>y<loc0001>";
    run(c);
    assert_int_equal(info_of(1).n_suffix, 4);
    c->options.flags = PG_ENCODE_LITERAL;
    run(c);
    const int64_t *ids = row_of("input_ids", 1) + info_of(1).first_token;
    for (int64_t i = 0; i < info_of(1).n_tokens - 1; i++) assert_true(ids[i] != eos_id);
    assert_int_equal(ids[info_of(1).n_tokens - 1], eos_id);
    c->suffixes[1] = "<image>y";
    run(c);
    c = rows_of(1, "a");
    with_suffixes(c, 1, "x");
    c->options.flags = PG_ENCODE_OPEN_SUFFIX;
    run(c);
    assert_int_equal(info_of(0).n_suffix, 1);
    assert_true(row_of("labels", 0)[length() - 1] != eos_id);
    c->suffixes[0] = "";
    run(c);
    assert_row(0, 1, "a\n", NULL);
}

static void hf_cuts_the_longer_part(void **state) {
    (void)state;
    call *c = rows_of(1, letters);
    with_suffixes(c, 1, "x y z");
    run(c);
    int64_t whole = length(), n_suffix = info_of(0).n_suffix;
    truncate_to(c, whole - 1, 0); /* the images make the prompt the longer one: its newline goes */
    run(c);
    pg_row_info info = info_of(0);
    assert_int_equal(info.events, PG_ROW_TRUNCATED | PG_ROW_TRUNCATED_NEWLINE);
    assert_int_equal(info.n_truncated, 1);
    assert_int_equal(length(), whole - 1);
    assert_int_equal(row_of("input_ids", 0)[whole - 2], eos_id);
    truncate_to(c, n_image + 1, 0); /* down to the images */
    fails(c, PG_ERROR_ARGUMENT, "row 0", "image tokens after truncation");
    c->options.truncation = PG_TRUNCATION_SUFFIX;
    truncate_to(c, whole - 1, 0);
    run(c);
    assert_int_equal(info_of(0).events, PG_ROW_TRUNCATED | PG_ROW_TRUNCATED_EOS);
    assert_true(row_of("labels", 0)[whole - 2] != eos_id);
    truncate_to(c, whole - 2, 0);
    c->options.truncation_side = PG_SIDE_LEFT; /* the suffix's head goes, its eos stays */
    run(c);
    assert_int_equal(info_of(0).events, PG_ROW_TRUNCATED);
    assert_int_equal(row_of("labels", 0)[whole - 3], eos_id);
    truncate_to(c, n_image, 0);
    fails(c, PG_ERROR_ARGUMENT, "row 0: the row has", "cutting the suffix alone cannot");
    c->options.truncation_side = PG_SIDE_RIGHT;
    c->options.truncation = PG_TRUNCATION_PROMPT;
    truncate_to(c, whole - 3, 0);
    run(c);
    assert_int_equal(info_of(0).events, PG_ROW_TRUNCATED | PG_ROW_TRUNCATED_NEWLINE);
    assert_int_equal(info_of(0).n_suffix, n_suffix);
    truncate_to(c, whole, 0);
    run(c);
    assert_int_equal(info_of(0).events, 0);
    c->options.flags = 0; /* max_length alone cuts nothing */
    c->options.max_length = 3;
    run(c);
    assert_int_equal(length(), whole);
}

static void ends_can_be_kept(void **state) {
    (void)state;
    call *c = rows_of(1, letters);
    with_suffixes(c, 1, "x y z");
    run(c);
    int64_t whole = length(), n_suffix = info_of(0).n_suffix;
    int64_t full[MAX_TOKENS], least = n_image + 3; /* images, bos, newline, eos */
    memcpy(full, row_of("input_ids", 0), (size_t)whole * sizeof *full);
    for (int64_t n = whole - 1; n >= least; n--) {
        truncate_to(c, n, PG_ENCODE_KEEP_ENDS);
        run(c);
        pg_row_info info = info_of(0);
        assert_int_equal(info.events, PG_ROW_TRUNCATED);
        assert_int_equal(info.n_truncated, whole - n);
        assert_int_equal(info.n_tokens, n);
        assert_int_equal(info.n_suffix, n_suffix - info.n_truncated > 1 ? n_suffix - info.n_truncated : 1);
        const int64_t *ids = row_of("input_ids", 0);
        int64_t prefix = n - info.n_suffix;
        assert_int_equal(ids[n - 1], eos_id);
        assert_int_equal(ids[prefix - 1], newline_id);
        assert_memory_equal(ids, full, (size_t)(prefix - 1) * sizeof *ids); /* what is left is as it was */
        assert_memory_equal(ids + prefix, full + whole - n_suffix, (size_t)(info.n_suffix - 1) * sizeof *ids);
    }
    truncate_to(c, least - 1, PG_ENCODE_KEEP_ENDS);
    fails(c, PG_ERROR_ARGUMENT, "row 0", "cannot go");
    c->options.truncation = PG_TRUNCATION_PROMPT;
    truncate_to(c, whole - 2, PG_ENCODE_KEEP_ENDS);
    run(c);
    assert_int_equal(info_of(0).n_suffix, n_suffix);
    c->options.truncation = PG_TRUNCATION_SUFFIX;
    truncate_to(c, least, PG_ENCODE_KEEP_ENDS);
    fails(c, PG_ERROR_ARGUMENT, "row 0", "cannot go");
    c = rows_of(1, "a b c <image> d e f");
    truncate_to(c, n_image + 2, PG_ENCODE_KEEP_ENDS);
    run(c);
    assert_row(0, 1, "\n", NULL); /* text before the image may go too */
}

/* A processor of the tiny folder with `from` in one of its files made `to`; closed by the caller. */
static pg_status open_changed(const char *file, const char *from, const char *to, pg_processor **out) {
    bytes old = read_file(folder, file), now = {0};
    const char *at = strstr((const char *)old.data, from);
    assert_non_null(at);
    bytes_add(&now, old.data, (size_t)(at - (const char *)old.data));
    bytes_text(&now, to);
    bytes_text(&now, at + strlen(from));
    write_file(folder, file, now.data, now.size);
    pg_status status = pg_processor_open(folder, NULL, out);
    write_file(folder, file, old.data, old.size);
    bytes_free(&old);
    bytes_free(&now);
    return status;
}

static void assert_settings(int32_t padding, int32_t truncation, int64_t most, int64_t model_most, int64_t multiple) {
    pg_processor_info info = {.struct_size = sizeof info};
    OK(pg_processor_get_info(processor, &info));
    assert_int_equal(info.padding_side, padding);
    assert_int_equal(info.truncation_side, truncation);
    assert_int_equal(info.max_length, most);
    assert_int_equal(info.model_max_length, model_most);
    assert_int_equal(info.pad_to_multiple_of, multiple);
}

static void settings_of_the_tokenizer_are_defaults(void **state) {
    (void)state;
    static const char none[] = "\"truncation\":null,\"padding\":null", config[] = "\"bos_token\"";
    pg_processor *usual = processor;
    call *c = rows_of(2, "a", letters);
    run(c);
    int64_t longest = length(), shorter = info_of(0).n_tokens;
    OK(open_changed("tokenizer.json", none,
                    "\"truncation\":{\"direction\":\"Right\",\"max_length\":64,\"strategy\":\"LongestFirst\","
                    "\"stride\":0},"
                    "\"padding\":{\"strategy\":\"BatchLongest\",\"direction\":\"Right\",\"pad_to_multiple_of\":32,"
                    "\"pad_id\":0,\"pad_type_id\":0,\"pad_token\":\"<pad>\"}",
                    &processor));
    assert_true(longest < 64); /* the test's own numbers */
    run(c);
    assert_int_equal(length(), (longest + 31) / 32 * 32);
    assert_int_equal(info_of(0).first_token, 0);
    c->options.padding = PG_PADDING_MAX_LENGTH;
    run(c);
    assert_int_equal(length(), 64);
    c->options.pad_to_multiple_of = 1;
    c->options.max_length = longest + 1;
    c->options.padding_side = PG_SIDE_LEFT;
    run(c);
    assert_int_equal(length(), longest + 1);
    assert_int_equal(info_of(0).first_token, longest + 1 - shorter);
    assert_settings(PG_SIDE_RIGHT, PG_SIDE_RIGHT, 64, 0, 32);
    pg_processor_close(&processor);

    c = rows_of(2, "a", letters);
    OK(open_changed("tokenizer_config.json", config,
                    "\"padding_side\":\"right\",\"truncation_side\":\"left\",\"max_length\":40,\"bos_token\"",
                    &processor));
    run(c);
    assert_int_equal(info_of(0).first_token, 0);
    c->options.flags = PG_ENCODE_TRUNCATE;
    with_suffixes(c, 2, letters, letters);
    c->options.truncation = PG_TRUNCATION_SUFFIX;
    run(c);
    assert_int_equal(length(), 40);
    assert_int_equal(row_of("labels", 1)[39], eos_id); /* the head was cut */
    assert_settings(PG_SIDE_RIGHT, PG_SIDE_LEFT, 40, 0, 0);
    pg_processor_close(&processor);
    ERROR(open_changed("tokenizer_config.json", config, "\"padding_side\":\"up\",\"bos_token\"", &processor),
          PG_ERROR_FORMAT);
    assert_non_null(strstr(pg_last_error(), "padding_side: found \"up\""));
    processor = usual;
}

static void settings_of_a_wrong_type_are_named(void **state) {
    (void)state;
    static const struct {
        const char *file, *from, *to, *message;
    } cases[] = {
        {"tokenizer_config.json", "\"bos_token\"", "\"max_length\":\"12\",\"bos_token\"", "max_length: found \"12\""},
        {"tokenizer_config.json", "\"model_max_length\"", "\"max_len\":12.5,\"other\"", "max_len: found 12.5"},
        {"tokenizer_config.json", "\"bos_token\"", "\"pad_to_multiple_of\":-8,\"bos_token\"",
         "pad_to_multiple_of: found"},
        {"tokenizer_config.json", "\"bos_token\"", "\"truncation_side\":null,\"bos_token\"",
         "truncation_side: found null"},
        {"tokenizer.json", "\"truncation\":null", "\"truncation\":\"x\"",
         "truncation: found \"x\", expected an object"},
        {"tokenizer.json", "\"truncation\":null", "\"truncation\":{\"stride\":0}",
         "truncation.max_length: found nothing"},
        {"tokenizer.json", "\"padding\":null", "\"padding\":false", "padding: found false, expected an object"},
        {"tokenizer.json", "\"padding\":null",
         "\"padding\":{\"strategy\":{\"Fixed\":\"9\"},\"direction\":\"Left\",\"pad_id\":0,\"pad_type_id\":0,\"pad_"
         "token\":\"x\"}",
         "padding.strategy.Fixed: found \"9\""},
    };
    pg_processor *out = NULL;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ERROR(open_changed(cases[i].file, cases[i].from, cases[i].to, &out), PG_ERROR_FORMAT);
        if (!strstr(pg_last_error(), cases[i].message)) fail_msg("\"%s\" in: %s", cases[i].message, pg_last_error());
        assert_non_null(strstr(pg_last_error(), cases[i].file));
    }
}

typedef struct log_lines {
    int n;
    char last[512];
} log_lines;

static void keep_warning(void *user, int32_t level, const char *text) {
    log_lines *lines = user;
    if (level != PG_LOG_WARNING) return;
    snprintf(lines->last, sizeof lines->last, "%s", text);
    lines->n++;
}

/* Two images of a call are transparent: one warning; with PG_ENCODE_OVER_WHITE none, and other pixels. */
static void alpha_is_told_once_a_call(void **state) {
    (void)state;
    static const uint8_t clear[] = {9, 8, 7, 0, 9, 8, 7, 255};
    static const uint8_t white[] = {255, 255, 255, 9, 8, 7};
    pg_processor *usual = processor;
    log_lines lines = {0};
    pg_processor_options options;
    OK(pg_processor_options_init(&options, sizeof options));
    options.log = keep_warning;
    options.log_user = &lines;
    OK(pg_processor_open(folder, &options, &processor));
    call *c = rows_of(3, "a", "b", "c");
    with_images(c, 3);
    for (int i = 1; i < 3; i++)
        OK(pg_image_from_pixels(&c->images[i], sizeof(pg_image), PG_IMAGE_RGBA8, 2, 1, clear, 0));
    run(c);
    assert_int_equal(lines.n, 1);
    assert_non_null(strstr(lines.last, "1 more of 3 images"));
    assert_non_null(strstr(lines.last, "PG_ENCODE_OVER_WHITE"));
    run(c);
    assert_int_equal(lines.n, 2);
    c->options.flags = PG_ENCODE_OVER_WHITE;
    OK(pg_image_from_pixels(&c->images[2], sizeof(pg_image), PG_IMAGE_RGB8, 2, 1, white, 0));
    run(c);
    assert_int_equal(lines.n, 2);
    pg_tensor pixels = tensor("pixel_values");
    size_t one = (size_t)(3 * pixels.shape[2] * pixels.shape[3]);
    const float *data = pixels.data;
    assert_memory_equal(data + one, data + 2 * one, one * sizeof(float));
    pg_processor_close(&processor);
    processor = usual;
}

static void images_alone_are_fine(void **state) {
    (void)state;
    call *c = rows_of(0);
    with_images(c, 3);
    run(c);
    assert_int_equal(tensor("pixel_values").shape[0], 3);
    static const char *const names[] = {"input_ids",    "attention_mask", "token_type_ids", "labels",
                                        "position_ids", "image_counts",   "inputs_embeds"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        ERROR(pg_inputs_get_tensor(made, names[i], &(pg_tensor){.struct_size = sizeof(pg_tensor)}), PG_ERROR_NOT_FOUND);
    ARGUMENT(pg_inputs_get_row_info(made, 0, &(pg_row_info){.struct_size = sizeof(pg_row_info)}));
    with_suffixes(c, 1, "x");
    fails(c, PG_ERROR_ARGUMENT, "1 suffixes", "0 prompts");
    c = rows_of(0);
    fails(c, PG_ERROR_ARGUMENT, "0 prompts", "0 images");
}

static void bad_images_are_named(void **state) {
    (void)state;
    call *c = rows_of(2, "a", "b");
    with_counts(c, 2, 1, 2);
    with_images(c, 3);
    OK(pg_image_from_bytes(&c->images[2], sizeof c->images[2], "GIF89a", 6));
    fails(c, PG_ERROR_UNSUPPORTED, "row 1: image 1", "");
    c = rows_of(0);
    with_images(c, 3);
    c->images[1].path = "/nowhere";
    c->images[1].format = PG_IMAGE_PATH;
    fails(c, PG_ERROR_NOT_FOUND, "image 1", "/nowhere");
    with_images(c, 3);
    c->images[2].struct_size = 3;
    fails(c, PG_ERROR_ARGUMENT, "image 2", "struct_size is 3");
    with_images(c, 3);
    c->images[1].struct_size -= 8;
    fails(c, PG_ERROR_ARGUMENT, "image 1", "as in image 0");
    /* the last entry of an array on the heap: nothing behind it is read (a sanitizer sees it) */
    pg_image *array = malloc(2 * sizeof *array);
    assert_non_null(array);
    array[0] = array[1] = image;
    array[1].struct_size = 4096;
    c = rows_of(2, "a", "b");
    c->batch.n_images = 2;
    c->batch.images = array;
    fails(c, PG_ERROR_ARGUMENT, "image 1", "4096");
    free(array);
}

static void padding_has_a_limit(void **state) {
    (void)state;
    call *c = rows_of(2, "a", "b");
    c->options.pad_to_multiple_of = INT32_MAX;
    fails(c, PG_ERROR_LIMIT, "row 0", "2147483647");
    c->options.pad_to_multiple_of = 0;
    c->options.padding = PG_PADDING_MAX_LENGTH;
    c->options.max_length = (1 << 24) + 1;
    fails(c, PG_ERROR_LIMIT, "row 0", "16777217");
}

/* Rows of strangers: `<image>` is counted before it is expanded, the rest once it is cut. */
static void rows_have_a_limit(void **state) {
    (void)state;
    call *c = rows_of(2, "a", "<image><image>b");
    run(c);
    int64_t two = 0, one = 0;
    pg_row_info info = {.struct_size = sizeof info};
    assert_int_equal(pg_inputs_get_row_info(made, 1, &info), PG_OK);
    two = info.n_tokens;
    c = rows_of(1, "aaaa");
    run(c);
    assert_int_equal(pg_inputs_get_row_info(made, 0, &info), PG_OK);
    one = info.n_tokens;
    c = rows_of(2, "a", "<image><image>b");
    c->options.max_tokens = two;
    run(c);
    c->options.max_tokens = two - 1;
    fails(c, PG_ERROR_LIMIT, "row 1", "max_tokens");
    c->options.max_tokens = 1;
    fails(c, PG_ERROR_LIMIT, "row 1: found 2 images", "max_tokens is 1");
    c = rows_of(1, "aaaa");
    c->options.max_tokens = one - 1;
    fails(c, PG_ERROR_LIMIT, "row 0", "max_tokens");
    c->options.max_text_bytes = 3;
    fails(c, PG_ERROR_LIMIT, "row 0: found a prompt of 4 bytes", "max_text_bytes, 3");
    c->options.max_text_bytes = 4;
    truncate_to(c, one - 1, 0);
    run(c); /* what counts is the row after truncation */
}

/* One long row and many short ones. */
static void padding_of_a_batch_has_a_limit(void **state) {
    (void)state;
    enum { N = 600 };
    call *c = rows_of(1, "a");
    const char *prompts[N];
    char *text = malloc(30001);
    assert_non_null(text);
    for (int i = 0; i < 30000; i++) text[i] = i % 2 ? 'q' : 'z';
    text[30000] = 0;
    for (int i = 0; i < N; i++) prompts[i] = i ? "a" : text;
    c->batch.prompts = prompts;
    c->batch.n_prompts = N;
    fails(c, PG_ERROR_LIMIT, "600 rows", "16777216");
    c->batch.n_prompts = 2;
    run(c);
    free(text);
}

static void counts_must_fit(void **state) {
    (void)state;
    call *c = rows_of(2, "a", "b");
    with_suffixes(c, 1, "x");
    fails(c, PG_ERROR_ARGUMENT, "1 suffixes", "2 prompts");
    c = rows_of(2, "a", "b");
    c->batch.n_prompts = -1;
    fails(c, PG_ERROR_ARGUMENT, "n_prompts", "-1");
    c->batch.n_prompts = 2;
    c->batch.prompts = NULL;
    fails(c, PG_ERROR_ARGUMENT, "n_prompts is 2", "prompts is NULL");
    c = rows_of(2, "a", "b");
    c->batch.n_images = 1;
    fails(c, PG_ERROR_ARGUMENT, "n_images is 1", "images is NULL");
    c = rows_of(2, "a", "b");
    c->batch.suffix_sizes = (const uint64_t[]){1, 1};
    fails(c, PG_ERROR_ARGUMENT, "suffix_sizes", "without texts");
    pg_inputs *none = NULL;
    ARGUMENT(pg_processor_encode_batch(processor, NULL, NULL, &none));
    ARGUMENT(pg_processor_encode_batch(NULL, &c->batch, NULL, &none));
    ARGUMENT(pg_processor_encode_batch(processor, &c->batch, NULL, NULL));
}

static void options_have_ranges(void **state) {
    (void)state;
    call *c = rows_of(1, "a");
#define BAD(field, value, part)                    \
    do {                                           \
        pg_encode_options before = c->options;     \
        c->options.field = (value);                \
        fails(c, PG_ERROR_ARGUMENT, #field, part); \
        c->options = before;                       \
    } while (0)
    BAD(mode, 2, "2");
    BAD(mode, -1, "-1");
    BAD(padding, 3, "3");
    BAD(padding_side, 3, "3");
    BAD(truncation, 3, "3");
    BAD(truncation_side, -1, "-1");
    BAD(pad_to_multiple_of, -1, "-1");
    BAD(max_length, -1, "-1");
    BAD(max_length, INT64_MAX, "9223372036854775807");
    BAD(max_image_pixels, -1, "-1");
    BAD(max_tokens, -1, "-1");
    BAD(max_tokens, (1 << 24) + 1, "16777217");
    BAD(max_text_bytes, -1, "-1");
    BAD(max_text_bytes, 536870912, "536870912");
    BAD(flags, 1u << 20, "0x100000");
    BAD(flags, PG_ENCODE_KEEP_ENDS, "without PG_ENCODE_TRUNCATE");
    c->options.flags = PG_ENCODE_TRUNCATE | PG_ENCODE_KEEP_ENDS;
    BAD(truncation_side, PG_SIDE_LEFT, "tails only");
    c->options.flags = PG_ENCODE_TRUNCATE;
    c->options.pad_to_multiple_of = 8;
    BAD(max_length, 12, "multiple of pad_to_multiple_of, 8");
#undef BAD
    c->options.pad_to_multiple_of = 0; /* PG_ENCODE_TRUNCATE without any length cuts nothing */
    run(c);
    assert_row(0, 1, "a\n", NULL);
}

static void the_other_mode_is_reached(void **state) {
    (void)state;
    call *c = rows_of(2, "a <eos>", "b\n");
    with_suffixes(c, 2, "x", "y");
    with_images(c, 2);
    c->options.mode = PG_MODE_BIG_VISION;
    run(c);
    assert_int_equal(info_of(1).events, 0); /* its newline is a token of its own */
    const int64_t *ids = row_of("input_ids", 1) + info_of(1).first_token;
    assert_int_equal(ids[n_image + 2], newline_id);
    assert_int_equal(ids[n_image + 3], newline_id);
    assert_int_equal(info_of(1).n_suffix, 2);
    c->options.flags = PG_ENCODE_OPEN_SUFFIX;
    run(c);
    assert_int_equal(info_of(1).n_suffix, 1);
    pg_tensor theirs = tensor("pixel_values");
    size_t n = (size_t)(3 * theirs.shape[2] * theirs.shape[3]), differ = 0;
    float *pixels = malloc(n * sizeof *pixels);
    assert_non_null(pixels);
    memcpy(pixels, theirs.data, n * sizeof *pixels);
    c->options.mode = PG_MODE_HF;
    run(c);
    for (size_t i = 0; i < n; i++) differ += pixels[i] != ((const float *)tensor("pixel_values").data)[i];
    free(pixels);
    assert_in_range(differ, n / 2, n);
}

static void one_row_is_the_same(void **state) {
    (void)state;
    pg_inputs *one = NULL;
    call *c = rows_of(1, letters);
    with_images(c, 1);
    truncate_to(c, n_image + 4, 0);
    run(c);
    OK(pg_processor_encode(processor, &image, letters, &c->options, &one));
    static const char *const names[] = {"input_ids",    "attention_mask", "token_type_ids", "labels",
                                        "position_ids", "pixel_values",   "image_counts"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        pg_tensor a = tensor(names[i]), b = {.struct_size = sizeof b};
        OK(pg_inputs_get_tensor(one, names[i], &b));
        assert_memory_equal(a.shape, b.shape, sizeof a.shape);
        size_t n = a.dtype == PG_DTYPE_F32 ? sizeof(float) : sizeof(int64_t);
        for (int d = 0; d < a.n_dims; d++) n *= (size_t)a.shape[d];
        assert_memory_equal(a.data, b.data, n);
    }
    pg_inputs_close(&one);
    ERROR(pg_processor_encode(processor, &image, "<image><image>", NULL, &one), PG_ERROR_ARGUMENT);
    assert_non_null(strstr(pg_last_error(), "2 `<image>`"));
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_padded_and_labelled),
        cmocka_unit_test(lengths_are_rounded_and_filled),
        cmocka_unit_test(texts_may_hold_anything),
        cmocka_unit_test(events_tell_of_the_newline),
        cmocka_unit_test(images_are_counted),
        cmocka_unit_test(texts_may_place_images),
        cmocka_unit_test(suffixes_are_parsed_unless_literal),
        cmocka_unit_test(hf_cuts_the_longer_part),
        cmocka_unit_test(ends_can_be_kept),
        cmocka_unit_test(settings_of_the_tokenizer_are_defaults),
        cmocka_unit_test(settings_of_a_wrong_type_are_named),
        cmocka_unit_test(alpha_is_told_once_a_call),
        cmocka_unit_test(images_alone_are_fine),
        cmocka_unit_test(bad_images_are_named),
        cmocka_unit_test(padding_has_a_limit),
        cmocka_unit_test(rows_have_a_limit),
        cmocka_unit_test(padding_of_a_batch_has_a_limit),
        cmocka_unit_test(counts_must_fit),
        cmocka_unit_test(options_have_ranges),
        cmocka_unit_test(the_other_mode_is_reached),
        cmocka_unit_test(one_row_is_the_same),
    };
    return RUN_TESTS(tests, open_all, close_all);
}
