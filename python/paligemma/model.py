# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""PaliGemmaForConditionalGeneration: forward, generate, stream, encode_image and embed on an opened checkpoint."""
from __future__ import annotations

import ctypes
import os
from dataclasses import replace
from typing import Any, Callable, Iterable, Iterator, Sequence

import numpy as np

from . import _beams, _hub, _inputs, _library as c
from ._adapter_files import base_and_adapter, save_adapter
from ._adapter_rows import RowModels
from ._adapters import AdapterMethods, Adapters, one_handle
from ._as_torch import AsTorchModule
from ._checkpoint import open_model
from ._features import Features, given, use
from ._generate import Plan, ids_of, plan, repeated
from ._handle import Handle, array
from ._run import CancelFlag, interruptible
from ._sampling import whole
from ._save import check_arguments, n_bytes, save_model, write_generation_config
from ._steps import Steps
from ._stream import of_thread, pieces, tokens
from .answers import detect, segment
from .ask import ask
from .config import GenerationConfig, PaliGemmaConfig
from .outputs import (BatchFeature, GenerateDecoderOnlyOutput, ModelOutput, PaliGemmaCausalLMOutput, like_inputs,
                      to_numpy)
from .processor import PaliGemmaProcessor, open_handle
from .score import score


class PaliGemmaForConditionalGeneration(AsTorchModule, AdapterMethods):
    """A model on the CPU, for inference, in f32, in bf16 or with int8 or int4 weights; from_pretrained() opens one,
    close() or `with` ends it.

    Any number of threads may use one model at a time.
    """

    def __init__(self, folder: str, n_threads: int = 0, cpu: str | None = None,
                 weights: str = "stored", arithmetic: str | None = None,
                 attn_implementation: str | dict[str, str] | None = None, disable_mmap: bool = False,
                 int8_layers: str | Iterable[str] | None = None, kv: str | None = None) -> None:
        """folder: a checkpoint; n_threads: for all calls, 0 is the CPUs that this process may use;
        cpu: hold the instruction set down to "baseline", "avx2", "avx512" or "neon"; weights: "stored", or "int8" or
        "int4" to quantize them now; arithmetic: "f32", or "bf16" to round the factors of large products where that makes the CPU
        faster; None is f32, but for attention beside int8 and int4 weights; attn_implementation: "eager" makes rows
        without token_type_ids causal in PaliGemma 1, too, as it does in transformers; disable_mmap: read the weights
        into memory of this process, so that nothing that happens to the files later matters; int8_layers: of "int4" weights, the
        matrices that are int8 (see convert()); kv: the KV cache in "f32" or "bf16", None is bf16 beside int8 and int4."""
        self.name_or_path = folder
        self._folder = os.path.abspath(folder)  # a later chdir is no matter
        self._opened: dict[str, Any] = {}  # the folder's own processor, opened when first needed
        self.n_threads = n_threads
        self._cpu = cpu
        self._weights, self._arithmetic, self._disable_mmap = weights, arithmetic, bool(disable_mmap)
        self._int8_layers = int8_layers if int8_layers is None or isinstance(int8_layers, str) else list(int8_layers)
        self.set_attn_implementation(attn_implementation)
        self._handle = open_model(folder, cpu, weights, arithmetic, self._disable_mmap, self._int8_layers, kv)
        self._adapters = Adapters(self._handle)
        self._kv = kv
        self.config = PaliGemmaConfig._of_handle(self._handle.pointer, folder)
        self.generation_config = GenerationConfig._of_folder(folder, self.config)
        self._eos_ids = ids_of(self.generation_config.eos_token_id)  # where sessions end, whatever is set later

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], *, revision: str | None = None,
                        cache_dir: str | os.PathLike[str] | None = None, subfolder: str = "", n_threads: int = 0,
                        cpu: str | None = None, weights: str = "stored", arithmetic: str | None = None,
                        attn_implementation: str | dict[str, str] | None = None, disable_mmap: bool = False,
                        int8_layers: str | Iterable[str] | None = None, kv: str | None = None,
                        generation_config: Any = None, output_loading_info: bool = False,
                        adapter_name: str = "default", adapter_kwargs: dict[str, Any] | None = None,
                        **kwargs: Any) -> Any:
        """Opens a checkpoint folder, or a model id in the local Hugging Face cache; the network is never used.

        Of an adapter that PEFT saved, the base model that it names is opened, and the adapter added under adapter_name;
        adapter_kwargs: its revision, cache_dir and subfolder, where they are others.

        Other arguments of transformers' from_pretrained() are taken where they change nothing here: dtype and
        torch_dtype (see `arithmetic`), device_map "auto" or "cpu", low_cpu_mem_usage, token, ...
        (paligemma._hub.HARMLESS). Those that would change results, such as quantization_config, are refused.
        generation_config: in place of the folder's. output_loading_info=True: the model and a dictionary of what did
        not fit, which is nothing: a folder that lacks a tensor does not open.
        n_threads, cpu, weights, arithmetic, attn_implementation, disable_mmap, int8_layers and kv: as of the class.
        Raises FileNotFoundError (the base of an adapter, too), OSError (damaged files), NotImplementedError (sound, but
        not run by this version), ValueError (an argument; weights that the folder was not converted to).
        """
        _hub.check_arguments(kwargs)
        of_files = {"revision": revision, "cache_dir": cache_dir, "subfolder": subfolder}
        folder, adapter = base_and_adapter(pretrained_model_name_or_path, of_files, adapter_kwargs or {})
        model = cls(folder, n_threads, cpu, weights, arithmetic, attn_implementation, disable_mmap, int8_layers, kv)
        if adapter is not None:
            try:
                model.load_adapter(adapter, adapter_name)
            except BaseException:
                model.close()
                raise
        if generation_config is not None:
            model.generation_config = generation_config
        none: dict[str, Any] = {"missing_keys": set(), "unexpected_keys": set(), "mismatched_keys": set(),
                                "error_msgs": []}
        return (model, none) if output_loading_info else model

    def set_attn_implementation(self, attn_implementation: str | dict[str, str] | None) -> None:
        """As the argument of from_pretrained()."""
        of_text = attn_implementation if not isinstance(attn_implementation, dict) else (
            attn_implementation.get("text_config", attn_implementation.get("")))
        self._attention, self._eager = attn_implementation, of_text == "eager"

    def __reduce__(self) -> Any:
        """A copy, in this process or another, opens the checkpoint and its adapters again; the mapped weights are
        shared."""
        self._handle.check_open()
        return (type(self), (self._folder, self.n_threads, self._cpu, self._weights, self._arithmetic,
                             self._attention, self._disable_mmap, self._int8_layers, self._kv),
                {"generation_config": self.generation_config, "adapters": self._adapters.recipe()})

    def __setstate__(self, state: dict[str, Any]) -> None:
        recipe = state.pop("adapters", None)
        vars(self).update(state)
        if recipe is not None:
            self._handle = self._adapters.restored(recipe, self.n_threads)

    # -- saving

    def save_pretrained(self, save_directory: str | os.PathLike[str], is_main_process: bool = True,
                        max_shard_size: int | str = "50GB", **arguments: Any) -> None:
        """Writes config.json, generation_config.json as it is set now, and the weights to a folder, which opens here
        and, unless its weights are int8 or int4, in transformers. The processor has files of its own.

        The weights are a copy of the files that the model was opened from, or, with from_pretrained(weights="int8"),
        what was quantized. max_shard_size: bytes, or "5GB"; stored files that are larger are refused, not divided.

        With adapters loaded it writes, as transformers does, the files of the one that is active in place of the model's.
        """
        check_arguments(save_directory, arguments)
        self._handle.check_open()
        adapter = self._saved_adapter()
        if is_main_process and adapter is not None:
            save_adapter(adapter, os.fsdecode(save_directory))
            write_generation_config(os.fsdecode(save_directory), self.generation_config.to_diff_dict())
        elif is_main_process:
            save_model(self._folder, os.fsdecode(save_directory), self._weights, self._int8_layers,
                       self.generation_config.to_diff_dict(), n_bytes(max_shard_size))

    def push_to_hub(self, *args: Any, **kwargs: Any) -> None:
        check_arguments("folder", {"push_to_hub": True})

    # -- closing

    def close(self) -> None:
        """Frees the model and its adapters when the calls under way are over; later calls raise ValueError."""
        self._adapters.close()

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

    @one_handle
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
        mm_encoder_outputs: dict[str, Any] | None = None,
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
        cache: None = None,
        return_logits: bool = True,
        adapter_names: Sequence[str] | None = None,
    ) -> Any:
        """One pass over B rows of T tokens; arrays, tensors or lists, and the outputs are tensors if an input is.

        input_ids i64 [B, T], or inputs_embeds f32 [B, T, hidden]; pixel_values f32 [n_images, 3, S, S] or `features`;
        attention_mask, token_type_ids (0: prompt, sees all of it; 1: suffix, causal), position_ids, labels i64 [B, T].
        Without token_type_ids, as in transformers: PaliGemma 1 lets each token see its whole row, unless a row of the
        batch has padding or attn_implementation is "eager"; then, and in PaliGemma 2, all rows are causal.
        logits_to_keep: k, for the last k tokens, or indices [K]; 0: all. The loss is over all labels in any case.
        loss: "token", the mean over all labels (transformers), or "example", mean per row, then over rows (big_vision).
        skip_padding: nothing is computed for padding, its rows are zero.
        mm_encoder_outputs: {"image": what get_image_features() or encode_image() returned}, or `features`, in place of
        pixel_values; changed or repeated arrays will do. Images serve the rows one after the other; where each row has
        the tokens of all of them, each row takes all: one image, many prompts.
        adapter_names: for each row the name of a loaded adapter, or "__base__" for none, in place of those in use.

        -> .logits f32 [B, K, vocab], .loss f32 [] with labels, .image_hidden_states f32 [n_images, N, hidden] with
        images, .hidden_states (embeddings and each layer's output, L + 1 of f32 [B, T, hidden]) with
        output_hidden_states, .attentions (L of f32 [B, heads, T, T]; transformers gives them with
        attn_implementation="eager" alone) with output_attentions, .last_hidden_state f32 [B, T, hidden] with
        output_last_hidden_state.
        """
        if past_key_values is not None or cache is not None:
            raise NotImplementedError("past_key_values (cache in transformers 5.24) is not offered")
        if loss not in ("token", "example"):
            raise ValueError(f"loss is {loss!r}, expected \"token\" or \"example\"")
        arrays = dict(input_ids=input_ids, inputs_embeds=inputs_embeds, attention_mask=attention_mask,
                      token_type_ids=token_type_ids, labels=labels, position_ids=position_ids,
                      pixel_values=pixel_values)
        flags = ((0 if return_logits else c.FORWARD_NO_LOGITS)
                 | (c.FORWARD_HIDDEN_STATES if output_hidden_states else 0)
                 | (c.FORWARD_ATTENTIONS if output_attentions else 0)
                 | (c.FORWARD_LAST_HIDDEN if output_last_hidden_state else 0)
                 | (c.FORWARD_LOSS_PER_ROW if loss == "example" else 0)
                 | (c.FORWARD_SKIP_PADDING if skip_padding else 0))
        if logits_to_keep is True or isinstance(logits_to_keep, float):
            raise TypeError(f"logits_to_keep is {logits_to_keep!r}, expected an integer, or indices")
        chosen = None if isinstance(logits_to_keep, int) else to_numpy(logits_to_keep)
        keep = logits_to_keep if chosen is None else 0
        if pixel_values is not None and mm_encoder_outputs is not None:
            raise ValueError("You cannot specify both pixel_values and mm_encoder_outputs at the same time")
        features = given(self._handle, features, mm_encoder_outputs)
        handle = self._run_forward(arrays, flags, features, cancel, logits_to_keep=keep)
        output = _outputs(handle, bool(output_hidden_states), _inputs.any_torch(*arrays.values()), features,
                          self.config.text_config.num_hidden_layers)
        if chosen is not None and "logits" in output:
            output["logits"] = output.logits[:, chosen.tolist()]
        return output.to_tuple() if return_dict is False else output

    @one_handle
    def embed(self, input_ids: Any = None, pixel_values: Any = None, attention_mask: Any = None,
              token_type_ids: Any = None, inputs_embeds: Any = None, labels: Any = None, position_ids: Any = None, *,
              mm_encoder_outputs: dict[str, Any] | None = None, features: Features | None = None,
              cancel: CancelFlag | None = None) -> PaliGemmaCausalLMOutput:
        """.last_hidden_state f32 [B, T, hidden] after the final norm (zero on padding), and .image_hidden_states
        f32 [n_images, N, hidden]: for retrieval and action heads. labels are taken and not used."""
        arrays = dict(input_ids=input_ids, inputs_embeds=inputs_embeds, attention_mask=attention_mask,
                      token_type_ids=token_type_ids, position_ids=position_ids, pixel_values=pixel_values)
        features = given(self._handle, features, mm_encoder_outputs, pixel_values)
        handle = self._run_forward(arrays, c.FORWARD_EMBEDDINGS, features, cancel)
        return _outputs(handle, False, _inputs.any_torch(*arrays.values()), features)

    @one_handle
    def attention_to_image(self, input_ids: Any = None, pixel_values: Any = None, attention_mask: Any = None,
                           token_type_ids: Any = None, inputs_embeds: Any = None, labels: Any = None,
                           position_ids: Any = None, *, n_queries: int = 0, layer: int | None = None,
                           mm_encoder_outputs: dict[str, Any] | None = None, features: Features | None = None,
                           cancel: CancelFlag | None = None) -> Any:
        """Where tokens look: f32 [B, n_queries, N], how much each of the last n_queries tokens of a row (0: each token)
        attends to each of its N image tokens, the mean over the heads of `layer` (0 the first; None: of all layers).

        Token k of an image is the part k // n, k % n of the n x n parts that its square is cut into; reshape to
        [..., n, n]. For the tokens of an answer, give the answer as the suffix. labels are taken and not used."""
        if layer is not None and layer < 0:
            raise ValueError(f"layer is {layer}, expected 0 or more, or None for the mean over all")
        arrays = dict(input_ids=input_ids, inputs_embeds=inputs_embeds, attention_mask=attention_mask,
                      token_type_ids=token_type_ids, position_ids=position_ids, pixel_values=pixel_values)
        flags = (c.FORWARD_ATTENTIONS | c.FORWARD_ATTENTION_HEAD_MEAN | c.FORWARD_ATTENTION_LAYER_MEAN
                 | c.FORWARD_ATTENTION_TO_IMAGE | c.FORWARD_NO_LOGITS | c.FORWARD_NO_LOSS)
        features = given(self._handle, features, mm_encoder_outputs, pixel_values)
        handle = self._run_forward(arrays, flags, features, cancel, attention_queries=n_queries,
                                   attention_layer=-1 if layer is None else layer)
        found = array(handle, c.lib.pg_outputs_get_tensor, b"attentions")[:, 0]
        return like_inputs(found, _inputs.any_torch(*arrays.values()))

    def _run_forward(self, arrays: dict[str, Any], flags: int, features: Features | None, cancel: CancelFlag | None,
                     *, attention_layer: int = -1, **numbers: int) -> Handle:
        """numbers: further fields of pg_forward_options."""
        self._handle.check_open()
        checked = _inputs.checked(arrays)
        inputs, n_rows = self._inputs(checked), len(checked.get("input_ids", checked.get("inputs_embeds", ())))
        cancel = cancel or CancelFlag()
        outputs = Handle("outputs")

        def work() -> None:
            with self._handle.use() as model, inputs.use() as given, cancel.use() as flag, use(features) as encoded, \
                    RowModels(self._row_handles, n_rows) as row_models:
                options = c.ForwardOptions(flags=flags, n_threads=self.n_threads, features=encoded, cancel=flag,
                                           attention_layer=attention_layer, **numbers, **row_models)
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

    @one_handle
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
        mm_encoder_outputs: dict[str, Any] | None = None,
        features: Features | None = None,
        cancel: CancelFlag | None = None,
        streamer: Any = None,
        tokenizer: Any = None,
        max_running: int | None = None,
        adapter_names: Sequence[str] | None = None,
        **settings: Any,
    ) -> Any:
        """Greedy generation, or with do_sample draws: prompt and new ids, i64 [B, T + new], rows that ended earlier
        filled with pad.

        inputs: input_ids. max_new_tokens, or max_length (prompt and new tokens together); without either, and without
        one in generation_config, 20 new tokens and a warning, as in transformers. Rows may be padded on either side:
        padding is left out of the computation, each row gets what it gets alone, and its new ids stand after column T.
        Without token_type_ids the prompt is read as forward() reads it. No tokenizer is needed.
        labels are taken and not used. mm_encoder_outputs and features: as forward()'s, in place of pixel_values.

        What ends a row: eos_token_id (an id, a list, or None for no id), stop_strings with tokenizer=processor,
        max_time (seconds), stopping_criteria (called with ids [B, T + n] after each step; True or [B] of them).
        What bends the choice: logits_processor (a list; each is called with ids [1, T + n] and scores [1, vocab_size]
        of one row), prefix_allowed_tokens_fn(row, ids).
        repetition_penalty, no_repeat_ngram_size, bad_words_ids, sequence_bias, min_new_tokens, min_length,
        suppress_tokens, begin_suppress_tokens, forced_bos_token_id, forced_eos_token_id, remove_invalid_values,
        exponential_decay_length_penalty and renormalize_logits are transformers'.
        do_sample=True draws ids, by temperature, top_k (50), top_p, min_p, top_h, typical_p, epsilon_cutoff and
        eta_cutoff, num_return_sequences of each row. The draws are those of `seed`; without one they follow
        torch.manual_seed() (numpy.random.seed() where torch is not loaded), and are not transformers' draws.
        num_beams (up to 64), length_penalty and early_stopping: beam search, num_return_sequences of its texts; with
        do_sample=True beam sampling.
        return_dict_in_generate=True gives a GenerateDecoderOnlyOutput, with beams a GenerateBeamDecoderOnlyOutput; with
        output_scores and output_logits it has those of each step (see compute_transition_scores()). streamer: an object
        such as transformers' TextStreamer; it is handed the prompt, each step's ids, and the end.
        max_running: rows that run at a time, each with its keys and values in memory; when one ends, the next begins.
        Default: 16 with int8 and int4 weights, 4 with stored ones; all of them where each step is to be seen, with
        stopping_criteria, streamer, output_scores and output_logits. With num_beams one prompt runs at a time.
        adapter_names: for each row the name of a loaded adapter, or "__base__" for none, in place of those in use.
        What is set on the model's generation_config, or stands in its file, counts as a keyword does.
        Raises ValueError for settings that are not followed, and says what to do.
        """
        if isinstance(inputs, (dict, BatchFeature)):
            raise TypeError(f"inputs is a {type(inputs).__name__}, expected input_ids: write generate(**inputs)")
        if inputs is not None:
            input_ids = inputs
        n_running = 0 if max_running is None else whole("max_running", max_running, 1)
        arrays = dict(input_ids=input_ids, inputs_embeds=inputs_embeds, attention_mask=attention_mask,
                      token_type_ids=token_type_ids, position_ids=position_ids, pixel_values=pixel_values)
        if all(value is None for value in (*arrays.values(), mm_encoder_outputs, features)):
            arrays["input_ids"] = [[self._bos(generation_config, settings)]]
        as_torch = _inputs.any_torch(*arrays.values())
        chosen = plan(self.generation_config, generation_config, settings, _inputs.checked(arrays))
        features = given(self._handle, features, mm_encoder_outputs, pixel_values)
        self._handle.check_open()
        if chosen.beams.n > 1:
            chosen.beams.check(chosen.sampling.n_sequences, streamer)
            return _beams.answer(self._search(chosen, features, cancel, tokenizer, as_torch), chosen, as_torch)
        if chosen.sampling.n_sequences > 1:
            chosen, features = self._repeated(chosen, features)
        if streamer is not None:
            streamer.put(like_inputs(chosen.prompt, as_torch))
        steps = Steps(chosen, as_torch, streamer, self._lengths(chosen, features, cancel, tokenizer))
        if n_running and n_running < chosen.n_rows and steps.run_on:
            raise ValueError(f"max_running={n_running}: stopping_criteria, streamer, output_scores and output_logits "
                             f"follow the {chosen.n_rows} rows step by step, so all of them run; leave it out")
        result = self._run_generate(chosen, steps, features, cancel, tokenizer, n_running)
        return self._answer(chosen, steps, result, as_torch)

    def _bos(self, given_config: Any, settings: dict[str, Any]) -> int:
        """What generate() without inputs begins with."""
        configs = (given_config, self.generation_config)
        found = [settings.get("bos_token_id"), *(getattr(config, "bos_token_id", None) for config in configs)]
        bos = next((token for token in found if token is not None), None)
        if bos is None:
            raise ValueError("`bos_token_id` has to be defined when no `input_ids` are provided.")
        return int(bos)

    def _repeated(self, chosen: Plan, features: Features | None) -> tuple[Plan, Features | None]:
        """num_return_sequences: each row as often."""
        n, pixels = chosen.sampling.n_sequences, chosen.arrays.get("pixel_values")
        if features is not None and chosen.n_rows == 1:  # they serve each row
            return replace(chosen, arrays=repeated(chosen.arrays, None, n, self.config.image_token_id)[0]), features
        images = pixels if features is None else features.pooler_output
        arrays, images = repeated(chosen.arrays, images, n, self.config.image_token_id)
        if features is not None:
            return replace(chosen, arrays=arrays), given(self._handle, None, {"image": images})
        return replace(chosen, arrays={**arrays, **({} if images is None else {"pixel_values": images})}), None

    def _lengths(self, chosen: Plan, features: Features | None, cancel: CancelFlag | None,
                 tokenizer: Any) -> list[int] | None:
        """Where the rows end, found beforehand: stop strings end a row in the library, but the scores of rows that
        have ended are wanted, too."""
        if not chosen.stop_strings or chosen.n_rows == 1 or not (chosen.scores or chosen.logits):
            return None
        first = replace(chosen, scores=False, logits=False)
        result = self._run_generate(first, Steps(first, False), features, cancel, tokenizer)
        return [len(array(result, c.lib.pg_result_get_ids, row)) for row in range(chosen.n_rows)]

    def _search(self, chosen: Plan, features: Features | None, cancel: CancelFlag | None, tokenizer: Any,
                as_torch: bool) -> Handle:
        """pg_result of a beam search."""
        callbacks = _beams.Callbacks(chosen, as_torch)
        sampling = chosen.sampling.options(chosen.eos_ids or [], True, self.config.text_config.vocab_size)
        mask, logits, texts = callbacks.functions()
        sampling.on_mask, sampling.on_logits = mask, logits
        seconds = 0.0 if chosen.max_time is None else max(chosen.max_time, 1e-9)  # C: 0 is no limit
        result = self._call_generate(chosen, sampling, chosen.stop_strings, features, cancel, tokenizer,
                                     beams=chosen.beams.struct(texts), max_seconds=seconds,
                                     n_return=chosen.sampling.n_sequences)
        if callbacks.error is not None:
            raise callbacks.error
        return result

    def _run_generate(self, chosen: Plan, steps: Steps, features: Features | None, cancel: CancelFlag | None,
                      tokenizer: Any = None, max_running: int = 0) -> Handle:
        """pg_result of all rows."""
        text, mask, logits = steps.callbacks()
        sampling = chosen.sampling.options(chosen.eos_ids or [], not steps.run_on, self.config.text_config.vocab_size)
        sampling.on_logits, sampling.on_mask = logits, mask
        seconds = 0.0 if chosen.max_time is None or steps.run_on else max(chosen.max_time, 1e-9)  # C: 0 is no limit
        strings = [] if steps.lengths is not None else chosen.stop_strings
        result = self._call_generate(chosen, sampling, strings, features, cancel, tokenizer, on_text=text,
                                     max_seconds=seconds, n_return=1,
                                     max_running=chosen.n_rows if steps.run_on else max_running)
        steps.finish()
        return result

    def _call_generate(self, chosen: Plan, sampling: Any, strings: list[str], features: Features | None,
                       cancel: CancelFlag | None, tokenizer: Any, beams: Any = None, **fields: Any) -> Handle:
        """pg_generate() with these fields of its options, and those that follow from `chosen`. beams: None for one."""
        self._handle.check_open()
        cancel = cancel or CancelFlag()
        inputs, result = self._inputs(chosen.arrays), Handle("result")
        stop_strings = (ctypes.c_char_p * max(1, len(strings)))(*[text.encode() for text in strings])
        processor = self._processor_of(tokenizer) if strings else None
        beams = beams or chosen.beams.struct()
        options = c.GenerateOptions(
            flags=c.GENERATE_IGNORE_CONFIG | (c.GENERATE_LOGITS if chosen.logits else 0)  # the plan has all of it
            | (c.GENERATE_SCORES if chosen.scores else 0),
            max_new_tokens=chosen.max_new_tokens, n_threads=self.n_threads, sampling=ctypes.pointer(sampling),
            beams=ctypes.pointer(beams), stop_strings=stop_strings if strings else None, n_stop_strings=len(strings),
            **fields)

        def work() -> None:
            with self._handle.use() as model, use(processor) as tokenizes, inputs.use() as rows, \
                    cancel.use() as flag, use(features) as encoded, \
                    RowModels(self._row_handles, chosen.n_rows) as row_models:
                options.features, options.cancel = encoded, flag
                for name, value in row_models.items():
                    setattr(options, name, value)
                c.check(c.lib.pg_generate(model, tokenizes, rows, ctypes.byref(options), ctypes.byref(result.pointer)))

        interruptible(work, cancel)
        return result

    def _processor_of(self, tokenizer: Any) -> Handle:
        """The handle of a processor or tokenizer, for stop strings; of somebody else's: the one of the folder."""
        if tokenizer is None:
            raise ValueError("There are one or more stop strings, either in the arguments to `generate` or in the "
                             "model's generation config, but we could not locate a tokenizer. When generating with "
                             "stop strings, you must pass the model's tokenizer to the `tokenizer` argument of "
                             "`generate`.")
        handle = getattr(tokenizer, "_handle", None)
        return handle if isinstance(handle, Handle) else self._own_processor()

    def _own_processor(self) -> Handle:
        """The processor of the model's folder, opened at most once."""
        if "handle" not in self._opened or self._opened["handle"].closed:
            self._opened["handle"] = open_handle(self._folder, shared=True)
        return self._opened["handle"]

    def _folders_processor(self) -> PaliGemmaProcessor:
        """The same for ask(), as a processor."""
        if "processor" not in self._opened or self._opened["processor"].closed:
            self._opened["processor"] = PaliGemmaProcessor.from_pretrained(self._folder)
        return self._opened["processor"]

    def _answer(self, chosen: Plan, steps: Steps, result: Handle, as_torch: bool) -> Any:
        """What generate() returns."""
        rows = [array(result, c.lib.pg_result_get_ids, row) for row in range(chosen.n_rows)]
        width = chosen.prompt.shape[1]
        sequences = np.full((len(rows), width + max(map(len, rows))), chosen.pad_token_id, np.int64)
        sequences[:, :width] = chosen.prompt
        for sequence, new in zip(sequences, rows):
            sequence[width:width + len(new)] = new
        sequences = like_inputs(sequences, as_torch)
        if not chosen.return_dict:
            return sequences

        def of_steps(name: str) -> tuple[Any, ...]:
            values = np.stack([array(result, c.lib.pg_result_get_tensor, row, name.encode())
                               for row in range(len(rows))], axis=1)  # [new, B, vocab_size]
            for row, late in enumerate(steps.ended_scores if name == "scores" else []):
                for k, scores in enumerate(late, len(values) - len(late)):
                    values[k, row] = scores
            return tuple(like_inputs(step, as_torch) for step in values)

        return GenerateDecoderOnlyOutput(
            sequences=sequences, scores=of_steps("scores") if chosen.scores else None,
            logits=of_steps("logits") if chosen.logits else None, attentions=None, hidden_states=None,
            past_key_values=None)

    def compute_transition_scores(self, sequences: Any, scores: Any, beam_indices: Any = None,
                                  normalize_logits: bool = False) -> Any:
        """f32 [B, new]: the score of each new id of generate(..., return_dict_in_generate=True, output_scores=True);
        of beams with its beam_indices. normalize_logits=True: its log-probability, the log-softmax of the scores."""
        ids, values = to_numpy(sequences, np.int64), np.stack([to_numpy(step, np.float32) for step in scores])
        if normalize_logits:
            with np.errstate(divide="ignore", invalid="ignore"):
                values = values - values.max(axis=-1, keepdims=True)
                values = values - np.log(np.exp(values).sum(axis=-1, keepdims=True))
        if beam_indices is not None:
            found = _beams.transition_scores(ids, values, to_numpy(beam_indices, np.int64))
            return like_inputs(found, _inputs.any_torch(sequences, *scores))
        new = ids[:, -len(values):].T[:, :, None]
        found = np.ascontiguousarray(np.take_along_axis(values, new, axis=2)[:, :, 0].T)
        return like_inputs(found, _inputs.any_torch(sequences, *scores))

    detect = detect
    segment = segment
    ask = ask
    score = score

    # -- text as it comes

    @one_handle
    def stream(self, inputs: Any = None, processor: Any = None, *, mm_encoder_outputs: dict[str, Any] | None = None,
               features: Features | None = None, cancel: CancelFlag | None = None, generation_config: Any = None,
               skip_special_tokens: bool = True, on_token: Callable[[int], Any] | None = None,
               **arguments: Any) -> Iterator[str]:
        """The generated text piece by piece, never half a character: `for piece in model.stream(inputs, processor)`.

        inputs: what the processor returned, of one row; or its entries by name, `model.stream(**inputs, ...)`.
        processor: for its tokenizer; default: the one in the model's folder. Settings as generate()'s. Leaving the loop
        ends the generation. on_token: called with each new id, the final eos included, before its text comes.
        """
        named = {name: arguments.pop(name, None) for name in _inputs.NAMES}
        arrays = {**named, **{k: v for k, v in dict(inputs or {}).items() if k in _inputs.NAMES}}
        del arrays["labels"]
        features = given(self._handle, features, mm_encoder_outputs, arrays["pixel_values"])
        tokenizer = arguments.pop("tokenizer", processor)
        chosen = plan(self.generation_config, generation_config, arguments, _inputs.checked(arrays))
        self._handle.check_open()
        if chosen.beams.n > 1:
            raise ValueError("stream() follows one continuation, expected num_beams=1")
        if chosen.n_rows != 1:
            raise ValueError(f"stream() takes one row, found {chosen.n_rows}")
        handle = processor._handle if processor is not None else self._own_processor()
        as_torch = _inputs.any_torch(*arrays.values())
        return pieces(self._tokens(chosen, as_torch, features, cancel, tokenizer or handle), handle,
                      skip_special_tokens, on_token)

    def _tokens(self, chosen: Plan, as_torch: bool, features: Features | None, cancel: CancelFlag | None,
                tokenizer: Any) -> Iterator[int]:
        """The new ids of one row, as they come."""
        cancel = cancel or CancelFlag()
        if chosen.is_plain and chosen.eos_ids == self._eos_ids:
            return tokens(self._handle, self._inputs(chosen.arrays), use(features), cancel, chosen.max_new_tokens,
                          self.n_threads)
        return of_thread(lambda put: self._run_generate(chosen, Steps(chosen, as_torch, put), features, cancel,
                                                        tokenizer))


def _outputs(handle: Handle, hidden_states: bool, as_torch: bool, features: Features | None,
             n_layers: int = 0) -> PaliGemmaCausalLMOutput:
    """The tensors of pg_outputs that are there, in transformers' order. features: that the call was given."""
    values: dict[str, Any] = {}
    for name in ("loss", "logits", "hidden_states", "attentions", "image_hidden_states", "last_hidden_state"):
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
        if name == "attentions":
            found = found.reshape(n_layers, -1, *found.shape[1:])
        converted = tuple(like_inputs(layer, as_torch) for layer in found) \
            if name in ("hidden_states", "attentions") else like_inputs(found, as_torch)
        values[name] = converted
    return PaliGemmaCausalLMOutput(**values)
