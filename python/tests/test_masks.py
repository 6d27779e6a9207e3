# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""model.segment() and MaskDecoder: masks in the image's size, objects that have none, what is refused."""
import copy
import importlib.util
import pathlib
import shutil

import numpy as np
import pytest

import paligemma
from paligemma import MaskDecoder, parse_answer

DEMO = pathlib.Path(__file__).resolve().parents[2] / "examples/demo"
MODEL, SHAPES = DEMO / "model", DEMO / "images/shapes.png"
BOX = "<loc0000><loc0000><loc0512><loc1023>"


@pytest.fixture(scope="module")
def model():
    with paligemma.PaliGemmaForConditionalGeneration.from_pretrained(MODEL) as opened:
        yield opened


@pytest.fixture(scope="module")
def decoder():
    with MaskDecoder.from_pretrained(MODEL) as opened:
        yield opened


def world():
    pytest.importorskip("PIL")
    spec = importlib.util.spec_from_file_location("demo_draw", DEMO / "draw.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def segs(codes):
    return "".join(f"<seg{code:03d}>" for code in codes)


def test_segment(model, decoder):
    found = model.segment(SHAPES, "red circle ; purple star")
    assert set(found) == {"xyxy", "confidence", "class_id", "data", "mask"}
    assert found["data"]["class_name"].tolist() == ["red circle", "purple star"] and found["class_id"].tolist() == [0, 1]
    assert found["mask"].dtype == bool and found["mask"].shape == (2, 336, 336)
    for (x0, y0, x1, y1), mask in zip(found["xyxy"], found["mask"]):
        y, x = np.nonzero(mask)
        assert x0 - 1 <= x.min() and x.max() <= x1 and y0 - 1 <= y.min() and y.max() <= y1
    area = found["mask"][0].sum() / np.prod(found["xyxy"][0][2:] - found["xyxy"][0][:2])
    assert area == pytest.approx(np.pi / 4, abs=0.05)  # a circle in its box
    for same in (model.segment(str(SHAPES), "segment red circle ; purple star", mask_decoder=decoder),
                 model.segment(SHAPES, ["red circle", "purple star"], mask_decoder=MODEL / "vae-oid.safetensors"),
                 model.segment(SHAPES, "red circle ; purple star", constrain=True)):
        assert all(np.array_equal(same[key], found[key]) for key in ("xyxy", "confidence", "class_id", "mask"))
    later = copy.deepcopy(found)  # what was found outlives a copy, and gives its masks again
    assert np.array_equal(decoder.mask(later.answer, 0), found["mask"][0])
    supervision = pytest.importorskip("supervision")
    assert supervision.Detections(**found).area.tolist() == found["mask"].sum((1, 2)).tolist()


def test_masks_are_those_of_the_demo_world(model, decoder):
    """Fresh images; boxes and codes are the model's. An object that it does not find counts as 0."""
    draw, overlaps = world(), []
    for seed in range(900000, 900020):
        scene = draw.scene(seed)
        names = list(dict.fromkeys(draw.name(o) for o in scene["objects"]))
        found = model.segment(draw.render(scene), names, mask_decoder=decoder)
        for o in scene["objects"]:
            wanted = draw.mask(o)
            same = [mask for mask, name in zip(found["mask"], found["data"]["class_name"]) if name == draw.name(o)]
            overlaps.append(max([(mask & wanted).sum() / (mask | wanted).sum() for mask in same], default=0.0))
    assert len(overlaps) >= 20 and np.mean(overlaps) >= 0.75, np.mean(overlaps)


def test_several_images(model, decoder):
    pytest.importorskip("PIL")
    from PIL import Image

    with Image.open(SHAPES) as image:
        wide = image.resize((500, 200))
    both = model.segment([wide, SHAPES], "red circle", mask_decoder=decoder)
    assert both[0]["mask"].shape == (1, 200, 500) and both[1]["mask"].shape == (1, 336, 336)
    assert np.array_equal(both[1]["mask"], model.segment(SHAPES, "red circle")["mask"])


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_rows_are_images_where_the_folder_says_return_sequences(model, tmp_path, task):
    folder = shutil.copytree(MODEL, tmp_path / "several")
    (folder / "generation_config.json").write_text(
        '{"do_sample": true, "temperature": 0.01, "num_return_sequences": 3, '
        '"eos_token_id": 1, "bos_token_id": 2, "pad_token_id": 0}')
    with paligemma.PaliGemmaForConditionalGeneration.from_pretrained(folder) as several:
        found = getattr(several, task)([SHAPES, DEMO / "images/stripes.jpg"], "red circle")
    wanted = getattr(model, task)([SHAPES, DEMO / "images/stripes.jpg"], "red circle")
    assert [len(image["xyxy"]) for image in found] == [len(image["xyxy"]) for image in wanted]
    for image, other in zip(found, wanted):
        assert np.allclose(image["xyxy"], other["xyxy"], atol=8)


def test_decode(decoder):
    codes = list(range(0, 128, 8))
    mask = decoder.decode(codes)
    assert mask.shape == (64, 64) and mask.dtype == np.float32 and np.isfinite(mask).all()
    assert np.array_equal(mask, decoder.decode(np.array(codes)))
    for bad, words in (([2**40] + codes[1:], r"codes\[0\] is 1099511627776, expected 0 to 127"), ([0.5] * 16, "codes holds float64"),
                       (codes[:15] + [-1], r"codes\[15\] is -1, expected 0 to 127")):
        with pytest.raises(ValueError, match=words):
            decoder.decode(bad)
    assert not np.array_equal(mask, decoder.decode(codes[::-1]))


def test_a_mask_is_the_decoded_one_in_its_box(decoder):
    codes = parse_answer(BOX + segs(range(16)), (64, 128))[0].segs
    # a box that rounds to 64 x 64 pixels: nothing is resized
    answer = parse_answer(BOX + segs(codes), (64, 128))
    mask = decoder.mask(answer, 0)
    assert mask.shape == (128, 64) and not mask[64:].any()
    assert np.array_equal(mask[:64], decoder.decode(codes) > 0)
    assert np.array_equal(mask, decoder.mask(answer, -1))


def test_objects_without_a_mask(decoder):
    whole, part = segs(range(16)), segs(range(15))
    text = f"{BOX}{whole} a ; {BOX} b ; {BOX}{part} c ; <loc0001><loc0002>{whole} d ; {whole} e ; {BOX}{whole}{part} f"
    answer = parse_answer(text, (30, 20))
    masks = [decoder.mask(answer, i) for i in range(len(answer))]
    assert [o.label for o, mask in zip(answer, masks) if mask is not None] == ["a", "f"]
    found = answer.detections(mask_decoder=decoder)
    assert found["data"]["class_name"].tolist() == ["a", "b", "c", "f"]
    assert found["mask"].shape == (4, 20, 30)
    assert found["mask"].any((1, 2)).tolist() == [masks[0].any(), False, False, masks[5].any()]
    assert np.array_equal(found["mask"][3], masks[0])
    assert "mask" not in answer.detections()
    assert parse_answer("nothing", (30, 20)).detections(mask_decoder=decoder)["mask"].shape == (0, 20, 30)
    assert decoder.mask(parse_answer("<loc0001><loc0002>" + whole, (9, 9), points=True), 0) is None


def test_conventions(decoder):
    text = "<loc0100><loc0100><loc0900><loc0900>" + segs(range(16))
    masks = [decoder.mask(parse_answer(text, (3000, 2000), convention=n), 0) for n in (1023, 1024)]
    assert not np.array_equal(*masks)


def test_what_is_refused(model, decoder, tmp_path):
    with pytest.raises(FileNotFoundError, match="vae-oid.npz"):
        MaskDecoder.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError):
        MaskDecoder.from_pretrained("/nowhere.npz")
    with pytest.raises(OSError, match="model.safetensors"):
        MaskDecoder.from_pretrained(MODEL / "model.safetensors")
    with pytest.raises(ValueError, match="cpu is"):
        MaskDecoder.from_pretrained(MODEL, cpu="fast")
    for codes in ([1] * 15, [[1] * 16], [128] + [0] * 15, [-1] * 16, [2 ** 40] * 16):
        with pytest.raises(ValueError, match="codes"):
            decoder.decode(codes)
    with pytest.raises(IndexError):
        decoder.mask(parse_answer("", (5, 5)), 0)
    with pytest.raises(ValueError, match="things is"):
        model.segment(SHAPES, "segment ")
    closed = MaskDecoder.from_pretrained(MODEL)
    closed.close()
    closed.close()
    for call in (lambda: closed.decode([0] * 16), lambda: model.segment(SHAPES, "a", mask_decoder=closed)):
        with pytest.raises(ValueError, match="the mask decoder is closed"):
            call()


def test_constrained_answers_have_whole_masks(model, decoder):
    for things in ("nothing", "green elephant ; x", "cat"):  # none of which the model has learned
        found = model.segment(SHAPES, things, constrain=True, mask_decoder=decoder, max_new_tokens=256)
        assert len(found.answer) > 0
        assert all(len(o.segs) == 16 and not o.broken for o in found.answer if "unfinished" not in o.flags)
