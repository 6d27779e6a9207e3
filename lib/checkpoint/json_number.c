/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Decimal to double: a product or quotient of two exact doubles where that is enough (Clinger), else the quotient of
 * two big integers to 64 bits and whether a rest was left.
 */
#include "checkpoint/json_number.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* 768 digits decide any rounding: a half between two doubles has no more. Whether others follow counts as one more. */
enum { MAX_DIGITS = 770, MAX_WORDS = 144 };

typedef struct decimal {
    uint8_t digits[MAX_DIGITS + 1]; /* without zeros in front */
    int n, is_negative;
    int64_t exponent; /* the value is the integer of the digits times 10^exponent */
} decimal;

typedef struct big {
    uint32_t words[MAX_WORDS]; /* the least first */
    int n;                     /* without zeros behind */
} big;

/* An exponent that no file can hold so many digits against. */
#define FAR_EXPONENT INT64_C(1000000000000000)

static void take_digit(decimal *d, uint8_t digit, int is_fraction) {
    if (d->n == 0 && digit == 0) {
        d->exponent -= is_fraction;
    } else if (d->n < MAX_DIGITS) {
        d->digits[d->n++] = digit;
        d->exponent -= is_fraction;
    } else {
        if (digit) d->digits[MAX_DIGITS - 1] |= 1; /* sticky: what was cut off is more than nothing */
        d->exponent += !is_fraction;
    }
}

static void read_decimal(const uint8_t *text, size_t size, decimal *d) {
    size_t at = 0;
    int is_fraction = 0;
    d->n = 0;
    d->exponent = 0;
    d->is_negative = size > 0 && text[0] == '-';
    for (at = (size_t)d->is_negative; at < size && (text[at] | 0x20) != 'e'; at++) {
        if (text[at] == '.')
            is_fraction = 1;
        else
            take_digit(d, (uint8_t)(text[at] - '0'), is_fraction);
    }
    if (at == size) return;
    const int is_below = ++at < size && text[at] == '-';
    if (at < size && (text[at] == '-' || text[at] == '+')) at++;
    int64_t exponent = 0;
    for (; at < size; at++)
        if (exponent < FAR_EXPONENT) exponent = exponent * 10 + (text[at] - '0');
    d->exponent += is_below ? -exponent : exponent;
}

/* ---- big integers ---- */

static void multiply_add(big *b, uint32_t factor, uint32_t more) {
    uint64_t carry = more;
    for (int i = 0; i < b->n; i++) {
        carry += (uint64_t)b->words[i] * factor;
        b->words[i] = (uint32_t)carry;
        carry >>= 32;
    }
    if (carry) b->words[b->n++] = (uint32_t)carry;
}

static void multiply_by_power_of_ten(big *b, int64_t power) {
    for (; power >= 9; power -= 9) multiply_add(b, 1000000000, 0);
    for (; power > 0; power--) multiply_add(b, 10, 0);
}

static void shift_left(big *b, int n_bits) {
    const int n_words = n_bits / 32, rest = n_bits % 32;
    if (b->n == 0) return;
    memmove(b->words + n_words, b->words, (size_t)b->n * sizeof *b->words);
    memset(b->words, 0, (size_t)n_words * sizeof *b->words);
    b->n += n_words;
    if (rest) {
        uint32_t carry = 0;
        for (int i = n_words; i < b->n; i++) {
            const uint32_t word = b->words[i];
            b->words[i] = word << rest | carry;
            carry = word >> (32 - rest);
        }
        if (carry) b->words[b->n++] = carry;
    }
}

static int n_bits_of(const big *b) {
    int n = 0;
    for (uint32_t top = b->n ? b->words[b->n - 1] : 0; top; top >>= 1) n++;
    return b->n ? (b->n - 1) * 32 + n : 0;
}

static int is_less(const big *a, const big *b) {
    if (a->n != b->n) return a->n < b->n;
    for (int i = a->n - 1; i >= 0; i--)
        if (a->words[i] != b->words[i]) return a->words[i] < b->words[i];
    return 0;
}

/* a -= b, which is not more. */
static void subtract(big *a, const big *b) {
    uint64_t borrow = 0;
    for (int i = 0; i < a->n; i++) {
        const uint64_t take = (i < b->n ? b->words[i] : 0) + borrow;
        borrow = a->words[i] < take;
        a->words[i] = (uint32_t)(a->words[i] - take);
    }
    while (a->n && a->words[a->n - 1] == 0) a->n--;
}

/* The first 64 bits of above / below: the integer returned, its top bit set, times 2^-*shift. *rest: more follows. */
static uint64_t divide(big *above, big *below, int *shift, int *rest) {
    uint64_t bits = 0;
    *shift = 63 + n_bits_of(below) - n_bits_of(above); /* the quotient has 63 or 64 bits then */
    shift_left(*shift >= 0 ? above : below, *shift >= 0 ? *shift : -*shift);
    shift_left(below, 63);
    if (is_less(above, below)) {
        shift_left(above, 1);
        ++*shift;
    }
    for (int i = 0; i < 64; i++) {
        const int bit = !is_less(above, below);
        if (bit) subtract(above, below);
        bits = bits << 1 | (uint64_t)bit;
        shift_left(above, 1);
    }
    *rest = above->n > 0;
    return bits;
}

/* bits x 2^-shift, a little more with `rest`, to the next double. */
static double round_to_double(uint64_t bits, int shift, int rest) {
    const int top = 63 - shift; /* the exponent of the first bit */
    const int kept = top >= DBL_MIN_EXP - 1 ? DBL_MANT_DIG : DBL_MANT_DIG - (DBL_MIN_EXP - 1 - top);
    if (kept < 0) return 0; /* below half of the smallest */
    const int cut = 64 - kept;
    uint64_t mantissa = kept ? bits >> cut : 0;
    const uint64_t half = UINT64_C(1) << (cut - 1), below = bits & (half - 1);
    if ((bits & half) && (below || rest || (mantissa & 1))) mantissa++;
    return ldexp((double)mantissa, cut - shift);
}

static double slow_value(const decimal *d) {
    big above = {.n = 0}, below = {.words = {1}, .n = 1};
    int shift, rest;
    for (int i = 0; i < d->n; i++) multiply_add(&above, 10, d->digits[i]);
    multiply_by_power_of_ten(d->exponent >= 0 ? &above : &below, d->exponent >= 0 ? d->exponent : -d->exponent);
    const uint64_t bits = divide(&above, &below, &shift, &rest);
    return round_to_double(bits, shift, rest);
}

/* Both factors are exact, so that there is one rounding. */
static int fast_value(const decimal *d, double *out) {
    static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                    1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    uint64_t n = 0;
    if (d->n > 15 || d->exponent < -22 || d->exponent > 22) return 0;
    for (int i = 0; i < d->n; i++) n = n * 10 + d->digits[i];
    *out = d->exponent < 0 ? (double)n / powers[-d->exponent] : (double)n * powers[d->exponent];
    return 1;
}

int pgi_number_read(const uint8_t *text, size_t size, double *out) {
    decimal d;
    read_decimal(text, size, &d);
    while (d.n > 0 && d.digits[d.n - 1] == 0) { /* "1000000000000000000.0" is short */
        d.n--;
        d.exponent++;
    }
    const int64_t point = d.n + d.exponent; /* the value lies below 10^point and not below 10^(point - 1) */
    double value = 0;
    if (d.n > 0 && point > 310) return 0;
    if (d.n > 0 && point > -330 && !fast_value(&d, &value)) value = slow_value(&d);
    *out = d.is_negative ? -value : value;
    return value <= DBL_MAX;
}

int pgi_number_read_integer(const uint8_t *text, size_t size, int64_t *out) {
    const int is_negative = size > 0 && text[0] == '-';
    const uint64_t most = (uint64_t)INT64_MAX + (uint64_t)is_negative;
    uint64_t n = 0;
    for (size_t at = (size_t)is_negative; at < size; at++) {
        const uint64_t digit = (uint64_t)(text[at] - '0');
        if (n > (most - digit) / 10) return 0;
        n = n * 10 + digit;
    }
    *out = is_negative ? (int64_t)(0 - n) : (int64_t)n;
    return 1;
}

/* ---- writing ---- */

/* The digits and the exponent of "d.ddde+xx", whatever stands for the point. Returns the number of digits. */
static int take_apart(const char *text, char digits[20], int *exponent) {
    int n = 0, is_below = 0;
    for (; *text && *text != 'e'; text++)
        if (*text >= '0' && *text <= '9' && n < 19) digits[n++] = *text;
    *exponent = 0;
    for (; *text; text++) {
        if (*text == '-') is_below = 1;
        if (*text >= '0' && *text <= '9') *exponent = *exponent * 10 + (*text - '0');
    }
    if (is_below) *exponent = -*exponent;
    return n;
}

/* "0.ddd", "ddd.ddd" or "d.ddde-x". The point stands behind the first digit times 10^exponent. */
static void put_together(const char *digits, int n, int exponent, int is_scientific, char out[PGI_NUMBER_TEXT - 1]) {
    char *end = out + PGI_NUMBER_TEXT - 1;
    while (n > 1 && digits[n - 1] == '0') n--;
    if (!is_scientific && exponent < 0) {
        *out++ = '0';
        *out++ = '.';
        for (int i = -1; i > exponent; i--) *out++ = '0';
    }
    const int point = is_scientific ? 0 : exponent;
    for (int i = 0; i < n || i <= point; i++) {
        *out++ = (char)(i < n ? digits[i] : '0');
        if (i == point && (i + 1 < n || !is_scientific)) *out++ = '.';
        if (i == point && i + 1 >= n && !is_scientific) *out++ = '0';
    }
    *out = '\0';
    if (is_scientific) (void)snprintf(out, (size_t)(end - out), "e%d", exponent);
}

char *pgi_number_write(double value, int least, int most, char out[PGI_NUMBER_TEXT]) {
    const double size = fabs(value);
    char text[PGI_NUMBER_TEXT], digits[20];
    for (int n = least; n <= most; n++) {
        int exponent;
        double back;
        (void)snprintf(text, sizeof text, "%.*e", n - 1, size);
        const int n_digits = take_apart(text, digits, &exponent);
        /* without its point: the integer of the digits times a power of ten */
        char plain[PGI_NUMBER_TEXT];
        (void)snprintf(plain, sizeof plain, "%.*se%d", n_digits, digits, exponent - n_digits + 1);
        if (n < most && (!pgi_number_read((const uint8_t *)plain, strlen(plain), &back) || back != size)) continue;
        out[0] = '-';
        put_together(digits, n_digits, exponent, exponent < -4 || exponent >= n, out + (signbit(value) ? 1 : 0));
        break;
    }
    return out;
}
