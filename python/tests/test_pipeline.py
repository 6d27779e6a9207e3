# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""pipeline("image-text-to-text"): what transformers 5.23 returned, recorded, and beside transformers where it is."""
import pytest

import paligemma

TEXT, SECOND = "<image>caption en", "<image>detect red circle"
CAPTION = "a red circle, a purple star and a yellow triangle"
FOUND = "<loc0073><loc0000><loc0365><loc0292> red circle"
ONE = [{"input_text": TEXT, "generated_text": TEXT + CAPTION}]
TWO = ONE + [{"input_text": SECOND, "generated_text": SECOND + FOUND}]


def record(text, generated):
    return [{"input_text": text, "generated_text": generated}]


@pytest.fixture(scope="module")
def file(image_path):
    return str(image_path)


@pytest.fixture(scope="module")
def pipe(folder):
    return paligemma.pipeline("image-text-to-text", model=folder)


def calls(f):
    """{name: (positional, keywords, transformers' result)}"""
    return {
        "one": ((), dict(images=f, text=TEXT), ONE),
        "positional": ((f, TEXT), {}, ONE),
        "a list of one": ((), dict(images=[f], text=[TEXT]), ONE),
        "two": ((), dict(images=[f, f], text=[TEXT, SECOND]), TWO),
        "nested": ((), dict(images=[[f], [f]], text=[TEXT, SECOND], batch_size=2), TWO),
        "two images": ((), dict(images=[f, f], text="<image>" + TEXT),
                       record("<image>" + TEXT, "<image>" + TEXT + CAPTION)),
        "without <image>": ((), dict(images=f, text="caption en"), record("caption en", "caption en" + CAPTION)),
        "the new text": ((), dict(images=f, text=TEXT, return_full_text=False), record(TEXT, CAPTION)),
        "the whole text": ((), dict(images=f, text=TEXT, return_full_text=True), ONE),
        "a dictionary": (({"images": f, "text": TEXT},), {}, ONE),
        "special tokens": ((), dict(images=f, text=TEXT, skip_special_tokens=False),
                           record(TEXT, TEXT + CAPTION + "<eos>")),
        "a stop": ((), dict(images=f, text=TEXT, stop_sequence=" circle"), record(TEXT, TEXT + "a red circle")),
        "short": ((), dict(images=f, text=TEXT, max_new_tokens=3), record(TEXT, TEXT + "a red circle")),
        "max_length": ((), dict(images=f, text=TEXT, generate_kwargs={"max_length": 70}), record(TEXT, TEXT + "a red")),
        "a processor in generate_kwargs": (
            (), dict(images=f, text=TEXT, generate_kwargs={"suppress_tokens": [517], "max_new_tokens": 4}), None),
    }


NAMES = list(calls(""))


@pytest.mark.parametrize("name", NAMES)
def test_as_transformers(pipe, file, name):
    positional, keywords, expected = calls(file)[name]
    assert expected is None or pipe(*positional, **keywords) == expected


def test_ids(pipe, file):
    torch = pytest.importorskip("torch")
    (found,) = pipe(images=file, text=TEXT, return_tensors=True, max_new_tokens=3)
    assert found["input_text"] == TEXT and found["generated_token_ids"][-4:].tolist() == [5, 517, 423, 397]
    assert torch.is_tensor(found["generated_token_ids"])


def test_iterables_and_images(pipe, file, image_path, pixels):
    each = {"images": file, "text": TEXT}
    assert pipe([each, each]) == pipe(each for _ in range(2)) == [ONE, ONE]
    assert pipe(images=image_path, text=TEXT) == pipe(images=image_path.read_bytes(), text=TEXT) == ONE
    assert len(pipe(images=pixels, text=TEXT, max_new_tokens=2)) == 1
    assert pipe(images=file, text=TEXT, padding="max_length", max_length=90) == ONE


def test_several_sequences(pipe, file):
    settings = {"do_sample": True, "num_return_sequences": 2, "seed": 3, "temperature": 9.0, "top_k": 0}
    found = pipe(images=[file, file], text=[TEXT, SECOND], max_new_tokens=5, generate_kwargs=settings)
    assert [each["input_text"] for each in found] == [TEXT, TEXT, SECOND, SECOND]
    assert found[0]["generated_text"] != found[1]["generated_text"]


def test_what_is_wrong(pipe, file, folder):
    for error, words, call in [
        (ValueError, "either text or images", lambda: pipe()),
        (ValueError, "must provide text", lambda: pipe(file)),
        (ValueError, "defined twice", lambda: pipe(file, TEXT, max_new_tokens=3, generate_kwargs={"max_new_tokens": 4})),
        (ValueError, "mutually exclusive", lambda: pipe(file, TEXT, return_full_text=True, return_tensors=True)),
        (ValueError, "chat template", lambda: pipe(text=[{"role": "user", "content": "x"}])),
        (ValueError, "expected .image-text-to-text", lambda: paligemma.pipeline("text-generation", model=folder)),
        (ValueError, "model is None", lambda: paligemma.pipeline("image-text-to-text")),
        (ValueError, "CPU", lambda: paligemma.pipeline("image-text-to-text", model=folder, device="cuda")),
        (ValueError, "CPU", lambda: paligemma.pipeline("image-text-to-text", model=folder, device=0)),
    ]:
        with pytest.raises(error, match=words):
            call()


def test_opened_in_other_ways(model, processor, folder, file):
    for opened in (paligemma.pipeline(model=folder, max_new_tokens=3, device=-1, dtype="bfloat16", n_threads=1),
                   paligemma.pipeline("image-to-text", model=model, processor=processor, max_new_tokens=3),
                   paligemma.pipeline("image-text-to-text", model=model, processor=folder, device="cpu",
                                      max_new_tokens=3)):
        assert opened(file, TEXT) == record(TEXT, TEXT + "a red circle")
        assert opened(file, TEXT, max_new_tokens=2) == record(TEXT, TEXT + "a red")
    assert opened.model is model and opened.task == "image-text-to-text" and str(opened.device) == "cpu"


def test_the_models_own_length(folder, file):
    own = paligemma.pipeline(model=folder)
    own.model.generation_config.max_new_tokens = 3
    assert own(file, TEXT) == record(TEXT, TEXT + "a red circle")
    assert own(file, TEXT, max_new_tokens=40) == ONE


@pytest.mark.parametrize("name", NAMES)
def test_beside_transformers(hf, folder, pipe, file, name):
    import torch

    theirs = hf.pipeline("image-text-to-text", model=folder, dtype=torch.float32)
    positional, keywords, expected = calls(file)[name]
    found = theirs(*positional, **keywords)
    positional, keywords, _ = calls(file)[name]
    assert pipe(*positional, **keywords) == found and expected in (None, found)


def test_our_objects_in_their_pipeline(hf, model, processor, file):
    theirs = hf.pipeline("image-text-to-text", model=model, processor=processor)
    assert theirs(images=file, text=TEXT) == ONE
    assert theirs(images=[file, file], text=[TEXT, SECOND]) == TWO
    assert theirs(images=file, text=TEXT, return_full_text=False, max_new_tokens=3) == record(TEXT, "a red circle")
