/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* paligemma detect and segment: boxes with labels and scores, and masks, of one image or of many. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "images.h"
#include "objects.h"
#include "tool.h"

static const char help[] =
    "usage: paligemma detect [options] MODEL IMAGE... THINGS\n"
    "\n"
    "Finds THINGS in each IMAGE and prints their boxes: label, score, x0 y0 x1 y1 in pixels.\n"
    "\n"
    "  MODEL    a checkpoint folder, or a model id in the local Hugging Face cache\n"
    "  IMAGE    PNG or JPEG files, or folders, of which all are taken; - reads one from stdin. They are\n"
    "           turned as their EXIF orientation says, and so are the boxes (--no-exif leaves both as\n"
    "           they are stored)\n"
    "  THINGS   what to look for, such as 'cat ; dog'; 'detect ' is put in front if it is not there\n"
    "\n"
    "      --json               a line of JSON for each image: image, width, height, objects (category,\n"
    "                           bbox [x, y, width, height], score), broken, text, stop; an image that\n"
    "                           cannot be read gets image and error\n"
    "      --csv                a line for each object: image,label,score,x0,y0,x1,y1\n"
    "      --draw OUT           draw boxes, labels and scores on the image: a PNG file, or for several\n"
    "                           images a folder of them\n"
    "      --max-iou X          of two boxes with one label that overlap more (0 to 1), keep the better one\n"
    "      --convention N       a loc is NNNN/1024 of the side (default), or NNNN/1023, as the training\n"
    "                           code has it\n"
    "      --constrain          let the model say nothing but whole boxes with labels\n" TOOL_HELP_IMAGES
    "  -n, --max-new-tokens N   stop after N tokens (default 256)\n"
    "  -t, --threads N          compute on N threads (default: the CPUs this process may use)\n"
    "      --processor FOLDER   tokenizer and image settings from another folder or model id\n"
    "      --weights FORMAT     stored (default), int8 or int4: quantized when the model opens\n"
    "      --int8-layers LIST   beside int4: what is int8, such as embedding,attention\n"
    "      --adapter FOLDER     add a LoRA adapter of the model, or an id; may be given several times\n"
    "      --arithmetic KIND    f32, or bf16 in large products, where that is faster on this CPU\n"
    "      --kv KIND            KV cache in f32, or in bf16 (default beside int8 and int4)\n"
    "      --in-memory          read the weights into memory instead of mapping the files\n" TOOL_HELP_PIXELS
        TOOL_HELP_FIT
    "  -v, --verbose            what the library has to tell, on stderr\n"
    "      --                   what follows is no option\n"
    "\n" TOOL_HELP_STATUS;

static const char segment_help[] =
    "usage: paligemma segment [options] MODEL IMAGE... THINGS\n"
    "\n"
    "Finds THINGS in each IMAGE and prints their boxes, and how many pixels their masks have; --json has the\n"
    "masks, and --draw draws them.\n"
    "\n"
    "  MODEL    a checkpoint folder, or a model id in the local Hugging Face cache\n"
    "  IMAGE    PNG or JPEG files, or folders, of which all are taken; - reads one from stdin. They are\n"
    "           turned as their EXIF orientation says, and so are boxes and masks (--no-exif leaves them\n"
    "           as they are stored)\n"
    "  THINGS   what to look for, such as 'cat ; dog'; 'segment ' is put in front if it is not there\n"
    "\n"
    "      --mask-decoder FILE  the decoder of the masks: big_vision's vae-oid.npz, a copy of it as\n"
    "                           safetensors, or a folder with one of them (default: MODEL)\n"
    "      --json               a line of JSON for each image: image, width, height, objects (category,\n"
    "                           bbox [x, y, width, height], score, area, segmentation: COCO's run lengths;\n"
    "                           without a mask neither), broken, text, stop; an image that cannot be read\n"
    "                           gets image and error\n"
    "      --csv                a line for each object: image,label,score,x0,y0,x1,y1,area\n"
    "      --draw OUT           draw masks, boxes, labels and scores on the image: a PNG file, or for\n"
    "                           several images a folder of them\n"
    "      --max-iou X          of two boxes with one label that overlap more (0 to 1), keep the better one\n"
    "      --convention N       a loc is NNNN/1024 of the side (default), or NNNN/1023, as the training\n"
    "                           code has it\n"
    "      --constrain          let the model say nothing but whole boxes with masks and labels\n" TOOL_HELP_IMAGES
    "  -n, --max-new-tokens N   stop after N tokens (default 1024)\n"
    "  -t, --threads N          compute on N threads (default: the CPUs this process may use)\n"
    "      --processor FOLDER   tokenizer and image settings from another folder or model id\n"
    "      --weights FORMAT     stored (default), int8 or int4: quantized when the model opens\n"
    "      --int8-layers LIST   beside int4: what is int8, such as embedding,attention\n"
    "      --adapter FOLDER     add a LoRA adapter of the model, or an id; may be given several times\n"
    "      --arithmetic KIND    f32, or bf16 in large products, where that is faster on this CPU\n"
    "      --kv KIND            KV cache in f32, or in bf16 (default beside int8 and int4)\n"
    "      --in-memory          read the weights into memory instead of mapping the files\n" TOOL_HELP_PIXELS
        TOOL_HELP_FIT
    "  -v, --verbose            what the library has to tell, on stderr\n"
    "      --                   what follows is no option\n"
    "\n" TOOL_HELP_STATUS;

typedef struct detect_state {
    pg_model *model; /* opened when the first image is read */
    pg_processor *processor;
    pg_cancel *cancel;
    tool_progress progress;
    tool_log log;
    tool_shared shared;
    const char *folder, *processor_folder;
    char *prompt;
    tool_images *images;
    const char *draw;
    int json, csv;
    int64_t max_new_tokens;
    uint32_t encode_flags, generate_flags;
    pg_answer_options answer;
    pg_window window;
    int masks; /* segment */
    const char *decoder_path;
    pg_mask_decoder *decoder;
} detect_state;

/* What is printed of an object's mask. */
typedef struct object_mask {
    int64_t area; /* pixels; -1: the object has no mask */
    char *counts; /* run lengths, for --json; or NULL */
} object_mask;

/* What one image gave. */
typedef struct seen {
    tool_source *source;
    pg_inputs *inputs;
    pg_result *result;
    pg_answer *answer;
    pg_result_info info;
    struct object_mask *masks; /* [objects]; NULL: detect */
    uint8_t **pixels;          /* [objects] the masks' pixels, 255 inside; NULL: there is nothing to draw */
} seen;

/* ---- masks ---- */

static void free_masks(seen *image) {
    for (int64_t i = 0; image->masks && i < pg_answer_get_n_objects(image->answer); i++) {
        free(image->masks[i].counts);
        if (image->pixels) free(image->pixels[i]);
    }
    free(image->pixels);
    free(image->masks);
}

/* Counts the pixels of a mask, which becomes 255 and 0, and for --json its runs. */
static pg_status measure_mask(const detect_state *s, uint8_t *pixels, size_t n, object_mask *out) {
    const int32_t width = s->answer.width, height = s->answer.height;
    size_t size = 0;
    out->area = 0;
    for (size_t k = 0; k < n; k++) {
        pixels[k] = pixels[k] >= 128 ? 255 : 0;
        out->area += pixels[k] != 0;
    }
    if (!s->json) return PG_OK;
    pg_mask_get_rle(pixels, width, height, NULL, 0, &size);
    out->counts = malloc(size + 1);
    return out->counts ? pg_mask_get_rle(pixels, width, height, out->counts, size, NULL) : PG_ERROR_MEMORY;
}

/* What is needed of an object's mask: only a picture needs its pixels after this. */
static pg_status read_mask(const detect_state *s, seen *image, int64_t i) {
    const size_t n = (size_t)s->answer.width * (size_t)s->answer.height;
    object_mask *mask = &image->masks[i];
    mask->area = -1;
    uint8_t *pixels = malloc(n);
    if (!pixels) return PG_ERROR_MEMORY;
    pg_status status = pg_answer_get_mask(image->answer, i, s->decoder, pixels, n);
    if (status >= 0) status = measure_mask(s, pixels, n, mask);
    if (status >= 0 && image->pixels)
        image->pixels[i] = pixels;
    else
        free(pixels);
    return status == PG_ERROR_NOT_FOUND ? PG_OK : status;
}

static pg_status read_masks(const detect_state *s, seen *image) {
    const int64_t n = pg_answer_get_n_objects(image->answer);
    image->masks = calloc((size_t)n + 1, sizeof *image->masks);
    if (image->source->picture) image->pixels = calloc((size_t)n + 1, sizeof *image->pixels);
    pg_status status = image->masks && (image->pixels || !image->source->picture) ? PG_OK : PG_ERROR_MEMORY;
    for (int64_t i = 0; status >= 0 && i < n; i++) status = read_mask(s, image, i);
    return status;
}

/* Pixels of object i's mask; -1: it has none. */
static int64_t area_of(const seen *image, int64_t i) { return image->masks ? image->masks[i].area : -1; }

/* Without a mask there is no member for it: pycocotools takes the box then, and null would be an error. */
typedef struct answered {
    const detect_state *s;
    const seen *image;
} answered;

static json_t *object_to_json(const void *user, int64_t i, const pg_object *o) {
    const answered *of = user;
    const seen *image = of->image;
    const pg_answer_options *options = &of->s->answer;
    json_t *json = tool_object_to_json(o);
    if (!image->masks || !image->masks[i].counts) return json;
    json_object_set_new(json, "area", json_integer(image->masks[i].area));
    json_object_set_new(
        json, "segmentation",
        json_pack("{s:[i, i], s:s}", "size", options->height, options->width, "counts", image->masks[i].counts));
    return json;
}

/* ---- output ---- */

static int print_json(const detect_state *s, const seen *image) {
    const answered of = {s, image};
    json_t *line = json_object();
    tool_json_set_image(line, image->source->path);
    json_object_update_new(line, tool_answer_to_json(image->answer, &s->answer, object_to_json, &of));
    json_t *rest =
        json_pack("{s:s, s:s}", "text", pg_answer_get_text(image->answer), "stop", tool_stop_name(image->info.stop));
    json_object_update_new(line, rest);
    return tool_print_json(line);
}

static int print_lines(const detect_state *s, const seen *image) {
    int64_t n_shown = 0;
    if (tool_images_many(s->images) && !s->csv) {
        tool_write_text(image->source->path, strlen(image->source->path));
        putchar('\n');
    }
    for (int64_t i = 0; i < pg_answer_get_n_objects(image->answer); i++) {
        pg_object o = {.struct_size = sizeof o};
        pg_answer_get_object(image->answer, i, &o);
        if (o.flags & PG_OBJECT_DUPLICATE || (s->csv && o.flags & PG_OBJECT_BROKEN)) continue;
        if (s->csv)
            tool_print_object_csv(image->source->path, &o, s->masks, area_of(image, i));
        else if (n_shown++ == 0)
            puts(s->masks ? TOOL_OBJECT_MASK_HEADING : TOOL_OBJECT_HEADING);
        if (!s->csv) tool_print_object(&o, s->masks, area_of(image, i));
    }
    if (!s->csv && n_shown == 0) {
        printf(s->masks ? "no masks; the answer is: " : "no boxes; the answer is: ");
        tool_write_text(pg_answer_get_text(image->answer), strlen(pg_answer_get_text(image->answer)));
        putchar('\n');
    }
    return tool_close_stdout();
}

/* ---- one image ---- */

static pg_status encode(const detect_state *s, seen *image) {
    pg_encode_options options;
    pg_encode_options_init(&options, sizeof options);
    options.flags = s->encode_flags;
    options.cancel = s->cancel;
    pg_status status = tool_source_open(image->source, s->processor, s->encode_flags, s->cancel);
    if (status < 0) return status;
    if (image->source->picture) options.flags &= ~(uint32_t)PG_ENCODE_EXIF; /* the pixels are turned */
    tool_fit_image(&s->shared, &image->source->image);
    return pg_processor_encode(s->processor, &image->source->image, s->prompt, &options, &image->inputs);
}

static pg_status open_model(detect_state *s) {
    if (s->model) return PG_OK;
    return tool_open_model(s->folder, &s->shared, &s->log, s->cancel, &s->model);
}

/* The size of the image, and what the model sees of it. */
static pg_status place(detect_state *s, const seen *image) {
    pg_image_settings settings = {.struct_size = sizeof settings};
    pg_status status = tool_image_size(image->inputs, &s->answer.width, &s->answer.height);
    if (status >= 0) status = pg_processor_get_image_settings(s->processor, &settings);
    s->window.struct_size = sizeof s->window;
    s->answer.window = &s->window;
    return status < 0 ? status
                      : pg_image_get_window(&image->source->image, s->answer.width, s->answer.height, settings.width,
                                            settings.height, &s->window);
}

static pg_status generate(detect_state *s, seen *image) {
    pg_generate_options options;
    pg_generate_options_init(&options, sizeof options);
    options.flags = s->generate_flags;
    options.max_new_tokens = (int32_t)s->max_new_tokens;
    options.n_return = 1;
    options.n_threads = s->shared.n_threads;
    options.progress = tool_progress_update;
    options.progress_user = &s->progress;
    options.cancel = s->cancel;
    pg_status status = pg_generate(s->model, s->processor, image->inputs, &options, &image->result);
    if (status >= 0) status = place(s, image);
    if (status < 0) return status;
    image->info.struct_size = sizeof image->info;
    status = pg_result_get_info(image->result, 0, &image->info);
    if (status >= 0) status = pg_answer_create(s->processor, image->result, 0, &s->answer, &image->answer);
    return status < 0 || !s->masks ? status : read_masks(s, image);
}

static int print_answer(const detect_state *s, const seen *image) {
    tool_source *source = image->source;
    if (source->picture && !tool_draw_answer(source->picture, &source->pixels, image->answer, s->prompt,
                                             (const uint8_t *const *)image->pixels))
        return TOOL_FAILED;
    return s->json ? print_json(s, image) : print_lines(s, image);
}

static int detect_in(void *user, tool_source *source) {
    detect_state *s = user;
    seen image = {.source = source};
    tool_stage stage = TOOL_STAGE_IMAGE;
    tool_json_image(source->path);
    pg_status status = encode(s, &image);
    if (status >= 0) {
        stage = TOOL_STAGE_MODEL;
        status = open_model(s);
    }
    if (status >= 0) {
        stage = TOOL_STAGE_GENERATE;
        status = generate(s, &image);
    }
    tool_progress_clear(&s->progress);
    const int exit_status = status >= 0 ? print_answer(s, &image) : tool_source_fail(s->images, source, status, stage);
    free_masks(&image);
    pg_answer_close(&image.answer);
    pg_result_close(&image.result);
    pg_inputs_close(&image.inputs);
    return exit_status;
}

static int detect_all(detect_state *s) {
    const int exit_status = tool_begin(s->folder, s->processor_folder, &s->log, &s->cancel, &s->processor);
    if (exit_status >= 0) return exit_status;
    if (s->masks) {
        const pg_status status = pg_mask_decoder_open(s->decoder_path ? s->decoder_path : s->folder, NULL, &s->decoder);
        if (status < 0) return tool_fail(status, TOOL_STAGE_GENERATE);
    }
    if (s->csv) puts(s->masks ? TOOL_OBJECT_MASK_CSV_HEADING : TOOL_OBJECT_CSV_HEADING);
    return tool_images_run(s->images, &s->progress, detect_in, s);
}

static int run(const tool_verb *verb, int argc, char **argv) {
    detect_state s = {.max_new_tokens = 256, .generate_flags = PG_GENERATE_LOG_PROBS, .masks = verb == &tool_segment};
    int constrain = 0;
    if (s.masks) s.max_new_tokens = 1024; /* some 40 objects of 20 tokens and a label; 256 are as many boxes */
    const char *max_iou = NULL, *convention = NULL;
    const char **arguments = calloc((size_t)argc + 1, sizeof *arguments);
    if (!arguments) return tool_fail_text("no memory for the arguments");
    const tool_option options[] = {
        {.name = "--max-new-tokens", .letter = "-n", .number = &s.max_new_tokens, .least = 1, .most = INT32_MAX},
        {.name = "--json", .flag = &s.json},
        {.name = "--csv", .flag = &s.csv},
        {.name = "--max-iou", .text = &max_iou},
        {.name = "--convention", .text = &convention},
        {.name = "--constrain", .flag = &constrain},
        {.name = "--draw", .text = &s.draw},
        {.name = "--processor", .text = &s.processor_folder},
        {.name = "--verbose", .letter = "-v", .flag = &s.log.verbose},
        {.name = "--mask-decoder", .text = &s.decoder_path}, /* the last: detect has none */
    };
    const size_t n_options = sizeof options / sizeof options[0] - (s.masks ? 0 : 1);
    int status = tool_parse(verb, argc, argv, options, n_options, arguments, &s.shared);
    if (status < 0 && s.json && s.csv) status = tool_usage_error(verb, "--json and --csv exclude each other");
    if (status < 0 && !tool_answer_options(verb, max_iou, convention, &s.answer)) status = TOOL_USAGE;
    size_t n = 0;
    while (status < 0 && arguments[n]) n++;
    if (status < 0) status = tool_task_prompt(verb, arguments[n - 1], &s.prompt);
    if (s.shared.output) s.json = !s.csv;
    if (status < 0) status = tool_images_open(verb, &s.shared, s.draw, arguments + 1, n - 2, s.json, &s.images);
    if (status < 0) {
        s.folder = arguments[0];
        tool_progress_init(&s.progress);
        s.log.progress = &s.progress;
        s.encode_flags = s.shared.image_flags;
        if (constrain) s.generate_flags |= s.masks ? PG_GENERATE_SEGMENT : PG_GENERATE_DETECT;
        status = detect_all(&s);
    }
    tool_images_close(&s.images);
    free(s.prompt);
    free(arguments);
    pg_mask_decoder_close(&s.decoder);
    pg_processor_close(&s.processor);
    pg_model_close(&s.model);
    tool_interrupt_close(&s.cancel);
    return status;
}

const tool_verb tool_detect = {"detect", help, 3,
                               TOOL_OPTIONS_MODEL | TOOL_OPTIONS_THREADS | TOOL_OPTIONS_IMAGES | TOOL_OPTIONS_PIXELS |
                                   TOOL_OPTIONS_FIT | TOOL_MORE_ARGUMENTS,
                               run};
const tool_verb tool_segment = {"segment", segment_help, 3,
                                TOOL_OPTIONS_MODEL | TOOL_OPTIONS_THREADS | TOOL_OPTIONS_IMAGES | TOOL_OPTIONS_PIXELS |
                                    TOOL_OPTIONS_FIT | TOOL_MORE_ARGUMENTS,
                                run};
