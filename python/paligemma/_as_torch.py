# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""What code that was written for a torch module asks of a model: harmless calls change nothing, the others say why."""
from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from . import _inputs, _library as c
from ._handle import Handle
from .outputs import is_torch_tensor, like_inputs, to_numpy, torch_if_loaded

_TRAINING = "the weights of the model stay as they are: paligemma.Trainer(model) trains a LoRA adapter over them"
_NO_TENSORS = ("the weights are mapped by the C library and are no torch parameters: ask model.device, model.dtype, "
               "model.num_parameters() or model.get_memory_footprint(); there is nothing to freeze, paligemma.Trainer("
               "model).parameters() has what is trained over them")
# Names of modules inside transformers' model, and what is here in their place.
_MODULES = {
    "vision_tower": "get_image_features(pixel_values) and encode_image() run encoder and projector",
    "multi_modal_projector": "get_image_features(pixel_values) and encode_image() run encoder and projector",
    "language_model": "model(..., output_hidden_states=True) and model.embed() give its hidden states",
    "lm_head": "model(...).logits has its output",
    "model": "model(...), model.embed() and get_image_features() give what its parts give",
    "base_model": "model(...), model.embed() and get_image_features() give what its parts give",
}


class InputEmbeddings:
    """get_input_embeddings(): ids [...] to f32 [..., hidden_size], multiplied by sqrt(hidden_size) as in transformers
    5.23: what inputs_embeds are."""

    def __init__(self, model: Handle, n_rows: int, width: int) -> None:
        self._model = model
        self.num_embeddings, self.embedding_dim = n_rows, width

    def __call__(self, ids: Any) -> Any:
        values = to_numpy(ids)
        if values.dtype.kind not in "iu":
            raise TypeError(f"the ids are {values.dtype}, expected integers")
        values = np.ascontiguousarray(values, np.int64)
        out = np.empty((*values.shape, self.embedding_dim), np.float32)
        with self._model.use() as pointer:
            c.check(c.lib.pg_model_embed(pointer, values.ctypes.data_as(c.P(c.i64)), values.size,
                                         out.ctypes.data_as(c.P(c.f32))))
        return like_inputs(out, is_torch_tensor(ids))

    forward = __call__

    @property
    def weight(self) -> Any:
        raise AttributeError("get_input_embeddings() has no weight tensor: call it with ids")


class AsTorchModule:
    """The part of PaliGemmaForConditionalGeneration that a torch module and transformers' PreTrainedModel have."""

    _handle: Handle
    config: Any
    main_input_name = "input_ids"
    base_model_prefix = "model"
    is_gradient_checkpointing = False
    training = False

    def eval(self) -> Any:
        return self

    def train(self, mode: bool = True) -> Any:
        if mode:
            raise ValueError(_TRAINING)
        return self

    def requires_grad_(self, requires_grad: bool = False) -> Any:
        if requires_grad:
            raise ValueError(_TRAINING)
        return self

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """Itself: the model lives on the CPU and computes in f32, dtypes are ignored. Another device: ValueError."""
        for value in (*args, *kwargs.values()):
            name = str(getattr(value, "type", value)).split(":")[0]
            is_index = isinstance(value, int) and not isinstance(value, bool)
            if name in ("cuda", "mps", "xpu", "npu", "meta") or is_index:
                raise ValueError(f"the model cannot move to {value!r}: libpaligemma runs on the CPU")
        return self

    def cpu(self) -> Any:
        return self

    def float(self) -> Any:
        return self

    half = bfloat16 = tie_weights = float  # nothing changes

    def cuda(self, device: Any = None) -> Any:
        return self.to("cuda")

    def can_generate(self) -> bool:
        return True

    @property
    def device(self) -> Any:
        """torch.device("cpu") when torch is loaded, else "cpu"."""
        torch = torch_if_loaded()
        return torch.device("cpu") if torch else "cpu"

    @property
    def dtype(self) -> Any:
        """f32, in which everything is computed: torch's when torch is loaded, else numpy's."""
        torch = torch_if_loaded()
        return torch.float32 if torch else np.dtype(np.float32)

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """Elements of all tensors in use, a tied head counted once; trainable ones: 0. exclude_embeddings: without
        those of the ids and of the patches' positions, as in transformers."""
        info = c.ModelInfo()
        with self._handle.use() as pointer:
            c.check(c.lib.pg_model_get_info(pointer, ctypes.byref(info)))
        if only_trainable:
            return 0
        text, vision = self.config.text_config, self.config.vision_config
        embeddings = text.vocab_size * text.hidden_size + info.n_image_tokens * vision.hidden_size
        return info.n_parameters - (embeddings if exclude_embeddings else 0)

    def get_memory_footprint(self, return_buffers: bool = True) -> int:
        """Bytes of the weights, mapped and copied; what a call takes beside them is not in it."""
        memory = c.Memory(n_threads=1)
        with self._handle.use() as pointer:
            c.check(c.lib.pg_model_get_memory(pointer, ctypes.byref(memory)))
        return memory.weights + memory.weights_copied

    def get_input_embeddings(self) -> InputEmbeddings:
        text = self.config.text_config
        return InputEmbeddings(self._handle, text.vocab_size, text.hidden_size)

    # -- what it cannot have

    def _no_tensors(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(_NO_TENSORS)

    parameters = named_parameters = buffers = named_buffers = state_dict = load_state_dict = modules = _no_tensors
    named_modules = children = named_children = get_parameter = get_submodule = get_output_embeddings = _no_tensors

    def _no_training(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(_TRAINING)

    gradient_checkpointing_enable = enable_input_require_grads = zero_grad = resize_token_embeddings = _no_training

    def __getattr__(self, name: str) -> Any:
        if name in _MODULES:
            raise AttributeError(f"{type(self).__name__} has no {name!r}: it is no tree of torch modules; "
                                 f"{_MODULES[name]}")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
