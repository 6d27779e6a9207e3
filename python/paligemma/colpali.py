# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""ColPali in the shape of transformers: a page or a query to one embedding for each token, and their scores.

    model = ColPaliForRetrieval.from_pretrained(model_id)
    processor = ColPaliProcessor.from_pretrained(model_id)
    pages = model(**processor.process_images(images)).embeddings
    queries = model(**processor.process_queries(["Where is the cat?"])).embeddings
    scores = processor.score_retrieval(queries, pages)
"""
from __future__ import annotations

import ctypes
import importlib.util
import json
import os
from typing import Any, Sequence

import numpy as np

from . import _hub, _inputs, _library as c
from ._adapters import one_handle
from ._handle import array
from ._run import CancelFlag
from .model import Features, PaliGemmaForConditionalGeneration
from .outputs import BatchFeature, ModelOutput, is_torch_tensor, like_inputs, to_numpy
from .processor import PaliGemmaProcessor


class ColPaliForRetrievalOutput(ModelOutput):
    """loss (None), embeddings, past_key_values (None), hidden_states, attentions (None), image_hidden_states."""


class ColPaliForRetrieval(PaliGemmaForConditionalGeneration):
    """A ColPali checkpoint: of transformers' ColPaliForRetrieval, or merged by colpali-engine. generate() is that of the
    PaliGemma inside, whose head is its embedding; transformers' class has none."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        info = c.ModelInfo()
        with self._handle.use() as pointer:
            c.check(c.lib.pg_model_get_info(pointer, ctypes.byref(info)))
        self.embedding_dim: int = info.embedding_dim
        if not self.embedding_dim:
            self.close()
            raise ValueError(f"{self.name_or_path}: found no projection (embedding_proj_layer or custom_text_proj), "
                             "expected a ColPali checkpoint")

    @one_handle
    def forward(self, input_ids: Any = None, pixel_values: Any = None, attention_mask: Any = None, *,
                token_type_ids: Any = None, inputs_embeds: Any = None, position_ids: Any = None, labels: Any = None,
                output_hidden_states: bool | None = None, return_dict: bool | None = None,
                features: Features | None = None, cancel: CancelFlag | None = None,
                adapter_names: Sequence[str] | None = None, **unused: Any) -> Any:
        """.embeddings f32 [B, T, embedding_dim]: of each token, of length 1; 0 on padding. .image_hidden_states and, with
        output_hidden_states, .hidden_states as of PaliGemma. labels are taken and not used. adapter_names as of PaliGemma."""
        arrays = dict(input_ids=input_ids, inputs_embeds=inputs_embeds, attention_mask=attention_mask,
                      token_type_ids=token_type_ids, position_ids=position_ids, pixel_values=pixel_values)
        flags = c.FORWARD_RETRIEVAL | c.FORWARD_NO_LOGITS | c.FORWARD_NO_LOSS
        flags |= c.FORWARD_HIDDEN_STATES if output_hidden_states else c.FORWARD_SKIP_PADDING
        handle = self._run_forward(arrays, flags, features, cancel)
        as_torch, values = _inputs.any_torch(*arrays.values()), {}
        for name in ("embeddings", "hidden_states", "image_hidden_states"):
            try:
                found = array(handle, c.lib.pg_outputs_get_tensor, name.encode())
            except FileNotFoundError:
                continue
            if name == "image_hidden_states" and features is not None:
                found = found.copy()  # theirs is the memory, and other prompts are to find it as it was
            values[name] = tuple(like_inputs(layer, as_torch) for layer in found) if name == "hidden_states" \
                else like_inputs(found, as_torch)
        output = ColPaliForRetrievalOutput(loss=None, embeddings=values["embeddings"], past_key_values=None,
                                           hidden_states=values.get("hidden_states"), attentions=None,
                                           image_hidden_states=values.get("image_hidden_states"))
        return output.to_tuple() if return_dict is False else output


def is_of_colpali(folder: str) -> bool:
    """Whether transformers' AutoProcessor gives a ColPaliProcessor: the processor's class is asked first, then the
    model's type."""
    for name, key, value in (("processor_config.json", "processor_class", "ColPaliProcessor"),
                             ("preprocessor_config.json", "processor_class", "ColPaliProcessor"),
                             ("tokenizer_config.json", "processor_class", "ColPaliProcessor"),
                             ("config.json", "model_type", "colpali")):
        try:
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                found = json.load(file)
        except (OSError, ValueError):
            continue
        if isinstance(found, dict) and found.get(key):
            return found[key] == value
    return False


def _settings(folder: str) -> dict[str, Any]:
    """What the folder says of the texts around images and queries."""
    try:
        with open(os.path.join(folder, "processor_config.json"), encoding="utf-8") as file:
            found = json.load(file)
    except FileNotFoundError:
        return {}
    return found if isinstance(found, dict) else {}


class ColPaliProcessor:
    """transformers' ColPaliProcessor: images alone or queries alone. Its settings are those of the folder."""

    def __init__(self, processor: PaliGemmaProcessor, visual_prompt_prefix: str = "Describe the image.",
                 query_prefix: str = "Question: ") -> None:
        self._processor = processor
        self.visual_prompt_prefix, self.query_prefix = visual_prompt_prefix, query_prefix
        self.tokenizer, self.image_processor = processor.tokenizer, processor.image_processor
        self.image_seq_length = processor.image_seq_length
        self.image_token, self.image_token_id = processor.image_token, processor.image_token_id

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], *, revision: str | None = None,
                        cache_dir: str | os.PathLike[str] | None = None, subfolder: str = "",
                        visual_prompt_prefix: str | None = None, query_prefix: str | None = None,
                        **kwargs: Any) -> ColPaliProcessor:
        """Opens the processor of a checkpoint folder, or of a model id in the local Hugging Face cache."""
        _hub.check_arguments(kwargs)
        folder = _hub.find(pretrained_model_name_or_path, revision, cache_dir, subfolder)
        settings = {name: value for name, value in _settings(folder).items()
                    if name in ("visual_prompt_prefix", "query_prefix") and isinstance(value, str)}
        given = {"visual_prompt_prefix": visual_prompt_prefix, "query_prefix": query_prefix}
        settings.update({name: value for name, value in given.items() if value is not None})
        return cls(PaliGemmaProcessor.from_pretrained(folder), **settings)

    def close(self) -> None:
        """Frees the processor; later calls raise ValueError."""
        self._processor.close()

    def __enter__(self) -> ColPaliProcessor:
        self._processor.__enter__()
        return self

    def __exit__(self, *unused: Any) -> None:
        self.close()

    @property
    def query_augmentation_token(self) -> str:
        """Ten of them follow a query: room to reason in."""
        return self.tokenizer.pad_token

    def __call__(self, images: Any = None, text: str | Sequence[str] | None = None, suffix: str | None = None, *,
                 return_tensors: str | None = None, padding: bool | str = "longest", max_length: int | None = None,
                 **kwargs: Any) -> BatchFeature:
        """images: an image or a list of them; text: a query or a list of them; one of the two.
        suffix: what follows each query, ten pad tokens unless given. return_tensors: "pt" where torch is installed, else
        "np"."""
        if text is not None and images is not None:
            raise ValueError("Only one of text or images can be processed at a time")
        if text is None and images is None:
            raise ValueError("Either text or images must be provided")
        if return_tensors is None:
            return_tensors = "pt" if importlib.util.find_spec("torch") else "np"
        settings = dict(kwargs, return_tensors=return_tensors, padding=padding)
        if images is None:
            suffix = self.query_augmentation_token * 10 if suffix is None else suffix
            texts = [text] if isinstance(text, str) else list(text)
            if max_length is not None:
                settings["max_length"] = max_length + self.image_seq_length
            texts = [f"{self.query_prefix}{one}{suffix}" for one in texts]
            batch = self._processor(text=texts, image_counts=0, **settings)
            batch.data.pop("labels", None)
            return batch
        if max_length is not None:
            settings["max_length"] = max_length
        images = list(images) if isinstance(images, (list, tuple)) else [images]
        flat = [image for row in images for image in (row if isinstance(row, (list, tuple)) else [row])]
        texts = [self.visual_prompt_prefix] * len(flat)
        batch = self._processor(images=[[image] for image in flat], text=texts, **settings)
        labels = np.full(np.shape(to_numpy(batch["input_ids"])), -100, np.int64)  # no token is of type 1
        batch["labels"] = like_inputs(labels, return_tensors == "pt")
        return batch

    def process_images(self, images: Any = None, **kwargs: Any) -> BatchFeature:
        """__call__(images=...)"""
        return self(images=images, **kwargs)

    def process_queries(self, text: str | Sequence[str], **kwargs: Any) -> BatchFeature:
        """__call__(text=...)"""
        return self(text=text, **kwargs)

    def score_retrieval(self, query_embeddings: Any, passage_embeddings: Any, batch_size: int = 128,
                        **unused: Any) -> Any:
        """f32 [queries, pages]: for each token of a query the largest dot product with a token of the page, summed.
        Lists of [T, dim], or [n, T, dim]. batch_size: pages that are compared at a time."""
        if len(query_embeddings) == 0:
            raise ValueError("No queries provided")
        if len(passage_embeddings) == 0:
            raise ValueError("No passages provided")
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, expected 1 or more")
        queries = [to_numpy(one, np.float32) for one in query_embeddings]
        scores = np.empty((len(queries), len(passage_embeddings)), np.float32)
        for first in range(0, len(passage_embeddings), batch_size):
            pages = [to_numpy(one, np.float32) for one in passage_embeddings[first:first + batch_size]]
            tokens = np.zeros((len(pages), max(len(page) for page in pages), pages[0].shape[1]), np.float32)
            for index, page in enumerate(pages):  # padded with zeros, as in transformers
                tokens[index, :len(page)] = page
            for index, query in enumerate(queries):
                scores[index, first:first + len(pages)] = (tokens @ query.T).max(1).sum(1)
        return like_inputs(scores, any(is_torch_tensor(one) for one in query_embeddings))
