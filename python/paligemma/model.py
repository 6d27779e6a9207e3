# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""PaliGemmaForConditionalGeneration: forward, generate, stream, encode_image and embed on an opened checkpoint."""
from __future__ import annotations

import ctypes
import os
from typing import Any, Iterator

import numpy as np

from . import _hub, _inputs, _library as c
from ._checkpoint import open_model
from ._generate import Plan, plan
from ._handle import Handle, array
from ._run import CancelFlag, interruptible
from ._rows import split as _rows
from ._stream import pieces, tokens
from .config import GenerationConfig, PaliGemmaConfig
from .outputs import BatchFeature, ModelOutput, PaliGemmaCausalLMOutput, like_inputs, to_numpy, torch_if_loaded
from .processor import open_handle


class Features:
    """Encoded images, for any number of prompts: generate(..., features=features); close() or `with` frees them.

    pooler_output: f32 [n_images, n_image_tokens, hidden_size], the projector's output.
    """

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    @property
    def pooler_output(self) -> np.ndarray:
        values = array(self._handle, c.lib.pg_features_get_tensor)
        values.flags.writeable = False  # the memory that generate() reads
        return values

    def __len__(self) -> int:
        """The number of images."""
        return len(self.pooler_output)

    @property
    def closed(self) -> bool:
        return self._handle.closed

    def close(self) -> None:
        self._handle.close()

    def __enter__(self) -> Features:
        self._handle.check_open()
        return self

    def __exit__(self, *unused: Any) -> None:
        self.close()


class PaliGemmaForConditionalGeneration:
    """A model on the CPU, for inference, in f32, in bf16 or with int8 or int4 weights; from_pretrained() opens one,
    close() or `with` ends it.

    Any number of threads may use one model at a time.
    """

    def __init__(self, folder: str, n_threads: int = 0, cpu: str | None = None,
                 weights: str = "stored", arithmetic: str | None = None,
                 attn_implementation: str | dict[str, str] | None = None, disable_mmap: bool = False) -> None:
        """folder: a checkpoint; n_threads: for all calls, 0 is the CPUs that this process may use;
        cpu: hold the instruction set down to "baseline", "avx2" or "avx512"; weights: "stored", or "int8" or "int4" to
        quantize them now; arithmetic: "f32", or "bf16" to round the factors of large products where that makes the CPU
        faster; None is f32, but for attention beside int8 and int4 weights; attn_implementation: "eager" makes rows
        without token_type_ids causal in PaliGemma 1, too, as it does in transformers; disable_mmap: read the weights
        into memory of this process, so that nothing that happens to the files later matters."""
        self.name_or_path = folder
        self._folder = os.path.abspath(folder)  # a later chdir is no matter
        self._processor: Handle | None = None  # the folder's own, opened when first needed
        self.n_threads = n_threads
        self._cpu = cpu
        self._weights, self._arithmetic, self._attention = weights, arithmetic, attn_implementation
        self._disable_mmap = bool(disable_mmap)
        of_text = attn_implementation if not isinstance(attn_implementation, dict) else (
            attn_implementation.get("text_config", attn_implementation.get("")))
        self._eager = of_text == "eager"
        self._handle = open_model(folder, cpu, weights, arithmetic, self._disable_mmap)
        self.config = PaliGemmaConfig._of_model(self._handle.pointer)
        self.generation_config = GenerationConfig._of_folder(folder, self.config)
        self._eos_token_id = self.generation_config.eos_token_id  # where the library ends, whatever is set later
        self.training = False

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], *, revision: str | None = None,
                        cache_dir: str | os.PathLike[str] | None = None, subfolder: str = "", n_threads: int = 0,
                        cpu: str | None = None, weights: str = "stored", arithmetic: str | None = None,
                        attn_implementation: str | dict[str, str] | None = None, disable_mmap: bool = False,
                        **kwargs: Any) -> PaliGemmaForConditionalGeneration:
        """Opens a checkpoint folder, or a model id in the local Hugging Face cache; the network is never used.

        Other arguments of transformers' from_pretrained() are taken where they change nothing here: dtype and
        torch_dtype (see `arithmetic`), device_map "auto" or "cpu", low_cpu_mem_usage, token, ...
        (paligemma._hub.HARMLESS). Those that would change results, such as quantization_config, are refused.
        n_threads, cpu, weights, arithmetic, attn_implementation and disable_mmap: as of the class.
        Raises FileNotFoundError, OSError (damaged files), NotImplementedError (sound, but not run by this version),
        ValueError (an argument; weights that the folder was not converted to).
        """
        _hub.check_arguments(kwargs)
        folder = _hub.find(pretrained_model_name_or_path, revision, cache_dir, subfolder)
        return cls(folder, n_threads, cpu, weights, arithmetic, attn_implementation, disable_mmap)

    def __reduce__(self) -> Any:
        """A copy, in this process or another, opens the checkpoint again; the mapped weights are shared."""
        self._handle.check_open()
        return (type(self), (self._folder, self.n_threads, self._cpu, self._weights, self._arithmetic,
                             self._attention, self._disable_mmap),
                {"generation_config": self.generation_config})

    # -- what a torch module has

    def eval(self) -> PaliGemmaForConditionalGeneration:
        return self

    def train(self, mode: bool = True) -> PaliGemmaForConditionalGeneration:
        if mode:
            raise ValueError("libpaligemma runs models and does not train them; examples/finetune.py trains with torch")
        return self

    def requires_grad_(self, requires_grad: bool = False) -> PaliGemmaForConditionalGeneration:
        if requires_grad:
            raise ValueError("libpaligemma computes no gradients")
        return self

    def to(self, *args: Any, **kwargs: Any) -> PaliGemmaForConditionalGeneration:
        """Itself: the model lives on the CPU and computes in f32, dtypes are ignored. Another device: ValueError."""
        for value in (*args, *kwargs.values()):
            name = str(getattr(value, "type", value)).split(":")[0]
            is_index = isinstance(value, int) and not isinstance(value, bool)
            if name in ("cuda", "mps", "xpu", "npu", "meta") or is_index:
                raise ValueError(f"the model cannot move to {value!r}: libpaligemma runs on the CPU")
        return self

    def cpu(self) -> PaliGemmaForConditionalGeneration:
        return self

    def float(self) -> PaliGemmaForConditionalGeneration:
        return self

    half = bfloat16 = float  # as to(dtype): nothing changes

    def cuda(self, device: Any = None) -> PaliGemmaForConditionalGeneration:
        return self.to("cuda")

    main_input_name = "input_ids"

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

    def num_parameters(self, only_trainable: bool = False) -> int:
        info = c.ModelInfo()
        with self._handle.use() as pointer:
            c.check(c.lib.pg_model_get_info(pointer, ctypes.byref(info)))
        return 0 if only_trainable else info.n_parameters

    # -- closing

    def close(self) -> None:
        """Frees the model when the calls under way are over; later calls raise ValueError."""
        self._handle.close()

    @property
    def closed(self) -> bool:
        return self._handle.closed

    def __enter__(self) -> PaliGemmaForConditionalGeneration:
        self._handle.check_open()
        return self

    def __exit__(self, *unused: Any) -> None:
        self.close()

    # -- forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """forward()."""
        return self.forward(*args, **kwargs)

    def forward(
        self,
        input_ids: Any = None,
        pixel_values: Any = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        past_key_values: None = None,
        token_type_ids: Any = None,
        inputs_embeds: Any = None,
        labels: Any = None,
        use_cache: bool | None = None,
        logits_to_keep: Any = 0,
        *,
        output_hidden_states: bool | None = None,
        output_last_hidden_state: bool = False,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        features: Features | None = None,
        loss: str = "token",
        skip_padding: bool = False,
        cancel: CancelFlag | None = None,
        cache_position: Any = None,
        return_logits: bool = True,
    ) -> Any:
        """One pass over B rows of T tokens; arrays, tensors or lists, and the outputs are tensors if an input is.

        input_ids i64 [B, T], or inputs_embeds f32 [B, T, hidden]; pixel_values f32 [n_images, 3, S, S] or `features`;
        attention_mask, token_type_ids (0: prompt, sees all of it; 1: suffix, causal), position_ids, labels i64 [B, T].
        Without token_type_ids, as in transformers: PaliGemma 1 lets each token see its whole row, unless a row of the
        batch has padding or attn_implementation is "eager"; then, and in PaliGemma 2, all rows are causal.
        logits_to_keep: k, for the last k tokens, or indices [K]; 0: all. The loss is over all labels in any case.
        loss: "token", the mean over all labels (transformers), or "example", mean per row, then over rows (big_vision).
        skip_padding: nothing is computed for padding, its rows are zero.

        -> .logits f32 [B, K, vocab], .loss f32 [] with labels, .image_hidden_states f32 [n_images, N, hidden] with
        images, .hidden_states (embeddings and each layer's output, L + 1 of f32 [B, T, hidden]) with
        output_hidden_states, .last_hidden_state f32 [B, T, hidden] with output_last_hidden_state.
        """
        if past_key_values is not None or output_attentions:
            raise NotImplementedError("past_key_values and output_attentions are not offered")
        if loss not in ("token", "example"):
            raise ValueError(f"loss is {loss!r}, expected \"token\" or \"example\"")
        arrays = dict(input_ids=input_ids, inputs_embeds=inputs_embeds, attention_mask=attention_mask,
                      token_type_ids=token_type_ids, labels=labels, position_ids=position_ids,
                      pixel_values=pixel_values)
        flags = ((0 if return_logits else c.FORWARD_NO_LOGITS)
                 | (c.FORWARD_HIDDEN_STATES if output_hidden_states else 0)
                 | (c.FORWARD_LAST_HIDDEN if output_last_hidden_state else 0)
                 | (c.FORWARD_LOSS_PER_ROW if loss == "example" else 0)
                 | (c.FORWARD_SKIP_PADDING if skip_padding else 0))
        if logits_to_keep is True or isinstance(logits_to_keep, float):
            raise TypeError(f"logits_to_keep is {logits_to_keep!r}, expected an integer, or indices")
        chosen = None if isinstance(logits_to_keep, int) else to_numpy(logits_to_keep)
        keep = logits_to_keep if chosen is None else 0
        handle = self._run_forward(arrays, flags, keep, features, cancel)
        output = _outputs(handle, bool(output_hidden_states), _inputs.any_torch(*arrays.values()), features)
        if chosen is not None and "logits" in output:
            output["logits"] = output.logits[:, chosen.tolist()]
        return output.to_tuple() if return_dict is False else output

    def embed(self, input_ids: Any = None, pixel_values: Any = None, attention_mask: Any = None,
              token_type_ids: Any = None, inputs_embeds: Any = None, labels: Any = None, position_ids: Any = None, *,
              features: Features | None = None, cancel: CancelFlag | None = None) -> PaliGemmaCausalLMOutput:
        """.last_hidden_state f32 [B, T, hidden] after the final norm (zero on padding), and .image_hidden_states
        f32 [n_images, N, hidden]: for retrieval and action heads. labels are taken and not used."""
        arrays = dict(input_ids=input_ids, inputs_embeds=inputs_embeds, attention_mask=attention_mask,
                      token_type_ids=token_type_ids, position_ids=position_ids, pixel_values=pixel_values)
        handle = self._run_forward(arrays, c.FORWARD_EMBEDDINGS, 0, features, cancel)
        return _outputs(handle, False, _inputs.any_torch(*arrays.values()), features)

    def _run_forward(self, arrays: dict[str, Any], flags: int, keep: int, features: Features | None,
                     cancel: CancelFlag | None) -> Handle:
        self._handle.check_open()
        inputs = self._inputs(_inputs.checked(arrays))
        cancel = cancel or CancelFlag()
        outputs = Handle("outputs")

        def work() -> None:
            with self._handle.use() as model, inputs.use() as given, cancel.use() as flag, _use(features) as encoded:
                options = c.ForwardOptions(flags=flags, n_threads=self.n_threads, logits_to_keep=keep, features=encoded,
                                           cancel=flag)
                c.check(c.lib.pg_forward(model, given, ctypes.byref(options), ctypes.byref(outputs.pointer)))

        interruptible(work, cancel)
        return outputs

    def _inputs(self, arrays: dict[str, np.ndarray]) -> Handle:
        """pg_inputs; exactly one of input_ids and inputs_embeds."""
        if ("input_ids" in arrays) == ("inputs_embeds" in arrays):
            raise ValueError("You must specify exactly one of input_ids or inputs_embeds")
        if self._eager and "token_type_ids" not in arrays:  # the library's rule is that of transformers' default
            rows = arrays.get("input_ids", arrays.get("inputs_embeds"))
            arrays = {**arrays, "token_type_ids": np.ones(rows.shape[:2], np.int64)}
        return _inputs.create(arrays)

    # -- images

    def encode_image(self, pixel_values: Any = None, *, cancel: CancelFlag | None = None, **unused: Any) -> Features:
        """Runs encoder and projector once: features for any number of prompts.

        pixel_values: f32 [n_images, 3, S, S], or what a processor returned; `encode_image(**inputs)` works too.
        """
        if isinstance(pixel_values, (dict, BatchFeature)):
            pixel_values = pixel_values["pixel_values"]
        if pixel_values is None:
            raise ValueError("pixel_values is None, expected f32 [n_images, 3, S, S]")
        self._handle.check_open()
        inputs = _inputs.create(_inputs.checked({"pixel_values": pixel_values}))
        cancel = cancel or CancelFlag()
        features = Handle("features", "Features object")

        def work() -> None:
            with self._handle.use() as model, inputs.use() as given, cancel.use() as flag:
                options = c.RunOptions(n_threads=self.n_threads, cancel=flag)
                c.check(c.lib.pg_features_create(model, given, ctypes.byref(options), ctypes.byref(features.pointer)))

        interruptible(work, cancel)
        return Features(features)

    def get_image_features(self, pixel_values: Any, **unused: Any) -> ModelOutput:
        """.pooler_output f32 [n_images, n_image_tokens, hidden]: the projector's output, as transformers calls it.
        (Its last_hidden_state, the encoder's output, is not given.)"""
        features = array(self.encode_image(pixel_values)._handle, c.lib.pg_features_get_tensor)
        return ModelOutput(last_hidden_state=None, pooler_output=like_inputs(features, _inputs.any_torch(pixel_values)))

    # -- generate

    def generate(
        self,
        inputs: Any = None,
        generation_config: Any = None,
        *,
        input_ids: Any = None,
        pixel_values: Any = None,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        inputs_embeds: Any = None,
        position_ids: Any = None,
        labels: Any = None,
        features: Features | None = None,
        cancel: CancelFlag | None = None,
        return_dict_in_generate: bool | None = None,
        streamer: Any = None,
        **settings: Any,
    ) -> Any:
        """Greedy generation: prompt and new ids, i64 [B, T + new], rows that ended earlier filled with pad.

        inputs: input_ids. max_new_tokens, or max_length (prompt and new tokens together); without either, and without
        one in generation_config, 20 new tokens and a warning, as in transformers. Rows may be padded on either side:
        padding is left out of the computation, each row gets what it gets alone, and its new ids stand after column T.
        Without token_type_ids the prompt is read as forward() reads it.
        No tokenizer is needed: a folder without one generates row after row, with the same ids.
        labels are taken and not used. features: in place of pixel_values. streamer: an object such as transformers'
        TextStreamer, for one row; it is handed the prompt, each new id, and the end.
        eos_token_id: the checkpoint's ids and further ones, a list. What is set on the model's generation_config, or
        stands in its file, counts as a keyword does.
        Raises ValueError for settings that ask for more than greedy decoding.
        """
        if isinstance(inputs, (dict, BatchFeature)):
            raise TypeError(f"inputs is a {type(inputs).__name__}, expected input_ids: write generate(**inputs)")
        if inputs is not None:
            input_ids = inputs
        arrays = dict(input_ids=input_ids, inputs_embeds=inputs_embeds, attention_mask=attention_mask,
                      token_type_ids=token_type_ids, position_ids=position_ids, pixel_values=pixel_values)
        as_torch = _inputs.any_torch(*arrays.values())
        chosen = plan(self.generation_config, generation_config, settings, _inputs.checked(arrays),
                      self._eos_token_id)
        if streamer is None:
            rows = self._run_generate(chosen.arrays, chosen.max_new_tokens, features, cancel)
            rows = [np.array(list(chosen.until_stop(row)), np.int64) for row in rows]
        else:
            rows = [self._feed(streamer, chosen, features, cancel)]
        prompt = chosen.arrays.get("input_ids", np.zeros((len(rows), 0), np.int64))
        width = prompt.shape[1]
        sequences = np.full((len(rows), width + max(map(len, rows))), chosen.pad_token_id, np.int64)
        sequences[:, :width] = prompt
        for sequence, new in zip(sequences, rows):
            sequence[width:width + len(new)] = new
        sequences = like_inputs(sequences, as_torch)
        return ModelOutput(sequences=sequences) if return_dict_in_generate else sequences

    def _run_generate(self, arrays: dict[str, Any], max_new_tokens: int, features: Features | None,
                      cancel: CancelFlag | None) -> list[np.ndarray]:
        """The new ids of each row."""
        self._handle.check_open()
        cancel = cancel or CancelFlag()
        try:
            processor = self._own_processor()
        except (OSError, ValueError, NotImplementedError):  # ids in, ids out: no tokenizer is needed
            return self._run_rows(arrays, max_new_tokens, features, cancel)
        inputs = self._inputs(arrays)
        result = Handle("result")

        def work() -> None:
            with self._handle.use() as model, processor.use() as tokenizer, inputs.use() as given, \
                    cancel.use() as flag, _use(features) as encoded:
                options = c.GenerateOptions(max_new_tokens=max_new_tokens, n_threads=self.n_threads, features=encoded,
                                            cancel=flag)
                c.check(c.lib.pg_generate(model, tokenizer, given, ctypes.byref(options), ctypes.byref(result.pointer)))

        interruptible(work, cancel)
        with result.use() as pointer:
            n_rows = c.lib.pg_result_get_n_rows(pointer)
        return [array(result, c.lib.pg_result_get_ids, row) for row in range(n_rows)]

    def _own_processor(self) -> Handle:
        """The processor of the model's folder, opened at most once."""
        if self._processor is None or self._processor.closed:
            self._processor = open_handle(self._folder, shared=True)
        return self._processor

    def _run_rows(self, arrays: dict[str, Any], max_new_tokens: int, features: Features | None,
                  cancel: CancelFlag) -> list[np.ndarray]:
        """As _run_generate(), row after row in a session, which needs no processor."""
        self._inputs(arrays)  # the checks of the whole batch
        rows = _rows(arrays, self.config.image_token_id)
        if features is not None and len(rows) > 1:
            raise NotImplementedError(f"features for {len(rows)} rows need the processor's files in {self._folder}, "
                                      "which cannot be opened: give one row at a time, or pixel_values")
        return [np.array(list(tokens(self._handle, self._inputs(row), _use(features), cancel, max_new_tokens,
                                     self.n_threads)), np.int64) for row in rows]

    def _feed(self, streamer: Any, chosen: Plan, features: Features | None, cancel: CancelFlag | None) -> np.ndarray:
        """The new ids of one row, handed to a streamer as they come."""
        self._handle.check_open()
        streamer.put(chosen.arrays.get("input_ids", np.zeros((1, 0), np.int64)))
        new = []
        for token in self._tokens(chosen, features, cancel):
            new.append(token)
            streamer.put(np.array([token]))
        streamer.end()
        return np.array(new, np.int64)

    def stream(self, inputs: Any = None, processor: Any = None, *, features: Features | None = None,
               cancel: CancelFlag | None = None, generation_config: Any = None, skip_special_tokens: bool = True,
               **arguments: Any) -> Iterator[str]:
        """The generated text piece by piece, never half a character: `for piece in model.stream(inputs, processor)`.

        inputs: what the processor returned, of one row; or its entries by name, `model.stream(**inputs, ...)`.
        processor: for its tokenizer; default: the one in the model's folder. Settings as generate()'s. Leaving the loop
        ends the generation.
        """
        named = {name: arguments.pop(name, None) for name in _inputs.NAMES}
        arrays = {**named, **{k: v for k, v in dict(inputs or {}).items() if k in _inputs.NAMES}}
        del arrays["labels"]
        chosen = plan(self.generation_config, generation_config, arguments, _inputs.checked(arrays),
                      self._eos_token_id)
        self._handle.check_open()
        tokenizer = processor._handle if processor is not None else self._own_processor()
        return pieces(self._tokens(chosen, features, cancel), tokenizer, skip_special_tokens)

    def _tokens(self, chosen: Plan, features: Features | None, cancel: CancelFlag | None) -> Iterator[int]:
        """The new ids of one row, as they come."""
        new = tokens(self._handle, self._inputs(chosen.arrays), _use(features), cancel or CancelFlag(),
                     chosen.max_new_tokens, self.n_threads)
        return chosen.until_stop(new)


class _use:
    """`with _use(features) as pointer`: of Features, or None."""

    def __init__(self, features: Features | None) -> None:
        if features is not None and not isinstance(features, Features):
            raise TypeError(f"features is a {type(features).__name__}, expected what encode_image() returned")
        self._lease = features._handle.use() if features is not None else None

    def __enter__(self) -> Any:
        return self._lease.__enter__() if self._lease else None

    def __exit__(self, *exception: Any) -> None:
        if self._lease:
            self._lease.__exit__(*exception)


def _outputs(handle: Handle, hidden_states: bool, as_torch: bool, features: Features | None) -> PaliGemmaCausalLMOutput:
    """The tensors of pg_outputs that are there, in transformers' order. features: that the call was given."""
    values: dict[str, Any] = {}
    for name in ("loss", "logits", "hidden_states", "image_hidden_states", "last_hidden_state"):
        values[name] = None
        if name == "hidden_states" and not hidden_states:
            continue
        try:
            found = array(handle, c.lib.pg_outputs_get_tensor, name.encode())
        except FileNotFoundError:
            continue
        if name == "loss":
            found = found.reshape(())
        if name == "image_hidden_states" and features is not None:
            found = found.copy()  # theirs is the memory, and other prompts are to find it as it was
        converted = tuple(like_inputs(layer, as_torch) for layer in found) if name == "hidden_states" \
            else like_inputs(found, as_torch)
        values[name] = converted
    return PaliGemmaCausalLMOutput(**values)
