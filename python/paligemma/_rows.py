# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""A batch as rows, for the calls that take one."""
from __future__ import annotations

import numpy as np


def split(arrays: dict[str, np.ndarray], image_token_id: int) -> list[dict[str, np.ndarray]]:
    """Each row's arrays [1, T, ...] with the images that its <image> tokens stand for.

    arrays: input_ids i64 [B, T] or inputs_embeds f32 [B, T, hidden], pixel_values f32 [n_images, 3, S, S], the rest
        i64 [B, T].
    """
    n_rows = len(arrays.get("input_ids", arrays.get("inputs_embeds")))
    if n_rows == 1:
        return [arrays]
    pixels, ids = arrays.get("pixel_values"), arrays.get("input_ids")
    if pixels is not None and ids is None:
        raise ValueError("pixel_values with inputs_embeds of several rows: which row has which image is unknown")
    rows = [{k: v[i:i + 1] for k, v in arrays.items() if k != "pixel_values"} for i in range(n_rows)]
    if pixels is None or not len(pixels):
        return rows
    counts = (ids == image_token_id).sum(axis=1)
    n_tokens, rest = divmod(int(counts.sum()), len(pixels))
    if rest or not n_tokens or (counts % n_tokens).any():
        raise ValueError(f"rows have {counts.tolist()} image tokens, which {len(pixels)} images do not fill")
    first = 0
    for row, count in zip(rows, counts // n_tokens):
        if count:
            row["pixel_values"] = pixels[first:first + count]
        first += count
    return rows
