# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""From a pg_status to a Python exception, with the words of pg_last_error()."""
from __future__ import annotations

import re
from typing import Any


class Cancelled(RuntimeError):
    """A cancel request stopped the call (PG_ERROR_CANCELLED)."""


class Busy(RuntimeError):
    """The queue of a Worker is full (PG_ERROR_BUSY)."""


# pg_status_name() -> exception class; RuntimeError for the others: calls in the wrong order, a defect of the library
_CLASSES = {
    "PG_ERROR_ARGUMENT": ValueError,
    "PG_ERROR_MEMORY": MemoryError,
    "PG_ERROR_IO": OSError,
    "PG_ERROR_NOT_FOUND": FileNotFoundError,
    "PG_ERROR_FORMAT": OSError,
    "PG_ERROR_UNSUPPORTED": NotImplementedError,
    "PG_ERROR_LIMIT": ValueError,
    "PG_ERROR_BUSY": Busy,
    "PG_ERROR_CANCELLED": Cancelled,
    "PG_ERROR_DEADLINE": TimeoutError,
    "PG_ERROR_REPLACED": Cancelled,
}


# What messages of the library call its options and calls, and what this package does
NAMES = {
    "PG_ANSWER_POINTS": "points=True",
    "PG_ARITHMETIC_*": '"f32" or "bf16"',
    "PG_BOX_1023": "1023",
    "PG_BOX_1024": "1024",
    "PG_DECODE_SKIP_SPECIAL": "skip_special_tokens=True",
    "PG_DTYPE_F32": "float32",
    "PG_ENCODE_EXIF": "exif=True",
    "PG_ENCODE_KEEP_ENDS": "keep_ends=True",
    "PG_ENCODE_LITERAL": "literal=True",
    "PG_ENCODE_OPEN_SUFFIX": "suffix_open=True",
    "PG_ENCODE_OVER_WHITE": 'alpha="white"',
    "PG_ENCODE_TRUNCATE": "truncation=True",
    "PG_FORWARD_*": "what a pass keeps",
    "PG_FORWARD_ATTENTIONS": "output_attentions=True",
    "PG_FORWARD_ATTENTION_HEAD_MEAN": "the mean over heads",
    "PG_FORWARD_ATTENTION_TO_IMAGE": "attention to the image",
    "PG_GENERATE_*": "settings of generate()",
    "PG_GENERATE_DETECT": "constrain=True",
    "PG_GENERATE_IGNORE_CONFIG": "GenerationConfig()",
    "PG_GENERATE_LOGITS": "output_logits=True",
    "PG_GENERATE_LOG_PROBS": "log-probabilities",
    "PG_GENERATE_SCORES": "output_scores=True",
    "PG_GENERATE_SEGMENT": "constrain=True",
    "PG_FIT_*": '"stretch", "letterbox" or "pad_top_left"',
    "PG_FIT_STRETCH": 'fit="stretch"',
    "PG_IMAGE_*": "the kinds of an image",
    "PG_IMAGE_GRAY8": "grey pixels",
    "PG_IMAGE_OVER_BACKGROUND": "over_background=True",
    "PG_IMAGE_RGB8": "RGB pixels",
    "PG_IMAGE_UYVY": "UYVY pixels",
    "PG_KV_*": '"f32" or "bf16"',
    "PG_MODEL_IN_MEMORY": "disable_mmap=True",
    "PG_MODEL_VERIFY": "verifying",
    "PG_MODE_*": '"hf" or "big_vision"',
    "PG_PADDING_*": 'True, False or "max_length"',
    "PG_PROCESSOR_IMAGES_ONLY": "AutoImageProcessor",
    "PG_PROCESSOR_SENTENCEPIECE": "merging by sentencepiece",
    "PG_PROCESSOR_TEXT_ONLY": "AutoTokenizer",
    "PG_RESAMPLE_*": "resample",
    "PG_SAMPLING_*": "settings of generate()",
    "PG_SAMPLING_RANDOM": "do_sample=True",
    "PG_SCHEDULE_*": "lr_scheduler_type",
    "PG_SCORE_*": "settings of score()",
    "PG_SCORE_LITERAL": "literal=True",
    "PG_SCORE_NO_EOS": "eos=False",
    "PG_SIDE_*": '"left" or "right"',
    "PG_SIDE_LEFT": '"left"',
    "PG_TRAIN_*": "settings of Trainer",
    "PG_TRAIN_RSLORA": "use_rslora",
    "PG_TRUNCATION_*": 'True, "only_first" or "only_second"',
    "PG_TRUNCATION_SUFFIX": 'truncation="only_second"',
    "PG_WEIGHTS_*": '"stored", "int8" or "int4"',
    "PG_WEIGHTS_INT4": '"int4"',
    "PG_WEIGHTS_INT8": '"int8"',
    "PG_WEIGHTS_STORED": '"stored"',
    "PG_YUV_BT601": '"bt601"',
    "PG_YUV_BT709": '"bt709"',
    "PG_YUV_FULL": '"full"',
    "PG_YUV_VIDEO": '"video"',
    "attention_layer": "layer",
    "attention_queries": "n_queries",
    "bad_word_ids": "bad_words_ids",
    "begin_suppressed_ids": "begin_suppress_tokens",
    "bias_ids": "sequence_bias",
    "cpu_mask": "cpu",
    "decay_factor": "exponential_decay_length_penalty[1]",
    "forced_bos_id": "forced_bos_token_id",
    "forced_eos_ids": "forced_eos_token_id",
    "max_seconds": "max_time",
    "n_beams": "num_beams",
    "n_return": "num_return_sequences",
    "n_row_models": "adapter_names",
    "on_logits": "logits_processor",
    "on_mask": "prefix_allowed_tokens_fn",
    "pg_generate()": "generate()",
    "pg_adapter_open()": "model.load_adapter()",
    "pg_image_from_planes()": "a list of planes",
    "pg_inputs_create()": "your own",
    "pg_model_adapt()": "load_adapter()",
    "pg_model_convert()": "paligemma.convert()",
    "pg_processor_encode_batch()": "processor(..., suffix=)",
    "pg_session_prefill()": "a prompt",
    "pg_trainer_save()": "Trainer.save_pretrained()",
    "pg_worker_cancel()": "Worker.cancel()",
    "pg_worker_poll()": "Worker.poll()",
    "pg_worker_submit()": "Worker.submit()",
    "PG_REQUEST_*": "the settings of submit()",
    "PG_WORKER_LEAVE_CPU_FREE": "leave_cpu_free=True",
    "threads_of": "another session's threads",
    "row_models": "adapter_names",
    "suppressed_ids": "suppress_tokens",
}
_WORDS = "|".join(map(re.escape, sorted(NAMES, key=len, reverse=True)))
_NAME = re.compile(rf"(?<!\w)(?:(?:{_WORDS})(?!\w)|pg_[a-z_]+\.(?=\w))")  # "pg_model_options.weights": the field alone


def in_python(text: str) -> str:
    """A message of the library with this package's keywords in place of the names of C."""
    return _NAME.sub(lambda found: NAMES.get(found.group(), ""), text)


def exception(status: int, name: str, text: str, row: int | None) -> Exception:
    """The exception for a negative pg_status, with the attributes status (the number), status_name and row: the row of
    the batch that it is about, None for none."""
    error: Any = _CLASSES.get(name, RuntimeError)(in_python(text))
    error.status, error.status_name, error.row = status, name, row
    return error
