# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""The image processor by itself, and image settings given in every way. Expected values are those of transformers 5.23.

image_calls.json is written by tests/oracle/image_settings_live.py --write.
"""
import copy
import json
import os
import pathlib
import pickle
import shutil
import warnings

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image", reason="PIL is not installed")

import image_cases as cases  # noqa: E402

import paligemma  # noqa: E402

RECORDED = json.loads((pathlib.Path(__file__).parent / "image_calls.json").read_text())


@pytest.fixture
def images(folder):
    return paligemma.AutoImageProcessor.from_pretrained(folder)


@pytest.fixture
def own(folder):
    """A processor that a test may change."""
    return paligemma.AutoProcessor.from_pretrained(folder)


@pytest.mark.parametrize("case, expected", RECORDED, ids=[f"{case['seed']}-{case['way']}" for case, _ in RECORDED])
@pytest.mark.filterwarnings("ignore")
def test_recorded_calls(folder, tmp_path, case, expected):
    if "torch" in case["images"] or "pt" in (case["return_tensors"], case["settings"].get("return_tensors")):
        pytest.importorskip("torch", reason="torch is not installed")
    found = cases.outcome(paligemma, folder, case, tmp_path)
    assert cases.same(found, expected), f"{case}\nfound    {found}\nexpected {expected}"


def test_the_recording_has_what_it_should():
    ways = {case["way"] for case, expected in RECORDED if "error" not in expected}
    kinds = {kind for case, expected in RECORDED if "error" not in expected for kind in case["images"]}
    assert ways == set(cases.WAYS) and kinds >= set(cases.THREE + cases.OTHERS) - {"wild"}
    assert sum("error" in expected for _, expected in RECORDED) < len(RECORDED) / 3


def test_attributes(images, own):
    for part in (images, own.image_processor):
        assert part.size == {"height": 112, "width": 112} and part.size.height == part.size["width"] == 112
        assert part.size.shortest_edge is None and part.size.get("x", 4) == 4 and isinstance(part.size, dict)
        assert part.image_mean == part.image_std == (0.5, 0.5, 0.5) and part.resample == 3
        assert part.do_resize is part.do_rescale is part.do_normalize is part.do_convert_rgb is True
        assert part.rescale_factor == 0.00392156862745098 and part.image_seq_length == 64
        assert part.model_input_names == ["pixel_values"] and part.crop_size is None and part.backend == "pil"
        assert part.to_dict() == {
            "do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True,
            "image_mean": (0.5, 0.5, 0.5), "image_processor_type": "SiglipImageProcessor", "image_seq_length": 64,
            "image_std": (0.5, 0.5, 0.5), "resample": 3, "rescale_factor": 0.00392156862745098,
            "size": {"height": 112, "width": 112}}
        assert json.loads(part.to_json_string()) == json.loads(json.dumps(part.to_dict()))
        assert part.to_json_string() in repr(part)
    defaults = paligemma.SiglipImageProcessor()
    assert defaults.size == {"height": 224, "width": 224} and not hasattr(defaults, "image_seq_length")
    assert paligemma.SiglipImageProcessorFast is paligemma.SiglipImageProcessor is paligemma.SiglipImageProcessorPil
    assert type(images).from_dict(images.to_dict()) == images != defaults


@pytest.mark.parametrize("name, value, error", [
    ("size", {"height": 20}, ValueError), ("size", {"shortest_edge": 20}, NotImplementedError),
    ("size", 20, NotImplementedError), ("size", "x", TypeError), ("size", {"height": True, "width": 1}, TypeError), ("do_resize", 1, TypeError),
    ("image_mean", [0.5, 0.5], ValueError), ("image_std", "x", TypeError), ("resample", 6, ValueError),
    ("resample", "bicubic", ValueError), ("rescale_factor", "x", TypeError), ("image_seq_length", -1, ValueError),
    ("image_seq_length", 2.5, TypeError), ("do_center_crop", True, NotImplementedError), ("banana", 4, AttributeError),
    ("crop_size", {"height": 4, "width": 4}, NotImplementedError), ("do_pad", True, NotImplementedError)])
def test_settings_that_are_refused(images, own, pixels, name, value, error):
    before = images.to_dict()
    with pytest.raises(error, match=name):
        setattr(images, name, value)
    assert images.to_dict() == before
    if name != "image_seq_length":  # which a call takes and does not follow, as in transformers
        with pytest.raises(error if name != "banana" else TypeError):
            images(pixels, **{name: value})
    if name not in ("image_seq_length", "banana"):
        with pytest.raises(error):
            own(pixels, "x", **{name: value})
    setattr(images, "do_pad", None)


@pytest.mark.parametrize("settings, words", [
    ({"size": {"height": 0, "width": 5}}, "height is 0, expected 1 to 16384"),
    ({"size": {"height": 5, "width": 16385}}, "width is 16385"), ({"size": {"height": 1 << 40, "width": 5}}, "height"),
    ({"image_std": 0.0}, "image_std"), ({"image_std": [1.0, float("nan"), 1.0]}, "image_std"),
    ({"image_mean": float("inf")}, "image_mean"), ({"rescale_factor": float("nan")}, "rescale_factor"),
    ({"rescale_factor": 1e300}, "rescale_factor"), ({"size": None}, "size is None"), ({"resample": None}, "resample"),
    ({"image_mean": None}, "image_mean"), ({"rescale_factor": None}, "rescale_factor is None")])
def test_numbers_out_of_range(images, own, pixels, settings, words):
    for call in (lambda: images(pixels, **settings), lambda: own(pixels, "x", **settings),
                 lambda: own(pixels, "x", images_kwargs=settings)):
        with pytest.raises(ValueError, match=words):
            call()
    images(pixels)  # nothing was kept


def test_attributes_are_followed(own, pixels):
    before = own(pixels, "x", return_tensors="np")
    own.image_processor.size.height = own.image_processor.size["width"] = 9
    assert own(pixels, "x", return_tensors="np")["pixel_values"].shape == (1, 3, 9, 9)
    own.image_processor.size = {"height": 112, "width": 112}
    own.image_processor.do_normalize = False
    mine = own(pixels, "x", return_tensors="np")["pixel_values"]
    assert np.abs((mine - 0.5) / 0.5 - before["pixel_values"]).max() < 1e-6
    own.image_seq_length = 5  # 64 tokens fewer, 5 more
    assert own(pixels, "x", return_tensors="np")["input_ids"].shape[1] == before["input_ids"].shape[1] - 59
    assert own._get_num_multimodal_tokens(image_sizes=[(1, 2), (3, 4)])["num_image_tokens"] == [5, 5]
    own.image_seq_length = 64
    with pytest.warns(UserWarning, match="set processor.image_seq_length"):
        own.image_processor.image_seq_length = 7
    assert own(pixels, "x", return_tensors="np")["input_ids"].shape == before["input_ids"].shape  # as in transformers
    assert own(pixels, "x", image_seq_length=3, return_tensors="np")["input_ids"].shape == before["input_ids"].shape
    for name, value in (("image_token_id", 5), ("image_token", "<eos>"), ("tokenizer", None), ("banana", 1),
                        ("chat_template", "x"), ("image_seq_length", "x"), ("image_seq_length", -1)):
        with pytest.raises((AttributeError, TypeError, ValueError), match=name):
            setattr(own, name, value)
    own.chat_template = None


def test_keywords_of_from_pretrained(folder, pixels):
    for door in (paligemma.AutoProcessor, paligemma.PaliGemmaProcessor, paligemma.AutoImageProcessor,
                 paligemma.SiglipImageProcessor):
        made = door.from_pretrained(folder, size={"height": 20, "width": 20}, image_mean=0.25, use_fast=False)
        part = getattr(made, "image_processor", made)
        assert part.size.height == 20 and part.image_mean == 0.25
        assert part(pixels, return_tensors="np")["pixel_values"].shape == (1, 3, 20, 20)
        with pytest.raises(ValueError, match="foo"):
            door.from_pretrained(folder, foo=1)
    assert paligemma.AutoProcessor.from_pretrained(folder, image_seq_length=5).image_seq_length == 5
    assert paligemma.AutoProcessor.from_pretrained(folder, padding_side="right").tokenizer.padding_side == "right"


def test_results(images, pixels):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    listed, numpy, tensors = images(pixels), images([pixels], return_tensors="np"), images(pixels, return_tensors="pt")
    assert isinstance(listed["pixel_values"], list) and listed.pixel_values[0].shape == (3, 112, 112)
    assert np.array_equal(listed.pixel_values[0], numpy.pixel_values[0])
    assert np.array_equal(tensors.pixel_values.numpy(), numpy.pixel_values)
    assert tensors.to(torch.bfloat16).pixel_values.dtype == torch.bfloat16 and list(tensors) == ["pixel_values"]
    assert images([[pixels], [pixels, pixels]], return_tensors="np").pixel_values.shape == (3, 3, 112, 112)
    assert images.preprocess(images=pixels, return_tensors="np").pixel_values.shape == (1, 3, 112, 112)
    with pytest.raises(ValueError, match="cannot be stacked"):
        images([pixels, pixels[:20]], do_resize=False, return_tensors="np")
    with pytest.raises(ValueError, match="image 1"):
        images([pixels, np.zeros((0, 3, 3), np.uint8)])
    with pytest.raises(OSError, match="image 1: .*nowhere.png"):
        images([pixels, pathlib.Path("nowhere.png")], do_resize=False)


def test_ambiguous_axes(images, own):
    odd = np.arange(3 * 50 * 3, dtype=np.uint8).reshape(3, 50, 3)
    with pytest.warns(UserWarning, match="ambiguous.*input_data_format") as caught:
        first = images(odd, return_tensors="np").pixel_values
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="ambiguous") as caught:
        own(odd, "x")
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(images(odd, input_data_format="channels_first", return_tensors="np").pixel_values, first)
        last = images(odd, input_data_format="channels_last", return_tensors="np").pixel_values
        images(odd[:2], return_tensors="np")
    assert not np.array_equal(first, last)
    for bad, given in ((odd[:2], "channels_first"), (odd, "nonsense"), (odd[:, :, :2], "channels_last")):
        with pytest.raises(ValueError):
            images(bad, input_data_format=given)


def test_a_transparent_colour_without_do_convert_rgb(images, pixels):
    """transformers then takes an opened RGB image as it is."""
    opened = Image.fromarray(pixels)
    plain = images(opened, return_tensors="np").pixel_values
    opened.info["transparency"] = tuple(int(value) for value in pixels[0, 0])
    assert not np.array_equal(images(opened, return_tensors="np").pixel_values, plain)
    assert np.array_equal(images(opened, do_convert_rgb=None, return_tensors="np").pixel_values, plain)


def test_groups_of_keywords(own, pixels):
    for keywords in (dict(return_tensors="np", common_kwargs={"return_tensors": "pt"}),
                     dict(text_kwargs={"return_tensors": "np"}), dict(common_kwargs={"return_tensors": "np"})):
        made = own(pixels, "x", **keywords)
        assert type(made["input_ids"]) is type(made["pixel_values"]) is type(made["labels"]) is np.ndarray
    made = own(pixels, "x", images_kwargs={"return_tensors": "np"})
    assert type(made["input_ids"]) is list and type(made["pixel_values"]) is np.ndarray
    for keywords in (dict(size=[5, 5], images_kwargs={"size": [4, 4]}),
                     dict(padding=True, text_kwargs={"padding": False})):
        with pytest.raises(ValueError, match="two times"):
            own(pixels, "x", **keywords)
    with pytest.raises(TypeError, match="padding"):
        own(pixels, "x", images_kwargs={"padding": True})
    with pytest.warns(UserWarning, match="size") as caught:
        own(pixels, "x", text_kwargs={"size": [5, 5]})
    assert caught[0].filename == __file__
    made = own([pixels, pixels], ["x", "yes yes"], padding=True, return_mm_token_type_ids=True)
    assert list(made) == ["input_ids", "token_type_ids", "attention_mask", "mm_token_type_ids", "pixel_values",
                          "labels"]
    assert made["mm_token_type_ids"] == [[int(i == own.image_token_id) for i in row] for row in made["input_ids"]]


def test_parts(folder, own, pixels):
    assert paligemma.PaliGemmaProcessor.get_attributes() == ["image_processor", "tokenizer"]
    assert own.model_input_names == ["pixel_values", "input_ids", "attention_mask", "token_type_ids", "labels"]
    assert own.chat_template is None and own.unused_input_names == []
    images = paligemma.AutoImageProcessor.from_pretrained(folder, size={"height": 8, "width": 8})
    for tokenizer in (own.tokenizer, paligemma.AutoTokenizer.from_pretrained(folder, padding_side="right")):
        made = paligemma.PaliGemmaProcessor(image_processor=images, tokenizer=tokenizer)
        assert made.tokenizer.padding_side == tokenizer.padding_side
        ours, theirs = made(pixels, "x", return_tensors="np"), own(pixels, "x", return_tensors="np")
        assert np.array_equal(ours["input_ids"], theirs["input_ids"]) and ours["pixel_values"].shape == (1, 3, 8, 8)
    for wrong in ({}, {"image_processor": images}, {"image_processor": own.tokenizer, "tokenizer": images}):
        with pytest.raises(TypeError):
            paligemma.PaliGemmaProcessor(**wrong)
    with pytest.raises(ValueError, match="image_seq_length"):
        paligemma.PaliGemmaProcessor(paligemma.SiglipImageProcessor(), own.tokenizer)
    assert paligemma.PaliGemmaProcessor(paligemma.SiglipImageProcessor(image_seq_length=3), own.tokenizer)(
        pixels, "x", return_tensors="np")["pixel_values"].shape == (1, 3, 224, 224)


def changed(processor):
    part = processor.image_processor
    part.size, part.image_mean, part.do_convert_rgb = {"height": 20, "width": 20}, 0.25, None
    part.rescale_factor, part.resample, processor.image_seq_length = -0.5, 0, 7
    processor.tokenizer.padding_side = "right"
    return processor


def same_inputs(one, other, pixels):
    a, b = (p([pixels, pixels], ["x", "yes yes"], suffix=["a", "b"], padding=True, return_tensors="np")
            for p in (one, other))
    return list(a) == list(b) and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.filterwarnings("ignore")
def test_saving(own, tmp_path, pixels):
    changed(own)
    target = tmp_path / "a" / "b"
    assert own.save_pretrained(target) == [str(target / "processor_config.json")]
    again = paligemma.AutoProcessor.from_pretrained(target)
    assert same_inputs(again, own, pixels) and again.to_dict() == {**own.to_dict(), "image_processor": {
        **own.image_processor.to_dict(), "image_mean": (0.25,) * 3, "do_convert_rgb": False}}
    again.save_pretrained(str(target))
    assert same_inputs(paligemma.AutoProcessor.from_pretrained(target), own, pixels)
    alone = tmp_path / "images"
    assert own.image_processor.save_pretrained(alone) == [str(alone / "preprocessor_config.json")]
    for source in (alone, alone / "preprocessor_config.json"):
        images = paligemma.AutoImageProcessor.from_pretrained(source)
        assert np.array_equal(images(pixels, return_tensors="np")["pixel_values"][0],
                              own.image_processor(pixels)["pixel_values"][0])
    with pytest.raises(AssertionError, match="should be a directory"):
        own.image_processor.save_pretrained(alone / "preprocessor_config.json")
    for refuse in (own, own.image_processor):
        with pytest.raises(NotImplementedError, match="upload_folder"):
            refuse.push_to_hub("x")
        with pytest.raises(NotImplementedError, match="upload_folder"):
            refuse.save_pretrained(tmp_path / "none", push_to_hub=True)


@pytest.mark.filterwarnings("ignore")
def test_saved_folders_are_read_by_transformers(hf, own, tmp_path, pixels):
    own.save_pretrained(tmp_path / "plain")
    changed(own).save_pretrained(tmp_path / "changed")
    for name in ("plain", "changed"):
        theirs = hf.AutoProcessor.from_pretrained(tmp_path / name)
        ours = paligemma.AutoProcessor.from_pretrained(tmp_path / name)
        assert same_inputs(ours, theirs, pixels)
        theirs.save_pretrained(tmp_path / (name + " again"))
        assert same_inputs(paligemma.AutoProcessor.from_pretrained(tmp_path / (name + " again")), ours, pixels)
    own.image_processor.save_pretrained(tmp_path / "images")
    theirs = hf.AutoImageProcessor.from_pretrained(tmp_path / "images")
    assert np.array_equal(theirs(pixels, return_tensors="np")["pixel_values"],
                          own.image_processor(pixels, return_tensors="np")["pixel_values"])


def test_copies_after_chdir(folder, tmp_path, monkeypatch, pixels):
    files = ("tokenizer.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json")
    (tmp_path / "model").mkdir()
    for name in files:
        if os.path.exists(os.path.join(folder, name)):
            shutil.copy(os.path.join(folder, name), tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    own = changed(paligemma.AutoProcessor.from_pretrained("model"))
    alone = paligemma.AutoImageProcessor.from_pretrained("model", size={"height": 6, "width": 6})
    monkeypatch.chdir("/")
    for clone in (copy.deepcopy(own), copy.copy(own), pickle.loads(pickle.dumps(own))):
        assert same_inputs(clone, own, pixels) and clone.name_or_path == own.name_or_path == "model"
        clone.image_processor.size = {"height": 9, "width": 9}
        assert own.image_processor.size.height == 20 or clone.image_processor is own.image_processor
        own.image_processor.size = {"height": 20, "width": 20}
    for clone in (copy.deepcopy(alone), pickle.loads(pickle.dumps(alone)), copy.deepcopy(own.image_processor),
                  pickle.loads(pickle.dumps(paligemma.SiglipImageProcessor(do_normalize=False)))):
        assert clone(pixels)["pixel_values"][0].shape[0] == 3
    assert copy.deepcopy(alone) == alone
    own.save_pretrained(tmp_path / "saved")
    assert same_inputs(paligemma.AutoProcessor.from_pretrained(tmp_path / "saved"), own, pixels)


def test_closing(images, pixels):
    images.close()
    assert images.closed
    with pytest.raises(ValueError, match="closed"):
        images(pixels)
