# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""PaliGemmaProcessor: images and texts to what the model is fed."""
from __future__ import annotations

import ctypes
import os
import threading
import warnings
import weakref
from types import SimpleNamespace
from typing import Any, Sequence

import numpy as np

from . import _hub, _images, _library as c
from ._handle import Handle, array
from ._log import log_function
from .outputs import BatchFeature, RowReport, like_inputs
from .tokenizer import PaliGemmaTokenizer

IMAGE_TOKEN = "<image>"

_open_handles: weakref.WeakValueDictionary[str, Handle] = weakref.WeakValueDictionary()
_open_lock = threading.Lock()


def open_handle(folder: str, shared: bool = False) -> Handle:
    """A pg_processor; with `shared`, one that is open on the same folder already serves again."""
    key = os.path.realpath(folder)
    with _open_lock:
        handle = _open_handles.get(key) if shared else None
    if handle is not None and not handle.closed:
        return handle
    handle = Handle("processor")
    options = c.ProcessorOptions(log=log_function)
    c.check(c.lib.pg_processor_open(os.fsencode(folder), ctypes.byref(options), ctypes.byref(handle.pointer)))
    with _open_lock:
        _open_handles[key] = handle
    return handle


class PaliGemmaProcessor:
    """Tokenizer and image processing of a checkpoint; from_pretrained() makes one, close() or `with` ends it."""

    def __init__(self, folder: str) -> None:
        self._handle = open_handle(folder)
        self._info = c.ProcessorInfo()
        c.check(c.lib.pg_processor_get_info(self._handle.pointer, ctypes.byref(self._info)))
        self.name_or_path = folder
        self.tokenizer = PaliGemmaTokenizer(self._handle, self._info, folder)
        self.image_seq_length: int = self._info.n_image_tokens
        self.image_token = IMAGE_TOKEN
        self.image_token_id = self.tokenizer.image_token_id
        side = self._info.image_size
        self.image_processor = SimpleNamespace(
            size={"height": side, "width": side}, resample=self._info.resample, image_seq_length=self.image_seq_length,
            do_resize=bool(self._info.do_resize), do_rescale=bool(self._info.do_rescale),
            rescale_factor=self._info.rescale_factor, do_normalize=bool(self._info.do_normalize),
            image_mean=list(self._info.image_mean), image_std=list(self._info.image_std))

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], *, revision: str | None = None,
                        cache_dir: str | os.PathLike[str] | None = None, subfolder: str = "",
                        **kwargs: Any) -> PaliGemmaProcessor:
        """Opens the processor of a checkpoint folder, or of a model id in the local Hugging Face cache.

        Other arguments of transformers' from_pretrained() are taken where they change nothing (see
        paligemma._hub.HARMLESS) and refused with a ValueError where they would.
        """
        _hub.check_arguments(kwargs)
        return cls(_hub.find(pretrained_model_name_or_path, revision, cache_dir, subfolder))

    def __reduce__(self) -> Any:
        """A copy, in this process or another (a worker of a data loader), opens the checkpoint's files again."""
        self._handle.check_open()
        changeable = ("padding_side", "truncation_side", "max_length")
        return type(self), (self.name_or_path,), {name: getattr(self.tokenizer, name) for name in changeable}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self.tokenizer).update(state)

    # -- closing

    def close(self) -> None:
        """Frees the processor; later calls raise ValueError."""
        self._handle.close()

    @property
    def closed(self) -> bool:
        return self._handle.closed

    def __enter__(self) -> PaliGemmaProcessor:
        self._handle.check_open()
        return self

    def __exit__(self, *unused: Any) -> None:
        self.close()

    # -- chat

    chat_template = None

    def apply_chat_template(self, *unused: Any, **kwargs: Any) -> Any:
        """ValueError, as from transformers: PaliGemma has no chat template."""
        raise ValueError("Cannot use apply_chat_template because this processor does not have a chat template: "
                         'PaliGemma takes an image and a short task prompt, processor(image, "caption en")')

    # -- decoding

    def decode(self, token_ids: Any, skip_special_tokens: bool = False,
               clean_up_tokenization_spaces: bool | None = None, **unused: Any) -> Any:
        """The text of ids [T] -> str, or of rows of ids [B, T] -> list of str."""
        return self.tokenizer.decode(token_ids, skip_special_tokens, clean_up_tokenization_spaces)

    def batch_decode(self, sequences: Any, skip_special_tokens: bool = False,
                     clean_up_tokenization_spaces: bool | None = None, **unused: Any) -> list[str]:
        """The texts of rows of ids [B, T]."""
        return self.tokenizer.batch_decode(sequences, skip_special_tokens, clean_up_tokenization_spaces)

    def post_process_image_text_to_text(self, generated_outputs: Any, skip_special_tokens: bool = True,
                                        **unused: Any) -> list[str]:
        """As batch_decode()."""
        return self.batch_decode(generated_outputs, skip_special_tokens)

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", "pixel_values", "token_type_ids", "labels"]

    # -- encoding

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        suffix: str | Sequence[str] | None = None,
        *,
        return_tensors: str | None = None,
        padding: bool | str | None = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        image_counts: int | Sequence[int] | None = None,
        mode: str = "hf",
        literal: bool = False,
        keep_ends: bool = False,
        suffix_open: bool = False,
        exif: bool = True,
        alpha: str = "drop",
        max_image_pixels: int | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """The batch that transformers' PaliGemmaProcessor makes of the same arguments: B rows of T tokens.

        images: an image, a list with one for each text, or a list of lists; PIL images, uint8 or float arrays and
            tensors ([H, W, C], [C, H, W], [H, W]), paths, the bytes of a PNG or JPEG file.
        text: one prompt or several; None: pixel values alone. suffix: the answers to learn.
        return_tensors: None for lists, "np", "pt".
        padding: False, True or "longest", "max_length"; truncation: False, True or "longest_first", "only_first" (the
            prompt), "only_second" (the suffix), to max_length tokens of a row, image tokens included. As with
            transformers, truncation=None with max_length and no padding cuts.

        Beyond transformers:
        image_counts: without images, leave room for so many images in each row; generate(features=...) fills it.
        mode: "hf", or "big_vision" (the training code's tokenization and resize).
        literal: special tokens written in the text are plain characters: for prompts from strangers.
        keep_ends: truncation keeps images, bos, newline and eos, and cuts the suffix's and the prompt's own tail.
        suffix_open: no eos after the suffix.
        exif: turn files given by path or bytes as their EXIF orientation says (PIL images are taken as they are).
        alpha: "drop", or "white", which lays transparent pixels of files given by path or bytes over white. PIL images
            and arrays always are, as with transformers, so that the same file differs by path and as an opened image; a
            warning is logged where a file is transparent.
        max_image_pixels: larger files are refused.

        -> BatchFeature with input_ids, token_type_ids, attention_mask i64 [B, T], pixel_values f32 [n_images, 3, S, S],
        labels i64 [B, T] (-100 outside the suffix); .rows reports what happened to each row.
        Raises ValueError (counts, rows that cannot be stacked, sizes), OSError (files).
        """
        options = {"return_tensors": return_tensors, "padding": padding, "truncation": truncation,
                   "max_length": max_length, "pad_to_multiple_of": pad_to_multiple_of, "padding_side": padding_side,
                   "do_rescale": None, "return_attention_mask": None}
        _merge(options, kwargs, vars(self.image_processor))
        tensors = _tensor_type(options["return_tensors"])
        texts = _texts(text, images)
        _check_call(images, text, image_counts, mode)
        if alpha not in ("drop", "white"):
            raise ValueError(f"alpha is {alpha!r}, expected \"drop\" or \"white\"")
        suffixes = _suffixes(suffix, texts)
        rows = None if images is None else _images.as_rows(images)
        counts = _image_counts(texts, rows, image_counts, parsed=mode == "hf" and not literal)
        encode = _encode_options(options, self.tokenizer, mode, flags=(
            (c.ENCODE_LITERAL if literal else 0) | (c.ENCODE_EXIF if exif else 0)
            | (c.ENCODE_KEEP_ENDS if keep_ends else 0) | (c.ENCODE_OPEN_SUFFIX if suffix_open else 0)
            | (c.ENCODE_OVER_WHITE if alpha == "white" else 0)))
        if max_image_pixels is not None:
            encode.max_image_pixels = max_image_pixels

        converted = _images.convert([] if rows is None else _images.flat(rows), exif, alpha)
        inputs = self._encode(texts, suffixes, converted, counts, encode)
        return self._feature(inputs, texts, converted, options, tensors, mode)

    def _encode(self, texts: list[str] | None, suffixes: list[str] | None, converted: _images.ImageList,
                counts: list[int] | None, encode: c.EncodeOptions) -> Handle:
        prompts, prompt_sizes = _strings_in(texts)
        answers, answer_sizes = _strings_in(suffixes)
        counted = (ctypes.c_int32 * len(counts))(*counts) if counts else None
        batch = c.Batch(
            n_prompts=len(texts or []), n_suffixes=len(suffixes or []), n_images=len(converted.scaled),
            n_image_counts=len(counts or []), prompts=prompts, suffixes=answers, prompt_sizes=prompt_sizes,
            suffix_sizes=answer_sizes, images=converted.images if converted.scaled else None, image_counts=counted)
        inputs = Handle("inputs")
        with self._handle.use() as pointer:
            c.check(c.lib.pg_processor_encode_batch(pointer, ctypes.byref(batch), ctypes.byref(encode),
                                                    ctypes.byref(inputs.pointer)))
        return inputs

    def _feature(self, inputs: Handle, texts: list[str] | None, converted: _images.ImageList,
                 options: dict[str, Any], tensors: str | None, mode: str) -> BatchFeature:
        """The library's arrays under the names and types that transformers gives them."""
        values: dict[str, Any] = {}
        reports = []
        if texts is not None:
            reports = _row_reports(inputs, len(texts))
            names = ["input_ids", "token_type_ids", "attention_mask"]
            if options["return_attention_mask"] is False:
                names.remove("attention_mask")
            for name in names:
                values[name] = array(inputs, c.lib.pg_inputs_get_tensor, name.encode())
        if converted.scaled:
            pixels = array(inputs, c.lib.pg_inputs_get_tensor, b"pixel_values")
            if mode == "hf":
                configured = bool(self._info.do_rescale)
                do_rescale = configured if options["do_rescale"] is None else bool(options["do_rescale"])
                for index, scaled in enumerate(converted.scaled):
                    if scaled or do_rescale != configured:
                        pixels[index] = _images.pixels_of_floats(pixels[index], self._info, scaled, do_rescale)
                if not (do_rescale or self._info.do_normalize or any(converted.scaled)):
                    pixels = pixels.astype(np.uint8)  # resized and nothing else: transformers leaves 8-bit values
                if any(converted.scaled) and do_rescale:
                    warnings.warn("images given as floats of 0 to 1 are rescaled once more, as transformers does; "
                                  "pass do_rescale=False, or 8-bit pixels", stacklevel=3)
            values["pixel_values"] = pixels
        labels = array(inputs, c.lib.pg_inputs_get_tensor, b"labels") if texts is not None else None
        if tensors is None:
            values = {k: list(v) if k == "pixel_values" else v.tolist() for k, v in values.items()}
        if labels is not None:
            values["labels"] = labels  # an array also without return_tensors, as transformers leaves it
        if tensors == "pt":
            values = {k: like_inputs(v, True) for k, v in values.items()}
        return BatchFeature(values, reports)


# Keywords of transformers' processor that change nothing here, and those that cannot be followed.
_IGNORED = {"add_special_tokens", "return_token_type_ids", "verbose", "device", "data_format", "do_convert_rgb",
            "disable_grouping", "sanitize_control_tokens", "return_metadata", "split_special_tokens"}
_NOT_OFFERED = {"return_overflowing_tokens", "return_special_tokens_mask", "return_offsets_mapping", "return_length",
                "return_mm_token_type_ids", "return_text_replacement_offsets", "stride", "is_split_into_words",
                "text_pair", "text_target", "text_pair_target", "videos", "audio", "crop_size", "do_center_crop",
                "do_pad", "pad_size", "do_resize", "size", "resample", "do_normalize", "image_mean", "image_std",
                "rescale_factor", "default_to_square", "input_data_format", "image_seq_length"}


def _merge(options: dict[str, Any], kwargs: dict[str, Any], settings: dict[str, Any]) -> None:
    """text_kwargs, images_kwargs, common_kwargs and plain keywords into `options`.

    settings: the checkpoint's image settings; an argument that repeats one is harmless.
    """
    flat: dict[str, Any] = {}
    for group in ("common_kwargs", "text_kwargs", "images_kwargs"):
        for name, value in (kwargs.pop(group, None) or {}).items():
            if name in kwargs or options.get(name) not in (None, False):
                raise ValueError(f"Keyword argument {name} was passed two times:\nin a dictionary for {group} and as a "
                                 "**kwarg.")
            flat[name] = value
    for name, value in {**flat, **kwargs}.items():
        if name in options:
            options[name] = value
        elif name in _NOT_OFFERED:
            if value is not None and value != settings.get(name, False):
                raise NotImplementedError(f"processor() does not follow {name}={value!r}")
        elif name not in _IGNORED:
            warnings.warn(f"Keyword argument `{name}` is not a valid argument for this processor and will be ignored.",
                          stacklevel=4)


def _tensor_type(return_tensors: Any) -> str | None:
    name = getattr(return_tensors, "value", return_tensors)  # transformers' TensorType is an enum
    if name not in (None, "np", "pt"):
        raise ValueError(f"return_tensors is {name!r}, expected None, \"np\" or \"pt\"")
    if name == "pt":
        try:
            import torch  # noqa: F401
        except ImportError:
            raise ImportError("return_tensors=\"pt\" needs torch, which is not installed") from None
    return name


def _texts(text: Any, images: Any) -> list[str] | None:
    if text is None:
        return None
    if isinstance(text, str):
        text = [text]
    if not isinstance(text, (list, tuple)):
        hint = "; are images and text swapped? The order is processor(images, text)" if _images.is_image(text) else ""
        raise TypeError(f"text is a {type(text).__name__}, expected a string or a list of strings{hint}")
    return _strings(text, "text")


def _check_call(images: Any, text: Any, image_counts: Any, mode: str) -> None:
    """Raises ValueError for arguments that do not go together."""
    if images is None and text is None:
        raise ValueError("You need to provide at least one input to call PaliGemmaProcessor")
    if images is None and image_counts is None:
        raise ValueError("`images` are expected as arguments to a `PaliGemmaProcessor` instance.")
    if images is not None and image_counts is not None:
        raise ValueError("image_counts is for calls without images: it leaves room for features")
    if mode not in c.MODES:
        raise ValueError(f"mode is {mode!r}, expected \"hf\" or \"big_vision\"")


def _suffixes(suffix: Any, texts: list[str] | None) -> list[str] | None:
    if texts is None or suffix is None:
        return None  # without texts as transformers: pixels alone
    suffixes = _strings([suffix] if isinstance(suffix, str) else suffix, "suffix")
    if texts and not suffixes:
        raise ValueError(f"found 0 suffixes for {len(texts)} prompts")
    return suffixes


def _strings(values: Any, name: str) -> list[str]:
    values = list(values)
    for index, value in enumerate(values):
        if not isinstance(value, str):
            raise ValueError(f"`{name}` must be a string or list of strings: entry {index} is a {type(value).__name__}")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(f"{name} of row {index}: character {error.start} is a lone surrogate, which is no "
                             "Unicode text") from None
    return values


def _strings_in(values: list[str] | None) -> tuple[Any, Any]:
    """const char *[n] and their sizes."""
    if not values:
        return None, None
    data = [value.encode("utf-8") for value in values]
    return (ctypes.c_char_p * len(data))(*data), (ctypes.c_uint64 * len(data))(*map(len, data))


def _image_counts(texts: list[str] | None, rows: Any, given: Any, parsed: bool) -> list[int] | None:
    """Images of each row. rows: what as_rows() made, or None with image_counts `given`.

    parsed: `<image>` in the texts stands for an image; then images go to the rows in order, as transformers does.
    """
    if texts is None:
        return None
    written = [text.count(IMAGE_TOKEN) if parsed else 0 for text in texts]
    if rows is None:
        counts = [given] * len(texts) if isinstance(given, int) else list(given)
        if len(counts) != len(texts):
            raise ValueError(f"image_counts has {len(counts)} entries for {len(texts)} prompts")
        return counts
    n_images = len(_images.flat(rows))
    if any(written):
        if sum(written) != n_images:
            raise ValueError("The total number of <image> tokens in the prompts should be the same as the number of "
                             f"images passed. Found total {sum(written)} <image> tokens and {n_images} images.")
        return written
    if not isinstance(rows, list):  # one image
        if len(texts) != 1:
            raise ValueError("The total number of <image> tokens in the prompts should be the same as the number of "
                             f"images passed. Found total {len(texts)} <image> tokens and 1 images.")
        return [1]
    if len(rows) != len(texts):
        raise ValueError(f"Received {len(rows)} images for {len(texts)} prompts. Each prompt should be associated with "
                         "an image or list of images.")
    return [len(row) if isinstance(row, list) else 1 for row in rows]


def _encode_options(options: dict[str, Any], tokenizer: PaliGemmaTokenizer, mode: str, flags: int) -> c.EncodeOptions:
    """transformers' padding and truncation arguments as pg_encode_options (_get_padding_truncation_strategies)."""
    padding, truncation, max_length = options["padding"], options["truncation"], options["max_length"]
    padding = getattr(padding, "value", padding)
    if padding in (None, False, "do_not_pad"):
        kind = c.PADDING_NONE
    elif padding in (True, "longest"):
        kind = c.PADDING_LONGEST
    elif padding == "max_length":
        kind = c.PADDING_MAX_LENGTH
    else:
        raise ValueError(f"padding is {padding!r}, expected True, False, \"longest\", \"max_length\" or \"do_not_pad\"")

    truncation = getattr(truncation, "value", truncation)
    if max_length is None:
        max_length = tokenizer.max_length
    if truncation is None and padding in (None, False) and max_length is not None:
        truncation = True
    cuts = truncation not in (None, False, "do_not_truncate")
    if cuts and truncation not in c.TRUNCATIONS:
        raise ValueError(f"truncation is {truncation!r}, expected True, False, \"longest_first\", \"only_first\", "
                         "\"only_second\" or \"do_not_truncate\"")
    multiple = options["pad_to_multiple_of"]
    if multiple is not None and multiple < 1:
        raise ValueError(f"pad_to_multiple_of is {multiple}, expected 1 or more")
    if max_length is not None and max_length < 1:
        raise ValueError(f"max_length is {max_length}, expected 1 or more")
    if cuts and kind != c.PADDING_NONE and multiple and max_length and max_length % multiple:
        raise ValueError("Truncation and padding are both activated but truncation length "
                         f"({max_length}) is not a multiple of pad_to_multiple_of ({multiple}).")
    return c.EncodeOptions(
        flags=flags | (c.ENCODE_TRUNCATE if cuts else 0), mode=c.MODES[mode], padding=kind,
        padding_side=_side("padding_side", options["padding_side"] or tokenizer.padding_side),
        pad_to_multiple_of=multiple or 0, max_length=max_length or 0, truncation=c.TRUNCATIONS[truncation] if cuts else 0,
        truncation_side=_side("truncation_side", tokenizer.truncation_side))


def _side(name: str, side: str) -> int:
    if side not in c.SIDES:
        raise ValueError(f"{name} is {side!r}, expected \"left\" or \"right\"")
    return c.SIDES[side]


def _row_reports(inputs: Handle, n_rows: int) -> list[RowReport]:
    reports = []
    for row in range(n_rows):
        info = c.RowInfo()
        with inputs.use() as pointer:
            c.check(c.lib.pg_inputs_get_row_info(pointer, row, ctypes.byref(info)))
        events = tuple(name for bit, name in c.ROW_EVENTS.items() if info.events & bit)
        reports.append(RowReport(events, info.first_token, info.n_tokens, info.n_suffix, info.n_truncated, info.first_image,
                                 info.n_images))
    return reports
