// Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
//! Functions of paligemma.h.

use crate::handles::*;
use crate::pg_status;
use crate::structs::*;
use std::os::raw::{c_char, c_void};

extern "C" {
    pub fn pg_adapter_close(adapter: *mut *mut pg_adapter);
    pub fn pg_adapter_find_base(
        adapter: *const c_char,
        text: *mut c_char,
        capacity: usize,
        needed: *mut usize,
    ) -> pg_status;
    pub fn pg_adapter_get_info(adapter: *const pg_adapter, info: *mut pg_adapter_info) -> pg_status;
    pub fn pg_adapter_open(
        model: *const pg_model,
        adapter: *const c_char,
        options: *const pg_adapter_options,
        out: *mut *mut pg_adapter,
    ) -> pg_status;
    pub fn pg_adapter_options_init(options: *mut pg_adapter_options, struct_size: usize) -> pg_status;
    pub fn pg_answer_close(answer: *mut *mut pg_answer);
    pub fn pg_answer_create(
        processor: *const pg_processor,
        result: *const pg_result,
        row: i64,
        options: *const pg_answer_options,
        out: *mut *mut pg_answer,
    ) -> pg_status;
    pub fn pg_answer_create_from_ids(
        processor: *const pg_processor,
        ids: *const i64,
        log_probs: *const f32,
        n_ids: usize,
        options: *const pg_answer_options,
        out: *mut *mut pg_answer,
    ) -> pg_status;
    pub fn pg_answer_create_from_text(
        text: *const c_char,
        size: usize,
        options: *const pg_answer_options,
        out: *mut *mut pg_answer,
    ) -> pg_status;
    pub fn pg_answer_get_mask(
        answer: *const pg_answer,
        index: i64,
        decoder: *const pg_mask_decoder,
        mask: *mut u8,
        size: usize,
    ) -> pg_status;
    pub fn pg_answer_get_n_objects(answer: *const pg_answer) -> i64;
    pub fn pg_answer_get_object(answer: *const pg_answer, index: i64, object: *mut pg_object) -> pg_status;
    pub fn pg_answer_get_text(answer: *const pg_answer) -> *const c_char;
    pub fn pg_answer_options_init(options: *mut pg_answer_options, struct_size: usize) -> pg_status;
    pub fn pg_batch_init(batch: *mut pg_batch, struct_size: usize) -> pg_status;
    pub fn pg_beam_options_init(options: *mut pg_beam_options, struct_size: usize) -> pg_status;
    pub fn pg_calibration_add(
        calibration: *mut pg_calibration,
        inputs: *const pg_inputs,
        options: *const pg_run_options,
    ) -> pg_status;
    pub fn pg_calibration_close(calibration: *mut *mut pg_calibration);
    pub fn pg_calibration_create(model: *const pg_model, out: *mut *mut pg_calibration) -> pg_status;
    pub fn pg_calibration_get_rows(calibration: *const pg_calibration, n_rows: *mut i64) -> pg_status;
    pub fn pg_calibration_load(
        model: *const pg_model,
        path: *const c_char,
        tag: u64,
        out: *mut *mut pg_calibration,
    ) -> pg_status;
    pub fn pg_calibration_save(calibration: *const pg_calibration, path: *const c_char, tag: u64) -> pg_status;
    pub fn pg_cancel_clear(cancel: *mut pg_cancel);
    pub fn pg_cancel_close(cancel: *mut *mut pg_cancel);
    pub fn pg_cancel_create(out: *mut *mut pg_cancel) -> pg_status;
    pub fn pg_cancel_request(cancel: *mut pg_cancel);
    pub fn pg_checkpoint_find(
        model: *const c_char,
        cache: *const c_char,
        path: *mut c_char,
        capacity: usize,
        needed: *mut usize,
    ) -> pg_status;
    pub fn pg_checkpoint_get_config(
        model: *const c_char,
        text: *mut c_char,
        capacity: usize,
        needed: *mut usize,
    ) -> pg_status;
    pub fn pg_convert_options_init(options: *mut pg_convert_options, struct_size: usize) -> pg_status;
    pub fn pg_detokenizer_close(detokenizer: *mut *mut pg_detokenizer);
    pub fn pg_detokenizer_create(
        processor: *const pg_processor,
        flags: u32,
        out: *mut *mut pg_detokenizer,
    ) -> pg_status;
    pub fn pg_detokenizer_flush(
        detokenizer: *mut pg_detokenizer,
        text: *mut *const c_char,
        size: *mut usize,
    ) -> pg_status;
    pub fn pg_detokenizer_push(
        detokenizer: *mut pg_detokenizer,
        id: i64,
        text: *mut *const c_char,
        size: *mut usize,
    ) -> pg_status;
    pub fn pg_encode_options_init(options: *mut pg_encode_options, struct_size: usize) -> pg_status;
    pub fn pg_features_close(features: *mut *mut pg_features);
    pub fn pg_features_create(
        model: *const pg_model,
        inputs: *const pg_inputs,
        options: *const pg_run_options,
        out: *mut *mut pg_features,
    ) -> pg_status;
    pub fn pg_features_from_bytes(
        model: *const pg_model,
        bytes: *const c_void,
        n_bytes: usize,
        out: *mut *mut pg_features,
    ) -> pg_status;
    pub fn pg_features_from_tensor(
        model: *const pg_model,
        values: *const pg_tensor,
        out: *mut *mut pg_features,
    ) -> pg_status;
    pub fn pg_features_get_tensor(features: *const pg_features, out: *mut pg_tensor) -> pg_status;
    pub fn pg_features_load(model: *const pg_model, path: *const c_char, out: *mut *mut pg_features) -> pg_status;
    pub fn pg_features_save(features: *const pg_features, path: *const c_char) -> pg_status;
    pub fn pg_features_to_bytes(
        features: *const pg_features,
        bytes: *mut c_void,
        capacity: usize,
        needed: *mut usize,
    ) -> pg_status;
    pub fn pg_forward(
        model: *const pg_model,
        inputs: *const pg_inputs,
        options: *const pg_forward_options,
        out: *mut *mut pg_outputs,
    ) -> pg_status;
    pub fn pg_forward_options_init(options: *mut pg_forward_options, struct_size: usize) -> pg_status;
    pub fn pg_generate(
        model: *const pg_model,
        processor: *const pg_processor,
        inputs: *const pg_inputs,
        options: *const pg_generate_options,
        out: *mut *mut pg_result,
    ) -> pg_status;
    pub fn pg_generate_options_init(options: *mut pg_generate_options, struct_size: usize) -> pg_status;
    pub fn pg_image_from_bytes(
        image: *mut pg_image,
        struct_size: usize,
        bytes: *const c_void,
        n_bytes: usize,
    ) -> pg_status;
    pub fn pg_image_from_path(image: *mut pg_image, struct_size: usize, path: *const c_char) -> pg_status;
    pub fn pg_image_from_pixels(
        image: *mut pg_image,
        struct_size: usize,
        format: i32,
        width: i32,
        height: i32,
        pixels: *const c_void,
        stride: i64,
    ) -> pg_status;
    pub fn pg_image_from_planes(
        image: *mut pg_image,
        struct_size: usize,
        format: i32,
        width: i32,
        height: i32,
        planes: *const *const c_void,
        strides: *const i64,
    ) -> pg_status;
    pub fn pg_image_get_window(
        image: *const pg_image,
        image_width: i32,
        image_height: i32,
        width: i32,
        height: i32,
        out: *mut pg_window,
    ) -> pg_status;
    pub fn pg_input_arrays_init(arrays: *mut pg_input_arrays, struct_size: usize) -> pg_status;
    pub fn pg_inputs_close(inputs: *mut *mut pg_inputs);
    pub fn pg_inputs_create(arrays: *const pg_input_arrays, out: *mut *mut pg_inputs) -> pg_status;
    pub fn pg_inputs_get_row_info(inputs: *const pg_inputs, row: i64, info: *mut pg_row_info) -> pg_status;
    pub fn pg_inputs_get_tensor(inputs: *const pg_inputs, name: *const c_char, out: *mut pg_tensor) -> pg_status;
    pub fn pg_last_error() -> *const c_char;
    pub fn pg_last_error_row() -> i64;
    pub fn pg_mask_decoder_close(decoder: *mut *mut pg_mask_decoder);
    pub fn pg_mask_decoder_decode(decoder: *const pg_mask_decoder, codes: *const i32, mask: *mut f32) -> pg_status;
    pub fn pg_mask_decoder_open(
        path: *const c_char,
        options: *const pg_mask_decoder_options,
        out: *mut *mut pg_mask_decoder,
    ) -> pg_status;
    pub fn pg_mask_decoder_options_init(options: *mut pg_mask_decoder_options, struct_size: usize) -> pg_status;
    pub fn pg_mask_get_counts(
        mask: *const u8,
        width: i32,
        height: i32,
        counts: *mut u32,
        capacity: usize,
        needed: *mut usize,
    ) -> pg_status;
    pub fn pg_mask_get_rle(
        mask: *const u8,
        width: i32,
        height: i32,
        text: *mut c_char,
        capacity: usize,
        needed: *mut usize,
    ) -> pg_status;
    pub fn pg_model_adapt(
        model: *const pg_model,
        adapters: *const *const pg_adapter,
        weights: *const f32,
        n_adapters: usize,
        out: *mut *mut pg_model,
    ) -> pg_status;
    pub fn pg_model_close(model: *mut *mut pg_model);
    pub fn pg_model_convert(model: *const c_char, out: *const c_char, options: *const pg_convert_options) -> pg_status;
    pub fn pg_model_embed(model: *const pg_model, ids: *const i64, n_ids: usize, out: *mut f32) -> pg_status;
    pub fn pg_model_get_config(
        model: *const pg_model,
        key: *const c_char,
        text: *mut c_char,
        capacity: usize,
        needed: *mut usize,
    ) -> pg_status;
    pub fn pg_model_get_config_float(model: *const pg_model, key: *const c_char, out: *mut f64) -> pg_status;
    pub fn pg_model_get_config_int(model: *const pg_model, key: *const c_char, out: *mut i64) -> pg_status;
    pub fn pg_model_get_info(model: *const pg_model, info: *mut pg_model_info) -> pg_status;
    pub fn pg_model_get_memory(model: *const pg_model, memory: *mut pg_memory) -> pg_status;
    pub fn pg_model_get_sampling(model: *const pg_model, out: *mut pg_sampling_options) -> pg_status;
    pub fn pg_model_open(model: *const c_char, options: *const pg_model_options, out: *mut *mut pg_model) -> pg_status;
    pub fn pg_model_options_init(options: *mut pg_model_options, struct_size: usize) -> pg_status;
    pub fn pg_outputs_close(outputs: *mut *mut pg_outputs);
    pub fn pg_outputs_get_tensor(outputs: *const pg_outputs, name: *const c_char, out: *mut pg_tensor) -> pg_status;
    pub fn pg_processor_close(processor: *mut *mut pg_processor);
    pub fn pg_processor_decode(
        processor: *const pg_processor,
        ids: *const i64,
        n_ids: usize,
        flags: u32,
        text: *mut c_char,
        capacity: usize,
        needed: *mut usize,
    ) -> pg_status;
    pub fn pg_processor_encode(
        processor: *const pg_processor,
        image: *const pg_image,
        prompt: *const c_char,
        options: *const pg_encode_options,
        out: *mut *mut pg_inputs,
    ) -> pg_status;
    pub fn pg_processor_encode_batch(
        processor: *const pg_processor,
        batch: *const pg_batch,
        options: *const pg_encode_options,
        out: *mut *mut pg_inputs,
    ) -> pg_status;
    pub fn pg_processor_get_image_settings(
        processor: *const pg_processor,
        settings: *mut pg_image_settings,
    ) -> pg_status;
    pub fn pg_processor_get_info(processor: *const pg_processor, info: *mut pg_processor_info) -> pg_status;
    pub fn pg_processor_get_piece(processor: *const pg_processor, id: i64, piece: *mut *const c_char) -> pg_status;
    pub fn pg_processor_get_token_flags(processor: *const pg_processor, id: i64, flags: *mut u32) -> pg_status;
    pub fn pg_processor_get_token_id(processor: *const pg_processor, piece: *const c_char, id: *mut i64) -> pg_status;
    pub fn pg_processor_open(
        model: *const c_char,
        options: *const pg_processor_options,
        out: *mut *mut pg_processor,
    ) -> pg_status;
    pub fn pg_processor_options_init(options: *mut pg_processor_options, struct_size: usize) -> pg_status;
    pub fn pg_processor_tokenize(
        processor: *const pg_processor,
        text: *const c_char,
        flags: u32,
        ids: *mut i64,
        capacity: usize,
        n_ids: *mut usize,
    ) -> pg_status;
    pub fn pg_request_options_init(options: *mut pg_request_options, struct_size: usize) -> pg_status;
    pub fn pg_result_close(result: *mut *mut pg_result);
    pub fn pg_result_get_ids(result: *const pg_result, row: i64, out: *mut pg_tensor) -> pg_status;
    pub fn pg_result_get_info(result: *const pg_result, row: i64, info: *mut pg_result_info) -> pg_status;
    pub fn pg_result_get_n_rows(result: *const pg_result) -> i64;
    pub fn pg_result_get_tensor(
        result: *const pg_result,
        row: i64,
        name: *const c_char,
        out: *mut pg_tensor,
    ) -> pg_status;
    pub fn pg_result_get_text(result: *const pg_result, row: i64) -> *const c_char;
    pub fn pg_run_options_init(options: *mut pg_run_options, struct_size: usize) -> pg_status;
    pub fn pg_sampling_options_init(options: *mut pg_sampling_options, struct_size: usize) -> pg_status;
    pub fn pg_score(
        model: *const pg_model,
        processor: *const pg_processor,
        inputs: *const pg_inputs,
        answers: *const *const c_char,
        n_answers: i64,
        options: *const pg_score_options,
        out: *mut *mut pg_scores,
    ) -> pg_status;
    pub fn pg_score_ids(
        model: *const pg_model,
        inputs: *const pg_inputs,
        ids: *const i64,
        sizes: *const i64,
        n_answers: i64,
        options: *const pg_score_options,
        out: *mut *mut pg_scores,
    ) -> pg_status;
    pub fn pg_score_options_init(options: *mut pg_score_options, struct_size: usize) -> pg_status;
    pub fn pg_scores_close(scores: *mut *mut pg_scores);
    pub fn pg_scores_get_info(scores: *const pg_scores, index: i64, info: *mut pg_score_info) -> pg_status;
    pub fn pg_scores_get_n_answers(scores: *const pg_scores) -> i64;
    pub fn pg_scores_get_tensor(
        scores: *const pg_scores,
        index: i64,
        name: *const c_char,
        out: *mut pg_tensor,
    ) -> pg_status;
    pub fn pg_session_close(session: *mut *mut pg_session);
    pub fn pg_session_create(
        model: *const pg_model,
        options: *const pg_session_options,
        out: *mut *mut pg_session,
    ) -> pg_status;
    pub fn pg_session_feed(session: *mut pg_session, ids: *const i64, n_ids: usize) -> pg_status;
    pub fn pg_session_get_logits(session: *const pg_session, out: *mut pg_tensor) -> pg_status;
    pub fn pg_session_options_init(options: *mut pg_session_options, struct_size: usize) -> pg_status;
    pub fn pg_session_prefill(
        session: *mut pg_session,
        inputs: *const pg_inputs,
        features: *const pg_features,
    ) -> pg_status;
    pub fn pg_session_sample(
        session: *mut pg_session,
        options: *const pg_sampling_options,
        token: *mut i64,
    ) -> pg_status;
    pub fn pg_session_step(session: *mut pg_session, token: *mut i64) -> pg_status;
    pub fn pg_session_step_together(
        sessions: *const *mut pg_session,
        n: i64,
        tokens: *mut i64,
        statuses: *mut pg_status,
    ) -> pg_status;
    pub fn pg_status_name(status: pg_status) -> *const c_char;
    pub fn pg_tensor_init(tensor: *mut pg_tensor, struct_size: usize) -> pg_status;
    pub fn pg_trainer_close(trainer: *mut *mut pg_trainer);
    pub fn pg_trainer_count_parameters(trainer: *const pg_trainer, n: *mut usize) -> pg_status;
    pub fn pg_trainer_create(
        model: *const pg_model,
        options: *const pg_trainer_options,
        out: *mut *mut pg_trainer,
    ) -> pg_status;
    pub fn pg_trainer_evaluate(
        trainer: *mut pg_trainer,
        inputs: *const pg_inputs,
        result: *mut pg_train_result,
    ) -> pg_status;
    pub fn pg_trainer_get_parameter(trainer: *const pg_trainer, index: usize, out: *mut pg_parameter) -> pg_status;
    pub fn pg_trainer_get_step(trainer: *const pg_trainer, step: *mut i64) -> pg_status;
    pub fn pg_trainer_options_init(options: *mut pg_trainer_options, struct_size: usize) -> pg_status;
    pub fn pg_trainer_resume(
        model: *const pg_model,
        folder: *const c_char,
        options: *const pg_trainer_options,
        out: *mut *mut pg_trainer,
    ) -> pg_status;
    pub fn pg_trainer_save(trainer: *mut pg_trainer, folder: *const c_char) -> pg_status;
    pub fn pg_trainer_step(
        trainer: *mut pg_trainer,
        inputs: *const pg_inputs,
        result: *mut pg_train_result,
    ) -> pg_status;
    pub fn pg_version_api() -> u32;
    pub fn pg_version_string() -> *const c_char;
    pub fn pg_worker_cancel(worker: *mut pg_worker, ticket: i64) -> pg_status;
    pub fn pg_worker_close(worker: *mut *mut pg_worker);
    pub fn pg_worker_create(
        model: *const pg_model,
        processor: *const pg_processor,
        options: *const pg_worker_options,
        out: *mut *mut pg_worker,
    ) -> pg_status;
    pub fn pg_worker_event_init(event: *mut pg_worker_event, struct_size: usize) -> pg_status;
    pub fn pg_worker_get_info(worker: *mut pg_worker, info: *mut pg_worker_info) -> pg_status;
    pub fn pg_worker_options_init(options: *mut pg_worker_options, struct_size: usize) -> pg_status;
    pub fn pg_worker_poll(worker: *mut pg_worker, event: *mut pg_worker_event) -> pg_status;
    pub fn pg_worker_submit(
        worker: *mut pg_worker,
        image: *const pg_image,
        prompt: *const c_char,
        options: *const pg_request_options,
        ticket: *mut i64,
    ) -> pg_status;
    pub fn pg_worker_wait(worker: *mut pg_worker, seconds: f64, event: *mut pg_worker_event) -> pg_status;
}
