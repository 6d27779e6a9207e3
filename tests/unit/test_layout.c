/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* lib/processor/layout.h: `<image>` x N, bos, prompt, newline. The ids themselves are compared in test_tokenizer.c. */
#include "run_tests.h"

#include <string.h>

#include "base/file.h"
#include "checkpoint_files.h"
#include "processor/layout.h"
#include "tokenizer/tokenizer_load.h"

static pgi_tokenizer *tokenizer;
static pgi_id_list ids;
static int64_t image, bos;

static void find_specials(void) {
    image = pgi_tokenizer_special(tokenizer, PGI_TOKEN_IMAGE);
    bos = pgi_tokenizer_special(tokenizer, PGI_TOKEN_BOS);
}

static int open_tokenizer(void **state) {
    (void)state;
    pgi_id_list_init(&ids, MEMORY);
    if (pgi_tokenizer_open(MEMORY, PGI_GOLDEN_FOLDER "/tokenizers/json", 0, NULL, &tokenizer) != PG_OK) return -1;
    find_specials();
    return 0;
}

static int close_tokenizer(void **state) {
    (void)state;
    pgi_id_list_free(&ids);
    pgi_tokenizer_close(&tokenizer);
    return 0;
}

static uint32_t events;

static pgi_text text_of(const char *text) { return (pgi_text){text, strlen(text)}; }

static void layout(int32_t n, const char *prompt, int literal) {
    pgi_layout how = {tokenizer, n, literal, !literal && pgi_layout_count_images(text_of(prompt)) > 0};
    ids.size = 0;
    assert_int_equal(pgi_layout_prefix(&how, text_of(prompt), 1, &ids, &events), PG_OK);
}

static size_t count(int64_t id) {
    size_t n = 0;
    for (size_t i = 0; i < ids.size; i++) n += ids.data[i] == id;
    return n;
}

static void the_image_stands_in_front(void **state) {
    (void)state;
    int64_t newline = pgi_tokenizer_piece_id(tokenizer, "\n"), two = pgi_tokenizer_piece_id(tokenizer, "\n\n");
    for (int literal = 0; literal < 2; literal++) {
        layout(4, "", literal);
        assert_int_equal(ids.size, 6);
        for (int k = 0; k < 4; k++) assert_int_equal(ids.data[k], image);
        assert_int_equal(ids.data[4], bos);
        assert_int_equal(ids.data[5], newline);
        assert_int_equal(events, 0);
        layout(1, "\n", literal); /* the two newlines are one piece */
        assert_int_equal(ids.size, 3);
        assert_int_equal(ids.data[2], two);
        assert_int_equal(events, PG_ROW_NEWLINE_MERGED);
        layout(4096, "caption", literal);
        assert_int_equal(count(image), 4096);
    }
}

static void images_in_the_prompt(void **state) {
    (void)state;
    layout(3, "<image>cat", 0);
    assert_int_equal(count(image), 3);
    assert_int_equal(ids.data[3], bos);
    layout(3, "a <image> b <image>c", 0);
    assert_int_equal(count(image), 6);
    assert_int_equal(count(bos), 1);
    assert_true(ids.data[0] != image);
    size_t last = ids.size - 1;
    while (ids.data[last] != image) last--;
    assert_int_equal(ids.data[last + 1], bos); /* after the last image */
}

static void strangers_cannot_write_special_tokens(void **state) {
    (void)state;
    layout(3, "<image><bos><eos> x", 1);
    assert_int_equal(count(image), 3);
    assert_int_equal(count(bos), 1);
    assert_int_equal(count(pgi_tokenizer_special(tokenizer, PGI_TOKEN_EOS)), 0);
    layout(3, "<bos><eos> x", 0);
    assert_int_equal(count(bos), 2);
    assert_int_equal(count(pgi_tokenizer_special(tokenizer, PGI_TOKEN_EOS)), 1);
}

/* A copy of the tokenizer whose tokenizer.json has `to` instead of the first `from`. */
static void open_changed(const char *from, const char *to) {
    pgi_buffer file;
    pgi_buffer_init(&file, MEMORY);
    assert_int_equal(pgi_file_read(PGI_GOLDEN_FOLDER "/tokenizers/json/tokenizer_config.json", 1 << 20, &file), PG_OK);
    write_bytes("tokenizer_config.json", file.data, file.size);
    file.size = 0;
    assert_int_equal(pgi_file_read(PGI_GOLDEN_FOLDER "/tokenizers/json/tokenizer.json", 1 << 24, &file), PG_OK);
    char *at = strstr((char *)file.data, from), *text = malloc(file.size + strlen(to) + 1);
    assert_non_null(at);
    assert_non_null(text);
    sprintf(text, "%.*s%s%s", (int)(at - (char *)file.data), (char *)file.data, to, at + strlen(from));
    write_text("tokenizer.json", text);
    free(text);
    pgi_buffer_free(&file);
    assert_int_equal(pgi_tokenizer_open(MEMORY, folder, 0, NULL, &tokenizer), PG_OK);
    find_specials();
}

/* Whether bos takes the spaces behind it along. */
static void layout_with_spaces(int strips, pgi_tokenizer *with) {
    tokenizer = with;
    layout(1, "cat", 0);
    size_t n = ids.size;
    layout(1, "  cat", 0);
    assert_int_equal(ids.size == n, strips);
}

/* Images and bos go by their ids only when that cannot be seen: HF tokenizes one text, and these tokenizers have tokens
 * that reach over the borders. */
static void neighbours_of_bos_are_seen(void **state) {
    pgi_tokenizer *kept = tokenizer;
    static const char first[] = "\"added_tokens\":[";
    static const char added[] =
        "\"added_tokens\":[{\"id\":9999,\"content\":\"%s\",\"single_word\":false,"
        "\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":true},";
    char text[512];
    assert_int_equal(make_folder(state), 0);
    snprintf(text, sizeof text, added, "<bos>c");
    open_changed(first, text);
    layout(2, "cat", 0);
    assert_int_equal(count(image), 2);
    assert_int_equal(count(bos), 0);
    assert_int_equal(ids.data[2], pgi_tokenizer_piece_id(tokenizer, "<bos>c"));
    layout(2, "at", 0);
    assert_int_equal(count(bos), 1);
    pgi_tokenizer_close(&tokenizer);

    snprintf(text, sizeof text, added, "<image><image>");
    open_changed(first, text);
    layout(3, "cat", 0);
    assert_int_equal(count(image), 1); /* the third */
    assert_int_equal(ids.data[0], pgi_tokenizer_piece_id(tokenizer, "<image><image>"));
    pgi_tokenizer_close(&tokenizer);

    static const char bos_token[] = "\"content\":\"<bos>\",\"single_word\":false,\"lstrip\":false,\"rstrip\":";
    snprintf(text, sizeof text, "%strue", bos_token);
    char before[sizeof bos_token + 8];
    snprintf(before, sizeof before, "%sfalse", bos_token);
    layout_with_spaces(0, kept);
    open_changed(before, text);
    layout_with_spaces(1, tokenizer);
    pgi_tokenizer_close(&tokenizer);
    tokenizer = kept;
    find_specials();
    assert_int_equal(remove_folder(state), 0);
}

static void the_offset_is_the_prompts(void **state) {
    (void)state;
    ids.size = 0;
    for (int literal = 0; literal < 2; literal++) {
        pgi_layout how = {tokenizer, 256, literal, 0};
        assert_error(pgi_layout_prefix(&how, text_of("caption \xC3("), 1, &ids, &events), PG_ERROR_ARGUMENT, "byte 8",
                     "0xC3");
        assert_error(pgi_layout_suffix(&how, text_of("a\xFF"), 0, &ids), PG_ERROR_ARGUMENT, "the suffix", "byte 1");
    }
    assert_int_equal(ids.size, 0);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_image_stands_in_front),
        cmocka_unit_test(images_in_the_prompt),
        cmocka_unit_test(strangers_cannot_write_special_tokens),
        cmocka_unit_test(neighbours_of_bos_are_seen),
        cmocka_unit_test(the_offset_is_the_prompts),
    };
    return RUN_TESTS(tests, open_tokenizer, close_tokenizer);
}
