# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""save_pretrained() of a tokenizer: its files as they were read, with the settings as they are now."""
from __future__ import annotations

import json
import os
import shutil
from typing import Any

from ._encoding import Template
from ._replacing import replacing
from ._tokenizer_files import NAMES, TokenizerFiles, content, read_object, spans

_SIDES = {"padding_side": "left", "truncation_side": "right"}


def write_text(path: str, text: str) -> str:
    """A file that appears whole or not at all; returns its path."""
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def save_tokenizer(tokenizer: Any, folder: str, target: str, prefix: str | None) -> tuple[str, ...]:
    """Writes to `target` the files of `folder`, which `tokenizer` was opened from -> their paths."""
    if os.path.isfile(target):
        raise NotADirectoryError(f"Provided path ({target}) should be a directory, not a file")
    os.makedirs(target, exist_ok=True)
    start = f"{prefix}-" if prefix else ""
    files = TokenizerFiles(folder, {}, tokenizer._class_is_gemma)
    config = _config(tokenizer, folder, files)
    written = [write_text(os.path.join(target, start + "tokenizer_config.json"), _json(config))]
    token_map = read_object(folder, "special_tokens_map.json")
    if token_map is not None:
        changed = {name: _token(tokenizer, token_map, name) for name in token_map if name in NAMES}
        written.append(write_text(os.path.join(target, start + "special_tokens_map.json"),
                                  _json({**token_map, **changed})))
    for name in ("added_tokens.json", "chat_template.jinja", "tokenizer.json", "tokenizer.model"):
        source, path = os.path.join(folder, name), os.path.join(target, start + name)
        if not os.path.exists(source):
            continue
        written.append(path)
        if name == "tokenizer.json":
            with open(source, encoding="utf-8") as file:
                text = file.read()
            write_text(path, _with_template(tokenizer, files, _with_tokens(tokenizer, text)))
        elif not os.path.exists(path) or not os.path.samefile(source, path):
            shutil.copyfile(source, path)
    return tuple(written)


def _token(tokenizer: Any, values: dict[str, Any], name: str) -> Any:
    """A name's token as the file writes it where that has not changed."""
    token = tokenizer._named[name]
    return values[name] if name in values and content(values[name]) == token else token


def _config(tokenizer: Any, folder: str, files: TokenizerFiles) -> dict[str, Any]:
    config = read_object(folder, "tokenizer_config.json") or {}
    for name, token in tokenizer._named.items():
        if token != files.named.get(name) or name in config:
            config[name] = _token(tokenizer, config, name)
    config["model_max_length"] = tokenizer.model_max_length
    for name, side in _SIDES.items():
        value = getattr(tokenizer, name)
        if name in config or value != (side if name == "truncation_side" or files.is_gemma else "right") or \
                files.json.get("padding" if name == "padding_side" else "truncation"):
            config[name] = value
    if tokenizer.model_input_names != ["input_ids", "attention_mask"] or "model_input_names" in config:
        config["model_input_names"] = tokenizer.model_input_names
    if tokenizer._class_is_gemma:
        config["tokenizer_class"] = "GemmaTokenizer"
    elif tokenizer._class_is_gemma is False and files.has_json:
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    if files.extra is not None and (tokenizer._extra or files.extra):
        config["extra_special_tokens"] = tokenizer._extra
        config.pop("additional_special_tokens", None)
    for name in ("add_bos_token", "add_eos_token"):
        value = config.pop(name, None)
        if not files.has_json and (getattr(tokenizer, name) or value is not None):
            config[name] = getattr(tokenizer, name)  # beside a tokenizer.json it is the template that says it
    if tokenizer._of_processor and (not files.has_json or "added_tokens_decoder" in config):
        config["added_tokens_decoder"] = {str(i): token.as_json() for i, token in tokenizer.added_tokens_decoder.items()}
    return config


def _spliced(text: str, name: str, value: Any) -> str:
    """JSON text of an object with another value for one key; the rest stays as it was written."""
    found = spans(text, (name,)).get(name)
    written = json.dumps(value, ensure_ascii=False)
    if found is None:
        at = text.index("{") + 1
        return f'{text[:at]}{json.dumps(name)}:{written},{text[at:]}'
    return text[:found[0]] + written + text[found[1]:]


def _with_tokens(tokenizer: Any, text: str) -> str:
    """The added tokens of the processor, where tokenizer.json lacks them."""
    if not tokenizer._of_processor:
        return text
    found = spans(text, ("added_tokens",)).get("added_tokens")
    there = json.loads(text[found[0]:found[1]]) if found else []
    known = {token["content"] for token in there}
    added = tokenizer.added_tokens_decoder
    if all(str(token) in known for token in added.values()):
        return text
    return _spliced(text, "added_tokens", [{"id": i, **token.as_json()} for i, token in added.items()])


def _with_template(tokenizer: Any, files: TokenizerFiles, text: str) -> str:
    """post_processor as the tokenizer is set now."""
    now = tokenizer._template
    try:
        was = Template.of_json(files.json.get("post_processor")) or Template.of_flags(None, None)
    except NotImplementedError:  # one that is not followed: only add_bos_token and add_eos_token replaced it
        was = None
    same = was is not None and all(was.parts(pair) == now.parts(pair) for pair in (False, True))
    return text if same else _spliced(text, "post_processor", now.as_json(tokenizer.convert_ids_to_tokens))
