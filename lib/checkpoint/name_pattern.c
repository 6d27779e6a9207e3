/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Patterns of Python's re: the text becomes a small program (Thompson), which runs over a name in all of its states at
 * once. Captures and what is tried first do not matter for whether there is a match, so the answer is that of Python's
 * backtracking, which may take exponential time for it.
 *
 * The text is read twice by the same functions: once without a program, which only counts and finds what is wrong, and
 * then into one allocation that has the right size.
 */
#include "checkpoint/name_pattern.h"

#include <string.h>

#include "base/utf8.h"

enum {
    SHOWN = 60,                               /* bytes of the pattern in messages */
    MAX_NAMES = PGI_NAME_PATTERN_MAX_SIZE / 7 /* of groups: "(?P<a>)" */
};

#define NO_MAXIMUM UINT64_MAX
#define PYTHON_MAX_REPEAT UINT64_C(4294967295) /* re raises OverflowError from it on */

/* The characters that one place of a name may have. */
typedef struct charset {
    uint32_t bits[4]; /* of ASCII */
    int has_others;   /* all characters beyond ASCII */
} charset;

typedef enum operation {
    OP_CHARACTER, /* value: the code point */
    OP_SET,       /* value: the number of the set */
    OP_ASSERT,    /* value: an assertion */
    OP_SPLIT,     /* goes on behind it, and `value` instructions from it */
    OP_JUMP,      /* goes on `value` instructions from it, so that a part can be moved and copied */
    OP_ACCEPT
} operation;

typedef enum assertion { AT_BEGIN, AT_END, AT_VERY_END, AT_BOUNDARY, AT_NO_BOUNDARY } assertion;

typedef struct instruction {
    int32_t op, value;
} instruction;

struct pgi_name_pattern {
    pgi_memory memory;
    instruction *program; /* [n] */
    uint32_t n;
    const charset *sets;
    /* The room of a match; each [n]. */
    uint32_t *seen; /* the turn in which an instruction was reached last */
    uint16_t *now, *next, *stack;
};

/* ---- reading: messages and instructions ---- */

typedef struct parser {
    const char *where;
    const uint8_t *text;
    size_t size, at;
    int depth;
    instruction *program; /* NULL: only counted */
    charset *sets;        /* the same */
    uint32_t n, n_sets;
    uint32_t n_most; /* that n was: x{0} takes instructions back */
    int n_names;
    uint16_t names[MAX_NAMES]; /* where the names of groups begin; each ends with '>' */
} parser;

static pg_status refuse(const parser *p, pg_status status, size_t at, const char *what) {
    size_t shown = p->size < SHOWN ? p->size : SHOWN;
    while (shown > 0 && shown < p->size && (p->text[shown] & 0xC0) == 0x80) shown--;
    return pgi_error(status, "%s: pattern \"%.*s%s\", position %zu: %s", p->where, (int)shown, (const char *)p->text,
                     shown < p->size ? "..." : "", at, what);
}

static pg_status malformed(const parser *p, size_t at, const char *what) {
    return refuse(p, PG_ERROR_FORMAT, at, what);
}

static pg_status unsupported(const parser *p, size_t at, const char *what) {
    return refuse(p, PG_ERROR_UNSUPPORTED, at, what);
}

/* The program has n instructions now, or soon. */
static pg_status check_size(parser *p, uint64_t n) {
    if (n > PGI_NAME_PATTERN_MAX_INSTRUCTIONS)
        return refuse(p, PG_ERROR_LIMIT, p->at, "too many instructions, repetitions being written out");
    if (n > p->n_most) p->n_most = (uint32_t)n;
    return PG_OK;
}

static int next_is(const parser *p, char c) { return p->at < p->size && p->text[p->at] == (uint8_t)c; }

static int take(parser *p, char c) {
    const int is_there = next_is(p, c);
    p->at += (size_t)is_there;
    return is_there;
}

static void set_instruction(parser *p, uint32_t at, operation op, int32_t value) {
    if (p->program) p->program[at] = (instruction){op, value};
}

static pg_status put(parser *p, operation op, int32_t value) {
    PGI_TRY(check_size(p, (uint64_t)p->n + 1));
    set_instruction(p, p->n++, op, value);
    return PG_OK;
}

static pg_status put_set(parser *p, const charset *set) {
    if (p->sets) p->sets[p->n_sets] = *set;
    return put(p, OP_SET, (int32_t)p->n_sets++);
}

/* Room for an instruction before what begins at `begin`. */
static pg_status open_gap(parser *p, uint32_t begin) {
    PGI_TRY(check_size(p, (uint64_t)p->n + 1));
    if (p->program) memmove(p->program + begin + 1, p->program + begin, (p->n - begin) * sizeof *p->program);
    p->n++;
    return PG_OK;
}

/* ---- reading: characters and classes ---- */

static int is_digit(uint32_t c) { return c >= '0' && c <= '9'; }

static int is_letter(uint32_t c) { return (c | 0x20) >= 'a' && (c | 0x20) <= 'z'; }

static int is_word(uint32_t c) { return is_letter(c) || is_digit(c) || c == '_'; }

/* str.isspace() has the separators 28 to 31 of ASCII, too. */
static int is_space(uint32_t c) { return (c >= 9 && c <= 13) || (c >= 28 && c <= 32); }

static void set_add(charset *set, uint32_t from, uint32_t to) {
    for (uint32_t c = from; c <= to; c++) set->bits[c / 32] |= UINT32_C(1) << c % 32;
}

static void set_negate(charset *set) {
    for (int i = 0; i < 4; i++) set->bits[i] = ~set->bits[i];
    set->has_others = !set->has_others;
}

static void set_join(charset *set, const charset *more) {
    for (int i = 0; i < 4; i++) set->bits[i] |= more->bits[i];
    set->has_others |= more->has_others;
}

/* \d, \w, \s, and in capitals all others. */
static charset category(uint8_t letter) {
    const uint8_t small = letter | 0x20;
    charset set = {.has_others = 0};
    for (uint32_t c = 0; c < 128; c++)
        if (small == 'd' ? is_digit(c) : small == 'w' ? is_word(c) : is_space(c)) set_add(&set, c, c);
    if (letter != small) set_negate(&set);
    return set;
}

/* What a character or an escape stands for. */
typedef struct atom {
    operation op;   /* OP_CHARACTER, OP_SET or OP_ASSERT */
    uint32_t value; /* the code point, the assertion */
    charset set;
} atom;

static pg_status read_character(parser *p, atom *out) {
    const size_t n = pgi_utf8_next(p->text + p->at, p->size - p->at, &out->value);
    if (n == 0) return malformed(p, p->at, "bytes that are no UTF-8");
    p->at += n;
    out->op = OP_CHARACTER;
    return PG_OK;
}

/* The escapes of letters that stand for something else; 0: this one does not. In a class \b is a backspace. */
static int known_escape(uint8_t c, int is_in_class, atom *out) {
    static const char controls[] = "abfnrtv", codes[] = "\a\b\f\n\r\t\v", asserts[] = "AZbB";
    static const assertion assertions[] = {AT_BEGIN, AT_VERY_END, AT_BOUNDARY, AT_NO_BOUNDARY};
    const char *found;
    if (c == 0) return 0; /* which strchr() finds */
    if (strchr("dDsSwW", c)) {
        out->op = OP_SET;
        out->set = category(c);
    } else if (!is_in_class && (found = strchr(asserts, c)) != NULL) {
        out->op = OP_ASSERT;
        out->value = assertions[found - asserts];
    } else if ((found = strchr(controls, c)) != NULL) {
        out->op = OP_CHARACTER;
        out->value = (uint32_t)codes[found - controls];
    } else {
        return 0;
    }
    return 1;
}

static pg_status read_escape(parser *p, int is_in_class, atom *out) {
    const size_t start = p->at++;
    if (p->at == p->size) return malformed(p, start, "bad escape (end of pattern)");
    const uint8_t c = p->text[p->at];
    if (known_escape(c, is_in_class, out)) {
        p->at++;
        return PG_OK;
    }
    switch (c) {
        case 'x':
        case 'u':
        case 'U':
        case 'N': return unsupported(p, start, "a character by its number or name is not supported");
        case 'p':
        case 'P': return unsupported(p, start, "a class of Unicode (\\p) is not supported");
        case 'z': return unsupported(p, start, "\\z is not supported");
        default: break;
    }
    if (is_digit(c))
        return unsupported(
            p, start,
            c == '0' || is_in_class ? "an octal escape is not supported" : "a back reference is not supported");
    if (is_letter(c)) return malformed(p, start, "bad escape");
    return read_character(p, out);
}

static pg_status read_of_class(parser *p, atom *out) {
    const size_t start = p->at;
    PGI_TRY(next_is(p, '\\') ? read_escape(p, 1, out) : read_character(p, out));
    if (out->op == OP_CHARACTER && out->value > 127)
        return unsupported(p, start, "a character beyond ASCII in a class is not supported");
    return PG_OK;
}

/* A character or a range of a class. *is_last: "-]" ended it. */
static pg_status read_class_item(parser *p, size_t class_at, charset *set, int *is_last) {
    const size_t start = p->at;
    atom low, high;
    PGI_TRY(read_of_class(p, &low));
    high = low;
    if (take(p, '-')) {
        if (p->at == p->size) return malformed(p, class_at, "unterminated character set");
        if (take(p, ']')) {
            set_add(set, '-', '-');
            *is_last = 1;
        } else {
            PGI_TRY(read_of_class(p, &high));
            if (low.op != OP_CHARACTER || high.op != OP_CHARACTER || high.value < low.value)
                return malformed(p, start, "bad character range");
        }
    }
    if (low.op == OP_SET)
        set_join(set, &low.set);
    else
        set_add(set, low.value, high.value);
    return PG_OK;
}

static pg_status read_class(parser *p) {
    const size_t start = p->at++;
    const int is_negated = take(p, '^');
    charset set = {.has_others = 0};
    int is_last = 0;
    for (int is_first = 1; !is_last; is_first = 0) {
        if (p->at == p->size) return malformed(p, start, "unterminated character set");
        if (!is_first && take(p, ']')) break;
        PGI_TRY(read_class_item(p, start, &set, &is_last));
    }
    if (is_negated) set_negate(&set);
    return put_set(p, &set);
}

/* ---- reading: quantifiers ---- */

/* Digits, none being `none`. From PYTHON_MAX_REPEAT on it is not exact. */
static uint64_t read_number(parser *p, uint64_t none) {
    uint64_t n = 0;
    if (p->at == p->size || !is_digit(p->text[p->at])) return none;
    for (; p->at < p->size && is_digit(p->text[p->at]); p->at++)
        if (n < PYTHON_MAX_REPEAT) n = n * 10 + (p->text[p->at] - '0');
    return n;
}

/* {m}, {m,}, {,n} or {m,n}. Whatever else begins with '{' is text: nothing is read, and *is_there is 0. */
static pg_status read_counts(parser *p, uint64_t *least, uint64_t *most, int *is_there) {
    const size_t start = p->at++;
    *is_there = !next_is(p, '}'); /* "{}" is no quantifier, but "{,}" is one */
    const uint64_t number = read_number(p, NO_MAXIMUM);
    *least = number == NO_MAXIMUM ? 0 : number;
    *most = take(p, ',') ? read_number(p, NO_MAXIMUM) : number;
    if (!*is_there || !take(p, '}')) {
        p->at = start;
        *is_there = 0;
        return PG_OK;
    }
    if (*least >= PYTHON_MAX_REPEAT || (*most != NO_MAXIMUM && *most >= PYTHON_MAX_REPEAT))
        return refuse(p, PG_ERROR_LIMIT, start, "the repetition number is too large");
    if (*most < *least) return malformed(p, start, "min repeat greater than max repeat");
    return PG_OK;
}

static pg_status read_quantifier(parser *p, uint64_t *least, uint64_t *most, int *is_there) {
    *is_there = next_is(p, '*') || next_is(p, '+') || next_is(p, '?');
    if (next_is(p, '{')) return read_counts(p, least, most, is_there);
    if (!*is_there) return PG_OK;
    *least = next_is(p, '+');
    *most = next_is(p, '?') ? 1 : NO_MAXIMUM;
    p->at++;
    return PG_OK;
}

/* Writes `times` copies of a part behind it, from the second on with a way out to `end` where it is optional. */
static void put_copies(parser *p, uint32_t part, uint32_t size, uint64_t least, uint64_t times, uint32_t end) {
    uint32_t at = part + size;
    for (uint64_t i = 1; i < times; i++) {
        if (i >= least) {
            set_instruction(p, at, OP_SPLIT, (int32_t)(end - at));
            at++;
        }
        memcpy(p->program + at, p->program + part, size * sizeof *p->program);
        at += size;
    }
}

/* The part from `begin` on is repeated: x{2,4} becomes xx(x(x)?)?, x{2,} xx+, and x{0} nothing. */
static pg_status repeat(parser *p, uint32_t begin, uint64_t least, uint64_t most) {
    const uint32_t size = p->n - begin;
    if (size == 0) return PG_OK; /* nothing, however often */
    const int is_endless = most == NO_MAXIMUM, is_optional = least == 0;
    const uint64_t times = !is_endless ? most : least ? least : 1;
    const uint64_t n = times * size + (is_endless ? 1u + (uint64_t)is_optional : most - least);
    PGI_TRY(check_size(p, begin + n));
    const uint32_t end = begin + (uint32_t)n;
    if (p->program && n > 0) {
        const uint32_t part = begin + (uint32_t)is_optional;
        memmove(p->program + part, p->program + begin, size * sizeof *p->program);
        if (is_optional) set_instruction(p, begin, OP_SPLIT, (int32_t)n);
        put_copies(p, part, size, is_endless ? times : least, times, end);
        if (is_endless && is_optional) set_instruction(p, end - 1, OP_JUMP, -(int32_t)(n - 1));
        if (is_endless && !is_optional) set_instruction(p, end - 1, OP_SPLIT, -(int32_t)size);
    }
    p->n = end;
    return PG_OK;
}

/* ---- reading: groups, sequences, alternatives ---- */

static pg_status read_alternatives(parser *p);

/* The name of (?P<name>. */
static pg_status read_group_name(parser *p) {
    const size_t start = p->at;
    while (p->at < p->size && p->text[p->at] != '>') p->at++;
    const size_t size = p->at - start;
    if (size == 0) return malformed(p, start, "missing group name");
    if (!take(p, '>')) return malformed(p, start, "missing >, unterminated name");
    for (size_t i = 0; i < size; i++) {
        const uint8_t c = p->text[start + i];
        if (c > 127) return unsupported(p, start, "a group name beyond ASCII is not supported");
        if (!is_word(c) || (i == 0 && is_digit(c))) return malformed(p, start, "bad character in group name");
    }
    for (int i = 0; i < p->n_names; i++)
        if (memcmp(p->text + p->names[i], p->text + start, size + 1) == 0)
            return malformed(p, start, "redefinition of a group name");
    if (p->n_names < MAX_NAMES) p->names[p->n_names++] = (uint16_t)start; /* more cannot be closed */
    return PG_OK;
}

/* What follows "(?" at `start`. */
static pg_status read_group_kind(parser *p, size_t start) {
    if (p->at == p->size) return malformed(p, start, "unexpected end of pattern");
    const uint8_t c = p->text[p->at++];
    switch (c) {
        case ':': return PG_OK;
        case 'P':
            if (take(p, '<')) return read_group_name(p);
            if (take(p, '=')) return unsupported(p, start, "a back reference is not supported");
            return malformed(p, start, "unknown extension ?P");
        case '=':
        case '!': return unsupported(p, start, "a lookahead is not supported");
        case '<':
            if (next_is(p, '=') || next_is(p, '!')) return unsupported(p, start, "a lookbehind is not supported");
            return malformed(p, start, "unknown extension ?<");
        case '#': return unsupported(p, start, "a comment is not supported");
        case '(': return unsupported(p, start, "a conditional group is not supported");
        case '>': return unsupported(p, start, "an atomic group is not supported");
        default:
            if (c && strchr("-aiLmstux", c)) return unsupported(p, start, "flags are not supported");
            return malformed(p, start, "unknown extension");
    }
}

static pg_status read_group(parser *p) {
    const size_t start = p->at++;
    if (p->depth == PGI_NAME_PATTERN_MAX_DEPTH) return refuse(p, PG_ERROR_LIMIT, start, "groups are nested too deep");
    if (take(p, '?')) PGI_TRY(read_group_kind(p, start));
    p->depth++;
    PGI_TRY(read_alternatives(p));
    p->depth--;
    if (!take(p, ')')) return malformed(p, start, "missing ), unterminated subpattern");
    return PG_OK;
}

typedef enum item { ITEM_NONE, ITEM_ASSERTION, ITEM_REPEAT, ITEM_OTHER } item;

static pg_status read_item(parser *p, item *out) {
    charset any = {.has_others = 0};
    atom a = {.op = OP_CHARACTER};
    *out = ITEM_OTHER;
    switch (p->text[p->at]) {
        case '(': return read_group(p);
        case '[': return read_class(p);
        case '.':
            p->at++;
            set_add(&any, '\n', '\n');
            set_negate(&any);
            return put_set(p, &any);
        case '^':
        case '$': *out = ITEM_ASSERTION; return put(p, OP_ASSERT, p->text[p->at++] == '^' ? AT_BEGIN : AT_END);
        case '\\': PGI_TRY(read_escape(p, 0, &a)); break;
        default: PGI_TRY(read_character(p, &a));
    }
    if (a.op == OP_SET) return put_set(p, &a.set);
    if (a.op == OP_ASSERT) *out = ITEM_ASSERTION;
    return put(p, a.op, (int32_t)a.value);
}

static pg_status read_sequence(parser *p) {
    item last = ITEM_NONE;
    uint32_t begin = p->n; /* of the last item */
    while (p->at < p->size && !next_is(p, '|') && !next_is(p, ')')) {
        const size_t start = p->at;
        uint64_t least = 0, most = 0;
        int is_quantifier;
        PGI_TRY(read_quantifier(p, &least, &most, &is_quantifier));
        if (!is_quantifier) {
            begin = p->n;
            PGI_TRY(read_item(p, &last));
            continue;
        }
        if (last == ITEM_NONE || last == ITEM_ASSERTION) return malformed(p, start, "nothing to repeat");
        if (last == ITEM_REPEAT) return malformed(p, start, "multiple repeat");
        if (next_is(p, '+')) return unsupported(p, start, "a possessive quantifier is not supported");
        (void)take(p, '?'); /* lazy: which match, not whether there is one */
        last = ITEM_REPEAT;
        PGI_TRY(repeat(p, begin, least, most));
    }
    return PG_OK;
}

static pg_status read_alternatives(parser *p) {
    int32_t jump = -1; /* the last of those that wait for the end; each has the one before it for the moment */
    for (;;) {
        const uint32_t begin = p->n;
        PGI_TRY(read_sequence(p));
        if (!take(p, '|')) break;
        PGI_TRY(open_gap(p, begin));
        PGI_TRY(put(p, OP_JUMP, jump));
        set_instruction(p, begin, OP_SPLIT, (int32_t)(p->n - begin));
        jump = (int32_t)p->n - 1;
    }
    while (p->program && jump >= 0) {
        const int32_t before = p->program[jump].value;
        p->program[jump].value = (int32_t)p->n - jump;
        jump = before;
    }
    return PG_OK;
}

static pg_status read_pattern(parser *p) {
    p->at = 0;
    p->n = p->n_sets = 0;
    p->n_names = p->depth = 0;
    PGI_TRY(read_alternatives(p));
    if (p->at < p->size) return malformed(p, p->at, "unbalanced parenthesis");
    return put(p, OP_ACCEPT, 0);
}

/* ---- the pattern ---- */

static void lay_out(pgi_arena *arena, parser *p, pgi_name_pattern *out) {
    (void)pgi_arena_take(arena, 1, sizeof *out); /* itself */
    out->program = p->program = pgi_arena_take(arena, p->n_most, sizeof *p->program);
    out->sets = p->sets = pgi_arena_take(arena, p->n_sets, sizeof *p->sets);
    out->seen = pgi_arena_take(arena, out->n, sizeof *out->seen);
    out->now = pgi_arena_take(arena, out->n, sizeof *out->now);
    out->next = pgi_arena_take(arena, out->n, sizeof *out->next);
    out->stack = pgi_arena_take(arena, out->n, sizeof *out->stack);
}

pg_status pgi_name_pattern_compile(const pgi_memory *memory, const char *where, const char *pattern, size_t size,
                                   pgi_name_pattern **out) {
    parser p = {.where = where, .text = (const uint8_t *)pattern, .size = size};
    pgi_arena arena = {.base = NULL};
    *out = NULL;
    if (size > PGI_NAME_PATTERN_MAX_SIZE)
        return refuse(&p, PG_ERROR_LIMIT, PGI_NAME_PATTERN_MAX_SIZE, "the pattern is too long");
    PGI_TRY(read_pattern(&p));
    pgi_name_pattern made = {.memory = *memory, .n = p.n};
    lay_out(&arena, &p, &made);
    arena = (pgi_arena){.base = pgi_alloc(memory, arena.used, 1)};
    if (!arena.base) return PG_ERROR_MEMORY;
    lay_out(&arena, &p, &made);
    *out = (pgi_name_pattern *)(void *)arena.base;
    **out = made;
    (void)read_pattern(&p); /* it goes as it went the first time */
    return PG_OK;
}

void pgi_name_pattern_free(pgi_name_pattern *pattern) {
    if (!pattern) return;
    const pgi_memory memory = pattern->memory;
    pgi_free(&memory, pattern);
}

/* ---- matching ---- */

/* A bit for each assertion that holds there. `$` is also before a newline that ends the name. */
static unsigned assertions_at(const uint8_t *name, size_t size, size_t at) {
    const int before = at > 0 && is_word(name[at - 1]), behind = at < size && is_word(name[at]);
    unsigned bits = 0;
    if (at == 0) bits |= 1u << AT_BEGIN;
    if (at == size) bits |= 1u << AT_VERY_END | 1u << AT_END;
    if (at + 1 == size && name[at] == '\n') bits |= 1u << AT_END;
    if (size > 0) bits |= 1u << (before != behind ? AT_BOUNDARY : AT_NO_BOUNDARY);
    return bits;
}

/* Adds to `list` the instructions that take a character and that are reached from `first` without one. Each is reached
 * once in a turn, which also ends loops of nothing. Returns whether the pattern ends there. */
static int reach(pgi_name_pattern *p, uint32_t first, uint32_t turn, unsigned assertions, uint16_t *list, uint32_t *n) {
    uint32_t n_waiting = 0;
    int is_accepted = 0;
    if (p->seen[first] == turn) return 0;
    p->seen[first] = turn;
    p->stack[n_waiting++] = (uint16_t)first;
    while (n_waiting > 0) {
        const uint32_t at = p->stack[--n_waiting];
        const instruction *it = &p->program[at];
        const int goes_on = it->op == OP_SPLIT || (it->op == OP_ASSERT && (assertions >> it->value & 1));
        const int goes_away = it->op == OP_SPLIT || it->op == OP_JUMP;
        uint32_t ways[2];
        int n_ways = 0;
        if (goes_on) ways[n_ways++] = at + 1;
        if (goes_away) ways[n_ways++] = (uint32_t)((int32_t)at + it->value);
        if (it->op == OP_ACCEPT) is_accepted = 1;
        if (it->op == OP_CHARACTER || it->op == OP_SET) list[(*n)++] = (uint16_t)at;
        for (int i = 0; i < n_ways; i++) {
            if (p->seen[ways[i]] == turn) continue;
            p->seen[ways[i]] = turn;
            p->stack[n_waiting++] = (uint16_t)ways[i];
        }
    }
    return is_accepted;
}

static int takes(const pgi_name_pattern *p, uint32_t at, uint32_t c) {
    const instruction *it = &p->program[at];
    if (it->op == OP_CHARACTER) return c == (uint32_t)it->value;
    const charset *set = &p->sets[it->value];
    return c < 128 ? (int)(set->bits[c / 32] >> c % 32 & 1) : set->has_others;
}

size_t pgi_name_pattern_size(const pgi_name_pattern *pattern) { return pattern->n; }

int pgi_name_pattern_matches(pgi_name_pattern *pattern, const char *name, size_t size, int is_whole) {
    const uint8_t *bytes = (const uint8_t *)name;
    uint16_t *now = pattern->now, *next = pattern->next;
    uint32_t n = 0, turn = 1;
    size_t at = 0;
    memset(pattern->seen, 0, pattern->n * sizeof *pattern->seen);
    int is_accepted = reach(pattern, 0, turn, assertions_at(bytes, size, 0), now, &n);
    while (!is_accepted || (is_whole && at < size)) {
        uint32_t c, n_next = 0;
        const size_t n_bytes = at < size ? pgi_utf8_next(bytes + at, size - at, &c) : 0;
        if (n == 0 || n_bytes == 0) return 0;
        at += n_bytes;
        turn++;
        is_accepted = 0;
        const unsigned assertions = assertions_at(bytes, size, at);
        for (uint32_t i = 0; i < n; i++)
            if (takes(pattern, now[i], c)) is_accepted |= reach(pattern, now[i] + 1u, turn, assertions, next, &n_next);
        uint16_t *const free_list = now;
        now = next;
        next = free_list;
        n = n_next;
    }
    return 1;
}
