/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What several test programs share: files, a counting allocator, seeded numbers, and the capture of stdout and
 * stderr. */
#ifndef TESTS_SUPPORT_H
#define TESTS_SUPPORT_H

#include <paligemma/paligemma.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* --- Seeded numbers (splitmix64): the same on every machine. */
typedef struct rng {
    uint64_t state;
} rng;
uint64_t rng_next(rng *r);
uint64_t rng_below(rng *r, uint64_t n); /* 0 .. n-1; n >= 1 */
float rng_unit(rng *r);                 /* -1 .. 1 */

/* --- Growing byte arrays. Running out of memory ends the test program. */
typedef struct bytes {
    uint8_t *data; /* followed by a NUL that size does not count */
    size_t size, capacity;
} bytes;
void bytes_add(bytes *b, const void *data, size_t size);
void bytes_text(bytes *b, const char *text);
void bytes_printf(bytes *b, const char *format, ...) __attribute__((format(__printf__, 2, 3)));
void bytes_free(bytes *b);

/* --- Files. A failure here ends the test program: it is no defect of the library. */
void make_temp_folder(char *path, size_t size); /* a new folder under $TMPDIR or /tmp */
void remove_folder(const char *path);           /* with the files in it, one level deep */
void write_file(const char *folder, const char *name, const void *data, size_t size);
void write_text(const char *folder, const char *name, const char *text);
bytes read_file(const char *folder, const char *name);
int has_file(const char *folder, const char *name);
void remove_file(const char *folder, const char *name);

/* --- An allocator that counts, and fails when told to. Released blocks are overwritten, so that a use of them shows.
 */
typedef struct counter {
    pg_allocator hooks;  /* give this to the library */
    atomic_llong n_live; /* blocks not yet released */
    atomic_llong live_bytes;
    atomic_llong peak_bytes;
    atomic_llong n_allocs;  /* calls so far */
    atomic_llong largest;   /* bytes of the largest request, refused ones too */
    atomic_llong n_bad;     /* misaligned requests, foreign or overrun blocks: must stay 0 */
    int64_t fail_at;        /* the call of this number fails (1 is the first); 0: none */
    int64_t fail_from;      /* every call from this number on fails; 0: none */
    int64_t refuse_above;   /* bytes; larger requests fail; 0: none */
    void (*on_alloc)(void); /* what each call of alloc does first; NULL: nothing */
    void (*on_free)(void);  /* the same of free */
} counter;
void counter_init(counter *c);
/* The fault to try after the n-th: the next, or with TEST_FAULT_STEP=N in the environment, where tries are slow, the
 * N-th after it once the first 8 are done. */
int64_t next_fault(int64_t n);
/* 1 when everything was released and nothing was bad; else says what on the real stderr. */
int counter_clean(const counter *c);

/* --- stdout and stderr of this process into a file, the library's silence being part of the contract. Sanitizers keep
 * the real stderr. */
void capture_begin(void);
size_t capture_size(void); /* bytes written since capture_begin() */
size_t capture_end(void);  /* the same; shows them and ends the capture */
/* A teardown for cmocka: what a failing test says would stay captured. */
int capture_end_if_on(void **state);
void say(const char *format, ...) __attribute__((format(__printf__, 1, 2))); /* to the real stderr, captured or not */
void on_death(void (*callback)(void)); /* called when a signal or a sanitizer ends the process */

/* --- What every error must be: NULL when `status` and pg_last_error() are a negative known status and one line of
 * UTF-8 text, else what is wrong with it. */
const char *bad_error(pg_status status);

/* Makes pg_last_error() a known text, so that a message left over from an earlier failure is noticed. */
void stale_error(void);
int error_is_stale(void);

/* --- Threads of this process, those of a sanitizer among them; 0: not known. The second waits, for two seconds at
 * most, until there are no more than `most`: one that was joined may be there for a while yet. */
int count_threads(void);
int wait_for_threads(int most);
int settled_threads(void); /* as many as there are once a thread that was joined is gone from the list, too */

double now_seconds(void);

#endif
