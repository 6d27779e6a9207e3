/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* lib/checkpoint/name_pattern.h: the answers of Python's re (name_pattern_cases.h), what is refused, and the limits. */
#include "run_tests.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checkpoint/name_pattern.h"
#include "name_pattern_cases.h"
#include "small_stack.h"
#include "support.h"

#define MEMORY (&pgi_memory_default)
#define COUNT(array) (sizeof(array) / sizeof *(array))
#define WHERE "adapter_config.json: target_modules"
enum { SECONDS = 60 }; /* where an exponential matcher would take years */

/* The status; and that the message has both parts (either may be NULL). */
static void assert_error(pg_status found, pg_status expected, const char *first, const char *second) {
    const char *text = found < 0 ? pgi_error_text() : "";
    if (found != expected)
        fail_msg("found %s (%s), expected %s", pg_status_name(found), text, pg_status_name(expected));
    if (first && !strstr(text, first)) fail_msg("message \"%s\" lacks \"%s\"", text, first);
    if (second && !strstr(text, second)) fail_msg("message \"%s\" lacks \"%s\"", text, second);
}

static pg_status compile_bytes(const char *pattern, size_t size, pgi_name_pattern **out) {
    /* it ends where the pattern does, so that a sanitizer sees a read behind it */
    char *exact = malloc(size ? size : 1);
    memcpy(exact, pattern, size);
    const pg_status status = pgi_name_pattern_compile(MEMORY, WHERE, exact, size, out);
    free(exact);
    if (status < 0) assert_null(*out);
    return status;
}

static pg_status compile(const char *pattern, pgi_name_pattern **out) {
    return compile_bytes(pattern, strlen(pattern), out);
}

static int matches(const char *pattern, const char *name, int is_whole) {
    pgi_name_pattern *compiled;
    if (compile(pattern, &compiled) != PG_OK) fail_msg("%s: %s", pattern, pgi_error_text());
    char *exact = malloc(strlen(name) + 1);
    memcpy(exact, name, strlen(name));
    const int is_match = pgi_name_pattern_matches(compiled, exact, strlen(name), is_whole);
    free(exact);
    pgi_name_pattern_free(compiled);
    return is_match;
}

#define WHOLE(pattern, name) matches(pattern, name, 1)
#define BEGIN(pattern, name) matches(pattern, name, 0)

/* ---- the answers of Python ---- */

static void compare(const name_pattern_case *it, const char *const *names, size_t n_names, size_t *n_answers) {
    pgi_name_pattern *compiled;
    const pg_status status = compile(it->pattern, &compiled);
    if (it->what != '=') {
        const int is_well = status == PG_ERROR_UNSUPPORTED || (it->what == 'r' && status == PG_ERROR_FORMAT);
        if (!is_well) fail_msg("%s: %s", it->pattern, pg_status_name(status));
        return;
    }
    if (status != PG_OK) fail_msg("%s: %s", it->pattern, pgi_error_text());
    for (size_t i = 0; i < n_names; i++)
        for (int is_whole = 0; is_whole < 2; is_whole++) {
            const int expected = (int)((is_whole ? it->whole : it->begin) >> i & 1);
            const int found = pgi_name_pattern_matches(compiled, names[i], strlen(names[i]), is_whole);
            if (found != expected)
                fail_msg("%s with \"%s\", %s: found %d, Python says %d", it->pattern, names[i],
                         is_whole ? "fullmatch" : "match", found, expected);
            ++*n_answers;
        }
    pgi_name_pattern_free(compiled);
}

static void patterns_of_adapters_are_pythons(void **state) {
    (void)state;
    size_t n = 0;
    for (size_t i = 0; i < COUNT(real_cases); i++) compare(&real_cases[i], real_names, COUNT(real_names), &n);
    assert_true(n > 5000);
}

static void random_patterns_are_pythons(void **state) {
    (void)state;
    size_t n = 0;
    for (size_t i = 0; i < COUNT(random_cases); i++) compare(&random_cases[i], random_names, COUNT(random_names), &n);
    assert_true(n > 150000);
}

/* What the tables do not have; each was asked of Python 3.11. */
static void some_more_are_pythons(void **state) {
    (void)state;
    static const struct {
        const char *pattern, *name;
        int whole, begin;
    } cases[] = {
        {"", "", 1, 1},
        {"^$\\A\\Z", "", 1, 1},
        {"\\b", "", 0, 0},
        {"\\B", "", 0, 0}, /* Python 3.14 says 1 */
        {"(a*)*", "", 1, 1},
        {"a$", "a\n", 0, 1},
        {"a$\n", "a\n", 1, 1},
        {"a\\Z", "a\n", 0, 0},
        {"a$", "a\n\n", 0, 0},
        {"[\\b]\\a\\f\\n\\r\\t\\v", "\b\a\f\n\r\t\v", 1, 1},
        {"\\s+", " \t\n\v\f\r\x1c\x1d\x1e\x1f", 1, 1},
        {"[^\\s]", "\x1c", 0, 0},
        {"\\\\\\/\\\"\\-\\_\\ ", "\\/\"-_ ", 1, 1},
        {"[]-a]+", "]^_`a", 1, 1},
        {"[^]-a]", "_", 0, 0},
        {"[a-]+[-a]+[\\d-]+", "-a-a1-", 1, 1},
        {"[+--]", ",", 1, 1},
        {"[[:alpha:]]", ":]", 1, 1}, /* a class of [:alph, and a bracket */
        {"a{,}", "aaa", 1, 1},
        {"a{}", "a{}", 1, 1},
        {"a{1", "a{1", 1, 1},
        {"a{1,b}", "a{1,b}", 1, 1},
        {"a{ 1}", "a{ 1}", 1, 1},
        {"a{02}?b{2,2}", "aabb", 1, 1},
        {"a{0}b", "b", 1, 1},
        {"(?:abcdefgh){0}", "", 1, 1},
        {"(?:ab|c){2,3}", "abcab", 1, 1},
        {"(?:ab|c){2,3}", "abcabc", 0, 1},
        {"((){1000}){1000}a", "a", 1, 1},
        {"(?P<a>x)(?P<b>y)(?P<ab>z)", "xyz", 1, 1},
        {"(\\b|a){3}", "a", 1, 1},
        {"(a|$){4}", "aa", 1, 1},
        {"\\bb\\b.\\Bb", "b.b", 0, 0},
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        for (int is_whole = 0; is_whole < 2; is_whole++)
            if (matches(cases[i].pattern, cases[i].name, is_whole) != (is_whole ? cases[i].whole : cases[i].begin))
                fail_msg("%s with \"%s\", is_whole %d", cases[i].pattern, cases[i].name, is_whole);
}

static void a_byte_0_is_a_character(void **state) {
    (void)state;
    pgi_name_pattern *compiled;
    assert_int_equal(compile_bytes("a\0[\0]\\\0", 7, &compiled), PG_OK);
    assert_int_equal(pgi_name_pattern_matches(compiled, "a\0\0\0", 4, 1), 1);
    assert_int_equal(pgi_name_pattern_matches(compiled, "a\0\0", 3, 1), 0);
    pgi_name_pattern_free(compiled);
    assert_error(compile_bytes("(?\0)", 4, &compiled), PG_ERROR_FORMAT, "unknown extension", NULL);
}

static void characters_beyond_ascii_are_single(void **state) {
    (void)state;
    assert_true(WHOLE("\xC3\xA9*\\\xC3\xA9.", "\xC3\xA9\xC3\xA9\xC3\xA9\xF0\x9F\x98\x80"));
    assert_false(WHOLE("\xC3\xA9*", "\xC3\xA9\xA9"));
    assert_false(WHOLE("..", "\xC3\xA9"));
    assert_true(WHOLE("[^a][^\\d]", "\xC3\xA9\xE2\x82\xAC"));
    assert_true(WHOLE("\\W\\D\\S[\\W]", "\xE2\x82\xAC\xE2\x82\xAC\xE2\x82\xAC\xE2\x82\xAC"));
    assert_false(WHOLE("[a-z]|\\d|\\s|[^\\W]", "\xE2\x82\xAC"));
    assert_false(WHOLE(".*", "a\xC3")); /* no UTF-8 */
    assert_false(WHOLE("[^a]*", "\xFF"));
    assert_true(BEGIN("a", "a\xFF"));
}

/* ---- what is refused ---- */

static void what_python_refuses(void **state) {
    (void)state;
    static const struct {
        const char *pattern, *message;
    } cases[] = {
        {"*a", "position 0: nothing to repeat"},
        {"a|?", "position 2: nothing to repeat"},
        {"({2})", "position 1: nothing to repeat"},
        {"^*", "position 1: nothing to repeat"},
        {"a\\b+", "position 3: nothing to repeat"},
        {"a**", "position 2: multiple repeat"},
        {"a{1,1000}{1,1000}", "position 9: multiple repeat"},
        {"a+??", "position 3: multiple repeat"},
        {"a{3,2}", "position 1: min repeat greater than max repeat"},
        {"a(b", "position 1: missing ), unterminated subpattern"},
        {"a)b", "position 1: unbalanced parenthesis"},
        {"x[ab", "position 1: unterminated character set"},
        {"x[]", "position 1: unterminated character set"},
        {"[a-", "position 0: unterminated character set"},
        {"[b-a]", "position 1: bad character range"},
        {"[\\w-a]", "position 1: bad character range"},
        {"[a-\\d]", "position 1: bad character range"},
        {"a\\", "position 1: bad escape (end of pattern)"},
        {"[\\", "position 1: bad escape (end of pattern)"},
        {"\\q", "position 0: bad escape"},
        {"[\\B]", "position 1: bad escape"},
        {"(?", "position 0: unexpected end of pattern"},
        {"(?P<>a)", "position 4: missing group name"},
        {"(?P<a", "position 4: missing >, unterminated name"},
        {"(?P<1>a)", "position 4: bad character in group name"},
        {"(?P<a.>a)", "position 4: bad character in group name"},
        {"(?P<a>a)|(?P<ab>a)|(?P<a>a)", "position 23: redefinition of a group name"},
        {"(?Pa)", "position 0: unknown extension ?P"},
        {"(?<a>a)", "position 0: unknown extension ?<"},
        {"(?*)", "position 0: unknown extension"},
        {"\xFF", "position 0: bytes that are no UTF-8"},
    };
    pgi_name_pattern *compiled;
    for (size_t i = 0; i < COUNT(cases); i++) {
        const pg_status status = compile(cases[i].pattern, &compiled);
        assert_error(status, PG_ERROR_FORMAT, cases[i].message, NULL);
    }
    assert_error(compile("a**", &compiled), PG_ERROR_FORMAT, WHERE ": pattern \"a**\", position 2: multiple repeat",
                 NULL);
}

static void what_is_not_supported(void **state) {
    (void)state;
    static const struct {
        const char *pattern, *message;
    } cases[] = {
        {"a(?=b)", "position 1: a lookahead is not supported"},
        {"a(?!b)", "position 1: a lookahead is not supported"},
        {"(?<=b)", "position 0: a lookbehind is not supported"},
        {"(?<!b)", "position 0: a lookbehind is not supported"},
        {"(a)\\1", "position 3: a back reference is not supported"},
        {"(?P<a>x)(?P=a)", "position 8: a back reference is not supported"},
        {"(?i)a", "position 0: flags are not supported"},
        {"(?-i:a)", "position 0: flags are not supported"},
        {"(a)(?(1)b|c)", "position 3: a conditional group is not supported"},
        {"(?>a)", "position 0: an atomic group is not supported"},
        {"(?#a)", "position 0: a comment is not supported"},
        {"a*+", "position 1: a possessive quantifier is not supported"},
        {"a{2}+", "position 1: a possessive quantifier is not supported"},
        {"\\p{L}", "position 0: a class of Unicode"},
        {"\\x41", "position 0: a character by its number"},
        {"[\\u0041]", "position 1: a character by its number"},
        {"\\012", "position 0: an octal escape"},
        {"[\\1]", "position 1: an octal escape"},
        {"a\\z", "position 1: \\z is not supported"},
        {"[a\xC3\xA9]", "position 2: a character beyond ASCII in a class"},
        {"[a-\\\xC3\xA9]", "position 3: a character beyond ASCII in a class"},
        {"(?P<\xC3\xA9>a)", "position 4: a group name beyond ASCII"},
    };
    pgi_name_pattern *compiled;
    for (size_t i = 0; i < COUNT(cases); i++)
        assert_error(compile(cases[i].pattern, &compiled), PG_ERROR_UNSUPPORTED, cases[i].message,
                     WHERE ": pattern \"");
}

static void messages_show_the_beginning(void **state) {
    (void)state;
    char text[200];
    pgi_name_pattern *compiled;
    memset(text, 'a', sizeof text);
    memcpy(text + 59, "\xC3\xA9", 2); /* cut before it */
    memcpy(text + 197, "(?!", 3);
    text[0] = 'b';
    assert_error(compile_bytes(text, sizeof text, &compiled), PG_ERROR_UNSUPPORTED,
                 "aaa...\", position 197: a lookahead", "pattern \"baaa");
    const char *shown = strchr(pgi_error_text(), '"') + 1;
    assert_int_equal(strcspn(shown, "."), 59);
}

/* ---- limits ---- */

/* `n` times `part`, then `rest`. */
static char *repeated(int n, const char *part, const char *rest) {
    const size_t size = strlen(part);
    char *text = malloc((size_t)n * size + strlen(rest) + 1);
    for (int i = 0; i < n; i++) memcpy(text + (size_t)i * size, part, size);
    memcpy(text + (size_t)n * size, rest, strlen(rest) + 1);
    return text;
}

static void assert_limit(char *text, const char *message) {
    pgi_name_pattern *compiled;
    const pg_status status = compile(text, &compiled);
    pgi_name_pattern_free(compiled);
    free(text);
    assert_error(status, message ? PG_ERROR_LIMIT : PG_OK, message, message ? WHERE : NULL);
}

static void limits_are_kept(void **state) {
    (void)state;
    assert_limit(repeated(4096, "a", ""), NULL);
    assert_limit(repeated(4097, "a", ""), "position 4096: the pattern is too long");
    assert_limit(repeated(4096, "(", ""), "position 32: groups are nested too deep");
    assert_limit(repeated(33, "(?:", ""), "position 96: groups are nested too deep");
    assert_limit(repeated(32, "(", "a))))))))))))))))))))))))))))))))"), NULL);
    assert_limit(repeated(1000, "(a)", ""), NULL); /* one after the other */
    assert_limit(repeated(1, "a{65535}", ""), NULL);
    assert_limit(repeated(1, "a{65536}", ""), "too many instructions");
    assert_limit(repeated(1, "a{65534,}", ""), NULL);
    assert_limit(repeated(1, "a{65535,}", ""), "too many instructions");
    assert_limit(repeated(1, "a{0,32767}", ""), NULL);
    assert_limit(repeated(1, "a{0,32768}", ""), "too many instructions");
    assert_limit(repeated(1, "a{65535}", "|"), "too many instructions");
    assert_limit(repeated(1, "a{65535}", "b{0}"), NULL);
    assert_limit(repeated(1, "((a{1,1000}){1,1000})", ""), "too many instructions");
    assert_limit(repeated(1, "a{4294967294}", ""), "too many instructions");
    assert_limit(repeated(1, "((){4294967294}){4294967294}", ""), NULL); /* nothing, often */
    assert_limit(repeated(1, "(){2,4294967294}", ""), NULL);
    assert_limit(repeated(1, "a{4294967295}", ""), "the repetition number is too large"); /* Python: OverflowError */
    assert_limit(repeated(1, "a{,99999999999999999999999999}", ""), "the repetition number is too large");
}

static void names_of_groups_are_many(void **state) {
    (void)state;
    char text[PGI_NAME_PATTERN_MAX_SIZE + 1], *at = text;
    pgi_name_pattern *compiled;
    for (int i = 0; i < 400; i++) at += sprintf(at, "(?P<a%d>)", i);
    assert_int_equal(compile(text, &compiled), PG_OK);
    pgi_name_pattern_free(compiled);
    strcpy(at, "(?P<a0>)");
    assert_error(compile(text, &compiled), PG_ERROR_FORMAT, "redefinition of a group name", NULL);
}

/* ---- patterns that take a backtracking matcher for ever ---- */

static void *attack(void *unused) {
    static const char *const patterns[] = {"(a*)*b",
                                           "(a|aa)+$",
                                           "(a|a)*b",
                                           "(a*)*(a*)*(a*)*b",
                                           "((a?){30}){9}b",
                                           "(.*)(.*)(.*)(.*)(.*)b",
                                           "((a{1,20}){1,20}){1,20}b",
                                           "(((((a*)*)*)*)*)*b",
                                           "(a{0,40}){0,40}b",
                                           "(()|a|\\b|\\B|$)*b"};
    char name[1025];
    (void)unused;
    memset(name, 'a', sizeof name - 1);
    name[sizeof name - 1] = 0;
    for (size_t i = 0; i < COUNT(patterns); i++) {
        const int is_odd = strcmp(patterns[i], "(a|aa)+$") == 0; /* the only one without a b */
        name[1023] = 'a';
        if (WHOLE(patterns[i], name) != is_odd || BEGIN(patterns[i], name) != is_odd) return (void *)patterns[i];
        name[1023] = 'b';
        if (WHOLE(patterns[i], name + 964) == is_odd) return (void *)patterns[i];
    }
    return NULL;
}

static void hostile_patterns_end(void **state) {
    (void)state;
    pthread_attr_t attributes;
    pthread_t thread;
    void *bad;
    pthread_attr_init(&attributes);
    assert_int_equal(pthread_attr_setstacksize(&attributes, small_stack()), 0);
    alarm(SECONDS);
    assert_int_equal(pthread_create(&thread, &attributes, attack, NULL), 0);
    assert_int_equal(pthread_join(thread, &bad), 0);
    alarm(0);
    pthread_attr_destroy(&attributes);
    if (bad) fail_msg("%s: another answer", (const char *)bad);
}

/* ---- memory ---- */

static void memory_that_is_short_is_told(void **state) {
    (void)state;
    counter c;
    pgi_memory memory;
    pgi_name_pattern *compiled;
    static const char pattern[] = "(?:a|[bc]+){2,30}\\.x|y";
    counter_init(&c);
    assert_int_equal(pgi_memory_from_allocator(&c.hooks, &memory), PG_OK);
    c.fail_at = 1;
    assert_error(pgi_name_pattern_compile(&memory, WHERE, pattern, strlen(pattern), &compiled), PG_ERROR_MEMORY, NULL,
                 NULL);
    assert_null(compiled);
    assert_int_equal(pgi_name_pattern_compile(&memory, WHERE, pattern, strlen(pattern), &compiled), PG_OK);
    c.fail_from = 3; /* one was all, and a match needs none */
    assert_int_equal(pgi_name_pattern_matches(compiled, "abca.x", 6, 1), 1);
    assert_int_equal(c.n_allocs, 2);
    pgi_name_pattern_free(compiled);
    assert_error(pgi_name_pattern_compile(&memory, WHERE, "(", 1, &compiled), PG_ERROR_FORMAT, NULL, NULL);
    assert_int_equal(c.n_allocs, 2); /* what is wrong is found before */
    assert_true(counter_clean(&c));
    pgi_name_pattern_free(NULL);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patterns_of_adapters_are_pythons),
        cmocka_unit_test(random_patterns_are_pythons),
        cmocka_unit_test(some_more_are_pythons),
        cmocka_unit_test(a_byte_0_is_a_character),
        cmocka_unit_test(characters_beyond_ascii_are_single),
        cmocka_unit_test(what_python_refuses),
        cmocka_unit_test(what_is_not_supported),
        cmocka_unit_test(messages_show_the_beginning),
        cmocka_unit_test(limits_are_kept),
        cmocka_unit_test(names_of_groups_are_many),
        cmocka_unit_test(hostile_patterns_end),
        cmocka_unit_test(memory_that_is_short_is_told),
    };
    return RUN_TESTS(tests, NULL, NULL);
}
