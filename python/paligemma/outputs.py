# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""What calls return: containers in the shape of transformers' BatchFeature and ModelOutput, and reports."""
from __future__ import annotations

import sys
from collections import OrderedDict, UserDict
from dataclasses import dataclass
from typing import Any

import numpy as np


def torch_if_loaded() -> Any:
    """The torch module when the program has imported it, else None."""
    return sys.modules.get("torch")


def is_torch_tensor(value: Any) -> bool:
    torch = torch_if_loaded()
    return torch is not None and isinstance(value, torch.Tensor)


def to_numpy(value: Any, dtype: Any = None) -> np.ndarray:
    """A torch tensor (any dtype and device), array or nested list as an array."""
    if is_torch_tensor(value):
        value = value.detach().cpu()
        if value.is_floating_point():
            value = value.float()  # numpy has no bfloat16
        value = value.numpy()
    return np.asarray(value, dtype)


def to_ids(name: str, value: Any) -> np.ndarray:
    """i64, of integers alone: a fraction is no id."""
    found = to_numpy(value)
    if found.size and found.dtype.kind not in "iu":
        raise ValueError(f"{name} holds {found.dtype}, expected integers")
    return np.ascontiguousarray(found, np.int64)


def like_inputs(array: np.ndarray, as_torch: bool) -> Any:
    """The array itself, or a torch tensor on its memory."""
    if not as_torch:
        return array
    import torch

    return torch.from_numpy(array)


def tensor_type(return_tensors: Any) -> str | None:
    """None, "np" or "pt" of the argument of that name; others, and "pt" without torch, raise."""
    name = getattr(return_tensors, "value", return_tensors)  # transformers' TensorType is an enum
    if name not in (None, "np", "pt"):
        raise ValueError(f"return_tensors is {name!r}, expected None, \"np\" or \"pt\"")
    if name == "pt":
        try:
            import torch  # noqa: F401
        except ImportError:
            raise ImportError("return_tensors=\"pt\" needs torch, which is not installed") from None
    return name


def stacked(pixels: Any, kind: str | None) -> Any:
    """pixel_values as tensor_type() says, of an array [n, 3, height, width] or a list of arrays of any size."""
    if kind is None:
        return list(pixels)
    if isinstance(pixels, list):
        shapes = {image.shape for image in pixels}
        if len(shapes) > 1:
            raise ValueError("Unable to convert output 'pixel_values' (type: list) to tensor: images of "
                             f"{' and '.join(map(str, sorted(shapes)))} cannot be stacked; do_resize=True makes them "
                             "one size, return_tensors=None gives a list")
        pixels = np.stack(pixels)
    return like_inputs(pixels, kind == "pt")


class BatchFeature(UserDict):
    """What a processor returns: a dictionary whose values are attributes too, to be handed on as `model(**inputs)`.

    rows: list of RowReport, what happened to each row (see RowReport.events); not one of the keys.
    """

    def __init__(self, data: dict[str, Any] | None = None, rows: list[RowReport] | None = None) -> None:
        super().__init__(data)
        self.rows = rows or []

    def __getattr__(self, name: str) -> Any:
        if name == "data":  # before __init__, as copy and pickle look
            raise AttributeError(name)
        try:
            return self.data[name]
        except KeyError:
            raise AttributeError(f"the inputs have no {name!r}, they have {', '.join(self.data)}") from None

    def to(self, *args: Any, **kwargs: Any) -> BatchFeature:
        """As torch's Tensor.to() for each value; only floating-point tensors are cast. Changes and returns itself."""
        import torch

        device = kwargs.get("device")
        if device is None and args and not isinstance(args[0], torch.dtype):
            if not isinstance(args[0], (str, int, torch.device)):
                raise ValueError(f"Attempting to cast a BatchFeature to type {args[0]}. This is not supported.")
            device = args[0]
        for name, value in self.data.items():
            if not isinstance(value, torch.Tensor):
                continue
            if value.is_floating_point():
                self.data[name] = value.to(*args, **kwargs)
            elif device is not None:
                self.data[name] = value.to(device)
        return self


@dataclass(frozen=True)
class RowReport:
    """What the processor made of one row.

    events: of "truncated" (truncated), "truncated_eos" (the suffix lost its eos: a model trained on it does not learn to end),
    "truncated_newline" (the newline between prompt and suffix is gone), "truncated_image" (image tokens are missing),
    "bos_misplaced" (another row's text has <image> and this one's has not: bos stands inside the prompt, as with
    transformers), "newline_merged" (the prompt ends in a newline, which became one token with the layout's own).
    """

    events: tuple[str, ...]
    first_token: int  # padding on the left
    n_tokens: int  # without padding
    n_suffix: int  # of these, the suffix with its eos
    n_truncated: int  # tokens that truncation took away
    first_image: int  # index of the row's first image in pixel_values
    n_images: int


class ModelOutput(OrderedDict):
    """What a model returns: by attribute, by key, or by the index of what is there; None for what is not."""

    _fields: tuple[str, ...] = ()

    def __init__(self, **values: Any) -> None:
        super().__init__((name, value) for name, value in values.items() if value is not None)
        self._fields = tuple(values)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._fields:
            raise AttributeError(f"{type(self).__name__} has no {name!r}, it has {', '.join(self._fields)}")
        return self.get(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._fields:
            super().__setattr__(name, value)
        elif value is None:
            self.pop(name, None)
        else:
            self[name] = value

    def __getitem__(self, key: str | int | slice) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def to_tuple(self) -> tuple[Any, ...]:
        """What is there, in order."""
        return tuple(self.values())


class PaliGemmaCausalLMOutput(ModelOutput):
    """loss, logits, hidden_states, image_hidden_states, last_hidden_state; see PaliGemmaForConditionalGeneration."""

    @property
    def image_outputs(self) -> ModelOutput | None:
        """image_hidden_states by the name of transformers 5.24: image_outputs.pooler_output."""
        images = self.get("image_hidden_states")
        return None if images is None else ModelOutput(pooler_output=images)

    @property
    def cache(self) -> None:
        """past_key_values by the name of transformers 5.24: not offered."""
        return None


class GenerateBeamDecoderOnlyOutput(ModelOutput):
    """Of beam search: sequences i64 [B * num_return_sequences, T + new], sequences_scores f32 of each, beam_indices i32
    [B * num_return_sequences, new], -1 behind a row's end; scores and logits: for each step f32 [B * num_beams,
    vocab_size], NaN for rows whose search had ended; the rest is None."""


class GenerateDecoderOnlyOutput(ModelOutput):
    """sequences i64 [B, T + new]; scores and logits: for each step f32 [B, vocab_size]; the rest is None."""
