# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""The processor with numpy alone: what comes back, in which form, and what is refused."""
import copy
import os
import pickle
import threading

import numpy as np
import pytest

import paligemma
from paligemma import AutoProcessor

P, Q = "caption en", "detect red circle ; blue star"


def test_an_image_by_the_name_of_a_pipe(processor, image_path, tmp_path):
    expected = processor(images=image_path, text="a", return_tensors="np")["pixel_values"]
    with open(image_path, "rb") as file:
        content = file.read()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (fifo, str(fifo)):
        writer = threading.Thread(target=fifo.write_bytes, args=(content,))
        writer.start()
        found = processor(images=path, text="a", return_tensors="np")["pixel_values"]
        writer.join()
        assert (found == expected).all()
    for path, word in ((tmp_path, "folder"), ("/dev/zero", "character device")):
        with pytest.raises(OSError, match=f"found a {word}"):
            processor(images=path, text="a")


def test_keys_types_and_shapes(processor, pixels):
    inputs = processor(pixels, P, return_tensors="np")
    assert list(inputs) == ["input_ids", "token_type_ids", "attention_mask", "pixel_values", "labels"]
    n = processor.image_seq_length + 4
    for key in inputs:
        assert inputs[key].shape == ((1, 3, 112, 112) if key == "pixel_values" else (1, n)), key
        assert inputs[key].dtype == (np.float32 if key == "pixel_values" else np.int64), key
    assert inputs.input_ids is inputs["input_ids"] and inputs.get("nothing") is None
    with pytest.raises(AttributeError, match="input_ids"):
        inputs.nothing
    assert (inputs.labels == -100).all()


def test_without_return_tensors_lists(processor, pixels):
    inputs = processor(pixels, P)
    assert isinstance(inputs["input_ids"], list) and isinstance(inputs["input_ids"][0][0], int)
    assert isinstance(inputs["pixel_values"], list) and inputs["pixel_values"][0].shape == (3, 112, 112)
    assert isinstance(inputs["labels"], np.ndarray)


def test_layout_and_labels(processor, pixels):
    inputs = processor(pixels, P, "a bee", return_tensors="np")
    ids, labels = inputs.input_ids[0], inputs.labels[0]
    image, tokenizer = processor.image_token_id, processor.tokenizer
    prefix = [image] * 64 + [tokenizer.bos_token_id] + tokenizer.encode(P + "\n")
    suffix = tokenizer.encode("a bee") + [tokenizer.eos_token_id]
    assert ids.tolist() == prefix + suffix
    assert labels.tolist() == [-100] * len(prefix) + suffix
    assert inputs.token_type_ids[0].tolist() == [0] * len(prefix) + [1] * len(suffix)


def test_rows_report(processor, pixels):
    inputs = processor([pixels] * 2, [P, P + " word" * 20], ["a", "b"], truncation=True, max_length=76, padding=True,
                       return_tensors="np")
    whole, cut = inputs.rows
    assert whole.events == () and whole.first_token == 76 - whole.n_tokens and whole.n_suffix == 2
    assert "truncated" in cut.events and cut.n_truncated > 0 and cut.n_tokens == 76 and cut.first_image == 1
    kept = processor(pixels, P + " word" * 20, "b", truncation=True, max_length=76, keep_ends=True).rows[0]
    assert "truncated" in kept.events and not {"truncated_eos", "truncated_newline"} & set(kept.events)
    assert "newline_merged" in processor(pixels, "x\n").rows[0].events


def test_a_batch_is_its_rows(processor, pixels):
    both = processor([pixels, pixels[::-1]], [P, Q], ["a", "b c"], padding=True, return_tensors="np")
    for row, (image, text, suffix) in enumerate([(pixels, P, "a"), (pixels[::-1], Q, "b c")]):
        alone = processor(image, text, suffix, return_tensors="np")
        report = both.rows[row]
        kept = slice(report.first_token, report.first_token + report.n_tokens)
        for key in ("input_ids", "token_type_ids", "attention_mask", "labels"):
            assert (both[key][row, kept] == alone[key][0]).all(), key
        assert (both.pixel_values[row] == alone.pixel_values[0]).all()
    assert (both.input_ids[0, :both.rows[0].first_token] == processor.tokenizer.pad_token_id).all()


def test_options_of_our_own(processor, pixels):
    plain = processor(pixels, "<eos> x", return_tensors="np").input_ids
    literal = processor(pixels, "<eos> x", literal=True, return_tensors="np").input_ids
    assert (plain == processor.tokenizer.eos_token_id).sum() == 1
    assert (literal == processor.tokenizer.eos_token_id).sum() == 0
    assert processor(pixels, "<image><image>x", literal=True).rows[0].n_images == 1
    opened = processor(pixels, P, "a bee", suffix_open=True, return_tensors="np")
    assert opened.input_ids[0, -1] != processor.tokenizer.eos_token_id
    training = processor(pixels, P, "a bee", mode="big_vision", return_tensors="np")
    hf = processor(pixels, P, "a bee", return_tensors="np")
    assert not (training.pixel_values == hf.pixel_values).all()
    assert np.abs(training.pixel_values - hf.pixel_values).max() < 1
    rooms = processor(text=[P, P], image_counts=[1, 2], padding=True, return_tensors="np")
    assert "pixel_values" not in rooms
    assert [(row == processor.image_token_id).sum() for row in rooms.input_ids] == [64, 128]


def test_texts_may_hold_anything(processor, pixels):
    for text in ("a\0b", "🙂", "\ufeff", "x" * 3000):
        processor(pixels, text, suffix=text)
    with pytest.raises(ValueError):
        processor(pixels, "\ud800")


def test_feature_is_copied_and_pickled(processor, pixels):
    inputs = processor(pixels, P, return_tensors="np")
    for other in (copy.copy(inputs), copy.deepcopy(inputs), pickle.loads(pickle.dumps(inputs))):
        assert list(other) == list(inputs) and (other.pixel_values == inputs.pixel_values).all()


def test_processor_is_copied_and_pickled(folder, pixels):
    with paligemma.AutoProcessor.from_pretrained(folder) as processor:
        processor.tokenizer.padding_side = "right"
        copies = copy.deepcopy(processor), pickle.loads(pickle.dumps(processor))
    for other in copies:
        inputs = other([pixels, pixels], ["a", "a b c"], padding=True, return_tensors="np")
        assert inputs["attention_mask"][0, 0] == 1 and inputs["attention_mask"][0, -1] == 0
    with pytest.raises(ValueError, match="the processor is closed"):
        pickle.dumps(processor)


def test_arrays_outlive_the_processor(folder, pixels):
    with AutoProcessor.from_pretrained(folder) as processor:
        inputs = processor(pixels, P, return_tensors="np")
    kept = inputs["pixel_values"]
    copied = kept.copy()
    del inputs
    assert (kept == copied).all()


def test_forms_of_a_image(processor, image_path, pixels):
    one = processor(image_path, P, return_tensors="np").pixel_values
    for form in (str(image_path), image_path.read_bytes(), bytearray(image_path.read_bytes()), [image_path], [[str(image_path)]]):
        assert (processor(form, P, return_tensors="np").pixel_values == one).all()
    wanted = processor(pixels, P, return_tensors="np").pixel_values
    for form in (pixels.transpose(2, 0, 1), np.asfortranarray(pixels), pixels[None], pixels.astype(float),
                 pixels[::-1][::-1]):
        assert (processor(form, P, return_tensors="np").pixel_values == wanted).all()
    grey = processor(pixels[:, :, 0], P, return_tensors="np").pixel_values
    assert (grey == processor(np.repeat(pixels[:, :, :1], 3, 2), P, return_tensors="np").pixel_values).all()
    floats = processor(pixels / 255, P, return_tensors="np", do_rescale=False).pixel_values
    assert np.abs(floats - wanted).max() <= 2 / 255  # 8-bit values times 255 / 255 are cut, not rounded
    with pytest.warns(UserWarning, match="once more"):
        processor(pixels / 255, P)


REFUSED = {
    "an empty list": (dict(images=[], text=P), ValueError),
    "a number": (dict(images=3, text=P), ValueError),
    "an image and a list": (lambda p: dict(images=[p, [p]], text=[P, P]), ValueError),
    "no pixels": (dict(images=np.zeros((0, 4, 3), np.uint8), text=P), ValueError),
    "one dimension": (dict(images=np.zeros(12, np.uint8), text=P), ValueError),
    "NaN": (dict(images=np.full((4, 4, 3), np.nan), text=P), ValueError),
    "strings in an array": (dict(images=np.full((4, 4, 3), "x"), text=P), ValueError),
    "a file that is not there": (dict(images="/nowhere.png", text=P), FileNotFoundError),
    "a file that is no image": (dict(images=__file__, text=P), (OSError, NotImplementedError)),
    "bytes of nothing": (dict(images=b"", text=P), (OSError, ValueError)),
    "half a PNG": (lambda p: dict(images=b"\x89PNG\r\n\x1a\n" + bytes(40), text=P), OSError),
    "a URL": (dict(images="http://example.org/a.png", text=P), ValueError),
    "too many pixels": (lambda p: dict(images=p, text=P, max_image_pixels=-1), ValueError),
    "a number as text": (lambda p: dict(images=p, text=5), TypeError),
    "swapped": (lambda p: dict(images=P, text=p), TypeError),
    "mode": (lambda p: dict(images=p, text=P, mode="jax"), ValueError),
    "max_length": (lambda p: dict(images=p, text=P, max_length=-1, truncation=True), ValueError),
    "multiple": (lambda p: dict(images=p, text=P, padding=True, pad_to_multiple_of=0), ValueError),
    "no 32-bit number": (lambda p: dict(images=p, text=P, padding=True, pad_to_multiple_of=2**40), ValueError),
    "side": (lambda p: dict(images=p, text=P, padding_side="top"), ValueError),
    "image counts": (dict(text=[P, P], image_counts=[1]), ValueError),
    "image counts and images": (lambda p: dict(images=p, text=P, image_counts=1), ValueError),
    "another size": (lambda p: dict(images=p, text=P, size={"shortest_edge": 64}), NotImplementedError),
    "offsets": (lambda p: dict(images=p, text=P, return_offsets_mapping=True), NotImplementedError),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(processor, pixels, name):
    arguments, error = REFUSED[name]
    with pytest.raises(error) as caught:
        processor(**(arguments(pixels) if callable(arguments) else arguments))
    assert str(caught.value)


def test_the_message_names_the_row(processor, pixels):
    with pytest.raises(ValueError, match="image 1"):
        processor([pixels, pixels * np.nan], [P, P])


def test_unknown_keyword_warns(processor, pixels):
    with pytest.warns(UserWarning, match="`foo` is not a valid argument"):
        processor(pixels, P, foo=1)


def test_closed(folder, pixels):
    processor = AutoProcessor.from_pretrained(folder)
    processor.close()
    processor.close()
    assert processor.closed
    for call in (lambda: processor(pixels, P), lambda: processor.decode([5]), lambda: processor.tokenizer.encode("x"),
                 lambda: processor.tokenizer.convert_tokens_to_ids("<bos>"), processor.__enter__):
        with pytest.raises(ValueError, match="the processor is closed"):
            call()


def test_image_freed_too_early(processor, image_path):
    Image = pytest.importorskip("PIL.Image", reason="PIL is not installed")
    image = Image.open(image_path)
    image.load()
    image.close()
    with pytest.raises((ValueError, OSError)):
        processor(image, P)


def test_two_threads(processor, pixels):
    wanted = processor(pixels, Q, return_tensors="np")
    failures = []

    def work():
        for _ in range(20):
            got = processor(pixels, Q, return_tensors="np")
            if not all((got[key] == wanted[key]).all() for key in wanted):
                failures.append(got)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_tokenizer(processor):
    tokenizer = processor.tokenizer
    assert tokenizer.decode(tokenizer.encode("caption en")) == "caption en"
    assert tokenizer(["a", "b c"])["attention_mask"] == [[1], [1] * len(tokenizer.encode("b c"))]
    assert tokenizer.convert_ids_to_tokens(tokenizer.convert_tokens_to_ids(["<loc0007>", "<image>"])) == [
        "<loc0007>", "<image>"]
    assert len(tokenizer) == tokenizer.vocab_size + 1 == len(tokenizer.get_vocab())  # <image> is no piece of the model
    assert tokenizer.convert_ids_to_tokens([2, len(tokenizer)]) == ["<bos>", None]
    with pytest.raises(OverflowError):
        tokenizer.convert_ids_to_tokens(-1)
    with pytest.raises(ValueError):
        tokenizer.decode([5, -100])
    with pytest.raises(TypeError):
        tokenizer.decode("text")
    assert tokenizer.decode(tokenizer.encode("a\0b")) == "a\0b"
    assert paligemma.PaliGemmaTokenizer is type(tokenizer)
