// Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
//! Options of more than one call.
use paligemma_sys as sys;

/// How the matrices of a model are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights {
    /// As the folder has them.
    Stored,
    /// 8.25 bits a weight.
    Int8,
    /// 4.25 bits a weight.
    Int4,
}

impl Weights {
    pub(crate) fn value(self) -> i32 {
        match self {
            Weights::Stored => sys::PG_WEIGHTS_STORED,
            Weights::Int8 => sys::PG_WEIGHTS_INT8,
            Weights::Int4 => sys::PG_WEIGHTS_INT4,
        }
    }
}

/// How an image and a prompt become inputs.
#[derive(Clone, Copy, Debug, Default)]
pub struct EncodeOptions {
    /// Turn the image as its EXIF orientation says: photos of phones upright.
    pub exif: bool,
    /// "<eos>" and the like in the prompt are plain characters: for prompts from strangers.
    pub literal: bool,
    /// Larger images (width x height) are `PG_ERROR_LIMIT`; 0: 178956970.
    pub max_image_pixels: i64,
    /// Longer rows are `PG_ERROR_LIMIT`; 0: 131072 tokens.
    pub max_tokens: i64,
}

impl EncodeOptions {
    pub(crate) fn value(&self) -> sys::pg_encode_options {
        let mut options = unsafe { std::mem::zeroed::<sys::pg_encode_options>() };
        // It fails for a wrong size alone.
        unsafe { sys::pg_encode_options_init(&mut options, std::mem::size_of_val(&options)) };
        options.flags |= if self.exif { sys::PG_ENCODE_EXIF } else { 0 };
        options.flags |= if self.literal { sys::PG_ENCODE_LITERAL } else { 0 };
        options.max_image_pixels = if self.max_image_pixels != 0 {
            self.max_image_pixels
        } else {
            options.max_image_pixels
        };
        options.max_tokens = if self.max_tokens != 0 {
            self.max_tokens
        } else {
            options.max_tokens
        };
        options
    }
}
