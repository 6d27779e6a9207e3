// Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
//! Generating token by token.
use crate::call::{on_progress, Call, Kept, Progress, ProgressFn};
use crate::error::Result;
use crate::generate::{sampling_of, Sampling};
use crate::model::{Features, Model};
use crate::processor::Inputs;
use crate::tensor::Tensor;
use paligemma_sys as sys;
use std::os::raw::c_void;
use std::{mem, ptr};

/// Options of `Session::new`.
#[derive(Default)]
pub struct SessionOptions {
    /// 1 to 1024; 0: the CPUs.
    pub n_threads: i32,
    /// Tokens after a prefill; 0: 128.
    pub max_new_tokens: i32,
    /// Lives as long as the session; called on the thread that uses it.
    pub progress: Option<Box<dyn FnMut(i32, i64, i64) -> crate::ControlFlow<()> + Send>>,
}

/// What a step gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A token of the text.
    Token(i64),
    /// The token that ends the text.
    Eos(i64),
    /// No token: max_new_tokens were returned.
    Length,
    /// No token: the row is as long as it may be.
    Context,
}

/// A sequence that is generated token by token. It may move between threads; one uses it at a time.
pub struct Session {
    raw: *mut sys::pg_session,
    /// What C calls: the session's own, by a raw pointer, since C has one too.
    progress: *mut Held,
    _kept: Kept,
}

struct Held {
    progress: Progress<'static>,
    /// What `progress` refers to.
    callback: *mut ProgressFn<'static>,
}

// Its progress is Send; all else of it is the library's, which lets a session move.
unsafe impl Send for Session {}

impl Session {
    /// Allocates all memory and starts the threads. It keeps the model.
    pub fn new(model: &Model, given: SessionOptions) -> Result<Session> {
        let call = Call::begin();
        let mut options = unsafe { mem::zeroed::<sys::pg_session_options>() };
        unsafe { sys::pg_session_options_init(&mut options, mem::size_of_val(&options)) };
        options.n_threads = given.n_threads;
        options.max_new_tokens = given.max_new_tokens;
        let mut made = Session {
            raw: ptr::null_mut(),
            progress: ptr::null_mut(),
            _kept: model.kept.clone(),
        };
        if let Some(callback) = given.progress {
            let callback: *mut ProgressFn<'static> = Box::into_raw(callback);
            // It lives until Drop, behind which nothing refers to it.
            let progress = Progress(Some(unsafe { &mut *callback }));
            made.progress = Box::into_raw(Box::new(Held { progress, callback }));
            options.progress = Some(on_progress);
            options.progress_user = unsafe { ptr::addr_of_mut!((*made.progress).progress) } as *mut c_void;
        }
        let status = unsafe { sys::pg_session_create(model.raw, &options, &mut made.raw) };
        call.finish(status).map(|_| made)
    }
    /// Feeds a prompt of one row, and starts over. With features in place of pixels.
    pub fn prefill(&mut self, inputs: &Inputs, features: Option<&Features>) -> Result<()> {
        let call = Call::begin();
        let features = features.map_or(ptr::null(), |features| features.raw as *const _);
        let status = unsafe { sys::pg_session_prefill(self.raw, inputs.raw, features) };
        call.finish(status).map(|_| ())
    }
    /// The likeliest next token, or why there is none.
    pub fn step(&mut self) -> Result<Step> {
        let call = Call::begin();
        let mut token = 0i64;
        let status = unsafe { sys::pg_session_step(self.raw, &mut token) };
        call.finish(status).map(|event| stepped(event, token))
    }
    /// The next token by these settings; a draw has the number of its step.
    pub fn sample(&mut self, settings: Sampling) -> Result<Step> {
        let call = Call::begin();
        let options = sampling_of(settings);
        let mut token = 0i64;
        let status = unsafe { sys::pg_session_sample(self.raw, &options, &mut token) };
        call.finish(status).map(|event| stepped(event, token))
    }
    /// Feeds tokens of the host's choice.
    pub fn feed(&mut self, ids: &[i64]) -> Result<()> {
        let call = Call::begin();
        let status = unsafe { sys::pg_session_feed(self.raw, ids.as_ptr(), ids.len()) };
        call.finish(status).map(|_| ())
    }
    /// The logits of the token last returned, or of the next one right after a prefill: f32 [vocabulary].
    pub fn logits(&mut self) -> Result<Tensor<'_>> {
        let raw = self.raw;
        Tensor::get(|out| unsafe { sys::pg_session_get_logits(raw, out) })
    }
}

fn stepped(event: sys::pg_status, token: i64) -> Step {
    match event {
        sys::PG_OK => Step::Token(token),
        sys::PG_EVENT_EOS => Step::Eos(token),
        sys::PG_EVENT_LENGTH => Step::Length,
        _ => Step::Context,
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        unsafe {
            sys::pg_session_close(&mut self.raw);
            if !self.progress.is_null() {
                let held = Box::from_raw(self.progress);
                let callback = held.callback;
                drop(held);
                drop(Box::from_raw(callback));
            }
        }
    }
}
