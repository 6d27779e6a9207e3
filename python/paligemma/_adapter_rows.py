# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""adapter_names of generate() and forward(): an adapter for each row of a batch, as PEFT has it.

The rows of one adapter are one call, and what the calls give is put together in the order of the rows.
"""
from __future__ import annotations

import inspect
from typing import Any, Callable, Sequence

import numpy as np

from . import _inputs
from ._features import given
from ._generate import plan
from .outputs import BatchFeature, like_inputs, to_numpy

BASE = "__base__"  # PEFT's name of a row without an adapter
_FEATURES = ("features", "mm_encoder_outputs")
_ROWS = ("input_ids", "inputs_embeds", "attention_mask", "token_type_ids", "position_ids", "labels")
_OF_ROWS = ("logits", "embeddings")  # what forward() gives for each row
# Arguments that see the batch as a whole, or give what is not put together, with what to do.
_APART = "call the model for the rows of one adapter at a time, with set_adapter()"
_REFUSED = ("output_hidden_states", "output_attentions", "output_last_hidden_state", "streamer", "seed")


def run(model: Any, method: Callable[..., Any], names: Sequence[str], arguments: dict[str, Any]) -> Any:
    """method: generate() or forward() of the model's class; arguments: that it was given, by name, and the model as
    "self"."""
    arguments = {name: value for name, value in arguments.items() if name != "self"}
    for kind in ("settings", "unused"):  # what their ** took
        arguments.update(arguments.pop(kind, {}))
    generates = method.__name__ == "generate"
    if generates:
        first = arguments.pop("inputs", None)
        if isinstance(first, (dict, BatchFeature)):
            return method(model, first)  # raises
        if first is not None:
            arguments["input_ids"] = first
    if "loss" not in inspect.signature(method).parameters:
        arguments.pop("labels", None)  # taken and not used
    for name in _REFUSED:
        if arguments.get(name) is not None and arguments[name] is not False:
            raise ValueError(f"adapter_names and {name} do not go together: {_APART}")
    if arguments.get("return_logits") is False:
        raise ValueError(f"adapter_names and return_logits=False do not go together: {_APART}")
    arrays = {name: arguments.pop(name) for name in (*_ROWS, "pixel_values") if arguments.get(name) is not None}
    as_torch = _inputs.any_torch(*arrays.values())
    arrays = _inputs.checked(arrays)
    groups = _groups(model, names, arrays)
    if generates:
        return _generate(model, method, groups, arrays, arguments, as_torch)
    as_dict = arguments.pop("return_dict", None) is not False
    output = _forward(model, method, groups, arrays, arguments, as_torch)
    return output if as_dict else output.to_tuple()


def _groups(model: Any, names: Sequence[str], arrays: dict[str, np.ndarray]) -> list[tuple[Any, list[int]]]:
    """(the model with the adapter, its rows) for each adapter."""
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"adapter_names is {names!r}, expected a list of str, one for each row")
    rows = arrays.get("input_ids", arrays.get("inputs_embeds", ()))
    if len(names) != len(rows):
        raise ValueError("Length of `adapter_names` should be the same as the number of inputs, but got "
                         f"{len(names)} and {len(rows)} respectively.")
    for name in _ROWS:
        if name in arrays and len(arrays[name]) != len(rows):
            raise ValueError(f"{name} has {len(arrays[name])} rows, expected {len(rows)}")
    adapters = model._adapters
    with adapters.lock:
        unknown = {*names} - {BASE, *adapters.entries}
        if unknown:
            raise ValueError(f"Trying to infer with non-existing adapter(s): {', '.join(sorted(unknown))}")
        return [(model._with_handle(adapters.of_row(name)), [row for row, of in enumerate(names) if of == name])
                for name in dict.fromkeys(names)]


def _images_of_rows(model: Any, arrays: dict[str, np.ndarray], arguments: dict[str, Any]) -> list[list[int]]:
    """The images of each row in pixel_values; features and mm_encoder_outputs have to be of each row's images all."""
    n_rows = len(arrays.get("input_ids", arrays.get("inputs_embeds", ())))
    pixels, ids = arrays.get("pixel_values"), arrays.get("input_ids")
    encoded = given(model._handle, *(arguments.get(name) for name in _FEATURES))
    if pixels is None and encoded is None:
        return [[]] * n_rows
    n = len(pixels) if pixels is not None else len(encoded or ())
    if ids is None:
        if pixels is not None and n == n_rows:
            return [[row] for row in range(n)]
        raise ValueError(f"adapter_names: found inputs_embeds of {n_rows} rows and {n} images, expected pixel_values with "
                         f"one image for each row; {_APART}")
    counts = (ids == model.config.image_token_id).sum(axis=1).tolist()
    if encoded is not None:
        if len(set(counts)) > 1 or counts[0] == 0 or counts[0] != n * _tokens(encoded):
            raise ValueError("adapter_names: found features that are not those of all images of every row, expected "
                             f"these, or pixel_values; {_APART}")
        return [[]] * n_rows
    per_image = max(1, sum(counts) // n)
    if any(count % per_image for count in counts) or sum(counts) != n * per_image:
        raise ValueError(f"the rows have {counts} image tokens, the images are {n}: image tokens and images do not match")
    first = np.concatenate([[0], np.cumsum(counts) // per_image]).tolist()
    return [list(range(first[row], first[row + 1])) for row in range(n_rows)]


def _tokens(encoded: Any) -> int:
    """Of an image."""
    return int(encoded.pooler_output.shape[1])


def _calls(method: Callable[..., Any], groups: list[tuple[Any, list[int]]], images: list[list[int]],
           arrays: dict[str, np.ndarray], arguments: dict[str, Any], as_torch: bool) -> list[Any]:
    """What the calls give. Without token_type_ids PaliGemma 1 looks at the whole batch: one row with padding, or with
    several texts, makes all of them causal, as does the type 1."""
    mask, positions = arrays.get("attention_mask"), arrays.get("position_ids")
    rows = arrays.get("input_ids", arrays.get("inputs_embeds"))
    several = mask is None and positions is not None and (np.diff(positions, axis=-1) != 1).any()
    if rows is not None and "token_type_ids" not in arrays and (several or mask is not None and not mask.all()):
        arrays = {**arrays, "token_type_ids": np.ones(rows.shape[:2], np.int64)}
    results = []
    for model, chosen in groups:
        of_images = [image for row in chosen for image in images[row]]
        parts = {name: values[of_images if name == "pixel_values" else chosen] for name, values in arrays.items()
                 if name != "pixel_values" or of_images}
        parts = {name: like_inputs(np.ascontiguousarray(values), as_torch) for name, values in parts.items()}
        results.append(method(model, **parts, **arguments))
    return results


def _generate(model: Any, method: Callable[..., Any], groups: list[tuple[Any, list[int]]],
              arrays: dict[str, np.ndarray], arguments: dict[str, Any], as_torch: bool) -> Any:
    own = ("generation_config", "cancel", "tokenizer", "max_running", *_FEATURES)
    settings = {name: value for name, value in arguments.items() if name not in own}
    chosen = plan(model.generation_config, arguments.get("generation_config"), settings, arrays)
    refused = {"return_dict_in_generate": chosen.return_dict, "stopping_criteria": chosen.criteria,
               "prefix_allowed_tokens_fn": chosen.prefix_fn, "max_time": chosen.max_time is not None}
    for name, value in refused.items():
        if value:
            raise ValueError(f"adapter_names and {name} do not go together: {_APART}")
    arguments = {**arguments, "max_new_tokens": chosen.max_new_tokens}
    arguments.pop("max_length", None)
    arrays = {**arrays, **chosen.arrays}
    images = _images_of_rows(model, arrays, arguments)
    found = [to_numpy(ids) for ids in _calls(method, groups, images, arrays, arguments, as_torch)]
    n = len(found[0]) // len(groups[0][1])  # num_return_sequences
    sequences = np.full((n * chosen.n_rows, max(ids.shape[1] for ids in found)), chosen.pad_token_id, np.int64)
    for (_, rows), ids in zip(groups, found):
        sequences[[row * n + k for row in rows for k in range(n)], :ids.shape[1]] = ids
    return like_inputs(sequences, as_torch)


def _loss(groups: list[tuple[Any, list[int]]], outputs: list[Any], labels: np.ndarray, of_rows: bool) -> np.ndarray:
    """f32 []: the mean over the labels of all rows, or over the rows, of those of the calls."""
    counts = [len(rows) if of_rows else int((labels[rows, 1:] != -100).sum()) for _, rows in groups]
    total = sum(n * float(output.loss) for n, output in zip(counts, outputs) if n)
    return np.array(total / sum(counts) if any(counts) else np.nan, np.float32)


def _forward(model: Any, method: Callable[..., Any], groups: list[tuple[Any, list[int]]],
             arrays: dict[str, np.ndarray], arguments: dict[str, Any], as_torch: bool) -> Any:
    images = _images_of_rows(model, arrays, arguments)
    outputs = _calls(method, groups, images, arrays, arguments, as_torch)
    values: dict[str, Any] = dict.fromkeys(outputs[0]._fields)
    places = {name: [rows for _, rows in groups] for name in _OF_ROWS}
    places["image_hidden_states"] = [[image for row in rows for image in images[row]] for _, rows in groups]
    if "labels" in arrays:
        values["loss"] = like_inputs(_loss(groups, outputs, arrays["labels"], arguments.get("loss") == "example"), as_torch)
    for name in dict.fromkeys(name for output in outputs for name in output if name != "loss"):
        if name == "image_hidden_states" and "pixel_values" not in arrays:  # of features that all rows share
            values[name] = outputs[0][name]
            continue
        parts = [(rows, to_numpy(output[name])) for rows, output in zip(places[name], outputs) if rows]
        whole = np.empty((sum(len(rows) for rows, _ in parts), *parts[0][1].shape[1:]), np.float32)
        for rows, part in parts:
            whole[rows] = part
        values[name] = like_inputs(whole, as_torch)
    return type(outputs[0])(**values)
