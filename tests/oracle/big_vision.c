/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * PG_MODE_BIG_VISION for big_vision.py: big_vision FOLDER
 * One request a line, texts in hexadecimal behind a "=", one answer a line:
 *   t TOKENS IMAGES OPEN =PROMPT [=SUFFIX]   the ids of the prefix, "|", those of the suffix
 *   p WIDTH HEIGHT SIDE IN OUT               file IN: RGB bytes, file OUT: the pixels, f32 [3, SIDE, SIDE]
 * A failed request answers "! message". FOLDER "-": pixels alone.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hex.h"
#include "image/preprocess.h"
#include "opened.h"
#include "processor/layout_big_vision.h"
#include "tokenizer/tokenizer_load.h"

static pg_status answer_text(const pgi_tokenizer *tokenizer, char *line) {
    long n_tokens = strtol(line, &line, 10), n_images = strtol(line, &line, 10), open = strtol(line, &line, 10);
    size_t prompt_size, suffix_size;
    char *prompt = hex_text(&line, &prompt_size), *suffix = hex_text(&line, &suffix_size);
    int64_t n_prefix = 0;
    pgi_id_list ids;
    pgi_id_list_init(&ids, &pgi_memory_default);
    pgi_layout layout = {.tokenizer = tokenizer, .n_image_tokens = (int32_t)n_tokens};
    pgi_big_vision_row row = {(int32_t)n_images, {prompt, prompt_size}, {suffix, suffix_size}, (int)open};
    pg_status status = pgi_layout_big_vision(&layout, &row, &ids, &n_prefix);
    for (size_t i = 0; i <= ids.size && status >= 0; i++) {
        if (i == (size_t)n_prefix) printf("| ");
        if (i < ids.size) printf("%lld ", (long long)ids.data[i]);
    }
    pgi_id_list_free(&ids);
    return status;
}

static pg_status answer_pixels(const char *line) {
    char in[1024], out[1024];
    pgi_rgb rgb = {0};
    pgi_image_settings settings = {0};
    if (sscanf(line, "%d %d %d %1023s %1023s", &rgb.width, &rgb.height, &settings.width, in, out) != 5)
        return pgi_error(PG_ERROR_ARGUMENT, "%s: expected five fields", line);
    settings.height = settings.width;
    size_t n = (size_t)rgb.width * (size_t)rgb.height * 3, n_out = (size_t)settings.width * (size_t)settings.width * 3;
    float *pixels = malloc(n_out * sizeof *pixels);
    rgb.data = malloc(n);
    const pgi_opened opened = opened_of(&rgb);
    FILE *file = fopen(in, "rb");
    pg_status status = PG_ERROR_IO;
    if (file && pixels && rgb.data && fread(rgb.data, 1, n, file) == n)
        status = pgi_big_vision_pixels(&pgi_memory_default, NULL, &settings, &opened, pixels);
    if (file) fclose(file);
    if (status >= 0 &&
        (!(file = fopen(out, "wb")) || fwrite(pixels, sizeof *pixels, n_out, file) != n_out || fclose(file) != 0))
        status = PG_ERROR_IO;
    free(rgb.data);
    free(pixels);
    return status;
}

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    pgi_tokenizer *tokenizer = NULL;
    if (strcmp(argv[1], "-") != 0 && pgi_tokenizer_open(&pgi_memory_default, argv[1], 0, NULL, &tokenizer) < 0) {
        printf("! %s\n", pgi_error_text());
        return 1;
    }
    char *line = NULL;
    size_t capacity = 0;
    for (ssize_t n; (n = getline(&line, &capacity, stdin)) > 1;) {
        line[n - 1] = 0;
        pg_status status = line[0] == 't' ? answer_text(tokenizer, line + 1) : answer_pixels(line + 1);
        if (status < 0) printf("! %s", pgi_error_text());
        printf("\n");
        fflush(stdout);
    }
    free(line);
    pgi_tokenizer_close(&tokenizer);
    return 0;
}
