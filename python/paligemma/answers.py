# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Answers as data: parse_answer() makes objects of <loc> and <seg>, MaskDecoder masks of their codes, model.detect() and
model.segment() arrays for supervision.Detections.

docs/ANSWERS.md has the grammar, the two conventions, and what a score is.
"""
from __future__ import annotations

import ctypes
import math
import os
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Iterator, Sequence

import numpy as np

from . import _images, _library as c
from ._generate import is_whole
from ._handle import Handle, array
from ._run import CancelFlag, interruptible
from .image_processor import ImageCall
from .outputs import to_ids, to_numpy

FLAGS = {c.OBJECT_PARTIAL: "partial", c.OBJECT_OUT_OF_RANGE: "out_of_range", c.OBJECT_OUT_OF_ORDER: "out_of_order",
         c.OBJECT_EMPTY: "empty", c.OBJECT_STRAY_SEG: "stray_seg", c.OBJECT_NO_LABEL: "no_label",
         c.OBJECT_LABEL_BEFORE: "label_before", c.OBJECT_LABEL_SHARED: "label_shared",
         c.OBJECT_SEG_PARTIAL: "seg_partial", c.OBJECT_SEG_MORE: "seg_more", c.OBJECT_UNFINISHED: "unfinished",
         c.OBJECT_DUPLICATE: "duplicate"}
CONVENTIONS = {1024: c.BOX_1024, 1023: c.BOX_1023}


@dataclass(frozen=True)
class AnswerObject:
    """An object of an answer; what the answer does not say is None."""

    label: str  # "": none
    box: tuple[float, float, float, float] | None  # x0, y0, x1, y1 in pixels, as the answer says it
    point: tuple[float, float] | None  # x, y
    score: float | None  # 0 to 1; None without log-probabilities
    loc_score: float | None
    label_score: float | None
    locs: tuple[int, ...]  # y0, x0, y1, x1
    segs: tuple[int, ...]  # codes of the mask
    flags: tuple[str, ...]  # of FLAGS' values
    broken: bool  # no box or point that can be used
    duplicate_of: int | None  # index of the better one, with max_iou


class Answer(Sequence[AnswerObject]):
    """The objects of an answer in its order, broken ones and duplicates included; text: where they were found."""

    def __init__(self, handle: Handle, options: c.AnswerOptions) -> None:
        self.image_size: tuple[int, int] = (options.width, options.height)
        self._convention, self._points = int(options.convention), bool(options.flags & c.ANSWER_POINTS)
        window = options.window[0] if options.window else None
        self._window = None if window is None else (window.x, window.y, window.width, window.height)
        with handle.use() as pointer:
            count = c.lib.pg_answer_get_n_objects(pointer)
            self.text: str = c.lib.pg_answer_get_text(pointer).decode("utf-8")
            self._objects = [_object(pointer, index) for index in range(count)]

    def __len__(self) -> int:
        return len(self._objects)

    def __getitem__(self, index: Any) -> Any:
        return self._objects[index]

    def __iter__(self) -> Iterator[AnswerObject]:
        return iter(self._objects)

    def __repr__(self) -> str:
        return f"Answer({self._objects!r})"

    def detections(self, classes: Sequence[str] | None = None, mask_decoder: MaskDecoder | None = None) -> Detections:
        """Boxes that can be used, duplicates left out, as keywords of supervision.Detections: xyxy f32 [n, 4],
        confidence f32 [n] (None without scores), class_id int [n], data["class_name"] str [n]; with a mask decoder also
        mask bool [n, height, width] of the image, all False where an object has a box and no mask.

        classes: class_id is a label's index in it; labels that are not in it follow in the order they come."""
        kept = [i for i, o in enumerate(self) if o.box and not o.broken and o.duplicate_of is None]
        found = [self[i] for i in kept]
        names = list(dict.fromkeys([*(classes or []), *(o.label for o in found)]))
        scores = [o.score for o in found]
        width, height = self.image_size
        masks: dict[str, Any] = {}
        if mask_decoder is not None:
            masks["mask"] = np.zeros((len(kept), height, width), bool)
            for row, index in enumerate(kept):
                mask = mask_decoder.mask(self, index)
                if mask is not None:
                    masks["mask"][row] = mask
        return Detections(self, dict(
            masks, xyxy=np.array([o.box for o in found], np.float32).reshape(-1, 4),
            confidence=np.array(scores, np.float32) if None not in scores else None,
            class_id=np.array([names.index(o.label) for o in found], int),
            data={"class_name": np.array([o.label for o in found], dtype=str)}))


class MaskDecoder:
    """Makes masks of the 16 codes that an answer to "segment cat" has for an object; from_pretrained() opens one.

    close() or `with` ends it. Any number of threads may use it."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike[str], *, cpu: str | None = None) -> MaskDecoder:
        """path: vae-oid.npz as big_vision publishes it, a copy of it in safetensors, or a folder with one of these, such
        as a model's. cpu: as of the model. Raises FileNotFoundError, OSError (no such decoder, or damaged)."""
        handle = Handle("mask_decoder", "mask decoder")
        if cpu not in c.CPU_MASKS:
            raise ValueError(f"cpu is {cpu!r}, expected one of {list(c.CPU_MASKS)}")
        options = c.MaskDecoderOptions(cpu_mask=c.CPU_MASKS[cpu])
        c.check(c.lib.pg_mask_decoder_open(os.fsencode(path), ctypes.byref(options), ctypes.byref(handle.pointer)))
        return cls(handle)

    def decode(self, codes: Any) -> np.ndarray:
        """f32 [64, 64] of 16 codes, 0 to 127: about -1 outside and 1 inside, the edge at 0."""
        given = to_ids("codes", codes)
        if given.shape != (16,):
            raise ValueError(f"codes is {list(given.shape)}, expected [16]")
        for index, code in enumerate(given.tolist()):
            if not 0 <= code < 128:
                raise ValueError(f"codes[{index}] is {code}, expected 0 to 127")
        mask = np.empty((64, 64), np.float32)
        with self._handle.use() as pointer:
            c.check(c.lib.pg_mask_decoder_decode(pointer, (c.i32 * 16)(*given.tolist()),
                                                 mask.ctypes.data_as(c.P(c.f32))))
        return mask

    def mask(self, answer: Answer, index: int) -> np.ndarray | None:
        """bool [height, width] of the image: the mask of answer[index]. None: the object has none, as it has no box that
        can be used or fewer than 16 codes."""
        found, (width, height) = answer[index], answer.image_size
        text = "".join([*(f"<loc{n:04d}>" for n in found.locs), *(f"<seg{n:03d}>" for n in found.segs)]).encode()
        options = c.AnswerOptions(flags=c.ANSWER_POINTS if answer._points else 0, width=width, height=height,
                                  convention=answer._convention)
        _set_window(options, answer._window)
        one, mask = Handle("answer"), np.empty((height, width), np.uint8)
        c.check(c.lib.pg_answer_create_from_text(text, len(text), ctypes.byref(options), ctypes.byref(one.pointer)))
        with self._handle.use() as decoder, one.use() as pointer:
            status = c.lib.pg_answer_get_mask(pointer, 0, decoder, mask.ctypes.data, mask.size)
            if status == c.ERROR_NOT_FOUND:
                return None
            c.check(status)
        return mask >= 128

    def close(self) -> None:
        """May be called twice."""
        self._handle.close()

    def __enter__(self) -> MaskDecoder:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


class Detections(dict):
    """Keywords of supervision.Detections; answer: the Answer that they were taken from."""

    def __init__(self, answer: Answer, arrays: dict[str, Any]) -> None:
        super().__init__(arrays)
        self.answer = answer


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _object(answer: Any, index: int) -> AnswerObject:
    found = c.Object()
    c.check(c.lib.pg_answer_get_object(answer, index, ctypes.byref(found)))
    return of_struct(found)


def of_struct(found: c.Object) -> AnswerObject:
    """A pg_object while its label is valid."""
    address = c.c_void_p.from_buffer(found, c.Object.label.offset).value  # the field itself ends at a byte 0
    label = ctypes.string_at(address, found.label_size) if address else b""
    box, point = tuple(found.box), tuple(found.point)
    return AnswerObject(
        label=label.decode("utf-8"), box=None if math.isnan(box[0]) else box,
        point=None if math.isnan(point[0]) else point, score=_number(found.score),
        loc_score=_number(found.loc_score), label_score=_number(found.label_score), locs=tuple(found.locs[:found.n_locs]),
        segs=tuple(found.segs[:found.n_segs]), flags=tuple(name for bit, name in FLAGS.items() if found.flags & bit),
        broken=bool(found.flags & c.OBJECT_BROKEN),
        duplicate_of=None if found.duplicate_of < 0 else found.duplicate_of)


def convention_of(convention: int) -> int:
    """The C library's number of a convention."""
    if convention not in CONVENTIONS:
        raise ValueError(f"convention is {convention!r}, expected 1024 or 1023")
    return CONVENTIONS[convention]


def _options(width: int, height: int, convention: int, points: bool, max_iou: float | None) -> c.AnswerOptions:
    if max_iou is not None and (isinstance(max_iou, bool) or not isinstance(max_iou, (int, float, np.number))):
        raise TypeError(f"max_iou is {max_iou!r}, expected a number above 0 and below 1, or None")
    return c.AnswerOptions(flags=c.ANSWER_POINTS if points else 0, width=width, height=height,
                           convention=convention_of(convention), max_iou=0.0 if max_iou is None else max_iou)


def _set_window(options: c.AnswerOptions, window: Sequence[float] | None) -> None:
    if window is not None:
        x, y, width, height = (float(number) for number in window)
        options.window = ctypes.pointer(c.Window(x=x, y=y, width=width, height=height))


def parse_answer(answer: Any, image_size: tuple[int, int], *, processor: Any = None, log_probs: Any = None,
                 convention: int = 1024, points: bool = False, max_iou: float | None = None,
                 window: Sequence[float] | None = None) -> Answer:
    """The objects in an answer: a text, or its ids with a processor, and then their log-probabilities for scores.

    image_size: (width, height) of the image as it was before the resize. convention: 1024 (Hugging Face's blog,
    supervision) or 1023 (the training code). points: two locs are a point, for fine-tunes that say points. max_iou: of
    two boxes with one label that overlap more, one is a duplicate. window: (x, y, width, height) that the model saw, as
    Frame.window() gives it; None: the whole image."""
    width, height = image_size
    options = _options(int(width), int(height), convention, points, max_iou)
    _set_window(options, window)
    handle = Handle("answer")
    if isinstance(answer, str):
        if log_probs is not None:
            raise ValueError("log_probs belong to ids, but the answer is a text")
        text = answer.encode("utf-8")
        c.check(c.lib.pg_answer_create_from_text(text, len(text), ctypes.byref(options), ctypes.byref(handle.pointer)))
        return Answer(handle, options)
    if processor is None:
        raise ValueError("the answer is no text: its ids need a processor")
    ids = to_ids("answer", answer)
    given = None if log_probs is None else np.ascontiguousarray(to_numpy(log_probs, np.float32))
    if ids.ndim != 1 or (given is not None and given.shape != ids.shape):
        raise ValueError(f"ids are {list(ids.shape)} and log_probs {None if given is None else list(given.shape)}, "
                         "expected one row of n each")
    with processor._handle.use() as pointer:
        c.check(c.lib.pg_answer_create_from_ids(
            pointer, ids.ctypes.data_as(c.P(c.i64)), None if given is None else given.ctypes.data_as(c.P(c.f32)),
            len(ids), ctypes.byref(options), ctypes.byref(handle.pointer)))
    return Answer(handle, options)


def _things(task: str, things: str | Sequence[str]) -> list[str]:
    names: Any = things
    if isinstance(things, str):  # as the tool reads it
        names = [name for name in things.lstrip().removeprefix(task + " ").split(";") if name.strip()]
    names = list(names) if isinstance(names, (list, tuple)) else []
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError(f"things is {things!r}, expected names such as 'cat ; dog' or ['cat', 'dog']")
    return [name.strip() for name in names]


def detect(model: Any, images: Any, things: str | Sequence[str], *, processor: Any = None, max_new_tokens: int = 256,
           constrain: bool = False, max_iou: float | None = None, convention: int = 1024, exif: bool = True,
           alpha: str = "drop", cancel: CancelFlag | None = None) -> Any:
    """Boxes of things in an image, for `supervision.Detections(**model.detect(image, "cat ; dog"))`.

    images: an image of any kind that the processor takes, or a list of them, which gives a list. things: "cat ; dog",
    with or without "detect " in front, or ["cat", "dog"]; class_id is the index in it. processor: default, the one in
    the model's folder. constrain: the model can say nothing but whole boxes with labels. max_iou, convention: as of
    parse_answer(). exif, alpha: as of the processor. -> Answer.detections(), with the Answer as its attribute `answer`."""
    return _find(model, images, "detect", things, processor, max_new_tokens, c.GENERATE_DETECT if constrain else 0,
                 max_iou, convention, exif, alpha, cancel, None)


def segment(model: Any, images: Any, things: str | Sequence[str], *,
            mask_decoder: MaskDecoder | str | os.PathLike[str] | None = None, processor: Any = None,
            max_new_tokens: int = 1024, constrain: bool = False, max_iou: float | None = None, convention: int = 1024,
            exif: bool = True, alpha: str = "drop", cancel: CancelFlag | None = None) -> Any:
    """detect() with masks: the keywords have also mask, bool [n, height, width] of the image.

    mask_decoder: a MaskDecoder, or what MaskDecoder.from_pretrained() takes; default: the model's folder has one. An
    object with a box that can be used and no mask (fewer than 16 codes) stays, and its mask is all False;
    `mask_decoder.mask(found.answer, index)` is None then. max_new_tokens: an object takes 20 and its label.
    constrain: the model can say nothing but whole boxes with 16 codes and a label; the last may go without one. All else
    as of detect()."""
    opened = isinstance(mask_decoder, MaskDecoder)
    with (nullcontext(mask_decoder) if opened else
          MaskDecoder.from_pretrained(model.name_or_path if mask_decoder is None else mask_decoder)) as decoder:
        decoder._handle.check_open()
        return _find(model, images, "segment", things, processor, max_new_tokens,
                     c.GENERATE_SEGMENT if constrain else 0, max_iou, convention, exif, alpha, cancel, decoder)


def _find(model: Any, images: Any, task: str, things: str | Sequence[str], processor: Any, max_new_tokens: int,
          flags: int, max_iou: float | None, convention: int, exif: bool, alpha: str, cancel: CancelFlag | None,
          decoder: MaskDecoder | None) -> Any:
    if not is_whole(max_new_tokens):
        raise TypeError(f"max_new_tokens is {max_new_tokens!r}, expected an integer")
    if max_new_tokens < 1:  # 0 is the library's word for the default of the model's folder
        raise ValueError(f"max_new_tokens is {max_new_tokens}, expected 1 or more")
    names = _things(task, things)
    rows = _images.as_rows(images)
    sources = rows if isinstance(rows, list) else [rows]
    if any(isinstance(row, list) for row in sources):
        raise ValueError("images is a list of lists, expected an image or a list of images")
    answers = _generate(model, sources, f"{task} " + " ; ".join(names), processor, max_new_tokens, flags, exif, alpha,
                        lambda width, height: _options(width, height, convention, False, max_iou), cancel or CancelFlag())
    found = [answer.detections(names, decoder) for answer in answers]
    return found if isinstance(rows, list) else found[0]


def _image_settings(processor: Any, handle: Handle) -> c.ImageSettings:
    """Those of the processor, with what was set on its image processor; without a processor, those of the folder."""
    if processor is not None:
        return ImageCall(processor.image_processor, {}, processor.image_seq_length).struct
    settings = c.ImageSettings()
    with handle.use() as pointer:
        c.check(c.lib.pg_processor_get_image_settings(pointer, ctypes.byref(settings)))
    return settings


def _generate(model: Any, sources: list[Any], prompt: str, processor: Any, max_new_tokens: int, flags: int,
              exif: bool, alpha: str, options_of: Any, cancel: CancelFlag) -> list[Answer]:
    """An answer of the model for each image."""
    model._handle.check_open()
    options_of(1, 1)  # what is wrong with them is told before anything is computed
    tokenizer = processor._handle if processor is not None else model._own_processor()
    settings = _image_settings(processor, tokenizer)
    converted = _images.convert(sources, exif, alpha, bool(settings.do_convert_rgb), True, None)
    prompts = (ctypes.c_char_p * len(sources))(*[prompt.encode("utf-8")] * len(sources))
    sizes = (c.u64 * len(sources))(*[len(prompt.encode("utf-8"))] * len(sources))
    batch = c.Batch(n_prompts=len(sources), n_images=len(sources), prompts=prompts, prompt_sizes=sizes,
                    images=converted.images)
    encode = _images.encode_options(exif, alpha)
    encode.image_settings = ctypes.pointer(settings)
    inputs, result = Handle("inputs"), Handle("result")

    def work() -> None:
        with model._handle.use() as network, tokenizer.use() as pointer, cancel.use() as flag:
            encode.cancel = flag
            c.check(c.lib.pg_processor_encode_batch(pointer, ctypes.byref(batch), ctypes.byref(encode),
                                                    ctypes.byref(inputs.pointer)))
            options = c.GenerateOptions(flags=c.GENERATE_LOG_PROBS | flags, max_new_tokens=max_new_tokens, n_return=1,
                                        n_threads=model.n_threads, cancel=flag)  # one row for each image
            c.check(c.lib.pg_generate(network, pointer, inputs.pointer, ctypes.byref(options),
                                      ctypes.byref(result.pointer)))

    interruptible(work, cancel)
    sizes = array(inputs, c.lib.pg_inputs_get_tensor, b"image_sizes").tolist()
    answers = []
    with tokenizer.use() as pointer, result.use() as rows:
        for row, (height, width) in enumerate(sizes):
            handle, options, window = Handle("answer"), options_of(width, height), c.Window()
            c.check(c.lib.pg_image_get_window(ctypes.byref(converted.images[row]), width, height, settings.width,
                                              settings.height, ctypes.byref(window)))
            options.window = ctypes.pointer(window)
            c.check(c.lib.pg_answer_create(pointer, rows, row, ctypes.byref(options), ctypes.byref(handle.pointer)))
            answers.append(Answer(handle, options))
    return answers
