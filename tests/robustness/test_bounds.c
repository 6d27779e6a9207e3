/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Time and memory are bounded by the input: each way in gets an input of size n and one of 4n, honest ones and those
 * that a stranger would make, and takes at most 6 times the processor's time, the process's memory and the allocator's.
 * Each call runs in a process of its own, as libjpeg and libpng have memory that the allocator does not see.
 */
#include "run_tests.h"

#include <stdio.h>
#include <stdlib.h> /* and with it __GLIBC__ */
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "support.h"
#include "tiny.h"

#define MOST 6 /* times as much for 4 times the input */
#define FREE_SECONDS 0.004
#define FREE_BYTES ((int64_t)3 << 20) /* pages and free lists of the C library */
#define COUNT(array) (sizeof(array) / sizeof *(array))

typedef enum way {
    IMAGE,
    PIXELS,
    PROMPT,
    LITERAL,
    BIG_VISION,
    SUFFIX,
    ROWS,
    ROWS_OF_ONE,
    DECODE,
    PROCESSOR,
    MODEL
} way;

typedef struct shape {
    const char *name;
    way way;
    int64_t n;                                     /* and 4n */
    bytes (*make)(int64_t n);                      /* what is handed in; NULL: nothing */
    void (*folder)(const char *folder, int64_t n); /* what becomes of the checkpoint; NULL: nothing */
    int today;                                     /* the checkpoint: 0 as the official ones, 1 as saved today */
    pg_status wanted;                              /* by both */
} shape;

typedef struct cost {
    double seconds;         /* the least of some runs, of the process */
    int64_t bytes, counted; /* the peak of the process's memory, and of the allocator's, above what was there before */
    int64_t status;
    char message[200];
} cost;

/* --- Inputs */

static void put_u32(bytes *b, uint32_t value) {
    const uint8_t big[4] = {(uint8_t)(value >> 24), (uint8_t)(value >> 16), (uint8_t)(value >> 8), (uint8_t)value};
    bytes_add(b, big, 4);
}

static void put_chunk(bytes *b, const char *type, const void *data, size_t size) {
    put_u32(b, (uint32_t)size);
    bytes_text(b, type);
    bytes_add(b, data, size);
    put_u32(b, (uint32_t)crc32(crc32(0, (const Bytef *)type, 4), data, (uInt)size));
}

static bytes png_begin(int64_t width, int64_t height, int depth, int color, int interlaced) {
    bytes b = {0}, header = {0};
    const uint8_t rest[5] = {(uint8_t)depth, (uint8_t)color, 0, 0, (uint8_t)interlaced};
    bytes_add(&b, "\x89PNG\r\n\x1a\n", 8);
    put_u32(&header, (uint32_t)width);
    put_u32(&header, (uint32_t)height);
    bytes_add(&header, rest, 5);
    put_chunk(&b, "IHDR", header.data, header.size);
    bytes_free(&header);
    return b;
}

/* All zero, packed as well as deflate can. */
static void put_zeros(bytes *b, size_t size) {
    uLongf packed = compressBound((uLong)size);
    uint8_t *raw = calloc(size + 1, 1), *out = malloc(packed);
    if (!raw || !out || compress2(out, &packed, raw, (uLong)size, 9) != Z_OK) abort();
    put_chunk(b, "IDAT", out, packed);
    put_chunk(b, "IEND", "", 0);
    free(raw);
    free(out);
}

static bytes png_black(int64_t n) { /* n pixels of 8 bytes in rows of 2000 */
    bytes b = png_begin(2000, n / 2000, 16, 6, 0);
    put_zeros(&b, (size_t)(n / 2000) * 16001);
    return b;
}

static bytes png_one_row(int64_t n) {
    bytes b = png_begin(n, 1, 16, 6, 0);
    put_zeros(&b, (size_t)n * 8 + 1);
    return b;
}

static bytes png_one_column(int64_t n) {
    bytes b = png_begin(1, n, 8, 0, 0);
    put_zeros(&b, (size_t)n * 2);
    return b;
}

static bytes png_promise(int64_t n) { /* 57 bytes */
    bytes b = png_begin(n, 1, 16, 6, 0);
    put_chunk(&b, "IDAT", "", 0);
    put_chunk(&b, "IEND", "", 0);
    return b;
}

static bytes png_promise_interlaced(int64_t n) {
    bytes b = png_begin(n / 1000, 1000, 16, 6, 1);
    put_chunk(&b, "IDAT", "", 0);
    put_chunk(&b, "IEND", "", 0);
    return b;
}

static bytes png_chunks(int64_t n, const char *type, const char *data, size_t size) {
    bytes b = png_begin(4, 4, 8, 0, 0);
    for (int64_t i = 0; i < n; i++) put_chunk(&b, type, data, size);
    put_zeros(&b, 20);
    return b;
}

static bytes png_texts(int64_t n) { return png_chunks(n, "tEXt", "key\0text", 8); }
static bytes png_unknown(int64_t n) { return png_chunks(n, "abCd", "text", 4); }
static bytes png_keys(int64_t n) { return png_chunks(n, "tRNS", "\0\1", 2); }
static bytes png_pixel_chunks(int64_t n) { return png_chunks(n, "IDAT", "", 0); }

static bytes png_packed_texts(int64_t n) { /* n bytes of text, packed */
    uint8_t *raw = malloc((size_t)n);
    uLongf packed = compressBound((uLong)n);
    bytes b = {0}, text = {0};
    uint8_t *out = malloc(packed);
    if (!raw || !out) abort();
    memset(raw, 'a', (size_t)n);
    if (compress2(out, &packed, raw, (uLong)n, 9) != Z_OK) abort();
    bytes_add(&text, "Raw profile type exif\0\0", 23);
    bytes_add(&text, out, packed);
    b = png_begin(4, 4, 8, 0, 0);
    put_chunk(&b, "zTXt", text.data, text.size);
    put_zeros(&b, 20);
    bytes_free(&text);
    free(raw);
    free(out);
    return b;
}

static bytes png_long_chunk(int64_t n) { /* of n bytes, says the header, and the file ends there */
    bytes b = png_begin(4, 4, 8, 0, 0);
    put_u32(&b, (uint32_t)n);
    bytes_text(&b, "tEXtkey");
    return b;
}

static void put_segment(bytes *b, int marker, const void *data, size_t size) {
    const uint8_t head[4] = {0xFF, (uint8_t)marker, (uint8_t)((size + 2) >> 8), (uint8_t)(size + 2)};
    bytes_add(b, head, 4);
    bytes_add(b, data, size);
}

/* Grey, with code tables of one code each, and no scan yet. */
static bytes jpeg_begin(int marker, int width, int height) {
    bytes b = {0}, table = {0};
    uint8_t quantization[65], codes[18] = {0, 1};
    memset(quantization, 1, sizeof quantization);
    quantization[0] = 0;
    bytes_add(&b, "\xFF\xD8", 2);
    put_segment(&b, 0xDB, quantization, sizeof quantization);
    const uint8_t frame[9] = {
        8, (uint8_t)(height >> 8), (uint8_t)height, (uint8_t)(width >> 8), (uint8_t)width, 1, 1, 0x11, 0};
    put_segment(&b, marker, frame, sizeof frame);
    for (int kind = 0; kind < 2; kind++) {
        codes[0] = (uint8_t)(kind << 4);
        put_segment(&b, 0xC4, codes, sizeof codes);
    }
    bytes_free(&table);
    return b;
}

static void put_scan(bytes *b, int first, int last) {
    const uint8_t scan[6] = {1, 1, 0, (uint8_t)first, (uint8_t)last, 0};
    put_segment(b, 0xDA, scan, sizeof scan);
}

static bytes jpeg_scans(int64_t n) { /* without a single block */
    bytes b = jpeg_begin(0xC2, 3000, 2000);
    put_scan(&b, 0, 0);
    for (int64_t i = 1; i < n; i++) put_scan(&b, 1, 63);
    bytes_add(&b, "\xFF\xD9", 2);
    return b;
}

static bytes jpeg_of(int64_t n, int marker) { /* n pixels in rows of 4000, and not a single block */
    bytes b = jpeg_begin(marker, 4000, (int)(n / 4000));
    put_scan(&b, 0, marker == 0xC2 ? 0 : 63);
    bytes_add(&b, "\xFF\xD9", 2);
    return b;
}

static bytes jpeg_promise(int64_t n) { return jpeg_of(n, 0xC0); }
static bytes jpeg_promise_progressive(int64_t n) { return jpeg_of(n, 0xC2); }

static bytes jpeg_segments(int64_t n, int marker, const char *data, size_t size) {
    bytes b = {0}, image = tiny_image(IMAGE_JPEG, 16, 16, 1);
    bytes_add(&b, image.data, 2);
    for (int64_t i = 0; i < n; i++) put_segment(&b, marker, data, size);
    bytes_add(&b, image.data + 2, image.size - 2);
    bytes_free(&image);
    return b;
}

static bytes jpeg_comments(int64_t n) { return jpeg_segments(n, 0xFE, "text", 4); }
static bytes jpeg_exif(int64_t n) { return jpeg_segments(n, 0xE1, "Exif\0\0II*\0\x08\0\0\0\xFF\xFF", 16); }
static bytes jpeg_profiles(int64_t n) { return jpeg_segments(n, 0xE2, "ICC_PROFILE\0\1\1", 14); }

static bytes jpeg_fill(int64_t n) { /* bytes between segments */
    bytes b = {0}, image = tiny_image(IMAGE_JPEG, 16, 16, 1);
    bytes_add(&b, image.data, 2);
    for (int64_t i = 0; i < n; i++) bytes_add(&b, "\xFF", 1);
    bytes_add(&b, image.data + 2, image.size - 2);
    bytes_free(&image);
    return b;
}

static bytes repeated(int64_t n, const char *unit) {
    bytes b = {0};
    for (int64_t i = 0; i < n; i++) bytes_text(&b, unit);
    return b;
}

static bytes letters(int64_t n) { return repeated(n, "a"); }
static bytes words(int64_t n) { return repeated(n, "a cat "); }
static bytes spaces(int64_t n) { return repeated(n, " "); }
static bytes tabs(int64_t n) { return repeated(n, "\t"); }
static bytes newlines(int64_t n) { return repeated(n, "\n"); }
static bytes snowmen(int64_t n) { return repeated(n, "\xE2\x98\x83"); }
static bytes wide_spaces(int64_t n) { return repeated(n, "\xE3\x80\x80"); }
static bytes marks(int64_t n) { return repeated(n, "<mask>"); }
static bytes nearly(int64_t n) { return repeated(n, "<imag"); }
static bytes images(int64_t n) { return repeated(n, "<image>"); }
static bytes places(int64_t n) { return repeated(n, "<loc0001>"); }
static bytes pairs(int64_t n) { return repeated(n, "qz"); }
static bytes size_of(int64_t n) { return repeated(n, "x"); }

/* --- Folders */

/* Puts `text` into a file of the folder, before the first `before`. */
static void insert(const char *folder, const char *file, const char *before, const bytes *text) {
    bytes old = read_file(folder, file), now = {0};
    const char *at = strstr((const char *)old.data, before);
    if (!at) abort();
    const size_t front = (size_t)(at - (const char *)old.data);
    bytes_add(&now, old.data, front);
    bytes_add(&now, text->data, text->size);
    bytes_add(&now, old.data + front, old.size - front);
    write_file(folder, file, now.data, now.size);
    bytes_free(&old);
    bytes_free(&now);
}

static void insert_free(const char *folder, const char *file, const char *before, bytes *text) {
    insert(folder, file, before, text);
    bytes_free(text);
}

#define CONFIG "tokenizer_config.json"

/* The entries `tokens`, each with a comma behind it, into added_tokens_decoder, which the official folder has. */
static void add_tokens(const char *folder, bytes *tokens) {
    bytes config = read_file(folder, CONFIG);
    if (strstr((char *)config.data, "added_tokens_decoder")) {
        insert(folder, CONFIG, "\"0\":{\"content\"", tokens);
    } else {
        bytes b = {0};
        bytes_text(&b, "\"added_tokens_decoder\":{");
        bytes_add(&b, tokens->data, tokens->size);
        bytes_text(&b, "\"0\":{\"content\":\"<pad>\",\"special\":true}},");
        insert_free(folder, CONFIG, "\"bos_token\"", &b);
    }
    bytes_free(&config);
    bytes_free(tokens);
}

/* An added token of `size` times `letter`, with its flags. */
static void add_token(const char *folder, const char *letter, int64_t size, const char *flags) {
    bytes b = {0};
    bytes_text(&b, "\"900\":{\"content\":\"");
    for (int64_t i = 0; i < size; i++) bytes_text(&b, letter);
    bytes_printf(&b, "\",\"special\":false,\"normalized\":false%s},", flags);
    add_tokens(folder, &b);
}

static void long_token(const char *folder, int64_t n) { add_token(folder, "a", n, ""); }
static void longest_token(const char *folder, int64_t n) {
    (void)n;
    add_token(folder, "a", 1024, "");
}
static void greedy_tab(const char *folder, int64_t n) {
    (void)n;
    add_token(folder, "\\t", 1, ",\"lstrip\":true,\"rstrip\":true");
}

static void many_tokens(const char *folder, int64_t n) {
    bytes b = {0};
    for (int64_t i = 0; i < n; i++)
        bytes_printf(&b, "\"%d\":{\"content\":\"t%07dq\",\"special\":false,\"normalized\":false},", (int)(900 + i),
                     (int)i);
    add_tokens(folder, &b);
}

static void many_names(const char *folder, int64_t n) {
    bytes b = {0};
    many_tokens(folder, n);
    for (int64_t i = 0; i < n; i++) bytes_printf(&b, "\"k%07d_token\":\"<bos>\",", (int)i);
    insert_free(folder, CONFIG, "\"bos_token\"", &b);
}

static void many_extra_tokens(const char *folder, int64_t n) {
    bytes b = {0};
    for (int64_t i = 0; i < n; i++) bytes_printf(&b, "\"t%07dq\",", (int)i);
    insert_free(folder, CONFIG, "\"<image>\"]", &b);
}

static void long_piece(const char *folder, int64_t n) {
    bytes b = {0};
    bytes_text(&b, "\"");
    for (int64_t i = 0; i < n; i++) bytes_text(&b, "a");
    bytes_text(&b, "\":900,");
    insert_free(folder, "tokenizer.json", "\"<pad>\":0", &b);
}

static void many_keys(const char *folder, int64_t n) {
    bytes b = {0};
    for (int64_t i = 0; i < n; i++) bytes_printf(&b, "\"k%07d\":%d,", (int)i, (int)i);
    insert_free(folder, "config.json", "\"model_type\"", &b);
}

static void many_empty_values(const char *folder, int64_t n) {
    bytes b = {0};
    bytes_text(&b, "\"zz\":[0");
    for (int64_t i = 0; i < n; i++) bytes_text(&b, ",{}");
    bytes_text(&b, "],");
    insert_free(folder, "config.json", "\"model_type\"", &b);
}

static void put_model_piece(bytes *b, const char *text, size_t size) { /* field 1: a message whose field 1 is text */
    bytes piece = {0}, lengths = {0};
    bytes_add(&piece, "\x0A", 1);
    for (size_t left = size;; left >>= 7) {
        const uint8_t byte = (uint8_t)((left & 127) | (left > 127 ? 128 : 0));
        bytes_add(&piece, &byte, 1);
        if (left <= 127) break;
    }
    bytes_add(&piece, text, size);
    bytes_add(&lengths, "\x0A", 1);
    for (size_t left = piece.size;; left >>= 7) {
        const uint8_t byte = (uint8_t)((left & 127) | (left > 127 ? 128 : 0));
        bytes_add(&lengths, &byte, 1);
        if (left <= 127) break;
    }
    bytes_add(b, lengths.data, lengths.size);
    bytes_add(b, piece.data, piece.size);
    bytes_free(&piece);
    bytes_free(&lengths);
}

static void add_to_model(const char *folder, bytes *more) {
    bytes model = read_file(folder, "tokenizer.model");
    bytes_add(&model, more->data, more->size);
    write_file(folder, "tokenizer.model", model.data, model.size);
    bytes_free(&model);
    bytes_free(more);
}

static void model_long_piece(const char *folder, int64_t n) {
    bytes b = {0}, text = letters(n);
    put_model_piece(&b, (char *)text.data, text.size);
    bytes_free(&text);
    add_to_model(folder, &b);
}

/* n pieces of the greatest length: each prefix and suffix is looked up. */
static void model_long_pieces(const char *folder, int64_t n) {
    bytes b = {0};
    char text[1025];
    for (int64_t i = 0; i < n; i++) {
        memset(text, 'a', 1024);
        snprintf(text, 9, "%08d", (int)i);
        text[8] = 'a';
        put_model_piece(&b, text, 1024);
    }
    add_to_model(folder, &b);
}

static void model_many_pieces(const char *folder, int64_t n) {
    bytes b = {0};
    for (int64_t i = 0; i < n; i++) {
        char text[16];
        put_model_piece(&b, text, (size_t)snprintf(text, sizeof text, "\x01%08d", (int)i));
    }
    add_to_model(folder, &b);
}

/* --- Calls */

static char folder[256];

static pg_status no_text(const shape *s, const bytes *input, const pg_processor *processor, pg_inputs **inputs) {
    pg_image image;
    pg_encode_options options;
    pg_encode_options_init(&options, sizeof options);
    options.flags = PG_ENCODE_EXIF;
    if (s->way == PIXELS)
        pg_image_from_pixels(&image, sizeof image, PG_IMAGE_GRAY8, 5000, (int32_t)(input->size / 5000), input->data, 0);
    else
        pg_image_from_bytes(&image, sizeof image, input->data, input->size);
    return pg_processor_encode(processor, &image, "x", &options, inputs);
}

static pg_status batch(const shape *s, const bytes *input, const pg_processor *processor, pg_inputs **inputs) {
    pg_batch rows;
    pg_encode_options options;
    const int32_t n = s->way == ROWS ? (int32_t)input->size : 1;
    const char **texts = calloc((size_t)n, sizeof *texts);
    uint64_t *sizes = calloc((size_t)n, sizeof *sizes);
    if (!texts || !sizes) abort();
    pg_encode_options_init(&options, sizeof options);
    options.max_tokens = 1 << 24;
    if (s->way == LITERAL) options.flags = PG_ENCODE_LITERAL;
    if (s->way == BIG_VISION) options.mode = PG_MODE_BIG_VISION;
    for (int32_t i = 0; i < n; i++) {
        texts[i] = (const char *)input->data;
        sizes[i] = s->way == ROWS ? 1 : input->size;
    }
    pg_batch_init(&rows, sizeof rows);
    rows.n_prompts = n;
    rows.prompts = texts;
    rows.prompt_sizes = sizes;
    if (s->way == SUFFIX) {
        static const char *const question[] = {"x"};
        rows.prompts = question;
        rows.prompt_sizes = NULL;
        rows.n_suffixes = 1;
        rows.suffixes = texts;
        rows.suffix_sizes = sizes;
    }
    const pg_status status = pg_processor_encode_batch(processor, &rows, &options, inputs);
    free(texts);
    free(sizes);
    return status;
}

static pg_status decode(const bytes *input, const pg_processor *processor) {
    const size_t n = input->size;
    int64_t *ids = malloc(n * sizeof *ids);
    uint64_t size = 0;
    if (!ids) abort();
    for (size_t i = 0; i < n; i++) ids[i] = 200 + (int64_t)(i % 100);
    char *text = malloc(16 * n + 1);
    if (!text) abort();
    const pg_status status = pg_processor_decode(processor, ids, (int64_t)n, 0, text, 16 * n + 1, &size);
    free(ids);
    free(text);
    return status;
}

static pg_status call(const shape *s, const bytes *input, const pg_processor *processor, const counter *c) {
    pg_status status;
    pg_inputs *inputs = NULL;
    if (s->way == PROCESSOR || s->way == MODEL) {
        pg_processor *opened = NULL;
        pg_model *model = NULL;
        pg_processor_options options;
        pg_model_options model_options;
        pg_processor_options_init(&options, sizeof options);
        pg_model_options_init(&model_options, sizeof model_options);
        options.allocator = &c->hooks;
        model_options.allocator = &c->hooks;
        status = s->way == MODEL ? pg_model_open(folder, &model_options, &model)
                                 : pg_processor_open(folder, &options, &opened);
        pg_processor_close(&opened);
        pg_model_close(&model);
        return status;
    }
    if (s->way == DECODE) return decode(input, processor);
    status = s->way == IMAGE || s->way == PIXELS ? no_text(s, input, processor, &inputs)
                                                 : batch(s, input, processor, &inputs);
    pg_inputs_close(&inputs);
    return status;
}

/* Peak of the process's memory in bytes. */
static int64_t peak_of_process(void) {
    char line[128];
    long long kilobytes = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, "VmHWM:", 6) == 0) kilobytes = strtoll(line + 6, NULL, 10);
    if (f) fclose(f);
    return kilobytes * 1024;
}

static void forget_peak(void) {
    FILE *f = fopen("/proc/self/clear_refs", "w");
    if (!f) return;
    fputs("5", f);
    fclose(f);
}

static double process_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void measure_here(const shape *s, int64_t n, cost *out) {
    counter c;
    counter_init(&c);
#ifdef __GLIBC__ /* later runs find their memory touched: what new pages cost is not the library's time */
    mallopt(M_MMAP_MAX, 0);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
#endif
    bytes input = s->make ? s->make(n) : (bytes){0};
    pg_processor *processor = NULL;
    pg_processor_options options;
    pg_processor_options_init(&options, sizeof options);
    options.allocator = &c.hooks;
    if (s->way != PROCESSOR && s->way != MODEL && pg_processor_open(folder, &options, &processor) != PG_OK) {
        out->status = PG_ERROR_INTERNAL;
        snprintf(out->message, sizeof out->message, "%.190s", pg_last_error());
        return;
    }
    forget_peak();
    const int64_t before = peak_of_process(), live = c.live_bytes;
    c.peak_bytes = live;
    out->seconds = 1e9;
    for (int run = 0; run < 3; run++) {
        const double begin = process_seconds();
        out->status = call(s, &input, processor, &c);
        const double took = process_seconds() - begin;
        if (took < out->seconds) out->seconds = took;
        if (run > 0) continue;
        out->bytes = peak_of_process() - before;
        out->counted = c.peak_bytes - live;
        if (out->status < 0) snprintf(out->message, sizeof out->message, "%.190s", pg_last_error());
    }
}

static cost measure(const shape *s, int64_t n) {
    const tiny_options today = tiny_saved_today(), official = tiny_official();
    int ends[2], status = 0;
    cost result = {0};
    tiny_write(folder, s->today ? &today : &official);
    if (s->folder) s->folder(folder, n);
    if (pipe(ends) != 0) abort();
    const pid_t child = fork();
    if (child == 0) {
        measure_here(s, n, &result);
        _exit(write(ends[1], &result, sizeof result) != (ssize_t)sizeof result);
    }
    close(ends[1]);
    const ssize_t got = read(ends[0], &result, sizeof result);
    close(ends[0]);
    if (waitpid(child, &status, 0) != child || status != 0 || got != (ssize_t)sizeof result)
        fail_msg("%s: of size %lld ended the process: %x", s->name, (long long)n, (unsigned)status);
    return result;
}

/* clang-format off */
static const shape shapes[] = {
    {"PNG, black", IMAGE, 2000000, png_black, NULL, 0, PG_OK},
    {"PNG, one row", IMAGE, 500000, png_one_row, NULL, 0, PG_OK},
    {"PNG, one column", IMAGE, 500000, png_one_column, NULL, 0, PG_OK},
    {"PNG, a header that promises", IMAGE, 20000000, png_promise, NULL, 0, PG_ERROR_FORMAT},
    {"PNG, interlaced, likewise", IMAGE, 20000000, png_promise_interlaced, NULL, 0, PG_ERROR_FORMAT},
    {"PNG, texts", IMAGE, 20000, png_texts, NULL, 0, PG_OK},
    {"PNG, unknown chunks", IMAGE, 20000, png_unknown, NULL, 0, PG_OK},
    {"PNG, transparent colours", IMAGE, 20000, png_keys, NULL, 0, PG_OK},
    {"PNG, empty pixel chunks", IMAGE, 20000, png_pixel_chunks, NULL, 0, PG_OK},
    {"PNG, packed text", IMAGE, 900000, png_packed_texts, NULL, 0, PG_OK},
    {"PNG, a chunk beyond the file", IMAGE, 500000000, png_long_chunk, NULL, 0, PG_ERROR_FORMAT},
    {"JPEG, empty scans", IMAGE, 20, jpeg_scans, NULL, 0, PG_OK},
    {"JPEG, a header that promises", IMAGE, 2000000, jpeg_promise, NULL, 0, PG_OK},
    {"JPEG, progressive, likewise", IMAGE, 2000000, jpeg_promise_progressive, NULL, 0, PG_OK},
    {"JPEG, too much is promised", IMAGE, 40000000, jpeg_promise_progressive, NULL, 0, PG_ERROR_LIMIT},
    {"JPEG, comments", IMAGE, 20000, jpeg_comments, NULL, 0, PG_OK},
    {"JPEG, EXIF", IMAGE, 20000, jpeg_exif, NULL, 0, PG_OK},
    {"JPEG, profiles", IMAGE, 20000, jpeg_profiles, NULL, 0, PG_OK},
    {"JPEG, fill bytes", IMAGE, 500000, jpeg_fill, NULL, 0, PG_OK},
    {"pixels", PIXELS, 5000000, size_of, NULL, 0, PG_OK},

    {"letters", PROMPT, 20000, letters, NULL, 0, PG_OK},
    {"letters, by the list", PROMPT, 20000, letters, NULL, 1, PG_OK},
    {"words", PROMPT, 4000, words, NULL, 0, PG_OK},
    {"spaces", PROMPT, 20000, spaces, NULL, 0, PG_OK},
    {"spaces, today", PROMPT, 20000, spaces, NULL, 1, PG_OK},
    {"tabs", PROMPT, 20000, tabs, NULL, 0, PG_OK},
    {"newlines", PROMPT, 20000, newlines, NULL, 0, PG_OK},
    {"characters without a piece", PROMPT, 20000, snowmen, NULL, 0, PG_OK},
    {"added tokens", PROMPT, 20000, marks, NULL, 0, PG_OK},
    {"nearly an added token", PROMPT, 20000, nearly, NULL, 0, PG_OK},
    {"locations", PROMPT, 20000, places, NULL, 0, PG_OK},
    {"images", PROMPT, 20000, images, NULL, 0, PG_OK},
    {"images, literally", LITERAL, 20000, images, NULL, 0, PG_OK},
    {"words of big_vision", BIG_VISION, 4000, words, NULL, 0, PG_OK},
    {"a suffix", SUFFIX, 8000, pairs, NULL, 0, PG_OK},
    {"rows", ROWS, 4000, letters, NULL, 0, PG_OK},
    {"ids", DECODE, 100000, size_of, NULL, 0, PG_OK},

    {"a token of letters, beyond the limit", PROCESSOR, 20000, NULL, long_token, 0, PG_ERROR_LIMIT},
    {"the longest token", PROMPT, 20000, letters, longest_token, 0, PG_OK},
    {"a tab that takes spaces along", PROMPT, 20000, tabs, greedy_tab, 0, PG_OK},
    {"the same, wide spaces", PROMPT, 20000, wide_spaces, greedy_tab, 0, PG_OK},
    {"the same, literally", LITERAL, 20000, tabs, greedy_tab, 0, PG_OK},

    {"many added tokens", PROCESSOR, 3000, NULL, many_tokens, 0, PG_OK},
    {"many added tokens, today", PROCESSOR, 3000, NULL, many_tokens, 1, PG_OK},
    {"many names of tokens", PROCESSOR, 3000, NULL, many_names, 1, PG_OK},
    {"many extra tokens", PROCESSOR, 3000, NULL, many_extra_tokens, 1, PG_OK},
    {"a long piece", PROCESSOR, 20000, NULL, long_piece, 1, PG_ERROR_LIMIT},
    {"a long piece of tokenizer.model", PROCESSOR, 20000, NULL, model_long_piece, 0, PG_ERROR_LIMIT},
    {"long pieces of tokenizer.model", PROCESSOR, 30, NULL, model_long_pieces, 0, PG_OK},
    {"keys of config.json", MODEL, 10000, NULL, many_keys, 0, PG_OK},
    {"values of config.json", MODEL, 20000, NULL, many_empty_values, 0, PG_OK},
    {"pieces of tokenizer.model", PROCESSOR, 20000, NULL, model_many_pieces, 0, PG_OK},
};
/* clang-format on */

/* Other programs only make it longer: a pair that fails is measured again. */
static void check(const shape *s) {
    cost one = {.seconds = 1e9}, four = {.seconds = 1e9};
    const int loud = getenv("BOUNDS_VERBOSE") != NULL;
    for (int attempt = 0; attempt < 4; attempt++) {
        const cost a = measure(s, s->n), b = measure(s, 4 * s->n);
        const double seconds = a.seconds < one.seconds ? a.seconds : one.seconds;
        const double least = b.seconds < four.seconds ? b.seconds : four.seconds;
        one = a, four = b;
        one.seconds = seconds, four.seconds = least;
        if (four.seconds <= MOST * one.seconds + FREE_SECONDS) break;
    }
    if (loud)
        say("%-40s %8.2f %8.2f ms  %8.2f %8.2f MB  %8.2f %8.2f MB counted  %s\n", s->name, 1e3 * one.seconds,
            1e3 * four.seconds, (double)one.bytes / 1e6, (double)four.bytes / 1e6, (double)one.counted / 1e6,
            (double)four.counted / 1e6, four.message);
    if (one.status != s->wanted || four.status != s->wanted)
        fail_msg("%s: status %d and %d, expected %d: %s", s->name, (int)one.status, (int)four.status, s->wanted,
                 four.message[0] ? four.message : one.message);
    if (four.seconds > MOST * one.seconds + FREE_SECONDS)
        fail_msg("%s: %.4f s, four times as much %.4f s", s->name, one.seconds, four.seconds);
    if (four.bytes > MOST * one.bytes + FREE_BYTES)
        fail_msg("%s: %lld bytes, four times as much %lld", s->name, (long long)one.bytes, (long long)four.bytes);
    if (four.counted > MOST * one.counted + 65536)
        fail_msg("%s: %lld bytes of the allocator, four times as much %lld", s->name, (long long)one.counted,
                 (long long)four.counted);
}

static void time_and_memory_grow_with_the_input(void **state) {
    (void)state;
    make_temp_folder(folder, sizeof folder);
    for (size_t i = 0; i < COUNT(shapes); i++)
        if (!getenv("BOUNDS_ONLY") || strstr(shapes[i].name, getenv("BOUNDS_ONLY"))) check(&shapes[i]);
    remove_folder(folder);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(time_and_memory_grow_with_the_input)};
    return RUN_TESTS(tests, NULL, NULL);
}
