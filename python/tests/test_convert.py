# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""convert(): int8 and int4 folders, progress, Ctrl-C's way out, and refusals."""
import os
import pickle
import threading

import numpy as np
import pytest

import paligemma
from paligemma import PaliGemmaForConditionalGeneration


@pytest.mark.parametrize("weights, int8_layers", [("int8", None), ("int4", None), ("int4", "embedding,attention"),
                                                  ("int4", ["decoder.0", "encoder.mlp"])])
def test_same_as_quantized_on_opening(folder, processor, image_path, tmp_path, weights, int8_layers):
    seen = []
    paligemma.convert(folder, tmp_path / "out", weights, n_threads=2, int8_layers=int8_layers,
                      progress=lambda *step: seen.append(step))
    assert seen and seen[-1][0] == seen[-1][1] > 0 and seen == sorted(seen)
    inputs = processor(image_path, "caption en", return_tensors="np")
    with PaliGemmaForConditionalGeneration.from_pretrained(tmp_path / "out") as converted, \
            PaliGemmaForConditionalGeneration.from_pretrained(folder, weights=weights, int8_layers=int8_layers) as quantized:
        assert np.array_equal(converted(**inputs).logits, quantized(**inputs).logits)
        again = pickle.loads(pickle.dumps(quantized))
        assert np.array_equal(converted(**inputs).logits, again(**inputs).logits)
        quantized.save_pretrained(tmp_path / "saved")
        name = "model.safetensors"
        assert (tmp_path / "saved" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    with pytest.raises(NotImplementedError, match="int"):
        paligemma.convert(tmp_path / "out", tmp_path / "again", "int8")


def test_calibrated(folder, processor, image_path, tmp_path):
    rows = [processor(image_path, prompt, suffix=answer, return_tensors="np")
            for prompt, answer in [("caption en", "a red circle"), ("answer en what color is it?", "blue")]]
    for name, more in [("plain", {}), ("calibrated", {"calibrate": iter(rows)}), ("mix", {"calibrate": rows, "int8_layers": "embedding"})]:
        paligemma.convert(folder, tmp_path / name, "int4", **more)
    files = {name: (tmp_path / name / "model.safetensors").read_bytes() for name in ("plain", "calibrated", "mix")}
    assert len(files["plain"]) == len(files["calibrated"]) < len(files["mix"])
    assert files["plain"] != files["calibrated"]
    with PaliGemmaForConditionalGeneration.from_pretrained(tmp_path / "calibrated") as model:
        assert np.isfinite(model(**rows[0]).logits).all()
    for weights, rows, message in [("int8", rows, "calibrate is given beside"), ("int4", [], "the calibration has no rows"),
                                   ("int4", [{"input_ids": [[1, 2]], "pixel_values": rows[0]["pixel_values"]}], "image")]:
        with pytest.raises(ValueError, match=message):
            paligemma.convert(folder, tmp_path / "out", weights, calibrate=rows)
    assert not (tmp_path / "out").exists()


def test_what_progress_raises_ends_it(folder, tmp_path):
    def stop(done, total):
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        paligemma.convert(folder, tmp_path / "out", progress=stop)
    assert os.listdir(tmp_path) in ([], ["out.partial"])
    paligemma.convert(folder, tmp_path / "out")
    assert os.listdir(tmp_path) == ["out"]


def test_off_the_main_thread(folder, tmp_path):
    thread = threading.Thread(target=paligemma.convert, args=(folder, tmp_path / "out"))
    thread.start()
    thread.join()
    assert (tmp_path / "out" / "config.json").exists()


def test_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="\"int8\" or \"int4\""):
        paligemma.convert(folder, tmp_path / "out", "stored")
    with pytest.raises(FileNotFoundError):
        paligemma.convert(tmp_path / "none", tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ValueError, match="full"):
        paligemma.convert(folder, tmp_path / "full")
    with pytest.raises(ValueError, match='int8_layers: found "heads"'):
        paligemma.convert(folder, tmp_path / "out", "int4", int8_layers=["embedding", "heads"])
    with pytest.raises(ValueError, match='int8_layers is "q" beside int8 weights, expected "int4"'):
        paligemma.convert(folder, tmp_path / "out", int8_layers="q")
    with pytest.raises(ValueError, match="int8_layers"):
        PaliGemmaForConditionalGeneration.from_pretrained(folder, weights="int4", int8_layers="heads")
    with pytest.raises(ValueError, match="n_threads"):
        paligemma.convert(folder, tmp_path / "out", n_threads=-1)
