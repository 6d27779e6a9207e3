# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Random batches for the processor, what transformers makes of them, and what the library must make of them.

A Case is plain data, so that it can be printed, replayed, and kept as a golden case: draw() makes one from a random
generator, HfProcessor runs it through transformers, run_library() through the library, compare() holds the two side by
side. Where transformers raises, the library must return an error.
"""
import dataclasses
import os
import random
import sys
import types
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from transformers import AutoProcessor, logging  # noqa: E402
from transformers.generation import GenerationMixin  # noqa: E402

import pglib  # noqa: E402
import image_files  # noqa: E402
import vocabularies  # noqa: E402

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden"))
from make_tokenizers import random_text  # noqa: E402

logging.set_verbosity_error()

ARRAYS = ["input_ids", "attention_mask", "token_type_ids", "labels", "position_ids", "pixel_values", "image_counts"]


@dataclasses.dataclass
class Case:
    """`form` is how the images reach transformers: "one" (not in a list), "flat" or "nested" (a list a row)."""
    text: list = None            # strings; None: images alone
    suffix: list = None          # strings; None: no suffixes
    form: str = "flat"
    counts: list = None          # nested: the images of each row
    n_images: int = 0
    padding: str = "none"        # "none", "longest" or "max_length"
    side: str = None             # "left", "right"; None: the tokenizer's
    multiple: int = 0            # pad_to_multiple_of; 0: none
    max_length: int = 0          # 0: none
    truncate: str = None         # "longest_first", "only_first", "only_second"; None: not at all
    truncation_side: str = None         # "left", "right"; None: the tokenizer's

    def placeholders(self):
        return [text.count("<image>") for text in self.text]

    def images_of_rows(self):
        """Images of each row, as their tokens lie in the text."""
        if any(self.placeholders()):
            return self.placeholders()
        return self.counts if self.form == "nested" else [1] * len(self.text)


def draw_format(rng):
    """PG_IMAGE_* of raw pixels."""
    return int(rng.choice([pglib.IMAGE_RGB8, pglib.IMAGE_RGB8, pglib.IMAGE_BGR8, pglib.IMAGE_RGBA8, pglib.IMAGE_BGRA8,
                           pglib.IMAGE_GRAY8]))


def draw_texts(rng, tokenizer_pieces):
    """-> prompts and suffixes (or None) of 1 to 5 rows."""
    words = random.Random(int(rng.integers(1 << 60)))

    def text():
        kind = rng.integers(10)
        if kind == 0:
            return ""
        if kind < 4:
            return "answer en " + " ".join(vocabularies.words(rng, int(rng.integers(1, 9))))
        if kind == 4:
            return "".join(chr(int(c)) for c in rng.integers(0, 0x300, rng.integers(1, 12)))
        if kind == 5:
            return " ".join(f"<loc{i:04d}>" for i in rng.integers(0, 1030, 4)) + f"<seg{rng.integers(140):03d}> cat"
        return random_text(words, tokenizer_pieces).replace("<image>", "<mask>")

    def edge(text):
        """A newline at either end now and then."""
        if rng.random() < 0.15:
            text = "\n" * int(rng.integers(1, 4)) + text
        if rng.random() < 0.15:
            text += rng.choice(["\n", "\n\n", " \n", "\r\n", "\n" * 14])
        return text

    n_rows = int(rng.choice([1, 1, 2, 2, 3, 4, 5]))
    prompts = [edge(text()) for _ in range(n_rows)]
    suffixes = [edge(text() * int(rng.choice([1, 1, 8]))) for _ in range(n_rows)] if rng.random() < 0.6 else None
    if suffixes and rng.random() < 0.04:  # an image token in a suffix is an error, a count of its own another
        suffixes[0] += "<image>"
    elif suffixes and rng.random() < 0.03:
        suffixes.append("x")
    return prompts, suffixes


def draw_images(rng, case):
    """Gives the case its images: one for each row, several, or `<image>` in the text of some or all rows."""
    n_rows, kind = len(case.text), rng.random()
    if kind < 0.45:
        case.form, case.n_images = ("one" if n_rows == 1 and rng.random() < 0.5 else "flat"), n_rows
    elif kind < 0.7:
        case.form, case.counts = "nested", rng.integers(0, 4, n_rows).tolist()
        if rng.random() < 0.95:  # else see Accident
            case.counts[0] = max(1, case.counts[0])
        if n_rows > 1 and rng.random() < 0.05:
            del case.counts[-1]
        case.n_images = sum(case.counts)
    else:
        for i in range(n_rows):
            for _ in range(int(rng.choice([0, 1, 1, 2, 3]))):
                at = 0 if rng.random() < 0.4 else int(rng.integers(len(case.text[i]) + 1))
                case.text[i] = case.text[i][:at] + "<image>" + case.text[i][at:]
        counts = case.placeholders()
        if not any(counts):
            case.text[0], counts[0] = "<image>" + case.text[0], 1
        case.n_images = sum(counts)
        if counts[0] and rng.random() < 0.5:
            case.form, case.counts = "nested", counts
    if rng.random() < 0.04:  # one too many; one image for several texts
        case.n_images += 1
        case.form = "flat" if case.form == "one" else case.form
        if case.form == "nested":
            case.counts[-1] += 1
    elif n_rows > 1 and rng.random() < 0.03:
        case.form, case.counts, case.n_images = "one", None, 1


def draw_halves(rng, hf):
    """A row without images, prompt and suffix equally long or nearly, cut to less than both: it is halved. The other
    row has the image without which there is no batch, and just fits. <loc> is one token in every vocabulary."""
    max_length = hf.n_image_tokens + 3 + int(rng.integers(0, 4))
    n = max_length // 2 + int(rng.integers(0, 6))
    locations = [vocabularies.LOCATIONS[i] for i in rng.integers(0, 1024, 2 * n + 2)]
    prompt, suffix = locations[:n + int(rng.integers(-1, 2))], locations[-n:]
    return Case(text=["", "".join(prompt)], suffix=["", "".join(suffix)], form="nested", counts=[1, 0], n_images=1,
                padding="longest", max_length=max_length, truncate="longest_first")


def draw(rng, hf):
    """hf: the HfProcessor, for the lengths at which truncation and padding are interesting."""
    kind = rng.random()
    if kind < 0.02:
        return Case(form="flat", n_images=int(rng.integers(1, 4)))
    if kind < 0.05:
        return draw_halves(rng, hf)
    text, suffix = draw_texts(rng, hf.pieces)
    case = Case(text=text, suffix=suffix)
    draw_images(rng, case)
    p_none = 0.06 if len(text) > 1 else 0.5  # rows of different lengths cannot be stacked: an error
    case.padding = str(rng.choice(["none", "longest", "max_length"], p=[p_none, 0.7 - p_none, 0.3]))
    case.side = rng.choice(np.array([None, "left", "right"], dtype=object))
    if rng.random() < 0.25:
        case.multiple = int(rng.choice([1, 2, 3, 7, 8, 64]))
    if rng.random() < 0.4:
        case.truncate = str(rng.choice(["longest_first", "only_first", "only_second"], p=[0.5, 0.2, 0.3]))
        case.truncation_side = rng.choice(np.array([None, "left", "right"], dtype=object), p=[0.8, 0.1, 0.1])
    if (case.truncate or case.padding == "max_length") and rng.random() < 0.95 or rng.random() < 0.1:
        case.max_length = draw_length(rng, hf, case)
        if case.multiple and case.truncate and rng.random() < 0.7:  # else transformers refuses most
            case.max_length = -(-case.max_length // case.multiple) * case.multiple
    return case


def draw_length(rng, hf, case):
    """A max_length near the length of some row, or of a part of it: it cuts eos, suffix, newline, prompt or images.
    Without truncation mostly one that every row fits in."""
    def n_tokens(texts, row):
        return len(hf.tokenizer(texts[row].replace("<image>", ""))["input_ids"]) if texts and row < len(texts) else 0

    counts = case.images_of_rows() + [0] * len(case.text)
    images = [counts[row] * hf.n_image_tokens for row in range(len(case.text))]
    prompts = [images[row] + n_tokens(case.text, row) + 2 for row in range(len(case.text))]
    suffixes = [n_tokens(case.suffix, row) + 1 if case.suffix else 0 for row in range(len(case.text))]
    if not case.truncate and rng.random() < 0.8:
        return max(map(sum, zip(prompts, suffixes))) + int(rng.integers(0, 9))
    row = int(rng.integers(len(case.text)))
    prompt, suffix = prompts[row], suffixes[row]
    about = [prompt + suffix] * 3 + [prompt + suffix // 2] * 4 + [prompt, images[row] + suffix + 3, suffix,
                                                                  prompt + suffix + 20]
    return max(1, int(rng.choice(about)) + int(rng.integers(-3, 4)))


def random_images(rng, n):
    """-> [(u8 [H, W, 3], the format that the library gets)]"""
    out = []
    for _ in range(n):
        kind = draw_format(rng)
        mode = "L" if kind == pglib.IMAGE_GRAY8 else ["RGB", "L", "P", "CMYK"][rng.choice(4, p=[0.7, 0.1, 0.1, 0.1])]
        out.append((np.asarray(image_files.draw(rng, mode).convert("RGB")), kind))
    return out


# What transformers raises where the library must return an error.
REFUSALS = (ValueError, IndexError, TypeError, OverflowError)


class HfProcessor:
    """transformers' processor of a checkpoint folder."""

    def __init__(self, folder):
        self.processor = AutoProcessor.from_pretrained(folder)
        self.tokenizer = self.processor.tokenizer
        self.n_image_tokens = self.processor.image_seq_length
        self.pieces = sorted(self.tokenizer.get_vocab())
        self.image_id = self.processor.image_token_id

    def call(self, case, images):
        """The call as a user writes it. -> {name: array}; raises what transformers raises."""
        images = [Image.fromarray(pixels) for pixels, _ in images]
        if case.form == "one":
            images = images[0]
        elif case.form == "nested":
            ends = np.cumsum([0] + case.counts)
            images = [images[a:b] for a, b in zip(ends, ends[1:])]
        options = {"truncation": True if case.truncate == "longest_first" else case.truncate or False}
        options["padding"] = {"none": False, "longest": True, "max_length": "max_length"}[case.padding]
        for name, value in [("padding_side", case.side), ("pad_to_multiple_of", case.multiple),
                            ("max_length", case.max_length)]:
            if value:
                options[name] = value
        side = self.tokenizer.truncation_side
        try:
            self.tokenizer.truncation_side = case.truncation_side or side
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return dict(self.processor(images=images, text=case.text, suffix=case.suffix, return_tensors="np",
                                           **options))
        except Exception as error:
            if type(error) is Exception:  # as the tokenizers package raises its "Truncation error: ..."
                raise ValueError(error) from error
            raise
        finally:
            self.tokenizer.truncation_side = side

    def whole(self, case, images):
        """The same without truncation, which may have hidden an image token of a suffix from the check for them."""
        self.processor._check_special_mm_tokens = lambda *_args, **_kwargs: None
        try:
            return self.call(dataclasses.replace(case, padding="longest", truncate=None, multiple=0), images)
        finally:
            del self.processor._check_special_mm_tokens

    def run(self, case, images):
        """-> (arrays as the library names them, [the report of each row]); raises what transformers raises, or
        Accident."""
        try:
            out = self.call(case, images)
        except IndexError as error:
            if case.form == "nested" and case.counts[0] == 0:
                raise Accident("the first row has no image", library_refuses=False) from error
            raise
        if case.text is None:
            return out, []
        if len(out["input_ids"]) != len(case.text):
            raise Accident("texts beyond the lists of images", library_refuses=True)
        out["position_ids"] = generate_positions(out["attention_mask"])
        out["image_counts"] = np.array(case.images_of_rows())
        return out, self._reports(case, images, out)

    def _reports(self, case, images, out):
        """What pg_inputs_get_row_info() must say of each row, found by running transformers once more without truncation."""
        whole, left = out, (case.truncation_side or self.tokenizer.truncation_side) == "left"
        if case.truncate:
            whole = self.whole(case, images)
        reports, first_image, placeholders = [], 0, case.placeholders()
        for i, text in enumerate(case.text):
            prefix, suffix = split_row(out, i)
            whole_prefix, whole_suffix = split_row(whole, i)
            n_truncated = len(whole_prefix) + len(whole_suffix) - len(prefix) - len(suffix)
            events = pglib.ROW_TRUNCATED if n_truncated else 0
            if len(suffix) < len(whole_suffix) and not (left and len(suffix)):  # what is cut on the left keeps its end
                events |= pglib.ROW_TRUNCATED_EOS
            if len(prefix) < len(whole_prefix) and not (left and len(prefix)):
                events |= pglib.ROW_TRUNCATED_NEWLINE
            if np.count_nonzero(prefix == self.image_id) < np.count_nonzero(whole_prefix == self.image_id):
                events |= pglib.ROW_TRUNCATED_IMAGE
            events |= pglib.ROW_BOS_MISPLACED if any(placeholders) and not placeholders[i] and text else 0
            last = self.tokenizer.convert_ids_to_tokens(int(whole_prefix[-1]))
            events |= pglib.ROW_NEWLINE_MERGED if len(last) > 1 and last.endswith("\n") else 0
            mask = out["attention_mask"][i]
            n_images = int(out["image_counts"][i])
            reports.append(dict(events=events, first_token=int(mask.argmax()) if mask.any() else 0,
                                n_tokens=int(mask.sum()), n_suffix=len(suffix), n_truncated=n_truncated,
                                first_image=first_image, n_images=n_images))
            first_image += n_images
        return reports


def split_row(arrays, row):
    """-> (ids of images and prompt, ids of the suffix)"""
    ids, mask, types = (arrays[name][row] for name in ("input_ids", "attention_mask", "token_type_ids"))
    return ids[(mask == 1) & (types == 0)], ids[(mask == 1) & (types == 1)]


class Accident(Exception):
    """What transformers does here is not meant, and the library does otherwise (library_refuses says what):
    - a nested list of images whose first list is empty: IndexError, since images[0][0] is looked at to tell nested
      lists from others. The library takes rows without images wherever they stand.
    - fewer lists of images than texts: zip() forgets the texts beyond them, without a word. The library refuses.
    """

    def __init__(self, what, library_refuses):
        super().__init__(what)
        self.library_refuses = library_refuses


def generate_positions(mask):
    """The positions that generate() gives the prompt: its own function, and PaliGemma's + 1."""
    ids = torch.zeros(mask.shape, dtype=torch.long)
    positions = GenerationMixin._prepare_position_ids_for_generation(
        types.SimpleNamespace(config=types.SimpleNamespace(is_encoder_decoder=False)), ids,
        {"attention_mask": torch.from_numpy(np.array(mask))})
    return positions.numpy() + 1


def image_counts(case):
    """What the library is told: what a binding derives from the text, as transformers does."""
    return case.placeholders() if case.text is not None and any(case.placeholders()) else case.counts


def run_library(processor, case, images, counts=None, flags=0):
    """-> Inputs; raises pglib.Error. counts: when the images are left out, how many each row has. flags: more."""
    return processor.encode_batch(
        case.text, case.suffix, images, image_counts(case) if counts is None else counts,
        flags=flags | (pglib.ENCODE_TRUNCATE if case.truncate else 0),
        truncation=pglib.TRUNCATIONS[case.truncate or "longest_first"],
        truncation_side=pglib.side(case.truncation_side), padding=pglib.padding(case.padding),
        padding_side=pglib.side(case.side), pad_to_multiple_of=case.multiple, max_length=case.max_length)


def compare(inputs, expected, reports):
    """-> [what differs]"""
    wrong = []
    for name in ARRAYS:
        found, right = inputs.get(name), expected.get(name)
        if (found is None) != (right is None):
            wrong.append(f"{name}: found {'nothing' if found is None else found.shape}, expected "
                         f"{'nothing' if right is None else right.shape}")
        elif right is not None and found.shape != right.shape:
            wrong.append(f"{name}: found shape {found.shape}, expected {right.shape}")
        elif right is not None and (name != "pixel_values" and (found != right).any()
                                    or name == "pixel_values" and found.tobytes() != right.tobytes()):
            at = tuple(int(i) for i in np.argwhere(found != right)[0]) if (found != right).any() else "a sign of zero"
            wrong.append(f"{name}: {np.count_nonzero(found != right)} of {right.size} differ, first at {at}: found "
                         f"{found[at] if isinstance(at, tuple) else ''}, "
                         f"expected {right[at] if isinstance(at, tuple) else ''}")
    for i, report in enumerate(reports if not wrong else []):
        found = inputs.row(i)
        wrong += [f"row {i}, {key}: found {found[key]}, expected {value}" for key, value in report.items()
                  if found[key] != value]
    return wrong
