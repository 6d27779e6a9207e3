/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The images of a verb: one, or many of arguments, folders and lists, one after the other. */
#ifndef PALIGEMMA_TOOL_IMAGES_H
#define PALIGEMMA_TOOL_IMAGES_H

#include "draw.h"
#include "tool.h"

typedef struct tool_images tool_images;

/* What `one` of tool_images_run() returns beside TOOL_OK and TOOL_FAILED, after which the next image comes. */
enum { TOOL_STOP = -1 /* failed, and so would all the others: the model does not open, Ctrl-C */ };

/* An image whose turn it is. */
typedef struct tool_source {
    const char *path;    /* as it was named; "-": stdin */
    const char *picture; /* where it is to be drawn; NULL: nowhere */
    pg_image image;      /* for pg_processor_encode(); of tool_source_open() */
    tool_picture pixels; /* when it is to be drawn: what boxes are drawn on; image is these pixels then */
    unsigned char *bytes;
    int told; /* an error line says already what failed */
} tool_source;

/* Opens the image, its pixels too when it is to be drawn. */
pg_status tool_source_open(tool_source *source, const pg_processor *processor, uint32_t flags, pg_cancel *cancel);

/* Says why an image failed, unless that was told. Returns what `one` is to return. */
int tool_source_fail(const tool_images *images, const tool_source *source, pg_status status, tool_stage stage);

/* Lists the images: `paths` (folders are walked), and those that --images-from names. draw: --draw, or NULL. json: the
 * verb prints JSON. Opens --output and reads what it has. Returns -1 to go on, else the exit status: the error was
 * told. */
int tool_images_open(const tool_verb *verb, const tool_shared *shared, const char *draw, const char *const *paths,
                     size_t n_paths, int json, tool_images **out);
void tool_images_close(tool_images **images);

/* Whether output names its image: more than one, or a folder or list. */
int tool_images_many(const tool_images *images);

/* Calls `one` for each image, shows how far it is, and counts those that fail. Returns the exit status. */
int tool_images_run(tool_images *images, tool_progress *progress, int (*one)(void *user, tool_source *source),
                    void *user);

#endif
