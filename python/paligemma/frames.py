# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Frame: raw pixels of a camera, or a part of any image, and how it is fitted into what the model takes."""
from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any, Sequence

import numpy as np

from . import _library as c

FORMATS = {"RGB8": c.IMAGE_RGB8, "BGR8": c.IMAGE_BGR8, "RGBA8": c.IMAGE_RGBA8, "BGRA8": c.IMAGE_BGRA8,
           "GRAY8": c.IMAGE_GRAY8, "RGB565": c.IMAGE_RGB565, "GRAY16": c.IMAGE_GRAY16, "NV12": c.IMAGE_NV12,
           "NV21": c.IMAGE_NV21, "I420": c.IMAGE_I420, "YUYV": c.IMAGE_YUYV, "UYVY": c.IMAGE_UYVY}
MATRICES = {"bt601": c.YUV_BT601, "bt709": c.YUV_BT709}
RANGES = {"video": c.YUV_VIDEO, "full": c.YUV_FULL}
FITS = {"stretch": c.FIT_STRETCH, "letterbox": c.FIT_LETTERBOX, "pad_top_left": c.FIT_PAD_TOP_LEFT}


def _of(table: dict[str, int], name: str, value: Any) -> int:
    if value not in table:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(table)}")
    return table[value]


def _whole(name: str, values: Any, n: int) -> list[int]:
    numbers = list(values)
    if len(numbers) != n or any(isinstance(v, bool) or not isinstance(v, (int, np.integer)) for v in numbers):
        raise ValueError(f"{name} is {values!r}, expected {n} whole numbers")
    return [int(v) for v in numbers]


@dataclass
class Frame:
    """Stands wherever an image does: `processor(Frame(buffer, "NV12", 1920, 1080), "caption en")`.

    data: with a format, raw pixels as bytes, bytearray, memoryview or an array (they are read where they lie, not
    copied), one buffer with all planes; or a list of planes. Without a format, any image that a processor takes. width,
    height: pixels, raw formats only. stride: bytes from row to row, None: dense; with a list of planes a list.
    matrix, range: of Y, U and V: "bt601" or "bt709", "video" or "full". gray: of GRAY16, what becomes 0 and 255.
    roi: (x, y, width, height) in pixels, the part that is used; None: the whole. fit: "stretch" as transformers does,
    "letterbox" as openpi's policies, "pad_top_left" as lerobot's SmolVLA. background: R, G, B of the letterbox.
    over_background: what is transparent in RGBA8, BGRA8 and files is laid over it.

    Boxes and masks of model.detect() and model.segment() are in pixels of the whole image; see window() for others."""

    data: Any
    format: str | None = None
    width: int = 0
    height: int = 0
    stride: int | Sequence[int] | None = None
    matrix: str = "bt601"
    range: str = "video"
    gray: tuple[int, int] | None = None
    roi: tuple[int, int, int, int] | None = None
    fit: str = "stretch"
    background: tuple[int, int, int] = (0, 0, 0)
    over_background: bool = False

    def describe(self, image: c.Image) -> None:
        """Sets how the image is fitted; ValueError for what no image can have."""
        image.yuv_matrix, image.yuv_range = _of(MATRICES, "matrix", self.matrix), _of(RANGES, "range", self.range)
        image.fit = _of(FITS, "fit", self.fit)
        color = _whole("background", self.background, 3)
        if any(not 0 <= value <= 255 for value in color):
            raise ValueError(f"background is {self.background!r}, expected R, G and B of 0 to 255")
        image.background[:3] = color
        image.flags = c.IMAGE_OVER_BACKGROUND if self.over_background else 0
        if self.roi is not None:
            roi = _whole("roi", self.roi, 4)
            if any(not -2**31 <= value < 2**31 for value in roi) or not any(roi):
                raise ValueError(f"roi is {self.roi!r}, expected x, y, width and height in pixels")
            image.roi[:] = roi
        if self.gray is not None:
            low, high = _whole("gray", self.gray, 2)
            if not 0 <= low < high <= 65535:
                raise ValueError(f"gray is {self.gray!r}, expected what becomes 0, and a larger number that becomes 255, "
                                 "up to 65535")
            image.gray_min, image.gray_max = low, high

    def borrow(self, image: c.Image) -> list[Any]:
        """Describes raw pixels; what is returned must stay as long as `image` is used."""
        form = _of(FORMATS, "format", self.format)
        width, height = _whole("width and height", (self.width, self.height), 2)
        if isinstance(self.data, (list, tuple)):
            planes = [_bytes(plane) for plane in self.data]
            wanted = 3 if form == c.IMAGE_I420 else 2 if form in (c.IMAGE_NV12, c.IMAGE_NV21) else 1
            if len(planes) != wanted:
                raise ValueError(f"data has {len(planes)} planes, expected the {wanted} of {self.format}")
            strides = None if self.stride is None else (c.i64 * wanted)(*_whole("stride", self.stride, wanted))
            pointers = (c.c_void_p * wanted)(*(plane.ctypes.data for plane in planes))
            c.check(c.lib.pg_image_from_planes(ctypes.byref(image), ctypes.sizeof(image), form, width, height, pointers,
                                               strides))
            _check_planes(image, planes, form)
        else:
            planes = [_bytes(self.data)]
            stride = 0 if self.stride is None else _whole("stride", (self.stride,), 1)[0]
            if stride < 0:
                raise ValueError(f"stride is {stride}, expected 0 or more: a view with its rows turned round is copied")
            c.check(c.lib.pg_image_from_pixels(ctypes.byref(image), ctypes.sizeof(image), form, width, height,
                                               planes[0].ctypes.data, stride))
            image.n_bytes = planes[0].nbytes
            if not planes[0].nbytes:
                raise ValueError("data is empty, expected the pixels")
        return planes

    def window(self, model_size: tuple[int, int], image_size: tuple[int, int] | None = None) -> tuple[float, ...]:
        """(x, y, width, height) of what a model of model_size (width, height) sees, in pixels of the whole image: for
        parse_answer(window=). image_size: (width, height) of the whole image; None: that of raw pixels."""
        image, window = c.Image(format=FORMATS.get(str(self.format), c.IMAGE_PATH), width=self.width, height=self.height), c.Window()
        self.describe(image)
        width, height = (0, 0) if image_size is None else _whole("image_size", image_size, 2)
        c.check(c.lib.pg_image_get_window(ctypes.byref(image), width, height, *_whole("model_size", model_size, 2),
                                          ctypes.byref(window)))
        return window.x, window.y, window.width, window.height


def _bytes(data: Any) -> np.ndarray:
    """u8 of a buffer or array, where it lies if its bytes lie together."""
    if isinstance(data, np.ndarray):
        return np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    try:
        return np.frombuffer(data, np.uint8)
    except (TypeError, ValueError, BufferError):
        raise TypeError(f"data is a {type(data).__name__}, expected bytes, bytearray, memoryview or an array") from None


def _check_planes(image: c.Image, planes: list[np.ndarray], form: int) -> None:
    """Each plane has all of its rows: the library cannot know where a buffer ends that is not the first."""
    for index, plane in enumerate(planes):
        halved = index > 0
        rows = (image.height + 1) // 2 if halved else image.height
        least = c.Image()
        c.check(c.lib.pg_image_from_planes(ctypes.byref(least), ctypes.sizeof(least), form, image.width, image.height,
                                           (c.c_void_p * 3)(1, 1, 1), None))
        stride = image.strides[index]
        if stride < 0:
            raise ValueError(f"stride is {stride}, expected 0 or more")
        needed = stride * (rows - 1) + least.strides[index]
        if plane.nbytes < needed:
            raise ValueError(f"plane {index} has {plane.nbytes} bytes, expected at least {needed} for {rows} rows that "
                             f"lie {stride} bytes apart")
