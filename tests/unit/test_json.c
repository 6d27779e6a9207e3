/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* lib/checkpoint/json.h, json_reader.h, json_number.h: one reader, trees of small files, numbers as Python reads them.
 */
#include "run_tests.h"

#include <locale.h>
#include <math.h>
#include <pthread.h>

#include "checkpoint/json.h"
#include "checkpoint/json_number.h"
#include "checkpoint_files.h"
#include "small_stack.h"

static pgi_json_doc doc;

static pg_status parse(const char *text, pgi_json_rules rules, const pgi_json **out) {
    pgi_json_doc_free(&doc);
    pgi_json_doc_init(&doc, MEMORY);
    return pgi_json_parse(&doc, "x.json", text, strlen(text), rules, out);
}

static pg_status load(const char *path, size_t max_size, const pgi_json **out) {
    pgi_json_doc_free(&doc);
    pgi_json_doc_init(&doc, MEMORY);
    return pgi_json_load(&doc, path, max_size, PGI_JSON_STRICT, out);
}

static int teardown(void **state) {
    pgi_json_doc_free(&doc);
    return remove_folder(state);
}

static void json_is_dumped_as_it_was(void **state) {
    (void)state;
    static const char text[] =
        "{\"a\":[1,-2,1e-6,0.1,30.0,10000.0,1.7976931348623157e308],\"b\":{\"c\":null,\"d\":true,\"e\":false},"
        "\"f\\\"\":\"\\u00e9\\n\",\"g\":[],\"h\":{},\"i\":9007199254740993,\"j\":0.30000000000000004}";
    const pgi_json *node;
    pgi_buffer out;
    pgi_buffer_init(&out, MEMORY);
    assert_int_equal(parse(text, PGI_JSON_STRICT, &node), PG_OK);
    assert_int_equal(pgi_json_dump(node, &out), PG_OK);
    assert_string_equal(
        out.data,
        "{\"a\":[1,-2,1e-6,0.1,30.0,10000.0,1.7976931348623157e308],\"b\":{\"c\":null,\"d\":true,\"e\":false},"
        "\"f\\\"\":\"\xC3\xA9\\n\",\"g\":[],\"h\":{},\"i\":9007199254740993,\"j\":0.30000000000000004}");
    pgi_buffer_free(&out);
}

static void json_errors_name_the_place(void **state) {
    (void)state;
    const pgi_json *node;
    write_text("a.json", "{\n\"a\": 1,\n\"b\": nan}");
    assert_error(load(in_folder("a.json"), 1000, &node), PG_ERROR_FORMAT, "a.json: line 3", "column");
    assert_error(load(in_folder("a.json"), 5, &node), PG_ERROR_LIMIT, "a.json", NULL);
    assert_error(load(in_folder("b.json"), 5, &node), PG_ERROR_NOT_FOUND, "b.json", NULL);
    write_text("a.json", "[1, 2]");
    assert_error(load(in_folder("a.json"), 1000, &node), PG_ERROR_FORMAT, "found an array of 2",
                 "expected a JSON object");
    write_text("a.json", "{\"a\": 1, \"a\": 2}");
    assert_error(load(in_folder("a.json"), 1000, &node), PG_ERROR_FORMAT, "duplicate", NULL);
    write_text("a.json", "");
    assert_error(load(in_folder("a.json"), 1000, &node), PG_ERROR_FORMAT, "a.json", NULL);
}

/* What Python's json refuses, and what it takes but a strict reader does not. */
static void what_is_refused(void **state) {
    (void)state;
    static const struct {
        const char *text, *first, *second;
        int as_python; /* refused there, too */
    } cases[] = {
        {"", "line 1, column 1", "the end of the file", 1},
        {"{", "line 1, column 2", "the end of the file", 1},
        {"{}x", "column 3", "'x'", 1},
        {"{\"a\":1,}", "column 8", "a key", 1},
        {"{\"a\" 1}", "column 6", "':'", 1},
        {"{\"a\":[1,]}", "column 9", "a value", 1},
        {"{\"a\":[1 2]}", "column 9", "',' or ']'", 1},
        {"{\"\xC3\xA9\":x}", "column 6", "a value", 1}, /* columns are characters */
        {"{\"a\":01}", "column 7", "',' or '}'", 1},
        {"{\"a\":1.}", "column 8", "a digit", 1},
        {"{\"a\":.5}", "column 6", "a value", 1},
        {"{\"a\":-}", "column 7", "a digit", 1},
        {"{\"a\":1e}", "column 8", "a digit", 1},
        {"{\"a\":+1}", "column 6", "a value", 1},
        {"{\"a\":tru}", "column 6", "a value", 1},
        {"{\"a\":\"\n\"}", "column 7", "the end of the string", 1},
        {"{\"a\":\"\\x\"}", "column 7", "a valid escape", 1},
        {"{\"a\":\"\\u12g4\"}", "column 7", "four hexadecimal digits", 1},
        {"{\"a\":\"\\ud800\"}", "column 7", "a whole surrogate pair", 1},
        {"{\"a\":\"\x80\"}", "column 7", "valid UTF-8", 1},
        {"{\"a\\u0000b\":1}", "column 2", "in a key", 1},
        {"{\"a\":1e309}", "column 6", "fits in a double", 1},
        {"{\"a\":NaN}", "column 6", "a value", 1},
        {"{\"a\":\"\\u0000\"}", "column 6", "in a string", 0},
        {"{\"a\":9223372036854775808}", "column 6", "fits in 64 bits", 0},
        {"{\"a\":-9223372036854775809}", "column 6", "fits in 64 bits", 0},
        {"{\"ab\":1,\"b\":2,\n \"ab\":3}", "line 2, column 2", "duplicate key \"ab\"", 0},
        {"{\"c\":{\"\":1,\"\":3}}", "column 12", "duplicate key \"\"", 0},
    };
    const pgi_json *node;
    for (size_t i = 0; i < COUNT(cases); i++) {
        assert_error(parse(cases[i].text, PGI_JSON_STRICT, &node), PG_ERROR_FORMAT, cases[i].first, cases[i].second);
        assert_message("not valid JSON: found ");
        const pg_status status = parse(cases[i].text, PGI_JSON_AS_PYTHON, &node);
        assert_int_equal(status, cases[i].as_python ? PG_ERROR_FORMAT : PG_OK);
    }
    assert_int_equal(parse("{\"a\":1,\"b\":{\"c\":5},\"a\":\"x\\u0000y\",\"d\":1000000000000000019884624838656}",
                           PGI_JSON_AS_PYTHON, &node),
                     PG_OK);
    assert_int_equal(pgi_json_n_members(node), 3);
    assert_int_equal(pgi_json_text_size(pgi_json_get(node, "a")), 3); /* the later one */
    assert_true(pgi_json_number(pgi_json_get(node, "d")) == 1e30);
    assert_int_equal(
        parse("{\"least\":-9223372036854775808,\"most\":9223372036854775807,\"none\":-0}", PGI_JSON_STRICT, &node),
        PG_OK);
    assert_true(pgi_json_integer(pgi_json_get(node, "least")) == INT64_MIN);
    assert_true(pgi_json_integer(pgi_json_get(node, "most")) == INT64_MAX);
    assert_true(pgi_json_is(pgi_json_get(node, "none"), PGI_JSON_INTEGER));
}

/* ---- objects ---- */

static uint32_t next_random(uint32_t *seed) { return *seed = *seed * 1664525u + 1013904223u; }

/* Keys of few letters, so that many are beginnings of others; set, replaced and removed, against a plain list. */
static void members_are_found(void **state) {
    (void)state;
    enum { KEYS = 400 };
    static char keys[KEYS][12];
    static int value[KEYS];
    uint32_t seed = 1;
    pgi_json object;
    pgi_json_doc_free(&doc);
    pgi_json_doc_init(&doc, MEMORY);
    assert_int_equal(pgi_json_new_object(&doc, &object), PG_OK);
    for (int i = 0; i < KEYS; i++) {
        const int size = (int)(next_random(&seed) >> 24) % 11;
        for (int k = 0; k < size; k++) keys[i][k] = "ab\x01\xFF"[next_random(&seed) >> 30];
    }
    for (int step = 1; step < 3000; step++) {
        const int at = (int)((next_random(&seed) >> 8) % KEYS), removes = next_random(&seed) >> 28 == 0;
        if (removes)
            pgi_json_remove(&object, keys[at]);
        else
            assert_int_equal(pgi_json_set(&doc, &object, keys[at], pgi_json_of_integer(step)), PG_OK);
        for (int i = 0; i < KEYS; i++)
            if (strcmp(keys[i], keys[at]) == 0) value[i] = removes ? 0 : step;
        if (step % 50 != 0) continue;
        for (int i = 0; i < KEYS; i++) {
            const pgi_json *found = pgi_json_get(&object, keys[i]);
            assert_int_equal(found != NULL, value[i] != 0);
            assert_int_equal(pgi_json_integer(found), value[i]);
        }
    }
    assert_null(pgi_json_get(&object, "a longer key than all"));
    assert_null(pgi_json_get(NULL, "a"));
    assert_ptr_equal(pgi_json_get_part(&object, "abXX", 2), pgi_json_get(&object, "ab"));
}

/* ---- numbers ---- */

/* Each line: a number, and the bits of what Python's float() makes of it; tests/golden/make_numbers.py. */
static void numbers_are_pythons(void **state) {
    (void)state;
    FILE *file = fopen(PGI_GOLDEN_FOLDER "/numbers.txt", "r");
    assert_non_null(file);
    static char line[2000];
    int n = 0;
    while (fgets(line, sizeof line, file)) {
        char *space = strchr(line, ' ');
        assert_non_null(space);
        double value, back;
        const uint64_t wanted = strtoull(space + 1, NULL, 16);
        uint64_t bits = UINT64_C(0x7FF0000000000000);
        if (pgi_number_read((const uint8_t *)line, (size_t)(space - line), &value)) memcpy(&bits, &value, sizeof bits);
        if (line[0] == '-' && bits == UINT64_C(0x7FF0000000000000)) bits |= UINT64_C(1) << 63;
        if (bits != wanted)
            fail_msg("%.*s: found %016llx, expected %016llx", (int)(space - line), line, (unsigned long long)bits,
                     (unsigned long long)wanted);
        n++;
        if ((bits & UINT64_C(0x7FF0000000000000)) == UINT64_C(0x7FF0000000000000)) continue;
        char text[PGI_NUMBER_TEXT];
        pgi_number_write(value, 15, 17, text);
        assert_true(strlen(text) < sizeof text - 1 && strpbrk(text, ".e"));
        assert_true(pgi_number_read((const uint8_t *)text, strlen(text), &back));
        assert_memory_equal(&back, &value, sizeof back);
    }
    fclose(file);
    assert_true(n > 1000);
}

static void numbers_are_written_short(void **state) {
    (void)state;
    static const struct {
        double value;
        const char *text;
    } cases[] = {{0.0, "0.0"},
                 {-0.0, "-0.0"},
                 {30, "30.0"},
                 {0.02, "0.02"},
                 {1e-6, "1e-6"},
                 {1e-4, "0.0001"},
                 {1.5e-5, "1.5e-5"},
                 {1e15, "1e15"},
                 {1e14, "100000000000000.0"},
                 {123456.75, "123456.75"},
                 {1e22, "1e22"},
                 {-1.25e-300, "-1.25e-300"},
                 {5e-324, "4.94065645841247e-324"},
                 {0.1 + 0.2, "0.30000000000000004"}};
    char text[PGI_NUMBER_TEXT];
    for (size_t i = 0; i < COUNT(cases); i++)
        assert_string_equal(pgi_number_write(cases[i].value, 15, 17, text), cases[i].text);
    static const char *const names[] = {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "de_DE"};
    const char *set = NULL;
    for (size_t i = 0; i < COUNT(names) && !set; i++) set = setlocale(LC_NUMERIC, names[i]);
    for (size_t i = 0; i < COUNT(cases) && set; i++)
        assert_string_equal(pgi_number_write(cases[i].value, 15, 17, text), cases[i].text);
    setlocale(LC_NUMERIC, "C");
}

/* ---- limits ---- */

static char *nested(int depth, const char *open, const char *inside, const char *close) {
    char *text = calloc(1, (size_t)depth * (strlen(open) + strlen(close)) + strlen(inside) + 1), *at = text;
    for (int i = 0; i < depth; i++) at += sprintf(at, "%s", open);
    at += sprintf(at, "%s", inside);
    for (int i = 0; i < depth; i++) at += sprintf(at, "%s", close);
    return text;
}

static void *dig(void *unused) {
    (void)unused;
    const pgi_json *node;
    pgi_json_reader reader;
    for (int depth = 31; depth <= 50000; depth = depth < 33 ? depth + 1 : depth * 37) {
        char *text = nested(depth, "{\"a\":", "{}", "}");
        const pg_status expected = depth < 32 ? PG_OK : PG_ERROR_LIMIT;
        assert_int_equal(parse(text, PGI_JSON_STRICT, &node), expected);
        if (depth >= 32) assert_message("nested deeper than 32");
        pgi_json_reader_init(&reader, MEMORY, "x", text, strlen(text));
        assert_int_equal(pgi_json_skip(&reader, NULL, NULL), expected);
        pgi_json_reader_free(&reader);
        free(text);
    }
    return NULL;
}

static void depth_is_limited_on_a_small_stack(void **state) {
    (void)state;
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    assert_int_equal(pthread_attr_setstacksize(&attributes, small_stack()), 0);
    assert_int_equal(pthread_create(&thread, &attributes, dig, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    pthread_attr_destroy(&attributes);
}

static void values_are_counted(void **state) {
    (void)state;
    static const char *const values[] = {"{},", "[],", "\"\",", "0,", "null,"};
    const pgi_json *node;
    for (size_t i = 0; i < COUNT(values); i++)
        for (int n = PGI_JSON_MAX_VALUES - 1; n <= PGI_JSON_MAX_VALUES; n++) {
            const size_t size = strlen(values[i]);
            char *text = malloc((size_t)n * size + 20);
            memcpy(text, "{\"zz\":[", 7);
            for (int k = 0; k < n; k++) memcpy(text + 7 + (size_t)k * size, values[i], size);
            memcpy(text + 7 + (size_t)n * size - 1, "]}", 3);
            assert_int_equal(parse(text, PGI_JSON_AS_PYTHON, &node), n < PGI_JSON_MAX_VALUES ? PG_OK : PG_ERROR_LIMIT);
            free(text);
        }
    assert_message("found more than 200000 values");
}

/* ---- memory ---- */

typedef struct starved {
    size_t left, held, peak;
} starved;

static void *starved_alloc(void *user, size_t size, size_t alignment) {
    starved *s = user;
    (void)alignment;
    if (s->left == 0) return NULL;
    s->left--;
    size_t *block = aligned_alloc(64, size + 64);
    *block = size;
    s->held += size;
    if (s->held > s->peak) s->peak = s->held;
    return (char *)block + 64;
}

static void starved_free(void *user, void *memory) {
    size_t *block = (size_t *)((char *)memory - 64);
    ((starved *)user)->held -= *block;
    free(block);
}

/* Each allocation fails in its turn: the status says so, and nothing is kept. */
static void memory_that_is_short_is_told(void **state) {
    (void)state;
    char text[9000] = "{\"list\":[1,2.5,\"x\",null],\"text\":\"\\u00e9";
    for (int i = 0; i < 900; i++) strcpy(text + strlen(text), "abcd");
    for (int i = 0; i < 200; i++) sprintf(text + strlen(text), "\",\"key %d\":\"%d", i, i);
    strcpy(text + strlen(text), "\"}");
    for (size_t n = 0;; n++) {
        starved s = {.left = n};
        const pgi_memory memory = {&s, starved_alloc, starved_free};
        pgi_json_doc own;
        const pgi_json *node;
        pgi_json_doc_init(&own, &memory);
        const pg_status status = pgi_json_parse(&own, "x", text, strlen(text), PGI_JSON_STRICT, &node);
        pgi_json_doc_free(&own);
        assert_true(s.held == 0);
        if (status == PG_OK) {
            assert_true(n > 8);
            break;
        }
        assert_int_equal(status, PG_ERROR_MEMORY);
    }
}

/* Keys that go the same way as far as they can, and others: four times the file takes four times the memory. */
static void memory_grows_with_the_file(void **state) {
    (void)state;
    static const char *const forms[] = {"\"%d\":{},", "\"%08x\":[0,\"\"],",
                                        "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa%x\":0,"};
    for (size_t form = 0; form < COUNT(forms); form++) {
        size_t peak[2];
        for (int turn = 0; turn < 2; turn++) {
            const int n = turn ? 40000 : 10000;
            char *text = malloc((size_t)n * 64 + 16), *at = text;
            starved s = {.left = SIZE_MAX};
            const pgi_memory memory = {&s, starved_alloc, starved_free};
            pgi_json_doc own;
            const pgi_json *node;
            *at++ = '{';
            for (int i = 0; i < n; i++) at += sprintf(at, forms[form], (unsigned)i);
            at[-1] = '}';
            pgi_json_doc_init(&own, &memory);
            assert_int_equal(pgi_json_parse(&own, "x", text, (size_t)(at - text), PGI_JSON_STRICT, &node), PG_OK);
            assert_int_equal(pgi_json_n_members(node), n);
            pgi_json_doc_free(&own);
            peak[turn] = s.peak;
            assert_true(s.peak < 24u * (size_t)(at - text));
            free(text);
        }
        assert_true(peak[1] <= 6 * peak[0]);
    }
}

int main(int argc, char **argv) {
#define TEST(function) cmocka_unit_test_setup_teardown(function, make_folder, teardown)
    const struct CMUnitTest tests[] = {
        TEST(json_is_dumped_as_it_was),
        TEST(json_errors_name_the_place),
        TEST(what_is_refused),
        TEST(members_are_found),
        TEST(numbers_are_pythons),
        TEST(numbers_are_written_short),
        TEST(depth_is_limited_on_a_small_stack),
        TEST(values_are_counted),
        TEST(memory_that_is_short_is_told),
        TEST(memory_grows_with_the_file),
    };
#undef TEST
    return RUN_TESTS(tests, NULL, NULL);
}
