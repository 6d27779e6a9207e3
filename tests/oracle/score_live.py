#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Scores of given answers against transformers' log-softmax of teacher-forced suffixes.

    score_live.py [--seed S] [--count 40] [--build FOLDER]

Each of the N cases (seeds S, S + 1, ...) has the demo model or a fresh random checkpoint of either generation, an image, a
prompt and answers: texts, whose ids are those of transformers' processor with suffix=, with and without eos, and random
ids of 1 to 40 tokens, or of 300. transformers runs each answer alone, in f32 and in f64. Ours must be as close to f64 as a few
times transformers' own f32 is, of all tokens of the case.
"""
import os
import tempfile

import numpy as np
import torch

import checkpoints
import compare
import pglib
import reference
import seeded

DEMO = os.path.join(compare.ROOT, "examples", "demo", "model")
WORDS = ["a", "red", "circle", "purple star", "yes", "no", "two", "<loc0100><loc0200><loc0300><loc0400> cat", "caf\u00e9",
         "the image shows", "12", "on the left", "x y z"]
TIMES, FLOOR = 6, 2e-6  # of transformers' own noise; of the largest logit


class Case(seeded.SeededCase):
    n_tokens, worst = 0, 0.0

    def __init__(self, seed, folder, demo):
        super().__init__(seed, folder)
        self.rng = np.random.default_rng([seed, 91])
        self.model_folder = DEMO if seed % 3 == 0 else self.folder
        self.demo = demo

    def run(self, library):
        if self.model_folder != DEMO:
            os.makedirs(self.folder)
            checkpoints.write(checkpoints.draw(self.seed), self.folder)
            self.references = [reference.Reference(self.folder, dtype=dtype) for dtype in (torch.float32, torch.float64)]
        else:
            self.references = self.demo
        self.image = (self.rng.random((30, 50, 3)) * 255).astype(np.uint8)
        self.prompt = str(self.rng.choice(["caption en", "answer en what is it?", "", "detect cat"]))
        with pglib.Model(library, self.model_folder) as model, pglib.Processor(library, self.model_folder) as processor, \
                processor.encode_batch([self.prompt], images=[(self.image, pglib.IMAGE_RGB8)], image_counts=[1]) as inputs:
            texts = [" ".join(self.rng.choice(WORDS, self.rng.integers(1, 6))) for _ in range(self.rng.integers(1, 9))] + [""]
            self.check(model.score(processor, inputs, texts, n_threads=2), [self.suffix_ids(text) for text in texts])
            no_eos = model.score(processor, inputs, texts[:-1], flags=pglib.binding().SCORE_NO_EOS)
            self.check(no_eos, [self.suffix_ids(text)[:-1] for text in texts[:-1]])
            lengths = [*self.rng.integers(1, 40, self.rng.integers(1, 12)), *([300] if self.seed % 4 == 0 else [])]
            image_id = self.references[0].model.config.image_token_id
            vocab = model.info().vocab_size
            ids = [[int(i) for i in self.rng.integers(0, vocab, n) if i != image_id] or [0] for n in lengths]
            self.check(model.score(processor, inputs, ids), ids)

    def suffix_ids(self, text):
        made = self.references[0].processor(images=self.image, text=self.prompt, suffix=text, return_tensors="pt")
        return made["labels"][0][made["labels"][0] != -100].tolist()

    def forced(self, ref, answer):
        """-> (log-probabilities of the answer's tokens, the largest logit) by one forward pass"""
        made = ref.processor(images=self.image, text=self.prompt, return_tensors="pt")
        n = made["input_ids"].shape[1]
        ids = torch.cat([made["input_ids"], torch.tensor([answer])], 1)
        types = (torch.arange(ids.shape[1]) >= n).long()[None]
        with torch.inference_mode():
            logits = ref.model(input_ids=ids, token_type_ids=types, attention_mask=torch.ones_like(ids), use_cache=False,
                               pixel_values=made["pixel_values"].to(ref.model.dtype)).logits[0, n - 1:-1]
        found = torch.log_softmax(logits, -1)[torch.arange(len(answer)), torch.tensor(answer)]
        return found.double().numpy(), float(logits.abs().max())

    def check(self, ours, expected):
        wrong, noise, errors, largest = [], 0.0, [], 0.0
        for (ids, log_probs), answer in zip(ours, expected):
            if ids.tolist() != answer:
                wrong.append(f"ids {ids.tolist()}, expected {answer}")
                continue
            (theirs, _), (exact, logit) = (self.forced(ref, answer) for ref in self.references)
            noise, largest = max(noise, np.abs(theirs - exact).max()), max(largest, logit)
            errors.append(np.abs(log_probs - exact).max())
            Case.n_tokens += len(answer)
        bound = TIMES * noise + FLOOR * largest
        Case.worst = max([Case.worst, *(error / bound for error in errors)])
        wrong += [f"answer {i}: {error:.3g} beside f64, expected at most {bound:.3g}" for i, error in enumerate(errors)
                  if not error <= bound]
        self.expect(wrong, f"{len(expected)} answers to {self.prompt!r}")


def main():
    args = seeded.arguments(__doc__, 40).parse_args()
    torch.set_num_threads(1)
    library, passed, failed = pglib.Library(args.build), 0, 0
    demo = [reference.Reference(DEMO, dtype=dtype) for dtype in (torch.float32, torch.float64)]
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeded.seeds(args.seed, args.count):
            case = Case(seed, folder, demo)
            case.run(library)
            passed, failed = passed + case.passed, failed + case.failed
    print(f"{Case.n_tokens} tokens; the worst error is {Case.worst:.2f} of its bound")
    seeded.end(passed, failed)


if __name__ == "__main__":
    main()
