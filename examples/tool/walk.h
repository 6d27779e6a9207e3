/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Lists of images. */
#ifndef PALIGEMMA_TOOL_WALK_H
#define PALIGEMMA_TOOL_WALK_H

#include "system.h"
#include "tool.h"

typedef struct tool_listed {
    char *path;
    size_t base;   /* where the part begins that names its picture: behind the folder that was walked */
    char *error;   /* why it can be no image; NULL: it may be one */
    char *picture; /* where it is drawn; or NULL */
} tool_listed;

typedef struct tool_list {
    tool_listed *items;
    size_t n, capacity;
    size_t n_folders;  /* that were walked */
    size_t n_left_out; /* files in them that are no images */
    tool_folder *visited;
    size_t n_visited;
} tool_list;

/* Adds an image, or the images in a folder and all its folders, in the order of their names' bytes: PNG and JPEG files
 * by their ending or their first bytes. Links are followed, each folder is walked once; names that begin with a dot are
 * left out. What cannot be read becomes an item with an error. 0: no memory. */
int tool_list_add(tool_list *list, const char *path);

/* Whether an argument is the name of an image or a folder of images, and no text: a file or folder that is there, with
 * a dot or a slash in its name; or one that is not there, and ends as images do. */
int tool_is_image_name(const char *argument);

/* Whether a file begins as PNG and JPEG files do. */
int tool_has_image_bytes(const char *path);

/* Adds what a file names, "-": stdin; a line each, or separated by NUL when it has any. 0: failed, told. */
int tool_list_add_from(tool_list *list, const char *name);

/* Whether a folder was walked already, or is not to be; it is from now on. */
int tool_list_visited(tool_list *list, const char *path, const struct stat *found);

void tool_list_free(tool_list *list);

#endif
