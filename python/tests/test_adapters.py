# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Adapters: load_adapter() and its kin, PeftModel, adapter folders, adapter_names. The results are those of checkpoints
whose weights are the sum. test_hf_adapters.py compares with PEFT."""
import copy
import json
import pickle
import shutil
import threading

import numpy as np
import pytest

import paligemma
from adapter_cases import TEXT, Case, merged, modules, read, write

Model = paligemma.PaliGemmaForConditionalGeneration
TOLERANCE = 1e-4  # logits of up to 30 in f32, whose last bit is 2e-6, after some hundred roundings
PROMPTS = ["caption en", "detect red circle ; yellow triangle", "answer en what color is the star?", "caption en"]


@pytest.fixture(scope="module")
def cases(folder, tmp_path_factory):
    """A few adapters; "a" and "b" change the decoder alone."""
    root = tmp_path_factory.mktemp("adapters")
    some = modules(("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
                   ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"))
    return {
        "a": Case(root / "a", folder, 1, modules()),
        "b": Case(root / "b", folder, 2, modules(("k_proj", "v_proj", "down_proj")), r=7, lora_alpha=3),
        "all": Case(root / "all", folder, 3, some, size=0.03),
        "eyes": Case(root / "eyes", folder, 4, modules((), ("v_proj", "fc2"))),
        "rs": Case(root / "rs", folder, 5, modules(), use_rslora=True, rank_pattern={"v_proj": 2},
                   alpha_pattern={"layers.1.self_attn.q_proj": 5}),
        "dora": Case(root / "dora", folder, 6, modules(), use_dora=True),
        "whole": Case(root / "whole", folder, 7, modules(), modules_to_save=["norm"], whole=[f"{TEXT}.norm"]),
    }


@pytest.fixture(scope="module")
def inputs(processor, image_path):
    return processor(str(image_path), "caption en", return_tensors="np")


@pytest.fixture(scope="module")
def rows(processor, image_path):
    return processor([str(image_path)] * 4, PROMPTS, padding=True, return_tensors="np")


@pytest.fixture(scope="module")
def expected(cases, tmp_path_factory, inputs, folder):
    """(pairs of a case's name and weight) -> logits of the model with that sum; () of the base."""
    known = {}

    def logits(*pairs):
        if pairs not in known:
            path = merged(tmp_path_factory.mktemp("merged") / "m", *[(cases[name], weight) for name, weight in pairs]) \
                if pairs else folder
            with Model.from_pretrained(path) as model:
                known[pairs] = model(**inputs).logits.copy()
        return known[pairs]

    return logits


@pytest.fixture
def opened(folder):
    with Model.from_pretrained(folder) as model:
        yield model


def same(logits, expected):
    """Equal but for rounding, and the base's are far away."""
    return float(np.abs(np.asarray(logits) - expected).max()) < TOLERANCE


# ------------------------------------------------------------------------------------------- what is computed


@pytest.mark.parametrize("name", ["a", "b", "all", "eyes", "rs", "dora", "whole"])
def test_an_adapter_is_what_it_adds(opened, cases, expected, inputs, name):
    info = opened.load_adapter(cases[name].folder)
    assert not info.missing_keys and not info.unexpected_keys and not info.error_msgs
    found = opened(**inputs).logits
    assert same(found, expected((name, 1.0))) and np.abs(found - expected()).max() > 0.5
    opened.disable_adapters()
    assert (opened(**inputs).logits == expected()).all()  # the base's own, to the bit


def test_two_in_use_are_added_up(opened, cases, expected, inputs):
    opened.load_adapter(cases["a"].folder, "one")
    opened.load_adapter(str(cases["b"].folder), adapter_name="two")
    assert opened.active_adapters() == ["two"] and same(opened(**inputs).logits, expected(("b", 1.0)))
    for names in (["one", "two"], ("two", "one")):
        opened.set_adapter(names)
        assert opened.active_adapters() == list(names)
        assert same(opened(**inputs).logits, expected(("a", 1.0), ("b", 1.0)))
    opened.set_adapter(["one", "one"])  # PEFT, too, adds it twice
    assert same(opened(**inputs).logits, expected(("a", 2.0)))
    opened.set_adapter([])
    assert opened.active_adapters() == [] and (opened(**inputs).logits == expected()).all()


def test_weighted(opened, cases, expected, inputs):
    opened.load_adapter(cases["a"].folder, "a")
    opened.load_adapter(cases["b"].folder, "b")
    opened.add_weighted_adapter(["a", "b"], [0.75, -0.5], "mix", combination_type="cat", svd_rank=3)
    assert opened.active_adapters() == ["b"]
    config = opened.peft_config["mix"]
    assert (config.r, config.lora_alpha, config.rank_pattern) == (11, 11, {})
    opened.set_adapter("mix")
    assert same(opened(**inputs).logits, expected(("a", 0.75), ("b", -0.5)))
    opened.add_weighted_adapter(["mix", "a"], [2, -1], "of a mix")
    opened.delete_adapter(["a", "b"])  # the sums keep what they need
    opened.set_adapter("of a mix")
    assert same(opened(**inputs).logits, expected(("a", 0.5), ("b", -1.0)))
    opened.add_weighted_adapter(["mix"], [0.0], "nothing", combination_type="svd")  # PEFT's rule for one adapter
    opened.set_adapter("nothing")
    assert (opened(**inputs).logits == expected()).all()


def test_what_a_weighted_adapter_cannot_be(opened, cases):
    for name in ("a", "b", "dora", "whole", "rs"):
        opened.load_adapter(cases[name].folder, name)
    for kind in ("svd", "linear", "ties", "dare_linear", "magnitude_prune"):
        with pytest.raises(NotImplementedError, match=f"{kind}.*expected \"cat\""):
            opened.add_weighted_adapter(["a", "b"], [1, 1], "mix", combination_type=kind)
    for name, words in (("dora", "'dora' has use_dora, which PEFT leaves out"), ("whole", "has modules_to_save")):
        with pytest.raises(NotImplementedError, match=words):
            opened.add_weighted_adapter(["a", name], [1, 1], "mix")
    for arguments, words in (((["a", "q"], [1, 1], "mix"), "q does not exist"), ((["a"], [1, 2], "mix"), "1 adapters and 2"),
                             (([], [], "mix"), "0 adapters"), ((["a"], [float("nan")], "mix"), "finite"),
                             ((["a"], [1], "__base__"), "__base__")):
        with pytest.raises(ValueError, match=words):
            opened.add_weighted_adapter(*arguments)
    assert "mix" not in opened.peft_config and opened.active_adapters() == ["rs"]
    with pytest.warns(UserWarning, match="'a'"):
        opened.add_weighted_adapter(["b"], [1], "a")
    with pytest.warns(UserWarning, match="square root"):
        opened.add_weighted_adapter(["rs", "a"], [1, 1], "sum")


def test_two_that_replace_one_module(opened, cases, expected, inputs):
    opened.load_adapter(cases["whole"].folder, "x")
    opened.load_adapter(cases["whole"].folder, "y")
    with pytest.raises(NotImplementedError, match="norm"):
        opened.set_adapter(["x", "y"])
    assert opened.active_adapters() == ["y"] and same(opened(**inputs).logits, expected(("whole", 1.0)))
    opened.load_adapter(cases["a"].folder, "a")
    opened.set_adapter(["a", "x"])
    assert same(opened(**inputs).logits, expected(("a", 1.0), ("whole", 1.0)))


# ------------------------------------------------------------------------------------------- names and states


def test_the_calls_of_transformers(opened, cases, expected, inputs):
    for call in (opened.active_adapters, opened.disable_adapters, opened.enable_adapters,
                 lambda: opened.set_adapter("a"), lambda: opened.delete_adapter("a")):
        with pytest.raises(ValueError, match="No adapter loaded"):
            call()
    assert not hasattr(opened, "peft_config") and not hasattr(opened, "active_adapter")
    opened.load_adapter(cases["a"].folder)
    assert opened.active_adapters() == ["default"] and list(opened.peft_config) == ["default"]
    config = opened.peft_config["default"]
    assert config.r == config["r"] == 4 and config.to_dict() == cases["a"].config and not hasattr(config, "nothing")
    with pytest.raises(ValueError, match="default already exists"):
        opened.load_adapter(cases["b"].folder)
    with pytest.raises(ValueError, match="hotswap"):
        opened.load_adapter(cases["b"].folder, "b", hotswap=True)
    opened.load_adapter(cases["b"].folder, adapter_name="default", hotswap=True)
    assert same(opened(**inputs).logits, expected(("b", 1.0)))
    opened.load_adapter(cases["a"].folder, adapter_name="a")
    with pytest.raises(ValueError, match=r"q not found.*\['default', 'a'\]"):
        opened.set_adapter("q")
    with pytest.raises(ValueError, match="could not be found: q"):
        opened.set_adapter(["a", "q"])
    assert opened.active_adapters() == ["a"]


def test_disabled(opened, cases, expected, inputs):
    opened.load_adapter(cases["a"].folder, "a")
    opened.disable_adapters()
    opened.load_adapter(cases["b"].folder, "b")  # in use, and switched off like the first
    assert opened.active_adapters() == ["b"] and (opened(**inputs).logits == expected()).all()
    opened.set_adapter("a")
    assert (opened(**inputs).logits == expected()).all()
    with opened.disable_adapter():
        assert (opened(**inputs).logits == expected()).all()
    assert (opened(**inputs).logits == expected()).all()
    opened.enable_adapters()
    assert same(opened(**inputs).logits, expected(("a", 1.0)))
    with pytest.raises(KeyError), opened.disable_adapter():
        with opened.disable_adapter():
            opened.set_adapter("b")
        assert (opened(**inputs).logits == expected()).all()
        raise KeyError
    assert same(opened(**inputs).logits, expected(("b", 1.0)))
    with opened.disable_adapter():
        opened.delete_adapter(["a", "b"])
    assert (opened(**inputs).logits == expected()).all()


def test_deleted(opened, cases, expected, inputs):
    for name in ("b", "a", "eyes"):
        opened.load_adapter(cases[name].folder, name)
    with pytest.raises(ValueError, match="cannot be deleted: q"):
        opened.delete_adapter(["a", "q"])
    opened.set_adapter(["eyes", "b"])
    opened.delete_adapter("eyes")
    assert opened.active_adapters() == ["b"] and same(opened(**inputs).logits, expected(("b", 1.0)))
    with pytest.warns(UserWarning, match="b was active which is now deleted. Setting active adapter to a"):
        opened.delete_adapter("b")
    assert opened.active_adapters() == ["a"] and same(opened(**inputs).logits, expected(("a", 1.0)))
    opened.delete_adapter(["a"])
    assert not hasattr(opened, "peft_config") and (opened(**inputs).logits == expected()).all()
    opened.load_adapter(cases["b"].folder, None)
    assert opened.active_adapters() == ["default"] and same(opened(**inputs).logits, expected(("b", 1.0)))


def test_what_is_refused(opened, cases, tmp_path):
    path = cases["a"].folder
    for error, words, arguments in (
            (NotImplementedError, "is_trainable=True.*paligemma.Trainer", dict(is_trainable=True)),
            (NotImplementedError, "peft_config", dict(peft_config={})),
            (NotImplementedError, "adapter_state_dict", dict(adapter_state_dict={})),
            (ValueError, "load_adapter.. got.*'foo'", dict(foo=1)), (TypeError, "int", dict(adapter_name=3)),
            (ValueError, "__base__", dict(adapter_name="__base__"))):
        with pytest.raises(error, match=words):
            opened.load_adapter(path, **arguments)
    opened.load_adapter(path, low_cpu_mem_usage=True, local_files_only=True, token="t", adapter_kwargs={"token": None})
    for found, error in ((tmp_path, FileNotFoundError), (tmp_path / "none", FileNotFoundError), (None, ValueError)):
        with pytest.raises(error):
            opened.load_adapter(found, "b")
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(OSError, match="adapter_config.json"):
        opened.load_adapter(tmp_path, "b")
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "IA3"}')
    with pytest.raises(NotImplementedError, match="IA3"):
        opened.load_adapter(tmp_path, "b")
    assert opened.active_adapters() == ["default"]
    with pytest.raises(NotImplementedError, match="load_adapter"):
        opened.add_adapter(None)
    with pytest.raises(NotImplementedError, match="adapter_model.safetensors"):
        opened.get_adapter_state_dict()


# ------------------------------------------------------------------------------------------- PeftModel


def test_peft_model(opened, cases, expected, inputs, processor):
    tuned = paligemma.PeftModel.from_pretrained(opened, cases["a"].folder, torch_device="cpu")
    assert tuned.active_adapter == "default" and tuned.active_adapters == ["default"] and tuned.get_base_model() is opened
    assert same(tuned(**inputs).logits, expected(("a", 1.0)))
    assert (opened(**inputs).logits == tuned.forward(**inputs).logits).all()  # as in PEFT, the model itself is changed
    tuned.load_adapter(cases["b"].folder, "b")
    assert tuned.active_adapter == "default" and list(tuned.peft_config) == ["default", "b"]
    assert tuned.active_peft_config.base_model_name_or_path == opened.name_or_path
    with pytest.raises(TypeError):
        tuned.load_adapter(cases["b"].folder)
    tuned.set_adapter("b")
    assert same(tuned(**inputs).logits, expected(("b", 1.0)))
    tuned.base_model.set_adapter(["default", "b"])
    assert tuned.active_adapter == ["default", "b"]
    assert same(tuned(**inputs).logits, expected(("a", 1.0), ("b", 1.0)))
    with tuned.disable_adapter():
        assert (tuned(**inputs).logits == expected()).all() and tuned.active_adapters == ["default", "b"]
    tuned.base_model.disable_adapter_layers()
    assert (tuned(**inputs).logits == expected()).all()
    tuned.base_model.enable_adapter_layers()
    for words, call in (("Adapter q not found", lambda: tuned.set_adapter("q")),
                        ("Adapter q does not exist", lambda: tuned.delete_adapter("q"))):
        with pytest.raises(ValueError, match=words):
            call()
    tuned.add_weighted_adapter(["default", "b"], [0.75, -0.5], "mix")
    tuned.set_adapter("mix")
    assert same(tuned(**inputs).logits, expected(("a", 0.75), ("b", -0.5)))
    ids = tuned.generate(**inputs, max_new_tokens=8)
    text = processor.decode(ids[0, inputs.input_ids.shape[1]:], skip_special_tokens=True)
    assert "".join(tuned.stream(inputs, processor, max_new_tokens=8)) == text
    assert tuned.eval().to("cpu") is tuned and tuned.config is opened.config and tuned.base_model.model is opened
    tuned.generation_config = paligemma.GenerationConfig(max_new_tokens=3, eos_token_id=1)
    assert opened.generation_config.max_new_tokens == 3
    tuned.load_adapter(cases["eyes"].folder, "b")  # PEFT, too, overwrites what has the name
    tuned.set_adapter("b")
    tuned.delete_adapter("mix")
    assert same(tuned(**inputs).logits, expected(("eyes", 1.0)))
    second = paligemma.PeftModel.from_pretrained(tuned, cases["a"].folder, "second")
    assert second.get_base_model() is opened and tuned.active_adapter == "second"
    with pytest.raises(NotImplementedError, match="paligemma.convert"):
        tuned.merge_and_unload()
    assert tuned.unload() is opened and tuned.peft_config == {} and tuned.active_adapters == []
    assert (opened(**inputs).logits == expected()).all()


def test_what_peft_model_refuses(opened, cases):
    path = cases["a"].folder
    for error, words, arguments in (
            (NotImplementedError, "is_trainable=True", dict(is_trainable=True)), (ValueError, "config", dict(config={})),
            (ValueError, "key_mapping", dict(key_mapping={"a": "b"})), (ValueError, "'foo'", dict(foo=1)),
            (ValueError, "cuda", dict(torch_device="cuda"))):
        with pytest.raises(error, match=words):
            paligemma.PeftModel.from_pretrained(opened, path, **arguments)
    with pytest.raises(TypeError, match="str"):
        paligemma.PeftModel.from_pretrained("a folder", path)
    with pytest.raises(FileNotFoundError):
        paligemma.PeftModel.from_pretrained(opened, path / "nowhere")
    assert not hasattr(opened, "peft_config")


def test_peft_config(cases):
    config = paligemma.PeftConfig.from_pretrained(cases["a"].folder)
    assert config.base_model_name_or_path == cases["a"].config["base_model_name_or_path"]
    with pytest.raises(FileNotFoundError, match="adapter_config.json"):
        paligemma.PeftConfig.from_pretrained(cases["a"].base)


# ------------------------------------------------------------------------------------------- from an adapter's folder


def changed(case, out, **config):
    shutil.copytree(case.folder, out)
    (out / "adapter_config.json").write_text(json.dumps({**case.config, **config}))
    return out


def test_from_the_folder_of_an_adapter(cases, expected, inputs, folder, tmp_path):
    model, info = Model.from_pretrained(cases["a"].folder, output_loading_info=True)
    with model:
        assert model.active_adapters() == ["default"] and model.name_or_path == folder and info["missing_keys"] == set()
        assert same(model(**inputs).logits, expected(("a", 1.0)))
    with paligemma.AutoModelForImageTextToText.from_pretrained(cases["a"].folder, adapter_name="x") as model:
        assert model.active_adapters() == ["x"]
    # an adapter in the folder of a model lies on that model, whatever it names
    both = changed(cases["a"], tmp_path / "both", base_model_name_or_path="/gone")
    shutil.copytree(folder, both, dirs_exist_ok=True)
    with Model.from_pretrained(both) as model:
        assert model.active_adapters() == ["default"] and same(model(**inputs).logits, expected(("a", 1.0)))
        assert model.ask(str(inputs_image(folder)), "caption en", max_new_tokens=2)  # the processor is the folder's
    shutil.copytree(folder, tmp_path / "model")
    shutil.copytree(cases["b"].folder, tmp_path / "model" / "tuned")
    with Model.from_pretrained(tmp_path / "model", adapter_kwargs={"subfolder": "tuned"}) as model:
        assert same(model(**inputs).logits, expected(("b", 1.0)))
    with Model.from_pretrained(folder, adapter_kwargs={"token": None}) as model:
        assert not hasattr(model, "peft_config")


def inputs_image(folder):
    import pathlib

    return pathlib.Path(folder).parent / "images" / "shapes.png"


def test_a_base_in_the_cache(cases, expected, inputs, folder, tmp_path, monkeypatch):
    def cached(name, revision, source):
        root = tmp_path / "cache" / f"models--{name.replace('/', '--')}"
        (root / "refs").mkdir(parents=True, exist_ok=True)
        (root / "refs" / revision).write_text(f"commit-{revision}")
        shutil.copytree(source, root / "snapshots" / f"commit-{revision}")

    cached("org/base", "v2", folder)
    cached("me/tuned", "main", changed(cases["a"], tmp_path / "one", base_model_name_or_path="org/base", revision="v2"))
    cached("me/lost", "main", changed(cases["a"], tmp_path / "two", base_model_name_or_path="org/base"))
    with Model.from_pretrained("me/tuned", cache_dir=tmp_path / "cache") as model:
        assert same(model(**inputs).logits, expected(("a", 1.0)))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    with Model.from_pretrained("me/tuned") as model:
        assert same(model(**inputs).logits, expected(("a", 1.0)))
        model.load_adapter("me/lost", "again", revision="main")
        assert same(model(**inputs).logits, expected(("a", 1.0)))
    words = r"me/lost is an adapter of the base model 'org/base'.*load_adapter\('me/lost'\)"
    with pytest.raises(FileNotFoundError, match=words):
        Model.from_pretrained("me/lost")


def test_a_base_that_is_not_there(cases, tmp_path):
    lost = changed(cases["a"], tmp_path / "lost", base_model_name_or_path="/gone/model")
    with pytest.raises(FileNotFoundError, match=r"lost is an adapter of the base model '/gone/model'.*load_adapter\("):
        Model.from_pretrained(lost)
    for i, name in enumerate((None, "")):
        with pytest.raises(FileNotFoundError, match="has no base_model_name_or_path.*load_adapter"):
            Model.from_pretrained(changed(cases["a"], tmp_path / f"none{i}", base_model_name_or_path=name))
    with pytest.raises(OSError, match="expected an object"):
        wrong = changed(cases["a"], tmp_path / "wrong")
        (wrong / "adapter_config.json").write_text("[]")
        Model.from_pretrained(wrong)
    damaged = changed(cases["a"], tmp_path / "damaged", r=3)
    with pytest.raises(OSError, match="shape"):
        Model.from_pretrained(damaged)


def test_processors_of_an_adapter(cases, folder, image_path):
    for kind in (paligemma.AutoProcessor, paligemma.PaliGemmaProcessor, paligemma.AutoTokenizer,
                 paligemma.AutoImageProcessor):
        with pytest.raises(FileNotFoundError, match=f"is an adapter without.*open that of its base model.*{folder}"):
            kind.from_pretrained(cases["a"].folder)
    pipe = paligemma.pipeline("image-text-to-text", model=str(cases["a"].folder))
    with pipe.model as model:
        found = pipe(images=str(image_path), text="caption en", max_new_tokens=4)
        with paligemma.PeftModel(model) as tuned:
            again = paligemma.pipeline("image-text-to-text", model=tuned)
            assert again(images=str(image_path), text="caption en", max_new_tokens=4) == found


# ------------------------------------------------------------------------------------------- saving, copies


def test_save_pretrained(opened, cases, expected, inputs, tmp_path):
    def names(path):
        return sorted(each.name for each in path.iterdir())

    opened.load_adapter(cases["a"].folder, "a")
    opened.load_adapter(cases["b"].folder, "b")
    opened.disable_adapters()
    opened.save_pretrained(tmp_path / "b")
    assert names(tmp_path / "b") == ["adapter_config.json", "adapter_model.safetensors", "generation_config.json"]
    for name in names(cases["b"].folder):
        assert (tmp_path / "b" / name).read_bytes() == (cases["b"].folder / name).read_bytes()
    with Model.from_pretrained(tmp_path / "b") as model:
        assert same(model(**inputs).logits, expected(("b", 1.0)))
        model.save_pretrained(tmp_path / "b")  # over itself
        assert same(model(**inputs).logits, expected(("b", 1.0)))
    opened.set_adapter(["a", "b"])
    with pytest.raises(ValueError, match="Multiple active adapters"):
        opened.save_pretrained(tmp_path / "two")
    opened.set_adapter([])
    with pytest.raises(ValueError, match="No adapter is active"):
        opened.save_pretrained(tmp_path / "two")
    opened.add_weighted_adapter(["a"], [2.0], "mix")
    opened.set_adapter("mix")
    with pytest.raises(NotImplementedError, match="'mix' is a weighted one"):
        opened.save_pretrained(tmp_path / "two")
    assert not (tmp_path / "two").exists()
    opened.delete_adapter(["a", "b", "mix"])
    opened.save_pretrained(tmp_path / "model")
    assert "model.safetensors" in names(tmp_path / "model") and "adapter_config.json" not in names(tmp_path / "model")


def test_save_pretrained_of_peft_model(opened, cases, expected, inputs, tmp_path):
    tuned = paligemma.PeftModel.from_pretrained(opened, cases["a"].folder)
    tuned.load_adapter(cases["b"].folder, "b")
    tuned.save_pretrained(tmp_path / "all")
    tuned.save_pretrained(tmp_path / "one", selected_adapters=["b"])
    assert not (tmp_path / "one" / "adapter_config.json").exists()
    for path, name in ((tmp_path / "all", "a"), (tmp_path / "all" / "b", "b"), (tmp_path / "one" / "b", "b")):
        with Model.from_pretrained(path) as model:
            assert same(model(**inputs).logits, expected((name, 1.0)))
    with pytest.raises(ValueError, match="selected_adapters"):
        tuned.save_pretrained(tmp_path / "x", selected_adapters=["q"])
    tuned.add_weighted_adapter(["default"], [2.0], "mix")
    for words, arguments in (("'mix' is a weighted one", {}), ("safetensors", dict(safe_serialization=False)),
                             ("network", dict(push_to_hub=True))):
        with pytest.raises(NotImplementedError, match=words):
            tuned.save_pretrained(tmp_path / "x", **arguments)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_have_the_adapters(opened, cases, expected, inputs, copied):
    for name in ("a", "b"):
        opened.load_adapter(cases[name].folder, name)
    opened.add_weighted_adapter(["a", "b"], [0.75, -0.5], "mix")
    opened.set_adapter("mix")
    opened.delete_adapter("b")
    with copied(opened) as other:
        assert list(other.peft_config) == ["a", "mix"] and other.active_adapters() == ["mix"]
        assert other.peft_config["mix"] == opened.peft_config["mix"]
        assert (other(**inputs).logits == opened(**inputs).logits).all()
        other.set_adapter("a")
        assert same(other(**inputs).logits, expected(("a", 1.0)))
    assert same(opened(**inputs).logits, expected(("a", 0.75), ("b", -0.5)))
    opened.disable_adapters()
    with copied(paligemma.PeftModel(opened)) as other:
        assert other.active_adapter == "mix" and (other(**inputs).logits == expected()).all()
        other.base_model.enable_adapter_layers()
        assert same(other(**inputs).logits, expected(("a", 0.75), ("b", -0.5)))


# ------------------------------------------------------------------------------------------- handles and threads


def test_closed(folder, cases, inputs, processor):
    model = Model.from_pretrained(folder)
    model.load_adapter(cases["a"].folder, "a")
    pieces = model.stream(inputs, processor, max_new_tokens=8)
    next(pieces)
    model.load_adapter(cases["b"].folder, "b")
    adapters = model._adapters
    handles = [*adapters._made, adapters.base]
    handles += [part.handle for entry in adapters.entries.values() for part, _ in entry.parts]
    assert len(handles) == 5 and not model.closed
    model.close()
    assert model.closed and all(handle.closed for handle in handles)
    for call in (lambda: model(**inputs), lambda: next(pieces), lambda: model.set_adapter("a"), model.disable_adapters,
                 lambda: model.load_adapter(cases["a"].folder, "c"), lambda: pickle.dumps(model),
                 lambda: model.generate(**inputs, adapter_names=["a"], max_new_tokens=2)):
        with pytest.raises(ValueError, match="closed"):
            call()


def test_a_stream_keeps_its_adapter(opened, cases, inputs, processor):
    opened.load_adapter(cases["a"].folder, "a")
    for settings in ({}, {"eos_token_id": None}):  # on this thread, and on one of its own
        whole = "".join(opened.stream(inputs, processor, max_new_tokens=12, **settings))
        pieces = opened.stream(inputs, processor, max_new_tokens=12, **settings)
        text = next(pieces)
        opened.disable_adapters()
        assert text + "".join(pieces) == whole
        assert "".join(opened.stream(inputs, processor, max_new_tokens=12, **settings)) != whole
        opened.enable_adapters()
    opened.load_adapter(cases["b"].folder, "b")
    opened.set_adapter(["a", "b"])  # a handle that nobody else has
    pieces = opened.stream(inputs, processor, max_new_tokens=12)
    text = next(pieces)
    opened.set_adapter("b")
    assert len((text + "".join(pieces)).split()) > 3


class Switching:
    """Another object, and its model has another adapter once it is used."""

    def __init__(self, of, model, name):
        self._of, self._switch = of, lambda: model.set_adapter(name)

    def __call__(self, *args, **kwargs):
        self._switch()
        return self._of(*args, **kwargs)

    def __getattr__(self, name):
        if name == "pooler_output":
            self._switch()
        return getattr(self._of, name)


def test_a_call_keeps_its_adapter(opened, cases, image_path, processor, inputs, rows):
    """All of it: here, features of one adapter would meet another one that refuses them."""
    for name in ("eyes", "a"):
        opened.load_adapter(cases[name].folder, name)
    room = processor(text="caption en", image_counts=1, return_tensors="np")
    images = opened.get_image_features(inputs.pixel_values)
    for call in (lambda **given: opened.generate(**given, max_new_tokens=8), lambda **given: opened(**given).logits,
                 lambda **given: opened.embed(**given).last_hidden_state, lambda **given: opened.attention_to_image(**given),
                 lambda **given: "".join(opened.stream(given, processor, mm_encoder_outputs=given["mm_encoder_outputs"],
                                                       max_new_tokens=8))):
        opened.set_adapter("a")
        expected = call(**room, mm_encoder_outputs={"image": images})
        found = call(**room, mm_encoder_outputs={"image": Switching(images, opened, "eyes")})
        assert np.array_equal(found, expected) and opened.active_adapters() == ["eyes"]
    opened.set_adapter("a")
    expected = opened.ask(str(image_path), "caption en", max_new_tokens=8)
    assert opened.ask(str(image_path), "caption en", max_new_tokens=8,
                      processor=Switching(processor, opened, "eyes")) == expected
    assert opened.active_adapters() == ["eyes"]


def test_switching_makes_nothing_anew(opened, cases):
    for name in ("a", "b"):
        opened.load_adapter(cases[name].folder, name)
    handles = []
    for name in ("a", "b", "a", "b"):
        opened.set_adapter(name)
        handles.append(opened._handle)
    assert handles[0] is handles[2] and handles[1] is handles[3] and handles[0] is not handles[1]


def test_switching_while_others_compute(opened, cases, expected, inputs):
    for name in ("a", "b", "all"):
        opened.load_adapter(cases[name].folder, name)
    known = [expected(), *(expected((name, 1.0)) for name in ("a", "b", "all"))]
    found, wrong, ended = set(), [], threading.Event()

    def compute():
        try:
            while not ended.is_set():
                logits = opened(**inputs).logits
                match = [i for i, one in enumerate(known) if same(logits, one)]
                found.update(match)
                if len(match) != 1:
                    wrong.append(match)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=compute) for _ in range(2)]
    for thread in threads:
        thread.start()
    for i in range(12):
        opened.set_adapter(("a", "b", "all")[i % 3])
        if i % 4 == 0:
            with opened.disable_adapter():
                opened(**inputs)
        opened.load_adapter(cases["b"].folder, "b", hotswap=True)
        threading.Event().wait(0.01)
    ended.set()
    for thread in threads:
        thread.join()
    assert not wrong and len(found) > 1
    assert len(opened._adapters._made) <= 4  # the others are gone


def test_features_and_adapters(opened, cases, rows, image_path, processor):
    """Adapters of the decoder share features; one of the encoder has its own."""
    room = processor(text="caption en", image_counts=1, return_tensors="np")
    base = opened.encode_image(rows.pixel_values[:1])
    opened.load_adapter(cases["a"].folder, "a")
    expected = opened.generate(**processor(str(image_path), "caption en", return_tensors="np"), max_new_tokens=8)
    assert (opened.generate(**room, features=base, max_new_tokens=8) == expected).all()
    look = opened.ask(str(image_path))
    opened.load_adapter(cases["eyes"].folder, "eyes")
    for call in (lambda: opened.generate(**room, features=base, max_new_tokens=8), lambda: look("caption en")):
        with pytest.raises(ValueError, match="other adapters"):
            call()
    with pytest.raises(ValueError):
        paligemma.Features.load(opened, base.to_bytes())
    own = opened.encode_image(rows.pixel_values[:1])
    alone = opened.generate(**processor(str(image_path), "caption en", return_tensors="np"), max_new_tokens=8)
    assert (opened.generate(**room, features=own, max_new_tokens=8) == alone).all()
    assert opened.ask(str(image_path), "caption en", max_new_tokens=4)
    opened.set_adapter("a")
    with pytest.raises(ValueError, match="other adapters"):
        opened.generate(**room, features=own, max_new_tokens=8)
    assert look("caption en", max_new_tokens=8)
    scores = opened.score(str(image_path), "caption en", ["a red circle", "a blue square"])
    opened.disable_adapters()
    assert scores[0].log_prob != opened.score(str(image_path), "caption en", ["a red circle", "a blue square"])[0].log_prob


def test_quantized(folder, cases, inputs, expected):
    with Model.from_pretrained(folder, weights="int8") as model:
        before = model(**inputs).logits
        model.load_adapter(cases["a"].folder)
        change, whole = model(**inputs).logits - before, expected(("a", 1.0)) - expected()
        assert np.abs(change - whole).max() < 0.35 * np.abs(whole).max()
        with pickle.loads(pickle.dumps(model)) as other:
            assert (other(**inputs).logits == model(**inputs).logits).all()


# ------------------------------------------------------------------------------------------- an adapter for each row

NAMES = ["a", "__base__", "eyes", "a"]


@pytest.fixture
def several(opened, cases):
    for name in ("eyes", "a"):
        opened.load_adapter(cases[name].folder, name)
    return opened


def row_of(batch, row):
    """One row of a batch, with its image."""
    return {name: values[row:row + 1] for name, values in batch.items() if name != "labels"}


def with_adapter(model, name, call):
    if name == "__base__":
        with model.disable_adapter():
            return call()
    was = model.active_adapters()
    model.set_adapter(name)
    try:
        return call()
    finally:
        model.set_adapter(was)


def test_generate_for_each_row(several, rows):
    found = several.generate(**rows, adapter_names=NAMES, max_new_tokens=16)
    width = rows.input_ids.shape[1]
    assert (found[:, :width] == rows.input_ids).all() and several.active_adapters() == ["a"]
    assert len({tuple(with_adapter(several, name, lambda: several.generate(**row_of(rows, 0), max_new_tokens=16))[0])
                for name in NAMES}) == 3  # each says something else
    longest = 0
    for row, name in enumerate(NAMES):
        alone = with_adapter(several, name, lambda: several.generate(**row_of(rows, row), max_new_tokens=16))[0]
        longest = max(longest, len(alone))
        assert (found[row, :len(alone)] == alone).all() and (found[row, len(alone):] == 0).all()
    assert found.shape == (4, longest)
    assert (several.generate(rows.input_ids, adapter_names=tuple(NAMES), max_new_tokens=16,
                             **{name: values for name, values in rows.items() if name not in ("input_ids", "labels")})
            == found).all()
    beams = several.generate(**rows, adapter_names=NAMES, max_new_tokens=6, num_beams=3, num_return_sequences=2)
    assert len(beams) == 8
    for row, name in enumerate(NAMES):
        alone = with_adapter(several, name, lambda: several.generate(**row_of(rows, row), max_new_tokens=6, num_beams=3,
                                                                     num_return_sequences=2))
        assert (beams[2 * row:2 * row + 2, :alone.shape[1]] == alone).all()
    assert several.generate(**rows, adapter_names=NAMES, max_length=width + 2).shape == (4, width + 2)
    sampled = several.generate(**rows, adapter_names=NAMES, max_new_tokens=3, do_sample=True, num_return_sequences=2)
    assert sampled.shape == (8, width + 3)
    with several.disable_adapter():  # as in PEFT, all rows are the base's then
        assert (several.generate(**rows, adapter_names=NAMES, max_new_tokens=16)
                == several.generate(**rows, max_new_tokens=16)).all()


@pytest.mark.parametrize("without_types", [False, True])
def test_forward_for_each_row(several, rows, without_types):
    batch = {name: values for name, values in rows.items() if name != "token_type_ids" or not without_types}
    found = several(**batch, adapter_names=NAMES)
    assert list(found) == ["loss", "logits", "image_hidden_states"]
    for name in dict.fromkeys(NAMES):
        whole = with_adapter(several, name, lambda: several(**batch))  # padding of other rows counts without types
        chosen = [row for row, of in enumerate(NAMES) if of == name]
        assert (found.logits[chosen] == whole.logits[chosen]).all()
        assert (found.image_hidden_states[chosen] == whole.image_hidden_states[chosen]).all()
    last = several(**batch, adapter_names=NAMES, logits_to_keep=2, return_dict=False)
    assert isinstance(last, tuple) and same(last[1], found.logits[:, -2:])
    assert (several(**batch, adapter_names=["a"] * 4).logits == several(**batch).logits).all()


@pytest.mark.parametrize("loss", ["token", "example"])
def test_loss_of_each_row(several, processor, image_path, loss):
    rows = processor([str(image_path)] * 4, PROMPTS, suffix=["a red circle", "b", "a blue one of them", "c d"], padding=True,
                     return_tensors="np")
    rows["labels"][1] = -100  # a row without any
    found = several(**rows, adapter_names=NAMES, loss=loss)
    parts = []
    for row, name in enumerate(NAMES):
        logits = found.logits[row, :-1].astype(np.float64)
        scores = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        chosen = np.flatnonzero(rows.labels[row, 1:] != -100)
        parts.append([-scores[at, rows.labels[row, at + 1]] for at in chosen])
    expected = np.mean([each for part in parts for each in part]) if loss == "token" \
        else np.mean([np.mean(part) if part else 0 for part in parts])
    assert found.loss.shape == () and abs(float(found.loss) - expected) < 1e-4
    rows["labels"][:] = -100
    assert np.isnan(several(**rows, adapter_names=NAMES).loss)


def test_images_of_each_row(several, processor, image_path, pixels):
    """Rows with none, one and two images keep their own."""
    rows = processor([[pixels], [str(image_path), pixels], [str(image_path)]], ["caption en"] * 3, padding=True,
                     return_tensors="np")
    names = ["a", "eyes", "__base__"]
    found = several(**rows, adapter_names=names)
    for row, name in enumerate(names):
        whole = with_adapter(several, name, lambda: several(**rows))
        assert (found.logits[row] == whole.logits[row]).all()
        images = [[0], [1, 2], [3]][row]
        assert (found.image_hidden_states[images] == whole.image_hidden_states[images]).all()
    text = processor(text=["a b c"] * 2, image_counts=0, return_tensors="np")
    logits = several(input_ids=text.input_ids, adapter_names=["a", "__base__"]).logits
    assert (logits[0] == several(input_ids=text.input_ids).logits[0]).all() and not (logits[0] == logits[1]).all()
    with pytest.raises(ValueError, match="do not match"):
        several(**{**rows, "pixel_values": rows.pixel_values[:3]}, adapter_names=names)


def test_features_for_each_row(several, cases, rows, processor):
    """One image and several adapters of the decoder: it is encoded once."""
    several.load_adapter(cases["b"].folder, "b")
    one = [PROMPTS[0]] * 4
    room = processor(text=one, image_counts=[1] * 4, return_tensors="np")
    names = ["a", "b", "__base__", "b"]
    with several.encode_image(rows.pixel_values[:1]) as features:
        for given in (dict(features=features), dict(mm_encoder_outputs={"image": features.pooler_output.copy()})):
            found = several.generate(**room, **given, adapter_names=names, max_new_tokens=8)
            for row, name in enumerate(names):
                alone = with_adapter(several, name, lambda: several.generate(**row_of(room, row), **given, max_new_tokens=8))
                assert (found[row, :alone.shape[1]] == alone[0]).all()
        assert several(**room, features=features, adapter_names=names).image_hidden_states.shape[0] == 1
        with pytest.raises(ValueError, match="other adapters"):
            several.generate(**room, features=features, adapter_names=["a", "eyes", "a", "a"], max_new_tokens=2)
    with several.encode_image(rows.pixel_values[:4]) as four:
        found = several.generate(**room, features=four, adapter_names=names, max_new_tokens=2)
        assert (found == several.generate(**room, pixel_values=rows.pixel_values[:4], adapter_names=names,
                                          max_new_tokens=2)).all()


def test_steps_of_each_row(several, rows):
    """What sees the whole batch step by step: draws of a seed, criteria, scores; and hidden states and attentions."""
    drawn = dict(do_sample=True, seed=3, num_return_sequences=2, max_new_tokens=4, top_k=5)
    found = several.generate(**rows, adapter_names=NAMES, **drawn)
    assert (found == several.generate(**rows, adapter_names=NAMES, **drawn)).all()
    lengths = []
    scored = several.generate(**rows, adapter_names=NAMES, max_new_tokens=4, return_dict_in_generate=True, output_logits=True,
                              stopping_criteria=[lambda ids, scores: lengths.append(ids.shape) or False])
    width, n_steps = rows.input_ids.shape[1], len(scored.logits)
    assert lengths == [(4, width + 1 + step) for step in range(n_steps - 1)]
    kept = dict(output_hidden_states=True, output_attentions=True, output_last_hidden_state=True)
    states = several(**rows, adapter_names=NAMES, **kept)
    assert "logits" not in several(**rows, adapter_names=NAMES, return_logits=False)
    for name in dict.fromkeys(NAMES):
        chosen = [row for row, of in enumerate(NAMES) if of == name]
        whole = with_adapter(several, name, lambda: several(**rows, **kept))
        assert (states.last_hidden_state[chosen] == whole.last_hidden_state[chosen]).all()
        for layer in ("hidden_states", "attentions"):
            assert all((a[chosen] == b[chosen]).all() for a, b in zip(states[layer], whole[layer]))
        alone = with_adapter(several, name, lambda: several.generate(**rows, max_new_tokens=1, return_dict_in_generate=True,
                                                                     output_logits=True))
        assert (scored.logits[0][chosen] == alone.logits[0][chosen]).all()


def test_what_rows_of_their_own_refuse(several, rows):
    for words, arguments in {
            "got 2 and 4 respectively": dict(adapter_names=["a", "a"]), "got 0 and 4": dict(adapter_names=[]),
            "non-existing adapter.*: q": dict(adapter_names=["a", "q", "a", "a"]),
            "'foo'": dict(foo=1)}.items():
        with pytest.raises(ValueError, match=words):
            several.generate(**rows, **{"adapter_names": NAMES, "max_new_tokens": 2, **arguments})
    with pytest.raises(TypeError, match="list of str"):
        several.generate(**rows, adapter_names="aaaa", max_new_tokens=2)
    with pytest.raises(TypeError, match="generate\\(\\*\\*inputs\\)"):
        several.generate(rows, adapter_names=NAMES)
    with pytest.raises(ValueError, match="attention_mask"):
        several(input_ids=rows.input_ids, attention_mask=rows.attention_mask[:1], adapter_names=NAMES)


def test_peft_model_for_each_row(several, rows):
    tuned = paligemma.PeftModel(several)
    assert (tuned(**rows, adapter_names=NAMES).logits == several(**rows, adapter_names=NAMES).logits).all()
    assert (tuned.generate(**rows, adapter_names=NAMES, max_new_tokens=4)
            == several.generate(**rows, adapter_names=NAMES, max_new_tokens=4)).all()


# ------------------------------------------------------------------------------------------- ColPali


def test_colpali(folder, processor, pixels, tmp_path):
    """A base with a projection, as colpali-engine has it, and an adapter that changes that, too."""
    base = tmp_path / "base"
    shutil.copytree(folder, base)
    projection = np.random.default_rng(1).standard_normal((16, 160)).astype(np.float32)
    write(base / "model.safetensors", {**read(base / "model.safetensors"), "custom_text_proj.weight": projection,
                                       "custom_text_proj.bias": projection[:, 0]})
    case = Case(tmp_path / "tuned", base, 1, [*modules(), "custom_text_proj"])
    rows = processor([pixels, pixels[::-1]], ["Describe the image."] * 2, return_tensors="np")
    with paligemma.ColPaliForRetrieval.from_pretrained(base) as plain, \
            paligemma.ColPaliForRetrieval.from_pretrained(merged(tmp_path / "sum", (case, 1.0))) as expected, \
            paligemma.ColPaliForRetrieval.from_pretrained(case.folder) as ours:
        found, before = expected(**rows).embeddings, plain(**rows).embeddings
        assert ours.active_adapters() == ["default"] and np.abs(found - before).max() > 0.1
        assert np.abs(ours(**rows).embeddings - found).max() < 1e-5  # of length 1
        with ours.disable_adapter():
            assert (ours(**rows).embeddings == before).all()
        mixed = ours(**rows, adapter_names=["__base__", "default"])
        assert (mixed.embeddings[0] == before[0]).all() and (mixed.embeddings[1] == ours(**rows).embeddings[1]).all()
        with pickle.loads(pickle.dumps(paligemma.PeftModel(ours))) as other:
            assert (other(**rows).embeddings == ours(**rows).embeddings).all()


@pytest.mark.parametrize("weights", ["stored", "int8"])
def test_convert_merges(opened, cases, inputs, tmp_path, weights):
    out = tmp_path / "merged"
    paligemma.convert(opened.name_or_path, out, weights, adapters=[cases["a"].folder, cases["b"].folder], adapter_weights=[1, 0.5])
    opened.load_adapter(cases["a"].folder, "a")
    opened.load_adapter(cases["b"].folder, "b")
    opened.add_weighted_adapter(["a", "b"], [1, 0.5], "both")
    opened.set_adapter("both")
    with paligemma.PaliGemmaForConditionalGeneration.from_pretrained(out) as merged:
        difference = np.abs(merged(**inputs).logits - opened(**inputs).logits).mean()
    assert difference < (0.02 if weights == "stored" else 0.3)  # the demo model is bf16


def test_convert_refuses(opened, cases, tmp_path):
    for arguments, words in ((dict(weights="stored"), "beside adapters"),
                             (dict(adapters=[cases["a"].folder], adapter_weights=[1, 2]), "2 adapter_weights for 1")):
        with pytest.raises(ValueError, match=words):
            paligemma.convert(opened.name_or_path, tmp_path / "out", **arguments)
