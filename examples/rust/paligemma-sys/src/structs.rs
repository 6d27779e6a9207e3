// Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
//! Structs of paligemma.h, field by field. tests/languages holds names and offsets against the header's.

use crate::callbacks::*;
use crate::handles::*;
use crate::pg_status;
use std::os::raw::{c_char, c_void};

#[repr(C)]
#[derive(Clone, Copy)]
pub struct pg_adapter_info {
    pub struct_size: u32,
    pub rank: i32,
    pub n_parameters: u64,
    pub n_bytes: u64,
    pub n_modules: i32,
    pub adapts_images: i32,
    pub base: *const c_char,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct pg_adapter_options {
    pub struct_size: u32,
    pub n_threads: i32,
    pub progress: pg_progress_fn,
    pub progress_user: *mut c_void,
    pub cancel: *mut pg_cancel,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct pg_allocator {
    pub struct_size: u32,
    pub reserved: u32,
    pub user: *mut c_void,
    pub alloc: Option<unsafe extern "C" fn(user: *mut c_void, size: usize, alignment: usize) -> *mut c_void>,
    pub free: Option<unsafe extern "C" fn(user: *mut c_void, memory: *mut c_void)>,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct pg_answer_options {
    pub struct_size: u32,
    pub flags: u32,
    pub width: i32,
    pub height: i32,
    pub convention: i32,
    pub max_iou: f32,
    pub allocator: *const pg_allocator,
    pub window: *const pg_window,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct pg_batch {
    pub struct_size: u32,
    pub n_prompts: i32,
    pub n_suffixes: i32,
    pub n_images: i32,
    pub n_image_counts: i32,
    pub reserved: u32,
    pub prompts: *const *const c_char,
    pub suffixes: *const *const c_char,
    pub prompt_sizes: *const u64,
    pub suffix_sizes: *const u64,
    pub images: *const pg_image,
    pub image_counts: *const i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct pg_beam_options {
    pub struct_size: u32,
    pub n_beams: i32,
    pub early_stopping: i32,
    pub reserved: u32,
    pub length_penalty: f64,
    pub on_texts: pg_texts_fn,
    pub on_texts_user: *mut c_void,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct pg_convert_options {
    pub struct_size: u32,
    pub weights: i32,
    pub n_threads: i32,
    pub reserved: u32,
    pub max_file_bytes: u64,
    pub allocator: *const pg_allocator,
    pub log: pg_log_fn,
    pub log_user: *mut c_void,
    pub progress: pg_progress_fn,
    pub progress_user: *mut c_void,
    pub cancel: *mut pg_cancel,
    pub int8_layers: *const c_char,
    pub calibration: *const pg_calibration,
    pub adapters: *const *const c_char,
    pub adapter_weights: *const f32,
    pub n_adapters: i32,
    pub reserved_end: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct pg_encode_options {
    pub struct_size: u32,
    pub flags: u32,
    pub max_image_pixels: i64,
    pub mode: i32,
    pub padding: i32,
    pub padding_side: i32,
    pub pad_to_multiple_of: i32,
    pub max_length: i64,
    pub truncation: i32,
    pub truncation_side: i32,
    pub cancel: *mut pg_cancel,
    pub image_settings: *const pg_image_settings,
    pub max_tokens: i64,
    pub max_text_bytes: i64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct pg_forward_options {
    pub struct_size: u32,
    pub flags: u32,
    pub n_threads: i32,
    pub reserved: u32,
    pub logits_to_keep: i64,
    pub features: *const pg_features,
    pub progress: pg_progress_fn,
    pub progress_user: *mut c_void,
    pub cancel: *mut pg_cancel,
    pub attention_queries: i64,
    pub attention_layer: i32,
    pub reserved_end: u32,
    pub row_models: *const *const pg_model,
    pub n_row_models: i64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct pg_generate_options {
    pub struct_size: u32,
    pub flags: u32,
    pub max_new_tokens: i32,
    pub n_threads: i32,
    pub features: *const pg_features,
    pub on_text: pg_text_fn,
    pub on_text_user: *mut c_void,
    pub progress: pg_progress_fn,
    pub progress_user: *mut c_void,
    pub cancel: *mut pg_cancel,
    pub sampling: *const pg_sampling_options,
    pub stop_strings: *const *const c_char,
    pub n_stop_strings: i32,
    pub n_alternatives: i32,
    pub max_seconds: f64,
    pub max_context: i64,
    pub beams: *const pg_beam_options,
    pub n_return: i32,
    pub max_running: i32,
    pub row_models: *const *const pg_model,
    pub n_row_models: i64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct pg_image {
    pub struct_size: u32,
    pub format: i32,
    pub width: i32,
    pub height: i32,
    pub planes: [*const u8; 4],
    pub strides: [i64; 4],
    pub path: *const c_char,
    pub n_bytes: u64,
    pub yuv_matrix: i32,
    pub yuv_range: i32,
    pub fit: i32,
    pub flags: u32,
    pub background: [u8; 4],
    pub roi: [i32; 4],
    pub gray_min: i32,
    pub gray_max: i32,
    pub reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct pg_image_settings {
    pub struct_size: u32,
    pub height: i32,
    pub width: i32,
    pub resample: i32,
    pub do_resize: u32,
    pub do_rescale: u32,
    pub do_normalize: u32,
    pub do_convert_rgb: u32,
    pub n_image_tokens: i32,
    pub reserved: u32,
    pub image_mean: [f32; 3],
    pub image_std: [f32; 3],
    pub rescale_factor: f64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct pg_input_arrays {
    pub struct_size: u32,
    pub reserved: u32,
    pub input_ids: *const pg_tensor,
    pub inputs_embeds: *const pg_tensor,
    pub attention_mask: *const pg_tensor,
    pub token_type_ids: *const pg_tensor,
    pub labels: *const pg_tensor,
    pub position_ids: *const pg_tensor,
    pub pixel_values: *const pg_tensor,
    pub allocator: *const pg_allocator,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct pg_mask_decoder_options {
    pub struct_size: u32,
    pub reserved: u32,
    pub cpu_mask: u64,
    pub allocator: *const pg_allocator,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct pg_memory {
    pub struct_size: u32,
    pub n_threads: i32,
    pub n_tokens: i64,
    pub n_images: i64,
    pub weights: u64,
    pub weights_copied: u64,
    pub activations: u64,
    pub kv_cache: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct pg_model_info {
    pub struct_size: u32,
    pub gemma_version: i32,
    pub n_parameters: u64,
    pub n_bytes_mapped: u64,
    pub cpu_used: u64,
    pub n_files: u32,
    pub n_tensors: u32,
    pub dtypes: u32,
    pub image_size: i32,
    pub n_image_tokens: i32,
    pub vocab_size: i32,
    pub weights: i32,
    pub arithmetic: i32,
    pub embedding_dim: i32,
    pub n_int8_matrices: u32,
    pub kv: i32,
    pub reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct pg_model_options {
    pub struct_size: u32,
    pub flags: u32,
    pub cpu_mask: u64,
    pub allocator: *const pg_allocator,
    pub log: pg_log_fn,
    pub log_user: *mut c_void,
    pub progress: pg_progress_fn,
    pub progress_user: *mut c_void,
    pub cancel: *mut pg_cancel,
    pub int8_layers: *const c_char,
    pub weights: i32,
    pub arithmetic: i32,
    pub n_threads: i32,
    pub kv: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct pg_object {
    pub struct_size: u32,
    pub flags: u32,
    pub label: *const c_char,
    pub label_size: u64,
    pub r#box: [f32; 4],
    pub point: [f32; 2],
    pub score: f32,
    pub loc_score: f32,
    pub label_score: f32,
    pub n_locs: i32,
    pub locs: [i32; 4],
    pub n_segs: i32,
    pub segs: [i32; 16],
    pub duplicate_of: i32,
    pub text_begin: i64,
    pub text_size: i64,
    pub first_token: i64,
    pub n_tokens: i64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct pg_parameter {
    pub struct_size: u32,
    pub decays: i32,
    pub n_dims: i32,
    pub reserved: u32,
    pub shape: [i64; 4],
    pub name: *const c_char,
    pub value: *const f32,
    pub gradient: *const f32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct pg_processor_info {
    pub struct_size: u32,
    pub image_size: i32,
    pub n_image_tokens: i32,
    pub resample: i32,
    pub vocab_size: i32,
    pub n_model_ids: i32,
    pub flags: u32,
    pub do_resize: u32,
    pub do_rescale: u32,
    pub do_normalize: u32,
    pub padding_side: i32,
    pub truncation_side: i32,
    pub max_length: i64,
    pub model_max_length: i64,
    pub pad_to_multiple_of: i64,
    pub pad_id: i64,
    pub eos_id: i64,
    pub bos_id: i64,
    pub unk_id: i64,
    pub image_id: i64,
    pub image_mean: [f32; 3],
    pub image_std: [f32; 3],
    pub rescale_factor: f64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct pg_processor_options {
    pub struct_size: u32,
    pub flags: u32,
    pub cpu_mask: u64,
    pub allocator: *const pg_allocator,
    pub log: pg_log_fn,
    pub log_user: *mut c_void,
    pub cancel: *mut pg_cancel,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct pg_request_options {
    pub struct_size: u32,
    pub flags: u32,
    pub priority: i32,
    pub max_new_tokens: i32,
    pub stream: i64,
    pub deadline: f64,
    pub sampling: *const pg_sampling_options,
    pub encode: *const pg_encode_options,
    pub on_event: pg_worker_fn,
    pub on_event_user: *mut c_void,
    pub user: u64,
    pub convention: i32,
    pub reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct pg_result_info {
    pub struct_size: u32,
    pub stop: i32,
    pub n_prompt_tokens: i64,
    pub n_new_tokens: i64,
    pub vision_seconds: f64,
    pub prefill_seconds: f64,
    pub decode_seconds: f64,
    pub score: f64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct pg_row_info {
    pub struct_size: u32,
    pub events: u32,
    pub first_token: i64,
    pub n_tokens: i64,
    pub n_suffix: i64,
    pub n_truncated: i64,
    pub first_image: i64,
    pub n_images: i64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct pg_run_options {
    pub struct_size: u32,
    pub n_threads: i32,
    pub progress: pg_progress_fn,
    pub progress_user: *mut c_void,
    pub cancel: *mut pg_cancel,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct pg_sampling_options {
    pub struct_size: u32,
    pub flags: u32,
    pub seed: u64,
    pub stream: u64,
    pub temperature: f64,
    pub top_h: f64,
    pub top_p: f64,
    pub min_p: f64,
    pub typical_p: f64,
    pub epsilon_cutoff: f64,
    pub eta_cutoff: f64,
    pub repetition_penalty: f64,
    pub decay_factor: f64,
    pub decay_start: i32,
    pub top_k: i32,
    pub no_repeat_ngram_size: i32,
    pub min_new_tokens: i32,
    pub min_length: i32,
    pub reserved: u32,
    pub forced_bos_id: i64,
    pub eos_ids: *const i64,
    pub n_eos_ids: i64,
    pub forced_eos_ids: *const i64,
    pub n_forced_eos_ids: i64,
    pub suppressed_ids: *const i64,
    pub n_suppressed_ids: i64,
    pub begin_suppressed_ids: *const i64,
    pub n_begin_suppressed_ids: i64,
    pub bad_word_ids: *const i64,
    pub bad_word_sizes: *const i64,
    pub n_bad_words: i64,
    pub bias_ids: *const i64,
    pub bias_sizes: *const i64,
    pub biases: *const f64,
    pub n_biases: i64,
    pub token_mask: *const u32,
    pub on_mask: pg_mask_fn,
    pub on_mask_user: *mut c_void,
    pub on_logits: pg_logits_fn,
    pub on_logits_user: *mut c_void,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct pg_score_info {
    pub struct_size: u32,
    pub reserved: u32,
    pub n_tokens: i64,
    pub log_prob: f64,
    pub mean_log_prob: f64,
    pub probability: f64,
    pub mean_probability: f64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct pg_score_options {
    pub struct_size: u32,
    pub flags: u32,
    pub n_threads: i32,
    pub reserved: u32,
    pub features: *const pg_features,
    pub max_context: i64,
    pub progress: pg_progress_fn,
    pub progress_user: *mut c_void,
    pub cancel: *mut pg_cancel,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct pg_session_options {
    pub struct_size: u32,
    pub n_threads: i32,
    pub max_new_tokens: i32,
    pub max_prompt_tokens: i32,
    pub progress: pg_progress_fn,
    pub progress_user: *mut c_void,
    pub cancel: *mut pg_cancel,
    pub max_context: i64,
    pub threads_of: *mut pg_session,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct pg_tensor {
    pub struct_size: u32,
    pub dtype: i32,
    pub n_dims: i32,
    pub reserved: u32,
    pub shape: [i64; 4],
    pub data: *const c_void,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct pg_train_result {
    pub struct_size: u32,
    pub updated: i32,
    pub loss: f64,
    pub gradient_norm: f64,
    pub learning_rate: f64,
    pub step: i64,
    pub n_labels: i64,
    pub n_tokens: i64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct pg_trainer_options {
    pub struct_size: u32,
    pub flags: u32,
    pub rank: i32,
    pub schedule: i32,
    pub alpha: f64,
    pub dropout: f64,
    pub target_modules: *const c_char,
    pub modules_to_save: *const c_char,
    pub learning_rate: f64,
    pub weight_decay: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
    pub max_gradient_norm: f64,
    pub warmup_steps: i64,
    pub total_steps: i64,
    pub accumulation: i64,
    pub seed: u64,
    pub base: *const c_char,
    pub n_threads: i32,
    pub reserved: u32,
    pub progress: pg_progress_fn,
    pub progress_user: *mut c_void,
    pub cancel: *mut pg_cancel,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct pg_window {
    pub struct_size: u32,
    pub reserved: u32,
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct pg_worker_event {
    pub struct_size: u32,
    pub kind: i32,
    pub ticket: i64,
    pub user: u64,
    pub status: pg_status,
    pub stop: i32,
    pub text: *const c_char,
    pub size: u64,
    pub object: *const pg_object,
    pub n_new_tokens: i64,
    pub wait_seconds: f64,
    pub run_seconds: f64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct pg_worker_info {
    pub struct_size: u32,
    pub n_waiting: i32,
    pub n_running: i32,
    pub n_not_polled: i32,
    pub n_accepted: i64,
    pub n_done: i64,
    pub n_cancelled: i64,
    pub n_replaced: i64,
    pub n_late: i64,
    pub n_failed: i64,
    pub n_busy: i64,
    pub n_steps: i64,
    pub n_step_rows: i64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct pg_worker_options {
    pub struct_size: u32,
    pub flags: u32,
    pub n_threads: i32,
    pub n_workers: i32,
    pub max_waiting: i32,
    pub max_running: i32,
    pub max_new_tokens: i32,
    pub nice: i32,
    pub cpus: *const i32,
    pub n_cpus: i64,
}
