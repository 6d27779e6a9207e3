// Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
//! Generating answers, with callbacks.
use crate::answers::Answers;
use crate::call::{guarded, on_progress, stops, user, Call, Progress, ProgressFn};
use crate::error::{c_string, Result};
use crate::handles::{flag, Cancel};
use crate::model::{joined, Features, Model};
use crate::processor::{Inputs, Processor};
use paligemma_sys as sys;
use std::ops::ControlFlow;
use std::os::raw::{c_char, c_void};
use std::{mem, ptr, slice};

/// Receives the row, a piece of its text in whole characters, and the token that completed it. `Break` ends the row.
pub type TextFn<'a> = dyn FnMut(usize, &str, i64) -> ControlFlow<()> + 'a;
/// Sees, and may change, the logits that the next token of a row is chosen from: row, its ids so far, logits [vocabulary].
/// `Break` ends the row.
pub type LogitsFn<'a> = dyn FnMut(usize, &[i64], &mut [f32]) -> ControlFlow<()> + 'a;

/// How the next token is chosen: temperature, top_k and top_p are followed where tokens are drawn.
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    /// Draw the token by the softmax of the scores, instead of taking the likeliest.
    pub random: bool,
    /// Of the draws.
    pub seed: u64,
    /// Above 0.
    pub temperature: f64,
    /// 0: off.
    pub top_k: i32,
    /// 0 to 1; 1: off.
    pub top_p: f64,
}

impl Default for Sampling {
    fn default() -> Sampling {
        Sampling {
            random: false,
            seed: 0,
            temperature: 1.0,
            top_k: 50,
            top_p: 1.0,
        }
    }
}

/// Options of `Model::generate`.
#[derive(Default)]
pub struct GenerateOptions<'a> {
    /// New tokens of each row; 0: what generation_config.json says, else 128.
    pub max_new_tokens: i32,
    /// 1 to 1024; 0: the CPUs.
    pub n_threads: i32,
    /// `sys::PG_GENERATE_*`: what the answers keep of every step.
    pub flags: u32,
    /// Of the images, in place of pixels.
    pub features: Option<&'a Features>,
    /// `None`: as generation_config.json says.
    pub sampling: Option<Sampling>,
    /// The text as it comes.
    pub on_text: Option<&'a mut TextFn<'a>>,
    /// The logits of each step.
    pub on_logits: Option<&'a mut LogitsFn<'a>>,
    /// Progress of the call.
    pub progress: Option<&'a mut ProgressFn<'a>>,
    /// Stops the call, from any thread.
    pub cancel: Option<&'a Cancel>,
    /// A row ends with the token that completes one of them.
    pub stop_strings: &'a [&'a str],
}

/// What the C library is given as `user`.
struct Text<'a>(&'a mut TextFn<'a>);
struct Logits<'a>(&'a mut LogitsFn<'a>);

unsafe extern "C" fn on_text(user: *mut c_void, row: i64, text: *const c_char, size: usize, token: i64) -> i32 {
    guarded(1, || {
        let bytes = slice::from_raw_parts(text as *const u8, size);
        stops(((*(user as *mut Text<'_>)).0)(
            row as usize,
            &String::from_utf8_lossy(bytes),
            token,
        ))
    })
}

unsafe extern "C" fn on_logits(
    user: *mut c_void,
    row: i64,
    ids: *const i64,
    n_ids: i64,
    logits: *mut f32,
    vocab_size: i64,
) -> i32 {
    guarded(1, || {
        let ids = if n_ids > 0 {
            slice::from_raw_parts(ids, n_ids as usize)
        } else {
            &[]
        };
        let logits = slice::from_raw_parts_mut(logits, vocab_size as usize);
        stops(((*(user as *mut Logits<'_>)).0)(row as usize, ids, logits))
    })
}

/// The C settings, without callbacks.
pub(crate) fn sampling_of(given: Sampling) -> sys::pg_sampling_options {
    let mut options = unsafe { mem::zeroed::<sys::pg_sampling_options>() };
    unsafe { sys::pg_sampling_options_init(&mut options, mem::size_of_val(&options)) };
    options.flags |= if given.random { sys::PG_SAMPLING_RANDOM } else { 0 };
    options.seed = given.seed;
    options.temperature = given.temperature;
    options.top_k = given.top_k;
    options.top_p = given.top_p;
    options
}

impl Model {
    /// Generates the answers to all rows of the inputs. Without a processor the answers have ids alone.
    pub fn generate(
        &self,
        processor: Option<&Processor>,
        inputs: &Inputs,
        given: GenerateOptions<'_>,
    ) -> Result<Answers> {
        let stop_strings = given
            .stop_strings
            .iter()
            .map(|text| c_string(text, "a stop string"))
            .collect::<Result<Vec<_>>>()?;
        let stop_pointers: Vec<*const c_char> = stop_strings.iter().map(|text| text.as_ptr()).collect();
        let call = Call::begin();
        let mut options = unsafe { mem::zeroed::<sys::pg_generate_options>() };
        let mut raw = ptr::null_mut();
        unsafe { sys::pg_generate_options_init(&mut options, mem::size_of_val(&options)) };
        options.flags = given.flags;
        options.max_new_tokens = given.max_new_tokens;
        options.n_threads = given.n_threads;
        options.features = given.features.map_or(ptr::null(), |features| features.raw as *const _);
        options.cancel = flag(given.cancel);
        if !stop_pointers.is_empty() {
            options.stop_strings = stop_pointers.as_ptr();
            options.n_stop_strings = i32::try_from(stop_pointers.len()).unwrap_or(i32::MAX);
        }
        let mut progress = Progress(given.progress);
        options.progress = Some(on_progress);
        options.progress_user = user(&mut progress);
        let mut text = given.on_text.map(Text);
        if let Some(text) = &mut text {
            options.on_text = Some(on_text);
            options.on_text_user = user(text);
        }
        let mut sampling = unsafe { mem::zeroed::<sys::pg_sampling_options>() };
        let mut logits = given.on_logits.map(Logits);
        let mut status = sys::PG_OK;
        if given.sampling.is_some() || logits.is_some() {
            match given.sampling {
                Some(settings) => sampling = sampling_of(settings),
                None => {
                    sampling.struct_size = mem::size_of_val(&sampling) as u32;
                    status = unsafe { sys::pg_model_get_sampling(self.raw, &mut sampling) };
                }
            }
            if let Some(logits) = &mut logits {
                sampling.on_logits = Some(on_logits);
                sampling.on_logits_user = user(logits);
            }
            options.sampling = &sampling;
        }
        if status >= 0 {
            let processor = processor.map_or(ptr::null(), |processor| processor.raw as *const _);
            status = unsafe { sys::pg_generate(self.raw, processor, inputs.raw, &options, &mut raw) };
        }
        let mut kept = joined(&self.kept, &inputs.kept);
        kept.extend(processor.iter().flat_map(|processor| processor.kept.iter().cloned()));
        let made = Answers::of(raw, kept);
        call.finish(status).map(|_| made)
    }
}
