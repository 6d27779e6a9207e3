// Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
//! Callbacks of paligemma.h. None of them may unwind.

use crate::structs::pg_worker_event;
use std::os::raw::{c_char, c_void};

pub type pg_log_fn = Option<unsafe extern "C" fn(user: *mut c_void, level: i32, message: *const c_char)>;

pub type pg_logits_fn = Option<
    unsafe extern "C" fn(
        user: *mut c_void,
        row: i64,
        ids: *const i64,
        n_ids: i64,
        logits: *mut f32,
        vocab_size: i64,
    ) -> i32,
>;

pub type pg_mask_fn = Option<
    unsafe extern "C" fn(
        user: *mut c_void,
        row: i64,
        ids: *const i64,
        n_ids: i64,
        mask: *mut u32,
        vocab_size: i64,
    ) -> i32,
>;

pub type pg_progress_fn = Option<unsafe extern "C" fn(user: *mut c_void, phase: i32, done: i64, total: i64) -> i32>;

pub type pg_text_fn =
    Option<unsafe extern "C" fn(user: *mut c_void, row: i64, text: *const c_char, size: usize, token: i64) -> i32>;

pub type pg_texts_fn = Option<
    unsafe extern "C" fn(user: *mut c_void, row: i64, ids: *const i64, n_ids: i64, n_texts: i64, ends: *mut u8) -> i32,
>;

pub type pg_worker_fn = Option<unsafe extern "C" fn(user: *mut c_void, event: *const pg_worker_event)>;
