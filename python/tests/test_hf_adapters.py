# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""The same adapters in PEFT and transformers: results, names and states after the same calls."""
import numpy as np
import pytest

import paligemma
from adapter_cases import Case, modules

torch = pytest.importorskip("torch", reason="torch is not installed")
peft = pytest.importorskip("peft", reason="peft is not installed")

Model = paligemma.PaliGemmaForConditionalGeneration
TOLERANCE = 1e-4  # logits of up to 30 in f32, whose last bit is 2e-6, after some hundred roundings
KINDS = {
    "plain": dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"]),
    "all": dict(r=8, lora_alpha=16, target_modules="all-linear"),
    "dora": dict(r=4, lora_alpha=8, use_dora=True, target_modules=["q_proj", "fc1"]),
    "rs": dict(r=8, lora_alpha=16, use_rslora=True, target_modules=["k_proj", "o_proj", "fc2"], rank_pattern={"k_proj": 3},
               alpha_pattern={"fc2": 5}),
    "text": dict(r=3, lora_alpha=5, target_modules=r".*language_model.*\.(q_proj|v_proj)"),
    "whole": dict(r=4, lora_alpha=8, target_modules=["q_proj"], modules_to_save=["multi_modal_projector", "norm"]),
    "bias": dict(r=4, lora_alpha=8, bias="lora_only", lora_bias=True, target_modules=["q_proj", "fc1"]),
}


pytestmark = pytest.mark.filterwarnings("ignore")


def refused_by_transformers():
    """Why this transformers does not take this PEFT (its save_pretrained() and load_adapter()), or None."""
    try:
        from transformers.integrations import peft as integration
        integration.check_peft_version(min_version=integration.MIN_PEFT_VERSION)
    except (ImportError, ValueError) as error:
        return str(error)
    return None


needs_transformers_peft = pytest.mark.skipif(refused_by_transformers() is not None,
                                             reason=refused_by_transformers() or "")


@pytest.fixture(autouse=True, scope="module")
def quiet(hf):
    hf.utils.logging.disable_progress_bar()


@pytest.fixture
def theirs(hf, folder):
    """() -> the base in transformers, a new one each time."""
    return lambda name=folder, **arguments: hf.PaliGemmaForConditionalGeneration.from_pretrained(
        name, dtype=torch.float32, **arguments).eval()


@pytest.fixture(scope="module")
def adapters(hf, folder, tmp_path_factory):
    """{kind: the folder of an adapter that PEFT saved}."""
    root, found = tmp_path_factory.mktemp("peft"), {}
    for seed, (kind, config) in enumerate(KINDS.items()):
        model = peft.get_peft_model(hf.PaliGemmaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32),
                                    peft.LoraConfig(**config))
        torch.manual_seed(seed)
        for name, values in model.named_parameters():
            if values.requires_grad:
                values.data += torch.rand_like(values) * 0.2 if "magnitude" in name else torch.randn_like(values) * 0.08
        model.save_pretrained(root / kind)
        found[kind] = str(root / kind)
    return found


@pytest.fixture(scope="module")
def inputs(processor, image_path):
    batch = processor(str(image_path), "caption en", suffix="a red circle", return_tensors="pt")
    return {name: values for name, values in batch.items() if name != "labels"}


@pytest.fixture(scope="module")
def rows(processor, image_path):
    prompts = ["caption en", "detect red circle ; yellow triangle", "answer en what color is the star?", "caption en"]
    batch = processor([str(image_path)] * 4, prompts, padding=True, return_tensors="pt")
    return {name: values for name, values in batch.items() if name != "labels"}


def logits(model, inputs, **arguments):
    with torch.no_grad():
        return np.array(model(**inputs, **arguments).logits)


def check(ours, theirs, inputs, **arguments):
    """The same logits."""
    difference = np.abs(logits(ours, inputs, **arguments) - logits(theirs, inputs, **arguments)).max()
    assert difference < TOLERANCE, difference


@pytest.fixture
def opened(folder):
    with Model.from_pretrained(folder) as model:
        yield model


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind(opened, theirs, adapters, inputs, kind):
    expected = peft.PeftModel.from_pretrained(theirs(), adapters[kind]).eval()
    ours = paligemma.PeftModel.from_pretrained(opened, adapters[kind])
    check(ours, expected, inputs)
    assert np.abs(logits(ours, inputs) - logits(theirs(), inputs)).max() > 0.5
    assert (ours.active_adapter, ours.active_adapters, list(ours.peft_config)) == \
        (expected.active_adapter, expected.active_adapters, list(expected.peft_config))
    stored = expected.peft_config["default"]
    for name in ("r", "lora_alpha", "use_dora", "use_rslora", "peft_type", "base_model_name_or_path", "rank_pattern"):
        assert getattr(ours.peft_config["default"], name) == getattr(stored, name), name
    assert (ours.generate(**inputs, max_new_tokens=16).numpy()
            == expected.generate(**inputs, max_new_tokens=16, do_sample=False).numpy()).all()
    if kind != "bias":  # PEFT writes biases into the base, and disable_adapter() leaves them there
        with ours.disable_adapter(), expected.disable_adapter():
            check(ours, expected, inputs)


def test_what_numpy_wrote(opened, theirs, inputs, folder, tmp_path):
    """The files of test_adapters.py are PEFT's."""
    kinds = {"plain": {}, "dora": {"use_dora": True}, "rs": {"use_rslora": True, "rank_pattern": {"v_proj": 2}}}
    for name, arguments in kinds.items():
        case = Case(tmp_path / name, folder, 1, modules(), target_modules=r".*language_model.*\.(q_proj|v_proj)",
                    **arguments)
        expected = peft.PeftModel.from_pretrained(theirs(), case.folder).eval()
        check(paligemma.PeftModel.from_pretrained(opened, case.folder), expected, inputs)


def test_the_same_calls_in_peft(opened, theirs, adapters, inputs):
    """After each call the same adapters are in use, and give the same."""
    ours, expected = (kind.from_pretrained(model, adapters["plain"]) for kind, model in
                      ((paligemma.PeftModel, opened), (peft.PeftModel, theirs())))
    expected.eval()
    calls = [lambda m: m.load_adapter(adapters["all"], "all"), lambda m: m.set_adapter("all"),
             lambda m: m.base_model.set_adapter(["default", "all"]), lambda m: m.load_adapter(adapters["rs"], "rs"),
             lambda m: m.base_model.set_adapter(["rs", "all", "default"]), lambda m: m.base_model.disable_adapter_layers(),
             lambda m: m.base_model.enable_adapter_layers(), lambda m: m.set_adapter("default"),
             lambda m: m.add_weighted_adapter(["all", "rs"], [0.75, -0.5], "mix", combination_type="cat"),
             lambda m: m.base_model.set_adapter(["mix", "default"]), lambda m: m.delete_adapter("rs"),
             lambda m: m.base_model.set_adapter("mix"), lambda m: m.delete_adapter("all"),
             lambda m: m.load_adapter(adapters["plain"], "default"),
             lambda m: m.add_weighted_adapter(["mix"], [2.0], "twice", combination_type="cat"),
             lambda m: m.set_adapter("twice")]
    for i, call in enumerate(calls):
        for model in (ours, expected):
            call(model)
        assert ours.active_adapters == expected.active_adapters, i
        assert list(ours.peft_config) == list(expected.peft_config), i
        check(ours, expected, inputs)
    for name in ("mix", "twice"):
        assert (ours.peft_config[name].r, ours.peft_config[name].lora_alpha) == \
            (expected.peft_config[name].r, expected.peft_config[name].lora_alpha)
    with ours.disable_adapter(), expected.disable_adapter():
        check(ours, expected, inputs)
    check(ours.unload(), expected.unload(), inputs)


def test_several_in_use(opened, theirs, adapters, inputs):
    for names in (["plain", "all"], ["dora", "plain"], ["plain", "dora"], ["rs", "text"], ["plain", "whole"], ["whole", "plain"],
                  ["rs", "plain", "all"]):
        ours, expected = (kind.from_pretrained(model, adapters[names[0]], names[0]) for kind, model in
                          ((paligemma.PeftModel, opened), (peft.PeftModel, theirs())))
        for model in (ours, expected):
            for name in names[1:]:
                model.load_adapter(adapters[name], name)
            model.base_model.set_adapter(names)
        check(ours, expected.eval(), inputs)


def test_weighted(opened, theirs, adapters, inputs):
    for names, weights in ((("plain", "all"), (0.75, -0.5)), (("all", "rs"), (0.5, -0.25)), (("text", "text"), (1.0, 1.0))):
        ours, expected = (kind.from_pretrained(model, adapters[names[0]], names[0]) for kind, model in
                          ((paligemma.PeftModel, opened), (peft.PeftModel, theirs())))
        for model in (ours, expected):
            model.load_adapter(adapters[names[1]], names[1])
            model.add_weighted_adapter(list(names), list(weights), "mix", combination_type="cat")
            assert model.active_adapter == names[0]
            model.set_adapter("mix")
        check(ours, expected.eval(), inputs)
        for field in ("r", "lora_alpha", "rank_pattern", "alpha_pattern"):
            assert getattr(ours.peft_config["mix"], field) == getattr(expected.peft_config["mix"], field)
        assert set(ours.peft_config["mix"].target_modules) == set(expected.peft_config["mix"].target_modules)
        ours.unload()


def test_weighted_with_rslora_first(opened, theirs, adapters, inputs):
    """PEFT 0.21 multiplies the sum by the square root of its rank, for the new adapter has use_rslora, too."""
    ours, expected = (kind.from_pretrained(model, adapters["rs"], "rs") for kind, model in
                      ((paligemma.PeftModel, opened), (peft.PeftModel, theirs())))
    for model in (ours, expected):
        model.load_adapter(adapters["plain"], "plain")
    expected.add_weighted_adapter(["rs", "plain"], [0.5, 0.25], "mix", combination_type="cat")
    root = expected.peft_config["mix"].r ** 0.5
    ours.add_weighted_adapter(["rs", "plain"], [0.5 * root, 0.25 * root], "mix")
    for model in (ours, expected):
        model.set_adapter("mix")
    check(ours, expected.eval(), inputs)


@needs_transformers_peft
def test_the_same_calls_in_transformers(opened, theirs, adapters, inputs):
    expected = theirs()
    for call in (lambda m: m.active_adapters(), lambda m: m.set_adapter("a"), lambda m: m.disable_adapters(),
                 lambda m: m.delete_adapter("a")):
        errors = []
        for model in (opened, expected):
            with pytest.raises(ValueError) as caught:
                call(model)
            errors.append(str(caught.value))
        assert errors[0] == errors[1]
    assert not hasattr(opened, "peft_config") and not hasattr(expected, "peft_config")
    calls = [lambda m: m.load_adapter(adapters["plain"]), lambda m: m.load_adapter(adapters["all"], adapter_name="all"),
             lambda m: m.set_adapter(["default", "all"]), lambda m: m.set_adapter(["all", "default", "all"]),
             lambda m: m.disable_adapters(), lambda m: m.set_adapter("default"), lambda m: m.enable_adapters(),
             lambda m: m.set_adapter([]), lambda m: m.load_adapter(adapters["rs"], "rs"),
             lambda m: m.set_adapter(["rs", "default"]), lambda m: m.delete_adapter("rs"),
             lambda m: m.delete_adapter(["all"])]
    for i, call in enumerate(calls):
        for model in (opened, expected):
            call(model)
        assert opened.active_adapters() == expected.active_adapters(), i
        assert list(opened.peft_config) == list(expected.peft_config)
        check(opened, expected, inputs)
    for wrong in ("q", ["q"]):
        errors = []
        for model in (opened, expected):
            with pytest.raises(ValueError) as caught:
                model.set_adapter(wrong)
            errors.append(str(caught.value))
        assert errors[0] == errors[1]
    for model in (opened, expected):
        with pytest.raises(ValueError, match="Adapter with name default already exists"):
            model.load_adapter(adapters["all"])
        model.delete_adapter("default")
        assert not hasattr(model, "peft_config")
    check(opened, expected, inputs)


@needs_transformers_peft
def test_from_the_folder_of_an_adapter(theirs, adapters, inputs, folder, tmp_path):
    import shutil

    shutil.copytree(folder, tmp_path / "both")
    shutil.copytree(adapters["all"], tmp_path / "both", dirs_exist_ok=True)
    # (transformers 5.23 loses the magnitudes of DoRA here: PEFT's PeftModel reads them)
    for path, arguments in ((adapters["all"], {}), (adapters["whole"], {"adapter_name": "x"}), (str(tmp_path / "both"), {})):
        expected = theirs(path, **arguments)
        with Model.from_pretrained(path, **arguments) as ours:
            assert ours.active_adapters() == expected.active_adapters() and ours.name_or_path == expected.name_or_path
            check(ours, expected, inputs)


@needs_transformers_peft
def test_what_is_saved_opens_there(opened, theirs, adapters, inputs, tmp_path):
    opened.load_adapter(adapters["plain"])
    opened.load_adapter(adapters["all"], "all")
    opened.save_pretrained(tmp_path / "ours")
    expected = theirs()
    expected.load_adapter(adapters["plain"])
    expected.load_adapter(adapters["all"], "all")
    expected.save_pretrained(tmp_path / "theirs")
    assert sorted(path.name for path in (tmp_path / "ours").iterdir()) == \
        sorted(path.name for path in (tmp_path / "theirs").iterdir())
    check(opened, theirs(tmp_path / "ours"), inputs)
    with Model.from_pretrained(tmp_path / "theirs") as ours:
        check(ours, expected, inputs)
    paligemma.PeftModel(opened).save_pretrained(tmp_path / "peft")
    again = peft.PeftModel.from_pretrained(theirs(), tmp_path / "peft").eval()
    again.load_adapter(tmp_path / "peft" / "all", "all")
    again.set_adapter("all")
    check(opened, again, inputs)


def test_adapter_names(opened, theirs, adapters, rows):
    ours, expected = (kind.from_pretrained(model, adapters["plain"], "plain") for kind, model in
                      ((paligemma.PeftModel, opened), (peft.PeftModel, theirs())))
    for model in (ours, expected):
        model.load_adapter(adapters["all"], "all")
    expected.eval()
    names = ["all", "__base__", "plain", "all"]
    check(ours, expected, rows, adapter_names=names)
    bare = {name: values for name, values in rows.items() if name != "token_type_ids"}
    check(ours, expected, bare, adapter_names=names)
    labels = rows["input_ids"].masked_fill(rows["token_type_ids"] == 0, 7)
    with torch.no_grad():
        losses = [float(model(**rows, labels=labels, adapter_names=names).loss) for model in (ours, expected)]
    assert abs(losses[0] - losses[1]) < 1e-4
    found = ours.generate(**rows, adapter_names=names, max_new_tokens=12)
    assert isinstance(found, torch.Tensor)
    assert torch.equal(found, expected.generate(**rows, adapter_names=names, max_new_tokens=12, do_sample=False))
    with ours.disable_adapter(), expected.disable_adapter():
        check(ours, expected, rows, adapter_names=names)
    for wrong in (["all"], ["all", "q", "all", "all"]):
        errors = []
        for model in (ours, expected):
            with pytest.raises(ValueError) as caught:
                model.generate(**rows, adapter_names=wrong, max_new_tokens=2)
            errors.append(str(caught.value))
        assert errors[0] == errors[1]
