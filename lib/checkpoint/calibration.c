/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Sums of a calibration, and what they say about rounding. GPTQ (arXiv 2210.17323): with H = sum of x x^T, damped, and
 * U the upper Cholesky factor of the inverse of H, what rounding column c leaves over goes to each column k > c times
 * U[c][k] / U[c][c]. The damping is 1% of the mean of H's diagonal.
 */
#include "checkpoint/calibration.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "base/atomic_folder.h"
#include "base/crc32.h"
#include "base/file.h"
#include "base/parallel.h"

enum { N = PGI_FEEDBACK_COLUMNS, BLOCK = N * N };

/* ------------------------------------------------------------------------------------------------------------ sites */

enum { PER_VISION_LAYER = 4, PER_TEXT_LAYER = 4 }; /* in, out, MLP in, MLP out */

/* Patches, encoder, projector, decoder. */
static int32_t site_index(const pg_calibration *calibration, const pgi_matrix_role *role) {
    static const int32_t of_kind[] = {
        [PGI_KIND_Q] = 0,    [PGI_KIND_K] = 0,  [PGI_KIND_V] = 0,   [PGI_KIND_OUT] = 1, [PGI_KIND_FC1] = 2,
        [PGI_KIND_GATE] = 2, [PGI_KIND_UP] = 2, [PGI_KIND_FC2] = 3, [PGI_KIND_DOWN] = 3};
    const int32_t projector = 1 + PER_VISION_LAYER * calibration->n_vision_layers;
    switch (role->part) {
        case PGI_PART_PATCHES: return 0;
        case PGI_PART_ENCODER: return 1 + PER_VISION_LAYER * role->layer + of_kind[role->kind];
        case PGI_PART_PROJECTOR: return projector;
        case PGI_PART_DECODER: return projector + 1 + PER_TEXT_LAYER * role->layer + of_kind[role->kind];
        default: return -1;
    }
}

const pgi_calibration_site *pgi_calibration_site_of(const pg_calibration *calibration, const pgi_matrix_role *role) {
    const int32_t i = site_index(calibration, role);
    return i < 0 ? NULL : &calibration->sites[i];
}

/* The first matrix of a site is the one that is watched: k of q, k and v, since the last layer asks q of some tokens.
 */
static pg_status add_site(void *context, const pgi_matrix_role *role, pgi_matrix *matrix) {
    pg_calibration *calibration = context;
    const int32_t i = site_index(calibration, role);
    if (i < 0) return PG_OK;
    pgi_calibration_site *site = &calibration->sites[i];
    if (site->linear && role->kind != PGI_KIND_K) return PG_OK;
    /* every matrix that is visited but the embedding is the weight of a pgi_linear */
    site->linear = (const pgi_linear *)(const void *)((const char *)matrix - offsetof(pgi_linear, weight));
    site->columns = matrix->columns;
    return PG_OK;
}

pg_status pgi_calibration_new(const pgi_memory *memory, const pgi_weights *weights, const pgi_config *config,
                              pg_calibration **out) {
    pg_calibration *made = pgi_alloc_zero(memory, 1, sizeof *made);
    *out = NULL;
    if (!made) return PG_ERROR_MEMORY;
    made->memory = *memory;
    made->n_vision_layers = config->vision.n_layers;
    made->n_sites = 2 + PER_VISION_LAYER * config->vision.n_layers + PER_TEXT_LAYER * config->text.n_layers;
    made->sites = pgi_alloc_zero(memory, (size_t)made->n_sites, sizeof *made->sites);
    pg_status status = made->sites ? pgi_weights_each_matrix((pgi_weights *)(uintptr_t)weights, config, add_site, made)
                                   : PG_ERROR_MEMORY;
    for (int32_t i = 0; i < made->n_sites && status >= 0; i++)
        made->n_blocks += (size_t)pgi_calibration_blocks(&made->sites[i]);
    if (status >= 0 && !(made->sums = pgi_alloc_zero(memory, made->n_blocks, BLOCK * sizeof(float))))
        status = PG_ERROR_MEMORY;
    if (status < 0) {
        pgi_calibration_free(made);
        return status;
    }
    float *sums = made->sums;
    for (int32_t i = 0; i < made->n_sites; i++) {
        made->sites[i].sums = sums;
        sums += pgi_calibration_blocks(&made->sites[i]) * BLOCK;
    }
    *out = made;
    return PG_OK;
}

void pgi_calibration_free(pg_calibration *calibration) {
    if (!calibration) return;
    pgi_memory memory = calibration->memory;
    pgi_free(&memory, calibration->sums);
    pgi_free(&memory, calibration->sites);
    pgi_free(&memory, calibration);
}

/* --------------------------------------------------------------------------------------------------------- identity */

enum { N_SAMPLES = 4, SAMPLE_BYTES = 256 };

typedef struct sampling {
    const pgi_tensor_files *files;
    uint64_t hash; /* FNV-1a */
} sampling;

static void add_bytes(sampling *s, const void *data, size_t size) {
    const uint8_t *bytes = data;
    for (size_t i = 0; i < size; i++) s->hash = (s->hash ^ bytes[i]) * UINT64_C(0x100000001b3);
}

static pg_status sample(void *context, const pgi_matrix_role *role, pgi_matrix *matrix) {
    sampling *s = context;
    const pgi_stored_tensor *tensor = matrix->tensor;
    const int64_t sizes[] = {role->part, role->layer, role->kind, matrix->dtype, matrix->rows, matrix->columns};
    add_bytes(s, sizes, sizeof sizes);
    const size_t n = tensor->n_bytes < SAMPLE_BYTES ? tensor->n_bytes : SAMPLE_BYTES;
    for (size_t i = 0; i < N_SAMPLES; i++) {
        uint8_t bytes[SAMPLE_BYTES];
        PGI_TRY(pgi_tensor_files_read(s->files, tensor, (tensor->n_bytes - n) / (N_SAMPLES - 1) * i, n, bytes));
        add_bytes(s, bytes, n);
    }
    return PG_OK;
}

pg_status pgi_calibration_identity(pgi_weights *weights, const pgi_config *config, const pgi_tensor_files *files,
                                   uint64_t *out) {
    sampling s = {files, UINT64_C(0xcbf29ce484222325)};
    PGI_TRY(pgi_weights_each_matrix(weights, config, sample, &s));
    *out = s.hash;
    return PG_OK;
}

/* ---------------------------------------------------------------------------------------------------------- factors */

/* The lower Cholesky factor of a [n, n], in place; what lies above the diagonal is left. 0: a is not positive. */
static int cholesky(double *a, int n) {
    for (int j = 0; j < n; j++) {
        for (int i = j; i < n; i++) {
            double sum = a[i * N + j];
            for (int k = 0; k < j; k++) sum -= a[i * N + k] * a[j * N + k];
            if (i > j)
                a[i * N + j] = sum / a[j * N + j];
            else if (sum > 0)
                a[j * N + j] = sqrt(sum);
            else
                return 0;
        }
    }
    return 1;
}

/* The inverse of a lower triangle, in place. */
static void invert_lower(double *l, int n) {
    for (int j = 0; j < n; j++) {
        l[j * N + j] = 1 / l[j * N + j];
        for (int i = j + 1; i < n; i++) {
            double sum = 0;
            for (int k = j; k < i; k++) sum -= l[i * N + k] * l[k * N + j];
            l[i * N + j] = sum / l[i * N + i];
        }
    }
}

/* U of a block from its sums; a: room for BLOCK doubles. With columns and rows in reverse order H = L L^T gives
 * inverse(H) = inverse(L)^T inverse(L), and inverse(L), put back in order, is U. */
static void block_factors(const float *sums, int n, double *a, float *out) {
    double mean = 0;
    for (int i = 0; i < n; i++) mean += (double)sums[i * N + i] / n;
    for (double damping = 0.01;; damping *= 10) {
        for (int i = 0; i < n; i++)
            for (int j = 0; j <= i; j++) a[i * N + j] = (double)sums[(n - 1 - i) * N + (n - 1 - j)];
        for (int i = 0; i < n; i++) a[i * N + i] += damping * mean;
        for (int i = 0; i < n; i++) /* an input that is always zero */
            if (!(a[i * N + i] > 0)) a[i * N + i] = 1;
        if (cholesky(a, n)) break;
        if (damping > 1e6) { /* no numbers: rounding as without feedback */
            memset(out, 0, BLOCK * sizeof *out);
            return;
        }
    }
    invert_lower(a, n);
    memset(out, 0, BLOCK * sizeof *out);
    for (int c = 0; c < n; c++)
        for (int k = c; k < n; k++)
            out[c * N + k] = (float)(a[(n - 1 - c) * N + (n - 1 - k)] / a[(n - 1 - c) * N + (n - 1 - c)]);
}

typedef struct factors_task {
    const pgi_calibration_site *site;
    double *scratch; /* [n_threads][BLOCK] */
    float *out;
} factors_task;

static void make_factors(void *context, int64_t begin, int64_t end, int thread) {
    const factors_task *task = context;
    for (int64_t b = begin; b < end; b++) {
        const int64_t n = task->site->columns - b * N;
        block_factors(task->site->sums + b * BLOCK, (int)(n < N ? n : N), task->scratch + (int64_t)thread * BLOCK,
                      task->out + b * BLOCK);
    }
}

pg_status pgi_calibration_factors(const pgi_memory *memory, const pgi_run *run, const pgi_calibration_site *site,
                                  float *out) {
    factors_task task = {site, pgi_alloc(memory, (size_t)run->n_threads, BLOCK * sizeof(double)), out};
    if (!task.scratch) return PG_ERROR_MEMORY;
    pg_status status = pgi_parallel_for(run, pgi_calibration_blocks(site), 1, make_factors, &task);
    pgi_free(memory, task.scratch);
    return status;
}

/* ------------------------------------------------------------------------------------------------------------- file */

/* The beginning of a file; numbers in the machine's order, which `order` tells. */
typedef struct file_header {
    char magic[8];
    uint32_t order, version;
    uint64_t identity, tag, n_blocks;
    int64_t n_rows;
    uint32_t sums_crc32, crc32; /* of the sums; of this header, itself taken as 0 */
} file_header;
static const char magic[8] = "pgcalib";
enum { ORDER = 0x01020304, VERSION = 1 };
_Static_assert(sizeof(file_header) == 56, "no padding in a file");

static uint32_t header_crc32(file_header header) {
    header.crc32 = 0;
    return pgi_crc32(0, &header, sizeof header);
}

static size_t sums_bytes(const pg_calibration *calibration) { return calibration->n_blocks * BLOCK * sizeof(float); }

pg_status pgi_calibration_save(const pg_calibration *calibration, const char *path, uint64_t tag) {
    file_header header = {.order = ORDER,
                          .version = VERSION,
                          .identity = calibration->identity,
                          .tag = tag,
                          .n_blocks = calibration->n_blocks,
                          .n_rows = calibration->n_rows,
                          .sums_crc32 = pgi_crc32(0, calibration->sums, sums_bytes(calibration))};
    memcpy(header.magic, magic, sizeof magic);
    header.crc32 = header_crc32(header);
    pgi_buffer head;
    pgi_buffer_init(&head, &calibration->memory);
    pg_status status = pgi_buffer_append(&head, &header, sizeof header);
    if (status >= 0)
        status = pgi_replace_file(&calibration->memory, path, &head, calibration->sums, sums_bytes(calibration));
    pgi_buffer_free(&head);
    return status;
}

static pg_status check_header(const pg_calibration *calibration, const char *path, uint64_t size, uint64_t tag,
                              const file_header *header) {
    if (memcmp(header->magic, magic, sizeof magic) != 0 || header->order != ORDER || header->version != VERSION ||
        header_crc32(*header) != header->crc32)
        return pgi_error(PG_ERROR_FORMAT,
                         "%s: found no sums of a calibration, expected what was saved here before: "
                         "remove it to begin anew",
                         path);
    if (header->identity != calibration->identity || header->n_blocks != calibration->n_blocks)
        return pgi_error(PG_ERROR_ARGUMENT, "%s: found the calibration of another model: remove it to begin anew",
                         path);
    if (header->tag != tag)
        return pgi_error(PG_ERROR_ARGUMENT,
                         "%s: found a calibration with the tag %llx, expected %llx: it is of other images and prompts, "
                         "remove it to begin anew",
                         path, (unsigned long long)header->tag, (unsigned long long)tag);
    if (header->n_rows < 0 || header->n_rows > INT64_MAX / 2)
        return pgi_error(PG_ERROR_FORMAT, "%s: found %lld rows, expected 0 to %lld: remove it to begin anew", path,
                         (long long)header->n_rows, (long long)(INT64_MAX / 2));
    if (size != sizeof *header + sums_bytes(calibration))
        return pgi_error(PG_ERROR_FORMAT, "%s: found %llu bytes, expected %llu: the end is missing", path,
                         (unsigned long long)size, (unsigned long long)(sizeof *header + sums_bytes(calibration)));
    return PG_OK;
}

static pg_status read_file(pg_calibration *calibration, const pgi_file *file, const char *path, uint64_t tag) {
    file_header header = {0};
    PGI_TRY(pgi_file_read_at(file, 0, file->size < sizeof header ? file->size : sizeof header, &header));
    PGI_TRY(check_header(calibration, path, file->size, tag, &header));
    PGI_TRY(pgi_file_read_at(file, sizeof header, sums_bytes(calibration), calibration->sums));
    if (pgi_crc32(0, calibration->sums, sums_bytes(calibration)) != header.sums_crc32)
        return pgi_error(PG_ERROR_FORMAT,
                         "%s: found sums with another checksum than when they were saved: remove it to "
                         "begin anew",
                         path);
    calibration->n_rows = header.n_rows;
    return PG_OK;
}

pg_status pgi_calibration_load(pg_calibration *calibration, const char *path, uint64_t tag) {
    pgi_file file;
    PGI_TRY(pgi_file_open(path, &file));
    pg_status status = read_file(calibration, &file, path, tag);
    pgi_file_close(&file);
    return status;
}
