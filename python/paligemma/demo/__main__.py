# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""python -m paligemma.demo MODEL: opens a model and serves the page and the API."""
from __future__ import annotations

import argparse
import ipaddress
import os
import socket
import sys

from .. import AutoProcessor, PaliGemmaForConditionalGeneration
from .question import Limits


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m paligemma.demo", formatter_class=argparse.ArgumentDefaultsHelpFormatter,
                                     description="A page to look at a model with, and /v1/chat/completions beside it.")
    limits = Limits()
    parser.add_argument("model", help="checkpoint folder, or a model id in the local Hugging Face cache; an adapter of PEFT, too")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; another than this one lets others in")
    parser.add_argument("--port", type=int, default=8000, help="0: one that is free")
    parser.add_argument("--allow-host", action="append", default=[], metavar="NAME", help="a name by which it may be called, too")
    parser.add_argument("--name", help="the model's id in the API; of a folder its last part by default")
    parser.add_argument("--weights", choices=("stored", "int8", "int4"), default="stored", help="quantize while opening")
    parser.add_argument("--threads", type=int, default=0, help="0: the CPUs that this process may use")
    parser.add_argument("--max-body", type=int, default=limits.body, metavar="BYTES", help="of a request, images in base64")
    parser.add_argument("--max-pixels", type=int, default=limits.pixels, help="of an image")
    parser.add_argument("--max-tokens", type=int, default=limits.new_tokens, help="of an answer")
    parser.add_argument("--queue", type=int, default=limits.queue, help="requests that may wait")
    given = parser.parse_args()
    for name, least in (("port", 0), ("threads", 0), ("max_body", 1), ("max_pixels", 1), ("max_tokens", 1), ("queue", 0)):
        if getattr(given, name) < least:
            parser.error(f"--{name.replace('_', '-')} is {getattr(given, name)}, expected {least} or more")
    return given


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def shown_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def main() -> int:
    given = arguments()
    try:
        import uvicorn

        from .app import LOOPBACK, build
    except ImportError as error:
        print(f"the demo needs starlette and uvicorn ({error}): in a clone: pip install \".[demo]\"", file=sys.stderr)
        return 1
    limits = Limits(given.max_body, given.max_pixels, new_tokens=given.max_tokens, queue=given.queue)
    try:
        family = socket.AF_INET6 if ":" in given.host else socket.AF_INET
        listener = socket.create_server((given.host, given.port), family=family)
    except (OSError, OverflowError) as error:
        print(f"{given.host} port {given.port}: {error}; --port has another, 0 for any", file=sys.stderr)
        return 1
    try:
        model = PaliGemmaForConditionalGeneration.from_pretrained(given.model, weights=given.weights, n_threads=given.threads)
        processor = AutoProcessor.from_pretrained(model.name_or_path)
    except (OSError, ValueError, NotImplementedError) as error:
        print(error, file=sys.stderr)
        return 1
    local = is_loopback(given.host)
    everywhere = given.host in ("", "0.0.0.0", "::")  # then by any name, but where some are given
    hosts = None if everywhere and not given.allow_host else [*LOOPBACK, shown_host(given.host), *given.allow_host]
    name = given.name or (os.path.basename(os.path.abspath(given.model)) if os.path.isdir(given.model) else given.model)
    print(f"http://{shown_host(given.host)}:{listener.getsockname()[1]}/ shows {name}; Ctrl-C ends it", flush=True)
    if not local:
        print(f"whoever reaches {given.host} can use it: there is no password", file=sys.stderr)
    config = uvicorn.Config(build(model, processor, name, limits, hosts), http="h11", ws="none", loop="asyncio",
                            lifespan="on", log_level="warning", access_log=False, server_header=False,
                            limit_concurrency=64, timeout_graceful_shutdown=1)
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        pass  # which it raises once more when all is closed
    return 0


if __name__ == "__main__":
    sys.exit(main())
