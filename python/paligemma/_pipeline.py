# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""pipeline("image-text-to-text", model=...), in the shape of transformers' ImageTextToTextPipeline."""
from __future__ import annotations

import os
from typing import Any

from .adapters import PeftModel
from .model import PaliGemmaForConditionalGeneration
from .outputs import BatchFeature, torch_if_loaded
from .processor import PaliGemmaProcessor

_TASKS = ("image-text-to-text", "image-to-text")
_DEFAULT_NEW_TOKENS = 256  # of transformers' pipeline
# Arguments of pipeline() that open model and processor; the others are those of a call.
_OPENING = {"dtype", "torch_dtype", "device_map", "revision", "token", "trust_remote_code", "use_fast", "n_threads", "cpu",
            "weights", "arithmetic", "kv", "cache_dir", "attn_implementation", "low_cpu_mem_usage", "local_files_only"}
# Arguments of a call that are not the processor's.
_OF_CALL = {"max_new_tokens", "generate_kwargs", "return_full_text", "return_tensors", "stop_sequence",
            "skip_special_tokens", "clean_up_tokenization_spaces", "batch_size", "num_workers", "timeout"}


class ImageTextToTextPipeline:
    """Images and texts to [{"input_text": ..., "generated_text": ...}]."""

    task = "image-text-to-text"

    def __init__(self, model: PaliGemmaForConditionalGeneration, processor: PaliGemmaProcessor,
                 defaults: dict[str, Any]) -> None:
        """defaults: arguments of each call."""
        self.model, self.processor, self.tokenizer = model, processor, processor.tokenizer
        self._defaults = defaults

    @property
    def device(self) -> Any:
        return self.model.device

    def __call__(self, images: Any = None, text: Any = None, **arguments: Any) -> list[Any]:
        """images and text as the processor takes them: one, or a list with as many texts; or {"images":, "text":} in
        one argument, or an iterable of those, whose results are a list of lists.

        max_new_tokens (256 without another setting), generate_kwargs: settings of generate(). return_full_text=False:
        the new text without the prompt. return_tensors=True: "generated_token_ids", prompt and new ids, in place of
        texts. stop_sequence: text at which to end. Other arguments are the processor's.
        """
        arguments = {**self._defaults, **arguments}
        if images is None and text is None:
            raise ValueError("You must at least provide either text or images.")
        if text is None and isinstance(images, (dict, BatchFeature)):
            return self._run(images["images"], images["text"], arguments)
        if text is None and _holds_inputs(images):
            return [self._run(each["images"], each["text"], arguments) for each in images]
        if text is None:
            raise ValueError("You must provide text for this pipeline.")
        if isinstance(text, (list, tuple)) and text and not isinstance(text[0], str):
            self.processor.apply_chat_template(text)  # raises: PaliGemma has no chat template
        return self._run(images, text, arguments)

    def _settings(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """generate()'s."""
        settings = dict(arguments.get("generate_kwargs") or {})
        stop = arguments.get("stop_sequence")
        if stop is not None:
            settings.update(stop_strings=stop, tokenizer=self.processor)
        if arguments.get("max_new_tokens") is not None:
            if "max_new_tokens" in settings:
                raise ValueError("'max_new_tokens' is defined twice, once in 'generate_kwargs' and once as a direct "
                                 "parameter, please use only one")
            settings["max_new_tokens"] = arguments["max_new_tokens"]
        configs = [settings.get("generation_config"), self.model.generation_config]
        names = ("max_new_tokens", "max_length")
        if not any(settings.get(name) is not None or any(getattr(config, name, None) is not None for config in configs)
                   for name in names):
            settings["max_new_tokens"] = _DEFAULT_NEW_TOKENS
        return {**settings, "return_dict_in_generate": False}

    def _run(self, images: Any, text: Any, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        full, tensors = arguments.get("return_full_text"), arguments.get("return_tensors")
        if full is not None and tensors is not None:
            raise ValueError("`return_full_text` is mutually exclusive with `return_tensors`")
        settings = self._settings(arguments)
        keywords = {name: value for name, value in arguments.items() if name not in _OF_CALL}
        of_generate = {name: keywords.pop(name) for name in list(keywords) if name in ("do_sample", "num_beams", "seed")}
        texts = [text] if isinstance(text, str) else list(text)
        if len(texts) > 1:
            keywords.setdefault("padding", True)
        inputs = self.processor(images=images, text=text, return_tensors="pt" if torch_if_loaded() else "np", **keywords)
        sequences = self.model.generate(**inputs, **settings, **of_generate)
        n = len(sequences) // len(texts)
        prompts = [prompt for prompt in texts for _ in range(n)]
        if tensors:
            return [{"input_text": prompt, "generated_token_ids": ids} for prompt, ids in zip(prompts, sequences)]
        skips = arguments.get("skip_special_tokens")
        skips = True if skips is None else bool(skips)
        # both decoded in the same way, so that the one begins with the other
        given = self.processor.batch_decode(inputs["input_ids"], skip_special_tokens=skips)
        made = self.processor.batch_decode(sequences, skip_special_tokens=skips)
        records = []
        for row, (prompt, whole) in enumerate(zip(prompts, made)):
            start = whole.find(given[row // n])
            new = whole[start + len(given[row // n]):] if 0 <= start <= 2 else whole
            records.append({"input_text": prompt, "generated_text": new if full is False else prompt + new})
        return records


def _holds_inputs(images: Any) -> bool:
    """Whether it is an iterable of {"images":, "text":}: a list of them, a generator, a data set."""
    if isinstance(images, (str, bytes, os.PathLike)) or hasattr(images, "__array__"):
        return False
    if isinstance(images, (list, tuple)):
        return bool(images) and isinstance(images[0], (dict, BatchFeature))
    return hasattr(images, "__iter__") or hasattr(images, "__getitem__")


def pipeline(task: str | None = None, model: Any = None, processor: Any = None, *, tokenizer: Any = None,
             image_processor: Any = None, device: Any = None, model_kwargs: dict[str, Any] | None = None,
             **arguments: Any) -> ImageTextToTextPipeline:
    """transformers' pipeline() for "image-text-to-text" (also by its name "image-to-text").

    model: a folder or id, or an opened model or PeftModel; processor: likewise, by default that of the model's folder (of
    an adapter, its base's). dtype, device,
    device_map, revision, ...: as PaliGemmaForConditionalGeneration.from_pretrained() takes them; further arguments are
    defaults of each call.
    """
    if task is not None and task not in _TASKS:
        raise ValueError(f"the task is {task!r}, expected \"image-text-to-text\"")
    if model is None:
        raise ValueError("model is None, expected a checkpoint folder, an id, or a PaliGemmaForConditionalGeneration")
    opening = {**(model_kwargs or {}), **{name: arguments.pop(name) for name in list(arguments) if name in _OPENING}}
    if isinstance(model, PeftModel):
        model = model.get_base_model()
    opened = model
    if not isinstance(model, PaliGemmaForConditionalGeneration):
        opened = PaliGemmaForConditionalGeneration.from_pretrained(model, **opening)
    if device is not None and device != -1:
        opened.to(device)
    source = processor or tokenizer or image_processor or opened.name_or_path
    if not isinstance(source, PaliGemmaProcessor):
        names = {"revision", "cache_dir", "token", "trust_remote_code", "use_fast", "local_files_only"}
        source = PaliGemmaProcessor.from_pretrained(source, **{k: v for k, v in opening.items() if k in names})
    return ImageTextToTextPipeline(opened, source, arguments)
