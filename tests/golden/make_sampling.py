#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Writes sampling.json: settings of sampling, logits, and the scores that transformers' processors leave of them.

    make_sampling.py

The settings are those of tests/oracle/sampling_live.py, for a vocabulary of VOCAB ids; test_sampling.c replays them. A case in
which equally likely ids lie at a bound is left out: torch's sort keeps any of them. Scores: null is -inf.
"""
import json
import os
import sys

import numpy as np
import torch

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "oracle"))
import reference  # noqa: E402
import sampling_live  # noqa: E402

VOCAB, CASES = 64, 120
EOS = 1


def numbers(array):
    return [float(x) if np.isfinite(x) else None for x in array]


def main():
    model = reference.Reference(sampling_live.DEMO).model
    cases, seed = [], 0
    while len(cases) < CASES:
        rng = np.random.default_rng([seed, 5])
        seed += 1
        prompt = [int(i) for i in rng.integers(2, VOCAB, rng.integers(1, 12))]
        new = [int(i) for i in rng.integers(2, VOCAB, rng.integers(0, sampling_live.MAX_NEW))]
        settings = sampling_live.draw_settings(rng, VOCAB, prompt + new, [EOS])
        settings.pop("renormalize_logits", None)  # equal to rounding alone
        logits = (rng.normal(size=VOCAB) * 3).astype(np.float32)
        try:
            processors = sampling_live.processors_of(model, settings, len(prompt))
            scores = processors(torch.tensor([prompt + new]), torch.tensor(logits[None]))[0].numpy()
        except ValueError:
            continue
        left = scores[np.isfinite(scores)]
        if not left.size or np.isnan(scores).any() or len(settings.get("forced_eos_token_id", [])) > 1:
            continue
        cases.append({"settings": settings, "prompt": prompt, "new": new, "max_new": sampling_live.MAX_NEW,
                      "logits": numbers(logits), "scores": numbers(scores)})
    with open(os.path.join(HERE, "sampling.json"), "w") as f:
        f.write('{"vocab_size": %d, "cases": [\n' % VOCAB)
        f.write(",\n".join(json.dumps(case, separators=(",", ":")) for case in cases) + "\n]}\n")


if __name__ == "__main__":
    main()
