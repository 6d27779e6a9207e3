// Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
//! Views of arrays that handles own.
use crate::call::Call;
use crate::error::Result;
use paligemma_sys as sys;
use std::marker::PhantomData;
use std::{mem, slice};

/// A view of an array, row-major and dense, of the handle that it was asked of.
pub struct Tensor<'a> {
    raw: sys::pg_tensor,
    owner: PhantomData<&'a ()>,
}

impl<'a> Tensor<'a> {
    /// What a getter fills in.
    pub(crate) fn get(getter: impl FnOnce(*mut sys::pg_tensor) -> sys::pg_status) -> Result<Tensor<'a>> {
        let call = Call::begin();
        let mut raw = unsafe { mem::zeroed::<sys::pg_tensor>() };
        let mut status = unsafe { sys::pg_tensor_init(&mut raw, mem::size_of_val(&raw)) };
        if status >= 0 {
            status = getter(&mut raw);
        }
        call.finish(status).map(|_| Tensor {
            raw,
            owner: PhantomData,
        })
    }
    /// Its sizes, 1 to 4 of them.
    pub fn shape(&self) -> &[i64] {
        &self.raw.shape[..self.raw.n_dims as usize]
    }
    /// Its numbers, if they are f32.
    pub fn as_f32(&self) -> Option<&'a [f32]> {
        self.numbers(sys::PG_DTYPE_F32)
    }
    /// Its numbers, if they are i64.
    pub fn as_i64(&self) -> Option<&'a [i64]> {
        self.numbers(sys::PG_DTYPE_I64)
    }
    /// T is what the dtype means.
    fn numbers<T>(&self, dtype: i32) -> Option<&'a [T]> {
        if self.raw.dtype != dtype {
            return None;
        }
        let n = self.shape().iter().product::<i64>() as usize;
        if n == 0 {
            return Some(&[]);
        }
        // The handle keeps the numbers as long as 'a, and never changes them.
        Some(unsafe { slice::from_raw_parts(self.raw.data as *const T, n) })
    }
}
