# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Answers as data: parse_answer() makes objects of <loc> and <seg>, model.detect() arrays for supervision.Detections.

docs/ANSWERS.md has the grammar, the two conventions, and what a score is.
"""
from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from typing import Any, Iterator, Sequence

import numpy as np

from . import _images, _library as c
from ._handle import Handle, array
from ._run import CancelFlag, interruptible
from .image_processor import ImageCall
from .outputs import to_numpy

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

    def __init__(self, handle: Handle) -> None:
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

    def detections(self, classes: Sequence[str] | None = None) -> Detections:
        """Boxes that can be used, duplicates left out, as keywords of supervision.Detections: xyxy f32 [n, 4],
        confidence f32 [n] (None without scores), class_id int [n], data["class_name"] str [n].

        classes: class_id is a label's index in it; labels that are not in it follow in the order they come."""
        found = [o for o in self if o.box and not o.broken and o.duplicate_of is None]
        names = list(dict.fromkeys([*(classes or []), *(o.label for o in found)]))
        scores = [o.score for o in found]
        return Detections(self, dict(
            xyxy=np.array([o.box for o in found], np.float32).reshape(-1, 4),
            confidence=np.array(scores, np.float32) if None not in scores else None,
            class_id=np.array([names.index(o.label) for o in found], int),
            data={"class_name": np.array([o.label for o in found], dtype=str)}))


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


def _options(width: int, height: int, convention: int, points: bool, max_iou: float | None) -> c.AnswerOptions:
    if convention not in CONVENTIONS:
        raise ValueError(f"convention is {convention!r}, expected 1024 or 1023")
    return c.AnswerOptions(flags=c.ANSWER_POINTS if points else 0, width=width, height=height,
                           convention=CONVENTIONS[convention], max_iou=0.0 if max_iou is None else max_iou)


def parse_answer(answer: Any, image_size: tuple[int, int], *, processor: Any = None, log_probs: Any = None,
                 convention: int = 1024, points: bool = False, max_iou: float | None = None) -> Answer:
    """The objects in an answer: a text, or its ids with a processor, and then their log-probabilities for scores.

    image_size: (width, height) of the image as it was before the resize. convention: 1024 (Hugging Face's blog,
    supervision) or 1023 (the training code). points: two locs are a point, for fine-tunes that say points. max_iou: of
    two boxes with one label that overlap more, one is a duplicate."""
    width, height = image_size
    options = _options(int(width), int(height), convention, points, max_iou)
    handle = Handle("answer")
    if isinstance(answer, str):
        if log_probs is not None:
            raise ValueError("log_probs belong to ids, but the answer is a text")
        text = answer.encode("utf-8")
        c.check(c.lib.pg_answer_create_from_text(text, len(text), ctypes.byref(options), ctypes.byref(handle.pointer)))
        return Answer(handle)
    if processor is None:
        raise ValueError("the answer is no text: its ids need a processor")
    ids = np.ascontiguousarray(to_numpy(answer, np.int64))
    given = None if log_probs is None else np.ascontiguousarray(to_numpy(log_probs, np.float32))
    if ids.ndim != 1 or (given is not None and given.shape != ids.shape):
        raise ValueError(f"ids are {list(ids.shape)} and log_probs {None if given is None else list(given.shape)}, "
                         "expected one row of n each")
    with processor._handle.use() as pointer:
        c.check(c.lib.pg_answer_create_from_ids(
            pointer, ids.ctypes.data_as(c.P(c.i64)), None if given is None else given.ctypes.data_as(c.P(c.f32)),
            len(ids), ctypes.byref(options), ctypes.byref(handle.pointer)))
    return Answer(handle)


def _things(things: str | Sequence[str]) -> list[str]:
    if isinstance(things, str):
        things = things.removeprefix("detect ").split(";")
    names = [name.strip() for name in things]
    if not any(names):
        raise ValueError(f"things is {things!r}, expected names such as 'cat ; dog' or ['cat', 'dog']")
    return names


def detect(model: Any, images: Any, things: str | Sequence[str], *, processor: Any = None, max_new_tokens: int = 256,
           constrain: bool = False, max_iou: float | None = None, convention: int = 1024, exif: bool = True,
           alpha: str = "drop", cancel: CancelFlag | None = None) -> Any:
    """Boxes of things in an image, for `supervision.Detections(**model.detect(image, "cat ; dog"))`.

    images: an image of any kind that the processor takes, or a list of them, which gives a list. things: "cat ; dog",
    with or without "detect " in front, or ["cat", "dog"]; class_id is the index in it. processor: default, the one in
    the model's folder. constrain: the model can say nothing but whole boxes with labels. max_iou, convention: as of
    parse_answer(). exif, alpha: as of the processor. -> Answer.detections(), with the Answer as its attribute `answer`."""
    if alpha not in ("drop", "white"):
        raise ValueError(f"alpha is {alpha!r}, expected \"drop\" or \"white\"")
    if max_new_tokens < 1:  # 0 is the library's word for the default of the model's folder
        raise ValueError(f"max_new_tokens is {max_new_tokens}, expected 1 or more")
    names = _things(things)
    rows = _images.as_rows(images)
    sources = rows if isinstance(rows, list) else [rows]
    if any(isinstance(row, list) for row in sources):
        raise ValueError("images is a list of lists, expected an image or a list of images")
    answers = _generate(model, sources, "detect " + " ; ".join(names), processor, max_new_tokens, constrain, exif, alpha,
                        lambda width, height: _options(width, height, convention, False, max_iou), cancel or CancelFlag())
    found = [answer.detections(names) for answer in answers]
    return found if isinstance(rows, list) else found[0]


def _image_settings(processor: Any, handle: Handle) -> c.ImageSettings:
    """Those of the processor, with what was set on its image processor; without a processor, those of the folder."""
    if processor is not None:
        return ImageCall(processor.image_processor, {}, processor.image_seq_length).struct
    settings = c.ImageSettings()
    with handle.use() as pointer:
        c.check(c.lib.pg_processor_get_image_settings(pointer, ctypes.byref(settings)))
    return settings


def _generate(model: Any, sources: list[Any], prompt: str, processor: Any, max_new_tokens: int, constrain: bool,
              exif: bool, alpha: str, options_of: Any, cancel: CancelFlag) -> list[Answer]:
    """An answer of the model for each image."""
    model._handle.check_open()
    options_of(1, 1)  # what is wrong with them is told before anything is computed
    tokenizer = processor._handle if processor is not None else model._own_processor()
    settings = _image_settings(processor, tokenizer)
    converted = _images.convert(sources, exif, alpha, bool(settings.do_convert_rgb), True, None)
    prompts = (ctypes.c_char_p * len(sources))(*[prompt.encode("utf-8")] * len(sources))
    batch = c.Batch(n_prompts=len(sources), n_images=len(sources), prompts=prompts, images=converted.images)
    encode = c.EncodeOptions()
    c.check(c.lib.pg_encode_options_init(ctypes.byref(encode), ctypes.sizeof(encode)))
    encode.flags = (c.ENCODE_EXIF if exif else 0) | (c.ENCODE_OVER_WHITE if alpha == "white" else 0)
    encode.image_settings = ctypes.pointer(settings)
    inputs, result = Handle("inputs"), Handle("result")

    def work() -> None:
        with model._handle.use() as network, tokenizer.use() as pointer, cancel.use() as flag:
            encode.cancel = flag
            c.check(c.lib.pg_processor_encode_batch(pointer, ctypes.byref(batch), ctypes.byref(encode),
                                                    ctypes.byref(inputs.pointer)))
            options = c.GenerateOptions(flags=c.GENERATE_LOG_PROBS | (c.GENERATE_DETECT if constrain else 0),
                                        max_new_tokens=max_new_tokens, n_threads=model.n_threads, cancel=flag)
            c.check(c.lib.pg_generate(network, pointer, inputs.pointer, ctypes.byref(options),
                                      ctypes.byref(result.pointer)))

    interruptible(work, cancel)
    sizes = array(inputs, c.lib.pg_inputs_get_tensor, b"image_sizes").tolist()
    answers = []
    with tokenizer.use() as pointer, result.use() as rows:
        for row, (height, width) in enumerate(sizes):
            handle, options = Handle("answer"), options_of(width, height)
            c.check(c.lib.pg_answer_create(pointer, rows, row, ctypes.byref(options), ctypes.byref(handle.pointer)))
            answers.append(Answer(handle))
    return answers
