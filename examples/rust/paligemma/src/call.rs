// Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
//! Calls of the C library: panics of callbacks are carried across it.
use crate::error::{Error, Result};
use paligemma_sys as sys;
use std::any::Any;
use std::cell::RefCell;
use std::ffi::CStr;
use std::ops::ControlFlow;
use std::os::raw::{c_char, c_void};
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::sync::Arc;

/// Receives a level (`sys::PG_LOG_*`) and one line. Any thread that uses the handle, or one made from it, may call it.
pub type LogFn = dyn Fn(i32, &str) + Send + Sync;
/// Receives a phase (`sys::PG_PHASE_*`) and how much of it is done. `Break`: the call is `PG_ERROR_CANCELLED`.
pub type ProgressFn<'a> = dyn FnMut(i32, i64, i64) -> ControlFlow<()> + 'a;

thread_local! {
    /// What a callback of the call under way on this thread panicked with.
    static PANIC: RefCell<Option<Box<dyn Any + Send>>> = RefCell::new(None);
}

/// One call of the library. Calls inside callbacks have their own panics.
pub(crate) struct Call {
    outer: Option<Box<dyn Any + Send>>,
}

impl Call {
    pub(crate) fn begin() -> Call {
        Call {
            outer: PANIC.with(|panic| panic.borrow_mut().take()),
        }
    }
    /// The status, or why the call failed; a panic goes on. What the call gave must be owned by now, so that it is closed.
    pub(crate) fn finish(self, status: sys::pg_status) -> Result<sys::pg_status> {
        let panicked = PANIC.with(|panic| panic.borrow_mut().take());
        drop(self);
        match panicked {
            Some(payload) => resume_unwind(payload),
            None if status < 0 => Err(Error::last(status)),
            None => Ok(status),
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let outer = self.outer.take();
        PANIC.with(|panic| *panic.borrow_mut() = outer);
    }
}

/// Runs a callback. After a panic of this call no callback runs any more: each gives `stop`.
pub(crate) fn guarded<T>(stop: T, callback: impl FnOnce() -> T) -> T {
    if PANIC.with(|panic| panic.borrow().is_some()) {
        return stop;
    }
    // What the callback borrowed is seen again by the frames that the panic unwinds alone.
    match catch_unwind(AssertUnwindSafe(callback)) {
        Ok(given) => given,
        Err(payload) => {
            PANIC.with(|panic| *panic.borrow_mut() = Some(payload));
            stop
        }
    }
}

/// 0 to go on, 1 to stop.
pub(crate) fn stops(flow: ControlFlow<()>) -> i32 {
    match flow {
        ControlFlow::Continue(()) => 0,
        ControlFlow::Break(()) => 1,
    }
}

/// A log that the handles keep which may call it.
pub(crate) struct Log(pub(crate) Box<LogFn>);
pub(crate) type Kept = Vec<Arc<Log>>;

/// `user` is a `Log` that a handle keeps.
pub(crate) unsafe extern "C" fn on_log(user: *mut c_void, level: i32, message: *const c_char) {
    guarded((), || {
        let line = CStr::from_ptr(message).to_string_lossy();
        ((*(user as *const Log)).0)(level, &line)
    })
}

/// A progress callback of a call, or none: it is always given to the library, so that a panic of another callback stops
/// the call here.
pub(crate) struct Progress<'a>(pub(crate) Option<&'a mut ProgressFn<'a>>);

/// `user` is a `Progress` that outlives the call.
pub(crate) unsafe extern "C" fn on_progress(user: *mut c_void, phase: i32, done: i64, total: i64) -> i32 {
    guarded(1, || match &mut (*(user as *mut Progress<'_>)).0 {
        Some(progress) => stops(progress(phase, done, total)),
        None => 0,
    })
}

pub(crate) fn user<T>(callback: &mut T) -> *mut c_void {
    callback as *mut T as *mut c_void
}
