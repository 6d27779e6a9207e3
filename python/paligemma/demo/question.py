# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Reads the body of /v1/chat/completions. What would change the answer and cannot be followed is refused, never ignored."""
from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

# Fields that are no matter whatever they say, and fields with the values at which they change nothing.
_IGNORED = {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"}
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,), "logprobs": (False,), "top_logprobs": (0,), "frequency_penalty": (0,), "presence_penalty": (0,),
    "logit_bias": ({},), "tools": ([],), "tool_choice": ("none", "auto"), "parallel_tool_calls": (True, False),
    "response_format": ({"type": "text"},), "modalities": (["text"],)}
_READ = {"model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "stop", "stream",
         "stream_options", "objects"}
_FORMATS = (b"\x89PNG", b"\xff\xd8\xff")  # PNG and JPEG, which the library reads by itself


class Refused(Exception):
    """An error for the client, in OpenAI's shape."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None,
                 headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers or {}
        kind = "server_error" if status >= 500 else "invalid_request_error"
        self.content = {"error": {"message": message, "type": kind, "param": param, "code": code}}


@dataclass(frozen=True)
class Limits:
    """What one request, and all of them together, may take."""

    body: int = 20 << 20  # bytes
    pixels: int = 64_000_000  # of each image
    images: int = 4
    prompt: int = 8192  # bytes of UTF-8
    new_tokens: int = 1024
    queue: int = 8  # requests that wait while one is answered
    seconds: float = 30.0  # until the body has come


@dataclass(frozen=True)
class Question:
    """A request that was understood."""

    prompt: str
    images: tuple[bytes, ...]
    settings: dict[str, Any]  # keywords of model.stream()
    stop: tuple[str, ...]
    stream: bool
    usage: bool  # a stream ends with its usage
    objects: bool  # boxes and masks are wanted beside the text


def read(body: bytes, model: str, limits: Limits) -> Question:
    """The question in the body of a request to the model of this name; raises Refused."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is no JSON: {error}") from None
    if not isinstance(fields, dict):
        raise Refused(400, f"the body is a JSON {type(fields).__name__}, expected an object with \"messages\"")
    fields = {name: value for name, value in fields.items() if value is not None}
    for name, value in fields.items():
        if name not in _READ | _IGNORED and not any(value == same for same in _NEUTRAL.get(name, ())):
            raise Refused(400, f"{name}: this server cannot follow it; leave it out", name, "unsupported_parameter")
    if fields.get("model", model) != model:
        raise Refused(404, f"model is {_short(fields['model'])}, but this server has {model!r} alone", "model",
                      "model_not_found")
    prompt, images = _message(fields.get("messages"), limits)
    limit = "max_completion_tokens" if "max_completion_tokens" in fields else "max_tokens"
    settings = {"max_new_tokens": _number(fields, limit, 1, limits.new_tokens, min(256, limits.new_tokens), whole=True)}
    temperature, top_p = _number(fields, "temperature", 0, 2, None), _number(fields, "top_p", 0, 1, None)
    seed = _number(fields, "seed", -2**63, 2**63 - 1, None, whole=True)
    if temperature or (temperature is None and top_p is not None):
        settings.update(do_sample=True, temperature=float(temperature or 1), top_p=1.0 if top_p is None else top_p, top_k=0,
                        seed=seed)
    else:
        settings.update(do_sample=False)
    stop = fields.get("stop", [])
    stop = [stop] if isinstance(stop, str) else stop
    if not isinstance(stop, list) or len(stop) > 4 or not all(isinstance(text, str) and 0 < len(text) <= 256 for text in stop):
        raise Refused(400, f"stop is {_short(stop)}, expected a text or up to 4 of them, of 1 to 256 characters", "stop")
    options = fields.get("stream_options", {})
    if not isinstance(options, dict) or set(options) - {"include_usage", "include_obfuscation"}:
        raise Refused(400, f"stream_options is {_short(options)}, expected {{\"include_usage\": true}}", "stream_options")
    flags = {**fields, "include_usage": options.get("include_usage", False)}
    return Question(prompt, images, settings, tuple(stop),
                    *(_flag(flags, name) for name in ("stream", "include_usage", "objects")))


def _short(value: Any) -> str:
    """A value for a message."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _flag(fields: dict[str, Any], name: str) -> bool:
    if not isinstance(fields.get(name, False), bool):
        raise Refused(400, f"{name} is {_short(fields[name])}, expected true or false", name)
    return fields.get(name, False)


def _number(fields: dict[str, Any], name: str, low: float, high: float, default: Any, whole: bool = False) -> Any:
    value = fields.get(name, default)
    if name in fields and (isinstance(value, bool) or not isinstance(value, int if whole else (int, float))
                           or not low <= value <= high):
        kind = "an integer" if whole else "a number"
        raise Refused(400, f"{name} is {_short(value)}, expected {kind} from {low} to {high}", name)
    return value


def _message(messages: Any, limits: Limits) -> tuple[str, tuple[bytes, ...]]:
    """The prompt and the images of the one message that there may be."""
    if (not isinstance(messages, list) or len(messages) != 1 or not isinstance(messages[0], dict)
            or messages[0].get("role") != "user"):
        roles = [one.get("role") if isinstance(one, dict) else one for one in messages] if isinstance(messages, list) else messages
        raise Refused(400, f"messages has {_short(roles)}, expected one message with the role \"user\": PaliGemma has no "
                           "system prompt and no memory of a conversation; send each question with its image", "messages")
    parts = messages[0].get("content")
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise Refused(400, f"messages[0].content is {_short(parts)}, expected a list of one text part and at least one "
                           "image_url part: PaliGemma answers about images", "messages")
    texts, images = [], []
    for index, part in enumerate(parts):
        where = f"messages[0].content[{index}]"
        if part.get("type") == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif part.get("type") == "image_url" and isinstance(part.get("image_url"), dict):
            images.append(_image(part["image_url"].get("url"), f"{where}.image_url.url"))
        else:
            raise Refused(400, f"{where} is {_short(part)}, expected {{\"type\": \"text\", \"text\": ...}} or "
                               "{\"type\": \"image_url\", \"image_url\": {\"url\": \"data:image/jpeg;base64,...\"}}", "messages")
    if len(texts) != 1 or not 1 <= len(images) <= limits.images:
        raise Refused(400, f"messages[0].content has {len(texts)} text parts and {len(images)} images, expected one text "
                           f"and 1 to {limits.images} images", "messages")
    return texts[0], tuple(images)


def _image(url: Any, where: str) -> bytes:
    """The bytes of an image file that a data: URL holds."""
    if not isinstance(url, str):
        raise Refused(400, f"{where} is {_short(url)}, expected a data: URL", "messages")
    if url[:8].lower().startswith(("http://", "https://")):
        raise Refused(400, f"{where} is {_short(url)}: this server never fetches anything; send the image itself, as "
                           "\"data:image/jpeg;base64,...\"", "messages", "invalid_image_url")
    head, _, data = url.partition(",")
    if not (head.startswith("data:") and head.endswith(";base64")):
        raise Refused(400, f"{where} is {_short(url)}, expected \"data:image/png;base64,...\" or the same of a JPEG",
                      "messages", "invalid_image_url")
    try:
        image = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(400, f"{where} is no base64: {error}", "messages", "invalid_base64") from None
    if not image.startswith(_FORMATS):
        raise Refused(400, f"{where} begins with the bytes {image[:4].hex(' ') or '(none)'}, expected a PNG or JPEG file",
                      "messages", "invalid_image_format")
    return image
