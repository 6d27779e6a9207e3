# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Random checkpoints of tests/oracle through both packages: the processor's batches, forward, generate, config.

ORACLE_SEED is the first seed (default: fresh; a test's name shows its own), PYTHON_CASES how many (default 4).
"""
import json
import os
import sys
import time

import numpy as np
import pytest

from conftest import ROOT
from test_hf_processor import same_values

Image = pytest.importorskip("PIL.Image", reason="PIL is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")

FIRST = int(os.environ.get("ORACLE_SEED") or time.time_ns() % 2**31)
SEEDS = range(FIRST, FIRST + int(os.environ.get("PYTHON_CASES", "4")))
WORDS = ["caption", "en", "red", " ", "\n", "<loc0100>", "é", "中", "🙂", "answer", "?", "  "]


class Pair:
    """One checkpoint, opened by both."""

    def __init__(self, hf, seed, folder):
        import paligemma

        sys.path.insert(0, str(ROOT / "tests" / "oracle"))
        import checkpoints

        checkpoints.write(checkpoints.draw(seed), folder)
        self.rng = np.random.default_rng([seed, 77])
        self.ours = paligemma.PaliGemmaForConditionalGeneration.from_pretrained(folder)
        self.our_processor = paligemma.AutoProcessor.from_pretrained(folder)
        self.theirs = hf.PaliGemmaForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager").eval()
        self.their_processor = hf.AutoProcessor.from_pretrained(folder)

    def text(self):
        return " ".join(self.rng.choice(WORDS) for _ in range(self.rng.integers(7)))

    def image(self):
        height, width = self.rng.integers(4, 90, 2)
        return Image.fromarray(self.rng.integers(0, 256, (height, width, 3), np.uint8))


@pytest.fixture(params=SEEDS, scope="module")
def pair(request, hf, tmp_path_factory):
    pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
    return Pair(hf, request.param, str(tmp_path_factory.mktemp("checkpoint")))


@pytest.mark.filterwarnings("ignore")
def test_processor(pair):
    array = pair.rng.integers(0, 256, (30, 40, 3), np.uint8)
    for keywords in (dict(images=pair.image(), text=pair.text(), suffix=pair.text()),
                     dict(images=[[pair.image()], [pair.image(), pair.image()]], text=[pair.text(), pair.text()],
                          suffix=[pair.text(), pair.text()], padding=True, return_tensors="pt"),
                     dict(images=array / 255, text=pair.text(), return_tensors="np"),
                     dict(images=array, text=pair.text(), return_tensors="np", do_rescale=False),
                     dict(images=array, text=pair.text(), return_tensors="np", do_rescale=True)):
        theirs, ours = pair.their_processor(**keywords), pair.our_processor(**keywords)
        assert list(ours) == list(theirs)
        for key in theirs:
            same_values(ours[key], theirs[key], key)


def relative(ours, theirs):
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def test_forward(pair):
    texts, images = [pair.text() for _ in range(3)], [[pair.image()] for _ in range(3)]
    suffixes = ["a " + pair.text() for _ in range(3)]
    for side in ("left", "right"):
        inputs = pair.their_processor(images=images, text=texts, suffix=suffixes, padding=True, padding_side=side,
                                      return_tensors="pt")
        with torch.no_grad():
            theirs = pair.theirs(**inputs, output_hidden_states=True)
        ours = pair.ours(**inputs, output_hidden_states=True)
        seen = inputs.attention_mask == 1
        assert relative(ours.loss, theirs.loss) < 1e-3
        assert relative(ours.logits[seen], theirs.logits[seen]) < 1e-3
        assert relative(ours.image_hidden_states, theirs.image_hidden_states) < 1e-3
        for a, b in zip(ours.hidden_states, theirs.hidden_states):
            assert relative(a[seen], b[seen]) < 1e-3


def test_generate(pair):
    """Ids are equal up to the first step at which the reference's two best logits are within noise of each other."""
    inputs = pair.our_processor([[pair.image()] for _ in range(3)], [pair.text() for _ in range(3)], padding=True,
                                return_tensors="pt")
    ours = pair.ours.generate(**inputs, max_new_tokens=12)
    theirs = pair.theirs.generate(**inputs, max_new_tokens=12, do_sample=False, output_logits=True,
                                  return_dict_in_generate=True)
    width = inputs.input_ids.shape[1]
    assert torch.equal(ours[:, :width], inputs.input_ids)
    for row in range(3):
        for step, logits in enumerate(theirs.logits):
            best = logits[row].topk(2).values
            if (best[0] - best[1]) < 1e-3 * logits[row].abs().max():
                break
            wanted = theirs.sequences[row, width + step]
            assert ours[row, width + step] == wanted, f"row {row}, step {step}"
            if wanted == pair.our_processor.tokenizer.pad_token_id:
                break


def test_config(pair):
    theirs = json.loads(json.dumps(pair.theirs.config.to_dict()))
    ours = pair.ours.config.to_dict()
    different = {k for k in theirs.keys() | ours.keys() if ours.get(k, "-") != theirs.get(k, "-")}
    assert different <= {"_name_or_path", "transformers_version", "dtype", "text_config", "vision_config",
                         "_attn_implementation"}
    for part in ("text_config", "vision_config"):
        assert {k for k in theirs[part].keys() & ours[part].keys() if ours[part][k] != theirs[part][k]} <= {"dtype"}
    assert pair.ours.config.text_config.num_hidden_layers == pair.theirs.config.text_config.num_hidden_layers
