/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * pg_answer: every rule of docs/ANSWERS.md, broken answers, random ones (nothing is made up), scores by hand,
 * duplicates, options, and what its memory and time grow with.
 */
#include "run_tests.h"

#include <math.h>

#include "api_fixture.h"

static const char *const flag_names[] = {"PARTIAL",     "OUT_OF_RANGE", "OUT_OF_ORDER", "EMPTY",
                                         "STRAY_SEG",   "NO_LABEL",     "BEFORE",       "SHARED",
                                         "SEG_PARTIAL", "SEG_MORE",     "UNFINISHED",   "DUPLICATE"};

#define B1 "<loc0010><loc0020><loc0030><loc0040>"
#define B2 "<loc0100><loc0200><loc0300><loc0400>"
#define B3 "<loc0000><loc0000><loc1023><loc1023>"
#define SEG8 "<seg000><seg001><seg002><seg003><seg004><seg005><seg006><seg127>"

static pg_answer_options options_of(uint32_t flags) {
    pg_answer_options options;
    OK(pg_answer_options_init(&options, sizeof options));
    options.flags = flags;
    options.width = 640;
    options.height = 480;
    return options;
}

static pg_object object_at(const pg_answer *answer, int64_t i) {
    pg_object object = {.struct_size = sizeof object};
    OK(pg_answer_get_object(answer, i, &object));
    return object;
}

/* Each object as one line: its numbers, its label, its flags, how many segs. */
static void describe(const pg_answer *answer, bytes *out) {
    for (int64_t i = 0; i < pg_answer_get_n_objects(answer); i++) {
        const pg_object o = object_at(answer, i);
        bytes_printf(out, "%s", i ? "\n" : "");
        for (int k = 0; k < o.n_locs; k++) bytes_printf(out, "%s%d", k ? "," : "", o.locs[k]);
        bytes_printf(out, "|%s|", o.label);
        for (int k = 0; k < 12; k++)
            if (o.flags >> k & 1) bytes_printf(out, " %s", flag_names[k]);
        if (o.n_segs) bytes_printf(out, " segs %d", o.n_segs);
        assert_true(o.label_size >= strlen(o.label)); /* more where the model says a byte 0 */
    }
}

static void compare(const char *text, uint32_t flags, const char *wanted) {
    const pg_answer_options options = options_of(flags);
    pg_answer *answer = NULL;
    bytes found = {0};
    OK(pg_answer_create_from_text(text, strlen(text), &options, &answer));
    assert_string_equal(pg_answer_get_text(answer), text);
    bytes_text(&found, "");
    describe(answer, &found);
    if (strcmp((char *)found.data, wanted) != 0)
        fail_msg("\"%s\"\nfound\n%s\nexpected\n%s", text, (char *)found.data, wanted);
    bytes_free(&found);
    pg_answer_close(&answer);
    assert_null(answer);
}

static const struct {
    const char *text, *wanted;
} cases[] = {
    /* what the sources write */
    {"", ""},
    {"a cat on a mat", ""},
    {B1 " cat", "10,20,30,40|cat|"},
    {B1 "cat", "10,20,30,40|cat|"},
    {B1 " cat ; " B2 " dog", "10,20,30,40|cat|\n100,200,300,400|dog|"},
    {B1 " cat;" B2 " dog ;", "10,20,30,40|cat|\n100,200,300,400|dog|"},
    {B1 " cat ; " B2 " cat", "10,20,30,40|cat|\n100,200,300,400|cat|"},
    {B1 " traffic light (red), 2 m < 3 m > 1", "10,20,30,40|traffic light (red), 2 m < 3 m > 1|"},
    {B1 " \xE7\x8C\xAB \xF0\x9F\x90\xB1", "10,20,30,40|\xE7\x8C\xAB \xF0\x9F\x90\xB1|"},
    {B1 SEG8 SEG8, "10,20,30,40|| NO_LABEL segs 16"},
    {B1 " " SEG8 SEG8 " wall ; " B2 SEG8 SEG8 " car", "10,20,30,40|wall| segs 16\n100,200,300,400|car| segs 16"},
    {"\n" B1 "\n cat \n", "10,20,30,40|cat|"},
    {B1 "\xC2\xA0\xE3\x80\x80"
        "cat\xE2\x80\x83",
     "10,20,30,40|cat|"},
    /* labels: in front, one for several, none */
    {"cat " B1, "10,20,30,40|cat| BEFORE"},
    {"cat " B1 " ; dog " B2, "10,20,30,40|cat| BEFORE\n100,200,300,400|dog| BEFORE"},
    {"cat " B1 " dog " B2, "10,20,30,40|cat| BEFORE\n100,200,300,400|dog| BEFORE"},
    {"cats " B1 B2, "10,20,30,40|cats| BEFORE SHARED\n100,200,300,400|cats| BEFORE SHARED"},
    {B1 B2 " cats", "10,20,30,40|cats| SHARED\n100,200,300,400|cats| SHARED"},
    {B1 " " B2 " cats", "10,20,30,40|cats| SHARED\n100,200,300,400|cats| SHARED"},
    {B1, "10,20,30,40|| NO_LABEL"},
    {B1 " ; " B2 " dog", "10,20,30,40|| NO_LABEL\n100,200,300,400|dog|"},
    {B1 " cat " B2, "10,20,30,40|cat|\n100,200,300,400|| NO_LABEL"},
    {B1 " cat " B2 " dog", "10,20,30,40|cat|\n100,200,300,400|dog|"},
    {"I see " B1 " cat", "10,20,30,40|cat|"},
    {"cat ; " B1, "10,20,30,40|| NO_LABEL"},
    {B1 " ;; " B2 " dog", "10,20,30,40|| NO_LABEL\n100,200,300,400|dog|"},
    /* too few locs, too many */
    {"<loc0001> cat", "1|cat| PARTIAL"},
    {"<loc0001><loc0002><loc0003> cat", "1,2,3|cat| PARTIAL"},
    {"<loc0001><loc0002><loc0003>", "1,2,3|| PARTIAL NO_LABEL"},
    {B1 " cat ; <loc0007><loc0008> dog ; " B2 " cow", "10,20,30,40|cat|\n7,8|dog| PARTIAL\n100,200,300,400|cow|"},
    {B1 "<loc0007> cat", "10,20,30,40|cat| SHARED\n7|cat| PARTIAL SHARED"},
    {"<loc0001><loc0002><loc0003> " B1 " cat", "1,2,3|cat| PARTIAL SHARED\n10,20,30,40|cat| SHARED"},
    /* order and size */
    {"<loc0030><loc0020><loc0010><loc0040> cat", "30,20,10,40|cat| OUT_OF_ORDER"},
    {"<loc0010><loc0040><loc0030><loc0020> cat", "10,40,30,20|cat| OUT_OF_ORDER"},
    {"<loc0010><loc0020><loc0010><loc0040> cat", "10,20,10,40|cat| EMPTY"},
    {"<loc0010><loc0020><loc0030><loc0020> cat", "10,20,30,20|cat| EMPTY"},
    {"<loc0010><loc0040><loc0010><loc0020> cat", "10,40,10,20|cat| OUT_OF_ORDER"},
    {B3 " all", "0,0,1023,1023|all|"},
    /* numbers that no token has, and what only looks like one */
    {"<loc0010><loc0020><loc1024><loc9999> cat", "10,20,1024,9999|cat| OUT_OF_RANGE"},
    {"<loc010><loc00020><LOC0001><loc 001><loc-001><loc0001 ><loc+001>", ""},
    {B1 "<loc12 cat", "10,20,30,40|<loc12 cat|"},
    {B1 " <seg12>", "10,20,30,40|<seg12>|"},
    {B1 "<lo", "10,20,30,40|<lo|"},
    /* segs */
    {SEG8 SEG8 " cat", "|cat| STRAY_SEG segs 16"},
    {B1 SEG8 " cat", "10,20,30,40|cat| SEG_PARTIAL segs 8"},
    {B1 SEG8 SEG8 "<seg009><seg010> cat", "10,20,30,40|cat| SEG_MORE segs 16"},
    {B1 SEG8 "<seg128>"
             " cat",
     "10,20,30,40|cat| SEG_PARTIAL segs 9"},
    {B1 "<seg999>" SEG8 "<seg001><seg002><seg003><seg004><seg005><seg006><seg007> cat",
     "10,20,30,40|cat| SEG_PARTIAL segs 16"},
    {B1 " cat " SEG8 SEG8, "10,20,30,40|cat|\n|| STRAY_SEG NO_LABEL segs 16"},
    {B1 " ; " SEG8 SEG8 " cat", "10,20,30,40|| NO_LABEL\n|cat| STRAY_SEG segs 16"},
    {"<loc0001><loc0002><loc0003>" SEG8 SEG8 " cat", "1,2,3|cat| PARTIAL segs 16"},
    {B1 B2 SEG8 SEG8 " cat", "10,20,30,40|cat| SHARED\n100,200,300,400|cat| SHARED segs 16"},
    {B1 SEG8 " " SEG8 " cat", "10,20,30,40|cat| SHARED SEG_PARTIAL segs 8\n|cat| STRAY_SEG SHARED SEG_PARTIAL segs 8"},
};

static void the_grammar(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) compare(cases[i].text, 0, cases[i].wanted);
}

static void points(void **state) {
    (void)state;
    compare("<loc0010><loc0020> cat ; <loc0030><loc0005> dog", PG_ANSWER_POINTS, "10,20|cat|\n30,5|dog|");
    compare(B1 " cats", PG_ANSWER_POINTS, "10,20|cats| SHARED\n30,40|cats| SHARED");
    compare("<loc0010><loc0020><loc0030> cat", PG_ANSWER_POINTS, "10,20|cat| SHARED\n30|cat| PARTIAL SHARED");
    compare("<loc0010><loc2000> cat", PG_ANSWER_POINTS, "10,2000|cat| OUT_OF_RANGE");
}

/* ---- pixels ---- */

static void same_float(float found, double wanted) {
    if (found != (float)wanted && !(found != found && wanted != wanted))
        fail_msg("found %.9g, expected %.9g", found, wanted);
}

static void pixels_of_the_image(void **state) {
    static const char text[] =
        "<loc0256><loc0001><loc1023><loc0512> a ; <loc0001><loc0002><loc0003> b ; "
        "<loc1023><loc0512><loc0256><loc0001> c ; <loc0000><loc0000><loc1024><loc0001> d";
    pg_answer_options options = options_of(0);
    pg_answer *answer = NULL;
    (void)state;
    options.width = 1919;
    options.height = 1080;
    for (int32_t convention = PG_BOX_1024; convention <= PG_BOX_1023; convention++) {
        const double steps = convention == PG_BOX_1023 ? 1023 : 1024;
        options.convention = convention;
        OK(pg_answer_create_from_text(text, strlen(text), &options, &answer));
        const double wanted[4] = {1 / steps * 1919, 256 / steps * 1080, 512 / steps * 1919, 1023 / steps * 1080};
        for (int i = 0; i < 4; i++) {
            same_float(object_at(answer, 0).box[i], wanted[i]);
            same_float(object_at(answer, 1).box[i], NAN);
            same_float(object_at(answer, 2).box[i], wanted[i ^ 2]); /* as it was said, not sorted */
            same_float(object_at(answer, 3).box[i], NAN);
        }
        same_float(object_at(answer, 0).point[0], NAN);
        same_float(object_at(answer, 0).score, NAN);
        pg_answer_close(&answer);
    }
    assert_true(1023 / 1023.0 * 1080 == 1080);
    options.flags = PG_ANSWER_POINTS;
    OK(pg_answer_create_from_text("<loc0256><loc0001>", 18, &options, &answer));
    same_float(object_at(answer, 0).point[0], 1 / 1023.0 * 1919);
    same_float(object_at(answer, 0).point[1], 256 / 1023.0 * 1080);
    same_float(object_at(answer, 0).box[0], NAN);
    pg_answer_close(&answer);
}

/* ---- any text ---- */

static const char *find_bytes(const char *text, size_t size, const char *part, size_t n) {
    for (size_t i = 0; i + n <= size; i++)
        if (memcmp(text + i, part, n) == 0) return text + i;
    return NULL;
}

/* Whether `number` stands in the text as <locNNNN> (4 digits) or <segNNN> (3). */
static int is_said(const char *text, size_t size, const char *name, int digits, int number) {
    char wanted[16];
    const int n = snprintf(wanted, sizeof wanted, "<%s%0*d>", name, digits, number);
    return find_bytes(text, size, wanted, (size_t)n) != NULL;
}

static void check_object(const char *text, size_t size, const pg_object *o) {
    assert_true(o->text_begin >= 0 && o->text_size > 0 && o->text_begin + o->text_size <= (int64_t)size);
    const char *part = text + o->text_begin;
    int n = 0;
    for (int i = 0; i < 4; i++) {
        assert_true((o->locs[i] >= 0) == (i < o->n_locs));
        if (o->locs[i] >= 0) assert_true(is_said(part, (size_t)o->text_size, "loc", 4, o->locs[i]));
    }
    for (int i = 0; i < 16; i++) {
        assert_true((o->segs[i] >= 0) == (i < o->n_segs));
        if (o->segs[i] >= 0) assert_true(is_said(part, (size_t)o->text_size, "seg", 3, o->segs[i]));
    }
    for (const char *p = part; p < part + o->text_size; p++) n += *p == '<';
    assert_true(o->flags & PG_OBJECT_SEG_MORE ? n > o->n_locs + o->n_segs : n == o->n_locs + o->n_segs);
    assert_true(find_bytes(text, size, o->label, (size_t)o->label_size) != NULL);
    assert_true((o->label_size == 0) == ((o->flags & PG_OBJECT_NO_LABEL) != 0));
    assert_true(!(o->flags & PG_OBJECT_BROKEN) == (o->n_locs == 4 && o->box[2] > o->box[0] && o->box[3] > o->box[1]));
    assert_true((o->box[0] == o->box[0]) ==
                (o->n_locs == 4 && !(o->flags & (PG_OBJECT_PARTIAL | PG_OBJECT_OUT_OF_RANGE | PG_OBJECT_STRAY_SEG))));
    assert_true((o->duplicate_of >= 0) == ((o->flags & PG_OBJECT_DUPLICATE) != 0));
}

/* All locs and segs of the text are in an object, and stand in their order. */
static void nothing_is_made_up(void **state) {
    static const char *const parts[] = {
        "<loc",      "0",         "1",         "512",       "1023",         ">",        "<loc0001>",
        "<loc0100>", "<loc0900>", "<loc1023>", "<loc4711>", "<seg",         "<seg000>", "<seg127>",
        "<seg300>",  B1,          B2,          SEG8,        SEG8 SEG8,      ";",        " ; ",
        " ",         "cat",       "\n",        "\xC3\xA9",  "\xE2\x80\x83", "<",        "<loc00",
        "a b"};
    rng r = {20260101};
    bytes text = {0};
    (void)state;
    for (int round = 0; round < 20000; round++) {
        pg_answer_options options = options_of(0);
        pg_answer *answer = NULL;
        text.size = 0;
        bytes_text(&text, "");
        for (uint64_t n = rng_below(&r, 24); n > 0; n--)
            bytes_text(&text, parts[rng_below(&r, sizeof parts / sizeof *parts)]);
        if (round % 4 == 0) options.max_iou = 0.3f;
        OK(pg_answer_create_from_text((char *)text.data, text.size, &options, &answer));
        int64_t n_locs = 0, end = 0, counted = 0;
        for (int64_t i = 0; i < pg_answer_get_n_objects(answer); i++) {
            const pg_object o = object_at(answer, i);
            check_object((char *)text.data, text.size, &o);
            assert_true(o.text_begin >= end);
            end = o.text_begin + o.text_size;
            n_locs += o.n_locs;
        }
        for (const char *p = (char *)text.data; (p = strstr(p, "<loc")); p++)
            counted += strspn(p + 4, "0123456789") == 4 && p[8] == '>';
        assert_int_equal(n_locs, counted);
        pg_answer_close(&answer);
    }
    bytes_free(&text);
}

/* Bytes that are no text are refused with their place; all others, NUL included, are read. */
static void any_bytes(void **state) {
    rng r = {7};
    const pg_answer_options options = options_of(0);
    char text[64];
    int n_refused = 0;
    (void)state;
    for (int round = 0; round < 20000; round++) {
        pg_answer *answer = NULL;
        memcpy(text, B1 " cat ; <seg001>", sizeof B1 " cat ; <seg001>");
        const size_t size = 20 + (size_t)rng_below(&r, 30);
        for (uint64_t n = rng_below(&r, 4); n > 0; n--) text[rng_below(&r, size)] = (char)rng_next(&r);
        const pg_status status = pg_answer_create_from_text(text, size, &options, &answer);
        n_refused += status < 0;
        if (status < 0) ERROR(pg_answer_create_from_text(text, size, &options, &answer), PG_ERROR_ARGUMENT);
        for (int64_t i = 0; i < pg_answer_get_n_objects(answer); i++) {
            const pg_object o = object_at(answer, i);
            check_object(text, size, &o);
        }
        pg_answer_close(&answer);
    }
    assert_in_range(n_refused, 1000, 19000);
    pg_answer *answer = NULL;
    OK(pg_answer_create_from_text(B1 " a\0b", sizeof B1 " a\0b" - 1, &options, &answer));
    assert_int_equal(object_at(answer, 0).label_size, 3);
    assert_memory_equal(object_at(answer, 0).label, "a\0b", 4);
    pg_answer_close(&answer);
    ARGUMENT(pg_answer_create_from_text("ab\xFF", 3, &options, &answer));
    assert_non_null(strstr(pg_last_error(), "byte 2 of 3"));
}

/* ---- ids and scores ---- */

static size_t ids_of(const char *text, int64_t *ids, size_t capacity) {
    size_t n;
    OK(pg_processor_tokenize(processor, text, 0, ids, capacity, &n));
    assert_true(n <= capacity);
    return n;
}

/* Four locs, the two words of a label, a separator, a box without a label. */
static void scores_by_hand(void **state) {
    static const char text[] = "<loc0000><loc0001><loc0002><loc0002> the cat ; <loc0000><loc0000><loc0001><loc0002>";
    const pg_answer_options options = options_of(0);
    pg_answer *answer = NULL;
    int64_t ids[64], eos = 0;
    float log_probs[64];
    pg_processor_info info = {.struct_size = sizeof info};
    (void)state;
    OK(pg_processor_get_info(processor, &info));
    eos = info.eos_id;
    size_t n = ids_of(text, ids, 60);
    ids[n++] = eos;
    for (size_t i = 0; i < n; i++) log_probs[i] = -0.01f * (float)(i + 1);
    OK(pg_answer_create_from_ids(processor, ids, log_probs, n, &options, &answer));
    assert_string_equal(pg_answer_get_text(answer), text);
    assert_int_equal(pg_answer_get_n_objects(answer), 2);
    const pg_object first = object_at(answer, 0), second = object_at(answer, 1);
    double label = 0;
    int n_label = 0;
    for (size_t i = 4; i < n; i++) { /* the tokens behind the locs until the text of the label is whole */
        char piece[64];
        size_t needed;
        OK(pg_processor_decode(processor, ids + 4, i - 3, 0, piece, sizeof piece, &needed));
        label += (double)log_probs[i];
        n_label++;
        if (strcmp(piece, " the cat") == 0) break;
    }
    assert_in_range(n_label, 1, 8);
    same_float(first.loc_score,
               exp(((double)log_probs[0] + (double)log_probs[1] + (double)log_probs[2] + (double)log_probs[3]) / 4));
    same_float(first.label_score, exp(label / n_label));
    same_float(first.score, first.loc_score * first.label_score);
    assert_int_equal(first.first_token, 0);
    assert_int_equal(first.n_tokens, 4);
    assert_int_equal(second.first_token, (int64_t)n - 5);
    same_float(second.label_score, 1);
    same_float(second.score, second.loc_score);
    assert_true(second.loc_score < first.loc_score);
    assert_int_equal(second.flags, PG_OBJECT_NO_LABEL); /* not unfinished: nobody knows how ids ended */
    pg_answer_close(&answer);
    OK(pg_answer_create_from_ids(processor, ids, NULL, n, &options, &answer));
    same_float(object_at(answer, 0).score, NAN);
    assert_int_equal(object_at(answer, 1).first_token, (int64_t)n - 5);
    pg_answer_close(&answer);
    /* probabilities of 0 stay with the object that has them */
    log_probs[1] = -INFINITY;
    OK(pg_answer_create_from_ids(processor, ids, log_probs, n, &options, &answer));
    same_float(object_at(answer, 0).score, 0);
    same_float(object_at(answer, 1).score, second.score);
    pg_answer_close(&answer);
}

/* Any ids: the text is that of decode(), and the objects are those of the text. */
static void ids_and_text_say_the_same(void **state) {
    const pg_answer_options options = options_of(0);
    pg_processor_info info = {.struct_size = sizeof info};
    rng r = {99};
    (void)state;
    OK(pg_processor_get_info(processor, &info));
    int64_t loc0 = 0;
    OK(pg_processor_get_token_id(processor, "<loc0000>", &loc0));
    for (int round = 0; round < 3000; round++) {
        int64_t ids[40];
        float log_probs[40];
        const size_t n = (size_t)rng_below(&r, 40);
        for (size_t i = 0; i < n; i++) {
            ids[i] = rng_below(&r, 3) ? loc0 + (int64_t)rng_below(&r, 5)
                                      : (int64_t)rng_below(&r, (uint64_t)info.vocab_size + 3);
            log_probs[i] = -1;
        }
        char text[2048];
        size_t needed;
        pg_answer *answer = NULL, *again = NULL;
        bytes a = {0}, b = {0};
        OK(pg_processor_decode(processor, ids, n, PG_DECODE_SKIP_SPECIAL, text, sizeof text, &needed));
        OK(pg_answer_create_from_ids(processor, ids, log_probs, n, &options, &answer));
        assert_int_equal(strcmp(pg_answer_get_text(answer), text), 0);
        OK(pg_answer_create_from_text(text, needed - 1, &options, &again));
        bytes_text(&a, "");
        bytes_text(&b, "");
        describe(answer, &a);
        describe(again, &b);
        assert_string_equal((char *)a.data, (char *)b.data);
        for (int64_t i = 0; i < pg_answer_get_n_objects(answer); i++) {
            const pg_object o = object_at(answer, i);
            if (o.n_locs) same_float(o.loc_score, exp(-1.0));
            if (o.label_size) same_float(o.label_score, exp(-1.0));
            assert_true(o.first_token >= 0 && o.first_token + o.n_tokens <= (int64_t)n && o.n_tokens >= 1);
        }
        bytes_free(&a);
        bytes_free(&b);
        pg_answer_close(&answer);
        pg_answer_close(&again);
    }
    pg_answer *answer = NULL;
    const int64_t bad[] = {-1};
    ARGUMENT(pg_answer_create_from_ids(processor, bad, NULL, 1, &options, &answer));
    assert_null(answer);
}

/* ---- duplicates ---- */

static void boxes_said_twice(void **state) {
    static const char text[] =
        "<loc0000><loc0000><loc0100><loc0100> a ; <loc0000><loc0000><loc0100><loc0100> b ; "
        "<loc0000><loc0000><loc0100><loc0090> a ; <loc0000><loc0000><loc0100><loc0050> a ; "
        "<loc0200><loc0000><loc0100><loc0100> a ; <loc0000><loc0000><loc0100><loc0046> a";
    static const int32_t wanted[3][6] = {{-1, -1, -1, -1, -1, -1}, {-1, -1, 0, -1, -1, 3}, {-1, -1, 0, 0, -1, 0}};
    static const float limits[] = {0, 0.5f, 0.4f};
    pg_answer_options options = options_of(0);
    pg_answer *answer = NULL;
    (void)state;
    for (int k = 0; k < 3; k++) {
        options.max_iou = limits[k];
        OK(pg_answer_create_from_text(text, strlen(text), &options, &answer));
        assert_int_equal(pg_answer_get_n_objects(answer), 6);
        for (int i = 0; i < 6; i++) assert_int_equal(object_at(answer, i).duplicate_of, wanted[k][i]);
        pg_answer_close(&answer);
    }
    /* with scores the better one stays, whichever comes first */
    int64_t ids[64];
    float log_probs[64];
    const size_t n =
        ids_of("<loc0000><loc0000><loc0002><loc0002> cat ; <loc0000><loc0000><loc0002><loc0002> cat", ids, 64);
    for (size_t i = 0; i < n; i++) log_probs[i] = i < 4 ? -1.0f : -0.1f;
    OK(pg_answer_create_from_ids(processor, ids, log_probs, n, &options, &answer));
    assert_int_equal(object_at(answer, 0).duplicate_of, 1);
    assert_int_equal(object_at(answer, 1).duplicate_of, -1);
    pg_answer_close(&answer);
    bytes many = {0};
    for (int i = 0; i < 16385; i++) bytes_text(&many, B1 ";");
    ERROR(pg_answer_create_from_text((char *)many.data, many.size, &options, &answer), PG_ERROR_LIMIT);
    assert_non_null(strstr(pg_last_error(), "16385"));
    OK(pg_answer_create_from_text((char *)many.data, many.size - 37, &options, &answer));
    assert_int_equal(object_at(answer, 16383).duplicate_of, 0);
    pg_answer_close(&answer);
    bytes_free(&many);
}

/* The same as when each box is compared with each that stays. */
static void many_boxes_said_twice(void **state) {
    enum { N = 1200 };
    static int32_t boxes[N][5]; /* y0, x0, y1, x1, label */
    static const float limits[] = {1e-6f, 0.02f, 0.25f, 0.4999f, 0.5f, 0.7f, 0.93f, 0.999f};
    (void)state;
    rng r = {7};
    for (int round = 0; round < 24; round++) {
        const float limit = limits[round % 8];
        const uint64_t most = (const uint64_t[]){1023, 40, 300}[round % 3], labels = round % 2 ? 1 : 5;
        bytes text = {0};
        for (int i = 0; i < N; i++) {
            const int32_t *before = boxes[i ? rng_below(&r, (uint64_t)i) : 0];
            const int near = i > 0 && rng_below(&r, 2);
            for (int k = 0; k < 2; k++) {
                const int32_t size = 1 + (int32_t)rng_below(&r, most);
                int32_t begin = near ? before[k] + (int32_t)rng_below(&r, 9) - 4 : (int32_t)rng_below(&r, 1024);
                int32_t end = near ? before[k + 2] + (int32_t)rng_below(&r, 9) - 4 : begin + size;
                begin = begin < 0 ? 0 : begin > 1022 ? 1022 : begin;
                boxes[i][k] = begin;
                boxes[i][k + 2] = end <= begin ? begin + 1 : end > 1023 ? 1023 : end;
            }
            boxes[i][4] = (int32_t)rng_below(&r, labels);
            bytes_printf(&text, "<loc%04d><loc%04d><loc%04d><loc%04d> cat%d ; ", boxes[i][0], boxes[i][1], boxes[i][2],
                         boxes[i][3], boxes[i][4]);
        }
        pg_answer_options options = options_of(0);
        pg_answer *answer = NULL;
        options.max_iou = limit;
        OK(pg_answer_create_from_text((char *)text.data, text.size, &options, &answer));
        assert_int_equal(pg_answer_get_n_objects(answer), N);
        int32_t of[N], n_twice = 0;
        for (int i = 0; i < N; i++) {
            const int32_t *a = boxes[i];
            of[i] = -1;
            for (int j = 0; j < i && of[i] < 0; j++) {
                const int32_t *b = boxes[j];
                if (of[j] >= 0 || a[4] != b[4]) continue;
                const int32_t y0 = a[0] > b[0] ? a[0] : b[0], y1 = a[2] < b[2] ? a[2] : b[2];
                const int32_t x0 = a[1] > b[1] ? a[1] : b[1], x1 = a[3] < b[3] ? a[3] : b[3];
                const double both = y1 > y0 && x1 > x0 ? (double)(y1 - y0) * (x1 - x0) : 0;
                const double sum = (double)(a[2] - a[0]) * (a[3] - a[1]) + (double)(b[2] - b[0]) * (b[3] - b[1]);
                if (both / (sum - both) > (double)limit) of[i] = j;
            }
            n_twice += of[i] >= 0;
            if (object_at(answer, i).duplicate_of != of[i])
                fail_msg("max_iou %g, box %d: duplicate of %d, expected %d", (double)limit, i,
                         object_at(answer, i).duplicate_of, of[i]);
        }
        assert_true(n_twice > 0 || limit > 0.99f);
        pg_answer_close(&answer);
        bytes_free(&text);
    }
}

/* ---- a generated row, the size of its image ---- */

static void an_answer_of_a_result(void **state) {
    pg_result *result = NULL;
    pg_tensor sizes = {.struct_size = sizeof sizes};
    pg_answer_options options = options_of(0);
    pg_answer *answer = NULL;
    (void)state;
    OK(pg_inputs_get_tensor(inputs, "image_sizes", &sizes));
    assert_int_equal(sizes.n_dims, 2);
    assert_int_equal(sizes.shape[0], 1);
    assert_int_equal(sizes.shape[1], 2);
    assert_int_equal(((const int64_t *)sizes.data)[0], 20); /* the fixture's image is 30 x 20 */
    assert_int_equal(((const int64_t *)sizes.data)[1], 30);
    ERROR(pg_inputs_get_tensor(text_only, "image_sizes", &sizes), PG_ERROR_NOT_FOUND);
    OK(pg_generate(model, processor, inputs, NULL, &result));
    OK(pg_answer_create(processor, result, 0, &options, &answer));
    assert_string_equal(pg_answer_get_text(answer), pg_result_get_text(result, 0));
    pg_result_close(&result);
    (void)pg_answer_get_text(answer); /* it needs the result no more */
    pg_answer_close(&answer);
}

/* ---- only well-formed answers, on request ---- */

typedef struct tally {
    int n_rows, n_broken; /* rows with an object that is broken or has no label */
    int n_objects, n_ended;
} tally;

static void generate_and_count(const pg_model *of, const pg_processor *by, uint32_t flags, int constrained, tally *t) {
    pg_generate_options generate;
    pg_answer_options options = options_of(0);
    pg_inputs *given = NULL;
    pg_result *result = NULL;
    pg_answer *answer = NULL;
    OK(pg_generate_options_init(&generate, sizeof generate));
    generate.flags = flags | PG_GENERATE_LOG_PROBS;
    const int segment = (flags & PG_GENERATE_SEGMENT) != 0;
    generate.max_new_tokens = segment ? 90 : 40;
    generate.n_threads = 1;
    bytes file = tiny_image(IMAGE_PNG, 20, 30, (uint64_t)t->n_rows);
    pg_image image;
    OK(pg_image_from_bytes(&image, sizeof image, file.data, file.size));
    OK(pg_processor_encode(by, &image, t->n_rows % 2 ? "detect cat ; that" : "detect hat", NULL, &given));
    OK(pg_generate(of, by, given, &generate, &result));
    OK(pg_answer_create(by, result, 0, &options, &answer));
    pg_result_info info = {.struct_size = sizeof info};
    OK(pg_result_get_info(result, 0, &info));
    const int64_t n = pg_answer_get_n_objects(answer);
    int broken = 0;
    for (int64_t i = 0; i < n; i++) {
        const pg_object o = object_at(answer, i);
        const int unfinished = (o.flags & PG_OBJECT_UNFINISHED) != 0;
        assert_true(!unfinished || (i == n - 1 && info.stop != PG_STOP_EOS));
        if (o.n_locs) assert_true(o.score >= 0 && o.score <= 1 && o.score <= o.loc_score);
        /* the last mask may go without a label */
        const uint32_t fine = PG_OBJECT_DUPLICATE | (segment && i == n - 1 ? PG_OBJECT_NO_LABEL : 0);
        broken |= (o.flags & (PG_OBJECT_BROKEN | PG_OBJECT_NO_LABEL | PG_OBJECT_SEG_PARTIAL) & ~fine) && !unfinished;
        if (constrained && !unfinished) assert_false(o.flags & ~fine);
        if (constrained && !(segment && unfinished)) assert_int_equal(o.n_segs, segment ? 16 : 0);
    }
    t->n_rows++;
    t->n_broken += broken;
    t->n_objects += (int)n;
    t->n_ended += info.stop == PG_STOP_EOS;
    bytes_free(&file);
    pg_answer_close(&answer);
    pg_result_close(&result);
    pg_inputs_close(&given);
}

/* Random models say nonsense; under the mask their nonsense is well-formed. */
static void answers_that_must_be_well_formed(void **state) {
    tally masked = {0}, segments = {0}, free_ones = {0};
    (void)state;
    for (int seed = 1; seed <= 12; seed++) {
        tiny_options options = seed % 2 ? tiny_saved_today() : tiny_official();
        char where[512];
        pg_model *of = NULL;
        pg_processor *by = NULL;
        options.seed = (uint64_t)seed;
        make_temp_folder(where, sizeof where);
        tiny_write(where, &options);
        OK(pg_model_open(where, NULL, &of));
        OK(pg_processor_open(where, NULL, &by));
        for (int i = 0; i < 6; i++) generate_and_count(of, by, PG_GENERATE_DETECT, 1, &masked);
        for (int i = 0; i < 6; i++) generate_and_count(of, by, PG_GENERATE_SEGMENT, 1, &segments);
        for (int i = 0; i < 6; i++) generate_and_count(of, by, 0, 0, &free_ones);
        pg_processor_close(&by);
        pg_model_close(&of);
        remove_folder(where);
    }
    say("of %d rows with the mask %d are broken (%d objects, %d ended by eos), without it %d (%d objects)\n",
        masked.n_rows, masked.n_broken, masked.n_objects, masked.n_ended, free_ones.n_broken, free_ones.n_objects);
    say("with that of masks %d (%d objects, %d ended by eos)\n", segments.n_broken, segments.n_objects,
        segments.n_ended);
    assert_int_equal(segments.n_broken, 0);
    assert_true(segments.n_objects > 30);
    assert_int_equal(masked.n_broken, 0);
    assert_true(masked.n_objects > 30);
    pg_generate_options generate;
    pg_sampling_options sampling;
    pg_result *result = NULL;
    OK(pg_generate_options_init(&generate, sizeof generate));
    OK(pg_sampling_options_init(&sampling, sizeof sampling));
    generate.flags = PG_GENERATE_DETECT;
    generate.sampling = &sampling;
    sampling.flags = PG_SAMPLING_IGNORE_EOS; /* nothing could end such an answer */
    ERROR(pg_generate(model, processor, inputs, &generate, &result), PG_ERROR_UNSUPPORTED);
    assert_non_null(strstr(pg_last_error(), "0 that end a row"));
    sampling.flags = 0;
    ARGUMENT(pg_generate(model, NULL, inputs, &generate, &result));
    assert_non_null(strstr(pg_last_error(), "PG_GENERATE_DETECT"));
    generate.flags = PG_GENERATE_DETECT | PG_GENERATE_SEGMENT;
    ARGUMENT(pg_generate(model, processor, inputs, &generate, &result));
    assert_non_null(strstr(pg_last_error(), "PG_GENERATE_DETECT and PG_GENERATE_SEGMENT, expected one"));
    generate.flags = PG_GENERATE_SEGMENT;
    ARGUMENT(pg_generate(model, NULL, inputs, &generate, &result));
    assert_non_null(strstr(pg_last_error(), "PG_GENERATE_SEGMENT needs its tokens"));
}

/* ---- options and arguments ---- */

static pg_status with_options(const pg_answer_options *options) {
    pg_answer *answer = (pg_answer *)&answer;
    pg_status status = pg_answer_create_from_text(B1, strlen(B1), options, &answer);
    if (status < 0) assert_null(answer);
    pg_answer_close(&answer);
    return status;
}

static void refused(const pg_answer_options *options, const char *name, const char *found) {
    ARGUMENT(with_options(options));
    if (!strstr(pg_last_error(), name) || !strstr(pg_last_error(), found))
        fail_msg("\"%s\" lacks \"%s\" or \"%s\"", pg_last_error(), name, found);
}

static void options_out_of_range(void **state) {
    (void)state;
    pg_answer_options o;
    refused(NULL, "width is 0", "image_sizes");
    o = options_of(0), o.width = 0, refused(&o, "width is 0", "at least 1");
    o = options_of(0), o.height = -5, refused(&o, "height is -5", "at least 1");
    o = options_of(0), o.convention = 2, refused(&o, "convention is 2", "PG_BOX_1023");
    o = options_of(0), o.convention = -1, refused(&o, "convention is -1", "PG_BOX_1024");
    o = options_of(0), o.max_iou = NAN, refused(&o, "max_iou is", "less than 1");
    o = options_of(0), o.max_iou = -0.1f, refused(&o, "max_iou is -0.1", "less than 1");
    o = options_of(0), o.max_iou = 1, refused(&o, "max_iou is 1", "less than 1");
    o = options_of(0), o.max_iou = INFINITY, refused(&o, "max_iou is inf", "less than 1");
    o = options_of(2), refused(&o, "0x2", "PG_ANSWER_POINTS");
    o = options_of(0), o.struct_size = 4;
    ARGUMENT(with_options(&o));
    o = options_of(0), o.width = o.height = INT32_MAX, o.max_iou = 0.999f;
    OK(with_options(&o));
}

static void arguments_that_are_none(void **state) {
    const pg_answer_options o = options_of(0);
    pg_answer *answer = NULL;
    pg_result *result = NULL;
    pg_object object = {.struct_size = sizeof object};
    (void)state;
    ARGUMENT(pg_answer_create_from_text(NULL, 1, &o, &answer));
    ARGUMENT(pg_answer_create_from_text("", 0, &o, NULL));
    OK(pg_answer_create_from_text(NULL, 0, &o, &answer));
    assert_string_equal(pg_answer_get_text(answer), "");
    ARGUMENT(pg_answer_get_object(answer, 0, &object));
    pg_answer_close(&answer);
    ARGUMENT(pg_answer_create_from_ids(NULL, NULL, NULL, 0, &o, &answer));
    ARGUMENT(pg_answer_create_from_ids(processor, NULL, NULL, 1, &o, &answer));
    OK(pg_answer_create_from_ids(processor, NULL, NULL, 0, &o, &answer));
    assert_string_equal(pg_answer_get_text(answer), "");
    pg_answer_close(&answer);
    ARGUMENT(pg_answer_create(processor, NULL, 0, &o, &answer));
    OK(pg_generate(model, processor, inputs, NULL, &result));
    ARGUMENT(pg_answer_create(NULL, result, 0, &o, &answer));
    ARGUMENT(pg_answer_create(processor, result, 1, &o, &answer));
    ARGUMENT(pg_answer_create(processor, result, -1, &o, &answer));
    pg_result_close(&result);
    OK(pg_answer_create_from_text(B1, strlen(B1), &o, &answer));
    ARGUMENT(pg_answer_get_object(answer, 1, &object));
    ARGUMENT(pg_answer_get_object(answer, -1, &object));
    ARGUMENT(pg_answer_get_object(answer, 0, NULL));
    ARGUMENT(pg_answer_get_object(NULL, 0, &object));
    pg_answer_close(&answer);
    pg_answer_close(&answer);
    pg_answer_close(NULL);
    assert_int_equal(pg_answer_get_n_objects(NULL), 0);
    assert_string_equal(pg_answer_get_text(NULL), "");
}

/* ---- memory ---- */

static pg_status from_text(bytes *text, counter *memory) {
    pg_answer_options options = options_of(0);
    pg_answer *answer = NULL;
    options.allocator = &memory->hooks;
    options.max_iou = text->size < 100000 ? 0.5f : 0;
    pg_status status = pg_answer_create_from_text((char *)text->data, text->size, &options, &answer);
    pg_answer_close(&answer);
    return status;
}

static pg_status from_ids(const int64_t *ids, size_t n, counter *memory) {
    static float log_probs[64];
    pg_answer_options options = options_of(0);
    pg_answer *answer = NULL;
    options.allocator = &memory->hooks;
    pg_status status = pg_answer_create_from_ids(processor, ids, log_probs, n, &options, &answer);
    pg_answer_close(&answer);
    return status;
}

static void each_allocation_fails(void **state) {
    static counter memory;
    bytes text = {0};
    int64_t ids[64];
    (void)state;
    for (int i = 0; i < 50; i++) bytes_text(&text, B1 " cat ; ");
    const size_t n = ids_of("<loc0000><loc0000><loc0002><loc0002> the cat \xC3\xA9", ids, 64);
    for (int way = 0; way < 2; way++) {
        counter_init(&memory);
        OK(way ? from_ids(ids, n, &memory) : from_text(&text, &memory));
        assert_true(counter_clean(&memory));
        const int64_t total = memory.n_allocs;
        assert_in_range(total, 4, 1000);
        for (int64_t at = 1; at <= total; at++) {
            counter_init(&memory);
            memory.fail_at = at;
            ERROR(way ? from_ids(ids, n, &memory) : from_text(&text, &memory), PG_ERROR_MEMORY);
            assert_true(counter_clean(&memory));
        }
    }
    bytes_free(&text);
}

/* Four times the text: four times the memory, whatever the text is. */
static void memory_grows_with_the_text(void **state) {
    static const char *const units[] = {B1 " cat ; ", "<loc0001>;", B1,       "<seg001>",  "<loc",
                                        "a b ",       ";",          ("a" B1), "<loc0001> "};
    static counter memory;
    (void)state;
    for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
        long long peak[2];
        for (int k = 0; k < 2; k++) {
            bytes text = {0};
            for (int i = 0; i < (k ? 32768 : 8192); i++) bytes_text(&text, units[u]);
            counter_init(&memory);
            OK(from_text(&text, &memory));
            assert_true(counter_clean(&memory));
            peak[k] = memory.peak_bytes;
            if (peak[k] > 150 * (long long)text.size + 4096) fail_msg("%lld bytes for %zu of text", peak[k], text.size);
            bytes_free(&text);
        }
        if (peak[1] > 5 * peak[0]) fail_msg("\"%s\": %lld bytes, then %lld", units[u], peak[0], peak[1]);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_grammar),
        cmocka_unit_test(points),
        cmocka_unit_test(pixels_of_the_image),
        cmocka_unit_test(nothing_is_made_up),
        cmocka_unit_test(any_bytes),
        cmocka_unit_test(scores_by_hand),
        cmocka_unit_test(ids_and_text_say_the_same),
        cmocka_unit_test(boxes_said_twice),
        cmocka_unit_test(many_boxes_said_twice),
        cmocka_unit_test(an_answer_of_a_result),
        cmocka_unit_test(answers_that_must_be_well_formed),
        cmocka_unit_test(options_out_of_range),
        cmocka_unit_test(arguments_that_are_none),
        cmocka_unit_test(each_allocation_fails),
        cmocka_unit_test(memory_grows_with_the_text),
    };
    return RUN_TESTS(tests, setup, teardown);
}
