# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""The tokenizer, of a processor or by itself: what people call on transformers' GemmaTokenizer."""
from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Sequence

import numpy as np

from . import _encoding, _hub, _library as c
from ._adapter_files import naming_the_base
from ._encoding import BatchEncoding, Encoding, Lengths, Source, Template
from ._handle import Handle
from ._log import log_function
from ._saving import save_tokenizer
from ._tokenizer_files import NAMES, TokenizerFiles, content
from .outputs import is_torch_tensor, to_numpy

NO_CHAT_TEMPLATE = (
    "Cannot use chat template functions because tokenizer.chat_template is not set and no template argument was "
    "passed! For information about writing templates and setting the tokenizer.chat_template attribute, please see "
    "the documentation at https://huggingface.co/docs/transformers/main/en/chat_templating")
_SIDE_NAMES = {value: name for name, value in c.SIDES.items()}
_BYTES = re.compile(r"(?:<0x[0-9A-Fa-f]{2}>)+")
# What clean_up_tokenization() replaces, in its order
_CLEAN_UP = ((" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"),
             (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"))
# Settings that from_pretrained() takes as keywords and the tokenizer has as attributes
_SETTINGS = ("padding_side", "truncation_side", "model_max_length", "model_input_names", "split_special_tokens",
             "clean_up_tokenization_spaces", "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output",
             "verbose")
# Keywords of from_pretrained() that a tokenizer follows; `keywords_of_tokenizer()` finds them among others
FOLLOWED = {*_SETTINGS, *NAMES, "max_len", "add_bos_token", "add_eos_token", "extra_special_tokens",
            "additional_special_tokens", "image_token"}
# Keywords that change nothing for a tokenizer of this kind
_HARMLESS = {"legacy", "from_slow", "tokenizer_type", "sp_model_kwargs", "use_default_system_prompt",
             "spaces_between_special_tokens", "add_prefix_space", "_from_pipeline", "processor_class", "name_or_path"}
_BACKEND = ("backend_tokenizer", "_tokenizer", "decoder", "normalizer", "pre_tokenizer", "post_processor")


@dataclass(frozen=True)
class AddedToken:
    """A token that is cut out of the text before the tokenizer's model sees it."""

    content: str
    rstrip: bool = False
    lstrip: bool = False
    single_word: bool = False
    normalized: bool = True
    special: bool = False

    def __str__(self) -> str:
        return self.content

    def __repr__(self) -> str:
        flags = ", ".join(f"{name}={value}" for name, value in vars(self).items() if name != "content")
        return f'AddedToken("{self.content}", {flags})'

    def as_json(self) -> dict[str, Any]:
        return dict(vars(self))


def open_processor(folder: str, flags: int = 0) -> Handle:
    """A pg_processor on a folder; flags: c.PROCESSOR_*."""
    handle = Handle("processor")
    options = c.ProcessorOptions(log=log_function, flags=flags)
    c.check(c.lib.pg_processor_open(os.fsencode(folder), ctypes.byref(options), ctypes.byref(handle.pointer)))
    return handle


def info_of(handle: Handle) -> c.ProcessorInfo:
    info = c.ProcessorInfo()
    with handle.use() as pointer:
        c.check(c.lib.pg_processor_get_info(pointer, ctypes.byref(info)))
    return info


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
    """Text to ids and back, as transformers' GemmaTokenizer does with the same files.

    That of a processor puts nothing around a text, whatever the files say, as PaliGemmaProcessor wants it; one that
    from_pretrained() opens by itself puts bos and eos as the files say, or add_bos_token= and add_eos_token=.
    Attributes may be set as there; what cannot be followed raises when it is set.
    """

    _class_is_gemma: bool | None = None  # None: as tokenizer_config.json names the class
    SPECIAL_TOKENS_ATTRIBUTES = list(NAMES)
    is_fast = property(lambda self: True, doc="True, as transformers' tokenizers of this kind.")
    pad_token_type_id = property(lambda self: 0, doc="0")
    vocab_files_names = {"tokenizer_file": "tokenizer.json"}

    def __init__(self, handle: Handle, info: c.ProcessorInfo, folder: str, **keywords: Any) -> None:
        """keywords: those of from_pretrained() that are followed (FOLLOWED)."""
        state = vars(self)
        self._handle = handle
        self._folder = os.path.abspath(folder)
        self._of_processor = not info.flags & c.PROCESSOR_TEXT_ONLY
        self._n_ids, self._n_model_ids = info.vocab_size, info.n_model_ids
        self._unk_id, self._image_id = self._id(info.unk_id), self._id(info.image_id)
        self.name_or_path = folder
        self.chat_template = None
        files = TokenizerFiles(folder, keywords, self._class_is_gemma)
        self._has_chat_template = files.chat_template is not None
        self.init_kwargs = {**files.config, "name_or_path": folder}
        self.max_length: int | None = info.max_length or None  # what a call of the processor truncates to
        self._set_settings(files, info)
        named = {name: content(files.named.get(name)) for name in (*NAMES, *files.named)}
        state["_named"], state["_extra"] = named, self._extra_tokens(files)
        state["SPECIAL_TOKENS_ATTRIBUTES"] = list(named)
        self._check_given_tokens(keywords)
        if self._of_processor:
            for name, i in (("bos_token", info.bos_id), ("eos_token", info.eos_id), ("pad_token", info.pad_id)):
                if named[name] is None and i >= 0:  # the library's, where a bare tokenizer.model names none
                    named[name] = self.convert_ids_to_tokens(i)
            if "image_token" not in named:
                state["_extra"] = [self.image_token]
        self._set_template(files)

    @staticmethod
    def _id(value: int) -> int | None:
        return value if value >= 0 else None

    def _set_settings(self, files: TokenizerFiles, info: c.ProcessorInfo) -> None:
        self.padding_side = files.config.get("padding_side") or _SIDE_NAMES[info.padding_side]
        self.truncation_side = files.config.get("truncation_side") or _SIDE_NAMES[info.truncation_side]
        if self._class_is_gemma is not None and not files.side_is_given:
            self.padding_side = "left" if self._class_is_gemma else "right"
        length = files.config.get("model_max_length", files.config.get("max_len"))
        self.model_max_length = int(1e30) if length is None else length
        self.model_input_names = list(files.config.get("model_input_names") or ("input_ids", "attention_mask"))
        for name in _SETTINGS[4:]:
            setattr(self, name, bool(files.setting(name, False)))

    def _extra_tokens(self, files: TokenizerFiles) -> list[str]:
        if files.extra is not None:
            return files.extra
        return [str(token) for i, token in self.added_tokens_decoder.items() if i < self._n_model_ids
                and str(token) != files.named.get("unk_token")]  # those of tokenizer.model

    def _check_given_tokens(self, keywords: dict[str, Any]) -> None:
        """Special tokens by keyword have to be added tokens already: the vocabulary is that of the files."""
        given = [content(keywords[name]) for name in (*NAMES, "image_token") if keywords.get(name) is not None]
        extra = keywords.get("extra_special_tokens") or keywords.get("additional_special_tokens") or []
        given += [content(token) for token in (extra.values() if isinstance(extra, dict) else extra)]
        self._check_present(given, "from_pretrained()")

    def _check_present(self, tokens: Sequence[Any], what: str) -> None:
        there = self.added_tokens_encoder if tokens else {}
        missing = [token for token in tokens if token not in there]
        if missing:
            raise NotImplementedError(
                f"{what}: {missing[0]!r} is not an added token of {self.name_or_path}, and libpaligemma adds none, for "
                "the model has no embedding for them. Add it with transformers, resize_token_embeddings(), and save "
                "model and tokenizer; or use one that is there, such as <seg000>")

    def _set_template(self, files: TokenizerFiles) -> None:
        state, flags = vars(self), ("add_bos_token", "add_eos_token")
        given = [name for name in flags if name in files.config]
        for name in flags:
            state[f"_{name}"] = bool(files.config.get(name)) and not self._of_processor
        if self._of_processor:
            state["_template"] = Template.of_flags(None, None)
            return
        template = None if given else Template.of_json(files.json.get("post_processor"))
        if template is None:
            self._update_template()
        else:
            state["_template"] = template

    def _update_template(self) -> None:
        """transformers' update_post_processor()."""
        state = vars(self)
        for name in ("bos_token", "eos_token"):
            state[f"_add_{name}"] = state[f"_add_{name}"] and self._named[name] is not None
        state["_template"] = Template.of_flags(self.bos_token_id if self._add_bos_token else None,
                                               self.eos_token_id if self._add_eos_token else None)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], *, revision: str | None = None,
                        cache_dir: str | os.PathLike[str] | None = None, subfolder: str = "",
                        **kwargs: Any) -> PaliGemmaTokenizer:
        """The tokenizer of a checkpoint folder or of a folder with the tokenizer's files alone, or of a model id in the
        local Hugging Face cache; as transformers' AutoTokenizer, with bos and eos as the files say.

        kwargs: padding_side, truncation_side, model_max_length, add_bos_token, add_eos_token, the names of special tokens
        and the other settings of FOLLOWED; those that change nothing are taken, others refused with a ValueError.
        """
        keywords = keywords_of_tokenizer(kwargs)
        _hub.check_arguments({name: value for name, value in kwargs.items() if name not in _HARMLESS})
        folder = _hub.find(pretrained_model_name_or_path, revision, cache_dir, subfolder or "")
        with naming_the_base(pretrained_model_name_or_path, folder, "a tokenizer"):
            handle = open_processor(folder, c.PROCESSOR_TEXT_ONLY)
        made = cls(handle, info_of(handle), folder, **keywords)
        made.name_or_path = os.fsdecode(pretrained_model_name_or_path)
        return made

    # -- copies

    def __reduce__(self) -> Any:
        """A copy, in this process or another (a worker of a data loader), opens the files again."""
        self._handle.check_open()
        state = {name: value for name, value in vars(self).items() if name not in ("_handle", "_folder", "_added")}
        return _reopen, (type(self), self._folder, self._of_processor), state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    def save_pretrained(self, save_directory: str | os.PathLike[str], legacy_format: bool | None = None,
                        filename_prefix: str | None = None, push_to_hub: bool = False, **unused: Any) -> tuple[str, ...]:
        """Writes the tokenizer's files, with the settings as they are now; transformers reads the same from them.

        -> the paths of the written files: tokenizer_config.json, then tokenizer.json or tokenizer.model, and others.
        """
        if push_to_hub:
            self.push_to_hub()
        if legacy_format:
            raise ValueError("legacy_format=True is not offered: the files are written as they were read, "
                             "tokenizer.json or tokenizer.model with tokenizer_config.json")
        return save_tokenizer(self, self._folder, os.fspath(save_directory), filename_prefix)

    def push_to_hub(self, *unused: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("push_to_hub() is not offered, libpaligemma never uses the network: call "
                                  "save_pretrained(folder), then huggingface_hub.upload_folder(folder_path=folder, "
                                  "repo_id=...)")

    # -- text to ids

    def __call__(self, text: Any = None, text_pair: Any = None, text_target: Any = None, text_pair_target: Any = None,
                 add_special_tokens: bool = True, padding: Any = False, truncation: Any = None,
                 max_length: int | None = None, stride: int = 0, is_split_into_words: bool = False,
                 pad_to_multiple_of: int | None = None, padding_side: str | None = None, return_tensors: Any = None,
                 return_token_type_ids: bool | None = None, return_attention_mask: bool | None = None,
                 return_overflowing_tokens: bool = False, return_special_tokens_mask: bool = False,
                 return_offsets_mapping: bool = False, return_length: bool = False, verbose: bool = True,
                 tokenizer_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> BatchEncoding:
        """The ids of a text, of a list of texts, or of pairs, as transformers gives them for the same arguments.

        Refused: return_overflowing_tokens and stride. Beyond transformers: literal, as split_special_tokens ("<eos>" in
        the text is plain characters).
        """
        options = {name: value for name, value in locals().items() if name not in (
            "self", "text", "text_pair", "text_target", "text_pair_target", "tokenizer_kwargs", "kwargs")}
        options.update(tokenizer_kwargs or {})
        options.update(kwargs)
        most = options.pop("max_target_length", None)
        if text is None and text_target is None:
            raise ValueError("You need to specify either `text` or `text_target`.")
        made = None if text is None else self._encode(text, text_pair, **options)
        if text_target is None:
            return made  # type: ignore[return-value]
        target = self._encode(text_target, text_pair_target, **{**options, "max_length": most or options["max_length"]})
        if made is None:
            return target
        made["labels"] = target["input_ids"]
        return made

    def encode(self, text: Any, text_pair: Any = None, add_special_tokens: bool = True, padding: Any = False,
               truncation: Any = None, max_length: int | None = None, stride: int = 0, padding_side: str | None = None,
               return_tensors: Any = None, **kwargs: Any) -> Any:
        """input_ids of __call__(): a list of ids, or of rows of ids, or a tensor [1, T]."""
        return self._encode(text, text_pair, add_special_tokens=add_special_tokens, padding=padding,
                            truncation=truncation, max_length=max_length, stride=stride, padding_side=padding_side,
                            return_tensors=return_tensors, **kwargs)["input_ids"]

    def tokenize(self, text: Any, pair: Any = None, add_special_tokens: bool = False, **kwargs: Any) -> list[str]:
        """The pieces of a text, or of a text and its pair."""
        for name in ("padding", "truncation", "max_length"):  # not followed here by transformers either
            kwargs.pop(name, None)
        return self._encode(text, pair, add_special_tokens=add_special_tokens, **kwargs).tokens()

    def _encode(self, text: Any, text_pair: Any, *, add_special_tokens: bool = True, padding: Any = False,
                truncation: Any = None, max_length: int | None = None, stride: int = 0,
                is_split_into_words: bool = False, pad_to_multiple_of: int | None = None,
                padding_side: str | None = None, return_tensors: Any = None,
                return_token_type_ids: bool | None = None, return_attention_mask: bool | None = None,
                return_overflowing_tokens: bool = False, return_special_tokens_mask: bool = False,
                return_offsets_mapping: bool = False, return_length: bool = False, verbose: bool = True,
                split_special_tokens: bool | None = None, literal: bool | None = None,
                **unused: Any) -> BatchEncoding:
        tensors = _encoding.tensor_name(return_tensors)
        if return_overflowing_tokens or stride:
            raise NotImplementedError(
                "return_overflowing_tokens and stride are not offered: rows that follow from one text are not returned. "
                "Encode without truncation and cut the windows out of input_ids; return_offsets_mapping=True says where "
                "each token stands")
        how = _encoding.resolve(padding, truncation, max_length, pad_to_multiple_of, self.model_max_length,
                                self.pad_token_id is not None, verbose)
        if literal is None:
            literal = self.split_special_tokens if split_special_tokens is None else split_special_tokens
        batched, rows = _rows_of(text, text_pair, is_split_into_words)
        encodings = []
        for row in rows:
            sources = [self._source(part, bool(literal), is_split_into_words) for part in row]
            encodings.append(self._row(sources, add_special_tokens, how))
        if how.padding and encodings:
            side = _checked_side("padding_side", padding_side or self.padding_side)
            length = _encoding.padded_length([len(e) for e in encodings], how)
            for e in encodings:
                if len(e) < length:
                    e.pad(length, side, self.pad_token_id)
        names = self._columns(return_token_type_ids, return_attention_mask, return_special_tokens_mask,
                              return_offsets_mapping)
        data = {name: [getattr(e, attribute) for e in encodings] for name, attribute in names}
        if return_length:
            data["length"] = [len(e) for e in encodings]
        if not batched and tensors is None:
            data = {name: value if name == "length" else value[0] for name, value in data.items()}
        return BatchEncoding(data, encodings, tensors)

    def _columns(self, types: bool | None, mask: bool | None, special: bool,
                 offsets: bool) -> list[tuple[str, str]]:
        """(key, attribute of Encoding) in the order of transformers."""
        types = "token_type_ids" in self.model_input_names if types is None else types
        mask = "attention_mask" in self.model_input_names if mask is None else mask
        wanted = (("input_ids", "ids", True), ("token_type_ids", "type_ids", types),
                  ("attention_mask", "attention_mask", mask), ("special_tokens_mask", "special_tokens_mask", special),
                  ("offset_mapping", "offsets", offsets))
        return [(name, attribute) for name, attribute, there in wanted if there]

    def _source(self, part: Any, literal: bool, split: bool) -> Source:
        texts = list(part) if split else [part]
        for text in texts:
            if not isinstance(text, str):
                raise TypeError(f"found a {type(text).__name__} among the {'words' if split else 'texts'}, expected "
                                "strings")
        return Source(texts, [self._ids_of(text, literal) for text in texts], split, literal)

    def _row(self, sources: list[Source], add_special_tokens: bool, how: Lengths) -> Encoding:
        """Truncation, then the template."""
        pair = len(sources) == 2
        sizes = [len(source.ids) for source in sources]
        if how.truncation:
            assert how.max_length is not None
            n_added = self._template.n_added(pair) if add_special_tokens else 0
            most = how.max_length - n_added
            if most < 0:
                raise ValueError(f"max_length is {how.max_length}, expected at least {n_added}: so many special tokens "
                                 "are added")
            left = _encoding.kept(sizes[0], sizes[1] if pair else None, most, how.truncation)
        else:
            left = tuple(sizes)  # type: ignore[assignment]
        from_left = _checked_side("truncation_side", self.truncation_side) == "left"
        row = Encoding(self, sources)
        for part, kind in self._template.parts(pair):
            if not isinstance(part, str):
                if add_special_tokens:
                    row.add(part, kind)
                continue
            sequence = "AB".index(part)
            n = left[sequence] or 0
            first = sizes[sequence] - n if from_left else 0
            row.add(sources[sequence].ids[first:first + n], kind, sequence, first)
        return row

    def _ids_of(self, text: str, literal: bool) -> list[int]:
        data = text.encode("utf-8")
        if b"\0" in data:
            return self._ids_of_bytes(data, literal)
        flags = c.ENCODE_LITERAL if literal else 0
        capacity = len(data) + 16
        while True:
            ids, n_ids = (ctypes.c_int64 * capacity)(), ctypes.c_size_t()
            with self._handle.use() as pointer:
                c.check(c.lib.pg_processor_tokenize(pointer, data, flags, ids, capacity, ctypes.byref(n_ids)))
            if n_ids.value <= capacity:
                return ids[:n_ids.value]
            capacity = n_ids.value

    def _ids_of_bytes(self, data: bytes, literal: bool) -> list[int]:
        """A text with NUL characters goes as the suffix of an empty row, which is tokenized by itself."""
        one = (ctypes.c_char_p * 1)
        batch = c.Batch(n_prompts=1, n_suffixes=1, n_image_counts=1, prompts=one(b""), suffixes=one(data),
                        prompt_sizes=(ctypes.c_uint64 * 1)(0), suffix_sizes=(ctypes.c_uint64 * 1)(len(data)),
                        image_counts=(ctypes.c_int32 * 1)(0))
        options = c.EncodeOptions(flags=c.ENCODE_OPEN_SUFFIX | (c.ENCODE_LITERAL if literal else 0))
        options.padding = c.PADDING_NONE
        inputs, row, ids = Handle("inputs"), c.RowInfo(), c.Tensor()
        with self._handle.use() as pointer:
            c.check(c.lib.pg_processor_encode_batch(pointer, ctypes.byref(batch), ctypes.byref(options),
                                                    ctypes.byref(inputs.pointer)))
        with inputs.use() as pointer:
            c.check(c.lib.pg_inputs_get_row_info(pointer, 0, ctypes.byref(row)))
            c.check(c.lib.pg_inputs_get_tensor(pointer, b"input_ids", ctypes.byref(ids)))
            every = (ctypes.c_int64 * ids.shape[1]).from_address(ids.data)
            return every[row.n_tokens - row.n_suffix:row.n_tokens]

    # -- rows that were made before

    def pad(self, encoded_inputs: Any, padding: Any = True, max_length: int | None = None,
            pad_to_multiple_of: int | None = None, padding_side: str | None = None,
            return_attention_mask: bool | None = None, return_tensors: Any = None, verbose: bool = True) -> BatchEncoding:
        """Rows of input_ids, of one encoding or of a list of encodings, to one length (transformers' pad())."""
        if isinstance(encoded_inputs, (list, tuple)) and encoded_inputs and isinstance(encoded_inputs[0], Mapping):
            encoded_inputs = {key: [row[key] for row in encoded_inputs] for key in encoded_inputs[0]}
        if not isinstance(encoded_inputs, Mapping):
            raise TypeError(f"encoded_inputs is a {type(encoded_inputs).__name__}, expected an encoding such as "
                            '{"input_ids": rows}, or a list of encodings')
        values = dict(encoded_inputs)
        name = self.model_input_names[0]
        if name not in values:
            raise ValueError("You should supply an encoding or a list of encodings to this method that includes "
                             f"{name}, but you provided {list(values)}")
        if values[name] is None or len(values[name]) == 0:
            return BatchEncoding({**values, "attention_mask": []} if return_attention_mask else values)
        first = values[name][0]
        if return_tensors is None:
            first = next((row[0] for row in values[name] if len(row)), first) if isinstance(first, (list, tuple)) else first
            return_tensors = "pt" if is_torch_tensor(first) else "np" if isinstance(first, (np.ndarray, np.generic)) \
                else None
        values = {key: _plain(value) for key, value in values.items()}
        how = _encoding.resolve(padding, None, max_length, None, self.model_max_length,
                                self.pad_token_id is not None, verbose)
        if values[name] and not isinstance(values[name][0], list):
            made = self._pad_row(values, how, pad_to_multiple_of, padding_side, return_attention_mask)
            return BatchEncoding(made, tensor_type=return_tensors)
        n_rows = len(values[name])
        wrong = [key for key, value in values.items() if not isinstance(value, list) or len(value) != n_rows]
        if wrong:
            raise ValueError(f"Some items in the output dictionary have a different batch size than others: {wrong[0]} "
                             f"has not the {n_rows} rows of {name}")
        if how.padding == "longest":
            how = how._replace(padding="max_length", max_length=max(map(len, values[name])))
        rows = [self._pad_row({key: value[r] for key, value in values.items()}, how, pad_to_multiple_of, padding_side,
                              return_attention_mask) for r in range(n_rows)]
        return BatchEncoding({key: [row[key] for row in rows] for key in rows[0]}, tensor_type=return_tensors)

    def _pad_row(self, row: dict[str, Any], how: Lengths, multiple: int | None, side: str | None,
                 mask: bool | None) -> dict[str, Any]:
        mask = "attention_mask" in self.model_input_names if mask is None else mask
        name = self.model_input_names[0]
        n = len(row[name])
        length = n if how.padding == "longest" else how.max_length
        if length is not None and multiple:
            length = -(-length // multiple) * multiple
        if mask:
            row.setdefault("attention_mask", [1] * n)
        if how.padding is None or length is None or length <= n:
            return row
        fills = {name: self.pad_token_id, "token_type_ids": 0, "special_tokens_mask": 1}
        if mask:
            fills["attention_mask"] = 0
        left = _checked_side("padding_side", side or self.padding_side) == "left"
        for key, fill in fills.items():
            if key in row:
                row[key] = [fill] * (length - n) + row[key] if left else row[key] + [fill] * (length - n)
        return row

    # -- ids to text

    def decode(self, token_ids: Any, skip_special_tokens: bool = False,
               clean_up_tokenization_spaces: bool | None = None, **unused: Any) -> Any:
        """The text of ids [T] -> str, or of rows of ids [B, T] -> list of str. Ids outside the vocabulary are skipped.

        token_ids: int, list, numpy array or torch tensor. clean_up_tokenization_spaces is ignored, as transformers
        ignores it for this kind of tokenizer, unless the attribute of the same name says that it is to be forced.
        """
        ids = _plain(token_ids["input_ids"] if isinstance(token_ids, Mapping) else token_ids)
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
            text = c.copied_text(c.lib.pg_processor_decode, pointer, memory, len(known),
                                 c.DECODE_SKIP_SPECIAL if skip_special_tokens else 0)
        clean = self.clean_up_tokenization_spaces if clean_up_tokenization_spaces is None else \
            clean_up_tokenization_spaces
        forced = self.clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output
        return self.clean_up_tokenization(text) if clean and forced else text

    def batch_decode(self, sequences: Any, skip_special_tokens: bool = False,
                     clean_up_tokenization_spaces: bool | None = None, **unused: Any) -> list[str]:
        """The texts of rows of ids [B, T]; of one row [T], a list of its text."""
        text = self.decode(sequences, skip_special_tokens, clean_up_tokenization_spaces)
        return [text] if isinstance(text, str) else text

    @staticmethod
    def clean_up_tokenization(text: str) -> str:
        for old, new in _CLEAN_UP:
            text = text.replace(old, new)
        return text

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """The text of pieces, without a look at the vocabulary."""
        parts: list[str] = []
        run = b""  # of byte pieces
        for token in [*tokens, ""]:
            if _BYTES.fullmatch(token) and len(token) == 6:
                run += bytes([int(token[3:5], 16)])
                continue
            if run:
                try:
                    parts.append(run.decode("utf-8"))
                except UnicodeDecodeError:
                    parts.append("\ufffd" * len(run))
                run = b""
            parts.append(token.replace("\u2581", " "))
        return "".join(parts)

    # -- pieces

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """The piece of an id, or the pieces of a list of ids; None for an id outside the vocabulary."""
        ids = _plain(ids)
        if not isinstance(ids, list):
            return self._pieces([ids])[0]
        special = set(self.all_special_ids) if skip_special_tokens else set()
        return self._pieces([i for i in ids if i not in special])

    def _pieces(self, ids: Sequence[int]) -> list[str | None]:
        pieces: list[str | None] = []
        piece = ctypes.c_char_p()
        out, get = ctypes.byref(piece), c.lib.pg_processor_get_piece
        with self._handle.use() as pointer:
            for i in ids:
                if i < 0:
                    raise OverflowError(f"id is {i}, expected 0 to {self._n_ids - 1}")
                if i >= self._n_ids:
                    pieces.append(None)
                    continue
                c.check(get(pointer, i, out))
                pieces.append((piece.value or b"").decode("utf-8", "replace"))
        return pieces

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        """The id of a piece such as "<loc0000>", or the ids of a list; unknown pieces have unk_token_id."""
        if tokens is None:
            return None
        if not isinstance(tokens, str):
            return [self.convert_tokens_to_ids(str(token)) for token in tokens]
        found = self._find(tokens)
        return self.unk_token_id if found is None else found

    def _find(self, token: str) -> int | None:
        found = ctypes.c_int64()
        with self._handle.use() as pointer:
            status = c.lib.pg_processor_get_token_id(pointer, token.encode("utf-8"), ctypes.byref(found))
        if status == c.ERROR_NOT_FOUND:
            return None
        c.check(status)
        return found.value

    def get_vocab(self) -> dict[str, int]:
        """Every piece and its id."""
        return {piece: i for i, piece in enumerate(self._pieces(range(self._n_ids))) if piece is not None}

    vocab = property(get_vocab, doc="Every piece and its id.")

    def __len__(self) -> int:
        return self._n_ids

    def __bool__(self) -> bool:
        return True

    @property
    def vocab_size(self) -> int:
        """Ids of the tokenizer's model, without added tokens that are not among its pieces; len() counts all."""
        return self._n_model_ids

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """{id: AddedToken} of the added tokens."""
        found = vars(self).get("_added")
        if found is None:
            found, flags = {}, ctypes.c_uint32()
            with self._handle.use() as pointer:
                for i in range(self._n_ids):
                    c.check(c.lib.pg_processor_get_token_flags(pointer, i, ctypes.byref(flags)))
                    if flags.value:
                        found[i] = AddedToken(self.convert_ids_to_tokens(i), *(bool(flags.value & bit) for bit in (
                            c.TOKEN_RSTRIP, c.TOKEN_LSTRIP, c.TOKEN_SINGLE_WORD, c.TOKEN_NORMALIZED, c.TOKEN_SPECIAL)))
            vars(self)["_added"] = found
        return dict(found)

    @property
    def added_tokens_encoder(self) -> dict[str, int]:
        """{piece: id} of the added tokens."""
        return {str(token): i for i, token in self.added_tokens_decoder.items()}

    def get_added_vocab(self) -> dict[str, int]:
        """{piece: id} of the added tokens."""
        return self.added_tokens_encoder

    def add_tokens(self, new_tokens: Any, special_tokens: bool = False) -> int:
        """0 where all are there already in the same way, as with transformers; others are refused."""
        tokens = [] if not new_tokens else new_tokens if isinstance(new_tokens, (list, tuple)) else [new_tokens]
        there = {str(token): token for token in self.added_tokens_decoder.values()}
        self._check_present([str(token) for token in tokens if not isinstance(token, AddedToken)], "add_tokens()")
        for token in tokens:
            known = there.get(str(token))
            special = getattr(token, "special", special_tokens)
            if known is None or bool(special) != known.special:
                raise NotImplementedError(f"add_tokens(): {str(token)!r} is {'' if known and known.special else 'not '}"
                                          "special in the files, and libpaligemma changes no token; save it with "
                                          "transformers the way it should be")
        return 0

    def add_special_tokens(self, special_tokens_dict: Any, replace_extra_special_tokens: bool = True) -> int:
        """Names special tokens that are there: {"pad_token": "<eos>", "extra_special_tokens": [...]} -> 0."""
        given = dict(special_tokens_dict or {})
        if "additional_special_tokens" in given and not given.get("extra_special_tokens"):
            given["extra_special_tokens"] = given.pop("additional_special_tokens")
        for name, value in given.items():
            if name not in (*self.SPECIAL_TOKENS_ATTRIBUTES, "extra_special_tokens"):
                raise ValueError(f"Key {name} is not a valid special token. Valid keys are: "
                                 f"{[*self.SPECIAL_TOKENS_ATTRIBUTES, 'extra_special_tokens']}")
            extra = name == "extra_special_tokens"
            tokens = [str(token) for token in value] if extra else [str(value)]
            self._check_present(tokens, "add_special_tokens()")
            if not extra:
                setattr(self, name, str(value))
            elif tokens:
                kept = [] if replace_extra_special_tokens else self._extra
                self.extra_special_tokens = [*kept, *(token for token in tokens if token not in kept)]
        return 0

    # -- special tokens

    @property
    def special_tokens_map(self) -> dict[str, str]:
        """{"bos_token": "<bos>", ...} of the names that have a token."""
        return {name: token for name, token in self._named.items() if token is not None}

    @property
    def all_special_tokens(self) -> list[str]:
        """The tokens that have a name, and the extra ones."""
        return list(dict.fromkeys([*self.special_tokens_map.values(), *self._extra]))

    @property
    def all_special_ids(self) -> list[int]:
        return self.convert_tokens_to_ids(self.all_special_tokens)

    @property
    def image_token_id(self) -> int | None:
        """The id of <image>; None where the files have none."""
        return self._image_id

    @property
    def image_token(self) -> str | None:
        return None if self._image_id is None else self.convert_ids_to_tokens(self._image_id)

    def get_special_tokens_mask(self, token_ids_0: Any, token_ids_1: Any = None,
                                already_has_special_tokens: bool = False) -> list[int]:
        """1 for each id that is special, 0 for others; of ids with special tokens, as transformers."""
        if not already_has_special_tokens or token_ids_1 is not None:
            raise NotImplementedError("get_special_tokens_mask() is for one row of ids with its special tokens: pass "
                                      "already_has_special_tokens=True, or return_special_tokens_mask=True to the call")
        special = set(self.all_special_ids)
        return [int(i in special) for i in _plain(token_ids_0)]

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """How many special tokens a call puts around a text, or around two."""
        return self._template.n_added(bool(pair))

    @property
    def max_len_single_sentence(self) -> int:
        return self.model_max_length - self.num_special_tokens_to_add()

    @property
    def max_len_sentences_pair(self) -> int:
        return self.model_max_length - self.num_special_tokens_to_add(True)

    # -- chat

    def apply_chat_template(self, *unused: Any, **kwargs: Any) -> Any:
        """ValueError, as from transformers: PaliGemma has no chat template."""
        if self._has_chat_template or kwargs.get("chat_template"):
            raise NotImplementedError("libpaligemma renders no chat template: PaliGemma takes an image and a short task "
                                      'prompt, processor(image, "caption en"); transformers\' AutoTokenizer renders it')
        raise ValueError(NO_CHAT_TEMPLATE + ' (PaliGemma takes a short task prompt: processor(image, "caption en"))')

    def get_chat_template(self, *unused: Any, **kwargs: Any) -> Any:
        return self.apply_chat_template()

    # -- attributes

    def __getattr__(self, name: str) -> Any:
        named = vars(self).get("_named", {})
        base = name[:-3] if name.endswith("_id") else name
        if base in named:
            token = named[base]
            return self.convert_tokens_to_ids(token) if name.endswith("_id") else token
        if name == "extra_special_tokens":
            return list(vars(self).get("_extra", ()))
        if name == "extra_special_tokens_ids":
            return self.convert_tokens_to_ids(self._extra)
        if name in ("add_bos_token", "add_eos_token"):
            return vars(self)[f"_{name}"]
        if name in _BACKEND:
            raise AttributeError(f"{name}: this tokenizer runs in the C library, there is no tokenizers.Tokenizer behind "
                                 "it; transformers' AutoTokenizer.from_pretrained() on the same folder has one")
        raise AttributeError(f"{type(self).__name__} has no attribute {name}")

    def __setattr__(self, name: str, value: Any) -> None:
        named = vars(self).get("_named", {})
        base = name[:-3] if name.endswith("_id") else name
        if base in named:
            self._name_token(base, self.convert_ids_to_tokens(value) if base != name and value is not None else value)
        elif name in ("extra_special_tokens", "extra_special_tokens_ids"):
            if value is not None and not isinstance(value, (list, tuple)):
                raise ValueError(f"extra_special_tokens must be a list or tuple, got {type(value)}")
            tokens = [] if value is None else self.convert_ids_to_tokens(value) if name.endswith("_ids") else value
            vars(self)["_extra"] = [str(token) for token in tokens]
        elif name in ("add_bos_token", "add_eos_token"):
            if value and self._of_processor:
                raise NotImplementedError(f"{name} of a processor's tokenizer stays False: the processor puts bos and eos "
                                          "where they belong. AutoTokenizer.from_pretrained() makes one that follows it")
            vars(self)[f"_{name}"] = bool(value)
            self._update_template()
        else:
            _check_attribute(name, value)
            super().__setattr__(name, value)

    def _name_token(self, name: str, token: Any) -> None:
        if token is not None and not isinstance(token, (str, AddedToken)) and not hasattr(token, "content"):
            raise ValueError(f"Cannot set a non-string value as the {name}")
        token = None if token is None else str(token)
        if self._of_processor and name in ("bos_token", "eos_token", "image_token") and token != self._named[name]:
            raise NotImplementedError(f"{name} of a processor's tokenizer is {self._named[name]!r} and cannot be changed: "
                                      "the processor's rows have it")
        self._named[name] = token

    def __repr__(self) -> str:
        added = "".join(f"\n\t{i}: {token!r}," for i, token in self.added_tokens_decoder.items())
        return (f"{type(self).__name__}(name_or_path='{self.name_or_path}', vocab_size={self.vocab_size}, "
                f"model_max_length={self.model_max_length}, padding_side='{self.padding_side}', "
                f"truncation_side='{self.truncation_side}', special_tokens={self.special_tokens_map}, "
                f"added_tokens_decoder={{{added}\n}})")


class GemmaTokenizer(PaliGemmaTokenizer):
    """from_pretrained() with GemmaTokenizer's defaults, whatever class the files name."""

    _class_is_gemma = True


class PreTrainedTokenizerFast(PaliGemmaTokenizer):
    """from_pretrained() with the defaults of transformers' class of this name: padding on the right, no names but those
    of the files."""

    _class_is_gemma = False


GemmaTokenizerFast = GemmaTokenizer


def keywords_of_tokenizer(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Takes out of from_pretrained()'s keywords those that the tokenizer follows."""
    found = {name: kwargs.pop(name) for name in list(kwargs) if name in FOLLOWED}
    for name, value in found.items():
        _check_attribute(name, value)
    return found


def _reopen(cls: type[PaliGemmaTokenizer], folder: str, of_processor: bool) -> PaliGemmaTokenizer:
    handle = open_processor(folder, 0 if of_processor else c.PROCESSOR_TEXT_ONLY)
    return cls(handle, info_of(handle), folder)


def _checked_side(name: str, side: Any) -> str:
    if side not in c.SIDES:
        raise ValueError(f"{name} is {side!r}, expected \"left\" or \"right\"")
    return side


def _check_attribute(name: str, value: Any) -> None:
    """Raises for settings that cannot be followed. Names that mean nothing to a tokenizer are kept, as there."""
    if name in ("padding_side", "truncation_side"):
        _checked_side(name, value)
    elif name in ("model_max_length", "max_len"):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value) or value < 0:
            raise ValueError(f"{name} is {value!r}, expected a whole number of tokens")
    elif name == "chat_template" and value is not None:
        raise NotImplementedError("chat_template cannot be set: libpaligemma renders none, and PaliGemma has none")
    elif name in _BACKEND:
        raise NotImplementedError(f"{name} cannot be set: this tokenizer runs in the C library and follows its files")


def _is_texts(value: Any, depth: int = 3) -> bool:
    return isinstance(value, str) or (depth > 0 and isinstance(value, (list, tuple))
                                      and (len(value) == 0 or _is_texts(value[0], depth - 1)))


def _rows_of(text: Any, text_pair: Any, split: bool) -> tuple[bool, list[tuple[Any, ...]]]:
    """Whether it is a batch, and its rows: one text or two each (or lists of words)."""
    for given, name in ((text, "text"), (text_pair, "text_pair")):
        if not (given is None and name == "text_pair") and not _is_texts(given):
            raise ValueError(f"{name} is a {type(given).__name__}; text input must be of type `str` (single example), "
                             "`list[str]` (batch or single pretokenized example) or `list[list[str]]` (batch of "
                             "pretokenized examples)")
    batched = isinstance(text, (list, tuple))
    if split:
        batched = batched and len(text) > 0 and isinstance(text[0], (list, tuple))
        if isinstance(text, str):
            raise TypeError("text is one string, expected a list of words with is_split_into_words=True")
    if not batched:
        return False, [(text, text_pair) if text_pair else (text,)]
    if len(text) == 0:
        raise ValueError("text is an empty list, expected at least one text")
    if isinstance(text_pair, str):
        raise TypeError("when tokenizing batches of text, `text_pair` must be a list or tuple with the same length as "
                        "`text`.")
    if text_pair is not None:
        if len(text) != len(text_pair):
            raise ValueError(f"batch length of `text`: {len(text)} does not match batch length of `text_pair`: "
                             f"{len(text_pair)}.")
        return True, list(zip(text, text_pair))
    # a tuple or list of two texts among texts is a pair
    is_pair = [isinstance(row, (list, tuple)) and len(row) == 2
               and (not split or all(isinstance(part, (list, tuple)) for part in row)) for row in text]
    return True, [tuple(row) if pair else (row,) for row, pair in zip(text, is_pair)]
