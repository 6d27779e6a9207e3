#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Measures what a KV cache in bf16 costs, beside one in f32 and the same weights.

    kv_cache.py [--images 100] [--count 8] [--seed 7000] [--build FOLDER]

    models    the demo checkpoint on --images images that it was not trained on (a caption, a question, a detection each),
              and --count random small checkpoints on the pictures and prompts of exactness.py; stored, int8 and int4
    steps     the decoding steps before the first token that differs; the first token is none of them: its logits are the
              same bits
    distance  relative L2 of a step's logits, the largest;  KL: of the next token's distribution, in nats

Exit status 1: more than 1 of 200 texts of the demo checkpoint is another one, or the logits of a first token are.
"""
import argparse
import os
import sys
import tempfile

import numpy as np
from PIL import Image

import checkpoints
import compare
import exactness
import quality

sys.path.insert(0, exactness.DEMO)
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "python"))
import draw  # noqa: E402

MAX_NEW = 40


class Row:
    def __init__(self):
        self.distance, self.kl, self.same_top, self.texts, self.same_texts, self.moved = 0.0, [], [], 0, 0, 0

    def add(self, exact, other):
        a, b = exact.sequences[0].tolist(), other.sequences[0].tolist()
        self.texts += 1
        self.same_texts += a == b
        for step, (x, y) in enumerate(zip(exact.logits, other.logits)):
            x, y = np.asarray(x), np.asarray(y)
            if step == 0:
                self.moved += bool((x != y).any())
                continue
            self.distance = max(self.distance, float(np.linalg.norm(x - y) / np.linalg.norm(x)))
            self.kl += quality.divergence(x, y).tolist()
            self.same_top.append(bool(x.argmax() == y.argmax()))
            if not self.same_top[-1]:
                break

    def markdown(self):
        return (f"{self.distance:.1e} | {np.mean(self.kl):.1e} | {np.quantile(self.kl, 0.99):.1e} | "
                f"{100 * np.mean(self.same_top):.1f}% of {len(self.same_top)} | {self.same_texts} of {self.texts}")


def add(paligemma, folder, tokenizer_of, cases, row):
    """cases: [(picture, prompt)]"""
    processor = paligemma.PaliGemmaProcessor.from_pretrained(tokenizer_of)
    exact, other = (paligemma.PaliGemmaForConditionalGeneration.from_pretrained(folder, kv=kv) for kv in ("f32", "bf16"))
    for picture, prompt in cases:
        inputs = processor(text=prompt, images=picture, return_tensors="np")
        row.add(*(model.generate(**inputs, max_new_tokens=MAX_NEW, do_sample=False, output_logits=True,
                                 return_dict_in_generate=True) for model in (exact, other)))
    exact.close(), other.close()


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--images", type=int, default=100)
    args.add_argument("--count", type=int, default=8)
    args.add_argument("--seed", type=int, default=7000)
    args.add_argument("--build", default=compare.default_build())
    args = args.parse_args()
    os.environ.setdefault("PALIGEMMA_LIBRARY", os.path.join(args.build, "lib"))
    import paligemma

    demo = os.path.join(exactness.DEMO, "model")
    drawn = []
    for seed in range(quality.FRESH_SEED, quality.FRESH_SEED + args.images):
        scene, rng = draw.scene(seed), np.random.default_rng([seed, 2])
        for prompt, _ in (draw.caption(scene), draw.question(scene, rng), draw.detection(scene, rng)):
            drawn.append((Image.fromarray(draw.render(scene)), prompt))
    wrong = []
    print("| model | weights | logits of a step | KL, mean | KL, 99% | same top-1 | same text |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        small = []
        for seed in range(args.seed, args.seed + args.count):
            folder = os.path.join(temporary, str(seed))
            checkpoints.write(checkpoints.draw(seed), folder)
            prompt_of = exactness.random_prompts(seed, temporary)
            small.append((folder, [(Image.open(path).convert("RGB"), text) for path, text in map(prompt_of, range(4))]))
        for weights in ("stored", "int8", "int4"):
            for name in ("the demo checkpoint", f"{args.count} random small checkpoints"):
                row = Row()
                for folder, cases in ([(demo, drawn)] if name.startswith("the") else small):
                    out = folder
                    if weights != "stored":
                        out = os.path.join(temporary, f"{os.path.basename(folder)}-{weights}")
                        why = quality.convert(args.build, folder, out, weights)
                        if why:
                            wrong.append(f"{folder}, {weights}: {why}")
                            continue
                    add(paligemma, out, folder, cases, row)
                print(f"| {name} | {weights} | {row.markdown()} |", flush=True)
                if row.moved or (name.startswith("the") and 200 * (row.texts - row.same_texts) > row.texts):
                    wrong.append(f"{name}, {weights}: {row.moved} first tokens moved, {row.texts - row.same_texts} texts differ")
    print("\n".join(wrong), file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
