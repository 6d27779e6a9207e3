/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Rows of jobs go into one call of the library, so that they share the reading of the weights; its rows come out as
 * answers. */
#include "batch_run.h"

#include <stdlib.h>
#include <string.h>

#include "objects.h"

enum { DETECT_TOKENS = 256 /* as 'paligemma detect' has it */ };

size_t tool_batch_rows(const pg_model *model) {
    const uint64_t most = UINT64_C(4) << 30;
    pg_memory memory = {.struct_size = sizeof memory};
    pg_model_info info = {.struct_size = sizeof info};
    int64_t width = 0;
    size_t n = TOOL_BATCH_ROWS;
    if (pg_model_get_memory(model, &memory) < 0 || pg_model_get_info(model, &info) < 0 ||
        pg_model_get_config_int(model, "text_config.hidden_size", &width) < 0)
        return 1;
    /* its features are here three times: the image's, the batch's, and while these are made */
    const uint64_t features = (uint64_t)info.n_image_tokens * (uint64_t)width * sizeof(float);
    while (n > 1 && n * (memory.kv_cache + 3 * features) > most) n /= 2;
    return n;
}

/* ---- features ---- */

static pg_status make_features(const tool_batch_runner *b, tool_shared_image *image) {
    pg_run_options options;
    if (image->features) return PG_OK;
    pg_run_options_init(&options, sizeof options);
    options.n_threads = b->n_threads;
    options.progress = b->progress;
    options.progress_user = b->progress_user;
    const pg_status status = pg_features_create(b->model, image->pixels, &options, &image->features);
    if (status >= 0) pg_inputs_close(&image->pixels);
    return status;
}

/* The features of n jobs, one after the other. */
static pg_status join_features(const tool_batch_runner *b, tool_work *const *works, size_t n, pg_features **out) {
    pg_tensor one = {.struct_size = sizeof one};
    pg_status status = pg_features_get_tensor(works[0]->image->features, &one);
    if (status < 0) return status;
    const size_t size = (size_t)(one.shape[0] * one.shape[1] * one.shape[2]);
    float *all = malloc(n * size * sizeof *all);
    if (!all) return PG_ERROR_MEMORY;
    for (size_t i = 0; i < n && status >= 0; i++) {
        status = pg_features_get_tensor(works[i]->image->features, &one);
        if (status >= 0) memcpy(all + i * size, one.data, size * sizeof *all);
    }
    one.shape[0] = (int64_t)n;
    one.data = all;
    if (status >= 0) status = pg_features_from_tensor(b->model, &one, out);
    free(all);
    return status;
}

/* *joined: closed by the caller; NULL: `out` belongs to the image that all of them have. */
static pg_status features_of(const tool_batch_runner *b, tool_work *const *works, size_t n, pg_features **joined,
                             const pg_features **out) {
    int is_one = 1;
    pg_status status = PG_OK;
    for (size_t i = 0; i < n && status >= 0; i++) {
        status = make_features(b, works[i]->image);
        is_one = is_one && works[i]->image == works[0]->image;
    }
    if (status >= 0 && !is_one) status = join_features(b, works, n, joined);
    *out = is_one ? works[0]->image->features : *joined;
    return status;
}

/* ---- prompts ---- */

static pg_tensor matrix(int64_t *data, size_t n_rows, int64_t n_tokens) {
    return (pg_tensor){.struct_size = sizeof(pg_tensor),
                       .dtype = PG_DTYPE_I64,
                       .n_dims = 2,
                       .shape = {(int64_t)n_rows, n_tokens, 1, 1},
                       .data = data};
}

/* Puts a job's prompt at the end of a row of n_tokens, which is 0 so far. */
static pg_status put_prompt(const tool_work *work, int64_t n_tokens, int64_t *ids, int64_t *mask) {
    pg_tensor prompt = {.struct_size = sizeof prompt};
    pg_row_info info = {.struct_size = sizeof info};
    pg_status status = pg_inputs_get_tensor(work->prompt, "input_ids", &prompt);
    if (status >= 0) status = pg_inputs_get_row_info(work->prompt, 0, &info);
    if (status < 0) return status;
    const int64_t at = n_tokens - info.n_tokens;
    memcpy(ids + at, (const int64_t *)prompt.data + info.first_token, (size_t)info.n_tokens * sizeof *ids);
    for (int64_t i = at; i < n_tokens; i++) mask[i] = 1;
    return PG_OK;
}

/* The prompts of n jobs as rows with padding on the left. */
static pg_status join_prompts(tool_work *const *works, size_t n, pg_inputs **out) {
    int64_t n_tokens = 1; /* no array is empty */
    for (size_t i = 0; i < n; i++)
        if (works[i]->n_tokens > n_tokens) n_tokens = works[i]->n_tokens;
    int64_t *all = calloc(3 * n * (size_t)n_tokens, sizeof *all);
    if (!all) return PG_ERROR_MEMORY;
    int64_t *ids = all, *mask = ids + (int64_t)n * n_tokens, *types = mask + (int64_t)n * n_tokens;
    pg_status status = PG_OK;
    for (size_t i = 0; i < n && status >= 0; i++)
        status = put_prompt(works[i], n_tokens, ids + (int64_t)i * n_tokens, mask + (int64_t)i * n_tokens);
    const pg_tensor id_tensor = matrix(ids, n, n_tokens), mask_tensor = matrix(mask, n, n_tokens),
                    type_tensor = matrix(types, n, n_tokens);
    pg_input_arrays arrays;
    pg_input_arrays_init(&arrays, sizeof arrays);
    arrays.input_ids = &id_tensor;
    arrays.attention_mask = &mask_tensor;
    arrays.token_type_ids = &type_tensor;
    if (status >= 0) status = pg_inputs_create(&arrays, out);
    free(all);
    return status;
}

/* ---- answers ---- */

static pg_status detect(const tool_batch_runner *b, const pg_result *result, int64_t row, tool_work *work) {
    pg_answer *answer = NULL;
    pg_answer_options options = b->answer;
    options.width = work->image->width;
    options.height = work->image->height;
    const pg_status status = pg_answer_create(b->processor, result, row, &options, &answer);
    if (status >= 0) json_object_update_new(work->answer, tool_answer_to_json(answer, &options, NULL, NULL));
    pg_answer_close(&answer);
    return status;
}

/* sizes: of each row's text, which may have bytes 0. */
static pg_status answer(const tool_batch_runner *b, const pg_result *result, const size_t *sizes, int64_t row,
                        tool_work *work) {
    pg_tensor ids = {.struct_size = sizeof ids};
    pg_result_info info = {.struct_size = sizeof info};
    pg_status status = pg_result_get_ids(result, row, &ids);
    if (status >= 0) status = pg_result_get_info(result, row, &info);
    if (status < 0) return status;
    work->answer = json_pack("{s:o, s:o, s:s}", "text", json_stringn(pg_result_get_text(result, row), sizes[row]),
                             "ids", tool_ids_to_json(&ids), "stop", tool_stop_name(info.stop));
    if (!work->answer) return PG_ERROR_MEMORY;
    return work->job.task == TOOL_TASK_DETECT ? detect(b, result, row, work) : PG_OK;
}

/* ---- a call ---- */

static int32_t on_text(void *user, int64_t row, const char *text, size_t size, int64_t token) {
    size_t *sizes = user;
    (void)text;
    (void)token;
    sizes[row] += size;
    return 0;
}

static int64_t most_tokens(const tool_batch_runner *b, const tool_job *job) {
    if (job->most_tokens) return job->most_tokens;
    return b->max_new_tokens || job->task != TOOL_TASK_DETECT ? b->max_new_tokens : DETECT_TOKENS;
}

static pg_status generate(const tool_batch_runner *b, tool_work *const *works, size_t n, size_t *sizes,
                          pg_result **out) {
    pg_generate_options options;
    tool_sampling_options sampling;
    pg_features *joined = NULL;
    pg_inputs *prompts = NULL;
    pg_generate_options_init(&options, sizeof options);
    pg_status status = tool_sampling_apply(&b->sampling, b->model, &sampling, &options);
    if (status >= 0) status = join_prompts(works, n, &prompts);
    if (status >= 0) status = features_of(b, works, n, &joined, &options.features);
    options.max_new_tokens = (int32_t)most_tokens(b, &works[0]->job);
    options.max_context = b->max_context;
    options.n_threads = b->n_threads;
    options.on_text = on_text;
    options.on_text_user = sizes;
    options.progress = b->progress;
    options.progress_user = b->progress_user;
    if (works[0]->job.task == TOOL_TASK_DETECT) options.flags |= PG_GENERATE_LOG_PROBS; /* the scores of boxes */
    if (status >= 0) status = pg_generate(b->model, b->processor, prompts, &options, out);
    pg_features_close(&joined);
    pg_inputs_close(&prompts);
    return status;
}

static pg_status run_together(const tool_batch_runner *b, tool_work *const *works, size_t n) {
    pg_result *result = NULL;
    size_t *sizes = calloc(n, sizeof *sizes);
    pg_status status = sizes ? generate(b, works, n, sizes, &result) : PG_ERROR_MEMORY;
    for (size_t i = 0; i < n && status >= 0; i++) status = answer(b, result, sizes, (int64_t)i, works[i]);
    pg_result_close(&result);
    free(sizes);
    return status;
}

/* An error that says something of the job, and nothing of the others. */
static int is_of_job(pg_status status) { return status == PG_ERROR_ARGUMENT || status == PG_ERROR_LIMIT; }

pg_status tool_batch_run(const tool_batch_runner *b, tool_work *const *works, size_t n) {
    pg_status status = run_together(b, works, n);
    if (!is_of_job(status)) return status;
    for (size_t i = 0; i < n; i++) {
        json_decref(works[i]->answer);
        works[i]->answer = NULL;
    }
    if (n == 1) {
        works[0]->job.error = tool_job_error();
        return PG_OK;
    }
    status = PG_OK; /* each by itself: the others are not to suffer from it */
    for (size_t i = 0; i < n && status >= 0; i++) status = tool_batch_run(b, works + i, 1);
    return status;
}
