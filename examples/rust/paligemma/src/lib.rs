// Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
//! PaliGemma and PaliGemma 2 on a CPU: libpaligemma for Rust.
//!
//! ```no_run
//! use paligemma::{GenerateOptions, Image, Model, Processor};
//! # fn main() -> paligemma::Result<()> {
//! let model = Model::open("checkpoint")?;
//! let processor = Processor::open("checkpoint")?;
//! let inputs = processor.encode(Some(&Image::from_path("photo.jpg")?), "caption en")?;
//! let answer = model.generate(Some(&processor), &inputs, GenerateOptions::default())?;
//! println!("{}", answer.text(0));
//! # Ok(())
//! # }
//! ```
//!
//! Threads: `Model`, `Processor`, `MaskDecoder`, `Inputs`, `Features`, `Answers`, `Objects` and `Outputs` never change and
//! may be shared (`Sync`). A `Session` and a `Detokenizer` may move to another thread (`Send`), and one thread uses them
//! at a time: their methods take `&mut self`.
//!
//! Panics: a callback that panics is caught before the C library sees it. The call ends as soon as the library asks a
//! callback again, everything that it took is released, and the panic goes on where the call was made.
//!
//! The wrapper covers answers, sessions, scores, forward passes, boxes and masks. What it leaves out (training,
//! conversion, adapters, allocators) is in `paligemma_sys`, whole.
mod answers;
mod call;
mod error;
mod generate;
mod handles;
mod model;
mod objects;
mod options;
mod processor;
mod session;
mod tensor;

pub use answers::{Answers, Outputs, RowInfo, Score};
pub use call::{LogFn, ProgressFn};
pub use error::{Error, Result};
pub use generate::{GenerateOptions, Sampling};
pub use handles::Cancel;
pub use model::{Features, Model, ModelOptions};
pub use objects::{MaskDecoder, Object, Objects};
pub use options::{EncodeOptions, Weights};
pub use paligemma_sys as sys;
pub use processor::{Detokenizer, Image, Inputs, Processor};
pub use session::{Session, SessionOptions, Step};
pub use std::ops::ControlFlow;
pub use tensor::Tensor;

/// The package version of the library that is running, such as "0.1.0".
pub fn version() -> &'static str {
    // A static string of the library.
    unsafe { std::ffi::CStr::from_ptr(sys::pg_version_string()) }
        .to_str()
        .unwrap_or("")
}
