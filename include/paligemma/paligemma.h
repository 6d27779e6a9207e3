/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/**
 * @file paligemma.h
 * libpaligemma: run PaliGemma and PaliGemma 2 on a CPU, straight from a Hugging Face checkpoint folder.
 *
 * This header is the whole stable API. A program that captions an image:
 *
 * @code{.c}
 *     pg_model *model = NULL;
 *     pg_processor *processor = NULL;
 *     pg_inputs *inputs = NULL;
 *     pg_result *result = NULL;
 *     pg_image image;
 *     pg_encode_options encode;
 *     pg_encode_options_init(&encode, sizeof encode);
 *     encode.flags = PG_ENCODE_EXIF; // photos of phones upright
 *     if (pg_model_open("checkpoint", NULL, &model) < 0 || pg_processor_open("checkpoint", NULL, &processor) < 0 ||
 *         pg_image_from_path(&image, sizeof image, "photo.jpg") < 0 ||
 *         pg_processor_encode(processor, &image, "caption en", &encode, &inputs) < 0 ||
 *         pg_generate(model, processor, inputs, NULL, &result) < 0)
 *         fprintf(stderr, "%s\n", pg_last_error());
 *     else
 *         puts(pg_result_get_text(result, 0));
 * @endcode
 *
 * Order: version, status, hooks, tensor; then the simple path: image, model, processor, generate; then batches and
 * text, forward, sessions; then advanced: CPU bits, memory estimate, hub cache, conversion.
 * docs/EMBEDDING.md has threads, memory, cancelling, camera buffers and batches; docs/PROCESSOR.md has encoding.
 *
 * Rules that hold everywhere:
 *  - A call that can fail returns a pg_status: 0 is success, negative an error, positive an event. After an error
 *    pg_last_error() says in words what was found and what was expected. An output handle is then NULL.
 *  - Structs begin with struct_size and are filled by their _init function. NULL options mean all defaults.
 *  - Memory that the caller passes in is read during the call only.
 *  - Handles are reference-counted: close them in any order, even inside a callback of a call that uses them (except
 *    the session that is being stepped). Close functions take the handle's address, set it to NULL, and accept NULL.
 *  - pg_model and pg_processor never change after open: any number of threads may use one at a time. pg_inputs,
 *    pg_features, pg_result and pg_outputs are read-only once made. pg_session and pg_detokenizer: one thread at
 *    a time.
 *  - The library never prints, exits, aborts, starts threads at load, or changes the locale, the floating-point or the
 *    OpenMP settings of its host.
 *  - n_threads is 1 to 1024 and counts the calling thread; 0 means the CPUs this process may use. Other threads start
 *    with the call or the session and end with it, sleep when idle, and take none of the host's signals. Results have
 *    the same bits for every n_threads. Where the system refuses threads, fewer are used.
 */
#ifndef PALIGEMMA_PALIGEMMA_H
#define PALIGEMMA_PALIGEMMA_H

#include <stddef.h>
#include <stdint.h>

#include <paligemma/version.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Marks what the shared library exports. */
#if defined(_WIN32)
#define PG_API
#else
#define PG_API __attribute__((visibility("default")))
#endif

/* ---- Version ---- */

/** The API version of the library that is running, as (MAJOR << 16) | (MINOR << 8) | PATCH. PG_API_COMPATIBLE() of
 * version.h compares it with this header. */
PG_API uint32_t pg_version_api(void);

/** The package version, such as "0.1.0". Static storage. */
PG_API const char *pg_version_string(void);

/* ---- Status ---- */

/** What a call returns: 0, a negative PG_ERROR_*, or a positive PG_EVENT_*. */
typedef int32_t pg_status;

/** Values of pg_status. */
enum {
    PG_OK = 0,                  ///< success
    PG_EVENT_EOS = 1,           ///< pg_session_step(): the token just returned ends the text
    PG_EVENT_LENGTH = 2,        ///< pg_session_step(): no token returned, the token limit is reached
    PG_ERROR_ARGUMENT = -10,    ///< a NULL pointer, a value out of range, invalid UTF-8
    PG_ERROR_MEMORY = -20,      ///< the allocator returned NULL
    PG_ERROR_IO = -30,          ///< a file could not be read or written
    PG_ERROR_NOT_FOUND = -31,   ///< a file, model id, tensor or key is not there
    PG_ERROR_FORMAT = -40,      ///< a file is damaged, truncated, or contradicts itself
    PG_ERROR_UNSUPPORTED = -50, ///< sound, but not something this version runs
    PG_ERROR_LIMIT = -60,       ///< too large: an image, a prompt, a dimension
    PG_ERROR_CANCELLED = -70,   ///< a cancel request or a progress callback stopped the call
    PG_ERROR_STATE = -80,       ///< calls in the wrong order
    PG_ERROR_INTERNAL = -90     ///< a defect of this library; please report it
};

/** The name of a status, such as "PG_ERROR_FORMAT". Never NULL; static storage. */
PG_API const char *pg_status_name(pg_status status);

/** What went wrong in the last failed call on this thread: one line of UTF-8. Never NULL; empty when nothing failed
 * yet. Valid until the next failing call on the same thread. */
PG_API const char *pg_last_error(void);

/* ---- Hooks: memory, log, progress, cancel ---- */

/** The host's allocator. It is copied into the handle it is given to. `user` and the functions must stay valid until
 * that handle and all made from it are closed. Called from any thread that calls the library. Third-party decoders
 * and the tokenizer take some memory for themselves that does not pass through it (docs/EMBEDDING.md). */
typedef struct pg_allocator {
    uint32_t struct_size; ///< sizeof(pg_allocator)
    uint32_t reserved;    ///< 0
    void *user;           ///< passed to both functions
    /** Returns `size` bytes aligned to `alignment` (a power of two, at most 4096), or NULL. */
    void *(*alloc)(void *user, size_t size, size_t alignment);
    /** Releases what alloc() returned; never called with NULL. */
    void (*free)(void *user, void *memory);
} pg_allocator;

/** Levels of a log line. */
enum {
    PG_LOG_ERROR = 1,   ///< reserved: errors are returned
    PG_LOG_WARNING = 2, ///< something in the files is not followed
    PG_LOG_INFO = 3,    ///< what was opened or written
    PG_LOG_DEBUG = 4    ///< reserved
};

/** Receives one line of UTF-8 without a line break. `message` is valid during the call. */
typedef void (*pg_log_fn)(void *user, int32_t level, const char *message);

/** Phases that pg_progress_fn reports, and the unit of each. */
enum {
    PG_PHASE_LOAD = 1,    ///< tensors
    PG_PHASE_VISION = 2,  ///< layers of the vision encoder
    PG_PHASE_PREFILL = 3, ///< layers of the decoder, of all rows
    PG_PHASE_DECODE = 4,  ///< tokens
    PG_PHASE_CONVERT = 5, ///< bytes
    PG_PHASE_VERIFY = 6   ///< bytes
};

/** Progress of a phase: `done` of `total` units. Called on the calling thread. A non-zero return stops the call with
 * PG_ERROR_CANCELLED. */
typedef int32_t (*pg_progress_fn)(void *user, int32_t phase, int64_t done, int64_t total);

/** A cancel flag. Any thread may set it; a call that was given the flag returns PG_ERROR_CANCELLED within a few
 * milliseconds to tens of milliseconds, inside the encoder and the prefill too. Make one flag for each request and
 * never clear it: a request made too early is then not lost, and one made too late hits nothing else. */
typedef struct pg_cancel pg_cancel;

/** Makes a flag that is not set. */
PG_API pg_status pg_cancel_create(pg_cancel **out);
/** Sets the flag. NULL is ignored. Not for a signal handler that may interrupt pg_cancel_close(). */
PG_API void pg_cancel_request(pg_cancel *cancel);
/** Clears the flag, so that it can be used again. NULL is ignored. */
PG_API void pg_cancel_clear(pg_cancel *cancel);
/** Drops the caller's reference; calls under way keep their own. */
PG_API void pg_cancel_close(pg_cancel **cancel);

/* ---- Tensor ---- */

/** Element types of pg_tensor. */
enum {
    PG_DTYPE_F32 = 1,  ///< IEEE 754 single precision
    PG_DTYPE_BF16 = 2, ///< the upper 16 bits of an F32
    PG_DTYPE_F16 = 3,  ///< IEEE 754 half precision
    PG_DTYPE_I64 = 4   ///< signed, 64 bits
};

/** A view of an array, row-major and dense: element [i][j] of a 2-d tensor is data[i * shape[1] + j]. */
typedef struct pg_tensor {
    uint32_t struct_size; ///< in: sizeof(pg_tensor)
    int32_t dtype;        ///< PG_DTYPE_*
    int32_t n_dims;       ///< 1 to 4
    uint32_t reserved;    ///< 0
    int64_t shape[4];     ///< the first n_dims are set, the rest are 1
    const void *data;     ///< owned by a handle and valid as its getter says; as an input: the caller's
} pg_tensor;
/** An empty tensor that a getter may fill. */
PG_API pg_status pg_tensor_init(pg_tensor *tensor, size_t struct_size);

/* ---- Image ---- */

/** Values of pg_image.format. */
enum {
    PG_IMAGE_RGB8 = 1,   ///< 3 bytes a pixel: R G B
    PG_IMAGE_BGR8 = 2,   ///< 3 bytes a pixel: B G R
    PG_IMAGE_RGBA8 = 3,  ///< 4 bytes a pixel: R G B A; A is dropped, or laid over white (PG_ENCODE_OVER_WHITE)
    PG_IMAGE_BGRA8 = 4,  ///< 4 bytes a pixel: B G R A; likewise
    PG_IMAGE_GRAY8 = 5,  ///< 1 byte a pixel
    PG_IMAGE_PATH = 100, ///< path: a PNG or JPEG file
    PG_IMAGE_BYTES = 101 ///< planes[0] and n_bytes: the bytes of a PNG or JPEG file
};

/** A borrowed image. Fill it with one of the three functions below. Nothing is copied: path, bytes or pixels must stay
 * valid until the call that reads the image returns. */
typedef struct pg_image {
    uint32_t struct_size;     ///< sizeof(pg_image)
    int32_t format;           ///< PG_IMAGE_*
    int32_t width;            ///< pixels, >= 1; raw formats only
    int32_t height;           ///< pixels, >= 1; raw formats only
    const uint8_t *planes[4]; ///< planes[0]: the first byte of the top row (raw), or the file's bytes
    int64_t strides[4];       ///< strides[0]: bytes from one row to the next below it; may be negative
    const char *path;         ///< UTF-8; PG_IMAGE_PATH only
    uint64_t n_bytes;         ///< PG_IMAGE_BYTES only
} pg_image;

/** A PNG or JPEG file by its path. The file is read when the image is used. */
PG_API pg_status pg_image_from_path(pg_image *image, size_t struct_size, const char *path);
/** The `n_bytes` bytes of a PNG or JPEG file. */
PG_API pg_status pg_image_from_bytes(pg_image *image, size_t struct_size, const void *bytes, size_t n_bytes);
/** A camera or texture buffer. `pixels` points at the top row. `stride` is in bytes, 0 for dense rows, negative where
 * the top row comes last in memory; a stride shorter than a row is refused. */
PG_API pg_status pg_image_from_pixels(pg_image *image, size_t struct_size, int32_t format, int32_t width,
                                      int32_t height, const void *pixels, int64_t stride);

/* ---- Model ---- */

/** The weights of a checkpoint folder, mapped; immutable. */
typedef struct pg_model pg_model;

/** How the matrices of linear layers, embedding and head are kept (docs/FORMATS.md). */
enum {
    PG_WEIGHTS_STORED = 0, ///< as the folder has them
    PG_WEIGHTS_INT8 = 1,   ///< 8 bits, a scale for each 128 weights of a row: 8.25 bits a weight
    PG_WEIGHTS_INT4 = 2    ///< 4 bits, a scale for each 128 and a fine one for each 32 weights: 4.25 bits a weight
};

/** What matrix products are computed in. Sums, and everything between products, are f32. Linear layers with int8 or
 * int4 weights are not affected: they multiply int8 and sum exactly in groups. */
enum {
    PG_ARITHMETIC_DEFAULT = 0, ///< F32; beside int8 and int4 weights, attention as with BF16
    PG_ARITHMETIC_F32 = 1,     ///< f32
    PG_ARITHMETIC_BF16 = 2     ///< round the inputs of products to bf16, for more than 4 rows (encoder, prefill), on
                               ///< CPUs where that is faster (PG_CPU_AVX512_BF16 in use); elsewhere the same as F32
};

/** Flags of pg_model_options. */
enum {
    PG_MODEL_VERIFY = 1 ///< read a whole converted folder and compare its checksums; without it only those of headers
                        ///< are compared. PG_ERROR_FORMAT names what is damaged, PG_ERROR_UNSUPPORTED: it has none
};

/** Options of pg_model_open(). */
typedef struct pg_model_options {
    uint32_t struct_size;          ///< sizeof(pg_model_options)
    uint32_t flags;                ///< PG_MODEL_*; default 0
    uint64_t cpu_mask;             ///< PG_CPU_* bits that may be used; default and 0: the fastest set of this CPU
    const pg_allocator *allocator; ///< default NULL: the C library's
    pg_log_fn log;                 ///< default NULL: silent
    void *log_user;                ///< passed to log
    pg_progress_fn progress;       ///< default NULL; phases VERIFY, LOAD, CONVERT (int8, int4)
    void *progress_user;           ///< passed to progress
    pg_cancel *cancel;             ///< default NULL
    int32_t weights;               ///< PG_WEIGHTS_*; default STORED. A folder converted to the other kind is refused
    int32_t arithmetic;            ///< PG_ARITHMETIC_*; default DEFAULT
    int32_t n_threads;             ///< 1 to 1024, for verifying and quantizing; default and 0: CPUs, at most 64
    uint32_t reserved;             ///< 0
} pg_model_options;
PG_API pg_status pg_model_options_init(pg_model_options *options, size_t struct_size); ///< fills in the defaults

/** Opens the checkpoint folder `model`, or a model id such as "google/paligemma-3b-mix-224" from the local Hugging Face
 * cache (pg_checkpoint_find()); the network is never used. The weight files stay mapped until the model and all made
 * from it are closed: do not truncate or rewrite them in that time.
 * Errors: PG_ERROR_NOT_FOUND, _IO, _FORMAT, _UNSUPPORTED, _MEMORY, _CANCELLED; _ARGUMENT: an option is out of range, or
 * a weight that is to be quantized is not finite. */
PG_API pg_status pg_model_open(const char *model, const pg_model_options *options, pg_model **out);
PG_API void pg_model_close(pg_model **model); ///< drops the caller's reference

/** What a model is. */
typedef struct pg_model_info {
    uint32_t struct_size;    ///< in: sizeof(pg_model_info)
    int32_t gemma_version;   ///< of the decoder. 1: PaliGemma, 2: PaliGemma 2
    uint64_t n_parameters;   ///< elements of all tensors in use, a tied head counted once
    uint64_t n_bytes_mapped; ///< bytes of the mapped weight files
    uint64_t cpu_used;       ///< PG_CPU_* bits of the kernels chosen
    uint32_t n_files;        ///< safetensors files
    uint32_t n_tensors;      ///< tensors in use
    uint32_t dtypes;         ///< bit (1 << PG_DTYPE_x) for each stored dtype in use, that of quantized ones left out
    int32_t image_size;      ///< pixels, width = height
    int32_t n_image_tokens;  ///< image tokens of an image: (image_size / patch_size)^2
    int32_t vocab_size;      ///< rows of the head
    int32_t weights;         ///< PG_WEIGHTS_*: how the matrices are kept
    int32_t arithmetic;      ///< PG_ARITHMETIC_F32 or _BF16
} pg_model_info;
PG_API pg_status pg_model_get_info(const pg_model *model, pg_model_info *info); ///< describes it

/** A field of the HF config as JSON text, by its key: "text_config.hidden_size", "vision_config.patch_size",
 * "image_token_index"; "" gives the whole config. Fields that config.json leaves out have the defaults of the HF
 * classes (PaliGemmaConfig, GemmaConfig, Gemma2Config, SiglipVisionConfig). Copies at most `capacity` bytes with the
 * closing NUL into `text`; *needed (may be NULL) receives the size with the NUL. Call with capacity 0 to ask for the
 * size. Errors: PG_ERROR_NOT_FOUND (no such key). */
PG_API pg_status pg_model_get_config(const pg_model *model, const char *key, char *text, size_t capacity,
                                     size_t *needed);
/** The same field as an integer (a boolean counts as 0 or 1). Errors: also PG_ERROR_ARGUMENT (another type). */
PG_API pg_status pg_model_get_config_int(const pg_model *model, const char *key, int64_t *out);
/** The same field as a number. Errors: also PG_ERROR_ARGUMENT (another type). */
PG_API pg_status pg_model_get_config_float(const pg_model *model, const char *key, double *out);

/* ---- Processor ---- */

/** Tokenizer and image processing of a checkpoint; immutable. */
typedef struct pg_processor pg_processor;

/** Options of pg_processor_open(). */
typedef struct pg_processor_options {
    uint32_t struct_size;          ///< sizeof(pg_processor_options)
    uint32_t reserved;             ///< 0
    uint64_t cpu_mask;             ///< PG_CPU_* bits that image resizing may use; default and 0: the fastest set
    const pg_allocator *allocator; ///< default NULL: the C library's
    pg_log_fn log;                 ///< default NULL: silent
    void *log_user;                ///< passed to log
    pg_cancel *cancel;             ///< default NULL; opening sees it within about 0.3 s
} pg_processor_options;
PG_API pg_status pg_processor_options_init(pg_processor_options *options,
                                           size_t struct_size); ///< fills in the defaults

/** Opens the tokenizer (tokenizer.json where it is there, else tokenizer.model, as transformers does) and the image
 * settings (processor_config.json, else preprocessor_config.json) of a checkpoint folder or model id.
 * Errors: as pg_model_open(). */
PG_API pg_status pg_processor_open(const char *model, const pg_processor_options *options, pg_processor **out);
PG_API void pg_processor_close(pg_processor **processor); ///< drops the caller's reference

/** Flags of pg_encode_options (LITERAL also of pg_processor_tokenize()). */
enum {
    PG_ENCODE_LITERAL = 1,   ///< "<eos>", "<image>" and the like in the text are plain characters: safe for prompts
                             ///< from strangers. Default: parsed, as HF does. `<locNNNN>` and `<segNNN>` always are
    PG_ENCODE_EXIF = 2,      ///< turn the image as its EXIF orientation says, as transformers' load_image does.
                             ///< Default: not, as HF's processor does with an opened file
    PG_ENCODE_TRUNCATE = 4,  ///< truncate rows longer than max_length. Default: max_length truncates nothing
    PG_ENCODE_KEEP_ENDS = 8, ///< with TRUNCATE: keep images, bos, newline and eos; shorten the suffix, then the prompt
    PG_ENCODE_OPEN_SUFFIX = 16, ///< no eos after the suffix: the model goes on from it
    PG_ENCODE_OVER_WHITE = 32   ///< lay transparent pixels of PNGs, RGBA8 and BGRA8 buffers over white, as HF does with
                                ///< an opened PIL image. Default: their alpha is dropped, as HF does with a path, and
                                ///< a warning is logged (docs/PROCESSOR.md)
};

/** Flags of pg_processor_decode() and pg_detokenizer_create(). */
enum {
    PG_DECODE_SKIP_SPECIAL = 1 ///< leave out special tokens, as decode(skip_special_tokens=True)
};

/** Values of pg_encode_options.mode: how prompt, newline and suffix become ids, and how an image is resized. */
enum {
    PG_MODE_HF = 0,        ///< transformers' PaliGemmaProcessor
    PG_MODE_BIG_VISION = 1 ///< google-research/big_vision, the training code: texts tokenized apart, float resize
};

/** Values of pg_encode_options.padding. */
enum {
    PG_PADDING_LONGEST = 0,    ///< to the longest row of the batch
    PG_PADDING_MAX_LENGTH = 1, ///< to max_length; longer rows stay as they are
    PG_PADDING_NONE = 2        ///< not at all: rows of different lengths are refused
};

/** Sides of padding and truncation. */
enum {
    PG_SIDE_DEFAULT = 0, ///< as the tokenizer's files say, else left for padding and right for truncation
    PG_SIDE_LEFT = 1,    ///< the beginning of a row
    PG_SIDE_RIGHT = 2    ///< the end of a row
};

/** Values of pg_encode_options.truncation: what PG_ENCODE_TRUNCATE shortens first. */
enum {
    PG_TRUNCATION_LONGEST = 0, ///< transformers' longest_first: the longer of (images + prompt) and suffix down to the
                               ///< length of the other; if still too long, both to max_length / 2
    PG_TRUNCATION_PROMPT = 1,  ///< the prompt alone: only_first
    PG_TRUNCATION_SUFFIX = 2   ///< the suffix alone: only_second
};

/** Options of pg_processor_encode() and pg_processor_encode_batch(). "The tokenizer's" value is the one that
 * tokenizer_config.json says, else the one that tokenizer.json was saved with. */
typedef struct pg_encode_options {
    uint32_t struct_size;       ///< sizeof(pg_encode_options)
    uint32_t flags;             ///< PG_ENCODE_*; default 0
    int64_t max_image_pixels;   ///< width x height above this is PG_ERROR_LIMIT; default and 0: 178956970, as Pillow
    int32_t mode;               ///< PG_MODE_*; default HF
    int32_t padding;            ///< PG_PADDING_*; default LONGEST
    int32_t padding_side;       ///< PG_SIDE_*; default the tokenizer's
    int32_t pad_to_multiple_of; ///< >= 1: padded lengths are multiples of it; default and 0: the tokenizer's, else 1
    int64_t max_length;      ///< tokens of a row, image tokens included, for TRUNCATE and PADDING_MAX_LENGTH; default
                             ///< and 0: the tokenizer's max_length, else its model_max_length, else no limit
    int32_t truncation;      ///< PG_TRUNCATION_*; default LONGEST
    int32_t truncation_side; ///< PG_SIDE_*: where a part is shortened; default the tokenizer's
    pg_cancel *cancel;       ///< default NULL
} pg_encode_options;
PG_API pg_status pg_encode_options_init(pg_encode_options *options, size_t struct_size); ///< fills in the defaults

/** What a model is fed: ids, masks, labels, pixels. Read-only. */
typedef struct pg_inputs pg_inputs;

/** Builds the inputs of one image and prompt: `<image>` x N, bos, the prompt, a newline, and the image's pixels.
 * image NULL: the layout has its image tokens but no pixels, and the call that takes the inputs needs features: one
 * image's features serve many prompts. prompt: UTF-8; NULL or "" is HF's empty prompt.
 * Errors: PG_ERROR_ARGUMENT, _NOT_FOUND, _IO, _FORMAT, _UNSUPPORTED, _LIMIT, _MEMORY, _CANCELLED. */
PG_API pg_status pg_processor_encode(const pg_processor *processor, const pg_image *image, const char *prompt,
                                     const pg_encode_options *options, pg_inputs **out);
PG_API void pg_inputs_close(pg_inputs **inputs); ///< drops the caller's reference

/* ---- Generate ---- */

/** What vision encoder and projector make of images (pg_features_create()). Read-only. */
typedef struct pg_features pg_features;
/** What pg_generate() made of each row. Read-only. */
typedef struct pg_result pg_result;

/** A piece of the text of row `row`, as soon as it is whole: never a part of a UTF-8 character. `text` (`size` bytes
 * and a closing NUL) is valid during the call; it is empty when `token` completes no character. A non-zero return ends
 * the row (PG_STOP_CALLBACK). At the end an unfinished character follows as U+FFFD in one more call, so that all pieces
 * are the text. */
typedef int32_t (*pg_text_fn)(void *user, int64_t row, const char *text, size_t size, int64_t token);

/** Options of pg_generate(). */
typedef struct pg_generate_options {
    uint32_t struct_size;        ///< sizeof(pg_generate_options)
    uint32_t flags;              ///< 0
    int32_t max_new_tokens;      ///< >= 1, of each row; default and 0: 128
    int32_t n_threads;           ///< 1 to 1024; default and 0: the CPUs this process may use
    const pg_features *features; ///< default NULL: computed from the pixels of the inputs
    pg_text_fn on_text;          ///< default NULL; text without special tokens
    void *on_text_user;          ///< passed to on_text
    pg_progress_fn progress;     ///< default NULL; phases VISION, PREFILL, DECODE
    void *progress_user;         ///< passed to progress
    pg_cancel *cancel;           ///< default NULL
} pg_generate_options;
PG_API pg_status pg_generate_options_init(pg_generate_options *options, size_t struct_size); ///< fills in the defaults

/** Greedy generation until an eos id of the checkpoint, max_new_tokens, or the callback's word: the text of HF's
 * generate(do_sample=False) on the same inputs in f32. The rows of a batch run together, each gets the tokens that it
 * gets alone and ends on its own. Padding is left out; a suffix is continued (see PG_ENCODE_OPEN_SUFFIX).
 * Settings of generation_config.json other than the eos ids are not followed; opening the model logs a warning then.
 * Errors: PG_ERROR_ARGUMENT names the row, _LIMIT (a row longer than the context), _MEMORY, _CANCELLED. */
PG_API pg_status pg_generate(const pg_model *model, const pg_processor *processor, const pg_inputs *inputs,
                             const pg_generate_options *options, pg_result **out);
PG_API void pg_result_close(pg_result **result); ///< drops the caller's reference

/** The rows of the result. NULL: 0. */
PG_API int64_t pg_result_get_n_rows(const pg_result *result);
/** The generated text of a row, 0 for the first, without special tokens; UTF-8, valid until the result is closed. ""
 * for a NULL result and for a row that is not there. A generated byte 0 ends the C string; on_text gives sizes. */
PG_API const char *pg_result_get_text(const pg_result *result, int64_t row);
/** The generated ids of a row, i64 [n], the final eos included; valid until the result is closed. */
PG_API pg_status pg_result_get_ids(const pg_result *result, int64_t row, pg_tensor *out);

/** Values of pg_result_info.stop: why a row ended. */
enum {
    PG_STOP_EOS = 1,     ///< an eos id came
    PG_STOP_LENGTH = 2,  ///< max_new_tokens, or the end of the context
    PG_STOP_CALLBACK = 3 ///< on_text returned non-zero
};

/** What happened to a row, and how long all rows took. */
typedef struct pg_result_info {
    uint32_t struct_size;    ///< in: sizeof(pg_result_info)
    int32_t stop;            ///< PG_STOP_*
    int64_t n_prompt_tokens; ///< tokens fed, image tokens included
    int64_t n_new_tokens;    ///< tokens generated, eos included
    double vision_seconds;   ///< vision encoder and projector, all rows; 0 with given features
    double prefill_seconds;  ///< prompts, all rows
    double decode_seconds;   ///< from the first token to the last, all rows
} pg_result_info;

/** Describes row `row`. Errors: PG_ERROR_ARGUMENT (no such row). */
PG_API pg_status pg_result_get_info(const pg_result *result, int64_t row, pg_result_info *info);

/* ---- Batches and text ---- */

/** Rows to encode: each with a prompt, any number of images, and an optional suffix (the answer to learn). */
typedef struct pg_batch {
    uint32_t struct_size;         ///< sizeof(pg_batch)
    int32_t n_prompts;            ///< rows; 0 with prompts NULL: images alone, no ids (HF: text=None)
    int32_t n_suffixes;           ///< 0: none; else as many as rows
    int32_t n_images;             ///< entries of images
    int32_t n_image_counts;       ///< 0, or as many as rows
    uint32_t reserved;            ///< 0
    const char *const *prompts;   ///< [n_prompts], UTF-8; an entry NULL: ""
    const char *const *suffixes;  ///< [n_suffixes], UTF-8; an entry NULL: "" (the eos alone)
    const uint64_t *prompt_sizes; ///< [n_prompts] bytes; default NULL: each ends at its NUL
    const uint64_t *suffix_sizes; ///< [n_suffixes] bytes; default NULL: likewise
    const pg_image *images;       ///< [n_images], the first row's images first; all with the same struct_size
    /** [n_image_counts]: images of each row. Default NULL: one each, or none with n_images 0. Given with n_images 0:
     * image tokens for so many images each, and no pixels. */
    const int32_t *image_counts;
} pg_batch;
/** Zero rows, everything NULL. */
PG_API pg_status pg_batch_init(pg_batch *batch, size_t struct_size);

/** The batch as HF's PaliGemmaProcessor(images=, text=, suffix=, padding=, truncation=, max_length=) gives it: ids,
 * masks and labels equal to the last number, pixels to the last bit. A row is `<image>` x N for each image, bos, the
 * prompt, a newline, and with a suffix the suffix and eos; labels are the ids of the suffix and its eos, -100
 * elsewhere. Where HF's answer harms it is followed and reported by pg_inputs_get_row_info(); docs/PROCESSOR.md lists
 * each case. Errors name the row and the numbers: as pg_processor_encode(); PG_ERROR_ARGUMENT also for counts that do
 * not match, `<image>` in a suffix, a truncation that reaches the images, rows that PG_PADDING_NONE cannot stack;
 * PG_ERROR_LIMIT for more than 16777216 tokens in a row. */
PG_API pg_status pg_processor_encode_batch(const pg_processor *processor, const pg_batch *batch,
                                           const pg_encode_options *options, pg_inputs **out);

/** A tensor of the inputs by its HF name, valid until the inputs are closed. B rows of T tokens:
 *  - "input_ids"       i64 [B, T]
 *  - "attention_mask"  i64 [B, T]  1, and 0 on padding
 *  - "token_type_ids"  i64 [B, T]  0 on images, prompt and padding, 1 on the suffix; all 1 if none were given
 *  - "labels"          i64 [B, T]  ids of the suffix, -100 elsewhere
 *  - "position_ids"    i64 [B, T]  from 1, padding skipped (1 on the padding itself)
 *  - "pixel_values"    f32 [n_images, 3, S, S]  the first row's images first
 *  - "image_counts"    i64 [B]     images of each row
 *  - "inputs_embeds"   f32 [B, T, hidden]  where they were given to pg_inputs_create()
 *
 * Errors: PG_ERROR_NOT_FOUND (unknown name, or inputs without it). */
PG_API pg_status pg_inputs_get_tensor(const pg_inputs *inputs, const char *name, pg_tensor *out);

/** Bits of pg_row_info.events: what happened to a row. */
enum {
    PG_ROW_TRUNCATED = 1,         ///< n_truncated tokens are missing
    PG_ROW_TRUNCATED_EOS = 2,     ///< the suffix lost its eos: a model trained on it does not learn to end
    PG_ROW_TRUNCATED_NEWLINE = 4, ///< the newline between prompt and suffix is gone
    PG_ROW_TRUNCATED_IMAGE = 8,   ///< image tokens are missing: such a row cannot be run
    PG_ROW_BOS_MISPLACED = 16, ///< HF put bos inside the prompt: another row's text has `<image>`, this one's has not
    PG_ROW_NEWLINE_MERGED = 32 ///< the prompt ends in a newline, which became one token with the layout's own
};

/** Where a row of the inputs lies, and what happened to it. */
typedef struct pg_row_info {
    uint32_t struct_size; ///< in: sizeof(pg_row_info)
    uint32_t events;      ///< PG_ROW_*
    int64_t first_token;  ///< padding on the left
    int64_t n_tokens;     ///< without padding: the row's tokens are first_token .. first_token + n_tokens; some of them
                          ///< may be hidden by the caller's attention_mask
    int64_t n_suffix;     ///< of these, the last n_suffix are the suffix with its eos
    int64_t n_truncated;  ///< tokens that truncation took away
    int64_t first_image;  ///< index of the row's first image in pixel_values
    int64_t n_images;     ///< the row's images
} pg_row_info;

/** Describes row `row`, 0 to B - 1. */
PG_API pg_status pg_inputs_get_row_info(const pg_inputs *inputs, int64_t row, pg_row_info *info);

/** The caller's own arrays for pg_inputs_create(). Either input_ids or inputs_embeds is given, or pixel_values alone.
 */
typedef struct pg_input_arrays {
    uint32_t struct_size;            ///< sizeof(pg_input_arrays)
    uint32_t reserved;               ///< 0
    const pg_tensor *input_ids;      ///< i64 [B, T]
    const pg_tensor *inputs_embeds;  ///< f32 [B, T, hidden]: text rows already multiplied by sqrt(hidden), as HF 5.23's
                                     ///< get_input_embeddings() gives them
    const pg_tensor *attention_mask; ///< i64 [B, T], 0 or 1, in each row a 1; default NULL: all 1. Tokens with 0 are
                                     ///< seen by none, between others too (the image of a camera that is off)
    const pg_tensor *token_type_ids; ///< i64 [B, T], 0 or 1, 0s before 1s; default NULL: as HF does without them, by
                                     ///< the model. PaliGemma 1: each token sees its whole row if no row of the batch
                                     ///< has padding. Else, and PaliGemma 2: what is before it (docs/PROCESSOR.md)
    const pg_tensor *labels;         ///< i64 [B, T], ids or -100; default NULL: no loss
    const pg_tensor *position_ids;   ///< i64 [B, T]; default NULL: counted, padding skipped. As in HF, pg_forward()
                                   ///< without attention_mask takes a step other than 1 for the begin of another text:
                                   ///< tokens of type 1 see none of the texts before (docs/PROCESSOR.md)
    const pg_tensor *pixel_values; ///< f32 [n_images, 3, S, S], finite; default NULL: none
    const pg_allocator *allocator; ///< default NULL: the C library's
} pg_input_arrays;
/** Everything NULL. */
PG_API pg_status pg_input_arrays_init(pg_input_arrays *arrays, size_t struct_size);

/** Inputs from the caller's arrays, all copied. pixel_values alone serve pg_features_create(): then n_images of each
 * row is 0 and "image_counts" is not there. Ids are held against the vocabulary when they meet a model. Errors:
 * PG_ERROR_ARGUMENT names the array, the row and the numbers. */
PG_API pg_status pg_inputs_create(const pg_input_arrays *arrays, pg_inputs **out);

/** The ids of a text alone: no image tokens, bos or newline added. flags: PG_ENCODE_LITERAL or 0. Writes at most
 * `capacity` ids; *n_ids receives how many there are. */
PG_API pg_status pg_processor_tokenize(const pg_processor *processor, const char *text, uint32_t flags, int64_t *ids,
                                       size_t capacity, size_t *n_ids);

/** The text of ids, as HF's tokenizer.decode(). flags: PG_DECODE_SKIP_SPECIAL or 0. Copies as pg_model_get_config(). */
PG_API pg_status pg_processor_decode(const pg_processor *processor, const int64_t *ids, size_t n_ids, uint32_t flags,
                                     char *text, size_t capacity, size_t *needed);

/** The piece of an id as the vocabulary writes it ("<loc0012>", U+2581 for a space). Valid until the processor is
 * closed. Errors: PG_ERROR_ARGUMENT (no such id). */
PG_API pg_status pg_processor_get_piece(const pg_processor *processor, int64_t id, const char **piece);

/** The id of a piece, such as "<image>" or "<loc0000>". Errors: PG_ERROR_NOT_FOUND (no such piece). */
PG_API pg_status pg_processor_get_token_id(const pg_processor *processor, const char *piece, int64_t *id);

/** Resize filters, by Pillow's numbers (PIL.Image.Resampling). */
enum {
    PG_RESAMPLE_NEAREST = 0,  ///< the nearest pixel
    PG_RESAMPLE_LANCZOS = 1,  ///< windowed sinc, 3 lobes
    PG_RESAMPLE_BILINEAR = 2, ///< triangle
    PG_RESAMPLE_BICUBIC = 3,  ///< cubic, a = -0.5: all published checkpoints
    PG_RESAMPLE_BOX = 4,      ///< mean
    PG_RESAMPLE_HAMMING = 5   ///< Hamming window
};

/** What a processor does. */
typedef struct pg_processor_info {
    uint32_t struct_size;    ///< in: sizeof(pg_processor_info)
    int32_t image_size;      ///< pixels, width = height
    int32_t n_image_tokens;  ///< `<image>` tokens of an image
    int32_t resample;        ///< PG_RESAMPLE_*
    int32_t vocab_size;      ///< ids of the tokenizer, added tokens included
    uint32_t do_resize;      ///< 0 or 1
    uint32_t do_rescale;     ///< 0 or 1
    uint32_t do_normalize;   ///< 0 or 1
    int32_t padding_side;    ///< PG_SIDE_LEFT or _RIGHT: what PG_SIDE_DEFAULT is for padding
    int32_t truncation_side; ///< likewise for truncation
    int64_t max_length; ///< what a call's max_length 0 is, as the files say; 0: none. HF truncates to it even where a
                        ///< call names neither truncation nor padding
    int64_t model_max_length;   ///< stands in for a max_length of 0; 0: none
    int64_t pad_to_multiple_of; ///< what pg_encode_options.pad_to_multiple_of 0 is; 0: none
    int64_t pad_id;             ///< -1: none; so are the next four
    int64_t eos_id;             ///< ends a text
    int64_t bos_id;             ///< begins a prompt
    int64_t unk_id;             ///< unknown
    int64_t image_id;           ///< `<image>`
    float image_mean[3];        ///< R, G, B, in units of rescaled pixels
    float image_std[3];         ///< likewise
    double rescale_factor;      ///< 1/255 in all published checkpoints
} pg_processor_info;
PG_API pg_status pg_processor_get_info(const pg_processor *processor, pg_processor_info *info); ///< describes it

/* ---- Forward ---- */

/** Logits, loss and hidden states of a batch. Read-only. */
typedef struct pg_outputs pg_outputs;

/** Flags of pg_forward_options. */
enum {
    PG_FORWARD_NO_LOGITS = 1,     ///< keep no logits (the loss needs no memory for all of them)
    PG_FORWARD_HIDDEN_STATES = 2, ///< keep the hidden states of every layer
    PG_FORWARD_LAST_HIDDEN = 4,   ///< keep the last hidden state, after the final norm
    PG_FORWARD_LOSS_PER_ROW = 8,  ///< the loss is the mean over each row's labels, 0 for a row without, then over the
                                  ///< rows (big_vision), instead of the mean over all labels of the batch (HF)
    PG_FORWARD_SKIP_PADDING = 16, ///< compute nothing for padding: its rows are zero. Default: as the reference does
    PG_FORWARD_NO_LOSS = 32,      ///< compute no loss, even where the inputs have labels
    PG_FORWARD_EMBEDDINGS = 53 ///< LAST_HIDDEN, NO_LOGITS, NO_LOSS and SKIP_PADDING together: for retrieval (ColPali)
                               ///< and action heads (pi0)
};

/** Options of pg_forward(). */
typedef struct pg_forward_options {
    uint32_t struct_size;        ///< sizeof(pg_forward_options)
    uint32_t flags;              ///< PG_FORWARD_*; default 0
    int32_t n_threads;           ///< 1 to 1024; default and 0: the CPUs this process may use
    uint32_t reserved;           ///< 0
    int64_t logits_to_keep;      ///< k >= 1: logits of the last k tokens of each row only; default and 0: of all
    const pg_features *features; ///< default NULL: computed from the pixels of the inputs
    pg_progress_fn progress;     ///< default NULL; phases VISION and PREFILL
    void *progress_user;         ///< passed to progress
    pg_cancel *cancel;           ///< default NULL
} pg_forward_options;
PG_API pg_status pg_forward_options_init(pg_forward_options *options, size_t struct_size); ///< fills in the defaults

/** One pass over a batch, nothing is generated (HF: PaliGemmaForConditionalGeneration.forward). Attention is full
 * within images and prompt, causal in the suffix (token_type_ids 1), none to padding. A row gives what it gives alone,
 * whatever side it is padded on: to the last bit, except that rows of up to 4 tokens are summed in another order.
 * Errors: PG_ERROR_ARGUMENT (the row and the numbers: an id outside the vocabulary, a label that is neither an id nor
 * -100, image tokens and images that do not match, logits_to_keep beyond the row), PG_ERROR_LIMIT (a row longer than
 * the context), _MEMORY, _CANCELLED. */
PG_API pg_status pg_forward(const pg_model *model, const pg_inputs *inputs, const pg_forward_options *options,
                            pg_outputs **out);
PG_API void pg_outputs_close(pg_outputs **outputs); ///< drops the caller's reference

/** A tensor of the outputs by its HF name, valid until the outputs are closed. B rows, T tokens, K kept, L layers:
 *  - "logits"               f32 [B, K, vocab_size]  final soft cap applied; K is T unless logits_to_keep is set
 *  - "loss"                 f32 [1]  cross entropy of each label under the logits of the token before it; NaN (per row:
 *                           0) when all labels are -100; not there without labels
 *  - "hidden_states"        f32 [L + 1, B, T, hidden]  on request: the embeddings, then each layer's output, the last
 *                           after the final norm
 *  - "last_hidden_state"    f32 [B, T, hidden]  on request: after the final norm
 *  - "image_hidden_states"  f32 [n_images, n_image_tokens, hidden]  the features; not there without images
 *
 * Errors: PG_ERROR_NOT_FOUND. */
PG_API pg_status pg_outputs_get_tensor(const pg_outputs *outputs, const char *name, pg_tensor *out);

/* ---- Sessions: features of an image, generate step by step, detokenize ---- */

/** Options of pg_features_create(). */
typedef struct pg_run_options {
    uint32_t struct_size;    ///< sizeof(pg_run_options)
    int32_t n_threads;       ///< 1 to 1024; default and 0: the CPUs this process may use
    pg_progress_fn progress; ///< default NULL; phase VISION
    void *progress_user;     ///< passed to progress
    pg_cancel *cancel;       ///< default NULL
} pg_run_options;
PG_API pg_status pg_run_options_init(pg_run_options *options, size_t struct_size); ///< fills in the defaults

/** Runs the vision encoder and the projector on the pixels of `inputs`. The features depend on the images alone and
 * serve any number of prompts (keys and values do not: image tokens attend to the prompt). They serve the model that
 * made them, and another handle of the same checkpoint with the same weights and arithmetic; every other model refuses
 * them (PG_ERROR_ARGUMENT) where they are given. */
PG_API pg_status pg_features_create(const pg_model *model, const pg_inputs *inputs, const pg_run_options *options,
                                    pg_features **out);
PG_API void pg_features_close(pg_features **features); ///< drops the caller's reference
/** f32 [n_images, n_image_tokens, hidden_size], valid until the features are closed. */
PG_API pg_status pg_features_get_tensor(const pg_features *features, pg_tensor *out);

/** A sequence that is generated token by token. */
typedef struct pg_session pg_session;

/** Options of pg_session_create(). */
typedef struct pg_session_options {
    uint32_t struct_size;      ///< sizeof(pg_session_options)
    int32_t n_threads;         ///< 1 to 1024, of prefills and steps of this session (not of pg_features_create(), which
                               ///< has its own); default and 0: the CPUs this process may use
    int32_t max_new_tokens;    ///< >= 1: tokens that pg_session_step() may return after a prefill; default and 0: 128
    int32_t max_prompt_tokens; ///< tokens of a prompt, image tokens included, that memory is made for; default and 0:
                               ///< one image and 64 tokens of text
    pg_progress_fn progress;   ///< default NULL; phases VISION and PREFILL
    void *progress_user;       ///< passed to progress
    pg_cancel *cancel;         ///< default NULL
} pg_session_options;
PG_API pg_status pg_session_options_init(pg_session_options *options, size_t struct_size); ///< fills in the defaults

/** Allocates all memory and starts the session's threads: prefilling a prompt of up to max_prompt_tokens and the steps
 * after it allocate nothing. A longer prompt still works: the session grows, and keeps what it grew to.
 * Errors: PG_ERROR_ARGUMENT, _MEMORY. */
PG_API pg_status pg_session_create(const pg_model *model, const pg_session_options *options, pg_session **out);
/** Ends the session and its threads. */
PG_API void pg_session_close(pg_session **session);

/** Feeds a whole prompt of one row as one block, with its suffix if it has one, and computes the logits of the token
 * that follows. Padding is left out. features NULL: computed from the pixels of the inputs. A session may be
 * prefilled again: it starts over. After an error, prefill again. */
PG_API pg_status pg_session_prefill(pg_session *session, const pg_inputs *inputs, const pg_features *features);

/** Samples the next token: greedy, the lowest id among the largest logits.
 *  - PG_OK            *token is the next token
 *  - PG_EVENT_EOS     *token ends the text; no further step is possible
 *  - PG_EVENT_LENGTH  max_new_tokens were returned already; *token is untouched
 */
PG_API pg_status pg_session_step(pg_session *session, int64_t *token);

/** The logits that the token last returned was sampled from or, right after a prefill, that the next step will
 * sample from: f32 [vocab_size], final soft cap applied. Valid until the next call on the session. */
PG_API pg_status pg_session_get_logits(const pg_session *session, pg_tensor *out);

/** Turns ids into text one by one, holding back bytes of unfinished UTF-8 characters. */
typedef struct pg_detokenizer pg_detokenizer;

/** flags: PG_DECODE_SKIP_SPECIAL or 0. Pushing allocates nothing, unless more than 1024 byte pieces come in a row. */
PG_API pg_status pg_detokenizer_create(const pg_processor *processor, uint32_t flags, pg_detokenizer **out);
/** Ends it. */
PG_API void pg_detokenizer_close(pg_detokenizer **detokenizer);
/** The text that `id` completes. *text is NUL-terminated and *size bytes long (size may be NULL), valid until the next
 * call on the detokenizer. All pieces and the flush together equal pg_processor_decode() of all ids. */
PG_API pg_status pg_detokenizer_push(pg_detokenizer *detokenizer, int64_t id, const char **text, size_t *size);
/** What was held back, at the end: an unfinished character becomes U+FFFD. Then the detokenizer starts anew. */
PG_API pg_status pg_detokenizer_flush(pg_detokenizer *detokenizer, const char **text, size_t *size);

/* ---- Advanced: CPU bits, memory estimate, hub cache, conversion ---- */

#define PG_CPU_BASELINE (UINT64_C(1) << 0)    ///< alone: the plain C kernels
#define PG_CPU_AVX2 (UINT64_C(1) << 1)        ///< AVX2, FMA and F16C
#define PG_CPU_AVX512 (UINT64_C(1) << 2)      ///< AVX-512 F, BW, DQ, VL
#define PG_CPU_AVX_VNNI (UINT64_C(1) << 3)    ///< AVX-VNNI, for int8 and int4 weights; beside AVX2
#define PG_CPU_AVX512_VNNI (UINT64_C(1) << 4) ///< AVX-512 VNNI, likewise; beside AVX-512
/** AVX-512 BF16, for PG_ARITHMETIC_BF16, and for attention beside int8 and int4 weights; beside AVX-512. Mask 0 uses it
 * where it is faster than f32. */
#define PG_CPU_AVX512_BF16 (UINT64_C(1) << 5)

/** What a session would take, before one is made: one row, in bytes. pg_generate() holds a kv_cache for each row;
 * pg_forward() holds none, but its outputs. */
typedef struct pg_memory {
    uint32_t struct_size;    ///< in: sizeof(pg_memory)
    int32_t n_threads;       ///< in: threads of the session; 0: as in pg_session_options
    int64_t n_tokens;        ///< in: max_prompt_tokens + max_new_tokens of the session; 0: one image, 64 + 128
    int64_t n_images;        ///< in: images whose features one call computes, 0 to 4096; 0: one
    uint64_t weights;        ///< out: mapped from the files, shared between processes; what was quantized left out
    uint64_t weights_copied; ///< out: small tensors held as f32, and what was quantized on opening; private
    uint64_t activations;    ///< out: working memory at the most
    uint64_t kv_cache;       ///< out: keys and values of n_tokens
} pg_memory;

/** Fills in the out fields for the in fields. */
PG_API pg_status pg_model_get_memory(const pg_model *model, pg_memory *memory);

/** Where a model id lies in a local Hugging Face cache: models--ORG--NAME/snapshots/<refs/main>. model: "ORG/NAME", or
 * "ORG/NAME@REVISION" with a branch, tag or commit. cache: the folder of the cache; NULL: $HF_HUB_CACHE, else
 * $HUGGINGFACE_HUB_CACHE, else $HF_HOME/hub, else $XDG_CACHE_HOME/huggingface/hub, else ~/.cache/huggingface/hub.
 * The path of a folder is returned as it is. Copies as pg_model_get_config() does. Errors: PG_ERROR_NOT_FOUND; the
 * message names the folders that were looked at. */
PG_API pg_status pg_checkpoint_find(const char *model, const char *cache, char *path, size_t capacity, size_t *needed);

/** Options of pg_model_convert(). */
typedef struct pg_convert_options {
    uint32_t struct_size;          ///< sizeof(pg_convert_options)
    int32_t weights;               ///< PG_WEIGHTS_INT8 (default) or PG_WEIGHTS_INT4
    int32_t n_threads;             ///< 1 to 1024; default and 0: the CPUs this process may use
    uint32_t reserved;             ///< 0
    uint64_t max_file_bytes;       ///< larger weights are split into files between tensors; default and 0: 5e9
    const pg_allocator *allocator; ///< default NULL: the C library's
    pg_log_fn log;                 ///< default NULL: silent
    void *log_user;                ///< passed to log
    pg_progress_fn progress;       ///< default NULL; phases LOAD and CONVERT
    void *progress_user;           ///< passed to progress
    pg_cancel *cancel;             ///< default NULL
} pg_convert_options;
PG_API pg_status pg_convert_options_init(pg_convert_options *options, size_t struct_size); ///< fills in the defaults

/** Writes the checkpoint `model` (a folder or an id) with quantized weights to the new or empty folder `out`, which
 * opens like any other and computes to the bit what pg_model_open() of `model` with the same options.weights computes.
 * The bytes are the same on every CPU and for every n_threads. Everything is written to `out`.partial, which is renamed
 * at the end: an interrupted conversion leaves no `out`, and the next one removes its remains. Errors: as
 * pg_model_open(); PG_ERROR_ARGUMENT (`out` is not empty or a mount point), PG_ERROR_UNSUPPORTED (`model` is quantized
 * already), PG_ERROR_IO (the disk is full, another process writes `out`). */
PG_API pg_status pg_model_convert(const char *model, const char *out, const pg_convert_options *options);

#ifdef __cplusplus
}
#endif

#endif /* PALIGEMMA_PALIGEMMA_H */
