# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Images encoded once: features=, transformers' mm_encoder_outputs=, and one image for several rows."""
import types

import numpy as np
import pytest

import paligemma

PROMPTS = ["caption en", "detect red circle ; yellow triangle", "answer en what color is the star?"]


@pytest.fixture(scope="module")
def rows(processor, image_path):
    return processor([image_path] * 3, PROMPTS, padding=True, return_tensors="np")


@pytest.fixture(scope="module")
def room(processor):
    """The same rows without pixels."""
    return processor(text=PROMPTS, image_counts=[1] * 3, padding=True, return_tensors="np")


def test_one_image_serves_each_row(model, rows, room):
    with model.encode_image(rows.pixel_values[:1]) as one:
        assert (model.generate(**room, features=one, max_new_tokens=24)
                == model.generate(**rows, max_new_tokens=24)).all()
        outputs = model(**room, features=one)
        assert (outputs.logits == model(**rows).logits).all() and outputs.image_hidden_states.shape[0] == 1
        assert (model.embed(**room, features=one).last_hidden_state == model.embed(**rows).last_hidden_state).all()


def test_features_that_fit_no_row_are_refused(model, rows, room):
    two = model.encode_image(rows.pixel_values[:2])
    with pytest.raises(ValueError, match="image tokens and images do not match") as caught:
        model.generate(**room, features=two, max_new_tokens=2)
    assert caught.value.row == 2
    with pytest.raises(ValueError, match="image tokens and images do not match"):  # pixels belong to one row each
        model.generate(**{**rows, "pixel_values": rows.pixel_values[:1]}, max_new_tokens=2)


def test_mm_encoder_outputs(model, processor, rows, room):
    encoded = model.get_image_features(rows.pixel_values)
    expected, logits = model.generate(**rows, max_new_tokens=24), model(**rows).logits
    values = encoded.pooler_output
    for image in (encoded, values, types.SimpleNamespace(pooler_output=values.reshape(-1, values.shape[2])),
                  model.encode_image(rows.pixel_values), values.tolist(), values[:1]):
        outputs = {"image": image}
        assert (model.generate(**room, mm_encoder_outputs=outputs, max_new_tokens=24) == expected).all()
        assert (model(**room, mm_encoder_outputs=outputs).logits == logits).all()
    single = {name: value[:1] for name, value in room.items()}
    text = processor.decode(expected[0, room.input_ids.shape[1]:], skip_special_tokens=True)
    assert "".join(model.stream(**single, mm_encoder_outputs={"image": values[:1]}, max_new_tokens=24)) == text
    assert (model.embed(**room, mm_encoder_outputs={"image": values}).last_hidden_state
            == model.embed(**rows).last_hidden_state).all()
    changed = model(**room, mm_encoder_outputs={"image": values * 0}).logits
    assert not np.allclose(changed, logits, atol=1e-3)
    assert (model.generate(**rows, mm_encoder_outputs={}, max_new_tokens=24) == expected).all()


def test_mm_encoder_outputs_that_are_wrong(model, rows, room):
    encoded = model.get_image_features(rows.pixel_values)
    nan = encoded.pooler_output.copy()
    nan[1, 2, 3] = np.nan
    for outputs in ({}, {"image": encoded}):
        with pytest.raises(ValueError, match="both pixel_values and mm_encoder_outputs"):
            model(**rows, mm_encoder_outputs=outputs)
    for words, call in {
        "raw pixels": lambda: model.generate(**rows, mm_encoder_outputs={"image": encoded}, max_new_tokens=2),
        "one of them": lambda: model(**room, mm_encoder_outputs={"image": encoded},
                                     features=model.encode_image(rows.pixel_values)),
        "image 1, token 2, column 3": lambda: model(**room, mm_encoder_outputs={"image": nan}),
        "expected .images, 64": lambda: model(**room, mm_encoder_outputs={"image": nan[:, :, 1:]}),
        "do not match": lambda: model(**room, mm_encoder_outputs={"image": encoded.pooler_output[:2]}),
        "no pixel_values": lambda: model(**room, mm_encoder_outputs={"video": encoded}),
    }.items():
        with pytest.raises(ValueError, match=words):
            call()
    for outputs in (encoded, encoded.pooler_output, [encoded]):
        with pytest.raises(TypeError, match='"image": what get_image_features'):
            model(**room, mm_encoder_outputs=outputs)


def test_mm_encoder_outputs_as_transformers(hf_model, model, processor, image_path):
    """Their object in our model and ours in theirs, in generate and in forward."""
    import torch

    rows = processor([image_path] * 2, PROMPTS[:2], padding=True, return_tensors="pt")
    pixels = rows.pop("pixel_values")
    theirs, ours = hf_model.get_image_features(pixels), model.get_image_features(pixels)
    assert torch.allclose(theirs.pooler_output, ours.pooler_output, atol=1e-3)
    expected = hf_model.generate(**rows, mm_encoder_outputs={"image": theirs}, max_new_tokens=24, do_sample=False)
    for image in (theirs, ours):
        assert torch.equal(model.generate(**rows, mm_encoder_outputs={"image": image}, max_new_tokens=24), expected)
        with torch.no_grad():
            logits = [each(**rows, mm_encoder_outputs={"image": image}).logits for each in (model, hf_model)]
        assert torch.allclose(*logits, atol=1e-3)


def test_an_error_knows_its_row(model, processor, image_path, tmp_path, rows):
    broken = tmp_path / "broken.png"
    broken.write_bytes(image_path.read_bytes()[:300])
    for row in range(3):
        images = [str(image_path)] * 3
        images[row] = str(broken)
        with pytest.raises(OSError) as caught:
            processor(images, PROMPTS, padding=True)
        error = caught.value
        assert (error.row, error.status, error.status_name) == (row, -40, "PG_ERROR_FORMAT")
        images[row] = np.zeros((5, 5, 7), np.uint8)  # refused before the library sees it
        with pytest.raises(ValueError, match=f"image {row}") as caught:
            processor(images, PROMPTS, padding=True)
        assert caught.value.row == row
        ids = rows.input_ids.copy()
        ids[row, -1] = 99999
        with pytest.raises(ValueError) as caught:
            model(**{**rows, "input_ids": ids})
        assert (caught.value.row, caught.value.status_name) == (row, "PG_ERROR_ARGUMENT")
    with pytest.raises(ValueError) as caught:
        model(**rows, logits_to_keep=10000)
    assert caught.value.row is None and caught.value.status == -10
    with pytest.raises(FileNotFoundError) as caught:
        type(model).from_pretrained(tmp_path / "nowhere")
    assert caught.value.row is None


def test_saved_and_loaded(model, rows, room, tmp_path):
    path = tmp_path / "three.features"
    with model.encode_image(rows.pixel_values) as features:
        features.save(path)
        data, values = features.to_bytes(), features.pooler_output.copy()
    assert path.read_bytes() == data
    for source in (path, str(path), data, bytearray(data)):
        with paligemma.Features.load(model, source) as loaded:
            assert len(loaded) == 3 and (loaded.pooler_output == values).all()
            assert (model.generate(**room, features=loaded, max_new_tokens=8)
                    == model.generate(**rows, max_new_tokens=8)).all()


def test_saved_features_are_safetensors(model, rows, tmp_path):
    safetensors = pytest.importorskip("safetensors")
    path = tmp_path / "three.features"
    features = model.encode_image(rows.pixel_values)
    features.save(path)
    with safetensors.safe_open(path, "numpy") as file:
        assert list(file.keys()) == ["features"]
        assert (file.get_tensor("features") == features.pooler_output).all()
        metadata = file.metadata()
    assert metadata["format"] == "libpaligemma-features" and metadata["weights"] == "stored"
    assert len(metadata["model"]) == 16


def test_damaged_or_foreign_features_are_refused(model, rows, tmp_path):
    data = model.encode_image(rows.pixel_values[:1]).to_bytes()
    with pytest.raises(OSError, match="checksum"):
        paligemma.Features.load(model, data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(OSError, match="expected"):
        paligemma.Features.load(model, data[:-4])
    with pytest.raises(FileNotFoundError):
        paligemma.Features.load(model, tmp_path / "none.features")
    int8 = paligemma.PaliGemmaForConditionalGeneration.from_pretrained(model.name_or_path, weights="int8")
    with pytest.raises(ValueError, match="weights stored, expected int8"):
        paligemma.Features.load(int8, data)
    with pytest.raises(ValueError, match="folder"):
        model.encode_image(rows.pixel_values[:1]).save(tmp_path)
