# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""The tokenizer by itself: calls, attributes, saving, copies. Expected values are those of transformers 5.23.

tokenizer_calls.json is written by tests/oracle/tokenizer_live.py --write.
"""
import copy
import json
import pathlib
import pickle
import warnings

import numpy as np
import pytest
import tokenizer_cases as cases

import paligemma

RECORDED = json.loads((pathlib.Path(__file__).parent / "tokenizer_calls.json").read_text())


@pytest.fixture(scope="module")
def tokenizer(folder):
    return paligemma.AutoTokenizer.from_pretrained(folder)


def check(tokenizer, pairs, without=()):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for call, expected in pairs:
            if call.get("get") not in without:
                found = cases.outcome(tokenizer, call)
                assert cases.same(found, expected), f"{call}\nfound    {found}\nexpected {expected}"


@pytest.mark.parametrize("kind", cases.KINDS)
def test_recorded_calls(tmp_path, kind):
    keywords = cases.make(tmp_path / "made", kind)
    tokenizer = paligemma.AutoTokenizer.from_pretrained(tmp_path / "made", **keywords)
    assert len(RECORDED[kind]) > 50
    check(tokenizer, RECORDED[kind])
    for other in (copy.deepcopy(tokenizer), pickle.loads(pickle.dumps(tokenizer))):
        check(other, RECORDED[kind][:60])
    # with the files that it saves, the keywords are not needed any more; a template says nothing of add_bos_token
    paths = tokenizer.save_pretrained(tmp_path / "saved")
    assert paths[0] == str(tmp_path / "saved" / "tokenizer_config.json") and all(pathlib.Path(p).exists() for p in paths)
    check(paligemma.AutoTokenizer.from_pretrained(tmp_path / "saved"), RECORDED[kind], ("add_bos_token", "add_eos_token"))


def test_saving_over_its_own_files(tmp_path):
    cases.make(tmp_path, "demo")
    tokenizer = paligemma.AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.padding_side = "right"
    tokenizer.add_bos_token = True
    before = tokenizer(["a red dog", "a"], padding=True)
    tokenizer.save_pretrained(tmp_path)
    assert paligemma.AutoTokenizer.from_pretrained(tmp_path)(["a red dog", "a"], padding=True) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tokenizer.json", "tokenizer.model", "tokenizer_config.json"]
    with pytest.raises(NotADirectoryError, match="should be a directory"):
        tokenizer.save_pretrained(tmp_path / "tokenizer.json")
    with pytest.raises(NotImplementedError, match="upload_folder"):
        tokenizer.save_pretrained(tmp_path, push_to_hub=True)


def test_tokenizer_of_a_processor(processor, tokenizer, tmp_path):
    kind = "bos in the template"
    cases.make(tmp_path / "one", kind)
    (tmp_path / "one" / "preprocessor_config.json").write_bytes((cases.DEMO / "preprocessor_config.json").read_bytes())
    with paligemma.AutoProcessor.from_pretrained(tmp_path / "one", padding_side="right") as other:
        assert other.tokenizer("a red").input_ids == [517, 423]  # as PaliGemmaProcessor sets it
        assert other.tokenizer.padding_side == "right" and other.tokenizer.vocab_size == 1762
        other.tokenizer.save_pretrained(tmp_path / "two")
    saved = paligemma.AutoTokenizer.from_pretrained(tmp_path / "two")
    assert saved("a red").input_ids == [517, 423] and saved.padding_side == "right"
    assert paligemma.AutoTokenizer.from_pretrained(tmp_path / "one")("a red").input_ids == [2, 517, 423]
    for name, value in (("add_bos_token", True), ("bos_token", "<eos>"), ("eos_token_id", 0)):
        with pytest.raises(NotImplementedError, match=name.removesuffix("_id")):
            setattr(processor.tokenizer, name, value)
    assert processor.tokenizer.image_token == "<image>" and processor.tokenizer.extra_special_tokens == ["<image>"]


@pytest.mark.parametrize("kind", ["golden partial", "golden older", "golden spm", "model and config"])
def test_tokens_of_the_processor_are_saved(tmp_path, kind):
    """Files that do not add <image> or <loc0000>, or under other ids: PaliGemmaProcessor adds them, and saves them."""
    cases.make(tmp_path / "one", kind)
    (tmp_path / "one" / "preprocessor_config.json").write_bytes((cases.DEMO / "preprocessor_config.json").read_bytes())
    alone = paligemma.AutoTokenizer.from_pretrained(tmp_path / "one")
    with paligemma.AutoProcessor.from_pretrained(tmp_path / "one") as processor:
        ours = processor.tokenizer
        assert len(ours.added_tokens_decoder) > len(alone.added_tokens_decoder) and ours.vocab_size == alone.vocab_size
        ours.save_pretrained(tmp_path / "two")
        saved = paligemma.AutoTokenizer.from_pretrained(tmp_path / "two")
        assert saved.get_vocab() == ours.get_vocab() and saved.get_added_vocab() == ours.get_added_vocab()
        assert saved("<image><loc0000> a") == ours("<image><loc0000> a")


def test_the_processor_follows_its_tokenizer(folder, pixels):
    with paligemma.AutoProcessor.from_pretrained(folder, model_max_length=70) as processor:
        assert len(processor(pixels, "a red dog in a blue circle", truncation=True)["input_ids"][0]) == 70
        rows = dict(images=[pixels, pixels], text=["a", "a red dog"], padding=True, return_tensors="np")
        processor.tokenizer.pad_token = "<eos>"
        batch = processor(**rows)
        assert (batch.input_ids[batch.attention_mask == 0] == 1).all() and (batch.attention_mask == 0).any()
        assert pickle.loads(pickle.dumps(processor))(**rows).input_ids.tolist() == batch.input_ids.tolist()
        processor.tokenizer.model_max_length = 10 ** 30
        assert len(processor(pixels, "a red dog in a blue circle", truncation=True)["input_ids"][0]) > 70
        processor.tokenizer.pad_token = None
        with pytest.raises(ValueError, match="does not have a padding token"):
            processor(**rows)


def test_encoding_is_a_dictionary_with_attributes(tokenizer):
    encoding = tokenizer(["a red", "b"], padding=True, return_tensors="np")
    assert list(encoding) == ["input_ids", "attention_mask"] == list({**encoding})
    assert encoding.input_ids is encoding["input_ids"] and encoding.input_ids.dtype == np.int64
    assert encoding.is_fast and encoding.n_sequences == 1
    assert encoding.tokens(0) == ["a", "▁red"] and encoding[0].ids == [517, 423]
    assert encoding.token_to_chars(0, 1) == (1, 5) and encoding.char_to_token(0, 2) == 1
    assert encoding.word_to_tokens(0, 0) == (0, 2) and encoding.token_to_word(1, -1) == 0
    other = pickle.loads(pickle.dumps(encoding))
    assert (other.input_ids == encoding.input_ids).all() and other.tokens(1) == ["<pad>", "b"]
    with pytest.raises(AttributeError, match="labels.*input_ids"):
        encoding.labels
    with pytest.raises(ValueError, match="nonsense is not a valid TensorType"):
        encoding.convert_to_tensors("nonsense")
    assert tokenizer("a red").convert_to_tensors("np", prepend_batch_axis=True).input_ids.tolist() == [[517, 423]]


def test_torch_tensors(tokenizer):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    encoding = tokenizer(["a red", "b"], padding=True, return_tensors="pt").to("cpu")
    assert encoding.input_ids.dtype == torch.int64 and encoding.input_ids.tolist() == [[517, 423], [0, 533]]
    assert tokenizer("", return_tensors="pt").input_ids.shape == (1, 0)
    with pytest.raises(ValueError, match="padding=True"):
        tokenizer(["a red", "b"], return_tensors="pt")
    padded = tokenizer.pad({"input_ids": [torch.tensor([5, 6]), torch.tensor([7])]})
    assert padded.input_ids.tolist() == [[5, 6], [0, 7]] and padded.attention_mask.dtype == torch.int64
    assert tokenizer.batch_decode(padded.input_ids, skip_special_tokens=True) == tokenizer.batch_decode([[5, 6], [7]])


@pytest.mark.parametrize("call, words", [
    (lambda t: t("a", stride=2), "cut the windows out"),
    (lambda t: t("a", return_overflowing_tokens=True), "cut the windows out"),
    (lambda t: t.add_tokens(["<new>"]), "resize_token_embeddings"),
    (lambda t: t.add_tokens("<image>"), "special in the files"),
    (lambda t: t.add_special_tokens({"extra_special_tokens": ["<new>"]}), "resize_token_embeddings"),
    (lambda t: t.push_to_hub("me/mine"), "save_pretrained"),
    (lambda t: t.get_special_tokens_mask([5]), "already_has_special_tokens"),
    (lambda t: setattr(t, "chat_template", "{{ x }}"), "chat_template cannot be set"),
    (lambda t: setattr(t, "post_processor", None), "post_processor cannot be set"),
])
def test_what_is_refused_says_what_to_do(tokenizer, call, words):
    with pytest.raises(NotImplementedError, match=words):
        call(tokenizer)


def test_wrong_values(tokenizer, folder):
    for name, value in (("padding_side", "up"), ("truncation_side", None), ("model_max_length", "long"),
                        ("pad_token", 3), ("extra_special_tokens", "<image>")):
        with pytest.raises(ValueError, match=name):
            setattr(tokenizer, name, value)
    for name in ("vocab_size", "is_fast", "all_special_ids"):
        with pytest.raises(AttributeError):
            setattr(tokenizer, name, 1)
    with pytest.raises(AttributeError, match="tokenizers.Tokenizer"):
        tokenizer.backend_tokenizer
    assert not hasattr(tokenizer, "backend_tokenizer") and not hasattr(tokenizer, "nonsense")
    with pytest.raises(ValueError, match="max_length is 1, expected at least 2"):
        paligemma.AutoTokenizer.from_pretrained(folder, add_bos_token=True, add_eos_token=True)("a", max_length=1)
    with pytest.raises(ValueError, match="chat template functions"):
        tokenizer.apply_chat_template([])


def test_tokens_that_are_there_may_be_added(tokenizer):
    assert tokenizer.add_tokens(["<loc0001>", "<seg007>"]) == 0
    one = copy.deepcopy(tokenizer)
    assert one.add_special_tokens({"pad_token": "<eos>", "additional_special_tokens": ["<image>"]}) == 0
    assert one.pad_token_id == 1 and one.extra_special_tokens == ["<image>"] and tokenizer.pad_token_id == 0
    assert one(["a", "a b"], padding=True).input_ids[0] == [1, 517]
    assert str(one.added_tokens_decoder[1762]) == "<image>" and one.added_tokens_decoder[1762].special
    assert repr(one.added_tokens_decoder[0]) == ('AddedToken("<pad>", rstrip=False, lstrip=False, single_word=False, '
                                                 'normalized=False, special=True)')


def test_keywords_of_from_pretrained(folder):
    tokenizer = paligemma.AutoTokenizer.from_pretrained(
        folder, use_fast=True, legacy=False, trust_remote_code=True, padding_side="right", add_eos_token=True)
    assert tokenizer(["a", "a b"], padding=True).input_ids == [[517, 1, 0], [517, 512, 1]]
    with pytest.raises(NotImplementedError, match="<new>"):
        paligemma.AutoTokenizer.from_pretrained(folder, pad_token="<new>")
    with pytest.raises(ValueError, match="nonsense"):
        paligemma.AutoTokenizer.from_pretrained(folder, nonsense=1)
    with pytest.raises(ValueError, match="padding_side"):
        paligemma.AutoTokenizer.from_pretrained(folder, padding_side="up")


def test_classes_by_name(tmp_path):
    """What transformers' classes of these names make of a tokenizer.json alone."""
    cases.make(tmp_path, "json alone")
    gemma = paligemma.GemmaTokenizer.from_pretrained(tmp_path)
    fast = paligemma.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert (gemma.padding_side, gemma.mask_token, gemma.pad_token_id) == ("left", "<mask>", 0)
    assert (fast.padding_side, fast.special_tokens_map) == ("right", {})
    assert paligemma.GemmaTokenizerFast is paligemma.GemmaTokenizer


def test_an_id_in_the_cache(tmp_path):
    cases.make(tmp_path / "models--me--mine" / "snapshots" / "abc", "bos in the template")
    (tmp_path / "models--me--mine" / "refs").mkdir()
    (tmp_path / "models--me--mine" / "refs" / "main").write_text("abc")
    tokenizer = paligemma.AutoTokenizer.from_pretrained("me/mine", cache_dir=tmp_path)
    assert tokenizer.name_or_path == "me/mine" and tokenizer("a red").input_ids == [2, 517, 423]


def test_copies_after_a_change_of_folder(tmp_path, monkeypatch):
    cases.make(tmp_path / "here", "demo")
    monkeypatch.chdir(tmp_path)
    tokenizer = paligemma.AutoTokenizer.from_pretrained("here")
    monkeypatch.chdir("/")
    assert pickle.loads(pickle.dumps(tokenizer))("a red") == tokenizer("a red")
