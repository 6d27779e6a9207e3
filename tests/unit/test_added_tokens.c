/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* lib/tokenizer/added_tokens.c against the rule itself: at each byte the longest token that begins there, else on. */
#include "run_tests.h"

#include <stdlib.h>
#include <string.h>

#include "support.h"
#include "tokenizer/added_tokens.h"

enum { MOST = 60, TEXT = 5000 };

typedef struct parts {
    bytes text; /* what came, each part behind its token's id and a colon */
} parts;

static pg_status take(void *user, const pgi_added_token *token, const char *text, size_t size) {
    parts *p = user;
    bytes_printf(&p->text, "|%lld:", token ? (long long)token->id : -1LL);
    bytes_add(&p->text, text, size);
    return PG_OK;
}

/* The rule, at the speed of reading it. texts[i]: of id i. */
static void naive(char (*texts)[200], int n, const uint8_t *special, int literal, const char *text, size_t size,
                  parts *out) {
    size_t done = 0;
    for (size_t at = 0; at < size;) {
        int found = -1;
        size_t longest = 0;
        for (int i = 0; i < n; i++) {
            const size_t length = strlen(texts[i]);
            if (length > longest && length <= size - at && memcmp(text + at, texts[i], length) == 0)
                found = i, longest = length;
        }
        if (found < 0 || (literal && special[found])) {
            at += found < 0 ? 1 : longest;
            continue;
        }
        if (done < at) take(out, NULL, text + done, at - done);
        take(out, &(pgi_added_token){.id = found}, text + at, longest);
        done = at += longest;
    }
    if (done < size) take(out, NULL, text + done, size - done);
}

/* Another token begins with this one. */
static int begins(char (*texts)[200], int n, int which) {
    for (int i = 0; i < n; i++)
        if (i != which && strncmp(texts[i], texts[which], strlen(texts[which])) == 0) return 1;
    return 0;
}

static void tokens_are_found_by_the_rule(void **state) {
    static char texts[MOST][200], text[TEXT + 1];
    uint8_t special[MOST];
    (void)state;
    rng r = {11};
    for (int round = 0; round < 300; round++) {
        pgi_vocab vocab;
        pgi_added_tokens tokens;
        int n = 0;
        const uint64_t n_letters = 1 + rng_below(&r, 4), longest = 1 + rng_below(&r, round % 10 ? 8 : 190);
        pgi_vocab_init(&vocab, &pgi_memory_default);
        pgi_added_tokens_init(&tokens, &pgi_memory_default);
        for (uint64_t wanted = 1 + rng_below(&r, MOST); wanted > 0; wanted--) {
            const size_t size = 1 + (size_t)rng_below(&r, longest);
            for (size_t k = 0; k < size; k++) texts[n][k] = (char)('a' + rng_below(&r, n_letters));
            texts[n][size] = 0;
            int twice = 0;
            for (int i = 0; i < n; i++) twice |= strcmp(texts[i], texts[n]) == 0;
            if (twice) continue;
            special[n] = rng_below(&r, 3) == 0;
            assert_int_equal(
                pgi_added_tokens_add(&tokens, &vocab, texts[n], size, (pgi_token_flags){.special = special[n]}, "file"),
                PG_OK);
            n++;
        }
        assert_int_equal(pgi_added_tokens_finish(&tokens, &vocab, 0, NULL, "file"), PG_OK);
        const size_t size = (size_t)rng_below(&r, round % 7 ? 60 : TEXT);
        for (size_t k = 0; k < size; k++) text[k] = (char)('a' + rng_below(&r, n_letters + rng_below(&r, 2)));
        for (int literal = PGI_PARSED; literal <= PGI_LITERAL; literal++) {
            parts found = {0}, wanted = {0};
            bytes_text(&found.text, "");
            bytes_text(&wanted.text, "");
            assert_int_equal(pgi_added_tokens_split(&tokens, &tokens.raw, text, size, literal, take, &found), PG_OK);
            naive(texts, n, special, literal, text, size, &wanted);
            assert_int_equal(found.text.size, wanted.text.size);
            assert_memory_equal(found.text.data, wanted.text.data, wanted.text.size);
            bytes_free(&found.text);
            bytes_free(&wanted.text);
        }
        for (int i = 0; i < n; i++) assert_int_equal(pgi_added_tokens_stands_alone(&tokens, i), !begins(texts, n, i));
        pgi_added_tokens_free(&tokens);
        pgi_vocab_free(&vocab);
    }
}

/* Tokens whose spaces were replaced are longer as they are found. */
static void replaced_spaces_are_long(void **state) {
    static const char spaces[] = "   ", marked[] = "\xE2\x96\x81";
    (void)state;
    pgi_vocab vocab;
    pgi_added_tokens tokens;
    parts found = {0};
    bytes text = {0}, wanted = {0};
    pgi_vocab_init(&vocab, &pgi_memory_default);
    pgi_added_tokens_init(&tokens, &pgi_memory_default);
    assert_int_equal(pgi_added_tokens_add(&tokens, &vocab, spaces, 3, (pgi_token_flags){.normalized = 1}, "file"),
                     PG_OK);
    assert_int_equal(pgi_added_tokens_finish(&tokens, &vocab, 1, NULL, "file"), PG_OK);
    for (int i = 0; i < 1000; i++) bytes_text(&text, marked);
    for (int i = 0; i < 333; i++) bytes_printf(&wanted, "|0:%s%s%s", marked, marked, marked);
    bytes_printf(&wanted, "|-1:%s", marked);
    assert_int_equal(
        pgi_added_tokens_split(&tokens, &tokens.normalized, (char *)text.data, text.size, PGI_PARSED, take, &found),
        PG_OK);
    assert_int_equal(found.text.size, wanted.size);
    assert_memory_equal(found.text.data, wanted.data, wanted.size);
    assert_int_equal(pgi_added_tokens_stands_alone(&tokens, 0), 0);
    bytes_free(&found.text);
    bytes_free(&wanted);
    bytes_free(&text);
    pgi_added_tokens_free(&tokens);
    pgi_vocab_free(&vocab);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_are_found_by_the_rule),
        cmocka_unit_test(replaced_spaces_are_long),
    };
    return RUN_TESTS(tests, NULL, NULL);
}
