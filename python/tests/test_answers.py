# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""parse_answer() and model.detect(): objects, arrays for supervision.Detections, what is refused."""
import pathlib

import numpy as np
import pytest

import paligemma
from paligemma import parse_answer

DEMO = pathlib.Path(__file__).resolve().parents[2] / "examples/demo"
SHAPES, STRIPES = DEMO / "images/shapes.png", DEMO / "images/stripes.jpg"
TEXT = "<loc0256><loc0128><loc0768><loc0640> cat ; <loc0001><loc0002><loc0003> dog ; <loc0000><loc0000><loc1023><loc1023>"


@pytest.fixture(scope="module")
def model():
    with paligemma.PaliGemmaForConditionalGeneration.from_pretrained(DEMO / "model") as opened:
        yield opened


@pytest.fixture(scope="module")
def processor():
    with paligemma.PaliGemmaProcessor.from_pretrained(DEMO / "model") as opened:
        yield opened


def test_a_text():
    answer = parse_answer(TEXT, (1000, 500))
    assert answer.text == TEXT and len(answer) == 3
    first, second, third = answer
    assert (first.label, first.box, first.locs) == ("cat", (125.0, 125.0, 625.0, 375.0), (256, 128, 768, 640))
    assert (first.score, first.flags, first.broken, first.duplicate_of, first.segs) == (None, (), False, None, ())
    assert (second.box, second.locs, second.flags, second.broken) == (None, (1, 2, 3), ("partial",), True)
    assert third.label == "" and third.flags == ("no_label",) and not third.broken
    assert parse_answer(TEXT, (1000, 500), convention=1023)[2].box == (0, 0, 1000, 500)
    assert parse_answer("<loc0512><loc0256> cat", (100, 200), points=True)[0].point == (25.0, 100.0)
    assert list(parse_answer("a cat on a mat", (10, 10))) == [] == list(parse_answer("", (1, 1)))


def test_labels_are_whole():
    assert parse_answer("<loc0001><loc0002><loc0003><loc0004> \u732b\0 x ", (9, 9))[0].label == "\u732b\0 x"


def test_keywords_of_supervision():
    found = parse_answer(TEXT, (1000, 500)).detections(["dog", "cat"])
    assert set(found) == {"xyxy", "confidence", "class_id", "data"} and found["confidence"] is None
    assert found["xyxy"].dtype == np.float32 and found["xyxy"].shape == (2, 4)
    assert found["class_id"].tolist() == [1, 2]  # "" is none of the classes
    assert found["data"]["class_name"].tolist() == ["cat", ""] and len(found.answer) == 3
    empty = parse_answer("nothing", (10, 10)).detections()
    assert empty["xyxy"].shape == (0, 4) and len(empty["class_id"]) == len(empty["confidence"]) == 0
    supervision = pytest.importorskip("supervision")
    assert len(supervision.Detections(**found)) == 2 and len(supervision.Detections(**empty)) == 0


def test_ids_and_scores(processor):
    text = "<loc0256><loc0128><loc0768><loc0640> red circle"
    ids = processor.tokenizer.encode(text)
    log_probs = np.full(len(ids), -0.5)
    log_probs[:4] = [-0.1, -0.2, -0.3, -0.4]
    answer = parse_answer(ids, (100, 100), processor=processor, log_probs=log_probs)
    assert answer.text == text and answer[0].label == "red circle"
    assert answer[0].loc_score == pytest.approx(np.exp(-0.25)) and answer[0].label_score == pytest.approx(np.exp(-0.5))
    assert answer[0].score == pytest.approx(np.exp(-0.75))
    assert parse_answer(np.array(ids), (100, 100), processor=processor)[0].score is None


def test_detect(model, processor):
    found = model.detect(SHAPES, "red circle ; yellow triangle")
    assert found["data"]["class_name"].tolist() == ["red circle", "yellow triangle"]
    assert found["class_id"].tolist() == [0, 1]
    assert found["xyxy"][0].tolist() == [0.0, 23.953125, 95.8125, 119.765625]
    assert found["confidence"].dtype == np.float32 and (found["confidence"] > 0.9).all()
    for same in (model.detect(str(SHAPES), "detect red circle ; yellow triangle"),
                 model.detect(SHAPES.read_bytes(), ["red circle", "yellow triangle"], processor=processor),
                 model.detect(SHAPES, ["red circle", "yellow triangle"], constrain=True)):
        assert all(np.array_equal(same[key], found[key]) for key in ("xyxy", "confidence", "class_id"))
    ids = processor.tokenizer.encode(found.answer.text)
    assert [o.box for o in parse_answer(ids, (336, 336), processor=processor)] == [o.box for o in found.answer]


def test_detect_in_several_images(model):
    both = model.detect([SHAPES, STRIPES], "red circle")
    alone = model.detect(STRIPES, "red circle")
    assert len(both) == 2 and np.array_equal(both[1]["xyxy"], alone["xyxy"])
    assert np.array_equal(both[1]["confidence"], alone["confidence"])


def test_detect_lays_alpha_over_white(model, tmp_path):
    Image = pytest.importorskip("PIL.Image")
    with Image.open(SHAPES) as image:
        opaque = image.convert("RGBA")
    clear = opaque.copy()
    clear.putalpha(Image.new("L", clear.size, 0))  # its colors are there, and nothing is seen of them
    clear.save(tmp_path / "clear.png")
    white = Image.new("RGB", clear.size, (255, 255, 255))
    seen = model.detect(white, "red circle").answer
    assert model.detect(tmp_path / "clear.png", "red circle", alpha="white").answer.text == seen.text
    assert model.detect(tmp_path / "clear.png", "red circle").answer.text == \
        model.detect(SHAPES, "red circle").answer.text != seen.text
    with pytest.raises(ValueError, match="alpha is 'black', expected"):
        model.detect(SHAPES, "red circle", alpha="black")


def test_detect_follows_the_image_settings(model):
    with paligemma.PaliGemmaProcessor.from_pretrained(DEMO / "model") as changed:
        plain = model.detect(SHAPES, "red circle", processor=changed).answer
        changed.image_processor.image_mean = [0.9, 0.1, 0.5]
        inputs = changed(SHAPES, "detect red circle", return_tensors="np")
        found = model.detect(SHAPES, "red circle", processor=changed).answer
        ids = model.generate(**inputs, max_new_tokens=256)[0, inputs["input_ids"].shape[1]:]
        assert found.text == changed.decode(ids, skip_special_tokens=True) != plain.text


def test_how_things_are_named(model, processor):
    expected = model.detect(SHAPES, ["red circle", "purple star"])
    assert len(expected["xyxy"]) == 2
    for things in ("red circle ; purple star", " detect red circle;purple star ;", ";; red circle ;\tpurple star\n"):
        found = model.detect(SHAPES, things)
        assert found.answer.text == expected.answer.text and np.array_equal(found["class_id"], expected["class_id"])
    inputs = processor(SHAPES, "detect red\0star", return_tensors="np")
    ids = model.generate(**inputs, max_new_tokens=256)[0, inputs["input_ids"].shape[1]:]
    assert model.detect(SHAPES, "red\0star").answer.text == processor.decode(ids, skip_special_tokens=True)


def test_every_call_lays_alpha_over_white(model, processor, tmp_path):
    Image = pytest.importorskip("PIL.Image")
    with Image.open(SHAPES) as image:
        clear = image.convert("RGBA")
    clear.putalpha(Image.new("L", clear.size, 0))
    clear.save(tmp_path / "clear.png")
    clear, white = tmp_path / "clear.png", Image.new("RGB", clear.size, (255, 255, 255))
    question, answers = "caption en", ["a red circle", "nothing"]

    def pixels(image, **keywords):
        return processor.image_processor(image, return_tensors="np", **keywords)["pixel_values"]
    assert np.array_equal(pixels(clear, alpha="white"), pixels(white)) and not np.array_equal(pixels(clear), pixels(white))
    assert model.ask(clear, question, alpha="white") == model.ask(white, question) != model.ask(clear, question)
    scores = [[s.log_prob for s in found] for found in (model.score(clear, question, answers, alpha="white"),
                                                        model.score(white, question, answers), model.score(clear, question, answers))]
    assert scores[0] == scores[1] != scores[2]
    for call in (pixels, lambda image, alpha: model.ask(image, alpha=alpha),
                 lambda image, alpha: model.score(image, question, answers, alpha=alpha)):
        with pytest.raises(ValueError, match="alpha is 'black', expected"):
            call(clear, alpha="black")


def test_boxes_are_in_pixels_of_the_image(model):
    pytest.importorskip("PIL")
    from PIL import Image

    with Image.open(SHAPES) as image:
        wide = image.resize((672, 336))
    found = model.detect(wide, "red circle")
    x0, y0, x1, y1 = found["xyxy"][0]
    assert x1 - x0 == pytest.approx(2 * (y1 - y0), rel=0.1)


@pytest.mark.parametrize("settings, words", [
    (dict(max_new_tokens=0), "max_new_tokens is 0, expected 1 or more"), (dict(max_new_tokens=-1), "max_new_tokens is -1"),
    (dict(max_new_tokens=10**12), "max_new_tokens is 1000000000000"), (dict(max_iou=2.0), "max_iou is 2, expected"),
    (dict(max_iou=float("nan")), "max_iou is nan, expected"), (dict(convention=3), "convention is 3, expected 1024 or 1023"),
    (dict(alpha=None), "alpha is None, expected"),
])
def test_impossible_settings_of_detect(model, settings, words):
    with pytest.raises(ValueError, match=words):
        model.detect(SHAPES, "red circle", **settings)


def test_a_box_that_is_broken_off(model):
    found = model.detect(SHAPES, "red circle", max_new_tokens=3)
    assert len(found["xyxy"]) == 0 and found.answer[0].flags == ("partial", "no_label", "unfinished")


@pytest.mark.parametrize("call, words", [
    (lambda: parse_answer("", (0, 5)), "width is 0"),
    (lambda: parse_answer("", (5, -1)), "height is -1"),
    (lambda: parse_answer("", (5, 5), convention=1000), "convention is 1000"),
    (lambda: parse_answer("", (5, 5), max_iou=float("nan")), "max_iou is"),
    (lambda: parse_answer("", (5, 5), max_iou=1.5), "max_iou is 1.5"),
    (lambda: parse_answer("", (5, 5), log_probs=[1]), "log_probs"),
    (lambda: parse_answer([1, 2], (5, 5)), "processor"),
])
def test_what_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_what_detect_refuses(model, processor):
    for things in ("", " ; ", [], "detect ", ["red circle", ""], None, 5, [1]):
        with pytest.raises(ValueError, match="things is") as told:
            model.detect(SHAPES, things)
        assert f"things is {things!r}, expected names" in str(told.value)
    for settings in (dict(max_iou="0.5"), dict(max_new_tokens="9"), dict(max_new_tokens=2.5)):
        with pytest.raises(TypeError, match=next(iter(settings))):
            model.detect(SHAPES, "a", **settings)
    with pytest.raises(ValueError, match="answer holds float64, expected integers"):
        parse_answer([1.5, 2], (5, 5), processor=processor)
    with pytest.raises(ValueError, match="max_iou"):
        model.detect(SHAPES, "a", max_iou=2.0)
    with pytest.raises(ValueError, match="expected one row"):
        parse_answer([1, 2], (5, 5), processor=processor, log_probs=[0.0])
    with pytest.raises(FileNotFoundError):
        model.detect("/nowhere.png", "a")
