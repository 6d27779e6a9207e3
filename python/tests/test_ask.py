# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""model.ask(): one image, encoded once, and many prompts."""
import json
import shutil

import numpy as np
import pytest

import paligemma

PROMPTS = ["caption en", "answer en what color is the star?", "detect red circle ; yellow triangle"]


def by_generate(model, processor, image, prompt, **settings):
    inputs = processor(str(image), prompt, return_tensors="np")
    ids = model.generate(**inputs, **{"max_new_tokens": 128, **settings})
    return processor.decode(ids[0][inputs["input_ids"].shape[1]:], skip_special_tokens=True)


def test_the_answers_of_generate(model, processor, image_path):
    expected = [by_generate(model, processor, image_path, prompt) for prompt in PROMPTS]
    assert expected[0] == "a red circle, a purple star and a yellow triangle"
    look = model.ask(image_path)
    assert isinstance(look, paligemma.AskedImage) and len(look.features) == 1
    assert [look(prompt) for prompt in PROMPTS] == expected
    assert look(PROMPTS) == expected and look(tuple(PROMPTS)) == expected and look([]) == []
    assert "".join(look.stream("caption en")) == expected[0]
    assert model.ask(image_path, "caption en") == expected[0] and model.ask(image_path, PROMPTS) == expected
    assert model.ask(image_path.read_bytes(), "caption en") == expected[0]
    assert model.ask(image_path, "caption en", processor=processor) == expected[0]


def test_the_encoder_runs_once(model, image_path, monkeypatch):
    calls = []
    encode = type(model).encode_image
    monkeypatch.setattr(type(model), "encode_image", lambda self, *a, **k: calls.append(1) or encode(self, *a, **k))
    look = model.ask(image_path)
    for prompt in PROMPTS:
        look(prompt)
    assert calls == [1]


@pytest.mark.parametrize("config, stop", [
    ({"stop_strings": ["circle"]}, "circle"), ({"num_beams": 3, "num_return_sequences": 2}, None),
    ({"do_sample": True, "top_k": 1, "num_return_sequences": 3}, None),
])
def test_what_the_folder_says(folder, image_path, tmp_path, config, stop):
    """One answer to each prompt, and the processor that ask() has reads the stop strings."""
    changed = tmp_path / "changed"
    shutil.copytree(folder, changed)
    (changed / "generation_config.json").write_text(json.dumps({"eos_token_id": 1, "pad_token_id": 0, "bos_token_id": 2, **config}))
    with paligemma.PaliGemmaForConditionalGeneration.from_pretrained(changed) as model:
        answers = model.ask(image_path, PROMPTS)
        assert len(answers) == len(PROMPTS) and answers[0] == model.ask(image_path, PROMPTS[0])
        assert answers[0] == ("a red circle" if stop else "a red circle, a purple star and a yellow triangle")


def test_settings(model, processor, image_path):
    look = model.ask(image_path)
    assert look("caption en", max_new_tokens=3) == by_generate(model, processor, image_path, "caption en", max_new_tokens=3)
    draw = dict(do_sample=True, temperature=3.0, seed=7)
    assert look("caption en", **draw) == by_generate(model, processor, image_path, "caption en", **draw)
    assert look("caption en", return_dict_in_generate=True) == look("caption en")
    config = paligemma.GenerationConfig(max_new_tokens=2)
    assert look("caption en", generation_config=config) == look("caption en", max_new_tokens=2) != look("caption en")
    assert "".join(look.stream("caption en", max_new_tokens=2)) == look("caption en", max_new_tokens=2)


def test_exif(model, image_path):
    stripes = image_path.parent / "stripes.jpg"
    jpeg = stripes.read_bytes()
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    turned = jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]
    plain, upright = model.ask(stripes), model.ask(turned)
    assert not np.array_equal(plain.features.pooler_output, upright.features.pooler_output)
    assert np.array_equal(plain.features.pooler_output, model.ask(turned, exif=False).features.pooler_output)


def test_closing(folder, image_path):
    with paligemma.PaliGemmaForConditionalGeneration.from_pretrained(folder) as model:
        with model.ask(image_path) as look:
            assert look("caption en")
        assert look.closed and not model.closed
        with pytest.raises(ValueError, match="closed"):
            look("caption en")
        again = model.ask(image_path)
        again.processor.close()
        assert model.ask(image_path, "caption en")  # the model opens its processor anew
        kept = model.ask(image_path)
    with pytest.raises(ValueError, match="closed"):
        kept("caption en")


def test_what_is_refused(model, image_path):
    look = model.ask(image_path)
    for call, error, word in [(lambda: model.ask([image_path, image_path]), ValueError, "one image"),
                              (lambda: model.ask(image_path, max_new_tokens=3), TypeError, "max_new_tokens"),
                              (lambda: look(7), TypeError, "not iterable"), (lambda: look([7]), TypeError, "expected a str"),
                              (lambda: look("a", num_return_sequences=2, do_sample=True), ValueError, "one answer"),
                              (lambda: look("a", max_new_tokens=0), ValueError, "greater than 0"),
                              (lambda: model.ask("/nowhere.png"), OSError, "nowhere")]:
        with pytest.raises(error, match=word):
            call()
    flag = paligemma.CancelFlag()
    flag.request()
    with pytest.raises(paligemma.Cancelled):
        model.ask(image_path, cancel=flag)
    with pytest.raises(paligemma.Cancelled):
        look("caption en", cancel=flag)
