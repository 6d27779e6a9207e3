# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""PaliGemmaConfig by itself: where it is read from, what may be changed, what is saved."""
import copy
import json
import os
import pickle
import shutil

import pytest

import paligemma


@pytest.fixture
def config(folder):
    return paligemma.AutoConfig.from_pretrained(folder)


def test_a_folder_with_config_json_alone(config, folder, tmp_path):
    shutil.copy(os.path.join(folder, "config.json"), tmp_path)
    for source in (tmp_path, str(tmp_path), tmp_path / "config.json", str(tmp_path / "config.json")):
        for door in (paligemma.AutoConfig, paligemma.PaliGemmaConfig):
            found = door.from_pretrained(source)
            assert found == config and found.name_or_path == str(source)
    shutil.copy(os.path.join(folder, "tokenizer_config.json"), tmp_path)
    with pytest.raises(ValueError, match="config.json"):
        paligemma.AutoConfig.from_pretrained(tmp_path / "tokenizer_config.json")
    with pytest.raises(OSError):
        paligemma.AutoConfig.from_pretrained(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(NotImplementedError, match="llama"):
        paligemma.AutoConfig.from_pretrained(tmp_path)


def test_keywords(config, folder):
    found = paligemma.AutoConfig.from_pretrained(folder, pad_token_id=7, torch_dtype="float32", trust_remote_code=True)
    assert found.pad_token_id == 7 and found.dtype == found.torch_dtype == "float32" and found != config
    with pytest.raises(ValueError, match="zebra"):
        paligemma.AutoConfig.from_pretrained(folder, zebra=1)


def test_reading(config):
    assert config.image_token_id == config.image_token_index == config["image_token_id"] == 1762
    assert config.attribute_map == {"image_token_id": "image_token_index"} and config.use_return_dict is True
    assert config.model_type == "paligemma" and config.text_config.model_type == "gemma"
    assert json.loads(config.to_json_string(use_diff=False)) == config.to_dict()
    assert not {"id2label", "output_attentions", "_name_or_path"} & set(config.to_diff_dict())
    config.to_dict()["text_config"]["hidden_size"] = 3
    assert config.text_config.hidden_size == 160
    for clone in (copy.deepcopy(config), pickle.loads(pickle.dumps(config)), type(config).from_dict(config.to_dict())):
        assert clone == config and type(clone) is type(config)
        clone.text_config.hidden_size = 3
        assert clone != config


def test_changes_of_its_own(config, tmp_path):
    config.text_config.use_cache, config.vision_config.image_size, config.new_field = False, 224, {"a": 1}
    config.update({"pad_token_id": 5})
    assert config.save_pretrained(tmp_path / "a" / "b") is None
    found = paligemma.AutoConfig.from_pretrained(tmp_path / "a" / "b")
    assert found.text_config.use_cache is False and found.new_field.a == 1
    assert found.vision_config.image_size == 224 and found.pad_token_id == 5
    (tmp_path / "file").write_text("")
    with pytest.raises(AssertionError, match="should be a directory"):
        config.save_pretrained(tmp_path / "file")
    for call in (lambda: config.push_to_hub("x"), lambda: config.save_pretrained(tmp_path, push_to_hub=True)):
        with pytest.raises(NotImplementedError, match="upload_folder"):
            call()


def test_changes_of_a_model(folder):
    with paligemma.PaliGemmaForConditionalGeneration.from_pretrained(folder) as model:
        model.config.use_cache = model.config.text_config.use_cache = False
        model.config.pad_token_id = model.config.eos_token_id = 7
        model.config.torch_dtype = "float32"
        assert model.config.use_cache is False and model.config.pad_token_id == 7 and model.config.dtype == "float32"
        assert model.generation_config.eos_token_id == 1  # which generate() goes by, as in transformers
        model.config.image_token_id = 1762  # as it is
        for part, name, value in ((model.config, "image_token_id", 5), (model.config.text_config, "hidden_size", 3),
                                  (model.config.vision_config, "image_size", 224),
                                  (model.config, "_attn_implementation", "eager"), (model.config, "text_config", {}),
                                  (model.config, "output_hidden_states", True)):
            with pytest.raises(AttributeError, match=f"cannot be changed.*{name}"):
                setattr(part, name, value)
        assert model.config.name_or_path == folder


def test_transformers_reads_what_is_saved(hf, config, folder, tmp_path):
    config.save_pretrained(tmp_path / "ours")
    theirs, first = hf.AutoConfig.from_pretrained(tmp_path / "ours"), hf.AutoConfig.from_pretrained(folder)
    without = ("_name_or_path", "transformers_version")
    assert {k: v for k, v in theirs.to_dict().items() if k not in without} == {
        k: v for k, v in first.to_dict().items() if k not in without}
    first.save_pretrained(tmp_path / "theirs")
    found = paligemma.AutoConfig.from_pretrained(tmp_path / "theirs")
    assert {**found.to_dict(), **dict.fromkeys(without)} == {**config.to_dict(), **dict.fromkeys(without)}
    written, expected = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("ours", "theirs"))
    assert {**written, "transformers_version": None} == {**expected, "transformers_version": None}
