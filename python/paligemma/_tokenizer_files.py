# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""What the files of a tokenizer say beside its vocabulary: the names of special tokens and the template.

Follows transformers' PreTrainedTokenizerBase._from_pretrained and TokenizersBackend.__init__. Pieces, ids, the flags
of added tokens, sides and lengths are the library's.
"""
from __future__ import annotations

import json
import os
import re
from typing import Any

NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_GEMMA = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>",
          "mask_token": "<mask>"}
_SPACE = re.compile(r"[ \t\r\n]*")
_NEEDED = ("padding", "post_processor")


def read_object(folder: str, name: str) -> dict[str, Any] | None:
    """A JSON object in a file of the folder; None without the file."""
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as file:
        value = json.load(file)
    if not isinstance(value, dict):
        raise OSError(f"{path}: expected a JSON object")
    return value


def spans(text: str, stop: tuple[str, ...] = ()) -> dict[str, tuple[int, int]]:
    """Where the value of each key of a JSON object lies in its text; from "model" on only until all of `stop` are found.

    The vocabulary of a tokenizer.json, tens of megabytes, is thus seldom parsed.
    """
    decoder, found = json.JSONDecoder(), {}
    at = _SPACE.match(text, text.index("{") + 1).end()
    while text[at] != "}":
        key, at = decoder.raw_decode(text, at)
        at = _SPACE.match(text, at).end()
        start = _SPACE.match(text, at + 1).end()  # after the colon
        if key == "model" and stop and all(name in found for name in stop):
            break
        _, at = decoder.raw_decode(text, start)
        found[key] = (start, at)
        at = _SPACE.match(text, at).end()
        if text[at] == ",":
            at = _SPACE.match(text, at + 1).end()
    return found


def content(token: Any) -> str | None:
    """The text of a token that a file writes as a string or as an object, or that is an AddedToken."""
    if token is None or isinstance(token, str):
        return token
    return token["content"] if isinstance(token, dict) else str(token)


class TokenizerFiles:
    """config: tokenizer_config.json with the keywords of from_pretrained() over it; the rest is derived."""

    def __init__(self, folder: str, keywords: dict[str, Any], is_gemma: bool | None) -> None:
        saved = read_object(folder, "tokenizer_config.json") or {}
        self.has_json = os.path.exists(os.path.join(folder, "tokenizer.json"))
        if self.has_json:  # its post_processor counts
            saved.pop("add_bos_token", None)
            saved.pop("add_eos_token", None)
        class_name = saved.get("tokenizer_class")
        self.is_gemma = is_gemma
        if is_gemma is None:
            self.is_gemma = isinstance(class_name, str) and class_name.startswith("GemmaTokenizer")
        self.config: dict[str, Any] = {**saved, **keywords}
        self.map: dict[str, Any] = {}
        if "added_tokens_decoder" not in saved:
            self.map = read_object(folder, "special_tokens_map.json") or {}
            self.map = {k: v for k, v in self.map.items() if not keywords.get(k)}
        self.json = _read_head(folder) if self.has_json else {}
        padding = self.json.get("padding") or {}
        if not self.is_gemma and padding.get("pad_token") is not None:  # GemmaTokenizer has a default of its own
            self.config.setdefault("pad_token", padding["pad_token"])
        self.side_is_given = "padding_side" in self.config or bool(padding)
        self.named = self._named()
        self.chat_template = self.config.get("chat_template")
        if self.chat_template is None and os.path.exists(os.path.join(folder, "chat_template.jinja")):
            self.chat_template = "chat_template.jinja"

    def setting(self, name: str, otherwise: Any = None) -> Any:
        value = self.map.get(name, self.config.get(name))
        return otherwise if value is None else value

    def _named(self) -> dict[str, str]:
        named: dict[str, str] = {}
        bare = {} if self.has_json else {name: _GEMMA[name] for name in ("bos_token", "eos_token", "unk_token")}
        defaults = _GEMMA if self.is_gemma else bare
        for name in NAMES:
            there = name in self.map or name in self.config
            value = content(self.map.get(name, self.config.get(name))) if there else defaults.get(name)
            if value is not None:
                named[name] = value
        for source in (self.config, self.map):  # such as image_token
            for name, value in source.items():
                if name.endswith("_token") and name not in NAMES and isinstance(value, (str, dict)):
                    named[name] = content(value)  # type: ignore[assignment]
        extra = self.setting("extra_special_tokens")
        if isinstance(extra, dict):
            named.update({name: content(value) for name, value in extra.items()})  # type: ignore[misc]
        return named

    @property
    def extra(self) -> list[str] | None:
        """Extra special tokens by the files; None where those of tokenizer.model count."""
        given = self.config.get("extra_special_tokens")
        if self.config.get("additional_special_tokens") and not given:
            given = self.config["additional_special_tokens"]
        more = self.map.get("extra_special_tokens")
        if not isinstance(given, list) and not isinstance(more, list):
            older = self.map.get("additional_special_tokens")
            if self.has_json and isinstance(older, list):
                return [content(token) for token in older]  # type: ignore[misc]
            return [] if self.has_json or isinstance(given, dict) else None
        found: list[str] = []
        for token in [*(given if isinstance(given, list) else []), *(more if isinstance(more, list) else [])]:
            if content(token) not in found:
                found.append(content(token))  # type: ignore[arg-type]
        return found


def _read_head(folder: str) -> dict[str, Any]:
    """The members of tokenizer.json that are needed here."""
    with open(os.path.join(folder, "tokenizer.json"), encoding="utf-8") as file:
        text = file.read()
    return {name: json.loads(text[start:end]) for name, (start, end) in spans(text, _NEEDED).items()
            if name in _NEEDED}
