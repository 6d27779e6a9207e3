// Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
//! What a model gave: texts and ids, scores, tensors of a pass.
use crate::call::Call;
use crate::error::{c_string, Result};
use crate::handles::shared_handle;
use crate::model::Model;
use crate::processor::{text_of, Inputs, Processor};
use crate::tensor::Tensor;
use paligemma_sys as sys;
use std::os::raw::c_char;
use std::{mem, ptr};

shared_handle!(
    /// What `Model::generate` made of each row.
    Answers,
    sys::pg_result,
    sys::pg_result_close
);
shared_handle!(
    /// Tensors of a pass: "logits", "loss", "last_hidden_state", ...
    Outputs,
    sys::pg_outputs,
    sys::pg_outputs_close
);

/// What happened to a row: `stop` is one of `sys::PG_STOP_*`.
#[derive(Clone, Copy, Debug)]
pub struct RowInfo {
    /// Why the row ended.
    pub stop: i32,
    /// Tokens fed, image tokens included.
    pub n_prompt_tokens: i64,
    /// Tokens generated, eos included.
    pub n_new_tokens: i64,
    /// Encoder and projector, all rows.
    pub vision_seconds: f64,
    /// Prompts, all rows.
    pub prefill_seconds: f64,
    /// From the first token to the last, all rows.
    pub decode_seconds: f64,
}

/// How likely an answer is.
#[derive(Clone, Copy, Debug)]
pub struct Score {
    /// Tokens of the answer, eos included.
    pub n_tokens: i64,
    /// Natural logarithm of the answer's probability.
    pub log_prob: f64,
    /// Among the given answers; all together 1.
    pub probability: f64,
}

impl Answers {
    /// Rows of the result.
    pub fn n_rows(&self) -> usize {
        unsafe { sys::pg_result_get_n_rows(self.raw) as usize }
    }
    /// The text of a row, 0 for the first, without special tokens, up to its first byte 0; "" for a row that is not there.
    pub fn text(&self, row: usize) -> &str {
        text_of(unsafe { sys::pg_result_get_text(self.raw, i64::try_from(row).unwrap_or(-1)) })
    }
    /// The ids of a row, the final eos included.
    pub fn ids(&self, row: usize) -> Result<Tensor<'_>> {
        Tensor::get(|out| unsafe { sys::pg_result_get_ids(self.raw, i64::try_from(row).unwrap_or(-1), out) })
    }
    /// A tensor of a row that the options asked for, such as "log_probs".
    pub fn tensor(&self, row: usize, name: &str) -> Result<Tensor<'_>> {
        let (row, name) = (
            i64::try_from(row).unwrap_or(-1),
            c_string(name, "the name of a tensor")?,
        );
        Tensor::get(|out| unsafe { sys::pg_result_get_tensor(self.raw, row, name.as_ptr(), out) })
    }
    /// What happened to a row.
    pub fn info(&self, row: usize) -> Result<RowInfo> {
        let call = Call::begin();
        let mut info = unsafe { mem::zeroed::<sys::pg_result_info>() };
        info.struct_size = mem::size_of_val(&info) as u32;
        let row = i64::try_from(row).unwrap_or(-1);
        let status = unsafe { sys::pg_result_get_info(self.raw, row, &mut info) };
        call.finish(status).map(|_| RowInfo {
            stop: info.stop,
            n_prompt_tokens: info.n_prompt_tokens,
            n_new_tokens: info.n_new_tokens,
            vision_seconds: info.vision_seconds,
            prefill_seconds: info.prefill_seconds,
            decode_seconds: info.decode_seconds,
        })
    }
}

impl Outputs {
    /// A tensor by its HF name.
    pub fn tensor(&self, name: &str) -> Result<Tensor<'_>> {
        let name = c_string(name, "the name of a tensor")?;
        Tensor::get(|out| unsafe { sys::pg_outputs_get_tensor(self.raw, name.as_ptr(), out) })
    }
}

shared_handle!(
    /// The scores, until they are read.
    Scores,
    sys::pg_scores,
    sys::pg_scores_close
);

impl Score {
    pub(crate) fn of(model: &Model, processor: &Processor, inputs: &Inputs, answers: &[&str]) -> Result<Vec<Score>> {
        let texts = answers
            .iter()
            .map(|text| c_string(text, "an answer"))
            .collect::<Result<Vec<_>>>()?;
        let pointers: Vec<*const c_char> = texts.iter().map(|text| text.as_ptr()).collect();
        let call = Call::begin();
        let mut raw = ptr::null_mut();
        let n = pointers.len() as i64;
        let status = unsafe {
            sys::pg_score(
                model.raw,
                processor.raw,
                inputs.raw,
                pointers.as_ptr(),
                n,
                ptr::null(),
                &mut raw,
            )
        };
        let scores = Scores::of(raw, Vec::new());
        call.finish(status)?;
        (0..n).map(|index| scores.get(index)).collect()
    }
}

impl Scores {
    fn get(&self, index: i64) -> Result<Score> {
        let call = Call::begin();
        let mut info = unsafe { mem::zeroed::<sys::pg_score_info>() };
        info.struct_size = mem::size_of_val(&info) as u32;
        let status = unsafe { sys::pg_scores_get_info(self.raw, index, &mut info) };
        call.finish(status).map(|_| Score {
            n_tokens: info.n_tokens,
            log_prob: info.log_prob,
            probability: info.probability,
        })
    }
}
