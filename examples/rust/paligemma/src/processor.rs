// Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
//! Images, prompts, and what a model is fed.
use crate::call::{on_log, Call, Log};
use crate::error::{c_string, Result};
use crate::handles::{handle, shared_handle};
use crate::options::EncodeOptions;
use crate::tensor::Tensor;
use paligemma_sys as sys;
use std::ffi::{CStr, CString};
use std::marker::PhantomData;
use std::os::raw::{c_char, c_void};
use std::path::Path;
use std::sync::Arc;
use std::{mem, ptr, slice};

/// An image that is read when it is encoded: a file, the bytes of one, or a camera's pixels.
pub struct Image<'a> {
    raw: sys::pg_image,
    _path: Option<CString>, // `raw` points into it
    pixels: PhantomData<&'a [u8]>,
}

impl<'a> Image<'a> {
    /// A PNG or JPEG file.
    pub fn from_path(path: impl AsRef<Path>) -> Result<Image<'static>> {
        let path = c_string(path.as_ref(), "the path of an image")?;
        Image::fill(|raw, size| unsafe { sys::pg_image_from_path(raw, size, path.as_ptr()) }).map(|raw| Image {
            raw,
            _path: Some(path),
            pixels: PhantomData,
        })
    }
    /// The bytes of a PNG or JPEG file.
    pub fn from_bytes(bytes: &'a [u8]) -> Result<Image<'a>> {
        let data = bytes.as_ptr() as *const c_void;
        Image::fill(|raw, size| unsafe { sys::pg_image_from_bytes(raw, size, data, bytes.len()) }).map(|raw| Image {
            raw,
            _path: None,
            pixels: PhantomData,
        })
    }
    /// Rows of pixels from the top, in one of `sys::PG_IMAGE_RGB8`, `_BGR8`, `_RGBA8`, `_BGRA8`, `_GRAY8`; `stride`: bytes
    /// from a row to the next, 0: dense. Rows that leave `pixels` are refused when the image is encoded.
    pub fn from_pixels(format: i32, width: i32, height: i32, pixels: &'a [u8], stride: usize) -> Result<Image<'a>> {
        let (data, stride) = (
            pixels.as_ptr() as *const c_void,
            i64::try_from(stride).unwrap_or(i64::MAX),
        );
        let raw = Image::fill(|raw, size| unsafe {
            sys::pg_image_from_pixels(raw, size, format, width, height, data, stride)
        });
        raw.map(|mut raw| {
            raw.n_bytes = pixels.len() as u64; // what holds the library to the slice; 0 would mean: not known
            Image {
                raw,
                _path: None,
                pixels: PhantomData,
            }
        })
    }
    fn fill(make: impl FnOnce(*mut sys::pg_image, usize) -> sys::pg_status) -> Result<sys::pg_image> {
        let call = Call::begin();
        let mut raw = unsafe { mem::zeroed::<sys::pg_image>() };
        let status = make(&mut raw, mem::size_of::<sys::pg_image>());
        call.finish(status).map(|_| raw)
    }
}

shared_handle!(
    /// Tokenizer and image processing of a checkpoint. It never changes: any number of threads may use it.
    Processor,
    sys::pg_processor,
    sys::pg_processor_close
);
shared_handle!(
    /// What a model is fed: ids, masks, pixels.
    Inputs,
    sys::pg_inputs,
    sys::pg_inputs_close
);
handle!(
    /// Turns ids into text one by one, in whole characters.
    Detokenizer,
    sys::pg_detokenizer,
    sys::pg_detokenizer_close
);

impl Processor {
    /// Opens those of a checkpoint folder, or of a model id in the local Hugging Face cache.
    pub fn open(folder: impl AsRef<Path>) -> Result<Processor> {
        Processor::open_with(folder, None)
    }
    /// The same with a log, which lives as long as the processor and all that is made from it.
    pub fn open_with(folder: impl AsRef<Path>, log: Option<Box<crate::LogFn>>) -> Result<Processor> {
        let folder = c_string(folder.as_ref(), "the folder of a processor")?;
        let call = Call::begin();
        let mut options = unsafe { mem::zeroed::<sys::pg_processor_options>() };
        let mut raw = ptr::null_mut();
        unsafe { sys::pg_processor_options_init(&mut options, mem::size_of_val(&options)) };
        let log = log.map(|log| Arc::new(Log(log)));
        if let Some(log) = &log {
            options.log = Some(on_log);
            options.log_user = Arc::as_ptr(log) as *mut c_void;
        }
        let status = unsafe { sys::pg_processor_open(folder.as_ptr(), &options, &mut raw) };
        let made = Processor::of(raw, log.into_iter().collect());
        call.finish(status).map(|_| made)
    }
    /// The inputs of an image and a prompt. Without an image: image tokens and no pixels, for `Features`.
    pub fn encode(&self, image: Option<&Image<'_>>, prompt: &str) -> Result<Inputs> {
        self.encode_with(image, prompt, &EncodeOptions::default())
    }
    /// The same with options.
    pub fn encode_with(&self, image: Option<&Image<'_>>, prompt: &str, options: &EncodeOptions) -> Result<Inputs> {
        let prompt = c_string(prompt, "a prompt")?;
        let call = Call::begin();
        let options = options.value();
        let mut raw = ptr::null_mut();
        let image = image.map_or(ptr::null(), |image| &image.raw as *const sys::pg_image);
        let status = unsafe { sys::pg_processor_encode(self.raw, image, prompt.as_ptr(), &options, &mut raw) };
        let made = Inputs::of(raw, self.kept.clone());
        call.finish(status).map(|_| made)
    }
    /// The ids of a text alone.
    pub fn tokenize(&self, text: &str) -> Result<Vec<i64>> {
        let c_text = c_string(text, "a text")?;
        let mut ids = vec![0i64; text.len() + 1]; // more are rare
        loop {
            let call = Call::begin();
            let mut n = 0usize;
            let status = unsafe {
                sys::pg_processor_tokenize(self.raw, c_text.as_ptr(), 0, ids.as_mut_ptr(), ids.len(), &mut n)
            };
            call.finish(status)?;
            let whole = n <= ids.len();
            ids.resize(n, 0);
            if whole {
                return Ok(ids);
            }
        }
    }
    /// The text of ids, without special tokens.
    pub fn decode(&self, ids: &[i64]) -> Result<String> {
        let mut text: Vec<u8> = Vec::new();
        loop {
            let call = Call::begin();
            let mut needed = 0usize;
            let status = unsafe {
                let flags = sys::PG_DECODE_SKIP_SPECIAL;
                let (to, room) = (text.as_mut_ptr() as *mut c_char, text.len());
                sys::pg_processor_decode(self.raw, ids.as_ptr(), ids.len(), flags, to, room, &mut needed)
            };
            call.finish(status)?;
            let whole = needed <= text.len();
            text.resize(needed, 0);
            if whole {
                text.pop(); // the NUL
                return Ok(String::from_utf8_lossy(&text).into_owned());
            }
        }
    }
    /// A detokenizer that leaves special tokens out.
    pub fn detokenizer(&self) -> Result<Detokenizer> {
        let call = Call::begin();
        let mut raw = ptr::null_mut();
        let status = unsafe { sys::pg_detokenizer_create(self.raw, sys::PG_DECODE_SKIP_SPECIAL, &mut raw) };
        let made = Detokenizer::of(raw, self.kept.clone());
        call.finish(status).map(|_| made)
    }
}

impl Inputs {
    /// A tensor by its HF name, such as "input_ids" [rows, tokens] or "image_sizes" [images, 2], height first.
    pub fn tensor(&self, name: &str) -> Result<Tensor<'_>> {
        let name = c_string(name, "the name of a tensor")?;
        Tensor::get(|out| unsafe { sys::pg_inputs_get_tensor(self.raw, name.as_ptr(), out) })
    }
}

impl Detokenizer {
    /// The text that `id` completes.
    pub fn push(&mut self, id: i64) -> Result<&str> {
        let raw = self.raw;
        self.text(|text, size| unsafe { sys::pg_detokenizer_push(raw, id, text, size) })
    }
    /// What was held back, at the end; then it starts anew.
    pub fn flush(&mut self) -> Result<&str> {
        let raw = self.raw;
        self.text(|text, size| unsafe { sys::pg_detokenizer_flush(raw, text, size) })
    }
    fn text(&mut self, get: impl FnOnce(*mut *const c_char, *mut usize) -> sys::pg_status) -> Result<&str> {
        let call = Call::begin();
        let (mut text, mut size) = (ptr::null(), 0usize);
        let status = get(&mut text, &mut size);
        call.finish(status)?;
        // Whole characters of UTF-8, valid until the next call on the detokenizer, which borrows it.
        let bytes = unsafe { slice::from_raw_parts(text as *const u8, size) };
        Ok(std::str::from_utf8(bytes).unwrap_or("\u{fffd}"))
    }
}

/// A text of the library that a handle keeps.
pub(crate) fn text_of<'a>(text: *const c_char) -> &'a str {
    unsafe { CStr::from_ptr(text) }.to_str().unwrap_or("")
}
