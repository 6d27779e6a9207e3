/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What a file is that does not fit, by its first bytes. */
#include "checkpoint/diagnose_file.h"

#include <string.h>
#include <strings.h>

#include "base/file.h"

enum { HEAD = 512 };

int pgi_diagnose_helps(pg_status status) {
    return status == PG_ERROR_NOT_FOUND || status == PG_ERROR_FORMAT || status == PG_ERROR_UNSUPPORTED ||
           status == PG_ERROR_ARGUMENT;
}

typedef struct beginning {
    const char *bytes;
    size_t size;
    pg_status status;
    const char *what;
} beginning;

#define BEGINNING(text) text, sizeof text - 1
/* What may stand where any file should be. */
static const beginning other_files[] = {
    {BEGINNING("version https://git-lfs.github.com/spec/"), PG_ERROR_FORMAT,
     "a Git LFS pointer instead of the file; fetch the file with 'git lfs pull'"},
    {BEGINNING("version https://hawser.github.com/spec/"), PG_ERROR_FORMAT,
     "a Git LFS pointer instead of the file; fetch the file with 'git lfs pull'"},
    {BEGINNING("\xEF\xBB\xBF"), PG_ERROR_FORMAT, "a byte order mark at its beginning; save it as UTF-8 without one"},
    {BEGINNING("\xFF\xFE"), PG_ERROR_FORMAT, "UTF-16 text; save it as UTF-8 without a byte order mark"},
    {BEGINNING("\xFE\xFF"), PG_ERROR_FORMAT, "UTF-16 text; save it as UTF-8 without a byte order mark"},
    {BEGINNING("\x1F\x8B"), PG_ERROR_UNSUPPORTED, "a file packed by gzip; unpack it first"},
};
/* Weights of other formats. */
static const beginning other_weights[] = {
    {BEGINNING("GGUF"), PG_ERROR_UNSUPPORTED, "a GGUF file, expected safetensors; " PGI_DIAGNOSE_OPEN_ORIGINAL},
    {BEGINNING("PK\3\4"), PG_ERROR_UNSUPPORTED,
     "a ZIP archive (weights of torch.save() or numpy.savez()), expected safetensors; " PGI_DIAGNOSE_SAVE_AGAIN},
    {BEGINNING("\x80\2"), PG_ERROR_UNSUPPORTED, "pickled weights, expected safetensors; " PGI_DIAGNOSE_SAVE_AGAIN},
    {BEGINNING("\x93NUMPY"), PG_ERROR_UNSUPPORTED, "a NumPy array, expected safetensors; " PGI_DIAGNOSE_OPEN_ORIGINAL},
    {BEGINNING("\x89HDF\r\n"), PG_ERROR_UNSUPPORTED, "an HDF5 file, expected safetensors; " PGI_DIAGNOSE_SAVE_AGAIN},
};
#undef BEGINNING

static pg_status say_beginning(pg_status status, const char *path, const void *data, size_t size,
                               const beginning *table, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (size >= table[i].size && memcmp(data, table[i].bytes, table[i].size) == 0)
            return pgi_error(table[i].status, "%s: found %s", path, table[i].what);
    return status;
}

/* A page that a server sent in place of the file. */
static int is_html(const char *text, size_t size) {
    static const char *const tags[] = {"<!doctype html", "<html", "<head"};
    while (size > 0 && strchr(" \t\r\n", *text)) text++, size--;
    for (size_t i = 0; i < sizeof tags / sizeof *tags; i++)
        if (size >= strlen(tags[i]) && strncasecmp(text, tags[i], strlen(tags[i])) == 0) return 1;
    return 0;
}

int pgi_diagnose_ends_in(const char *name, const char *end) {
    size_t size = strlen(name), end_size = strlen(end);
    return size >= end_size && strcmp(name + size - end_size, end) == 0;
}

pg_status pgi_diagnose_other_file(pg_status status, const char *path, const void *data, size_t size) {
    if (!pgi_diagnose_helps(status) || size == 0) return status;
    if (is_html(data, size))
        return pgi_error(PG_ERROR_FORMAT,
                         "%s: found an HTML page instead of the file; fetch the file again (of huggingface.co the "
                         "address has /resolve/, not /blob/, and a gated model needs a login)",
                         path);
    return say_beginning(status, path, data, size, other_files, sizeof other_files / sizeof *other_files);
}

pg_status pgi_diagnose_bytes(pg_status status, const char *path, const void *data, size_t size) {
    if (!pgi_diagnose_helps(status) || size == 0) return status;
    if (pgi_diagnose_ends_in(path, ".npz") && size > 1 && memcmp(data, "PK", 2) == 0)
        return pgi_error(PG_ERROR_UNSUPPORTED,
                         "%s: found a big_vision checkpoint (.npz), expected safetensors; convert it with "
                         "transformers' convert_paligemma_weights_to_hf.py",
                         path);
    status = pgi_diagnose_other_file(status, path, data, size);
    return say_beginning(status, path, data, size, other_weights, sizeof other_weights / sizeof *other_weights);
}

pg_status pgi_diagnose_file(pg_status status, const char *path) {
    char head[HEAD];
    if (!pgi_diagnose_helps(status)) return status;
    return pgi_diagnose_bytes(status, path, head, pgi_file_head(path, head, sizeof head));
}
