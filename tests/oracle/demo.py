#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""The demo checkpoint on fresh images: the library's text must be transformers' text on every one,
and its masks those of torch and Pillow (masks.py).

    demo.py [--seed S] [--count 500] [--build FOLDER] [--model FOLDER]
"""
import argparse
import ctypes
import os
import sys
import tempfile

import numpy as np
import torch
from PIL import Image

import compare
import pglib
import reference

DEMO = os.path.join(compare.ROOT, "examples", "demo")
N_NEW = 80  # three objects with masks have 69 tokens
sys.path.insert(0, DEMO)
import draw  # noqa: E402
import evaluate  # noqa: E402
import masks  # noqa: E402


class Masks:
    """What the library makes of the masks in a text, beside torch and Pillow on the same text, and beside the drawing."""

    def __init__(self, library, folder):
        self.library, self.decoder, self.ious = library, ctypes.c_void_p(), []
        file = os.path.join(folder, "vae-oid.safetensors")
        self.reference = masks.Decoder(file)
        library.call("pg_mask_decoder_open", file.encode(), None, ctypes.byref(self.decoder))

    def close(self):
        pglib.binding().lib.pg_mask_decoder_close(ctypes.byref(self.decoder))

    def of(self, text):
        """-> {label: bool [112, 112]}"""
        c, answer, found = pglib.binding(), ctypes.c_void_p(), {}
        options = c.AnswerOptions(width=draw.SIDE, height=draw.SIDE, convention=1)  # 1023, as the demo was trained
        self.library.call("pg_answer_create_from_text", text.encode(), len(text), ctypes.byref(options), ctypes.byref(answer))
        for index, part in enumerate(text.split(";")):  # an object each
            for label, segments in evaluate.segments(part).items():
                mask = np.zeros((draw.SIDE, draw.SIDE), np.uint8)
                found[label] = mask >= 128, segments
                if segments[0][2] < segments[0][0] or segments[0][3] < segments[0][1]:
                    continue  # out of order: a mask for neither
                self.library.call("pg_answer_get_mask", answer, index, self.decoder, mask.ctypes.data, mask.size)
                found[label] = mask >= 128, segments
        c.lib.pg_answer_close(ctypes.byref(answer))
        return found

    def compare(self, text, expected, scene):
        """-> how many pixels differ from torch's; takes down how well the drawing is met."""
        found, differ = self.of(text), 0
        for mask, (locs, codes) in found.values():
            differ += int((mask != masks.in_image(self.reference([codes])[0], locs, draw.SIDE, draw.SIDE)).sum())
        for o in scene["objects"]:
            if draw.name(o) in evaluate.segments(expected):
                mask, truth = found[draw.name(o)][0] if draw.name(o) in found else False, draw.mask(o)
                self.ious.append(float((mask & truth).sum() / (mask | truth).sum()))
        return differ


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--seed", type=int, help="of the first image (default: fresh)")
    args.add_argument("--count", type=int, default=500)
    args.add_argument("--build", default=compare.default_build(), help="the build folder ($PG_BUILD or ./build)")
    args.add_argument("--model", default=os.path.join(DEMO, "model"))
    args = args.parse_args()
    first = args.seed if args.seed is not None else int.from_bytes(os.urandom(4), "little")
    print(f"seed {first}, {args.count} images", flush=True)
    torch.set_num_threads(1)  # the fastest for a model this small
    ref, library, failed, expected_answers = reference.Reference(args.model), pglib.Library(args.build), 0, 0
    with tempfile.TemporaryDirectory() as folder, pglib.Model(library, args.model) as model, \
            pglib.Processor(library, args.model) as processor, pglib.Session(model, max_new_tokens=N_NEW) as session:
        path, decoder, differ = os.path.join(folder, "image.png"), Masks(library, args.model), 0
        for i in range(args.count):
            scene = draw.scene(first + i)
            Image.fromarray(draw.render(scene)).save(path)
            rng = np.random.default_rng(first + i)
            asked = [draw.caption(scene), draw.question(scene, rng), draw.detection(scene, rng), draw.segmentation(scene, rng)]
            prompt, answer = asked[i % 4]
            result = ref.run(reference.open_image(path), prompt, N_NEW)
            with processor.encode(path, prompt) as inputs:
                ids, _ = session.generate(inputs)
            text = processor.decode(ids)
            expected_answers += result.text == answer
            if i % 4 == 3:
                differ += decoder.compare(text, answer, scene)
            if ids != result.ids or text != result.text:
                failed += 1
                print(f"FAIL seed {first + i}, {prompt!r}: found {text!r}, expected {result.text!r}, smallest margin "
                      f"{min(result.margins):.2e}", flush=True)
        decoder.close()
    print(f"{differ} pixels of masks are not torch's; mean IoU with the drawing {np.mean(decoder.ious):.4f} over "
          f"{len(decoder.ious)} masks, {np.mean(np.array(decoder.ious) >= 0.75) * 100:.1f}% of them at least 0.75")
    failed += differ > 0
    print(f"{expected_answers} of {args.count} are the answer that the drawing script expects")
    print(f"{args.count - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
