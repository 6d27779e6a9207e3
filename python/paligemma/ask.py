# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""model.ask(): prompts about one image, which the model looks at once."""
from __future__ import annotations

from typing import Any, Iterator, Sequence

from ._features import Features
from ._images import as_rows
from ._run import CancelFlag
from .processor import PaliGemmaProcessor

_DEFAULT_NEW_TOKENS = 128  # as the tool `paligemma`; generate() has 20, as transformers has


class AskedImage:
    """An image that was encoded once: call it with a prompt, or with a list of them; close() or `with` frees it.

        look = model.ask("street.jpg")
        look("caption en")
        look(["answer en how many cars?", "detect car"])

    Every prompt is answered by itself: the model knows nothing of those before. features: what generate() and
    stream() of the model take, too; processor: the one that reads the prompts.
    """

    def __init__(self, model: Any, features: Features, processor: PaliGemmaProcessor) -> None:
        self._model, self.features, self.processor = model, features, processor

    def __call__(self, prompt: str | Sequence[str], **settings: Any) -> Any:
        """The answer, a str; for a list of prompts a list. settings: generate()'s, such as max_new_tokens (default: what
        generation_config says, else 128), do_sample and cancel."""
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if not all(isinstance(text, str) for text in prompts):
            raise TypeError(f"prompt is {prompt!r}, expected a str or a list of them")
        if not prompts:
            return []
        if settings.get("num_return_sequences", 1) != 1:
            raise ValueError("num_return_sequences: ask() gives one answer to each prompt; use generate()")
        inputs = self.processor(text=prompts, image_counts=[1] * len(prompts), padding=True, return_tensors="np")
        settings = {"tokenizer": self.processor, **self._limit(settings), "return_dict_in_generate": False,
                    "num_return_sequences": 1}  # whatever the folder says
        ids = self._model.generate(**inputs, features=self.features, **settings)
        answers = self.processor.batch_decode(ids[:, inputs["input_ids"].shape[1]:], skip_special_tokens=True)
        return answers[0] if isinstance(prompt, str) else answers

    def stream(self, prompt: str, **settings: Any) -> Iterator[str]:
        """The answer piece by piece, as model.stream() gives it."""
        inputs = self.processor(text=prompt, image_counts=1, return_tensors="np")
        return self._model.stream(inputs, self.processor, features=self.features, **self._limit(settings))

    def score(self, prompt: str, answers: Sequence[Any], **settings: Any) -> Any:
        """How likely each answer is: model.score() with the features. settings: eos, literal, max_context, cancel."""
        return self._model.score(self.features, prompt, answers, processor=self.processor, **settings)

    def _limit(self, settings: dict[str, Any]) -> dict[str, Any]:
        places = [settings.get, *(lambda name, of=of: getattr(of, name, None)
                                  for of in (settings.get("generation_config"), self._model.generation_config))]
        if any(place(name) is not None for place in places for name in ("max_new_tokens", "max_length")):
            return settings
        return {**settings, "max_new_tokens": _DEFAULT_NEW_TOKENS}

    @property
    def closed(self) -> bool:
        return self.features.closed

    def close(self) -> None:
        """Frees the features; the model stays open."""
        self.features.close()

    def __enter__(self) -> AskedImage:
        self.features.__enter__()
        return self

    def __exit__(self, *unused: Any) -> None:
        self.close()


def ask(model: Any, image: Any, prompt: str | Sequence[str] | None = None, *, processor: PaliGemmaProcessor | None = None,
        exif: bool = True, alpha: str = "drop", cancel: CancelFlag | None = None, **settings: Any) -> Any:
    """Answers prompts about one image, which is encoded once.

    image: of any kind that the processor takes. prompt: None gives an AskedImage, to be called with prompts; a str gives
    its answer, a list of them a list of answers. processor: default, the one in the model's folder. exif, alpha: as
    of the processor. settings: generate()'s."""
    if isinstance(as_rows(image), list):
        raise ValueError("image is a list, expected one image: model.ask(image) for each")
    if prompt is None and settings:
        raise TypeError(f"{', '.join(settings)}: settings belong to prompts: model.ask(image)(prompt, ...)")
    if processor is None:
        processor = model._folders_processor()
    if prompt is not None:
        model = model._with_handle()  # image and prompt see the same adapters
    pixels = processor.image_processor(image, exif=exif, alpha=alpha, return_tensors="np")["pixel_values"]
    look = AskedImage(model, model.encode_image(pixels, cancel=cancel), processor)
    if prompt is None:
        return look
    with look:
        return look(prompt, cancel=cancel, **settings)
