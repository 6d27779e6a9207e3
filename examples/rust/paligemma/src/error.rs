// Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
//! Why a call failed.
use paligemma_sys as sys;
use std::ffi::{CStr, CString, OsStr};
use std::fmt;
use std::os::unix::ffi::OsStrExt;

/// Why a call failed: the status of the C library, its message, and the row of a batch that it is about.
#[derive(Clone, Debug)]
pub struct Error {
    status: i32,
    message: String,
    row: Option<usize>,
}

/// What a call gives.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// One of `sys::PG_ERROR_*`: what a program decides by.
    pub fn status(&self) -> i32 {
        self.status
    }
    /// The row of the batch, 0 for the first; `None`: none or several.
    pub fn row(&self) -> Option<usize> {
        self.row
    }
    /// What the last failing call on this thread said.
    pub(crate) fn last(status: i32) -> Error {
        // The text is valid until the next failing call on this thread.
        let message = unsafe { CStr::from_ptr(sys::pg_last_error()) }
            .to_string_lossy()
            .into_owned();
        let row = usize::try_from(unsafe { sys::pg_last_error_row() }).ok();
        Error { status, message, row }
    }
    /// An argument that this crate refuses.
    pub(crate) fn argument(message: String) -> Error {
        Error {
            status: sys::PG_ERROR_ARGUMENT,
            message,
            row: None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// A path or a text as C has it. `what` names it in the error.
pub(crate) fn c_string(text: impl AsRef<OsStr>, what: &str) -> Result<CString> {
    CString::new(text.as_ref().as_bytes()).map_err(|found| {
        Error::argument(format!(
            "{}: found a byte 0 at offset {}; expected none, since it ends a text there",
            what,
            found.nul_position()
        ))
    })
}
