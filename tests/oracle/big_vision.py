#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""PG_MODE_BIG_VISION against what google-research/big_vision does, with the packages that it uses.

    big_vision.py BUILD [--count N] [--seed S] [--folder FOLDER]
    big_vision.py --golden

BUILD is the build folder. N random images (default 300) through tensorflow, through a double-precision implementation
of the same filter and through torch; 10 N random texts through sentencepiece, on random vocabularies and on the demo
checkpoint (or FOLDER); N batches of these through the public API, held against the training configs' text, mask_ar,
mask_loss and mask_input. Without tensorflow the pixels are held to the bound of f32 rounding
from double precision alone, and it says so. --golden writes what tests/unit/test_big_vision.c reads
(tests/golden/big_vision/pixels.txt and ids.txt); it needs tensorflow.
"""
import argparse
import ctypes
import json
import os
import subprocess
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import numpy as np
import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as pb

import pglib

try:
    import tensorflow as tf
except ImportError:
    tf = None

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(HERE, "..", "golden")
DEMO = os.path.join(HERE, "..", "..", "examples", "demo", "model")
EXTRA = [f"<loc{i:04d}>" for i in range(1024)] + [f"<seg{i:03d}>" for i in range(128)]  # pp/tokenizer.py: tokensets


# ------------------------------------------------------------------------------------------------------------ pixels

def tensorflow_pixels(image, side):
    """preprocess_image() of finetune_paligemma.ipynb, [3, side, side]."""
    resized = tf.image.resize(tf.constant(image), (side, side), method="bilinear", antialias=True)
    return np.moveaxis(np.asarray(resized.numpy() / 127.5 - 1.0, np.float32), -1, 0)


def transfers_pixels(image, side):
    """decode|resize(side, antialias=True)|value_range(-1, 1) of the transfer configs: cut to bytes after the resize."""
    resized = tf.image.resize(tf.constant(image), (side, side), method="bilinear", antialias=True)
    values = tf.cast(tf.clip_by_value(tf.cast(resized, tf.float32), 0, 255), tf.uint8).numpy().astype(np.float32)
    return np.moveaxis(-1 + values / np.float32(255) * 2, -1, 0)


def weights(n_in, n_out):
    """[n_out, n_in] in double precision: a triangle around each output centre, as wide as the larger of both pixels."""
    scale = n_in / n_out
    centers = (np.arange(n_out) + 0.5) * scale
    distance = np.abs(np.arange(n_in) + 0.5 - centers[:, None]) / max(scale, 1.0)
    w = np.maximum(0.0, 1.0 - distance)
    return w / w.sum(axis=1, keepdims=True)


def double_pixels(image, side):
    height, width, _ = image.shape
    rows, columns = weights(height, side), weights(width, side)
    return np.einsum("yh,hwc,xw->cyx", rows, image.astype(np.float64), columns, optimize=True) / 127.5 - 1.0


def torch_pixels(image, side):
    import torch
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    y = torch.nn.functional.interpolate(x, (side, side), mode="bilinear", antialias=True, align_corners=False)
    return (y[0] / 127.5 - 1.0).numpy()


def sizes(rng, n):
    """(width, height, side)"""
    for i in range(n):
        side = [int(s) for s in (1, 7, 28, 56, 224, 448, rng.integers(1, 300))][rng.integers(7)]
        kind = i % 6
        if kind == 0:
            yield side, side, side
        elif kind == 1:
            yield int(rng.integers(1, 40)), int(rng.integers(1, 40)), side
        elif kind == 2:  # very long
            yield *sorted((int(rng.integers(1, 4)), int(rng.integers(500, 6000))), reverse=bool(i & 1)), side
        elif kind == 3:  # whole ratios, where samples fall on the kernel's ends
            yield side * int(rng.integers(1, 5)), side * int(rng.integers(1, 5)), side
        else:
            yield int(rng.integers(1, 1200)), int(rng.integers(1, 1200)), side


def random_image(rng, width, height):
    if rng.random() < 0.5:
        return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    x, y = np.meshgrid(np.linspace(0, 9, width), np.linspace(0, 7, height))
    waves = np.stack([np.sin(x * k + y) for k in (1, 2, 5)], -1)
    return np.clip(128 + 140 * waves, 0, 255).astype(np.uint8)


class Program:
    def __init__(self, path, folder):
        self.run = subprocess.Popen([path, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, line):
        self.run.stdin.write(line + "\n")
        self.run.stdin.flush()
        return self.run.stdout.readline().rstrip("\n")

    def close(self):
        self.run.stdin.close()
        self.run.stdout.close()
        return self.run.wait()


def check_pixels(program, seed, n):
    rng = np.random.default_rng(seed)
    failures, worst, levels = 0, {"double": 0.0, "torch": 0.0}, []
    with tempfile.TemporaryDirectory() as top:
        asked = Program(program, "-")
        source, target = os.path.join(top, "in"), os.path.join(top, "out")
        for width, height, side in sizes(rng, n):
            image = random_image(rng, width, height)
            image.tofile(source)
            answer = asked.ask(f"p {width} {height} {side} {source} {target}")
            if answer:
                print(f"{width} x {height} to {side}: {answer}")
                failures += 1
                continue
            found = np.fromfile(target, np.float32).reshape(3, side, side)
            if tf:
                differ = int((found != tensorflow_pixels(image, side)).sum())
                if differ:
                    print(f"{width} x {height} to {side}: {differ} of {found.size} values differ from tensorflow")
                    failures += 1
                levels.append(np.abs(found - transfers_pixels(image, side)).max() * 127.5)
            # f32 against f64: the centre of a pixel is known to eps * width, which moves a weight by that much of a
            # pixel over the kernel's width; the sums add less
            bound = 2.0 * np.finfo(np.float32).eps * (max(width, height) + 16)
            distance = np.abs(found - double_pixels(image, side)).max()
            worst["double"] = max(worst["double"], distance)
            worst["torch"] = max(worst["torch"], np.abs(found - torch_pixels(image, side)).max())
            if distance > bound:
                print(f"{width} x {height} to {side}: {distance:.3g} from double precision, bound {bound:.3g}")
                failures += 1
        failures += asked.close() != 0
    print(f"pixels: {n} images, {failures} failures; " +
          ("equal to tensorflow " + tf.__version__ + " to the last bit unless listed" if tf else
           "NO tensorflow here, not compared with it") +
          "; largest distance " + ", ".join(f"{d:.2g} from {name}" for name, d in worst.items()) +
          (f"; up to {max(levels):.2f} levels of 255 above the transfers' bytes" if levels else ""))
    return failures


# --------------------------------------------------------------------------------------------------------------- ids

def with_extra(model):
    """_add_pieces() of pp/ops_text.py: loc and seg as user-defined pieces, those there already changed in place."""
    known = {p.piece: i for i, p in enumerate(model.pieces)}
    for piece in EXTRA:
        entry = model.pieces[known[piece]] if piece in known else model.pieces.add()
        entry.piece, entry.score, entry.type = piece, 0.0, pb.ModelProto.SentencePiece.USER_DEFINED
    return model


def processor_of(model):
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(model.SerializeToString())
    return processor


def row(processor, image, n_tokens, prefix, suffix, is_open):
    """combine_and_keep_train() and _eval() of transfers/common.py behind the image: ids with mask_ar 0, then 1."""
    first = [image] * n_tokens + [processor.bos_id()] + processor.EncodeAsIds(prefix) + processor.EncodeAsIds("\n")
    if suffix is None:
        return first, []
    return first, processor.EncodeAsIds(suffix) + ([] if is_open else [processor.eos_id()])


def random_text(rng, pieces):
    special = ["<eos>", "<bos>", "<pad>", "<unk>", "<image>", "<mask>", "<loc0000>", "<loc1023>", "<loc1024>",
               "<seg007>", "<b>", "\n", "\n\n", "\n\n\n\n\n", " ", "  ", "     ", "\t", "<loc", "\0", "\u00a0", "\r\n",
               "e\u0301", "😀", "caption en", "<0x41>", "\ud7ff", "\U0010ffff", "\u2581", "\u2581\u2581\u2581", " \u2581",
               " " * int(rng.integers(1, 80))]
    parts = []
    for _ in range(int(rng.integers(0, 9))):
        kind = rng.random()
        if kind < 0.45:
            parts.append(special[rng.integers(len(special))])
        elif kind < 0.8:
            parts.append(pieces[rng.integers(len(pieces))].replace("\u2581", " " if rng.random() < 0.9 else "\u2581"))
        else:
            ranges = [(1, 128), (1, 0x2600), (0x3000, 0xD800), (0xE000, 0x110000)]
            parts.append(chr(int(rng.integers(*ranges[rng.integers(4)]))))
    return "".join(parts)


def request(n_tokens, n_images, prompt, suffix, is_open):
    end = "" if suffix is None else " =" + suffix.encode().hex()
    return f"t {n_tokens} {n_images} {int(is_open)} ={prompt.encode().hex()}{end}"


def check_ids(program, name, folder, model, image, seed, n):
    rng = np.random.default_rng(seed)
    processor, pieces = processor_of(with_extra(model)), [p.piece for p in model.pieces]
    asked, failures = Program(program, folder), 0
    for i in range(n):
        prompt, is_open = random_text(rng, pieces), bool(rng.random() < 0.3)
        suffix = None if rng.random() < 0.2 else random_text(rng, pieces)
        n_tokens, n_images = int(rng.integers(0, 5)), int(rng.integers(0, 3))
        answer = asked.ask(request(n_tokens, n_images, prompt, suffix, is_open))
        right = row(processor, image, n_tokens * n_images, prompt, suffix, is_open)
        if answer.startswith("!") or [[int(t) for t in part.split()] for part in answer.split("|")] != list(right):
            failures += 1
            if failures <= 5:
                print(f"{name}: {prompt!r} {suffix!r} open {is_open}\n  found    {answer}\n  expected {right}")
    failures += asked.close() != 0
    print(f"ids, {name}: {n} rows, {failures} differ from sentencepiece {sentencepiece.__version__}")
    return failures


def read_model(folder):
    with open(os.path.join(folder, "tokenizer.model"), "rb") as f:
        return pb.ModelProto.FromString(f.read())


def check_folder(program, name, folder, seed, n):
    from transformers import AutoTokenizer
    image = AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("<image>")
    return check_ids(program, name, folder, read_model(folder), image, seed, n)


def check_random_vocabularies(program, seed, n):
    import vocabularies
    failures = 0
    for size in (0, 60, 700):
        with tempfile.TemporaryDirectory() as folder:
            model, tokenizer = vocabularies.build(size)
            vocabularies.save_official(folder, model, tokenizer)
            failures += check_folder(program, f"{size} learned pieces, official files", folder, seed + size, n)
            os.rename(os.path.join(folder, "tokenizer.model"), os.path.join(folder, "unread"))
            failures += check_ids(program, f"{size} learned pieces, tokenizer.json alone", folder, model,
                                  tokenizer.convert_tokens_to_ids("<image>"), seed + size + 1, n)
    return failures


# ----------------------------------------------------------------------------------------------------------- batches

TRUNCATE, SUFFIX_OPEN = 4, 16
BIG_VISION, MAX_LENGTH, RIGHT = 1, 1, 2  # PG_MODE_, PG_PADDING_, PG_SIDE_


def tolen(values, length, pad):
    """tolen() of pp/proj/paligemma/ops.py."""
    return np.asarray((list(values) + [pad] * length)[:length])


def training_row(processor, prefix, suffix, is_open, length):
    """combine_and_keep_train() with eos="yes", combine_and_keep_eval() with "no": text, mask_ar, mask_loss, mask_input."""
    first, last = row(processor, 0, 0, prefix, suffix, is_open)
    masks = [([0] * len(first) + [1] * len(last), 1), ([0] * len(first) + [1] * len(last), 0),
             ([1] * (len(first) + len(last)), 0)]
    return [tolen(first + last, length, 0)] + [tolen(mask, length, pad) for mask, pad in masks]


def batch_is_right(rng, library_processor, processor, n_tokens, image, pieces, side):
    n, n_images, length = int(rng.integers(1, 5)), int(rng.integers(0, 3)), int(rng.integers(1, 60))
    prompts = [random_text(rng, pieces) for _ in range(n)]
    suffixes = [random_text(rng, pieces) for _ in range(n)] if rng.random() < 0.8 else None
    is_open = bool(rng.random() < 0.3)
    images = [random_image(rng, *(int(i) for i in rng.integers(1, 300, 2))) for _ in range(n * n_images)]
    flags = TRUNCATE | (SUFFIX_OPEN if is_open else 0)
    with library_processor.encode_batch(prompts, suffixes, [(p, 1) for p in images], [n_images] * n, flags=flags,
                                        mode=BIG_VISION, padding=MAX_LENGTH, padding_side=RIGHT,
                                        max_length=n_tokens * n_images + length) as inputs:
        for r in range(n):
            suffix = suffixes[r] if suffixes else None
            text, mask_ar, mask_loss, mask_input = training_row(processor, prompts[r], suffix, is_open, length)
            found = {k: inputs[k][r] for k in ("input_ids", "token_type_ids", "labels", "attention_mask")}
            front = {k: v[:n_tokens * n_images] for k, v in found.items()}
            tail = {k: v[n_tokens * n_images:] for k, v in found.items()}
            whole = row(processor, 0, 0, prompts[r], suffix, is_open)
            events = inputs.row(r)["events"]
            if not ((front["input_ids"] == image).all() and (front["attention_mask"] == 1).all() and
                    (front["token_type_ids"] == 0).all() and (front["labels"] == -100).all() and
                    (tail["input_ids"] == text).all() and (tail["attention_mask"] == mask_input).all() and
                    (tail["token_type_ids"] == mask_ar * mask_input).all() and
                    (tail["labels"] == np.where(mask_loss, text, -100)).all() and
                    bool(events & 1) == (sum(map(len, whole)) > length) and
                    bool(events & 2) == (suffix is not None and not is_open and sum(map(len, whole)) > length) and
                    bool(events & 4) == (len(whole[0]) > length)):
                print(f"row {r}: {prompts[r]!r} {suffix!r} open {is_open} length {length}: {tail} events {events}\n"
                      f"  expected {text} {mask_ar} {mask_loss} {mask_input}")
                return False
        pixels = inputs.get("pixel_values")
        if tf and images and not all((p == tensorflow_pixels(q, side)).all() for p, q in zip(pixels, images)):
            print("pixels differ")
            return False
    return True


def check_batches(build, folder, seed, n):
    # tensorflow offers its protobuf to every library of the process; libsentencepiece's must stay its own
    ctypes.CDLL(pglib.find_library(build), mode=os.RTLD_NOW | os.RTLD_DEEPBIND)
    rng = np.random.default_rng(seed)
    model = read_model(folder)
    processor, pieces = processor_of(with_extra(model)), [p.piece for p in model.pieces]
    with open(os.path.join(folder, "preprocessor_config.json")) as f:
        settings = json.load(f)
    with pglib.Processor(pglib.Library(build), folder) as ours:
        right = [batch_is_right(rng, ours, processor, settings["image_seq_length"], processor.GetPieceSize(), pieces,
                                settings["size"]["height"]) for _ in range(n)]
    print(f"batches through the public API: {n}, {right.count(False)} differ")
    return right.count(False)


# ------------------------------------------------------------------------------------------------------------ golden

def write_golden():
    sys.path.insert(0, GOLDEN)
    from make_images import fnv1a, test_image
    if not tf:
        sys.exit("tensorflow is needed")
    os.makedirs(os.path.join(GOLDEN, "big_vision"), exist_ok=True)
    rng = np.random.default_rng(4)
    with open(os.path.join(GOLDEN, "big_vision", "pixels.txt"), "w") as f:
        cases = [(56, 56, 56), (112, 112, 56), (1, 1, 28), (2, 2, 1), (3, 400, 28), (400, 3, 28), (57, 55, 56)]
        cases += [(int(w), int(h), int(s)) for w, h, s in rng.integers(1, 160, (25, 3))]
        for width, height, side in cases:
            pixels = tensorflow_pixels(np.asarray(test_image(width, height)), side)
            f.write(f"{width} {height} {side} {fnv1a(pixels.astype('<f4').tobytes())}\n")
    processor = processor_of(read_model(DEMO))
    image = processor.GetPieceSize()
    with open(os.path.join(GOLDEN, "big_vision", "ids.txt"), "w") as f:
        pieces = [processor.IdToPiece(i) for i in range(image)]
        texts = [("caption en", None), ("", ""), ("\n", "\n"), ("a\n\n", "\nb"), ("<bos><image> x", "<eos>"),
                 ("detect cat", "<loc0012><loc0345><loc0999><loc1023> cat"), ("segment it ", "<loc0000><seg127>"),
                 ("  two  spaces", " one"), ("größe 猫 😀", "\t\0"), ("answer en", "an")]
        texts += [(random_text(rng, pieces), random_text(rng, pieces)) for _ in range(30)]
        for i, (prompt, suffix) in enumerate(texts):
            n_tokens, n_images, is_open = int(rng.integers(0, 5)), i % 3, i % 4 == 3
            first, last = row(processor, image, n_tokens * n_images, prompt, suffix, is_open)
            line = request(n_tokens, n_images, prompt, suffix, is_open)
            f.write(f"{line}\n{' '.join(map(str, first + ['|'] + last))}\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", nargs="?")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", default=DEMO)
    parser.add_argument("--golden", action="store_true")
    args = parser.parse_args()
    if args.golden:
        return write_golden()
    if not args.build:
        parser.error("BUILD is needed")
    program = os.path.join(args.build, "tests", "oracle", "big_vision")
    failures = check_pixels(program, args.seed, args.count)
    failures += check_batches(args.build, args.folder, args.seed, args.count)
    failures += check_folder(program, os.path.basename(os.path.normpath(args.folder)), args.folder, args.seed,
                             10 * args.count)
    failures += check_random_vocabularies(program, args.seed, max(1, 10 * args.count // 6))
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
