# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""save_pretrained() of a model, and what code for torch modules asks of it."""
import json
import os

import numpy as np
import pytest

import paligemma
from paligemma import PaliGemmaForConditionalGeneration as Model


@pytest.fixture(scope="module")
def inputs(processor, image_path):
    return processor(image_path, "caption en", return_tensors="np")


def shards(folder, out, n=3):
    """The demo model in n files."""
    data = (folder / "model.safetensors").read_bytes()
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8:8 + size]), data[8 + size:]
    header.pop("__metadata__", None)
    names = sorted(header)
    weight_map = {}
    for k in range(n):
        file, of_file, parts = f"model-{k + 1:05}-of-{n:05}.safetensors", {}, []
        for name in names[k::n]:
            begin, end = header[name]["data_offsets"]
            at = sum(map(len, parts))
            parts.append(body[begin:end])
            of_file[name] = dict(header[name], data_offsets=[at, at + end - begin])
            weight_map[name] = file
        text = json.dumps(of_file).encode()
        text += b" " * (-len(text) % 8)
        (out / file).write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))
    (out / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (out / "config.json").write_bytes((folder / "config.json").read_bytes())


def listed(folder):
    return sorted(os.listdir(folder))


def test_saved_and_opened_again(model, folder, inputs, tmp_path):
    expected = model.generate(**inputs, max_new_tokens=12)
    with Model.from_pretrained(folder) as other:
        other.generation_config.max_new_tokens = 12
        assert other.save_pretrained(tmp_path / "new" / "folder") is None
    out = tmp_path / "new" / "folder"
    assert listed(out) == ["config.json", "generation_config.json", "model.safetensors"]
    settings = json.loads((out / "generation_config.json").read_text())
    assert settings["max_new_tokens"] == 12 and settings["eos_token_id"] == 1 and "num_beams" not in settings
    with Model.from_pretrained(out) as saved:
        assert (saved.generate(**inputs) == expected).all()
        assert saved.config == model.config
        saved.save_pretrained(tmp_path / "second", safe_serialization=True, max_shard_size="5GB")
    assert (tmp_path / "second" / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


def test_shards_and_what_lay_there_before(model, folder, inputs, tmp_path):
    import pathlib

    (tmp_path / "shards").mkdir()
    shards(pathlib.Path(folder), tmp_path / "shards")
    out = tmp_path / "out"
    with Model.from_pretrained(tmp_path / "shards") as sharded:
        sharded.save_pretrained(out)
        (out / "tokenizer.json").write_text("{}")
        assert len(list(out.glob("model-*.safetensors"))) == 3 and (out / "model.safetensors.index.json").exists()
        with Model.from_pretrained(out) as saved:
            assert (saved(**inputs).logits == model(**inputs).logits).all()
            model.save_pretrained(out)  # in place of the shards
        assert listed(out) == ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"]
        with Model.from_pretrained(out) as saved:
            assert (saved(**inputs).logits == model(**inputs).logits).all()
            sharded.save_pretrained(out)
        assert not (out / "model.safetensors").exists()
        with Model.from_pretrained(out) as saved:
            assert (saved(**inputs).logits == model(**inputs).logits).all()


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_quantized(folder, inputs, tmp_path, weights):
    with Model.from_pretrained(folder, weights=weights) as quantized:
        expected = quantized(**inputs).logits
        quantized.save_pretrained(tmp_path / "once", max_shard_size=10**6)
    assert not [name for name in listed(tmp_path / "once") if "token" in name or "partial" in name]
    for again in ({}, {"weights": weights}):
        with Model.from_pretrained(tmp_path / "once", **again) as saved:
            assert (saved(**inputs).logits == expected).all()
            saved.save_pretrained(tmp_path / "twice")
        with Model.from_pretrained(tmp_path / "twice") as copied:
            assert (copied(**inputs).logits == expected).all()


def test_what_cannot_be_saved(model, folder, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(folder)
    for error, words, arguments in [
        (ValueError, "opened from", (folder, {})),
        (ValueError, "opened from", (tmp_path / "link", {})),
        (OSError, "should be a directory, not a file", (tmp_path / "file", {})),
        (ValueError, "1000000 bytes, but model.safetensors", (tmp_path / "a", {"max_shard_size": "1MB"})),
        (ValueError, "max_shard_size is 'big'", (tmp_path / "a", {"max_shard_size": "big"})),
        (NotImplementedError, "upload_folder", (tmp_path / "a", {"push_to_hub": True})),
        (NotImplementedError, "state_dict", (tmp_path / "a", {"state_dict": {"a": 1}})),
        (NotImplementedError, "variant", (tmp_path / "a", {"variant": "fp16"})),
        (TypeError, "'anything'", (tmp_path / "a", {"anything": 1})),
    ]:
        with pytest.raises(error, match=words):
            model.save_pretrained(arguments[0], **arguments[1])
    with pytest.raises(NotImplementedError, match="network"):
        model.push_to_hub("somebody/model")
    assert not (tmp_path / "a").exists() or listed(tmp_path / "a") == []
    model.save_pretrained(tmp_path / "b", is_main_process=False)
    assert not (tmp_path / "b").exists()


def test_a_failure_leaves_the_folder_as_it_was(model, inputs, tmp_path, monkeypatch):
    model.save_pretrained(tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in listed(tmp_path)}

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("paligemma._save.shutil.copyfile", full)
    with pytest.raises(OSError, match="No space"):
        model.save_pretrained(tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in listed(tmp_path)} == before


def test_transformers_opens_what_was_saved(hf, hf_model, folder, inputs, tmp_path):
    import torch

    with Model.from_pretrained(folder) as model:
        model.generation_config.max_new_tokens = 7
        model.save_pretrained(tmp_path)
    theirs = hf.PaliGemmaForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert theirs.generation_config.max_new_tokens == 7
    tensors = {name: torch.from_numpy(value) for name, value in inputs.items()}
    with torch.no_grad():
        assert torch.equal(theirs(**tensors).logits, hf_model(**tensors).logits)
    theirs.save_pretrained(tmp_path / "theirs")
    with Model.from_pretrained(tmp_path / "theirs") as again, Model.from_pretrained(folder) as model:
        assert np.allclose(again(**inputs).logits, model(**inputs).logits, atol=1e-3)


def test_as_a_torch_module(model):
    n = model.num_parameters()
    assert 0 < model.num_parameters(exclude_embeddings=True) < n and model.num_parameters(only_trainable=True) == 0
    assert model.get_memory_footprint() >= 2 * n
    assert model.tie_weights() is model and model.main_input_name == "input_ids"
    for call in (model.parameters, model.named_parameters, model.state_dict, model.modules, model.buffers):
        with pytest.raises(NotImplementedError, match="model.device"):
            call()
    for call in (model.gradient_checkpointing_enable, lambda: model.resize_token_embeddings(5)):
        with pytest.raises(NotImplementedError, match="paligemma.Trainer"):
            call()
    for name, words in {"vision_tower": "get_image_features", "multi_modal_projector": "get_image_features",
                        "language_model": "output_hidden_states", "lm_head": "logits", "model": "embed"}.items():
        assert not hasattr(model, name)
        with pytest.raises(AttributeError, match=words):
            getattr(model, name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        model.nothing
    with pytest.raises(ValueError, match="paligemma.Trainer"):
        model.train()
    with pytest.raises(NotImplementedError, match="load_adapter"):
        model.add_adapter("somewhere")


def test_input_embeddings(model, inputs):
    ids = inputs.input_ids[:, 64:]
    embed = model.get_input_embeddings()
    rows = embed(ids)
    assert rows.shape == (*ids.shape, model.config.text_config.hidden_size) and rows.dtype == np.float32
    assert (rows == model(ids, output_hidden_states=True).hidden_states[0]).all()
    assert (embed(ids[0, 1]) == rows[0, 1]).all()
    assert (model(inputs_embeds=rows).logits == model(ids).logits).all()
    with pytest.raises(ValueError, match="token 1 is id 99999"):
        embed([5, 99999])
    with pytest.raises(TypeError, match="integers"):
        embed([0.5])
    with pytest.raises(AttributeError, match="call it with ids"):
        embed.weight


def test_small_numbers_as_transformers(hf_model, model, inputs):
    import torch

    assert model.num_parameters() == hf_model.num_parameters()
    assert model.num_parameters(exclude_embeddings=True) == hf_model.num_parameters(exclude_embeddings=True)
    ids = torch.from_numpy(inputs.input_ids)
    assert torch.equal(model.get_input_embeddings()(ids), hf_model.get_input_embeddings()(ids))


def test_arguments_of_from_pretrained(folder, inputs):
    settings = paligemma.GenerationConfig(max_new_tokens=3, eos_token_id=1)
    opened, info = Model.from_pretrained(folder, output_loading_info=True, generation_config=settings)
    with opened:
        assert info["missing_keys"] == set() and info["error_msgs"] == []
        assert opened.generate(**inputs).shape[1] == inputs.input_ids.shape[1] + 3
    for dtype in ("auto", "float32", "bfloat16", "torch.float16", "half", {"text_config": "bfloat16"}, None):
        Model.from_pretrained(folder, dtype=dtype, torch_dtype=dtype).close()
    for words, arguments in {"weights=.int4": dict(dtype="int8"), "weights=.int4.": dict(load_in_4bit=True),
                             "weights=.int8.": dict(quantization_config={"load_in_8bit": True}),
                             "f32": dict(torch_dtype="float8_e4m3fn"), "model.fp16": dict(variant="fp16"),
                             "does not know, 'foo'": dict(foo=False)}.items():
        with pytest.raises(ValueError, match=words):
            Model.from_pretrained(folder, **arguments)


def test_config_is_saved_and_opened(hf, folder, inputs, tmp_path):
    import shutil

    with Model.from_pretrained(folder) as model:
        model.config.save_pretrained(tmp_path)
        theirs, stored = (hf.AutoConfig.from_pretrained(path) for path in (tmp_path, folder))
        for part in ("text_config", "vision_config"):
            a, b = getattr(theirs, part).to_dict(), getattr(stored, part).to_dict()
            assert {k: v for k, v in a.items() if k != "dtype"} == {k: v for k, v in b.items() if k != "dtype"}
        shutil.copy(os.path.join(folder, "model.safetensors"), tmp_path)
        with Model.from_pretrained(tmp_path) as again:
            assert (again(**inputs).logits == model(**inputs).logits).all()
            assert json.loads(again.config.to_json_string()) == json.loads(model.config.to_json_string())
        with pytest.raises(NotImplementedError, match="network"):
            model.config.save_pretrained(tmp_path, push_to_hub=True)


def test_assignments_to_the_config(folder, inputs):
    """What nothing reads can be assigned, and the rest cannot."""
    with Model.from_pretrained(folder) as model:
        expected = model.generate(**inputs, max_new_tokens=4)
        model.config.use_cache = model.config.text_config.use_cache = False
        model.config.pad_token_id = model.config.eos_token_id = 5
        model.config.mine = 3
        assert model.config.mine == 3 and model.config.use_cache is False and model.config.text_config.use_cache is False
        model.config.model_type = "paligemma"  # as it is
        assert (model.generate(**inputs, max_new_tokens=4) == expected).all()
        for name, of in (("hidden_size", model.config.text_config), ("output_hidden_states", model.config),
                         ("image_token_id", model.config), ("_attn_implementation", model.config)):
            with pytest.raises(AttributeError, match="cannot be changed"):
                setattr(of, name, 77)


def test_attention_is_set_later(folder, inputs):
    given = {"input_ids": inputs.input_ids, "pixel_values": inputs.pixel_values}
    with Model.from_pretrained(folder) as model, Model.from_pretrained(folder, attn_implementation="eager") as eager:
        default, expected = model(**given).logits, eager(**given).logits
        assert not (default == expected).all()
        model.set_attn_implementation({"text_config": "eager"})
        assert (model(**given).logits == expected).all()
        model.set_attn_implementation("sdpa")
        assert (model(**given).logits == default).all()
