# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""The model with numpy alone: forward, generate, stream, features, and every handle closed too early."""
import copy
import os
import pickle
import shutil
import threading

import numpy as np
import pytest

import paligemma
from paligemma import PaliGemmaForConditionalGeneration

P, Q, R = "caption en", "detect red circle ; yellow triangle", "answer en what color is the star?"
CAPTION = "a red circle, a purple star and a yellow triangle"


@pytest.fixture(scope="module")
def inputs(processor, image_path):
    return processor(image_path, P, return_tensors="np")


def new_text(processor, inputs, output):
    return processor.decode(output[0, inputs.input_ids.shape[1]:], skip_special_tokens=True)


def test_too_many_sequences(model, inputs):
    for settings in (dict(do_sample=True), dict(num_beams=3)):
        with pytest.raises(ValueError, match="num_return_sequences is 1000000, expected 1 to 1024"):
            model.generate(**inputs, max_new_tokens=2, num_return_sequences=10 ** 6, **settings)
    with pytest.raises(ValueError, match=r"output_attentions .*model\(\.\.\., output_attentions=True\)"):
        model.generate(**inputs, max_new_tokens=2, output_attentions=True, return_dict_in_generate=True)


def test_max_running(model, processor, image_path):
    batch = processor([image_path] * 7, [P, Q, R, Q, P, P, R], padding=True, return_tensors="np")
    whole = model.generate(**batch, max_new_tokens=20)
    for n in (1, 2, 5, 100, None):
        assert model.generate(**batch, max_new_tokens=20, max_running=n).tolist() == whole.tolist()
    stepped = model.generate(**batch, max_new_tokens=20, return_dict_in_generate=True, output_scores=True)
    assert stepped.sequences.tolist() == whole.tolist()
    with pytest.raises(ValueError, match="max_running is 0, expected 1 or more"):
        model.generate(**batch, max_running=0)
    with pytest.raises(ValueError, match="max_running=2: .* 7 rows step by step"):
        model.generate(**batch, max_new_tokens=20, max_running=2, stopping_criteria=[lambda ids, scores: False])


def test_generate(model, processor, inputs):
    output = model.generate(**inputs, max_new_tokens=20)
    assert isinstance(output, np.ndarray) and output.dtype == np.int64
    assert (output[:, :inputs.input_ids.shape[1]] == inputs.input_ids).all()
    assert new_text(processor, inputs, output) == CAPTION
    assert output[0, -1] == processor.tokenizer.eos_token_id
    as_output = model.generate(**inputs, max_new_tokens=20, return_dict_in_generate=True)
    assert as_output.sequences.tolist() == output.tolist()
    assert model.generate(inputs.input_ids, pixel_values=inputs.pixel_values, max_new_tokens=20,
                          token_type_ids=inputs.token_type_ids).tolist() == output.tolist()
    lists = {key: value.tolist() for key, value in inputs.items()}
    assert model.generate(**lists, max_new_tokens=20).tolist() == output.tolist()


@pytest.mark.parametrize("side", ["left", "right"])
def test_generate_rows_as_alone(model, processor, image_path, side):
    rows = processor([image_path] * 3, [P, Q, R], padding=True, padding_side=side, return_tensors="np")
    output = model.generate(**rows, max_new_tokens=24)
    width = rows.input_ids.shape[1]
    for row, prompt in enumerate([P, Q, R]):
        single = processor(image_path, prompt, return_tensors="np")
        alone = model.generate(**single, max_new_tokens=24)[0, single.input_ids.shape[1]:]
        got = output[row, width:]
        assert got[:len(alone)].tolist() == alone.tolist()
        assert (got[len(alone):] == processor.tokenizer.pad_token_id).all()


@pytest.mark.parametrize("side", ["left", "right"])
def test_generate_needs_no_tokenizer(model, processor, image_path, folder, tmp_path, side):
    """A folder of weights and config alone gives what the whole folder gives."""
    for name in os.listdir(folder):
        if "token" not in name and "processor" not in name:
            os.symlink(os.path.join(folder, name), tmp_path / name)
    rows = processor([[image_path], [image_path, image_path], [image_path]], [P, Q, R], padding=True,
                     padding_side=side, return_tensors="np")
    single = processor(image_path, P, return_tensors="np")
    with PaliGemmaForConditionalGeneration.from_pretrained(tmp_path) as alone:
        with pytest.raises((OSError, ValueError)):
            alone._own_processor()
        assert alone.generate(**rows, max_new_tokens=24).tolist() == model.generate(**rows, max_new_tokens=24).tolist()
        assert (alone.generate(**single, max_new_tokens=24) == model.generate(**single, max_new_tokens=24)).all()
        features = alone.encode_image(rows.pixel_values)
        given = alone.generate(**{**rows, "pixel_values": None}, features=features, max_new_tokens=24)
        assert (given == model.generate(**rows, max_new_tokens=24)).all()


def test_relative_folder_after_chdir(model, folder, inputs, monkeypatch, tmp_path):
    monkeypatch.chdir(os.path.dirname(folder))
    with PaliGemmaForConditionalGeneration.from_pretrained(os.path.basename(folder)) as relative:
        monkeypatch.chdir(tmp_path)
        assert (relative.generate(**inputs, max_new_tokens=20) == model.generate(**inputs, max_new_tokens=20)).all()
        assert "".join(relative.stream(inputs, max_new_tokens=20)) == CAPTION
        with copy.copy(relative) as again:
            assert (again.generate(**inputs, max_new_tokens=4) == model.generate(**inputs, max_new_tokens=4)).all()


def test_default_length_warns(model, inputs):
    with pytest.warns(UserWarning, match="max_new_tokens"):
        assert model.generate(**inputs).shape[1] <= inputs.input_ids.shape[1] + 20
    config = paligemma.GenerationConfig(max_new_tokens=2)
    assert model.generate(**inputs, generation_config=config).shape[1] == inputs.input_ids.shape[1] + 2


@pytest.mark.parametrize("settings", [dict(num_beams=-4), dict(repetition_penalty=-1.2),
                                      dict(num_return_sequences=2), dict(guidance_scale=2.0),
                                      dict(max_new_tokens=0), dict(max_time=-1), dict(max_length=3),
                                      dict(maximum=3), dict(max_new_tokens=2**40)])
def test_what_is_not_followed(model, inputs, settings):
    with pytest.raises(ValueError) as caught:
        model.generate(**inputs, **(settings if "max_length" in settings else {"max_new_tokens": 3, **settings}))
    assert str(caught.value)


@pytest.mark.parametrize("settings", [dict(num_beams=-4), dict(no_repeat_ngram_size=2.5),
                                      dict(max_time=-1.0), dict(num_return_sequences=2)])
def test_what_is_not_followed_in_a_generation_config(model, inputs, settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        model.generate(**inputs, generation_config=paligemma.GenerationConfig(max_new_tokens=3, **settings))


@pytest.mark.parametrize("settings", [dict(num_beams=-4), dict(repetition_penalty=-1.2), dict(penalty_alpha=0.5),
                                      dict(num_return_sequences=2)])
def test_what_is_set_on_the_model_is_not_ignored(folder, inputs, settings):
    name = next(iter(settings))
    with PaliGemmaForConditionalGeneration.from_pretrained(folder) as model:
        setattr(model.generation_config, name, settings[name])
        given = {} if name == "max_new_tokens" else {"max_new_tokens": 3}
        with pytest.raises(ValueError, match=name):
            model.generate(**inputs, **given)
        with pytest.raises(ValueError, match=name):
            list(model.stream(inputs, **given))
        if name == "num_beams":  # a keyword wins
            assert model.generate(**inputs, max_new_tokens=3, num_beams=1).shape[0] == 1


def test_max_new_tokens_is_whole(model, inputs):
    with pytest.raises(TypeError, match="2.7"):
        model.generate(**inputs, max_new_tokens=2.7)


def test_generate_takes_ids_not_a_dictionary(model, inputs):
    with pytest.raises(TypeError, match=r"generate\(\*\*inputs\)"):
        model.generate(inputs, max_new_tokens=3)


def test_forward(model, processor, image_path):
    rows = processor([image_path] * 2, [P, Q], ["a red circle", "b"], padding=True, return_tensors="np")
    outputs = model(**rows, output_hidden_states=True, output_last_hidden_state=True)
    b, t = rows.input_ids.shape
    text = model.config.text_config
    assert outputs.logits.shape == (b, t, text.vocab_size) and outputs.logits.dtype == np.float32
    assert outputs.loss.shape == () and np.isfinite(outputs.loss)
    assert len(outputs.hidden_states) == text.num_hidden_layers + 1
    assert all(layer.shape == (b, t, text.hidden_size) for layer in outputs.hidden_states)
    assert (outputs.hidden_states[-1] == outputs.last_hidden_state).all()
    assert outputs.image_hidden_states.shape == (2, 64, text.hidden_size)
    assert outputs["logits"] is outputs.logits and outputs[0] is outputs.loss and outputs[1] is outputs.logits
    assert outputs.to_tuple()[1] is outputs.logits and len(outputs[:2]) == 2
    # the loss is the cross entropy of each label under the logits before it
    logits, labels = outputs.logits[:, :-1].astype(np.float64), rows.labels[:, 1:]
    top = logits.max(-1, keepdims=True)
    log_p = logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))
    row, column = np.nonzero(labels != -100)
    losses = -log_p[row, column, labels[row, column]]
    assert abs(outputs.loss - losses.mean()) < 1e-5
    each = model(**rows, loss="example").loss
    assert abs(each - np.mean([losses[row == i].mean() for i in range(b)])) < 1e-5
    kept = model(**rows, logits_to_keep=2)
    assert np.abs(kept.logits - outputs.logits[:, -2:]).max() < 1e-4 and abs(kept.loss - outputs.loss) < 1e-5
    assert kept.hidden_states is None and "hidden_states" not in kept
    without = model(**rows, return_logits=False)
    assert without.logits is None and abs(without.loss - outputs.loss) < 1e-5
    with pytest.raises(AttributeError):
        outputs.nothing


def test_bad_forward_names_the_numbers(model, processor, image_path, inputs):
    ids = inputs.input_ids
    nan = inputs.pixel_values.copy()
    nan[0, 1, 2, 3] = np.nan
    outside = ids.copy()
    outside[0, 66] = 99999
    cases = {
        "99999": dict(inputs, input_ids=outside),
        "labels": dict(inputs, labels=inputs.labels[:, 1:]),
        "label": dict(inputs, labels=np.full_like(ids, 99999)),
        "attention_mask": dict(inputs, attention_mask=inputs.attention_mask[:, 2:]),
        "token_type_ids": dict(inputs, token_type_ids=np.full_like(ids, 7)),
        "pixel_values": dict(inputs, pixel_values=nan),
        "image|image": dict(input_ids=ids),
        "64": dict(inputs, pixel_values=np.concatenate([inputs.pixel_values] * 2)),
        "integers": dict(inputs, input_ids=ids.astype(float)),
        "input_ids": dict(inputs, input_ids=ids[0]),
        "logits_to_keep": dict(inputs, logits_to_keep=-1),
        "loss": dict(inputs, loss="sum"),
        "exactly one": {},
        "different lengths": dict(input_ids=[[1, 2], [3]]),
    }
    for words, arguments in cases.items():
        with pytest.raises(ValueError, match="(?i)" + words):
            model(**arguments)
    long = model(input_ids=np.full((1, 10000), 300), logits_to_keep=1)  # a row has no end of its own
    assert long.logits.shape[:2] == (1, 1) and np.isfinite(long.logits).all()
    with pytest.raises(TypeError):
        model(**inputs, anything=1)


def test_features_serve_many_prompts(model, processor, image_path, inputs):
    with model.encode_image(**inputs) as features:
        assert features.pooler_output.shape == (1, 64, model.config.text_config.hidden_size) and len(features) == 1
        assert (model.get_image_features(inputs.pixel_values).pooler_output == features.pooler_output).all()
        for prompt in (P, Q, R):
            whole = processor(image_path, prompt, return_tensors="np")
            room = processor(text=prompt, image_counts=1, return_tensors="np")
            assert (model.generate(**room, features=features, max_new_tokens=16)
                    == model.generate(**whole, max_new_tokens=16)).all()
            assert (model(**room, features=features).logits == model(**whole).logits).all()
        assert "".join(model.stream(processor(text=P, image_counts=1), processor, features=features,
                                    max_new_tokens=20)) == CAPTION
        kept = features.pooler_output
        copied = kept.copy()
    assert features.closed
    others = [model.encode_image(inputs.pixel_values * 0) for _ in range(4)]  # would take the freed memory
    assert (kept == copied).all() and not (others[0].pooler_output == kept).all()
    room = processor(text=P, image_counts=1, return_tensors="np")
    for call in (lambda: model.generate(**room, features=features, max_new_tokens=2), lambda: features.pooler_output,
                 lambda: model(**room, features=features),
                 lambda: list(model.stream(room, processor, features=features, max_new_tokens=2))):
        with pytest.raises(ValueError, match="the Features object is closed"):
            call()
    with pytest.raises(TypeError):
        model.generate(**room, features=kept, max_new_tokens=2)


def test_writing_to_an_output_leaves_features_alone(model, processor, image_path):
    features = model.encode_image(**processor(image_path, return_tensors="np"))
    room = processor(text="caption en", image_counts=1, return_tensors="np")
    before = model.generate(**room, features=features, max_new_tokens=20)
    model(**room, features=features).image_hidden_states[...] = 0
    model.embed(**room, features=features).image_hidden_states[...] = 0
    assert (model.generate(**room, features=features, max_new_tokens=20) == before).all()
    with pytest.raises(ValueError, match="read-only"):
        features.pooler_output[...] = 0


def test_an_output_is_changed_by_attribute_and_by_key(model, inputs):
    outputs = model(**inputs)
    outputs.logits = outputs.logits[:, -1:]
    assert outputs["logits"].shape[1] == outputs.logits.shape[1] == 1
    outputs.logits = None
    assert outputs.logits is None and "logits" not in outputs


def test_arithmetic_is_one_that_there_is(model):
    for wrong in ("f16", "default", 2):
        with pytest.raises(ValueError, match="arithmetic"):
            type(model)(model.name_or_path, arithmetic=wrong)


def test_disable_mmap_keeps_no_file(model, inputs, folder, tmp_path):
    """The files may be emptied while the model is in use, where a mapping would end the process."""
    for name in os.listdir(folder):
        shutil.copy(os.path.join(folder, name), tmp_path / name)
    with type(model).from_pretrained(tmp_path, disable_mmap=True) as read:
        for name in os.listdir(tmp_path):
            if name.endswith(".safetensors"):
                os.truncate(tmp_path / name, 0)
        assert (read(**inputs).logits == model(**inputs).logits).all()


def test_a_quantized_model_is_copied_as_one(model, inputs):
    with type(model)(model.name_or_path, weights="int4") as quantized:
        expected = quantized(**inputs).logits
        assert not np.array_equal(expected, model(**inputs).logits)
        for other in (copy.deepcopy(quantized), pickle.loads(pickle.dumps(quantized))):
            with other:
                assert np.array_equal(other(**inputs).logits, expected)


def test_copied_and_pickled(model, inputs):
    model.generation_config.max_new_tokens = 3
    try:
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert other._handle is not model._handle
            assert (other.generate(**inputs) == model.generate(**inputs)).all()
            other.close()
    finally:
        model.generation_config.max_new_tokens = None
    with pytest.raises(TypeError, match="cancel flag cannot be copied or pickled"):
        copy.deepcopy(paligemma.CancelFlag())


def test_embed(model, processor, image_path):
    rows = processor([image_path] * 2, [P, Q], padding=True, return_tensors="np")
    embedded = model.embed(**rows)
    full = model(**rows, output_last_hidden_state=True)
    seen = rows.attention_mask == 1
    assert list(embedded) == ["image_hidden_states", "last_hidden_state"]
    assert np.allclose(embedded.last_hidden_state[seen], full.last_hidden_state[seen], atol=1e-4)
    assert (embedded.last_hidden_state[~seen] == 0).all()


def test_stream(model, processor, image_path, inputs):
    pieces = list(model.stream(inputs, processor, max_new_tokens=20))
    assert "".join(pieces) == CAPTION and len(pieces) > 3
    assert "".join(model.stream(**inputs, max_new_tokens=20)) == CAPTION
    assert "".join(model.stream(inputs, max_new_tokens=3)) == "".join(pieces)[:len("".join(pieces[:3]))]
    for piece in model.stream(inputs, processor, max_new_tokens=20):
        break  # leaving the loop ends the generation
    rows = processor([image_path] * 2, [P, P], return_tensors="np")
    with pytest.raises(ValueError):
        list(model.stream(rows, processor, max_new_tokens=2))
    with pytest.raises(ValueError):
        list(model.stream(inputs, processor, num_beams=2))


def test_two_threads_generate_at_once(model, processor, inputs):
    wanted = model.generate(**inputs, max_new_tokens=20).tolist()
    results, started = [], threading.Barrier(2)

    def work():
        started.wait()
        for _ in range(5):
            results.append(model.generate(**inputs, max_new_tokens=20).tolist() == wanted)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 10


def test_cancel_from_another_thread(model):
    """A batch that takes many seconds ends when the flag is set; the flag cleared, it serves again."""
    cancel = paligemma.CancelFlag()
    timer = threading.Timer(0.3, cancel.request)
    timer.start()
    with pytest.raises(paligemma.Cancelled):
        model.embed(input_ids=np.full((600, 480), 300), cancel=cancel)
    timer.join()
    cancel.clear()
    model(input_ids=np.full((1, 5), 300), cancel=cancel)


def test_closed_model(folder, inputs, processor):
    model = PaliGemmaForConditionalGeneration.from_pretrained(folder)
    stream = model.stream(inputs, processor, max_new_tokens=5)
    next(stream)
    kept = model(**inputs).logits
    copied = kept.copy()
    model.close()
    model.close()
    assert model.closed and (kept == copied).all()
    for call in (lambda: model(**inputs), lambda: model.generate(**inputs, max_new_tokens=2), lambda: next(stream),
                 lambda: model.encode_image(**inputs), lambda: model.embed(**inputs), lambda: list(
                     model.stream(inputs, processor, max_new_tokens=2)), model.num_parameters, model.__enter__):
        with pytest.raises(ValueError, match="the model is closed"):
            call()


def test_close_while_another_thread_computes(folder, inputs):
    model = PaliGemmaForConditionalGeneration.from_pretrained(folder)
    outcome = []

    def work():
        try:
            outcome.append(model.embed(input_ids=np.full((60, 300), 300)))
        except ValueError as error:
            outcome.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while not model._handle._users and thread.is_alive():
        pass
    model.close()
    thread.join()
    assert isinstance(outcome[0], paligemma.ModelOutput)


def test_closed_processor_is_no_matter_to_generate(folder, model, inputs):
    processor = paligemma.AutoProcessor.from_pretrained(folder)
    processor.close()
    model.generate(**inputs, max_new_tokens=2)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_fork(model, inputs):
    wanted = model.generate(**inputs, max_new_tokens=5).tolist()
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if model.generate(**inputs, max_new_tokens=5).tolist() == wanted else 3)
        finally:
            os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_what_a_torch_module_has(model):
    assert model.eval() is model and model.to("cpu") is model and model.cpu() is model
    for device in ("cuda", "cuda:0", 0, "mps"):
        with pytest.raises(ValueError, match="CPU"):
            model.to(device)
    for training in (model.train, lambda: model.requires_grad_(True)):
        with pytest.raises(ValueError):
            training()
    assert model.train(False) is model
    assert str(model.device) == "cpu" and "float32" in str(model.dtype)
    assert model.num_parameters() > 2e6 and not model.training


def test_config(model, folder):
    config = paligemma.PaliGemmaConfig.from_pretrained(folder)
    assert config == model.config and config.text_config.hidden_size == 160
    assert config.image_token_id == config.image_token_index == config["image_token_id"]
    assert config.vision_config.to_dict()["image_size"] == 112 and "text_config" in config
    assert config.get_text_config() is config.text_config and config.get("nothing") is None
    with pytest.raises(AttributeError, match="nothing"):
        config.nothing
    with pytest.raises(AttributeError, match="cannot be changed"):
        model.config.text_config.hidden_size = 3
    assert model.generation_config.eos_token_id == 1


def test_from_pretrained_arguments(folder):
    open_model = paligemma.AutoModelForImageTextToText.from_pretrained
    for harmless in (dict(torch_dtype="bfloat16"), dict(dtype="auto", device_map="auto"), dict(device_map={"": "cpu"}),
                     dict(attn_implementation="eager", low_cpu_mem_usage=True, token="x", quantization_config=None),
                     dict(revision="float16", cpu="baseline", n_threads=1)):
        open_model(folder, **harmless).close()
    for refused in (dict(device_map="cuda"), dict(load_in_4bit=True), dict(quantization_config={"a": 1}),
                    dict(variant="fp16"), dict(state_dict={}), dict(text_config={}), dict(cpu="sse")):
        with pytest.raises(ValueError):
            open_model(folder, **refused)
    paligemma.AutoTokenizer.from_pretrained(folder)
    assert paligemma.AutoConfig.from_pretrained(folder).model_type == "paligemma"


def test_local_cache(folder, monkeypatch, tmp_path, inputs):
    root = tmp_path / "models--org--demo"
    (root / "refs").mkdir(parents=True)
    (root / "snapshots").mkdir()
    (root / "refs" / "main").write_text("abc")
    (root / "refs" / "bfloat16").write_text("def")
    for commit in ("abc", "def"):
        (root / "snapshots" / commit).symlink_to(folder)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    for arguments in ({}, dict(revision="main"), dict(revision="bfloat16"), dict(revision="abc"),
                      dict(cache_dir=tmp_path)):
        with PaliGemmaForConditionalGeneration.from_pretrained("org/demo", **arguments) as model:
            assert model.generate(**inputs, max_new_tokens=1).shape[1] == inputs.input_ids.shape[1] + 1
        paligemma.AutoProcessor.from_pretrained("org/demo", **arguments).close()
    for arguments in (dict(revision="other"), dict(cache_dir=tmp_path / "empty"), dict(subfolder="nothing"),
                      dict(revision="../../models--org--demo/snapshots/abc"), dict(revision="..")):
        with pytest.raises(FileNotFoundError):
            PaliGemmaForConditionalGeneration.from_pretrained("org/demo", **arguments)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))
    with pytest.raises(FileNotFoundError, match="HF_HUB_CACHE"):
        paligemma.AutoProcessor.from_pretrained("org/demo")
    for arguments in (dict(cache_dir=tmp_path), dict(cache_dir=str(tmp_path), revision="bfloat16")):
        paligemma.AutoProcessor.from_pretrained("org/demo", **arguments).close()
    assert paligemma._hub.find("org/demo", "bfloat16", tmp_path) == str(root / "snapshots" / "def")


def test_damaged_and_missing_checkpoints(folder, tmp_path):
    for missing in ("nobody/nothing", str(tmp_path / "no folder"), str(tmp_path)):
        with pytest.raises(FileNotFoundError) as caught:
            PaliGemmaForConditionalGeneration.from_pretrained(missing)
        assert str(caught.value)
        with pytest.raises(FileNotFoundError):
            paligemma.AutoProcessor.from_pretrained(missing)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(OSError, match="config.json"):
        PaliGemmaForConditionalGeneration.from_pretrained(tmp_path)


def test_log_goes_to_logging(folder, caplog, tmp_path):
    import json
    import pathlib

    for file in pathlib.Path(folder).iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "generation_config.json").unlink()
    (tmp_path / "generation_config.json").write_text(json.dumps(dict(guidance_scale=4, max_new_tokens=3)))
    with caplog.at_level("WARNING", logger="paligemma"):
        model = PaliGemmaForConditionalGeneration.from_pretrained(tmp_path)
    assert "guidance_scale" in caplog.text
    assert model.generation_config.max_new_tokens == 3


def test_counts_are_whole_numbers(model, processor, image_path):
    """transformers takes some of these: 2.7 new tokens are 3 there, True is 1."""
    inputs = processor(str(image_path), "caption en", return_tensors="np")
    del inputs["labels"]
    for name in ("max_new_tokens", "max_length"):
        for value in (2.7, 80.0, True, "80", [80], np.float32(80), np.True_):
            with pytest.raises(TypeError, match=name):
                model.generate(**inputs, **{name: value})
            with pytest.raises(TypeError, match=name):
                model.stream(dict(inputs), processor, **{name: value})
    three = model.generate(**inputs, max_new_tokens=3)
    assert np.array_equal(model.generate(**inputs, max_new_tokens=np.int32(3)), three)
    for value in (True, 1.0, 2.5):
        with pytest.raises(TypeError, match="logits_to_keep"):
            model(**inputs, logits_to_keep=value)
    assert model(**inputs, logits_to_keep=1).logits.shape[1] == 1


def test_a_key_named_self_in_generation_config():
    assert paligemma.GenerationConfig(**{"self": 1, "max_new_tokens": 5}).to_dict()["self"] == 1


@pytest.mark.parametrize("settings", [{}, {"do_sample": True, "temperature": 0.01, "seed": 1}])
def test_a_stream_tells_its_ids(model, processor, image_path, settings):
    inputs = processor(str(image_path), "caption en", return_tensors="np")
    expected = model.generate(**inputs, max_new_tokens=50, **settings)[0, inputs["input_ids"].shape[1]:].tolist()
    events = []
    for piece in model.stream(inputs, processor, max_new_tokens=50, on_token=events.append, **settings):
        events.append(piece)
    ids = [event for event in events if isinstance(event, int)]
    assert ids == expected and ids[-1] in model._eos_ids  # the eos has no text, and is told all the same
    assert isinstance(events[0], int) and processor.decode(ids, skip_special_tokens=True) == "".join(
        event for event in events if isinstance(event, str))
