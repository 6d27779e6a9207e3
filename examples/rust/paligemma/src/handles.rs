// Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
//! C handles that are closed when they are dropped.
use crate::call::Call;
use crate::error::Result;
use paligemma_sys as sys;
use std::ptr;

/// Declares a handle: what it is of C, how it is closed, and the logs that it keeps, since the library may call them as
/// long as it has the handle.
macro_rules! handle {
    ($(#[$doc:meta])* $name:ident, $c:ty, $close:path) => {
        $(#[$doc])*
        pub struct $name {
            pub(crate) raw: *mut $c,
            pub(crate) kept: $crate::call::Kept,
        }
        impl $name {
            pub(crate) fn of(raw: *mut $c, kept: $crate::call::Kept) -> $name {
                $name { raw, kept }
            }
        }
        impl Drop for $name {
            fn drop(&mut self) {
                unsafe { $close(&mut self.raw) };
                self.kept.clear();
            }
        }
        // Every handle may move between threads; its logs are Send and Sync.
        unsafe impl Send for $name {}
    };
}
/// The same of a handle that never changes: any number of threads may use it at a time, as paligemma.h says.
macro_rules! shared_handle {
    ($(#[$doc:meta])* $name:ident, $c:ty, $close:path) => {
        $crate::handles::handle!($(#[$doc])* $name, $c, $close);
        unsafe impl Sync for $name {}
    };
}
pub(crate) use {handle, shared_handle};

shared_handle!(
    /// A cancel flag: a call that was given it ends with `PG_ERROR_CANCELLED` soon after any thread has set it. Make one
    /// for each request.
    Cancel,
    sys::pg_cancel,
    sys::pg_cancel_close
);

impl Cancel {
    /// A flag that is not set.
    pub fn new() -> Result<Cancel> {
        let call = Call::begin();
        let mut raw = ptr::null_mut();
        let status = unsafe { sys::pg_cancel_create(&mut raw) };
        let made = Cancel::of(raw, Vec::new());
        call.finish(status).map(|_| made)
    }
    /// Sets it; from any thread.
    pub fn request(&self) {
        unsafe { sys::pg_cancel_request(self.raw) }
    }
    /// Clears it, so that it can be used again.
    pub fn clear(&self) {
        unsafe { sys::pg_cancel_clear(self.raw) }
    }
}

/// The C flag of an option.
pub(crate) fn flag(cancel: Option<&Cancel>) -> *mut sys::pg_cancel {
    cancel.map_or(ptr::null_mut(), |flag| flag.raw)
}
