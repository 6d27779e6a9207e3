/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * What the fuzz targets share. A target is one function, which gives its bytes to the library in one way and looks at
 * what comes back: a status, a message of one line when it is an error, no handle then, nothing kept in the end. What
 * is wrong ends the process with abort(), which is what libFuzzer and the replay driver look for.
 */
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

#include <stdlib.h>
#include <string.h>

#include "support.h"
#include "tiny.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Folders that are made when they are first asked for, and removed at the end of the process. */
typedef enum fuzz_folder_kind {
    FUZZ_OFFICIAL, /* tokenizer.model, one file of weights */
    FUZZ_TODAY,    /* tokenizer.json, three files and their index */
    FUZZ_COLPALI,  /* tokenizer.model, with a projection for retrieval */
    FUZZ_INT8,     /* the first one, converted */
    FUZZ_INT4,     /* the second one, converted, in several files */
    FUZZ_MIX,      /* the first one, converted to int4 with embedding and attention in int8 */
    FUZZ_N_FOLDERS
} fuzz_folder_kind;
const char *fuzz_folder(fuzz_folder_kind kind);
const pg_model *fuzz_model(fuzz_folder_kind kind); /* of the folder as it was made; open until the process ends */
const pg_processor *fuzz_processor(fuzz_folder_kind kind);
const pg_inputs *fuzz_inputs(fuzz_folder_kind kind); /* an image and a prompt */

/* The allocator to give to the library: it refuses more than 64 MiB at once. */
const pg_allocator *fuzz_allocator(void);
/* The end of a target: aborts unless everything that came from it is back. Always returns 0. */
int fuzz_end(void);

/* 1 for success; 0 for an error that is as errors have to be; aborts for another. */
int fuzz_ok(const char *call, pg_status status);
int fuzz_made(const char *call, pg_status status, const void *handle);
#define OK(call) fuzz_ok(#call, (call))
#define MADE(call, handle) (fuzz_status = (call), fuzz_made(#call, fuzz_status, (handle)))
extern _Thread_local pg_status fuzz_status;

/* Numbers from the beginning of the input, little endian; 0 when it is used up. */
typedef struct fuzz_input {
    const uint8_t *data;
    size_t size;
} fuzz_input;
uint64_t fuzz_take(fuzz_input *in, size_t n_bytes);

/* A copy that ends where the data does, so that a sanitizer sees a read behind it; free() it. */
uint8_t *fuzz_bytes(const void *data, size_t size);
/* The same with a NUL behind it. */
char *fuzz_text(const void *data, size_t size);

/* Stops a call that would go on for long: the host's right, and the fuzzer's time. user: an int32_t, calls to come. */
int32_t fuzz_progress(void *user, int32_t phase, int64_t done, int64_t total);

/* Opens and uses the model or the processor of a folder, in which one file is the input. */
void fuzz_open_model(const char *folder, uint32_t flags);
void fuzz_open_processor(const char *folder, uint32_t flags);
/* Encodes an image, with flags of pg_encode_options. */
void fuzz_encode_image(const pg_image *image, uint32_t flags);

#endif
