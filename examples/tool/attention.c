/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Where the answer's tokens looked: one more pass over prompt and answer, and its attention as a heat map. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "draw.h"
#include "tool.h"

/* viridis of matplotlib, every 32nd of its 256 colors: as bright as the value, also to the color-blind and in grey. */
static const tool_color colors[] = {{68, 1, 84},    {71, 44, 122}, {59, 81, 139},  {44, 113, 142}, {33, 144, 141},
                                    {39, 173, 129}, {92, 200, 99}, {170, 220, 50}, {253, 231, 37}};
enum { N_STEPS = sizeof colors / sizeof *colors - 1 };

static tool_color color_of(float value) {
    const float at = fminf(fmaxf(value, 0), 1) * (float)N_STEPS;
    const int i = at < (float)N_STEPS ? (int)at : N_STEPS - 1;
    const float part = at - (float)i;
    const tool_color a = colors[i], b = colors[i + 1];
    return (tool_color){(unsigned char)((float)a.r + part * ((float)b.r - (float)a.r) + .5f),
                        (unsigned char)((float)a.g + part * ((float)b.g - (float)a.g) + .5f),
                        (unsigned char)((float)a.b + part * ((float)b.b - (float)a.b) + .5f)};
}

/* The value at x, y (0 to 1) of a map [side, side] whose values are the middles of its squares, bilinear. */
static float value_at(const float *map, int side, float x, float y) {
    const float last = (float)(side - 1);
    const float u = fminf(fmaxf(x * (float)side - .5f, 0), last), v = fminf(fmaxf(y * (float)side - .5f, 0), last);
    const int i = (int)u, j = (int)v, i1 = i + 1 < side ? i + 1 : i, j1 = j + 1 < side ? j + 1 : j;
    const float p = u - (float)i, q = v - (float)j;
    const float above = map[j * side + i] * (1 - p) + map[j * side + i1] * p;
    return above * (1 - q) + (map[j1 * side + i] * (1 - p) + map[j1 * side + i1] * p) * q;
}

void tool_draw_heat(tool_picture *picture, const float *map, int side) {
    float least = INFINITY, most = 0;
    for (int i = 0; i < side * side; i++) least = fminf(least, map[i]), most = fmaxf(most, map[i]);
    const float scale = most > least ? 1 / (most - least) : 0;
    for (int32_t y = 0; y < picture->height; y++)
        for (int32_t x = 0; x < picture->width; x++) {
            unsigned char *p = picture->rgb + 3 * ((size_t)y * (size_t)picture->width + (size_t)x);
            /* the image in grey: only the map has colors */
            const float grey = .299f * (float)p[0] + .587f * (float)p[1] + .114f * (float)p[2];
            const float value = (value_at(map, side, ((float)x + .5f) / (float)picture->width,
                                          ((float)y + .5f) / (float)picture->height) -
                                 least) *
                                scale;
            p[0] = p[1] = p[2] = (unsigned char)(grey + .5f);
            tool_draw_pixel(picture, x, y, color_of(value), .62f);
        }
}

/* ids and types of prompt and answer, one after the other: [1, n_prompt + n_new] each */
static pg_status join(const pg_inputs *inputs, const pg_tensor *new_ids, int64_t n_new, pg_inputs **out) {
    static const char *const names[] = {"input_ids", "attention_mask", "token_type_ids"};
    pg_tensor parts[3], pixels = {.struct_size = sizeof pixels};
    pg_input_arrays arrays;
    int64_t *joined = NULL;
    pg_status status = pg_inputs_get_tensor(inputs, "pixel_values", &pixels);
    for (int k = 0; k < 3 && status >= 0; k++) {
        parts[k] = (pg_tensor){.struct_size = sizeof parts[k]};
        status = pg_inputs_get_tensor(inputs, names[k], &parts[k]);
        if (status < 0) break;
        const int64_t n_prompt = parts[k].shape[1], n = n_prompt + n_new;
        if (!joined && !(joined = malloc((size_t)(3 * n) * sizeof *joined))) return PG_ERROR_MEMORY;
        int64_t *to = joined + k * n;
        memcpy(to, parts[k].data, (size_t)n_prompt * sizeof *to);
        for (int64_t i = 0; i < n_new; i++) to[n_prompt + i] = k > 0 ? 1 : ((const int64_t *)new_ids->data)[i];
        parts[k].data = to;
        parts[k].shape[1] = n;
    }
    if (status >= 0) status = pg_input_arrays_init(&arrays, sizeof arrays);
    if (status >= 0) {
        arrays.input_ids = &parts[0];
        arrays.attention_mask = &parts[1];
        arrays.token_type_ids = &parts[2];
        arrays.pixel_values = &pixels;
        status = pg_inputs_create(&arrays, out);
    }
    free(joined);
    return status;
}

/* The mean of the new tokens' rows of the tensor [1, 1, n_new, side * side]; NULL: no memory. */
static float *mean_of(const pg_tensor *rows) {
    const int64_t n = rows->shape[3];
    float *map = calloc((size_t)n, sizeof *map);
    for (int64_t i = 0; map && i < rows->shape[2] * n; i++)
        map[i % n] += ((const float *)rows->data)[i] / (float)rows->shape[2];
    return map;
}

pg_status tool_attention_map(const pg_model *model, const pg_inputs *inputs, const pg_result *result,
                             const pg_forward_options *options, float **map, int *side) {
    pg_forward_options asked = *options;
    pg_result_info info = {.struct_size = sizeof info};
    pg_tensor ids = {.struct_size = sizeof ids}, rows = {.struct_size = sizeof rows};
    pg_inputs *whole = NULL;
    pg_outputs *outputs = NULL;
    pg_status status = pg_result_get_info(result, 0, &info);
    if (status >= 0) status = pg_result_get_ids(result, 0, &ids);
    if (status < 0) return status;
    /* the token that ends the text is no part of it, unless there is nothing else */
    asked.attention_queries = ids.shape[0] - (info.stop == PG_STOP_EOS && ids.shape[0] > 1);
    asked.flags = PG_FORWARD_ATTENTIONS | PG_FORWARD_ATTENTION_HEAD_MEAN | PG_FORWARD_ATTENTION_LAYER_MEAN |
                  PG_FORWARD_ATTENTION_TO_IMAGE | PG_FORWARD_NO_LOGITS | PG_FORWARD_NO_LOSS;
    status = join(inputs, &ids, asked.attention_queries, &whole);
    if (status >= 0) status = pg_forward(model, whole, &asked, &outputs);
    if (status >= 0) status = pg_outputs_get_tensor(outputs, "attentions", &rows);
    if (status >= 0) {
        *side = (int)lround(sqrt((double)rows.shape[3]));
        *map = mean_of(&rows);
        if (!*map) status = PG_ERROR_MEMORY;
    }
    pg_outputs_close(&outputs);
    pg_inputs_close(&whole);
    return status;
}
