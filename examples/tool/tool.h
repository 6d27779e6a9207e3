/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The command-line tool `paligemma`: what its verbs share. It is written on the public API alone. */
#ifndef PALIGEMMA_TOOL_H
#define PALIGEMMA_TOOL_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <paligemma/paligemma.h>

/* The compiler looks at a format and its arguments. (mingw's "printf" is Microsoft's, without %zu.) */
#if defined(__MINGW32__) && !defined(__clang__)
#define TOOL_PRINTF(format_index, first_index) __attribute__((format(gnu_printf, format_index, first_index)))
#else
#define TOOL_PRINTF(format_index, first_index) __attribute__((format(printf, format_index, first_index)))
#endif

/* Exit statuses. */
enum {
    TOOL_OK = 0,
    TOOL_FAILED = 1,
    TOOL_USAGE = 2,
    TOOL_PARTLY = 3 /* batch: all was done that could be, and some jobs have an error */
};

/* Options that several verbs share: their names, letters, values and error lines stand in one table of common.c. A new
 * one is a line there, and one in the help of the verbs that take its group. */
enum {
    TOOL_OPTIONS_MODEL = 1,   /* how a model is opened: --weights, --int8-layers, --arithmetic, --kv, --in-memory */
    TOOL_OPTIONS_CONVERT = 2, /* --weights without `stored`, --int8-layers */
    TOOL_OPTIONS_MACHINE = 4, /* --cpu */
    TOOL_OPTIONS_THREADS = 8, /* --threads */
    TOOL_MORE_ARGUMENTS = 16, /* more than n_arguments may be given; the list then ends with NULL */
    TOOL_OPTIONS_IMAGES = 32, /* --images-from, in place of an argument, --output, --skip-existing */
    TOOL_OPTIONS_PIXELS = 64, /* how an image is read: --no-exif, --alpha */
    TOOL_OPTIONS_BASE = 128,  /* how a model is opened that is trained: --weights, --int8-layers, --in-memory */
    TOOL_OPTIONS_FIT = 256    /* what of an image is used, and how: --roi, --letterbox */
};

/* The help of TOOL_OPTIONS_IMAGES, and that of the exit status of verbs that take many images. */
#define TOOL_HELP_IMAGES                                                                                          \
    "      --images-from FILE   more images: a name a line (or separated by NUL); - reads the list from stdin;\n" \
    "                           no IMAGE need be given then\n"                                                    \
    "  -o, --output FILE        the lines of --json go to FILE instead of stdout\n"                               \
    "      --skip-existing      go on: leave out images that FILE of --output has already (without it: whose\n"   \
    "                           picture is there)\n"
/* The help of TOOL_OPTIONS_PIXELS. */
#define TOOL_HELP_PIXELS                                             \
    "      --no-exif            do not apply the EXIF orientation\n" \
    "      --alpha KIND         transparent pixels: drop (default) their alpha, or lay them over white\n"
/* The help of TOOL_OPTIONS_FIT. */
#define TOOL_HELP_FIT                                                                                         \
    "      --roi AREA           look at this part alone: X,Y,W,H (left, top, width, height) in pixels\n"      \
    "      --letterbox          keep the image's shape, with black bars, as openpi's policies do (default:\n" \
    "                           stretched, as transformers does)\n"
#define TOOL_HELP_STATUS                                                                                 \
    "An image that fails does not stop the others. Exit status: 0 done, 1 some or all failed, 2 wrong\n" \
    "usage; after Ctrl-C it dies of SIGINT.\n"

typedef struct tool_verb {
    const char *name;
    const char *help;   /* its first line is the usage */
    size_t n_arguments; /* arguments that are not options; all must be given */
    uint32_t shared;    /* TOOL_OPTIONS_*: the shared options it takes beside its own */
    int (*run)(const struct tool_verb *verb, int argc,
               char **argv); /* the arguments after the verb; returns an exit status */
} tool_verb;

extern const tool_verb tool_run, tool_ask, tool_detect, tool_segment, tool_score, tool_info, tool_tokens, tool_convert,
    tool_bench, tool_train, tool_batch;

/* Prints a usage error, with --json also as {"error": ...} on stdout. Returns TOOL_USAGE. */
int tool_usage_error(const tool_verb *verb, const char *format, ...) TOOL_PRINTF(2, 3);

/* Names of PG_WEIGHTS_*, PG_ARITHMETIC_* and PG_KV_*. */
extern const char *const tool_weights_names[];
extern const char *const tool_arithmetic_names[];
extern const char *const tool_kv_names[];

/* Names of the PG_CPU_* bits, the lowest first; NULL: there is no such bit. */
extern const char *const tool_cpu_names[];
extern const int tool_n_cpu_names;

/* Texts of an option that may be given several times. */
enum { TOOL_MAX_TEXTS = 64 };
typedef struct tool_texts {
    const char *texts[TOOL_MAX_TEXTS];
    size_t n;
} tool_texts;

/* An option: a flag (set to 1), a text, several texts, a whole number within bounds, or any number within bounds. */
typedef struct tool_option {
    const char *name;   /* "--threads" */
    const char *letter; /* "-t", or NULL */
    int *flag;          /* or NULL: */
    int64_t *number, least, most;
    double *real, low, high; /* or NULL */
    const char **text;       /* or NULL */
    tool_texts *texts;       /* or NULL */
} tool_option;

/* What the shared options said. */
typedef struct tool_shared {
    pg_model_options model; /* pg_model_options_init(), then weights, int8_layers, arithmetic, kv, flags, cpu_mask */
    int32_t n_threads;      /* 0: not given */
    uint32_t image_flags;   /* PG_ENCODE_EXIF and PG_ENCODE_OVER_WHITE */
    int32_t roi[4];         /* as in pg_image */
    int letterbox;
    const char *images_from, *output; /* NULL: not given */
    tool_texts adapters;
    int skip_existing;
} tool_shared;

/* Sorts argv into options, the verb's own and those of verb->shared, and the verb's arguments. shared: may be NULL for
 * a verb without any. Returns -1 to go on, else the exit status (help was printed, or the usage error was told). */
int tool_parse(const tool_verb *verb, int argc, char **argv, const tool_option *options, size_t n_options,
               const char **arguments, tool_shared *shared);

/* Sets what --roi and --letterbox say. */
void tool_fit_image(const tool_shared *shared, pg_image *image);

/* How tokens are chosen: options of `run`, as given; numbers that were not are -1. */
typedef struct tool_sampling {
    const char *temperature_text, *top_p_text, *stop, *length_penalty_text; /* NULL: not given */
    double temperature, top_p, length_penalty;
    int64_t top_k, seed;
    int64_t n_beams, n_texts; /* 0: the folder's, and 1 */
    int scores;
} tool_sampling;

enum { TOOL_ALTERNATIVES = 5 /* of each step, with --scores */ };

/* Reads the numbers. Returns -1 to go on, else the exit status: the usage error was told. */
int tool_sampling_parse(const tool_verb *verb, tool_sampling *sampling);
/* What `options` points to after tool_sampling_apply(). */
typedef struct tool_sampling_options {
    pg_sampling_options sampling;
    pg_beam_options beams;
} tool_sampling_options;

/* The settings of the model's folder, and over them what was given. `options` points to `given` and `memory` then. */
pg_status tool_sampling_apply(const tool_sampling *given, const pg_model *model, tool_sampling_options *memory,
                              pg_generate_options *options);
/* Adds "texts" to the object: text, ids and stop of all rows, with beams their scores. */
pg_status tool_texts_to_json(const pg_result *result, json_t *object);
/* Adds log_probs and alternatives of the first row to the object. */
pg_status tool_scores_to_json(const pg_result *result, json_t *object);
/* Ids [n] or [1, n]. */
json_t *tool_ids_to_json(const pg_tensor *ids);
/* The name of a PG_STOP_*. */
const char *tool_stop_name(int32_t stop);

/* What was being done when a call failed; it decides what to do next. */
typedef enum tool_stage {
    TOOL_STAGE_MODEL,
    TOOL_STAGE_PROCESSOR,
    TOOL_STAGE_IMAGE,
    TOOL_STAGE_PROMPT,
    TOOL_STAGE_GENERATE,
    TOOL_STAGE_CONVERT,
    TOOL_STAGE_TRAIN
} tool_stage;

/* A pg_status of functions of the tool: failed, and the error line is printed. It is not for tool_fail(). */
enum { TOOL_TOLD = -1000 };

/* Prints pg_last_error() and what to do next, in one line; the names of C are those of the tool's options in it.
 * Returns TOOL_FAILED. */
int tool_fail(pg_status status, tool_stage stage);
/* Opens the processor of `folder`, or, when that is NULL, of `model`. *stage: for tool_fail(). */
pg_status tool_open_processor(const char *model, const char *folder, const pg_processor_options *options,
                              pg_processor **out, tool_stage *stage);
/* From here on the objects of --json that hold an error name this image, too; NULL: none. */
void tool_json_image(const char *path);
/* The same for a prompt: "prompt". */
void tool_json_prompt(const char *prompt);
/* Puts "image" into an object. What is no UTF-8 in the name is U+FFFD there, and "image_bytes" has the whole name in
 * hexadecimal digits. */
void tool_json_set_image(json_t *object, const char *path);
/* The name that an object has by that; malloc'ed. NULL: none. */
char *tool_json_get_image(const json_t *object);
/* From here on objects go to this file, also those of errors that name an image, and only those; NULL: stdout again. */
void tool_json_output(FILE *file, const char *name);
/* Whether a write failed to stdout or to that file. */
int tool_output_failed(void);
/* Prints one error line, with --json also as {"error": ...} on stdout. Returns TOOL_FAILED. */
int tool_fail_text(const char *format, ...) TOOL_PRINTF(1, 2);
/* "paligemma: warning: ..." on stderr, without what steers a terminal. */
void tool_warn(const char *format, ...) TOOL_PRINTF(1, 2);
/* As tool_fail_text(), for a call of the system that failed: "NAME: No space left on device". Nothing is printed when a
 * signal interrupted it: tool_interrupt_close() says so. */
int tool_fail_system(const char *name, int error);

/* Writes to stdout at once. 0: failed, tool_close_stdout() will say why. */
int tool_write(const char *text, size_t size);
/* Forgets a write that failed because a signal came. */
void tool_clear_stdout(void);
/* Flushes stdout and says when that failed. A reader that went away is no news: no line, but TOOL_FAILED. */
int tool_close_stdout(void);
/* One line of JSON on stdout, or where tool_json_output() says; takes the reference. Returns an exit status. */
int tool_print_json(json_t *object);

double tool_seconds(void); /* of a clock that only goes forward */

/* One line on stderr that is rewritten; nothing at all when stderr is no terminal. */
typedef struct tool_progress {
    int enabled, shown;
    double last;
    size_t n_done, n_images, n_failed; /* n_images > 0: there is a bar of them */
    double start;
    const char *unit; /* what is counted; NULL: images */
    size_t n_before;  /* that were done when it began */
    double part;      /* of the next one that is done, 0 to 1 */
    char note[80];    /* ", loss 1.25", or "" */
    int is_open;      /* nobody knows how many there will be: no bar, but how many are done */
} tool_progress;

void tool_progress_init(tool_progress *progress);
int32_t tool_progress_update(void *progress, int32_t phase, int64_t done, int64_t total); /* a pg_progress_fn */
/* How many of the images are done, and how many of these failed; 0 done: begins. */
void tool_progress_images(tool_progress *progress, size_t n_done, size_t n_images, size_t n_failed);
/* Begins a bar of other things than images, of which n_before are done already; tool_progress_images() counts them. */
void tool_progress_begin(tool_progress *progress, const char *unit, size_t n_before, size_t n);
void tool_progress_clear(tool_progress *progress);

/* Where the library's log lines go. */
typedef struct tool_log {
    tool_progress *progress; /* cleared before a line; or NULL */
    int verbose;             /* what was opened and written, too; warnings always */
    int clears;              /* without progress: the line that moves is another thread's */
} tool_log;

/* A pg_log_fn for a tool_log: "paligemma: warning: ..." on stderr, with the names of the tool's options. */
void tool_log_line(void *log, int32_t level, const char *message);

/* What verbs that look at images begin with: interrupts are caught (*cancel), and the processor of `folder`, or else of
 * `model`, is open. Returns -1 to go on, else the exit status: the error was told. */
int tool_begin(const char *model, const char *folder, tool_log *log, pg_cancel **cancel, pg_processor **processor);
/* *model becomes the same with the adapters; it stays as it is where there are none, and is closed after an error.
 * infos: of each, or NULL; their `base` is not valid. */
pg_status tool_add_adapters(const tool_texts *adapters, pg_cancel *cancel, pg_adapter_info *infos, pg_model **model);
/* Opens the model as the shared options say, with its adapters and with progress. */
pg_status tool_open_model(const char *model, const tool_shared *shared, tool_log *log, pg_cancel *cancel,
                          pg_model **out);

/* Ctrl-C (SIGTERM and SIGHUP likewise) sets the flag, and calls that wait return with EINTR; a second Ctrl-C or SIGTERM
 * ends the process at once. Closing says that it was interrupted, unless that is told, and ends the process by the
 * signal that came, after everything was cleaned up, so that a shell ends its loop too: it is the last call of a verb.
 */
pg_status tool_interrupt_open(pg_cancel **cancel);
int tool_interrupted(void);     /* the signal that came; 0: none */
void tool_interrupt_told(void); /* a line has said so */
/* When the signal was Ctrl-C, which did what it was meant to do: the flag is cleared, and the next one sets it again.
 * Returns whether it was. */
int tool_interrupt_again(pg_cancel *cancel);
void tool_interrupt_close(pg_cancel **cancel);

/* The character at the beginning of UTF-8 text; its size in bytes, 0: it is none. */
size_t tool_decode_character(const unsigned char *text, size_t size, uint32_t *out);

/* Text without what steers a terminal: control characters and those that reorder text are written as \xNN or \uNNNN,
 * newline and tab only without keep_lines; malloc'ed, NULL: no memory. */
char *tool_escaped(const char *text, size_t size, int keep_lines);

/* A message of the library with the names of the tool's options in place of the library's; malloc'ed, NULL: no memory.
 */
char *tool_with_names(const char *text);

/* Text of a model for stdout: on a terminal, control characters but newline and tab are written as \xNN, so that no
 * text can steer the terminal. 0: failed, as tool_write(). */
int tool_write_text(const char *text, size_t size);

/* 1536 -> "1.5 KiB". Returns `text`. */
const char *tool_size_text(uint64_t bytes, char text[32]);
/* The names of the bits that are set, as a JSON list, or printed with commas; names may be NULL. */
json_t *tool_names_json(uint64_t bits, const char *const *names, int n);
void tool_print_names(uint64_t bits, const char *const *names, int n);

/* All bytes of stdin, for an image; malloc'ed. NULL: they cannot be read (the error line is printed). Pipes that have a
 * name are read by the library. */
unsigned char *tool_read_stdin(size_t *size);

#endif
