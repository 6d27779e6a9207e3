# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Frame: raw pixels, parts of images, letterboxes, and boxes that come back."""
import pathlib

import numpy as np
import pytest

import paligemma
from paligemma import Frame, parse_answer

DEMO = pathlib.Path(__file__).resolve().parents[2] / "examples/demo"
SHAPES = DEMO / "images/shapes.png"


@pytest.fixture(scope="module")
def processor():
    with paligemma.PaliGemmaProcessor.from_pretrained(DEMO / "model") as opened:
        yield opened


def pixels(processor, image, **keywords):
    return processor.image_processor(image, return_tensors="np", **keywords)["pixel_values"][0]


def test_grey_in_every_format(processor):
    """A grey frame is the same in all of them, whatever the chroma's layout."""
    grey, neutral = np.full((20, 30), 120, np.uint8), np.full((20, 30), 128, np.uint8)
    want = pixels(processor, np.repeat(grey[:, :, None], 3, axis=2))
    packed = np.stack([grey, neutral], axis=2)
    buffers = {"RGB8": np.repeat(grey[:, :, None], 3, axis=2), "BGR8": np.repeat(grey[:, :, None], 3, axis=2),
               "GRAY8": grey, "GRAY16": grey.astype(np.uint16) * 257, "NV12": np.concatenate([grey, neutral[:10]]),
               "NV21": np.concatenate([grey, neutral[:10]]), "I420": np.concatenate([grey, neutral[:10]]),
               "YUYV": packed, "UYVY": packed[:, :, ::-1]}
    for form, buffer in buffers.items():
        frame = Frame(buffer, form, 30, 20, range="full")
        assert np.array_equal(pixels(processor, frame), want), form
        assert np.array_equal(pixels(processor, Frame(buffer.tobytes(), form, 30, 20, range="full")), want), form
    planes = [grey, neutral[:10, :15].copy(), neutral[:10, :15].copy()]
    assert np.array_equal(pixels(processor, Frame(planes, "I420", 30, 20, range="full")), want)
    assert not np.array_equal(pixels(processor, Frame(planes, "I420", 30, 20)), want)


def test_a_part_and_a_letterbox(processor):
    image = np.random.default_rng(1).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    part = np.ascontiguousarray(image[10:50, 20:60])
    assert np.array_equal(pixels(processor, Frame(image, roi=(20, 10, 40, 40))), pixels(processor, part))
    assert np.array_equal(pixels(processor, Frame(image, "RGB8", 90, 60, roi=(20, 10, 40, 40))), pixels(processor, part))
    boxed = pixels(processor, Frame(image, fit="letterbox", background=(255, 255, 255)))
    side = boxed.shape[1]
    inner = int(60 / (90 / side))
    bar = (side - inner) // 2
    assert (boxed[:, :bar] == 1).all() and (boxed[:, bar + inner:] == 1).all()
    assert not (boxed[:, bar] == 1).all() and not (boxed[:, bar + inner - 1] == 1).all()
    padded = pixels(processor, Frame(image, fit="pad_top_left"))
    assert (padded[:, :side - inner] == -1).all() and not (padded[:, side - inner] == -1).all()


def test_boxes_come_back():
    frame = Frame(b"", "NV12", 64, 32, fit="letterbox")
    assert frame.window((8, 8)) == (0, -16, 64, 64)
    assert Frame(SHAPES, fit="letterbox").window((8, 8), (64, 32)) == (0, -16, 64, 64)
    answer = parse_answer("<loc0512><loc0256><loc0768><loc0512> a", (64, 32), window=frame.window((8, 8)))
    assert answer[0].box == (16, 16, 32, 32)


def red_circle():
    """A picture of the demo model's world."""
    y, x = np.mgrid[:224, :224]
    image = np.full((224, 224, 3), 128, np.uint8)
    image[(y - 100) ** 2 + (x - 120) ** 2 < 45 ** 2] = (220, 35, 35)
    return image


def test_detect_in_a_part():
    """An image on a wide canvas: the part is what the model sees, and boxes lie on the canvas."""
    image = red_circle()
    height, width, _ = image.shape
    canvas = np.full((height, width + 200, 3), 255, np.uint8)
    canvas[:, 100:100 + width] = image
    with paligemma.PaliGemmaForConditionalGeneration.from_pretrained(DEMO / "model") as model:
        plain = model.detect(image, "red circle")["xyxy"]
        found = model.detect(Frame(canvas, roi=(100, 0, width, height)), "red circle")["xyxy"]
    assert len(plain) and np.allclose(found, plain + [100, 0, 100, 0])


def test_a_worker_takes_frames():
    """Objects of its events lie in the whole frame, and the frame's memory is the caller's again at once."""
    image = red_circle()
    height, width, _ = image.shape
    canvas = np.zeros((height, width + 40, 3), np.uint8)
    canvas[:, 40:] = image
    with paligemma.PaliGemmaForConditionalGeneration.from_pretrained(DEMO / "model") as model, \
            paligemma.PaliGemmaProcessor.from_pretrained(DEMO / "model") as processor:
        plain = model.detect(image, "red circle").answer
        with paligemma.Worker(model, processor) as worker:
            frame = Frame(canvas, "RGB8", width + 40, height, roi=(40, 0, width, height))
            worker.submit(frame, "detect red circle", objects=True, max_new_tokens=40)
            canvas[:] = 0
            found = []
            while (event := worker.wait(60)).kind != "done":
                found += [event.object] if event.kind == "object" else []
            assert event.error is None
    assert len(found) == len(plain) > 0
    assert np.allclose(found[0].box, np.array(plain[0].box) + [40, 0, 40, 0])


@pytest.mark.parametrize("frame, words", [
    (Frame(b"1234", "NV13", 2, 2), "format is 'NV13', expected one of RGB8"),
    (Frame(b"1234", "NV12", 2, 2), "n_bytes is 4, expected at least 6"),
    (Frame([b"1234"], "NV12", 2, 2), "data has 1 planes, expected the 2 of NV12"),
    (Frame([b"1234", b"1"], "NV12", 2, 2), "plane 1 has 1 bytes, expected at least 2"),
    (Frame(b"1234", "GRAY8", 2, 2, roi=(1, 1, 2, 1)), "roi is 2 x 1 pixels at 1, 1"),
    (Frame(b"1234", "GRAY8", 2, 2, roi=(1, 1)), "roi is (1, 1), expected 4 whole numbers"),
    (Frame(b"1234", "GRAY8", 2, 2, fit="crop"), "fit is 'crop', expected one of stretch"),
    (Frame(b"1234", "GRAY8", 2, 2, matrix="bt2020"), "matrix is 'bt2020'"),
    (Frame(b"1234", "GRAY8", 2, 2, range="tv"), "range is 'tv'"),
    (Frame(b"1234", "GRAY8", 2, 2, background=(0, 0, 256)), "background is (0, 0, 256)"),
    (Frame(b"12345678", "GRAY16", 2, 2, gray=(5, 5)), "gray is (5, 5)"),
    (Frame(b"1234", "GRAY8", 2, 2, stride=-2), "stride is -2"),
    (Frame(b"", "GRAY8", 2, 2), "data is empty"),
    (Frame(b"1234", "GRAY8", 0, 2), "0 x 2 pixels"),
    (Frame(Frame(SHAPES)), "data of Frame"),
])
def test_what_is_refused(processor, frame, words):
    with pytest.raises(ValueError) as found:
        processor.image_processor(frame, return_tensors="np")
    assert words in str(found.value)


def test_data_of_no_kind(processor):
    with pytest.raises(TypeError, match="data is a int, expected bytes"):
        processor.image_processor(Frame(5, "GRAY8", 2, 2), return_tensors="np")
