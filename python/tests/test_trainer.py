# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Trainer: steps with the numbers of the library and of PEFT, saving and resuming, train(), what is refused."""
import copy
import ctypes
import gc
import json
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest

import paligemma
from adapter_cases import read
from paligemma import _library as c
from paligemma._training import Batches

Model = paligemma.PaliGemmaForConditionalGeneration
Trainer = paligemma.Trainer
ANSWERS = ["a red circle", "a blue star and a green cross", "nothing", "a yellow square", "a purple triangle", "red"]
SMALL = dict(r=4, lora_alpha=8, learning_rate=1e-3)


def images(n):
    rng = np.random.default_rng(7)
    return [np.kron(rng.integers(0, 256, (4, 4, 3), np.uint8), np.ones((16, 16, 1), np.uint8)) for _ in range(n)]


@pytest.fixture(scope="module")
def rows():
    """A data set of six."""
    return [{"image": image, "prefix": "caption en" if i % 2 else "answer en what is it?", "suffix": answer}
            for i, (image, answer) in enumerate(zip(images(6), ANSWERS))]


@pytest.fixture(scope="module")
def batches(processor, rows):
    """Two batches of two rows, padded."""
    return [batch_of(processor, rows[:2]), batch_of(processor, rows[2:4])]


def batch_of(processor, rows, tensors="np"):
    return processor([[row["image"]] for row in rows], [row["prefix"] for row in rows], [row["suffix"] for row in rows],
                     padding=True, padding_side="right", return_tensors=tensors)


def values(trainer):
    return {name: parameter.value.tobytes() for name, parameter in trainer.parameters().items()}


# ------------------------------------------------------------------------------------------------------ a step


def test_a_step(model, batches):
    before = {name: array.tobytes() for name, array in batches[0].items()}
    with Trainer(model, **SMALL, warmup_steps=1, max_steps=4) as trainer:
        first, second = trainer.step(batches[0]), trainer.step(batches[0])
        assert isinstance(first, paligemma.TrainStep) and first.updated is True
        assert (first.step, second.step, trainer.global_step) == (1, 2, 2)
        assert (first.learning_rate, second.learning_rate) == (0.0, 1e-3) and first.grad_norm > 0
        assert first.n_labels == (batches[0].labels[:, 1:] != -100).sum()
        assert first.n_tokens == batches[0].attention_mask.sum()
        assert second.loss == first.loss > trainer.step(batches[0]).loss > 0  # the first rate was 0
    assert {name: array.tobytes() for name, array in batches[0].items()} == before


def test_the_first_loss_is_the_models(model, batches):
    with Trainer(model, **SMALL) as trainer:
        expected = float(model(**batches[0]).loss)
        assert abs(trainer.evaluate(batches[0]) - expected) < 1e-4 * expected
        assert trainer.evaluate(batches[0]) == trainer.step(batches[0]).loss


def of_library(model, batches, n_steps, **options):
    """[(loss, norm, rate)] and parameters of the C calls."""
    struct = c.TrainerOptions()
    c.check(c.lib.pg_trainer_options_init(ctypes.byref(struct), ctypes.sizeof(struct)))
    for name, value in options.items():
        setattr(struct, name, value)
    trainer, found, parameters = ctypes.c_void_p(), [], {}
    c.check(c.lib.pg_trainer_create(model._adapters.base.pointer, ctypes.byref(struct), ctypes.byref(trainer)))
    try:
        for i in range(n_steps):
            inputs, result = paligemma._inputs.create(paligemma._inputs.checked(dict(batches[i % 2]))), c.TrainResult()
            c.check(c.lib.pg_trainer_step(trainer, inputs.pointer, ctypes.byref(result)))
            found.append((result.loss, result.gradient_norm, result.learning_rate, result.step, bool(result.updated)))
        n = c.c_size_t()
        c.check(c.lib.pg_trainer_count_parameters(trainer, ctypes.byref(n)))
        for i in range(n.value):
            parameter = c.Parameter()
            c.check(c.lib.pg_trainer_get_parameter(trainer, i, ctypes.byref(parameter)))
            size = int(np.prod(parameter.shape[:4]))
            parameters[parameter.name.decode()] = np.ctypeslib.as_array(parameter.value, (size,)).tobytes()
        return found, parameters
    finally:
        c.lib.pg_trainer_close(ctypes.byref(trainer))


@pytest.mark.parametrize("ours, theirs", [
    ({}, {}),
    (dict(r=5, lora_alpha=3, lora_dropout=0.25, seed=2**64 - 3, use_rslora=True, target_modules=["q_proj", "linear"]),
     dict(rank=5, alpha=3, dropout=0.25, seed=2**64 - 3, flags=c.TRAIN_RSLORA, target_modules=b"q_proj,linear")),
    (dict(r=2, target_modules=r".*language_model.*(q|v)_proj", modules_to_save=("norm", "multi_modal_projector"),
          gradient_checkpointing=True, gradient_accumulation_steps=2, max_grad_norm=0.5, weight_decay=0.1),
     dict(rank=2, target_modules=b"regex:.*language_model.*(q|v)_proj", modules_to_save=b"norm,multi_modal_projector",
          flags=c.TRAIN_CHECKPOINT, accumulation=2, max_gradient_norm=0.5, weight_decay=0.1)),
    (dict(target_modules="all-linear", learning_rate=3e-3, lr_scheduler_type="cosine", warmup_steps=1, max_steps=5,
          adam_beta1=0.8, adam_beta2=0.9, adam_epsilon=1e-6, n_threads=3),
     dict(target_modules=b"all-linear", learning_rate=3e-3, schedule=c.SCHEDULE_COSINE, warmup_steps=1, total_steps=5,
          beta1=0.8, beta2=0.9, epsilon=1e-6)),
    (dict(r=0, modules_to_save=["mlp.down_proj"], lr_scheduler_type="constant_with_warmup", warmup_steps=2),
     dict(rank=0, modules_to_save=b"mlp.down_proj", schedule=c.SCHEDULE_CONSTANT, warmup_steps=2)),
])
def test_each_option_goes_to_the_library(model, batches, ours, theirs):
    expected, parameters = of_library(model, batches, 4, **theirs)
    with Trainer(model, **ours) as trainer:
        found = [trainer.step(batches[i % 2]) for i in range(4)]
        assert [(s.loss, s.grad_norm, s.learning_rate, s.step, s.updated) for s in found] == expected
        assert values(trainer) == parameters


def test_checkpoints_of_gradients(model, monkeypatch):
    """The bits are the same; that it is asked for shows in the options alone."""
    seen, opened = [], Trainer._open
    monkeypatch.setattr(Trainer, "_open", lambda self, options, folder: (seen.append(options.flags), opened(self, options, folder)))
    for arguments in ({}, {"gradient_checkpointing": True}, {"gradient_checkpointing": True, "use_rslora": True}):
        Trainer(model, **arguments).close()
    assert seen == [0, c.TRAIN_CHECKPOINT, c.TRAIN_CHECKPOINT | c.TRAIN_RSLORA]


def test_forms_of_inputs(model, processor, rows, batches):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    forms = [dict(batches[0]), {name: array.tolist() for name, array in batches[0].items() if name != "pixel_values"},
             batch_of(processor, rows[:2], "pt"), batch_of(processor, rows[:2], None)]
    forms[1]["pixel_values"] = torch.from_numpy(batches[0].pixel_values).to(torch.float64)
    with Trainer(model, **SMALL) as trainer:
        expected = trainer.evaluate(batches[0])
        assert [trainer.evaluate(form) for form in forms] == [expected] * len(forms)
        left = processor([[row["image"]] for row in rows[:2]], [row["prefix"] for row in rows[:2]],
                         [row["suffix"] for row in rows[:2]], padding=True, padding_side="left", return_tensors="np")
        assert abs(trainer.evaluate(left) - expected) < 1e-5 * expected


def test_transformers_batches(model, hf_processor, rows, batches):
    theirs = hf_processor(images=[[row["image"]] for row in rows[:2]], text=["<image>" + r["prefix"] for r in rows[:2]],
                          suffix=[row["suffix"] for row in rows[:2]], padding=True, padding_side="right", return_tensors="pt")
    with Trainer(model, **SMALL) as trainer:
        assert trainer.evaluate(theirs) == trainer.evaluate(batches[0])


def test_eager_attention(folder, batches):
    """Without token_type_ids the model's rule holds here, too."""
    plain = {name: array for name, array in batches[0].items() if name != "token_type_ids"}
    losses = []
    for kind in ("sdpa", "eager"):
        with Model.from_pretrained(folder, attn_implementation=kind) as model, Trainer(model, **SMALL) as trainer:
            one = {name: array[:1] for name, array in plain.items() if name != "attention_mask"}
            losses.append(trainer.evaluate(one))
            assert abs(losses[-1] - float(model(**one).loss)) < 1e-4 * losses[-1]
    assert losses[0] != losses[1]


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_over_quantized_weights(folder, batches, weights):
    with Model.from_pretrained(folder, weights=weights) as model, Trainer(model, **SMALL) as trainer:
        first = trainer.step(batches[0]).loss
        assert trainer.evaluate(batches[0]) < first


def test_parameters(model, batches, tmp_path):
    with Trainer(model, **SMALL, weight_decay=0.1, modules_to_save=["model.language_model.norm"]) as trainer:
        parameters = trainer.parameters()
        assert list(parameters) == sorted(parameters) and len(parameters) == 2 * 7 * 3 + 1
        a, b = (parameters[f"base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_{ab}.weight"] for ab in "AB")
        norm = parameters["base_model.model.model.language_model.norm.weight"]
        assert a.value.shape == (4, 160) and b.value.shape[1] == 4 and a.value.any() and not b.value.any()
        assert a.decays and not norm.decays and norm.value.ndim == 1
        trainer.step(batches[0])
        assert b.value.any() and b.grad.any()  # the arrays are the trainer's memory
        total = sum(float((p.grad.astype(np.float64) ** 2).sum()) for p in parameters.values()) ** 0.5
        assert total <= 1.0 + 1e-6
        with pytest.raises(ValueError):
            a.value[0, 0] = 1
        trainer.save_pretrained(tmp_path)
    saved = read(tmp_path / "adapter_model.safetensors")
    assert saved.keys() == parameters.keys()
    assert all((saved[name] == parameter.value).all() for name, parameter in parameters.items())  # closed, and still there


def test_evaluate_changes_nothing(model, batches):
    with Trainer(model, **SMALL, lora_dropout=0.5) as trainer, Trainer(model, **SMALL, lora_dropout=0.5) as other:
        for _ in range(2):
            losses = {trainer.evaluate(batches[1]) for _ in range(2)}
            assert len(losses) == 1
            assert trainer.step(batches[0]) == other.step(batches[0])
        assert values(trainer) == values(other)


def test_accumulation_is_one_large_batch(model, processor, rows):
    with Trainer(model, **SMALL, gradient_accumulation_steps=2) as parts, Trainer(model, **SMALL) as whole:
        first = parts.step(batch_of(processor, rows[:1]))
        assert (first.updated, first.step, first.grad_norm, first.learning_rate) == (False, 0, 0.0, 0.0)
        second = parts.step(batch_of(processor, rows[1:2]))
        both = whole.step(batch_of(processor, rows[:2]))
        mean = (first.loss * first.n_labels + second.loss * second.n_labels) / both.n_labels
        assert abs(mean - both.loss) < 1e-6 and abs(second.grad_norm - both.grad_norm) < 1e-4 * both.grad_norm


# ---------------------------------------------------------------------------------------------- saved and gone on from


def test_what_is_saved_loads(folder, model, processor, rows, batches, tmp_path):
    out = tmp_path / "made" / "on the way"
    with Model.from_pretrained(folder) as opened, Trainer(opened, **SMALL, base_model_name_or_path="me/base") as trainer:
        for _ in range(3):
            trainer.step(batches[0])
        trainer.save_pretrained(out)
        loss = trainer.evaluate(batches[0])
        opened.load_adapter(out)
        assert abs(float(opened(**batches[0]).loss) - loss) < 1e-4
        assert opened.peft_config["default"].base_model_name_or_path == "me/base"
        assert trainer.evaluate(batches[0]) == loss  # it trains over the base, whatever the model has in use
        with pytest.raises(NotImplementedError, match="adapter 'default' in use, expected none.*disable_adapters"):
            Trainer(opened)
        opened.disable_adapters()
        with Trainer(paligemma.PeftModel(opened), **SMALL) as other:
            assert other.evaluate(batches[0]) != loss
    with Trainer(model, **SMALL) as trainer:
        trainer.save_pretrained(str(tmp_path))
        assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] == folder


def test_resume_is_exact(model, batches, tmp_path):
    options = dict(SMALL, lora_dropout=0.3, warmup_steps=2, max_steps=6, gradient_accumulation_steps=2, weight_decay=0.01)
    with Trainer(model, **options) as trainer:
        for i in range(4):
            trainer.step(batches[i % 2])
        trainer.save_pretrained(tmp_path)
        with Trainer.resume(model, tmp_path, **options) as other:
            assert other.global_step == 2
            assert [trainer.step(batches[i % 2]) for i in range(4)] == [other.step(batches[i % 2]) for i in range(4)]
            assert values(trainer) == values(other)


def test_what_does_not_resume(model, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected a folder of Trainer\.save_pretrained"):
        Trainer.resume(model, tmp_path / "none")
    with Trainer(model, **SMALL) as trainer:
        trainer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"found shape \[4, .*expected \[8, "):
        Trainer.resume(model, tmp_path)
    for name, value, words in (("lora_alpha", 9, "lora_alpha.*found 8.*expected 9"),
                               ("use_rslora", True, "use_rslora.*found false")):
        with pytest.raises(ValueError, match=words):
            Trainer.resume(model, tmp_path, **{**SMALL, name: value})
    with Trainer.resume(model, tmp_path, **{**SMALL, "learning_rate": 1, "seed": 3, "lora_dropout": 0.5}) as trainer:
        assert trainer.global_step == 0
    state = tmp_path / "trainer_state.safetensors"
    data = state.read_bytes()
    state.write_bytes(data[:-4] + b"\x01\x00\x00\x00")
    with pytest.raises(OSError, match="damaged"):
        Trainer.resume(model, tmp_path, **SMALL)


def test_what_cannot_be_saved(model, tmp_path):
    (tmp_path / "file").write_text("")
    with Trainer(model, **SMALL) as trainer:
        with pytest.raises((ValueError, OSError), match="file"):
            trainer.save_pretrained(tmp_path / "file")
        with pytest.raises(OSError):
            trainer.save_pretrained(tmp_path / "file" / "in it")


# --------------------------------------------------------------------------------------------------------- train()


def test_train(folder, model, rows, tmp_path):
    entries = []
    with Trainer(model, **SMALL, max_steps=7) as trainer:
        history = trainer.train(rows, batch_size=2, eval_dataset=rows[:3], eval_steps=3, save_steps=4,
                                output_dir=tmp_path / "out", callback=entries.append)
        assert history == entries == trainer.log_history and trainer.global_step == 7
        assert [(e["step"], "eval_loss" in e) for e in history] == [
            (1, False), (2, False), (3, False), (3, True), (4, False), (5, False), (6, False), (6, True), (7, False), (7, True)]
        assert history[0].keys() == {"step", "loss", "grad_norm", "learning_rate"} and history[0]["learning_rate"] == 1e-3
        assert history[-1]["eval_loss"] < history[3]["eval_loss"]
        assert trainer.train(rows, batch_size=2, output_dir=tmp_path / "out") == history  # nothing is left to do
        loss = trainer.evaluate(batch_of(model._folders_processor(), rows))
    with Model.from_pretrained(folder) as opened:
        opened.load_adapter(tmp_path / "out")
        assert abs(float(opened(**batch_of(model._folders_processor(), rows)).loss) - loss) < 1e-4


def test_the_loss_of_a_data_set_is_over_its_labels(model, processor, rows):
    with Trainer(model, **SMALL, max_steps=1) as trainer:
        found = trainer.train(rows, batch_size=4, eval_dataset=rows)[-1]["eval_loss"]
        assert abs(found - trainer.evaluate(batch_of(processor, rows))) < 1e-6


def test_epochs(model, rows):
    with Trainer(model, **SMALL, gradient_accumulation_steps=2) as trainer:
        history = trainer.train(rows[:3], batch_size=2, num_train_epochs=3)
        assert [entry["step"] for entry in history] == [1, 2, 3] and history[-1]["learning_rate"] == 1e-3


@pytest.mark.parametrize("n_rows, size, n_epochs, accumulation, n_updates", [
    (6, 6, 3, 4, 1), (6, 2, 1, 2, 2), (5, 2.0, 2, 3, 2), (5, 2, 2, 4, 2)])
def test_epochs_end_with_a_whole_update(model, rows, n_rows, size, n_epochs, accumulation, n_updates):
    with Trainer(model, **SMALL, gradient_accumulation_steps=accumulation) as trainer:
        arguments = dict(batch_size=size, num_train_epochs=n_epochs, eval_dataset=rows[:3])
        history = trainer.train(rows[:n_rows], **arguments)
        assert [entry["step"] for entry in history] == [*range(1, n_updates + 1), n_updates]
        assert "eval_loss" in history[-1] and (trainer.global_step, trainer._n_calls) == (n_updates, 0)
        n = len(history)
        assert [e for e in trainer.train(rows[:n_rows], **arguments)[n:] if "loss" in e] == []  # nothing is left to do


def test_an_iterable_that_ends_within_an_update(model, rows, tmp_path):
    class Stream:
        def __iter__(self):
            return iter(rows)

    words = "ended after 1 of the 2 batches of an update, which learned nothing; expected"
    for source, limit in ((iter(rows), 0), (iter(rows), 9), (Stream(), 0)):
        with Trainer(model, **SMALL, gradient_accumulation_steps=2, max_steps=limit) as trainer:
            with pytest.raises(ValueError, match=words):
                trainer.train(source, batch_size=2, num_train_epochs=1, eval_dataset=rows[:2], output_dir=tmp_path)
            assert [("loss" in entry, entry["step"]) for entry in trainer.log_history] == [(True, 1), (False, 1)]
        with Trainer.resume(model, tmp_path, **SMALL) as trainer:
            assert trainer.global_step == 1
    with Trainer(model, **SMALL, gradient_accumulation_steps=3) as trainer:
        assert len(trainer.train(Stream(), batch_size=2, num_train_epochs=2)) == 2


def test_loss_of_an_accumulated_step(model, processor, rows):
    with Trainer(model, **SMALL, gradient_accumulation_steps=3) as parts, Trainer(model, **SMALL) as whole:
        found = parts.train(rows[:3], batch_size=1, shuffle=False, num_train_epochs=1)
        assert abs(found[0]["loss"] - whole.step(batch_of(processor, rows[:3])).loss) < 1e-6


@pytest.mark.parametrize("n_updates", [1, 3])
def test_an_interrupted_training_goes_on_exactly(model, rows, tmp_path, n_updates):
    """Ctrl-C saves; what resumes sees the rows that were left, in their order, and ends with the same bits."""
    options = dict(SMALL, lora_dropout=0.2, gradient_accumulation_steps=2, max_steps=5, seed=11)

    def interrupt(entry):
        if entry["step"] == n_updates:
            raise KeyboardInterrupt

    with Trainer(model, **options) as trainer:
        expected, whole = trainer.train(rows[:5], batch_size=2), values(trainer)
    with Trainer(model, **options) as trainer:
        with pytest.raises(KeyboardInterrupt):
            trainer.train(rows[:5], batch_size=2, output_dir=tmp_path, callback=interrupt)
        assert trainer.log_history == expected[:n_updates]
        rest = trainer.train(rows[:5], batch_size=2)  # it can go on itself
        assert rest == expected and values(trainer) == whole
    with Trainer.resume(model, tmp_path, **options) as trainer:
        assert trainer.global_step == n_updates
        assert trainer.train(rows[:5], batch_size=2, output_dir=tmp_path) == expected[n_updates:]
        assert values(trainer) == whole


def test_an_interrupt_between_the_calls_of_an_update(model, rows, tmp_path):
    options = dict(SMALL, gradient_accumulation_steps=2, max_steps=3)
    calls = []

    def collate(chosen):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return batch_of(model._folders_processor(), chosen)

    with Trainer(model, **options) as trainer:
        expected, whole = trainer.train(rows, batch_size=2), values(trainer)
    with Trainer(model, **options) as trainer:
        with pytest.raises(KeyboardInterrupt):
            trainer.train(rows, batch_size=2, data_collator=collate, output_dir=tmp_path)
        assert (trainer.global_step, trainer._n_calls) == (1, 1)
        with Trainer.resume(model, tmp_path, **options) as other:
            assert other.train(rows, batch_size=2) == expected[1:] and values(other) == whole
        assert trainer.train(rows, batch_size=2, data_collator=collate)[-1]["step"] == 3
        assert values(trainer) == whole


def test_other_errors_leave_what_was_saved(model, rows, tmp_path):
    def fail(entry):
        if entry["step"] == 3:
            raise RuntimeError("of the caller")

    with Trainer(model, **SMALL, max_steps=5) as trainer:
        with pytest.raises(RuntimeError, match="of the caller"):
            trainer.train(rows, batch_size=1, output_dir=tmp_path, save_steps=2, callback=fail)
    with Trainer.resume(model, tmp_path, **SMALL) as trainer:
        assert trainer.global_step == 2


def test_a_callback_ends_it(model, rows, tmp_path):
    with Trainer(model, **SMALL) as trainer:
        history = trainer.train(rows, batch_size=1, output_dir=tmp_path, callback=lambda entry: entry["step"] == 2)
        assert len(history) == 2
    with Trainer.resume(model, tmp_path, **SMALL) as trainer:
        assert trainer.global_step == 2


def of_numbers(dataset, size, seed=None, n_passes=1, n_done=0):
    return list(Batches(dataset, size, seed)(n_passes, n_done))


def test_the_order_of_the_data():
    shuffled = of_numbers(list(range(7)), 3, seed=5, n_passes=4)
    assert [len(batch) for batch in shuffled] == [3, 3, 1] * 4
    passes = [sum(shuffled[i:i + 3], []) for i in range(0, 12, 3)]
    assert all(sorted(one) == list(range(7)) for one in passes) and len({tuple(one) for one in passes}) == 4
    for n_done in range(13):
        assert of_numbers(list(range(7)), 3, seed=5, n_passes=4, n_done=n_done) == shuffled[n_done:]
    assert of_numbers(list(range(7)), 3, seed=6, n_passes=4) != shuffled
    assert of_numbers(range(4), 3, n_passes=2) == [[0, 1, 2], [3]] * 2


def test_the_order_of_other_iterables():
    class Stream:
        def __iter__(self):
            return iter(range(5))

    whole = [[0, 1], [2, 3], [4]] * 3
    for n_done in range(9):
        assert of_numbers(Stream(), 2, seed=1, n_passes=3, n_done=n_done) == whole[n_done:]
    rows = iter(range(5))
    assert of_numbers(rows, 2, n_passes=3, n_done=1) == [[0, 1], [2, 3], [4]]  # it stands where it stands, and ends
    for empty, words in (([], "empty"), (iter([]), "gave no row"), (Stream, "is a type"), (3, "is a int")):
        with pytest.raises((ValueError, TypeError), match=words):
            of_numbers(empty, 2)
    ended = type("Ended", (), {"__iter__": lambda self: iter([])})()
    with pytest.raises(ValueError, match="gave no row"):
        of_numbers(ended, 2, n_passes=0)


@pytest.mark.parametrize("error, words, arguments", [
    (TypeError, "data set is a dict", dict(dataset={"image": 1})),
    (TypeError, "data set is a str", dict(dataset="rows.jsonl")),
    (TypeError, "data set has a int, expected.*data_collator", dict(dataset=[1])),
    (ValueError, "has image, text, expected image, prefix, suffix", dict(dataset=[{"image": 1, "text": 2}])),
    (ValueError, "data set is empty", dict(dataset=[])),
    (ValueError, "batch_size is 0, expected 1 or more", dict(batch_size=0)),
    (ValueError, "num_train_epochs is 0.5, expected an integer", dict(num_train_epochs=0.5)),
    (ValueError, "eval_steps is -1", dict(eval_steps=-1)),
    (ValueError, "save_steps is 3, expected an output_dir", dict(save_steps=3)),
    (TypeError, "eval_dataset is an iterator", dict(eval_dataset=iter([1]))),
])
def test_what_train_refuses(model, rows, error, words, arguments):
    with Trainer(model, **SMALL) as trainer, pytest.raises(error, match=words):
        trainer.train(**{"dataset": rows, **arguments})


# ------------------------------------------------------------------------------------------ progress, cancel, Ctrl-C


def test_progress(model, batches):
    told = []
    with Trainer(model, **SMALL, progress=lambda done, total: told.append((done, total))) as trainer:
        trainer.step(batches[0])
        assert told[-1][0] == told[-1][1] == 2 * 3 * 2 + 2 * 4 and [done for done, _ in told] == sorted(d for d, _ in told)

    class Enough(Exception):
        pass

    def stop(done, total):
        if armed:
            raise Enough(str(done))

    armed = []
    with Trainer(model, **SMALL, progress=stop) as trainer, Trainer(model, **SMALL) as other:
        trainer.step(batches[0]), other.step(batches[0])
        armed.append(1)
        with pytest.raises(Enough):
            trainer.step(batches[0])
        with pytest.raises(Enough):
            trainer.evaluate(batches[0])
        armed.clear()
        assert trainer.step(batches[1]) == other.step(batches[1]) and values(trainer) == values(other)


def test_cancel(model, batches, rows, tmp_path):
    flag = paligemma.CancelFlag()
    with Trainer(model, **SMALL, cancel=flag) as trainer:
        trainer.step(batches[0])
        flag.request()
        before = values(trainer)
        for call in (trainer.step, trainer.evaluate):
            with pytest.raises(paligemma.Cancelled):
                call(batches[0])
        with pytest.raises(ValueError, match="labels"):  # its own error, which does not take the request back
            trainer.step({"input_ids": [[2, 3]]})
        with pytest.raises(paligemma.Cancelled):
            trainer.train(rows, batch_size=2, output_dir=tmp_path)
        flag.clear()
        assert values(trainer) == before and trainer.step(batches[0]).step == 2
    with Trainer.resume(model, tmp_path, **SMALL) as trainer:
        assert trainer.global_step == 1 and values(trainer) == before


def test_one_call_at_a_time(model, batches):
    inside, done = threading.Event(), threading.Event()

    def wait(at, total):
        inside.set()
        done.wait(30)

    with Trainer(model, **SMALL, progress=wait) as trainer:
        thread = threading.Thread(target=trainer.step, args=(batches[0],))
        thread.start()
        assert inside.wait(30)
        with pytest.raises(RuntimeError):
            trainer.parameters()
        trainer.close()  # takes effect when the call is over
        with pytest.raises(ValueError, match="the trainer is closed"):
            trainer.step(batches[0])
        done.set()
        thread.join()
        assert trainer.closed and trainer.global_step == 1


def test_counters_after_errors(model, batches, monkeypatch):
    """They are the library's: after Ctrl-C during a call that finished, before one began, and while another runs."""
    def interrupt(after):
        def run(work, cancel):
            if after:
                work()
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(paligemma.trainer, "interruptible", run)
            with pytest.raises(KeyboardInterrupt):
                trainer.step(batches[0])
        return trainer.global_step, trainer._n_calls

    def again(done, total):
        if done == 1 and armed:
            armed.clear()
            with pytest.raises(RuntimeError):
                trainer.step(batches[0])
            counted.append(trainer._n_calls)

    armed, counted = [], []
    with Trainer(model, **SMALL, gradient_accumulation_steps=3, progress=again) as trainer:
        assert interrupt(after=True) == (0, 1)
        assert interrupt(after=False) == (0, 1)
        armed.append(1)
        assert not trainer.step(batches[0]).updated and counted == [1] and trainer._n_calls == 2
        assert interrupt(after=True) == (1, 0)
        assert trainer.step(batches[0]).updated is False and trainer._n_calls == 1


CHILD = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
import numpy as np
import paligemma
model = paligemma.PaliGemmaForConditionalGeneration.from_pretrained(sys.argv[1])
rows = [dict(image=np.full((32, 32, 3), i, np.uint8), prefix="caption en", suffix="red " * 10) for i in range(64)]
options = dict(r=4)
def say(text):
    os.write(1, (text + "\\n").encode())
trainer = paligemma.Trainer(model, **options, progress=lambda done, total: done == 8 and say("ready"))
try:
    trainer.train(rows, batch_size=64, num_train_epochs=50, output_dir=sys.argv[2])
    say("finished")
except KeyboardInterrupt:
    say("interrupted")
n = trainer.global_step                                                     # 0, unless the machine is busy
assert paligemma.Trainer.resume(model, sys.argv[2], **options).global_step == n
batch = model._folders_processor()(rows[0]["image"], "caption en", "red", return_tensors="np")
say(str(trainer.step(batch).step - n))                                          # everything is sound
"""


@pytest.mark.skipif(os.name != "posix", reason="no SIGINT here")
def test_sigint(folder, tmp_path):
    root = pathlib.Path(paligemma.__file__).resolve().parents[1]
    child = subprocess.Popen([sys.executable, "-c", CHILD, folder, str(tmp_path)], stdout=subprocess.PIPE, text=True,
                             env={**os.environ, "PYTHONPATH": str(root)})
    try:
        assert child.stdout.readline() == "ready\n"
        sent = time.monotonic()
        child.send_signal(signal.SIGINT)
        rest = child.stdout.read().replace("ready\n", "")
        assert rest == "interrupted\n1\n" and time.monotonic() - sent < 20
        assert child.wait(30) == 0
    finally:
        child.kill()
        child.wait()


# ---------------------------------------------------------------------------------------------- errors, and what lives


@pytest.mark.parametrize("error, words, arguments", [
    (ValueError, "^r is -1, expected 0 to 4096", dict(r=-1)),
    (ValueError, "^r is 1099511627776", dict(r=2**40)),
    (ValueError, "^r is 1.5, expected an integer", dict(r=1.5)),
    (ValueError, "^lora_alpha is 0, expected more than 0", dict(lora_alpha=0)),
    (ValueError, "^lora_alpha is '8', expected a number", dict(lora_alpha="8")),
    (ValueError, "^lora_dropout is 1, expected .*0 or more, and less than 1", dict(lora_dropout=1)),
    (ValueError, "^learning_rate is -1", dict(learning_rate=-1)),
    (ValueError, "^learning_rate is nan", dict(learning_rate=float("nan"))),
    (ValueError, "^warmup_steps is -1", dict(warmup_steps=-1)),
    (ValueError, "^max_steps is -1, expected .*0 or more", dict(max_steps=-1)),
    (ValueError, "^weight_decay is -1", dict(weight_decay=-1)),
    (ValueError, "^adam_beta1 is 1", dict(adam_beta1=1)),
    (ValueError, "^adam_beta2 is -1", dict(adam_beta2=-1)),
    (ValueError, "^adam_epsilon is -1", dict(adam_epsilon=-1)),
    (ValueError, "^max_grad_norm is -1", dict(max_grad_norm=-1)),
    (ValueError, "^gradient_accumulation_steps is 0, expected .*1 or more", dict(gradient_accumulation_steps=0)),
    (ValueError, "^seed is -1", dict(seed=-1)),
    (ValueError, "^n_threads is -1", dict(n_threads=-1)),
    (ValueError, "lr_scheduler_type is 'polynomial', expected one of 'constant', ", dict(lr_scheduler_type="polynomial")),
    (ValueError, "expected \"constant_with_warmup\"", dict(lr_scheduler_type="constant", warmup_steps=1)),
    (ValueError, "target_modules is empty", dict(target_modules=[])),
    (ValueError, "target_modules has 'a,b', expected names of modules", dict(target_modules=["a,b"])),
    (ValueError, "target_modules has 3", dict(target_modules=[3])),
    (ValueError, "target_modules: found \"x_proj\", which is no module", dict(target_modules=["q_proj", "x_proj"])),
    (ValueError, "target_modules: found a choice that fits no module", dict(target_modules="q_proj")),  # a regex, as in PEFT
    (ValueError, "target_modules: pattern \"\\(\"", dict(target_modules="(")),
    (TypeError, "modules_to_save is 'norm', expected a list", dict(modules_to_save="norm")),
    (NotImplementedError, "embed_tokens", dict(modules_to_save=["embed_tokens"])),
    (TypeError, "progress is a int", dict(progress=1)),
    (TypeError, "rank", dict(rank=8)),
])
def test_what_is_refused(model, error, words, arguments):
    with pytest.raises(error, match=words):
        Trainer(model, **arguments)


@pytest.mark.parametrize("error, words, inputs", [
    (TypeError, "inputs is a int, expected what a processor returns", 3),
    (TypeError, "inputs has 'question', expected input_ids", {"input_ids": [[2, 3]], "question": 1}),
    (ValueError, "exactly one of input_ids or inputs_embeds", {"labels": [[1, 2]]}),
    (ValueError, r"without labels, expected those of a suffix \(processor\(..., suffix=\)\) or labels of your own",
     {"input_ids": [[2, 3]]}),
    (ValueError, "found no label in any row", {"input_ids": [[2, 3]], "labels": [[5, -100]]}),
    (ValueError, "row 1: the label of token 1 is 5000", {"input_ids": [[2, 3]] * 2, "labels": [[5, 6], [5, 5000]]}),
])
def test_what_a_step_refuses(model, error, words, inputs):
    with Trainer(model, **SMALL) as trainer:
        before = values(trainer)
        for call in (trainer.step, trainer.evaluate):
            with pytest.raises(error, match=words):
                call(inputs)
        assert values(trainer) == before and trainer.global_step == 0


def test_a_loss_that_is_not_finite(model, batches, rows, tmp_path):
    with Trainer(model, r=4, learning_rate=1e30, max_grad_norm=0) as trainer:
        trainer.step(batches[0])
        with pytest.raises(FloatingPointError, match="a smaller learning rate may help"):
            trainer.train(rows, batch_size=2, output_dir=tmp_path / "out")
        assert trainer.global_step == 1 and not (tmp_path / "out").exists()


def test_an_error_drops_what_was_accumulated(model, batches):
    with Trainer(model, **SMALL, gradient_accumulation_steps=2) as trainer:
        trainer.step(batches[0])
        with pytest.raises(ValueError):
            trainer.step({"input_ids": [[2, 3]]})
        assert [trainer.step(batches[0]).updated for _ in range(2)] == [False, True]


def test_other_models(folder, model):
    for other in (folder, None, 3):
        with pytest.raises(TypeError, match="expected what PaliGemmaForConditionalGeneration.from_pretrained"):
            Trainer(other)
    fake = object.__new__(paligemma.ColPaliForRetrieval)
    with pytest.raises(NotImplementedError, match="ColPaliForRetrieval"):
        Trainer(fake)


def test_closing(folder, batches):
    model = Model.from_pretrained(folder)
    trainer = Trainer(model, **SMALL)
    model.close()  # the trainer keeps what it needs
    assert trainer.step(batches[0]).step == 1
    parameters = trainer.parameters()
    trainer.close()
    trainer.close()
    assert trainer.closed
    for call in (trainer.parameters, lambda: trainer.step(batches[0]), lambda: trainer.evaluate(batches[0]),
                 lambda: trainer.save_pretrained("nowhere"), trainer.__enter__):
        with pytest.raises(ValueError, match="the trainer is closed"):
            call()
    assert not os.path.exists("nowhere")
    assert all(np.isfinite(parameter.value).all() for parameter in parameters.values())
    with pytest.raises(ValueError, match="closed"):
        Trainer(model, **SMALL)


def test_what_is_freed(model, batches):
    """A trainer goes with its last name, without the garbage collector; arrays keep its memory alone."""
    told = []
    trainer = Trainer(model, **SMALL, progress=lambda done, total: told.append(done))
    trainer.step(batches[0])
    array = next(iter(trainer.parameters().values())).value
    handle, gone = trainer._handle, weakref.ref(trainer)
    before = array.copy()
    gc.collect()
    gc.disable()
    try:
        del trainer
        assert gone() is None
        handle.close()
        assert handle._users == 1 and (array == before).all()
        del array
        assert handle._users == 0
    finally:
        gc.enable()


def test_it_is_not_copied(model):
    with Trainer(model, **SMALL) as trainer:
        for call in (pickle.dumps, copy.deepcopy):
            with pytest.raises((TypeError, ValueError)):
                call(trainer)


# --------------------------------------------------------------------------------------------- PEFT and transformers

KINDS = {
    "default": dict(r=4, lora_alpha=8),
    "names": dict(r=4, lora_alpha=8, target_modules=["q_proj", "fc1", "linear"]),
    "regex": dict(r=3, lora_alpha=5, target_modules=r".*language_model.*\.(q_proj|v_proj)", use_rslora=True),
    "all": dict(r=8, lora_alpha=16, target_modules="all-linear"),
    "whole": dict(r=4, lora_alpha=8, target_modules=["q_proj"], modules_to_save=["multi_modal_projector", "norm"]),
}
TOLERANCE = 2e-4  # of a loss near 3, in f32 on both sides, after six updates


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_the_steps_are_pefts(hf, folder, model, processor, rows, tmp_path, kind):
    """The same start, then losses, norms and rates of AdamW, clipping and the linear schedule."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    peft = pytest.importorskip("peft", reason="peft is not installed")
    batches = [batch_of(processor, rows[i:i + 2], "pt") for i in (0, 2, 4)]
    with Trainer(model, **KINDS[kind], learning_rate=2e-3, warmup_steps=2, max_steps=6, weight_decay=0.0,
                 max_grad_norm=0.7) as trainer:
        trainer.save_pretrained(tmp_path)
        base = hf.PaliGemmaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
        theirs = peft.PeftModel.from_pretrained(base, tmp_path, is_trainable=True).train()
        learned = [p for p in theirs.parameters() if p.requires_grad]
        assert sum(p.numel() for p in learned) == sum(p.value.size for p in trainer.parameters().values())
        optimizer = torch.optim.AdamW(learned, lr=2e-3, weight_decay=0.0)
        schedule = hf.get_linear_schedule_with_warmup(optimizer, 2, 6)
        for i in range(6):
            loss = theirs(**batches[i % 3]).loss
            optimizer.zero_grad()
            loss.backward()
            norm = float(torch.nn.utils.clip_grad_norm_(learned, 0.7))
            rate = schedule.get_last_lr()[0]
            optimizer.step()
            schedule.step()
            found = trainer.step(batches[i % 3])
            assert abs(found.loss - float(loss)) < TOLERANCE and abs(found.grad_norm - norm) < 2e-3 * norm
            assert found.learning_rate == rate


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "default"])
def test_the_choice_of_modules_is_pefts(hf, folder, model, tmp_path, kind):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    peft = pytest.importorskip("peft", reason="peft is not installed")
    base = hf.PaliGemmaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    peft.get_peft_model(base, peft.LoraConfig(**KINDS[kind])).save_pretrained(tmp_path)
    with Trainer(model, **KINDS[kind]) as trainer:
        found, expected = trainer.parameters(), read(tmp_path / "adapter_model.safetensors")
        assert {name: p.value.shape for name, p in found.items()} == {name: v.shape for name, v in expected.items()}
