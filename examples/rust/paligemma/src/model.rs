// Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
//! The weights of a checkpoint, and features of images.
use crate::answers::{Outputs, Score};
use crate::call::{on_log, on_progress, user, Call, Kept, Log, LogFn, Progress, ProgressFn};
use crate::error::{c_string, Result};
use crate::handles::{flag, shared_handle, Cancel};
use crate::options::Weights;
use crate::processor::{Inputs, Processor};
use crate::tensor::Tensor;
use paligemma_sys as sys;
use std::os::raw::{c_char, c_void};
use std::path::Path;
use std::sync::Arc;
use std::{mem, ptr};

shared_handle!(
    /// The weights of a checkpoint. It never changes: any number of threads may use it. The files stay mapped, and must not
    /// be changed meanwhile.
    Model,
    sys::pg_model,
    sys::pg_model_close
);
shared_handle!(
    /// What the encoder makes of images: computed once, they serve many prompts.
    Features,
    sys::pg_features,
    sys::pg_features_close
);

/// Options of `Model::open_with`.
#[derive(Default)]
pub struct ModelOptions<'a> {
    /// How the matrices are kept; `None`: as the folder has them.
    pub weights: Option<Weights>,
    /// For quantizing, 1 to 1024; 0: the CPUs.
    pub n_threads: i32,
    /// Lives as long as the model and all that is made from it.
    pub log: Option<Box<LogFn>>,
    /// Of opening.
    pub progress: Option<&'a mut ProgressFn<'a>>,
    /// Stops opening.
    pub cancel: Option<&'a Cancel>,
}

impl Model {
    /// Opens a checkpoint folder, or a model id in the local Hugging Face cache.
    pub fn open(folder: impl AsRef<Path>) -> Result<Model> {
        Model::open_with(folder, ModelOptions::default())
    }
    /// The same with options.
    pub fn open_with(folder: impl AsRef<Path>, given: ModelOptions<'_>) -> Result<Model> {
        let folder = c_string(folder.as_ref(), "the folder of a model")?;
        let call = Call::begin();
        let mut options = unsafe { mem::zeroed::<sys::pg_model_options>() };
        let mut raw = ptr::null_mut();
        unsafe { sys::pg_model_options_init(&mut options, mem::size_of_val(&options)) };
        options.weights = given.weights.unwrap_or(Weights::Stored).value();
        options.n_threads = given.n_threads;
        options.cancel = flag(given.cancel);
        let mut progress = Progress(given.progress);
        options.progress = Some(on_progress);
        options.progress_user = user(&mut progress);
        let log = given.log.map(|log| Arc::new(Log(log)));
        if let Some(log) = &log {
            options.log = Some(on_log);
            options.log_user = Arc::as_ptr(log) as *mut c_void;
        }
        let status = unsafe { sys::pg_model_open(folder.as_ptr(), &options, &mut raw) };
        let made = Model::of(raw, log.into_iter().collect());
        call.finish(status).map(|_| made)
    }
    /// What the model is.
    pub fn info(&self) -> Result<sys::pg_model_info> {
        let call = Call::begin();
        let mut info = unsafe { mem::zeroed::<sys::pg_model_info>() };
        info.struct_size = mem::size_of_val(&info) as u32;
        let status = unsafe { sys::pg_model_get_info(self.raw, &mut info) };
        call.finish(status).map(|_| info)
    }
    /// A field of the HF config as JSON text, such as "text_config.hidden_size"; "": the whole.
    pub fn config(&self, key: &str) -> Result<String> {
        let key = c_string(key, "a key")?;
        let mut text: Vec<u8> = Vec::new();
        loop {
            let call = Call::begin();
            let mut needed = 0usize;
            let to = text.as_mut_ptr() as *mut c_char;
            let status = unsafe { sys::pg_model_get_config(self.raw, key.as_ptr(), to, text.len(), &mut needed) };
            call.finish(status)?;
            let whole = needed <= text.len();
            text.resize(needed, 0);
            if whole {
                text.pop(); // the NUL
                return Ok(String::from_utf8_lossy(&text).into_owned());
            }
        }
    }
    /// Runs the encoder on the pixels of the inputs. n_threads: 0 for the CPUs.
    pub fn features(&self, inputs: &Inputs, n_threads: i32) -> Result<Features> {
        let call = Call::begin();
        let mut options = unsafe { mem::zeroed::<sys::pg_run_options>() };
        let mut raw = ptr::null_mut();
        unsafe { sys::pg_run_options_init(&mut options, mem::size_of_val(&options)) };
        options.n_threads = n_threads;
        let status = unsafe { sys::pg_features_create(self.raw, inputs.raw, &options, &mut raw) };
        let made = Features::of(raw, joined(&self.kept, &inputs.kept));
        call.finish(status).map(|_| made)
    }
    /// How likely each of `answers` to the one row of the inputs is.
    pub fn score(&self, processor: &Processor, inputs: &Inputs, answers: &[&str]) -> Result<Vec<Score>> {
        Score::of(self, processor, inputs, answers)
    }
    /// One pass over the inputs. flags: `sys::PG_FORWARD_*`.
    pub fn forward(&self, inputs: &Inputs, flags: u32) -> Result<Outputs> {
        let call = Call::begin();
        let mut options = unsafe { mem::zeroed::<sys::pg_forward_options>() };
        let mut raw = ptr::null_mut();
        unsafe { sys::pg_forward_options_init(&mut options, mem::size_of_val(&options)) };
        options.flags = flags;
        let status = unsafe { sys::pg_forward(self.raw, inputs.raw, &options, &mut raw) };
        let made = Outputs::of(raw, joined(&self.kept, &inputs.kept));
        call.finish(status).map(|_| made)
    }
}

impl Features {
    /// f32 [images, image tokens, hidden size].
    pub fn tensor(&self) -> Result<Tensor<'_>> {
        Tensor::get(|out| unsafe { sys::pg_features_get_tensor(self.raw, out) })
    }
}

/// The logs of both.
pub(crate) fn joined(a: &Kept, b: &Kept) -> Kept {
    a.iter().chain(b).cloned().collect()
}
