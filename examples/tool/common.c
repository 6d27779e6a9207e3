/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Options, error lines, names, progress and Ctrl-C of the tool. */
#include "tool.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int tool_usage_error(const tool_verb *verb, const char *format, ...) {
    va_list list;
    fprintf(stderr, "paligemma %s: ", verb->name);
    va_start(list, format);
    vfprintf(stderr, format, list);
    va_end(list);
    fprintf(stderr, "; see 'paligemma %s --help'\n", verb->name);
    return TOOL_USAGE;
}

/* Whole, decimal, within bounds; strtoll alone would take " 7x". */
static int parse_number(const char *text, const tool_option *option) {
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno || *end || text[0] < '0' || text[0] > '9' || value < option->least || value > option->most) return 0;
    *option->number = value;
    return 1;
}

static const tool_option *find_option(const tool_option *options, size_t n, const char *name, size_t size) {
    for (size_t i = 0; i < n; i++) {
        const tool_option *o = &options[i];
        if (strlen(o->name) == size && memcmp(o->name, name, size) == 0) return o;
        if (o->letter && strlen(o->letter) == size && memcmp(o->letter, name, size) == 0) return o;
    }
    return NULL;
}

static int parse(const tool_verb *verb, int argc, char **argv, const tool_option *options, size_t n_options,
                 const char **arguments) {
    size_t n = 0;
    int only_arguments = 0;
    for (int i = 0; i < argc; i++) {
        const char *word = argv[i];
        if (only_arguments || word[0] != '-' || !word[1]) { /* "-" alone is an argument: stdin */
            if (n == verb->n_arguments)
                return tool_usage_error(verb, "one argument too many: '%s' (quote a prompt with spaces)", word);
            arguments[n++] = word;
            continue;
        }
        if (strcmp(word, "--") == 0) {
            only_arguments = 1;
            continue;
        }
        if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
            fputs(verb->help, stdout);
            return tool_close_stdout();
        }
        const char *equals = word[1] == '-' ? strchr(word, '=') : NULL, *attached = equals ? equals + 1 : NULL;
        const tool_option *option =
            find_option(options, n_options, word, equals ? (size_t)(equals - word) : strlen(word));
        if (!option && word[1] != '-') { /* "-n5": a letter and its value */
            option = find_option(options, n_options, word, 2);
            if (option && option->flag) option = NULL;
            attached = word + 2;
        }
        if (!option) return tool_usage_error(verb, "unknown option '%s'", word);
        if (option->flag) {
            if (equals) return tool_usage_error(verb, "%s takes no value", option->name);
            *option->flag = 1;
            continue;
        }
        const char *value = attached ? attached : i + 1 < argc ? argv[++i] : NULL;
        if (!value) return tool_usage_error(verb, "%s needs a %s", option->name, option->text ? "text" : "number");
        if (option->text) {
            *option->text = value;
            continue;
        }
        if (!parse_number(value, option))
            return tool_usage_error(verb, "%s: found '%s', expected a whole number from %lld to %lld", option->name,
                                    value, (long long)option->least, (long long)option->most);
    }
    if (n < verb->n_arguments)
        return tool_usage_error(verb, "%zu argument%s given, %zu needed", n, n == 1 ? "" : "s", verb->n_arguments);
    return -1;
}

/* Options whose value is a word. */
static const struct {
    uint32_t group;
    const char *name;
    const char *const *words;
    int32_t first, last;  /* of the words that may be given; their index is the number */
    const char *expected; /* for the error line */
    size_t offset;        /* of the int32_t in pg_model_options */
} choices[] = {
    {TOOL_OPTIONS_MODEL, "--weights", tool_weights_names, PG_WEIGHTS_STORED, PG_WEIGHTS_INT4, "stored, int8 or int4",
     offsetof(pg_model_options, weights)},
    {TOOL_OPTIONS_CONVERT, "--weights", tool_weights_names, PG_WEIGHTS_INT8, PG_WEIGHTS_INT4, "int8 or int4",
     offsetof(pg_model_options, weights)},
    {TOOL_OPTIONS_MODEL, "--arithmetic", tool_arithmetic_names, PG_ARITHMETIC_F32, PG_ARITHMETIC_BF16, "f32 or bf16",
     offsetof(pg_model_options, arithmetic)},
};
enum { N_CHOICES = sizeof choices / sizeof choices[0], MAX_OPTIONS = 32 };

/* Names with commas between; 0: one is unknown. */
static uint64_t cpu_mask_of(const char *names) {
    uint64_t mask = 0;
    for (const char *name = names; name; name = strchr(name, ',') ? strchr(name, ',') + 1 : NULL) {
        size_t size = strcspn(name, ",");
        int set = 0;
        while (set < tool_n_cpu_names &&
               (strlen(tool_cpu_names[set]) != size || strncmp(tool_cpu_names[set], name, size) != 0))
            set++;
        if (set == tool_n_cpu_names) return 0;
        mask |= UINT64_C(1) << set;
    }
    return mask;
}

int tool_parse(const tool_verb *verb, int argc, char **argv, const tool_option *options, size_t n_options,
               const char **arguments, tool_shared *shared) {
    tool_option list[MAX_OPTIONS];
    const char *texts[N_CHOICES] = {0}, *cpu = NULL;
    int64_t n_threads = 0;
    int in_memory = 0;
    size_t n = n_options;
    memcpy(list, options, n * sizeof *list);
    for (size_t i = 0; i < N_CHOICES; i++)
        if (verb->shared & choices[i].group) list[n++] = (tool_option){.name = choices[i].name, .text = &texts[i]};
    if (verb->shared & TOOL_OPTIONS_MODEL) list[n++] = (tool_option){.name = "--in-memory", .flag = &in_memory};
    if (verb->shared & TOOL_OPTIONS_MACHINE) list[n++] = (tool_option){.name = "--cpu", .text = &cpu};
    if (verb->shared & TOOL_OPTIONS_THREADS)
        list[n++] = (tool_option){.name = "--threads", .letter = "-t", .number = &n_threads, .least = 1, .most = 1024};

    int status = parse(verb, argc, argv, list, n, arguments);
    if (status >= 0 || !shared) return status;
    pg_model_options_init(&shared->model, sizeof shared->model);
    for (size_t i = 0; i < N_CHOICES; i++) {
        int32_t value = choices[i].first;
        if (!texts[i]) continue;
        while (value <= choices[i].last && strcmp(texts[i], choices[i].words[value]) != 0) value++;
        if (value > choices[i].last)
            return tool_usage_error(verb, "%s: found '%s', expected %s", choices[i].name, texts[i],
                                    choices[i].expected);
        memcpy((char *)&shared->model + choices[i].offset, &value, sizeof value);
    }
    shared->model.flags = in_memory ? PG_MODEL_IN_MEMORY : 0;
    if (cpu && !(shared->model.cpu_mask = cpu_mask_of(cpu)))
        return tool_usage_error(verb, "--cpu: found '%s', expected names such as baseline,avx2", cpu);
    shared->n_threads = (int32_t)n_threads;
    return -1;
}

/* What the library calls its options, and what the tool does. */
static const struct {
    const char *of_library, *of_tool;
} option_names[] = {
    {"PG_ENCODE_LITERAL", "--literal"},
    {"max_context", "--max-context"},
    {"pg_model_convert()", "'paligemma convert'"},
    {"expected max_new_tokens in the options, or PG_GENERATE_IGNORE_CONFIG", "expected --max-new-tokens"},
};

/* The message with the tool's names, malloc'ed; NULL: no memory. */
static char *with_tool_names(const char *text) {
    enum { GROWS = 2 }; /* at most: no name of the tool is twice as long as the library's */
    char *out = malloc(strlen(text) * GROWS + 1), *to = out;
    for (const char *from = text; out && *from;) {
        size_t i = 0;
        while (i < sizeof option_names / sizeof *option_names &&
               strncmp(from, option_names[i].of_library, strlen(option_names[i].of_library)) != 0)
            i++;
        if (i == sizeof option_names / sizeof *option_names) {
            *to++ = *from++;
            continue;
        }
        from += strlen(option_names[i].of_library);
        to = stpcpy(to, option_names[i].of_tool);
    }
    if (out) *to = '\0';
    return out;
}

static const char *next_step(pg_status status, tool_stage stage) {
    if (stage == TOOL_STAGE_CONVERT && status != PG_ERROR_INTERNAL)
        return status == PG_ERROR_FORMAT ? "the file may be damaged or half downloaded: fetch it again" : NULL;
    switch (status) {
        case PG_ERROR_NOT_FOUND:
            if (stage == TOOL_STAGE_PROCESSOR)
                return "--processor FOLDER takes tokenizer and image settings from another folder, such as that of the "
                       "base model";
            if (stage == TOOL_STAGE_MODEL)
                return "give the folder of a Hugging Face checkpoint, or a model id that is already in the local "
                       "cache; "
                       "nothing is downloaded";
            if (stage == TOOL_STAGE_IMAGE) return "give a PNG or JPEG file, or - for stdin";
            return NULL;
        case PG_ERROR_IO: return "check that the file can be read";
        case PG_ERROR_FORMAT:
            if (stage == TOOL_STAGE_MODEL || stage == TOOL_STAGE_PROCESSOR)
                return "the file may be damaged or half downloaded: fetch or convert it again";
            if (stage == TOOL_STAGE_IMAGE) return "give a sound PNG or JPEG file";
            return NULL;
        case PG_ERROR_UNSUPPORTED:
            if (stage == TOOL_STAGE_IMAGE) return "convert the image to PNG or JPEG first";
            return "see what works in the README";
        case PG_ERROR_ARGUMENT:
            return stage == TOOL_STAGE_IMAGE || stage == TOOL_STAGE_PROMPT ? "check the image and the prompt" : NULL;
        case PG_ERROR_LIMIT:
            if (stage == TOOL_STAGE_IMAGE) return "scale the image down or shorten the prompt";
            return "shorten the prompt or raise the limit";
        case PG_ERROR_MEMORY: return "'paligemma info MODEL' says what the model needs; try fewer --threads";
        case PG_ERROR_INTERNAL: return "this is a defect of the library: please report it with the command you ran";
        default: return NULL;
    }
}

int tool_fail(pg_status status, tool_stage stage) {
    if (status == PG_ERROR_CANCELLED) return tool_fail_text("interrupted");
    const char *text = pg_last_error(), *next = next_step(status, stage);
    if (!*text) text = pg_status_name(status);
    if (strstr(text, "; ")) next = NULL; /* the library says what to do already */
    char *named = with_tool_names(text);
    if (named) text = named;
    int exit_status = next ? tool_fail_text("%s; %s", text, next) : tool_fail_text("%s", text);
    free(named);
    return exit_status;
}

pg_status tool_open_processor(const char *model, const char *folder, const pg_processor_options *options,
                              pg_processor **out, tool_stage *stage) {
    pg_status status = pg_processor_open(folder ? folder : model, options, out);
    *stage = TOOL_STAGE_PROCESSOR;
    if (status != PG_ERROR_NOT_FOUND) return status;
    size_t needed;
    pg_status found = pg_checkpoint_find(folder ? folder : model, NULL, NULL, 0, &needed);
    if (found < 0) {
        *stage = TOOL_STAGE_MODEL;
        return found;
    }
    if (folder) return pg_processor_open(folder, options, out);
    /* What the folder is, if it is something else, matters more than what it lacks. */
    pg_model *opened = NULL;
    found = pg_model_open(model, NULL, &opened);
    pg_model_close(&opened);
    if (found == PG_ERROR_UNSUPPORTED) return found;
    return pg_processor_open(model, options, out); /* its message again */
}

static int json_errors;

void tool_json_errors(void) { json_errors = 1; }

/* {"error": "..."} on stdout; text that is no UTF-8 comes from the command line alone, and is left out. */
static void print_json_error(const char *format, va_list list) {
    char *text = NULL;
    if (vasprintf(&text, format, list) < 0) return;
    json_t *object = json_pack("{s:s}", "error", text);
    if (!object) object = json_pack("{s:s}", "error", "failed");
    char *line = object ? json_dumps(object, JSON_COMPACT) : NULL;
    if (line && puts(line) >= 0) fflush(stdout);
    free(line);
    json_decref(object);
    free(text);
}

int tool_fail_text(const char *format, ...) {
    va_list list;
    fputs("paligemma: ", stderr);
    va_start(list, format);
    vfprintf(stderr, format, list);
    va_end(list);
    fputc('\n', stderr);
    if (json_errors) {
        va_start(list, format);
        print_json_error(format, list);
        va_end(list);
    }
    return TOOL_FAILED;
}

static int stdout_error; /* errno of the first write that failed */

int tool_write(const char *text, size_t size) {
    if (fwrite(text, 1, size, stdout) == size && fflush(stdout) == 0) return 1;
    if (!stdout_error) stdout_error = errno;
    return 0;
}

int tool_write_text(const char *text, size_t size) {
    static int is_terminal = -1;
    if (is_terminal < 0) is_terminal = isatty(STDOUT_FILENO);
    if (!is_terminal) return tool_write(text, size);
    for (size_t i = 0; i < size; i++) {
        const unsigned char byte = (unsigned char)text[i];
        /* U+0080 to U+009F, in UTF-8 C2 80 to C2 9F, are control characters too. Pieces of text are whole characters.
         */
        const int is_c1 = byte == 0xC2 && i + 1 < size && (unsigned char)text[i + 1] < 0xA0;
        if ((byte >= 32 && byte != 127 && !is_c1) || byte == '\n' || byte == '\t')
            putchar(byte);
        else
            printf("\\x%02X", is_c1 ? (unsigned)(unsigned char)text[++i] : (unsigned)byte);
    }
    return tool_write("", 0);
}

int tool_close_stdout(void) {
    int lost = ferror(stdout); /* a write long ago: why is not known any more */
    if (fflush(stdout) != 0 && !stdout_error && !lost) stdout_error = errno;
    if (!stdout_error && !lost) return TOOL_OK;
    if (stdout_error == EPIPE) return TOOL_FAILED;
    return tool_fail_text("stdout: %s", stdout_error ? strerror(stdout_error) : "write error");
}

int tool_print_json(json_t *object) {
    char *text = object ? json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(15)) : NULL;
    json_decref(object);
    if (!text) return tool_fail_text("the JSON output could not be made: no memory");
    puts(text);
    free(text);
    return tool_close_stdout();
}

const char *const tool_weights_names[] = {"stored", "int8", "int4"};
const char *const tool_arithmetic_names[] = {"default", "f32", "bf16"};
const char *const tool_cpu_names[] = {"baseline", "avx2", "avx512", "avx_vnni", "avx512_vnni", "avx512_bf16"};
const int tool_n_cpu_names = sizeof tool_cpu_names / sizeof tool_cpu_names[0];

json_t *tool_names_json(uint64_t bits, const char *const *names, int n) {
    json_t *list = json_array();
    for (int i = 0; i < n; i++)
        if (names[i] && bits >> i & 1) json_array_append_new(list, json_string(names[i]));
    return list;
}

void tool_print_names(uint64_t bits, const char *const *names, int n) {
    const char *separator = "";
    for (int i = 0; i < n; i++)
        if (names[i] && bits >> i & 1) {
            printf("%s%s", separator, names[i]);
            separator = ", ";
        }
}

const char *tool_size_text(uint64_t bytes, char text[32]) {
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    size_t unit = 0;
    for (; value >= 1024 && unit < 4; unit++) value /= 1024;
    snprintf(text, 32, unit ? "%.1f %s" : "%.0f %s", value, units[unit]);
    return text;
}

double tool_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

void tool_progress_init(tool_progress *progress) {
    memset(progress, 0, sizeof *progress);
    progress->enabled = isatty(STDERR_FILENO);
}

int32_t tool_progress_update(void *user, int32_t phase, int64_t done, int64_t total) {
    static const char *const names[] = {[PG_PHASE_LOAD] = "loading",
                                        [PG_PHASE_VISION] = "looking at the image",
                                        [PG_PHASE_PREFILL] = "reading the prompt",
                                        [PG_PHASE_CONVERT] = "converting",
                                        [PG_PHASE_VERIFY] = "verifying"}; /* decode: the text itself */
    enum { N_NAMES = sizeof names / sizeof names[0], BAR = 30 };
    tool_progress *progress = user;
    if (!progress->enabled || phase < 0 || phase >= N_NAMES || !names[phase]) return 0;
    double now = tool_seconds();
    if (progress->shown && done < total && now - progress->last < 0.1) return 0;
    progress->last = now;
    progress->shown = 1;
    if (phase != PG_PHASE_CONVERT && phase != PG_PHASE_VERIFY) {
        fprintf(stderr, "\r%s %lld/%lld\033[K", names[phase], (long long)done, (long long)total);
        return 0;
    }
    int part = total > 0 ? (int)((double)done / (double)total * BAR) : BAR;
    fprintf(stderr, "\r%s [%.*s%*s] %lld/%lld MB\033[K", names[phase], part,
            "==============================", BAR - part, "", (long long)(done / 1000000),
            (long long)(total / 1000000));
    return 0;
}

void tool_progress_clear(tool_progress *progress) {
    if (progress->shown) fputs("\r\033[K", stderr);
    progress->shown = 0;
}

static pg_cancel *interrupt_flag; /* set before the handler is installed, NULL only after it is gone */

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal_number) {
    (void)signal_number;
    interrupted = 1;
    pg_cancel_request(interrupt_flag); /* one atomic store */
}

pg_status tool_interrupt_open(pg_cancel **cancel) {
    pg_status status = pg_cancel_create(cancel);
    if (status < 0) return status;
    interrupt_flag = *cancel;
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_interrupt;
    action.sa_flags = (int)SA_RESETHAND;
    sigaction(SIGINT, &action, NULL);
    return PG_OK;
}

void tool_interrupt_close(pg_cancel **cancel) {
    if (!*cancel) return;
    signal(SIGINT, SIG_DFL);
    interrupt_flag = NULL;
    pg_cancel_close(cancel);
    if (!interrupted) return;
    fflush(stdout);
    raise(SIGINT); /* of the default action: a shell sees that the program died of it, and ends its loop */
}

unsigned char *tool_read_stdin(size_t *size) {
    enum { MOST = 1 << 30 };
    size_t used = 0, capacity = 1 << 16;
    unsigned char *bytes = malloc(capacity);
    while (bytes) {
        used += fread(bytes + used, 1, capacity - used, stdin);
        if (used < capacity) break;
        if (capacity == MOST) {
            free(bytes);
            tool_fail_text("stdin: more than 1 GiB for an image (give a PNG or JPEG file)");
            return NULL;
        }
        unsigned char *grown = realloc(bytes, capacity *= 2);
        if (!grown) free(bytes);
        bytes = grown;
    }
    if (!bytes) {
        tool_fail_text("stdin: no memory for the image");
    } else if (ferror(stdin)) {
        tool_fail_text("stdin: %s", strerror(errno));
        free(bytes);
        bytes = NULL;
    }
    *size = used;
    return bytes;
}
