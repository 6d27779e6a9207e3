// Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
//! Boxes and masks of answers.
use crate::answers::Answers;
use crate::call::Call;
use crate::error::{c_string, Result};
use crate::handles::shared_handle;
use crate::model::joined;
use crate::processor::{text_of, Processor};
use paligemma_sys as sys;
use std::path::Path;
use std::{mem, ptr};

shared_handle!(
    /// The objects that an answer names.
    Objects,
    sys::pg_answer,
    sys::pg_answer_close
);
shared_handle!(
    /// Turns codes of `<seg>` into masks.
    MaskDecoder,
    sys::pg_mask_decoder,
    sys::pg_mask_decoder_close
);

/// An object of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Object<'a> {
    /// What it is.
    pub label: &'a str,
    /// x0, y0, x1, y1 in pixels of the image; `None`: it has no box that can be used.
    pub bounds: Option<[f32; 4]>,
    /// 0 to 1, where the answers have "log_probs".
    pub score: Option<f32>,
    /// `sys::PG_OBJECT_*`.
    pub flags: u32,
}

impl Objects {
    /// Those in a row of the answers about an image of this size, in pixels. convention: `sys::PG_BOX_1024` or `_1023`.
    pub fn of_row(
        processor: &Processor,
        answers: &Answers,
        row: usize,
        (width, height): (i32, i32),
        convention: i32,
    ) -> Result<Objects> {
        let call = Call::begin();
        let mut options = unsafe { mem::zeroed::<sys::pg_answer_options>() };
        let mut raw = ptr::null_mut();
        unsafe { sys::pg_answer_options_init(&mut options, mem::size_of_val(&options)) };
        options.width = width;
        options.height = height;
        options.convention = convention;
        let row = i64::try_from(row).unwrap_or(-1);
        let status = unsafe { sys::pg_answer_create(processor.raw, answers.raw, row, &options, &mut raw) };
        let made = Objects::of(raw, joined(&processor.kept, &answers.kept));
        call.finish(status).map(|_| made)
    }
    /// How many there are, broken ones included.
    pub fn len(&self) -> usize {
        unsafe { sys::pg_answer_get_n_objects(self.raw) as usize }
    }
    /// True: the answer names none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Object `index`, 0 for the first.
    pub fn get(&self, index: usize) -> Result<Object<'_>> {
        let call = Call::begin();
        let mut object = unsafe { mem::zeroed::<sys::pg_object>() };
        object.struct_size = mem::size_of_val(&object) as u32;
        let index = i64::try_from(index).unwrap_or(-1);
        let status = unsafe { sys::pg_answer_get_object(self.raw, index, &mut object) };
        call.finish(status).map(|_| Object {
            label: text_of(object.label),
            bounds: if object.bounds_usable() {
                Some(object.r#box)
            } else {
                None
            },
            score: if object.score.is_nan() {
                None
            } else {
                Some(object.score)
            },
            flags: object.flags,
        })
    }
    /// The mask of an object, u8 [height, width] of the image: 128 and more is inside. `mask` has width x height bytes.
    pub fn mask(&self, index: usize, decoder: &MaskDecoder, mask: &mut [u8]) -> Result<()> {
        let call = Call::begin();
        let index = i64::try_from(index).unwrap_or(-1);
        let status = unsafe { sys::pg_answer_get_mask(self.raw, index, decoder.raw, mask.as_mut_ptr(), mask.len()) };
        call.finish(status).map(|_| ())
    }
}

/// Whether the four numbers are a box.
trait Usable {
    fn bounds_usable(&self) -> bool;
}
impl Usable for sys::pg_object {
    fn bounds_usable(&self) -> bool {
        self.flags & sys::PG_OBJECT_BROKEN == 0 && !self.r#box[0].is_nan()
    }
}

impl MaskDecoder {
    /// Opens vae-oid.npz, a copy of it, or the folder that has it.
    pub fn open(path: impl AsRef<Path>) -> Result<MaskDecoder> {
        let path = c_string(path.as_ref(), "the path of a mask decoder")?;
        let call = Call::begin();
        let mut raw = ptr::null_mut();
        let status = unsafe { sys::pg_mask_decoder_open(path.as_ptr(), ptr::null(), &mut raw) };
        let made = MaskDecoder::of(raw, Vec::new());
        call.finish(status).map(|_| made)
    }
}
