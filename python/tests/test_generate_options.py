# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""generate() with settings: the results of transformers 5.23 on the demo model, recorded by
tests/oracle/generate_options.py, so that neither transformers nor torch is needed."""
import json
import pathlib
import shutil
import threading

import numpy as np
import pytest
from generate_cases import CASES, DICT, arguments, inputs_of, objects

import paligemma

EXPECTED = json.loads((pathlib.Path(__file__).parent / "expected" / "generate_options.json").read_text())


@pytest.fixture(scope="module")
def one(processor):
    return inputs_of(processor, 1)


@pytest.fixture(scope="module")
def three(processor):
    return inputs_of(processor, 3)


@pytest.fixture
def own(folder):
    """A model whose generation_config a test may change."""
    with paligemma.PaliGemmaForConditionalGeneration.from_pretrained(folder) as model:
        yield model


def finite(values):
    return np.where(np.isneginf(values), -1e30, values)


@pytest.mark.parametrize("name", CASES)
def test_as_transformers(model, processor, name):
    case, expected = CASES[name], EXPECTED[name]
    inputs = inputs_of(processor, case["rows"])
    width = inputs["input_ids"].shape[1]
    output = model.generate(**inputs, **arguments(case, processor, objects("np")))
    if "keys" not in expected:
        assert isinstance(output, np.ndarray) and output[:, width:].tolist() == expected["new"]
        return
    kind = paligemma.GenerateBeamDecoderOnlyOutput if "beam_indices" in expected else paligemma.GenerateDecoderOnlyOutput
    indices = getattr(output, "beam_indices", None)
    assert isinstance(output, kind) and list(output) == expected["keys"]
    if indices is not None:
        assert indices.dtype == np.int32 and indices.tolist() == expected["beam_indices"]
        if output.sequences_scores is not None:
            assert np.allclose(output.sequences_scores, expected["sequences_scores"], atol=2e-3)
    assert "drawn" in case or output.sequences[:, width:].tolist() == expected["new"]
    for kind in ("scores", "logits"):
        steps = getattr(output, kind)
        if kind not in expected:
            assert steps is None
            continue
        assert isinstance(steps, tuple) and all(step.dtype == np.float32 for step in steps)
        values = np.stack(steps)
        assert list(values.shape) == expected[kind]["shape"] and np.isneginf(values).sum() == expected[kind]["n_out"]
        assert np.allclose(finite(values).max(-1), expected[kind]["top"], atol=2e-3)
        assert np.allclose(finite(values)[:, :, :4], expected[kind]["first"], atol=2e-3)
    if output.scores is not None and "drawn" not in case:
        for normalized in (False, True):
            scores = model.compute_transition_scores(output.sequences, output.scores, indices, normalize_logits=normalized)
            assert np.allclose(finite(scores), expected[f"transition_{normalized}"], atol=2e-3)


@pytest.mark.parametrize("name", ["eos ids", "no eos", "stop string", "no time", "criterion", "processor", "prefix"])
def test_text_as_it_comes(model, processor, one, name):
    """stream() ends where generate() ends."""
    settings = arguments(CASES[name], processor, objects("np"))
    text = processor.decode(EXPECTED[name]["new"][0], skip_special_tokens=True)
    assert "".join(model.stream(one, processor, **settings)) == text
    pieces = model.stream(one, processor, **settings)
    next(pieces)
    pieces.close()
    assert not [t for t in threading.enumerate() if t.name == "paligemma stream"]


OWN = {"eos_token_id": [1, 421], "max_time": 0.0, "output_scores": True, "min_new_tokens": 14,
       "suppress_tokens": [423, 517, 99999], "bad_words_ids": [[423], [517, 382], [1]], "no_repeat_ngram_size": 1}
SAME = {"eos_token_id": "eos ids", "max_time": "no time", "bad_words_ids": "bad words"}


@pytest.mark.parametrize("name", OWN)
def test_the_models_own_settings_are_followed(own, one, name):
    width = one["input_ids"].shape[1]
    setattr(own.generation_config, name, OWN[name])
    own.generation_config.return_dict_in_generate = name == "output_scores"
    output = own.generate(**one, max_new_tokens=16)
    if name == "output_scores":
        assert len(output.scores) == output.sequences.shape[1] - width
        assert isinstance(own.generate(**one, max_new_tokens=16, return_dict_in_generate=False), np.ndarray)
    else:
        assert output[:, width:].tolist() == EXPECTED[SAME.get(name, name)]["new"]
    setattr(own.generation_config, name, None)
    assert own.generate(**one, max_new_tokens=16, return_dict_in_generate=False, eos_token_id=1)[:, width:].tolist() \
        == EXPECTED["plain"]["new"]


def test_a_keyword_wins(own, one):
    width = one["input_ids"].shape[1]
    own.generation_config.eos_token_id = [1, 421]
    assert own.generate(**one, max_new_tokens=16, eos_token_id=None)[:, width:].tolist() == EXPECTED["no eos"]["new"]
    given = paligemma.GenerationConfig(max_new_tokens=16, eos_token_id=412)
    assert own.generate(**one, generation_config=given)[:, width:].tolist() == EXPECTED["eos id"]["new"]
    given = paligemma.GenerationConfig(max_new_tokens=16)  # what it does not set is the model's
    assert own.generate(**one, generation_config=given)[:, width:].tolist() == EXPECTED["eos ids"]["new"]


def test_settings_of_the_file_are_followed(folder, one, tmp_path):
    import os

    for name in os.listdir(folder):
        if name != "generation_config.json":
            os.symlink(os.path.join(folder, name), tmp_path / name)
    stored = {"eos_token_id": [1, 421], "max_new_tokens": 16, "return_dict_in_generate": True, "output_scores": True}
    (tmp_path / "generation_config.json").write_text(json.dumps(stored))
    with paligemma.PaliGemmaForConditionalGeneration.from_pretrained(tmp_path) as model:
        output = model.generate(**one)
    assert output.sequences[:, one["input_ids"].shape[1]:].tolist() == EXPECTED["eos ids"]["new"]
    assert len(output.scores) == len(EXPECTED["eos ids"]["new"][0])


@pytest.mark.parametrize("settings, words", [
    (dict(num_beams=0), "num_beams"), (dict(num_beams=2, num_return_sequences=3), "smaller or equal to `num_beams`"),
    (dict(num_beams=65), "num_beams is 65, expected 1 to 64"), (dict(num_beams=2.5), "num_beams"),
    (dict(num_beams=2, length_penalty=float("nan")), "length_penalty"), (dict(early_stopping="soon"), "early_stopping"),
    (dict(num_beams=2, streamer=object()), "streamer"),
    (dict(penalty_alpha=0.6), "contrastive"), (dict(guidance_scale=1.5), "second prompt"),
    (dict(prompt_lookup_num_tokens=3), "one token a step"), (dict(assistant_model=object()), "one model"),
    (dict(**DICT, output_attentions=True), "attentions"), (dict(**DICT, output_hidden_states=True), "sequences"),
    (dict(past_key_values=object()), "cache"), (dict(stop_strings=["x"]), "tokenizer"), (dict(max_time=-1), "max_time"),
    (dict(max_time="1"), "max_time"), (dict(constraints=[1]), "beams"), (dict(max_new_token=3), "max_new_token"),
    (dict(num_return_sequences=2), "Greedy methods"), (dict(repetition_penalty=0.0), "repetition_penalty"),
    (dict(no_repeat_ngram_size=1.5), "no_repeat_ngram_size"), (dict(bad_words_ids=[]), "non-empty list"),
    (dict(bad_words_ids=[5]), "bad_words_ids"), (dict(bad_words_ids=[[99999]]), "bad_words_ids.0. is 99999"),
    (dict(sequence_bias={}), "sequence_bias"), (dict(sequence_bias={(5, 6): "x"}), "sequence_bias"),
    (dict(exponential_decay_length_penalty=(2,)), "start, factor"), (dict(min_new_tokens=2.5), "min_new_tokens"),
    (dict(forced_eos_token_id=99999), "forced_eos_token_id"), (dict(suppress_tokens=list(range(1763))), "leave no id"),
    (dict(do_sample=True, temperature=0.0), "temperature"), (dict(do_sample=True, top_k=-1), "top_k"),
    (dict(do_sample=True, top_h=2.0), "top_h"), (dict(do_sample=True, typical_p=0.0), "typical_p"),
])
def test_what_is_refused_says_what_to_do(model, own, one, settings, words):
    with pytest.raises(ValueError, match=words):
        model.generate(**one, **{"max_new_tokens": 2, **settings})
    name = next(iter(settings.keys() - DICT.keys()))
    if "streamer" in settings or "stopping_criteria" in settings or name in ("max_new_token", "stop_strings", "past_key_values", "assistant_model"):
        return
    for key, value in settings.items():
        setattr(own.generation_config, key, value)
    with pytest.raises(ValueError, match=words):
        own.generate(**one, max_new_tokens=2)


@pytest.mark.parametrize("settings, words", [
    (dict(num_return_sequences=10**6, do_sample=True), "num_return_sequences is 1000000, expected 1 to 1024"),
    (dict(num_return_sequences=10**6, num_beams=2), "num_return_sequences is 1000000, expected 1 to 1024"),
    (dict(num_return_sequences=2**70, do_sample=True), "num_return_sequences is 1180591620717411303424, expected 1 to"),
    (dict(num_return_sequences=-1, do_sample=True), "num_return_sequences is -1, expected 1 or more"),
    (dict(num_beams=10**6), "num_beams is 1000000, expected 1 to 64"),
    (dict(num_beams=2**70), "num_beams is 1180591620717411303424, expected 1 to 64"),
    (dict(num_beams=0), "num_beams is 0, expected an integer of at least 1"),
    (dict(num_beams=-3), "num_beams is -3, expected an integer of at least 1"),
    (dict(max_new_tokens=-1), "`max_new_tokens` must be greater than 0, but is -1"),
    (dict(max_new_tokens=0), "`max_new_tokens` must be greater than 0, but is 0"),
    (dict(max_new_tokens=2**31), "max_new_tokens is 2147483648, expected at most 2147483647"),
    (dict(max_length=2**70), "max_length is 1180591620717411303424, expected at most 2147483647"),
    (dict(max_length=0), "`max_length` is set to 0"),
    (dict(do_sample=True, top_p=float("nan")), "top_p is nan, expected more than 0, at most 1"),
    (dict(do_sample=True, top_p=-1.0), "top_p is -1, expected more than 0, at most 1"),
    (dict(do_sample=True, min_p=2.0), "min_p is 2, expected 0 .off. to 1"),
    (dict(do_sample=True, temperature=-1.0), "temperature is -1, expected 1e-30 to 1e30"),
    (dict(do_sample=True, top_k=2**40), "top_k is 1099511627776, expected at most 2147483647"),
    (dict(min_new_tokens=2**40), "min_new_tokens is 1099511627776, expected at most 2147483647"),
    (dict(forced_bos_token_id=10**9), "forced_bos_token_id is 1000000000, expected"),
    (dict(sequence_bias={(10**9,): 1.0}), "sequence_bias.0. is 1000000000, expected 0 to"),
    (dict(sequence_bias={(5,): float("nan")}), "sequence_bias has NaN, expected numbers"),
    (dict(exponential_decay_length_penalty=(1, 0.0)), "exponential_decay_length_penalty.1. is 0, expected"),
    (dict(pad_token_id=2**70), "pad_token_id is 1180591620717411303424, expected"),
    (dict(use_mtp=True), "use_mtp is True: it takes one token a step"),
    (dict(custom_generate="there"), "custom_generate is 'there': foreign code is not run"),
    (dict(suppress_tokens=list(range(1763))), "all are kept out by suppress_tokens"),
])
def test_numbers_out_of_range_are_named(model, one, settings, words):
    length = {} if settings.keys() & {"max_length", "max_new_tokens"} else {"max_new_tokens": 2}
    with pytest.raises(ValueError, match=words):
        model.generate(**one, **length, **settings)


# Measured with transformers 5.23: no effect, no error.
@pytest.mark.parametrize("settings", [
    dict(do_sample=True, top_k=1, top_p=2.0), dict(top_p=2.0), dict(do_sample=True, top_p=0.0),
    dict(do_sample=True, top_k=1, typical_p=2.0), dict(do_sample=True, top_k=1, epsilon_cutoff=2.0),
    dict(do_sample=True, top_k=1, eta_cutoff=-1.0), dict(no_repeat_ngram_size=-1), dict(min_new_tokens=-1),
    dict(suppress_tokens=[10**9]), dict(suppress_tokens=[-1]), dict(begin_suppress_tokens=[10**9]),
    dict(bad_words_ids=[[]]), dict(output_attentions=True), dict(output_hidden_states=True),
    dict(decoder_start_token_id=3), dict(max_matching_ngram_size=2), dict(num_assistant_tokens=3),
    dict(num_assistant_tokens_schedule="x"), dict(assistant_confidence_threshold=0.5), dict(assistant_lookbehind=3),
    dict(target_lookbehind=3), dict(assistant_ensemble_weight=0.5), dict(speculation_type="x"), dict(max_cache_len=3),
    dict(transformers_version="1"), dict(continuous_batching_config=1), dict(use_mtp=False),
])
def test_what_transformers_ignores_is_ignored(model, one, settings):
    plain = model.generate(**one, max_new_tokens=4)
    assert (model.generate(**one, max_new_tokens=4, **settings) == plain).all()


@pytest.mark.parametrize("settings", [dict(logits_processor=print), dict(stopping_criteria=[3]),
                                      dict(eos_token_id="1"), dict(pad_token_id=0.5), dict(stop_strings=[3]),
                                      dict(max_new_tokens=True), dict(suppress_tokens=517)])
def test_wrong_types(model, processor, one, settings):
    with pytest.raises(TypeError, match=next(iter(settings))):
        model.generate(**one, **{"max_new_tokens": 2, "tokenizer": processor, **settings})


def test_what_callables_raise_comes_back(model, one, three):
    def fails(*arguments):
        raise KeyError("mine")

    for inputs in (one, three):
        for settings in (dict(logits_processor=[fails]), dict(stopping_criteria=[fails]),
                         dict(prefix_allowed_tokens_fn=fails)):
            with pytest.raises(KeyError, match="mine"):
                model.generate(**inputs, max_new_tokens=4, **settings)
    with pytest.raises(ValueError, match="empty list for batch ID 0"):
        model.generate(**one, max_new_tokens=4, prefix_allowed_tokens_fn=lambda row, ids: [])
    with pytest.raises(ValueError, match="returned scores of the shape"):
        model.generate(**one, max_new_tokens=4, logits_processor=[lambda ids, scores: scores[0]])
    assert model.generate(**one, max_new_tokens=4).shape[1] == one["input_ids"].shape[1] + 4  # it is as it was


HOT = dict(do_sample=True, temperature=8.0, top_k=0, eos_token_id=None, max_new_tokens=8)


def test_draws_follow_the_seed(model, one, three):
    width = one["input_ids"].shape[1]
    first = model.generate(**one, **HOT, seed=1)[:, width:]
    assert (model.generate(**one, **HOT, seed=1)[:, width:] == first).all()
    assert not (model.generate(**one, **HOT, seed=2)[:, width:] == first).all()
    assert "".join(model.stream(one, **HOT, seed=1)) == "".join(model.stream(one, **HOT, seed=1))
    rows = model.generate(**{name: np.repeat(value, 3, axis=0) for name, value in one.items()}, **HOT, seed=1)
    assert len({tuple(row) for row in rows.tolist()}) == 3 and (rows[0, width:] == first).all()
    by_seed = model.generate(**three, **HOT, seed=7)
    assert (model.generate(**three, **HOT, seed=7, return_dict_in_generate=True, output_scores=True).sequences
            == by_seed).all()


def test_draws_follow_the_seed_of_torch_and_of_numpy(model, one, monkeypatch):
    torch = pytest.importorskip("torch")
    torch.manual_seed(3)
    first = model.generate(**one, **HOT)
    second = model.generate(**one, **HOT)
    torch.manual_seed(3)
    assert (model.generate(**one, **HOT) == first).all() and not (second == first).all()
    monkeypatch.setattr("paligemma._sampling.torch_if_loaded", lambda: None)
    np.random.seed(3)
    first = model.generate(**one, **HOT)
    np.random.seed(3)
    assert (model.generate(**one, **HOT) == first).all()


def test_several_sequences_of_a_row(model, one, three):
    outputs = model.generate(**three, **HOT, seed=5, num_return_sequences=2)
    rows = {name: np.repeat(value, 2, axis=0) for name, value in three.items()}
    assert outputs.shape[0] == 6 and (model.generate(**rows, **HOT, seed=5) == outputs).all()
    without = {name: value for name, value in three.items() if name != "pixel_values"}
    encoded = model.get_image_features(three["pixel_values"])
    for more in (dict(mm_encoder_outputs={"image": encoded}), dict(features=model.encode_image(**three))):
        assert (model.generate(**without, **more, **HOT, seed=5, num_return_sequences=2) == outputs).all()
    single = {name: value for name, value in one.items() if name != "pixel_values"}
    assert (model.generate(**single, features=model.encode_image(**one), **HOT, seed=5, num_return_sequences=2)
            == model.generate(**one, **HOT, seed=5, num_return_sequences=2)).all()


def test_sampling_set_on_the_model(own, one):
    expected = own.generate(**one, **HOT, seed=1)
    for name, value in {**HOT, "seed": 1}.items():
        setattr(own.generation_config, name, value)
    assert (own.generate(**one, eos_token_id=None) == expected).all()
    assert not (own.generate(**one, eos_token_id=None, do_sample=False) == expected).all()


class Streamer:
    def __init__(self):
        self.seen, self.ended = [], 0

    def put(self, ids):
        self.seen.append(ids)

    def end(self):
        self.ended += 1


@pytest.mark.parametrize("name", ["plain", "plain rows", "criterion of rows", "stop string", "processor of rows"])
def test_streamers(model, processor, name):
    """The prompt [B, T], then [B] ids a step, arrays as the inputs are."""
    case, streamer = CASES[name], Streamer()
    inputs = inputs_of(processor, case["rows"])
    model.generate(**inputs, **arguments(case, processor, objects("np")), streamer=streamer)
    assert all(isinstance(ids, np.ndarray) for ids in streamer.seen) and streamer.ended == 1
    assert (streamer.seen[0] == inputs["input_ids"]).all()
    assert np.stack(streamer.seen[1:], axis=1).tolist() == EXPECTED[name]["new"]


def test_a_streamer_that_fails(model, one):
    class Fails(Streamer):
        def put(self, ids):
            super().put(ids)
            if len(self.seen) == 3:
                raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        model.generate(**one, max_new_tokens=8, streamer=Fails())


def test_embeddings_in_place_of_ids(model, one):
    """No prompt ids: processors and criteria see the new ones alone."""
    embeds = model.get_input_embeddings()(one["input_ids"][:, 64:])
    seen = []
    model.generate(inputs_embeds=embeds, max_new_tokens=3, eos_token_id=None,
                   logits_processor=[lambda ids, scores: seen.append(ids.shape) or scores])
    assert seen == [(1, 0), (1, 1), (1, 2)]


@pytest.mark.parametrize("settings", [dict(output_scores=True), dict(output_logits=True), dict(stop_strings=None)])
def test_stop_strings_of_the_folder(folder, processor, three, tmp_path, settings):
    """A batch whose scores are wanted runs twice; the folder's strings end its rows, and None as an argument wins."""
    changed = tmp_path / "changed"
    shutil.copytree(folder, changed)
    (changed / "generation_config.json").write_text('{"eos_token_id": 1, "pad_token_id": 0, "stop_strings": "r"}')
    with paligemma.PaliGemmaForConditionalGeneration.from_pretrained(changed) as own:
        wanted = {} if "stop_strings" in settings else {"stop_strings": ["r"]}
        with paligemma.PaliGemmaForConditionalGeneration.from_pretrained(folder) as plain:
            expected = plain.generate(**three, max_new_tokens=12, tokenizer=processor, **wanted)
        found = own.generate(**three, max_new_tokens=12, tokenizer=processor, **DICT, **settings).sequences
    assert np.array_equal(found, expected)


def test_nothing_but_bos(own):
    assert own.generate(max_new_tokens=3).tolist() == [[2, 1]]  # transformers 5.23: the same
    assert own.generate(bos_token_id=382, max_new_tokens=1)[0, 0] == 382
    own.generation_config.bos_token_id = None
    with pytest.raises(ValueError, match="`bos_token_id` has to be defined"):
        own.generate(max_new_tokens=3)


def test_transition_scores_are_log_probabilities(model, one):
    output = model.generate(**one, max_new_tokens=16, **DICT, output_scores=True)
    scores = model.compute_transition_scores(output.sequences, output.scores, normalize_logits=True)
    logits = model(output.sequences, pixel_values=one["pixel_values"],
                   token_type_ids=np.pad(one["token_type_ids"], ((0, 0), (0, scores.shape[1])),
                                         constant_values=1)).logits[:, :-1].astype(np.float64)
    logits = logits[:, -scores.shape[1]:]
    log_p = logits - logits.max(-1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(-1, keepdims=True))
    new = output.sequences[:, -scores.shape[1]:]
    assert np.allclose(scores, np.take_along_axis(log_p, new[:, :, None], 2)[:, :, 0], atol=1e-4)
    # one continuation is a search with one beam
    beams = np.zeros((1, len(output.scores)), np.int64)
    assert np.array_equal(scores, model.compute_transition_scores(output.sequences, output.scores, beams, True))


def test_what_a_beams_processor_raises_is_raised(model, one):
    def fail(ids, scores):
        assert ids.shape[0] == 1 and ids.shape[1] >= one["input_ids"].shape[1]
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        model.generate(**one, num_beams=2, max_new_tokens=3, logits_processor=[fail])
    with pytest.raises(ValueError, match="unsatisfiable"):
        model.generate(**one, num_beams=2, max_new_tokens=3, prefix_allowed_tokens_fn=lambda row, ids: [])


def test_beams_show_processors_the_padding_too(model, three):
    """As transformers: ids [T + n], with the padding of the batch; three has rows of several lengths."""
    prompts, seen = three["input_ids"], []
    assert len({int((three["attention_mask"][row] == 0).sum()) for row in range(3)}) > 1

    def processor(ids, scores):
        seen.append(ids.copy())
        return scores

    def prefix(row, ids):
        assert np.array_equal(ids[:prompts.shape[1]], prompts[row])
        return range(model.config.text_config.vocab_size)

    expected = model.generate(**three, num_beams=3, max_new_tokens=4)
    found = model.generate(**three, num_beams=3, max_new_tokens=4, logits_processor=[processor], prefix_allowed_tokens_fn=prefix)
    assert np.array_equal(found, expected)
    assert {ids.shape for ids in seen} == {(1, prompts.shape[1] + n) for n in range(4)}
    for row in prompts:
        assert any(np.array_equal(ids[0], row) for ids in seen)


@pytest.mark.parametrize("settings, words", [
    (dict(logits_processor=[lambda ids, scores: scores[:, :5]]), "returned scores of the shape"),
    (dict(prefix_allowed_tokens_fn=lambda row, ids: [-1]), "expected ids of 0 to"),
    (dict(prefix_allowed_tokens_fn=lambda row, ids: [10**6]), "expected ids of 0 to"),
])
@pytest.mark.parametrize("beams", [1, 2])
def test_what_callables_may_return(model, one, settings, words, beams):
    with pytest.raises(ValueError, match=words):
        model.generate(**one, num_beams=beams, max_new_tokens=2, **settings)


def test_beam_sampling_follows_its_seed(model, one):
    def texts(seed):
        return model.generate(**one, num_beams=3, do_sample=True, temperature=5.0, seed=seed, num_return_sequences=3,
                              max_new_tokens=6).tolist()

    assert texts(1) == texts(1) and any(texts(1) != texts(seed) for seed in (2, 3, 4))


def test_tensors_when_the_inputs_are(model, processor, three):
    torch = pytest.importorskip("torch")
    tensors = {name: torch.from_numpy(value) for name, value in three.items()}
    streamer, seen = Streamer(), []
    output = model.generate(**tensors, max_new_tokens=24, **DICT, output_scores=True, output_logits=True,
                            streamer=streamer, stopping_criteria=[lambda ids, scores: seen.append(ids) or False])
    assert output.sequences.dtype == torch.int64 and output.scores[0].dtype == torch.float32
    assert all(torch.is_tensor(value) for value in (*output.scores, *output.logits, *streamer.seen, *seen))
    scores = model.compute_transition_scores(output.sequences, output.scores, normalize_logits=True)
    assert torch.allclose(scores, torch.tensor(EXPECTED["scores and logits of rows"]["transition_True"]), atol=2e-3)


def test_objects_of_transformers(hf, hf_model, model, processor, three):
    """Their criteria, processors and streamers, with tensors and with arrays as inputs."""
    import torch

    tensors = {name: torch.from_numpy(value) for name, value in three.items()}
    width = three["input_ids"].shape[1]

    def settings():
        return dict(max_new_tokens=24,
                    logits_processor=hf.LogitsProcessorList([hf.SuppressTokensLogitsProcessor([423], device="cpu"),
                                                             hf.NoRepeatNGramLogitsProcessor(2)]),
                    stopping_criteria=hf.StoppingCriteriaList([hf.MaxLengthCriteria(width + 9)]))

    expected = hf_model.generate(**tensors, do_sample=False, **settings())
    assert torch.equal(model.generate(**tensors, **settings()), expected)
    assert (model.generate(**three, **settings()) == expected.numpy()).all()
    one = {name: value[:1] for name, value in tensors.items()}
    streamer = hf.TextIteratorStreamer(processor.tokenizer, skip_prompt=True, timeout=10, skip_special_tokens=True)
    model.generate(**one, max_new_tokens=16, streamer=streamer)
    assert "".join(streamer) == processor.decode(EXPECTED["plain"]["new"][0], skip_special_tokens=True)
