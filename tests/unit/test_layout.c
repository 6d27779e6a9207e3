/* lib/processor/layout.h: `<image>` x N, bos, prompt, newline. The ids themselves are compared in test_tokenizer.c. */
#include "run_tests.h"

#include <string.h>

#include "checkpoint_files.h"
#include "processor/layout.h"
#include "tokenizer/tokenizer_load.h"

static pgi_tokenizer *tokenizer;
static pgi_id_list ids;
static int64_t image, bos;

static int open_tokenizer(void **state) {
    (void)state;
    pgi_id_list_init(&ids, MEMORY);
    if (pgi_tokenizer_open(MEMORY, PGI_GOLDEN_FOLDER "/tokenizers/json", &tokenizer) != PG_OK) return -1;
    image = pgi_tokenizer_special(tokenizer, PGI_TOKEN_IMAGE);
    bos = pgi_tokenizer_special(tokenizer, PGI_TOKEN_BOS);
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
        cmocka_unit_test(the_offset_is_the_prompts),
    };
    return RUN_TESTS(tests, open_tokenizer, close_tokenizer);
}
