/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Many images one after the other: where their lines and pictures go, which are there already, how far it is. walk.c
 * finds them. */
#include "images.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "walk.h"
#include "system.h"

struct tool_images {
    tool_list list;
    int many;
    FILE *output; /* of --output; or NULL */
    const char *output_name;
    json_t *done; /* an object whose keys are the images that --output has; or NULL */
    size_t n_skipped;
    int skip_existing;
};

/* ---- one image ---- */

pg_status tool_source_open(tool_source *source, const pg_processor *processor, uint32_t flags, pg_cancel *cancel) {
    size_t n_bytes = 0;
    pg_image *image = &source->image;
    if (strcmp(source->path, "-") == 0 && !(source->bytes = tool_read_stdin(&n_bytes))) {
        source->told = 1;
        return tool_interrupted() ? PG_ERROR_CANCELLED : PG_ERROR_IO;
    }
    pg_status status = source->bytes ? pg_image_from_bytes(image, sizeof *image, source->bytes, n_bytes)
                                     : pg_image_from_path(image, sizeof *image, source->path);
    if (status < 0 || !source->picture) return status;
    tool_picture *pixels = &source->pixels; /* read once: the path may be a pipe */
    status = tool_picture_read(processor, image, flags, cancel, pixels);
    return status < 0 ? status
                      : pg_image_from_pixels(image, sizeof *image, PG_IMAGE_RGB8, pixels->width, pixels->height,
                                             pixels->rgb, 0);
}

int tool_source_fail(const tool_images *images, const tool_source *source, pg_status status, tool_stage stage) {
    const int cancelled = status == PG_ERROR_CANCELLED;
    if (!source->told && !(cancelled && images->many)) tool_fail(status, stage);
    return cancelled || stage == TOOL_STAGE_MODEL ? TOOL_STOP : TOOL_FAILED;
}

static void close_source(tool_source *source) {
    tool_picture_free(&source->pixels);
    free(source->bytes);
}

/* ---- pictures ---- */

/* The folders above a file. 0: one cannot be made, told. */
static int make_folders(const char *path) {
    char *copy = strdup(path);
    int done = copy != NULL;
    for (char *slash = copy ? copy + 1 : NULL; done && slash && *slash; slash++) {
        const char separator = *slash;
        if (!tool_is_slash(separator)) continue;
        *slash = '\0';
        if (mkdir(copy, 0777) != 0 && errno != EEXIST) {
            tool_fail_text("%s: %s", copy, strerror(errno));
            done = 0;
        }
        *slash = separator;
    }
    free(copy);
    return done;
}

/* FOLDER/NAME.png, and FOLDER/NAME-2.png where an image before it has that. NULL: no memory. */
static char *picture_name(const char *folder, const tool_listed *item, json_t *names) {
    const char *base = strcmp(item->path, "-") == 0 ? "stdin" : item->path + item->base;
    size_t size = strlen(base);
    if (size > 4 && strcasecmp(base + size - 4, ".png") == 0) size -= 4;
    char *path = NULL;
    for (int i = 1; i == 1 || json_object_get(names, path); i++) {
        char number[16] = "";
        if (i > 1) snprintf(number, sizeof number, "-%d", i);
        free(path);
        const char *slash = *folder && tool_is_slash(folder[strlen(folder) - 1]) ? "" : "/";
        if (asprintf(&path, "%s%s%.*s%s.png", folder, slash, (int)size, base, number) < 0) return NULL;
    }
    json_object_set_new_nocheck(names, path, json_true());
    return path;
}

/* Another ending would be a lie. */
static int is_other_format(const char *name) {
    static const char *const endings[] = {".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".pdf", ".svg"};
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; dot && i < sizeof endings / sizeof *endings; i++)
        if (strcasecmp(dot, endings[i]) == 0) return 1;
    return 0;
}

static const char *picture_option(const tool_verb *verb) {
    return strcmp(verb->name, "run") == 0 ? "--attention" : "--draw";
}

/* Returns -1 to go on, else the exit status. */
static int name_pictures(const tool_verb *verb, tool_images *images, const char *draw) {
    struct stat found;
    const size_t size = strlen(draw);
    const int exists = stat(draw, &found) == 0, is_folder = exists && S_ISDIR(found.st_mode);
    if (!images->many && !is_folder && (size == 0 || !tool_is_slash(draw[size - 1]))) {
        if (is_other_format(draw))
            return tool_usage_error(verb, "%s: found '%s', expected a name that ends in .png: it is a PNG file",
                                    picture_option(verb), draw);
        images->list.items[0].picture = strdup(draw);
        return images->list.items[0].picture ? -1 : tool_fail_text("no memory for the name of the picture");
    }
    if (!exists && size > 4 && strcasecmp(draw + size - 4, ".png") == 0)
        return tool_usage_error(verb, "%s: found '%s', expected the name of a folder: there are several images",
                                picture_option(verb), draw);
    if (exists && !is_folder)
        return tool_usage_error(verb, "%s: '%s' is no folder; several images need one", picture_option(verb), draw);
    if (!is_folder && mkdir(draw, 0777) != 0) return tool_fail_text("%s: %s", draw, strerror(errno));
    json_t *names = json_object();
    size_t i = 0;
    for (; names && i < images->list.n; i++)
        if (!(images->list.items[i].picture = picture_name(draw, &images->list.items[i], names))) break;
    json_decref(names);
    return i == images->list.n ? -1 : tool_fail_text("no memory for the names of pictures");
}

/* --draw DIR must not be a folder of the images; inside one, it is not walked. */
static int set_aside(const tool_verb *verb, tool_list *list, const char *draw, const char *const *paths, size_t n) {
    struct stat found, other_found;
    tool_folder folder, other;
    if (stat(draw, &found) != 0 || !S_ISDIR(found.st_mode) || !tool_folder_of(draw, &found, &folder)) return -1;
    for (size_t i = 0; i < n; i++)
        if (stat(paths[i], &other_found) == 0 && tool_folder_of(paths[i], &other_found, &other) &&
            other.device == folder.device && other.number == folder.number)
            return tool_usage_error(verb, "%s: '%s' is the folder of the images; give another", picture_option(verb),
                                    draw);
    tool_list_visited(list, draw, &found);
    return -1;
}

/* ---- lines that are there already ---- */

/* The name of an image as its line has it; malloc'ed. NULL: no line of ours. */
static char *image_of_line(const char *line, size_t size) {
    json_t *object = json_loadb(line, size, JSON_ALLOW_NUL, NULL);
    char *name = tool_json_get_image(object);
    json_decref(object);
    return name;
}

/* Cuts off the end of a line that was being written when the program or machine stopped. */
static int repair(tool_images *images, const char *line, size_t size, off_t at) {
    char *name = image_of_line(line, size);
    const int failed = name ? fputc('\n', images->output) == EOF || fflush(images->output) != 0
                            : fflush(images->output) != 0 || ftruncate(fileno(images->output), at) != 0;
    if (!name)
        fprintf(stderr, "paligemma: warning: %s: the last line is broken off; it is made again\n", images->output_name);
    free(name);
    return failed ? tool_fail_text("%s: %s", images->output_name, strerror(errno)) == TOOL_OK : 1;
}

static int read_output(tool_images *images) {
    char *line = NULL;
    size_t capacity = 0, number = 0;
    ssize_t size;
    int done = 1;
    off_t at = 0;
    rewind(images->output);
    while (done && (size = getline(&line, &capacity, images->output)) > 0) {
        const int whole = line[size - 1] == '\n';
        char *name = image_of_line(line, (size_t)size);
        number++;
        if (name) json_object_set_new_nocheck(images->done, name, json_true());
        if (!name && (whole || line[0] != '{'))
            done = tool_fail_text(
                       "%s, line %zu: found no line with an image, as --skip-existing needs it; is this another "
                       "file?",
                       images->output_name, number) == TOOL_OK;
        else if (!whole)
            done = repair(images, line, (size_t)size, at);
        free(name);
        at += size;
    }
    free(line);
    return done && ferror(images->output) ? tool_fail_text("%s: %s", images->output_name, strerror(errno)) == TOOL_OK
                                          : done;
}

static int open_output(tool_images *images, const char *name) {
    images->output_name = name;
    images->output = fopen(name, images->skip_existing ? "a+be" : "wbe");
    if (!images->output) return tool_fail_text("%s: %s", name, strerror(errno)) == TOOL_OK;
    if (images->skip_existing) {
        images->done = json_object();
        if (!images->done || !read_output(images)) return 0;
        fseek(images->output, 0, SEEK_END);
    }
    tool_json_output(images->output, name);
    return 1;
}

static int is_done(const tool_images *images, const tool_listed *item) {
    if (!images->skip_existing) return 0;
    if (images->done) return json_object_get(images->done, item->path) != NULL;
    return item->picture && access(item->picture, F_OK) == 0;
}

/* ---- all ---- */

static int list_all(const tool_verb *verb, const tool_shared *shared, tool_list *list, const char *const *paths,
                    size_t n_paths) {
    for (size_t i = 0; i < n_paths; i++) {
        if (i && !strpbrk(paths[i], "./-") && access(paths[i], F_OK) != 0)
            return tool_usage_error(verb, "no such image: '%s' (quote a prompt with spaces)", paths[i]);
        if (!tool_list_add(list, paths[i])) return tool_fail_text("no memory for the list of images");
    }
    if (shared->images_from && !tool_list_add_from(list, shared->images_from)) return TOOL_FAILED;
    if (list->n_left_out)
        fprintf(stderr, "paligemma: %zu files that are no PNG or JPEG are left out\n", list->n_left_out);
    if (list->n == 0) return tool_fail_text("no images: the list of --images-from is empty");
    return -1;
}

int tool_images_open(const tool_verb *verb, const tool_shared *shared, const char *draw, const char *const *paths,
                     size_t n_paths, int json, tool_images **out) {
    if (shared->skip_existing && !shared->output && !draw)
        return tool_usage_error(verb, "--skip-existing needs --output FILE%s, where it sees what is there",
                                strcmp(verb->name, "run") == 0 ? " or --attention DIR" : " or --draw DIR");
    if (shared->output && !json) return tool_usage_error(verb, "--output writes JSON Lines: it excludes other forms");
    tool_images *images = *out = calloc(1, sizeof *images);
    if (!images) return tool_fail_text("no memory for the list of images");
    images->skip_existing = shared->skip_existing;
    int status = draw ? set_aside(verb, &images->list, draw, paths, n_paths) : -1;
    if (status < 0) status = list_all(verb, shared, &images->list, paths, n_paths);
    if (status >= 0) return status;
    images->many = images->list.n > 1 || images->list.n_folders > 0 || shared->images_from;
    if (draw) status = name_pictures(verb, images, draw);
    if (status >= 0) return status;
    return shared->output && !open_output(images, shared->output) ? TOOL_FAILED : -1;
}

void tool_images_close(tool_images **images) {
    if (!*images) return;
    tool_json_output(NULL, NULL);
    if ((*images)->output) fclose((*images)->output); /* each line was flushed, and looked at */
    json_decref((*images)->done);
    tool_list_free(&(*images)->list);
    free(*images);
    *images = NULL;
}

int tool_images_many(const tool_images *images) { return images->many; }

/* A picture must not replace its own image, and needs its folders. */
static int prepare_picture(const tool_images *images, const tool_listed *item) {
    struct stat image, picture;
    if (!item->picture) return 1;
    if (stat(item->picture, &picture) == 0 && stat(item->path, &image) == 0 && S_ISREG(image.st_mode) &&
        image.st_dev == picture.st_dev && image.st_ino == picture.st_ino)
        return tool_fail_text("%s: the picture would be written over its image; give another name", item->path) ==
               TOOL_OK;
    return !images->many || make_folders(item->picture);
}

static int run_one(tool_images *images, const tool_listed *item, int (*one)(void *user, tool_source *source),
                   void *user) {
    tool_source source = {.path = item->path, .picture = item->picture};
    int status = TOOL_FAILED;
    if (images->many || images->output) tool_json_image(item->path);
    if (item->error)
        tool_fail_text("%s", item->error);
    else if (prepare_picture(images, item))
        status = one(user, &source);
    tool_json_image(NULL);
    close_source(&source);
    return status;
}

static int finish(const tool_images *images, tool_progress *progress, size_t n_done, size_t n_failed) {
    const size_t n = images->list.n - images->n_skipped;
    tool_progress_clear(progress);
    if (images->many && tool_interrupted()) {
        tool_interrupt_told();
        fprintf(stderr, "paligemma: interrupted; %zu of %zu images are done%s\n", n_done, n,
                images->output && !images->skip_existing ? "; --skip-existing goes on from here" : "");
    } else if (images->many && n_failed) {
        fprintf(stderr, "paligemma: %zu of %zu images failed\n", n_failed, n);
    }
    if (progress->enabled && images->n_skipped)
        fprintf(stderr, "paligemma: %zu images were there already\n", images->n_skipped);
    return n_failed || tool_interrupted() ? TOOL_FAILED : TOOL_OK;
}

int tool_images_run(tool_images *images, tool_progress *progress, int (*one)(void *user, tool_source *source),
                    void *user) {
    size_t n_failed = 0, n_done = 0;
    for (size_t i = 0; i < images->list.n; i++) images->n_skipped += (size_t)is_done(images, &images->list.items[i]);
    const size_t n = images->list.n - images->n_skipped;
    if (images->many) tool_progress_images(progress, 0, n, 0);
    for (size_t i = 0; i < images->list.n && !tool_interrupted(); i++) {
        if (is_done(images, &images->list.items[i])) continue;
        const int status = run_one(images, &images->list.items[i], one, user);
        if (tool_interrupted() && status != TOOL_OK) break;
        n_failed += status != TOOL_OK;
        n_done++;
        if (status == TOOL_STOP || tool_output_failed()) return TOOL_FAILED;
        if (images->many) tool_progress_images(progress, n_done, n, n_failed);
    }
    return finish(images, progress, n_done, n_failed);
}
