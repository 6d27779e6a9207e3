/*
 * libpaligemma: run PaliGemma and PaliGemma 2 on a CPU, straight from a
 * Hugging Face checkpoint folder.
 *
 * This header is the whole stable API. Read it from top to bottom: version,
 * status, hooks, image, model, processor, generate, forward, advanced.
 *
 * Rules that hold everywhere
 *   - Every call that can fail returns a pg_status: 0 is success, negative an
 *     error, positive an event. After an error pg_last_error() says in words
 *     what was found and what was expected.
 *   - Options structs begin with struct_size and are filled by their _init
 *     function; a NULL options pointer means all defaults.
 *   - Memory that the caller passes in is read during the call only.
 *   - Handles hold counted references to what they need, so they may be closed
 *     in any order, and so does a call under way: a callback may close what the
 *     call was given (but not the session that it steps). Close functions take
 *     the address of the handle, set it to NULL, and accept NULL.
 *   - pg_model and pg_processor never change after open: any number of threads
 *     may use one at a time. pg_inputs, pg_features, pg_result and pg_outputs are
 *     read-only once made. pg_session and pg_detokenizer: one thread at a time.
 *   - The library never prints, exits, aborts, starts threads at load, or
 *     changes the locale, the floating-point or the OpenMP settings of its host.
 *   - n_threads, at most 1024, counts the calling thread. The others are started for the call, or with the session,
 *     and end with it; they sleep when there is nothing to do and take none of the host's signals. The same bits for
 *     every number. Where the system has fewer threads to give, fewer are used. A child after fork() has threads like
 *     its parent.
 */
#ifndef PALIGEMMA_PALIGEMMA_H
#define PALIGEMMA_PALIGEMMA_H

#include <stddef.h>
#include <stdint.h>

#include <paligemma/version.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define PG_API
#else
#define PG_API __attribute__((visibility("default")))
#endif

/* ------------------------------------------------------------------------
 * Version
 * ------------------------------------------------------------------------ */

/* The API version of the library that is running, as
 * (MAJOR << 16) | (MINOR << 8) | PATCH. A binding compares MAJOR at load. */
PG_API uint32_t pg_version_api(void);

/* The package version, such as "0.1.0". Static storage. */
PG_API const char *pg_version_string(void);

/* ------------------------------------------------------------------------
 * Status
 * ------------------------------------------------------------------------ */

typedef int32_t pg_status;

enum {
    PG_OK = 0,

    /* Events: positive, returned by pg_session_step(). */
    PG_EVENT_EOS = 1,    /* the token just returned ends the text */
    PG_EVENT_LENGTH = 2, /* no token returned: the token limit is reached */

    /* Errors: negative, spaced so that finer ones can be added between. */
    PG_ERROR_ARGUMENT = -10,    /* a NULL pointer, a value out of range, invalid UTF-8 */
    PG_ERROR_MEMORY = -20,      /* the allocator returned NULL */
    PG_ERROR_IO = -30,          /* a file could not be read or written */
    PG_ERROR_NOT_FOUND = -31,   /* a file, model id, tensor or key is not there */
    PG_ERROR_FORMAT = -40,      /* a file is damaged, truncated, or contradicts itself */
    PG_ERROR_UNSUPPORTED = -50, /* sound, but not something this version runs */
    PG_ERROR_LIMIT = -60,       /* too large: an image, a prompt, a dimension */
    PG_ERROR_CANCELLED = -70,   /* a cancel request or a progress callback stopped the call */
    PG_ERROR_STATE = -80,       /* calls in the wrong order */
    PG_ERROR_INTERNAL = -90     /* a defect of this library; please report it */
};

/* The name of a status, such as "PG_ERROR_FORMAT". Never NULL; static storage. */
PG_API const char *pg_status_name(pg_status status);

/* What went wrong in the last failed call on this thread, one line of UTF-8
 * without a line break. Never NULL; empty when nothing has failed yet. Valid
 * until the next failing call on the same thread. */
PG_API const char *pg_last_error(void);

/* ------------------------------------------------------------------------
 * Hooks: memory, log, progress, cancel
 * ------------------------------------------------------------------------ */

/* The host's allocator. Copied into the handle it is given to; `user` and the
 * functions must stay valid until that handle and all made from it are closed.
 * Called from any thread that calls the library. Memory that third-party
 * decoders and the tokenizer take for themselves does not pass through it. */
typedef struct pg_allocator {
    uint32_t struct_size; /* sizeof(pg_allocator) */
    uint32_t reserved;    /* 0 */
    void *user;           /* passed to both functions */
    /* Returns `size` bytes aligned to `alignment` (a power of two, at most 4096), or NULL. */
    void *(*alloc)(void *user, size_t size, size_t alignment);
    /* Releases what alloc() returned; never called with NULL. */
    void (*free)(void *user, void *memory);
} pg_allocator;

enum { PG_LOG_ERROR = 1, PG_LOG_WARNING = 2, PG_LOG_INFO = 3, PG_LOG_DEBUG = 4 };

/* One preformatted UTF-8 line without a line break. `message` is valid during the call. */
typedef void (*pg_log_fn)(void *user, int32_t level, const char *message);

enum {
    PG_PHASE_LOAD = 1,
    PG_PHASE_VISION = 2,
    PG_PHASE_PREFILL = 3,
    PG_PHASE_DECODE = 4,
    PG_PHASE_CONVERT = 5,
    PG_PHASE_VERIFY = 6
};

/* Progress of a phase: `done` of `total` units (tensors while loading, layers
 * in encode and prefill, tokens in decode, bytes in convert and verify). Called on the calling thread; a
 * non-zero return stops the call with PG_ERROR_CANCELLED. */
typedef int32_t (*pg_progress_fn)(void *user, int32_t phase, int64_t done, int64_t total);

/* A cancel flag. pg_cancel_request() may be called from any thread (not from a
 * signal handler that may interrupt pg_cancel_close()); every call that was
 * given the flag sees it within a few milliseconds to tens of milliseconds,
 * inside the encoder and the prefill too, and returns PG_ERROR_CANCELLED. */
typedef struct pg_cancel pg_cancel;

/* Makes a flag that is not set. Close it with pg_cancel_close(). */
PG_API pg_status pg_cancel_create(pg_cancel **out);
/* Sets the flag. NULL is ignored. */
PG_API void pg_cancel_request(pg_cancel *cancel);
/* Clears the flag, so that it can be used again. NULL is ignored. */
PG_API void pg_cancel_clear(pg_cancel *cancel);
/* Sets *cancel to NULL. Calls under way keep their own reference. */
PG_API void pg_cancel_close(pg_cancel **cancel);

/* ------------------------------------------------------------------------
 * Tensor: a read-only view of an array that some handle owns
 * ------------------------------------------------------------------------ */

enum { PG_DTYPE_F32 = 1, PG_DTYPE_BF16 = 2, PG_DTYPE_F16 = 3, PG_DTYPE_I64 = 4, PG_DTYPE_U8 = 5, PG_DTYPE_I32 = 6 };

/* Row-major and dense: element [i][j] of a 2-d tensor is data[i * shape[1] + j]. */
typedef struct pg_tensor {
    uint32_t struct_size; /* in: sizeof(pg_tensor), set by the caller */
    int32_t dtype;        /* PG_DTYPE_* */
    int32_t n_dims;       /* 1 to 4 */
    uint32_t reserved;    /* 0 */
    int64_t shape[4];     /* the first n_dims are set, the rest are 1 */
    const void *data;     /* owned by the handle; valid as the getter says */
} pg_tensor;

/* ------------------------------------------------------------------------
 * Image: a borrowed image, as a file, as PNG/JPEG bytes, or as pixels
 * ------------------------------------------------------------------------ */

enum {
    PG_IMAGE_RGB8 = 1,   /* 3 bytes a pixel: R G B */
    PG_IMAGE_BGR8 = 2,   /* 3 bytes a pixel: B G R */
    PG_IMAGE_RGBA8 = 3,  /* 4 bytes a pixel: R G B A; A is dropped, as Pillow's convert("RGB") does */
    PG_IMAGE_BGRA8 = 4,  /* 4 bytes a pixel: B G R A; A is dropped */
    PG_IMAGE_GRAY8 = 5,  /* 1 byte a pixel */
    PG_IMAGE_PATH = 100, /* path: a PNG or JPEG file */
    PG_IMAGE_BYTES = 101 /* planes[0], n_bytes: the bytes of a PNG or JPEG file */
};

/* Fill it with one of the three functions below. Nothing is copied: path,
 * bytes or pixels must stay valid until the call that reads the image returns. */
typedef struct pg_image {
    uint32_t struct_size;     /* sizeof(pg_image) */
    int32_t format;           /* PG_IMAGE_* */
    int32_t width;            /* pixels, >= 1; raw formats only */
    int32_t height;           /* pixels, >= 1; raw formats only */
    const uint8_t *planes[4]; /* planes[0]: the first byte of the top row (raw), or the file's bytes */
    int64_t strides[4];       /* strides[0]: bytes from one row to the next below it; may be negative */
    const char *path;         /* UTF-8; PG_IMAGE_PATH only */
    uint64_t n_bytes;         /* PG_IMAGE_BYTES only */
} pg_image;

/* A PNG or JPEG file by path. The file is read when the image is used. */
PG_API pg_status pg_image_from_path(pg_image *image, size_t struct_size, const char *path);
/* The `n_bytes` bytes of a PNG or JPEG file. */
PG_API pg_status pg_image_from_bytes(pg_image *image, size_t struct_size, const void *bytes, size_t n_bytes);
/* A camera or texture buffer. `stride` in bytes, 0: rows are dense. With a
 * negative stride `pixels` still points at the top row, the one that comes last in memory. */
PG_API pg_status pg_image_from_pixels(pg_image *image, size_t struct_size, int32_t format, int32_t width,
                                      int32_t height, const void *pixels, int64_t stride);

/* ------------------------------------------------------------------------
 * Model: the weights, mapped from a checkpoint folder
 * ------------------------------------------------------------------------ */

typedef struct pg_model pg_model;

/* How the matrices of the linear layers, the embedding and the head are kept (docs/FORMATS.md). */
enum {
    PG_WEIGHTS_STORED = 0, /* as the folder has them */
    PG_WEIGHTS_INT8 = 1,   /* 8 bits, a scale per 128 weights of a row: 8.25 bits a weight */
    PG_WEIGHTS_INT4 = 2    /* 4 bits, a scale per 128 and a fine one per 32 weights of a row: 4.25 bits a weight */
};

/* What products of activations are computed in. Sums, and everything between the products, are f32 always. Linear
 * layers with int8 or int4 weights are left out: their products are of int8, summed exactly in groups. */
enum {
    PG_ARITHMETIC_DEFAULT = 0, /* f32; with int8 and int4 weights, attention as PG_ARITHMETIC_BF16 has it */
    PG_ARITHMETIC_F32 = 1,     /* f32 */
    PG_ARITHMETIC_BF16 = 2     /* linear layers of more than 4 rows (the head too), and attention of more than 4
                                  queries, round their factors to bf16, where PG_CPU_AVX512_BF16 is in use; elsewhere
                                  as F32, which is closer too. Weights that are bf16 lose nothing */
};

/* Flags of pg_model_options. */
enum {
    PG_MODEL_VERIFY = 1 /* read the whole of a converted folder and compare its checksums; PG_ERROR_FORMAT names what is
                           damaged, PG_ERROR_UNSUPPORTED: the folder has none. Without it the checksums of headers alone
                           are compared, and damaged weights go unnoticed: verify a folder that came over a wire */
};

typedef struct pg_model_options {
    uint32_t struct_size; /* sizeof(pg_model_options) */
    uint32_t reserved;    /* 0 */
    uint64_t cpu_mask;    /* PG_CPU_* bits that may be used; default, 0: all this CPU has, but see AVX512_BF16 */
    const pg_allocator *allocator; /* default NULL: the C library's */
    pg_log_fn log;                 /* default NULL: silent */
    void *log_user;                /* passed to log */
    pg_progress_fn progress;       /* default NULL; phases verify, load, convert (int8, int4) */
    void *progress_user;           /* passed to progress */
    pg_cancel *cancel;             /* default NULL */
    int32_t weights;    /* PG_WEIGHTS_*; default PG_WEIGHTS_STORED. A folder converted to the other: refused */
    uint32_t flags;     /* PG_MODEL_VERIFY; default 0 */
    int32_t arithmetic; /* PG_ARITHMETIC_*; default PG_ARITHMETIC_DEFAULT */
    uint32_t reserved2; /* 0 */
} pg_model_options;

/* Instruction sets for cpu_mask. PG_CPU_BASELINE alone runs the plain C kernels. */
#define PG_CPU_BASELINE (UINT64_C(1) << 0)
#define PG_CPU_AVX2 (UINT64_C(1) << 1)        /* AVX2, FMA and F16C */
#define PG_CPU_AVX512 (UINT64_C(1) << 2)      /* AVX-512 F, BW, DQ, VL */
#define PG_CPU_AVX_VNNI (UINT64_C(1) << 3)    /* AVX-VNNI, for int8 and int4 weights; beside AVX2 */
#define PG_CPU_AVX512_VNNI (UINT64_C(1) << 4) /* AVX-512 VNNI, for the same; beside AVX-512 */
/* AVX-512 BF16, for PG_ARITHMETIC_BF16, and for attention beside int8 and int4 weights; beside AVX-512. Mask 0 leaves
 * it out on CPUs other than AMD's, where it would be slower than f32. */
#define PG_CPU_AVX512_BF16 (UINT64_C(1) << 5)

PG_API pg_status pg_model_options_init(pg_model_options *options, size_t struct_size);

/* Opens the checkpoint folder `model`, or a model id such as
 * "google/paligemma-3b-mix-224", which is looked up in the local Hugging Face
 * cache as pg_checkpoint_find() says; the network is never used.
 * The weight files stay mapped until the model and everything made from it are
 * closed: do not truncate or rewrite them in that time.
 * Verifying and quantizing use all CPUs this process may use, up to 64 threads, which end before the call returns.
 * Errors: PG_ERROR_NOT_FOUND, _IO, _FORMAT, _UNSUPPORTED, _MEMORY, _CANCELLED; _ARGUMENT: an option is out of range,
 * cpu_mask leaves nothing, options.weights is int8 or int4 and the folder was converted to the other, or a weight that
 * is to be quantized is not finite. */
PG_API pg_status pg_model_open(const char *model, const pg_model_options *options, pg_model **out);

/* Drops the caller's reference and sets *model to NULL. */
PG_API void pg_model_close(pg_model **model);

/* A field of the HF config by its key, `text_config.` and `vision_config.`
 * written before the key for the parts: "text_config.hidden_size",
 * "vision_config.patch_size", "image_token_index". Fields that config.json
 * leaves out have the default of the HF config class (PaliGemmaConfig,
 * GemmaConfig, Gemma2Config, SiglipVisionConfig).
 * Errors: PG_ERROR_NOT_FOUND (no such key), PG_ERROR_ARGUMENT (another type). */
PG_API pg_status pg_model_get_config_int(const pg_model *model, const char *key, int64_t *out);
PG_API pg_status pg_model_get_config_float(const pg_model *model, const char *key, double *out);
/* The field as JSON text; the key "" gives the whole config, defaults filled in.
 * Copies at most `capacity` bytes with the closing NUL into `text`; *needed (may
 * be NULL) receives the size with the NUL. Call with capacity 0 to ask the size. */
PG_API pg_status pg_model_get_config(const pg_model *model, const char *key, char *text, size_t capacity, size_t *needed);

typedef struct pg_model_info {
    uint32_t struct_size;    /* in: sizeof(pg_model_info) */
    int32_t gemma_version;   /* 1: PaliGemma (Gemma 1 decoder), 2: PaliGemma 2 (Gemma 2 decoder) */
    uint64_t n_parameters;   /* elements of all tensors in use, a tied head counted once */
    uint64_t n_bytes_mapped; /* bytes of the mapped weight files */
    uint64_t cpu_used;       /* PG_CPU_* bits of the kernels chosen */
    uint32_t n_files;        /* safetensors files */
    uint32_t n_tensors;      /* tensors in use */
    uint32_t dtypes;         /* bit (1 << PG_DTYPE_x) for each weight dtype in use, that of quantized ones left out */
    int32_t image_size;      /* pixels, width = height */
    int32_t n_image_tokens;  /* image tokens per image: (image_size / patch_size)^2 */
    int32_t vocab_size;      /* rows of the head */
    int32_t weights;         /* PG_WEIGHTS_*: what the matrices are kept as; PG_WEIGHTS_STORED: as dtypes says */
    int32_t arithmetic;      /* PG_ARITHMETIC_F32, or _BF16: rounds as that says; 0: a library before API 0.4 */
} pg_model_info;

PG_API pg_status pg_model_get_info(const pg_model *model, pg_model_info *info);

/* What a session would take, before one is made; that is, one row. All in bytes. pg_generate() on several rows holds
 * a kv_cache for each; pg_forward() holds none, but its outputs. */
typedef struct pg_memory {
    uint32_t struct_size;    /* in: sizeof(pg_memory) */
    int32_t n_threads;       /* in: threads of the session; 0: as in pg_session_options */
    int64_t n_tokens;        /* in: max_prompt_tokens + max_new_tokens of the session; 0: one image, 64 + 128 */
    int64_t n_images;        /* in: images encoded in one call (session: max_prompt_tokens / n_image_tokens); 0: one */
    uint64_t weights;        /* out: mapped from the files, shared between processes; what was quantized left out */
    uint64_t weights_copied; /* out: small tensors held as f32, and what was quantized on opening; private */
    uint64_t activations;    /* out: working memory at the most: encoder and decoder do not hold theirs at once */
    uint64_t kv_cache;       /* out: keys and values of n_tokens */
} pg_memory;

PG_API pg_status pg_model_get_memory(const pg_model *model, pg_memory *memory);

/* Where a model id lies in the local Hugging Face cache: $HF_HUB_CACHE, else
 * $HUGGINGFACE_HUB_CACHE, else $HF_HOME/hub, else $XDG_CACHE_HOME/huggingface/hub,
 * else ~/.cache/huggingface/hub; there models--ORG--NAME/snapshots/<refs/main>. A folder's path is
 * returned as it is. Copies as pg_model_get_config() does.
 * Errors: PG_ERROR_NOT_FOUND; the message names the folders that were looked at. */
PG_API pg_status pg_checkpoint_find(const char *model, char *path, size_t capacity, size_t *needed);

typedef struct pg_convert_options {
    uint32_t struct_size;          /* sizeof(pg_convert_options) */
    int32_t weights;               /* PG_WEIGHTS_INT8 (default) or PG_WEIGHTS_INT4 */
    int32_t n_threads;             /* >= 1; default and 0: the CPUs this process may use */
    uint32_t reserved;             /* 0 */
    uint64_t max_file_bytes;       /* larger weights are cut into several files between tensors; default and 0: 5e9 */
    const pg_allocator *allocator; /* default NULL: the C library's */
    pg_log_fn log;                 /* default NULL: silent */
    void *log_user;                /* passed to log */
    pg_progress_fn progress;       /* default NULL; phases load and convert */
    void *progress_user;           /* passed to progress */
    pg_cancel *cancel;             /* default NULL */
} pg_convert_options;

PG_API pg_status pg_convert_options_init(pg_convert_options *options, size_t struct_size);

/* Writes the checkpoint `model` (a folder or an id, as pg_model_open() takes) with quantized weights to the new folder
 * `out`, which opens like any other and computes to the bit what pg_model_open() of `model` with the same
 * options.weights computes. The bytes written are the same on every CPU and for every n_threads.
 * `out` is new or an empty folder. Everything is written to `out`.partial beside it, which is renamed at the end: a
 * conversion that was cut off leaves no `out`, and what it left of `out`.partial does not open (unless renaming it was
 * all that was left to do) and goes with the next run.
 * Errors: as pg_model_open(); PG_ERROR_ARGUMENT (`out` is not empty or a mount point, a weight is not finite),
 * PG_ERROR_UNSUPPORTED (`model` is quantized already), PG_ERROR_IO (the disk is full, another process writes `out`). */
PG_API pg_status pg_model_convert(const char *model, const char *out, const pg_convert_options *options);

/* ------------------------------------------------------------------------
 * Processor: tokenizer and image processing
 * ------------------------------------------------------------------------ */

typedef struct pg_processor pg_processor;

typedef struct pg_processor_options {
    uint32_t struct_size;          /* sizeof(pg_processor_options) */
    uint32_t reserved;             /* 0 */
    const pg_allocator *allocator; /* default NULL: the C library's */
    pg_log_fn log;                 /* default NULL: silent */
    void *log_user;                /* passed to log */
} pg_processor_options;

PG_API pg_status pg_processor_options_init(pg_processor_options *options, size_t struct_size);

/* Opens the tokenizer (as transformers does: tokenizer.json decides where it is
 * there, else tokenizer.model) and the image settings (image_processor in processor_config.json, else
 * preprocessor_config.json) of a checkpoint folder or model id; see
 * pg_model_open(). Errors: as pg_model_open(), but never PG_ERROR_CANCELLED. */
PG_API pg_status pg_processor_open(const char *model, const pg_processor_options *options, pg_processor **out);
PG_API void pg_processor_close(pg_processor **processor);

/* Flags of pg_encode_options and the tokenizer calls. */
enum {
    PG_ENCODE_LITERAL = 1, /* "<eos>", "<image>" and the like in the text are plain characters, not special
                            tokens: safe for prompts from strangers. Location and segmentation pieces stay
                            pieces. Default: parsed, as HF does. In PG_MODE_BIG_VISION that is so without the
                            flag, except for <mask>, which is always parsed. */
    PG_ENCODE_EXIF = 2,   /* turn the image as its EXIF orientation says, as transformers' load_image does.
                            Default: not, as HF's processor does with an opened file. */
    PG_DECODE_SKIP_SPECIAL = 4, /* detokenizing: leave out special tokens, as decode(skip_special_tokens=True) */
    PG_ENCODE_TRUNCATE = 8,     /* cut rows longer than max_length, as truncation=True. Default: max_length cuts nothing. */
    PG_ENCODE_KEEP_ENDS = 16, /* with PG_ENCODE_TRUNCATE: keep images, bos, newline and eos, cut the suffix's own tail,
                                   then the prompt's */
    PG_ENCODE_OPEN_SUFFIX = 32         /* no eos after the suffix: the model is to go on from it (big_vision: eos="no") */
};

/* How prompt, newline and suffix become ids, and how an image is resized. */
enum {
    PG_MODE_HF = 0, /* transformers' PaliGemmaProcessor: prompt and newline are one text, the suffix its pair; the
                       image as preprocessor_config.json says (Pillow's bicubic on 8 bits) */
    /* google-research/big_vision, the training code: prompt, newline and suffix are tokenized apart, with what its
     * sentencepiece model parses and nothing more (configs/proj/paligemma/transfers/common.py, pp/ops_text.py);
     * bilinear with antialias on floats (tf.image.resize), value / 127.5 - 1, as its fine-tuning notebook does
     * (configs/proj/paligemma/finetune_paligemma.ipynb; its training configs cut to 8 bits in between) */
    PG_MODE_BIG_VISION = 1
};

enum {
    PG_PADDING_LONGEST = 0,    /* to the longest row of the batch */
    PG_PADDING_MAX_LENGTH = 1, /* to max_length; longer rows stay as they are */
    PG_PADDING_NONE = 2        /* not at all: rows of different lengths are refused, as HF refuses to stack them */
};

enum {
    PG_SIDE_DEFAULT = 0, /* the tokenizer's, else the left for padding (GemmaTokenizer) and the right for truncation */
    PG_SIDE_LEFT = 1,
    PG_SIDE_RIGHT = 2
};

/* What PG_ENCODE_TRUNCATE takes away first. */
enum {
    PG_TRUNCATION_LONGEST =
        0, /* the longer of the two, images and prompt or suffix, down to the other's length, then both
       in halves: "longest_first", truncation=True. With images that is nearly always the prompt.
       In PG_MODE_BIG_VISION: the suffix, then the prompt with its newline, as of one text */
    PG_TRUNCATION_PROMPT = 1, /* the prompt alone: "only_first" */
    PG_TRUNCATION_SUFFIX = 2  /* the suffix alone: "only_second" */
};

/* "The tokenizer's" is what tokenizer_config.json says, else what tokenizer.json was saved with after training. */
typedef struct pg_encode_options {
    uint32_t struct_size;       /* sizeof(pg_encode_options) */
    uint32_t flags;             /* PG_ENCODE_LITERAL | PG_ENCODE_EXIF | PG_ENCODE_TRUNCATE ...; default 0 */
    int64_t max_image_pixels;   /* width x height above this is refused, PG_ERROR_LIMIT; default and 0:
                                   178956970, where Pillow raises DecompressionBombError */
    int32_t mode;               /* PG_MODE_*; default PG_MODE_HF */
    int32_t padding;            /* PG_PADDING_*; default PG_PADDING_LONGEST */
    int32_t padding_side;       /* PG_SIDE_*; default the tokenizer's */
    int32_t pad_to_multiple_of; /* >= 1: padded lengths are rounded up to a multiple of it; default and 0: the
                                   tokenizer's, else 1 */
    int64_t max_length;         /* tokens of a row, image tokens included, for PG_ENCODE_TRUNCATE and PG_PADDING_MAX_LENGTH;
                                   default and 0: the tokenizer's max_length, else its model_max_length, which the
                                   official checkpoints leave open: then nothing is cut, and PG_PADDING_MAX_LENGTH is
                                   PG_PADDING_NONE */
    int32_t truncation;         /* PG_TRUNCATION_*; default PG_TRUNCATION_LONGEST */
    int32_t truncation_side;    /* PG_SIDE_*: where each part loses tokens; default: the tokenizer's truncation_side,
                            else right, the tail */
} pg_encode_options;

PG_API pg_status pg_encode_options_init(pg_encode_options *options, size_t struct_size);

typedef struct pg_inputs pg_inputs;

/* Builds what the model is fed: `<image>` x N, bos, the prompt, a newline
 * (HF: PaliGemmaProcessor.__call__ without suffix), and the image's pixels.
 * image NULL: the layout still has its image tokens but no pixels; such inputs
 * need features (see pg_features_create()), so that one encoded image serves many prompts.
 * prompt: UTF-8; NULL or "" is HF's empty prompt (a caption, for the pretrained models).
 * One row of pg_processor_encode_batch(), where all options are explained. */
PG_API pg_status pg_processor_encode(const pg_processor *processor, const pg_image *image, const char *prompt,
                                     const pg_encode_options *options, pg_inputs **out);

/* The rows of a batch, each with a prompt, any number of images, and an optional suffix (the answer to learn). */
typedef struct pg_batch {
    uint32_t struct_size;         /* sizeof(pg_batch) */
    int32_t n_prompts;            /* rows; 0 with prompts NULL: images alone, no ids (HF: text=None) */
    int32_t n_suffixes;           /* 0: none; else as many as rows */
    int32_t n_images;             /* entries of images */
    int32_t n_image_counts;       /* 0, or as many as rows */
    uint32_t reserved;            /* 0 */
    const char *const *prompts;   /* [n_prompts], UTF-8; an entry NULL: "" */
    const char *const *suffixes;  /* [n_suffixes], UTF-8; an entry NULL: "" (the eos alone) */
    const uint64_t *prompt_sizes; /* [n_prompts] bytes; default NULL: each ends at its NUL */
    const uint64_t *suffix_sizes; /* [n_suffixes] bytes; default NULL: likewise */
    const pg_image *images;       /* [n_images], the first row's images first; all with the same struct_size */
    /* [n_image_counts]: the images of each row. Default NULL: one each, n_images is then n_prompts, or 0 for rows
     * whose `<image>` tokens wait for features. Given together with n_images 0: image tokens for so many images
     * each, and no pixels. */
    const int32_t *image_counts;
} pg_batch;

/* Defaults: zero rows, everything NULL. */
PG_API pg_status pg_batch_init(pg_batch *batch, size_t struct_size);

/* The batch as HF's PaliGemmaProcessor(images=, text=, suffix=, padding=, truncation=, max_length=) gives it: ids,
 * masks and labels equal to the last number, pixels to the last bit.
 *
 *   row      `<image>` x N for each image, bos, the prompt, a newline [, the suffix, eos]
 *   labels   the ids of the suffix and its eos, -100 elsewhere
 *
 * Where HF's answer harms it is followed all the same and reported, see pg_inputs_get_row_info(): truncation takes from the
 * longer part's tail, newline or eos first; `<image>` in the text of some rows makes HF put bos at an odd place in the
 * others. docs/PROCESSOR.md lists each case.
 * Errors name the row and the numbers: PG_ERROR_ARGUMENT for counts that do not match, invalid UTF-8, `<image>` in a
 * suffix, a truncation that reaches the images, rows that PG_PADDING_NONE cannot stack; PG_ERROR_LIMIT for more than
 * 16777216 image tokens in a row or padding to more; images as pg_processor_encode(). */
PG_API pg_status pg_processor_encode_batch(const pg_processor *processor, const pg_batch *batch,
                                           const pg_encode_options *options, pg_inputs **out);
PG_API void pg_inputs_close(pg_inputs **inputs);

/* A tensor of the inputs by its HF name, valid until the inputs are closed. B rows, T tokens each:
 *   "input_ids"       i64 [B, T]
 *   "attention_mask"  i64 [B, T]  1, and 0 on padding
 *   "token_type_ids"  i64 [B, T]  0 on images, prompt and padding, 1 on the suffix
 *   "labels"          i64 [B, T]  ids of the suffix, -100 elsewhere
 *   "position_ids"    i64 [B, T]  from 1, padding skipped, as HF's generate() counts them (1 on the padding itself)
 *   "pixel_values"    f32 [n_images, 3, S, S]  the first row's images first
 *   "image_counts"    i64 [B]     images of each row
 *   "inputs_embeds"   f32 [B, T, hidden]  where they were given, see pg_inputs_create()
 * Errors: PG_ERROR_NOT_FOUND (unknown name, or inputs without it). */
PG_API pg_status pg_inputs_get_tensor(const pg_inputs *inputs, const char *name, pg_tensor *out);

/* What happened to a row, in pg_row_info.events. */
enum {
    PG_ROW_TRUNCATED = 1,         /* truncated: n_truncated tokens are missing */
    PG_ROW_TRUNCATED_EOS = 2,     /* the suffix lost its eos: a model trained on it does not learn to end */
    PG_ROW_TRUNCATED_NEWLINE = 4, /* the newline between prompt and suffix is gone */
    PG_ROW_TRUNCATED_IMAGE = 8, /* image tokens are missing: such a row cannot be run (as many in the suffix hid it) */
    PG_ROW_BOS_MISPLACED = 16,  /* HF put bos inside the prompt: another row's text has `<image>`, this one's has not */
    PG_ROW_NEWLINE_MERGED = 32  /* the prompt ends in a newline, which became one token with the layout's own */
};

typedef struct pg_row_info {
    uint32_t struct_size; /* in: sizeof(pg_row_info) */
    uint32_t events;      /* PG_ROW_* */
    int64_t first_token;  /* padding on the left */
    int64_t n_tokens;     /* without padding; the row's tokens are first_token .. first_token + n_tokens */
    int64_t n_suffix;     /* of these, the last n_suffix are the suffix with its eos */
    int64_t n_truncated;  /* tokens that truncation took away */
    int64_t first_image;  /* index of the row's first image in pixel_values */
    int64_t n_images;     /* the row's images */
} pg_row_info;

/* row: 0 to B - 1. */
PG_API pg_status pg_inputs_get_row_info(const pg_inputs *inputs, int64_t row, pg_row_info *info);

/* Inputs from the caller's own arrays, all copied. Either input_ids or inputs_embeds is given, or pixel_values
 * alone. */
typedef struct pg_input_arrays {
    uint32_t struct_size;            /* sizeof(pg_input_arrays) */
    uint32_t reserved;               /* 0 */
    const pg_tensor *input_ids;      /* i64 [B, T] */
    const pg_tensor *inputs_embeds;  /* f32 [B, T, hidden]: rows as the decoder takes them, text rows already
                                        multiplied by sqrt(hidden) (HF 5.23: get_input_embeddings()(ids)) */
    const pg_tensor *attention_mask; /* i64 [B, T], 0 or 1, the ones of a row without a gap; default NULL: all 1 */
    const pg_tensor *token_type_ids; /* i64 [B, T], 0 or 1, 0s before 1s; default NULL: all 1, each token sees only
                                        what is before it, as in HF's generate() (and in its forward(), but that
                                        its sdpa attention lets rows without padding see everything) */
    const pg_tensor *labels;         /* i64 [B, T], ids or -100; default NULL: no loss */
    const pg_tensor *position_ids;   /* i64 [B, T]; default NULL: counted, padding skipped */
    const pg_tensor *pixel_values;   /* f32 [n_images, 3, S, S], finite; default NULL: none */
    const pg_allocator *allocator;   /* default NULL: the C library's */
} pg_input_arrays;

PG_API pg_status pg_input_arrays_init(pg_input_arrays *arrays, size_t struct_size);

/* Images alone, pixel_values without ids, serve pg_features_create(). The arrays do not say which image is whose:
 * "image_counts" is not there, and n_images of each row is 0.
 * Errors: PG_ERROR_ARGUMENT names the array, the row and the numbers. Ids are held against the vocabulary when they
 * meet a model. */
PG_API pg_status pg_inputs_create(const pg_input_arrays *arrays, pg_inputs **out);

/* The ids of a text alone: no image tokens, bos or newline added. flags: PG_ENCODE_LITERAL.
 * Writes at most `capacity` ids; *n_ids receives how many there are. */
PG_API pg_status pg_processor_tokenize(const pg_processor *processor, const char *text, uint32_t flags, int64_t *ids,
                                       size_t capacity, size_t *n_ids);

/* The text of ids, as HF's tokenizer.decode(). flags: PG_DECODE_SKIP_SPECIAL. Copies as pg_model_get_config() does. */
PG_API pg_status pg_processor_decode(const pg_processor *processor, const int64_t *ids, size_t n_ids, uint32_t flags,
                                     char *text, size_t capacity, size_t *needed);

/* The piece of an id as the vocabulary writes it ("<loc0012>", U+2581 for a
 * space). Valid until the processor is closed. PG_ERROR_ARGUMENT: no such id. */
PG_API pg_status pg_processor_get_piece(const pg_processor *processor, int64_t id, const char **piece);

/* The id of a piece, such as "<image>" or "<loc0000>". PG_ERROR_NOT_FOUND: no such piece. */
PG_API pg_status pg_processor_get_token_id(const pg_processor *processor, const char *piece, int64_t *id);

typedef struct pg_processor_info {
    uint32_t struct_size;     /* in: sizeof(pg_processor_info) */
    int32_t image_size;       /* pixels, width = height */
    int32_t n_image_tokens;   /* `<image>` tokens per image */
    int32_t resample;         /* Pillow's number: 2 bilinear, 3 bicubic, ... */
    int32_t vocab_size;       /* ids of the tokenizer, added tokens included */
    int32_t tokenizer_source; /* 1: tokenizer.model, alone or with the pieces of tokenizer.json; 2: tokenizer.json */
    int64_t pad_id, eos_id, bos_id, unk_id, image_id;       /* -1: none */
    float image_mean[3], image_std[3];                      /* in units of rescaled pixels */
    double rescale_factor;                                  /* 1/255 */
    uint32_t do_resize, do_rescale, do_normalize, reserved; /* 0 or 1 */
} pg_processor_info;

PG_API pg_status pg_processor_get_info(const pg_processor *processor, pg_processor_info *info);

/* ------------------------------------------------------------------------
 * Generate: inputs in, text out
 * ------------------------------------------------------------------------ */

typedef struct pg_features pg_features;
typedef struct pg_result pg_result;

/* A piece of text, as soon as it is whole: never a part of a UTF-8 character.
 * `text` (`size` bytes, and a closing NUL) is valid during the call; it may be
 * empty when `token` completes none. A non-zero return ends the generation
 * (stop reason PG_STOP_CALLBACK). At the end, however it came, an unfinished
 * character follows as U+FFFD in one more call, so that all pieces are the text. */
typedef int32_t (*pg_text_fn)(void *user, const char *text, size_t size, int64_t token);

/* The same for row `row` of a batch; a non-zero return ends that row alone. */
typedef int32_t (*pg_row_text_fn)(void *user, int64_t row, const char *text, size_t size, int64_t token);

typedef struct pg_generate_options {
    uint32_t struct_size;        /* sizeof(pg_generate_options) */
    uint32_t flags;              /* 0 (room) */
    int32_t max_new_tokens;      /* >= 1; default and 0: 128 */
    int32_t n_threads;           /* >= 1; default and 0: the CPUs this process may use */
    const pg_features *features; /* default NULL: the pixels of the inputs are encoded */
    pg_text_fn on_text;          /* default NULL; text without special tokens */
    void *on_text_user;          /* passed to on_text */
    pg_progress_fn progress;     /* default NULL; phases encode, prefill, decode */
    void *progress_user;         /* passed to progress */
    pg_cancel *cancel;           /* default NULL */
    pg_row_text_fn on_row_text;  /* default NULL; as on_text, for inputs of several rows */
    void *on_row_text_user;      /* passed to on_row_text */
} pg_generate_options;

PG_API pg_status pg_generate_options_init(pg_generate_options *options, size_t struct_size);

/* Greedy generation until an eos id of the checkpoint, max_new_tokens, or the
 * callback's word. The text equals HF's generate(do_sample=False) on the same
 * inputs in f32; of generation_config.json the eos ids are followed, settings
 * that bend greedy decoding (num_beams, repetition_penalty, ...) are not, and
 * a warning is logged when the model opens. Bit-equal for every n_threads.
 * Inputs of several rows are generated together, the weights read once for up to 4 of them a step; each row gets the
 * tokens that it gets alone, and ends on its own. Padding on either side is left out. A suffix in the inputs is
 * continued (see PG_ENCODE_OPEN_SUFFIX).
 * Errors: PG_ERROR_ARGUMENT names the row; on_text given for several rows. */
PG_API pg_status pg_generate(pg_model *model, pg_processor *processor, const pg_inputs *inputs,
                             const pg_generate_options *options, pg_result **out);
PG_API void pg_result_close(pg_result **result);

/* The first row's generated text without special tokens, UTF-8. Valid until the result is closed; NULL result: "".
 * Should a model generate the byte 0, the C string ends there; on_text and pg_detokenizer_push() give sizes. */
PG_API const char *pg_result_text(const pg_result *result);
/* The first row's generated ids, i64 [n], the final eos kept when it came. Valid until the result is closed. */
PG_API pg_status pg_result_ids(const pg_result *result, pg_tensor *out);

/* The rows of the inputs that were generated from. NULL: 0. */
PG_API int64_t pg_result_get_n_rows(const pg_result *result);
/* The same for any row, 0 to n_rows - 1; text: NULL for a row that is not there. */
PG_API const char *pg_result_row_text(const pg_result *result, int64_t row);
PG_API pg_status pg_result_row_ids(const pg_result *result, int64_t row, pg_tensor *out);

enum { PG_STOP_EOS = 1, PG_STOP_LENGTH = 2, PG_STOP_CALLBACK = 3 };

typedef struct pg_result_info {
    uint32_t struct_size;    /* in: sizeof(pg_result_info) */
    int32_t stop;            /* PG_STOP_* */
    int64_t n_prompt_tokens; /* tokens fed, image tokens included */
    int64_t n_new_tokens;    /* tokens generated, eos included */
    double vision_seconds;   /* encoder and projector; 0 with given features */
    double prefill_seconds;  /* the whole prompt */
    double decode_seconds;   /* from the first token to the last */
} pg_result_info;

/* Of the first row; vision_seconds, prefill_seconds and decode_seconds are those of all rows together. */
PG_API pg_status pg_result_get_info(const pg_result *result, pg_result_info *info);
PG_API pg_status pg_result_get_row_info(const pg_result *result, int64_t row, pg_result_info *info);

/* ------------------------------------------------------------------------
 * Forward: logits, loss and hidden states of a batch
 * ------------------------------------------------------------------------ */

typedef struct pg_outputs pg_outputs;

/* Flags of pg_forward_options. */
enum {
    PG_FORWARD_NO_LOGITS = 1,     /* logits are not kept (the loss needs no room for all of them) */
    PG_FORWARD_HIDDEN_STATES = 2, /* keep the hidden states of every layer */
    PG_FORWARD_LAST_HIDDEN = 4,   /* keep the last hidden state, after the final norm */
    PG_FORWARD_LOSS_PER_ROW = 8,  /* the loss is the mean over each row's labels, 0 for a row without, then over the
                                     rows (big_vision), instead of the mean over all labels of the batch (HF) */
    PG_FORWARD_SKIP_PADDING = 16  /* compute nothing for padding: its rows are zero, and a label that padding would
                                     predict does not count. Default: as the reference does */
};

typedef struct pg_forward_options {
    uint32_t struct_size;        /* sizeof(pg_forward_options) */
    uint32_t flags;              /* PG_FORWARD_*; default 0 */
    int32_t n_threads;           /* >= 1; default and 0: the CPUs this process may use */
    uint32_t reserved;           /* 0 */
    int64_t logits_to_keep;      /* k >= 1: logits of the last k tokens of each row only; default and 0: of all */
    const pg_features *features; /* default NULL: the pixels of the inputs are encoded */
    pg_progress_fn progress; /* default NULL; phases encode and prefill, the prefill's units are layers of all rows */
    void *progress_user;     /* passed to progress */
    pg_cancel *cancel;       /* default NULL */
} pg_forward_options;

PG_API pg_status pg_forward_options_init(pg_forward_options *options, size_t struct_size);

/* One pass over a batch (HF: PaliGemmaForConditionalGeneration.forward): images, prompt and suffix go in, nothing is
 * generated. Attention is full within images and prompt, causal in the suffix (token_type_ids 1), none to padding.
 * A row gives what it gives alone, whatever side it is padded on: to the last bit, except that 4 tokens or fewer are
 * summed in another order than more, and never in bf16. Bit-equal for every n_threads.
 * Errors: PG_ERROR_ARGUMENT (the row and the numbers: an id outside the vocabulary, a label that is neither an id nor
 * -100, image tokens and images that do not match, logits_to_keep beyond the row), PG_ERROR_LIMIT (a row longer than
 * the context), _MEMORY, _CANCELLED. */
PG_API pg_status pg_forward(pg_model *model, const pg_inputs *inputs, const pg_forward_options *options,
                            pg_outputs **out);
PG_API void pg_outputs_close(pg_outputs **outputs);

/* A tensor of the outputs by its HF name, valid until the outputs are closed. B rows, T tokens, K kept, L layers:
 *   "logits"               f32 [B, K, vocab_size]  final soft cap applied; K is T unless logits_to_keep is set
 *   "loss"                 f32 [1]                 not there without labels; NaN, per row 0, when all are -100
 *   "hidden_states"        f32 [L + 1, B, T, hidden]  on request: the embeddings, then each layer's output, the last
 *                                                  after the final norm
 *   "last_hidden_state"    f32 [B, T, hidden]      on request: after the final norm
 *   "image_hidden_states"  f32 [n_images, n_image_tokens, hidden]  the projector's features; not there without images
 * The loss is the cross entropy of each label under the logits of the token before it.
 * Errors: PG_ERROR_NOT_FOUND. */
PG_API pg_status pg_outputs_get_tensor(const pg_outputs *outputs, const char *name, pg_tensor *out);

/* The last hidden state of each token after the final norm, and the projector's features, for retrieval (ColPali) and
 * action heads (pi0): pg_forward() with PG_FORWARD_LAST_HIDDEN | PG_FORWARD_NO_LOGITS | PG_FORWARD_SKIP_PADDING, the
 * loss left out. */
PG_API pg_status pg_embed(pg_model *model, const pg_inputs *inputs, const pg_forward_options *options,
                          pg_outputs **out);

/* ------------------------------------------------------------------------
 * Advanced: encode an image once, generate step by step
 * ------------------------------------------------------------------------ */

typedef struct pg_run_options {
    uint32_t struct_size;    /* sizeof(pg_run_options) */
    int32_t n_threads;       /* >= 1; default and 0: the CPUs this process may use */
    pg_progress_fn progress; /* default NULL */
    void *progress_user;     /* passed to progress */
    pg_cancel *cancel;       /* default NULL */
} pg_run_options;

PG_API pg_status pg_run_options_init(pg_run_options *options, size_t struct_size);

/* Runs the vision encoder and the projector on the pixels of `inputs`. The
 * features depend on the image alone and serve any number of prompts (keys
 * and values do not: image tokens attend to the prompt). */
PG_API pg_status pg_features_create(pg_model *model, const pg_inputs *inputs, const pg_run_options *options,
                                 pg_features **out);
PG_API void pg_features_close(pg_features **features);
/* f32 [n_images, n_image_tokens, hidden_size], valid until the features are closed. */
PG_API pg_status pg_features_get_tensor(const pg_features *features, pg_tensor *out);

typedef struct pg_session pg_session;

typedef struct pg_session_options {
    uint32_t struct_size;      /* sizeof(pg_session_options) */
    int32_t n_threads;         /* >= 1; default and 0: the CPUs this process may use */
    int32_t max_new_tokens;    /* tokens that pg_session_step() may return after a prefill; >= 1; default and 0: 128 */
    int32_t max_prompt_tokens; /* tokens of a prompt, image tokens included, that memory is made for; 0 to the context's
                                  end, default and 0: one image and 64 tokens of text */
    pg_progress_fn progress;   /* default NULL */
    void *progress_user;       /* passed to progress */
    pg_cancel *cancel;         /* default NULL */
} pg_session_options;

PG_API pg_status pg_session_options_init(pg_session_options *options, size_t struct_size);

/* All memory is allocated here: prefilling a prompt of up to max_prompt_tokens, its images encoded or not, and the
 * steps after it allocate nothing. A longer prompt still works: the session then grows, and keeps what it grew to.
 * The threads of the session are started here, n_threads - 1 of them, and end with it.
 * Errors: PG_ERROR_ARGUMENT, _MEMORY. */
PG_API pg_status pg_session_create(pg_model *model, const pg_session_options *options, pg_session **out);
PG_API void pg_session_close(pg_session **session);

/* Feeds a whole prompt as one block (full attention within it), with its suffix if it has one (causal), and computes
 * the logits of the token that follows. The inputs have one row; its padding is left out. features NULL: the pixels
 * of the inputs are encoded first. A session may be prefilled again: it starts over. After PG_ERROR_CANCELLED or any
 * other error, prefill again. */
PG_API pg_status pg_session_prefill(pg_session *session, const pg_inputs *inputs, const pg_features *features);

/* Picks the next token (greedy: the lowest id among the largest logits).
 *   PG_OK            *token is the next token
 *   PG_EVENT_EOS     *token ends the text; no further step is possible
 *   PG_EVENT_LENGTH  max_new_tokens were returned already; *token is untouched */
PG_API pg_status pg_session_step(pg_session *session, int64_t *token);

/* The logits that the token last returned by pg_session_step() was picked from
 * or, right after a prefill, that the next step will pick from: f32
 * [vocab_size], final soft cap applied. Valid until the next call on the session. */
PG_API pg_status pg_session_get_logits(const pg_session *session, pg_tensor *out);

/* Turns ids into text one by one, holding back bytes of unfinished UTF-8 characters. */
typedef struct pg_detokenizer pg_detokenizer;

/* flags: PG_DECODE_SKIP_SPECIAL or 0. Pushing allocates nothing, unless more than 1024 byte pieces come in a row. */
PG_API pg_status pg_detokenizer_create(const pg_processor *processor, uint32_t flags, pg_detokenizer **out);
PG_API void pg_detokenizer_close(pg_detokenizer **detokenizer);
/* The text that `id` completes. *text is NUL-terminated, `*size` bytes (size may
 * be NULL), valid until the next call on the detokenizer. All pieces
 * together and the flush equal pg_processor_decode() of all ids. */
PG_API pg_status pg_detokenizer_push(pg_detokenizer *detokenizer, int64_t id, const char **text, size_t *size);
/* What was held back, at the end: an unfinished character becomes U+FFFD. Then the detokenizer starts anew. */
PG_API pg_status pg_detokenizer_flush(pg_detokenizer *detokenizer, const char **text, size_t *size);

#ifdef __cplusplus
}
#endif

#endif /* PALIGEMMA_PALIGEMMA_H */
