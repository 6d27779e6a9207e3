// Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
//! The C API of libpaligemma, as paligemma.h has it: names, types and values, kept by hand. tests/languages/check.py
//! holds all of it against the header, and says what a new function looks like here. Use the crate `paligemma`.
#![allow(non_camel_case_types)]

mod callbacks;
mod constants;
mod functions;
mod handles;
mod structs;

pub use callbacks::*;
pub use constants::*;
pub use functions::*;
pub use handles::*;
pub use structs::*;

/// What a call returns: 0, a negative PG_ERROR_*, or a positive PG_EVENT_*.
pub type pg_status = i32;
