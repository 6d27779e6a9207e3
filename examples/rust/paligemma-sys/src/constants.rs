// Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
//! Values of paligemma.h, with their names. The header says what each means.

pub const PG_ANSWER_POINTS: u32 = 1;

pub const PG_ARITHMETIC_DEFAULT: i32 = 0;
pub const PG_ARITHMETIC_F32: i32 = 1;
pub const PG_ARITHMETIC_BF16: i32 = 2;

pub const PG_BOX_1024: i32 = 0;
pub const PG_BOX_1023: i32 = 1;

pub const PG_CPU_BASELINE: u64 = 1 << 0;
pub const PG_CPU_AVX2: u64 = 1 << 1;
pub const PG_CPU_AVX512: u64 = 1 << 2;
pub const PG_CPU_AVX_VNNI: u64 = 1 << 3;
pub const PG_CPU_AVX512_VNNI: u64 = 1 << 4;
pub const PG_CPU_AVX512_BF16: u64 = 1 << 5;
pub const PG_CPU_AMX_INT8: u64 = 1 << 6;
pub const PG_CPU_AMX_BF16: u64 = 1 << 7;
pub const PG_CPU_NEON: u64 = 1 << 16;
pub const PG_CPU_NEON_DOTPROD: u64 = 1 << 17;
pub const PG_CPU_NEON_I8MM: u64 = 1 << 18;
pub const PG_CPU_NEON_BF16: u64 = 1 << 19;

pub const PG_DECODE_SKIP_SPECIAL: u32 = 1;

pub const PG_DTYPE_F32: i32 = 1;
pub const PG_DTYPE_BF16: i32 = 2;
pub const PG_DTYPE_F16: i32 = 3;
pub const PG_DTYPE_I64: i32 = 4;

pub const PG_EARLY_STOPPING_OFF: i32 = 0;
pub const PG_EARLY_STOPPING_ON: i32 = 1;
pub const PG_EARLY_STOPPING_NEVER: i32 = 2;

pub const PG_ENCODE_LITERAL: u32 = 1;
pub const PG_ENCODE_EXIF: u32 = 2;
pub const PG_ENCODE_TRUNCATE: u32 = 4;
pub const PG_ENCODE_KEEP_ENDS: u32 = 8;
pub const PG_ENCODE_OPEN_SUFFIX: u32 = 16;
pub const PG_ENCODE_OVER_WHITE: u32 = 32;

pub const PG_ERROR_BUSY: i32 = -61;
pub const PG_ERROR_DEADLINE: i32 = -71;
pub const PG_ERROR_INTERNAL: i32 = -90;
pub const PG_ERROR_REPLACED: i32 = -72;
pub const PG_ERROR_STATE: i32 = -80;
pub const PG_ERROR_CANCELLED: i32 = -70;
pub const PG_ERROR_LIMIT: i32 = -60;
pub const PG_ERROR_UNSUPPORTED: i32 = -50;
pub const PG_ERROR_FORMAT: i32 = -40;
pub const PG_ERROR_NOT_FOUND: i32 = -31;
pub const PG_ERROR_IO: i32 = -30;
pub const PG_ERROR_MEMORY: i32 = -20;
pub const PG_ERROR_ARGUMENT: i32 = -10;

pub const PG_EVENT_EOS: i32 = 1;
pub const PG_EVENT_LENGTH: i32 = 2;
pub const PG_EVENT_CONTEXT: i32 = 3;
pub const PG_EVENT_NONE: i32 = 5;
pub const PG_EVENT_STOP: i32 = 4;

pub const PG_FIT_STRETCH: i32 = 0;
pub const PG_FIT_LETTERBOX: i32 = 1;
pub const PG_FIT_PAD_TOP_LEFT: i32 = 2;

pub const PG_FORWARD_NO_LOGITS: u32 = 1;
pub const PG_FORWARD_HIDDEN_STATES: u32 = 2;
pub const PG_FORWARD_LAST_HIDDEN: u32 = 4;
pub const PG_FORWARD_LOSS_PER_ROW: u32 = 8;
pub const PG_FORWARD_SKIP_PADDING: u32 = 16;
pub const PG_FORWARD_NO_LOSS: u32 = 32;
pub const PG_FORWARD_EMBEDDINGS: u32 = 53;
pub const PG_FORWARD_RETRIEVAL: u32 = 64;
pub const PG_FORWARD_ATTENTIONS: u32 = 128;
pub const PG_FORWARD_ATTENTION_HEAD_MEAN: u32 = 256;
pub const PG_FORWARD_ATTENTION_LAYER_MEAN: u32 = 512;
pub const PG_FORWARD_ATTENTION_TO_IMAGE: u32 = 1024;

pub const PG_GENERATE_LOG_PROBS: u32 = 1;
pub const PG_GENERATE_LOGITS: u32 = 2;
pub const PG_GENERATE_SCORES: u32 = 4;
pub const PG_GENERATE_IGNORE_CONFIG: u32 = 8;
pub const PG_GENERATE_DETECT: u32 = 16;
pub const PG_GENERATE_SEGMENT: u32 = 32;

pub const PG_IMAGE_RGB8: i32 = 1;
pub const PG_IMAGE_BGR8: i32 = 2;
pub const PG_IMAGE_RGBA8: i32 = 3;
pub const PG_IMAGE_BGRA8: i32 = 4;
pub const PG_IMAGE_GRAY8: i32 = 5;
pub const PG_IMAGE_RGB565: i32 = 6;
pub const PG_IMAGE_GRAY16: i32 = 7;
pub const PG_IMAGE_NV12: i32 = 8;
pub const PG_IMAGE_NV21: i32 = 9;
pub const PG_IMAGE_I420: i32 = 10;
pub const PG_IMAGE_YUYV: i32 = 11;
pub const PG_IMAGE_UYVY: i32 = 12;
pub const PG_IMAGE_PATH: i32 = 100;
pub const PG_IMAGE_BYTES: i32 = 101;

pub const PG_IMAGE_OVER_BACKGROUND: u32 = 1;

pub const PG_KV_DEFAULT: i32 = 0;
pub const PG_KV_F32: i32 = 1;
pub const PG_KV_BF16: i32 = 2;

pub const PG_LOG_ERROR: i32 = 1;
pub const PG_LOG_WARNING: i32 = 2;
pub const PG_LOG_INFO: i32 = 3;
pub const PG_LOG_DEBUG: i32 = 4;

pub const PG_MODE_HF: i32 = 0;
pub const PG_MODE_BIG_VISION: i32 = 1;

pub const PG_MODEL_VERIFY: u32 = 1;
pub const PG_MODEL_IN_MEMORY: u32 = 2;

pub const PG_OBJECT_PARTIAL: u32 = 1;
pub const PG_OBJECT_OUT_OF_RANGE: u32 = 2;
pub const PG_OBJECT_OUT_OF_ORDER: u32 = 4;
pub const PG_OBJECT_EMPTY: u32 = 8;
pub const PG_OBJECT_STRAY_SEG: u32 = 16;
pub const PG_OBJECT_BROKEN: u32 = 31;
pub const PG_OBJECT_NO_LABEL: u32 = 32;
pub const PG_OBJECT_LABEL_BEFORE: u32 = 64;
pub const PG_OBJECT_LABEL_SHARED: u32 = 128;
pub const PG_OBJECT_SEG_PARTIAL: u32 = 256;
pub const PG_OBJECT_SEG_MORE: u32 = 512;
pub const PG_OBJECT_UNFINISHED: u32 = 1024;
pub const PG_OBJECT_DUPLICATE: u32 = 2048;

pub const PG_OK: i32 = 0;

pub const PG_PADDING_LONGEST: i32 = 0;
pub const PG_PADDING_MAX_LENGTH: i32 = 1;
pub const PG_PADDING_NONE: i32 = 2;

pub const PG_PHASE_LOAD: i32 = 1;
pub const PG_PHASE_VISION: i32 = 2;
pub const PG_PHASE_PREFILL: i32 = 3;
pub const PG_PHASE_DECODE: i32 = 4;
pub const PG_PHASE_CONVERT: i32 = 5;
pub const PG_PHASE_VERIFY: i32 = 6;
pub const PG_PHASE_TRAIN: i32 = 7;

pub const PG_PROCESSOR_TEXT_ONLY: u32 = 1;
pub const PG_PROCESSOR_IMAGES_ONLY: u32 = 2;
pub const PG_PROCESSOR_SENTENCEPIECE: u32 = 4;

pub const PG_REQUEST_BORROW: i32 = 2;
pub const PG_REQUEST_CANCEL_RUNNING: i32 = 4;
pub const PG_REQUEST_OBJECTS: i32 = 1;
pub const PG_RESAMPLE_NEAREST: i32 = 0;
pub const PG_RESAMPLE_LANCZOS: i32 = 1;
pub const PG_RESAMPLE_BILINEAR: i32 = 2;
pub const PG_RESAMPLE_BICUBIC: i32 = 3;
pub const PG_RESAMPLE_BOX: i32 = 4;
pub const PG_RESAMPLE_HAMMING: i32 = 5;

pub const PG_ROW_TRUNCATED: u32 = 1;
pub const PG_ROW_TRUNCATED_EOS: u32 = 2;
pub const PG_ROW_TRUNCATED_NEWLINE: u32 = 4;
pub const PG_ROW_TRUNCATED_IMAGE: u32 = 8;
pub const PG_ROW_BOS_MISPLACED: u32 = 16;
pub const PG_ROW_NEWLINE_MERGED: u32 = 32;

pub const PG_SAMPLING_ADD_EOS: u32 = 1;
pub const PG_SAMPLING_IGNORE_EOS: u32 = 2;
pub const PG_SAMPLING_RANDOM: u32 = 4;
pub const PG_SAMPLING_ROW_STREAMS: u32 = 8;
pub const PG_SAMPLING_REMOVE_INVALID: u32 = 16;
pub const PG_SAMPLING_RENORMALIZE: u32 = 32;

pub const PG_SCHEDULE_CONSTANT: i32 = 0;
pub const PG_SCHEDULE_LINEAR: i32 = 1;
pub const PG_SCHEDULE_COSINE: i32 = 2;

pub const PG_SCORE_NO_EOS: u32 = 1;
pub const PG_SCORE_LITERAL: u32 = 2;

pub const PG_SIDE_DEFAULT: i32 = 0;
pub const PG_SIDE_LEFT: i32 = 1;
pub const PG_SIDE_RIGHT: i32 = 2;

pub const PG_STOP_EOS: i32 = 1;
pub const PG_STOP_LENGTH: i32 = 2;
pub const PG_STOP_CALLBACK: i32 = 3;
pub const PG_STOP_CONTEXT: i32 = 4;
pub const PG_STOP_STRING: i32 = 5;
pub const PG_STOP_TIME: i32 = 6;
pub const PG_STOP_LOGITS: i32 = 7;

pub const PG_TOKEN_ADDED: u32 = 1;
pub const PG_TOKEN_SPECIAL: u32 = 2;
pub const PG_TOKEN_NORMALIZED: u32 = 4;
pub const PG_TOKEN_SINGLE_WORD: u32 = 8;
pub const PG_TOKEN_LSTRIP: u32 = 16;
pub const PG_TOKEN_RSTRIP: u32 = 32;

pub const PG_TRAIN_RSLORA: u32 = 1;
pub const PG_TRAIN_CHECKPOINT: u32 = 2;

pub const PG_TRUNCATION_LONGEST: i32 = 0;
pub const PG_TRUNCATION_PROMPT: i32 = 1;
pub const PG_TRUNCATION_SUFFIX: i32 = 2;

pub const PG_WEIGHTS_STORED: i32 = 0;
pub const PG_WEIGHTS_INT8: i32 = 1;
pub const PG_WEIGHTS_INT4: i32 = 2;
pub const PG_WORKER_EVENT_DONE: i32 = 3;
pub const PG_WORKER_LEAVE_CPU_FREE: i32 = 1;
pub const PG_WORKER_EVENT_OBJECT: i32 = 2;
pub const PG_WORKER_EVENT_TEXT: i32 = 1;

pub const PG_YUV_BT601: i32 = 0;
pub const PG_YUV_BT709: i32 = 1;
pub const PG_YUV_VIDEO: i32 = 0;
pub const PG_YUV_FULL: i32 = 1;
