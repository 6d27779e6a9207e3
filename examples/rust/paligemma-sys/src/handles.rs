// Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
//! Handles of paligemma.h: what they point to is the library's own.

#[repr(C)]
pub struct pg_adapter {
    _private: [u8; 0],
}

#[repr(C)]
pub struct pg_answer {
    _private: [u8; 0],
}

#[repr(C)]
pub struct pg_calibration {
    _private: [u8; 0],
}

#[repr(C)]
pub struct pg_cancel {
    _private: [u8; 0],
}

#[repr(C)]
pub struct pg_detokenizer {
    _private: [u8; 0],
}

#[repr(C)]
pub struct pg_features {
    _private: [u8; 0],
}

#[repr(C)]
pub struct pg_inputs {
    _private: [u8; 0],
}

#[repr(C)]
pub struct pg_mask_decoder {
    _private: [u8; 0],
}

#[repr(C)]
pub struct pg_model {
    _private: [u8; 0],
}

#[repr(C)]
pub struct pg_outputs {
    _private: [u8; 0],
}

#[repr(C)]
pub struct pg_processor {
    _private: [u8; 0],
}

#[repr(C)]
pub struct pg_result {
    _private: [u8; 0],
}

#[repr(C)]
pub struct pg_scores {
    _private: [u8; 0],
}

#[repr(C)]
pub struct pg_session {
    _private: [u8; 0],
}

#[repr(C)]
pub struct pg_trainer {
    _private: [u8; 0],
}

#[repr(C)]
pub struct pg_worker {
    _private: [u8; 0],
}
