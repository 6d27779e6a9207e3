/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Options, error lines, JSON and names of the tool. text.c has what its lines look like, progress.c what moves. */
#include "tool.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int json_errors;        /* the verb was called with --json */
static const char *json_image; /* the image that is being read; NULL: none is named */

static const char *json_prompt; /* likewise */
static FILE *json_lines;        /* where objects go; NULL: stdout */
static const char *json_lines_name;

void tool_json_image(const char *path) { json_image = path; }

void tool_json_prompt(const char *prompt) { json_prompt = prompt; }

void tool_json_output(FILE *file, const char *name) {
    json_lines = file;
    json_lines_name = name;
    if (file) json_errors = 1;
}

int tool_output_failed(void) { return ferror(stdout) || (json_lines && ferror(json_lines)); }

/* On a terminal nothing steers it. */
static char *json_text(json_t *object) {
    const size_t ascii = !json_lines && isatty(STDOUT_FILENO) ? JSON_ENSURE_ASCII : 0;
    return json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(15) | ascii);
}

void tool_json_set_image(json_t *object, const char *path) {
    const size_t size = strlen(path);
    json_t *name = json_string(path);
    char *text = name ? NULL : malloc(3 * size + 1), *hex = name ? NULL : malloc(2 * size + 1), *to = text;
    for (size_t i = 0; text && hex && i < size;) {
        uint32_t code;
        const size_t n = tool_decode_character((const unsigned char *)path + i, size - i, &code);
        to = n ? (char *)memcpy(to, path + i, n) + n : stpcpy(to, "\xEF\xBF\xBD");
        i += n ? n : 1;
    }
    for (size_t i = 0; text && hex && i < size; i++) sprintf(hex + 2 * i, "%02x", (unsigned)(unsigned char)path[i]);
    json_object_set_new(object, "image",
                        name          ? name
                        : text && hex ? json_stringn(text, (size_t)(to - text))
                                      : json_null());
    if (text && hex) json_object_set_new(object, "image_bytes", json_string(hex));
    free(text);
    free(hex);
}

char *tool_json_get_image(const json_t *object) {
    const char *bytes = json_string_value(json_object_get(object, "image_bytes"));
    const char *text = json_string_value(json_object_get(object, "image"));
    char *name = text ? strdup(text) : NULL;
    for (size_t i = 0; bytes && name && bytes[2 * i] && bytes[2 * i + 1] && i < strlen(text); i++) {
        const char pair[3] = {bytes[2 * i], bytes[2 * i + 1], '\0'};
        name[i] = (char)strtol(pair, NULL, 16);
        name[i + 1] = '\0';
    }
    return name;
}

/* One line on stderr, and with --json {"error": ...} on stdout. Text that is no UTF-8 comes from the command line. */
static void print_error(const char *prefix, char *text) {
    char *shown = text ? tool_escaped(text, strlen(text), 0) : NULL;
    fprintf(stderr, "%s%s\n", prefix, shown ? shown : "no memory");
    if (json_errors) {
        json_t *object = json_pack("{s:s}", "error", text ? text : "no memory");
        if (!object) object = json_pack("{s:s}", "error", shown ? shown : "failed");
        if (object && json_image) tool_json_set_image(object, json_image);
        if (object && json_prompt) json_object_set_new(object, "prompt", json_string(json_prompt));
        if (json_lines && !json_image) {
            json_decref(object);
            object = NULL;
        }
        char *line = object ? json_text(object) : NULL;
        FILE *file = json_lines ? json_lines : stdout;
        if (line && fputs(line, file) >= 0 && putc('\n', file) != EOF) fflush(file);
        free(line);
        json_decref(object);
    }
    free(shown);
    free(text);
}

int tool_fail_text(const char *format, ...) {
    char *text = NULL;
    va_list list;
    va_start(list, format);
    if (vasprintf(&text, format, list) < 0) text = NULL;
    va_end(list);
    print_error("paligemma: ", text);
    return TOOL_FAILED;
}

void tool_warn(const char *format, ...) {
    char *text = NULL;
    va_list list;
    va_start(list, format);
    if (vasprintf(&text, format, list) < 0) text = NULL;
    va_end(list);
    char *shown = text ? tool_escaped(text, strlen(text), 0) : NULL;
    fprintf(stderr, "paligemma: warning: %s\n", shown ? shown : "no memory");
    free(shown);
    free(text);
}

int tool_fail_system(const char *name, int error) {
    if (error == EINTR && tool_interrupted()) return TOOL_FAILED;
    return tool_fail_text("%s: %s", name, strerror(error));
}

int tool_usage_error(const tool_verb *verb, const char *format, ...) {
    char *what = NULL, *text = NULL;
    va_list list;
    va_start(list, format);
    if (vasprintf(&what, format, list) < 0) what = NULL;
    va_end(list);
    if (asprintf(&text, "%s; see 'paligemma %s --help'", what ? what : "wrong usage", verb->name) < 0) text = NULL;
    free(what);
    char prefix[32];
    snprintf(prefix, sizeof prefix, "paligemma %s: ", verb->name);
    print_error(prefix, text);
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

/* Decimal, finite, within bounds. */
static int parse_real(const char *text, const tool_option *option) {
    char *end;
    const double value = strtod(text, &end);
    if (end == text || *end || !(value >= option->low && value <= option->high)) return 0;
    *option->real = value;
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

/* images_from: an argument less is needed when it was given. */
static int parse(const tool_verb *verb, int argc, char **argv, const tool_option *options, size_t n_options,
                 const char **arguments, const char *const *images_from) {
    size_t n = 0;
    int only_arguments = 0;
    for (int i = 0; i < argc; i++) {
        const char *word = argv[i];
        if (only_arguments || word[0] != '-' || !word[1]) { /* "-" alone is an argument: stdin */
            if (n == verb->n_arguments && !(verb->shared & TOOL_MORE_ARGUMENTS))
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
        if (!value)
            return tool_usage_error(verb, "%s needs a %s", option->name,
                                    option->text || option->texts ? "text" : "number");
        if (option->texts) {
            if (option->texts->n == TOOL_MAX_TEXTS)
                return tool_usage_error(verb, "%s is given more than %d times", option->name, TOOL_MAX_TEXTS);
            option->texts->texts[option->texts->n++] = value;
            continue;
        }
        if (option->text) {
            *option->text = value;
            continue;
        }
        if (option->real) {
            if (!parse_real(value, option))
                return tool_usage_error(verb, "%s: found '%s', expected a number from %g to %g", option->name, value,
                                        option->low, option->high);
            continue;
        }
        if (!parse_number(value, option))
            return tool_usage_error(verb, "%s: found '%s', expected a whole number from %lld to %lld", option->name,
                                    value, (long long)option->least, (long long)option->most);
    }
    const size_t needed = verb->n_arguments - (*images_from != NULL);
    if (n < needed) return tool_usage_error(verb, "%zu argument%s given, %zu needed", n, n == 1 ? "" : "s", needed);
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
    {TOOL_OPTIONS_MODEL | TOOL_OPTIONS_BASE, "--weights", tool_weights_names, PG_WEIGHTS_STORED, PG_WEIGHTS_INT4,
     "stored, int8 or int4", offsetof(pg_model_options, weights)},
    {TOOL_OPTIONS_CONVERT, "--weights", tool_weights_names, PG_WEIGHTS_INT8, PG_WEIGHTS_INT4, "int8 or int4",
     offsetof(pg_model_options, weights)},
    {TOOL_OPTIONS_MODEL, "--arithmetic", tool_arithmetic_names, PG_ARITHMETIC_F32, PG_ARITHMETIC_BF16, "f32 or bf16",
     offsetof(pg_model_options, arithmetic)},
    {TOOL_OPTIONS_MODEL, "--kv", tool_kv_names, PG_KV_F32, PG_KV_BF16, "f32 or bf16", offsetof(pg_model_options, kv)},
};
enum { N_CHOICES = sizeof choices / sizeof choices[0], MAX_OPTIONS = 48 };

/* Names with commas between; 0: one is unknown. */
static uint64_t cpu_mask_of(const char *names) {
    uint64_t mask = 0;
    for (const char *name = names; name; name = strchr(name, ',') ? strchr(name, ',') + 1 : NULL) {
        size_t size = strcspn(name, ",");
        int set = 0;
        while (set < tool_n_cpu_names && (!tool_cpu_names[set] || strlen(tool_cpu_names[set]) != size ||
                                          strncmp(tool_cpu_names[set], name, size) != 0))
            set++;
        if (set == tool_n_cpu_names) return 0;
        mask |= UINT64_C(1) << set;
    }
    return mask;
}

/* Four whole numbers, the last two 1 or more. Whether they fit the image is for the library. */
static int read_roi(const char *text, int32_t roi[4]) {
    for (int i = 0; i < 4; i++) {
        char *end;
        errno = 0;
        const long value = strtol(text, &end, 10);
        if (end == text || errno || *text == ' ' || value < (i < 2 ? 0 : 1) || value > INT32_MAX) return 0;
        if (*end != (i < 3 ? ',' : 0)) return 0;
        roi[i] = (int32_t)value;
        text = end + 1;
    }
    return 1;
}

void tool_fit_image(const tool_shared *shared, pg_image *image) {
    memcpy(image->roi, shared->roi, sizeof image->roi);
    if (shared->letterbox) image->fit = PG_FIT_LETTERBOX;
}

int tool_parse(const tool_verb *verb, int argc, char **argv, const tool_option *options, size_t n_options,
               const char **arguments, tool_shared *shared) {
    tool_option list[MAX_OPTIONS];
    const char *texts[N_CHOICES] = {0}, *cpu = NULL, *images_from = NULL, *output = NULL, *alpha = "drop",
               *int8_layers = NULL, *roi = NULL;
    tool_texts adapters = {.n = 0};
    int64_t n_threads = 0;
    int in_memory = 0, skip_existing = 0, no_exif = 0, letterbox = 0;
    size_t n = n_options;
    memcpy(list, options, n * sizeof *list);
    for (size_t i = 0; i < N_CHOICES; i++)
        if (verb->shared & choices[i].group) list[n++] = (tool_option){.name = choices[i].name, .text = &texts[i]};
    if (verb->shared & (TOOL_OPTIONS_MODEL | TOOL_OPTIONS_CONVERT | TOOL_OPTIONS_BASE))
        list[n++] = (tool_option){.name = "--int8-layers", .text = &int8_layers};
    if (verb->shared & (TOOL_OPTIONS_MODEL | TOOL_OPTIONS_BASE))
        list[n++] = (tool_option){.name = "--in-memory", .flag = &in_memory};
    if (verb->shared & (TOOL_OPTIONS_MODEL | TOOL_OPTIONS_CONVERT))
        list[n++] = (tool_option){.name = "--adapter", .texts = &adapters};
    if (verb->shared & TOOL_OPTIONS_MACHINE) list[n++] = (tool_option){.name = "--cpu", .text = &cpu};
    if (verb->shared & TOOL_OPTIONS_THREADS)
        list[n++] = (tool_option){.name = "--threads", .letter = "-t", .number = &n_threads, .least = 1, .most = 1024};
    if (verb->shared & TOOL_OPTIONS_IMAGES) {
        list[n++] = (tool_option){.name = "--images-from", .text = &images_from};
        list[n++] = (tool_option){.name = "--output", .letter = "-o", .text = &output};
        list[n++] = (tool_option){.name = "--skip-existing", .flag = &skip_existing};
    }
    if (verb->shared & TOOL_OPTIONS_PIXELS) {
        list[n++] = (tool_option){.name = "--no-exif", .flag = &no_exif};
        list[n++] = (tool_option){.name = "--alpha", .text = &alpha};
    }
    if (verb->shared & TOOL_OPTIONS_FIT) {
        list[n++] = (tool_option){.name = "--roi", .text = &roi};
        list[n++] = (tool_option){.name = "--letterbox", .flag = &letterbox};
    }

    if (find_option(list, n, "--json", 6)) /* before the first usage error */
        for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++)
            if (strcmp(argv[i], "--json") == 0) json_errors = 1;
    int status = parse(verb, argc, argv, list, n, arguments, &images_from);
    if (status >= 0 || !shared) return status;
    pg_model_options_init(&shared->model, sizeof shared->model);
    for (size_t i = 0; i < N_CHOICES; i++) {
        /* what adapters are merged into may stay as it is stored */
        int32_t value =
            choices[i].group == TOOL_OPTIONS_CONVERT && adapters.n > 0 ? PG_WEIGHTS_STORED : choices[i].first;
        if (!texts[i]) continue;
        while (value <= choices[i].last && strcmp(texts[i], choices[i].words[value]) != 0) value++;
        if (value > choices[i].last)
            return tool_usage_error(verb, "%s: found '%s', expected %s", choices[i].name, texts[i],
                                    choices[i].expected);
        memcpy((char *)&shared->model + choices[i].offset, &value, sizeof value);
    }
    shared->model.int8_layers = int8_layers;
    shared->adapters = adapters;
    shared->model.flags = in_memory ? PG_MODEL_IN_MEMORY : 0;
    if (cpu && !(shared->model.cpu_mask = cpu_mask_of(cpu)))
        return tool_usage_error(verb, "--cpu: found '%s', expected names such as baseline,avx2", cpu);
    const int over_white = strcmp(alpha, "white") == 0;
    if (!over_white && strcmp(alpha, "drop") != 0)
        return tool_usage_error(verb, "--alpha: found '%s', expected drop or white", alpha);
    shared->image_flags = (no_exif ? 0u : PG_ENCODE_EXIF) | (over_white ? PG_ENCODE_OVER_WHITE : 0u);
    memset(shared->roi, 0, sizeof shared->roi);
    if (roi && !read_roi(roi, shared->roi))
        return tool_usage_error(verb, "--roi: found '%s', expected X,Y,W,H in pixels, such as 0,40,640,400", roi);
    shared->letterbox = letterbox;
    shared->n_threads = (int32_t)n_threads;
    shared->images_from = images_from;
    shared->output = output;
    shared->skip_existing = skip_existing;
    return -1;
}

static const char *next_step(pg_status status, tool_stage stage) {
    if (stage == TOOL_STAGE_TRAIN && status != PG_ERROR_INTERNAL && status != PG_ERROR_MEMORY) return NULL;
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
            if (stage == TOOL_STAGE_IMAGE) return "give a PNG or JPEG file";
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
            return stage == TOOL_STAGE_GENERATE ? "shorten the prompt" : NULL;
        case PG_ERROR_MEMORY: return "'paligemma info MODEL' says what the model needs; try fewer --threads";
        case PG_ERROR_INTERNAL: return "this is a defect of the library: please report it with the command you ran";
        default: return NULL;
    }
}

int tool_fail(pg_status status, tool_stage stage) {
    if (status == PG_ERROR_CANCELLED) {
        tool_interrupt_told();
        return tool_fail_text("interrupted");
    }
    const char *text = pg_last_error(), *next = next_step(status, stage);
    if (!*text) text = pg_status_name(status);
    if (strstr(text, "; ")) next = NULL; /* the library says what to do already */
    char *named = tool_with_names(text);
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

int tool_begin(const char *model, const char *folder, tool_log *log, pg_cancel **cancel, pg_processor **processor) {
    pg_processor_options options;
    tool_stage stage;
    pg_status status = tool_interrupt_open(cancel);
    if (status < 0) return tool_fail(status, TOOL_STAGE_MODEL);
    pg_processor_options_init(&options, sizeof options);
    options.cancel = *cancel;
    options.log = tool_log_line;
    options.log_user = log;
    status = tool_open_processor(model, folder, &options, processor, &stage);
    return status < 0 ? tool_fail(status, stage) : -1;
}

pg_status tool_add_adapters(const tool_texts *adapters, pg_cancel *cancel, pg_adapter_info *infos, pg_model **model) {
    pg_adapter *opened[TOOL_MAX_TEXTS] = {NULL};
    pg_adapter_options options;
    pg_model *adapted = NULL;
    pg_status status = pg_adapter_options_init(&options, sizeof options);
    options.cancel = cancel;
    for (size_t i = 0; i < adapters->n && status >= 0; i++) {
        status = pg_adapter_open(*model, adapters->texts[i], &options, &opened[i]);
        if (status < 0 || !infos) continue;
        infos[i].struct_size = sizeof infos[i];
        status = pg_adapter_get_info(opened[i], &infos[i]);
    }
    if (status >= 0 && adapters->n > 0) {
        status = pg_model_adapt(*model, (const pg_adapter *const *)opened, NULL, adapters->n, &adapted);
        if (status >= 0) {
            pg_model_close(model);
            *model = adapted;
        }
    }
    for (size_t i = 0; i < adapters->n; i++) pg_adapter_close(&opened[i]);
    if (status < 0) pg_model_close(model);
    return status;
}

pg_status tool_open_model(const char *model, const tool_shared *shared, tool_log *log, pg_cancel *cancel,
                          pg_model **out) {
    pg_model_options options = shared->model;
    options.cancel = cancel;
    options.progress = tool_progress_update;
    options.progress_user = log->progress;
    options.log = tool_log_line;
    options.log_user = log;
    const pg_status status = pg_model_open(model, &options, out);
    return status < 0 ? status : tool_add_adapters(&shared->adapters, cancel, NULL, out);
}

static int stdout_error; /* errno of the first write that failed */

int tool_write(const char *text, size_t size) {
    if (stdout_error) return 0; /* nobody reads: each attempt might wait */
    if (fwrite(text, 1, size, stdout) == size && fflush(stdout) == 0) return 1;
    if (!stdout_error) stdout_error = errno;
    return 0;
}

void tool_clear_stdout(void) {
    clearerr(stdout);
    stdout_error = 0;
}

int tool_close_stdout(void) {
    int lost = ferror(stdout); /* a write long ago: why is not known any more */
    if (fflush(stdout) != 0 && !stdout_error && !lost) stdout_error = errno;
    if (!stdout_error && !lost) return TOOL_OK;
    if (stdout_error == EPIPE) return TOOL_FAILED;
    return stdout_error ? tool_fail_system("stdout", stdout_error) : tool_fail_text("stdout: write error");
}

int tool_print_json(json_t *object) {
    char *text = object ? json_text(object) : NULL;
    json_decref(object);
    if (!text) return tool_fail_text("the JSON output could not be made: no memory");
    if (json_lines) {
        const int failed = fputs(text, json_lines) < 0 || putc('\n', json_lines) == EOF || fflush(json_lines) != 0;
        free(text);
        return failed ? tool_fail_system(json_lines_name, errno) : TOOL_OK;
    }
    tool_write_text(text, strlen(text));
    putchar('\n');
    free(text);
    return tool_close_stdout();
}

const char *const tool_weights_names[] = {"stored", "int8", "int4"};
const char *const tool_arithmetic_names[] = {"default", "f32", "bf16"};
const char *const tool_kv_names[] = {"default", "f32", "bf16"};
const char *const tool_cpu_names[] = {
    "baseline", "avx2",     "avx512",      "avx_vnni",     "avx512_vnni", "avx512_bf16",
    "amx_int8", "amx_bf16", [16] = "neon", "neon_dotprod", "neon_i8mm",   "neon_bf16"};
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

/* All of a stream, of which nobody knows the size. */
static unsigned char *read_all(FILE *file, const char *name, size_t *size) {
    enum { MOST = 1 << 30 };
    size_t used = 0, capacity = 1 << 16;
    unsigned char *bytes = malloc(capacity);
    while (bytes) {
        used += fread(bytes + used, 1, capacity - used, file);
        if (used < capacity) break;
        if (capacity == MOST) {
            free(bytes);
            tool_fail_text("%s: more than 1 GiB for an image (give a PNG or JPEG file)", name);
            return NULL;
        }
        unsigned char *grown = realloc(bytes, capacity *= 2);
        if (!grown) free(bytes);
        bytes = grown;
    }
    if (!bytes) {
        tool_fail_text("%s: no memory for the image", name);
    } else if (ferror(file)) {
        tool_fail_system(name, errno);
        free(bytes);
        bytes = NULL;
    }
    *size = used;
    return bytes;
}

unsigned char *tool_read_stdin(size_t *size) { return read_all(stdin, "stdin", size); }
