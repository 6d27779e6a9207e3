/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Writing and reading a state: the arrays go to the file and come from it without a second copy in memory. */
#include "train/state.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/atomic_folder.h"
#include "base/crc32.h"
#include "base/file.h"
#include "base/shape.h"
#include "checkpoint/json_field.h"
#include "checkpoint/json_number.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/tensor_header_text.h"

#define FORMAT "libpaligemma trainer"
#define STATE "trainer_state.safetensors"
#define VERSION "1"

enum { N_KINDS = 3, NAME_SIZE = sizeof((pgi_parameter *)0)->name + sizeof ".square" };

/* What the file has of each parameter, in its order. */
static const char *const kind_ends[N_KINDS] = {"", ".mean", ".square"};

static float *vector_of(const pgi_parameters *parameters, int kind) {
    return kind == 0 ? parameters->values : kind == 1 ? parameters->mean : parameters->square;
}

static void name_of(const pgi_parameter *parameter, int kind, char name[NAME_SIZE]) {
    const size_t n = strlen(parameter->name);
    memcpy(name, parameter->name, n);
    memcpy(name + n, kind_ends[kind], strlen(kind_ends[kind]) + 1);
}

static uint32_t crc32_of_text(uint32_t crc, const char *text) { return pgi_crc32(crc, text, strlen(text)); }

/* ------------------------------------------------------------------------------------------------------------ saving
 */

typedef struct writer {
    const pgi_memory *memory;
    const pgi_parameters *parameters;
    pgi_buffer options, header; /* options: adapter_config.json */
    pgi_file_part *parts;       /* [1 + N_KINDS n]: the header and what follows it */
    size_t n_parts;
} writer;

/* The arrays of the first n_kinds kinds, as parts of the file. */
static void add_parts(writer *w, int n_kinds) {
    const pgi_parameters *p = w->parameters;
    w->n_parts = 1;
    for (size_t i = 0; i < p->n; i++)
        for (int kind = 0; kind < n_kinds; kind++)
            w->parts[w->n_parts++] = (pgi_file_part){vector_of(p, kind) + p->list[i].at, p->list[i].n * sizeof(float)};
}

/* Their entries, behind the metadata, and the end of the header. */
static pg_status add_tensors(writer *w, int n_kinds) {
    const pgi_parameters *p = w->parameters;
    char name[NAME_SIZE];
    uint64_t at = 0;
    for (size_t i = 0; i < p->n; i++)
        for (int kind = 0; kind < n_kinds; kind++) {
            const uint64_t end = at + p->list[i].n * sizeof(float);
            name_of(&p->list[i], kind, name);
            PGI_TRY(pgi_header_text_tensor(&w->header, name, "F32", p->list[i].n_dims, p->list[i].shape, at, end));
            at = end;
        }
    PGI_TRY(pgi_buffer_append(&w->header, "}", 1));
    PGI_TRY(pgi_header_text_finish(&w->header));
    w->parts[0] = (pgi_file_part){w->header.data, w->header.size};
    return PG_OK;
}

static pg_status make_state(writer *w, int64_t step) {
    char step_text[24];
    const char *options = (const char *)w->options.data;
    uint32_t crc = 0;
    snprintf(step_text, sizeof step_text, "%" PRId64, step);
    add_parts(w, N_KINDS);
    for (size_t i = 1; i < w->n_parts; i++) crc = pgi_crc32(crc, w->parts[i].data, w->parts[i].size);
    crc = crc32_of_text(crc32_of_text(crc, step_text), options);
    PGI_TRY(pgi_header_text_begin(&w->header));
    PGI_TRY(pgi_buffer_printf(&w->header,
                              "{\"__metadata__\":{\"format\":\"" FORMAT "\",\"version\":\"" VERSION
                              "\",\"step\":\"%s\",\"crc32\":\"%08x\",\"options\":",
                              step_text, crc));
    const pgi_json text = pgi_json_of_text(options);
    PGI_TRY(pgi_json_dump(&text, &w->header));
    PGI_TRY(pgi_buffer_append(&w->header, "}", 1));
    return add_tensors(w, N_KINDS);
}

static pg_status make_adapter(writer *w) {
    static const char metadata[] = "{\"__metadata__\":{\"format\":\"pt\"}";
    add_parts(w, 1);
    PGI_TRY(pgi_header_text_begin(&w->header));
    PGI_TRY(pgi_buffer_append(&w->header, metadata, sizeof metadata - 1));
    return add_tensors(w, 1);
}

static pg_status write_file(const writer *w, const char *folder, const char *name, const pgi_file_part *parts,
                            size_t n) {
    char *path = pgi_path_join(w->memory, folder, name);
    if (!path) return PG_ERROR_MEMORY;
    const pg_status status = pgi_replace_file_of_parts(w->memory, path, parts, n);
    pgi_free(w->memory, path);
    return status;
}

static pg_status write_files(writer *w, const char *folder, int64_t step) {
    PGI_TRY(make_state(w, step));
    PGI_TRY(write_file(w, folder, STATE, w->parts, w->n_parts));
    PGI_TRY(make_adapter(w));
    PGI_TRY(write_file(w, folder, "adapter_model.safetensors", w->parts, w->n_parts));
    const pgi_file_part config = {w->options.data, w->options.size};
    return write_file(w, folder, "adapter_config.json", &config, 1);
}

pg_status pgi_train_save(const pgi_memory *memory, const char *folder, const pgi_train_config *config,
                         const pgi_parameters *parameters, int64_t step) {
    writer w = {.memory = memory, .parameters = parameters};
    int made = 0;
    pgi_buffer_init(&w.options, memory);
    pgi_buffer_init(&w.header, memory);
    w.parts = pgi_alloc(memory, 1 + N_KINDS * parameters->n, sizeof *w.parts);
    pg_status status = w.parts ? pgi_peft_config_write(config, &w.options) : PG_ERROR_MEMORY;
    if (status >= 0) status = pgi_folder_make(memory, folder, &made);
    if (status >= 0) status = write_files(&w, folder, step);
    if (status < 0 && made) pgi_folder_unmake(folder); /* when nothing came into it */
    pgi_free(memory, w.parts);
    pgi_buffer_free(&w.header);
    pgi_buffer_free(&w.options);
    return status;
}

/* ----------------------------------------------------------------------------------------------------------- loading
 */

typedef struct reader {
    const pgi_memory *memory;
    const pgi_run *run;
    const pgi_train_config *config;
    pgi_tensor_files *files;
    const char *path;
    pgi_parameters *parameters;
    int64_t step;
    const char *step_text, *options;
    uint32_t crc32; /* as the metadata says */
} reader;

static int read_hex(const char *text, uint32_t *out) {
    *out = 0;
    for (int i = 0; i < 8; i++) {
        const char c = text[i];
        const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (digit < 0) return 0;
        *out = *out << 4 | (uint32_t)digit;
    }
    return text[8] == 0;
}

static int read_step(const char *text, int64_t *out) {
    const size_t n = strlen(text);
    if (n == 0 || n > 19 || strspn(text, "0123456789") != n || (n > 1 && text[0] == '0')) return 0;
    return pgi_number_read_integer((const uint8_t *)text, n, out);
}

static pg_status read_metadata(reader *r) {
    const pgi_json_section from = {r->path, "__metadata__: ", pgi_tensor_files_file(r->files, 0).metadata};
    const char *format = pgi_json_field_text(&from, "format"), *version = pgi_json_field_text(&from, "version");
    const char *crc = pgi_json_field_text(&from, "crc32");
    if (!format || strcmp(format, FORMAT) != 0)
        return pgi_json_field_wrong(&from, PG_ERROR_FORMAT, "format", "\"" FORMAT "\": what pg_trainer_save() wrote");
    if (!version || strcmp(version, VERSION) != 0)
        return pgi_json_field_wrong(&from, PG_ERROR_UNSUPPORTED, "version",
                                    "\"" VERSION "\": go on with the version of the library that saved it");
    r->step_text = pgi_json_field_text(&from, "step");
    if (!r->step_text || !read_step(r->step_text, &r->step))
        return pgi_json_field_wrong(&from, PG_ERROR_FORMAT, "step", "a number of updates as text");
    r->options = pgi_json_field_text(&from, "options");
    if (!r->options) return pgi_json_field_wrong(&from, PG_ERROR_FORMAT, "options", "adapter_config.json as text");
    if (!crc || !read_hex(crc, &r->crc32))
        return pgi_json_field_wrong(&from, PG_ERROR_FORMAT, "crc32", "a checksum of 8 hexadecimal digits");
    return PG_OK;
}

/* The tensor of a parameter, which must have its shape. */
static pg_status find_tensor(const reader *r, const pgi_parameter *parameter, int kind, pgi_stored_tensor **out) {
    char name[NAME_SIZE], found[PGI_SHAPE_TEXT], expected[PGI_SHAPE_TEXT];
    name_of(parameter, kind, name);
    pgi_stored_tensor *tensor = *out = pgi_tensor_files_find(r->files, name);
    if (!tensor && kind == 0)
        return pgi_error(PG_ERROR_ARGUMENT,
                         "%s: tensor %s: found none, expected it, as these options train it: give those that the "
                         "state was saved with",
                         r->path, name);
    if (!tensor)
        return pgi_error(PG_ERROR_FORMAT, "%s: tensor %s: found none, expected it beside %s", r->path, name,
                         parameter->name);
    if (tensor->dtype != PG_DTYPE_F32)
        return pgi_error(PG_ERROR_FORMAT, "%s: tensor %s: found dtype %.20s, expected F32", r->path, name,
                         tensor->dtype_name);
    if (pgi_stored_tensor_has_shape(tensor, parameter->n_dims, parameter->shape)) return PG_OK;
    return pgi_error(
        kind == 0 ? PG_ERROR_ARGUMENT : PG_ERROR_FORMAT, "%s: tensor %s: found shape %s, expected %s, as %s", r->path,
        name, pgi_shape_text(tensor->n_dims, tensor->shape, ", ", found),
        pgi_shape_text(parameter->n_dims, parameter->shape, ", ", expected),
        kind == 0 ? "the model and these options say: give those that the state was saved with" : "its parameter has");
}

/* All that the parameters want is there, and nothing else. */
static pg_status check_names(const reader *r) {
    const pgi_parameters *p = r->parameters;
    pgi_stored_tensor *tensor;
    for (size_t i = 0; i < p->n; i++)
        for (int kind = 0; kind < N_KINDS; kind++) {
            PGI_TRY(find_tensor(r, &p->list[i], kind, &tensor));
            tensor->used = 1;
        }
    for (size_t i = 0; i < pgi_tensor_files_count(r->files); i++) {
        tensor = pgi_tensor_files_at(r->files, i);
        if (!tensor->used)
            return pgi_error(PG_ERROR_ARGUMENT,
                             "%s: tensor %s: found a parameter that these options do not train, expected none: give "
                             "the options that the state was saved with",
                             r->path, tensor->name);
    }
    return PG_OK;
}

/* What alpha or rslora say changes what A and B mean: with others they would be another adapter. */
static pg_status compare_options(const reader *r, const pgi_json *options) {
    const pgi_json_section from = {r->path, "__metadata__: options: ", options};
    const double alpha = r->config->alpha;
    char expected[160], text[PGI_NUMBER_TEXT];
    int32_t rslora;
    if (!pgi_json_is_number(pgi_json_field(&from, "lora_alpha")))
        return pgi_json_field_wrong(&from, PG_ERROR_FORMAT, "lora_alpha", "a number");
    PGI_TRY(pgi_json_field_bool(&from, "use_rslora", &rslora));
    if (pgi_json_number(pgi_json_field(&from, "lora_alpha")) != alpha) {
        snprintf(expected, sizeof expected,
                 "%s, the alpha of these options: give the one that the state was saved with",
                 pgi_number_write(alpha, 1, 17, text));
        return pgi_json_field_wrong(&from, PG_ERROR_ARGUMENT, "lora_alpha", expected);
    }
    if (rslora == r->config->rslora) return PG_OK;
    return pgi_json_field_wrong(&from, PG_ERROR_ARGUMENT, "use_rslora",
                                rslora ? "false, as these options are without PG_TRAIN_RSLORA: give it, as when the "
                                         "state was saved"
                                       : "true, as these options have PG_TRAIN_RSLORA: leave it away, as when the "
                                         "state was saved");
}

static pg_status check_options(const reader *r) {
    pgi_json_doc doc;
    const pgi_json *options;
    if (r->config->rank == 0) return PG_OK; /* no module has LoRA */
    pgi_json_doc_init(&doc, r->memory);
    pg_status status = pgi_json_parse(&doc, r->path, r->options, strlen(r->options), PGI_JSON_STRICT, &options);
    if (status >= 0) status = compare_options(r, options);
    pgi_json_doc_free(&doc);
    return status;
}

/* Mean squares are not below 0, or their roots would be NaN. */
static pg_status check_values(const pgi_stored_tensor *tensor, int kind, const float *values, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!isfinite(values[i]) || (kind == 2 && values[i] < 0))
            return pgi_error(PG_ERROR_FORMAT, "%s: tensor %s: value %zu is %g, expected a finite number%s",
                             tensor->file, tensor->name, i, (double)values[i], kind == 2 ? " of 0 or more" : "");
    return PG_OK;
}

static pg_status read_values(const reader *r, const pgi_stored_tensor *tensor, float *out) {
    enum { PART = 16 << 20 }; /* some 5 ms */
    for (size_t at = 0; at < tensor->n_bytes; at += PART) {
        const size_t left = tensor->n_bytes - at;
        PGI_TRY(pgi_cancel_check(r->run->cancel));
        PGI_TRY(pgi_tensor_files_read(r->files, tensor, at, left < PART ? left : PART, (uint8_t *)out + at));
    }
    return PG_OK;
}

static pg_status read_all(const reader *r) {
    const pgi_parameters *p = r->parameters;
    uint32_t crc = 0;
    for (size_t i = 0; i < p->n; i++)
        for (int kind = 0; kind < N_KINDS; kind++) {
            float *values = vector_of(p, kind) + p->list[i].at;
            pgi_stored_tensor *tensor;
            PGI_TRY(find_tensor(r, &p->list[i], kind, &tensor));
            PGI_TRY(read_values(r, tensor, values));
            PGI_TRY(check_values(tensor, kind, values, p->list[i].n));
            crc = pgi_crc32(crc, values, p->list[i].n * sizeof *values);
        }
    crc = crc32_of_text(crc32_of_text(crc, r->step_text), r->options);
    if (crc == r->crc32) return PG_OK;
    return pgi_error(
        PG_ERROR_FORMAT,
        "%s: found the checksum %08x, expected %08x, as when it was saved: the file is damaged, go on from "
        "another state",
        r->path, crc, r->crc32);
}

static pg_status read_state(reader *r) {
    r->path = pgi_tensor_files_file(r->files, 0).path;
    PGI_TRY(read_metadata(r));
    PGI_TRY(check_names(r));
    PGI_TRY(check_options(r));
    return read_all(r);
}

pg_status pgi_train_load(const pgi_memory *memory, const pgi_run *run, const char *folder,
                         const pgi_train_config *config, pgi_parameters *parameters, int64_t *step) {
    reader r = {.memory = memory, .run = run, .config = config, .parameters = parameters};
    pg_status status = pgi_tensor_files_open_file(memory, folder, STATE, run->cancel, &r.files);
    if (status == PG_ERROR_NOT_FOUND)
        status = pgi_error_context(status, "found no state of a training, expected a folder of pg_trainer_save()");
    if (status >= 0) status = read_state(&r);
    if (status >= 0) *step = r.step;
    pgi_tensor_files_close(&r.files);
    return status;
}
