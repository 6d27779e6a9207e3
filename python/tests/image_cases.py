# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Random image settings, images and ways to give the settings, the same for ours and for transformers'.

test_image_processor.py holds ours against image_calls.json, which tests/oracle/image_settings_live.py records from
transformers; that script also makes as many calls as it is asked for.
"""
import hashlib

import numpy as np

SIZES = ({"height": 20, "width": 20}, {"height": 9, "width": 31}, {"height": 1, "width": 1}, {"height": 70, "width": 3},
         [24, 40], [16, 16])
VALUES = {
    "size": SIZES,
    "do_resize": (True, True, False, None),
    "do_rescale": (True, False, None),
    "do_normalize": (True, False, None),
    "do_convert_rgb": (True, False, None),
    "resample": (0, 1, 2, 3, 4, 5),
    "rescale_factor": (-1.0, 0.0, 0.5, 1 / 127.5, 1e-3),
    "image_mean": (0.25, [0.1, -2.0, 0.7], [0.485, 0.456, 0.406]),
    "image_std": (2.0, [0.229, 0.224, 0.225], [-0.5, 3.0, 1e-3]),
}
WRONG = {
    "size": ({"height": 0, "width": 30}, {"height": 20}, {"longest_edge": 20}, {"height": 2.5, "width": 30}, "x", None),
    "do_resize": ("yes", 1), "do_normalize": (0,), "rescale_factor": ("x", None), "image_mean": ([0.5, 0.5], "x", None),
    "image_std": ([1.0] * 4, None), "resample": (None,), "input_data_format": ("channels_first", "nonsense"),
    "foo": (3,), "return_tensors": ("tf",),
}
# those with three channels stay what they are without do_convert_rgb; transformers refuses the others then
THREE = ("pil RGB", "pil keyed", "uint8", "uint8 first", "float", "float first", "float64", "int16", "torch", "wild")
OTHERS = ("pil L", "pil RGBA", "pil P", "pil LA", "rgba", "rgba float", "grey", "pil CMYK")
WAYS = ("call", "preprocess", "processor", "images_kwargs", "common_kwargs", "attributes", "from_pretrained", "auto",
        "constructor", "saved")


# transformers goes on here, and this package says what is wrong.
STRICTER = ("expected finite", "resample is", "keeps the aspect ratio", "no setting 'foo'", "does not know, 'foo'",
            "expected True, False or None", "expected a number", "expected channels x height",
            "input_data_format is", "expected 3, or one", "not 0", "make pixels from")


def draw(seed):
    """A case that JSON can hold."""
    rng = np.random.default_rng(seed)

    def pick(values):
        return values[int(rng.integers(len(values)))]

    given = {name: pick(values) for name, values in VALUES.items() if rng.random() < 0.3}
    if rng.random() < 0.12:
        name = pick(list(WRONG))
        given[name] = pick(WRONG[name])
    kinds = THREE if given.get("do_convert_rgb", True) is not True else THREE + OTHERS
    images = [pick(kinds) for _ in range(pick((1, 1, 2, 3)))]
    alike = given.get("do_resize", True) is not True and rng.random() < 0.7
    sides = [int(side) for side in rng.integers(5, 50, 2)]
    sizes = [sides if alike else [int(side) for side in rng.integers(5, 50, 2)] for _ in images]
    return {"seed": int(seed), "way": pick(WAYS), "settings": given, "images": images, "sizes": sizes,
            "return_tensors": pick((None, "np", "pt"))}


def image(kind, size, seed):
    from PIL import Image

    rng = np.random.default_rng(seed)
    rgba = rng.integers(0, 256, (*size, 4), np.uint8)
    rgb = np.ascontiguousarray(rgba[..., :3])
    if kind == "pil keyed":
        made = Image.fromarray(rgb // 128 * 128)
        made.info["transparency"] = (0, 128, 128)
        return made
    if kind == "pil P":
        made = Image.fromarray(rgb).quantize(8)
        made.info["transparency"] = 3
        return made
    if kind.startswith("pil "):
        return Image.fromarray(rgba if kind == "pil RGBA" else rgb).convert(kind[4:])
    if kind == "torch":
        import torch

        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(rgb, -1, 0)))
    arrays = {"uint8": rgb, "uint8 first": np.moveaxis(rgb, -1, 0), "float": rng.random((*size, 3), np.float32),
              "float first": rng.random((3, *size), np.float32), "float64": rng.random((*size, 3)),
              "int16": rgb.astype(np.int16), "rgba": rgba, "rgba float": rng.random((*size, 4), np.float32),
              "grey": rgb[..., :1], "wild": rng.normal(0, 300, (*size, 3))}
    return arrays[kind]


def call(package, folder, case, top):
    """What the package makes of a case: transformers or paligemma. top: an empty folder."""
    images = [image(kind, size, 1000 * case["seed"] + i)
              for i, (kind, size) in enumerate(zip(case["images"], case["sizes"]))]
    text = [f"caption {'en' * i}" for i in range(len(images))]
    settings, way, kind = dict(case["settings"]), case["way"], {"return_tensors": case["return_tensors"]}
    kind["return_tensors"] = settings.pop("return_tensors", kind["return_tensors"])
    call_only = {name: settings.pop(name) for name in ("input_data_format",) if name in settings}
    if way == "from_pretrained":
        processor = package.AutoProcessor.from_pretrained(folder, **settings)
        return processor(images, text, padding=True, **kind, **call_only)
    if way == "auto":
        return package.AutoImageProcessor.from_pretrained(folder, **settings)(images, **kind, **call_only)
    if way == "constructor":
        return package.SiglipImageProcessorPil(**settings)(images, **kind, **call_only)
    processor = package.AutoProcessor.from_pretrained(folder)
    if way in ("attributes", "saved"):
        for name, value in settings.items():
            setattr(processor.image_processor, name, value)
        if way == "saved":
            processor.save_pretrained(top)
            processor = package.AutoProcessor.from_pretrained(top)
        return processor(images, text, padding=True, **kind, **call_only)
    if way in ("images_kwargs", "common_kwargs"):
        return processor(images, text, text_kwargs={"padding": True}, **kind, **{way: {**settings, **call_only}})
    if way == "processor":
        return processor(images, text, padding=True, **kind, **settings, **call_only)
    use = processor.image_processor if way == "call" else processor.image_processor.preprocess
    return use(images, **kind, **settings, **call_only)


def digest(value):
    """Type, shape and bits of an array, or of each in a list."""
    if isinstance(value, list) and hasattr(value[0], "dtype"):
        return [digest(item) for item in value]
    kind = type(value).__module__.split(".")[0]
    value = np.asarray(value)
    value = value + 0 if value.dtype.kind == "f" else value  # -0 is 0
    data = hashlib.sha1(np.ascontiguousarray(value).tobytes()).hexdigest()[:16]
    return [kind, str(value.dtype), list(value.shape), data]


def outcome(package, folder, case, top):
    try:
        made = call(package, folder, case, top)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:300]}
    return {name: digest(value) for name, value in made.items()}


def same(ours, theirs):
    """Both refuse, or both give the same; or ours refuses what it says that it does not take."""
    if any(text in ours.get("error", "") for text in STRICTER):
        return True
    if "error" in theirs or "error" in ours:
        return "error" in theirs and "error" in ours
    return ours == theirs
