# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""The tokenizer part of a processor."""
from __future__ import annotations

import ctypes
from typing import Any, Sequence

import numpy as np

from . import _library as c
from ._handle import Handle
from .outputs import is_torch_tensor, to_numpy

_SIDE_NAMES = {value: name for name, value in c.SIDES.items()}


def _plain(ids: Any) -> Any:
    """Ids of any kind as an int, a list of ints, or a list of lists."""
    if is_torch_tensor(ids) or isinstance(ids, np.ndarray):
        return to_numpy(ids).tolist()
    if isinstance(ids, np.integer):
        return int(ids)
    if isinstance(ids, (list, tuple)):
        return [_plain(i) for i in ids]
    return ids


class PaliGemmaTokenizer:
    """Text to ids and back, as transformers' GemmaTokenizer does with the same files; no bos or newline is added."""

    def __init__(self, handle: Handle, info: c.ProcessorInfo, folder: str) -> None:
        self._handle = handle
        self.name_or_path = folder
        self.pad_token_id = self._id(info.pad_id)
        self.eos_token_id = self._id(info.eos_id)
        self.bos_token_id = self._id(info.bos_id)
        self.unk_token_id = self._id(info.unk_id)
        self.image_token_id = self._id(info.image_id)
        self._n_ids = info.vocab_size
        self.padding_side = _SIDE_NAMES[info.padding_side]  # both may be changed; the processor follows
        self.truncation_side = _SIDE_NAMES[info.truncation_side]
        self.max_length: int | None = info.max_length or None

    @staticmethod
    def _id(value: int) -> int | None:
        return value if value >= 0 else None

    # -- text to ids

    def encode(self, text: str, *, literal: bool = False, **unused: Any) -> list[int]:
        """The ids of a text alone. literal: "<eos>" and the like are plain characters, not special tokens."""
        data = text.encode("utf-8")
        if b"\0" in data:
            raise ValueError(f"the text has a NUL character at byte {data.index(0)}; processor() takes it, encode() "
                             "does not")
        flags = c.ENCODE_LITERAL if literal else 0
        capacity = len(data) + 16
        while True:
            ids, n_ids = (ctypes.c_int64 * capacity)(), ctypes.c_size_t()
            with self._handle.use() as pointer:
                c.check(c.lib.pg_processor_tokenize(pointer, data, flags, ids, capacity, ctypes.byref(n_ids)))
            if n_ids.value <= capacity:
                return ids[:n_ids.value]
            capacity = n_ids.value

    def __call__(self, text: str | Sequence[str], **options: Any) -> dict[str, Any]:
        """dict(input_ids, attention_mask) as lists; of one text, or of several without padding."""
        for name, value in options.items():
            if value not in (None, False) and name not in ("add_special_tokens", "literal"):
                raise ValueError(f"the tokenizer alone does not follow {name}={value!r}; the processor does")
        literal = bool(options.get("literal"))
        if isinstance(text, str):
            ids = self.encode(text, literal=literal)
            return {"input_ids": ids, "attention_mask": [1] * len(ids)}
        rows = [self.encode(row, literal=literal) for row in text]
        return {"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]}

    def tokenize(self, text: str, **options: Any) -> list[str]:
        """The pieces of a text."""
        return self.convert_ids_to_tokens(self.encode(text, **options))

    # -- ids to text

    def decode(self, token_ids: Any, skip_special_tokens: bool = False,
               clean_up_tokenization_spaces: bool | None = None, **unused: Any) -> Any:
        """The text of ids [T] -> str, or of rows of ids [B, T] -> list of str. Ids outside the vocabulary are skipped.

        token_ids: int, list, numpy array or torch tensor. clean_up_tokenization_spaces is ignored, as transformers
        ignores it for this kind of tokenizer.
        """
        ids = _plain(token_ids)
        if isinstance(ids, list) and ids and isinstance(ids[0], list):
            return [self.decode(row, skip_special_tokens, clean_up_tokenization_spaces) for row in ids]
        ids = [ids] if isinstance(ids, int) else ids
        if not isinstance(ids, list) or not all(isinstance(i, int) for i in ids):
            raise TypeError(f"token_ids is a {type(token_ids).__name__}, expected ids or rows of ids")
        known = [i for i in ids if 0 <= i < self._n_ids]
        if any(i < 0 for i in ids):
            raise ValueError(f"token_ids has {min(ids)}, expected ids of 0 or more (labels: replace -100 first)")
        memory = (ctypes.c_int64 * max(len(known), 1))(*known)
        with self._handle.use() as pointer:
            return c.copied_text(c.lib.pg_processor_decode, pointer, memory, len(known),
                                 c.DECODE_SKIP_SPECIAL if skip_special_tokens else 0)

    def batch_decode(self, sequences: Any, skip_special_tokens: bool = False,
                     clean_up_tokenization_spaces: bool | None = None, **unused: Any) -> list[str]:
        """The texts of rows of ids [B, T]; of one row [T], a list of its text."""
        rows = _plain(sequences)
        if isinstance(rows, int) or (rows and isinstance(rows[0], int)):
            rows = [rows]
        return [self.decode(row, skip_special_tokens, clean_up_tokenization_spaces) for row in rows]

    # -- pieces

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """The piece of an id, or the pieces of a list of ids."""
        ids = _plain(ids)
        if isinstance(ids, list):
            special = set(self.all_special_ids) if skip_special_tokens else set()
            return [self.convert_ids_to_tokens(i) for i in ids if i not in special]
        if not 0 <= ids < self._n_ids:
            raise ValueError(f"id is {ids}, expected 0 to {self._n_ids - 1}")
        piece = ctypes.c_char_p()
        with self._handle.use() as pointer:
            c.check(c.lib.pg_processor_get_piece(pointer, ids, ctypes.byref(piece)))
            return (piece.value or b"").decode("utf-8", "replace")

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        """The id of a piece such as "<loc0000>", or the ids of a list; unknown pieces have unk_token_id."""
        if not isinstance(tokens, str):
            return [self.convert_tokens_to_ids(token) for token in tokens]
        found = ctypes.c_int64()
        with self._handle.use() as pointer:
            status = c.lib.pg_processor_get_token_id(pointer, tokens.encode("utf-8"), ctypes.byref(found))
            if status == c.ERROR_NOT_FOUND:
                return self.unk_token_id
            c.check(status)
        return found.value

    def get_vocab(self) -> dict[str, int]:
        """Every piece and its id."""
        return {self.convert_ids_to_tokens(i): i for i in range(self._n_ids)}

    def __len__(self) -> int:
        return self._n_ids

    @property
    def vocab_size(self) -> int:
        """Ids of the tokenizer, added tokens included."""
        return self._n_ids

    @property
    def all_special_ids(self) -> list[int]:
        """bos, eos, unk, pad and <image>, as far as they are there."""
        ids = [self.bos_token_id, self.eos_token_id, self.unk_token_id, self.pad_token_id, self.image_token_id]
        return [i for i in ids if i is not None]

    @property
    def all_special_tokens(self) -> list[str]:
        return self.convert_ids_to_tokens(self.all_special_ids)

    def _piece(self, token_id: int | None) -> str | None:
        return None if token_id is None else self.convert_ids_to_tokens(token_id)

    bos_token = property(lambda self: self._piece(self.bos_token_id), doc="The piece of bos_token_id, or None.")
    eos_token = property(lambda self: self._piece(self.eos_token_id), doc="The piece of eos_token_id, or None.")
    unk_token = property(lambda self: self._piece(self.unk_token_id), doc="The piece of unk_token_id, or None.")
    pad_token = property(lambda self: self._piece(self.pad_token_id), doc="The piece of pad_token_id, or None.")
    image_token = property(lambda self: self._piece(self.image_token_id), doc="The piece of image_token_id, or None.")
