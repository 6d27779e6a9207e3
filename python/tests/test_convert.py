# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""convert(): int8 and int4 folders, progress, Ctrl-C's way out, and refusals."""
import os
import threading

import numpy as np
import pytest

import paligemma
from paligemma import PaliGemmaForConditionalGeneration


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_same_as_quantized_on_opening(folder, processor, image_path, tmp_path, weights):
    seen = []
    paligemma.convert(folder, tmp_path / "out", weights, n_threads=2, progress=lambda *step: seen.append(step))
    assert seen and seen[-1][0] == seen[-1][1] > 0 and seen == sorted(seen)
    inputs = processor(image_path, "caption en", return_tensors="np")
    with PaliGemmaForConditionalGeneration.from_pretrained(tmp_path / "out") as converted, \
            PaliGemmaForConditionalGeneration.from_pretrained(folder, weights=weights) as quantized:
        assert np.array_equal(converted(**inputs).logits, quantized(**inputs).logits)
    with pytest.raises(NotImplementedError, match="int"):
        paligemma.convert(tmp_path / "out", tmp_path / "again", "int8")


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
    with pytest.raises(ValueError, match="n_threads"):
        paligemma.convert(folder, tmp_path / "out", n_threads=-1)
