# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""The server: one model, whose thread answers one request after another; the others wait in a queue of limited length."""
from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import math
import re
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, AsyncIterator, Iterable, Iterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from .. import CancelFlag, Cancelled, MaskDecoder, parse_answer
from .question import Limits, Question, Refused, read

_log = logging.getLogger("paligemma.demo")
_PAGE = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


class Answerer:
    """What the thread of the model does. The last image stays encoded, for the next question about it."""

    def __init__(self, model: Any, processor: Any, limits: Limits) -> None:
        self.model, self.processor, self.limits = model, processor, limits
        self._seen: tuple[bytes, Any] = (b"", None)
        try:
            self.decoder: MaskDecoder | None = MaskDecoder.from_pretrained(model.name_or_path)
        except FileNotFoundError:
            self.decoder = None  # boxes alone

    def events(self, question: Question, cancel: CancelFlag) -> Iterator[tuple[str, Any]]:
        """("text", piece) and ("objects", list) as they come, and ("end", (finish reason, usage)) at last."""
        key = b"".join(hashlib.sha256(image).digest() for image in question.images)
        try:  # alpha: what the page shows, too
            pixels = None if key == self._seen[0] else self.processor.image_processor(
                list(question.images), alpha="white", max_image_pixels=self.limits.pixels, return_tensors="np")["pixel_values"]
            inputs = self.processor(text=question.prompt, image_counts=len(question.images), return_tensors="np",
                                    max_text_bytes=self.limits.prompt)
        except (ValueError, OSError, NotImplementedError) as error:
            raise Refused(400, str(error), "messages") from None
        if pixels is not None:
            self._seen = (key, self.model.encode_image(pixels, cancel=cancel))
        ids: list[int] = []
        text, held, reason = "", "", "length"
        for piece in self.model.stream(inputs, self.processor, features=self._seen[1], cancel=cancel, num_beams=1,
                                       on_token=ids.append, **question.settings):
            new, held, stopped = until_stop(held + piece, question.stop)
            text += new
            if new:
                yield "text", new
            if question.objects and ";" in new:
                yield "objects", self._objects(text)
            if stopped:
                reason, held = "stop", ""
                break
        else:
            ends = self.model.generation_config.eos_token_id
            reason = "stop" if ids and ids[-1] in (ends if isinstance(ends, list) else [ends]) else "length"
        if held:
            yield "text", held
        if question.objects:
            yield "objects", self._objects(text + held)
        n_prompt = inputs["input_ids"].shape[1]
        yield "end", (reason, {"prompt_tokens": n_prompt, "completion_tokens": len(ids), "total_tokens": n_prompt + len(ids)})

    def _objects(self, text: str) -> list[dict[str, Any]]:
        """The objects of an answer; box: x0, y0, x1, y1 in parts of the image's width and height; mask: 64 x 64 bytes
        that cover the box, 128 and more are inside."""
        found = []
        for thing in parse_answer(text, (1, 1)):
            if thing.box and not thing.broken:
                found.append({"label": thing.label, "box": list(thing.box)})
                if self.decoder is not None and len(thing.segs) == 16:
                    mask = (self.decoder.decode(thing.segs) * 127 + 128).clip(0, 255).astype("uint8")
                    found[-1]["mask"] = base64.b64encode(mask.tobytes()).decode()
        return found


def until_stop(text: str, stop: Iterable[str]) -> tuple[str, str, bool]:
    """-> what of the text can be sent, what may be the beginning of a stop string, and whether one came."""
    places = [text.index(end) for end in stop if end in text]
    if places:
        return text[:min(places)], "", True
    longest = max((n for end in stop for n in range(1, len(end)) if text.endswith(end[:n])), default=0)
    return text[:len(text) - longest], text[len(text) - longest:], False


class Job:
    """A request on its way: the model's thread puts events into a queue of the server's."""

    def __init__(self, question: Question) -> None:
        self.question, self.cancel = question, CancelFlag()
        self.loop, self.queue = asyncio.get_running_loop(), asyncio.Queue()  # type: ignore[var-annotated]

    def put(self, kind: str, value: Any = None) -> None:
        self.loop.call_soon_threadsafe(self.queue.put_nowait, (kind, value))

    def run(self, answerer: Answerer) -> None:
        try:
            for kind, value in answerer.events(self.question, self.cancel):
                self.put(kind, value)
        except Cancelled:
            self.put("gone")
        except Refused as error:
            self.put("error", error)
        except Exception as error:
            _log.exception("a request failed")
            self.put("error", Refused(500, f"{type(error).__name__}: {error}"))

    async def next(self) -> tuple[str, Any]:
        kind, value = await self.queue.get()
        if kind == "error":
            raise value
        if kind == "gone":
            raise ClientDisconnect
        return kind, value


class Chat:
    """POST /v1/chat/completions. An ASGI application, as a request holds its place until its last byte is sent."""

    def __init__(self, answerer: Answerer, model_id: str) -> None:
        self.answerer, self.model_id, self.limits = answerer, model_id, answerer.limits
        self.n_places, self.seconds = 1 + self.limits.queue, 1.0  # seconds: from a request to its answer, lately
        self.thread = ThreadPoolExecutor(1, "paligemma demo")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        full, wait = None, str(math.ceil(self.seconds))
        if self.n_places < 1:
            full = Refused(503, f"{self.limits.queue} requests are waiting, the most that may; try again in {wait} s",
                           code="queue_full", headers={"Retry-After": wait})
        self.n_places -= full is None
        try:
            body = await body_of(Request(scope, receive), self.limits, full)
            await self._answer(Job(read(body, self.model_id, self.limits)), receive, send)
        except ClientDisconnect:
            pass  # nobody is there to be told
        finally:
            self.n_places += full is None

    async def _answer(self, job: Job, receive: Any, send: Any) -> None:
        async def until_gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            job.put("gone")

        begin, waiting = time.monotonic(), asyncio.create_task(until_gone())
        future = self.thread.submit(job.run, self.answerer)
        try:
            first = await job.next()  # errors of the image or the prompt come now, while the status can still say so
            await (self._stream if job.question.stream else self._whole)(job, first, send)
            self.seconds = 0.8 * self.seconds + 0.2 * (time.monotonic() - begin)
        finally:
            waiting.cancel()
            job.cancel.request()
            future.cancel()

    def _frame(self, kind: str, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        return {"object": kind, "created": int(time.time()), "model": self.model_id, "choices": choices, **more}

    async def _whole(self, job: Job, event: tuple[str, Any], send: Any) -> None:
        text, more = "", {}
        while event[0] != "end":
            if event[0] == "text":
                text += event[1]
            else:
                more["objects"] = event[1]
            event = await job.next()
        choice = {"index": 0, "message": {"role": "assistant", "content": text, "refusal": None}, "logprobs": None,
                  "finish_reason": event[1][0]}
        content = self._frame("chat.completion", [choice], id=f"chatcmpl-{uuid.uuid4().hex}", usage=event[1][1], **more)
        await JSONResponse(content)({"type": "http"}, None, send)  # type: ignore[arg-type]

    async def _stream(self, job: Job, event: tuple[str, Any], send: Any) -> None:
        name = f"chatcmpl-{uuid.uuid4().hex}"

        async def line(data: Any, more: bool = True) -> None:
            text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
            await send({"type": "http.response.body", "body": f"data: {text}\n\n".encode(), "more_body": more})

        async def chunk(delta: dict[str, Any], reason: str | None = None, **more: Any) -> None:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
            await line(self._frame("chat.completion.chunk", [choice], id=name, **more))

        await send({"type": "http.response.start", "status": 200, "headers": [
            (b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]})
        try:
            await chunk({"role": "assistant", "content": ""})
            while event[0] != "end":
                await (chunk({"content": event[1]}) if event[0] == "text" else chunk({}, objects=event[1]))
                event = await job.next()
        except Refused as error:  # the status is sent, so the stream says it
            return await line(error.content, more=False)
        await chunk({}, event[1][0])
        if job.question.usage:
            await line(self._frame("chat.completion.chunk", [], id=name, usage=event[1][1]))
        await line("[DONE]", more=False)


async def body_of(request: Request, limits: Limits, error: Refused | None = None) -> bytes:
    """The body, if it is JSON, within its limit and in time. error: why it is refused in any case; a body that is refused is
    read and forgotten, for a client that is cut off while it sends sees no answer."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if error is None and kind != "application/json":  # a form of another site's page could send others without asking
        error = Refused(415, f"Content-Type is {kind!r}, expected application/json")

    async def all_of_it(error: Refused | None) -> bytes:
        body, n_read = bytearray(), 0
        async for part in request.stream():
            n_read += len(part)
            if n_read > limits.body and error is None:
                error = Refused(413, f"the body has more than {limits.body} bytes, the most that is taken; send smaller images")
                body.clear()
            if error is None:
                body += part
            elif n_read > 4 * limits.body:
                break
        if error is not None:
            raise error
        return bytes(body)

    try:
        return await asyncio.wait_for(all_of_it(error), limits.seconds)
    except asyncio.TimeoutError:
        raise error or Refused(408, f"the body did not come within {limits.seconds:g} seconds") from None


class Guard:
    """Lets in what was sent to this server by name, and from its own page: a page of another site whose name was made to
    lead here (DNS rebinding) has another Host, and one that just sends has another Origin."""

    def __init__(self, app: Any, hosts: Iterable[str] | None) -> None:
        """hosts: names that are let in; None: any."""
        self.app, self.hosts = app, None if hosts is None else {host.lower() for host in hosts}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            host, origin = (headers.get(name, b"").decode("latin-1") for name in (b"host", b"origin"))
            name = re.sub(r":\d*$", "", host).lower()
            error = None
            if self.hosts is not None and name not in self.hosts:
                error = Refused(403, f"the Host is {host!r}, expected one of {', '.join(sorted(self.hosts))} "
                                     "(--allow-host NAME adds one)", code="host_not_allowed")
            elif origin and origin.split("://")[-1].lower() != host.lower():
                error = Refused(403, f"the request comes from a page of {origin!r}; only this server's own page may ask",
                                code="origin_not_allowed")
            if error is not None:
                return await on_refused(None, error)(scope, receive, send)
        await self.app(scope, receive, send)


def on_refused(_: Any, error: Any) -> Response:
    if isinstance(error, HTTPException):
        error = Refused(error.status_code, f"{error.detail}: there are GET /, GET /v1/models and POST /v1/chat/completions",
                        headers=dict(error.headers or {}))
    return JSONResponse(error.content, error.status, {**error.headers, "Connection": "close"})


def build(model: Any, processor: Any, model_id: str, limits: Limits = Limits(),
          hosts: Iterable[str] | None = LOOPBACK) -> Any:
    """The ASGI application for an opened model. hosts: names by which it may be called; None: any."""
    chat = Chat(Answerer(model, processor, limits), model_id)
    entry = {"id": model_id, "object": "model", "created": int(time.time()), "owned_by": "libpaligemma"}
    hashes = ["'sha256-" + base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() + "'"
              for code in re.findall(r"<script>(.*?)</script>", _PAGE, re.DOTALL)]
    policy = ("default-src 'none'; img-src blob: data:; connect-src 'self'; style-src 'unsafe-inline'; base-uri 'none'; "
              f"form-action 'none'; frame-ancestors 'none'; script-src {' '.join(hashes)}")

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        yield
        chat.thread.shutdown()  # requests are over by now, or were cancelled

    async def page(_: Request) -> Response:
        return HTMLResponse(_PAGE, headers={"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff"})

    async def models(_: Request) -> Response:
        return JSONResponse({"object": "list", "data": [entry]})

    app = Starlette(lifespan=lifespan, exception_handlers={Refused: on_refused, HTTPException: on_refused}, routes=[
        Route("/", page), Route("/v1/models", models), Route("/v1/chat/completions", chat, methods=["POST"])])
    return Guard(app, hosts)
