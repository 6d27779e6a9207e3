#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Rows of more than 8,192 tokens against transformers: a random checkpoint of each Gemma, a prompt of 8,300 and more.

    long_rows.py [--seed S] [--build FOLDER]

Most of the prompt are images, 8,192 tokens of them, as two images of 896 pixels have. Checked are the hidden states of
every layer and the last logits of pg_forward, and 20 generated ids of pg_generate and of a session. Bounds as README.md
says. It takes some minutes and 4 GB: transformers' eager attention takes the square of the row.
"""
import argparse
import os
import sys
import tempfile

import numpy as np
import torch

import batch_reference
import checkpoints
import compare
import pglib
import reference
import seeded

PER_IMAGE, N_IMAGES, N_NEW = 64, 128, 20


class Case(seeded.SeededCase):
    def spec(self, gemma_version):
        """A checkpoint of checkpoints.py with few heads, images of 64 tokens and a window that ends within the row."""
        spec = next(s for s in map(checkpoints.draw, range(self.seed, self.seed + 1000))
                    if s["gemma_version"] == gemma_version)
        spec["vision"].update(patch_size=7, image_size=56, num_hidden_layers=1)
        spec["text"].update(num_attention_heads=2, num_key_value_heads=1, num_hidden_layers=2, hidden_size=64)
        spec["text"].pop("layer_types", None)
        if gemma_version == 2:
            spec["text"]["sliding_window"] = 4096
        return spec

    def arrays(self, config):
        rng = np.random.default_rng([self.seed, 71])
        text = rng.integers(4, config.image_token_id - 1152, 120 + int(rng.integers(0, 50)))
        ids = np.concatenate([np.full(PER_IMAGE * N_IMAGES, config.image_token_id), [2], text])[None]
        return dict(input_ids=ids, attention_mask=np.ones_like(ids), token_type_ids=np.zeros_like(ids),
                    pixel_values=rng.uniform(-1, 1, (N_IMAGES, 3, 56, 56)).astype(np.float32))

    def run(self, library, gemma_version):
        folder = os.path.join(self.folder, str(gemma_version))
        checkpoints.write(self.spec(gemma_version), folder)
        ref = batch_reference.BatchReference(folder)
        given = self.arrays(ref.model.config)
        what = f"Gemma {gemma_version}, {given['input_ids'].shape[1]} tokens"
        with pglib.Model(library, folder) as model, pglib.Processor(library, folder) as processor, \
                library.make_inputs(**given) as inputs:
            self.expect(self.check_forward(ref, given, model, inputs), what + ": forward")
            self.expect(self.check_generate(ref, given, model, processor, inputs), what + ": generate")

    def check_forward(self, ref, given, model, inputs):
        asked = dict(logits_to_keep=8, output_attentions=False)  # those of 8,192 tokens are gigabytes
        exact, probes = ref.forward(given, **asked), ref.noise(given, 2, **asked)
        with model.forward(inputs, flags=pglib.FORWARD_HIDDEN_STATES, logits_to_keep=8, n_threads=0) as outputs:
            ours = {"logits": outputs["logits"], "features": outputs["image_hidden_states"]}
            ours.update({f"hidden.{i}": layer for i, layer in enumerate(outputs["hidden_states"])})
        wrong = []
        for stage, right in exact.stages.items():
            noise = [reference.distance(probe.stages[stage], right) for probe in probes]
            limits = [reference.FACTOR * max(column) for column in zip(*noise)]
            found = reference.distance(ours[stage], right)
            if found[0] > limits[0] or found[1] > limits[1]:
                wrong.append(f"{stage}: found {found}, at most {limits}")
        return wrong

    def check_generate(self, ref, given, model, processor, inputs):
        expected, logits = ref.generate(given, N_NEW)
        n = ref.open_steps(given, expected, logits)[0]
        found = model.generate(processor, inputs, max_new_tokens=N_NEW, n_threads=0)[0][0]
        with pglib.Session(model, max_new_tokens=N_NEW) as session:
            stepped, _ = session.generate(inputs)
        wrong = [] if found[:n] == expected[0][:n] else [f"found {found}, expected {expected[0]}, equal for {n} steps"]
        return wrong + ([] if stepped == found else [f"a session gives {stepped}, pg_generate {found}"])


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--seed", type=int, help="of the checkpoints (default: fresh)")
    args.add_argument("--build", default=compare.default_build(), help="the build folder ($PG_BUILD or ./build)")
    args = args.parse_args()
    seed = args.seed if args.seed is not None else int.from_bytes(os.urandom(4), "little")
    print(f"seed {seed}", flush=True)
    torch.set_num_threads(os.cpu_count() or 1)
    library = pglib.Library(args.build)
    with tempfile.TemporaryDirectory() as folder:
        case = Case(seed, folder)
        for gemma_version in (1, 2):
            case.run(library, gemma_version)
    print(f"{case.passed} passed, {case.failed} failed")
    sys.exit(1 if case.failed else 0)


if __name__ == "__main__":
    main()
