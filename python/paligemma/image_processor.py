# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""SiglipImageProcessor: images to pixel_values, by itself and as the part of a processor."""
from __future__ import annotations

import ctypes
import json
import os
import warnings
from typing import Any, Sequence

import numpy as np

from . import _hub, _images, _library as c
from ._adapter_files import naming_the_base
from ._handle import Handle, array
from ._log import log_function
from .outputs import BatchFeature, stacked, tensor_type

# Settings that the library follows, in the order of transformers' to_dict().
_SWITCHES = ("do_convert_rgb", "do_normalize", "do_rescale", "do_resize")
SETTINGS = (*_SWITCHES, "image_mean", "image_seq_length", "image_std", "resample", "rescale_factor", "size")
# Keywords of transformers' ImagesKwargs that say nothing to its Pillow backend.
_WITHOUT_EFFECT = ("data_format", "device", "disable_grouping", "default_to_square")
# Those that it follows and this package does not.
_NOT_OFFERED = ("crop_size", "do_center_crop", "do_pad", "pad_size")
KEYWORDS = (*SETTINGS, *_WITHOUT_EFFECT, *_NOT_OFFERED, "input_data_format", "return_tensors")
_SIZE_KEYS = ("longest_edge", "shortest_edge", "max_height", "max_width", "min_pixels", "max_pixels")


class SizeDict(dict):
    """{"height": h, "width": w}, with size.height and size.width; keys of other kinds of size are None."""

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        if name in _SIZE_KEYS:
            return None
        raise AttributeError(f"the size has no {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(sorted(self.items())))


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} is {value!r}, expected a number")
    return float(value)


def _side(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} is {value!r}, expected a whole number")
    return int(value)


def _size(value: Any, to_square: bool | None) -> SizeDict:
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool) and to_square:
        value = (value, value)
    if isinstance(value, (list, tuple)) and len(value) == 2:
        value = {"height": value[0], "width": value[1]}
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        value = {"shortest_edge": value}  # as transformers takes it
    try:
        given = {name: side for name, side in dict(value).items() if side is not None}
    except (TypeError, ValueError):
        raise TypeError(f"size is {value!r}, expected {{\"height\": ..., \"width\": ...}}") from None
    if set(given) == {"height", "width"}:
        return SizeDict(height=_side("size.height", given["height"]), width=_side("size.width", given["width"]))
    if set(given) & set(_SIZE_KEYS):
        raise NotImplementedError(f"size={given!r} keeps the aspect ratio, and PaliGemma's images are stretched: give "
                                  "{\"height\": ..., \"width\": ...}")
    raise ValueError(f"size is {given!r}, expected the keys height and width")


def _channels(name: str, value: Any) -> Any:
    """A number, or a tuple of three."""
    if isinstance(value, (list, tuple, np.ndarray)):
        if len(value) != 3:
            raise ValueError(f"{name} has {len(value)} numbers, expected 3, or one for all channels")
        return tuple(_number(name, item) for item in value)
    return _number(name, value)


def checked(name: str, value: Any, to_square: bool | None = None) -> Any:
    """A setting in the form in which it is kept; TypeError, ValueError or NotImplementedError for what it cannot be."""
    if name in _NOT_OFFERED:
        if value not in (None, False):
            raise NotImplementedError(f"{name}={value!r} is not followed: images are resized, neither cropped nor "
                                      "padded")
        return value
    if value is None:
        return None  # switches something off, or is an error when it is needed, as in transformers
    if name in _SWITCHES:
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"{name} is {value!r}, expected True, False or None")
        return bool(value)
    if name == "size":
        return _size(value, to_square)
    if name in ("image_mean", "image_std"):
        return _channels(name, value)
    if name == "rescale_factor":
        return _number(name, value)
    if name == "resample":
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 5:
            raise ValueError(f"resample is {value!r}, expected one of PIL.Image.Resampling, 0 to 5")
        return int(value)
    if name == "image_seq_length":
        if not 0 <= _side(name, value) <= 65536:
            raise ValueError(f"image_seq_length is {value}, expected 0 to 65536")
        return int(value)
    return value


def _needed(settings: dict[str, Any], switch: str, names: Sequence[str]) -> None:
    lacking = [name for name in names if settings[name] is None]
    if settings[switch] and lacking:
        raise ValueError(f"{lacking[0]} is None and must be given, as {switch} is True")


def _shortest(value: float) -> float:
    """The decimal number that stands for an f32 in a file: 0.3, not 0.30000001192092896."""
    return float(str(np.float32(value)))


def open_images(folder: str | None) -> Handle:
    """A pg_processor of image settings alone; None: of transformers' defaults."""
    handle = Handle("processor", "image processor")
    options = c.ProcessorOptions(log=log_function, flags=c.PROCESSOR_IMAGES_ONLY)
    c.check(c.lib.pg_processor_open(None if folder is None else os.fsencode(folder), ctypes.byref(options),
                                    ctypes.byref(handle.pointer)))
    return handle


def settings_of(handle: Handle) -> dict[str, Any]:
    """What the files say, by transformers' names."""
    found = c.ImageSettings()
    with handle.use() as pointer:
        c.check(c.lib.pg_processor_get_image_settings(pointer, ctypes.byref(found)))
    return {
        **{name: bool(getattr(found, name)) for name in _SWITCHES},
        "image_mean": tuple(map(_shortest, found.image_mean)), "image_seq_length": found.n_image_tokens,
        "image_std": tuple(map(_shortest, found.image_std)), "resample": found.resample,
        "rescale_factor": found.rescale_factor, "size": SizeDict(height=found.height, width=found.width)}


class SiglipImageProcessor:
    """Resize, rescale and normalize, to the bit as transformers' SiglipImageProcessorPil, which is the image processor
    of PaliGemma where torchvision is not installed.

    Each setting is an attribute that may be set; size, do_resize, resample, do_rescale, rescale_factor, do_normalize,
    image_mean, image_std, do_convert_rgb and image_seq_length are followed by later calls, and written by
    save_pretrained(). None switches a do_* off.
    """

    model_input_names = ["pixel_values"]
    backend = "pil"
    crop_size = pad_size = do_center_crop = do_pad = default_to_square = None
    data_format = input_data_format = return_tensors = device = disable_grouping = None

    def __init__(self, **settings: Any) -> None:
        """The defaults of transformers' class (224 x 224), with `settings` in their place."""
        self._begin(None, None, settings)

    def _begin(self, folder: str | None, handle: Handle | None, changed: dict[str, Any]) -> None:
        state = vars(self)
        state["_folder"] = None if folder is None else os.path.abspath(folder)
        state["_handle"] = handle or open_images(folder)
        state["_of_processor"] = False
        state.update(settings_of(state["_handle"]))
        if folder is None:
            state.pop("image_seq_length")  # the class has none
        for name, value in changed.items():
            if name == "size":
                value = checked(name, value, changed.get("default_to_square"))
            setattr(self, name, value)

    @classmethod
    def _of_folder(cls, folder: str | None, handle: Handle | None, changed: dict[str, Any]) -> SiglipImageProcessor:
        made = cls.__new__(cls)
        made._begin(folder, handle, changed)
        return made

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], *, revision: str | None = None,
                        cache_dir: str | os.PathLike[str] | None = None, subfolder: str = "",
                        **kwargs: Any) -> SiglipImageProcessor:
        """The image settings of a folder, which needs no tokenizer, of a cached model id, or of a settings file.

        kwargs: settings in place of those of the files; other arguments of transformers' from_pretrained() are taken
        where they change nothing and refused with a ValueError where they would.
        """
        changed = {name: kwargs.pop(name) for name in list(kwargs) if name in KEYWORDS}
        _hub.check_arguments(kwargs)
        name = os.fspath(pretrained_model_name_or_path)
        if os.path.isfile(name):
            if os.path.basename(name) not in ("preprocessor_config.json", "processor_config.json"):
                raise ValueError(f"{name}: expected a folder, preprocessor_config.json or processor_config.json")
            name = os.path.dirname(os.path.abspath(name))
        folder = _hub.find(name, revision, cache_dir, subfolder)
        with naming_the_base(name, folder, "an image processor"):
            return cls._of_folder(folder, None, changed)

    @classmethod
    def from_dict(cls, image_processor_dict: dict[str, Any], **kwargs: Any) -> SiglipImageProcessor:
        values = {**image_processor_dict, **kwargs}
        values.pop("image_processor_type", None)
        return cls(**values)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            vars(self)[name] = value
        elif name not in KEYWORDS:
            raise AttributeError(f"the image processor has no setting {name!r}, it has {', '.join(SETTINGS)}")
        else:
            if name == "image_seq_length" and self._of_processor and value != self.image_seq_length:
                warnings.warn("image_processor.image_seq_length is saved, and as in transformers the processor goes by "
                              "its own: set processor.image_seq_length", stacklevel=2)
            vars(self)[name] = checked(name, value, self.default_to_square)

    def __reduce__(self) -> Any:
        self._handle.check_open()
        state = {name: value for name, value in vars(self).items() if name not in ("_handle", "_folder")}
        return _reopened, (type(self), self._folder), state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SiglipImageProcessor) and self.to_dict() == other.to_dict()

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string()}"

    # -- settings as files have them

    def to_dict(self) -> dict[str, Any]:
        """The settings as transformers' to_dict() gives them."""
        values = {name: getattr(self, name) for name in SETTINGS if hasattr(self, name)}
        if values["size"] is not None:
            values["size"] = dict(values["size"])
        values["image_processor_type"] = "SiglipImageProcessor"
        return values

    def to_json_string(self) -> str:
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    def to_json_file(self, json_file_path: str | os.PathLike[str]) -> None:
        with open(json_file_path, "w", encoding="utf-8") as file:
            file.write(self.to_json_string())

    def save_pretrained(self, save_directory: str | os.PathLike[str], push_to_hub: bool = False,
                        **unused: Any) -> list[str]:
        """Writes preprocessor_config.json with the settings as they are now -> its path in a list."""
        if push_to_hub:
            self.push_to_hub()
        if os.path.isfile(save_directory):
            raise AssertionError(f"Provided path ({save_directory}) should be a directory, not a file")
        os.makedirs(save_directory, exist_ok=True)
        path = os.path.join(save_directory, "preprocessor_config.json")
        self.to_json_file(path)
        return [path]

    def push_to_hub(self, *unused: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(_hub.NO_PUSH)

    # -- images to pixels

    def __call__(self, images: Any, *, return_tensors: Any = None, exif: bool = True, alpha: str = "drop",
                 max_image_pixels: int | None = None, **kwargs: Any) -> BatchFeature:
        """-> BatchFeature with pixel_values f32 [n_images, 3, height, width], in a list without return_tensors.

        images: as the processor takes them; lists of lists become one list. return_tensors: None, "np", "pt".
        kwargs: settings for this call (size, do_resize, resample, do_rescale, rescale_factor, do_normalize, image_mean,
        image_std, do_convert_rgb), and input_data_format ("channels_first", "channels_last") of arrays.
        exif, alpha, max_image_pixels: as the processor has them.
        """
        kind = tensor_type(return_tensors)
        unknown = [name for name in kwargs if name not in KEYWORDS]
        if unknown:
            raise TypeError(f"the image processor got an unexpected keyword argument {unknown[0]!r}")
        call = ImageCall(self, kwargs)
        encode = c.EncodeOptions(flags=_images.flags_of(exif, alpha), max_image_pixels=max_image_pixels or 0)
        converted = call.convert(_images.flat(_images.as_rows(images)), exif, alpha)
        pixels = call.pixels(self._handle, converted, encode, stacklevel=3)
        return BatchFeature({"pixel_values": stacked(pixels, kind)})

    def preprocess(self, images: Any, **kwargs: Any) -> BatchFeature:
        """As calling it."""
        return self(images, **kwargs)

    # -- closing

    def close(self) -> None:
        """Frees what it holds of the library; later calls raise ValueError."""
        self._handle.close()

    @property
    def closed(self) -> bool:
        return self._handle.closed


SiglipImageProcessorPil = SiglipImageProcessorFast = SiglipImageProcessor


def _reopened(cls: type[SiglipImageProcessor], folder: str | None) -> SiglipImageProcessor:
    return cls._of_folder(folder, None, {})


class ImageCall:
    """The settings of one call: those of the image processor with the call's own in their place."""

    def __init__(self, images: SiglipImageProcessor, given: dict[str, Any], n_image_tokens: int | None = None) -> None:
        values = {name: getattr(images, name, None) for name in (*SETTINGS, *_NOT_OFFERED)}
        to_square = given.get("default_to_square", images.default_to_square)
        for name, value in given.items():
            if name in values and name != "image_seq_length":  # which transformers takes and does not follow
                values[name] = checked(name, value, to_square)
        values["size"] = checked("size", values["size"], to_square)  # its items may have been set
        _needed(values, "do_resize", ("size", "resample"))
        _needed(values, "do_rescale", ("rescale_factor",))
        _needed(values, "do_normalize", ("image_mean", "image_std"))
        self.values = values
        self.n_image_tokens = images.__dict__.get("image_seq_length") if n_image_tokens is None else n_image_tokens
        self.input_data_format = _data_format(given.get("input_data_format", images.input_data_format))
        self.struct = self._struct()

    def _struct(self, **changed: Any) -> c.ImageSettings:
        values = {**self.values, **changed}
        # what is not used needs a value that the library takes
        size = values["size"] or SizeDict(height=1, width=1)
        mean, std = _three(values["image_mean"], 0.0), _three(values["image_std"], 1.0)
        return c.ImageSettings(
            height=size["height"], width=size["width"], resample=values["resample"] or 0,
            n_image_tokens=self.n_image_tokens or 0,
            rescale_factor=1.0 if values["rescale_factor"] is None else values["rescale_factor"],
            image_mean=(ctypes.c_float * 3)(*mean), image_std=(ctypes.c_float * 3)(*std),
            **{name: int(bool(values[name])) for name in _SWITCHES})

    def convert(self, sources: Sequence[Any], exif: bool, alpha: str = "drop") -> _images.ImageList:
        return _images.convert(sources, exif, alpha, bool(self.values["do_convert_rgb"]), bool(self.values["do_resize"]),
                               self.input_data_format)

    def is_plain(self, converted: _images.ImageList) -> bool:
        """All images have one size and came as 8 bits: one call of the library does all."""
        return bool(self.values["do_resize"]) and not any(converted.scaled)

    def as_bytes(self, pixels: np.ndarray) -> np.ndarray:
        """Resized and nothing else: transformers leaves 8-bit values."""
        untouched = not (self.values["do_rescale"] or self.values["do_normalize"])
        return pixels.astype(np.uint8) if untouched else pixels

    def pixels(self, handle: Handle, converted: _images.ImageList, encode: c.EncodeOptions, stacklevel: int) -> Any:
        """-> the pixels of images alone: an array [n, 3, height, width], or a list of arrays [3, height, width]."""
        if self.is_plain(converted):
            return self.as_bytes(self._encoded(handle, converted, range(len(converted.scaled)), encode, self.struct))
        if any(converted.scaled) and self.values["do_rescale"] and self.values["do_resize"]:
            warnings.warn("images given as floats of 0 to 1 are rescaled once more, as transformers does; "
                          "pass do_rescale=False, or 8-bit pixels", stacklevel=stacklevel + 1)
        result = []
        for index, scaled in enumerate(converted.scaled):
            if converted.unresized[index] is not None:
                result.append(self._finished(converted.unresized[index]))
                continue
            struct = self._struct(do_rescale=False, do_normalize=False) if scaled else self.struct
            try:
                [pixels] = self._encoded(handle, converted, [index], encode, struct)
            except Exception as error:
                error.args = (f"image {index}: {error}", *error.args[1:])
                raise
            if scaled:  # what was divided into 8 bits for Pillow is divided back, and then it begins
                pixels = self._finished((pixels.astype(np.float64) * (1 / 255)).astype(np.float32))
            result.append(pixels if scaled else self.as_bytes(pixels))
        return result

    def _finished(self, values: np.ndarray) -> np.ndarray:
        """Rescaled and normalized: transformers' arithmetic, for numbers of any kind [3, height, width]."""
        if self.values["do_rescale"]:
            values = (values.astype(np.float64) * self.values["rescale_factor"]).astype(np.float32)
        if self.values["do_normalize"]:
            values = values if np.issubdtype(values.dtype, np.floating) else values.astype(np.float32)
            mean, std = (np.array(_three(self.values[name], 0.0), values.dtype)[:, None, None]
                         for name in ("image_mean", "image_std"))
            values = (values - mean) / std
        return values

    @staticmethod
    def _encoded(handle: Handle, converted: _images.ImageList, indices: Sequence[int], encode: c.EncodeOptions,
                 struct: c.ImageSettings) -> np.ndarray:
        images = (c.Image * len(indices))(*(converted.images[i] for i in indices))
        batch = c.Batch(n_images=len(indices), images=images)
        encode.image_settings = ctypes.pointer(struct)
        inputs = Handle("inputs")
        with handle.use() as pointer:
            c.check(c.lib.pg_processor_encode_batch(pointer, ctypes.byref(batch), ctypes.byref(encode),
                                                    ctypes.byref(inputs.pointer)))
        return array(inputs, c.lib.pg_inputs_get_tensor, b"pixel_values")


def _three(value: Any, unused: float) -> tuple[float, ...]:
    if value is None:
        return (unused,) * 3
    return value if isinstance(value, tuple) else (value,) * 3


def _data_format(value: Any) -> str | None:
    name = getattr(value, "value", value)  # transformers' ChannelDimension is an enum
    if name not in (None, "channels_first", "channels_last"):
        raise ValueError(f"input_data_format is {value!r}, expected \"channels_first\" or \"channels_last\"")
    return name
