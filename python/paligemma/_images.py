# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Images of every kind that people hand to a processor, as pg_image.

What transformers' SiglipImageProcessorPil does before its resize: alpha is laid over white, single channels are
repeated, the channel axis is found, and floats become 8 bits (PilBackend.process_image, convert_to_rgb,
_rescale_for_pil_conversion, to_pil_image).
"""
from __future__ import annotations

import base64
import ctypes
import io
import os
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Sequence

import numpy as np

from . import _library as c
from ._log import logger
from .frames import Frame
from .outputs import is_torch_tensor, to_numpy


_OF_CALLER = 7  # frames from a warning to the line that called the processor


def _pil_image_class() -> Any:
    module = sys.modules.get("PIL.Image")
    return module.Image if module else ()


def is_image(value: Any) -> bool:
    """A PIL image, array, tensor, path (str or Path), base64 text, the bytes of an image file, or a Frame."""
    return (isinstance(value, (np.ndarray, str, Path, bytes, bytearray, memoryview, Frame)) or is_torch_tensor(value)
            or isinstance(value, _pil_image_class()))


def as_rows(images: Any) -> Any:
    """`images` with every 4-d array split: an image, a list of images, or a list of lists; else ValueError."""
    if is_image(images):
        return list(images) if getattr(images, "ndim", 0) == 4 else images
    if not isinstance(images, (list, tuple)):
        raise ValueError(f"images is a {type(images).__name__}, expected an image (PIL image, array, tensor, path or "
                         "bytes), a list of images, or a list of lists of images")
    if not images:
        raise ValueError("images is an empty list, expected at least one image")
    if all(is_image(image) for image in images):
        rows = [as_rows(image) for image in images]
        split = [isinstance(row, list) for row in rows]
        return [image for row in rows for image in row] if all(split) else list(images)
    if all(isinstance(row, (list, tuple)) and all(is_image(image) for image in row) for row in images):
        return [list(row) for row in images]
    kinds = ", ".join(sorted({type(image).__name__ for image in images}))
    raise ValueError(f"images holds {kinds}, expected images, or lists of images")


def flat(rows: Any) -> list[Any]:
    """All images of what as_rows() returns, in order."""
    if not isinstance(rows, list):
        return [rows]
    return [image for row in rows for image in row] if isinstance(rows[0], list) else rows


def _channels_last(image: np.ndarray, name: str, data_format: str | None) -> np.ndarray:
    """[height, width, channels] of [height, width, 1, 3 or 4], [1, 3 or 4, height, width], or grey [height, width]."""
    if image.ndim == 2:
        return image[:, :, None]
    ends = (image.shape[0], image.shape[2]) if image.ndim == 3 else ()
    first, last = (size in (1, 3, 4) for size in ends) if ends else (False, False)
    if data_format is not None:
        first = first and data_format == "channels_first"
        last = last and data_format == "channels_last"
    if first and last:
        warnings.warn(f"{name}: the channel dimension is ambiguous in an array of shape {image.shape}. The first one "
                      "is taken for the channels, as transformers does; input_data_format=\"channels_last\" says "
                      "otherwise",
                      stacklevel=_OF_CALLER)
    if first:
        return np.moveaxis(image, 0, -1)
    if last:
        return image
    last_shape, first_shape = "height x width x channels", "channels x height x width"
    shape = {None: f"{last_shape} or {first_shape}", "channels_last": last_shape,
             "channels_first": first_shape}[data_format]
    raise ValueError(f"{name}: an array of shape {image.shape}, expected {shape} with 1, 3 or 4 channels, or height x "
                     "width")


def _array_to_rgb(image: np.ndarray, name: str, resized: bool, data_format: str | None) -> tuple[np.ndarray, bool]:
    """-> [height, width, 3] and whether the values were 0 to 1; uint8, but for arrays that are not resized."""
    image = _channels_last(image, name, data_format)
    if image.size == 0:
        raise ValueError(f"{name}: an array of shape {image.shape} has no pixels")
    if image.dtype.kind not in "buif":
        raise ValueError(f"{name}: an array of {image.dtype}, expected numbers")
    if image.shape[2] == 4:
        image = _over_white(image, name)
    scaled = False
    if image.dtype != np.uint8:
        if not np.isfinite(image).all():
            raise ValueError(f"{name}: an array with NaN or infinite pixels, expected finite ones")
        if resized:
            image, scaled = _to_8_bits(image, name)
    if image.shape[2] == 1:
        image = np.repeat(image, 3, axis=2)
    return np.ascontiguousarray(image), scaled


def _over_white(image: np.ndarray, name: str) -> np.ndarray:
    """Alpha blended onto white, in the array's own type."""
    is_integer = np.issubdtype(image.dtype, np.integer)
    if not is_integer and not (image.min() >= 0.0 and image.max() <= 1.0):
        raise ValueError(f"{name}: four channels of floats from {image.min()} to {image.max()}, expected 0 to 1")
    white = 255 if is_integer else 1.0
    alpha = image[..., 3:4] / white
    blended = alpha * image[..., :3] + (1 - alpha) * white
    return (np.round(blended) if is_integer else blended).astype(image.dtype)


def _to_8_bits(image: np.ndarray, name: str) -> tuple[np.ndarray, bool]:
    low, high = image.min(), image.max()
    if np.allclose(image, image.astype(np.int64)):
        if low < 0 or high > 255:
            raise ValueError(f"{name}: pixels from {low} to {high}, expected 0 to 255")
        return image.astype(np.uint8), False
    if low < 0 or high > 1:
        raise ValueError(f"{name}: fractional pixels from {low} to {high}, expected 0 to 1")
    return (image.astype(np.float64) * 255).astype(image.dtype).astype(np.uint8), True


def _pil_to_rgb(image: Any, convert_rgb: bool) -> np.ndarray:
    """Over white where something is transparent; but an RGB image as it is where do_convert_rgb is off."""
    if image.mode == "RGB" and not convert_rgb:
        return np.ascontiguousarray(np.asarray(image))
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        from PIL import Image

        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
    return np.ascontiguousarray(np.asarray(image.convert("RGB")))


@dataclass
class ImageList:
    """pg_image [n] and what they borrow; `scaled` tells which came as floats of 0 to 1.

    unresized: for an array that is not resized and has no 8 bits, itself as [3, height, width]; its pg_image is unused.
    """

    images: Any
    scaled: list[bool]
    unresized: list[np.ndarray | None]
    borrowed: list[Any]


def flags_of(exif: bool, alpha: str) -> int:
    """PG_ENCODE_EXIF and PG_ENCODE_OVER_WHITE, as the arguments of these names say."""
    if alpha not in ("drop", "white"):
        raise ValueError(f"alpha is {alpha!r}, expected \"drop\" or \"white\"")
    return (c.ENCODE_EXIF if exif else 0) | (c.ENCODE_OVER_WHITE if alpha == "white" else 0)


def encode_options(exif: bool, alpha: str) -> c.EncodeOptions:
    """The library's defaults, and those flags."""
    options = c.EncodeOptions()
    c.check(c.lib.pg_encode_options_init(ctypes.byref(options), ctypes.sizeof(options)))
    options.flags = flags_of(exif, alpha)
    return options


def convert(sources: Sequence[Any], exif: bool, alpha: str, convert_rgb: bool, resized: bool,
            data_format: str | None) -> ImageList:
    """The images for one call of the library; an error names the image by its index, and has it as `.image`.

    exif: turn files. alpha: of files, "drop" or "white". convert_rgb, resized: do_convert_rgb and do_resize.
    data_format: of arrays, None to look at them.
    """
    result = ImageList((c.Image * max(len(sources), 1))(), [], [], [])
    for index, source in enumerate(sources):
        try:
            _take(result, index, source, exif, alpha, convert_rgb, resized, data_format)
        except Exception as error:
            error.image = index  # type: ignore[attr-defined]
            raise
    return result


def _take(result: ImageList, index: int, source: Any, exif: bool, alpha: str, convert_rgb: bool, resized: bool,
          data_format: str | None) -> None:
    """One image of convert()."""
    name = f"image {index}"
    scaled, unresized = False, None
    if isinstance(source, Frame):
        _take_frame(result, index, source, exif, alpha, convert_rgb, resized, data_format)
        return
    image = result.images[index]
    image.struct_size = ctypes.sizeof(c.Image)
    if isinstance(source, (str, Path)):
        source = _named(source, name)
    if isinstance(source, (Path, bytes, bytearray, memoryview)):
        source = _other_format(source, exif, alpha)
    if isinstance(source, (bytes, bytearray, memoryview)):
        memory = bytes(source)
        c.check(c.lib.pg_image_from_bytes(ctypes.byref(image), ctypes.sizeof(image), memory, len(memory)))
        result.borrowed.append(memory)
    elif isinstance(source, Path):
        path = os.fsencode(source)
        c.check(c.lib.pg_image_from_path(ctypes.byref(image), ctypes.sizeof(image), path))
        result.borrowed.append(path)
    else:
        if isinstance(source, _pil_image_class()):
            pixels = _pil_to_rgb(source, convert_rgb)
        else:
            pixels, scaled = _array_to_rgb(to_numpy(source), name, resized, data_format)
        if pixels.dtype != np.uint8:
            unresized = np.moveaxis(pixels, -1, 0)
        height, width, _ = pixels.shape
        c.check(c.lib.pg_image_from_pixels(ctypes.byref(image), ctypes.sizeof(image), c.IMAGE_RGB8, width, height,
                                           pixels.ctypes.data, pixels.strides[0]))
        result.borrowed.append(pixels)
    result.scaled.append(scaled)
    result.unresized.append(unresized)


def _take_frame(result: ImageList, index: int, frame: Frame, exif: bool, alpha: str, convert_rgb: bool, resized: bool,
                data_format: str | None) -> None:
    image = result.images[index]
    if frame.format is not None:
        image.struct_size = ctypes.sizeof(c.Image)
        result.borrowed += frame.borrow(image)
        result.scaled.append(False)
        result.unresized.append(None)
    elif not is_image(frame.data) or isinstance(frame.data, Frame) or getattr(frame.data, "ndim", 3) == 4:
        raise ValueError(f"image {index}: a Frame without a format has data of {type(frame.data).__name__}, expected one "
                         "image")
    else:
        _take(result, index, frame.data, exif, alpha, convert_rgb, resized, data_format)
    if result.unresized[-1] is not None:
        raise ValueError(f"image {index}: a Frame of an array of floats, expected do_resize True, or 8 bits")
    frame.describe(image)


def _named(image: str | Path, name: str) -> Path | bytes:
    """A path, or the bytes that a data: URL or base64 text holds."""
    text = str(image)
    if text.startswith(("http://", "https://")):
        raise ValueError(f"{name}: {text!r} is a URL, and libpaligemma never uses the network; download it first")
    if text.startswith("data:image/"):
        return base64.b64decode(text.split(",", 1)[-1])
    if isinstance(image, str) and not os.path.isfile(image):  # transformers tries base64 then
        decoded = _decoded(image)
        if decoded is not None:
            return decoded
        if len(image) > 1024:
            raise ValueError(f"{name}: a text of {len(image)} characters that begins with {image[:40]!r}, expected a "
                             "path or the base64 text of an image")
    return Path(image)


def _decoded(text: str) -> bytes | None:
    """What base64 text holds, where that is an image."""
    try:
        decoded = base64.decodebytes(text.encode())
    except ValueError:
        return None
    return decoded if decoded.startswith(_OURS) or _opened(decoded) is not None else None


_OURS = (b"\x89PNG", b"\xff\xd8\xff")  # PNG and JPEG, which the library reads


def _opened(source: Path | bytes) -> Any:
    """The image as Pillow opens it, or None: Pillow is not installed or does not know the format."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        return None
    Image.init()
    formats = [name for name in Image.ID if name != "EPS"]  # for which Pillow would start another program
    try:
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=formats)
    except UnidentifiedImageError:
        return None


def _other_format(source: Any, exif: bool, alpha: str) -> Any:
    """A file that is neither PNG nor JPEG, as load_image() of transformers gives it: an array or a PNG; else `source`.

    One transparent colour may be left (of a GIF, for example). A PNG keeps it, and the library goes by do_convert_rgb.
    """
    if isinstance(source, Path):
        if not source.is_file():
            return source  # the library says what is wrong
        with open(source, "rb") as file:
            head = file.read(4)
    else:
        source = bytes(source)
        head = source[:4]
    image = None if not head or head.startswith(_OURS) else _opened(source)
    if image is None:
        return source
    from PIL import ImageOps

    with image:
        turned = ImageOps.exif_transpose(image) if exif else image
        if alpha == "white":
            return _pil_to_rgb(turned, True)
        rgb = turned.convert("RGB")
        if "A" in turned.getbands() and turned.convert("RGBA").getextrema()[3][0] < 255:
            logger.warning("%s: transparent pixels lose their alpha, as with a path in transformers; alpha=\"white\" lays "
                           "them over white, as with an opened image there",
                           source if isinstance(source, Path) else "image bytes")
    transparent = rgb.info.get("transparency")
    if transparent is None:
        return np.ascontiguousarray(np.asarray(rgb))
    if isinstance(transparent, int):
        transparent = (transparent, 0, 0)  # as Pillow takes a number for a colour
    png = io.BytesIO()
    rgb.save(png, "PNG", transparency=transparent, compress_level=1, exif=b"", icc_profile=None)
    return png.getvalue()
