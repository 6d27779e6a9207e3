/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Text in pictures: a font of our own that is drawn with one pen, so that it has every size. ASCII, the letters of the
 * European languages that use the Latin alphabet, and Russian's: letters with a mark are made of the letter and the
 * mark. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "draw.h"
#include "tool.h"

/* A glyph is a path on a grid: the baseline is y = 0, small letters reach to 10, capitals to 14. After a command come
 * the numbers of points: M moves the pen there, L draws a line, H a quarter of an ellipse that leaves horizontally, V
 * one that leaves vertically, Q a curve with one control point. */
enum { CAPITAL = 14, SMALL = 10, SPACE = 5, FLATNESS = 6 };
static const float gap = 3.6f; /* between letters */

static const char *const ascii[] = {
    /* ! */ "M1 14L1 4.6M1 0L1 .3",
    /* " */ "M0 14L0 10M4 14L4 10",
    /* # */ "M3 14L1.2 0M8 14L6.2 0M.3 9.5L9 9.5M0 4.5L8.7 4.5",
    /* $ */ "M8.3 11.2V4.5 13H.4 10.2V4.5 7.2H9 3.8V4.5 1H0 3M4.5 15.5L4.5 -1.5",
    /* % */ "M2.3 14H4.6 11V2.3 8H0 11V2.3 14M8.7 6H11 3V8.7 0H6.4 3V8.7 6M9.6 14L1.4 0",
    /* & */ "M10 0L2.2 9.6Q1.6 10.4 1.6 11.4V4.3 14H7 11.4Q7 9.3 4.2 7.8Q0 5.6 0 3.6V4 0Q8 0 9.4 6",
    /* ' */ "M0 14L0 10",
    /* ( */ "M3.5 16Q0 11.5 0 6.5Q0 1.5 3.5 -3",
    /* ) */ "M0 16Q3.5 11.5 3.5 6.5Q3.5 1.5 0 -3",
    /* * */ "M4 13L4 6M1 11.4L7 7.6M7 11.4L1 7.6",
    /* + */ "M4.5 11L4.5 2M0 6.5L9 6.5",
    /* , */ "M1.4 .4L.2 -3",
    /* - */ "M0 5.6L5 5.6",
    /* . */ "M0 0L0 .3",
    /* / */ "M0 -1.5L6 15",
    /* 0 */ "M4 14H8 7V4 0H0 7V4 14",
    /* 1 */ "M1 11.2L4.3 14L4.3 0M1 0L7.6 0",
    /* 2 */ "M.4 10.8V4 14H7.8 10.3Q7.8 8 5.5 5.6L0 0L8 0",
    /* 3 */ "M.6 11.6V4 14H7.6 10.6V4 7.3H8 3.7V4 0H0 2.6",
    /* 4 */ "M6 0L6 14L0 4L8.3 4",
    /* 5 */ "M7.4 14L1.2 14L.7 7.6Q2 8.9 4 8.9H8 4.4V3.9 0H0 2.4",
    /* 6 */ "M7 12.6Q5.8 14 4.4 14H0 6L0 4.5V4 0H8 4.4V4 8.8H0 4.4",
    /* 7 */ "M0 14L8 14L2.8 0",
    /* 8 */ "M4 7.4H.5 10.7V4 14H7.5 10.7V4 7.4H0 3.7V4 0H8 3.7V4 7.4",
    /* 9 */ "M1 1.4Q2.2 0 3.6 0H8 8L8 9.5V4 14H0 9.6V4 5.2H8 9.6",
    /* : */ "M0 8.7L0 9M0 0L0 .3",
    /* ; */ "M1.2 8.7L1.2 9M1.4 .4L.2 -3",
    /* < */ "M8 12L0 6.5L8 1",
    /* = */ "M0 8.5L9 8.5M0 4.5L9 4.5",
    /* > */ "M0 12L8 6.5L0 1",
    /* ? */ "M.3 11.4V4 14H7.6 10.6Q7.6 8.8 5.8 7.6Q4 6.4 4 4.4M4 0L4 .3",
    /* @ */ "M10.5 1.2Q8.8 0 6.8 0H0 7V7 14H14 7.4Q14 4 11.8 4Q10 4 10 6L10 10M10 7V7.2 10H4.4 7V7.2 4H10 7",
    /* A */ "M0 0L5 14L10 0M1.8 5L8.2 5",
    /* B */ "M0 7.4L4.5 7.4H8 10.7V4.5 14L0 14L0 0L5 0H9 3.7V5 7.4",
    /* C */ "M9.6 11V5.5 14H0 7V5.5 0H9.6 3",
    /* D */ "M0 0L0 14L4 14H10 7V4 0L0 0",
    /* E */ "M8 14L0 14L0 0L8 0M0 7.3L7 7.3",
    /* F */ "M8 14L0 14L0 0M0 7L7 7",
    /* G */ "M9.6 11V5.5 14H0 7V5.5 0H10 4.5L10 6.5L6 6.5",
    /* H */ "M0 14L0 0M9.5 14L9.5 0M0 7.3L9.5 7.3",
    /* I */ "M0 14L4 14M2 14L2 0M0 0L4 0",
    /* J */ "M7 14L7 4V3.5 0H0 4",
    /* K */ "M0 14L0 0M9 14L0 5M3.2 8.2L9.5 0",
    /* L */ "M0 14L0 0L8 0",
    /* M */ "M0 0L0 14L6 4L12 14L12 0",
    /* N */ "M0 0L0 14L9.5 0L9.5 14",
    /* O */ "M5.5 14H11 7V5.5 0H0 7V5.5 14",
    /* P */ "M0 0L0 14L5 14H9 10.2V5 6.4L0 6.4",
    /* Q */ "M5.5 14H11 7V5.5 0H0 7V5.5 14M7 4L11 -.8",
    /* R */ "M0 0L0 14L5 14H9 10.2V5 6.4L0 6.4M4.8 6.4L9.5 0",
    /* S */ "M8.3 11.6V4.5 14H.4 10.5V4.5 7.3H9 3.6V4.5 0H0 2.6",
    /* T */ "M0 14L10 14M5 14L5 0",
    /* U */ "M0 14L0 5V5 0H10 5L10 14",
    /* V */ "M0 14L5 0L10 14",
    /* W */ "M0 14L3.5 0L7 12L10.5 0L14 14",
    /* X */ "M0 14L9 0M9 14L0 0",
    /* Y */ "M0 14L5 7L10 14M5 7L5 0",
    /* Z */ "M.3 14L9 14L0 0L9.3 0",
    /* [ */ "M3.5 16L0 16L0 -3L3.5 -3",
    /* \ */ "M0 15L6 -1.5",
    /* ] */ "M0 16L3.5 16L3.5 -3L0 -3",
    /* ^ */ "M0 9L4 14L8 9",
    /* _ */ "M0 -2L9 -2",
    /* ` */ "M0 14L2.5 11.5",
    /* a */ "M.8 8.2V4 10H8 6.5L8 0M8 5.8L3.5 5.8H0 2.9V3.5 0H8 3",
    /* b */ "M0 14L0 0M0 5V4 10H8 5V4 0H0 5",
    /* c */ "M7.6 7.5V4.2 10H0 5V4.2 0H7.6 2.5",
    /* d */ "M8 14L8 0M8 5V4 10H0 5V4 0H8 5",
    /* e */ "M0 5.2L8 5.2V4 10H0 5V4.2 0H7.6 2.2",
    /* f */ "M5.5 14L5 14H2 11L2 0M0 9.6L5 9.6",
    /* g */ "M8 10L8 -.5V4 -4H.6 -2.4M8 5V4 10H0 5V4 0H8 5",
    /* h */ "M0 14L0 0M0 6V4 10H7.6 6L7.6 0",
    /* i */ "M0 10L0 0M0 13.6L0 14",
    /* j */ "M2.6 10L2.6 -1V0 -4M2.6 13.6L2.6 14",
    /* k */ "M0 14L0 0M7 10L0 4M2.8 6.4L7.5 0",
    /* l */ "M0 14L0 2.5V2 0L2.4 0",
    /* m */ "M0 10L0 0M0 6.5V3 10H6 6.5L6 0M6 6.5V9 10H12 6.5L12 0",
    /* n */ "M0 10L0 0M0 6V4 10H7.6 6L7.6 0",
    /* o */ "M4.2 10H8.4 5V4.2 0H0 5V4.2 10",
    /* p */ "M0 10L0 -4M0 5V4 10H8 5V4 0H0 5",
    /* q */ "M8 10L8 -4M8 5V4 10H0 5V4 0H8 5",
    /* r */ "M0 10L0 0M0 6V4 10L5 10",
    /* s */ "M6.6 8.2V3.5 10H.3 7.6V3.5 5.2H7 2.6V3.5 0H0 1.9",
    /* t */ "M2 13.5L2 3V5 0L5.6 0M0 9.6L5.6 9.6",
    /* u */ "M0 10L0 4V3.6 0H7.6 4M7.6 10L7.6 0",
    /* v */ "M0 10L4 0L8 10",
    /* w */ "M0 10L3 0L6 9L9 0L12 10",
    /* x */ "M0 10L7.6 0M7.6 10L0 0",
    /* y */ "M0 10L4 0M8 10L3.6 -1.6Q2.7 -4 .6 -4",
    /* z */ "M.3 10L7.3 10L0 0L7.6 0",
    /* { */ "M4 16H2 13L2 9V0 6.5H2 4L2 0V4 -3",
    /* | */ "M0 16L0 -3",
    /* } */ "M0 16H2 13L2 9V4 6.5H2 4L2 0V0 -3",
    /* ~ */ "M0 5.5Q2.2 9 4.5 6.5Q6.8 4 9 7.5",
};

/* U+0410 to U+044F, the Cyrillic letters of Russian; a path that is one letter is that of the Latin one. */
static const char *const cyrillic[] = {
    "A",
    "M8 14L0 14L0 0L4.5 0H8.6 4V4.5 8L0 8",
    "B",
    "M7.5 14L0 14L0 0",
    "M0 -3L0 0L11 0L11 -3M2 0Q3.4 5 3.4 14L9.2 14L9.2 0",
    "E",
    "M6 14L6 0M0 14L6 7L12 14M0 0L6 7L12 0",
    "M.6 11.6V4 14H7.6 10.6V4 7.3H8 3.7V4 0H0 2.6M2.6 7.3L4 7.3",
    "M0 14L0 0L9.5 14L9.5 0",
    "M0 14L0 0L9.5 14L9.5 0",
    "K",
    "M0 0Q2.8 2 3 14L9.2 14L9.2 0",
    "M",
    "H",
    "O",
    "M0 0L0 14L9.5 14L9.5 0",
    "P",
    "C",
    "T",
    "M0 14L5 5M9.5 14L4 2Q3 0 .6 0",
    "M6 14L6 0M6 12H0 7.2V6 2.4H12 7.2V6 12",
    "X",
    "M0 14L0 0L10.5 0L10.5 -3M9 14L9 0",
    "M0 14L0 9V3.5 6L9 6M9 14L9 0",
    "M0 14L0 0L12 0L12 14M6 14L6 0",
    "M0 14L0 0L13.5 0L13.5 -3M6 14L6 0M12 14L12 0",
    "M0 14L3 14L3 0L7.5 0H11 3.9V7.5 7.8L3 7.8",
    "M0 14L0 0L4.5 0H8 3.9V4.5 7.8L0 7.8M11.5 14L11.5 0",
    "M0 14L0 0L4.5 0H8.2 3.9V4.5 7.8L0 7.8",
    "M.3 11.4V4.4 14H10 7V4.4 0H0 2.8M10 7.3L4 7.3",
    "M0 14L0 0M0 7L4 7M8.5 14H13 7V8.5 0H4 7V8.5 14",
    "M9 0L9 14L4.2 14H0 10.2V4.2 6.4L9 6.4M4.4 6.4L0 0",
    "a",
    "M7.4 14Q4 13.4 2 12Q0 10.2 0 5V4 0H8 4.6V4 9H.2 5.5",
    "M0 5.2L4 5.2H7 7.7V4 10L0 10L0 0L4.2 0H7.6 2.6V4.2 5.2",
    "M6 10L0 10L0 0",
    "M0 -2.5L0 0L9 0L9 -2.5M1.6 0Q2.8 3.5 2.8 10L7.4 10L7.4 0",
    "e",
    "M5 10L5 0M0 10L5 5L10 10M0 0L5 5L10 0",
    "M.3 8.4V3.4 10H6.4 7.6V3.4 5.2H7 2.6V3.4 0H0 1.8M2.2 5.2L3.4 5.2",
    "M0 10L0 0L7.4 10L7.4 0",
    "M0 10L0 0L7.4 10L7.4 0",
    "M0 10L0 0M6.8 10L0 4M2.6 6.2L7.2 0",
    "M0 0Q2.2 1 2.4 10L7.4 10L7.4 0",
    "M0 0L0 10L4.8 2.6L9.6 10L9.6 0",
    "M0 10L0 0M7.4 10L7.4 0M0 5.2L7.4 5.2",
    "o",
    "M0 0L0 10L7.4 10L7.4 0",
    "p",
    "c",
    "M0 10L8 10M4 10L4 0",
    "y",
    "M6 14L6 -4M6 10H0 5V6 0H12 5V6 10",
    "x",
    "M0 10L0 0L8.2 0L8.2 -2.5M7 10L7 0",
    "M0 10L0 6.8V3 4.4L7 4.4M7 10L7 0",
    "M0 10L0 0L10 0L10 10M5 10L5 0",
    "M0 10L0 0L11.2 0L11.2 -2.5M5 10L5 0M10 10L10 0",
    "M0 10L2.4 10L2.4 0L6 0H9 2.8V6 5.6L2.4 5.6",
    "M0 10L0 0L3.8 0H6.8 2.8V3.8 5.6L0 5.6M9.6 10L9.6 0",
    "M0 10L0 0L3.8 0H7 2.8V3.8 5.6L0 5.6",
    "M.3 8V3.6 10H8 5V3.6 0H0 1.9M8 5.2L3 5.2",
    "M0 10L0 0M0 5L3 5M6.6 10H10.4 5V6.6 0H3 5V6.6 10",
    "M7 0L7 10L3.2 10H0 7.3V3.2 4.6L7 4.6M3.4 4.6L0 0",
};

static const char missing[] = "M0 0L0 14L8 14L8 0L0 0"; /* a box */

static const struct {
    uint32_t code;
    const char *path;
} more[] = {
    {0xA1, "M0 10L0 9.7M0 5.4L0 -4"},                                      /* inverted ! */
    {0xA3, "M8 11.5V5 14H2 10.5L2 0M0 0L8.5 0M0 6.5L6 6.5"},               /* pound */
    {0xAB, "M4 9L0 5L4 1M8.5 9L4.5 5L8.5 1"},                              /* << */
    {0xB0, "M2.5 14H5 11.5V2.5 9H0 11.5V2.5 14"},                          /* degree */
    {0xB7, "M0 6L0 6.3"},                                                  /* middle dot */
    {0xBB, "M0 9L4 5L0 1M4.5 9L8.5 5L4.5 1"},                              /* >> */
    {0xBF, "M7.7 -1.4V4 -4H.4 -.6Q.4 1.2 2.2 2.4Q4 3.6 4 5.6M4 9.7L4 10"}, /* inverted ? */
    {0xC6, "M0 0L6 14L14 14M7 14L7 0L14 0M2 5L7 5M7 7.3L13 7.3"},          /* AE */
    {0xD0, "M1.5 0L1.5 14L5.5 14H11.5 7V5.5 0L1.5 0M0 7.3L6 7.3"},         /* Eth */
    {0xD7, "M0 10L7 3M7 10L0 3"},                                          /* times */
    {0xD8, "M5.5 14H11 7V5.5 0H0 7V5.5 14M.5 -1L10.5 15"},                 /* O slash */
    {0xDE, "M0 14L0 0M0 11L5 11H9 7.2V5 3.4L0 3.4"},                       /* Thorn */
    {0xDF, "M0 0L0 10V3.5 14H7 11Q7 9 4.2 7.8Q8 6.8 8 3.5V4.5 0L3 0"},     /* sharp s */
    {0xE6, "M.8 8.2V4 10H7 6.5L7 0M7 5.8L3.5 5.8H0 2.9V3.5 0H7 3M7 5.2L14 5.2V10.5 10H7 5V10.7 0H13.6 2.2"}, /* ae */
    {0xF0, "M8 6V4 9.5H0 4.8V4 0H8 5Q8 10 2.5 14M1.5 10.5L6.5 13.5"},                                        /* eth */
    {0xF7, "M0 6.5L9 6.5M4.5 10.7L4.5 11M4.5 2L4.5 2.3"},                                     /* divided by */
    {0xF8, "M4.2 10H8.4 5V4.2 0H0 5V4.2 10M.4 -1L8 11"},                                      /* o slash */
    {0xFE, "M0 14L0 -4M0 5V4 10H8 5V4 0H0 5"},                                                /* thorn */
    {0x110, "M1.5 0L1.5 14L5.5 14H11.5 7V5.5 0L1.5 0M0 7.3L6 7.3"},                           /* D stroke */
    {0x111, "M8 14L8 0M8 5V4 10H0 5V4 0H8 5M4.5 12L10 12"},                                   /* d stroke */
    {0x131, "M0 10L0 0"},                                                                     /* dotless i */
    {0x141, "M1.5 14L1.5 0L9.5 0M0 5.5L5.5 9"},                                               /* L stroke */
    {0x142, "M1.8 14L1.8 2.5V3.8 0L4.2 0M0 6.2L4 9"},                                         /* l stroke */
    {0x152, "M14 14L5.5 14H0 7V5.5 0L14 0M7.5 14L7.5 0M7.5 7.3L13 7.3"},                      /* OE */
    {0x153, "M3.8 10H7.4 5V3.8 0H0 5V3.8 10M7.4 5.2L14.2 5.2V10.8 10H7.4 5V10.9 0H13.8 2.2"}, /* oe */
    {0x237, "M2.6 10L2.6 -1V0 -4"},                                                           /* dotless j */
    {0x404, "M9.6 11V5.5 14H0 7V5.5 0H9.6 3M0 7.3L6 7.3"},
    {0x454, "M7.6 7.8V4.2 10H0 5V4.2 0H7.6 2.2M0 5.2L5 5.2"},
    {0x490, "M7.5 17L7.5 14L0 14L0 0"},
    {0x491, "M6 12.5L6 10L0 10L0 0"},
    {0x2013, "M0 5.6L8 5.6"},  /* en dash */
    {0x2014, "M0 5.6L13 5.6"}, /* em dash */
    {0x2018, "M1.4 14L.2 10.6"},
    {0x2019, "M1.4 14L.2 10.6"},
    {0x201A, "M1.4 .4L.2 -3"},
    {0x201C, "M1.4 14L.2 10.6M5 14L3.8 10.6"},
    {0x201D, "M1.4 14L.2 10.6M5 14L3.8 10.6"},
    {0x201E, "M1.4 .4L.2 -3M5 .4L3.8 -3"},
    {0x2022, "M1 6L1.4 6M1.2 6.4L1.2 5.6"},                                   /* bullet */
    {0x2026, "M0 0L0 .3M4 0L4 .3M8 0L8 .3"},                                  /* ellipsis */
    {0x20AC, "M9.6 11.5V6.5 14H1.5 7V6.5 0H9.6 2.5M0 8.5L7 8.5M0 5.5L7 5.5"}, /* euro */
};

/* Marks of letters. They are drawn around x = 0; those above stand on y = 0, which is the top of the letter. */
static const struct {
    uint32_t code; /* as a character of its own, which stands behind its letter */
    int below;
    const char *path;
} marks[] = {
    {0x300, 0, "M-2 4L.8 1.5"},
    {0x301, 0, "M2 4L-.8 1.5"},
    {0x302, 0, "M-2.6 1.5L0 4L2.6 1.5"},
    {0x303, 0, "M-3.2 1.8Q-1.6 4.4 0 2.8Q1.6 1.2 3.2 3.6"},
    {0x304, 0, "M-2.8 2.8L2.8 2.8"},
    {0x306, 0, "M-2.8 4Q0 0 2.8 4"},
    {0x307, 0, "M0 2.7L0 3"},
    {0x308, 0, "M-2 2.7L-2 3M2 2.7L2 3"},
    {0x30A, 0, "M0 4.6H1.7 3V0 1.4H-1.7 3V0 4.6"},
    {0x30B, 0, "M-.2 4L-2.4 1.5M3 4L.8 1.5"},
    {0x30C, 0, "M-2.6 4L0 1.5L2.6 4"},
    {0x326, 1, "M.6 -2L-.6 -4.6"},
    {0x327, 1, "M0 0L-.4 -1.6H1.8 -3V0 -4.4L-1.6 -4"},
    {0x328, 1, "M2.4 0Q0 -2 .8 -3.4Q1.6 -4.6 3.4 -3.8"},
};

/* U+00C0 to U+017F: the letter and its mark; 0: it has none, or is in `more`. */
static const struct {
    char letter;
    unsigned char mark; /* of the code U+03xx */
} letters[0x180 - 0xC0] = {
#define M(code, letter, mark) [(code)-0xC0] = {letter, mark}
    M(0xC0, 'A', 0x00),  M(0xC1, 'A', 0x01),  M(0xC2, 'A', 0x02),  M(0xC3, 'A', 0x03),  M(0xC4, 'A', 0x08),
    M(0xC5, 'A', 0x0A),  M(0xC7, 'C', 0x27),  M(0xC8, 'E', 0x00),  M(0xC9, 'E', 0x01),  M(0xCA, 'E', 0x02),
    M(0xCB, 'E', 0x08),  M(0xCC, 'I', 0x00),  M(0xCD, 'I', 0x01),  M(0xCE, 'I', 0x02),  M(0xCF, 'I', 0x08),
    M(0xD1, 'N', 0x03),  M(0xD2, 'O', 0x00),  M(0xD3, 'O', 0x01),  M(0xD4, 'O', 0x02),  M(0xD5, 'O', 0x03),
    M(0xD6, 'O', 0x08),  M(0xD9, 'U', 0x00),  M(0xDA, 'U', 0x01),  M(0xDB, 'U', 0x02),  M(0xDC, 'U', 0x08),
    M(0xDD, 'Y', 0x01),  M(0xE0, 'a', 0x00),  M(0xE1, 'a', 0x01),  M(0xE2, 'a', 0x02),  M(0xE3, 'a', 0x03),
    M(0xE4, 'a', 0x08),  M(0xE5, 'a', 0x0A),  M(0xE7, 'c', 0x27),  M(0xE8, 'e', 0x00),  M(0xE9, 'e', 0x01),
    M(0xEA, 'e', 0x02),  M(0xEB, 'e', 0x08),  M(0xEC, 'i', 0x00),  M(0xED, 'i', 0x01),  M(0xEE, 'i', 0x02),
    M(0xEF, 'i', 0x08),  M(0xF1, 'n', 0x03),  M(0xF2, 'o', 0x00),  M(0xF3, 'o', 0x01),  M(0xF4, 'o', 0x02),
    M(0xF5, 'o', 0x03),  M(0xF6, 'o', 0x08),  M(0xF9, 'u', 0x00),  M(0xFA, 'u', 0x01),  M(0xFB, 'u', 0x02),
    M(0xFC, 'u', 0x08),  M(0xFD, 'y', 0x01),  M(0xFF, 'y', 0x08),  M(0x100, 'A', 0x04), M(0x101, 'a', 0x04),
    M(0x102, 'A', 0x06), M(0x103, 'a', 0x06), M(0x104, 'A', 0x28), M(0x105, 'a', 0x28), M(0x106, 'C', 0x01),
    M(0x107, 'c', 0x01), M(0x108, 'C', 0x02), M(0x109, 'c', 0x02), M(0x10A, 'C', 0x07), M(0x10B, 'c', 0x07),
    M(0x10C, 'C', 0x0C), M(0x10D, 'c', 0x0C), M(0x10E, 'D', 0x0C), M(0x10F, 'd', 0x0C), M(0x112, 'E', 0x04),
    M(0x113, 'e', 0x04), M(0x114, 'E', 0x06), M(0x115, 'e', 0x06), M(0x116, 'E', 0x07), M(0x117, 'e', 0x07),
    M(0x118, 'E', 0x28), M(0x119, 'e', 0x28), M(0x11A, 'E', 0x0C), M(0x11B, 'e', 0x0C), M(0x11C, 'G', 0x02),
    M(0x11D, 'g', 0x02), M(0x11E, 'G', 0x06), M(0x11F, 'g', 0x06), M(0x120, 'G', 0x07), M(0x121, 'g', 0x07),
    M(0x122, 'G', 0x26), M(0x123, 'g', 0x26), M(0x124, 'H', 0x02), M(0x125, 'h', 0x02), M(0x128, 'I', 0x03),
    M(0x129, 'i', 0x03), M(0x12A, 'I', 0x04), M(0x12B, 'i', 0x04), M(0x12C, 'I', 0x06), M(0x12D, 'i', 0x06),
    M(0x12E, 'I', 0x28), M(0x12F, 'i', 0x28), M(0x130, 'I', 0x07), M(0x134, 'J', 0x02), M(0x135, 'j', 0x02),
    M(0x136, 'K', 0x26), M(0x137, 'k', 0x26), M(0x139, 'L', 0x01), M(0x13A, 'l', 0x01), M(0x13B, 'L', 0x26),
    M(0x13C, 'l', 0x26), M(0x13D, 'L', 0x0C), M(0x13E, 'l', 0x0C), M(0x143, 'N', 0x01), M(0x144, 'n', 0x01),
    M(0x145, 'N', 0x26), M(0x146, 'n', 0x26), M(0x147, 'N', 0x0C), M(0x148, 'n', 0x0C), M(0x14C, 'O', 0x04),
    M(0x14D, 'o', 0x04), M(0x14E, 'O', 0x06), M(0x14F, 'o', 0x06), M(0x150, 'O', 0x0B), M(0x151, 'o', 0x0B),
    M(0x154, 'R', 0x01), M(0x155, 'r', 0x01), M(0x156, 'R', 0x26), M(0x157, 'r', 0x26), M(0x158, 'R', 0x0C),
    M(0x159, 'r', 0x0C), M(0x15A, 'S', 0x01), M(0x15B, 's', 0x01), M(0x15C, 'S', 0x02), M(0x15D, 's', 0x02),
    M(0x15E, 'S', 0x27), M(0x15F, 's', 0x27), M(0x160, 'S', 0x0C), M(0x161, 's', 0x0C), M(0x162, 'T', 0x27),
    M(0x163, 't', 0x27), M(0x164, 'T', 0x0C), M(0x165, 't', 0x0C), M(0x168, 'U', 0x03), M(0x169, 'u', 0x03),
    M(0x16A, 'U', 0x04), M(0x16B, 'u', 0x04), M(0x16C, 'U', 0x06), M(0x16D, 'u', 0x06), M(0x16E, 'U', 0x0A),
    M(0x16F, 'u', 0x0A), M(0x170, 'U', 0x0B), M(0x171, 'u', 0x0B), M(0x172, 'U', 0x28), M(0x173, 'u', 0x28),
    M(0x174, 'W', 0x02), M(0x175, 'w', 0x02), M(0x176, 'Y', 0x02), M(0x177, 'y', 0x02), M(0x178, 'Y', 0x08),
    M(0x179, 'Z', 0x01), M(0x17A, 'z', 0x01), M(0x17B, 'Z', 0x07), M(0x17C, 'z', 0x07), M(0x17D, 'Z', 0x0C),
    M(0x17E, 'z', 0x0C),
#undef M
};

/* ---- the pen ---- */

/* Where paths go: their bounds are measured, or their lines drawn. */
typedef struct pen {
    tool_picture *picture; /* NULL: only measured */
    tool_color color;
    float x, baseline, scale, radius; /* of the glyph's origin; pixels of a grid unit; half of the pen's width */
    float offset_x, offset_y;         /* grid units, for a mark */
    float right;                      /* the farthest x so far, in grid units */
    float *segments;                  /* x0 y0 x1 y1 in pixels; SEGMENTS of them have room */
    size_t n_segments;
} pen;

enum { SEGMENTS = 192 };

static void pen_line(pen *p, const float *from, const float *to) {
    p->right = fmaxf(p->right, fmaxf(from[0], to[0]) + p->offset_x);
    if (!p->segments || p->n_segments == SEGMENTS) return;
    float *s = p->segments + 4 * p->n_segments++;
    s[0] = p->x + (from[0] + p->offset_x) * p->scale;
    s[1] = p->baseline - (from[1] + p->offset_y) * p->scale;
    s[2] = p->x + (to[0] + p->offset_x) * p->scale;
    s[3] = p->baseline - (to[1] + p->offset_y) * p->scale;
}

/* A number such as -1.6 or .3; strtof() would follow the locale. */
static float read_number(const char **text) {
    float sign = 1, value = 0, unit = 1;
    while (**text == ' ') ++*text;
    if (**text == '-') sign = -1, ++*text;
    for (; **text >= '0' && **text <= '9'; ++*text) value = 10 * value + (float)(**text - '0');
    if (**text == '.')
        for (++*text; **text >= '0' && **text <= '9'; ++*text) value += (unit /= 10) * (float)(**text - '0');
    return sign * value;
}

/* Part t of a curve of one command. */
static void curve_at(char command, const float *from, const float *control, const float *to, float t, float *out) {
    const float angle = t * 1.57079633f;
    if (command == 'Q') {
        for (int i = 0; i < 2; i++) out[i] = (1 - t) * (1 - t) * from[i] + 2 * t * (1 - t) * control[i] + t * t * to[i];
    } else { /* a quarter: one coordinate goes with the sine, the other with the cosine */
        const int h = command == 'H' ? 0 : 1;
        out[h] = from[h] + (to[h] - from[h]) * sinf(angle);
        out[1 - h] = to[1 - h] + (from[1 - h] - to[1 - h]) * cosf(angle);
    }
}

static void pen_path(pen *p, const char *path) {
    float at[2] = {0, 0}, control[2] = {0, 0}, to[2];
    while (*path) {
        const char command = *path++;
        if (command == 'Q') {
            control[0] = read_number(&path);
            control[1] = read_number(&path);
        }
        to[0] = read_number(&path);
        to[1] = read_number(&path);
        const float start[2] = {at[0], at[1]};
        for (int i = 1; i <= FLATNESS && command != 'M' && command != 'L'; i++) {
            float next[2];
            curve_at(command, start, control, to, (float)i / FLATNESS, next);
            pen_line(p, at, next);
            memcpy(at, next, sizeof at);
        }
        if (command == 'L') pen_line(p, at, to);
        memcpy(at, to, sizeof at);
    }
}

static float distance2(const float *s, float x, float y) {
    const float dx = s[2] - s[0], dy = s[3] - s[1], length2 = dx * dx + dy * dy;
    float t = length2 > 0 ? ((x - s[0]) * dx + (y - s[1]) * dy) / length2 : 0;
    t = t < 0 ? 0 : t > 1 ? 1 : t;
    const float ex = s[0] + t * dx - x, ey = s[1] + t * dy - y;
    return ex * ex + ey * ey;
}

/* Draws the lines that were collected: a pixel's part is how far its middle lies inside the stroke. */
static void pen_ink(pen *p) {
    float bounds[4] = {1e9f, 1e9f, -1e9f, -1e9f};
    for (size_t i = 0; i < 2 * p->n_segments; i++)
        for (int c = 0; c < 2; c++) {
            bounds[c] = fminf(bounds[c], p->segments[2 * i + (size_t)c]);
            bounds[2 + c] = fmaxf(bounds[2 + c], p->segments[2 * i + (size_t)c]);
        }
    const float reach = p->radius + 1;
    const int32_t x1 = (int32_t)fminf(bounds[2] + reach, (float)p->picture->width - 1);
    const int32_t y1 = (int32_t)fminf(bounds[3] + reach, (float)p->picture->height - 1);
    for (int32_t y = (int32_t)fmaxf(bounds[1] - reach, 0); y <= y1; y++)
        for (int32_t x = (int32_t)fmaxf(bounds[0] - reach, 0); x <= x1; x++) {
            float best = 1e18f;
            for (size_t i = 0; i < p->n_segments; i++)
                best = fminf(best, distance2(p->segments + 4 * i, (float)x + .5f, (float)y + .5f));
            const float part = p->radius + .5f - sqrtf(best);
            if (part > 0) tool_draw_pixel(p->picture, x, y, p->color, fminf(part, 1));
        }
    p->n_segments = 0;
}

/* ---- text ---- */

static const char *path_of(uint32_t code) {
    if (code > 0x20 && code < 0x7F) return ascii[code - 0x21];
    if (code >= 0x410 && code < 0x450) {
        const char *path = cyrillic[code - 0x410];
        return path[1] ? path : ascii[path[0] - 0x21];
    }
    for (size_t i = 0; i < sizeof more / sizeof *more; i++)
        if (more[i].code == code) return more[i].path;
    return NULL;
}

static size_t find_mark(uint32_t code) {
    size_t i = 0;
    while (i < sizeof marks / sizeof *marks && marks[i].code != code) i++;
    return i;
}
enum { N_MARKS = sizeof marks / sizeof *marks };

/* Characters that take no room: joiners, directions, variants. */
static int is_invisible(uint32_t code) {
    return code == 0xAD || (code >= 0x200B && code <= 0x200F) || (code >= 0x202A && code <= 0x202E) || code == 0x2060 ||
           (code >= 0x2066 && code <= 0x2069) || (code >= 0xFE00 && code <= 0xFE0F) || code == 0xFEFF;
}

static void pen_mark(pen *p, size_t mark, float left, float right, int capital) {
    const float width = p->right;
    p->offset_x = (left + right) / 2;
    p->offset_y = (float)(marks[mark].below ? 0 : capital ? CAPITAL : SMALL);
    pen_path(p, marks[mark].path);
    p->offset_x = p->offset_y = 0;
    p->right = fmaxf(width, right); /* a mark that is wider than its letter may reach over the gap */
}

/* The letter that a letter with a mark is made of; *mark: which. Others stay as they are. */
static uint32_t take_apart(uint32_t code, size_t *mark) {
    static const struct {
        uint32_t code, letter, mark;
    } others[] = {{0x401, 'E', 0x308}, {0x407, 'I', 0x308},   {0x419, 0x418, 0x306}, {0x439, 0x438, 0x306},
                  {0x451, 'e', 0x308}, {0x457, 0x131, 0x308}, {0x406, 'I', 0},       {0x456, 'i', 0},
                  {0x218, 'S', 0x326}, {0x219, 's', 0x326},   {0x21A, 'T', 0x326},   {0x21B, 't', 0x326}};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (others[i].code == code) {
            *mark = find_mark(others[i].mark);
            return others[i].letter;
        }
    if (code < 0xC0 || code >= 0x180 || !letters[code - 0xC0].letter) return code;
    *mark = find_mark(0x300u + letters[code - 0xC0].mark);
    code = (unsigned char)letters[code - 0xC0].letter;
    if (marks[*mark].below || (code != 'i' && code != 'j')) return code;
    return code == 'i' ? 0x131 : 0x237;
}

/* Draws or measures a character at p->x, with a mark of its own. Returns its width in grid units. */
static float pen_character(pen *p, uint32_t code, int *capital) {
    size_t mark = N_MARKS;
    if (code == ' ' || code == 0xA0 || code == 0x2009 || code == 0x202F || code == '\t') return SPACE;
    code = take_apart(code, &mark);
    const char *path = path_of(code);
    *capital = (code >= 'A' && code <= 'Z') || (code >= 0x400 && code < 0x430) ||
               (code < 0x7F && strchr("bdfhklt", (int)code)) || !path;
    p->right = 0;
    pen_path(p, path ? path : missing);
    if (mark < N_MARKS) pen_mark(p, mark, 0, p->right, *capital);
    return p->right;
}

/* Returns the width in pixels. */
static float pen_text(pen *p, const char *text, size_t size) {
    float width = 0, last = 0;
    int capital = 0;
    for (size_t i = 0; i < size;) {
        uint32_t code = 0xFFFD;
        const size_t n = tool_decode_character((const unsigned char *)text + i, size - i, &code);
        i += n ? n : 1;
        if (is_invisible(code)) continue;
        const size_t mark = find_mark(code);
        if (mark < N_MARKS) { /* behind its letter, as in decomposed text */
            p->x -= last * p->scale;
            pen_mark(p, mark, 0, last, capital);
            if (p->picture) pen_ink(p);
            p->x += last * p->scale;
        } else {
            p->x += width > 0 ? gap * p->scale : 0;
            width += width > 0 ? gap * p->scale : 0;
            last = pen_character(p, n ? code : 0xFFFD, &capital);
        }
        if (mark < N_MARKS) continue;
        if (p->picture) pen_ink(p);
        width += last * p->scale;
        p->x += last * p->scale;
    }
    return width;
}

static float pen_radius(float height) { return fmaxf(height * .075f, .55f); }

float tool_text_width(const char *text, size_t size, float height) {
    const float radius = pen_radius(height);
    pen p = {.scale = (height - 2 * radius) / CAPITAL};
    return pen_text(&p, text, size) + 2 * radius;
}

void tool_draw_text(tool_picture *picture, float x, float baseline, float height, tool_color color, const char *text,
                    size_t size) {
    float segments[4 * SEGMENTS];
    const float radius = pen_radius(height);
    pen p = {.picture = picture,
             .color = color,
             .x = x + radius,
             .baseline = baseline - radius,
             .scale = (height - 2 * radius) / CAPITAL,
             .radius = radius,
             .segments = segments};
    pen_text(&p, text, size);
}
