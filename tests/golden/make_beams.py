#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Writes beams.json: what transformers' beam search finds with the models of this folder.

    make_beams.py

Prompts are ids without an image; test_beams.c replays them. A case in which two of the hypotheses are within CLOSE of one
another is left out: float noise may exchange them.
"""
import json
import os
import sys

import numpy as np
import torch

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "oracle"))
import reference  # noqa: E402

CASES, CLOSE = 48, 2e-3


def main():
    models = {name: reference.Reference(os.path.join(HERE, "models", name)).model for name in ("gemma1", "gemma2")}
    cases, seed = [], 0
    while len(cases) < CASES:
        rng = np.random.default_rng([seed, 6])
        name = ("gemma1", "gemma2")[seed % 2]
        seed += 1
        vocab = models[name].config.text_config.vocab_size
        prompt = [int(i) for i in rng.integers(3, vocab - 100, rng.integers(1, 9))]
        n_beams = int(rng.integers(2, 7))
        settings = {"num_beams": n_beams, "length_penalty": round(float(rng.normal(1, 1)), 3),
                    "early_stopping": [False, True, "never"][rng.integers(3)], "max_new_tokens": int(rng.integers(1, 12)),
                    # any id may be an eos id: a random model says it now and then
                    "eos_token_id": [1] + [int(i) for i in rng.integers(3, vocab, 40)]}
        if seed % 3 == 0:
            settings["no_repeat_ngram_size"] = int(rng.integers(1, 3))
        with torch.no_grad():
            found = models[name].generate(input_ids=torch.tensor([prompt]), token_type_ids=torch.zeros(1, len(prompt), dtype=int),
                                          attention_mask=torch.ones(1, len(prompt), dtype=int), **settings, do_sample=False,
                                          num_return_sequences=n_beams, return_dict_in_generate=True, output_scores=True)
        scores = found.sequences_scores.numpy()
        if len(scores) > 1 and np.diff(scores).max() > -CLOSE or scores.min() < -1e8:
            continue
        lengths = (found.beam_indices.numpy() >= 0).sum(axis=1)
        cases.append({"model": name, "prompt": prompt, "settings": settings, "scores": [float(s) for s in scores],
                      "ids": [row[len(prompt):len(prompt) + n].tolist() for row, n in zip(found.sequences, lengths)],
                      "beams": [row[:n].tolist() for row, n in zip(found.beam_indices, lengths)]})
    with open(os.path.join(HERE, "beams.json"), "w") as f:
        f.write('{"cases": [\n' + ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases) + "\n]}\n")


if __name__ == "__main__":
    main()
