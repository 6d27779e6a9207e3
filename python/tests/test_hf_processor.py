# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Our processor beside transformers' own: the same arguments give the same keys, types, values, or both raise."""
import base64
import io
import json
import pathlib
import shutil

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image", reason="PIL is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")

P, Q = "caption en", "detect red circle ; blue star"


def noise(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


A, B, C = (Image.fromarray(noise(i, 30 + 7 * i, 50, 3)) for i in range(3))
ARRAY = noise(9, 33, 47, 3)


def same_values(ours, theirs, path):
    assert type(ours) is type(theirs), f"{path}: {type(ours)} beside {type(theirs)}"
    if isinstance(theirs, (list, tuple)):
        assert len(ours) == len(theirs), path
        for i, (a, b) in enumerate(zip(ours, theirs)):
            same_values(a, b, f"{path}[{i}]")
    elif isinstance(theirs, (np.ndarray, torch.Tensor)):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape, path
        assert (np.asarray(ours) == np.asarray(theirs)).all(), path
    else:
        assert ours == theirs, path


# (arguments, keywords): each is given to both
GOOD = {
    "positional": ((A, P), {}),
    "pt": ((A, P), dict(return_tensors="pt")),
    "np": ((A, P), dict(return_tensors="np")),
    "keywords": ((), dict(images=A, text=P, return_tensors="pt")),
    "one in a list": (([A], [P]), dict(return_tensors="pt")),
    "tuple of texts": (([A], (P,)), dict(return_tensors="pt")),
    "nested": (([[A]], [P]), dict(return_tensors="pt")),
    "two images": (([[A, B]], P), dict(return_tensors="pt")),
    "no text": ((A,), dict(return_tensors="pt")),
    "no text, list": ((A,), {}),
    "no text, suffix": ((A,), dict(suffix="x")),
    "empty text": ((A, ""), dict(return_tensors="pt")),
    "suffix": ((A, P, "a bee"), dict(return_tensors="pt")),
    "suffix, lists": ((A, P, "a bee"), {}),
    "empty suffix": ((A, P, ""), dict(return_tensors="np")),
    "batch": (([A, B], [P, Q]), dict(padding=True, return_tensors="pt")),
    "batch, lists": (([A, B], [P, Q]), dict(padding="longest")),
    "batch, same length": (([A, B], [P, P]), dict(return_tensors="pt")),
    "batch, right": (([A, B], [P, Q]), dict(padding=True, padding_side="right", return_tensors="pt")),
    "batch, suffixes": (([A, B], [P, Q], ["a", "b c d"]), dict(padding=True, return_tensors="pt")),
    "batch, suffixes, right": (([A, B], [P, Q], ["a", "b c d"]),
                               dict(padding=True, return_tensors="pt", padding_side="right")),
    "batch, different counts": (([[A, B], [C]], [P, Q]), dict(padding=True, return_tensors="pt")),
    "max_length": (([A, B], [P, Q]), dict(padding="max_length", max_length=100, return_tensors="pt")),
    "max_length, shorter": ((A, P), dict(padding="max_length", max_length=5)),
    "max_length, none": ((A, P), dict(padding="max_length")),
    "multiple": (([A, B], [P, Q]), dict(padding=True, pad_to_multiple_of=32, return_tensors="pt")),
    "multiple without padding": ((A, P), dict(pad_to_multiple_of=32)),
    "truncation without length": ((A, P), dict(truncation=True)),
    "truncation that cuts": ((A, P + " and so on " * 9), dict(truncation=True, max_length=70)),
    "truncation of a suffix": ((A, P, "one " * 40), dict(truncation=True, max_length=150)),
    "only_first": ((A, P + " and so on" * 9, "one two"), dict(truncation="only_first", max_length=80)),
    "only_second": ((A, P, "one " * 20), dict(truncation="only_second", max_length=76)),
    "longest_first": ((A, P + " and so on" * 9), dict(truncation="longest_first", max_length=80)),
    "do_not_truncate": ((A, P), dict(truncation="do_not_truncate", max_length=6)),
    "max_length alone cuts": ((A, P + " and so on" * 9), dict(max_length=72)),
    "max_length, truncation off": ((A, P), dict(max_length=66, truncation=False)),
    "truncation and padding": (([A, B], [P, Q + " and more" * 8]),
                               dict(truncation=True, padding="max_length", max_length=80, return_tensors="pt")),
    "<image>": ((A, "<image>" + P), dict(return_tensors="pt")),
    "<image> twice": (([A, B], "<image>x<image>" + P), dict(return_tensors="pt")),
    "<image> in one row": (([A, B], ["<image><image>" + P, Q]), dict(padding=True, return_tensors="pt")),
    "special tokens": ((A, "<bos>a<eos><loc0003><seg004>\n"), dict(suffix="<loc0001><eos>", return_tensors="pt")),
    "no attention mask": ((A, P), dict(return_attention_mask=False)),
    "token types off": ((A, P), dict(return_token_type_ids=False)),
    "text_kwargs": (([A, B], [P, Q]), dict(text_kwargs=dict(padding=True), common_kwargs=dict(return_tensors="pt"))),
    "array": ((ARRAY, P), dict(return_tensors="pt")),
    "array, channels first": ((ARRAY.transpose(2, 0, 1), P), dict(return_tensors="pt")),
    "array, batch": ((np.stack([ARRAY, ARRAY[::-1]]), [P, P]), dict(return_tensors="pt")),
    "array, batch of one": ((ARRAY[None], P), dict(return_tensors="pt")),
    "array, one channel": ((ARRAY[:, :, :1], P), dict(return_tensors="pt")),
    "array, alpha": ((noise(3, 20, 30, 4), P), dict(return_tensors="pt")),
    "array, int64": ((ARRAY.astype(np.int64), P), dict(return_tensors="pt")),
    "array, f32 of 255": ((ARRAY.astype(np.float32), P), dict(return_tensors="pt")),
    "array, f32 of 1": ((ARRAY.astype(np.float32) / 255, P), dict(return_tensors="np")),
    "array, f64 of 1": ((ARRAY / 255, P), dict(return_tensors="pt")),
    "array, f32 of 1, alpha": ((noise(3, 20, 30, 4).astype(np.float32) / 255, P), dict(return_tensors="pt")),
    "array, f32 of 1, not rescaled": ((ARRAY.astype(np.float32) / 255, P), dict(do_rescale=False, return_tensors="pt")),
    "array, not rescaled": ((ARRAY, P), dict(do_rescale=False, return_tensors="pt")),
    "array, 3 pixels high": ((noise(4, 3, 40, 3), P), dict(return_tensors="pt")),
    "tensor": ((torch.tensor(ARRAY).permute(2, 0, 1), P), dict(return_tensors="pt")),
    "tensor, f32 of 1": ((torch.tensor(ARRAY).permute(2, 0, 1) / 255, P), dict(return_tensors="pt")),
    "list of tensors": (([torch.tensor(ARRAY), torch.tensor(ARRAY)], [P, P]), dict(return_tensors="pt")),
}
for _mode in ["L", "1", "P", "RGBA", "LA", "CMYK", "I", "F", "I;16", "YCbCr", "HSV", "LAB", "PA", "RGBX", "RGBa"]:
    _from = Image.fromarray(noise(7, 20, 20, 4), "RGBA") if _mode in ("RGBA", "RGBa", "LA", "PA") else B
    _from = _from if _mode != "PA" and _mode != "LAB" else B
    GOOD["PIL " + _mode] = ((_from.convert(_mode), P), dict(return_tensors="np"))


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.filterwarnings("ignore")
def test_same(processor, hf_processor, name):
    arguments, keywords = GOOD[name]
    theirs = hf_processor(*arguments, **keywords)
    ours = processor(*arguments, **keywords)
    assert list(ours) == list(theirs)
    for key in theirs:
        same_values(ours[key], theirs[key], key)


BAD = {
    "no images": ((), dict(text=P)),
    "nothing": ((), {}),
    "rows of different lengths, pt": (([A, B], [P, Q]), dict(return_tensors="pt")),
    "rows of different lengths, lists": (([A, B], [P, Q]), {}),
    "one image, two texts": ((A, [P, P]), {}),
    "two images, one text": (([A, B], P), {}),
    "three images, two texts": (([A, B, C], [P, P]), {}),
    "more <image> than images": ((A, "<image><image>"), {}),
    "fewer <image> than images": (([A, B], ["<image>a", "b"]), {}),
    "two suffixes, one text": ((A, P, ["a", "b"]), {}),
    "no suffixes, one text": ((A, P, []), {}),
    "one suffix, two texts": (([A, B], [P, P], "a"), {}),
    "unknown tensors": ((A, P), dict(return_tensors="tf")),
    "unknown padding": ((A, P), dict(padding="middle")),
    "unknown truncation": ((A, P), dict(truncation="middle")),
    "image tokens cut": ((A, P), dict(truncation=True, max_length=10)),
    "multiple and truncation": (([A, B], [P, P]), dict(truncation=True, max_length=70, padding=True,
                                                       pad_to_multiple_of=32)),
    "numbers for texts": (([A, B], [1, 2]), {}),
    "floats above one": ((ARRAY / 100, P), {}),
    "integers above 255": ((ARRAY.astype(int) * 300, P), {}),
    "alpha above one": ((noise(3, 20, 30, 4).astype(np.float32), P), {}),
    "five channels": ((noise(3, 20, 30, 5), P), {}),
    "given twice": ((A, P), dict(padding=True, text_kwargs=dict(padding=True))),
}
# Where transformers accepts, or raises something else, out of an accident of its code.
OURS_ALONE = {"numbers for texts"}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.filterwarnings("ignore")
def test_both_refuse(processor, hf_processor, name):
    arguments, keywords = BAD[name]
    if name not in OURS_ALONE:
        with pytest.raises(ValueError):
            hf_processor(*arguments, **keywords)
    with pytest.raises(ValueError):
        processor(*arguments, **keywords)


_TRUNCATION = dict(direction="Left", max_length=80, stride=0, strategy="LongestFirst")
_PADDING = dict(strategy="BatchLongest", direction="Right", pad_id=0, pad_type_id=0, pad_token="<pad>",
                pad_to_multiple_of=8)
SAVED = {  # tokenizer_config.json, tokenizer.json: what a tokenizer that was used in training is saved with
    "sides": (dict(padding_side="right", truncation_side="left"), {}),
    "max_length": (dict(max_length=80), {}),
    "max_length, left": (dict(max_length=80, truncation_side="left"), {}),
    "multiple": (dict(pad_to_multiple_of=8), {}),
    "model_max_length": (dict(model_max_length=80), {}),
    "all": (dict(max_length=80, stride=0, truncation_side="right", truncation_strategy="longest_first",
                 pad_to_multiple_of=8, padding_side="right", pad_token_type_id=0), {}),
    "truncation in tokenizer.json": ({}, dict(truncation=_TRUNCATION)),
    "padding in tokenizer.json": ({}, dict(padding=_PADDING)),
    "fixed padding in tokenizer.json": ({}, dict(padding=dict(_PADDING, strategy={"Fixed": 96}))),
    "no multiple in tokenizer.json": ({}, dict(padding=dict(_PADDING, pad_to_multiple_of=None))),
    "both files, other values": (dict(padding_side="left", truncation_side="right", max_length=72, pad_to_multiple_of=24),
                                 dict(truncation=_TRUNCATION, padding=_PADDING)),
    "null beats tokenizer.json": (dict(max_length=None, pad_to_multiple_of=None),
                                  dict(truncation=_TRUNCATION, padding=_PADDING)),
    "two lengths": (dict(max_length=80, model_max_length=70), {}),
    "another class": (dict(tokenizer_class="PreTrainedTokenizerFast"), {}),
    "no class": (dict(tokenizer_class=...), {}),  # ...: the key goes
    "no class, both in tokenizer.json": (dict(tokenizer_class=..., pad_token=...),
                                         dict(truncation=dict(_TRUNCATION, direction="Right"), padding=_PADDING)),
}
LONG = P + " and on" * 9
SAVED_CALLS = [dict(images=A, text=LONG), dict(images=A, text=LONG, truncation=True),
               dict(images=A, text="x", padding="max_length"), dict(images=[A, A], text=[LONG, "x"], padding=True),
               dict(images=A, text=LONG, truncation=False), dict(images=A, text=LONG, max_length=75),
               dict(images=[A, A], text=[LONG, "x"], padding=True, truncation=True),
               dict(images=A, text=LONG, suffix="b c d", truncation=True)]


def _saved(folder, target, config, tokenizer):
    """The demo's settings with those of two files changed. In tokenizer.json they stand behind the vocabulary."""
    changes = {"tokenizer_config.json": config, "tokenizer.json": tokenizer}
    for file in pathlib.Path(folder).iterdir():
        if file.suffix == ".json":
            values, more = json.loads(file.read_text()), changes.get(file.name, {})
            values = {key: value for key, value in values.items() if key not in more}
            values.update({key: value for key, value in more.items() if value is not ...})
            (target / file.name).write_text(json.dumps(values))


@pytest.mark.parametrize("name", SAVED)
@pytest.mark.filterwarnings("ignore")
def test_settings_that_a_tokenizer_was_saved_with(hf, folder, tmp_path, name):
    import paligemma

    _saved(folder, tmp_path, *SAVED[name])
    theirs, ours = hf.AutoProcessor.from_pretrained(tmp_path), paligemma.AutoProcessor.from_pretrained(tmp_path)
    for side in ("padding_side", "truncation_side"):
        assert getattr(ours.tokenizer, side) == getattr(theirs.tokenizer, side)
    for keywords in SAVED_CALLS:
        try:
            wanted = theirs(**keywords)
        except ValueError:
            with pytest.raises(ValueError):
                ours(**keywords)
        else:
            got = ours(**keywords)
            for key in wanted:
                same_values(got[key], wanted[key], f"{keywords}: {key}")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P", "RGB"])
@pytest.mark.filterwarnings("ignore:Palette images")  # of Pillow
def test_alpha_of_a_file(processor, hf_processor, tmp_path, caplog, mode):
    """By path alpha is dropped as there, with a warning; alpha="white" gives what an opened image gives."""
    image_of = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(3)
    image = image_of.fromarray(rng.integers(0, 256, (30, 40, 4), np.uint8), "RGBA")
    path, saved = str(tmp_path / "x.png"), {}
    if mode == "PA":  # a palette whose entries have alpha
        image, saved = image.convert("RGB").quantize(9), {"transparency": bytes([0, 100, 255, 7])}
    elif mode != "RGBA":
        image = image.convert("RGB").convert(mode) if mode == "P" else image.convert(mode)
    image.save(path, **saved)
    opened = image_of.open(path)
    dropped = processor(path, "a", return_tensors="np").pixel_values
    assert np.array_equal(dropped, hf_processor(path, "a", return_tensors="np").pixel_values)
    transparent = mode in ("RGBA", "LA", "PA")
    assert ('alpha="white" lays them over white' in caplog.text) == transparent
    caplog.clear()
    white = processor([path, image], ["a", "a"], alpha="white", return_tensors="np").pixel_values
    theirs = hf_processor(opened, "a", return_tensors="np").pixel_values
    assert np.array_equal(white[:1], theirs) and not caplog.text
    with open(path, "rb") as file:
        assert np.array_equal(processor(file.read(), "a", alpha="white", return_tensors="np").pixel_values, theirs)
    assert np.array_equal(white[:1], dropped) != transparent


def test_alpha_of_another_format(processor, hf_processor, tmp_path, caplog):
    image_of = pytest.importorskip("PIL.Image")
    path = str(tmp_path / "x.webp")
    image_of.fromarray(np.random.default_rng(3).integers(0, 256, (30, 40, 4), np.uint8), "RGBA").save(path, lossless=True)
    assert np.array_equal(processor(path, "a", return_tensors="np").pixel_values,
                          hf_processor(path, "a", return_tensors="np").pixel_values)
    assert 'alpha="white" lays them over white' in caplog.text
    assert np.array_equal(processor(path, "a", alpha="white", return_tensors="np").pixel_values,
                          hf_processor(image_of.open(path), "a", return_tensors="np").pixel_values)
    with pytest.raises(ValueError, match="alpha is 'black'"):
        processor(path, "a", alpha="black")


_WRONG = [(key, value) for key in ("max_length", "model_max_length", "max_len", "pad_to_multiple_of")
          for value in ("12", 12.5, -3, [], {})]
_WRONG += [(key, value) for key in ("padding_side", "truncation_side") for value in (None, 1, [], "Left", "up")]
_WRONG_SAVED = [(key, value) for key in ("truncation", "padding") for value in ("x", 1, True, False, [], {}, "")]
_WRONG_SAVED += [("truncation", dict(_TRUNCATION, **{key: value}))
                 for key, value in (("max_length", "80"), ("max_length", -1), ("max_length", 80.5), ("direction", "left"),
                                    ("direction", 1), ("stride", None), ("strategy", "longest_first"))]
_WRONG_SAVED += [("padding", dict(_PADDING, **{key: value}))
                 for key, value in (("direction", "right"), ("strategy", {"Fixed": "9"}), ("strategy", "x"), ("strategy", {}),
                                    ("pad_to_multiple_of", "8"), ("pad_id", "0"), ("pad_type_id", None), ("pad_token", 0))]
_WRONG_SAVED += [("truncation", {k: v for k, v in _TRUNCATION.items() if k != key})
                 for key in ("max_length", "stride", "strategy")]
_WRONG_SAVED += [("padding", {k: v for k, v in _PADDING.items() if k != key})
                 for key in ("strategy", "direction", "pad_id", "pad_type_id", "pad_token")]


@pytest.mark.parametrize("file", ["tokenizer_config.json", "tokenizer.json"])
@pytest.mark.filterwarnings("ignore")
def test_settings_of_a_wrong_type(hf, folder, tmp_path, file):
    """transformers fails when it opens the folder, or in calls; ours opens no such folder, and names file and key."""
    import paligemma

    for key, value in _WRONG if file == "tokenizer_config.json" else _WRONG_SAVED:
        in_config = {"model_max_length": ..., key: value}  # which would hide max_len
        _saved(folder, tmp_path, *((in_config, {}) if file == "tokenizer_config.json" else ({}, {key: value})))
        with pytest.raises(Exception) as theirs:
            processor = hf.AutoProcessor.from_pretrained(tmp_path)
            for keywords in SAVED_CALLS + [dict(images=A, text="x", padding=True)]:
                processor(**keywords)
        assert not isinstance(theirs.value, OSError)  # the files are found
        with pytest.raises(OSError, match=rf"{file}: {key}"):
            paligemma.AutoProcessor.from_pretrained(tmp_path)


def test_truncation_side_is_followed(processor, hf_processor):
    try:
        processor.tokenizer.truncation_side = hf_processor.tokenizer.truncation_side = "left"
        arguments = dict(images=A, text=P, suffix="one two three", truncation="only_second", max_length=72)
        assert processor(**arguments).input_ids == hf_processor(**arguments).input_ids
    finally:
        processor.tokenizer.truncation_side = hf_processor.tokenizer.truncation_side = "right"


def test_side_of_the_tokenizer_is_followed(processor, hf_processor):
    try:
        processor.tokenizer.padding_side = hf_processor.tokenizer.padding_side = "right"
        arguments = dict(images=[A, B], text=[P, Q], padding=True, return_tensors="np")
        assert (processor(**arguments).input_ids == hf_processor(**arguments).input_ids).all()
        assert processor(**arguments).input_ids[0, -1] == processor.tokenizer.pad_token_id
    finally:
        processor.tokenizer.padding_side = hf_processor.tokenizer.padding_side = "left"


def test_paths(processor, hf_processor, image_path, tmp_path):
    theirs = hf_processor(str(image_path), P, return_tensors="np")
    for form in (str(image_path), image_path, image_path.read_bytes()):
        assert (processor(form, P, return_tensors="np").pixel_values == theirs.pixel_values).all()
    turned = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    A.save(turned, exif=exif)
    assert (processor(turned, P, return_tensors="np").pixel_values
            == hf_processor(str(turned), P, return_tensors="np").pixel_values).all()
    assert (processor(turned, P, return_tensors="np", exif=False).pixel_values
            == hf_processor(Image.open(turned), P, return_tensors="np").pixel_values).all()


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
def test_transparent_colours(processor, hf_processor):
    """PNGs with tRNS, by path and as opened images: the demo's folder has do_convert_rgb true."""
    images = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden" / "images"
    names = [line.split()[0] for line in (images / "over_white.txt").read_text().splitlines()]
    assert len(names) > 100
    for name in names:
        path = str(images / name)
        if "palette_too_long" in name:  # Pillow cannot give such a palette its alpha
            for p in (processor, hf_processor):
                with pytest.raises(ValueError):
                    p(Image.open(path), P, return_tensors="np")
        opened = [] if "palette_too_long" in name else [lambda: Image.open(path)]
        for image in (lambda: path, *opened):
            ours, theirs = (p(image(), P, return_tensors="np").pixel_values for p in (processor, hf_processor))
            assert (ours == theirs).all(), (name, image())


def files_of_pillow(folder):
    """Files that Pillow opens and the library does not."""
    exif = Image.Exif()
    exif[0x0112] = 6
    palette = A.quantize(5)
    ramp = Image.fromarray((np.arange(900, dtype=np.uint16) * 70).reshape(30, 30))
    rgba = Image.fromarray(noise(3, 21, 34, 4))
    for name, image, options in (
            ("lossy.webp", A, {}), ("lossless.webp", A, dict(lossless=True)), ("alpha.webp", rgba, dict(lossless=True)),
            ("turned.webp", A, dict(lossless=True, exif=exif)), ("plain.gif", A, {}),
            ("transparent.gif", palette, dict(transparency=palette.getpixel((3, 3)))),
            ("frames.gif", A, dict(save_all=True, append_images=[B])), ("plain.bmp", A, {}),
            ("grey.bmp", A.convert("L"), {}), ("one_bit.bmp", A.convert("1"), {}), ("plain.tiff", A, {}),
            ("cmyk.tiff", A.convert("CMYK"), {}), ("grey_16.tiff", ramp, {}), ("turned.tiff", A, dict(exif=exif)),
            ("alpha.tiff", rgba, {}),
            ("plain.ppm", A, {})):
        image.save(folder / name, **options)
        yield folder / name


def with_null(folder):
    """The processor's files of the demo, do_convert_rgb null as in the official folders. -> (ours, transformers')"""
    from transformers import AutoProcessor

    import paligemma

    demo = pathlib.Path(__file__).resolve().parents[2] / "examples" / "demo" / "model"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json",
                 "processor_config.json"):
        if (demo / name).exists():
            text = (demo / name).read_text()
            (folder / name).write_text(text.replace('"do_convert_rgb": true', '"do_convert_rgb": null'))
    return paligemma.AutoProcessor.from_pretrained(str(folder)), AutoProcessor.from_pretrained(str(folder))


def test_formats_of_pillow(processor, hf_processor, tmp_path):
    (tmp_path / "files").mkdir()
    files = list(files_of_pillow(tmp_path / "files"))
    files += [pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden" / "images" / "trns_grey_8_2.png"]
    pairs = (processor, hf_processor), with_null(tmp_path / "null")
    for path in files[5], files[-1]:  # a transparent colour: the two folders differ
        over_white, dropped = (theirs(str(path), P, return_tensors="np").pixel_values for _, theirs in pairs)
        assert (over_white != dropped).any()
    for ours, theirs in pairs:
        for path in files:
            expected = theirs(str(path), P, return_tensors="np").pixel_values
            renamed = tmp_path / "image.jpg"  # the content counts, not the name
            shutil.copy(path, renamed)
            bare = base64.b64encode(path.read_bytes()).decode()
            assert (theirs(bare, P, return_tensors="np").pixel_values == expected).all()
            for form in (str(path), path, path.read_bytes(), memoryview(path.read_bytes()), renamed, bare,
                         base64.encodebytes(path.read_bytes()).decode(), "data:image/x;base64," + bare):
                assert (ours(form, P, return_tensors="np").pixel_values == expected).all(), (path.name, type(form))
    turned = tmp_path / "files" / "turned.webp"
    assert (processor(turned, P, return_tensors="np", exif=False).pixel_values
            == hf_processor(Image.open(turned), P, return_tensors="np").pixel_values).all()


def test_text_that_is_no_image(processor, hf_processor):
    """Both refuse it; a long text is not repeated whole."""
    big = base64.b64encode(noise(4, 5000).tobytes()).decode()
    for text in (big, "é" * 5000, "x.png", "", base64.b64encode(b"%!PS-Adobe-3.0 EPSF-3.0\n").decode()):
        with pytest.raises(Exception):
            hf_processor(text, P, return_tensors="np")
        with pytest.raises((ValueError, OSError)) as caught:
            processor(text, P, return_tensors="np")
        assert len(str(caught.value)) < 300
    damaged = io.BytesIO()
    A.save(damaged, "WEBP")
    for p in (processor, hf_processor):
        with pytest.raises(Exception):
            p(base64.b64encode(damaged.getvalue()[:-300]).decode(), P, return_tensors="np")


def test_other_formats_without_pillow(processor, tmp_path, monkeypatch):
    import sys

    A.save(tmp_path / "a.jpg", "WEBP")
    monkeypatch.setitem(sys.modules, "PIL", None)  # as if it were not installed
    with pytest.raises(NotImplementedError, match="WebP"):
        processor(tmp_path / "a.jpg", P, return_tensors="np")


TEXTS = ["", "caption en", " a  b\tc\n\nd ", "<loc0100><seg001><eos>", "é🙂 中文 ﷽", "<b>x</b>", "▁▁ x"]


def test_tokenizer(processor, hf_processor):
    ours, theirs = processor.tokenizer, hf_processor.tokenizer
    for text in TEXTS:
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False)
        ids = theirs.encode(text, add_special_tokens=False)
        assert ours.tokenize(text) == theirs.tokenize(text)
        for skip in (False, True):
            assert ours.decode(ids, skip_special_tokens=skip) == theirs.decode(ids, skip_special_tokens=skip)
    rows = [[382, 358, 5, 1, 0, 0], [2, 382, 358, 5, 1, 99999]]
    for form in (rows, np.array(rows), torch.tensor(rows)):
        for skip in (False, True):
            assert processor.batch_decode(form, skip_special_tokens=skip) == hf_processor.batch_decode(
                form, skip_special_tokens=skip)
            assert processor.decode(form, skip_special_tokens=skip) == hf_processor.decode(
                form, skip_special_tokens=skip)
    assert processor.decode(382) == hf_processor.decode(382)
    assert processor.decode([]) == hf_processor.decode([])
    ids = theirs.encode("it ' s n't . , ! ? we 're", add_special_tokens=False)
    assert ours.decode(ids, clean_up_tokenization_spaces=True) == theirs.decode(ids, clean_up_tokenization_spaces=True)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "bos_token", "eos_token", "pad_token",
                 "unk_token", "padding_side"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert len(ours) == len(theirs) and ours.get_vocab() == theirs.get_vocab()
    assert ours.image_token_id == hf_processor.image_token_id == processor.image_token_id
    assert processor.image_seq_length == hf_processor.image_seq_length
    tokens = ["<bos>", "<loc0000>", "no such piece"]
    assert ours.convert_tokens_to_ids(tokens) == theirs.convert_tokens_to_ids(tokens)
    assert ours.convert_ids_to_tokens([1, 2, 5, 300], True) == theirs.convert_ids_to_tokens([1, 2, 5, 300], True)
    for name in ("size", "do_resize", "do_rescale", "do_normalize", "resample", "image_mean", "rescale_factor"):
        theirs = getattr(hf_processor.image_processor, name)
        theirs = dict(theirs) if name == "size" else theirs
        ours = getattr(processor.image_processor, name)
        assert {k: v for k, v in theirs.items() if v} == ours if name == "size" else ours == theirs, name


WORDS = ["a", "red circle", " ", "\n", "\n\n", "<loc0100>", "<seg007>", "é", "中", "🙂", "<eos>", "<bos>", "  ",
         "word " * 9]


@pytest.mark.parametrize("seed", range(100))
@pytest.mark.filterwarnings("ignore")
def test_random_arguments(processor, hf_processor, seed):
    """Drawn from the seed: both give the same, or both refuse."""
    rng = np.random.default_rng(seed)

    def text(n):
        return "".join(rng.choice(WORDS) for _ in range(rng.integers(n)))

    def make_image():
        h, w = rng.integers(1, 60, 2)
        pixels = rng.integers(0, 256, (h, w, 3), np.uint8)
        return Image.fromarray(pixels) if rng.random() < 0.8 or min(h, w) < 5 else pixels

    rows = int(rng.integers(1, 4))
    texts = [text(6) for _ in range(rows)]
    counts = [int(rng.integers(1, 3)) if rng.random() < 0.3 else 1 for _ in range(rows)]
    images = [[make_image() for _ in range(count)] for count in counts]
    if rng.random() < 0.2:
        texts = ["x".join(["<image>"] * count) + t for count, t in zip(counts, texts)]
    if max(counts) == 1 and rng.random() < 0.5:
        images = [row[0] for row in images]
    keywords = dict(images=images, text=texts if rows > 1 or rng.random() < 0.5 else texts[0])
    if rng.random() < 0.6:
        keywords["suffix"] = [text(6) for _ in range(rows)] if rows > 1 or rng.random() < 0.5 else text(6)
    for name, share, values in [("padding", 0.8, [True, "longest", "max_length", False, "do_not_pad"]),
                                ("truncation", 0.4, [True, False, "only_first", "only_second", "longest_first"]),
                                ("max_length", 0.4, [40, 70, 80, 96, 150]), ("pad_to_multiple_of", 0.2, [1, 8, 16]),
                                ("padding_side", 0.3, ["left", "right"]), ("return_tensors", 0.8, ["np", "pt"])]:
        if rng.random() < share:
            keywords[name] = values[rng.integers(len(values))]
    try:
        theirs = hf_processor(**keywords)
    except Exception as error:
        with pytest.raises(ValueError):
            processor(**keywords)
            pytest.fail(f"transformers refused: {error}; given {keywords}")
        return
    ours = processor(**keywords)
    assert list(ours) == list(theirs)
    for key in theirs:
        same_values(ours[key], theirs[key], key)
