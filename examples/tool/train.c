/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* paligemma train: a LoRA adapter, learned from images and texts. train_loop.c has the steps. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "train_loop.h"

static const char help[] =
    "usage: paligemma train [options] MODEL DATA --out ADAPTER\n"
    "\n"
    "Trains a LoRA adapter of MODEL, which stays as it is, and writes it to the folder ADAPTER as PEFT does:\n"
    "every verb takes it with --adapter. A line is printed for each step (on a terminal a bar); Ctrl-C saves what was\n"
    "learned, and the same command with --resume goes on from there, to the same bits.\n"
    "\n"
    "  MODEL    a checkpoint folder, or a model id in the local Hugging Face cache\n"
    "  DATA     JSON Lines: an object a line, such as\n"
    "           {\"image\": \"cat.jpg\", \"prefix\": \"caption en\", \"suffix\": \"a cat on a sofa\"}\n"
    "           image is a PNG or JPEG file, relative to the folder of DATA; prefix the prompt; suffix what the\n"
    "           model is to say\n"
    "\n"
    "      --out ADAPTER        the folder, new or empty. With a validation it has the adapter with the least\n"
    "                           validation loss, and ADAPTER/last the newest one\n"
    "      --resume             go on with the training in ADAPTER; the other options as they were\n"
    "      --images FOLDER      images are relative to this folder\n"
    "      --prefix TEXT        the prompt of lines that have no prefix\n"
    "      --skip-bad           leave out lines that cannot be learned, and tell how many; else they are an error\n"
    "      --validation FILE    rows like DATA, which are not learned: the loss on them is told\n"
    "      --validation-split P  keep a part of DATA for that, such as 0.1; which rows follows from --seed\n"
    "      --epochs N           go over DATA N times (default 3)\n"
    "      --steps N            make N updates in place of that\n"
    "      --batch N            rows of an update (default 8)\n"
    "      --accumulate N       an update after N batches (default 1); less memory than a larger batch, same numbers\n"
    "      --rank N             r of LoRA (default 8); 0: none, --save-modules alone\n"
    "      --lora-alpha X       what B A is scaled by is X / rank (default 8)\n"
    "      --rslora             X / sqrt(rank) in place of that\n"
    "      --dropout P          of what A reads (default 0)\n"
    "      --target-modules LIST  what gets LoRA: ends of names with commas between, all-linear, or regex:PATTERN\n"
    "                           (default: the linear layers of the decoder)\n"
    "      --save-modules LIST  what is trained whole, such as multi_modal_projector.linear\n"
    "      --learning-rate X    the highest, of AdamW (default 2e-4)\n"
    "      --schedule KIND      linear (default), cosine or constant, after the warmup\n"
    "      --warmup N           updates in which it grows from 0 (default 0)\n"
    "      --weight-decay X     default 0\n"
    "      --max-norm X         gradients are scaled down to this norm; 0: never (default 1)\n"
    "      --seed N             of the first values, of dropout and of the order of rows (default 0)\n"
    "      --checkpoint-gradients  much less memory, a third slower, the same bits\n"
    "      --evaluate-every N   updates between validations (default: one an epoch)\n"
    "      --early-stop N       end after N validations without a lesser loss\n"
    "      --save-every N       updates between states that are saved (default: one an epoch, and every ten minutes)\n"
    "      --plot FILE          the curve of the losses, .svg or .png (default ADAPTER/loss.svg)\n"
    "      --json               a line of JSON for each step and validation, and one at the end\n"
    "  -t, --threads N          compute on N threads (default: the CPUs this process may use)\n"
    "      --processor FOLDER   tokenizer and image settings from another folder or model id\n"
    "      --weights FORMAT     of the frozen MODEL: stored (default), int8 or int4: quantized when it opens\n"
    "      --int8-layers LIST   beside int4: what is int8, such as embedding,attention\n"
    "      --in-memory          read the weights into memory instead of mapping the files\n"
    "      --cpu SETS           use these instruction sets alone, such as baseline,avx2\n" TOOL_HELP_PIXELS
    "  -v, --verbose            what the library has to tell, on stderr\n"
    "      --                   what follows is no option\n"
    "\n"
    "Exit status: 0 done, 1 failed, 2 wrong usage; after Ctrl-C it dies of SIGINT.\n";

/* What the options say beside the settings of the loop. */
typedef struct train_options {
    const char *model, *processor, *images, *prefix, *data, *validation, *schedule;
    double validation_split;
    pg_trainer_options trainer;
    int64_t rank;
    int resume, skip_bad, rslora, checkpoint, verbose;
    tool_shared shared;
} train_options;

/* ---- options ---- */

/* Rules of several options. Returns -1, or the exit status. */
static int check_options(const tool_verb *verb, const train_options *o, const tool_train_settings *s) {
    if (!s->folder || !*s->folder) return tool_usage_error(verb, "--out ADAPTER is needed, the folder of the adapter");
    if (s->epochs && s->n_steps) return tool_usage_error(verb, "--steps and --epochs exclude each other");
    if (o->validation && o->validation_split > 0)
        return tool_usage_error(verb, "--validation and --validation-split exclude each other");
    if (!o->validation && o->validation_split <= 0 && (s->evaluate_every || s->early_stop))
        return tool_usage_error(verb, "%s needs --validation FILE or --validation-split P",
                                s->early_stop ? "--early-stop" : "--evaluate-every");
    if (o->rank == 0 && !o->trainer.modules_to_save)
        return tool_usage_error(verb, "--rank 0 needs --save-modules: else nothing is trained");
    const char *end = s->plot ? strrchr(s->plot, '.') : ".svg";
    if (!end || (strcasecmp(end, ".svg") != 0 && strcasecmp(end, ".png") != 0))
        return tool_usage_error(verb, "--plot: found '%s', expected a name that ends in .svg or .png", s->plot);
    return -1;
}

static int take_schedule(const tool_verb *verb, train_options *o) {
    static const char *const names[] = {
        [PG_SCHEDULE_CONSTANT] = "constant", [PG_SCHEDULE_LINEAR] = "linear", [PG_SCHEDULE_COSINE] = "cosine"};
    if (!o->schedule) return -1;
    for (int32_t i = 0; i < (int32_t)(sizeof names / sizeof *names); i++)
        if (strcmp(names[i], o->schedule) == 0) {
            o->trainer.schedule = i;
            return -1;
        }
    return tool_usage_error(verb, "--schedule: found '%s', expected linear, cosine or constant", o->schedule);
}

/* Returns -1 to go on, else the exit status. */
static int parse_options(const tool_verb *verb, int argc, char **argv, train_options *o, tool_train_settings *s) {
    enum { MANY = 1000000000 };
    const char *arguments[2];
    int64_t seed = 0;
    pg_trainer_options *t = &o->trainer;
    pg_trainer_options_init(t, sizeof *t);
    o->rank = t->rank;
    *s = (tool_train_settings){.batch = 8, .accumulate = 1};
    const tool_option list[] = {
        {.name = "--out", .text = &s->folder},
        {.name = "--resume", .flag = &o->resume},
        {.name = "--images", .text = &o->images},
        {.name = "--prefix", .text = &o->prefix},
        {.name = "--skip-bad", .flag = &o->skip_bad},
        {.name = "--validation", .text = &o->validation},
        {.name = "--validation-split", .real = &o->validation_split, .low = 0.001, .high = 0.9},
        {.name = "--epochs", .number = &s->epochs, .least = 1, .most = 1000000},
        {.name = "--steps", .number = &s->n_steps, .least = 1, .most = MANY},
        {.name = "--batch", .number = &s->batch, .least = 1, .most = 65536},
        {.name = "--accumulate", .number = &s->accumulate, .least = 1, .most = 65536},
        {.name = "--rank", .number = &o->rank, .least = 0, .most = 4096},
        {.name = "--lora-alpha", .real = &t->alpha, .low = 0.001, .high = 1e6},
        {.name = "--rslora", .flag = &o->rslora},
        {.name = "--dropout", .real = &t->dropout, .low = 0, .high = 0.999},
        {.name = "--target-modules", .text = &t->target_modules},
        {.name = "--save-modules", .text = &t->modules_to_save},
        {.name = "--learning-rate", .real = &t->learning_rate, .low = 0, .high = 1e30},
        {.name = "--schedule", .text = &o->schedule},
        {.name = "--warmup", .number = &t->warmup_steps, .least = 0, .most = MANY},
        {.name = "--weight-decay", .real = &t->weight_decay, .low = 0, .high = 1e6},
        {.name = "--max-norm", .real = &t->max_gradient_norm, .low = 0, .high = 1e30},
        {.name = "--seed", .number = &seed, .least = 0, .most = INT64_MAX},
        {.name = "--checkpoint-gradients", .flag = &o->checkpoint},
        {.name = "--evaluate-every", .number = &s->evaluate_every, .least = 1, .most = MANY},
        {.name = "--early-stop", .number = &s->early_stop, .least = 1, .most = MANY},
        {.name = "--save-every", .number = &s->save_every, .least = 1, .most = MANY},
        {.name = "--plot", .text = &s->plot},
        {.name = "--json", .flag = &s->json},
        {.name = "--processor", .text = &o->processor},
        {.name = "--verbose", .letter = "-v", .flag = &o->verbose},
    };
    int status = tool_parse(verb, argc, argv, list, sizeof list / sizeof *list, arguments, &o->shared);
    if (status < 0) status = check_options(verb, o, s);
    if (status < 0) status = take_schedule(verb, o);
    if (status >= 0) return status;
    o->model = arguments[0];
    o->data = arguments[1];
    if (!s->epochs) s->epochs = 3;
    s->seed = t->seed = (uint64_t)seed;
    t->rank = (int32_t)o->rank;
    t->flags = (o->rslora ? PG_TRAIN_RSLORA : 0u) | (o->checkpoint ? PG_TRAIN_CHECKPOINT : 0u);
    t->accumulation = s->accumulate;
    t->n_threads = o->shared.n_threads;
    return -1;
}

/* ---- the folder ---- */

static int is_empty(const char *folder) {
    DIR *opened = opendir(folder);
    const struct dirent *entry;
    int empty = opened != NULL;
    while (empty && (entry = readdir(opened)))
        empty = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
    if (opened) closedir(opened);
    return empty;
}

/* It is made now: a folder that cannot be is told before hours of work. */
static int make_folder(const char *folder) {
    if (mkdir(folder, 0777) == 0) return TOOL_OK;
    if (errno != EEXIST) return tool_fail_system(folder, errno);
    if (is_empty(folder)) return TOOL_OK;
    return tool_fail_text("%s: found files in it, expected a new or empty folder; --resume goes on with a training",
                          folder);
}

/* --resume takes the newest state, which is where a validation has it. */
static int find_state(const tool_training *t) {
    char *last = NULL;
    struct stat found;
    if (asprintf(&last, "%s/last", t->settings.folder) < 0) return tool_fail_text("no memory for a name");
    const int has_last = stat(last, &found) == 0;
    free(last);
    if (has_last && t->validation.n == 0)
        return tool_fail_text("%s: its training has a validation; give --validation or --validation-split as before",
                              t->settings.folder);
    return TOOL_OK;
}

/* ---- opening ---- */

/* Settings that the order of the rows follows from. */
static json_t *order_settings(const tool_training *t) {
    const tool_train_settings *s = &t->settings;
    return json_pack("{s:I, s:I, s:I, s:I, s:I}", "rows", (json_int_t)t->training.n, "validation rows",
                     (json_int_t)t->validation.n, "--batch", (json_int_t)s->batch, "--accumulate",
                     (json_int_t)s->accumulate, "--seed", (json_int_t)s->seed);
}

/* Everything of one training. */
typedef struct train_state {
    tool_training train;
    train_options options;
    tool_train_data data, validation;
    tool_progress progress;
    tool_log log;
    pg_cancel *cancel;
    pg_processor *processor;
    pg_model *model;
    char *plot;
} train_state;

/* The lines, before anything large is opened. */
static int read_data(train_state *s) {
    const train_options *o = &s->options;
    s->data = s->validation =
        (tool_train_data){.images = o->images, .prefix = o->prefix, .skip_bad = o->skip_bad, .name = o->data};
    s->validation.name = o->validation;
    const int status = tool_train_data_open(&s->data);
    return status == TOOL_OK && o->validation ? tool_train_data_open(&s->validation) : status;
}

/* Looks at each row, and deals them out. */
static int check_data(train_state *s) {
    tool_training *t = &s->train;
    t->encoder = (tool_train_encoder){s->processor, s->cancel, s->options.shared.image_flags};
    pg_status status = tool_train_check(&t->encoder, &s->data, &s->progress);
    if (status >= 0 && s->options.validation) status = tool_train_check(&t->encoder, &s->validation, &s->progress);
    if (status < 0) return status == TOOL_TOLD ? TOOL_FAILED : tool_fail(status, TOOL_STAGE_PROMPT);
    int told = tool_train_deal(&s->data, s->options.validation_split, t->settings.seed, &t->training, &t->validation);
    if (told == TOOL_OK && s->options.validation) told = tool_train_take_all(&s->validation, &t->validation);
    if (told != TOOL_OK) return told;
    if (!tool_train_plan(t)) return tool_fail_text("no memory for the order of the rows");
    return tool_train_log_open(&t->log, t->settings.folder, order_settings(t));
}

/* The model's id is what others will look for; a folder is told as the library has it. */
static const char *base_of(const char *model) {
    struct stat found;
    return stat(model, &found) == 0 ? NULL : model;
}

static pg_status open_trainer(train_state *s, tool_stage *stage) {
    tool_training *t = &s->train;
    pg_trainer_options *options = &s->options.trainer;
    *stage = TOOL_STAGE_MODEL;
    const pg_status status = tool_open_model(s->options.model, &s->options.shared, &s->log, s->cancel, &s->model);
    tool_progress_clear(&s->progress);
    if (status < 0) return status;
    *stage = TOOL_STAGE_TRAIN;
    options->total_steps = t->settings.n_steps;
    options->base = base_of(s->options.model);
    options->progress = tool_train_progress;
    options->progress_user = t;
    return s->options.resume ? pg_trainer_resume(s->model, t->last, options, &t->trainer)
                             : pg_trainer_create(s->model, options, &t->trainer);
}

/* The library names its options, two of which are keys of adapter_config.json elsewhere. */
static int fail_trainer(pg_status status) {
    static const struct {
        const char *of_library, *of_tool;
    } names[] = {{"target_modules: ", "--target-modules"}, {"modules_to_save: ", "--save-modules"}};
    const char *text = pg_last_error();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strncmp(text, names[i].of_library, strlen(names[i].of_library)) == 0)
            return tool_fail_text("%s: %s", names[i].of_tool, text + strlen(names[i].of_library));
    return tool_fail(status, TOOL_STAGE_TRAIN);
}

static int run(train_state *s) {
    tool_training *t = &s->train;
    tool_stage stage;
    int told = read_data(s);
    if (told != TOOL_OK) return told;
    told = tool_begin(s->options.model, s->options.processor, &s->log, &s->cancel, &s->processor);
    if (told >= 0) return told;
    told = check_data(s);
    if (told == TOOL_OK && !s->options.resume) told = make_folder(t->settings.folder);
    if (told == TOOL_OK && s->options.resume) told = find_state(t);
    if (told != TOOL_OK) return told;
    const pg_status status = open_trainer(s, &stage);
    if (status < 0) return stage == TOOL_STAGE_TRAIN ? fail_trainer(status) : tool_fail(status, stage);
    if (s->options.resume && (told = tool_train_go_on(t)) != TOOL_OK) return told;
    return tool_train_run(t);
}

static int train(const tool_verb *verb, int argc, char **argv) {
    train_state s = {0};
    int status = parse_options(verb, argc, argv, &s.options, &s.train.settings);
    if (status >= 0) return status;
    if (!s.train.settings.plot) {
        if (asprintf(&s.plot, "%s/loss.svg", s.train.settings.folder) < 0)
            return tool_fail_text("no memory for a name");
        s.train.settings.plot = s.plot;
    }
    tool_progress_init(&s.progress);
    s.log = (tool_log){.progress = &s.progress, .verbose = s.options.verbose};
    s.train.progress = &s.progress;
    status = run(&s);
    tool_train_free(&s.train);
    pg_model_close(&s.model);
    pg_processor_close(&s.processor);
    tool_train_data_close(&s.data);
    tool_train_data_close(&s.validation);
    free(s.plot);
    tool_interrupt_close(&s.cancel);
    return status;
}

const tool_verb tool_train = {
    "train", help, 2, TOOL_OPTIONS_BASE | TOOL_OPTIONS_MACHINE | TOOL_OPTIONS_THREADS | TOOL_OPTIONS_PIXELS, train};
