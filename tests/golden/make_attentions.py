#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Writes attentions/NAME/model.safetensors: what eager attention of transformers gives for models/NAME.

Two rows: an image, a prompt and a suffix; the second is shorter and padded on the left. "attentions" f32
[layers * rows, heads, N_QUERIES, T] is of the last N_QUERIES tokens, "bound" how far float noise carries any of them
(reference.FACTOR times what it does at the most with injected noise).
"""
import os
import sys

import numpy as np
from safetensors.numpy import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "oracle"))
import batch_reference  # noqa: E402
import reference  # noqa: E402

N_QUERIES, TEXT, SUFFIX = 14, (7, 4), (9, 6)


def inputs_of(config, rng):
    side = config.vision_config.image_size
    n_image = (side // config.vision_config.patch_size) ** 2
    n_tokens = n_image + TEXT[0] + SUFFIX[0]
    arrays = {"input_ids": np.zeros((2, n_tokens), np.int64), "attention_mask": np.zeros((2, n_tokens), np.int64),
              "token_type_ids": np.zeros((2, n_tokens), np.int64),
              "pixel_values": rng.uniform(-1, 1, (2, 3, side, side)).astype(np.float32)}
    for row in range(2):
        first = n_tokens - n_image - TEXT[row] - SUFFIX[row]
        arrays["input_ids"][row, first:] = [config.image_token_id] * n_image + rng.integers(
            4, 200, TEXT[row] + SUFFIX[row]).tolist()
        arrays["attention_mask"][row, first:] = 1
        arrays["token_type_ids"][row, n_tokens - SUFFIX[row]:] = 1
    return arrays


def attentions_of(forward):
    """[layers * rows, heads, N_QUERIES, T]"""
    n = len([stage for stage in forward.stages if stage.startswith("attentions.")])
    layers = [forward.stages[f"attentions.{i}"].swapaxes(1, 2)[:, :, -N_QUERIES:] for i in range(n)]
    return np.ascontiguousarray(np.concatenate(layers))


def main():
    for seed, name in enumerate(("gemma1", "gemma2")):
        ref = batch_reference.BatchReference(os.path.join(HERE, "models", name))
        arrays = inputs_of(ref.model.config, np.random.default_rng(seed))
        right = attentions_of(ref.forward(arrays))
        noise = max(np.abs(attentions_of(probe) - right).max() for probe in ref.noise(arrays))
        folder = os.path.join(HERE, "attentions", name)
        os.makedirs(folder, exist_ok=True)
        save_file({**arrays, "attentions": right, "bound": np.array([reference.FACTOR * noise], np.float32)},
                  os.path.join(folder, "model.safetensors"))
        print(name, right.shape, "bound", reference.FACTOR * noise)


if __name__ == "__main__":
    main()
