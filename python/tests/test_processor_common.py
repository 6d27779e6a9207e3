# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""The kinds of checks that transformers applies to the processors of all its models (tests/test_processing_common.py):
defaults of the parts and what goes before them, saving, parity of the parts with the whole, names of inputs.
"""
import json

import numpy as np
import pytest

import paligemma

PROMPT = "lower newer"


def opened(folder, **keywords):
    return paligemma.AutoProcessor.from_pretrained(folder, **keywords)


def of_parts(folder, tokenizer=(), **image_settings):
    """A processor of a tokenizer and an image processor, each with keywords of its own."""
    return paligemma.PaliGemmaProcessor(
        image_processor=paligemma.AutoImageProcessor.from_pretrained(folder, **image_settings),
        tokenizer=opened(folder, **dict(tokenizer)).tokenizer)


@pytest.fixture
def image(pixels):
    return pixels


# -- what goes before what: a keyword, a keyword in its group, the part's own value

def test_defaults_of_the_tokenizer_are_kept(folder, image):
    processor = of_parts(folder, dict(max_length=117, padding="max_length"))
    assert processor(image, PROMPT, return_tensors="np")["input_ids"].shape == (1, 117)
    assert opened(folder, max_length=117, padding="max_length")(image, PROMPT, return_tensors="np")[
        "input_ids"].shape == (1, 117)


def test_keywords_go_before_defaults_of_the_tokenizer(folder, image):
    processor = of_parts(folder, dict(padding="longest"))
    made = processor(image, PROMPT, return_tensors="np", max_length=112, padding="max_length")
    assert made["input_ids"].shape == (1, 112)
    assert processor([image, image], [PROMPT, "a"], return_tensors="np")["input_ids"].shape[0] == 2


@pytest.mark.parametrize("factor", [-1, -1.0])
def test_defaults_of_the_image_processor_are_kept(folder, image, factor):
    for processor in (of_parts(folder, do_rescale=True, rescale_factor=factor),
                      opened(folder, do_rescale=True, rescale_factor=factor)):
        assert processor(image, PROMPT, return_tensors="np")["pixel_values"].mean() <= 0


@pytest.mark.parametrize("keywords", [
    dict(do_rescale=True, rescale_factor=-1), dict(images_kwargs={"do_rescale": True, "rescale_factor": -1}),
    dict(common_kwargs={"rescale_factor": -1})])
def test_keywords_go_before_defaults_of_the_image_processor(folder, image, keywords):
    processor = of_parts(folder, do_rescale=True, rescale_factor=1)
    assert processor(image, PROMPT, return_tensors="np", **keywords)["pixel_values"].mean() <= 0
    assert processor(image, PROMPT, return_tensors="np")["pixel_values"].mean() > 0


@pytest.mark.parametrize("keywords", [
    dict(return_tensors="np", rescale_factor=-1, padding="max_length", max_length=90),
    dict(common_kwargs={"return_tensors": "np"}, images_kwargs={"do_rescale": True, "rescale_factor": -1},
         text_kwargs={"padding": "max_length", "max_length": 90})])
def test_keywords_plain_and_nested(folder, image, keywords):
    made = opened(folder)(images=image, text=PROMPT, **keywords)
    assert made["pixel_values"].mean() <= 0 and made["input_ids"].shape == (1, 90)


def test_rows_of_a_batch_are_padded(folder, image):
    made = opened(folder)(images=[image, image], text=[PROMPT, "a"], padding="longest", max_length=120, rescale_factor=-1)
    first, second = map(len, made["input_ids"])
    assert first == second < 120


@pytest.mark.parametrize("keywords", [
    dict(images_kwargs={"do_rescale": True}, do_rescale=True), dict(text_kwargs={"padding": "max_length"}, padding=True),
    dict(text_kwargs={"padding": "longest"}, padding=False), dict(images_kwargs={"size": [4, 4]}, size=[4, 4])])
def test_keywords_given_twice(folder, image, keywords):
    with pytest.raises(ValueError, match="two times"):
        opened(folder)(images=image, text=PROMPT, **keywords)


# -- files

def test_settings_stay_as_they_were_given(folder, tmp_path):
    processor = opened(folder, do_normalize=False, padding_side="right")
    processor.save_pretrained(tmp_path)
    again = opened(tmp_path)
    assert again.to_dict() == processor.to_dict() and again.image_processor.do_normalize is False
    assert again.tokenizer.padding_side == "right"
    assert again.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    assert opened(tmp_path, do_normalize=True, padding_side="left").image_processor.do_normalize is True


def test_json(folder, tmp_path):
    processor = opened(folder)
    values = json.loads(processor.to_json_string())
    assert values == json.loads(json.dumps(processor.to_dict())) and values["processor_class"] == "PaliGemmaProcessor"
    assert set(values) == {"image_processor", "processor_class"}  # the tokenizer has files of its own
    processor.to_json_file(tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_text()) == values and processor.to_json_string() in repr(processor)


# -- the parts and the whole

def test_the_parts_give_what_the_whole_gives(folder, image):
    processor = opened(folder)
    made = processor(images=image, text=PROMPT, return_tensors="np")
    assert np.array_equal(processor.image_processor(image, return_tensors="np")["pixel_values"], made["pixel_values"])
    bare = processor.tokenizer(PROMPT + "\n")["input_ids"]
    n = processor.image_seq_length
    assert made["input_ids"][0].tolist() == [processor.image_token_id] * n + [processor.tokenizer.bos_token_id] + bare
    rows = [[1, 4, 5, 8, 1, 0, 8], [3, 4, 3, 1, 1, 8, 9]]
    assert processor.batch_decode(rows) == processor.tokenizer.batch_decode(rows)
    assert processor.decode(rows[0]) == processor.tokenizer.decode(rows[0])
    assert processor.post_process_image_text_to_text(rows) == processor.batch_decode(rows, skip_special_tokens=True)


def test_names_of_inputs(folder, image):
    processor = opened(folder)
    assert set(processor(images=image, text=PROMPT)) == set(processor.model_input_names)
    assert list(processor(images=image)) == processor.image_processor.model_input_names
    for wrong in ({}, {"text": PROMPT}):
        with pytest.raises(ValueError):
            processor(**wrong)


def test_numbers_of_tokens_match_a_call(folder, image):
    processor = opened(folder)
    sizes = [(100, 100), (300, 100), (500, 30)]
    numbers = processor._get_num_multimodal_tokens(image_sizes=sizes)
    made = processor(images=[np.resize(image, (*size, 3)) for size in sizes], text=["<image>"] * 3, padding=True,
                     return_mm_token_type_ids=True, return_tensors="np")
    assert numbers.num_image_tokens == made["mm_token_type_ids"].sum(-1).tolist() and "num_image_tokens" in numbers
    assert len(numbers["num_image_patches"]) == 3 and "num_video_tokens" not in numbers
    with pytest.raises(KeyError):
        numbers["num_video_tokens"]


def test_chat_templates_are_refused(folder):
    processor = opened(folder)
    assert processor.chat_template is None
    with pytest.raises(ValueError, match="does not have a chat template"):
        processor.apply_chat_template([{"role": "user", "content": "x"}])
