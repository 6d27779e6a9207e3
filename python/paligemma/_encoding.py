# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Rows of ids as transformers and its `tokenizers` make them: template, truncation, padding, BatchEncoding."""
from __future__ import annotations

import re
import warnings
from collections import UserDict
from typing import Any, Callable, NamedTuple, Sequence

import numpy as np

from .outputs import is_torch_tensor

LARGE = 10 ** 20  # a model_max_length above it means none (transformers' LARGE_INTEGER)
SPACE = "\u2581"  # what the normalizer makes of a space
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


class TokenSpan(NamedTuple):
    """Tokens `start` to `end` - 1."""

    start: int
    end: int


class CharSpan(NamedTuple):
    """Characters `start` to `end` - 1."""

    start: int
    end: int


# -- the template: which special tokens stand around one text or two


class Template:
    """tokenizers' post-processors: what is put around and between texts, and which type each part has."""

    def __init__(self, single: list[tuple[Any, int]], pair: list[tuple[Any, int]]) -> None:
        """Parts of a row in order, each with its type: "A" or "B" for a text, or a list of ids."""
        self._parts = {False: single, True: pair}

    @classmethod
    def of_flags(cls, bos: int | None, eos: int | None) -> Template:
        """transformers' update_post_processor(): ids of what add_bos_token and add_eos_token ask for, or None."""
        def around(name: str, kind: int) -> list[tuple[Any, int]]:
            return [([i], kind) if i is not None else (name, kind) for i, there in
                    ((bos, bos is not None), (None, True), (eos, eos is not None)) if there]
        return cls(around("A", 0), around("A", 0) + around("B", 1))

    @classmethod
    def of_json(cls, value: Any) -> Template | None:
        """post_processor of a tokenizer.json; None for none."""
        if value is None:
            return None
        kind = value.get("type")
        if kind == "TemplateProcessing":
            return cls(*(cls._template_parts(value[name], value["special_tokens"]) for name in ("single", "pair")))
        if kind == "Sequence":
            inner = [cls.of_json(part) for part in value["processors"] if part.get("type") != "ByteLevel"]
            if len(inner) == 1 and inner[0] is not None:
                return inner[0]
            if not inner:
                return None
        if kind in ("BertProcessing", "RobertaProcessing"):
            first, last = [value["cls"][1]], [value["sep"][1]]
            if kind == "BertProcessing":
                return cls([(first, 0), ("A", 0), (last, 0)],
                           [(first, 0), ("A", 0), (last, 0), ("B", 1), (last, 1)])
            return cls([(first, 0), ("A", 0), (last, 0)],
                       [(first, 0), ("A", 0), (last, 0), (last, 0), ("B", 0), (last, 0)])
        raise NotImplementedError(f"tokenizer.json: post_processor is {kind!r}, expected TemplateProcessing, "
                                  "BertProcessing, RobertaProcessing or none; pass add_bos_token= and add_eos_token= "
                                  "to from_pretrained() to do without it")

    @staticmethod
    def _template_parts(parts: list[Any], special: dict[str, Any]) -> list[tuple[Any, int]]:
        return [(part["Sequence"]["id"], part["Sequence"]["type_id"]) if "Sequence" in part else
                (special[part["SpecialToken"]["id"]]["ids"], part["SpecialToken"]["type_id"]) for part in parts]

    def n_added(self, pair: bool) -> int:
        return sum(len(part) for part, _ in self._parts[pair] if not isinstance(part, str))

    def parts(self, pair: bool) -> list[tuple[Any, int]]:
        return self._parts[pair]

    def as_json(self, token_of: Callable[[int], str]) -> dict[str, Any]:
        """A TemplateProcessing for tokenizer.json."""
        special: dict[str, Any] = {}

        def part(value: Any, kind: int) -> dict[str, Any]:
            if isinstance(value, str):
                return {"Sequence": {"id": value, "type_id": kind}}
            name = " ".join(token_of(i) for i in value)
            special[name] = {"id": name, "ids": list(value), "tokens": [token_of(i) for i in value]}
            return {"SpecialToken": {"id": name, "type_id": kind}}
        return {"type": "TemplateProcessing", "single": [part(*p) for p in self._parts[False]],
                "pair": [part(*p) for p in self._parts[True]], "special_tokens": special}


# -- how long rows become


class Lengths(NamedTuple):
    """padding: None, "longest" or "max_length"; truncation: None, "longest_first", "only_first" or "only_second"."""

    padding: str | None
    truncation: str | None
    max_length: int | None
    multiple: int | None


_PADDINGS = ("longest", "max_length", "do_not_pad")
_TRUNCATIONS = ("only_first", "only_second", "longest_first", "do_not_truncate")


def _choice(value: Any, names: Sequence[str], kind: str) -> str:
    value = getattr(value, "value", value)
    if value not in names:
        raise ValueError(f"{value} is not a valid {kind}, please select one of {list(names)}")
    return value


def resolve(padding: Any, truncation: Any, max_length: int | None, multiple: int | None, model_max_length: int,
            has_pad: bool, verbose: bool = True) -> Lengths:
    """transformers' _get_padding_truncation_strategies()."""
    if max_length is not None and padding is False and truncation is None:
        truncation = "longest_first"
    cuts = None if truncation in (None, False) else (
        "longest_first" if truncation is True else _choice(truncation, _TRUNCATIONS, "TruncationStrategy"))
    cuts = None if cuts == "do_not_truncate" else cuts
    if padding is True and verbose and max_length is not None and cuts is None:
        warnings.warn("`max_length` is ignored when `padding`=`True` and there is no truncation strategy. To pad to max "
                      "length, use `padding='max_length'`.", stacklevel=4)
    pads = None if padding is False else "longest" if padding is True else _choice(padding, _PADDINGS, "PaddingStrategy")
    pads = None if pads == "do_not_pad" else pads
    if max_length is None and (pads == "max_length" or cuts):
        if model_max_length > LARGE:
            pads, cuts = (None if pads == "max_length" else pads), None
        else:
            max_length = int(model_max_length)
    if pads and not has_pad:
        raise ValueError("Asking to pad but the tokenizer does not have a padding token. Please select a token to use as "
                         "`pad_token` `(tokenizer.pad_token = tokenizer.eos_token e.g.)`.")
    if cuts and pads and multiple is not None and max_length is not None and max_length % multiple:
        raise ValueError(f"Truncation and padding are both activated but truncation length ({max_length}) is not a "
                         f"multiple of pad_to_multiple_of ({multiple}).")
    for name, value, least in (("max_length", max_length, 0), ("pad_to_multiple_of", multiple, 1)):
        if value is not None and (not isinstance(value, (int, np.integer)) or value < least):
            raise ValueError(f"{name} is {value!r}, expected a whole number of {least} or more")
    return Lengths(pads, cuts, max_length, multiple)


def kept(first: int, second: int | None, most: int, how: str) -> tuple[int, int | None]:
    """How many tokens of one text, or of two, truncation leaves (tokenizers' truncate_encodings)."""
    total = first + (second or 0)
    if most == 0:
        return 0, None if second is None else 0
    if total <= most:
        return first, second
    if how == "longest_first":
        if second is None:
            return most, None
        few, many = min(first, second), max(first, second)
        many = few if few > most else max(few, most - few)
        if few + many > most:
            few = most // 2
            many = few + most % 2
        return (many, few) if first > second else (few, many)
    if how == "only_second" and second is None:
        raise ValueError("Truncation error: Second sequence not provided")
    target = (first if how == "only_first" else second or 0) - (total - most)
    if target <= 0:
        raise ValueError("Truncation error: Sequence to truncate too short to respect the provided max_length")
    return (target, second) if how == "only_first" else (first, target)


def padded_length(lengths: Sequence[int], how: Lengths) -> int:
    """tokenizers' pad_encodings."""
    most = how.max_length if how.padding == "max_length" else max(lengths)
    assert most is not None
    return -(-most // how.multiple) * how.multiple if how.multiple else most


# -- where a token stands in its text


class Source:
    """A text, or a list of words, and its ids. literal: special tokens in it are plain characters."""

    def __init__(self, texts: list[str], ids: list[list[int]], split: bool, literal: bool) -> None:
        self.texts, self.parts, self.split, self.literal = texts, ids, split, literal
        self.ids = ids[0] if len(ids) == 1 else [i for part in ids for i in part]

    def offsets(self, tokenizer: Any) -> list[tuple[int, int]]:
        """The characters [start, end) of each token within its text or word."""
        return [span for text, part in zip(self.texts, self.parts) for span in _offsets(text, part, tokenizer, self.literal)]

    def words(self, tokenizer: Any) -> list[int]:
        """The word of each token: that of the caller, else the stretch between added tokens."""
        if self.split:
            return [word for word, part in enumerate(self.parts) for _ in part]
        added, text, words, ends = tokenizer.added_tokens_decoder, self.texts[0], [], True
        spaced = text.replace(" ", SPACE)
        for i, (start, end) in zip(self.ids, self.offsets(tokenizer)):
            token = added.get(i)  # a piece of the same name may come from the model: "\u2581\u2581" of two spaces
            found = token is not None and (spaced if token.normalized else text)[start:end] == token.content
            words.append(words[-1] + (found or ends) if words else 0)
            ends = found
        return words


def _offsets(text: str, ids: list[int], tokenizer: Any, literal: bool) -> list[tuple[int, int]]:
    spaced, pieces = text.replace(" ", SPACE), tokenizer.convert_ids_to_tokens(ids)
    unknown = tokenizer.unk_token
    spans: list[tuple[int, int]] = []
    at, rest = 0, b""  # bytes of the character at `at` that are still to come
    for n, piece in enumerate(pieces):
        if rest or (_BYTE.fullmatch(piece) and not spaced.startswith(piece, at)):
            rest = rest or spaced[at:at + 1].encode("utf-8")
            if _BYTE.fullmatch(piece) and rest[:1] == bytes([int(piece[3:5], 16)]):
                spans.append((at, at + 1))
                rest = rest[1:]
                at += not rest
                continue
        elif spaced.startswith(piece.replace(" ", SPACE), at) and piece and not (literal and piece == unknown):
            spans.append((at, at + len(piece)))
            at += len(piece)
            continue
        elif piece == unknown and at < len(text):
            n_unknown = next((i for i, name in enumerate(pieces[n:]) if name != unknown), len(pieces) - n)
            known = tuple(pieces[n + n_unknown:n + n_unknown + 1]) + (() if literal else (unknown,))
            end = at + 1
            while end < len(text) and tokenizer._find(spaced[end]) is None and not spaced.startswith(known, end):
                end += 1
            written = not literal and spaced.startswith(unknown, end)  # "<unk>" itself
            if n_unknown >= end - at + written:  # a token for each unknown character, not one for all that stand together
                end = at + 1
            spans.append((at, end))
            at = end
            continue
        raise NotImplementedError(f"the characters of token {piece!r} cannot be told in {text!r}: "
                                  "return_offsets_mapping is not offered where added tokens take white space along")
    return spans


class Encoding:
    """One row: ids, type_ids, attention_mask, special_tokens_mask, and tokens, offsets, word_ids, sequence_ids."""

    def __init__(self, tokenizer: Any, sources: list[Source]) -> None:
        self.ids: list[int] = []
        self.type_ids: list[int] = []
        self.attention_mask: list[int] = []
        self.special_tokens_mask: list[int] = []
        self.n_sequences = len(sources)
        self.overflowing: list[Encoding] = []
        self._origin: list[tuple[int, int] | None] = []  # source and place in it; None for what was put there
        self._tokenizer, self._sources = tokenizer, sources
        self._pads: dict[int, str] = {}

    def add(self, ids: Sequence[int], kind: int, sequence: int | None = None, first: int = 0) -> None:
        self.ids += ids
        self.type_ids += [kind] * len(ids)
        self.attention_mask += [1] * len(ids)
        self.special_tokens_mask += [int(sequence is None)] * len(ids)
        self._origin += [None if sequence is None else (sequence, first + i) for i in range(len(ids))]

    def pad(self, length: int, side: str, pad_id: int) -> None:
        n = length - len(self.ids)
        for name, value in (("ids", pad_id), ("type_ids", 0), ("attention_mask", 0), ("special_tokens_mask", 1),
                            ("_origin", None)):
            row = getattr(self, name)
            setattr(self, name, [value] * n + row if side == "left" else row + [value] * n)

    def __len__(self) -> int:
        return len(self.ids)

    def __getstate__(self) -> dict[str, Any]:
        """Everything as lists: the tokenizer stays where it is. Offsets that cannot be told are left out."""
        state = {name: getattr(self, name) for name in ("ids", "type_ids", "attention_mask", "special_tokens_mask",
                                                        "n_sequences", "overflowing", "tokens", "sequence_ids")}
        try:
            state["offsets"], state["word_ids"] = self.offsets, self.word_ids
        except NotImplementedError:
            pass
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    def __getattr__(self, name: str) -> Any:  # found once, then kept
        if name == "tokens":
            value: Any = self._tokenizer.convert_ids_to_tokens(self.ids)
            if any(" " in piece for piece in value):  # an added token that was found after the spaces were replaced
                added = self._tokenizer.added_tokens_decoder
                value = [piece.replace(" ", SPACE) if i in added and added[i].normalized else piece
                         for i, piece in zip(self.ids, value)]
        elif name == "sequence_ids":
            value = [None if origin is None else origin[0] for origin in self._origin]
        elif name == "word_ids":
            words = [source.words(self._tokenizer) for source in self._sources]
            value = [None if origin is None else words[origin[0]][origin[1]] for origin in self._origin]
        elif name == "offsets":
            spans = [source.offsets(self._tokenizer) for source in self._sources]
            value = [(0, 0) if origin is None else spans[origin[0]][origin[1]] for origin in self._origin]
        else:
            raise AttributeError(f"an Encoding has no {name!r}")
        setattr(self, name, value)
        return value

    def _where(self, sequence: int, test: Callable[[int], bool]) -> list[int]:
        return [i for i in range(len(self.ids)) if self.sequence_ids[i] == sequence and test(i)]

    def char_to_token(self, char: int, sequence: int = 0) -> int | None:
        return next(iter(self._where(sequence, lambda i: self.offsets[i][0] <= char < self.offsets[i][1])), None)

    def word_to_tokens(self, word: int, sequence: int = 0) -> tuple[int, int] | None:
        found = self._where(sequence, lambda i: self.word_ids[i] == word)
        return (found[0], found[-1] + 1) if found else None


# -- what a call returns


class BatchEncoding(UserDict):
    """A dictionary whose values are attributes too, to be handed on as `model(**encoding)`; [i] is row i's Encoding."""

    def __init__(self, data: dict[str, Any] | None = None, encoding: Any = None, tensor_type: Any = None,
                 prepend_batch_axis: bool = False, n_sequences: int | None = None) -> None:
        super().__init__(data)
        self._encodings: list[Encoding] | None = [encoding] if isinstance(encoding, Encoding) else encoding
        self.n_sequences = self._encodings[0].n_sequences if n_sequences is None and self._encodings else n_sequences
        self.convert_to_tensors(tensor_type, prepend_batch_axis)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "data":  # before __init__, as copy and pickle look
            raise AttributeError(name)
        try:
            return self.data[name]
        except KeyError:
            raise AttributeError(f"the encoding has no {name!r}, it has {', '.join(self.data)}") from None

    def __getitem__(self, item: Any) -> Any:
        if isinstance(item, str):
            return self.data[item]
        if self._encodings is not None:
            return self._encodings[item]
        if isinstance(item, slice):
            return {key: value[item] for key, value in self.data.items()}
        raise KeyError("Invalid key. Only three types of key are available: (1) string, (2) integers for backend "
                       "Encoding, and (3) slices for data subsetting.")

    @property
    def is_fast(self) -> bool:
        return self._encodings is not None

    @property
    def encodings(self) -> list[Encoding] | None:
        return self._encodings

    def _row(self, index: int = 0) -> Encoding:
        if not self._encodings:
            raise ValueError("the encoding has no rows of a tokenizer: it was padded or made by hand")
        return self._encodings[index]

    def _place(self, row: int, index: int | None) -> tuple[Encoding, int]:
        """transformers' two ways to call: (index) of row 0, or (row, index)."""
        encoding = self._row(0 if index is None else row)
        index = row if index is None else index
        return encoding, index + len(encoding) if index < 0 else index

    def tokens(self, batch_index: int = 0) -> list[str]:
        return self._row(batch_index).tokens

    def sequence_ids(self, batch_index: int = 0) -> list[int | None]:
        return self._row(batch_index).sequence_ids

    def word_ids(self, batch_index: int = 0) -> list[int | None]:
        return self._row(batch_index).word_ids

    def token_to_sequence(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        row, index = self._place(batch_or_token_index, token_index)
        return row.sequence_ids[index]

    def token_to_word(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        row, index = self._place(batch_or_token_index, token_index)
        return row.word_ids[index]

    def token_to_chars(self, batch_or_token_index: int, token_index: int | None = None) -> CharSpan | None:
        row, index = self._place(batch_or_token_index, token_index)
        return None if row.sequence_ids[index] is None else CharSpan(*row.offsets[index])

    def char_to_token(self, batch_or_char_index: int, char_index: int | None = None,
                      sequence_index: int = 0) -> int | None:
        row, index = self._place(batch_or_char_index, char_index)
        return row.char_to_token(index, sequence_index)

    def word_to_tokens(self, batch_or_word_index: int, word_index: int | None = None,
                       sequence_index: int = 0) -> TokenSpan | None:
        row, index = self._place(batch_or_word_index, word_index)
        found = row.word_to_tokens(index, sequence_index)
        return TokenSpan(*found) if found else None

    def convert_to_tensors(self, tensor_type: Any = None, prepend_batch_axis: bool = False) -> BatchEncoding:
        """Lists become arrays ("np") or tensors ("pt"); returns itself."""
        name = tensor_name(tensor_type)
        for key, value in list(self.data.items()) if name else ():
            value = [value] if prepend_batch_axis else value
            if name == "pt" and is_torch_tensor(value) or name == "np" and isinstance(value, np.ndarray):
                continue
            try:
                self.data[key] = _tensor(value, name)
            except Exception as error:
                raise ValueError("Unable to create tensor, you should probably activate truncation and/or padding with "
                                 "'padding=True' 'truncation=True' to have batched tensors with the same length. Perhaps "
                                 f"your features (`{key}` in this case) have excessive nesting (inputs type `list` where "
                                 "type `int` is expected).") from error
        return self

    def to(self, device: Any, *, non_blocking: bool = False) -> BatchEncoding:
        """Tensors on a device; changes and returns itself. A dtype changes nothing, as with transformers."""
        import torch

        if isinstance(device, (str, int, torch.device)):
            self.data = {key: value.to(device=device, non_blocking=non_blocking) if is_torch_tensor(value) else value
                         for key, value in self.data.items()}
        else:
            warnings.warn(f"Attempting to cast a BatchEncoding to type {device}. This is not supported.", stacklevel=2)
        return self


def tensor_name(value: Any) -> str | None:
    name = getattr(value, "value", value)
    if name not in (None, "np", "pt"):
        raise ValueError(f"{name} is not a valid TensorType, please select one of ['pt', 'np']")
    return name


def _tensor(value: Any, name: str | None) -> Any:
    if name == "pt":
        try:
            import torch
        except ImportError:
            raise ImportError("return_tensors=\"pt\" needs torch, which is not installed") from None
        if isinstance(value, list) and value and isinstance(value[0], np.ndarray):
            return torch.from_numpy(np.array(value))
        made = torch.tensor(value)
        return made.to(torch.int64) if made.numel() == 0 else made
    if isinstance(value, (list, tuple)) and len({len(v) for v in value if isinstance(v, (list, tuple, np.ndarray))}) > 1:
        rows = np.empty(len(value), object)  # rows of several lengths, as transformers leaves them
        rows[:] = [np.asarray(v) for v in value]
        return rows
    made = np.asarray(value)
    return made.astype(np.int64) if made.size == 0 else made
