# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""model.score(): answers that were given, beside the model's own forward pass."""
import threading

import numpy as np
import pytest

import paligemma

PROMPT = "answer en what color is the star?"
ANSWERS = ["purple", "red", "yellow", "a purple star", "", "green"]


def teacher_forced(model, processor, image, prompt, answer):
    inputs = processor(image, prompt, suffix=answer, return_tensors="np")
    logits = model(**inputs).logits[0].astype(np.float64)
    n = int((inputs["labels"] != -100).sum())
    rows = logits[-n - 1:-1]
    rows = rows - np.log(np.exp(rows - rows.max(-1, keepdims=True)).sum(-1, keepdims=True)) - rows.max(-1, keepdims=True)
    ids = inputs["input_ids"][0, -n:]
    return ids, rows[np.arange(n), ids]


def test_teacher_forced(model, processor, image_path):
    scores = model.score(image_path, PROMPT, ANSWERS)
    assert [s.answer for s in scores] == ANSWERS
    for s in scores:
        ids, expected = teacher_forced(model, processor, image_path, PROMPT, s.answer)
        assert (s.ids == ids).all() and s.log_probs.dtype == np.float32
        assert np.abs(s.log_probs - expected).max() < 1e-4
        assert s.log_prob == pytest.approx(float(s.log_probs.astype(np.float64).sum()), abs=0)
        assert s.mean_log_prob == s.log_prob / len(ids)
    assert max(scores, key=lambda s: s.probability).answer == "purple"
    total = np.array([s.log_prob for s in scores])
    assert np.allclose([s.probability for s in scores], np.exp(total) / np.exp(total).sum())
    assert sum(s.mean_probability for s in scores) == pytest.approx(1)


def test_features_ids_and_asked_images(model, processor, image_path):
    expected = model.score(image_path, PROMPT, ANSWERS)
    pixels = processor.image_processor(image_path, exif=True, return_tensors="np")["pixel_values"]
    with model.encode_image(pixels) as features:
        for found in (model.score(features, PROMPT, ANSWERS), model.score(features, PROMPT, [s.ids for s in expected]),
                      model.score(features, PROMPT, [s.ids.tolist() for s in expected], processor=processor),
                      model.ask(image_path).score(PROMPT, ANSWERS)):
            assert [(s.log_prob, s.probability) for s in found] == [(s.log_prob, s.probability) for s in expected]
    one = model.score(image_path, PROMPT, "purple")
    assert len(one) == 1 and one[0].probability == 1 and one[0].log_prob == expected[0].log_prob


def test_without_eos(model, image_path):
    whole, begin = model.score(image_path, PROMPT, ["purple"])[0], model.score(image_path, PROMPT, ["purple"], eos=False)[0]
    assert (whole.ids[:-1] == begin.ids).all() and np.abs(whole.log_probs[:-1] - begin.log_probs).max() < 1e-5


def test_what_is_refused(model, image_path):
    for answers, text in (([], "answers has 0 texts of 0"), (["a", [5]], "1 texts of 2"), (["a\0b"], "a character 0"),
                          ([[[1, 2]]], "2 dimensions"), ([[-1]], "expected 0 to"), (["<image>"], "literal=True")):
        with pytest.raises((ValueError, TypeError), match=text):
            model.score(image_path, PROMPT, answers)
    with pytest.raises(ValueError, match="eos=False"):
        model.score(image_path, PROMPT, [""], eos=False)
    with pytest.raises(ValueError, match="max_context"):
        model.score(image_path, PROMPT, ["purple"], max_context=30)
    with pytest.raises(ValueError, match="one image"):
        model.score([image_path, image_path], PROMPT, ["purple"])
    with pytest.raises(TypeError, match="prompt"):
        model.score(image_path, [PROMPT], ["purple"])
    cancel = paligemma.CancelFlag()
    cancel.request()
    with pytest.raises(paligemma.Cancelled):
        model.score(image_path, PROMPT, ["purple"], cancel=cancel)


def test_threads_share_a_model(model, image_path):
    expected, found = [s.log_prob for s in model.score(image_path, PROMPT, ANSWERS)], {}

    def work(i):
        found[i] = [s.log_prob for s in model.score(image_path, PROMPT, ANSWERS)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    [t.start() for t in threads], [t.join() for t in threads]
    assert all(found[i] == expected for i in range(3))
