#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Writes scores.json: transformers' log-probabilities of given answers, in f64.

    make_scores.py

Cases of the models of this folder are ids without an image; those of the demo model have an image, a prompt and texts, as
the processor makes ids of them with suffix=. test_scores.c replays them.
"""
import json
import os
import sys

import numpy as np
import torch
from PIL import Image

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests", "oracle"))
import reference  # noqa: E402

DEMO = os.path.join(ROOT, "examples", "demo")
QUESTIONS = [
    ("shapes.png", "answer en what color is the star?", ["purple", "red", "a purple star", "", "no color at all"]),
    ("shapes.png", "detect red circle", ["<loc0073><loc0000><loc0365><loc0292> red circle", "<loc0073> red", "red circle"]),
    ("grain.png", "caption en", ["a red circle", "a blue square and a green star", "a blue square and a green star "]),
    ("checks.png", "answer en how many shapes?", ["1", "2", "3", "12", "two", "caf\u00e9 \U0001f642"]),
    ("plain.png", "", ["", "\n", "yes", "no"]),
]


def log_probs(model, ids, n_prompt, **inputs):
    """Of ids [n_prompt:], each behind those before it."""
    ids = torch.tensor([ids])
    types = (torch.arange(ids.shape[1]) >= n_prompt).long()[None]
    with torch.inference_mode():
        logits = model(input_ids=ids, token_type_ids=types, attention_mask=torch.ones_like(ids), use_cache=False,
                       **inputs).logits[0, n_prompt - 1:-1]
    return torch.log_softmax(logits, -1)[torch.arange(len(logits)), ids[0, n_prompt:]].tolist()


def random_case(rng, name, model):
    vocab = model.config.text_config.vocab_size
    prompt = [int(i) for i in rng.integers(3, vocab - 100, rng.integers(1, 12))]
    answers = [[int(i) for i in rng.integers(0, vocab - 100, n)] for n in rng.integers(1, 24, rng.integers(1, 7))]
    answers += [answers[0][:1], answers[0] + [1]]
    return {"model": name, "prompt": prompt, "ids": answers,
            "log_probs": [log_probs(model, prompt + answer, len(prompt)) for answer in answers]}


def demo_case(demo, image, prompt, texts):
    with Image.open(os.path.join(DEMO, "images", image)) as opened:
        picture = opened.convert("RGB")
    ids, found = [], []
    for text in texts:
        made = demo.processor(images=picture, text=prompt, suffix=text, return_tensors="pt")
        row, n = made["input_ids"][0].tolist(), int((made["labels"][0] == -100).sum())
        ids.append(row[n:])
        found.append(log_probs(demo.model, row, n, pixel_values=made["pixel_values"].to(demo.model.dtype)))
    return {"model": "demo", "image": image, "prompt": prompt, "answers": texts, "ids": ids, "log_probs": found}


def main():
    cases = []
    for name in ("gemma1", "gemma2"):
        model = reference.Reference(os.path.join(HERE, "models", name), dtype=torch.float64).model
        cases += [random_case(np.random.default_rng([seed, 12]), name, model) for seed in range(8)]
    demo = reference.Reference(os.path.join(DEMO, "model"), dtype=torch.float64)
    cases += [demo_case(demo, *question) for question in QUESTIONS]
    with open(os.path.join(HERE, "scores.json"), "w") as f:
        f.write('{"cases": [\n' + ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases) + "\n]}\n")


if __name__ == "__main__":
    main()
