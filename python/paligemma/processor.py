# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""PaliGemmaProcessor: images and texts to what the model is fed."""
from __future__ import annotations

import ctypes
import json
import os
import threading
import weakref
from dataclasses import dataclass
from typing import Any, Sequence

import numpy as np

from . import _hub, _images, _library as c
from ._adapter_files import naming_the_base
from ._arguments import Arguments
from ._encoding import LARGE
from ._handle import Handle, array
from ._run import CancelFlag, interruptible
from .image_processor import KEYWORDS as IMAGE_KEYWORDS, ImageCall, SiglipImageProcessor, checked
from .outputs import BatchFeature, RowReport, like_inputs, stacked, tensor_type
from .tokenizer import PaliGemmaTokenizer, info_of, keywords_of_tokenizer, open_processor

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
    handle = open_processor(folder)
    with _open_lock:
        _open_handles[key] = handle
    return handle


class PaliGemmaProcessor:
    """Tokenizer and image processing of a checkpoint; from_pretrained() makes one, close() or `with` ends it."""

    def __init__(self, image_processor: SiglipImageProcessor | None = None, tokenizer: PaliGemmaTokenizer | None = None,
                 chat_template: Any = None) -> None:
        """From the parts that AutoImageProcessor and AutoTokenizer opened, or another processor has."""
        if not isinstance(image_processor, SiglipImageProcessor):
            raise TypeError(f"image_processor is a {type(image_processor).__name__}, expected what "
                            "AutoImageProcessor.from_pretrained() returns")
        if not isinstance(tokenizer, PaliGemmaTokenizer):
            raise TypeError(f"tokenizer is a {type(tokenizer).__name__}, expected what AutoTokenizer.from_pretrained() "
                            "returns")
        if not hasattr(image_processor, "image_seq_length"):
            raise ValueError("Image processor is missing an `image_seq_length` attribute.")
        if chat_template is not None:
            raise NotImplementedError("chat_template: PaliGemma has none, and none is followed")
        if not tokenizer._of_processor:
            tokenizer = _with_image_token(tokenizer)
        self._begin(image_processor, tokenizer)

    def _begin(self, image_processor: SiglipImageProcessor, tokenizer: PaliGemmaTokenizer) -> None:
        state = vars(self)
        state["_handle"], state["_info"] = tokenizer._handle, info_of(tokenizer._handle)
        state["name_or_path"] = tokenizer.name_or_path
        state["tokenizer"], state["image_processor"] = tokenizer, image_processor
        image_processor._of_processor = True
        state["image_seq_length"] = image_processor.image_seq_length
        state["image_token"], state["image_token_id"] = IMAGE_TOKEN, tokenizer.image_token_id

    @classmethod
    def _of_folder(cls, folder: str, image_settings: dict[str, Any], tokenizer: dict[str, Any]) -> PaliGemmaProcessor:
        made, handle = cls.__new__(cls), open_handle(folder)
        made._begin(SiglipImageProcessor._of_folder(folder, handle, image_settings),
                    PaliGemmaTokenizer(handle, info_of(handle), folder, **tokenizer))
        return made

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], *, revision: str | None = None,
                        cache_dir: str | os.PathLike[str] | None = None, subfolder: str = "",
                        **kwargs: Any) -> PaliGemmaProcessor:
        """Opens the processor of a checkpoint folder, or of a model id in the local Hugging Face cache.

        The image processor's settings, such as size and do_normalize, and the tokenizer's keywords, such as
        padding_side and model_max_length (paligemma.tokenizer.FOLLOWED), take the place of those in the files.
        padding, truncation, max_length, pad_to_multiple_of: for later calls that do not say otherwise. Other
        arguments of transformers' from_pretrained() are taken where they change nothing (see paligemma._hub.HARMLESS)
        and refused with a ValueError where they would.
        """
        image_settings = {name: kwargs.pop(name) for name in list(kwargs) if name in IMAGE_KEYWORDS}
        call = {name: kwargs.pop(name) for name in ("padding", "truncation", "max_length", "pad_to_multiple_of")
                if name in kwargs}
        tokenizer = keywords_of_tokenizer(kwargs)
        _hub.check_arguments(kwargs)
        folder = _hub.find(pretrained_model_name_or_path, revision, cache_dir, subfolder)
        with naming_the_base(pretrained_model_name_or_path, folder, "a processor"):
            made = cls._of_folder(folder, image_settings, tokenizer)
        if call.get("max_length") is not None:
            made.tokenizer.max_length = call["max_length"]
        made.tokenizer.init_kwargs.update(call)  # for later calls that do not say otherwise
        return made

    def __reduce__(self) -> Any:
        """A copy, in this process or another (a worker of a data loader), opens the checkpoint's files again."""
        self._handle.check_open()
        return _of_parts, (type(self), self.image_processor, self.tokenizer), {
            "name_or_path": self.name_or_path, "image_seq_length": self.image_seq_length}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            vars(self)[name] = value
        elif name == "image_seq_length":
            vars(self)[name] = checked(name, value)
            vars(self.image_processor)[name] = vars(self)[name]  # is saved with it
        elif name == "chat_template" and value is None:
            return
        elif name in ("image_processor", "tokenizer"):
            raise AttributeError(f"processor.{name} cannot be replaced: PaliGemmaProcessor(image_processor=, "
                                 "tokenizer=) makes a processor of other parts")
        elif vars(self).get(name, self) != value:
            raise AttributeError(f"processor.{name} cannot be set: it is not followed")

    # -- as files have it

    @classmethod
    def get_attributes(cls) -> list[str]:
        """The names of the parts."""
        return ["image_processor", "tokenizer"]

    def to_dict(self) -> dict[str, Any]:
        """What processor_config.json says."""
        return {"image_processor": self.image_processor.to_dict(), "processor_class": "PaliGemmaProcessor"}

    def to_json_string(self) -> str:
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    def to_json_file(self, json_file_path: str | os.PathLike[str]) -> None:
        with open(json_file_path, "w", encoding="utf-8") as file:
            file.write(self.to_json_string())

    def save_pretrained(self, save_directory: str | os.PathLike[str], push_to_hub: bool = False,
                        **unused: Any) -> list[str]:
        """Writes the tokenizer's files and processor_config.json with all settings as they are now; transformers and
        from_pretrained() read the same from them -> the path of processor_config.json in a list."""
        if push_to_hub:
            self.push_to_hub()
        os.makedirs(save_directory, exist_ok=True)
        self.tokenizer.save_pretrained(save_directory)
        path = os.path.join(save_directory, "processor_config.json")
        self.to_json_file(path)
        return [path]

    def push_to_hub(self, *unused: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(_hub.NO_PUSH)

    def __repr__(self) -> str:
        return (f"{type(self).__name__}:\n- image_processor: {self.image_processor!r}\n- tokenizer: {self.tokenizer!r}"
                f"\n\n{self.to_json_string()}")

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
        return ["pixel_values", "input_ids", "attention_mask", "token_type_ids", "labels"]

    unused_input_names: list[str] = []

    def _get_num_multimodal_tokens(self, image_sizes: Any = None, **unused: Any) -> MultiModalData:
        """The `<image>` tokens of images of these sizes, each (height, width)."""
        if image_sizes is None:
            return MultiModalData()
        n = len(image_sizes)
        return MultiModalData(num_image_tokens=[self.image_seq_length] * n, num_image_patches=[1] * n)

    # -- encoding

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        suffix: str | Sequence[str] | None = None,
        *,
        return_tensors: str | None = None,
        padding: bool | str | None = None,
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
        max_tokens: int | None = None,
        max_text_bytes: int | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """The batch that transformers' PaliGemmaProcessor makes of the same arguments: B rows of T tokens.

        images: an image, a list with one for each text, or a list of lists; PIL images, uint8 or float arrays and
            tensors ([H, W, C], [C, H, W], [H, W]), paths, the bytes of a PNG or JPEG file.
        text: one prompt or several; None: pixel values alone. suffix: the answers to learn.
        return_tensors: None for lists, "np", "pt".
        padding: False, True or "longest", "max_length", None for the tokenizer's own, else False; truncation: False, True or "longest_first", "only_first" (the
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
        max_image_pixels: larger files are refused. max_tokens: longer rows are refused, and more `<image>` than so
            many tokens; default 131072. max_text_bytes: longer prompts and suffixes are refused before they are
            tokenized, in bytes of UTF-8; default 16 for each of max_tokens.

        kwargs, also in images_kwargs, text_kwargs and common_kwargs: image settings for this call (size, do_resize,
        resample, do_rescale, rescale_factor, do_normalize, image_mean, image_std, do_convert_rgb), input_data_format
        ("channels_first", "channels_last") of arrays, return_attention_mask, return_mm_token_type_ids.

        -> BatchFeature with input_ids, token_type_ids, attention_mask i64 [B, T], pixel_values f32 [n_images, 3, S, S],
        labels i64 [B, T] (-100 outside the suffix); .rows reports what happened to each row.
        Raises ValueError (counts, rows that cannot be stacked, sizes), OSError (files).
        """
        arguments = Arguments({"return_tensors": return_tensors, "padding": padding, "truncation": truncation,
                               "max_length": max_length, "pad_to_multiple_of": pad_to_multiple_of,
                               "padding_side": padding_side}, kwargs, self.tokenizer.init_kwargs)
        options = arguments.text
        image_call = ImageCall(self.image_processor, arguments.images, self.image_seq_length)
        tensor_types = tensor_type(arguments.tensors), tensor_type(arguments.image_tensors)
        texts = _texts(text, images)
        _check_call(images, text, image_counts, mode)
        image_flags = _images.flags_of(exif, alpha)
        suffixes = _suffixes(suffix, texts)
        rows = None if images is None else _images.as_rows(images)
        counts = _image_counts(texts, rows, image_counts, parsed=mode == "hf" and not literal)
        encode = _encode_options(options, self.tokenizer, mode, flags=(
            image_flags | (c.ENCODE_LITERAL if literal else 0)
            | (c.ENCODE_KEEP_ENDS if keep_ends else 0) | (c.ENCODE_OPEN_SUFFIX if suffix_open else 0)))
        if max_image_pixels is not None:
            encode.max_image_pixels = max_image_pixels
        if max_tokens is not None:
            encode.max_tokens = max_tokens
        if max_text_bytes is not None:
            encode.max_text_bytes = max_text_bytes

        encode.image_settings = ctypes.pointer(image_call.struct)
        try:
            converted = image_call.convert([] if rows is None else _images.flat(rows), exif, alpha)
        except Exception as error:  # as errors of the library
            error.row = _row_of_image(counts, getattr(error, "image", None))  # type: ignore[attr-defined]
            raise
        pixels = None
        if mode == "hf" and not image_call.is_plain(converted):  # the library has no part in what follows its resize
            pixels = image_call.pixels(self._handle, converted, _only_images(encode), stacklevel=3)
            if texts is None:
                return BatchFeature({"pixel_values": stacked(pixels, tensor_types[1])})
            inputs = self._encode(texts, suffixes, None, counts, encode)
        else:
            inputs = self._encode(texts, suffixes, converted, counts, encode)
            if converted.scaled:
                pixels = array(inputs, c.lib.pg_inputs_get_tensor, b"pixel_values")
                pixels = image_call.as_bytes(pixels) if mode == "hf" else pixels
        return self._feature(inputs, texts, pixels, options, *tensor_types)

    def _encode(self, texts: list[str] | None, suffixes: list[str] | None, converted: _images.ImageList | None,
                counts: list[int] | None, encode: c.EncodeOptions) -> Handle:
        prompts, prompt_sizes = _strings_in(texts)
        answers, answer_sizes = _strings_in(suffixes)
        counted = (ctypes.c_int32 * len(counts))(*counts) if counts else None
        n_images = len(converted.scaled) if converted else 0
        batch = c.Batch(
            n_prompts=len(texts or []), n_suffixes=len(suffixes or []), n_images=n_images,
            n_image_counts=len(counts or []), prompts=prompts, suffixes=answers, prompt_sizes=prompt_sizes,
            suffix_sizes=answer_sizes, images=converted.images if converted and n_images else None, image_counts=counted)
        inputs = Handle("inputs")

        def run() -> None:
            c.check(c.lib.pg_processor_encode_batch(pointer, ctypes.byref(batch), ctypes.byref(encode),
                                                    ctypes.byref(inputs.pointer)))

        with self._handle.use() as pointer:
            if not n_images:
                run()
            else:  # large images take a while, and a pipe may be waited for
                cancel = CancelFlag()
                encode.cancel = cancel.pointer
                interruptible(run, cancel)
        return inputs

    def _feature(self, inputs: Handle, texts: list[str] | None, pixels: Any, options: dict[str, Any],
                 kind: str | None, pixel_kind: str | None) -> BatchFeature:
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
            if self.tokenizer.pad_token_id != self._info.pad_id:  # set by the user; the library knows the files'
                for row, report in zip(values["input_ids"], reports):
                    row[:report.first_token] = row[report.first_token + report.n_tokens:] = self.tokenizer.pad_token_id
            if options["return_mm_token_type_ids"]:
                values["mm_token_type_ids"] = (values["input_ids"] == self.image_token_id).astype(np.int64)
        labels = array(inputs, c.lib.pg_inputs_get_tensor, b"labels") if texts is not None else None
        if kind is None:
            values = {k: v.tolist() for k, v in values.items()}
        if labels is not None and kind == "pt":
            labels = like_inputs(labels, True)
        if kind == "pt":
            values = {k: like_inputs(v, True) for k, v in values.items()}
        if pixels is not None:
            values["pixel_values"] = stacked(pixels, pixel_kind)
        if labels is not None:
            values["labels"] = labels  # an array also without return_tensors, as transformers leaves it
        return BatchFeature(values, reports)


@dataclass
class MultiModalData:
    """Numbers of tokens and patches for inputs of given sizes."""

    num_image_tokens: list[int] | None = None
    num_video_tokens: list[int] | None = None
    num_audio_tokens: list[int] | None = None
    num_image_patches: list[int] | None = None

    def __contains__(self, key: str) -> bool:
        return getattr(self, key, None) is not None

    def __getitem__(self, key: str) -> Any:
        if key in self:
            return getattr(self, key)
        raise KeyError(key)


def _of_parts(cls: type[PaliGemmaProcessor], images: SiglipImageProcessor,
              tokenizer: PaliGemmaTokenizer) -> PaliGemmaProcessor:
    made = cls.__new__(cls)
    made._begin(images, tokenizer)
    return made


def _with_image_token(tokenizer: PaliGemmaTokenizer) -> PaliGemmaTokenizer:
    """What AutoTokenizer opened, with the tokens that a processor adds and without bos and eos of its own."""
    handle = open_handle(tokenizer._folder)
    made = PaliGemmaTokenizer(handle, info_of(handle), tokenizer._folder)
    for name in ("padding_side", "truncation_side", "model_max_length", "name_or_path"):
        setattr(made, name, getattr(tokenizer, name))
    return made


def _only_images(encode: c.EncodeOptions) -> c.EncodeOptions:
    """The options that concern images."""
    return c.EncodeOptions(flags=encode.flags & c.ENCODE_EXIF, max_image_pixels=encode.max_image_pixels)


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


def _row_of_image(counts: list[int] | None, image: int | None) -> int | None:
    """The row that an image belongs to."""
    return None if image is None or counts is None else int(np.searchsorted(np.cumsum(counts), image, side="right"))


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
    if max_length is None and (cuts or kind == c.PADDING_MAX_LENGTH):
        if tokenizer.model_max_length > LARGE:
            cuts, kind = False, c.PADDING_NONE if kind == c.PADDING_MAX_LENGTH else kind
        else:
            max_length = int(tokenizer.model_max_length)
    if kind != c.PADDING_NONE and tokenizer.pad_token_id is None:
        raise ValueError("Asking to pad but the tokenizer does not have a padding token. Please select a token to use as "
                         "`pad_token` `(tokenizer.pad_token = tokenizer.eos_token e.g.)`.")
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
