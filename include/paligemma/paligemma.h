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
 * Order: version, status, hooks, tensor; then the simple path: image, model, processor, generate, score, answers; then
 * batches and text, forward, sessions, worker, training; then advanced: CPU bits, memory estimate, hub cache,
 * conversion. docs/EMBEDDING.md has threads, memory, cancelling, camera buffers and batches; docs/PROCESSOR.md has
 * encoding.
 *
 * Rules that hold everywhere:
 *  - A call that can fail returns a pg_status: 0 is success, negative an error, positive an event. After an error
 *    pg_last_error() says in words what was found and what was expected. An output handle is then NULL.
 *  - Structs begin with struct_size and are filled by their _init function. NULL options mean all defaults. A
 *    struct_size that was left unset, that no header gives, or that ends inside a field is PG_ERROR_ARGUMENT.
 *  - Memory that the caller passes in is read during the call only.
 *  - Handles are reference-counted: close them in any order, even inside a callback of a call that uses them: it goes
 *    on, and frees them when it returns. Close functions take the handle's address, set it to NULL, and accept NULL.
 *  - pg_model and pg_processor never change after open: any number of threads may use one at a time. pg_inputs,
 *    pg_features, pg_result, pg_scores and pg_outputs are read-only once made. pg_session and pg_detokenizer: one
 *    call at a time; another, of a second thread or of a callback of the first, is PG_ERROR_STATE and changes nothing.
 *    pg_worker: any number of threads, of which one polls.
 *  - The library never prints, exits, aborts, starts threads at load, or changes the locale or the OpenMP settings of
 *    its host.
 *  - The host's floating-point environment (rounding, flushing of denormals, traps, sticky flags) changes no result and
 *    springs no trap: calls compute in the default one. Callbacks, the allocator's too, run in the host's, and it is
 *    back when the call returns.
 *  - Callbacks return. A C++ exception that leaves one is caught: the call ends with PG_ERROR_CANCELLED (the
 * allocator's alloc: PG_ERROR_MEMORY, as if it had returned NULL), pg_last_error() names the callback and has what(),
 * and all is released; what an allocator's free throws is dropped. What cannot be caught, and must not be done:
 * longjmp() out of a callback, and ending the thread in one (pthread_exit(), pthread_cancel() of a thread in a call):
 * memory, references and threads of that call are then lost, and the handles it was given must not be used or closed
 * again. Nor may a child that a signal handler forked go on with the call that was interrupted: _exit() or exec there.
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
#if defined(_WIN32) && defined(PGI_EXPORTS) /* the library itself is built */
#define PG_API __declspec(dllexport)
#elif defined(_WIN32) /* functions need no dllimport, and without it a program may link the static library, too */
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
    PG_EVENT_LENGTH = 2,        ///< pg_session_step(): no token returned, max_new_tokens were
    PG_EVENT_CONTEXT = 3,       ///< pg_session_step(): no token returned, the row is max_context long
    PG_EVENT_STOP = 4,          ///< pg_session_sample(): no token returned, a callback wants to end the row
    PG_EVENT_NONE = 5,          ///< pg_worker_poll(), pg_worker_wait(): there is no event
    PG_ERROR_ARGUMENT = -10,    ///< a NULL pointer, a value out of range, invalid UTF-8
    PG_ERROR_MEMORY = -20,      ///< the allocator returned NULL
    PG_ERROR_IO = -30,          ///< a file could not be read or written
    PG_ERROR_NOT_FOUND = -31,   ///< a file, model id, tensor or key is not there
    PG_ERROR_FORMAT = -40,      ///< a file is damaged, truncated, or contradicts itself
    PG_ERROR_UNSUPPORTED = -50, ///< sound, but not something this version runs
    PG_ERROR_LIMIT = -60,       ///< too large: an image, a prompt, a dimension
    PG_ERROR_BUSY = -61,        ///< pg_worker_submit(): the queue is full
    PG_ERROR_CANCELLED = -70,   ///< a cancel request, a progress callback, or one that threw stopped the call
    PG_ERROR_DEADLINE = -71,    ///< the deadline of a worker's request passed before its end
    PG_ERROR_REPLACED = -72,    ///< a newer request of its stream took the place of a worker's request
    PG_ERROR_STATE = -80,       ///< calls in the wrong order, or a handle that is in use by another call
    PG_ERROR_INTERNAL = -90     ///< a defect of this library; please report it
};

/** The name of a status, such as "PG_ERROR_FORMAT". Never NULL; static storage. */
PG_API const char *pg_status_name(pg_status status);

/** What went wrong in the last failed call on this thread: one line of UTF-8. Never NULL; empty when nothing failed
 * yet. Valid until the next failing call on the same thread. */
PG_API const char *pg_last_error(void);

/** The row of the batch that pg_last_error() is about, 0 for the first; -1 when it is about none or about several. One
 * bad image of a batch is found by it. */
PG_API int64_t pg_last_error_row(void);

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
    PG_PHASE_DECODE = 4,  ///< tokens; total is the most that there may be, and falls when a row ends before
    PG_PHASE_CONVERT = 5, ///< bytes
    PG_PHASE_VERIFY = 6,  ///< bytes
    PG_PHASE_TRAIN = 7    ///< layers of all rows, there and back
};

/** Progress of a phase: `done` of `total` units. Called on the calling thread. `done` never falls, and is `total` in
 * the last report of a phase that came to its end. A non-zero return stops the call with PG_ERROR_CANCELLED. */
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

/** Values of pg_image.format. Those above 5 are what cameras give. */
enum {
    PG_IMAGE_RGB8 = 1,   ///< 3 bytes a pixel: R G B
    PG_IMAGE_BGR8 = 2,   ///< 3 bytes a pixel: B G R
    PG_IMAGE_RGBA8 = 3,  ///< 4 bytes a pixel: R G B A; A is dropped, or the colour laid over another (flags)
    PG_IMAGE_BGRA8 = 4,  ///< 4 bytes a pixel: B G R A; likewise
    PG_IMAGE_GRAY8 = 5,  ///< 1 byte a pixel
    PG_IMAGE_RGB565 = 6, ///< 16 bits a pixel, little-endian: R in the top five, G, B in the low five
    PG_IMAGE_GRAY16 = 7, ///< 16 bits a pixel, little-endian: depth, heat; gray_min and gray_max say its range
    PG_IMAGE_NV12 = 8,   ///< planes[0] Y; planes[1] U V by turns, for each 2 x 2 pixels
    PG_IMAGE_NV21 = 9,   ///< planes[0] Y; planes[1] V U by turns: Android's default
    PG_IMAGE_I420 = 10,  ///< planes[0] Y, planes[1] U, planes[2] V, the last two for each 2 x 2 pixels; YV12 has them
                         ///< the other way round
    PG_IMAGE_YUYV = 11,  ///< Y U Y V for two pixels: YUY2, most USB cameras
    PG_IMAGE_UYVY = 12,  ///< U Y V Y for two pixels
    PG_IMAGE_PATH = 100, ///< path: a PNG or JPEG file
    PG_IMAGE_BYTES = 101 ///< planes[0] and n_bytes: the bytes of a PNG or JPEG file
};

/** Values of pg_image.yuv_matrix: what Y, U and V stand for. */
enum {
    PG_YUV_BT601 = 0, ///< ITU-R BT.601: JPEG, USB cameras, frames of less than 720 rows
    PG_YUV_BT709 = 1  ///< ITU-R BT.709: HD video
};

/** Values of pg_image.yuv_range. */
enum {
    PG_YUV_VIDEO = 0, ///< black is Y 16 and white 235, U and V go from 16 to 240: video, also called limited range
    PG_YUV_FULL = 1   ///< all from 0 to 255: JPEG, Android's camera
};

/** Values of pg_image.fit: how an image becomes as wide and high as the model wants it. The two that keep its shape
 * round as openpi's resize_with_pad does: r = max(w / W, h / H) in double, and w / r by h / r without their fractions,
 * yet at least 1. They are refused where the image settings have do_resize 0 (PG_ERROR_ARGUMENT). */
enum {
    PG_FIT_STRETCH = 0,   ///< as HF: the shape is lost
    PG_FIT_LETTERBOX = 1, ///< the shape is kept, the rest has the background's colour, half of it on each side, the odd
                          ///< row or column at the right or bottom: openpi, lerobot's pi0 and pi0.5
    PG_FIT_PAD_TOP_LEFT = 2 ///< the same, but all of the rest is above or left of the image: lerobot's SmolVLA, X-VLA
};

/** Flags of pg_image. */
enum {
    PG_IMAGE_OVER_BACKGROUND =
        1 ///< lay what is transparent over `background`, in files too. Default: alpha is dropped,
          ///< or laid over white by PG_ENCODE_OVER_WHITE, and by do_convert_rgb as HF does
};

/** A borrowed image. Fill it with one of the functions below, then set what differs from the default of the fields
 * behind n_bytes. Nothing is copied: path, bytes or pixels must stay valid until the call that reads the image returns.
 *
 * Raw pixels become 8-bit RGB, exactly: each value is that of the formula of their standard, rounded to the nearest
 * (halves up). The chroma of a pixel is that of its pair or square, not interpolated. Then comes Pillow's resize, as
 * for any image. docs/EMBEDDING.md has a camera. */
typedef struct pg_image {
    uint32_t struct_size;     ///< sizeof(pg_image)
    int32_t format;           ///< PG_IMAGE_*
    int32_t width;            ///< pixels, >= 1; raw formats only
    int32_t height;           ///< pixels, >= 1; raw formats only
    const uint8_t *planes[4]; ///< planes[0]: the first byte of the top row (raw), or the file's bytes. NV12, NV21: also
                              ///< [1]; I420: [1] and [2]
    int64_t strides[4];       ///< of each plane: bytes from one row to the next below it; may be negative; 0: dense
    const char *path;         ///< UTF-8; PG_IMAGE_PATH only
    /// of the file (PG_IMAGE_BYTES), or of the buffer of a raw format, which its rows may not leave
    /// (PG_ERROR_ARGUMENT): for NV12, NV21 and I420 that is one buffer with all planes, from planes[0] on. Raw formats:
    /// default and 0: not known, not checked
    uint64_t n_bytes;
    int32_t yuv_matrix;    ///< PG_YUV_BT601 or _BT709; default BT601. NV12, NV21, I420, YUYV, UYVY only
    int32_t yuv_range;     ///< PG_YUV_VIDEO or _FULL; default VIDEO. Likewise
    int32_t fit;           ///< PG_FIT_*; default STRETCH
    uint32_t flags;        ///< PG_IMAGE_OVER_BACKGROUND or 0; default 0
    uint8_t background[4]; ///< R, G, B, 0: of the letterbox and of OVER_BACKGROUND; default black
    /// the part that is used: x, y, width, height in pixels of the image, as it is turned (PG_ENCODE_EXIF); files too.
    /// It must lie inside (PG_ERROR_ARGUMENT). Default: four zeros, the whole. "image_sizes" stay those of the whole
    int32_t roi[4];
    int32_t gray_min;  ///< 0 to 65534: what becomes black in GRAY16, and less does; default 0
    int32_t gray_max;  ///< more than gray_min, to 65535: what becomes white, and more does; default and both 0: 65535
    uint32_t reserved; ///< 0
} pg_image;

/** A PNG or JPEG file by its path. The file is read when the image is used. A pipe (a FIFO, "/dev/stdin", /dev/fd/N) is
 * read to its end: waited for 10 s until somebody writes to it, and 60 s from one byte to the next; encoding looks at
 * its cancel flag meanwhile. Devices and sockets are refused (PG_ERROR_IO), and files of more than 1 GiB (_LIMIT). */
PG_API pg_status pg_image_from_path(pg_image *image, size_t struct_size, const char *path);
/** The `n_bytes` bytes of a PNG or JPEG file. */
PG_API pg_status pg_image_from_bytes(pg_image *image, size_t struct_size, const void *bytes, size_t n_bytes);
/** A camera or texture buffer. `pixels` points at the top row. `stride` is in bytes, 0 for dense rows, negative where
 * the top row comes last in memory; a stride shorter than a row is refused. NV12, NV21 and I420: one buffer with the
 * planes one behind the other, as V4L2, FFmpeg and OpenCV give them. `stride` is that of Y, of U and V together, and
 * twice that of U alone, and not negative. */
PG_API pg_status pg_image_from_pixels(pg_image *image, size_t struct_size, int32_t format, int32_t width,
                                      int32_t height, const void *pixels, int64_t stride);
/** The same where each plane has its own address: any raw format, planes [1 to 3] as `format` has them. strides: of
 * each plane, as in pg_image; NULL: all dense. */
PG_API pg_status pg_image_from_planes(pg_image *image, size_t struct_size, int32_t format, int32_t width,
                                      int32_t height, const void *const *planes, const int64_t *strides);

/** The rectangle that a model sees, in pixels of the whole image: the region of interest, and with a letterbox the bars
 * around it, so that x and y may be negative. */
typedef struct pg_window {
    uint32_t struct_size; ///< sizeof(pg_window)
    uint32_t reserved;    ///< 0
    double x;             ///< left edge
    double y;             ///< top edge
    double width;         ///< more than 0
    double height;        ///< more than 0
} pg_window;
/** The window of an image, for pg_answer_options.window. image_width, image_height: of the whole image, turned, as
 * "image_sizes" has it; 0 for both: those of raw pixels. width, height: of the pixels that the model takes
 * (pg_image_settings). Nothing but sizes, `fit` and `roi` of the image is read. Errors: PG_ERROR_ARGUMENT. */
PG_API pg_status pg_image_get_window(const pg_image *image, int32_t image_width, int32_t image_height, int32_t width,
                                     int32_t height, pg_window *out);

/* ---- Model ---- */

/** The weights of a checkpoint folder, mapped; immutable. */
typedef struct pg_model pg_model;

/** How the matrices of linear layers, embedding and head are kept (docs/FORMATS.md). */
enum {
    PG_WEIGHTS_STORED = 0, ///< as the folder has them
    PG_WEIGHTS_INT8 = 1,   ///< 8 bits, a scale for each 128 weights of a row: 8.25 bits a weight
    PG_WEIGHTS_INT4 = 2 ///< 4 bits, a scale for each 128 and a fine one for each 32 weights: 4.25 bits a weight. Some
                        ///< matrices may be int8 beside it: PG_INT8_LAYERS_MIX
};

/** Names for int8_layers of pg_model_options and pg_convert_options: the matrices that are int8 where the rest is int4.
 * A list has names with commas between. A name has words with dots between and means the matrices that fit all of them:
 * "embedding" (with the head), "patches" (the encoder's convolution), "projector"; "encoder" or "decoder" (all of its
 * layers), the number of a layer, "attention" (q, k, v, out) or "mlp" (the rest of a layer), and single matrices: q, k,
 * v, out, fc1, fc2 (encoder), gate, up, down (decoder). So "decoder.0" is one layer and "decoder.down" one matrix of
 * each. The list below is the one to begin with: measured in docs/EXACTNESS.md, 5.4 bits a weight of a 3B model. */
#define PG_INT8_LAYERS_MIX "embedding,attention"

/** What matrix products are computed in. Sums, and everything between products, are f32. Linear layers with int8 or
 * int4 weights are not affected: they multiply int8 and sum exactly in groups. */
enum {
    PG_ARITHMETIC_DEFAULT = 0, ///< F32; beside int8 and int4 weights, attention as with BF16
    PG_ARITHMETIC_F32 = 1,     ///< f32
    PG_ARITHMETIC_BF16 = 2     ///< round the inputs of products to bf16, for more than 4 rows (encoder, prefill), on
                               ///< CPUs where that is faster (PG_CPU_AVX512_BF16, PG_CPU_AMX_BF16 or
                               ///< PG_CPU_NEON_BF16 in use); elsewhere the same as F32
};

/** What the KV cache keeps of the tokens before a decoding step: keys and values of each layer. A step reads all of
 * them, so their size is speed: of PaliGemma 2 3B at 896 px 0.9 GB a row in f32, half of that in bf16. A prompt is
 * computed from unrounded ones either way; its first token has the same bits. */
enum {
    PG_KV_DEFAULT = 0, ///< BF16 beside int8 and int4 weights, else F32
    PG_KV_F32 = 1,     ///< as they were computed
    PG_KV_BF16 = 2     ///< rounded to bf16
};

/** Flags of pg_model_options. */
enum {
    PG_MODEL_VERIFY = 1, ///< read a whole converted folder and compare its checksums; without it only those of headers
                         ///< are compared. PG_ERROR_FORMAT names what is damaged, PG_ERROR_UNSUPPORTED: it has none
    PG_MODEL_IN_MEMORY = 2 ///< read the weights into memory of this process (allocator) instead of mapping the files:
                           ///< what happens to them after opening does no harm, a failing read while opening is
                           ///< PG_ERROR_IO. Default: mapped; see pg_model_open() for its risk, SIGBUS
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
    const char *int8_layers;       ///< beside INT4: what is int8 (PG_INT8_LAYERS_MIX); default NULL: nothing, and
                                   ///< of a converted folder what it has. Another mix than a folder's is refused
    int32_t weights;               ///< PG_WEIGHTS_*; default STORED. A folder converted to the other kind is refused
    int32_t arithmetic;            ///< PG_ARITHMETIC_*; default DEFAULT
    int32_t n_threads;             ///< 1 to 1024, for verifying and quantizing; default and 0: CPUs, at most 64
    int32_t kv;                    ///< PG_KV_*; default DEFAULT
} pg_model_options;
PG_API pg_status pg_model_options_init(pg_model_options *options, size_t struct_size); ///< fills in the defaults

/** Opens the checkpoint folder `model`, or a model id such as "google/paligemma-3b-mix-224" from the local Hugging Face
 * cache (pg_checkpoint_find()); the network is never used. The weight files stay mapped until the model and all made
 * from it are closed: do not truncate or rewrite them in that time, unless PG_MODEL_IN_MEMORY is set: reading a page
 * that is gone (a file cut or copied over, a disk or server that fails) raises SIGBUS. A file whose size or time of
 * change is another than when it was opened is PG_ERROR_IO where a session is made or prefilled, and where a call that
 * computes begins (pg_generate(), pg_forward(), pg_features_create(), pg_score(), ...); what happens during a call, and
 * between steps, is not seen. One descriptor for each file stays open: a host that closes it gets PG_ERROR_IO where a
 * change would be noticed. Opening itself reads the files and touches no mapping.
 * ColPali checkpoints (ColPaliForRetrieval of transformers, merged ones of colpali-engine) open too, with their
 * projection, for PG_FORWARD_RETRIEVAL; so do folders of MLX that are not quantized.
 * Errors: PG_ERROR_NOT_FOUND, _IO, _FORMAT, _UNSUPPORTED, _MEMORY, _CANCELLED; _ARGUMENT: an option is out of range, or
 * a weight that is to be quantized is not finite. */
PG_API pg_status pg_model_open(const char *model, const pg_model_options *options, pg_model **out);
PG_API void pg_model_close(pg_model **model); ///< drops the caller's reference

/** What a model is. */
typedef struct pg_model_info {
    uint32_t struct_size;     ///< in: sizeof(pg_model_info)
    int32_t gemma_version;    ///< of the decoder. 1: PaliGemma, 2: PaliGemma 2
    uint64_t n_parameters;    ///< elements of all tensors in use, a tied head counted once
    uint64_t n_bytes_mapped;  ///< bytes of the mapped weight files; 0 with PG_MODEL_IN_MEMORY
    uint64_t cpu_used;        ///< PG_CPU_* bits of the kernels chosen
    uint32_t n_files;         ///< safetensors files
    uint32_t n_tensors;       ///< tensors in use
    uint32_t dtypes;          ///< bit (1 << PG_DTYPE_x) for each stored dtype in use, that of quantized ones left out
    int32_t image_size;       ///< pixels, width = height
    int32_t n_image_tokens;   ///< image tokens of an image: (image_size / patch_size)^2
    int32_t vocab_size;       ///< rows of the head
    int32_t weights;          ///< PG_WEIGHTS_*: how the matrices are kept
    int32_t arithmetic;       ///< PG_ARITHMETIC_F32 or _BF16
    int32_t embedding_dim;    ///< values of an embedding of PG_FORWARD_RETRIEVAL; 0: no ColPali checkpoint
    uint32_t n_int8_matrices; ///< matrices that are int8: of a mix (weights INT4) some, of INT8 all
    int32_t kv;               ///< PG_KV_F32 or _BF16
    uint32_t reserved;        ///< 0
} pg_model_info;
PG_API pg_status pg_model_get_info(const pg_model *model, pg_model_info *info); ///< describes it

/** A field of the HF config as JSON text, by its key: "text_config.hidden_size", "vision_config.patch_size",
 * "image_token_index"; "" gives the whole config. Fields that config.json leaves out have the defaults of the HF
 * classes (PaliGemmaConfig, GemmaConfig, Gemma2Config, SiglipVisionConfig). Of ColPaliForRetrieval it is the
 * vlm_config, with "embedding_dim". Copies at most `capacity` bytes with the
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

/** Flags of pg_processor_options. */
enum {
    PG_PROCESSOR_TEXT_ONLY = 1,   ///< the tokenizer's files alone, as transformers' AutoTokenizer reads them: no image
                                  ///< settings are needed or read, `<image>`, `<locNNNN>` and `<segNNN>` are there only
                                  ///< where the files have them, and images are refused (PG_ERROR_ARGUMENT)
    PG_PROCESSOR_IMAGES_ONLY = 2, ///< the image settings alone, as transformers' AutoImageProcessor reads them: no
                                  ///< tokenizer is needed or read, and texts and ids are refused (PG_ERROR_ARGUMENT).
                                  ///< image_seq_length may lack (n_image_tokens is 0 then)
    PG_PROCESSOR_SENTENCEPIECE = 4 ///< merge by the library sentencepiece where it gives transformers' ids, a second
                                   ///< reading to compare with. Default: by merges of our own, to the same ids in half
                                   ///< the time. A malloc refused inside sentencepiece can end the process (protobuf).
                                   ///< Refused by builds without it (PG_ERROR_UNSUPPORTED) and with IMAGES_ONLY
};

/** Options of pg_processor_open(). */
typedef struct pg_processor_options {
    uint32_t struct_size;          ///< sizeof(pg_processor_options)
    uint32_t flags;                ///< PG_PROCESSOR_*; default 0
    uint64_t cpu_mask;             ///< PG_CPU_* bits that image resizing may use; default and 0: the fastest set
    const pg_allocator *allocator; ///< default NULL: the C library's
    pg_log_fn log;                 ///< default NULL: silent
    void *log_user;                ///< passed to log
    pg_cancel *cancel;             ///< default NULL; opening sees it within about 0.3 s
} pg_processor_options;
PG_API pg_status pg_processor_options_init(pg_processor_options *options,
                                           size_t struct_size); ///< fills in the defaults

/** Opens the tokenizer (tokenizer.json where it is there, else tokenizer.model, as transformers does) and the image
 * settings (processor_config.json, else preprocessor_config.json) of a checkpoint folder or model id. model NULL with
 * PG_PROCESSOR_IMAGES_ONLY: the defaults of transformers' SiglipImageProcessor, 224 x 224. Errors: as pg_model_open().
 */
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

/** Resize filters, by Pillow's numbers (PIL.Image.Resampling). */
enum {
    PG_RESAMPLE_NEAREST = 0,  ///< the nearest pixel
    PG_RESAMPLE_LANCZOS = 1,  ///< windowed sinc, 3 lobes
    PG_RESAMPLE_BILINEAR = 2, ///< triangle
    PG_RESAMPLE_BICUBIC = 3,  ///< cubic, a = -0.5: all published checkpoints
    PG_RESAMPLE_BOX = 4,      ///< mean
    PG_RESAMPLE_HAMMING = 5   ///< Hamming window
};

/** How an image becomes pixel_values: it is resized, rescaled, normalized. pg_processor_get_image_settings()
 * gives what the folder says; changed, they serve pg_encode_options.image_settings. */
typedef struct pg_image_settings {
    uint32_t struct_size;    ///< in: sizeof(pg_image_settings)
    int32_t height;          ///< pixels, 1 to 16384. A model takes the size of its own config only
    int32_t width;           ///< likewise
    int32_t resample;        ///< PG_RESAMPLE_*
    uint32_t do_resize;      ///< 0 or 1. 0: images keep their own size, which must be one for all of a call
    uint32_t do_rescale;     ///< 0 or 1: multiply by rescale_factor
    uint32_t do_normalize;   ///< 0 or 1: subtract image_mean, divide by image_std
    uint32_t do_convert_rgb; ///< 0 or 1: 1 lays what is transparent in a PNG's palette or colour key over white, as HF
    int32_t n_image_tokens;  ///< 0 to 65536: `<image>` tokens of an image (image_seq_length)
    uint32_t reserved;       ///< 0
    float image_mean[3];     ///< R, G, B, in units of rescaled pixels; finite
    float image_std[3];      ///< likewise, and not 0
    double rescale_factor;   ///< finite; 1/255 in all published checkpoints
} pg_image_settings;
/** The settings that `processor` was opened with. */
PG_API pg_status pg_processor_get_image_settings(const pg_processor *processor, pg_image_settings *settings);

/** Options of pg_processor_encode() and pg_processor_encode_batch(). "The tokenizer's" value is the one that
 * tokenizer_config.json says, else the one that tokenizer.json was saved with. */
typedef struct pg_encode_options {
    uint32_t struct_size; ///< sizeof(pg_encode_options)
    uint32_t flags;       ///< PG_ENCODE_*; default 0
    /// width x height above this is PG_ERROR_LIMIT; default and 0: 178956970, as Pillow. Peak memory for each pixel, in
    /// bytes: 3, and 3 more to turn it (EXIF); progressive JPEG 6 more (2 of grey, 8 of CMYK); what a row of the file
    /// takes, thrice, in PNG. With EXIF 6.2 MiB at most for a PNG's texts. A robot with a 12 megapixel camera sets 12
    /// million: 72 MB, 108 MB where files can be progressive. A PNG whose header promises more than deflate can pack
    /// (1032 to 1) is PG_ERROR_FORMAT, a JPEG of more than 2^25 pixels and 1024 for each byte PG_ERROR_LIMIT: no file
    /// that is whole is refused by that, but blank ones of arithmetic coding (docs/SECURITY_MODEL.md)
    int64_t max_image_pixels;
    int32_t mode;               ///< PG_MODE_*; default HF
    int32_t padding;            ///< PG_PADDING_*; default LONGEST
    int32_t padding_side;       ///< PG_SIDE_*; default the tokenizer's
    int32_t pad_to_multiple_of; ///< >= 1: padded lengths are multiples of it; default and 0: the tokenizer's, else 1
    int64_t max_length;      ///< tokens of a row, image tokens included, for TRUNCATE and PADDING_MAX_LENGTH; default
                             ///< and 0: the tokenizer's max_length, else its model_max_length, else no limit
    int32_t truncation;      ///< PG_TRUNCATION_*; default LONGEST
    int32_t truncation_side; ///< PG_SIDE_*: where a part is shortened; default the tokenizer's
    pg_cancel *cancel;       ///< default NULL
    const pg_image_settings *image_settings; ///< for this call; default NULL: the processor's. PG_MODE_BIG_VISION uses
                                             ///< size and n_image_tokens alone. Errors: PG_ERROR_ARGUMENT
    /// tokens of a row after truncation, and those that its `<image>` stand for, which are counted before they are
    /// made; more is PG_ERROR_LIMIT. Default and 0: 131072; at most 16777216. Peak memory for each byte of a prompt: up
    /// to 180 bytes (270 by sentencepiece); for each token of the padded batch 40. Padding of a batch beyond 16777216
    /// tokens is PG_ERROR_LIMIT
    int64_t max_tokens;
    /// bytes of a row's prompt, and of its suffix: more is PG_ERROR_LIMIT before any of them is tokenized, also where
    /// the row would be truncated. Default and 0: 16 for each of max_tokens; at most 536870911
    int64_t max_text_bytes;
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

/** Sees, and may change, the logits that the next token of row `row` is chosen from, after every other setting but
 * those that follow PG_SAMPLING_RANDOM (HF: a custom logits_processor). ids: the ids of the row so far, prompt (image
 * tokens included, padding left out; of inputs given as embeddings none) and new ones; logits: [vocab_size], -INFINITY
 * keeps an id out. Called on the calling thread; the arrays are valid during the call. A non-zero return ends the row
 * before the token is chosen (PG_STOP_LOGITS). */
typedef int32_t (*pg_logits_fn)(void *user, int64_t row, const int64_t *ids, int64_t n_ids, float *logits,
                                int64_t vocab_size);

/** Says which ids may follow in row `row`: bit (id % 32) of mask[id / 32], all 0 at the call (HF:
 * prefix_allowed_tokens_fn). ids as in pg_logits_fn. A non-zero return ends the row as that of pg_logits_fn. */
typedef int32_t (*pg_mask_fn)(void *user, int64_t row, const int64_t *ids, int64_t n_ids, uint32_t *mask,
                              int64_t vocab_size);
/** Called in each step of a beam search, on the calling thread, with the texts that may go on or end there, the best
 * first unless drawn (HF: StoppingCriteria): ids, [n_texts, n_ids], each the row's ids and the new ones of a beam. What
 * is set to non-zero in ends, [n_texts], all 0 before, ends with that token (PG_STOP_CALLBACK). A non-zero return ends
 * the row as that of pg_logits_fn. */
typedef int32_t (*pg_texts_fn)(void *user, int64_t row, const int64_t *ids, int64_t n_ids, int64_t n_texts,
                               uint8_t *ends);

/** Flags of pg_sampling_options. */
enum {
    PG_SAMPLING_ADD_EOS = 1,     ///< eos_ids are added to those of the checkpoint. Default: they replace them
    PG_SAMPLING_IGNORE_EOS = 2,  ///< no id ends a row; to settings that look at eos, eos_ids still are
    PG_SAMPLING_RANDOM = 4,      ///< draw the token by the scores' softmax (HF: do_sample). Default: the likeliest
    PG_SAMPLING_ROW_STREAMS = 8, ///< row r of the result draws from stream + r. Default: every row from stream, text
                                 ///< k of n_return from stream + k, as it does alone
    PG_SAMPLING_REMOVE_INVALID = 16, ///< NaN becomes 0, infinities the largest float (HF: remove_invalid_values)
    PG_SAMPLING_RENORMALIZE = 32     ///< scores are log-softmaxed at last (HF: renormalize_logits)
};

/** How the next token is chosen: by default the likeliest one, of equally likely ones the lowest id. The settings
 * change the logits in the order, and by the numbers, of transformers' generate(): biases, repetition_penalty,
 * no_repeat_ngram_size, bad words, min_length, min_new_tokens, token_mask and on_mask, forced_bos_id, forced_eos_ids,
 * REMOVE_INVALID, decay, suppressed_ids, begin_suppressed_ids, on_logits; then with PG_SAMPLING_RANDOM temperature,
 * top_h, top_k, top_p, min_p, typical_p, epsilon_cutoff, eta_cutoff; RENORMALIZE. Ids that a setting keeps out get
 * -INFINITY; PG_ERROR_ARGUMENT where they leave none. "The row's ids" are those that pg_logits_fn sees. What the
 * pointers point to must stay until the call returns.
 *
 * A token is drawn as docs/SAMPLING.md says: one 64-bit number of Philox4x32-10 (key: seed; counter: step and stream),
 * and sums of whole numbers, so that it depends on the scores alone, not on threads, batch or machine. */
typedef struct pg_sampling_options {
    uint32_t struct_size;                ///< sizeof(pg_sampling_options)
    uint32_t flags;                      ///< PG_SAMPLING_*; default 0
    uint64_t seed;                       ///< of the draws; default 0
    uint64_t stream;                     ///< another series of draws of the seed; default 0
    double temperature;                  ///< 1e-30 to 1e30; default 1
    double top_h;                        ///< 0 < top_h <= 1; default 0: off
    double top_p;                        ///< 0 < top_p <= 1; default 1: off
    double min_p;                        ///< 0 to 1; default 0: off
    double typical_p;                    ///< 0 < typical_p <= 1; default 1: off
    double epsilon_cutoff;               ///< 0 <= epsilon_cutoff < 1; default 0: off
    double eta_cutoff;                   ///< 0 <= eta_cutoff < 1; default 0: off
    double repetition_penalty;           ///< 1e-30 to 1e30; of the row's ids; default 1: off
    double decay_factor;                 ///< 1e-30 to 1e30 (HF: exponential_decay_length_penalty[1]); default 1: off
    int32_t decay_start;                 ///< >= 0 new tokens (HF: exponential_decay_length_penalty[0]); default 0
    int32_t top_k;                       ///< >= 0, 0: off; default 50, as in transformers
    int32_t no_repeat_ngram_size;        ///< >= 0; of the row's ids; default 0: off
    int32_t min_new_tokens;              ///< >= 0: no eos before; default 0
    int32_t min_length;                  ///< >= 0: no eos before, prompt included; not with min_new_tokens; default 0
    uint32_t reserved;                   ///< 0
    int64_t forced_bos_id;               ///< the id that follows a single one; default -1: none
    const int64_t *eos_ids;              ///< [n_eos_ids] ids that end a row; default NULL: those of the checkpoint
    int64_t n_eos_ids;                   ///< default 0
    const int64_t *forced_eos_ids;       ///< [n_forced_eos_ids] one of them is the last of max_new_tokens
    int64_t n_forced_eos_ids;            ///< default 0
    const int64_t *suppressed_ids;       ///< [n_suppressed_ids] never chosen
    int64_t n_suppressed_ids;            ///< default 0
    const int64_t *begin_suppressed_ids; ///< [n_begin_suppressed_ids] not the first new token
    int64_t n_begin_suppressed_ids;      ///< default 0
    const int64_t *bad_word_ids;         ///< the ids of all bad words, one word after the other
    const int64_t *bad_word_sizes;       ///< [n_bad_words] ids of each, >= 1; its last id never follows the others
    int64_t n_bad_words;                 ///< default 0
    const int64_t *bias_ids;             ///< the ids of all biased sequences, likewise (HF: sequence_bias)
    const int64_t *bias_sizes;           ///< [n_biases] ids of each, >= 1
    const double *biases;                ///< [n_biases] added to the logit of the last id where the others came before
    int64_t n_biases;                    ///< default 0
    const uint32_t *token_mask; ///< [(vocab_size + 31) / 32] as in pg_mask_fn; default NULL: all ids may follow
    pg_mask_fn on_mask;         ///< default NULL; both masks must allow an id
    void *on_mask_user;         ///< passed to on_mask
    pg_logits_fn on_logits;     ///< default NULL
    void *on_logits_user;       ///< passed to on_logits
} pg_sampling_options;
PG_API pg_status pg_sampling_options_init(pg_sampling_options *options, size_t struct_size); ///< fills in the defaults
/** The settings of generation_config.json, which pg_generate() and pg_session_sample() follow when they are given none:
 * as transformers' generate() without arguments. What the file leaves out has its default. To change some of them,
 * change *out. out->struct_size: sizeof(pg_sampling_options). Its arrays are valid until the model is closed. */
PG_API pg_status pg_model_get_sampling(const pg_model *model, pg_sampling_options *out);

/** Values of pg_beam_options.early_stopping: when a search ends that has n_beams complete texts. */
enum {
    PG_EARLY_STOPPING_OFF = 0,  ///< when no beam looks likely to become better than the worst of them
    PG_EARLY_STOPPING_ON = 1,   ///< at once
    PG_EARLY_STOPPING_NEVER = 2 ///< when no beam can become better
};

/** Settings of beam search (HF: GenerationMixin._beam_search): n_beams texts are followed at once, of which those with
 * the highest score are the result. A score is the sum of the tokens' log-probabilities, as the settings of sampling
 * leave them, / (number of tokens) ^ length_penalty. docs/SAMPLING.md. */
typedef struct pg_beam_options {
    uint32_t struct_size;   ///< sizeof(pg_beam_options)
    int32_t n_beams;        ///< 1 (no search) to 64; default 1. Each has its own keys and values
    int32_t early_stopping; ///< PG_EARLY_STOPPING_*; default OFF, as in transformers
    uint32_t reserved;      ///< 0
    double length_penalty;  ///< finite; above 0 favours long texts; default 1
    pg_texts_fn on_texts;   ///< default NULL
    void *on_texts_user;    ///< passed to on_texts
} pg_beam_options;
PG_API pg_status pg_beam_options_init(pg_beam_options *options, size_t struct_size); ///< fills in the defaults

/** Flags of pg_generate_options. The first three: what the result keeps of every step, for pg_result_get_tensor(). */
enum {
    PG_GENERATE_LOG_PROBS = 1,     ///< "log_probs" and "score_log_probs": 8 bytes a token
    PG_GENERATE_LOGITS = 2,        ///< "logits": 4 * vocab_size bytes a token, 1 MB in the published models
    PG_GENERATE_SCORES = 4,        ///< "scores": likewise
    PG_GENERATE_IGNORE_CONFIG = 8, ///< follow nothing of generation_config.json but its eos ids
    PG_GENERATE_DETECT = 16, ///< only tokens that keep an answer to "detect" well-formed: whole boxes with y1 > y0 and
                             ///< x1 > x0, a label each, " ; " between them, eos (docs/ANSWERS.md)
    PG_GENERATE_SEGMENT = 32 ///< the same of "segment": 16 segs behind each box; the last may go without a label. Not
                             ///< together with _DETECT
};

/** Options of pg_generate(). */
typedef struct pg_generate_options {
    uint32_t struct_size;   ///< sizeof(pg_generate_options)
    uint32_t flags;         ///< PG_GENERATE_*; default 0
    int32_t max_new_tokens; ///< >= 1, of each row; default and 0: max_new_tokens of generation_config.json, else what
                            ///< its max_length leaves, else 128
    int32_t n_threads;      ///< 1 to 1024; default and 0: the CPUs this process may use
    const pg_features *features;         ///< default NULL: computed from the pixels of the inputs
    pg_text_fn on_text;                  ///< default NULL; text without special tokens
    void *on_text_user;                  ///< passed to on_text
    pg_progress_fn progress;             ///< default NULL; phases VISION, PREFILL, DECODE; PREFILL and DECODE by
                                         ///< turns where rows wait (max_running), each going on from where it was
    void *progress_user;                 ///< passed to progress
    pg_cancel *cancel;                   ///< default NULL
    const pg_sampling_options *sampling; ///< default NULL: all defaults
    const char *const
        *stop_strings;            ///< [n_stop_strings] UTF-8, not empty: a row ends with the token that completes one
                                  ///< (PG_STOP_STRING). As transformers: the text keeps it, and what the token has
                                  ///< behind it; special tokens count as they are written, and so does the prompt
    int32_t n_stop_strings;       ///< default and 0: those of generation_config.json, if any
    int32_t n_alternatives;       ///< 0 to 1024 and vocab_size: likeliest ids of each step that the result keeps
                                  ///< ("alternative_ids", 12 bytes each); default 0
    double max_seconds;           ///< a row ends with the token at which the call has taken longer
                                  ///< (PG_STOP_TIME); default and 0: max_time of generation_config.json, else no limit
    int64_t max_context;          ///< tokens of a row, prompt and new ones; default and 0: as many as memory allows, at
                                  ///< most 16777216. A longer prompt is PG_ERROR_LIMIT
    const pg_beam_options *beams; ///< default NULL: those of generation_config.json, else no beams
    int32_t n_return; ///< texts of each row, 1 to 1024: rows r * n_return to r * n_return + n_return - 1 of the result
                      ///< are those of row r. With beams at most n_beams, the best first; without, each text has its
                      ///< own draws (PG_SAMPLING_RANDOM). The prompt is computed once. Callbacks are told the row
                      ///< of the result; with beams on_mask and on_logits, called for each beam, that of the inputs.
                      ///< default and 0: num_return_sequences of generation_config.json, else 1
    int32_t max_running; ///< rows of the result that run at a time, each with its keys and values in memory; when one
                         ///< ends, the next begins. 1 or more; default and 0: as many as take a step together, 16 with
                         ///< int8 and int4 weights, 4 with stored ones. Beams: of no effect, one prompt runs at a time
    const pg_model *const *row_models; ///< [n_row_models]: the handle of each row of the inputs, such as one with
                                       ///< adapters (pg_model_adapt()); an entry NULL: the call's. All are on the base
                                       ///< of the call's. A row gets what it gets alone with its handle, while rows
                                       ///< that decode together read the base's weights once. The array stays as it
                                       ///< is during the call. Default NULL
    int64_t n_row_models;              ///< default and 0: all rows are the call's; else as many as the inputs have
} pg_generate_options;
PG_API pg_status pg_generate_options_init(pg_generate_options *options, size_t struct_size); ///< fills in the defaults

/** Generates until an eos id of the checkpoint, max_new_tokens, or another PG_STOP_*: with default options greedily,
 * the text of HF's generate(do_sample=False) on the same inputs in f32. The rows of a batch run together, up to
 * max_running at a time, each gets the tokens that it gets alone and ends on its own. With beams the rows are searched
 * one after the other, and on_text is told of a row's tokens when they are known, at the end of its search. Padding is
 * left out; a suffix is continued (see PG_ENCODE_OPEN_SUFFIX). processor NULL: ids alone, each text stays empty.
 * Settings of generation_config.json are followed where the options say nothing, as transformers follows them
 * (docs/SAMPLING.md); opening the model logs a warning that names those that are not, such as guidance_scale. Memory
 * for the keys and values of the rows that run is made before anything is computed, for up to 8192 new tokens of each,
 * and grows where more come. Errors: PG_ERROR_ARGUMENT names the row (also: a handle of row_models is on another base,
 * or does not take the features), _LIMIT (a prompt longer than max_context),
 * _MEMORY, _CANCELLED. */
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

/** A tensor of row `row` of the result, valid until the result is closed. n new tokens, k alternatives:
 *  - "ids"                    i64 [n]  as pg_result_get_ids()
 *  - "log_probs"              f32 [n]  of each new token: log-softmax of the model's logits (PG_GENERATE_LOG_PROBS)
 *  - "score_log_probs"        f32 [n]  the same of the scores, what the token was chosen from (PG_GENERATE_LOG_PROBS)
 *  - "alternative_ids"        i64 [n, k]  the likeliest ids of each step by the model's logits, the likeliest first, of
 *                             equally likely ones the lowest first; -1: fewer are numbers (n_alternatives)
 *  - "alternative_log_probs"  f32 [n, k]  their log-softmax of the model's logits (n_alternatives)
 *  - "logits"                 f32 [n, vocab_size]  of the model, soft cap applied (PG_GENERATE_LOGITS; HF:
 * output_logits)
 *  - "scores"                 f32 [n, vocab_size]  after all settings and on_logits (PG_GENERATE_SCORES; HF:
 *                             output_scores). With beams: what is added to the score of the text
 *  - "beam_indices"           i64 [n]  with beams: the beam, 0 to n_beams - 1, that each token continued (HF:
 *                             beam_indices, which count on over the rows of a batch)
 *  - "beam_logits", "beam_scores"  f32 [steps, n_beams, vocab_size]  with beams: of all that ran in a search of this
 *                             row's prompt (PG_GENERATE_LOGITS, PG_GENERATE_SCORES)
 *
 * Errors: PG_ERROR_ARGUMENT (no such row), PG_ERROR_NOT_FOUND (no such name, or it was not asked for). */
PG_API pg_status pg_result_get_tensor(const pg_result *result, int64_t row, const char *name, pg_tensor *out);

/** Values of pg_result_info.stop: why a row ended. The first that applies: an eos id, a stop string, on_text, the time,
 * the length. */
enum {
    PG_STOP_EOS = 1,      ///< an eos id came
    PG_STOP_LENGTH = 2,   ///< max_new_tokens
    PG_STOP_CALLBACK = 3, ///< on_text returned non-zero, or on_texts ended it
    PG_STOP_CONTEXT = 4,  ///< max_context, before max_new_tokens; or 16777216 tokens
    PG_STOP_STRING = 5,   ///< a stop string is complete
    PG_STOP_TIME = 6,     ///< max_seconds are over
    PG_STOP_LOGITS = 7    ///< on_logits returned non-zero: no token of that step
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
    double score;            ///< of the text, with beams (pg_beam_options); else 0
} pg_result_info;

/** Describes row `row`. Errors: PG_ERROR_ARGUMENT (no such row). */
PG_API pg_status pg_result_get_info(const pg_result *result, int64_t row, pg_result_info *info);

/* ---- Score: how likely given answers are ---- */

/** The log-probabilities of answers. Read-only. */
typedef struct pg_scores pg_scores;

/** Flags of pg_score_options. */
enum {
    PG_SCORE_NO_EOS = 1, ///< texts are scored without eos: as the beginning of an answer. Default: with it, as a whole
                         ///< answer, as the model was trained to end
    PG_SCORE_LITERAL = 2 ///< special tokens in texts are plain characters, as PG_ENCODE_LITERAL
};

/** Options of pg_score() and pg_score_ids(). */
typedef struct pg_score_options {
    uint32_t struct_size;        ///< sizeof(pg_score_options)
    uint32_t flags;              ///< PG_SCORE_*; default 0. pg_score_ids() follows none
    int32_t n_threads;           ///< 1 to 1024; default and 0: the CPUs this process may use
    uint32_t reserved;           ///< 0
    const pg_features *features; ///< default NULL: computed from the pixels of the inputs
    int64_t max_context;         ///< tokens of prompt and answer; a longer answer is PG_ERROR_LIMIT; default and 0:
                                 ///< 16777216
    pg_progress_fn progress;     ///< default NULL; phases VISION, PREFILL, DECODE (tokens of all answers)
    void *progress_user;         ///< passed to progress
    pg_cancel *cancel;           ///< default NULL
} pg_score_options;
PG_API pg_status pg_score_options_init(pg_score_options *options, size_t struct_size); ///< fills in the defaults

/** The log-probability of each of `n_answers` answers (UTF-8; "" is the eos alone) to the one row of `inputs`: the sum
 * of its tokens' log-softmax under the model's logits when the answer is fed behind the prompt (HF: forward() with
 * suffix=answer). An answer becomes ids as a suffix of pg_processor_encode_batch() does: no bos, and eos. The prompt is
 * run once, and the answers behind it together. An answer's numbers have the same bits whatever other answers are given
 * and for every n_threads. Memory beside the results does not grow with n_answers. Errors: PG_ERROR_ARGUMENT
 * (no answers, an answer that is NULL, invalid UTF-8, has `<image>`, or no tokens; several rows), _LIMIT (longer than
 * max_context), _MEMORY, _CANCELLED. */
PG_API pg_status pg_score(const pg_model *model, const pg_processor *processor, const pg_inputs *inputs,
                          const char *const *answers, int64_t n_answers, const pg_score_options *options,
                          pg_scores **out);
/** The same of ids: those of all answers, one after the other, sizes[i] >= 1 of answer i. Nothing is added. Errors:
 * also PG_ERROR_ARGUMENT (an id outside the vocabulary). */
PG_API pg_status pg_score_ids(const pg_model *model, const pg_inputs *inputs, const int64_t *ids, const int64_t *sizes,
                              int64_t n_answers, const pg_score_options *options, pg_scores **out);
PG_API void pg_scores_close(pg_scores **scores); ///< drops it

/** How likely an answer is. */
typedef struct pg_score_info {
    uint32_t struct_size;    ///< in: sizeof(pg_score_info)
    uint32_t reserved;       ///< 0
    int64_t n_tokens;        ///< of the answer, eos included
    double log_prob;         ///< natural logarithm of the answer's probability: the sum over its tokens
    double mean_log_prob;    ///< log_prob / n_tokens: normalised by length
    double probability;      ///< among the given answers: softmax of their log_prob, 0 to 1, all together 1
    double mean_probability; ///< the same of mean_log_prob, for answers of different lengths
} pg_score_info;

/** The answers that were given. NULL: 0. */
PG_API int64_t pg_scores_get_n_answers(const pg_scores *scores);
/** Describes answer `index`, in the order given. Errors: PG_ERROR_ARGUMENT (no such answer). */
PG_API pg_status pg_scores_get_info(const pg_scores *scores, int64_t index, pg_score_info *info);
/** A tensor of answer `index`, n tokens, valid until the scores are closed: "ids", i64 [n]; "log_probs", f32 [n], of
 * each token behind those before it. Errors: PG_ERROR_ARGUMENT (no such answer), PG_ERROR_NOT_FOUND (no such name). */
PG_API pg_status pg_scores_get_tensor(const pg_scores *scores, int64_t index, const char *name, pg_tensor *out);

/* ---- Answers as data: boxes, points, masks, scores ---- */

/** The objects that an answer names. Read-only. docs/ANSWERS.md has the grammar, with the sources that write it. */
typedef struct pg_answer pg_answer;

/** Values of pg_answer_options.convention: which fraction of the image's height or width `<locNNNN>` is. */
enum {
    PG_BOX_1024 = 0, ///< NNNN / 1024: Hugging Face's blog and demos, supervision
    PG_BOX_1023 = 1  ///< NNNN / 1023: big_vision, the training code
};

/** Flags of pg_answer_options. */
enum {
    PG_ANSWER_POINTS = 1 ///< a fine-tune that says points: two locs, y and x, are an object. Default: four, a box
};

/** Options of pg_answer_create() and its two sisters. width and height have no default. */
typedef struct pg_answer_options {
    uint32_t struct_size; ///< sizeof(pg_answer_options)
    uint32_t flags;       ///< PG_ANSWER_*; default 0
    int32_t width;        ///< pixels, >= 1: of the image before it was resized, turned where PG_ENCODE_EXIF turned it;
                          ///< "image_sizes" of pg_inputs_get_tensor() has it
    int32_t height;       ///< pixels, >= 1
    int32_t convention;   ///< PG_BOX_*; default 1024
    float max_iou; ///< 0 < max_iou < 1: of two boxes with one label and a greater intersection over union, the one
                   ///< with the lower score, else the later one, is PG_OBJECT_DUPLICATE; default and 0: not looked for.
                   ///< Boxes are compared as the answer says them, before a window cuts them
    const pg_allocator *allocator; ///< default NULL: the processor's, of a text the C library's
    /// of the image that the answer is about (pg_image_get_window()). Boxes, points and masks come out in pixels of the
    /// whole image, cut at its borders; what lies outside of it is PG_OBJECT_EMPTY. Copied. Default NULL: the whole
    const pg_window *window;
} pg_answer_options;
PG_API pg_status pg_answer_options_init(pg_answer_options *options, size_t struct_size); ///< fills in the defaults

/** The objects in row `row` of a result. They have scores if the result has "log_probs". The image is that of
 * `options`. Errors: PG_ERROR_ARGUMENT (no such row; an option: its name, what was found, its range), PG_ERROR_LIMIT
 * (more than 16384 boxes with max_iou), _MEMORY. */
PG_API pg_status pg_answer_create(const pg_processor *processor, const pg_result *result, int64_t row,
                                  const pg_answer_options *options, pg_answer **out);
/** The objects in the ids of an answer. log_probs: f32 [n_ids], natural logarithms of each id's probability, for
 * scores; NULL: none. Errors: also PG_ERROR_ARGUMENT (an id is negative or has more than 32 bits). */
PG_API pg_status pg_answer_create_from_ids(const pg_processor *processor, const int64_t *ids, const float *log_probs,
                                           size_t n_ids, const pg_answer_options *options, pg_answer **out);
/** The objects in `size` bytes of UTF-8, as any other program made them; no scores, no processor. Errors: also
 * PG_ERROR_ARGUMENT (invalid UTF-8: its offset). */
PG_API pg_status pg_answer_create_from_text(const char *text, size_t size, const pg_answer_options *options,
                                            pg_answer **out);
PG_API void pg_answer_close(pg_answer **answer); ///< drops it

/** The text that the objects were found in, without special tokens; "" for NULL. Valid until the answer is closed. A
 * byte 0 in it ends the C string; what follows it still has its objects. */
PG_API const char *pg_answer_get_text(const pg_answer *answer);
/** The objects, broken ones and duplicates included. NULL: 0. */
PG_API int64_t pg_answer_get_n_objects(const pg_answer *answer);

/** Bits of pg_object.flags: what is to be known about it. No number is ever made up: what the answer does not say is -1
 * or NaN. */
enum {
    PG_OBJECT_PARTIAL = 1,        ///< fewer locs than a box (4) or a point (2) has: no box, no point
    PG_OBJECT_OUT_OF_RANGE = 2,   ///< `<loc1024>` to `<loc9999>`, `<seg128>` to `<seg999>`: a text that no token
                                  ///< has. Among the locs: no box, no point
    PG_OBJECT_OUT_OF_ORDER = 4,   ///< y1 < y0 or x1 < x0; the box is as the answer says it, not sorted
    PG_OBJECT_EMPTY = 8,          ///< y1 = y0 or x1 = x0, or it lies in the bars of a letterbox (window)
    PG_OBJECT_STRAY_SEG = 16,     ///< segs with no locs before them: no box
    PG_OBJECT_BROKEN = 31,        ///< the five above: an object with none of them has a box or a point that can be used
    PG_OBJECT_NO_LABEL = 32,      ///< label is ""
    PG_OBJECT_LABEL_BEFORE = 64,  ///< the label stands before the locs, not behind
    PG_OBJECT_LABEL_SHARED = 128, ///< one label stands for this and for the objects next to it
    PG_OBJECT_SEG_PARTIAL = 256,  ///< 1 to 15 segs, or one is out of range: no mask
    PG_OBJECT_SEG_MORE = 512,     ///< more than 16 segs; the first 16 are kept
    PG_OBJECT_UNFINISHED = 1024,  ///< the last one of a row that did not end by eos: its label or segs may go on
    PG_OBJECT_DUPLICATE = 2048    ///< see max_iou; duplicate_of says of which
};

/** An object of an answer. */
typedef struct pg_object {
    uint32_t struct_size; ///< in: sizeof(pg_object)
    uint32_t flags;       ///< PG_OBJECT_*
    const char *label;    ///< UTF-8, white space around it left out; valid until the answer is closed
    uint64_t label_size;  ///< bytes of the label, without the closing NUL
    float box[4];         ///< x0, y0, x1, y1 in pixels of the image; NaN: none
    float point[2];       ///< x, y in pixels; NaN: none
    float score;          ///< 0 to 1: loc_score * label_score; NaN: no log-probabilities, or no locs
    float loc_score;      ///< geometric mean of the probabilities of the tokens of its locs
    float label_score;    ///< the same of its label; 1 without a label
    int32_t n_locs;       ///< 0 to 4
    int32_t locs[4];      ///< y0, x0, y1, x1 (a point: y, x), 0 to 1023 unless out of range; -1: not said
    int32_t n_segs;       ///< 0 to 16
    int32_t segs[16];     ///< codes of the mask, 0 to 127 unless out of range; -1: not said
    int32_t duplicate_of; ///< the index of the object that it duplicates; -1: none
    int64_t text_begin;   ///< where its locs and segs begin in the text, in bytes
    int64_t text_size;    ///< their bytes
    int64_t first_token;  ///< index of the id of its first loc or seg; -1: made from a text
    int64_t n_tokens;     ///< ids of its locs and segs
} pg_object;

/** Describes object `index`, 0 for the first of the answer. Errors: PG_ERROR_ARGUMENT (no such object). */
PG_API pg_status pg_answer_get_object(const pg_answer *answer, int64_t index, pg_object *object);

/** Turns the 16 `<seg>` codes of an object into a mask. Immutable; any number of threads may use it. */
typedef struct pg_mask_decoder pg_mask_decoder;

/** Options of pg_mask_decoder_open(). */
typedef struct pg_mask_decoder_options {
    uint32_t struct_size;          ///< sizeof(pg_mask_decoder_options)
    uint32_t reserved;             ///< 0
    uint64_t cpu_mask;             ///< as in pg_model_options; default and 0: the fastest
    const pg_allocator *allocator; ///< default NULL: the C library's. Copied
} pg_mask_decoder_options;
PG_API pg_status pg_mask_decoder_options_init(pg_mask_decoder_options *options, size_t struct_size); ///< the defaults

/** Opens the decoder that PaliGemma was trained with (big_vision's vae-oid.npz: a codebook and 12 convolutions), or one
 * of the same shapes. path: a .npz file, stored or deflated, or a safetensors file with the same names and shapes (f32,
 * f16 or bf16), or a folder with vae-oid.npz or vae-oid.safetensors, such as a model's, also by a
 * model id in the local Hugging Face cache. 5 MB of memory.
 * Errors: PG_ERROR_NOT_FOUND, _IO, _FORMAT (names the tensor, what was found and expected: numbers that are not finite,
 * and safetensors with holes, overlaps or a rest too), _LIMIT (more than 64 MB, 4096 arrays, or 1 MB of a safetensors
 * header), _UNSUPPORTED, _ARGUMENT, _MEMORY. */
PG_API pg_status pg_mask_decoder_open(const char *path, const pg_mask_decoder_options *options, pg_mask_decoder **out);
PG_API void pg_mask_decoder_close(pg_mask_decoder **decoder); ///< drops it

/** What the decoder makes of 16 codes, 0 to 127, of a 4 x 4 grid in reading order: mask, f32 [64, 64], about -1 outside
 * and 1 inside, the edge at 0. A few milliseconds, on the calling thread. Errors: PG_ERROR_ARGUMENT (a code), _MEMORY.
 */
PG_API pg_status pg_mask_decoder_decode(const pg_mask_decoder *decoder, const int32_t *codes, float *mask);

/** The mask of object `index` in its image, of the width and height that the answer was made with: mask, u8 [height,
 * width], `size` bytes of the caller's. 128 and more is inside, 0 everywhere outside the box. As the training code's
 * evaluator does it: the decoded values are resized into the box as Pillow does (bilinear), and what is above 0 is
 * inside; 127 - 128 x and 128 + 128 x say how far. The box in whole pixels is cut off with PG_BOX_1023, as there, and
 * rounded with PG_BOX_1024, as in Hugging Face's demos. Errors: PG_ERROR_NOT_FOUND (the object has no box or fewer than
 * 16 segs), _ARGUMENT (no such object; size is less than width * height), _MEMORY. */
PG_API pg_status pg_answer_get_mask(const pg_answer *answer, int64_t index, const pg_mask_decoder *decoder,
                                    uint8_t *mask, size_t size);

/** Run lengths of a mask, u8 [height, width] with 128 and more inside, as COCO's annotations have them: down the
 * columns, from the left one on; outside first. counts [capacity], may be NULL when capacity is 0; *needed, may be
 * NULL, is how many there are. Errors: PG_ERROR_LIMIT (capacity is too small), _ARGUMENT, _MEMORY. */
PG_API pg_status pg_mask_get_counts(const uint8_t *mask, int32_t width, int32_t height, uint32_t *counts,
                                    size_t capacity, size_t *needed);
/** The same as pycocotools' text, "counts" of its masks: `capacity` bytes at text, the closing NUL included; *needed as
 * in pg_processor_decode(). */
PG_API pg_status pg_mask_get_rle(const uint8_t *mask, int32_t width, int32_t height, char *text, size_t capacity,
                                 size_t *needed);

/* ---- Adapters: fine-tunes as PEFT saves them ---- */

/** A LoRA adapter of a model, such as Hugging Face's PEFT saves; immutable. */
typedef struct pg_adapter pg_adapter;

/** Options of pg_adapter_open(). */
typedef struct pg_adapter_options {
    uint32_t struct_size;    ///< sizeof(pg_adapter_options)
    int32_t n_threads;       ///< 1 to 1024, for the norms of DoRA; default and 0: CPUs, at most 64
    pg_progress_fn progress; ///< default NULL; phase LOAD
    void *progress_user;     ///< passed to progress
    pg_cancel *cancel;       ///< default NULL
} pg_adapter_options;
PG_API pg_status pg_adapter_options_init(pg_adapter_options *options, size_t struct_size); ///< fills in the defaults

/** Opens an adapter of `model`: a folder with adapter_config.json and adapter_model.safetensors, or an id in the local
 * Hugging Face cache. LoRA and DoRA (use_dora) with any rank, alpha, rank_pattern, alpha_pattern, use_rslora and
 * lora_bias, on all linear layers, the patch convolution and the embeddings; biases and modules that were saved whole
 * (bias, modules_to_save). Keys of any version of PEFT and transformers. The tensors are read into memory, which comes
 * from the model's allocator; the model is kept.
 * Errors: PG_ERROR_NOT_FOUND (also: a module that the model does not have), _IO, _FORMAT (names the tensor, what was
 * found and expected: an adapter of another base has other shapes), _UNSUPPORTED (another peft_type, and what of
 * LoraConfig is not followed, by its name), _LIMIT, _MEMORY, _CANCELLED. */
PG_API pg_status pg_adapter_open(const pg_model *model, const char *adapter, const pg_adapter_options *options,
                                 pg_adapter **out);
PG_API void pg_adapter_close(pg_adapter **adapter); ///< drops the caller's reference

/** What an adapter is. */
typedef struct pg_adapter_info {
    uint32_t struct_size;  ///< in: sizeof(pg_adapter_info)
    int32_t rank;          ///< the largest of its modules; 0: it has whole modules alone
    uint64_t n_parameters; ///< elements of its tensors
    uint64_t n_bytes;      ///< that it takes in memory
    int32_t n_modules;     ///< that it changes
    int32_t adapts_images; ///< 1: it changes encoder or projector, so that features are its own; else 0
    const char *base;      ///< base_model_name_or_path, valid until the adapter is closed; "": it names none
} pg_adapter_info;
PG_API pg_status pg_adapter_get_info(const pg_adapter *adapter, pg_adapter_info *info); ///< describes it

/** A model with adapters added: a handle that shares the weights of `model`, takes little memory of its own, and goes
 * wherever a model goes, in any number of threads. Each linear layer gives
 *     y = W x + b + sum over i of weights[i] (what adapters[i] adds),
 * as PEFT with several active adapters, and add_weighted_adapter(combination_type="cat"). DoRA scales what W x and the
 * adapters before it gave, so that there the order counts, as in PEFT. weights NULL: all 1. What an
 * adapter saved whole stands in place of the model's; one adapter at the most may replace a module, with the weight 1.
 * A base layer that PEFT saved beside A and B replaces nothing where it has the values that the model has stored.
 * DoRA's norms are those of what stands there: where that is another adapter's, they are computed by this call.
 * Of a model that is adapted itself, its base is meant. The handle keeps model and adapters. Rows of one batch may have
 * a handle each: row_models of pg_generate_options and pg_forward_options.
 * Features are of the model that made them: handles whose adapters leave encoder and projector alone share them.
 * Errors: PG_ERROR_ARGUMENT (n_adapters is 0 or more than 1024, an adapter is of another model, a weight is not
 * finite), _UNSUPPORTED (two adapters replace one module), _LIMIT (ranks of more than 4096 together), _MEMORY. */
PG_API pg_status pg_model_adapt(const pg_model *model, const pg_adapter *const *adapters, const float *weights,
                                size_t n_adapters, pg_model **out);

/** base_model_name_or_path of an adapter's folder or id, for pg_model_open(). Copies as pg_model_get_config() does.
 * Errors: PG_ERROR_NOT_FOUND (no adapter, or it names none), _IO, _FORMAT, _LIMIT, _MEMORY. */
PG_API pg_status pg_adapter_find_base(const char *adapter, char *text, size_t capacity, size_t *needed);

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
 * PG_ERROR_LIMIT for more than max_tokens in a row, or too much padding. */
PG_API pg_status pg_processor_encode_batch(const pg_processor *processor, const pg_batch *batch,
                                           const pg_encode_options *options, pg_inputs **out);

/** A tensor of the inputs by its HF name, valid until the inputs are closed. B rows of T tokens:
 *  - "input_ids"       i64 [B, T]
 *  - "attention_mask"  i64 [B, T]  1, and 0 on padding
 *  - "token_type_ids"  i64 [B, T]  0 on images, prompt and padding, 1 on the suffix; all 1 if none were given
 *  - "labels"          i64 [B, T]  ids of the suffix, -100 elsewhere
 *  - "position_ids"    i64 [B, T]  from 1, padding skipped (1 on the padding itself)
 *  - "pixel_values"    f32 [n_images, 3, height, width]  the first row's images first; a model takes squares
 *  - "image_counts"    i64 [B]     images of each row
 *  - "image_sizes"     i64 [n_images, 2]  height and width of each image as it was decoded and turned, before the
 * resize
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

/** What an id is beside its piece, by pg_processor_get_token_flags(); the names are those of HF's AddedToken. */
enum {
    PG_TOKEN_ADDED = 1,   ///< cut out of the text before the tokenizer's model sees it; without it no other bit is set
    PG_TOKEN_SPECIAL = 2, ///< special
    PG_TOKEN_NORMALIZED = 4,  ///< found after spaces became U+2581, otherwise before
    PG_TOKEN_SINGLE_WORD = 8, ///< found only where no letter or digit touches it
    PG_TOKEN_LSTRIP = 16,     ///< takes the white space on its left along
    PG_TOKEN_RSTRIP = 32      ///< takes the white space on its right along
};

/** PG_TOKEN_* bits of an id, 0 for a plain piece. Errors: PG_ERROR_ARGUMENT (no such id). */
PG_API pg_status pg_processor_get_token_flags(const pg_processor *processor, int64_t id, uint32_t *flags);

/** What a processor does. */
typedef struct pg_processor_info {
    uint32_t struct_size;    ///< in: sizeof(pg_processor_info)
    int32_t image_size;      ///< pixels, the width; with PG_PROCESSOR_TEXT_ONLY 0, as all that is said of images
    int32_t n_image_tokens;  ///< `<image>` tokens of an image
    int32_t resample;        ///< PG_RESAMPLE_*
    int32_t vocab_size;      ///< ids of the tokenizer, added tokens included; with PG_PROCESSOR_IMAGES_ONLY 0, the ids
                             ///< below are -1
    int32_t n_model_ids;     ///< of these, ids of the tokenizer's model; those above came with added tokens
    uint32_t flags;          ///< PG_PROCESSOR_* that it was opened with; SENTENCEPIECE only where it does the work
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
    PG_FORWARD_RETRIEVAL = 64,    ///< keep "embeddings", for late interaction (ColPali)
    PG_FORWARD_EMBEDDINGS = 53,   ///< LAST_HIDDEN, NO_LOGITS, NO_LOSS and SKIP_PADDING together: for heads of your
                                  ///< own, such as action heads (pi0)
    PG_FORWARD_ATTENTIONS = 128,  ///< keep "attentions", the softmax weights of every layer and head
    PG_FORWARD_ATTENTION_HEAD_MEAN = 256,  ///< of them, the mean over the heads
    PG_FORWARD_ATTENTION_LAYER_MEAN = 512, ///< of them, the mean over the layers
    PG_FORWARD_ATTENTION_TO_IMAGE = 1024   ///< of them, those to the image tokens alone
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
    int64_t attention_queries;   ///< PG_FORWARD_ATTENTIONS: k >= 1, of the last k tokens of each row, padding counted,
                                 ///< such as those of a suffix; default and 0: of all
    int32_t attention_layer;     ///< PG_FORWARD_ATTENTIONS: of this layer alone, 0 the first; default -1: of all
    uint32_t reserved_end;       ///< 0
    const pg_model *const *row_models; ///< [n_row_models] as of pg_generate_options; default NULL
    int64_t n_row_models;              ///< default and 0: all rows are the call's; else as many as the inputs have
} pg_forward_options;
PG_API pg_status pg_forward_options_init(pg_forward_options *options, size_t struct_size); ///< fills in the defaults

/** One pass over a batch, nothing is generated (HF: PaliGemmaForConditionalGeneration.forward). Attention is full
 * within images and prompt, causal in the suffix (token_type_ids 1), none to padding. A row gives what it gives alone,
 * whatever side it is padded on: to the last bit, except that rows of up to 4 tokens (16 with adapters) are summed in
 * another order.
 * Errors: PG_ERROR_ARGUMENT (the row and the numbers: an id outside the vocabulary, a label that is neither an id nor
 * -100, image tokens and images that do not match, logits_to_keep or attention_queries beyond the row, attention_layer
 * beyond the model, PG_FORWARD_ATTENTION_TO_IMAGE where no row has an image token, row_models as pg_generate()),
 * PG_ERROR_NOT_FOUND
 * (PG_FORWARD_RETRIEVAL, and the model is no ColPali checkpoint), PG_ERROR_LIMIT (a row of more than 16777216 tokens),
 * _MEMORY, _CANCELLED. */
PG_API pg_status pg_forward(const pg_model *model, const pg_inputs *inputs, const pg_forward_options *options,
                            pg_outputs **out);
PG_API void pg_outputs_close(pg_outputs **outputs); ///< drops the caller's reference

/** What the decoder is fed for ids: out f32 [n_ids, hidden_size], rows of the embedding times sqrt(hidden_size), as HF
 * 5.23's get_input_embeddings()(ids); changed, they go back as inputs_embeds. Errors: PG_ERROR_ARGUMENT (an id outside
 * the vocabulary). */
PG_API pg_status pg_model_embed(const pg_model *model, const int64_t *ids, size_t n_ids, float *out);

/** A tensor of the outputs by its HF name, valid until the outputs are closed. B rows, T tokens, K kept, L layers:
 *  - "logits"               f32 [B, K, vocab_size]  final soft cap applied; K is T unless logits_to_keep is set
 *  - "loss"                 f32 [1]  cross entropy of each label under the logits of the token before it; NaN (per row:
 *                           0) when all labels are -100; not there without labels
 *  - "hidden_states"        f32 [L + 1, B, T, hidden]  on request: the embeddings, then each layer's output, the last
 *                           after the final norm
 *  - "last_hidden_state"    f32 [B, T, hidden]  on request: after the final norm
 *  - "attentions"           f32 [L * B, heads, T, T]  on request: how much token t of row b attends to token j in layer
 *                           l and head h is element [l * B + b][h][t][j], 0 to 1; those of a token sum to 1, or are 0
 *                           where it sees nothing (HF: output_attentions of eager attention, L of [B, heads, T, T]).
 *                           L is 1 with _LAYER_MEAN or attention_layer, heads is 1 with _HEAD_MEAN. The first T is
 *                           attention_queries, if set. With _TO_IMAGE the second is the image tokens of a row in their
 *                           order: the most that a row has, 0 behind those of the others.
 *                           Only what is kept takes memory: 4 bytes for each element. Weights are computed in f32,
 *                           also where PG_ARITHMETIC_BF16 rounds what the layers use
 *  - "embeddings"           f32 [B, T, embedding_dim]  on request, of a ColPali checkpoint: the projection of each last
 *                           hidden state, of length 1; 0 on padding (HF: ColPaliForRetrieval)
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
 * them (PG_ERROR_ARGUMENT) where they are given. In a batch its rows take the images one after the other; where each
 * row with image tokens has as many as all of the images together, each takes all of them: one image, many prompts. */
PG_API pg_status pg_features_create(const pg_model *model, const pg_inputs *inputs, const pg_run_options *options,
                                    pg_features **out);
/** Features from numbers that were kept or changed, f32 [n_images, n_image_tokens, hidden_size], finite, copied: as
 * pg_features_get_tensor() gives them. They count as made by `model`. Errors: PG_ERROR_ARGUMENT, _MEMORY. */
PG_API pg_status pg_features_from_tensor(const pg_model *model, const pg_tensor *values, pg_features **out);
PG_API void pg_features_close(pg_features **features); ///< drops the caller's reference
/** f32 [n_images, n_image_tokens, hidden_size], valid until the features are closed. */
PG_API pg_status pg_features_get_tensor(const pg_features *features, pg_tensor *out);
/** Writes the features to the file `path` (a safetensors file with checksums, docs/FORMATS.md), for other processes and
 * later. A regular file that is there is replaced; readers see the old one or the new one, whole. Errors:
 * PG_ERROR_ARGUMENT (a number is not finite; `path` is a folder or a device), _IO, _NOT_FOUND (its folder), _MEMORY. */
PG_API pg_status pg_features_save(const pg_features *features, const char *path);
/** The same bytes into memory, for a store of the host's own: writes at most `capacity` bytes; *needed (may be NULL)
 * receives how many there are. Call with capacity 0 to ask for the size. */
PG_API pg_status pg_features_to_bytes(const pg_features *features, void *bytes, size_t capacity, size_t *needed);
/** Features that were saved, of a model that would give the same: encoder, projector, weights and arithmetic are
 * compared by a hash (of large matrices by samples, so that loading is quick), and every byte by its checksum. The file
 * is not needed afterwards. Errors: PG_ERROR_ARGUMENT (of another model: what was found, what was expected),
 * _NOT_FOUND, _IO, _FORMAT (damaged, or something else), _UNSUPPORTED (a newer version wrote them), _MEMORY. */
PG_API pg_status pg_features_load(const pg_model *model, const char *path, pg_features **out);
/** The same of the bytes that pg_features_to_bytes() gave, or of such a file's; they are copied. */
PG_API pg_status pg_features_from_bytes(const pg_model *model, const void *bytes, size_t n_bytes, pg_features **out);

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
    pg_progress_fn progress;   ///< default NULL; phases VISION, PREFILL, and DECODE before each step: tokens so far
    void *progress_user;       ///< passed to progress
    pg_cancel *cancel;         ///< default NULL
    int64_t max_context;       ///< tokens of the row, prompt and new ones; default and 0: as many as memory allows, at
                               ///< most 16777216. A longer prompt is PG_ERROR_LIMIT
    pg_session *threads_of;    ///< a session of the same base model, whose threads this one works on, too, instead of
                               ///< starting its own: n_threads is then 0 or the same. One call at a time on all that
                               ///< share them (PG_ERROR_STATE); the last one ends them. Default NULL
} pg_session_options;
PG_API pg_status pg_session_options_init(pg_session_options *options, size_t struct_size); ///< fills in the defaults

/** Allocates all memory and starts the session's threads: prefilling a prompt of up to max_prompt_tokens and the steps
 * after it, up to 8192, allocate nothing. A longer prompt, and more steps, still work: the session grows, and keeps
 * what it grew to. Errors: PG_ERROR_ARGUMENT, _MEMORY. */
PG_API pg_status pg_session_create(const pg_model *model, const pg_session_options *options, pg_session **out);
/** Ends the session and its threads. During a call on it, from a callback or another thread: the call goes on to its
 * end, with the status that it has without this, and then ends the session. */
PG_API void pg_session_close(pg_session **session);

/** Feeds a whole prompt of one row as one block, with its suffix if it has one, and computes the logits of the token
 * that follows. Padding is left out. features NULL: computed from the pixels of the inputs. A session may be
 * prefilled again: it starts over. After an error, prefill again. */
PG_API pg_status pg_session_prefill(pg_session *session, const pg_inputs *inputs, const pg_features *features);

/** Samples the next token: greedy, whatever generation_config.json says, the lowest id among the largest logits.
 *  - PG_OK            *token is the next token
 *  - PG_EVENT_EOS     *token ends the text; no further step is possible
 *  - PG_EVENT_LENGTH  max_new_tokens were returned already; *token is untouched
 *  - PG_EVENT_CONTEXT prompt and tokens returned are max_context already; *token is untouched
 */
PG_API pg_status pg_session_step(pg_session *session, int64_t *token);

/** Samples the next token by these settings (NULL: pg_model_get_sampling()), which may be others at every step; its
 * draw has the number of the step. Statuses as pg_session_step(), and PG_EVENT_STOP: *token is untouched, and the
 * session where it was. row is 0 in callbacks, which must not use the session. Errors also: PG_ERROR_ARGUMENT (a
 * setting is out of range, or they leave no id); the session may then go on. */
PG_API pg_status pg_session_sample(pg_session *session, const pg_sampling_options *options, int64_t *token);

/** A step of n sessions, 1 to 1024, as the rows of one pass: the weights are read once for up to 16 of them with int8
 * and int4 weights, up to 4 with stored ones, and each gets the bits that it gets alone. The sessions are of one base
 * model, with adapters or without; the pass runs on the threads of the first. tokens [n]: what pg_session_step() would
 * give each. NULL: nothing is sampled; each is brought to the logits of its next token, so that pg_session_sample(), by
 * settings of its own, runs no pass. statuses [n]: what pg_session_step() would return for each; one that is refused,
 * was cancelled or lacks memory leaves the others as they would be without it. Progress callbacks and cancel flags are
 * asked before the pass. Memory for the pass is the first session's, made when it is first needed. Returns PG_OK when
 * no session failed, else the status of the first that did, with pg_last_error_row() its index. Errors of the whole
 * call, after which nothing has changed: PG_ERROR_ARGUMENT (a session is NULL or of another base), _STATE (the first
 * one's threads are in use). */
PG_API pg_status pg_session_step_together(pg_session *const *sessions, int64_t n, int64_t *tokens, pg_status *statuses);

/** Feeds `n_ids` tokens of the host's choice, eos ids too, in place of sampled ones: they count as returned. Then the
 * logits are those of the token that follows. At least one of max_new_tokens must be left. 0 ids change nothing.
 * Errors: PG_ERROR_ARGUMENT (an id outside the vocabulary), PG_ERROR_LIMIT, PG_ERROR_STATE: nothing was fed. */
PG_API pg_status pg_session_feed(pg_session *session, const int64_t *ids, size_t n_ids);

/** The logits that the token last returned was sampled from or, right after a prefill or a feed, that the next step
 * will sample from: f32 [vocab_size], final soft cap applied. Valid until the next call on the session. */
PG_API pg_status pg_session_get_logits(const pg_session *session, pg_tensor *out);

/** Turns ids into text one by one, holding back bytes of unfinished UTF-8 characters. */
typedef struct pg_detokenizer pg_detokenizer;

/** flags: PG_DECODE_SKIP_SPECIAL or 0. Pushing allocates nothing, unless more than 1024 byte pieces come in a row. */
PG_API pg_status pg_detokenizer_create(const pg_processor *processor, uint32_t flags, pg_detokenizer **out);
/** Ends it. During a call on it (from the allocator, or another thread): that call ends it, and is PG_ERROR_STATE, as
 * its text is gone. */
PG_API void pg_detokenizer_close(pg_detokenizer **detokenizer);
/** The text that `id` completes. *text is NUL-terminated and *size bytes long (size may be NULL), valid until the next
 * call on the detokenizer. All pieces and the flush together equal pg_processor_decode() of all ids. */
PG_API pg_status pg_detokenizer_push(pg_detokenizer *detokenizer, int64_t id, const char **text, size_t *size);
/** What was held back, at the end: an unfinished character becomes U+FFFD. Then the detokenizer starts anew. */
PG_API pg_status pg_detokenizer_flush(pg_detokenizer *detokenizer, const char **text, size_t *size);

/* ---- Worker: requests of a loop that must not wait ---- */

/** Background threads that own sessions. A game or a control loop submits frames with prompts, which takes as long as
 * copying the frame, and looks for events once a frame: pg_worker_poll() never blocks, takes no lock and costs well
 * below 20 us. Requests that run together step as the rows of one pass, each with the answer that it has alone; a new
 * one joins between two steps, and makes the others wait while its image and prompt are computed. Of requests that wait
 * the one with the highest priority begins first, then the oldest. One begins only when none of higher priority runs on
 * the same thread. Every accepted request has exactly one PG_WORKER_EVENT_DONE event, the last of its ticket, whatever
 * happens; the only ones that are not seen are those that nobody polled before pg_worker_close().
 *
 * Any number of threads may submit and cancel at a time, and one polls. pg_worker_submit(), _cancel() and _get_info()
 * take a lock, which is held for a few operations on lists and never while something is computed or a callback runs.
 * A deadline and a cancel are seen within a layer's time while image and prompt are computed (a file being read sees a
 * cancel alone), and a step's in the answer, or when image and prompt of a request that joins are computed. In a child
 * of fork() all calls but pg_worker_close() are PG_ERROR_STATE: the threads are in the parent. A callback may fork;
 * when it returns in the child, that ends. */
typedef struct pg_worker pg_worker;

/** Flags of pg_worker_options. */
enum {
    PG_WORKER_LEAVE_CPU_FREE = 1 ///< one CPU fewer than the thread that makes the worker may use, for n_threads by
                                 ///< default, and bound to the others (Linux): the lowest one stays free. With one CPU
                                 ///< of no effect
};

/** Options of pg_worker_create(). */
typedef struct pg_worker_options {
    uint32_t struct_size; ///< sizeof(pg_worker_options)
    uint32_t flags;       ///< PG_WORKER_LEAVE_CPU_FREE or 0; default 0
    int32_t n_threads;    ///< 1 to 1024, of the computation on each background thread, which is one of them; default
                          ///< and 0: the CPUs that it may use
    int32_t n_workers;    ///< background threads, 1 to 64, each with sessions of its own; default and 0: 1. More
                          ///< than one share memory bandwidth: rows that step together are faster
    int32_t max_waiting;  ///< requests that may wait, 1 to 65536; default and 0: 16
    int32_t max_running;  ///< rows that step together on a background thread, 1 to 64; default and 0: 4. The first has
                          ///< its memory at once, each other from when it is first needed
    int32_t max_new_tokens; ///< the most that a request may ask for; default and 0: 128
    int32_t nice;           ///< 0 to 19, added to the nice value of the background threads and those they start
                            ///< (Linux); elsewhere of no effect; default 0
    const int32_t *cpus;    ///< [n_cpus] numbers of the CPUs that the background threads are bound to (Linux; elsewhere
                            ///< PG_ERROR_UNSUPPORTED); default NULL: those of the thread that makes the worker
    int64_t n_cpus;         ///< default 0
} pg_worker_options;
PG_API pg_status pg_worker_options_init(pg_worker_options *options, size_t struct_size); ///< fills in the defaults

/** Starts the background threads and makes the first session of each. The worker keeps model and processor; its memory
 * is the model's allocator's. Errors: PG_ERROR_ARGUMENT (an option: what was found, its range), _UNSUPPORTED, _MEMORY
 * (also: the system refuses all threads; where it refuses some, there are fewer), and those of pg_session_create(). */
PG_API pg_status pg_worker_create(const pg_model *model, const pg_processor *processor,
                                  const pg_worker_options *options, pg_worker **out);
/** Cancels what waits and runs, waits for the background threads, which takes a step's time at most, and frees the
 * worker with the events that were not polled. Requests with on_event are told first. During a call of another thread:
 * that call returns PG_ERROR_STATE, or what it was about to. In a callback of the worker it does not wait: the threads
 * end by themselves and free it. In a child of fork() what the parent's threads were just using stays allocated. */
PG_API void pg_worker_close(pg_worker **worker);

/** Values of pg_worker_event.kind. */
enum {
    PG_WORKER_EVENT_TEXT = 1,   ///< a piece of the text, whole characters
    PG_WORKER_EVENT_OBJECT = 2, ///< an object of the answer (PG_REQUEST_OBJECTS), as soon as its part is complete (';')
    PG_WORKER_EVENT_DONE = 3    ///< the request has ended
};

/** What happened to a request. */
typedef struct pg_worker_event {
    uint32_t struct_size;    ///< in: sizeof(pg_worker_event)
    int32_t kind;            ///< PG_WORKER_EVENT_*
    int64_t ticket;          ///< of the request
    uint64_t user;           ///< of its options
    pg_status status;        ///< DONE: PG_OK; PG_ERROR_CANCELLED, _REPLACED, _DEADLINE; or what its image, prompt or
                             ///< computation was refused with
    int32_t stop;            ///< DONE with PG_OK: PG_STOP_*
    const char *text;        ///< TEXT: the piece; DONE: the whole text, or the error's words. NUL-terminated; else ""
    uint64_t size;           ///< bytes of text, without the closing NUL
    const pg_object *object; ///< OBJECT: in pixels of the image, with a score; valid as text is. Else NULL
    int64_t n_new_tokens;    ///< DONE: tokens of the answer
    double wait_seconds;     ///< DONE: from pg_worker_submit() to its beginning, or to its end where it never began
    double run_seconds;      ///< DONE: from its beginning to its end; 0: it never began
} pg_worker_event;
PG_API pg_status pg_worker_event_init(pg_worker_event *event, size_t struct_size); ///< an empty one, to be filled

/** Receives an event of a request, on a background thread, in the order of the ticket; what `event` points to is valid
 * during the call. It should be short: rows that run wait for it. It may submit, cancel and close. */
typedef void (*pg_worker_fn)(void *user, const pg_worker_event *event);

/** Flags of pg_request_options. */
enum {
    PG_REQUEST_OBJECTS = 1, ///< objects of the answer as events, too (boxes in pixels, scores)
    PG_REQUEST_BORROW = 2,  ///< the image's memory and path are not copied: they stay as they are until the DONE event
                            ///< or the return of pg_worker_close(). One called in a callback does not wait for other
                            ///< threads: then only DONE tells, so borrow with on_event alone
    PG_REQUEST_CANCEL_RUNNING = 4 ///< with stream: takes the place of the stream's running requests, too
};

/** Options of pg_worker_submit(). */
typedef struct pg_request_options {
    uint32_t struct_size;   ///< sizeof(pg_request_options)
    uint32_t flags;         ///< PG_REQUEST_*; default 0
    int32_t priority;       ///< higher begins first; default 0
    int32_t max_new_tokens; ///< 1 to that of the worker; default and 0: that of the worker
    int64_t stream;         ///< a number for what only the newest frame matters of, such as a camera: a
                    ///< new request of it takes the place of the one that waits, in the order, too, which ends with
                    ///< PG_ERROR_REPLACED. Default and 0: none
    double deadline;                     ///< seconds from pg_worker_submit(), after which the request ends with
                                         ///< PG_ERROR_DEADLINE; default and 0: none
    const pg_sampling_options *sampling; ///< copied, but what its callbacks are given; they run on a background thread.
                                         ///< Default NULL: pg_model_get_sampling()
    const pg_encode_options *encode;     ///< copied; cancel must be NULL (pg_worker_cancel()); default NULL
    pg_worker_fn on_event;               ///< receives the events, in place of pg_worker_poll(); default NULL
    void *on_event_user;                 ///< passed to on_event
    uint64_t user;                       ///< handed back in each event
    int32_t convention;                  ///< PG_BOX_* of the objects' boxes; default 1024
    uint32_t reserved;                   ///< 0
} pg_request_options;
PG_API pg_status pg_request_options_init(pg_request_options *options, size_t struct_size); ///< fills in the defaults

/** Hands over an image and a prompt (UTF-8; NULL is ""). *ticket (may be NULL) names the request: 1, 2, 3, ... A frame
 * of pixels and bytes of a file are copied; a path is read when the request begins. Errors: PG_ERROR_BUSY: max_waiting
 * requests wait, or as many as may wait and run have ended without their DONE being polled (4096 with on_event); none
 * of stream's was waiting. _ARGUMENT, _UNSUPPORTED, _LIMIT: an option, or a frame that is not sound; files are looked
 * at later. _MEMORY. An error leaves no request. */
PG_API pg_status pg_worker_submit(pg_worker *worker, const pg_image *image, const char *prompt,
                                  const pg_request_options *options, int64_t *ticket);
/** Ends a request with PG_ERROR_CANCELLED. PG_OK also when it has ended already. Errors: PG_ERROR_ARGUMENT (no such
 * ticket). */
PG_API pg_status pg_worker_cancel(pg_worker *worker, int64_t ticket);

/** The next event of the requests without on_event: PG_OK, or PG_EVENT_NONE. Never blocks. What `event` points to is
 * valid until the next poll of this worker or pg_worker_close(). Of one thread at a time: another gets PG_ERROR_STATE.
 */
PG_API pg_status pg_worker_poll(pg_worker *worker, pg_worker_event *event);
/** The same, but waits for an event, for up to `seconds` (0 or more; INFINITY: as long as it takes). */
PG_API pg_status pg_worker_wait(pg_worker *worker, double seconds, pg_worker_event *event);

/** How a worker stands. Every accepted request is waiting, running, or counted in one of the ends. */
typedef struct pg_worker_info {
    uint32_t struct_size; ///< in: sizeof(pg_worker_info)
    int32_t n_waiting;    ///< requests that wait
    int32_t n_running;    ///< requests that run
    int32_t n_not_polled; ///< requests that have ended, and whose DONE was not polled
    int64_t n_accepted;   ///< requests since the worker was made
    int64_t n_done;       ///< that ended with PG_OK
    int64_t n_cancelled;  ///< with PG_ERROR_CANCELLED
    int64_t n_replaced;   ///< with PG_ERROR_REPLACED
    int64_t n_late;       ///< with PG_ERROR_DEADLINE
    int64_t n_failed;     ///< with another error
    int64_t n_busy;       ///< calls of pg_worker_submit() that were refused with PG_ERROR_BUSY
    int64_t n_steps;      ///< passes of a decoding step
    int64_t n_step_rows;  ///< rows of these passes: n_step_rows / n_steps stepped together
} pg_worker_info;
PG_API pg_status pg_worker_get_info(pg_worker *worker, pg_worker_info *info); ///< tells it

/* ---- Training: LoRA and whole modules, frozen base ---- */

/** The parameters of an adapter in training, with gradients and the optimizer's state. One call at a time, else
 * PG_ERROR_STATE; a handle may move between threads. Its threads live as long as it does. */
typedef struct pg_trainer pg_trainer;

/** How the learning rate goes on after its warmup (transformers: get_scheduler()). */
enum {
    PG_SCHEDULE_CONSTANT = 0, ///< stays
    PG_SCHEDULE_LINEAR = 1,   ///< falls on a line, to 0 after total_steps
    PG_SCHEDULE_COSINE = 2    ///< falls on half a cosine, to 0 after total_steps
};

/** Bits of pg_trainer_options.flags. */
enum {
    PG_TRAIN_RSLORA = 1,    ///< B (A x) is scaled by alpha / sqrt(rank) in place of alpha / rank (PEFT: use_rslora)
    PG_TRAIN_CHECKPOINT = 2 ///< gradient checkpointing: of each layer its input alone is kept, and the rest computed
                            ///< again for the gradients. Same bits; a third slower; memory of one layer in place of all
};

/** Options of pg_trainer_create(). The names are those of PEFT's LoraConfig and of transformers' TrainingArguments. */
typedef struct pg_trainer_options {
    uint32_t struct_size; ///< sizeof(pg_trainer_options)
    uint32_t flags;       ///< PG_TRAIN_*; default 0
    int32_t rank;         ///< r, 1 to 4096; default 8. 0: no LoRA, modules_to_save alone
    int32_t schedule;     ///< PG_SCHEDULE_*; default PG_SCHEDULE_LINEAR
    double alpha;         ///< lora_alpha, above 0; default 8
    double dropout;       ///< lora_dropout, 0 <= p < 1: of what A reads; default 0
    /** The modules that get LoRA: their names or the ends of these, with commas between them, as in "q_proj,v_proj";
     * or "all-linear", all linear layers but the head; or "regex:" and a pattern that must match a whole name, such as
     * "regex:.*language_model.*q_proj". Linear layers of encoder, projector and decoder, the head, the embeddings and
     * the patch convolution can be meant. As in PEFT "q_proj" means those of the vision encoder, too. Default NULL:
     * q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj of the decoder. */
    const char *target_modules;
    /** What is trained whole: ends of names with commas between them, and as in PEFT of any length, with all that is
     * within: "multi_modal_projector", "layers.0.mlp", "vision_tower"; "norm" fits input_layernorm, too. All modules
     * but the embedding of tokens and the head. They get no LoRA. Default NULL: none. */
    const char *modules_to_save;
    double learning_rate;     ///< of AdamW, the highest; default 2e-4
    double weight_decay;      ///< of all but biases and norms; default 0
    double beta1;             ///< of the mean of the gradients, 0 to less than 1; default 0.9
    double beta2;             ///< of the mean of their squares; default 0.999
    double epsilon;           ///< 1.2e-38 or more; default 1e-8
    double max_gradient_norm; ///< gradients are scaled so that their norm is at most this; 0: as they are; default 1
    int64_t warmup_steps;     ///< updates in which the learning rate grows from 0; default 0
    int64_t total_steps;      ///< updates of the whole training, for the schedule; default 0: it stays at its highest
    int64_t accumulation;     ///< calls of pg_trainer_step() for an update, >= 1; default 1
    uint64_t seed;            ///< of the first values and of dropout; default 0
    const char *base;         ///< what base_model_name_or_path says; default NULL: the folder of the model
    int32_t n_threads;        ///< 1 to 1024; default and 0: the CPUs this process may use
    uint32_t reserved;        ///< 0
    pg_progress_fn progress;  ///< default NULL; phase TRAIN: layers of the call, there and back
    void *progress_user;      ///< passed to progress
    pg_cancel *cancel;        ///< default NULL; of all calls on the handle
} pg_trainer_options;
PG_API pg_status pg_trainer_options_init(pg_trainer_options *options, size_t struct_size); ///< fills in the defaults

/** A trainer of a model with stored, int8 or int4 weights, which stay as they are; arithmetic is f32 whatever the model
 * was opened with. A starts as PEFT has it (uniform, at most 1 / sqrt(inputs)), B with zeros (of embeddings A with
 * zeros, B normal), so that the first loss is the model's. It keeps the model, whose allocator gives the memory. An
 * adapted model: PG_ERROR_UNSUPPORTED; merge it with pg_model_convert() first. Errors: PG_ERROR_ARGUMENT (a number out
 * of its range; names that fit no module), _UNSUPPORTED (a module that cannot be trained, by its name; a pattern that
 * pg_adapter_open() does not read either), _FORMAT (a pattern that is none), _LIMIT, _MEMORY, _IO. */
PG_API pg_status pg_trainer_create(const pg_model *model, const pg_trainer_options *options, pg_trainer **out);
PG_API void pg_trainer_close(pg_trainer **trainer); ///< drops the caller's reference; as pg_session_close()

/** What a call learned. */
typedef struct pg_train_result {
    uint32_t struct_size; ///< in: sizeof(pg_train_result)
    int32_t updated;      ///< 1: this call ended with an update of the parameters
    double loss;          ///< mean over the labels of this call
    double gradient_norm; ///< of the update, before it was limited; 0 without one
    double learning_rate; ///< of the update; 0 without one
    int64_t step;         ///< updates so far
    int64_t n_labels;     ///< of this call
    int64_t n_tokens;     ///< that were run, padding left out
} pg_train_result;

/** Gradients of the mean loss over all labels of `inputs` (pg_processor_encode_batch() with suffixes, or
 * pg_inputs_create() with labels), and with every accumulation-th call an update: AdamW of torch. The mean is over all
 * labels of the calls of an update, as in transformers' Trainer. Labels on padding, and that of a row's first token,
 * do not count. Rows are run one by one, so that memory is that of the longest, and of the features of all images.
 * result may be NULL.
 * After an error parameters and optimizer are as before the call, and what was accumulated is dropped; but of
 * PG_ERROR_STATE and NULL arguments, which change nothing.
 * Errors: PG_ERROR_ARGUMENT (no labels, and those of pg_forward()), _FORMAT (the loss or a gradient is not finite: a
 * smaller learning rate may help), _UNSUPPORTED (rows of several texts; a mask that hides tokens between others),
 * _LIMIT, _MEMORY, _CANCELLED, _IO. */
PG_API pg_status pg_trainer_step(pg_trainer *trainer, const pg_inputs *inputs, pg_train_result *result);
/** The loss alone, without dropout: nothing changes. Errors: as pg_trainer_step(). */
PG_API pg_status pg_trainer_evaluate(pg_trainer *trainer, const pg_inputs *inputs, pg_train_result *result);

/** Writes adapter_config.json and adapter_model.safetensors, which PEFT and pg_adapter_open() open, and
 * trainer_state.safetensors for pg_trainer_resume() to `folder`, which is made where there is none. Each file takes the
 * place of an older one when it is whole, the state first: whenever the process is killed, the folder resumes from this
 * state or the one before. What was accumulated since the last update is not saved. Errors: PG_ERROR_IO (the disk is
 * full), _ARGUMENT (`folder` is a file), _NOT_FOUND (the folder it is in), _FORMAT (a value is not finite: nothing is
 * written), _MEMORY. */
PG_API pg_status pg_trainer_save(pg_trainer *trainer, const char *folder);
/** A trainer that goes on where a saved one was, to the bit. options: as they were; seed, base, dropout, n_threads,
 * PG_TRAIN_CHECKPOINT, progress and cancel may differ, and so may learning rate, schedule and the other numbers of the
 * optimizer, which hold from here on. Errors: PG_ERROR_NOT_FOUND (no state there), _FORMAT (damaged), _ARGUMENT (of
 * another model, other modules, another rank, alpha or PG_TRAIN_RSLORA: what was found, what was expected), _CANCELLED,
 * those of pg_trainer_create(). */
PG_API pg_status pg_trainer_resume(const pg_model *model, const char *folder, const pg_trainer_options *options,
                                   pg_trainer **out);

/** A parameter in training: an array of f32, row-major. */
typedef struct pg_parameter {
    uint32_t struct_size;  ///< in: sizeof(pg_parameter)
    int32_t decays;        ///< 1: weight_decay is applied to it
    int32_t n_dims;        ///< 1 to 4
    uint32_t reserved;     ///< 0
    int64_t shape[4];      ///< n_dims numbers, and then ones
    const char *name;      ///< as in adapter_model.safetensors, valid until the trainer is closed
    const float *value;    ///< valid until the trainer is closed; an update changes what is there
    const float *gradient; ///< of the labels since the last update, summed; after an update their mean, as limited
} pg_parameter;
PG_API pg_status pg_trainer_get_step(const pg_trainer *trainer, int64_t *step); ///< updates so far, resumed ones too
PG_API pg_status pg_trainer_count_parameters(const pg_trainer *trainer, size_t *n); ///< arrays, not numbers
/** Parameter `index`, in the order of their names. Errors: PG_ERROR_ARGUMENT, _STATE. */
PG_API pg_status pg_trainer_get_parameter(const pg_trainer *trainer, size_t index, pg_parameter *out);

/* ---- Advanced: CPU bits, memory estimate, hub cache, conversion ---- */

#define PG_CPU_BASELINE (UINT64_C(1) << 0)    ///< alone: the plain C kernels
#define PG_CPU_AVX2 (UINT64_C(1) << 1)        ///< AVX2, FMA and F16C
#define PG_CPU_AVX512 (UINT64_C(1) << 2)      ///< AVX-512 F, BW, DQ, VL
#define PG_CPU_AVX_VNNI (UINT64_C(1) << 3)    ///< AVX-VNNI, for int8 and int4 weights; beside AVX2
#define PG_CPU_AVX512_VNNI (UINT64_C(1) << 4) ///< AVX-512 VNNI, likewise; beside AVX-512
/** AVX-512 BF16, for PG_ARITHMETIC_BF16, and for attention beside int8 and int4 weights; beside AVX-512. Mask 0 uses it
 * where it is faster than f32. */
#define PG_CPU_AVX512_BF16 (UINT64_C(1) << 5)
/** AMX-INT8, for int8 and int4 weights and many rows; beside AVX-512 VNNI. Linux is asked for the process's permission
 * when a model is opened with a mask that has it, 0 among them; where it refuses, the other sets are used. From then on
 * alternate signal stacks must have getauxval(AT_MINSIGSTKSZ) bytes, some 11 KB. */
#define PG_CPU_AMX_INT8 (UINT64_C(1) << 6)
/** AMX-BF16, for what PG_CPU_AVX512_BF16 is for, beside the CPU's AVX-512 BF16; mask 0 uses it. As PG_CPU_AMX_INT8. */
#define PG_CPU_AMX_BF16 (UINT64_C(1) << 7)
#define PG_CPU_NEON (UINT64_C(1) << 16)         ///< AArch64: NEON with FMA, which every such CPU has
#define PG_CPU_NEON_DOTPROD (UINT64_C(1) << 17) ///< dot products of bytes, for int8 and int4 weights; beside NEON
#define PG_CPU_NEON_I8MM (UINT64_C(1) << 18)    ///< products of matrices of bytes, likewise; beside the dot products
/** Products of bf16 matrices, for PG_ARITHMETIC_BF16, and for attention beside int8 and int4 weights; beside NEON. */
#define PG_CPU_NEON_BF16 (UINT64_C(1) << 19)

/** What a session would take, before one is made: one row, in bytes. pg_generate() holds a kv_cache for each row;
 * pg_forward() holds none, but its outputs. */
typedef struct pg_memory {
    uint32_t struct_size;    ///< in: sizeof(pg_memory)
    int32_t n_threads;       ///< in: threads of the session; 0: as in pg_session_options
    int64_t n_tokens;        ///< in: max_prompt_tokens + max_new_tokens of the session; 0: one image, 64 + 128
    int64_t n_images;        ///< in: images whose features one call computes, 0 to 4096; 0: one
    uint64_t weights;        ///< out: mapped from the files, shared between processes; what was quantized left out
    uint64_t weights_copied; ///< out: small tensors held as f32, what was quantized on opening, and what was read for
                             ///< PG_MODEL_IN_MEMORY or could not be mapped; private
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

/** The whole HF config of a checkpoint folder or model id as JSON text, with the defaults of the HF classes: what
 * pg_model_get_config() gives for "", of a folder that may have config.json alone. Copies as that does. Errors:
 * PG_ERROR_NOT_FOUND, _IO, _FORMAT, _UNSUPPORTED (a config that this version does not run), _MEMORY. */
PG_API pg_status pg_checkpoint_get_config(const char *model, char *text, size_t capacity, size_t *needed);

/** What the linear layers of a model read while it answers: for a conversion to int4 that rounds with it. Sums over all
 * tokens of calibration texts: 1 KiB for each input of a layer, 0.65 GB for a 3B model, whatever their number. One call
 * at a time, else PG_ERROR_STATE; a handle may move between threads. */
typedef struct pg_calibration pg_calibration;

/** An empty calibration of a model whose weights are as stored. It keeps the model. Memory comes from the model's
 * allocator. Errors: PG_ERROR_UNSUPPORTED (the weights are quantized), _MEMORY, _IO. */
PG_API pg_status pg_calibration_create(const pg_model *model, pg_calibration **out);
PG_API void pg_calibration_close(pg_calibration **calibration); ///< drops the caller's reference
/** Runs the model over the rows of `inputs`, padding left out, and adds what its layers read. Some dozens of images
 * with the prompts that the model will be asked do, best with answers (the suffix of pg_processor_encode()). The sums
 * do not depend on n_threads; on other instruction sets they differ by rounding. options: NULL for the defaults.
 * Errors: those of pg_forward(). After an error the sums have a part of the rows, and all calls but closing are
 * PG_ERROR_STATE: load what was saved before. */
PG_API pg_status pg_calibration_add(pg_calibration *calibration, const pg_inputs *inputs,
                                    const pg_run_options *options);
PG_API pg_status pg_calibration_get_rows(const pg_calibration *calibration, int64_t *n_rows); ///< rows that were added
/** Writes the sums to the file `path`, so that an interrupted calibration can go on; for this machine and this version.
 * It takes the place of a file of that name when it is whole. tag: a number of the caller's, for what is being added.
 * Errors: PG_ERROR_IO, _NOT_FOUND (the folder), _ARGUMENT (`path` is a folder), _MEMORY. */
PG_API pg_status pg_calibration_save(const pg_calibration *calibration, const char *path, uint64_t tag);
/** A calibration of `model` with what was saved. Errors: PG_ERROR_NOT_FOUND, _IO, _FORMAT (damaged, or no such file),
 * _ARGUMENT (of another model, or saved with another tag), those of pg_calibration_create(). */
PG_API pg_status pg_calibration_load(const pg_model *model, const char *path, uint64_t tag, pg_calibration **out);

/** Options of pg_model_convert(). */
typedef struct pg_convert_options {
    uint32_t struct_size;              ///< sizeof(pg_convert_options)
    int32_t weights;                   ///< PG_WEIGHTS_INT8 (default) or PG_WEIGHTS_INT4; with adapters also _STORED:
                                       ///< a checkpoint as others read it, in the dtypes of the source
    int32_t n_threads;                 ///< 1 to 1024; default and 0: the CPUs this process may use
    uint32_t reserved;                 ///< 0
    uint64_t max_file_bytes;           ///< larger weights are split into files between tensors; default and 0: 5e9
    const pg_allocator *allocator;     ///< default NULL: the C library's
    pg_log_fn log;                     ///< default NULL: silent
    void *log_user;                    ///< passed to log
    pg_progress_fn progress;           ///< default NULL; phases LOAD and CONVERT
    void *progress_user;               ///< passed to progress
    pg_cancel *cancel;                 ///< default NULL
    const char *int8_layers;           ///< beside INT4: what is int8 (PG_INT8_LAYERS_MIX); default NULL: nothing
    const pg_calibration *calibration; ///< beside INT4: of the same checkpoint. The layers that become int4 are rounded
                                       ///< so that what they compute of its texts stays near; default NULL: each
                                       ///< weight to the nearest
    const char *const *adapters;       ///< [n_adapters] folders or ids of adapters of the model, which are merged into
                                       ///< the weights; default NULL. Not beside a calibration
    const float *adapter_weights;      ///< [n_adapters] as of pg_model_adapt(); default NULL: all 1
    int32_t n_adapters;                ///< 0 to 1024; default 0
    uint32_t reserved_end;             ///< 0
} pg_convert_options;
PG_API pg_status pg_convert_options_init(pg_convert_options *options, size_t struct_size); ///< fills in the defaults

/** Writes the checkpoint `model` (a folder or an id) with quantized weights to the new or empty folder `out`, which
 * opens like any other and, unless it is calibrated, computes to the bit what pg_model_open() of `model` with the same
 * weights and int8_layers computes.
 * With adapters the folder is a model by itself, W + B A in place of W; PEFT: merge_and_unload(). Where they change an
 * embedding that is tied to the head, the head is written beside it. lora_bias on a layer that has no bias is refused.
 * The bytes are the same on every CPU and for every n_threads. Everything is written to `out`.partial, which is renamed
 * at the end: an interrupted conversion leaves no `out`, and the next one removes its remains. Errors: as
 * pg_model_open(); PG_ERROR_ARGUMENT (`out` is not empty or a mount point), PG_ERROR_UNSUPPORTED (`model` is quantized
 * already, or a file that is copied, such as the licence, is a link out of the folder), PG_ERROR_IO (the disk is full,
 * another process writes `out` or removed files of it), PG_ERROR_STATE (in a child that a callback forked: the parent
 * goes on with it). */
PG_API pg_status pg_model_convert(const char *model, const char *out, const pg_convert_options *options);

#ifdef __cplusplus
}
#endif

#endif /* PALIGEMMA_PALIGEMMA_H */
