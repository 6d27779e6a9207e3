/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The arguments. */
#include "options.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: camera_node [options] MODEL\n"
    "\n"
    "A camera that looks at moving shapes, and a model that is asked about its newest frame. Lines of JSON\n"
    "on stdout: answers, frames without one, and at the end a summary.\n"
    "\n"
    "  MODEL             a checkpoint folder, such as examples/demo/model\n"
    "  --prompt TEXT     what to ask (default: 'detect red circle ; blue star')\n"
    "  --size WxH        of a frame, 32 to 4096 pixels each (default 640x480)\n"
    "  --hz N            frames a second, 0.1 to 1000 (default 30)\n"
    "  --seconds S       end after S seconds (default: at Ctrl-C)\n"
    "  --deadline MS     an answer that takes longer is given up (default: none)\n"
    "  --nice N          how far the model steps back behind other programs, 0 to 19 (default 0)\n"
    "  --leave-cpu-free  the model computes on one CPU fewer than there are\n";

static int refuse(const char *option, const char *value, const char *expected) {
    fprintf(stderr, "camera_node: %s is '%s'; expected %s. camera_node --help has more\n", option, value, expected);
    return 2;
}

/* A number from least to most; 0: it is none. */
static int read_number(const char *text, double least, double most, double *out) {
    char *end = NULL;
    *out = strtod(text, &end);
    return end != text && *end == '\0' && *out >= least && *out <= most;
}

static int read_size(const char *text, program_options *out) {
    double width = 0, height = 0;
    char first[8] = "";
    const char *x = strchr(text, 'x');
    if (!x || x == text || (size_t)(x - text) >= sizeof first) return 0;
    memcpy(first, text, (size_t)(x - text));
    if (!read_number(first, 32, 4096, &width) || !read_number(x + 1, 32, 4096, &height)) return 0;
    out->width = (int32_t)width;
    out->height = (int32_t)height;
    return width == floor(width) && height == floor(height);
}

static int read_option(const char *name, const char *value, program_options *out) {
    double nice = 0;
    if (strcmp(name, "--prompt") == 0) {
        out->prompt = value;
    } else if (strcmp(name, "--size") == 0) {
        if (!read_size(value, out)) return refuse(name, value, "WIDTHxHEIGHT, each 32 to 4096, such as 640x480");
    } else if (strcmp(name, "--hz") == 0) {
        if (!read_number(value, 0.1, 1000, &out->hz)) return refuse(name, value, "0.1 to 1000 frames a second");
    } else if (strcmp(name, "--seconds") == 0) {
        if (!read_number(value, 0.1, 1e6, &out->seconds)) return refuse(name, value, "0.1 to 1000000 seconds");
    } else if (strcmp(name, "--deadline") == 0) {
        if (!read_number(value, 1, 1e6, &out->deadline)) return refuse(name, value, "1 to 1000000 milliseconds");
        out->deadline *= 1e-3;
    } else if (strcmp(name, "--nice") == 0) {
        if (!read_number(value, 0, 19, &nice) || nice != floor(nice)) return refuse(name, value, "0 to 19");
        out->nice = (int32_t)nice;
    } else {
        fprintf(stderr, "camera_node: no such option: %s. camera_node --help has them\n", name);
        return 2;
    }
    return -1;
}

int options_read(int argc, char **argv, program_options *out) {
    *out = (program_options){.prompt = "detect red circle ; blue star", .width = 640, .height = 480, .hz = 30};
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i];
        if (strcmp(name, "--help") == 0) {
            fputs(help, stdout);
            return 0;
        }
        if (strcmp(name, "--leave-cpu-free") == 0) {
            out->leave_cpu = 1;
        } else if (strncmp(name, "--", 2) == 0) {
            if (i + 1 == argc) return refuse(name, "", "a value behind it");
            const int status = read_option(name, argv[++i], out);
            if (status >= 0) return status;
        } else if (out->model) {
            return refuse("the second MODEL", name, "one alone");
        } else {
            out->model = name;
        }
    }
    if (out->model) return -1;
    fputs(help, stderr);
    return 2;
}
